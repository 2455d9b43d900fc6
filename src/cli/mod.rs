//! The command line: what is asked for, and what people read in answer. Nothing is started here.
//!
//! `twinspan APP…` serves. The first arguments `routes`, `check` and `migrate` are commands, because no target that serves
//! something is called so by habit; a module `routes` is served as `routes:app`.

mod check;
mod inventory;
mod migrate;
mod routes;
#[cfg(test)]
mod testing;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::{self, Config, Settings, Sources};
use crate::error::Exit;

pub use check::CheckReport;
pub use inventory::Inventory;
pub use migrate::Question;
pub use routes::RouteListing;

/// A command line that was understood, and the configuration that it runs with.
#[derive(Debug)]
pub struct Invocation {
    pub action: Action,
    /// Read again with [`config::load`] when the server reloads.
    pub sources: Sources,
    pub settings: Settings,
    pub config: Config,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Serve,
    /// Which application answers what; see [`RouteListing`].
    Routes {
        json: bool,
    },
    /// What the applications do to each other; see [`CheckReport`].
    Check {
        json: bool,
    },
    /// How far a migration is.
    Migrate(Question),
}

/// Something to say, after which the process ends: help, the version, or what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub text: String,
    pub exit: Exit,
}

impl Ended {
    /// Says it, on stdout where it was asked for.
    ///
    /// # Errors
    /// Nobody can be told any more.
    pub fn say(&self) -> io::Result<()> {
        match self.exit {
            Exit::Success => writeln!(io::stdout(), "{}", self.text),
            _ => writeln!(io::stderr(), "{}", self.text),
        }
    }
}

impl From<config::ConfigError> for Ended {
    fn from(error: config::ConfigError) -> Self {
        Self {
            text: format!("error: {error}"),
            exit: Exit::Configuration,
        }
    }
}

/// Reads a command line without the program's name, the environment and the file.
///
/// # Errors
/// [`Ended`] with what was asked for, or with what is wrong and [`Exit::Configuration`].
pub fn parse(
    mut arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: PathBuf,
) -> Result<Invocation, Ended> {
    if arguments.first().is_some_and(|first| first == "migrate") {
        arguments.remove(0);
        return migrate::parse(arguments, environment, directory);
    }
    let inspects = match arguments.first().and_then(|first| first.to_str()) {
        Some("routes") => Some(Inspection::Routes),
        Some("check") => Some(Inspection::Check),
        _ => None,
    };
    let command = match inspects {
        Some(inspection) => {
            arguments.remove(0);
            inspection.command()
        }
        None => serve_command(),
    };
    let matches = understood(command, arguments)?;
    let action = match inspects {
        Some(Inspection::Routes) => Action::Routes {
            json: matches.get_flag("json"),
        },
        Some(Inspection::Check) => Action::Check {
            json: matches.get_flag("json"),
        },
        None => Action::Serve,
    };
    invocation(action, matches, environment, directory)
}

fn understood(command: Command, arguments: Vec<OsString>) -> Result<ArgMatches, Ended> {
    command
        .try_get_matches_from(arguments)
        .map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ended {
                text: error.to_string().trim_end().to_owned(),
                exit: Exit::Success,
            },
            _ => config::from_clap(&error).into(),
        })
}

fn invocation(
    action: Action,
    matches: ArgMatches,
    environment: Vec<(OsString, OsString)>,
    directory: PathBuf,
) -> Result<Invocation, Ended> {
    let sources = Sources {
        command_line: Some(matches),
        environment,
        directory: Some(directory),
        ..Sources::default()
    };
    let settings = config::load(&sources)?;
    let config = Config::new(&settings)?;
    Ok(Invocation {
        action,
        sources,
        settings,
        config,
    })
}

/// What stands below the options.
const AFTER: &str = "\
Commands:
  twinspan routes prints which application answers which path, and why.
  twinspan check finds what two applications hide from each other.
  twinspan migrate tells how far a migration is, and what its sides answer differently.

Configuration:
  Every option can stand in twinspan.toml, or under [tool.twinspan] in
  pyproject.toml (threads = 40); above the file stands the environment
  (TWINSPAN_THREADS=40), above that the command line. Lists are repeated or
  separated by commas. A switch has an opposite: --no-access-log.

Signals:
  SIGTERM and SIGINT finish what is being answered and stop; a second SIGINT,
  or SIGQUIT, stops at once; SIGHUP replaces the workers without losing a request.

