//! One HTTP request of an ASGI application: its state between `receive` and `send`.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRAILER};
use http::{HeaderMap, Method, StatusCode, Version};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tracing::{Level, debug, error, info, warn};
use twinspan::app::{AppError, Notice, Request, Response};
use twinspan::body::{self, Body, Disconnected};
use twinspan::http::{Interim, trailers};
use twinspan_bridge::errors::{is_cancellation, summary, traceback};
use twinspan_bridge::head;
use twinspan_bridge::outbox::{Answer, ReplyTo};

use crate::application::{Served, Shared};
use crate::awaitable::{Operation, Source, Waiters, awaitable, done};
use crate::callables::{Cycle, Runs, WhenDone, raised};
use crate::event_loop::{EventLoop, Job, Wake};
use crate::file::{Failure, First, Part, Sending};
use crate::message::{self, unexpected};

/// Bytes of a streamed response that wait for the client before `send` holds the application back.
const RESPONSE_BUFFER: usize = 64 * 1024;

/// One request between the I/O thread and the application.
pub(crate) struct Exchange {
    shared: Arc<Shared>,
    event_loop: Arc<EventLoop>,
    /// The client left before the response head.
    gone: AtomicBool,
    /// Where 103 goes.
    interim: Option<Interim>,
    is_head: bool,
    accepts_trailers: bool,
    is_http2: bool,
    is_get: bool,
    state: Mutex<State>,
    waiters: Waiters,
}

struct State {
    request: Body,
    request_read: bool,
    /// The client stopped sending within the body, and the application was told.
    cut_off: bool,
    /// The task was asked to end.
    cancelled: bool,
    /// The application was told that the server does not wait for it much longer.
    warned: bool,
    /// Server-sent events: the response has no end of its own, and its client comes back (HTML, 9.2.3).
    is_event_stream: bool,
    reply_to: Option<ReplyTo>,
    response: Progress,
    /// Trailers come after the body: what announces them in the head.
    promised_trailers: Option<HeaderMap>,
    /// A task on the I/O runtime sends a file.
    sending_file: bool,
    /// A file could not be sent: while the head waits, another may take its place.
    head_may_change: bool,
    debugged: bool,
    /// asyncio keeps only weak references to its tasks.
    task: Option<Py<PyAny>>,
}

/// How far the response is.
enum Progress {
    /// Nothing was sent.
    Waiting,
    /// The head waits for the first piece of the body.
    Started(Head),
    /// The head waits for a file to be opened.
    Opening,
    Streaming(body::Sender),
    /// The body is complete, and trailers are to follow: those that have come.
    Ending(body::Sender, HeaderMap),
    Complete,
}

/// The head of a response before it is sent.
pub(crate) struct Head {
    status: StatusCode,
    headers: HeaderMap,
}

impl Head {
    fn with(self, body: Body) -> Response {
        head::response(self.status, self.headers, body)
    }

    /// Nothing follows it, whatever it says (RFC 9110 §6.4.1).
    fn is_bodiless(&self) -> bool {
        matches!(
            self.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        )
    }
}

