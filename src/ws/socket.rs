//! The application's side of an open connection: messages in and out, and how it ends.
//!
//! Both directions are bounded. What the client sends waits until the application asks for it, and
//! reading pauses when too much waits; what the application sends waits while the client is slow, and
//! [`Sender::poll_ready`] holds the application back. The halves are polled, from any thread: the pump
//! on the I/O thread moves the messages.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
pub use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Bytes that wait for the application before reading pauses; one larger message passes alone.
const INCOMING_BYTES: usize = 1024 * 1024;
/// Bytes that wait for the client before the application is held back; one larger message passes alone.
const OUTGOING_BYTES: usize = 64 * 1024;

/// A message in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Text(Utf8Bytes),
    Binary(Bytes),
}

impl Message {
    /// What the message costs while it waits; an empty one is not free.
    fn weight(&self) -> usize {
        let payload = match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        };
        payload + size_of::<Self>()
    }
}

/// How a connection ended: 1005 without a code, 1006 without a close frame (RFC 6455 §7.1.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    pub code: u16,
    pub reason: Cow<'static, str>,
}

impl Close {
    /// The connection ended without a close frame, or never opened.
    pub const LOST: Self = Self::fixed(1006, "");
    /// The close frame held no code.
    pub(super) const NO_CODE: Self = Self::fixed(1005, "");
    /// The application stopped without closing.
    const STOPPED: Self = Self::fixed(1011, "");
    /// The server stops; a client should connect again (RFC 6455 §7.4.1, IANA registry).
    pub(super) const RESTART: Self = Self::fixed(1012, "the server is shutting down");

    pub(super) const fn fixed(code: u16, reason: &'static str) -> Self {
        Self {
            code,
            reason: Cow::Borrowed(reason),
        }
    }
}

/// The connection is closed: nothing can be sent any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the WebSocket is closed")]
pub struct Closed;

/// Why a connection could not be closed in the way asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CloseError {
    #[error(transparent)]
    Closed(#[from] Closed),
    #[error(
        "close code {0} cannot be sent; allowed are 1000 to 1003, 1007 to 1014 and 3000 to 4999"
    )]
    Code(u16),
    #[error("a close reason has at most {MAX_REASON} bytes of UTF-8, this one has {0}")]
    Reason(usize),
}

/// What a close frame holds beside its code (RFC 6455 §5.5).
const MAX_REASON: usize = 123;

/// The two ends of a connection: the application's halves, and the pump's link to them.
pub(super) fn channel(queue: usize) -> (Sender, Receiver, Link) {
    let shared = Arc::new(Shared {
        queue: queue.max(1),
        state: Mutex::new(State::default()),
    });
    let sender = Sender {
        shared: Arc::clone(&shared),
    };
    let receiver = Receiver {
        shared: Arc::clone(&shared),
    };
    (sender, receiver, Link { shared })
}

struct Shared {
    /// Messages that wait for the application before reading pauses.
    queue: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    incoming: VecDeque<Message>,
    incoming_bytes: usize,
    outgoing: VecDeque<Message>,
    outgoing_bytes: usize,
    /// To be sent to the client after `outgoing`.
    closing: Option<Close>,
    /// What the application sees after `incoming`; it can send nothing more.
    ended: Option<Close>,
    /// Nobody wants `incoming`.
    receiver_gone: bool,
    receiver: Option<Waker>,
    sender: Option<Waker>,
    pump: Option<Waker>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held leaves plain data behind, never a broken invariant.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room(&self, queue: usize) -> bool {
        self.incoming.len() < queue && self.incoming_bytes < INCOMING_BYTES
    }

    fn discard_incoming(&mut self) -> VecDeque<Message> {
        self.incoming_bytes = 0;
        std::mem::take(&mut self.incoming)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Replaces a waker only where that is needed: a clone is a counter that two threads share.
fn register(slot: &mut Option<Waker>, cx: &Context<'_>) {
    if !slot.as_ref().is_some_and(|old| old.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}

/// The sending half. Dropping it without [`Sender::close`] closes the connection with 1011.
pub struct Sender {
    shared: Arc<Shared>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ws::Sender")
    }
}

impl Sender {
    /// Ready when another message may be sent; pending while the client is slow.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        let mut state = self.shared.lock();
        if state.ended.is_some() {
            return Poll::Ready(Err(Closed));
        }
        if state.outgoing_bytes < OUTGOING_BYTES {
            return Poll::Ready(Ok(()));
        }
        register(&mut state.sender, cx);
        Poll::Pending
    }

    /// Sends a message, whether or not [`Sender::poll_ready`] was asked before.
    pub fn push(&mut self, message: Message) -> Result<(), Closed> {
        let mut state = self.shared.lock();
        if state.ended.is_some() {
            return Err(Closed);
        }
        state.outgoing_bytes += message.weight();
        state.outgoing.push_back(message);
        let pump = state.pump.take();
        drop(state);
        wake(pump);
        Ok(())
    }

    /// Closes the connection once everything that was sent has gone out.
    ///
    /// # Errors
    /// A connection that is closed, a code that must not be sent (RFC 6455 §7.4), or a reason that does
    /// not fit into a close frame. The connection stays as it was.
    pub fn close(&mut self, code: u16, reason: &str) -> Result<(), CloseError> {
        if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
            return Err(CloseError::Code(code));
        }
        if reason.len() > MAX_REASON {
            return Err(CloseError::Reason(reason.len()));
        }
        let close = Close {
            code,
            reason: Cow::Owned(reason.to_owned()),
        };
        Ok(self.close_with(close)?)
    }

