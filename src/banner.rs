//! What the server says when it is up.

use crate::app::{BridgeReport, LocalAddr};
use crate::config::Config;
use crate::config::rule::Location;
use crate::supervisor::channel::AppReport;

/// Where the applications run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// In processes of their own.
    Workers,
    /// In the process that says so.
    Here,
}

/// One line for the server, each application, and each address; the addresses come last, as whoever
/// waits for them may begin.
pub(crate) fn lines(
    config: &Config,
    place: Place,
    listening: &[LocalAddr],
    admin: Option<&LocalAddr>,
    apps: &[AppReport],
) -> Vec<String> {
    let place = match place {
        Place::Workers => format!("with {}", count(config.workers, "worker")),
        Place::Here => "in this process".to_owned(),
    };
    let mut lines = vec![format!("Twinspan {} {place}", env!("CARGO_PKG_VERSION"))];
    for app in apps {
        lines.push(describe(config, app));
        lines.extend(app.bridges.iter().map(|bridge| across(config, app, bridge)));
    }
    lines.extend(admin.map(|local| format!("admin endpoint at {}", url(local))));
    let (tcp, unix): (Vec<_>, Vec<_>) = listening
        .iter()
        .partition(|local| matches!(local, LocalAddr::Tcp(_)));
    for local in tcp.into_iter().chain(unix) {
        lines.push(format!("listening on {}", url(local)));
    }
    lines
}

/// `application legacy: shop.wsgi:app, WSGI, 32 threads, mounted at /`
fn describe(config: &Config, app: &AppReport) -> String {
    let target = config.apps.iter().find(|known| known.name == app.name);
    let mut parts: Vec<_> = target.map(|it| it.target.to_string()).into_iter().collect();
    parts.push(app.description.interface.to_string());
    parts.extend(
        app.description
            .threads
            .map(|threads| count(threads, "thread")),
    );
    let rules = config.rules.iter().filter(|rule| rule.app == app.name);
    parts.extend(rules.map(|rule| {
        let matches = &rule.matches;
        let mut said = match (&matches.location, &app.routes) {
            (location, Ok(table)) if location.is_everywhere() && matches.owned => {
                format!("owns its {}", count(table.routes.len(), "route"))
            }
            (location, _) if location.is_everywhere() && matches.owned => "owns its routes".into(),
            (location, _) if location.is_everywhere() => "mounted at /".into(),
            (Location::Mount(path), _) => format!("mounted at {path}"),
            (Location::Path(path), _) => format!("answers {path}"),
            (Location::Template(template), _) => format!("answers {template}"),
        };
        if !matches.location.is_everywhere() && matches.owned {
            said.push_str(" (what it owns there)");
        }
        if !matches.conditions.is_empty() {
            said = format!("{said} where {}", matches.conditions);
        }
        if let Some(canary) = &rule.canary {
            said = format!("{said}, {} % of it", canary.percent);
        }
        said
    }));
    format!("application {}: {}", app.name, parts.join(", "))
}

