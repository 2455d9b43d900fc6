//! The header fields of two answers that a client acts on: what the content is, where a redirect goes, which
//! cookies are set and how, and the fields that were asked for.
//!
//! Fields of which two servers never agree and no client cares (`Date`, `Server`, a request's id) are compared
//! only if they are asked for. The value of a cookie is never looked at: it is signed, encrypted or random.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use http::header::{self, HeaderMap, HeaderName};

use super::{ABSENT, Asked, Captured, Category, Difference, Found, Hint, redact};
use crate::config::rule::CompareConfig;

/// Fields that are lists without order and case, and that frameworks put together from sets.
const SETS: [HeaderName; 6] = [
    header::ALLOW,
    header::VARY,
    header::CACHE_CONTROL,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
];

/// `content` says whether both answers can have any.
pub(super) fn compare(
    found: &mut Found,
    old: &Captured,
    new: &Captured,
    asked: &Asked<'_>,
    config: &CompareConfig,
    content: bool,
) {
    if content {
        let (old, new) = (
            text_of(&old.headers, &header::CONTENT_TYPE),
            text_of(&new.headers, &header::CONTENT_TYPE),
        );
        if old.as_deref().map(MediaType::parse) != new.as_deref().map(MediaType::parse) {
            found.add(field(header::CONTENT_TYPE.as_str(), old, new));
        }
    }
    locations(found, &old.headers, &new.headers, asked);
    cookies(found, &old.headers, &new.headers);
    let mut compared = vec![header::CONTENT_TYPE, header::LOCATION, header::SET_COOKIE];
    for name in &config.headers {
        if compared.contains(name) {
            continue;
        }
        compared.push(name.clone());
        let (old, new) = (text_of(&old.headers, name), text_of(&new.headers, name));
        let is_same = if SETS.contains(name) {
            old.as_deref().map(members) == new.as_deref().map(members)
        } else {
            old == new
        };
        if !is_same {
            found.add(field(name.as_str(), old, new));
        }
    }
}

/// The values of a field, as one (RFC 9110 §5.2).
pub(super) fn text_of(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<_> = headers
        .get_all(name)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    (!values.is_empty()).then(|| values.join(", "))
}

fn field(name: &str, old: Option<String>, new: Option<String>) -> Difference {
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) if !redact::is_secret_name(name) => redact::shown_both(&old, &new),
        (old, new) => {
            let shown = |value: Option<String>| match value {
                None => ABSENT.to_owned(),
                Some(value) if redact::is_secret_name(name) => redact::hidden(&value),
                Some(value) => redact::shown(&value, 0),
            };
            (shown(old), shown(new))
        }
    };
    let name = redact::shorten(name, 0, redact::WIDTH);
    Difference::new(Category::Header, name, old, new)
}

/// The members of a list, in one order and case.
fn members(list: &str) -> Vec<String> {
    let mut members: Vec<_> = list
        .split(',')
        .map(|member| member.trim().to_ascii_lowercase())
        .filter(|member| !member.is_empty())
        .collect();
    members.sort_unstable();
    members.dedup();
    members
}

/// A media type (RFC 9110 §8.3.1), so that equal ones are equal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MediaType {
    /// Type and subtype in lower case.
    essence: String,
    /// Without those that say nothing.
    parameters: Vec<(String, String)>,
}

impl MediaType {
    pub(super) fn parse(text: &str) -> Self {
        let mut parts = text.split(';');
        let essence = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        let mut parsed = Self {
            essence,
            parameters: Vec::new(),
        };
        for parameter in parts {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let name = name.trim().to_ascii_lowercase();
            let value = value.trim().trim_matches('"').to_ascii_lowercase();
            let is_default = name == "charset"
                && matches!(value.as_str(), "utf-8" | "utf8")
                && (parsed.is_text() || parsed.is_json());
            // The boundary of parts is drawn by lot.
            if !(name.is_empty() || is_default || name == "boundary") {
                parsed.parameters.push((name, value));
            }
        }
        parsed.parameters.sort_unstable();
        parsed
    }

    pub(super) fn is_json(&self) -> bool {
        self.essence.ends_with("+json")
            || matches!(
                self.essence.as_str(),
                "application/json" | "application/x-json" | "text/json" | "text/x-json"
            )
    }

    /// What people read by lines.
    pub(super) fn is_text(&self) -> bool {
        self.essence.starts_with("text/")
            || self.essence.ends_with("+xml")
            || matches!(
                self.essence.as_str(),
                "application/javascript"
                    | "application/x-javascript"
                    | "application/x-ndjson"
                    | "application/x-www-form-urlencoded"
                    | "application/xml"
                    | "application/yaml"
            )
    }
}

