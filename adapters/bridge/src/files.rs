//! Files of Python that can be read without Python.

use std::fs::File;
use std::os::fd::{BorrowedFd, RawFd};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

/// The file behind `object`, as a descriptor of its own, if reading that gives what `object.read()` would.
///
/// Only for what `open(path, "rb")` and `tempfile.TemporaryFile()` make. Everything else may read in a way
/// of its own: a `GzipFile` has a `fileno()` too, also below a `BufferedReader`.
pub fn plain_file(object: &Bound<'_, PyAny>) -> Option<File> {
    let fd = plain_fd(object).ok()??;
    // SAFETY: not negative, and `object`, which is open as its `fileno()` did not raise, owns the
    // descriptor; it is used here for one `dup` only. Should the application close the file on another
    // thread at this moment, `dup` fails, or copies what took the number: its own race, as with every
    // use of the file.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned().ok().map(File::from)
}

fn plain_fd(object: &Bound<'_, PyAny>) -> PyResult<Option<RawFd>> {
    let py = object.py();
    let raw = if is(object, &FILE_IO, "FileIO")? {
        object.clone()
    } else if is(object, &BUFFERED_READER, "BufferedReader")? {
        object.getattr(intern!(py, "raw"))?
    } else if is(object, &BUFFERED_RANDOM, "BufferedRandom")? {
        // What was written must be in the file.
        object.call_method0(intern!(py, "flush"))?;
        object.getattr(intern!(py, "raw"))?
    } else {
        return Ok(None);
    };
    if !is(&raw, &FILE_IO, "FileIO")? || has_own_read(object)? || has_own_read(&raw)? {
        return Ok(None);
    }
    if !raw.call_method0(intern!(py, "readable"))?.is_truthy()? {
        return Ok(None);
    }
    let fd: RawFd = raw.call_method0(intern!(py, "fileno"))?.extract()?;
    Ok((fd >= 0).then_some(fd))
}

/// Whether `object` is of exactly this class: one derived from it may read differently.
fn is(
    object: &Bound<'_, PyAny>,
    known: &'static PyOnceLock<Py<PyType>>,
    name: &str,
) -> PyResult<bool> {
    let class = known.import(object.py(), "io", name)?;
    Ok(object.get_type().is(class))
}

/// Whether `read` was replaced on the object itself.
fn has_own_read(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let attributes = object.getattr(intern!(object.py(), "__dict__"))?;
    attributes
        .cast_into::<PyDict>()?
        .contains(intern!(object.py(), "read"))
}

static FILE_IO: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static BUFFERED_READER: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static BUFFERED_RANDOM: PyOnceLock<Py<PyType>> = PyOnceLock::new();
