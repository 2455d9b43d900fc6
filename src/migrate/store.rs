//! What is known of a migration, so that a restart loses nothing: one SQLite file in the state directory.
//!
//! One process writes, the supervisor, once a second and in one transaction; others read meanwhile, because
//! the file is in WAL mode. Everything that adds up is kept per day (UTC), because progress is asked for in
//! days and weeks, and per minute of the last day for charts. Keys are routes, rules and applications, never
//! what a client sends, so that the file grows with the configuration only.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Statement, ToSql, Transaction,
    TransactionBehavior, named_params, params,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::live::Record;
use super::observe::{CanaryTraffic, Comparisons, Observations, Sample, Side, Tally, Traffic};
use crate::app::RouteKind;
use crate::config::RuleConfig;
use crate::metrics::DURATION_BOUNDS;
use crate::policy::compare::Category;
use crate::supervisor::channel::AppReport;

/// The file in the state directory.
pub const FILE_NAME: &str = "migration.sqlite";

/// Kept in the file as `user_version`.
const SCHEMA: i64 = 1;

/// Days of which anything is kept.
const DAYS: i64 = 400;

/// Minutes of which traffic is kept.
const MINUTES: i64 = 24 * 60;

/// Samples of one route under one rule that differ in the same way; older ones make place.
const SAMPLES_ALIKE: i64 = 5;

/// Samples in all.
const SAMPLES: i64 = 500;

/// Changes that are remembered.
const CHANGES: i64 = 200;

/// Only another writer can be in the way, and whoever calls has other things to do.
const BUSY: Duration = Duration::from_millis(250);

/// The file, or the memory of this process.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    /// `None` in memory.
    path: Option<PathBuf>,
    /// The day on which old days were last thrown away.
    swept: Option<i64>,
}

/// Why what is known cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{}: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error(
        "{} was written by a newer Twinspan (its schema is {found}, this one knows {SCHEMA}): \
         use that one, or move the file away and a new one is begun", path.display()
    )]
    Newer { path: PathBuf, found: i64 },
    #[error(
        "{} is damaged ({problem}): move it away and restart the server, which then begins a new one",
        path.display()
    )]
    Corrupt { path: PathBuf, problem: String },
    #[error(
        "{} is locked: another process writes to it; give each server a `state_dir` of its own",
        path.display()
    )]
    Locked { path: PathBuf },
    #[error("{place}: {source}")]
    Sqlite {
        place: String,
        source: rusqlite::Error,
    },
}

/// One route of an application, or one method of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRoute {
    pub app: String,
    pub kind: RouteKind,
    /// `None` stands for every method.
    pub method: Option<String>,
    /// As the application writes it.
    pub template: String,
    pub endpoint: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
    /// Seconds since 1970, as all times here.
    pub first_seen: u64,
    pub last_seen: u64,
    /// When the application no longer defined it.
    pub gone: Option<u64>,
    /// The first rule that leads to it, and since when it is that one.
    pub rule: Option<String>,
    pub rule_since: u64,
}

/// One application, as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownApp {
    pub name: String,
    /// Why its routes are not known.
    pub problem: Option<String>,
}

/// Requests of one application in one minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MinuteTraffic {
    /// Since 1970.
    pub minute: u64,
    pub app: String,
    pub requests: u64,
    pub errors: u64,
    pub nanos: u64,
}

/// Requests of one application on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayTraffic {
    /// Since 1970.
    pub day: u64,
    pub app: String,
    pub requests: u64,
    pub nanos: u64,
}

