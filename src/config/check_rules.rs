//! From `[[routes]]` to rules: what each means, and whether they fit together.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use ipnet::IpNet;

use super::check::{positive, within};
use super::error::ConfigError;
use super::load::{Origin, Settings};
use super::raw::{RawCanary, RawFallthrough, RawRoute, RawShadow};
use super::rule::{
    CanaryConfig, CompareConfig, Conditions, FallthroughConfig, Glob, Location, Number, Percent,
    RollbackConfig, RuleConfig, RuleMatch, ShadowConfig,
};
use super::value::{FieldName, MethodName, Network, Prefix};

/// The rule table as it grows, and where each rule was written.
pub(super) struct Rules<'a> {
    settings: &'a Settings,
    pub(super) list: Vec<RuleConfig>,
    /// The options that made them, in the same order.
    paths: Vec<String>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        Self {
            settings,
            list: Vec::new(),
            paths: Vec::new(),
        }
    }

    /// Adds what an entry of `[[routes]]` says.
    pub(super) fn add(&mut self, path: &str, route: &RawRoute) -> Result<(), ConfigError> {
        let settings = self.settings;
        let matches = RuleMatch {
            location: location(settings, path, route)?,
            owned: route.when.is_some(),
            conditions: conditions(route),
        };
        let canary = route.canary.as_ref();
        let shadow = route.shadow.as_ref();
        let fallthrough = route.fallthrough.as_ref();
        // What is only copied is answered below.
        let nothing = shadow.map(|_| RawCanary::default());
        let rule = RuleConfig {
            canary: canary
                .or(nothing.as_ref())
                .map(|raw| canary_config(settings, &format!("{path}.canary"), raw))
                .transpose()?,
            shadow: shadow
                .map(|raw| shadow_config(settings, &format!("{path}.shadow"), raw))
                .transpose()?,
            fallthrough: fallthrough
                .map(|raw| fallthrough_config(settings, &format!("{path}.fallthrough"), raw))
                .transpose()?,
            ..RuleConfig::new(route.app.clone(), matches, self.origin(path))
        };
        if shadow.is_none() && canary.is_some_and(|canary| canary.max_differences.is_some()) {
            return Err(settings
                .error(
                    &format!("{path}.canary.max_differences"),
                    "means nothing without copies to compare",
                )
                .hint("add `shadow = 100` to the rule, or delete it"));
        }
        // What passes requests on does not catch all of them.
        let derived = if rule.passes_on() && rule.matches.is_catch_all() {
            format!("everything for {}", rule.app)
        } else {
            rule.name
        };
        let name = route.name.clone().unwrap_or(derived);
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(settings.error(&format!("{path}.name"), "is no name"));
        }
        self.insert(path, RuleConfig { name, ..rule })
    }

    /// Adds a rule without policies.
    pub(super) fn push(
        &mut self,
        path: &str,
        app: String,
        matches: RuleMatch,
    ) -> Result<(), ConfigError> {
        let rule = RuleConfig::new(app, matches, self.origin(path));
        self.insert(path, rule)
    }

    fn origin(&self, path: &str) -> String {
        match self.settings.origin(path) {
            Some(Origin::File { name, line }) => format!("{name}:{line}"),
            _ => self.settings.name(path).replace('`', ""),
        }
    }

    fn insert(&mut self, path: &str, rule: RuleConfig) -> Result<(), ConfigError> {
        if let Some(earlier) = self.list.iter().find(|earlier| shuts_out(earlier, &rule)) {
            let problem = format!(
                "`{}` would never be asked: `{}` ({}) has this place already",
                rule.app, earlier.app, earlier.origin
            );
            return Err(ConfigError::new(problem)
                .option(place(&rule.matches))
                .origin(rule.origin)
                .hint("give each application a place of its own"));
        }
        if let Some(earlier) = self.list.iter().find(|earlier| earlier.name == rule.name) {
            let problem = format!(
                "`{}` is the name of another rule ({})",
                rule.name, earlier.origin
            );
            return Err(self
                .settings
                .error(&format!("{path}.name"), problem)
                .origin(rule.origin)
                .hint("give each rule a `name` of its own"));
        }
        self.list.push(rule);
        self.paths.push(path.to_owned());
        Ok(())
    }

    /// Whatever a rule passes on needs a rule below that can take it.
    pub(super) fn pass_on_to_somebody(&self) -> Result<(), ConfigError> {
        let (Some(last), Some(path)) = (self.list.last(), self.paths.last()) else {
            return Ok(());
        };
        let policies = [
            ("canary", last.canary.is_some()),
            ("shadow", last.shadow.is_some()),
            ("fallthrough", last.fallthrough.is_some()),
        ];
        match policies.into_iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((policy, _)) => Err(self
                .settings
                .error(
                    &format!("{path}.{policy}"),
                    "leaves requests to the rules below, and this is the last",
                )
                .hint("add a `[[routes]]` behind it for the application that answers them")),
        }
    }
}

