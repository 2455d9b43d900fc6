//! The boundary between the server and what it serves.
//!
//! An [`Application`] answers requests; a WSGI app, an ASGI app, a policy over two of them and the
//! admin endpoint all are one, so adding a kind touches nothing else. Dropping the future of a call,
//! or later the body of its response, means that the client has gone: nobody has to ask for it.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::body::Body;
use crate::http::Interim;
use crate::lead::Lead;
use crate::route::MountPoint;
use crate::ws::Handshake;

/// A future on the heap that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A response head with a body of any kind.
pub type Response = http::Response<Body>;

/// Answers requests of one mount.
pub trait Application: Send + Sync + fmt::Debug + 'static {
    /// What this application is, for start-up lines, `twinspan routes` and metrics.
    fn description(&self) -> Description;

    /// Answers one request. Dropping the future, or later the response body, means that the client has gone.
    ///
    /// The request is half a kilobyte, and every application hands it on to another thread: boxed once,
    /// it is not moved again.
    fn call(&self, request: Box<Request>) -> BoxFuture<'static, Result<Response, AppError>>;

    /// The WebSocket side; `None` (the default) means that upgrades pass this application by.
    fn websocket(&self) -> Option<&dyn WebSocketApplication> {
        None
    }

    /// Runs before the worker accepts (ASGI `lifespan.startup`).
    fn startup(&self) -> BoxFuture<'_, Result<(), LifespanError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Offers the I/O to threads of the application that would idle otherwise; nobody takes it by default.
    /// Asked once, after [`Application::startup`], of an application that has its worker to itself.
    fn may_lead(&self, lead: Lead) {
        drop(lead);
    }

    /// Tells an application that the server stops, in time for what it runs to end by itself.
    fn notify(&self, notice: Notice) {
        let _ = notice;
    }

    /// Returns when nothing runs any more for requests that were accepted: a client may have its
    /// response, or have gone, while a thread or a background task still works.
    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Runs after the last connection has drained (ASGI `lifespan.shutdown`). What has not settled by then
    /// is cut off.
    fn shutdown(&self) -> BoxFuture<'_, Result<(), LifespanError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// How full the pool of threads is that runs the application; `None` where there is none.
    fn pool(&self) -> Option<PoolLoad> {
        None
    }

    /// Whether requests wait for the application, or soon would: it has no time for what can be left out.
    fn is_busy(&self) -> bool {
        self.pool()
            .is_some_and(|load| load.waiting > 0 || load.busy + 1 >= load.threads.max(2))
    }

    /// Returns when so many of its threads are stuck that only a new process helps; each time that comes
    /// about. For one who waits.
    fn exhausted(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// Where the application is in a startup or shutdown that takes too long, for people; `None` where that
    /// is not known. Returns soon.
    fn whereabouts(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(std::future::ready(None))
    }

    /// Returns when what the application keeps up while it serves is lost, and its worker is to be replaced for
    /// that (an ASGI lifespan that is `required`).
    fn broken(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// The routes that the application's own router defines, read after [`Application::startup`].
    fn routes(&self) -> BoxFuture<'_, Result<RouteTable, RoutesError>> {
        Box::pin(std::future::ready(Err(RoutesError::Unreadable {
            what: "this application".into(),
        })))
    }

    /// Where the application hands requests to another through a bridge between their protocols, read after
    /// [`Application::startup`].
    fn bridges(&self) -> BoxFuture<'_, Vec<Bridge>> {
        Box::pin(std::future::ready(Vec::new()))
    }
}

/// Serves WebSocket connections.
pub trait WebSocketApplication: Send + Sync {
    /// Answers one handshake and lives as long as its connection. A handshake that is dropped
    /// unanswered is denied with 500; [`AppError`] is logged.
    fn connect(&self, handshake: Handshake) -> BoxFuture<'static, Result<(), AppError>>;
}

/// What kind of application stands behind a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interface {
    /// PEP 3333.
    Wsgi,
    /// ASGI 3.
    Asgi,
    /// Written in Rust against [`Application`].
    Native,
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wsgi => "WSGI",
            Self::Asgi => "ASGI",
            Self::Native => "native",
        })
    }
}

/// What an application says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    pub interface: Interface,
    /// Most threads that may run the application at once; `None` where it does not use threads.
    pub threads: Option<usize>,
}

