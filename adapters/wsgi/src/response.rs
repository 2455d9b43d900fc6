//! `start_response`, `write` and the iteration of a response (PEP 3333, "The start_response() Callable").

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, StatusCode};
use hyper::ext::ReasonPhrase;
use pyo3::exceptions::{
    PyAssertionError, PyBrokenPipeError, PyRuntimeError, PyTypeError, PyValueError,
};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};
use rustix::io::Errno;
use twinspan::app::AppError;
use twinspan::body::{self, Body, Disconnected};
use twinspan::file::DiskFile;
use twinspan::http::Interim;
use twinspan_bridge::bytes::Lender;
use twinspan_bridge::head;
use twinspan_bridge::outbox::{Outbox, ReplyTo};
use twinspan_bridge::text::latin1_bytes;

use crate::block_on::block_on;
use crate::file_wrapper::FileWrapper;
use crate::lead;

/// Bytes of a response that wait for the client before the application is held back.
const RESPONSE_BUFFER: usize = 64 * 1024;

/// One response on its way from the application to the client.
pub(crate) struct Responder {
    outbox: Arc<Outbox>,
    lender: Arc<Lender>,
    is_head: bool,
    state: Mutex<State>,
}

struct State {
    head: Option<Head>,
    /// `start_response` was called, even if it raised.
    started: bool,
    body: Progress,
    /// Of a streamed body, once the head that declares it is sent.
    length: Option<Length>,
    /// The client was gone when something was to be sent.
    client_left: bool,
}

struct Head {
    status: StatusCode,
    reason: Option<ReasonPhrase>,
    headers: HeaderMap,
}

impl Head {
    /// What the application declared as `Content-Length`; it was checked when the head was parsed.
    fn declared_length(&self) -> Option<u64> {
        let declared = self.headers.get(CONTENT_LENGTH)?;
        declared.to_str().ok()?.parse().ok()
    }
}

/// A body and its `Content-Length` (PEP 3333, "Handling the Content-Length Header").
#[derive(Clone, Copy)]
struct Length {
    declared: u64,
    /// What the application gave so far, sent or not.
    given: u64,
}

impl Length {
    /// Counts a block and cuts off what does not fit.
    fn fit(&mut self, block: &mut Bytes) {
        let room = self.declared.saturating_sub(self.given);
        self.given += block.len() as u64;
        block.truncate(usize::try_from(room).unwrap_or(usize::MAX));
    }

    /// A generator goes on after its last block, with what it has to put away: only what comes beyond the
    /// length shows that it does not know where it ends.
    fn is_exceeded(self) -> bool {
        self.given > self.declared
    }
}

/// Where a head is waited for, and what may come before it.
struct Pending {
    reply_to: ReplyTo,
    interim: Option<Interim>,
}

enum Progress {
    /// The head is not sent.
    Waiting(Pending),
    Streaming(body::Sender),
    /// A thread has the sender, and may wait for the client.
    Sending,
    Over,
}