/// Whether nothing is left for a later rule.
fn shuts_out(earlier: &RuleConfig, rule: &RuleConfig) -> bool {
    let same_place = match (&earlier.matches.location, &rule.matches.location) {
        (
            Location::Mount(earlier) | Location::Path(earlier),
            Location::Mount(prefix) | Location::Path(prefix),
        ) => earlier == prefix,
        (earlier, location) => earlier == location,
    };
    same_place
        && earlier.matches.conditions == rule.matches.conditions
        && earlier.matches.owned == rule.matches.owned
        && (!rule.matches.owned || earlier.app == rule.app)
        && !earlier.passes_on()
}

fn place(matches: &RuleMatch) -> String {
    let mut place = match &matches.location {
        Location::Mount(prefix) if prefix.is_empty() && matches.owned => String::new(),
        Location::Mount(prefix) if prefix.is_empty() => "mount `/`".into(),
        Location::Mount(prefix) => format!("mount `{prefix}`"),
        Location::Path(prefix) if prefix.is_empty() => "path `/`".into(),
        Location::Path(prefix) => format!("path `{prefix}`"),
        Location::Template(template) => format!("template `{template}`"),
    };
    if matches.owned {
        let separator = if place.is_empty() { "" } else { ", " };
        place = format!("{place}{separator}`when = \"owned\"`");
    }
    place
}

fn location(settings: &Settings, path: &str, route: &RawRoute) -> Result<Location, ConfigError> {
    let text = |prefix: &Prefix| prefix.as_str().to_owned();
    match (&route.mount, &route.path, &route.template) {
        (None, None, None) => Ok(Location::Mount(String::new())),
        (Some(mount), None, None) => Ok(Location::Mount(text(mount))),
        (None, Some(path), None) => Ok(Location::Path(text(path))),
        (None, None, Some(template)) => Ok(Location::Template(template.clone())),
        _ => Err(settings
            .error(path, "has more than one of `mount`, `path` and `template`")
            .hint("keep one; write a route for each")),
    }
}

fn conditions(route: &RawRoute) -> Conditions {
    let named = |table: &Option<BTreeMap<String, Glob>>| -> Vec<(String, Glob)> {
        table.clone().unwrap_or_default().into_iter().collect()
    };
    let headers = route.header.clone().unwrap_or_default();
    Conditions {
        host: route.host.as_ref().map(Glob::to_lowercase),
        methods: methods(route.method.as_deref()).unwrap_or_default(),
        headers: headers
            .into_iter()
            .map(|(FieldName(name), value)| (name, value))
            .collect(),
        cookies: named(&route.cookie),
        query: named(&route.query),
    }
}

fn methods(names: Option<&[MethodName]>) -> Option<Vec<Method>> {
    names.map(|names| names.iter().map(|MethodName(it)| it.clone()).collect())
}

