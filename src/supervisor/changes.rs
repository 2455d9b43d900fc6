//! Live changes: made on all workers or on none, one at a time.
//!
//! Each worker that serves is asked whether it can take on the next version. When all can, the version is
//! kept for the next start, and then they are told that it counts; when one cannot, dies or says nothing,
//! the others forget it. Workers that drain have no say, but follow: they still answer on connections that
//! they have. Workers that come later begin with what counts when they are started, and are brought up to
//! date when that has changed until they are ready.
//!
//! Nobody can stand in the way of a rollback: clients shall not stay with a broken application because a
//! worker is stuck, or a disk is full or does not answer. It is the next that is done whatever else was asked
//! for, counts before it is kept, and a change that waits for the disk is given up for it.
//!
//! As in [`Supervisor`](super::Supervisor), what is decided is a function of what has happened.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::WorkerId;
use super::channel::ToWorker;
use crate::config::RuleConfig;
use crate::migrate::live::{Author, Change, ChangeError, Changed, Edit, Overlay, Record};

/// A worker that does not answer within this stands for a no. It answers on a thread that no application
/// can hold up.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// What a disk may take to keep a version.
const KEEP_LIMIT: Duration = Duration::from_secs(10);

/// Names one order for the life of the supervisor.
pub(super) type OrderId = u64;

/// A change that somebody wants.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    pub(super) id: OrderId,
    pub(super) change: Change,
    pub(super) author: Author,
    /// Seconds since 1970.
    pub(super) at: u64,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    Ordered(Order),
    /// The worker was started with what counts now.
    Spawned(WorkerId),
    Ready(WorkerId),
    /// The worker drains.
    Leaving(WorkerId),
    /// The worker can neither be told nor say anything any more.
    Gone(WorkerId),
    Prepared {
        worker: WorkerId,
        version: u64,
        problem: Option<String>,
    },
    Committed {
        worker: WorkerId,
        version: u64,
    },
    /// What [`Action::Keep`] asked for is done, or why not.
    Kept {
        version: u64,
        problem: Option<String>,
    },
    /// Nothing but time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    Tell(WorkerId, ToWorker),
    /// Write down a version, and what was changed by whom; [`Event::Kept`] answers.
    Keep {
        overlay: Overlay,
        record: Record,
    },
    /// A version that was to be kept does not count, and may be written or not: write down what does.
    Restore {
        overlay: Overlay,
        refused: u64,
    },
    /// The change counts, or not; nothing more comes of this order.
    Answer {
        order: Order,
        outcome: Result<Changed, ChangeError>,
    },
    Warn {
        worker: Option<WorkerId>,
        message: String,
    },
}

/// The decisions about live changes.
#[derive(Debug)]
pub(super) struct Changes {
    overlay: Overlay,
    rules: Vec<RuleConfig>,
    members: BTreeMap<WorkerId, Member>,
    queue: VecDeque<Order>,
    phase: Phase,
    /// Rollbacks that count and are not known to be on the disk, by version: of which rule, and until when
    /// nothing is said of it.
    unkept: BTreeMap<u64, (String, Duration)>,
    /// The last version that was tried: no number is used twice, so that a late answer is not taken for
    /// one to another question.
    tried: u64,
    now: Duration,
    actions: Vec<Action>,
}

#[derive(Debug)]
struct Member {
    stage: Stage,
    /// What counts there.
    version: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Starting,
    Serving,
    Leaving,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Preparing {
        attempt: Attempt,
        waiting: BTreeSet<WorkerId>,
        until: Duration,
    },
    Keeping {
        attempt: Attempt,
        until: Duration,
    },
    Committing {
        order: Order,
        changed: Changed,
        waiting: BTreeSet<WorkerId>,
        until: Duration,
    },
}

/// A version that does not count yet.
#[derive(Debug)]
struct Attempt {
    order: Order,
    next: Overlay,
    record: Record,
    /// Those that hold it.
    told: BTreeSet<WorkerId>,
}

impl Order {
    /// Whether nobody can stand in its way.
    fn is_rollback(&self) -> bool {
        matches!(self.change.edit, Edit::RollBack { .. })
    }
}

impl Changes {
    pub(super) fn new(overlay: Overlay, rules: Vec<RuleConfig>) -> Self {
        Self {
            tried: overlay.version,
            overlay,
            rules,
            members: BTreeMap::new(),
            queue: VecDeque::new(),
            phase: Phase::Idle,
            unkept: BTreeMap::new(),
            now: Duration::ZERO,
            actions: Vec::new(),
        }
    }

