//! Who drives the I/O: the I/O thread, or for a while a thread of an application that would idle otherwise.
//!
//! A request that crosses to another thread and back costs two wake-ups, and on a busy core two switches.
//! So a thread without work may take the lead (leader/followers, POSA 2): it drives the runtime until
//! there is a job for it, does the job, and drives on. The I/O thread watches meanwhile. A job that lasts
//! longer than one or two [`TICK`]s costs the leader its lead, so no application holds up the network
//! for longer than that; and where jobs turn out to be long, the lead is given away ever more seldom.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::Thread;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// How often the I/O thread looks whether the leader gets on.
const TICK: Duration = Duration::from_millis(1);
/// Looks without any change after which the I/O thread sleeps until it is woken.
const QUIET_TICKS: u32 = 20;
/// A lead that lasted for so many jobs was worth its change of threads.
const WORTHWHILE: u64 = 128;
/// The lead is given away at every so many-th request for it at least.
const RAREST: u32 = 1024;

/// The lead over the I/O of one runtime, for threads that may take it.
#[derive(Clone)]
pub struct Lead {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Weak<Runtime>,
    /// A [`Turn`].
    turn: AtomicU64,
    /// The I/O thread sleeps until a leader has a job.
    asleep: AtomicBool,
    io_thread: Thread,
    /// Tells the I/O thread that another thread wants to drive.
    taken: Notify,
    /// Tells the application that the I/O thread drives again.
    returned: Notify,
    ended: AtomicBool,
    caution: Mutex<Caution>,
    /// A child that an application forks inherits its thread's lead, and must not serve with it.
    process: u32,
}

/// Who leads and what they do, numbered: no two turns are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The I/O thread drives.
    Io,
    /// A leader drives.
    Driving,
    /// A leader does a job; nobody drives.
    Working,
}

impl Turn {
    fn role(self) -> Role {
        match self.0 % 4 {
            0 => Role::Io,
            1 => Role::Driving,
            _ => Role::Working,
        }
    }

    fn number(self) -> u64 {
        self.0 / 4
    }

    fn next(self, role: Role) -> Self {
        let role = match role {
            Role::Io => 0,
            Role::Driving => 1,
            Role::Working => 2,
        };
        Self((self.number() + 1) * 4 + role)
    }
}

/// How readily the lead is given away.
#[derive(Debug)]
struct Caution {
    /// At one of so many requests.
    every: u32,
    left: u32,
    /// When the present lead began.
    since: Turn,
}

impl Caution {
    fn allows(&mut self) -> bool {
        self.left -= 1;
        if self.left > 0 {
            return false;
        }
        self.left = self.every;
        true
    }

    /// Learns from a lead that a long job has ended.
    fn ended(&mut self, at: Turn) {
        self.every = if at.number() - self.since.number() >= WORTHWHILE {
            (self.every / 2).max(1)
        } else {
            (self.every * 2).min(RAREST)
        };
        self.left = self.every;
    }
}

impl fmt::Debug for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lead")
            .field(&self.shared.turn().role())
            .finish()
    }
}

impl Shared {
    fn turn(&self) -> Turn {
        Turn(self.turn.load(Ordering::SeqCst))
    }

    /// Changes the turn if it is still `from`.
    fn change(&self, from: Turn, role: Role) -> Option<Turn> {
        let next = from.next(role);
        self.turn
            .compare_exchange(from.0, next.0, Ordering::SeqCst, Ordering::SeqCst)
            .ok()
            .map(|_| next)
    }

    /// Takes the lead away from a leader in its job.
    fn recall(&self, from: Turn) {
        if from.role() != Role::Working {
            return;
        }
        // Before the change: whoever takes the lead after it begins a count of its own.
        let mut caution = self.caution.lock().unwrap_or_else(PoisonError::into_inner);
        if self.change(from, Role::Io).is_some() {
            caution.ended(from);
            drop(caution);
            self.io_thread.unpark();
        }
    }
}

impl Lead {
    /// Takes the lead for the calling thread, if it is to be had.
    pub fn take(&self) -> Option<Lease> {
        let turn = self.shared.turn();
        if turn.role() != Role::Io {
            return None;
        }
        {
            let mut caution = self
                .shared
                .caution
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if !caution.allows() {
                return None;
            }
            caution.since = turn;
        }
        let turn = self.shared.change(turn, Role::Driving)?;
        self.shared.taken.notify_one();
        Some(Lease {
            shared: Arc::clone(&self.shared),
            turn,
        })
    }

