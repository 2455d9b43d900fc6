//! `start_response`, `write` and the iteration of a response (PEP 3333, "The start_response() Callable").

use std::borrow::Cow;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use pyo3::exceptions::{PyAssertionError, PyOSError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};
use twinspan::app::AppError;
use twinspan::body::{self, Body, Disconnected};
use twinspan_bridge::bytes::Lender;
use twinspan_bridge::head;
use twinspan_bridge::outbox::{Outbox, ReplyTo};
use twinspan_bridge::text::to_latin1;

use crate::block_on::block_on;
use crate::lead;

/// Bytes of a response that wait for the client before the application is held back.
const RESPONSE_BUFFER: usize = 64 * 1024;

/// One response on its way from the application to the client.
pub(crate) struct Responder {
    outbox: Arc<Outbox>,
    lender: Arc<Lender>,
    state: Mutex<State>,
}

struct State {
    head: Option<Head>,
    /// `start_response` was called, even if it raised.
    started: bool,
    body: Progress,
    /// The client was gone when something was to be sent.
    client_left: bool,
}

struct Head {
    status: StatusCode,
    reason: Option<hyper::ext::ReasonPhrase>,
    headers: HeaderMap,
}

enum Progress {
    /// The head is not sent.
    Waiting(ReplyTo),
    Streaming(body::Sender),
    Over,
}

