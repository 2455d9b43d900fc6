//! Canaries: a part of the requests goes to the new application, and a client stays on the side where it was.
//!
//! A client is a number from 0 to 9 999, the hash of what it is recognised by and of the rule's name; it is
//! on the new side while the share, in hundredths of a percent, is above that number. A share that grows
//! takes clients over and sends none back.

use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::HeaderName;
use http::request::Parts;
use ipnet::IpNet;
use siphasher::sip::SipHasher13;

use super::conditions::cookies_of;
use crate::config::rule::{CanaryConfig, Percent, RuleConfig, Sticky};
use crate::metrics::traffic::TallyCounters;
use crate::migrate::observe::{CanaryTraffic, Side};

/// By which testers choose the application: `X-Twinspan-Use: new`. Read from
/// [`CanaryConfig::testers`] only.
pub const USE_HEADER: HeaderName = HeaderName::from_static("x-twinspan-use");

/// The canary of one rule.
#[derive(Debug)]
pub struct Canary {
    rule: String,
    app: String,
    sticky: Sticky,
    testers: Vec<IpNet>,
    /// Counts requests by which no client can be told.
    turn: AtomicU64,
    new: TallyCounters,
    old: TallyCounters,
}

impl Canary {
    pub fn new(rule: &RuleConfig, config: &CanaryConfig) -> Self {
        Self {
            rule: rule.name.clone(),
            app: rule.app.clone(),
            sticky: config.sticky.clone(),
            testers: config.testers.clone(),
            turn: AtomicU64::new(0),
            new: TallyCounters::default(),
            old: TallyCounters::default(),
        }
    }

    /// Whether the application of the rule answers a request.
    pub fn takes(&self, share: Percent, head: &Parts, client: Option<IpAddr>) -> bool {
        if let Some(app) = self.chosen(head, client) {
            return app == self.app.as_bytes();
        }
        if share == Percent::NONE || share == Percent::ALL {
            return share == Percent::ALL;
        }
        let sticky = match &self.sticky {
            Sticky::Client => None,
            Sticky::Cookie(name) => cookies_of(&head.headers)
                .find(|(found, _)| found == name)
                .map(|(_, value)| self.place(value.as_bytes())),
            Sticky::Header(name) => head
                .headers
                .get(name)
                .map(|value| self.place(value.as_bytes())),
        };
        let place = sticky.or_else(|| {
            Some(match client?.to_canonical() {
                IpAddr::V4(address) => self.place(&address.octets()),
                IpAddr::V6(address) => self.place(&address.octets()),
            })
        });
        let share = u64::from(share.hundredths());
        match place {
            Some(place) => place < share,
            None => is_turn(&self.turn, share),
        }
    }

    /// The application that a tester asks for.
    fn chosen<'a>(&self, head: &'a Parts, client: Option<IpAddr>) -> Option<&'a [u8]> {
        let app = head.headers.get(USE_HEADER)?;
        let address = client?.to_canonical();
        let trusted = self
            .testers
            .iter()
            .any(|network| network.contains(&address));
        trusted.then_some(app.as_bytes())
    }

    fn place(&self, client: &[u8]) -> u64 {
        // Without keys: every worker, and every start, has to come to the same place.
        let mut hasher = SipHasher13::new();
        hasher.write(self.rule.as_bytes());
        hasher.write_u8(0);
        hasher.write(client);
        hasher.finish() % WHOLE
    }

    /// Notes how a request ended that the rule matched.
    pub fn observe(&self, side: Side, failed: bool, elapsed: Duration) {
        match side {
            Side::New => &self.new,
            Side::Old => &self.old,
        }
        .observe(failed, elapsed);
    }

    /// What was noted since this was last asked.
    pub fn take(&self) -> impl Iterator<Item = CanaryTraffic> {
        [(Side::New, &self.new), (Side::Old, &self.old)]
            .into_iter()
            .filter_map(|(side, counters)| {
                let tally = counters.take()?;
                let rule = self.rule.clone();
                Some(CanaryTraffic { rule, side, tally })
            })
    }
}

