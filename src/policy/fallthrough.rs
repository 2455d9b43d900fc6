//! Fallthrough: an answer that counts as none, so that the rules below are asked.
//!
//! It is decided on the response head, before a byte is sent. The application may have read some of the
//! request body by then: what it reads is kept, in memory first and in a temporary file beyond that, and is
//! read again by whoever is asked next. A body that is longer stays with the first application.

use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::body::{Body, BodyError};
use crate::file::PIECE;

/// Makes a body that can be read a second time: the one for the first reader, and the handle for the second.
///
/// `memory` and `file` are the bytes that are kept at most in either. Called on the I/O runtime, whose threads for
/// files then do what is slow: readers are threads of Python that know no runtime.
pub fn replayable(body: Body, memory: usize, file: u64) -> (Body, Replay) {
    let shared = Arc::new(Shared(Mutex::new(State {
        source: Some(body),
        ended: false,
        kept: Kept::new(memory, file),
        read: 0,
        generation: 0,
        reader: true,
        replay: true,
        io: None,
    })));
    let reader = Replayed {
        shared: Arc::clone(&shared),
        generation: 0,
    };
    (Body::replayed(reader), Replay { shared })
}

/// The right to read a body again.
#[derive(Debug)]
pub struct Replay {
    shared: Arc<Shared>,
}

impl Replay {
    /// The body from its beginning, for another reader; whoever still reads the first one finds the client
    /// gone. `None` where too much of it was read to be kept, or the disk did not take it.
    pub async fn rewind(self) -> Option<Body> {
        // The first reader may have had its last piece before the disk had it.
        poll_fn(|cx| self.shared.lock().poll_written(cx)).await;
        let mut state = self.shared.lock();
        if state.kept.is_lost() {
            return None;
        }
        state.generation += 1;
        state.read = 0;
        state.reader = true;
        let reader = Replayed {
            shared: Arc::clone(&self.shared),
            generation: state.generation,
        };
        drop(state);
        Some(Body::replayed(reader))
    }

    /// The whole of a short body, where the first reader has read it to its end.
    pub fn into_bytes(self) -> Option<Bytes> {
        let state = self.shared.lock();
        if !state.has_ended() || state.kept.is_lost() || state.kept.in_file > 0 {
            return None;
        }
        Some(Bytes::copy_from_slice(&state.kept.memory))
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.replay = false;
        if state.generation == 0 {
            // Nobody will read it again.
            state.kept.forget();
        }
        drop(state.release());
    }
}

/// A reader of a body that is kept.
#[derive(Debug)]
pub struct Replayed {
    shared: Arc<Shared>,
    /// Only the last reader gets anything.
    generation: u32,
}

#[derive(Debug)]
struct Shared(Mutex<State>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct State {
    /// Gone with whoever could read it.
    source: Option<Body>,
    /// It has told its end; not every kind of body can be asked for that.
    ended: bool,
    kept: Kept,
    /// How much of what is kept the reader has had.
    read: u64,
    generation: u32,
    reader: bool,
    replay: bool,
    /// The disk is at work, on a thread of its own.
    io: Option<Io>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

enum Io {
    Write(JoinHandle<io::Result<File>>),
    Read(JoinHandle<io::Result<(File, Bytes)>>),
}

impl State {
    fn has_ended(&self) -> bool {
        let source = self.source.as_ref();
        self.ended || source.is_some_and(http_body::Body::is_end_stream)
    }

    /// Ready when nothing is being written.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(Io::Write(task)) = &mut self.io {
            let written = ready!(Pin::new(task).poll(cx));
            self.io = None;
            self.kept.written(flatten(written));
        }
        Poll::Ready(())
    }

    /// What nobody can read any more, to be dropped without the lock.
    fn release(&mut self) -> Option<Body> {
        if self.reader || self.replay {
            return None;
        }
        self.source.take()
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            ready!(self.poll_written(cx));
            if let Some(Io::Read(task)) = &mut self.io {
                let read = ready!(Pin::new(task).poll(cx));
                self.io = None;
                match flatten(read) {
                    Ok((file, piece)) if !piece.is_empty() => {
                        self.kept.file = Some(file);
                        self.read += piece.len() as u64;
                        return Poll::Ready(Some(Ok(Frame::data(piece))));
                    }
                    read => {
                        let problem = read.err().map_or("it is short".into(), |e| e.to_string());
                        warn!(
                            problem,
                            "a request body that was kept in a file cannot be read"
                        );
                        self.kept.forget();
                    }
                }
            }
            if self.generation > 0 && self.kept.is_lost() {
                return Poll::Ready(Some(Err(BodyError::Disconnected)));
            }
            if self.read < self.kept.len() {
                if let Some(piece) = self.kept.in_memory(self.read) {
                    self.read += piece.len() as u64;
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                let Some(read) = self.kept.read_at(self.read) else {
                    return Poll::Ready(Some(Err(BodyError::Disconnected)));
                };
                self.io = Some(Io::Read(read));
                continue;
            }
            let Some(source) = &mut self.source else {
                return Poll::Ready(Some(Err(BodyError::Disconnected)));
            };
            let frame = ready!(Pin::new(source).poll_frame(cx));
            self.ended |= frame.is_none();
            if self.generation == 0
                && let Some(Ok(frame)) = &frame
                && let Some(data) = frame.data_ref()
            {
                self.io = self.kept.keep(data).map(Io::Write);
                self.read = self.kept.len();
            }
            return Poll::Ready(frame);
        }
    }
}

