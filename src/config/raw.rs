//! Every option, once: the command line, the file, the environment and the reference page all come
//! from the fields of [`RawConfig`], whose doc comments are what users read.
//!
//! A field is what was said, so each is optional; what it means is [`Config`](super::Config)'s affair.
//! `[default: …]` is for readers: a test holds it against the default that [`Config`](super::Config) uses.

use std::fmt;
use std::path::PathBuf;

use clap::ArgAction::SetTrue;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::value::{Count, Mount, Prefix, Seconds, TrustedPeer, one_or_many};
use super::{Bind, LifespanMode, LogLevel, LoopChoice, Target};

/// What one source, or all of them together, say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// Applications: `module:attr`, `module` (its `app`, then `application`) or `module:factory()`.
    /// The last one answers whatever no other does; each before it answers exactly the routes that
    /// its own router defines.
    #[arg(
        display_order = 0,
        value_name = "APP",
        value_delimiter = ',',
        help_heading = "Applications"
    )]
    #[serde(deserialize_with = "one_or_many")]
    pub app: Option<Vec<Target>>,

    /// Mounts an application under a path prefix, before every APP and the longest prefix first:
    /// `/api=shop.api:app`. May be repeated.
    #[arg(
        long,
        value_name = "PREFIX=APP",
        value_delimiter = ',',
        help_heading = "Applications"
    )]
    #[serde(deserialize_with = "one_or_many")]
    pub mount: Option<Vec<Mount>>,

    /// Directory where modules are looked for first [default: .]
    #[arg(long, value_name = "DIRECTORY", help_heading = "Applications")]
    pub app_dir: Option<PathBuf>,

    /// Public path prefix that a proxy in front cuts off: ASGI's `root_path`, WSGI's `SCRIPT_NAME`.
    #[arg(long, value_name = "PREFIX", help_heading = "Applications")]
    pub root_path: Option<Prefix>,

    /// ASGI lifespan, of each application for itself: `off` never asks for it; `auto` goes on without
    /// where the application takes no part; `on` does not start then; `required` moreover replaces a
    /// worker when the lifespan breaks while it serves. A startup that fails ends the start, whichever
    /// of the three was asked for [default: auto]
    #[arg(long, help_heading = "Applications")]
    pub lifespan: Option<LifespanMode>,

    /// Event loop of ASGI applications; `auto` is uvloop where it is installed, `module:attr` a class
    /// or function that makes one: `rloop:new_event_loop` [default: auto]
    #[arg(
        id = "loop",
        long = "loop",
        value_name = "auto|asyncio|uvloop|MODULE:ATTR",
        help_heading = "Applications"
    )]
    #[serde(rename = "loop")]
    pub event_loop: Option<LoopChoice>,

    /// Where to listen: `127.0.0.1:8000`, `[::1]:8000`, `:8000` (every IPv4 interface), `8000` or
    /// `unix:PATH`; port 0 takes any free one. May be repeated [default: 127.0.0.1:8000]
    #[arg(
        long,
        short,
        value_name = "ADDRESS",
        value_delimiter = ',',
        help_heading = "Listening"
    )]
    #[serde(deserialize_with = "one_or_many")]
    pub bind: Option<Vec<Bind>>,

    /// IP address to listen on, where `--bind` is not given [default: 127.0.0.1]
    #[arg(long, value_name = "IP", help_heading = "Listening")]
    pub host: Option<String>,

    /// Port to listen on, where `--bind` is not given; `$PORT` is honoured [default: 8000]
    #[arg(long, value_name = "PORT", help_heading = "Listening")]
    pub port: Option<Count>,

    /// Unix socket to listen on, as `--bind unix:PATH`.
    #[arg(long, value_name = "PATH", help_heading = "Listening")]
    pub uds: Option<PathBuf>,

    /// Connections that the kernel holds until they are accepted [default: 2048]
    #[arg(long, value_name = "N", help_heading = "Listening")]
    pub backlog: Option<Count>,

    /// Where /healthz, /readyz and /metrics answer: a loopback address or a unix socket; off unless given.
    #[arg(long, value_name = "ADDRESS", help_heading = "Listening")]
    pub admin: Option<Bind>,

    /// Worker processes; `$WEB_CONCURRENCY` is honoured [default: 1]
    #[arg(long, short, value_name = "N", help_heading = "Processes and threads")]
    pub workers: Option<Count>,

    /// Threads per worker that do the network's work; they never run Python [default: 1]
    #[arg(long, value_name = "N", help_heading = "Processes and threads")]
    pub io_threads: Option<Count>,

    /// Threads per worker and WSGI application; an application's own `threads` in the file stands
    /// above it [default: 32]
    #[arg(long, value_name = "N", help_heading = "Processes and threads")]
    pub threads: Option<Count>,

    /// Requests that may wait for a thread of a WSGI application before the next is answered 503
    /// [default: 100]
    #[arg(long, value_name = "N", help_heading = "Processes and threads")]
    pub queue: Option<Count>,

    /// A request to a WSGI application that has no response head after this, the wait for a thread
    /// included, is answered 504 and its thread given up and replaced; 0 waits for ever. An
    /// application's own `timeout_request` in the file stands above it; ASGI applications have none
    /// [default: 0]
    #[arg(long, value_name = "SECONDS", help_heading = "Timeouts")]
    pub timeout_request: Option<Seconds>,

    /// An application must have started within this (`lifespan.startup`); its own `timeout_startup` in
    /// the file stands above it [default: 60]
    #[arg(long, value_name = "SECONDS", help_heading = "Timeouts")]
    pub timeout_startup: Option<Seconds>,

    /// An application must have stopped within this (`lifespan.shutdown`), or it is cut off and the
    /// next has its turn; its own `timeout_shutdown` in the file stands above it [default: 10]
    #[arg(long, value_name = "SECONDS", help_heading = "Timeouts")]
    pub timeout_shutdown: Option<Seconds>,

    /// A request head must be complete within this, and a connection send its first bytes
    /// [default: 30]
    #[arg(long, value_name = "SECONDS", help_heading = "Timeouts")]
    pub timeout_header_read: Option<Seconds>,

    /// A connection without a request is closed after this [default: 5]
    #[arg(long, value_name = "SECONDS", help_heading = "Timeouts")]
    pub timeout_keep_alive: Option<Seconds>,

    /// Requests in flight may finish within this after a stop; also `--graceful-timeout`
    /// [default: 30]
    #[arg(
        long,
        alias = "graceful-timeout",
        value_name = "SECONDS",
        help_heading = "Timeouts"
    )]
    pub timeout_graceful_shutdown: Option<Seconds>,

    /// Largest request head, in bytes; a larger one is answered 431 [default: 65536]
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub limit_head_size: Option<Count>,

    /// Most header fields of a request; one with more is answered 431 [default: 100]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub limit_header_count: Option<Count>,

    /// Largest WebSocket message, in bytes, uncompressed; a larger one closes with 1009
    /// [default: 16777216]
    #[arg(long, value_name = "BYTES", help_heading = "WebSocket")]
    pub ws_max_size: Option<Count>,

    /// Compresses messages of 1 KiB and more for clients that offer permessage-deflate (RFC 7692), and
    /// takes compressed ones from them; `--no-ws-compression` does neither [default: on]
    #[arg(long, action = SetTrue, help_heading = "WebSocket")]
    pub ws_compression: Option<bool>,

    /// Messages that wait for the application before the connection is no longer read [default: 32]
    #[arg(long, value_name = "N", help_heading = "WebSocket")]
    pub ws_max_queue: Option<Count>,

    /// Time between the server's pings; 0 sends none [default: 20]
    #[arg(long, value_name = "SECONDS", help_heading = "WebSocket")]
    pub ws_ping_interval: Option<Seconds>,

    /// A ping must be answered within this, or the connection is closed; 0 waits for ever
    /// [default: 20]
    #[arg(long, value_name = "SECONDS", help_heading = "WebSocket")]
    pub ws_ping_timeout: Option<Seconds>,

    /// Believes X-Forwarded-* and Forwarded (RFC 7239) from trusted proxies; `--no-proxy-headers`
    /// believes nobody [default: on]
    #[arg(long, action = SetTrue, help_heading = "Proxies")]
    pub proxy_headers: Option<bool>,

    /// Proxies that are trusted: IP addresses, networks, `unix` for unix sockets, `*` for everyone,
    /// separated by commas; `$FORWARDED_ALLOW_IPS` is honoured [default: 127.0.0.0/8,::1]
    #[arg(
        long,
        value_name = "PEERS",
        value_delimiter = ',',
        help_heading = "Proxies"
    )]
    #[serde(deserialize_with = "one_or_many")]
    pub forwarded_allow_ips: Option<Vec<TrustedPeer>>,

    /// Adds `Server: twinspan` to responses that have no Server header; off, so that nobody learns
    /// for nothing what runs here [default: off]
    #[arg(long, action = SetTrue, help_heading = "Responses and logs")]
    pub server_header: Option<bool>,

    /// Adds `Date` to responses that have none (RFC 9110 §6.6.1); `--no-date-header` does not
    /// [default: on]
    #[arg(long, action = SetTrue, help_heading = "Responses and logs")]
    pub date_header: Option<bool>,

    /// One line per request on stdout; `--no-access-log` writes none [default: on]
    #[arg(long, action = SetTrue, help_heading = "Responses and logs")]
    pub access_log: Option<bool>,

    /// Least level that is logged [default: info]
    #[arg(long, ignore_case = true, help_heading = "Responses and logs")]
    pub log_level: Option<LogLevel>,

    /// Reads this file instead of ./twinspan.toml or [tool.twinspan] in ./pyproject.toml; one that
    /// is named pyproject.toml is read as such.
    #[arg(long, short, value_name = "FILE", help_heading = "Other options")]
    pub config: Option<PathBuf>,

    /// `[apps.NAME]`: applications with names and settings of their own; files only.
    #[arg(skip)]
    pub apps: Option<RawApps>,

    /// `[[routes]]`: which application answers what, first match first; files only.
    #[arg(skip)]
    pub routes: Option<Vec<RawRoute>>,
}

