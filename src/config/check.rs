//! From [`Settings`] to [`Config`]: what each value means, and whether they fit together.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::check_rules::Rules;
use super::error::{ConfigError, nearest};
use super::load::Settings;
use super::raw::{RawApp, RawApps};
use super::value::{Count, Mount, Seconds, TrustedPeer, parse_host};
use super::{
    AppConfig, Bind, Config, ForwardedConfig, Limits, RuleConfig, RuleMatch, Target, Timeouts,
};

impl Config {
    /// Builds the configuration, the same in every process that has the same settings.
    ///
    /// # Errors
    /// [`ConfigError`] for a value out of its range, for values that contradict each other, and where
    /// no application is named.
    pub fn new(settings: &Settings) -> Result<Self, ConfigError> {
        let raw = &settings.values;
        let defaults = Self::default();
        let Timeouts {
            keep_alive,
            header_read,
            graceful_shutdown,
        } = defaults.timeouts;
        let limits = defaults.limits;
        let (apps, rules) = applications(settings)?;
        let count =
            |option, value, default| within(settings, option, value, default, 1..=usize::MAX);
        let positive = |option, value, default| positive(settings, option, value, default);
        Ok(Self {
            binds: binds(settings, &defaults)?,
            backlog: within(
                settings,
                "backlog",
                raw.backlog,
                defaults.backlog,
                1..=65_535,
            )?,
            workers: count("workers", raw.workers, defaults.workers)?,
            io_threads: count("io_threads", raw.io_threads, defaults.io_threads)?,
            apps,
            rules,
            root_path: raw
                .root_path
                .as_ref()
                .map_or(defaults.root_path, |prefix| prefix.as_str().to_owned()),
            app_dir: raw.app_dir.clone().unwrap_or(defaults.app_dir),
            loop_choice: raw.event_loop.clone().unwrap_or(defaults.loop_choice),
            access_log: raw.access_log.unwrap_or(defaults.access_log),
            log_level: raw.log_level.unwrap_or(defaults.log_level),
            server_header: raw.server_header.unwrap_or(defaults.server_header),
            date_header: raw.date_header.unwrap_or(defaults.date_header),
            forwarded: forwarded(settings, defaults.forwarded),
            admin: admin(settings)?,
            state_dir: raw.state_dir.clone(),
            acknowledged: raw.acknowledge.clone().unwrap_or_default(),
            timeouts: Timeouts {
                keep_alive: seconds(raw.timeout_keep_alive, keep_alive),
                header_read: positive("timeout_header_read", raw.timeout_header_read, header_read)?,
                graceful_shutdown: seconds(raw.timeout_graceful_shutdown, graceful_shutdown),
            },
            limits: Limits {
                // Below 8 KiB hyper cannot read a head at all; above 1 MiB nobody means one.
                head_bytes: within(
                    settings,
                    "limit_head_size",
                    raw.limit_head_size,
                    limits.head_bytes,
                    8192..=1 << 20,
                )?,
                header_count: within(
                    settings,
                    "limit_header_count",
                    raw.limit_header_count,
                    limits.header_count,
                    1..=10_000,
                )?,
                websocket_message: count("ws_max_size", raw.ws_max_size, limits.websocket_message)?,
                websocket_compression: raw.ws_compression.unwrap_or(limits.websocket_compression),
                websocket_queue: count("ws_max_queue", raw.ws_max_queue, limits.websocket_queue)?,
                websocket_ping_interval: unless_zero(
                    raw.ws_ping_interval,
                    limits.websocket_ping_interval,
                ),
                websocket_ping_timeout: unless_zero(
                    raw.ws_ping_timeout,
                    limits.websocket_ping_timeout,
                ),
            },
        })
    }
}

pub(super) fn within<T>(
    settings: &Settings,
    option: &str,
    value: Option<Count>,
    default: T,
    range: RangeInclusive<T>,
) -> Result<T, ConfigError>
where
    T: TryFrom<u64> + PartialOrd + fmt::Display,
{
    let Some(Count(number)) = value else {
        return Ok(default);
    };
    match T::try_from(number) {
        Ok(value) if range.contains(&value) => Ok(value),
        _ if number == 0 => Err(settings
            .error(option, "0 is too few")
            .hint(format!("write at least {}", range.start()))),
        _ => Err(settings
            .error(option, format!("{number} is out of range"))
            .hint(format!("write {} to {}", range.start(), range.end()))),
    }
}

