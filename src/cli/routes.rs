//! `twinspan routes`: which application answers which path, and why.
//!
//! The rules are gone through in their order of trial, and each route of an application is listed under
//! the first rule that leads to it; further ones follow where that one leaves some of the requests to them.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use http::StatusCode;
use serde::Serialize;

use super::inventory::{Inventory, Place};
use crate::app::{Interface, RouteKind};
use crate::config::rule::{Conditions, Glob, Location, Percent};
use crate::config::{Config, RuleConfig};

/// All routes of all applications, and who answers each.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteListing {
    pub apps: Vec<ListedApp>,
    /// In the order of trial.
    pub rules: Vec<ListedRule>,
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

/// One rule of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ListedRule {
    pub name: String,
    pub app: String,
    /// Where it was written.
    pub origin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Only what the application's own router defines.
    pub owned: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cookies: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Percent>,
    /// The statuses with which the application passes a request on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fallthrough: Vec<u16>,
    /// All of it in one line.
    #[serde(skip)]
    text: String,
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
    /// `false` for what no request comes to by the rule.
    pub reached: bool,
    /// The rules that are asked before and leave what comes here: a canary the rest, a condition what does not
    /// meet it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// Who answers instead, because another rule has the path; nobody, where there is no name and nothing is reached.
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
    /// What runs before the view and may refuse: dependencies and security schemes. Absent where that cannot
    /// be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guards: Option<Vec<String>>,
}

impl RouteListing {
    pub fn new(config: &Config, inventory: &Inventory<'_>) -> Self {
        let places = inventory.places();
        let mut rows = Vec::new();
        for (index, rule) in inventory.rules.iter().enumerate() {
            let here = places.iter().filter(|place| place.rule == index);
            for place in here {
                list(inventory, place, &mut rows);
            }
            let (Location::Mount(prefix) | Location::Path(prefix), false) =
                (&rule.matches.location, rule.matches.owned)
            else {
                continue;
            };
            rows.push(ListedRoute {
                path: format!("{prefix}/*"),
                kind: RouteKind::Http,
                methods: None,
                app: rule.app.clone(),
                rule: rule.name.clone(),
                origin: rule.origin.clone(),
                defined: false,
                reached: true,
                after: Vec::new(),
                answered_by: None,
                endpoint: None,
                file: None,
                line: None,
                exact: true,
                guards: None,
            });
        }
        let apps = inventory.apps().iter().map(|app| {
            let configured = config.apps.iter().find(|it| it.name == app.report.name);
            ListedApp {
                name: app.report.name.clone(),
                target: configured
                    .map(|it| it.target.to_string())
                    .unwrap_or_default(),
                interface: app.report.description.interface,
                unreadable: app.report.routes.as_ref().err().cloned(),
            }
        });
        Self {
            apps: apps.collect(),
            rules: inventory.rules.iter().map(ListedRule::new).collect(),
            routes: rows,
        }
    }
}

/// Adds a row for the methods that come here by the rule, and one for each application that answers others.
fn list(inventory: &Inventory<'_>, place: &Place<'_>, rows: &mut Vec<ListedRoute>) {
    let Some((rule, _)) = inventory.rule(place.rule) else {
        return;
    };
    let mut groups: Vec<(Group, Vec<&str>)> = Vec::new();
    for method in inventory.methods_of(place.route) {
        let way = inventory.way(place, method);
        let group = match way.iter().position(|rule| *rule == place.rule) {
            Some(at) => Group::Here(way.get(..at).unwrap_or_default().to_vec()),
            None if way.iter().any(|rule| listed_under(inventory, place, *rule)) => continue,
            None => Group::Elsewhere(way.last().copied()),
        };
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, methods)) => methods.push(method),
            None => groups.push((group, vec![method])),
        }
    }
    let name_of = |index: &usize| Some(inventory.rules.get(*index)?.name.clone());
    // What comes here stands before what does not.
    groups.sort_by_key(|(group, _)| matches!(group, Group::Elsewhere(_)));
    for (group, methods) in groups {
        // One stands for all that nobody names.
        let every = methods.contains(&"") || place.route.methods.is_none() && methods.is_empty();
        let (after, by) = match &group {
            Group::Here(after) => (after.iter().filter_map(name_of).collect(), None),
            Group::Elsewhere(by) => {
                let by = by.and_then(|by| inventory.rules.get(by));
                (Vec::new(), by.map(|by| by.app.clone()))
            }
        };
        rows.push(ListedRoute {
            path: place.path.clone(),
            kind: place.route.kind,
            methods: (!every).then(|| methods.into_iter().map(str::to_owned).collect()),
            app: rule.app.clone(),
            rule: rule.name.clone(),
            origin: rule.origin.clone(),
            defined: true,
            reached: matches!(group, Group::Here(_)),
            after,
            answered_by: by,
            endpoint: place.route.endpoint.clone(),
            file: place.route.file.clone(),
            line: place.route.line,
            exact: place.route.exact,
            guards: place.route.guards.clone(),
        });
    }
}

