//! A server inside somebody else's process, with objects that are there already: for tests, and for
//! programs that serve among other things.
//!
//! It is one worker without a supervisor. Signals, restarts and further processes are the affair of whoever
//! embeds it; several may run at once, on any threads.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admin::{self, InProcess};
use crate::app::{BoxFuture, LocalAddr};
use crate::banner::{self, Place};
use crate::config::rule::{Percent, RuleConfig};
use crate::config::{Config, ConfigError, Settings};
use crate::drain::Drain;
use crate::error::LoadError;
use crate::listen::{BindError, Listener};
use crate::logging;
use crate::migrate::live::Overlay;
use crate::worker::{self, Host, Started};

/// A server whose sockets are bound; clients that connect wait until it runs.
#[derive(Debug)]
pub struct Server {
    config: Arc<Config>,
    listeners: Vec<Listener>,
    admin: Option<Listener>,
    stop: CancellationToken,
}

/// Why a server cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Bind(#[from] BindError),
}

impl Server {
    /// Binds every address of the configuration.
    pub fn bind(settings: &Settings) -> Result<Self, ServerError> {
        let config = Config::new(settings)?;
        if config.workers > 1 {
            let problem = format!("{} are processes, and this is one", config.workers);
            let hint = "leave it out; the command has workers: `twinspan --workers N module:app`";
            return Err(ConfigError::new(problem)
                .option("`workers`")
                .hint(hint)
                .into());
        }
        if let Some(directory) = &config.state_dir {
            let problem = format!("nothing is kept in `{}` here", directory.display());
            let hint =
                "leave it out; the command keeps it: `twinspan --state-dir DIRECTORY module:app`";
            return Err(ConfigError::new(problem)
                .option("`state_dir`")
                .hint(hint)
                .into());
        }
        let bind = |bind| Listener::bind(bind, config.backlog);
        Ok(Self {
            listeners: config.binds.iter().map(bind).collect::<Result<_, _>>()?,
            admin: config.admin.as_ref().map(bind).transpose()?,
            config: Arc::new(config),
            stop: CancellationToken::new(),
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<LocalAddr> {
        self.listeners.iter().map(|it| it.local().clone()).collect()
    }

    /// Cancelled, it begins the drain.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Serves on this thread until it is stopped and has drained; `report` is told once whether it has started.
    ///
    /// # Errors
    /// Where the system has no thread or descriptor to give.
    pub fn run(
        self,
        host: &dyn Host,
        report: impl FnOnce(Result<(), LoadError>) + Send + 'static,
    ) -> std::io::Result<()> {
        logging::init(self.config.log_level);
        let listening = self.addresses();
        let Self {
            config,
            listeners,
            admin,
            stop,
        } = self;
        let (worker_config, worker_stop) = (Arc::clone(&config), stop.clone());
        let report = move |started: Result<Started, LoadError>| -> BoxFuture<'static, ()> {
            let started = match started {
                Ok(started) => started,
                Err(error) => {
                    report(Err(error));
                    return Box::pin(std::future::ready(()));
                }
            };
            for warning in &started.ready.warnings {
                warn!("{warning}");
            }
            for rule in config.rules.iter().filter(|rule| wants_judge(rule)) {
                warn!(
                    rule = rule.name,
                    "its canary is not taken back by itself here, only the command `twinspan` judges canaries; \
                     `rollback = false` says that it is meant"
                );
            }
            let (apps, local) = (&started.ready.apps, admin.as_ref().map(Listener::local));
            for line in banner::lines(&config, Place::Here, &listening, local, apps) {
                info!("{line}");
            }
            report(Ok(()));
            Box::pin(async move {
                let finished = started.finished.clone();
                let advice = advise(started.clone());
                let giving_up = give_up(started.clone(), stop.clone());
                let serve = async {
                    if let Some(listener) = admin {
                        serve_admin(config, listener, InProcess { started, stop }).await;
                    }
                    finished.cancelled().await;
                };
                tokio::select! {
                    () = serve => {}
                    () = advice => {}
                    () = giving_up => {}
                }
            })
        };
        worker::run(
            host,
            worker_config,
            Overlay::default(),
            listeners,
            worker_stop,
            report,
        )
        .map(drop)
    }
}

/// Whether a rule has a share that somebody would have to watch.
fn wants_judge(rule: &RuleConfig) -> bool {
    rule.canary
        .as_ref()
        .is_some_and(|canary| canary.rollback.is_some() && canary.percent > Percent::NONE)
}

/// Says what to do when threads are stuck that cannot be replaced: here is no supervisor that would do it.
async fn advise(started: Started) {
    loop {
        let app = started.stuck().await;
        error!(
            app,
            "restart this process when its threads stay stuck; the command `twinspan` replaces its workers itself"
        );
    }
}

/// Drains when an application has lost what it must keep up: whoever embeds the server starts another.
async fn give_up(started: Started, stop: CancellationToken) {
    let app = started.broken().await;
    if !stop.is_cancelled() {
        error!(
            app,
            "its lifespan is required and has broken: the server stops"
        );
        stop.cancel();
    }
    started.finished.cancelled().await;
}

/// Answers about the server for as long as it lives, its drain included.
async fn serve_admin(config: Arc<Config>, listener: Listener, provider: InProcess) {
    let drain = Drain::new(Handle::current(), provider.started.finished.clone());
    let dispatcher = admin::dispatcher(config, Arc::new(provider), drain.clone());
    match listener.into_acceptor() {
        Ok(acceptor) => worker::accept(acceptor, dispatcher).await,
        Err(error) => error!(%error, "the admin listener cannot be used"),
    }
    // There is nothing left to say about a server that has ended.
    drain.finish(Duration::ZERO).await;
}
