//! An ASGI application as the core sees it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use tokio::sync::oneshot;
use tracing::warn;
use twinspan::app::{
    AppError, Application, BoxFuture, Bridge, Description, Interface, LifespanError, Notice,
    Request, Response, RouteTable, RoutesError, WebSocketApplication,
};
use twinspan::config::{AppConfig, LifespanMode};
use twinspan::http::Interim;
use twinspan::ws::Handshake;
use twinspan_bridge::bridges::{self, FoundBridge};
use twinspan_bridge::errors::summary;
use twinspan_bridge::interface::{Detected, is_coroutine_function};
use twinspan_bridge::routes;

use crate::callables::{Cycle, Receive, Sending};
use crate::event_loop::{EventLoop, Job};
use crate::http::{Exchange, LeaveGuard};
use crate::lifespan::Lifespan;
use crate::scope::ScopeFactory;
use crate::websocket::Connection;

/// How long tasks that were cancelled may take to put away what they had.
const CANCELLED_LIMIT: Duration = Duration::from_secs(1);

/// Makes what serves a WSGI application under a name of its own.
pub type MakeNative =
    dyn Fn(&Bound<'_, PyAny>, String) -> PyResult<Arc<dyn Application>> + Send + Sync;

/// One ASGI application on the worker's event loop.
pub struct AsgiApplication {
    shared: Arc<Shared>,
    event_loop: Arc<EventLoop>,
    lifespan: Arc<Lifespan>,
    /// The same object is served under another name, before this one: it starts first and stops last.
    shares_lifespan: bool,
    router: Option<Py<PyAny>>,
    /// Serves what is behind its bridges; `None` leaves them.
    unbridge: Option<Arc<MakeNative>>,
}

/// What every request of the application needs.
pub(crate) struct Shared {
    pub(crate) name: Arc<str>,
    app: Py<PyAny>,
    /// Calls the application within its task, where its call may run code of its own: a class, a function
    /// that returns what another made, or the older convention `app(scope)(receive, send)`.
    within_task: Option<Py<PyAny>>,
    coroutine_type: Py<PyAny>,
    http: ScopeFactory,
    websocket: ScopeFactory,
    /// What lifespan left behind, once it has started; one for each application object.
    state: Arc<OnceLock<Py<PyDict>>>,
    pub(crate) running: Running,
}

/// What a task serves: a request or a WebSocket.
pub(crate) trait Served: Send + Sync {
    /// The server is about to stop; on the loop's thread.
    fn notify(&self, py: Python<'_>, notice: Notice);

    /// Asks the task to end; on the loop's thread.
    fn cancel(&self, py: Python<'_>);
}

/// Whatever has a task that goes on, also when its client has had its response or has gone.
#[derive(Default)]
pub(crate) struct Running {
    state: Mutex<RunningState>,
    /// What has no end is not to begin.
    draining: AtomicBool,
}

#[derive(Default)]
struct RunningState {
    /// By address: each is one allocation to its end.
    served: HashMap<usize, Weak<dyn Served>>,
    /// Told when nothing is left.
    settled: Vec<oneshot::Sender<()>>,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, RunningState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn add<S: Served + 'static>(&self, served: &Arc<S>) {
        let key = Arc::as_ptr(served).addr();
        let served: Arc<dyn Served> = Arc::clone(served) as _;
        self.lock().served.insert(key, Arc::downgrade(&served));
    }

    pub(crate) fn remove<S>(&self, served: &Arc<S>) {
        let mut state = self.lock();
        state.served.remove(&Arc::as_ptr(served).addr());
        if state.served.is_empty() {
            for settled in std::mem::take(&mut state.settled) {
                // An error means that the wait was given up.
                let _ = settled.send(());
            }
        }
    }

    /// Returns when no task goes on.
    async fn settled(&self) {
        let (send, receive) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.served.is_empty() {
                return;
            }
            state.settled.push(send);
        }
        // The sender is dropped with the last of them at the latest.
        let _ = receive.await;
    }

    fn all(&self) -> Vec<Arc<dyn Served>> {
        let state = self.lock();
        state.served.values().filter_map(Weak::upgrade).collect()
    }
}

impl Shared {
    pub(crate) fn http_scope<'py>(
        &self,
        py: Python<'py>,
        request: &Request,
        interim: Option<&Interim>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let scheme = request.origin.scheme.as_str();
        let state = self.state.get();
        let scope = self.http.build(py, request, scheme, state, interim)?;
        let method = request.head.method.as_str();
        if method != "GET" {
            scope.set_item(intern!(py, "method"), method)?;
        }
        Ok(scope)
    }

    pub(crate) fn websocket_scope<'py>(
        &self,
        py: Python<'py>,
        handshake: &Handshake,
    ) -> PyResult<Bound<'py, PyDict>> {
        let request = &handshake.request;
        let scheme = request.origin.scheme.websocket();
        let state = self.state.get();
        let scope = self.websocket.build(py, request, scheme, state, None)?;
        let subprotocols = PyList::new(py, handshake.subprotocols())?;
        scope.set_item(intern!(py, "subprotocols"), subprotocols)?;
        Ok(scope)
    }

    /// Calls the application with the `receive` and `send` of `cycle`; the coroutine has not begun to run.
    pub(crate) fn call<'py>(
        &self,
        py: Python<'py>,
        scope: Bound<'py, PyDict>,
        cycle: Arc<dyn Cycle>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let app = self.app.bind(py);
        let receive = Bound::new(py, Receive(Arc::clone(&cycle)))?;
        let send = Bound::new(py, Sending(cycle))?;
        let result = match &self.within_task {
            Some(call) => call.bind(py).call1((app, scope, receive, send))?,
            None => app.call1((scope, receive, send))?,
        };
        if result.get_type().is(self.coroutine_type.bind(py)) {
            return Ok(result);
        }
        // Anything else that can be awaited: a future, a Cython coroutine.
        py.import(intern!(py, "twinspan._interop"))?
            .call_method1(intern!(py, "wait_for"), (result,))
    }

    pub(crate) fn set_state(&self, state: Py<PyDict>) {
        // Lifespan runs once for each application object.
        let _ = self.state.set(state);
    }
}

