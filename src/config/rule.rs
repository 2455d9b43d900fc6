//! Rules: which requests they take, and what becomes of those that they take.
//!
//! Conditions of one rule all have to hold. What a rule passes on (the rest of a canary, a copy's
//! original, an answer that falls through) goes to the rules below it that lead to other applications.

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderName, Method, StatusCode};
use ipnet::IpNet;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::error::InvalidValue;
use crate::app::shape;

/// One rule of the table, in the order of trial.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleConfig {
    /// Unique, and stable while the rule is: what people, `twinspan ctl` and stored results call it. Without a
    /// name of its own a rule is called by what it matches, see [`RuleMatch::name`].
    pub name: String,
    /// Name of an entry of [`Config::apps`](super::Config::apps).
    pub app: String,
    pub matches: RuleMatch,
    /// Takes a part of the requests that match; without one it takes all.
    pub canary: Option<CanaryConfig>,
    /// Sends copies of requests that were answered by others.
    pub shadow: Option<ShadowConfig>,
    pub fallthrough: Option<FallthroughConfig>,
    /// What `[apps.NAME]` says of whether the application is the one to migrate from. It goes with the rules,
    /// because nothing else of the configuration changes what a migration is.
    pub legacy: Option<bool>,
    /// Where the rule was written, for errors: `--mount /api`, `twinspan.toml:12`.
    pub origin: String,
}

impl RuleConfig {
    /// A rule without policies, called by what it matches.
    pub fn new(app: impl Into<String>, matches: RuleMatch, origin: impl Into<String>) -> Self {
        let app = app.into();
        Self {
            name: matches.name(&app),
            app,
            matches,
            canary: None,
            shadow: None,
            fallthrough: None,
            legacy: None,
            origin: origin.into(),
        }
    }

    /// Whether requests that match may be answered by a rule below.
    pub fn passes_on(&self) -> bool {
        self.canary.is_some() || self.shadow.is_some() || self.fallthrough.is_some()
    }
}

/// What a rule matches: all of it has to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleMatch {
    pub location: Location,
    /// Only what the application's own router defines.
    pub owned: bool,
    pub conditions: Conditions,
}

impl RuleMatch {
    pub fn at(location: Location) -> Self {
        Self {
            location,
            owned: false,
            conditions: Conditions::default(),
        }
    }

    /// The path and everything below it; the prefix is cut off. `""` matches all.
    pub fn mount(prefix: impl Into<String>) -> Self {
        Self::at(Location::Mount(prefix.into()))
    }

    /// The path and everything below it; nothing is cut off.
    pub fn path(prefix: impl Into<String>) -> Self {
        Self::at(Location::Path(prefix.into()))
    }

    /// Exactly what the application's own router defines.
    pub fn owned() -> Self {
        Self {
            owned: true,
            ..Self::mount("")
        }
    }

    /// Whether it takes whatever comes.
    pub fn is_catch_all(&self) -> bool {
        !self.owned && self.location.is_everywhere() && self.conditions.is_empty()
    }

    /// Whether it is for a method (`*` stands for all).
    fn allows(&self, method: &str) -> bool {
        let methods = &self.conditions.methods;
        method == "*" || methods.is_empty() || methods.iter().any(|it| it.as_str() == method)
    }

    /// The path at which requests meet a route of the rule's application under this rule, for one of its
    /// methods (`*` stands for all). `None` where the rule does not lead there, whatever else a request has.
    pub fn leads_to(&self, template: &str, method: &str) -> Option<String> {
        if !self.allows(method) {
            return None;
        }
        if let Location::Mount(prefix) = &self.location {
            return Some(format!("{prefix}{template}"));
        }
        self.location
            .has(&example(template))
            .then(|| template.to_owned())
    }

    /// Whether it is for a method (`*` stands for all) of a path, whatever else a request has. One that asks for
    /// the host, a header field, a cookie or the query is not.
    pub fn is_for(&self, path: &str, method: &str) -> bool {
        let Conditions {
            host,
            methods: _,
            headers,
            cookies,
            query,
        } = &self.conditions;
        host.is_none()
            && headers.is_empty()
            && cookies.is_empty()
            && query.is_empty()
            && self.allows(method)
            && self.location.has(path)
    }

