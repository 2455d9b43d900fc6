//! ASGI's lifespan protocol: `startup` before the worker accepts, `shutdown` after it has drained.
//!
//! Each application has its own, so that one that takes no part in it, hangs or fails never decides for
//! another. What an application makes of it is judged here; what follows from that for the server is the
//! worker's affair.
//!
//! An application takes part once it has received `lifespan.startup` and sent nothing of another protocol.
//! Before that, an exception is how the specification lets it refuse; whether it is a refusal or a bug cannot
//! be known, so one that does not look like a refusal is logged whole.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use pyo3::exceptions::{PyAssertionError, PyKeyError, PyNotImplementedError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use pyo3_async_runtimes::TaskLocals;
use tokio::sync::{Notify, oneshot};
use tracing::{debug, error, warn};
use twinspan::app::LifespanError;
use twinspan::config::LifespanMode;
use twinspan_bridge::errors::{is_cancellation, summary, traceback};

use crate::application::Shared;
use crate::awaitable::{Operation, Source, Waiters, awaitable, done};
use crate::callables::Cycle;
use crate::event_loop::EventLoop;
use crate::message::{self, unexpected};

/// How long one waits for the GIL to learn where an application hangs: it may hold it.
const WHEREABOUTS_LIMIT: Duration = Duration::from_secs(1);

/// The lifespan of one application object.
pub(crate) struct Lifespan {
    shared: Arc<Shared>,
    event_loop: Arc<EventLoop>,
    cycle: Arc<Lifecycle>,
}

/// The state between `receive` and `send`.
struct Lifecycle {
    app: Arc<str>,
    mode: LifespanMode,
    event_loop: Arc<EventLoop>,
    state: Mutex<State>,
    waiters: Waiters,
    /// Told when the lifespan is required and has broken.
    broken: Notify,
    /// Python's name for the thread of the loop.
    thread: OnceLock<u64>,
}

struct State {
    phase: Phase,
    /// The application has sent a message of another protocol before it answered: it does not look at what it
    /// is called for.
    confused: bool,
    /// Who waits for the end of the startup, or of the shutdown.
    waiting: Option<oneshot::Sender<Answer>>,
    /// asyncio keeps only weak references to its tasks.
    task: Option<Py<PyAny>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The application has received nothing yet.
    Called,
    /// It has received `lifespan.startup`.
    Starting,
    Serving,
    /// It is to receive `lifespan.shutdown`.
    Stopping,
    /// It has received it.
    Leaving,
    /// It failed while it served.
    Broken,
    /// It has nothing more to say, or was never asked.
    Over,
}

/// What became of a startup or a shutdown.
enum Answer {
    Complete,
    /// `lifespan.startup.failed`, `lifespan.shutdown.failed`
    Failed(String),
    /// It returned or raised without an answer.
    Ended {
        took_part: bool,
        raised: Option<PyErr>,
    },
}

impl Lifespan {
    pub(crate) fn new(shared: Arc<Shared>, event_loop: Arc<EventLoop>, mode: LifespanMode) -> Self {
        let cycle = Arc::new(Lifecycle {
            app: Arc::clone(&shared.name),
            mode,
            event_loop: Arc::clone(&event_loop),
            state: Mutex::new(State {
                phase: Phase::Over,
                confused: false,
                waiting: None,
                task: None,
            }),
            waiters: Waiters::default(),
            broken: Notify::new(),
            thread: OnceLock::new(),
        });
        Self {
            shared,
            event_loop,
            cycle,
        }
    }

    /// Whether the application is ever asked.
    pub(crate) fn is_used(&self) -> bool {
        self.cycle.mode != LifespanMode::Off
    }

    pub(crate) async fn startup(&self) -> Result<(), LifespanError> {
        if !self.is_used() {
            return Ok(());
        }
        let (send, answer) = oneshot::channel();
        {
            let mut state = self.cycle.lock();
            state.phase = Phase::Called;
            state.waiting = Some(send);
        }
        let (shared, cycle) = (Arc::clone(&self.shared), Arc::clone(&self.cycle));
        self.event_loop.run(move |py, _| {
            if let Err(error) = begin(py, &shared, &cycle) {
                cycle.ended(py, Some(error));
            }
        });
        match answer.await {
            Ok(Answer::Complete) => Ok(()),
            Ok(Answer::Failed(message)) => Err(failed("startup", &message)),
            Ok(Answer::Ended { took_part, raised }) if took_part => Err(Python::attach(|py| {
                let did = raised.as_ref().map_or_else(
                    || "returned without `lifespan.startup.complete`".to_owned(),
                    |error| format!("raised {}", summary(py, error)),
                );
                LifespanError {
                    problem: format!("its lifespan startup {did}"),
                    hint: None,
                    traceback: raised.map(|error| traceback(py, &error)),
                }
            })),
            Ok(Answer::Ended { raised, .. }) => self.takes_no_part(raised),
            Err(_) => Err(loop_has_stopped()),
        }
    }

