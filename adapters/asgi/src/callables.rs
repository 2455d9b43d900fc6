//! `receive` and `send` as applications get them: callables that say of themselves that they are coroutine functions.
//!
//! What they return has all of a coroutine, and libraries ask before they call: asgiref's `async_to_sync` warns
//! of anything else.

use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;

/// The server's side of one scope.
pub(crate) trait Cycle: Send + Sync {
    fn receive<'py>(self: Arc<Self>, py: Python<'py>) -> PyResult<Bound<'py, PyAny>>;

    fn send<'py>(self: Arc<Self>, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>>;
}

/// The `receive` of one scope.
#[pyclass(frozen, name = "receive")]
pub(crate) struct Receive(pub(crate) Arc<dyn Cycle>);

#[pymethods]
impl Receive {
    fn __call__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Arc::clone(&self.0).receive(py)
    }

    #[classattr]
    fn _is_coroutine_marker(py: Python<'_>) -> PyResult<Py<PyAny>> {
        marker(py)
    }

    #[classattr]
    fn _is_coroutine(py: Python<'_>) -> PyResult<Py<PyAny>> {
        older_marker(py)
    }
}

/// The `send` of one scope.
#[pyclass(frozen, name = "send")]
pub(crate) struct Sending(pub(crate) Arc<dyn Cycle>);

#[pymethods]
impl Sending {
    fn __call__<'py>(&self, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        Arc::clone(&self.0).send(message)
    }

    #[classattr]
    fn _is_coroutine_marker(py: Python<'_>) -> PyResult<Py<PyAny>> {
        marker(py)
    }

    #[classattr]
    fn _is_coroutine(py: Python<'_>) -> PyResult<Py<PyAny>> {
        older_marker(py)
    }
}

/// What `inspect.markcoroutinefunction` leaves behind, from Python 3.12 on.
fn marker(py: Python<'_>) -> PyResult<Py<PyAny>> {
    attribute_or_none(py, "inspect", "_is_coroutine_mark")
}

/// What `asyncio.iscoroutinefunction` looks for, until Python 3.13.
fn older_marker(py: Python<'_>) -> PyResult<Py<PyAny>> {
    attribute_or_none(py, "asyncio.coroutines", "_is_coroutine")
}

fn attribute_or_none(py: Python<'_>, module: &str, name: &str) -> PyResult<Py<PyAny>> {
    let attribute = py.import(module)?.getattr_opt(name)?;
    Ok(attribute.map_or_else(|| py.None(), Bound::unbind))
}

/// Who runs the application in a task.
pub(crate) trait Runs: Send + Sync {
    /// The application has returned or raised: whatever it left undone is undone for good.
    fn ended(self: Arc<Self>, py: Python<'_>, raised: Option<&PyErr>);
}

/// What asyncio calls with a task that is done.
#[pyclass(frozen)]
pub(crate) struct WhenDone(pub(crate) Arc<dyn Runs>);

#[pymethods]
impl WhenDone {
    fn __call__(&self, task: &Bound<'_, PyAny>) {
        let raised = raised(task);
        Arc::clone(&self.0).ended(task.py(), raised.as_ref());
    }
}

/// What a task that is done has raised.
pub(crate) fn raised(task: &Bound<'_, PyAny>) -> Option<PyErr> {
    task.call_method0(intern!(task.py(), "result")).err()
}
