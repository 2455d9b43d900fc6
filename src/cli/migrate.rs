//! `twinspan migrate`: how far a migration has come, and where two applications answer differently.
//!
//! Both only read what the server keeps in its state directory, and load no application: they work while it
//! runs and when it does not.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Arg, ArgAction, Command};
use serde::Serialize;

use super::routes::Table;
use super::{Action, Ended, Invocation, described, invocation, understood};
use crate::app::{RouteKind, shape};
use crate::config::rule::Percent;
use crate::config::{Config, ConfigError};
use crate::error::Exit;
use crate::metrics::access_log::timestamp;
use crate::migrate::live::{Author, Record, RuleState};
use crate::migrate::observe::Sample;
use crate::migrate::state_dir;
use crate::migrate::status::{Answers, AppStatus, Done, RECENT_DAYS, RuleStatus, Status, Unit};
use crate::migrate::store::{FILE_NAME, Store, category_name};
use crate::policy::compare::Difference;

/// What is asked of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    Status {
        json: bool,
        /// Fails the check when less is done.
        fail_under: Option<Percent>,
    },
    Report {
        json: bool,
        /// `GET /items/{id}`, or `/items/{id}` with every method; `None` asks for all.
        route: Option<String>,
    },
}

impl Question {
    /// The answer, and how the process ends with it.
    ///
    /// # Errors
    /// [`Ended`] where nothing is kept, or it cannot be read.
    pub fn answer(&self, config: &Config) -> Result<Answer, Ended> {
        let Some(directory) = &config.state_dir else {
            return Err(Ended {
                text: "error: there is no state directory, so that nothing of a migration is kept\n\
                       hint: write `state_dir = \"DIRECTORY\"` into twinspan.toml, for the server and for this"
                    .into(),
                exit: Exit::Configuration,
            });
        };
        let store = open(directory)?;
        match self {
            Self::Status { json, fail_under } => {
                let overlay = state_dir::overlay(directory)?;
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                let now = now.map_or(0, |since| since.as_secs());
                let status =
                    Status::read(&store, now, &config.rules, &overlay).map_err(internal)?;
                Ok(Answer {
                    text: written(&status, Shown(&status), *json)?,
                    failure: fail_under.and_then(|least| shortfall(status.done, least)),
                })
            }
            Self::Report { json, route } => {
                let mut samples = store.samples().map_err(internal)?;
                if let Some(route) = route {
                    samples.retain(|sample| is_of(sample, route));
                }
                let differences = Differences {
                    samples: &samples,
                    route: route.as_deref(),
                };
                Ok(Answer {
                    text: written(&samples, differences, *json)?,
                    failure: None,
                })
            }
        }
    }
}

/// What is said to a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub text: String,
    /// Why a check has failed.
    pub failure: Option<String>,
}

/// Reads what follows `twinspan migrate`.
///
/// # Errors
/// [`Ended`] with what was asked for, or with what is wrong.
pub(super) fn parse(
    mut arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: PathBuf,
) -> Result<Invocation, Ended> {
    let word = (!arguments.is_empty()).then(|| arguments.remove(0));
    let question = match word.as_deref().and_then(OsStr::to_str) {
        Some("status") => {
            let matches = understood(status_command(), arguments)?;
            let question = Question::Status {
                json: matches.get_flag("json"),
                fail_under: matches.get_one("fail-under").copied(),
            };
            (question, matches)
        }
        Some("report") => {
            // Before the options, for the applications of the server follow them.
            let named = arguments.first().and_then(|first| first.to_str());
            let route = named
                .filter(|first| !first.starts_with('-'))
                .map(str::to_owned);
            if route.is_some() {
                arguments.remove(0);
            }
            let matches = understood(report_command(), arguments)?;
            if route.is_some() == matches.get_flag("all") {
                return Err(ConfigError::new("say of which route, or `--all`")
                    .option("`twinspan migrate report`")
                    .hint("`twinspan migrate report \"GET /items/{id}\"`; a route comes before the options")
                    .into());
            }
            let question = Question::Report {
                json: matches.get_flag("json"),
                route,
            };
            (question, matches)
        }
        Some("--help" | "-h") => {
            return Err(Ended {
                text: USAGE.into(),
                exit: Exit::Success,
            });
        }
        _ => {
            return Err(ConfigError::new("say `status` or `report`")
                .option("`twinspan migrate`")
                .hint("`twinspan migrate --help` tells what they are")
                .into());
        }
    };
    let (question, matches) = question;
    invocation(Action::Migrate(question), matches, environment, directory)
}

