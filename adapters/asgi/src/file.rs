//! Files as parts of a response: `http.response.pathsend` and `http.response.zerocopysend`.
//!
//! Neither Python nor the event loop sees a byte of them: a task on the I/O runtime has pieces read on threads
//! that may wait for a disk, and pushes them as the client takes them. `send` completes when the last piece
//! has been read: after it the application may close, change or remove the file. The server reads through
//! a descriptor of its own all the same, because a `send` that is cancelled leaves the application free to
//! close its own, whose number may be another file's a moment later.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyInt, PyType};
use twinspan::file::{DiskFile, Section, apart};
use twinspan_bridge::errors::os_error;
use twinspan_bridge::files;

use crate::awaitable::{Operation, Source, Waiters};
use crate::event_loop::{EventLoop, Job, Wake};
use crate::http::{Exchange, Head, client_left};
use crate::message;

/// What a message asks for.
pub(crate) struct Part {
    origin: Origin,
    wanted: Wanted,
    position: Position,
}

enum Origin {
    Path(PathBuf),
    Open(File, u64),
}

impl Origin {
    fn open(self) -> io::Result<DiskFile> {
        match self {
            Self::Path(path) => DiskFile::open(&path),
            Self::Open(file, offset) => DiskFile::at(file, offset),
        }
    }
}

/// Where a file was read from that was to be read on from where it stood.
enum Position {
    /// An offset was given: nothing moves.
    Given,
    Object(Py<PyAny>, u64),
    Descriptor(File, u64),
}

impl Part {
    /// `http.response.pathsend`: a whole file, which is all of the body.
    pub(crate) fn of_path(message: &Bound<'_, PyDict>) -> PyResult<Self> {
        Ok(Self {
            origin: Origin::Path(message::path(message)?),
            wanted: Wanted {
                count: None,
                more_body: false,
            },
            position: Position::Given,
        })
    }

    /// `http.response.zerocopysend`: a part of an open file.
    pub(crate) fn of_descriptor(message: &Bound<'_, PyDict>) -> PyResult<Self> {
        let py = message.py();
        let object = message::file(message)?;
        let offset = message::bytes(message, "offset")?;
        let count = message::bytes(message, "count")?;
        let more_body = message::flag(message, intern!(py, "more_body"))?;
        let file = files::descriptor(&object)?;
        let object = with_position(object)?;
        if let Some(object) = &object {
            // What was written must be in the file.
            object.call_method0(intern!(py, "flush"))?;
        }
        let (offset, position) = match (offset, object) {
            (Some(offset), _) => (offset, Position::Given),
            (None, Some(object)) => {
                let at: u64 = object.call_method0(intern!(py, "tell"))?.extract()?;
                (at, Position::Object(object.unbind(), at))
            }
            (None, None) => {
                let raised = |error: io::Error| os_error(py, &error, None);
                let mut descriptor = file.try_clone().map_err(raised)?;
                let at = descriptor.stream_position().map_err(raised)?;
                (at, Position::Descriptor(descriptor, at))
            }
        };
        Ok(Self {
            origin: Origin::Open(file, offset),
            wanted: Wanted { count, more_body },
            position,
        })
    }
}

/// The file object that has a position of its own, ahead of or behind that of the descriptor: what `open` and
/// `tempfile` make. `None` for everything else, which has that of the descriptor.
fn with_position(object: Bound<'_, PyAny>) -> PyResult<Option<Bound<'_, PyAny>>> {
    let py = object.py();
    if object.is_instance_of::<PyInt>() {
        return Ok(None);
    }
    let is_file =
        |object: &Bound<'_, PyAny>| object.is_instance(IO_BASE.import(py, "io", "IOBase")?);
    let object = if is_file(&object)? {
        object
    } else {
        // `tempfile.NamedTemporaryFile` wraps what it opens.
        match object.getattr_opt(intern!(py, "file"))? {
            Some(inner) if is_file(&inner)? => inner,
            _ => return Ok(None),
        }
    };
    if object.is_instance(TEXT_IO.import(py, "io", "TextIOBase")?)? {
        return Err(PyTypeError::new_err(
            "`file` reads str: a response is bytes, open it in binary mode (\"rb\")",
        ));
    }
    Ok(Some(object))
}

static IO_BASE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static TEXT_IO: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// Why a file was not sent as it was wanted.
pub(crate) enum Failure {
    File(io::Error),
    ClientLeft,
    /// The application, or whoever cancelled it, has ended the response.
    Over,
}

struct Outcome {
    sent: u64,
    result: Result<(), Failure>,
}

/// A file on its way; nothing of Python but those who wait for it.
struct Transfer {
    exchange: Arc<Exchange>,
    outcome: Mutex<Option<Outcome>>,
    waiters: Waiters,
}

impl Transfer {
    fn lock(&self) -> MutexGuard<'_, Option<Outcome>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self: Arc<Self>, head: Option<Head>, origin: Origin, wanted: Wanted) {
        let mut sent = 0;
        let exchange = &self.exchange;
        let result = pump(exchange, head, origin, wanted, &mut sent).await;
        exchange.file_ended();
        *self.lock() = Some(Outcome { sent, result });
        let event_loop = exchange.event_loop();
        event_loop.push(Job::Wake(Arc::clone(&self) as Arc<dyn Wake>));
        // Whoever waits in `receive` has to look at the response again.
        event_loop.push(Job::Wake(Arc::clone(exchange) as Arc<dyn Wake>));
    }
}

