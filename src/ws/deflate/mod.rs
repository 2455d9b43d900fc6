//! permessage-deflate (RFC 7692): compressed messages, beneath the WebSocket library.
//!
//! The library knows no extensions, and need not: incoming compressed messages are inflated before it
//! reads them ([`Inflated`]), outgoing ones are given to it as frames that are compressed already
//! ([`Deflater`]). So it still judges everything that RFC 6455 says, sizes included, and a connection
//! without the extension runs the code that it would run if there were none.
//!
//! Neither side keeps its window from one message to the next: `server_no_context_takeover` and
//! `client_no_context_takeover` are always part of the answer. With windows kept, messages of 200 bytes
//! of JSON shrink to a quarter instead of a half, but a compressor holds about 330 KiB and a
//! decompressor 46 KiB for as long as the connection lives, where all the rest of an idle connection
//! takes 10 KiB. Without, either is lent to a message while it is on its way.

mod incoming;
mod negotiation;
mod outgoing;

use std::cell::Cell;
use std::thread::LocalKey;

pub(super) use incoming::{Inflated, InvalidDeflate};
pub(super) use negotiation::{Extension, negotiate};
pub(super) use outgoing::Deflater;

/// What a sync flush ends with; a message leaves without it (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// A place where each thread keeps what one message has done with for the next one.
///
/// Most messages are dealt with at once, so one is enough. Without it as much would be allocated and
/// freed for each message, and connections that allocate a little in between leave gaps that nothing
/// large fits into: 27 KiB for each of 1500 connections.
type Spare<T> = LocalKey<Cell<Option<T>>>;

fn borrow<T>(spare: &'static Spare<T>) -> Option<T> {
    spare.try_with(Cell::take).ok().flatten()
}

fn give_back<T>(spare: &'static Spare<T>, value: T) {
    // A thread that ends keeps nothing.
    let _ended = spare.try_with(|spare| spare.set(Some(value)));
}
