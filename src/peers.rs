//! Requests from one application to another within a worker, by name and without a socket.
//!
//! They take the way of every request through [`Application::call`], so that the other application's pool, its
//! queue, its deadline and its metrics are what they are for a client. What they do not pass is what belongs to
//! connections: routing (the name says where it goes), policies, and the access log.
//!
//! Each has a deadline. Applications may call each other in a circle, and where all threads of a pool wait for
//! one that none of them is free to give, nothing but time ends that.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::app::{Application, ConnInfo, LocalAddr, Origin, Request, Response, Scheme};
use crate::body::Body;
use crate::config::Config;
use crate::config::rule::{Location, RuleConfig};
use crate::dispatch::answered;
use crate::metrics::AppMetrics;
use crate::route::{App, MountPoint, RuleInfo};
use crate::worker::Loaded;

/// Fields that speak of a connection (RFC 9110 §7.6.1), or of a body that is sent anew.
const OF_THE_CONNECTION: [HeaderName; 9] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What cannot stand in the path of a request line as it is (RFC 3986 §3.3).
const NOT_IN_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The prefix that the first rule with one cuts off for `app`; `""` where the application sees whole paths.
pub fn mount<'a>(rules: &'a [RuleConfig], app: &str) -> &'a str {
    rules
        .iter()
        .filter(|rule| rule.app == app)
        .find_map(|rule| match &rule.matches.location {
            Location::Mount(prefix) => Some(prefix.trim_end_matches('/')),
            Location::Path(_) | Location::Template(_) => None,
        })
        .unwrap_or_default()
}

/// The applications of a worker for each other. Made before they are loaded, and of use once the worker has started.
#[derive(Debug, Clone, Default)]
pub struct Peers(Arc<OnceLock<Open>>);

#[derive(Debug)]
struct Open {
    runtime: Handle,
    peers: Vec<Peer>,
}

#[derive(Debug)]
struct Peer {
    rule: Arc<RuleInfo>,
    mount: String,
    /// Not held: what is called from an application may be kept by it.
    application: Weak<dyn Application>,
    metrics: Arc<AppMetrics>,
}

/// One request to another application.
#[derive(Debug)]
pub struct Call {
    /// Its name in the configuration.
    pub app: String,
    pub method: Method,
    /// Path and query as in a request line; the path below the mount of the application.
    pub target: String,
    pub headers: HeaderMap,
    pub content: Bytes,
    /// The public prefix, before the mount.
    pub prefix: String,
    pub scheme: Scheme,
    /// On whose behalf it is asked.
    pub client: Option<SocketAddr>,
    /// It belongs to a copy of a request, and is to change nothing either.
    pub is_copy: bool,
    /// From now to the last byte of the answer.
    pub timeout: Duration,
    /// Most bytes of the answer.
    pub limit: usize,
}

/// What the application answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub content: Bytes,
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("the server has not started: applications can call each other when all have started")]
    NotStarted,
    #[error("the server has stopped")]
    Stopped,
    #[error("there is no application `{app}`; there are {known}")]
    Unknown { app: String, known: String },
    #[error("`{target}` is no target of a request: {problem}")]
    Target { target: String, problem: String },
    #[error("`{app}` has not answered within {limit:?}")]
    Timeout { app: String, limit: Duration },
    #[error("the answer of `{app}` has more than {limit} bytes")]
    TooLarge { app: String, limit: usize },
    #[error("the answer of `{app}` broke off: {problem}")]
    Broken { app: String, problem: String },
}

impl Peers {
    /// Lets the applications of a worker that has started call each other.
    pub(crate) fn open(
        &self,
        runtime: Handle,
        loaded: &[Loaded],
        metrics: &[Arc<AppMetrics>],
        config: &Config,
    ) {
        let peers = loaded.iter().zip(metrics).map(|(app, metrics)| Peer {
            rule: Arc::new(RuleInfo {
                name: format!("call of {}", app.config.name),
                app: Arc::clone(metrics.name()),
            }),
            mount: mount(&config.rules, &app.config.name).to_owned(),
            application: Arc::downgrade(&app.application),
            metrics: Arc::clone(metrics),
        });
        let peers = peers.collect();
        // A worker starts once.
        let _ = self.0.set(Open { runtime, peers });
    }

    /// The I/O runtime of the worker, where [`Peers::call`] runs.
    ///
    /// # Errors
    /// [`CallError::NotStarted`].
    pub fn runtime(&self) -> Result<&Handle, CallError> {
        Ok(&self.0.get().ok_or(CallError::NotStarted)?.runtime)
    }

