//! A server over pipes in memory, a client that speaks bytes, and applications that do as they are told.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use twinspan::app::{
    AppError, Application, BoxFuture, ConnInfo, Description, Interface, LocalAddr, Request,
    Response, RoutesError, Scheme,
};
use twinspan::body::Body;
use twinspan::config::{Config, RuleConfig, RuleMatch};
use twinspan::dispatch::Dispatcher;
use twinspan::drain::Drain;
use twinspan::http::{Stream, serve_connection};
use twinspan::metrics::access_log::AccessLog;
use twinspan::metrics::traffic::AppTraffic;
use twinspan::metrics::{Metrics, Snapshot};
use twinspan::migrate::live::Overlay;
use twinspan::migrate::observe::Observations;
use twinspan::route::{App, Router};

type Handler =
    dyn Fn(Box<Request>) -> BoxFuture<'static, Result<Response, AppError>> + Send + Sync + 'static;

/// An application that is a function.
pub(crate) struct Fake(Box<Handler>);

impl Fake {
    pub(crate) fn new<F, A>(handler: F) -> Arc<Self>
    where
        F: Fn(Box<Request>) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Response, AppError>> + Send + 'static,
    {
        Arc::new(Self(Box::new(move |request| Box::pin(handler(request)))))
    }

    /// Answers 200 with the method, the target and the body that it was sent.
    pub(crate) fn echo() -> Arc<Self> {
        Self::new(|mut request| async move {
            let mut text = format!("{} {} ", request.head.method, request.head.uri).into_bytes();
            while let Some(data) = request.body.data().await {
                match data {
                    Ok(data) => text.extend_from_slice(&data),
                    Err(error) => return Err(AppError::Failed(error.to_string())),
                }
            }
            Ok(Response::new(Body::from(bytes::Bytes::from(text))))
        })
    }

    /// Answers 200 with the body that comes out of the channel.
    pub(crate) fn streams(receiver: twinspan::body::Receiver) -> Arc<Self> {
        let receiver = Mutex::new(Some(receiver));
        Self::new(move |_| {
            let receiver = receiver.lock().unwrap().take().expect("one request");
            async move { Ok(Response::new(Body::from(receiver))) }
        })
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

impl Application for Fake {
    fn description(&self) -> Description {
        Description {
            interface: Interface::Native,
            threads: None,
        }
    }

    fn call(&self, request: Box<Request>) -> BoxFuture<'static, Result<Response, AppError>> {
        (self.0)(request)
    }
}

/// One application behind the catch-all rule.
pub(crate) struct Server {
    dispatcher: Arc<Dispatcher>,
    metrics: Arc<Metrics>,
    pub(crate) drain: Drain,
}

impl Server {
    pub(crate) fn new(application: Arc<dyn Application>) -> Self {
        Self::with(Config::default(), application, None)
    }

    pub(crate) fn with(
        config: Config,
        application: Arc<dyn Application>,
        access_log: Option<Box<dyn io::Write + Send>>,
    ) -> Self {
        let rule = RuleConfig::new("fake", RuleMatch::mount(""), "");
        let overlay = Overlay::default();
        Self::of(
            config,
            &[("fake", application)],
            &[rule],
            &overlay,
            access_log,
        )
    }

    /// Several applications behind rules.
    pub(crate) fn of(
        config: Config,
        apps: &[(&str, Arc<dyn Application>)],
        rules: &[RuleConfig],
        overlay: &Overlay,
        access_log: Option<Box<dyn io::Write + Send>>,
    ) -> Self {
        let names: Vec<Arc<str>> = apps.iter().map(|(name, _)| (*name).into()).collect();
        let metrics = Metrics::new(&names);
        let apps: Vec<_> = apps
            .iter()
            .zip(metrics.apps())
            .map(|((name, application), metrics)| {
                let name: Arc<str> = (*name).into();
                let app = App {
                    traffic: Some(Arc::new(AppTraffic::new(Arc::clone(&name), None))),
                    name,
                    application: Arc::clone(application),
                    metrics: Arc::clone(metrics),
                };
                let unknown = RoutesError::Unreadable { what: "it".into() };
                (Arc::new(app), Err(unknown))
            })
            .collect();
        let router = Router::build(rules, "", &apps, overlay).unwrap();
        let drain = Drain::new(tokio::runtime::Handle::current(), CancellationToken::new());
        let access_log =
            access_log.map(|sink| AccessLog::start(sink, Arc::clone(&metrics)).unwrap());
        let dispatcher = Dispatcher::new(
            Arc::new(config),
            router,
            Arc::clone(&metrics),
            access_log,
            drain.clone(),
        );
        Self {
            dispatcher,
            metrics,
            drain,
        }
    }

    pub(crate) fn connect(&self) -> Client {
        self.connect_from("127.0.0.1:50000")
    }

    pub(crate) fn connect_from(&self, peer: &str) -> Client {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let aborted = Arc::new(AtomicBool::new(false));
        let pipe = Pipe {
            pipe: server,
            aborted: Arc::clone(&aborted),
        };
        let conn = ConnInfo {
            peer: Some(peer.parse().unwrap()),
            peer_uid: None,
            local: LocalAddr::Tcp("127.0.0.1:8000".parse().unwrap()),
            scheme: Scheme::Http,
        };
        let served = tokio::spawn(serve_connection(Arc::clone(&self.dispatcher), pipe, conn));
        Client {
            pipe: client,
            read: Vec::new(),
            aborted,
            served,
        }
    }

