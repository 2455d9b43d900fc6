//! Values as people write them: each is parsed once, here, and never asked again.
//!
//! Every value has one text form, whichever source it comes from, and prints as what it was read from.

use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderName, Method};
use ipnet::IpNet;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::error::{InvalidValue, nearest};
use super::rule::{Glob, JsonPath, Sticky, Template};
use super::{Bind, LoopChoice, Target};

/// Serde through the text form, so that a value looks alike on the command line, in toml and in JSON.
macro_rules! text_form {
    ($($value:ty),*) => {$(
        impl Serialize for $value {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $value {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Parsed::deserialize(deserializer).map(|Parsed(value)| value)
            }
        }
    )*};
}

text_form!(
    Bind,
    Target,
    LoopChoice,
    Mount,
    Prefix,
    TrustedPeer,
    Sticky,
    Glob,
    Template,
    JsonPath,
    MethodName,
    FieldName,
    Network
);

/// Reads one text or a list of texts; a text may hold several values, separated by commas.
pub(super) fn one_or_many<'de, T, D>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    T: FromStr<Err = InvalidValue>,
    D: Deserializer<'de>,
{
    struct OneOrMany<T>(PhantomData<T>);

    impl<'de, T: FromStr<Err = InvalidValue>> Visitor<'de> for OneOrMany<T> {
        type Value = Option<Vec<T>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or a list of strings")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            text.split(',')
                .map(|item| item.trim().parse().map_err(E::custom))
                .collect::<Result<_, _>>()
                .map(Some)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut values = Vec::new();
            while let Some(Parsed(item)) = items.next_element()? {
                values.push(item);
            }
            Ok(Some(values))
        }
    }

    deserializer.deserialize_any(OneOrMany(PhantomData))
}

/// Parses where the text is read, so that an error has the place of the item and not of its list.
struct Parsed<T>(T);

impl<'de, T: FromStr<Err = InvalidValue>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<T>(PhantomData<T>);

        impl<T: FromStr<Err = InvalidValue>> Visitor<'_> for Text<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text(PhantomData)).map(Self)
    }
}

/// A whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Count(pub u64);

impl FromStr for Count {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse()
            .map(Self)
            .map_err(|_| InvalidValue::new(format!("`{text}` is not a whole number")))
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;

        impl Visitor<'_> for Whole {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Count, E> {
                u64::try_from(number)
                    .map(Count)
                    .map_err(|_| E::custom(format!("`{number}` is below 0")))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Count, E> {
                Ok(Count(number))
            }
        }

        deserializer.deserialize_any(Whole)
    }
}

/// A length of time in seconds, fractions allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub Duration);

impl Seconds {
    /// Longer than any timeout that means something, and short enough for every clock.
    const MOST: f64 = 366.0 * 24.0 * 3600.0;

    fn new(seconds: f64) -> Result<Self, InvalidValue> {
        if (0.0..=Self::MOST).contains(&seconds) {
            Ok(Self(Duration::from_secs_f64(seconds)))
        } else {
            Err(InvalidValue::new(format!(
                "`{seconds}` is not between 0 seconds and a year"
            )))
        }
    }
}

impl FromStr for Seconds {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let seconds: f64 = text.parse().map_err(|_| {
            InvalidValue::new(format!("`{text}` is not a number of seconds"))
                .hint("write the number alone: `30` or `0.5`")
        })?;
        Self::new(seconds)
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_secs_f64())
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Seconds;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of seconds")
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Seconds, E> {
                Seconds::new(seconds).map_err(E::custom)
            }

            #[expect(
                clippy::cast_precision_loss,
                reason = "what is too large to be exact is refused"
            )]
            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Seconds, E> {
                self.visit_f64(seconds as f64)
            }

            #[expect(
                clippy::cast_precision_loss,
                reason = "what is too large to be exact is refused"
            )]
            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Seconds, E> {
                self.visit_f64(seconds as f64)
            }
        }

        deserializer.deserialize_any(Number)
    }
}

