//! What hyper lets through and an application must never see.
//!
//! Two readers that disagree about where a request ends, or about whom it is for, are a hole in somebody's
//! access rules: one smuggles a request past the other. So whatever the standards leave to the reader's
//! kindness is refused here, and the connection ends with it.
//!
//! Two places are needed. [`Tracker`] sees the bytes before hyper does: hyper removes `Content-Length` where
//! there is a transfer coding, takes a bare LF for a line end and drops a fragment, and nobody behind it can
//! know. [`check`] judges what is in the parsed head. What hyper refuses by itself (control characters,
//! spaces in names, obsolete line folding, a wrong version) is not looked for again: the two only must agree
//! on where lines and bodies end, and they do, because the tracker knows no line end but CRLF.

use std::net::Ipv6Addr;

use http::header::{EXPECT, HOST};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, Version};
use memchr::{memchr, memchr3};

use crate::metrics::RefusedBy;
use crate::route::Refusal;

/// Follows the bytes of an HTTP/1 connection and finds what makes two readers disagree.
///
/// It holds at most the one line that is not complete; how long that may become is bounded by the
/// buffer of hyper, which has the same bytes and gives up when it is full.
#[derive(Debug, Default)]
pub struct Tracker {
    state: State,
    head: Head,
    /// The beginning of a head's line whose end has not been read.
    line: Vec<u8>,
}

/// What [`Tracker::feed`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Fine,
    /// Everything from `offset` on must not be read; the connection is over.
    Refuse {
        offset: usize,
        reason: &'static str,
        part: Part,
    },
}

/// The part of a request that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Head,
    Body,
}

impl Part {
    /// What hyper is to read in place of what was refused, before the end of the stream.
    pub fn ending(self) -> &'static [u8] {
        match self {
            // No head may hold a NUL, so hyper answers 400. The end of the head follows because hyper
            // parses a head that came in pieces only when it is complete.
            Self::Head => b"\0\r\n\r\n",
            // hyper reports a body that ends too early; a NUL could be part of its content.
            Self::Body => b"",
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Nothing of the next request has come.
    #[default]
    Idle,
    /// The CR of an empty line before a request, which RFC 9112 §2.2 lets clients send.
    EmptyLine,
    /// That line was there; a second one is not tolerated.
    AfterEmptyLine,
    Head,
    /// In a head, after the CR of its line.
    HeadLf,
    /// This many bytes of the body are to come.
    Length(u64),
    Chunked(Chunk),
    /// The request asked for another protocol and was not answered.
    Upgrade,
    Refused(&'static str),
}

/// Where in a chunked body (RFC 9112 §7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    Size {
        digits: u8,
        size: u64,
    },
    /// Bytes of the extension so far.
    Extension {
        length: u16,
        size: u64,
    },
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// At the start of a line of the trailer section.
    Trailer,
    TrailerLine {
        has_colon: bool,
    },
    TrailerLf,
    EndLf,
}

/// What the lines of a head have said so far.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    has_request_line: bool,
    is_http_10: bool,
    content_length: Option<u64>,
    is_chunked: bool,
    upgrade: bool,
}

/// Nobody needs extensions; those who send them sign chunks with some hundred bytes.
const EXTENSION_LIMIT: u16 = 1024;

/// Why the byte at `offset` is refused.
struct Problem {
    offset: usize,
    reason: &'static str,
}

