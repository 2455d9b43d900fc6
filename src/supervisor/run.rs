//! The loop around the decisions: events in, actions out.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::changes::{self, Changes, Order};
use super::channel::{AppReport, Failure, FromWorker, Start, ToWorker};
use super::child::{Children, Notice, WorkerCommand};
use super::{Action, Event, Level, Plan, Signal, Status, Supervisor, WorkerId, signals};
use crate::banner::{self, Place};
use crate::config::{Config, ConfigError, RuleConfig};
use crate::dispatch::Dispatcher;
use crate::drain::Drain;
use crate::error::Exit;
use crate::listen::{BindError, Listener};
use crate::metrics::Snapshot;
use crate::migrate::judge::Judge;
use crate::migrate::live::{Author, Change, ChangeError, Changed, Edit, Overlay};
use crate::migrate::steward::{self, Kept, Steward};
use crate::migrate::store::Store;
use crate::worker;

/// Applications start one after the other, each within its own limit, which the worker enforces with
/// a better message. What comes on top is the start of the interpreter.
const STARTUP_MARGIN: Duration = Duration::from_secs(15);
/// A worker that does not answer within this is counted as it was when it last did.
const COLLECT_LIMIT: Duration = Duration::from_millis(500);
/// How often canaries are judged; workers tell what they see as often.
const JUDGE_INTERVAL: Duration = Duration::from_secs(1);
/// What the disk may take for the last that is to be kept.
const FINISH_LIMIT: Duration = Duration::from_secs(5);

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

