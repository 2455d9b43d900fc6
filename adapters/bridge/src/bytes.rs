//! Bytes of Python for the network: small ones are copied, large ones are lent.
//!
//! A lent object must be released with the GIL held, which an I/O thread never is. So it returns to a
//! [`Lender`], whose owner releases what has come back whenever it is attached anyway.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyo3::{Bound, Python, ffi};

/// Up to here a copy is cheaper than the way back.
const COPY_LIMIT: usize = 16 * 1024;
/// When this much has come back and nobody was attached, the owner is asked to be.
const RETURNED_LIMIT: usize = 4 * 1024 * 1024;

/// Lends Python's bytes to the network and takes them back.
pub struct Lender {
    returned: Mutex<Vec<Py<PyBytes>>>,
    returned_bytes: AtomicUsize,
    /// Makes the owner call [`Lender::release`] soon.
    ask: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Lender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lender")
    }
}

impl Lender {
    pub fn new(ask: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            returned: Mutex::default(),
            returned_bytes: AtomicUsize::new(0),
            ask: Box::new(ask),
        })
    }

    /// Takes `bytes`, `bytearray` or `memoryview`.
    ///
    /// # Errors
    /// `TypeError` that names `what` for anything else.
    pub fn bytes(self: &Arc<Self>, object: &Bound<'_, PyAny>, what: &str) -> PyResult<Bytes> {
        match object.cast::<PyBytes>() {
            Ok(bytes) => Ok(self.lend(bytes)),
            Err(_) => copy_buffer(object, what),
        }
    }

    /// Takes `bytes`.
    pub fn lend(self: &Arc<Self>, bytes: &Bound<'_, PyBytes>) -> Bytes {
        let slice = bytes.as_bytes();
        if slice.len() <= COPY_LIMIT {
            return Bytes::copy_from_slice(slice);
        }
        // A long response that holds its thread is the only one there to take its own blocks back.
        self.release(bytes.py());
        Bytes::from_owner(Lent {
            start: slice.as_ptr(),
            length: slice.len(),
            object: Some(bytes.clone().unbind()),
            lender: Arc::clone(self),
        })
    }

    /// Drops what the network has given back.
    pub fn release(&self, _attached: Python<'_>) {
        if self.returned_bytes.load(Ordering::Relaxed) == 0 {
            return;
        }
        let returned = {
            let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
            self.returned_bytes.store(0, Ordering::Relaxed);
            std::mem::take(&mut *returned)
        };
        drop(returned);
    }

    fn give_back(&self, object: Py<PyBytes>, length: usize) {
        let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        returned.push(object);
        drop(returned);
        let before = self.returned_bytes.fetch_add(length, Ordering::Relaxed);
        if before < RETURNED_LIMIT && before + length >= RETURNED_LIMIT {
            (self.ask)();
        }
    }
}

fn copy_buffer(object: &Bound<'_, PyAny>, what: &str) -> PyResult<Bytes> {
    let buffer = PyBuffer::<u8>::get(object).map_err(|_| {
        let kind = object
            .get_type()
            .name()
            .map_or_else(|_| "object".to_owned(), |name| name.to_string());
        PyTypeError::new_err(format!("{what} must be bytes, not {kind}"))
    })?;
    Ok(buffer.to_vec(object.py())?.into())
}

/// A `bytes` object that the network reads.
struct Lent {
    start: *const u8,
    length: usize,
    /// `None` only while it is dropped.
    object: Option<Py<PyBytes>>,
    lender: Arc<Lender>,
}

// SAFETY: the pointer reads the buffer of an immutable `bytes` object that `object` keeps alive; nothing
// is written through it, so any thread may read it.
unsafe impl Send for Lent {}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `start` and `length` are those of the `bytes` object in `object`, which is immutable,
        // never moves, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            self.lender.give_back(object, self.length);
        }
    }
}

/// A `bytes` object whose size is known before its content, and that is filled without the GIL.
///
/// A large upload then exists once in memory, and not a second time while it is copied.
pub struct Filling {
    object: Py<PyBytes>,
    start: *mut u8,
    size: usize,
    filled: usize,
}

// SAFETY: nothing but `self` knows the object before `finish`, so that whichever thread has `self` may
// write to its buffer.
unsafe impl Send for Filling {}

impl fmt::Debug for Filling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filling({} of {})", self.filled, self.size)
    }
}

impl Filling {
    /// Reserves an object of `size` bytes; memory is used as far as they are written.
    ///
    /// # Errors
    /// `MemoryError`; `ValueError` for sizes that Python has shared objects for.
    pub fn new(py: Python<'_>, size: usize) -> PyResult<Self> {
        let too_large = |_| pyo3::exceptions::PyMemoryError::new_err(());
        let length = ffi::Py_ssize_t::try_from(size).map_err(too_large)?;
        if size < 2 {
            return Err(pyo3::exceptions::PyValueError::new_err("too small"));
        }
        // SAFETY: attached; without bytes to copy this makes a new object of that size whose content is
        // the caller's to write, or returns NULL with an exception set.
        let object = unsafe {
            let object = ffi::PyBytes_FromStringAndSize(std::ptr::null(), length);
            Bound::from_owned_ptr_or_err(py, object)?.cast_into_unchecked::<PyBytes>()
        };
        // SAFETY: attached, and `object` is a `bytes` object.
        let start = unsafe { ffi::PyBytes_AsString(object.as_ptr()) }.cast();
        Ok(Self {
            object: object.unbind(),
            start,
            size,
            filled: 0,
        })
    }

    /// How many bytes are missing.
    pub fn room(&self) -> usize {
        self.size - self.filled
    }

    /// Adds as many of `bytes` as there is room for.
    pub fn push(&mut self, bytes: &[u8]) {
        let count = bytes.len().min(self.room());
        // SAFETY: `start` is the buffer of `object`, which `self` keeps alive; it has `size` bytes, so that
        // `count` more fit after the first `filled`. `bytes` lies elsewhere: nobody else knows the buffer.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(self.filled), count);
        }
        self.filled += count;
    }

    /// The object; `None` while bytes are missing.
    pub fn finish(self, py: Python<'_>) -> Option<Bound<'_, PyBytes>> {
        (self.room() == 0).then(|| self.object.into_bound(py))
    }
}
