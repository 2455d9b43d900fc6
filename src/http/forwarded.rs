//! What proxies say of the client: `X-Forwarded-*` and `Forwarded` (RFC 7239), believed from trusted peers only.
//!
//! Every proxy appends the peer that it saw, so the list is read from its end: the first address that is no
//! trusted proxy itself is the client, and what stands before it is the client's own invention. Scheme and
//! host are taken from the same place of their lists; a list that is shorter was overwritten on the way, and
//! counts as far as it goes.
//!
//! Where a request has both kinds, `X-Forwarded-*` is read and `Forwarded` is not: most proxies write the
//! former and pass the latter through from whoever sent it. Applications find all of these fields as they
//! came; from a peer that is not trusted they are just fields.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::strict::is_host;
use crate::app::{ConnInfo, Origin, Scheme};
use crate::config::ForwardedConfig;

/// What a trusted proxy changed.
#[derive(Debug)]
pub struct Forwarded {
    pub origin: Origin,
    /// Public prefix that the proxy has cut off: `/a/b`.
    pub prefix: Option<String>,
}

/// Reads the forwarding fields if the peer is trusted; rewrites `Host` from what the proxy saw.
///
/// What is invalid is passed over: a proxy's mistake should not cost the request.
pub fn resolve(head: &mut Parts, conn: &ConnInfo, trusted: &ForwardedConfig) -> Forwarded {
    let mut origin = Origin {
        scheme: conn.scheme,
        client: conn.peer,
    };
    if !trusts_peer(trusted, conn) || !is_forwarded(&head.headers) {
        return Forwarded {
            origin,
            prefix: None,
        };
    }
    let prefix = prefix(&head.headers);
    let chain = Chain::read(&head.headers);
    let (client, depth) = chain.client(trusted);
    if client.is_some() {
        origin.client = client;
    }
    if let Some(scheme) = within(&chain.schemes, depth).and_then(scheme) {
        origin.scheme = scheme;
    }
    let host = within(&chain.hosts, depth)
        .filter(|host| is_host(host.as_bytes()))
        .and_then(|host| HeaderValue::from_str(host).ok());
    if let Some(host) = host {
        head.headers.insert(HOST, host);
    }
    Forwarded { origin, prefix }
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

fn trusts_peer(trusted: &ForwardedConfig, conn: &ConnInfo) -> bool {
    match conn.peer {
        Some(peer) => trusts(trusted, peer.ip()),
        None => trusted.unix || trusted.everyone,
    }
}

fn trusts(trusted: &ForwardedConfig, address: IpAddr) -> bool {
    // A socket for both families sees IPv4 peers as `::ffff:127.0.0.1`.
    let address = address.to_canonical();
    trusted.everyone
        || trusted
            .networks
            .iter()
            .any(|network| network.contains(&address))
}

/// One pass over the names: most requests from a trusted peer, a developer's, hold none of the fields.
fn is_forwarded(headers: &HeaderMap) -> bool {
    headers
        .keys()
        .any(|name| name.as_str().starts_with("x-forwarded-") || name == FORWARDED)
}

/// What the proxies on the way have said, the nearest first.
#[derive(Debug, Default)]
struct Chain<'a> {
    clients: Vec<Option<Cow<'a, str>>>,
    schemes: Vec<Option<Cow<'a, str>>>,
    hosts: Vec<Option<Cow<'a, str>>>,
}

impl<'a> Chain<'a> {
    fn read(headers: &'a HeaderMap) -> Self {
        let chain = Self {
            clients: list(headers, &X_FORWARDED_FOR),
            schemes: list(headers, &X_FORWARDED_PROTO),
            hosts: list(headers, &X_FORWARDED_HOST),
        };
        if chain.clients.is_empty() && chain.schemes.is_empty() && chain.hosts.is_empty() {
            return Self::read_standard(headers).unwrap_or_default();
        }
        chain
    }

