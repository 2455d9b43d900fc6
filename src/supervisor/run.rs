//! The loop around the decisions: events in, actions out.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::channel::{AppReport, Failure, FromWorker, Start, ToWorker};
use super::child::{Children, Notice, WorkerCommand};
use super::{Action, Event, Level, Plan, Signal, Status, Supervisor, WorkerId, signals};
use crate::banner::{self, Place};
use crate::config::Config;
use crate::dispatch::Dispatcher;
use crate::drain::Drain;
use crate::error::Exit;
use crate::listen::{BindError, Listener};
use crate::metrics::Snapshot;
use crate::migrate::live::Overlay;
use crate::worker;

/// Applications start one after the other, each within its own limit, which the worker enforces with
/// a better message. What comes on top is the start of the interpreter.
const STARTUP_MARGIN: Duration = Duration::from_secs(15);
/// A worker that does not answer within this is counted as it was when it last did.
const COLLECT_LIMIT: Duration = Duration::from_millis(500);

/// How a server ended that was not asked to.
#[derive(Debug)]
pub struct ServerError {
    pub exit: Exit,
    pub failure: Failure,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.fmt(f)
    }
}

impl std::error::Error for ServerError {}

impl From<BindError> for ServerError {
    fn from(error: BindError) -> Self {
        Self {
            exit: Exit::Configuration,
            failure: Failure {
                hint: error.hint(),
                ..Failure::new(error.to_string())
            },
        }
    }
}

impl From<io::Error> for ServerError {
    fn from(error: io::Error) -> Self {
        Self {
            exit: Exit::Internal,
            failure: Failure::new(format!("the supervisor cannot run: {error}")),
        }
    }
}

/// Runs the server in worker processes until it is told to stop.
///
/// `settings` is what workers get to derive their own configuration from, `reread` gives it anew when the
/// server reloads, or says why not; `command` starts a worker.
/// `admin` makes what answers on the admin listener; it is called only when there is one.
///
/// # Errors
/// [`ServerError`] with the exit code and what to tell people.
pub fn run(
    config: &Config,
    settings: serde_json::Value,
    reread: impl Fn() -> Result<serde_json::Value, String>,
    command: WorkerCommand,
    admin: impl FnOnce(Control, Drain) -> Arc<Dispatcher>,
) -> Result<Exit, ServerError> {
    let bind = |bind| Listener::bind(bind, config.backlog);
    let listeners: Vec<_> = config.binds.iter().map(bind).collect::<Result<_, _>>()?;
    let admin_listener = config.admin.as_ref().map(bind).transpose()?;
    let admin_local = admin_listener.as_ref().map(|l| l.local().clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let signals = signals::listen()?;
        let plan = Plan {
            workers: config.workers,
            startup: config
                .apps
                .iter()
                .map(|app| app.timeout_startup)
                .sum::<Duration>()
                + STARTUP_MARGIN,
            graceful: config.timeouts.graceful_shutdown
                + config
                    .apps
                    .iter()
                    .map(|app| app.timeout_shutdown)
                    .sum::<Duration>(),
        };
        let (server, control) = Server::new(plan, settings, command, listeners);
        if let Some(listener) = admin_listener {
            let drain = Drain::new(tokio::runtime::Handle::current(), CancellationToken::new());
            let dispatcher = admin(control.clone(), drain.clone());
            drain.spawn(worker::accept(listener.into_acceptor()?, dispatcher));
        }
        let announce = |listeners: &[Listener], apps: &[AppReport]| {
            let listening: Vec<_> = listeners.iter().map(|l| l.local().clone()).collect();
            let admin = admin_local.as_ref();
            for line in banner::lines(config, Place::Workers, &listening, admin, apps) {
                info!("{line}");
            }
        };
        server.run(signals, reread, announce).await
    })
}

/// What the admin endpoint may ask of the supervisor.
#[derive(Debug, Clone)]
pub struct Control {
    requests: mpsc::UnboundedSender<oneshot::Sender<Snapshot>>,
    status: watch::Receiver<Status>,
}