fn flatten<T>(joined: Result<io::Result<T>, tokio::task::JoinError>) -> io::Result<T> {
    joined.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// The beginning of a body.
#[derive(Debug)]
struct Kept {
    runtime: Handle,
    /// Copied, so that many small pieces are no more than their bytes.
    memory: Vec<u8>,
    most_in_memory: usize,
    file: Option<File>,
    in_file: u64,
    most_in_file: u64,
    lost: bool,
}

impl Kept {
    fn new(memory: usize, file: u64) -> Self {
        Self {
            runtime: Handle::current(),
            memory: Vec::new(),
            most_in_memory: memory,
            file: None,
            in_file: 0,
            most_in_file: file,
            lost: false,
        }
    }

    fn len(&self) -> u64 {
        self.memory.len() as u64 + self.in_file
    }

    fn is_lost(&self) -> bool {
        self.lost
    }

    fn forget(&mut self) {
        self.lost = true;
        self.memory = Vec::new();
        self.file = None;
        self.in_file = 0;
    }

    /// Keeps a piece that the first reader gets; the task writes it to the file, where it goes there.
    fn keep(&mut self, piece: &Bytes) -> Option<JoinHandle<io::Result<File>>> {
        if self.lost {
            return None;
        }
        let room = self.most_in_memory.saturating_sub(self.memory.len());
        let mut piece = piece.clone();
        let first = piece.split_to(room.min(piece.len()));
        self.memory.extend_from_slice(&first);
        let length = piece.len() as u64;
        if length == 0 {
            return None;
        }
        if self.in_file + length > self.most_in_file {
            warn!(
                bytes = self.len() + length,
                "a request body is too long to be sent again: no fallthrough"
            );
            self.forget();
            return None;
        }
        self.in_file += length;
        let file = self.file.take();
        Some(self.runtime.spawn_blocking(move || {
            let mut file = match file {
                Some(file) => file,
                None => tempfile::tempfile()?,
            };
            file.write_all(&piece)?;
            Ok(file)
        }))
    }

    fn written(&mut self, written: io::Result<File>) {
        match written {
            Ok(_) if self.lost => {}
            Ok(file) => self.file = Some(file),
            Err(error) => {
                warn!(%error, "a request body cannot be kept: no fallthrough");
                self.forget();
            }
        }
    }

    /// A piece of what is in memory, from an offset on.
    fn in_memory(&self, offset: u64) -> Option<Bytes> {
        let left = self.memory.get(usize::try_from(offset).ok()?..)?;
        let piece = left.get(..PIECE).unwrap_or(left);
        (!piece.is_empty()).then(|| Bytes::copy_from_slice(piece))
    }

    fn read_at(&mut self, offset: u64) -> Option<JoinHandle<io::Result<(File, Bytes)>>> {
        let file = self.file.take()?;
        let offset = offset.checked_sub(self.memory.len() as u64)?;
        let length = self.in_file.checked_sub(offset)?.min(PIECE as u64);
        let length = usize::try_from(length).ok()?;
        Some(self.runtime.spawn_blocking(move || {
            let mut piece = vec![0; length];
            file.read_exact_at(&mut piece, offset)?;
            Ok((file, piece.into()))
        }))
    }
}

impl Drop for Replayed {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if state.generation != self.generation {
            return;
        }
        state.reader = false;
        let gone = state.release();
        drop(state);
        drop(gone);
    }
}

