//! Rule tables of any kind, against a reader that takes each rule by its words.

use std::sync::Arc;

use http::Method;
use proptest::prelude::*;
use proptest::sample::select;
use twinspan::app::RoutesError;
use twinspan::config::rule::{
    CanaryConfig, Conditions, Location, Percent, RuleConfig, RuleMatch, Sticky,
};
use twinspan::metrics::Metrics;
use twinspan::migrate::live::Overlay;
use twinspan::route::{App, Router};

use crate::support::Fake;

const SEGMENTS: [&str; 4] = ["a", "b", "ab", "7"];
const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "OPTIONS"];
const HOSTS: [&str; 3] = ["one.example", "two.example", "example"];

/// A rule as a reader has it in mind.
#[derive(Debug, Clone)]
struct Words {
    app: &'static str,
    place: Place,
    methods: Vec<&'static str>,
    host: Option<&'static str>,
    beta: Option<&'static str>,
    /// All or none of the requests; a part of them is another matter.
    canary: Option<bool>,
}

#[derive(Debug, Clone)]
enum Place {
    Mount(Vec<&'static str>),
    Path(Vec<&'static str>),
    /// `*` is any segment, `#` digits, a `**` at the end whatever is left.
    Template(Vec<&'static str>),
}

#[derive(Debug, Clone)]
struct Asked {
    path: Vec<&'static str>,
    method: &'static str,
    host: &'static str,
    beta: Option<&'static str>,
}

fn segments(longest: usize) -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(select(&SEGMENTS[..]), 0..=longest)
}

fn place() -> impl Strategy<Value = Place> {
    let template = prop::collection::vec(select(&["a", "b", "*", "#"][..]), 1..=3);
    prop_oneof![
        segments(2).prop_map(Place::Mount),
        segments(2).prop_map(Place::Path),
        (template, any::<bool>()).prop_map(|(mut segments, rest)| {
            if rest {
                segments.push("**");
            }
            Place::Template(segments)
        }),
    ]
}

fn words() -> impl Strategy<Value = Words> {
    (
        select(&["new", "newer"][..]),
        place(),
        prop::collection::vec(select(&METHODS[..]), 0..=2),
        prop::option::weighted(0.3, select(&["*.example", "example"][..])),
        prop::option::weighted(0.3, select(&["1", "*"][..])),
        prop::option::weighted(0.5, any::<bool>()),
    )
        .prop_map(|(app, place, methods, host, beta, canary)| Words {
            app,
            place,
            methods,
            host,
            beta,
            canary,
        })
}

fn asked() -> impl Strategy<Value = Asked> {
    (
        segments(4),
        select(&METHODS[..]),
        select(&HOSTS[..]),
        prop::option::of(select(&["1", "2"][..])),
    )
        .prop_map(|(path, method, host, beta)| Asked {
            path,
            method,
            host,
            beta,
        })
}

impl Words {
    fn holds(&self, asked: &Asked) -> bool {
        let path = &asked.path;
        // `/` is one empty segment to a template, and nothing below a prefix.
        let place = match &self.place {
            Place::Mount(prefix) | Place::Path(prefix) => path.starts_with(prefix),
            Place::Template(form) => {
                let (form, open) = match form.split_last() {
                    Some((&"**", form)) => (form, true),
                    _ => (form.as_slice(), false),
                };
                let enough = if open {
                    path.len() > form.len()
                } else {
                    path.len() == form.len()
                };
                enough
                    && form.iter().zip(path).all(|(form, segment)| match *form {
                        "*" => true,
                        "#" => *segment == "7",
                        literal => literal == *segment,
                    })
            }
        };
        let follows =
            |method: &&str| *method == asked.method || (*method == "GET" && asked.method == "HEAD");
        let host = match self.host {
            None => true,
            Some("*.example") => asked.host.ends_with(".example"),
            Some(host) => host == asked.host,
        };
        let beta = match self.beta {
            None => true,
            Some("*") => asked.beta.is_some(),
            Some(value) => asked.beta == Some(value),
        };
        place
            && host
            && beta
            && (self.methods.is_empty() || self.methods.iter().any(|it| follows(it)))
    }

    fn rule(&self, number: usize) -> RuleConfig {
        let joined = |prefix: &[&str]| {
            let parts = prefix.iter().map(|segment| format!("/{segment}"));
            parts.collect::<String>()
        };
        let location = match &self.place {
            Place::Mount(prefix) => Location::Mount(joined(prefix)),
            Place::Path(prefix) => Location::Path(joined(prefix)),
            Place::Template(form) => {
                let parts = form
                    .iter()
                    .enumerate()
                    .map(|(place, segment)| match *segment {
                        "*" => format!("/{{p{place}}}"),
                        "#" => format!("/{{p{place}:int}}"),
                        "**" => "/{rest:path}".to_owned(),
                        literal => format!("/{literal}"),
                    });
                Location::Template(parts.collect::<String>().parse().unwrap())
            }
        };
        let methods = self.methods.iter().map(|it| it.parse::<Method>().unwrap());
        let beta = self.beta.iter().map(|value| {
            let name = http::HeaderName::from_static("x-beta");
            (name, value.parse().unwrap())
        });
        RuleConfig {
            name: format!("rule {number}"),
            canary: self.canary.map(|all| CanaryConfig {
                percent: if all { Percent::ALL } else { Percent::NONE },
                sticky: Sticky::Client,
                testers: Vec::new(),
                rollback: None,
            }),
            ..RuleConfig::new(
                self.app,
                RuleMatch {
                    location,
                    owned: false,
                    conditions: Conditions {
                        methods: methods.collect(),
                        host: self.host.map(|host| host.parse().unwrap()),
                        headers: beta.collect(),
                        ..Conditions::default()
                    },
                },
                "",
            )
        }
    }
}

/// What a reader of the table expects: the first rule that holds and keeps the request. An application that
/// has left it is not asked again.
fn expected(rules: &[Words], asked: &Asked) -> String {
    let mut left = Vec::new();
    for (number, rule) in rules.iter().enumerate() {
        if rule.holds(asked) && !left.contains(&rule.app) {
            match rule.canary {
                Some(false) => left.push(rule.app),
                _ => return format!("rule {number}"),
            }
        }
    }
    "catch-all".into()
}

fn router(rules: &[Words]) -> Router {
    let metrics = Metrics::new(&["new".into(), "newer".into(), "old".into()]);
    let apps: Vec<_> = metrics
        .apps()
        .iter()
        .map(|metrics| {
            let app = App {
                name: Arc::clone(metrics.name()),
                application: Fake::echo(),
                metrics: Arc::clone(metrics),
                traffic: None,
            };
            let unknown = RoutesError::Unreadable { what: "it".into() };
            (Arc::new(app), Err(unknown))
        })
        .collect();
    let mut table: Vec<_> = rules
        .iter()
        .enumerate()
        .map(|(number, rule)| rule.rule(number))
        .collect();
    table.push(RuleConfig::new("old", RuleMatch::mount(""), ""));
    Router::build(&table, "", &apps, &Overlay::default()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn a_table_is_read_as_it_is_written(
        rules in prop::collection::vec(words(), 0..8),
        requests in prop::collection::vec(asked(), 1..8),
    ) {
        let router = router(&rules);
        for asked in requests {
            let target = format!("/{}", asked.path.join("/"));
            let mut request = http::Request::builder()
                .method(asked.method)
                .uri(&target)
                .header("host", format!("{}:8000", asked.host));
            if let Some(value) = asked.beta {
                request = request.header("x-beta", value);
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            let client = Some([192, 0, 2, 1].into());
            let routed = router.route(&head, false, client, None, None).unwrap();
            prop_assert_eq!(&routed.at.rule.name, &expected(&rules, &asked), "{:?}", asked);
            // What is cut off and what is left are the path.
            let whole = [routed.at.root_path.as_bytes(), routed.at.path_info(&head)].concat();
            prop_assert_eq!(whole, target.as_bytes());
        }
    }

    /// However a path is spelled, it is routed as what applications see, or refused.
    #[test]
    fn the_spelling_of_a_path_does_not_choose_another_rule(
        rules in prop::collection::vec(words(), 0..8),
        path in segments(4),
        encoded in any::<u64>(),
    ) {
        let rules: Vec<_> = rules
            .into_iter()
            .map(|rule| Words { methods: Vec::new(), host: None, beta: None, ..rule })
            .collect();
        let router = router(&rules);
        let target = format!("/{}", path.join("/"));
        let spelled: String = target
            .bytes()
            .enumerate()
            .map(|(place, byte)| {
                let plain = place == 0 || encoded >> (place % 64) & 1 == 0;
                if plain { char::from(byte).to_string() } else { format!("%{byte:02X}") }
            })
            .collect();
        let name = |target: &str| {
            let (head, ()) = http::Request::get(target).body(()).unwrap().into_parts();
            let routed = router.route(&head, false, None, None, None);
            routed.map(|routed| routed.at.rule.name.clone())
        };
        if let Ok(found) = name(&spelled) {
            prop_assert_eq!(found, name(&target).unwrap(), "{}", spelled);
        }
    }
}
