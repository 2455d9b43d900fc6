//! The steward of a migration: keeps what was seen and what was changed, on a thread of its own.
//!
//! The supervisor must go on when a disk does not: it tells the steward what is to be kept, and is told when
//! that has been done. Of what is seen while nothing can be written, some minutes wait and the rest is lost; a
//! change is then not made. A rollback counts before it is kept, and what decides on it is not here.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tracing::{error, info};

use super::live::{Overlay, Record};
use super::observe::Observations;
use super::state_dir::StateDir;
use super::store::{Store, StoreError};
use crate::config::{ConfigError, RuleConfig};
use crate::supervisor::channel::AppReport;

/// Observations that wait for the disk at a time; each worker sends one in a second.
const BACKLOG: usize = 256;

/// What is done about a migration in this server.
#[derive(Debug)]
pub struct Steward {
    /// `None` where nothing outlives the server.
    directory: Option<StateDir>,
    store: Store,
    /// The store did not take what it was last given, which has been said.
    complained: bool,
}

/// A steward, and what a server begins with.
#[derive(Debug)]
pub struct Beginning {
    pub steward: Steward,
    pub overlay: Overlay,
    /// What changes need to be made from outside; `None` where they cannot.
    pub token: Option<String>,
}

/// What the steward is told or asked.
enum Task {
    Observed(Observations),
    Inventory(Vec<AppReport>, Vec<RuleConfig>),
    Keep(Overlay, Record),
    Restore {
        overlay: Overlay,
        refused: u64,
    },
    Ask(Box<dyn FnOnce(&Store) + Send>),
    /// The last one; told when the directory is free.
    Finish(Sender<()>),
}

/// A version has been kept, or why not.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    pub version: u64,
    pub problem: Option<String>,
}

/// Versions that were given up while they may still be written.
type Refused = Mutex<BTreeSet<u64>>;

impl Steward {
    /// Takes the state directory, where there is to be one.
    ///
    /// # Errors
    /// [`ConfigError`] where it cannot be used, or what it holds cannot be read.
    pub fn open(directory: Option<&Path>) -> Result<Beginning, ConfigError> {
        let found = directory.map(StateDir::open).transpose()?;
        let store = Store::open(directory)
            .map_err(|error| ConfigError::new(error.to_string()).option("`--state-dir`"))?;
        let (directory, overlay, token) = match found {
            Some(found) => (Some(found.directory), found.overlay, Some(found.token)),
            None => (None, Overlay::default(), None),
        };
        let steward = Self {
            directory,
            store,
            complained: false,
        };
        Ok(Beginning {
            steward,
            overlay,
            token,
        })
    }

    /// Starts the thread, on which `tell` is called.
    ///
    /// # Errors
    /// Where the system has no thread to give.
    pub fn start(self, tell: impl Fn(Kept) + Send + 'static) -> std::io::Result<Handle> {
        let (tasks, todo) = channel();
        let handle = Handle {
            tasks,
            waiting: Arc::default(),
            refused: Arc::default(),
        };
        let (waiting, refused) = (Arc::clone(&handle.waiting), Arc::clone(&handle.refused));
        std::thread::Builder::new()
            .name("twinspan-steward".into())
            .spawn(move || self.run(&todo, &waiting, &refused, &tell))?;
        Ok(handle)
    }

    fn run(
        mut self,
        todo: &Receiver<Task>,
        waiting: &AtomicUsize,
        refused: &Refused,
        tell: &dyn Fn(Kept),
    ) {
        for task in todo {
            match task {
                Task::Observed(observations) => {
                    waiting.fetch_sub(1, Relaxed);
                    let stored = self.store.record(unix_now(), &observations);
                    self.note(stored);
                }
                Task::Inventory(apps, rules) => {
                    let stored = self.store.inventory(unix_now(), &apps, &rules);
                    self.note(stored);
                }
                Task::Keep(overlay, record) => {
                    let version = overlay.version;
                    let wanted = || !lock(refused).contains(&version);
                    let problem = self.keep(&overlay, &record, wanted).err();
                    tell(Kept { version, problem });
                }
                Task::Restore {
                    overlay,
                    refused: version,
                } => {
                    lock(refused).remove(&version);
                    self.restore(&overlay, version);
                }
                Task::Ask(question) => question(&self.store),
                Task::Finish(done) => {
                    drop(self);
                    // Whoever asked may have waited long enough.
                    let _ = done.send(());
                    return;
                }
            }
        }
    }

