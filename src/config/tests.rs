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
            directory: Some(directory.0.clone()),
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
    RuleMatch::mount(prefix)
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
            ("new", RuleMatch::owned()),
            ("middle", RuleMatch::owned()),
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
    let compression = |said: &str| line(said).unwrap().limits.websocket_compression;
    assert!(compression("a:app"));
    assert!(!compression("a:app --no-ws-compression"));
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
            "no application is named\n\
              hint: name one, `twinspan module:app`, or describe them in twinspan.toml",
        ),
        (
            "a:app --thread 4",
            "`--thread`: there is no such option\nhint: did you mean `--threads`?",
        ),
        (
            "a:app --no-acces-log",
            "`--no-acces-log`: there is no such option\nhint: did you mean `--no-access-log`?",
        ),
        (
            "a:app --colour",
            "`--colour`: there is no such option\nhint: `twinspan --help` lists all options",
        ),
        (
            "a:app --worker-class=gthread",
            "`--worker-class`: there is no such option\n\
              hint: delete it: whether an application is WSGI or ASGI is seen from the application",
        ),
        (
            "a:app -k gthread",
            "`-k`: there is no such option\n\
              hint: delete it: whether an application is WSGI or ASGI is seen from the application",
        ),
        ("a:app --threads", "`--threads`: a value is missing"),
        (
            "a:app --threads=many",
            "`--threads`: `many` is not a whole number",
        ),
        (
            "a:app --threads 0",
            "`--threads`: 0 is too few\nhint: write at least 1",
        ),
        (
            "a:app --backlog 70000",
            "`--backlog`: 70000 is out of range\nhint: write 1 to 65535",
        ),
        (
            "a:app --port 70000",
            "`--port`: 70000 is out of range\nhint: write 0 to 65535",
        ),
        (
            "a:app --limit-head-size 10",
            "`--limit-head-size`: 10 is out of range\nhint: write 8192 to 1048576",
        ),
        (
            "a:app --timeout-startup 0",
            "`--timeout-startup`: 0 seconds leave no time at all\nhint: the default is 60",
        ),
        (
            "a:app --lifespan onn",
            "`--lifespan`: `onn` is none of `auto`, `on`, `off`, `required`\nhint: did you mean `on`?",
        ),
        (
            "a:app --loop uvlop",
            "`--loop`: `uvlop` is none of `auto`, `asyncio`, `uvloop`, and no `module:attr`\n\
             hint: did you mean `uvloop`?",
        ),
        (
            "a:app --loop rloop",
            "`--loop`: `rloop` is none of `auto`, `asyncio`, `uvloop`, and no `module:attr`\n\
             hint: did you mean `uvloop`?",
        ),
        (
            "a:app --loop trio",
            "`--loop`: `trio` is none of `auto`, `asyncio`, `uvloop`, and no `module:attr`\n\
             hint: another loop is named by what makes it: `rloop:new_event_loop`",
        ),
        (
            "a:app --loop rloop:new_event_loop()",
            "`--loop`: `rloop:new_event_loop()` has parentheses\n\
             hint: it is called anyway: write `rloop:new_event_loop`",
        ),
        (
            "a:app --loop rloop:",
            "`--loop`: `rloop:` names no attribute after the colon\n\
             hint: another loop is named by what makes it: `rloop:new_event_loop`",
        ),
        (
            "a:app --timeout-shutdown 0",
            "`--timeout-shutdown`: 0 seconds leave no time at all\nhint: the default is 10",
        ),
        (
            "a:app --access-log=x",
            "unexpected value 'x' for '--access-log' found; no more were expected",
        ),
        (
            "shop/main.py",
            "APP: `shop/main.py` is a file, not a module\nhint: write `shop.main:app`",
        ),
        ("a:app a:app", "APP: `a:app` is named twice"),
        (
            "--mount /api a:app",
            "`--mount`: `/api` does not say what is mounted where\nhint: write `/prefix=module:attr`",
        ),
        (
            "--mount /api=a:app --mount /api/=b:app",
            "mount `/api` (--mount): `b` would never be asked: `a` (--mount) has this place already\n\
          hint: give each application a place of its own",
        ),
        (
            "--mount /=a:app b:app",
            "mount `/` (APP): `b` would never be asked: `a` (--mount) has this place already\n\
          hint: give each application a place of its own",
        ),
        (
            "a:app -b :80 -b 0.0.0.0:80",
            "`--bind`: `0.0.0.0:80` is named twice",
        ),
        (
            "a:app -b :80 --port 81",
            "`--port`: says where to listen, and so does `--bind`\n\
          hint: keep one; `--bind` may be repeated and takes every kind of address",
        ),
        (
            "a:app --host example.org",
            "`--host`: `example.org` is not an IP address\n\
          hint: write `127.0.0.1`, `::1`, or `0.0.0.0` for every IPv4 interface",
        ),
        (
            "a:app --admin :9000",
            "`--admin`: `0.0.0.0:9000` can be reached from other machines\n\
          hint: write `127.0.0.1:9000` or `unix:/path/to/socket`; to let others in, put a proxy with access rules in front",
        ),
        (
            "a:app --forwarded-allow-ips proxy",
            "`--forwarded-allow-ips`: `proxy` is neither an IP address nor a network\n\
          hint: write `10.0.0.7`, `10.0.0.0/8`, `unix` for unix sockets or `*` for everyone",
        ),
        (
            "a:app --config nowhere.toml",
            "`nowhere.toml`: cannot be read: No such file or directory (os error 2)",
        ),
        (
            "a:app -c gunicorn.conf.py",
            "`gunicorn.conf.py`: a configuration in Python is not run\n\
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
lifespan = "required"
timeout_startup = 90
timeout_shutdown = 2.5

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
fn one_application_at_most_is_said_to_be_the_one_to_migrate_from() {
    let said = |new: &str, legacy: &str| {
        let text = format!(
            "[apps.new]\napp = \"new:app\"\n{new}\n[apps.legacy]\napp = \"legacy:app\"\n{legacy}\n\
             [[routes]]\napp = \"new\"\nwhen = \"owned\"\n[[routes]]\napp = \"legacy\"\n"
        );
        let config = file(&text)?;
        let said = config.rules.iter().map(|rule| rule.legacy);
        Ok::<_, ConfigError>(said.collect::<Vec<_>>())
    };
    assert_eq!(said("", "").unwrap(), [None, None]);
    assert_eq!(
        said("legacy = false", "legacy = true").unwrap(),
        [Some(false), Some(true)]
    );
    let error = said("legacy = true", "legacy = true").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`apps.legacy.legacy` (twinspan.toml:6): is true, and so is that of `new`\n\
         hint: one application is migrated from; keep `legacy = true` there"
    );
}

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
        lifespan: LifespanMode::Required,
        timeout_startup: Duration::from_secs(90),
        timeout_shutdown: Duration::from_millis(2500),
        ..AppConfig::new("new".into(), "api.main:app".parse().unwrap())
    };
    assert_eq!(config.apps, [new, legacy], "in the order of the file");
    assert_eq!(
        rules(&config),
        [
            ("legacy", RuleMatch::path("/healthz")),
            ("new", RuleMatch::owned()),
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
            "twinspan.toml:17",
            "twinspan.toml:21",
            "twinspan.toml:25",
            "twinspan.toml:29"
        ]
    );
}

