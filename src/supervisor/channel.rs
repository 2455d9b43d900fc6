//! The wire between the supervisor and one worker.
//!
//! A socketpair carries frames, each a length of four bytes (big endian) and that much JSON. The first
//! frame, [`Start`], brings the listening sockets along as `SCM_RIGHTS`. The worker finds its end on
//! stdin, the one descriptor that survives an exec without any agreement about numbers.
//!
//! The end of the stream is a message too: a worker whose supervisor has died drains and leaves, so
//! that nothing stays behind that keeps the port.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use rustix::io::FdFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Mutex;

use crate::app::{BridgeReport, Description, RouteTable};
use crate::error::LoadError;
use crate::listen::Listener;
use crate::metrics::Snapshot;
use crate::migrate::live::Overlay;
use crate::migrate::observe::Observations;

/// How often a worker shows that it lives, by [`FromWorker::Heartbeat`].
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How often a worker tells what it has seen of a migration, by [`FromWorker::Observed`].
pub const OBSERVATION_INTERVAL: Duration = Duration::from_secs(1);

/// Both ends come from one release: what they say to each other may change with every one.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// A frame that claims more is an error; the routes of a large site take a few hundred KiB.
const MAX_FRAME: usize = 16 << 20;
const PREFIX: usize = size_of::<u32>();
/// Linux passes at most 253 descriptors with one message (`SCM_MAX_FD`).
const MAX_LISTENERS: usize = 64;

/// The first frame: everything that a worker needs to begin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Start {
    /// The configuration as the command read it; the worker derives its own from it.
    pub config: serde_json::Value,
    /// Which of the workers this is, from 0.
    pub slot: usize,
    /// Counts the reloads, from 0.
    pub generation: u64,
    /// What has been changed since the configuration was written.
    pub overlay: Overlay,
}

/// [`Start`] as it travels.
#[derive(Serialize, Deserialize)]
struct Opening<T> {
    version: String,
    listeners: usize,
    start: T,
}

/// What the supervisor tells a running worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToWorker {
    /// Accept nothing more, finish what is in flight, exit with 0.
    Drain,
    /// Answer with [`FromWorker::Counters`].
    Collect,
    /// Say by [`FromWorker::Prepared`] whether this can count, and hold it; what was held before is forgotten.
    Prepare(Overlay),
    /// Let what is held count for every request from now on, and say so by [`FromWorker::Committed`].
    Commit { version: u64 },
    /// Forget what is held.
    Abort { version: u64 },
}

/// What a worker tells the supervisor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromWorker {
    /// Every application is loaded and started, connections are accepted.
    Ready(Ready),
    /// The worker cannot serve and is about to exit.
    Failed {
        kind: FailureKind,
        failure: Failure,
    },
    Heartbeat,
    /// The registry of this process; also sent unasked before a worker exits, so that nothing counted is lost.
    Counters(Snapshot),
    /// The worker drains without having been told, as after a SIGTERM of its own: it wants a successor.
    Draining,
    /// More threads than can be replaced are stuck in this application: the worker serves on as well as it
    /// can, and wants a successor.
    Stuck {
        app: String,
    },
    /// The answer to [`ToWorker::Prepare`]; with a problem, nothing is held.
    Prepared {
        version: u64,
        problem: Option<String>,
    },
    /// This version counts.
    Committed {
        version: u64,
    },
    /// What the worker has seen since it last told.
    Observed(Observations),
}

/// What a worker found in its applications.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    pub apps: Vec<AppReport>,
    /// For the person who started the server; shown once, not once per worker.
    pub warnings: Vec<String>,
}

/// One application of a ready worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppReport {
    pub name: String,
    pub description: Description,
    /// The routes of its router, or why they cannot be read.
    pub routes: Result<RouteTable, String>,
    /// Where it hands requests to another through a bridge.
    #[serde(default)]
    pub bridges: Vec<BridgeReport>,
}

/// Why a worker cannot serve, in the parts of an error for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One sentence without a full stop.
    pub problem: String,
    /// The way out, where there is one.
    pub hint: Option<String>,
    /// What the application raised, as its language prints it.
    pub traceback: Option<String>,
}

impl Failure {
    pub fn new(problem: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            hint: None,
            traceback: None,
        }
    }
}

/// As the last words of a command.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(traceback) = &self.traceback {
            writeln!(f, "{}", traceback.trim_end())?;
        }
        write!(f, "error: {}", self.problem)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self {
            problem: format!("application `{}`: {}", error.target, error.problem),
            hint: error.hint,
            traceback: error.traceback,
        }
    }
}

