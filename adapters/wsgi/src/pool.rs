//! The bounded thread pool of one application: a queue, idle threads, and who is woken when.
//!
//! A thread that finishes takes the next job before anybody is woken for it. Only one thread is being
//! woken at a time, the one that idled last (its memory is still warm), and the next only when that one
//! [runs](Pool::running), which for Python means that it holds the GIL: threads that could only wait for
//! the GIL stay asleep. The pool knows neither Python nor how threads are made.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

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
    /// Parked threads, the last to idle at the end.
    idle: Vec<Arc<Parked>>,
    /// Threads that exist.
    threads: usize,
    busy: usize,
    /// A thread was woken and does not run yet.
    waking: bool,
    closed: bool,
    /// Told when nothing runs and nothing waits.
    settled: Vec<oneshot::Sender<()>>,
    /// Told when no thread is left.
    empty: Vec<oneshot::Sender<()>>,
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
    /// At most `threads` jobs run and `queue` more wait.
    pub(crate) fn new(threads: usize, queue: usize) -> Self {
        Self {
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                idle: Vec::new(),
                threads: 0,
                busy: 0,
                waking: false,
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

    /// Hands over a job; never waits. Tells whether [`Pool::wake`] must be called for it, now or after
    /// more were handed over.
    ///
    /// # Errors
    /// [`Full`] gives the job back when it would have to wait behind `queue` others.
    pub(crate) fn submit(&self, job: J) -> Result<bool, (J, Full)> {
        let mut state = self.lock();
        let waiting = state.jobs.len();
        let free = self.threads.saturating_sub(state.busy);
        if state.closed || waiting >= self.queue + free {
            return Err((job, Full { waiting }));
        }
        state.jobs.push_back(job);
        let wake = !state.waking && !state.idle.is_empty();
        state.waking |= wake;
        Ok(wake)
    }

    /// Wakes a thread for what was submitted.
    pub(crate) fn wake(&self) {
        let mut state = self.lock();
        state.waking = false;
        let woken = wake_one(&mut state);
        drop(state);
        unpark(woken);
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

    /// Waits for a job; `None` when the pool is closed.
    pub(crate) fn next(&self) -> Option<J> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                state.busy += 1;
                return Some(job);
            }
            if state.closed {
                return None;
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
            state = self.lock();
            // A thread that found its job taken lets the next be woken.
            if state.jobs.is_empty() {
                state.waking = false;
            }
        }
    }

    /// The thread that took a job has begun to run it. Wakes the next thread if more is to do.
    ///
    /// Returns whether another thread should be made: jobs may come, nobody idles, and there is room.
    pub(crate) fn running(&self) -> bool {
        let mut state = self.lock();
        state.waking = false;
        let woken = wake_one(&mut state);
        let grow = woken.is_none()
            && state.idle.is_empty()
            && state.threads < self.threads
            && !state.closed;
        drop(state);
        unpark(woken);
        grow
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

fn wake_one<J>(state: &mut State<J>) -> Option<Arc<Parked>> {
    if state.waking || state.jobs.is_empty() {
        return None;
    }
    let parked = state.idle.pop()?;
    state.waking = true;
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
                while let Some(job) = pool.next() {
                    pool.running();
                    job();
                    pool.finished();
                }
                pool.leave();
            });
        }
    }

    fn submit(pool: &Pool<Box<dyn FnOnce() + Send>>, job: Box<dyn FnOnce() + Send>) {
        if pool.submit(job).ok().unwrap() {
            pool.wake();
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
        submit(&pool, Box::new(|| ()));
        assert_eq!(pool.close().len(), 1);
        assert!(pool.next().is_none());
        assert!(pool.submit(Box::new(|| ())).is_err());
    }
}
