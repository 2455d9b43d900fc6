//! `/metrics`, `/healthz`, `/readyz` and `/status`, as an [`Application`] on a listener of its own, and `/` for people.
//!
//! The same application answers in the supervisor, whose [`Provider`] merges the values of all workers, and
//! in a server that runs in process, where there is one registry ([`InProcess`]). What concerns a migration is
//! in [`api`].

pub mod api;
mod dashboard;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::app::{AppError, Application, BoxFuture, Description, Interface, Request, Response};
use crate::body::Body;
use crate::config::{Config, ForwardedConfig};
use crate::dispatch::Dispatcher;
use crate::drain::Drain;
use crate::metrics::{Family, Metrics, Snapshot, Value, export};
use crate::route::{App, Router, Rule};
use crate::supervisor::{self, Status};
use crate::worker::Started;

/// Where the endpoint gets what it reports.
pub trait Provider: Send + Sync + fmt::Debug + 'static {
    /// The values of all workers.
    fn snapshot(&self) -> BoxFuture<'_, Snapshot>;

    /// Whether new requests should be sent here.
    fn readiness(&self) -> Readiness;

    /// What steers migrations, where something does.
    fn control(&self) -> Option<&supervisor::Control>;
}

/// Whether new requests should be sent here, for `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// They should, though not all is well: `ready, but threads are stuck in 1 of 2 workers`.
    Degraded(Cow<'static, str>),
    /// Why not: `draining`, `0 of 2 workers are ready`.
    NotReady(Cow<'static, str>),
}

impl Readiness {
    fn of(status: &Status) -> Self {
        let Status {
            ready,
            serving,
            stuck,
            workers,
            stopping,
            ..
        } = *status;
        let threads = format!("threads are stuck in {stuck} of {workers} workers");
        match (ready, stuck) {
            (true, 0) => Self::Ready,
            (true, _) => Self::Degraded(format!("ready, but {threads}").into()),
            (false, _) if stopping => Self::NotReady("draining".into()),
            (false, 0) => Self::NotReady(format!("{serving} of {workers} workers serve").into()),
            (false, _) => Self::NotReady(threads.into()),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Ready => "ready",
            Self::Degraded(reason) | Self::NotReady(reason) => reason,
        }
    }
}

/// The endpoint.
#[derive(Debug)]
pub struct Admin {
    provider: Arc<dyn Provider>,
}

impl Admin {
    pub fn new(provider: Arc<dyn Provider>) -> Self {
        Self { provider }
    }
}

impl Application for Admin {
    fn description(&self) -> Description {
        Description {
            interface: Interface::Native,
            threads: None,
        }
    }

    fn call(&self, request: Box<Request>) -> BoxFuture<'static, Result<Response, AppError>> {
        let provider = Arc::clone(&self.provider);
        Box::pin(async move {
            let path = request.at.path_info(&request.head);
            if api::covers(path) {
                return Ok(api::answer(provider.control(), request).await);
            }
            if path == DASHBOARD && !api::is_local(&request.head, &request.conn.local) {
                let text = format!("{}\n", api::NOT_LOCAL);
                return Ok(respond(
                    StatusCode::FORBIDDEN,
                    TEXT,
                    text,
                    &request.head.method,
                ));
            }
            Ok(answer(&*provider, &request.head.method, path).await)
        })
    }
}

async fn answer(provider: &dyn Provider, method: &Method, path: &[u8]) -> Response {
    let Some(page) = Page::at(path) else {
        let text = "/healthz, /readyz, /status, /metrics and /migrate are here, and / shows a migration in a browser\n";
        return respond(StatusCode::NOT_FOUND, TEXT, text.into(), method);
    };
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, String::new(), method);
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    let readiness = provider.readiness();
    let (status, content_type, text) = match page {
        Page::Dashboard => (StatusCode::OK, HTML, dashboard::PAGE.into()),
        // Whoever answers is alive; an application that hangs is no reason to kill the server.
        Page::Health => (StatusCode::OK, TEXT, "alive\n".into()),
        Page::Readiness => {
            let status = match readiness {
                Readiness::Ready | Readiness::Degraded(_) => StatusCode::OK,
                Readiness::NotReady(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, TEXT, format!("{}\n", readiness.text()))
        }
        Page::Status => {
            let status = json!({
                "version": env!("CARGO_PKG_VERSION"),
                "ready": !matches!(readiness, Readiness::NotReady(_)),
                "state": readiness.text(),
                "server": Summary::of(&provider.snapshot().await),
            });
            (StatusCode::OK, JSON, format!("{status:#}\n"))
        }
        Page::Metrics => {
            let text = export::prometheus(&provider.snapshot().await);
            (StatusCode::OK, export::CONTENT_TYPE, text)
        }
    };
    let mut response = respond(status, content_type, text, method);
    if content_type == HTML {
        dashboard::confine(response.headers_mut());
    }
    response
}