#[test]
fn one_application_in_a_file_needs_no_routes() {
    for text in [
        "app = \"shop:app\"",
        "app = [\"shop:app\"]",
        "[apps.shop]\napp = \"shop:app\"",
    ] {
        let config = file(text).unwrap();
        assert_eq!(rules(&config), [("shop", mount(""))]);
    }
}

#[test]
fn lists_in_a_file_are_one_text_or_several() {
    for text in [
        "bind = \":80,unix:x\"",
        "bind = [\":80\", \"unix:x\"]",
        "bind = \":80, unix:x\"",
    ] {
        let config = file(&format!("app = \"a:app\"\n{text}")).unwrap();
        let found: Vec<_> = config.binds.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["0.0.0.0:80", "unix:x"]);
    }
}

#[test]
fn a_wrong_file_is_shown_with_its_line() {
    for (text, error) in [
        (
            "\n\nthreads = \"many\"",
            "`threads` (twinspan.toml:3): expected a whole number, found string \"many\"",
        ),
        (
            "app = \"a:app\"\nthreads = 0",
            "`threads` (twinspan.toml:2): 0 is too few\nhint: write at least 1",
        ),
        (
            "workers = -2",
            "`workers` (twinspan.toml:1): `-2` is below 0",
        ),
        (
            "timeout_keep_alive = \"5s\"",
            "`timeout_keep_alive` (twinspan.toml:1): expected a number of seconds, found string \"5s\"",
        ),
        (
            "# none\ntreads = 4",
            "`treads` (twinspan.toml:2): there is no such option\nhint: did you mean `threads`?",
        ),
        (
            "colour = 4",
            "`colour` (twinspan.toml:1): there is no such option\nhint: `twinspan --help` lists all options",
        ),
        (
            "reload = true",
            "`reload` (twinspan.toml:1): there is no such option\n\
             hint: delete it: code is not watched; SIGHUP loads it anew without losing a request",
        ),
        (
            "config = \"other.toml\"",
            "`config` (twinspan.toml:1): a file cannot name another one\nhint: delete the line",
        ),
        (
            "access_log = true\naccess-log = false",
            "`access-log` (twinspan.toml:2): is set twice",
        ),
        (
            "bind = [\n  \":80\",\n  \"nowhere\",\n]",
            "`bind.1` (twinspan.toml:3): `nowhere` has no port\nhint: write `127.0.0.1:8000`, `[::1]:8000`, \
             `:8000` (every IPv4 interface), `8000` (127.0.0.1) or `unix:/path/to/socket`",
        ),
        (
            "bind = 8000",
            "`bind` (twinspan.toml:1): expected a string or a list of strings, found integer `8000`",
        ),
        (
            "lifespan = \"yes\"",
            "`lifespan` (twinspan.toml:1): `yes` is none of `auto`, `on`, `off`, `required`",
        ),
        (
            "threads = ",
            "twinspan.toml:1: invalid toml: string values must be quoted, expected literal string",
        ),
        (
            "[apps.a]\napp = \"a:app\"\nthread = 4",
            "`apps.a.thread` (twinspan.toml:3): there is no such option\nhint: did you mean `threads`?",
        ),
        (
            "[apps]\na = \"a:app\"",
            "`apps.a` (twinspan.toml:2): expected a table with `app`, found string \"a:app\"",
        ),
        (
            "routes = 3",
            "`routes` (twinspan.toml:1): expected a list, found integer `3`",
        ),
        (
            "[apps.a]\nthreads = 4",
            "`apps.a` (twinspan.toml:1): `app` is missing",
        ),
        (
            "[apps.a]\napp = \"a:app\"\nqueue = 1.5",
            "`apps.a.queue` (twinspan.toml:3): expected a whole number, found floating point `1.5`",
        ),
        (
            "[apps.a]\napp = \"a:app\"\nthreads = 0",
            "`apps.a.threads` (twinspan.toml:3): 0 is too few\nhint: write at least 1",
        ),
        (
            "[apps.legacy]\napp = \"a:app\"\n[[routes]]\n\napp = \"legcy\"",
            "`routes.0.app` (twinspan.toml:5): there is no application `legcy`\nhint: did you mean `legacy`?",
        ),
        (
            "[apps.a]\napp = \"a:app\"\n[[routes]]\napp = \"b\"",
            "`routes.0.app` (twinspan.toml:4): there is no application `b`\n\
             hint: describe it: `[apps.b]` with `app = \"module:attr\"`",
        ),
        (
            "[apps.a]\napp = \"a:app\"\n[[routes]]\napp = \"a\"\nmount = \"api\"",
            "`routes.0.mount` (twinspan.toml:5): `api` does not begin with a slash\nhint: write `/api`",
        ),
        (
            "[apps.a]\napp = \"a:app\"\n[[routes]]\napp = \"a\"\nmount = \"/api\"\ntemplate = \"/api/{x}\"",
            "`routes.0` (twinspan.toml:3): has more than one of `mount`, `path` and `template`\n\
             hint: keep one; write a route for each",
        ),
        (
            "[apps.a]\napp = \"a:app\"\n[[routes]]\napp = \"a\"\nwhen = \"own\"",
            "`routes.0.when` (twinspan.toml:5): `own` is none of `owned`\nhint: did you mean `owned`?",
        ),
        (
            "[apps.a]\napp = \"a:app\"\n[apps.b]\napp = \"b:app\"",
            "`apps` (twinspan.toml:1): several applications, and nothing says which answers what\n\
             hint: add `[[routes]]`, tried in order: `app = \"NAME\"` with `mount`, `path`, `when = \"owned\"` or nothing",
        ),
        (
            "[apps.a]\napp = \"a:app\"\n[apps.b]\napp = \"b:app\"\n[[routes]]\napp = \"a\"",
            "`apps.b` (twinspan.toml:3): no `[[routes]]` leads to this application\n\
             hint: add `[[routes]]` with `app = \"b\"`, or delete it",
        ),
        (
            "[apps.a]\napp = \"a:app\"\n[apps.b]\napp = \"b:app\"\n[[routes]]\napp = \"a\"\n[[routes]]\napp = \"b\"",
            "mount `/` (twinspan.toml:7): `b` would never be asked: `a` (twinspan.toml:5) has this place already\n\
             hint: give each application a place of its own",
        ),
        (
            "app = \"b:app\"\n[apps.a]\napp = \"a:app\"",
            "`apps` (twinspan.toml:2): says which application answers what, and so does `app`\n\
             hint: name applications on the command line or in the file, not in both",
        ),
    ] {
        assert_eq!(file_error(text), error, "{text}");
    }
}

