//! `twinspan check`: what two applications behind one port do to each other, and what does not move with a route.
//!
//! A finding has a stable id, `both-claim GET /docs`, so that a person can say once, in the configuration, that it
//! is meant. Overlaps that nobody has acknowledged fail the check; what is only worth knowing is listed and
//! never fails it. Where a rule may pass requests on (a canary, a shadow, a condition), or names the path itself,
//! it is meant that two applications define a route, and there is nothing to find.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::Serialize;

use super::inventory::{Inventory, Known, Place};
use crate::app::{Interface, Notes, RouteKind, shape};
use crate::config::Config;
use crate::config::rule::Location;
use crate::error::Exit;
use crate::policy::ownership::Strength;

/// All that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckReport {
    /// By category, then in the order of the rules.
    pub findings: Vec<Finding>,
    /// Lines of `acknowledge` that match no finding.
    pub stale: Vec<String>,
    /// How many overlaps are not acknowledged.
    pub failures: usize,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// What `acknowledge` names: the category, then methods and path.
    pub id: String,
    pub category: Category,
    /// It fails the check as long as it is not acknowledged.
    pub fails: bool,
    pub acknowledged: bool,
    pub problem: String,
    pub way_out: String,
    /// The routes that it is about, the one that answers first.
    pub routes: Vec<FoundRoute>,
    /// What else takes part: functions that run before views, middlewares, extensions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<FoundCode>,
}

/// A route that a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundRoute {
    pub app: String,
    pub answers: bool,
    /// Those that the finding is about; `None` means every method, or a WebSocket.
    pub methods: Option<Vec<String>>,
    pub path: String,
    /// The rule that leads to it.
    pub rule: String,
    pub origin: String,
    pub endpoint: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
}

/// Code that is no view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundCode {
    pub app: String,
    pub name: String,
    pub file: Option<String>,
    pub line: Option<u32>,
}

/// What kind of finding it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    /// Two applications define method and path.
    BothClaim,
    /// Two applications share a path, each with methods of its own.
    MethodSplit,
    /// A route that takes nearly everything hides others.
    HiddenByCatchAll,
    /// A rule leads to an application that does not define what it hides.
    HiddenByRule,
    /// Paths of two applications differ in the slash at the end, and a redirect between them is gone.
    HiddenBySlash,
    /// Pages that FastAPI adds by itself hide a route.
    DocsHide,
    /// A route without a guard, where the older application has something that runs before its views.
    Unguarded,
    /// Code that needs the socket of its connection.
    SocketHijack,
    /// A WSGI application behind a bridge inside an ASGI application.
    Bridge,
    /// A converter decides in Python what a pattern can only approximate.
    Inexact,
    /// A router that cannot be read.
    Unreadable,
}

impl Category {
    fn as_str(self) -> &'static str {
        match self {
            Self::BothClaim => "both-claim",
            Self::MethodSplit => "method-split",
            Self::HiddenByCatchAll => "hidden-by-catch-all",
            Self::HiddenByRule => "hidden-by-rule",
            Self::HiddenBySlash => "hidden-by-slash",
            Self::DocsHide => "docs-hide",
            Self::Unguarded => "unguarded",
            Self::SocketHijack => "socket-hijack",
            Self::Bridge => "bridge",
            Self::Inexact => "inexact",
            Self::Unreadable => "unreadable",
        }
    }

    /// Whether a finding is an overlap, which fails the check until somebody says that it is meant.
    fn fails(self) -> bool {
        match self {
            Self::BothClaim
            | Self::MethodSplit
            | Self::HiddenByCatchAll
            | Self::HiddenByRule
            | Self::HiddenBySlash
            | Self::DocsHide => true,
            Self::Unguarded
            | Self::SocketHijack
            | Self::Bridge
            | Self::Inexact
            | Self::Unreadable => false,
        }
    }
}

impl CheckReport {
    pub fn new(config: &Config, inventory: &Inventory<'_>) -> Self {
        let mut findings = Findings::new(inventory);
        findings.hidden();
        findings.paired();
        findings.unguarded();
        findings.sockets();
        findings.bridges();
        findings.inexact();
        findings.unreadable();
        let mut findings = findings.list;
        findings.sort_by_key(|finding| finding.category);
        for finding in &mut findings {
            finding.acknowledged = config
                .acknowledged
                .iter()
                .any(|line| line.trim() == finding.id);
        }
        let failures = findings
            .iter()
            .filter(|finding| finding.fails && !finding.acknowledged);
        let failures = failures.count();
        let stale = config.acknowledged.iter().filter(|line| {
            let line = line.trim();
            findings.iter().all(|finding| finding.id != line)
        });
        Self {
            stale: stale.cloned().collect(),
            failures,
            findings,
        }
    }

    /// How the check ends.
    pub fn exit(&self) -> Exit {
        match self.failures {
            0 => Exit::Success,
            _ => Exit::Check,
        }
    }
}

/// What is being found.
struct Findings<'a> {
    inventory: &'a Inventory<'a>,
    places: Vec<Place<'a>>,
    list: Vec<Finding>,
}

/// What hides routes: a rule, and the route of its application that does, where there is one.
type Hider = (usize, Option<usize>);

impl<'a> Findings<'a> {
    fn new(inventory: &'a Inventory<'a>) -> Self {
        Self {
            inventory,
            places: inventory.places(),
            list: Vec::new(),
        }
    }

    /// Adds a finding, once.
    fn add(
        &mut self,
        category: Category,
        about: &str,
        problem: String,
        way_out: String,
        routes: Vec<FoundRoute>,
        others: Vec<FoundCode>,
    ) {
        let id = format!("{} {about}", category.as_str());
        if self.list.iter().any(|finding| finding.id == id) {
            return;
        }
        self.list.push(Finding {
            id,
            category,
            fails: category.fails(),
            acknowledged: false,
            problem,
            way_out,
            routes,
            others,
        });
    }

