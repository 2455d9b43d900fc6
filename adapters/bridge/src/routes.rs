//! The routes of an application, as its own router knows them.

use pyo3::intern;
use pyo3::prelude::*;
use tracing::warn;
use twinspan::app::{Hook, Notes, Route, RouteKind, RouteTable, RoutesError, SocketUse};

use crate::errors::summary;

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct RouteInfo {
    template: String,
    pattern: String,
    kind: String,
    methods: Option<Vec<String>>,
    host: Option<String>,
    redirects_slash: bool,
    exact: bool,
    endpoint: Option<String>,
    file: Option<String>,
    line: Option<u32>,
    guards: Option<Vec<String>>,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct AppNotes {
    before_request: Vec<HookInfo>,
    middleware: Vec<String>,
    sockets: Vec<SocketInfo>,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct HookInfo {
    name: String,
    scope: Option<String>,
    file: Option<String>,
    line: Option<u32>,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct SocketInfo {
    extension: String,
    endpoint: Option<String>,
    file: Option<String>,
    line: Option<u32>,
}

/// Reads the router of `app`, or `router` where one is named.
pub fn read(
    app: &Bound<'_, PyAny>,
    router: Option<&Bound<'_, PyAny>>,
) -> Result<RouteTable, RoutesError> {
    let py = app.py();
    let unreadable = |error: &PyErr| RoutesError::Unreadable {
        // `UnreadableRouter` says what; anything else is an error of the application's own objects.
        what: error
            .value(py)
            .getattr(intern!(py, "what"))
            .and_then(|what| what.extract())
            .unwrap_or_else(|_| summary(py, error)),
    };
    let infos: Vec<RouteInfo> = py
        .import(intern!(py, "twinspan._routers"))
        .and_then(|module| module.call_method1(intern!(py, "read"), (app, router)))
        .and_then(|infos| infos.extract())
        .map_err(|error| unreadable(&error))?;
    let notes = notes(app, router).unwrap_or_else(|error| {
        // They are for people: the server does not need them.
        warn!(error = %summary(py, &error), "what stands around the routes of an application cannot be read");
        Notes::default()
    });
    Ok(RouteTable {
        routes: infos.into_iter().map(Route::from).collect(),
        notes,
    })
}

/// Reads what stands around the routes.
fn notes(app: &Bound<'_, PyAny>, router: Option<&Bound<'_, PyAny>>) -> PyResult<Notes> {
    let py = app.py();
    let module = py.import(intern!(py, "twinspan._notes"))?;
    let notes: AppNotes = module
        .call_method1(intern!(py, "read"), (app, router))?
        .extract()?;
    let hook = |hook: HookInfo| Hook {
        name: hook.name,
        scope: hook.scope,
        file: hook.file,
        line: hook.line,
    };
    let socket = |socket: SocketInfo| SocketUse {
        extension: socket.extension,
        endpoint: socket.endpoint,
        file: socket.file,
        line: socket.line,
    };
    Ok(Notes {
        before_request: notes.before_request.into_iter().map(hook).collect(),
        middleware: notes.middleware,
        sockets: notes.sockets.into_iter().map(socket).collect(),
    })
}

impl From<RouteInfo> for Route {
    fn from(info: RouteInfo) -> Self {
        Self {
            template: info.template,
            pattern: info.pattern,
            kind: match info.kind.as_str() {
                "websocket" => RouteKind::WebSocket,
                _ => RouteKind::Http,
            },
            methods: info.methods,
            host: info.host,
            redirects_slash: info.redirects_slash,
            exact: info.exact,
            endpoint: info.endpoint,
            file: info.file,
            line: info.line,
            guards: info.guards,
        }
    }
}