impl Tracker {
    /// Follows the next bytes of the connection.
    pub fn feed(&mut self, bytes: &[u8]) -> Verdict {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..)
            && !rest.is_empty()
        {
            let part = if self.in_body() {
                Part::Body
            } else {
                Part::Head
            };
            match self.step(rest) {
                Ok(count) => taken += count,
                Err(Problem { offset, reason }) => {
                    self.state = State::Refused(reason);
                    self.line = Vec::new();
                    return Verdict::Refuse {
                        offset: taken + offset,
                        reason,
                        part,
                    };
                }
            }
        }
        Verdict::Fine
    }

    /// The last request asked for another protocol, and what follows waits for the answer.
    ///
    /// True after every request with an `Upgrade` field, so that the answer to each is told.
    pub fn upgrade_pending(&self) -> bool {
        self.state == State::Upgrade
    }

    /// The other protocol was declined: what follows is the next request.
    pub fn resume(&mut self) {
        if self.state == State::Upgrade {
            self.state = State::Idle;
        }
    }

    /// A request head has begun and is not complete.
    pub fn in_head(&self) -> bool {
        matches!(self.state, State::Head | State::HeadLf)
    }

    /// A request body is not complete.
    pub fn in_body(&self) -> bool {
        matches!(self.state, State::Length(_) | State::Chunked(_))
    }

    /// Bytes of the request body that are still to come, at least: chunks do not tell how many.
    pub fn body_left(&self) -> u64 {
        match self.state {
            State::Length(left) => left,
            State::Chunked(_) => 1,
            _ => 0,
        }
    }

    /// Takes some of `bytes`, which are not empty; returns how many, 0 where only the state has changed.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Problem> {
        let first = bytes.first().copied().unwrap_or_default();
        match self.state {
            State::Idle if first == b'\r' => Ok(self.enter(State::EmptyLine)),
            State::EmptyLine if first == b'\n' => Ok(self.enter(State::AfterEmptyLine)),
            State::EmptyLine => refuse(0, BARE_CR),
            State::Idle | State::AfterEmptyLine => {
                self.head = Head::default();
                self.state = State::Head;
                self.head_line(bytes)
            }
            State::Head => self.head_line(bytes),
            State::HeadLf => self.head_lf(bytes, &[], 0),
            State::Length(left) => {
                let taken = left.min(bytes.len() as u64);
                self.state = match left - taken {
                    0 => self.after_body(),
                    left => State::Length(left),
                };
                Ok(usize::try_from(taken).unwrap_or(bytes.len()))
            }
            State::Chunked(chunk) => self.chunk(chunk, bytes, first),
            State::Upgrade => refuse(0, "bytes between an upgrade and its answer"),
            State::Refused(reason) => refuse(0, reason),
        }
    }

    /// Goes on after one byte.
    fn enter(&mut self, state: State) -> usize {
        self.state = state;
        1
    }

    fn head_line(&mut self, bytes: &[u8]) -> Result<usize, Problem> {
        let Some(end) = memchr3(b'\r', b'\n', b'\0', bytes) else {
            self.line.extend_from_slice(bytes);
            return Ok(bytes.len());
        };
        match bytes.split_at(end) {
            (line, [b'\r', ..]) => self.head_lf(bytes, line, end + 1),
            (_, [b'\n', ..]) => refuse(end, BARE_LF),
            _ => refuse(end, "a NUL in a request head"),
        }
    }

    /// Looks for the LF of a line at `lf`, after its CR; `line` is what this feed holds of the line.
    fn head_lf(&mut self, bytes: &[u8], line: &[u8], lf: usize) -> Result<usize, Problem> {
        match bytes.get(lf) {
            None => {
                self.line.extend_from_slice(line);
                self.state = State::HeadLf;
                return Ok(lf);
            }
            Some(b'\n') => {}
            Some(_) => return refuse(lf, BARE_CR),
        }
        self.state = State::Head;
        let judged = if self.line.is_empty() {
            self.head.line(line)
        } else {
            self.line.extend_from_slice(line);
            let judged = self.head.line(&self.line);
            // Heads seldom come in pieces: not worth keeping the memory.
            self.line = Vec::new();
            judged
        };
        match judged {
            // The last byte of the line is withheld, so that hyper never sees the end of such a head.
            Err(reason) => return refuse(lf, reason),
            Ok(Line::Field) => {}
            Ok(Line::End) => {
                self.state = match (self.head.is_chunked, self.head.content_length) {
                    (true, _) => State::Chunked(Chunk::START),
                    (false, None | Some(0)) => self.after_body(),
                    (false, Some(length)) => State::Length(length),
                }
            }
        }
        Ok(lf + 1)
    }

    fn after_body(&self) -> State {
        if self.head.upgrade {
            State::Upgrade
        } else {
            State::Idle
        }
    }

    fn chunk(&mut self, chunk: Chunk, bytes: &[u8], first: u8) -> Result<usize, Problem> {
        let next = match (chunk, first) {
            (Chunk::Size { digits, size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = u64::from((first as char).to_digit(16).unwrap_or_default());
                // Sixteen digits fill the number exactly.
                if digits == 16 {
                    return refuse(0, "a chunk size that is too large");
                }
                Chunk::Size {
                    digits: digits + 1,
                    size: size << 4 | digit,
                }
            }
            (Chunk::Size { digits: 0, .. }, _) => {
                return refuse(0, "a chunk without its size");
            }
            (Chunk::Size { size, .. } | Chunk::Extension { size, .. }, b'\r') => {
                Chunk::SizeLf(size)
            }
            (Chunk::Size { size, .. }, b';') => Chunk::Extension { length: 0, size },
            (Chunk::Size { .. }, _) => return refuse(0, "an invalid chunk size"),
            (Chunk::Extension { length, .. }, _) if length >= EXTENSION_LIMIT => {
                return refuse(0, "a chunk extension that is too long");
            }
            (Chunk::Extension { length, size }, b'\t' | b' '..=b'~' | 0x80..) => Chunk::Extension {
                length: length + 1,
                size,
            },
            (Chunk::Extension { .. }, _) => {
                return refuse(0, "a control character in a chunk extension");
            }
            (Chunk::SizeLf(0) | Chunk::TrailerLf, b'\n') => Chunk::Trailer,
            (Chunk::SizeLf(size), b'\n') => Chunk::Data(size),
            (Chunk::Data(left), _) => {
                let taken = left.min(bytes.len() as u64);
                self.state = State::Chunked(match left - taken {
                    0 => Chunk::DataCr,
                    left => Chunk::Data(left),
                });
                return Ok(usize::try_from(taken).unwrap_or(bytes.len()));
            }
            (Chunk::DataCr, b'\r') => Chunk::DataLf,
            (Chunk::DataLf, b'\n') => Chunk::START,
            (Chunk::DataCr | Chunk::DataLf, _) => {
                return refuse(0, "a chunk that is longer than its size");
            }
            (Chunk::Trailer, b'\r') => Chunk::EndLf,
            (Chunk::Trailer, b' ' | b'\t') => return refuse(0, "a folded trailer field"),
            (Chunk::Trailer, _) => {
                self.state = State::Chunked(Chunk::TrailerLine { has_colon: false });
                return Ok(0);
            }
            (Chunk::TrailerLine { has_colon }, _) => {
                let taken = memchr3(b'\r', b'\n', b'\0', bytes).unwrap_or(bytes.len());
                let line = bytes.get(..taken).unwrap_or_default();
                let has_colon = has_colon || memchr(b':', line).is_some();
                self.state = State::Chunked(Chunk::TrailerLine { has_colon });
                return match bytes.get(taken) {
                    None => Ok(taken),
                    Some(b'\r') if has_colon => {
                        self.state = State::Chunked(Chunk::TrailerLf);
                        Ok(taken + 1)
                    }
                    Some(b'\r') => refuse(taken, "a trailer line that is no field"),
                    Some(b'\n') => refuse(taken, BARE_LF),
                    Some(_) => refuse(taken, "a NUL in a trailer field"),
                };
            }
            (Chunk::EndLf, b'\n') => {
                let state = self.after_body();
                return Ok(self.enter(state));
            }
            (Chunk::SizeLf(_) | Chunk::TrailerLf | Chunk::EndLf, _) => return refuse(0, BARE_CR),
        };
        Ok(self.enter(State::Chunked(next)))
    }
}

