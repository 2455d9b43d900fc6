//! Automatic rollback: when a canary is so much worse than what it replaces that it ends.
//!
//! Each rule with [`CanaryConfig::rollback`](crate::config::rule::CanaryConfig::rollback) has a window that
//! slides over what workers have seen. No IO and no clock here: who calls says what time it is.
//!
//! What is measured is a sample of what is true, so nothing is compared that chance could explain. Shares are
//! bounded by Chernoff's inequality in its sharp form: `all * KL(seen, true)` exceeds `ln(1 / risk)` with less than
//! that risk, `KL` being the relative entropy of the two shares. It holds for every number of samples and every
//! share. The intervals that rest on the normal distribution (Wald's, Wilson's) do not where error rates live, near
//! nothing: of 50 answers of an application that fails once in a thousand times, two failed too often. The
//! difference of two error rates is bounded as Newcombe does ("Interval estimation for the difference between
//! independent proportions", Statistics in Medicine 17, 1998, method 10), from the bounds of both.
//!
//! The 95th percentile of the new side is above `latency` times that of the old one when more than 5 % of its
//! answers took longer than that: once more a share. The old percentile is taken at the upper end of its own
//! bounds, and at least as the finest duration that is told apart; the product is rounded up to the next of
//! [`DURATION_BOUNDS`], for between two of them nobody knows where answers lie.
//!
//! A window is looked at again and again, and each look is another chance to be wrong. The risk of 5 % is
//! therefore shared by [`LOOKS`] (Bonferroni), so that "sure to 95 %" is said of weeks and not of each look. That
//! costs little: a new application that fails outright is still found with the first samples.
//!
//! Another share is another load, so what was seen under one says little of the other, and a window begins anew with
//! each. But a share that grows takes away what the new side is compared with, at 100 % all of it, and an application
//! that fails as often as the old one always did must not be taken back for that. The errors of the old side are
//! therefore remembered when the share changes: those of one window before, if it had enough samples, or else those
//! that were remembered then. They count while the share stays and the old side has too few samples of its own, and
//! for errors alone: how long answers take does depend on the load.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::live::{Change, Edit, Overlay};
use super::observe::{Observations, Side, Tally};
use crate::config::RuleConfig;
use crate::config::rule::{Percent, RollbackConfig};
use crate::metrics::DURATION_BOUNDS;

/// Looks that share the risk to be wrong: about as many as there are windows of five minutes in a month. Far more
/// are taken, but those at one window see almost the same.
pub const LOOKS: f64 = 10_000.0;

/// The risk of all of them together.
const RISK: f64 = 0.05;

/// What part of the answers a latency is about.
const PERCENTILE: f64 = 0.95;

/// Parts in which a window slides.
const PARTS: u32 = 30;

/// Watches the canaries that may be rolled back.
#[derive(Debug, Default)]
pub struct Judge {
    /// By name.
    rules: BTreeMap<String, Watched>,
}

/// One rule.
#[derive(Debug)]
struct Watched {
    rule: RuleConfig,
    rollback: RollbackConfig,
    window: Window,
    /// The share with which the window was filled.
    share: Option<Percent>,
    /// What the old side was like before that share.
    baseline: Tally,
}

/// What was seen lately.
#[derive(Debug)]
struct Window {
    /// How long one part of it is.
    part: Duration,
    parts: u64,
    /// Each with its number since the clock began, the oldest first.
    seen: VecDeque<(u64, Seen)>,
}

/// What was seen of a rule.
#[derive(Debug, Clone, Default)]
struct Seen {
    new: Tally,
    old: Tally,
    same: u64,
    different: u64,
}

impl Judge {
    pub fn new(rules: &[RuleConfig]) -> Self {
        let mut judge = Self::default();
        judge.watch(rules);
        judge
    }

