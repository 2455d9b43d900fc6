//! ASGI applications behind [`twinspan::app::Application`].
//!
//! All applications of a worker share one asyncio loop on one thread. Requests reach it through a
//! queue with one wake-up per batch; `receive` and `send` complete at once whenever they can.

#![deny(unsafe_code)]

mod application;
mod awaitable;
mod callables;
mod event_loop;
mod file;
mod http;
mod lifespan;
mod loop_factory;
mod message;
mod scope;
mod websocket;

pub use application::{AsgiApplication, MakeNative};
pub use event_loop::EventLoop;
pub use loop_factory::make_loop;
