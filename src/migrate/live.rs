//! What may be changed while the server runs: the shares of rules, and nothing else.
//!
//! The whole of what was changed is one [`Overlay`] with a version, laid over the configuration. A change
//! makes the next version of it, which all workers take on or none: each first says that it can
//! ([`ToWorker::Prepare`](crate::supervisor::channel::ToWorker::Prepare)), then all are told that it is so.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::rule::{Percent, RuleConfig};

/// What was changed since the configuration was written, for rules by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Overlay {
    /// Counts the changes.
    pub version: u64,
    pub rules: BTreeMap<String, RuleOverlay>,
}

/// What was changed of one rule.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleOverlay {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Percent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Percent>,
    /// The canary is back at nothing, and stays there until an operator resets the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<RolledBack>,
}

/// Why and when a canary was taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolledBack {
    /// Seconds since 1970.
    pub at: u64,
    pub reason: String,
    /// The share that it had.
    pub from: Percent,
}

/// The shares of one rule as they are now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shares {
    /// Of the requests that match; [`Percent::ALL`] without a canary.
    pub canary: Percent,
    pub shadow: Percent,
}

/// One change to one rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub rule: String,
    #[serde(flatten)]
    pub edit: Edit,
}

/// What is done to a rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "edit", rename_all = "snake_case")]
pub enum Edit {
    /// Gives it other shares; what is not named stays.
    Set {
        #[serde(default)]
        canary: Option<Percent>,
        #[serde(default)]
        shadow: Option<Percent>,
    },
    /// Takes its canary back to nothing, until it is reset.
    RollBack { reason: String },
    /// Forgets everything that was changed: the configuration counts again.
    Reset,
}

/// Who makes a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "who", rename_all = "snake_case")]
pub enum Author {
    /// Who holds the token of the admin endpoint.
    Operator {
        /// The unix user, where the request came over a unix socket.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<u32>,
    },
    /// The server itself, which takes a canary back.
    Automatic,
}

/// `operator`, `operator (uid 1000)`, `automatic`
impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator { uid: None } => f.write_str("operator"),
            Self::Operator { uid: Some(uid) } => write!(f, "operator (uid {uid})"),
            Self::Automatic => f.write_str("automatic"),
        }
    }
}

/// How a rule is at one time; what it has no policy for is not there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleState {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Percent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Percent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<RolledBack>,
}

/// One change that was made, as a line of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Seconds since 1970.
    pub at: u64,
    pub version: u64,
    #[serde(flatten)]
    pub author: Author,
    pub rule: String,
    /// `None` for a rule that is not in the configuration any more.
    pub was: Option<RuleState>,
    pub is: Option<RuleState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// Workers on which it counts.
    pub workers: usize,
    #[serde(flatten)]
    pub record: Record,
}

/// Why a change is not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("there is no rule `{rule}`; there are {known}")]
    UnknownRule { rule: String, known: String },
    #[error("rule `{rule}` has no {policy}: add `{policy} = 0` to it in the configuration")]
    NoPolicy { rule: String, policy: &'static str },
    #[error("rule `{rule}` was rolled back ({reason}): reset it first")]
    RolledBack { rule: String, reason: String },
    #[error("nothing is said about rule `{rule}`: write `canary=PERCENT` or `shadow=PERCENT`")]
    Nothing { rule: String },
    #[error("a worker cannot take on the change: {0}")]
    Refused(String),
    #[error("the change cannot be kept: {0}")]
    NotKept(String),
}

impl Overlay {
    /// The shares of a rule under this overlay.
    pub fn shares(&self, rule: &RuleConfig) -> Shares {
        let changed = self.rules.get(&rule.name);
        let canary = rule.canary.as_ref().map_or(Percent::ALL, |canary| {
            changed.map_or(canary.percent, |changed| match &changed.rolled_back {
                Some(_) => Percent::NONE,
                None => changed.canary.unwrap_or(canary.percent),
            })
        });
        let shadow = rule.shadow.as_ref().map_or(Percent::NONE, |shadow| {
            changed
                .and_then(|changed| changed.shadow)
                .unwrap_or(shadow.percent)
        });
        Shares { canary, shadow }
    }