#[test]
fn applications_on_the_command_line_and_in_the_file_contradict_each_other() {
    let case = Case {
        line: "shop:app",
        files: &[("twinspan.toml", STRANGLER)],
        ..Case::default()
    };
    assert_eq!(
        case.error(),
        "`routes` (twinspan.toml:17): says which application answers what, and so does APP\n\
         hint: name applications on the command line or in the file, not in both"
    );
}

#[test]
fn the_file_is_twinspan_toml_or_a_table_of_pyproject_toml_or_the_one_that_is_named() {
    fn workers(line: &str, files: &[(&str, &str)]) -> Result<usize, ConfigError> {
        let case = Case {
            line,
            files,
            ..Case::default()
        };
        case.config().map(|config| config.workers)
    }

    let project =
        "[project]\nname = \"shop\"\n\n[tool.twinspan]\napp = \"shop:app\"\nworkers = 3\n";
    let own = "app = \"shop:app\"\nworkers = 2";
    assert_eq!(workers("", &[("pyproject.toml", project)]), Ok(3));
    assert_eq!(
        workers("", &[("pyproject.toml", project), ("twinspan.toml", own)]),
        Ok(2)
    );
    assert_eq!(
        workers(
            "-c pyproject.toml",
            &[("pyproject.toml", project), ("twinspan.toml", own)]
        ),
        Ok(3)
    );
    assert_eq!(
        workers(
            "--config other.toml",
            &[("twinspan.toml", "workers = 9"), ("other.toml", own)]
        ),
        Ok(2)
    );
    assert_eq!(
        workers("a:app", &[("pyproject.toml", "[tool.other]\nx = 1")]),
        Ok(1)
    );
    let error = workers("-c pyproject.toml", &[("pyproject.toml", "[tool]")]);
    assert_eq!(
        error.unwrap_err().to_string(),
        "`pyproject.toml`: has no table [tool.twinspan]"
    );
    let wrong = "[tool.twinspan]\n\nworkers = \"x\"\n";
    let error = workers("", &[("pyproject.toml", wrong)]);
    assert_eq!(
        error.unwrap_err().to_string(),
        "`workers` (pyproject.toml:3): expected a whole number, found string \"x\""
    );
}