impl FromStr for Bind {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORMS: &str = "write `127.0.0.1:8000`, `[::1]:8000`, `:8000` (every IPv4 interface), \
                             `8000` (127.0.0.1) or `unix:/path/to/socket`";
        let invalid = |problem: &str| InvalidValue::new(format!("`{text}` {problem}")).hint(FORMS);
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(invalid("names no socket"));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let (host, port) = match text.rsplit_once(':') {
            None if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() => {
                (IpAddr::V4(Ipv4Addr::LOCALHOST), text)
            }
            None => return Err(invalid("has no port")),
            Some(("", port)) => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
            Some((host, port)) => {
                let bracketed = host
                    .strip_prefix('[')
                    .and_then(|rest| rest.strip_suffix(']'));
                if bracketed.is_none() && host.contains(':') {
                    return Err(invalid("is an IPv6 address without brackets"));
                }
                let host = parse_host(bracketed.unwrap_or(host))
                    .map_err(|error| InvalidValue::new(error.problem).hint(FORMS))?;
                (host, port)
            }
        };
        let port = port
            .parse()
            .map_err(|_| invalid("has no port between 0 and 65535"))?;
        Ok(Self::Tcp(SocketAddr::new(host, port)))
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An IP address to listen on.
///
/// # Errors
/// A name: resolving it at start would make the place of listening depend on somebody's DNS.
pub(super) fn parse_host(text: &str) -> Result<IpAddr, InvalidValue> {
    if text == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    text.parse().map_err(|_| {
        InvalidValue::new(format!("`{text}` is not an IP address"))
            .hint("write `127.0.0.1`, `::1`, or `0.0.0.0` for every IPv4 interface")
    })
}

impl FromStr for Target {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORMS: &str =
            "write `module:attr`, `module` (its `app` or `application`) or `module:factory()`";
        let invalid = |problem: &str| InvalidValue::new(format!("`{text}` {problem}"));
        if text.is_empty() {
            return Err(InvalidValue::new("an application has no name").hint(FORMS));
        }
        let (module, attr) = match text.split_once(':') {
            Some((module, attr)) => (module, Some(attr)),
            None => (text, None),
        };
        let path = module.strip_suffix(".py");
        if path.is_some() || module.contains(['/', '\\']) {
            let dotted = path
                .unwrap_or(module)
                .trim_start_matches(['.', '/'])
                .replace(['/', '\\'], ".");
            let attr = attr.unwrap_or("app");
            return Err(invalid("is a file, not a module").hint(format!("write `{dotted}:{attr}`")));
        }
        if module.ends_with(')') {
            return Err(invalid("calls a module").hint("name the factory: `module:factory()`"));
        }
        if !is_dotted(module) {
            return Err(invalid("does not begin with the name of a module").hint(FORMS));
        }
        let Some(attr) = attr else {
            return Ok(Self {
                module: module.into(),
                attr: None,
                factory: false,
            });
        };
        let (attr, factory) = match attr.split_once('(') {
            Some((attr, ")")) => (attr, true),
            Some(_) => {
                return Err(invalid("passes arguments to a factory")
                    .hint("a factory is called without any: write `module:factory()`"));
            }
            None => (attr, false),
        };
        if !is_dotted(attr) {
            return Err(invalid("names no attribute after the colon").hint(FORMS));
        }
        Ok(Self {
            module: module.into(),
            attr: Some(attr.into()),
            factory,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.module)?;
        if let Some(attr) = &self.attr {
            write!(f, ":{attr}")?;
        }
        f.write_str(if self.factory { "()" } else { "" })
    }
}

impl LoopChoice {
    /// Those that have a name of their own.
    const NAMED: [(&str, Self); 3] = [
        ("auto", Self::Auto),
        ("asyncio", Self::Asyncio),
        ("uvloop", Self::Uvloop),
    ];
}

impl FromStr for LoopChoice {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "another loop is named by what makes it: `rloop:new_event_loop`";
        if let Some((_, named)) = Self::NAMED.into_iter().find(|(name, _)| *name == text) {
            return Ok(named);
        }
        if !text.contains(':') {
            let names = Self::NAMED.map(|(name, _)| name);
            let problem = format!(
                "`{text}` is none of `{}`, and no `module:attr`",
                names.join("`, `")
            );
            let near = nearest(text, names).map(|near| format!("did you mean `{near}`?"));
            return Err(InvalidValue::new(problem).hint(near.unwrap_or_else(|| FORM.to_owned())));
        }
        match text.parse() {
            Ok(Target { factory: true, .. }) => {
                let name = text.trim_end_matches("()");
                Err(InvalidValue::new(format!("`{text}` has parentheses"))
                    .hint(format!("it is called anyway: write `{name}`")))
            }
            Ok(target) => Ok(Self::Factory(target)),
            Err(error) => Err(InvalidValue::new(error.problem).hint(FORM)),
        }
    }
}