    /// Routes that no request comes to, because an earlier rule has them.
    fn hidden(&mut self) {
        let mut broad: BTreeMap<Hider, Vec<(Place<'a>, Vec<&'a str>)>> = BTreeMap::new();
        for place in self.places.clone() {
            if self.cannot_upgrade(&place) {
                continue; // `sockets` tells.
            }
            let mut lost: BTreeMap<Hider, Vec<&'a str>> = BTreeMap::new();
            for method in self.inventory.methods_of(place.route) {
                let way = self.inventory.way(&place, method);
                let reached = way.contains(&place.rule);
                for by in way.iter().take_while(|rule| **rule != place.rule) {
                    let hider = self.hider(*by, &place, method);
                    let is_last = !reached && way.last() == Some(by);
                    if let Some(hider) = hider.filter(|hider| is_last || self.misses(*hider)) {
                        lost.entry(hider).or_default().push(method);
                    }
                }
            }
            for (hider, methods) in lost {
                if self.is_broad(hider, &place) {
                    broad
                        .entry(hider)
                        .or_default()
                        .push((place.clone(), methods));
                } else {
                    self.one_hidden(hider, &place, &methods);
                }
            }
        }
        for (hider, hidden) in broad {
            self.many_hidden(hider, &hidden);
        }
    }

    /// What of another application a rule gives to requests for a route, unless it says itself that it is meant.
    fn hider(&self, by: usize, place: &Place<'_>, method: &str) -> Option<Hider> {
        let (rule, _) = self.inventory.rule(by)?;
        let route = match self.inventory.claim(by, &place.asked(method)) {
            Some((route, Strength::Route)) => Some(route),
            _ => None,
        };
        let named = matches!(rule.matches.location, Location::Template(_));
        (rule.app != place.app && !(named && route.is_some())).then_some((by, route))
    }

    /// Whether a rule names a path that its application does not define: then a part is too much, unless the
    /// answer is passed on.
    fn misses(&self, (by, _): Hider) -> bool {
        let Some((rule, app)) = self.inventory.rule(by) else {
            return false;
        };
        let named = matches!(rule.matches.location, Location::Template(_));
        named && app.is_readable() && rule.fallthrough.is_none()
    }

    /// Whether what hides a route takes much more than that: a whole rule, or a route with a parameter for
    /// whatever follows.
    fn is_broad(&self, (rule, route): Hider, place: &Place<'_>) -> bool {
        let (Some((_, app)), Some(id)) = (self.inventory.rule(rule), route) else {
            return true;
        };
        let Some(known) = app.routes.get(id) else {
            return true;
        };
        let cut = self.inventory.cut(rule);
        let path = format!("{}/qqq/777", place.example.trim_end_matches('/'));
        let same = shape(&format!("{cut}{}", known.template)) == shape(&place.path);
        !same
            && path
                .strip_prefix(cut)
                .is_some_and(|path| app.matches(id, path))
    }