impl Store {
    /// Opens the file in `dir` for the one process that writes, and makes both where they are not there. Without
    /// a directory everything is forgotten with the process.
    ///
    /// # Errors
    /// [`StoreError`] says what to do about it.
    pub fn open(dir: Option<&Path>) -> Result<Self, StoreError> {
        let Some(dir) = dir else {
            let connection = Connection::open_in_memory().map_err(|source| sqlite(None, source))?;
            return Self::prepared(connection, None);
        };
        let path = dir.join(FILE_NAME);
        create(dir, &path).map_err(|source| StoreError::Directory {
            path: path.clone(),
            source,
        })?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags)
            .map_err(|source| sqlite(Some(&path), source))?;
        Self::prepared(connection, Some(path))
    }

    /// Opens the file in `dir` beside a process that writes; `None` where nothing was written yet.
    ///
    /// # Errors
    /// [`StoreError`] says what to do about it.
    pub fn read(dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = dir.join(FILE_NAME);
        if !path.exists() {
            return Ok(None);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let failed = |source| sqlite(Some(&path), source);
        let connection = Connection::open_with_flags(&path, flags).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        let written = check_version(&connection, &path)? > 0;
        Ok(written.then_some(Self {
            connection,
            path: Some(path),
            swept: None,
        }))
    }

    fn prepared(connection: Connection, path: Option<PathBuf>) -> Result<Self, StoreError> {
        let mut store = Self {
            connection,
            path,
            swept: None,
        };
        let path = store.path.clone();
        store.run(|connection| {
            connection.busy_timeout(BUSY)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            // What a loss of power may cost is the last seconds, never the file.
            connection.pragma_update(None, "synchronous", "NORMAL")
        })?;
        if let Some(path) = &path {
            check_version(&store.connection, path)?;
        }
        store.write(|transaction| {
            let version: i64 =
                transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
            if version == 0 {
                transaction.execute_batch(&schema())?;
                transaction.pragma_update(None, "user_version", SCHEMA)?;
            }
            Ok(())
        })?;
        Ok(store)
    }

    /// Adds what workers have seen. One transaction, well below 5 ms for 200 routes.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of it is kept then.
    pub fn record(&mut self, now: u64, seen: &Observations) -> Result<(), StoreError> {
        if seen.is_empty() {
            return Ok(());
        }
        let (day, minute) = (integer(now / DAY), integer(now / 60));
        let sweep = self.swept != Some(day);
        self.write(|transaction| {
            begin(transaction, now)?;
            add_traffic(transaction, day, minute, &seen.traffic)?;
            add_canaries(transaction, day, &seen.canaries)?;
            add_comparisons(transaction, day, &seen.comparisons)?;
            add_samples(transaction, &seen.samples)?;
            transaction
                .prepare_cached("DELETE FROM minutes WHERE minute <= ?")?
                .execute([minute - MINUTES])?;
            if sweep {
                for table in ["traffic", "canaries", "comparisons"] {
                    transaction
                        .execute(&format!("DELETE FROM {table} WHERE day <= ?"), [day - DAYS])?;
                }
            }
            Ok(())
        })?;
        self.swept = Some(day);
        Ok(())
    }

    /// Takes note of the routes of all applications. What one no longer defines is gone, not forgotten; the
    /// routes of one that cannot be read stay as they were.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of it is kept then.
    pub fn inventory(
        &mut self,
        now: u64,
        apps: &[AppReport],
        rules: &[RuleConfig],
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            begin(transaction, now)?;
            transaction.execute("DELETE FROM apps", [])?;
            // Whatever is not seen below.
            transaction.execute(
                "UPDATE routes SET gone = ?1 WHERE gone IS NULL",
                [integer(now)],
            )?;
            for app in apps {
                let problem = app.routes.as_ref().err();
                transaction
                    .prepare_cached("INSERT INTO apps (name, problem) VALUES (?, ?)")?
                    .execute(params![app.name, problem])?;
                keep_routes(transaction, now, app, rules)?;
            }
            Ok(())
        })
    }

    /// Remembers a change that was made.
    ///
    /// # Errors
    /// [`StoreError`]; it is not remembered then.
    pub fn changed(&mut self, change: &Record) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.execute("INSERT INTO changes (record) VALUES (?)", [json(change)?])?;
            transaction.execute(
                "DELETE FROM changes WHERE id <= (SELECT max(id) FROM changes) - ?",
                [CHANGES],
            )?;
            Ok(())
        })
    }
}

