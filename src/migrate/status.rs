//! How far a migration has come: everything that people read of it, from what is kept and what counts now.
//!
//! A unit of the migration is one method of one path, whatever the applications call it: their routes are one
//! when their templates have the same [`shape`]. One application is the legacy one, that of the last rule unless
//! the configuration says otherwise; every other is new. The stage of a unit is that of the first rule that takes
//! requests for it, or a part of them; rules with conditions on the host, headers, cookies or the query do not
//! count, because they are for some requests and not for a route.
//!
//! Nothing is claimed that may not be so. A legacy route for every name has not moved to a route for numbers;
//! a route is dead when it was not asked for on days on which others were; and where nobody can say whether a
//! rule takes a route, its stage is unknown.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use http::Method;
use serde::{Deserialize, Serialize};

use super::live::{Overlay, Record, RuleState};
use super::observe::{Side, Tally};
use super::store::{DAY, KnownRoute, Store, StoreError};
use crate::app::{RouteKind, shape};
use crate::config::RuleConfig;
use crate::config::rule::{Percent, example};
use crate::metrics::access_log::civil;
use crate::metrics::traffic::counted_method;

/// Days of which requests, comparisons and canaries are told, today included.
pub const RECENT_DAYS: u64 = 7;

/// Days without a request after which a route is dead; only days on which something was observed count.
pub const DEAD_DAYS: u64 = 30;

/// Weeks of the trend, this one included.
const WEEKS: u64 = 12;

/// Changes that are told.
const CHANGES: u32 = 20;

/// Minutes of a chart.
const CHART_MINUTES: u64 = 24 * 60;

/// A migration at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Seconds since 1970, as all times here.
    pub at: u64,
    /// Since when is observed; `None` before that.
    pub began: Option<u64>,
    /// The version of what was changed live.
    pub version: u64,
    pub done: Done,
    /// The legacy one last.
    pub apps: Vec<AppStatus>,
    /// By path.
    pub units: Vec<Unit>,
    /// In the order of trial.
    pub rules: Vec<RuleStatus>,
    /// The oldest first.
    pub weeks: Vec<Week>,
    /// The newest first.
    pub changes: Vec<Record>,
}

/// How much of the migration is done, in percent; `None` where that is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Units that a new application answers, of all that have or had a legacy route and are not dead.
    pub routes: Option<f64>,
    /// Requests of the last days that new applications answered.
    pub traffic: Option<f64>,
    /// Their part of the time that answers took.
    pub time: Option<f64>,
}

/// One application.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppStatus {
    pub name: String,
    /// What it had is to go to the others.
    pub legacy: bool,
    /// Units that it answers.
    pub routes: usize,
    /// Why its own routes are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// In the last days.
    pub requests: u64,
    pub errors: u64,
    pub seconds: f64,
}

/// One method of one path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// `None` stands for every method that has no unit of its own.
    pub method: Option<String>,
    pub kind: RouteKind,
    /// As requests meet it, in the words of the legacy application where it has it.
    pub path: String,
    pub stage: Stage,
    /// The rule that makes the stage, and where it was written; `None` where no rule leads here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<UnitRule>,
    /// The legacy route, and what it answered.
    pub old: UnitSide,
    /// The route of the new application, and what it answered.
    pub new: UnitSide,
    /// Shadow copies of the last days; `None` where there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Compared>,
    /// The legacy route is not needed, as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
}

/// The rule of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitRule {
    pub name: String,
    pub origin: String,
}

/// How far a unit is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Stage {
    Legacy,
    /// Copies of so many requests go to the new application.
    Shadow {
        percent: Percent,
    },
    /// So many requests go to the new application.
    Canary {
        percent: Percent,
    },
    RolledBack {
        reason: String,
    },
    New,
    /// A legacy route that nobody asks for.
    Dead,
    /// A rule takes what its application has, and what that is cannot be known.
    Unknown,
}

/// One side of a unit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct UnitSide {
    /// `None` where this side has no route for it.
    pub route: Option<UnitRoute>,
    /// In the last days.
    #[serde(flatten)]
    pub answers: Answers,
}

/// A route as its application defines it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitRoute {
    pub app: String,
    pub template: String,
    pub endpoint: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
    pub first_seen: u64,
    /// Since when the rule leads to it that does now.
    pub rule_since: u64,
}

/// Answers in the last days, and how long they took, in seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    pub requests: u64,
    pub errors: u64,
    pub p50: Option<f64>,
    pub p95: Option<f64>,
}

/// Shadow copies by what came of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    pub same: u64,
    pub different: u64,
    pub failed: u64,
    pub shed: u64,
    /// In percent of those that were compared; `None` without any.
    pub matched: Option<f64>,
}

/// A legacy route got no request on so many days on which something was observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idle {
    /// At most [`DEAD_DAYS`].
    pub days: u64,
}

/// One rule, with its shares as they are now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleStatus {
    pub name: String,
    pub app: String,
    pub origin: String,
    #[serde(flatten)]
    pub state: RuleState,
    /// Requests that matched, in the last days, by who answered; `None` without a canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Sides>,
    /// `None` without a shadow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Compared>,
}

/// Who answered requests that a rule matched.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sides {
    pub new: Answers,
    pub old: Answers,
}

/// Requests of one week.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Week {
    /// As ISO 8601 has it: `2026-W47`.
    pub week: String,
    /// By application.
    pub requests: BTreeMap<String, u64>,
}

/// Requests of the last 24 hours by minute, for a chart. Apart from the status, because it is long.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    /// The first minute, since 1970; the last one is that of now.
    pub from: u64,
    /// By application.
    pub requests: BTreeMap<String, Vec<u64>>,
}

impl Status {
    /// `rules` are those of the configuration, and `overlay` what was changed of them.
    ///
    /// # Errors
    /// [`StoreError`] where what is kept cannot be read.
    pub fn read(
        store: &Store,
        now: u64,
        rules: &[RuleConfig],
        overlay: &Overlay,
    ) -> Result<Self, StoreError> {
        store.snapshot(|store| Reading::new(store, now, rules, overlay)?.status(store))
    }

    /// Whether there is no legacy application any more.
    pub fn is_done(&self) -> bool {
        !self.apps.is_empty() && self.apps.iter().all(|app| !app.legacy)
    }
}

