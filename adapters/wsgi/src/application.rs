//! A WSGI application as the core sees it, and the threads that run it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tracing::{debug, error, info, warn};
use twinspan::app::{
    AppError, Application, BoxFuture, Description, Interface, LifespanError, PoolLoad, Request,
    Response, RouteTable, RoutesError,
};
use twinspan::config::AppConfig;
use twinspan::lead::Lead;
use twinspan_bridge::bytes::Lender;
use twinspan_bridge::context;
use twinspan_bridge::doorbell::Doorbell;
use twinspan_bridge::errors::{summary, traceback};
use twinspan_bridge::outbox::{Answer, Outbox, ReplyTo};
use twinspan_bridge::routes;

use crate::block_on::block_on;
use crate::environ::EnvironFactory;
use crate::errors::ErrorStream;
use crate::input::Input;
use crate::lead;
use crate::pool::{Check, Idle, Pool, Refused, Submitted};
use crate::response::{EarlyHints, Responder, StartResponse};
use crate::stuck::Reports;
use crate::ticket::{Expired, Runner, Ticket};

/// How long threads that have nothing more to do may take to leave.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);
/// A thread that has had nothing to do for this long leaves, with what it keeps for itself: a connection to a
/// database, say, that nobody will need soon.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// How long a job may wait at the most, about twice, behind one that was not expected to take long.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// How long a thread that leads runs jobs before it looks after the I/O again.
const PASS_EVERY: Duration = Duration::from_millis(1);
/// Bytes of stack without which a thread never drives the I/O.
const LEADER_STACK: usize = 256 * 1024;

/// One WSGI application with its pool of threads.
pub struct WsgiApplication {
    shared: Arc<Shared>,
    router: Option<Arc<Py<PyAny>>>,
    threads: usize,
    timeout: Option<Duration>,
    connected: AtomicBool,
    /// The application has asked for threads without room for the I/O (`threading.stack_size`).
    small_stacks: bool,
}

/// What every request of the application needs.
pub(crate) struct Shared {
    pub(crate) name: Arc<str>,
    app: Py<PyAny>,
    environ: EnvironFactory,
    errors: Py<ErrorStream>,
    pub(crate) pool: Pool<Job>,
    /// Threads that were ever made: a part of their names.
    made: AtomicUsize,
    pub(crate) reports: Reports,
    /// Told when more threads are stuck than can be replaced.
    exhausted: Notify,
    outbox: Arc<Outbox>,
    doorbell: Arc<Doorbell>,
    /// Wakes the [`Shared::watch`].
    watch: Notify,
    /// Absent where the I/O has threads of its own only.
    lead: OnceLock<Lead>,
    lender: Arc<Lender>,
}

type Run = Box<dyn FnOnce(Python<'_>, &Shared) + Send>;

pub(crate) enum Job {
    /// With its ticket if it has a deadline.
    Request(Box<Request>, ReplyTo, Option<Arc<Ticket>>),
    /// Anything else that needs Python.
    Run(Run),
}

impl Job {
    fn has(&self, ticket: &Arc<Ticket>) -> bool {
        matches!(self, Self::Request(_, _, Some(own)) if Arc::ptr_eq(own, ticket))
    }
}

impl fmt::Debug for WsgiApplication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WsgiApplication")
            .field("name", &self.shared.name)
            .finish_non_exhaustive()
    }
}

