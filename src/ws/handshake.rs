//! The opening handshake: who may upgrade, and how an application answers.

use http::HeaderMap;
use http::request::Parts;
use tokio::sync::oneshot;

use super::socket::WebSocket;
use crate::app::{Request, Response};
use crate::config::Limits;
use crate::drain::Drain;

/// Whether a request asks for a WebSocket: `Upgrade: websocket` with `Connection: upgrade` on HTTP/1.1
/// (RFC 6455 §4.2.1), extended CONNECT with `:protocol = websocket` on HTTP/2 (RFC 8441 §4).
pub fn wants_websocket(head: &Parts) -> bool {
    let _ = head;
    false
}

/// A WebSocket handshake that waits for its application's answer.
#[derive(Debug)]
pub struct Handshake {
    /// The request; its body is empty.
    pub request: Request,
    answer: oneshot::Sender<Response>,
}

/// The client went away before the handshake was complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client has disconnected")]
pub struct Refused;

impl Handshake {
    /// Checks the handshake; the receiver gets the response that the client is sent.
    ///
    /// # Errors
    /// The response (400 or 426) to a handshake that no application should see.
    pub fn new(
        request: Request,
        limits: &Limits,
        drain: &Drain,
    ) -> Result<(Self, oneshot::Receiver<Response>), Box<Response>> {
        let _ = (limits, drain);
        let (answer, receiver) = oneshot::channel();
        Ok((Self { request, answer }, receiver))
    }

    /// Accepts with 101 (200 on HTTP/2).
    pub async fn accept(
        self,
        subprotocol: Option<String>,
        headers: HeaderMap,
    ) -> Result<WebSocket, Refused> {
        let _ = (subprotocol, headers, self.answer);
        Err(Refused)
    }

    /// Denies with any response; the ASGI default is an empty 403.
    pub fn deny(self, response: Response) {
        let _ = self.answer.send(response);
    }
}
