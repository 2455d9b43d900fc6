//! The opening handshake: who may upgrade, and how an application answers.
//!
//! The client's part is checked before the application sees it (RFC 6455 §4.2.1). The application's
//! part is checked when it accepts, because a subprotocol that was not offered or a second
//! `Upgrade` field fails in the client, where nobody sees why.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Version};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::deflate::{Extension, negotiate};
use super::pump;
use super::socket::{Close, Receiver, Sender, channel};
use crate::app::{Request, Response};
use crate::body::Body;
use crate::config::Limits;
use crate::drain::Drain;
use crate::http::Control;

/// Whether a request asks for a WebSocket: `Upgrade: websocket` with `Connection: upgrade` on HTTP/1.1
/// (RFC 6455 §4.2.1), extended CONNECT with `:protocol = websocket` on HTTP/2 (RFC 8441 §4).
pub fn wants_websocket(head: &Parts) -> bool {
    match head.version {
        Version::HTTP_11 => {
            head.method == Method::GET
                && tokens(&head.headers, &UPGRADE).any(|token| is(token, "websocket"))
                && tokens(&head.headers, &CONNECTION).any(|token| is(token, "upgrade"))
        }
        Version::HTTP_2 => {
            let protocol = head.extensions.get::<Protocol>();
            head.method == Method::CONNECT
                && protocol.is_some_and(|protocol| is(protocol.as_str(), "websocket"))
        }
        _ => false,
    }
}

fn is(token: &str, word: &str) -> bool {
    token.eq_ignore_ascii_case(word)
}

/// The members of a comma-separated list over all its header lines, in order (RFC 9110 §5.6.1).
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        // What is not ASCII is no token, but must not vanish as if it had not been there.
        .map(|value| value.to_str().unwrap_or("\u{fffd}"))
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

/// A WebSocket handshake that waits for its application's answer.
///
/// Dropping it unanswered leaves the client with 500.
#[derive(Debug)]
pub struct Handshake {
    /// The request; its body is empty.
    pub request: Box<Request>,
    subprotocols: Vec<String>,
    /// `None` once it has been answered.
    pending: Option<Pending>,
    limits: Limits,
    drain: Drain,
}

#[derive(Debug)]
struct Pending {
    answer: oneshot::Sender<Response>,
    upgrade: OnUpgrade,
}

/// Why an answer was not given; the handshake waits on, unless it was answered or the client has gone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    #[error("the handshake has been answered already")]
    Answered,
    #[error("the client has disconnected")]
    Disconnected,
    #[error("subprotocol `{chosen}` was not offered; the client offered {}", list(.offered))]
    Subprotocol {
        chosen: String,
        offered: Vec<String>,
    },
    #[error("header `{name}` belongs to the server{}", hint(.name))]
    Header { name: HeaderName },
    #[error("status {0} cannot deny a handshake; 300 and above can")]
    Status(StatusCode),
}

fn list(offered: &[String]) -> String {
    if offered.is_empty() {
        "none".into()
    } else {
        offered.join(", ")
    }
}

fn hint(name: &HeaderName) -> &'static str {
    if *name == SEC_WEBSOCKET_PROTOCOL {
        "; pass `subprotocol` instead"
    } else {
        ""
    }
}

impl Handshake {
    /// Checks the handshake; the receiver gets the response that the client is sent.
    ///
    /// # Errors
    /// The response (400 or 426) to a handshake that no application should see.
    pub fn new(
        mut request: Box<Request>,
        limits: &Limits,
        drain: &Drain,
    ) -> Result<(Self, oneshot::Receiver<Response>), Box<Response>> {
        let subprotocols = check(&request.head, &request.body)?;
        let Some(upgrade) = request.head.extensions.remove::<OnUpgrade>() else {
            return Err(bad_request("this connection cannot be upgraded"));
        };
        let (answer, receiver) = oneshot::channel();
        let handshake = Self {
            request,
            subprotocols,
            pending: Some(Pending { answer, upgrade }),
            limits: *limits,
            drain: drain.clone(),
        };
        Ok((handshake, receiver))
    }

