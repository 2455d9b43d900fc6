//! From sources to [`Config`], as users meet it.

use std::ffi::OsString;

use super::load::from_clap;
use super::*;

/// Sources as a test writes them: a command line of words, variables, and a file in a directory of its own.
#[derive(Default)]
struct Case<'a> {
    line: &'a str,
    variables: &'a [(&'a str, &'a str)],
    files: &'a [(&'a str, &'a str)],
    arguments: &'a str,
}

impl Case<'_> {
    fn settings(&self) -> Result<Settings, ConfigError> {
        let directory = Directory::new(self.files);
        let matches = command()
            .no_binary_name(true)
            .try_get_matches_from(self.line.split_whitespace())
            .map_err(|error| from_clap(&error))?;
        let arguments = match self.arguments {
            "" => serde_json::Map::new(),
            json => serde_json::from_str(json).unwrap(),
        };
        load(&Sources {
            command_line: Some(matches),
            environment: self
                .variables
                .iter()
                .map(|(name, value)| (OsString::from(name), OsString::from(value)))
                .collect(),
            directory: directory.0.clone(),
            arguments,
        })
    }

    fn config(&self) -> Result<Config, ConfigError> {
        Config::new(&self.settings()?)
    }

    fn error(&self) -> String {
        self.config().unwrap_err().to_string()
    }
}

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(files: &[(&str, &str)]) -> Self {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "twinspan-config-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        for (name, text) in files {
            std::fs::write(path.join(name), text).unwrap();
        }
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn line(line: &str) -> Result<Config, ConfigError> {
    Case {
        line,
        ..Case::default()
    }
    .config()
}

fn line_error(text: &str) -> String {
    line(text).unwrap_err().to_string()
}

fn file(text: &str) -> Result<Config, ConfigError> {
    Case {
        files: &[("twinspan.toml", text)],
        ..Case::default()
    }
    .config()
}

fn file_error(text: &str) -> String {
    file(text).unwrap_err().to_string()
}

fn rules(config: &Config) -> Vec<(&str, RuleMatch)> {
    config
        .rules
        .iter()
        .map(|rule| (rule.app.as_str(), rule.matches.clone()))
        .collect()
}

fn mount(prefix: &str) -> RuleMatch {
    RuleMatch::Mount(prefix.into())
}

// Defaults

#[test]
fn one_application_answers_everything_with_every_default() {
    let config = line("shop:app").unwrap();
    assert_eq!(rules(&config), [("shop", mount(""))]);
    let expected = Config {
        apps: vec![AppConfig::new("shop".into(), "shop:app".parse().unwrap())],
        rules: config.rules.clone(),
        ..Config::default()
    };
    assert_eq!(config, expected);
}

#[test]
fn the_default_that_an_option_documents_is_the_one_it_has() {
    let mut documented = 0;
    for arg in command().get_arguments() {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let Some((_, default)) = help.split_once("[default: ") else {
            continue;
        };
        let default = default.strip_suffix(']').unwrap();
        let id = arg.get_id().as_str();
        let said = match default {
            "on" => format!("--{}", id.replace('_', "-")),
            "off" => format!("--no-{}", id.replace('_', "-")),
            value => format!("--{}={value}", id.replace('_', "-")),
        };
        let config = line(&format!("shop:app {said}")).unwrap();
        assert_eq!(config, line("shop:app").unwrap(), "{said}");
        documented += 1;
    }
    assert!(documented > 20);
}

#[test]
fn every_option_changes_something_and_is_documented() {
    for arg in command().get_arguments() {
        let id = arg.get_id().as_str();
        if matches!(id, "app" | "config") || id.starts_with("no-") {
            continue;
        }
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        assert!(!help.is_empty(), "--{id} is not documented");
        assert!(arg.get_help_heading().is_some(), "--{id} has no heading");
        let flag = id.replace('_', "-");
        let candidates = [
            format!("--{flag}"),
            format!("--no-{flag}"),
            format!("--{flag}=9999"),
            format!("--{flag}=/elsewhere"),
            format!("--{flag}=/elsewhere=other:app"),
            format!("--{flag}=127.0.0.2"),
            format!("--{flag}=off"),
            format!("--{flag}=asyncio"),
            format!("--{flag}=error"),
        ];
        let plain = line("shop:app").unwrap();
        let changes =
            |said: &String| line(&format!("shop:app {said}")).is_ok_and(|config| config != plain);
        assert!(candidates.iter().any(changes), "--{flag} does nothing");
    }
}

// The command line

#[test]
fn several_applications_own_their_routes_and_the_last_has_the_rest() {
    let config = line("new.main:app middle:app legacy.wsgi:application").unwrap();
    assert_eq!(
        rules(&config),
        [
            ("new", RuleMatch::Owned),
            ("middle", RuleMatch::Owned),
            ("legacy", mount(""))
        ]
    );
    let names: Vec<_> = config.apps.iter().map(|app| app.name.as_str()).collect();
    assert_eq!(names, ["new", "middle", "legacy"]);
}

