//! What is done about threads that are stuck in an application: people are told where, others take their place.
//!
//! Both need Python, and the thread that is stuck may hold the GIL for long. So a thread of its own waits for
//! the GIL, made when the first deadline passes and gone when nothing is left to tell; answers never wait for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tracing::error;
use twinspan_bridge::errors::summary;

use crate::application::Shared;
use crate::ticket::{Runner, Ticket};

/// Requests whose deadline has passed while a thread ran them.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Arc<Ticket>>,
    /// A thread takes care of what waits.
    attended: bool,
}

impl Reports {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the thread of an abandoned request reported and replaced.
    pub(crate) fn add(shared: &Arc<Shared>, ticket: Arc<Ticket>) {
        let mut state = shared.reports.lock();
        state.waiting.push(ticket);
        if state.attended {
            return;
        }
        let app = Arc::clone(shared);
        let attendant = std::thread::Builder::new().name("twinspan-report".into());
        match attendant.spawn(move || attend(&app)) {
            Ok(_) => state.attended = true,
            // With the next one.
            Err(error) => error!(app = %shared.name, %error, "a stuck thread cannot be reported"),
        }
    }

    /// What waits; `None` when it is nothing, and nobody attends from then on.
    fn take(&self) -> Option<Vec<Arc<Ticket>>> {
        let mut state = self.lock();
        state.attended = !state.waiting.is_empty();
        state.attended.then(|| std::mem::take(&mut state.waiting))
    }
}

fn attend(shared: &Arc<Shared>) {
    while let Some(tickets) = shared.reports.take() {
        // `None` when the interpreter ends, and nobody needs threads any more.
        Python::try_attach(|py| {
            shared.grow(py);
            if let Err(error) = report(py, shared, &tickets) {
                error!(app = %shared.name, error = %summary(py, &error), "a stuck thread cannot be reported");
            }
        });
    }
}

fn report(py: Python<'_>, shared: &Shared, tickets: &[Arc<Ticket>]) -> PyResult<()> {
    let frames = py.import("sys")?.call_method0("_current_frames")?;
    let frames = frames.cast::<PyDict>()?;
    for ticket in tickets {
        // Asked after the frames were taken: a thread that is abandoned now was so then.
        if let Some(runner) = ticket.abandoned_thread() {
            let stack = stack(frames, &runner)?;
            // In words, because fields would come after the stack.
            error!(
                app = %shared.name,
                "thread {} is stuck in {} {:?}: no response within {:?}\n{}",
                runner.name, ticket.method, ticket.path(), ticket.limit, stack.trim_end()
            );
        }
    }
    Ok(())
}

/// Where a thread is, as Python prints it.
fn stack(frames: &Bound<'_, PyDict>, runner: &Runner) -> PyResult<String> {
    let Some(frame) = frames.get_item(runner.ident)? else {
        return Ok("(not in Python)".into());
    };
    let traceback = frames.py().import("traceback")?;
    let lines: Vec<String> = traceback
        .call_method1("format_stack", (frame,))?
        .extract()?;
    Ok(format!(
        "Stack (most recent call last):\n{}",
        lines.concat()
    ))
}