fn locations(found: &mut Found, old: &HeaderMap, new: &HeaderMap, asked: &Asked<'_>) {
    let (old, new) = (
        text_of(old, &header::LOCATION),
        text_of(new, &header::LOCATION),
    );
    let parsed = |location: &Option<String>| {
        let location = location.as_deref()?;
        Some(Target::parse(location, asked))
    };
    let (target_of_old, target_of_new) = (parsed(&old), parsed(&new));
    let is_same = match (&target_of_old, &target_of_new) {
        (Some(old), Some(new)) => old.is_same(new),
        (old, new) => old.is_none() && new.is_none(),
    };
    if is_same {
        return;
    }
    let hint = match (&target_of_old, &target_of_new) {
        (Some(old), Some(new)) => old.is_same_but_slash(new).then_some(Hint::TrailingSlash),
        _ => None,
    };
    // The query is hidden for itself: the path says more than whether there is a token behind it.
    let shown = |location: Option<String>| {
        let Some(location) = location else {
            return ABSENT.to_owned();
        };
        let (path, query) = location.split_at(location.find(['?', '#']).unwrap_or(location.len()));
        let (scheme, rest) = path.split_at(path.find("//").map_or(0, |at| at + 2));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit('@').next().unwrap_or_default();
        let location: String = [scheme, host, path, query].map(redact::scrub).concat();
        redact::shorten(&redact::escape(&location), 0, redact::WIDTH)
    };
    let name = header::LOCATION.as_str();
    found.add(Difference::new(Category::Header, name, shown(old), shown(new)).hint(hint));
}

/// Where a redirect goes, relative ones as seen from the request (RFC 3986 §5.2).
#[derive(Debug, PartialEq, Eq)]
struct Target {
    /// `None` where it is that of the request.
    scheme: Option<String>,
    /// `None` where it is that of the request, whether by leaving it out or by naming it.
    authority: Option<String>,
    path: String,
    /// With the fragment.
    query: String,
}

impl Target {
    fn parse(location: &str, asked: &Asked<'_>) -> Self {
        let location = location.trim();
        let end = location.find(['?', '#']).unwrap_or(location.len());
        let (before, query) = location.split_at(end);
        let (scheme, rest) = match before.split_once(':') {
            Some((scheme, rest))
                if scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                    && scheme
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) =>
            {
                (Some(scheme.to_ascii_lowercase()), rest)
            }
            _ => (None, before),
        };
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                let authority = without_default_port(authority, scheme.as_deref());
                let own = asked
                    .host
                    .map(|host| without_default_port(host, scheme.as_deref()));
                (
                    (Some(&authority) != own.as_ref()).then_some(authority),
                    if path.is_empty() { "/" } else { path },
                )
            }
            None => (None, rest),
        };
        let path = if scheme.is_some() || path.starts_with('/') {
            without_dots(path)
        } else if path.is_empty() {
            asked.path.to_owned()
        } else {
            let base = asked.path.rsplit_once('/').map_or("", |(base, _)| base);
            without_dots(&format!("{base}/{path}"))
        };
        Self {
            scheme,
            authority,
            path,
            query: query.to_owned(),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.is_same_place(other) && self.path == other.path
    }

    fn is_same_but_slash(&self, other: &Self) -> bool {
        self.is_same_place(other)
            && self.path.trim_end_matches('/') == other.path.trim_end_matches('/')
    }

    /// A redirect without a scheme keeps that of the request, which an application behind a proxy may not know.
    fn is_same_place(&self, other: &Self) -> bool {
        self.authority == other.authority
            && self.query == other.query
            && (self.scheme == other.scheme || self.scheme.is_none() || other.scheme.is_none())
    }
}

fn without_default_port(authority: &str, scheme: Option<&str>) -> String {
    let authority = authority.to_ascii_lowercase();
    let port = match scheme {
        Some("http") => ":80",
        Some("https") => ":443",
        _ => return authority,
    };
    authority
        .strip_suffix(port)
        .map_or(authority.clone(), str::to_owned)
}