    fn one_hidden(&mut self, (rule, route): Hider, place: &Place<'a>, methods: &[&'a str]) {
        let Some(owner) = route.and_then(|id| self.place_of(rule, id)) else {
            return;
        };
        let about = about(place, methods);
        let (new, old) = (owner.app, place.app);
        let routes = vec![
            self.found(&owner, methods, true),
            self.found(place, methods, false),
        ];
        let endpoint = owner.route.endpoint.as_deref().unwrap_or_default();
        if endpoint.starts_with(FASTAPI_PAGES) {
            self.add(
                Category::DocsHide,
                &about,
                format!("a page that FastAPI adds to `{new}` by itself hides the route of `{old}`"),
                format!(
                    "give the page another path, `FastAPI(docs_url=…, redoc_url=…, openapi_url=…)`, or none \
                     (`None`); if it is meant that `{new}` answers, acknowledge it"
                ),
                routes,
                Vec::new(),
            );
            return;
        }
        self.add(
            Category::BothClaim,
            &about,
            format!("`{new}` answers, so the view of `{old}` is never asked"),
            format!(
                "moved; the view of `{old}` can be deleted. To move it slowly instead, give it a rule of its own \
                 with `template`, `canary` or `shadow`; if both shall stay, acknowledge it"
            ),
            routes,
            Vec::new(),
        );
    }

    fn many_hidden(&mut self, (rule, route): Hider, hidden: &[(Place<'a>, Vec<&'a str>)]) {
        let Some((by, app)) = self.inventory.rule(rule) else {
            return;
        };
        let below = hidden.iter();
        let below: Vec<_> = below
            .map(|(place, methods)| self.found(place, methods, false))
            .collect();
        let count = match below.len() {
            1 => "a route".to_owned(),
            many => format!("{many} routes"),
        };
        let Some(owner) = route.and_then(|id| self.place_of(rule, id)) else {
            let why = if app.is_readable() {
                "which does not define it"
            } else {
                "whose router cannot be read"
            };
            self.add(
                Category::HiddenByRule,
                &by.name,
                format!(
                    "the rule `{}` leads {count} of other applications to `{}`, {why}",
                    by.name, by.app
                ),
                "add `when = \"owned\"` to the rule, so that it matches only what its application defines; or give it a longer \
                 prefix, or put it below the rules of the others"
                    .into(),
                below,
                Vec::new(),
            );
            return;
        };
        let mut routes = vec![self.found(&owner, &[""], true)];
        routes.extend(below);
        self.add(
            Category::HiddenByCatchAll,
            &owner.path,
            format!(
                "`{}` of `{}` matches nearly everything and hides {count} of other applications",
                owner.path, owner.app
            ),
            format!(
                "narrow the route, or give the hidden ones rules above `{}` (`template = \"…\"`)",
                by.name
            ),
            routes,
            Vec::new(),
        );
    }

    /// Routes of two applications whose paths are the same to a reader, or the same but for the slash at the end.
    fn paired(&mut self) {
        let mut alike: BTreeMap<(bool, String), Vec<Place<'a>>> = BTreeMap::new();
        for place in &self.places {
            let path = shape(&place.path);
            let websocket = place.route.kind == RouteKind::WebSocket;
            let key = (websocket, path.trim_end_matches('/').to_owned());
            alike.entry(key).or_default().push(place.clone());
        }
        for group in alike.values() {
            for (at, upper) in group.iter().enumerate() {
                for lower in group.iter().skip(at + 1) {
                    if upper.app == lower.app || self.is_template(upper) {
                        continue;
                    }
                    if upper.has_slash() == lower.has_slash() {
                        self.partly(upper, lower);
                        self.split(upper, lower);
                    } else {
                        self.slash(upper, lower, group);
                    }
                }
            }
        }
    }

    /// The upper one answers some of the paths of the lower one, because its parameters are narrower.
    fn partly(&mut self, upper: &Place<'a>, lower: &Place<'a>) {
        let cut = self.inventory.cut(lower.rule);
        let matches = upper.example.strip_prefix(cut).is_some_and(|path| {
            let app = self.inventory.app(lower.app);
            app.is_some_and(|app| app.matches(lower.id, path))
        });
        let methods = self.common(upper, lower);
        if !matches || methods.is_empty() {
            return;
        }
        let (new, old) = (upper.app, lower.app);
        self.add(
            Category::BothClaim,
            &about(lower, &methods),
            format!("`{new}` answers those paths that both routes match, the view of `{old}` the others"),
            "make the parameters match the same paths, so that the route has one owner; if it is meant, acknowledge it"
                .into(),
            vec![
                self.found(upper, &methods, true),
                self.found(lower, &methods, false),
            ],
            Vec::new(),
        );
    }

    /// Each has methods of its own.
    fn split(&mut self, upper: &Place<'a>, lower: &Place<'a>) {
        if upper.route.methods.is_none() || lower.route.methods.is_none() {
            return;
        }
        let only = |one: &Place<'a>, other: &Place<'a>| -> Vec<&'a str> {
            let others = self.inventory.methods_of(other.route);
            let own = self.inventory.methods_of(one.route).into_iter();
            own.filter(|method| !others.contains(method) && self.is_alone(one, method))
                .collect()
        };
        let (above, below) = (only(upper, lower), only(lower, upper));
        if above.is_empty() || below.is_empty() {
            return;
        }
        let rest = self.inventory.way(upper, "").last().copied();
        let rest = rest.and_then(|rule| self.inventory.rules.get(rule));
        let rest = rest.map_or("nobody", |rule| &rule.app);
        self.add(
            Category::MethodSplit,
            &lower.path,
            format!(
                "`{}` answers {}, `{}` answers {}; any other method and a plain OPTIONS go to `{rest}`, whose \
                 `Allow` names its own methods only",
                upper.app,
                above.join(","),
                lower.app,
                below.join(",")
            ),
            "move the other methods too; if the path shall have two owners, acknowledge it".into(),
            vec![
                self.found(upper, &above, true),
                self.found(lower, &below, true),
            ],
            Vec::new(),
        );
    }

    /// A client that asks for one form was redirected to the other.
    fn slash(&mut self, upper: &Place<'a>, lower: &Place<'a>, group: &[Place<'a>]) {
        if upper.route.kind == RouteKind::WebSocket {
            return;
        }
        let mut methods = self.common(upper, lower);
        // An application that defines both forms redirects nobody.
        methods.retain(|method| {
            !group.iter().any(|other| {
                other.app == upper.app
                    && other.has_slash() == lower.has_slash()
                    && self.inventory.methods_of(other.route).contains(method)
            })
        });
        let gone = if lower.route.redirects_slash {
            format!(
                "`{}` redirects `{}` to `{}`, but `{}` defines the first and answers it",
                lower.app,
                bare(&upper.path, &lower.path),
                lower.path,
                upper.app
            )
        } else if upper.route.redirects_slash {
            format!(
                "`{}` would redirect `{}` to `{}`, but `{}` defines the first and answers it",
                upper.app,
                bare(&lower.path, &upper.path),
                upper.path,
                lower.app
            )
        } else {
            return;
        };
        if methods.is_empty() {
            return;
        }
        self.add(
            Category::HiddenBySlash,
            &about(lower, &methods),
            gone,
            format!(
                "define in `{}` the form that clients use, with the slash or without, or delete the route of `{}`; \
                 if both shall stay, acknowledge it",
                upper.app, lower.app
            ),
            vec![
                self.found(upper, &methods, true),
                self.found(lower, &methods, true),
            ],
            Vec::new(),
        );
    }

    /// Routes without a guard, above applications that have something before their views.
    fn unguarded(&mut self) {
        for place in self.places.clone() {
            let bare = place.route.guards.as_ref().is_some_and(Vec::is_empty);
            if !bare || place.route.kind == RouteKind::WebSocket {
                continue;
            }
            let own = self.inventory.app(place.app).and_then(notes);
            let mut own = own.into_iter().flat_map(|notes| &notes.middleware);
            if own.any(|name| sounds_like_a_guard(name)) {
                continue;
            }
            let others = self.guards_below(&place);
            let methods: Vec<_> = self.inventory.methods_of(place.route);
            let reached = methods.iter().any(|method| {
                let way = self.inventory.way(&place, method);
                way.contains(&place.rule)
            });
            let Some(first) = others.first().filter(|_| reached) else {
                continue;
            };
            let problem = format!(
                "no dependency and no security scheme runs before the view, nor does what `{}` runs before its own",
                first.app
            );
            self.add(
                Category::Unguarded,
                &about(&place, &methods),
                problem,
                "give it what it needs of that as a dependency (`dependencies=[Depends(…)]` of the route, its router or \
                 the application); a route for everybody needs nothing"
                    .into(),
                vec![self.found(&place, &methods, true)],
                others,
            );
        }
    }

    /// What runs before the views of applications that the rules below lead to.
    fn guards_below(&self, place: &Place<'_>) -> Vec<FoundCode> {
        let mut found = Vec::new();
        let below = self.inventory.rules.iter().enumerate().skip(place.rule + 1);
        for (index, rule) in below {
            let seen = found.iter().any(|code: &FoundCode| code.app == rule.app);
            if seen || rule.app == place.app || !self.inventory.covers(index, &place.example) {
                continue;
            }
            let Some(notes) = self.inventory.app(&rule.app).and_then(notes) else {
                continue;
            };
            found.extend(notes.before_request.iter().map(|hook| FoundCode {
                app: rule.app.clone(),
                name: match &hook.scope {
                    None => hook.name.clone(),
                    Some(blueprint) => format!("{} of blueprint {blueprint}", hook.name),
                },
                file: hook.file.clone(),
                line: hook.line,
            }));
            let is_django = notes.middleware.iter().any(|name| name.starts_with(DJANGO));
            let guards = notes.middleware.iter().filter(|name| {
                // What a site wrote for itself may do anything.
                is_django && (sounds_like_a_guard(name) || !name.starts_with(DJANGO))
            });
            found.extend(guards.map(|name| FoundCode {
                app: rule.app.clone(),
                name: name.clone(),
                file: None,
                line: None,
            }));
        }
        found
    }

    /// Code that needs the socket of its connection.
    fn sockets(&mut self) {
        for app in self.inventory.apps() {
            // The servers that would hand them out are not this one; an ASGI application has its messages.
            let Some(notes) =
                notes(app).filter(|_| app.report.description.interface == Interface::Wsgi)
            else {
                continue;
            };
            let name = app.report.name.as_str();
            for socket in &notes.sockets {
                let places = self.places.iter().filter(|place| {
                    let same = place.route.endpoint == socket.endpoint;
                    place.app == name && socket.endpoint.is_some() && same
                });
                let places: Vec<Place<'a>> = places.cloned().collect();
                let moved = places.iter().all(|place| {
                    place.route.kind == RouteKind::WebSocket
                        && !self.inventory.way(place, "").is_empty()
                });
                if moved && !places.is_empty() {
                    continue;
                }
                let extension = &socket.extension;
                let about = match places.first() {
                    Some(place) => format!("{extension} {}", place.path),
                    None => format!("{extension} in {name}"),
                };
                let way_out = if extension.contains("socketio") || extension.contains("SocketIO") {
                    "serve Socket.IO from an ASGI application: `socketio.ASGIApp(socketio.AsyncServer(async_mode=\"asgi\"))` \
                     of python-socketio, by a rule with `path = \"/socket.io\"`; until then clients fall back to polling, \
                     and each poll holds a thread"
                } else {
                    "move the route to an ASGI application, `@app.websocket(…)` in FastAPI: upgrades go to ASGI \
                     applications by themselves, and plain requests stay where they are"
                };
                let routes = places.iter().map(|place| self.found(place, &[""], false));
                let routes = routes.collect();
                self.add(
                    Category::SocketHijack,
                    &about,
                    format!(
                        "{extension} needs the socket of the connection, which no WSGI application gets from this server: \
                         its WebSockets cannot be opened"
                    ),
                    way_out.into(),
                    routes,
                    vec![FoundCode {
                        app: name.into(),
                        name: socket.endpoint.clone().unwrap_or_else(|| extension.clone()),
                        file: socket.file.clone(),
                        line: socket.line,
                    }],
                );
            }
        }
    }

    /// WSGI applications behind a bridge inside of an ASGI application.
    fn bridges(&mut self) {
        for app in self.inventory.apps() {
            let outer = &app.report.name;
            for bridge in &app.report.bridges {
                let passed = bridge.passes.iter().map(|passed| FoundCode {
                    app: outer.clone(),
                    name: passed.name.clone(),
                    file: passed.file.clone(),
                    line: passed.line,
                });
                let passed: Vec<_> = passed.collect();
                let (place, class) = (bridge.place(), &bridge.bridge);
                let (problem, way_out) = match (&bridge.served_as, &bridge.obstacle) {
                    (Some(inner), _) => (
                        match passed.as_slice() {
                            [] => format!("`{inner}` is served natively in place of `{class}`; nothing stood before it"),
                            _ => format!("`{inner}` is served natively in place of `{class}`, and no longer passes this:"),
                        },
                        "put what is missed around the WSGI application itself, or take `unbridge` away".to_owned(),
                    ),
                    (None, Some(obstacle)) => (
                        format!(
                            "{place} goes to WSGI through `{class}`, which {}; `--unbridge` cannot help: {obstacle}",
                            bridge.cost
                        ),
                        "name the WSGI application in `[apps.NAME]`, and give it a rule of its own".to_owned(),
                    ),
                    (None, None) => (
                        match passed.as_slice() {
                            [] => format!("{place} goes to WSGI through `{class}`, which {}", bridge.cost),
                            _ => format!(
                                "{place} goes to WSGI through `{class}`, which {}; served natively it would no longer pass this:",
                                bridge.cost
                            ),
                        },
                        format!(
                            "`--unbridge`, or `unbridge = true` in `[apps.{outer}]`, serves it natively without a change in code"
                        ),
                    ),
                };
                let about = format!("{place} in {outer}");
                self.add(
                    Category::Bridge,
                    &about,
                    problem,
                    way_out,
                    Vec::new(),
                    passed,
                );
            }
        }
    }

    /// Owned routes whose pattern says more than their converter.
    fn inexact(&mut self) {
        for place in self.places.clone() {
            let owned = self.inventory.rules.get(place.rule);
            if place.route.exact || !owned.is_some_and(|rule| rule.matches.owned) {
                continue;
            }
            let methods = self.inventory.methods_of(place.route);
            let app = place.app;
            self.add(
                Category::Inexact,
                &about(&place, &methods),
                format!(
                    "Python code of `{app}` decides whether a path belongs to it, so that `{app}` is also given paths \
                     which that code refuses, and answers them 404"
                ),
                "say in the expression of the converter what its code checks; or add `fallthrough` to the rule, so that \
                 others are asked after a 404"
                    .into(),
                vec![self.found(&place, &methods, true)],
                Vec::new(),
            );
        }
    }

    fn unreadable(&mut self) {
        for app in self.inventory.apps() {
            let Err(why) = &app.report.routes else {
                continue;
            };
            let name = &app.report.name;
            self.add(
                Category::Unreadable,
                name,
                format!("{why}: what `{name}` defines is not part of this check"),
                format!("name its router with `router = \"module:attr\"` in `[apps.{name}]`"),
                Vec::new(),
                Vec::new(),
            );
        }
    }

    /// The methods of both for which each is what its own rule leads to, whatever the request.
    fn common(&self, upper: &Place<'a>, lower: &Place<'a>) -> Vec<&'a str> {
        let others = self.inventory.methods_of(lower.route);
        let own = self.inventory.methods_of(upper.route).into_iter();
        own.filter(|method| {
            others.contains(method) && self.is_alone(upper, method) && self.is_alone(lower, method)
        })
        .collect()
    }

    /// Whether it is a WebSocket of a WSGI application, which no rule can lead to.
    fn cannot_upgrade(&self, place: &Place<'_>) -> bool {
        let app = self.inventory.app(place.app);
        place.route.kind == RouteKind::WebSocket
            && app.is_some_and(|app| app.report.description.interface == Interface::Wsgi)
    }

    /// Whether nobody else answers requests for the route, neither before nor after.
    fn is_alone(&self, place: &Place<'_>, method: &str) -> bool {
        self.inventory.way(place, method) == [place.rule]
    }

    /// Whether the rule names the path itself.
    fn is_template(&self, place: &Place<'_>) -> bool {
        let rule = self.inventory.rules.get(place.rule);
        rule.is_some_and(|rule| matches!(rule.matches.location, Location::Template(_)))
    }

    fn place_of(&self, rule: usize, id: usize) -> Option<Place<'a>> {
        let mut places = self.places.iter();
        let found = places.find(|place| place.rule == rule && place.id == id);
        found.cloned()
    }

    fn found(&self, place: &Place<'_>, methods: &[&str], answers: bool) -> FoundRoute {
        let rule = self.inventory.rules.get(place.rule);
        let every = place.route.kind == RouteKind::WebSocket || methods.contains(&"");
        FoundRoute {
            app: place.app.into(),
            answers,
            methods: if every {
                place.route.methods.clone()
            } else {
                Some(methods.iter().map(ToString::to_string).collect())
            },
            path: place.path.clone(),
            rule: rule.map(|rule| rule.name.clone()).unwrap_or_default(),
            origin: rule.map(|rule| rule.origin.clone()).unwrap_or_default(),
            endpoint: place.route.endpoint.clone(),
            file: place.route.file.clone(),
            line: place.route.line,
        }
    }
}