fn seconds(value: Option<Seconds>, default: Duration) -> Duration {
    value.map_or(default, |Seconds(value)| value)
}

pub(super) fn positive(
    settings: &Settings,
    option: &str,
    value: Option<Seconds>,
    default: Duration,
) -> Result<Duration, ConfigError> {
    let value = seconds(value, default);
    if value.is_zero() {
        return Err(settings
            .error(option, "0 seconds leave no time at all")
            .hint(format!("the default is {}", default.as_secs())));
    }
    Ok(value)
}

/// 0 switches the thing off.
fn unless_zero(value: Option<Seconds>, default: Option<Duration>) -> Option<Duration> {
    value.map_or(default, |Seconds(value)| {
        Some(value).filter(|value| !value.is_zero())
    })
}

fn binds(settings: &Settings, defaults: &Config) -> Result<Vec<Bind>, ConfigError> {
    let raw = &settings.values;
    let given = [
        ("bind", raw.bind.is_some()),
        ("uds", raw.uds.is_some()),
        ("host", raw.host.is_some() || raw.port.is_some()),
    ];
    let mut ways = given.into_iter().filter(|(_, given)| *given);
    if let (Some((first, _)), Some((second, _))) = (ways.next(), ways.next()) {
        let second = if second == "host" && raw.host.is_none() {
            "port"
        } else {
            second
        };
        let problem = format!("says where to listen, and so does {}", settings.name(first));
        return Err(settings
            .error(second, problem)
            .hint("keep one; `--bind` may be repeated and takes every kind of address"));
    }
    if let Some(binds) = &raw.bind {
        if binds.is_empty() {
            return Err(settings.error("bind", "is empty"));
        }
        let mut seen = HashSet::new();
        for (index, bind) in binds.iter().enumerate() {
            let any_port = matches!(bind, Bind::Tcp(address) if address.port() == 0);
            if !seen.insert(bind) && !any_port {
                let problem = format!("`{bind}` is named twice");
                return Err(settings.error(&format!("bind.{index}"), problem));
            }
        }
        return Ok(binds.clone());
    }
    if let Some(path) = &raw.uds {
        return Ok(vec![Bind::Unix(path.clone())]);
    }
    let Some(Bind::Tcp(default)) = defaults.binds.first() else {
        return Ok(defaults.binds.clone());
    };
    let ip = match &raw.host {
        Some(host) => parse_host(host).map_err(|error| {
            let named = settings.error("host", error.problem);
            ConfigError {
                hint: error.hint,
                ..named
            }
        })?,
        None => default.ip(),
    };
    let port = within(settings, "port", raw.port, default.port(), 0..=u16::MAX)?;
    Ok(vec![Bind::Tcp(SocketAddr::new(ip, port))])
}

/// The admin listener knows no access rules, so only the machine itself may reach it.
fn admin(settings: &Settings) -> Result<Option<Bind>, ConfigError> {
    let admin = settings.values.admin.clone();
    if let Some(Bind::Tcp(address)) = &admin
        && !address.ip().is_loopback()
    {
        let problem = format!("`{address}` can be reached from other machines");
        return Err(settings.error("admin", problem).hint(format!(
            "write `127.0.0.1:{}` or `unix:/path/to/socket`; to let others in, put a proxy \
             with access rules in front",
            address.port()
        )));
    }
    Ok(admin)
}

fn forwarded(settings: &Settings, default: ForwardedConfig) -> ForwardedConfig {
    let peers = match (
        &settings.values.forwarded_allow_ips,
        settings.values.proxy_headers,
    ) {
        (_, Some(false)) => &[][..],
        (None, _) => return default,
        (Some(peers), _) => peers.as_slice(),
    };
    ForwardedConfig {
        networks: peers
            .iter()
            .filter_map(|peer| match peer {
                TrustedPeer::Network(network) => Some(*network),
                TrustedPeer::Unix | TrustedPeer::Everyone => None,
            })
            .collect(),
        everyone: peers.contains(&TrustedPeer::Everyone),
        unix: peers.contains(&TrustedPeer::Unix),
    }
}