/// What `twinspan migrate --help` says.
const USAGE: &str = "\
Tells how far a migration is, from what the server keeps in its state directory.
The server may run or not; no application is loaded.

Usage: twinspan migrate status [--json] [--fail-under PERCENT] [OPTIONS] [APP]...
       twinspan migrate report ROUTE|--all [--json] [OPTIONS] [APP]...

status  routes, requests, errors, latency and shadow copies by owner, and the trend
report  samples of answers that differ: `GET /items/{id}`, or `/items/{id}` for
        every method

Both take the options of the server.";

fn status_command() -> Command {
    described()
        .about("Prints how far a migration is. Takes the options of the server, and loads no application.")
        .override_usage("twinspan migrate status [--json] [--fail-under PERCENT] [OPTIONS] [APP]...")
        .args([
            json_flag("Prints JSON instead of tables"),
            Arg::new("fail-under")
                .long("fail-under")
                .value_name("PERCENT")
                .value_parser(Percent::from_str)
                .help("Exits with 1 when fewer routes have moved (requests, where the routes are not known)")
                .help_heading("Other options"),
        ])
}

fn report_command() -> Command {
    described()
        .about("Prints samples of answers that differ. Takes the options of the server, and loads no application.")
        .override_usage("twinspan migrate report ROUTE|--all [--json] [OPTIONS] [APP]...")
        .args([
            json_flag("Prints JSON instead of text"),
            Arg::new("all")
                .long("all")
                .action(ArgAction::SetTrue)
                .help("Prints those of every route")
                .help_heading("Other options"),
        ])
}

fn json_flag(help: &'static str) -> Arg {
    Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help(help)
        .help_heading("Other options")
}

fn open(directory: &Path) -> Result<Store, Ended> {
    let store = Store::read(directory).map_err(internal)?;
    store.ok_or_else(|| Ended {
        text: format!(
            "error: nothing was observed yet: there is no `{}`\n\
             hint: it is made by a server that is started with this `state_dir`",
            directory.join(FILE_NAME).display()
        ),
        exit: Exit::Configuration,
    })
}

fn internal(error: impl Display) -> Ended {
    Ended {
        text: format!("error: {error}"),
        exit: Exit::Internal,
    }
}

fn written(value: &impl Serialize, text: impl Display, json: bool) -> Result<String, Ended> {
    if json {
        serde_json::to_string_pretty(value).map_err(internal)
    } else {
        Ok(text.to_string().trim_end().to_owned())
    }
}

/// Why less is done than was asked for. Routes count, and traffic where the legacy application does not tell
/// its routes.
fn shortfall(done: Done, least: Percent) -> Option<String> {
    let (what, done) = match (done.routes, done.traffic) {
        (Some(routes), _) => ("routes", routes),
        (None, Some(traffic)) => ("requests", traffic),
        (None, None) => {
            return Some(format!(
                "nothing is known of routes or requests yet, and {least} % of them are asked for"
            ));
        }
    };
    // Rounded down: 99.96 % is not all.
    let shown = (done * 10.0).floor() / 10.0;
    (done < least.as_f64())
        .then(|| format!("{shown:.1} % of the {what} have moved, and {least} % are asked for"))
}

/// A status for a terminal.
struct Shown<'a>(&'a Status);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.0;
        summary(f, status)?;
        applications(f, &status.apps)?;
        units(f, &status.units)?;
        rules(f, &status.rules)?;
        weeks(f, status)?;
        changes(f, &status.changes)
    }
}

fn summary(f: &mut fmt::Formatter<'_>, status: &Status) -> fmt::Result {
    let Done {
        routes,
        traffic,
        time,
    } = status.done;
    if status.is_done() {
        writeln!(
            f,
            "The migration is done: no application is the legacy one."
        )?;
    }
    writeln!(
        f,
        "Moved: {} of the routes; of the last {RECENT_DAYS} days {} of the requests and {} of the time.",
        share(routes),
        share(traffic),
        share(time)
    )?;
    match status.began {
        Some(began) => writeln!(f, "Observed since {} UTC.", timestamp(began)),
        None => writeln!(f, "Nothing was observed yet."),
    }
}