impl Place<'_> {
    fn has_slash(&self) -> bool {
        self.example.ends_with('/')
    }
}

/// The endpoints of FastAPI's own pages begin so.
const FASTAPI_PAGES: &str = "fastapi.applications.";

const DJANGO: &str = "django.";

fn notes<'r>(app: &Known<'r>) -> Option<&'r Notes> {
    app.report.routes.as_ref().ok().map(|table| &table.notes)
}

/// Names are all that is known of a middleware.
fn sounds_like_a_guard(name: &str) -> bool {
    let name = name.to_lowercase();
    ["auth", "login", "csrf", "permission"]
        .iter()
        .any(|part| name.contains(part))
}

/// `GET,POST /items/{id}`, `WS /live`; every method is `*`.
fn about(place: &Place<'_>, methods: &[&str]) -> String {
    let methods = match place.route.kind {
        RouteKind::WebSocket => "WS".into(),
        RouteKind::Http if methods.contains(&"") => "*".into(),
        RouteKind::Http => methods.join(","),
    };
    format!("{methods} {}", place.path)
}

/// The form of `path` that `other` is redirected from: its own, or that of a template that names both.
fn bare(path: &str, other: &str) -> String {
    if path != other {
        return path.into();
    }
    match other.strip_suffix('/') {
        Some(without) => without.into(),
        None => format!("{other}/"),
    }
}

