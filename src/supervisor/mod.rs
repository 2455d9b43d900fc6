//! The parent process: starts workers, watches them, replaces them, stops them.
//!
//! The supervisor never imports an application. It owns the listening sockets, so that connections
//! wait in one queue while workers come and go.
//!
//! What it decides is a function of what has happened: [`Supervisor::step`] takes an event and
//! returns actions, knows no clock and does no IO. The loop around it ([`run`]) turns processes,
//! channels and signals into events, and actions into processes, messages and signals.

mod changes;
pub mod channel;
mod child;
mod run;
mod signals;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use crate::error::Exit;
use channel::{Failure, FailureKind};

pub use child::WorkerCommand;
pub use run::{Configured, Control, LiveRules, ServerError, run};

/// A worker that is not heard of for this long is killed. Its heartbeat comes from a thread that no
/// application can hold up, so that only a stopped or broken process is silent.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);
/// The first worker after a death waits this long, each further one twice as long.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_LAST: Duration = Duration::from_secs(30);
/// A worker that has served for this long died of something new, not of its start.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// So many deaths in a row, in every slot, are a crash loop.
const CRASH_LOOP_DEATHS: u32 = 6;
/// A worker bounds its own drain; it is killed only when it does not keep its word.
const DRAIN_MARGIN: Duration = Duration::from_secs(15);
/// For a worker that only has to exit: it has said why it fails, has closed its channel, or is told to
/// leave before it serves.
const EXIT_LIMIT: Duration = Duration::from_secs(5);
/// A longer time between two steps means that the supervisor itself was stopped (Ctrl-Z, a paused
/// machine), its workers probably with it: their silence then proves nothing.
const OWN_STALL: Duration = Duration::from_secs(5);
/// How often the supervisor wakes at least, or it could not notice that it was stopped.
const TICK: Duration = Duration::from_secs(1);

/// What the supervisor is to keep up.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Worker processes, at least one.
    pub workers: usize,
    /// A worker that is not ready after this is killed.
    pub startup: Duration,
    /// What workers grant their connections, and then their applications, after [`Action::Drain`].
    pub graceful: Duration,
}

/// Names one worker process for the life of the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(u64);

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The listening sockets are bound.
    Start,
    /// [`Action::Spawn`] did not work.
    SpawnFailed {
        worker: WorkerId,
        problem: String,
    },
    /// The worker accepts connections.
    Ready(WorkerId),
    /// The worker has said why it will not serve.
    Failed {
        worker: WorkerId,
        kind: FailureKind,
        failure: Failure,
    },
    /// The worker has said anything at all.
    Heard(WorkerId),
    /// The worker leaves by its own decision.
    Draining(WorkerId),
    /// The worker serves, but more threads than it can replace are stuck in one of its applications.
    Stuck {
        worker: WorkerId,
        app: String,
    },
    /// The worker can neither be told nor say anything any more.
    ChannelClosed(WorkerId),
    /// The process has ended, and everything that it said has been an event before.
    Exited {
        worker: WorkerId,
        status: ExitStatus,
    },
    Signal(Signal),
    /// Nothing but time has passed.
    Tick,
}

/// What a person or a service manager asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C: stops gracefully, at once when pressed again.
    Interrupt,
    /// Stops gracefully.
    Terminate,
    /// Stops at once.
    Quit,
    /// Replaces the workers one by one.
    Hangup,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start a worker process.
    Spawn {
        worker: WorkerId,
        slot: usize,
        generation: u64,
    },
    /// Tell the worker to finish what it does and exit.
    Drain(WorkerId),
    Kill(WorkerId),
    /// Tell people that the server is up.
    Announce,
    /// The reload has come to nothing: start workers as before it.
    Restore,
    Log {
        level: Level,
        /// The one that the message is about.
        worker: Option<WorkerId>,
        message: String,
    },
    /// Every worker is gone; nothing follows.
    Exit {
        exit: Exit,
        cause: Option<Failure>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Info,
    Warning,
    Error,
}

/// How the server is, for `/readyz` and `/status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// Every worker has been ready once, the server is not stopping, and somebody serves now who is not
    /// stuck. One worker that is being replaced is no reason to take the whole server out of a load balancer.
    pub ready: bool,
    /// Workers that serve now.
    pub serving: usize,
    /// Those of them that turn requests away, because their threads are stuck in an application.
    pub stuck: usize,
    /// Workers that there should be.
    pub workers: usize,
    /// Counts the reloads that were asked for.
    pub generation: u64,
    /// Workers of an older generation are being replaced.
    pub reloading: bool,
    pub stopping: bool,
}

/// The decisions of the parent process.
#[derive(Debug)]
pub struct Supervisor {
    plan: Plan,
    phase: Phase,
    slots: Vec<Slot>,
    workers: BTreeMap<WorkerId, Worker>,
    /// Slots whose worker is older than `generation` or stuck, in the order of their replacement.
    outdated: VecDeque<usize>,
    generation: u64,
    /// Workers are replaced because somebody asked for it.
    reloading: bool,
    next_worker: u64,
    now: Duration,
    actions: Vec<Action>,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Not every slot has had a ready worker: any death ends the server.
    Starting,
    Running,
    Stopping {
        exit: Exit,
        cause: Option<Failure>,
    },
    Ended,
}

/// The place of one worker and its successors.
#[derive(Debug, Default)]
struct Slot {
    /// Deaths since a worker of this slot was last stable.
    deaths: u32,
    /// Workers in a row that were stuck, all but the first before they were stable.
    stuck: u32,
    /// No worker is started here until then.
    vacant_until: Option<Duration>,
}

#[derive(Debug)]
struct Worker {
    slot: usize,
    generation: u64,
    state: State,
    /// Its threads are stuck in an application: it serves until a successor does.
    stuck: bool,
    /// What it said before its death.
    last_words: Option<(FailureKind, Failure)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Starting {
        until: Duration,
    },
    Serving {
        since: Duration,
        heard: Duration,
    },
    /// Its exit is expected and replaces nothing.
    Leaving {
        until: Duration,
    },
    /// Its exit is expected and is a death.
    Dying {
        until: Duration,
        was: Was,
    },
    Killed {
        until: Duration,
        /// `None` where it was leaving.
        was: Option<Was>,
    },
}

/// What a worker was when it began to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Was {
    Starting,
    ServingSince(Duration),
}

impl Supervisor {
    pub fn new(plan: Plan) -> Self {
        Self {
            plan,
            phase: Phase::Starting,
            slots: (0..plan.workers.max(1)).map(|_| Slot::default()).collect(),
            workers: BTreeMap::new(),
            outdated: VecDeque::new(),
            generation: 0,
            reloading: false,
            next_worker: 0,
            now: Duration::ZERO,
            actions: Vec::new(),
        }
    }

