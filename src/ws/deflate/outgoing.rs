//! Outgoing messages: compressed where that pays, fragment by fragment.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};

use super::negotiation::MOST_BITS;
use super::{Extension, TAIL, borrow, give_back};

/// A shorter message is sent as it is: it fits into one packet either way, and to compress it costs
/// more than everything else that is done for it (1 KiB of JSON: 12 us, for 730 bytes less).
const LEAST: usize = 1024;
/// The level from which on little is gained: for JSON the result is a tenth larger than at level 6, which
/// takes five times as long for 64 KiB (145 us, 745 us); level 1 is faster by half, and its result larger
/// by a third.
const LEVEL: u32 = 2;
/// Compressors of messages that leave in several fragments live as long as their clients take, so
/// there are at most this many per process (10 MiB); a message that finds none is sent as it is.
const MOST_HELD: usize = 32;

static HELD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// With the window that nearly every client takes.
    static SPARE: Cell<Option<Compress>> = const { Cell::new(None) };
}

/// Compresses one message.
pub(in crate::ws) struct Deflater {
    compress: Compress,
    window_bits: u8,
    _held: Option<Held>,
}

impl Deflater {
    /// A compressor for a message of this length, if it is to be compressed; `fragments` is whether it
    /// will leave in more than one.
    pub(in crate::ws) fn new(extension: Extension, length: usize, fragments: bool) -> Option<Self> {
        if length < LEAST {
            return None;
        }
        let held = if fragments {
            Some(Held::new(&HELD)?)
        } else {
            None
        };
        let window_bits = extension.window_bits();
        let spare = if window_bits == MOST_BITS {
            borrow(&SPARE)
        } else {
            None
        };
        let level = Compression::new(LEVEL);
        Some(Self {
            compress: spare
                .unwrap_or_else(|| Compress::new_with_window_bits(level, false, window_bits)),
            window_bits,
            _held: held,
        })
    }

    /// Leaves the compressor to the next message.
    pub(in crate::ws) fn give_back(mut self) {
        if self.window_bits == MOST_BITS {
            self.compress.reset();
            give_back(&SPARE, self.compress);
        }
    }

    /// The payload of the next frame; `None` if zlib fails, for which no cause is known.
    pub(in crate::ws) fn next(&mut self, payload: &[u8], is_final: bool) -> Option<Bytes> {
        let mut compressed = Vec::with_capacity(payload.len() / 2 + 64);
        let mut rest = payload;
        loop {
            let before = self.compress.total_in();
            // Flushed at the end of each fragment, so that the client can read on while the next one is made.
            let flush = FlushCompress::Sync;
            let status = self.compress.compress_vec(rest, &mut compressed, flush);
            let taken = usize::try_from(self.compress.total_in() - before).ok()?;
            rest = rest.get(taken..)?;
            // The flush is complete when it leaves room.
            if compressed.len() < compressed.capacity() {
                let complete =
                    rest.is_empty() && matches!(status, Ok(Status::Ok | Status::BufError));
                return complete.then(|| {
                    if is_final && compressed.ends_with(&TAIL) {
                        compressed.truncate(compressed.len() - TAIL.len());
                    }
                    Bytes::from(compressed)
                });
            }
            compressed.reserve(payload.len() / 2 + 64);
        }
    }
}

/// One of the compressors that live long.
struct Held(&'static AtomicUsize);

impl Held {
    fn new(count: &'static AtomicUsize) -> Option<Self> {
        let more = |held| (held < MOST_HELD).then_some(held + 1);
        count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()
            .map(|_| Self(count))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_compressors_than_allowed_live_long() {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let mut held: Vec<_> = std::iter::from_fn(|| Held::new(&COUNT)).collect();
        assert_eq!(held.len(), MOST_HELD);
        held.pop();
        assert!(Held::new(&COUNT).is_some());
    }
}
