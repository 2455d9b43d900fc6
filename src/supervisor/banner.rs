//! What the server says when it is up.

use crate::app::LocalAddr;
use crate::config::{Config, RuleMatch};
use crate::listen::Listener;
use crate::supervisor::channel::AppReport;

/// One line for the server, each application, and each address; the addresses come last, as whoever
/// waits for them may begin.
pub(super) fn lines(
    config: &Config,
    listeners: &[Listener],
    admin: Option<&LocalAddr>,
    apps: &[AppReport],
) -> Vec<String> {
    let mut lines = vec![format!(
        "Twinspan {} with {}",
        env!("CARGO_PKG_VERSION"),
        count(config.workers, "worker")
    )];
    lines.extend(apps.iter().map(|app| describe(config, app)));
    lines.extend(admin.map(|local| format!("admin endpoint at {}", url(local))));
    let (tcp, unix): (Vec<_>, Vec<_>) = listeners
        .iter()
        .map(Listener::local)
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
    parts.extend(rules.map(|rule| match (&rule.matches, &app.routes) {
        (RuleMatch::Mount(path), _) if path.is_empty() => "mounted at /".into(),
        (RuleMatch::Mount(path), _) => format!("mounted at {path}"),
        (RuleMatch::Path(path), _) => format!("answers {path}"),
        (RuleMatch::Owned, Ok(table)) => format!("owns its {}", count(table.routes.len(), "route")),
        (RuleMatch::Owned, Err(_)) => "owns its routes".into(),
    }));
    format!("application {}: {}", app.name, parts.join(", "))
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

fn url(local: &LocalAddr) -> String {
    match local {
        LocalAddr::Tcp(address) => format!("http://{address}"),
        LocalAddr::Unix(path) => format!("unix:{path}"),
    }
}