impl From<ConfigError> for ServerError {
    fn from(error: ConfigError) -> Self {
        Self {
            exit: Exit::Configuration,
            failure: Failure::new(error.to_string()),
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

/// What a server runs with until it reloads.
#[derive(Debug, Clone)]
pub struct Configured {
    /// What workers get to derive their own configuration from.
    pub settings: serde_json::Value,
    pub rules: Vec<RuleConfig>,
}

/// Runs the server in worker processes until it is told to stop.
///
/// `settings` is what workers get to derive their own configuration from, `reread` gives it anew with the rules
/// when the server reloads, or says why not; `command` starts a worker.
/// `admin` makes what answers on the admin listener; it is called only when there is one.
///
/// # Errors
/// [`ServerError`] with the exit code and what to tell people.
pub fn run(
    config: &Config,
    settings: serde_json::Value,
    reread: impl Fn() -> Result<Configured, String>,
    command: WorkerCommand,
    admin: impl FnOnce(Control, Drain) -> Arc<Dispatcher>,
) -> Result<Exit, ServerError> {
    let bind = |bind| Listener::bind(bind, config.backlog);
    let listeners: Vec<_> = config.binds.iter().map(bind).collect::<Result<_, _>>()?;
    let admin_listener = config.admin.as_ref().map(bind).transpose()?;
    let beginning = Steward::open(config.state_dir.as_deref())?;
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
        let configured = Configured {
            settings,
            rules: config.rules.clone(),
        };
        let (server, control) = Server::new(plan, configured, beginning, command, listeners)?;
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
    requests: mpsc::UnboundedSender<Asked>,
    status: watch::Receiver<Status>,
    live: watch::Receiver<Arc<LiveRules>>,
    steward: steward::Handle,
    token: Option<Arc<str>>,
}

/// The rules, and what was changed of them.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveRules {
    pub rules: Vec<RuleConfig>,
    pub overlay: Overlay,
}

/// What is asked from outside of the loop.
#[derive(Debug)]
enum Asked {
    Counters(oneshot::Sender<Snapshot>),
    Change {
        change: Change,
        author: Author,
        dry_run: bool,
        reply: Reply,
    },
}

type Reply = oneshot::Sender<Result<Changed, ChangeError>>;

impl Control {
    pub fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// The counters of all workers, those that are gone included. Takes at most half a second.
    pub async fn collect(&self) -> Snapshot {
        let (reply, snapshot) = oneshot::channel();
        // Neither fails before the supervisor ends, and then there is nothing left to count.
        let _ = self.requests.send(Asked::Counters(reply));
        snapshot.await.unwrap_or_default()
    }

    /// The rules as they are now.
    pub fn live(&self) -> Arc<LiveRules> {
        Arc::clone(&self.live.borrow())
    }

    /// Asks what is known of the migration; `None` where the server is ending.
    pub async fn known<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> Option<T> {
        self.steward.ask(question).await
    }

    /// What a change from outside needs; `None` where none can be made.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Makes a change on all workers, or on none; with `dry_run` only tells what it would come to. Takes some
    /// milliseconds, and seconds where a worker is silent or others change rules too.
    ///
    /// # Errors
    /// [`ChangeError`] says why it is not made.
    pub async fn change(
        &self,
        change: Change,
        author: Author,
        dry_run: bool,
    ) -> Result<Changed, ChangeError> {
        let (reply, changed) = oneshot::channel();
        let asked = Asked::Change {
            change,
            author,
            dry_run,
            reply,
        };
        let _ = self.requests.send(asked);
        let stopped = || ChangeError::Refused("the server has stopped".into());
        changed.await.unwrap_or_else(|_| Err(stopped()))
    }
}

/// The state of the loop.
struct Server {
    supervisor: Supervisor,
    began: Instant,
    /// What workers are started with.
    configured: Arc<Configured>,
    /// What they were started with before the reload that is under way.
    before: Option<Arc<Configured>>,
    /// What the workers that serve were started with, the oldest first.
    serving: Vec<Arc<Configured>>,
    changes: Changes,
    /// On this loop, because no disk can hold it up here; a look at a rule takes some microseconds.
    judge: Judge,
    judge_at: Instant,
    /// Those who wait for a change.
    orders: HashMap<changes::OrderId, Reply>,
    next_order: changes::OrderId,
    /// By rule, since the server began.
    rollbacks: BTreeMap<String, u64>,
    steward: steward::Handle,
    kept: mpsc::UnboundedReceiver<Kept>,
    live: watch::Sender<Arc<LiveRules>>,
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
    requests: mpsc::UnboundedReceiver<Asked>,
    status: watch::Sender<Status>,
}

struct Worker {
    pid: Option<i32>,
    configured: Arc<Configured>,
    ready: bool,
    leaving: bool,
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
        configured: Configured,
        beginning: steward::Beginning,
        command: WorkerCommand,
        listeners: Vec<Listener>,
    ) -> io::Result<(Self, Control)> {
        let rules = configured.rules.clone();
        let steward::Beginning {
            steward,
            overlay,
            token,
        } = beginning;
        for line in steward::greetings(&overlay, &rules) {
            warn!("{line}");
        }
        let (tell, kept) = mpsc::unbounded_channel();
        // Nobody listens when the supervisor is ending.
        let steward = steward.start(move |kept| drop(tell.send(kept)))?;
        let (live, watched_live) = watch::channel(Arc::new(LiveRules {
            rules: rules.clone(),
            overlay: overlay.clone(),
        }));
        let (notify, notices) = mpsc::unbounded_channel();
        let (ask, requests) = mpsc::unbounded_channel();
        let (status, watched) = watch::channel(Status::default());
        let server = Self {
            supervisor: Supervisor::new(plan),
            began: Instant::now(),
            configured: Arc::new(configured),
            before: None,
            serving: Vec::new(),
            judge: Judge::new(&rules),
            judge_at: Instant::now() + JUDGE_INTERVAL,
            changes: Changes::new(overlay, rules),
            orders: HashMap::new(),
            next_order: 0,
            rollbacks: BTreeMap::new(),
            steward,
            kept,
            live,
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
            live: watched_live,
            steward: server.steward.clone(),
            token: token.map(Arc::from),
        };
        Ok((server, control))
    }

    async fn run(
        mut self,
        mut signals: mpsc::UnboundedReceiver<Signal>,
        reread: impl Fn() -> Result<Configured, String>,
        announce: impl Fn(&[Listener], &[AppReport]),
    ) -> Ended {
        let mut child_ended = signal(SignalKind::child())?;
        let mut ended = self.step(Event::Start, &announce);
        while ended.is_none() {
            // Here and not below, where anything that is always there would come first.
            self.judge();
            let wake = self.began + self.supervisor.wake_at();
            let wake = wake.min(self.judge_at);
            let collected = self.collection.as_ref().map_or(wake, |it| it.until);
            let changed = self.changes.wake_at().map_or(wake, |at| self.began + at);
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
                Some(Kept { version, problem }) = self.kept.recv() => {
                    self.change(changes::Event::Kept { version, problem });
                    None
                }
                Some(asked) = self.requests.recv() => {
                    self.ask(asked);
                    None
                }
                () = tokio::time::sleep_until(wake.min(collected).min(changed)) => {
                    self.finish_collection();
                    self.change(changes::Event::Tick);
                    self.step(Event::Tick, &announce)
                }
            };
        }
        self.steward.finish(FINISH_LIMIT);
        ended.unwrap_or(Ok(Exit::Success))
    }