#[test]
fn an_application_may_have_another_deadline_than_the_rest_or_none() {
    let config = file(
        r#"
timeout_request = 30
[apps.slow]
app = "slow:app"
timeout_request = 0
[apps.quick]
app = "quick:app"
timeout_request = 0.5
[apps.usual]
app = "usual:app"
[[routes]]
app = "slow"
path = "/slow"
[[routes]]
app = "quick"
path = "/quick"
[[routes]]
app = "usual"
"#,
    );
    let limits: Vec<_> = config
        .unwrap()
        .apps
        .iter()
        .map(|app| app.timeout_request)
        .collect();
    let seconds = |seconds| Some(Duration::from_secs_f64(seconds));
    assert_eq!(limits, [None, seconds(0.5), seconds(30.0)]);
}

// The environment

#[test]
fn every_option_has_a_variable() {
    let config = Case {
        variables: &[
            ("TWINSPAN_APP", "new:app,old:app"),
            ("TWINSPAN_THREADS", "7"),
            ("TWINSPAN_ACCESS_LOG", "off"),
            ("TWINSPAN_SERVER_HEADER", "true"),
            ("TWINSPAN_BIND", ":80,unix:x"),
            ("TWINSPAN_LOG_LEVEL", "WARN"),
            ("TWINSPAN_LOOP", "asyncio"),
            ("TWINSPAN_MOUNT", ""),
            ("TWINSPAN_MARKETING_BUDGET", "an application's own"),
        ],
        ..Case::default()
    }
    .config()
    .unwrap();
    assert_eq!(
        rules(&config),
        [("new", RuleMatch::owned()), ("old", mount(""))]
    );
    assert_eq!(config.apps[0].threads, 7);
    assert!(!config.access_log);
    assert!(config.server_header);
    assert_eq!(config.binds.len(), 2);
    assert_eq!(config.log_level, LogLevel::Warning);
    assert_eq!(config.loop_choice, LoopChoice::Asyncio);
}

