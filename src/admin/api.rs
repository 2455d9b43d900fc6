//! `/migrate`: how rules are now, how far the migration has come, and changes to it.
//!
//! Whoever reaches the listener may read; a change needs the token of the state directory. A page in a browser
//! on the same machine reaches it too, under a name of its own that it has made lead here (DNS rebinding):
//! that is why a TCP listener answers to the names of this machine only.

use std::net::IpAddr;
use std::time::Duration;

use http::header::{ALLOW, HeaderMap};
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::app::{LocalAddr, Request, Response};
use crate::body::Body;
use crate::config::nearest;
use crate::migrate::live::{Author, Change, ChangeError, Edit, Overlay, RuleState};
use crate::migrate::observe::Sample;
use crate::migrate::state_dir::TOKEN;
use crate::migrate::status::{Chart, Status};
use crate::migrate::steward::unix_now;
use crate::migrate::store::{Store, StoreError};
use crate::policy::conditions::parameters_of;
use crate::supervisor::{Control, LiveRules};

/// Bytes of a change; no sensible one has a thousand.
const MAX_BODY: usize = 64 * 1024;
/// What a disk may take to tell what is kept.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// Characters of a reason.
const MAX_REASON: usize = 500;

/// What is said under another name.
pub(super) const NOT_LOCAL: &str =
    "only localhost and loopback addresses are names of this endpoint";

/// All rules as they are now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleList {
    /// Of what was changed live.
    pub version: u64,
    /// In the order of trial.
    pub rules: Vec<RuleView>,
}

/// One rule as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleView {
    pub name: String,
    /// Where it was written.
    pub origin: String,
    pub app: String,
    /// In words: `template /items/{id} owned by new`.
    pub matches: String,
    #[serde(flatten)]
    pub now: RuleState,
    /// What the configuration says.
    pub configured: RuleState,
}

impl RuleList {
    fn new(live: &LiveRules) -> Self {
        let written = Overlay::default();
        let view = |rule: &crate::config::RuleConfig| RuleView {
            name: rule.name.clone(),
            origin: rule.origin.clone(),
            app: rule.app.clone(),
            matches: rule.matches.name(&rule.app),
            now: live.overlay.state(rule),
            configured: written.state(rule),
        };
        Self {
            version: live.overlay.version,
            rules: live.rules.iter().map(view).collect(),
        }
    }
}

/// Whether a path belongs to this part of the endpoint.
pub(super) fn covers(path: &[u8]) -> bool {
    path.strip_prefix(b"/migrate")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Whether a browser may show what is answered: only to pages that came from here. On a unix socket there
/// are no other pages.
pub(super) fn is_local(head: &Parts, local: &LocalAddr) -> bool {
    if matches!(local, LocalAddr::Unix(_)) {
        return true;
    }
    let header = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    authority.or(header).is_some_and(names_this_machine)
}

/// `localhost:9000`, `127.0.0.1`, `[::1]:9000`
fn names_this_machine(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(host, _)| host),
        None => authority.split(':').next(),
    };
    host.is_some_and(|host| {
        host.eq_ignore_ascii_case("localhost")
            || host
                .parse()
                .is_ok_and(|address: IpAddr| address.is_loopback())
    })
}

/// What stands in the way of an answer.
struct Problem {
    status: StatusCode,
    text: String,
}

impl Problem {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { status, text }
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let status = match error {
            ChangeError::UnknownRule { .. } => StatusCode::NOT_FOUND,
            ChangeError::NoPolicy { .. } | ChangeError::RolledBack { .. } => StatusCode::CONFLICT,
            ChangeError::Nothing { .. } => StatusCode::BAD_REQUEST,
            ChangeError::Refused(_) => StatusCode::SERVICE_UNAVAILABLE,
            ChangeError::NotKept(_) => StatusCode::INSUFFICIENT_STORAGE,
        };
        Self::new(status, error.to_string())
    }
}

/// Answers a request that this [`covers`]. `control` is `None` in a server without a supervisor.
pub(super) async fn answer(control: Option<&Control>, mut request: Box<Request>) -> Response {
    let method = request.head.method.clone();
    let answered = match control {
        _ if !is_local(&request.head, &request.conn.local) => {
            Err(Problem::new(StatusCode::FORBIDDEN, NOT_LOCAL))
        }
        None => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "only the command `twinspan` steers migrations, not a server in a program",
        )),
        Some(control) => page(control, &mut request).await,
    };
    let (status, text) = match answered {
        Ok(text) => (StatusCode::OK, text),
        Err(Problem { status, text }) => (status, json!({ "error": text }).to_string()),
    };
    let mut response = respond(status, text, &method);
    let headers = response.headers_mut();
    match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            let changes = request.at.path_info(&request.head) == b"/migrate/change";
            let allowed = if changes { "POST" } else { "GET, HEAD" };
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        _ => {}
    }
    response
}

