//! Shadow: a sampled copy of a request goes to the new application after its client has the answer of the old
//! one, and the two answers are compared.
//!
//! A copy can neither change nor fail what the client gets: it begins when the last byte of that is handed
//! to the connection. What it costs others is bounded: few run at a time, none waits for its turn, and none is
//! sent while requests of clients wait for an application.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Method, StatusCode};
use tracing::debug;

use super::canary::is_turn;
use super::compare::{Asked, Capture, Captured, Difference, compare, redacted, without_noise};
use super::fallthrough::{Replay, replayable};
use crate::app::{ConnInfo, Origin, Request, Response};
use crate::config::rule::{Percent, RuleConfig, ShadowConfig};
use crate::drain::Drain;
use crate::metrics::traffic::counted_method;
use crate::migrate::observe::{Comparisons, Observations, Sample};
use crate::route::{App, MountPoint};

/// Marks a copy, beside `environ["twinspan.shadow"]` and `scope["extensions"]["twinspan.shadow"]`. Taken off
/// what clients send.
pub const SHADOW_HEADER: HeaderName = HeaderName::from_static("x-twinspan-shadow");

/// Samples that wait to be told.
const SAMPLES: usize = 50;

/// The shadow of one rule.
#[derive(Debug)]
pub struct Shadow {
    rule: String,
    config: ShadowConfig,
    turn: AtomicU64,
    /// Copies whose originals are on their way to their clients, or that are sent themselves.
    kept: AtomicUsize,
    running: AtomicUsize,
    seen: Mutex<Seen>,
}

/// For each copy that may run so many originals may be watched; each is kept up to the limit of a body.
const KEPT_PER_SLOT: usize = 16;
/// An application that does not answer in time keeps its place for so many times longer: what it does goes on, and
/// another copy would be lost beside it.
const LATE: u32 = 10;

/// What was compared since that was last told.
#[derive(Debug, Default)]
struct Seen {
    counts: HashMap<Place, Counts>,
    samples: Vec<Sample>,
}

/// Where a copy counts: method and route.
type Place = (&'static str, Option<Arc<str>>);

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    same: u64,
    different: u64,
    failed: u64,
    shed: u64,
}

/// What came of one copy.
#[derive(Debug)]
enum Outcome {
    Same,
    Different(Vec<Difference>),
    /// The application failed, or took too long.
    Failed(&'static str),
    /// There was no time for it.
    Shed,
}

impl Shadow {
    pub fn new(rule: &RuleConfig, config: &ShadowConfig) -> Arc<Self> {
        Arc::new(Self {
            rule: rule.name.clone(),
            config: config.clone(),
            turn: AtomicU64::new(0),
            kept: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            seen: Mutex::default(),
        })
    }

    /// The copy of a request for `app` at `at`, if this one is to be copied. What the body needs to be
    /// copied is put into its place.
    pub fn copy(
        self: &Arc<Self>,
        share: Percent,
        app: &Arc<App>,
        at: MountPoint,
        request: &mut Request,
    ) -> Option<ShadowCopy> {
        if share == Percent::NONE
            || !self.config.methods.contains(&request.head.method)
            || !is_turn(&self.turn, u64::from(share.hundredths()))
        {
            return None;
        }
        let limit = self.config.concurrency * KEPT_PER_SLOT;
        if self.kept.fetch_add(1, Relaxed) >= limit {
            self.kept.fetch_sub(1, Relaxed);
            let route = at.route.as_ref().map(|route| Arc::clone(&route.template));
            let place = (counted_method(&request.head.method), route);
            self.note(place, request.head.uri.path(), Outcome::Shed);
            return None;
        }
        let body = if request.body.is_finished() {
            None
        } else {
            let body = std::mem::take(&mut request.body);
            let (body, replay) = replayable(body, self.config.max_body, 0);
            request.body = body;
            Some(replay)
        };
        let mut head = request.head.clone();
        head.headers
            .insert(SHADOW_HEADER, HeaderValue::from_static("1"));
        Some(ShadowCopy {
            shadow: Arc::clone(self),
            new: (Arc::clone(app), at),
            old: None,
            head,
            body,
            origin: request.origin,
            conn: Arc::clone(&request.conn),
            answer: None,
        })
    }