    /// What counts now, for workers that are started.
    pub(super) fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    pub(super) fn rules(&self) -> &[RuleConfig] {
        &self.rules
    }

    /// The configuration was read again.
    pub(super) fn set_rules(&mut self, rules: Vec<RuleConfig>) {
        self.rules = rules;
    }

    /// What a change would come to now.
    pub(super) fn preview(&self, order: &Order) -> Result<Changed, ChangeError> {
        let next = self.next(order)?;
        Ok(Changed {
            workers: self.serving().len(),
            record: self.record(order, &next),
        })
    }

    /// Takes one event at `now`, a time that never goes back, and decides what is to be done.
    #[must_use]
    pub(super) fn step(&mut self, event: Event, now: Duration) -> Vec<Action> {
        self.now = self.now.max(now);
        match event {
            Event::Ordered(order) => self.ordered(order),
            Event::Spawned(worker) => {
                let member = Member {
                    stage: Stage::Starting,
                    version: self.overlay.version,
                };
                self.members.insert(worker, member);
            }
            Event::Ready(worker) => self.ready(worker),
            Event::Leaving(worker) => {
                if let Some(member) = self.members.get_mut(&worker) {
                    member.stage = Stage::Leaving;
                }
                self.has_no_say(worker);
            }
            Event::Gone(worker) => self.gone(worker),
            Event::Prepared {
                worker,
                version,
                problem,
            } => self.prepared(worker, version, problem),
            Event::Committed { worker, version } => self.committed(worker, version),
            Event::Kept { version, problem } => self.kept(version, problem),
            Event::Tick => {}
        }
        self.enforce_limits();
        self.advance();
        std::mem::take(&mut self.actions)
    }

