//! What each route of an application answers: counted here, told by the difference, added up elsewhere.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Method;

use super::{Counter, Histogram};
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
    errors: Counter,
    durations: Histogram,
}

impl TallyCounters {
    pub fn observe(&self, failed: bool, elapsed: Duration) {
        self.durations.observe(elapsed);
        if failed {
            self.errors.add(1);
        }
    }

    /// What was added since this was last asked; `None` where that is nothing.
    pub fn take(&self) -> Option<Tally> {
        let (buckets, nanos) = self.durations.take();
        let requests = buckets.iter().sum();
        (requests > 0).then(|| Tally {
            requests,
            errors: self.errors.take(),
            nanos,
            buckets,
        })
    }
}
