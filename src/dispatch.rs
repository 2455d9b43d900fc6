//! The one place where a request begins and ends: checked, routed, called, logged, counted.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderMap, RETRY_AFTER, SERVER, UPGRADE,
};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, Uri, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;
use tracing::{debug, error, warn};

use crate::app::{AppError, ConnInfo, Origin, Request, Response};
use crate::body::{Body, BodyError, DRAIN_BYTES, Rest};
use crate::config::{Config, Limits, Timeouts};
use crate::drain::Drain;
use crate::http::forwarded::Forwarded;
use crate::http::{Control, Interim, forwarded, strict};
use crate::metrics::access_log::{AccessLog, Entry};
use crate::metrics::{Metrics, RefusedBy};
use crate::migrate::live::Overlay;
use crate::migrate::observe::{Observations, Side};
use crate::policy::fallthrough::replayable;
use crate::policy::shadow::{SHADOW_HEADER, ShadowCopy};
use crate::route::{App, Passed, PassedWhy, Refusal, Routed, Router, Rule, RuleInfo, Trail};
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

    /// Lets the shares of an overlay count for every request that comes from now on.
    pub(crate) fn set_live(&self, overlay: &Overlay) {
        self.router.set_live(&self.config.rules, overlay);
    }

    /// What there is to tell of the migration since this was last asked.
    pub fn observe(&self) -> Observations {
        let mut observations = Observations::default();
        let mut seen: Vec<&Arc<App>> = Vec::new();
        for rule in self.router.rules() {
            if let Some(traffic) = &rule.app.traffic
                && !seen.iter().any(|app| Arc::ptr_eq(app, &rule.app))
            {
                observations.traffic.extend(traffic.take());
                seen.push(&rule.app);
            }
            let Some(policies) = rule.policies.as_deref() else {
                continue;
            };
            if let Some(canary) = &policies.canary {
                observations.canaries.extend(canary.take());
            }
            if let Some(shadow) = &policies.shadow {
                shadow.take(&mut observations);
            }
        }
        observations
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
        let mut record = Record::begin(&self, &head, &conn, control);
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
        let declared = fit(&mut response, record.is_head()).unwrap_or_else(|misfit| {
            let app = record.app.as_ref().map_or("", |app| &app.name);
            error!(app, problem = %misfit, "a response was not sent");
            response = internal_error();
            None
        });
        if asks_upgrade && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            record.control.upgrade_declined();
        }
        if self.config.server_header && !response.headers().contains_key(SERVER) {
            let server = HeaderValue::from_static("twinspan");
            response.headers_mut().insert(SERVER, server);
        }
        if version < Version::HTTP_2 {
            let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            // HTTP/1.0 has no chunks: the end of such a body is that of the connection (RFC 9112 §6.3).
            let has_length = declared.or(response.body().size_hint().exact()).is_some();
            let ends_body = version == Version::HTTP_10 && !has_length;
            if ends_body || record.gives_up_rest() || (self.drain.has_begun() && !switched) {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            if version == Version::HTTP_10 && response.headers().contains_key(CONNECTION) {
                // hyper would add `keep-alive` to a response of another version.
                *response.version_mut() = version;
            }
        } else {
            // Not known to HTTP/2 (RFC 9113 §8.2.2); an aborted stream is reset by hyper alone.
            response.headers_mut().remove(CONNECTION);
            record.resets_connection = false;
        }
        record.answered(&response);
        response.map(|body| Tracked {
            // On HTTP/1.1 a body with a length has no place for them (RFC 9112 §6.2).
            trailers: version >= Version::HTTP_2 && body.has_trailers(),
            body,
            left: declared,
            record,
        })
    }

    async fn answer(
        self: &Arc<Self>,
        mut head: Parts,
        incoming: Incoming,
        conn: Arc<ConnInfo>,
        record: &mut Record,
    ) -> Result<Response, Refusal> {
        let upgrade = ws::wants_websocket(&head);
        let mut body = Body::from(incoming);
        let routed = self.route(&mut head, upgrade, &conn, record);
        if !body.is_finished() {
            // Whoever expects `100 Continue` gets it when the application reads, not before it could refuse.
            let expects = head.headers.contains_key(EXPECT);
            if routed.is_ok() && !expects {
                body.read_ahead().await;
            }
            if !body.is_finished() {
                let rest = body.drain_on_drop(expects);
                record.unread = Some(Unread { rest, expects });
            }
        }
        let (
            Routed {
                rule,
                app,
                at,
                trail,
                ..
            },
            forwarded,
        ) = routed?;
        let has_interim = head.version == Version::HTTP_11 && !upgrade;
        let request = Box::new(Request {
            head,
            body,
            at,
            origin: forwarded.origin,
            conn,
            interim: has_interim.then(|| Interim::new(&record.control)),
            is_copy: false,
        });
        if upgrade {
            return Ok(self.connect(app, request, &record.control).await);
        }
        let (app, answer) = match trail {
            None => (app, app.application.call(request).await),
            Some(trail) => {
                let prefix = forwarded.prefix.as_deref();
                // Boxed, so that requests without policies do not carry its size along.
                Box::pin(self.follow((rule, app), request, trail, prefix, record)).await
            }
        };
        if has_interim {
            record.control.end_interim().await;
        }
        Ok(answer.unwrap_or_else(|error| failed(app, &error)))
    }

    /// Answers a request that rules with policies have to do with.
    async fn follow<'a>(
        &'a self,
        (mut rule, mut app): (&'a Rule, &'a Arc<App>),
        mut request: Box<Request>,
        mut trail: Box<Trail>,
        prefix: Option<&str>,
        record: &mut Record,
    ) -> (&'a Arc<App>, Result<Response, AppError>) {
        record.copy = self.copy_of(&mut request, &trail, prefix);
        loop {
            if let Some(copy) = &mut record.copy {
                copy.answered_by(app, &request.at);
            }
            let policies = rule.policies.as_deref();
            let falls = policies.and_then(|policies| policies.fallthrough.as_ref());
            let Some(falls) = falls.filter(|it| it.methods.contains(&request.head.method)) else {
                return (app, app.application.call(request).await);
            };
            let (head, origin, conn) = (
                request.head.clone(),
                request.origin,
                Arc::clone(&request.conn),
            );
            // Nothing of an answer that is dropped may reach the client, not even a hint.
            let interim = request.interim.take();
            let (body, replay) =
                replayable(std::mem::take(&mut request.body), falls.memory, falls.file);
            request.body = body;
            let passed = Passed {
                rule: record.index,
                app: Arc::clone(&rule.app),
                route: request.at.route.clone(),
                why: PassedWhy::Fallthrough,
            };
            let answer = app.application.call(request).await;
            let status = match &answer {
                Ok(response) if falls.statuses.contains(&response.status()) => response.status(),
                _ => return (app, answer),
            };
            trail.passed.push(passed);
            let client = origin.client.map(|client| client.ip());
            let next = self.router.route(&head, false, client, prefix, Some(trail));
            let (Ok(next), Some(body)) = (next, replay.rewind().await) else {
                return (app, answer);
            };
            drop(answer);
            record.passed_on(status);
            record.routed(&next);
            request = Box::new(Request {
                head,
                body,
                at: next.at,
                origin,
                conn,
                interim,
                is_copy: false,
            });
            (rule, app) = (next.rule, next.app);
            let Some(next) = next.trail else {
                return (app, app.application.call(request).await);
            };
            trail = next;
        }
    }

    /// The copy of a request that a rule which has passed it on wants to have, if it does.
    fn copy_of(
        &self,
        request: &mut Request,
        trail: &Trail,
        prefix: Option<&str>,
    ) -> Option<Box<ShadowCopy>> {
        trail.passed.iter().find_map(|passed| {
            let (rule, app, at) = self.router.passed_at(passed, &request.head, prefix)?;
            let shadow = rule.policies.as_ref()?.shadow.as_ref()?;
            let share = trail.live.shares(passed.rule).shadow;
            shadow.copy(share, app, at, request).map(Box::new)
        })
    }

    /// Where a request belongs, and where it came from.
    fn route(
        &self,
        head: &mut Parts,
        upgrade: bool,
        conn: &ConnInfo,
        record: &mut Record,
    ) -> Result<(Routed<'_>, Forwarded), Refusal> {
        strict::check(head)?;
        // Only the server says so: an application may undo what it did for a copy.
        head.headers.remove(SHADOW_HEADER);
        let forwarded = forwarded::resolve(head, conn, &self.config.forwarded);
        record.seen_from(forwarded.origin);
        let client = forwarded.origin.client.map(|client| client.ip());
        let prefix = forwarded.prefix.as_deref();
        let routed = self.router.route(head, upgrade, client, prefix, None)?;
        record.routed(&routed);
        Ok((routed, forwarded))
    }

    async fn connect(
        self: &Arc<Self>,
        app: &Arc<App>,
        mut request: Box<Request>,
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
            match connected.await {
                Ok(()) | Err(AppError::Raised) => {}
                Err(error) => error!(app = %app_of_task.name, %error, "a WebSocket failed"),
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

/// What an application answers to one that asks without a connection, and the length that was declared for its body.
pub(crate) async fn answered(
    app: &App,
    request: Box<Request>,
    is_head: bool,
) -> (Response, Option<u64>) {
    let answer = app.application.call(request).await;
    let mut response = answer.unwrap_or_else(|error| failed(app, &error));
    match fit(&mut response, is_head) {
        Ok(declared) => (response, declared),
        Err(misfit) => {
            error!(app = %app.name, problem = %misfit, "a response was not sent");
            (internal_error(), None)
        }
    }
}

/// What an application that did not answer looks like to its client.
fn failed(app: &App, error: &AppError) -> Response {
    let (status, text) = match error {
        AppError::Raised => return internal_error(),
        AppError::Failed(problem) => {
            error!(app = %app.name, problem, "a request failed");
            return internal_error();
        }
        AppError::Incomplete => (StatusCode::BAD_REQUEST, "the request is incomplete\n"),
        AppError::Overloaded { waiting } => {
            warn!(app = %app.name, waiting, "a request was turned away: every thread is busy");
            (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable\n")
        }
        AppError::Exhausted { abandoned } => {
            warn!(app = %app.name, abandoned, "a request was turned away: too many threads are stuck");
            (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable\n")
        }
        AppError::Timeout(limit) => {
            app.metrics.timed_out();
            error!(app = %app.name, ?limit, "a request got no response in time");
            (StatusCode::GATEWAY_TIMEOUT, "Gateway Timeout\n")
        }
    };
    let mut response = plain(status, Body::from(text));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let soon = HeaderValue::from_static("1");
        response.headers_mut().insert(RETRY_AFTER, soon);
    }
    response
}

fn internal_error() -> Response {
    let text = Body::from("Internal Server Error\n");
    plain(StatusCode::INTERNAL_SERVER_ERROR, text)
}

/// A response whose body cannot be what its head says.
#[derive(Debug, thiserror::Error)]
enum Misfit {
    #[error("`Content-Length` is not one number of bytes: {0:?}")]
    Unreadable(HeaderValue),
    #[error("the body has {has} bytes, its `Content-Length` is {declared}")]
    Short { has: u64, declared: u64 },
}

/// Makes the body of a response what its head says (RFC 9110 §6.4.1, §8.6): hyper trusts both, and a
/// length that is not true makes the client take the next response for a part of this one.
///
/// Gives the length that was declared for the body.
fn fit(response: &mut Response, is_head: bool) -> Result<Option<u64>, Misfit> {
    let declared = declared_length(response.headers())?;
    let size = response.body().size_hint().exact();
    if is_head || is_bodiless(response.status()) {
        if response.status() == StatusCode::NO_CONTENT {
            response.headers_mut().remove(CONTENT_LENGTH);
        } else if let (None, Some(size @ 1..)) = (declared, size) {
            // What it would have been (RFC 9110 §8.6).
            response.headers_mut().insert(CONTENT_LENGTH, size.into());
        }
        std::mem::take(response.body_mut()).satisfied();
        return Ok(None);
    }
    match (declared, size) {
        (Some(0), _) => {
            std::mem::take(response.body_mut()).satisfied();
            Ok(None)
        }
        (Some(declared), Some(has)) if has < declared => Err(Misfit::Short { has, declared }),
        _ => Ok(declared),
    }
}

fn declared_length(headers: &HeaderMap) -> Result<Option<u64>, Misfit> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = values.next() else {
        return Ok(None);
    };
    let unreadable = || Misfit::Unreadable(first.clone());
    let digits = first.as_bytes();
    if !digits.iter().all(u8::is_ascii_digit) || values.next().is_some() {
        return Err(unreadable());
    }
    let length = first.to_str().ok().and_then(|text| text.parse().ok());
    length.map(Some).ok_or_else(unreadable)
}

/// Responses that end with their head, whatever it says.
fn is_bodiless(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::SWITCHING_PROTOCOLS
    )
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
    /// The place of the rule in the table.
    index: usize,
    /// The place of the route in the application's table.
    route: Option<usize>,
    method: Method,
    /// Rules with a canary that matched, and on which side of each the request was.
    sides: Vec<(usize, Side)>,
    copy: Option<Box<ShadowCopy>>,
    status: StatusCode,
    /// When the application was asked whose answer counts.
    asked: Instant,
    /// From then to the response head.
    took: Option<Duration>,
    sent: u64,
    /// The application gave up within its response.
    broken: bool,
    /// The response reached its end.
    complete: bool,
    /// A broken response resets the connection.
    resets_connection: bool,
    unread: Option<Unread>,
    line: Option<Line>,
}

/// A request body that had not come whole when its request was handed over.
struct Unread {
    rest: Arc<Rest>,
    expects: bool,
}

/// What the access log says of the request.
struct Line {
    uri: Uri,
    version: Version,
    client: Option<SocketAddr>,
}

/// A client that leaves later than this without a response head has waited in vain; before, it has changed its mind.
const HANGS: Duration = Duration::from_secs(1);

/// Not a status of HTTP: in logs and metrics, for a client that left before it had an answer.
const CLIENT_CLOSED_REQUEST: u16 = 499;

impl Record {
    fn begin(
        dispatcher: &Arc<Dispatcher>,
        head: &Parts,
        conn: &ConnInfo,
        control: Arc<Control>,
    ) -> Self {
        control.request_began();
        let now = Instant::now();
        let line = dispatcher.access_log.is_some().then(|| Line {
            uri: head.uri.clone(),
            version: head.version,
            client: conn.peer,
        });
        Self {
            dispatcher: Arc::clone(dispatcher),
            control,
            began: now,
            app: None,
            rule: None,
            index: 0,
            route: None,
            method: head.method.clone(),
            sides: Vec::new(),
            copy: None,
            asked: now,
            took: None,
            broken: false,
            status: StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or_default(),
            sent: 0,
            complete: false,
            resets_connection: true,
            unread: None,
            line,
        }
    }

    fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    fn seen_from(&mut self, origin: Origin) {
        if let Some(line) = &mut self.line {
            line.client = origin.client;
        }
    }

    /// Whether the response must say that the connection closes, because so much of the request body is
    /// still to come that it is not read for the sake of the next request (RFC 9112 §9.3, §9.6).
    fn gives_up_rest(&self) -> bool {
        let Some(Unread { rest, expects }) = &self.unread else {
            return false;
        };
        // A client that expected to be asked may leave its body out.
        let bearable = if *expects { 0 } else { DRAIN_BYTES as u64 };
        if self.control.body_left() > bearable {
            rest.give_up()
        } else {
            !rest.keep()
        }
    }

    fn routed(&mut self, routed: &Routed<'_>) {
        let Routed {
            index,
            app,
            at,
            trail,
            ..
        } = routed;
        app.metrics.begin();
        self.app = Some(Arc::clone(app));
        self.rule = Some(Arc::clone(&at.rule));
        self.index = *index;
        self.route = at.route.as_ref().map(|route| route.index);
        if let Some(trail) = trail {
            let passed = trail.passed.iter().filter(|it| it.why == PassedWhy::Canary);
            let old = passed.map(|passed| (passed.rule, Side::Old));
            for side in old.chain([(*index, Side::New)]) {
                if !self.sides.iter().any(|(known, _)| *known == side.0) {
                    self.sides.push(side);
                }
            }
        }
    }

    /// The application has answered, and its answer counts as none.
    fn passed_on(&mut self, status: StatusCode) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.asked);
        if let Some(app) = self.app.take() {
            app.metrics.end(status, took);
            self.sides_end(false, took, |rule, side| {
                rule == self.index && side == Side::New
            });
        }
        // What comes now is the answer of another, for which this rule is not to blame.
        let index = self.index;
        self.sides.retain(|side| *side != (index, Side::New));
        self.asked = now;
    }

    /// Tells the canaries of those rules how the request ended for them.
    fn sides_end(&self, failed: bool, took: Duration, of: impl Fn(usize, Side) -> bool) {
        for (rule, side) in self.sides.iter().filter(|(rule, side)| of(*rule, *side)) {
            let rule = self.dispatcher.router.rules().get(*rule);
            let policies = rule.and_then(|rule| rule.policies.as_deref());
            if let Some(canary) = policies.and_then(|policies| policies.canary.as_ref()) {
                canary.observe(*side, failed, took);
            }
        }
    }

    fn answered(&mut self, response: &Response) {
        self.status = response.status();
        if self.app.as_ref().is_some_and(|app| app.traffic.is_some()) || !self.sides.is_empty() {
            self.took = Some(self.asked.elapsed());
        }
        if let Some(copy) = &mut self.copy
            && !copy.answered(response)
        {
            self.copy = None;
        }
    }

    /// Tells those who follow the migration.
    fn observe(&mut self, app: &App, elapsed: Duration) {
        let (took, gave_up) = match self.took {
            Some(took) => (took, false),
            // Nobody waits for ever: an application that hangs has to be seen by those who judge it.
            None if elapsed > HANGS => (elapsed, true),
            None => return,
        };
        let failed = self.status.is_server_error() || self.broken || gave_up;
        // How long a WebSocket lives says nothing of how fast anybody answers.
        let is_request = self.status != StatusCode::SWITCHING_PROTOCOLS;
        if let Some(traffic) = app.traffic.as_ref().filter(|_| is_request) {
            traffic.observe(self.route, &self.method, failed, took);
        }
        self.sides_end(failed, took, |_, _| true);
        if let Some(copy) = self.copy.take()
            && self.complete
            && !self.dispatcher.drain.has_begun()
        {
            let drain = self.dispatcher.drain.clone();
            self.dispatcher.drain.spawn(copy.send(drain));
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let now = Instant::now();
        self.control.request_ended(now);
        let elapsed = now.saturating_duration_since(self.began);
        if let Some(app) = self.app.clone() {
            let elapsed = now.saturating_duration_since(self.asked);
            app.metrics.end(self.status, elapsed);
            if !self.complete {
                app.metrics.aborted();
            }
            self.observe(&app, elapsed);
        }
        if let (Some(log), Some(line)) = (&self.dispatcher.access_log, &self.line) {
            let target = line.uri.path_and_query();
            log.log(&Entry {
                client: line.client,
                method: &self.method,
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

/// A response body that is followed to its end.
pub(crate) struct Tracked {
    body: Body,
    /// Bytes that its head still promises.
    left: Option<u64>,
    /// It does not end with the last of them.
    trailers: bool,
    record: Record,
}

impl Tracked {
    /// Counts bytes, and cuts off those that the head does not announce.
    fn count(&mut self, mut bytes: Bytes) -> Bytes {
        if let Some(left) = &mut self.left {
            if bytes.len() as u64 > *left {
                let app = self.record.app.as_ref().map_or("", |app| &app.name);
                warn!(app, "a response was cut off at its `Content-Length`");
                bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            }
            *left -= bytes.len() as u64;
            if *left == 0 && !self.trailers {
                self.record.complete = true;
                std::mem::take(&mut self.body).satisfied();
            }
        }
        self.record.sent += bytes.len() as u64;
        if let Some(copy) = &mut self.record.copy {
            copy.sent(&bytes);
        }
        bytes
    }

    /// The body ends before the head said it would.
    fn fell_short(&mut self) -> BodyError {
        let app = self.record.app.as_ref().map_or("", |app| &app.name);
        error!(app, "a response was shorter than its `Content-Length`");
        let error = BodyError::Aborted("shorter than its `Content-Length`".into());
        self.broken(&error);
        error
    }

    fn broken(&mut self, error: &BodyError) {
        self.record.broken = true;
        if self.record.resets_connection {
            self.record.control.abort();
        }
        debug!(%error, "a response was aborted");
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
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => Poll::Ready(Some(match frame.into_data() {
                Ok(bytes) => Ok(Frame::data(self.count(bytes))),
                Err(_) if self.left.is_some_and(|left| left > 0) => Err(self.fell_short()),
                Err(trailers) => Ok(trailers),
            })),
            Some(Err(error)) => {
                self.broken(&error);
                Poll::Ready(Some(Err(error)))
            }
            None if self.left.is_some_and(|left| left > 0) => {
                Poll::Ready(Some(Err(self.fell_short())))
            }
            None => {
                self.record.complete = true;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.left {
            Some(0) if self.trailers => self.body.is_end_stream(),
            Some(left) => left == 0,
            None => self.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(|| self.body.size_hint(), SizeHint::with_exact)
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let bodiless = self.record.is_head() || is_bodiless(self.record.status);
        self.record.complete |= bodiless || http_body::Body::is_end_stream(self);
    }
}