    /// Takes one event at `now`, a time that never goes back, and decides what is to be done.
    #[must_use]
    pub fn step(&mut self, event: Event, now: Duration) -> Vec<Action> {
        if self.phase == Phase::Ended {
            return Vec::new();
        }
        self.pass_time(now);
        match event {
            Event::Start | Event::Tick => {}
            Event::SpawnFailed { worker, problem } => self.spawn_failed(worker, &problem),
            Event::Ready(worker) => self.ready(worker),
            Event::Failed {
                worker,
                kind,
                failure,
            } => self.failed(worker, kind, failure),
            Event::Heard(worker) => self.heard(worker),
            Event::Draining(worker) => self.left(worker),
            Event::Stuck { worker, app } => self.stuck(worker, &app),
            Event::ChannelClosed(worker) => self.doom(worker),
            Event::Exited { worker, status } => self.exited(worker, status),
            Event::Signal(signal) => self.signal(signal),
        }
        self.enforce_limits();
        self.reload();
        self.fill();
        self.end();
        std::mem::take(&mut self.actions)
    }

    /// When the next [`Event::Tick`] is due.
    pub fn wake_at(&self) -> Duration {
        let limits = self.workers.values().map(|worker| match worker.state {
            State::Serving { heard, .. } => heard + SILENCE_LIMIT,
            State::Starting { until }
            | State::Leaving { until }
            | State::Dying { until, .. }
            | State::Killed { until, .. } => until,
        });
        let vacancies = self.slots.iter().filter_map(|slot| slot.vacant_until);
        // One that is over may have to wait for something else, which is an event.
        let vacancies = vacancies.filter(|until| *until > self.now);
        limits
            .chain(vacancies)
            .fold(self.now + TICK, Duration::min)
            .max(self.now)
    }

    pub fn status(&self) -> Status {
        let serving = self.workers.values().filter(|worker| worker.serves());
        let stuck = serving.clone().filter(|worker| worker.stuck).count();
        let serving = serving.count();
        Status {
            ready: self.phase == Phase::Running && serving > stuck,
            serving,
            stuck,
            workers: self.slots.len(),
            generation: self.generation,
            reloading: self.reloading,
            stopping: matches!(self.phase, Phase::Stopping { .. } | Phase::Ended),
        }
    }