async fn page(control: &Control, request: &mut Request) -> Result<String, Problem> {
    let reads = matches!(request.head.method, Method::GET | Method::HEAD);
    match request.at.path_info(&request.head) {
        b"/migrate" if reads => {
            let live = control.live();
            let read =
                move |store: &Store| Status::read(store, unix_now(), &live.rules, &live.overlay);
            json_text(&known(control, read).await?)
        }
        b"/migrate/chart" if reads => {
            let read = |store: &Store| Chart::read(store, unix_now());
            json_text(&known(control, read).await?)
        }
        b"/migrate/rules" if reads => json_text(&RuleList::new(&control.live())),
        b"/migrate/differences" if reads => differences(control, &request.head).await,
        b"/migrate/change" if request.head.method == Method::POST => change(control, request).await,
        b"/migrate"
        | b"/migrate/chart"
        | b"/migrate/rules"
        | b"/migrate/differences"
        | b"/migrate/change" => Err(Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "this method means nothing here",
        )),
        _ => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "/migrate, /migrate/chart, /migrate/rules, /migrate/differences and /migrate/change are here",
        )),
    }
}

fn json_text(value: &impl Serialize) -> Result<String, Problem> {
    serde_json::to_string(value)
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// Asks what is kept.
async fn known<T: Send + 'static>(
    control: &Control,
    read: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    let unavailable = |text| Problem::new(StatusCode::SERVICE_UNAVAILABLE, text);
    match tokio::time::timeout(READ_LIMIT, control.known(read)).await {
        Ok(Some(Ok(known))) => Ok(known),
        Ok(Some(Err(error))) => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            error.to_string(),
        )),
        Ok(None) => Err(unavailable("the server is ending")),
        Err(_) => Err(unavailable("the state directory does not answer")),
    }
}

/// The pairs of answers that were found to differ, the newest first.
async fn differences(control: &Control, head: &Parts) -> Result<String, Problem> {
    let (rule, template) = (parameter(head, "rule"), parameter(head, "template"));
    let wanted = move |sample: &Sample| {
        rule.as_ref().is_none_or(|rule| sample.rule == *rule)
            && (template.is_none() || sample.template == template)
    };
    let samples = known(control, move |store| {
        let samples = store.samples()?;
        Ok(samples.into_iter().filter(wanted).collect::<Vec<_>>())
    });
    json_text(&json!({ "samples": samples.await? }))
}

async fn change(control: &Control, request: &mut Request) -> Result<String, Problem> {
    authorize(control.token(), &request.head.headers)?;
    let dry_run = parameter(&request.head, "dry_run").is_some_and(|value| value != "0");
    let change = parse(&read(&mut request.body).await?)?;
    let author = Author::Operator {
        uid: request.conn.peer_uid,
    };
    json_text(&control.change(change, author, dry_run).await?)
}

/// A parameter of the query.
fn parameter(head: &Parts, name: &str) -> Option<String> {
    let mut parameters = parameters_of(head.uri.query().unwrap_or_default());
    let found = parameters.find(|(found, _)| found == name);
    found.map(|(_, value)| value.into_owned())
}

fn authorize(token: Option<&str>, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(token) = token else {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "nothing can be changed without a state directory: start the server with \
             `--state-dir DIRECTORY`, which holds the token that changes need",
        ));
    };
    let Some(given) = headers.get(AUTHORIZATION) else {
        let text = format!(
            "a change needs the token in `{TOKEN}` of the state directory: `Authorization: Bearer TOKEN`"
        );
        return Err(Problem::new(StatusCode::UNAUTHORIZED, text));
    };
    let given = given.as_bytes();
    let is_right = given
        .split_at_checked(b"bearer ".len())
        .is_some_and(|(scheme, given)| {
            scheme.eq_ignore_ascii_case(b"bearer ")
                && are_equal(given.trim_ascii(), token.as_bytes())
        });
    if is_right {
        Ok(())
    } else {
        tracing::warn!("a change with a wrong token was refused");
        let text = format!("this is not the token in `{TOKEN}` of the state directory");
        Err(Problem::new(StatusCode::FORBIDDEN, text))
    }
}

/// Whether both are the same, in a time that does not tell where they differ.
fn are_equal(one: &[u8], other: &[u8]) -> bool {
    let difference = one.iter().zip(other).fold(0, |all, (one, other)| {
        std::hint::black_box(all | (one ^ other))
    });
    one.len() == other.len() && difference == 0
}