/// What is asked of it.
impl Store {
    /// One state of the file for everything that `read` asks.
    ///
    /// # Errors
    /// That of `read`, or [`StoreError`].
    pub fn snapshot<T>(
        &self,
        read: impl FnOnce(&Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let transaction = self.run(Connection::unchecked_transaction)?;
        let result = read(self)?;
        // Nothing was written.
        self.run(|_| transaction.finish())?;
        Ok(result)
    }

    /// When the first observation or inventory was kept.
    pub fn began(&self) -> Result<Option<u64>, StoreError> {
        self.run(|connection| {
            connection
                .prepare_cached("SELECT at FROM began")?
                .query_row([], |row| number(row, 0))
                .optional()
        })
    }

    pub fn apps(&self) -> Result<Vec<KnownApp>, StoreError> {
        self.list("SELECT name, problem FROM apps ORDER BY name", [], |row| {
            Ok(KnownApp {
                name: row.get(0)?,
                problem: row.get(1)?,
            })
        })
    }

    /// Every route that was ever seen, gone ones included.
    pub fn routes(&self) -> Result<Vec<KnownRoute>, StoreError> {
        let query = "SELECT app, kind, method, template, endpoint, file, line, first_seen, last_seen, gone, rule,
                            rule_since
                     FROM routes ORDER BY app, template, kind, method";
        self.list(query, [], |row| {
            let kind: String = row.get(1)?;
            let method: String = row.get(2)?;
            Ok(KnownRoute {
                app: row.get(0)?,
                kind: if kind == WEBSOCKET {
                    RouteKind::WebSocket
                } else {
                    RouteKind::Http
                },
                method: (method != EVERY).then_some(method),
                template: row.get(3)?,
                endpoint: row.get(4)?,
                file: row.get(5)?,
                line: row.get(6)?,
                first_seen: number(row, 7)?,
                last_seen: number(row, 8)?,
                gone: row.get::<_, Option<i64>>(9)?.map(unsigned),
                rule: row.get(10)?,
                rule_since: number(row, 11)?,
            })
        })
    }

    /// Traffic by route since a day, counted from 1970.
    pub fn traffic(&self, since: u64) -> Result<Vec<Traffic>, StoreError> {
        let totals = totals();
        let query = format!(
            "SELECT {totals}, app, method, template FROM traffic WHERE day >= ?
             GROUP BY app, method, template"
        );
        self.list(&query, [integer(since)], |row| {
            Ok(Traffic {
                tally: tally(row)?,
                app: row.get(COUNTS)?,
                method: row.get(COUNTS + 1)?,
                template: template(row, COUNTS + 2)?,
            })
        })
    }

    /// Traffic by day and application since a day, counted from 1970.
    pub fn days(&self, since: u64) -> Result<Vec<DayTraffic>, StoreError> {
        let query = "SELECT day, app, sum(requests), total(nanos) FROM traffic WHERE day >= ? GROUP BY day, app";
        self.list(query, [integer(since)], |row| {
            Ok(DayTraffic {
                day: number(row, 0)?,
                app: row.get(1)?,
                requests: number(row, 2)?,
                nanos: whole(row.get(3)?),
            })
        })
    }

    /// The last days before a day, counted from 1970, on which anything was answered; the newest first.
    pub fn observed(&self, before: u64, limit: u64) -> Result<Vec<u64>, StoreError> {
        let query = "SELECT DISTINCT day FROM traffic WHERE day < ? ORDER BY day DESC LIMIT ?";
        self.list(query, [integer(before), integer(limit)], |row| {
            number(row, 0)
        })
    }

    /// Traffic of the last 24 hours, by minute and application.
    pub fn minutes(&self, now: u64) -> Result<Vec<MinuteTraffic>, StoreError> {
        let query = "SELECT minute, app, requests, errors, nanos FROM minutes WHERE minute > ? ORDER BY minute, app";
        let since = integer(now / 60) - MINUTES;
        self.list(query, [since], |row| {
            Ok(MinuteTraffic {
                minute: number(row, 0)?,
                app: row.get(1)?,
                requests: number(row, 2)?,
                errors: number(row, 3)?,
                nanos: number(row, 4)?,
            })
        })
    }

    /// Requests that matched rules with canaries, since a day, counted from 1970.
    pub fn canaries(&self, since: u64) -> Result<Vec<CanaryTraffic>, StoreError> {
        let totals = totals();
        let query =
            format!("SELECT {totals}, rule, side FROM canaries WHERE day >= ? GROUP BY rule, side");
        self.list(&query, [integer(since)], |row| {
            let side: String = row.get(COUNTS + 1)?;
            Ok(CanaryTraffic {
                tally: tally(row)?,
                rule: row.get(COUNTS)?,
                side: if side == NEW { Side::New } else { Side::Old },
            })
        })
    }

    /// Comparisons since a day, counted from 1970.
    pub fn comparisons(&self, since: u64) -> Result<Vec<Comparisons>, StoreError> {
        let query =
            "SELECT rule, method, template, sum(same), sum(different), sum(failed), sum(shed)
                     FROM comparisons WHERE day >= ? GROUP BY rule, method, template";
        self.list(query, [integer(since)], |row| {
            Ok(Comparisons {
                rule: row.get(0)?,
                method: row.get(1)?,
                template: template(row, 2)?,
                same: number(row, 3)?,
                different: number(row, 4)?,
                failed: number(row, 5)?,
                shed: number(row, 6)?,
            })
        })
    }

    /// All samples, the newest first.
    pub fn samples(&self) -> Result<Vec<Sample>, StoreError> {
        let query =
            "SELECT rule, method, template, path, at, differences FROM samples ORDER BY id DESC";
        self.list(query, [], |row| {
            let differences: String = row.get(5)?;
            Ok(Sample {
                rule: row.get(0)?,
                method: row.get(1)?,
                template: template(row, 2)?,
                path: row.get(3)?,
                at: number(row, 4)?,
                differences: parse(5, &differences)?,
            })
        })
    }

    /// The changes that were made last, the newest first.
    pub fn changes(&self, limit: u32) -> Result<Vec<Record>, StoreError> {
        let query = "SELECT record FROM changes ORDER BY id DESC LIMIT ?";
        self.list(query, [limit], |row| parse(0, &row.get::<_, String>(0)?))
    }

    fn list<T>(
        &self,
        query: &str,
        parameters: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        self.run(|connection| {
            connection
                .prepare_cached(query)?
                .query_map(parameters, read)?
                .collect()
        })
    }

    fn run<'a, T>(
        &'a self,
        work: impl FnOnce(&'a Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        work(&self.connection).map_err(|source| sqlite(self.path.as_deref(), source))
    }

    /// All of `work`, or nothing.
    fn write(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), StoreError> {
        self.connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .and_then(|transaction| {
                work(&transaction)?;
                transaction.commit()
            })
            .map_err(|source| sqlite(self.path.as_deref(), source))
    }
}

/// Only the server's user may read what its clients do.
fn create(dir: &Path, path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match file {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The schema of a file; 0 where nothing was written yet.
fn check_version(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let found = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|source| sqlite(Some(path), source))?;
    if found > SCHEMA {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
        });
    }
    Ok(found)
}

fn sqlite(path: Option<&Path>, source: rusqlite::Error) -> StoreError {
    match (path, source.sqlite_error_code()) {
        (Some(path), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)) => {
            StoreError::Corrupt {
                path: path.to_owned(),
                problem: source.to_string(),
            }
        }
        (Some(path), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)) => {
            StoreError::Locked {
                path: path.to_owned(),
            }
        }
        (path, _) => StoreError::Sqlite {
            place: path.map_or_else(|| "in memory".into(), |path| path.display().to_string()),
            source,
        },
    }
}

fn begin(transaction: &Transaction<'_>, now: u64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT INTO began (one, at) VALUES (1, ?) ON CONFLICT DO NOTHING")?
        .execute([integer(now)])?;
    Ok(())
}

