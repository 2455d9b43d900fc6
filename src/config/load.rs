//! Where settings come from: defaults < file < environment < command line < Python arguments.
//!
//! Each source becomes a layer of values by option name, and layers are laid over each other as data, so
//! that no list of options exists besides [`RawConfig`]. Environment variables go through the parser of
//! the command line, one at a time: they are flags with another name. Every value keeps its origin,
//! because an error without a place is a search.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args as _, Command, FromArgMatches as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, nearest};
use super::foreign;
use super::raw::RawConfig;

/// Everything that may say something about the configuration.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// What [`command`] has parsed, where there is a command line.
    pub command_line: Option<ArgMatches>,
    pub environment: Vec<(OsString, OsString)>,
    /// Where `twinspan.toml` and `pyproject.toml` are looked for; without it, only a named file is read.
    pub directory: Option<PathBuf>,
    /// Keyword arguments of the Python API.
    pub arguments: Map<String, Value>,
}

/// What all sources together say, and who said it: plain data that travels to every worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub values: RawConfig,
    /// By option (`threads`) or place in the file (`apps.legacy.threads`, `routes.0`).
    origins: BTreeMap<String, Origin>,
}

/// Who said it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    File { name: String, line: usize },
    Environment { variable: String },
    CommandLine,
    Argument,
}

impl Settings {
    /// Where an option was set; an item of a list that has no place of its own has that of the list.
    pub(super) fn origin(&self, path: &str) -> Option<&Origin> {
        self.origins.get(path).or_else(|| {
            let (list, _) = path.rsplit_once('.')?;
            self.origins.get(list)
        })
    }

    /// An error about the option at `path`, named as its author wrote it.
    pub(super) fn error(&self, path: &str, problem: impl Into<String>) -> ConfigError {
        let error = ConfigError::new(problem).option(self.name(path));
        match self.origin(path) {
            Some(Origin::File { name, line }) => error.origin(format!("{name}:{line}")),
            _ => error,
        }
    }

    /// The name under which the option at `path` was set.
    pub(super) fn name(&self, path: &str) -> String {
        let option = path.split('.').next().unwrap_or(path);
        match self.origin(path) {
            Some(Origin::CommandLine) => flag(option),
            Some(Origin::Environment { variable }) => format!("`{variable}`"),
            Some(Origin::File { .. }) => format!("`{path}`"),
            Some(Origin::Argument) | None => format!("`{option}`"),
        }
    }
}

/// The options as a command line: `--access-log` and the like have a hidden `--no-access-log`.
pub fn command() -> Command {
    let plain = RawConfig::augment_args(Command::new("twinspan").next_display_order(1));
    let ids: Vec<_> = plain
        .get_arguments()
        .map(|arg| arg.get_id().to_string())
        .collect();
    let command = plain.args_override_self(true);
    ids.into_iter().fold(command, |command, id| {
        let mut no = None;
        let command = command.mut_arg(id.clone(), |arg| {
            if matches!(arg.get_action(), ArgAction::SetTrue) {
                let name = negative(&id);
                no = Some(
                    Arg::new(name.clone())
                        .long(name.clone())
                        .action(ArgAction::SetTrue)
                        .overrides_with(id.clone())
                        .hide(true),
                );
                return arg.overrides_with(name);
            }
            let choices: Vec<_> = arg
                .get_possible_values()
                .iter()
                .map(|choice| choice.get_name().to_owned())
                .collect();
            if choices.is_empty() {
                return arg;
            }
            arg.value_name(choices.join("|")).hide_possible_values(true)
        });
        command.args(no)
    })
}

fn negative(id: &str) -> String {
    format!("no-{}", id.replace('_', "-"))
}

fn flag(option: &str) -> String {
    match option {
        "app" => "APP".into(),
        _ => format!("`--{}`", option.replace('_', "-")),
    }
}

/// Names of all options, as the file and the Python API write them.
fn option_names(command: &Command) -> Vec<&str> {
    command
        .get_arguments()
        .map(|arg| arg.get_id().as_str())
        .filter(|id| !id.starts_with("no-"))
        .chain(["apps", "routes"])
        .collect()
}

