//! A server inside a Python process: for `twinspan.serve` and for tests.

use std::sync::{Mutex, PoisonError, mpsc};

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio_util::sync::CancellationToken;
use twinspan::app::LocalAddr;
use twinspan::config::{Sources, load};
use twinspan::embedded::{self, ServerError};
use twinspan::error::LoadError;

use crate::apps::Apps;
use crate::host::PythonHost;

/// One server in this process; several may run at once.
#[pyclass(frozen)]
pub(crate) struct Server {
    host: PythonHost,
    addresses: Vec<String>,
    stop: CancellationToken,
    /// Until it runs.
    bound: Mutex<Option<embedded::Server>>,
    report: Mutex<Option<mpsc::Sender<Outcome>>>,
    outcome: Mutex<Option<mpsc::Receiver<Outcome>>>,
}

type Outcome = Result<(), LoadError>;

#[pymethods]
impl Server {
    /// Binds; `options` is JSON with the options of the command, `objects` maps targets to applications.
    #[new]
    fn new(options: &str, objects: Py<PyDict>) -> PyResult<Self> {
        let arguments = serde_json::from_str(options)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        let sources = Sources {
            arguments,
            ..Sources::default()
        };
        let bound = load(&sources)
            .map_err(ServerError::from)
            .and_then(|settings| embedded::Server::bind(&settings))
            .map_err(|error| match &error {
                ServerError::Config(error) => PyValueError::new_err(error.to_string()),
                ServerError::Bind(error) => PyOSError::new_err(match error.hint() {
                    Some(hint) => format!("{error}\nhint: {hint}"),
                    None => error.to_string(),
                }),
            })?;
        let addresses = bound.addresses().iter().map(LocalAddr::to_string).collect();
        let (report, outcome) = mpsc::channel();
        Ok(Self {
            host: PythonHost::new(Some(objects)),
            addresses,
            stop: bound.stop(),
            bound: Mutex::new(Some(bound)),
            report: Mutex::new(Some(report)),
            outcome: Mutex::new(Some(outcome)),
        })
    }

    /// Where it listens: `127.0.0.1:8000`, `unix:/run/app.sock`.
    #[getter]
    fn addresses(&self) -> Vec<String> {
        self.addresses.clone()
    }

    /// What its applications find each other by, once they are loaded.
    #[getter]
    fn apps(&self, py: Python<'_>) -> Option<Py<Apps>> {
        self.host.loaded().map(|apps| apps.clone_ref(py))
    }

    /// Serves on this thread until `stop` is called.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        let (Some(bound), Some(report)) = (lock(&self.bound).take(), lock(&self.report).take())
        else {
            return Err(PyRuntimeError::new_err("a server runs only once"));
        };
        // An error means that nobody waits to hear it.
        let report = move |outcome| drop(report.send(outcome));
        py.detach(|| bound.run(&self.host, report))?;
        self.host.interrupt().map_or(Ok(()), Err)
    }

    /// Waits until every application has started.
    fn wait_started(&self, py: Python<'_>) -> PyResult<()> {
        let Some(outcome) = lock(&self.outcome).take() else {
            return Ok(());
        };
        match py.detach(move || outcome.recv()) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(PyRuntimeError::new_err(text(&error))),
            Err(_) => Err(PyRuntimeError::new_err("the server did not start")),
        }
    }

    /// Begins the drain; `run` returns when it is over.
    fn stop(&self) {
        self.stop.cancel();
    }
}

/// What is wrong comes first: it is all that many tools show of an exception.
fn text(error: &LoadError) -> String {
    match &error.traceback {
        Some(traceback) => format!("{error}\n\n{}", traceback.trim_end()),
        None => error.to_string(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
