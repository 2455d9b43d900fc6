//! Finding the application that a target names, with errors that say what to write instead.

use pyo3::exceptions::{PyImportError, PyModuleNotFoundError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};
use twinspan::config::Target;
use twinspan::error::LoadError;

use crate::errors::{summary, traceback};

/// What a target without an attribute may be called.
const DEFAULT_NAMES: [&str; 2] = ["app", "application"];

/// Puts the directory where modules are looked for first in front of `sys.path`.
pub fn add_to_path(py: Python<'_>, directory: &std::path::Path) -> PyResult<()> {
    let path = py.import("sys")?.getattr("path")?.cast_into::<PyList>()?;
    let directory = directory.as_os_str().into_pyobject(py)?;
    if !path.contains(&directory)? {
        path.insert(0, directory)?;
    }
    Ok(())
}

/// Imports the module and gives the object that `target` names.
pub fn object<'py>(py: Python<'py>, target: &Target) -> Result<Bound<'py, PyAny>, LoadError> {
    let module = module(py, target)?;
    let Some(attr) = &target.attr else {
        return default_object(&module, target);
    };
    let mut object = module;
    for name in attr.split('.') {
        object = match object.getattr(name) {
            Ok(next) => next,
            Err(_) => return Err(no_attribute(&object, name, target)),
        };
    }
    if !target.factory {
        return Ok(object);
    }
    object.call0().map_err(|error| LoadError {
        target: target.to_string(),
        problem: format!("the factory raised {}", summary(py, &error)),
        hint: None,
        traceback: Some(traceback(py, &error)),
    })
}

fn module<'py>(py: Python<'py>, target: &Target) -> Result<Bound<'py, PyAny>, LoadError> {
    let name = PyString::new(py, &target.module);
    match py.import(&name) {
        Ok(module) => Ok(module.into_any()),
        Err(error) => Err(import_failed(py, &error, target)),
    }
}

/// Tells a module that is not there from one that fails while it is imported.
fn import_failed(py: Python<'_>, error: &PyErr, target: &Target) -> LoadError {
    let missing: Option<String> = error
        .is_instance_of::<PyModuleNotFoundError>(py)
        .then(|| error.value(py).getattr("name").ok()?.extract().ok())
        .flatten();
    let module = &target.module;
    let own = missing
        .as_ref()
        .is_some_and(|missing| module == missing || module.starts_with(&format!("{missing}.")));
    if own {
        let missing = missing.unwrap_or_default();
        return LoadError {
            target: target.to_string(),
            problem: format!("there is no module `{missing}`"),
            hint: Some(
                "it is looked for in `--app-dir` (default: the current directory) and in the environment's packages"
                    .into(),
            ),
            traceback: None,
        };
    }
    let hint = missing.map(|missing| {
        format!("`{module}` needs `{missing}`, which is not installed in this environment")
    });
    let problem = if error.is_instance_of::<PyImportError>(py) || hint.is_some() {
        format!("`{module}` cannot be imported: {}", summary(py, error))
    } else {
        format!(
            "`{module}` raised {} while it was imported",
            summary(py, error)
        )
    };
    LoadError {
        target: target.to_string(),
        problem,
        hint,
        traceback: Some(traceback(py, error)),
    }
}

fn default_object<'py>(
    module: &Bound<'py, PyAny>,
    target: &Target,
) -> Result<Bound<'py, PyAny>, LoadError> {
    for name in DEFAULT_NAMES {
        if let Ok(object) = module.getattr(name) {
            return Ok(object);
        }
    }
    let callables: Vec<String> = public_names(module)
        .into_iter()
        .filter(|name| {
            module
                .getattr(name.as_str())
                .is_ok_and(|object| object.is_callable())
        })
        .take(5)
        .map(|name| format!("`{}:{name}`", target.module))
        .collect();
    Err(LoadError {
        target: target.to_string(),
        problem: format!("`{}` has neither `app` nor `application`", target.module),
        hint: Some(if callables.is_empty() {
            "name the application: `module:attribute`".to_owned()
        } else {
            format!("name the application, for example {}", callables.join(", "))
        }),
        traceback: None,
    })
}

fn no_attribute(object: &Bound<'_, PyAny>, name: &str, target: &Target) -> LoadError {
    let near = public_names(object)
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, &candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate);
    let fallback = || {
        DEFAULT_NAMES
            .into_iter()
            .find(|default| object.hasattr(*default).unwrap_or(false))
            .map(str::to_owned)
    };
    let module = &target.module;
    LoadError {
        target: target.to_string(),
        problem: format!("`{module}` has no attribute `{name}`"),
        hint: near
            .or_else(fallback)
            .map(|near| format!("`{module}` defines `{near}`")),
        traceback: None,
    }
}

fn public_names(object: &Bound<'_, PyAny>) -> Vec<String> {
    let Ok(names) = object.dir() else {
        return Vec::new();
    };
    names
        .iter()
        .filter_map(|name| name.extract::<String>().ok())
        .filter(|name| !name.starts_with('_'))
        .collect()
}