impl fmt::Display for CheckReport {
    /// What fails, what is worth knowing, what was acknowledged, and how it ends.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.findings.iter().filter(|finding| !finding.acknowledged);
        let (failing, listed): (Vec<_>, Vec<_>) = open.partition(|finding| finding.fails);
        write_grouped(&failing, f)?;
        if !listed.is_empty() {
            writeln!(f, "Worth knowing; nothing of this fails the check:\n")?;
            write_grouped(&listed, f)?;
        }
        let mut acknowledged = self.findings.iter().filter(|it| it.acknowledged).peekable();
        if acknowledged.peek().is_some() {
            writeln!(f, "Acknowledged:")?;
            for finding in acknowledged {
                writeln!(f, "  {}", finding.id)?;
            }
            writeln!(f)?;
        }
        if !self.stale.is_empty() {
            writeln!(
                f,
                "Acknowledged, but not found; take these lines out of the configuration:"
            )?;
            for line in &self.stale {
                writeln!(f, "  {line}")?;
            }
            writeln!(f)?;
        }
        match failing.as_slice() {
            [] => write!(f, "No overlap that is not acknowledged"),
            [first, ..] => {
                let count = match failing.len() {
                    1 => "1 overlap is".to_owned(),
                    many => format!("{many} overlaps are"),
                };
                write!(
                    f,
                    "{count} not acknowledged; to say that one is meant: acknowledge = [\"{}\"]",
                    first.id
                )
            }
        }
    }
}

