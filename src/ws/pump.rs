//! The task that owns the socket of one connection and moves its messages.
//!
//! It lives on the I/O thread from the upgrade to the end of the close handshake. A client is given up
//! when it shows no sign of life for a while after a ping; bytes that arrive are one, and so are bytes
//! that a full socket takes again, because a pong waits behind whatever the client is still busy with.

use std::borrow::Cow;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, error::ProtocolError};

use super::deflate::{Deflater, Extension, Inflated, InvalidDeflate};
use super::socket::{Close, Link, Message, Outgoing};
use crate::config::Limits;
use crate::drain::Drain;

/// How long the client has to answer a close frame, or to take it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Allocated per connection, and so what an idle one costs; a longer frame gets its own buffer.
const READ_BUFFER: usize = 2 * 1024;
/// Read from a socket at once.
const ARRIVED_BUFFER: usize = 32 * 1024;
/// Small messages that are sent at once leave in one write.
const WRITE_BUFFER: usize = 8 * 1024;
/// A longer message leaves in fragments, so that it is not copied whole and a ping can pass it.
const FRAGMENT: usize = 64 * 1024;

/// Drives a connection to its end.
pub(super) async fn run<S>(
    stream: S,
    extension: Option<Extension>,
    link: Link,
    limits: Limits,
    drain: Drain,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(limits.websocket_message))
        .max_frame_size(Some(limits.websocket_message));
    let line = Line {
        stream,
        ahead: Bytes::new(),
        heard: false,
        drained: false,
        blocked: false,
    };
    let inflated = Inflated::new(line, extension);
    let socket = WebSocketStream::from_raw_socket(inflated, Role::Server, Some(config)).await;
    let now = Instant::now();
    let mut pump = Pump {
        socket,
        link,
        limits,
        extension,
        unsent: None,
        deflater: None,
        deflated: 0,
        reading_paused: false,
        leaving: false,
        timer: Box::pin(sleep_until(now)),
        ping_at: limits
            .websocket_ping_interval
            .map(|interval| now + interval),
        ping_due: false,
        judged_at: None,
    };
    let farewell = pump.open(&drain).await;
    // A client that answers no close frame is not waited for.
    let _gave_up = timeout(CLOSE_TIMEOUT, pump.part(farewell)).await;
}

struct Pump<S> {
    socket: WebSocketStream<Inflated<Line<S>>>,
    link: Link,
    limits: Limits,
    extension: Option<Extension>,
    /// The rest of a message that leaves in fragments.
    unsent: Option<Bytes>,
    /// Compresses the message of which `unsent` is the rest.
    deflater: Option<Deflater>,
    /// Bytes that were compressed since others on this thread have had their turn.
    deflated: usize,
    /// The application is slow: the client cannot be heard, and is not judged.
    reading_paused: bool,
    /// A close frame waits behind the last messages.
    leaving: bool,
    timer: Pin<Box<Sleep>>,
    /// When the next ping is due.
    ping_at: Option<Instant>,
    /// A ping is sent as soon as the socket takes it.
    ping_due: bool,
    /// When a client that has shown no sign of life is given up.
    judged_at: Option<Instant>,
}