/// Whose fault a failed start is; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    Configuration,
    Application,
    /// A defect or the machine's.
    Internal,
}

/// Why the channel cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("this is how the supervisor starts a worker; to start a server, run `twinspan APP`")]
    NotStartedBySupervisor,
    #[error(
        "this is twinspan {VERSION}, its supervisor is {theirs}: the package was changed under a running server, which must be restarted"
    )]
    Version { theirs: String },
    #[error("a message of {length} bytes exceeds the limit of {MAX_FRAME}")]
    TooLong { length: usize },
    #[error("the supervisor announced {announced} listening sockets, {received} arrived")]
    Listeners { announced: usize, received: usize },
    #[error("a message cannot be understood: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A worker's end, before there is a runtime.
#[derive(Debug)]
pub struct WorkerChannel {
    stream: UnixStream,
}

impl WorkerChannel {
    /// Takes the channel from stdin, which becomes `/dev/null`, and waits for the first message.
    pub fn from_stdin() -> Result<(Self, Start, Vec<Listener>), ChannelError> {
        let stdin = rustix::stdio::stdin();
        let is_ours = rustix::net::getsockname(stdin)
            .is_ok_and(|address| address.address_family() == AddressFamily::UNIX);
        if !is_ours {
            return Err(ChannelError::NotStartedBySupervisor);
        }
        // Above the three standard descriptors, so that nobody writes into it by accident.
        let channel = rustix::io::fcntl_dupfd_cloexec(stdin, 3).map_err(io::Error::from)?;
        // An application that reads its input must not read ours.
        let null = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null).map_err(io::Error::from)?;
        Self::open(channel.into())
    }

    /// Waits for the first message on `stream`.
    pub fn open(stream: UnixStream) -> Result<(Self, Start, Vec<Listener>), ChannelError> {
        let channel = Self { stream };
        match channel.receive_start() {
            Ok((start, listeners)) => Ok((channel, start, listeners)),
            Err(error) => {
                // The supervisor is the one who tells people; a channel too broken for it tells enough by ending.
                let _ = channel.fail(FailureKind::Internal, Failure::new(error.to_string()));
                Err(error)
            }
        }
    }

    /// Reports that this worker will not serve. Blocks; for the time before there is a runtime.
    pub fn fail(&self, kind: FailureKind, failure: Failure) -> Result<(), ChannelError> {
        let mut frame = BytesMut::new();
        encode(&FromWorker::Failed { kind, failure }, &mut frame)?;
        Ok((&self.stream).write_all(&frame)?)
    }

    /// Makes the channel part of the current tokio runtime.
    pub fn split(self) -> io::Result<(Sender<FromWorker>, Receiver<ToWorker>)> {
        self.stream.set_nonblocking(true)?;
        Ok(split(tokio::net::UnixStream::from_std(self.stream)?))
    }

    fn receive_start(&self) -> Result<(Start, Vec<Listener>), ChannelError> {
        // One byte is enough to receive what travels with the first.
        let mut prefix = [0; PREFIX];
        let (received, fds) = receive_with_fds(&self.stream, &mut prefix)?;
        if received == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let mut stream = &self.stream;
        stream.read_exact(prefix.get_mut(received..).unwrap_or_default())?;
        let mut frame = vec![0; frame_length(prefix)?];
        stream.read_exact(&mut frame)?;

        // In two steps: another version may have put anything else beside the version.
        let opening: Opening<serde_json::Value> = serde_json::from_slice(&frame)?;
        if opening.version != VERSION {
            return Err(ChannelError::Version {
                theirs: opening.version,
            });
        }
        if opening.listeners != fds.len() {
            return Err(ChannelError::Listeners {
                announced: opening.listeners,
                received: fds.len(),
            });
        }
        let listeners = fds
            .into_iter()
            .map(Listener::from_fd)
            .collect::<io::Result<_>>()?;
        Ok((serde_json::from_value(opening.start)?, listeners))
    }
}

/// Splits a connected stream into its two directions.
pub(super) fn split<O, I>(stream: tokio::net::UnixStream) -> (Sender<O>, Receiver<I>) {
    let (reading, writing) = stream.into_split();
    let sender = Sender {
        outgoing: Arc::new(Mutex::new(Outgoing {
            stream: writing,
            unsent: BytesMut::new(),
        })),
        message: PhantomData,
    };
    let receiver = Receiver {
        stream: reading,
        buffer: BytesMut::new(),
        message: PhantomData,
    };
    (sender, receiver)
}

