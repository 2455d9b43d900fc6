//! `twinspan ctl`: rules of a server that runs are listed and changed.
//!
//! The server is found by its own configuration: where its admin endpoint is, and in which directory its
//! token lies. It decides; here its answers are put in words.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::{Ended, described};
use crate::admin::api::{RuleList, RuleView};
use crate::config::rule::Percent;
use crate::config::{self, Bind, ConfigError, Sources, nearest};
use crate::error::Exit;
use crate::migrate::live::{Change, Changed, Edit, RuleState};
use crate::migrate::state_dir::{TOKEN, read_token};

/// A change waits for those before it, and each of them for a silent worker and a slow disk.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// More is no answer of ours.
const MAX_ANSWER: usize = 16 << 20;
/// Where to say so is what these commands need of the configuration.
const OPTIONS: [&str; 3] = ["config", "admin", "state_dir"];

/// The word that makes a command line this one's.
pub const NAME: &str = "ctl";

const VERBS: [&str; 4] = ["list", "set", "rollback", "reset"];

const HELP: &str = "\
Lists and changes the rules of a server that runs.

Usage: twinspan ctl list [--json]
       twinspan ctl set RULE [canary=PERCENT] [shadow=PERCENT] [--dry-run]
       twinspan ctl rollback RULE [--reason TEXT] [--dry-run]
       twinspan ctl reset RULE [--dry-run]

A change counts on all workers or on none, at once and after a restart: the server
keeps it in its state directory. `rollback` takes a canary back to nothing, where it
stays until `reset`, which lets the configuration count again.

The server is found by its configuration (twinspan.toml, the environment, --config,
--admin, --state-dir). `twinspan ctl set --help` prints the options of a command.

Exit codes:
  1 the server did not make the change, or cannot be reached
  2 wrong configuration";

/// Runs the command line behind `twinspan ctl`.
pub fn run(
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: PathBuf,
) -> Ended {
    match answer(arguments, environment, directory) {
        Ok(text) => said(&text),
        Err(ended) => ended,
    }
}

fn answer(
    mut arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: PathBuf,
) -> Result<String, Ended> {
    if arguments.is_empty() {
        return Ok(HELP.into());
    }
    let word = arguments.remove(0);
    if word == "-h" || word == "--help" {
        return Ok(HELP.into());
    }
    let verb = VERBS.into_iter().find(|verb| word == *verb);
    let verb = verb.ok_or_else(|| unknown_verb(&word.to_string_lossy()))?;
    let matches = command(verb)
        .try_get_matches_from(arguments)
        .map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                said(error.to_string().trim_end())
            }
            _ => config::from_clap(&error).into(),
        })?;
    let wanted = Wanted::new(verb, &matches)?;
    let json = matches.get_flag("json");
    let sources = Sources {
        command_line: Some(matches),
        environment,
        directory: Some(directory),
        ..Sources::default()
    };
    let settings = config::load(&sources)?.values;
    let server = Server::new(settings.admin, settings.state_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(error.to_string()))?;
    runtime.block_on(wanted.ask(&server, json))
}

fn said(text: &str) -> Ended {
    Ended {
        text: text.trim_end().into(),
        exit: Exit::Success,
    }
}

/// The server has not done what it should.
fn failed(problem: impl AsRef<str>) -> Ended {
    Ended {
        text: format!("error: {}", problem.as_ref()),
        exit: Exit::Check,
    }
}

fn unknown_verb(word: &str) -> ConfigError {
    let hint = match nearest(word, VERBS) {
        Some(verb) => format!("did you mean `twinspan ctl {verb}`?"),
        None => format!("there are {}; options stand behind", VERBS.join(", ")),
    };
    ConfigError::new("there is no such command")
        .option(format!("`twinspan ctl {word}`"))
        .hint(hint)
}

