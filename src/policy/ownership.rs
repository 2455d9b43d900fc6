//! Ownership: an application gets exactly the routes that its own router defines.
//!
//! Routers are read once, at start, and compiled into a [`RouteIndex`], so that "the new application
//! answers what it defines, the old one the rest" costs neither a second call nor a guess from a 404.
//! The index says how strongly an application claims a request ([`Strength`]); the
//! [`Router`](crate::route::Router) gives the request to the strongest claim, and among equals to the
//! first. Everything that is ruled about methods and slashes follows from that one order.
//!
//! The index is a tree over path segments. A route whose segments are literals or `[^/]+` needs no
//! regular expression at all; where a pattern says more, its expression decides, but only for
//! the few routes that share the literal segments of the path. A thousand routes cost what ten cost.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use fancy_regex::{Regex, RegexBuilder};
use memchr::memchr;
use regex_syntax::hir::{Class, ClassUnicodeRange, Hir, HirKind, Look};
use tracing::warn;

use crate::app::{Route, RouteKind, RouteTable, RoutesError};
use crate::route::MatchedRoute;

/// What a router is asked: may this request be answered here?
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Decoded, below the mount of the application.
    pub path: &'a str,
    /// Of a CORS preflight the method that it asks for.
    pub method: &'a str,
    pub kind: RouteKind,
    /// Lower case, without the port.
    pub host: Option<&'a str>,
}

/// How strongly an application claims a request, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strength {
    /// The application knows nothing of the path.
    Nothing,
    /// It would redirect to the path with, or without, a slash at its end.
    Redirect,
    /// It defines the path, not the method: its 405 is the right answer.
    Path,
    /// It defines path and method.
    Route,
}

/// An application's claim on one request.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    pub strength: Strength,
    /// The route that makes the claim, by its place in the table.
    route: Option<(usize, &'a Arc<str>)>,
}

impl Claim<'_> {
    pub fn matched(&self) -> Option<MatchedRoute> {
        self.route.map(|(index, template)| MatchedRoute {
            index,
            template: Arc::clone(template),
        })
    }
}

/// The routes of one application, compiled.
pub struct RouteIndex {
    routes: Vec<Compiled>,
    root: Node,
    asks_host: bool,
    redirects: bool,
}

impl fmt::Debug for RouteIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteIndex")
            .field("routes", &self.routes.len())
            .finish_non_exhaustive()
    }
}

impl RouteIndex {
    /// Compiles the routes of an application.
    ///
    /// # Errors
    /// [`RoutesError::Route`] names the first route whose pattern cannot be compiled.
    pub fn compile(table: &RouteTable) -> Result<Self, RoutesError> {
        let mut index = Self {
            routes: Vec::with_capacity(table.routes.len()),
            root: Node::default(),
            asks_host: false,
            redirects: false,
        };
        for (id, route) in table.routes.iter().enumerate() {
            let pattern = python_to_rust(&route.pattern);
            let shape = Shape::of(&pattern);
            let compiled = Compiled::new(route, &pattern, &shape)?;
            index.asks_host |= compiled.host.is_some();
            index.redirects |= compiled.redirects_slash;
            index.routes.push(compiled);
            index.root.insert(shape, id);
        }
        Ok(index)
    }

    /// Whether any route is for certain hosts only, so that [`Asked::host`] matters.
    pub fn asks_host(&self) -> bool {
        self.asks_host
    }

