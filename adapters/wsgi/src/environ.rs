//! `environ` (PEP 3333, "environ Variables"): a prepared dict is copied and filled in.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST};
use http::{HeaderName, HeaderValue, Version};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use twinspan::app::{LocalAddr, Request};
use twinspan_bridge::addresses::{Addresses, port};
use twinspan_bridge::text::{latin1, utf8};

use crate::errors::ErrorStream;
use crate::file_wrapper::FileWrapper;
use crate::input::Input;

/// Builds the `environ` of one application.
pub(crate) struct EnvironFactory {
    template: Py<PyDict>,
    /// Keys by header name; `None` for those that applications do not see.
    keys: Mutex<HashMap<HeaderName, Option<Py<PyString>>>>,
    addresses: Addresses,
    server: Mutex<Option<OwnAddress>>,
}

/// The address of this machine that was asked last.
struct OwnAddress {
    address: SocketAddr,
    /// `SERVER_NAME`.
    name: Py<PyString>,
    /// `SERVER_PORT`.
    port: Py<PyString>,
}

/// Header names whose key is kept.
const KEYS: usize = 256;

impl EnvironFactory {
    pub(crate) fn new(
        errors: &Bound<'_, ErrorStream>,
        multithread: bool,
        multiprocess: bool,
        apps: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let py = errors.py();
        let template = PyDict::new(py);
        template.set_item("REQUEST_METHOD", "GET")?;
        template.set_item("SCRIPT_NAME", "")?;
        template.set_item("PATH_INFO", "")?;
        template.set_item("QUERY_STRING", "")?;
        template.set_item("REQUEST_URI", "")?;
        template.set_item("RAW_URI", "")?;
        template.set_item("SERVER_NAME", "")?;
        template.set_item("SERVER_PORT", "")?;
        template.set_item("SERVER_PROTOCOL", "HTTP/1.1")?;
        template.set_item("SERVER_SOFTWARE", "twinspan")?;
        template.set_item("REMOTE_ADDR", "")?;
        template.set_item("wsgi.version", (1, 0))?;
        template.set_item("wsgi.url_scheme", "http")?;
        template.set_item("wsgi.input", py.None())?;
        template.set_item("wsgi.errors", errors)?;
        template.set_item("wsgi.multithread", multithread)?;
        template.set_item("wsgi.multiprocess", multiprocess)?;
        template.set_item("wsgi.run_once", false)?;
        // The input ends with the request, whatever its framing: Werkzeug then reads bodies without a length.
        template.set_item("wsgi.input_terminated", true)?;
        template.set_item("wsgi.early_hints", py.None())?;
        template.set_item("wsgi.file_wrapper", py.get_type::<FileWrapper>())?;
        template.set_item("twinspan.apps", apps)?;
        Ok(Self {
            template: template.unbind(),
            keys: Mutex::default(),
            server: Mutex::default(),
            addresses: Addresses::default(),
        })
    }

