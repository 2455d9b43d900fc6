//! One WebSocket connection of an ASGI application: its state between `receive` and `send`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use tokio::sync::oneshot;
use tracing::{debug, error, info};
use twinspan::app::{AppError, Notice};
use twinspan::body::{self, Body};
use twinspan::ws::{AnswerError, Close, CloseError, Closed, Handshake, Message, Receiver, Sender};
use twinspan_bridge::errors::{is_cancellation, summary, traceback};
use twinspan_bridge::head;

use crate::application::{Served, Shared};
use crate::awaitable::{Operation, Source, Waiters, awaitable, done};
use crate::callables::{Cycle, Runs, WhenDone};
use crate::event_loop::{EventLoop, Job, Wake};
use crate::message::{self, unexpected};

/// Bytes of a streamed denial that wait for the client before `send` holds the application back.
const DENIAL_BUFFER: usize = 64 * 1024;

/// One connection between the I/O thread and the application.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    event_loop: Arc<EventLoop>,
    state: Mutex<State>,
    waiters: Waiters,
}

struct State {
    /// `receive` has given `websocket.connect`.
    connect_read: bool,
    phase: Phase,
    /// asyncio keeps only weak references to its tasks.
    task: Option<Py<PyAny>>,
    /// The task was asked to end.
    cancelled: bool,
    /// Told when the application has returned or raised.
    over: Option<oneshot::Sender<Result<(), AppError>>>,
}

enum Phase {
    /// The client waits for an answer.
    Connecting(Handshake),
    /// The head of a denial waits for the first piece of its body.
    Denying(Handshake, StatusCode, HeaderMap),
    /// A denial is on its way.
    DenialBody(body::Sender),
    /// Accepted; closed when the halves say so.
    Open(Sender, Receiver),
    /// Denied, or left without an answer.
    Over,
}

impl Connection {
    /// Runs the application for a handshake; on the loop's thread.
    pub(crate) fn start(
        py: Python<'_>,
        shared: Arc<Shared>,
        event_loop: Arc<EventLoop>,
        mut handshake: Handshake,
        over: oneshot::Sender<Result<(), AppError>>,
    ) {
        if handshake
            .poll_gone(&mut Context::from_waker(Waker::noop()))
            .is_ready()
        {
            let _ = over.send(Ok(()));
            return;
        }
        let scope = shared.websocket_scope(py, &handshake);
        let connection = Arc::new(Self {
            shared,
            event_loop,
            state: Mutex::new(State {
                connect_read: false,
                phase: Phase::Connecting(handshake),
                task: None,
                cancelled: false,
                over: Some(over),
            }),
            waiters: Waiters::default(),
        });
        let started = scope.and_then(|scope| connection.call(py, scope));
        if let Err(error) = started {
            connection.ended(py, Some(&error));
        }
    }