    /// How strongly the application claims a request.
    pub fn claim(&self, asked: &Asked<'_>) -> Claim<'_> {
        let mut route = None;
        let mut path = None;
        self.matching(asked, asked.path, |id, compiled| {
            let first = if compiled.defines(asked.method) {
                &mut route
            } else {
                &mut path
            };
            if first.is_none_or(|(earlier, _)| id < earlier) {
                *first = Some((id, &compiled.template));
            }
        });
        let (strength, found) = if route.is_some() {
            (Strength::Route, route)
        } else if path.is_some() {
            (Strength::Path, path)
        } else {
            match self.redirect(asked) {
                None => (Strength::Nothing, None),
                redirect => (Strength::Redirect, redirect),
            }
        };
        Claim {
            strength,
            route: found,
        }
    }

    /// The routes that match path, kind and host, whatever the method: their places in the table, in order.
    pub fn matches(&self, asked: &Asked<'_>) -> Vec<usize> {
        let mut found = Vec::new();
        self.matching(asked, asked.path, |id, _| found.push(id));
        found.sort_unstable();
        found
    }

    /// The first route that a router would redirect to, because only the slash at the end differs.
    fn redirect(&self, asked: &Asked<'_>) -> Option<(usize, &Arc<str>)> {
        if !self.redirects || asked.kind != RouteKind::Http {
            return None;
        }
        let mut first = None;
        let mut note = |id, compiled: &'_ Compiled| {
            if compiled.redirects_slash && first.is_none_or(|earlier| id < earlier) {
                first = Some(id);
            }
        };
        match asked.path.strip_suffix('/') {
            Some("") => {}
            Some(without) => self.matching(asked, without.trim_end_matches('/'), &mut note),
            None => {
                let mut with = String::with_capacity(asked.path.len() + 1);
                with.push_str(asked.path);
                with.push('/');
                self.matching(asked, &with, &mut note);
            }
        }
        let id = first?;
        Some((id, &self.routes.get(id)?.template))
    }

    /// Calls `found` for every route that matches `path`, kind and host, in no certain order.
    fn matching<'a>(
        &'a self,
        asked: &Asked<'_>,
        path: &str,
        mut found: impl FnMut(usize, &'a Compiled),
    ) {
        self.root.visit(path.strip_prefix('/'), &mut |id| {
            let Some(route) = self.routes.get(id) else {
                return;
            };
            if route.kind == asked.kind
                && route.matches_host(asked.host)
                && route.matches_path(path)
            {
                found(id, route);
            }
        });
    }
}

/// One route, ready to match.
struct Compiled {
    template: Arc<str>,
    kind: RouteKind,
    methods: Option<Box<[String]>>,
    host: Option<Regex>,
    /// `None` where the place in the tree says all that the pattern says.
    pattern: Option<Regex>,
    redirects_slash: bool,
}

impl Compiled {
    fn new(route: &Route, pattern: &str, shape: &Shape) -> Result<Self, RoutesError> {
        let problem = |what: &str, error: &fancy_regex::Error| RoutesError::Route {
            template: route.template.clone(),
            problem: format!("its {what} cannot be compiled: {error}"),
        };
        let pattern = if shape.says_all() {
            None
        } else {
            Some(regex(pattern).map_err(|error| problem("pattern", &error))?)
        };
        let host = match &route.host {
            None => None,
            Some(host) => {
                let host = regex(&python_to_rust(host)).map_err(|error| problem("host", &error))?;
                Some(host)
            }
        };
        Ok(Self {
            template: route.template.as_str().into(),
            kind: route.kind,
            methods: route.methods.clone().map(Vec::into_boxed_slice),
            host,
            pattern,
            redirects_slash: route.redirects_slash,
        })
    }

    /// HEAD follows GET (RFC 9110 §9.3.2).
    fn defines(&self, method: &str) -> bool {
        self.methods.as_deref().is_none_or(|methods| {
            methods
                .iter()
                .any(|defined| defined == method || (method == "HEAD" && defined == "GET"))
        })
    }

    fn matches_host(&self, host: Option<&str>) -> bool {
        match (&self.host, host) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(expected), Some(host)) => self.is_match(expected, host),
        }
    }

    fn matches_path(&self, path: &str) -> bool {
        self.pattern
            .as_ref()
            .is_none_or(|pattern| self.is_match(pattern, path))
    }

    fn is_match(&self, pattern: &Regex, text: &str) -> bool {
        pattern.is_match(text).unwrap_or_else(|error| {
            warn!(route = %self.template, %error, "a path was taken as not matched by a route");
            false
        })
    }
}