/// All of it, in hundredths of a percent.
const WHOLE: u64 = 10_000;

/// Whether this is one of the `share` of all turns; they are spread evenly.
pub fn is_turn(turn: &AtomicU64, share: u64) -> bool {
    let before = turn.fetch_add(share, Relaxed);
    before % WHOLE + share >= WHOLE
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::config::RuleMatch;

    fn canary(sticky: &str, testers: &[&str]) -> Canary {
        let config = CanaryConfig {
            percent: Percent::NONE,
            sticky: sticky.parse().unwrap(),
            testers: testers.iter().map(|it| it.parse().unwrap()).collect(),
            rollback: None,
        };
        Canary::new(&RuleConfig::new("new", RuleMatch::owned(), ""), &config)
    }

    fn head(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn percent(text: &str) -> Percent {
        text.parse().unwrap()
    }

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn the_share_of_clients_is_the_share_that_was_asked_for() {
        let canary = canary("client", &[]);
        for (share, about) in [("1", 100), ("10", 1000), ("50", 5000)] {
            let taken = (0..10_000)
                .filter(|n| canary.takes(percent(share), &head(&[]), Some(address(*n))))
                .count();
            assert!(taken.abs_diff(about) < about / 4, "{share} %: {taken}");
        }
    }

    #[test]
    fn a_client_stays_where_it_is_and_a_growing_share_sends_none_back() {
        let canary = canary("cookie:session", &[]);
        for number in 0..200 {
            let cookie = format!("a=b; session=s{number}");
            let head = head(&[("cookie", &cookie)]);
            let sides: Vec<bool> = ["0", "1", "10", "50", "99.99", "100"]
                .iter()
                // The address changes, the session does not.
                .zip(0..)
                .map(|(share, n)| canary.takes(percent(share), &head, Some(address(n))))
                .collect();
            assert!(sides.is_sorted(), "{sides:?}");
            assert_eq!((sides[0], sides[5]), (false, true));
        }
    }

    #[test]
    fn without_the_cookie_the_address_counts_and_without_both_every_tenth() {
        let canary = canary("cookie:session", &[]);
        let taken = |client: Option<IpAddr>| {
            (0..100)
                .filter(|_| canary.takes(percent("10"), &head(&[]), client))
                .count()
        };
        assert!([0, 100].contains(&taken(Some(address(7)))));
        assert_eq!(taken(None), 10);
    }

    #[test]
    fn only_trusted_testers_choose() {
        let canary = canary("client", &["10.0.0.0/8"]);
        let [new, old] = ["new", "legacy"].map(|app| head(&[("x-twinspan-use", app)]));
        let tester = Some("10.1.2.3".parse().unwrap());
        let mapped = Some("::ffff:10.1.2.3".parse().unwrap());
        let stranger = Some("192.0.2.1".parse().unwrap());
        for client in [tester, mapped] {
            assert!(canary.takes(Percent::NONE, &new, client));
            assert!(!canary.takes(Percent::ALL, &old, client));
        }
        for client in [stranger, None] {
            assert!(!canary.takes(Percent::NONE, &new, client));
            assert!(canary.takes(Percent::ALL, &old, client));
        }
    }

    #[test]
    fn what_was_noted_is_told_once() {
        let canary = canary("client", &[]);
        canary.observe(Side::New, true, Duration::from_millis(2));
        canary.observe(Side::Old, false, Duration::from_millis(1));
        canary.observe(Side::Old, false, Duration::from_millis(1));
        let told: Vec<_> = canary
            .take()
            .map(|it| (it.side, it.tally.requests, it.tally.errors))
            .collect();
        assert_eq!(told, [(Side::New, 1, 1), (Side::Old, 2, 0)]);
        assert_eq!(canary.take().count(), 0);
    }
}
