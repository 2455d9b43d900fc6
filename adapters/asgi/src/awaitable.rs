//! What `receive()` and `send()` return: awaitables that complete at once whenever they can.
//!
//! Nothing is taken from its source before somebody is there to get it: a task that is cancelled while
//! it waits loses no message, and two tasks may wait for the same source. They have the methods of a
//! coroutine, because `asyncio.create_task(receive())` takes nothing less.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyStopIteration;
use pyo3::intern;
use pyo3::prelude::*;

use crate::event_loop::EventLoop;

/// Where an awaitable gets its result from.
pub(crate) trait Source: Send + Sync {
    /// The result if it is there; otherwise the source calls [`Waiters::notify`] when it may be.
    fn poll(&self, py: Python<'_>, operation: Operation) -> PyResult<Option<Py<PyAny>>>;

    fn waiters(&self) -> &Waiters;

    fn event_loop(&self) -> &EventLoop;
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Receive,
    Send,
}

/// Futures of asyncio that tasks wait on.
#[derive(Default)]
pub(crate) struct Waiters {
    futures: Mutex<Vec<Py<PyAny>>>,
}

impl Waiters {
    fn add(&self, future: Py<PyAny>) {
        let mut futures = self.futures.lock().unwrap_or_else(PoisonError::into_inner);
        futures.push(future);
    }

    /// Forgets a future that nobody waits on any more.
    fn remove(&self, future: &Py<PyAny>) {
        let mut futures = self.futures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = futures.iter().position(|known| known.is(future)) {
            let removed = futures.swap_remove(position);
            drop(futures);
            drop(removed);
        }
    }

    /// Lets every waiting task look again.
    pub(crate) fn notify(&self, py: Python<'_>) {
        let futures = {
            let mut futures = self.futures.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *futures)
        };
        for future in futures {
            let future = future.bind(py);
            // A future that was cancelled has nobody waiting any more.
            let done = future
                .call_method0(intern!(py, "done"))
                .and_then(|done| done.is_truthy())
                .unwrap_or(true);
            if !done {
                let _ = future.call_method1(intern!(py, "set_result"), (py.None(),));
            }
        }
    }
}

/// The result of `source`, now or later.
pub(crate) fn awaitable<'py>(
    py: Python<'py>,
    source: Arc<dyn Source>,
    operation: Operation,
) -> PyResult<Bound<'py, PyAny>> {
    // Not asked here: what a task that never runs has been given is lost.
    let awaitable = Awaitable {
        waiting: Mutex::new(Some(Waiting {
            source,
            operation,
            future: None,
        })),
    };
    Ok(Bound::new(py, awaitable)?.into_any())
}

/// An awaitable that has completed with `None`.
pub(crate) fn done(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static DONE: pyo3::sync::PyOnceLock<Py<Done>> = pyo3::sync::PyOnceLock::new();
    let done = DONE.get_or_try_init(py, || Py::new(py, Done))?;
    Ok(done.bind(py).clone().into_any())
}

/// Stateless, so that one serves every request.
#[pyclass(frozen)]
struct Done;

#[pymethods]
impl Done {
    fn __await__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self) -> Option<()> {
        None
    }

    fn send(&self, _value: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(PyStopIteration::new_err(()))
    }

    #[pyo3(signature = (kind, value=None, traceback=None))]
    fn throw(
        &self,
        kind: Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        Err(thrown(kind, value, traceback))
    }

    fn close(&self) {}
}

/// What `coroutine.throw` raises, in its one-argument and its older three-argument form.
fn thrown(
    kind: Bound<'_, PyAny>,
    value: Option<Bound<'_, PyAny>>,
    _traceback: Option<Bound<'_, PyAny>>,
) -> PyErr {
    PyErr::from_value(value.filter(|value| !value.is_none()).unwrap_or(kind))
}

#[pyclass(frozen)]
struct Awaitable {
    /// `None` once the result was taken, or nobody wants it any more.
    waiting: Mutex<Option<Waiting>>,
}

struct Waiting {
    source: Arc<dyn Source>,
    operation: Operation,
    /// What the task waits on now.
    future: Option<Py<PyAny>>,
}

impl Awaitable {
    fn lock(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Awaitable {
    fn __await__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    /// Ends with the result, or yields a future that asyncio waits for before it asks again.
    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        // Taken in a statement of its own: no lock is held while Python code may run.
        let waiting = self.lock().take();
        let Some(mut waiting) = waiting else {
            return Err(PyStopIteration::new_err(()));
        };
        if let Some(result) = waiting.source.poll(py, waiting.operation)? {
            return Err(PyStopIteration::new_err((result,)));
        }
        let future = waiting.source.event_loop().create_future(py)?;
        waiting.source.waiters().add(future.clone().unbind());
        waiting.future = Some(future.clone().unbind());
        *self.lock() = Some(waiting);
        // The future's own iterator marks it as waited for and yields it.
        let step = future.call_method0(intern!(py, "__await__"))?;
        Ok(step.call_method0(intern!(py, "__next__"))?.unbind())
    }

    fn send(&self, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.__next__(value.py())
    }

    #[pyo3(signature = (kind, value=None, traceback=None))]
    fn throw(
        &self,
        kind: Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.close();
        Err(thrown(kind, value, traceback))
    }

    fn close(&self) {
        let waiting = self.lock().take();
        if let Some(waiting) = waiting
            && let Some(future) = &waiting.future
        {
            // A task that gives up again and again, with a timeout say, must not leave a trail.
            waiting.source.waiters().remove(future);
        }
    }
}