    /// What was compared since this was last asked.
    pub fn take(&self, observations: &mut Observations) {
        let seen = std::mem::take(&mut *self.lock());
        let counts = seen.counts.into_iter();
        let comparisons = counts.map(|((method, template), counts)| Comparisons {
            rule: self.rule.clone(),
            method: method.into(),
            template: template.map(|template| template.to_string()),
            same: counts.same,
            different: counts.different,
            failed: counts.failed,
            shed: counts.shed,
        });
        observations.comparisons.extend(comparisons);
        observations.samples.extend(seen.samples);
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, (method, template): Place, path: &str, outcome: Outcome) {
        let mut seen = self.lock();
        let counts = seen.counts.entry((method, template.clone())).or_default();
        match outcome {
            Outcome::Same => counts.same += 1,
            Outcome::Failed(why) => {
                counts.failed += 1;
                debug!(rule = self.rule, path, why, "a copy was not answered");
            }
            Outcome::Shed => counts.shed += 1,
            Outcome::Different(differences) => {
                counts.different += 1;
                if seen.samples.len() < SAMPLES {
                    seen.samples.push(Sample {
                        rule: self.rule.clone(),
                        method: method.into(),
                        template: template.map(|template| template.to_string()),
                        path: path.into(),
                        at: SystemTime::now()
                            .duration_since(SystemTime::UNIX_EPOCH)
                            .map_or(0, |now| now.as_secs()),
                        differences,
                    });
                }
            }
        }
    }

    /// The right to send a copy now, where there is one.
    fn slot(&self) -> Option<Slot<'_>> {
        let limit = self.config.concurrency;
        let free = |running: usize| (running < limit).then_some(running + 1);
        self.running.fetch_update(Relaxed, Relaxed, free).ok()?;
        Some(Slot(self))
    }
}

struct Slot<'a>(&'a Shadow);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Relaxed);
    }
}

/// A copy of one request, until its original is answered.
pub struct ShadowCopy {
    shadow: Arc<Shadow>,
    /// Where the copy goes.
    new: (Arc<App>, MountPoint),
    /// Who answers the client.
    old: Option<(Arc<App>, MountPoint)>,
    head: Parts,
    body: Option<Replay>,
    origin: Origin,
    conn: Arc<ConnInfo>,
    /// What the client gets.
    answer: Option<Answer>,
}

/// An answer on its way.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Capture,
}

impl Answer {
    fn complete(self) -> Captured {
        Captured {
            status: self.status,
            headers: self.headers,
            body: self.body.finish(),
        }
    }

    fn broken_off(self) -> Captured {
        Captured {
            status: self.status,
            headers: self.headers,
            body: self.body.break_off(),
        }
    }
}

impl fmt::Debug for ShadowCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShadowCopy")
            .field("rule", &self.shadow.rule)
            .finish_non_exhaustive()
    }
}

impl Drop for ShadowCopy {
    fn drop(&mut self) {
        self.shadow.kept.fetch_sub(1, Relaxed);
    }
}

impl ShadowCopy {
    /// Who answers the client.
    pub fn answered_by(&mut self, app: &Arc<App>, at: &MountPoint) {
        self.old = Some((Arc::clone(app), at.clone()));
    }

    /// Notes the head of the client's answer; false for one that cannot be compared, because it has no end.
    pub fn answered(&mut self, response: &Response) -> bool {
        let kind = response.headers().get(CONTENT_TYPE);
        let is_stream = kind.is_some_and(|it| it.as_bytes().starts_with(b"text/event-stream"));
        self.answer = Some(Answer {
            status: response.status(),
            headers: response.headers().clone(),
            body: Capture::new(self.shadow.config.max_body),
        });
        !is_stream && response.status() != StatusCode::SWITCHING_PROTOCOLS
    }

    /// Notes bytes that the client gets.
    pub fn sent(&mut self, bytes: &[u8]) {
        if let Some(answer) = &mut self.answer {
            answer.body.push(bytes);
        }
    }