    fn takes_no_part(&self, raised: Option<PyErr>) -> Result<(), LifespanError> {
        let app = &self.shared.name;
        Python::attach(|py| {
            if self.cycle.mode != LifespanMode::Auto {
                let did = raised.as_ref().map_or_else(
                    || "it returned without an answer".to_owned(),
                    |error| format!("it raised {}", summary(py, error)),
                );
                return Err(LifespanError {
                    problem: format!("it takes no part in the lifespan protocol: {did}"),
                    hint: Some("`--lifespan auto` goes on without, `off` does not ask".into()),
                    traceback: raised.map(|error| traceback(py, &error)),
                });
            }
            match raised {
                None => debug!(%app, "takes no part in the lifespan protocol"),
                Some(error) if is_refusal(py, &error) => {
                    debug!(%app, "takes no part in the lifespan protocol\n{}", traceback(py, &error).trim_end());
                }
                Some(error) => warn!(
                    %app,
                    "an application raised when its lifespan began, and goes on without one; \
                     `--lifespan on` makes that an error, `off` does not ask\n{}",
                    traceback(py, &error).trim_end()
                ),
            }
            Ok(())
        })
    }

    /// Returns when a lifespan that is required has broken.
    pub(crate) async fn broken(&self) {
        self.cycle.broken.notified().await;
    }

    pub(crate) async fn shutdown(&self) -> Result<(), LifespanError> {
        let (send, answer) = oneshot::channel();
        {
            let mut state = self.cycle.lock();
            match state.phase {
                Phase::Serving => {}
                Phase::Broken => {
                    return Err(problem("its lifespan broke while it served".into()));
                }
                _ => return Ok(()),
            }
            state.phase = Phase::Stopping;
            state.waiting = Some(send);
        }
        let cycle = Arc::clone(&self.cycle);
        self.event_loop.run(move |py, _| cycle.waiters.notify(py));
        match answer.await {
            // Returning without a word is how an application without shutdown work ends.
            Ok(Answer::Complete | Answer::Ended { raised: None, .. }) => Ok(()),
            Ok(Answer::Failed(message)) => Err(failed("shutdown", &message)),
            Ok(Answer::Ended {
                raised: Some(error),
                ..
            }) => Err(Python::attach(|py| LifespanError {
                problem: format!("its lifespan shutdown raised {}", summary(py, &error)),
                hint: None,
                traceback: Some(traceback(py, &error)),
            })),
            Err(_) => Err(loop_has_stopped()),
        }
    }

    /// Where the application is in a startup or shutdown that does not end.
    pub(crate) async fn whereabouts(&self) -> Option<String> {
        let cycle = Arc::clone(&self.cycle);
        let ask = tokio::task::spawn_blocking(move || Python::attach(|py| cycle.whereabouts(py)));
        match tokio::time::timeout(WHEREABOUTS_LIMIT, ask).await {
            Ok(Ok(Ok(whereabouts))) => whereabouts,
            _ => None,
        }
    }
}

/// What the application said of its failure. Frameworks send the whole traceback.
fn failed(what: &str, message: &str) -> LifespanError {
    let message = message.trim();
    match message.lines().next_back() {
        None => problem(format!("its lifespan {what} failed; it did not say why")),
        Some(last) => LifespanError {
            problem: format!("its lifespan {what} failed: {}", last.trim()),
            hint: None,
            traceback: (last.len() < message.len()).then(|| message.to_owned()),
        },
    }
}

fn problem(problem: String) -> LifespanError {
    LifespanError {
        problem,
        hint: None,
        traceback: None,
    }
}

fn loop_has_stopped() -> LifespanError {
    problem("the event loop has stopped".into())
}

/// Whether an exception says that the application knows no lifespan: what is raised for an unknown scope, and
/// what comes of taking the scope for a request's.
fn is_refusal(py: Python<'_>, error: &PyErr) -> bool {
    const OF_REQUESTS: [&str; 9] = [
        "method",
        "path",
        "raw_path",
        "query_string",
        "headers",
        "scheme",
        "root_path",
        "client",
        "server",
    ];
    if error.is_instance_of::<PyNotImplementedError>(py)
        || error.is_instance_of::<PyAssertionError>(py)
    {
        return true;
    }
    let text = error.value(py).to_string();
    if error.is_instance_of::<PyKeyError>(py) {
        return OF_REQUESTS.contains(&text.trim_matches('\''));
    }
    let text = text.to_ascii_lowercase();
    text.contains("lifespan") || text.contains("scope")
}

fn begin(py: Python<'_>, shared: &Shared, cycle: &Arc<Lifecycle>) -> PyResult<()> {
    let thread = py.import("threading")?.call_method0("get_ident")?;
    let _ = cycle.thread.set(thread.extract()?);
    let asgi = PyDict::new(py);
    asgi.set_item("version", "3.0")?;
    asgi.set_item("spec_version", "2.0")?;
    let state = PyDict::new(py);
    let scope = PyDict::new(py);
    scope.set_item("type", "lifespan")?;
    scope.set_item("asgi", asgi)?;
    scope.set_item("state", &state)?;
    shared.set_state(state.unbind());
    let coroutine = shared.call(py, scope, Arc::clone(cycle) as _)?;
    let task = cycle.event_loop.start_task(&coroutine)?;
    cycle.lock().task = Some(task.clone().unbind());
    let locals = TaskLocals::new(cycle.event_loop.event_loop(py).clone());
    let result = pyo3_async_runtimes::into_future_with_locals(&locals, task)?;
    let cycle = Arc::clone(cycle);
    Arc::clone(&cycle.event_loop).spawn(async move {
        let raised = result.await.err();
        let event_loop = Arc::clone(&cycle.event_loop);
        event_loop.run(move |py, _| cycle.ended(py, raised));
    });
    Ok(())
}

