//! The process: from the arguments to the exit code.
//!
//! The same program is supervisor and worker. The supervisor reads the configuration and never loads an
//! application; it starts workers with the one argument [`WORKER`], which load them.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::admin;
use crate::app::BoxFuture;
use crate::cli::{self, Action, CheckReport, Ended, Inventory, Invocation, Question, RouteListing};
use crate::config::{self, Config, ConfigError, Settings};
use crate::error::{Exit, LoadError};
use crate::logging;
use crate::migrate::live::{Overlay, TakenOn};
use crate::supervisor::channel::{
    ChannelError, Failure, FailureKind, FromWorker, HEARTBEAT_INTERVAL, OBSERVATION_INTERVAL,
    Sender, ToWorker, WorkerChannel,
};
use crate::supervisor::{self, Configured, WorkerCommand};
use crate::worker::{self, Host, Shutdown, Started};

/// The argument that makes the process a worker; not for people.
pub const WORKER: &str = "__worker__";

/// Runs the command line `arguments`, without the program's name.
///
/// `program` starts this same command again, for workers.
pub fn run(
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: PathBuf,
    host: &dyn Host,
    program: WorkerCommand,
) -> Exit {
    if arguments.first().is_some_and(|first| first == WORKER) {
        return work(host);
    }
    let ended = match cli::parse(arguments, environment, directory) {
        Ok(invocation) => match &invocation.action {
            Action::Serve => serve(&invocation, program),
            &Action::Routes { json } => inspect(invocation.config, host, |config, inventory| {
                let listing = RouteListing::new(config, inventory);
                Ok((written(&listing, json)?, Exit::Success))
            }),
            &Action::Check { json } => inspect(invocation.config, host, |config, inventory| {
                let report = CheckReport::new(config, inventory);
                Ok((written(&report, json)?, report.exit()))
            }),
            Action::Migrate(question) => tell(question, &invocation.config),
        },
        Err(ended) => Err(ended),
    };
    match ended {
        Ok(exit) => exit,
        Err(ended) => {
            // Nobody is left to be told when even stderr has gone.
            let _ = ended.say();
            ended.exit
        }
    }
}

/// The supervisor.
fn serve(invocation: &Invocation, program: WorkerCommand) -> Result<Exit, Ended> {
    let config = &invocation.config;
    logging::init(config.log_level);
    let settings = for_workers(&invocation.settings).map_err(|text| Ended {
        text,
        exit: Exit::Internal,
    })?;
    let reread = || reread(invocation);
    supervisor::run(config, settings, reread, program, |control, drain| {
        admin::dispatcher(Arc::new(config.clone()), Arc::new(control), drain)
    })
    .map_err(|error| Ended {
        text: error.to_string(),
        exit: error.exit,
    })
}

fn for_workers(settings: &Settings) -> Result<serde_json::Value, String> {
    serde_json::to_value(settings)
        .map_err(|error| format!("error: the configuration cannot be handed to workers: {error}"))
}

/// The configuration as it is now, for a reload. What belongs to the supervisor stays until a restart.
fn reread(invocation: &Invocation) -> Result<Configured, String> {
    let text = |error: ConfigError| error.to_string();
    let settings = config::load(&invocation.sources).map_err(text)?;
    let (now, before) = (Config::new(&settings).map_err(text)?, &invocation.config);
    let fixed = [
        ("addresses", now.binds != before.binds),
        ("admin endpoint", now.admin != before.admin),
        ("number of workers", now.workers != before.workers),
        ("state directory", now.state_dir != before.state_dir),
    ];
    for (what, _) in fixed.into_iter().filter(|(_, changed)| *changed) {
        warn!("the {what} changed in the configuration: restart the server for it");
    }
    Ok(Configured {
        settings: for_workers(&settings)?,
        rules: now.rules,
    })
}

/// A worker process.
fn work(host: &dyn Host) -> Exit {
    let (channel, start, listeners) = match WorkerChannel::from_stdin() {
        Ok(opened) => opened,
        Err(error) => {
            let ended = Ended {
                text: format!("error: {error}"),
                exit: Exit::Configuration,
            };
            let _ = ended.say();
            return ended.exit;
        }
    };
    let config = serde_json::from_value::<Settings>(start.config)
        .map_err(|error| error.to_string())
        .and_then(|settings| Config::new(&settings).map_err(|error| error.to_string()));
    let config = match config {
        Ok(config) => Arc::new(config),
        Err(problem) => {
            // The supervisor has built the same configuration from the same settings.
            let _ = channel.fail(FailureKind::Internal, Failure::new(problem));
            return Exit::Internal;
        }
    };
    logging::init(config.log_level);
    let overlay = start.overlay;
    let stop = CancellationToken::new();
    let failed = Arc::new(AtomicBool::new(false));
    let report = {
        let (stop, failed) = (stop.clone(), Arc::clone(&failed));
        let rules = config.rules.clone();
        let mut taken_on = TakenOn::new(rules, overlay.clone());
        move |started: Result<Started, LoadError>| -> BoxFuture<'static, ()> {
            failed.store(started.is_err(), Ordering::Relaxed);
            Box::pin(async move {
                if let Err(error) = talk(channel, started, &mut taken_on, &stop).await {
                    debug!(%error, "the supervisor has gone");
                }
                stop.cancel();
            })
        }
    };
    match worker::run(host, config, overlay, listeners, stop, report) {
        Err(error) => {
            error!(%error, "the worker cannot run");
            Exit::Internal
        }
        Ok(Shutdown::Clean) if !failed.load(Ordering::Relaxed) => Exit::Success,
        Ok(_) => Exit::Application,
    }
}