    /// Watches these rules from now on. What was seen of those that it watches already still counts.
    pub fn watch(&mut self, rules: &[RuleConfig]) {
        let mut before = std::mem::take(&mut self.rules);
        for rule in rules {
            let canary = rule.canary.as_ref();
            let Some(rollback) = canary.and_then(|canary| canary.rollback.clone()) else {
                continue;
            };
            let known = before
                .remove(&rule.name)
                .filter(|it| it.rollback == rollback && it.rule.app == rule.app);
            let watched = match known {
                Some(known) => Watched {
                    rule: rule.clone(),
                    ..known
                },
                None => Watched {
                    rule: rule.clone(),
                    window: Window::new(rollback.window),
                    rollback,
                    share: None,
                    baseline: Tally::default(),
                },
            };
            self.rules.insert(rule.name.clone(), watched);
        }
    }

    /// Takes note of what a worker has seen. `now` is of a clock that only goes forward.
    pub fn observe(&mut self, now: Duration, seen: &Observations) {
        for canary in &seen.canaries {
            if let Some(watched) = self.rules.get_mut(&canary.rule) {
                let current = watched.window.at(now);
                match canary.side {
                    Side::New => current.new.add(&canary.tally),
                    Side::Old => current.old.add(&canary.tally),
                }
            }
        }
        for route in &seen.comparisons {
            if let Some(watched) = self.rules.get_mut(&route.rule) {
                let current = watched.window.at(now);
                current.same = current.same.saturating_add(route.same);
                current.different = current.different.saturating_add(route.different);
            }
        }
    }

    /// The canaries that are to be taken back. One stays here until `overlay` says that it was.
    pub fn verdicts(&mut self, now: Duration, overlay: &Overlay) -> Vec<Change> {
        let verdict = |watched: &mut Watched| {
            let share = overlay.shares(&watched.rule).canary;
            watched.take_share(share, now);
            if share == Percent::NONE {
                watched.window.forget_new();
                return None;
            }
            let seen = watched.window.sum(now);
            let reason = seen.verdict(&watched.rule.app, &watched.rollback, &watched.baseline)?;
            Some(Change {
                rule: watched.rule.name.clone(),
                edit: Edit::RollBack { reason },
            })
        };
        self.rules.values_mut().filter_map(verdict).collect()
    }
}

impl Watched {
    fn take_share(&mut self, share: Percent, now: Duration) {
        let before = self.share.replace(share);
        if before.is_none_or(|before| before == share) {
            return;
        }
        let old = self.window.sum(now).old;
        if old.requests >= self.rollback.samples {
            self.baseline = old;
        }
        self.window.seen.clear();
    }
}

impl Window {
    fn new(length: Duration) -> Self {
        let part = (length / PARTS).max(Duration::from_secs(1));
        Self {
            part,
            parts: u64::try_from(length.as_nanos() / part.as_nanos()).unwrap_or(u64::MAX),
            seen: VecDeque::new(),
        }
    }

    /// The part of this moment; those that are too old are forgotten.
    fn at(&mut self, now: Duration) -> &mut Seen {
        let number = self.forget(now);
        if self.seen.back().is_none_or(|(last, _)| *last != number) {
            self.seen.push_back((number, Seen::default()));
        }
        &mut self.seen.back_mut().expect("just put there").1
    }

    fn sum(&mut self, now: Duration) -> Seen {
        self.forget(now);
        let mut sum = Seen::default();
        for (_, part) in &self.seen {
            sum.new.add(&part.new);
            sum.old.add(&part.old);
            sum.same = sum.same.saturating_add(part.same);
            sum.different = sum.different.saturating_add(part.different);
        }
        sum
    }

    /// Keeps what does not change with the share.
    fn forget_new(&mut self) {
        for (_, part) in &mut self.seen {
            let old = std::mem::take(&mut part.old);
            *part = Seen {
                old,
                ..Seen::default()
            };
        }
    }

    /// The number of the part of this moment.
    fn forget(&mut self, now: Duration) -> u64 {
        let number = u64::try_from(now.as_nanos() / self.part.as_nanos()).unwrap_or(u64::MAX);
        while let Some((first, _)) = self.seen.front()
            && *first + self.parts < number
        {
            self.seen.pop_front();
        }
        number
    }
}