    /// When the next [`Event::Tick`] is due.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        let phase = match self.phase {
            Phase::Idle => None,
            Phase::Preparing { until, .. }
            | Phase::Keeping { until, .. }
            | Phase::Committing { until, .. } => Some(until),
        };
        let unkept = self.unkept.values().map(|(_, until)| *until);
        unkept.chain(phase).min()
    }

    fn ordered(&mut self, order: Order) {
        // What is wrong stays wrong until it has been put right, and is said anew each time.
        let again = order.author == Author::Automatic
            && self.pending().any(|pending| {
                pending.author == order.author && pending.change.rule == order.change.rule
            });
        if again {
            return;
        }
        if !order.is_rollback() {
            self.queue.push_back(order);
            return;
        }
        let rollbacks = self.queue.iter().take_while(|order| order.is_rollback());
        self.queue.insert(rollbacks.count(), order);
        if matches!(self.phase, Phase::Keeping { .. }) {
            let problem = "a rollback came before it was written";
            self.not_kept(problem.into());
        }
    }

    fn pending(&self) -> impl Iterator<Item = &Order> {
        let current = match &self.phase {
            Phase::Idle => None,
            Phase::Preparing { attempt, .. } | Phase::Keeping { attempt, .. } => {
                Some(&attempt.order)
            }
            Phase::Committing { order, .. } => Some(order),
        };
        current.into_iter().chain(&self.queue)
    }

    fn serving(&self) -> BTreeSet<WorkerId> {
        let serving = |(_, member): &(&WorkerId, &Member)| member.stage == Stage::Serving;
        let members = self.members.iter().filter(serving);
        members.map(|(id, _)| *id).collect()
    }

    fn ready(&mut self, worker: WorkerId) {
        let Some(member) = self.members.get_mut(&worker) else {
            return;
        };
        if member.stage != Stage::Starting {
            return;
        }
        member.stage = Stage::Serving;
        match &mut self.phase {
            Phase::Preparing {
                attempt, waiting, ..
            } => {
                attempt.told.insert(worker);
                waiting.insert(worker);
                let prepare = ToWorker::Prepare(attempt.next.clone());
                self.actions.push(Action::Tell(worker, prepare));
            }
            // All others have said yes already.
            Phase::Keeping { attempt, .. } => {
                attempt.told.insert(worker);
                let prepare = ToWorker::Prepare(attempt.next.clone());
                self.actions.push(Action::Tell(worker, prepare));
            }
            Phase::Committing { waiting, .. } if member.version != self.overlay.version => {
                waiting.insert(worker);
                self.bring_up_to_date(worker);
            }
            Phase::Idle | Phase::Committing { .. } => self.bring_up_to_date(worker),
        }
    }

    fn bring_up_to_date(&mut self, worker: WorkerId) {
        let version = self.overlay.version;
        if let Some(member) = self.members.get_mut(&worker)
            && member.version != version
        {
            member.version = version;
            let prepare = ToWorker::Prepare(self.overlay.clone());
            self.actions.push(Action::Tell(worker, prepare));
            let commit = ToWorker::Commit { version };
            self.actions.push(Action::Tell(worker, commit));
        }
    }

    /// Nobody waits for this worker any more.
    fn has_no_say(&mut self, worker: WorkerId) {
        match &mut self.phase {
            Phase::Preparing { waiting, .. } | Phase::Committing { waiting, .. } => {
                waiting.remove(&worker);
            }
            Phase::Idle | Phase::Keeping { .. } => {}
        }
    }

    fn gone(&mut self, worker: WorkerId) {
        let member = self.members.remove(&worker);
        if let Phase::Preparing { attempt, .. } = &mut self.phase
            && attempt.told.remove(&worker)
            && member.is_some_and(|member| member.stage == Stage::Serving)
            && !attempt.order.is_rollback()
        {
            self.abort("it died");
        }
        self.has_no_say(worker);
    }

    fn prepared(&mut self, worker: WorkerId, version: u64, problem: Option<String>) {
        let mut has_say = false;
        if let Phase::Preparing { attempt, .. } | Phase::Keeping { attempt, .. } = &mut self.phase
            && attempt.next.version == version
            && problem.is_some()
        {
            attempt.told.remove(&worker);
        }
        if let Phase::Preparing {
            attempt, waiting, ..
        } = &mut self.phase
            && attempt.next.version == version
        {
            has_say = waiting.remove(&worker) && !attempt.order.is_rollback();
        }
        match problem {
            Some(problem) if has_say => self.abort(&problem),
            Some(problem) => {
                // It was to follow, or has come late: the next worker in its place will know better.
                self.actions.push(Action::Warn {
                    worker: Some(worker),
                    message: format!("a worker does not take on version {version}: {problem}"),
                });
            }
            None => {}
        }
    }

    fn committed(&mut self, worker: WorkerId, version: u64) {
        if let Phase::Committing {
            waiting, changed, ..
        } = &mut self.phase
            && changed.record.version == version
            && waiting.remove(&worker)
        {
            changed.workers += 1;
        }
    }

    fn kept(&mut self, version: u64, problem: Option<String>) {
        if let Some((rule, _)) = self.unkept.remove(&version) {
            if let Some(problem) = problem {
                self.forgotten_by_a_restart(&rule, &problem);
            }
            return;
        }
        let Phase::Keeping { attempt, .. } = &self.phase else {
            return;
        };
        if attempt.next.version != version {
            return;
        }
        match problem {
            None => self.commit(),
            Some(problem) => self.not_kept(problem),
        }
    }

    /// The version may be written all the same, now or when the disk answers again, and shall not count at the
    /// next start when it does not count now.
    fn not_kept(&mut self, problem: String) {
        if let Phase::Keeping { attempt, .. } = &self.phase {
            let restore = Action::Restore {
                overlay: self.overlay.clone(),
                refused: attempt.next.version,
            };
            self.actions.push(restore);
            self.give_up(ChangeError::NotKept(problem));
        }
    }

    fn forgotten_by_a_restart(&mut self, rule: &str, problem: &str) {
        self.actions.push(Action::Warn {
            worker: None,
            message: format!(
                "the rollback of rule `{rule}` counts but is not kept, a restart may forget it: {problem}"
            ),
        });
    }

    fn enforce_limits(&mut self) {
        while let Some((version, (rule, until))) = self.unkept.pop_first() {
            if until > self.now {
                // Those after it have been begun later.
                self.unkept.insert(version, (rule, until));
                break;
            }
            self.forgotten_by_a_restart(&rule, &not_written());
        }
        match &mut self.phase {
            Phase::Preparing {
                attempt,
                waiting,
                until,
            } if *until <= self.now && !waiting.is_empty() => {
                if attempt.order.is_rollback() {
                    waiting.clear();
                } else {
                    let limit = ANSWER_LIMIT.as_secs();
                    self.abort(&format!("it did not answer within {limit} s"));
                }
            }
            Phase::Keeping { until, .. } if *until <= self.now => {
                self.not_kept(not_written());
            }
            Phase::Committing { waiting, until, .. } if *until <= self.now => {
                let silent = waiting.len();
                waiting.clear();
                if silent > 0 {
                    self.actions.push(Action::Warn {
                        worker: None,
                        message: format!(
                            "{silent} of the workers have not said that they have taken on a change"
                        ),
                    });
                }
            }
            _ => {}
        }
    }

    /// Goes on as far as nobody has to be waited for.
    fn advance(&mut self) {
        loop {
            match &mut self.phase {
                Phase::Idle => {
                    let Some(order) = self.queue.pop_front() else {
                        return;
                    };
                    self.begin(order);
                }
                Phase::Preparing { waiting, .. } if waiting.is_empty() => {
                    let Phase::Preparing { attempt, .. } =
                        std::mem::replace(&mut self.phase, Phase::Idle)
                    else {
                        return;
                    };
                    let keep = Action::Keep {
                        overlay: attempt.next.clone(),
                        record: attempt.record.clone(),
                    };
                    let until = self.now + KEEP_LIMIT;
                    let rollback = attempt.order.is_rollback();
                    if rollback {
                        let rule = attempt.order.change.rule.clone();
                        self.unkept.insert(attempt.next.version, (rule, until));
                    }
                    self.phase = Phase::Keeping { attempt, until };
                    if rollback {
                        self.commit();
                    }
                    self.actions.push(keep);
                }
                Phase::Committing { waiting, .. } if waiting.is_empty() => {
                    let Phase::Committing { order, changed, .. } =
                        std::mem::replace(&mut self.phase, Phase::Idle)
                    else {
                        return;
                    };
                    let outcome = Ok(changed);
                    self.actions.push(Action::Answer { order, outcome });
                }
                Phase::Preparing { .. } | Phase::Keeping { .. } | Phase::Committing { .. } => {
                    return;
                }
            }
        }
    }

    fn begin(&mut self, order: Order) {
        let next = match self.next(&order) {
            Ok(next) => next,
            Err(error) => {
                let outcome = Err(error);
                self.actions.push(Action::Answer { order, outcome });
                return;
            }
        };
        self.tried = next.version;
        let record = self.record(&order, &next);
        let told = self.serving();
        for worker in &told {
            let prepare = ToWorker::Prepare(next.clone());
            self.actions.push(Action::Tell(*worker, prepare));
        }
        self.phase = Phase::Preparing {
            waiting: told.clone(),
            attempt: Attempt {
                order,
                next,
                record,
                told,
            },
            until: self.now + ANSWER_LIMIT,
        };
    }

    fn next(&self, order: &Order) -> Result<Overlay, ChangeError> {
        let next = self.overlay.apply(&order.change, &self.rules, order.at)?;
        Ok(Overlay {
            version: self.tried + 1,
            ..next
        })
    }

    fn record(&self, order: &Order, next: &Overlay) -> Record {
        let change = &order.change;
        let rule = self.rules.iter().find(|rule| rule.name == change.rule);
        Record {
            at: order.at,
            version: next.version,
            author: order.author,
            rule: change.rule.clone(),
            was: rule.map(|rule| self.overlay.state(rule)),
            is: rule.map(|rule| next.state(rule)),
            reason: match &change.edit {
                Edit::RollBack { reason } => Some(reason.clone()),
                Edit::Set { .. } | Edit::Reset => None,
            },
        }
    }

    /// One cannot, so nobody does.
    fn abort(&mut self, problem: &str) {
        self.give_up(ChangeError::Refused(problem.to_owned()));
    }

    fn give_up(&mut self, error: ChangeError) {
        let (Phase::Preparing { attempt, .. } | Phase::Keeping { attempt, .. }) =
            std::mem::replace(&mut self.phase, Phase::Idle)
        else {
            return;
        };
        let version = attempt.next.version;
        for worker in &attempt.told {
            let abort = ToWorker::Abort { version };
            self.actions.push(Action::Tell(*worker, abort));
        }
        for worker in attempt.told {
            // One that has become ready meanwhile may be behind.
            self.bring_up_to_date(worker);
        }
        self.actions.push(Action::Answer {
            order: attempt.order,
            outcome: Err(error),
        });
    }

    fn commit(&mut self) {
        let Phase::Keeping { attempt, .. } = std::mem::replace(&mut self.phase, Phase::Idle) else {
            return;
        };
        let version = attempt.next.version;
        self.overlay = attempt.next;
        for worker in &attempt.told {
            if let Some(member) = self.members.get_mut(worker) {
                member.version = version;
                let commit = ToWorker::Commit { version };
                self.actions.push(Action::Tell(*worker, commit));
            }
        }
        let leaving = |(_, member): &(&WorkerId, &Member)| member.stage == Stage::Leaving;
        let followers = self.members.iter().filter(leaving);
        let followers: Vec<_> = followers.map(|(id, _)| *id).collect();
        for worker in followers {
            self.bring_up_to_date(worker);
        }
        let told = &attempt.told;
        let waiting = self.serving().intersection(told).copied().collect();
        self.phase = Phase::Committing {
            order: attempt.order,
            changed: Changed {
                workers: 0,
                record: attempt.record,
            },
            waiting,
            until: self.now + ANSWER_LIMIT,
        };
    }
}

