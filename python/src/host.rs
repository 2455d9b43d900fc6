//! Python as the host of applications.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tracing::error;
use twinspan::app::Application;
use twinspan::config::{AppConfig, Config};
use twinspan::error::LoadError;
use twinspan::peers::{self, Peers};
use twinspan::worker::{Finished, Host};
use twinspan_asgi::{AsgiApplication, EventLoop, MakeNative, make_loop};
use twinspan_bridge::errors::{summary, traceback};
use twinspan_bridge::import;
use twinspan_bridge::interface::{Detected, detect};
use twinspan_wsgi::WsgiApplication;

use crate::apps::Apps;

/// How often the main thread looks for signals when it has no event loop to run.
const SIGNALS: Duration = Duration::from_millis(200);

/// Loads Python applications and runs the event loop that the asynchronous ones share.
pub(crate) struct PythonHost {
    /// Applications that were handed over instead of named, by target.
    objects: Option<Py<PyDict>>,
    /// What ended the run early.
    interrupt: Mutex<Option<PyErr>>,
    /// Made with the first ASGI application: without one there is no loop, no thread, no import.
    event_loop: Mutex<Option<Arc<EventLoop>>>,
    /// Those that run on it, in the order in which they were loaded.
    asgi: Mutex<Vec<Arc<AsgiApplication>>>,
    /// What they find each other by; made with the first of them.
    apps: OnceLock<Py<Apps>>,
}

impl fmt::Debug for PythonHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PythonHost")
    }
}

impl PythonHost {
    pub(crate) fn new(objects: Option<Py<PyDict>>) -> Self {
        Self {
            objects,
            interrupt: Mutex::default(),
            event_loop: Mutex::default(),
            asgi: Mutex::default(),
            apps: OnceLock::new(),
        }
    }

    /// What the applications find each other by, once they are loaded.
    pub(crate) fn loaded(&self) -> Option<&Py<Apps>> {
        self.apps.get()
    }

    /// The exception of a signal handler, `KeyboardInterrupt` say, that ended the run early.
    pub(crate) fn interrupt(&self) -> Option<PyErr> {
        self.interrupt
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn interrupted(&self, error: PyErr) {
        *self
            .interrupt
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    fn event_loop(
        &self,
        py: Python<'_>,
        app: &AppConfig,
        config: &Config,
    ) -> Result<Arc<EventLoop>, LoadError> {
        let mut event_loop = self
            .event_loop
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(event_loop) = &*event_loop {
            return Ok(Arc::clone(event_loop));
        }
        let choice = &config.loop_choice;
        let failed = |error: LoadError| LoadError {
            target: app.target.to_string(),
            problem: format!("its event loop (`--loop {choice}`): {}", error.problem),
            ..error
        };
        let made = make_loop(py, choice).map_err(failed)?;
        let made = EventLoop::new(made).map_err(|error| raised(py, app, &error))?;
        *event_loop = Some(Arc::clone(&made));
        if let Some(apps) = self.apps.get() {
            apps.get().run_on(&made);
        }
        Ok(made)
    }

    fn apps<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, Apps>> {
        if let Some(apps) = self.apps.get() {
            return Ok(apps.bind(py));
        }
        let made = Py::new(py, Apps::default())?;
        Ok(self.apps.get_or_init(|| made).bind(py))
    }

    fn object<'py>(
        &self,
        py: Python<'py>,
        app: &AppConfig,
    ) -> Result<Bound<'py, PyAny>, LoadError> {
        let given = self
            .objects
            .as_ref()
            .and_then(|objects| objects.bind(py).get_item(app.target.to_string()).ok()?);
        match given {
            Some(object) => Ok(object),
            None => import::object(py, &app.target),
        }
    }