    fn pass_time(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.now);
        if passed > OWN_STALL {
            for worker in self.workers.values_mut() {
                if let State::Serving { heard, .. } = &mut worker.state {
                    *heard += passed;
                }
            }
        }
        self.now = self.now.max(now);
    }

    fn ready(&mut self, id: WorkerId) {
        let now = self.now;
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if !matches!(worker.state, State::Starting { .. }) {
            return;
        }
        let slot = worker.slot;
        let predecessor = self.find(slot, Worker::serves);
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.state = State::Serving {
                since: now,
                heard: now,
            };
        }
        if let Some(predecessor) = predecessor {
            self.drain(predecessor);
        }
        match self.phase {
            Phase::Starting => {
                if (0..self.slots.len()).all(|slot| self.find(slot, Worker::serves).is_some()) {
                    self.phase = Phase::Running;
                    self.actions.push(Action::Announce);
                }
            }
            _ => self.log(Level::Info, id, "a worker is ready"),
        }
    }

    fn failed(&mut self, id: WorkerId, kind: FailureKind, failure: Failure) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.last_words = Some((kind, failure));
            self.doom(id);
        }
    }

    fn heard(&mut self, id: WorkerId) {
        let now = self.now;
        if let Some(worker) = self.workers.get_mut(&id)
            && let State::Serving { heard, .. } = &mut worker.state
        {
            *heard = now;
        }
    }

    /// A worker that will exit by itself, and not because it was told to.
    fn doom(&mut self, id: WorkerId) {
        let until = self.now + EXIT_LIMIT;
        if let Some(worker) = self.workers.get_mut(&id)
            && let Some(was) = worker.lives()
        {
            worker.state = State::Dying { until, was };
        }
    }

    /// A worker that drains without having been told.
    fn left(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let Some(was) = worker.lives() else { return };
        let slot = worker.slot;
        worker.state = State::Leaving {
            until: self.now + self.plan.graceful + DRAIN_MARGIN,
        };
        self.log(
            Level::Info,
            id,
            "a worker drains on its own; another takes its place",
        );
        // Never at once: who signals the whole process group is about to stop the supervisor too.
        self.vacate(slot, was);
    }

    /// A worker that turns requests away until a successor takes its place.
    fn stuck(&mut self, id: WorkerId, app: &str) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let State::Serving { since, .. } = worker.state else {
            return;
        };
        if std::mem::replace(&mut worker.stuck, true) {
            return;
        }
        let slot = worker.slot;
        // What all threads wait for, a database say, may be away for long.
        let pause = self.pause_after_stuck(slot, since);
        if !self.outdated.contains(&slot) {
            self.outdated.push_back(slot);
        }
        let message = format!(
            "threads of a worker are stuck in `{app}`; another starts in {pause:?} to take its place"
        );
        self.log(Level::Warning, id, &message);
    }

    /// How long the successor of a stuck worker has to wait; longer with every one that is stuck soon.
    fn pause_after_stuck(&mut self, slot: usize, since: Duration) -> Duration {
        let (now, stable) = (self.now, self.is_stable(since));
        let Some(slot) = self.slots.get_mut(slot) else {
            return Duration::ZERO;
        };
        slot.stuck = if stable { 1 } else { slot.stuck + 1 };
        let pause = backoff(slot.stuck);
        slot.vacant_until = slot.vacant_until.max(Some(now + pause));
        pause
    }

    fn spawn_failed(&mut self, id: WorkerId, problem: &str) {
        if let Some(worker) = self.workers.remove(&id) {
            let cause = Failure::new(format!("a worker process could not be started: {problem}"));
            self.died(id, &worker, Was::Starting, FailureKind::Internal, cause);
        }
    }

    fn exited(&mut self, id: WorkerId, status: ExitStatus) {
        let Some(mut worker) = self.workers.remove(&id) else {
            return;
        };
        let last_words = worker.last_words.take();
        match (worker.dies(), last_words) {
            (Some(was), Some((kind, cause))) => self.died(id, &worker, was, kind, cause),
            (Some(was), None) => {
                self.died(
                    id,
                    &worker,
                    was,
                    FailureKind::Application,
                    unexplained(status),
                );
            }
            (None, Some((_, failure))) => self.warn(id, &failure),
            // By this supervisor, which has said why.
            (None, None) if worker.is_killed() => self.log(Level::Info, id, "a worker is gone"),
            (None, None) if status.success() => self.log(Level::Info, id, "a worker stopped"),
            (None, None) if status.code() == Some(i32::from(Exit::Application.code())) => {
                self.log(
                    Level::Error,
                    id,
                    "a worker stopped, but not all of its applications did as they should",
                );
                // Of a server that runs on, the next worker is what counts.
                if let Phase::Stopping { exit, .. } = &mut self.phase
                    && *exit == Exit::Success
                {
                    *exit = Exit::Application;
                }
            }
            (None, None) => self.warn(id, &unexplained(status)),
        }
    }

    /// A worker is gone that should not be.
    fn died(&mut self, id: WorkerId, worker: &Worker, was: Was, kind: FailureKind, cause: Failure) {
        match self.phase {
            Phase::Starting => {
                let exit = match kind {
                    FailureKind::Configuration => Exit::Configuration,
                    FailureKind::Application => Exit::Application,
                    FailureKind::Internal => Exit::Internal,
                };
                self.stop(exit, Some(cause));
            }
            Phase::Running => {
                self.log(Level::Error, id, &for_log(&cause));
                if was == Was::Starting
                    && worker.generation == self.generation
                    && self.outdated.front() == Some(&worker.slot)
                {
                    self.give_up_reload();
                }
                if self.find(worker.slot, Worker::is_needed).is_none() {
                    let pause = self.vacate(worker.slot, was);
                    if self.is_hopeless() {
                        self.stop(Exit::CrashLoop, Some(crash_loop(cause)));
                    } else {
                        self.say(format!("another worker starts in {pause:?}"));
                    }
                }
            }
            Phase::Stopping { .. } | Phase::Ended => self.warn(id, &cause),
        }
    }

    /// The successor did not start. Those that are stuck get another all the same, after a pause.
    fn give_up_reload(&mut self) {
        let stuck = |slot: &usize| {
            let mut here = self.workers.values().filter(|worker| worker.slot == *slot);
            here.any(|worker| worker.serves() && worker.stuck)
        };
        let (keep, _): (Vec<_>, Vec<_>) = self.outdated.iter().partition(|slot| stuck(slot));
        self.outdated = keep.into();
        if !std::mem::take(&mut self.reloading) {
            return;
        }
        let old = self
            .workers
            .values()
            .filter(|worker| worker.serves() && worker.generation < self.generation)
            .count();
        self.actions.push(Action::Restore);
        self.actions.push(Action::Log {
            level: Level::Error,
            worker: None,
            message: format!(
                "reload given up: the new worker did not start; {old} of {} workers go on as they were",
                self.slots.len()
            ),
        });
    }

    /// Leaves a slot empty for a while that grows with its deaths; returns for how long.
    fn vacate(&mut self, slot: usize, was: Was) -> Duration {
        let now = self.now;
        let stable = match was {
            Was::Starting => false,
            Was::ServingSince(since) => self.is_stable(since),
        };
        let Some(slot) = self.slots.get_mut(slot) else {
            return Duration::ZERO;
        };
        slot.deaths = if stable { 1 } else { slot.deaths + 1 };
        let pause = backoff(slot.deaths);
        slot.vacant_until = Some(now + pause);
        pause
    }

    fn is_stable(&self, since: Duration) -> bool {
        self.now.saturating_sub(since) >= STABLE_AFTER
    }

    /// Whether nobody serves and the workers of every slot die young.
    fn is_hopeless(&self) -> bool {
        let doomed = |slot: &Slot| slot.deaths >= CRASH_LOOP_DEATHS;
        self.slots.iter().all(doomed) && !self.workers.values().any(Worker::serves)
    }

    fn signal(&mut self, signal: Signal) {
        let stopping = matches!(self.phase, Phase::Stopping { .. });
        match signal {
            Signal::Hangup | Signal::Terminate if stopping => {}
            Signal::Hangup => {
                self.generation += 1;
                self.reloading = true;
                self.end_pauses();
                self.outdated = (0..self.slots.len()).collect();
                self.say("reloading: workers are replaced one by one");
            }
            Signal::Terminate => {
                self.say("stopping: requests in flight may finish");
                self.stop(Exit::Success, None);
            }
            Signal::Interrupt if stopping => {
                self.say("stopping at once");
                self.kill_all();
            }
            Signal::Interrupt => {
                self.say("stopping: requests in flight may finish; Ctrl-C again stops at once");
                self.stop(Exit::Success, None);
            }
            Signal::Quit => {
                self.say("stopping at once");
                self.begin_stop(Exit::Success, None);
                self.kill_all();
            }
        }
    }

    /// Whoever asks for new workers does not want to wait for those that stuck ones are to get later.
    fn end_pauses(&mut self) {
        let serving = self.workers.values().filter(|worker| worker.serves());
        for worker in serving {
            if let Some(slot) = self.slots.get_mut(worker.slot) {
                slot.vacant_until = None;
            }
        }
    }

    fn stop(&mut self, exit: Exit, cause: Option<Failure>) {
        self.begin_stop(exit, cause);
        for id in self.ids() {
            self.drain(id);
        }
    }

    fn begin_stop(&mut self, exit: Exit, cause: Option<Failure>) {
        if matches!(self.phase, Phase::Starting | Phase::Running) {
            self.phase = Phase::Stopping { exit, cause };
            self.outdated.clear();
            self.reloading = false;
            for slot in &mut self.slots {
                slot.vacant_until = None;
            }
        }
    }

    fn kill_all(&mut self) {
        for id in self.ids() {
            self.kill(id);
        }
    }

    /// Tells a worker to leave, unless it is about to go anyway.
    fn drain(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let limit = match worker.lives() {
            // It has no request to finish, and an import can take for ever.
            Some(Was::Starting) => EXIT_LIMIT,
            Some(Was::ServingSince(_)) => self.plan.graceful + DRAIN_MARGIN,
            None => return,
        };
        worker.state = State::Leaving {
            until: self.now + limit,
        };
        self.actions.push(Action::Drain(id));
    }

    fn kill(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if !worker.is_killed() {
            worker.state = State::Killed {
                until: self.now + EXIT_LIMIT,
                was: worker.dies(),
            };
            self.actions.push(Action::Kill(id));
        }
    }

    fn enforce_limits(&mut self) {
        for id in self.ids() {
            let Some(worker) = self.workers.get_mut(&id) else {
                continue;
            };
            match worker.state {
                State::Starting { until } if until <= self.now => {
                    let limit = self.plan.startup;
                    worker.last_words = Some((
                        FailureKind::Application,
                        Failure {
                            hint: Some("raise `--timeout-startup` if it needs more time".into()),
                            ..Failure::new(format!(
                                "a worker was not ready within {limit:?} and was killed"
                            ))
                        },
                    ));
                    self.kill(id);
                }
                State::Serving { heard, .. } if heard + SILENCE_LIMIT <= self.now => {
                    worker.last_words = Some((
                        FailureKind::Internal,
                        Failure::new(format!(
                            "a worker gave no sign of life for {} s and was killed",
                            SILENCE_LIMIT.as_secs()
                        )),
                    ));
                    self.kill(id);
                }
                State::Leaving { until } if until <= self.now => {
                    self.log(
                        Level::Warning,
                        id,
                        "a worker did not stop in time and is killed",
                    );
                    self.kill(id);
                }
                State::Dying { until, .. } if until <= self.now => self.kill(id),
                State::Killed { until, .. } if until <= self.now => {
                    // In an uninterruptible system call. It holds nobody up: it is out of the count.
                    self.log(
                        Level::Error,
                        id,
                        "a worker cannot be killed and is left behind",
                    );
                    self.exited(id, ExitStatus::from_raw(KILLED));
                }
                _ => {}
            }
        }
    }

    /// Replaces the worker of the next outdated slot when the one before is done.
    ///
    /// The old worker must be gone before the next slot's turn, so that a reload never needs the
    /// memory of more than one extra worker.
    fn reload(&mut self) {
        if self.phase != Phase::Running {
            return;
        }
        while let Some(&slot) = self.outdated.front() {
            if self.find(slot, |worker| !worker.serves()).is_some() {
                return;
            }
            match self.find(slot, Worker::serves) {
                Some(id) if self.is_current(id) => {
                    self.outdated.pop_front();
                    if self.outdated.is_empty() && std::mem::take(&mut self.reloading) {
                        self.say("reload done: every worker has been replaced");
                    }
                }
                _ if self.is_paused(slot) => return,
                _ => {
                    self.spawn(slot);
                    return;
                }
            }
        }
    }

    fn is_current(&self, id: WorkerId) -> bool {
        self.workers
            .get(&id)
            .is_some_and(|worker| worker.generation == self.generation && !worker.stuck)
    }

    fn is_paused(&self, slot: usize) -> bool {
        let until = self.slots.get(slot).and_then(|slot| slot.vacant_until);
        until.is_some_and(|until| until > self.now)
    }

    /// Gives every empty slot a worker.
    fn fill(&mut self) {
        if matches!(self.phase, Phase::Stopping { .. } | Phase::Ended) {
            return;
        }
        for slot in 0..self.slots.len() {
            if !self.is_paused(slot) && self.find(slot, Worker::occupies).is_none() {
                self.spawn(slot);
            }
        }
    }

    fn spawn(&mut self, slot: usize) {
        let worker = WorkerId(self.next_worker);
        self.next_worker += 1;
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.vacant_until = None;
        }
        self.workers.insert(
            worker,
            Worker {
                slot,
                generation: self.generation,
                state: State::Starting {
                    until: self.now + self.plan.startup,
                },
                stuck: false,
                last_words: None,
            },
        );
        self.actions.push(Action::Spawn {
            worker,
            slot,
            generation: self.generation,
        });
    }

    fn end(&mut self) {
        if let Phase::Stopping { exit, cause } = &mut self.phase
            && self.workers.is_empty()
        {
            let (exit, cause) = (*exit, cause.take());
            self.actions.push(Action::Exit { exit, cause });
            self.phase = Phase::Ended;
        }
    }

    fn find(&self, slot: usize, matches: impl Fn(&Worker) -> bool) -> Option<WorkerId> {
        self.workers
            .iter()
            .find(|(_, worker)| worker.slot == slot && matches(worker))
            .map(|(id, _)| *id)
    }

    fn ids(&self) -> Vec<WorkerId> {
        self.workers.keys().copied().collect()
    }

    fn log(&mut self, level: Level, worker: WorkerId, message: &str) {
        self.actions.push(Action::Log {
            level,
            worker: Some(worker),
            message: message.into(),
        });
    }

    /// Logs what goes wrong during a stop, unless it is what the stop is for: workers of one application
    /// all fail alike.
    fn warn(&mut self, worker: WorkerId, failure: &Failure) {
        let known =
            matches!(&self.phase, Phase::Stopping { cause: Some(cause), .. } if cause == failure);
        if !known {
            self.log(Level::Warning, worker, &for_log(failure));
        }
    }

    fn say(&mut self, message: impl Into<String>) {
        self.actions.push(Action::Log {
            level: Level::Info,
            worker: None,
            message: message.into(),
        });
    }
}

