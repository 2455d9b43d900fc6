//! Routing: which application a request belongs to.
//!
//! Rules are tried in order, the first match wins. A prefix ends at a segment (`/api` is not
//! `/apiary`). Applications see and route on the decoded path, so matching is done on it too; a path
//! that selects another rule when it is split before it is decoded (`%2F`) is refused, as are dot
//! segments, because two readers that disagree about a path are a hole in somebody's access rules.
//!
//! An application may own its routes: then it gets what its own router defines, and what is left goes
//! on to the rules after it ([`ownership`](crate::policy::ownership) has the order of claims).
//! A rule may pass on requests that match it ([`Canary`](crate::policy::canary::Canary)): then the choice
//! is made once more without it.
//! `//` is kept, `%00` and bytes that are not UTF-8 are passed on, `%zz` stands for itself: frameworks
//! read them alike. `*` (RFC 9112 §3.2.4) belongs to the catch-all.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN};
use http::request::Parts;
use http::{Method, StatusCode};
use memchr::memchr;

use crate::app::{Application, RouteKind, RouteTable, RoutesError};
use crate::config::rule::{Location, RuleConfig, RuleMatch};
use crate::metrics::traffic::AppTraffic;
use crate::metrics::{AppMetrics, RefusedBy};
use crate::migrate::live::{Overlay, Shares};
use crate::policy::Policies;
use crate::policy::conditions::Conditions;
use crate::policy::ownership::{self, Asked, Claim, Overlap, RouteIndex, Strength};
use crate::unbridge::Part;

/// An application under its name.
#[derive(Debug)]
pub struct App {
    pub name: Arc<str>,
    pub application: Arc<dyn Application>,
    pub metrics: Arc<AppMetrics>,
    /// What it answers, by route, where somebody asks for it.
    pub traffic: Option<Arc<AppTraffic>>,
}

/// Where an application is mounted for one request, and what is left of the path.
#[derive(Debug, Clone)]
pub struct MountPoint {
    pub rule: Arc<RuleInfo>,
    /// The route of the application that matched, where its routes are known.
    pub route: Option<MatchedRoute>,
    /// What comes before the path: the public prefix that proxies have cut off, then the mount.
    /// `""` or `/a/b`, decoded; ASGI's `root_path`, WSGI's `SCRIPT_NAME`.
    pub root_path: Arc<str>,
    /// The decoded path where it differs from the one in the request line.
    decoded: Option<Box<[u8]>>,
    /// How many bytes of the decoded path belong to the mount.
    mount_len: usize,
}

impl MountPoint {
    /// The way to an application that is called by its name: `mount` begins the path and is cut off, `root_path` ends in it.
    ///
    /// # Errors
    /// [`Refusal`] with 400 for a path with a dot segment.
    pub(crate) fn below(
        rule: Arc<RuleInfo>,
        root_path: Arc<str>,
        mount: &str,
        head: &Parts,
    ) -> Result<Self, Refusal> {
        let raw = head.uri.path();
        let decoded = Decoded::of(raw);
        let bytes = decoded
            .as_ref()
            .map_or(raw.as_bytes(), |decoded| &decoded.whole);
        if has_dot_segment(bytes) {
            return Err(DOT_SEGMENT);
        }
        Ok(Self {
            rule,
            route: None,
            root_path,
            decoded: decoded.map(|decoded| decoded.whole.into()),
            mount_len: mount.len(),
        })
    }

    /// The decoded path below the mount: `""` or `/…`, or `*`.
    pub fn path_info<'a>(&'a self, head: &'a Parts) -> &'a [u8] {
        let path = self
            .decoded
            .as_deref()
            .unwrap_or_else(|| head.uri.path().as_bytes());
        path.get(self.mount_len..).unwrap_or_default()
    }
}

/// A route of an application.
#[derive(Debug, Clone)]
pub struct MatchedRoute {
    /// Its place in the application's [`RouteTable`].
    pub index: usize,
    pub template: Arc<str>,
}

/// What a request needs to know of the rule that chose its application.
#[derive(Debug)]
pub struct RuleInfo {
    /// Stable name: `mount /api`, `path /live`, `owned by new`, `catch-all`, or what the rule was called.
    pub name: String,
    /// The application's name.
    pub app: Arc<str>,
}

/// One entry of the rule table.
#[derive(Debug)]
pub struct Rule {
    pub info: Arc<RuleInfo>,
    pub app: Arc<App>,
    location: Location,
    owned: bool,
    /// `None` where nothing is asked of a request but its path.
    conditions: Option<Conditions>,
    /// What the application is known to define.
    routes: Option<Arc<RouteIndex>>,
    /// What an owner before leaves over is weighed against those routes; else the application may define anything.
    weighs: bool,
    /// `None` where the rule keeps every request that matches.
    pub policies: Option<Arc<Policies>>,
    /// Paths of the application that another serves in its place.
    parts: Vec<RulePart>,
}

/// A part of a rule's application.
#[derive(Debug)]
struct RulePart {
    part: Arc<Part>,
    /// That of the rule, with the name of the part's application.
    info: Arc<RuleInfo>,
}

impl Rule {
    /// A rule without policies. `routes` are what the application is known to define: an owner gets
    /// those and nothing else, and below an owner others are weighed against it by theirs.
    pub fn new(app: Arc<App>, matches: &RuleMatch, routes: Option<RouteIndex>) -> Self {
        let config = RuleConfig::new(&*app.name, matches.clone(), "");
        Self::of(&config, app, routes.map(Arc::new), true)
    }

    /// Everything below `prefix`, which is cut off; `""` is the catch-all. `routes` as for [`Rule::new`].
    pub fn mount(app: Arc<App>, prefix: &str, routes: Option<RouteIndex>) -> Self {
        Self::new(app, &RuleMatch::mount(prefix.trim_end_matches('/')), routes)
    }

    /// Everything below `prefix`, which stays; `routes` as for [`Rule::new`].
    pub fn path(app: Arc<App>, prefix: &str, routes: Option<RouteIndex>) -> Self {
        Self::new(app, &RuleMatch::path(prefix.trim_end_matches('/')), routes)
    }

    /// What the application's own router defines.
    pub fn owned(app: Arc<App>, routes: RouteIndex) -> Self {
        Self::new(app, &RuleMatch::owned(), Some(routes))
    }