fn add_traffic(
    transaction: &Transaction<'_>,
    day: i64,
    minute: i64,
    traffic: &[Traffic],
) -> rusqlite::Result<()> {
    let keys = ["day", "app", "method", "template"];
    let mut by_route = transaction.prepare_cached(&adding("traffic", &keys))?;
    let mut by_minute = transaction.prepare_cached(
        "INSERT INTO minutes (minute, app, requests, errors, nanos) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET
             requests = requests + excluded.requests,
             errors = errors + excluded.errors,
             nanos = min(nanos + excluded.nanos, 9223372036854775807)",
    )?;
    for route in traffic {
        let template = route.template.as_deref().unwrap_or(NO_TEMPLATE);
        add(
            &mut by_route,
            &[&day, &route.app, &route.method, &template],
            &route.tally,
        )?;
        by_minute.execute(params![
            minute,
            route.app,
            integer(route.tally.requests),
            integer(route.tally.errors),
            integer(route.tally.nanos)
        ])?;
    }
    Ok(())
}

fn add_canaries(
    transaction: &Transaction<'_>,
    day: i64,
    canaries: &[CanaryTraffic],
) -> rusqlite::Result<()> {
    let mut statement =
        transaction.prepare_cached(&adding("canaries", &["day", "rule", "side"]))?;
    for canary in canaries {
        let side = match canary.side {
            Side::New => NEW,
            Side::Old => OLD,
        };
        add(&mut statement, &[&day, &canary.rule, &side], &canary.tally)?;
    }
    Ok(())
}

fn add_comparisons(
    transaction: &Transaction<'_>,
    day: i64,
    comparisons: &[Comparisons],
) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO comparisons (day, rule, method, template, same, different, failed, shed)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET
             same = same + excluded.same,
             different = different + excluded.different,
             failed = failed + excluded.failed,
             shed = shed + excluded.shed",
    )?;
    for route in comparisons {
        statement.execute(params![
            day,
            route.rule,
            route.method,
            route.template.as_deref().unwrap_or(NO_TEMPLATE),
            integer(route.same),
            integer(route.different),
            integer(route.failed),
            integer(route.shed),
        ])?;
    }
    Ok(())
}

fn add_samples(transaction: &Transaction<'_>, samples: &[Sample]) -> rusqlite::Result<()> {
    if samples.is_empty() {
        return Ok(());
    }
    let mut insert = transaction.prepare_cached(
        "INSERT INTO samples (rule, method, template, category, path, at, differences)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?;
    let mut forget = transaction.prepare_cached(
        "DELETE FROM samples WHERE id IN (
             SELECT id FROM samples WHERE rule = ? AND method = ? AND template = ? AND category = ?
             ORDER BY id DESC LIMIT -1 OFFSET ?)",
    )?;
    for sample in samples {
        let template = sample.template.as_deref().unwrap_or(NO_TEMPLATE);
        let category = category(sample);
        insert.execute(params![
            sample.rule,
            sample.method,
            template,
            category,
            sample.path,
            integer(sample.at),
            json(&sample.differences)?,
        ])?;
        forget.execute(params![
            sample.rule,
            sample.method,
            template,
            category,
            SAMPLES_ALIKE
        ])?;
    }
    transaction
        .prepare_cached(
            "DELETE FROM samples WHERE id IN (SELECT id FROM samples ORDER BY id DESC LIMIT -1 OFFSET ?)",
        )?
        .execute([SAMPLES])?;
    Ok(())
}

/// A sample is kept under the first thing in which its answers differ.
fn category(sample: &Sample) -> &'static str {
    let first = sample.differences.first();
    first.map_or("", |first| category_name(first.category))
}

/// As the file has it, and people read it.
pub(crate) fn category_name(category: Category) -> &'static str {
    match category {
        Category::Status => "status",
        Category::Header => "header",
        Category::Cookie => "cookie",
        Category::Json => "json",
        Category::Text => "text",
        Category::Bytes => "bytes",
    }
}

fn keep_routes(
    transaction: &Transaction<'_>,
    now: u64,
    app: &AppReport,
    rules: &[RuleConfig],
) -> rusqlite::Result<()> {
    let Ok(table) = &app.routes else {
        // Those that were there when they could last be read.
        let mut statement = transaction
            .prepare_cached("UPDATE routes SET gone = NULL WHERE app = ? AND gone = ?")?;
        statement.execute(params![app.name, integer(now)])?;
        return Ok(());
    };
    // The first of several that are alike is the one that answers.
    let mut statement = transaction.prepare_cached(
        "INSERT INTO routes (app, kind, method, template, endpoint, file, line, first_seen, last_seen, rule,
                             rule_since)
         VALUES (:app, :kind, :method, :template, :endpoint, :file, :line, :now, :now, :rule, :now)
         ON CONFLICT DO UPDATE SET
             endpoint = excluded.endpoint, file = excluded.file, line = excluded.line,
             -- One that was gone before this inventory begins anew.
             first_seen = iif(gone = :now, first_seen, :now), last_seen = :now, gone = NULL,
             rule_since = iif(gone = :now AND rule IS excluded.rule, rule_since, :now), rule = excluded.rule
         WHERE gone IS NOT NULL",
    )?;
    let every = [EVERY.to_owned()];
    for route in &table.routes {
        for method in route.methods.as_deref().unwrap_or(&every) {
            let rule = rules.iter().find(|rule| {
                rule.app == app.name && rule.matches.leads_to(&route.template, method).is_some()
            });
            statement.execute(named_params! {
                ":app": app.name,
                ":kind": match route.kind {
                    RouteKind::Http => HTTP,
                    RouteKind::WebSocket => WEBSOCKET,
                },
                ":method": method,
                ":template": route.template,
                ":endpoint": route.endpoint,
                ":file": route.file,
                ":line": route.line,
                ":now": integer(now),
                ":rule": rule.map(|rule| &rule.name),
            })?;
        }
    }
    Ok(())
}