/// Whether the route is reached by an earlier rule already: an application meets itself where both cut off
/// the same.
fn listed_under(inventory: &Inventory<'_>, place: &Place<'_>, rule: usize) -> bool {
    let app = inventory.rules.get(rule).map(|rule| rule.app.as_str());
    app == Some(place.app) && inventory.cut(rule) == inventory.cut(place.rule)
}

/// What becomes of requests for a route.
#[derive(PartialEq, Eq)]
enum Group {
    /// They come to it, after these rules have left them.
    Here(Vec<usize>),
    /// Another rule has them, or none.
    Elsewhere(Option<usize>),
}

impl ListedRule {
    fn new(rule: &RuleConfig) -> Self {
        let Conditions {
            host,
            methods,
            headers,
            cookies,
            query,
        } = &rule.matches.conditions;
        let location = &rule.matches.location;
        let texts = |list: &[(String, Glob)]| {
            let pairs = list.iter();
            pairs
                .map(|(name, value)| (name.clone(), value.to_string()))
                .collect()
        };
        Self {
            name: rule.name.clone(),
            app: rule.app.clone(),
            origin: rule.origin.clone(),
            mount: match location {
                Location::Mount(prefix) => Some(prefix.clone()),
                _ => None,
            },
            path: match location {
                Location::Path(prefix) => Some(prefix.clone()),
                _ => None,
            },
            template: match location {
                Location::Template(template) => Some(template.to_string()),
                _ => None,
            },
            owned: rule.matches.owned,
            host: host.as_ref().map(ToString::to_string),
            methods: methods.iter().map(ToString::to_string).collect(),
            headers: headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
            cookies: texts(cookies),
            query: texts(query),
            canary: rule.canary.as_ref().map(|canary| canary.percent),
            shadow: rule.shadow.as_ref().map(|shadow| shadow.percent),
            fallthrough: rule
                .fallthrough
                .iter()
                .flat_map(|fallthrough| &fallthrough.statuses)
                .map(StatusCode::as_u16)
                .collect(),
            text: text_of(rule),
        }
    }
}

/// `items where header x-beta=1, canary 10 %, shadow 5 % (twinspan.toml:12)`
fn text_of(rule: &RuleConfig) -> String {
    let mut text = rule.name.clone();
    let conditions = rule.matches.conditions.to_string();
    // A rule without a name of its own is called by them.
    if !conditions.is_empty() && rule.name != rule.matches.name(&rule.app) {
        text = format!("{text} where {conditions}");
    }
    // What is only copied has a canary of nothing.
    if let Some(canary) = &rule.canary
        && (canary.percent != Percent::NONE || rule.shadow.is_none())
    {
        text = format!("{text}, canary {} %", canary.percent);
    }
    if let Some(shadow) = &rule.shadow {
        text = format!("{text}, shadow {} %", shadow.percent);
    }
    if let Some(fallthrough) = &rule.fallthrough {
        let statuses: Vec<_> = fallthrough
            .statuses
            .iter()
            .map(StatusCode::as_str)
            .collect();
        text = format!("{text}, fallthrough {}", statuses.join(","));
    }
    format!("{text} ({})", rule.origin)
}