impl Chart {
    /// # Errors
    /// [`StoreError`] where what is kept cannot be read.
    pub fn read(store: &Store, now: u64) -> Result<Self, StoreError> {
        let from = (now / 60 + 1).saturating_sub(CHART_MINUTES);
        let mut requests: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for minute in store.minutes(now)? {
            let counts = requests
                .entry(minute.app)
                .or_insert_with(|| vec![0; usize::try_from(CHART_MINUTES).unwrap_or(0)]);
            let place = minute.minute.checked_sub(from);
            let place = place.and_then(|place| usize::try_from(place).ok());
            if let Some(count) = place.and_then(|place| counts.get_mut(place)) {
                *count = minute.requests;
            }
        }
        Ok(Self { from, requests })
    }
}

impl Stage {
    fn is_new(&self) -> bool {
        *self == Self::New
    }
}

/// `canary 10 %`
impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Legacy => f.write_str("legacy"),
            Self::Shadow { .. } => f.write_str("shadow"),
            Self::Canary { percent } => write!(f, "canary {percent} %"),
            Self::RolledBack { .. } => f.write_str("rolled back"),
            Self::New => f.write_str("new"),
            Self::Dead => f.write_str("dead"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl Idle {
    /// Nothing was asked of the route for so long that nobody will miss it.
    pub fn is_long(self) -> bool {
        self.days >= DEAD_DAYS
    }
}

/// `0 hits in 30 days, safe to delete`
impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.days == 1 { "day" } else { "days" };
        write!(f, "0 hits in {} {unit}", self.days)?;
        f.write_str(if self.is_long() {
            ", safe to delete"
        } else {
            " so far"
        })
    }
}

/// A status as it comes about.
struct Reading<'a> {
    now: u64,
    began: Option<u64>,
    rules: &'a [RuleConfig],
    overlay: &'a Overlay,
    /// `None` once the migration is done.
    legacy: Option<&'a str>,
    /// The last [`DEAD_DAYS`] before today on which something was observed, the newest first.
    observed: Vec<u64>,
    /// In the order of the rules.
    apps: Vec<&'a str>,
    /// Why the routes of an application are not known.
    unreadable: HashMap<String, Option<String>>,
    routes: Vec<Placed>,
    /// The routes of an application on a path.
    defined: HashMap<(String, Path), Vec<usize>>,
    /// The methods that the legacy application once had on a path.
    gone: HashMap<Path, Vec<Option<String>>>,
    /// How a path is written: by the legacy application, where it has it.
    words: HashMap<Path, String>,
    /// Where the templates of an application are met.
    paths: HashMap<(String, String), String>,
    units: Vec<Building>,
    /// By path and the method that is counted.
    by_traffic: HashMap<(String, Option<&'static str>), usize>,
}

/// The shape of a path, and whether it is for WebSockets.
type Path = (String, bool);

/// A route, and the path at which requests meet it.
struct Placed {
    route: KnownRoute,
    path: String,
}

/// A unit with what was counted for it.
#[derive(Default)]
struct Building {
    shape: String,
    websocket: bool,
    method: Option<String>,
    path: String,
    /// It has a legacy route, or had one; what is only new was never there to move.
    moves: bool,
    old: Tally,
    new: Tally,
    /// Today, and on the days that were observed.
    old_hits: u64,
    hits: u64,
    compared: Option<Compared>,
}

impl<'a> Reading<'a> {
    fn new(
        store: &Store,
        now: u64,
        rules: &'a [RuleConfig],
        overlay: &'a Overlay,
    ) -> Result<Self, StoreError> {
        let mut apps: Vec<&str> = Vec::new();
        for rule in rules {
            if !apps.contains(&rule.app.as_str()) {
                apps.push(&rule.app);
            }
        }
        let mut reading = Self {
            now,
            began: store.began()?,
            rules,
            overlay,
            legacy: legacy(rules),
            observed: store.observed(now / DAY, DEAD_DAYS)?,
            apps,
            unreadable: store
                .apps()?
                .into_iter()
                .map(|app| (app.name, app.problem))
                .collect(),
            routes: Vec::new(),
            defined: HashMap::new(),
            gone: HashMap::new(),
            words: HashMap::new(),
            paths: HashMap::new(),
            units: Vec::new(),
            by_traffic: HashMap::new(),
        };
        for route in store.routes()? {
            reading.place(route);
        }
        reading.unite();
        reading.count(store)?;
        Ok(reading)
    }

    fn place(&mut self, route: KnownRoute) {
        let method = route.method.as_deref().unwrap_or("*");
        let mut own = self.rules.iter().filter(|rule| rule.app == route.app);
        let path = own
            .find_map(|rule| rule.matches.leads_to(&route.template, method))
            .unwrap_or_else(|| route.template.clone());
        let websocket = route.kind == RouteKind::WebSocket;
        let shape = shape(&path);
        let is_legacy = self.is_legacy(&route.app);
        if route.gone.is_some() {
            if is_legacy {
                let methods = self.gone.entry((shape, websocket)).or_default();
                methods.push(route.method);
            }
            return;
        }
        if !websocket {
            self.paths
                .entry((route.app.clone(), route.template.clone()))
                .or_insert_with(|| shape.clone());
        }
        let met = (shape, websocket);
        if is_legacy || !self.words.contains_key(&met) {
            self.words.insert(met.clone(), path.clone());
        }
        self.defined
            .entry((route.app.clone(), met))
            .or_default()
            .push(self.routes.len());
        self.routes.push(Placed { route, path });
    }

    fn is_legacy(&self, app: &str) -> bool {
        self.legacy == Some(app)
    }

    /// One unit for each method of each path.
    fn unite(&mut self) {
        let mut keys: Vec<_> = self
            .defined
            .iter()
            .flat_map(|((app, path), places)| {
                let places = places.iter().filter_map(|index| self.routes.get(*index));
                places.map(move |place| (path, &place.route.method, app))
            })
            // What only a new application takes beside the methods of the legacy one was never there to move.
            .filter(|(path, method, app)| {
                method.is_some() || self.is_legacy(app) || self.legacy_routes(path).is_empty()
            })
            .map(|(path, method, _)| (path.clone(), method.clone()))
            .collect();
        keys.sort();
        keys.dedup();
        for ((shape, websocket), method) in keys {
            if !websocket {
                let counted = method.as_deref().map(counted);
                self.by_traffic
                    .entry((shape.clone(), counted))
                    .or_insert(self.units.len());
            }
            let path = (shape, websocket);
            let words = self.words.get(&path).unwrap_or(&path.0).clone();
            let once = self.gone.get(&path).map_or(&[][..], Vec::as_slice);
            let moves = self
                .legacy_routes(&path)
                .iter()
                .any(|it| it.answers(method.as_deref()))
                || once
                    .iter()
                    .any(|it| it.is_none() || method.is_none() || *it == method);
            let (shape, websocket) = path;
            self.units.push(Building {
                path: words,
                moves,
                shape,
                websocket,
                method,
                ..Building::default()
            });
        }
    }