impl Seen {
    /// Why the new side is to answer no more.
    fn verdict(&self, app: &str, limits: &RollbackConfig, baseline: &Tally) -> Option<String> {
        self.errors(app, limits, baseline)
            .or_else(|| self.differences(app, limits))
            .or_else(|| self.latency(app, limits))
    }

    fn errors(&self, app: &str, limits: &RollbackConfig, baseline: &Tally) -> Option<String> {
        let (new, mut old) = (&self.new, self.old.clone());
        if old.requests < limits.samples {
            old.add(baseline);
        }
        if new.requests < limits.samples {
            return None;
        }
        let above = above(share(new), share(&old), limits.samples);
        if above <= part_of(limits.errors) {
            return None;
        }
        Some(format!(
            "{} of {} answers of `{app}` failed, {} of {} of the others; more than {} above is sure to 95 %",
            new.errors,
            new.requests,
            old.errors,
            old.requests,
            points(limits.errors),
        ))
    }

    fn differences(&self, app: &str, limits: &RollbackConfig) -> Option<String> {
        let allowed = limits.differences?;
        let compared = self.same.saturating_add(self.different);
        if compared < limits.samples {
            return None;
        }
        let (lower, _) = bounds(ratio(self.different, compared), compared);
        (lower > part_of(allowed)).then(|| {
            format!(
                "{} of {compared} copies were answered differently by `{app}`; more than {allowed} % is sure to 95 %",
                self.different,
            )
        })
    }

    fn latency(&self, app: &str, limits: &RollbackConfig) -> Option<String> {
        let times = limits.latency?;
        let (new, old) = (&self.new, &self.old);
        if new.requests.min(old.requests) < limits.samples {
            return None;
        }
        let answered: u64 = old.buckets.iter().sum();
        let (_, upper) = bounds(PERCENTILE, answered);
        let limit = old.quantile(upper)?.max(FINEST) * times;
        let bucket = DURATION_BOUNDS
            .iter()
            .position(|bound| seconds(bound.nanos) >= limit)?;
        let slower: u64 = new.buckets.iter().skip(bucket + 1).sum();
        let answered = new.buckets.iter().sum();
        let (lower, _) = bounds(ratio(slower, answered), answered);
        if lower <= 1.0 - PERCENTILE {
            return None;
        }
        let [new_takes, old_takes] = [new, old].map(|side| side.quantile(PERCENTILE));
        Some(format!(
            "95 % of {} answers of `{app}` took up to {}, of {} others up to {}; more than {times} times as long is \
             sure to 95 %",
            new.requests,
            millis(new_takes?),
            old.requests,
            millis(old_takes?),
        ))
    }
}

/// Durations below are not told apart, so that none is many times another.
const FINEST: f64 = seconds(DURATION_BOUNDS[0].nanos);

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
const fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn millis(seconds: f64) -> String {
    if seconds < 0.01 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{:.0} ms", seconds * 1e3)
    }
}

fn part_of(percent: Percent) -> f64 {
    percent.as_f64() / 100.0
}

fn points(percent: Percent) -> String {
    let unit = if percent == Percent::ONE {
        "point"
    } else {
        "points"
    };
    format!("{percent} {unit}")
}

/// Errors, and of how many requests.
fn share(tally: &Tally) -> (u64, u64) {
    (tally.errors.min(tally.requests), tally.requests)
}

/// By how much the share of the new side is above that of the old one, at least. Of fewer than `samples` on the
/// old side what was seen is taken as it is, and as nothing without any: a canary of nearly all requests could
/// not be taken back otherwise.
fn above((new_hits, new_all): (u64, u64), (old_hits, old_all): (u64, u64), samples: u64) -> f64 {
    let (new, old) = (ratio(new_hits, new_all), ratio(old_hits, old_all));
    let (new_lower, _) = bounds(new, new_all);
    if old_all < samples {
        return new_lower - old;
    }
    let (_, old_upper) = bounds(old, old_all);
    (new - old) - (new - new_lower).hypot(old_upper - old)
}