/// Applications come either from names (APP and `--mount`) or from tables (`[apps]` and `[[routes]]`).
fn applications(settings: &Settings) -> Result<(Vec<AppConfig>, Vec<RuleConfig>), ConfigError> {
    let raw = &settings.values;
    let mounts = raw.mount.as_deref().unwrap_or_default();
    let targets = raw.app.as_deref().unwrap_or_default();
    let named = match (targets.is_empty(), mounts.is_empty()) {
        (false, _) => Some("app"),
        (true, false) => Some("mount"),
        (true, true) => None,
    };
    let table = match (&raw.routes, &raw.apps) {
        (Some(_), _) => Some("routes"),
        (None, Some(_)) => Some("apps"),
        (None, None) => None,
    };
    match (named, table) {
        (Some(named), Some(table)) => Err(settings
            .error(
                table,
                format!(
                    "says which application answers what, and so does {}",
                    settings.name(named)
                ),
            )
            .hint("name applications on the command line or in the file, not in both")),
        (Some(_), None) => from_targets(settings, mounts, targets),
        (None, Some(_)) => from_tables(settings),
        (None, None) => Err(ConfigError::new("no application is named")
            .hint("name one, `twinspan module:app`, or describe them in twinspan.toml")),
    }
}

fn from_targets(
    settings: &Settings,
    mounts: &[Mount],
    targets: &[Target],
) -> Result<(Vec<AppConfig>, Vec<RuleConfig>), ConfigError> {
    for (index, target) in targets.iter().enumerate() {
        if targets.iter().take(index).any(|earlier| earlier == target) {
            let problem = format!("`{target}` is named twice");
            return Err(settings.error(&format!("app.{index}"), problem));
        }
    }
    let mut distinct: Vec<&Target> = Vec::new();
    for target in mounts.iter().map(|mount| &mount.target).chain(targets) {
        if !distinct.contains(&target) {
            distinct.push(target);
        }
    }
    let name_of = |target: &Target| unique_name(target, &distinct);

    let mut ordered: Vec<_> = mounts.iter().enumerate().collect();
    ordered.sort_by_key(|(_, mount)| std::cmp::Reverse(mount.prefix.as_str().len()));
    let mut rules = Rules::new(settings);
    for (index, mount) in ordered {
        let matches = RuleMatch::mount(mount.prefix.as_str());
        rules.push(&format!("mount.{index}"), name_of(&mount.target), matches)?;
    }
    let last = targets.len().saturating_sub(1);
    for (index, target) in targets.iter().enumerate() {
        let matches = if index == last {
            RuleMatch::mount("")
        } else {
            RuleMatch::owned()
        };
        rules.push(&format!("app.{index}"), name_of(target), matches)?;
    }
    let apps = distinct
        .iter()
        .map(|target| app_config(settings, name_of(target), (*target).clone()))
        .collect::<Result<_, _>>()?;
    Ok((apps, rules.list))
}

/// The shortest of `shop`, `shop.api`, `shop.api:app` that no other application has.
fn unique_name(target: &Target, all: &[&Target]) -> String {
    let package = |target: &Target| {
        let first = target.module.split('.').next();
        first.unwrap_or(&target.module).to_owned()
    };
    let module = |target: &Target| target.module.clone();
    let forms: [&dyn Fn(&Target) -> String; 2] = [&package, &module];
    forms
        .into_iter()
        .find(|form| {
            all.iter()
                .filter(|other| form(other) == form(target))
                .count()
                == 1
        })
        .map_or_else(|| target.to_string(), |form| form(target))
}

fn app_config(settings: &Settings, name: String, target: Target) -> Result<AppConfig, ConfigError> {
    let raw = &settings.values;
    let app = AppConfig::new(name, target);
    Ok(AppConfig {
        threads: within(
            settings,
            "threads",
            raw.threads,
            app.threads,
            1..=usize::MAX,
        )?,
        queue: within(settings, "queue", raw.queue, app.queue, 0..=usize::MAX)?,
        timeout_request: unless_zero(raw.timeout_request, app.timeout_request),
        lifespan: raw.lifespan.unwrap_or(app.lifespan),
        timeout_startup: positive(
            settings,
            "timeout_startup",
            raw.timeout_startup,
            app.timeout_startup,
        )?,
        timeout_shutdown: positive(
            settings,
            "timeout_shutdown",
            raw.timeout_shutdown,
            app.timeout_shutdown,
        )?,
        unbridge: raw.unbridge.unwrap_or(app.unbridge),
        ..app
    })
}