    fn routes_of(&self, app: &str, path: &Path) -> Vec<&Placed> {
        let places = self.defined.get(&(app.to_owned(), path.clone()));
        let places = places.map_or(&[][..], Vec::as_slice);
        places
            .iter()
            .filter_map(|index| self.routes.get(*index))
            .collect()
    }

    fn legacy_routes(&self, path: &Path) -> Vec<&Placed> {
        self.legacy
            .map(|app| self.routes_of(app, path))
            .unwrap_or_default()
    }

    /// The route of an application that answers a unit.
    fn route_of(&self, app: &str, unit: &Building) -> Option<&KnownRoute> {
        let places = self.routes_of(app, &unit.place());
        let exact = places.iter().find(|it| it.route.method == unit.method);
        exact
            .or_else(|| places.iter().find(|it| it.route.method.is_none()))
            .map(|placed| &placed.route)
    }

    /// What the legacy application has for a unit: `/users/<int:id>` and `/users/<name>` are one unit.
    fn old_routes(&self, unit: &Building) -> Vec<&Placed> {
        let mut routes = self.legacy_routes(&unit.place());
        routes.retain(|it| it.answers(unit.method.as_deref()));
        routes
    }

    /// Whether the routes of an application take all that the legacy ones of a unit do.
    fn has_all(&self, app: &str, unit: &Building) -> bool {
        let mut own = self.routes_of(app, &unit.place());
        own.retain(|it| it.answers(unit.method.as_deref()));
        let takes = |old: &&Placed| own.iter().any(|it| takes(&it.path, &old.path));
        !own.is_empty() && self.old_routes(unit).iter().all(takes)
    }

    fn unit_of(
        &mut self,
        apps: &[&str],
        method: &str,
        template: Option<&str>,
    ) -> Option<&mut Building> {
        let template = template?;
        let shape = apps
            .iter()
            .find_map(|app| self.paths.get(&((*app).to_owned(), template.to_owned())))?;
        let exact = self.by_traffic.get(&(shape.clone(), Some(counted(method))));
        let index = exact.or_else(|| self.by_traffic.get(&(shape.clone(), None)))?;
        self.units.get_mut(*index)
    }

    /// What was observed, for each unit.
    fn count(&mut self, store: &Store) -> Result<(), StoreError> {
        let today = self.now / DAY;
        let legacy = self.legacy;
        for row in store.traffic(since(today, RECENT_DAYS))? {
            if let Some(unit) = self.unit_of(&[&row.app], &row.method, row.template.as_deref()) {
                if legacy == Some(row.app.as_str()) {
                    unit.old.add(&row.tally);
                } else {
                    unit.new.add(&row.tally);
                }
            }
        }
        for row in store.traffic(self.observed.last().copied().unwrap_or(today))? {
            if let Some(unit) = self.unit_of(&[&row.app], &row.method, row.template.as_deref()) {
                unit.hits += row.tally.requests;
                if legacy == Some(row.app.as_str()) {
                    unit.old_hits += row.tally.requests;
                }
            }
        }
        for row in store.comparisons(since(today, RECENT_DAYS))? {
            let rule = self.rules.iter().find(|rule| rule.name == row.rule);
            let app = rule.map(|rule| rule.app.as_str());
            let apps: Vec<_> = legacy.into_iter().chain(app).collect();
            if let Some(unit) = self.unit_of(&apps, &row.method, row.template.as_deref()) {
                let compared = unit.compared.get_or_insert_default();
                compared.add(row.same, row.different, row.failed, row.shed);
            }
        }
        Ok(())
    }

    fn status(self, store: &Store) -> Result<Status, StoreError> {
        let units: Vec<_> = self.units.iter().map(|unit| self.unit(unit)).collect();
        let apps = self.count_apps(store, &units)?;
        Ok(Status {
            at: self.now,
            began: self.began,
            version: self.overlay.version,
            done: self.done(store, &units, &apps)?,
            apps,
            units,
            rules: self.rules(store)?,
            weeks: self.weeks(store)?,
            changes: store.changes(CHANGES)?,
        })
    }

    fn unit(&self, unit: &Building) -> Unit {
        let old = self.legacy.and_then(|app| self.route_of(app, unit));
        let (mut stage, rule) = self.stage(unit);
        if old.is_none() && self.legacy.is_none_or(|app| self.is_known(app)) {
            stage = Stage::New;
        }
        // What an application answers whose routes are not known is not counted by route.
        let idle = old
            .filter(|_| stage != Stage::Unknown)
            .and_then(|old| self.idle(unit, old, stage.is_new()));
        if !stage.is_new() && idle.is_some_and(Idle::is_long) {
            stage = Stage::Dead;
        }
        let apps = rule.map(|rule| rule.app.as_str()).into_iter();
        let new = apps
            .chain(self.apps.iter().copied())
            .filter(|app| !self.is_legacy(app))
            .find_map(|app| self.route_of(app, unit));
        Unit {
            method: unit.method.clone(),
            kind: if unit.websocket {
                RouteKind::WebSocket
            } else {
                RouteKind::Http
            },
            path: unit.path.clone(),
            stage,
            rule: rule.map(|rule| UnitRule {
                name: rule.name.clone(),
                origin: rule.origin.clone(),
            }),
            old: side(old, &unit.old),
            new: side(new, &unit.new),
            shadow: unit.compared,
            idle,
        }
    }

    /// What the rules do with requests for a unit, and the one that does it.
    fn stage(&self, unit: &Building) -> (Stage, Option<&'a RuleConfig>) {
        let mut paths: Vec<_> = self
            .old_routes(unit)
            .iter()
            .map(|placed| widest(&placed.path))
            .collect();
        if paths.is_empty() {
            paths.push(example(&unit.path));
        }
        let method = unit.method.as_deref().unwrap_or("*");
        for rule in self.rules {
            let is_for = |path: &String| rule.matches.is_for(path, method);
            if self.is_legacy(&rule.app) {
                let has = !rule.matches.owned && rule.fallthrough.is_none()
                    || self.route_of(&rule.app, unit).is_some();
                // A part of it that stays is enough to stay.
                if has && paths.iter().any(is_for) {
                    return (Stage::Legacy, Some(rule));
                }
                continue;
            }
            if !paths.iter().all(is_for) {
                continue;
            }
            let asks = rule.matches.owned || rule.fallthrough.is_some();
            let has_all = !asks || self.has_all(&rule.app, unit);
            if !has_all && self.is_known(&rule.app) {
                continue;
            }
            let changed = self.overlay.rules.get(&rule.name);
            if let Some(latch) = changed.and_then(|changed| changed.rolled_back.as_ref()) {
                let reason = latch.reason.clone();
                return (Stage::RolledBack { reason }, Some(rule));
            }
            let shares = self.overlay.shares(rule);
            let stage = match (shares.canary, shares.shadow) {
                (Percent::NONE, Percent::NONE) => continue,
                (Percent::NONE, percent) => Stage::Shadow { percent },
                _ if !has_all => Stage::Unknown,
                (Percent::ALL, _) => Stage::New,
                (percent, _) => Stage::Canary { percent },
            };
            return (stage, Some(rule));
        }
        (Stage::Legacy, None)
    }