/// Lays all sources over each other.
///
/// # Errors
/// [`ConfigError`] for what cannot be read as a value; what does not fit together is found by
/// [`Config::new`](super::Config::new).
pub fn load(sources: &Sources) -> Result<Settings, ConfigError> {
    let environment = Layer::from_environment(&sources.environment)?;
    let conventions = Layer::from_conventions(&sources.environment)?;
    let command_line = match &sources.command_line {
        Some(matches) => Layer::from_matches(matches, &Origin::CommandLine)?,
        None => Layer::default(),
    };
    let arguments = Layer::from_arguments(&sources.arguments)?;

    let named = [&arguments, &command_line, &environment]
        .into_iter()
        .find_map(|layer| layer.values.get("config"))
        .and_then(Value::as_str)
        .map(Path::new);
    let mut settings = Layer::from_file(sources.directory.as_deref(), named)?;
    settings.put_under_address(conventions);
    for layer in [environment, command_line, arguments] {
        settings.put(layer);
    }
    settings.finish()
}

/// What one source says.
#[derive(Debug, Default)]
struct Layer {
    values: Map<String, Value>,
    origins: BTreeMap<String, Origin>,
}

impl Layer {
    fn from_matches(matches: &ArgMatches, origin: &Origin) -> Result<Self, ConfigError> {
        let raw = RawConfig::from_arg_matches(matches).map_err(|error| from_clap(&error))?;
        let mut said = values(&raw)?;
        let mut layer = Self::default();
        for id in matches.ids().map(clap::Id::as_str) {
            if matches.value_source(id) != Some(ValueSource::CommandLine) {
                continue;
            }
            let (option, value) = match id.strip_prefix("no-") {
                Some(switch) => (switch.replace('-', "_"), Some(Value::Bool(false))),
                None => (id.to_owned(), said.remove(id)),
            };
            if let Some(value) = value {
                layer.origins.insert(option.clone(), origin.clone());
                layer.values.insert(option, value);
            }
        }
        Ok(layer)
    }

    /// `TWINSPAN_THREADS=40` is `--threads=40`; an empty variable says nothing.
    fn from_environment(variables: &[(OsString, OsString)]) -> Result<Self, ConfigError> {
        let command = command();
        let mut layer = Self::default();
        for (variable, value) in variables {
            let Some(variable) = variable.to_str() else {
                continue;
            };
            let Some(option) = variable.strip_prefix("TWINSPAN_") else {
                continue;
            };
            if value.is_empty() {
                continue;
            }
            let option = option.to_lowercase();
            let ids = option_names(&command);
            if !ids.contains(&option.as_str()) || matches!(option.as_str(), "apps" | "routes") {
                // Anything else with our prefix may be an application's own; a slip of the pen is not.
                if let Some(near) = nearest(&option, ids) {
                    return Err(ConfigError::new("there is no such option")
                        .option(format!("`{variable}`"))
                        .hint(format!("did you mean `TWINSPAN_{}`?", near.to_uppercase())));
                }
                continue;
            }
            layer.put(Self::from_variable(&command, variable, &option, value)?);
        }
        Ok(layer)
    }

    /// The variables that hosting platforms set for every server.
    fn from_conventions(variables: &[(OsString, OsString)]) -> Result<Self, ConfigError> {
        const CONVENTIONS: [(&str, &str); 3] = [
            ("PORT", "port"),
            ("WEB_CONCURRENCY", "workers"),
            ("FORWARDED_ALLOW_IPS", "forwarded_allow_ips"),
        ];
        let command = command();
        let mut layer = Self::default();
        for (variable, option) in CONVENTIONS {
            let value = variables.iter().find(|(name, _)| name == variable);
            if let Some((_, value)) = value.filter(|(_, value)| !value.is_empty()) {
                layer.put(Self::from_variable(&command, variable, option, value)?);
            }
        }
        Ok(layer)
    }