async fn read(body: &mut Body) -> Result<Vec<u8>, Problem> {
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let data =
            data.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.to_string()))?;
        if text.len() + data.len() > MAX_BODY {
            let text = format!("a change has at most {MAX_BODY} bytes");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        text.extend_from_slice(&data);
    }
    Ok(text)
}

/// Reads a change, and lets nothing pass that would be without effect.
fn parse(text: &[u8]) -> Result<Change, Problem> {
    let bad = |text: String| Problem::new(StatusCode::BAD_REQUEST, text);
    let change: Change =
        serde_json::from_slice(text).map_err(|error| bad(format!("this is no change: {error}")))?;
    let known: &[&str] = match &change.edit {
        Edit::Set { .. } => &["rule", "edit", "canary", "shadow"],
        Edit::RollBack { .. } => &["rule", "edit", "reason"],
        Edit::Reset => &["rule", "edit"],
    };
    let written: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(text).map_err(|error| bad(error.to_string()))?;
    if let Some(other) = written.keys().find(|key| !known.contains(&key.as_str())) {
        let near = nearest(other, known.iter().copied());
        let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        return Err(bad(format!(
            "this is no change: there is no `{other}` in it{near}"
        )));
    }
    if let Edit::RollBack { reason } = &change.edit
        && (reason.chars().count() > MAX_REASON || reason.chars().any(char::is_control))
    {
        let text = format!("`reason` is one line of at most {MAX_REASON} characters");
        return Err(bad(text));
    }
    Ok(change)
}

fn respond(status: StatusCode, mut text: String, method: &Method) -> Response {
    text.push('\n');
    let length = HeaderValue::from(text.len());
    let body = match *method {
        Method::HEAD => Body::empty(),
        _ => Body::from(text),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(CONTENT_LENGTH, length);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for (host, expected) in [
            ("localhost", true),
            ("LocalHost:9000", true),
            ("127.0.0.1:9000", true),
            ("127.9.9.9", true),
            ("[::1]:9000", true),
            ("[::1]", true),
            ("", false),
            ("rebound.example", false),
            ("localhost.example:9000", false),
            ("127.0.0.1.example", false),
            ("192.0.2.1:9000", false),
            ("[2001:db8::1]", false),
            ("[::1", false),
            ("::1", false),
        ] {
            assert_eq!(names_this_machine(host), expected, "{host}");
        }
    }

    #[test]
    fn a_change_needs_the_token_and_a_place_that_holds_one() {
        let token = "0123456789abcdef0123456789abcdef";
        let status = |token, given: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(given) = given {
                headers.insert(AUTHORIZATION, given.parse().unwrap());
            }
            let refused = authorize(token, &headers).err();
            refused.map(|problem| problem.status.as_u16())
        };
        for (given, expected) in [
            (None, Some(401)),
            (Some("Bearer 0123456789abcdef0123456789abcdef"), None),
            (Some("bearer  0123456789abcdef0123456789abcdef"), None),
            (Some("Bearer 0123456789abcdef0123456789abcdeF"), Some(403)),
            (Some("Bearer 0123456789abcdef"), Some(403)),
            (Some("Bearer 0123456789abcdef0123456789abcdef0"), Some(403)),
            (Some("Bearer "), Some(403)),
            (Some(""), Some(403)),
            (Some("Basic 0123456789abcdef0123456789abcdef"), Some(403)),
        ] {
            assert_eq!(status(Some(token), given), expected, "{given:?}");
        }
        assert_eq!(status(None, Some("Bearer x")), Some(403));
    }

    #[test]
    fn a_change_that_cannot_be_read_is_refused_with_the_place() {
        let problem = |text: &str| parse(text.as_bytes()).err().map(|problem| problem.text);
        assert_eq!(
            problem(r#"{"rule":"items","edit":"set","canary":25}"#),
            None
        );
        assert_eq!(problem(r#"{"rule":"items","edit":"reset"}"#), None);
        for (text, expected) in [
            (
                "",
                "this is no change: EOF while parsing a value at line 1 column 0",
            ),
            ("[]", "this is no change: "),
            (
                r#"{"rule":"items"}"#,
                "this is no change: missing field `edit`",
            ),
            (
                r#"{"rule":"items","edit":"set","canary":101}"#,
                "this is no change: `101` is not between 0 and 100 percent",
            ),
            (
                r#"{"rule":"items","edit":"set","canary":1,"shdow":5}"#,
                "this is no change: there is no `shdow` in it; did you mean `shadow`?",
            ),
            (
                r#"{"rule":"items","edit":"roll_back","reason":"a\nb"}"#,
                "`reason` is one line of at most 500 characters",
            ),
        ] {
            let problem = problem(text).unwrap();
            assert!(problem.starts_with(expected), "{problem}");
        }
    }
}
