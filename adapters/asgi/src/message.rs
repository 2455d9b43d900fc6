//! ASGI messages as the adapters read and write them.

use std::path::PathBuf;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, StatusCode};
use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyString};
use twinspan::http::trailers;
use twinspan_bridge::bytes::Lender;
use twinspan_bridge::head;

// The extensions of HTTP, by the names that stand in a scope and in messages.
pub(crate) const DEBUG: &str = "http.response.debug";
pub(crate) const EARLY_HINT: &str = "http.response.early_hint";
pub(crate) const PATHSEND: &str = "http.response.pathsend";
pub(crate) const TRAILERS: &str = "http.response.trailers";
pub(crate) const ZEROCOPYSEND: &str = "http.response.zerocopysend";

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
///
/// What belongs to the connection is dropped: the server frames the message itself; uvicorn and others do so
/// too, and applications that proxy rely on it.
pub(crate) fn headers(message: &Bound<'_, PyDict>) -> PyResult<HeaderMap> {
    read_headers(message, |name| !is_hop_by_hop(name))
}

/// The same of a response with trailers, which announces them.
pub(crate) fn headers_before_trailers(message: &Bound<'_, PyDict>) -> PyResult<HeaderMap> {
    read_headers(message, |name| {
        !is_hop_by_hop(name) || name.eq_ignore_ascii_case(b"trailer")
    })
}

/// `headers` after a body.
///
/// # Errors
/// `ValueError` for what has no place there as well.
pub(crate) fn trailers(message: &Bound<'_, PyDict>) -> PyResult<HeaderMap> {
    let fields = read_headers(message, |_| true)?;
    match fields.keys().find(|name| trailers::is_forbidden(name)) {
        Some(name) => Err(PyValueError::new_err(format!(
            "`{name}` cannot be a trailer (RFC 9110 §6.5.1)"
        ))),
        None => Ok(fields),
    }
}

/// `links` as the header of early hints: an iterable of byte strings.
pub(crate) fn links(message: &Bound<'_, PyDict>) -> PyResult<HeaderMap> {
    let py = message.py();
    let links = message
        .get_item(intern!(py, "links"))?
        .ok_or_else(|| PyValueError::new_err(format!("`{EARLY_HINT}` must have `links`")))?;
    let mut headers = HeaderMap::new();
    for link in links.try_iter()? {
        let link = link?;
        let link = byte_string(&link, "a link")?;
        head::append(&mut headers, b"link", link.as_bytes())
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
    }
    Ok(headers)
}

fn read_headers(message: &Bound<'_, PyDict>, keeps: impl Fn(&[u8]) -> bool) -> PyResult<HeaderMap> {
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
        if keeps(name.as_bytes()) {
            head::append(&mut headers, name.as_bytes(), value.as_bytes())
                .map_err(|error| PyValueError::new_err(error.to_string()))?;
        }
    }
    Ok(headers)
}

fn is_hop_by_hop(name: &[u8]) -> bool {
    let is = |hop: &HeaderName| name.eq_ignore_ascii_case(hop.as_str().as_bytes());
    head::HOP_BY_HOP.iter().any(is)
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

/// `more_body`, `more_trailers` or `trailers`: absent means `False`.
pub(crate) fn flag(message: &Bound<'_, PyDict>, key: &Bound<'_, PyString>) -> PyResult<bool> {
    match message.get_item(key)? {
        None => Ok(false),
        Some(flag) => flag.is_truthy(),
    }
}

/// `path`: an absolute path of a file.
pub(crate) fn path(message: &Bound<'_, PyDict>) -> PyResult<PathBuf> {
    let path = message
        .get_item(intern!(message.py(), "path"))?
        .ok_or_else(|| PyValueError::new_err(format!("`{PATHSEND}` must have a `path`")))?;
    let path = path
        .cast::<PyString>()
        .map_err(|_| PyTypeError::new_err("`path` must be a str"))?;
    // Also names that are no UTF-8, as Python keeps them.
    let path: PathBuf = path.extract()?;
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(PyValueError::new_err(format!(
            "`path` must be absolute, not '{}'",
            path.display()
        )))
    }
}

/// `file`: something with a file descriptor, or its number.
pub(crate) fn file<'py>(message: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyAny>> {
    message
        .get_item(intern!(message.py(), "file"))?
        .ok_or_else(|| PyValueError::new_err(format!("`{ZEROCOPYSEND}` must have a `file`")))
}

/// `offset` or `count`: a number of bytes; `None` where it is absent.
pub(crate) fn bytes(message: &Bound<'_, PyDict>, key: &str) -> PyResult<Option<u64>> {
    let Some(number) = message.get_item(key)?.filter(|number| !number.is_none()) else {
        return Ok(None);
    };
    if !number.is_instance_of::<PyInt>() {
        return Err(PyTypeError::new_err(format!("`{key}` must be an int")));
    }
    // What a file can be long; also the end of a range must fit.
    let number: Option<u64> = number.extract().ok().filter(|number| *number < 1 << 62);
    number.map(Some).ok_or_else(|| {
        PyValueError::new_err(format!("`{key}` must be a number of bytes, 0 or more"))
    })
}

/// What is worth a line of a log of `info`: plain values, cut short, and the kinds of all others, whose
/// `repr` may be long or do something.
pub(crate) fn debug_info(message: &Bound<'_, PyDict>) -> PyResult<String> {
    let info = message
        .get_item(intern!(message.py(), "info"))?
        .ok_or_else(|| PyValueError::new_err(format!("`{DEBUG}` must have an `info`")))?;
    let info = info
        .cast::<PyDict>()
        .map_err(|_| PyTypeError::new_err("`info` must be a dict"))?;
    let mut entries = Vec::new();
    for (key, value) in info.iter().take(DEBUG_ENTRIES) {
        let key = key
            .cast::<PyString>()
            .map_err(|_| PyTypeError::new_err("the keys of `info` must be str"))?;
        entries.push(format!("{}={}", cut(key), shown(&value)?));
    }
    Ok(entries.join(", "))
}

fn shown(value: &Bound<'_, PyAny>) -> PyResult<String> {
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(cut(text));
    }
    let is_number =
        value.is_exact_instance_of::<PyInt>() || value.is_exact_instance_of::<PyFloat>();
    if (is_number || value.is_exact_instance_of::<PyBool>() || value.is_none())
        && let Ok(text) = value.repr()
    {
        return Ok(cut(&text));
    }
    Ok(cut(&value.get_type().name()?))
}

fn cut(text: &Bound<'_, PyString>) -> String {
    let text = text.to_string_lossy();
    text.chars().take(DEBUG_CHARACTERS).collect()
}

/// Entries of a debug message that are logged.
const DEBUG_ENTRIES: usize = 16;
/// Characters of a name or a value that are logged.
const DEBUG_CHARACTERS: usize = 100;

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
