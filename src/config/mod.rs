//! The configuration, typed and checked: what the rest of the server reads.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

/// Everything that one server needs to know; immutable once built.
#[derive(Debug, Clone)]
pub struct Config {
    pub binds: Vec<Bind>,
    /// Length of the kernel's queue of connections that are not yet accepted.
    pub backlog: u32,
    /// Worker processes.
    pub workers: usize,
    /// Threads per worker that do the network's work; they never run Python.
    pub io_threads: usize,
    /// In the order in which they are started; stopped in reverse.
    pub apps: Vec<AppConfig>,
    pub rules: Vec<RuleConfig>,
    /// Public prefix that a proxy in front cuts off: `""` or `/a/b`.
    pub root_path: String,
    /// Where modules are looked for first.
    pub app_dir: PathBuf,
    pub loop_choice: LoopChoice,
    pub access_log: bool,
    pub log_level: LogLevel,
    pub server_header: bool,
    pub date_header: bool,
    pub forwarded: ForwardedConfig,
    pub admin: Option<Bind>,
    pub timeouts: Timeouts,
    pub limits: Limits,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Bind {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// One application and how it is run.
#[derive(Debug, Clone)]
pub struct AppConfig {
    /// Unique; in logs, metrics and rules.
    pub name: String,
    pub target: Target,
    /// WSGI: most threads that run the application at once.
    pub threads: usize,
    /// WSGI: requests that may wait for a thread before the next is answered 503.
    pub queue: usize,
    pub lifespan: LifespanMode,
    /// Names the router where the application object hides it.
    pub router: Option<Target>,
}

/// `module:attr`, `module` (`app`, then `application`) or `module:factory()`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    pub module: String,
    /// Dotted; `None` tries `app`, then `application`.
    pub attr: Option<String>,
    /// The attribute is called without arguments and gives the application.
    pub factory: bool,
}

/// One rule of the table, in the order of trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleConfig {
    /// Name of an entry of [`Config::apps`].
    pub app: String,
    pub matches: RuleMatch,
    /// Where the rule was written, for errors: `--mount /api`, `twinspan.toml:12`.
    pub origin: String,
}

/// What a rule matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleMatch {
    /// The path and everything below it; the prefix is cut off and becomes `root_path` / `SCRIPT_NAME`. `""` matches all.
    Mount(String),
    /// The path and everything below it; nothing is cut off.
    Path(String),
    /// Exactly what the application's own router defines.
    Owned,
}

/// ASGI's lifespan protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LifespanMode {
    /// Used when the application takes part in it.
    #[default]
    Auto,
    /// An application that does not take part fails to start.
    On,
    Off,
}

/// Which event loop runs ASGI applications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoopChoice {
    /// uvloop when it is installed.
    #[default]
    Auto,
    Asyncio,
    Uvloop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    Error,
    Warning,
    #[default]
    Info,
    Debug,
    Trace,
}

/// Whose forwarding headers are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedConfig {
    pub networks: Vec<IpNet>,
    /// Every peer, for servers that only a proxy can reach.
    pub everyone: bool,
    /// Peers on unix sockets.
    pub unix: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// An idle connection is closed after this.
    pub keep_alive: Duration,
    /// A request head must be complete within this; also the first bytes of a connection.
    pub header_read: Duration,
    /// Requests in flight may finish within this after a stop.
    pub graceful_shutdown: Duration,
    /// An application must have started within this.
    pub startup: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request head.
    pub head_bytes: usize,
    /// Header fields of a request.
    pub header_count: usize,
    /// Bytes of one WebSocket message.
    pub websocket_message: usize,
    /// WebSocket messages that wait for the application before reading pauses.
    pub websocket_queue: usize,
    pub websocket_ping_interval: Option<Duration>,
    pub websocket_ping_timeout: Option<Duration>,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.module)?;
        if let Some(attr) = &self.attr {
            write!(f, ":{attr}")?;
        }
        if self.factory {
            f.write_str("()")?;
        }
        Ok(())
    }
}