    /// What the client offers, in its order of preference.
    pub fn subprotocols(&self) -> &[String] {
        &self.subprotocols
    }

    /// Ready once the client has left without waiting for the answer, or when it has been answered.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.pending {
            Some(pending) => pending.answer.poll_closed(cx),
            None => Poll::Ready(()),
        }
    }

    /// Accepts with 101 (200 on HTTP/2); the connection is open for the application at once, and what
    /// it sends waits for the client.
    pub fn accept(
        &mut self,
        subprotocol: Option<&str>,
        headers: HeaderMap,
    ) -> Result<(Sender, Receiver), AnswerError> {
        let head = &self.request.head;
        let extension = if self.limits.websocket_compression {
            negotiate(&head.headers)
        } else {
            None
        };
        let response = acceptance(head, &self.subprotocols, subprotocol, extension, headers)?;
        let control = self.request.head.extensions.get::<Arc<Control>>().cloned();
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(control) = &control
        {
            control.upgraded();
        }
        let upgrade = self.answer(response)?;
        let (sender, receiver, link) = channel(self.limits.websocket_queue);
        let (limits, drain) = (self.limits, self.drain.clone());
        self.drain.spawn(async move {
            // Under its WebSockets an HTTP/2 connection is not idle.
            if let Some(control) = &control {
                control.request_began();
            }
            match upgrade.await {
                Ok(upgraded) => {
                    let stream = TokioIo::new(upgraded);
                    pump::run(stream, extension, link, limits, drain).await;
                }
                // The connection was lost under the response.
                Err(_) => link.end(Close::LOST),
            }
            if let Some(control) = &control {
                control.request_ended(Instant::now());
            }
        });
        Ok((sender, receiver))
    }

    /// Denies with a response; the ASGI default is an empty 403.
    pub fn deny(&mut self, response: Response) -> Result<(), AnswerError> {
        Self::check_denial(response.status())?;
        self.answer(response)?;
        Ok(())
    }

    /// Whether a status denies: 101 would upgrade, and so would a success on HTTP/2 (RFC 8441 §5).
    pub fn check_denial(status: StatusCode) -> Result<(), AnswerError> {
        if status.as_u16() < 300 {
            return Err(AnswerError::Status(status));
        }
        Ok(())
    }

    fn answer(&mut self, response: Response) -> Result<OnUpgrade, AnswerError> {
        let Pending { answer, upgrade } = self.pending.take().ok_or(AnswerError::Answered)?;
        match answer.send(response) {
            Ok(()) => Ok(upgrade),
            Err(_unsent) => Err(AnswerError::Disconnected),
        }
    }
}

/// The server's part of the handshake (RFC 6455 §4.2.2, RFC 8441 §5).
fn acceptance(
    head: &Parts,
    offered: &[String],
    subprotocol: Option<&str>,
    extension: Option<Extension>,
    mut headers: HeaderMap,
) -> Result<Response, AnswerError> {
    if let Some(name) = headers.keys().find(|name| is_reserved(name)) {
        return Err(AnswerError::Header { name: name.clone() });
    }
    if let Some(chosen) = subprotocol {
        let value = HeaderValue::from_str(chosen).ok();
        match value.filter(|_| offered.iter().any(|known| known == chosen)) {
            Some(value) => headers.insert(SEC_WEBSOCKET_PROTOCOL, value),
            None => {
                return Err(AnswerError::Subprotocol {
                    chosen: chosen.to_owned(),
                    offered: offered.to_vec(),
                });
            }
        };
    }
    if let Some(extension) = extension {
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, extension.answer());
    }
    let mut response = Response::new(Body::empty());
    if head.version == Version::HTTP_11 {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        if let Some(key) = head.headers.get(SEC_WEBSOCKET_KEY)
            && let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
    }
    *response.headers_mut() = headers;
    Ok(response)
}

