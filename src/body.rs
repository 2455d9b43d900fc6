//! Bodies: one type in both directions, whatever carries the bytes.
//!
//! A body that is produced piece by piece comes through a [`channel`], bounded in bytes: the producer
//! (a WSGI thread or the asyncio thread) waits while the client is slow. Its rule is that only
//! [`Sender::finish`] ends a body well; a sender that is dropped aborts it, so that a response which
//! broke half-way never looks complete.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use crate::policy::fallthrough::Replayed;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::time::Instant;

/// Why a body ended before its end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BodyError {
    /// The other side of the connection has gone, or sent less than it announced.
    #[error("the client has disconnected")]
    Disconnected,
    /// The bytes on the wire are not a body.
    #[error("invalid body: {0}")]
    Invalid(String),
    /// The producer gave up: the connection is reset instead of ended.
    #[error("the response was aborted: {0}")]
    Aborted(String),
}

/// How much of a body that nobody reads is read for the sake of its connection, unless a response that
/// promised to keep the connection is on its way already.
pub(crate) const DRAIN_BYTES: usize = 256 * 1024;
/// How long that may take in any case.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// How much of a response may be sent that nobody wants, as its head was all: an application with an end
/// comes to it, as it does for GET, and one without learns that nobody listens.
const SURPLUS_BYTES: usize = 16 * 1024 * 1024;
/// How long that may take.
const SURPLUS_LIMIT: Duration = Duration::from_secs(10);
const SURPLUS_STRETCH: usize = 64 * 1024;

/// A request or response body.
#[derive(Default)]
pub struct Body {
    /// Bytes that were read ahead of whoever asks next.
    ahead: Option<Bytes>,
    inner: Inner,
    drain: Option<DrainOnDrop>,
}

/// What becomes of a rest that nobody reads.
struct DrainOnDrop {
    runtime: Handle,
    rest: Arc<Rest>,
    /// The client sends nothing before it is asked for it (`Expect: 100-continue`).
    awaits_reader: bool,
}

/// Whether the rest of a request body is read, so that the connection can take the next request. The
/// response has to say so, and may be on its way before the rest has come: whoever comes first decides.
#[derive(Debug, Default)]
pub(crate) struct Rest(OnceLock<bool>);

impl Rest {
    /// The response is going to keep the connection; false when the rest was given up.
    pub(crate) fn keep(&self) -> bool {
        *self.0.get_or_init(|| true)
    }

    /// The rest is too much; false when it was promised to be read.
    pub(crate) fn give_up(&self) -> bool {
        !*self.0.get_or_init(|| false)
    }
}

#[derive(Default)]
enum Inner {
    #[default]
    Empty,
    Full(Bytes),
    Incoming(hyper::body::Incoming),
    Channel(Receiver),
    /// Can be read a second time.
    Replayed(Replayed),
    Failed(BodyError),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.inner {
            Inner::Empty => "Body::Empty",
            Inner::Full(_) => "Body::Full",
            Inner::Incoming(_) => "Body::Incoming",
            Inner::Channel(_) => "Body::Channel",
            Inner::Replayed(_) => "Body::Replayed",
            Inner::Failed(_) => "Body::Failed",
        })
    }
}

impl Body {
    pub fn empty() -> Self {
        Self::default()
    }

    /// One that can be read a second time.
    pub(crate) fn replayed(replayed: Replayed) -> Self {
        Inner::Replayed(replayed).into()
    }

