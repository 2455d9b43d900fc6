//! A server inside a Python process: for `twinspan.serve` and for tests.

use std::sync::{Arc, Mutex, PoisonError, mpsc};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio_util::sync::CancellationToken;
use twinspan::app::LocalAddr;
use twinspan::config::{Config, Sources, load};
use twinspan::listen::Listener;
use twinspan::worker;

use crate::host::PythonHost;

/// One server in this process; several may run at once.
#[pyclass(frozen)]
pub(crate) struct Server {
    config: Arc<Config>,
    host: PythonHost,
    listeners: Mutex<Vec<Listener>>,
    addresses: Vec<String>,
    stop: CancellationToken,
    outcome: Mutex<Option<mpsc::Receiver<Result<(), String>>>>,
    report: Mutex<Option<mpsc::Sender<Result<(), String>>>>,
}

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
        let config = load(&sources)
            .and_then(|settings| Config::new(&settings))
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        let listeners = config
            .binds
            .iter()
            .map(|bind| Listener::bind(bind, config.backlog))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        let addresses = listeners
            .iter()
            .map(|listener| match listener.local() {
                LocalAddr::Tcp(address) => address.to_string(),
                LocalAddr::Unix(path) => format!("unix:{path}"),
            })
            .collect();
        let (report, outcome) = mpsc::channel();
        Ok(Self {
            config: Arc::new(config),
            host: PythonHost::new(Some(objects)),
            listeners: Mutex::new(listeners),
            addresses,
            stop: CancellationToken::new(),
            outcome: Mutex::new(Some(outcome)),
            report: Mutex::new(Some(report)),
        })
    }

    /// Where it listens: `127.0.0.1:8000`, `unix:/run/app.sock`.
    #[getter]
    fn addresses(&self) -> Vec<String> {
        self.addresses.clone()
    }

    /// Serves on this thread until `stop` is called.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        let listeners = std::mem::take(&mut *lock(&self.listeners));
        let Some(report) = lock(&self.report).take() else {
            return Err(PyRuntimeError::new_err("a server runs only once"));
        };
        let report = move |started: Result<worker::Started, twinspan::error::LoadError>| {
            // An error means that nobody waits to hear it.
            let _ = report.send(started.map(drop).map_err(|error| error.to_string()));
            Box::pin(std::future::ready(())) as twinspan::app::BoxFuture<'static, ()>
        };
        let (config, stop) = (Arc::clone(&self.config), self.stop.clone());
        py.detach(|| worker::run(&self.host, config, listeners, stop, report))?;
        self.host.interrupt().map_or(Ok(()), Err)
    }

    /// Waits until every application has started.
    fn wait_started(&self, py: Python<'_>) -> PyResult<()> {
        let Some(outcome) = lock(&self.outcome).take() else {
            return Ok(());
        };
        match py.detach(move || outcome.recv()) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(problem)) => Err(PyRuntimeError::new_err(problem)),
            Err(_) => Err(PyRuntimeError::new_err("the server did not start")),
        }
    }

    /// Begins the drain; `run` returns when it is over.
    fn stop(&self) {
        self.stop.cancel();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