impl fmt::Display for LoopChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Factory(target) = self {
            return target.fmt(f);
        }
        let named = Self::NAMED.iter().find(|(_, named)| named == self);
        f.write_str(named.map_or("auto", |(name, _)| name))
    }
}

/// Python identifiers, joined by dots.
fn is_dotted(text: &str) -> bool {
    text.split('.').all(|name| {
        let mut chars = name.chars();
        chars
            .next()
            .is_some_and(|first| first.is_alphabetic() || first == '_')
            && chars.all(|char| char.is_alphanumeric() || char == '_')
    })
}

/// A path prefix, decoded: `""` or `/a/b`, never with a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Prefix(String);

impl Prefix {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Prefix {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |problem: &str| InvalidValue::new(format!("`{text}` {problem}"));
        let path = text.strip_suffix('/').unwrap_or(text);
        if path.is_empty() {
            return Ok(Self::default());
        }
        let Some(segments) = path.strip_prefix('/') else {
            return Err(invalid("does not begin with a slash").hint(format!("write `/{path}`")));
        };
        if path.contains(['?', '#', '*', '{', '<']) {
            return Err(invalid("is not a plain path prefix")
                .hint("a prefix covers everything below it and knows no patterns"));
        }
        if path.contains('%') {
            return Err(invalid("is percent-encoded").hint(
                "write the characters themselves: requests are matched on the decoded path",
            ));
        }
        if segments
            .split('/')
            .any(|segment| matches!(segment, "" | "." | ".."))
        {
            return Err(invalid("has an empty, `.` or `..` segment")
                .hint("no request reaches such a path; write it without"));
        }
        Ok(Self(path.into()))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A method of HTTP. Case matters (RFC 9110 §9.1), so one in lower case is a slip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodName(pub Method);

impl FromStr for MethodName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
            let upper = text.to_ascii_uppercase();
            return Err(InvalidValue::new(format!("`{text}` is in lower case"))
                .hint(format!("write `{upper}`")));
        }
        Method::from_bytes(text.as_bytes())
            .map(Self)
            .map_err(|_| InvalidValue::new(format!("`{text}` is not a method")))
    }
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldName(pub HeaderName);

impl PartialOrd for FieldName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for FieldName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.as_str().cmp(other.0.as_str())
    }
}

impl FromStr for FieldName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse()
            .map(Self)
            .map_err(|_| InvalidValue::new(format!("`{text}` is not the name of a header field")))
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An address or a network of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(pub IpNet);

