//! Python exceptions for logs and messages.

use std::io;
use std::path::Path;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

/// The exception with its traceback, as Python prints it.
pub fn traceback(py: Python<'_>, error: &PyErr) -> String {
    // By its three parts: before Python 3.12 the value does not know its traceback yet.
    let parts = (error.get_type(py), error.value(py), error.traceback(py));
    let formatted = py
        .import("traceback")
        .and_then(|module| module.call_method1("format_exception", parts))
        .and_then(|lines| {
            let lines: Vec<String> = lines.extract()?;
            Ok(lines.concat())
        });
    formatted.unwrap_or_else(|_| error.to_string())
}

/// Whether it is the `CancelledError` with which asyncio ends a task that was asked to end.
pub fn is_cancellation(py: Python<'_>, error: &PyErr) -> bool {
    py.import("asyncio")
        .and_then(|asyncio| asyncio.getattr("CancelledError"))
        .is_ok_and(|cancelled| error.matches(py, cancelled).unwrap_or(false))
}

/// The exception in one line: `ValueError: message`.
pub fn summary(py: Python<'_>, error: &PyErr) -> String {
    let name = error
        .get_type(py)
        .name()
        .map_or_else(|_| "Exception".to_owned(), |name| name.to_string());
    let text = error.value(py).to_string();
    match text.lines().next() {
        None | Some("") => name,
        Some(first) => format!("{name}: {first}"),
    }
}

/// What Python raises for an error of the system: its number, its text, and the file. Python chooses the
/// class by the number: `FileNotFoundError` and so on.
pub fn os_error(py: Python<'_>, error: &io::Error, path: Option<&Path>) -> PyErr {
    let Some(number) = error.raw_os_error() else {
        let path = path.map_or_else(String::new, |path| format!(": '{}'", path.display()));
        return PyOSError::new_err(format!("{error}{path}"));
    };
    let text = py
        .import("os")
        .and_then(|os| os.call_method1("strerror", (number,)));
    match text {
        Ok(text) => match path {
            Some(path) => PyOSError::new_err((number, text.unbind(), path.as_os_str().to_owned())),
            None => PyOSError::new_err((number, text.unbind())),
        },
        Err(error) => error,
    }
}