    /// `Forwarded: for=192.0.2.60;proto=http;host=a, for="[2001:db8::1]:47011"`; `None` where one is malformed.
    fn read_standard(headers: &'a HeaderMap) -> Option<Self> {
        let mut chain = Self::default();
        for field in headers.get_all(FORWARDED) {
            let mut rest = field.to_str().ok()?;
            loop {
                let mut hop = [const { None }; 3];
                loop {
                    let (name, value, after) = pair(rest)?;
                    let known =
                        ["for", "proto", "host"].map(|known| name.eq_ignore_ascii_case(known));
                    for (slot, _) in hop.iter_mut().zip(known).filter(|(_, is_this)| *is_this) {
                        *slot = Some(value.clone());
                    }
                    rest = after;
                    match rest.strip_prefix(';') {
                        Some(after) => rest = after,
                        None => break,
                    }
                }
                let [client, scheme, host] = hop;
                chain.clients.push(client);
                chain.schemes.push(scheme);
                chain.hosts.push(host);
                match rest.strip_prefix(',') {
                    Some(after) => rest = after,
                    None if rest.is_empty() => break,
                    None => return None,
                }
            }
        }
        chain.clients.reverse();
        chain.schemes.reverse();
        chain.hosts.reverse();
        Some(chain)
    }

    /// The client, and how many proxies before the nearest one saw it.
    fn client(&self, trusted: &ForwardedConfig) -> (Option<SocketAddr>, usize) {
        let mut client = None;
        for (depth, hop) in self.clients.iter().enumerate() {
            // `unknown` and names that a proxy made up: it is the last whose address is known.
            let Some(address) = hop.as_deref().and_then(node) else {
                return (client, depth);
            };
            client = Some(address);
            if !trusts(trusted, address.ip()) {
                return (client, depth);
            }
        }
        (client, self.clients.len().saturating_sub(1))
    }
}

/// What the furthest of the hops up to `depth` has said.
fn within<'a>(list: &'a [Option<Cow<'a, str>>], depth: usize) -> Option<&'a str> {
    list.iter()
        .take(depth + 1)
        .flatten()
        .last()
        .map(|text| &**text)
}

/// The entries of a comma-separated field, over all of its lines, the last first.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<Option<Cow<'a, str>>> {
    let mut entries: Vec<_> = headers
        .get_all(name)
        .iter()
        .flat_map(|field| field.to_str().unwrap_or_default().split(','))
        .map(|entry| Some(Cow::Borrowed(entry.trim_ascii())))
        .collect();
    entries.reverse();
    entries
}