#[test]
fn a_wrong_variable_is_named() {
    for (variable, value, error) in [
        (
            "TWINSPAN_THREADS",
            "many",
            "`TWINSPAN_THREADS`: `many` is not a whole number",
        ),
        (
            "TWINSPAN_WORKERS",
            "0",
            "`TWINSPAN_WORKERS`: 0 is too few\nhint: write at least 1",
        ),
        (
            "WEB_CONCURRENCY",
            "x",
            "`WEB_CONCURRENCY`: `x` is not a whole number",
        ),
        (
            "TWINSPAN_ACCESS_LOG",
            "x",
            "`TWINSPAN_ACCESS_LOG`: `x` is neither on nor off\nhint: write `true` or `false`",
        ),
        (
            "TWINSPAN_THREDS",
            "4",
            "`TWINSPAN_THREDS`: there is no such option\nhint: did you mean `TWINSPAN_THREADS`?",
        ),
        (
            "TWINSPAN_PORT",
            "tcp://10.0.0.1:80",
            "`TWINSPAN_PORT`: `tcp://10.0.0.1:80` is not a whole number\n\
             hint: Kubernetes sets this for a Service of that name: set `enableServiceLinks: false` in the pod",
        ),
        (
            "TWINSPAN_APP",
            "--help",
            "`TWINSPAN_APP`: `--help` does not begin with the name of a module\n\
             hint: write `module:attr`, `module` (its `app` or `application`) or `module:factory()`",
        ),
    ] {
        let case = Case {
            line: if variable == "TWINSPAN_APP" {
                ""
            } else {
                "a:app"
            },
            variables: &[(variable, value)],
            ..Case::default()
        };
        assert_eq!(case.error(), error);
    }
}