    /// Whether the routes of an application are known.
    fn is_known(&self, app: &str) -> bool {
        self.unreadable.get(app).is_some_and(Option::is_none)
    }

    /// `None` for a route that has had requests, or whose requests are not counted. Once new applications
    /// answer, only those of the legacy one do.
    fn idle(&self, unit: &Building, route: &KnownRoute, moved: bool) -> Option<Idle> {
        let hits = if moved { unit.old_hits } else { unit.hits };
        let first = route.first_seen / DAY;
        let days = self.observed.iter().filter(|day| **day >= first).count() as u64;
        (!unit.websocket && hits == 0 && days > 0).then_some(Idle { days })
    }

    fn count_apps(&self, store: &Store, units: &[Unit]) -> Result<Vec<AppStatus>, StoreError> {
        let mut apps: Vec<_> = self
            .apps
            .iter()
            .map(|name| AppStatus {
                name: (*name).into(),
                legacy: self.is_legacy(name),
                routes: 0,
                unreadable: self.unreadable.get(*name).cloned().flatten(),
                requests: 0,
                errors: 0,
                seconds: 0.0,
            })
            .collect();
        apps.sort_by_key(|app| app.legacy);
        for unit in units {
            let owner = match unit.stage {
                Stage::Unknown => continue,
                Stage::New => &unit.new,
                _ => &unit.old,
            };
            let owner = owner.route.as_ref().map(|route| &route.app);
            if let Some(app) = apps.iter_mut().find(|app| Some(&app.name) == owner) {
                app.routes += 1;
            }
        }
        for row in store.traffic(since(self.now / DAY, RECENT_DAYS))? {
            if let Some(app) = apps.iter_mut().find(|app| app.name == row.app) {
                app.requests += row.tally.requests;
                app.errors += row.tally.errors;
                app.seconds += float(row.tally.nanos) / 1e9;
            }
        }
        Ok(apps)
    }

    fn done(&self, store: &Store, units: &[Unit], apps: &[AppStatus]) -> Result<Done, StoreError> {
        let share = |of: fn(&AppStatus) -> f64| {
            let sum = |legacy| -> f64 {
                apps.iter()
                    .filter(|app| legacy || !app.legacy)
                    .map(of)
                    .sum()
            };
            let all = sum(true);
            (all > 0.0).then(|| 100.0 * sum(false) / all)
        };
        Ok(Done {
            routes: match self.legacy {
                None => Some(100.0),
                Some(legacy) => {
                    let is_observed = !store.observed(self.now / DAY + 1, 1)?.is_empty();
                    (is_observed && self.is_known(legacy))
                        .then(|| self.moved(units))
                        .flatten()
                }
            },
            traffic: share(|app| float(app.requests)),
            time: share(|app| app.seconds),
        })
    }

    /// The share of units that have moved; `None` where there are none, or nobody knows of one of them.
    fn moved(&self, units: &[Unit]) -> Option<f64> {
        let moving = self.units.iter().zip(units);
        let stages: Vec<_> = moving
            .filter(|(building, _)| building.moves)
            .map(|(_, unit)| &unit.stage)
            .collect();
        if stages.is_empty() || stages.contains(&&Stage::Unknown) {
            return None;
        }
        let count = |stage: &Stage| stages.iter().filter(|it| **it == stage).count();
        match stages.len() - count(&Stage::Dead) {
            0 => Some(100.0),
            live => Some(100.0 * float(count(&Stage::New) as u64) / float(live as u64)),
        }
    }

    fn rules(&self, store: &Store) -> Result<Vec<RuleStatus>, StoreError> {
        let from = since(self.now / DAY, RECENT_DAYS);
        let canaries = store.canaries(from)?;
        let comparisons = store.comparisons(from)?;
        let status = |rule: &RuleConfig| {
            let answers = |side: Side| {
                let mut own = canaries.iter().filter(|it| it.rule == rule.name);
                let tally = own.find(|it| it.side == side).map(|it| &it.tally);
                tally.map(Answers::new).unwrap_or_default()
            };
            let mut compared = Compared::default();
            for row in comparisons.iter().filter(|it| it.rule == rule.name) {
                compared.add(row.same, row.different, row.failed, row.shed);
            }
            RuleStatus {
                name: rule.name.clone(),
                app: rule.app.clone(),
                origin: rule.origin.clone(),
                state: self.overlay.state(rule),
                answers: rule.canary.as_ref().map(|_| Sides {
                    new: answers(Side::New),
                    old: answers(Side::Old),
                }),
                compared: rule.shadow.as_ref().map(|_| compared),
            }
        };
        Ok(self.rules.iter().map(status).collect())
    }

    fn weeks(&self, store: &Store) -> Result<Vec<Week>, StoreError> {
        let monday = |day: u64| day.saturating_sub((day + 3) % 7);
        let this = monday(self.now / DAY);
        let first = self.began.map_or(this, |began| monday(began / DAY));
        let first = first.max(this.saturating_sub(7 * (WEEKS - 1)));
        let mut weeks: Vec<_> = (first..=this)
            .step_by(7)
            .map(|monday| Week {
                week: iso_week(monday),
                requests: BTreeMap::new(),
            })
            .collect();
        for day in store.days(first)? {
            let place = day.day.checked_sub(first).map(|days| days / 7);
            let place = place.and_then(|place| usize::try_from(place).ok());
            if let Some(week) = place.and_then(|place| weeks.get_mut(place)) {
                *week.requests.entry(day.app).or_default() += day.requests;
            }
        }
        Ok(weeks)
    }
}

impl Answers {
    fn new(tally: &Tally) -> Self {
        Self {
            requests: tally.requests,
            errors: tally.errors,
            p50: tally.quantile(0.5),
            p95: tally.quantile(0.95),
        }
    }
}

impl Compared {
    fn add(&mut self, same: u64, different: u64, failed: u64, shed: u64) {
        self.same += same;
        self.different += different;
        self.failed += failed;
        self.shed += shed;
        let compared = self.same + self.different;
        self.matched = (compared > 0).then(|| 100.0 * float(self.same) / float(compared));
    }
}

