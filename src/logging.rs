//! Logs of the server itself: one line each, to stderr.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::LogLevel;

/// What is let through; `None` where somebody else receives the logs of this process.
static FILTER: OnceLock<Option<reload::Handle<LevelFilter, Registry>>> = OnceLock::new();

/// Sends the logs of this process to stderr.
///
/// stderr belongs to the whole process: of several servers in it, the one that wants to say most decides.
pub fn init(level: LogLevel) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let filter = FILTER.get_or_init(|| {
        let (filter, handle) = reload::Layer::new(LevelFilter::OFF);
        let lines = fmt::layer()
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr);
        let installed = tracing_subscriber::registry().with(filter).with(lines);
        installed.try_init().ok().map(|()| handle)
    });
    if let Some(filter) = filter {
        // Fails only when the subscriber is gone, which lives as long as the process.
        let _ = filter.modify(|current| *current = (*current).max(level));
    }
}