    /// Gives the lead back to the I/O thread if the leader is in a job: for another thread that runs beside it.
    pub fn recall(&self) {
        self.shared.recall(self.shared.turn());
    }

    /// Returns each time that the I/O thread has become the one that drives.
    pub async fn returned(&self) {
        self.shared.returned.notified().await;
    }
}

/// The lead of one thread; dropped, it goes back to the I/O thread.
pub struct Lease {
    shared: Arc<Shared>,
    turn: Turn,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&self.turn).finish()
    }
}

impl Lease {
    /// Drives the I/O until `future` is ready; then the thread's job begins. `None` when the lead is lost.
    pub fn drive<F: Future>(&mut self, future: F) -> Option<F::Output> {
        if std::process::id() != self.shared.process {
            return None;
        }
        if self.turn.role() == Role::Working {
            self.turn = self.shared.change(self.turn, Role::Driving)?;
        }
        let runtime = self.shared.runtime.upgrade()?;
        let output = runtime.block_on(future);
        self.turn = self.shared.change(self.turn, Role::Working)?;
        // Only a job can take too long: until the first the I/O thread may sleep.
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.shared.io_thread.unpark();
        }
        Some(output)
    }

    /// Begins the next job without driving in between. `false` when the lead is lost.
    pub fn renew(&mut self) -> bool {
        match self.shared.change(self.turn, Role::Working) {
            Some(turn) => {
                self.turn = turn;
                true
            }
            None => false,
        }
    }

    /// Whether the thread still leads.
    pub fn holds(&self) -> bool {
        self.shared.turn() == self.turn
    }

    /// Gives the lead back in the middle of a job that is going to wait.
    pub fn leave(&self) {
        self.shared.recall(self.turn);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.shared.change(self.turn, Role::Io).is_some() {
            self.shared.io_thread.unpark();
        }
    }
}

/// Drives `runtime` on this thread, the I/O thread, until `main` has ended, but for the times when another
/// thread has the lead. Gives the runtime back unless a leader still drives it.
///
/// # Panics
/// When `main` does.
pub(crate) fn run<F, Fut>(runtime: Runtime, main: F) -> Option<Runtime>
where
    F: FnOnce(Lead) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let runtime = Arc::new(runtime);
    let turn = Turn(0);
    let shared = Arc::new(Shared {
        runtime: Arc::downgrade(&runtime),
        turn: AtomicU64::new(turn.0),
        asleep: AtomicBool::new(false),
        io_thread: std::thread::current(),
        taken: Notify::new(),
        returned: Notify::new(),
        ended: AtomicBool::new(false),
        caution: Mutex::new(Caution {
            every: 1,
            left: 1,
            since: turn,
        }),
        process: std::process::id(),
    });
    let ended = Ended(Arc::clone(&shared));
    let main = main(Lead {
        shared: Arc::clone(&shared),
    });
    // A task, so that it goes on whoever drives.
    let mut main = runtime.spawn(async move {
        let _ended = ended;
        main.await;
    });
    loop {
        let ended = runtime.block_on(async {
            tokio::select! {
                biased;
                ended = &mut main => Some(ended),
                () = shared.taken.notified() => None,
            }
        });
        match ended {
            Some(Ok(())) => break,
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
            None => {}
        }
        shared.watch();
        shared.returned.notify_one();
    }
    Arc::into_inner(runtime)
}

/// Tells the I/O thread that there is nothing left to drive for.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::SeqCst);
        self.0.io_thread.unpark();
    }
}

impl Shared {
    /// Returns when the I/O thread has the lead: given back, or taken back from a job that lasts.
    fn watch(&self) {
        let mut seen = self.turn();
        let mut quiet = 0;
        while seen.role() != Role::Io && !self.ended.load(Ordering::SeqCst) {
            if quiet < QUIET_TICKS || seen.role() == Role::Working {
                std::thread::park_timeout(TICK);
            } else {
                self.asleep.store(true, Ordering::SeqCst);
                // A leader that has changed the turn before may not have seen that this thread sleeps.
                if self.turn() == seen && !self.ended.load(Ordering::SeqCst) {
                    std::thread::park();
                }
                self.asleep.store(false, Ordering::SeqCst);
            }
            let now = self.turn();
            if now == seen {
                quiet += 1;
                self.recall(now);
            } else {
                quiet = 0;
            }
            seen = self.turn();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread::JoinHandle;
    use tokio_util::sync::CancellationToken;

    /// An I/O thread whose main future tells each return of the lead, until it is stopped.
    struct Io {
        lead: Lead,
        returns: mpsc::Receiver<()>,
        stop: CancellationToken,
        thread: JoinHandle<bool>,
    }

    impl Io {
        fn start() -> Self {
            let stop = CancellationToken::new();
            let stopped = stop.clone();
            let (told, lead) = mpsc::channel();
            let (returned, returns) = mpsc::channel();
            let thread = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                let main = move |lead: Lead| async move {
                    told.send(lead.clone()).unwrap();
                    let tell = async {
                        loop {
                            lead.returned().await;
                            returned.send(()).unwrap();
                        }
                    };
                    tokio::select! {
                        () = tell => {}
                        () = stopped.cancelled() => {}
                    }
                };
                run(runtime, main).is_some()
            });
            let lead = lead.recv().unwrap();
            Self {
                lead,
                returns,
                stop,
                thread,
            }
        }

        /// Whether the runtime was given back at the end.
        fn end(self) -> bool {
            self.stop.cancel();
            self.thread.join().unwrap()
        }
    }