    /// Reads the settings again before a reload; `false` where they cannot be used, and all stays as it is.
    fn reconfigure(
        &mut self,
        signal: Signal,
        reread: &impl Fn() -> Result<Configured, String>,
    ) -> bool {
        if signal != Signal::Hangup {
            return true;
        }
        match reread() {
            Ok(configured) => {
                let before = std::mem::replace(&mut self.configured, Arc::new(configured));
                // Where another reload is under way, what was before that one is what is known to work.
                self.before.get_or_insert(before);
            }
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
                    Action::Drain(worker) => {
                        self.children.tell(worker, ToWorker::Drain);
                        self.leaves(worker);
                    }
                    Action::Kill(worker) => self.children.kill(worker),
                    Action::Announce => announce(&self.listeners, &self.apps),
                    Action::Restore => {
                        if let Some(before) = self.before.take() {
                            self.configured = before;
                        }
                    }
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
        self.follow_rules();
        if !status.reloading && self.before.take().is_some() && !status.stopping {
            // Whoever has written other shares in the file learns which count.
            for line in steward::greetings(self.changes.overlay(), self.changes.rules()) {
                warn!("{line}");
            }
        }
        self.status.send_replace(status);
        None
    }

    /// The rules that can be changed and are judged are those of the workers that serve; while nobody does, those
    /// of the next. They are more than one configuration has while a reload is under way, or was given up halfway.
    fn follow_rules(&mut self) {
        let serving = |(_, worker): &(&WorkerId, &Worker)| worker.ready && !worker.leaving;
        let mut workers: Vec<_> = self.workers.iter().filter(serving).collect();
        workers.sort_by_key(|(id, _)| **id);
        let mut serving: Vec<&Arc<Configured>> = Vec::new();
        for (_, worker) in workers {
            if !serving.iter().any(|it| Arc::ptr_eq(it, &worker.configured)) {
                serving.push(&worker.configured);
            }
        }
        if serving.is_empty() {
            serving.push(&self.configured);
        }
        let same = |(left, right): (&&Arc<_>, &Arc<_>)| Arc::ptr_eq(left, right);
        if serving.len() == self.serving.len() && serving.iter().zip(&self.serving).all(same) {
            return;
        }
        self.serving = serving.into_iter().cloned().collect();
        let rules = together(&self.serving);
        if rules != self.changes.rules() {
            self.judge.watch(&rules);
            self.steward.inventory(self.apps.clone(), rules.clone());
            self.changes.set_rules(rules);
            self.publish();
        }
    }

    /// The worker drains.
    fn leaves(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.leaving = true;
        }
        self.change(changes::Event::Leaving(id));
    }

