//! The one place where a request begins and ends: checked, routed, called, logged, counted.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, SERVER, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;
use tracing::{debug, error, warn};

use crate::app::{AppError, ConnInfo, Origin, Request, Response};
use crate::body::{Body, BodyError};
use crate::config::{Config, Limits, Timeouts};
use crate::drain::Drain;
use crate::http::{Control, forwarded, strict};
use crate::metrics::access_log::{AccessLog, Entry};
use crate::metrics::{Metrics, RefusedBy};
use crate::route::{App, MountPoint, Refusal, Router, RuleInfo};
use crate::ws::{self, Handshake};

/// Everything that connections of one worker share.
#[derive(Debug)]
pub struct Dispatcher {
    config: Arc<Config>,
    router: Router,
    metrics: Arc<Metrics>,
    access_log: Option<AccessLog>,
    drain: Drain,
}

impl Dispatcher {
    pub fn new(
        config: Arc<Config>,
        router: Router,
        metrics: Arc<Metrics>,
        access_log: Option<AccessLog>,
        drain: Drain,
    ) -> Arc<Self> {
        Arc::new(Self {
            config,
            router,
            metrics,
            access_log,
            drain,
        })
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.config.timeouts
    }

    pub(crate) fn limits(&self) -> Limits {
        self.config.limits
    }

    pub(crate) fn date_header(&self) -> bool {
        self.config.date_header
    }

    pub(crate) fn drain(&self) -> &Drain {
        &self.drain
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Notes a request that was refused before it had a head.
    pub(crate) fn refused(&self, by: RefusedBy, reason: &'static str) {
        self.metrics.refused(by);
        debug!(reason, "a request was refused");
    }

    /// Answers one request of a connection.
    pub(crate) async fn http(
        self: Arc<Self>,
        request: http::Request<Incoming>,
        conn: Arc<ConnInfo>,
        control: Arc<Control>,
    ) -> http::Response<Tracked> {
        let (head, incoming) = request.into_parts();
        let version = head.version;
        let asks_upgrade = head.headers.contains_key(UPGRADE);
        let mut record = Record::begin(&self, &head, control);
        let mut response = match self.answer(head, incoming, conn, &mut record).await {
            Ok(response) => response,
            Err(refusal) => {
                self.refused(refusal.by, refusal.reason);
                refuse(refusal)
            }
        };
        if let Some(reason) = record.control.refused_body() {
            // Whatever the application made of half a body, the client is told what was wrong with it.
            response = refuse(Refusal {
                status: StatusCode::BAD_REQUEST,
                reason,
                by: RefusedBy::Malformed,
                close: true,
            });
        }
        if asks_upgrade && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            record.control.upgrade_declined();
        }
        if self.config.server_header && !response.headers().contains_key(SERVER) {
            let server = HeaderValue::from_static("twinspan");
            response.headers_mut().insert(SERVER, server);
        }
        if version < Version::HTTP_2 {
            let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            if self.drain.has_begun() && !switched {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
        } else {
            // Not known to HTTP/2 (RFC 9113 §8.2.2); an aborted stream is reset by hyper alone.
            response.headers_mut().remove(CONNECTION);
            record.resets_connection = false;
        }
        record.status = response.status();
        let left = if record.is_bodiless() {
            None
        } else {
            declared_length(response.headers())
        };
        response.map(|body| Tracked { body, left, record })
    }

    async fn answer(
        self: &Arc<Self>,
        mut head: Parts,
        incoming: Incoming,
        conn: Arc<ConnInfo>,
        record: &mut Record,
    ) -> Result<Response, Refusal> {
        strict::check(&head)?;
        let forwarded = forwarded::resolve(&mut head, &conn, &self.config.forwarded);
        record.seen_from(forwarded.origin);
        let upgrade = ws::wants_websocket(&head);
        let (app, at) = self
            .router
            .route(&head, upgrade, forwarded.prefix.as_deref())?;
        record.routed(app, &at);
        let mut body = Body::from(incoming);
        body.read_ahead().await;
        let request = Request {
            head,
            body,
            at,
            origin: forwarded.origin,
            conn,
        };
        if upgrade {
            return Ok(self.connect(app, request, &record.control).await);
        }
        let answer = app.application.call(request).await;
        Ok(answer.unwrap_or_else(|error| failed(app, &error)))
    }

    async fn connect(
        self: &Arc<Self>,
        app: &Arc<App>,
        mut request: Request,
        control: &Arc<Control>,
    ) -> Response {
        request.head.extensions.insert(Arc::clone(control));
        let (handshake, answer) = match Handshake::new(request, &self.config.limits, &self.drain) {
            Ok(offered) => offered,
            Err(response) => return *response,
        };
        let Some(application) = app.application.websocket() else {
            // The router matches upgrades against applications with a WebSocket side only.
            return failed(app, &AppError::Failed("no WebSocket side".into()));
        };
        let connected = application.connect(handshake);
        let app_of_task = Arc::clone(app);
        self.drain.spawn(async move {
            let _open = OpenWebSocket::new(&app_of_task);
            if let Err(error) = connected.await {
                error!(app = %app_of_task.name, %error, "a WebSocket failed");
            }
        });
        answer.await.unwrap_or_else(|_| {
            failed(
                app,
                &AppError::Failed("the handshake was not answered".into()),
            )
        })
    }
}

/// Counts a WebSocket for as long as it lives, however it ends.
struct OpenWebSocket<'a>(&'a App);

impl<'a> OpenWebSocket<'a> {
    fn new(app: &'a App) -> Self {
        app.metrics.websocket_opened();
        Self(app)
    }
}

impl Drop for OpenWebSocket<'_> {
    fn drop(&mut self) {
        self.0.metrics.websocket_closed();
    }
}