    fn close_with(&mut self, close: Close) -> Result<(), Closed> {
        let mut state = self.shared.lock();
        if state.ended.is_some() {
            return Err(Closed);
        }
        state.closing = Some(close.clone());
        state.ended = Some(close);
        let dropped = state.discard_incoming();
        let (pump, receiver) = (state.pump.take(), state.receiver.take());
        drop(state);
        drop(dropped);
        wake(pump);
        wake(receiver);
        Ok(())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _already_closed = self.close_with(Close::STOPPED);
    }
}

/// The receiving half.
pub struct Receiver {
    shared: Arc<Shared>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ws::Receiver")
    }
}

impl Receiver {
    /// The next message; after the last one, how the connection ended, as often as it is asked.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Close>> {
        let mut state = self.shared.lock();
        let was_full = !state.has_room(self.shared.queue);
        if let Some(message) = state.incoming.pop_front() {
            state.incoming_bytes -= message.weight();
            // Only a pump that has paused reading waits for this.
            let pump = if was_full { state.pump.take() } else { None };
            drop(state);
            wake(pump);
            return Poll::Ready(Ok(message));
        }
        if let Some(close) = &state.ended {
            return Poll::Ready(Err(close.clone()));
        }
        register(&mut state.receiver, cx);
        Poll::Pending
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.receiver_gone = true;
        let dropped = state.discard_incoming();
        let pump = state.pump.take();
        drop(state);
        drop(dropped);
        wake(pump);
    }
}

/// What the pump has to send next.
pub(super) enum Outgoing {
    Message(Message),
    Close(Close),
}

/// The pump's side of the channel.
pub(super) struct Link {
    shared: Arc<Shared>,
}

impl Link {
    /// Names the waker for whatever the application does from here on; says whether a close frame waits.
    pub(super) fn register(&self, cx: &Context<'_>) -> bool {
        let mut state = self.shared.lock();
        register(&mut state.pump, cx);
        state.closing.is_some()
    }

    /// Whether another message may be delivered; `false` while the application is slow.
    pub(super) fn has_room(&self) -> bool {
        let state = self.shared.lock();
        state.ended.is_some() || state.has_room(self.shared.queue)
    }

    /// Hands a message to the application, unless nobody wants it any more.
    pub(super) fn deliver(&self, message: Message) {
        let mut state = self.shared.lock();
        if state.receiver_gone || state.ended.is_some() {
            return;
        }
        state.incoming_bytes += message.weight();
        state.incoming.push_back(message);
        let receiver = state.receiver.take();
        drop(state);
        wake(receiver);
    }

    /// What is to be sent next, if anything.
    pub(super) fn next(&self) -> Option<Outgoing> {
        let mut state = self.shared.lock();
        let Some(message) = state.outgoing.pop_front() else {
            return state.closing.take().map(Outgoing::Close);
        };
        state.outgoing_bytes -= message.weight();
        let sender = if state.outgoing_bytes < OUTGOING_BYTES {
            state.sender.take()
        } else {
            None
        };
        drop(state);
        wake(sender);
        Some(Outgoing::Message(message))
    }

    /// Closes from the server's side once everything that was sent has gone out.
    pub(super) fn close(&self, close: Close) {
        self.end_with(close, |state, close| state.closing = Some(close));
    }

    /// Tells the application how the connection ended; what it has not sent yet is dropped.
    pub(super) fn end(&self, close: Close) {
        self.end_with(close, |state, _| {
            state.outgoing_bytes = 0;
            state.outgoing.clear();
        });
    }

    /// The first end counts: what the application did or saw already stays true.
    fn end_with(&self, close: Close, act: impl FnOnce(&mut State, Close)) {
        let mut state = self.shared.lock();
        if state.ended.is_some() {
            return;
        }
        state.ended = Some(close.clone());
        act(&mut state, close);
        let (sender, receiver) = (state.sender.take(), state.receiver.take());
        drop(state);
        wake(sender);
        wake(receiver);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The pump was dropped at the end of a drain: the application must not wait for ever.
        self.end(Close::LOST);
    }
}
