//! The applications of a worker as they see each other, for `twinspan.migrate`.
//!
//! One object for each worker stands in every `environ` and scope, put there once in the templates that these
//! are copied from: nothing is registered for the process, because several servers may run in one.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use pyo3::exceptions::{
    PyConnectionError, PyLookupError, PyRuntimeError, PyTimeoutError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use tokio::task::AbortHandle;
use twinspan::app::Scheme;
use twinspan::peers::{Answer, Call, CallError, Peers};
use twinspan_asgi::EventLoop;

/// The applications of one worker, by the names of the configuration.
#[pyclass(frozen, module = "twinspan._twinspan")]
#[derive(Default)]
pub(crate) struct Apps {
    peers: Peers,
    root_path: OnceLock<String>,
    known: Mutex<Vec<Known>>,
    event_loop: OnceLock<Arc<EventLoop>>,
}

struct Known {
    name: String,
    /// The application, or the router that was named for it.
    router: Py<PyAny>,
    mount: String,
}

impl Apps {
    pub(crate) fn peers(&self) -> Peers {
        self.peers.clone()
    }

    /// Adds an application; `root_path` is the public prefix of the server.
    pub(crate) fn add(&self, name: &str, router: Py<PyAny>, mount: &str, root_path: &str) {
        self.root_path.get_or_init(|| root_path.to_owned());
        lock(&self.known).push(Known {
            name: name.to_owned(),
            router,
            mount: mount.to_owned(),
        });
    }

    /// Answers of calls from this loop's thread are told there.
    pub(crate) fn run_on(&self, event_loop: &Arc<EventLoop>) {
        self.event_loop.get_or_init(|| Arc::clone(event_loop));
    }
}

#[pymethods]
impl Apps {
    /// The applications with what is mounted where: name -> (application or router, mount).
    fn mounted<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let mounted = PyDict::new(py);
        for known in &*lock(&self.known) {
            mounted.set_item(&known.name, (&known.router, &known.mount))?;
        }
        Ok(mounted)
    }

    /// The public prefix of the server, without a slash at the end.
    #[getter]
    fn root_path(&self) -> &str {
        self.root_path
            .get()
            .map_or("", |path| path.trim_end_matches('/'))
    }

    /// Whether `event_loop` is the one that the ASGI applications of the worker share.
    fn is_loop(&self, py: Python<'_>, event_loop: &Bound<'_, PyAny>) -> bool {
        let own = self.event_loop.get();
        own.is_some_and(|own| own.event_loop(py).is(event_loop))
    }

    /// Begins a request to an application. `done` is called on the thread of the shared loop when it is over.
    #[pyo3(signature = (app, method, target, headers, content, *, prefix, scheme, client, is_copy, timeout, limit, done=None))]
    #[expect(clippy::too_many_arguments, reason = "named on the side of Python")]
    fn start(
        &self,
        app: String,
        method: &str,
        target: String,
        headers: Vec<(Vec<u8>, Vec<u8>)>,
        content: &[u8],
        prefix: String,
        scheme: &str,
        client: Option<(String, u16)>,
        is_copy: bool,
        timeout: f64,
        limit: usize,
        done: Option<Py<PyAny>>,
    ) -> PyResult<Pending> {
        let call = Call {
            app,
            method: method
                .parse()
                .map_err(|_| PyValueError::new_err(format!("`{method}` is no method of HTTP")))?,
            target,
            headers: fields(headers)?,
            content: Bytes::copy_from_slice(content),
            prefix,
            scheme: match scheme {
                "https" | "wss" => Scheme::Https,
                _ => Scheme::Http,
            },
            client: client
                .and_then(|(ip, port)| Some(SocketAddr::new(ip.parse::<IpAddr>().ok()?, port))),
            is_copy,
            timeout: Duration::try_from_secs_f64(timeout)
                .ok()
                .filter(|timeout| !timeout.is_zero())
                .ok_or_else(|| {
                    PyValueError::new_err("`timeout` is a time in seconds, more than none")
                })?,
            limit,
        };
        let peers = self.peers.clone();
        let runtime = peers.runtime().map_err(|error| raised(&error))?.clone();
        let (tell, outcome) = mpsc::channel();
        let done = Arc::new(Mutex::new(done));
        let over = self.event_loop.get().map(|event_loop| Over {
            event_loop: Arc::clone(event_loop),
            done: Arc::clone(&done),
        });
        let task = runtime.spawn(async move {
            let outcome = peers.call(call).await;
            // An error means that nobody waits any more.
            let _ = tell.send(outcome);
            drop(over);
        });
        Ok(Pending {
            outcome: Mutex::new(outcome),
            done,
            task: task.abort_handle(),
        })
    }

    /// There is one for a worker: who copies a scope means its own.
    fn __copy__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __deepcopy__(this: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        this
    }
}

/// A request that was begun.
#[pyclass(frozen, module = "twinspan._twinspan")]
pub(crate) struct Pending {
    outcome: Mutex<mpsc::Receiver<Outcome>>,
    done: Done,
    task: AbortHandle,
}

type Outcome = Result<Answer, CallError>;
/// Held here too, so that it is not the I/O thread that lets go of it.
type Done = Arc<Mutex<Option<Py<PyAny>>>>;

#[pymethods]
impl Pending {
    /// Waits for the answer: status, header fields, content. Once.
    fn wait<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(u16, Bound<'py, PyList>, Bound<'py, PyBytes>)> {
        let outcome = py
            .detach(|| lock(&self.outcome).recv())
            .unwrap_or(Err(CallError::Stopped))
            .map_err(|error| raised(&error))?;
        let headers = PyList::empty(py);
        for (name, value) in &outcome.headers {
            headers.append((name.as_str(), PyBytes::new(py, value.as_bytes())))?;
        }
        let content = PyBytes::new(py, &outcome.content);
        Ok((outcome.status.as_u16(), headers, content))
    }

    /// Nobody waits any more: for the application its client has left.
    fn cancel(&self) {
        lock(&self.done).take();
        self.task.abort();
    }
}

/// Tells the loop when it is dropped, also where the runtime ends first.
struct Over {
    event_loop: Arc<EventLoop>,
    done: Done,
}

impl Drop for Over {
    fn drop(&mut self) {
        let done = Arc::clone(&self.done);
        self.event_loop.run(move |py, _| {
            let taken = lock(&done).take();
            if let Some(done) = taken
                && let Err(error) = done.call0(py)
            {
                error.write_unraisable(py, None);
            }
        });
    }
}

fn fields(given: Vec<(Vec<u8>, Vec<u8>)>) -> PyResult<HeaderMap> {
    let mut fields = HeaderMap::with_capacity(given.len());
    for (name, value) in given {
        let wrong = |what: &str| {
            let name = String::from_utf8_lossy(&name);
            PyValueError::new_err(format!("the {what} of the header `{name}` is not allowed"))
        };
        let field = HeaderName::from_bytes(&name).map_err(|_| wrong("name"))?;
        let value = HeaderValue::from_bytes(&value).map_err(|_| wrong("value"))?;
        fields.append(field, value);
    }
    Ok(fields)
}

fn raised(error: &CallError) -> PyErr {
    let text = error.to_string();
    match error {
        CallError::NotStarted | CallError::Stopped => PyRuntimeError::new_err(text),
        CallError::Unknown { .. } => PyLookupError::new_err(text),
        CallError::Target { .. } => PyValueError::new_err(text),
        CallError::Timeout { .. } => PyTimeoutError::new_err(text),
        CallError::TooLarge { .. } | CallError::Broken { .. } => PyConnectionError::new_err(text),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
