//! One HTTP request of an ASGI application: its state between `receive` and `send`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use http::{HeaderMap, StatusCode};
use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tracing::{debug, error};
use twinspan::app::{AppError, Request};
use twinspan::body::{self, Body};
use twinspan_bridge::errors::{summary, traceback};
use twinspan_bridge::head;
use twinspan_bridge::outbox::{Answer, ReplyTo};

use crate::application::Shared;
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
    state: Mutex<State>,
    waiters: Waiters,
}

struct State {
    request: Body,
    request_read: bool,
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
        request: Body,
        reply_to: ReplyTo,
    ) -> Arc<Self> {
        Arc::new(Self {
            shared,
            event_loop,
            gone: AtomicBool::new(false),
            state: Mutex::new(State {
                request_read: false,
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
        let finished = cycle.getattr(intern!(py, "finished"))?;
        task.call_method1(intern!(py, "add_done_callback"), (finished,))?;
        Ok(())
    }

    fn finished(&self, task: &Bound<'_, PyAny>) {
        let py = task.py();
        let result = task.call_method0(intern!(py, "result"));
        self.ended(py, result.err().as_ref());
    }

    /// The application has returned or raised: whatever it left undone is undone for good.
    fn ended(&self, py: Python<'_>, raised: Option<&PyErr>) {
        let mut state = self.lock();
        let task = state.task.take();
        let reply_to = state.reply_to.take();
        let progress = std::mem::replace(&mut state.response, Progress::Complete);
        let request = std::mem::take(&mut state.request);
        drop(state);
        drop((task, request));
        if let Some(error) = raised {
            let left = self.gone.load(Ordering::Acquire)
                || matches!(&progress, Progress::Streaming(sender) if sender.is_disconnected());
            self.log(py, error, left);
        }
        match progress {
            Progress::Complete => {}
            Progress::Waiting | Progress::Started(..) => {
                if let Some(reply_to) = reply_to {
                    let problem = match raised {
                        Some(error) => summary(py, error),
                        None => "the application returned without a response".to_owned(),
                    };
                    self.answer(reply_to, Err(AppError::Failed(problem)));
                }
            }
            Progress::Streaming(sender) => {
                sender.abort("the application ended within its response");
            }
        }
        self.waiters.notify(py);
    }

    fn log(&self, py: Python<'_>, error: &PyErr, client_left: bool) {
        let app = &self.shared.name;
        if client_left && error.is_instance_of::<PyOSError>(py) {
            // What `send` raised because nobody listens any more.
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
                    drop(state);
                    let response = head::response(status, headers, piece.into());
                    self.answer(reply_to, Ok(response));
                    return Ok(Sent::Complete);
                }
                let (mut sender, receiver) = body::channel(RESPONSE_BUFFER);
                let pushed = sender.push(piece);
                state.response = Progress::Streaming(sender);
                drop(state);
                let response = head::response(status, headers, receiver.into());
                self.answer(reply_to, Ok(response));
                pushed.map_err(|_| client_left())?;
                Ok(Sent::MustWait)
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
                    drop(state);
                    sender.finish();
                    Ok(Sent::Complete)
                }
            }
        }
    }

    fn poll_receive(self: &Arc<Self>, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let waker = Waker::from(Arc::clone(self));
        let mut cx = Context::from_waker(&waker);
        let mut state = self.lock();
        if self.gone.load(Ordering::Acquire) || matches!(state.response, Progress::Complete) {
            return message::http_disconnect(py).map(Some);
        }
        if !state.request_read {
            return match state.request.poll_data(&mut cx) {
                Poll::Pending => Ok(None),
                Poll::Ready(Some(Ok(data))) => {
                    let more = !state.request.is_finished();
                    state.request_read = !more;
                    drop(state);
                    message::http_request(py, &data, more).map(Some)
                }
                Poll::Ready(None) => {
                    state.request_read = true;
                    drop(state);
                    message::http_request(py, b"", false).map(Some)
                }
                Poll::Ready(Some(Err(error))) => {
                    drop(state);
                    debug!(%error, "a request body was not complete");
                    message::http_disconnect(py).map(Some)
                }
            };
        }
        if let Progress::Streaming(sender) = &mut state.response
            && sender.poll_disconnected(&mut cx).is_ready()
        {
            return message::http_disconnect(py).map(Some);
        }
        Ok(None)
    }

    fn poll_send(self: &Arc<Self>, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let waker = Waker::from(Arc::clone(self));
        let mut cx = Context::from_waker(&waker);
        match &mut self.lock().response {
            Progress::Streaming(sender) => match sender.poll_ready(&mut cx) {
                Poll::Pending => Ok(None),
                Poll::Ready(Ok(())) => Ok(Some(py.None())),
                Poll::Ready(Err(_)) => Err(client_left()),
            },
            _ => Ok(Some(py.None())),
        }
    }
}

/// What became of a message.
enum Sent {
    Done,
    /// A piece was queued; the application goes on when there is room.
    MustWait,
    /// The response is complete: whoever waits in `receive` learns it.
    Complete,
}

/// ASGI 2.4: `send` after a disconnect raises a subclass of `OSError`.
fn client_left() -> PyErr {
    PyOSError::new_err("the client has disconnected")
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
        match self.exchange.send(message)? {
            Sent::Done => done(py),
            Sent::Complete => {
                self.exchange.waiters.notify(py);
                done(py)
            }
            Sent::MustWait => {
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
