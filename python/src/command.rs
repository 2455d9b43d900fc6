//! The command `twinspan`.

use std::ffi::OsString;
use std::path::PathBuf;

use pyo3::prelude::*;
use twinspan::command::{self, WORKER};
use twinspan::supervisor::WorkerCommand;

use crate::host::PythonHost;

/// Runs the command line `arguments`, without the program's name; gives the exit code.
#[pyfunction]
pub(crate) fn run(py: Python<'_>, arguments: Vec<OsString>) -> PyResult<u8> {
    let interpreter: PathBuf = py.import("sys")?.getattr("executable")?.extract()?;
    let program = WorkerCommand {
        program: interpreter,
        args: ["-m", "twinspan", WORKER].map(OsString::from).to_vec(),
    };
    if arguments.first().is_some_and(|first| first == WORKER) {
        ignore_terminal(py)?;
    } else {
        leave_interrupts(py)?;
    }
    let environment = std::env::vars_os().collect();
    let directory = std::env::current_dir()?;
    let host = PythonHost::new(None);
    let exit = py.detach(|| command::run(arguments, environment, directory, &host, program));
    Ok(exit.code())
}

/// Ctrl-C and the end of the terminal reach the whole process group; the supervisor tells workers what
/// they mean. By a handler that does nothing, because what is ignored outright would be inherited by
/// the application's own child processes.
fn ignore_terminal(py: Python<'_>) -> PyResult<()> {
    let signal = py.import("signal")?;
    let nothing = py.import("twinspan._interop")?.getattr("ignore_signal")?;
    for name in ["SIGINT", "SIGHUP"] {
        signal.call_method1("signal", (signal.getattr(name)?, &nothing))?;
    }
    Ok(())
}

/// Python's own handler would raise `KeyboardInterrupt` after a stop that went well: the handlers of
/// the supervisor call the one that they replace.
fn leave_interrupts(py: Python<'_>) -> PyResult<()> {
    let signal = py.import("signal")?;
    let default = signal.getattr("SIG_DFL")?;
    signal.call_method1("signal", (signal.getattr("SIGINT")?, default))?;
    Ok(())
}
