//! One worker, in the order in which things happen: load, start, route, accept, drain, stop.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::app::{Application, BoxFuture, LifespanError, Notice};
use crate::config::{AppConfig, Config};
use crate::dispatch::Dispatcher;
use crate::drain::Drain;
use crate::error::LoadError;
use crate::http::serve_connection;
use crate::lead::{self, Lead};
use crate::listen::{Acceptor, Listener};
use crate::metrics::access_log::AccessLog;
use crate::metrics::traffic::AppTraffic;
use crate::metrics::{Metrics, Snapshot};
use crate::migrate::live::Overlay;
use crate::migrate::observe::Observations;
use crate::peers::Peers;
use crate::route::{App, Router};
use crate::supervisor::channel::{AppReport, Ready};
use crate::unbridge::{self, Part};

/// What embeds the core and knows how to load applications; Python, or a fake in tests.
pub trait Host: Send + Sync {
    /// Loads one application. Called on the thread that later runs [`Host::drive`].
    fn load(&self, app: &AppConfig, config: &Config) -> Result<Arc<dyn Application>, LoadError>;

    /// What lets the applications call each other, where they are to; opened when the worker has started.
    fn peers(&self) -> Option<Peers> {
        None
    }

    /// Runs what has to run on this thread, an event loop say, until the worker has finished.
    fn drive(&self, finished: &Finished);
}

/// An application that has been loaded, with its configuration.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: AppConfig,
    pub application: Arc<dyn Application>,
}

/// Loads every application in the order of the configuration.
pub fn load(host: &dyn Host, config: &Config) -> Result<Vec<Loaded>, LoadError> {
    config
        .apps
        .iter()
        .map(|app| {
            let application = host.load(app, config)?;
            Ok(Loaded {
                config: app.clone(),
                application,
            })
        })
        .collect()
}

/// A worker that serves.
#[derive(Debug, Clone)]
pub struct Started {
    pub ready: Ready,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) loaded: Vec<Loaded>,
    /// Cancelled when the worker has drained and its applications have stopped.
    pub finished: CancellationToken,
}

impl Started {
    /// Returns the name of an application when more of its threads are stuck than can be replaced; each time
    /// that comes about. For one who waits.
    pub(crate) async fn stuck(&self) -> String {
        let waits = self.loaded.iter().map(|app| async {
            app.application.exhausted().await;
            app.config.name.clone()
        });
        let mut waits: FuturesUnordered<_> = waits.collect();
        match waits.next().await {
            Some(app) => app,
            None => std::future::pending().await,
        }
    }

    /// Returns the name of an application that has lost what it must keep up, once. For one who waits.
    pub(crate) async fn broken(&self) -> String {
        let waits = self.loaded.iter().map(|app| async {
            app.application.broken().await;
            app.config.name.clone()
        });
        let mut waits: FuturesUnordered<_> = waits.collect();
        match waits.next().await {
            Some(app) => app,
            None => std::future::pending().await,
        }
    }

    /// The first application of which more threads are stuck now than can be replaced.
    pub(crate) fn stuck_now(&self) -> Option<&str> {
        let stuck = |app: &&Loaded| {
            let load = app.application.pool();
            load.is_some_and(|load| load.is_exhausted())
        };
        Some(&self.loaded.iter().find(stuck)?.config.name)
    }

    /// Lets the shares of an overlay count for every request that comes from now on; those in flight end
    /// as they began.
    pub(crate) fn take_on(&self, overlay: &Overlay) {
        self.dispatcher.set_live(overlay);
    }

    /// What there is to tell of the migration since this was last asked.
    pub fn observe(&self) -> Observations {
        self.dispatcher.observe()
    }

    /// What the worker has counted, and how full the pools of its applications are now.
    pub fn snapshot(&self) -> Snapshot {
        let metrics = self.dispatcher.metrics();
        for (app, metrics) in self.loaded.iter().zip(metrics.apps()) {
            if let Some(load) = app.application.pool() {
                metrics.pool.set(load);
            }
        }
        metrics.snapshot()
    }
}

/// How the applications of a worker stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    Clean,
    /// At least one failed or took too long; its error is in the log.
    Failed,
}

