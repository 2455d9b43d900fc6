//! Keeps what is compared of an answer, while it passes by.
//!
//! The bytes are copied: they may belong to an application that gets them back. No more than the limit is held;
//! the rest goes into a hash, so that equal long bodies are still known to be equal.

use std::hash::Hasher as _;

use http::{HeaderMap, StatusCode};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

/// An answer, as far as it is compared.
#[derive(Debug, Clone)]
pub struct Captured {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: CapturedBody,
}

/// The beginning of a body, and a fingerprint of all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedBody {
    /// As sent, with its content coding; at most as many bytes as the limit of its [`Capture`].
    pub kept: Vec<u8>,
    /// Bytes in all.
    pub length: u64,
    /// Of all bytes; equal in every process and version.
    pub hash: u128,
    /// Whether it came to its end, rather than broke off.
    pub ended: bool,
}

impl CapturedBody {
    /// Whether all of it was kept.
    pub fn is_whole(&self) -> bool {
        self.kept.len() as u64 == self.length
    }
}

/// Takes a body chunk by chunk.
#[derive(Debug)]
pub struct Capture {
    limit: usize,
    kept: Vec<u8>,
    length: u64,
    hasher: SipHasher13,
}

impl Capture {
    /// Holds at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            kept: Vec::new(),
            length: 0,
            hasher: hasher(),
        }
    }

    pub fn push(&mut self, chunk: &[u8]) {
        self.length += chunk.len() as u64;
        self.hasher.write(chunk);
        let room = self.limit - self.kept.len();
        let taken = chunk.get(..room).unwrap_or(chunk);
        let needed = self.kept.len() + taken.len();
        if needed > self.kept.capacity() {
            // A vector left alone would double beyond the limit.
            let capacity = needed.max(2 * self.kept.capacity()).min(self.limit);
            self.kept.reserve_exact(capacity - self.kept.len());
        }
        self.kept.extend_from_slice(taken);
    }

    /// The body has come to its end.
    pub fn finish(self) -> CapturedBody {
        self.end(true)
    }

    /// The body has broken off: the application failed, or took too long.
    pub fn break_off(self) -> CapturedBody {
        self.end(false)
    }

    fn end(self, ended: bool) -> CapturedBody {
        CapturedBody {
            kept: self.kept,
            length: self.length,
            hash: self.hasher.finish128().into(),
            ended,
        }
    }
}

/// The hash that a [`CapturedBody`] of these bytes has.
pub(super) fn hash(bytes: &[u8]) -> u128 {
    hasher().hash(bytes).into()
}

/// The keys are fixed: two workers, and two versions, have to agree.
fn hasher() -> SipHasher13 {
    SipHasher13::new_with_keys(0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_kept_up_to_the_limit_and_hashed_beyond() {
        for (limit, chunks, kept) in [
            (0, &["abc"][..], ""),
            (3, &["abc"], "abc"),
            (4, &["ab", "", "cde", "f"], "abcd"),
            (10, &["ab", "cd"], "abcd"),
        ] {
            let mut capture = Capture::new(limit);
            for chunk in chunks {
                capture.push(chunk.as_bytes());
                assert!(capture.kept.capacity() <= limit);
            }
            let all = chunks.concat();
            let body = capture.finish();
            assert_eq!(body.kept, kept.as_bytes());
            assert_eq!(body.length, all.len() as u64);
            assert_eq!(body.hash, hash(all.as_bytes()), "chunks do not show");
            assert_eq!(body.is_whole(), kept == all);
            assert!(body.ended);
        }
        assert_ne!(hash(b"abc"), hash(b"abd"));
        assert!(!Capture::new(1).break_off().ended);
    }

    #[test]
    fn memory_grows_with_the_body_and_not_beyond_the_limit() {
        let mut capture = Capture::new(1000);
        capture.push(&[0; 10]);
        assert!(capture.kept.capacity() < 100);
        for _ in 0..100 {
            capture.push(&[0; 33]);
            assert!(capture.kept.capacity() <= 1000);
        }
        assert_eq!(capture.finish().kept.len(), 1000);
    }
}