    fn call(self: &Arc<Self>, py: Python<'_>, scope: Bound<'_, PyDict>) -> PyResult<()> {
        let coroutine = self.shared.call(py, scope, Arc::clone(self) as _)?;
        let task = self.event_loop.start_task(&coroutine)?;
        self.lock().task = Some(task.clone().unbind());
        self.shared.running.add(self);
        let when_done = Bound::new(py, WhenDone(Arc::clone(self) as _))?;
        task.call_method1(intern!(py, "add_done_callback"), (when_done,))?;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The application has returned or raised: whatever it left undone is undone for good.
    fn ended(self: &Arc<Self>, py: Python<'_>, raised: Option<&PyErr>) {
        let (task, phase, over, cancelled) = {
            let mut state = self.lock();
            let phase = std::mem::replace(&mut state.phase, Phase::Over);
            (state.task.take(), phase, state.over.take(), state.cancelled)
        };
        self.shared.running.remove(self);
        drop(task);
        let mut client_left = false;
        match phase {
            // Unanswered: the client gets 500.
            Phase::Connecting(mut handshake) | Phase::Denying(mut handshake, ..) => {
                let mut cx = Context::from_waker(Waker::noop());
                client_left = handshake.poll_gone(&mut cx).is_ready();
            }
            Phase::DenialBody(sender) => {
                client_left = sender.is_disconnected();
                sender.abort("the application ended within its denial");
            }
            Phase::Open(mut sender, _) => {
                let code = if raised.is_some() { 1011 } else { 1000 };
                client_left = sender.close(code, "").is_err();
            }
            Phase::Over => {}
        }
        if let Some(error) = raised {
            if cancelled && is_cancellation(py, error) {
                let app = &self.shared.name;
                info!(%app, "a task was cancelled: it did not end in time");
            } else {
                self.log(py, error, client_left);
            }
        }
        if let Some(over) = over {
            let _ = over.send(match raised {
                Some(_) if !client_left => Err(AppError::Raised),
                _ => Ok(()),
            });
        }
        self.waiters.notify(py);
    }

    fn log(&self, py: Python<'_>, error: &PyErr, client_left: bool) {
        let app = &self.shared.name;
        if client_left && error.is_instance_of::<PyOSError>(py) {
            // What `send` raised because nobody listens any more.
            debug!(%app, "a WebSocket was closed while the application was sending");
            return;
        }
        error!(%app, "an application raised\n{}", traceback(py, error).trim_end());
    }

    fn take(self: &Arc<Self>, message: &Bound<'_, PyAny>) -> PyResult<()> {
        let (message, kind) = message::open(message)?;
        match kind.to_str()? {
            "websocket.send" => return self.send_message(message),
            "websocket.accept" => self.accept(message),
            "websocket.close" => self.close(message),
            "websocket.http.response.start" => self.start_denial(message),
            "websocket.http.response.body" => self.send_denial(message),
            other => Err(unexpected(other, "a WebSocket knows no such message")),
        }?;
        // A task may wait in `receive` since before this answer, for what can no longer come.
        self.waiters.notify(message.py());
        Ok(())
    }

    fn accept(&self, message: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = message.py();
        let subprotocol = optional_text(message, intern!(py, "subprotocol"))?;
        let headers = message::headers(message)?;
        let mut state = self.lock();
        match &mut state.phase {
            Phase::Connecting(handshake) => {
                let (sender, receiver) = handshake
                    .accept(subprotocol.as_deref(), headers)
                    .map_err(|error| refused(&error))?;
                state.phase = Phase::Open(sender, receiver);
                Ok(())
            }
            Phase::Over => Err(closed()),
            Phase::Open(..) => Err(unexpected("websocket.accept", "the connection is accepted")),
            Phase::Denying(..) | Phase::DenialBody(_) => {
                Err(unexpected("websocket.accept", "the connection is denied"))
            }
        }
    }

    fn send_message(&self, message: &Bound<'_, PyDict>) -> PyResult<()> {
        let outgoing = self.outgoing(message)?;
        match &mut self.lock().phase {
            Phase::Open(sender, _) => sender.push(outgoing).map_err(|Closed| closed()),
            Phase::Over => Err(closed()),
            Phase::Connecting(_) => Err(unexpected(
                "websocket.send",
                "`websocket.accept` comes first",
            )),
            Phase::Denying(..) | Phase::DenialBody(_) => {
                Err(unexpected("websocket.send", "the connection is denied"))
            }
        }
    }

    fn outgoing(&self, message: &Bound<'_, PyDict>) -> PyResult<Message> {
        let py = message.py();
        let text = optional_text(message, intern!(py, "text"))?;
        let bytes = message
            .get_item(intern!(py, "bytes"))?
            .filter(|bytes| !bytes.is_none());
        match (text, bytes) {
            (Some(text), None) => Ok(Message::Text(text.into())),
            (None, Some(bytes)) => {
                let bytes = self.event_loop.lender.bytes(&bytes, "`bytes`")?;
                Ok(Message::Binary(bytes))
            }
            (None, None) => Err(PyValueError::new_err(
                "`websocket.send` must have `text` or `bytes`",
            )),
            (Some(_), Some(_)) => Err(PyValueError::new_err(
                "`websocket.send` must not have both `text` and `bytes`",
            )),
        }
    }

    fn close(&self, message: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = message.py();
        let code = match message.get_item(intern!(py, "code"))? {
            Some(code) if !code.is_none() => code
                .extract()
                .map_err(|_| PyTypeError::new_err("`code` must be an int that is a close code"))?,
            _ => 1000,
        };
        let reason = optional_text(message, intern!(py, "reason"))?.unwrap_or_default();
        let mut state = self.lock();
        match &mut state.phase {
            Phase::Open(sender, _) => sender.close(code, &reason).map_err(|error| match error {
                CloseError::Closed(Closed) => closed(),
                CloseError::Code(_) | CloseError::Reason(_) => {
                    PyValueError::new_err(error.to_string())
                }
            }),
            Phase::Connecting(handshake) => {
                let denial = head::response(StatusCode::FORBIDDEN, HeaderMap::new(), Body::empty());
                handshake.deny(denial).map_err(|error| refused(&error))?;
                state.phase = Phase::Over;
                Ok(())
            }
            Phase::Over => Err(closed()),
            Phase::Denying(..) | Phase::DenialBody(_) => {
                Err(unexpected("websocket.close", "the connection is denied"))
            }
        }
    }

    /// The denial response extension.
    fn start_denial(&self, message: &Bound<'_, PyDict>) -> PyResult<()> {
        const KIND: &str = "websocket.http.response.start";
        let status = message::status(message, KIND)?;
        Handshake::check_denial(status).map_err(|error| refused(&error))?;
        let headers = message::headers(message)?;
        let mut state = self.lock();
        match std::mem::replace(&mut state.phase, Phase::Over) {
            Phase::Connecting(handshake) => {
                state.phase = Phase::Denying(handshake, status, headers);
                Ok(())
            }
            Phase::Over => Err(closed()),
            other => {
                let why = match &other {
                    Phase::Open(..) => "the connection is accepted",
                    _ => "the response has started",
                };
                state.phase = other;
                Err(unexpected(KIND, why))
            }
        }
    }

    fn send_denial(&self, message: &Bound<'_, PyDict>) -> PyResult<()> {
        const KIND: &str = "websocket.http.response.body";
        let piece = message::body(message, &self.event_loop.lender)?;
        let more = message::flag(message, intern!(message.py(), "more_body"))?;
        let mut state = self.lock();
        match std::mem::replace(&mut state.phase, Phase::Over) {
            Phase::Denying(mut handshake, status, headers) => {
                let body = if more {
                    let (mut sender, receiver) = body::channel(DENIAL_BUFFER);
                    push(&mut sender, piece)?;
                    state.phase = Phase::DenialBody(sender);
                    receiver.into()
                } else {
                    piece.into()
                };
                drop(state);
                handshake
                    .deny(head::response(status, headers, body))
                    .map_err(|error| refused(&error))
            }
            Phase::DenialBody(mut sender) => {
                push(&mut sender, piece)?;
                if more {
                    state.phase = Phase::DenialBody(sender);
                } else {
                    sender.finish();
                }
                Ok(())
            }
            Phase::Over => Err(closed()),
            other => {
                let why = match &other {
                    Phase::Open(..) => "the connection is accepted",
                    _ => "`websocket.http.response.start` comes first",
                };
                state.phase = other;
                Err(unexpected(KIND, why))
            }
        }
    }

    fn poll_receive(self: &Arc<Self>, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let waker = Waker::from(Arc::clone(self));
        let mut cx = Context::from_waker(&waker);
        let mut state = self.lock();
        if !std::mem::replace(&mut state.connect_read, true) {
            drop(state);
            return connect(py).map(Some);
        }
        let received = match &mut state.phase {
            Phase::Open(_, receiver) => receiver.poll_recv(&mut cx),
            Phase::Connecting(handshake) | Phase::Denying(handshake, ..) => {
                handshake.poll_gone(&mut cx).map(|()| Err(Close::LOST))
            }
            Phase::DenialBody(sender) => {
                sender.poll_disconnected(&mut cx).map(|()| Err(Close::LOST))
            }
            Phase::Over => Poll::Ready(Err(Close::LOST)),
        };
        drop(state);
        match received {
            Poll::Pending => Ok(None),
            Poll::Ready(Ok(message)) => receive(py, &message).map(Some),
            Poll::Ready(Err(close)) => disconnect(py, &close).map(Some),
        }
    }

    /// Whether the application may go on after a message.
    fn poll_send(self: &Arc<Self>) -> Poll<PyResult<()>> {
        let waker = Waker::from(Arc::clone(self));
        let mut cx = Context::from_waker(&waker);
        match &mut self.lock().phase {
            // A connection that closes while the application waits took the message as far as it could.
            Phase::Open(sender, _) => sender.poll_ready(&mut cx).map(|_| Ok(())),
            Phase::DenialBody(sender) => sender
                .poll_ready(&mut cx)
                .map(|ready| ready.map_err(|_| closed())),
            Phase::Connecting(_) | Phase::Denying(..) | Phase::Over => Poll::Ready(Ok(())),
        }
    }
}

fn push(sender: &mut body::Sender, piece: Bytes) -> PyResult<()> {
    sender.push(piece).map_err(|_| closed())
}

/// A `str`; absent and `None` are the same.
fn optional_text(
    message: &Bound<'_, PyDict>,
    key: &Bound<'_, PyString>,
) -> PyResult<Option<String>> {
    let Some(value) = message.get_item(key)?.filter(|value| !value.is_none()) else {
        return Ok(None);
    };
    let text = value
        .cast::<PyString>()
        .map_err(|_| PyTypeError::new_err(format!("`{key}` must be a str")))?;
    Ok(Some(text.to_str()?.to_owned()))
}

/// ASGI 2.4: `send` after the connection is closed raises a subclass of `OSError`.
fn closed() -> PyErr {
    PyOSError::new_err("the WebSocket is closed")
}

fn refused(error: &AnswerError) -> PyErr {
    match error {
        AnswerError::Answered | AnswerError::Disconnected => closed(),
        other => PyValueError::new_err(other.to_string()),
    }
}

/// `{"type": "websocket.connect"}`
fn connect(py: Python<'_>) -> PyResult<Py<PyAny>> {
    let message = PyDict::new(py);
    message.set_item(intern!(py, "type"), intern!(py, "websocket.connect"))?;
    Ok(message.into_any().unbind())
}

/// `{"type": "websocket.receive", "text": …, "bytes": …}`, of which one is `None`.
fn receive(py: Python<'_>, received: &Message) -> PyResult<Py<PyAny>> {
    let message = PyDict::new(py);
    message.set_item(intern!(py, "type"), intern!(py, "websocket.receive"))?;
    let (text, bytes) = match received {
        Message::Text(text) => (Some(PyString::new(py, text)), None),
        Message::Binary(bytes) => (None, Some(PyBytes::new(py, bytes))),
    };
    message.set_item(intern!(py, "text"), text)?;
    message.set_item(intern!(py, "bytes"), bytes)?;
    Ok(message.into_any().unbind())
}

/// `{"type": "websocket.disconnect", "code": …, "reason": …}`
fn disconnect(py: Python<'_>, close: &Close) -> PyResult<Py<PyAny>> {
    let message = PyDict::new(py);
    message.set_item(intern!(py, "type"), intern!(py, "websocket.disconnect"))?;
    message.set_item(intern!(py, "code"), close.code)?;
    message.set_item(intern!(py, "reason"), &*close.reason)?;
    Ok(message.into_any().unbind())
}

impl Served for Connection {
    /// The connection tells by itself: it closes with 1012.
    fn notify(&self, _: Python<'_>, _: Notice) {}

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

impl std::task::Wake for Connection {
    fn wake(self: Arc<Self>) {
        let event_loop = Arc::clone(&self.event_loop);
        event_loop.push(Job::Wake(self));
    }
}

impl Wake for Connection {
    fn wake(&self, py: Python<'_>) {
        self.waiters.notify(py);
    }
}

impl Source for Arc<Connection> {
    fn poll(&self, py: Python<'_>, operation: Operation) -> PyResult<Option<Py<PyAny>>> {
        match operation {
            Operation::Receive => self.poll_receive(py),
            Operation::Send => match self.poll_send() {
                Poll::Pending => Ok(None),
                Poll::Ready(ready) => ready.map(|()| Some(py.None())),
            },
        }
    }

    fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    fn event_loop(&self) -> &EventLoop {
        &self.event_loop
    }
}

impl Runs for Connection {
    fn ended(self: Arc<Self>, py: Python<'_>, raised: Option<&PyErr>) {
        Connection::ended(&self, py, raised);
    }
}

impl Cycle for Connection {
    fn receive<'py>(self: Arc<Self>, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, Arc::new(self), Operation::Receive)
    }

    fn send<'py>(self: Arc<Self>, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = message.py();
        self.take(message)?;
        match self.poll_send() {
            Poll::Ready(ready) => {
                ready?;
                done(py)
            }
            Poll::Pending => awaitable(py, Arc::new(self), Operation::Send),
        }
    }
}