impl WsgiApplication {
    /// Wraps `app` and makes its first thread; `multiprocess` says whether other processes serve it too,
    /// `apps` is what applications find each other by.
    pub fn new(
        py: Python<'_>,
        app: &Bound<'_, PyAny>,
        config: &AppConfig,
        router: Option<Bound<'_, PyAny>>,
        multiprocess: bool,
        apps: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let threads = config.threads.max(1);
        let name: Arc<str> = config.name.as_str().into();
        let errors = Bound::new(py, ErrorStream::new(Arc::clone(&name)))?;
        // With a deadline, the place of a stuck thread is taken, and it may run on beside the other.
        let multithread = threads > 1 || config.timeout_request.is_some();
        let environ = EnvironFactory::new(&errors, multithread, multiprocess, apps)?;
        let shared = Arc::new_cyclic(|this: &std::sync::Weak<Shared>| {
            let this = std::sync::Weak::clone(this);
            let release = move || {
                if let Some(shared) = this.upgrade() {
                    let release = Job::Run(Box::new(|py, shared| shared.lender.release(py)));
                    // A full pool releases what came back with its next job anyway.
                    let _ = shared.submit(release);
                }
            };
            Shared {
                name,
                app: app.clone().unbind(),
                environ,
                errors: errors.unbind(),
                pool: Pool::new(threads, config.queue),
                made: AtomicUsize::new(0),
                reports: Reports::default(),
                exhausted: Notify::new(),
                outbox: Arc::default(),
                doorbell: Arc::default(),
                watch: Notify::new(),
                lead: OnceLock::new(),
                lender: Lender::new(release),
            }
        });
        // 0 is what the system gives, which is enough everywhere.
        let stack: usize = py
            .import("threading")?
            .call_method0("stack_size")?
            .extract()?;
        start_thread(py, &shared)?;
        Ok(Self {
            shared,
            router: router.map(|router| Arc::new(router.unbind())),
            threads,
            timeout: config.timeout_request,
            connected: AtomicBool::new(false),
            small_stacks: (1..LEADER_STACK).contains(&stack),
        })
    }
}

impl Application for WsgiApplication {
    fn description(&self) -> Description {
        Description {
            interface: Interface::Wsgi,
            threads: Some(self.threads),
        }
    }

    fn call(&self, request: Box<Request>) -> BoxFuture<'static, Result<Response, AppError>> {
        let (reply_to, answer) = oneshot::channel();
        let Some(limit) = self.timeout else {
            let submitted = self.shared.submit(Job::Request(request, reply_to, None));
            return Box::pin(async move {
                submitted.map_err(refused)?;
                answer.await.unwrap_or_else(|_| Err(stopping()))
            });
        };
        let ticket = Arc::new(Ticket::new(limit, &request.head));
        let job = Job::Request(request, reply_to, Some(Arc::clone(&ticket)));
        let submitted = self.shared.submit(job);
        let mut clock = Clock {
            shared: Arc::clone(&self.shared),
            ticket,
            runs: true,
        };
        Box::pin(async move {
            if let Err(problem) = submitted {
                clock.stop();
                return Err(refused(problem));
            }
            clock.time(answer).await
        })
    }

    fn pool(&self) -> Option<PoolLoad> {
        Some(self.shared.pool.load())
    }

    fn exhausted(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.shared.exhausted.notified())
    }

    fn startup(&self) -> BoxFuture<'_, Result<(), LifespanError>> {
        if !self.connected.swap(true, Ordering::Relaxed) {
            tokio::spawn(Arc::clone(&self.shared.outbox).serve());
            let shared = Arc::clone(&self.shared);
            tokio::spawn(Arc::clone(&self.shared.doorbell).serve(move || shared.pool.wake()));
            tokio::spawn(Arc::clone(&self.shared).watch());
            tokio::spawn(Arc::clone(&self.shared).dismiss_idle());
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn may_lead(&self, lead: Lead) {
        if self.small_stacks {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let returned = lead.clone();
        tokio::spawn(async move {
            loop {
                returned.returned().await;
                shared.outbox.flush();
            }
        });
        let _ = self.shared.lead.set(lead);
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.shared.pool.settled())
    }

    fn shutdown(&self) -> BoxFuture<'_, Result<(), LifespanError>> {
        Box::pin(async {
            drop(self.shared.pool.close());
            let empty = self.shared.pool.empty();
            let in_time = tokio::time::timeout(LEAVE_LIMIT, empty).await.is_ok();
            if !in_time || self.shared.pool.load().abandoned > 0 {
                warn!(app = %self.shared.name, "threads are stuck in the application and are left behind");
            }
            Ok(())
        })
    }

    fn routes(&self) -> BoxFuture<'_, Result<RouteTable, RoutesError>> {
        let (send, receive) = oneshot::channel();
        let router = self.router.clone();
        let read = Job::Run(Box::new(move |py, shared| {
            let router = router.as_ref().map(|router| router.bind(py));
            let _ = send.send(routes::read(shared.app.bind(py), router));
        }));
        let submitted = self.shared.submit(read);
        Box::pin(async move {
            let unreadable = || RoutesError::Unreadable {
                what: "an application that has stopped".into(),
            };
            submitted.map_err(|_| unreadable())?;
            receive.await.unwrap_or_else(|_| Err(unreadable()))
        })
    }
}

