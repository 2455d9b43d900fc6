//! WebSockets: handshake (RFC 6455 §4) and connection.

mod handshake;
mod socket;

pub use handshake::{Handshake, Refused, wants_websocket};
pub use socket::{Close, Message, SocketError, WebSocket};