/// A node of the tree: what may follow the segments that lead here.
#[derive(Default)]
struct Node {
    literal: HashMap<Box<str>, Node>,
    /// `[^/]+`
    any: Option<Box<Node>>,
    /// A pattern that stays within one segment; the route's expression decides.
    within: Option<Box<Node>>,
    /// Routes that end here.
    here: Vec<usize>,
    /// Routes that go on in ways that only their expression knows.
    below: Vec<usize>,
}

impl Node {
    fn insert(&mut self, shape: Shape, id: usize) {
        let mut node = self;
        for segment in shape.segments {
            node = match segment {
                Segment::Literal(text) => node.literal.entry(text).or_default(),
                Segment::Any => node.any.get_or_insert_default(),
                Segment::Within => node.within.get_or_insert_default(),
            };
        }
        if shape.complete {
            node.here.push(id);
        } else {
            node.below.push(id);
        }
    }

    /// Calls `found` for every route that may match what is left of a path; `None` is its end.
    fn visit(&self, rest: Option<&str>, found: &mut impl FnMut(usize)) {
        self.below.iter().copied().for_each(&mut *found);
        let Some(rest) = rest else {
            self.here.iter().copied().for_each(found);
            return;
        };
        let (segment, rest) =
            match memchr(b'/', rest.as_bytes()).and_then(|at| rest.split_at_checked(at)) {
                Some((segment, rest)) => (segment, rest.strip_prefix('/')),
                None => (rest, None),
            };
        if let Some(node) = self.literal.get(segment) {
            node.visit(rest, found);
        }
        if let Some(node) = &self.any
            && !segment.is_empty()
        {
            node.visit(rest, found);
        }
        if let Some(node) = &self.within {
            node.visit(rest, found);
        }
    }
}

/// What a pattern says in terms of segments.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    segments: Vec<Segment>,
    /// The pattern ends with its last segment. Otherwise anything may follow.
    complete: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    Any,
    Within,
}

impl Shape {
    /// Reads a pattern. One that cannot be read has no segments, which is always true of it.
    fn of(pattern: &str) -> Self {
        let mut reader = ShapeReader::default();
        let open = match regex_syntax::parse(pattern) {
            Ok(hir) => reader.read(&hir).is_break(),
            // Look-around and backreferences are not regular: the expression decides alone.
            Err(_) => true,
        };
        reader.finish(!open)
    }

    fn says_all(&self) -> bool {
        self.complete && !self.segments.contains(&Segment::Within)
    }
}

#[derive(Default)]
struct ShapeReader {
    segments: Vec<Segment>,
    /// The segment that is being read; `None` before the first slash.
    current: Option<Partial>,
    ended: bool,
}

#[derive(Default)]
struct Partial {
    literal: String,
    any: bool,
    within: bool,
}

impl Partial {
    fn into_segment(self) -> Segment {
        match self {
            Self { within: true, .. } => Segment::Within,
            Self {
                any: true, literal, ..
            } if literal.is_empty() => Segment::Any,
            Self { any: true, .. } => Segment::Within,
            Self { literal, .. } => Segment::Literal(literal.into()),
        }
    }
}

type Flow = std::ops::ControlFlow<()>;

