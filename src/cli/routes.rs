//! `twinspan routes`: which application answers which path, and why.
//!
//! The rules are gone through in their order of trial, and each route of an application is claimed
//! by the first rule that reaches it. Frameworks write the same path differently (`/items/{id}`,
//! `/items/<int:id>`), so two templates count as one path when only their parameters differ. That
//! is how a reader compares them; requests are matched on the patterns themselves.

use std::collections::HashMap;
use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::app::{Interface, Route, RouteKind};
use crate::config::rule::Location;
use crate::config::{Config, RuleConfig};
use crate::supervisor::channel::AppReport;

/// All routes of all applications, and who answers each.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteListing {
    pub apps: Vec<ListedApp>,
    /// In the order of the rules.
    pub routes: Vec<ListedRoute>,
}

/// One application.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ListedApp {
    pub name: String,
    pub target: String,
    pub interface: Interface,
    /// Why its routes are not listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

/// One route under one rule, or everything else that the rule reaches.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ListedRoute {
    /// As requests meet it: mount and template.
    pub path: String,
    pub kind: RouteKind,
    /// `None` means every method.
    pub methods: Option<Vec<String>>,
    pub app: String,
    /// The rule that leads here, and where it was written.
    pub rule: String,
    pub origin: String,
    /// `false` for what the application does not define, but would be asked for.
    pub defined: bool,
    /// Who answers instead, because an earlier rule has the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// `false` when the application's own router decides in the end.
    pub exact: bool,
}

impl RouteListing {
    /// `reports` are those of the configured applications, in their order.
    pub fn new(config: &Config, reports: &[AppReport]) -> Self {
        let mut claims = Claims::default();
        let mut routes = Vec::new();
        for rule in &config.rules {
            let Some(report) = reports.iter().find(|report| report.name == rule.app) else {
                continue;
            };
            if let Ok(table) = &report.routes {
                for route in &table.routes {
                    let below = match &rule.matches.location {
                        Location::Mount(prefix) => Some(format!("{prefix}{}", route.template)),
                        Location::Path(prefix) if !is_below(&route.template, prefix) => None,
                        Location::Template(template)
                            if shape(template.as_str()) != shape(&route.template) =>
                        {
                            None
                        }
                        Location::Path(_) | Location::Template(_) => Some(route.template.clone()),
                    };
                    if let Some(path) = below {
                        claims.list(rule, route, &path, &mut routes);
                    }
                }
            }
            if let Location::Mount(prefix) | Location::Path(prefix) = &rule.matches.location
                && !rule.matches.owned
            {
                routes.push(ListedRoute {
                    path: format!("{prefix}/*"),
                    kind: RouteKind::Http,
                    methods: None,
                    app: rule.app.clone(),
                    rule: rule.name.clone(),
                    origin: rule.origin.clone(),
                    defined: false,
                    answered_by: None,
                    endpoint: None,
                    file: None,
                    line: None,
                    exact: true,
                });
                claims.prefixes.push(TakenPrefix {
                    prefix,
                    app: &rule.app,
                    websockets: report.description.interface != Interface::Wsgi,
                    cut_off: matches!(rule.matches.location, Location::Mount(_))
                        && !prefix.is_empty(),
                });
            }
        }
        let apps = config
            .apps
            .iter()
            .zip(reports)
            .map(|(app, report)| ListedApp {
                name: app.name.clone(),
                target: app.target.to_string(),
                interface: report.description.interface,
                unreadable: report.routes.as_ref().err().cloned(),
            })
            .collect();
        Self { apps, routes }
    }
}

/// What earlier rules have taken.
#[derive(Debug, Default)]
struct Claims<'a> {
    prefixes: Vec<TakenPrefix<'a>>,
    /// Who answers a method of a path; `""` stands for every method.
    methods: HashMap<(String, RouteKind), Vec<(String, &'a str)>>,
}

/// Everything below a prefix.
#[derive(Debug)]
struct TakenPrefix<'a> {
    prefix: &'a str,
    app: &'a str,
    websockets: bool,
    /// The application does not see the prefix.
    cut_off: bool,
}

