//! The routes of all applications under the rules that lead to them, and who answers each.
//!
//! Who answers is not told from how routes are written: an example path of each is put to the router that
//! requests meet. What is not known of a request (its header fields, in which part of a canary its client
//! is) is left open: a rule that may pass a request on is followed by the one that is asked then.

use std::sync::Arc;

use crate::app::{
    AppError, Application, BoxFuture, Description, Interface, Response, Route, RouteKind,
    RoutesError, WebSocketApplication,
};
use crate::config::rule::{Conditions, Location};
use crate::config::{Config, RuleConfig};
use crate::metrics::Metrics;
use crate::migrate::live::Overlay;
use crate::policy::ownership::{Asked, RouteIndex, Strength, example};
use crate::route::{App, Router, RulesError};
use crate::supervisor::channel::AppReport;
use crate::ws::Handshake;

/// All applications with their routes, and the rules that lead to them.
#[derive(Debug)]
pub struct Inventory<'a> {
    pub rules: &'a [RuleConfig],
    apps: Vec<Known<'a>>,
    router: Router,
    /// Every method that some route names.
    methods: Vec<&'a str>,
}

/// An application as it told of itself.
#[derive(Debug)]
pub struct Known<'a> {
    pub report: &'a AppReport,
    /// Empty where they are not known.
    pub routes: &'a [Route],
    /// `None` where its routes are not known.
    index: Option<RouteIndex>,
    /// Of each route a path that it matches, and a host where it asks for one.
    examples: Vec<(String, Option<String>)>,
}

/// A route where one rule leads to it.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    /// The place of the rule in the table.
    pub rule: usize,
    pub app: &'a str,
    pub route: &'a Route,
    /// The place of the route in its application's table.
    pub id: usize,
    /// As requests meet it: mount and template.
    pub path: String,
    /// A path that leads here.
    pub example: String,
    host: Option<String>,
}

impl<'a> Inventory<'a> {
    /// `reports` are those of the configured applications.
    ///
    /// # Errors
    /// [`RulesError`] where the rules cannot be made from what the applications define.
    pub fn new(config: &'a Config, reports: &'a [AppReport]) -> Result<Self, RulesError> {
        let names: Vec<Arc<str>> = reports.iter().map(|it| it.name.as_str().into()).collect();
        let metrics = Metrics::new(&names);
        let apps: Vec<_> = reports
            .iter()
            .zip(metrics.apps())
            .map(|(report, metrics)| {
                let app = App {
                    name: report.name.as_str().into(),
                    application: Arc::new(Described(report.description.clone())),
                    metrics: Arc::clone(metrics),
                    traffic: None,
                };
                let routes = report.routes.clone();
                let routes = routes.map_err(|what| RoutesError::Unreadable { what });
                (Arc::new(app), routes)
            })
            .collect();
        let rules: Vec<_> = config.rules.iter().map(unconditional).collect();
        let router = Router::build(&rules, "", &apps, &Overlay::default())?;
        let apps: Vec<_> = reports.iter().map(Known::new).collect();
        let mut methods: Vec<_> = apps
            .iter()
            .flat_map(|app| app.routes)
            .filter_map(|route| route.methods.as_ref())
            .flatten()
            .map(String::as_str)
            .collect();
        methods.sort_unstable();
        methods.dedup();
        Ok(Self {
            rules: &config.rules,
            apps,
            router,
            methods,
        })
    }

    pub fn apps(&self) -> &[Known<'a>] {
        &self.apps
    }