/// RFC 3986 §5.2.4
fn without_dots(path: &str) -> String {
    let mut segments = Vec::new();
    let mut ends_in_dots = false;
    for segment in path.split('/').skip(usize::from(path.starts_with('/'))) {
        ends_in_dots = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    if ends_in_dots {
        segments.push("");
    }
    let root = if path.starts_with('/') { "/" } else { "" };
    format!("{root}{}", segments.join("/"))
}

/// How a cookie is set, but for its value (RFC 6265 §4.1): attributes with what is shown of them.
type Attributes = BTreeMap<&'static str, String>;

const ATTRIBUTES: [&str; 7] = [
    "Path",
    "Domain",
    "Expires",
    "SameSite",
    "Secure",
    "HttpOnly",
    "Partitioned",
];

fn cookies(found: &mut Found, old: &HeaderMap, new: &HeaderMap) {
    let (mut old, mut new) = (cookies_of(old), cookies_of(new));
    let names: BTreeSet<_> = old.keys().chain(new.keys()).cloned().collect();
    for key in names {
        let (name, number) = &key;
        let mut place = redact::shown(name, 0);
        if *number > 0 {
            let _ = write!(place, " ({})", number + 1);
        }
        let difference = |place, old, new| Difference::new(Category::Cookie, place, old, new);
        let (old, new) = match (old.remove(&key), new.remove(&key)) {
            (Some(old), Some(new)) => (old, new),
            (Some(_), _) => {
                found.add(difference(place, "set".to_owned(), ABSENT.to_owned()));
                continue;
            }
            (None, _) => {
                found.add(difference(place, ABSENT.to_owned(), "set".to_owned()));
                continue;
            }
        };
        for attribute in ATTRIBUTES {
            let (old, new) = (old.get(attribute), new.get(attribute));
            if old != new {
                let shown = |value: Option<&String>| {
                    value.map_or(ABSENT.to_owned(), |value| redact::shown(value, 0))
                };
                let place = format!("{place}; {attribute}");
                found.add(difference(place, shown(old), shown(new)));
            }
        }
    }
}

/// By name, and number among those of one name.
fn cookies_of(headers: &HeaderMap) -> BTreeMap<(String, usize), Attributes> {
    let mut cookies = BTreeMap::new();
    for value in headers.get_all(header::SET_COOKIE) {
        let text = String::from_utf8_lossy(value.as_bytes());
        let (pair, attributes) = text.split_once(';').unwrap_or((&text, ""));
        let name = pair.split_once('=').map_or("", |(name, _)| name).trim();
        let number = cookies
            .range((name.to_owned(), 0)..=(name.to_owned(), usize::MAX))
            .count();
        cookies.insert((name.to_owned(), number), attributes_of(attributes));
    }
    cookies
}

fn attributes_of(text: &str) -> Attributes {
    let mut attributes = Attributes::new();
    let mut max_age = None;
    for attribute in text.split(';') {
        let (attribute, value) = attribute.split_once('=').unwrap_or((attribute, ""));
        let value = value.trim().trim_matches('"');
        let set = || "set".to_owned();
        let lifetime = |ends| if ends { "deleted" } else { "expires" };
        let (attribute, value) = match attribute.trim().to_ascii_lowercase().as_str() {
            "path" => ("Path", value.to_owned()),
            "domain" => ("Domain", value.trim_start_matches('.').to_ascii_lowercase()),
            "samesite" => ("SameSite", value.to_ascii_lowercase()),
            "secure" => ("Secure", set()),
            "httponly" => ("HttpOnly", set()),
            "partitioned" => ("Partitioned", set()),
            "max-age" => {
                max_age = Some(lifetime(value.starts_with('-') || value.parse() == Ok(0)));
                continue;
            }
            // What deletes a cookie says the epoch, so no clock is needed.
            "expires" => ("Expires", lifetime(value.contains("1970")).to_owned()),
            _ => continue,
        };
        attributes.insert(attribute, value);
    }
    // It has precedence, wherever it stands (RFC 6265 §5.3).
    if let Some(lifetime) = max_age {
        attributes.insert("Expires", lifetime.to_owned());
    }
    attributes
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method, StatusCode};

    use super::*;
    use crate::policy::compare::Capture;

    fn answer(fields: &[(&str, &str)]) -> Captured {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        Captured {
            status: StatusCode::OK,
            headers,
            body: Capture::new(0).finish(),
        }
    }

    /// `place: old -> new` of each difference, the same both ways.
    fn differences(old: &[(&str, &str)], new: &[(&str, &str)], headers: &[&str]) -> Vec<String> {
        let config = CompareConfig {
            headers: headers.iter().map(|name| name.parse().unwrap()).collect(),
            ..CompareConfig::default()
        };
        let asked = Asked {
            method: &Method::GET,
            host: Some("shop.example"),
            path: "/items/7",
        };
        let mut found = Found::default();
        compare(
            &mut found,
            &answer(old),
            &answer(new),
            &asked,
            &config,
            true,
        );
        let told = found.finish().into_iter();
        told.map(
            |Difference {
                 place, old, new, ..
             }| format!("{place}: {old} -> {new}"),
        )
        .collect()
    }

    #[test]
    fn a_content_type_is_what_it_means() {
        for (old, new, same) in [
            ("application/json", "application/json; charset=utf-8", true),
            (
                "text/html; charset=utf-8",
                "Text/HTML;charset=\"UTF-8\"",
                true,
            ),
            ("text/html", "text/html; charset=latin-1", false),
            ("image/svg+xml", "image/svg+xml; charset=utf-8", true),
            ("image/png", "image/png; charset=utf-8", false),
            ("application/json", "application/problem+json", false),
            ("a/b; x=1; y=2", "a/b; y=2;x=1;", true),
            (
                "multipart/mixed; boundary=a",
                "multipart/mixed; boundary=b",
                true,
            ),
        ] {
            let field = |value| [("content-type", value)];
            let found = differences(&field(old), &field(new), &[]);
            assert_eq!(found.is_empty(), same, "{old} {new}");
        }
        assert_eq!(
            differences(&[("content-type", "text/html")], &[], &[]),
            ["content-type: text/html -> absent"]
        );
    }

    #[test]
    fn a_redirect_is_where_it_goes() {
        for (old, new, same) in [
            ("/a?b", "http://shop.example/a?b", true),
            ("/a", "https://SHOP.example:443/a", true),
            ("/a", "https://shop.example:8443/a", false),
            ("/a", "http://other.example/a", false),
            ("/a", "//shop.example/a", true),
            ("http://shop.example/a", "https://shop.example/a", false),
            ("https://other.example", "https://other.example/", true),
            ("/items/8", "8", true),
            ("/items/8", "./8", true),
            ("/x", "../x", true),
            ("/items/7?p=2", "?p=2", true),
            ("/a", "/a/", false),
            ("/a?x=1", "/a?x=2", false),
            ("/a#b", "/a", false),
            ("mailto:x", "mailto:x", true),
        ] {
            let field = |value| [("location", value)];
            for (old, new) in [(old, new), (new, old)] {
                let found = differences(&field(old), &field(new), &[]);
                assert_eq!(found.is_empty(), same, "{old} {new}");
            }
        }
        assert_eq!(
            differences(
                &[("location", "/a/?token=x")],
                &[("location", "http://ann:pw@shop.example/a")],
                &[]
            ),
            ["location: /a/(redacted, 8 characters) -> http://shop.example/a"]
        );
    }

    #[test]
    fn of_cookies_names_and_attributes_are_compared_and_values_are_not() {
        for (old, new, expected) in [
            (&["s=1"][..], &["s=2"][..], &[][..]),
            (&["s=1; Path=/; HttpOnly"], &["s=2;httponly;path=/"], &[]),
            (&["s=1; Domain=.a.example"], &["s=1; domain=A.example"], &[]),
            (&["s=1"], &[], &["s: set -> absent"]),
            (
                &["s=1", "t=1"],
                &["t=1", "u=1"],
                &["s: set -> absent", "u: absent -> set"],
            ),
            (&["s=1; Secure"], &["s=1"], &["s; Secure: set -> absent"]),
            (
                &["s=1; SameSite=Lax"],
                &["s=1; samesite=strict"],
                &["s; SameSite: lax -> strict"],
            ),
            (&["s=1; Path=/"], &["s=1; Path=/a"], &["s; Path: / -> /a"]),
            (
                &["s=1; Max-Age=60"],
                &["s=1; Expires=Sat, 21 Nov 2026 17:22:50 GMT"],
                &[],
            ),
            (
                &["s=; Max-Age=0"],
                &["s=; Expires=Thu, 01 Jan 1970 00:00:00 GMT"],
                &[],
            ),
            (
                &["s=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=60"],
                &["s=; Max-Age=-1"],
                &["s; Expires: expires -> deleted"],
            ),
            (
                &["s=1"],
                &["s=1; Max-Age=60"],
                &["s; Expires: absent -> expires"],
            ),
            (
                &["s=1", "s=1; Path=/a"],
                &["s=1", "s=1; Path=/b"],
                &["s (2); Path: /a -> /b"],
            ),
        ] {
            let fields = |texts: &[&'static str]| -> Vec<_> {
                texts.iter().map(|text| ("set-cookie", *text)).collect()
            };
            let found = differences(&fields(old), &fields(new), &["set-cookie"]);
            assert_eq!(found, expected, "{old:?} {new:?}");
        }
    }

    #[test]
    fn other_fields_are_compared_if_they_are_asked_for() {
        let old = [
            ("etag", "\"1\""),
            ("allow", "GET, HEAD"),
            ("x-auth-token", "a"),
        ];
        let new = [("etag", "\"2\""), ("allow", "head,GET"), ("date", "now")];
        assert!(differences(&old, &new, &[]).is_empty());
        assert_eq!(
            differences(&old, &new, &["etag", "allow", "etag", "x-auth-token"]),
            [
                "etag: \"1\" -> \"2\"",
                "x-auth-token: (redacted, 1 characters) -> absent"
            ]
        );
    }
}