fn command(verb: &'static str) -> Command {
    let (about, usage) = match verb {
        "list" => ("Prints all rules as they are now.", "twinspan ctl list"),
        "set" => (
            "Changes the shares of a rule.",
            "twinspan ctl set RULE [canary=PERCENT] [shadow=PERCENT]",
        ),
        "rollback" => (
            "Takes the canary of a rule back to nothing, until the rule is reset.",
            "twinspan ctl rollback RULE",
        ),
        _ => (
            "Lets the configuration count again, for one rule.",
            "twinspan ctl reset RULE",
        ),
    };
    let ids: Vec<_> = described()
        .get_arguments()
        .map(|arg| arg.get_id().to_string())
        .collect();
    let command = ids.into_iter().fold(described(), |command, id| {
        let shown = OPTIONS.contains(&id.as_str()) || id == "help";
        command.mut_arg(id.clone(), |arg| {
            // Operands are those of the command; applications concern the server.
            let arg = if id == "app" { arg.long("app") } else { arg };
            let hidden = !shown;
            arg.hide(hidden).help_heading("Options")
        })
    });
    let switch = |name, help| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .help(help)
            .help_heading("Options")
    };
    let command = command
        .about(about)
        .override_usage(format!("{usage} [OPTIONS]"))
        .arg(switch("json", "Prints the answer of the server as JSON"));
    if verb == "list" {
        return command;
    }
    let rule = Arg::new("rule").value_name("RULE");
    let command = command
        .arg(rule.help("Name of a rule, as `twinspan ctl list` prints it"))
        .arg(switch(
            "dry-run",
            "Prints what would be, and changes nothing",
        ));
    match verb {
        "set" => command.arg(
            Arg::new("shares")
                .value_name("POLICY=PERCENT")
                .num_args(0..)
                .help("`canary=25`, `shadow=10`; what is not named stays"),
        ),
        "rollback" => command.arg(
            Arg::new("reason")
                .long("reason")
                .value_name("TEXT")
                .help("What others shall read about it")
                .help_heading("Options"),
        ),
        _ => command,
    }
}

/// What is asked of the server.
enum Wanted {
    List,
    Change { change: Change, dry_run: bool },
}

impl Wanted {
    fn new(verb: &str, matches: &ArgMatches) -> Result<Self, ConfigError> {
        let text = |id| matches.get_one::<String>(id).cloned();
        let edit = match verb {
            "list" => return Ok(Self::List),
            "set" => {
                let shares = matches.get_many::<String>("shares").unwrap_or_default();
                set(shares.map(String::as_str))?
            }
            "rollback" => Edit::RollBack {
                reason: text("reason").unwrap_or_else(|| "by hand".into()),
            },
            _ => Edit::Reset,
        };
        let rule = text("rule").ok_or_else(|| {
            ConfigError::new("which rule?")
                .option(format!("`twinspan ctl {verb}`"))
                .hint("`twinspan ctl list` prints their names")
        })?;
        Ok(Self::Change {
            change: Change { rule, edit },
            dry_run: matches.get_flag("dry-run"),
        })
    }

    async fn ask(&self, server: &Server, json: bool) -> Result<String, Ended> {
        match self {
            Self::List => {
                let answer = server.ask(Method::GET, "/migrate/rules", None).await?;
                if json {
                    return pretty(&answer);
                }
                Ok(table(&understood(&answer)?))
            }
            Self::Change { change, dry_run } => {
                let target = if *dry_run {
                    "/migrate/change?dry_run=1"
                } else {
                    "/migrate/change"
                };
                let answer = server.ask(Method::POST, target, Some(change)).await?;
                if json {
                    return pretty(&answer);
                }
                Ok(sentence(&understood(&answer)?, *dry_run))
            }
        }
    }
}

/// Reads `canary=25`, `shadow=10`.
fn set<'a>(shares: impl Iterator<Item = &'a str>) -> Result<Edit, ConfigError> {
    let (mut canary, mut shadow) = (None, None);
    for share in shares {
        let wrong = |problem: &str| ConfigError::new(problem).option(format!("`{share}`"));
        let (policy, percent) = share.split_once('=').ok_or_else(|| {
            wrong("is no share").hint("write `canary=PERCENT` or `shadow=PERCENT`")
        })?;
        let place = match policy {
            "canary" => &mut canary,
            "shadow" => &mut shadow,
            _ => {
                let error = wrong("can have a percentage in the configuration only");
                return Err(error.hint("write `canary=PERCENT` or `shadow=PERCENT`"));
            }
        };
        let percent: Percent = percent.parse().map_err(|error: config::InvalidValue| {
            let hint = error.hint.unwrap_or_else(|| "write 0 to 100".into());
            wrong(&error.problem).hint(hint)
        })?;
        if place.replace(percent).is_some() {
            return Err(wrong("is said twice"));
        }
    }
    Ok(Edit::Set { canary, shadow })
}

/// The admin endpoint of a server.
struct Server {
    admin: Bind,
    state_dir: Option<PathBuf>,
}

impl Server {
    fn new(admin: Option<Bind>, state_dir: Option<PathBuf>) -> Result<Self, ConfigError> {
        let admin = admin.ok_or_else(|| {
            ConfigError::new("the configuration names no admin endpoint, by which rules are changed").hint(
                "add `admin = \"127.0.0.1:9000\"` (or `unix:PATH`) to twinspan.toml and restart the server, \
                 or say where it is: `--admin ADDRESS`",
            )
        })?;
        if matches!(admin, Bind::Tcp(address) if address.port() == 0) {
            return Err(
                ConfigError::new("0 is any free port, which nobody else knows")
                    .option("`admin`")
                    .hint("say which it is, as the server has printed it: `--admin ADDRESS`"),
            );
        }
        Ok(Self { admin, state_dir })
    }