    /// The name of a rule that has none of its own: `mount /api`, `path /live`, `owned by new`,
    /// `template /items/{id} GET`, `catch-all`.
    pub fn name(&self, app: &str) -> String {
        if self.is_catch_all() {
            return "catch-all".into();
        }
        let mut parts = Vec::new();
        match &self.location {
            location if location.is_everywhere() => {}
            location => parts.push(location.to_string()),
        }
        if self.owned {
            parts.push(format!("owned by {app}"));
        }
        let conditions = self.conditions.to_string();
        if !conditions.is_empty() {
            parts.push(conditions);
        }
        parts.join(" ")
    }
}

/// A path of the form of an application's template. A number is what every kind of parameter takes.
pub fn example(template: &str) -> String {
    shape(template).replace("{}", "0")
}

/// Where a rule applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// The path and everything below it; the prefix is cut off and becomes `root_path` / `SCRIPT_NAME`. `""` matches all.
    Mount(String),
    /// The path and everything below it; nothing is cut off.
    Path(String),
    /// Paths of one form; nothing is cut off.
    Template(Template),
}

impl Location {
    pub fn is_everywhere(&self) -> bool {
        matches!(self, Self::Mount(prefix) | Self::Path(prefix) if prefix.is_empty())
    }

    /// Whether a decoded path is there.
    fn has(&self, path: &str) -> bool {
        match self {
            Self::Mount(prefix) | Self::Path(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::Template(template) => template.matches(path),
        }
    }
}

/// `mount /api`, `path /live`, `template /items/{id}`
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, place) = match self {
            Self::Mount(prefix) => ("mount", prefix.as_str()),
            Self::Path(prefix) => ("path", prefix.as_str()),
            Self::Template(template) => ("template", template.as_str()),
        };
        write!(f, "{kind} {}", if place.is_empty() { "/" } else { place })
    }
}

/// What else has to hold of a request; an empty condition always does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Of the host without its port.
    pub host: Option<Glob>,
    /// HEAD follows GET, and a CORS preflight the method that it asks for.
    pub methods: Vec<Method>,
    /// One of the values of each field has to match.
    pub headers: Vec<(HeaderName, Glob)>,
    pub cookies: Vec<(String, Glob)>,
    /// Of the decoded query.
    pub query: Vec<(String, Glob)>,
}

impl Conditions {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut part = |f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>| {
            f.write_str(std::mem::replace(&mut separator, " "))?;
            f.write_fmt(text)
        };
        if !self.methods.is_empty() {
            let methods: Vec<_> = self.methods.iter().map(Method::as_str).collect();
            part(f, format_args!("{}", methods.join(",")))?;
        }
        if let Some(host) = &self.host {
            part(f, format_args!("host {host}"))?;
        }
        for (name, value) in &self.headers {
            part(f, format_args!("header {name}={value}"))?;
        }
        for (name, value) in &self.cookies {
            part(f, format_args!("cookie {name}={value}"))?;
        }
        for (name, value) in &self.query {
            part(f, format_args!("query {name}={value}"))?;
        }
        Ok(())
    }
}

/// A part of the requests goes to the application of the rule, the rest to the rules below.
#[derive(Debug, Clone, PartialEq)]
pub struct CanaryConfig {
    pub percent: Percent,
    /// By what a client is told from others: it stays on the side where it was.
    pub sticky: Sticky,
    /// Clients that may choose the application by [`USE_HEADER`](crate::policy::canary::USE_HEADER).
    pub testers: Vec<IpNet>,
    /// When the canary goes back to nothing by itself.
    pub rollback: Option<RollbackConfig>,
}

/// What is worse than the application below, so much that the canary ends.
#[derive(Debug, Clone, PartialEq)]
pub struct RollbackConfig {
    /// Answers with 500 and above, in points above those of the application below; sure to 95 %.
    pub errors: Percent,
    /// The 95th percentile of the time to answer, as a multiple of that below.
    pub latency: Option<f64>,
    /// Shadow copies that were answered differently.
    pub differences: Option<Percent>,
    /// Nothing is judged before so many requests.
    pub samples: u64,
    /// So far back is looked.
    pub window: Duration,
}

impl Default for RollbackConfig {
    fn default() -> Self {
        Self {
            errors: Percent::ONE,
            latency: None,
            differences: None,
            samples: 50,
            window: Duration::from_secs(300),
        }
    }
}

