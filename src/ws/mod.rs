//! WebSockets (RFC 6455): the opening handshake, and the connection behind it.
//!
//! An application answers a [`Handshake`] and gets the two halves of a connection. Neither touches the
//! socket: a task on the I/O thread, the pump, does, so that pings are answered and a client's close is
//! seen while the application is busy, and any thread may poll the halves.

mod deflate;
mod handshake;
mod pump;
mod socket;

pub use handshake::{AnswerError, Handshake, wants_websocket};
pub use socket::{Close, CloseError, Closed, Message, Receiver, Sender, Utf8Bytes};