    fn from_variable(
        command: &Command,
        variable: &str,
        option: &str,
        value: &OsStr,
    ) -> Result<Self, ConfigError> {
        let named = |error: ConfigError| {
            let error = error.option(format!("`{variable}`"));
            if value.as_encoded_bytes().starts_with(b"tcp://") {
                return error.hint(
                    "Kubernetes sets this for a Service of that name: \
                     set `enableServiceLinks: false` in the pod",
                );
            }
            error
        };
        let words = command
            .get_arguments()
            .find(|arg| arg.get_id() == option)
            .map_or_else(|| Ok(Vec::new()), |arg| words(arg, value))
            .map_err(named)?;
        let matches = command
            .clone()
            .no_binary_name(true)
            .try_get_matches_from(words)
            .map_err(|error| named(from_clap(&error)))?;
        let origin = Origin::Environment {
            variable: variable.into(),
        };
        Self::from_matches(&matches, &origin)
    }

    fn from_arguments(arguments: &Map<String, Value>) -> Result<Self, ConfigError> {
        let mut layer = Self::default();
        for (name, value) in arguments.iter().filter(|(_, value)| !value.is_null()) {
            let named = |error: ConfigError| error.option(format!("`{name}`"));
            let single = Map::from_iter([(name.clone(), value.clone())]);
            let raw: RawConfig = serde_json::from_value(Value::Object(single))
                .map_err(|error| named(from_serde(&error.to_string(), name)))?;
            layer.values.append(&mut values(&raw).map_err(named)?);
            layer.origins.insert(name.clone(), Origin::Argument);
        }
        Ok(layer)
    }