    fn of(
        config: &RuleConfig,
        app: Arc<App>,
        routes: Option<Arc<RouteIndex>>,
        weighs: bool,
    ) -> Self {
        let info = RuleInfo {
            name: config.name.clone(),
            app: Arc::clone(&app.name),
        };
        Self {
            info: Arc::new(info),
            policies: Policies::new(config).map(Arc::new),
            location: config.matches.location.clone(),
            owned: config.matches.owned,
            conditions: Conditions::new(&config.matches.conditions),
            app,
            routes,
            weighs,
            parts: Vec::new(),
        }
    }

    /// The part that serves a request in place of the rule's application; `path` is what the rule leaves.
    fn part(&self, path: &[u8], question: &Question<'_>) -> Option<&RulePart> {
        if self.parts.is_empty() || question.kind == RouteKind::WebSocket {
            return None;
        }
        let methods = [question.head.method.as_str(), question.method];
        let host = question.host.as_deref();
        let mut parts = self.parts.iter();
        parts.find(|it| it.part.takes(path, methods, host))
    }

    /// What is cut off.
    pub fn cut(&self) -> &str {
        match &self.location {
            Location::Mount(prefix) => prefix,
            Location::Path(_) | Location::Template(_) => "",
        }
    }

    /// Whether the path lies where the rule applies at all.
    pub fn covers(&self, path: &str) -> bool {
        match &self.location {
            Location::Mount(prefix) | Location::Path(prefix) => {
                prefix.is_empty()
                    || path
                        .strip_prefix(&**prefix)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Location::Template(template) => template.matches(path),
        }
    }

    /// What the application's routes say to a request that the rule covers; `None` where they are not known.
    fn claim(&self, asked: &Asked<'_>) -> Option<Claim<'_>> {
        let routes = self.routes.as_deref()?;
        Some(routes.claim(&Asked {
            path: asked.path.get(self.cut().len()..).unwrap_or_default(),
            ..*asked
        }))
    }
}

/// A request that no application may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    pub reason: &'static str,
    pub by: RefusedBy,
    /// The connection ends with the answer: what follows on it cannot be trusted.
    pub close: bool,
}

impl Refusal {
    const fn bad_request(reason: &'static str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            reason,
            by: RefusedBy::Path,
            close: false,
        }
    }

    const fn not_found(reason: &'static str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            reason,
            by: RefusedBy::Route,
            close: false,
        }
    }
}

const DOT_SEGMENT: Refusal = Refusal::bad_request("the path has a dot segment");
const TWO_READINGS: Refusal =
    Refusal::bad_request("an encoded slash makes the path match two rules");
const NOTHING_HERE: Refusal = Refusal::not_found("no application is mounted here");
const NO_WEBSOCKETS: Refusal =
    Refusal::not_found("the application here does not serve WebSockets, only ASGI applications do");

/// Why rules cannot be made from a configuration.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RulesError {
    #[error("{origin}: there is no application `{app}`")]
    UnknownApp { app: String, origin: String },
    /// An application is to own its routes, but they are not known.
    #[error("{origin}: `{app}` cannot own its routes: {source}")]
    Routes {
        app: String,
        origin: String,
        source: RoutesError,
    },
}

/// The rule table.
#[derive(Debug)]
pub struct Router {
    rules: Vec<Rule>,
    /// For each rule the public prefix and what the rule cuts off.
    root_paths: Vec<Arc<str>>,
    /// The method of a request matters, so that a CORS preflight is asked for the one that it announces.
    asks_method: bool,
    asks_host: bool,
    /// What may change while the server runs: replaced as a whole, and read once by each request.
    live: ArcSwap<Live>,
}

/// The shares of all rules, in their order.
#[derive(Debug)]
pub struct Live {
    shares: Vec<Shares>,
}

impl Live {
    fn new(rules: &[RuleConfig], overlay: &Overlay) -> Self {
        Self {
            shares: rules.iter().map(|rule| overlay.shares(rule)).collect(),
        }
    }

    pub fn shares(&self, rule: usize) -> Shares {
        self.shares.get(rule).copied().unwrap_or_default()
    }
}

/// Where a request belongs.
#[derive(Debug)]
pub struct Routed<'a> {
    pub rule: &'a Rule,
    /// Its place in the table.
    pub index: usize,
    /// That of the rule, or what serves a part of it.
    pub app: &'a Arc<App>,
    pub at: MountPoint,
    /// Where rules have policies: what has been settled on the way.
    pub trail: Option<Box<Trail>>,
}

/// The way of a request through rules that have policies.
#[derive(Debug)]
pub struct Trail {
    /// What counted when it began.
    pub live: Arc<Live>,
    /// The rules that have passed the request on, in the order in which they did.
    pub passed: Vec<Passed>,
}

impl Trail {
    /// Whether the request has been passed on by the application of a rule: another rule that leads to the same one
    /// is no way out.
    fn has_passed(&self, rule: &Rule) -> bool {
        let same = |passed: &Passed| Arc::ptr_eq(&passed.app, &rule.app);
        self.passed.iter().any(same)
    }
}

/// A rule that matched a request and left it to the rules below.
#[derive(Debug, Clone)]
pub struct Passed {
    /// Its place in the table.
    pub rule: usize,
    /// Its application.
    pub app: Arc<App>,
    /// The route of the application that matched.
    pub route: Option<MatchedRoute>,
    pub why: PassedWhy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassedWhy {
    /// The client is not on the side of its canary.
    Canary,
    /// Its application has answered so that it counts as no answer.
    Fallthrough,
}

impl Router {
    /// `root_path` (`--root-path`) is the public prefix that a proxy in front cuts off.
    pub fn new(rules: Vec<Rule>, root_path: &str) -> Self {
        let prefix = root_path.trim_end_matches('/');
        let shares = vec![Shares::default(); rules.len()];
        Self {
            root_paths: rules
                .iter()
                .map(|rule| format!("{prefix}{}", rule.cut()).into())
                .collect(),
            asks_method: rules.iter().any(|rule| {
                rule.owned
                    || rule
                        .conditions
                        .as_ref()
                        .is_some_and(Conditions::asks_method)
            }),
            asks_host: rules.iter().any(|rule| {
                let routes = rule.routes.as_ref();
                routes.is_some_and(|routes| routes.asks_host())
                    || rule.conditions.as_ref().is_some_and(Conditions::asks_host)
            }),
            rules,
            live: ArcSwap::from_pointee(Live { shares }),
        }
    }

