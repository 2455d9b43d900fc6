//! `wsgi.input` (PEP 3333, "Input and Error Streams"): the request body as a file, read as it arrives.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use pyo3::exceptions::{PyConnectionResetError, PyOSError, PyOverflowError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use rustix::io::Errno;
use twinspan::body::{Body, BodyError};
use twinspan_bridge::bytes::Filling;

use crate::block_on::block_on;
use crate::ticket::Ticket;

/// The request body for one application.
#[pyclass(frozen)]
pub(crate) struct Input {
    reader: Mutex<Reader>,
}

impl Input {
    /// `ticket` is that of a request with a deadline.
    pub(crate) fn new(body: Body, ticket: Option<Arc<Ticket>>) -> Self {
        Self {
            reader: Mutex::new(Reader::new(body, ticket)),
        }
    }

    /// Nobody needs the rest of the body any more: the connection can go on.
    pub(crate) fn discard(&self) {
        // A thread that waits here for the client is the application's own, and ends with the connection.
        let mut reader = match self.reader.try_lock() {
            Ok(reader) => reader,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if !reader.finished {
            reader.discarded = true;
            let body = std::mem::take(&mut reader.body);
            drop(reader);
            drop(body);
        }
    }

    /// The client stopped sending within the body, and the application has come to know of it.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.reader.try_lock().is_ok_and(|reader| reader.cut_off)
    }

    /// Reads up to `limit` bytes or the end of a line, without the GIL where it must wait for the client.
    fn take<'py>(
        &self,
        py: Python<'py>,
        until: Until,
        limit: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut filling = None;
        // While another thread reads, this one waits without the GIL.
        if let Ok(mut reader) = self.reader.try_lock() {
            if let Some(bytes) = reader.arrived(until, limit).map_err(raised)? {
                return Ok(PyBytes::new(py, &bytes));
            }
            filling = reader
                .known(until, limit)
                .and_then(|size| Filling::new(py, size).ok());
        }
        let read = py.detach(|| {
            let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut filling {
                Some(filling) => reader.fill_up(filling),
                None => reader.read(until, limit),
            }
        });
        let rest = read.map_err(raised)?;
        match filling.and_then(|filling| filling.finish(py)) {
            Some(filled) => Ok(filled),
            None => Ok(PyBytes::new(py, &rest)),
        }
    }
}

#[pymethods]
impl Input {
    /// At most `size` bytes, all that is left without one; `b""` at the end.
    #[pyo3(signature = (size=Size::ALL))]
    fn read<'py>(&self, py: Python<'py>, size: Size) -> PyResult<Bound<'py, PyBytes>> {
        self.take(py, Until::End, size.0)
    }

    /// One line with its end, at most `size` bytes of it; `b""` at the end.
    #[pyo3(signature = (size=Size::ALL))]
    fn readline<'py>(&self, py: Python<'py>, size: Size) -> PyResult<Bound<'py, PyBytes>> {
        self.take(py, Until::LineEnd, size.0)
    }

    /// All lines, or as many as make up `hint` bytes.
    #[pyo3(signature = (hint=Size::ALL))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Size) -> PyResult<Bound<'py, PyList>> {
        // As for every file of Python, 0 is no hint.
        let hint = if hint.0 == 0 { usize::MAX } else { hint.0 };
        let lines = PyList::empty(py);
        let mut total = 0;
        while total < hint {
            let line = self.take(py, Until::LineEnd, usize::MAX)?;
            let length = line.as_bytes().len();
            if length == 0 {
                break;
            }
            total += length;
            lines.append(line)?;
        }
        Ok(lines)
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let line = self.take(py, Until::LineEnd, usize::MAX)?;
        Ok((!line.as_bytes().is_empty()).then_some(line))
    }
}

/// How much a caller asks for: `None` and what is negative mean all, as for every file of Python, and so
/// does a number that is larger than any body.
#[derive(Clone, Copy)]
struct Size(usize);

impl Size {
    const ALL: Self = Self(usize::MAX);
}

