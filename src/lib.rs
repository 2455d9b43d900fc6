//! Twinspan serves WSGI and ASGI applications mixed on one port. This crate is the server; it does not
//! know Python, only [`Application`](app::Application), and its tests need no interpreter.
//!
//! The modules stand in the order of events: how a process begins, how it runs workers, the way of a request
//! through one of them, and what is told of it.
//!
//! ```text
//! listen -> http (h1, h2) -> dispatch -> route -> Application -> Response
//!             \-> ws: Handshake --^
//! supervisor (parent) -> worker (one process that runs the line above)
//! ```

#![forbid(unsafe_code)]

pub mod command;
pub mod cli;
pub mod config;
pub mod error;
pub mod logging;
mod banner;

pub mod supervisor;
pub mod worker;
pub mod lead;
pub mod embedded;
pub mod drain;

pub mod listen;
pub mod http;
pub mod ws;
pub mod dispatch;
pub mod route;
pub mod policy;
pub mod unbridge;
pub mod peers;
pub mod app;
pub mod body;
pub mod file;

pub mod metrics;
pub mod migrate;
pub mod admin;