impl Responder {
    pub(crate) fn new(outbox: Arc<Outbox>, lender: Arc<Lender>, reply_to: ReplyTo) -> Arc<Self> {
        Arc::new(Self {
            outbox,
            lender,
            state: Mutex::new(State {
                head: None,
                started: false,
                body: Progress::Waiting(reply_to),
                client_left: false,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends everything that `result` yields.
    pub(crate) fn send_all(&self, result: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Some(only) = only_block(result)? {
            return self.send_whole(&only);
        }
        for block in result.try_iter()? {
            let block = self.lender.bytes(&block?, "a block of the response")?;
            // Not with an empty block: the head may still change until there is something to send.
            if !block.is_empty() {
                if self.is_satisfied() {
                    // HEAD, or its `Content-Length` is full (PEP 3333, "Handling the Content-Length Header").
                    break;
                }
                self.send_block(result.py(), block)?;
            }
        }
        self.finish()
    }

    /// A response of one block needs no stream, and its length is known.
    fn send_whole(&self, block: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = block.py();
        let block = self.lender.bytes(block, "a block of the response")?;
        if matches!(self.lock().body, Progress::Streaming(_)) {
            // `write` was called before.
            if !block.is_empty() {
                self.send_block(py, block)?;
            }
            return self.finish();
        }
        self.send_head(block.into())
    }

    /// Queues a block and waits, without the GIL, until the client has taken enough of what came before.
    fn send_block(&self, py: Python<'_>, block: Bytes) -> PyResult<()> {
        let progress = std::mem::replace(&mut self.lock().body, Progress::Over);
        let mut sender = match progress {
            Progress::Streaming(sender) => sender,
            Progress::Over => return Err(client_left()),
            waiting @ Progress::Waiting(_) => {
                self.lock().body = waiting;
                let (sender, receiver) = body::channel(RESPONSE_BUFFER);
                self.send_head(receiver.into())?;
                sender
            }
        };
        let sent = sender
            .push(block)
            .and_then(|()| py.detach(|| block_on(poll_fn(|cx| sender.poll_ready(cx)))));
        self.lock().body = Progress::Streaming(sender);
        sent.map_err(|Disconnected| client_left())
    }

    /// Sends the head with its body.
    fn send_head(&self, body: Body) -> PyResult<()> {
        let mut state = self.lock();
        let Some(Head {
            status,
            reason,
            headers,
        }) = state.head.take()
        else {
            return Err(PyAssertionError::new_err(
                "the application sent a body before it called `start_response`",
            ));
        };
        let Progress::Waiting(reply_to) = std::mem::replace(&mut state.body, Progress::Over) else {
            return Err(client_left());
        };
        state.client_left = reply_to.is_closed();
        if state.client_left {
            return Err(client_left());
        }
        drop(state);
        let mut response = head::response(status, headers, body);
        if let Some(reason) = reason {
            response.extensions_mut().insert(reason);
        }
        lead::send(&self.outbox, reply_to, Ok(response));
        Ok(())
    }

    /// The application has sent everything.
    fn finish(&self) -> PyResult<()> {
        let progress = std::mem::replace(&mut self.lock().body, Progress::Over);
        match progress {
            Progress::Streaming(sender) => {
                sender.finish();
                Ok(())
            }
            waiting @ Progress::Waiting(_) => {
                self.lock().body = waiting;
                self.send_head(Body::empty())
            }
            Progress::Over => Ok(()),
        }
    }

    /// The application has raised: 500 where nothing was sent, a reset where something was.
    pub(crate) fn fail(&self, error: AppError) {
        let progress = std::mem::replace(&mut self.lock().body, Progress::Over);
        match progress {
            Progress::Waiting(reply_to) => {
                lead::send(&self.outbox, reply_to, Err(error));
            }
            Progress::Streaming(sender) => sender.abort(error.to_string()),
            Progress::Over => {}
        }
    }

    /// Nobody reads the response any more.
    pub(crate) fn has_client_left(&self) -> bool {
        let state = self.lock();
        match &state.body {
            Progress::Waiting(reply_to) => reply_to.is_closed(),
            Progress::Streaming(sender) => sender.is_disconnected(),
            Progress::Over => state.client_left,
        }
    }

    /// The client wants no more of the body.
    fn is_satisfied(&self) -> bool {
        matches!(&self.lock().body, Progress::Streaming(sender) if sender.is_satisfied())
    }

    fn start(
        &self,
        status: &Bound<'_, PyAny>,
        headers: &Bound<'_, PyAny>,
        exc_info: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let exc_info = exc_info.filter(|exc_info| !exc_info.is_none());
        let mut state = self.lock();
        if let Some(exc_info) = &exc_info {
            if !matches!(state.body, Progress::Waiting(_)) {
                drop(state);
                return Err(PyErr::from_value(exc_info.get_item(1)?));
            }
        } else if state.started {
            drop(state);
            return Err(PyAssertionError::new_err(
                "`start_response` was called before; a second call needs `exc_info`",
            ));
        }
        state.started = true;
        state.head = None;
        drop(state);
        let head = parse_head(status, headers)?;
        self.lock().head = Some(head);
        Ok(())
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.fail(AppError::Failed(
            "the application ended without a response".into(),
        ));
    }
}

/// The block of a list or tuple with exactly one.
fn only_block<'py>(result: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    if let Ok(list) = result.cast_exact::<PyList>() {
        return (list.len() == 1).then(|| list.get_item(0)).transpose();
    }
    if let Ok(tuple) = result.cast_exact::<PyTuple>() {
        return (tuple.len() == 1).then(|| tuple.get_item(0)).transpose();
    }
    Ok(None)
}

fn parse_head(status: &Bound<'_, PyAny>, headers: &Bound<'_, PyAny>) -> PyResult<Head> {
    let text = status
        .cast::<PyString>()
        .map_err(|_| PyTypeError::new_err("the status must be a str such as \"200 OK\""))?
        .to_cow()?;
    let (number, reason) = text.split_once(' ').unwrap_or((&text, ""));
    let number = Some(number)
        .filter(|number| number.len() == 3)
        .and_then(|number| number.parse::<i64>().ok())
        .ok_or_else(|| {
            PyValueError::new_err(format!("the status must begin with three digits: {text:?}"))
        })?;
    let status = head::status(number).map_err(|error| PyValueError::new_err(error.to_string()))?;
    let reason = match status.canonical_reason() {
        Some(usual) if usual == reason => None,
        // HTTP allows an empty reason.
        _ => Some(
            hyper::ext::ReasonPhrase::try_from(reason.as_bytes()).map_err(|_| {
                PyValueError::new_err(format!("the status holds a control character: {text:?}"))
            })?,
        ),
    };
    let list = headers
        .cast::<PyList>()
        .map_err(|_| PyTypeError::new_err("the headers must be a list of pairs of str"))?;
    let mut parsed = HeaderMap::with_capacity(list.len().min(100) + 2);
    for pair in list {
        let (name, value) = pair
            .extract::<(Bound<'_, PyString>, Bound<'_, PyString>)>()
            .map_err(|_| PyTypeError::new_err("the headers must be a list of pairs of str"))?;
        let name = name.to_cow()?;
        if head::HOP_BY_HOP
            .iter()
            .any(|hop| name.eq_ignore_ascii_case(hop.as_str()))
        {
            // PEP 3333, "Other HTTP Features": a server must treat it as an error.
            let error = head::HeadError::HopByHop(name.into_owned());
            return Err(PyValueError::new_err(error.to_string()));
        }
        let text = value.to_cow()?;
        let bytes = if text.is_ascii() {
            Cow::Borrowed(text.as_bytes())
        } else {
            Cow::Owned(to_latin1(&value)?.ok_or_else(|| {
                PyValueError::new_err(format!(
                    "the value of header `{name}` does not fit latin-1: encode it (RFC 8187)"
                ))
            })?)
        };
        head::append(&mut parsed, name.as_bytes(), &bytes)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
    }
    Ok(Head {
        status,
        reason,
        headers: parsed,
    })
}

fn client_left() -> PyErr {
    PyOSError::new_err("the client has disconnected")
}

/// What the application gets as `start_response`.
#[pyclass(frozen)]
pub(crate) struct StartResponse {
    pub(crate) responder: Arc<Responder>,
}

#[pymethods]
impl StartResponse {
    #[pyo3(signature = (status, response_headers, exc_info=None, /))]
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        status: &Bound<'py, PyAny>,
        response_headers: &Bound<'py, PyAny>,
        exc_info: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        slf.get()
            .responder
            .start(status, response_headers, exc_info)?;
        slf.getattr(intern!(slf.py(), "write"))
    }

    /// The older way to send a body: each call is sent before it returns.
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyBytes>) -> PyResult<()> {
        let block = self.responder.lender.bytes(data, "what is written")?;
        if block.is_empty() {
            return Ok(());
        }
        self.responder.send_block(py, block)
    }
}
