//! Answers on their way from Python's threads to the I/O thread, with one wake-up for many.
//!
//! Waking a task of another thread costs a system call. Answers are collected instead; the first one
//! wakes a task on the I/O thread, which hands all of them to the requests that wait there.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, oneshot};
use twinspan::app::{AppError, Response};

/// What an application answers.
pub type Answer = Result<Response, AppError>;
/// Where a request waits for its answer.
pub type ReplyTo = oneshot::Sender<Answer>;

/// Collects answers for the I/O threads.
#[derive(Default)]
pub struct Outbox {
    answers: Mutex<Vec<(ReplyTo, Answer)>>,
    filled: Notify,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outbox")
    }
}

impl Outbox {
    /// Delivers for as long as the I/O runtime runs it.
    pub async fn serve(self: Arc<Self>) {
        let mut batch = Vec::new();
        loop {
            self.filled.notified().await;
            self.deliver(&mut batch);
        }
    }

    /// Delivers what is there. On a thread that drives the I/O this wakes nobody. `batch` is empty before
    /// and after; it only keeps its room.
    pub fn deliver(&self, batch: &mut Vec<(ReplyTo, Answer)>) {
        {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut *answers, batch);
        }
        for (to, answer) in batch.drain(..) {
            // An error means that the client has gone; the answer is dropped with it.
            let _ = to.send(answer);
        }
    }

    /// Adds an answer; it is delivered after the next [`Outbox::flush`] at the latest.
    pub fn put(&self, to: ReplyTo, answer: Answer) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.push((to, answer));
    }

    /// Adds an answer and delivers it.
    pub fn send(&self, to: ReplyTo, answer: Answer) {
        self.put(to, answer);
        self.filled.notify_one();
    }

    /// Delivers what was put.
    pub fn flush(&self) {
        let waiting = {
            let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            !answers.is_empty()
        };
        if waiting {
            self.filled.notify_one();
        }
    }
}