impl Chunk {
    const START: Self = Self::Size { digits: 0, size: 0 };
}

enum Line {
    Field,
    /// The empty line.
    End,
}

impl Head {
    /// Judges a line without its CRLF.
    fn line(&mut self, line: &[u8]) -> Result<Line, &'static str> {
        if !self.has_request_line {
            if line.is_empty() {
                return Err("more than one empty line before a request");
            }
            self.has_request_line = true;
            self.is_http_10 = line.ends_with(b" HTTP/1.0");
            // `Uri` drops it. Clients keep it to themselves (RFC 9110 §4.1), so it is never meant well.
            let target = memchr(b' ', line).and_then(|space| line.get(space..));
            return match target.and_then(|target| memchr(b'#', target)) {
                None => Ok(Line::Field),
                Some(_) => Err("a fragment in the request target"),
            };
        }
        match line.first() {
            None => return Ok(Line::End),
            Some(b' ' | b'\t') => return Err("a folded header field"),
            Some(b'c' | b'C') => {
                if let Some(value) = field(line, b"content-length")? {
                    self.content_length(value)?;
                }
            }
            Some(b't' | b'T') => {
                if let Some(value) = field(line, b"transfer-encoding")? {
                    self.transfer_encoding(value)?;
                }
            }
            Some(b'u' | b'U') => {
                self.upgrade |= field(line, b"upgrade")?.is_some();
            }
            Some(_) => {}
        }
        Ok(Line::Field)
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), &'static str> {
        if self.is_chunked {
            return Err(LENGTH_AND_CODING);
        }
        if self.content_length.is_some() {
            return Err("more than one Content-Length");
        }
        let valid = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let length = valid
            .then(|| str::from_utf8(value).ok()?.parse().ok())
            .flatten();
        self.content_length = Some(length.ok_or("an invalid Content-Length")?);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), &'static str> {
        if self.is_http_10 {
            return Err("Transfer-Encoding in HTTP/1.0");
        }
        if self.content_length.is_some() {
            return Err(LENGTH_AND_CODING);
        }
        if self.is_chunked {
            return Err("more than one Transfer-Encoding");
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err("a transfer coding other than chunked");
        }
        self.is_chunked = true;
        Ok(())
    }
}