/// How full a pool of threads is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLoad {
    /// The size of the pool: most threads that may run at once.
    pub threads: usize,
    /// Without those that were abandoned.
    pub busy: usize,
    /// Requests that wait for a thread.
    pub waiting: usize,
    /// Threads that still run a request whose deadline has passed. As many as the pool's size are replaced.
    pub abandoned: usize,
}

impl PoolLoad {
    /// More threads are stuck than can be replaced: every request is turned away.
    pub fn is_exhausted(&self) -> bool {
        self.abandoned > self.threads
    }
}

/// One HTTP request, routed.
#[derive(Debug)]
pub struct Request {
    pub head: http::request::Parts,
    pub body: Body,
    /// Where the application is mounted and what is left of the path.
    pub at: MountPoint,
    /// Who asked, as seen by the first proxy that is trusted.
    pub origin: Origin,
    pub conn: Arc<ConnInfo>,
    /// A copy of a request that was answered by another application: what comes of it reaches no client.
    pub is_copy: bool,
    /// Where interim responses go; `None` where the protocol has none (HTTP/1.0), or hyper no way to send
    /// them (HTTP/2), and for an upgrade.
    pub interim: Option<Interim>,
}

/// The client's side of a request after trusted proxies have been believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    pub scheme: Scheme,
    /// `None` on a unix socket without a trusted proxy.
    pub client: Option<SocketAddr>,
}

/// The scheme that the client used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The scheme of a WebSocket over this one (RFC 6455 §3).
    pub fn websocket(self) -> &'static str {
        match self {
            Self::Http => "ws",
            Self::Https => "wss",
        }
    }

    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// What is known of a connection before its first request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnInfo {
    /// `None` on a unix socket.
    pub peer: Option<SocketAddr>,
    /// On a unix socket, the user whose process has connected, where the system tells.
    pub peer_uid: Option<u32>,
    pub local: LocalAddr,
    pub scheme: Scheme,
}

/// Where a connection was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalAddr {
    Tcp(SocketAddr),
    Unix(Arc<str>),
}

/// `127.0.0.1:8000`, `unix:/run/app.sock`
impl fmt::Display for LocalAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// Why an application did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Raised: 500. Its adapter has logged how, with the traceback.
    #[error("the application raised")]
    Raised,
    /// Broke the protocol, or cannot be asked: 500.
    #[error("{0}")]
    Failed(String),
    /// Could not go on without the rest of a body that its client stopped sending: 400 (RFC 9112 §8).
    #[error("the client stopped sending")]
    Incomplete,
    /// Every thread is busy and the queue is full: 503 with `Retry-After` (RFC 9110 §15.6.4).
    #[error("{waiting} requests wait already")]
    Overloaded { waiting: usize },
    /// More threads are stuck than can be replaced: 503 with `Retry-After`.
    #[error("{abandoned} threads are stuck")]
    Exhausted { abandoned: usize },
    /// No response head within the deadline: 504.
    #[error("no response within {0:?}")]
    Timeout(Duration),
}

/// How far a stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Nothing new is accepted. What has an end goes on to it; what has none ends now.
    Draining,
    /// What still runs will be cut off in a moment.
    LastCall,
}

/// Why an application did not start, or did not stop as it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct LifespanError {
    /// One sentence without a full stop.
    pub problem: String,
    /// The way out, where there is one.
    pub hint: Option<String>,
    /// What the application raised, as its language prints it.
    pub traceback: Option<String>,
}

/// What an application's own router defines: plain data, so that commands, policies and the
/// supervisor never hold Python objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    pub routes: Vec<Route>,
    #[serde(default)]
    pub notes: Notes,
}

impl RouteTable {
    /// A table without notes.
    pub fn new(routes: Vec<Route>) -> Self {
        Self {
            routes,
            notes: Notes::default(),
        }
    }
}

/// What stands around the routes of an application and does not move with them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notes {
    /// Functions that Flask and Quart run before views.
    pub before_request: Vec<Hook>,
    /// Dotted names, outermost first: Django's `MIDDLEWARE`, those of Starlette and FastAPI, wrappers.
    pub middleware: Vec<String>,
    /// What needs the socket of the connection.
    pub sockets: Vec<SocketUse>,
}

/// A function that runs before views.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Dotted.
    pub name: String,
    /// The blueprint that it belongs to; `None` for the whole application.
    pub scope: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
}

