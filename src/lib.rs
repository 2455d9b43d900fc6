//! Twinspan serves WSGI and ASGI applications mixed on one port. This crate is the server; it does not
//! know Python, only [`Application`](app::Application), and its tests need no interpreter.
//!
//! The modules stand in the order in which a request meets them:
//!
//! ```text
//! listen -> http (h1, h2) -> dispatch -> route -> Application -> Response
//!             \-> ws: Handshake --^
//! supervisor (parent) -> worker (one process that runs the line above)
//! ```

#![forbid(unsafe_code)]

pub mod app;
pub mod body;
pub mod config;
pub mod drain;
pub mod listen;
pub mod http;
pub mod dispatch;
pub mod metrics;
pub mod admin;
pub mod policy;
pub mod route;
pub mod supervisor;
pub mod ws;
pub mod worker;
pub mod embedded;
pub mod cli;
pub mod error;
pub mod command;
pub mod logging;
mod banner;