/// The value of a line that has this field name; white space between name and colon is refused.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Result<Option<&'a [u8]>, &'static str> {
    let Some((start, rest)) = line.split_at_checked(name.len()) else {
        return Ok(None);
    };
    if !start.eq_ignore_ascii_case(name) {
        return Ok(None);
    }
    match rest {
        [b':', value @ ..] => Ok(Some(value.trim_ascii())),
        [b' ' | b'\t', ..] => Err("white space before the colon of a header field"),
        _ => Ok(None),
    }
}

fn refuse<T>(offset: usize, reason: &'static str) -> Result<T, Problem> {
    Err(Problem { offset, reason })
}

const BARE_CR: &str = "a CR without its LF";
const BARE_LF: &str = "an LF without its CR";
const LENGTH_AND_CODING: &str = "Content-Length beside Transfer-Encoding";

/// Judges a parsed head: method, target form, Host, Expect.
///
/// # Errors
/// [`Refusal`]; the connection is closed after it.
pub fn check(head: &Parts) -> Result<(), Refusal> {
    if head.method == Method::CONNECT {
        return check_connect(head);
    }
    check_target(head)?;
    check_host(head)?;
    for expectation in head.headers.get_all(EXPECT) {
        if !expectation.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return Err(refusal(
                StatusCode::EXPECTATION_FAILED,
                "the only expectation that is met is 100-continue",
            ));
        }
    }
    Ok(())
}

/// Opening a tunnel is a proxy's work, and an application that answers 200 would open one (RFC 9110 §9.3.6).
/// Extended CONNECT is the handshake of a WebSocket over HTTP/2 (RFC 8441 §4).
fn check_connect(head: &Parts) -> Result<(), Refusal> {
    let protocol = head.extensions.get::<hyper::ext::Protocol>();
    if !protocol.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket")) {
        return Err(refusal(
            StatusCode::NOT_IMPLEMENTED,
            "CONNECT is not supported: this is not a proxy",
        ));
    }
    check_target(head)?;
    check_host(head)
}

/// Origin form, absolute form, or `OPTIONS *` (RFC 9112 §3.2).
fn check_target(head: &Parts) -> Result<(), Refusal> {
    let Some(target) = head.uri.path_and_query() else {
        return bad_request("the request target is not a path");
    };
    let target = target.as_str();
    if !target.is_ascii() {
        return bad_request("the request target holds characters that are not percent-encoded");
    }
    // HTTP/2 always names the scheme, and its `:path` begins with a slash like an origin form.
    let is_absolute_form = head.version < Version::HTTP_2 && head.uri.scheme().is_some();
    if is_absolute_form {
        return match head.uri.scheme_str() {
            Some("http" | "https") => Ok(()),
            _ => bad_request("the scheme of the request target is not http or https"),
        };
    }
    match target {
        "*" if head.method == Method::OPTIONS => Ok(()),
        "*" => bad_request("the request target * is for OPTIONS only"),
        _ if target.starts_with('/') => Ok(()),
        _ => bad_request("the request target does not begin with a slash"),
    }
}