impl Drop for WsgiApplication {
    fn drop(&mut self) {
        // The threads hold what is shared: one that never started serving has nobody else to end them.
        drop(self.shared.pool.close());
    }
}

fn refused(problem: Refused) -> AppError {
    match problem {
        Refused::Full { waiting } => AppError::Overloaded { waiting },
        Refused::Exhausted { abandoned } => AppError::Exhausted { abandoned },
    }
}

fn stopping() -> AppError {
    AppError::Failed("the server is stopping".into())
}

/// Watches the deadline of one request, on an I/O thread.
struct Clock {
    shared: Arc<Shared>,
    ticket: Arc<Ticket>,
    /// The request has neither an answer nor an error yet.
    runs: bool,
}

impl Clock {
    fn stop(&mut self) {
        self.runs = false;
    }

    /// Waits for the answer, to the deadline at most.
    async fn time(
        &mut self,
        answer: oneshot::Receiver<Result<Response, AppError>>,
    ) -> Result<Response, AppError> {
        // What is sent later finds its receiver gone, as after a disconnect.
        let answered = tokio::time::timeout_at(self.ticket.deadline, answer).await;
        self.stop();
        answered.map_or_else(
            |_| {
                self.shared.expire(&self.ticket);
                Err(AppError::Timeout(self.ticket.limit))
            },
            |answer| answer.unwrap_or_else(|_| Err(stopping())),
        )
    }
}

impl Drop for Clock {
    /// The client has gone before its answer. Its thread is not free for that: a thread that is stuck must be
    /// found also when clients have less patience than the server.
    fn drop(&mut self) {
        if self.runs
            && let Ok(handle) = Handle::try_current()
        {
            let (shared, ticket) = (Arc::clone(&self.shared), Arc::clone(&self.ticket));
            handle.spawn(async move {
                let ended = tokio::time::timeout_at(ticket.deadline, ticket.ended()).await;
                if ended.is_err() {
                    shared.expire(&ticket);
                }
            });
        }
    }
}

/// Makes a thread for the pool unless it has enough; whether it did. It is one of Python's own, so that everything
/// that looks for the current thread finds it.
fn start_thread(py: Python<'_>, shared: &Arc<Shared>) -> PyResult<bool> {
    if !shared.pool.join() {
        return Ok(false);
    }
    let target = Bound::new(
        py,
        PoolThread {
            shared: Arc::clone(shared),
        },
    )?;
    let options = PyDict::new(py);
    options.set_item("target", target)?;
    let number = shared.made.fetch_add(1, Ordering::Relaxed) + 1;
    options.set_item("name", format!("twinspan-{}-{number}", shared.name))?;
    // The end of the process does not wait for an application that is stuck.
    options.set_item("daemon", true)?;
    let started = py
        .import("threading")
        .and_then(|threading| threading.getattr("Thread")?.call((), Some(&options)))
        .and_then(|thread| thread.call_method0("start"));
    if started.is_err() {
        shared.pool.leave();
    }
    started.map(|_| true)
}

/// The life of one pool thread.
#[pyclass(frozen)]
struct PoolThread {
    shared: Arc<Shared>,
}

#[pymethods]
impl PoolThread {
    fn __call__(&self, py: Python<'_>) {
        let shared = &self.shared;
        let runner = match this_thread(py) {
            Ok(runner) => Arc::new(runner),
            Err(error) => {
                error!(app = %shared.name, error = %summary(py, &error), "a thread does not know itself");
                shared.pool.leave();
                return shared.pool.wake();
            }
        };
        let mut answers = Vec::new();
        let mut idle = shared.work(py, Idle::NoJob, &runner);
        while let Some(after) = py.detach(|| shared.wait(idle, &mut answers)) {
            idle = shared.work(py, after, &runner);
        }
        lead::end();
    }
}