fn not_written() -> String {
    format!("nothing was written within {} s", KEEP_LIMIT.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RuleMatch;
    use crate::config::rule::{CanaryConfig, Percent, ShadowConfig, Sticky};

    const A: WorkerId = WorkerId(1);
    const B: WorkerId = WorkerId(2);
    const C: WorkerId = WorkerId(3);

    fn rules() -> Vec<RuleConfig> {
        let canary = CanaryConfig {
            percent: Percent::ONE,
            sticky: Sticky::Client,
            testers: Vec::new(),
            rollback: None,
        };
        vec![RuleConfig {
            name: "items".into(),
            canary: Some(canary),
            shadow: Some(ShadowConfig::new(Percent::NONE)),
            ..RuleConfig::new("new", RuleMatch::owned(), "twinspan.toml:1")
        }]
    }

    fn order(id: OrderId, edit: Edit) -> Event {
        let change = Change {
            rule: "items".into(),
            edit,
        };
        Event::Ordered(Order {
            id,
            change,
            author: Author::Operator { uid: None },
            at: 100,
        })
    }

    fn set(id: OrderId, canary: &str) -> Event {
        let edit = Edit::Set {
            canary: Some(canary.parse().unwrap()),
            shadow: None,
        };
        order(id, edit)
    }

    fn roll_back(id: OrderId) -> Event {
        let reason = "too slow".into();
        order(id, Edit::RollBack { reason })
    }

    fn yes(worker: WorkerId, version: u64) -> Event {
        Event::Prepared {
            worker,
            version,
            problem: None,
        }
    }

    fn no(worker: WorkerId, version: u64) -> Event {
        Event::Prepared {
            worker,
            version,
            problem: Some("not here".into()),
        }
    }

    fn done(worker: WorkerId, version: u64) -> Event {
        Event::Committed { worker, version }
    }

    fn kept(version: u64) -> Event {
        Event::Kept {
            version,
            problem: None,
        }
    }

    fn full(version: u64) -> Event {
        Event::Kept {
            version,
            problem: Some("no space left".into()),
        }
    }

    /// What was done, in words that fit on a line.
    fn words(action: Action) -> String {
        match action {
            Action::Tell(worker, ToWorker::Prepare(overlay)) => {
                format!("{worker}:prepare {}", overlay.version)
            }
            Action::Tell(worker, ToWorker::Commit { version }) => {
                format!("{worker}:commit {version}")
            }
            Action::Tell(worker, ToWorker::Abort { version }) => {
                format!("{worker}:abort {version}")
            }
            Action::Tell(worker, other) => format!("{worker}:{other:?}"),
            Action::Keep { overlay, record } => {
                assert_eq!(overlay.version, record.version);
                format!("keep {}", overlay.version)
            }
            Action::Restore { overlay, refused } => {
                format!("restore {} for {refused}", overlay.version)
            }
            Action::Answer { order, outcome } => match outcome {
                Ok(changed) => format!(
                    "#{}: {} on {}",
                    order.id, changed.record.version, changed.workers
                ),
                Err(error) => format!("#{}: {error}", order.id),
            },
            Action::Warn { message, .. } => format!("warn: {message}"),
        }
    }

    /// At which second, what happens, what is done.
    type Step<'a> = (u64, Event, &'a [&'a str]);

    /// Two workers that serve, and what happens second by second.
    fn play(steps: &[Step<'_>]) -> Changes {
        let mut changes = Changes::new(Overlay::default(), rules());
        for event in [
            Event::Spawned(A),
            Event::Spawned(B),
            Event::Ready(A),
            Event::Ready(B),
        ] {
            assert_eq!(changes.step(event, Duration::ZERO), []);
        }
        for (number, (second, event, expected)) in steps.iter().enumerate() {
            let actions = changes.step(event.clone(), Duration::from_secs(*second));
            let done: Vec<_> = actions.into_iter().map(words).collect();
            assert_eq!(done, *expected, "step {number}: {event:?}");
        }
        changes
    }

    fn canary(changes: &Changes) -> String {
        changes.overlay().shares(&rules()[0]).canary.to_string()
    }

    #[test]
    fn a_change_counts_on_all_workers_when_all_can_take_it_on() {
        let changes = play(&[
            (0, set(1, "25"), &["1:prepare 1", "2:prepare 1"]),
            (0, yes(A, 1), &[]),
            (0, yes(B, 1), &["keep 1"]),
            (0, kept(1), &["1:commit 1", "2:commit 1"]),
            (0, done(A, 1), &[]),
            (0, done(B, 1), &["#1: 1 on 2"]),
        ]);
        assert_eq!(canary(&changes), "25");
        assert_eq!(changes.wake_at(), None);
    }

    #[test]
    fn a_change_counts_nowhere_when_one_worker_cannot_take_it_on() {
        let refused = "#1: a worker cannot take on the change: not here";
        let died = "#1: a worker cannot take on the change: it died";
        let silent = "#1: a worker cannot take on the change: it did not answer within 2 s";
        let not_kept = "#1: the change cannot be kept: no space left";
        let slow = "#1: the change cannot be kept: nothing was written within 10 s";
        let restore = "restore 0 for 1";
        let gone = Event::Gone(B);
        for end in [
            &[(0, no(B, 1), &["1:abort 1", refused][..])][..],
            &[(0, gone.clone(), &["1:abort 1", died])],
            // Also when it had said yes.
            &[(0, yes(B, 1), &[]), (0, gone, &["1:abort 1", died])],
            &[
                (1, Event::Tick, &[]),
                (2, Event::Tick, &["1:abort 1", "2:abort 1", silent]),
            ],
            &[
                (0, yes(A, 1), &[]),
                (0, yes(B, 1), &["keep 1"]),
                (0, full(1), &[restore, "1:abort 1", "2:abort 1", not_kept]),
            ],
            &[
                (0, yes(A, 1), &[]),
                (0, yes(B, 1), &["keep 1"]),
                (9, Event::Tick, &[]),
                (10, Event::Tick, &[restore, "1:abort 1", "2:abort 1", slow]),
                (11, kept(1), &[]),
            ],
        ] {
            let begin = (0, set(1, "25"), &["1:prepare 1", "2:prepare 1"][..]);
            let steps: Vec<_> = [begin].into_iter().chain(end.iter().cloned()).collect();
            let changes = play(&steps);
            assert_eq!(
                (canary(&changes), changes.overlay().version),
                ("1".into(), 0)
            );
        }
    }

    #[test]
    fn one_change_follows_the_other_and_no_number_is_used_twice() {
        let changes = play(&[
            (0, set(1, "25"), &["1:prepare 1", "2:prepare 1"]),
            (0, set(2, "50"), &[]),
            (0, set(3, "75"), &[]),
            (
                0,
                no(A, 1),
                &[
                    "2:abort 1",
                    "#1: a worker cannot take on the change: not here",
                    "1:prepare 2",
                    "2:prepare 2",
                ],
            ),
            // An answer to what was asked before.
            (0, yes(B, 1), &[]),
            (0, yes(A, 2), &[]),
            (0, yes(B, 2), &["keep 2"]),
            (0, kept(1), &[]),
            (0, kept(2), &["1:commit 2", "2:commit 2"]),
            (0, done(B, 2), &[]),
            (0, done(A, 2), &["#2: 2 on 2", "1:prepare 3", "2:prepare 3"]),
        ]);
        assert_eq!(canary(&changes), "50");
    }

    #[test]
    fn a_change_that_means_nothing_asks_nobody() {
        let nothing = Edit::Set {
            canary: None,
            shadow: None,
        };
        let text =
            "#1: nothing is said about rule `items`: write `canary=PERCENT` or `shadow=PERCENT`";
        play(&[(0, order(1, nothing), &[text])]);
    }

    #[test]
    fn a_rollback_passes_workers_that_are_silent_dead_or_unwilling_and_a_full_disk() {
        let prepare: &[&str] = &["1:prepare 1", "2:prepare 1"];
        let unkept = "warn: the rollback of rule `items` counts but is not kept, a restart may forget it: no space left";
        let slow = "warn: the rollback of rule `items` counts but is not kept, a restart may forget it: nothing was \
                    written within 10 s";
        let unwilling = "warn: a worker does not take on version 1: not here";
        let lost = "warn: 1 of the workers have not said that they have taken on a change";
        let all: &[&str] = &["1:commit 1", "2:commit 1", "keep 1"];
        for steps in [
            &[
                (0, roll_back(1), prepare),
                (0, yes(A, 1), &[]),
                (2, Event::Tick, all),
                (2, full(1), &[unkept]),
                (2, done(A, 1), &[]),
                (4, Event::Tick, &[lost, "#1: 1 on 1"]),
            ][..],
            &[
                (0, roll_back(1), prepare),
                (0, yes(A, 1), &[]),
                (0, yes(B, 1), all),
                (0, done(A, 1), &[]),
                (0, done(B, 1), &["#1: 1 on 2"]),
                (9, Event::Tick, &[]),
                (10, Event::Tick, &[slow]),
                (11, kept(1), &[]),
            ],
            &[
                (0, roll_back(1), prepare),
                (0, Event::Gone(B), &[]),
                (0, yes(A, 1), &["1:commit 1", "keep 1"]),
                (0, kept(1), &[]),
                (0, done(A, 1), &["#1: 1 on 1"]),
            ],
            &[
                (0, roll_back(1), prepare),
                (0, no(B, 1), &[unwilling]),
                (0, yes(A, 1), &["1:commit 1", "keep 1"]),
                (0, kept(1), &[]),
                (0, done(A, 1), &["#1: 1 on 1"]),
            ],
        ] {
            let changes = play(steps);
            assert_eq!(canary(&changes), "0");
            assert_eq!(changes.wake_at(), None);
        }
    }

    #[test]
    fn a_rollback_waits_for_no_change_that_waits_for_the_disk_and_for_none_that_is_only_wanted() {
        let overtaken = "#1: the change cannot be kept: a rollback came before it was written";
        let latched = "#2: rule `items` was rolled back (too slow): reset it first";
        let changes = play(&[
            (0, set(1, "25"), &["1:prepare 1", "2:prepare 1"]),
            (0, yes(A, 1), &[]),
            (0, yes(B, 1), &["keep 1"]),
            (0, set(2, "50"), &[]),
            (
                1,
                roll_back(3),
                &[
                    "restore 0 for 1",
                    "1:abort 1",
                    "2:abort 1",
                    overtaken,
                    "1:prepare 2",
                    "2:prepare 2",
                ],
            ),
            (1, yes(A, 2), &[]),
            (1, yes(B, 2), &["1:commit 2", "2:commit 2", "keep 2"]),
            // The disk answers again.
            (1, kept(1), &[]),
            (1, kept(2), &[]),
            (1, done(A, 2), &[]),
            (1, done(B, 2), &["#3: 2 on 2", latched]),
        ]);
        assert_eq!(canary(&changes), "0");
    }

    #[test]
    fn what_the_server_wants_itself_is_asked_for_once() {
        let automatic = |id| {
            let Event::Ordered(order) = roll_back(id) else {
                unreachable!()
            };
            Event::Ordered(Order {
                author: Author::Automatic,
                ..order
            })
        };
        play(&[
            (0, automatic(1), &["1:prepare 1", "2:prepare 1"]),
            (1, automatic(2), &[]),
            (1, yes(A, 1), &[]),
            (1, yes(B, 1), &["1:commit 1", "2:commit 1", "keep 1"]),
            (1, kept(1), &[]),
            (1, done(A, 1), &[]),
            (1, done(B, 1), &["#1: 1 on 2"]),
        ]);
    }

    #[test]
    fn a_worker_that_becomes_ready_is_asked_too_or_brought_up_to_date() {
        // During the question.
        play(&[
            (0, Event::Spawned(C), &[]),
            (0, set(1, "25"), &["1:prepare 1", "2:prepare 1"]),
            (0, Event::Ready(C), &["3:prepare 1"]),
            (0, yes(A, 1), &[]),
            (0, yes(B, 1), &[]),
            (0, yes(C, 1), &["keep 1"]),
            (0, kept(1), &["1:commit 1", "2:commit 1", "3:commit 1"]),
        ]);
        // After it.
        play(&[
            (0, Event::Spawned(C), &[]),
            (0, set(1, "25"), &["1:prepare 1", "2:prepare 1"]),
            (0, yes(A, 1), &[]),
            (0, yes(B, 1), &["keep 1"]),
            (0, Event::Ready(C), &["3:prepare 1"]),
            (0, kept(1), &["1:commit 1", "2:commit 1", "3:commit 1"]),
            (0, yes(C, 1), &[]),
            (0, done(A, 1), &[]),
            (0, done(C, 1), &[]),
            (0, done(B, 1), &["#1: 1 on 3"]),
        ]);
        // While the others take it on, and later.
        for ready_before in [true, false] {
            let ready = (0, Event::Ready(C), &["3:prepare 1", "3:commit 1"][..]);
            let mut steps: Vec<Step<'_>> = vec![
                (0, Event::Spawned(C), &[][..]),
                (0, set(1, "25"), &["1:prepare 1", "2:prepare 1"]),
                (0, yes(A, 1), &[]),
                (0, yes(B, 1), &["keep 1"]),
                (0, kept(1), &["1:commit 1", "2:commit 1"]),
            ];
            let rest: [Step<'_>; 3] = if ready_before {
                let ends = (0, done(C, 1), &["#1: 1 on 3"][..]);
                steps.push(ready);
                [(0, done(A, 1), &[]), (0, done(B, 1), &[]), ends]
            } else {
                let ends = (0, done(B, 1), &["#1: 1 on 2"][..]);
                [(0, done(A, 1), &[]), ends, ready]
            };
            steps.extend(rest);
            play(&steps);
        }
        // With what counts when it is started, there is nothing to tell.
        play(&[
            (0, set(1, "25"), &["1:prepare 1", "2:prepare 1"]),
            (0, yes(A, 1), &[]),
            (0, yes(B, 1), &["keep 1"]),
            (0, kept(1), &["1:commit 1", "2:commit 1"]),
            (0, Event::Spawned(C), &[]),
            (0, Event::Ready(C), &[]),
            (0, done(A, 1), &[]),
            (0, done(B, 1), &["#1: 1 on 2"]),
        ]);
    }

    #[test]
    fn a_worker_that_was_asked_and_is_behind_is_brought_up_to_date_when_others_refuse() {
        play(&[
            (0, Event::Spawned(C), &[]),
            (0, set(1, "25"), &["1:prepare 1", "2:prepare 1"]),
            (0, yes(A, 1), &[]),
            (0, yes(B, 1), &["keep 1"]),
            (0, kept(1), &["1:commit 1", "2:commit 1"]),
            (0, done(A, 1), &[]),
            (0, done(B, 1), &["#1: 1 on 2"]),
            (0, set(2, "50"), &["1:prepare 2", "2:prepare 2"]),
            (0, Event::Ready(C), &["3:prepare 2"]),
            (
                0,
                no(A, 2),
                &[
                    "2:abort 2",
                    "3:abort 2",
                    "3:prepare 1",
                    "3:commit 1",
                    "#2: a worker cannot take on the change: not here",
                ],
            ),
        ]);
    }

    #[test]
    fn a_worker_that_drains_follows_but_has_no_say() {
        play(&[
            (0, Event::Leaving(B), &[]),
            (0, set(1, "25"), &["1:prepare 1"]),
            (0, yes(A, 1), &["keep 1"]),
            (0, kept(1), &["1:commit 1", "2:prepare 1", "2:commit 1"]),
            (
                0,
                no(B, 1),
                &["warn: a worker does not take on version 1: not here"],
            ),
            (0, done(A, 1), &["#1: 1 on 1"]),
        ]);
        // Also one that begins to drain when it has been asked.
        play(&[
            (0, set(1, "25"), &["1:prepare 1", "2:prepare 1"]),
            (0, yes(A, 1), &[]),
            (0, Event::Leaving(B), &["keep 1"]),
            (0, Event::Gone(B), &[]),
            (0, kept(1), &["1:commit 1"]),
            (0, done(A, 1), &["#1: 1 on 1"]),
        ]);
    }

    #[test]
    fn without_workers_a_change_waits_for_those_to_come() {
        let changes = play(&[
            (0, Event::Gone(A), &[]),
            (0, Event::Gone(B), &[]),
            (0, set(1, "25"), &["keep 1"]),
            (0, kept(1), &["#1: 1 on 0"]),
        ]);
        assert_eq!(canary(&changes), "25");
    }

    #[test]
    fn a_preview_tells_what_would_be_and_changes_nothing() {
        let mut changes = play(&[]);
        let Event::Ordered(order) = set(1, "25") else {
            unreachable!()
        };
        let preview = changes.preview(&order).unwrap();
        assert_eq!((preview.workers, preview.record.version), (2, 1));
        assert_eq!(
            preview.record.is.unwrap().canary,
            Some("25".parse().unwrap())
        );
        assert_eq!(canary(&changes), "1");
        assert_eq!(changes.step(Event::Tick, Duration::ZERO), []);
        let unknown = Order {
            change: Change {
                rule: "itmes".into(),
                edit: Edit::Reset,
            },
            ..order
        };
        changes.preview(&unknown).unwrap_err();
    }
}
