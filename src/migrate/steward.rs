//! The steward of a migration: keeps what was changed, on a thread of its own.
//!
//! The supervisor must go on when a disk does not: it tells the steward what is to be kept, and is told when
//! that has been done.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tracing::error;

use super::live::{Overlay, Record};
use super::state_dir::StateDir;
use crate::config::{ConfigError, RuleConfig};

/// What is done about a migration in this server.
#[derive(Debug)]
pub struct Steward {
    /// `None` where nothing outlives the server.
    directory: Option<StateDir>,
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
    Keep(Overlay, Record),
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
}

impl Steward {
    /// Takes the state directory, where there is to be one.
    ///
    /// # Errors
    /// [`ConfigError`] where it cannot be used, or what it holds cannot be read.
    pub fn open(directory: Option<&Path>) -> Result<Beginning, ConfigError> {
        let found = directory.map(StateDir::open).transpose()?;
        let (directory, overlay, token) = match found {
            Some(found) => (Some(found.directory), found.overlay, Some(found.token)),
            None => (None, Overlay::default(), None),
        };
        Ok(Beginning {
            steward: Self { directory },
            overlay,
            token,
        })
    }

    /// Starts the thread; `tell` is called on it.
    ///
    /// # Errors
    /// Where the system has no thread to give.
    pub fn start(self, tell: impl Fn(Word) + Send + 'static) -> std::io::Result<Handle> {
        let (tasks, todo) = channel();
        std::thread::Builder::new()
            .name("twinspan-steward".into())
            .spawn(move || self.run(&todo, &tell))?;
        Ok(Handle { tasks })
    }

    fn run(mut self, todo: &Receiver<Task>, tell: &dyn Fn(Word)) {
        while let Ok(task) = todo.recv() {
            match task {
                Task::Keep(overlay, record) => {
                    let version = overlay.version;
                    let problem = self.keep(&overlay, &record).err();
                    tell(Word::Kept { version, problem });
                }
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
        match &self.directory {
            Some(directory) => directory
                .keep(overlay, record)
                .map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }
}

/// The way to the steward. None of it waits, besides [`Handle::finish`].
#[derive(Debug, Clone)]
pub struct Handle {
    tasks: Sender<Task>,
}

impl Handle {
    /// Has a version kept; [`Word::Kept`] tells what came of it.
    pub fn keep(&self, overlay: Overlay, record: Record) {
        self.give(Task::Keep(overlay, record));
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