    #[test]
    fn a_leader_runs_what_the_io_thread_would() {
        let io = Io::start();
        let mut lease = io.lead.take().unwrap();
        let here = std::thread::current().id();
        // The I/O thread may run a task or two before it hears that the lead is taken.
        let ran_here = lease.drive(async move {
            while tokio::spawn(async { std::thread::current().id() })
                .await
                .unwrap()
                != here
            {
                tokio::task::yield_now().await;
            }
        });
        assert!(ran_here.is_some());
        drop(lease);
        io.returns.recv().unwrap();
        assert!(io.end());
    }

    #[test]
    fn the_lead_is_held_by_one_thread_at_a_time() {
        let io = Io::start();
        let lease = io.lead.take().unwrap();
        assert!(io.lead.take().is_none());
        drop(lease);
        assert!(io.lead.take().is_some());
        assert!(io.end());
    }

    #[test]
    fn a_job_that_lasts_costs_the_lead_and_the_io_thread_goes_on() {
        let io = Io::start();
        let mut lease = io.lead.take().unwrap();
        lease.drive(async {}).unwrap();
        assert!(lease.renew(), "a job that has just begun");
        // The job: to wait for the I/O thread, which nobody asks for anything.
        io.returns.recv().unwrap();
        assert!(!lease.holds());
        assert!(!lease.renew());
        assert_eq!(lease.drive(async {}), None);
        assert!(io.end());
    }

    #[test]
    fn a_leader_that_is_going_to_wait_gives_the_lead_back_at_once() {
        for recall in [Lease::leave, |lease: &Lease| {
            let lead = Lead {
                shared: Arc::clone(&lease.shared),
            };
            lead.recall();
        }] {
            let io = Io::start();
            let mut lease = io.lead.take().unwrap();
            lease.drive(async {}).unwrap();
            recall(&lease);
            assert!(!lease.holds());
            io.returns.recv().unwrap();
            assert!(io.end());
        }
    }

    #[test]
    fn a_leader_that_drives_is_not_recalled() {
        let io = Io::start();
        let mut lease = io.lead.take().unwrap();
        let lead = io.lead.clone();
        let driven = lease.drive(async move { lead.recall() });
        assert!(driven.is_some());
        assert!(lease.holds());
        drop(lease);
        assert!(io.end());
    }

    #[test]
    fn the_main_future_may_end_while_another_thread_drives() {
        let io = Io::start();
        let mut lease = io.lead.take().unwrap();
        let (stop, thread) = (io.stop, io.thread);
        lease
            .drive(async {
                stop.cancel();
                while !thread.is_finished() {
                    tokio::task::yield_now().await;
                }
            })
            .unwrap();
        assert!(!thread.join().unwrap(), "the leader still had the runtime");
    }

    #[test]
    fn short_leads_make_the_next_ones_rarer_and_long_ones_more_frequent() {
        let turn = Turn(0);
        let mut caution = Caution {
            every: 1,
            left: 1,
            since: turn,
        };
        let mut at = turn;
        let mut refused = Vec::new();
        for jobs in [1, 1, 1, WORTHWHILE, WORTHWHILE] {
            refused.push(
                std::iter::repeat_with(|| caution.allows())
                    .take_while(|allows| !allows)
                    .count(),
            );
            caution.since = at;
            for _ in 0..jobs {
                at = at.next(Role::Working);
            }
            caution.ended(at);
        }
        assert_eq!(refused, [0, 1, 3, 7, 3]);
        for _ in 0..20 {
            caution.since = at;
            caution.ended(at);
        }
        assert_eq!(caution.every, RAREST);
    }
}