/// Something that takes the socket of a connection, which no WSGI application gets from this server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketUse {
    /// As it is installed: `flask-sock`, `Flask-SocketIO (threading)`.
    pub extension: String,
    /// The view that does it, where it is one.
    pub endpoint: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
}

/// One route of an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// As the framework writes it: `/items/{id}`, `/users/<int:id>`.
    pub template: String,
    /// In the language of Python's `re`, over the decoded path below the mount: from its start to
    /// where the expression ends.
    pub pattern: String,
    pub kind: RouteKind,
    /// Upper case; `None` means every method. Never holds the HEAD or OPTIONS that a framework adds by itself.
    pub methods: Option<Vec<String>>,
    /// Only requests for this host, where the router says so: a regular expression over the host name without the port.
    pub host: Option<String>,
    /// The router redirects `path` to `path/` or back when only that form is defined.
    pub redirects_slash: bool,
    /// `false` when a converter decides in Python what the pattern can only approximate.
    pub exact: bool,
    /// Dotted name of the view.
    pub endpoint: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
    /// Dotted names of what runs before the view and may refuse (dependencies, security schemes); `None`
    /// where that cannot be known.
    #[serde(default)]
    pub guards: Option<Vec<String>>,
}

/// A template with every parameter alike. Frameworks write the same path differently (`/items/{id}`,
/// `/items/<int:id>`): two that have the same shape are one path to a reader.
pub fn shape(template: &str) -> String {
    let mut shape = String::with_capacity(template.len());
    let mut depth = 0_usize;
    for char in template.chars() {
        match char {
            '{' | '<' => {
                if depth == 0 {
                    shape.push_str("{}");
                }
                depth += 1;
            }
            '}' | '>' => depth = depth.saturating_sub(1),
            _ if depth == 0 => shape.push(char),
            _ => {}
        }
    }
    shape
}

/// What a route answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteKind {
    Http,
    WebSocket,
}

/// Another application inside of one, behind a bridge between their protocols.
#[derive(Debug, Clone)]
pub struct Bridge {
    pub report: BridgeReport,
    /// What the outer application tries before the bridge: patterns may match too much, not too little.
    pub before: RouteTable,
    /// What is behind the bridge, made to be served in its place; `None` where that is not wanted or not possible.
    pub inner: Option<Arc<dyn Application>>,
}

/// What there is to say of a bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeReport {
    /// Where it is mounted in the outer application, without a slash at the end; `""` is the root.
    pub prefix: String,
    /// The dotted name of its class.
    pub bridge: String,
    /// What a request pays for it, as the end of a sentence that begins with the bridge.
    pub cost: String,
    /// Why it cannot be served natively, as the end of a sentence.
    pub obstacle: Option<String>,
    /// What each request passes on its way to the bridge, outermost first. Nothing of it runs for requests that
    /// are served natively.
    pub passes: Vec<Passed>,
    /// Dependencies of the applications above, which never apply to what is mounted, with a bridge or without.
    pub dependencies: Vec<Passed>,
    /// The name under which what is behind it is served natively.
    pub served_as: Option<String>,
}

impl BridgeReport {
    /// The prefix, for people.
    pub fn place(&self) -> &str {
        if self.prefix.is_empty() {
            "/"
        } else {
            &self.prefix
        }
    }
}

/// Code that a request passes, and where it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Dotted.
    pub name: String,
    pub file: Option<String>,
    pub line: Option<u32>,
}

/// `shop.middleware.Audit (/srv/shop/middleware.py:12)`
impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, " ({file}:{line})"),
            (Some(file), None) => write!(f, " ({file})"),
            (None, _) => Ok(()),
        }
    }
}

/// Why an application's routes are not known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RoutesError {
    /// No router that can be read was found in the object.
    #[error("the router of {what} cannot be read")]
    Unreadable { what: String },
    /// The router was found, one of its routes cannot be expressed.
    #[error("route `{template}`: {problem}")]
    Route { template: String, problem: String },
}

impl RoutesError {
    /// The routes are known, and one of them is the problem.
    pub fn is_of_a_route(&self) -> bool {
        matches!(self, Self::Route { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_alike_however_they_are_written() {
        for (template, same) in [
            ("/items/{id}", "/items/{}"),
            ("/items/<int:id>/x", "/items/{}/x"),
            ("/f/{path:path}", "/f/{}"),
            ("/r/{n:[0-9]{2}}/y", "/r/{}/y"),
        ] {
            assert_eq!(shape(template), same);
        }
    }
}