impl Control {
    pub fn status(&self) -> Status {
        *self.status.borrow()
    }
    /// The counters of all workers, those that are gone included. Takes at most half a second.
    pub async fn collect(&self) -> Snapshot {
        let (reply, snapshot) = oneshot::channel();
        // Neither fails before the supervisor ends, and then there is nothing left to count.
        let _ = self.requests.send(reply);
        snapshot.await.unwrap_or_default()
    }
}

/// The state of the loop.
struct Server {
    supervisor: Supervisor,
    began: Instant,
    settings: serde_json::Value,
    command: WorkerCommand,
    listeners: Arc<[Listener]>,
    children: Children,
    workers: HashMap<WorkerId, Worker>,
    /// What the applications were when a worker last became ready.
    apps: Vec<AppReport>,
    warnings: Vec<String>,
    /// Counters of workers that are gone.
    retired: Snapshot,
    collection: Option<Collection>,
    notify: mpsc::UnboundedSender<(WorkerId, Notice)>,
    notices: mpsc::UnboundedReceiver<(WorkerId, Notice)>,
    requests: mpsc::UnboundedReceiver<oneshot::Sender<Snapshot>>,
    status: watch::Sender<Status>,
}

struct Worker {
    pid: Option<i32>,
    ready: bool,
    counters: Snapshot,
}

/// Counters are being asked for.
struct Collection {
    waiting: HashSet<WorkerId>,
    replies: Vec<oneshot::Sender<Snapshot>>,
    until: Instant,
}

type Ended = Result<Exit, ServerError>;

impl Server {
    fn new(
        plan: Plan,
        settings: serde_json::Value,
        command: WorkerCommand,
        listeners: Vec<Listener>,
    ) -> (Self, Control) {
        let (notify, notices) = mpsc::unbounded_channel();
        let (ask, requests) = mpsc::unbounded_channel();
        let (status, watched) = watch::channel(Status::default());
        let server = Self {
            supervisor: Supervisor::new(plan),
            began: Instant::now(),
            settings,
            command,
            listeners: listeners.into(),
            children: Children::default(),
            workers: HashMap::new(),
            apps: Vec::new(),
            warnings: Vec::new(),
            retired: Snapshot::default(),
            collection: None,
            notify,
            notices,
            requests,
            status,
        };
        let control = Control {
            requests: ask,
            status: watched,
        };
        (server, control)
    }

    async fn run(
        mut self,
        mut signals: mpsc::UnboundedReceiver<Signal>,
        reread: impl Fn() -> Result<serde_json::Value, String>,
        announce: impl Fn(&[Listener], &[AppReport]),
    ) -> Ended {
        let mut child_ended = signal(SignalKind::child())?;
        let mut ended = self.step(Event::Start, &announce);
        while ended.is_none() {
            let wake = self.began + self.supervisor.wake_at();
            let collected = self.collection.as_ref().map_or(wake, |it| it.until);
            ended = tokio::select! {
                // A signal to the whole process group ends workers too: what is asked for comes first,
                // or their deaths would be held against the application.
                biased;
                Some(signal) = signals.recv() => {
                    if self.reconfigure(signal, &reread) {
                        self.step(Event::Signal(signal), &announce)
                    } else {
                        None
                    }
                }
                _ = child_ended.recv() => {
                    self.children.reap();
                    None
                }
                Some((worker, notice)) = self.notices.recv() => self.notice(worker, notice, &announce),
                Some(reply) = self.requests.recv() => {
                    self.collect(reply);
                    None
                }
                () = tokio::time::sleep_until(wake.min(collected)) => {
                    self.finish_collection();
                    self.step(Event::Tick, &announce)
                }
            };
        }
        ended.unwrap_or(Ok(Exit::Success))
    }

    /// Reads the settings again before a reload; `false` where they cannot be used, and all stays as it is.
    fn reconfigure(
        &mut self,
        signal: Signal,
        reread: &impl Fn() -> Result<serde_json::Value, String>,
    ) -> bool {
        if signal != Signal::Hangup {
            return true;
        }
        match reread() {
            Ok(settings) => self.settings = settings,
            Err(problem) => {
                error!("no reload, the workers serve as before\n{problem}");
                return false;
            }
        }
        true
    }

