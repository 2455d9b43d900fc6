//! Scopes: a prepared dict is copied and filled in, which is a tenth of the cost of building one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Version};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use twinspan::app::{LocalAddr, Request};
use twinspan::http::Interim;
use twinspan_bridge::addresses::Addresses;
use twinspan_bridge::text;

use crate::message::{DEBUG, EARLY_HINT, PATHSEND, TRAILERS, ZEROCOPYSEND};

/// Version of the HTTP and WebSocket message format (ASGI "HTTP & WebSocket" specification).
const SPEC_VERSION: &str = "2.5";

/// The extension that is this server's own: where applications find each other (`twinspan.migrate`).
const OWN: &str = "twinspan";

/// Builds scopes of one kind.
pub(crate) struct ScopeFactory {
    template: Py<PyDict>,
    /// The versions; each scope has its own, as an application may write into it.
    asgi: Py<PyDict>,
    /// What every request offers beyond the protocol.
    extensions: Py<PyDict>,
    /// The same, where 103 can be sent.
    with_hints: Py<PyDict>,
    addresses: Addresses,
    servers: Mutex<HashMap<SocketAddr, Py<PyTuple>>>,
}

/// Addresses of this server that are kept: a wildcard bind has as many as the machine.
const SERVERS: usize = 256;

impl ScopeFactory {
    /// `kind` is `http` or `websocket`; `apps` is what applications find each other by.
    pub(crate) fn new(py: Python<'_>, kind: &str, apps: &Bound<'_, PyAny>) -> PyResult<Self> {
        let asgi = PyDict::new(py);
        asgi.set_item("version", "3.0")?;
        asgi.set_item("spec_version", SPEC_VERSION)?;
        let template = PyDict::new(py);
        template.set_item("type", kind)?;
        template.set_item("asgi", py.None())?;
        template.set_item("http_version", "1.1")?;
        template.set_item("server", py.None())?;
        template.set_item("client", py.None())?;
        template.set_item("scheme", "http")?;
        if kind == "http" {
            template.set_item("method", "GET")?;
        }
        template.set_item("root_path", "")?;
        template.set_item("path", "/")?;
        template.set_item("raw_path", PyBytes::new(py, b"/"))?;
        template.set_item("query_string", PyBytes::new(py, b""))?;
        template.set_item("headers", py.None())?;
        template.set_item("extensions", py.None())?;
        let extensions = PyDict::new(py);
        for &name in extensions_of(kind) {
            extensions.set_item(name, PyDict::new(py))?;
        }
        let own = PyDict::new(py);
        own.set_item("apps", apps)?;
        extensions.set_item(OWN, own)?;
        let with_hints = extensions.copy()?;
        with_hints.set_item(EARLY_HINT, PyDict::new(py))?;
        Ok(Self {
            template: template.unbind(),
            asgi: asgi.unbind(),
            extensions: extensions.unbind(),
            with_hints: with_hints.unbind(),
            addresses: Addresses::default(),
            servers: Mutex::default(),
        })
    }