    /// Asks an application. One that fails, is overloaded or misses its own deadline answers as it would a client:
    /// 500, 503, 504.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call(&self, call: Call) -> Result<Answer, CallError> {
        let (app, limit) = (call.app.clone(), call.timeout);
        tokio::time::timeout(limit, self.ask(call))
            .await
            .unwrap_or(Err(CallError::Timeout { app, limit }))
    }

    async fn ask(&self, call: Call) -> Result<Answer, CallError> {
        let open = self.0.get().ok_or(CallError::NotStarted)?;
        let Some(peer) = open.peers.iter().find(|peer| *peer.rule.app == *call.app) else {
            let known: Vec<String> = open
                .peers
                .iter()
                .map(|peer| format!("`{}`", peer.rule.app))
                .collect();
            return Err(CallError::Unknown {
                app: call.app,
                known: known.join(", "),
            });
        };
        let app = App {
            name: Arc::clone(&peer.rule.app),
            application: peer.application.upgrade().ok_or(CallError::Stopped)?,
            metrics: Arc::clone(&peer.metrics),
            traffic: None,
        };
        let is_head = call.method == Method::HEAD;
        let (name, limit) = (call.app.clone(), call.limit);
        let request = request(peer, call)?;
        let mut counted = Counted::begin(&peer.metrics);
        let (response, declared) = answered(&app, request, is_head).await;
        counted.status = response.status();
        let answer = collect(&name, response, limit).await?;
        if let Some(declared) = declared
            && declared != answer.content.len() as u64
        {
            return Err(CallError::Broken {
                app: name,
                problem: format!(
                    "it has {} bytes, its `Content-Length` is {declared}",
                    answer.content.len()
                ),
            });
        }
        counted.complete = true;
        Ok(answer)
    }
}

fn request(peer: &Peer, call: Call) -> Result<Box<Request>, CallError> {
    let target = call.target;
    let wrong = |problem: &str| CallError::Target {
        target: target.clone(),
        problem: problem.into(),
    };
    if !target.starts_with('/') {
        return Err(wrong("it begins with a slash"));
    }
    let uri = format!("{}{target}", utf8_percent_encode(&peer.mount, NOT_IN_PATH));
    let mut head = http::Request::new(()).into_parts().0;
    head.method = call.method;
    head.uri = uri
        .parse()
        .map_err(|error: http::uri::InvalidUri| wrong(&error.to_string()))?;
    head.headers = call.headers;
    for name in &OF_THE_CONNECTION {
        head.headers.remove(name);
    }
    if !call.content.is_empty() || matches!(head.method, Method::POST | Method::PUT | Method::PATCH)
    {
        // RFC 9110 §8.6: also for an empty body, where the method has a meaning for one.
        let length = call.content.len().into();
        head.headers.insert(CONTENT_LENGTH, length);
    }
    let root_path = format!("{}{}", call.prefix, peer.mount).into();
    let at = MountPoint::below(Arc::clone(&peer.rule), root_path, &peer.mount, &head)
        .map_err(|refusal| wrong(refusal.reason))?;
    Ok(Box::new(Request {
        head,
        body: Body::from(call.content),
        at,
        origin: Origin {
            scheme: call.scheme,
            client: call.client,
        },
        // No socket: what the server is called is in `Host`.
        conn: Arc::new(ConnInfo {
            peer: None,
            peer_uid: None,
            local: LocalAddr::Unix("".into()),
            scheme: call.scheme,
        }),
        interim: None,
        is_copy: call.is_copy,
    }))
}

async fn collect(app: &str, response: Response, limit: usize) -> Result<Answer, CallError> {
    let (head, mut body) = response.into_parts();
    let mut content = BytesMut::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(|error| CallError::Broken {
            app: app.into(),
            problem: error.to_string(),
        })?;
        if content.len() + piece.len() > limit {
            return Err(CallError::TooLarge {
                app: app.into(),
                limit,
            });
        }
        content.extend_from_slice(&piece);
    }
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        content: content.freeze(),
    })
}

/// Counts a request for as long as it takes, however it ends.
struct Counted<'a> {
    metrics: &'a AppMetrics,
    began: Instant,
    status: StatusCode,
    complete: bool,
}

impl<'a> Counted<'a> {
    fn begin(metrics: &'a AppMetrics) -> Self {
        metrics.begin();
        Self {
            metrics,
            began: Instant::now(),
            // As for a client that has left, should nobody wait for the answer any more.
            status: StatusCode::from_u16(499).unwrap_or_default(),
            complete: false,
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.metrics.end(self.status, self.began.elapsed());
        if !self.complete {
            self.metrics.aborted();
        }
    }
}