/// `[apps.NAME]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with `app`")]
pub struct RawApp {
    /// `module:attr`, `module` or `module:factory()`.
    pub app: Target,
    /// Threads of this WSGI application.
    #[serde(default)]
    pub threads: Option<Count>,
    /// Requests that may wait for one of them.
    #[serde(default)]
    pub queue: Option<Count>,
    /// A request without a response head after this is answered 504; 0 waits for ever.
    #[serde(default)]
    pub timeout_request: Option<Seconds>,
    #[serde(default)]
    pub lifespan: Option<LifespanMode>,
    /// It must have started within this.
    #[serde(default)]
    pub timeout_startup: Option<Seconds>,
    /// It must have stopped within this.
    #[serde(default)]
    pub timeout_shutdown: Option<Seconds>,
    /// The object that holds the routes, where the application hides it.
    #[serde(default)]
    pub router: Option<Target>,
}

/// `[[routes]]`: at most one of `mount`, `path` and `when`; with none of them it matches everything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with `app`")]
pub struct RawRoute {
    /// Name of an entry of `[apps]`.
    pub app: String,
    /// This path and everything below it; the prefix is cut off.
    #[serde(default)]
    pub mount: Option<Prefix>,
    /// This path and everything below it; nothing is cut off.
    #[serde(default)]
    pub path: Option<Prefix>,
    #[serde(default)]
    pub when: Option<When>,
}

/// A condition that needs no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// What the application's own router defines.
    Owned,
}

/// The table `[apps]`, in the order of the file. Written as a list of pairs, because JSON objects have no order.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct RawApps(pub Vec<(String, RawApp)>);

impl<'de> Deserialize<'de> for RawApps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Apps;

        impl<'de> Visitor<'de> for Apps {
            type Value = RawApps;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tables `[apps.NAME]`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawApps, A::Error> {
                let mut apps = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    apps.push(entry);
                }
                Ok(RawApps(apps))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<RawApps, A::Error> {
                let mut apps = Vec::new();
                while let Some(entry) = items.next_element()? {
                    apps.push(entry);
                }
                Ok(RawApps(apps))
            }
        }

        deserializer.deserialize_any(Apps)
    }
}