/// Fields that the handshake itself consists of, and those that frame an HTTP message.
fn is_reserved(name: &HeaderName) -> bool {
    name.as_str().starts_with("sec-websocket-")
        || [
            CONNECTION,
            CONTENT_LENGTH,
            TE,
            TRAILER,
            TRANSFER_ENCODING,
            UPGRADE,
        ]
        .contains(name)
}

/// The client's part of the handshake (RFC 6455 §4.2.1, RFC 8441 §5); gives the offered subprotocols.
fn check(head: &Parts, body: &Body) -> Result<Vec<String>, Box<Response>> {
    let Parts {
        headers, version, ..
    } = head;
    if !body.is_finished() {
        return Err(bad_request("a WebSocket handshake has no body"));
    }
    if single(headers, &SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(wrong_version(*version));
    }
    if *version == Version::HTTP_11 {
        let key = single(headers, &SEC_WEBSOCKET_KEY).unwrap_or_default();
        if !is_key(key) {
            let problem = "Sec-WebSocket-Key is not 16 bytes of base64";
            return Err(bad_request(problem));
        }
    }
    let mut offered = Vec::new();
    for token in tokens(headers, &SEC_WEBSOCKET_PROTOCOL) {
        if !is_token(token) || offered.iter().any(|known| known == token) {
            let problem = "Sec-WebSocket-Protocol is not a list of different tokens";
            return Err(bad_request(problem));
        }
        offered.push(token.to_owned());
    }
    Ok(offered)
}

/// The value of a field that occurs exactly once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    value.to_str().ok().map(str::trim)
}

/// 16 bytes of base64 are 22 digits and two signs of padding.
fn is_key(key: &str) -> bool {
    key.len() == 24
        && key.strip_suffix("==").is_some_and(|digits| {
            digits
                .bytes()
                .all(|digit| digit.is_ascii_alphanumeric() || digit == b'+' || digit == b'/')
        })
}