// All of them

#[test]
fn file_then_conventions_then_environment_then_command_line_then_arguments() {
    let all = Case {
        line: "a:app --workers 5",
        variables: &[("WEB_CONCURRENCY", "3"), ("TWINSPAN_WORKERS", "4")],
        files: &[("twinspan.toml", "workers = 2")],
        arguments: r#"{"workers": 6}"#,
    };
    let workers = |case: Case<'_>| case.config().unwrap().workers;
    assert_eq!(workers(Case { ..all }), 6);
    assert_eq!(
        workers(Case {
            arguments: "",
            ..all
        }),
        5
    );
    let line = "a:app";
    assert_eq!(
        workers(Case {
            line,
            arguments: "",
            ..all
        }),
        4
    );
    let variables = &[("WEB_CONCURRENCY", "3")];
    assert_eq!(
        workers(Case {
            line,
            variables,
            arguments: "",
            ..all
        }),
        3
    );
    assert_eq!(
        workers(Case {
            line,
            variables: &[],
            arguments: "",
            ..all
        }),
        2
    );
    assert_eq!(
        workers(Case {
            line,
            variables: &[],
            files: &[],
            arguments: ""
        }),
        1
    );
}

#[test]
fn the_last_to_say_where_to_listen_means_the_whole_of_it() {
    let binds = |line, variables, text| {
        let config = Case {
            line,
            variables,
            files: &[("twinspan.toml", text)],
            ..Case::default()
        }
        .config()
        .unwrap();
        let found: Vec<_> = config.binds.iter().map(ToString::to_string).collect();
        found.join(" ")
    };
    assert_eq!(
        binds("a:app --port 81", &[], "bind = \":80\""),
        "127.0.0.1:81"
    );
    assert_eq!(
        binds("a:app --port 81", &[], "host = \"0.0.0.0\""),
        "0.0.0.0:81"
    );
    assert_eq!(binds("a:app -b :81", &[], "uds = \"x\""), "0.0.0.0:81");
    assert_eq!(
        binds("a:app", &[("PORT", "81")], "port = 80"),
        "127.0.0.1:81"
    );
    assert_eq!(
        binds("a:app", &[("PORT", "81")], "bind = \"unix:x\""),
        "unix:x"
    );
    assert_eq!(
        binds("a:app", &[("PORT", "81"), ("TWINSPAN_BIND", ":82")], ""),
        "0.0.0.0:82"
    );
}

#[test]
fn arguments_of_python_are_checked_like_the_others() {
    for (arguments, error) in [
        (
            r#"{"thread": 4}"#,
            "`thread`: there is no such option\nhint: did you mean `threads`?",
        ),
        (
            r#"{"threads": "four"}"#,
            "`threads`: expected a whole number, found string \"four\"",
        ),
        (
            r#"{"threads": 0}"#,
            "`threads`: 0 is too few\nhint: write at least 1",
        ),
        (
            r#"{"bind": ["nowhere:x"]}"#,
            "`bind`: `nowhere` is not an IP address\nhint: write `127.0.0.1:8000`, `[::1]:8000`, \
             `:8000` (every IPv4 interface), `8000` (127.0.0.1) or `unix:/path/to/socket`",
        ),
    ] {
        let case = Case {
            line: "a:app",
            arguments,
            ..Case::default()
        };
        assert_eq!(case.error(), error);
    }
    let case = Case {
        line: "a:app",
        arguments: r#"{"bind": ":81", "access_log": false, "threads": null, "ws_ping_interval": 0.5}"#,
        ..Case::default()
    };
    let config = case.config().unwrap();
    assert!(!config.access_log);
    assert_eq!(config.apps[0].threads, 32);
    assert_eq!(
        config.limits.websocket_ping_interval,
        Some(Duration::from_millis(500))
    );
}