/// Copies of requests that others have answered go to the application of the rule, and its answers are
/// compared with theirs.
#[derive(Debug, Clone, PartialEq)]
pub struct ShadowConfig {
    /// Of the requests that match and that the rule does not take itself.
    pub percent: Percent,
    pub methods: Vec<Method>,
    /// Copies at a time, in each worker; more are not sent.
    pub concurrency: usize,
    /// Bytes of a body, of request and response each, that are kept to be compared.
    pub max_body: usize,
    /// A copy that is not answered within this is given up.
    pub timeout: Duration,
    pub compare: CompareConfig,
}

impl ShadowConfig {
    pub fn new(percent: Percent) -> Self {
        Self {
            percent,
            methods: vec![Method::GET, Method::HEAD],
            concurrency: 2,
            max_body: 256 * 1024,
            timeout: Duration::from_secs(5),
            compare: CompareConfig::default(),
        }
    }
}

/// What counts as a difference.
#[derive(Debug, Clone, PartialEq)]
pub struct CompareConfig {
    /// Header fields that are compared beside `content-type`, `location` and the names and attributes of cookies.
    pub headers: Vec<HeaderName>,
    /// Places in JSON that may differ: `$.items[*].updated_at`.
    pub ignore: Vec<JsonPath>,
    /// Lines of a text that may differ, where both match: `*name="csrf"*`.
    pub ignore_lines: Vec<Glob>,
    /// Lists in JSON whose order does not matter.
    pub unordered: Vec<JsonPath>,
    /// Numbers may differ by this part of the larger one.
    pub tolerance: f64,
    /// Asks the application that answered once more before a difference counts, and leaves out what differs
    /// between its own two answers; for GET and HEAD only.
    pub noise: bool,
}

impl Default for CompareConfig {
    fn default() -> Self {
        Self {
            headers: Vec::new(),
            ignore: Vec::new(),
            ignore_lines: Vec::new(),
            unordered: Vec::new(),
            tolerance: 0.0,
            noise: true,
        }
    }
}

/// An answer of the application that counts as none: the rules below are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FallthroughConfig {
    pub statuses: Vec<StatusCode>,
    pub methods: Vec<Method>,
    /// Bytes of a request body that are kept in memory to be sent again.
    pub memory: usize,
    /// Bytes that are kept in a temporary file beyond that; a longer body stays with the first application.
    pub file: u64,
}

impl FallthroughConfig {
    pub fn new(statuses: Vec<StatusCode>) -> Self {
        Self {
            statuses,
            methods: vec![Method::GET, Method::HEAD, Method::OPTIONS],
            memory: 64 * 1024,
            file: 16 * 1024 * 1024,
        }
    }
}

/// A share in hundredths of a percent, 0 to 100 %.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u16);

impl Percent {
    pub const NONE: Self = Self(0);
    pub const ONE: Self = Self(100);
    pub const ALL: Self = Self(10_000);

    /// 0 to 10 000 hundredths.
    pub fn hundredths(self) -> u16 {
        self.0
    }

    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    fn new(percent: f64) -> Result<Self, InvalidValue> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(InvalidValue::new(format!(
                "`{percent}` is not between 0 and 100 percent"
            )));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 10 000"
        )]
        let hundredths = (percent * 100.0).round() as u16;
        if hundredths == 0 && percent > 0.0 {
            return Err(
                InvalidValue::new(format!("`{percent}` is less than can be told apart"))
                    .hint("write at least 0.01"),
            );
        }
        Ok(Self(hundredths))
    }
}

impl FromStr for Percent {
    type Err = InvalidValue;

    /// `10`, `2.5`, `10%`
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_suffix('%').unwrap_or(text).trim_end();
        let percent = number.parse().map_err(|_| {
            InvalidValue::new(format!("`{text}` is not a percentage"))
                .hint("write a number from 0 to 100: `10` or `2.5`")
        })?;
        Self::new(percent)
    }
}

/// `10`, `2.5`
impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_f64().fmt(f)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_f64())
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Number::deserialize(deserializer)
            .and_then(|Number(percent)| Self::new(percent).map_err(de::Error::custom))
    }
}