/// Stands for every method in a key.
const EVERY: &str = "*";

/// Stands in a key for what matches none of the templates; none is empty.
const NO_TEMPLATE: &str = "";

const HTTP: &str = "http";
const WEBSOCKET: &str = "websocket";
const NEW: &str = "new";
const OLD: &str = "old";

pub(super) const DAY: u64 = 24 * 60 * 60;

const BUCKETS: usize = DURATION_BOUNDS.len() + 1;

/// The columns of a [`Tally`]: `requests`, `errors`, `nanos`, and its buckets.
const COUNTS: usize = 3 + BUCKETS;

fn counts() -> impl Iterator<Item = String> {
    let buckets = (0..BUCKETS).map(|bucket| format!("bucket{bucket}"));
    ["requests", "errors", "nanos"]
        .map(str::to_owned)
        .into_iter()
        .chain(buckets)
}

fn schema() -> String {
    let counts: Vec<_> = counts()
        .map(|name| format!("{name} INTEGER NOT NULL"))
        .collect();
    let counts = counts.join(", ");
    format!(
        "
CREATE TABLE began (one INTEGER PRIMARY KEY CHECK (one = 1), at INTEGER NOT NULL) STRICT;
CREATE TABLE apps (name TEXT PRIMARY KEY, problem TEXT) STRICT;
CREATE TABLE routes (
    app TEXT NOT NULL, kind TEXT NOT NULL, method TEXT NOT NULL, template TEXT NOT NULL,
    endpoint TEXT, file TEXT, line INTEGER,
    first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL, gone INTEGER,
    rule TEXT, rule_since INTEGER NOT NULL,
    PRIMARY KEY (app, kind, method, template)
) STRICT, WITHOUT ROWID;
CREATE TABLE traffic (
    day INTEGER NOT NULL, app TEXT NOT NULL, method TEXT NOT NULL, template TEXT NOT NULL,
    {counts},
    PRIMARY KEY (day, app, method, template)
) STRICT, WITHOUT ROWID;
CREATE TABLE minutes (
    minute INTEGER NOT NULL, app TEXT NOT NULL,
    requests INTEGER NOT NULL, errors INTEGER NOT NULL, nanos INTEGER NOT NULL,
    PRIMARY KEY (minute, app)
) STRICT, WITHOUT ROWID;
CREATE TABLE canaries (
    day INTEGER NOT NULL, rule TEXT NOT NULL, side TEXT NOT NULL,
    {counts},
    PRIMARY KEY (day, rule, side)
) STRICT, WITHOUT ROWID;
CREATE TABLE comparisons (
    day INTEGER NOT NULL, rule TEXT NOT NULL, method TEXT NOT NULL, template TEXT NOT NULL,
    same INTEGER NOT NULL, different INTEGER NOT NULL, failed INTEGER NOT NULL, shed INTEGER NOT NULL,
    PRIMARY KEY (day, rule, method, template)
) STRICT, WITHOUT ROWID;
CREATE TABLE samples (
    id INTEGER PRIMARY KEY, rule TEXT NOT NULL, method TEXT NOT NULL, template TEXT NOT NULL,
    category TEXT NOT NULL, path TEXT NOT NULL, at INTEGER NOT NULL, differences TEXT NOT NULL
) STRICT;
CREATE INDEX samples_alike ON samples (rule, method, template, category);
CREATE TABLE changes (id INTEGER PRIMARY KEY, record TEXT NOT NULL) STRICT;
"
    )
}

/// Adds a [`Tally`] to the row with `keys`.
fn adding(table: &str, keys: &[&str]) -> String {
    let columns: Vec<_> = keys
        .iter()
        .map(|key| (*key).to_owned())
        .chain(counts())
        .collect();
    let values = vec!["?"; columns.len()].join(", ");
    let sums: Vec<_> = counts()
        .map(|name| format!("{name} = min({name} + excluded.{name}, {})", i64::MAX))
        .collect();
    format!(
        "INSERT INTO {table} ({}) VALUES ({values}) ON CONFLICT DO UPDATE SET {}",
        columns.join(", "),
        sums.join(", ")
    )
}

fn add(statement: &mut Statement<'_>, keys: &[&dyn ToSql], tally: &Tally) -> rusqlite::Result<()> {
    let counts = [tally.requests, tally.errors, tally.nanos];
    let counts = counts.into_iter().chain(tally.buckets).map(integer);
    for (index, key) in keys.iter().enumerate() {
        statement.raw_bind_parameter(index + 1, key)?;
    }
    for (index, count) in counts.enumerate() {
        statement.raw_bind_parameter(keys.len() + index + 1, count)?;
    }
    statement.raw_execute()?;
    Ok(())
}

/// What [`tally`] reads, over several rows. `total` is a float, because `sum` fails where it overflows.
fn totals() -> String {
    let sums: Vec<_> = counts().map(|name| format!("total({name})")).collect();
    sums.join(", ")
}

/// From the first [`COUNTS`] columns.
fn tally(row: &Row<'_>) -> rusqlite::Result<Tally> {
    let count = |index| row.get(index).map(whole);
    let mut buckets = [0; BUCKETS];
    for (index, bucket) in buckets.iter_mut().enumerate() {
        *bucket = count(3 + index)?;
    }
    Ok(Tally {
        requests: count(0)?,
        errors: count(1)?,
        nanos: count(2)?,
        buckets,
    })
}