#[test]
fn without_a_directory_no_file_is_read_but_the_one_that_is_named() {
    let directory = Directory::new(&[("twinspan.toml", "app = \"a:app\"")]);
    let named = directory.0.join("twinspan.toml");
    let load = |arguments: &str| {
        let sources = Sources {
            arguments: serde_json::from_str(arguments).unwrap(),
            ..Sources::default()
        };
        load(&sources).unwrap().values.app
    };
    assert_eq!(load("{}"), None);
    assert!(load(&format!("{{\"config\": {named:?}}}")).is_some());
}

#[test]
fn a_worker_builds_the_same_configuration_from_json() {
    let case = Case {
        line: "--timeout-keep-alive 0.1 --forwarded-allow-ips 10.0.0.0/8,unix,* --root-path /x",
        variables: &[("TWINSPAN_APP_DIR", "/srv"), ("TWINSPAN_BIND", "[::1]:0")],
        files: &[("twinspan.toml", STRANGLER)],
        ..Case::default()
    };
    let settings = case.settings().unwrap();
    let json = serde_json::to_string(&settings).unwrap();
    let received: Settings = serde_json::from_str(&json).unwrap();
    assert_eq!(received, settings);
    assert_eq!(
        Config::new(&received).unwrap(),
        Config::new(&settings).unwrap()
    );
}

// Rules and their policies

const POLICIES: &str = r#"
[apps.new]
app = "new:app"
[apps.old]
app = "old:app"

[[routes]]
name = "items"
app = "new"
template = "/items/{id}"
when = "owned"
host = "*.Example.org"
method = ["GET", "POST"]
header = { X-Beta = "1" }
cookie = { beta = "*" }
query = { v = "2" }
canary = { percent = 2.5, sticky = "cookie:session", testers = ["10.0.0.0/8"], max_latency = 2, max_differences = 5, min_samples = 20, window = 60 }
shadow = { percent = 50, method = "GET", concurrency = 4, max_body = 1000, timeout = 0.5, header = ["ETag"], ignore = ["$.at"], unordered = "$..tags", tolerance = 0.001, noise = false }

[[routes]]
app = "new"
path = "/a"
canary = 10

[[routes]]
app = "new"
path = "/b"
shadow = 5
fallthrough = [404, 405]

[[routes]]
app = "new"
path = "/c"
canary = { percent = 1, rollback = false }
fallthrough = { memory = 10, file = 0, method = ["POST"] }

[[routes]]
app = "new"
fallthrough = [404]

[[routes]]
app = "old"
"#;

