//! The bounded thread pool of one application: a queue, idle threads, and who is woken when.
//!
//! A thread that finishes takes the next job before anybody is woken for it, and a thread takes a job
//! only when it runs, which for Python means that it holds the GIL: no job waits in the hands of a
//! thread that waits itself. So one thread is enough while jobs compute. Whether they also wait for
//! something, and others should run meanwhile, is found out by [trial](Trial): now and then a second
//! thread is woken while the first runs. If it comes to run because the first one waits, more jobs wake
//! one from then on; if there was nothing for it to do, the next trial is put off. If several run and
//! get on without it, one of them is too many and sleeps. What a trial has not
//! found, the [watch](Pool::check) does. The pool knows neither Python nor how threads are made.
//!
//! A thread whose job takes too long can be [abandoned](Pool::abandon): the pool then may have another in
//! its place, but no more than it has of its own, because stuck threads hold memory and connections.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use twinspan::app::PoolLoad;

/// Jobs for the threads of one application.
pub(crate) struct Pool<J> {
    state: Mutex<State<J>>,
    threads: usize,
    queue: usize,
}

struct State<J> {
    jobs: VecDeque<J>,
    /// Threads that wait, the last to idle at the end.
    idle: Vec<Arc<Sleeper>>,
    /// Threads that exist.
    threads: usize,
    busy: usize,
    /// Busy threads that nobody waits for any more.
    abandoned: usize,
    /// A thread was woken and does not run yet: `taken` of that time.
    waking: Option<u64>,
    /// A thread is between two jobs.
    passing: bool,
    /// A trial has shown that one of several threads that run is not needed.
    crowded: bool,
    trial: Trial,
    /// Jobs that were taken, ever.
    taken: u64,
    /// `taken` when [`Pool::check`] last looked; `None` while nobody watches.
    watched: Option<u64>,
    closed: bool,
    /// Told when nothing runs and nothing waits.
    settled: Vec<oneshot::Sender<()>>,
    /// Told when no thread is left.
    empty: Vec<oneshot::Sender<()>>,
}

/// How often a thread is woken for a job although another runs.
#[derive(Debug, Clone, Copy)]
struct Trial {
    /// One of so many jobs.
    every: u32,
    /// Jobs until the next.
    left: u32,
}

impl Trial {
    /// A trial that fails costs a wake-up, several times what a small job does.
    const RAREST: u32 = 256;

    /// Whether it is time.
    fn is_due(&mut self) -> bool {
        self.left -= 1;
        if self.left == 0 {
            self.left = self.every;
            return true;
        }
        false
    }

    fn succeeded(&mut self) {
        self.set((self.every / 4).max(1));
    }

    fn failed(&mut self) {
        self.set((self.every * 2).min(Self::RAREST));
    }

    fn set(&mut self, every: u32) {
        *self = Self { every, left: every };
    }
}

impl Default for Trial {
    fn default() -> Self {
        Self { every: 1, left: 1 }
    }
}

/// What a submitted job asks of the submitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Submitted {
    /// Nothing: a thread will come to it.
    Quietly,
    /// [`Pool::wake`] must be called for it, now or after more were submitted.
    Wake,
    /// [`Pool::check`] must be called until it says [`Check::Over`].
    Watch,
}

/// What the watch found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Nothing waits any more.
    Over,
    /// Look again: jobs wait.
    Again,
}

/// Why a thread has nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idle {
    NoJob,
    /// Other threads will have taken what waits sooner.
    NotNeeded,
    /// Jobs wait, but something else has its turn first: [`Pool::pass`].
    Pass,
    /// It was abandoned, has come back, and its place is taken.
    Replaced,
}

/// An error means that the wait was given up.
fn tell(waiting: Vec<oneshot::Sender<()>>) {
    for waiting in waiting {
        let _ = waiting.send(());
    }
}

/// A thread that waits for a job.
struct Sleeper {
    since: Instant,
    /// It drives the I/O meanwhile.
    leads: bool,
    state: Mutex<Sleep>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Job,
    /// To leave; it is counted no more.
    Dismissed,
}

