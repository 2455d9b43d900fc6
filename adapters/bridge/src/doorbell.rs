//! Waking Python's threads once for many requests.
//!
//! An I/O thread finds many connections readable at a time. To wake the application's thread with the
//! first of them would make the two take turns, two switches for each request. So the bell is pressed,
//! and rings when the I/O thread has come through what it found: the first job waits a few
//! microseconds, and the thread that wakes finds all of them.

use std::sync::Arc;

use tokio::sync::Notify;

/// Rings on the I/O thread, a moment after it was pressed there.
#[derive(Debug, Default)]
pub struct Doorbell {
    pressed: Notify,
}

impl Doorbell {
    /// Rings soon; however often it is pressed before that, it rings once.
    pub fn press(&self) {
        self.pressed.notify_one();
    }

    /// Rings for as long as the I/O runtime runs it.
    pub async fn serve(self: Arc<Self>, ring: impl Fn()) {
        loop {
            self.pressed.notified().await;
            ring();
        }
    }
}
