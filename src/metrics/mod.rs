//! Counters, gauges and histograms of one process, and the access log.
//!
//! A family is declared once, in [`Family::declaration`]; merging and exporting know nothing but that
//! declaration. The registry is made with the server and passed down: two servers in one process never
//! share a counter. What happens on every request is a few relaxed atomic additions on handles that the
//! router's entries already hold, so nothing is looked up by name.

pub mod access_log;
pub mod export;
pub mod traffic;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::app::PoolLoad;
use crate::config::rule::Percent;

/// Every value of one process.
#[derive(Debug)]
pub struct Metrics {
    apps: Vec<Arc<AppMetrics>>,
    connections: Gauge,
    connections_total: Counter,
    refused: [Counter; RefusedBy::ALL.len()],
    log_lines_dropped: Counter,
}

impl Metrics {
    /// A registry for applications of these names; [`Metrics::app`] finds them by the same index.
    pub fn new(apps: &[Arc<str>]) -> Arc<Self> {
        Arc::new(Self {
            apps: apps
                .iter()
                .map(|name| Arc::new(AppMetrics::new(Arc::clone(name))))
                .collect(),
            connections: Gauge::default(),
            connections_total: Counter::default(),
            refused: Default::default(),
            log_lines_dropped: Counter::default(),
        })
    }

    /// The handles of the applications, in the order of their names.
    pub fn apps(&self) -> &[Arc<AppMetrics>] {
        &self.apps
    }

    pub fn connection_opened(&self) {
        self.connections_total.add(1);
        self.connections.add(1);
    }

    pub fn connection_closed(&self) {
        self.connections.add(-1);
    }

    /// A request was answered without any application having seen it.
    pub fn refused(&self, by: RefusedBy) {
        let [malformed, path, route] = &self.refused;
        match by {
            RefusedBy::Malformed => malformed,
            RefusedBy::Path => path,
            RefusedBy::Route => route,
        }
        .add(1);
    }

    pub fn log_line_dropped(&self) {
        self.log_lines_dropped.add(1);
    }

    /// All values as plain data.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.number(Family::BuildInfo, &[env!("CARGO_PKG_VERSION")], 1);
        snapshot.number(Family::Workers, &[], 1);
        snapshot.number(Family::Connections, &[], self.connections.get());
        snapshot.number(Family::ConnectionsTotal, &[], self.connections_total.get());
        for (by, counter) in RefusedBy::ALL.iter().zip(&self.refused) {
            snapshot.number(Family::RefusedTotal, &[by.as_str()], counter.get());
        }
        snapshot.number(Family::LogLinesDropped, &[], self.log_lines_dropped.get());
        for app in &self.apps {
            app.snapshot(&mut snapshot);
        }
        snapshot
    }
}

/// Why a request never reached an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedBy {
    /// The strict layer: bytes or a head that two readers could understand differently.
    Malformed,
    /// A path with two readings.
    Path,
    /// No rule matches.
    Route,
}

impl RefusedBy {
    const ALL: [Self; 3] = [Self::Malformed, Self::Path, Self::Route];

    fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Path => "path",
            Self::Route => "no_route",
        }
    }
}

/// The values of one application; the router's entry holds it.
#[derive(Debug)]
pub struct AppMetrics {
    name: Arc<str>,
    in_flight: Gauge,
    /// By status code; those that never occurred are not exported.
    responses: Box<[Counter]>,
    aborted: Counter,
    timed_out: Counter,
    duration: Histogram,
    websockets: Gauge,
    websockets_total: Counter,
    pub pool: PoolMetrics,
}

/// How full the thread pool of a WSGI application was when it was last asked.
#[derive(Debug, Default)]
pub struct PoolMetrics {
    /// Zero means that there is no pool, and nothing is exported.
    threads: Gauge,
    busy: Gauge,
    waiting: Gauge,
    abandoned: Gauge,
}

