//! Files of Python that are read without Python.

use std::fs::File;
use std::os::fd::{BorrowedFd, RawFd};

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyInt, PyType};
use rustix::io::Errno;

use crate::errors::os_error;

/// The file behind `object`, as a descriptor of its own, if reading that gives what `object.read()` would.
///
/// Only for what `open(path, "rb")` and `tempfile.TemporaryFile()` make. Everything else may read in a way
/// of its own: a `GzipFile` has a `fileno()` too, also below a `BufferedReader`.
pub fn plain_file(object: &Bound<'_, PyAny>) -> Option<File> {
    let fd = plain_fd(object).ok()??;
    duplicate(fd).ok()
}

/// A descriptor of its own for what `object` stands for: a descriptor's number, or something with `fileno()`.
///
/// # Errors
/// `TypeError` for anything else, what `fileno()` raises, and `OSError` for a number that is not open.
pub fn descriptor(object: &Bound<'_, PyAny>) -> PyResult<File> {
    let py = object.py();
    let number = if object.is_instance_of::<PyInt>() && !object.is_instance_of::<PyBool>() {
        object.clone()
    } else if let Some(fileno) = object.getattr_opt(intern!(py, "fileno"))? {
        fileno.call0()?
    } else {
        let kind = object.get_type();
        return Err(PyTypeError::new_err(format!(
            "`file` must be a file with a descriptor, not {}",
            kind.name()?
        )));
    };
    // What the system says of a number that cannot be one.
    let fd: RawFd = number.extract().unwrap_or(-1);
    duplicate(fd).map_err(|error| os_error(py, &error, None))
}

fn duplicate(fd: RawFd) -> std::io::Result<File> {
    if fd < 0 {
        return Err(Errno::BADF.into());
    }
    // SAFETY: not negative; whoever named the descriptor says that it is open. It is used here for one
    // `dup` only. Should it be closed on another thread at this moment, `dup` fails, or copies what took
    // the number: the application's own race, as with every use of a descriptor.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned().map(File::from)
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