/// Exactly one host that every reader understands alike (RFC 9112 §3.2, RFC 9113 §8.3.1).
fn check_host(head: &Parts) -> Result<(), Refusal> {
    let mut fields = head.headers.get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return bad_request("more than one Host");
    }
    let authority = head.uri.authority().map(|name| name.as_str().as_bytes());
    match (field.map(HeaderValue::as_bytes), authority) {
        (None, None) if head.version == Version::HTTP_10 => Ok(()),
        (None, Some(authority)) if head.version != Version::HTTP_11 => {
            if is_host(authority) {
                Ok(())
            } else {
                bad_request("invalid authority")
            }
        }
        (None, _) => bad_request("Host is missing"),
        (Some(field), _) if !is_host(field) => bad_request("invalid Host"),
        (Some(field), Some(authority)) if !same_host(head, authority, field) => {
            bad_request("Host and the authority of the request target differ")
        }
        (Some(_), _) => Ok(()),
    }
}

fn same_host(head: &Parts, one: &[u8], other: &[u8]) -> bool {
    let default_port: &[u8] = match head.uri.scheme_str() {
        Some("https") => b":443",
        _ => b":80",
    };
    let [one, other] = [one, other].map(|host| host.strip_suffix(default_port).unwrap_or(host));
    one.eq_ignore_ascii_case(other)
}

/// `uri-host [ ":" port ]` (RFC 9110 §7.2); neither empty nor with user information.
pub(super) fn is_host(text: &[u8]) -> bool {
    let (host_is_valid, port) = if let [b'[', literal @ ..] = text {
        let Some(end) = memchr(b']', literal) else {
            return false;
        };
        let (address, port) = literal.split_at(end);
        let address = str::from_utf8(address).ok();
        (
            address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
            port.get(1..).unwrap_or_default(),
        )
    } else {
        let (host, port) = text.split_at(memchr(b':', text).unwrap_or(text.len()));
        (is_registered_name(host), port)
    };
    let port_is_valid = match port {
        [] | [b':'] => true,
        [b':', digits @ ..] => {
            digits.iter().all(u8::is_ascii_digit)
                && str::from_utf8(digits).is_ok_and(|digits| digits.parse::<u16>().is_ok())
        }
        _ => false,
    };
    host_is_valid && port_is_valid
}

