//! Applications inside of applications, behind a bridge that is not crossed any more.
//!
//! An ASGI application may hand a part of its paths to a WSGI application through a bridge. Asked to
//! (`--unbridge`), the server runs what is behind the bridge itself: a [`Part`] of the outer application,
//! chosen after the rules have chosen that, so that no rule has to know of it.
//!
//! A part takes what the outer application would have sent to the bridge, and when in doubt leaves it: the
//! bridge is still there.

use std::sync::Arc;

use memchr::memchr;

use crate::app::{Bridge, BridgeReport, RouteKind};
use crate::config::AppConfig;
use crate::policy::ownership::{Asked, RouteIndex, Strength};
use crate::route::App;
use crate::worker::Loaded;

/// What is served in place of a bridge.
#[derive(Debug)]
pub struct Part {
    pub app: Arc<App>,
    /// Below the outer application; `""` is its root.
    prefix: String,
    /// What the outer application tries before the bridge.
    before: RouteIndex,
}

impl Part {
    pub fn new(app: Arc<App>, prefix: &str, before: RouteIndex) -> Self {
        Self {
            app,
            prefix: prefix.into(),
            before,
        }
    }

    /// What is cut off, beyond what the outer application's rule cuts off.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether the host of a request may matter.
    pub fn asks_host(&self) -> bool {
        self.before.asks_host()
    }

    /// Whether the outer application would send a request to the bridge. `path` is what is left for the
    /// outer application; `methods` are that of the request and the one that a CORS preflight asks for.
    pub fn takes(&self, path: &[u8], methods: [&str; 2], host: Option<&str>) -> bool {
        let rest = path.strip_prefix(self.prefix.as_bytes());
        // Routers redirect from the bare prefix, and none of their patterns knows a line feed.
        if !rest.is_some_and(|rest| rest.starts_with(b"/")) || memchr(b'\n', path).is_some() {
            return false;
        }
        let path = String::from_utf8_lossy(path);
        // A path that is defined with other methods does not keep a request from what comes after it.
        !methods.iter().any(|method| {
            let asked = Asked {
                path: &path,
                method,
                kind: RouteKind::Http,
                host,
            };
            self.before.claim(&asked).strength == Strength::Route
        })
    }
}

/// A bridge of one of the applications that were loaded.
#[derive(Debug)]
pub struct Found {
    /// The place of the outer application.
    pub outer: usize,
    pub report: BridgeReport,
    pub native: Option<Native>,
}

/// What is to be served in place of a bridge.
#[derive(Debug)]
pub struct Native {
    pub loaded: Loaded,
    /// What the outer application tries before the bridge.
    pub before: RouteIndex,
}

/// Asks every application, all of which have started, for its bridges.
pub async fn find(loaded: &[Loaded]) -> Vec<Found> {
    let mut found = Vec::new();
    for (place, outer) in loaded.iter().enumerate() {
        for bridge in outer.application.bridges().await {
            found.push(Found::new(place, &outer.config, bridge));
        }
    }
    found
}

impl Found {
    fn new(outer: usize, config: &AppConfig, bridge: Bridge) -> Self {
        let mut report = bridge.report;
        let native = match (bridge.inner, &report.served_as) {
            (Some(application), Some(name)) => {
                let config = AppConfig {
                    name: name.clone(),
                    ..config.clone()
                };
                let loaded = Loaded {
                    config,
                    application,
                };
                match RouteIndex::compile(&bridge.before) {
                    Ok(before) => Some(Native { loaded, before }),
                    Err(error) => {
                        report.obstacle = Some(format!("before it, {error}"));
                        None
                    }
                }
            }
            _ => None,
        };
        if native.is_none() {
            report.served_as = None;
        }
        Self {
            outer,
            report,
            native,
        }
    }
}

