//! The bounded thread pool of one application: a queue, idle threads, and who is woken when.
//!
//! A thread that finishes takes the next job before anybody is woken for it, and a thread takes a job
//! only when it runs, which for Python means that it holds the GIL: no job waits in the hands of a
//! thread that waits itself. So one thread is enough while jobs compute. Whether they also wait for
//! something, and others should run meanwhile, is found out by [trial](Trial): now and then a second
//! thread is woken while the first runs. If it comes to run because the first one waits, more jobs wake
//! one from then on; if there was nothing for it to do, the next trial is put off. What a trial has not
//! found, the [watch](Pool::check) does. The pool knows neither Python nor how threads are made.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use twinspan::app::PoolLoad;

/// Jobs for the threads of one application.
pub(crate) struct Pool<J> {
    state: Mutex<State<J>>,
    threads: usize,
    queue: usize,
    /// A thread that waits for its turn to run gets it after this, though the other does not wait.
    turn: Duration,
}

struct State<J> {
    jobs: VecDeque<J>,
    /// Parked threads, the last to idle at the end.
    idle: Vec<Arc<Parked>>,
    /// Threads that exist.
    threads: usize,
    busy: usize,
    /// A thread was woken and does not run yet.
    waking: Option<Woken>,
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

/// A thread on its way from its sleep to its turn.
#[derive(Debug, Clone, Copy)]
struct Woken {
    at: Instant,
    /// Jobs that were taken until then.
    taken: u64,
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
}

/// An error means that the wait was given up.
fn tell(waiting: Vec<oneshot::Sender<()>>) {
    for waiting in waiting {
        let _ = waiting.send(());
    }
}

/// A thread that waits for a job.
struct Parked {
    thread: Thread,
    woken: Mutex<bool>,
}

/// Every thread is busy and the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) waiting: usize,
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
    /// At most `threads` jobs run and `queue` more wait. Threads that want to run while others do get
    /// their turn after `turn`.
    pub(crate) fn new(threads: usize, queue: usize, turn: Duration) -> Self {
        Self {
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                idle: Vec::new(),
                threads: 0,
                busy: 0,
                waking: None,
                trial: Trial::default(),
                taken: 0,
                watched: None,
                closed: false,
                settled: Vec::new(),
                empty: Vec::new(),
            }),
            threads,
            queue,
            turn,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over a job; never waits.
    ///
    /// # Errors
    /// [`Full`] gives the job back when it would have to wait behind `queue` others.
    pub(crate) fn submit(&self, job: J) -> Result<Submitted, (J, Full)> {
        let mut state = self.lock();
        let waiting = state.jobs.len();
        let free = self.threads.saturating_sub(state.busy);
        if state.closed || waiting >= self.queue + free {
            return Err((job, Full { waiting }));
        }
        state.jobs.push_back(job);
        let may_wake = state.waking.is_none() && !state.idle.is_empty();
        if may_wake && (state.busy == 0 || state.trial.is_due()) {
            state.waking = Some(state.woken_now());
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
        unpark(woken);
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
        unpark(woken);
        Check::Again
    }

    /// Counts the calling thread, or the one about to be made, among the pool's; `false` when there are enough.
    pub(crate) fn join(&self) -> bool {
        let mut state = self.lock();
        if state.closed || state.threads >= self.threads {
            return false;
        }
        state.threads += 1;
        true
    }

    /// Takes a counted thread out again.
    pub(crate) fn leave(&self) {
        let mut state = self.lock();
        state.threads -= 1;
        if state.threads == 0 {
            tell(std::mem::take(&mut state.empty));
        }
    }

    /// Returns when no thread is left. Only a closed pool comes to that.
    pub(crate) async fn empty(&self) {
        let (send, receive) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.threads == 0 {
                return;
            }
            state.empty.push(send);
        }
        // The sender is as old as the pool at the most.
        let _ = receive.await;
    }