/// Sends messages of one kind; clones share the stream, which ends with the last of them.
#[derive(Debug)]
pub struct Sender<M> {
    outgoing: Arc<Mutex<Outgoing>>,
    message: PhantomData<fn(M)>,
}

#[derive(Debug)]
struct Outgoing {
    stream: OwnedWriteHalf,
    /// What a dropped [`Sender::send`] left; it goes out before the next message.
    unsent: BytesMut,
}

impl<M> Clone for Sender<M> {
    fn clone(&self) -> Self {
        Self {
            outgoing: Arc::clone(&self.outgoing),
            message: PhantomData,
        }
    }
}

impl<M: Serialize> Sender<M> {
    /// Sends one message. Dropping the future never leaves half of one: the rest follows with the next.
    pub async fn send(&self, message: &M) -> Result<(), ChannelError> {
        let mut outgoing = self.outgoing.lock().await;
        encode(message, &mut outgoing.unsent)?;
        outgoing.flush().await
    }
}

impl Sender<ToWorker> {
    /// Sends the first message.
    ///
    /// # Errors
    /// Besides those of the stream, `InvalidInput` for more listeners than one message can carry (64).
    pub(super) async fn send_start(
        &self,
        start: &Start,
        listeners: &[Listener],
    ) -> Result<(), ChannelError> {
        if listeners.len() > MAX_LISTENERS {
            let problem = format!("at most {MAX_LISTENERS} addresses can be listened on");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem).into());
        }
        let mut outgoing = self.outgoing.lock().await;
        let Outgoing { stream, unsent } = &mut *outgoing;
        let opening = Opening {
            version: VERSION.into(),
            listeners: listeners.len(),
            start,
        };
        encode(&opening, unsent)?;
        let fds: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
        let stream: &tokio::net::UnixStream = (*stream).as_ref();
        let sent = stream
            .async_io(Interest::WRITABLE, || {
                send_with_fds(stream.as_fd(), unsent, &fds)
            })
            .await?;
        unsent.advance(sent);
        outgoing.flush().await
    }
}

impl Outgoing {
    async fn flush(&mut self) -> Result<(), ChannelError> {
        while self.unsent.has_remaining() {
            self.stream.write_buf(&mut self.unsent).await?;
        }
        Ok(())
    }
}

/// Receives messages of one kind.
#[derive(Debug)]
pub struct Receiver<M> {
    stream: OwnedReadHalf,
    buffer: BytesMut,
    message: PhantomData<fn() -> M>,
}