    /// Makes the rules of a configuration. `apps` are the applications with what is known of their routes.
    ///
    /// # Errors
    /// [`RulesError`] for a rule without its application, or an owner whose routes are not known or
    /// cannot be compiled.
    pub fn build(
        rules: &[RuleConfig],
        root_path: &str,
        apps: &[(Arc<App>, Result<RouteTable, RoutesError>)],
        overlay: &Overlay,
    ) -> Result<Self, RulesError> {
        let mut owned_before = false;
        let mut built = Vec::with_capacity(rules.len());
        let compile = |table: &Result<RouteTable, RoutesError>| {
            let table = table.as_ref().map_err(Clone::clone)?;
            RouteIndex::compile(table).map(Arc::new)
        };
        // Once for each application, and only for those that are asked.
        let indexes: Vec<_> = apps
            .iter()
            .map(|(app, table)| (app, LazyCell::new(|| compile(table))))
            .collect();
        for rule in rules {
            let Some((app, index)) = indexes.iter().find(|(app, _)| *app.name == *rule.app) else {
                return Err(RulesError::UnknownApp {
                    app: rule.app.clone(),
                    origin: rule.origin.clone(),
                });
            };
            let asks =
                rule.matches.owned || owned_before || app.traffic.is_some() || rule.passes_on();
            if !asks {
                built.push(Rule::of(rule, Arc::clone(app), None, false));
                continue;
            }
            let index = match &**index {
                Ok(index) => Some(Arc::clone(index)),
                // Only where it matters; a table that is not known is no error below an owner.
                Err(error) if rule.matches.owned || (owned_before && error.is_of_a_route()) => {
                    return Err(RulesError::Routes {
                        app: rule.app.clone(),
                        origin: rule.origin.clone(),
                        source: error.clone(),
                    });
                }
                Err(_) => None,
            };
            built.push(Rule::of(rule, Arc::clone(app), index, owned_before));
            owned_before |= rule.matches.owned;
        }
        let router = Self::new(built, root_path);
        router.live.store(Arc::new(Live::new(rules, overlay)));
        Ok(router)
    }

    /// Lets the shares of an overlay count for every request that comes from now on.
    pub fn set_live(&self, rules: &[RuleConfig], overlay: &Overlay) {
        self.live.store(Arc::new(Live::new(rules, overlay)));
    }

    /// Lets `part` answer its paths wherever a rule chooses the application `outer`.
    pub fn divide(&mut self, outer: &str, part: &Arc<Part>) {
        self.asks_host |= part.asks_host();
        // A preflight for what stays with the outer application stays there too.
        self.asks_method = true;
        for rule in &mut self.rules {
            if *rule.app.name == *outer {
                let info = RuleInfo {
                    name: rule.info.name.clone(),
                    app: Arc::clone(&part.app.name),
                };
                rule.parts.push(RulePart {
                    part: Arc::clone(part),
                    info: Arc::new(info),
                });
            }
        }
    }

    /// What whoever starts the server should know: routes that are defined, but answered by an owner before.
    pub fn warnings(
        rules: &[RuleConfig],
        apps: &[(Arc<App>, Result<RouteTable, RoutesError>)],
    ) -> Vec<String> {
        let tables: Vec<(&str, &RouteTable)> = rules
            .iter()
            // What takes a part of the requests only hides nothing.
            .filter(|rule| {
                let RuleMatch {
                    location,
                    conditions,
                    ..
                } = &rule.matches;
                location.is_everywhere() && conditions.is_empty() && !rule.passes_on()
            })
            .filter_map(|rule| {
                let (app, table) = apps.iter().find(|(app, _)| *app.name == *rule.app)?;
                Some((&*app.name, table.as_ref().ok()?))
            })
            .collect();
        // A pattern that cannot be compiled is an error of `build`, where it matters.
        let overlaps = ownership::overlaps(&tables).unwrap_or_default();
        let pairs =
            overlaps.chunk_by(|one, next| one.owner == next.owner && one.hidden == next.hidden);
        pairs.filter_map(hidden).collect()
    }

    /// The rules in the order in which they are tried.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Chooses the application for a request; with `upgrade` only among those that serve WebSockets.
    ///
    /// `client` is the address by which a canary may tell clients apart. `prefix` is the public prefix of
    /// this request, where a proxy has told it; otherwise it is that of the configuration. With a `trail`
    /// the request goes on from where it was passed on.
    ///
    /// # Errors
    /// [`Refusal`] with 400 for a path with a dot segment or two readings, 404 where no rule matches.
    pub fn route(
        &self,
        head: &Parts,
        upgrade: bool,
        client: Option<IpAddr>,
        prefix: Option<&str>,
        mut trail: Option<Box<Trail>>,
    ) -> Result<Routed<'_>, Refusal> {
        let raw = head.uri.path();
        // Nearly every path is what it says.
        let decoded = memchr(b'%', raw.as_bytes()).and_then(|_| Decoded::of(raw));
        let bytes = decoded
            .as_ref()
            .map_or(raw.as_bytes(), |decoded| &decoded.whole);
        if has_dot_segment(bytes) {
            return Err(DOT_SEGMENT);
        }
        let question = self.question(head, upgrade, client);
        let chosen = match &decoded {
            None => self.settle(raw, &question, &mut trail),
            Some(decoded) => {
                // Frameworks that match on text replace what is not UTF-8 in the same way.
                let path = String::from_utf8_lossy(&decoded.whole);
                let chosen = self.settle(&path, &question, &mut trail);
                if let Some(segments) = &decoded.segments {
                    let segments = String::from_utf8_lossy(segments);
                    let passed =
                        |rule: &Rule| trail.as_ref().is_some_and(|trail| trail.has_passed(rule));
                    let other = self.choose(&segments, &question, passed);
                    if chosen.index() != other.index() {
                        return Err(TWO_READINGS);
                    }
                }
                chosen
            }
        };
        let (index, route) = match chosen {
            Choice::Rule(index, route) => (index, route),
            Choice::Nothing(refusal) => return Err(refusal),
        };
        let Some(rule) = self.rules.get(index) else {
            return Err(NOTHING_HERE);
        };
        let (app, at) = self.place(index, rule, route, decoded, prefix, &question);
        Ok(Routed {
            rule,
            index,
            app,
            at,
            trail,
        })
    }

    /// What would have answered for a rule that has passed a request on, and where that is mounted.
    pub fn passed_at(
        &self,
        passed: &Passed,
        head: &Parts,
        prefix: Option<&str>,
    ) -> Option<(&Rule, &Arc<App>, MountPoint)> {
        let rule = self.rules.get(passed.rule)?;
        let question = self.question(head, false, None);
        let (route, decoded) = (passed.route.clone(), Decoded::of(head.uri.path()));
        let (app, at) = self.place(passed.rule, rule, route, decoded, prefix, &question);
        Some((rule, app, at))
    }

