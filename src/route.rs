//! Routing: which application a request belongs to.
//!
//! Rules are tried in order, the first match wins. A prefix ends at a segment (`/api` is not
//! `/apiary`). Applications see and route on the decoded path, so matching is done on it too; a path
//! whose split-then-decoded and decoded-then-split readings could differ (`%2F`) is refused, as are
//! dot segments, because two readers that disagree about a path are a hole in somebody's access rules.

use std::sync::Arc;

use http::StatusCode;
use http::request::Parts;

use crate::app::Application;
use crate::config::{Config, RuleMatch};
use crate::error::LoadError;
use crate::metrics::{AppMetrics, RefusedBy};
use crate::worker::AppReport;

/// An application under its name.
#[derive(Debug)]
pub struct App {
    pub name: Arc<str>,
    pub application: Arc<dyn Application>,
    pub metrics: Arc<AppMetrics>,
}

/// Where an application is mounted for one request, and what is left of the path.
#[derive(Debug, Clone)]
pub struct MountPoint {
    pub rule: Arc<RuleInfo>,
    /// The template of the route that matched, where a rule knows it.
    pub template: Option<Arc<str>>,
    /// What comes before the path: the public prefix that proxies have cut off, then the mount.
    /// `""` or `/a/b`, decoded; ASGI's `root_path`, WSGI's `SCRIPT_NAME`.
    pub root_path: Arc<str>,
    /// The decoded path where it differs from the one in the request line.
    decoded: Option<Box<[u8]>>,
    /// How many bytes of the decoded path belong to the mount.
    mount_len: usize,
}

impl MountPoint {
    /// The decoded path below the mount: `""` or `/…`; WSGI's `PATH_INFO`.
    pub fn path_info<'a>(&'a self, head: &'a Parts) -> &'a [u8] {
        let path = self
            .decoded
            .as_deref()
            .unwrap_or_else(|| head.uri.path().as_bytes());
        path.get(self.mount_len..).unwrap_or_default()
    }
}

/// What a request needs to know of the rule that chose its application.
#[derive(Debug)]
pub struct RuleInfo {
    /// Stable name: `mount /api`, `owned by new`, `catch-all`.
    pub name: String,
    /// The application's name.
    pub app: Arc<str>,
}

/// One entry of the rule table.
#[derive(Debug)]
pub struct Rule {
    pub info: Arc<RuleInfo>,
    pub app: Arc<App>,
    /// `""` or `/a/b`: matches this path and everything below it, and is cut off.
    pub mount: String,
}

/// A request that no application may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    pub reason: &'static str,
    pub by: RefusedBy,
    /// The connection ends with the answer: what follows on it cannot be trusted.
    pub close: bool,
}

/// The rule table.
#[derive(Debug)]
pub struct Router {
    rules: Vec<Rule>,
    /// `--root-path`: the public prefix that a proxy in front cuts off.
    root_path: Arc<str>,
}

impl Router {
    pub fn new(rules: Vec<Rule>, root_path: &str) -> Self {
        Self {
            rules,
            root_path: root_path.into(),
        }
    }

    /// Chooses the application for a request; with `upgrade` only among those that serve WebSockets.
    ///
    /// # Errors
    /// [`Refusal`] with 400 for a path with two readings, 404 where no rule matches.
    pub fn route(
        &self,
        head: &Parts,
        upgrade: bool,
        _prefix: Option<&str>,
    ) -> Result<(&Arc<App>, MountPoint), Refusal> {
        let path = head.uri.path();
        for rule in &self.rules {
            if upgrade && rule.app.application.websocket().is_none() {
                continue;
            }
            if let Some(rest) = path.strip_prefix(rule.mount.as_str())
                && (rest.is_empty() || rest.starts_with('/'))
            {
                let at = MountPoint {
                    rule: Arc::clone(&rule.info),
                    template: None,
                    root_path: format!("{}{}", self.root_path, rule.mount).into(),
                    decoded: None,
                    mount_len: rule.mount.len(),
                };
                return Ok((&rule.app, at));
            }
        }
        Err(Refusal {
            status: StatusCode::NOT_FOUND,
            reason: "no application is mounted here",
            by: RefusedBy::Route,
            close: false,
        })
    }
}

/// Builds the rule table from the configuration and what the applications say of their routes.
pub fn build(
    config: &Config,
    apps: &[Arc<App>],
    reports: &[AppReport],
) -> Result<Router, LoadError> {
    let _ = reports;
    let mut rules = Vec::new();
    for rule in &config.rules {
        let Some(app) = apps.iter().find(|app| *app.name == *rule.app) else {
            continue;
        };
        let RuleMatch::Mount(mount) = &rule.matches else {
            continue;
        };
        rules.push(Rule {
            info: Arc::new(RuleInfo {
                name: format!("mount {mount}"),
                app: Arc::clone(&app.name),
            }),
            app: Arc::clone(app),
            mount: mount.clone(),
        });
    }
    Ok(Router::new(rules, &config.root_path))
}
