//! Every option, once: the command line, the file, the environment and the reference page all come
//! from the fields of [`RawConfig`], whose doc comments are what users read.
//!
//! A field is what was said, so each is optional; what it means is [`Config`](super::Config)'s affair.
//! `[default: …]` is for readers: a test holds it against the default that [`Config`](super::Config) uses.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

use clap::ArgAction::SetTrue;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::rule::{Glob, JsonPath, Number, Percent, Sticky, Template};
use super::value::{
    Count, FieldName, MethodName, Mount, Network, Prefix, Seconds, TrustedPeer, one_or_many,
};
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

    /// Where /healthz, /readyz, /metrics, /migrate and its dashboard at / answer: a loopback address or a
    /// unix socket; off unless given.
    #[arg(long, value_name = "ADDRESS", help_heading = "Listening")]
    pub admin: Option<Bind>,

    /// Directory for what a restart must not lose: what `twinspan ctl` has changed, who changed it,
    /// what was counted and compared, and the token of the admin endpoint. Without one all of that
    /// lasts as long as the server, and nothing can be changed while it runs.
    #[arg(long, value_name = "DIRECTORY", help_heading = "Migration")]
    pub state_dir: Option<PathBuf>,

    /// Serves WSGI applications that an ASGI application mounts through a bridge (WSGIMiddleware of
    /// Starlette, FastAPI or a2wsgi) natively; an application's own `unbridge` in the file stands
    /// above it [default: off]
    #[arg(long, action = SetTrue, help_heading = "Migration")]
    pub unbridge: Option<bool>,

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

    /// What `twinspan check` finds and is meant: `["both-claim GET /docs"]`; files only.
    #[arg(skip)]
    pub acknowledge: Option<Vec<String>>,
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
    /// Whether what it mounts through a bridge is served natively.
    #[serde(default)]
    pub unbridge: Option<bool>,
    /// Whether it is the application to migrate from.
    #[serde(default)]
    pub legacy: Option<bool>,
}

/// `[[routes]]`: a request has to meet all that is said; with nothing said it takes everything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with `app`")]
pub struct RawRoute {
    /// What people and `twinspan ctl` call the rule; it must be unique.
    #[serde(default)]
    pub name: Option<String>,
    /// Name of an entry of `[apps]`.
    pub app: String,
    /// This path and everything below it; the prefix is cut off.
    #[serde(default)]
    pub mount: Option<Prefix>,
    /// This path and everything below it; nothing is cut off.
    #[serde(default)]
    pub path: Option<Prefix>,
    /// Paths of this form: `/items/{id}`.
    #[serde(default)]
    pub template: Option<Template>,
    #[serde(default)]
    pub when: Option<When>,
    /// The host without its port; `*` stands for any characters.
    #[serde(default)]
    pub host: Option<Glob>,
    #[serde(default, deserialize_with = "one_or_many")]
    pub method: Option<Vec<MethodName>>,
    /// `{ x-beta = "1" }`; `"*"` asks only that there is one.
    #[serde(default)]
    pub header: Option<BTreeMap<FieldName, Glob>>,
    #[serde(default)]
    pub cookie: Option<BTreeMap<String, Glob>>,
    #[serde(default)]
    pub query: Option<BTreeMap<String, Glob>>,
    /// The percentage of requests that the application gets, or a table; the rest goes to the rules below.
    #[serde(default, deserialize_with = "percent_or_table")]
    pub canary: Option<RawCanary>,
    /// The percentage of requests of which the application gets a copy, or a table.
    #[serde(default, deserialize_with = "percent_or_table")]
    pub shadow: Option<RawShadow>,
    /// Statuses of the application that send a request on to the rules below, or a table.
    #[serde(default, deserialize_with = "statuses_or_table")]
    pub fallthrough: Option<RawFallthrough>,
}

/// A condition that needs no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// What the application's own router defines.
    Owned,
}

