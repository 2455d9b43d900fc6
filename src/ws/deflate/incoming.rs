//! Incoming messages: a stream that inflates what its peer has compressed.
//!
//! What is read from it are frames without extensions. A compressed message becomes a fragmented one,
//! made of as many frames as it takes, each as long as the reader has room; so a reader that limits the
//! length of a message never sees, nor does anything here hold, more than that. Every other frame
//! passes as it is, control frames at their place, and those that break the rules too: it is the
//! reader who judges them.

use std::cell::Cell;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::poll_proceed;
use tokio_util::io::poll_read_buf;

use super::{Extension, TAIL, borrow, give_back};

/// Read from the peer at once, and held only while it is worked on.
const READ_BUFFER: usize = 8 * 1024;
/// Bytes of the wire that count as one step of what tokio lets a task do in its turn.
const CHARGED: usize = 1024;
/// Of a frame that holds what was inflated: a length of 16 bits, and a mask that changes nothing.
const HEADER: usize = 8;
/// With less room than this a frame is made aside, so that it is not chopped up into its headers.
const LEAST_ROOM: usize = 256;

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const COMPRESSED: u8 = 0x40;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH_16: u8 = 0x7e;
const LENGTH_64: u8 = 0x7f;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CONTROL: u8 = 8;

thread_local! {
    static SPARE: Cell<Option<Decompress>> = const { Cell::new(None) };
}

/// A compressed message is no deflate stream: the cause of the [`io::Error`] that reading gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a compressed message cannot be inflated")]
pub(in crate::ws) struct InvalidDeflate;

impl InvalidDeflate {
    pub(in crate::ws) fn is_cause_of(error: &io::Error) -> bool {
        error
            .get_ref()
            .is_some_and(<dyn Error + Send + Sync>::is::<Self>)
    }
}

/// A stream of which compressed messages are read inflated, where that was agreed upon.
pub(in crate::ws) struct Inflated<S> {
    stream: S,
    /// `None` reads as if this layer were not there.
    inflate: Option<Box<Inflate>>,
}

impl<S> Inflated<S> {
    pub(in crate::ws) fn new(stream: S, extension: Option<Extension>) -> Self {
        Self {
            stream,
            inflate: extension.map(|_| Box::default()),
        }
    }