/// What is left to do when no more messages are moved.
enum Farewell {
    /// A close frame has been sent or received: the handshake is to be completed (RFC 6455 §7.1.2).
    Handshake,
    /// The client is told why, and not waited for (RFC 6455 §7.1.7).
    Fail(Close),
    /// The connection is lost.
    Nothing,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Pump<S> {
    /// Moves messages until the connection closes.
    async fn open(&mut self, drain: &Drain) -> Farewell {
        let mut begun = pin!(drain.begun());
        let mut told = false;
        loop {
            tokio::select! {
                biased;
                () = &mut begun, if !told => {
                    told = true;
                    self.link.close(Close::RESTART);
                }
                farewell = poll_fn(|cx| self.poll_open(cx)) => return farewell,
            }
        }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Farewell> {
        loop {
            if self.link.register(cx) && !self.leaving {
                self.leaving = true;
                self.ping_at = None;
                self.judged_at = Some(Instant::now() + CLOSE_TIMEOUT);
            }
            if let Poll::Ready(farewell) = self.poll_read(cx) {
                return Poll::Ready(farewell);
            }
            if let Poll::Ready(farewell) = self.poll_write(cx) {
                return Poll::Ready(farewell);
            }
            let Some(next) = self.ping_at.into_iter().chain(self.judged_at).min() else {
                return Poll::Pending;
            };
            if self.timer.deadline() != next {
                self.timer.as_mut().reset(next);
            }
            ready!(self.timer.as_mut().poll(cx));
            if let Some(farewell) = self.expired(next) {
                return Poll::Ready(farewell);
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Farewell> {
        loop {
            self.reading_paused = !self.link.has_room();
            if self.reading_paused {
                return Poll::Pending;
            }
            let message = match ready!(self.socket.poll_next_unpin(cx)) {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Poll::Ready(self.failed(&error)),
                None => return Poll::Ready(self.lost()),
            };
            match message {
                tungstenite::Message::Text(text) => self.link.deliver(Message::Text(text)),
                tungstenite::Message::Binary(bytes) => self.link.deliver(Message::Binary(bytes)),
                tungstenite::Message::Close(frame) => {
                    self.link.end(match frame {
                        None => Close::NO_CODE,
                        Some(frame) => Close {
                            code: frame.code.into(),
                            reason: Cow::Owned(frame.reason.as_str().to_owned()),
                        },
                    });
                    return Poll::Ready(Farewell::Handshake);
                }
                tungstenite::Message::Pong(_) if !self.leaving => self.judged_at = None,
                // The answer to a ping leaves with the next read or flush.
                tungstenite::Message::Ping(_)
                | tungstenite::Message::Pong(_)
                | tungstenite::Message::Frame(_) => {}
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Farewell> {
        self.deflated = 0;
        while self.deflated < FRAGMENT {
            match ready!(self.socket.poll_ready_unpin(cx)) {
                Ok(()) => {}
                Err(_) => return Poll::Ready(self.lost()),
            }
            let frame = if std::mem::take(&mut self.ping_due) {
                self.line().heard = false;
                self.judged_at = self.patience();
                Some(Frame::ping(Bytes::new()))
            } else if let Some(rest) = self.unsent.take() {
                self.fragment(rest, Data::Continue)
            } else {
                match self.link.next() {
                    Some(Outgoing::Message(Message::Text(text))) => {
                        self.begin(text.into(), Data::Text)
                    }
                    Some(Outgoing::Message(Message::Binary(bytes))) => {
                        self.begin(bytes, Data::Binary)
                    }
                    Some(Outgoing::Close(close)) => {
                        let frame = tungstenite::Message::Close(Some(close_frame(&close)));
                        return Poll::Ready(match self.socket.start_send_unpin(frame) {
                            Ok(()) => Farewell::Handshake,
                            Err(_) => Farewell::Nothing,
                        });
                    }
                    None => break,
                }
            };
            let Some(frame) = frame else {
                return Poll::Ready(self.lost());
            };
            let frame = tungstenite::Message::Frame(frame);
            if self.socket.start_send_unpin(frame).is_err() {
                return Poll::Ready(self.lost());
            }
        }
        if ready!(self.socket.poll_flush_unpin(cx)).is_err() {
            return Poll::Ready(self.lost());
        }
        if self.deflated >= FRAGMENT {
            // There is more to do, after pings and other connections have had their turn.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// The first frame of a message.
    fn begin(&mut self, payload: Bytes, kind: Data) -> Option<Frame> {
        let length = payload.len();
        self.deflater = self
            .extension
            .and_then(|extension| Deflater::new(extension, length, length > FRAGMENT));
        self.fragment(payload, kind)
    }

    /// The next frame of a message; what does not fit waits for the next one.
    fn fragment(&mut self, mut payload: Bytes, kind: Data) -> Option<Frame> {
        if payload.len() > FRAGMENT {
            self.unsent = Some(payload.split_off(FRAGMENT));
        }
        let is_final = self.unsent.is_none();
        let is_first = kind != Data::Continue;
        let mut is_compressed = false;
        if let Some(deflater) = &mut self.deflater {
            self.deflated += payload.len();
            match deflater.next(&payload, is_final) {
                // What does not begin to shrink is sent as it is.
                Some(compressed) if is_first && compressed.len() >= payload.len() => {}
                Some(compressed) => {
                    is_compressed = true;
                    payload = compressed;
                }
                None => return None,
            }
        }
        if (is_final || !is_compressed)
            && let Some(deflater) = self.deflater.take()
        {
            deflater.give_back();
        }
        let mut frame = Frame::message(payload, OpCode::Data(kind), is_final);
        frame.header_mut().rsv1 = is_compressed && is_first;
        Some(frame)
    }

    fn line(&mut self) -> &mut Line<S> {
        self.socket.get_mut().get_mut()
    }

    /// When a client is given up that shows no sign of life from now on.
    fn patience(&self) -> Option<Instant> {
        let patience = self.limits.websocket_ping_timeout?;
        Some(Instant::now() + patience)
    }

    /// A ping or a verdict is due.
    fn expired(&mut self, now: Instant) -> Option<Farewell> {
        if self.ping_at.is_some_and(|ping_at| ping_at <= now) {
            self.ping_at = self
                .limits
                .websocket_ping_interval
                .map(|interval| Instant::now() + interval);
            if self.judged_at.is_none() {
                self.ping_due = true;
                self.judged_at = self.patience();
            }
            return None;
        }
        let line = self.line();
        let (heard, drained) = (
            std::mem::take(&mut line.heard),
            std::mem::take(&mut line.drained),
        );
        if self.leaving {
            if drained {
                self.judged_at = Some(Instant::now() + CLOSE_TIMEOUT);
                return None;
            }
            return Some(Farewell::Nothing);
        }
        if heard || drained || self.reading_paused {
            self.judged_at = self.patience();
            return None;
        }
        let reason = "keepalive ping timeout";
        self.link.end(Close::fixed(Close::LOST.code, reason));
        Some(Farewell::Fail(Close::fixed(1011, reason)))
    }

    /// What the client sent is no WebSocket, or too much (RFC 6455 §7.4.1).
    fn failed(&self, error: &tungstenite::Error) -> Farewell {
        use tungstenite::Error;
        let close = match error {
            Error::Utf8(_) => Close::fixed(1007, "a text message is not valid UTF-8"),
            Error::Io(error) if InvalidDeflate::is_cause_of(error) => {
                Close::fixed(1007, "a compressed message cannot be inflated")
            }
            Error::Capacity(_) => Close {
                code: 1009,
                reason: Cow::Owned(format!(
                    "a message has at most {} bytes",
                    self.limits.websocket_message
                )),
            },
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return self.lost(),
            Error::Protocol(error) => Close {
                code: 1002,
                reason: Cow::Owned(error.to_string()),
            },
            _ => return self.lost(),
        };
        self.link.end(close.clone());
        Farewell::Fail(close)
    }

    fn lost(&self) -> Farewell {
        self.link.end(Close::LOST);
        Farewell::Nothing
    }

    /// Ends the connection; takes as long as the client does.
    async fn part(&mut self, farewell: Farewell) {
        match farewell {
            Farewell::Nothing => {}
            Farewell::Handshake => {
                poll_fn(|cx| self.poll_handshake(cx)).await;
                // The server closes first, so that no client port is held in TIME_WAIT (RFC 6455 §7.1.1).
                let _gone = self.line().shutdown().await;
            }
            Farewell::Fail(close) => {
                let frame = tungstenite::Message::Close(Some(close_frame(&close)));
                if self.socket.send(frame).await.is_err() {
                    return;
                }
                let line = self.line();
                let _gone = line.shutdown().await;
                // Unread bytes would turn the end into a reset, which overtakes the close frame.
                let _gone = tokio::io::copy(line, &mut tokio::io::sink()).await;
            }
        }
    }

    /// Sends and reads on at once: a client that is busy sending may not read before it is read.
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _in_progress = self.socket.poll_flush_unpin(cx);
        while let Some(Ok(_late)) = ready!(self.socket.poll_next_unpin(cx)) {}
        Poll::Ready(())
    }
}

fn close_frame(close: &Close) -> CloseFrame {
    CloseFrame {
        code: close.code.into(),
        reason: close.reason.as_ref().into(),
    }
}

thread_local! {
    /// What is read into at once, shared by all connections of the thread: each has only [`READ_BUFFER`] of its own.
    static ARRIVED: RefCell<Box<[u8]>> = RefCell::new(vec![0; ARRIVED_BUFFER].into());
}

/// A stream that notes the client's signs of life.
struct Line<S> {
    stream: S,
    /// Has been read, and waits for a reader who had no room for it.
    ahead: Bytes,
    /// Bytes have arrived.
    heard: bool,
    /// Bytes have left that the socket had refused before.
    drained: bool,
    blocked: bool,
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let line = self.get_mut();
        if !line.ahead.is_empty() {
            let room = line.ahead.len().min(buf.remaining());
            buf.put_slice(&line.ahead.split_to(room));
            return Poll::Ready(Ok(()));
        }
        ARRIVED.with_borrow_mut(|arrived| {
            let mut arrived = ReadBuf::new(arrived);
            ready!(Pin::new(&mut line.stream).poll_read(cx, &mut arrived))?;
            let arrived = arrived.filled();
            line.heard |= !arrived.is_empty();
            let (now, later) = arrived.split_at(arrived.len().min(buf.remaining()));
            buf.put_slice(now);
            line.ahead = Bytes::copy_from_slice(later);
            Poll::Ready(Ok(()))
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.drained |= self.blocked && written.is_ready();
        self.blocked = written.is_pending();
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::super::deflate::negotiate;
    use super::super::socket::{CloseError, Closed, Receiver, Sender, channel};
    use super::*;
    use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
    use http::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_EXTENSIONS};
    use std::task::Waker;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio_tungstenite::tungstenite::Message as Wire;
    use tokio_util::sync::CancellationToken;

    const LIMITS: Limits = Limits {
        head_bytes: 0,
        header_count: 0,
        websocket_message: 1024 * 1024,
        websocket_compression: true,
        websocket_queue: 4,
        websocket_ping_interval: None,
        websocket_ping_timeout: None,
    };

    struct App {
        sender: Sender,
        receiver: Receiver,
        drain: Drain,
        pump: JoinHandle<()>,
    }

    impl App {
        async fn recv(&mut self) -> Result<Message, Close> {
            poll_fn(|cx| self.receiver.poll_recv(cx)).await
        }

        async fn text(&mut self) -> String {
            match self.recv().await {
                Ok(Message::Text(text)) => text.as_str().to_owned(),
                other => panic!("no text but {other:?}"),
            }
        }

        async fn code(&mut self) -> u16 {
            self.recv().await.unwrap_err().code
        }

        fn send(&mut self, text: &str) -> Result<(), Closed> {
            self.sender.push(Message::Text(text.into()))
        }

        fn is_held_back(&mut self) -> bool {
            self.sender
                .poll_ready(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        }
    }

    /// A connection over a pipe that holds `buffer` bytes, and the client's end of the pipe.
    fn connect_raw(limits: Limits, buffer: usize) -> (App, DuplexStream) {
        connect_with(limits, buffer, None)
    }

    /// A connection on which messages may be compressed, over a pipe that never fills.
    fn connect_compressed(limits: Limits) -> (App, DuplexStream) {
        let mut offer = HeaderMap::new();
        let deflate = HeaderValue::from_static("permessage-deflate");
        offer.insert(SEC_WEBSOCKET_EXTENSIONS, deflate);
        connect_with(limits, 16 * 1024 * 1024, negotiate(&offer))
    }

    fn connect_with(
        limits: Limits,
        buffer: usize,
        extension: Option<Extension>,
    ) -> (App, DuplexStream) {
        let (ours, theirs) = duplex(buffer);
        let (sender, receiver, link) = channel(limits.websocket_queue);
        let drain = Drain::new(tokio::runtime::Handle::current(), CancellationToken::new());
        let pump = tokio::spawn(run(ours, extension, link, limits, drain.clone()));
        let app = App {
            sender,
            receiver,
            drain,
            pump,
        };
        (app, theirs)
    }

    async fn connect(limits: Limits) -> (App, WebSocketStream<DuplexStream>) {
        let (app, theirs) = connect_raw(limits, 64 * 1024);
        let client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        (app, client)
    }

    async fn next(client: &mut WebSocketStream<DuplexStream>) -> Wire {
        client.next().await.unwrap().unwrap()
    }

    async fn next_close(client: &mut WebSocketStream<DuplexStream>) -> (u16, String) {
        match next(client).await {
            Wire::Close(Some(frame)) => (frame.code.into(), frame.reason.as_str().to_owned()),
            other => panic!("no close frame with a code but {other:?}"),
        }
    }

    /// A frame as a client sends it, with a mask of zeros.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            len @ 0..126 => bytes.push(0x80 | u8::try_from(len).unwrap()),
            len => {
                bytes.push(0x80 | 0x7e);
                bytes.extend(u16::try_from(len).unwrap().to_be_bytes());
            }
        }
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes
    }

    /// The code in the close frame that the server sends next.
    async fn raw_close(client: &mut DuplexStream) -> u16 {
        let mut head = [0; 4];
        client.read_exact(&mut head).await.unwrap();
        assert_eq!(head[0], 0x88, "a close frame");
        u16::from_be_bytes([head[2], head[3]])
    }

    /// The next frame that the server sends: its first byte and its payload.
    async fn raw_frame(client: &mut DuplexStream) -> (u8, Vec<u8>) {
        let first = client.read_u8().await.unwrap();
        let length = match client.read_u8().await.unwrap() {
            126 => client.read_u16().await.unwrap().into(),
            127 => client.read_u64().await.unwrap(),
            length => length.into(),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        client.read_exact(&mut payload).await.unwrap();
        (first, payload)
    }

    fn deflate(payload: &[u8]) -> Vec<u8> {
        let mut compressed = Vec::with_capacity(payload.len() + 64);
        Compress::new(Compression::default(), false)
            .compress_vec(payload, &mut compressed, FlushCompress::Sync)
            .unwrap();
        compressed.truncate(compressed.len() - 4);
        compressed
    }

    /// A block that is not compressed.
    fn stored(content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap();
        let (length, check) = (length.to_le_bytes(), (!length).to_le_bytes());
        [&[0], &length[..], &check, content].concat()
    }

    fn inflate(payload: &[u8], length: usize) -> Vec<u8> {
        let mut inflated = Vec::with_capacity(length + 64);
        Decompress::new(false)
            .decompress_vec(
                &[payload, &[0, 0, 0xff, 0xff]].concat(),
                &mut inflated,
                FlushDecompress::Sync,
            )
            .unwrap();
        inflated
    }

    /// Text that nothing shortens by much.
    fn noise(length: usize) -> String {
        let mut seed = 1_u32;
        let mut digit = || {
            seed ^= seed << 13;
            seed ^= seed >> 17;
            seed ^= seed << 5;
            char::from(32 + u8::try_from(seed % 95).unwrap())
        };
        (0..length).map(|_| digit()).collect()
    }

    #[tokio::test]
    async fn messages_pass_both_ways_in_order_and_keep_their_kind() {
        let (mut app, mut client) = connect(LIMITS).await;
        client.send(Wire::text("é")).await.unwrap();
        client.send(Wire::binary(vec![0, 255])).await.unwrap();
        client.send(Wire::text("")).await.unwrap();
        assert_eq!(app.text().await, "é");
        assert_eq!(
            app.recv().await,
            Ok(Message::Binary(Bytes::from_static(&[0, 255])))
        );
        assert_eq!(app.text().await, "");
        app.send("one").unwrap();
        app.sender.push(Message::Binary(Bytes::new())).unwrap();
        assert_eq!(next(&mut client).await, Wire::text("one"));
        assert_eq!(next(&mut client).await, Wire::binary(Bytes::new()));
    }

    #[tokio::test]
    async fn a_fragmented_message_arrives_whole_and_a_ping_between_is_answered_at_once() {
        let (mut app, mut client) = connect_raw(LIMITS, 4096);
        client.write_all(&frame(0x01, b"frag")).await.unwrap();
        client.write_all(&frame(0x89, b"now")).await.unwrap();
        let mut pong = [0; 5];
        client.read_exact(&mut pong).await.unwrap();
        assert_eq!(&pong, b"\x8a\x03now");
        client.write_all(&frame(0x80, b"ment")).await.unwrap();
        assert_eq!(app.text().await, "fragment");
    }

    #[tokio::test]
    async fn a_long_message_leaves_in_fragments_and_arrives_whole() {
        let (mut app, mut client) = connect(LIMITS).await;
        let long = "x".repeat(FRAGMENT * 3 + 1);
        app.send(&long).unwrap();
        app.send("next").unwrap();
        assert_eq!(next(&mut client).await, Wire::text(long));
        assert_eq!(next(&mut client).await, Wire::text("next"));
    }

    #[tokio::test]
    async fn what_breaks_the_protocol_is_answered_with_the_code_that_says_so() {
        let cases: [(&str, Vec<u8>, u16); 10] = [
            ("invalid UTF-8", frame(0x81, b"\xff"), 1007),
            ("too long", frame(0x82, &[0; 2000]), 1009),
            ("reserved bit", frame(0xc1, b"x"), 1002),
            ("unmasked", b"\x81\x01x".to_vec(), 1002),
            ("unknown opcode", frame(0x83, b""), 1002),
            ("unknown control opcode", frame(0x8b, b""), 1002),
            ("continuation of nothing", frame(0x80, b"x"), 1002),
            ("fragmented ping", frame(0x09, b""), 1002),
            ("long ping", frame(0x89, &[0; 126]), 1002),
            ("close code of one byte", frame(0x88, b"\x03"), 1002),
        ];
        for (what, bytes, code) in cases {
            let limits = Limits {
                websocket_message: 1000,
                ..LIMITS
            };
            let (mut app, mut client) = connect_raw(limits, 4096);
            client.write_all(&bytes).await.unwrap();
            assert_eq!(raw_close(&mut client).await, code, "{what}: the client");
            assert_eq!(app.code().await, code, "{what}: the application");
            assert_eq!(app.send("late"), Err(Closed), "{what}: sending");
            client.read_to_end(&mut Vec::new()).await.unwrap();
            drop(client);
            app.pump.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_message_that_grows_too_long_by_fragments_is_refused() {
        let limits = Limits {
            websocket_message: 1000,
            ..LIMITS
        };
        let (mut app, mut client) = connect_raw(limits, 4096);
        client.write_all(&frame(0x02, &[0; 600])).await.unwrap();
        client.write_all(&frame(0x80, &[0; 600])).await.unwrap();
        assert_eq!(raw_close(&mut client).await, 1009);
        assert_eq!(app.code().await, 1009);
    }

    #[tokio::test]
    async fn the_clients_close_reaches_the_application_and_is_answered() {
        let (mut app, mut client) = connect(LIMITS).await;
        client.send(Wire::text("last")).await.unwrap();
        let going = CloseFrame {
            code: 4001.into(),
            reason: "going".into(),
        };
        client.close(Some(going)).await.unwrap();
        assert_eq!(app.text().await, "last");
        let close = Close::fixed(4001, "going");
        assert_eq!(app.recv().await, Err(close.clone()));
        assert_eq!(app.recv().await, Err(close), "asked again");
        assert_eq!(app.send("late"), Err(Closed));
        assert_eq!(next_close(&mut client).await, (4001, "going".into()));
        assert!(client.next().await.is_none());
        app.pump.await.unwrap();
    }

    #[tokio::test]
    async fn a_close_without_code_is_1005_and_an_end_without_close_is_1006() {
        let (mut app, mut client) = connect(LIMITS).await;
        client.close(None).await.unwrap();
        assert_eq!(app.code().await, 1005);
        let (mut app, client) = connect(LIMITS).await;
        drop(client);
        assert_eq!(app.code().await, 1006);
        app.pump.await.unwrap();
    }

    #[tokio::test]
    async fn closing_sends_what_was_sent_before_and_discards_what_arrives_after() {
        let (mut app, mut client) = connect(LIMITS).await;
        app.send("before").unwrap();
        app.sender.close(3000, "done").unwrap();
        assert_eq!(app.send("after"), Err(Closed));
        assert_eq!(app.sender.close(1000, ""), Err(CloseError::Closed(Closed)));
        client.send(Wire::text("crossing")).await.unwrap();
        assert_eq!(app.code().await, 3000);
        assert_eq!(next(&mut client).await, Wire::text("before"));
        assert_eq!(next_close(&mut client).await, (3000, "done".into()));
        assert!(client.next().await.is_none());
        app.pump.await.unwrap();
    }

    #[tokio::test]
    async fn a_close_that_may_not_be_sent_leaves_the_connection_open() {
        let (mut app, mut client) = connect(LIMITS).await;
        for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
            assert_eq!(app.sender.close(code, ""), Err(CloseError::Code(code)));
        }
        let long = "é".repeat(62);
        assert_eq!(app.sender.close(1000, &long), Err(CloseError::Reason(124)));
        app.send("still open").unwrap();
        assert_eq!(next(&mut client).await, Wire::text("still open"));
    }

    #[tokio::test]
    async fn a_dropped_sender_closes_with_1011() {
        let (app, mut client) = connect(LIMITS).await;
        drop(app.sender);
        assert_eq!(next_close(&mut client).await, (1011, String::new()));
    }

    #[tokio::test]
    async fn a_drain_sends_what_waits_then_1012() {
        let (mut app, mut client) = connect(LIMITS).await;
        app.send("before").unwrap();
        app.drain.begin();
        assert_eq!(app.code().await, 1012);
        assert_eq!(next(&mut client).await, Wire::text("before"));
        assert_eq!(next_close(&mut client).await.0, 1012);
        assert!(client.next().await.is_none());
        app.pump.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn reading_pauses_while_the_application_is_slow_and_loses_nothing() {
        let (mut app, theirs) = connect_raw(LIMITS, 256);
        let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        let sending = tokio::spawn(async move {
            for number in 0..200 {
                client.send(Wire::text(number.to_string())).await.unwrap();
            }
            client
        });
        // Time moves on only when nobody can do anything more.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!sending.is_finished(), "the client is held back");
        for number in 0..200 {
            assert_eq!(app.text().await, number.to_string());
        }
        sending.await.unwrap();
    }

    #[tokio::test]
    async fn the_application_is_held_back_while_the_client_is_slow() {
        let (mut app, theirs) = connect_raw(LIMITS, 256);
        let mut sent = 0;
        while !app.is_held_back() {
            app.send(&"x".repeat(1000)).unwrap();
            sent += 1;
        }
        assert!(sent < 100, "bounded, but {sent} messages waited");
        let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        let ready = tokio::spawn(async move {
            poll_fn(|cx| app.sender.poll_ready(cx)).await.unwrap();
            app
        });
        for _ in 0..sent {
            assert_eq!(next(&mut client).await.len(), 1000);
        }
        ready.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_answers_pings_stays() {
        let limits = Limits {
            websocket_ping_interval: Some(Duration::from_secs(20)),
            websocket_ping_timeout: Some(Duration::from_secs(5)),
            ..LIMITS
        };
        let (mut app, mut client) = connect(limits).await;
        for _ in 0..5 {
            assert!(next(&mut client).await.is_ping());
        }
        client.send(Wire::text("here")).await.unwrap();
        assert_eq!(app.text().await, "here");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_answers_no_ping_is_told_1011_and_is_1006_for_the_application() {
        let limits = Limits {
            websocket_ping_interval: Some(Duration::from_secs(20)),
            websocket_ping_timeout: Some(Duration::from_secs(5)),
            ..LIMITS
        };
        let began = Instant::now();
        let (mut app, mut client) = connect_raw(limits, 4096);
        assert_eq!(app.recv().await.unwrap_err(), {
            Close::fixed(1006, "keepalive ping timeout")
        });
        assert_eq!(began.elapsed().as_secs(), 25);
        let mut ping = [0; 2];
        client.read_exact(&mut ping).await.unwrap();
        assert_eq!(&ping, b"\x89\x00");
        assert_eq!(raw_close(&mut client).await, 1011);
        app.pump.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_not_judged_while_the_application_keeps_it_from_being_heard() {
        let limits = Limits {
            websocket_ping_interval: Some(Duration::from_secs(20)),
            websocket_ping_timeout: Some(Duration::from_secs(5)),
            ..LIMITS
        };
        let (mut app, mut client) = connect(limits).await;
        for number in 0..10 {
            client.send(Wire::text(number.to_string())).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(300)).await;
        for number in 0..10 {
            assert_eq!(app.text().await, number.to_string());
        }
        assert!(next(&mut client).await.is_ping());
        client.send(Wire::text("still here")).await.unwrap();
        assert_eq!(app.text().await, "still here");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_that_takes_bytes_is_alive() {
        let limits = Limits {
            websocket_ping_interval: Some(Duration::from_secs(20)),
            websocket_ping_timeout: Some(Duration::from_secs(5)),
            ..LIMITS
        };
        let (mut app, mut client) = connect_raw(limits, 64);
        app.send(&"x".repeat(2000)).unwrap();
        let mut bytes = [0; 16];
        for _ in 0..100 {
            client.read_exact(&mut bytes).await.unwrap();
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
        assert_eq!(app.send("more"), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_answers_no_close_frame_is_not_waited_for() {
        let (mut app, client) = connect_raw(LIMITS, 4096);
        app.sender.close(1000, "").unwrap();
        app.pump.await.unwrap();
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_not_waited_for() {
        let (mut app, client) = connect_raw(LIMITS, 16);
        app.send(&"x".repeat(1000)).unwrap();
        app.sender.close(1000, "").unwrap();
        app.pump.await.unwrap();
        drop(client);
    }

    #[tokio::test]
    async fn a_pump_that_is_dropped_ends_the_connection_for_the_application() {
        let (mut app, _client) = connect(LIMITS).await;
        app.pump.abort();
        assert_eq!(app.code().await, 1006);
    }

    #[tokio::test]
    async fn a_message_is_compressed_from_one_kibibyte_on_and_arrives_whole() {
        let (mut app, mut client) = connect_compressed(LIMITS);
        for (length, is_compressed) in [(0, false), (1023, false), (1024, true), (FRAGMENT, true)] {
            let text = "abc ".repeat(length.div_ceil(4));
            let text = text.get(..length).unwrap();
            app.send(text).unwrap();
            app.sender
                .push(Message::Binary(Bytes::copy_from_slice(text.as_bytes())))
                .unwrap();
            for kind in [1, 2] {
                let (first, payload) = raw_frame(&mut client).await;
                if is_compressed {
                    assert_eq!(first, 0xc0 | kind, "{length}");
                    assert!(payload.len() < length / 10);
                    assert_eq!(inflate(&payload, length), text.as_bytes());
                } else {
                    assert_eq!((first, &payload[..]), (0x80 | kind, text.as_bytes()));
                }
            }
        }
    }

    #[tokio::test]
    async fn a_long_message_is_one_stream_in_fragments_of_which_the_first_says_so() {
        let (mut app, mut client) = connect_compressed(LIMITS);
        let long = noise(FRAGMENT * 5 + 1);
        app.send(&long).unwrap();
        app.send("next").unwrap();
        let mut stream = Vec::new();
        for at in 0..=long.len() / FRAGMENT {
            let (first, payload) = raw_frame(&mut client).await;
            let is_last = at == long.len() / FRAGMENT;
            let opcode = if at == 0 { 0x41 } else { 0 };
            assert_eq!(
                first,
                opcode | if is_last { 0x80 } else { 0 },
                "fragment {at}"
            );
            stream.extend(payload);
        }
        assert!(stream.len() < long.len());
        assert_eq!(inflate(&stream, long.len()), long.as_bytes());
        assert_eq!(raw_frame(&mut client).await, (0x81, b"next".to_vec()));
    }

    #[tokio::test]
    async fn what_does_not_shrink_is_sent_as_it_is() {
        let (mut app, mut client) = connect_compressed(LIMITS);
        let mut random = vec![0; FRAGMENT + 5000];
        let mut seed = 1_u32;
        for byte in &mut random {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = seed.to_be_bytes()[0];
        }
        let random = Bytes::from(random);
        app.sender
            .push(Message::Binary(random.slice(..5000)))
            .unwrap();
        app.sender.push(Message::Binary(random.clone())).unwrap();
        assert_eq!(
            raw_frame(&mut client).await,
            (0x82, random[..5000].to_vec())
        );
        assert_eq!(
            raw_frame(&mut client).await,
            (0x02, random[..FRAGMENT].to_vec())
        );
        assert_eq!(
            raw_frame(&mut client).await,
            (0x80, random[FRAGMENT..].to_vec())
        );
    }

    #[tokio::test]
    async fn a_ping_is_answered_while_a_long_message_is_compressed() {
        let (mut app, mut client) = connect_compressed(LIMITS);
        app.send(&noise(FRAGMENT * 16)).unwrap();
        // As a task, because the runtime lets tasks run many times before it looks at the test itself.
        let frames = tokio::spawn(async move {
            assert_eq!(raw_frame(&mut client).await.0, 0x41);
            client.write_all(&frame(0x89, b"now")).await.unwrap();
            let mut frames = Vec::new();
            while frames.last() != Some(&0x80) {
                frames.push(raw_frame(&mut client).await.0);
            }
            frames
        });
        let frames = frames.await.unwrap();
        assert!(frames.contains(&0x8a), "{frames:x?}");
    }

    #[tokio::test]
    async fn a_compressed_message_arrives_inflated() {
        let (mut app, mut client) = connect_compressed(LIMITS);
        let text = noise(100_000);
        let compressed = deflate(text.as_bytes());
        let sending = tokio::spawn(async move {
            client
                .write_all(&frame(0xc1, &deflate(b"one")))
                .await
                .unwrap();
            let mut first = 0x41;
            for part in compressed.chunks(30_000) {
                client.write_all(&frame(first, part)).await.unwrap();
                client.write_all(&frame(0x89, b"")).await.unwrap();
                first = 0;
            }
            client.write_all(&frame(0x80, b"")).await.unwrap();
            client.write_all(&frame(0x81, b"plain")).await.unwrap();
            client
        });
        assert_eq!(app.text().await, "one");
        assert_eq!(app.text().await, text);
        assert_eq!(app.text().await, "plain");
        sending.await.unwrap();
    }

    #[tokio::test]
    async fn what_breaks_the_rules_of_compression_is_answered_with_the_code_that_says_so() {
        let two = |one: Vec<u8>, other: Vec<u8>| [one, other].concat();
        let cases: [(&str, Vec<u8>, u16); 12] = [
            ("no deflate stream", frame(0xc1, b"\xff\xff"), 1007),
            ("invalid UTF-8", frame(0xc1, &deflate(b"\xff")), 1007),
            ("too long", frame(0xc2, &deflate(&[0; 1001])), 1009),
            ("a bomb", frame(0xc2, &deflate(&vec![0; 10_000_000])), 1009),
            (
                "too long by fragments",
                two(
                    frame(0x42, &stored(&[0; 600])),
                    frame(0x80, &stored(&[0; 600])),
                ),
                1009,
            ),
            ("a compressed ping", frame(0xc9, b""), 1002),
            ("a compressed close", frame(0xc8, b""), 1002),
            ("another reserved bit", frame(0xe1, b"\x00"), 1002),
            (
                "a compressed continuation of nothing",
                frame(0xc0, b"\x00"),
                1002,
            ),
            (
                "a compressed continuation",
                two(frame(0x41, b""), frame(0xc0, b"\x00")),
                1002,
            ),
            (
                "a message in a message",
                two(frame(0x41, b""), frame(0xc1, b"\x00")),
                1002,
            ),
            ("an unmasked frame", b"\xc1\x01\x00".to_vec(), 1002),
        ];
        for (what, bytes, code) in cases {
            let limits = Limits {
                websocket_message: 1000,
                ..LIMITS
            };
            let (mut app, mut client) = connect_compressed(limits);
            client.write_all(&bytes).await.unwrap();
            assert_eq!(raw_close(&mut client).await, code, "{what}: the client");
            assert_eq!(app.code().await, code, "{what}: the application");
            client.read_to_end(&mut Vec::new()).await.unwrap();
            drop(client);
            app.pump.await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_arrives_behind_a_bomb_is_read_but_not_inflated() {
        let (mut app, mut client) = connect_compressed(LIMITS);
        let bomb = frame(0xc2, &deflate(&vec![0; 10_000_000]));
        client.write_all(&bomb).await.unwrap();
        assert_eq!(raw_close(&mut client).await, 1009);
        client.write_all(&frame(0xc1, b"\xff\xff")).await.unwrap();
        client.write_all(&bomb).await.unwrap();
        drop(client);
        assert_eq!(app.code().await, 1009);
        app.pump.await.unwrap();
    }
}
