//! What becomes of a request beyond the first rule that matches: who owns a route, which part of the requests a
//! new application gets, and how its answers are compared with those of the old one.

pub mod canary;
pub mod compare;
pub mod conditions;
pub mod fallthrough;
pub mod ownership;
pub mod shadow;

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;

use crate::config::rule::{FallthroughConfig, Percent, RuleConfig};
use canary::Canary;
use shadow::Shadow;

/// What one rule does with requests that match it, besides answering them.
#[derive(Debug)]
pub struct Policies {
    pub canary: Option<Canary>,
    pub shadow: Option<Arc<Shadow>>,
    pub fallthrough: Option<FallthroughConfig>,
}

impl Policies {
    /// `None` where the rule answers all of them.
    pub fn new(rule: &RuleConfig) -> Option<Self> {
        rule.passes_on().then(|| Self {
            canary: rule.canary.as_ref().map(|canary| Canary::new(rule, canary)),
            shadow: rule.shadow.as_ref().map(|shadow| Shadow::new(rule, shadow)),
            fallthrough: rule.fallthrough.clone(),
        })
    }

    /// Whether the application of the rule answers; otherwise the rules below do.
    pub fn keeps(&self, share: Percent, head: &Parts, client: Option<IpAddr>) -> bool {
        match &self.canary {
            Some(canary) => canary.takes(share, head, client),
            None => true,
        }
    }
}
