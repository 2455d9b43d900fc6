//! One HTTP request of an ASGI application: its state between `receive` and `send`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, StatusCode};
use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tracing::{debug, error, info};
use twinspan::app::{AppError, Notice, Request};
use twinspan::body::{self, Body};
use twinspan_bridge::errors::{is_cancellation, summary, traceback};
use twinspan_bridge::head;
use twinspan_bridge::outbox::{Answer, ReplyTo};

use crate::application::{Served, Shared};
use crate::awaitable::{Operation, Source, Waiters, awaitable, done};
use crate::event_loop::{EventLoop, Job, Wake};
use crate::message::{self, unexpected};

/// Bytes of a streamed response that wait for the client before `send` holds the application back.
const RESPONSE_BUFFER: usize = 64 * 1024;

/// One request between the I/O thread and the application.
pub(crate) struct Exchange {
    shared: Arc<Shared>,
    event_loop: Arc<EventLoop>,
    /// The client left before the response head.
    gone: AtomicBool,
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
    /// asyncio keeps only weak references to its tasks.
    task: Option<Py<PyAny>>,
}

enum Progress {
    /// Nothing was sent.
    Waiting,
    /// The head waits for the first piece of the body.
    Started(StatusCode, HeaderMap),
    Streaming(body::Sender),
    Complete,
}