impl fmt::Debug for AsgiApplication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsgiApplication")
            .field("name", &self.shared.name)
            .finish_non_exhaustive()
    }
}

impl AsgiApplication {
    /// Wraps `app`; `router` is asked for its routes where it is given. `others` are loaded before it: an object
    /// that is among them has one lifespan, which is theirs. `apps` is what applications find each other by.
    pub fn new(
        app: &Bound<'_, PyAny>,
        detected: Detected,
        config: &AppConfig,
        router: Option<Bound<'_, PyAny>>,
        event_loop: &Arc<EventLoop>,
        others: &[Arc<Self>],
        apps: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let py = app.py();
        let starts = |other: &&Arc<Self>| other.lifespan.is_used() && other.shared.app.is(app);
        let same = match config.lifespan {
            LifespanMode::Off => None,
            _ => others.iter().find(starts),
        };
        let interop = py.import("twinspan._interop")?;
        let shared = Arc::new(Shared {
            name: config.name.as_str().into(),
            app: app.clone().unbind(),
            within_task: match detected {
                Detected::Asgi2 => Some(interop.getattr("call_twice")?.unbind()),
                _ if is_coroutine_function(app)? => None,
                _ => Some(interop.getattr("call")?.unbind()),
            },
            coroutine_type: py.import("types")?.getattr("CoroutineType")?.unbind(),
            http: ScopeFactory::new(py, "http", apps)?,
            websocket: ScopeFactory::new(py, "websocket", apps)?,
            state: same
                .map(|same| Arc::clone(&same.shared.state))
                .unwrap_or_default(),
            running: Running::default(),
        });
        Ok(Self {
            lifespan: same.map_or_else(
                || {
                    let (shared, event_loop) = (Arc::clone(&shared), Arc::clone(event_loop));
                    Arc::new(Lifespan::new(shared, event_loop, config.lifespan))
                },
                |same| Arc::clone(&same.lifespan),
            ),
            shares_lifespan: same.is_some(),
            shared,
            event_loop: Arc::clone(event_loop),
            router: router.map(Bound::unbind),
            unbridge: None,
        })
    }

    /// Lets `make` serve the WSGI applications that this one mounts through bridges.
    #[must_use]
    pub fn unbridged(mut self, make: Arc<MakeNative>) -> Self {
        self.unbridge = Some(make);
        self
    }

    /// Asks the application and its router about themselves, on the loop's thread; `None` where the loop has
    /// stopped.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Bound<'_, PyAny>, Option<&Bound<'_, PyAny>>) -> T + Send + 'static,
    ) -> Option<T> {
        let (send, receive) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let router = Python::attach(|py| self.router.as_ref().map(|router| router.clone_ref(py)));
        self.event_loop.run(move |py, _| {
            let router = router.as_ref().map(|router| router.bind(py));
            let _ = send.send(question(shared.app.bind(py), router));
        });
        receive.await.ok()
    }
}