    /// Looks at what is on its way already, so that the application finds a small body whole.
    ///
    /// Gives the connection one turn to read; never waits for the client.
    pub async fn read_ahead(&mut self) {
        if self.ahead.is_some() || !matches!(self.inner, Inner::Incoming(_)) {
            return;
        }
        let mut turns = 2;
        poll_fn(|cx| {
            turns -= 1;
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.ahead = frame.into_data().ok();
                    if http_body::Body::is_end_stream(&self.inner) {
                        self.inner = Inner::Empty;
                    }
                    Poll::Ready(())
                }
                Poll::Ready(Some(Err(error))) => {
                    self.inner = Inner::Failed(error);
                    Poll::Ready(())
                }
                Poll::Ready(None) => {
                    self.inner = Inner::Empty;
                    Poll::Ready(())
                }
                Poll::Pending if turns == 0 => Poll::Ready(()),
                Poll::Pending => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            }
        })
        .await;
    }

    /// Reads a rest that nobody has read when the body is dropped, on the current runtime, so that the
    /// connection can take the next request. With `awaits_reader`, the client sends nothing before the
    /// body is read: then nothing is asked for in vain.
    pub(crate) fn drain_on_drop(&mut self, awaits_reader: bool) -> Arc<Rest> {
        let rest = Arc::new(Rest::default());
        self.drain = Some(DrainOnDrop {
            runtime: Handle::current(),
            rest: Arc::clone(&rest),
            awaits_reader,
        });
        rest
    }

    /// The next bytes; `None` at the end. Trailers are passed over.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            match ready!(http_body::Body::poll_frame(Pin::new(self), cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
            }
        }
    }

    /// The next bytes; `None` at the end. Trailers are passed over.
    pub async fn data(&mut self) -> Option<Result<Bytes, BodyError>> {
        poll_fn(|cx| self.poll_data(cx)).await
    }

    /// Nothing more is wanted. What the producer still sends is thrown away, so that one with an end comes to
    /// it; one that goes on for longer is told that its reader has gone.
    pub fn satisfied(self) {
        if let Inner::Channel(receiver) = &self.inner {
            receiver.shared.lock().satisfied = Some(Surplus::new());
        }
    }

    /// Whether something is to come after the last byte.
    pub(crate) fn has_trailers(&self) -> bool {
        matches!(&self.inner, Inner::Channel(receiver) if receiver.shared.lock().trailers)
    }

    /// How many bytes are still to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        http_body::Body::size_hint(self).exact()
    }

    /// Whether nothing is left to read, as far as is known without reading.
    pub fn is_finished(&self) -> bool {
        http_body::Body::is_end_stream(self)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(drain) = self.drain.take()
            && let Inner::Incoming(incoming) = &self.inner
            && !incoming.is_end_stream()
        {
            let DrainOnDrop { runtime, rest, .. } = drain;
            if drain.awaits_reader && rest.give_up() {
                return;
            }
            let mut body = Self::from(std::mem::take(&mut self.inner));
            runtime.spawn(async move {
                let mut read = 0;
                let end = async {
                    while (read < DRAIN_BYTES || !rest.give_up())
                        && let Some(Ok(data)) = body.data().await
                    {
                        read += data.len();
                    }
                };
                if tokio::time::timeout(DRAIN_LIMIT, end).await.is_err() {
                    // Too slow a client loses its connection within its request, not the next one.
                    rest.give_up();
                }
            });
        }
    }
}

