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
