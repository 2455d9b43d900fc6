//! ASGI's lifespan protocol: `startup` before the worker accepts, `shutdown` after it has drained.
//!
//! Each application has its own, so that one that takes no part in it, hangs or fails never decides for
//! another. The application's coroutine is joined with the runtime by `pyo3-async-runtimes`: this is a
//! control path, where 20 µs do not matter.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use pyo3_async_runtimes::TaskLocals;
use tokio::sync::oneshot;
use tracing::{debug, warn};
use twinspan::app::{AppError, BoxFuture};
use twinspan::config::LifespanMode;
use twinspan_bridge::errors::{summary, traceback};

use crate::application::Shared;
use crate::awaitable::{Operation, Source, Waiters, awaitable, done};
use crate::event_loop::EventLoop;
use crate::message;

/// The lifespan of one application.
pub(crate) struct Lifespan {
    shared: Arc<Shared>,
    event_loop: Arc<EventLoop>,
    mode: LifespanMode,
    running: Mutex<Option<Running>>,
}

/// An application that has started and waits for its shutdown.
struct Running {
    cycle: Arc<Cycle>,
    /// The application's own coroutine, to its end.
    coroutine: Coroutine,
    shutdown: oneshot::Receiver<Result<(), String>>,
}

type Coroutine = BoxFuture<'static, PyResult<Py<PyAny>>>;

/// The state between `receive` and `send`.
struct Cycle {
    event_loop: Arc<EventLoop>,
    state: Mutex<State>,
    waiters: Waiters,
}

#[derive(Default)]
struct State {
    /// The application has asked for its first message: it takes part.
    took_part: bool,
    shutting_down: bool,
    shutdown_received: bool,
    startup: Option<oneshot::Sender<Result<(), String>>>,
    shutdown: Option<oneshot::Sender<Result<(), String>>>,
}

impl Lifespan {
    pub(crate) fn new(shared: Arc<Shared>, event_loop: Arc<EventLoop>, mode: LifespanMode) -> Self {
        Self {
            shared,
            event_loop,
            mode,
            running: Mutex::default(),
        }
    }

    pub(crate) async fn startup(&self) -> Result<(), AppError> {
        if self.mode == LifespanMode::Off {
            return Ok(());
        }
        let (startup_send, mut startup) = oneshot::channel();
        let (shutdown_send, shutdown) = oneshot::channel();
        let cycle = Arc::new(Cycle {
            event_loop: Arc::clone(&self.event_loop),
            state: Mutex::new(State {
                startup: Some(startup_send),
                shutdown: Some(shutdown_send),
                ..State::default()
            }),
            waiters: Waiters::default(),
        });
        let mut coroutine = self.begin(&cycle).await?;
        tokio::select! {
            biased;
            answer = &mut startup => match answer {
                Ok(Ok(())) => {}
                Ok(Err(message)) => return Err(failed(message)),
                Err(_) => return Err(failed("the event loop has stopped".into())),
            },
            result = &mut coroutine => {
                // It may have answered and returned at once.
                match startup.try_recv() {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(message)) => return Err(failed(message)),
                    Err(_) => return self.ended_early(&cycle, result),
                }
            }
        }
        let running = Running {
            cycle,
            coroutine,
            shutdown,
        };
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        Ok(())
    }

    /// Calls the application on the loop's thread.
    async fn begin(&self, cycle: &Arc<Cycle>) -> Result<Coroutine, AppError> {
        let (send, receive) = oneshot::channel();
        let (shared, cycle) = (Arc::clone(&self.shared), Arc::clone(cycle));
        self.event_loop.run(move |py, event_loop| {
            let _ = send.send(begin(py, event_loop, &shared, cycle));
        });
        match receive.await {
            Ok(Ok(coroutine)) => Ok(coroutine),
            Ok(Err(error)) => Ok(Box::pin(std::future::ready(Err(error)))),
            Err(_) => Err(failed("the event loop has stopped".into())),
        }
    }

    /// The application ended without an answer: it takes no part, or it broke.
    fn ended_early(&self, cycle: &Cycle, result: PyResult<Py<PyAny>>) -> Result<(), AppError> {
        let took_part = cycle.lock().took_part;
        let app = &self.shared.name;
        let problem = match &result {
            Ok(_) => "it returned without `lifespan.startup.complete`".to_owned(),
            Err(error) => Python::attach(|py| {
                if took_part {
                    warn!(%app, "lifespan startup raised\n{}", traceback(py, error).trim_end());
                }
                summary(py, error)
            }),
        };
        if took_part || self.mode == LifespanMode::On {
            return Err(failed(problem));
        }
        debug!(%app, problem, "takes no part in the lifespan protocol");
        Ok(())
    }

    pub(crate) async fn shutdown(&self) -> Result<(), AppError> {
        let running = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(Running {
            cycle,
            coroutine,
            mut shutdown,
        }) = running
        else {
            return Ok(());
        };
        let waiting = Arc::clone(&cycle);
        cycle.lock().shutting_down = true;
        self.event_loop.run(move |py, _| waiting.waiters.notify(py));
        let answer = tokio::select! {
            biased;
            answer = &mut shutdown => answer,
            result = coroutine => {
                if let Err(error) = &result {
                    Python::attach(|py| {
                        warn!(app = %self.shared.name, "lifespan shutdown raised\n{}", traceback(py, error).trim_end());
                    });
                }
                // Returning without a word is how an application without shutdown work ends.
                shutdown.try_recv().or(Ok(Ok(())))
            }
        };
        match answer {
            Ok(Err(message)) => Err(failed(message)),
            Ok(Ok(())) | Err::<_, oneshot::error::RecvError>(_) => Ok(()),
        }
    }
}