/// A number, whole or not.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Number(pub f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Number, E> {
                Ok(Number(number))
            }

            #[expect(clippy::cast_precision_loss, reason = "nobody means such numbers")]
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Number, E> {
                Ok(Number(number as f64))
            }

            #[expect(clippy::cast_precision_loss, reason = "nobody means such numbers")]
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Number, E> {
                Ok(Number(number as f64))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// By what a client is recognised.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Sticky {
    /// Its address, as trusted proxies tell it.
    #[default]
    Client,
    /// The value of a cookie; the address where a request has none.
    Cookie(String),
    /// The value of a header field; the address where a request has none.
    Header(HeaderName),
}

impl FromStr for Sticky {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let forms = || {
            InvalidValue::new(format!("`{text}` does not say how clients are recognised"))
                .hint("write `client` (its address), `cookie:NAME` or `header:NAME`")
        };
        match text.split_once(':') {
            None if text == "client" => Ok(Self::Client),
            Some(("cookie", name)) if is_token(name) => Ok(Self::Cookie(name.into())),
            Some(("header", name)) => name.parse().map(Self::Header).map_err(|_| forms()),
            _ => Err(forms()),
        }
    }
}

impl fmt::Display for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Header(name) => write!(f, "header:{name}"),
        }
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && HeaderName::from_bytes(text.as_bytes()).is_ok()
}

/// A text in which `*` stands for any characters, or none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Glob(String);

impl Glob {
    pub fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
                None => return false,
            }
        }
        rest.len() >= last.len() && rest.ends_with(last)
    }

    /// The same, in lower case.
    #[must_use]
    pub fn to_lowercase(&self) -> Self {
        Self(self.0.to_lowercase())
    }
}

impl FromStr for Glob {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The form of a path: `/items/{id}`, `/items/{id:int}`, `/files/{rest:path}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    segments: Vec<TemplateSegment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TemplateSegment {
    Literal(String),
    /// One segment that is not empty.
    Any,
    /// Digits.
    Int,
    /// Everything that is left, slashes included.
    Rest,
}

impl Template {
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a decoded path has this form.
    pub fn matches(&self, path: &str) -> bool {
        let Some(path) = path.strip_prefix('/') else {
            return false;
        };
        let mut rest = Some(path);
        for expected in &self.segments {
            let Some(path) = rest else {
                return false;
            };
            if *expected == TemplateSegment::Rest {
                return true;
            }
            let (segment, after) = match path.split_once('/') {
                Some((segment, after)) => (segment, Some(after)),
                None => (path, None),
            };
            let fits = match expected {
                TemplateSegment::Literal(text) => segment == text,
                TemplateSegment::Any => !segment.is_empty(),
                TemplateSegment::Int => {
                    !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit())
                }
                TemplateSegment::Rest => true,
            };
            if !fits {
                return false;
            }
            rest = after;
        }
        rest.is_none()
    }

    /// A path of this form, with parameters that hardly any literal is like.
    pub fn example(&self) -> String {
        let mut path = String::new();
        for segment in &self.segments {
            path.push('/');
            path.push_str(match segment {
                TemplateSegment::Literal(text) => text,
                TemplateSegment::Any => "qqq",
                TemplateSegment::Int => "777",
                TemplateSegment::Rest => "qqq/777",
            });
        }
        path
    }
}

impl FromStr for Template {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |problem: &str| InvalidValue::new(format!("`{text}` {problem}"));
        let Some(path) = text.strip_prefix('/') else {
            return Err(invalid("does not begin with a slash").hint(format!("write `/{text}`")));
        };
        let mut segments = Vec::new();
        for segment in path.split('/') {
            if segments.last() == Some(&TemplateSegment::Rest) {
                return Err(invalid("goes on after a `path` parameter")
                    .hint("a `path` parameter takes everything that is left"));
            }
            let parameter = segment
                .strip_prefix('{')
                .and_then(|rest| rest.strip_suffix('}'));
            segments.push(match parameter {
                Some(parameter) => match parameter.split_once(':') {
                    None | Some((_, "str")) => TemplateSegment::Any,
                    Some((_, "int")) => TemplateSegment::Int,
                    Some((_, "path")) => TemplateSegment::Rest,
                    Some((_, other)) => {
                        return Err(invalid(&format!("has a parameter of the kind `{other}`"))
                            .hint("known are `{name}`, `{name:int}` and `{name:path}`"));
                    }
                },
                None if segment.contains(['{', '}', '<', '>']) => {
                    return Err(invalid("has a segment that is a parameter in part").hint(
                        "a parameter is a whole segment, `/items/{id}`; `when = \"owned\"` knows \
                         every form that the application's router knows",
                    ));
                }
                None if segment.contains(['%', '?', '#']) => {
                    return Err(invalid("is no decoded path")
                        .hint("write the characters themselves, and no query"));
                }
                None => TemplateSegment::Literal(segment.into()),
            });
        }
        Ok(Self {
            text: text.into(),
            segments,
        })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A place in a JSON document, or many: `$.items[*].updated_at`, `$..etag`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JsonPath(Vec<JsonStep>);