    /// The file that was named, or `twinspan.toml`, or `[tool.twinspan]` in `pyproject.toml`.
    fn from_file(directory: Option<&Path>, named: Option<&Path>) -> Result<Self, ConfigError> {
        if let Some(name) = named {
            if name.extension().is_some_and(|extension| extension == "py") {
                return Err(ConfigError::new("a configuration in Python is not run")
                    .option(format!("`{}`", name.display()))
                    .hint("write the settings into twinspan.toml"));
            }
            let text = fs::read_to_string(directory.unwrap_or(Path::new("")).join(name)).map_err(
                |error| {
                    ConfigError::new(format!("cannot be read: {error}"))
                        .option(format!("`{}`", name.display()))
                },
            )?;
            return Self::from_toml(name, &text)?.ok_or_else(|| {
                ConfigError::new("has no table [tool.twinspan]")
                    .option(format!("`{}`", name.display()))
            });
        }
        let Some(directory) = directory else {
            return Ok(Self::default());
        };
        for name in ["twinspan.toml", "pyproject.toml"] {
            let text = match fs::read_to_string(directory.join(name)) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    return Err(ConfigError::new(format!("cannot be read: {error}"))
                        .option(format!("`{name}`")));
                }
            };
            if let Some(layer) = Self::from_toml(Path::new(name), &text)? {
                return Ok(layer);
            }
        }
        Ok(Self::default())
    }

    /// `None` for a `pyproject.toml` without `[tool.twinspan]`.
    fn from_toml(name: &Path, text: &str) -> Result<Option<Self>, ConfigError> {
        let is_project = name
            .file_name()
            .is_some_and(|name| name == "pyproject.toml");
        let name = name.display().to_string();
        let place = |span: &Range<usize>| format!("{name}:{}", line_of(text, span.start));
        let syntax = |error: &toml::de::Error| {
            let problem = error.message().replace('\n', ", ");
            let error_at = error.span().unwrap_or_default();
            ConfigError::new(format!("invalid toml: {problem}")).origin(place(&error_at))
        };
        let document = DeTable::parse(text).map_err(|error| syntax(&error))?;
        let span = document.span();
        let table = if is_project {
            let mut inner = document.into_inner();
            let Some(DeValue::Table(mut tool)) = inner.remove("tool").map(Spanned::into_inner)
            else {
                return Ok(None);
            };
            match tool.remove("twinspan").map(Spanned::into_inner) {
                Some(DeValue::Table(table)) => table,
                _ => return Ok(None),
            }
        } else {
            document.into_inner()
        };

        let mut layer = Self::default();
        let mut places = Vec::new();
        let mut options = DeTable::new();
        for (key, value) in table {
            let option = key.get_ref().replace('-', "_");
            if options.contains_key(option.as_str()) {
                return Err(ConfigError::new("is set twice")
                    .option(format!("`{}`", key.get_ref()))
                    .origin(place(&key.span())));
            }
            if option == "config" {
                return Err(ConfigError::new("a file cannot name another one")
                    .option(format!("`{}`", key.get_ref()))
                    .origin(place(&key.span()))
                    .hint("delete the line"));
            }
            Place::note(&option, &key.span(), &value, &mut places);
            let key = Spanned::new(key.span(), option.into());
            options.insert(key, value);
        }
        for found in &places {
            let origin = Origin::File {
                name: name.clone(),
                line: line_of(text, found.at),
            };
            layer.origins.insert(found.path.clone(), origin);
        }
        let raw = RawConfig::deserialize(toml::de::Deserializer::from(Spanned::new(span, options)))
            .map_err(|error| {
                let at = error.span().unwrap_or_default();
                // Later ones lie deeper: the last that covers the error is the one that is wrong.
                let found = places
                    .iter()
                    .rev()
                    .find(|place| place.covers.start <= at.start && at.end <= place.covers.end);
                let path = found.map_or("", |place| &place.path);
                let error = from_serde(error.message(), path).origin(place(&at));
                if path.is_empty() {
                    error
                } else {
                    error.option(format!("`{path}`"))
                }
            })?;
        layer.values = values(&raw)?;
        Ok(Some(layer))
    }

    /// Lays `upper` over this layer.
    fn put(&mut self, upper: Self) {
        let listens = |option: &str| upper.values.contains_key(option);
        // Where to listen is one thing said in two ways: who says it later means the whole of it.
        if listens("bind") || listens("uds") {
            for option in ["bind", "host", "port", "uds"] {
                self.remove(option);
            }
        } else if listens("host") || listens("port") {
            for option in ["bind", "uds"] {
                self.remove(option);
            }
        }
        for (option, value) in upper.values {
            self.remove(&option);
            self.values.insert(option, value);
        }
        self.origins.extend(upper.origins);
    }

    /// Lays conventions over a file: `$PORT` is a port, it does not move a server off its sockets.
    fn put_under_address(&mut self, mut conventions: Self) {
        if self.values.contains_key("bind") || self.values.contains_key("uds") {
            conventions.remove("port");
        }
        self.put(conventions);
    }

    fn remove(&mut self, option: &str) {
        self.values.remove(option);
        self.origins.retain(|path, _| {
            let rest = path.strip_prefix(option);
            !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
    }

    fn finish(self) -> Result<Settings, ConfigError> {
        let values = serde_json::from_value(Value::Object(self.values))
            .map_err(|error| ConfigError::from_text(&error.to_string()))?;
        Ok(Settings {
            values,
            origins: self.origins,
        })
    }
}

/// The value of an environment variable as words of a command line.
fn words(arg: &Arg, value: &OsStr) -> Result<Vec<OsString>, ConfigError> {
    let option = arg.get_id().as_str();
    if arg.is_positional() {
        // Behind `--`, a value is no flag, whatever it looks like.
        return Ok(vec!["--".into(), value.into()]);
    }
    let long = option.replace('_', "-");
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        let text = value.to_string_lossy().to_lowercase();
        let switch = match text.as_str() {
            "true" | "on" | "yes" | "1" => long,
            "false" | "off" | "no" | "0" => negative(option),
            _ => {
                return Err(ConfigError::new(format!("`{text}` is neither on nor off"))
                    .hint("write `true` or `false`"));
            }
        };
        return Ok(vec![format!("--{switch}").into()]);
    }
    let mut word = OsString::from(format!("--{long}="));
    word.push(value);
    Ok(vec![word])
}

/// The values that are set, by option.
fn values(raw: &RawConfig) -> Result<Map<String, Value>, ConfigError> {
    match serde_json::to_value(raw) {
        Ok(Value::Object(mut values)) => {
            values.retain(|_, value| !value.is_null());
            Ok(values)
        }
        Ok(_) => Ok(Map::new()),
        // The only value that has no text form.
        Err(_) => Err(ConfigError::new("a path is not valid UTF-8")),
    }
}