impl<'a, 'py> FromPyObject<'a, 'py> for Size {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if object.is_none() {
            return Ok(Self::ALL);
        }
        match object.extract::<i64>() {
            Ok(size) => Ok(usize::try_from(size).map_or(Self::ALL, Self)),
            Err(error) if error.is_instance_of::<PyOverflowError>(object.py()) => Ok(Self::ALL),
            Err(error) => Err(error),
        }
    }
}

/// What a socket raises whose other end has gone; any other error is an `OSError` too.
fn raised(error: BodyError) -> PyErr {
    match error {
        BodyError::Disconnected => {
            PyConnectionResetError::new_err((Errno::CONNRESET.raw_os_error(), error.to_string()))
        }
        error => PyOSError::new_err(error.to_string()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    End,
    LineEnd,
}

/// From here on a read whose size is known goes to its `bytes` object at once.
const LARGE: usize = 64 * 1024;

/// Reads a body in the pieces that a file's methods ask for.
struct Reader {
    body: Body,
    /// Arrived and not asked for yet: what is left of one piece of the network.
    rest: Bytes,
    finished: bool,
    /// The response was complete before the body was read.
    discarded: bool,
    cut_off: bool,
    /// Of a request with a deadline.
    ticket: Option<Arc<Ticket>>,
}

impl Reader {
    fn new(body: Body, ticket: Option<Arc<Ticket>>) -> Self {
        Self {
            finished: body.is_finished(),
            body,
            rest: Bytes::new(),
            discarded: false,
            cut_off: false,
            ticket,
        }
    }

    /// What a read gives, if it need not wait for the client.
    fn arrived(&mut self, until: Until, limit: usize) -> Result<Option<Bytes>, BodyError> {
        // Not for a read of nothing: whoever waits for `100 Continue` would be told to send.
        if limit > 0 && self.rest.is_empty() {
            let noop = &mut Context::from_waker(Waker::noop());
            let _ = self.poll_fill(noop)?;
        }
        let end = match until {
            Until::End => None,
            Until::LineEnd => line_end(&self.rest),
        };
        let end = end.unwrap_or(usize::MAX).min(limit);
        Ok((end <= self.rest.len() || self.finished).then(|| self.split(end)))
    }

    /// How many bytes a large read will give, where that is known.
    fn known(&self, until: Until, limit: usize) -> Option<usize> {
        if until == Until::LineEnd {
            return None;
        }
        let left = usize::try_from(self.body.left()?).ok()?;
        let size = left.checked_add(self.rest.len())?.min(limit);
        (size >= LARGE).then_some(size)
    }

    /// Reads what is missing to a size that was known; gives nothing.
    fn fill_up(&mut self, filling: &mut Filling) -> Result<Bytes, BodyError> {
        loop {
            let piece = self.split(filling.room());
            filling.push(&piece);
            if filling.room() == 0 {
                return Ok(Bytes::new());
            }
            if !self.fill()? {
                return Err(BodyError::Disconnected);
            }
        }
    }

    fn read(&mut self, until: Until, limit: usize) -> Result<Bytes, BodyError> {
        let mut joined = BytesMut::new();
        loop {
            let end = match until {
                Until::End => None,
                Until::LineEnd => line_end(&self.rest),
            };
            let wanted = limit - joined.len();
            let last = end.is_some() || self.rest.len() >= wanted;
            let piece = self.split(end.unwrap_or(usize::MAX).min(wanted));
            if !last && self.fill()? {
                joined.extend_from_slice(&piece);
            } else if joined.is_empty() {
                return Ok(piece);
            } else {
                joined.extend_from_slice(&piece);
                return Ok(joined.freeze());
            }
        }
    }

    /// Waits for the next piece; `false` at the end.
    fn fill(&mut self) -> Result<bool, BodyError> {
        block_on(poll_fn(|cx| self.poll_fill(cx)))
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, BodyError>> {
        if self.finished {
            return Poll::Ready(Ok(false));
        }
        if self.discarded {
            let reason = "the response is complete".to_owned();
            return Poll::Ready(Err(BodyError::Aborted(reason)));
        }
        if let Some(ticket) = &self.ticket
            && ticket.poll_abandoned(cx).is_ready()
        {
            // A slow upload must not look like a stuck application. The connection gets rid of the rest.
            self.discarded = true;
            drop(std::mem::take(&mut self.body));
            return Poll::Ready(Err(BodyError::Disconnected));
        }
        let piece = ready!(self.body.poll_data(cx)).transpose();
        self.cut_off = matches!(piece, Err(BodyError::Disconnected));
        let piece = piece?;
        self.finished = piece.is_none() || self.body.is_finished();
        let more = piece.is_some();
        self.rest = piece.unwrap_or_default();
        Poll::Ready(Ok(more))
    }

    fn split(&mut self, count: usize) -> Bytes {
        self.rest.split_to(count.min(self.rest.len()))
    }
}

/// Where the first line of `bytes` ends, if it does.
fn line_end(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(b'\n', bytes).map(|newline| newline + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinspan::body::channel;

    fn reader(pieces: &[&'static str]) -> Reader {
        let (mut sender, receiver) = channel(usize::MAX);
        for piece in pieces {
            sender.push(Bytes::from_static(piece.as_bytes())).unwrap();
        }
        sender.finish();
        Reader::new(Body::from(receiver), None)
    }

    #[test]
    fn a_line_may_come_in_pieces_and_a_piece_may_hold_lines() {
        let mut reader = reader(&["on", "e\ntwo\nthr", "ee"]);
        let mut line = |limit| reader.read(Until::LineEnd, limit).unwrap();
        assert_eq!(line(usize::MAX), "one\n");
        assert_eq!(line(2), "tw");
        assert_eq!(line(usize::MAX), "o\n");
        assert_eq!(line(4), "thre");
        assert_eq!(line(usize::MAX), "e");
        assert_eq!(line(usize::MAX), "");
    }

    #[test]
    fn reading_gives_what_was_asked_for_and_nothing_past_the_end() {
        let mut reader = reader(&["abc", "def"]);
        let mut read = |limit| reader.read(Until::End, limit).unwrap();
        assert_eq!(read(0), "");
        assert_eq!(read(4), "abcd");
        assert_eq!(read(usize::MAX), "ef");
        assert_eq!(read(1), "");
    }

    #[test]
    fn what_has_arrived_is_given_without_waiting_and_only_if_it_is_enough() {
        let (mut sender, receiver) = channel(usize::MAX);
        let mut reader = Reader::new(Body::from(receiver), None);
        assert_eq!(reader.arrived(Until::End, 1).unwrap(), None);
        sender.push(Bytes::from_static(b"abc\nde")).unwrap();
        let mut arrived = |until, limit| reader.arrived(until, limit).unwrap();
        assert_eq!(arrived(Until::End, 0).unwrap(), "");
        assert_eq!(arrived(Until::End, 1).unwrap(), "a");
        assert_eq!(arrived(Until::LineEnd, 9).unwrap(), "bc\n");
        assert_eq!(arrived(Until::LineEnd, 9), None);
        assert_eq!(arrived(Until::End, 3), None);
        assert_eq!(arrived(Until::LineEnd, 2).unwrap(), "de");
        sender.finish();
        assert_eq!(arrived(Until::End, usize::MAX).unwrap(), "");
    }

    #[test]
    fn a_read_of_nothing_asks_the_client_for_nothing() {
        let (_sender, receiver) = channel(usize::MAX);
        let mut reader = Reader::new(Body::from(receiver), None);
        for until in [Until::End, Until::LineEnd] {
            assert_eq!(reader.arrived(until, 0).unwrap().unwrap(), "");
        }
    }

    #[test]
    fn a_body_that_breaks_off_is_an_error_and_not_an_end() {
        let (mut sender, receiver) = channel(usize::MAX);
        sender.push(Bytes::from_static(b"half")).unwrap();
        drop(sender);
        let mut reader = Reader::new(Body::from(receiver), None);
        assert_eq!(reader.read(Until::End, 2).unwrap(), "ha");
        assert!(reader.read(Until::End, usize::MAX).is_err());
    }
}