impl From<Inner> for Body {
    fn from(inner: Inner) -> Self {
        Self {
            ahead: None,
            inner,
            drain: None,
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        let inner = if bytes.is_empty() {
            Inner::Empty
        } else {
            Inner::Full(bytes)
        };
        inner.into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<hyper::body::Incoming> for Body {
    fn from(incoming: hyper::body::Incoming) -> Self {
        let inner = if http_body::Body::is_end_stream(&incoming) {
            Inner::Empty
        } else {
            Inner::Incoming(incoming)
        };
        inner.into()
    }
}

impl From<Receiver> for Body {
    fn from(receiver: Receiver) -> Self {
        Inner::Channel(receiver).into()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(bytes) = self.ahead.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if let Some(drain) = &mut self.drain {
            drain.awaits_reader = false;
        }
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_none() && http_body::Body::is_end_stream(&self.inner)
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = http_body::Body::size_hint(&self.inner);
        if let Some(ahead) = &self.ahead {
            let ahead = ahead.len() as u64;
            if let Some(upper) = hint.upper() {
                hint.set_upper(upper + ahead);
            }
            hint.set_lower(hint.lower() + ahead);
        }
        hint
    }
}

impl http_body::Body for Inner {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Incoming(incoming) => match ready!(Pin::new(incoming).poll_frame(cx)) {
                None => Poll::Ready(None),
                Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
                Some(Err(error)) => {
                    // For good: whoever reads on must not take what broke off for an end.
                    let error = incoming_error(&error);
                    *self = Self::Failed(error.clone());
                    Poll::Ready(Some(Err(error)))
                }
            },
            Self::Channel(receiver) => receiver.poll_frame(cx),
            Self::Replayed(replayed) => Pin::new(replayed).poll_frame(cx),
            Self::Failed(error) => Poll::Ready(Some(Err(error.clone()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) | Self::Failed(_) => false,
            Self::Incoming(incoming) => incoming.is_end_stream(),
            Self::Channel(receiver) => receiver.is_end_stream(),
            Self::Replayed(replayed) => replayed.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Incoming(incoming) => incoming.size_hint(),
            Self::Replayed(replayed) => replayed.size_hint(),
            Self::Channel(_) | Self::Failed(_) => SizeHint::default(),
        }
    }
}

fn incoming_error(error: &hyper::Error) -> BodyError {
    if error.is_parse() {
        BodyError::Invalid(error.to_string())
    } else {
        BodyError::Disconnected
    }
}

/// A body that is produced piece by piece; at most `limit` bytes wait in it before the sender is held back.
///
/// One piece larger than `limit` passes when nothing else waits, so a limit never deadlocks.
pub fn channel(limit: usize) -> (Sender, Receiver) {
    let shared = Arc::new(Shared {
        limit,
        state: Mutex::new(State::default()),
    });
    let sender = Sender {
        shared: Some(Arc::clone(&shared)),
    };
    (sender, Receiver { shared })
}

struct Shared {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Bytes>,
    queued: usize,
    end: Option<End>,
    receiver_gone: bool,
    /// The receiver has gone because it has all that it wants.
    satisfied: Option<Surplus>,
    /// Trailers were promised.
    trailers: bool,
    receiver: Option<Waker>,
    /// Waits for room.
    room: Option<Waker>,
    /// Waits for the receiver to go.
    leaving: Option<Waker>,
}

/// What a producer may still send that nobody wants.
struct Surplus {
    bytes: usize,
    until: Instant,
    /// Bytes until the producer gives way to others once, as waiting for a reader would make it.
    stretch: usize,
}

impl Surplus {
    fn new() -> Self {
        Self {
            bytes: SURPLUS_BYTES,
            until: Instant::now() + SURPLUS_LIMIT,
            stretch: SURPLUS_STRETCH,
        }
    }

    fn add(&mut self, piece: &Bytes) {
        // Small pieces cost time too.
        let weight = piece.len().max(512);
        self.bytes = self.bytes.saturating_sub(weight);
        self.stretch = self.stretch.saturating_sub(weight);
    }

    fn poll_gives_way(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.stretch > 0 {
            return Poll::Ready(());
        }
        self.stretch = SURPLUS_STRETCH;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_used_up(&self) -> bool {
        self.bytes == 0 || self.until <= Instant::now()
    }
}

impl State {
    fn is_disconnected(&self) -> bool {
        self.receiver_gone && self.satisfied.as_ref().is_none_or(Surplus::is_used_up)
    }
}

enum End {
    Finished(Option<HeaderMap>),
    Aborted(String),
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held leaves plain data behind, never a broken invariant.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The producing side of a [`channel`]. Dropping it without [`Sender::finish`] aborts the body.
pub struct Sender {
    shared: Option<Arc<Shared>>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("body::Sender")
    }
}

/// The receiver of a body has gone: the client has disconnected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client has disconnected")]
pub struct Disconnected;

impl Sender {
    /// Queues a piece without waiting; call [`Sender::poll_ready`] first to respect the limit.
    ///
    /// # Errors
    /// [`Disconnected`] when nobody will read it.
    pub fn push(&mut self, piece: Bytes) -> Result<(), Disconnected> {
        let shared = self.shared.as_ref().ok_or(Disconnected)?;
        let mut state = shared.lock();
        if state.is_disconnected() {
            return Err(Disconnected);
        }
        if let Some(surplus) = &mut state.satisfied {
            surplus.add(&piece);
            return Ok(());
        }
        if piece.is_empty() {
            return Ok(());
        }
        state.queued += piece.len();
        state.queue.push_back(piece);
        let waker = state.receiver.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Ready when the next piece may be pushed.
    ///
    /// # Errors
    /// [`Disconnected`] when nobody will read it.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Disconnected>> {
        let Some(shared) = &self.shared else {
            return Poll::Ready(Err(Disconnected));
        };
        let mut state = shared.lock();
        if state.is_disconnected() {
            return Poll::Ready(Err(Disconnected));
        }
        if let Some(surplus) = &mut state.satisfied {
            return surplus.poll_gives_way(cx).map(Ok);
        }
        if state.queued < shared.limit {
            return Poll::Ready(Ok(()));
        }
        state.room = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether the receiver has gone before it had all that it wanted.
    pub fn is_disconnected(&self) -> bool {
        self.shared
            .as_ref()
            .is_none_or(|shared| shared.lock().is_disconnected())
    }

    /// Whether the receiver has all that it wants: more is thrown away.
    pub fn is_satisfied(&self) -> bool {
        self.shared
            .as_ref()
            .is_some_and(|shared| shared.lock().satisfied.is_some())
    }

    /// Ready once the receiver has gone, for whatever reason.
    pub fn poll_disconnected(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(shared) = &self.shared else {
            return Poll::Ready(());
        };
        let mut state = shared.lock();
        if state.receiver_gone {
            return Poll::Ready(());
        }
        state.leaving = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Promises trailers: the body does not end with its last byte.
    pub fn promise_trailers(&mut self) {
        if let Some(shared) = &self.shared {
            shared.lock().trailers = true;
        }
    }

    /// Ends the body well.
    pub fn finish(self) {
        self.end(End::Finished(None));
    }

    /// Ends the body well, with trailers (RFC 9110 §6.5).
    pub fn finish_with_trailers(self, trailers: HeaderMap) {
        self.end(End::Finished(Some(trailers)));
    }

    /// Ends the body badly: the connection is reset, so that the response does not look complete.
    pub fn abort(self, reason: impl Into<String>) {
        self.end(End::Aborted(reason.into()));
    }

    fn end(mut self, end: End) {
        if let Some(shared) = self.shared.take() {
            set_end(&shared, end);
        }
    }
}

fn set_end(shared: &Shared, end: End) {
    let mut state = shared.lock();
    state.end = Some(end);
    let waker = state.receiver.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            set_end(&shared, End::Aborted("the application stopped".into()));
        }
    }
}

/// The reading side of a [`channel`]; becomes a [`Body`].
pub struct Receiver {
    shared: Arc<Shared>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("body::Receiver")
    }
}

impl Receiver {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.shared.lock();
        if let Some(piece) = state.queue.pop_front() {
            state.queued -= piece.len();
            let waker = state.room.take();
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match &mut state.end {
            None => {
                state.receiver = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(End::Finished(trailers)) => {
                Poll::Ready(trailers.take().map(|fields| Ok(Frame::trailers(fields))))
            }
            Some(End::Aborted(reason)) => {
                Poll::Ready(Some(Err(BodyError::Aborted(reason.clone()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = self.shared.lock();
        state.queue.is_empty() && matches!(state.end, Some(End::Finished(None)))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.receiver_gone = true;
        let dropped = std::mem::take(&mut state.queue);
        let wakers = [state.room.take(), state.leaving.take()];
        drop(state);
        drop(dropped);
        for waker in wakers.into_iter().flatten() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::task::Waker;

    fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
        Box::pin(future)
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn pieces_arrive_in_order_and_the_end_is_seen() {
        let (mut sender, receiver) = channel(10);
        sender.push(Bytes::from_static(b"one")).unwrap();
        sender.push(Bytes::from_static(b"two")).unwrap();
        sender.finish();
        let mut body = Body::from(receiver);
        assert_eq!(body.data().await.unwrap().unwrap(), "one");
        assert_eq!(body.data().await.unwrap().unwrap(), "two");
        assert!(body.data().await.is_none());
        assert!(body.is_finished());
    }

    #[tokio::test]
    async fn a_full_channel_holds_the_sender_back_until_the_reader_takes_a_piece() {
        let (mut sender, receiver) = channel(3);
        sender.push(Bytes::from_static(b"abcdef")).unwrap();
        assert!(poll_once(poll_fn(|cx| sender.poll_ready(cx))).is_pending());
        let mut body = Body::from(receiver);
        body.data().await.unwrap().unwrap();
        assert_eq!(
            poll_once(poll_fn(|cx| sender.poll_ready(cx))),
            Poll::Ready(Ok(()))
        );
    }

    #[tokio::test]
    async fn a_dropped_sender_aborts_the_body() {
        let (mut sender, receiver) = channel(10);
        sender.push(Bytes::from_static(b"half")).unwrap();
        drop(sender);
        let mut body = Body::from(receiver);
        body.data().await.unwrap().unwrap();
        assert!(matches!(
            body.data().await,
            Some(Err(BodyError::Aborted(_)))
        ));
    }

    #[test]
    fn a_sender_whose_reader_has_enough_may_end_but_not_go_on_for_ever() {
        let piece = || Bytes::from(vec![0; SURPLUS_BYTES / 4]);
        let (mut sender, receiver) = channel(1);
        Body::from(receiver).satisfied();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(sender.poll_disconnected(&mut cx).is_ready(), "it may stop");
        for _ in 0..3 {
            assert_eq!(sender.push(piece()), Ok(()));
            assert!(sender.poll_ready(&mut cx).is_pending(), "others first");
            assert_eq!(sender.poll_ready(&mut cx), Poll::Ready(Ok(())));
        }
        assert_eq!(sender.push(piece()), Ok(()));
        assert!(sender.is_satisfied());
        assert_eq!(sender.push(piece()), Err(Disconnected), "too much");
        assert!(matches!(sender.poll_ready(&mut cx), Poll::Ready(Err(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_whose_reader_has_enough_is_not_heard_for_long() {
        let (mut sender, receiver) = channel(1);
        Body::from(receiver).satisfied();
        tokio::time::advance(SURPLUS_LIMIT / 2).await;
        assert_eq!(sender.push(Bytes::from_static(b"x")), Ok(()));
        tokio::time::advance(SURPLUS_LIMIT / 2).await;
        assert_eq!(sender.push(Bytes::from_static(b"x")), Err(Disconnected));
    }

    #[test]
    fn a_dropped_receiver_is_a_disconnect() {
        let (mut sender, receiver) = channel(10);
        drop(receiver);
        assert!(sender.is_disconnected());
        assert_eq!(sender.push(Bytes::from_static(b"x")), Err(Disconnected));
    }
}