    /// Decides and acts; the result is that of the server when it has ended.
    fn step(
        &mut self,
        event: Event,
        announce: &impl Fn(&[Listener], &[AppReport]),
    ) -> Option<Ended> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.supervisor.step(event, self.began.elapsed()) {
                match action {
                    Action::Spawn {
                        worker,
                        slot,
                        generation,
                    } => {
                        if let Err(error) = self.spawn(worker, slot, generation) {
                            let program = self.command.program.display();
                            let problem = format!("{program}: {error}");
                            events.push_back(Event::SpawnFailed { worker, problem });
                        }
                    }
                    Action::Drain(worker) => self.children.tell(worker, ToWorker::Drain),
                    Action::Kill(worker) => self.children.kill(worker),
                    Action::Announce => announce(&self.listeners, &self.apps),
                    Action::Log {
                        level,
                        worker,
                        message,
                    } => {
                        let pid = worker.and_then(|id| self.workers.get(&id)?.pid);
                        match level {
                            Level::Info => info!(pid, "{message}"),
                            Level::Warning => warn!(pid, "{message}"),
                            Level::Error => error!(pid, "{message}"),
                        }
                    }
                    Action::Exit { exit, cause } => {
                        return Some(match cause {
                            Some(failure) => Err(ServerError { exit, failure }),
                            None => Ok(exit),
                        });
                    }
                }
            }
        }
        let status = self.supervisor.status();
        if status.stopping {
            // Whoever connects now goes to another server, or learns that there is none.
            self.listeners = [].into();
        }
        self.status.send_replace(status);
        None
    }

    fn spawn(&mut self, id: WorkerId, slot: usize, generation: u64) -> io::Result<()> {
        let start = Start {
            config: self.settings.clone(),
            slot,
            generation,
            overlay: Overlay::default(),
        };
        let listeners = Arc::clone(&self.listeners);
        self.children
            .spawn(id, &self.command, start, listeners, self.notify.clone())?;
        let pid = self.children.pid(id);
        debug!(pid, slot, generation, "a worker starts");
        self.workers.insert(
            id,
            Worker {
                pid,
                ready: false,
                counters: Snapshot::default(),
            },
        );
        Ok(())
    }

    fn notice(
        &mut self,
        id: WorkerId,
        notice: Notice,
        announce: &impl Fn(&[Listener], &[AppReport]),
    ) -> Option<Ended> {
        match notice {
            Notice::Said(message) => {
                let event = self.said(id, message);
                self.step(event, announce)
            }
            Notice::ChannelClosed(error) => {
                if let Some(error) = error {
                    let pid = self.workers.get(&id).and_then(|worker| worker.pid);
                    error!(pid, %error, "a worker cannot be understood");
                }
                self.step(Event::ChannelClosed(id), announce)
            }
            Notice::Exited(status) => {
                let ended = self.step(Event::Exited { worker: id, status }, announce);
                if let Some(worker) = self.workers.remove(&id) {
                    self.retired.merge(&worker.counters.retire());
                }
                self.counted(id);
                ended
            }
        }
    }

    /// Takes in what a worker said; every word is a sign of life.
    fn said(&mut self, id: WorkerId, message: FromWorker) -> Event {
        match message {
            FromWorker::Ready(ready) => {
                self.apps = ready.apps;
                if self.warnings != ready.warnings {
                    for warning in &ready.warnings {
                        warn!("{warning}");
                    }
                    self.warnings = ready.warnings;
                }
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.ready = true;
                }
                Event::Ready(id)
            }
            FromWorker::Failed { kind, failure } => Event::Failed {
                worker: id,
                kind,
                failure,
            },
            FromWorker::Heartbeat
            | FromWorker::Prepared { .. }
            | FromWorker::Committed { .. }
            | FromWorker::Observed(_) => Event::Heard(id),
            FromWorker::Counters(counters) => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.counters = counters;
                }
                self.counted(id);
                Event::Heard(id)
            }
            FromWorker::Draining => Event::Draining(id),
            FromWorker::Stuck { app } => Event::Stuck { worker: id, app },
        }
    }

    fn collect(&mut self, reply: oneshot::Sender<Snapshot>) {
        if let Some(collection) = &mut self.collection {
            collection.replies.push(reply);
            return;
        }
        let ready = self.workers.iter().filter(|(_, worker)| worker.ready);
        let waiting: HashSet<_> = ready.map(|(id, _)| *id).collect();
        for id in &waiting {
            self.children.tell(*id, ToWorker::Collect);
        }
        self.collection = Some(Collection {
            waiting,
            replies: vec![reply],
            until: Instant::now() + COLLECT_LIMIT,
        });
        self.finish_collection();
    }

    /// A worker has answered, or never will.
    fn counted(&mut self, id: WorkerId) {
        if let Some(collection) = &mut self.collection {
            collection.waiting.remove(&id);
            self.finish_collection();
        }
    }

    /// Answers those who wait for counters, if these are complete or late.
    fn finish_collection(&mut self) {
        let done = |it: &mut Collection| it.waiting.is_empty() || it.until <= Instant::now();
        if let Some(collection) = self.collection.take_if(done) {
            let mut total = self.retired.clone();
            for worker in self.workers.values() {
                total.merge(&worker.counters);
            }
            for reply in collection.replies {
                // Whoever asked may have gone.
                let _ = reply.send(total.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    use serde_json::json;

    use super::*;
    use crate::app::LocalAddr;
    use crate::config::Bind;
    use crate::metrics::{Family, Metrics, Sample, Value};
    use crate::supervisor::channel::{FailureKind, Ready, WorkerChannel};

    /// The worker process of the tests below: this test binary, run again. What it does is written in
    /// the file that its configuration names, so that a test can change it between two starts.
    #[test]
    #[ignore = "a worker that other tests start"]
    #[expect(
        clippy::disallowed_methods,
        reason = "the status must be the worker's, not the test runner's"
    )]
    fn worker_process() {
        let Ok((channel, start, listeners)) = WorkerChannel::from_stdin() else {
            std::process::exit(99);
        };
        let script = start.config["script"].as_str().unwrap();
        let script = std::fs::read_to_string(script).unwrap();
        let (verb, argument) = script.split_once(' ').unwrap_or((&script, ""));
        match verb {
            "fail" => {
                channel
                    .fail(FailureKind::Application, Failure::new(argument))
                    .unwrap();
                std::process::exit(3);
            }
            "exit" => std::process::exit(argument.parse().unwrap()),
            "serve" => {}
            other => panic!("the script says {other}"),
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let code = runtime.block_on(serve(channel, listeners, argument));
        std::process::exit(code);
    }

    /// Answers each connection with `word` and the process id, and a connection that says `die` by dying.
    async fn serve(channel: WorkerChannel, listeners: Vec<Listener>, word: &str) -> i32 {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (sender, mut receiver) = channel.split().unwrap();
        let listener = listeners.into_iter().next().unwrap();
        let acceptor = listener.into_acceptor().unwrap();
        let ready = FromWorker::Ready(Ready::default());
        sender.send(&ready).await.unwrap();
        let pid = std::process::id();
        let metrics = Metrics::new(&[]);
        loop {
            tokio::select! {
                message = receiver.recv() => match message.unwrap() {
                    Some(ToWorker::Collect) => {
                        let counters = FromWorker::Counters(metrics.snapshot());
                        sender.send(&counters).await.unwrap();
                    }
                    Some(ToWorker::Drain) => return 0,
                    Some(other) => panic!("{other:?}"),
                    None => return 7,
                },
                (mut socket, _) = acceptor.accept() => {
                    let mut asked = String::new();
                    socket.read_to_string(&mut asked).await.unwrap();
                    if asked == "die" {
                        return 70;
                    }
                    let answer = format!("{word} {pid}");
                    socket.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        }
    }

    /// A server with processes; its signals come from the test.
    struct Fixture {
        address: SocketAddr,
        signals: mpsc::UnboundedSender<Signal>,
        control: Control,
        script: PathBuf,
        announced: mpsc::UnboundedReceiver<()>,
        task: tokio::task::JoinHandle<Ended>,
    }

    impl Fixture {
        fn start(workers: usize, script: &str) -> Self {
            let exe = std::env::current_exe().unwrap();
            // The shell keeps what the test runner prints out of our output.
            let command = WorkerCommand {
                program: "/bin/sh".into(),
                args: vec![
                    "-c".into(),
                    "exec \"$0\" --ignored --exact supervisor::run::tests::worker_process >/dev/null".into(),
                    exe.into(),
                ],
            };
            Self::start_command(workers, script, command)
        }

        fn start_command(workers: usize, script: &str, command: WorkerCommand) -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name = format!(
                "twinspan-script-{}-{}",
                std::process::id(),
                COUNT.fetch_add(1, Ordering::Relaxed)
            );
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, script).unwrap();
            let listener = Listener::bind(&Bind::Tcp(([127, 0, 0, 1], 0).into()), 64).unwrap();
            let LocalAddr::Tcp(address) = *listener.local() else {
                panic!("bound to something else")
            };
            let plan = Plan {
                workers,
                startup: Duration::from_secs(30),
                graceful: Duration::from_secs(5),
            };
            let settings = json!({"script": &path});
            let reread = {
                let settings = settings.clone();
                move || Ok(settings.clone())
            };
            let (server, control) = Server::new(plan, settings, command, vec![listener]);
            let (signals, receiver) = mpsc::unbounded_channel();
            let (announce, announced) = mpsc::unbounded_channel();
            let announce = move |_: &[Listener], _: &[AppReport]| announce.send(()).unwrap();
            let task = tokio::spawn(server.run(receiver, reread, announce));
            Self {
                address,
                signals,
                control,
                script: path,
                announced,
                task,
            }
        }

        async fn running(workers: usize) -> Self {
            let mut server = Self::start(workers, "serve one");
            server.announced.recv().await.unwrap();
            server
        }

        /// Asks on a new connection.
        async fn ask(&self, question: &'static str) -> io::Result<String> {
            let address = self.address;
            let asked = tokio::task::spawn_blocking(move || {
                let mut stream = TcpStream::connect(address)?;
                stream.write_all(question.as_bytes())?;
                stream.shutdown(std::net::Shutdown::Write)?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer)?;
                Ok(answer)
            });
            asked.await.unwrap()
        }

        async fn until(&self, condition: impl Fn(Status) -> bool) {
            let mut status = self.control.status.clone();
            status.wait_for(|now| condition(*now)).await.unwrap();
        }

        async fn end(self) -> Ended {
            let ended = self.task.await.unwrap();
            let _ = std::fs::remove_file(&self.script);
            ended
        }

        async fn stop(self) {
            self.signals.send(Signal::Terminate).unwrap();
            self.end().await.unwrap();
        }
    }

    /// How many workers have contributed to a snapshot.
    fn workers(snapshot: &Snapshot) -> u64 {
        let family = |sample: &&Sample| sample.family == Family::Workers;
        match snapshot.samples.iter().find(family).map(|it| &it.value) {
            Some(Value::Number(number)) => *number,
            _ => 0,
        }
    }

    fn pid(answer: &str) -> &str {
        answer.split_once(' ').unwrap().1
    }

    #[tokio::test]
    async fn workers_serve_the_socket_that_the_supervisor_bound_until_it_is_told_to_stop() {
        let server = Fixture::running(2).await;
        assert!(server.control.status().ready);
        assert!(server.ask("").await.unwrap().starts_with("one "));
        server.stop().await;
    }

    #[test]
    fn an_address_in_use_ends_the_server_before_it_starts_anything() {
        let bind = |address| Listener::bind(&Bind::Tcp(address), 8);
        let first = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let LocalAddr::Tcp(address) = *first.local() else {
            panic!("bound to something else")
        };
        let error = ServerError::from(bind(address).unwrap_err());
        assert_eq!(error.exit, Exit::Configuration);
        let message = error.to_string();
        assert!(
            message.starts_with(&format!("error: address {address} is in use\nhint: ")),
            "{message}"
        );
    }

    #[tokio::test]
    async fn an_application_that_fails_at_the_start_is_what_the_server_ends_with() {
        let server = Fixture::start(2, "fail no module named shop");
        let error = server.end().await.unwrap_err();
        assert_eq!(error.exit, Exit::Application);
        assert_eq!(error.to_string(), "error: no module named shop");
    }

    #[tokio::test]
    async fn a_process_that_ends_without_a_word_at_the_start_is_named_by_its_status() {
        let server = Fixture::start(1, "exit 9");
        let error = server.end().await.unwrap_err();
        assert_eq!(error.to_string(), "error: a worker exited with status 9");
    }

    #[tokio::test]
    async fn a_worker_whose_children_live_on_is_judged_by_its_own_exit() {
        // The child holds the channel as descriptor 3.
        let script = "exec 3<&0; sleep 15 >/dev/null 2>&1 & exit 9";
        let command = WorkerCommand {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
        };
        let server = Fixture::start_command(1, "", command);
        let ended = tokio::time::timeout(Duration::from_secs(10), server.end());
        let error = ended.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "error: a worker exited with status 9");
    }

    #[tokio::test]
    async fn a_program_that_does_not_exist_is_named() {
        let command = WorkerCommand {
            program: "/no/such/python".into(),
            args: Vec::new(),
        };
        let error = Fixture::start_command(1, "", command).end().await;
        let message = error.unwrap_err().to_string();
        assert!(message.contains("/no/such/python"), "{message}");
    }

    #[tokio::test]
    async fn a_worker_that_dies_is_replaced_and_connections_wait_for_its_successor() {
        let server = Fixture::running(1).await;
        let before = server.ask("").await.unwrap();
        let _ = server.ask("die").await;
        let after = server.ask("").await.unwrap();
        assert_ne!(pid(&before), pid(&after));
        server.stop().await;
    }

    #[tokio::test]
    async fn a_worker_that_is_killed_is_replaced() {
        let server = Fixture::running(1).await;
        let before = server.ask("").await.unwrap();
        let victim = rustix::process::Pid::from_raw(pid(&before).parse().unwrap()).unwrap();
        rustix::process::kill_process(victim, rustix::process::Signal::KILL).unwrap();
        server.until(|status| status.serving == 0).await;
        let after = server.ask("").await.unwrap();
        assert_ne!(pid(&before), pid(&after));
        server.stop().await;
    }

    #[tokio::test]
    async fn a_reload_loses_no_connection() {
        let server = Fixture::running(2).await;
        std::fs::write(&server.script, "serve two").unwrap();
        server.signals.send(Signal::Hangup).unwrap();
        let mut seen_in_a_row = 0;
        while seen_in_a_row < 100 {
            let answer = server.ask("").await.unwrap();
            seen_in_a_row = match answer.split_once(' ') {
                Some(("two", _)) => seen_in_a_row + 1,
                Some(("one", _)) => 0,
                _ => panic!("lost a connection: {answer:?}"),
            };
        }
        server.stop().await;
    }

    #[tokio::test]
    async fn a_reload_that_fails_leaves_the_old_workers_serving() {
        let server = Fixture::running(1).await;
        let before = server.ask("").await.unwrap();
        std::fs::write(&server.script, "fail syntax error").unwrap();
        server.signals.send(Signal::Hangup).unwrap();
        server
            .until(|status| status.generation == 1 && !status.reloading)
            .await;
        assert_eq!(server.ask("").await.unwrap(), before);
        // And the next reload can be a good one.
        std::fs::write(&server.script, "serve two").unwrap();
        server.signals.send(Signal::Hangup).unwrap();
        server
            .until(|status| status.generation == 2 && !status.reloading)
            .await;
        assert!(server.ask("").await.unwrap().starts_with("two "));
        server.stop().await;
    }

    #[tokio::test]
    async fn counters_are_collected_from_every_worker() {
        let server = Fixture::running(2).await;
        let (first, second) = tokio::join!(server.control.collect(), server.control.collect());
        assert_eq!(workers(&first), 2);
        assert_eq!(workers(&second), 2);
        server.stop().await;
    }

    #[tokio::test]
    async fn a_worker_drains_when_its_supervisor_is_gone() {
        let server = Fixture::running(1).await;
        let worker: i32 = pid(&server.ask("").await.unwrap()).parse().unwrap();
        server.task.abort();
        let worker = rustix::process::Pid::from_raw(worker).unwrap();
        let status = tokio::task::spawn_blocking(move || {
            rustix::process::waitpid(Some(worker), rustix::process::WaitOptions::empty())
        });
        let (_, status) = status.await.unwrap().unwrap().unwrap();
        assert_eq!(
            status.exit_status(),
            Some(7),
            "it saw the end of the channel"
        );
        std::fs::remove_file(&server.script).unwrap();
    }
}
