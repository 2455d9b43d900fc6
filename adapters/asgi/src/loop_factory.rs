//! Which event loop runs the applications, and what is wrong with one that cannot.
//!
//! A loop is used as asyncio describes it, and moreover must watch a file descriptor (`add_reader`): that is
//! how requests reach it. Whatever it lacks is said before anything is served on it.

use std::os::fd::AsRawFd;

use pyo3::prelude::*;
use twinspan::config::{LoopChoice, Target};
use twinspan::error::LoadError;
use twinspan_bridge::errors::{summary, traceback};
use twinspan_bridge::import;

/// Makes the loop that was chosen.
///
/// # Errors
/// A factory that cannot be imported or called, and one that makes no loop, or none that can be used. The
/// target is the choice.
pub fn make_loop<'py>(
    py: Python<'py>,
    choice: &LoopChoice,
) -> Result<Bound<'py, PyAny>, LoadError> {
    let module = match choice {
        LoopChoice::Factory(target) => {
            let made = made_by(py, target)?;
            check(&made, target)?;
            return Ok(made);
        }
        LoopChoice::Asyncio => "asyncio",
        LoopChoice::Uvloop => "uvloop",
        LoopChoice::Auto => ["uvloop", "asyncio"]
            .into_iter()
            .find(|module| py.import(*module).is_ok())
            .unwrap_or("asyncio"),
    };
    let target = Target {
        module: module.into(),
        attr: Some("new_event_loop".into()),
        factory: false,
    };
    made_by(py, &target).map_err(|error| LoadError {
        hint: Some("install it, or leave the choice to `--loop auto`".into()),
        ..error
    })
}

fn made_by<'py>(py: Python<'py>, target: &Target) -> Result<Bound<'py, PyAny>, LoadError> {
    let factory = import::object(py, target)?;
    if !factory.is_callable() {
        let problem = format!("`{target}` is {}, which cannot be called", kind(&factory));
        return Err(refused(target, problem));
    }
    factory.call0().map_err(|error| LoadError {
        traceback: Some(traceback(py, &error)),
        ..refused(target, format!("it raised {}", summary(py, &error)))
    })
}

/// A loop that somebody else's code has made.
fn check(made: &Bound<'_, PyAny>, target: &Target) -> Result<(), LoadError> {
    let py = made.py();
    let raised = |error: PyErr| refused(target, format!("its loop raised {}", summary(py, &error)));
    let base = py
        .import("asyncio")
        .and_then(|asyncio| asyncio.getattr("AbstractEventLoop"))
        .map_err(raised)?;
    if !made.is_instance(&base).map_err(raised)? {
        return Err(refused(
            target,
            format!("it returned no event loop but {}", kind(made)),
        ));
    }
    let says = |question| -> PyResult<bool> { made.call_method0(question)?.is_truthy() };
    for (question, answer) in [("is_closed", "closed"), ("is_running", "running already")] {
        if says(question).map_err(raised)? {
            let problem = format!("it returned an event loop that is {answer}");
            return Err(LoadError {
                hint: Some("it must make a new one at each call".into()),
                ..refused(target, problem)
            });
        }
    }
    watches(made).map_err(|error| {
        // Whatever closing it raises: it is not used.
        let _ = made.call_method0("close");
        let problem = format!(
            "its loop cannot watch a file descriptor (`add_reader`): {}",
            summary(py, &error)
        );
        refused(target, problem)
    })
}

/// Has the loop watch something and let go of it again.
fn watches(event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
    let (watched, _writer) = std::os::unix::net::UnixStream::pair()?;
    let nothing = event_loop.py().import("builtins")?.getattr("int")?;
    event_loop.call_method1("add_reader", (watched.as_raw_fd(), nothing))?;
    event_loop.call_method1("remove_reader", (watched.as_raw_fd(),))?;
    Ok(())
}

fn refused(target: &Target, problem: String) -> LoadError {
    LoadError {
        target: target.to_string(),
        problem,
        hint: Some(
            "name a class or function that makes an event loop: `rloop:new_event_loop`".into(),
        ),
        traceback: None,
    }
}

/// `a dict`, for messages.
fn kind(object: &Bound<'_, PyAny>) -> String {
    let name = object.get_type().name();
    name.map_or_else(|_| "an object".to_owned(), |name| format!("a `{name}`"))
}
