//! ASGI messages as the adapters read and write them.

use http::{HeaderMap, StatusCode};
use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use twinspan_bridge::bytes::Lender;
use twinspan_bridge::head;

use std::sync::Arc;

/// The message as a dict, with its `type`.
pub(crate) fn open<'a, 'py>(
    message: &'a Bound<'py, PyAny>,
) -> PyResult<(&'a Bound<'py, PyDict>, Bound<'py, PyString>)> {
    let py = message.py();
    let dict = message
        .cast::<PyDict>()
        .map_err(|_| PyTypeError::new_err("an ASGI message must be a dict"))?;
    let kind = dict
        .get_item(intern!(py, "type"))?
        .ok_or_else(|| PyKeyError::new_err("an ASGI message must have a `type`"))?
        .cast_into::<PyString>()
        .map_err(|_| PyTypeError::new_err("the `type` of an ASGI message must be a str"))?;
    Ok((dict, kind))
}

/// A message that is well formed, but not allowed here.
pub(crate) fn unexpected(kind: &str, why: &str) -> PyErr {
    PyRuntimeError::new_err(format!("unexpected ASGI message `{kind}`: {why}"))
}

/// `status`: the number of a final response.
pub(crate) fn status(message: &Bound<'_, PyDict>, kind: &str) -> PyResult<StatusCode> {
    let number: i64 = message
        .get_item(intern!(message.py(), "status"))?
        .ok_or_else(|| PyValueError::new_err(format!("`{kind}` must have a `status`")))?
        .extract()
        .map_err(|_| PyTypeError::new_err("`status` must be an int"))?;
    head::status(number).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// `headers`: an iterable of pairs of byte strings; absent and `None` mean none.
pub(crate) fn headers(message: &Bound<'_, PyDict>) -> PyResult<HeaderMap> {
    let py = message.py();
    let mut headers = HeaderMap::new();
    let Some(pairs) = message.get_item(intern!(py, "headers"))? else {
        return Ok(headers);
    };
    if pairs.is_none() {
        return Ok(headers);
    }
    for pair in pairs.try_iter()? {
        let (name, value) = pair_of(&pair?)?;
        let name = byte_string(&name, "a header's name")?;
        let value = byte_string(&value, "a header's value")?;
        // The server frames the message itself; uvicorn and others drop these, and applications that
        // proxy rely on it.
        if head::HOP_BY_HOP.iter().any(|hop| {
            name.as_bytes()
                .eq_ignore_ascii_case(hop.as_str().as_bytes())
        }) {
            continue;
        }
        head::append(&mut headers, name.as_bytes(), value.as_bytes())
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
    }
    Ok(headers)
}

/// A name and a value: any iterable of two, though nearly all are tuples.
fn pair_of<'py>(pair: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    if let Ok(pair) = pair.extract() {
        return Ok(pair);
    }
    let mut items = pair.try_iter().into_iter().flatten();
    match (items.next(), items.next(), items.next()) {
        (Some(Ok(name)), Some(Ok(value)), None) => Ok((name, value)),
        _ => Err(PyTypeError::new_err(
            "`headers` must hold pairs of a name and a value",
        )),
    }
}

fn byte_string<'a, 'py>(
    object: &'a Bound<'py, PyAny>,
    what: &str,
) -> PyResult<&'a Bound<'py, PyBytes>> {
    object.cast::<PyBytes>().map_err(|_| {
        let kind = object
            .get_type()
            .name()
            .map_or_else(|_| "object".to_owned(), |name| name.to_string());
        PyTypeError::new_err(format!("{what} must be bytes, not {kind}"))
    })
}

/// `body`: absent means empty.
pub(crate) fn body(message: &Bound<'_, PyDict>, lender: &Arc<Lender>) -> PyResult<bytes::Bytes> {
    match message.get_item(intern!(message.py(), "body"))? {
        None => Ok(bytes::Bytes::new()),
        Some(body) => lender.bytes(&body, "`body`"),
    }
}

/// `more_body`: absent means `False`.
pub(crate) fn more_body(message: &Bound<'_, PyDict>) -> PyResult<bool> {
    match message.get_item(intern!(message.py(), "more_body"))? {
        None => Ok(false),
        Some(more) => more.is_truthy(),
    }
}

/// `{"type": "http.disconnect"}`
pub(crate) fn http_disconnect(py: Python<'_>) -> PyResult<Py<PyAny>> {
    let message = PyDict::new(py);
    message.set_item(intern!(py, "type"), intern!(py, "http.disconnect"))?;
    Ok(message.into_any().unbind())
}

/// `{"type": "http.request", "body": …, "more_body": …}`
pub(crate) fn http_request(py: Python<'_>, body: &[u8], more_body: bool) -> PyResult<Py<PyAny>> {
    let message = PyDict::new(py);
    message.set_item(intern!(py, "type"), intern!(py, "http.request"))?;
    message.set_item(intern!(py, "body"), PyBytes::new(py, body))?;
    message.set_item(intern!(py, "more_body"), more_body)?;
    Ok(message.into_any().unbind())
}
