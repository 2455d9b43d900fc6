//! Context variables (PEP 567): what one request sets, no other sees.

use pyo3::prelude::*;
use pyo3::{Bound, Python, ffi};

/// Runs `run` with no context variable set; what it sets is gone afterwards.
pub fn fresh<T>(py: Python<'_>, run: impl FnOnce() -> T) -> PyResult<T> {
    // SAFETY: attached; returns a new reference, or NULL with an exception set.
    let context = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_New())? };
    // SAFETY: attached, and `context` is a context that nothing else has entered.
    if unsafe { ffi::PyContext_Enter(context.as_ptr()) } < 0 {
        return Err(PyErr::fetch(py));
    }
    let entered = Entered(&context);
    let result = run();
    drop(entered);
    Ok(result)
}

/// Leaves the context also when there is a panic.
struct Entered<'a, 'py>(&'a Bound<'py, PyAny>);

impl Drop for Entered<'_, '_> {
    fn drop(&mut self) {
        // SAFETY: attached, as the lifetime of the `Bound` says, and on the thread that has entered it.
        if unsafe { ffi::PyContext_Exit(self.0.as_ptr()) } < 0 {
            // Whoever has changed contexts under us has a context of their own now.
            drop(PyErr::take(self.0.py()));
        }
    }
}
