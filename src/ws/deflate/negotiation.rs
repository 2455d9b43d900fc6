//! Which of the client's offers is accepted, and with which parameters (RFC 7692 §5 and §7.1).

use http::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_EXTENSIONS};

/// The extension as it was agreed upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ws) struct Extension {
    /// What `server_max_window_bits` asks for: the window that we compress with has at most
    /// 2^this bytes.
    server_bits: Option<u8>,
}

/// zlib's raw deflate has no window of 256 bytes: it would use one of 512, which the client could not
/// undo.
const LEAST_BITS: u8 = 9;
pub(super) const MOST_BITS: u8 = 15;

/// The first offer of permessage-deflate that can be met, over all header lines.
///
/// An offer that is malformed, or asks for what is not known or not possible, is passed over; the
/// handshake goes on without it (RFC 7692 §5.1).
pub(in crate::ws) fn negotiate(headers: &HeaderMap) -> Option<Extension> {
    headers
        .get_all(SEC_WEBSOCKET_EXTENSIONS)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| split(line, ','))
        .find_map(accept)
}

impl Extension {
    pub(super) fn window_bits(self) -> u8 {
        self.server_bits.unwrap_or(MOST_BITS)
    }

    /// The answer to the offer.
    pub(in crate::ws) fn answer(self) -> HeaderValue {
        const ANSWER: &str =
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        match self.server_bits {
            None => HeaderValue::from_static(ANSWER),
            Some(bits) => {
                HeaderValue::from_maybe_shared(format!("{ANSWER}; server_max_window_bits={bits}"))
                    .expect("letters, digits and signs")
            }
        }
    }
}

/// Reads one offer: its name and its parameters, each at most once.
fn accept(offer: &str) -> Option<Extension> {
    let mut parts = split(offer, ';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case("permessage-deflate") {
        return None;
    }
    let mut extension = Extension { server_bits: None };
    let mut seen = Vec::new();
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(unquote(value.trim_start())?)),
            None => (part, None),
        };
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        match (name, value) {
            // Whatever the client compresses with: the window that inflates it is the largest there is.
            (
                "server_no_context_takeover"
                | "client_no_context_takeover"
                | "client_max_window_bits",
                None,
            ) => {}
            ("client_max_window_bits", Some(value)) => {
                window_bits(&value)?;
            }
            ("server_max_window_bits", Some(value)) => {
                extension.server_bits =
                    Some(window_bits(&value).filter(|bits| *bits >= LEAST_BITS)?);
            }
            _ => return None,
        }
    }
    Some(extension)
}

/// 8 to 15, without leading zeros (RFC 7692 §7.1.2).
fn window_bits(value: &str) -> Option<u8> {
    let bits = value.parse().ok()?;
    ((8..=MOST_BITS).contains(&bits) && value == bits.to_string()).then_some(bits)
}

/// The parts between `separator`s, of which those in quoted strings are none.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |char| {
        if escaped {
            escaped = false;
        } else if quoted && char == '\\' {
            escaped = true;
        } else if char == '"' {
            quoted = !quoted;
        }
        char == separator && !quoted
    })
}