/// Where something stands in a file.
struct Place {
    /// `threads`, `apps.legacy`, `routes.0.mount`.
    path: String,
    at: usize,
    covers: Range<usize>,
}

impl Place {
    /// Notes a key and everything in it, outer ones first.
    fn note(path: &str, key: &Range<usize>, value: &Spanned<DeValue<'_>>, places: &mut Vec<Self>) {
        let span = value.span();
        places.push(Self {
            path: path.to_owned(),
            at: key.start,
            covers: key.start.min(span.start)..key.end.max(span.end),
        });
        match value.get_ref() {
            DeValue::Table(table) => {
                for (key, value) in table {
                    let path = format!("{path}.{}", key.get_ref());
                    Self::note(&path, &key.span(), value, places);
                }
            }
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    Self::note(&format!("{path}.{index}"), &item.span(), item, places);
                }
            }
            _ => {}
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    1 + memchr::memchr_iter(b'\n', before).count()
}

/// From an error of serde's derived code, whose sentences are fixed.
fn from_serde(message: &str, path: &str) -> ConfigError {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown field `") {
        let key = quoted.next().unwrap_or_default();
        let error = ConfigError::new("there is no such option");
        let expected: Vec<_> = quoted.collect();
        let dashed = format!("--{}", key.replace('_', "-"));
        if let Some(hint) = foreign::hint(&dashed).filter(|_| !path.contains('.')) {
            return error.hint(hint);
        }
        return match nearest(key, expected.iter().copied()) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None if expected.len() < 10 => {
                error.hint(format!("known are `{}`", expected.join("`, `")))
            }
            None => error.hint("`twinspan --help` lists all options"),
        };
    }
    if message.starts_with("missing field `") {
        let key = quoted.next().unwrap_or_default();
        return ConfigError::new(format!("`{key}` is missing"));
    }
    if message.starts_with("unknown variant `") {
        let value = quoted.next().unwrap_or_default();
        let known: Vec<_> = quoted.collect();
        return one_of(value, &known);
    }
    if let Some((found, expected)) = message
        .strip_prefix("invalid type: ")
        .and_then(|rest| rest.split_once(", expected "))
    {
        let expected = match expected {
            "a sequence" => "a list",
            expected => expected,
        };
        return ConfigError::new(format!("expected {expected}, found {found}"));
    }
    ConfigError::from_text(message)
}

fn one_of(value: &str, known: &[&str]) -> ConfigError {
    let error = ConfigError::new(format!("`{value}` is none of `{}`", known.join("`, `")));
    match nearest(value, known.iter().copied()) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error,
    }
}

/// From an error of the command line's parser, in the form of all our errors.
pub(crate) fn from_clap(error: &clap::Error) -> ConfigError {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    // `--threads <N>`, `[APP]...`
    let shown = text(ContextKind::InvalidArg).unwrap_or_default();
    let word = shown.split([' ', '=']).next().unwrap_or_default();
    let option = match word.strip_prefix('[') {
        Some(positional) => positional
            .split_once(']')
            .map_or(positional, |(name, _)| name)
            .to_owned(),
        None => format!("`{word}`"),
    };
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let error = ConfigError::new("there is no such option").option(option);
            if let Some(hint) = foreign::hint(word) {
                return error.hint(hint);
            }
            let command = command();
            let flags: Vec<_> = command.get_arguments().filter_map(Arg::get_long).collect();
            match nearest(word.trim_start_matches('-'), flags) {
                Some(near) => error.hint(format!("did you mean `--{near}`?")),
                None => error.hint("`twinspan --help` lists all options"),
            }
        }
        ErrorKind::InvalidValue if value.is_empty() => {
            ConfigError::new("a value is missing").option(option)
        }
        ErrorKind::InvalidValue => {
            let known: Vec<_> = match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(known)) => known.iter().map(String::as_str).collect(),
                _ => Vec::new(),
            };
            one_of(value, &known).option(option)
        }
        ErrorKind::ValueValidation => match error.source() {
            Some(source) => ConfigError::from_text(&source.to_string()).option(option),
            None => ConfigError::new(format!("`{value}` is not valid")).option(option),
        },
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            ConfigError::new(line.strip_prefix("error: ").unwrap_or(line))
        }
    }
}