fn applications(f: &mut fmt::Formatter<'_>, apps: &[AppStatus]) -> fmt::Result {
    let mut table = Table::new(["APP", "IS", "ROUTES", "REQUESTS", "ERRORS", "TIME"]);
    for app in apps {
        table.push([
            app.name.clone(),
            if app.legacy { "legacy" } else { "new" }.into(),
            app.routes.to_string(),
            app.requests.to_string(),
            app.errors.to_string(),
            format!("{:.1} s", app.seconds),
        ]);
    }
    write!(f, "\n{table}")?;
    for app in apps {
        if let Some(why) = &app.unreadable {
            writeln!(f, "\nThe routes of {} are not known: {why}", app.name)?;
        }
    }
    Ok(())
}

fn units(f: &mut fmt::Formatter<'_>, units: &[Unit]) -> fmt::Result {
    if units.is_empty() {
        return writeln!(f, "\nNo routes are known.");
    }
    let mut table = Table::new([
        "METHOD", "PATH", "STAGE", "RULE", "OLD", "NEW", "ERRORS", "P50 MS", "P95 MS", "SHADOW",
        "NOTE",
    ]);
    for unit in units {
        let (old, new) = (&unit.old.answers, &unit.new.answers);
        let method = match (unit.kind, &unit.method) {
            (RouteKind::WebSocket, _) => "WebSocket".into(),
            (RouteKind::Http, None) => "any".into(),
            (RouteKind::Http, Some(method)) => method.clone(),
        };
        let shadow = unit.shadow.and_then(|shadow| {
            let compared = shadow.same + shadow.different;
            Some(format!("{} of {compared}", share(Some(shadow.matched?))))
        });
        table.push([
            method,
            unit.path.clone(),
            unit.stage.to_string(),
            unit.rule
                .as_ref()
                .map(|rule| rule.name.clone())
                .unwrap_or_default(),
            old.requests.to_string(),
            new.requests.to_string(),
            format!("{}/{}", old.errors, new.errors),
            both(old.p50, new.p50),
            both(old.p95, new.p95),
            shadow.unwrap_or_default(),
            unit.idle.map(|idle| idle.to_string()).unwrap_or_default(),
        ]);
    }
    write!(f, "\n{table}")
}

fn rules(f: &mut fmt::Formatter<'_>, rules: &[RuleStatus]) -> fmt::Result {
    let mut steered = rules
        .iter()
        .filter(|rule| rule.state.canary.is_some() || rule.state.shadow.is_some())
        .peekable();
    if steered.peek().is_none() {
        return Ok(());
    }
    let mut table = Table::new(["RULE", "APP", "SHARES", "NEW", "OLD", "SHADOW"]);
    let mut latches = Vec::new();
    for rule in steered {
        let side = |side: &Answers| format!("{} ({} failed)", side.requests, side.errors);
        let sides = rule.answers.as_ref();
        let compared = rule.compared.map(|it| {
            format!(
                "{} same, {} different, {} failed, {} not sent",
                it.same, it.different, it.failed, it.shed
            )
        });
        table.push([
            format!("{} ({})", rule.name, rule.origin),
            rule.app.clone(),
            shares(&rule.state),
            sides.map(|sides| side(&sides.new)).unwrap_or_default(),
            sides.map(|sides| side(&sides.old)).unwrap_or_default(),
            compared.unwrap_or_default(),
        ]);
        if let Some(latch) = &rule.state.rolled_back {
            latches.push(format!(
                "Rule {} was rolled back from {} % at {} UTC: {}",
                rule.name,
                latch.from,
                timestamp(latch.at),
                latch.reason
            ));
        }
    }
    write!(f, "\n{table}")?;
    latches
        .iter()
        .try_for_each(|latch| writeln!(f, "\n{latch}"))
}