enum Sleep {
    /// The thread has said how it is woken, if at all yet.
    Asleep(Option<Waker>),
    Woken(Call),
}

impl Sleeper {
    fn new(leads: bool) -> Self {
        Self {
            since: Instant::now(),
            leads,
            state: Mutex::new(Sleep::Asleep(None)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sleep> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Call> {
        let mut state = self.lock();
        if let Sleep::Woken(call) = *state {
            return Poll::Ready(call);
        }
        *state = Sleep::Asleep(Some(cx.waker().clone()));
        Poll::Pending
    }

    fn wake(&self, call: Call) {
        let before = std::mem::replace(&mut *self.lock(), Sleep::Woken(call));
        if let Sleep::Asleep(Some(waker)) = before {
            waker.wake();
        }
    }
}

/// Why a job is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Every thread is busy and the queue is full.
    Full { waiting: usize },
    /// More threads were abandoned than can be replaced.
    Exhausted { abandoned: usize },
}

/// A thread was abandoned.
#[derive(Debug)]
pub(crate) struct Loss<J> {
    /// Threads that are abandoned now.
    pub(crate) abandoned: usize,
    /// This one is the first that is not replaced.
    pub(crate) exhausts: bool,
    /// Jobs that waited, where no thread is left to run them.
    pub(crate) left: Vec<J>,
}

impl<J> State<J> {
    /// Threads that there may be.
    fn room(&self, threads: usize) -> usize {
        threads + self.abandoned.min(threads)
    }

    /// A thread has come back that was replaced.
    fn has_one_too_many(&self, threads: usize) -> bool {
        self.threads.saturating_sub(self.abandoned) > threads
    }

    /// Threads that run a job which somebody waits for.
    fn running(&self) -> usize {
        self.busy.saturating_sub(self.abandoned)
    }

    fn has_settled(&self) -> bool {
        self.running() == 0 && self.jobs.is_empty()
    }

    /// Only abandoned threads are left.
    fn is_empty(&self) -> bool {
        self.threads <= self.abandoned
    }

    fn leave(&mut self) {
        self.threads -= 1;
        self.tell_waiting();
    }

    /// Tells those who wait, if what they wait for has come about.
    fn tell_waiting(&mut self) {
        if !self.settled.is_empty() && self.has_settled() {
            tell(std::mem::take(&mut self.settled));
        }
        if !self.empty.is_empty() && self.is_empty() {
            tell(std::mem::take(&mut self.empty));
        }
    }
}

impl<J> fmt::Debug for Pool<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("threads", &self.threads)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

impl<J> Pool<J> {
    /// At most `threads` jobs run and `queue` more wait.
    pub(crate) fn new(threads: usize, queue: usize) -> Self {
        Self {
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                idle: Vec::new(),
                threads: 0,
                busy: 0,
                abandoned: 0,
                waking: None,
                passing: false,
                crowded: false,
                trial: Trial::default(),
                taken: 0,
                watched: None,
                closed: false,
                settled: Vec::new(),
                empty: Vec::new(),
            }),
            threads,
            queue,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over a job; never waits.
    ///
    /// # Errors
    /// [`Refused`] gives the job back when it would have to wait behind `queue` others, or for ever.
    pub(crate) fn submit(&self, job: J) -> Result<Submitted, (J, Refused)> {
        let mut state = self.lock();
        let abandoned = state.abandoned;
        if abandoned > self.threads {
            return Err((job, Refused::Exhausted { abandoned }));
        }
        let waiting = state.jobs.len();
        let free = state.room(self.threads).saturating_sub(state.busy);
        if state.closed || waiting >= self.queue + free {
            return Err((job, Refused::Full { waiting }));
        }
        state.jobs.push_back(job);
        let may_wake = state.waking.is_none() && !state.idle.is_empty();
        let nobody_comes = state.running() == 0 && !state.passing;
        if may_wake && (nobody_comes || state.trial.is_due()) {
            state.waking = Some(state.taken);
            return Ok(Submitted::Wake);
        }
        if state.watched.is_none() {
            state.watched = Some(state.taken);
            return Ok(Submitted::Watch);
        }
        Ok(Submitted::Quietly)
    }

    /// Wakes a thread for what was submitted.
    pub(crate) fn wake(&self) {
        let mut state = self.lock();
        state.waking = None;
        let woken = wake_one(&mut state);
        drop(state);
        if let Some(woken) = woken {
            woken.wake(Call::Job);
        }
    }

    /// Looks whether the threads get on. Wakes one when no job was taken since the last look though some wait.
    pub(crate) fn check(&self) -> Check {
        let mut state = self.lock();
        if state.jobs.is_empty() || state.closed {
            state.watched = None;
            return Check::Over;
        }
        let taken = state.taken;
        let before = state.watched.replace(taken);
        let woken = (before == Some(taken))
            .then(|| wake_one(&mut state))
            .flatten();
        drop(state);
        if let Some(woken) = woken {
            woken.wake(Call::Job);
        }
        Check::Again
    }

    /// Counts the calling thread, or the one about to be made, among the pool's; `false` when there are enough.
    pub(crate) fn join(&self) -> bool {
        let mut state = self.lock();
        if state.closed || state.threads >= state.room(self.threads) {
            return false;
        }
        state.threads += 1;
        true
    }

    /// Takes a counted thread out again that could not be made.
    pub(crate) fn leave(&self) {
        self.lock().leave();
    }

    /// Returns when no thread is left but those that are abandoned. Only a closed pool comes to that.
    pub(crate) async fn empty(&self) {
        let (send, receive) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.is_empty() {
                return;
            }
            state.empty.push(send);
        }
        // The sender is as old as the pool at the most.
        let _ = receive.await;
    }

    /// Waits, for a thread that has nothing to do according to [`Pool::take`], and gives what it tells
    /// [`Pool::take`] then; `None` when it has left the pool. The thread must wait to the end, and `leads` if
    /// it drives the I/O while it does.
    pub(crate) async fn wait(&self, because: Idle, leads: bool) -> Option<Idle> {
        let sleeper = {
            let mut state = self.lock();
            let replaced = because == Idle::Replaced && state.has_one_too_many(self.threads);
            if state.closed || replaced {
                state.leave();
                // It may have been woken for a job before it was found to be one too many.
                let woken = wake_one(&mut state);
                drop(state);
                if let Some(woken) = woken {
                    woken.wake(Call::Job);
                }
                return None;
            }
            if because != Idle::NotNeeded && !state.jobs.is_empty() {
                return Some(because);
            }
            if because == Idle::Pass {
                // Others took the jobs meanwhile: it sleeps like any other.
                state.passing = false;
            }
            let sleeper = Arc::new(Sleeper::new(leads));
            state.idle.push(Arc::clone(&sleeper));
            sleeper
        };
        match poll_fn(|cx| sleeper.poll(cx)).await {
            // Whoever was called answers for it, whatever it did before it slept.
            Call::Job => Some(Idle::NoJob),
            Call::Dismissed => None,
        }
    }

    /// Has threads leave that have idled for `limit`, the longest first. One stays for the next job.
    pub(crate) fn dismiss(&self, limit: Duration) {
        let mut state = self.lock();
        let spare = state.idle.len().saturating_sub(1);
        let idled = state.idle.iter().take(spare);
        let count = idled
            .take_while(|sleeper| sleeper.since.elapsed() >= limit)
            .count();
        let dismissed: Vec<_> = state.idle.drain(..count).collect();
        for _ in &dismissed {
            state.leave();
        }
        drop(state);
        for sleeper in dismissed {
            sleeper.wake(Call::Dismissed);
        }
    }

    /// Lets other things have a turn before the thread takes the next of the jobs that wait.
    pub(crate) fn pass(&self) -> Idle {
        let mut state = self.lock();
        if state.jobs.is_empty() {
            return Idle::NoJob;
        }
        state.passing = true;
        Idle::Pass
    }

    /// The next job for a thread that runs; `after` is what it comes from by way of [`Pool::wait`].
    ///
    /// Wakes the next thread for what is left, if trials say so.
    pub(crate) fn take(&self, after: Option<Idle>) -> Result<J, Idle> {
        let mut state = self.lock();
        match after {
            Some(Idle::Pass) => state.passing = false,
            Some(_) if is_superfluous(&mut state) => return Err(Idle::NotNeeded),
            None if std::mem::take(&mut state.crowded) && state.running() > 0 => {
                return Err(Idle::NotNeeded);
            }
            Some(_) | None => {}
        }
        if state.has_one_too_many(self.threads) {
            return Err(Idle::Replaced);
        }
        let Some(job) = state.jobs.pop_front() else {
            return Err(Idle::NoJob);
        };
        state.busy += 1;
        state.taken += 1;
        let woken = (!state.jobs.is_empty() && state.waking.is_none() && state.trial.is_due())
            .then(|| wake_one(&mut state))
            .flatten();
        drop(state);
        if let Some(woken) = woken {
            woken.wake(Call::Job);
        }
        Ok(job)
    }

    /// Whether another thread should be made: a job is about to run, nobody idles, and there is room. It
    /// counts as woken until it first takes, so that threads are made one after the other, and only while they are needed.
    pub(crate) fn grow(&self) -> bool {
        let mut state = self.lock();
        let grow = state.idle.is_empty()
            && state.waking.is_none()
            && state.threads < state.room(self.threads)
            && !state.closed;
        if grow {
            state.waking = Some(state.taken);
        }
        grow
    }

    /// Nobody waits for the job of a busy thread any more: it does not count as busy, and another may take
    /// its place. [`Pool::returned`] follows if the thread ever comes to its end.
    pub(crate) fn abandon(&self) -> Loss<J> {
        let mut state = self.lock();
        state.abandoned += 1;
        let left = if state.abandoned > self.threads && state.is_empty() {
            std::mem::take(&mut state.jobs).into()
        } else {
            Vec::new()
        };
        state.tell_waiting();
        Loss {
            abandoned: state.abandoned,
            exhausts: state.abandoned == self.threads + 1,
            left,
        }
    }

    /// An abandoned thread has come to the end of its job; [`Pool::finished`] follows.
    pub(crate) fn returned(&self) {
        self.lock().abandoned -= 1;
    }

    /// Takes out the first waiting job that `is` the one.
    pub(crate) fn withdraw(&self, is: impl Fn(&J) -> bool) -> Option<J> {
        let mut state = self.lock();
        let place = state.jobs.iter().position(is)?;
        let job = state.jobs.remove(place);
        state.tell_waiting();
        job
    }

    /// The thread has finished its job.
    pub(crate) fn finished(&self) {
        let mut state = self.lock();
        state.busy -= 1;
        state.tell_waiting();
    }

    /// Returns when nothing runs that was not abandoned, and nothing waits.
    pub(crate) async fn settled(&self) {
        let (send, receive) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.has_settled() {
                return;
            }
            state.settled.push(send);
        }
        let _ = receive.await;
    }