impl Lifecycle {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The application has returned or raised.
    fn ended(&self, py: Python<'_>, raised: Option<PyErr>) {
        let (was, took_part, waiting, task) = {
            let mut state = self.lock();
            let was = state.phase;
            state.phase = match (was, &raised) {
                (Phase::Serving, Some(_)) | (Phase::Broken, _) => Phase::Broken,
                _ => Phase::Over,
            };
            let took_part = was == Phase::Starting && !state.confused;
            (was, took_part, state.waiting.take(), state.task.take())
        };
        drop(task);
        if let Some(waiting) = waiting {
            // An error means that nobody waits any more: it took too long.
            let _ = waiting.send(Answer::Ended { took_part, raised });
            return;
        }
        let app = &self.app;
        match (was, raised) {
            (Phase::Serving, Some(error)) => {
                error!(%app, "the lifespan ended while the application serves\n{}", traceback(py, &error).trim_end());
                self.tell_broken();
            }
            (Phase::Serving, None) => debug!(%app, "has nothing to do at its shutdown"),
            (_, Some(error)) if !is_cancellation(py, &error) => {
                // It has said before what went wrong.
                debug!(%app, "the lifespan raised after its end\n{}", traceback(py, &error).trim_end());
            }
            _ => {}
        }
    }

    fn tell_broken(&self) {
        if self.mode == LifespanMode::Required {
            self.broken.notify_one();
        }
    }

    /// An answer of the application.
    fn answer(&self, kind: &str, message: String) -> PyResult<()> {
        let out_of_place = |why| Err(unexpected(kind, why));
        let mut state = self.lock();
        let (of_startup, answer) = match kind {
            "lifespan.startup.complete" => (true, Answer::Complete),
            "lifespan.startup.failed" => (true, Answer::Failed(message)),
            "lifespan.shutdown.complete" => (false, Answer::Complete),
            "lifespan.shutdown.failed" => (false, Answer::Failed(message)),
            _ => {
                state.confused |= state.phase == Phase::Starting;
                return out_of_place("a lifespan scope knows no such message");
            }
        };
        match (of_startup, state.phase) {
            (true, Phase::Called | Phase::Starting) => {
                state.phase = match answer {
                    Answer::Complete => Phase::Serving,
                    _ => Phase::Over,
                };
            }
            (false, Phase::Stopping | Phase::Leaving) => state.phase = Phase::Over,
            (false, Phase::Serving) => {
                // What frameworks send when something that their lifespan runs has raised.
                let Answer::Failed(message) = answer else {
                    return out_of_place("no shutdown has been asked for");
                };
                state.phase = Phase::Broken;
                drop(state);
                error!(app = %self.app, "the lifespan ended while the application serves\n{}", message.trim_end());
                self.tell_broken();
                return Ok(());
            }
            (false, Phase::Called | Phase::Starting) => {
                return out_of_place("no shutdown has been asked for");
            }
            _ => return out_of_place("it was answered before"),
        }
        let waiting = state.waiting.take();
        drop(state);
        if let Some(waiting) = waiting {
            // An error means that nobody waits any more: it took too long.
            let _ = waiting.send(answer);
        }
        Ok(())
    }

    fn whereabouts(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let task = self.lock().task.as_ref().map(|task| task.clone_ref(py));
        let Some(thread) = self.thread.get() else {
            return Ok(None);
        };
        let stack: String = py
            .import("twinspan._interop")?
            .call_method1("whereabouts", (task, *thread))?
            .extract()?;
        Ok(Some(stack))
    }
}

impl Source for Arc<Lifecycle> {
    fn poll(&self, py: Python<'_>, _: Operation) -> PyResult<Option<Py<PyAny>>> {
        let kind = {
            let mut state = self.lock();
            match state.phase {
                Phase::Called => {
                    state.phase = Phase::Starting;
                    intern!(py, "lifespan.startup")
                }
                Phase::Stopping => {
                    state.phase = Phase::Leaving;
                    intern!(py, "lifespan.shutdown")
                }
                _ => return Ok(None),
            }
        };
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

impl Cycle for Lifecycle {
    fn receive<'py>(self: Arc<Self>, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, Arc::new(self), Operation::Receive)
    }

    fn send<'py>(self: Arc<Self>, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = message.py();
        let (message, kind) = message::open(message)?;
        let text = match message.get_item(intern!(py, "message"))? {
            Some(text) => text.cast::<PyString>()?.to_string(),
            None => String::new(),
        };
        self.answer(kind.to_str()?, text)?;
        done(py)
    }
}