    /// What there is to tell of the migration, once there is something that `is_enough`.
    pub(crate) async fn observed(&self, is_enough: impl Fn(&Observations) -> bool) -> Observations {
        let mut all = Observations::default();
        while !is_enough(&all) {
            tokio::task::yield_now().await;
            let more = self.dispatcher.observe();
            all.traffic.extend(more.traffic);
            all.canaries.extend(more.canaries);
            all.comparisons.extend(more.comparisons);
            all.samples.extend(more.samples);
        }
        all
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.metrics.snapshot()
    }
}

/// A pipe that notes whether it ended in a reset, which a pipe in memory cannot send.
struct Pipe {
    pipe: DuplexStream,
    aborted: Arc<AtomicBool>,
}

impl Stream for Pipe {
    fn abort(&mut self) {
        self.aborted.store(true, Ordering::SeqCst);
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// The other end of a connection.
pub(crate) struct Client {
    pub(crate) pipe: DuplexStream,
    /// Read and not yet used.
    read: Vec<u8>,
    aborted: Arc<AtomicBool>,
    served: JoinHandle<()>,
}

/// What a client makes of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// By its framing; a body that the end of the connection delimits always is.
    pub(crate) complete: bool,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn closes(&self) -> bool {
        self.headers
            .get("connection")
            .is_some_and(|value| value == "close")
    }
}

impl Client {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.pipe.write_all(bytes.as_ref()).await.unwrap();
    }

    /// As [`send`](Self::send), in pieces of which the server reads each for itself.
    pub(crate) async fn send_bytewise(&mut self, bytes: &[u8]) {
        for byte in bytes {
            // The server may have had enough already.
            if self.pipe.write_all(&[*byte]).await.is_err() {
                return;
            }
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// The client sends nothing more, and reads on.
    pub(crate) async fn finish(&mut self) {
        self.pipe.shutdown().await.unwrap();
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request).await;
        self.answer().await
    }

    /// Reads a final answer to a GET or POST.
    pub(crate) async fn answer(&mut self) -> Answer {
        loop {
            let answer = self.answer_to("GET").await.expect("an answer");
            if !answer.status.is_informational() {
                return answer;
            }
        }
    }

    /// Reads one answer, interim ones too; `None` at the end of the connection.
    pub(crate) async fn answer_to(&mut self, method: &str) -> Option<Answer> {
        let end = loop {
            if let Some(end) = find(&self.read, b"\r\n\r\n") {
                break end + 4;
            }
            if !self.read_more().await {
                assert!(
                    self.read.is_empty(),
                    "half a head: {}",
                    self.read.escape_ascii()
                );
                return None;
            }
        };
        let head: Vec<u8> = self.read.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let status: StatusCode = status.unwrap().parse().unwrap();
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line
                .split_once(": ")
                .unwrap_or((line.trim_end_matches(':'), ""));
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let bodiless =
            method == "HEAD" || status.is_informational() || matches!(status.as_u16(), 204 | 304);
        let (body, complete) = if bodiless {
            (Vec::new(), true)
        } else if let Some(length) = headers.get("content-length") {
            self.sized(length.to_str().unwrap().parse().unwrap()).await
        } else if headers.contains_key("transfer-encoding") {
            self.chunked().await
        } else {
            while self.read_more().await {}
            (std::mem::take(&mut self.read), true)
        };
        Some(Answer {
            status,
            headers,
            body,
            complete,
        })
    }

    /// Waits until this has come, and leaves it to be read.
    pub(crate) async fn wait_for(&mut self, text: &str) {
        while find(&self.read, text.as_bytes()).is_none() {
            assert!(self.read_more().await, "{}", self.read.escape_ascii());
        }
    }

    async fn sized(&mut self, length: usize) -> (Vec<u8>, bool) {
        while self.read.len() < length {
            if !self.read_more().await {
                return (std::mem::take(&mut self.read), false);
            }
        }
        (self.read.drain(..length).collect(), true)
    }

    async fn chunked(&mut self) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            let line = loop {
                if let Some(end) = find(&self.read, b"\r\n") {
                    break self.read.drain(..end + 2).collect::<Vec<_>>();
                }
                if !self.read_more().await {
                    return (body, false);
                }
            };
            let size = usize::from_str_radix(str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            let (chunk, whole) = self.sized(size + 2).await;
            body.extend_from_slice(chunk.get(..size).unwrap_or(&chunk));
            if !whole || size == 0 {
                return (body, whole);
            }
        }
    }

    /// False at the end of the connection.
    async fn read_more(&mut self) -> bool {
        self.pipe.read_buf(&mut self.read).await.unwrap_or(0) > 0
    }

    /// Waits until the server has let go of the connection, which nothing more came over.
    /// Returns whether it was reset.
    pub(crate) async fn closed(mut self) -> bool {
        let end = async { while self.read_more().await {} };
        let end = tokio::time::timeout(Duration::from_secs(600), end).await;
        assert!(end.is_ok(), "the connection is held for ever");
        assert!(self.read.is_empty(), "{}", self.read.escape_ascii());
        self.served.await.unwrap();
        self.aborted.load(Ordering::SeqCst)
    }

    /// The client disappears; waits until the server has seen it.
    pub(crate) async fn vanish(self) {
        drop(self.pipe);
        self.served.await.unwrap();
    }

    /// Whether the server keeps the connection, once it has done all that it can do.
    pub(crate) async fn is_open(&mut self) -> bool {
        for _ in 0..64 {
            tokio::task::yield_now().await;
        }
        !self.served.is_finished()
    }

    /// Whether the server ends the connection within this time.
    pub(crate) async fn ends_within(&mut self, limit: Duration) -> bool {
        let end = tokio::time::timeout(limit, self.read_more()).await;
        assert!(self.read.is_empty(), "{}", self.read.escape_ascii());
        end == Ok(false)
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, part)
}