fn from_tables(settings: &Settings) -> Result<(Vec<AppConfig>, Vec<RuleConfig>), ConfigError> {
    let none = RawApps::default();
    let RawApps(tables) = settings.values.apps.as_ref().unwrap_or(&none);
    let mut apps = Vec::new();
    for (name, table) in tables {
        let app = app_config(settings, name.clone(), table.app.clone())?;
        let path = |option| format!("apps.{name}.{option}");
        apps.push(AppConfig {
            threads: within(
                settings,
                &path("threads"),
                table.threads,
                app.threads,
                1..=usize::MAX,
            )?,
            queue: within(
                settings,
                &path("queue"),
                table.queue,
                app.queue,
                0..=usize::MAX,
            )?,
            timeout_request: unless_zero(table.timeout_request, app.timeout_request),
            lifespan: table.lifespan.unwrap_or(app.lifespan),
            timeout_startup: positive(
                settings,
                &path("timeout_startup"),
                table.timeout_startup,
                app.timeout_startup,
            )?,
            timeout_shutdown: positive(
                settings,
                &path("timeout_shutdown"),
                table.timeout_shutdown,
                app.timeout_shutdown,
            )?,
            router: table.router.clone(),
            unbridge: table.unbridge.unwrap_or(app.unbridge),
            ..app
        });
    }
    let mut rules = Rules::new(settings);
    match (&settings.values.routes, apps.as_slice()) {
        (Some(routes), _) => {
            for (index, route) in routes.iter().enumerate() {
                let path = format!("routes.{index}");
                known_app(settings, &path, &route.app, &apps)?;
                rules.add(&path, route)?;
            }
            rules.pass_on_to_somebody()?;
        }
        (None, [only]) => {
            let path = format!("apps.{}", only.name);
            rules.push(&path, only.name.clone(), RuleMatch::mount(""))?;
        }
        (None, _) => {
            return Err(settings
                .error(
                    "apps",
                    "several applications, and nothing says which answers what",
                )
                .hint(
                    "add `[[routes]]`, tried in order: `app = \"NAME\"` with `mount`, `path`, \
                       `when = \"owned\"` or nothing",
                ));
        }
    }
    for app in &apps {
        if !rules.list.iter().any(|rule| rule.app == app.name) {
            return Err(settings
                .error(
                    &format!("apps.{}", app.name),
                    "no `[[routes]]` leads to this application",
                )
                .hint(format!(
                    "add `[[routes]]` with `app = \"{}\"`, or delete it",
                    app.name
                )));
        }
    }
    say_legacy(settings, tables, &mut rules.list)?;
    Ok((apps, rules.list))
}

/// Tells the rules what their applications say of being the one to migrate from.
fn say_legacy(
    settings: &Settings,
    tables: &[(String, RawApp)],
    rules: &mut [RuleConfig],
) -> Result<(), ConfigError> {
    let mut legacy = tables.iter().filter(|(_, app)| app.legacy == Some(true));
    if let (Some((first, _)), Some((second, _))) = (legacy.next(), legacy.next()) {
        let problem = format!("is true, and so is that of `{first}`");
        return Err(settings
            .error(&format!("apps.{second}.legacy"), problem)
            .hint("one application is migrated from; keep `legacy = true` there"));
    }
    for rule in rules {
        let table = tables.iter().find(|(name, _)| *name == rule.app);
        rule.legacy = table.and_then(|(_, app)| app.legacy);
    }
    Ok(())
}

fn known_app(
    settings: &Settings,
    path: &str,
    name: &str,
    apps: &[AppConfig],
) -> Result<(), ConfigError> {
    if apps.iter().any(|app| app.name == name) {
        return Ok(());
    }
    let path = format!("{path}.app");
    let error = settings.error(&path, format!("there is no application `{name}`"));
    Err(
        match nearest(name, apps.iter().map(|app| app.name.as_str())) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(format!(
                "describe it: `[apps.{name}]` with `app = \"module:attr\"`"
            )),
        },
    )
}
