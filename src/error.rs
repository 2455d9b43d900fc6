//! How the server ends, and the errors that end it.

use std::fmt;

use crate::app::RoutesError;
use crate::config::AppConfig;
use crate::route::RulesError;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Stopped as asked.
    Success,
    /// The configuration is wrong, or an address cannot be listened on.
    Configuration,
    /// An application could not be loaded or did not start.
    Application,
    /// Workers died again and again.
    CrashLoop,
    /// The server itself failed.
    Internal,
    /// What was to be checked is not so.
    Check,
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Internal | Self::Check => 1,
            Self::Configuration => 2,
            Self::Application => 3,
            Self::CrashLoop => 4,
        }
    }
}

/// An application could not be loaded or started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    /// What was asked for: `shop.asgi:app`.
    pub target: String,
    /// One sentence without a full stop.
    pub problem: String,
    /// The way out, where there is one.
    pub hint: Option<String>,
    /// What the application raised, as its language prints it.
    pub traceback: Option<String>,
}

impl LoadError {
    /// The rules cannot be made from what the applications say of their routes.
    pub fn rules(error: &RulesError, apps: &[AppConfig]) -> Self {
        let target_of = |name: &String| {
            let app = apps.iter().find(|app| app.name == *name);
            app.map_or_else(|| name.clone(), |app| app.target.to_string())
        };
        match error {
            RulesError::UnknownApp { app, .. } => Self {
                target: app.clone(),
                problem: error.to_string(),
                hint: None,
                traceback: None,
            },
            RulesError::Routes {
                app,
                origin,
                source,
            } => {
                let target = target_of(app);
                let name_the_router = match source {
                    RoutesError::Unreadable { .. } => {
                        "name its router with `router = \"module:attr\"` in `[apps.NAME]` of twinspan.toml, "
                    }
                    RoutesError::Route { .. } => "",
                };
                Self {
                    problem: format!("it is to own its routes ({origin}), but {source}"),
                    hint: Some(format!(
                        "{name_the_router}mount it below a prefix with `--mount /prefix={target}`, or name it last: \
                         the last application answers what no other does"
                    )),
                    target,
                    traceback: None,
                }
            }
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "application `{}`: {}", self.target, self.problem)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadError {}
