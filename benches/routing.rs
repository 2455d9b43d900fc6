//! What the rule table costs a request: `cargo bench --bench routing`, also a part of `make bench`.
//!
//! An application owns so many routes above a catch-all, half of them with a parameter; the requests go
//! round all of them, and one in eight to none. Told are the nanoseconds of one decision, the median of
//! several rounds.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use twinspan::app::{
    AppError, Application, BoxFuture, Description, Interface, Request, Response, Route, RouteKind,
    RouteTable, RoutesError,
};
use twinspan::config::rule::{CanaryConfig, Sticky};
use twinspan::config::{RuleConfig, RuleMatch};
use twinspan::metrics::Metrics;
use twinspan::metrics::traffic::AppTraffic;
use twinspan::migrate::live::Overlay;
use twinspan::route::{App, Router};

const ROUNDS: usize = 7;
const REQUESTS: usize = 200_000;

#[derive(Debug)]
struct Nobody;

impl Application for Nobody {
    fn description(&self) -> Description {
        Description {
            interface: Interface::Native,
            threads: None,
        }
    }

    fn call(&self, _: Box<Request>) -> BoxFuture<'static, Result<Response, AppError>> {
        Box::pin(std::future::pending())
    }
}

/// `/area-3/things-17` and `/area-3/things-18/{id}/detail`, in areas of twenty.
fn table(count: usize) -> RouteTable {
    let route = |number: usize| {
        let (area, with_parameter) = (number / 20, number % 2 == 1);
        let (template, pattern) = if with_parameter {
            (
                format!("/area-{area}/things-{number}/{{id}}/detail"),
                format!("^/area-{area}/things-{number}/[^/]+/detail$"),
            )
        } else {
            let path = format!("/area-{area}/things-{number}");
            (path.clone(), format!("^{path}$"))
        };
        Route {
            template,
            pattern,
            kind: RouteKind::Http,
            methods: Some(vec!["GET".into()]),
            host: None,
            redirects_slash: true,
            exact: true,
            endpoint: None,
            file: None,
            line: None,
            guards: None,
        }
    };
    RouteTable {
        routes: (0..count).map(route).collect(),
        ..RouteTable::default()
    }
}

fn requests(count: usize) -> Vec<Parts> {
    let target = |number: usize| match number % 8 {
        7 => format!("/elsewhere/{number}"),
        _ if number % 2 == 1 => format!("/area-{}/things-{number}/4711/detail", number / 20),
        _ => format!("/area-{}/things-{number}", number / 20),
    };
    (0..count)
        .map(|number| {
            let request = http::Request::get(target(number))
                .header("host", "shop.example")
                .header("cookie", format!("session=visitor-{number}; theme=dark"));
            let request = request.body(()).expect("a request of our own");
            request.into_parts().0
        })
        .collect()
}

fn router(count: usize, canary: Option<CanaryConfig>, counted: bool) -> Router {
    let metrics = Metrics::new(&["new".into(), "old".into()]);
    let tables = [
        Ok(table(count)),
        Err(RoutesError::Unreadable { what: "it".into() }),
    ];
    let apps: Vec<_> = metrics
        .apps()
        .iter()
        .zip(tables)
        .map(|(metrics, table)| {
            let name = Arc::clone(metrics.name());
            let traffic = AppTraffic::new(Arc::clone(&name), table.as_ref().ok());
            let app = App {
                name,
                application: Arc::new(Nobody),
                metrics: Arc::clone(metrics),
                traffic: counted.then(|| Arc::new(traffic)),
            };
            (Arc::new(app), table)
        })
        .collect();
    let owned = RuleConfig {
        canary,
        ..RuleConfig::new("new", RuleMatch::owned(), "")
    };
    let rules = [owned, RuleConfig::new("old", RuleMatch::mount(""), "")];
    Router::build(&rules, "", &apps, &Overlay::default()).expect("rules of our own")
}

fn measure(router: &Router, requests: &[Parts]) -> f64 {
    let client = Some([192, 0, 2, 7].into());
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            for head in requests.iter().cycle().take(REQUESTS) {
                let routed = router.route(black_box(head), false, client, None, None);
                let _ = black_box(routed);
            }
            #[expect(clippy::cast_precision_loss, reason = "nanoseconds of seconds")]
            let each = began.elapsed().as_nanos() as f64 / REQUESTS as f64;
            each
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds.get(ROUNDS / 2).copied().unwrap_or_default()
}

#[expect(clippy::print_stdout, reason = "a program that prints a table")]
fn main() {
    println!(
        "| owned routes | ns per request | with a canary of 50 % | with traffic counted by route |"
    );
    println!("| ---: | ---: | ---: | ---: |");
    for count in [0, 10, 100, 1_000, 10_000] {
        let requests = requests(count.max(8));
        let canary = CanaryConfig {
            percent: "50".parse().expect("a percentage"),
            sticky: Sticky::Cookie("session".into()),
            testers: Vec::new(),
            rollback: None,
        };
        let plain = measure(&router(count, None, false), &requests);
        let divided = measure(&router(count, Some(canary), false), &requests);
        let counted = measure(&router(count, None, true), &requests);
        println!("| {count} | {plain:.0} | {divided:.0} | {counted:.0} |");
    }
}