    /// How a rule is under this overlay.
    pub fn state(&self, rule: &RuleConfig) -> RuleState {
        let shares = self.shares(rule);
        let changed = self.rules.get(&rule.name);
        RuleState {
            canary: rule.canary.as_ref().map(|_| shares.canary),
            shadow: rule.shadow.as_ref().map(|_| shares.shadow),
            rolled_back: changed.and_then(|changed| changed.rolled_back.clone()),
        }
    }

    /// The next version, with one change more. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// [`ChangeError`] where the rule, or what is to be changed of it, is not there, and for a canary that
    /// was rolled back.
    pub fn apply(
        &self,
        change: &Change,
        rules: &[RuleConfig],
        now: u64,
    ) -> Result<Self, ChangeError> {
        let name = &change.rule;
        let mut next = self.clone();
        next.version += 1;
        let rule = rules.iter().find(|rule| rule.name == *name);
        if change.edit == Edit::Reset {
            // Also of a rule that is not in the configuration any more.
            let known = next.rules.remove(name).is_some() || rule.is_some();
            return known.then_some(next).ok_or_else(|| unknown(name, rules));
        }
        let rule = rule.ok_or_else(|| unknown(name, rules))?;
        let lacks = |policy| ChangeError::NoPolicy {
            rule: name.clone(),
            policy,
        };
        let changed = next.rules.entry(name.clone()).or_default();
        match &change.edit {
            Edit::Set {
                canary: None,
                shadow: None,
            } => return Err(ChangeError::Nothing { rule: name.clone() }),
            Edit::Set { canary, shadow } => {
                if canary.is_some() && rule.canary.is_none() {
                    return Err(lacks("canary"));
                }
                if shadow.is_some() && rule.shadow.is_none() {
                    return Err(lacks("shadow"));
                }
                if let (Some(_), Some(latch)) = (canary, &changed.rolled_back) {
                    return Err(ChangeError::RolledBack {
                        rule: name.clone(),
                        reason: latch.reason.clone(),
                    });
                }
                changed.canary = canary.or(changed.canary);
                changed.shadow = shadow.or(changed.shadow);
            }
            Edit::RollBack { reason } => {
                if rule.canary.is_none() {
                    return Err(lacks("canary"));
                }
                if let Some(latch) = &changed.rolled_back {
                    return Err(ChangeError::RolledBack {
                        rule: name.clone(),
                        reason: latch.reason.clone(),
                    });
                }
                changed.rolled_back = Some(RolledBack {
                    at: now,
                    reason: reason.clone(),
                    from: self.shares(rule).canary,
                });
            }
            Edit::Reset => {}
        }
        Ok(next)
    }
}

/// What counts in one worker, and what may be next.
#[derive(Debug)]
pub struct TakenOn {
    rules: Vec<RuleConfig>,
    current: Overlay,
    held: Option<Overlay>,
}

impl TakenOn {
    /// `rules` are those of the worker's configuration.
    pub fn new(rules: Vec<RuleConfig>, current: Overlay) -> Self {
        Self {
            rules,
            current,
            held: None,
        }
    }

    /// Holds the next version.
    ///
    /// # Errors
    /// Why it cannot count here: while a server reloads, workers may know other rules than their supervisor.
    pub fn prepare(&mut self, next: Overlay) -> Result<(), String> {
        self.held = None;
        for (name, changed) in &next.rules {
            // What was said of rules that are gone is kept, for they may come back.
            if self.current.rules.get(name) == Some(changed) {
                continue;
            }
            let rule = self.rules.iter().find(|rule| rule.name == *name);
            let lacks = match rule {
                None => "no such rule",
                Some(rule) if changed.shadow.is_some() && rule.shadow.is_none() => "no `shadow`",
                Some(rule) if changed.asks_canary() && rule.canary.is_none() => "no `canary`",
                Some(_) => continue,
            };
            return Err(format!(
                "rule `{name}` has another configuration there ({lacks}); wait for the reload to end"
            ));
        }
        self.held = Some(next);
        Ok(())
    }