impl fmt::Display for RouteListing {
    /// A table of what is answered, then what is never reached, then what cannot be listed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (answered, hidden): (Vec<_>, Vec<_>) = self.routes.iter().partition(|row| row.reached);
        let mut table = Table::new(["APP", "METHODS", "PATH", "RULE", "ENDPOINT"]);
        for row in answered {
            let rule = self.rules.iter().find(|rule| rule.name == row.rule);
            let mut rule = rule.map(|rule| rule.text.clone()).unwrap_or_default();
            if !row.after.is_empty() {
                rule = format!("{rule}, after {}", row.after.join(", "));
            }
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
                "\nNever reached, because another rule has the path, or none that can serve it:\n"
            )?;
            let mut table = Table::new(["APP", "METHODS", "PATH", "ANSWERED BY", "ENDPOINT"]);
            for row in hidden {
                table.push([
                    row.app.clone(),
                    methods(row),
                    row.path.clone(),
                    row.answered_by.clone().unwrap_or_else(|| "nobody".into()),
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
pub(super) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(head: [&str; N]) -> Self {
        Self {
            rows: vec![head.map(str::to_owned)],
        }
    }

    pub(super) fn push(&mut self, row: [String; N]) {
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
    use super::super::testing::{config_of, report, rule, template};
    use super::*;
    use crate::config::RuleMatch;
    use crate::config::rule::{CanaryConfig, FallthroughConfig, ShadowConfig, Sticky};
    use crate::supervisor::channel::AppReport;

    fn listing(rules: Vec<RuleConfig>, reports: &[AppReport]) -> RouteListing {
        let config = config_of(rules, reports);
        RouteListing::new(&config, &Inventory::new(&config, reports).unwrap())
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

Never reached, because another rule has the path, or none that can serve it:

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

    /// A canary of `percent`.
    fn canary(percent: &str) -> CanaryConfig {
        CanaryConfig {
            percent: percent.parse().unwrap(),
            sticky: Sticky::Client,
            testers: Vec::new(),
            rollback: None,
        }
    }

    #[test]
    fn what_a_rule_leaves_is_answered_below() {
        let mut beta = rule("new", RuleMatch::owned());
        beta.name = "beta".into();
        let header = ("x-beta".parse().unwrap(), "1".parse().unwrap());
        beta.matches.conditions.headers.push(header);
        let rules = vec![
            beta,
            RuleConfig {
                name: "items".into(),
                canary: Some(canary("10")),
                shadow: Some(ShadowConfig::new("5".parse().unwrap())),
                ..rule("new", template("/items/{id}"))
            },
            RuleConfig {
                canary: Some(canary("0")),
                shadow: Some(ShadowConfig::new("100".parse().unwrap())),
                ..rule("new", template("/only-copied"))
            },
            RuleConfig {
                fallthrough: Some(FallthroughConfig::new(vec![
                    StatusCode::NOT_FOUND,
                    StatusCode::METHOD_NOT_ALLOWED,
                ])),
                ..rule("old", RuleMatch::path("/old"))
            },
            mount("old", ""),
        ];
        let shown = listing(
            rules,
            &[
                report(
                    "new",
                    Interface::Asgi,
                    &["GET /items/<int:id>", "GET /only-copied"],
                ),
                report(
                    "old",
                    Interface::Wsgi,
                    &["GET,POST /items/<id>", "* /only-copied"],
                ),
            ],
        );
        assert_eq!(
            shown.to_string(),
            "\
APP  METHODS   PATH             RULE                                                   ENDPOINT
new  GET       /items/<int:id>  beta where header x-beta=1 (APP)                       view (shop.py:7)
new  GET       /only-copied     beta where header x-beta=1 (APP)                       view (shop.py:7)
new  GET       /items/<int:id>  items, canary 10 %, shadow 5 % (APP), after beta       view (shop.py:7)
new  GET       /only-copied     template /only-copied, shadow 100 % (APP), after beta  view (shop.py:7)
old  any       /old/*           path /old, fallthrough 404,405 (APP)                   everything else
old  GET,POST  /items/<id>      catch-all (APP), after items                           view (shop.py:7)
old  any       /only-copied     catch-all (APP), after beta, template /only-copied     view (shop.py:7)
old  any       /*               catch-all (APP)                                        everything else
"
        );
    }

    #[test]
    fn an_upgrade_for_wsgi_reaches_nobody() {
        let shown = listing(
            vec![mount("old", "")],
            &[report("old", Interface::Wsgi, &["WS /live"])],
        );
        let row = &shown.routes[0];
        assert_eq!((row.reached, row.answered_by.as_deref()), (false, None));
        assert!(shown.to_string().contains("nobody"), "{shown}");
    }

    #[test]
    fn a_program_reads_the_parts_of_a_rule() {
        let mut items = RuleConfig {
            name: "items".into(),
            canary: Some(canary("2.5")),
            ..rule("new", template("/items/{id}"))
        };
        items.matches.owned = true;
        let cookie = ("beta".to_owned(), "yes*".parse().unwrap());
        items.matches.conditions.cookies.push(cookie);
        let shown = listing(
            vec![items, mount("old", "")],
            &[
                report("new", Interface::Asgi, &["GET /items/{id}"]),
                report("old", Interface::Wsgi, &["GET /items/<id>"]),
            ],
        );
        let json = serde_json::to_value(&shown).unwrap();
        assert_eq!(
            json["rules"][0],
            serde_json::json!({
                "name": "items", "app": "new", "origin": "APP", "template": "/items/{id}", "owned": true,
                "cookies": {"beta": "yes*"}, "canary": 2.5,
            })
        );
        assert_eq!(json["routes"][1]["after"], serde_json::json!(["items"]));
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
}
