//! One request under a deadline, between the thread that runs it and the clock.
//!
//! The clock runs on an I/O thread, which must not wait for Python, and the application cannot be
//! interrupted. So the two meet here: whoever comes first decides what becomes of the request, and the
//! other finds that. A request without a deadline has no ticket.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Method, Uri, request::Parts};
use tokio::sync::Notify;
use tokio::time::Instant;

/// What a request with a deadline has in hand.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) limit: Duration,
    pub(crate) deadline: Instant,
    pub(crate) method: Method,
    uri: Uri,
    state: Mutex<State>,
    /// Told when the request is over.
    ended: Notify,
    /// The thread that runs the request waits for its client, in [`Ticket::poll_abandoned`].
    waits: Mutex<Option<Waker>>,
}

/// A thread of the pool, as reports name it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Runner {
    /// As Python's `threading.get_ident`.
    pub(crate) ident: u64,
    pub(crate) name: String,
}

#[derive(Debug)]
enum State {
    /// For a thread.
    Waiting,
    Running(Arc<Runner>),
    /// The deadline has passed; the thread runs on for nobody.
    Abandoned(Arc<Runner>),
    /// Nothing runs and nothing will.
    Over,
}

/// What a deadline that passed has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expired {
    /// No thread has begun the request, and none will.
    Unbegun,
    /// A thread runs it.
    Abandoned,
    /// Nothing: it is over.
    Over,
}

impl Ticket {
    /// A request that is handed over now and must have a response head `limit` later.
    pub(crate) fn new(limit: Duration, head: &Parts) -> Self {
        Self {
            limit,
            deadline: Instant::now() + limit,
            method: head.method.clone(),
            uri: head.uri.clone(),
            state: Mutex::new(State::Waiting),
            ended: Notify::new(),
            waits: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Without the query, which may hold what no log should.
    pub(crate) fn path(&self) -> &str {
        self.uri.path()
    }

    /// A thread begins the request; `false` when it came too late.
    pub(crate) fn begin(&self, runner: &Arc<Runner>) -> bool {
        let mut state = self.lock();
        let begins = matches!(*state, State::Waiting);
        if begins {
            *state = State::Running(Arc::clone(runner));
        }
        begins
    }

    /// The thread is done with the request; whether it had been abandoned. Then `returned` runs before
    /// anybody can find the request over.
    pub(crate) fn end(&self, returned: impl FnOnce()) -> bool {
        let mut state = self.lock();
        let abandoned = matches!(*state, State::Abandoned(_));
        if abandoned {
            returned();
        }
        *state = State::Over;
        drop(state);
        self.ended.notify_one();
        abandoned
    }

    /// The deadline has passed. `abandon` runs if a thread is left to the request, before that thread
    /// can return.
    pub(crate) fn expire(&self, abandon: impl FnOnce()) -> Expired {
        let mut state = self.lock();
        match &*state {
            State::Waiting => {
                *state = State::Over;
                Expired::Unbegun
            }
            State::Running(runner) => {
                *state = State::Abandoned(Arc::clone(runner));
                abandon();
                drop(state);
                let waits = self.waiting().take();
                if let Some(waker) = waits {
                    waker.wake();
                }
                Expired::Abandoned
            }
            State::Abandoned(_) | State::Over => Expired::Over,
        }
    }

    /// The thread that runs the request although its deadline has passed.
    pub(crate) fn abandoned_thread(&self) -> Option<Arc<Runner>> {
        match &*self.lock() {
            State::Abandoned(runner) => Some(Arc::clone(runner)),
            State::Waiting | State::Running(_) | State::Over => None,
        }
    }

    /// Returns when the request is over. For one who waits.
    pub(crate) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Ready when the deadline has passed while the thread that asks runs the request.
    pub(crate) fn poll_abandoned(&self, cx: &Context<'_>) -> Poll<()> {
        // Before the look: a deadline that passes after it finds the waker.
        *self.waiting() = Some(cx.waker().clone());
        match *self.lock() {
            State::Abandoned(_) => Poll::Ready(()),
            State::Waiting | State::Running(_) | State::Over => Poll::Pending,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use super::*;

    fn ticket() -> Ticket {
        let (head, ()) = http::Request::get("/report?key=1")
            .body(())
            .unwrap()
            .into_parts();
        Ticket::new(Duration::from_secs(1), &head)
    }

    fn runner() -> Arc<Runner> {
        Arc::new(Runner {
            ident: 7,
            name: "twinspan-shop-1".into(),
        })
    }

    #[test]
    fn a_request_that_expires_before_a_thread_begins_it_never_runs() {
        let ticket = ticket();
        assert_eq!(ticket.expire(|| panic!("no thread")), Expired::Unbegun);
        assert!(!ticket.begin(&runner()));
        ticket.end(|| panic!("no thread"));
    }

    #[test]
    fn a_thread_is_abandoned_once_and_returns_once() {
        let (ticket, mut lost) = (ticket(), 0);
        assert!(ticket.begin(&runner()));
        assert_eq!(ticket.expire(|| lost += 1), Expired::Abandoned);
        assert_eq!(ticket.abandoned_thread(), Some(runner()));
        assert_eq!(ticket.expire(|| lost += 1), Expired::Over);
        assert_eq!(lost, 1);
        ticket.end(|| lost -= 1);
        assert_eq!(lost, 0);
        assert_eq!(ticket.abandoned_thread(), None);
    }

    #[test]
    fn a_thread_that_waits_for_its_client_is_woken_at_the_deadline() {
        let (ticket, woken) = (ticket(), Arc::new(Woken::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let cx = Context::from_waker(&waker);
        assert!(ticket.begin(&runner()));
        assert!(ticket.poll_abandoned(&cx).is_pending());
        ticket.expire(|| ());
        assert!(woken.0.load(Ordering::Relaxed));
        assert!(ticket.poll_abandoned(&cx).is_ready());
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_request_that_was_over_first_costs_no_thread() {
        let ticket = ticket();
        assert!(ticket.begin(&runner()));
        ticket.end(|| panic!("not abandoned"));
        assert_eq!(ticket.expire(|| panic!("it is over")), Expired::Over);
    }

    #[test]
    fn a_report_names_the_path_without_the_query() {
        assert_eq!(ticket().path(), "/report");
    }
}