    fn spawn(&mut self, id: WorkerId, slot: usize, generation: u64) -> io::Result<()> {
        let start = Start {
            config: self.configured.settings.clone(),
            slot,
            generation,
            overlay: self.changes.overlay().clone(),
        };
        let listeners = Arc::clone(&self.listeners);
        self.children
            .spawn(id, &self.command, start, listeners, self.notify.clone())?;
        let pid = self.children.pid(id);
        debug!(pid, slot, generation, "a worker starts");
        self.change(changes::Event::Spawned(id));
        self.workers.insert(
            id,
            Worker {
                pid,
                configured: Arc::clone(&self.configured),
                ready: false,
                leaving: false,
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
                self.change(changes::Event::Gone(id));
                self.step(Event::ChannelClosed(id), announce)
            }
            Notice::Exited(status) => {
                self.change(changes::Event::Gone(id));
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
                let rules = self.changes.rules().to_vec();
                self.steward.inventory(ready.apps.clone(), rules);
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
                self.change(changes::Event::Ready(id));
                Event::Ready(id)
            }
            FromWorker::Failed { kind, failure } => Event::Failed {
                worker: id,
                kind,
                failure,
            },
            FromWorker::Prepared { version, problem } => {
                let worker = id;
                self.change(changes::Event::Prepared {
                    worker,
                    version,
                    problem,
                });
                Event::Heard(id)
            }
            FromWorker::Committed { version } => {
                let worker = id;
                self.change(changes::Event::Committed { worker, version });
                Event::Heard(id)
            }
            FromWorker::Observed(observations) => {
                self.judge.observe(self.began.elapsed(), &observations);
                self.steward.observe(observations);
                Event::Heard(id)
            }
            FromWorker::Heartbeat => Event::Heard(id),
            FromWorker::Counters(counters) => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.counters = counters;
                }
                self.counted(id);
                Event::Heard(id)
            }
            FromWorker::Draining => {
                self.leaves(id);
                Event::Draining(id)
            }
            FromWorker::Stuck { app } => Event::Stuck { worker: id, app },
        }
    }

    fn ask(&mut self, asked: Asked) {
        match asked {
            Asked::Counters(reply) => self.collect(reply),
            Asked::Change {
                change,
                author,
                dry_run,
                reply,
            } => {
                let order = self.order(change, author);
                if dry_run {
                    // Whoever asked may have gone.
                    let _ = reply.send(self.changes.preview(&order));
                } else {
                    self.orders.insert(order.id, reply);
                    self.change(changes::Event::Ordered(order));
                }
            }
        }
    }

    fn order(&mut self, change: Change, author: Author) -> Order {
        let id = self.next_order;
        self.next_order += 1;
        Order {
            id,
            change,
            author,
            at: steward::unix_now(),
        }
    }

    /// Takes back the canaries that are worse than what they replace, when it is time to look at them.
    fn judge(&mut self) {
        let now = Instant::now();
        if now < self.judge_at {
            return;
        }
        self.judge_at = now + JUDGE_INTERVAL;
        let overlay = self.changes.overlay();
        for change in self.judge.verdicts(self.began.elapsed(), overlay) {
            let order = self.order(change, Author::Automatic);
            self.change(changes::Event::Ordered(order));
        }
    }

    /// Decides about live changes, and acts.
    fn change(&mut self, event: changes::Event) {
        for action in self.changes.step(event, self.began.elapsed()) {
            match action {
                changes::Action::Tell(worker, message) => self.children.tell(worker, message),
                changes::Action::Keep { overlay, record } => self.steward.keep(overlay, record),
                changes::Action::Restore { overlay, refused } => {
                    self.steward.restore(overlay, refused);
                }
                changes::Action::Warn { worker, message } => {
                    let pid = worker.and_then(|id| self.workers.get(&id)?.pid);
                    warn!(pid, "{message}");
                }
                changes::Action::Answer { order, outcome } => self.answer(&order, outcome),
            }
        }
    }

    /// Tells people, and whoever asked, what came of a change.
    fn answer(&mut self, order: &Order, outcome: Result<Changed, ChangeError>) {
        let (rule, by) = (&order.change.rule, order.author);
        match &outcome {
            Ok(Changed { record, workers }) => {
                self.publish();
                let version = record.version;
                match &order.change.edit {
                    Edit::RollBack { reason } => {
                        let count = self.rollbacks.entry(rule.clone()).or_default();
                        *count += 1;
                        warn!(rule, reason, %by, version, workers, "a canary was rolled back");
                    }
                    Edit::Set { canary, shadow } => {
                        let canary = canary.map(tracing::field::display);
                        let shadow = shadow.map(tracing::field::display);
                        info!(rule, canary, shadow, %by, version, workers, "a rule was changed");
                    }
                    Edit::Reset => info!(rule, %by, version, workers, "a rule was reset"),
                }
            }
            // It was rolled back by somebody else meanwhile.
            Err(error @ ChangeError::RolledBack { .. }) if order.author == Author::Automatic => {
                debug!(rule, %error, "nothing to roll back");
            }
            Err(error) if order.author == Author::Automatic => {
                error!(rule, %error, "a canary could not be rolled back");
            }
            Err(error) => info!(rule, %error, %by, "a change was not made"),
        }
        if let Some(reply) = self.orders.remove(&order.id) {
            // Whoever asked may have gone.
            let _ = reply.send(outcome);
        }
    }

    /// Shows how the rules are now.
    fn publish(&self) {
        self.live.send_replace(Arc::new(LiveRules {
            rules: self.changes.rules().to_vec(),
            overlay: self.changes.overlay().clone(),
        }));
    }

    /// What is counted of the server as a whole.
    fn own_samples(&self, snapshot: &mut Snapshot) {
        let overlay = self.changes.overlay();
        for rule in self.changes.rules() {
            if rule.canary.is_some() {
                let share = overlay.shares(rule).canary;
                let rollbacks = self.rollbacks.get(&rule.name).copied();
                snapshot.canary(&rule.name, share, rollbacks.unwrap_or_default());
            }
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
            self.own_samples(&mut total);
            for reply in collection.replies {
                // Whoever asked may have gone.
                let _ = reply.send(total.clone());
            }
        }
    }
}