/// A bridge with what serves the application behind it, if that is wanted and possible.
fn bridge(found: FoundBridge<'_>, outer: &str, unbridge: Option<&MakeNative>) -> Bridge {
    let FoundBridge {
        mut report,
        before,
        application,
    } = found;
    let inner = match unbridge {
        Some(make) if report.obstacle.is_none() => {
            let name = format!("{outer}:{}", report.place());
            match make(&application, name.clone()) {
                Ok(inner) => {
                    report.served_as = Some(name);
                    Some(inner)
                }
                Err(error) => {
                    report.obstacle = Some(summary(application.py(), &error));
                    None
                }
            }
        }
        _ => None,
    };
    Bridge {
        report,
        before,
        inner,
    }
}

impl Application for AsgiApplication {
    fn description(&self) -> Description {
        Description {
            interface: Interface::Asgi,
            threads: None,
        }
    }

    fn is_busy(&self) -> bool {
        self.event_loop.lags()
    }

    fn call(&self, request: Box<Request>) -> BoxFuture<'static, Result<Response, AppError>> {
        let shared = Arc::clone(&self.shared);
        let event_loop = Arc::clone(&self.event_loop);
        Box::pin(async move {
            let (reply_to, answer) = oneshot::channel();
            let mut request = request;
            let exchange = Exchange::new(shared, Arc::clone(&event_loop), &mut request, reply_to);
            let guard = LeaveGuard::new(Arc::clone(&exchange));
            event_loop.push(Job::Run(Box::new(move |py, _| {
                exchange.start(py, &request);
            })));
            let answer = answer.await;
            guard.answered();
            answer.unwrap_or_else(|_| Err(AppError::Failed("the event loop has stopped".into())))
        })
    }

    fn websocket(&self) -> Option<&dyn WebSocketApplication> {
        Some(self)
    }

    fn startup(&self) -> BoxFuture<'_, Result<(), LifespanError>> {
        Box::pin(async {
            self.event_loop.connect();
            if self.shares_lifespan {
                return Ok(());
            }
            self.lifespan.startup().await
        })
    }

    fn whereabouts(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(self.lifespan.whereabouts())
    }

    fn broken(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.lifespan.broken())
    }

    fn notify(&self, notice: Notice) {
        self.shared.running.draining.store(true, Ordering::Relaxed);
        let shared = Arc::clone(&self.shared);
        self.event_loop.run(move |py, _| {
            for served in shared.running.all() {
                served.notify(py, notice);
            }
        });
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.shared.running.settled())
    }

    fn shutdown(&self) -> BoxFuture<'_, Result<(), LifespanError>> {
        Box::pin(async {
            let left = self.shared.running.all();
            if !left.is_empty() {
                // Before the application puts away what they work with.
                self.event_loop.run(move |py, _| {
                    for served in left {
                        served.cancel(py);
                    }
                });
                let settled = self.shared.running.settled();
                let _ = tokio::time::timeout(CANCELLED_LIMIT, settled).await;
            }
            if self.shares_lifespan {
                return Ok(());
            }
            self.lifespan.shutdown().await
        })
    }

    fn routes(&self) -> BoxFuture<'_, Result<RouteTable, RoutesError>> {
        Box::pin(async {
            self.ask(routes::read).await.unwrap_or_else(|| {
                Err(RoutesError::Unreadable {
                    what: "an application whose event loop has stopped".into(),
                })
            })
        })
    }

    fn bridges(&self) -> BoxFuture<'_, Vec<Bridge>> {
        let name = Arc::clone(&self.shared.name);
        let unbridge = self.unbridge.clone();
        Box::pin(async {
            let found = self.ask(move |app, router| match bridges::find(app, router) {
                Ok(found) => found
                    .into_iter()
                    .map(|found| bridge(found, &name, unbridge.as_deref()))
                    .collect(),
                Err(error) => {
                    let error = summary(app.py(), &error);
                    warn!(app = %name, error, "its bridges to WSGI applications cannot be looked for");
                    Vec::new()
                }
            });
            found.await.unwrap_or_default()
        })
    }
}

impl WebSocketApplication for AsgiApplication {
    fn connect(&self, handshake: Handshake) -> BoxFuture<'static, Result<(), AppError>> {
        let shared = Arc::clone(&self.shared);
        let (over, ended) = oneshot::channel();
        self.event_loop.run(move |py, event_loop| {
            Connection::start(py, shared, Arc::clone(event_loop), handshake, over);
        });
        Box::pin(async move {
            ended
                .await
                .unwrap_or_else(|_| Err(AppError::Failed("the event loop has stopped".into())))
        })
    }
}