impl Placed {
    /// Whether it answers a method, where `None` stands for every one.
    fn answers(&self, method: Option<&str>) -> bool {
        self.route.method.is_none() || self.route.method.as_deref() == method
    }
}

impl Building {
    fn place(&self) -> Path {
        (self.shape.clone(), self.websocket)
    }
}

/// The application that says it is the legacy one, else that of the last rule, which has what no other takes,
/// unless it says that it is not.
fn legacy(rules: &[RuleConfig]) -> Option<&str> {
    let said = rules.iter().find(|rule| rule.legacy == Some(true));
    let last = rules.last().filter(|rule| rule.legacy.is_none());
    said.or(last).map(|rule| rule.app.as_str())
}

/// Whether a route takes whatever another of the same shape does, as far as the templates tell.
fn takes(new: &str, old: &str) -> bool {
    let kinds = kinds(new).into_iter().zip(kinds(old));
    kinds.into_iter().all(|(new, old)| {
        new == old
            || match (new, without_arguments(old)) {
                (ANY_PATH, _) => true,
                (SEGMENT, old) => old != ANY_PATH,
                (new, old) => new == old,
            }
    })
}

/// A path that only a template takes that takes as much as this one.
fn widest(template: &str) -> String {
    let mut path = shape(template);
    for kind in kinds(template) {
        let example = match without_arguments(kind) {
            "int" => "0",
            "float" => "0.5",
            "uuid" => "00000000-0000-0000-0000-000000000000",
            ANY_PATH => "x/x",
            _ => "x",
        };
        path = path.replacen("{}", example, 1);
    }
    path
}

/// The kind of a parameter that takes one segment, whatever is in it.
const SEGMENT: &str = "";

/// The kind of a parameter that takes several segments.
const ANY_PATH: &str = "path";

/// Words for kinds that all frameworks share.
const KINDS: [&str; 8] = [
    "int", "float", "uuid", "slug", "str", "string", "default", ANY_PATH,
];

/// The kinds of a template's parameters: `int` of `{id:int}`, `<int:id>` and `<id:int>`.
fn kinds(template: &str) -> Vec<&str> {
    let mut kinds = Vec::new();
    let mut depth = 0_usize;
    let mut start = 0;
    for (place, char) in template.char_indices() {
        match char {
            '{' | '<' => {
                depth += 1;
                if depth == 1 {
                    start = place;
                }
            }
            '}' | '>' => {
                if depth == 1 {
                    kinds.extend(template.get(start..place).map(kind));
                }
                depth = depth.saturating_sub(1);
            }
            _ => {}
        }
    }
    kinds
}

/// The kind of a parameter, which begins with its bracket.
fn kind(parameter: &str) -> &str {
    let Some((first, second)) = parameter.split_once(':') else {
        return SEGMENT;
    };
    let kind = match first.strip_prefix('<') {
        Some(first) if KINDS.contains(&first) || !KINDS.contains(&second) => first,
        _ => second,
    };
    match kind {
        "str" | "string" | "default" => SEGMENT,
        kind => kind,
    }
}

/// `int` of `int(min=1)`, which takes less.
fn without_arguments(kind: &str) -> &str {
    match kind.split_once('(').map_or(kind, |(kind, _)| kind) {
        "str" | "string" | "default" | "any" => SEGMENT,
        kind => kind,
    }
}

fn side(route: Option<&KnownRoute>, tally: &Tally) -> UnitSide {
    UnitSide {
        route: route.map(|route| UnitRoute {
            app: route.app.clone(),
            template: route.template.clone(),
            endpoint: route.endpoint.clone(),
            file: route.file.clone(),
            line: route.line,
            first_seen: route.first_seen,
            rule_since: route.rule_since,
        }),
        answers: Answers::new(tally),
    }
}

/// The name under which requests of a method are counted.
fn counted(method: &str) -> &'static str {
    Method::from_bytes(method.as_bytes()).map_or("OTHER", |method| counted_method(&method))
}

/// The first of so many days that end today.
fn since(today: u64, days: u64) -> u64 {
    (today + 1).saturating_sub(days)
}