/// What an application that did not answer looks like to its client.
fn failed(app: &App, error: &AppError) -> Response {
    let (status, text) = match error {
        AppError::Failed(problem) => {
            error!(app = %app.name, problem, "a request failed");
            (StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error\n")
        }
        AppError::Overloaded { waiting } => {
            warn!(app = %app.name, waiting, "a request was turned away: every thread is busy");
            (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable\n")
        }
        AppError::Timeout(limit) => {
            error!(app = %app.name, ?limit, "a request got no response in time");
            (StatusCode::GATEWAY_TIMEOUT, "Gateway Timeout\n")
        }
    };
    let mut response = plain(status, Body::from(text));
    if matches!(error, AppError::Overloaded { .. }) {
        let soon = HeaderValue::from_static("1");
        response.headers_mut().insert(RETRY_AFTER, soon);
    }
    response
}

fn refuse(refusal: Refusal) -> Response {
    let mut response = plain(refusal.status, format!("{}\n", refusal.reason).into());
    if refusal.close {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

fn plain(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

/// Follows one request to its end, however it comes about: counts it and writes the access log.
struct Record {
    dispatcher: Arc<Dispatcher>,
    control: Arc<Control>,
    began: Instant,
    app: Option<Arc<App>>,
    rule: Option<Arc<RuleInfo>>,
    status: StatusCode,
    sent: u64,
    /// The response reached its end.
    complete: bool,
    /// A broken response resets the connection.
    resets_connection: bool,
    is_head: bool,
    line: Option<Line>,
}

/// What the access log says of the request.
struct Line {
    method: Method,
    uri: Uri,
    version: Version,
    origin: Option<Origin>,
}

/// Not a status of HTTP: in logs and metrics, for a client that left before it had an answer.
const CLIENT_CLOSED_REQUEST: u16 = 499;

impl Record {
    fn begin(dispatcher: &Arc<Dispatcher>, head: &Parts, control: Arc<Control>) -> Self {
        control.request_began();
        let line = dispatcher.access_log.is_some().then(|| Line {
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            origin: None,
        });
        Self {
            dispatcher: Arc::clone(dispatcher),
            control,
            began: Instant::now(),
            app: None,
            rule: None,
            status: StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or_default(),
            sent: 0,
            complete: false,
            resets_connection: true,
            is_head: head.method == Method::HEAD,
            line,
        }
    }

    fn seen_from(&mut self, origin: Origin) {
        if let Some(line) = &mut self.line {
            line.origin = Some(origin);
        }
    }

    fn routed(&mut self, app: &Arc<App>, at: &MountPoint) {
        app.metrics.begin();
        self.app = Some(Arc::clone(app));
        self.rule = Some(Arc::clone(&at.rule));
    }

    /// Whether the response ends with its head, whatever its fields say (RFC 9112 §6.3).
    fn is_bodiless(&self) -> bool {
        self.is_head
            || matches!(
                self.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::SWITCHING_PROTOCOLS
            )
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let now = Instant::now();
        self.control.request_ended(now);
        let elapsed = now.saturating_duration_since(self.began);
        if let Some(app) = &self.app {
            app.metrics.end(self.status, elapsed);
            if !self.complete {
                app.metrics.aborted();
            }
        }
        if let (Some(log), Some(line)) = (&self.dispatcher.access_log, &self.line) {
            let target = line.uri.path_and_query();
            log.log(&Entry {
                client: line.origin.and_then(|origin| origin.client),
                method: &line.method,
                target: target.map_or("", |target| target.as_str()),
                version: line.version,
                status: self.status,
                bytes: self.sent,
                duration: elapsed,
                app: self.app.as_ref().map(|app| &*app.name),
                rule: self.rule.as_ref().map(|rule| rule.name.as_str()),
                aborted: !self.complete,
            });
        }
    }
}

/// The length that the application has promised. Adapters let nothing through that is not one number.
fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A response body that is followed to its end, and held to its declared length: hyper trusts applications
/// to keep their word, and a body that does not would break the next response of the connection.
pub(crate) struct Tracked {
    body: Body,
    /// Bytes that are still to come, where the head says how many.
    left: Option<u64>,
    record: Record,
}

impl Tracked {
    /// Cuts off what was not announced.
    fn within_length(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let Some(left) = &mut self.left else {
            return frame;
        };
        let length = frame.data_ref().map_or(0, Bytes::len) as u64;
        if length <= *left {
            *left -= length;
            return frame;
        }
        if let Some(app) = &self.record.app {
            error!(app = %app.name, "a response is longer than its Content-Length: the rest is not sent");
        }
        let kept = usize::try_from(std::mem::take(left)).unwrap_or(usize::MAX);
        self.body = Body::empty();
        frame.map_data(|data| data.slice(..kept.min(data.len())))
    }
}

impl fmt::Debug for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.body.fmt(f)
    }
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => Some(Ok(self.within_length(frame))),
            None if self.left.is_some_and(|left| left > 0) => {
                let problem = "a response is shorter than its Content-Length".to_owned();
                if let Some(app) = &self.record.app {
                    error!(app = %app.name, "{problem}");
                }
                Some(Err(BodyError::Aborted(problem)))
            }
            frame => frame,
        };
        match &frame {
            Some(Ok(frame)) => {
                self.record.sent += frame.data_ref().map_or(0, Bytes::len) as u64;
            }
            Some(Err(error)) => {
                if self.record.resets_connection {
                    self.record.control.abort();
                }
                debug!(%error, "a response was aborted");
            }
            None => self.record.complete = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && self.left.is_none_or(|left| left == 0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(|| self.body.size_hint(), SizeHint::with_exact)
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let complete = self.record.is_bodiless() || self.is_end_stream();
        self.record.complete |= complete;
    }
}