impl PoolMetrics {
    pub fn set(&self, load: PoolLoad) {
        self.threads.set(load.threads);
        self.busy.set(load.busy);
        self.waiting.set(load.waiting);
        self.abandoned.set(load.abandoned);
    }
}

impl AppMetrics {
    fn new(name: Arc<str>) -> Self {
        Self {
            name,
            in_flight: Gauge::default(),
            responses: STATUS_CODES.map(|_| Counter::default()).collect(),
            aborted: Counter::default(),
            timed_out: Counter::default(),
            duration: Histogram::default(),
            websockets: Gauge::default(),
            websockets_total: Counter::default(),
            pool: PoolMetrics::default(),
        }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// A request goes to the application. Exactly one [`AppMetrics::end`] follows.
    pub fn begin(&self) {
        self.in_flight.add(1);
    }

    /// The request is over: its response was sent, or nobody is left to read it.
    pub fn end(&self, status: StatusCode, elapsed: Duration) {
        self.in_flight.add(-1);
        let code = usize::from(status.as_u16().saturating_sub(STATUS_CODES.start));
        if let Some(counter) = self.responses.get(code) {
            counter.add(1);
        }
        self.duration.observe(elapsed);
    }

    /// The response of a request was cut short, by the client or by the application. Counted beside [`AppMetrics::end`].
    pub fn aborted(&self) {
        self.aborted.add(1);
    }

    /// The application had no response head at its deadline. Counted beside [`AppMetrics::end`].
    pub fn timed_out(&self) {
        self.timed_out.add(1);
    }

    pub fn websocket_opened(&self) {
        self.websockets_total.add(1);
        self.websockets.add(1);
    }

    pub fn websocket_closed(&self) {
        self.websockets.add(-1);
    }

    fn snapshot(&self, snapshot: &mut Snapshot) {
        let name = &*self.name;
        snapshot.number(Family::RequestsInFlight, &[name], self.in_flight.get());
        for (code, counter) in STATUS_CODES.zip(&self.responses) {
            let count = counter.get();
            if count > 0 {
                let mut digits = itoa::Buffer::new();
                snapshot.number(Family::RequestsTotal, &[name, digits.format(code)], count);
            }
        }
        snapshot.number(Family::RequestsAborted, &[name], self.aborted.get());
        snapshot.number(Family::RequestsTimedOut, &[name], self.timed_out.get());
        snapshot.push(Family::RequestDuration, &[name], self.duration.value());
        snapshot.number(Family::WebSockets, &[name], self.websockets.get());
        snapshot.number(
            Family::WebSocketsTotal,
            &[name],
            self.websockets_total.get(),
        );
        if self.pool.threads.get() > 0 {
            snapshot.number(Family::PoolThreads, &[name], self.pool.threads.get());
            snapshot.number(Family::PoolBusy, &[name], self.pool.busy.get());
            snapshot.number(Family::PoolWaiting, &[name], self.pool.waiting.get());
            snapshot.number(Family::PoolAbandoned, &[name], self.pool.abandoned.get());
        }
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// What was counted since this was last asked.
    pub fn take(&self) -> u64 {
        self.0.swap(0, Relaxed)
    }
}

/// A number of things that there are now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub fn add(&self, change: i64) {
        self.0.fetch_add(change, Relaxed);
    }

    pub fn set(&self, value: usize) {
        self.0
            .store(i64::try_from(value).unwrap_or(i64::MAX), Relaxed);
    }

    /// Never below zero: readers may see a decrement before the increment that another thread made first.
    pub fn get(&self) -> u64 {
        u64::try_from(self.0.load(Relaxed)).unwrap_or(0)
    }
}

/// Durations by upper bound, see [`DURATION_BOUNDS`].
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// The last bucket takes what is above every bound.
    buckets: [Counter; DURATION_BOUNDS.len() + 1],
    sum_nanos: Counter,
}