/// One step down into a JSON document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum JsonStep {
    /// `.name` or `["name"]`
    Key(String),
    /// `[3]`
    Index(usize),
    /// `.*` or `[*]`
    Any,
    /// `..`: any number of steps, none included.
    Deep,
}

impl JsonPath {
    pub fn steps(&self) -> &[JsonStep] {
        &self.0
    }
}

impl FromStr for JsonPath {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || {
            InvalidValue::new(format!("`{text}` is not a place in JSON"))
                .hint("write `$.name`, `$.items[*].name`, `$.items[0]` or `$..name`")
        };
        let mut rest = text.strip_prefix('$').ok_or_else(invalid)?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('[') {
                let (inside, after) = after.split_once(']').ok_or_else(invalid)?;
                let quoted = inside
                    .strip_prefix('"')
                    .and_then(|inside| inside.strip_suffix('"'));
                steps.push(match (inside, quoted) {
                    ("*", _) => JsonStep::Any,
                    (_, Some(key)) => JsonStep::Key(key.into()),
                    (index, None) => JsonStep::Index(index.parse().map_err(|_| invalid())?),
                });
                rest = after;
                continue;
            }
            let mut after = rest.strip_prefix('.').ok_or_else(invalid)?;
            if let Some(deeper) = after.strip_prefix('.') {
                steps.push(JsonStep::Deep);
                after = deeper;
                if after.starts_with('[') {
                    rest = after;
                    continue;
                }
            }
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (name, next) = after.split_at_checked(end).ok_or_else(invalid)?;
            steps.push(match name {
                "" => return Err(invalid()),
                "*" => JsonStep::Any,
                name => JsonStep::Key(name.into()),
            });
            rest = next;
        }
        Ok(Self(steps))
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('$')?;
        let mut deep = false;
        for step in &self.0 {
            match step {
                JsonStep::Deep => f.write_str("..")?,
                JsonStep::Key(key) if key.contains(['.', '[', ']']) => write!(f, "[\"{key}\"]")?,
                JsonStep::Key(key) => {
                    f.write_str(if deep { "" } else { "." })?;
                    f.write_str(key)?;
                }
                JsonStep::Index(index) => write!(f, "[{index}]")?,
                JsonStep::Any => f.write_str("[*]")?,
            }
            deep = *step == JsonStep::Deep;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_matches_paths_of_its_form() {
        for (template, path, expected) in [
            ("/", "/", true),
            ("/", "", false),
            ("/items", "/items", true),
            ("/items", "/items/", false),
            ("/items/", "/items/", true),
            ("/items/{id}", "/items/7", true),
            ("/items/{id}", "/items/", false),
            ("/items/{id}", "/items/7/8", false),
            ("/items/{id:int}", "/items/7", true),
            ("/items/{id:int}", "/items/x7", false),
            ("/files/{rest:path}", "/files/a/b", true),
            ("/files/{rest:path}", "/files/", true),
            ("/files/{rest:path}", "/files", false),
            ("/{a}/{b}", "/x/y", true),
        ] {
            let parsed: Template = template.parse().unwrap();
            assert_eq!(parsed.matches(path), expected, "{template} {path}");
        }
    }

    #[test]
    fn a_rule_leads_to_routes_and_is_for_paths() {
        let get = Conditions {
            methods: vec![Method::GET],
            ..Conditions::default()
        };
        let beta = Conditions {
            cookies: vec![("beta".into(), "*".parse().unwrap())],
            ..Conditions::default()
        };
        let only = |conditions: &Conditions| RuleMatch {
            conditions: conditions.clone(),
            ..RuleMatch::mount("")
        };
        let template = |text: &str| RuleMatch::at(Location::Template(text.parse().unwrap()));
        for (rule, route, met, is_for) in [
            (RuleMatch::mount(""), "GET /a", Some("/a"), true),
            (RuleMatch::mount("/api"), "GET /a", Some("/api/a"), false),
            (
                RuleMatch::mount("/api"),
                "GET /api/a",
                Some("/api/api/a"),
                true,
            ),
            (RuleMatch::path("/api"), "GET /api/a", Some("/api/a"), true),
            (RuleMatch::path("/api"), "GET /apiary", None, false),
            (template("/a/{b}"), "* /a/<int:b>", Some("/a/<int:b>"), true),
            (template("/a/{b:int}"), "GET /a/{b}", Some("/a/{b}"), true),
            (template("/a/{b}"), "GET /a/new", Some("/a/new"), true),
            (template("/a/new"), "GET /a/{b}", None, false),
            (only(&get), "GET /a", Some("/a"), true),
            (only(&get), "* /a", Some("/a"), true),
            (only(&get), "POST /a", None, false),
            (only(&beta), "GET /a", Some("/a"), false),
        ] {
            let (method, path) = route.split_once(' ').unwrap();
            assert_eq!(
                rule.leads_to(path, method).as_deref(),
                met,
                "{rule:?} {route}"
            );
            assert_eq!(
                rule.is_for(&example(path), method),
                is_for,
                "{rule:?} {route}"
            );
        }
    }

    #[test]
    fn a_glob_matches_whole_texts() {
        for (glob, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("*", "x", true),
            ("a*", "abc", true),
            ("*.example.org", "api.example.org", true),
            ("*.example.org", "example.org", false),
            ("a*a", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
        ] {
            let parsed: Glob = glob.parse().unwrap();
            assert_eq!(parsed.matches(text), expected, "{glob} {text}");
        }
    }

    #[test]
    fn values_print_as_they_were_read() {
        for text in [
            "$",
            "$.a",
            "$.a[*].b",
            "$..b",
            "$.a[3]",
            "$[\"a.b\"].c",
            "$..[0]",
        ] {
            assert_eq!(text.parse::<JsonPath>().unwrap().to_string(), text);
        }
        for text in ["client", "cookie:session", "header:x-user"] {
            assert_eq!(text.parse::<Sticky>().unwrap().to_string(), text);
        }
        for text in ["0", "10", "2.5", "0.01", "100"] {
            assert_eq!(text.parse::<Percent>().unwrap().to_string(), text);
        }
        assert_eq!("10 %".parse::<Percent>().unwrap().hundredths(), 1000);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in ["items", "/a/{b}c", "/{a:path}/b", "/{a:uuid}", "/a%20b"] {
            assert!(text.parse::<Template>().is_err(), "{text}");
        }
        for text in ["", "a", "$a", "$.", "$[x]", "$.a[", "$.."] {
            assert!(text.parse::<JsonPath>().is_err(), "{text}");
        }
        for text in ["-1", "101", "x", "", "0.001", "NaN"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
        for text in ["ip", "cookie:", "header:a b", "cookie:a b"] {
            assert!(text.parse::<Sticky>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_rule_without_a_name_is_called_by_what_it_matches() {
        let template = Location::Template("/items/{id}".parse().unwrap());
        let conditions = Conditions {
            host: Some("*.example.org".parse().unwrap()),
            methods: vec![Method::GET, Method::POST],
            headers: vec![(HeaderName::from_static("x-beta"), "1".parse().unwrap())],
            cookies: vec![("beta".into(), "*".parse().unwrap())],
            query: vec![("v".into(), "2".parse().unwrap())],
        };
        for (matches, name) in [
            (RuleMatch::mount(""), "catch-all"),
            (RuleMatch::mount("/api"), "mount /api"),
            (RuleMatch::path("/live"), "path /live"),
            (RuleMatch::owned(), "owned by new"),
            (RuleMatch::at(template.clone()), "template /items/{id}"),
            (
                RuleMatch {
                    location: template,
                    owned: true,
                    conditions: conditions.clone(),
                },
                "template /items/{id} owned by new GET,POST host *.example.org header x-beta=1 \
                 cookie beta=* query v=2",
            ),
            (
                RuleMatch {
                    conditions: Conditions {
                        methods: vec![Method::GET],
                        ..Conditions::default()
                    },
                    ..RuleMatch::mount("")
                },
                "GET",
            ),
        ] {
            assert_eq!(matches.name("new"), name);
        }
    }
}