    fn keep(
        &mut self,
        overlay: &Overlay,
        record: &Record,
        wanted: impl Fn() -> bool,
    ) -> Result<(), String> {
        if let Some(directory) = &mut self.directory {
            let kept = directory.keep(overlay, record, wanted);
            kept.map_err(|error| error.to_string())?;
        }
        let stored = self.store.changed(record);
        // It is in the audit log, which is what counts.
        self.note(stored);
        Ok(())
    }

    fn restore(&mut self, overlay: &Overlay, refused: u64) {
        if let Some(directory) = &mut self.directory
            && let Err(error) = directory.restore(overlay)
        {
            let counts = overlay.version;
            error!(
                refused,
                counts,
                %error,
                "a change that was refused is in the state directory, and would count after a restart"
            );
        }
    }

    /// A disk that is full is told once, not each second.
    fn note(&mut self, stored: Result<(), StoreError>) {
        match stored {
            Ok(()) if self.complained => {
                self.complained = false;
                info!("what is seen of the migration is kept again");
            }
            Ok(()) => {}
            Err(error) => {
                if !std::mem::replace(&mut self.complained, true) {
                    error!(%error, "what is seen of the migration is not kept");
                }
            }
        }
    }
}

/// The way to the steward. None of it waits, besides [`Handle::finish`].
#[derive(Clone)]
pub struct Handle {
    tasks: Sender<Task>,
    /// Observations that it has not come to yet.
    waiting: Arc<AtomicUsize>,
    refused: Arc<Refused>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Handle {
    /// Has kept what a worker has seen.
    pub fn observe(&self, observations: Observations) {
        if self.waiting.fetch_add(1, Relaxed) < BACKLOG {
            self.give(Task::Observed(observations));
        } else {
            self.waiting.fetch_sub(1, Relaxed);
        }
    }

    /// Has kept which routes there are, and which of `rules` they are reached by.
    pub fn inventory(&self, apps: Vec<AppReport>, rules: Vec<RuleConfig>) {
        self.give(Task::Inventory(apps, rules));
    }

    /// Has a version kept; [`Kept`] tells what came of it.
    pub fn keep(&self, overlay: Overlay, record: Record) {
        self.give(Task::Keep(overlay, record));
    }

    /// Has `overlay` be what the next server finds, and not the version that was `refused` while it was kept.
    pub fn restore(&self, overlay: Overlay, refused: u64) {
        lock(&self.refused).insert(refused);
        self.give(Task::Restore { overlay, refused });
    }

    /// Asks what is known; `None` where the server is ending.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.give(Task::Ask(Box::new(move |store| {
            // Whoever asked may have gone.
            let _ = reply.send(question(store));
        })));
        answer.await.ok()
    }

    /// Ends the steward, and waits until everything that was given has been done, at most `limit`.
    pub fn finish(&self, limit: Duration) {
        let (done, finished) = channel();
        self.give(Task::Finish(done));
        if finished.recv_timeout(limit).is_err() {
            error!(
                "the last that was seen of the migration is lost: the state directory does not take it"
            );
        }
    }

    fn give(&self, task: Task) {
        // Nothing is kept of a server that has ended.
        let _ = self.tasks.send(task);
    }
}

fn lock(refused: &Refused) -> std::sync::MutexGuard<'_, BTreeSet<u64>> {
    refused.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// What whoever starts a server should know: where shares are not those of the configuration.
pub fn greetings(overlay: &Overlay, rules: &[RuleConfig]) -> Vec<String> {
    let mut lines = Vec::new();
    for rule in rules {
        let (now, written) = (overlay.state(rule), Overlay::default().state(rule));
        let (name, origin) = (&rule.name, &rule.origin);
        if let (Some(latch), Some(written)) = (&now.rolled_back, written.canary) {
            lines.push(format!(
                "rule `{name}`: canary 0 %, rolled back ({}); {origin} says {written} %, which counts again \
                 after `twinspan ctl reset {}`",
                latch.reason,
                shell_word(name)
            ));
        }
        let canary = now.canary.filter(|_| now.rolled_back.is_none());
        let shares = [
            ("canary", canary, written.canary),
            ("shadow", now.shadow, written.shadow),
        ];
        for (policy, now, written) in shares {
            if let (Some(now), Some(written)) = (now, written)
                && now != written
            {
                lines.push(format!(
                    "rule `{name}`: {policy} {now} %, changed live; {origin} says {written} %"
                ));
            }
        }
    }
    for name in overlay.rules.keys() {
        if !rules.iter().any(|rule| rule.name == *name) {
            lines.push(format!(
                "rule `{name}` was changed live and is not in the configuration any more; \
                 `twinspan ctl reset {}` forgets it",
                shell_word(name)
            ));
        }
    }
    lines
}