/// The rules of workers with several configurations, each name once: of two that share it the first, unless the
/// other can be taken back and it cannot.
fn together(configurations: &[Arc<Configured>]) -> Vec<RuleConfig> {
    if let [only] = configurations {
        return only.rules.clone();
    }
    let hold = |rule: &RuleConfig| {
        let canary = rule.canary.as_ref();
        canary.map(|canary| canary.rollback.is_some())
    };
    let mut rules: Vec<RuleConfig> = Vec::new();
    for rule in configurations.iter().flat_map(|it| &it.rules) {
        match rules.iter_mut().find(|it| it.name == rule.name) {
            None => rules.push(rule.clone()),
            Some(known) if hold(known) < hold(rule) => *known = rule.clone(),
            Some(_) => {}
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use serde_json::json;

    use super::*;
    use crate::app::LocalAddr;
    use crate::config::rule::{CanaryConfig, Percent, RollbackConfig, Sticky};
    use crate::config::{Bind, RuleMatch};
    use crate::metrics::{Family, Metrics, Sample, Value};
    use crate::migrate::live::TakenOn;
    use crate::migrate::observe::{CanaryTraffic, Observations, Side, Tally};
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
        let code = runtime.block_on(serve(channel, listeners, start.overlay, argument));
        std::process::exit(code);
    }

    /// Answers each connection with `word` and the process id, one that says `share` with the canary that
    /// counts here, and one that says `die` by dying. After any other word, the worker does not treat the
    /// next change as it should.
    async fn serve(
        channel: WorkerChannel,
        listeners: Vec<Listener>,
        overlay: Overlay,
        word: &str,
    ) -> i32 {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (sender, mut receiver) = channel.split().unwrap();
        let listener = listeners.into_iter().next().unwrap();
        let acceptor = listener.into_acceptor().unwrap();
        let ready = FromWorker::Ready(Ready::default());
        sender.send(&ready).await.unwrap();
        let pid = std::process::id();
        let metrics = Metrics::new(&[]);
        let mut misdeed = String::new();
        let mut share = overlay.shares(&rules()[0]).canary;
        let mut taken_on = TakenOn::new(rules(), overlay);
        loop {
            tokio::select! {
                message = receiver.recv() => match message.unwrap() {
                    Some(ToWorker::Collect) => {
                        let counters = FromWorker::Counters(metrics.snapshot());
                        sender.send(&counters).await.unwrap();
                    }
                    Some(ToWorker::Drain) => return 0,
                    Some(ToWorker::Prepare(overlay)) => {
                        let version = overlay.version;
                        let mut problem = taken_on.prepare(overlay).err();
                        match &*misdeed {
                            "die when asked" => return 70,
                            "silent" => continue,
                            "refuse" => problem = Some("not here".into()),
                            _ => {}
                        }
                        let prepared = FromWorker::Prepared { version, problem };
                        sender.send(&prepared).await.unwrap();
                    }
                    Some(ToWorker::Commit { .. }) if misdeed == "die when told" => return 70,
                    Some(ToWorker::Commit { version }) => {
                        let overlay = taken_on.commit(version).unwrap();
                        share = overlay.shares(&rules()[0]).canary;
                        let committed = FromWorker::Committed { version };
                        sender.send(&committed).await.unwrap();
                    }
                    Some(ToWorker::Abort { version }) => taken_on.abort(version),
                    None => return 7,
                },
                (mut socket, _) = acceptor.accept() => {
                    let mut asked = String::new();
                    socket.read_to_string(&mut asked).await.unwrap();
                    let answer = match &*asked {
                        "die" => return 70,
                        "share" => format!("{share} {pid}"),
                        "observe failures" => {
                            let observed = FromWorker::Observed(failures());
                            sender.send(&observed).await.unwrap();
                            format!("{word} {pid}")
                        }
                        _ => format!("{word} {pid}"),
                    };
                    if asked != "share" {
                        misdeed = asked;
                    }
                    socket.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        }
    }

    /// What a worker sees when every request fails that the canary gets, and no other.
    fn failures() -> Observations {
        let canaries = [(Side::New, 100), (Side::Old, 0)].map(|(side, errors)| CanaryTraffic {
            rule: "items".into(),
            side,
            tally: Tally {
                requests: 100,
                errors,
                ..Tally::default()
            },
        });
        Observations {
            canaries: canaries.into(),
            ..Observations::default()
        }
    }

    /// A server with processes; its signals come from the test.
    struct Fixture {
        address: SocketAddr,
        signals: mpsc::UnboundedSender<Signal>,
        control: Control,
        script: PathBuf,
        /// What the next reload reads.
        next: Arc<Mutex<Configured>>,
        announced: mpsc::UnboundedReceiver<()>,
        task: tokio::task::JoinHandle<Ended>,
    }

    impl Fixture {
        fn start(workers: usize, script: &str) -> Self {
            Self::start_command(workers, script, Self::command())
        }

        fn command() -> WorkerCommand {
            let exe = std::env::current_exe().unwrap();
            // The shell keeps what the test runner prints out of our output.
            WorkerCommand {
                program: "/bin/sh".into(),
                args: vec![
                    "-c".into(),
                    "exec \"$0\" --ignored --exact supervisor::run::tests::worker_process >/dev/null".into(),
                    exe.into(),
                ],
            }
        }

        fn start_command(workers: usize, script: &str, command: WorkerCommand) -> Self {
            Self::start_with(workers, script, command, None)
        }

        fn start_with(
            workers: usize,
            script: &str,
            command: WorkerCommand,
            state: Option<&Path>,
        ) -> Self {
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
            let configured = Configured {
                settings: json!({"script": &path}),
                rules: rules(),
            };
            let next = Arc::new(Mutex::new(configured.clone()));
            let reread = {
                let next = Arc::clone(&next);
                move || Ok(next.lock().unwrap().clone())
            };
            let beginning = Steward::open(state).unwrap();
            let listeners = vec![listener];
            let (server, control) =
                Server::new(plan, configured, beginning, command, listeners).unwrap();
            let (signals, receiver) = mpsc::unbounded_channel();
            let (announce, announced) = mpsc::unbounded_channel();
            let announce = move |_: &[Listener], _: &[AppReport]| announce.send(()).unwrap();
            let task = tokio::spawn(server.run(receiver, reread, announce));
            Self {
                address,
                signals,
                control,
                script: path,
                next,
                announced,
                task,
            }
        }

        async fn running(workers: usize) -> Self {
            Self::running_in(workers, None).await
        }

        async fn running_in(workers: usize, state: Option<&Path>) -> Self {
            let mut server = Self::start_with(workers, "serve one", Self::command(), state);
            server.announced.recv().await.unwrap();
            server
        }

        /// Sets the canary of the rule.
        async fn set(&self, canary: &str) -> Result<Changed, ChangeError> {
            let canary = Some(canary.parse().unwrap());
            let edit = Edit::Set {
                canary,
                shadow: None,
            };
            self.change(edit).await
        }

        async fn change(&self, edit: Edit) -> Result<Changed, ChangeError> {
            let rule = "items".into();
            let author = Author::Operator { uid: None };
            let change = Change { rule, edit };
            self.control.change(change, author, false).await
        }

        /// The canaries that count, by process, as soon as so many have answered that are not `but`.
        async fn shares(&self, processes: usize, but: &[&str]) -> BTreeMap<String, String> {
            let mut seen = BTreeMap::new();
            while seen.len() < processes {
                let answer = self.ask("share").await.unwrap_or_default();
                if let Some((share, pid)) = answer.split_once(' ')
                    && !but.contains(&pid)
                {
                    seen.insert(pid.to_owned(), share.to_owned());
                }
            }
            seen
        }

        /// Whether this canary counts in so many processes, and no other in any.
        async fn all_have(&self, share: &str, processes: usize) -> bool {
            let shares = self.shares(processes, &[]).await;
            shares.values().all(|counts| counts == share)
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

        /// Until the server has taken the canary back by itself.
        async fn rolled_back(&self) {
            let mut live = self.control.live.clone();
            let rolled_back = |live: &Arc<LiveRules>| {
                let state = live.overlay.state(&rules()[0]);
                state.rolled_back.is_some()
            };
            let waiting = live.wait_for(rolled_back);
            let limit = Duration::from_secs(8);
            tokio::time::timeout(limit, waiting).await.unwrap().unwrap();
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

    /// The rules of every server and worker here.
    fn rules() -> Vec<RuleConfig> {
        let canary = CanaryConfig {
            percent: Percent::ONE,
            sticky: Sticky::Client,
            testers: Vec::new(),
            rollback: Some(RollbackConfig::default()),
        };
        vec![RuleConfig {
            name: "items".into(),
            canary: Some(canary),
            ..RuleConfig::new("new", RuleMatch::owned(), "twinspan.toml:1")
        }]
    }

    /// A directory that is removed with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("twinspan-state-{}-{count}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
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

    #[tokio::test]
    async fn a_change_counts_on_every_worker_when_it_is_answered() {
        let server = Fixture::running(2).await;
        assert!(server.all_have("1", 2).await);
        let changed = server.set("25").await.unwrap();
        assert_eq!((changed.record.version, changed.workers), (1, 2));
        assert!(server.all_have("25", 2).await);
        let live = server.control.live();
        assert_eq!(live.overlay.shares(&live.rules[0]).canary.to_string(), "25");
        server.stop().await;
    }

    #[tokio::test]
    async fn a_change_that_one_worker_refuses_counts_nowhere() {
        let server = Fixture::running(2).await;
        server.ask("refuse").await.unwrap();
        let error = server.set("25").await.unwrap_err();
        assert_eq!(error, ChangeError::Refused("not here".into()));
        assert!(server.all_have("1", 2).await);
        server.stop().await;
    }

    #[tokio::test]
    async fn a_worker_that_dies_before_a_change_is_settled_stops_it() {
        let server = Fixture::running(2).await;
        let victim = server.ask("die when asked").await.unwrap();
        let error = server.set("25").await.unwrap_err();
        assert_eq!(error, ChangeError::Refused("it died".into()));
        let shares = server.shares(2, &[pid(&victim)]).await;
        assert!(shares.values().all(|share| share == "1"), "{shares:?}");
        server.stop().await;
    }

    #[tokio::test]
    async fn a_worker_that_dies_after_it_is_followed_by_one_that_has_it() {
        let server = Fixture::running(2).await;
        let victim = server.ask("die when told").await.unwrap();
        let changed = server.set("25").await.unwrap();
        assert_eq!(changed.workers, 1, "it waits for no dead worker");
        let shares = server.shares(2, &[pid(&victim)]).await;
        assert!(shares.values().all(|share| share == "25"), "{shares:?}");
        server.stop().await;
    }

    #[tokio::test]
    async fn a_worker_that_starts_during_a_change_takes_part_in_it() {
        let server = Fixture::running(2).await;
        let silent = server.ask("silent").await.unwrap();
        let reason = "too slow".into();
        let rolling_back = server.change(Edit::RollBack { reason });
        let replacing = async {
            // Until the silent one has been waited for, the other is replaced.
            let mut victim = server.ask("share").await.unwrap();
            while pid(&victim) == pid(&silent) {
                victim = server.ask("share").await.unwrap();
            }
            let victim = pid(&victim).parse().unwrap();
            let victim = rustix::process::Pid::from_raw(victim).unwrap();
            rustix::process::kill_process(victim, rustix::process::Signal::KILL).unwrap();
        };
        let (changed, ()) = tokio::join!(rolling_back, replacing);
        assert_eq!(changed.unwrap().workers, 2);
        assert!(server.all_have("0", 2).await);
        let metrics = server.control.collect().await;
        let rollbacks = |sample: &&Sample| sample.family == Family::RollbacksTotal;
        let rollbacks = metrics.samples.iter().find(rollbacks).unwrap();
        assert_eq!(rollbacks.value, Value::Number(1));
        server.stop().await;
    }

    #[tokio::test]
    async fn a_canary_that_fails_is_taken_back_on_every_worker() {
        let server = Fixture::running(2).await;
        server.ask("observe failures").await.unwrap();
        server.rolled_back().await;
        assert!(server.all_have("0", 2).await);
        let changes = server.control.known(|store| store.changes(9).unwrap());
        let authors: Vec<_> = changes.await.unwrap().iter().map(|it| it.author).collect();
        assert_eq!(authors, [Author::Automatic]);
        server.stop().await;
    }

    #[tokio::test]
    async fn a_canary_that_fails_is_taken_back_while_the_disk_does_not_answer() {
        let state = Scratch::new();
        let server = Fixture::running_in(2, Some(&state.0)).await;
        let (begun, stalls) = oneshot::channel();
        let (answer, stalled) = std::sync::mpsc::channel::<()>();
        let control = server.control.clone();
        let disk = tokio::spawn(async move {
            let stall = move |_: &Store| (begun.send(()), stalled.recv());
            control.known(stall).await
        });
        stalls.await.unwrap();
        server.ask("observe failures").await.unwrap();
        server.rolled_back().await;
        assert!(server.all_have("0", 2).await);
        drop(answer);
        disk.await.unwrap().unwrap().0.unwrap();
        server.stop().await;
        let server = Fixture::running_in(1, Some(&state.0)).await;
        assert!(server.all_have("0", 1).await, "it is kept afterwards");
        server.stop().await;
    }

    #[tokio::test]
    async fn a_reload_that_fails_leaves_the_rules_as_they_were() {
        let server = Fixture::running(1).await;
        std::fs::write(&server.script, "fail syntax error").unwrap();
        let before = {
            let mut next = server.next.lock().unwrap();
            let before = next.clone();
            next.rules[0].name = "renamed".into();
            next.settings = json!({"script": "/no/such/file"});
            before
        };
        server.signals.send(Signal::Hangup).unwrap();
        server
            .until(|status| status.generation == 1 && !status.reloading)
            .await;
        assert_eq!(server.control.live().rules, rules());
        // The judge watches them, and workers to come get the settings that are known to work.
        server.ask("observe failures").await.unwrap();
        server.rolled_back().await;
        std::fs::write(&server.script, "serve two").unwrap();
        let _ = server.ask("die").await;
        assert!(server.ask("").await.unwrap().starts_with("two "));
        let reset = server.change(Edit::Reset).await.unwrap();
        assert_eq!(reset.workers, 1);
        // And the next reload can bring others.
        let mut renamed = before;
        renamed.rules[0].name = "renamed".into();
        *server.next.lock().unwrap() = renamed;
        server.signals.send(Signal::Hangup).unwrap();
        server
            .until(|status| status.generation == 2 && !status.reloading)
            .await;
        assert_eq!(server.control.live().rules[0].name, "renamed");
        server.stop().await;
    }

    #[test]
    fn workers_of_two_configurations_have_the_rules_of_both() {
        let configured = |rules: &[RuleConfig]| {
            Arc::new(Configured {
                settings: json!({}),
                rules: rules.to_vec(),
            })
        };
        let items = rules().remove(0);
        let named = |name: &str, rule: &RuleConfig| RuleConfig {
            name: name.into(),
            ..rule.clone()
        };
        let mut plain = items.clone();
        plain.canary = None;
        let mut later = items.clone();
        later.origin = "twinspan.toml:9".into();
        let old = configured(&[
            named("gone", &items),
            items.clone(),
            named("steered", &plain),
        ]);
        let new = configured(&[later, named("steered", &items), named("added", &plain)]);
        assert_eq!(
            together(&[old, new]),
            [
                named("gone", &items),
                items.clone(),
                named("steered", &items),
                named("added", &plain)
            ]
        );
    }

    #[tokio::test]
    async fn what_was_changed_outlives_the_server_and_is_written_down() {
        let state = Scratch::new();
        let server = Fixture::running_in(1, Some(&state.0)).await;
        assert_eq!(server.control.token().unwrap().len(), 64);
        server.set("25").await.unwrap();
        server.signals.send(Signal::Hangup).unwrap();
        server
            .until(|status| status.generation == 1 && !status.reloading)
            .await;
        assert!(server.all_have("25", 1).await, "a reload keeps it too");
        server.stop().await;
        let server = Fixture::running_in(1, Some(&state.0)).await;
        assert!(server.all_have("25", 1).await);
        assert_eq!(server.change(Edit::Reset).await.unwrap().record.version, 2);
        assert!(server.all_have("1", 1).await);
        let audit = std::fs::read_to_string(state.0.join("audit.jsonl")).unwrap();
        let lines: Vec<serde_json::Value> = audit
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["version"], 1);
        assert_eq!(lines[0]["who"], "operator");
        assert_eq!(lines[1]["was"]["canary"], 25.0);
        assert_eq!(lines[1]["is"]["canary"], 1.0);
        server.stop().await;
    }

    #[tokio::test]
    async fn a_change_that_cannot_be_kept_counts_nowhere() {
        let state = Scratch::new();
        let server = Fixture::running_in(2, Some(&state.0)).await;
        std::fs::create_dir(state.0.join("overlay.json.new")).unwrap();
        let error = server.set("25").await.unwrap_err();
        assert!(matches!(error, ChangeError::NotKept(_)), "{error}");
        assert!(server.all_have("1", 2).await);
        server.stop().await;
    }
}