impl Exchange {
    pub(crate) fn new(
        shared: Arc<Shared>,
        event_loop: Arc<EventLoop>,
        head: &Request,
        request: Body,
        reply_to: ReplyTo,
    ) -> Arc<Self> {
        Arc::new(Self {
            shared,
            event_loop,
            gone: AtomicBool::new(false),
            is_get: head.head.method == Method::GET,
            state: Mutex::new(State {
                request_read: false,
                cut_off: false,
                cancelled: false,
                warned: false,
                is_event_stream: false,
                request,
                reply_to: Some(reply_to),
                response: Progress::Waiting,
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
        let scope = self.shared.http_scope(py, request)?;
        let cycle = Bound::new(
            py,
            Cycle {
                exchange: Arc::clone(self),
            },
        )?;
        let coroutine = self.shared.call(py, scope, cycle.as_any())?;
        let task = self.event_loop.start_task(&coroutine)?;
        // Most applications that wait for nothing have finished within their first step.
        if task.call_method0(intern!(py, "done"))?.is_truthy()? {
            self.finished(&task);
            return Ok(());
        }
        self.lock().task = Some(task.clone().unbind());
        self.shared.running.add(self);
        let finished = cycle.getattr(intern!(py, "finished"))?;
        task.call_method1(intern!(py, "add_done_callback"), (finished,))?;
        Ok(())
    }

    fn finished(self: &Arc<Self>, task: &Bound<'_, PyAny>) {
        let py = task.py();
        let result = task.call_method0(intern!(py, "result"));
        self.ended(py, result.err().as_ref());
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
        let left = self.gone.load(Ordering::Acquire)
            || warned
            || matches!(&progress, Progress::Streaming(sender) if sender.is_disconnected() || sender.is_satisfied());
        if let Some(error) = raised {
            if cancelled && is_cancellation(py, error) {
                let app = &self.shared.name;
                info!(%app, "a task was cancelled: it did not end in time");
            } else {
                self.log(py, error, left || cut_off || dismissed);
            }
        } else if !dismissed && !left && matches!(&progress, Progress::Streaming(_)) {
            let app = &self.shared.name;
            error!(%app, "an application returned before its response was complete");
        }
        match progress {
            Progress::Complete => {}
            Progress::Waiting | Progress::Started(..) => {
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
            Progress::Streaming(sender) => {
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

    fn send(self: &Arc<Self>, message: &Bound<'_, PyAny>) -> PyResult<Sent> {
        let (message, kind) = message::open(message)?;
        match kind.to_str()? {
            "http.response.start" => self.send_start(message),
            "http.response.body" => self.send_body(message),
            other => Err(unexpected(other, "an HTTP request knows no such message")),
        }
    }

    fn send_start(&self, message: &Bound<'_, PyDict>) -> PyResult<Sent> {
        let status = message::status(message, "http.response.start")?;
        let headers = message::headers(message)?;
        let mut state = self.lock();
        match state.response {
            Progress::Waiting => {
                state.response = Progress::Started(status, headers);
                Ok(Sent::Done)
            }
            _ => Err(unexpected(
                "http.response.start",
                "the response has started",
            )),
        }
    }

    fn send_body(self: &Arc<Self>, message: &Bound<'_, PyDict>) -> PyResult<Sent> {
        let piece = message::body(message, &self.event_loop.lender)?;
        let more = message::more_body(message)?;
        let mut state = self.lock();
        match std::mem::replace(&mut state.response, Progress::Complete) {
            Progress::Waiting => {
                state.response = Progress::Waiting;
                Err(unexpected(
                    "http.response.body",
                    "`http.response.start` comes first",
                ))
            }
            Progress::Complete if self.gone.load(Ordering::Acquire) => Err(client_left()),
            Progress::Complete => Err(unexpected("http.response.body", "the response is complete")),
            Progress::Started(status, headers) => {
                let Some(reply_to) = state.reply_to.take() else {
                    return Err(client_left());
                };
                if self.gone.load(Ordering::Acquire) {
                    return Err(client_left());
                }
                if !more {
                    let request = take_unread(&mut state);
                    drop(state);
                    drop(request);
                    let response = head::response(status, headers, piece.into());
                    self.answer(reply_to, Ok(response));
                    return Ok(Sent::Complete);
                }
                state.is_event_stream = self.is_get && is_event_stream(&headers);
                let (mut sender, receiver) = body::channel(RESPONSE_BUFFER);
                let pushed = sender.push(piece);
                state.response = Progress::Streaming(sender);
                drop(state);
                let response = head::response(status, headers, receiver.into());
                self.answer(reply_to, Ok(response));
                pushed.map_err(|_| client_left())?;
                Ok(Sent::Streaming)
            }
            Progress::Streaming(sender) if self.is_dismissed(&state) => {
                self.gone.store(true, Ordering::Release);
                drop(state);
                sender.finish();
                Err(client_left())
            }
            Progress::Streaming(mut sender) => {
                if sender.push(piece).is_err() {
                    state.response = Progress::Streaming(sender);
                    return Err(client_left());
                }
                if more {
                    state.response = Progress::Streaming(sender);
                    Ok(Sent::MustWait)
                } else {
                    let request = take_unread(&mut state);
                    drop(state);
                    drop(request);
                    sender.finish();
                    Ok(Sent::Complete)
                }
            }
        }
    }

    fn poll_receive(self: &Arc<Self>, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let waker = Waker::from(Arc::clone(self));
        let received = self.receive(&mut Context::from_waker(&waker));
        // No lock is held any more: whatever makes an object may run a finalizer of the application.
        match received {
            Poll::Pending => Ok(None),
            Poll::Ready(Received::Body(data, more)) => {
                message::http_request(py, &data, more).map(Some)
            }
            Poll::Ready(Received::Disconnect) => message::http_disconnect(py).map(Some),
        }
    }

    fn receive(&self, cx: &mut Context<'_>) -> Poll<Received> {
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
        if let Progress::Streaming(sender) = &mut state.response {
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
    /// The response is complete: whoever waits in `receive` learns it.
    Complete,
}

/// ASGI 2.4: `send` after a disconnect raises a subclass of `OSError`.
fn client_left() -> PyErr {
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

/// The Python face of an exchange: `receive` and `send`.
#[pyclass(frozen)]
struct Cycle {
    exchange: Arc<Exchange>,
}

#[pymethods]
impl Cycle {
    fn receive<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let source = Arc::new(Arc::clone(&self.exchange));
        awaitable(py, source, Operation::Receive)
    }

    fn send<'py>(&self, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = message.py();
        let sent = self.exchange.send(message)?;
        if matches!(sent, Sent::Complete | Sent::Streaming) {
            self.exchange.waiters.notify(py);
        }
        match sent {
            Sent::Done | Sent::Complete => done(py),
            Sent::Streaming | Sent::MustWait => {
                let source = Arc::new(Arc::clone(&self.exchange));
                awaitable(py, source, Operation::Send)
            }
        }
    }

    /// Called by asyncio with the finished task.
    fn finished(&self, task: &Bound<'_, PyAny>) {
        self.exchange.finished(task);
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