fn failed(problem: String) -> AppError {
    AppError::Failed(format!("lifespan: {problem}"))
}

fn begin(
    py: Python<'_>,
    event_loop: &EventLoop,
    shared: &Shared,
    cycle: Arc<Cycle>,
) -> PyResult<Coroutine> {
    let asgi = PyDict::new(py);
    asgi.set_item("version", "3.0")?;
    asgi.set_item("spec_version", "2.0")?;
    let state = PyDict::new(py);
    let scope = PyDict::new(py);
    scope.set_item("type", "lifespan")?;
    scope.set_item("asgi", asgi)?;
    scope.set_item("state", &state)?;
    shared.set_state(state.unbind());
    let face = Bound::new(py, Face { cycle })?;
    let coroutine = shared.call(py, scope, face.as_any())?;
    let locals = TaskLocals::new(event_loop.event_loop(py).clone());
    let future = pyo3_async_runtimes::into_future_with_locals(&locals, coroutine)?;
    Ok(Box::pin(future))
}

impl State {
    /// Where the answer to the startup, or to the shutdown, goes.
    fn take(&mut self, is_startup: bool) -> Option<oneshot::Sender<Result<(), String>>> {
        if is_startup {
            self.startup.take()
        } else {
            self.shutdown.take()
        }
    }
}

impl Cycle {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Arc<Cycle> {
    fn poll(&self, py: Python<'_>, _: Operation) -> PyResult<Option<Py<PyAny>>> {
        let mut state = self.lock();
        let kind = if !state.took_part {
            state.took_part = true;
            intern!(py, "lifespan.startup")
        } else if state.shutting_down && !state.shutdown_received {
            state.shutdown_received = true;
            intern!(py, "lifespan.shutdown")
        } else {
            return Ok(None);
        };
        drop(state);
        let message = PyDict::new(py);
        message.set_item(intern!(py, "type"), kind)?;
        Ok(Some(message.into_any().unbind()))
    }

    fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    fn event_loop(&self) -> &EventLoop {
        &self.event_loop
    }
}

/// `receive` and `send` of a lifespan scope.
#[pyclass(frozen)]
struct Face {
    cycle: Arc<Cycle>,
}

#[pymethods]
impl Face {
    fn receive<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, Arc::new(Arc::clone(&self.cycle)), Operation::Receive)
    }

    fn send<'py>(&self, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = message.py();
        let (message, kind) = message::open(message)?;
        let text = || -> PyResult<String> {
            match message.get_item(intern!(py, "message"))? {
                Some(text) => Ok(text.cast::<PyString>()?.to_string()),
                None => Ok(String::new()),
            }
        };
        let (answer, is_startup) = match kind.to_str()? {
            "lifespan.startup.complete" => (Ok(()), true),
            "lifespan.startup.failed" => (Err(text()?), true),
            "lifespan.shutdown.complete" => (Ok(()), false),
            "lifespan.shutdown.failed" => (Err(text()?), false),
            other => {
                return Err(PyRuntimeError::new_err(format!(
                    "unexpected ASGI message `{other}` in a lifespan scope"
                )));
            }
        };
        let to = self.cycle.lock().take(is_startup);
        let Some(to) = to else {
            return Err(PyRuntimeError::new_err(format!(
                "unexpected ASGI message `{kind}`: it was answered before"
            )));
        };
        // An error means that nobody waits any more: the start took too long.
        let _ = to.send(answer);
        done(py)
    }
}