const DASHBOARD: &[u8] = b"/";
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

enum Page {
    Dashboard,
    Health,
    Readiness,
    Status,
    Metrics,
}

impl Page {
    fn at(path: &[u8]) -> Option<Self> {
        match path {
            DASHBOARD => Some(Self::Dashboard),
            b"/healthz" => Some(Self::Health),
            b"/readyz" => Some(Self::Readiness),
            b"/status" => Some(Self::Status),
            b"/metrics" => Some(Self::Metrics),
            _ => None,
        }
    }
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    text: String,
    method: &Method,
) -> Response {
    let length = HeaderValue::from(text.len());
    let body = match *method {
        Method::HEAD => Body::empty(),
        _ => Body::from(text),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, length);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The numbers that a person asks for first.
#[derive(Debug, Default, Serialize)]
struct Summary<'a> {
    workers: u64,
    connections: u64,
    requests_refused: u64,
    apps: BTreeMap<&'a str, AppSummary>,
}

#[derive(Debug, Default, Serialize)]
struct AppSummary {
    requests: u64,
    /// Answered with 500 and above.
    server_errors: u64,
    in_flight: u64,
    websockets: u64,
    waiting_for_thread: u64,
    /// Threads that are stuck in requests whose deadline has passed.
    abandoned_threads: u64,
}

impl<'a> Summary<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let mut summary = Self::default();
        for sample in &snapshot.samples {
            let Value::Number(number) = sample.value else {
                continue;
            };
            match (sample.family, sample.labels.as_slice()) {
                (Family::Workers, _) => summary.workers += number,
                (Family::Connections, _) => summary.connections += number,
                (Family::RefusedTotal, _) => summary.requests_refused += number,
                (Family::RequestsTotal, [app, status]) => {
                    let app = summary.app(app);
                    app.requests += number;
                    if status.starts_with('5') {
                        app.server_errors += number;
                    }
                }
                (Family::RequestsInFlight, [app]) => summary.app(app).in_flight += number,
                (Family::WebSockets, [app]) => summary.app(app).websockets += number,
                (Family::PoolWaiting, [app]) => summary.app(app).waiting_for_thread += number,
                (Family::PoolAbandoned, [app]) => summary.app(app).abandoned_threads += number,
                _ => {}
            }
        }
        summary
    }

    fn app(&mut self, name: &'a str) -> &mut AppSummary {
        self.apps.entry(name).or_default()
    }
}

impl Provider for supervisor::Control {
    fn snapshot(&self) -> BoxFuture<'_, Snapshot> {
        Box::pin(self.collect())
    }

    fn readiness(&self) -> Readiness {
        Readiness::of(&self.status())
    }

    fn control(&self) -> Option<&Self> {
        Some(self)
    }
}

/// Serves the endpoint as the one application of its listener; its requests are counted nowhere.
pub fn dispatcher(
    config: Arc<Config>,
    provider: Arc<dyn Provider>,
    drain: Drain,
) -> Arc<Dispatcher> {
    let metrics = Metrics::new(&["admin".into()]);
    let rules = metrics.apps().iter().map(|metrics| {
        let app = App {
            name: Arc::clone(metrics.name()),
            application: Arc::new(Admin::new(Arc::clone(&provider))),
            metrics: Arc::clone(metrics),
            traffic: None,
        };
        Rule::mount(Arc::new(app), "", None)
    });
    let router = Router::new(rules.collect(), "");
    // What a request says of proxies must not decide under which name it came here.
    let nobody = ForwardedConfig {
        networks: Vec::new(),
        everyone: false,
        unix: false,
    };
    let config = Config {
        forwarded: nobody,
        ..Config::clone(&config)
    };
    Dispatcher::new(Arc::new(config), router, metrics, None, drain)
}

/// A server without a supervisor.
#[derive(Debug)]
pub struct InProcess {
    pub started: Started,
    /// Cancelled when the drain begins.
    pub stop: CancellationToken,
}