Exit codes:
  1 a check has failed, or the server itself
  2 wrong configuration, or an address cannot be listened on
  3 an application cannot be loaded, does not start, or does not stop as it should
  4 workers die again and again";

fn serve_command() -> Command {
    described()
        .about("Serves WSGI and ASGI applications mixed on one port.")
        .override_usage(
            "twinspan [OPTIONS] [APP]...\n       \
             twinspan routes [OPTIONS] [APP]...\n       \
             twinspan check [OPTIONS] [APP]...\n       \
             twinspan migrate status|report [OPTIONS] [APP]...",
        )
        .after_help(AFTER)
}

/// A command that starts the applications and serves nothing.
#[derive(Clone, Copy)]
enum Inspection {
    Routes,
    Check,
}

impl Inspection {
    fn command(self) -> Command {
        let (about, usage, json) = match self {
            Self::Routes => (
                "Prints which application answers which path, and why. Takes the options of the server.",
                "twinspan routes [--json] [OPTIONS] [APP]...",
                "Prints JSON instead of a table",
            ),
            Self::Check => (
                "Finds routes that two applications claim or hide from each other, and what does not move with a \
                 route. Exits with 1 for an overlap that is not acknowledged. Takes the options of the server.",
                "twinspan check [--json] [OPTIONS] [APP]...",
                "Prints JSON instead of text",
            ),
        };
        described().about(about).override_usage(usage).arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help(json)
                .help_heading("Other options"),
        )
    }
}

fn flag(name: &'static str, short: char, action: ArgAction) -> Arg {
    Arg::new(name)
        .long(name)
        .short(short)
        .action(action)
        .help_heading("Other options")
}

fn described() -> Command {
    config::command()
        .no_binary_name(true)
        .version(env!("CARGO_PKG_VERSION"))
        .help_template("{about-with-newline}\n{usage-heading} {usage}\n\n{all-args}{after-help}")
        .next_line_help(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args([
            flag("help", 'h', ArgAction::Help).help("Prints this"),
            flag("version", 'V', ArgAction::Version).help("Prints the version"),
        ])
        .max_term_width(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Invocation, Ended> {
        let words = line.split_whitespace().map(OsString::from).collect();
        // A directory without files of ours.
        parse(words, Vec::new(), PathBuf::from("/"))
    }

    #[test]
    fn routes_and_check_are_commands_in_the_first_place_only() {
        assert_eq!(run("shop:app").unwrap().action, Action::Serve);
        assert_eq!(run("routes:app").unwrap().action, Action::Serve);
        assert_eq!(run("shop:app routes").unwrap().action, Action::Serve);
        let listing = run("routes shop:app --threads 4").unwrap();
        assert_eq!(listing.action, Action::Routes { json: false });
        assert_eq!(listing.config.apps.len(), 1);
        assert_eq!(
            run("routes --json shop:app").unwrap().action,
            Action::Routes { json: true }
        );
        assert_eq!(run("check:app").unwrap().action, Action::Serve);
        assert_eq!(
            run("check shop:app").unwrap().action,
            Action::Check { json: false }
        );
        assert_eq!(
            run("check --json shop:app").unwrap().action,
            Action::Check { json: true }
        );
    }

    #[test]
    fn help_and_version_are_said_with_success() {
        let version = run("--version").unwrap_err();
        assert_eq!(
            version,
            Ended {
                text: format!("twinspan {}", env!("CARGO_PKG_VERSION")),
                exit: Exit::Success,
            }
        );
        for line in ["--help", "-h", "routes --help"] {
            let help = run(line).unwrap_err();
            assert_eq!(help.exit, Exit::Success);
            for heading in ["Applications:", "Listening:", "Timeouts:", "--access-log"] {
                assert!(help.text.contains(heading), "{heading}: {}", help.text);
            }
        }
    }

    #[test]
    fn a_wrong_command_line_ends_with_the_configuration_code() {
        let ended = run("shop:app --thread 4").unwrap_err();
        assert_eq!(ended.exit.code(), 2);
        assert_eq!(
            ended.text,
            "error: `--thread`: there is no such option\nhint: did you mean `--threads`?"
        );
        assert_eq!(
            run("shop:app --json").unwrap_err().text,
            "error: `--json`: there is no such option\nhint: `twinspan --help` lists all options"
        );
    }
}
