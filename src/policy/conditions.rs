//! What a rule asks of a request beside its path and its application's routes.

use std::borrow::Cow;

use http::header::COOKIE;
use http::request::Parts;
use http::{HeaderMap, Method};

use crate::config::rule;

/// The conditions of one rule; all have to hold.
#[derive(Debug)]
pub struct Conditions(rule::Conditions);

impl Conditions {
    /// `None` where nothing is asked.
    pub fn new(conditions: &rule::Conditions) -> Option<Self> {
        (!conditions.is_empty()).then(|| Self(conditions.clone()))
    }

    pub fn asks_method(&self) -> bool {
        !self.0.methods.is_empty()
    }

    pub fn asks_host(&self) -> bool {
        self.0.host.is_some()
    }

    /// `method` is that of the request, or the one that a preflight announces; `host` in lower case and
    /// without its port.
    pub fn meets(&self, head: &Parts, method: &str, host: Option<&str>) -> bool {
        let rule::Conditions {
            host: expected,
            methods,
            headers,
            cookies,
            query,
        } = &self.0;
        let same = |asked: &Method| {
            asked.as_str() == method || (*asked == Method::GET && method == "HEAD")
        };
        (methods.is_empty() || methods.iter().any(same))
            && expected
                .as_ref()
                .is_none_or(|expected| host.is_some_and(|host| expected.matches(host)))
            && headers.iter().all(|(name, expected)| {
                let values = head.headers.get_all(name).iter();
                values
                    .map(|value| String::from_utf8_lossy(value.as_bytes()))
                    .any(|value| expected.matches(&value))
            })
            && cookies.iter().all(|(name, expected)| {
                cookies_of(&head.headers)
                    .any(|(found, value)| found == name && expected.matches(value))
            })
            && query.iter().all(|(name, expected)| {
                parameters_of(head.uri.query().unwrap_or_default())
                    .any(|(found, value)| found == *name && expected.matches(&value))
            })
    }
}

/// The cookies of a request (RFC 6265 §5.4), in the order in which they come.
pub fn cookies_of(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|pair| {
            // What cannot be read hides itself alone: browsers send what scripts have set.
            let (name, value) = str::from_utf8(pair).ok()?.split_once('=')?;
            let value = value.trim();
            let unquoted = value
                .strip_prefix('"')
                .and_then(|value| value.strip_suffix('"'));
            Some((name.trim(), unquoted.unwrap_or(value)))
        })
}

/// The parameters of a query, decoded as forms are (`+` is a space).
pub fn parameters_of(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (form_decoded(name), form_decoded(value))
        })
}

fn form_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['+', '%']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy();
    Cow::Owned(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, Request};

    use super::*;
    use crate::config::rule::Glob;

    fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn glob(text: &str) -> Glob {
        text.parse().unwrap()
    }

    fn meets(asked: &rule::Conditions, head: &Parts, host: Option<&str>) -> bool {
        let conditions = Conditions::new(asked).unwrap();
        conditions.meets(head, head.method.as_str(), host)
    }

    #[test]
    fn nothing_asked_is_no_condition() {
        assert!(Conditions::new(&rule::Conditions::default()).is_none());
    }

    #[test]
    fn head_follows_get() {
        let asked = rule::Conditions {
            methods: vec![Method::GET, Method::DELETE],
            ..rule::Conditions::default()
        };
        for (method, expected) in [
            ("GET", true),
            ("HEAD", true),
            ("DELETE", true),
            ("POST", false),
        ] {
            assert_eq!(
                meets(&asked, &head(method, "/", &[]), None),
                expected,
                "{method}"
            );
        }
    }

    #[test]
    fn a_host_is_matched_where_there_is_one() {
        let asked = rule::Conditions {
            host: Some(glob("*.example.org")),
            ..rule::Conditions::default()
        };
        let head = head("GET", "/", &[]);
        assert!(meets(&asked, &head, Some("api.example.org")));
        assert!(!meets(&asked, &head, Some("example.org")));
        assert!(!meets(&asked, &head, None));
    }

    #[test]
    fn one_of_the_values_of_a_field_a_cookie_or_a_parameter_is_enough() {
        let asked = rule::Conditions {
            headers: vec![(HeaderName::from_static("x-beta"), glob("yes"))],
            ..rule::Conditions::default()
        };
        assert!(meets(
            &asked,
            &head("GET", "/", &[("x-beta", "no"), ("x-beta", "yes")]),
            None
        ));
        assert!(!meets(&asked, &head("GET", "/", &[("x-beta", "no")]), None));

        let asked = rule::Conditions {
            cookies: vec![("beta".into(), glob("*"))],
            ..rule::Conditions::default()
        };
        for (cookie, expected) in [
            ("beta=1", true),
            ("a=b; beta=\"\"", true),
            ("alphabeta=1", false),
            ("name=José; beta=1", true),
            ("beta", false),
        ] {
            let head = head("GET", "/", &[("cookie", cookie)]);
            assert_eq!(meets(&asked, &head, None), expected, "{cookie}");
        }

        let asked = rule::Conditions {
            query: vec![("v w".into(), glob("2 ü"))],
            ..rule::Conditions::default()
        };
        for (target, expected) in [
            ("/?v+w=2+%C3%BC", true),
            ("/?x&v%20w=2%20%C3%BC", true),
            ("/?v=2", false),
            ("/", false),
        ] {
            assert_eq!(
                meets(&asked, &head("GET", target, &[]), None),
                expected,
                "{target}"
            );
        }
    }
}