/// The week that begins on this day: its year is that of its Thursday.
fn iso_week(monday: u64) -> String {
    let thursday = monday + 3;
    let (year, _, _) = civil(thursday);
    let week = (0..53)
        .take_while(|weeks| {
            let earlier = thursday.checked_sub(7 * weeks);
            earlier.is_some_and(|day| civil(day).0 == year)
        })
        .count();
    format!("{year}-W{week:02}")
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::super::live::{Author, Change, Edit};
    use super::super::observe::{CanaryTraffic, Comparisons, Observations, Traffic};
    use super::super::store::tests::report;
    use super::*;
    use crate::config::RuleMatch;
    use http::StatusCode;

    use crate::config::rule::{CanaryConfig, FallthroughConfig, Location, ShadowConfig, Sticky};

    /// Noon.
    const NOW: u64 = 20_413 * DAY + DAY / 2;

    fn percent(text: &str) -> Percent {
        text.parse().unwrap()
    }

    fn steered(name: &str, template: &str, canary: &str, shadow: Option<&str>) -> RuleConfig {
        let matches = RuleMatch {
            owned: true,
            ..RuleMatch::at(Location::Template(template.parse().unwrap()))
        };
        RuleConfig {
            name: name.into(),
            canary: Some(CanaryConfig {
                percent: percent(canary),
                sticky: Sticky::Client,
                testers: Vec::new(),
                rollback: None,
            }),
            shadow: shadow.map(|share| ShadowConfig::new(percent(share))),
            ..RuleConfig::new("new", matches, "twinspan.toml:7")
        }
    }

    fn rules() -> Vec<RuleConfig> {
        vec![
            steered("items", "/items/{id}", "10", Some("5")),
            steered("cart", "/cart", "100", None),
            steered("search", "/search", "0", Some("100")),
            RuleConfig::new("legacy", RuleMatch::mount(""), "twinspan.toml:20"),
        ]
    }

    fn apps() -> [crate::supervisor::channel::AppReport; 2] {
        [
            report(
                "new",
                Ok(&[
                    ("GET", "/items/{id}"),
                    ("GET,POST", "/cart"),
                    ("GET", "/search"),
                    ("GET", "/docs"),
                    ("WS", "/live"),
                ]),
            ),
            report(
                "legacy",
                Ok(&[
                    ("GET,DELETE", "/items/<int:id>"),
                    ("*", "/cart"),
                    ("GET", "/search"),
                    ("GET", "/old"),
                ]),
            ),
        ]
    }

    fn traffic(app: &str, route: &str, requests: u64, errors: u64) -> Traffic {
        let (method, template) = route.split_once(' ').unwrap();
        let mut tally = Tally {
            requests,
            errors,
            nanos: requests * 1_000_000,
            ..Tally::default()
        };
        tally.buckets[2] = requests;
        Traffic {
            app: app.into(),
            method: method.into(),
            template: (!template.is_empty()).then(|| template.into()),
            tally,
        }
    }

    fn observed() -> Observations {
        Observations {
            traffic: vec![
                traffic("legacy", "GET /items/<int:id>", 90, 1),
                traffic("new", "GET /items/{id}", 10, 2),
                traffic("new", "POST /cart", 40, 0),
                traffic("legacy", "PUT /cart", 3, 0),
                traffic("legacy", "GET /search", 50, 0),
                traffic("legacy", "GET ", 7, 0),
            ],
            canaries: vec![CanaryTraffic {
                rule: "items".into(),
                side: Side::New,
                tally: traffic("", "GET ", 10, 2).tally,
            }],
            comparisons: vec![Comparisons {
                rule: "search".into(),
                method: "GET".into(),
                template: Some("/search".into()),
                same: 99,
                different: 1,
                failed: 2,
                shed: 3,
            }],
            samples: Vec::new(),
        }
    }

    /// What was observed on one day, the given number of days ago.
    fn store(days_ago: u64) -> Store {
        let mut store = Store::open(None).unwrap();
        let then = NOW - days_ago * DAY;
        store.inventory(then, &apps(), &rules()).unwrap();
        store.record(then, &observed()).unwrap();
        store
    }

    fn read(store: &Store, rules: &[RuleConfig], overlay: &Overlay) -> Status {
        let status = Status::read(store, NOW, rules, overlay).unwrap();
        // What is written is what is read elsewhere.
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
        status
    }

    fn stages(status: &Status) -> Vec<String> {
        let name = |unit: &Unit| {
            let method = unit.method.as_deref().unwrap_or("any");
            let idle = unit.idle.map(|idle| format!(": {idle}"));
            format!(
                "{method} {} is {}{}",
                unit.path,
                unit.stage,
                idle.unwrap_or_default()
            )
        };
        status.units.iter().map(name).collect()
    }

    #[test]
    fn a_unit_is_in_the_stage_of_the_first_rule_that_takes_requests_for_it() {
        let status = read(&store(0), &rules(), &Overlay::default());
        assert_eq!(
            stages(&status),
            [
                "any /cart is legacy",
                "GET /cart is new",
                "POST /cart is new",
                "GET /docs is new",
                "DELETE /items/<int:id> is legacy",
                "GET /items/<int:id> is canary 10 %",
                "any /live is new",
                "GET /old is legacy",
                "GET /search is shadow",
            ]
        );
        let items = &status.units[5];
        assert_eq!(items.rule.as_ref().unwrap().name, "items");
        assert_eq!(
            items.old.route.as_ref().unwrap().template,
            "/items/<int:id>"
        );
        assert_eq!(items.new.route.as_ref().unwrap().template, "/items/{id}");
        // What only the new application ever had was not there to move.
        assert_eq!(status.done.routes, Some(100.0 * 2.0 / 7.0));
        let routes: Vec<_> = status
            .apps
            .iter()
            .map(|app| (&*app.name, app.routes))
            .collect();
        assert_eq!(routes, [("new", 4), ("legacy", 5)]);
    }

    #[test]
    fn live_changes_change_the_stage() {
        let rules = rules();
        let change = |overlay: &Overlay, rule: &str, edit| {
            let change = Change {
                rule: rule.into(),
                edit,
            };
            overlay.apply(&change, &rules, NOW).unwrap()
        };
        let overlay = change(
            &Overlay::default(),
            "items",
            Edit::RollBack {
                reason: "it failed".into(),
            },
        );
        let set = |canary, shadow| Edit::Set { canary, shadow };
        let overlay = change(&overlay, "search", set(Some(percent("2.5")), None));
        let overlay = change(&overlay, "cart", set(Some(Percent::NONE), None));
        let mut store = store(0);
        let record = Record {
            at: NOW,
            version: 3,
            author: Author::Automatic,
            rule: "items".into(),
            was: None,
            is: None,
            reason: Some("it failed".into()),
        };
        store.changed(&record).unwrap();
        let status = read(&store, &rules, &overlay);
        let stages: Vec<_> = status
            .units
            .iter()
            .map(|unit| unit.stage.to_string())
            .collect();
        assert_eq!(stages[1..3], ["legacy", "legacy"]);
        assert_eq!(
            (stages[5].as_str(), stages[8].as_str()),
            ("rolled back", "canary 2.5 %")
        );
        assert_eq!(
            status.rules[0].state.rolled_back.as_ref().unwrap().reason,
            "it failed"
        );
        assert_eq!((status.version, status.changes), (3, vec![record]));
    }

    #[test]
    fn rules_for_some_requests_make_no_stage_and_mounts_cut_off_their_prefix() {
        let mut store = Store::open(None).unwrap();
        let apps = [
            report("new", Ok(&[("GET", "/items"), ("GET", "/beta")])),
            report("legacy", Ok(&[("GET", "/api/items"), ("GET", "/beta")])),
        ];
        let mut beta = RuleConfig::new("new", RuleMatch::path("/beta"), "");
        beta.matches.conditions.cookies = vec![("beta".into(), "*".parse().unwrap())];
        let rules = [
            beta,
            RuleConfig::new("new", RuleMatch::mount("/api"), ""),
            RuleConfig::new("legacy", RuleMatch::mount(""), ""),
        ];
        store.inventory(NOW, &apps, &rules).unwrap();
        let seen = Observations {
            traffic: vec![traffic("new", "GET /items", 5, 0)],
            ..Observations::default()
        };
        store.record(NOW, &seen).unwrap();
        let status = read(&store, &rules, &Overlay::default());
        assert_eq!(
            stages(&status),
            ["GET /api/items is new", "GET /beta is legacy"]
        );
        assert_eq!(status.units[0].new.answers.requests, 5);
    }

    #[test]
    fn requests_are_told_by_owner() {
        let status = read(&store(0), &rules(), &Overlay::default());
        let items = &status.units[5];
        let count = |side: &UnitSide| (side.answers.requests, side.answers.errors);
        assert_eq!((count(&items.old), count(&items.new)), ((90, 1), (10, 2)));
        assert!(items.new.answers.p95.unwrap() <= 0.005);
        // A method that only the route for all methods takes.
        assert_eq!(status.units[0].old.answers.requests, 3);
        assert_eq!(status.done.traffic, Some(25.0));
        assert_eq!(status.done.time.map(f64::round), Some(25.0));
        let shadow = status.units[8].shadow.unwrap();
        assert_eq!((shadow.same, shadow.failed, shadow.shed), (99, 2, 3));
        assert_eq!(shadow.matched, Some(99.0));
        let rule = &status.rules[0];
        let sides = rule.answers.as_ref().unwrap();
        assert_eq!(
            (sides.new.requests, sides.new.errors, sides.old.requests),
            (10, 2, 0)
        );
        assert_eq!(status.rules[2].compared.unwrap(), shadow);
        assert_eq!(status.rules[3].answers, None);
        // After a week it is no longer recent.
        let status = read(&store(7), &rules(), &Overlay::default());
        assert_eq!(status.units[5].old.answers, Answers::default());
        assert_eq!(status.done.traffic, None);
        assert_eq!(status.weeks[0].requests["legacy"], 150);
    }

    /// As [`store`], and on each day since then one request for nothing that anybody has.
    fn watched(days_ago: u64) -> Store {
        let mut store = store(days_ago);
        let nothing = Observations {
            traffic: vec![traffic("legacy", "GET ", 1, 0)],
            ..Observations::default()
        };
        for day in 0..days_ago {
            store.record(NOW - day * DAY, &nothing).unwrap();
        }
        store
    }

    #[test]
    fn a_legacy_route_without_a_hit_on_thirty_days_is_dead() {
        let of = |days| stages(&read(&watched(days), &rules(), &Overlay::default()));
        assert_eq!(of(12)[7], "GET /old is legacy: 0 hits in 12 days so far");
        // Here /items was last asked for thirty days ago.
        let stages = of(30);
        assert_eq!(stages[5], "GET /items/<int:id> is canary 10 %");
        assert_eq!(
            stages[7],
            "GET /old is dead: 0 hits in 30 days, safe to delete"
        );
        assert_eq!(
            stages[1],
            "GET /cart is new: 0 hits in 30 days, safe to delete"
        );
        // Only in the new application, or for WebSockets: nothing to delete, nothing known.
        assert_eq!(
            (stages[3].as_str(), stages[6].as_str()),
            ("GET /docs is new", "any /live is new")
        );
        assert_eq!(
            of(31)[5],
            "GET /items/<int:id> is dead: 0 hits in 30 days, safe to delete"
        );
        // Dead routes need not move.
        let status = read(&watched(30), &rules(), &Overlay::default());
        assert_eq!(status.done.routes, Some(100.0 * 2.0 / 5.0));
    }

    #[test]
    fn days_on_which_the_server_was_down_prove_nothing() {
        let status = read(&store(31), &rules(), &Overlay::default());
        assert_eq!(
            stages(&status)[7],
            "GET /old is legacy: 0 hits in 1 day so far"
        );
        assert_eq!(stages(&status)[5], "GET /items/<int:id> is canary 10 %");
        assert_eq!(status.done.routes, Some(100.0 * 2.0 / 7.0));
        // Up on every other day, it has seen enough after sixty.
        let mut store = store(60);
        for day in (0..60).step_by(2) {
            let seen = Observations {
                traffic: vec![traffic("new", "GET /docs", 1, 0)],
                ..Observations::default()
            };
            store.record(NOW - day * DAY, &seen).unwrap();
        }
        let status = read(&store, &rules(), &Overlay::default());
        assert_eq!(
            stages(&status)[7],
            "GET /old is dead: 0 hits in 30 days, safe to delete"
        );
    }

    #[test]
    fn before_anything_was_observed_nothing_is_done() {
        let mut store = Store::open(None).unwrap();
        store.inventory(NOW - 40 * DAY, &apps(), &rules()).unwrap();
        let status = read(&store, &rules(), &Overlay::default());
        assert_eq!(status.done, Done::default());
        assert_eq!(stages(&status)[7], "GET /old is legacy");
    }

    #[test]
    fn a_route_that_returns_begins_anew() {
        let mut store = watched(35);
        let [new, legacy] = apps();
        let without = report("legacy", Ok(&[("GET", "/search")]));
        let gone = [new.clone(), without];
        store.inventory(NOW - 20 * DAY, &gone, &rules()).unwrap();
        let back = [new, legacy];
        store.inventory(NOW - 5 * DAY, &back, &rules()).unwrap();
        // What was there all the time does not.
        store.inventory(NOW - 2 * DAY, &back, &rules()).unwrap();
        let status = read(&store, &rules(), &Overlay::default());
        assert_eq!(
            stages(&status)[7..],
            [
                "GET /old is legacy: 0 hits in 5 days so far",
                "GET /search is dead: 0 hits in 30 days, safe to delete"
            ]
        );
    }

    #[test]
    fn routes_that_differ_in_the_kinds_of_parameters_move_when_all_that_they_take_does() {
        let stage = |new: &[(&str, &str)], rule: RuleMatch, old: &[(&str, &str)]| {
            let rules = [
                RuleConfig::new("new", rule, ""),
                RuleConfig::new("legacy", RuleMatch::mount(""), ""),
            ];
            let mut store = Store::open(None).unwrap();
            let apps = [report("new", Ok(new)), report("legacy", Ok(old))];
            store.inventory(NOW, &apps, &rules).unwrap();
            let status = read(&store, &rules, &Overlay::default());
            assert_eq!(status.units.len(), 1);
            status.units[0].stage.to_string()
        };
        let both = [("GET", "/users/<int:id>"), ("GET", "/users/<name>")];
        let numbers = [("GET", "/users/{id:int}")];
        let names = [("GET", "/users/{id}")];
        let at = |template: &str| RuleMatch::at(Location::Template(template.parse().unwrap()));
        for (new, rule, old, expected) in [
            (&numbers, RuleMatch::owned(), &both[..], "legacy"),
            (&names, RuleMatch::owned(), &both, "new"),
            (&numbers, RuleMatch::owned(), &both[..1], "new"),
            (&numbers, RuleMatch::owned(), &both[1..], "legacy"),
            (&names, at("/users/{id:int}"), &both, "legacy"),
            (&names, at("/users/{id}"), &both, "new"),
            (&names, RuleMatch::mount(""), &both, "new"),
            (
                &names,
                RuleMatch::owned(),
                &[("GET", "/users/<path:it>")],
                "legacy",
            ),
            (
                &names,
                RuleMatch::owned(),
                &[("GET", "/users/<any(a, b):it>")],
                "new",
            ),
            (
                &numbers,
                RuleMatch::owned(),
                &[("GET", "/users/<int(min=1):it>")],
                "new",
            ),
        ] {
            assert_eq!(
                stage(new, rule.clone(), old),
                expected,
                "{new:?} {rule:?} {old:?}"
            );
        }
        // The legacy application keeps a part by a rule of its own.
        let rules = [
            RuleConfig::new("legacy", at("/users/{id:int}"), ""),
            RuleConfig::new("new", RuleMatch::owned(), ""),
            RuleConfig::new("legacy", RuleMatch::mount(""), ""),
        ];
        let mut store = Store::open(None).unwrap();
        let apps = [report("new", Ok(&names)), report("legacy", Ok(&both))];
        store.inventory(NOW, &apps, &rules).unwrap();
        let status = read(&store, &rules, &Overlay::default());
        assert_eq!(status.units[0].stage, Stage::Legacy);
    }

    #[test]
    fn kinds_of_parameters_are_told_in_the_words_of_every_framework() {
        for (template, expected) in [
            ("/a/<int:id>/{it}", &["int", ""][..]),
            ("/a/{id:int}", &["int"]),
            ("/a/<id:int>", &["int"]),
            ("/a/<string:name>/<path:rest>", &["", "path"]),
            ("/a/<own:name>", &["own"]),
            (r"/a/{id:\d{4}}", &[r"\d{4}"]),
            ("/a/{never", &[]),
        ] {
            assert_eq!(kinds(template), expected, "{template}");
        }
    }

    #[test]
    fn where_nobody_can_say_what_a_rule_takes_the_stage_is_unknown() {
        let fallthrough = RuleConfig {
            fallthrough: Some(FallthroughConfig::new(vec![StatusCode::NOT_FOUND])),
            ..RuleConfig::new("new", RuleMatch::mount(""), "")
        };
        let rules = [
            fallthrough,
            RuleConfig::new("legacy", RuleMatch::mount(""), ""),
        ];
        let [_, legacy] = apps();
        let mut store = watched(40);
        let apps = [report("new", Err("a middleware hides them")), legacy];
        // Nothing is known of an earlier time either.
        store
            .inventory(NOW, &[report("new", Ok(&[])), apps[1].clone()], &rules)
            .unwrap();
        store.inventory(NOW + 1, &apps, &rules).unwrap();
        let status = read(&store, &rules, &Overlay::default());
        let old = status.units.iter().find(|unit| unit.path == "/old");
        let old = old.unwrap();
        assert_eq!((&old.stage, old.idle), (&Stage::Unknown, None));
        assert_eq!((status.done.routes, status.done.traffic), (None, Some(0.0)));
    }

    #[test]
    fn the_legacy_application_is_that_of_the_last_rule_unless_another_says_so() {
        let flags = |said: Option<bool>, last: Option<bool>| {
            let mut rules = rules();
            for rule in &mut rules {
                rule.legacy = if rule.app == "new" { said } else { last };
            }
            let status = read(&store(0), &rules, &Overlay::default());
            let legacy = status.apps.iter().find(|app| app.legacy);
            assert_eq!(status.is_done(), legacy.is_none());
            (legacy.map(|app| app.name.clone()), status.done.routes)
        };
        let moved = Some(100.0 * 2.0 / 7.0);
        assert_eq!(flags(None, None), (Some("legacy".into()), moved));
        assert_eq!(
            flags(Some(false), Some(true)),
            (Some("legacy".into()), moved)
        );
        assert_eq!(flags(Some(true), None).0, Some("new".into()));
        assert_eq!(flags(None, Some(false)), (None, Some(100.0)));
    }

    #[test]
    fn a_route_that_the_legacy_application_had_has_moved_after_it_is_deleted() {
        let mut store = store(1);
        let [new, _] = apps();
        let rest = report("legacy", Ok(&[("GET", "/search"), ("GET", "/old")]));
        store.inventory(NOW, &[new, rest], &rules()).unwrap();
        let status = read(&store, &rules(), &Overlay::default());
        assert_eq!(
            stages(&status),
            [
                "GET /cart is new",
                "POST /cart is new",
                "GET /docs is new",
                "GET /items/{id} is new",
                "any /live is new",
                "GET /old is legacy: 0 hits in 1 day so far",
                "GET /search is shadow",
            ]
        );
        assert_eq!(status.done.routes, Some(100.0 * 3.0 / 5.0));
    }

    #[test]
    fn where_the_legacy_routes_are_not_known_no_share_of_routes_is() {
        let mut store = Store::open(None).unwrap();
        let [new, _] = apps();
        let apps = [new, report("legacy", Err("a middleware hides them"))];
        store.inventory(NOW, &apps, &rules()).unwrap();
        let status = read(&store, &rules(), &Overlay::default());
        assert_eq!(status.done, Done::default());
        assert_eq!(
            status.apps[1].unreadable.as_deref(),
            Some("a middleware hides them")
        );
        // Nobody knows that the legacy application has no such route.
        assert_eq!(status.units[2].stage, Stage::Legacy);
    }

    #[test]
    fn an_empty_store_is_a_status_too() {
        let store = Store::open(None).unwrap();
        let status = read(&store, &rules(), &Overlay::default());
        assert_eq!(
            (status.began, status.units.len(), status.done),
            (None, 0, Done::default())
        );
        assert_eq!(
            Status::read(&store, 0, &[], &Overlay::default())
                .unwrap()
                .apps,
            []
        );
    }

    #[test]
    fn weeks_are_those_of_iso_8601() {
        for (date, week) in [
            ((2024, 1, 1), "2024-W01"),
            ((2024, 12, 30), "2025-W01"),
            ((2020, 12, 28), "2020-W53"),
            ((2021, 1, 4), "2021-W01"),
            ((2026, 11, 16), "2026-W47"),
        ] {
            let day = (0..40_000).find(|day| civil(*day) == date).unwrap();
            assert_eq!(iso_week(day), week);
        }
        let status = read(&store(70), &rules(), &Overlay::default());
        assert_eq!(status.weeks.len(), 11);
        assert_eq!(status.weeks[0].requests["new"], 50);
    }

    #[test]
    fn the_chart_has_every_minute_of_a_day() {
        let mut store = Store::open(None).unwrap();
        for now in [NOW - DAY + 60, NOW - 60, NOW] {
            store.record(now, &observed()).unwrap();
        }
        let chart = Chart::read(&store, NOW).unwrap();
        let new = &chart.requests["new"];
        assert_eq!((chart.from, new.len()), (NOW / 60 - 1439, 1440));
        assert_eq!((new[0], new[1], new[1438], new[1439]), (50, 0, 50, 50));
    }
}