/// `name=value` (RFC 7239 §4), and what comes after it.
fn pair(text: &str) -> Option<(&str, Cow<'_, str>, &str)> {
    let (name, rest) = text.split_once('=')?;
    let name = name.trim_ascii();
    if name.is_empty() || !name.bytes().all(is_token) {
        return None;
    }
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest
            .bytes()
            .position(|byte| !is_token(byte) && byte != b':');
        let (value, rest) = rest.split_at(end.unwrap_or(rest.len()));
        return Some((name, value.into(), rest.trim_ascii_start()));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    loop {
        match characters.next()? {
            (end, '"') => {
                let rest = quoted.get(end + 1..).unwrap_or_default();
                return Some((name, value.into(), rest.trim_ascii_start()));
            }
            (_, '\\') => value.push(characters.next()?.1),
            (_, character) => value.push(character),
        }
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`; port 0 where none is named.
fn node(text: &str) -> Option<SocketAddr> {
    let (address, port) = if let Some(literal) = text.strip_prefix('[') {
        let (address, port) = literal.split_once(']')?;
        let address = IpAddr::V6(address.parse().ok()?);
        (address, port.strip_prefix(':'))
    } else if let Ok(address) = text.parse() {
        (address, None)
    } else {
        let (address, port) = text.split_once(':')?;
        (address.parse().ok()?, Some(port))
    };
    // RFC 7239 §6.3 lets a proxy make up a name for the port, too.
    let port = port.and_then(|port| port.parse().ok()).unwrap_or(0);
    Some(SocketAddr::new(address.to_canonical(), port))
}

fn scheme(text: &str) -> Option<Scheme> {
    let is = |name: &str| text.eq_ignore_ascii_case(name);
    if is("https") || is("wss") {
        Some(Scheme::Https)
    } else if is("http") || is("ws") {
        Some(Scheme::Http)
    } else {
        None
    }
}

/// All prefixes behind each other: the first proxy cut off what comes first.
fn prefix(headers: &HeaderMap) -> Option<String> {
    let mut prefix = String::new();
    for part in list(headers, &X_FORWARDED_PREFIX).iter().rev().flatten() {
        let part = part.strip_suffix('/').unwrap_or(part);
        if !is_prefix(part) {
            return None;
        }
        prefix.push_str(part);
    }
    (!prefix.is_empty()).then_some(prefix)
}

/// Empty, or segments that mean the same to every reader: links are built from it.
fn is_prefix(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=:@".contains(&byte);
    let mut segments = text.split('/');
    segments.next() == Some("")
        && segments.all(|segment| !matches!(segment, "" | "." | "..") && segment.bytes().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::LocalAddr;

    const PROXY: &str = "10.0.0.1:1234";

    fn trusted(networks: &[&str]) -> ForwardedConfig {
        ForwardedConfig {
            networks: networks
                .iter()
                .map(|network| network.parse().unwrap())
                .collect(),
            everyone: false,
            unix: false,
        }
    }

    fn conn(peer: Option<&str>) -> ConnInfo {
        ConnInfo {
            peer: peer.map(|peer| peer.parse().unwrap()),
            peer_uid: None,
            local: LocalAddr::Tcp("127.0.0.1:8000".parse().unwrap()),
            scheme: Scheme::Http,
        }
    }

    /// Scheme, client, host and prefix of a request with these fields.
    fn seen(
        conn: &ConnInfo,
        trusted: &ForwardedConfig,
        fields: &[(&str, &str)],
    ) -> (&'static str, Option<String>, String, Option<String>) {
        let mut request = http::Request::builder().header(HOST, "inner");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut head = request.body(()).unwrap().into_parts().0;
        let forwarded = resolve(&mut head, conn, trusted);
        assert_eq!(head.headers.get_all(HOST).iter().count(), 1);
        (
            forwarded.origin.scheme.as_str(),
            forwarded.origin.client.map(|client| client.to_string()),
            head.headers[HOST].to_str().unwrap().to_owned(),
            forwarded.prefix,
        )
    }

    fn through_proxy(
        fields: &[(&str, &str)],
    ) -> (&'static str, Option<String>, String, Option<String>) {
        seen(
            &conn(Some(PROXY)),
            &trusted(&["10.0.0.0/8", "fd00::/8"]),
            fields,
        )
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_trusted_proxy() {
        for (fields, client) in [
            (&["1.2.3.4"] as &[_], "1.2.3.4:0"),
            (&["1.2.3.4:5678"], "1.2.3.4:5678"),
            (&["2001:db8::1"], "[2001:db8::1]:0"),
            (&["[2001:db8::1]"], "[2001:db8::1]:0"),
            (&["[2001:db8::1]:5678"], "[2001:db8::1]:5678"),
            (&["::ffff:1.2.3.4"], "1.2.3.4:0"),
            (&["6.6.6.6, 1.2.3.4"], "1.2.3.4:0"),
            (&["6.6.6.6, 1.2.3.4, 10.0.0.2"], "1.2.3.4:0"),
            (&["6.6.6.6,1.2.3.4 ,10.0.0.2,\t10.0.0.3"], "1.2.3.4:0"),
            (&["6.6.6.6", "1.2.3.4", "10.0.0.2"], "1.2.3.4:0"),
            (&["10.9.9.9, 10.0.0.2"], "10.9.9.9:0"),
            (&["1.2.3.4, fd00::2"], "1.2.3.4:0"),
            (&["unknown, 10.0.0.2"], "10.0.0.2:0"),
            (&["1.2.3.4, _hidden, 10.0.0.2"], "10.0.0.2:0"),
            (&["1.2.3.4, unknown"], PROXY),
            (&["1.2.3.4,"], PROXY),
            (&[""], PROXY),
            (&["1.2.3.4.5"], PROXY),
            (&["[::1"], PROXY),
            (&["1.2.3.4:port"], "1.2.3.4:0"),
        ] {
            let fields: Vec<_> = fields
                .iter()
                .map(|field| ("x-forwarded-for", *field))
                .collect();
            assert_eq!(
                through_proxy(&fields).1.as_deref(),
                Some(client),
                "{fields:?}"
            );
        }
    }

    #[test]
    fn the_scheme_is_the_one_that_the_client_used() {
        const CHAIN: (&str, &str) = ("x-forwarded-for", "1.2.3.4, 10.0.0.2");
        for (fields, scheme) in [
            (&[("x-forwarded-proto", "https")] as &[_], "https"),
            (&[("x-forwarded-proto", "WSS")], "https"),
            (&[("x-forwarded-proto", "ws")], "http"),
            (&[("x-forwarded-proto", "gopher")], "http"),
            (&[("x-forwarded-proto", "https, http")], "http"),
            (&[CHAIN, ("x-forwarded-proto", "https, http")], "https"),
            (
                &[CHAIN, ("x-forwarded-proto", "http, https, http")],
                "https",
            ),
            (&[CHAIN, ("x-forwarded-proto", "https")], "https"),
        ] {
            assert_eq!(through_proxy(fields).0, scheme, "{fields:?}");
        }
    }

    #[test]
    fn the_host_that_the_client_asked_for_replaces_the_one_of_the_last_hop() {
        for (value, host) in [
            ("shop.example", "shop.example"),
            ("shop.example:8443", "shop.example:8443"),
            ("evil.example, shop.example", "shop.example"),
            ("", "inner"),
            ("a b", "inner"),
            ("a/b", "inner"),
            ("user@a", "inner"),
        ] {
            assert_eq!(
                through_proxy(&[("x-forwarded-host", value)]).2,
                host,
                "{value}"
            );
        }
    }

    #[test]
    fn a_prefix_is_a_path_of_plain_segments() {
        for (values, prefix) in [
            (&["/shop"] as &[_], Some("/shop")),
            (&["/shop/"], Some("/shop")),
            (&["/a/b-c.d"], Some("/a/b-c.d")),
            (&["/a, /b"], Some("/a/b")),
            (&["/a", "/b"], Some("/a/b")),
            (&["/"], None),
            (&[""], None),
            (&["shop"], None),
            (&["//evil.example"], None),
            (&["/a/../b"], None),
            (&["/a//"], None),
            (&["/a%2fb"], None),
            (&["/a?b"], None),
            (&["/a\\b"], None),
            (&["/a, b"], None),
        ] {
            let fields: Vec<_> = values
                .iter()
                .map(|value| ("x-forwarded-prefix", *value))
                .collect();
            assert_eq!(through_proxy(&fields).3.as_deref(), prefix, "{values:?}");
        }
    }

    #[test]
    fn the_standard_field_says_the_same_in_one() {
        for (fields, expected) in [
            (
                &["for=1.2.3.4;proto=https;host=shop.example"] as &[_],
                ("https", "1.2.3.4:0", "shop.example"),
            ),
            (
                &["For=\"[2001:db8::1]:4711\"; Proto=HTTPS ; by=10.0.0.1"],
                ("https", "[2001:db8::1]:4711", "inner"),
            ),
            (
                &[
                    "for=6.6.6.6;proto=http;host=evil.example, for=1.2.3.4;proto=https;host=shop.example, for=10.0.0.2;proto=http",
                ],
                ("https", "1.2.3.4:0", "shop.example"),
            ),
            (
                &["for=1.2.3.4;proto=https", "for=10.0.0.2"],
                ("https", "1.2.3.4:0", "inner"),
            ),
            (
                &["for=1.2.3.4, for=10.0.0.2;proto=https;host=shop.example"],
                ("https", "1.2.3.4:0", "shop.example"),
            ),
            (
                &["for=1.2.3.4:80;secret=\"a,b;c\\\"d\""],
                ("http", "1.2.3.4:80", "inner"),
            ),
            (&["for=_hidden;proto=https"], ("https", PROXY, "inner")),
            (&["for=unknown"], ("http", PROXY, "inner")),
            (&["proto=https"], ("https", PROXY, "inner")),
            (
                &["for=1.2.3.4;host=\"a b\""],
                ("http", "1.2.3.4:0", "inner"),
            ),
            // Malformed: nothing of it counts.
            (&["for=1.2.3.4;proto=https;"], ("http", PROXY, "inner")),
            (&["for=\"1.2.3.4"], ("http", PROXY, "inner")),
            (&["for=1.2.3.4 proto=https"], ("http", PROXY, "inner")),
            (&["for=1.2.3.4", "nonsense"], ("http", PROXY, "inner")),
            (&["=1.2.3.4"], ("http", PROXY, "inner")),
        ] {
            let fields: Vec<_> = fields.iter().map(|field| ("forwarded", *field)).collect();
            let (scheme, client, host, _) = through_proxy(&fields);
            let seen = (scheme, client.unwrap(), host);
            let expected = (expected.0, expected.1.to_owned(), expected.2.to_owned());
            assert_eq!(seen, expected, "{fields:?}");
        }
    }

    #[test]
    fn the_standard_field_is_not_read_beside_the_others() {
        let (scheme, client, ..) = through_proxy(&[
            ("x-forwarded-for", "1.2.3.4"),
            ("forwarded", "for=6.6.6.6;proto=https"),
        ]);
        assert_eq!((scheme, client.as_deref()), ("http", Some("1.2.3.4:0")));
    }

    #[test]
    fn nobody_else_is_believed() {
        let fields = [
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-prefix", "/evil"),
            ("forwarded", "for=1.2.3.4"),
        ];
        let loopback = trusted(&["127.0.0.0/8"]);
        for (peer, client) in [(Some(PROXY), Some(PROXY.to_owned())), (None, None)] {
            assert_eq!(
                seen(&conn(peer), &loopback, &fields),
                ("http", client, "inner".to_owned(), None)
            );
        }
    }

    #[test]
    fn peers_are_trusted_by_network_over_a_unix_socket_or_all_of_them() {
        let field = [("x-forwarded-for", "6.6.6.6, 1.2.3.4")];
        let client = |peer, config: &ForwardedConfig| seen(&conn(peer), config, &field).1;
        let named = Some("1.2.3.4:0".to_owned());
        assert_eq!(
            client(Some("[::ffff:10.1.2.3]:1"), &trusted(&["10.0.0.0/8"])),
            named
        );
        assert_eq!(client(Some("[fd00::1]:1"), &trusted(&["fd00::/8"])), named);
        let unix = ForwardedConfig {
            unix: true,
            ..trusted(&[])
        };
        assert_eq!(client(None, &unix), named);
        assert_eq!(
            client(Some("10.1.2.3:1"), &unix),
            Some("10.1.2.3:1".to_owned())
        );
        // Where every address is a proxy, the first of them is all that is known.
        let everyone = ForwardedConfig {
            everyone: true,
            ..trusted(&[])
        };
        assert_eq!(client(None, &everyone), Some("6.6.6.6:0".to_owned()));
    }
}