fn template(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<String>> {
    let template: String = row.get(index)?;
    Ok((template != NO_TEMPLATE).then_some(template))
}

fn json(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn parse<T: DeserializeOwned>(index: usize, text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, Type::Text, error.into()))
}

/// SQLite has no unsigned integers.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn number(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    row.get(index).map(unsigned)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sums of counts; a float beyond the range becomes its end"
)]
fn whole(sum: f64) -> u64 {
    sum as u64
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::app::{Description, Interface, Route, RouteTable};
    use crate::config::RuleMatch;
    use crate::migrate::live::Author;
    use crate::policy::compare::Difference;

    const NOON: u64 = 20_000 * DAY + DAY / 2;

    /// A directory that is not there yet, and goes with the test.
    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("twinspan-store-{}-{count}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        fn file(&self) -> PathBuf {
            self.0.join(FILE_NAME)
        }

        fn open(&self) -> Result<Store, StoreError> {
            Store::open(Some(&self.0))
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn tally(requests: u64, errors: u64) -> Tally {
        let mut tally = Tally {
            requests,
            errors,
            nanos: requests * 2_000_000,
            ..Tally::default()
        };
        tally.buckets[1] = requests;
        tally
    }

    fn traffic(app: &str, method: &str, template: Option<&str>, tally: Tally) -> Traffic {
        Traffic {
            app: app.into(),
            method: method.into(),
            template: template.map(str::to_owned),
            tally,
        }
    }

    fn sample(template: &str, at: u64, category: Category) -> Sample {
        Sample {
            rule: "items".into(),
            method: "GET".into(),
            template: Some(template.into()),
            path: format!("{template}/{at}"),
            at,
            differences: vec![Difference::new(category, "$.price", "1", "2")],
        }
    }

    fn everything() -> Observations {
        Observations {
            traffic: vec![
                traffic("old", "GET", Some("/items/<id>"), tally(10, 1)),
                traffic("old", "POST", None, tally(3, 0)),
            ],
            canaries: vec![CanaryTraffic {
                rule: "items".into(),
                side: Side::New,
                tally: tally(4, 4),
            }],
            comparisons: vec![Comparisons {
                rule: "items".into(),
                method: "GET".into(),
                template: Some("/items/<id>".into()),
                same: 5,
                different: 2,
                failed: 1,
                shed: 3,
            }],
            samples: vec![sample("/items/<id>", 7, Category::Json)],
        }
    }

    fn doubled() -> Observations {
        let mut seen = everything();
        for tally in seen.traffic.iter_mut().map(|it| &mut it.tally) {
            tally.add(&tally.clone());
        }
        seen.canaries[0].tally.add(&tally(4, 4));
        let Comparisons {
            same,
            different,
            failed,
            shed,
            ..
        } = &mut seen.comparisons[0];
        for count in [same, different, failed, shed] {
            *count *= 2;
        }
        seen.samples.push(seen.samples[0].clone());
        seen
    }

    fn known(store: &Store) -> Observations {
        let mut traffic = store.traffic(0).unwrap();
        traffic.sort_by(|a, b| a.method.cmp(&b.method));
        Observations {
            traffic,
            canaries: store.canaries(0).unwrap(),
            comparisons: store.comparisons(0).unwrap(),
            samples: store.samples().unwrap(),
        }
    }

    pub(crate) fn report(name: &str, routes: Result<&[(&str, &str)], &str>) -> AppReport {
        let route = |(methods, template): &(&str, &str)| Route {
            template: (*template).into(),
            pattern: String::new(),
            kind: match *methods {
                "WS" => RouteKind::WebSocket,
                _ => RouteKind::Http,
            },
            methods: match *methods {
                "WS" | "*" => None,
                list => Some(list.split(',').map(str::to_owned).collect()),
            },
            host: None,
            redirects_slash: false,
            exact: true,
            endpoint: Some("view".into()),
            file: Some("shop.py".into()),
            line: Some(7),
            guards: None,
        };
        AppReport {
            name: name.into(),
            description: Description {
                interface: Interface::Wsgi,
                threads: None,
            },
            routes: routes
                .map(|routes| RouteTable {
                    routes: routes.iter().map(route).collect(),
                    ..RouteTable::default()
                })
                .map_err(str::to_owned),
            bridges: Vec::new(),
        }
    }

    #[test]
    fn what_is_recorded_adds_up_and_outlives_the_process() {
        let directory = Directory::new();
        let mut store = directory.open().unwrap();
        store.record(NOON, &everything()).unwrap();
        store.record(NOON + DAY, &everything()).unwrap();
        drop(store);
        let store = directory.open().unwrap();
        assert_eq!(known(&store), doubled());
        assert_eq!(store.began().unwrap(), Some(NOON));
        // The second day alone.
        let traffic = store.traffic(NOON / DAY + 1).unwrap();
        assert_eq!(traffic.iter().map(|it| it.tally.requests).sum::<u64>(), 13);
        let days = store.days(0).unwrap();
        let days: Vec<_> = days.iter().map(|it| (it.day, it.requests)).collect();
        assert_eq!(days, [(20_000, 13), (20_001, 13)]);
    }

    #[test]
    fn without_a_directory_it_is_kept_in_memory() {
        let mut store = Store::open(None).unwrap();
        store.record(NOON, &everything()).unwrap();
        store.record(NOON, &everything()).unwrap();
        assert_eq!(known(&store), doubled());
    }

    #[test]
    fn nobody_else_may_read_the_file() {
        let directory = Directory::new();
        let mut store = directory.open().unwrap();
        store.record(NOON, &everything()).unwrap();
        let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(directory.0.clone()), 0o700);
        for name in ["", "-wal", "-shm"] {
            let path = directory.0.join(format!("{FILE_NAME}{name}"));
            assert_eq!(mode(path), 0o600, "{name}");
        }
    }

    #[test]
    fn it_is_read_beside_the_process_that_writes() {
        let directory = Directory::new();
        assert!(Store::read(&directory.0).unwrap().is_none());
        let mut writer = directory.open().unwrap();
        let reader = Store::read(&directory.0).unwrap().unwrap();
        assert_eq!(reader.traffic(0).unwrap().len(), 0);
        writer.record(NOON, &everything()).unwrap();
        assert_eq!(known(&reader), everything());
        let seen_twice = reader.snapshot(|reader| {
            let first = known(reader);
            writer.record(NOON, &everything())?;
            Ok((first, known(reader)))
        });
        assert_eq!(seen_twice.unwrap(), (everything(), everything()));
        assert_eq!(known(&reader), doubled());
        assert!(matches!(
            Store::read(&directory.0)
                .unwrap()
                .unwrap()
                .record(NOON, &everything()),
            Err(StoreError::Sqlite { .. })
        ));
        // Nor does it need one that writes.
        drop((writer, reader));
        let reader = Store::read(&directory.0).unwrap().unwrap();
        assert_eq!(known(&reader), doubled());
    }

    #[test]
    fn two_that_write_wait_for_each_other() {
        let directory = Directory::new();
        let mut first = directory.open().unwrap();
        let mut second = directory.open().unwrap();
        first.record(NOON, &everything()).unwrap();
        second.record(NOON, &everything()).unwrap();
        assert_eq!(known(&first), doubled());
        let held = first
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .unwrap();
        let error = second.record(NOON, &everything()).unwrap_err();
        assert!(matches!(error, StoreError::Locked { .. }), "{error}");
        drop(held);
        second.record(NOON, &Observations::default()).unwrap();
        assert_eq!(known(&second), doubled());
    }

    #[test]
    fn a_file_of_a_newer_server_is_left_alone() {
        let directory = Directory::new();
        let store = directory.open().unwrap();
        store
            .connection
            .pragma_update(None, "user_version", SCHEMA + 1)
            .unwrap();
        drop(store);
        for error in [
            directory.open().unwrap_err(),
            Store::read(&directory.0).unwrap_err(),
        ] {
            assert_eq!(
                error.to_string(),
                format!(
                    "{} was written by a newer Twinspan (its schema is 2, this one knows 1): use that one, or \
                     move the file away and a new one is begun",
                    directory.file().display()
                )
            );
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_that_says_what_to_do() {
        let directory = Directory::new();
        std::fs::create_dir(&directory.0).unwrap();
        std::fs::write(directory.file(), "no database".repeat(100)).unwrap();
        for error in [
            directory.open().unwrap_err(),
            Store::read(&directory.0).unwrap_err(),
        ] {
            assert_eq!(
                error.to_string(),
                format!(
                    "{} is damaged (file is not a database): move it away and restart the server, which then \
                     begins a new one",
                    directory.file().display()
                )
            );
        }
        // Damaged while it is in use.
        std::fs::remove_file(directory.file()).unwrap();
        let mut store = directory.open().unwrap();
        store.record(NOON, &everything()).unwrap();
        drop(store);
        let mut bytes = std::fs::read(directory.file()).unwrap();
        bytes[4096..].fill(0x55);
        std::fs::write(directory.file(), bytes).unwrap();
        let mut store = directory.open().unwrap();
        let error = store.record(NOON, &everything()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    }

    #[test]
    fn a_full_disk_is_an_error_and_costs_no_more_than_what_was_to_be_kept() {
        let directory = Directory::new();
        let mut store = directory.open().unwrap();
        store.record(NOON, &everything()).unwrap();
        let pages: i64 = store
            .connection
            .pragma_query_value(None, "page_count", |row| row.get(0))
            .unwrap();
        store
            .connection
            .pragma_update(None, "max_page_count", pages)
            .unwrap();
        let mut large = everything();
        large.samples[0].path = "x".repeat(100_000);
        let error = store.record(NOON, &large).unwrap_err();
        assert!(matches!(error, StoreError::Sqlite { .. }), "{error}");
        assert_eq!(known(&store), everything());
        store.record(NOON, &everything()).unwrap();
        assert_eq!(known(&store), doubled());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let error = Store::open(Some(Path::new("/dev/null/state"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/dev/null/state/migration.sqlite: Not a directory (os error 20)"
        );
    }

    #[test]
    fn minutes_are_kept_for_a_day_and_days_for_over_a_year() {
        let mut store = Store::open(None).unwrap();
        store.record(NOON, &everything()).unwrap();
        store.record(NOON + 59, &everything()).unwrap();
        store.record(NOON + 61, &everything()).unwrap();
        let minutes = |store: &Store, now| {
            let minutes = store.minutes(now).unwrap();
            minutes.iter().map(|it| it.requests).collect::<Vec<_>>()
        };
        assert_eq!(minutes(&store, NOON + 61), [26, 13]);
        assert_eq!(minutes(&store, NOON + DAY), [13]);
        store.record(NOON + DAY, &everything()).unwrap();
        let count = |store: &Store| -> i64 {
            store
                .connection
                .query_row("SELECT count(*) FROM minutes", [], |row| row.get(0))
                .unwrap()
        };
        assert_eq!(count(&store), 2);
        store.record(NOON + 400 * DAY, &everything()).unwrap();
        let days = store.days(0).unwrap();
        let days: Vec<_> = days.iter().map(|it| it.day).collect();
        assert_eq!(days, [20_001, 20_400]);
        assert_eq!(store.began().unwrap(), Some(NOON));
    }

    #[test]
    fn of_samples_the_newest_few_of_each_kind_are_kept() {
        let mut store = Store::open(None).unwrap();
        let mut seen = Observations::default();
        for at in 0..8 {
            seen.samples.push(sample("/a", at, Category::Json));
        }
        seen.samples.push(sample("/a", 8, Category::Status));
        seen.samples.push(sample("/b", 9, Category::Json));
        store.record(NOON, &seen).unwrap();
        let at = |store: &Store| -> Vec<u64> {
            store.samples().unwrap().iter().map(|it| it.at).collect()
        };
        assert_eq!(at(&store), [9, 8, 7, 6, 5, 4, 3]);
        seen.samples = (0..600)
            .map(|at| sample(&format!("/{at}"), 100 + at, Category::Text))
            .collect();
        store.record(NOON, &seen).unwrap();
        let kept = at(&store);
        assert_eq!((kept.len(), kept[0], kept[499]), (500, 699, 200));
    }

    #[test]
    fn counts_that_do_not_fit_stay_at_the_most_that_does() {
        let mut store = Store::open(None).unwrap();
        let mut seen = everything();
        seen.traffic[0].tally.nanos = u64::MAX;
        for day in 0..3 {
            store.record(NOON + day * DAY, &seen).unwrap();
            store.record(NOON + day * DAY, &seen).unwrap();
        }
        let all = known(&store).traffic;
        assert!(all[0].tally.nanos >= u64::MAX / 2);
        assert_eq!(all[0].tally.requests, 60);
        assert_eq!(store.days(0).unwrap().len(), 3);
    }

    #[test]
    fn routes_that_an_application_no_longer_defines_are_gone_but_not_lost() {
        let mut store = Store::open(None).unwrap();
        let rules = [
            RuleConfig {
                name: "items".into(),
                ..RuleConfig::new("new", RuleMatch::owned(), "")
            },
            RuleConfig::new("old", RuleMatch::mount(""), ""),
        ];
        let both = [
            report("new", Ok(&[("GET", "/items")])),
            report(
                "old",
                Ok(&[("GET,POST", "/items"), ("WS", "/live"), ("*", "/any")]),
            ),
        ];
        store.inventory(10, &both, &rules).unwrap();
        let list = |store: &Store| -> Vec<String> {
            let routes = store.routes().unwrap();
            routes
                .iter()
                .map(|it| {
                    format!(
                        "{} {} {} {}-{} gone {:?} by {} since {}",
                        it.app,
                        it.method.as_deref().unwrap_or("any"),
                        it.template,
                        it.first_seen,
                        it.last_seen,
                        it.gone,
                        it.rule.as_deref().unwrap_or("none"),
                        it.rule_since
                    )
                })
                .collect()
        };
        assert_eq!(
            list(&store),
            [
                "new GET /items 10-10 gone None by items since 10",
                "old any /any 10-10 gone None by catch-all since 10",
                "old GET /items 10-10 gone None by catch-all since 10",
                "old POST /items 10-10 gone None by catch-all since 10",
                "old any /live 10-10 gone None by catch-all since 10",
            ]
        );
        assert_eq!(store.routes().unwrap()[4].kind, RouteKind::WebSocket);
        let now = [report("old", Ok(&[("GET", "/items"), ("*", "/any")]))];
        store.inventory(20, &now, &rules[1..]).unwrap();
        // The router cannot be read this time: nothing is said about its routes.
        let unreadable = [
            report("new", Ok(&[("GET", "/items")])),
            report("old", Err("a middleware hides it")),
        ];
        let mut renamed = rules.clone();
        renamed[0].name = "shop".into();
        store.inventory(30, &unreadable, &renamed).unwrap();
        assert_eq!(
            list(&store),
            [
                // It was away, so that it begins anew.
                "new GET /items 30-30 gone None by shop since 30",
                "old any /any 10-20 gone None by catch-all since 10",
                "old GET /items 10-20 gone None by catch-all since 10",
                "old POST /items 10-10 gone Some(20) by catch-all since 10",
                "old any /live 10-10 gone Some(20) by catch-all since 10",
            ]
        );
        assert_eq!(
            store.apps().unwrap()[1].problem.as_deref(),
            Some("a middleware hides it")
        );
    }

    #[test]
    fn the_last_changes_are_remembered() {
        let mut store = Store::open(None).unwrap();
        let change = |version| Record {
            at: NOON,
            version,
            author: Author::Operator { uid: Some(1000) },
            rule: "items".into(),
            was: None,
            is: None,
            reason: Some("too slow".into()),
        };
        for version in 1..=250 {
            store.changed(&change(version)).unwrap();
        }
        let changes = store.changes(1000).unwrap();
        assert_eq!((changes.len(), &changes[0]), (200, &change(250)));
        assert_eq!(store.changes(1).unwrap(), [change(250)]);
    }
}
