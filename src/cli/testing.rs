//! Applications and rules for the tests of what is listed.

use crate::app::{Description, Interface, Route, RouteKind, RouteTable, shape};
use crate::config::rule::Location;
use crate::config::{AppConfig, Config, RuleConfig, RuleMatch};
use crate::supervisor::channel::AppReport;

/// `GET,POST /items/{id}`, `* /any`, `WS /live`; `~` at the end redirects.
fn route(text: &str) -> Route {
    let (methods, template) = text.split_once(' ').unwrap();
    let redirects_slash = template.ends_with('~');
    let template = template.trim_end_matches('~');
    let kind = match methods {
        "WS" => RouteKind::WebSocket,
        _ => RouteKind::Http,
    };
    // Like those that frameworks make of their templates.
    let parameter = match template {
        _ if template.contains("<int:") => "[0-9]+",
        _ if template.contains("path") => ".+",
        _ => "[^/]+",
    };
    Route {
        template: template.into(),
        pattern: format!("^{}$", shape(template).replace("{}", parameter)),
        kind,
        methods: match methods {
            "WS" | "*" => None,
            list => Some(list.split(',').map(str::to_owned).collect()),
        },
        host: None,
        redirects_slash,
        exact: true,
        endpoint: Some("view".into()),
        file: Some("shop.py".into()),
        line: Some(7),
        guards: None,
    }
}

pub(super) fn report(name: &str, interface: Interface, routes: &[&str]) -> AppReport {
    AppReport {
        name: name.into(),
        description: Description {
            interface,
            threads: None,
        },
        routes: Ok(RouteTable::new(
            routes.iter().map(|text| route(text)).collect(),
        )),
        bridges: Vec::new(),
    }
}

pub(super) fn rule(app: &str, matches: RuleMatch) -> RuleConfig {
    RuleConfig::new(app, matches, "APP")
}

pub(super) fn template(text: &str) -> RuleMatch {
    RuleMatch::at(Location::Template(text.parse().unwrap()))
}

/// A configuration of these rules.
pub(super) fn config_of(rules: Vec<RuleConfig>, reports: &[AppReport]) -> Config {
    let app = |report: &AppReport| {
        let target = format!("{}:app", report.name).parse().unwrap();
        AppConfig::new(report.name.clone(), target)
    };
    Config {
        apps: reports.iter().map(app).collect(),
        rules,
        ..Config::default()
    }
}