/// The content of a token or of a quoted string (RFC 6455 §9.1).
fn unquote(value: &str) -> Option<String> {
    let Some(quoted) = value.strip_prefix('"') else {
        return Some(value.to_owned());
    };
    let mut content = String::new();
    let mut chars = quoted.strip_suffix('"')?.chars();
    while let Some(char) = chars.next() {
        content.push(match char {
            '\\' => chars.next()?,
            '"' => return None,
            char => char,
        });
    }
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(lines: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(line));
        }
        let answer = negotiate(&headers)?.answer();
        Some(answer.to_str().unwrap().to_owned())
    }

    const PLAIN: Option<&str> =
        Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover");

    const WITH_10: Option<&str> = Some(
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
         server_max_window_bits=10",
    );

    #[test]
    fn an_offer_is_accepted_or_passed_over_as_the_rfc_says() {
        let cases: [(&[&'static str], Option<&str>); 45] = [
            (&[], None),
            (&[""], None),
            (&["permessage-deflate"], PLAIN),
            (&["Permessage-Deflate"], PLAIN),
            (&["x-webkit-deflate-frame"], None),
            (&["permessage-deflate; client_max_window_bits"], PLAIN),
            (&["permessage-deflate;client_max_window_bits=15"], PLAIN),
            (&["permessage-deflate; client_max_window_bits=8"], PLAIN),
            (&["permessage-deflate; client_max_window_bits=\"9\""], PLAIN),
            (&["permessage-deflate; client_max_window_bits=7"], None),
            (&["permessage-deflate; client_max_window_bits=16"], None),
            (&["permessage-deflate; client_max_window_bits="], None),
            (&["permessage-deflate; client_max_window_bits=ten"], None),
            (&["permessage-deflate; client_no_context_takeover"], PLAIN),
            (&["permessage-deflate; server_no_context_takeover"], PLAIN),
            (
                &["permessage-deflate; client_no_context_takeover; server_no_context_takeover"],
                PLAIN,
            ),
            (
                &["permessage-deflate; server_no_context_takeover=true"],
                None,
            ),
            (&["permessage-deflate; client_no_context_takeover=1"], None),
            (&["permessage-deflate; server_max_window_bits=10"], WITH_10),
            (
                &["permessage-deflate ; server_max_window_bits = 10"],
                WITH_10,
            ),
            (
                &["permessage-deflate; server_max_window_bits=\"10\""],
                WITH_10,
            ),
            (
                &["permessage-deflate; server_max_window_bits=\"1\\0\""],
                WITH_10,
            ),
            (&["permessage-deflate; server_max_window_bits"], None),
            (&["permessage-deflate; server_max_window_bits=8"], None),
            (&["permessage-deflate; server_max_window_bits=7"], None),
            (&["permessage-deflate; server_max_window_bits=16"], None),
            (&["permessage-deflate; server_max_window_bits=010"], None),
            (&["permessage-deflate; server_max_window_bits=+10"], None),
            (&["permessage-deflate; server_max_window_bits=-1"], None),
            (&["permessage-deflate; server_max_window_bits=300"], None),
            (&["permessage-deflate; server_max_window_bits=\"10"], None),
            (&["permessage-deflate; server_max_window_bits=10\""], None),
            (
                &["permessage-deflate; server_max_window_bits=\"1\"0\""],
                None,
            ),
            (&["permessage-deflate; unknown"], None),
            (&["permessage-deflate; Client_Max_Window_Bits"], None),
            (&["permessage-deflate;"], None),
            (&["permessage-deflate; ; client_max_window_bits"], None),
            (
                &["permessage-deflate; client_max_window_bits; client_max_window_bits"],
                None,
            ),
            (
                &[
                    "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
                    "permessage-deflate",
                ],
                PLAIN,
            ),
            (
                &["permessage-deflate; server_max_window_bits=10, permessage-deflate"],
                WITH_10,
            ),
            (
                &["permessage-deflate; server_max_window_bits=8, permessage-deflate"],
                PLAIN,
            ),
            (
                &["permessage-deflate; unknown", "x, permessage-deflate"],
                PLAIN,
            ),
            (
                &["x; y=\"a, permessage-deflate\", permessage-deflate; server_max_window_bits=10"],
                WITH_10,
            ),
            (&["x; y=\"\\\", permessage-deflate\""], None),
            (&["x; y=\"never closed, permessage-deflate"], None),
        ];
        for (lines, expected) in cases {
            assert_eq!(answer(lines).as_deref(), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_line_that_is_no_text_is_passed_over() {
        let mut headers = HeaderMap::new();
        let name = SEC_WEBSOCKET_EXTENSIONS;
        headers.append(
            &name,
            HeaderValue::from_bytes(b"permessage-deflate\xff").unwrap(),
        );
        assert_eq!(negotiate(&headers), None);
        headers.append(&name, HeaderValue::from_static("permessage-deflate"));
        assert_eq!(negotiate(&headers), Some(Extension { server_bits: None }));
    }
}