/// `application main:/legacy: WSGI, 32 threads, serves /legacy of main natively instead of through a2wsgi.wsgi.WSGIMiddleware`
fn across(config: &Config, outer: &AppReport, bridge: &BridgeReport) -> String {
    let (name, class, place) = (&outer.name, &bridge.bridge, bridge.place());
    if let Some(served_as) = &bridge.served_as {
        let known = config.apps.iter().find(|known| known.name == *name);
        let threads = known.map_or_else(String::new, |app| {
            format!(", {}", count(app.threads, "thread"))
        });
        return format!(
            "application {served_as}: WSGI{threads}, serves {place} of {name} natively instead of through {class}"
        );
    }
    let way_out = match &bridge.obstacle {
        None => "`--unbridge` serves it natively".to_owned(),
        Some(obstacle) => format!("`--unbridge` cannot help: {obstacle}"),
    };
    format!(
        "application {name}: {place} goes to WSGI through {class}, which {}; {way_out}",
        bridge.cost
    )
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

fn url(local: &LocalAddr) -> String {
    match local {
        LocalAddr::Tcp(address) => format!("http://{address}"),
        LocalAddr::Unix(_) => local.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{Description, Interface, RouteTable};
    use crate::config::{AppConfig, RuleConfig, RuleMatch};

    fn report(name: &str, interface: Interface, threads: Option<usize>) -> AppReport {
        AppReport {
            name: name.into(),
            description: Description { interface, threads },
            routes: Ok(RouteTable::default()),
            bridges: Vec::new(),
        }
    }

    fn bridge(served_as: Option<&str>, obstacle: Option<&str>) -> BridgeReport {
        BridgeReport {
            prefix: "/old".into(),
            bridge: "shop.Bridge".into(),
            cost: "takes one request at a time".into(),
            obstacle: obstacle.map(Into::into),
            passes: Vec::new(),
            dependencies: Vec::new(),
            served_as: served_as.map(Into::into),
        }
    }

    #[test]
    fn it_names_every_bridge_below_its_application() {
        let new = AppConfig::new("new".into(), "shop.asgi:app".parse().unwrap());
        let config = Config {
            apps: vec![AppConfig { threads: 1, ..new }],
            ..Config::default()
        };
        let reports = [AppReport {
            bridges: vec![
                bridge(None, None),
                bridge(None, Some("its path has parameters")),
                bridge(Some("new:/old"), None),
            ],
            ..report("new", Interface::Asgi, None)
        }];
        assert_eq!(
            lines(&config, Place::Here, &[], None, &reports)[2..],
            [
                "application new: /old goes to WSGI through shop.Bridge, which takes one request at a time; \
                 `--unbridge` serves it natively",
                "application new: /old goes to WSGI through shop.Bridge, which takes one request at a time; \
                 `--unbridge` cannot help: its path has parameters",
                "application new:/old: WSGI, 1 thread, serves /old of new natively instead of through shop.Bridge",
            ]
        );
    }

    fn rule(app: &str, matches: RuleMatch) -> RuleConfig {
        RuleConfig::new(app, matches, "")
    }

    #[test]
    fn it_says_which_application_answers_what_and_where_the_server_listens() {
        let app = |name: &str, target: &str| AppConfig::new(name.into(), target.parse().unwrap());
        let config = Config {
            workers: 2,
            apps: vec![app("new", "shop.asgi:app"), app("legacy", "shop.wsgi")],
            rules: vec![
                rule("new", RuleMatch::owned()),
                rule("new", RuleMatch::mount("/live")),
                rule("legacy", RuleMatch::mount("")),
            ],
            ..Config::default()
        };
        let listening = [
            LocalAddr::Unix("/run/shop.sock".into()),
            LocalAddr::Tcp(([127, 0, 0, 1], 8000).into()),
        ];
        let apps = [
            report("new", Interface::Asgi, None),
            report("legacy", Interface::Wsgi, Some(1)),
        ];
        let admin = LocalAddr::Tcp(([127, 0, 0, 1], 9000).into());
        assert_eq!(
            lines(&config, Place::Workers, &listening, Some(&admin), &apps),
            [
                format!("Twinspan {} with 2 workers", env!("CARGO_PKG_VERSION")),
                "application new: shop.asgi:app, ASGI, owns its 0 routes, mounted at /live".into(),
                "application legacy: shop.wsgi, WSGI, 1 thread, mounted at /".into(),
                "admin endpoint at http://127.0.0.1:9000".into(),
                "listening on http://127.0.0.1:8000".into(),
                "listening on unix:/run/shop.sock".into(),
            ]
        );
        let first = lines(&config, Place::Here, &listening, None, &apps).remove(0);
        assert!(first.ends_with(" in this process"), "{first}");
    }
}
