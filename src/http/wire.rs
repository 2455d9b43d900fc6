//! The one wrapper around every stream: it gives back what sniffing has read, follows the framing
//! strictly, and can reset the connection so that an aborted response never looks complete.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::interim;
use super::strict::{Part, Tracker, Verdict};

/// What a connection runs over: a socket, or a pipe in tests.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Makes the coming drop a reset instead of an orderly end, where the transport knows one.
    fn abort(&mut self) {}
}

impl Stream for tokio::io::DuplexStream {}

impl Stream for crate::listen::Socket {
    fn abort(&mut self) {
        Self::abort(self);
    }
}

/// How long the end of an unread request body is waited for, so that the response is not lost in a reset.
const LINGER: Duration = Duration::from_secs(1);
/// Up to here several pieces are written as one.
const JOINED_WRITE: usize = 1024;
/// How much of an unread request body is thrown away before the connection is given up.
const LINGER_BYTES: usize = 256 * 1024;

/// Shared by a connection, its requests and its timer.
#[derive(Debug)]
pub struct Control {
    /// Reset the connection when it is dropped.
    aborted: AtomicBool,
    upgrade: AtomicU8,
    /// Milliseconds since `epoch`.
    last_activity: AtomicU64,
    in_flight: AtomicU64,
    in_head: AtomicBool,
    body_left: AtomicU64,
    refused: std::sync::OnceLock<Refused>,
    pub(super) interim: interim::Queue,
    epoch: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Refused {
    reason: &'static str,
    part: Part,
}

const UPGRADE_NONE: u8 = 0;
const UPGRADE_DECLINED: u8 = 1;
const UPGRADE_ACCEPTED: u8 = 2;

/// What a connection is doing, for its timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests, since this moment.
    Idle(Instant),
    /// A request head has begun, at this moment or a little before.
    Head(Instant),
    /// At least one request is being answered, or another protocol has taken over.
    Busy,
}

impl Control {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            aborted: AtomicBool::new(false),
            upgrade: AtomicU8::new(UPGRADE_NONE),
            last_activity: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            in_head: AtomicBool::new(false),
            body_left: AtomicU64::new(0),
            refused: std::sync::OnceLock::new(),
            interim: interim::Queue::default(),
            epoch: Instant::now(),
        })
    }

    /// The connection is reset as soon as its protocol lets go of it.
    pub fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
    }

    /// The bytes after the request head belong to another protocol now.
    pub fn upgraded(&self) {
        self.upgrade.store(UPGRADE_ACCEPTED, Ordering::Release);
        self.interim.upgraded();
    }

    /// The request that asked for another protocol was answered over this one.
    pub(crate) fn upgrade_declined(&self) {
        self.upgrade.store(UPGRADE_DECLINED, Ordering::Release);
    }

    /// Returns when the interim responses of the request that is being answered are written, and ends them.
    pub(crate) async fn end_interim(&self) {
        self.interim.close().await;
    }

    pub(crate) fn request_began(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn request_ended(&self, now: Instant) {
        self.touch(now);
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Why the strict layer ended the connection, if it did.
    pub(super) fn refused(&self) -> Option<&'static str> {
        self.refused.get().map(|refused| refused.reason)
    }

    /// Why the strict layer cut short the body of the request that is being answered, if it did.
    pub(crate) fn refused_body(&self) -> Option<&'static str> {
        let refused = self
            .refused
            .get()
            .filter(|refused| refused.part == Part::Body);
        refused.map(|refused| refused.reason)
    }

    /// Bytes of the last request's body that have not arrived, at least. None are counted on HTTP/2, where
    /// no other request waits for them.
    pub(crate) fn body_left(&self) -> u64 {
        self.body_left.load(Ordering::Relaxed)
    }

    fn touch(&self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.epoch);
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.last_activity.store(millis, Ordering::Relaxed);
    }

    pub(super) fn phase(&self) -> Phase {
        if self.in_flight.load(Ordering::Relaxed) > 0
            || self.upgrade.load(Ordering::Relaxed) == UPGRADE_ACCEPTED
        {
            return Phase::Busy;
        }
        let since = self.epoch + Duration::from_millis(self.last_activity.load(Ordering::Relaxed));
        if self.in_head.load(Ordering::Relaxed) {
            Phase::Head(since)
        } else {
            Phase::Idle(since)
        }
    }
}