impl Histogram {
    pub(crate) fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = DURATION_BOUNDS.partition_point(|bound| bound.nanos < nanos);
        if let Some(counter) = self.buckets.get(bucket) {
            counter.add(1);
        }
        self.sum_nanos.add(nanos);
    }

    /// What was observed since this was last asked: counts per bucket, and the sum.
    pub(crate) fn take(&self) -> ([u64; DURATION_BOUNDS.len() + 1], u64) {
        (
            self.buckets.each_ref().map(Counter::take),
            self.sum_nanos.take(),
        )
    }

    fn value(&self) -> Value {
        Value::Histogram {
            counts: self.buckets.iter().map(Counter::get).collect(),
            sum_nanos: self.sum_nanos.get(),
        }
    }
}

/// Every value at one moment, of one worker or merged over several: what travels to the supervisor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub samples: Vec<Sample>,
}

/// One time series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    pub family: Family,
    /// In the order of the family's label names.
    pub labels: Vec<String>,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    Number(u64),
    /// In hundredths.
    Fraction(u64),
    /// Counts per bucket (not cumulative), the last above every bound.
    Histogram {
        counts: Vec<u64>,
        sum_nanos: u64,
    },
}

impl Snapshot {
    /// The share of one rule, and how often it was rolled back: the server's as a whole.
    pub fn canary(&mut self, rule: &str, share: Percent, rollbacks: u64) {
        let share = Value::Fraction(share.hundredths().into());
        self.push(Family::CanaryPercent, &[rule], share);
        self.number(Family::RollbacksTotal, &[rule], rollbacks);
    }

    fn push(&mut self, family: Family, labels: &[&str], value: Value) {
        self.samples.push(Sample {
            family,
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
            value,
        });
    }

    fn number(&mut self, family: Family, labels: &[&str], number: u64) {
        self.push(family, labels, Value::Number(number));
    }

    /// Adds the values of another process.
    pub fn merge(&mut self, other: &Self) {
        for sample in &other.samples {
            let known = self
                .samples
                .iter_mut()
                .find(|known| known.family == sample.family && known.labels == sample.labels);
            match known {
                Some(known) => known.merge(&sample.value),
                None => self.samples.push(sample.clone()),
            }
        }
    }

    /// What is left of a process that has ended: its counters go on, so that a sum over workers never
    /// falls when one of them is replaced; what it held open is gone.
    #[must_use]
    pub fn retire(mut self) -> Self {
        self.samples
            .retain(|sample| match sample.family.declaration().kind {
                Kind::Counter | Kind::Histogram => true,
                Kind::Gauge | Kind::Info => false,
            });
        self
    }
}

impl Sample {
    fn merge(&mut self, other: &Value) {
        match (&mut self.value, other) {
            (Value::Number(number), Value::Number(other))
                if self.family.declaration().kind != Kind::Info =>
            {
                *number = number.saturating_add(*other);
            }
            (
                Value::Histogram { counts, sum_nanos },
                Value::Histogram {
                    counts: others,
                    sum_nanos: other_nanos,
                },
            ) => {
                for (count, other) in counts.iter_mut().zip(others) {
                    *count = count.saturating_add(*other);
                }
                *sum_nanos = sum_nanos.saturating_add(*other_nanos);
            }
            // What is always 1, and what only the server as a whole has. Otherwise, as a family has one kind,
            // this is a message from something that is not a worker.
            _ => {}
        }
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    BuildInfo,
    Workers,
    Connections,
    ConnectionsTotal,
    RequestsInFlight,
    RequestsTotal,
    RequestsAborted,
    RequestsTimedOut,
    RequestDuration,
    RefusedTotal,
    WebSockets,
    WebSocketsTotal,
    PoolThreads,
    PoolBusy,
    PoolWaiting,
    PoolAbandoned,
    LogLinesDropped,
    CanaryPercent,
    RollbacksTotal,
}

/// How a family is exported and merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declaration {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
    /// Always 1, the labels are what it says.
    Info,
}

