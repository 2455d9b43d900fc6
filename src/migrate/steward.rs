//! The steward of a migration: keeps what was seen and what was changed, on a thread of its own.
//!
//! The supervisor must go on when a disk does not: it tells the steward what is to be kept, and is told when
//! that has been done. Of what is seen while nothing can be written, some minutes wait and the rest is lost; a
//! change is then not made. The judge of canaries sits here too, because it sees what is kept.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;
use tracing::{error, info};

use super::judge::Judge;
use super::live::{Change, Overlay, Record};
use super::observe::Observations;
use super::state_dir::StateDir;
use super::store::{Store, StoreError};
use crate::config::{ConfigError, RuleConfig};
use crate::supervisor::channel::AppReport;

/// How often canaries are judged; workers tell what they see as often.
const JUDGE_INTERVAL: Duration = Duration::from_secs(1);
/// Observations that wait for the disk at a time; each worker sends one in a second.
const BACKLOG: usize = 256;

/// What is done about a migration in this server.
#[derive(Debug)]
pub struct Steward {
    /// `None` where nothing outlives the server.
    directory: Option<StateDir>,
    overlay: Overlay,
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
    Rules(Vec<RuleConfig>),
    Inventory(Vec<AppReport>),
    Keep(Overlay, Record),
    Counts(Overlay),
    Ask(Box<dyn FnOnce(&Store) + Send>),
    /// The last one; told when the directory is free.
    Finish(Sender<()>),
}

/// What the steward tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Word {
    /// A version has been kept, or why not.
    Kept {
        version: u64,
        problem: Option<String>,
    },
    /// A canary is to be taken back; told again until it was.
    Verdict(Change),
}

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
            overlay: overlay.clone(),
            store,
            complained: false,
        };
        Ok(Beginning {
            steward,
            overlay,
            token,
        })
    }

    /// Starts the thread; `rules` are those of the configuration, `tell` is called on it.
    ///
    /// # Errors
    /// Where the system has no thread to give.
    pub fn start(
        self,
        rules: Vec<RuleConfig>,
        tell: impl Fn(Word) + Send + 'static,
    ) -> std::io::Result<Handle> {
        let (tasks, todo) = channel();
        let handle = Handle {
            tasks,
            waiting: Arc::default(),
        };
        let waiting = Arc::clone(&handle.waiting);
        std::thread::Builder::new()
            .name("twinspan-steward".into())
            .spawn(move || self.run(rules, &todo, &waiting, &tell))?;
        Ok(handle)
    }

    fn run(
        mut self,
        mut rules: Vec<RuleConfig>,
        todo: &Receiver<Task>,
        waiting: &AtomicUsize,
        tell: &dyn Fn(Word),
    ) {
        let began = Instant::now();
        let mut judge = Judge::new(&rules);
        let mut due = JUDGE_INTERVAL;
        loop {
            let now = began.elapsed();
            if now >= due {
                for verdict in judge.verdicts(now, &self.overlay) {
                    tell(Word::Verdict(verdict));
                }
                due = now + JUDGE_INTERVAL;
            }
            let task = match todo.recv_timeout(due.saturating_sub(now)) {
                Ok(task) => task,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            match task {
                Task::Observed(observations) => {
                    waiting.fetch_sub(1, Relaxed);
                    judge.observe(began.elapsed(), &observations);
                    let stored = self.store.record(unix_now(), &observations);
                    self.note(stored);
                }
                Task::Rules(new) => {
                    judge = Judge::new(&new);
                    rules = new;
                }
                Task::Inventory(apps) => {
                    let stored = self.store.inventory(unix_now(), &apps, &rules);
                    self.note(stored);
                }
                Task::Counts(overlay) => self.overlay = overlay,
                Task::Keep(overlay, record) => {
                    let version = overlay.version;
                    let problem = self.keep(&overlay, &record).err();
                    tell(Word::Kept { version, problem });
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

    fn keep(&mut self, overlay: &Overlay, record: &Record) -> Result<(), String> {
        if let Some(directory) = &self.directory {
            let kept = directory.keep(overlay, record);
            kept.map_err(|error| error.to_string())?;
        }
        let stored = self.store.changed(record);
        // It is in the audit log, which is what counts.
        self.note(stored);
        Ok(())
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

    /// Judges by other rules from now on.
    pub fn rules(&self, rules: Vec<RuleConfig>) {
        self.give(Task::Rules(rules));
    }

    /// Has kept which routes there are.
    pub fn inventory(&self, apps: Vec<AppReport>) {
        self.give(Task::Inventory(apps));
    }

    /// Judges by what counts now.
    pub fn counts(&self, overlay: Overlay) {
        self.give(Task::Counts(overlay));
    }

    /// Has a version kept; [`Word::Kept`] tells what came of it.
    pub fn keep(&self, overlay: Overlay, record: Record) {
        self.give(Task::Keep(overlay, record));
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
    use super::super::live::{RolledBack, RuleOverlay};
    use super::*;
    use crate::config::RuleMatch;
    use crate::config::rule::{CanaryConfig, Percent, ShadowConfig, Sticky};

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