/// What is the same for several findings in a row is said once, after them.
fn write_grouped(findings: &[&Finding], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let alike = |one: &&Finding, next: &&Finding| {
        one.problem == next.problem && one.way_out == next.way_out && one.others == next.others
    };
    for group in findings.chunk_by(alike) {
        for finding in group {
            writeln!(f, "{}", finding.id)?;
            for route in &finding.routes {
                writeln!(f, "  {route}")?;
            }
        }
        let Some(last) = group.last() else {
            continue;
        };
        writeln!(f, "  {}", last.problem)?;
        for code in &last.others {
            let place = place(code.file.as_deref(), code.line);
            writeln!(f, "  - {}: {}{place}", code.app, code.name)?;
        }
        writeln!(f, "  way out: {}\n", last.way_out)?;
    }
    Ok(())
}

impl fmt::Display for FoundRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.answers { '+' } else { '-' };
        write!(f, "{sign} {}: ", self.app)?;
        if let Some(methods) = &self.methods {
            write!(f, "{} ", methods.join(","))?;
        }
        let mut code = String::new();
        if let Some(endpoint) = &self.endpoint {
            write!(code, ", {endpoint}")?;
        }
        code.push_str(&place(self.file.as_deref(), self.line));
        write!(
            f,
            "{}{code}; rule {} ({})",
            self.path, self.rule, self.origin
        )
    }
}

