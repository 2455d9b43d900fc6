//! What each route of an application answers: counted here, told by the difference, added up elsewhere.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Method;

use super::DURATION_BOUNDS;
use crate::app::RouteTable;
use crate::migrate::observe::{Tally, Traffic};

/// The routes of one application with what they have answered since that was last told.
#[derive(Debug)]
pub struct AppTraffic {
    app: Arc<str>,
    routes: Vec<RouteTraffic>,
    /// What matches none of them.
    others: RouteTraffic,
}

#[derive(Debug, Default)]
struct RouteTraffic {
    template: Option<String>,
    /// In the order of [`METHODS`]; most routes know one or two.
    methods: [OnceLock<Box<TallyCounters>>; METHODS.len()],
}

/// HEAD counts as GET.
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "OTHER"];

/// The name under which a method is counted.
pub fn counted_method(method: &Method) -> &'static str {
    METHODS.get(slot(method)).copied().unwrap_or("OTHER")
}

fn slot(method: &Method) -> usize {
    match *method {
        Method::GET | Method::HEAD => 0,
        Method::POST => 1,
        Method::PUT => 2,
        Method::PATCH => 3,
        Method::DELETE => 4,
        Method::OPTIONS => 5,
        _ => 6,
    }
}

impl AppTraffic {
    /// `routes` are those of the application, where they are known.
    pub fn new(app: Arc<str>, routes: Option<&RouteTable>) -> Self {
        let routes = routes.map_or(&[][..], |table| &table.routes);
        Self {
            app,
            routes: routes
                .iter()
                .map(|route| RouteTraffic {
                    template: Some(route.template.clone()),
                    ..RouteTraffic::default()
                })
                .collect(),
            others: RouteTraffic::default(),
        }
    }

    /// Notes the end of a request; `route` is its place in the table.
    pub fn observe(&self, route: Option<usize>, method: &Method, failed: bool, elapsed: Duration) {
        let route = route.and_then(|index| self.routes.get(index));
        let counters = route.unwrap_or(&self.others).methods.get(slot(method));
        if let Some(counters) = counters {
            counters.get_or_init(Box::default).observe(failed, elapsed);
        }
    }

    /// What was noted since this was last asked.
    pub fn take(&self) -> impl Iterator<Item = Traffic> {
        self.routes.iter().chain([&self.others]).flat_map(|route| {
            let methods = METHODS.iter().zip(&route.methods);
            methods.filter_map(|(method, counters)| {
                Some(Traffic {
                    app: self.app.to_string(),
                    method: (*method).into(),
                    template: route.template.clone(),
                    tally: counters.get()?.take()?,
                })
            })
        })
    }
}

/// A [`Tally`] that several threads add to.
#[derive(Debug, Default)]
pub struct TallyCounters {
    errors: AtomicU64,
    nanos: AtomicU64,
    buckets: [AtomicU64; DURATION_BOUNDS.len() + 1],
}

impl TallyCounters {
    pub fn observe(&self, failed: bool, elapsed: Duration) {
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let bucket = DURATION_BOUNDS.partition_point(|bound| bound.nanos < nanos);
        if let Some(counter) = self.buckets.get(bucket) {
            counter.fetch_add(1, Relaxed);
        }
        self.nanos.fetch_add(nanos, Relaxed);
        if failed {
            self.errors.fetch_add(1, Relaxed);
        }
    }

    /// What was added since this was last asked; `None` where that is nothing.
    pub fn take(&self) -> Option<Tally> {
        let buckets = std::array::from_fn(|bucket| {
            let counter = self.buckets.get(bucket);
            counter.map_or(0, |counter| counter.swap(0, Relaxed))
        });
        let requests = buckets.iter().sum();
        (requests > 0).then(|| Tally {
            requests,
            errors: self.errors.swap(0, Relaxed),
            nanos: self.nanos.swap(0, Relaxed),
            buckets,
        })
    }
}
