//! The routes of an application, as its own router knows them.

use pyo3::intern;
use pyo3::prelude::*;
use twinspan::app::{Route, RouteKind, RouteTable, RoutesError};

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
    let routes = infos.into_iter().map(Route::from).collect();
    Ok(RouteTable { routes })
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
        }
    }
}