    /// What answers for a rule, and where that is mounted.
    fn place<'a>(
        &self,
        index: usize,
        rule: &'a Rule,
        route: Option<MatchedRoute>,
        decoded: Option<Decoded>,
        prefix: Option<&str>,
        question: &Question<'_>,
    ) -> (&'a Arc<App>, MountPoint) {
        let at = MountPoint {
            rule: Arc::clone(&rule.info),
            route,
            root_path: self.root_path(index, rule, prefix),
            mount_len: rule.cut().len(),
            decoded: decoded.map(|decoded| decoded.whole.into()),
        };
        match rule.part(at.path_info(question.head), question) {
            None => (&rule.app, at),
            Some(RulePart { part, info }) => {
                let cut = part.prefix();
                let at = MountPoint {
                    rule: Arc::clone(info),
                    root_path: format!("{}{cut}", at.root_path).into(),
                    mount_len: at.mount_len + cut.len(),
                    ..at
                };
                (&part.app, at)
            }
        }
    }

    fn root_path(&self, index: usize, rule: &Rule, prefix: Option<&str>) -> Arc<str> {
        match (prefix, self.root_paths.get(index)) {
            (None, Some(root_path)) => Arc::clone(root_path),
            (prefix, _) => {
                let prefix = prefix.unwrap_or_default().trim_end_matches('/');
                format!("{prefix}{}", rule.cut()).into()
            }
        }
    }

    /// The places of the rules that are asked for requests of which no more is known than this, in their order:
    /// each but the last leaves a part of them to the next. `leaves` says which rules do.
    ///
    /// For inventories: what conditions ask beyond the method is taken as given.
    pub fn answerers(&self, asked: &Asked<'_>, leaves: impl Fn(usize) -> bool) -> Vec<usize> {
        let (head, ()) = http::Request::new(()).into_parts();
        let question = Question {
            head: &head,
            client: None,
            method: asked.method,
            kind: asked.kind,
            host: asked.host.map(Cow::Borrowed),
        };
        let mut passed = Vec::new();
        while let Some(index) = self
            .choose(asked.path, &question, |rule: &Rule| {
                let mut rules = passed.iter().filter_map(|index| self.rules.get(*index));
                rules.any(|passed: &Rule| {
                    let leaves_app = passed.policies.is_some() && passed.conditions.is_none();
                    std::ptr::eq(passed, rule)
                        || (leaves_app && Arc::ptr_eq(&passed.app, &rule.app))
                })
            })
            .index()
        {
            passed.push(index);
            if !leaves(index) {
                break;
            }
        }
        passed
    }

    /// What of a request decides, besides its path.
    fn question<'a>(&self, head: &'a Parts, upgrade: bool, client: Option<IpAddr>) -> Question<'a> {
        let mut method = head.method.as_str();
        if self.asks_method
            && head.method == Method::OPTIONS
            && head.headers.contains_key(ORIGIN)
            && let Some(asked) = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD)
        {
            // A CORS preflight is answered by whoever answers the request that it announces.
            method = asked.to_str().unwrap_or(method);
        }
        Question {
            head,
            client,
            method,
            kind: if upgrade {
                RouteKind::WebSocket
            } else {
                RouteKind::Http
            },
            host: self.asks_host.then(|| host(head)).flatten(),
        }
    }

    /// Chooses until a rule keeps the request.
    fn settle(
        &self,
        path: &str,
        question: &Question<'_>,
        trail: &mut Option<Box<Trail>>,
    ) -> Choice {
        loop {
            let passed = |rule: &Rule| trail.as_ref().is_some_and(|trail| trail.has_passed(rule));
            let choice = self.choose(path, question, passed);
            let Choice::Rule(rule, route) = &choice else {
                return choice;
            };
            let matched = self.rules.get(*rule);
            let Some((app, policies)) =
                matched.and_then(|it| Some((&it.app, it.policies.as_deref()?)))
            else {
                return choice;
            };
            let trail = trail.get_or_insert_with(|| {
                Box::new(Trail {
                    live: self.live.load_full(),
                    passed: Vec::new(),
                })
            });
            let share = trail.live.shares(*rule).canary;
            if policies.keeps(share, question.head, question.client) {
                return choice;
            }
            trail.passed.push(Passed {
                rule: *rule,
                app: Arc::clone(app),
                route: route.clone(),
                why: PassedWhy::Canary,
            });
            // Nobody below would answer: better one who does.
            let below = self.choose(path, question, |rule: &Rule| trail.has_passed(rule));
            if below.index().is_none() {
                trail.passed.pop();
                return choice;
            }
        }
    }

    /// The first rule that covers the path, unless an owner before it has the stronger claim. Rules that
    /// have passed the request on are not there.
    fn choose(
        &self,
        path: &str,
        question: &Question<'_>,
        passed: impl Fn(&Rule) -> bool,
    ) -> Choice {
        let asked = Asked {
            path,
            method: question.method,
            kind: question.kind,
            host: question.host.as_deref(),
        };
        let mut strongest: Option<(usize, Claim<'_>)> = None;
        let mut refusal = NOTHING_HERE;
        for (index, rule) in self.rules.iter().enumerate() {
            let meets = |conditions: &Conditions| {
                conditions.meets(question.head, question.method, question.host.as_deref())
            };
            if !rule.covers(path) || !rule.conditions.as_ref().is_none_or(meets) || passed(rule) {
                continue;
            }
            if question.kind == RouteKind::WebSocket && rule.app.application.websocket().is_none() {
                if !rule.owned {
                    refusal = NO_WEBSOCKETS;
                }
                continue;
            }
            let rival = strongest.map_or(Strength::Nothing, |(_, claim)| claim.strength);
            // Without an owner before, a claim only tells under which route a request is counted.
            let counts = rule.app.traffic.is_some() || rule.policies.is_some();
            let claim = if rule.owned || rival > Strength::Nothing || counts {
                rule.claim(&asked)
            } else {
                None
            };
            if rule.owned {
                let Some(claim) = claim else {
                    continue;
                };
                if claim.strength > rival {
                    strongest = Some((index, claim));
                }
                if claim.strength == Strength::Route {
                    break;
                }
                continue;
            }
            // A router that is not known may define anything.
            let strength = match claim {
                Some(claim) if rule.weighs => claim.strength,
                _ => Strength::Route,
            };
            if rival == Strength::Nothing || strength > rival {
                return Choice::Rule(index, claim.and_then(|claim| claim.matched()));
            }
            break;
        }
        match strongest {
            Some((index, claim)) => Choice::Rule(index, claim.matched()),
            None => Choice::Nothing(refusal),
        }
    }
}