/// Runs one worker on this thread until `stop` is cancelled and everything has drained.
///
/// `overlay` is what has been changed since the configuration was written.
/// `report` is called once, with what failed or when everything has started; its future runs beside the
/// worker and must end once [`Started::finished`] is cancelled.
///
/// # Errors
/// Where the system has no thread or descriptor to give.
pub fn run<R>(
    host: &dyn Host,
    config: Arc<Config>,
    overlay: Overlay,
    listeners: Vec<Listener>,
    stop: CancellationToken,
    report: R,
) -> std::io::Result<Shutdown>
where
    R: FnOnce(Result<Started, LoadError>) -> BoxFuture<'static, ()> + Send + 'static,
{
    let loaded = load(host, &config);
    let peers = host.peers();
    let given_up = stop.clone();
    let (tell, told) = std::sync::mpsc::channel();
    let threads = config.io_threads;
    let io = IoThreads::start(threads, move |handle, lead| async move {
        let started = match loaded {
            Ok(loaded) => Worker::start(config, loaded, &overlay, Drain::new(handle, stop)).await,
            Err(error) => Err(error),
        };
        match started {
            Ok(worker) => {
                if let (Some(lead), [only]) = (lead, worker.loaded.as_slice()) {
                    only.application.may_lead(lead);
                }
                if let Some(peers) = peers {
                    worker.open(&peers);
                }
                let started = worker.started();
                let finished = started.finished.clone();
                let serve = async {
                    // The receiver waits for the I/O threads.
                    let _ = tell.send(worker.serve(listeners).await);
                    finished.cancel();
                };
                tokio::join!(serve, report(Ok(started)));
            }
            Err(error) => report(Err(error)).await,
        }
    })?;
    host.drive(&io.finished);
    // A host that cannot go on takes its worker with it.
    given_up.cancel();
    io.join();
    Ok(told.try_recv().unwrap_or(Shutdown::Clean))
}

/// Applications that have started, and the router over them.
#[derive(Debug)]
pub struct Worker {
    dispatcher: Arc<Dispatcher>,
    loaded: Vec<Loaded>,
    ready: Ready,
    drain: Drain,
    config: Arc<Config>,
}

impl Worker {
    /// Starts every application in order, reads the routes and builds the router.
    ///
    /// # Errors
    /// The first application that does not start; those before it are stopped again.
    pub async fn start(
        config: Arc<Config>,
        mut loaded: Vec<Loaded>,
        overlay: &Overlay,
        drain: Drain,
    ) -> Result<Self, LoadError> {
        for (started, app) in loaded.iter().enumerate() {
            if let Err(error) = start_one(app).await {
                stop_all(loaded.get(..started).unwrap_or_default()).await;
                return Err(error);
            }
        }
        match Self::assemble(&config, &mut loaded, overlay).await {
            Ok((router, ready, metrics)) => {
                let access_log = open_access_log(&config, &metrics);
                let dispatcher = Dispatcher::new(
                    Arc::clone(&config),
                    router,
                    metrics,
                    access_log,
                    drain.clone(),
                );
                Ok(Self {
                    dispatcher,
                    loaded,
                    ready,
                    drain,
                    config,
                })
            }
            Err(error) => {
                stop_all(&loaded).await;
                Err(error)
            }
        }
    }

    /// Reads what the applications say of themselves, and builds the router over them. What takes the place of
    /// a bridge joins `loaded` behind them, so that it stops first.
    async fn assemble(
        config: &Config,
        loaded: &mut Vec<Loaded>,
        overlay: &Overlay,
    ) -> Result<(Router, Ready, Arc<Metrics>), LoadError> {
        let mut bridges = unbridge::find(loaded).await;
        let outer = loaded.len();
        let mut natives = Vec::new();
        for found in &mut bridges {
            if let Some(native) = found.native.take() {
                start_one(&native.loaded).await?;
                loaded.push(native.loaded);
                natives.push((found.outer, found.report.prefix.clone(), native.before));
            }
        }
        let names: Vec<Arc<str>> = loaded
            .iter()
            .map(|app| app.config.name.as_str().into())
            .collect();
        let metrics = Metrics::new(&names);
        let entries = loaded.iter().zip(metrics.apps()).map(|(app, metrics)| App {
            name: app.config.name.as_str().into(),
            application: Arc::clone(&app.application),
            metrics: Arc::clone(metrics),
            traffic: None,
        });
        let mut apps = Vec::new();
        let mut inner = Vec::new();
        let mut reports = Vec::new();
        // Somebody must be able to ask for it.
        let counts = config.state_dir.is_some() || config.admin.is_some();
        for (place, mut entry) in entries.enumerate() {
            if place >= outer {
                inner.push(entry);
                continue;
            }
            let routes = entry.application.routes().await;
            entry.traffic = counts.then(|| {
                let name = Arc::clone(&entry.name);
                Arc::new(AppTraffic::new(name, routes.as_ref().ok()))
            });
            let own = bridges.iter().filter(|found| found.outer == place);
            reports.push(AppReport {
                name: entry.name.to_string(),
                description: entry.application.description(),
                routes: routes.clone().map_err(|error| error.to_string()),
                bridges: own.map(|found| found.report.clone()).collect(),
            });
            apps.push((Arc::new(entry), routes));
        }
        let mut router = Router::build(&config.rules, &config.root_path, &apps, overlay)
            .map_err(|error| LoadError::rules(&error, &config.apps))?;
        for (mut entry, (outer, prefix, before)) in inner.into_iter().zip(natives) {
            let Some((outer, _)) = apps.get(outer) else {
                continue;
            };
            // Its routes are those of the outer application, which are read through the bridge.
            entry.traffic.clone_from(&outer.traffic);
            let part = Part::new(Arc::new(entry), &prefix, before);
            router.divide(&outer.name, &Arc::new(part));
        }
        let mut warnings = Router::warnings(&config.rules, &apps);
        warnings.extend(bridges.iter().filter_map(|found| {
            let outer = &loaded.get(found.outer)?.config;
            unbridge::warning(&found.report, outer)
        }));
        let ready = Ready {
            apps: reports,
            warnings,
        };
        Ok((router, ready, metrics))
    }