    /// What counts from now on; `None` where this version is not held.
    pub fn commit(&mut self, version: u64) -> Option<&Overlay> {
        self.current = self.held.take_if(|held| held.version == version)?;
        Some(&self.current)
    }

    pub fn abort(&mut self, version: u64) {
        self.held.take_if(|held| held.version == version);
    }
}

impl RuleOverlay {
    fn asks_canary(&self) -> bool {
        self.canary.is_some() || self.rolled_back.is_some()
    }
}

fn unknown(name: &str, rules: &[RuleConfig]) -> ChangeError {
    let known: Vec<_> = rules
        .iter()
        .filter(|rule| rule.canary.is_some() || rule.shadow.is_some())
        .map(|rule| format!("`{}`", rule.name))
        .collect();
    ChangeError::UnknownRule {
        rule: name.into(),
        known: if known.is_empty() {
            "none with a canary or a shadow".into()
        } else {
            known.join(", ")
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RuleMatch;
    use crate::config::rule::{CanaryConfig, RollbackConfig, ShadowConfig, Sticky};

    fn percent(text: &str) -> Percent {
        text.parse().unwrap()
    }

    fn rules() -> Vec<RuleConfig> {
        let canary = CanaryConfig {
            percent: percent("10"),
            sticky: Sticky::Client,
            testers: Vec::new(),
            rollback: Some(RollbackConfig::default()),
        };
        vec![
            RuleConfig {
                name: "items".into(),
                canary: Some(canary),
                shadow: Some(ShadowConfig::new(percent("5"))),
                ..RuleConfig::new("new", RuleMatch::owned(), "twinspan.toml:1")
            },
            RuleConfig::new("old", RuleMatch::mount(""), "twinspan.toml:9"),
        ]
    }

    fn change(rule: &str, edit: Edit) -> Change {
        Change {
            rule: rule.into(),
            edit,
        }
    }

    fn set(canary: Option<&str>, shadow: Option<&str>) -> Edit {
        Edit::Set {
            canary: canary.map(percent),
            shadow: shadow.map(percent),
        }
    }

    fn shares(overlay: &Overlay) -> (Percent, Percent) {
        let shares = overlay.shares(&rules()[0]);
        (shares.canary, shares.shadow)
    }

    #[test]
    fn a_change_makes_the_next_version_and_leaves_what_it_does_not_name() {
        let rules = rules();
        let first = Overlay::default();
        assert_eq!(shares(&first), (percent("10"), percent("5")));
        let edit = change("items", set(Some("25"), None));
        let second = first.apply(&edit, &rules, 0).unwrap();
        assert_eq!(
            (second.version, shares(&second)),
            (1, (percent("25"), percent("5")))
        );
        let edit = change("items", set(None, Some("0")));
        let third = second.apply(&edit, &rules, 0).unwrap();
        assert_eq!(
            (third.version, shares(&third)),
            (2, (percent("25"), percent("0")))
        );
        let reset = third
            .apply(&change("items", Edit::Reset), &rules, 0)
            .unwrap();
        assert_eq!(
            (reset.version, shares(&reset)),
            (3, (percent("10"), percent("5")))
        );
    }

    #[test]
    fn a_canary_that_was_rolled_back_stays_so_until_it_is_reset() {
        let rules = rules();
        let edit = Edit::RollBack {
            reason: "too slow".into(),
        };
        let back = Overlay::default()
            .apply(&change("items", edit), &rules, 7)
            .unwrap();
        assert_eq!(shares(&back), (Percent::NONE, percent("5")));
        let latch = back.rules["items"].rolled_back.clone().unwrap();
        assert_eq!((latch.at, latch.from), (7, percent("10")));
        let error = back.apply(&change("items", set(Some("50"), None)), &rules, 8);
        assert!(
            matches!(error, Err(ChangeError::RolledBack { .. })),
            "{error:?}"
        );
        let again = Edit::RollBack {
            reason: "again".into(),
        };
        let error = back.apply(&change("items", again), &rules, 8).unwrap_err();
        assert_eq!(
            error.to_string(),
            "rule `items` was rolled back (too slow): reset it first"
        );
        // Copies do no harm to clients.
        back.apply(&change("items", set(None, Some("50"))), &rules, 8)
            .unwrap();
        let reset = back
            .apply(&change("items", Edit::Reset), &rules, 9)
            .unwrap();
        assert_eq!(shares(&reset), (percent("10"), percent("5")));
    }

    #[test]
    fn what_is_not_there_cannot_be_changed() {
        let rules = rules();
        for (rule, edit, problem) in [
            (
                "itmes",
                set(Some("1"), None),
                "there is no rule `itmes`; there are `items`",
            ),
            (
                "catch-all",
                set(None, Some("1")),
                "rule `catch-all` has no shadow: add `shadow = 0` to it in the configuration",
            ),
            (
                "items",
                set(None, None),
                "nothing is said about rule `items`: write `canary=PERCENT` or `shadow=PERCENT`",
            ),
        ] {
            let error = Overlay::default().apply(&change(rule, edit), &rules, 0);
            assert_eq!(error.unwrap_err().to_string(), problem);
        }
    }

    #[test]
    fn a_rule_that_is_gone_can_be_reset_and_one_that_never_was_cannot() {
        let mut overlay = Overlay::default();
        overlay.rules.insert("gone".into(), RuleOverlay::default());
        let reset =
            |overlay: &Overlay, rule| overlay.apply(&change(rule, Edit::Reset), &rules(), 0);
        let after = reset(&overlay, "gone").unwrap();
        assert_eq!((after.version, after.rules.len()), (1, 0));
        reset(&after, "gone").unwrap_err();
        assert_eq!(reset(&after, "items").unwrap().rules.len(), 0);
    }

    #[test]
    fn a_worker_takes_on_what_it_was_told_to_hold_and_nothing_else() {
        let mut worker = TakenOn::new(rules(), Overlay::default());
        let edit = change("items", set(Some("25"), None));
        let next = Overlay::default().apply(&edit, &rules(), 0).unwrap();
        assert_eq!(worker.commit(1), None, "nothing is held");
        worker.prepare(next.clone()).unwrap();
        worker.abort(7);
        assert_eq!(worker.commit(2), None, "another version");
        assert_eq!(worker.commit(1), Some(&next));
        assert_eq!(worker.commit(1), None, "it counts already");
        worker.prepare(next).unwrap();
        worker.abort(1);
        assert_eq!(worker.commit(1), None, "it was aborted");
    }

    #[test]
    fn a_worker_refuses_what_its_configuration_does_not_have() {
        let edit = change("items", set(Some("25"), None));
        let next = Overlay::default().apply(&edit, &rules(), 0).unwrap();
        let other = || {
            vec![RuleConfig::new(
                "new",
                RuleMatch::owned(),
                "twinspan.toml:1",
            )]
        };
        let without_canary = || RuleConfig {
            name: "items".into(),
            ..RuleConfig::new("new", RuleMatch::owned(), "twinspan.toml:1")
        };
        for (rules, lacks) in [
            (other(), "no such rule"),
            (vec![without_canary()], "no `canary`"),
        ] {
            let mut worker = TakenOn::new(rules, Overlay::default());
            let problem = worker.prepare(next.clone()).unwrap_err();
            assert!(problem.contains(lacks), "{problem}");
            assert_eq!(worker.commit(1), None);
        }
        // What is said of a rule that is gone does not stand in the way of another change.
        let mut worker = TakenOn::new(other(), next.clone());
        let mut later = next;
        later.version = 2;
        worker.prepare(later).unwrap();
        assert!(worker.commit(2).is_some());
    }

    #[test]
    fn changes_travel_as_they_are_written() {
        let text = r#"{"rule":"items","edit":"set","canary":25}"#;
        let parsed: Change = serde_json::from_str(text).unwrap();
        assert_eq!(parsed, change("items", set(Some("25"), None)));
        let overlay = Overlay::default().apply(&parsed, &rules(), 0).unwrap();
        let text = serde_json::to_string(&overlay).unwrap();
        assert_eq!(serde_json::from_str::<Overlay>(&text).unwrap(), overlay);
    }
}