/// Says in one line which routes of one application another answers.
fn hidden(overlaps: &[Overlap]) -> Option<String> {
    let Overlap { owner, hidden, .. } = overlaps.first()?;
    let mut named: Vec<String> = overlaps.iter().map(ToString::to_string).collect();
    named.dedup();
    let more = named.len().saturating_sub(HIDDEN_NAMED);
    named.truncate(HIDDEN_NAMED);
    let named = named.join(", ");
    let more = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "`{owner}` answers what `{hidden}` defines too: {named}{more}; `twinspan routes` lists all"
    ))
}

/// So many hidden routes are named: half-way through a migration there are hundreds.
const HIDDEN_NAMED: usize = 5;

/// What of a request decides, besides its path.
struct Question<'a> {
    head: &'a Parts,
    client: Option<IpAddr>,
    method: &'a str,
    kind: RouteKind,
    host: Option<Cow<'a, str>>,
}

enum Choice {
    /// The place of a rule, and the route of its application.
    Rule(usize, Option<MatchedRoute>),
    Nothing(Refusal),
}

impl Choice {
    fn index(&self) -> Option<usize> {
        match self {
            Self::Rule(index, _) => Some(*index),
            Self::Nothing(_) => None,
        }
    }
}

/// The host that applications see, in lower case and without the port.
fn host(head: &Parts) -> Option<Cow<'_, str>> {
    let host = match head.headers.get(HOST) {
        Some(host) => host.to_str().ok()?,
        None => head.uri.authority()?.as_str(),
    };
    // After the last colon of a bare `[::1]` stands a bracket, so it is not taken for a port.
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    Some(if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    })
}

/// The two readings of a path with `%` in it.
struct Decoded {
    /// Decoded, then split: what applications see.
    whole: Vec<u8>,
    /// Split, then decoded: an encoded slash is left as it is. `None` where there is none.
    segments: Option<Vec<u8>>,
}

impl Decoded {
    /// Decodes once; `None` where nothing is encoded.
    fn of(raw: &str) -> Option<Self> {
        let whole = Cow::from(percent_encoding::percent_decode_str(raw));
        let Cow::Owned(whole) = whole else {
            return None;
        };
        let segments = ["%2F", "%2f"]
            .iter()
            .any(|slash| raw.contains(slash))
            .then(|| {
                let mut segments = Vec::with_capacity(raw.len());
                for (place, segment) in raw
                    .split("%2F")
                    .flat_map(|part| part.split("%2f"))
                    .enumerate()
                {
                    if place > 0 {
                        segments.extend_from_slice(b"%2F");
                    }
                    segments.extend(percent_encoding::percent_decode_str(segment));
                }
                segments
            });
        Some(Self { whole, segments })
    }
}

