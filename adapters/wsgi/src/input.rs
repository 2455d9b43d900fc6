//! `wsgi.input` (PEP 3333, "Input and Error Streams"): the request body as a file, read as it arrives.

use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use bytes::{Buf, Bytes, BytesMut};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use twinspan::body::{Body, BodyError};

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
        let reader = Reader {
            finished: body.is_finished(),
            body,
            buffer: BytesMut::new(),
            discarded: false,
            ticket,
        };
        Self {
            reader: Mutex::new(reader),
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

    /// Runs `read` without the GIL: it may wait for the client.
    fn read_with<'py>(
        &self,
        py: Python<'py>,
        read: impl FnOnce(&mut Reader) -> Result<BytesMut, BodyError> + Send,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = py
            .detach(|| {
                let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
                read(&mut reader)
            })
            .map_err(|error| PyOSError::new_err(error.to_string()))?;
        Ok(PyBytes::new(py, &bytes))
    }
}

#[pymethods]
impl Input {
    /// At most `size` bytes, all that is left without one; `b""` at the end.
    #[pyo3(signature = (size=None))]
    fn read<'py>(&self, py: Python<'py>, size: Option<i64>) -> PyResult<Bound<'py, PyBytes>> {
        let limit = limit(size);
        self.read_with(py, move |reader| reader.read(limit))
    }

    /// One line with its end, at most `size` bytes of it; `b""` at the end.
    #[pyo3(signature = (size=None))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<i64>) -> PyResult<Bound<'py, PyBytes>> {
        let limit = limit(size);
        self.read_with(py, move |reader| reader.line(limit))
    }

    /// All lines, or as many as make up `hint` bytes.
    #[pyo3(signature = (hint=None))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<i64>) -> PyResult<Bound<'py, PyList>> {
        let hint = hint
            .filter(|hint| *hint > 0)
            .map_or(usize::MAX, |hint| limit(Some(hint)));
        let lines = PyList::empty(py);
        let mut total = 0;
        while total < hint {
            let line = self.readline(py, None)?;
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
        let line = self.readline(py, None)?;
        Ok((!line.as_bytes().is_empty()).then_some(line))
    }
}

/// Negative and absent sizes mean all, as for every file of Python.
fn limit(size: Option<i64>) -> usize {
    size.and_then(|size| usize::try_from(size).ok())
        .unwrap_or(usize::MAX)
}

/// Reads a body in the pieces that a file's methods ask for.
struct Reader {
    body: Body,
    /// Arrived and not asked for yet; holds one piece of the network at most, besides an unfinished line.
    buffer: BytesMut,
    finished: bool,
    /// The response was complete before the body was read.
    discarded: bool,
    /// Of a request with a deadline.
    ticket: Option<Arc<Ticket>>,
}

impl Reader {
    /// Waits for the next piece; `false` at the end.
    fn fill(&mut self) -> Result<bool, BodyError> {
        if self.finished {
            return Ok(false);
        }
        if self.discarded {
            return Err(BodyError::Aborted("the response is complete".into()));
        }
        match self.arrival() {
            None => {
                self.finished = true;
                Ok(false)
            }
            Some(Ok(data)) => {
                self.buffer.extend_from_slice(&data);
                Ok(true)
            }
            Some(Err(error)) => Err(error),
        }
    }

    /// Waits for the client, but not past the deadline: a slow upload must not look like a stuck application.
    fn arrival(&mut self) -> Option<Result<Bytes, BodyError>> {
        let Some(ticket) = &self.ticket else {
            return block_on(self.body.data());
        };
        let body = &mut self.body;
        let arrived = block_on(async {
            tokio::select! {
                biased;
                () = ticket.abandoned() => None,
                data = body.data() => Some(data),
            }
        });
        arrived.unwrap_or_else(|| {
            self.discarded = true;
            // The connection gets rid of what is still to come.
            drop(std::mem::take(&mut self.body));
            Some(Err(BodyError::Disconnected))
        })
    }

    fn read(&mut self, limit: usize) -> Result<BytesMut, BodyError> {
        while self.buffer.len() < limit && self.fill()? {}
        Ok(self.take(limit))
    }

    fn line(&mut self, limit: usize) -> Result<BytesMut, BodyError> {
        let mut searched = 0;
        loop {
            let fresh = self.buffer.get(searched..).unwrap_or_default();
            if let Some(offset) = fresh.iter().position(|byte| *byte == b'\n') {
                return Ok(self.take(limit.min(searched + offset + 1)));
            }
            searched = self.buffer.len();
            if searched >= limit || !self.fill()? {
                return Ok(self.take(limit));
            }
        }
    }

    fn take(&mut self, limit: usize) -> BytesMut {
        let count = self.buffer.remaining().min(limit);
        self.buffer.split_to(count)
    }
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
        Reader {
            body: Body::from(receiver),
            buffer: BytesMut::new(),
            finished: false,
            discarded: false,
            ticket: None,
        }
    }

    #[test]
    fn a_line_may_come_in_pieces_and_a_piece_may_hold_lines() {
        let mut reader = reader(&["on", "e\ntwo\nthr", "ee"]);
        assert_eq!(reader.line(usize::MAX).unwrap(), "one\n");
        assert_eq!(reader.line(2).unwrap(), "tw");
        assert_eq!(reader.line(usize::MAX).unwrap(), "o\n");
        assert_eq!(reader.line(usize::MAX).unwrap(), "three");
        assert_eq!(reader.line(usize::MAX).unwrap(), "");
    }

    #[test]
    fn reading_gives_what_was_asked_for_and_nothing_past_the_end() {
        let mut reader = reader(&["abc", "def"]);
        assert_eq!(reader.read(0).unwrap(), "");
        assert_eq!(reader.read(4).unwrap(), "abcd");
        assert_eq!(reader.read(usize::MAX).unwrap(), "ef");
        assert_eq!(reader.read(1).unwrap(), "");
    }

    #[test]
    fn a_body_that_breaks_off_is_an_error_and_not_an_end() {
        let (mut sender, receiver) = channel(usize::MAX);
        sender.push(Bytes::from_static(b"half")).unwrap();
        drop(sender);
        let mut reader = Reader {
            body: Body::from(receiver),
            buffer: BytesMut::new(),
            finished: false,
            discarded: false,
            ticket: None,
        };
        assert!(reader.read(usize::MAX).is_err());
    }
}