    fn token(&self) -> Result<String, ConfigError> {
        let directory = self.state_dir.as_deref().ok_or_else(|| {
            ConfigError::new(
                "the configuration names no state directory, which holds the token that changes need",
            )
            .hint(
                "add `state_dir = \"DIRECTORY\"` to twinspan.toml and restart the server, or say where it is: \
                 `--state-dir DIRECTORY`",
            )
        })?;
        let path = directory.join(TOKEN);
        let unreadable = |problem: &str, hint: &str| {
            ConfigError::new(problem)
                .option(format!("`{}`", path.display()))
                .hint(hint)
        };
        match read_token(&path) {
            Ok(Some(token)) => Ok(token),
            Ok(None) => Err(unreadable(
                "is no token",
                "delete it and restart the server, which makes another",
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(unreadable(
                "is not there",
                "the server makes it when it starts with this `state_dir`",
            )),
            Err(error) => Err(unreadable(
                &format!("cannot be read: {error}"),
                "run this as the user of the server",
            )),
        }
    }

    /// The answer to one request, where it is a good one.
    async fn ask(
        &self,
        method: Method,
        target: &str,
        change: Option<&Change>,
    ) -> Result<Bytes, Ended> {
        let host = match &self.admin {
            Bind::Tcp(address) => address.to_string(),
            Bind::Unix(_) => "localhost".into(),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, host);
        let mut body = Bytes::new();
        if let Some(change) = change {
            let token = format!("Bearer {}", self.token()?);
            request = request
                .header(AUTHORIZATION, token)
                .header(CONTENT_TYPE, "application/json");
            body = serde_json::to_vec(change)
                .map_err(|error| failed(error.to_string()))?
                .into();
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| failed(error.to_string()))?;
        let answer = tokio::time::timeout(ANSWER_LIMIT, self.send(request));
        let (status, text) = answer.await.map_err(|_| self.silent())??;
        if status == StatusCode::OK {
            return Ok(text);
        }
        let problem: Refused = serde_json::from_slice(&text).map_err(|_| self.stranger())?;
        let hint = match status {
            StatusCode::FORBIDDEN if self.state_dir.is_some() => {
                "\nhint: is `state_dir` that of the server? Several servers have several tokens"
            }
            _ => "",
        };
        Err(failed(format!("{}{hint}", problem.error)))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Ended> {
        match &self.admin {
            Bind::Tcp(address) => {
                let stream = TcpStream::connect(address).await;
                self.exchange(stream, request).await
            }
            Bind::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                self.exchange(stream, request).await
            }
        }
    }

    async fn exchange<S>(
        &self,
        stream: std::io::Result<S>,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = stream.map_err(|error| self.unreachable(&error))?;
        let broken = |error: hyper::Error| {
            failed(format!(
                "the server at {} broke off: {error}\nhint: `twinspan ctl list` tells whether the change was made",
                self.admin
            ))
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        tokio::spawn(connection);
        let (head, body) = sender
            .send_request(request)
            .await
            .map_err(broken)?
            .into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|_| self.stranger())?;
        Ok((head.status, body.to_bytes()))
    }

    fn unreachable(&self, error: &std::io::Error) -> Ended {
        let hint = match error.kind() {
            std::io::ErrorKind::PermissionDenied => "run this as the user of the server",
            _ => "is the server running, and with this configuration?",
        };
        failed(format!(
            "nobody answers at {}: {error}\nhint: {hint}",
            self.admin
        ))
    }

    fn silent(&self) -> Ended {
        let limit = ANSWER_LIMIT.as_secs();
        failed(format!(
            "the server at {} did not answer within {limit} s\nhint: `twinspan ctl list` tells whether the change \
             was made",
            self.admin
        ))
    }

    fn stranger(&self) -> Ended {
        failed(format!(
            "what answers at {} is no twinspan of this version",
            self.admin
        ))
    }
}

/// What an endpoint answers that does not do what was asked.
#[derive(serde::Deserialize)]
struct Refused {
    error: String,
}

fn understood<T: DeserializeOwned>(answer: &[u8]) -> Result<T, Ended> {
    serde_json::from_slice(answer).map_err(|error| {
        failed(format!(
            "the answer of the server is not understood: {error}"
        ))
    })
}

fn pretty(answer: &[u8]) -> Result<String, Ended> {
    let value: serde_json::Value = understood(answer)?;
    Ok(format!("{value:#}"))
}

/// ``rule `items`: canary 10 % -> 25 %; version 3, on 2 workers``
fn sentence(changed: &Changed, dry_run: bool) -> String {
    let record = &changed.record;
    let mut parts = Vec::new();
    if let (Some(was), Some(is)) = (&record.was, &record.is) {
        for (policy, was, is) in [
            ("canary", was.canary, is.canary),
            ("shadow", was.shadow, is.shadow),
        ] {
            if let (Some(was), Some(is)) = (was, is)
                && was != is
            {
                parts.push(format!("{policy} {was} % -> {is} %"));
            }
        }
        match (&was.rolled_back, &is.rolled_back) {
            (None, Some(latch)) => parts.push(format!("rolled back ({})", latch.reason)),
            (Some(_), None) => parts.push("no longer rolled back".into()),
            _ => {}
        }
    }
    if parts.is_empty() {
        parts.push("as before".into());
    }
    let (rule, parts) = (&record.rule, parts.join(", "));
    let workers = match changed.workers {
        1 => "1 worker".into(),
        count => format!("{count} workers"),
    };
    if dry_run {
        format!("rule `{rule}` would be: {parts}, on {workers}; nothing was changed")
    } else {
        format!(
            "rule `{rule}`: {parts}; version {}, on {workers}",
            record.version
        )
    }
}

fn table(list: &RuleList) -> String {
    let mut rows = vec![["RULE", "APP", "CANARY", "SHADOW", "MATCHES", ""].map(String::from)];
    rows.extend(list.rules.iter().map(row));
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..6).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let _ = write!(text, "\nversion {}", list.version);
    text
}

fn row(rule: &RuleView) -> [String; 6] {
    let share = |share: Option<Percent>| share.map_or("-".into(), |share| format!("{share} %"));
    [
        rule.name.clone(),
        rule.app.clone(),
        share(rule.now.canary),
        share(rule.now.shadow),
        rule.matches.clone(),
        note(&rule.now, &rule.configured, &rule.origin),
    ]
}

/// Where the configuration does not count.
fn note(now: &RuleState, configured: &RuleState, origin: &str) -> String {
    let shares = [
        ("canary", now.canary, configured.canary),
        ("shadow", now.shadow, configured.shadow),
    ];
    let written: Vec<_> = shares
        .into_iter()
        .filter(|(_, now, configured)| now != configured)
        .filter_map(|(policy, _, configured)| Some(format!("{policy} {} %", configured?)))
        .collect();
    let mut parts = Vec::new();
    if let Some(latch) = &now.rolled_back {
        parts.push(format!(
            "rolled back from {} %: {}",
            latch.from, latch.reason
        ));
    }
    if !written.is_empty() {
        parts.push(format!("{origin} says {}", written.join(", ")));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::live::{Author, Record, RolledBack};

    fn run(line: &str) -> Ended {
        let words = line.split_whitespace().map(OsString::from).collect();
        // A directory without files of ours.
        super::run(words, Vec::new(), PathBuf::from("/"))
    }

    fn percent(text: &str) -> Percent {
        text.parse().unwrap()
    }

    fn state(canary: &str, shadow: &str) -> RuleState {
        RuleState {
            canary: Some(percent(canary)),
            shadow: Some(percent(shadow)),
            rolled_back: None,
        }
    }

    fn rolled_back(shadow: &str) -> RuleState {
        RuleState {
            rolled_back: Some(RolledBack {
                at: 0,
                reason: "too slow".into(),
                from: percent("25"),
            }),
            ..state("0", shadow)
        }
    }

    #[test]
    fn a_line_that_cannot_be_meant_is_refused_with_the_way_out() {
        for (line, text) in [
            (
                "lits",
                "error: `twinspan ctl lits`: there is no such command\nhint: did you mean `twinspan ctl list`?",
            ),
            (
                "--json list",
                "error: `twinspan ctl --json`: there is no such command\n\
                 hint: there are list, set, rollback, reset; options stand behind",
            ),
            (
                "rollback --reason slow",
                "error: `twinspan ctl rollback`: which rule?\nhint: `twinspan ctl list` prints their names",
            ),
            (
                "set items canary",
                "error: `canary`: is no share\nhint: write `canary=PERCENT` or `shadow=PERCENT`",
            ),
            (
                "set items canary=101",
                "error: `canary=101`: `101` is not between 0 and 100 percent\nhint: write 0 to 100",
            ),
            (
                "set items canary=1 canary=2",
                "error: `canary=2`: is said twice",
            ),
            (
                "set items threads=2",
                "error: `threads=2`: can have a percentage in the configuration only\n\
                 hint: write `canary=PERCENT` or `shadow=PERCENT`",
            ),
            (
                "list",
                "error: the configuration names no admin endpoint, by which rules are changed\n\
                 hint: add `admin = \"127.0.0.1:9000\"` (or `unix:PATH`) to twinspan.toml and restart the server, \
                 or say where it is: `--admin ADDRESS`",
            ),
            (
                "list --admin 127.0.0.1:0",
                "error: `admin`: 0 is any free port, which nobody else knows\n\
                 hint: say which it is, as the server has printed it: `--admin ADDRESS`",
            ),
            (
                "reset items --admin unix:/nowhere",
                "error: the configuration names no state directory, which holds the token that changes need\n\
                 hint: add `state_dir = \"DIRECTORY\"` to twinspan.toml and restart the server, or say where it is: \
                 `--state-dir DIRECTORY`",
            ),
            (
                "reset items --admin unix:/nowhere --state-dir /nowhere",
                "error: `/nowhere/admin-token`: is not there\n\
                 hint: the server makes it when it starts with this `state_dir`",
            ),
        ] {
            let ended = run(line);
            assert_eq!(
                (ended.text.as_str(), ended.exit),
                (text, Exit::Configuration),
                "{line}"
            );
        }
    }

    #[test]
    fn a_server_that_is_not_there_is_named() {
        let ended = run("list --admin unix:/nowhere");
        assert_eq!(ended.exit, Exit::Check);
        assert!(
            ended
                .text
                .starts_with("error: nobody answers at unix:/nowhere: "),
            "{}",
            ended.text
        );
    }

    #[test]
    fn help_shows_what_these_commands_take_and_nothing_of_the_server() {
        for line in ["", "--help", "set --help", "rollback -h"] {
            let help = run(line);
            assert_eq!(help.exit, Exit::Success, "{line}");
            assert!(help.text.contains("twinspan ctl"), "{}", help.text);
            assert!(!help.text.contains("--threads"), "{}", help.text);
        }
        assert!(run("set --help").text.contains("--state-dir"));
    }

    #[test]
    fn a_change_is_one_sentence() {
        let changed = |was: RuleState, is: RuleState, workers| Changed {
            workers,
            record: Record {
                at: 0,
                version: 3,
                author: Author::Operator { uid: None },
                rule: "items".into(),
                was: Some(was),
                is: Some(is),
                reason: None,
            },
        };
        for (changed, dry_run, text) in [
            (
                changed(state("10", "5"), state("25", "5"), 2),
                false,
                "rule `items`: canary 10 % -> 25 %; version 3, on 2 workers",
            ),
            (
                changed(state("10", "5"), state("25", "0"), 1),
                true,
                "rule `items` would be: canary 10 % -> 25 %, shadow 5 % -> 0 %, on 1 worker; nothing was changed",
            ),
            (
                changed(state("25", "5"), rolled_back("5"), 2),
                false,
                "rule `items`: canary 25 % -> 0 %, rolled back (too slow); version 3, on 2 workers",
            ),
            (
                changed(rolled_back("5"), state("10", "5"), 2),
                false,
                "rule `items`: canary 0 % -> 10 %, no longer rolled back; version 3, on 2 workers",
            ),
            (
                changed(state("10", "5"), state("10", "5"), 0),
                false,
                "rule `items`: as before; version 3, on 0 workers",
            ),
        ] {
            assert_eq!(sentence(&changed, dry_run), text);
        }
    }

    #[test]
    fn rules_are_listed_with_what_the_configuration_says() {
        let rule = |name: &str, now: RuleState, configured: RuleState| RuleView {
            name: name.into(),
            origin: "twinspan.toml:9".into(),
            app: "new".into(),
            matches: "owned by new".into(),
            now,
            configured,
        };
        let list = RuleList {
            version: 7,
            rules: vec![
                rule("items", state("25", "5"), state("10", "5")),
                rule("orders", rolled_back("5"), state("25", "0")),
                rule("catch-all", RuleState::default(), RuleState::default()),
            ],
        };
        assert_eq!(
            table(&list),
            "RULE       APP  CANARY  SHADOW  MATCHES\n\
             items      new  25 %    5 %     owned by new  twinspan.toml:9 says canary 10 %\n\
             orders     new  0 %     5 %     owned by new  rolled back from 25 %: too slow; twinspan.toml:9 says \
             canary 25 %, shadow 0 %\n\
             catch-all  new  -       -       owned by new\n\n\
             version 7"
        );
    }
}
