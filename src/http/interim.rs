//! Interim responses before the final one (RFC 9110 §15.2): 103 Early Hints (RFC 8297).
//!
//! hyper cannot send them. On HTTP/1 an application's thread leaves them at the connection, and
//! [`Wire`](super::wire::Wire) writes them when hyper has nothing of its own to write. Only then does the
//! dispatcher hand over the final response, so that hints come neither after it nor within an earlier
//! one. The frames of HTTP/2 are out of reach (hyper pull request 4114), and HTTP/1.0 knows none.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::wire::Control;

/// Bytes of hints that wait for a client that does not read; more are dropped, as hints may be.
const LIMIT: usize = 64 * 1024;

/// Sends interim responses for one request, until its final response begins.
#[derive(Debug)]
pub struct Interim {
    control: Arc<Control>,
    turn: u64,
}

impl Interim {
    pub(crate) fn new(control: &Arc<Control>) -> Self {
        Self {
            control: Arc::clone(control),
            turn: control.interim.turn.load(Ordering::Relaxed),
        }
    }

    /// Tells the client what it will need, with 103. The fields are those of `headers`, which have been
    /// checked: none of a connection, and no `Content-Length` (RFC 9110 §8.6).
    pub fn early_hints(&self, headers: &HeaderMap) {
        let mut head = BytesMut::from("HTTP/1.1 103 Early Hints\r\n");
        for (name, value) in headers {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        self.control.interim.push(self.turn, &head);
    }
}

/// Interim responses of a connection that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Counts final responses, and so tells whose turn it is. Only the connection's task changes it.
    turn: AtomicU64,
    waiting: AtomicBool,
    heads: Mutex<Heads>,
    /// The task is known, or not wanted any more.
    driven: AtomicBool,
}

#[derive(Debug, Default)]
struct Heads {
    turn: u64,
    bytes: BytesMut,
    /// The task of the connection, which is one and the same until an upgrade.
    task: Option<Waker>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Heads> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, turn: u64, head: &[u8]) {
        let mut heads = self.lock();
        if turn != self.turn.load(Ordering::Relaxed) {
            return;
        }
        if heads.turn != turn {
            // Left by a thread that was late.
            heads.bytes.clear();
            heads.turn = turn;
        }
        if heads.bytes.len() + head.len() > LIMIT {
            return;
        }
        heads.bytes.extend_from_slice(head);
        self.waiting.store(true, Ordering::Release);
        let task = heads.task.clone();
        drop(heads);
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Remembers whom to wake, the first time.
    pub(super) fn driven_by(&self, cx: &Context<'_>) {
        if !self.driven.load(Ordering::Relaxed) {
            self.driven.store(true, Ordering::Relaxed);
            self.lock().task = Some(cx.waker().clone());
        }
    }

    /// Forgets the task: its memory would stay for as long as the connection lives under another protocol.
    pub(super) fn upgraded(&self) {
        self.driven.store(true, Ordering::Relaxed);
        self.lock().task = None;
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// What is to be written now; `None` when there is nothing left.
    pub(super) fn next(&self) -> Option<Bytes> {
        let mut heads = self.lock();
        let bytes = heads.bytes.split().freeze();
        if bytes.is_empty() || heads.turn != self.turn.load(Ordering::Relaxed) {
            self.waiting.store(false, Ordering::Release);
            return None;
        }
        Some(bytes)
    }

    /// Returns when everything is written; what comes later is too late.
    pub(super) async fn close(&self) {
        if self.is_waiting() {
            // The wire wakes this task after it has written.
            poll_fn(|_| {
                if self.is_waiting() {
                    Poll::Pending
                } else {
                    Poll::Ready(())
                }
            })
            .await;
        }
        let next = self.turn.load(Ordering::Relaxed).wrapping_add(1);
        self.turn.store(next, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Wake;

    struct Task;

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn a_task_is_remembered_until_an_upgrade_and_no_longer() {
        let task = Arc::new(Task);
        let waker = Waker::from(Arc::clone(&task));
        let queue = Queue::default();
        let held = || Arc::strong_count(&task) - 2;
        for _ in 0..2 {
            queue.driven_by(&Context::from_waker(&waker));
            assert_eq!(held(), 1);
        }
        queue.upgraded();
        queue.driven_by(&Context::from_waker(&waker));
        assert_eq!(held(), 0);
    }
}
