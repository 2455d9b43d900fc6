//! Telling WSGI from ASGI by looking at the object: nobody has to declare what can be seen.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// What an object can be called as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detected {
    /// `app(environ, start_response)`.
    Wsgi,
    /// `await app(scope, receive, send)`.
    Asgi3,
    /// `await app(scope)(receive, send)`.
    Asgi2,
}

/// Looks at an application; `None` when it is neither.
///
/// A coroutine function is ASGI; otherwise the number of arguments that a call must have decides:
/// three are ASGI, two WSGI, one the older ASGI.
pub fn detect(app: &Bound<'_, PyAny>) -> PyResult<Option<Detected>> {
    let py = app.py();
    if !app.is_callable() {
        return Ok(None);
    }
    if is_coroutine_function(app)? {
        return Ok(Some(Detected::Asgi3));
    }
    let inspect = py.import(intern!(py, "inspect"))?;
    let Ok(signature) = inspect.call_method1(intern!(py, "signature"), (app,)) else {
        return Ok(None);
    };
    by_signature(&signature)
}

/// Whether a call gives a coroutine and does nothing else yet.
pub fn is_coroutine_function(app: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = app.py();
    let inspect = py.import(intern!(py, "inspect"))?;
    let is = |what: &Bound<'_, PyString>, object: &Bound<'_, PyAny>| -> PyResult<bool> {
        inspect.call_method1(what, (object,))?.is_truthy()
    };
    let target = unwrap_partial(app)?;
    if is(intern!(py, "isclass"), &target)? {
        return Ok(false);
    }
    if is(intern!(py, "iscoroutinefunction"), &target)? {
        return Ok(true);
    }
    match target.getattr(intern!(py, "__call__")) {
        Ok(call) => is(intern!(py, "iscoroutinefunction"), &call),
        Err(_) => Ok(false),
    }
}

/// Binds one to three arguments and sees what fits: defaults and `*args` are judged as Python does.
fn by_signature(signature: &Bound<'_, PyAny>) -> PyResult<Option<Detected>> {
    let py = signature.py();
    let accepts = |count: usize| -> bool {
        let arguments = (0..count).map(|_| py.None()).collect::<Vec<_>>();
        pyo3::types::PyTuple::new(py, arguments)
            .and_then(|arguments| signature.call_method1(intern!(py, "bind"), arguments))
            .is_ok()
    };
    let names: Vec<String> = signature
        .getattr(intern!(py, "parameters"))?
        .try_iter()?
        .map(|name| name?.extract())
        .collect::<PyResult<_>>()?;
    let named = |name: &str| names.iter().any(|other| other == name);
    Ok(match (accepts(1), accepts(2), accepts(3)) {
        (_, true, _) if named("environ") || named("start_response") => Some(Detected::Wsgi),
        (_, _, true) if named("receive") || named("send") => Some(Detected::Asgi3),
        (_, false, true) => Some(Detected::Asgi3),
        (_, true, _) => Some(Detected::Wsgi),
        (true, false, false) if named("scope") => Some(Detected::Asgi2),
        _ => None,
    })
}

fn unwrap_partial<'py>(app: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = app.py();
    let partial = py.import("functools")?.getattr("partial")?;
    let mut object = app.clone();
    while object.is_instance(&partial)? {
        object = object.getattr("func")?;
    }
    Ok(object)
}
