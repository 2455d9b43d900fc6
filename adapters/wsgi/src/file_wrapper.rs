//! `wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling").
//!
//! An application that returns the wrapper itself lets the server read: a file on disk without the GIL
//! and in large pieces, anything else with its own `read`. Middleware may iterate the wrapper instead.

use pyo3::exceptions::{PyStopIteration, PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyType};
use twinspan::file::DiskFile;
use twinspan_bridge::files;

/// A file-like object that an application may return as its response.
#[pyclass(frozen)]
pub(crate) struct FileWrapper {
    file: Py<PyAny>,
    block_size: usize,
}

#[pymethods]
impl FileWrapper {
    #[new]
    #[pyo3(signature = (file, block_size=8192))]
    fn new(file: Bound<'_, PyAny>, block_size: i64) -> PyResult<Self> {
        let py = file.py();
        let text = TEXT_IO.import(py, "io", "TextIOBase")?;
        if file.is_instance(text)? {
            return Err(PyTypeError::new_err(
                "the file reads str: a response is bytes, open it in binary mode (\"rb\")",
            ));
        }
        if !file.hasattr(intern!(py, "read"))? {
            let problem = format!("{} has no method `read`", file.get_type().name()?);
            return Err(PyTypeError::new_err(problem));
        }
        let block_size = usize::try_from(block_size)
            .ok()
            .filter(|size| *size > 0)
            .ok_or_else(|| PyValueError::new_err("the block size must be 1 or more"))?;
        Ok(Self {
            file: file.unbind(),
            block_size,
        })
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let block = self.read(py, u64::MAX)?;
        if block.as_bytes().is_empty() {
            return Err(PyStopIteration::new_err(()));
        }
        Ok(block)
    }

    /// Closes the file, where it can be closed.
    pub(crate) fn close(&self, py: Python<'_>) -> PyResult<()> {
        match self.file.bind(py).getattr_opt(intern!(py, "close"))? {
            Some(close) => close.call0().map(drop),
            None => Ok(()),
        }
    }

    // Werkzeug, which wraps this object for a range, reads all that comes before the range where it cannot seek.

    fn seekable(&self, py: Python<'_>) -> PyResult<bool> {
        match self.file.bind(py).getattr_opt(intern!(py, "seekable"))? {
            Some(seekable) => seekable.call0()?.is_truthy(),
            None => Ok(false),
        }
    }

    #[pyo3(signature = (*arguments))]
    fn seek<'py>(
        &self,
        arguments: &Bound<'py, pyo3::types::PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let file = self.file.bind(arguments.py());
        file.call_method1(intern!(arguments.py(), "seek"), arguments)
    }

    fn tell<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.file.bind(py).call_method0(intern!(py, "tell"))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.file)
    }
}

impl FileWrapper {
    /// The next block by the file's own `read`, at most `limit` bytes; empty at the end.
    pub(crate) fn read<'py>(&self, py: Python<'py>, limit: u64) -> PyResult<Bound<'py, PyBytes>> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let size = self.block_size.min(limit);
        let block = self
            .file
            .bind(py)
            .call_method1(intern!(py, "read"), (size,))?;
        block.cast_into::<PyBytes>().map_err(|error| {
            let kind = error.into_inner().get_type();
            PyTypeError::new_err(format!(
                "a response is bytes, and the file's `read` gave {}: open it in binary mode",
                kind.name()
                    .map_or_else(|_| "an object".to_owned(), |name| name.to_string())
            ))
        })
    }

    /// The file on disk that is left to be sent, where it is one.
    pub(crate) fn on_disk(&self, py: Python<'_>) -> Option<DiskFile> {
        let object = self.file.bind(py);
        let file = files::plain_file(object)?;
        let position = object.call_method0(intern!(py, "tell")).ok()?;
        let position: u64 = position.extract().ok()?;
        DiskFile::at(file, position).ok()
    }
}

static TEXT_IO: PyOnceLock<Py<PyType>> = PyOnceLock::new();