impl ShapeReader {
    /// Breaks where a pattern can no longer be told in segments.
    fn read(&mut self, hir: &Hir) -> Flow {
        if self.ended {
            return Flow::Break(());
        }
        match hir.kind() {
            HirKind::Empty => Flow::Continue(()),
            HirKind::Concat(parts) => parts.iter().try_for_each(|part| self.read(part)),
            HirKind::Capture(capture) => self.read(&capture.sub),
            HirKind::Look(Look::Start) if self.current.is_none() => Flow::Continue(()),
            HirKind::Look(Look::End) => {
                self.ended = true;
                Flow::Continue(())
            }
            HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
                Ok(text) => self.literal(text),
                Err(_) => Flow::Break(()),
            },
            _ if can_hold_slash(hir) => Flow::Break(()),
            _ => {
                let Some(current) = &mut self.current else {
                    return Flow::Break(());
                };
                if is_any_segment(hir) && !current.any {
                    current.any = true;
                } else {
                    current.within = true;
                }
                Flow::Continue(())
            }
        }
    }

    fn literal(&mut self, text: &str) -> Flow {
        let mut parts = text.split('/');
        if let Some(first) = parts.next()
            && !first.is_empty()
        {
            match &mut self.current {
                Some(current) => current.literal.push_str(first),
                None => return Flow::Break(()),
            }
        }
        for part in parts {
            let next = Partial {
                literal: part.into(),
                ..Partial::default()
            };
            if let Some(done) = self.current.replace(next) {
                self.segments.push(done.into_segment());
            }
        }
        Flow::Continue(())
    }

    fn finish(mut self, readable: bool) -> Shape {
        let complete = readable && self.ended && self.current.is_some();
        if complete && let Some(last) = self.current {
            self.segments.push(last.into_segment());
        }
        Shape {
            segments: self.segments,
            complete,
        }
    }
}

/// `[^/]+`, in whatever way it is written.
fn is_any_segment(hir: &Hir) -> bool {
    let HirKind::Repetition(repetition) = hir.kind() else {
        return false;
    };
    let HirKind::Class(Class::Unicode(class)) = repetition.sub.kind() else {
        return false;
    };
    let mut others = class.clone();
    others.negate();
    repetition.min == 1
        && repetition.max.is_none()
        && matches!(others.ranges(), [only] if only.start() == '/' && only.end() == '/')
}

fn can_hold_slash(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Empty => false,
        HirKind::Literal(literal) => literal.0.contains(&b'/'),
        HirKind::Class(Class::Unicode(class)) => class
            .iter()
            .any(|range| range.start() <= '/' && '/' <= range.end()),
        // Bytes and anchors within a pattern are too rare to be worth a thought.
        HirKind::Class(Class::Bytes(_)) | HirKind::Look(_) => true,
        HirKind::Repetition(repetition) => can_hold_slash(&repetition.sub),
        HirKind::Capture(capture) => can_hold_slash(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().any(can_hold_slash),
    }
}

/// Steps back that one match may take; a pattern of a real router takes a few hundred.
const BACKTRACK_LIMIT: usize = 100_000;

fn regex(pattern: &str) -> Result<Regex, fancy_regex::Error> {
    RegexBuilder::new(&format!(r"\A(?:{pattern})"))
        .backtrack_limit(BACKTRACK_LIMIT)
        .build()
}

/// Rewrites the few things that Python's `re` reads differently: `\Z` is the very end, a bracket
/// within a class is a bracket, and there is no set arithmetic.
fn python_to_rust(pattern: &str) -> String {
    let mut rust = String::with_capacity(pattern.len());
    let mut chars = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('Z') if !in_class => rust.push_str(r"\z"),
                Some(escaped @ ('<' | '>')) => rust.push(escaped),
                Some(escaped) => rust.extend(['\\', escaped]),
                None => rust.push('\\'),
            },
            '[' if !in_class => {
                in_class = true;
                rust.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    rust.push('^');
                }
                if chars.next_if_eq(&']').is_some() {
                    rust.push_str(r"\]");
                }
            }
            ']' => {
                in_class = false;
                rust.push(']');
            }
            '[' | '&' | '~' if in_class => rust.extend(['\\', c]),
            '-' if in_class && rust.ends_with('-') => rust.push_str(r"\-"),
            _ => rust.push(c),
        }
    }
    rust
}

/// A route that an application in front hides, wholly or for some of its paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    pub kind: RouteKind,
    /// The methods that both claim; `None` means every method.
    pub methods: Option<Vec<String>>,
    /// The application that answers, and its route.
    pub owner: String,
    pub owner_template: String,
    /// The application that is not asked, and its route.
    pub hidden: String,
    pub hidden_template: String,
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, &self.methods) {
            (RouteKind::WebSocket, _) => f.write_str("WebSocket ")?,
            (RouteKind::Http, Some(methods)) => write!(f, "{} ", methods.join(","))?,
            (RouteKind::Http, None) => {}
        }
        f.write_str(&self.hidden_template)
    }
}