fn canary_config(
    settings: &Settings,
    path: &str,
    raw: &RawCanary,
) -> Result<CanaryConfig, ConfigError> {
    let default = RollbackConfig::default();
    let option = |name: &str| format!("{path}.{name}");
    let latency = match raw.max_latency {
        Some(Number(ratio)) if !(ratio > 1.0 && ratio.is_finite()) => {
            return Err(settings
                .error(&option("max_latency"), format!("`{ratio}` is not above 1"))
                .hint("it is a multiple: 2 is twice as slow as the application below"));
        }
        ratio => ratio.map(|Number(ratio)| ratio),
    };
    let rollback = RollbackConfig {
        errors: raw.max_errors.unwrap_or(default.errors),
        latency,
        differences: raw.max_differences,
        samples: within(
            settings,
            &option("min_samples"),
            raw.min_samples,
            default.samples,
            1..=u64::MAX,
        )?,
        window: positive(settings, &option("window"), raw.window, default.window)?,
    };
    if raw.rollback == Some(false) {
        let judged = [
            ("max_errors", raw.max_errors.is_some()),
            ("max_latency", raw.max_latency.is_some()),
            ("max_differences", raw.max_differences.is_some()),
            ("min_samples", raw.min_samples.is_some()),
            ("window", raw.window.is_some()),
        ];
        if let Some((name, _)) = judged.into_iter().find(|(_, given)| *given) {
            return Err(settings
                .error(&option(name), "means nothing with `rollback = false`")
                .hint("delete one of the two"));
        }
    }
    let testers = raw.testers.as_deref().unwrap_or_default();
    let testers: Vec<IpNet> = testers.iter().map(|Network(network)| *network).collect();
    Ok(CanaryConfig {
        percent: raw.percent.unwrap_or(Percent::NONE),
        sticky: raw.sticky.clone().unwrap_or_default(),
        testers,
        rollback: raw.rollback.unwrap_or(true).then_some(rollback),
    })
}

fn shadow_config(
    settings: &Settings,
    path: &str,
    raw: &RawShadow,
) -> Result<ShadowConfig, ConfigError> {
    let default = ShadowConfig::new(raw.percent.unwrap_or(Percent::NONE));
    let option = |name: &str| format!("{path}.{name}");
    let tolerance = raw.tolerance.map_or(0.0, |Number(tolerance)| tolerance);
    if !(0.0..1.0).contains(&tolerance) {
        let problem = format!("`{tolerance}` is not a part of a number");
        return Err(settings
            .error(&option("tolerance"), problem)
            .hint("write 0.001 for a thousandth"));
    }
    let headers = raw.header.as_deref().unwrap_or_default();
    let compare = CompareConfig {
        headers: headers.iter().map(|FieldName(it)| it.clone()).collect(),
        ignore: raw.ignore.clone().unwrap_or_default(),
        ignore_lines: raw.ignore_lines.clone().unwrap_or_default(),
        unordered: raw.unordered.clone().unwrap_or_default(),
        tolerance,
        noise: raw.noise.unwrap_or(default.compare.noise),
    };
    Ok(ShadowConfig {
        methods: methods(raw.method.as_deref()).unwrap_or(default.methods),
        concurrency: within(
            settings,
            &option("concurrency"),
            raw.concurrency,
            default.concurrency,
            1..=1000,
        )?,
        max_body: within(
            settings,
            &option("max_body"),
            raw.max_body,
            default.max_body,
            0..=16 << 20,
        )?,
        timeout: positive(settings, &option("timeout"), raw.timeout, default.timeout)?,
        compare,
        percent: default.percent,
    })
}

fn fallthrough_config(
    settings: &Settings,
    path: &str,
    raw: &RawFallthrough,
) -> Result<FallthroughConfig, ConfigError> {
    let option = |name: &str| format!("{path}.{name}");
    let mut statuses = Vec::new();
    for number in raw.status.as_deref().unwrap_or_default() {
        let status = within(settings, path, Some(*number), 0_u16, 400..=499)?;
        statuses.extend(StatusCode::from_u16(status));
    }
    if raw.status.is_none() {
        statuses = vec![StatusCode::NOT_FOUND];
    } else if statuses.is_empty() {
        return Err(settings
            .error(path, "names no status")
            .hint("write `fallthrough = [404]`, or delete it"));
    }
    let default = FallthroughConfig::new(statuses);
    Ok(FallthroughConfig {
        methods: methods(raw.method.as_deref()).unwrap_or(default.methods),
        memory: within(
            settings,
            &option("memory"),
            raw.memory,
            default.memory,
            0..=16 << 20,
        )?,
        file: within(
            settings,
            &option("file"),
            raw.file,
            default.file,
            0..=1 << 40,
        )?,
        statuses: default.statuses,
    })
}