impl<'a> Claims<'a> {
    /// Adds a row for the methods that are left, and one for each application that has taken some.
    fn list(
        &mut self,
        rule: &'a RuleConfig,
        route: &Route,
        path: &str,
        rows: &mut Vec<ListedRoute>,
    ) {
        let row = |methods: Option<Vec<String>>, answered_by: Option<&str>| ListedRoute {
            path: path.to_owned(),
            kind: route.kind,
            methods,
            app: rule.app.clone(),
            rule: rule.name.clone(),
            origin: rule.origin.clone(),
            defined: true,
            answered_by: answered_by.map(str::to_owned),
            endpoint: route.endpoint.clone(),
            file: route.file.clone(),
            line: route.line,
            exact: route.exact,
        };
        let taken = self.prefixes.iter().find(|taken| {
            is_below(path, taken.prefix) && (taken.websockets || route.kind == RouteKind::Http)
        });
        if let Some(taken) = taken {
            // Where nothing is cut off, an application meets itself and the route is listed already.
            if taken.cut_off || taken.app != rule.app {
                rows.push(row(route.methods.clone(), Some(taken.app)));
            }
            return;
        }
        let claimed = self.methods.entry((shape(path), route.kind)).or_default();
        let mut left = Vec::new();
        let mut lost: Vec<(&str, Vec<String>)> = Vec::new();
        let every = [String::new()];
        for method in route.methods.as_deref().unwrap_or(&every) {
            let owner = claimed
                .iter()
                .find(|(claimed, _)| claimed == method || claimed.is_empty())
                .map(|(_, app)| *app);
            match owner {
                None => left.push(method.clone()),
                Some(app) if app == rule.app => {} // Listed already.
                Some(app) => match lost.iter_mut().find(|(by, _)| *by == app) {
                    Some((_, methods)) => methods.push(method.clone()),
                    None => lost.push((app, vec![method.clone()])),
                },
            }
        }
        let named = |methods: Vec<String>| route.methods.is_some().then_some(methods);
        if !left.is_empty() {
            claimed.extend(
                left.iter()
                    .map(|method| (method.clone(), rule.app.as_str())),
            );
            rows.push(row(named(left), None));
        }
        for (app, methods) in lost {
            rows.push(row(named(methods), Some(app)));
        }
    }
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The path with every parameter alike.
fn shape(template: &str) -> String {
    let mut shape = String::with_capacity(template.len());
    let mut depth = 0_usize;
    for char in template.chars() {
        match char {
            '{' | '<' => {
                if depth == 0 {
                    shape.push_str("{}");
                }
                depth += 1;
            }
            '}' | '>' => depth = depth.saturating_sub(1),
            _ if depth == 0 => shape.push(char),
            _ => {}
        }
    }
    shape
}

impl fmt::Display for RouteListing {
    /// A table of what is answered, then what is never reached, then what cannot be listed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (answered, hidden): (Vec<_>, Vec<_>) = self
            .routes
            .iter()
            .partition(|row| row.answered_by.is_none());
        let mut table = Table::new(["APP", "METHODS", "PATH", "RULE", "ENDPOINT"]);
        for row in answered {
            let rule = format!("{} ({})", row.rule, row.origin);
            table.push([
                row.app.clone(),
                methods(row),
                row.path.clone(),
                rule,
                endpoint(row),
            ]);
        }
        table.fmt(f)?;
        if !hidden.is_empty() {
            writeln!(
                f,
                "\nNever reached, because an earlier rule has the path:\n"
            )?;
            let mut table = Table::new(["APP", "METHODS", "PATH", "ANSWERED BY", "ENDPOINT"]);
            for row in hidden {
                table.push([
                    row.app.clone(),
                    methods(row),
                    row.path.clone(),
                    row.answered_by.clone().unwrap_or_default(),
                    endpoint(row),
                ]);
            }
            table.fmt(f)?;
        }
        if self.routes.iter().any(|row| !row.exact) {
            writeln!(
                f,
                "\n~ the pattern is an approximation: a converter decides in Python"
            )?;
        }
        for app in &self.apps {
            if let Some(why) = &app.unreadable {
                writeln!(
                    f,
                    "\nThe routes of {} ({}) are not listed: {why}",
                    app.name, app.target
                )?;
            }
        }
        Ok(())
    }
}

fn methods(row: &ListedRoute) -> String {
    match (row.kind, &row.methods) {
        (RouteKind::WebSocket, _) => "WebSocket".into(),
        (RouteKind::Http, Some(methods)) => methods.join(","),
        (RouteKind::Http, None) => "any".into(),
    }
}

fn endpoint(row: &ListedRoute) -> String {
    let approximate = if row.exact { "" } else { "~ " };
    let place = match (&row.file, row.line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        (Some(file), None) => file.clone(),
        (None, _) => String::new(),
    };
    match (&row.endpoint, place.as_str()) {
        (None, _) if !row.defined => "everything else".into(),
        (None, place) => format!("{approximate}{place}"),
        (Some(name), "") => format!("{approximate}{name}"),
        (Some(name), place) => format!("{approximate}{name} ({place})"),
    }
}