/// What whoever starts the server should know of a bridge in `outer`.
pub fn warning(report: &BridgeReport, outer: &AppConfig) -> Option<String> {
    let (name, place) = (&outer.name, report.place());
    if let Some(served_as) = &report.served_as {
        let passes: Vec<String> = report.passes.iter().map(ToString::to_string).collect();
        return (!passes.is_empty()).then(|| {
            format!(
                "`{served_as}` is served natively: its requests no longer pass {}",
                passes.join(", ")
            )
        });
    }
    let obstacle = report.obstacle.as_ref().filter(|_| outer.unbridge)?;
    Some(format!(
        "{place} of `{name}` is not served natively, its requests go through `{}` as before: {obstacle}",
        report.bridge
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{
        AppError, Application, BoxFuture, Description, Interface, Passed, Request, Response, Route,
        RouteTable,
    };
    use crate::metrics::Metrics;

    #[derive(Debug)]
    struct Fake;

    impl Application for Fake {
        fn description(&self) -> Description {
            Description {
                interface: Interface::Wsgi,
                threads: None,
            }
        }

        fn call(&self, _: Box<Request>) -> BoxFuture<'static, Result<Response, AppError>> {
            unreachable!("nobody calls it")
        }
    }

    fn route(methods: Option<&str>, pattern: &str, host: Option<&str>) -> Route {
        Route {
            template: pattern.into(),
            pattern: pattern.into(),
            kind: RouteKind::Http,
            methods: methods.map(|methods| methods.split(',').map(str::to_owned).collect()),
            host: host.map(str::to_owned),
            redirects_slash: true,
            exact: true,
            endpoint: None,
            file: None,
            line: None,
            guards: None,
        }
    }

    fn part(prefix: &str, before: Vec<Route>) -> Part {
        let app = App {
            name: "main:/legacy".into(),
            application: Arc::new(Fake),
            metrics: Arc::clone(&Metrics::new(&["main:/legacy".into()]).apps()[0]),
            traffic: None,
        };
        let before = RouteIndex::compile(&RouteTable::new(before)).unwrap();
        Part::new(Arc::new(app), prefix, before)
    }

    #[test]
    fn it_takes_what_the_outer_application_would_send_to_the_bridge() {
        let part = part(
            "/legacy",
            vec![
                route(Some("GET"), "^/legacy/own$", None),
                route(Some("POST"), "^/legacy/items/[^/]+$", None),
                route(None, "^/legacy/files/", None),
                route(None, "^/", Some(r"^api\.example$")),
                route(Some("GET"), "^/legacy/slash/$", None),
            ],
        );
        let takes = |method: &str, path: &[u8]| part.takes(path, [method, method], Some("shop"));
        for (method, path, expected) in [
            ("GET", "/legacy/", true),
            ("GET", "/legacy/more", true),
            ("GET", "/legacy//", true),
            // The bare prefix is redirected from, by the outer application.
            ("GET", "/legacy", false),
            ("GET", "/legacyx", false),
            ("GET", "/", false),
            ("OPTIONS", "*", false),
            // A route before it keeps its path and method, and nothing else.
            ("GET", "/legacy/own", false),
            ("HEAD", "/legacy/own", false),
            ("POST", "/legacy/own", true),
            ("GET", "/legacy/items/5", true),
            ("POST", "/legacy/items/5", false),
            ("GET", "/legacy/slash", true),
            // A mount before it keeps all.
            ("DELETE", "/legacy/files/5", false),
            // No pattern of a router matches this.
            ("GET", "/legacy/a\nb", false),
        ] {
            assert_eq!(takes(method, path.as_bytes()), expected, "{method} {path}");
        }
        assert!(takes("GET", b"/legacy/\xff"));
        assert!(part.asks_host());
        assert!(!part.takes(b"/legacy/more", ["GET"; 2], Some("api.example")));
    }

    #[test]
    fn a_preflight_stays_with_the_route_that_it_announces() {
        let part = part("", vec![route(Some("PUT"), "^/items$", None)]);
        assert!(part.takes(b"/items", ["OPTIONS", "OPTIONS"], None));
        assert!(part.takes(b"/items", ["OPTIONS", "DELETE"], None));
        assert!(!part.takes(b"/items", ["OPTIONS", "PUT"], None));
    }

    fn bridge(before: Vec<Route>) -> Bridge {
        Bridge {
            report: BridgeReport {
                prefix: "/legacy".into(),
                bridge: "shop.Bridge".into(),
                cost: "waits".into(),
                obstacle: None,
                passes: vec![Passed {
                    name: "shop.audit".into(),
                    file: Some("shop.py".into()),
                    line: Some(3),
                }],
                dependencies: Vec::new(),
                served_as: Some("main:/legacy".into()),
            },
            before: RouteTable::new(before),
            inner: Some(Arc::new(Fake)),
        }
    }

    fn outer() -> AppConfig {
        AppConfig {
            unbridge: true,
            threads: 3,
            ..AppConfig::new("main".into(), "shop:app".parse().unwrap())
        }
    }

    #[test]
    fn what_is_served_has_the_settings_of_the_outer_application() {
        let found = Found::new(0, &outer(), bridge(Vec::new()));
        let native = found.native.unwrap();
        assert_eq!(native.loaded.config.name, "main:/legacy");
        assert_eq!(native.loaded.config.threads, 3);
        assert_eq!(
            warning(&found.report, &outer()).unwrap(),
            "`main:/legacy` is served natively: its requests no longer pass shop.audit (shop.py:3)"
        );
    }

    #[test]
    fn a_route_before_it_that_cannot_be_compiled_leaves_the_bridge() {
        let found = Found::new(0, &outer(), bridge(vec![route(None, "^/(", None)]));
        assert!(found.native.is_none());
        assert_eq!(found.report.served_as, None);
        let warned = warning(&found.report, &outer()).unwrap();
        assert!(
            warned.starts_with(
                "/legacy of `main` is not served natively, its requests go through `shop.Bridge` as before: \
                 before it, route `^/(`:"
            ),
            "{warned}"
        );
        let not_asked = AppConfig {
            unbridge: false,
            ..outer()
        };
        assert_eq!(warning(&found.report, &not_asked), None);
    }
}