    /// Lets the applications call each other.
    fn open(&self, peers: &Peers) {
        let metrics = self.dispatcher.metrics().apps();
        peers.open(Handle::current(), &self.loaded, metrics, &self.config);
    }

    /// What there is to tell once everything has started.
    pub fn started(&self) -> Started {
        Started {
            ready: self.ready.clone(),
            dispatcher: Arc::clone(&self.dispatcher),
            loaded: self.loaded.clone(),
            finished: CancellationToken::new(),
        }
    }

    /// Accepts on every listener until the drain begins, then lets everything finish and stops the applications.
    pub async fn serve(self, listeners: Vec<Listener>) -> Shutdown {
        for listener in listeners {
            let acceptor = match listener.into_acceptor() {
                Ok(acceptor) => acceptor,
                Err(error) => {
                    error!(%error, "a listening socket cannot be used");
                    continue;
                }
            };
            let dispatcher = Arc::clone(&self.dispatcher);
            self.drain.spawn(accept(acceptor, dispatcher));
        }
        self.drain.begun().await;
        let limit = self.config.timeouts.graceful_shutdown;
        let deadline = Instant::now() + limit;
        self.notify(Notice::Draining);
        let last_call = async {
            tokio::time::sleep_until(deadline - LAST_CALL.min(limit / 4)).await;
            self.notify(Notice::LastCall);
            std::future::pending().await
        };
        let dropped = tokio::select! {
            dropped = self.drain.finish(limit) => dropped,
            never = last_call => never,
        };
        if dropped > 0 {
            warn!(
                dropped,
                ?limit,
                "connections were cut off: they did not finish in time"
            );
        }
        for app in &self.loaded {
            let settled = app.application.settled();
            if tokio::time::timeout_at(deadline, settled).await.is_err() {
                warn!(app = %app.config.name, ?limit, "work for requests is cut off: it did not finish in time");
            }
        }
        stop_all(&self.loaded).await
    }

    fn notify(&self, notice: Notice) {
        for app in &self.loaded {
            app.application.notify(notice);
        }
    }
}

pub(crate) async fn accept(acceptor: Acceptor, dispatcher: Arc<Dispatcher>) {
    let drain = dispatcher.drain().clone();
    loop {
        let (stream, conn) = tokio::select! {
            biased;
            () = drain.begun() => return,
            accepted = acceptor.accept() => accepted,
        };
        let dispatcher = Arc::clone(&dispatcher);
        drain.spawn(async move {
            let metrics = Arc::clone(dispatcher.metrics());
            let _open = OpenConnection::new(&metrics);
            serve_connection(dispatcher, stream, conn).await;
        });
    }
}

/// Counts a connection for as long as it lives, however it ends.
struct OpenConnection<'a>(&'a Metrics);

impl<'a> OpenConnection<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.connection_opened();
        Self(metrics)
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.connection_closed();
    }
}

/// A server without an access log is better than none: the failure is logged.
fn open_access_log(config: &Config, metrics: &Arc<Metrics>) -> Option<AccessLog> {
    if !config.access_log {
        return None;
    }
    match AccessLog::start(Box::new(std::io::stdout()), Arc::clone(metrics)) {
        Ok(log) => Some(log),
        Err(error) => {
            error!(%error, "no access log");
            None
        }
    }
}

/// So long before they are cut off, requests are told; a quarter of the time for the drain where that is less.
const LAST_CALL: Duration = Duration::from_secs(3);

async fn start_one(app: &Loaded) -> Result<(), LoadError> {
    let limit = app.config.timeout_startup;
    let error = match tokio::time::timeout(limit, app.application.startup()).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(_) => LifespanError {
            problem: format!("it did not start within {limit:?}"),
            hint: Some(format!(
                "raise `--timeout-startup` (for it alone `timeout_startup` in `[apps.{0}]`) if it needs more time; \
                 `--lifespan off` starts it without its startup",
                app.config.name
            )),
            traceback: app.application.whereabouts().await,
        },
    };
    Err(LoadError {
        target: app.config.target.to_string(),
        problem: error.problem,
        hint: error.hint,
        traceback: error.traceback,
    })
}