impl Exchange {
    pub(crate) fn new(
        shared: Arc<Shared>,
        event_loop: Arc<EventLoop>,
        request: &mut Request,
        reply_to: ReplyTo,
    ) -> Arc<Self> {
        Arc::new(Self {
            shared,
            event_loop,
            gone: AtomicBool::new(false),
            interim: request.interim.take(),
            is_head: request.head.method == Method::HEAD,
            accepts_trailers: trailers::are_accepted(&request.head.headers),
            is_http2: request.head.version >= Version::HTTP_2,
            is_get: request.head.method == Method::GET,
            state: Mutex::new(State {
                request_read: false,
                cut_off: false,
                cancelled: false,
                warned: false,
                is_event_stream: false,
                request: std::mem::take(&mut request.body),
                reply_to: Some(reply_to),
                response: Progress::Waiting,
                promised_trailers: None,
                sending_file: false,
                head_may_change: false,
                debugged: false,
                task: None,
            }),
            waiters: Waiters::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client left before the response head.
    pub(crate) fn client_left(self: &Arc<Self>) {
        self.gone.store(true, Ordering::Release);
        self.event_loop
            .push(Job::Wake(Arc::clone(self) as Arc<dyn Wake>));
    }

    /// Runs the application for this request; on the loop's thread.
    pub(crate) fn start(self: &Arc<Self>, py: Python<'_>, request: &Request) {
        if self.gone.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = self.try_start(py, request) {
            self.ended(py, Some(&error));
        }
    }

    fn try_start(self: &Arc<Self>, py: Python<'_>, request: &Request) -> PyResult<()> {
        let scope = self.shared.http_scope(py, request, self.interim.as_ref())?;
        let coroutine = self.shared.call(py, scope, Arc::clone(self) as _)?;
        let task = self.event_loop.start_task(&coroutine)?;
        // Most applications that wait for nothing have finished within their first step.
        if task.call_method0(intern!(py, "done"))?.is_truthy()? {
            self.ended(py, raised(&task).as_ref());
            return Ok(());
        }
        self.lock().task = Some(task.clone().unbind());
        self.shared.running.add(self);
        let when_done = Bound::new(py, WhenDone(Arc::clone(self) as _))?;
        task.call_method1(intern!(py, "add_done_callback"), (when_done,))?;
        Ok(())
    }

    /// Whether the server ends the response although its client is there.
    fn is_dismissed(&self, state: &State) -> bool {
        state.is_event_stream && self.shared.running.is_draining()
    }

    /// The application has returned or raised: whatever it left undone is undone for good.
    fn ended(self: &Arc<Self>, py: Python<'_>, raised: Option<&PyErr>) {
        let mut state = self.lock();
        let task = state.task.take();
        let reply_to = state.reply_to.take();
        let progress = std::mem::replace(&mut state.response, Progress::Complete);
        let request = std::mem::take(&mut state.request);
        let State {
            cut_off,
            cancelled,
            warned,
            ..
        } = *state;
        let dismissed = self.is_dismissed(&state);
        drop(state);
        if task.is_some() {
            self.shared.running.remove(self);
        }
        drop((task, request));
        let sender = match &progress {
            Progress::Streaming(sender) | Progress::Ending(sender, _) => Some(sender),
            _ => None,
        };
        // One that was told so need not go on.
        let left = self.has_left()
            || warned
            || dismissed
            || sender.is_some_and(|sender| sender.is_disconnected() || sender.is_satisfied());
        if let Some(error) = raised {
            if cancelled && is_cancellation(py, error) {
                let app = &self.shared.name;
                info!(%app, "a task was cancelled: it did not end in time");
            } else {
                self.log(py, error, left || cut_off);
            }
        } else if !left && sender.is_some() {
            let app = &self.shared.name;
            error!(%app, "an application returned before its response was complete");
        }
        match progress {
            Progress::Complete => {}
            Progress::Waiting | Progress::Started(_) | Progress::Opening => {
                if let Some(reply_to) = reply_to {
                    let error = match raised {
                        _ if cut_off => AppError::Incomplete,
                        Some(_) => AppError::Raised,
                        None => AppError::Failed("it returned without a response".into()),
                    };
                    self.answer(reply_to, Err(error));
                }
            }
            Progress::Streaming(sender) if dismissed => sender.finish(),
            Progress::Streaming(sender) | Progress::Ending(sender, _) => {
                sender.abort("the application ended within its response");
            }
        }
        self.waiters.notify(py);
    }

    fn log(&self, py: Python<'_>, error: &PyErr, client_left: bool) {
        let app = &self.shared.name;
        if client_left && is_caused_by_os_error(py, error) {
            // What `send` raised because nobody listens any more, or what a framework made of it.
            debug!(%app, "the client left before the response was complete");
            return;
        }
        error!(%app, "an application raised\n{}", traceback(py, error).trim_end());
    }

    fn answer(&self, reply_to: ReplyTo, answer: Answer) {
        self.event_loop.answer(reply_to, answer);
    }

    fn take(self: &Arc<Self>, message: &Bound<'_, PyAny>) -> PyResult<Sent> {
        let (message, kind) = message::open(message)?;
        match kind.to_str()? {
            "http.response.start" => self.send_start(message),
            "http.response.body" => self.send_body(message),
            message::PATHSEND => self.send_file(message::PATHSEND, Part::of_path(message)),
            message::ZEROCOPYSEND => {
                self.send_file(message::ZEROCOPYSEND, Part::of_descriptor(message))
            }
            message::TRAILERS => self.send_trailers(message),
            message::EARLY_HINT => self.send_early_hint(message),
            message::DEBUG => self.send_debug(message),
            other => Err(unexpected(other, "an HTTP request knows no such message")),
        }
    }

    fn send_start(&self, message: &Bound<'_, PyDict>) -> PyResult<Sent> {
        let status = message::status(message, "http.response.start")?;
        let has_trailers = message::flag(message, intern!(message.py(), "trailers"))?;
        let headers = if has_trailers && self.accepts_trailers {
            message::headers_before_trailers(message)?
        } else {
            message::headers(message)?
        };
        let mut state = self.lock();
        match state.response {
            Progress::Started(_) if !state.head_may_change => Err(unexpected(
                "http.response.start",
                "the response has started",
            )),
            Progress::Waiting | Progress::Started(_) => {
                state.promised_trailers = has_trailers.then(|| {
                    let announcing = headers.get_all(TRAILER).iter();
                    announcing.map(|value| (TRAILER, value.clone())).collect()
                });
                state.response = Progress::Started(Head { status, headers });
                Ok(Sent::Done)
            }
            _ => Err(unexpected(
                "http.response.start",
                "the response has started",
            )),
        }
    }

    fn send_body(&self, message: &Bound<'_, PyDict>) -> PyResult<Sent> {
        let piece = message::body(message, &self.event_loop.lender)?;
        let more = message::flag(message, intern!(message.py(), "more_body"))?;
        let mut state = self.lock();
        match self.next(&mut state, "http.response.body")? {
            Next::First(head) => {
                let (reply_to, response) = self
                    .begin(state, head, piece, !more)
                    .ok_or_else(client_left)?;
                self.answer(reply_to, Ok(response));
                Ok(if more {
                    Sent::Streaming
                } else {
                    Sent::Complete
                })
            }
            Next::Further(mut sender) => {
                let pushed = sender.push(piece);
                state.response = Progress::Streaming(sender);
                pushed.map_err(|Disconnected| client_left())?;
                if more {
                    return Ok(Sent::MustWait);
                }
                end_body(state);
                Ok(Sent::Complete)
            }
        }
    }

    /// What a part of the body follows. The caller puts back what it leaves of it.
    fn next(&self, state: &mut State, kind: &str) -> PyResult<Next> {
        let why = match &state.response {
            Progress::Waiting => "`http.response.start` comes first",
            _ if state.sending_file => "a file is being sent",
            Progress::Ending(..) => "the body is complete, `http.response.trailers` comes next",
            Progress::Complete if self.has_left() => return Err(client_left()),
            Progress::Complete | Progress::Opening => "the response is complete",
            Progress::Started(_) | Progress::Streaming(_) => {
                return match std::mem::replace(&mut state.response, Progress::Complete) {
                    Progress::Started(head) if !self.has_left() => Ok(Next::First(head)),
                    Progress::Streaming(sender) if self.is_dismissed(state) => {
                        self.gone.store(true, Ordering::Release);
                        sender.finish();
                        Err(client_left())
                    }
                    Progress::Streaming(sender) => Ok(Next::Further(sender)),
                    _ => Err(client_left()),
                };
            }
        };
        Err(unexpected(kind, why))
    }

    /// The response with the first piece of its body, which may be all of it, and where it goes; `None`
    /// where nobody waits for it any more.
    fn begin(
        &self,
        mut state: MutexGuard<'_, State>,
        head: Head,
        piece: Bytes,
        is_all: bool,
    ) -> Option<(ReplyTo, Response)> {
        let reply_to = state.reply_to.take()?;
        if is_all && state.promised_trailers.is_none() {
            state.response = Progress::Complete;
            let request = take_unread(&mut state);
            drop(state);
            drop(request);
            return Some((reply_to, head.with(piece.into())));
        }
        state.is_event_stream = self.is_get && is_event_stream(&head.headers);
        let (mut sender, receiver) = body::channel(RESPONSE_BUFFER);
        if state.promised_trailers.is_some() && self.accepts_trailers {
            sender.promise_trailers();
        }
        // Fails only when the other end is gone, which is here.
        let _ = sender.push(piece);
        state.response = if is_all {
            Progress::Ending(sender, HeaderMap::new())
        } else {
            Progress::Streaming(sender)
        };
        Some((reply_to, head.with(receiver.into())))
    }

    fn send_file(self: &Arc<Self>, kind: &str, part: PyResult<Part>) -> PyResult<Sent> {
        let mut state = self.lock();
        let part = part.inspect_err(|_| state.head_may_change = true)?;
        let head = match self.next(&mut state, kind)? {
            Next::First(head) => {
                state.response = Progress::Opening;
                Some(head)
            }
            Next::Further(sender) => {
                state.response = Progress::Streaming(sender);
                if kind == message::PATHSEND {
                    return Err(unexpected(
                        kind,
                        "the file is all of a body, which has begun",
                    ));
                }
                None
            }
        };
        state.sending_file = true;
        drop(state);
        Ok(Sent::File(Sending::start(self, head, part)))
    }

    fn send_trailers(&self, message: &Bound<'_, PyDict>) -> PyResult<Sent> {
        let fields = message::trailers(message)?;
        let more = message::flag(message, intern!(message.py(), "more_trailers"))?;
        let mut state = self.lock();
        let (sender, mut trailers) =
            match std::mem::replace(&mut state.response, Progress::Complete) {
                Progress::Ending(sender, _) if sender.is_disconnected() => {
                    return Err(client_left());
                }
                Progress::Ending(sender, trailers) => (sender, trailers),
                Progress::Complete if self.has_left() => return Err(client_left()),
                other => {
                    let why = match (&state.promised_trailers, &other) {
                        (None, _) => "`http.response.start` did not say `trailers`",
                        (_, Progress::Complete) => "the response is complete",
                        _ => "the body is not complete",
                    };
                    state.response = other;
                    return Err(unexpected(message::TRAILERS, why));
                }
            };
        for (name, value) in &fields {
            if trailers.try_append(name, value.clone()).is_err() {
                return Err(PyValueError::new_err(
                    "a response cannot have so many trailers",
                ));
            }
        }
        if more {
            state.response = Progress::Ending(sender, trailers);
            return Ok(Sent::Done);
        }
        let announced = state.promised_trailers.take().unwrap_or_default();
        let request = take_unread(&mut state);
        drop(state);
        drop(request);
        if self.accepts_trailers && !trailers.is_empty() {
            if !self.is_http2 {
                self.check_announced(&announced, &trailers);
            }
            sender.finish_with_trailers(trailers);
        } else {
            sender.finish();
        }
        Ok(Sent::Complete)
    }

    /// On HTTP/1.1 hyper leaves out what the head did not announce, which nobody would find.
    fn check_announced(&self, announced: &HeaderMap, trailers: &HeaderMap) {
        for name in trailers.keys() {
            if !trailers::is_announced(announced, name) {
                let app = &self.shared.name;
                warn!(%app, %name, "a trailer was not sent: HTTP/1.1 wants it named in the header `Trailer`");
            }
        }
    }

    /// The specification has hints after the start, which is not sent before the body begins; before it they
    /// do as well. After the head there is no place for them, and a server may ignore them.
    fn send_early_hint(&self, message: &Bound<'_, PyDict>) -> PyResult<Sent> {
        let links = message::links(message)?;
        let Some(interim) = &self.interim else {
            return Err(not_offered(message::EARLY_HINT));
        };
        match self.lock().response {
            Progress::Complete if self.has_left() => return Err(client_left()),
            Progress::Complete => {
                return Err(unexpected(message::EARLY_HINT, "the response is complete"));
            }
            Progress::Waiting | Progress::Started(_) | Progress::Opening if !links.is_empty() => {
                interim.early_hints(&links);
            }
            _ => {}
        }
        Ok(Sent::Done)
    }

    fn send_debug(&self, message: &Bound<'_, PyDict>) -> PyResult<Sent> {
        if !tracing::enabled!(Level::DEBUG) {
            return Err(not_offered(message::DEBUG));
        }
        let info = message::debug_info(message)?;
        let mut state = self.lock();
        if state.debugged || !matches!(state.response, Progress::Waiting) {
            let why = "it comes once, before `http.response.start`";
            return Err(unexpected(message::DEBUG, why));
        }
        state.debugged = true;
        drop(state);
        debug!(app = %self.shared.name, info, "an application says of its response");
        Ok(Sent::Done)
    }

    /// The client left before the response head.
    fn has_left(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    fn poll_receive(self: &Arc<Self>, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let waker = Waker::from(Arc::clone(self));
        let received = self.poll_received(&mut Context::from_waker(&waker));
        // No lock is held any more: whatever makes an object may run a finalizer of the application.
        match received {
            Poll::Pending => Ok(None),
            Poll::Ready(Received::Body(data, more)) => {
                message::http_request(py, &data, more).map(Some)
            }
            Poll::Ready(Received::Disconnect) => message::http_disconnect(py).map(Some),
        }
    }

    fn poll_received(&self, cx: &mut Context<'_>) -> Poll<Received> {
        let mut state = self.lock();
        if self.gone.load(Ordering::Acquire)
            || state.warned
            || matches!(state.response, Progress::Complete)
            || self.is_dismissed(&state)
        {
            return Poll::Ready(Received::Disconnect);
        }
        if !state.request_read {
            return match ready!(state.request.poll_data(cx)) {
                Some(Ok(data)) => {
                    let more = !state.request.is_finished();
                    state.request_read = !more;
                    Poll::Ready(Received::Body(data, more))
                }
                None => {
                    state.request_read = true;
                    Poll::Ready(Received::Body(Bytes::new(), false))
                }
                Some(Err(error)) => {
                    debug!(%error, "a request body was not complete");
                    state.cut_off = true;
                    Poll::Ready(Received::Disconnect)
                }
            };
        }
        if let Progress::Streaming(sender) | Progress::Ending(sender, _) = &mut state.response {
            ready!(sender.poll_disconnected(cx));
            return Poll::Ready(Received::Disconnect);
        }
        Poll::Pending
    }

    fn poll_send(self: &Arc<Self>, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let waker = Waker::from(Arc::clone(self));
        let mut cx = Context::from_waker(&waker);
        let ready = {
            let mut state = self.lock();
            let dismissed = self.is_dismissed(&state);
            match &mut state.response {
                Progress::Streaming(_) if dismissed => return Err(client_left()),
                Progress::Streaming(sender) => sender.poll_ready(&mut cx),
                _ => Poll::Ready(Ok(())),
            }
        };
        match ready {
            Poll::Pending => Ok(None),
            Poll::Ready(Ok(())) => Ok(Some(py.None())),
            Poll::Ready(Err(_)) => Err(client_left()),
        }
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let of_events = |kind: &[u8]| {
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    };
    let kind = headers.get(CONTENT_TYPE);
    kind.is_some_and(|kind| of_events(kind.as_bytes()))
}

/// What a task on the I/O runtime that sends a file asks for.
impl Exchange {
    /// Whether the client gets what it is sent of the body; `head` is what was not sent yet.
    pub(crate) fn wants_body(&self, head: Option<&Head>) -> bool {
        match (head, &self.lock().response) {
            (Some(head), _) => !self.is_head && !head.is_bodiless(),
            (None, Progress::Streaming(sender)) => !sender.is_satisfied(),
            (None, _) => false,
        }
    }

    /// Nothing was sent of a file: the head, if it waited for it, waits for something else.
    pub(crate) fn file_missing(&self, head: Option<Head>) {
        let mut state = self.lock();
        if let (Progress::Opening, Some(head)) = (&state.response, head) {
            state.response = Progress::Started(head);
            state.head_may_change = true;
        }
    }

    /// Sends the first piece of a file, after the head if it waits for that.
    pub(crate) fn begin_file(&self, head: Option<Head>, first: First) -> Result<(), Failure> {
        let Some(mut head) = head else {
            return self.push(first.piece);
        };
        let mut state = self.lock();
        if !matches!(state.response, Progress::Opening) {
            return Err(Failure::Over);
        }
        if self.has_left() {
            state.response = Progress::Complete;
            return Err(Failure::ClientLeft);
        }
        let is_rest = !first.more_body;
        if let Some(length) = first.length
            && is_rest
            && state.promised_trailers.is_none()
            && !head.is_bodiless()
        {
            head.headers
                .entry(CONTENT_LENGTH)
                .or_insert_with(|| length.into());
        }
        let is_all = first.is_all && is_rest;
        let begun = self.begin(state, head, first.piece, is_all);
        let (reply_to, response) = begun.ok_or(Failure::ClientLeft)?;
        // This is an I/O thread, which wakes nobody for it. An error means that the client has gone.
        let _ = reply_to.send(Ok(response));
        Ok(())
    }

    pub(crate) fn push(&self, piece: Bytes) -> Result<(), Failure> {
        match &mut self.lock().response {
            Progress::Streaming(sender) => sender
                .push(piece)
                .map_err(|Disconnected| Failure::ClientLeft),
            _ => Err(Failure::Over),
        }
    }

    /// Returns when the client has taken enough of what came before.
    pub(crate) async fn room(&self) -> Result<(), Failure> {
        poll_fn(|cx| match &mut self.lock().response {
            Progress::Streaming(sender) => sender
                .poll_ready(cx)
                .map_err(|Disconnected| Failure::ClientLeft),
            _ => Poll::Ready(Err(Failure::Over)),
        })
        .await
    }

    /// The last piece of the body was pushed.
    pub(crate) fn end_body(&self) {
        end_body(self.lock());
    }

    pub(crate) fn abort(&self, why: &str) {
        let mut state = self.lock();
        match std::mem::replace(&mut state.response, Progress::Complete) {
            Progress::Streaming(sender) => sender.abort(why),
            other => state.response = other,
        }
    }

    /// The task has done what it could: other messages may follow.
    pub(crate) fn file_ended(&self) {
        self.lock().sending_file = false;
    }
}

/// What a part of the body follows.
enum Next {
    /// The head, which was not sent.
    First(Head),
    Further(body::Sender),
}

/// Ends a body well, or lets trailers follow.
fn end_body(mut state: MutexGuard<'_, State>) {
    match std::mem::replace(&mut state.response, Progress::Complete) {
        Progress::Streaming(sender) if state.promised_trailers.is_some() => {
            state.response = Progress::Ending(sender, HeaderMap::new());
        }
        Progress::Streaming(sender) => {
            let request = take_unread(&mut state);
            drop(state);
            drop(request);
            sender.finish();
        }
        other => state.response = other,
    }
}

/// What the application gets next.
enum Received {
    /// A piece of the request body, and whether there is more.
    Body(Bytes, bool),
    Disconnect,
}

/// The request body, where the response is complete and it was not read to its end: a connection waits
/// for that before it takes the next request, and the application may have more to do.
fn take_unread(state: &mut State) -> Body {
    if state.request_read || state.request.is_finished() {
        return Body::empty();
    }
    std::mem::take(&mut state.request)
}

/// Whether an `OSError` is the exception or one of those that it came of.
fn is_caused_by_os_error(py: Python<'_>, error: &PyErr) -> bool {
    let mut error = error.value(py).clone().into_any();
    // Applications can make circles of causes.
    for _ in 0..16 {
        if error.is_instance_of::<PyOSError>() {
            return true;
        }
        let next = ["__cause__", "__context__"]
            .into_iter()
            .find_map(|name| error.getattr(name).ok().filter(|next| !next.is_none()));
        match next {
            Some(next) => error = next,
            None => return false,
        }
    }
    false
}

/// What became of a message.
enum Sent {
    Done,
    /// The first of several pieces was queued: whoever waits in `receive` has to watch the response now.
    Streaming,
    /// A piece was queued; the application goes on when there is room.
    MustWait,
    /// A file is on its way; the application goes on when it was read.
    File(Sending),
    /// The response is complete: whoever waits in `receive` learns it.
    Complete,
}

fn not_offered(kind: &str) -> PyErr {
    unexpected(kind, "`extensions` of the scope does not have it")
}

/// ASGI 2.4: `send` after a disconnect raises a subclass of `OSError`.
pub(crate) fn client_left() -> PyErr {
    PyOSError::new_err("the client has disconnected")
}

impl Served for Exchange {
    fn notify(&self, py: Python<'_>, notice: Notice) {
        if notice == Notice::LastCall {
            self.lock().warned = true;
        }
        self.waiters.notify(py);
    }

    fn cancel(&self, py: Python<'_>) {
        let task = {
            let mut state = self.lock();
            state.cancelled = true;
            state.task.as_ref().map(|task| task.clone_ref(py))
        };
        if let Some(task) = task
            && let Err(error) = task.call_method0(py, intern!(py, "cancel"))
        {
            error!(app = %self.shared.name, error = %summary(py, &error), "a task cannot be cancelled");
        }
    }
}

impl std::task::Wake for Exchange {
    fn wake(self: Arc<Self>) {
        let event_loop = Arc::clone(&self.event_loop);
        event_loop.push(Job::Wake(self));
    }
}

impl Wake for Exchange {
    fn wake(&self, py: Python<'_>) {
        self.waiters.notify(py);
    }
}

impl Source for Arc<Exchange> {
    fn poll(&self, py: Python<'_>, operation: Operation) -> PyResult<Option<Py<PyAny>>> {
        match operation {
            Operation::Receive => self.poll_receive(py),
            Operation::Send => self.poll_send(py),
        }
    }

    fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    fn event_loop(&self) -> &EventLoop {
        &self.event_loop
    }
}

impl Runs for Exchange {
    fn ended(self: Arc<Self>, py: Python<'_>, raised: Option<&PyErr>) {
        Exchange::ended(&self, py, raised);
    }
}

impl Cycle for Exchange {
    fn receive<'py>(self: Arc<Self>, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, Arc::new(self), Operation::Receive)
    }

    fn send<'py>(self: Arc<Self>, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = message.py();
        let sent = self.take(message)?;
        if matches!(sent, Sent::Complete | Sent::Streaming) {
            self.waiters.notify(py);
        }
        match sent {
            Sent::Done | Sent::Complete => done(py),
            Sent::File(sending) => awaitable(py, Arc::new(sending), Operation::Send),
            Sent::Streaming | Sent::MustWait => awaitable(py, Arc::new(self), Operation::Send),
        }
    }
}

/// Says that the client has left unless it is told that an answer came.
pub(crate) struct LeaveGuard {
    exchange: Option<Arc<Exchange>>,
}

impl LeaveGuard {
    pub(crate) fn new(exchange: Arc<Exchange>) -> Self {
        Self {
            exchange: Some(exchange),
        }
    }

    pub(crate) fn answered(mut self) {
        self.exchange = None;
    }
}

impl Drop for LeaveGuard {
    fn drop(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.client_left();
        }
    }
}