impl Family {
    /// In the order of export.
    pub const ALL: [Self; 19] = [
        Self::BuildInfo,
        Self::Workers,
        Self::Connections,
        Self::ConnectionsTotal,
        Self::RequestsInFlight,
        Self::RequestsTotal,
        Self::RequestsAborted,
        Self::RequestsTimedOut,
        Self::RequestDuration,
        Self::RefusedTotal,
        Self::WebSockets,
        Self::WebSocketsTotal,
        Self::PoolThreads,
        Self::PoolBusy,
        Self::PoolWaiting,
        Self::PoolAbandoned,
        Self::LogLinesDropped,
        Self::CanaryPercent,
        Self::RollbacksTotal,
    ];

    pub const fn declaration(self) -> Declaration {
        match self {
            Self::BuildInfo => Declaration {
                name: "twinspan_build_info",
                kind: Kind::Info,
                labels: &["version"],
                help: "The version that runs.",
            },
            Self::Workers => Declaration {
                name: "twinspan_workers",
                kind: Kind::Gauge,
                labels: &[],
                help: "Worker processes that these values were collected from.",
            },
            Self::Connections => Declaration {
                name: "twinspan_connections",
                kind: Kind::Gauge,
                labels: &[],
                help: "Open client connections that speak HTTP; WebSockets are counted apart.",
            },
            Self::ConnectionsTotal => Declaration {
                name: "twinspan_connections_total",
                kind: Kind::Counter,
                labels: &[],
                help: "Client connections that were accepted.",
            },
            Self::RequestsInFlight => Declaration {
                name: "twinspan_requests_in_flight",
                kind: Kind::Gauge,
                labels: &["app"],
                help: "Requests whose response is not complete.",
            },
            Self::RequestsTotal => Declaration {
                name: "twinspan_requests_total",
                kind: Kind::Counter,
                labels: &["app", "status"],
                help: "Requests that have ended, by status; 499 where the client left before there was one.",
            },
            Self::RequestsAborted => Declaration {
                name: "twinspan_requests_aborted_total",
                kind: Kind::Counter,
                labels: &["app"],
                help: "Requests whose response was cut short by the client or by the application.",
            },
            Self::RequestsTimedOut => Declaration {
                name: "twinspan_requests_timed_out_total",
                kind: Kind::Counter,
                labels: &["app"],
                help: "Requests that were answered 504 because the application had no response head in time.",
            },
            Self::RequestDuration => Declaration {
                name: "twinspan_request_duration_seconds",
                kind: Kind::Histogram,
                labels: &["app"],
                help: "Time from the complete request head to the end of the response.",
            },
            Self::RefusedTotal => Declaration {
                name: "twinspan_requests_refused_total",
                kind: Kind::Counter,
                labels: &["reason"],
                help: "Requests that no application has seen: malformed, an ambiguous path, no route.",
            },
            Self::WebSockets => Declaration {
                name: "twinspan_websockets",
                kind: Kind::Gauge,
                labels: &["app"],
                help: "Open WebSockets.",
            },
            Self::WebSocketsTotal => Declaration {
                name: "twinspan_websockets_total",
                kind: Kind::Counter,
                labels: &["app"],
                help: "WebSockets that were accepted.",
            },
            Self::PoolThreads => Declaration {
                name: "twinspan_pool_threads",
                kind: Kind::Gauge,
                labels: &["app"],
                help: "Threads that may run the WSGI application.",
            },
            Self::PoolBusy => Declaration {
                name: "twinspan_pool_threads_busy",
                kind: Kind::Gauge,
                labels: &["app"],
                help: "Threads that run the WSGI application now.",
            },
            Self::PoolWaiting => Declaration {
                name: "twinspan_pool_waiting",
                kind: Kind::Gauge,
                labels: &["app"],
                help: "Requests that wait for a thread of the WSGI application.",
            },
            Self::PoolAbandoned => Declaration {
                name: "twinspan_pool_threads_abandoned",
                kind: Kind::Gauge,
                labels: &["app"],
                help: "Threads that still run a request of the WSGI application whose deadline has passed.",
            },
            Self::LogLinesDropped => Declaration {
                name: "twinspan_access_log_dropped_total",
                kind: Kind::Counter,
                labels: &[],
                help: "Access log lines that were lost because nobody read them fast enough.",
            },
            Self::CanaryPercent => Declaration {
                name: "twinspan_canary_percent",
                kind: Kind::Gauge,
                labels: &["rule"],
                help: "The part of the requests of a rule that its application gets, of 100.",
            },
            Self::RollbacksTotal => Declaration {
                name: "twinspan_rollbacks_total",
                kind: Kind::Counter,
                labels: &["rule"],
                help: "Canaries that were taken back, by the server itself or by an operator.",
            },
        }
    }
}