impl Responder {
    pub(crate) fn new(
        outbox: Arc<Outbox>,
        lender: Arc<Lender>,
        method: &Method,
        interim: Option<Interim>,
        reply_to: ReplyTo,
    ) -> Arc<Self> {
        Arc::new(Self {
            outbox,
            lender,
            is_head: method == Method::HEAD,
            state: Mutex::new(State {
                head: None,
                started: false,
                body: Progress::Waiting(Pending { reply_to, interim }),
                length: None,
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
        if let Ok(wrapper) = result.cast_exact::<FileWrapper>()
            && !self.has_begun()
        {
            return self.send_file(result.py(), wrapper.get());
        }
        let mut blocks = result.try_iter()?;
        while !self.has_client_left() {
            if self.is_satisfied() {
                return self.finish();
            }
            let Some(block) = blocks.next() else {
                return self.finish();
            };
            let block = self.block(&block?)?;
            // Not with an empty block: the head may still change until there is something to send.
            if !block.is_empty() {
                self.send_block(result.py(), block)?;
            }
        }
        Err(client_left())
    }

    /// PEP 3333 knows no block but `bytes`: a `bytearray` could change while it is sent.
    fn block(&self, object: &Bound<'_, PyAny>) -> PyResult<Bytes> {
        let block = object.cast::<PyBytes>().map_err(|_| {
            let kind = object.get_type().name();
            let kind = kind.map_or_else(|_| "object".to_owned(), |name| name.to_string());
            PyTypeError::new_err(format!("a block of the response must be bytes, not {kind}"))
        })?;
        Ok(self.lender.lend(block))
    }

    /// A response of one block needs no stream, and its length is known.
    fn send_whole(&self, block: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = block.py();
        let block = self.block(block)?;
        if self.has_begun() {
            if !block.is_empty() {
                self.send_block(py, block)?;
            }
            return self.finish();
        }
        self.send_head(block.into())
    }

    /// Sends what the file holds, from where it stands to the `Content-Length` or its end.
    fn send_file(&self, py: Python<'_>, wrapper: &FileWrapper) -> PyResult<()> {
        let on_disk = wrapper.on_disk(py);
        let length = self.announce(on_disk.as_ref().and_then(DiskFile::length))?;
        if self.is_bodiless() {
            return self.send_head(Body::empty());
        }
        if let Some(mut file) = on_disk {
            return py.detach(|| self.send_from_disk(&mut file, length));
        }
        let mut left = length.unwrap_or(u64::MAX);
        // A file may wait for more than was announced: it is not asked for that.
        while left > 0 {
            if self.has_client_left() {
                return Err(client_left());
            }
            let block = wrapper.read(py, left)?;
            let block = self.lender.lend(&block);
            if block.is_empty() {
                break;
            }
            left = left.saturating_sub(block.len() as u64);
            self.send_block(py, block)?;
        }
        self.finish()
    }

    fn send_from_disk(&self, file: &mut DiskFile, length: Option<u64>) -> PyResult<()> {
        let mut left = length.unwrap_or(u64::MAX);
        let mut piece = file.read(left)?;
        if length == Some(piece.len() as u64) {
            return self.send_head(piece.into());
        }
        while !piece.is_empty() {
            left -= piece.len() as u64;
            let mut sender = self.push(piece)?;
            let ready = block_on(poll_fn(|cx| sender.poll_ready(cx)));
            self.pushed(sender, ready)?;
            piece = file.read(left)?;
        }
        self.finish()
    }

    /// Adds the length to the head if it has none; gives the length that it has.
    fn announce(&self, known: Option<u64>) -> PyResult<Option<u64>> {
        let mut state = self.lock();
        let head = state.head.as_mut().ok_or_else(no_head)?;
        if let Some(declared) = head.declared_length() {
            return Ok(Some(declared));
        }
        if let Some(known) = known
            && !has_no_body(head.status)
        {
            head.headers.insert(CONTENT_LENGTH, known.into());
        }
        Ok(known)
    }

    /// Sends what fits of a block.
    ///
    /// # Errors
    /// `ValueError` when not all of it does.
    fn write(&self, py: Python<'_>, block: Bytes) -> PyResult<()> {
        self.send_block(py, block)?;
        match self.lock().length {
            Some(length @ Length { declared, given }) if length.is_exceeded() => {
                Err(PyValueError::new_err(format!(
                    "the application wrote {given} bytes, its `Content-Length` is {declared}"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Queues a block and waits, without the GIL, until the client has taken enough of what came before.
    fn send_block(&self, py: Python<'_>, block: Bytes) -> PyResult<()> {
        let mut sender = self.push(block)?;
        let ready = match sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(ready) => ready,
            Poll::Pending => py.detach(|| block_on(poll_fn(|cx| sender.poll_ready(cx)))),
        };
        self.pushed(sender, ready)
    }

    /// Queues what fits of a block, after the head. The sender comes back with [`Responder::pushed`].
    fn push(&self, mut block: Bytes) -> PyResult<body::Sender> {
        let progress = std::mem::replace(&mut self.lock().body, Progress::Sending);
        let mut sender = match progress {
            Progress::Streaming(sender) => sender,
            Progress::Waiting(pending) => {
                let mut state = self.lock();
                state.length = state
                    .head
                    .as_ref()
                    .filter(|head| !self.is_head && !has_no_body(head.status))
                    .and_then(Head::declared_length)
                    .map(|declared| Length { declared, given: 0 });
                state.body = Progress::Waiting(pending);
                drop(state);
                let (sender, receiver) = body::channel(RESPONSE_BUFFER);
                self.send_head(receiver.into())?;
                self.lock().body = Progress::Sending;
                sender
            }
            Progress::Sending => {
                return Err(PyRuntimeError::new_err(
                    "another thread is sending a block of this response",
                ));
            }
            Progress::Over => {
                let mut state = self.lock();
                state.body = Progress::Over;
                return Err(over(&state));
            }
        };
        if let Some(length) = &mut self.lock().length {
            length.fit(&mut block);
        }
        if let Err(Disconnected) = sender.push(block) {
            self.lock().body = Progress::Streaming(sender);
            return Err(client_left());
        }
        Ok(sender)
    }

    fn pushed(&self, sender: body::Sender, ready: Result<(), Disconnected>) -> PyResult<()> {
        self.lock().body = Progress::Streaming(sender);
        ready.map_err(|Disconnected| client_left())
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
            return Err(no_head());
        };
        let Progress::Waiting(Pending { reply_to, .. }) =
            std::mem::replace(&mut state.body, Progress::Over)
        else {
            return Err(over(&state));
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
            // What another thread still sends is not the end that was promised: its sender aborts the body.
            Progress::Sending | Progress::Over => Ok(()),
        }
    }

    /// The application has raised: 500 where nothing was sent, a reset where something was.
    pub(crate) fn fail(&self, error: AppError) {
        let progress = std::mem::replace(&mut self.lock().body, Progress::Over);
        match progress {
            Progress::Waiting(Pending { reply_to, .. }) => {
                lead::send(&self.outbox, reply_to, Err(error));
            }
            Progress::Streaming(sender) => sender.abort(error.to_string()),
            Progress::Sending | Progress::Over => {}
        }
    }

    /// Nobody reads the response any more.
    pub(crate) fn has_client_left(&self) -> bool {
        let state = self.lock();
        match &state.body {
            Progress::Waiting(Pending { reply_to, .. }) => reply_to.is_closed(),
            Progress::Streaming(sender) => sender.is_disconnected(),
            Progress::Sending => false,
            Progress::Over => state.client_left,
        }
    }

    /// The head is sent.
    fn has_begun(&self) -> bool {
        !matches!(self.lock().body, Progress::Waiting(_))
    }

    /// Nothing follows the head, whatever it says (RFC 9110 §6.4.1).
    fn is_bodiless(&self) -> bool {
        let state = self.lock();
        self.is_head
            || state
                .head
                .as_ref()
                .is_some_and(|head| has_no_body(head.status))
    }

    /// The client wants no more of the body: it is longer than its `Content-Length`, or the head was all.
    fn is_satisfied(&self) -> bool {
        let state = self.lock();
        match state.length {
            Some(length) => length.is_exceeded(),
            None => matches!(&state.body, Progress::Streaming(sender) if sender.is_satisfied()),
        }
    }

    /// Sends early hints, unless the head is sent.
    fn hint(&self, headers: &HeaderMap) {
        if let Progress::Waiting(Pending {
            interim: Some(interim),
            ..
        }) = &self.lock().body
        {
            interim.early_hints(headers);
        }
    }

    fn start(
        &self,
        status: &Bound<'_, PyAny>,
        headers: &Bound<'_, PyAny>,
        exc_info: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let exc_info = match exc_info {
            Some(exc_info) if exc_info.is_truthy()? => Some(exc_info),
            _ => None,
        };
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
            latin1_bytes(reason)
                .and_then(|reason| ReasonPhrase::try_from(reason.into_owned()).ok())
                .ok_or_else(|| {
                    PyValueError::new_err(format!(
                        "the status holds a control character or does not fit latin-1: {text:?}"
                    ))
                })?,
        ),
    };
    Ok(Head {
        status,
        reason,
        headers: parse_headers(headers)?,
    })
}

fn parse_headers(headers: &Bound<'_, PyAny>) -> PyResult<HeaderMap> {
    let list = headers
        .cast::<PyList>()
        .map_err(|_| PyTypeError::new_err("the headers must be a list of pairs of str"))?;
    let mut parsed = HeaderMap::with_capacity(list.len().min(100) + 2);
    for pair in list {
        let (name, value) = pair
            .extract::<(Bound<'_, PyString>, Bound<'_, PyString>)>()
            .map_err(|_| PyTypeError::new_err("the headers must be a list of pairs of str"))?;
        let name = name.to_cow()?;
        let is = |hop: &str| name.eq_ignore_ascii_case(hop);
        if head::HOP_BY_HOP.iter().any(|hop| is(hop.as_str()))
            || OLDER_HOP_BY_HOP.into_iter().any(is)
        {
            // PEP 3333, "Other HTTP Features": a server must treat it as an error.
            let error = head::HeadError::HopByHop(name.into_owned());
            return Err(PyValueError::new_err(error.to_string()));
        }
        let text = value.to_cow()?;
        let bytes = latin1_bytes(&text).ok_or_else(|| {
            PyValueError::new_err(format!(
                "the value of header `{name}` does not fit latin-1: encode it (RFC 8187)"
            ))
        })?;
        head::append(&mut parsed, name.as_bytes(), &bytes)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
    }
    Ok(parsed)
}

/// What RFC 2616 §13.5.1 counted among them, which is the list that PEP 3333 refers to.
const OLDER_HOP_BY_HOP: [&str; 4] = [
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailers",
];

/// Statuses whose responses end with their head.
fn has_no_body(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

fn no_head() -> PyErr {
    PyAssertionError::new_err("the application sent a body before it called `start_response`")
}

fn over(state: &State) -> PyErr {
    if state.client_left {
        return client_left();
    }
    PyRuntimeError::new_err("the response is complete: nothing can be added to it")
}

/// What a socket raises that nobody reads any more.
fn client_left() -> PyErr {
    PyBrokenPipeError::new_err((Errno::PIPE.raw_os_error(), "the client has disconnected"))
}

/// `wsgi.early_hints`, as gunicorn has it: sends 103 (RFC 8297) before the response begins, as often as it
/// is called. Afterwards, and where the protocol has no way to send them, it checks and does nothing.
#[pyclass(frozen)]
pub(crate) struct EarlyHints {
    pub(crate) responder: Arc<Responder>,
}

#[pymethods]
impl EarlyHints {
    #[pyo3(signature = (headers, /))]
    fn __call__(&self, headers: &Bound<'_, PyAny>) -> PyResult<()> {
        let headers = parse_headers(headers)?;
        if headers.contains_key(CONTENT_LENGTH) {
            return Err(PyValueError::new_err(
                "early hints have no body and so no Content-Length (RFC 9110 §8.6)",
            ));
        }
        self.responder.hint(&headers);
        Ok(())
    }
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
        let block = self.responder.lender.lend(data);
        if block.is_empty() {
            return Ok(());
        }
        self.responder.write(py, block)
    }
}