    fn wrap(
        &self,
        py: Python<'_>,
        object: &Bound<'_, PyAny>,
        app: &AppConfig,
        config: &Config,
    ) -> Result<Arc<dyn Application>, LoadError> {
        let raised = |error: PyErr| raised(py, app, &error);
        let Some(detected) = detect(object).map_err(raised)? else {
            return Err(neither(object, app));
        };
        let router = match &app.router {
            Some(target) => Some(import::object(py, target)?),
            None => None,
        };
        let apps = self.apps(py).map_err(raised)?;
        apps.get().add(
            &app.name,
            router.as_ref().unwrap_or(object).clone().unbind(),
            peers::mount(&config.rules, &app.name),
            &config.root_path,
        );
        let wrapped: Arc<dyn Application> = match detected {
            Detected::Wsgi => Arc::new(
                WsgiApplication::new(py, object, app, router, config.workers > 1, apps.as_any())
                    .map_err(raised)?,
            ),
            Detected::Asgi3 | Detected::Asgi2 => {
                let event_loop = self.event_loop(py, app, config)?;
                let mut others = self.asgi.lock().unwrap_or_else(PoisonError::into_inner);
                let wrapped = AsgiApplication::new(
                    object,
                    detected,
                    app,
                    router,
                    &event_loop,
                    &others,
                    apps.as_any(),
                );
                let mut wrapped = wrapped.map_err(raised)?;
                if app.unbridge {
                    wrapped = wrapped.unbridged(natively(app, config, apps));
                }
                let wrapped = Arc::new(wrapped);
                others.push(Arc::clone(&wrapped));
                wrapped
            }
        };
        Ok(wrapped)
    }
}

impl Host for PythonHost {
    fn load(&self, app: &AppConfig, config: &Config) -> Result<Arc<dyn Application>, LoadError> {
        Python::attach(|py| {
            let directory = std::path::absolute(&config.app_dir).unwrap_or_default();
            if let Err(error) = import::add_to_path(py, &directory) {
                error!(error = %summary(py, &error), "`--app-dir` cannot be used");
            }
            let object = self.object(py, app)?;
            self.wrap(py, &object, app, config)
        })
    }

    fn peers(&self) -> Option<Peers> {
        self.apps.get().map(|apps| apps.get().peers())
    }

    fn drive(&self, finished: &Finished) {
        let event_loop = {
            let event_loop = self
                .event_loop
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            event_loop.clone()
        };
        Python::attach(|py| {
            if let Some(event_loop) = event_loop
                && let Err(error) = event_loop.run_until(py, finished)
            {
                if !error.is_instance_of::<PyKeyboardInterrupt>(py) {
                    error!("the event loop broke\n{}", traceback(py, &error).trim_end());
                }
                return self.interrupted(error);
            }
            // Signal handlers of Python run on this thread, and only when it comes back to Python.
            while !py.detach(|| finished.wait(SIGNALS)) {
                if let Err(error) = py.check_signals() {
                    return self.interrupted(error);
                }
            }
        });
    }
}

/// Serves WSGI applications inside of `app` with its settings, each with threads of its own.
fn natively(app: &AppConfig, config: &Config, apps: &Bound<'_, Apps>) -> Arc<MakeNative> {
    let (app, multiprocess) = (app.clone(), config.workers > 1);
    let apps = apps.clone().into_any().unbind();
    Arc::new(move |inner, name| {
        let config = AppConfig {
            name,
            ..app.clone()
        };
        let py = inner.py();
        let wrapped = WsgiApplication::new(py, inner, &config, None, multiprocess, apps.bind(py))?;
        Ok(Arc::new(wrapped) as Arc<dyn Application>)
    })
}

fn raised(py: Python<'_>, app: &AppConfig, error: &PyErr) -> LoadError {
    LoadError {
        target: app.target.to_string(),
        problem: summary(py, error),
        hint: None,
        traceback: Some(traceback(py, error)),
    }
}

fn neither(object: &Bound<'_, PyAny>, app: &AppConfig) -> LoadError {
    let kind = object
        .get_type()
        .name()
        .map_or_else(|_| "object".to_owned(), |name| name.to_string());
    let problem = if object.is_callable() {
        format!(
            "it is neither WSGI nor ASGI: a `{kind}` that does not take (environ, start_response) or (scope, receive, send)"
        )
    } else {
        format!("it is neither WSGI nor ASGI: a `{kind}` cannot be called")
    };
    LoadError {
        target: app.target.to_string(),
        problem,
        hint: Some("name the application object; if it is made by a function without arguments, write `module:function()`".into()),
        traceback: None,
    }
}