    /// Sends the copy, now that the client has its answer, and notes what comes of it. A drain does not wait for it.
    pub async fn send(mut self: Box<Self>, drain: Drain) {
        let shadow = Arc::clone(&self.shadow);
        let template = [self.old.as_ref(), Some(&self.new)]
            .into_iter()
            .flatten()
            .find_map(|(_, at)| Some(Arc::clone(&at.route.as_ref()?.template)));
        let place = (counted_method(&self.head.method), template);
        let path = redacted(self.head.uri.path());
        let Some(_slot) = shadow.slot() else {
            return shadow.note(place, &path, Outcome::Shed);
        };
        let limit = shadow.config.timeout;
        let mut compared = std::pin::pin!(self.compared());
        let in_time = tokio::time::timeout(limit, &mut compared);
        let outcome = tokio::select! {
            outcome = in_time => outcome.ok(),
            () = drain.begun() => return,
        };
        let is_late = outcome.is_none();
        let outcome = outcome.unwrap_or(Outcome::Failed("it took too long"));
        shadow.note(place, &path, outcome);
        if is_late {
            tokio::select! {
                _ = tokio::time::timeout(limit * LATE, compared) => {}
                () = drain.begun() => {}
            }
        }
    }

    async fn compared(&mut self) -> Outcome {
        let (Some(answer), Some((old_app, old_at))) = (self.answer.take(), self.old.take()) else {
            return Outcome::Shed;
        };
        if self.new.0.application.is_busy() || old_app.application.is_busy() {
            return Outcome::Shed;
        }
        let body = match self.body.take().map(Replay::into_bytes) {
            None => Bytes::new(),
            Some(Some(body)) => body,
            // Too long to be kept, or not read to its end by whom it was for.
            Some(None) => return Outcome::Shed,
        };
        let old = answer.complete();
        let (new_app, new_at) = self.new.clone();
        let new = match self.ask(&new_app, new_at, body.clone()).await {
            Ok(new) => new,
            Err(why) => return Outcome::Failed(why),
        };
        let Some((old, differences)) = self.differences(old, new).await else {
            return Outcome::Shed;
        };
        if differences.is_empty() {
            return Outcome::Same;
        }
        let is_safe = matches!(self.head.method, Method::GET | Method::HEAD);
        if !self.shadow.config.compare.noise || !is_safe {
            return Outcome::Different(differences);
        }
        // What the old application does not answer twice in the same way is no difference of the new one.
        if old_app.application.is_busy() {
            return Outcome::Shed;
        }
        let Ok(again) = self.ask(&old_app, old_at, body).await else {
            return Outcome::Shed;
        };
        let Some((_, noise)) = self.differences(old, again).await else {
            return Outcome::Shed;
        };
        let left = without_noise(differences, &noise);
        if left.is_empty() {
            Outcome::Same
        } else {
            Outcome::Different(left)
        }
    }

    /// The differences of two answers; found on a thread where nobody waits.
    ///
    /// `None` after a panic there: a defect, of which the panic hook has told.
    async fn differences(
        &self,
        old: Captured,
        new: Captured,
    ) -> Option<(Captured, Vec<Difference>)> {
        let (shadow, method) = (Arc::clone(&self.shadow), self.head.method.clone());
        let uri = self.head.uri.clone();
        let host = self.head.headers.get(HOST).cloned();
        let compared = tokio::task::spawn_blocking(move || {
            let host = host.as_ref().and_then(|host| host.to_str().ok());
            let asked = Asked {
                method: &method,
                host: host.or(uri.authority().map(Authority::as_str)),
                path: uri.path(),
            };
            let found = compare(&old, &new, &asked, &shadow.config.compare);
            (old, found)
        });
        compared.await.ok()
    }

    /// The answer of one application to the copy.
    async fn ask(&self, app: &App, at: MountPoint, body: Bytes) -> Result<Captured, &'static str> {
        let request = Box::new(Request {
            head: self.head.clone(),
            body: body.into(),
            at,
            origin: self.origin,
            conn: Arc::clone(&self.conn),
            interim: None,
            is_copy: true,
        });
        let response = match app.application.call(request).await {
            Ok(response) => response,
            Err(error) => {
                debug!(app = %app.name, %error, "a copy failed");
                return Err("the application failed");
            }
        };
        let (head, mut body) = response.into_parts();
        let mut answer = Answer {
            status: head.status,
            headers: head.headers,
            body: Capture::new(self.shadow.config.max_body),
        };
        if self.head.method == Method::HEAD {
            body.satisfied();
            return Ok(answer.complete());
        }
        while let Some(data) = body.data().await {
            match data {
                Ok(data) => answer.body.push(&data),
                Err(_) => return Ok(answer.broken_off()),
            }
        }
        Ok(answer.complete())
    }
}