/// Finds the routes of later applications that earlier ones answer, by trying an example path of each.
///
/// `apps` are name and routes, in the order in which they are asked.
///
/// # Errors
/// [`RoutesError::Route`] where a pattern cannot be compiled.
pub fn overlaps(apps: &[(&str, &RouteTable)]) -> Result<Vec<Overlap>, RoutesError> {
    let mut found = Vec::new();
    for (position, (owner, table)) in apps.iter().enumerate() {
        let index = RouteIndex::compile(table)?;
        for (hidden, later) in apps.iter().skip(position + 1) {
            for route in &later.routes {
                let Some(path) = example(&route.pattern) else {
                    continue;
                };
                let host = route.host.as_deref().and_then(example);
                let asked = Asked {
                    path: &path,
                    method: "",
                    kind: route.kind,
                    host: host.as_deref(),
                };
                let mut claims = Vec::new();
                index.matching(&asked, &path, |id, compiled| claims.push((id, compiled)));
                claims.sort_unstable_by_key(|(id, _)| *id);
                for (_, compiled) in claims {
                    let methods = common(compiled.methods.as_deref(), route.methods.as_deref());
                    if methods.as_ref().is_some_and(Vec::is_empty) {
                        continue;
                    }
                    found.push(Overlap {
                        kind: route.kind,
                        methods,
                        owner: (*owner).into(),
                        owner_template: compiled.template.to_string(),
                        hidden: (*hidden).into(),
                        hidden_template: route.template.clone(),
                    });
                }
            }
        }
    }
    Ok(found)
}

fn common(one: Option<&[String]>, other: Option<&[String]>) -> Option<Vec<String>> {
    match (one, other) {
        (None, None) => None,
        (Some(methods), None) | (None, Some(methods)) => Some(methods.to_vec()),
        (Some(one), Some(other)) => Some(
            one.iter()
                .filter(|method| other.contains(method))
                .cloned()
                .collect(),
        ),
    }
}

/// A text that a pattern matches; `None` for what is not a regular expression proper.
pub fn example(pattern: &str) -> Option<String> {
    let hir = regex_syntax::parse(&python_to_rust(pattern)).ok()?;
    let mut text = String::new();
    write_example(&hir, &mut text);
    Some(text)
}