    /// Waits, on a thread that has nothing to do according to [`Pool::take`]; `false` when the pool is closed.
    pub(crate) fn wait(&self, because: Idle) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        if because == Idle::NoJob && !state.jobs.is_empty() {
            return true;
        }
        let parked = Arc::new(Parked {
            thread: std::thread::current(),
            woken: Mutex::new(false),
        });
        state.idle.push(Arc::clone(&parked));
        drop(state);
        while !*parked.woken.lock().unwrap_or_else(PoisonError::into_inner) {
            std::thread::park();
        }
        true
    }

    /// The next job for a thread that runs; `arrived` says that it comes from [`Pool::wait`].
    ///
    /// Wakes the next thread for what is left, if trials say so.
    pub(crate) fn take(&self, arrived: bool) -> Result<J, Idle> {
        let mut state = self.lock();
        if arrived && self.is_superfluous(&mut state) {
            return Err(Idle::NotNeeded);
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
        unpark(woken);
        Ok(job)
    }

    /// Learns from a thread that came to run; whether those that are busy get on without it.
    fn is_superfluous(&self, state: &mut State<J>) -> bool {
        let Some(woken) = state.waking.take() else {
            return false;
        };
        if state.jobs.is_empty() {
            state.trial.failed();
        } else if state.busy > 0 {
            // They have finished jobs meanwhile, and were only interrupted because its turn had come.
            if state.taken != woken.taken && woken.at.elapsed() >= self.turn {
                state.trial.failed();
                return true;
            }
            state.trial.succeeded();
        }
        false
    }

    /// Whether another thread should be made: a job is about to run, nobody idles, and there is room.
    pub(crate) fn should_grow(&self) -> bool {
        let state = self.lock();
        state.idle.is_empty()
            && state.waking.is_none()
            && state.threads < self.threads
            && !state.closed
    }

    /// The thread has finished its job.
    pub(crate) fn finished(&self) {
        let mut state = self.lock();
        state.busy -= 1;
        if state.busy == 0 && state.jobs.is_empty() && !state.settled.is_empty() {
            tell(std::mem::take(&mut state.settled));
        }
    }

    /// Returns when nothing runs and nothing waits.
    pub(crate) async fn settled(&self) {
        let (send, receive) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.busy == 0 && state.jobs.is_empty() {
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
            busy: state.busy,
            waiting: state.jobs.len(),
        }
    }

    /// No more jobs; threads end when they have finished theirs. Gives back what nobody will run.
    pub(crate) fn close(&self) -> Vec<J> {
        let mut state = self.lock();
        state.closed = true;
        let idle = std::mem::take(&mut state.idle);
        let left = std::mem::take(&mut state.jobs);
        drop(state);
        for parked in idle {
            unpark(Some(parked));
        }
        left.into()
    }
}

impl<J> State<J> {
    fn woken_now(&self) -> Woken {
        Woken {
            at: Instant::now(),
            taken: self.taken,
        }
    }
}

fn wake_one<J>(state: &mut State<J>) -> Option<Arc<Parked>> {
    if state.waking.is_some() || state.jobs.is_empty() {
        return None;
    }
    let parked = state.idle.pop()?;
    state.waking = Some(state.woken_now());
    Some(parked)
}

fn unpark(parked: Option<Arc<Parked>>) {
    if let Some(parked) = parked {
        *parked.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        parked.thread.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Threads that run closures until the pool is closed.
    fn start(pool: &Arc<Pool<Box<dyn FnOnce() + Send>>>) {
        while pool.join() {
            let pool = Arc::clone(pool);
            std::thread::spawn(move || {
                let mut idle = Idle::NoJob;
                while pool.wait(idle) {
                    let mut arrived = true;
                    idle = loop {
                        match pool.take(arrived) {
                            Ok(job) => job(),
                            Err(idle) => break idle,
                        }
                        arrived = false;
                        pool.finished();
                    };
                }
                pool.leave();
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

    /// Long enough for threads that have nothing to wait for but each other.
    const TURN: Duration = Duration::from_secs(60);

    #[test]
    fn jobs_run_at_once_on_as_many_threads_as_allowed() {
        let pool = Arc::new(Pool::new(3, 10, TURN));
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
        let pool = Arc::new(Pool::new(1, 2, TURN));
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
        assert_eq!(full, Full { waiting: 2 });
        assert_eq!(
            pool.load(),
            PoolLoad {
                threads: 1,
                busy: 1,
                waiting: 2
            }
        );
        release.send(()).unwrap();
    }

    #[tokio::test]
    async fn a_pool_has_settled_when_nothing_runs_and_nothing_waits() {
        let pool = Arc::new(Pool::new(1, 2, TURN));
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
        let pool = Arc::new(Pool::new(2, 2, TURN));
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
        let pool = Arc::new(Pool::new(4, 100_000, TURN));
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
        let pool: Arc<Pool<Box<dyn FnOnce() + Send>>> = Arc::new(Pool::new(1, 10, TURN));
        submit(&pool, Box::new(|| ()));
        assert_eq!(pool.close().len(), 1);
        assert!(!pool.wait(Idle::NoJob));
        assert!(pool.submit(Box::new(|| ())).is_err());
    }
}