/// The thread that calls, as reports name it.
fn this_thread(py: Python<'_>) -> PyResult<Runner> {
    let threading = py.import("threading")?;
    Ok(Runner {
        ident: threading.call_method0("get_ident")?.extract()?,
        name: threading
            .call_method0("current_thread")?
            .getattr("name")?
            .extract()?,
    })
}

/// A request with a deadline runs, and is over when this is dropped, also by a panic.
struct Running<'a> {
    shared: &'a Shared,
    ticket: &'a Ticket,
    runner: &'a Runner,
}

impl<'a> Running<'a> {
    /// `None` when the deadline has passed already.
    fn begin(shared: &'a Shared, ticket: &'a Ticket, runner: &'a Arc<Runner>) -> Option<Self> {
        ticket.begin(runner).then_some(Self {
            shared,
            ticket,
            runner,
        })
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Self {
            shared,
            ticket,
            runner,
        } = *self;
        if ticket.end(|| shared.pool.returned()) {
            let late = ticket.deadline.elapsed();
            info!(
                app = %shared.name, thread = runner.name, method = %ticket.method, path = ticket.path(), ?late,
                "an abandoned thread has come back"
            );
        }
    }
}

/// Answers a request whose thread panics, although the application may have kept what answers it.
struct Unanswered<'a>(&'a Responder);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let problem = "the application ended without a response";
        self.0.fail(AppError::Failed(problem.into()));
    }
}

impl Shared {
    /// Hands a job to the threads; a refused one is dropped.
    fn submit(&self, job: Job) -> Result<(), Refused> {
        match self.pool.submit(job).map_err(|(_, refused)| refused)? {
            Submitted::Quietly => {}
            Submitted::Wake => self.doorbell.press(),
            Submitted::Watch => self.watch.notify_one(),
        }
        Ok(())
    }

    /// Waits for a job, idle or at the head of the I/O; `None` when the thread has left the pool.
    fn wait(&self, idle: Idle, answers: &mut Vec<(ReplyTo, Answer)>) -> Option<Idle> {
        if let Some(lease) = self.lead.get().and_then(Lead::take) {
            lead::begin(lease);
        }
        let driven = lead::drive(async {
            self.outbox.deliver(answers);
            if idle == Idle::Pass {
                // One pass over the I/O: what was delivered is written, what has arrived is read.
                tokio::task::yield_now().await;
            }
            self.pool.wait(idle, true).await
        });
        if let Some(after) = driven {
            return after;
        }
        // What was put for the next pass of a lead that is lost.
        self.outbox.flush();
        block_on(self.pool.wait(idle, false))
    }

    /// Makes another thread if there should be one.
    pub(crate) fn grow(self: &Arc<Self>, py: Python<'_>) {
        if !self.pool.grow() {
            return;
        }
        let made = start_thread(py, self).unwrap_or_else(|error| {
            error!(app = %self.name, error = %summary(py, &error), "a thread cannot be made");
            false
        });
        if !made {
            // Nobody is on the way: another may be woken.
            self.pool.wake();
        }
    }

    /// Runs jobs until there is none, or until it is time to look after the I/O.
    fn work(self: &Arc<Self>, py: Python<'_>, after: Idle, runner: &Arc<Runner>) -> Idle {
        let began = Instant::now();
        let mut after = Some(after);
        loop {
            let job = match self.pool.take(after.take()) {
                Ok(job) => job,
                Err(idle) => return idle,
            };
            if !lead::renew()
                && let Some(lead) = self.lead.get()
            {
                // Two jobs at once: the leader is about to wait, or has begun to.
                lead.recall();
            }
            self.grow(py);
            let run = AssertUnwindSafe(|| match job {
                Job::Request(request, reply_to, None) => self.serve(py, request, reply_to, None),
                Job::Request(request, reply_to, Some(ticket)) => {
                    if let Some(running) = Running::begin(self, &ticket, runner) {
                        self.serve(py, request, reply_to, Some(&ticket));
                        drop(running);
                    }
                }
                Job::Run(run) => run(py, self),
            });
            if catch_unwind(run).is_err() {
                // The request has its 500; the thread is needed for the next.
                error!(app = %self.name, "a thread panicked");
            }
            self.pool.finished();
            self.lender.release(py);
            if lead::holds() && began.elapsed() >= PASS_EVERY {
                return self.pool.pass();
            }
        }
    }

