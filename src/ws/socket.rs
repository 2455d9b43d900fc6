//! The connection after the handshake: messages, limits, pings, close codes.

use bytes::Bytes;

/// One open WebSocket.
#[derive(Debug)]
pub struct WebSocket {}

/// A message in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Text(String),
    Binary(Bytes),
}

/// How a connection ended: 1005 without a code, 1006 without a close frame (RFC 6455 §7.1.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    pub code: u16,
    pub reason: String,
}

/// Why a message could not be sent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SocketError {
    #[error("the connection is closed")]
    Closed,
}