/// An upper bound of [`DURATION_BOUNDS`], inclusive.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    pub nanos: u64,
    /// In seconds, as the label `le` has it.
    pub label: &'static str,
}

/// From what a small app answers in, to what a client gives up after.
pub const DURATION_BOUNDS: [Bound; 12] = [
    bound(1_000_000, "0.001"),
    bound(2_500_000, "0.0025"),
    bound(5_000_000, "0.005"),
    bound(10_000_000, "0.01"),
    bound(25_000_000, "0.025"),
    bound(50_000_000, "0.05"),
    bound(100_000_000, "0.1"),
    bound(250_000_000, "0.25"),
    bound(500_000_000, "0.5"),
    bound(1_000_000_000, "1"),
    bound(2_500_000_000, "2.5"),
    bound(10_000_000_000, "10"),
];

const fn bound(nanos: u64, label: &'static str) -> Bound {
    Bound { nanos, label }
}

/// All that [`StatusCode`] can hold.
const STATUS_CODES: std::ops::Range<u16> = 100..1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(names: &[&str]) -> Arc<Metrics> {
        Metrics::new(&names.iter().map(|&name| name.into()).collect::<Vec<_>>())
    }

    fn value(snapshot: &Snapshot, family: Family, labels: &[&str]) -> Option<Value> {
        snapshot
            .samples
            .iter()
            .find(|sample| sample.family == family && sample.labels == labels)
            .map(|sample| sample.value.clone())
    }

    #[test]
    fn a_request_is_in_flight_until_it_ends_and_then_counted_under_its_status() {
        let metrics = registry(&["old", "new"]);
        let app = &metrics.apps()[1];
        app.begin();
        let during = metrics.snapshot();
        assert_eq!(
            value(&during, Family::RequestsInFlight, &["new"]),
            Some(Value::Number(1))
        );
        assert_eq!(value(&during, Family::RequestsTotal, &["new", "404"]), None);

        app.end(StatusCode::NOT_FOUND, Duration::from_millis(3));
        let after = metrics.snapshot();
        assert_eq!(
            value(&after, Family::RequestsInFlight, &["new"]),
            Some(Value::Number(0))
        );
        assert_eq!(
            value(&after, Family::RequestsTotal, &["new", "404"]),
            Some(Value::Number(1))
        );
        assert_eq!(
            value(&after, Family::RequestsInFlight, &["old"]),
            Some(Value::Number(0))
        );
    }

    #[test]
    fn every_status_that_an_application_can_send_is_counted() {
        let metrics = registry(&["app"]);
        let app = &metrics.apps()[0];
        for code in [100, 499, 599, 999] {
            app.begin();
            app.end(StatusCode::from_u16(code).unwrap(), Duration::ZERO);
            assert_eq!(
                value(
                    &metrics.snapshot(),
                    Family::RequestsTotal,
                    &["app", &code.to_string()]
                ),
                Some(Value::Number(1)),
            );
        }
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_is_not_below_it() {
        for (millis, bucket) in [(0, 0), (1, 0), (2, 1), (100, 6), (101, 7), (10_001, 12)] {
            let histogram = Histogram::default();
            histogram.observe(Duration::from_millis(millis));
            let Value::Histogram { counts, sum_nanos } = histogram.value() else {
                panic!("not a histogram");
            };
            assert_eq!(
                counts.iter().position(|&n| n == 1),
                Some(bucket),
                "{millis} ms"
            );
            assert_eq!(sum_nanos, millis * 1_000_000);
        }
    }

    #[test]
    fn merging_adds_what_workers_count_and_keeps_what_only_one_of_them_knows() {
        let (one, two) = (registry(&["app"]), registry(&["app"]));
        for metrics in [&one, &two] {
            metrics.connection_opened();
            let app = &metrics.apps()[0];
            app.begin();
            app.end(StatusCode::OK, Duration::from_millis(1));
        }
        let app = &two.apps()[0];
        app.begin();
        app.end(StatusCode::IM_A_TEAPOT, Duration::from_millis(1));

        let mut merged = one.snapshot();
        merged.merge(&two.snapshot());
        assert_eq!(
            value(&merged, Family::Connections, &[]),
            Some(Value::Number(2))
        );
        assert_eq!(value(&merged, Family::Workers, &[]), Some(Value::Number(2)));
        assert_eq!(
            value(&merged, Family::BuildInfo, &[env!("CARGO_PKG_VERSION")]),
            Some(Value::Number(1))
        );
        assert_eq!(
            value(&merged, Family::RequestsTotal, &["app", "200"]),
            Some(Value::Number(2))
        );
        assert_eq!(
            value(&merged, Family::RequestsTotal, &["app", "418"]),
            Some(Value::Number(1))
        );
        let Some(Value::Histogram { counts, sum_nanos }) =
            value(&merged, Family::RequestDuration, &["app"])
        else {
            panic!("no histogram");
        };
        assert_eq!((counts[0], sum_nanos), (3, 3_000_000));
    }

    #[test]
    fn a_worker_that_ended_leaves_its_counters_and_takes_its_gauges_along() {
        let metrics = registry(&["app"]);
        metrics.connection_opened();
        let left = metrics.snapshot().retire();
        assert_eq!(
            value(&left, Family::ConnectionsTotal, &[]),
            Some(Value::Number(1))
        );
        assert_eq!(value(&left, Family::Connections, &[]), None);
        assert_eq!(value(&left, Family::Workers, &[]), None);
    }

    #[test]
    fn a_pool_is_exported_only_where_there_is_one() {
        let metrics = registry(&["wsgi", "asgi"]);
        metrics.apps()[0].pool.set(PoolLoad {
            threads: 8,
            busy: 1,
            waiting: 0,
            abandoned: 0,
        });
        let snapshot = metrics.snapshot();
        assert_eq!(
            value(&snapshot, Family::PoolBusy, &["wsgi"]),
            Some(Value::Number(1))
        );
        assert_eq!(value(&snapshot, Family::PoolBusy, &["asgi"]), None);
    }

    #[test]
    fn a_snapshot_survives_the_way_to_the_supervisor() {
        let metrics = registry(&["app"]);
        let snapshot = metrics.snapshot();
        let text = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), snapshot);
    }

    #[test]
    fn every_sample_has_as_many_labels_as_its_family_declares() {
        let metrics = registry(&["app"]);
        let app = &metrics.apps()[0];
        app.pool.set(PoolLoad {
            threads: 1,
            busy: 0,
            waiting: 0,
            abandoned: 0,
        });
        app.begin();
        app.end(StatusCode::OK, Duration::ZERO);
        let mut snapshot = metrics.snapshot();
        snapshot.canary("items", Percent::ONE, 0);
        for sample in &snapshot.samples {
            let declared = sample.family.declaration().labels.len();
            assert_eq!(sample.labels.len(), declared, "{:?}", sample.family);
        }
        for family in Family::ALL {
            let exported = snapshot
                .samples
                .iter()
                .any(|sample| sample.family == family);
            assert!(exported, "{family:?} is declared and never measured");
        }
    }
}