#[test]
fn mounts_come_before_applications_and_the_longest_prefix_first() {
    let config =
        line("--mount /a=one:app --mount /a/b=two:app --mount /b/=three:app rest:app").unwrap();
    assert_eq!(
        rules(&config),
        [
            ("two", mount("/a/b")),
            ("one", mount("/a")),
            ("three", mount("/b")),
            ("rest", mount(""))
        ]
    );
    let origins: Vec<_> = config
        .rules
        .iter()
        .map(|rule| rule.origin.as_str())
        .collect();
    assert_eq!(origins, ["--mount", "--mount", "--mount", "APP"]);
}

#[test]
fn one_target_under_two_mounts_is_one_application() {
    let config = line("--mount /a=shop:app --mount /b=shop:app").unwrap();
    assert_eq!(
        rules(&config),
        [("shop", mount("/a")), ("shop", mount("/b"))]
    );
    assert_eq!(config.apps.len(), 1);
}

#[test]
fn names_are_as_short_as_they_can_be_and_distinct() {
    for (targets, names) in [
        ("shop.api:app legacy:app", ["shop", "legacy"]),
        ("shop.api:app shop.legacy:app", ["shop.api", "shop.legacy"]),
        ("shop:api shop:legacy", ["shop:api", "shop:legacy"]),
        ("shop:make shop:make()", ["shop:make", "shop:make()"]),
        ("shop shop:app", ["shop", "shop:app"]),
    ] {
        let config = line(targets).unwrap();
        let found: Vec<_> = config.apps.iter().map(|app| app.name.as_str()).collect();
        assert_eq!(found, names, "{targets}");
    }
}

#[test]
fn switches_have_a_negative_and_the_last_word_counts() {
    assert!(!line("a:app --no-access-log").unwrap().access_log);
    assert!(
        line("a:app --no-access-log --access-log")
            .unwrap()
            .access_log
    );
    assert!(
        !line("a:app --access-log --no-access-log")
            .unwrap()
            .access_log
    );
    assert!(line("a:app --server-header").unwrap().server_header);
    assert_eq!(line("a:app --workers 2 -w 3").unwrap().workers, 3);
}

#[test]
fn every_way_to_say_where_to_listen_is_understood() {
    for (said, binds) in [
        ("", "127.0.0.1:8000"),
        ("--port 0", "127.0.0.1:0"),
        ("--host 0.0.0.0", "0.0.0.0:8000"),
        ("--host ::1 --port 81", "[::1]:81"),
        ("--uds run.sock", "unix:run.sock"),
        ("-b :80 --bind [::1]:81", "0.0.0.0:80 [::1]:81"),
        ("-b 80,unix:x", "127.0.0.1:80 unix:x"),
        ("-b :0 -b :0", "0.0.0.0:0 0.0.0.0:0"),
    ] {
        let config = line(&format!("a:app {said}")).unwrap();
        let found: Vec<_> = config.binds.iter().map(ToString::to_string).collect();
        assert_eq!(found.join(" "), binds, "{said}");
    }
}

#[test]
fn proxies_are_trusted_as_said() {
    let trusted = |said: &str| line(&format!("a:app {said}")).unwrap().forwarded;
    let nobody = ForwardedConfig {
        networks: Vec::new(),
        everyone: false,
        unix: false,
    };
    assert_eq!(trusted("--no-proxy-headers"), nobody);
    assert_eq!(
        trusted("--no-proxy-headers --forwarded-allow-ips *"),
        nobody
    );
    assert!(trusted("--forwarded-allow-ips *").everyone);
    assert_eq!(
        trusted("--forwarded-allow-ips 10.0.0.0/8,unix,::1"),
        ForwardedConfig {
            networks: vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            everyone: false,
            unix: true,
        }
    );
}

#[test]
fn zero_switches_pings_off() {
    let limits = line("a:app --ws-ping-interval 0 --ws-ping-timeout 0")
        .unwrap()
        .limits;
    assert_eq!(limits.websocket_ping_interval, None);
    assert_eq!(limits.websocket_ping_timeout, None);
}