/// Between which the true share lies, when `share` of `all` cases was seen.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn bounds(share: f64, all: u64) -> (f64, f64) {
    let most = (LOOKS / RISK).ln() / all as f64;
    let bound = |mut improbable: f64| {
        let mut probable = share;
        // Each step adds a binary digit; more than these are not told apart.
        for _ in 0..40 {
            let between = f64::midpoint(improbable, probable);
            if entropy(share, between) > most {
                improbable = between;
            } else {
                probable = between;
            }
        }
        improbable
    };
    (bound(0.0), bound(1.0))
}

/// The relative entropy of a share to another, which is neither 0 nor 1.
fn entropy(seen: f64, real: f64) -> f64 {
    let part = |seen: f64, real: f64| {
        if seen > 0.0 {
            seen * (seen / real).ln()
        } else {
            0.0
        }
    };
    part(seen, real) + part(1.0 - seen, 1.0 - real)
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn ratio(hits: u64, all: u64) -> f64 {
    if all == 0 {
        0.0
    } else {
        hits as f64 / all as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RuleMatch;
    use crate::config::rule::{CanaryConfig, Sticky};
    use crate::migrate::live::{RolledBack, RuleOverlay};
    use crate::migrate::observe::{CanaryTraffic, Comparisons};

    /// Reproducible chance (xorshift64*).
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
        }

        /// How many of `all` fail, of which `errors` in 10 000 do on average.
        fn hits(&mut self, all: u64, errors: u64) -> u64 {
            (0..all).filter(|_| self.below(10_000) < errors).count() as u64
        }
    }

    fn percent(text: &str) -> Percent {
        text.parse().unwrap()
    }

    fn rules(rollback: RollbackConfig) -> Vec<RuleConfig> {
        vec![RuleConfig {
            name: "items".into(),
            canary: Some(CanaryConfig {
                percent: percent("10"),
                sticky: Sticky::Client,
                testers: Vec::new(),
                rollback: Some(rollback),
            }),
            ..RuleConfig::new("new", RuleMatch::owned(), "")
        }]
    }

    fn judge(rollback: RollbackConfig) -> Judge {
        Judge::new(&rules(rollback))
    }

    /// Requests that all took as long as the bucket says.
    fn tally(requests: u64, errors: u64, bucket: usize) -> Tally {
        let mut tally = Tally {
            requests,
            errors,
            ..Tally::default()
        };
        tally.buckets[bucket] = requests;
        tally
    }

    fn sides(new: Tally, old: Tally) -> Observations {
        let side = |side, tally| CanaryTraffic {
            rule: "items".into(),
            side,
            tally,
        };
        Observations {
            canaries: vec![side(Side::New, new), side(Side::Old, old)],
            ..Observations::default()
        }
    }

    fn compared(same: u64, different: u64) -> Observations {
        Observations {
            comparisons: vec![Comparisons {
                rule: "items".into(),
                method: "GET".into(),
                template: None,
                same,
                different,
                failed: 0,
                shed: 0,
            }],
            ..Observations::default()
        }
    }

    fn reasons(judge: &mut Judge, now: u64, overlay: &Overlay) -> Vec<String> {
        let changes = judge.verdicts(Duration::from_secs(now), overlay);
        let reason = |change: Change| match change.edit {
            Edit::RollBack { reason } if change.rule == "items" => reason,
            edit => panic!("{edit:?}"),
        };
        changes.into_iter().map(reason).collect()
    }

    fn first_reason(rollback: RollbackConfig, seen: &Observations) -> Option<String> {
        let mut judge = judge(rollback);
        judge.observe(Duration::ZERO, seen);
        reasons(&mut judge, 0, &Overlay::default()).pop()
    }

    /// The risk that so many of `all` fail or more, when each does with this probability.
    fn tail(hits: u64, all: u64, probability: f64) -> f64 {
        let mut term = (1.0 - probability).powi(i32::try_from(all).unwrap());
        let mut below = 0.0;
        for count in 0..hits {
            below += term;
            term *= ratio(all - count, count + 1) * probability / (1.0 - probability);
        }
        1.0 - below
    }

    #[test]
    fn the_bounds_hold_with_the_risk_that_they_are_for() {
        let risk = RISK / LOOKS;
        for (hits, all) in [(1, 50), (2, 50), (10, 50), (49, 50), (5, 1000), (100, 1000)] {
            let (lower, upper) = bounds(ratio(hits, all), all);
            assert!(tail(hits, all, lower) <= risk, "{hits} {all} {lower}");
            assert!(
                1.0 - tail(hits + 1, all, upper) <= risk,
                "{hits} {all} {upper}"
            );
            // And are not far wider than they have to be.
            let nearer = f64::midpoint(lower, ratio(hits, all));
            assert!(tail(hits, all, nearer) > risk, "{hits} {all} {lower}");
        }
        assert!(bounds(0.0, 10).0 < 1e-9 && bounds(1.0, 10).1 > 1.0 - 1e-9);
    }

    #[test]
    fn errors_end_a_canary_when_chance_does_not_explain_them() {
        for (new, errors, old, old_errors, expected) in [
            // Too few to say anything.
            (49, 49, 0, 0, false),
            (50, 50, 0, 0, true),
            (50, 50, 1000, 0, true),
            (80, 12, 700, 0, true),
            // One bad answer, or two, may happen.
            (50, 1, 700, 0, false),
            (50, 2, 700, 0, false),
            // Within the point that is allowed, however sure.
            (100_000, 900, 1_000_000, 0, false),
            (100_000, 1200, 1_000_000, 0, true),
            // What is below is as bad.
            (200, 100, 2000, 1000, false),
            (200, 100, 10, 5, false),
            (200, 100, 10, 0, true),
            (1000, 500, 1000, 350, true),
        ] {
            let seen = sides(tally(new, errors, 3), tally(old, old_errors, 3));
            let reason = first_reason(RollbackConfig::default(), &seen);
            assert_eq!(
                reason.is_some(),
                expected,
                "{new} {errors} {old}: {reason:?}"
            );
        }
        let seen = sides(tally(80, 12, 0), tally(700, 0, 0));
        assert_eq!(
            first_reason(RollbackConfig::default(), &seen).unwrap(),
            "12 of 80 answers of `new` failed, 0 of 700 of the others; more than 1 point above is sure to 95 %"
        );
    }

    #[test]
    fn slow_answers_end_a_canary_when_they_are_many_times_as_slow() {
        let limits = |samples| RollbackConfig {
            latency: Some(2.0),
            samples,
            ..RollbackConfig::default()
        };
        for (new, new_bucket, old, old_bucket, expected) in [
            // Within the finest duration, or next to it, nothing is many times anything.
            (1000, 0, 1000, 0, false),
            (1000, 1, 1000, 0, false),
            (1000, 2, 1000, 0, true),
            // Up to 10 ms against up to 5 ms may be as long.
            (1000, 3, 1000, 2, false),
            (1000, 5, 1000, 2, true),
            (49, 9, 1000, 2, false),
            (1000, 9, 49, 2, false),
            (50, 9, 50, 2, true),
            // Faster.
            (1000, 2, 1000, 9, false),
            // Above what is told apart.
            (1000, 12, 1000, 12, false),
        ] {
            let seen = sides(tally(new, 0, new_bucket), tally(old, 0, old_bucket));
            let reason = first_reason(limits(50), &seen);
            assert_eq!(
                reason.is_some(),
                expected,
                "{new_bucket} {old_bucket}: {reason:?}"
            );
        }
        // One answer in twenty is what a percentile leaves out; a few more are chance.
        let mut new = tally(100, 0, 2);
        new.add(&tally(9, 0, 9));
        let seen = sides(new.clone(), tally(1000, 0, 2));
        assert_eq!(first_reason(limits(50), &seen), None);
        new.add(&tally(20, 0, 9));
        let seen = sides(new, tally(1000, 0, 2));
        assert_eq!(
            first_reason(limits(50), &seen).unwrap(),
            "95 % of 129 answers of `new` took up to 889 ms, of 1000 others up to 4.9 ms; more than 2 times as long \
             is sure to 95 %"
        );
    }

    #[test]
    fn differences_end_a_canary_only_where_that_is_asked_for() {
        let limits = RollbackConfig {
            differences: Some(percent("5")),
            ..RollbackConfig::default()
        };
        for (same, different, expected) in [
            (0, 49, false),
            (0, 50, true),
            (45, 5, false),
            (9500, 500, false),
            (900, 100, true),
        ] {
            let seen = compared(same, different);
            assert_eq!(first_reason(RollbackConfig::default(), &seen), None);
            let reason = first_reason(limits.clone(), &seen);
            assert_eq!(reason.is_some(), expected, "{same} {different}: {reason:?}");
        }
        assert_eq!(
            first_reason(limits, &compared(900, 100)).unwrap(),
            "100 of 1000 copies were answered differently by `new`; more than 5 % is sure to 95 %"
        );
    }

    #[test]
    fn a_new_application_that_is_as_good_is_left_alone_for_days() {
        let limits = RollbackConfig {
            errors: percent("0.5"),
            latency: Some(1.5),
            ..RollbackConfig::default()
        };
        for (seed, errors, new, old) in [
            (1, 0, 3, 3),
            (2, 10, 1, 10),
            (3, 100, 5, 1),
            (4, 300, 2, 8),
            (5, 2000, 4, 4),
            (6, 9000, 1, 3),
        ] {
            let mut chance = Chance(seed);
            let mut judge = judge(limits.clone());
            // A day in steps, so that it passes quickly.
            for now in (0..86_400).step_by(15) {
                let mut side = |requests| {
                    let mut side = Tally::default();
                    for _ in 0..requests {
                        let bucket =
                            [2, 3, 3, 4, 4, 5, 7][usize::try_from(chance.below(7)).unwrap()];
                        side.add(&tally(1, chance.hits(1, errors), bucket));
                    }
                    side
                };
                let seen = sides(side(new), side(old));
                judge.observe(Duration::from_secs(now), &seen);
                let reasons = reasons(&mut judge, now, &Overlay::default());
                assert!(reasons.is_empty(), "{seed} at {now}: {reasons:?}");
            }
        }
    }

    #[test]
    fn a_new_application_that_fails_is_found_with_the_first_samples() {
        for (seed, errors, within) in [(7, 10_000, 50), (8, 5_000, 60), (9, 1_000, 600)] {
            let mut chance = Chance(seed);
            let mut judge = judge(RollbackConfig::default());
            let mut requests = 0;
            let found = (0..300).find(|now| {
                requests += 10;
                let failed = chance.hits(10, errors);
                let seen = sides(tally(10, failed, 3), tally(90, 0, 3));
                judge.observe(Duration::from_secs(*now), &seen);
                !reasons(&mut judge, *now, &Overlay::default()).is_empty()
            });
            assert!(found.is_some() && requests <= within, "{seed}: {requests}");
            assert!(requests >= 50);
        }
    }

    #[test]
    fn what_was_seen_slides_out_of_the_window() {
        let mut judge = judge(RollbackConfig {
            window: Duration::from_secs(60),
            ..RollbackConfig::default()
        });
        let overlay = Overlay::default();
        let bad = sides(tally(40, 40, 3), tally(1, 0, 3));
        judge.observe(Duration::from_secs(0), &bad);
        assert!(reasons(&mut judge, 50, &overlay).is_empty());
        judge.observe(Duration::from_secs(70), &bad);
        assert!(reasons(&mut judge, 70, &overlay).is_empty());
        judge.observe(Duration::from_secs(80), &bad);
        // Until it is done.
        assert_eq!(reasons(&mut judge, 81, &overlay).len(), 1);
        assert_eq!(reasons(&mut judge, 82, &overlay).len(), 1);
        assert!(reasons(&mut judge, 200, &overlay).is_empty());
    }

    #[test]
    fn a_rule_that_gets_nothing_is_not_judged_and_starts_anew() {
        let bad = sides(tally(100, 100, 3), tally(100, 0, 3));
        let latched = RuleOverlay {
            rolled_back: Some(RolledBack {
                at: 1,
                reason: "it failed".into(),
                from: percent("10"),
            }),
            ..RuleOverlay::default()
        };
        let share = |text| RuleOverlay {
            canary: Some(percent(text)),
            ..RuleOverlay::default()
        };
        for changed in [latched, share("0"), share("20")] {
            let overlay = Overlay {
                version: 1,
                rules: [("items".to_owned(), changed)].into(),
            };
            let mut judge = judge(RollbackConfig::default());
            judge.observe(Duration::from_secs(1), &bad);
            assert_eq!(reasons(&mut judge, 1, &Overlay::default()).len(), 1);
            assert!(reasons(&mut judge, 2, &overlay).is_empty());
            // It was reset: what it did before is forgotten, what it does now is not.
            for now in [3, 4] {
                assert!(reasons(&mut judge, now, &Overlay::default()).is_empty());
            }
            judge.observe(Duration::from_secs(5), &bad);
            assert_eq!(reasons(&mut judge, 5, &Overlay::default()).len(), 1);
        }
    }

    #[test]
    fn at_any_share_errors_are_held_against_those_of_the_old_side_before() {
        let overlay = |share: &str| {
            let changed = RuleOverlay {
                canary: Some(percent(share)),
                ..RuleOverlay::default()
            };
            Overlay {
                version: 1,
                rules: [("items".to_owned(), changed)].into(),
            }
        };
        for (steps, errors, expected) in [
            // As bad as what is below always was, and worse.
            (&["50", "100"][..], 30, false),
            (&["50", "100"], 120, true),
            // What is remembered is still known when the old side has had nothing for a while.
            (&["50", "100", "90", "100"], 30, false),
            (&["50", "100", "90", "100"], 120, true),
            // It is seen without any canary, too.
            (&["0", "100"], 30, false),
            (&["0", "100"], 120, true),
            // Of what was never seen nothing is known.
            (&["100"], 30, true),
        ] {
            let mut judge = judge(RollbackConfig::default());
            let mut now = 0;
            let mut found = Vec::new();
            for share in steps {
                let whole = *share == "100" || *share == "90";
                let old = if whole { 0 } else { 10_000 };
                let new = if *share == "0" { 0 } else { 1000 };
                let failed = if whole { errors } else { new * 3 / 100 };
                // Longer than a window.
                for _ in 0..40 {
                    now += 10;
                    found.extend(reasons(&mut judge, now, &overlay(share)));
                    let seen = sides(tally(new, failed, 3), tally(old, old * 3 / 100, 3));
                    judge.observe(Duration::from_secs(now), &seen);
                    found.extend(reasons(&mut judge, now, &overlay(share)));
                }
            }
            assert_eq!(!found.is_empty(), expected, "{steps:?} {errors}: {found:?}");
        }
    }

    #[test]
    fn other_rules_are_watched_without_a_gap() {
        let bad = sides(tally(40, 40, 3), tally(40, 0, 3));
        let mut judge = judge(RollbackConfig::default());
        judge.observe(Duration::ZERO, &bad);
        // A line further down in the file, below another one.
        let mut rules = rules(RollbackConfig::default());
        rules[0].origin = "twinspan.toml:9".into();
        let other = RuleConfig {
            name: "other".into(),
            ..rules[0].clone()
        };
        rules.insert(0, other);
        judge.watch(&rules);
        judge.observe(Duration::ZERO, &bad);
        assert_eq!(reasons(&mut judge, 0, &Overlay::default()).len(), 1);
        // Another application has done nothing yet.
        rules[1].app = "newer".into();
        judge.watch(&rules);
        judge.observe(Duration::ZERO, &bad);
        assert!(reasons(&mut judge, 0, &Overlay::default()).is_empty());
    }

    #[test]
    fn a_rule_without_rollback_is_not_judged() {
        let mut rules = rules(RollbackConfig::default());
        rules[0].canary.as_mut().unwrap().rollback = None;
        let mut judge = Judge::new(&rules);
        judge.observe(Duration::ZERO, &sides(tally(100, 100, 3), Tally::default()));
        assert!(
            judge
                .verdicts(Duration::ZERO, &Overlay::default())
                .is_empty()
        );
    }
}