impl Worker {
    fn serves(&self) -> bool {
        matches!(self.state, State::Serving { .. })
    }

    fn is_killed(&self) -> bool {
        matches!(self.state, State::Killed { .. })
    }

    /// What it is; `None` when it is on its way out already.
    fn lives(&self) -> Option<Was> {
        match self.state {
            State::Starting { .. } => Some(Was::Starting),
            State::Serving { since, .. } => Some(Was::ServingSince(since)),
            State::Leaving { .. } | State::Dying { .. } | State::Killed { .. } => None,
        }
    }

    /// What it was, if its exit is a death: not one that was asked for.
    fn dies(&self) -> Option<Was> {
        match self.state {
            State::Dying { was, .. } => Some(was),
            State::Killed { was, .. } => was,
            State::Starting { .. } | State::Serving { .. } | State::Leaving { .. } => self.lives(),
        }
    }

    /// Whether its slot needs nobody else: its death will say when the next one comes.
    fn occupies(&self) -> bool {
        self.dies().is_some()
    }

    /// Whether its slot wants nobody else, either.
    fn is_needed(&self) -> bool {
        self.occupies() && !self.stuck
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The pause before the worker that follows so many that did not last.
fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (BACKOFF_FIRST * 2_u32.pow(doublings)).min(BACKOFF_LAST)
}

fn crash_loop(last: Failure) -> Failure {
    Failure {
        problem: format!(
            "every worker died {CRASH_LOOP_DEATHS} times in a row before it had served for {} s; the last time, {}",
            STABLE_AFTER.as_secs(),
            last.problem
        ),
        ..last
    }
}

/// The problem first: a log is read by its first lines.
fn for_log(failure: &Failure) -> String {
    let mut text = failure.problem.clone();
    if let Some(hint) = &failure.hint {
        text.push_str("; hint: ");
        text.push_str(hint);
    }
    if let Some(traceback) = &failure.traceback {
        text.push('\n');
        text.push_str(traceback.trim_end());
    }
    text
}

/// SIGKILL, also as the raw exit status of a process that it has ended.
const KILLED: i32 = 9;

/// What there is to say of a worker that ended without a word.
fn unexplained(status: ExitStatus) -> Failure {
    let Some(signal) = status.signal() else {
        return Failure::new(match status.code() {
            Some(0) => "a worker exited without having been told to".into(),
            Some(code) => format!("a worker exited with status {code}"),
            None => format!("a worker ended: {status}"),
        });
    };
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        8 => "SIGFPE",
        KILLED => "SIGKILL",
        11 => "SIGSEGV",
        15 => "SIGTERM",
        _ => return Failure::new(format!("a worker was killed by signal {signal}")),
    };
    let memory = "if nobody sent it, the kernel did because memory ran out";
    Failure {
        hint: (signal == KILLED).then(|| memory.into()),
        ..Failure::new(format!("a worker was killed by {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACEFUL: Duration = Duration::from_secs(30);
    const STARTUP: Duration = Duration::from_secs(60);

    /// A supervisor whose actions are read as text, `spawn 0 in 0` for worker 0 in slot 0, and whose
    /// log is kept apart.
    struct Server {
        supervisor: Supervisor,
        now: Duration,
        log: Vec<String>,
    }

    impl Server {
        fn new(workers: usize) -> Self {
            Self {
                supervisor: Supervisor::new(Plan {
                    workers,
                    startup: STARTUP,
                    graceful: GRACEFUL,
                }),
                now: Duration::ZERO,
                log: Vec::new(),
            }
        }

        /// One that has started and been announced; its workers are those from 0 on.
        fn running(workers: usize) -> Self {
            let mut server = Self::new(workers);
            server.event(Event::Start);
            for worker in 0..workers as u64 {
                server.ready(worker);
            }
            assert!(server.supervisor.status().ready);
            server
        }

        fn event(&mut self, event: Event) -> Vec<String> {
            let actions = self.supervisor.step(event, self.now);
            let mut seen = Vec::new();
            for action in actions {
                seen.push(match action {
                    Action::Spawn { worker, slot, .. } => format!("spawn {worker} in {slot}"),
                    Action::Drain(worker) => format!("drain {worker}"),
                    Action::Kill(worker) => format!("kill {worker}"),
                    Action::Announce => "announce".into(),
                    Action::Restore => "restore".into(),
                    Action::Exit { exit, cause } => match cause {
                        Some(cause) => format!("exit {}: {}", exit.code(), cause.problem),
                        None => format!("exit {}", exit.code()),
                    },
                    Action::Log { message, .. } => {
                        self.log.push(message);
                        continue;
                    }
                });
            }
            seen
        }

        fn ready(&mut self, worker: u64) -> Vec<String> {
            self.event(Event::Ready(WorkerId(worker)))
        }

        fn failed(&mut self, worker: u64, kind: FailureKind, message: &str) -> Vec<String> {
            self.event(Event::Failed {
                worker: WorkerId(worker),
                kind,
                failure: Failure::new(message),
            })
        }

        fn stuck(&mut self, worker: u64) -> Vec<String> {
            self.event(Event::Stuck {
                worker: WorkerId(worker),
                app: "shop".into(),
            })
        }

        fn exited(&mut self, worker: u64, code: i32) -> Vec<String> {
            self.ended(worker, code << 8)
        }

        fn killed(&mut self, worker: u64) -> Vec<String> {
            self.ended(worker, KILLED)
        }

        fn ended(&mut self, worker: u64, raw: i32) -> Vec<String> {
            self.event(Event::Exited {
                worker: WorkerId(worker),
                status: ExitStatus::from_raw(raw),
            })
        }

        fn signal(&mut self, signal: Signal) -> Vec<String> {
            self.event(Event::Signal(signal))
        }

        /// Lets time pass as the loop does: from one tick to the next.
        fn wait(&mut self, time: Duration) -> Vec<String> {
            let end = self.now + time;
            let mut seen = Vec::new();
            while self.now < end {
                self.now = self.supervisor.wake_at().min(end);
                seen.extend(self.event(Event::Tick));
            }
            seen
        }

        /// The same while every worker of `alive` beats.
        fn wait_beating(&mut self, time: Duration, alive: &[u64]) -> Vec<String> {
            let end = self.now + time;
            let mut seen = Vec::new();
            while self.now < end {
                for worker in alive {
                    seen.extend(self.event(Event::Heard(WorkerId(*worker))));
                }
                let pause = channel::HEARTBEAT_INTERVAL.min(end.saturating_sub(self.now));
                seen.extend(self.wait(pause));
            }
            seen
        }

        fn logged(&self, words: &str) -> bool {
            self.log.iter().any(|line| line.contains(words))
        }
    }

    fn nothing() -> Vec<String> {
        Vec::new()
    }

    #[test]
    fn the_server_is_announced_when_every_worker_is_ready() {
        let mut server = Server::new(2);
        assert_eq!(server.event(Event::Start), ["spawn 0 in 0", "spawn 1 in 1"]);
        assert_eq!(server.ready(1), nothing());
        assert!(!server.supervisor.status().ready);
        assert_eq!(server.ready(0), ["announce"]);
        assert!(server.supervisor.status().ready);
    }

    #[test]
    fn an_application_that_fails_at_the_start_ends_the_server_with_its_words() {
        let mut server = Server::new(2);
        server.event(Event::Start);
        server.failed(0, FailureKind::Application, "no module named shop");
        server.failed(1, FailureKind::Application, "no module named shop");
        assert_eq!(server.exited(0, 3), nothing());
        assert_eq!(server.exited(1, 3), ["exit 3: no module named shop"]);
        assert_eq!(server.log, nothing(), "the cause is told once");
    }

    #[test]
    fn the_kind_of_a_failed_start_decides_the_exit_code() {
        for (kind, code) in [
            (FailureKind::Configuration, 2),
            (FailureKind::Application, 3),
            (FailureKind::Internal, 1),
        ] {
            let mut server = Server::new(1);
            server.event(Event::Start);
            server.failed(0, kind, "why");
            assert_eq!(server.exited(0, 9), [format!("exit {code}: why")]);
        }
    }

    #[test]
    fn a_death_without_a_word_at_the_start_names_the_status() {
        let mut server = Server::new(1);
        server.event(Event::Start);
        assert_eq!(
            server.ended(0, 11),
            ["exit 3: a worker was killed by SIGSEGV"]
        );
    }

    #[test]
    fn when_one_worker_fails_at_the_start_those_that_serve_are_drained() {
        let mut server = Server::new(2);
        server.event(Event::Start);
        server.ready(0);
        server.failed(1, FailureKind::Application, "why");
        assert_eq!(server.exited(1, 3), ["drain 0"]);
        assert_eq!(server.exited(0, 0), ["exit 3: why"]);
    }

    #[test]
    fn a_worker_that_is_not_ready_in_time_is_killed_and_ends_the_start() {
        let mut server = Server::new(1);
        server.event(Event::Start);
        assert_eq!(server.wait(STARTUP), ["kill 0"]);
        assert_eq!(
            server.killed(0),
            ["exit 3: a worker was not ready within 60s and was killed"]
        );
    }

    #[test]
    fn a_process_that_cannot_be_started_ends_the_start() {
        let mut server = Server::new(1);
        server.event(Event::Start);
        let actions = server.event(Event::SpawnFailed {
            worker: WorkerId(0),
            problem: "no such file".into(),
        });
        assert_eq!(
            actions,
            ["exit 1: a worker process could not be started: no such file"]
        );
    }

    #[test]
    fn a_worker_that_says_why_it_fails_and_does_not_exit_is_killed() {
        let mut server = Server::new(1);
        server.event(Event::Start);
        server.failed(0, FailureKind::Application, "why");
        assert_eq!(server.wait(EXIT_LIMIT), ["kill 0"]);
        assert_eq!(server.killed(0), ["exit 3: why"]);
    }

    #[test]
    fn a_worker_that_dies_is_replaced_after_a_pause_while_the_others_serve() {
        let mut server = Server::running(2);
        server.wait_beating(STABLE_AFTER, &[0, 1]);
        assert_eq!(server.killed(0), nothing());
        assert!(server.logged("a worker was killed by SIGKILL"));
        assert!(server.supervisor.status().ready, "the other worker serves");
        assert_eq!(server.wait(BACKOFF_FIRST), ["spawn 2 in 0"]);
        assert_eq!(server.ready(2), nothing());
    }

    #[test]
    fn an_exit_that_nobody_asked_for_is_a_death_whatever_its_status() {
        let mut server = Server::running(1);
        assert_eq!(server.exited(0, 0), nothing());
        assert!(server.logged("a worker exited without having been told to"));
        assert_eq!(server.wait(BACKOFF_FIRST), ["spawn 1 in 0"]);
    }

    #[test]
    fn each_death_in_a_row_doubles_the_pause_and_a_stable_worker_resets_it() {
        let mut server = Server::running(2);
        for (worker, millis) in [(0, 200), (2, 400), (3, 800)] {
            server.exited(worker, 1);
            let pause = Duration::from_millis(millis);
            assert_eq!(server.wait(pause.mul_f32(0.99)), nothing());
            assert_eq!(server.wait(pause).len(), 1, "after {pause:?}");
            server.ready(worker.max(1) + 1);
        }
        server.wait_beating(STABLE_AFTER, &[1, 4]);
        server.exited(4, 1);
        assert_eq!(server.wait(BACKOFF_FIRST), ["spawn 5 in 0"]);
    }

    #[test]
    fn workers_that_all_die_young_end_the_server_and_the_cause_is_named() {
        let mut server = Server::running(1);
        let mut last = server.exited(0, 1);
        for worker in 1.. {
            assert!(worker <= u64::from(CRASH_LOOP_DEATHS), "no verdict");
            if !last.is_empty() {
                break;
            }
            assert_eq!(server.wait(BACKOFF_LAST), [format!("spawn {worker} in 0")]);
            server.failed(worker, FailureKind::Application, "the database is away");
            last = server.exited(worker, 3);
        }
        assert_eq!(
            last,
            [
                "exit 4: every worker died 6 times in a row before it had served for 10 s; the last time, the database is away"
            ]
        );
    }

    #[test]
    fn one_worker_that_dies_again_and_again_does_not_end_those_that_serve() {
        let mut server = Server::running(2);
        server.exited(0, 1);
        for worker in 2..20 {
            let spawned = server.wait_beating(BACKOFF_LAST, &[1]);
            assert_eq!(spawned, [format!("spawn {worker} in 0")]);
            assert_eq!(server.exited(worker, 1), nothing());
        }
        assert!(server.supervisor.status().ready);
    }

    #[test]
    fn a_silent_worker_is_killed_and_replaced() {
        let mut server = Server::running(2);
        assert_eq!(server.wait_beating(SILENCE_LIMIT, &[1]), ["kill 0"]);
        server.killed(0);
        assert!(server.logged("gave no sign of life for 30 s"));
        assert_eq!(server.wait(BACKOFF_FIRST), ["spawn 2 in 0"]);
    }

    #[test]
    fn silence_proves_nothing_when_the_supervisor_was_stopped_itself() {
        let mut server = Server::running(1);
        server.wait_beating(SILENCE_LIMIT / 2, &[0]);
        server.now += Duration::from_secs(3600);
        assert_eq!(server.event(Event::Tick), nothing());
        assert_eq!(server.wait(SILENCE_LIMIT / 2), nothing());
        assert_eq!(server.wait(SILENCE_LIMIT / 3), ["kill 0"]);
    }

    #[test]
    fn a_worker_that_closes_its_channel_and_stays_is_killed() {
        let mut server = Server::running(1);
        assert_eq!(server.event(Event::ChannelClosed(WorkerId(0))), nothing());
        assert!(!server.supervisor.status().ready);
        assert_eq!(server.wait(EXIT_LIMIT), ["kill 0"]);
    }

    #[test]
    fn a_process_that_survives_a_kill_is_left_behind() {
        let mut server = Server::running(1);
        assert_eq!(server.wait(SILENCE_LIMIT), ["kill 0"]);
        assert_eq!(server.wait(EXIT_LIMIT + BACKOFF_FIRST), ["spawn 1 in 0"]);
        assert!(server.logged("cannot be killed"));
    }

    #[test]
    fn a_worker_that_drains_on_its_own_gets_a_successor_before_it_is_gone() {
        let mut server = Server::running(1);
        server.wait_beating(STABLE_AFTER, &[0]);
        assert_eq!(server.event(Event::Draining(WorkerId(0))), nothing());
        assert_eq!(server.wait(BACKOFF_FIRST), ["spawn 1 in 0"]);
        assert_eq!(server.ready(1), nothing());
        assert_eq!(server.exited(0, 0), nothing());
    }

    #[test]
    fn a_signal_to_the_whole_process_group_starts_no_successor() {
        let mut server = Server::running(1);
        server.event(Event::Draining(WorkerId(0)));
        assert_eq!(server.signal(Signal::Terminate), nothing());
        assert_eq!(server.exited(0, 0), ["exit 0"]);
    }

    #[test]
    fn a_stop_drains_every_worker_and_ends_with_the_last() {
        for signal in [Signal::Terminate, Signal::Interrupt] {
            let mut server = Server::running(2);
            assert_eq!(server.signal(signal), ["drain 0", "drain 1"]);
            assert!(!server.supervisor.status().ready);
            assert_eq!(server.exited(1, 0), nothing());
            assert_eq!(server.exited(0, 0), ["exit 0"]);
            assert_eq!(server.signal(signal), nothing());
        }
    }

    #[test]
    fn a_drain_that_takes_too_long_ends_in_a_kill() {
        let mut server = Server::running(1);
        server.signal(Signal::Terminate);
        assert_eq!(server.wait(GRACEFUL), nothing());
        assert_eq!(server.wait(DRAIN_MARGIN), ["kill 0"]);
        assert_eq!(server.killed(0), ["exit 0"]);
    }

    #[test]
    fn the_second_interrupt_and_a_quit_stop_at_once() {
        let mut server = Server::running(1);
        server.signal(Signal::Interrupt);
        assert_eq!(server.signal(Signal::Terminate), nothing());
        assert_eq!(server.signal(Signal::Interrupt), ["kill 0"]);
        assert_eq!(server.killed(0), ["exit 0"]);

        let mut server = Server::running(1);
        assert_eq!(server.signal(Signal::Quit), ["kill 0"]);
        assert_eq!(server.killed(0), ["exit 0"]);
    }

    #[test]
    fn a_stop_during_the_start_lets_a_worker_finish_that_does_so_soon() {
        let mut server = Server::new(2);
        server.event(Event::Start);
        assert_eq!(server.signal(Signal::Interrupt), ["drain 0", "drain 1"]);
        assert_eq!(server.ready(0), nothing());
        assert_eq!(server.exited(0, 0), nothing());
        assert_eq!(server.wait(EXIT_LIMIT), ["kill 1"]);
        assert_eq!(server.killed(1), ["exit 0"]);
    }

    #[test]
    fn a_stop_forgets_the_successor_that_was_due() {
        let mut server = Server::running(1);
        server.exited(0, 1);
        assert_eq!(server.signal(Signal::Terminate), ["exit 0"]);
    }

    #[test]
    fn a_reload_replaces_the_workers_one_by_one_and_always_serves() {
        let mut server = Server::running(2);
        assert_eq!(server.signal(Signal::Hangup), ["spawn 2 in 0"]);
        assert_eq!(server.supervisor.status().serving, 2);
        assert_eq!(server.ready(2), ["drain 0"]);
        assert_eq!(server.exited(0, 0), ["spawn 3 in 1"]);
        assert_eq!(server.supervisor.status().serving, 2);
        assert_eq!(server.ready(3), ["drain 1"]);
        assert_eq!(server.exited(1, 0), nothing());
        assert!(server.logged("reload done"));
        assert_eq!(server.supervisor.status().serving, 2);
    }

    #[test]
    fn a_reload_that_fails_leaves_the_old_workers_and_tells_the_cause() {
        let mut server = Server::running(2);
        server.signal(Signal::Hangup);
        server.failed(2, FailureKind::Application, "syntax error in shop.py");
        assert_eq!(server.exited(2, 3), ["restore"]);
        assert!(server.logged("syntax error in shop.py"));
        assert!(server.logged("2 of 2 workers go on as they were"));
        assert!(server.supervisor.status().ready);
        assert_eq!(server.wait_beating(BACKOFF_LAST, &[0, 1]), nothing());
        assert_eq!(server.signal(Signal::Hangup), ["spawn 3 in 0"]);
    }

    #[test]
    fn an_old_worker_that_dies_during_a_reload_is_replaced_by_the_one_that_starts() {
        let mut server = Server::running(1);
        server.signal(Signal::Hangup);
        assert_eq!(server.killed(0), nothing());
        assert_eq!(server.wait(BACKOFF_LAST), nothing());
        assert_eq!(server.ready(1), nothing());
        assert!(server.logged("reload done"));
    }

    #[test]
    fn a_second_reload_during_the_first_replaces_what_the_first_began() {
        let mut server = Server::running(1);
        assert_eq!(server.signal(Signal::Hangup), ["spawn 1 in 0"]);
        assert_eq!(server.signal(Signal::Hangup), nothing());
        assert_eq!(server.ready(1), ["drain 0"]);
        assert_eq!(server.exited(0, 0), ["spawn 2 in 0"]);
        assert_eq!(server.ready(2), ["drain 1"]);
        assert_eq!(server.exited(1, 0), nothing());
        assert_eq!(
            server.log.last().unwrap(),
            "reload done: every worker has been replaced"
        );
    }

    #[test]
    fn a_reload_during_the_start_follows_the_start() {
        let mut server = Server::new(1);
        server.event(Event::Start);
        assert_eq!(server.signal(Signal::Hangup), nothing());
        assert_eq!(server.ready(0), ["announce", "spawn 1 in 0"]);
    }

    #[test]
    fn a_stop_ends_a_reload() {
        let mut server = Server::running(2);
        server.signal(Signal::Hangup);
        assert_eq!(
            server.signal(Signal::Terminate),
            ["drain 0", "drain 1", "drain 2"]
        );
        server.exited(2, 0);
        server.exited(0, 0);
        assert_eq!(server.exited(1, 0), ["exit 0"]);
    }

    #[test]
    fn a_stop_that_an_application_did_not_take_well_shows_in_the_exit_code() {
        let application = i32::from(Exit::Application.code());
        let mut server = Server::running(2);
        server.event(Event::Signal(Signal::Terminate));
        assert_eq!(server.exited(0, application), nothing());
        assert!(server.logged("did as they should"));
        assert_eq!(server.exited(1, 0), ["exit 3"]);
        // One that is replaced says nothing of those that serve on.
        let mut server = Server::running(1);
        server.event(Event::Draining(WorkerId(0)));
        assert_eq!(server.exited(0, application), nothing());
        assert_eq!(server.wait(BACKOFF_FIRST), ["spawn 1 in 0"]);
        server.ready(1);
        server.event(Event::Signal(Signal::Terminate));
        assert_eq!(server.exited(1, 0), ["exit 0"]);
    }

    #[test]
    fn a_worker_whose_threads_are_stuck_serves_until_its_successor_does() {
        let mut server = Server::running(2);
        assert_eq!(server.stuck(1), nothing());
        assert_eq!(server.wait(BACKOFF_FIRST), ["spawn 2 in 1"]);
        assert!(server.logged("stuck in `shop`"));
        let status = server.supervisor.status();
        assert_eq!((status.serving, status.stuck), (2, 1));
        assert!(status.ready, "the other worker serves");
        assert!(!status.reloading, "nobody asked for it");
        assert_eq!(server.stuck(1), nothing(), "it is being replaced");
        assert_eq!(server.ready(2), ["drain 1"]);
        assert_eq!(server.supervisor.status().stuck, 0);
        assert_eq!(server.exited(1, 0), nothing());
        assert!(!server.logged("reload"));
        assert_eq!(server.wait_beating(BACKOFF_LAST, &[0, 2]), nothing());
    }

    #[test]
    fn a_server_is_not_ready_when_all_of_its_workers_are_stuck() {
        let mut server = Server::running(1);
        server.stuck(0);
        assert!(!server.supervisor.status().ready);
        server.wait(BACKOFF_FIRST);
        server.ready(1);
        assert!(server.supervisor.status().ready);
    }

    #[test]
    fn workers_that_are_stuck_one_after_the_other_are_replaced_ever_more_slowly() {
        let mut server = Server::running(1);
        for (worker, millis) in [(0, 200), (1, 400), (2, 800)] {
            let pause = Duration::from_millis(millis);
            assert_eq!(server.stuck(worker), nothing());
            assert_eq!(server.wait(pause.mul_f32(0.99)), nothing());
            assert_eq!(server.wait(pause).len(), 1, "after {pause:?}");
            server.ready(worker + 1);
            server.exited(worker, 0);
        }
        server.wait_beating(STABLE_AFTER, &[3]);
        server.stuck(3);
        assert_eq!(server.wait(BACKOFF_FIRST), ["spawn 4 in 0"]);
    }

    #[test]
    fn workers_that_are_stuck_are_replaced_one_by_one() {
        let mut server = Server::running(2);
        server.stuck(1);
        server.stuck(0);
        assert_eq!(server.wait(BACKOFF_FIRST), ["spawn 2 in 1"]);
        assert_eq!(server.ready(2), ["drain 1"]);
        assert_eq!(server.exited(1, 0), ["spawn 3 in 0"]);
        assert_eq!(server.ready(3), ["drain 0"]);
    }

    #[test]
    fn a_pause_that_is_over_before_its_turn_keeps_nobody_awake() {
        let mut server = Server::running(2);
        server.stuck(1);
        server.wait(BACKOFF_FIRST);
        server.stuck(0);
        server.now += BACKOFF_FIRST;
        assert_eq!(server.event(Event::Tick), nothing());
        assert!(server.supervisor.wake_at() > server.now);
    }

    #[test]
    fn a_stuck_worker_gets_another_successor_when_one_does_not_start() {
        let mut server = Server::running(1);
        server.stuck(0);
        server.wait(BACKOFF_FIRST);
        server.failed(1, FailureKind::Application, "the database is away");
        assert_eq!(server.exited(1, 3), nothing());
        assert!(server.logged("the database is away"));
        assert!(!server.logged("reload"));
        assert_eq!(server.wait(BACKOFF_FIRST), ["spawn 2 in 0"]);
        assert_eq!(server.ready(2), ["drain 0"]);
    }

    #[test]
    fn a_reload_that_fails_does_not_forget_a_stuck_worker() {
        let mut server = Server::running(2);
        assert_eq!(server.signal(Signal::Hangup), ["spawn 2 in 0"]);
        assert_eq!(server.stuck(1), nothing());
        assert_eq!(server.wait(BACKOFF_FIRST), nothing(), "its turn comes");
        server.failed(2, FailureKind::Application, "syntax error in shop.py");
        assert_eq!(server.exited(2, 3), ["restore", "spawn 3 in 1"]);
        assert!(server.logged("reload given up"));
        assert_eq!(server.ready(3), ["drain 1"]);
        server.exited(1, 0);
        assert_eq!(server.wait_beating(BACKOFF_LAST, &[0, 3]), nothing());
    }

    #[test]
    fn a_reload_replaces_a_stuck_worker_at_once_and_only_once() {
        let mut server = Server::running(1);
        assert_eq!(server.stuck(0), nothing());
        assert_eq!(server.signal(Signal::Hangup), ["spawn 1 in 0"]);
        assert_eq!(server.ready(1), ["drain 0"]);
        assert_eq!(server.exited(0, 0), nothing());
        assert!(server.logged("reload done"));
        assert_eq!(server.wait_beating(BACKOFF_LAST, &[1]), nothing());
    }

    #[test]
    fn a_stuck_worker_that_dies_is_replaced_by_the_successor_that_starts() {
        let mut server = Server::running(1);
        server.stuck(0);
        assert_eq!(server.wait(BACKOFF_FIRST), ["spawn 1 in 0"]);
        assert_eq!(server.killed(0), nothing());
        assert_eq!(server.wait(BACKOFF_LAST), nothing());
        assert_eq!(server.ready(1), nothing());
    }

    #[test]
    fn a_stop_forgets_that_a_worker_is_stuck() {
        let mut server = Server::running(1);
        server.stuck(0);
        assert_eq!(server.signal(Signal::Terminate), ["drain 0"]);
        assert_eq!(server.exited(0, 0), ["exit 0"]);
    }

    /// xorshift64*: the same events for the same seed.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
        }
    }

    /// Any event about any worker that there was, also such as cannot be.
    fn any_event(random: &mut Random, workers: u64) -> Event {
        let worker = WorkerId(random.below(workers.max(1)));
        match random.below(26) {
            0..6 => Event::Ready(worker),
            6..8 => Event::Failed {
                worker,
                kind: FailureKind::Application,
                failure: Failure::new("why"),
            },
            8..11 => Event::Heard(worker),
            11 => Event::Draining(worker),
            12 => Event::ChannelClosed(worker),
            13 => Event::SpawnFailed {
                worker,
                problem: "why".into(),
            },
            14..19 => Event::Exited {
                worker,
                status: ExitStatus::from_raw(0),
            },
            19..21 => Event::Signal(Signal::Hangup),
            21..23 => Event::Stuck {
                worker,
                app: "shop".into(),
            },
            _ => Event::Tick,
        }
    }

    fn check(supervisor: &Supervisor, actions: &[Action], seed: u64) {
        let stopping = !matches!(supervisor.phase, Phase::Starting | Phase::Running);
        for (slot, place) in supervisor.slots.iter().enumerate() {
            let count = |matches: fn(&Worker) -> bool| {
                let here = supervisor.workers.values().filter(|w| w.slot == slot);
                here.filter(|worker| matches(worker)).count()
            };
            let starting = count(|worker| matches!(worker.state, State::Starting { .. }));
            assert!(
                starting <= 1,
                "seed {seed}: {starting} replacements in slot {slot}"
            );
            assert!(
                count(Worker::serves) <= 1,
                "seed {seed}: two workers serve slot {slot}"
            );
            assert!(
                stopping || place.vacant_until.is_some() || count(Worker::occupies) > 0,
                "seed {seed}: slot {slot} is forgotten"
            );
        }
        let spawns = actions.iter().any(|a| matches!(a, Action::Spawn { .. }));
        assert!(!(spawns && stopping), "seed {seed}: spawned during a stop");
        assert!(supervisor.wake_at() >= supervisor.now);
    }

    #[test]
    fn whatever_happens_slots_have_one_replacement_at_most_and_a_stop_ends() {
        for seed in 1..500 {
            let mut random = Random(seed);
            let mut supervisor = Supervisor::new(Plan {
                workers: usize::try_from(1 + random.below(4)).unwrap(),
                startup: STARTUP,
                graceful: GRACEFUL,
            });
            let mut now = Duration::ZERO;
            let mut ended = false;
            let actions = supervisor.step(Event::Start, now);
            check(&supervisor, &actions, seed);
            for _ in 0..random.below(400) {
                now += Duration::from_millis(random.below(3000));
                let event = any_event(&mut random, supervisor.next_worker);
                let actions = supervisor.step(event, now);
                check(&supervisor, &actions, seed);
                assert!(
                    !ended || actions.is_empty(),
                    "seed {seed}: acted after the end"
                );
                ended |= matches!(actions.last(), Some(Action::Exit { .. }));
            }
            // Nobody exits, not even when killed.
            let limit = now + GRACEFUL + DRAIN_MARGIN + 2 * EXIT_LIMIT + TICK;
            let mut actions = supervisor.step(Event::Signal(Signal::Terminate), now);
            while !ended {
                assert!(now < limit, "seed {seed}: the stop did not end");
                check(&supervisor, &actions, seed);
                ended = matches!(actions.last(), Some(Action::Exit { .. }));
                now = supervisor.wake_at();
                actions = supervisor.step(Event::Tick, now);
            }
        }
    }
}