    /// The stream as it is on the wire.
    pub(in crate::ws) fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Inflated<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, inflate } = self.get_mut();
        match inflate {
            None => Pin::new(stream).poll_read(cx, buf),
            Some(inflate) => inflate.poll_read(Pin::new(stream), cx, buf),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Inflated<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Where in the peer's stream of frames we are.
#[derive(Default)]
struct Inflate {
    /// Read and not yet worked on.
    wire: BytesMut,
    frame: FrameState,
    message: MessageState,
    /// Made, but the reader had no room for it.
    aside: BytesMut,
}

/// What comes next on the wire.
#[derive(Clone, Copy, Default)]
enum FrameState {
    #[default]
    Header,
    /// That many bytes of payload pass as they are.
    Passing(u64),
    Compressed(Payload),
}

/// The rest of a compressed payload.
#[derive(Clone, Copy)]
struct Payload {
    left: u64,
    is_final: bool,
    mask: [u8; 4],
    /// Bytes at the front of [`Inflate::wire`] that are unmasked already.
    unmasked: usize,
}

/// Whose continuation frames may follow.
#[derive(Default)]
enum MessageState {
    #[default]
    None,
    /// One that is not compressed.
    Plain,
    Compressed(Box<Message>),
}

/// A message that is being inflated.
struct Message {
    decompress: Decompress,
    /// Of the next frame that is made: the message's kind for the first, then continuation.
    opcode: u8,
    /// A block said that it was the last one of the stream (RFC 7692 §7.2.3.4).
    ended: bool,
    /// What is left of [`TAIL`].
    tail: &'static [u8],
}

/// The header of a frame, as far as it matters here.
struct Header {
    first: u8,
    length: u64,
    mask: Option<[u8; 4]>,
    /// Its own length.
    size: usize,
}

impl Header {
    /// `None` until all of it is there.
    fn parse(mut bytes: &[u8]) -> Option<Self> {
        let before = bytes.len();
        let first = bytes.try_get_u8().ok()?;
        let second = bytes.try_get_u8().ok()?;
        let length = match second & !MASKED {
            LENGTH_16 => bytes.try_get_u16().ok()?.into(),
            LENGTH_64 => bytes.try_get_u64().ok()?,
            length => length.into(),
        };
        let mask = if second & MASKED == 0 {
            None
        } else {
            Some(bytes.try_get_u32().ok()?.to_be_bytes())
        };
        Some(Self {
            first,
            length,
            mask,
            size: before - bytes.len(),
        })
    }
}

impl Inflate {
    fn poll_read<S: AsyncRead>(
        &mut self,
        mut stream: Pin<&mut S>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            // A few bytes of the wire can make many, for which it need not be read again.
            ready!(poll_proceed(cx)).made_progress();
            let before = self.wire.len();
            let is_filled = self.fill(buf).map_err(invalid)?;
            Self::charge(before - self.wire.len(), cx);
            if is_filled {
                return Poll::Ready(Ok(()));
            }
            self.wire.reserve(READ_BUFFER);
            match poll_read_buf(stream.as_mut(), cx, &mut self.wire) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if self.wire.is_empty() {
                        // An idle connection holds no buffer.
                        self.wire = BytesMut::new();
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Counts work that a read does not count for: blocks that hold nothing but tables of codes cost ten
    /// times as much as others.
    fn charge(worked: usize, cx: &mut Context<'_>) {
        for _ in 0..worked / CHARGED {
            match poll_proceed(cx) {
                Poll::Ready(turn) => turn.made_progress(),
                Poll::Pending => break,
            }
        }
    }

    /// Gives what there is; `false` if there is nothing to be had without more of the wire.
    fn fill(&mut self, buf: &mut ReadBuf<'_>) -> Result<bool, InvalidDeflate> {
        if self.aside.is_empty() {
            if buf.remaining() >= LEAST_ROOM {
                let made = self.make(buf.initialize_unfilled())?;
                buf.advance(made);
                return Ok(made > 0);
            }
            let mut room = [0; LEAST_ROOM];
            let made = self.make(&mut room)?;
            self.aside.extend(room.iter().take(made));
        }
        let count = self.aside.len().min(buf.remaining());
        buf.put_slice(&self.aside.split_to(count));
        if self.aside.is_empty() {
            self.aside = BytesMut::new();
        }
        Ok(count > 0)
    }

    /// Works on until something has been made, and gives its length: 0 once the wire is used up.
    fn make(&mut self, out: &mut [u8]) -> Result<usize, InvalidDeflate> {
        loop {
            let made = match self.frame {
                FrameState::Header => self.header(out),
                FrameState::Passing(left) => self.pass(left, out),
                FrameState::Compressed(payload) => self.inflate(payload, out)?,
            };
            match made {
                Some(0) => {}
                Some(count) => return Ok(count),
                None => return Ok(0),
            }
        }
    }

    /// Takes a header, and passes it on if it is none of a compressed message.
    fn header(&mut self, out: &mut [u8]) -> Option<usize> {
        let header = Header::parse(&self.wire)?;
        let is_final = header.first & FINAL != 0;
        let opcode = header.first & OPCODE;
        let mask = match (&self.message, header.first & RESERVED, opcode) {
            (MessageState::None, COMPRESSED, TEXT | BINARY) if header.mask.is_some() => {
                self.message = MessageState::Compressed(Box::new(Message::new(opcode)));
                header.mask
            }
            (MessageState::Compressed(_), 0, CONTINUATION) => header.mask,
            (MessageState::None | MessageState::Plain, _, CONTINUATION..CONTROL) => {
                self.message = if is_final {
                    MessageState::None
                } else {
                    MessageState::Plain
                };
                None
            }
            // A control frame, or one that the reader refuses.
            _ => None,
        };
        if let Some(mask) = mask {
            self.wire.advance(header.size);
            self.frame = FrameState::Compressed(Payload {
                left: header.length,
                is_final,
                mask,
                unmasked: 0,
            });
            return Some(0);
        }
        // There is room: headers are shorter than `LEAST_ROOM`.
        let (to, _) = out.split_at_mut(header.size);
        self.wire.copy_to_slice(to);
        self.frame = FrameState::after(header.length);
        Some(header.size)
    }

    fn pass(&mut self, left: u64, out: &mut [u8]) -> Option<usize> {
        let count = at_most(left, self.wire.len().min(out.len()));
        if count == 0 {
            return None;
        }
        let (to, _) = out.split_at_mut(count);
        self.wire.copy_to_slice(to);
        self.frame = FrameState::after(left - count as u64);
        Some(count)
    }

    /// Makes one frame, as far as there is room and the wire has something for it.
    fn inflate(
        &mut self,
        mut payload: Payload,
        out: &mut [u8],
    ) -> Result<Option<usize>, InvalidDeflate> {
        let MessageState::Compressed(message) = &mut self.message else {
            return Err(InvalidDeflate);
        };
        // There is room: `LEAST_ROOM` is more than a header.
        let (head, body) = out.split_at_mut(HEADER);
        let (body, _) = body.split_at_mut(body.len().min(u16::MAX.into()));
        let mut made = 0;
        let ends = loop {
            let (_, free) = body.split_at_mut(made);
            if free.is_empty() {
                break Ends::Nothing;
            }
            if payload.left > 0 {
                let count = at_most(payload.left, self.wire.len());
                if count == 0 {
                    break Ends::Nothing;
                }
                let (input, _) = self.wire.split_at_mut(count);
                payload.unmask(input);
                let (taken, given) = message.decompress(input, free)?;
                self.wire.advance(taken);
                payload.left -= taken as u64;
                payload.unmasked -= taken;
                made += given;
            } else if !payload.is_final {
                break Ends::Frame;
            } else if message.ended {
                break Ends::Message;
            } else {
                let (taken, given) = message.decompress(message.tail, free)?;
                message.tail = message.tail.get(taken..).unwrap_or_default();
                made += given;
                // Room that is left says that nothing more is to come.
                if message.tail.is_empty() && made < body.len() {
                    break Ends::Message;
                }
            }
        };
        self.frame = match ends {
            Ends::Nothing => FrameState::Compressed(payload),
            Ends::Frame | Ends::Message => FrameState::Header,
        };
        // The first frame is made even if it is empty: from then on the reader knows of the message.
        if made == 0 {
            match ends {
                Ends::Nothing => return Ok(None),
                Ends::Frame if message.opcode == CONTINUATION => return Ok(Some(0)),
                Ends::Frame | Ends::Message => {}
            }
        }
        let mut first = std::mem::replace(&mut message.opcode, CONTINUATION);
        if let Ends::Message = ends {
            first |= FINAL;
            if let MessageState::Compressed(message) = std::mem::take(&mut self.message) {
                message.give_back();
            }
        }
        let length = u16::try_from(made).unwrap_or(u16::MAX).to_be_bytes();
        let header = [first, MASKED | LENGTH_16, length[0], length[1], 0, 0, 0, 0];
        head.copy_from_slice(&header);
        Ok(Some(HEADER + made))
    }
}

/// What ends with a frame that was made.
#[derive(Clone, Copy)]
enum Ends {
    Nothing,
    /// The frame on the wire.
    Frame,
    Message,
}

impl FrameState {
    fn after(left: u64) -> Self {
        match left {
            0 => Self::Header,
            left => Self::Passing(left),
        }
    }
}

impl Payload {
    /// Unmasks what has arrived since the last time; `input` begins where the wire does.
    fn unmask(&mut self, input: &mut [u8]) {
        let (_, masked) = input.split_at_mut(self.unmasked);
        let fresh = masked.len();
        let (quads, rest) = masked.as_chunks_mut::<4>();
        for quad in quads {
            for (byte, mask) in quad.iter_mut().zip(self.mask) {
                *byte ^= mask;
            }
        }
        for (byte, mask) in rest.iter_mut().zip(self.mask) {
            *byte ^= mask;
        }
        self.mask.rotate_left(fresh % 4);
        self.unmasked += fresh;
    }
}

impl Message {
    fn new(opcode: u8) -> Self {
        Self {
            decompress: borrow(&SPARE).unwrap_or_else(|| Decompress::new(false)),
            opcode,
            ended: false,
            tail: &TAIL,
        }
    }

    /// Leaves the decompressor to the next message.
    fn give_back(mut self) {
        self.decompress.reset(false);
        give_back(&SPARE, self.decompress);
    }

    /// Gives how many bytes of `input` were taken, and how many were put into `output`.
    fn decompress(
        &mut self,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<(usize, usize), InvalidDeflate> {
        if self.ended {
            // What follows the last block of a stream is another stream.
            self.decompress.reset(false);
            self.ended = false;
        }
        let (taken, given) = (self.decompress.total_in(), self.decompress.total_out());
        match self
            .decompress
            .decompress(input, output, FlushDecompress::Sync)
        {
            Ok(Status::StreamEnd) => self.ended = true,
            Ok(Status::Ok | Status::BufError) => {}
            Err(_) => return Err(InvalidDeflate),
        }
        let taken = self.decompress.total_in() - taken;
        let given = self.decompress.total_out() - given;
        if taken == 0 && given == 0 && !input.is_empty() {
            return Err(InvalidDeflate);
        }
        Ok((at_most(taken, input.len()), at_most(given, output.len())))
    }
}

fn invalid(cause: InvalidDeflate) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, cause)
}

fn at_most(count: u64, limit: usize) -> usize {
    usize::try_from(count).map_or(limit, |count| count.min(limit))
}

#[cfg(test)]
mod tests {
    use super::super::{Deflater, negotiate};
    use super::*;
    use flate2::{Compress, Compression, FlushCompress};
    use http::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_EXTENSIONS};
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Waker;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A peer that sends `wire` in pieces, and between two of them has nothing yet.
    struct Pieces {
        wire: BytesMut,
        sizes: Box<dyn FnMut() -> usize>,
        waits: bool,
    }

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.waits = !self.waits;
            if self.waits {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let count = (self.sizes)().min(self.wire.len()).min(buf.remaining());
            buf.put_slice(&self.wire.split_to(count));
            Poll::Ready(Ok(()))
        }
    }

    fn extension(offer: &str) -> Extension {
        let mut headers = HeaderMap::new();
        headers.insert(
            SEC_WEBSOCKET_EXTENSIONS,
            HeaderValue::from_str(offer).unwrap(),
        );
        negotiate(&headers).unwrap()
    }

    fn inflated<S>(stream: S) -> Inflated<S> {
        Inflated::new(stream, Some(extension("permessage-deflate")))
    }

    /// Everything that is read of `wire`, which comes and is read in pieces of these sizes.
    async fn read(
        wire: &[u8],
        sizes: impl FnMut() -> usize + 'static,
        mut rooms: impl FnMut() -> usize,
    ) -> io::Result<Vec<u8>> {
        let mut stream = inflated(Pieces {
            wire: BytesMut::from(wire),
            sizes: Box::new(sizes),
            waits: false,
        });
        let mut all = Vec::new();
        loop {
            let mut room = vec![0; rooms()];
            let count = stream.read(&mut room).await?;
            if count == 0 {
                return Ok(all);
            }
            all.extend_from_slice(&room[..count]);
        }
    }

    const MASK: [u8; 4] = [0x12, 0x34, 0xab, 0xff];

    /// A frame as a client sends it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            length @ 0..126 => bytes.push(MASKED | u8::try_from(length).unwrap()),
            length @ 126..=0xffff => {
                bytes.push(MASKED | LENGTH_16);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                bytes.push(MASKED | LENGTH_64);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(MASK);
        bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(a, b)| a ^ b));
        bytes
    }

    /// The frames in `bytes`, fragments put together: what each began with, and what it holds.
    fn messages(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut rest = bytes;
        let mut found = Vec::new();
        let mut message: Option<(u8, Vec<u8>)> = None;
        while !rest.is_empty() {
            let header = Header::parse(rest).expect("a whole header");
            rest.advance(header.size);
            let (payload, after) = rest.split_at(usize::try_from(header.length).unwrap());
            rest = after;
            let mask = header.mask.expect("a client's frame");
            let payload = payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b);
            if header.first & CONTROL != 0 {
                found.push((header.first, payload.collect()));
                continue;
            }
            let (kind, mut content) = match (header.first & OPCODE, message.take()) {
                (CONTINUATION, Some(begun)) => begun,
                (CONTINUATION, None) => panic!("continues nothing"),
                (_, Some(_)) => panic!("begins before the end"),
                (_, None) => (FINAL | header.first, Vec::new()),
            };
            content.extend(payload);
            if header.first & FINAL == 0 {
                message = Some((kind, content));
            } else {
                found.push((kind, content));
            }
        }
        assert_eq!(message, None, "not ended");
        found
    }

    fn hello(kind: u8) -> (u8, Vec<u8>) {
        (kind, b"Hello".to_vec())
    }

    /// Numbers that look like chance and are the same in each run.
    fn dice(mut seed: u64) -> impl FnMut(usize) -> usize {
        move |limit| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed % limit as u64).unwrap()
        }
    }

    fn deflate(payload: &[u8], offer: &str) -> Vec<u8> {
        let mut deflater = Deflater::new(extension(offer), payload.len().max(1024), false).unwrap();
        deflater.next(payload, true).unwrap().to_vec()
    }

    #[tokio::test]
    async fn every_form_of_a_compressed_message_is_inflated() {
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let cases: [(&str, Vec<u8>, &[u8]); 12] = [
            ("RFC 7692 §7.2.3.1", frame(0xc1, &hello), b"Hello"),
            (
                "fragments",
                [frame(0x41, &hello[..3]), frame(0x80, &hello[3..])].concat(),
                b"Hello",
            ),
            (
                "fragments that are empty",
                [
                    frame(0x41, b""),
                    frame(0x00, b""),
                    frame(0x00, &hello),
                    frame(0x80, b""),
                ]
                .concat(),
                b"Hello",
            ),
            (
                "not compressed (§7.2.3.3)",
                frame(0xc1, b"\x00\x05\x00\xfa\xffHello\x00"),
                b"Hello",
            ),
            (
                "BFINAL (§7.2.3.4)",
                frame(0xc1, &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]),
                b"Hello",
            ),
            (
                "BFINAL, and nothing after it",
                frame(0xc1, &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]),
                b"Hello",
            ),
            (
                "two BFINAL blocks",
                frame(
                    0xc1,
                    &[
                        0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0xf3, 0x48, 0xcd, 0xc9, 0xc9,
                        0x07, 0x00, 0x00,
                    ],
                ),
                b"HelloHello",
            ),
            (
                "two blocks (§7.2.3.5)",
                frame(
                    0xc1,
                    &[
                        0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07,
                        0x00,
                    ],
                ),
                b"Hello",
            ),
            ("empty (§7.2.3.6)", frame(0xc1, &[0x00]), b""),
            ("empty, as another block", frame(0xc1, &[0x02, 0x00]), b""),
            ("without any block", frame(0xc1, b""), b""),
            ("not compressed at all", frame(0x81, b"Hello"), b"Hello"),
        ];
        for (what, wire, content) in cases {
            for size in 1..=wire.len() {
                for room in [1, 9, LEAST_ROOM, 8192] {
                    let read = read(&wire, move || size, || room).await.expect(what);
                    assert_eq!(
                        messages(&read),
                        [(0x81, content.to_vec())],
                        "{what} in pieces of {size}, read in pieces of {room}"
                    );
                }
            }
        }
    }

    #[tokio::test]
    async fn each_message_is_inflated_by_itself_and_control_frames_keep_their_place() {
        let compressed = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let wire = [
            frame(0xc2, &compressed),
            frame(0x89, b"one"),
            frame(0x41, &compressed[..2]),
            frame(0x8a, b"two"),
            frame(0x00, &compressed[2..4]),
            frame(0x89, b"three"),
            frame(0x80, &compressed[4..]),
            frame(0x01, b"pl"),
            frame(0x89, b""),
            frame(0x80, b"ain"),
            frame(0xc1, &compressed),
            frame(0x88, b"\x03\xe8"),
        ]
        .concat();
        let expected = [
            hello(0x82),
            (0x89, b"one".to_vec()),
            (0x8a, b"two".to_vec()),
            (0x89, b"three".to_vec()),
            hello(0x81),
            (0x89, Vec::new()),
            (0x81, b"plain".to_vec()),
            hello(0x81),
            (0x88, b"\x03\xe8".to_vec()),
        ];
        for size in 1..=wire.len() {
            let read = read(&wire, move || size, || 512).await.unwrap();
            assert_eq!(messages(&read), expected, "in pieces of {size}");
        }
    }

    #[tokio::test]
    async fn what_was_compressed_here_inflates_whatever_the_window_and_the_pieces() {
        let mut dice = dice(1);
        for bits in 9..=15 {
            let offer = format!("permessage-deflate; server_max_window_bits={bits}");
            for length in [0, 1, 1000, 40_000, 200_000] {
                let text: Vec<u8> = (0..length)
                    .map(|at| b"the quick brown fox "[(at * at / 7 + dice(2)) % 20])
                    .collect();
                let compressed = deflate(&text, &offer);
                // In frames of any length.
                let mut wire = Vec::new();
                let mut rest = &compressed[..];
                let mut first = 0x42;
                loop {
                    let (part, after) = rest.split_at(dice(rest.len() + 1));
                    rest = after;
                    if dice(4) == 0 || rest.is_empty() {
                        wire.extend(frame(first | FINAL, &[part, rest].concat()));
                        break;
                    }
                    wire.extend(frame(first, part));
                    first = 0;
                }
                let (mut sizes, mut rooms) = (self::dice(bits), self::dice(bits + 99));
                let read = read(&wire, move || 1 + sizes(9000), || 1 + rooms(9000)).await;
                assert_eq!(
                    messages(&read.unwrap()),
                    [(0x82, text)],
                    "{offer}, {length}"
                );
            }
        }
    }

    #[tokio::test]
    async fn frames_that_break_the_rules_pass_as_they_are() {
        let unmasked = |first: u8| vec![first, 0x02, 0xf2, 0x48];
        let huge = [&[0xc9, 0xff], &[0x7f; 8][..], &MASK].concat();
        let cases = [
            ("another reserved bit", frame(0xe1, b"x")),
            ("reserved bits without the first", frame(0xb1, b"x")),
            ("a compressed ping", frame(0xc9, b"x")),
            ("a compressed ping without end", huge),
            ("an unmasked frame", unmasked(0xc1)),
            ("an unknown opcode", frame(0xc3, b"x")),
            ("a continuation of nothing", frame(0x80, b"x")),
            ("a compressed continuation of nothing", frame(0xc0, b"x")),
            (
                "a compressed continuation of plain text",
                [frame(0x01, b"x"), frame(0xc0, b"x")].concat(),
            ),
            (
                "a compressed message in plain text",
                [frame(0x01, b"x"), frame(0xc1, b"x")].concat(),
            ),
        ];
        for (what, wire) in cases {
            for size in 1..=wire.len() {
                let read = read(&wire, move || size, || 100).await.unwrap();
                assert_eq!(read, wire, "{what}, in pieces of {size}");
            }
        }
    }

    #[tokio::test]
    async fn a_compressed_message_is_begun_before_what_interrupts_it_against_the_rules() {
        for (what, wrong) in [
            ("a compressed continuation", frame(0xc0, b"\x00")),
            ("plain text", frame(0x81, b"x")),
            ("another compressed message", frame(0xc1, b"\x00")),
            ("an unmasked continuation", vec![0x80, 0x01, 0x00]),
        ] {
            let wire = [frame(0x41, b""), wrong.clone()].concat();
            let read = read(&wire, || 100, || 300).await.unwrap();
            let begun = [0x01, MASKED | LENGTH_16, 0, 0, 0, 0, 0, 0];
            assert_eq!(read, [&begun[..], &wrong].concat(), "{what}");
        }
    }

    #[tokio::test]
    async fn what_is_no_deflate_stream_is_an_error_that_says_so() {
        let cases: [(&str, &[u8]); 4] = [
            ("a reserved kind of block", &[0x06]),
            (
                "a stored block with a wrong length",
                &[0x00, 0x05, 0x00, 0, 0],
            ),
            ("a distance beyond the window", &[0x02, 0x23, 0x00]),
            ("no code lengths", &[0xff; 20]),
        ];
        for (what, payload) in cases {
            let wire = frame(0xc1, payload);
            for size in 1..=wire.len() {
                let error = read(&wire, move || size, || 100).await.expect_err(what);
                assert!(InvalidDeflate::is_cause_of(&error), "{what}: {error}");
            }
        }
    }

    #[tokio::test]
    async fn no_message_can_refer_to_one_before_it_on_whatever_connection() {
        let secret = b"a message that nobody else may read";
        let mut compress = Compress::new(Compression::default(), false);
        compress.set_dictionary(secret).unwrap();
        let mut copy = Vec::with_capacity(100);
        compress
            .compress_vec(secret, &mut copy, FlushCompress::Sync)
            .unwrap();
        assert!(copy.len() < secret.len() / 2, "it refers to the dictionary");
        let first = frame(0xc1, &deflate(secret, "permessage-deflate"));
        let thief = frame(0xc1, &copy);
        let wire = [&first[..], &thief].concat();
        assert!(read(&wire, || 9000, || 9000).await.is_err(), "the same");
        for _ in 0..2 {
            let others = read(&first, || 9000, || 9000).await.unwrap();
            assert_eq!(messages(&others), [(0x81, secret.to_vec())]);
            assert!(read(&thief, || 9000, || 9000).await.is_err(), "another");
        }
    }

    #[tokio::test]
    async fn no_bytes_whatever_cause_a_panic_or_read_for_ever() {
        let mut dice = dice(7);
        for _ in 0..2000 {
            let mut wire = Vec::new();
            for _ in 0..=dice(6) {
                let mut payload: Vec<u8> = match dice(3) {
                    0 => deflate(&vec![b'x'; dice(3000)], "permessage-deflate"),
                    1 => vec![0; dice(300)],
                    _ => b"\xf2\x48\xcd\xc9\xc9\x07\x00".to_vec(),
                };
                for _ in 0..dice(3) {
                    let (at, value) = (dice(payload.len() + 1), dice(256));
                    if let Some(byte) = payload.get_mut(at) {
                        *byte = u8::try_from(value).unwrap();
                    }
                }
                let first = [0xc1, 0x41, 0x00, 0x80, 0x42, 0xc2, 0x89][dice(7)];
                wire.extend(frame(first, &payload));
            }
            if dice(4) == 0 {
                let at = dice(wire.len());
                wire[at] = u8::try_from(dice(256)).unwrap();
            }
            let (mut sizes, mut rooms) = (self::dice(3), self::dice(5));
            let outcome = read(&wire, move || 1 + sizes(40), || 1 + rooms(600)).await;
            if let Err(error) = outcome {
                assert!(InvalidDeflate::is_cause_of(&error), "{error}");
            }
        }
    }

    #[tokio::test]
    async fn an_idle_connection_holds_neither_a_buffer_nor_a_decompressor() {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let mut stream = inflated(ours);
        let wire = frame(0xc1, &deflate(&[b'x'; 3000], "permessage-deflate"));
        theirs.write_all(&wire).await.unwrap();
        let mut room = [0; 4096];
        assert_eq!(stream.read(&mut room).await.unwrap(), HEADER + 3000);
        let mut buf = ReadBuf::new(&mut room);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(
            Pin::new(&mut stream)
                .poll_read(&mut cx, &mut buf)
                .is_pending()
        );
        let inflate = stream.inflate.unwrap();
        assert_eq!(inflate.wire.capacity(), 0);
        assert_eq!(inflate.aside.capacity(), 0);
        assert!(matches!(inflate.message, MessageState::None));
    }

    /// How often `stream` gives way to others until it has given this many bytes.
    async fn turns(wire: &[u8], bytes: usize) -> usize {
        let (ours, mut theirs) = tokio::io::duplex(wire.len());
        theirs.write_all(wire).await.unwrap();
        let mut stream = inflated(ours);
        let mut reading = pin!(async {
            let mut room = [0; 8192];
            let mut all = 0;
            while all < bytes {
                all += stream.read(&mut room).await.unwrap();
            }
        });
        let mut turns = 0;
        poll_fn(|cx| {
            turns += 1;
            reading.as_mut().poll(cx)
        })
        .await;
        turns
    }

    #[tokio::test]
    async fn work_that_takes_long_lets_others_have_their_turn() {
        let bomb = deflate(&vec![0; 8 << 20], "permessage-deflate");
        let much = turns(&frame(0xc2, &bomb), 8 << 20).await;
        assert!(much >= 8, "8 MiB in {much} turns");
        let nothing = [0x00, 0x00, 0x00, 0xff, 0xff].repeat(100_000);
        let long = turns(&frame(0xc2, &nothing), HEADER).await;
        assert!(long >= 3, "500 kB of empty blocks in {long} turns");
        let short = deflate(&[b'x'; 3000], "permessage-deflate");
        assert_eq!(turns(&frame(0xc2, &short), HEADER + 3000).await, 1);
    }
}
