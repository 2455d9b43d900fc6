//! The asyncio loop, its queue, and the one wake-up that many requests share.
//!
//! An I/O thread pushes a job and, only when the loop sleeps, writes to a pipe that the loop watches.
//! The loop's callback takes all that is there, runs it, and delivers the answers together. A batch is
//! capped so that the application's own timers and tasks keep their turn.

use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PySet};
use tokio::runtime::Handle;
use tracing::{error, warn};
use twinspan::worker::Finished;
use twinspan_bridge::bytes::Lender;
use twinspan_bridge::doorbell::Doorbell;
use twinspan_bridge::errors::{summary, traceback};
use twinspan_bridge::outbox::{Answer, Outbox, ReplyTo};

type Run = Box<dyn FnOnce(Python<'_>, &Arc<EventLoop>) + Send>;

/// Something to do on the loop's thread.
pub(crate) enum Job {
    /// Starts a request, or anything else that needs Python.
    Run(Run),
    /// What somebody waits for may have come.
    Wake(Arc<dyn Wake>),
}

/// Whoever is told on the loop's thread that waiting may be over.
pub(crate) trait Wake: Send + Sync {
    fn wake(&self, py: Python<'_>);
}

/// Jobs that one turn of the loop runs at most.
const BATCH: usize = 256;
/// Answers are delivered together, but none is kept much longer than this by the applications that
/// take their turn after it.
const ANSWERS_WAIT: Duration = Duration::from_micros(50);
/// What waits longer for its turn than this, or with more others, waits for a loop that lags.
const LAG: Duration = Duration::from_millis(5);
const LAG_JOBS: usize = 4;
/// How long what is left may take to end when the loop closes.
const CLOSING_LIMIT: Duration = Duration::from_secs(1);

/// One step of closing the loop; the next is taken even when it fails.
type Step = fn(&EventLoop, Python<'_>) -> PyResult<()>;

/// One asyncio loop and the way to it.
pub struct EventLoop {
    inbox: Mutex<Inbox>,
    bell: Bell,
    outbox: Arc<Outbox>,
    doorbell: Arc<Doorbell>,
    /// The I/O runtime, once the loop is joined with it.
    io: OnceLock<Handle>,
    /// Only the loop's thread reads and writes it.
    in_turn: AtomicBool,
    /// The worker has finished; only the loop's thread reads and writes it.
    stopping: AtomicBool,
    pub(crate) lender: Arc<Lender>,
    python: Objects,
}

#[derive(Default)]
struct Inbox {
    jobs: Vec<Job>,
    /// When the first of them came.
    since: Option<Instant>,
    /// The loop has seen the queue empty and waits for the bell.
    asleep: bool,
    closed: bool,
}

/// Python objects that every request needs.
struct Objects {
    event_loop: Py<PyAny>,
    /// `asyncio.Task` with the loop and, from Python 3.12 on, `eager_start` filled in.
    new_task: Py<PyAny>,
    create_future: Py<PyAny>,
}

impl fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventLoop")
    }
}

impl EventLoop {
    /// Takes over a loop, which becomes the current thread's.
    pub fn new(event_loop: Bound<'_, PyAny>) -> PyResult<Arc<Self>> {
        let py = event_loop.py();
        let asyncio = py.import("asyncio")?;
        asyncio.call_method1("set_event_loop", (&event_loop,))?;
        let arguments = PyDict::new(py);
        arguments.set_item("loop", &event_loop)?;
        if py.version_info() >= (3, 12) {
            arguments.set_item("eager_start", true)?;
        }
        let new_task = py.import("functools")?.call_method(
            "partial",
            (asyncio.getattr("Task")?,),
            Some(&arguments),
        )?;
        let create_future = event_loop.getattr("create_future")?;
        let bell = Bell::new()?;
        Ok(Arc::new_cyclic(|this: &std::sync::Weak<Self>| {
            let this = std::sync::Weak::clone(this);
            let release = move || {
                if let Some(event_loop) = this.upgrade() {
                    event_loop.run(|py, event_loop| event_loop.lender.release(py));
                }
            };
            Self {
                inbox: Mutex::default(),
                bell,
                outbox: Arc::new(Outbox::default()),
                doorbell: Arc::default(),
                io: OnceLock::new(),
                in_turn: AtomicBool::new(false),
                stopping: AtomicBool::new(false),
                lender: Lender::new(release),
                python: Objects {
                    create_future: create_future.unbind(),
                    event_loop: event_loop.unbind(),
                    new_task: new_task.unbind(),
                },
            }
        }))
    }

    /// Joins the loop with the current I/O runtime, once.
    pub(crate) fn connect(self: &Arc<Self>) {
        if self.io.set(Handle::current()).is_ok() {
            tokio::spawn(Arc::clone(&self.outbox).serve());
            let this = Arc::clone(self);
            tokio::spawn(Arc::clone(&self.doorbell).serve(move || this.bell.ring()));
        }
    }

    /// Starts a task on the I/O runtime.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(io) = self.io.get() {
            io.spawn(task);
        }
    }

    /// Answers a request: at the end of the turn with all others, or at once outside of a turn.
    pub(crate) fn answer(&self, to: ReplyTo, answer: Answer) {
        if self.in_turn.load(Ordering::Relaxed) {
            self.outbox.put(to, answer);
        } else {
            self.outbox.send(to, answer);
        }
    }

    /// Runs a closure on the loop's thread; from any thread.
    pub fn run(&self, job: impl FnOnce(Python<'_>, &Arc<Self>) + Send + 'static) {
        if self.queue(Job::Run(Box::new(job))) {
            self.bell.ring();
        }
    }

    /// Hands over a job from an I/O thread, together with others that the thread finds.
    pub(crate) fn push(&self, job: Job) {
        if self.queue(job) {
            self.doorbell.press();
        }
    }

    /// Whether the loop must be woken for it.
    fn queue(&self, job: Job) -> bool {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        if inbox.closed {
            return false;
        }
        if inbox.jobs.is_empty() {
            inbox.since = Some(Instant::now());
        }
        inbox.jobs.push(job);
        std::mem::take(&mut inbox.asleep)
    }

    /// Whether the loop does not keep up: several jobs wait for it, or one has waited for long.
    pub(crate) fn lags(&self) -> bool {
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |since: Instant| since.elapsed() > LAG;
        inbox.jobs.len() > LAG_JOBS || (!inbox.jobs.is_empty() && inbox.since.is_some_and(waits))
    }

    pub fn event_loop<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.python.event_loop.bind(py)
    }

    pub(crate) fn create_future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.python.create_future.bind(py).call0()
    }

    /// Starts a coroutine as a task; its first step runs at once from Python 3.12 on.
    pub(crate) fn start_task<'py>(
        &self,
        coroutine: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.python
            .new_task
            .bind(coroutine.py())
            .call1((coroutine,))
    }

    /// Runs the loop on this thread until the worker has finished.
    pub fn run_until(self: &Arc<Self>, py: Python<'_>, finished: &Finished) -> PyResult<()> {
        let event_loop = self.python.event_loop.bind(py);
        let callback = Py::new(
            py,
            Callback {
                event_loop: Arc::clone(self),
            },
        )?;
        event_loop.call_method1(
            intern!(py, "add_reader"),
            (self.bell.fd.as_raw_fd(), callback),
        )?;
        self.bell.ring();
        let this = Arc::clone(self);
        finished.on(move || {
            this.run(|py, event_loop| event_loop.stop(py));
            // The I/O threads, which may have been about to ring, have gone.
            this.bell.ring();
        });
        let ran = self.run_to_the_end(py);
        self.close(py);
        ran
    }

    /// Goes on until the worker stops the loop, whatever applications do to it.
    fn run_to_the_end(&self, py: Python<'_>) -> PyResult<()> {
        let event_loop = self.python.event_loop.bind(py);
        loop {
            let ran = event_loop.call_method0(intern!(py, "run_forever"));
            if self.stopping.load(Ordering::Relaxed) {
                return Ok(());
            }
            match ran {
                Ok(_) => warn!("an application stopped the event loop; it goes on"),
                // asyncio hands on what a task raised to end the process. That task has ended with it,
                // and its request with an error; the others go on.
                Err(error) if ends_process(py, &error) && !is_ctrl_c(py, &error)? => {
                    warn!(error = %summary(py, &error), "an application tried to end the process; it goes on");
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn stop(&self, py: Python<'_>) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Err(error) = self.python.event_loop.bind(py).call_method0("stop") {
            error!(error = %traceback(py, &error), "the event loop cannot be stopped");
        }
    }

    /// Cancels what is left, as `asyncio.run` does, and closes the loop.
    fn close(&self, py: Python<'_>) {
        let left = {
            let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            inbox.closed = true;
            std::mem::take(&mut inbox.jobs)
        };
        drop(left);
        let steps: [(&str, Step); 4] = [
            ("cancel its tasks", Self::cancel_tasks),
            ("end its generators and threads", Self::end_generators),
            ("let go of its queue", Self::remove_reader),
            ("close", Self::close_loop),
        ];
        for (what, step) in steps {
            if let Err(error) = step(self, py) {
                warn!(error = %summary(py, &error), "the event loop could not {what}");
            }
        }
        self.lender.release(py);
    }

    fn cancel_tasks(&self, py: Python<'_>) -> PyResult<()> {
        let event_loop = self.python.event_loop.bind(py);
        let tasks = py
            .import("asyncio")?
            .call_method1("all_tasks", (event_loop,))?;
        for task in tasks.try_iter()? {
            task?.call_method0("cancel")?;
        }
        self.wait(&tasks)
    }

    fn end_generators(&self, py: Python<'_>) -> PyResult<()> {
        let event_loop = self.python.event_loop.bind(py);
        let endings = PySet::empty(py)?;
        for ending in ["shutdown_asyncgens", "shutdown_default_executor"] {
            let ending = event_loop.call_method0(ending)?;
            endings.add(event_loop.call_method1("create_task", (ending,))?)?;
        }
        self.wait(&endings)
    }

    /// Runs the loop until all of `tasks` are done, or too long.
    fn wait(&self, tasks: &Bound<'_, PyAny>) -> PyResult<()> {
        if !tasks.is_truthy()? {
            return Ok(());
        }
        let py = tasks.py();
        let event_loop = self.python.event_loop.bind(py);
        let options = PyDict::new(py);
        options.set_item("timeout", CLOSING_LIMIT.as_secs_f64())?;
        let wait = py
            .import("asyncio")?
            .getattr("wait")?
            .call((tasks,), Some(&options))?;
        let wait = event_loop.call_method1("create_task", (wait,))?;
        let (_, pending): (Bound<'_, PyAny>, Bound<'_, PyAny>) = loop {
            match event_loop.call_method1("run_until_complete", (&wait,)) {
                Ok(waited) => break waited.extract()?,
                Err(error) if ends_process(py, &error) => {}
                Err(error) => return Err(error),
            }
        };
        let left = pending.len()?;
        if left > 0 {
            warn!(left, limit = ?CLOSING_LIMIT, "tasks of the event loop did not end although they were asked to");
        }
        Ok(())
    }

    fn remove_reader(&self, py: Python<'_>) -> PyResult<()> {
        let event_loop = self.python.event_loop.bind(py);
        event_loop
            .call_method1("remove_reader", (self.bell.fd.as_raw_fd(),))
            .map(drop)
    }

    fn close_loop(&self, py: Python<'_>) -> PyResult<()> {
        py.import("asyncio")?
            .call_method1("set_event_loop", (py.None(),))?;
        self.python
            .event_loop
            .bind(py)
            .call_method0("close")
            .map(drop)
    }

    /// One turn: runs what has come, then sleeps or asks for another turn.
    fn turn(self: &Arc<Self>, py: Python<'_>) {
        self.bell.silence();
        self.in_turn.store(true, Ordering::Relaxed);
        let mut left = BATCH;
        loop {
            let jobs = {
                let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
                if inbox.jobs.is_empty() {
                    inbox.asleep = true;
                    break;
                }
                if left == 0 {
                    drop(inbox);
                    self.bell.ring();
                    break;
                }
                let count = inbox.jobs.len().min(left);
                left -= count;
                if count == inbox.jobs.len() {
                    std::mem::take(&mut inbox.jobs)
                } else {
                    inbox.jobs.drain(..count).collect()
                }
            };
            let mut delivered = Instant::now();
            for job in jobs {
                let run = AssertUnwindSafe(|| match job {
                    Job::Run(run) => run(py, self),
                    Job::Wake(wake) => wake.wake(py),
                });
                if catch_unwind(run).is_err() {
                    // The others, and the loop, are not to blame.
                    error!("a job of the event loop panicked");
                }
                if delivered.elapsed() >= ANSWERS_WAIT {
                    self.outbox.flush();
                    delivered = Instant::now();
                }
            }
            self.outbox.flush();
        }
        self.in_turn.store(false, Ordering::Relaxed);
        self.lender.release(py);
    }
}

/// What asyncio lets through to whoever runs the loop.
fn ends_process(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py)
}

/// Whether somebody at the keyboard wants the end: where the server runs without a handler of its own,
/// on the main thread of a program.
fn is_ctrl_c(py: Python<'_>, error: &PyErr) -> PyResult<bool> {
    if !error.is_instance_of::<PyKeyboardInterrupt>(py) {
        return Ok(false);
    }
    let signal = py.import("signal")?;
    let handler = signal.call_method1("getsignal", (signal.getattr("SIGINT")?,))?;
    let threading = py.import("threading")?;
    let thread = threading.call_method0("current_thread")?;
    Ok(handler.is(&signal.getattr("default_int_handler")?)
        && thread.is(&threading.call_method0("main_thread")?))
}

/// What the loop calls when the bell rings.
#[pyclass(frozen)]
struct Callback {
    event_loop: Arc<EventLoop>,
}

#[pymethods]
impl Callback {
    fn __call__(&self, py: Python<'_>) {
        self.event_loop.turn(py);
    }
}

/// Wakes the loop's selector from another thread without the GIL.
struct Bell {
    fd: OwnedFd,
    /// Where eventfd does not exist, the writing end of a pipe.
    #[cfg(not(target_os = "linux"))]
    writer: OwnedFd,
}

impl Bell {
    #[cfg(target_os = "linux")]
    fn new() -> std::io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { fd })
    }

    #[cfg(not(target_os = "linux"))]
    fn new() -> std::io::Result<Self> {
        let (fd, writer) = rustix::pipe::pipe()?;
        for end in [&fd, &writer] {
            rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(end, true)?;
        }
        Ok(Self { fd, writer })
    }

    fn ring(&self) {
        #[cfg(target_os = "linux")]
        let writer = &self.fd;
        #[cfg(not(target_os = "linux"))]
        let writer = &self.writer;
        // Fails only when it is full: then it rings already.
        let _ = rustix::io::write(writer, &1_u64.to_ne_bytes());
    }

    fn silence(&self) {
        // Fails only when it has not rung.
        let _ = rustix::io::read(&self.fd, &mut [0; 64]);
    }
}