impl FromStr for Network {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        address.or_else(|_| text.parse()).map(Self).map_err(|_| {
            InvalidValue::new(format!("`{text}` is not an IP address or network"))
                .hint("write `192.0.2.7` or `10.0.0.0/8`")
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `PREFIX=TARGET`: an application under a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mount {
    pub prefix: Prefix,
    pub target: Target,
}

impl FromStr for Mount {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((prefix, target)) = text.split_once('=') else {
            return Err(
                InvalidValue::new(format!("`{text}` does not say what is mounted where"))
                    .hint("write `/prefix=module:attr`"),
            );
        };
        Ok(Self {
            prefix: prefix.parse()?,
            target: target.parse()?,
        })
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.prefix, self.target)
    }
}

/// A proxy whose forwarding headers are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrustedPeer {
    Network(IpNet),
    /// Whoever connects to a unix socket.
    Unix,
    Everyone,
}

impl FromStr for TrustedPeer {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "*" => return Ok(Self::Everyone),
            "unix" => return Ok(Self::Unix),
            _ => {}
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Network(address.into()));
        }
        text.parse::<IpNet>()
            .map(|network| Self::Network(network.trunc()))
            .map_err(|_| {
                InvalidValue::new(format!("`{text}` is neither an IP address nor a network")).hint(
                    "write `10.0.0.7`, `10.0.0.0/8`, `unix` for unix sockets or `*` for everyone",
                )
            })
    }
}