fn weeks(f: &mut fmt::Formatter<'_>, status: &Status) -> fmt::Result {
    if status.began.is_none() {
        return Ok(());
    }
    let is_new = |name: &String| {
        status
            .apps
            .iter()
            .any(|app| app.name == *name && !app.legacy)
    };
    let mut table = Table::new(["WEEK", "REQUESTS", "BY NEW APPS"]);
    for week in &status.weeks {
        let all: u64 = week.requests.values().sum();
        let new = week.requests.iter().filter(|(name, _)| is_new(name));
        let new: u64 = new.map(|(_, requests)| requests).sum();
        table.push([
            week.week.clone(),
            all.to_string(),
            share((all > 0).then(|| 100.0 * ratio(new, all))),
        ]);
    }
    write!(f, "\n{table}")
}

fn changes(f: &mut fmt::Formatter<'_>, changes: &[Record]) -> fmt::Result {
    if changes.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(["CHANGED", "RULE", "FROM", "TO", "BY"]);
    for change in changes {
        let state = |state: &Option<RuleState>| state.as_ref().map(shares).unwrap_or_default();
        table.push([
            timestamp(change.at),
            change.rule.clone(),
            state(&change.was),
            state(&change.is),
            match change.author {
                Author::Automatic => "the server".into(),
                Author::Operator { uid: None } => "an operator".into(),
                Author::Operator { uid: Some(uid) } => format!("an operator (user {uid})"),
            },
        ]);
    }
    write!(f, "\n{table}")
}

/// `canary 10 %, shadow 100 %`
fn shares(state: &RuleState) -> String {
    let canary = match (&state.rolled_back, state.canary) {
        (Some(_), _) => Some("rolled back".into()),
        (None, canary) => canary.map(|percent| format!("canary {percent} %")),
    };
    let shadow = state.shadow.map(|percent| format!("shadow {percent} %"));
    let parts: Vec<_> = canary.into_iter().chain(shadow).collect();
    parts.join(", ")
}

/// `42.1 %`, rounded down: what is not whole does not look so.
fn share(percent: Option<f64>) -> String {
    percent.map_or_else(
        || "-".into(),
        |percent| format!("{:.1} %", (percent * 10.0).floor().max(0.0) / 10.0),
    )
}

/// Milliseconds of both sides: `12.0/8.1`
fn both(old: Option<f64>, new: Option<f64>) -> String {
    let side = |seconds: Option<f64>| {
        seconds.map_or_else(|| "-".into(), |seconds| format!("{:.1}", seconds * 1e3))
    };
    if old.is_none() && new.is_none() {
        return String::new();
    }
    format!("{}/{}", side(old), side(new))
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn ratio(part: u64, all: u64) -> f64 {
    part as f64 / all as f64
}

/// Whether a sample is of a route, as [`Question::Report`] names it.
fn is_of(sample: &Sample, route: &str) -> bool {
    let (method, path) = match route.split_once(' ') {
        Some((method, path)) => (Some(method), path.trim_start()),
        None => (None, route),
    };
    let place = sample.template.as_deref().unwrap_or(&sample.path);
    method.is_none_or(|method| sample.method.eq_ignore_ascii_case(method))
        && (shape(place) == shape(path) || sample.path == path)
}

/// `json $.price: 1, now 2`
fn line(f: &mut fmt::Formatter<'_>, difference: &Difference) -> fmt::Result {
    let Difference {
        category,
        place,
        old,
        new,
        alike,
        hint,
    } = difference;
    let category = category_name(*category);
    write!(f, "    {category} {place}: {old}, now {new}")?;
    if *alike > 0 {
        write!(f, " (and {alike} like it)")?;
    }
    match hint {
        Some(hint) => writeln!(f, "\n      {hint}"),
        None => writeln!(f),
    }
}

/// Samples for a terminal.
struct Differences<'a> {
    samples: &'a [Sample],
    route: Option<&'a str>,
}

