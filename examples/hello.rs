//! The core alone, without any Python: the ceiling for every application behind the adapters.
//! `cargo run --release --example hello -- --no-access-log`; all options of the server may follow.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use twinspan::app::{AppError, Application, BoxFuture, Description, Interface, Request, Response};
use twinspan::config::{self, AppConfig, Config, Sources};
use twinspan::error::LoadError;
use twinspan::listen::Listener;
use twinspan::migrate::live::Overlay;
use twinspan::worker::{self, Finished, Host};

#[derive(Debug)]
struct Hello;

impl Application for Hello {
    fn description(&self) -> Description {
        let (interface, threads) = (Interface::Native, None);
        Description { interface, threads }
    }

    fn call(&self, _request: Box<Request>) -> BoxFuture<'static, Result<Response, AppError>> {
        Box::pin(async { Ok(Response::new("Hello, world!\n".into())) })
    }
}

/// Has one application, and nothing to run on the main thread.
struct Native;

impl Host for Native {
    fn load(&self, _app: &AppConfig, _config: &Config) -> Result<Arc<dyn Application>, LoadError> {
        Ok(Arc::new(Hello))
    }

    fn drive(&self, finished: &Finished) {
        while !finished.wait(Duration::from_secs(60)) {}
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let settings = config::load(&Sources {
        command_line: Some(config::command().get_matches()),
        arguments: serde_json::from_str(r#"{"app": "hello"}"#)?,
        ..Sources::default()
    })?;
    let config = Arc::new(Config::new(&settings)?);
    let bind = |bind| Listener::bind(bind, config.backlog);
    let listeners = config.binds.iter().map(bind).collect::<Result<_, _>>()?;
    let stop = CancellationToken::new();
    let interrupted = stop.clone();
    worker::run(
        &Native,
        config,
        Overlay::default(),
        listeners,
        stop,
        |_started| {
            Box::pin(async move {
                let _ = tokio::signal::ctrl_c().await;
                interrupted.cancel();
            })
        },
    )?;
    Ok(())
}
