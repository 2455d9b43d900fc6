//! Trailers: fields after the body of a response (RFC 9110 §6.5).

use http::HeaderMap;
use http::header::{self, HeaderName, TE, TRAILER};

/// Whether the client keeps trailers apart and hands them on, or its proxy does (RFC 9110 §10.1.4). Others
/// throw them away at best.
pub fn are_accepted(request: &HeaderMap) -> bool {
    request
        .get_all(TE)
        .iter()
        .any(|value| lists(value.as_bytes(), "trailers"))
}

/// Whether a response announces a field as one of its trailers. On HTTP/1.1 hyper sends no other.
pub fn is_announced(response: &HeaderMap, name: &HeaderName) -> bool {
    response
        .get_all(TRAILER)
        .iter()
        .any(|value| lists(value.as_bytes(), name.as_str()))
}

fn lists(value: &[u8], wanted: &str) -> bool {
    value.split(|&byte| byte == b',').any(|member| {
        // Weights are not defined for `trailers`, and ignored.
        let name = member.split(|&byte| byte == b';').next();
        name.is_some_and(|name| name.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
    })
}

/// Whether a field has no place after the body: it frames or routes the message, is about the connection,
/// credentials or cookies, or has to be known before the body can be dealt with (RFC 9110 §6.5.1).
pub fn is_forbidden(name: &HeaderName) -> bool {
    FORBIDDEN.contains(name)
}

const FORBIDDEN: [HeaderName; 32] = [
    header::AGE,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::DATE,
    header::EXPECT,
    header::EXPIRES,
    header::HOST,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    HeaderName::from_static("keep-alive"),
    header::LOCATION,
    header::MAX_FORWARDS,
    header::PRAGMA,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::RANGE,
    header::RETRY_AFTER,
    header::SET_COOKIE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::VARY,
    header::WWW_AUTHENTICATE,
];

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn fields(name: HeaderName, values: &[&'static str]) -> HeaderMap {
        let values = values.iter().map(|value| HeaderValue::from_static(value));
        values.map(|value| (name.clone(), value)).collect()
    }

    #[test]
    fn a_client_says_that_it_accepts_trailers() {
        for (values, accepted) in [
            (&["trailers"][..], true),
            (&["Trailers"], true),
            (&["gzip;q=0.5, trailers"], true),
            (&["trailers;q=1"], true),
            (&["gzip", "deflate,\ttrailers "], true),
            (&[], false),
            (&[""], false),
            (&["gzip"], false),
            (&["gzip;trailers"], false),
            (&["x-trailers"], false),
            (&["trailers x"], false),
        ] {
            assert_eq!(are_accepted(&fields(TE, values)), accepted, "{values:?}");
        }
    }

    #[test]
    fn a_response_announces_its_trailers_in_any_case_and_in_several_lines() {
        let response = fields(TRAILER, &["ETag", "x-one , X-Two"]);
        for (name, announced) in [
            ("etag", true),
            ("x-one", true),
            ("x-two", true),
            ("x-three", false),
            ("x", false),
        ] {
            let name = HeaderName::from_static(name);
            assert_eq!(is_announced(&response, &name), announced, "{name}");
        }
    }

    #[test]
    fn a_trailer_cannot_say_what_was_due_before_the_body() {
        for (name, forbidden) in [
            ("content-length", true),
            ("transfer-encoding", true),
            ("host", true),
            ("set-cookie", true),
            ("trailer", true),
            ("connection", true),
            ("etag", false),
            ("server-timing", false),
            ("grpc-status", false),
            ("content-digest", false),
        ] {
            assert_eq!(
                is_forbidden(&HeaderName::from_static(name)),
                forbidden,
                "{name}"
            );
        }
    }
}