fn place(file: Option<&str>, line: Option<u32>) -> String {
    match (file, line) {
        (Some(file), Some(line)) => format!(" ({file}:{line})"),
        (Some(file), None) => format!(" ({file})"),
        (None, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{config_of, report, rule, template};
    use super::*;
    use crate::app::{BridgeReport, Hook, Passed, SocketUse};
    use crate::config::rule::{CanaryConfig, FallthroughConfig, Percent, ShadowConfig, Sticky};
    use crate::config::{RuleConfig, RuleMatch};
    use crate::supervisor::channel::AppReport;

    /// New routes are owned by the first application, the second gets the rest.
    fn owned(new: &[&str], old: &[&str]) -> (Vec<RuleConfig>, [AppReport; 2]) {
        let rules = vec![
            rule("new", RuleMatch::owned()),
            rule("old", RuleMatch::mount("")),
        ];
        let reports = [
            report("new", Interface::Asgi, new),
            report("old", Interface::Wsgi, old),
        ];
        (rules, reports)
    }

    fn check(rules: Vec<RuleConfig>, reports: &[AppReport]) -> CheckReport {
        acknowledged(rules, reports, &[])
    }

    fn acknowledged(rules: Vec<RuleConfig>, reports: &[AppReport], lines: &[&str]) -> CheckReport {
        let config = Config {
            acknowledged: lines.iter().map(ToString::to_string).collect(),
            ..config_of(rules, reports)
        };
        CheckReport::new(&config, &Inventory::new(&config, reports).unwrap())
    }

    fn ids(report: &CheckReport) -> Vec<&str> {
        let findings = report.findings.iter();
        findings.map(|finding| finding.id.as_str()).collect()
    }

    fn canary(percent: &str) -> CanaryConfig {
        CanaryConfig {
            percent: percent.parse().unwrap(),
            sticky: Sticky::Client,
            testers: Vec::new(),
            rollback: None,
        }
    }

    fn notes_of(report: &mut AppReport) -> &mut Notes {
        &mut report.routes.as_mut().unwrap().notes
    }

    #[test]
    fn overlaps_of_an_owner_and_the_rest_have_their_categories() {
        for (new, old, expected) in [
            (&["GET /a"][..], &["GET /b"][..], &[][..]),
            (&["GET /a"], &["GET /a"], &["both-claim GET /a"]),
            (
                &["GET,PUT /a"],
                &["GET,POST /a"],
                &["both-claim GET /a", "method-split /a"],
            ),
            (
                &["GET /items/{id}"],
                &["GET /items/<int:id>"],
                &["both-claim GET /items/<int:id>"],
            ),
            // Only some paths of the hidden route.
            (
                &["GET /items/<int:id>"],
                &["GET /items/{id}"],
                &["both-claim GET /items/{id}"],
            ),
            (&["GET /a"], &["* /a"], &["both-claim GET /a"]),
            (&["* /a"], &["* /a"], &["both-claim * /a"]),
            (&["POST /a"], &["GET /a"], &["method-split /a"]),
            (
                &["GET /{p:path}"],
                &["GET /a", "GET /b/c", "POST /d"],
                &["hidden-by-catch-all /{p:path}"],
            ),
            (
                &["GET /{p:path}"],
                &["GET /<path:q>"],
                &["both-claim GET /<path:q>"],
            ),
            // What is narrower is what a migration is made of.
            (&["GET /users/me"], &["GET /users/<name>"], &[]),
            (&["GET /a"], &["GET /<path:p>"], &[]),
            (&["GET /a~"], &["GET /a/~"], &["hidden-by-slash GET /a/"]),
            (&["GET /a/~"], &["GET /a"], &["hidden-by-slash GET /a"]),
            (&["GET /a/"], &["GET /a"], &[]),
            (
                &["GET /a", "GET /a/"],
                &["GET /a/~"],
                &["both-claim GET /a/"],
            ),
            (&["WS /live"], &["GET /live"], &[]),
        ] {
            let (rules, reports) = owned(new, old);
            let found = check(rules, &reports);
            assert_eq!(ids(&found), expected, "{new:?} above {old:?}");
            assert_eq!(
                found.exit(),
                if expected.is_empty() {
                    Exit::Success
                } else {
                    Exit::Check
                }
            );
        }
    }

    #[test]
    fn a_route_that_is_on_its_way_is_no_finding() {
        let canary = canary("100");
        let mut plain = rule("new", template("/items/{id}"));
        plain.matches.owned = true;
        let header = {
            let mut rule = rule("new", RuleMatch::owned());
            let beta = ("x-beta".parse().unwrap(), "1".parse().unwrap());
            rule.matches.conditions.headers.push(beta);
            rule
        };
        for policy in [
            RuleConfig {
                canary: Some(canary.clone()),
                ..plain.clone()
            },
            RuleConfig {
                shadow: Some(ShadowConfig::new(Percent::ONE)),
                canary: Some(canary),
                ..plain.clone()
            },
            plain,
            header,
        ] {
            let (_, reports) = owned(&["GET,PUT /items/{id}"], &["GET,POST /items/<id>"]);
            let rules = vec![policy, rule("old", RuleMatch::mount(""))];
            let found = check(rules, &reports);
            assert_eq!(ids(&found), [""; 0]);
        }
    }

    #[test]
    fn a_rule_hides_what_its_application_does_not_define() {
        let (_, mut reports) = owned(&["GET /x"], &["GET /api/x", "GET /api/y", "GET /z"]);
        let rules = || {
            vec![
                rule("new", RuleMatch::mount("/api")),
                rule("old", RuleMatch::mount("")),
            ]
        };
        let found = check(rules(), &reports);
        assert_eq!(
            ids(&found),
            ["both-claim GET /api/x", "hidden-by-rule mount /api"]
        );
        assert_eq!(
            found.findings[1].problem,
            "the rule `mount /api` leads a route of other applications to `new`, which does not define it"
        );
        reports[0].routes = Err("the router of `new` cannot be read".into());
        let found = check(rules(), &reports);
        assert_eq!(ids(&found), ["hidden-by-rule mount /api", "unreadable new"]);
        assert!(found.findings[0].problem.contains("leads 2 routes"));
    }

    #[test]
    fn a_rule_that_names_a_path_of_which_its_application_knows_less_is_found() {
        let found = |policy: &str, only_owned: bool| {
            let (_, reports) = owned(&["GET /items/{id}"], &["GET,POST /items/<id>"]);
            let mut moving = rule("new", template("/items/{id}"));
            moving.matches.owned = only_owned;
            match policy {
                "canary" => moving.canary = Some(canary("10")),
                "fallthrough" => {
                    let statuses = vec![http::StatusCode::METHOD_NOT_ALLOWED];
                    moving.fallthrough = Some(FallthroughConfig::new(statuses));
                }
                _ => {}
            }
            let rules = vec![moving, rule("old", RuleMatch::mount(""))];
            check(rules, &reports).findings
        };
        for (policy, owned, expected) in [
            ("", false, 1),
            ("", true, 0),
            ("canary", false, 1),
            ("canary", true, 0),
            ("fallthrough", false, 0),
        ] {
            let findings = found(policy, owned);
            assert_eq!(findings.len(), expected, "{policy} {owned} {findings:?}");
            for finding in findings {
                assert_eq!(finding.id, "hidden-by-rule template /items/{id}");
                assert_eq!(finding.routes[0].methods, Some(vec!["POST".to_owned()]));
            }
        }
    }

    #[test]
    fn a_page_of_fastapi_is_told_from_a_route_of_somebody() {
        let (rules, mut reports) = owned(&["GET /docs"], &["GET /docs"]);
        let routes = &mut reports[0].routes.as_mut().unwrap().routes;
        routes[0].endpoint =
            Some("fastapi.applications.FastAPI.setup.<locals>.swagger_ui_html".into());
        assert_eq!(ids(&check(rules, &reports)), ["docs-hide GET /docs"]);
    }

    #[test]
    fn a_route_without_a_guard_is_listed_where_something_ran_before_its_view() {
        let hook = || Hook {
            name: "shop.login".into(),
            scope: Some("admin".into()),
            file: Some("shop.py".into()),
            line: Some(3),
        };
        let found =
            |guards: Option<&[&str]>, middleware: &str, hooks: Vec<Hook>, django: &[&str]| {
                let (rules, mut reports) = owned(&["GET /new"], &["GET /old"]);
                let [new, old] = &mut reports;
                let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
                new.routes.as_mut().unwrap().routes[0].guards = guards.map(names);
                notes_of(new).middleware.push(middleware.into());
                notes_of(old).before_request = hooks;
                notes_of(old).middleware = names(django);
                let report = check(rules, &reports);
                assert_eq!(report.exit(), Exit::Success);
                report
            };
        let sessions = ["django.contrib.sessions.middleware.SessionMiddleware"];
        let auth = ["django.contrib.auth.middleware.AuthenticationMiddleware"];
        for (guards, middleware, hooks, django, expected) in [
            (Some(&[][..]), "app.timing", vec![hook()], &[][..], true),
            (Some(&[]), "app.timing", vec![], &auth, true),
            (Some(&[]), "app.timing", vec![], &sessions, false),
            (Some(&["app.user"]), "app.timing", vec![hook()], &[], false),
            (None, "app.timing", vec![hook()], &[], false),
            (Some(&[]), "app.AuthMiddleware", vec![hook()], &[], false),
        ] {
            let findings = found(guards, middleware, hooks, django).findings;
            assert_eq!(
                !findings.is_empty(),
                expected,
                "{guards:?} {middleware} {django:?}"
            );
        }
        assert_eq!(
            found(Some(&[]), "app.timing", vec![hook()], &[]).to_string(),
            "\
Worth knowing; nothing of this fails the check:

unguarded GET /new
  + new: GET /new, view (shop.py:7); rule owned by new (APP)
  no dependency and no security scheme runs before the view, nor does what `old` runs before its own
  - old: shop.login of blueprint admin (shop.py:3)
  way out: give it what it needs of that as a dependency (`dependencies=[Depends(…)]` of the route, its router or \
the application); a route for everybody needs nothing

No overlap that is not acknowledged"
        );
    }

    #[test]
    fn what_takes_a_socket_is_listed_until_an_asgi_application_has_its_route() {
        let socket = |extension: &str, endpoint: Option<&str>| SocketUse {
            extension: extension.into(),
            endpoint: endpoint.map(Into::into),
            file: None,
            line: None,
        };
        let (rules, mut reports) = owned(&[], &["WS /live"]);
        notes_of(&mut reports[1]).sockets = vec![
            socket("flask-sock", Some("view")),
            socket("Flask-SocketIO (threading)", None),
        ];
        let found = check(rules.clone(), &reports);
        assert_eq!(
            ids(&found),
            [
                "socket-hijack flask-sock /live",
                "socket-hijack Flask-SocketIO (threading) in old"
            ]
        );
        assert!(found.findings[1].way_out.contains("socketio.ASGIApp"));
        assert_eq!(found.exit(), Exit::Success);
        reports[0] = report("new", Interface::Asgi, &["WS /live"]);
        let found = check(rules, &reports);
        assert_eq!(
            ids(&found),
            ["socket-hijack Flask-SocketIO (threading) in old"]
        );
    }

    #[test]
    fn a_bridge_is_listed_with_what_its_requests_no_longer_pass() {
        let found = |served_as: Option<&str>, obstacle: Option<&str>| {
            let (rules, mut reports) = owned(&["GET /new"], &[]);
            reports[0].bridges = vec![BridgeReport {
                prefix: "/legacy".into(),
                bridge: "a2wsgi.wsgi.WSGIMiddleware".into(),
                cost: "costs a thread".into(),
                obstacle: obstacle.map(Into::into),
                passes: vec![Passed {
                    name: "app.Audit".into(),
                    file: Some("app.py".into()),
                    line: Some(3),
                }],
                dependencies: Vec::new(),
                served_as: served_as.map(Into::into),
            }];
            let report = check(rules, &reports);
            assert_eq!(ids(&report), ["bridge /legacy in new"]);
            assert_eq!(report.exit(), Exit::Success);
            let finding = &report.findings[0];
            assert_eq!(finding.others[0].name, "app.Audit");
            (finding.problem.clone(), finding.way_out.clone())
        };
        let (problem, way_out) = found(None, None);
        assert!(problem.contains("which costs a thread; served natively it would no longer pass"));
        assert!(way_out.contains("--unbridge"), "{way_out}");
        let (problem, way_out) = found(None, Some("its path has parameters"));
        assert!(problem.ends_with("`--unbridge` cannot help: its path has parameters"));
        assert!(way_out.contains("[apps.NAME]"), "{way_out}");
        let (problem, way_out) = found(Some("new:/legacy"), None);
        assert!(
            problem.starts_with("`new:/legacy` is served natively"),
            "{problem}"
        );
        assert!(way_out.contains("take `unbridge` away"), "{way_out}");
    }

    #[test]
    fn an_approximation_is_listed() {
        let (rules, mut reports) = owned(&["GET /even/{n}"], &[]);
        reports[0].routes.as_mut().unwrap().routes[0].exact = false;
        let found = check(rules, &reports);
        assert_eq!(ids(&found), ["inexact GET /even/{n}"]);
        assert_eq!(found.exit(), Exit::Success);
    }

    #[test]
    fn what_is_acknowledged_fails_nothing_and_what_is_not_found_is_stale() {
        let (rules, reports) = owned(&["GET /a", "GET /b"], &["GET /a", "GET /b"]);
        let lines = [
            "both-claim GET /a",
            " both-claim GET /b ",
            "both-claim GET /c",
        ];
        let found = acknowledged(rules.clone(), &reports, &lines);
        assert_eq!(found.exit(), Exit::Success);
        assert_eq!(
            found.to_string(),
            "\
Acknowledged:
  both-claim GET /a
  both-claim GET /b

Acknowledged, but not found; take these lines out of the configuration:
  both-claim GET /c

No overlap that is not acknowledged"
        );
        let found = acknowledged(rules, &reports, &lines[..1]);
        assert_eq!(found.exit(), Exit::Check);
        assert_eq!(
            found.to_string(),
            "\
both-claim GET /b
  + new: GET /b, view (shop.py:7); rule owned by new (APP)
  - old: GET /b, view (shop.py:7); rule catch-all (APP)
  `new` answers, so the view of `old` is never asked
  way out: moved; the view of `old` can be deleted. To move it slowly instead, give it a rule of its own with \
`template`, `canary` or `shadow`; if both shall stay, acknowledge it

Acknowledged:
  both-claim GET /a

1 overlap is not acknowledged; to say that one is meant: acknowledge = [\"both-claim GET /b\"]"
        );
    }
}