    pub(crate) fn build<'py>(
        &self,
        py: Python<'py>,
        request: &Request,
        input: &Bound<'_, Input>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let environ = self.template.bind(py).copy()?;
        let head = &request.head;
        let method = head.method.as_str();
        if method != "GET" {
            environ.set_item(intern!(py, "REQUEST_METHOD"), method)?;
        }
        let at = &request.at;
        if !at.root_path.is_empty() {
            environ.set_item(
                intern!(py, "SCRIPT_NAME"),
                latin1(py, at.root_path.as_bytes()),
            )?;
        }
        let path = match at.path_info(head) {
            // No path (RFC 3875 §4.1.5 knows only the empty one and those that begin with a slash).
            b"*" => b"",
            path => path,
        };
        let query = head.uri.query();
        let is_as_sent =
            query.is_none() && at.root_path.is_empty() && path == head.uri.path().as_bytes();
        let path = latin1(py, path);
        // What was sent, before it was decoded: `%2F` is a slash in PATH_INFO. By the names that gunicorn
        // (RAW_URI) and uWSGI, mod_wsgi and Werkzeug (REQUEST_URI) have for it.
        let target = if is_as_sent {
            path.clone()
        } else {
            let target = head.uri.path_and_query();
            latin1(py, target.map_or("*", |target| target.as_str()).as_bytes())
        };
        environ.set_item(intern!(py, "PATH_INFO"), path)?;
        environ.set_item(intern!(py, "REQUEST_URI"), &target)?;
        environ.set_item(intern!(py, "RAW_URI"), target)?;
        if let Some(query) = query {
            environ.set_item(intern!(py, "QUERY_STRING"), latin1(py, query.as_bytes()))?;
        }
        if head.version != Version::HTTP_11 {
            let protocol = if head.version == Version::HTTP_10 {
                intern!(py, "HTTP/1.0")
            } else {
                intern!(py, "HTTP/2")
            };
            environ.set_item(intern!(py, "SERVER_PROTOCOL"), protocol)?;
        }
        if let Some(client) = request.origin.client {
            let ip = self.addresses.text(py, client.ip());
            environ.set_item(intern!(py, "REMOTE_ADDR"), ip)?;
            environ.set_item(intern!(py, "REMOTE_PORT"), port(py, client.port()))?;
        }
        let scheme = request.origin.scheme.as_str();
        if scheme != "http" {
            environ.set_item(intern!(py, "wsgi.url_scheme"), scheme)?;
        }
        self.server(py, &environ, request)?;
        self.headers(py, &environ, request)?;
        if request.is_copy {
            environ.set_item(intern!(py, "twinspan.shadow"), true)?;
        }
        environ.set_item(intern!(py, "wsgi.input"), input)?;
        Ok(environ)
    }

    fn headers(
        &self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        request: &Request,
    ) -> PyResult<()> {
        let headers = &request.head.headers;
        if let Some(authority) = request.head.uri.authority()
            && !headers.contains_key(HOST)
        {
            environ.set_item(intern!(py, "HTTP_HOST"), authority.as_str())?;
        }
        for name in headers.keys() {
            let Some(key) = self.key(py, name) else {
                continue;
            };
            let mut values = headers.get_all(name).iter();
            let Some(first) = values.next() else {
                continue;
            };
            let value = match values.next() {
                None => latin1(py, first.as_bytes()),
                Some(second) => {
                    // RFC 9110 §5.3; cookies are the exception (RFC 6265 §5.4, RFC 9113 §8.2.3).
                    let separator: &[u8] = if name == COOKIE { b"; " } else { b"," };
                    latin1(py, &join(first, second, values, separator))
                }
            };
            environ.set_item(key, value)?;
        }
        Ok(())
    }

    /// `SERVER_NAME` and `SERVER_PORT`; both are strings and never empty (PEP 3333).
    fn server(
        &self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        request: &Request,
    ) -> PyResult<()> {
        match &request.conn.local {
            LocalAddr::Tcp(address) => {
                let (name, port) = self.own_address(py, *address);
                environ.set_item(intern!(py, "SERVER_NAME"), name)?;
                environ.set_item(intern!(py, "SERVER_PORT"), port)
            }
            LocalAddr::Unix(_) => {
                // A unix socket has neither: what the client calls the server is the best there is.
                let host = request
                    .head
                    .headers
                    .get(HOST)
                    .and_then(|host| host.to_str().ok())
                    .and_then(|host| host.parse::<http::uri::Authority>().ok());
                let name = host.as_ref().map_or("localhost", |host| host.host());
                let number = host
                    .as_ref()
                    .and_then(http::uri::Authority::port_u16)
                    .unwrap_or(request.origin.scheme.default_port());
                environ.set_item(intern!(py, "SERVER_NAME"), utf8(py, name.as_bytes()))?;
                environ.set_item(intern!(py, "SERVER_PORT"), port(py, number))
            }
        }
    }

    fn own_address(&self, py: Python<'_>, address: SocketAddr) -> (Py<PyString>, Py<PyString>) {
        let mut last = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|last| last.address != address) {
            *last = None;
        }
        let OwnAddress { name, port, .. } = last.get_or_insert_with(|| OwnAddress {
            address,
            name: self.addresses.text(py, address.ip()),
            port: port(py, address.port()).unbind(),
        });
        (name.clone_ref(py), port.clone_ref(py))
    }

    fn key(&self, py: Python<'_>, name: &HeaderName) -> Option<Py<PyString>> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = keys.get(name) {
            return key.as_ref().map(|key| key.clone_ref(py));
        }
        let key = environ_key(name).map(|key| PyString::new(py, &key).unbind());
        // Clients choose names: only so many are kept.
        if keys.len() < KEYS {
            keys.insert(name.clone(), key.as_ref().map(|key| key.clone_ref(py)));
        }
        key
    }
}

/// The key of a header: `HTTP_` and the name in upper case with underscores, or the two names of CGI's own
/// (RFC 3875 §4.1). `None` for names that must not arrive.
fn environ_key(name: &HeaderName) -> Option<String> {
    if name == CONTENT_TYPE {
        return Some("CONTENT_TYPE".into());
    }
    if name == CONTENT_LENGTH {
        return Some("CONTENT_LENGTH".into());
    }
    let name = name.as_str();
    // `X_Forwarded_For` would become the same key as `X-Forwarded-For`: whoever may send one must not be
    // able to speak as the other. `HTTP_PROXY` sets the proxy of whatever takes an environ for the
    // process's environment (httpoxy).
    if name.contains('_') || name == "proxy" {
        return None;
    }
    let mut key = String::with_capacity("HTTP_".len() + name.len());
    key.push_str("HTTP_");
    key.extend(name.chars().map(|character| match character {
        '-' => '_',
        other => other.to_ascii_uppercase(),
    }));
    Some(key)
}

fn join<'a>(
    first: &'a HeaderValue,
    second: &'a HeaderValue,
    rest: impl Iterator<Item = &'a HeaderValue>,
    separator: &[u8],
) -> Vec<u8> {
    let mut joined = first.as_bytes().to_vec();
    for value in std::iter::once(second).chain(rest) {
        joined.extend_from_slice(separator);
        joined.extend_from_slice(value.as_bytes());
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_name_becomes_its_environ_key() {
        for (name, key) in [
            ("x-forwarded-for", Some("HTTP_X_FORWARDED_FOR")),
            ("proxy-authorization", Some("HTTP_PROXY_AUTHORIZATION")),
            ("content-type", Some("CONTENT_TYPE")),
            ("content-length", Some("CONTENT_LENGTH")),
            ("x_forwarded_for", None),
            ("content_length", None),
            ("proxy", None),
        ] {
            let name = HeaderName::from_static(name);
            assert_eq!(environ_key(&name).as_deref(), key, "{name}");
        }
    }

    #[test]
    fn repeated_headers_are_joined_in_order() {
        let values = ["a=1", "b=2", "c=3"].map(HeaderValue::from_static);
        let joined = join(&values[0], &values[1], values[2..].iter(), b"; ");
        assert_eq!(joined, b"a=1; b=2; c=3");
    }
}
