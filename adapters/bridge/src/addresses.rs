//! Addresses as Python's text, kept: a busy client asks many times.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyString;

/// Addresses that are kept; clients choose them, so there is a limit.
const KEPT: usize = 1024;

/// The text of addresses.
#[derive(Debug, Default)]
pub struct Addresses {
    known: Mutex<HashMap<IpAddr, Py<PyString>>>,
}

impl Addresses {
    /// `127.0.0.1`, `::1`.
    pub fn text(&self, py: Python<'_>, address: IpAddr) -> Py<PyString> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = known.get(&address) {
            return text.clone_ref(py);
        }
        if known.len() >= KEPT {
            known.clear();
        }
        let text = PyString::new(py, &address.to_string()).unbind();
        known.insert(address, text.clone_ref(py));
        text
    }
}

/// A port as text.
pub fn port(py: Python<'_>, port: u16) -> Bound<'_, PyString> {
    let mut digits = itoa::Buffer::new();
    PyString::new(py, digits.format(port))
}
