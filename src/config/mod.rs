//! The configuration, typed and checked: what the rest of the server reads.
//!
//! Its way is one, in every process: sources say things ([`RawConfig`]), [`load`] lays them over each
//! other and remembers who said what ([`Settings`]), [`Config::new`] checks the whole. Settings are plain
//! data, so the supervisor sends them to its workers, and each builds the same [`Config`] from them.

mod check;
mod check_rules;
mod error;
mod foreign;
mod load;
mod raw;
pub mod rule;
mod value;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

pub use error::{ConfigError, InvalidValue, nearest};
pub(crate) use load::from_clap;
pub use load::{Origin, Settings, Sources, command, load};
pub use raw::{RawApp, RawApps, RawConfig, RawRoute, When};
pub use rule::{RuleConfig, RuleMatch};
pub use value::{Count, Mount, Prefix, Seconds, TrustedPeer};

/// Everything that one server needs to know; immutable once built.
#[derive(Debug, Clone, PartialEq)]
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
    /// Where what a restart must not lose is kept.
    pub state_dir: Option<PathBuf>,
    /// Findings of `twinspan check` that are meant.
    pub acknowledged: Vec<String>,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppConfig {
    /// Unique; in logs, metrics and rules.
    pub name: String,
    pub target: Target,
    /// WSGI: most threads that run the application at once.
    pub threads: usize,
    /// WSGI: requests that may wait for a thread before the next is answered 503.
    pub queue: usize,
    /// WSGI: from the moment a request is handed over to its response head.
    pub timeout_request: Option<Duration>,
    pub lifespan: LifespanMode,
    /// The application must have started within this.
    pub timeout_startup: Duration,
    /// The application must have stopped within this.
    pub timeout_shutdown: Duration,
    /// Names the router where the application object hides it.
    pub router: Option<Target>,
    /// Whether WSGI applications that it mounts through a bridge are served natively.
    pub unbridge: bool,
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

/// ASGI's lifespan protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LifespanMode {
    /// Used when the application takes part in it.
    #[default]
    Auto,
    /// An application that does not take part fails to start.
    On,
    /// The application is never asked.
    Off,
    /// As `On`, and a worker is replaced when the lifespan breaks while it serves.
    Required,
}

/// Which event loop runs ASGI applications.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LoopChoice {
    /// uvloop when it is installed.
    #[default]
    Auto,
    Asyncio,
    Uvloop,
    /// What makes a loop when it is called without arguments: a function or a class.
    Factory(Target),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    #[serde(alias = "critical")]
    #[value(alias = "critical")]
    Error,
    #[serde(alias = "warn")]
    #[value(alias = "warn")]
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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request head.
    pub head_bytes: usize,
    /// Header fields of a request.
    pub header_count: usize,
    /// Bytes of one WebSocket message.
    pub websocket_message: usize,
    /// Whether clients that offer to compress WebSocket messages are taken at their word.
    pub websocket_compression: bool,
    /// WebSocket messages that wait for the application before reading pauses.
    pub websocket_queue: usize,
    pub websocket_ping_interval: Option<Duration>,
    pub websocket_ping_timeout: Option<Duration>,
}

impl Default for Config {
    /// Every default, and no application.
    fn default() -> Self {
        Self {
            binds: vec![Bind::Tcp(SocketAddr::new(
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                8000,
            ))],
            backlog: 2048,
            workers: 1,
            io_threads: 1,
            apps: Vec::new(),
            rules: Vec::new(),
            root_path: String::new(),
            app_dir: PathBuf::from("."),
            loop_choice: LoopChoice::default(),
            access_log: true,
            log_level: LogLevel::default(),
            server_header: false,
            date_header: true,
            forwarded: ForwardedConfig::default(),
            admin: None,
            state_dir: None,
            acknowledged: Vec::new(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
        }
    }
}

impl AppConfig {
    /// An application with the default settings.
    pub fn new(name: String, target: Target) -> Self {
        Self {
            name,
            target,
            threads: 32,
            queue: 100,
            timeout_request: None,
            lifespan: LifespanMode::default(),
            timeout_startup: Duration::from_secs(60),
            timeout_shutdown: Duration::from_secs(10),
            router: None,
            unbridge: false,
        }
    }
}

impl Default for ForwardedConfig {
    /// A proxy on the same machine.
    fn default() -> Self {
        let loopback = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
        Self {
            networks: vec![
                IpNet::V4(loopback),
                IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            ],
            everyone: false,
            unix: false,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(5),
            header_read: Duration::from_secs(30),
            graceful_shutdown: Duration::from_secs(30),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 64 * 1024,
            header_count: 100,
            websocket_message: 16 * 1024 * 1024,
            websocket_compression: true,
            websocket_queue: 32,
            websocket_ping_interval: Some(Duration::from_secs(20)),
            websocket_ping_timeout: Some(Duration::from_secs(20)),
        }
    }
}