    pub(crate) fn load(&self) -> PoolLoad {
        let state = self.lock();
        PoolLoad {
            threads: self.threads,
            busy: state.running(),
            waiting: state.jobs.len(),
            abandoned: state.abandoned,
        }
    }

    /// No more jobs; threads end when they have finished theirs. Gives back what nobody will run.
    pub(crate) fn close(&self) -> Vec<J> {
        let mut state = self.lock();
        state.closed = true;
        let idle = std::mem::take(&mut state.idle);
        let left = std::mem::take(&mut state.jobs);
        drop(state);
        for sleeper in idle {
            sleeper.wake(Call::Job);
        }
        left.into()
    }
}

/// Learns from a thread that came to run; whether those that are busy get on without it.
fn is_superfluous<J>(state: &mut State<J>) -> bool {
    let Some(before) = state.waking.take() else {
        return false;
    };
    if state.jobs.is_empty() {
        state.trial.failed();
    } else if state.passing {
        state.trial.failed();
        return true;
    } else if state.running() > 0 {
        // Each has finished a job meanwhile: they do not wait, and run only when the others do not.
        if state.taken - before > state.running() as u64 {
            state.trial.failed();
            state.crowded = state.running() > 1;
            return true;
        }
        state.trial.succeeded();
    }
    false
}

