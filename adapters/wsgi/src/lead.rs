//! The lead over the I/O (see [`twinspan::lead`]), as far as it concerns the thread of a request.

use std::cell::RefCell;

use twinspan::lead::Lease;
use twinspan_bridge::outbox::{Answer, Outbox, ReplyTo};

thread_local! {
    /// The lead of this thread while it has one.
    static LEASE: RefCell<Option<Lease>> = const { RefCell::new(None) };
}

/// Makes `lease` the one of this thread.
pub(crate) fn begin(lease: Lease) {
    LEASE.with_borrow_mut(|own| *own = Some(lease));
}

/// Drives the I/O on this thread until `future` is ready; `None` when it has no lead, or lost it.
pub(crate) fn drive<F: Future>(future: F) -> Option<F::Output> {
    // Taken out: what is driven may look for it.
    let mut lease = LEASE.take()?;
    let output = lease.drive(future)?;
    begin(lease);
    Some(output)
}

/// Begins another job on this thread; whether it leads.
pub(crate) fn renew() -> bool {
    LEASE.with_borrow_mut(|own| own.as_mut().is_some_and(Lease::renew))
}

/// Whether this thread leads.
pub(crate) fn holds() -> bool {
    LEASE.with_borrow(|own| own.as_ref().is_some_and(Lease::holds))
}

/// Lets others drive: this thread is going to wait.
pub(crate) fn leave() {
    LEASE.with_borrow(|own| {
        if let Some(lease) = own {
            lease.leave();
        }
    });
}

/// Gives the lead back for good.
pub(crate) fn end() {
    drop(LEASE.take());
}

/// Sends an answer: at once, or from a leader when it drives again.
pub(crate) fn send(outbox: &Outbox, to: ReplyTo, answer: Answer) {
    outbox.put(to, answer);
    // In this order: whoever takes the lead away flushes the outbox after that.
    if !holds() {
        outbox.flush();
    }
}
