//! WSGI applications inside of ASGI applications, as plain data.

use pyo3::intern;
use pyo3::prelude::*;
use twinspan::app::{BridgeReport, Passed, Route, RouteTable};

use crate::routes::RouteInfo;

/// A bridge, and what it calls.
#[derive(Debug)]
pub struct FoundBridge<'py> {
    pub report: BridgeReport,
    /// What its outer application tries before it.
    pub before: RouteTable,
    /// Takes `environ` and `start_response`.
    pub application: Bound<'py, PyAny>,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct BridgeInfo<'py> {
    prefix: String,
    bridge: String,
    cost: String,
    obstacle: Option<String>,
    passes: Vec<PassedInfo>,
    dependencies: Vec<PassedInfo>,
    before: Vec<RouteInfo>,
    application: Bound<'py, PyAny>,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct PassedInfo {
    name: String,
    file: Option<String>,
    line: Option<u32>,
}

/// Finds the bridges in `app`, or below `router` where one is named.
pub fn find<'py>(
    app: &Bound<'py, PyAny>,
    router: Option<&Bound<'py, PyAny>>,
) -> PyResult<Vec<FoundBridge<'py>>> {
    let py = app.py();
    let infos: Vec<BridgeInfo<'py>> = py
        .import(intern!(py, "twinspan._bridges"))?
        .call_method1(intern!(py, "find"), (app, router))?
        .extract()?;
    Ok(infos.into_iter().map(FoundBridge::from).collect())
}

impl<'py> From<BridgeInfo<'py>> for FoundBridge<'py> {
    fn from(info: BridgeInfo<'py>) -> Self {
        let passed = |infos: Vec<PassedInfo>| infos.into_iter().map(Passed::from).collect();
        Self {
            report: BridgeReport {
                prefix: info.prefix,
                bridge: info.bridge,
                cost: info.cost,
                obstacle: info.obstacle,
                passes: passed(info.passes),
                dependencies: passed(info.dependencies),
                served_as: None,
            },
            before: RouteTable::new(info.before.into_iter().map(Route::from).collect()),
            application: info.application,
        }
    }
}

impl From<PassedInfo> for Passed {
    fn from(info: PassedInfo) -> Self {
        Self {
            name: info.name,
            file: info.file,
            line: info.line,
        }
    }
}