impl Provider for InProcess {
    fn snapshot(&self) -> BoxFuture<'_, Snapshot> {
        Box::pin(std::future::ready(self.started.snapshot()))
    }

    fn control(&self) -> Option<&supervisor::Control> {
        None
    }

    fn readiness(&self) -> Readiness {
        if self.stop.is_cancelled() {
            return Readiness::NotReady("draining".into());
        }
        match self.started.stuck_now() {
            Some(app) => Readiness::NotReady(format!("threads are stuck in `{app}`").into()),
            None => Readiness::Ready,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::channel::Ready;

    fn provider() -> InProcess {
        let metrics = Metrics::new(&["shop".into(), "api".into()]);
        let app = &metrics.apps()[1];
        app.begin();
        app.end(StatusCode::BAD_GATEWAY, std::time::Duration::ZERO);
        app.begin();
        let drain = Drain::new(tokio::runtime::Handle::current(), CancellationToken::new());
        let router = Router::new(Vec::new(), "");
        let dispatcher = Dispatcher::new(Arc::default(), router, metrics, None, drain);
        InProcess {
            started: Started {
                ready: Ready {
                    apps: Vec::new(),
                    warnings: Vec::new(),
                },
                dispatcher,
                loaded: Vec::new(),
                finished: CancellationToken::new(),
            },
            stop: CancellationToken::new(),
        }
    }

    async fn text(response: Response) -> String {
        let mut body = response.into_body();
        let mut text = Vec::new();
        while let Some(data) = body.data().await {
            text.extend_from_slice(&data.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn health_answers_as_long_as_the_process_does() {
        let provider = provider();
        provider.stop.cancel();
        let response = answer(&provider, &Method::GET, b"/healthz").await;
        assert_eq!(response.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn readiness_ends_when_the_drain_begins() {
        let provider = provider();
        let ready = answer(&provider, &Method::GET, b"/readyz").await;
        assert_eq!(
            (ready.status(), &*text(ready).await),
            (StatusCode::OK, "ready\n")
        );
        provider.stop.cancel();
        let draining = answer(&provider, &Method::GET, b"/readyz").await;
        assert_eq!(draining.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text(draining).await, "draining\n");
    }

    #[test]
    fn readiness_tells_of_workers_whose_threads_are_stuck() {
        for (serving, stuck, ready, text) in [
            (2, 0, true, "ready"),
            (1, 0, true, "ready"),
            (2, 1, true, "ready, but threads are stuck in 1 of 2 workers"),
            (2, 2, false, "threads are stuck in 2 of 2 workers"),
            (0, 0, false, "0 of 2 workers serve"),
        ] {
            let status = Status {
                ready,
                serving,
                stuck,
                workers: 2,
                ..Status::default()
            };
            let readiness = Readiness::of(&status);
            assert_eq!(readiness.text(), text);
            assert_eq!(!matches!(readiness, Readiness::NotReady(_)), ready);
        }
    }

    #[tokio::test]
    async fn metrics_are_in_the_format_that_prometheus_reads() {
        let response = answer(&provider(), &Method::GET, b"/metrics").await;
        assert_eq!(response.headers()[CONTENT_TYPE], export::CONTENT_TYPE);
        let text = text(response).await;
        assert!(
            text.contains("twinspan_requests_in_flight{app=\"api\"} 1\n"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn status_sums_up_what_each_application_does() {
        let response = answer(&provider(), &Method::GET, b"/status").await;
        let status: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(status["ready"], true);
        assert_eq!(status["server"]["workers"], 1);
        let apps = &status["server"]["apps"];
        assert_eq!(apps["shop"]["requests"], 0);
        assert_eq!(apps["api"]["requests"], 1);
        assert_eq!(apps["api"]["server_errors"], 1);
        assert_eq!(apps["api"]["in_flight"], 1);
    }

    #[tokio::test]
    async fn head_has_the_fields_of_get_without_the_body() {
        let provider = provider();
        let get = answer(&provider, &Method::GET, b"/metrics").await;
        let head = answer(&provider, &Method::HEAD, b"/metrics").await;
        assert_eq!(get.headers(), head.headers());
        assert_ne!(head.headers()[CONTENT_LENGTH], "0");
        assert_eq!(text(head).await, "");
    }

    #[tokio::test]
    async fn other_methods_and_paths_are_told_what_there_is() {
        let provider = provider();
        let response = answer(&provider, &Method::POST, b"/readyz").await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[ALLOW], "GET, HEAD");
        for path in [b"".as_slice(), b"//", b"/readyz/", b"/metrics/x"] {
            let response = answer(&provider, &Method::GET, path).await;
            assert_eq!(response.status(), StatusCode::NOT_FOUND);
        }
    }
}