impl Display for Differences<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.samples.is_empty() {
            return match self.route {
                Some(route) => writeln!(f, "No difference was seen for {route}."),
                None => writeln!(f, "No difference was seen."),
            };
        }
        let mut samples: Vec<_> = self.samples.iter().collect();
        let route = |sample: &Sample| {
            let place = sample
                .template
                .as_deref()
                .unwrap_or("what matches no route");
            (place.to_owned(), sample.method.clone(), sample.rule.clone())
        };
        // The newest stay first within a route.
        samples.sort_by_key(|sample| route(sample));
        let mut last = None;
        for sample in samples {
            let this = route(sample);
            if last.as_ref() != Some(&this) {
                let (place, method, rule) = &this;
                let gap = if last.is_some() { "\n" } else { "" };
                writeln!(f, "{gap}{method} {place} (rule {rule})")?;
                last = Some(this);
            }
            writeln!(f, "  {} UTC  {}", timestamp(sample.at), sample.path)?;
            for difference in &sample.differences {
                line(f, difference)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::rule::{CanaryConfig, Location, ShadowConfig, Sticky};
    use crate::config::{RuleConfig, RuleMatch};
    use crate::migrate::live::{Change, Edit, Overlay};
    use crate::migrate::observe::{Comparisons, Observations, Tally, Traffic};
    use crate::migrate::store::tests::report;
    use crate::policy::compare::Category;

    const NOW: u64 = 1_795_260_600; // 2026-11-21 11:30

    fn run(words: &[&str]) -> Result<Question, Ended> {
        let words = words.iter().map(OsString::from).collect();
        // A directory without files of ours.
        let parsed = super::super::parse(words, Vec::new(), PathBuf::from("/"))?;
        match parsed.action {
            Action::Migrate(question) => Ok(question),
            action => panic!("{action:?}"),
        }
    }

    fn traffic(app: &str, template: &str, requests: u64, errors: u64, bucket: usize) -> Traffic {
        let mut tally = Tally {
            requests,
            errors,
            nanos: requests * 3_000_000,
            ..Tally::default()
        };
        tally.buckets[bucket] = requests;
        Traffic {
            app: app.into(),
            method: "GET".into(),
            template: Some(template.into()),
            tally,
        }
    }

    fn sample(method: &str, template: Option<&str>, at: u64) -> Sample {
        Sample {
            rule: "items".into(),
            method: method.into(),
            template: template.map(str::to_owned),
            path: format!("/items/{at}"),
            at: NOW + at,
            differences: vec![
                Difference {
                    category: Category::Json,
                    place: "$.price".into(),
                    old: "1".into(),
                    new: "\"1\"".into(),
                    alike: 2,
                    hint: Some(crate::policy::compare::Hint::NumberAsText),
                },
                Difference {
                    category: Category::Header,
                    place: "location".into(),
                    old: "/a".into(),
                    new: "/b".into(),
                    alike: 0,
                    hint: None,
                },
            ],
        }
    }

    fn rules() -> Vec<RuleConfig> {
        let at = RuleMatch {
            owned: true,
            ..RuleMatch::at(Location::Template("/items/{id}".parse().unwrap()))
        };
        vec![
            RuleConfig {
                name: "items".into(),
                canary: Some(CanaryConfig {
                    percent: "10".parse().unwrap(),
                    sticky: Sticky::Client,
                    testers: Vec::new(),
                    rollback: None,
                }),
                shadow: Some(ShadowConfig::new("5".parse().unwrap())),
                ..RuleConfig::new("new", at, "twinspan.toml:7")
            },
            RuleConfig::new("legacy", RuleMatch::mount(""), "twinspan.toml:20"),
        ]
    }

    fn fill(store: &mut Store, now: u64) {
        let apps = [
            report("new", Ok(&[("GET", "/items/{id}"), ("GET", "/docs")])),
            report("legacy", Ok(&[("GET", "/items/<id>"), ("GET,POST", "/")])),
        ];
        store.inventory(now, &apps, &rules()).unwrap();
        let seen = Observations {
            traffic: vec![
                traffic("new", "/items/{id}", 10, 2, 3),
                traffic("legacy", "/items/<id>", 90, 1, 2),
                traffic("legacy", "/", 50, 0, 2),
            ],
            comparisons: vec![Comparisons {
                rule: "items".into(),
                method: "GET".into(),
                template: Some("/items/<id>".into()),
                same: 19,
                different: 1,
                failed: 0,
                shed: 4,
            }],
            samples: vec![sample("GET", Some("/items/<id>"), 7)],
            ..Observations::default()
        };
        store.record(now, &seen).unwrap();
    }

    #[test]
    fn what_is_asked_comes_first_and_the_options_of_the_server_follow() {
        let status = |json, fail_under: Option<&str>| Question::Status {
            json,
            fail_under: fail_under.map(|it| it.parse().unwrap()),
        };
        let report = |json, route: Option<&str>| Question::Report {
            json,
            route: route.map(str::to_owned),
        };
        for (words, question) in [
            (&["status", "shop:app"][..], status(false, None)),
            (&["status", "--json", "shop:app"], status(true, None)),
            (
                &[
                    "status",
                    "--fail-under",
                    "99.5",
                    "shop:app",
                    "--threads",
                    "4",
                ],
                status(false, Some("99.5")),
            ),
            (
                &["report", "GET /items/{id}", "shop:app"],
                report(false, Some("GET /items/{id}")),
            ),
            (
                &["report", "--all", "--json", "shop:app"],
                report(true, None),
            ),
        ] {
            let words: Vec<_> = ["migrate"].iter().chain(words).copied().collect();
            assert_eq!(run(&words).unwrap(), question);
        }
        for (words, problem) in [
            (&["migrate"][..], "say `status` or `report`"),
            (&["migrate", "stats"], "say `status` or `report`"),
            (&["migrate", "report"], "say of which route, or `--all`"),
            (
                &["migrate", "report", "--json", "shop:app"],
                "say of which route",
            ),
            (&["migrate", "report", "/a", "--all"], "say of which route"),
            (
                &["migrate", "status", "--fail-under", "101"],
                "between 0 and 100",
            ),
            (&["migrate", "status", "--all"], "there is no such option"),
        ] {
            let ended = run(words).unwrap_err();
            assert_eq!(ended.exit, Exit::Configuration);
            assert!(ended.text.contains(problem), "{}", ended.text);
        }
        for words in [&["migrate", "--help"][..], &["migrate", "status", "-h"]] {
            let ended = run(words).unwrap_err();
            assert_eq!(ended.exit, Exit::Success);
            assert!(
                ended.text.contains("--fail-under PERCENT"),
                "{}",
                ended.text
            );
        }
    }

    #[test]
    fn a_status_is_tables_for_a_terminal() {
        let mut store = Store::open(None).unwrap();
        fill(&mut store, NOW);
        let rules = rules();
        let back = Change {
            rule: "items".into(),
            edit: Edit::RollBack {
                reason: "2 of 10 failed".into(),
            },
        };
        let overlay = Overlay::default().apply(&back, &rules, NOW).unwrap();
        let change = Record {
            at: NOW,
            version: 1,
            author: Author::Automatic,
            rule: "items".into(),
            was: Some(Overlay::default().state(&rules[0])),
            is: Some(overlay.state(&rules[0])),
            reason: None,
        };
        store.changed(&change).unwrap();
        let status = Status::read(&store, NOW, &rules, &overlay).unwrap();
        assert_eq!(
            Shown(&status).to_string(),
            "\
Moved: 0.0 % of the routes; of the last 7 days 6.6 % of the requests and 6.6 % of the time.
Observed since 2026-11-21T11:30:00 UTC.

APP     IS      ROUTES  REQUESTS  ERRORS  TIME
new     new     1       10        2       0.0 s
legacy  legacy  3       140       1       0.4 s

METHOD  PATH         STAGE        RULE       OLD  NEW  ERRORS  P50 MS   P95 MS   SHADOW        NOTE
GET     /            legacy       catch-all  50   0    0/0     3.8/-    4.9/-
POST    /            legacy       catch-all  0    0    0/0
GET     /docs        new          catch-all  0    0    0/0
GET     /items/<id>  rolled back  items      90   10   1/2     3.8/7.5  4.9/9.8  95.0 % of 20

RULE                     APP  SHARES                   NEW           OLD           SHADOW
items (twinspan.toml:7)  new  rolled back, shadow 5 %  0 (0 failed)  0 (0 failed)  19 same, 1 different, 0 failed, 4 not sent

Rule items was rolled back from 10 % at 2026-11-21T11:30:00 UTC: 2 of 10 failed

WEEK      REQUESTS  BY NEW APPS
2026-W47  150       6.6 %

CHANGED              RULE   FROM                     TO                       BY
2026-11-21T11:30:00  items  canary 10 %, shadow 5 %  rolled back, shadow 5 %  the server
"
        );
    }

    #[test]
    fn a_report_lists_the_newest_differences_of_each_route() {
        let samples = [
            sample("GET", Some("/items/<id>"), 9),
            sample("POST", Some("/items/<id>"), 8),
            sample("GET", Some("/items/<id>"), 7),
            sample("GET", None, 6),
        ];
        let of = |route: &str| -> Vec<u64> {
            let samples = samples.iter().filter(|sample| is_of(sample, route));
            samples.map(|sample| sample.at - NOW).collect()
        };
        assert_eq!(of("GET /items/{id}"), [9, 7]);
        assert_eq!(of("/items/{}"), [9, 8, 7]);
        assert_eq!(of("get /items/6"), [6]);
        assert_eq!(of("/items"), [] as [u64; 0]);
        let differences = Differences {
            samples: &samples[..2],
            route: None,
        };
        assert_eq!(
            differences.to_string(),
            "\
GET /items/<id> (rule items)
  2026-11-21T11:30:09 UTC  /items/9
    json $.price: 1, now \"1\" (and 2 like it)
      a number in one, and the same as text in the other
    header location: /a, now /b

POST /items/<id> (rule items)
  2026-11-21T11:30:08 UTC  /items/8
    json $.price: 1, now \"1\" (and 2 like it)
      a number in one, and the same as text in the other
    header location: /a, now /b
"
        );
    }

    #[test]
    fn a_check_fails_when_less_has_moved_than_was_asked_for() {
        let short = |routes, traffic, least: &str| {
            let time = None;
            shortfall(
                Done {
                    routes,
                    traffic,
                    time,
                },
                least.parse().unwrap(),
            )
        };
        assert_eq!(short(Some(100.0), Some(20.0), "100"), None);
        assert_eq!(short(None, Some(100.0), "100"), None);
        assert_eq!(
            short(Some(99.96), None, "100").unwrap(),
            "99.9 % of the routes have moved, and 100 % are asked for"
        );
        assert_eq!(
            short(None, Some(20.0), "50").unwrap(),
            "20.0 % of the requests have moved, and 50 % are asked for"
        );
        assert_eq!(
            short(None, None, "0").unwrap(),
            "nothing is known of routes or requests yet, and 0 % of them are asked for"
        );
    }

    #[test]
    fn the_state_directory_is_read_and_what_is_missing_is_said() {
        let name = format!("twinspan-migrate-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&directory);
        let status = Question::Status {
            json: true,
            fail_under: Some(Percent::ALL),
        };
        let mut config = Config {
            rules: rules(),
            ..Config::default()
        };
        let ended = status.answer(&config).unwrap_err();
        assert_eq!(ended.exit, Exit::Configuration);
        assert!(
            ended.text.contains("there is no state directory"),
            "{}",
            ended.text
        );
        config.state_dir = Some(directory.clone());
        let ended = status.answer(&config).unwrap_err();
        assert!(
            ended.text.contains("nothing was observed yet"),
            "{}",
            ended.text
        );
        assert!(!directory.exists());

        let mut store = Store::open(Some(&directory)).unwrap();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        fill(&mut store, now);
        // A share that was changed live.
        let overlay = r#"{"version":4,"rules":{"items":{"canary":100}}}"#;
        std::fs::write(directory.join("overlay.json"), overlay).unwrap();
        let answer = status.answer(&config).unwrap();
        let read: Status = serde_json::from_str(&answer.text).unwrap();
        assert_eq!(read.version, 4);
        assert_eq!(
            answer.failure.unwrap(),
            "33.3 % of the routes have moved, and 100 % are asked for"
        );
        // The legacy application is taken out, and nothing is left to move.
        config.rules.pop();
        config.rules[0].legacy = Some(false);
        let done = Question::Status {
            json: false,
            fail_under: Some(Percent::ALL),
        };
        let answer = done.answer(&config).unwrap();
        assert_eq!(answer.failure, None);
        let first = answer.text.lines().next();
        assert_eq!(
            first,
            Some("The migration is done: no application is the legacy one.")
        );
        let report = Question::Report {
            json: true,
            route: None,
        };
        let samples: Vec<Sample> =
            serde_json::from_str(&report.answer(&config).unwrap().text).unwrap();
        assert_eq!(samples.len(), 1);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