/// `canary = 10` or `[routes.canary]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawCanary {
    /// Of the requests that match.
    pub percent: Option<Percent>,
    /// `client`, `cookie:NAME` or `header:NAME`.
    pub sticky: Option<Sticky>,
    /// Networks whose clients may choose by `X-Twinspan-Use: APP`.
    #[serde(deserialize_with = "one_or_many")]
    pub testers: Option<Vec<Network>>,
    /// Whether it goes back to nothing by itself when it does worse than what is below.
    pub rollback: Option<bool>,
    /// Points of server errors above those below.
    pub max_errors: Option<Percent>,
    /// The 95th percentile of the time to answer, as a multiple of that below.
    pub max_latency: Option<Number>,
    /// Percentage of shadow copies that were answered differently.
    pub max_differences: Option<Percent>,
    /// Requests before anything is judged.
    pub min_samples: Option<Count>,
    /// How far back is looked.
    pub window: Option<Seconds>,
}

/// `shadow = 5` or `[routes.shadow]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawShadow {
    pub percent: Option<Percent>,
    /// GET and HEAD unless said otherwise: a copy of another request does again what it does.
    #[serde(deserialize_with = "one_or_many")]
    pub method: Option<Vec<MethodName>>,
    /// Copies at a time in each worker.
    pub concurrency: Option<Count>,
    /// Bytes of a body that are kept to be compared.
    pub max_body: Option<Count>,
    pub timeout: Option<Seconds>,
    /// Header fields that are compared too.
    #[serde(deserialize_with = "one_or_many")]
    pub header: Option<Vec<FieldName>>,
    /// Places in JSON that may differ: `$.items[*].updated_at`.
    #[serde(deserialize_with = "one_or_many")]
    pub ignore: Option<Vec<JsonPath>>,
    /// Lines of a text that may differ, `*` standing for any characters: `*name="csrf"*`.
    pub ignore_lines: Option<Vec<Glob>>,
    /// Lists in JSON whose order does not matter.
    #[serde(deserialize_with = "one_or_many")]
    pub unordered: Option<Vec<JsonPath>>,
    /// Part of the larger number by which two may differ.
    pub tolerance: Option<Number>,
    /// Whether the application that answered is asked once more before a difference counts.
    pub noise: Option<bool>,
}

/// `fallthrough = [404]` or `[routes.fallthrough]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawFallthrough {
    pub status: Option<Vec<Count>>,
    /// GET, HEAD and OPTIONS unless said otherwise: another request may have done something already.
    #[serde(deserialize_with = "one_or_many")]
    pub method: Option<Vec<MethodName>>,
    /// Bytes of a request body that are kept in memory.
    pub memory: Option<Count>,
    /// Bytes that are kept in a temporary file beyond that.
    pub file: Option<Count>,
}

/// What one number means where a table could stand.
trait FromPercent {
    fn from_percent(percent: Percent) -> Self;
}

impl FromPercent for RawCanary {
    fn from_percent(percent: Percent) -> Self {
        Self {
            percent: Some(percent),
            ..Self::default()
        }
    }
}

impl FromPercent for RawShadow {
    fn from_percent(percent: Percent) -> Self {
        Self {
            percent: Some(percent),
            ..Self::default()
        }
    }
}

fn percent_or_table<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: FromPercent + Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Either<T>(PhantomData<T>);

    impl<'de, T: FromPercent + Deserialize<'de>> Visitor<'de> for Either<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a percentage or a table")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
            Percent::deserialize(number.into_deserializer()).map(|it| Some(T::from_percent(it)))
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
            Percent::deserialize(number.into_deserializer()).map(|it| Some(T::from_percent(it)))
        }

        fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
            Percent::deserialize(number.into_deserializer()).map(|it| Some(T::from_percent(it)))
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }

    deserializer.deserialize_any(Either(PhantomData))
}

fn statuses_or_table<'de, D>(deserializer: D) -> Result<Option<RawFallthrough>, D::Error>
where
    D: Deserializer<'de>,
{
    struct Either;

    impl<'de> Visitor<'de> for Either {
        type Value = Option<RawFallthrough>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of statuses or a table")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
            let status = Vec::deserialize(SeqAccessDeserializer::new(items))?;
            Ok(Some(RawFallthrough {
                status: Some(status),
                ..RawFallthrough::default()
            }))
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            RawFallthrough::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }

    deserializer.deserialize_any(Either)
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