#[test]
fn a_rule_says_what_it_matches_and_what_becomes_of_it() {
    let config = file(POLICIES).unwrap();
    let names: Vec<_> = config.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "items",
            "path /a",
            "path /b",
            "path /c",
            "everything for new",
            "catch-all"
        ]
    );
    let items = &config.rules[0];
    assert_eq!(
        items.matches.name("new"),
        "template /items/{id} owned by new GET,POST host *.example.org header x-beta=1 \
         cookie beta=* query v=2"
    );
    let canary = items.canary.as_ref().unwrap();
    assert_eq!(
        (canary.percent.as_f64(), canary.sticky.to_string()),
        (2.5, "cookie:session".into())
    );
    assert_eq!(canary.testers, ["10.0.0.0/8".parse().unwrap()]);
    let rollback = canary.rollback.as_ref().unwrap();
    assert_eq!(
        (rollback.latency, rollback.samples, rollback.window),
        (Some(2.0), 20, Duration::from_secs(60))
    );
    let shadow = items.shadow.as_ref().unwrap();
    assert_eq!(
        (shadow.concurrency, shadow.max_body, shadow.timeout),
        (4, 1000, Duration::from_millis(500))
    );
    assert_eq!(shadow.compare.headers, [http::header::ETAG]);
    assert_eq!(shadow.compare.ignore, ["$.at".parse().unwrap()]);
    assert_eq!(shadow.compare.unordered, ["$..tags".parse().unwrap()]);
    assert_eq!(
        (shadow.compare.tolerance, shadow.compare.noise),
        (0.001, false)
    );
    let percent = |rule: &RuleConfig| rule.canary.as_ref().map(|canary| canary.percent.as_f64());
    let shares: Vec<_> = config.rules.iter().map(percent).collect();
    assert_eq!(
        shares,
        [Some(2.5), Some(10.0), Some(0.0), Some(1.0), None, None],
        "a copied request is answered below"
    );
    let falls = config.rules[2].fallthrough.as_ref().unwrap();
    assert_eq!(
        falls.statuses,
        [
            http::StatusCode::NOT_FOUND,
            http::StatusCode::METHOD_NOT_ALLOWED
        ]
    );
    let falls = config.rules[3].fallthrough.as_ref().unwrap();
    assert_eq!((falls.statuses.len(), falls.memory, falls.file), (1, 10, 0));
    assert!(config.rules[3].canary.as_ref().unwrap().rollback.is_none());
}

#[test]
fn a_wrong_rule_is_shown_with_its_line() {
    const APPS: &str = "[apps.a]\napp = \"a:app\"\n[[routes]]\napp = \"a\"\n";
    for (rule, error) in [
        (
            "canary = 10",
            "`routes.0.canary` (twinspan.toml:5): leaves requests to the rules below, and this is the last\n\
             hint: add a `[[routes]]` behind it for the application that answers them",
        ),
        (
            "canary = 101",
            "`routes.0.canary` (twinspan.toml:5): `101` is not between 0 and 100 percent",
        ),
        (
            "canary = { percnt = 1 }",
            "`routes.0.canary.percnt` (twinspan.toml:5): there is no such option\nhint: did you mean `percent`?",
        ),
        (
            "canary = \"ten\"",
            "`routes.0.canary` (twinspan.toml:5): expected a percentage or a table, found string \"ten\"",
        ),
        (
            "canary = { rollback = false, window = 3 }",
            "`routes.0.canary.window` (twinspan.toml:5): means nothing with `rollback = false`\nhint: delete one of the two",
        ),
        (
            "canary = { max_latency = 1 }",
            "`routes.0.canary.max_latency` (twinspan.toml:5): `1` is not above 1\n\
             hint: it is a multiple: 2 is twice as slow as the application below",
        ),
        (
            "canary = { max_differences = 5 }",
            "`routes.0.canary.max_differences` (twinspan.toml:5): means nothing without copies to compare\n\
             hint: add `shadow = 100` to the rule, or delete it",
        ),
        (
            "fallthrough = [200]",
            "`routes.0.fallthrough` (twinspan.toml:5): 200 is out of range\nhint: write 400 to 499",
        ),
        (
            "template = \"items\"",
            "`routes.0.template` (twinspan.toml:5): `items` does not begin with a slash\nhint: write `/items`",
        ),
        (
            "method = \"get\"",
            "`routes.0.method` (twinspan.toml:5): `get` is in lower case\nhint: write `GET`",
        ),
        (
            "shadow = { ignore = [\"items\"] }",
            "`routes.0.shadow.ignore.0` (twinspan.toml:5): `items` is not a place in JSON\n\
             hint: write `$.name`, `$.items[*].name`, `$.items[0]` or `$..name`",
        ),
        (
            "name = \"x\"\n[[routes]]\napp = \"a\"\npath = \"/x\"\nname = \"x\"",
            "`routes.1.name` (twinspan.toml:6): `x` is the name of another rule (twinspan.toml:3)\n\
             hint: give each rule a `name` of its own",
        ),
    ] {
        assert_eq!(file_error(&format!("{APPS}{rule}")), error, "{rule}");
    }
}
