//! Response heads that an application made, checked before a byte of them is sent.

use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{Response, StatusCode};
use twinspan::body::Body;

/// What is wrong with a response head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("the status must be a number from 200 to 999, not {0}")]
    Status(String),
    #[error("{0:?} is not a header name (RFC 9110 §5.1)")]
    Name(String),
    #[error("the value of header `{name}` holds a control character (RFC 9110 §5.5)")]
    Value { name: String },
    #[error("the Content-Length must be one number, not {0:?} (RFC 9110 §8.6)")]
    Length(String),
    #[error("header `{0}` belongs to the connection, which is the server's (RFC 9110 §7.6.1)")]
    HopByHop(String),
    #[error("a response cannot have so many headers")]
    TooMany,
}

/// Checks a status.
///
/// # Errors
/// [`HeadError::Status`] for what is not a final response: 1xx are sent by the server.
pub fn status(number: i64) -> Result<StatusCode, HeadError> {
    u16::try_from(number)
        .ok()
        .filter(|number| (200..=999).contains(number))
        .and_then(|number| StatusCode::from_u16(number).ok())
        .ok_or_else(|| HeadError::Status(number.to_string()))
}

/// Adds one header.
///
/// # Errors
/// [`HeadError`] for a name or a value that would change the message's meaning on the wire.
pub fn append(headers: &mut HeaderMap, name: &[u8], value: &[u8]) -> Result<(), HeadError> {
    let parsed = HeaderName::from_bytes(name)
        .map_err(|_| HeadError::Name(String::from_utf8_lossy(name).into_owned()))?;
    // White space around a value is not part of it (RFC 9110 §5.5); a line end is no white space.
    let value = HeaderValue::from_bytes(trim(value)).map_err(|_| HeadError::Value {
        name: parsed.to_string(),
    })?;
    if parsed == CONTENT_LENGTH {
        check_length(headers, &value)?;
    }
    headers
        .try_append(parsed, value)
        .map_err(|_| HeadError::TooMany)?;
    Ok(())
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Clients that disagree about the length of a response disagree about what follows it.
fn check_length(headers: &HeaderMap, value: &HeaderValue) -> Result<(), HeadError> {
    let is_number = value.as_bytes().iter().all(u8::is_ascii_digit)
        && value.to_str().is_ok_and(|text| text.parse::<u64>().is_ok());
    let earlier = headers.get(CONTENT_LENGTH);
    if is_number && earlier.is_none() {
        return Ok(());
    }
    let all: Vec<_> = earlier
        .into_iter()
        .chain([value])
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    Err(HeadError::Length(all.join(", ")))
}

/// Headers that describe one connection; an application sees none and sets none.
pub const HOP_BY_HOP: [HeaderName; 5] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// A response from its parts.
pub fn response(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