/// Whether a segment is `.` or `..` (RFC 3986 §3.3).
fn has_dot_segment(path: &[u8]) -> bool {
    memchr(b'.', path).is_some()
        && path
            .split(|byte| *byte == b'/')
            .any(|segment| segment == b"." || segment == b"..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{
        AppError, BoxFuture, Description, Interface, Request, Response, Route, WebSocketApplication,
    };
    use crate::config::rule::{Percent, ShadowConfig};
    use crate::metrics::Metrics;
    use crate::ws::Handshake;

    #[derive(Debug)]
    struct Fake(Interface);

    impl Application for Fake {
        fn description(&self) -> Description {
            Description {
                interface: self.0,
                threads: None,
            }
        }

        fn call(&self, _: Box<Request>) -> BoxFuture<'static, Result<Response, AppError>> {
            unreachable!("routing calls nobody")
        }

        fn websocket(&self) -> Option<&dyn WebSocketApplication> {
            (self.0 == Interface::Asgi).then_some(self)
        }
    }

    impl WebSocketApplication for Fake {
        fn connect(&self, _: Handshake) -> BoxFuture<'static, Result<(), AppError>> {
            unreachable!("routing calls nobody")
        }
    }

    fn app(name: &str, interface: Interface) -> Arc<App> {
        Arc::new(App {
            name: name.into(),
            application: Arc::new(Fake(interface)),
            metrics: Arc::clone(&Metrics::new(&[name.into()]).apps()[0]),
            traffic: None,
        })
    }

    fn asgi(name: &str) -> Arc<App> {
        app(name, Interface::Asgi)
    }

    fn wsgi(name: &str) -> Arc<App> {
        app(name, Interface::Wsgi)
    }

    /// `GET,POST /items/{id}`, `* /admin/`, `WS /live`; `{}` is `[^/]+`, `{*}` anything, `~` redirects.
    fn table(routes: &[&str]) -> RouteTable {
        let route = |line: &&str| {
            let (methods, path) = line.split_once(' ').unwrap();
            let (path, redirects_slash) = match path.strip_suffix('~') {
                Some(path) => (path, true),
                None => (path, false),
            };
            let (host, path) = path.split_once('/').unwrap();
            Route {
                template: format!("/{path}"),
                pattern: format!("^/{path}$")
                    .replace("{}", "[^/]+")
                    .replace("{*}", ".*"),
                kind: match methods {
                    "WS" => RouteKind::WebSocket,
                    _ => RouteKind::Http,
                },
                methods: match methods {
                    "WS" | "*" => None,
                    methods => Some(methods.split(',').map(Into::into).collect()),
                },
                host: (!host.is_empty()).then(|| format!("^{host}$")),
                redirects_slash,
                exact: true,
                endpoint: None,
                file: None,
                line: None,
                guards: None,
            }
        };
        RouteTable::new(routes.iter().map(route).collect())
    }

    fn index(routes: &[&str]) -> RouteIndex {
        RouteIndex::compile(&table(routes)).unwrap()
    }

    fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// `app | root_path | path_info`, or status and reason.
    fn answer(router: &Router, head: &Parts, upgrade: bool, prefix: Option<&str>) -> String {
        match router.route(head, upgrade, None, prefix, None) {
            Ok(Routed { app, at, .. }) => {
                assert_eq!(app.name, at.rule.app);
                let path = at.path_info(head).escape_ascii();
                format!("{} | {} | {path}", app.name, at.root_path)
            }
            Err(refusal) => format!("{} {}", refusal.status.as_u16(), refusal.reason),
        }
    }

    fn get(router: &Router, target: &str) -> String {
        answer(router, &head("GET", target, &[]), false, None)
    }

    fn upgrade(router: &Router, target: &str) -> String {
        answer(router, &head("GET", target, &[]), true, None)
    }

    /// Who answers `GET /path`, `WS /path` or `OPTIONS /path for POST`.
    fn who(router: &Router, request: &str) -> String {
        let mut words = request.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let mut headers = Vec::new();
        match (words.next(), words.next()) {
            (Some("for"), Some(asked)) => {
                headers.push(("origin", "https://shop.example"));
                headers.push(("access-control-request-method", asked));
            }
            (Some("at"), Some(host)) => headers.push(("host", host)),
            _ => {}
        }
        let (method, upgrade) = match method {
            "WS" => ("GET", true),
            method => (method, false),
        };
        match router.route(&head(method, target, &headers), upgrade, None, None, None) {
            Ok(routed) => routed.app.name.to_string(),
            Err(refusal) => refusal.status.as_u16().to_string(),
        }
    }

    fn mounts() -> Router {
        Router::new(
            vec![
                Rule::mount(asgi("api"), "/api", None),
                Rule::path(asgi("live"), "/live", None),
                Rule::mount(wsgi("shop"), "", None),
            ],
            "",
        )
    }

    #[test]
    fn a_part_of_an_application_is_split_from_it_by_every_rule_that_chooses_it() {
        let outer = asgi("main");
        let rules = vec![
            Rule::mount(Arc::clone(&outer), "/site", None),
            Rule::path(Arc::clone(&outer), "/old", None),
            Rule::mount(asgi("rest"), "", None),
        ];
        let mut router = Router::new(rules, "/public");
        let before = index(&["GET /old/own", "PUT /old/items"]);
        let part = Part::new(wsgi("main:/old"), "/old", before);
        router.divide("main", &Arc::new(part));
        for (target, expected) in [
            ("/site/old/a%20b", "main:/old | /public/site/old | /a b"),
            ("/site/old/", "main:/old | /public/site/old | /"),
            ("/site/old", "main | /public/site | /old"),
            ("/site/older", "main | /public/site | /older"),
            ("/site/old/own", "main | /public/site | /old/own"),
            ("/old/x", "main:/old | /public/old | /x"),
            ("/old/own", "main | /public | /old/own"),
            ("/other/old/x", "rest | /public | /other/old/x"),
        ] {
            assert_eq!(get(&router, target), expected, "{target}");
        }
        assert_eq!(
            upgrade(&router, "/site/old/x"),
            "main | /public/site | /old/x"
        );
        let told = answer(&router, &head("GET", "/old/x", &[]), false, Some("/told/"));
        assert_eq!(told, "main:/old | /told/old | /x");
        assert_eq!(who(&router, "OPTIONS /old/items for PUT"), "main");
        assert_eq!(who(&router, "OPTIONS /old/items for GET"), "main:/old");
        // It is the rule that has chosen.
        let asked = head("GET", "/old/x", &[]);
        let routed = router.route(&asked, false, None, None, None).unwrap();
        assert_eq!(routed.at.rule.name, "path /old");
    }

    #[test]
    fn a_path_is_matched_by_segments_and_split_at_the_mount() {
        let router = mounts();
        for (target, expected) in [
            ("/api", "api | /api | "),
            ("/api/", "api | /api | /"),
            ("/api/x?q=/live", "api | /api | /x"),
            ("/apiary", "shop |  | /apiary"),
            ("/API", "shop |  | /API"),
            ("//api", "shop |  | //api"),
            ("/api//x", "api | /api | //x"),
            ("/live", "live |  | /live"),
            ("/live/7", "live |  | /live/7"),
            ("/lively", "shop |  | /lively"),
            ("/", "shop |  | /"),
            ("http://host", "shop |  | /"),
            ("http://host/api/x", "api | /api | /x"),
            ("/x;v=1/y", "shop |  | /x;v=1/y"),
        ] {
            assert_eq!(get(&router, target), expected, "{target}");
        }
    }

    #[test]
    fn the_decoded_path_decides_and_is_what_applications_see() {
        let router = mounts();
        for (target, expected) in [
            ("/%61pi/x", "api | /api | /x"),
            ("/api/%C3%A9", r"api | /api | /\xc3\xa9"),
            ("/api/%FF%00", r"api | /api | /\xff\x00"),
            ("/api%20", "shop |  | /api "),
            ("/api%00", r"shop |  | /api\x00"),
            ("/%2561pi", "shop |  | /%61pi"),
            ("/api/%zz%", "api | /api | /%zz%"),
            ("/api%3Fx", "shop |  | /api?x"),
        ] {
            assert_eq!(get(&router, target), expected, "{target}");
        }
    }

    #[test]
    fn an_encoded_slash_is_refused_only_where_it_chooses_another_rule() {
        let router = mounts();
        let refused = "400 an encoded slash makes the path match two rules";
        for (target, expected) in [
            ("/api%2Fx", refused),
            ("/api%2fx", refused),
            ("/%61pi%2Fx", refused),
            ("/live%2F7", refused),
            ("/api/a%2Fb", "api | /api | /a/b"),
            ("/files/a%2Fb", "shop |  | /files/a/b"),
            ("/%2Fapi", "shop |  | //api"),
            ("/a%252Fb", "shop |  | /a%2Fb"),
        ] {
            assert_eq!(get(&router, target), expected, "{target}");
        }
        let owned = Router::new(
            vec![
                Rule::owned(asgi("new"), index(&["GET /items/{}", "GET /files/{*}"])),
                Rule::mount(wsgi("old"), "", None),
            ],
            "",
        );
        assert_eq!(get(&owned, "/items/a%2Fb"), refused);
        assert_eq!(get(&owned, "/files/a%2Fb"), "new |  | /files/a/b");
    }

    #[test]
    fn dot_segments_are_refused_in_every_spelling() {
        let router = mounts();
        for target in [
            "/..",
            "/.",
            "/a/..",
            "/a/../b",
            "/a/./b",
            "/%2e%2e/b",
            "/a/.%2E/b",
            "/a%2F..%2Fb",
            "/%2E",
        ] {
            assert_eq!(
                get(&router, target),
                "400 the path has a dot segment",
                "{target}"
            );
        }
        for target in ["/...", "/.well-known/x", "/a..b", "/a.", "/a;.."] {
            assert!(get(&router, target).starts_with("shop"), "{target}");
        }
    }

    #[test]
    fn the_asterisk_belongs_to_the_catch_all() {
        let head = head("OPTIONS", "*", &[]);
        assert_eq!(answer(&mounts(), &head, false, None), "shop |  | *");
        let without = Router::new(vec![Rule::mount(asgi("api"), "/api", None)], "");
        assert_eq!(
            answer(&without, &head, false, None),
            "404 no application is mounted here"
        );
    }

    #[test]
    fn the_public_prefix_stands_before_the_mount() {
        let router = Router::new(
            vec![
                Rule::mount(asgi("api"), "/api/", None),
                Rule::mount(wsgi("shop"), "", None),
            ],
            "/site/",
        );
        let head = head("GET", "/api/x", &[]);
        assert_eq!(answer(&router, &head, false, None), "api | /site/api | /x");
        let told = answer(&router, &head, false, Some("/tenant/7/"));
        assert_eq!(told, "api | /tenant/7/api | /x");
        assert_eq!(get(&router, "/x"), "shop | /site | /x");
    }

    #[test]
    fn an_upgrade_reaches_only_an_application_with_websockets() {
        let router = Router::new(
            vec![
                Rule::mount(wsgi("shop"), "/shop", None),
                Rule::owned(asgi("new"), index(&["WS /board/{}", "GET /page"])),
                Rule::mount(asgi("api"), "/api", None),
                Rule::mount(wsgi("old"), "", None),
            ],
            "",
        );
        let refused =
            "404 the application here does not serve WebSockets, only ASGI applications do";
        for (target, expected) in [
            ("/api/x", "api | /api | /x"),
            ("/board/7", "new |  | /board/7"),
            ("/shop/x", refused),
            ("/page", refused),
            ("/x", refused),
        ] {
            assert_eq!(upgrade(&router, target), expected, "{target}");
        }
        let none = Router::new(vec![Rule::mount(wsgi("shop"), "/shop", None)], "");
        assert_eq!(upgrade(&none, "/x"), "404 no application is mounted here");
    }

    #[test]
    fn an_upgrade_passes_a_wsgi_mount_and_finds_the_asgi_one_behind() {
        let router = Router::new(
            vec![
                Rule::mount(wsgi("shop"), "/shop", None),
                Rule::mount(asgi("new"), "", None),
            ],
            "",
        );
        assert_eq!(upgrade(&router, "/shop/live"), "new |  | /shop/live");
    }

    #[test]
    fn every_ruling_on_owned_routes_holds() {
        let new = [
            "GET,POST /both",
            "GET /items/{}",
            "POST /items/{}",
            "PATCH /split",
            "GET /new-only",
            "GET /slash/~",
            "GET /noslash~",
            "GET /twice/~",
            "GET /kept/~",
            "WS /live",
            "OPTIONS /asked",
            "* /static/{*}",
            "HEAD /headed",
            "GET api.example/hosted",
        ];
        let old = [
            "GET,DELETE /both",
            "DELETE /items/{}",
            "GET,PUT /split",
            "GET /old-only",
            "GET /live",
            "GET /twice/~",
            "POST /kept",
            "GET /headed",
            "POST /asked",
            "GET /old-slash/~",
        ];
        let known = Router::new(
            vec![
                Rule::owned(asgi("new"), index(&new)),
                Rule::mount(wsgi("old"), "", Some(index(&old))),
            ],
            "",
        );
        for (request, expected, ruling) in [
            (
                "GET /both",
                "new",
                "the first owner of path and method wins",
            ),
            (
                "DELETE /both",
                "old",
                "a method belongs to whoever defines it",
            ),
            (
                "PUT /both",
                "new",
                "a method that neither defines, on a path of both, goes to the first",
            ),
            ("GET /items/7", "new", "templates are matched"),
            (
                "POST /items/7",
                "new",
                "the routes of one path count together",
            ),
            ("DELETE /items/7", "old", "a template is shared by method"),
            ("GET /items/7/x", "old", "a parameter ends at a slash"),
            ("GET /items/", "old", "a parameter is not empty"),
            ("PATCH /split", "new", "each its own methods"),
            ("PUT /split", "old", "each its own methods"),
            ("HEAD /split", "old", "HEAD follows GET"),
            ("HEAD /items/7", "new", "HEAD follows GET"),
            ("HEAD /headed", "new", "unless HEAD itself is defined"),
            ("GET /headed", "old", "GET does not follow HEAD"),
            (
                "DELETE /new-only",
                "new",
                "an undefined method goes to whoever defines the path",
            ),
            (
                "DELETE /old-only",
                "old",
                "an undefined method goes to whoever defines the path",
            ),
            (
                "OPTIONS /new-only",
                "new",
                "a plain OPTIONS goes to whoever defines the path",
            ),
            (
                "OPTIONS /old-only",
                "old",
                "a plain OPTIONS goes to whoever defines the path",
            ),
            (
                "OPTIONS /asked",
                "new",
                "an OPTIONS that is defined is owned",
            ),
            (
                "OPTIONS /asked for POST",
                "old",
                "a preflight goes to the owner of its method",
            ),
            (
                "OPTIONS /both for DELETE",
                "old",
                "a preflight goes to the owner of its method",
            ),
            (
                "OPTIONS /both for GET",
                "new",
                "a preflight goes to the owner of its method",
            ),
            (
                "OPTIONS /both for PUT",
                "new",
                "a preflight for what nobody defines goes to the path",
            ),
            (
                "GET /nobody",
                "old",
                "a path that nobody defines goes to the last",
            ),
            (
                "GET /",
                "old",
                "a path that nobody defines goes to the last",
            ),
            (
                "GET /slash",
                "new",
                "a missing slash goes to whoever redirects",
            ),
            ("GET /slash/", "new", "the slash itself is a route"),
            (
                "GET /noslash/",
                "new",
                "a slash too many goes to whoever redirects",
            ),
            (
                "GET /twice",
                "new",
                "where both would redirect, the first does",
            ),
            (
                "POST /kept",
                "old",
                "unless the other defines the path without redirect",
            ),
            (
                "GET /kept",
                "old",
                "also when it does not define the method",
            ),
            ("GET /old-slash", "old", "the last redirects its own"),
            (
                "GET /new-only/",
                "old",
                "a router that does not redirect claims no slash",
            ),
            ("WS /live", "new", "WebSocket routes are owned"),
            (
                "GET /live",
                "old",
                "a plain GET on a WebSocket path goes on",
            ),
            ("WS /old-only", "404", "an upgrade never reaches WSGI"),
            (
                "PUT /static/a/b",
                "new",
                "what is mounted inside owns all below it",
            ),
            (
                "GET /hosted at api.example:8000",
                "new",
                "a host is matched without its port",
            ),
            (
                "GET /hosted at API.example",
                "new",
                "a host is matched in any case",
            ),
            (
                "GET /hosted at other.example",
                "old",
                "a route of another host is not defined",
            ),
            (
                "GET /hosted",
                "old",
                "a route of another host is not defined",
            ),
        ] {
            assert_eq!(who(&known, request), expected, "{request}: {ruling}");
        }

        let unknown = Router::new(
            vec![
                Rule::owned(asgi("new"), index(&new)),
                Rule::mount(wsgi("old"), "", None),
            ],
            "",
        );
        for (request, expected, ruling) in [
            ("GET /both", "new", "what is defined is owned"),
            (
                "PUT /both",
                "old",
                "the unknown router gets every method that is left",
            ),
            (
                "OPTIONS /both",
                "old",
                "the unknown router gets every method that is left",
            ),
            (
                "OPTIONS /both for POST",
                "new",
                "a preflight goes to the owner of its method",
            ),
            (
                "GET /slash",
                "old",
                "the unknown router gets every path that is left",
            ),
            (
                "GET /nobody",
                "old",
                "the unknown router gets every path that is left",
            ),
        ] {
            assert_eq!(who(&unknown, request), expected, "{request}: {ruling}");
        }

        let alone = Router::new(vec![Rule::owned(asgi("new"), index(&new))], "");
        for (request, expected) in [
            ("PUT /both", "new"),
            ("GET /slash", "new"),
            ("GET /x", "404"),
        ] {
            assert_eq!(who(&alone, request), expected, "{request}");
        }
    }

    #[test]
    fn the_routes_behind_a_mount_are_weighed_below_it() {
        let router = Router::new(
            vec![
                Rule::owned(asgi("new"), index(&["GET /api/items"])),
                Rule::mount(wsgi("api"), "/api", Some(index(&["POST /items"]))),
                Rule::path(wsgi("old"), "", Some(index(&["PUT /api/items"]))),
            ],
            "",
        );
        assert_eq!(who(&router, "GET /api/items"), "new");
        assert_eq!(who(&router, "POST /api/items"), "api");
        assert_eq!(who(&router, "PUT /api/items"), "new");
        assert_eq!(who(&router, "GET /api/x"), "api");
    }

    #[test]
    fn rules_have_names_and_owned_routes_their_template() {
        let router = Router::new(
            vec![
                Rule::mount(asgi("api"), "/api", None),
                Rule::path(asgi("live"), "/live", None),
                Rule::owned(asgi("new"), index(&["GET /items/{}", "GET /slash/~"])),
                Rule::mount(wsgi("old"), "", None),
            ],
            "",
        );
        for (target, name, template) in [
            ("/api/x", "mount /api", None),
            ("/live", "path /live", None),
            ("/items/7", "owned by new", Some("/items/{}")),
            ("/", "catch-all", None),
        ] {
            let head = head("GET", target, &[]);
            let at = router.route(&head, false, None, None, None).unwrap().at;
            let route = at.route.as_ref().map(|route| &*route.template);
            assert_eq!((at.rule.name.as_str(), route), (name, template));
        }
    }

    #[test]
    fn rules_are_built_from_a_configuration() {
        let rule = |app: &str, matches| RuleConfig::new(app, matches, "twinspan.toml:12");
        let unreadable = RoutesError::Unreadable {
            what: "the Pyramid router".into(),
        };
        let apps = [
            (asgi("new"), Ok(table(&["GET /items"]))),
            (wsgi("old"), Err(unreadable)),
        ];
        let rules = [
            rule("new", RuleMatch::owned()),
            rule("old", RuleMatch::mount("")),
        ];
        let router = Router::build(&rules, "/site", &apps, &Overlay::default()).unwrap();
        assert_eq!(get(&router, "/items"), "new | /site | /items");
        assert_eq!(get(&router, "/x"), "old | /site | /x");

        let error = |rule| {
            let built = Router::build(&[rule], "", &apps, &Overlay::default());
            built.unwrap_err().to_string()
        };
        assert_eq!(
            error(rule("old", RuleMatch::owned())),
            "twinspan.toml:12: `old` cannot own its routes: the router of the Pyramid router cannot be read"
        );
        assert_eq!(
            error(rule("odl", RuleMatch::owned())),
            "twinspan.toml:12: there is no application `odl`"
        );
    }

    #[test]
    fn routes_that_are_hidden_are_told_in_one_line() {
        let rule = |app: &str, matches| RuleConfig::new(app, matches, "arguments");
        let rules = [
            rule("new", RuleMatch::owned()),
            rule("old", RuleMatch::mount("")),
        ];
        let warnings = |new: &[&str], old: &[&str]| {
            let apps = [(asgi("new"), Ok(table(new))), (wsgi("old"), Ok(table(old)))];
            Router::warnings(&rules, &apps)
        };
        assert_eq!(
            warnings(
                &["GET /docs", "GET,PUT /items/{}", "WS /live"],
                &["* /docs", "GET,POST /items/new", "GET /live"]
            ),
            [
                "`new` answers what `old` defines too: GET /docs, GET /items/new; `twinspan routes` lists all"
            ]
        );
        let many = [
            "GET /a", "GET /b", "GET /c", "GET /d", "GET /e", "GET /f", "GET /g",
        ];
        assert_eq!(
            warnings(&many, &many),
            [
                "`new` answers what `old` defines too: GET /a, GET /b, GET /c, GET /d, GET /e and 2 more; \
                `twinspan routes` lists all"
            ]
        );
        assert_eq!(warnings(&many, &["POST /a", "GET /h"]), [""; 0]);

        let mut rules = rules;
        rules[0].shadow = Some(ShadowConfig::new(Percent::ALL));
        let apps = [
            (asgi("new"), Ok(table(&many))),
            (wsgi("old"), Ok(table(&many))),
        ];
        assert_eq!(
            Router::warnings(&rules, &apps),
            [""; 0],
            "copies hide nothing"
        );
    }
}