/// RFC 9110 §5.6.2.
fn is_token(token: &str) -> bool {
    !token.is_empty()
        && token
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn bad_request(problem: &'static str) -> Box<Response> {
    refusal(StatusCode::BAD_REQUEST, problem)
}

/// RFC 6455 §4.2.2: the client is told which version there is.
fn wrong_version(version: Version) -> Box<Response> {
    let problem = "only version 13 of the WebSocket protocol is spoken here";
    let mut response = if version == Version::HTTP_11 {
        let mut response = refusal(StatusCode::UPGRADE_REQUIRED, problem);
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        response
    } else {
        // HTTP/2 knows no Upgrade field (RFC 9113 §8.6).
        bad_request(problem)
    };
    let supported = HeaderValue::from_static("13");
    response
        .headers_mut()
        .insert(SEC_WEBSOCKET_VERSION, supported);
    response
}

fn refusal(status: StatusCode, problem: &'static str) -> Box<Response> {
    let mut response = Response::new(Body::from(format!("{problem}\n")));
    *response.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, text);
    Box::new(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use http::header::{COOKIE, SET_COOKIE};

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn head(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn handshake(more: &[(&str, &str)]) -> Parts {
        let mut headers = vec![("sec-websocket-key", KEY), ("sec-websocket-version", "13")];
        headers.extend(more);
        head(&headers)
    }

    fn offers(head: &Parts) -> Result<Vec<String>, StatusCode> {
        check(head, &Body::empty()).map_err(|response| response.status())
    }

    #[test]
    fn an_upgrade_is_recognized_by_its_tokens_in_any_case_and_over_several_lines() {
        let cases: [(&[(&str, &str)], bool); 9] = [
            (&[("connection", "Upgrade"), ("upgrade", "websocket")], true),
            (
                &[
                    ("connection", "keep-alive, Upgrade"),
                    ("upgrade", "WebSocket"),
                ],
                true,
            ),
            (&[("connection", "UPGRADE"), ("upgrade", "WEBSOCKET")], true),
            (
                &[
                    ("connection", "keep-alive"),
                    ("connection", "upgrade"),
                    ("upgrade", "websocket"),
                ],
                true,
            ),
            (
                &[("connection", "upgrade"), ("upgrade", "h2c, websocket")],
                true,
            ),
            (
                &[("connection", "keep-alive"), ("upgrade", "websocket")],
                false,
            ),
            (&[("upgrade", "websocket")], false),
            (&[("connection", "upgrade"), ("upgrade", "h2c")], false),
            (
                &[("connection", "upgraded"), ("upgrade", "websocket")],
                false,
            ),
        ];
        for (headers, expected) in cases {
            assert_eq!(wants_websocket(&head(headers)), expected, "{headers:?}");
        }
    }

    #[test]
    fn an_upgrade_needs_get_and_a_version_that_knows_it() {
        let upgrade = || head(&[("connection", "upgrade"), ("upgrade", "websocket")]);
        let mut post = upgrade();
        post.method = Method::POST;
        assert!(!wants_websocket(&post));
        for version in [Version::HTTP_10, Version::HTTP_2] {
            let mut other = upgrade();
            other.version = version;
            assert!(!wants_websocket(&other), "{version:?}");
        }
    }

    #[test]
    fn extended_connect_asks_for_a_websocket_on_http2_only() {
        let mut connect = head(&[]);
        connect.method = Method::CONNECT;
        connect.version = Version::HTTP_2;
        assert!(!wants_websocket(&connect), "without a protocol");
        connect
            .extensions
            .insert(Protocol::from_static("websocket"));
        assert!(wants_websocket(&connect));
        connect.version = Version::HTTP_11;
        assert!(!wants_websocket(&connect), "HTTP/1.1");
        connect.version = Version::HTTP_2;
        connect
            .extensions
            .insert(Protocol::from_static("connect-ip"));
        assert!(!wants_websocket(&connect), "another protocol");
    }

    #[test]
    fn a_wrong_version_is_told_the_right_one() {
        for versions in [&[][..], &["12"], &["13", "13"], &["13, 8"], &["013"]] {
            let mut headers = vec![("sec-websocket-key", KEY)];
            headers.extend(
                versions
                    .iter()
                    .map(|&version| ("sec-websocket-version", version)),
            );
            let response = check(&head(&headers), &Body::empty()).unwrap_err();
            assert_eq!(response.status(), 426, "{versions:?}");
            assert_eq!(response.headers()[SEC_WEBSOCKET_VERSION], "13");
            assert_eq!(response.headers()[UPGRADE], "websocket");
            assert_eq!(response.headers()[CONNECTION], "Upgrade");
        }
    }

    #[test]
    fn a_key_is_16_bytes_of_base64_and_occurs_once() {
        let other = "AAAAAAAAAAAAAAAAAAAAAA==";
        let cases: [(&[&str], bool); 7] = [
            (&[KEY], true),
            (&[], false),
            (&[""], false),
            (&[KEY, other], false),
            (&["dGhlIHNhbXBsZSBub25jZQ"], false),
            (&["dGhlIHNhbXBsZSBub25jZTEy"], false),
            (&["dGhlIHNhbXBsZSBub25j*Q=="], false),
        ];
        for (keys, fine) in cases {
            let mut headers = vec![("sec-websocket-version", "13")];
            headers.extend(keys.iter().map(|&key| ("sec-websocket-key", key)));
            let expected = if fine {
                Ok(vec![])
            } else {
                Err(StatusCode::BAD_REQUEST)
            };
            assert_eq!(offers(&head(&headers)), expected, "{keys:?}");
        }
    }

    #[test]
    fn http2_needs_no_key_and_no_upgrade() {
        let mut connect = head(&[("sec-websocket-version", "13")]);
        connect.version = Version::HTTP_2;
        assert_eq!(offers(&connect), Ok(vec![]));
        connect.headers.remove(SEC_WEBSOCKET_VERSION);
        let response = check(&connect, &Body::empty()).unwrap_err();
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()[SEC_WEBSOCKET_VERSION], "13");
        assert!(!response.headers().contains_key(UPGRADE));
    }

    #[test]
    fn a_handshake_with_a_body_is_refused() {
        let response = check(&handshake(&[]), &Body::from("body")).unwrap_err();
        assert_eq!(response.status(), 400);
    }

    #[test]
    fn subprotocols_keep_their_order_over_lines_and_lists() {
        let name = "sec-websocket-protocol";
        let lists: [(&[&str], &[&str]); 3] = [
            (&[], &[]),
            (
                &["v2.chat, v1.chat", "graphql"],
                &["v2.chat", "v1.chat", "graphql"],
            ),
            (&[" ,one,, two "], &["one", "two"]),
        ];
        let headers = |values: &[&'static str]| -> Vec<_> {
            values.iter().map(|&value| (name, value)).collect()
        };
        for (values, expected) in lists {
            let offered = offers(&handshake(&headers(values))).unwrap();
            assert_eq!(offered, expected, "{values:?}");
        }
        for values in [&["one", "one"][..], &["a b"], &["é"], &["a(b)"]] {
            let refused = offers(&handshake(&headers(values)));
            assert_eq!(refused, Err(StatusCode::BAD_REQUEST), "{values:?}");
        }
    }

    #[test]
    fn acceptance_proves_the_key_and_carries_the_applications_headers() {
        let offered = ["chat".to_owned()];
        let mut headers = HeaderMap::new();
        headers.append(SET_COOKIE, HeaderValue::from_static("a=1"));
        headers.append(SET_COOKIE, HeaderValue::from_static("b=2"));
        let response = acceptance(&handshake(&[]), &offered, Some("chat"), None, headers).unwrap();
        assert_eq!(response.status(), 101);
        // The example of RFC 6455 §1.3.
        let proof = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], proof);
        assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], "chat");
        let cookies: Vec<_> = response.headers().get_all(SET_COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
    }

    #[test]
    fn acceptance_on_http2_is_200_without_fields_of_http1() {
        let mut connect = handshake(&[]);
        connect.version = Version::HTTP_2;
        let response = acceptance(&connect, &[], None, None, HeaderMap::new()).unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.headers().is_empty());
    }

    #[test]
    fn acceptance_names_the_extension_on_http2_too() {
        let offer = ("sec-websocket-extensions", "permessage-deflate");
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let mut head = handshake(&[offer]);
            head.version = version;
            let extension = negotiate(&head.headers);
            let response = acceptance(&head, &[], None, extension, HeaderMap::new()).unwrap();
            assert_eq!(
                response.headers()[SEC_WEBSOCKET_EXTENSIONS],
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
            );
        }
    }

    #[test]
    fn a_subprotocol_that_was_not_offered_is_the_applications_error() {
        let offered = ["one".to_owned(), "two".to_owned()];
        for (offered, chosen, message) in [
            (
                &offered[..],
                "three",
                "subprotocol `three` was not offered; the client offered one, two",
            ),
            (
                &[],
                "one",
                "subprotocol `one` was not offered; the client offered none",
            ),
            (
                &offered[..],
                "",
                "subprotocol `` was not offered; the client offered one, two",
            ),
        ] {
            let error = acceptance(
                &handshake(&[]),
                offered,
                Some(chosen),
                None,
                HeaderMap::new(),
            );
            assert_eq!(error.unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn headers_that_would_break_the_handshake_are_the_applications_error() {
        let value = HeaderValue::from_static("x");
        for name in [
            "sec-websocket-accept",
            "sec-websocket-extensions",
            "sec-websocket-protocol",
            "connection",
            "upgrade",
            "content-length",
            "transfer-encoding",
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(name), value.clone());
            let error = acceptance(&handshake(&[]), &[], None, None, headers).unwrap_err();
            assert!(error.to_string().contains(name), "{name}: {error}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, value);
        assert!(acceptance(&handshake(&[]), &[], None, None, headers).is_ok());
    }
}
