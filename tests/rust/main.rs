//! The core over in-memory pipes, with applications written in Rust.

mod websocket;