/// A name as it is typed.
fn shell_word(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    if name.bytes().all(plain) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::live::{Author, RolledBack, RuleOverlay};
    use super::*;
    use crate::config::RuleMatch;
    use crate::config::rule::{CanaryConfig, Percent, ShadowConfig, Sticky};

    #[test]
    fn a_change_that_was_given_up_while_the_disk_stalled_is_not_written_afterwards() {
        let name = format!("twinspan-given-up-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let (tell, told) = channel();
        let steward = Steward::open(Some(&path)).unwrap().steward;
        let handle = steward.start(move |kept| tell.send(kept).unwrap()).unwrap();
        let (answer, stalled) = channel::<()>();
        handle.give(Task::Ask(Box::new(move |_| {
            let _ = stalled.recv();
        })));
        for version in [1, 2] {
            let overlay = Overlay {
                version,
                ..Overlay::default()
            };
            let record = Record {
                at: 0,
                version,
                author: Author::Automatic,
                rule: "items".into(),
                was: None,
                is: None,
                reason: None,
            };
            handle.keep(overlay, record);
            if version == 1 {
                handle.restore(Overlay::default(), version);
            }
        }
        drop(answer);
        handle.finish(Duration::from_secs(60));
        let kept: Vec<_> = told.iter().map(|it| (it.version, it.problem)).collect();
        assert_eq!(kept, [(1, Some("it took too long".into())), (2, None)]);
        let found = StateDir::open(&path).unwrap();
        assert_eq!(found.overlay.version, 2);
        let audit = std::fs::read_to_string(path.join("audit.jsonl")).unwrap();
        assert_eq!(audit.lines().count(), 1, "{audit}");
        std::fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn whoever_starts_a_server_learns_where_shares_are_not_those_of_the_file() {
        let rule = |name: &str, line: u32| {
            let canary = CanaryConfig {
                percent: Percent::ONE,
                sticky: Sticky::Client,
                testers: Vec::new(),
                rollback: None,
            };
            RuleConfig {
                name: name.into(),
                canary: Some(canary),
                shadow: Some(ShadowConfig::new(Percent::NONE)),
                ..RuleConfig::new("new", RuleMatch::owned(), format!("twinspan.toml:{line}"))
            }
        };
        let rules = [rule("items", 3), rule("owned by new", 9), rule("same", 12)];
        let mut overlay = Overlay::default();
        let changed = |canary: &str| RuleOverlay {
            canary: Some(canary.parse().unwrap()),
            ..RuleOverlay::default()
        };
        let rolled_back = RuleOverlay {
            rolled_back: Some(RolledBack {
                at: 0,
                reason: "too slow".into(),
                from: Percent::ONE,
            }),
            shadow: Some(Percent::ALL),
            ..RuleOverlay::default()
        };
        overlay.rules = [
            ("items".into(), changed("25")),
            ("owned by new".into(), rolled_back),
            ("same".into(), changed("1")),
            ("gone".into(), changed("1")),
        ]
        .into();
        assert_eq!(
            greetings(&overlay, &rules),
            [
                "rule `items`: canary 25 %, changed live; twinspan.toml:3 says 1 %",
                "rule `owned by new`: canary 0 %, rolled back (too slow); twinspan.toml:9 says 1 %, which counts \
                 again after `twinspan ctl reset 'owned by new'`",
                "rule `owned by new`: shadow 100 %, changed live; twinspan.toml:9 says 0 %",
                "rule `gone` was changed live and is not in the configuration any more; `twinspan ctl reset gone` \
                 forgets it",
            ]
        );
        assert_eq!(greetings(&Overlay::default(), &rules), [""; 0]);
    }
}