/// Sends a file, from its first piece, with the head if that waits for it, to its last.
async fn pump(
    exchange: &Exchange,
    head: Option<Head>,
    origin: Origin,
    wanted: Wanted,
    sent: &mut u64,
) -> Result<(), Failure> {
    let is_read = exchange.wants_body(head.as_ref());
    let opened = apart(move || {
        let mut section = Section::new(origin.open()?, wanted.count);
        let length = section.length();
        let first = if is_read {
            section.read()?
        } else {
            Bytes::new()
        };
        Ok((section, length, first))
    });
    let (mut section, length, first) = match opened.await {
        Ok(opened) => opened,
        Err(error) => {
            exchange.file_missing(head);
            return Err(Failure::File(error));
        }
    };
    *sent = first.len() as u64;
    let is_all = !is_read || section.is_over();
    let first = First {
        length: if is_read && is_all {
            Some(*sent)
        } else {
            length
        },
        piece: first,
        is_all,
        more_body: wanted.more_body,
    };
    exchange.begin_file(head, first)?;
    while exchange.wants_body(None) && !section.is_over() {
        exchange.room().await?;
        let read = apart(move || {
            let piece = section.read()?;
            Ok((section, piece))
        });
        let piece;
        (section, piece) = read.await.map_err(|error| {
            exchange.abort("a file could not be read to its end");
            Failure::File(error)
        })?;
        *sent += piece.len() as u64;
        exchange.push(piece)?;
    }
    if wanted.more_body {
        exchange.room().await
    } else {
        exchange.end_body();
        Ok(())
    }
}

/// How much of a file is wanted.
struct Wanted {
    /// At most so many bytes; to the end of the file where it is absent.
    count: Option<u64>,
    more_body: bool,
}

/// The first piece of a file.
pub(crate) struct First {
    pub(crate) piece: Bytes,
    /// It is the only one.
    pub(crate) is_all: bool,
    /// That of all pieces, where it is sure.
    pub(crate) length: Option<u64>,
    pub(crate) more_body: bool,
}

/// What `send` waits for.
pub(crate) struct Sending {
    transfer: Arc<Transfer>,
    path: Option<PathBuf>,
    position: Position,
}

impl Sending {
    /// Starts to send; `head` is what waits for the first piece of the body.
    pub(crate) fn start(exchange: &Arc<Exchange>, head: Option<Head>, part: Part) -> Self {
        let Part {
            origin,
            wanted,
            position,
        } = part;
        let path = match &origin {
            Origin::Path(path) => Some(path.clone()),
            Origin::Open(..) => None,
        };
        let transfer = Arc::new(Transfer {
            exchange: Arc::clone(exchange),
            outcome: Mutex::default(),
            waiters: Waiters::default(),
        });
        let run = Arc::clone(&transfer).run(head, origin, wanted);
        exchange.event_loop().spawn(run);
        Self {
            transfer,
            path,
            position,
        }
    }

    fn move_position(&self, py: Python<'_>, sent: u64) -> PyResult<()> {
        match &self.position {
            Position::Given => Ok(()),
            Position::Object(object, from) => object
                .call_method1(py, intern!(py, "seek"), (from + sent,))
                .map(drop),
            Position::Descriptor(file, from) => {
                let mut file: &File = file;
                file.seek(SeekFrom::Start(from + sent))
                    .map(drop)
                    .map_err(|error| os_error(py, &error, None))
            }
        }
    }
}

impl Wake for Transfer {
    fn wake(&self, py: Python<'_>) {
        self.waiters.notify(py);
    }
}

impl Source for Sending {
    fn poll(&self, py: Python<'_>, _: Operation) -> PyResult<Option<Py<PyAny>>> {
        let outcome = self.transfer.lock().take();
        let Some(Outcome { sent, result }) = outcome else {
            return Ok(None);
        };
        if sent > 0 {
            self.move_position(py, sent)?;
        }
        match result {
            Ok(()) => Ok(Some(py.None())),
            Err(Failure::File(error)) => Err(os_error(py, &error, self.path.as_deref())),
            Err(Failure::ClientLeft) => Err(client_left()),
            Err(Failure::Over) => Err(PyRuntimeError::new_err("the response is over")),
        }
    }

    fn waiters(&self) -> &Waiters {
        &self.transfer.waiters
    }

    fn event_loop(&self) -> &EventLoop {
        self.transfer.exchange.event_loop()
    }
}
