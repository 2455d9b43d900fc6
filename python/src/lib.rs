//! The extension module: Python's side of the server, as thin as it can be.

#![deny(unsafe_code)]

mod apps;
mod command;
mod host;
mod server;

#[pyo3::pymodule(gil_used = false)]
mod _twinspan {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::apps::{Apps, Pending};
    #[pymodule_export]
    use crate::command::run;
    #[pymodule_export]
    use crate::server::Server;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
