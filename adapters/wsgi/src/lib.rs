//! WSGI applications (PEP 3333) behind [`twinspan::app::Application`].
//!
//! Each application has a bounded pool of threads of its own, a bulkhead: when every thread of a legacy
//! application is stuck, nothing else notices.

#![deny(unsafe_code)]

mod application;
mod block_on;
mod environ;
mod errors;
mod file_wrapper;
mod input;
mod lead;
mod pool;
mod response;
mod stuck;
mod ticket;

pub use application::WsgiApplication;