impl fmt::Display for TrustedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::Unix => f.write_str("unix"),
            Self::Everyone => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem<T: FromStr<Err = InvalidValue> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().unwrap_err().to_string()
    }

    #[test]
    fn targets_name_a_module_and_what_is_in_it() {
        for (text, module, attr, factory) in [
            ("shop", "shop", None, false),
            ("shop.wsgi", "shop.wsgi", None, false),
            ("shop:app", "shop", Some("app"), false),
            ("shop.main:state.app", "shop.main", Some("state.app"), false),
            ("shop:create_app()", "shop", Some("create_app"), true),
            ("größe:_app1", "größe", Some("_app1"), false),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.module, module);
            assert_eq!(target.attr.as_deref(), attr);
            assert_eq!(target.factory, factory);
            assert_eq!(target.to_string(), text);
        }
    }

    #[test]
    fn a_wrong_target_says_what_to_write() {
        for (text, said) in [
            ("", "an application has no name\nhint: write `module:attr`"),
            (
                "shop/main.py",
                "`shop/main.py` is a file, not a module\nhint: write `shop.main:app`",
            ),
            (
                "./shop/main.py:api",
                "`./shop/main.py:api` is a file, not a module\nhint: write `shop.main:api`",
            ),
            (
                "shop()",
                "`shop()` calls a module\nhint: name the factory: `module:factory()`",
            ),
            (
                "shop:",
                "`shop:` names no attribute after the colon\nhint: write",
            ),
            (
                ":app",
                "`:app` does not begin with the name of a module\nhint: write",
            ),
            (
                "a:b:c",
                "`a:b:c` names no attribute after the colon\nhint: write",
            ),
            (
                "my-shop:app",
                "`my-shop:app` does not begin with the name of a module\nhint: write",
            ),
            (
                "shop:make(1)",
                "`shop:make(1)` passes arguments to a factory\nhint: a factory is called without any",
            ),
        ] {
            let problem = problem::<Target>(text);
            assert!(problem.starts_with(said), "{text}: {problem}");
        }
    }

    #[test]
    fn binds_are_addresses_ports_and_sockets() {
        for (text, printed) in [
            ("127.0.0.1:8000", "127.0.0.1:8000"),
            ("localhost:80", "127.0.0.1:80"),
            ("[::1]:0", "[::1]:0"),
            ("[::]:8000", "[::]:8000"),
            (":8000", "0.0.0.0:8000"),
            ("8000", "127.0.0.1:8000"),
            ("unix:/run/twinspan.sock", "unix:/run/twinspan.sock"),
            ("unix:rel.sock", "unix:rel.sock"),
        ] {
            let bind: Bind = text.parse().unwrap();
            assert_eq!(bind.to_string(), printed);
            assert_eq!(printed.parse::<Bind>().unwrap(), bind);
        }
    }

    #[test]
    fn a_wrong_bind_says_what_is_wrong_with_it() {
        for (text, said) in [
            ("", "`` has no port"),
            ("127.0.0.1", "`127.0.0.1` has no port"),
            ("127.0.0.1:", "`127.0.0.1:` has no port between 0 and 65535"),
            (
                "127.0.0.1:70000",
                "`127.0.0.1:70000` has no port between 0 and 65535",
            ),
            ("::1:8000", "`::1:8000` is an IPv6 address without brackets"),
            ("shop.example:80", "`shop.example` is not an IP address"),
            ("unix:", "`unix:` names no socket"),
        ] {
            let problem = problem::<Bind>(text);
            let (said_first, hint) = problem.split_once("\nhint: ").unwrap();
            assert_eq!(said_first, said);
            assert!(hint.starts_with("write `127.0.0.1:8000`"));
        }
    }

    #[test]
    fn prefixes_begin_with_a_slash_and_end_without() {
        for (text, prefix) in [
            ("", ""),
            ("/", ""),
            ("/api", "/api"),
            ("/api/", "/api"),
            ("/a/b", "/a/b"),
            ("/käse", "/käse"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().as_str(), prefix);
        }
        for (text, said) in [
            (
                "api",
                "`api` does not begin with a slash\nhint: write `/api`",
            ),
            (
                "/a//b",
                "`/a//b` has an empty, `.` or `..` segment\nhint: no request reaches such a path; write it without",
            ),
            (
                "//",
                "`//` has an empty, `.` or `..` segment\nhint: no request reaches such a path; write it without",
            ),
            (
                "/../a",
                "`/../a` has an empty, `.` or `..` segment\nhint: no request reaches such a path; write it without",
            ),
            (
                "/a%20b",
                "`/a%20b` is percent-encoded\nhint: write the characters themselves: requests are matched on the decoded path",
            ),
            (
                "/users/{id}",
                "`/users/{id}` is not a plain path prefix\nhint: a prefix covers everything below it and knows no patterns",
            ),
        ] {
            assert_eq!(problem::<Prefix>(text), said);
        }
    }

    #[test]
    fn a_mount_is_a_prefix_and_a_target() {
        let mount: Mount = "/api=shop.api:create()".parse().unwrap();
        assert_eq!(mount.prefix.as_str(), "/api");
        assert!(mount.target.factory);
        assert_eq!(mount.to_string(), "/api=shop.api:create()");
        assert_eq!(
            problem::<Mount>("/api:shop"),
            "`/api:shop` does not say what is mounted where\nhint: write `/prefix=module:attr`"
        );
    }

    #[test]
    fn trusted_peers_are_addresses_networks_unix_sockets_or_everyone() {
        for (text, printed) in [
            ("10.0.0.7", "10.0.0.7/32"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("::1", "::1/128"),
            ("fd00::/8", "fd00::/8"),
            ("unix", "unix"),
            ("*", "*"),
        ] {
            assert_eq!(text.parse::<TrustedPeer>().unwrap().to_string(), printed);
        }
        assert_eq!(
            problem::<TrustedPeer>("proxy.local"),
            "`proxy.local` is neither an IP address nor a network\n\
             hint: write `10.0.0.7`, `10.0.0.0/8`, `unix` for unix sockets or `*` for everyone"
        );
    }

    #[test]
    fn numbers_are_whole_and_seconds_may_be_fractions() {
        assert_eq!("40".parse(), Ok(Count(40)));
        assert_eq!(problem::<Count>("-1"), "`-1` is not a whole number");
        assert_eq!("0.5".parse(), Ok(Seconds(Duration::from_millis(500))));
        assert_eq!(
            problem::<Seconds>("-1"),
            "`-1` is not between 0 seconds and a year"
        );
        assert_eq!(
            problem::<Seconds>("NaN"),
            "`NaN` is not between 0 seconds and a year"
        );
        assert_eq!(
            problem::<Seconds>("5s"),
            "`5s` is not a number of seconds\nhint: write the number alone: `30` or `0.5`"
        );
    }
}