impl http_body::Body for Replayed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.shared.lock();
        if state.generation != self.generation {
            return Poll::Ready(Some(Err(BodyError::Disconnected)));
        }
        state.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        let state = self.shared.lock();
        state.generation == self.generation && state.read >= state.kept.len() && state.has_ended()
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.shared.lock();
        let Some(source) = &state.source else {
            return SizeHint::default();
        };
        let again = state.kept.len().saturating_sub(state.read);
        let mut hint = http_body::Body::size_hint(source);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + again);
        }
        hint.set_lower(hint.lower() + again);
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body;

    async fn all(body: &mut Body) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(data) = body.data().await {
            bytes.extend_from_slice(&data.unwrap());
        }
        bytes
    }

    /// A body of these pieces, that ends.
    fn source(pieces: &[&'static [u8]]) -> Body {
        let (mut sender, receiver) = body::channel(1 << 20);
        for piece in pieces {
            sender.push(Bytes::from_static(piece)).unwrap();
        }
        sender.finish();
        receiver.into()
    }

    #[tokio::test]
    async fn a_body_is_read_again_from_memory_and_from_a_file() {
        for (memory, file) in [(100, 0), (4, 100), (0, 100)] {
            let (mut first, replay) =
                replayable(source(&[b"one ", b"two ", b"three"]), memory, file);
            assert_eq!(all(&mut first).await, b"one two three");
            let mut second = replay.rewind().await.unwrap();
            assert_eq!(all(&mut second).await, b"one two three", "{memory} {file}");
        }
    }

    #[tokio::test]
    async fn what_the_first_reader_has_left_comes_from_the_client() {
        let (mut first, replay) = replayable(source(&[b"one ", b"two"]), 100, 0);
        assert_eq!(&*first.data().await.unwrap().unwrap(), b"one ");
        let mut second = replay.rewind().await.unwrap();
        assert_eq!(all(&mut second).await, b"one two");
        assert!(matches!(
            first.data().await,
            Some(Err(BodyError::Disconnected))
        ));
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_is_read_once() {
        let (mut first, replay) = replayable(source(&[b"one ", b"two ", b"three"]), 4, 4);
        assert_eq!(all(&mut first).await, b"one two three");
        assert!(replay.rewind().await.is_none());
    }

    /// Reads as a thread of Python does, without a runtime.
    fn read(mut body: Body) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        loop {
            match body.poll_data(&mut cx) {
                Poll::Ready(None) => return bytes,
                Poll::Ready(Some(data)) => bytes.extend_from_slice(&data.unwrap()),
                Poll::Pending => std::thread::yield_now(),
            }
        }
    }

    #[test]
    fn readers_may_be_threads_that_know_no_runtime() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let entered = runtime.enter();
        let (first, replay) = replayable(source(&[b"one ", b"two ", b"three"]), 2, 100);
        drop(entered);
        let first = std::thread::spawn(move || read(first));
        assert_eq!(first.join().unwrap(), b"one two three");
        let second = runtime.block_on(replay.rewind()).unwrap();
        let second = std::thread::spawn(move || read(second));
        assert_eq!(second.join().unwrap(), b"one two three");
    }

    #[tokio::test]
    async fn the_end_of_a_body_without_a_length_is_known_once_it_was_read() {
        let (mut first, replay) = replayable(source(&[b"one ", b"two"]), 100, 0);
        assert_eq!(all(&mut first).await, b"one two");
        assert_eq!(replay.into_bytes().unwrap(), "one two");
        let (mut first, replay) = replayable(source(&[b"one ", b"two"]), 100, 0);
        first.data().await.unwrap().unwrap();
        assert!(replay.into_bytes().is_none());
    }

    #[tokio::test]
    async fn the_size_is_told_to_both_readers() {
        let (mut first, replay) = replayable(Body::from("four"), 100, 0);
        assert_eq!(first.left(), Some(4));
        assert_eq!(all(&mut first).await, b"four");
        assert!(first.is_finished());
        let second = replay.rewind().await.unwrap();
        assert_eq!(second.left(), Some(4));
        assert!(!second.is_finished());
    }

    #[tokio::test]
    async fn the_source_goes_when_nobody_can_read_it_any_more() {
        let (mut sender, receiver) = body::channel(100);
        let (first, replay) = replayable(receiver.into(), 100, 0);
        drop(first);
        assert!(!sender.is_disconnected());
        let second = replay.rewind().await.unwrap();
        assert!(!sender.is_disconnected());
        drop(second);
        assert!(sender.push(Bytes::from_static(b"x")).is_err());
    }
}