impl<M: DeserializeOwned> Receiver<M> {
    /// Waits for the next message; `None` when the other end has gone. Nothing is lost when the
    /// future is dropped.
    pub async fn recv(&mut self) -> Result<Option<M>, ChannelError> {
        loop {
            if let Some(message) = decode(&mut self.buffer)? {
                return Ok(Some(message));
            }
            match self.stream.read_buf(&mut self.buffer).await {
                // A frame that broke off has been broken off by a death, which is told elsewhere.
                Ok(0) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn encode<M: Serialize>(message: &M, buffer: &mut BytesMut) -> Result<(), ChannelError> {
    let json = serde_json::to_vec(message)?;
    match u32::try_from(json.len()) {
        Ok(length) if json.len() <= MAX_FRAME => buffer.put_u32(length),
        _ => {
            return Err(ChannelError::TooLong { length: json.len() });
        }
    }
    buffer.put_slice(&json);
    Ok(())
}

fn decode<M: DeserializeOwned>(buffer: &mut BytesMut) -> Result<Option<M>, ChannelError> {
    let Some(prefix) = buffer.first_chunk::<PREFIX>() else {
        return Ok(None);
    };
    let length = frame_length(*prefix)?;
    if buffer.len() - PREFIX < length {
        buffer.reserve(PREFIX + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(PREFIX);
    Ok(Some(serde_json::from_slice(&buffer.split_to(length))?))
}

fn frame_length(prefix: [u8; PREFIX]) -> Result<usize, ChannelError> {
    let length = u32::from_be_bytes(prefix) as usize;
    if length > MAX_FRAME {
        return Err(ChannelError::TooLong { length });
    }
    Ok(length)
}

fn send_with_fds(
    stream: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_LISTENERS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    // macOS has no such flag and needs none: Python and Rust both ignore SIGPIPE.
    #[cfg(target_os = "linux")]
    let flags = SendFlags::NOSIGNAL;
    #[cfg(not(target_os = "linux"))]
    let flags = SendFlags::empty();
    Ok(rustix::net::sendmsg(
        stream,
        &[IoSlice::new(bytes)],
        &mut control,
        flags,
    )?)
}

fn receive_with_fds(stream: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_LISTENERS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut slices = [IoSliceMut::new(&mut *bytes)];
        rustix::net::recvmsg(stream, &mut slices, &mut control, RecvFlags::empty())
    })?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            fds.extend(passed);
        }
    }
    // Not by a flag of the call, which macOS does not have. Nothing else runs yet that could fork in between.
    for fd in &fds {
        rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    }
    Ok((received.bytes, fds))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::app::LocalAddr;
    use crate::config::Bind;

    fn pair() -> (tokio::net::UnixStream, UnixStream) {
        let (supervisor, worker) = UnixStream::pair().unwrap();
        supervisor.set_nonblocking(true).unwrap();
        (
            tokio::net::UnixStream::from_std(supervisor).unwrap(),
            worker,
        )
    }

    fn start() -> Start {
        Start {
            config: json!({"apps": ["shop:app"]}),
            slot: 2,
            generation: 7,
            overlay: Overlay {
                version: 3,
                ..Overlay::default()
            },
        }
    }

    fn listener() -> Listener {
        Listener::bind(&Bind::Tcp(([127, 0, 0, 1], 0).into()), 8).unwrap()
    }

    /// Opens the worker's end on a thread of its own, as it blocks.
    async fn open(
        worker: UnixStream,
    ) -> Result<(WorkerChannel, Start, Vec<Listener>), ChannelError> {
        tokio::task::spawn_blocking(|| WorkerChannel::open(worker))
            .await
            .unwrap()
    }

    async fn failure(supervisor: tokio::net::UnixStream) -> String {
        let (_sender, mut receiver) = split::<ToWorker, FromWorker>(supervisor);
        match receiver.recv().await.unwrap() {
            Some(FromWorker::Failed { failure, .. }) => failure.problem,
            other => panic!("{other:?} instead of a failure"),
        }
    }

    #[tokio::test]
    async fn a_worker_gets_its_configuration_and_the_listening_sockets() {
        let (supervisor, worker) = pair();
        let supervisor = split::<ToWorker, FromWorker>(supervisor);
        let listeners = [listener(), listener()];
        supervisor.0.send_start(&start(), &listeners).await.unwrap();
        let (_channel, got, inherited) = open(worker).await.unwrap();
        assert_eq!(got.config, start().config);
        assert_eq!((got.slot, got.generation, got.overlay.version), (2, 7, 3));
        let locals = |listeners: &[Listener]| -> Vec<LocalAddr> {
            listeners.iter().map(|l| l.local().clone()).collect()
        };
        assert_eq!(locals(&inherited), locals(&listeners));
    }

    #[tokio::test]
    async fn passed_descriptors_do_not_leak_into_programs_that_the_application_starts() {
        let (supervisor, worker) = pair();
        let supervisor = split::<ToWorker, FromWorker>(supervisor);
        supervisor
            .0
            .send_start(&start(), &[listener()])
            .await
            .unwrap();
        let (_channel, _, inherited) = open(worker).await.unwrap();
        let flags = rustix::io::fcntl_getfd(inherited[0].as_fd()).unwrap();
        assert!(flags.contains(FdFlags::CLOEXEC));
    }

    #[tokio::test]
    async fn a_configuration_larger_than_the_socket_buffer_arrives_whole() {
        let (supervisor, worker) = pair();
        let supervisor = split::<ToWorker, FromWorker>(supervisor);
        let large = Start {
            config: json!("x".repeat(4 << 20)),
            ..start()
        };
        let opened = tokio::spawn(open(worker));
        supervisor
            .0
            .send_start(&large, &[listener()])
            .await
            .unwrap();
        let (_channel, got, inherited) = opened.await.unwrap().unwrap();
        assert_eq!(got.config, large.config);
        assert_eq!(inherited.len(), 1);
    }

    #[tokio::test]
    async fn both_directions_carry_messages_in_order() {
        let (supervisor, worker) = pair();
        let supervisor = split::<ToWorker, FromWorker>(supervisor);
        supervisor.0.send_start(&start(), &[]).await.unwrap();
        let (channel, _, _) = open(worker).await.unwrap();
        let (from_worker, mut at_worker) = channel.split().unwrap();
        let (to_worker, mut at_supervisor) = supervisor;

        to_worker.send(&ToWorker::Collect).await.unwrap();
        to_worker.send(&ToWorker::Drain).await.unwrap();
        assert_eq!(at_worker.recv().await.unwrap(), Some(ToWorker::Collect));
        assert_eq!(at_worker.recv().await.unwrap(), Some(ToWorker::Drain));

        for message in [
            FromWorker::Ready(Ready::default()),
            FromWorker::Counters(Snapshot::default()),
            FromWorker::Draining,
        ] {
            from_worker.send(&message).await.unwrap();
            let received = at_supervisor.recv().await.unwrap().unwrap();
            assert_eq!(format!("{received:?}"), format!("{message:?}"));
        }
    }

    #[tokio::test]
    async fn the_end_of_either_side_is_seen_by_the_other() {
        let (supervisor, worker) = pair();
        let supervisor = split::<ToWorker, FromWorker>(supervisor);
        supervisor.0.send_start(&start(), &[]).await.unwrap();
        let (channel, _, _) = open(worker).await.unwrap();
        let (_from_worker, mut at_worker) = channel.split().unwrap();
        drop(supervisor);
        assert_eq!(at_worker.recv().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_send_that_was_dropped_halfway_is_finished_by_the_next() {
        let (supervisor, worker) = pair();
        worker.set_nonblocking(true).unwrap();
        let worker = tokio::net::UnixStream::from_std(worker).unwrap();
        let (sender, _) = split::<serde_json::Value, ToWorker>(worker);
        let (_, mut receiver) = split::<ToWorker, serde_json::Value>(supervisor);
        let large = json!("x".repeat(4 << 20));
        {
            let mut sending = std::pin::pin!(sender.send(&large));
            let once = std::future::poll_fn(|context| {
                std::task::Poll::Ready(sending.as_mut().poll(context).is_pending())
            });
            assert!(once.await, "the message fits into the socket's buffer");
        }
        let next = tokio::spawn(async move { sender.send(&json!("next")).await });
        assert_eq!(receiver.recv().await.unwrap(), Some(large));
        assert_eq!(receiver.recv().await.unwrap(), Some(json!("next")));
        next.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn another_version_is_refused_and_both_sides_learn_why() {
        let (supervisor, worker) = pair();
        let mut frame = BytesMut::new();
        let opening = json!({"version": "0.0.0", "listeners": 0, "start": {"whatever": 1}});
        encode(&opening, &mut frame).unwrap();
        send_with_fds(supervisor.as_fd(), &frame, &[]).unwrap();
        let error = open(worker).await.unwrap_err();
        assert!(matches!(error, ChannelError::Version { .. }), "{error:?}");
        assert!(failure(supervisor).await.contains("must be restarted"));
    }

    #[tokio::test]
    async fn a_listener_that_got_lost_is_noticed() {
        let (supervisor, worker) = pair();
        let mut frame = BytesMut::new();
        let opening = Opening {
            version: VERSION.into(),
            listeners: 2,
            start: start(),
        };
        encode(&opening, &mut frame).unwrap();
        send_with_fds(supervisor.as_fd(), &frame, &[listener().as_fd()]).unwrap();
        let error = open(worker).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the supervisor announced 2 listening sockets, 1 arrived"
        );
    }

    #[tokio::test]
    async fn a_supervisor_that_dies_first_ends_the_worker() {
        let (supervisor, worker) = pair();
        drop(supervisor);
        let error = open(worker).await.unwrap_err();
        assert!(matches!(error, ChannelError::Io(_)), "{error:?}");
    }

    #[tokio::test]
    async fn a_length_beyond_the_limit_is_an_error_before_anything_is_allocated() {
        let (supervisor, worker) = pair();
        (&worker).write_all(&u32::MAX.to_be_bytes()).unwrap();
        let (_, mut receiver) = split::<ToWorker, FromWorker>(supervisor);
        let error = receiver.recv().await.unwrap_err();
        assert!(matches!(error, ChannelError::TooLong { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn what_is_no_message_is_an_error() {
        let (supervisor, worker) = pair();
        (&worker).write_all(b"\0\0\0\x02{}").unwrap();
        let (_, mut receiver) = split::<ToWorker, FromWorker>(supervisor);
        let error = receiver.recv().await.unwrap_err();
        assert!(matches!(error, ChannelError::Malformed(_)), "{error:?}");
    }
}