#[test]
fn a_wrong_command_line_says_what_to_write() {
    for (said, error) in [
        (
            "",
            "error: no application is named\n\
              hint: name one, `twinspan module:app`, or describe them in twinspan.toml",
        ),
        (
            "a:app --thread 4",
            "error: `--thread`: there is no such option\nhint: did you mean `--threads`?",
        ),
        (
            "a:app --no-acces-log",
            "error: `--no-acces-log`: there is no such option\nhint: did you mean `--no-access-log`?",
        ),
        (
            "a:app --colour",
            "error: `--colour`: there is no such option\nhint: `twinspan --help` lists all options",
        ),
        (
            "a:app --worker-class=gthread",
            "error: `--worker-class`: there is no such option\n\
              hint: delete it: whether an application is WSGI or ASGI is seen from the application",
        ),
        (
            "a:app -k gthread",
            "error: `-k`: there is no such option\n\
              hint: delete it: whether an application is WSGI or ASGI is seen from the application",
        ),
        ("a:app --threads", "error: `--threads`: a value is missing"),
        (
            "a:app --threads=many",
            "error: `--threads`: `many` is not a whole number",
        ),
        (
            "a:app --threads 0",
            "error: `--threads`: 0 is too few\nhint: write at least 1",
        ),
        (
            "a:app --backlog 70000",
            "error: `--backlog`: 70000 is out of range\nhint: write 1 to 65535",
        ),
        (
            "a:app --port 70000",
            "error: `--port`: 70000 is out of range\nhint: write 0 to 65535",
        ),
        (
            "a:app --limit-head-size 10",
            "error: `--limit-head-size`: 10 is out of range\nhint: write 8192 to 1048576",
        ),
        (
            "a:app --timeout-startup 0",
            "error: `--timeout-startup`: 0 seconds leave no time at all\nhint: the default is 60",
        ),
        (
            "a:app --lifespan onn",
            "error: `--lifespan`: `onn` is none of `auto`, `on`, `off`\nhint: did you mean `on`?",
        ),
        (
            "a:app --access-log=x",
            "error: unexpected value 'x' for '--access-log' found; no more were expected",
        ),
        (
            "shop/main.py",
            "error: APP: `shop/main.py` is a file, not a module\nhint: write `shop.main:app`",
        ),
        ("a:app a:app", "error: APP: `a:app` is named twice"),
        (
            "--mount /api a:app",
            "error: `--mount`: `/api` does not say what is mounted where\nhint: write `/prefix=module:attr`",
        ),
        (
            "--mount /api=a:app --mount /api/=b:app",
            "error: mount `/api` (--mount): `b` would never be asked: `a` (--mount) has this place already\n\
          hint: give each application a place of its own",
        ),
        (
            "--mount /=a:app b:app",
            "error: mount `/` (APP): `b` would never be asked: `a` (--mount) has this place already\n\
          hint: give each application a place of its own",
        ),
        (
            "a:app -b :80 -b 0.0.0.0:80",
            "error: `--bind`: `0.0.0.0:80` is named twice",
        ),
        (
            "a:app -b :80 --port 81",
            "error: `--port`: says where to listen, and so does `--bind`\n\
          hint: keep one; `--bind` may be repeated and takes every kind of address",
        ),
        (
            "a:app --host example.org",
            "error: `--host`: `example.org` is not an IP address\n\
          hint: write `127.0.0.1`, `::1`, or `0.0.0.0` for every IPv4 interface",
        ),
        (
            "a:app --admin :9000",
            "error: `--admin`: `0.0.0.0:9000` can be reached from other machines\n\
          hint: write `127.0.0.1:9000` or `unix:/path/to/socket`; to let others in, put a proxy with access rules in front",
        ),
        (
            "a:app --forwarded-allow-ips proxy",
            "error: `--forwarded-allow-ips`: `proxy` is neither an IP address nor a network\n\
          hint: write `10.0.0.7`, `10.0.0.0/8`, `unix` for unix sockets or `*` for everyone",
        ),
        (
            "a:app --config nowhere.toml",
            "error: `nowhere.toml`: cannot be read: No such file or directory (os error 2)",
        ),
        (
            "a:app -c gunicorn.conf.py",
            "error: `gunicorn.conf.py`: a configuration in Python is not run\n\
          hint: write the settings into twinspan.toml",
        ),
    ] {
        assert_eq!(line_error(said), error, "{said}");
    }
}

// Files

const STRANGLER: &str = r#"
workers = 2
access-log = false

[apps.new]
app = "api.main:app"
lifespan = "on"

[apps.legacy]
app = "legacy.wsgi:app"
threads = 40
queue = 7
router = "legacy.urls:router"

[[routes]]
app = "legacy"
path = "/healthz"

[[routes]]
app = "new"
when = "owned"

[[routes]]
app = "new"
mount = "/api/"

[[routes]]
app = "legacy"
"#;

#[test]
fn a_file_says_which_application_answers_what() {
    let config = file(STRANGLER).unwrap();
    assert_eq!(config.workers, 2);
    assert!(!config.access_log);
    let legacy = AppConfig {
        threads: 40,
        queue: 7,
        router: Some("legacy.urls:router".parse().unwrap()),
        ..AppConfig::new("legacy".into(), "legacy.wsgi:app".parse().unwrap())
    };
    let new = AppConfig {
        lifespan: LifespanMode::On,
        ..AppConfig::new("new".into(), "api.main:app".parse().unwrap())
    };
    assert_eq!(config.apps, [new, legacy], "in the order of the file");
    assert_eq!(
        rules(&config),
        [
            ("legacy", RuleMatch::Path("/healthz".into())),
            ("new", RuleMatch::Owned),
            ("new", mount("/api")),
            ("legacy", mount("")),
        ]
    );
    let origins: Vec<_> = config
        .rules
        .iter()
        .map(|rule| rule.origin.as_str())
        .collect();
    assert_eq!(
        origins,
        [
            "twinspan.toml:15",
            "twinspan.toml:19",
            "twinspan.toml:23",
            "twinspan.toml:27"
        ]
    );
}
