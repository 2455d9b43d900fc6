//! What a worker has seen since it last told: plain data that adds up, over time and over workers.

use serde::{Deserialize, Serialize};

use crate::metrics::DURATION_BOUNDS;
use crate::policy::compare::Difference;

/// Everything new of one worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Observations {
    pub traffic: Vec<Traffic>,
    pub canaries: Vec<CanaryTraffic>,
    pub comparisons: Vec<Comparisons>,
    pub samples: Vec<Sample>,
}

impl Observations {
    pub fn is_empty(&self) -> bool {
        self.traffic.is_empty()
            && self.canaries.is_empty()
            && self.comparisons.is_empty()
            && self.samples.is_empty()
    }
}

/// Requests that one route of an application has answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    pub app: String,
    /// Upper case; HEAD counts as GET, what no standard knows as `OTHER`.
    pub method: String,
    /// As the application writes it; `None` for what matches none of its routes, or where they are not known.
    pub template: Option<String>,
    pub tally: Tally,
}

/// Requests that matched a rule with a canary, by who answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CanaryTraffic {
    pub rule: String,
    pub side: Side,
    pub tally: Tally,
}

/// Who answered a request that a rule with a canary matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The application of the rule.
    New,
    /// Whoever is below.
    Old,
}

/// Shadow copies of one route, by what came of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparisons {
    pub rule: String,
    pub method: String,
    /// The route of the application that answered the client, else that of the one that got the copy.
    pub template: Option<String>,
    /// Answered alike.
    pub same: u64,
    pub different: u64,
    /// The application that got the copy failed or took too long.
    pub failed: u64,
    /// Not sent, because the server had no time for it.
    pub shed: u64,
}

/// One pair of answers that differ, redacted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub rule: String,
    pub method: String,
    pub template: Option<String>,
    /// The path without its query.
    pub path: String,
    /// Seconds since 1970.
    pub at: u64,
    pub differences: Vec<Difference>,
}

/// Requests, how many of them failed, and how long they took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub requests: u64,
    /// Answered with 500 and above, or not to the end.
    pub errors: u64,
    /// The sum of their durations.
    pub nanos: u64,
    /// By duration, as [`DURATION_BOUNDS`] has it, the last above every bound.
    pub buckets: [u64; DURATION_BOUNDS.len() + 1],
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
        self.nanos = self.nanos.saturating_add(other.nanos);
        for (count, other) in self.buckets.iter_mut().zip(other.buckets) {
            *count = count.saturating_add(other);
        }
    }

    /// The duration in seconds within which `part` (0 to 1) of the requests were answered: interpolated
    /// within its bucket, and the highest bound where it lies above all. `None` without requests.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let total: u64 = self.buckets.iter().sum();
        if total == 0 {
            return None;
        }
        let rank = part * total as f64;
        let mut below = 0.0;
        let mut lower = 0.0;
        for (bound, count) in DURATION_BOUNDS.iter().zip(self.buckets) {
            let upper = bound.nanos as f64 / 1e9;
            let count = count as f64;
            if count > 0.0 && below + count >= rank {
                return Some(lower + (upper - lower) * ((rank - below) / count).clamp(0.0, 1.0));
            }
            below += count;
            lower = upper;
        }
        Some(lower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_found_within_its_bucket() {
        let mut tally = Tally::default();
        assert_eq!(tally.quantile(0.5), None);
        tally.buckets[0] = 50; // up to 1 ms
        tally.buckets[3] = 50; // 5 to 10 ms
        assert_eq!(tally.quantile(0.5), Some(0.001));
        assert_eq!(tally.quantile(0.75), Some(0.0075));
        assert_eq!(tally.quantile(1.0), Some(0.01));
        tally.buckets[12] = 900;
        assert_eq!(tally.quantile(0.99), Some(10.0));
    }
}