/// Columns as wide as their widest cell; the last is not padded.
struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    fn new(head: [&str; N]) -> Self {
        Self {
            rows: vec![head.map(str::to_owned)],
        }
    }

    fn push(&mut self, row: [String; N]) {
        self.rows.push(row);
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                write!(line, "{cell:width$}  ")?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{Description, RouteTable};
    use crate::config::AppConfig;
    use crate::config::RuleMatch;

    fn route(text: &str) -> Route {
        let (methods, template) = text.split_once(' ').unwrap();
        let kind = match methods {
            "WS" => RouteKind::WebSocket,
            _ => RouteKind::Http,
        };
        Route {
            template: template.into(),
            pattern: String::new(),
            kind,
            methods: match methods {
                "WS" | "*" => None,
                list => Some(list.split(',').map(str::to_owned).collect()),
            },
            host: None,
            redirects_slash: false,
            exact: true,
            endpoint: Some("view".into()),
            file: Some("shop.py".into()),
            line: Some(7),
        }
    }

    fn report(name: &str, interface: Interface, routes: &[&str]) -> AppReport {
        AppReport {
            name: name.into(),
            description: Description {
                interface,
                threads: None,
            },
            routes: Ok(RouteTable {
                routes: routes.iter().map(|text| route(text)).collect(),
            }),
            bridges: Vec::new(),
        }
    }

    fn rule(app: &str, matches: RuleMatch) -> RuleConfig {
        RuleConfig::new(app, matches, "APP")
    }

    fn listing(rules: Vec<RuleConfig>, reports: &[AppReport]) -> RouteListing {
        let app = |report: &AppReport| {
            let target = format!("{}:app", report.name).parse().unwrap();
            AppConfig::new(report.name.clone(), target)
        };
        let config = Config {
            apps: reports.iter().map(app).collect(),
            rules,
            ..Config::default()
        };
        RouteListing::new(&config, reports)
    }

    fn mount(app: &str, prefix: &str) -> RuleConfig {
        rule(app, RuleMatch::mount(prefix))
    }

    #[test]
    fn the_new_application_owns_its_routes_and_the_old_one_has_the_rest() {
        let shown = listing(
            vec![rule("new", RuleMatch::owned()), mount("old", "")],
            &[
                report("new", Interface::Asgi, &["GET /items/{id}", "WS /board"]),
                report(
                    "old",
                    Interface::Wsgi,
                    &["GET,POST /items/<int:id>", "GET /", "GET /board"],
                ),
            ],
        );
        assert_eq!(
            shown.to_string(),
            "\
APP  METHODS    PATH             RULE                ENDPOINT
new  GET        /items/{id}      owned by new (APP)  view (shop.py:7)
new  WebSocket  /board           owned by new (APP)  view (shop.py:7)
old  POST       /items/<int:id>  catch-all (APP)     view (shop.py:7)
old  GET        /                catch-all (APP)     view (shop.py:7)
old  GET        /board           catch-all (APP)     view (shop.py:7)
old  any        /*               catch-all (APP)     everything else

Never reached, because an earlier rule has the path:

APP  METHODS  PATH             ANSWERED BY  ENDPOINT
old  GET      /items/<int:id>  new          view (shop.py:7)
"
        );
    }

    #[test]
    fn a_mount_hides_what_others_define_below_it() {
        let shown = listing(
            vec![mount("api", "/api"), mount("site", "")],
            &[
                report("api", Interface::Wsgi, &["GET /x"]),
                report(
                    "site",
                    Interface::Asgi,
                    &["* /api/x", "* /apiary", "WS /api/live"],
                ),
            ],
        );
        let rows: Vec<_> = shown
            .routes
            .iter()
            .map(|row| {
                (
                    row.path.as_str(),
                    row.app.as_str(),
                    row.answered_by.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            rows,
            [
                ("/api/x", "api", None),
                ("/api/*", "api", None),
                ("/api/x", "site", Some("api")),
                ("/apiary", "site", None),
                ("/api/live", "site", None), // A WSGI application takes no WebSockets.
                ("/*", "site", None),
            ]
        );
    }

    #[test]
    fn a_route_is_listed_once_under_the_first_rule_that_reaches_it() {
        let shown = listing(
            vec![
                rule("shop", RuleMatch::path("/live")),
                rule("shop", RuleMatch::owned()),
                mount("shop", ""),
            ],
            &[report(
                "shop",
                Interface::Asgi,
                &["GET /live", "GET /", "* /any"],
            )],
        );
        let rows: Vec<_> = shown
            .routes
            .iter()
            .map(|row| {
                (
                    row.path.as_str(),
                    row.rule.as_str(),
                    row.answered_by.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            rows,
            [
                ("/live", "path /live", None),
                ("/live/*", "path /live", None),
                ("/", "owned by shop", None),
                ("/any", "owned by shop", None),
                ("/*", "catch-all", None),
            ]
        );
    }

    #[test]
    fn an_application_that_cannot_be_read_is_said() {
        let mut report = report("old", Interface::Wsgi, &[]);
        report.routes = Err("the router of Middleware cannot be read".into());
        let shown = listing(vec![mount("old", "")], &[report]);
        assert_eq!(
            shown.to_string(),
            "\
APP  METHODS  PATH  RULE             ENDPOINT
old  any      /*    catch-all (APP)  everything else

The routes of old (old:app) are not listed: the router of Middleware cannot be read
"
        );
    }

    #[test]
    fn parameters_are_alike_however_they_are_written() {
        for (template, same) in [
            ("/items/{id}", "/items/{}"),
            ("/items/<int:id>/x", "/items/{}/x"),
            ("/f/{path:path}", "/f/{}"),
            ("/r/{n:[0-9]{2}}/y", "/r/{}/y"),
        ] {
            assert_eq!(shape(template), same);
        }
    }
}
