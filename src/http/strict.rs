//! What hyper lets through and an application must never see.

use http::request::Parts;

use crate::route::Refusal;

/// Follows the bytes of an HTTP/1 connection and finds what makes two readers disagree.
#[derive(Debug, Default)]
pub struct Tracker {}

/// What [`Tracker::feed`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Fine,
    /// Everything from `offset` on must not be read; the connection is over.
    Refuse {
        offset: usize,
        reason: &'static str,
    },
}

impl Tracker {
    pub fn feed(&mut self, bytes: &[u8]) -> Verdict {
        let _ = bytes;
        Verdict::Fine
    }

    pub fn upgrade_pending(&self) -> bool {
        false
    }

    pub fn resume(&mut self) {}

    /// A request head has begun and is not complete.
    pub fn in_head(&self) -> bool {
        false
    }

    /// A request body is not complete.
    pub fn in_body(&self) -> bool {
        false
    }
}

/// Judges a parsed head: Host, transfer codings, method, target form, Expect.
///
/// # Errors
/// [`Refusal`]; the connection is closed after it.
pub fn check(head: &Parts) -> Result<(), Refusal> {
    let _ = head;
    Ok(())
}