/// Stops applications in reverse order, each within its own time: one that hangs takes none from the others.
async fn stop_all(loaded: &[Loaded]) -> Shutdown {
    let mut shutdown = Shutdown::Clean;
    for app in loaded.iter().rev() {
        let (name, limit) = (&app.config.name, app.config.timeout_shutdown);
        let error = match tokio::time::timeout(limit, app.application.shutdown()).await {
            Ok(Ok(())) => {
                debug!(app = %name, "stopped");
                continue;
            }
            Ok(Err(error)) => error,
            Err(_) => LifespanError {
                problem: format!("it did not stop within {limit:?} and is cut off"),
                hint: Some("raise `--timeout-shutdown` if it needs more time".into()),
                traceback: app.application.whereabouts().await,
            },
        };
        shutdown = Shutdown::Failed;
        let (hint, traceback) = (error.hint.as_deref(), error.traceback.as_deref());
        let more: String = [
            hint.map(|hint| format!("\nhint: {hint}")),
            traceback.map(|it| format!("\n{}", it.trim_end())),
        ]
        .into_iter()
        .flatten()
        .collect();
        error!(app = %name, "the shutdown failed: {}{more}", error.problem);
    }
    shutdown
}

/// The end of a worker, for the thread that drives the host.
#[derive(Clone, Default)]
pub struct Finished {
    shared: Arc<(Mutex<FinishedState>, Condvar)>,
}

#[derive(Default)]
struct FinishedState {
    done: bool,
    notify: Option<Box<dyn FnOnce() + Send>>,
}

impl fmt::Debug for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Finished")
    }
}

impl Finished {
    /// Calls `notify` on the finishing thread, or at once when the worker has finished already.
    pub fn on(&self, notify: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.done {
            drop(state);
            notify();
        } else {
            state.notify = Some(Box::new(notify));
        }
    }

    /// Waits at most `limit`; whether the worker has finished.
    pub fn wait(&self, limit: Duration) -> bool {
        let state = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, _) = self
            .shared
            .1
            .wait_timeout_while(state, limit, |state| !state.done)
            .unwrap_or_else(PoisonError::into_inner);
        state.done
    }

    fn set(&self) {
        let mut state = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.done = true;
        let notify = state.notify.take();
        drop(state);
        self.shared.1.notify_all();
        if let Some(notify) = notify {
            notify();
        }
    }
}

/// Says that the worker has finished when it is dropped, also by a panic.
#[derive(Debug)]
struct FinishGuard(Finished);

impl Drop for FinishGuard {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// The I/O threads of a worker, with the runtime that they drive.
#[derive(Debug)]
pub struct IoThreads {
    pub handle: tokio::runtime::Handle,
    pub finished: Finished,
    thread: std::thread::JoinHandle<()>,
}

/// Threads that read files for responses at a time: where a disk hangs, so many are lost to it and no more.
const FILE_THREADS: usize = 32;

impl IoThreads {
    /// Starts `threads` threads; `main` makes the future that lives as long as they do. A single thread
    /// shares its work with whoever takes the lead.
    pub fn start<F, Fut>(threads: usize, main: F) -> std::io::Result<Self>
    where
        F: FnOnce(tokio::runtime::Handle, Option<Lead>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let runtime = if threads > 1 {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(threads)
                .thread_name("twinspan-io")
                .max_blocking_threads(FILE_THREADS)
                .enable_all()
                .build()?
        } else {
            tokio::runtime::Builder::new_current_thread()
                .thread_name("twinspan-file")
                .max_blocking_threads(FILE_THREADS)
                .enable_all()
                .build()?
        };
        let handle = runtime.handle().clone();
        let finished = Finished::default();
        let guard = FinishGuard(finished.clone());
        let main_handle = handle.clone();
        let thread = std::thread::Builder::new()
            .name("twinspan-io".into())
            .spawn(move || {
                let guard = guard;
                let runtime = if threads > 1 {
                    runtime.block_on(main(main_handle, None));
                    Some(runtime)
                } else {
                    lead::run(runtime, |lead| main(main_handle, Some(lead)))
                };
                // Tasks that are left hold application objects: they go before the end is announced.
                if let Some(runtime) = runtime {
                    runtime.shutdown_timeout(Duration::from_secs(1));
                }
                drop(guard);
            })?;
        Ok(Self {
            handle,
            finished,
            thread,
        })
    }

    /// Waits for the threads to end.
    pub fn join(self) {
        if self.thread.join().is_err() {
            error!("the I/O thread panicked");
        }
    }
}