    /// A scope for `request`; `scheme` is `http`, `https`, `ws` or `wss`, `interim` where 103 would go.
    pub(crate) fn build<'py>(
        &self,
        py: Python<'py>,
        request: &Request,
        scheme: &'static str,
        state: Option<&Py<PyDict>>,
        interim: Option<&Interim>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let scope = self.template.bind(py).copy()?;
        scope.set_item(intern!(py, "asgi"), self.asgi.bind(py).copy()?)?;
        let head = &request.head;
        if head.version != Version::HTTP_11 {
            scope.set_item(intern!(py, "http_version"), http_version(py, head.version))?;
        }
        if let Some(client) = request.origin.client {
            scope.set_item(intern!(py, "client"), self.client(py, client)?)?;
        }
        scope.set_item(intern!(py, "server"), self.server(py, &request.conn.local)?)?;
        if scheme != "http" {
            scope.set_item(intern!(py, "scheme"), scheme)?;
        }
        self.path(py, &scope, request)?;
        if let Some(query) = head.uri.query() {
            scope.set_item(
                intern!(py, "query_string"),
                PyBytes::new(py, query.as_bytes()),
            )?;
        }
        scope.set_item(intern!(py, "headers"), headers(py, head)?)?;
        let extensions = match interim {
            Some(_) => &self.with_hints,
            None => &self.extensions,
        };
        let extensions = extensions.bind(py).copy()?;
        if request.is_copy {
            extensions.set_item(intern!(py, "twinspan.shadow"), PyDict::new(py))?;
        }
        scope.set_item(intern!(py, "extensions"), extensions)?;
        if let Some(state) = state {
            scope.set_item(intern!(py, "state"), state.bind(py).copy()?)?;
        }
        Ok(scope)
    }

    /// `path` is the whole decoded path, what the mount has cut off included; `root_path` says how much that is.
    fn path(&self, py: Python<'_>, scope: &Bound<'_, PyDict>, request: &Request) -> PyResult<()> {
        let at = &request.at;
        let rest = at.path_info(&request.head);
        let path = if at.root_path.is_empty() {
            text::utf8(py, rest)
        } else {
            scope.set_item(intern!(py, "root_path"), &*at.root_path)?;
            let mut path = Vec::with_capacity(at.root_path.len() + rest.len());
            path.extend_from_slice(at.root_path.as_bytes());
            path.extend_from_slice(rest);
            text::utf8(py, &path)
        };
        scope.set_item(intern!(py, "path"), path)?;
        let raw = request
            .head
            .uri
            .path_and_query()
            .map_or("", PathAndQuery::path);
        scope.set_item(intern!(py, "raw_path"), PyBytes::new(py, raw.as_bytes()))
    }

    fn client<'py>(&self, py: Python<'py>, client: SocketAddr) -> PyResult<Bound<'py, PyTuple>> {
        let ip = self.addresses.text(py, client.ip());
        (ip, client.port()).into_pyobject(py)
    }

    fn server<'py>(&self, py: Python<'py>, local: &LocalAddr) -> PyResult<Bound<'py, PyTuple>> {
        match local {
            LocalAddr::Unix(path) => (&**path, py.None()).into_pyobject(py),
            LocalAddr::Tcp(address) => {
                let mut known = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(server) = known.get(address) {
                    return Ok(server.bind(py).clone());
                }
                if known.len() >= SERVERS {
                    known.clear();
                }
                let server = (address.ip().to_string(), address.port()).into_pyobject(py)?;
                known.insert(*address, server.clone().unbind());
                Ok(server)
            }
        }
    }
}

/// What is offered on every connection.
fn extensions_of(kind: &str) -> &'static [&'static str] {
    match kind {
        "websocket" => &["websocket.http.response"],
        // Whoever asks for debug logs gets what this extension is for; everybody else is spared the cost.
        _ if tracing::enabled!(tracing::Level::DEBUG) => &[PATHSEND, ZEROCOPYSEND, TRAILERS, DEBUG],
        _ => &[PATHSEND, ZEROCOPYSEND, TRAILERS],
    }
}

fn http_version(py: Python<'_>, version: Version) -> &Bound<'_, PyString> {
    match version {
        Version::HTTP_10 => intern!(py, "1.0"),
        Version::HTTP_2 => intern!(py, "2"),
        _ => intern!(py, "1.1"),
    }
}

/// Pairs of byte strings in the order of arrival; HTTP/2's `:authority` comes first, as `host`.
fn headers<'py>(py: Python<'py>, head: &Parts) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    if let Some(authority) = host_of_http2(head) {
        list.append((intern_host(py), PyBytes::new(py, authority.as_bytes())))?;
    }
    for (name, value) in &head.headers {
        list.append((
            PyBytes::new(py, name.as_str().as_bytes()),
            PyBytes::new(py, value.as_bytes()),
        ))?;
    }
    Ok(list)
}

fn intern_host(py: Python<'_>) -> Bound<'_, PyBytes> {
    PyBytes::new(py, b"host")
}

fn host_of_http2(head: &Parts) -> Option<&str> {
    let missing = !HeaderMap::contains_key(&head.headers, http::header::HOST);
    missing
        .then(|| head.uri.authority().map(http::uri::Authority::as_str))
        .flatten()
}