/// What a worker and its supervisor have to say to each other, to the end of the worker.
async fn talk(
    channel: WorkerChannel,
    started: Result<Started, LoadError>,
    taken_on: &mut TakenOn,
    stop: &CancellationToken,
) -> Result<(), ChannelError> {
    let started = match started {
        Ok(started) => started,
        Err(error) => return channel.fail(FailureKind::Application, error.into()),
    };
    let (to_supervisor, mut from_supervisor) = channel.split()?;
    to_supervisor
        .send(&FromWorker::Ready(started.ready.clone()))
        .await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut heartbeat = tokio::time::interval(HEARTBEAT_INTERVAL);
    let mut observations = tokio::time::interval(OBSERVATION_INTERVAL);
    // What was not told in time is told with the next.
    observations.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut leaving = false;
    loop {
        tokio::select! {
            () = started.finished.cancelled() => break,
            _ = heartbeat.tick() => to_supervisor.send(&FromWorker::Heartbeat).await?,
            _ = observations.tick() => tell_observed(&started, &to_supervisor).await?,
            Some(()) = terminate.recv() => {
                to_supervisor.send(&FromWorker::Draining).await?;
                stop.cancel();
            }
            app = started.broken(), if !leaving => {
                error!(app, "its lifespan is required and has broken: the worker drains, and another takes its place");
                leaving = true;
                to_supervisor.send(&FromWorker::Draining).await?;
                stop.cancel();
            }
            app = started.stuck() => to_supervisor.send(&FromWorker::Stuck { app }).await?,
            message = from_supervisor.recv() => match message? {
                Some(ToWorker::Collect) => {
                    let counters = FromWorker::Counters(started.snapshot());
                    to_supervisor.send(&counters).await?;
                }
                Some(ToWorker::Drain) => stop.cancel(),
                Some(ToWorker::Prepare(overlay)) => {
                    let version = overlay.version;
                    let problem = taken_on.prepare(overlay).err();
                    let prepared = FromWorker::Prepared { version, problem };
                    to_supervisor.send(&prepared).await?;
                }
                Some(ToWorker::Commit { version }) => {
                    if let Some(overlay) = taken_on.commit(version) {
                        started.take_on(overlay);
                        to_supervisor.send(&FromWorker::Committed { version }).await?;
                    }
                }
                Some(ToWorker::Abort { version }) => taken_on.abort(version),
                // A worker does not outlive its supervisor.
                None => return Ok(()),
            },
        }
    }
    tell_observed(&started, &to_supervisor).await?;
    let counters = FromWorker::Counters(started.snapshot());
    to_supervisor.send(&counters).await
}

/// Tells what the worker has seen since it last told, if there is anything.
async fn tell_observed(
    started: &Started,
    to_supervisor: &Sender<FromWorker>,
) -> Result<(), ChannelError> {
    let observations = started.observe();
    if observations.is_empty() {
        return Ok(());
    }
    to_supervisor
        .send(&FromWorker::Observed(observations))
        .await
}

/// `twinspan routes` and `twinspan check`: starts the applications, because some define routes while they start, stops
/// them again, and prints what `look` makes of them.
fn inspect(
    config: Config,
    host: &dyn Host,
    look: impl Fn(&Config, &Inventory<'_>) -> Result<(String, Exit), serde_json::Error>,
) -> Result<Exit, Ended> {
    logging::init(config.log_level);
    let internal = |problem: String| Ended {
        text: format!("error: {problem}"),
        exit: Exit::Internal,
    };
    let config = Arc::new(config);
    let stop = CancellationToken::new();
    let (send, receive) = mpsc::channel();
    let report = {
        let stop = stop.clone();
        move |started: Result<Started, LoadError>| -> BoxFuture<'static, ()> {
            // The receiver outlives the worker.
            let _ = send.send(started.map(|started| started.ready));
            stop.cancel();
            Box::pin(std::future::ready(()))
        }
    };
    let overlay = Overlay::default();
    worker::run(host, Arc::clone(&config), overlay, Vec::new(), stop, report)
        .map_err(|error| internal(error.to_string()))?;
    let ready = receive
        .recv()
        .map_err(|_| internal("the applications were not started".into()))?
        .map_err(|error| Ended {
            text: Failure::from(error).to_string(),
            exit: Exit::Application,
        })?;
    let inventory =
        Inventory::new(&config, &ready.apps).map_err(|error| internal(error.to_string()))?;
    let (text, exit) = look(&config, &inventory).map_err(|error| internal(error.to_string()))?;
    // A reader that has gone needs no more of it.
    let _ = writeln!(io::stdout(), "{text}");
    Ok(exit)
}

/// `twinspan migrate`
fn tell(question: &Question, config: &Config) -> Result<Exit, Ended> {
    let answer = question.answer(config)?;
    // A reader that has gone needs no more of it.
    let _ = writeln!(io::stdout(), "{}", answer.text);
    match answer.failure {
        None => Ok(Exit::Success),
        Some(failure) => Err(Ended {
            text: format!("error: {failure}"),
            exit: Exit::Check,
        }),
    }
}

/// For people, or as JSON.
fn written(report: &(impl Display + Serialize), json: bool) -> Result<String, serde_json::Error> {
    if json {
        serde_json::to_string_pretty(report)
    } else {
        Ok(report.to_string().trim_end().to_owned())
    }
}