fn wake_one<J>(state: &mut State<J>) -> Option<Arc<Sleeper>> {
    if state.waking.is_some() || state.jobs.is_empty() {
        return None;
    }
    // The one who leads is awake: it goes first, unless then nobody would do what others run for.
    let leads = state.running() == 0;
    let wanted = state.idle.iter().rposition(|idle| idle.leads == leads);
    let sleeper = match wanted {
        Some(place) => state.idle.remove(place),
        None => state.idle.pop()?,
    };
    state.waking = Some(state.taken);
    Some(sleeper)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_on::block_on;
    use std::sync::mpsc;

    /// Threads that run closures until the pool is closed.
    fn start(pool: &Arc<Pool<Box<dyn FnOnce() + Send>>>) {
        while pool.join() {
            let pool = Arc::clone(pool);
            std::thread::spawn(move || {
                let mut idle = Idle::NoJob;
                while let Some(after) = block_on(pool.wait(idle, false)) {
                    let mut after = Some(after);
                    idle = loop {
                        match pool.take(after.take()) {
                            Ok(job) => job(),
                            Err(idle) => break idle,
                        }
                        pool.finished();
                    };
                }
            });
        }
    }

    fn submit(pool: &Arc<Pool<Box<dyn FnOnce() + Send>>>, job: Box<dyn FnOnce() + Send>) {
        match pool.submit(job).ok().unwrap() {
            Submitted::Quietly => {}
            Submitted::Wake => pool.wake(),
            Submitted::Watch => {
                let pool = Arc::clone(pool);
                std::thread::spawn(move || {
                    while pool.check() == Check::Again {
                        std::thread::yield_now();
                    }
                });
            }
        }
    }

    #[test]
    fn jobs_run_at_once_on_as_many_threads_as_allowed() {
        let pool = Arc::new(Pool::new(3, 10));
        start(&pool);
        let barrier = Arc::new(std::sync::Barrier::new(4));
        for _ in 0..3 {
            let barrier = Arc::clone(&barrier);
            let job: Box<dyn FnOnce() + Send> = Box::new(move || {
                barrier.wait();
            });
            submit(&pool, job);
        }
        // Passes only when all three run at the same time.
        barrier.wait();
        assert!(pool.close().is_empty());
    }

    #[test]
    fn a_job_beyond_the_queue_is_refused_at_once_with_the_number_that_waits() {
        let pool = Arc::new(Pool::new(1, 2));
        start(&pool);
        let (release, blocked) = mpsc::channel::<()>();
        let (started, running) = mpsc::channel();
        let first: Box<dyn FnOnce() + Send> = Box::new(move || {
            started.send(()).unwrap();
            blocked.recv().unwrap();
        });
        submit(&pool, first);
        running.recv().unwrap();
        submit(&pool, Box::new(|| ()));
        submit(&pool, Box::new(|| ()));
        let (_, full) = pool.submit(Box::new(|| ())).err().unwrap();
        assert_eq!(full, Refused::Full { waiting: 2 });
        assert_eq!(
            pool.load(),
            PoolLoad {
                threads: 1,
                busy: 1,
                waiting: 2,
                abandoned: 0,
            }
        );
        release.send(()).unwrap();
    }

    #[tokio::test]
    async fn a_pool_has_settled_when_nothing_runs_and_nothing_waits() {
        let pool = Arc::new(Pool::new(1, 2));
        start(&pool);
        pool.settled().await;
        let (release, blocked) = mpsc::channel::<()>();
        submit(&pool, Box::new(move || blocked.recv().unwrap()));
        submit(&pool, Box::new(|| ()));
        let mut settled = std::pin::pin!(pool.settled());
        assert!(futures_pending(settled.as_mut()).await);
        release.send(()).unwrap();
        settled.await;
    }

    #[tokio::test]
    async fn a_closed_pool_is_empty_when_its_last_thread_has_gone() {
        let pool = Arc::new(Pool::new(2, 2));
        start(&pool);
        let (release, blocked) = mpsc::channel::<()>();
        let (started, running) = mpsc::channel();
        let job = move || {
            started.send(()).unwrap();
            blocked.recv().unwrap();
        };
        submit(&pool, Box::new(job));
        running.recv().unwrap();
        assert!(pool.close().is_empty());
        let mut empty = std::pin::pin!(pool.empty());
        assert!(futures_pending(empty.as_mut()).await);
        release.send(()).unwrap();
        empty.await;
    }

    async fn futures_pending(mut future: std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
        std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending()))
            .await
    }

    #[test]
    fn every_job_runs_once_whoever_submits_it() {
        let pool = Arc::new(Pool::new(4, 100_000));
        start(&pool);
        let (done, results) = mpsc::channel();
        let submitters: Vec<_> = (0..4)
            .map(|submitter| {
                let (pool, done) = (Arc::clone(&pool), done.clone());
                std::thread::spawn(move || {
                    for number in 0..1000 {
                        let done = done.clone();
                        let job: Box<dyn FnOnce() + Send> =
                            Box::new(move || done.send(submitter * 1000 + number).unwrap());
                        submit(&pool, job);
                    }
                })
            })
            .collect();
        for submitter in submitters {
            submitter.join().unwrap();
        }
        let mut seen: Vec<i32> = results.iter().take(4000).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..4000).collect::<Vec<_>>());
    }

    #[test]
    fn closing_gives_back_what_waits_and_ends_the_threads() {
        let pool: Arc<Pool<Box<dyn FnOnce() + Send>>> = Arc::new(Pool::new(1, 10));
        assert!(pool.join());
        submit(&pool, Box::new(|| ()));
        assert_eq!(pool.close().len(), 1);
        assert_eq!(block_on(pool.wait(Idle::NoJob, false)), None);
        assert!(pool.submit(Box::new(|| ())).is_err());
    }

    #[test]
    fn threads_that_have_idled_for_long_leave_the_longest_first_and_one_stays() {
        let pool = Arc::new(Pool::<u32>::new(3, 10));
        let (done, events) = mpsc::channel();
        for thread in 1..=3 {
            assert!(pool.join());
            let (pool, done) = (Arc::clone(&pool), done.clone());
            let idles = Arc::clone(&pool);
            std::thread::spawn(move || {
                while block_on(pool.wait(Idle::NoJob, false)).is_some() {
                    if let Ok(job) = pool.take(Some(Idle::NoJob)) {
                        done.send(format!("{thread} runs {job}")).unwrap();
                        pool.finished();
                    }
                }
                done.send(format!("{thread} leaves")).unwrap();
            });
            while idles.lock().idle.len() < thread {
                std::thread::yield_now();
            }
        }
        pool.dismiss(Duration::from_secs(3600));
        assert_eq!(pool.lock().idle.len(), 3);

        pool.dismiss(Duration::ZERO);
        assert_eq!(pool.lock().threads, 1);
        let mut left: Vec<_> = events.iter().take(2).collect();
        left.sort_unstable();
        assert_eq!(left, ["1 leaves", "2 leaves"]);
        assert_eq!(pool.submit(7).unwrap(), Submitted::Wake);
        pool.wake();
        assert_eq!(events.recv().unwrap(), "3 runs 7");
        pool.close();
        assert_eq!(events.recv().unwrap(), "3 leaves");
    }

    /// A thread joins and takes a job, as far as the pool can tell.
    fn begin(pool: &Pool<u32>, job: u32) {
        assert!(pool.join());
        pool.submit(job).unwrap();
        assert_eq!(pool.take(Some(Idle::NoJob)), Ok(job));
    }

    /// The job of a thread that was abandoned ends after all.
    fn come_back(pool: &Pool<u32>) {
        pool.returned();
        pool.finished();
    }

    #[test]
    fn as_many_threads_as_the_pool_has_are_replaced_and_no_more() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads, 10);
            for abandoned in 1..=threads {
                begin(&pool, 0);
                let loss = pool.abandon();
                assert_eq!((loss.abandoned, loss.exhausts), (abandoned, false));
                assert!(pool.grow());
                assert!(!pool.load().is_exhausted());
            }
            begin(&pool, 0);
            let loss = pool.abandon();
            assert_eq!((loss.abandoned, loss.exhausts), (threads + 1, true));
            assert!(pool.load().is_exhausted());
            let (_, refused) = pool.submit(0).unwrap_err();
            let abandoned = threads + 1;
            assert_eq!(refused, Refused::Exhausted { abandoned });
            // What the pool had left of its size goes on, no more.
            for _ in 1..threads {
                assert!(pool.join());
            }
            assert!(!pool.join());

            come_back(&pool);
            assert!(
                pool.submit(0).is_ok(),
                "one is back, and the pool serves again"
            );
        }
    }

    #[test]
    fn what_waits_is_given_back_when_no_thread_is_left_to_run_it() {
        let pool = Pool::new(2, 10);
        for _ in 0..2 {
            begin(&pool, 0);
            pool.abandon();
        }
        begin(&pool, 0);
        begin(&pool, 0);
        pool.submit(1).unwrap();
        assert!(pool.abandon().left.is_empty(), "a thread is left");
        assert_eq!(pool.abandon().left, vec![1]);
    }

    #[test]
    fn a_thread_that_comes_back_takes_its_place_unless_it_has_been_taken() {
        for replaced in [false, true] {
            let pool = Pool::new(1, 10);
            begin(&pool, 0);
            pool.abandon();
            if replaced {
                assert!(pool.join());
            }
            pool.submit(1).unwrap();
            come_back(&pool);
            let expected = if replaced { Err(Idle::Replaced) } else { Ok(1) };
            assert_eq!(pool.take(None), expected);
        }
    }

    #[test]
    fn of_two_threads_that_find_one_too_many_one_stays() {
        let pool = Pool::new(1, 10);
        begin(&pool, 0);
        pool.abandon();
        begin(&pool, 1);
        pool.submit(2).unwrap();
        come_back(&pool);
        pool.finished();
        assert_eq!(pool.take(None), Err(Idle::Replaced));
        assert_eq!(pool.take(None), Err(Idle::Replaced));
        assert_eq!(
            block_on(pool.wait(Idle::Replaced, false)),
            None,
            "one leaves"
        );
        assert!(block_on(pool.wait(Idle::Replaced, false)).is_some());
        assert_eq!(pool.take(Some(Idle::Replaced)), Ok(2));
    }

    #[test]
    fn a_thread_that_slept_after_a_pass_answers_its_call_like_any_other() {
        let pool = Pool::new(2, 10);
        begin(&pool, 0);
        pool.submit(1).unwrap();
        pool.finished();
        assert_eq!(pool.pass(), Idle::Pass);
        assert_eq!(pool.take(None), Ok(1), "another thread was faster");
        pool.finished();
        let cx = &mut Context::from_waker(Waker::noop());
        let mut idle = Idle::Pass;
        for job in 2..5 {
            let mut asleep = std::pin::pin!(pool.wait(idle, false));
            assert!(asleep.as_mut().poll(cx).is_pending());
            assert_eq!(pool.submit(job), Ok(Submitted::Wake));
            pool.wake();
            assert_eq!(asleep.as_mut().poll(cx), Poll::Ready(Some(Idle::NoJob)));
            assert_eq!(pool.take(Some(Idle::NoJob)), Ok(job));
            pool.finished();
            idle = Idle::NoJob;
        }
    }

    #[test]
    fn who_leads_goes_first_unless_another_runs_already() {
        for (running, wanted) in [(false, [true, false]), (true, [false, true])] {
            let pool = Pool::new(3, 10);
            if running {
                begin(&pool, 0);
            }
            let cx = &mut Context::from_waker(Waker::noop());
            let mut leader = std::pin::pin!(pool.wait(Idle::NoJob, true));
            let mut other = std::pin::pin!(pool.wait(Idle::NoJob, false));
            assert!(leader.as_mut().poll(cx).is_pending());
            assert!(other.as_mut().poll(cx).is_pending());
            assert_eq!(pool.submit(1), Ok(Submitted::Wake));
            pool.wake();
            let woken = [leader.poll(cx).is_ready(), other.poll(cx).is_ready()];
            assert_eq!(woken, wanted);
        }
    }

    #[test]
    fn of_threads_that_compute_one_sleeps_and_one_runs_on() {
        let pool = Pool::new(3, 100);
        begin(&pool, 0);
        begin(&pool, 0);
        let mut third = std::pin::pin!(pool.wait(Idle::NoJob, false));
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(third.as_mut().poll(cx).is_pending());
        pool.lock().trial = Trial::default();
        assert_eq!(pool.submit(1), Ok(Submitted::Wake));
        for job in 2..6 {
            pool.submit(job).unwrap();
        }
        pool.wake();
        for job in 1..4 {
            pool.finished();
            assert_eq!(pool.take(None), Ok(job));
        }
        assert_eq!(pool.take(Some(Idle::NoJob)), Err(Idle::NotNeeded));
        pool.finished();
        assert_eq!(pool.take(None), Err(Idle::NotNeeded), "one of the two");
        pool.finished();
        assert_eq!(pool.take(None), Ok(4), "the last goes on");
    }

    #[test]
    fn a_thread_that_leaves_passes_its_call_on() {
        let pool = Pool::new(1, 10);
        begin(&pool, 0);
        pool.abandon();
        assert!(pool.join());
        let mut successor = std::pin::pin!(pool.wait(Idle::NoJob, false));
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(successor.as_mut().poll(cx).is_pending());
        come_back(&pool);
        pool.submit(1).unwrap();
        assert_eq!(pool.take(Some(Idle::NoJob)), Err(Idle::Replaced));
        assert_eq!(block_on(pool.wait(Idle::Replaced, false)), None);
        assert_eq!(successor.as_mut().poll(cx), Poll::Ready(Some(Idle::NoJob)));
    }

    #[test]
    fn an_abandoned_thread_takes_no_room_from_others() {
        let pool = Pool::new(1, 0);
        begin(&pool, 0);
        assert!(pool.submit(1).is_err());
        pool.abandon();
        assert_eq!(pool.load().busy, 0);
        assert!(pool.submit(1).is_ok());
    }

    #[tokio::test]
    async fn nobody_waits_for_an_abandoned_thread() {
        let pool = Pool::new(1, 10);
        begin(&pool, 0);
        let mut settled = std::pin::pin!(pool.settled());
        let mut empty = std::pin::pin!(pool.empty());
        assert!(futures_pending(settled.as_mut()).await);
        assert!(futures_pending(empty.as_mut()).await);
        pool.abandon();
        settled.await;
        empty.await;
        come_back(&pool);
        pool.leave();
        pool.settled().await;
        pool.empty().await;
    }

    #[test]
    fn a_job_that_is_taken_out_leaves_its_place_to_another() {
        let pool = Pool::new(1, 1);
        begin(&pool, 0);
        pool.submit(1).unwrap();
        assert!(pool.submit(2).is_err());
        assert_eq!(pool.withdraw(|job| *job == 2), None);
        assert_eq!(pool.withdraw(|job| *job == 1), Some(1));
        assert!(pool.submit(2).is_ok());
    }
}