/// `reg-name` (RFC 3986 §3.2.2); an IPv4 address is one, too.
fn is_registered_name(mut name: &[u8]) -> bool {
    if name.is_empty() {
        return false;
    }
    while let [first, rest @ ..] = name {
        name = match (first, rest) {
            (b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~', _) => rest,
            (b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=', _) => {
                rest
            }
            (b'%', [high, low, rest @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                rest
            }
            _ => return false,
        };
    }
    true
}

fn bad_request(reason: &'static str) -> Result<(), Refusal> {
    Err(refusal(StatusCode::BAD_REQUEST, reason))
}

fn refusal(status: StatusCode, reason: &'static str) -> Refusal {
    Refusal {
        status,
        reason,
        by: RefusedBy::Malformed,
        close: true,
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// What a connection comes to that sends these pieces: where it was refused and why.
    fn follow<'a>(
        tracker: &mut Tracker,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> Option<(usize, &'static str)> {
        let mut before = 0;
        for piece in pieces {
            match tracker.feed(piece) {
                Verdict::Fine => before += piece.len(),
                Verdict::Refuse { offset, reason, .. } => return Some((before + offset, reason)),
            }
        }
        None
    }

    fn refused(bytes: &[u8]) -> Option<&'static str> {
        follow(&mut Tracker::default(), [bytes].into_iter()).map(|(_, reason)| reason)
    }

    /// Complete requests, alone and behind each other.
    const VALID: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12\n\r\0GET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length:\t0 \r\n\r\nPOST / HTTP/1.1\r\nCONTENT-LENGTH:1\r\n\r\n1",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nA;x=\"y\"\r\n0\r\n\r\n\n\x00678\r\n0001\r\n1\r\n000\r\nA: 1\r\nB:\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Lengthy: 1\r\nContent-Length-2 : 1\r\nT: chunked\r\nUp: 1\r\n\r\n",
    ];

    /// Requests that are refused, and a part of the reason.
    const INVALID: &[(&[u8], &str)] = &[
        (b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", "empty line"),
        (b"\nGET / HTTP/1.1\r\n\r\n", "LF without"),
        (b"\rGET / HTTP/1.1\r\n\r\n", "CR without"),
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", "LF without"),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", "LF without"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n", "LF without"),
        (b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", "CR without"),
        (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", "CR without"),
        (b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", "NUL"),
        (b"GET /#a HTTP/1.1\r\n\r\n", "fragment"),
        (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", "folded header"),
        (b"GET / HTTP/1.1\r\n\tA: b\r\n\r\n", "folded header"),
        (
            b"POST / HTTP/1.1\r\nContent-Length : 1\r\n\r\n1",
            "white space before",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding\t: chunked\r\n\r\n",
            "white space before",
        ),
        (
            b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n1",
            "more than one Content-Length",
        ),
        (
            b"POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n1",
            "invalid Content-Length",
        ),
        (
            b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n1",
            "invalid Content-Length",
        ),
        (
            b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n1",
            "invalid Content-Length",
        ),
        (
            b"POST / HTTP/1.1\r\nContent-Length: 0x1\r\n\r\n1",
            "invalid Content-Length",
        ),
        (
            b"POST / HTTP/1.1\r\nContent-Length: 1 1\r\n\r\n1",
            "invalid Content-Length",
        ),
        (
            b"POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
            "invalid Content-Length",
        ),
        (
            b"POST / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n",
            "invalid Content-Length",
        ),
        (
            b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "beside",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            "beside",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "other than chunked",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            "other than chunked",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked;q=1\r\n\r\n",
            "other than chunked",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "other than chunked",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
            "other than chunked",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n",
            "other than chunked",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "more than one Transfer",
        ),
        (
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.0",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
            "without its size",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n;a\r\n",
            "without its size",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n 1\r\n",
            "without its size",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\n",
            "without its size",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n",
            "invalid chunk size",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\n",
            "invalid chunk size",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1 ;a\r\n",
            "invalid chunk size",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\n",
            "invalid chunk size",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000001\r\n",
            "too large",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a\n",
            "control character",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a\0\r\n",
            "control character",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a\rb\r\n",
            "CR without",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r1\r\n",
            "CR without",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n123\r\n",
            "longer than its size",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\n",
            "longer than its size",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\n\r\n",
            "LF without",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\rc\r\n",
            "CR without",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: \0\r\n",
            "NUL",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n a: b\r\n",
            "folded trailer",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n b\r\n",
            "folded trailer",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\rGET / HTTP/1.1\r\n\r\n",
            "CR without",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\nGET / HTTP/1.1\r\n\r\n",
            "LF without",
        ),
    ];

    #[test]
    fn what_the_standards_allow_passes_and_ends_between_two_requests() {
        for bytes in VALID {
            let mut tracker = Tracker::default();
            assert_eq!(
                follow(&mut tracker, [*bytes].into_iter()),
                None,
                "{}",
                bytes.escape_ascii()
            );
            assert_eq!(tracker.state, State::Idle, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn what_two_readers_could_understand_differently_is_refused() {
        for (bytes, expected) in INVALID {
            let reason = refused(bytes).unwrap_or("nothing");
            assert!(
                reason.contains(expected),
                "{}: {reason}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn the_verdict_does_not_depend_on_how_the_bytes_are_split() {
        let invalid = INVALID.iter().map(|(bytes, _)| *bytes);
        for bytes in VALID.iter().copied().chain(invalid) {
            let mut whole = Tracker::default();
            let verdict = follow(&mut whole, [bytes].into_iter());
            for size in 1..bytes.len() {
                let mut pieces = Tracker::default();
                assert_eq!(
                    follow(&mut pieces, bytes.chunks(size)),
                    verdict,
                    "in pieces of {size}: {}",
                    bytes.escape_ascii()
                );
                assert_eq!(pieces.state, whole.state);
                let (start, end) = bytes.split_at(size);
                let mut halves = Tracker::default();
                assert_eq!(
                    follow(&mut halves, [start, end].into_iter()),
                    verdict,
                    "split at {size}: {}",
                    bytes.escape_ascii()
                );
                assert_eq!(halves.state, whole.state);
            }
        }
    }

    /// hyper answers 400 to a head that it sees with a NUL in it; a head that is complete it would serve.
    #[test]
    fn hyper_never_sees_the_end_of_a_head_that_is_refused() {
        for (bytes, _) in INVALID {
            let mut tracker = Tracker::default();
            if let Verdict::Refuse { offset, part, .. } = tracker.feed(bytes) {
                let seen = &bytes[..offset];
                let head_is_complete = seen.windows(4).any(|window| window == b"\r\n\r\n");
                assert_eq!(
                    head_is_complete,
                    part == Part::Body,
                    "{}",
                    bytes.escape_ascii()
                );
            }
        }
    }

    #[test]
    fn an_extension_may_be_as_long_as_its_limit() {
        let request = |length| {
            format!(
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0;{}\r\n\r\n",
                "a".repeat(length)
            )
        };
        let limit = usize::from(EXTENSION_LIMIT);
        assert_eq!(refused(request(limit).as_bytes()), None);
        assert_eq!(
            refused(request(limit + 1).as_bytes()),
            Some("a chunk extension that is too long")
        );
    }

    #[test]
    fn the_parts_of_a_request_are_told_apart_for_timeouts() {
        let mut tracker = Tracker::default();
        for (bytes, in_head, in_body) in [
            (b"\r\n".as_slice(), false, false),
            (b"POST / HTTP/1.1\r", true, false),
            (b"\nContent-Length: 2\r\n\r", true, false),
            (b"\n", false, true),
            (b"1", false, true),
            (b"2", false, false),
            (
                b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                false,
                true,
            ),
            (b"0\r\n\r", false, true),
            (b"\n", false, false),
        ] {
            assert_eq!(tracker.feed(bytes), Verdict::Fine);
            assert_eq!(
                (tracker.in_head(), tracker.in_body()),
                (in_head, in_body),
                "{}",
                bytes.escape_ascii()
            );
        }
    }

    const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nConnection: upgrade\r\nupgrade: websocket\r\n\r\n";

    #[test]
    fn bytes_behind_a_request_to_upgrade_wait_for_its_answer() {
        let mut tracker = Tracker::default();
        assert_eq!(tracker.feed(UPGRADE), Verdict::Fine);
        assert!(tracker.upgrade_pending());
        let early = tracker.feed(b"\x81\x80");
        assert!(matches!(early, Verdict::Refuse { offset: 0, .. }));
    }

    #[test]
    fn requests_go_on_when_the_upgrade_was_declined() {
        let mut tracker = Tracker::default();
        assert_eq!(tracker.feed(UPGRADE), Verdict::Fine);
        tracker.resume();
        assert!(!tracker.upgrade_pending());
        assert_eq!(tracker.feed(VALID[0]), Verdict::Fine);
        assert!(!tracker.upgrade_pending());
    }

    #[test]
    fn memory_is_given_back_when_a_head_that_came_in_pieces_is_complete() {
        let mut tracker = Tracker::default();
        tracker.feed(b"GET / HTTP/1.1\r\nA: ");
        tracker.feed(&[b'a'; 10_000]);
        assert!(tracker.line.capacity() >= 10_000);
        tracker.feed(b"\r\n\r\n");
        assert_eq!(tracker.line.capacity(), 0);
    }

    fn parts(version: Version, method: &str, target: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder()
            .version(version)
            .method(method)
            .uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn status(head: &Parts) -> u16 {
        check(head).map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn the_head_names_one_host_and_a_path() {
        const HOST: (&str, &str) = ("host", "a");
        for (expected, method, target, fields) in [
            (200, "GET", "/", &[HOST] as &[_]),
            (200, "GET", "/a%20b?c=%23", &[HOST]),
            (200, "GET", "//a", &[HOST]),
            (200, "OPTIONS", "*", &[HOST]),
            (200, "GET", "http://a/b", &[HOST]),
            (200, "GET", "http://A:80/b", &[HOST]),
            (200, "GET", "https://a/b", &[("host", "a:443")]),
            (200, "GET", "http://a?b", &[HOST]),
            (200, "POST", "/", &[HOST, ("expect", "100-Continue")]),
            (400, "GET", "/", &[]),
            (400, "GET", "/", &[HOST, HOST]),
            (400, "GET", "/", &[("host", "")]),
            (400, "GET", "/", &[("host", "a b")]),
            (400, "GET", "http://b/", &[HOST]),
            (400, "GET", "http://a:8080/", &[HOST]),
            (400, "GET", "http://u@a/", &[HOST]),
            (400, "GET", "http://a/", &[]),
            (400, "GET", "ftp://a/", &[HOST]),
            (400, "GET", "a", &[HOST]),
            (400, "GET", "a:80", &[HOST]),
            (400, "GET", "*", &[HOST]),
            (400, "GET", "/\u{e4}", &[HOST]),
            (400, "GET", "/?\u{e4}", &[HOST]),
            (417, "POST", "/", &[HOST, ("expect", "200-ok")]),
            (
                417,
                "POST",
                "/",
                &[HOST, ("expect", "100-continue"), ("expect", "x")],
            ),
            (501, "CONNECT", "a:80", &[HOST]),
        ] {
            let head = parts(Version::HTTP_11, method, target, fields);
            assert_eq!(status(&head), expected, "{method} {target} {fields:?}");
        }
    }

    #[test]
    fn http_1_0_may_leave_the_host_out() {
        for (expected, target, fields) in [
            (200, "/", &[] as &[_]),
            (200, "/", &[("host", "a")]),
            (200, "http://a/", &[]),
            (400, "http://u@a/", &[]),
            (400, "/", &[("host", "a"), ("host", "a")]),
        ] {
            let head = parts(Version::HTTP_10, "GET", target, fields);
            assert_eq!(status(&head), expected, "{target} {fields:?}");
        }
    }

    #[test]
    fn http_2_names_its_host_in_the_authority() {
        for (expected, method, target, fields) in [
            (200, "GET", "https://a/", &[] as &[_]),
            (200, "GET", "https://a/", &[("host", "a")]),
            (200, "GET", "/", &[("host", "a")]),
            (400, "GET", "https://a/", &[("host", "b")]),
            (400, "GET", "https://u@a/", &[]),
            (400, "GET", "/", &[]),
            (501, "CONNECT", "https://a/", &[]),
        ] {
            let head = parts(Version::HTTP_2, method, target, fields);
            assert_eq!(status(&head), expected, "{method} {target} {fields:?}");
        }
    }

    #[test]
    fn extended_connect_is_for_websockets_only() {
        for (expected, protocol) in [(200, "websocket"), (501, "connect-udp")] {
            let mut head = parts(Version::HTTP_2, "CONNECT", "https://a/", &[]);
            let protocol = hyper::ext::Protocol::from_static(protocol);
            head.extensions.insert(protocol);
            assert_eq!(status(&head), expected);
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_a_port_or_none() {
        for valid in [
            "a",
            "a.b-c_d~",
            "A:1",
            "a:",
            "a:65535",
            "127.0.0.1:80",
            "[::1]",
            "[2001:db8::1]:80",
            "%41",
            "a!$&'()*+,;=",
        ] {
            assert!(is_host(valid.as_bytes()), "{valid}");
        }
        for invalid in [
            "",
            ":80",
            "a b",
            "a:b",
            "a:65536",
            "a:+1",
            "a:1:2",
            "a/b",
            "a?b",
            "a#b",
            "u@a",
            "a@",
            "a\\b",
            "a\"",
            "a<",
            "a%4",
            "a%zz",
            "[::1",
            "::1",
            "[::1]a",
            "[::1]:a",
            "[v1.a]",
            "[fe80::1%25a]",
            "[]",
            "\u{e4}",
            "a\u{7f}",
        ] {
            assert!(!is_host(invalid.as_bytes()), "{invalid}");
        }
    }
}
