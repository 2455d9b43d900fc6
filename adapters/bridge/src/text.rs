//! Text that crosses: PEP 3333 and ASGI carry header bytes as latin-1, one byte a character.

use std::borrow::Cow;

use pyo3::types::PyString;
use pyo3::{Bound, Python, ffi};

/// Decodes latin-1; never fails.
pub fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    let length = ffi::Py_ssize_t::try_from(bytes.len()).unwrap_or(0);
    // SAFETY: the pointer and the length are those of one live slice, and latin-1 decoding accepts any
    // bytes. It returns a new reference to a `str`, or NULL without memory, where pyo3 panics as it
    // does for every constructor.
    unsafe {
        Bound::from_owned_ptr(
            py,
            ffi::PyUnicode_DecodeLatin1(bytes.as_ptr().cast(), length, std::ptr::null()),
        )
        .cast_into_unchecked()
    }
}

/// Encodes latin-1; `None` when a character does not fit.
pub fn latin1_bytes(text: &str) -> Option<Cow<'_, [u8]>> {
    if text.is_ascii() {
        return Some(Cow::Borrowed(text.as_bytes()));
    }
    let bytes: Option<Vec<u8>> = text
        .chars()
        .map(|character| u8::try_from(u32::from(character)).ok())
        .collect();
    bytes.map(Cow::Owned)
}

/// Decodes UTF-8 as ASGI wants paths; bytes that are not UTF-8 become U+FFFD.
pub fn utf8<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    PyString::new(py, &String::from_utf8_lossy(bytes))
}