    pub fn app(&self, name: &str) -> Option<&Known<'a>> {
        self.apps.iter().find(|app| app.report.name == name)
    }

    /// The rule in a place of the table, with its application.
    pub fn rule(&self, index: usize) -> Option<(&'a RuleConfig, &Known<'a>)> {
        let rule = self.rules.get(index)?;
        Some((rule, self.app(&rule.app)?))
    }

    /// Every route under every rule that leads to it, in the order of the rules.
    pub fn places(&self) -> Vec<Place<'a>> {
        let mut places = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let Some(app) = self.app(&rule.app) else {
                continue;
            };
            let wanted = match &rule.matches.location {
                Location::Mount(_) => Vec::new(),
                Location::Path(prefix) => vec![prefix.clone(), format!("{prefix}/qqq")],
                Location::Template(template) => vec![template.example()],
            };
            for (id, (route, (own, host))) in app.routes.iter().zip(&app.examples).enumerate() {
                let Some(example) = self.example(index, app, id, own, &wanted) else {
                    continue;
                };
                let cut = self.cut(index);
                places.push(Place {
                    rule: index,
                    app: &rule.app,
                    route,
                    id,
                    path: format!("{cut}{}", route.template),
                    example,
                    host: host.clone(),
                });
            }
        }
        places
    }

    /// A path that the rule lets through to the route: its own example, or one of those that the rule wants.
    fn example(
        &self,
        rule: usize,
        app: &Known<'a>,
        route: usize,
        own: &str,
        wanted: &[String],
    ) -> Option<String> {
        let rule = self.router.rules().get(rule)?;
        let path = format!("{}{own}", rule.cut());
        if rule.covers(&path) {
            return Some(path);
        }
        let fits = |path: &&String| rule.covers(path) && app.matches(route, path);
        wanted.iter().find(fits).cloned()
    }

    /// The methods that a route answers, as they can be asked for; `""` stands for all that nobody names.
    pub fn methods_of(&self, route: &'a Route) -> Vec<&'a str> {
        match (&route.methods, route.kind) {
            (Some(methods), RouteKind::Http) => methods.iter().map(String::as_str).collect(),
            (None, RouteKind::Http) => self.methods.iter().copied().chain([""]).collect(),
            (_, RouteKind::WebSocket) => vec![""],
        }
    }

    /// The places of the rules that are asked for a route and one of its methods, in their order: each but the
    /// last leaves a part of the requests to the next. Empty where nobody answers.
    pub fn way(&self, place: &Place<'_>, method: &str) -> Vec<usize> {
        let asked = place.asked(method);
        if self.claim(place.rule, &asked).is_none() {
            // The example is no more than like the route, so the rules cannot be asked about it.
            return vec![place.rule];
        }
        let leaves = |index| self.rules.get(index).is_some_and(leaves_some);
        self.router.answerers(&asked, leaves)
    }

    /// The route by which the application of a rule would answer: its place in the table, and whether the
    /// method is defined too.
    pub fn claim(&self, rule: usize, asked: &Asked<'_>) -> Option<(usize, Strength)> {
        let (_, app) = self.rule(rule)?;
        let index = app.index.as_ref()?;
        let path = asked.path.strip_prefix(self.cut(rule))?;
        let claim = index.claim(&Asked { path, ..*asked });
        Some((claim.matched()?.index, claim.strength))
    }

    /// What a rule cuts off.
    pub fn cut(&self, rule: usize) -> &str {
        self.router.rules().get(rule).map_or("", |rule| rule.cut())
    }

    /// Whether a rule lies where the path is.
    pub fn covers(&self, rule: usize, path: &str) -> bool {
        let rule = self.router.rules().get(rule);
        rule.is_some_and(|rule| rule.covers(path))
    }
}

impl<'a> Known<'a> {
    fn new(report: &'a AppReport) -> Self {
        let table = report.routes.as_ref().ok();
        let routes = table.map_or(&[][..], |table| &table.routes);
        Self {
            report,
            routes,
            index: table.and_then(|table| RouteIndex::compile(table).ok()),
            examples: routes
                .iter()
                .map(|route| {
                    let path = example(&route.pattern).unwrap_or_else(|| route.template.clone());
                    (path, route.host.as_deref().and_then(example))
                })
                .collect(),
        }
    }

    /// Whether the routes are known.
    pub fn is_readable(&self) -> bool {
        self.index.is_some()
    }

    /// Whether a route matches a path below the application's mount.
    pub fn matches(&self, route: usize, path: &str) -> bool {
        let (Some(index), Some(known), Some((_, host))) = (
            &self.index,
            self.routes.get(route),
            self.examples.get(route),
        ) else {
            return false;
        };
        let asked = Asked {
            path,
            method: "",
            kind: known.kind,
            host: host.as_deref(),
        };
        index.matches(&asked).contains(&route)
    }
}

impl Place<'_> {
    pub fn asked<'q>(&'q self, method: &'q str) -> Asked<'q> {
        Asked {
            path: &self.example,
            method,
            kind: self.route.kind,
            host: self.host.as_deref(),
        }
    }
}

/// Whether requests that a rule matches by path and method may be answered by a rule below.
pub(super) fn leaves_some(rule: &RuleConfig) -> bool {
    let Conditions {
        host,
        methods: _,
        headers,
        cookies,
        query,
    } = &rule.matches.conditions;
    let asks = host.is_some() || !headers.is_empty() || !cookies.is_empty() || !query.is_empty();
    asks || rule.passes_on()
}

/// The rule as one that takes all that it may take.
fn unconditional(rule: &RuleConfig) -> RuleConfig {
    let mut rule = RuleConfig {
        canary: None,
        shadow: None,
        fallthrough: None,
        ..rule.clone()
    };
    rule.matches.conditions = Conditions {
        methods: std::mem::take(&mut rule.matches.conditions.methods),
        ..Conditions::default()
    };
    rule
}

/// An application of which no more is known than what it said of itself.
#[derive(Debug)]
struct Described(Description);

const ABSENT: &str = "the application is not here, only what it said of itself";

impl Application for Described {
    fn call(&self, _: Box<crate::app::Request>) -> BoxFuture<'static, Result<Response, AppError>> {
        Box::pin(std::future::ready(Err(AppError::Failed(ABSENT.into()))))
    }

    fn websocket(&self) -> Option<&dyn WebSocketApplication> {
        (self.0.interface != Interface::Wsgi).then_some(self)
    }

    fn description(&self) -> Description {
        self.0.clone()
    }
}

impl WebSocketApplication for Described {
    fn connect(&self, _: Handshake) -> BoxFuture<'static, Result<(), AppError>> {
        Box::pin(std::future::ready(Err(AppError::Failed(ABSENT.into()))))
    }
}