/// A stream under hyper.
#[derive(Debug)]
pub(super) struct Wire<S: Stream> {
    stream: S,
    /// Read while sniffing, not yet given to hyper.
    rewound: Bytes,
    /// `None` where the framing is not HTTP/1.
    tracker: Option<Tracker>,
    control: Arc<Control>,
    /// What is left of what hyper reads in place of refused bytes.
    ending: &'static [u8],
    /// What is left of the interim responses that are being written.
    interim: Bytes,
    linger: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S: Stream> Wire<S> {
    pub(super) fn new(
        stream: S,
        rewound: Bytes,
        tracker: Option<Tracker>,
        control: Arc<Control>,
    ) -> Self {
        Self {
            stream,
            rewound,
            tracker,
            control,
            ending: &[],
            interim: Bytes::new(),
            linger: None,
        }
    }

    /// Lets the strict tracker see what was read; what it refuses never reaches hyper.
    ///
    /// hyper gets something in its place that ends the request badly: it answers a head with 400 after the
    /// responses that are due before, reports a body that is cut short, and closes.
    fn inspect(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        let Some(tracker) = &mut self.tracker else {
            return;
        };
        if tracker.upgrade_pending() {
            match self.control.upgrade.load(Ordering::Acquire) {
                UPGRADE_ACCEPTED => {
                    self.tracker = None;
                    return;
                }
                UPGRADE_DECLINED => {
                    self.control.upgrade.store(UPGRADE_NONE, Ordering::Relaxed);
                    tracker.resume();
                }
                _ => {}
            }
        }
        let fresh = buffer.filled().get(before..).unwrap_or_default();
        let was_in_head = tracker.in_head();
        let verdict = tracker.feed(fresh);
        let body_left = tracker.body_left();
        self.control.body_left.store(body_left, Ordering::Relaxed);
        let in_head = tracker.in_head();
        if in_head != was_in_head {
            if in_head {
                self.control.touch(Instant::now());
            }
            self.control.in_head.store(in_head, Ordering::Relaxed);
        }
        if let Verdict::Refuse {
            offset,
            reason,
            part,
        } = verdict
        {
            let _ = self.control.refused.set(Refused { reason, part });
            buffer.set_filled(before + offset);
            self.ending = part.ending();
            self.put_ending(buffer);
        }
    }

    fn put_ending(&mut self, buffer: &mut ReadBuf<'_>) {
        let (now, later) = self
            .ending
            .split_at(self.ending.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.ending = later;
    }

    /// Writes the rest of an interim response: nothing else may come within it.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.interim))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.interim.advance(count);
        }
        Poll::Ready(Ok(()))
    }

    /// Throws away what the client still sends, for a while: closing a socket with unread bytes resets
    /// it, and the reset can overtake the response.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (deadline, left) = self
            .linger
            .get_or_insert_with(|| (Box::pin(tokio::time::sleep(LINGER)), LINGER_BYTES));
        let mut scratch = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() && *left > 0 => {
                    *left = left.saturating_sub(buffer.filled().len());
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return deadline.as_mut().poll(cx),
            }
        }
    }
}

impl<S: Stream> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.control.refused.get().is_some() {
            self.put_ending(buffer);
            return Poll::Ready(Ok(()));
        }
        self.control.interim.driven_by(cx);
        let before = buffer.filled().len();
        if self.rewound.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        } else {
            let count = self.rewound.len().min(buffer.remaining());
            buffer.put_slice(&self.rewound.split_to(count));
        }
        if buffer.filled().len() > before {
            self.inspect(buffer, before);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        // A head and a short body in one piece: the system call for several pieces costs more than the copy.
        let mut joined = [0; JOINED_WRITE];
        let mut length = 0;
        for slice in slices {
            let Some(room) = joined.get_mut(length..length + slice.len()) else {
                return Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
            };
            room.copy_from_slice(slice);
            length += slice.len();
        }
        let joined = joined.get(..length).unwrap_or_default();
        Pin::new(&mut self.stream).poll_write(cx, joined)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper has written all that it had.
        if self.control.interim.is_waiting() {
            ready!(self.poll_interim(cx))?;
            while let Some(bytes) = self.control.interim.next() {
                self.interim = bytes;
                ready!(self.poll_interim(cx))?;
            }
            // The final response may be waiting for this.
            cx.waker().wake_by_ref();
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        let unread = self.control.refused().is_some()
            || self
                .tracker
                .as_ref()
                .is_some_and(|tracker| tracker.in_body() || tracker.in_head());
        if unread {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> Drop for Wire<S> {
    fn drop(&mut self) {
        // A response that is still on its way was cut off: by the end of a drain, say.
        let cut_off = self.control.in_flight.load(Ordering::Relaxed) > 0;
        if cut_off || self.control.aborted.load(Ordering::Relaxed) {
            self.stream.abort();
        }
    }
}

/// What the first bytes of a connection say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

/// The start of every HTTP/2 connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until it is clear which version the client speaks; `None` when it left without a word.
pub(super) async fn sniff<S: Stream>(stream: &mut S) -> io::Result<Option<(Version, Bytes)>> {
    use tokio::io::AsyncReadExt;

    // Large enough for a typical head, so that the first request costs one read.
    let mut buffer = bytes::BytesMut::with_capacity(2048);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(if buffer.is_empty() {
                None
            } else {
                Some((Version::Http1, buffer.freeze()))
            });
        }
        let seen = buffer.chunk();
        if seen.starts_with(PREFACE) {
            return Ok(Some((Version::Http2, buffer.freeze())));
        }
        if !PREFACE.starts_with(seen) {
            return Ok(Some((Version::Http1, buffer.freeze())));
        }
    }
}