fn write_example(hir: &Hir, text: &mut String) {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => text.push_str(&String::from_utf8_lossy(&literal.0)),
        HirKind::Class(Class::Unicode(class)) => {
            // Letters that hardly any literal consists of, so that `/{name}` does not seem to be `/about`.
            let usual = ['q', 'Q', '7', '_', '-'].into_iter().find(|wanted| {
                class
                    .iter()
                    .any(|range| (range.start()..=range.end()).contains(wanted))
            });
            let first = class.ranges().first().map(ClassUnicodeRange::start);
            text.extend(usual.or(first));
        }
        HirKind::Class(Class::Bytes(class)) => {
            text.extend(class.iter().next().map(|range| char::from(range.start())));
        }
        HirKind::Repetition(repetition) => {
            let times = repetition
                .max
                .map_or(3, |max| max.min(3))
                .max(repetition.min);
            for _ in 0..times {
                write_example(&repetition.sub, text);
            }
        }
        HirKind::Capture(capture) => write_example(&capture.sub, text),
        HirKind::Concat(parts) => parts.iter().for_each(|part| write_example(part, text)),
        HirKind::Alternation(parts) => {
            if let Some(first) = parts.first() {
                write_example(first, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(template: &str, pattern: &str, methods: &[&str]) -> Route {
        Route {
            template: template.into(),
            pattern: pattern.into(),
            kind: RouteKind::Http,
            methods: (!methods.is_empty())
                .then(|| methods.iter().map(ToString::to_string).collect()),
            host: None,
            redirects_slash: false,
            exact: true,
            endpoint: None,
            file: None,
            line: None,
            guards: None,
        }
    }

    fn table(patterns: &[&str]) -> RouteTable {
        RouteTable::new(
            patterns
                .iter()
                .map(|pattern| route(pattern, pattern, &["GET"]))
                .collect(),
        )
    }

    fn claims(pattern: &str, path: &str) -> bool {
        let index = RouteIndex::compile(&table(&[pattern])).unwrap();
        let asked = Asked {
            path,
            method: "GET",
            kind: RouteKind::Http,
            host: None,
        };
        index.claim(&asked).strength == Strength::Route
    }

    #[test]
    fn patterns_are_read_as_segments() {
        use Segment::{Any, Within};
        let literal = |text: &str| Segment::Literal(text.into());
        for (pattern, segments, complete) in [
            ("^/$", vec![literal("")], true),
            ("^/items$", vec![literal("items")], true),
            ("^/items/$", vec![literal("items"), literal("")], true),
            (r"^/items/(?P<id>[^/]+)$", vec![literal("items"), Any], true),
            (
                r"^/items/(?P<id>[^/]+?)\z",
                vec![literal("items"), Any],
                true,
            ),
            (r"^/v(?P<n>[0-9]+)/x$", vec![Within, literal("x")], true),
            (r"^/(?P<n>[^/]+)\.json$", vec![Within], true),
            (r"^/static/(?P<path>.*)$", vec![literal("static")], false),
            ("^/static/", vec![literal("static")], false),
            ("^/a/b/?$", vec![literal("a")], false),
            ("^/a$|^/b$", vec![], false),
            (r"^/(?!admin)[a-z]+$", vec![], false),
            ("^.*$", vec![], false),
            ("", vec![], false),
        ] {
            let expected = Shape { segments, complete };
            assert_eq!(Shape::of(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn patterns_mean_what_they_mean_in_python() {
        for (pattern, path, expected) in [
            ("^/items$", "/items", true),
            ("^/items$", "/items/", false),
            ("/items", "/items/below", true),
            ("items", "/items", false),
            (r"^/x\Z", "/x", true),
            (r"^/a\ b\-c\<d$", "/a b-c<d", true),
            (r"^/[[&~]+$", "/[&~", true),
            (r"^/[]x]+$", "/]x", true),
            (r"^/[a&&b]+$", "/a&b", true),
            (r"^/\d+$", "/\u{663}", true),
            (r"^/(?P<x>\w+)/(?P=x)$", "/ab/ab", true),
            (r"^/(?P<x>\w+)/(?P=x)$", "/ab/cd", false),
            (r"^/(?!admin)[a-z]+$", "/adminx", false),
            (r"^/(?!admin)[a-z]+$", "/users", true),
            (r"^/(?i:Items)$", "/iTEMS", true),
            (r"^/caf\u00e9$", "/café", true),
        ] {
            assert_eq!(claims(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_that_cannot_be_compiled_names_its_route() {
        let mut table = table(&["^/fine$"]);
        table
            .routes
            .push(route("/orders/<odd:id>", "^/orders/(?P<id>[a-", &[]));
        let error = RouteIndex::compile(&table).unwrap_err().to_string();
        assert!(
            error.starts_with("route `/orders/<odd:id>`: its pattern cannot be compiled: "),
            "{error}"
        );
    }

    #[test]
    fn a_pattern_that_takes_too_long_claims_nothing() {
        assert!(!claims(
            r"^/(?=(a+)+$)(a|a)+\1b$",
            &format!("/{}!", "a".repeat(60))
        ));
    }

    #[test]
    fn the_first_of_several_routes_gives_the_template() {
        let index = RouteIndex::compile(&RouteTable::new(vec![
            route("put", "^/items/new$", &["PUT"]),
            route("any", "^/items/[^/]+$", &["GET"]),
            route("new", "^/items/new$", &["GET"]),
        ]))
        .unwrap();
        for (method, strength, template) in [
            ("GET", Strength::Route, "any"),
            ("PUT", Strength::Route, "put"),
            ("DELETE", Strength::Path, "put"),
        ] {
            let claim = index.claim(&Asked {
                path: "/items/new",
                method,
                kind: RouteKind::Http,
                host: None,
            });
            assert_eq!(claim.strength, strength);
            assert_eq!(&*claim.matched().unwrap().template, template);
        }
    }

    /// Small numbers that look random and are the same in every run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % limit as u64).unwrap()
        }
    }

    #[test]
    fn the_tree_finds_what_trying_every_pattern_finds() {
        const PARTS: [&str; 14] = [
            "a",
            "b",
            "",
            "[^/]+",
            "[^/]*",
            r"\d+",
            "a[^/]+",
            r"[^/]+\.b",
            ".*",
            "(?:a|b)",
            "b?",
            "(?i)A",
            "(?:/a)?",
            "(?!a)[^/]+",
        ];
        const ENDS: [&str; 4] = ["$", r"\Z", "", "/?$"];
        const SEGMENTS: [&str; 7] = ["", "a", "b", "A", "7", "ab", "a.b"];
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        let mut paths = vec![String::new(), "*".into()];
        let mut last = vec![String::new()];
        for _ in 0..3 {
            last = last
                .iter()
                .flat_map(|path| {
                    SEGMENTS
                        .iter()
                        .map(move |segment| format!("{path}/{segment}"))
                })
                .collect();
            paths.extend_from_slice(&last);
        }
        for _ in 0..40 {
            let patterns: Vec<String> = (0..12)
                .map(|_| {
                    let parts: Vec<_> = (0..=numbers.below(3))
                        .map(|_| PARTS[numbers.below(PARTS.len())])
                        .collect();
                    format!("^/{}{}", parts.join("/"), ENDS[numbers.below(ENDS.len())])
                })
                .collect();
            let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
            let index = RouteIndex::compile(&table(&patterns)).unwrap();
            let plain: Vec<Regex> = patterns
                .iter()
                .map(|pattern| regex(&python_to_rust(pattern)).unwrap())
                .collect();
            for path in &paths {
                let asked = Asked {
                    path,
                    method: "GET",
                    kind: RouteKind::Http,
                    host: None,
                };
                let mut found = Vec::new();
                index.matching(&asked, path, |id, _| found.push(id));
                found.sort_unstable();
                let expected: Vec<usize> = (0..plain.len())
                    .filter(|id| plain[*id].is_match(path).unwrap())
                    .collect();
                assert_eq!(found, expected, "{path:?} in {patterns:#?}");
            }
        }
    }

    #[test]
    fn overlaps_tell_which_routes_an_application_in_front_hides() {
        let new = RouteTable::new(vec![
            route("/docs", "^/docs$", &["GET"]),
            route("/items/{id}", "^/items/(?P<id>[^/]+)$", &["GET", "PUT"]),
            route("/about", "^/about$", &["GET"]),
        ]);
        let old = RouteTable::new(vec![
            route("/docs", r"^/docs\Z", &[]),
            route("/items/new", r"^/items/new\Z", &["GET", "POST"]),
            route("/items/<int:id>", r"^/items/\d+\Z", &["DELETE"]),
            route("/<page>", r"^/[^/]+\Z", &["GET"]),
        ]);
        let found: Vec<_> = overlaps(&[("new", &new), ("old", &old)])
            .unwrap()
            .into_iter()
            .map(|overlap| {
                (
                    overlap.hidden_template,
                    overlap.owner_template,
                    overlap.methods.unwrap(),
                )
            })
            .collect();
        let get = vec!["GET".to_string()];
        assert_eq!(
            found,
            [
                ("/docs".into(), "/docs".into(), get.clone()),
                ("/items/new".into(), "/items/{id}".into(), get),
            ]
        );
    }
}