    /// The deadline of a request has passed. Never waits for Python.
    fn expire(self: &Arc<Self>, ticket: &Arc<Ticket>) {
        let mut loss = None;
        match ticket.expire(|| loss = Some(self.pool.abandon())) {
            // Its place in the queue is free for another.
            Expired::Unbegun => drop(self.pool.withdraw(|job| job.has(ticket))),
            Expired::Abandoned => Reports::add(self, Arc::clone(ticket)),
            Expired::Over => {}
        }
        let Some(loss) = loss else { return };
        if loss.exhausts {
            error!(
                app = %self.name, abandoned = loss.abandoned,
                "more threads are stuck in the application than can be replaced: \
                 its requests are answered 503 until one comes back"
            );
            self.exhausted.notify_one();
        }
        for job in loss.left {
            if let Job::Request(_, reply_to, _) = job {
                let abandoned = loss.abandoned;
                self.outbox
                    .send(reply_to, Err(AppError::Exhausted { abandoned }));
            }
        }
    }

    /// Has threads leave that are needed no more.
    async fn dismiss_idle(self: Arc<Self>) {
        loop {
            tokio::time::sleep(IDLE_LIMIT / 4).await;
            self.pool.dismiss(IDLE_LIMIT);
        }
    }

    /// Looks after jobs that nobody was woken for, because the threads that run are expected to take them.
    async fn watch(self: Arc<Self>) {
        loop {
            self.watch.notified().await;
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                if self.pool.check() == Check::Over {
                    break;
                }
            }
        }
    }

    /// Runs the application for one request.
    fn serve(
        &self,
        py: Python<'_>,
        mut request: Box<Request>,
        reply_to: ReplyTo,
        ticket: Option<&Arc<Ticket>>,
    ) {
        if reply_to.is_closed() {
            debug!(app = %self.name, "the client left before its request was begun");
            return;
        }
        let outbox = Arc::clone(&self.outbox);
        let responder = Responder::new(
            outbox,
            Arc::clone(&self.lender),
            &request.head.method,
            request.interim.take(),
            reply_to,
        );
        let _unanswered = Unanswered(&responder);
        let input = Input::new(std::mem::take(&mut request.body), ticket.cloned());
        let mut cut_off = false;
        let ran = context::fresh(py, || {
            let input = Bound::new(py, input)?;
            let ran = self.run(py, &request, &input, &responder);
            cut_off = input.get().is_cut_off();
            ran
        });
        if let Err(error) | Ok(Err(error)) = ran {
            let of_client = error.is_instance_of::<PyOSError>(py);
            if of_client && (cut_off || responder.has_client_left()) {
                debug!(app = %self.name, "the client left before the response was complete");
                responder.fail(AppError::Incomplete);
            } else {
                error!(app = %self.name, "an application raised\n{}", traceback(py, &error).trim_end());
                responder.fail(AppError::Raised);
            }
        }
        self.errors.get().end(py);
    }

    fn run(
        &self,
        py: Python<'_>,
        request: &Request,
        input: &Bound<'_, Input>,
        responder: &Arc<Responder>,
    ) -> PyResult<()> {
        let environ = self.environ.build(py, request, input)?;
        let early_hints = EarlyHints {
            responder: Arc::clone(responder),
        };
        environ.set_item(
            intern!(py, "wsgi.early_hints"),
            Bound::new(py, early_hints)?,
        )?;
        let start_response = StartResponse {
            responder: Arc::clone(responder),
        };
        let result = self.app.bind(py).call1((environ, start_response))?;
        let sent = responder.send_all(&result);
        // An application may keep its `environ` for long, and may have long work to do in `close`.
        input.get().discard();
        // Exactly once, whatever happened before (PEP 3333, "Specification Details").
        let closed = result
            .getattr_opt(intern!(py, "close"))
            .and_then(|close| close.map_or(Ok(()), |close| close.call0().map(drop)));
        match (sent, closed) {
            (Err(first), Err(error)) => {
                // What went wrong first is what the caller tells of.
                error!(app = %self.name, "an application raised in `close`\n{}", traceback(py, &error).trim_end());
                Err(first)
            }
            (sent, closed) => sent.and(closed),
        }
    }
}
