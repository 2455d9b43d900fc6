//! Options of other servers: refused with the line that does the same here, never accepted and ignored.

/// What to do instead of an option that another server has: `--preload`, `-k`.
pub(super) fn hint(option: &str) -> Option<&'static str> {
    FOREIGN
        .iter()
        .find(|(options, _)| options.contains(&option))
        .map(|(_, hint)| *hint)
}

const DELETE_KIND: &str =
    "delete it: whether an application is WSGI or ASGI is seen from the application";
const DELETE_HTTP: &str = "delete it: HTTP/1.1 and HTTP/2 are both served, as the client asks";
const PROXY_TLS: &str = "delete it: TLS is not served yet; end it in a proxy in front";
const MANAGER: &str =
    "delete it: leave this to what starts the server (systemd, a container, a shell)";
const RESTART: &str =
    "delete it: workers are not recycled by count; SIGHUP replaces them without losing a request";
const RELOAD: &str =
    "delete it: code is not watched; SIGHUP loads it anew without losing a request";
const ACCESS: &str = "delete it: the access log goes to stdout, everything else to stderr; `--no-access-log` writes none";

const FOREIGN: &[(&[&str], &str)] = &[
    (
        &["--worker-class", "-k", "--interface", "--wsgi", "--asgi"],
        DELETE_KIND,
    ),
    (
        &["--factory"],
        "delete it and write the target as `module:factory()`",
    ),
    (
        &[
            "--http",
            "--http-protocols",
            "--http1",
            "--http2",
            "--http2-cleartext",
        ],
        DELETE_HTTP,
    ),
    (
        &["--ws", "--no-ws"],
        "delete it: WebSockets are served wherever an ASGI application answers",
    ),
    (
        &[
            "--certfile",
            "--keyfile",
            "--ca-certs",
            "--ciphers",
            "--cert-reqs",
            "--ssl-certfile",
            "--ssl-keyfile",
            "--ssl-keyfile-password",
            "--ssl-version",
            "--ssl-cert-reqs",
            "--ssl-ca-certs",
            "--ssl-ciphers",
            "--ssl-certificate",
            "--ssl-ca",
        ],
        PROXY_TLS,
    ),
    (
        &[
            "--daemon", "-D", "--pid", "-p", "--user", "-u", "--group", "-g", "--umask", "-m",
            "--name", "-n",
        ],
        MANAGER,
    ),
    (&["--env", "-e", "--env-file", "--env-files"], MANAGER),
    (
        &["--preload", "--preload-app"],
        "delete it: each worker loads the applications itself, so that no thread or socket is forked",
    ),
    (
        &[
            "--reload",
            "--reload-dir",
            "--reload-dirs",
            "--reload-include",
            "--reload-exclude",
            "--reload-delay",
            "--reload-paths",
            "--reload-extra-file",
        ],
        RELOAD,
    ),
    (
        &[
            "--max-requests",
            "--max-requests-jitter",
            "--limit-max-requests",
            "--limit-max-requests-jitter",
            "--workers-lifetime",
            "--workers-max-rss",
        ],
        RESTART,
    ),
    (
        &["--blocking-threads", "--worker-threads"],
        "write `--threads`",
    ),
    (&["--runtime-threads"], "write `--io-threads`"),
    (
        &["--chdir", "--working-dir", "--pythonpath"],
        "write `--app-dir`",
    ),
    (&["--keep-alive"], "write `--timeout-keep-alive`"),
    (
        &["--workers-kill-timeout"],
        "write `--timeout-graceful-shutdown`",
    ),
    (
        &["--timeout", "-t"],
        "write `--timeout-request` to limit each request to a WSGI application: what takes too long costs its thread, \
         not its worker",
    ),
    (
        &["--timeout-worker-healthcheck"],
        "delete it: a busy worker is not killed; a start is limited by `--timeout-startup`",
    ),
    (
        &["--limit-concurrency", "--backpressure"],
        "write `--threads` and `--queue`, which limit each WSGI application",
    ),
    (
        &[
            "--limit-request-line",
            "--limit-request-field_size",
            "--h11-max-incomplete-event-size",
        ],
        "write `--limit-head-size`",
    ),
    (&["--limit-request-fields"], "write `--limit-header-count`"),
    (
        &["--unix-socket", "--uds-path"],
        "write `--uds` or `--bind unix:PATH`",
    ),
    (
        &["--fd"],
        "write `--bind`; sockets of others are not taken over yet",
    ),
    (
        &["--url-path-prefix"],
        "write `--root-path`, or `--mount PREFIX=APP`",
    ),
    (&["--asgi-lifespan"], "write `--lifespan`"),
    (&["--asgi-loop"], "write `--loop`"),
    (
        &["--websocket-ping-interval", "--ping-interval"],
        "write `--ws-ping-interval`",
    ),
    (&["--ping-timeout"], "write `--ws-ping-timeout`"),
    (&["--websocket-max-message-size"], "write `--ws-max-size`"),
    (
        &["--ws-per-message-deflate"],
        "write `--ws-compression` or `--no-ws-compression`",
    ),
    (
        &[
            "--access-logfile",
            "--error-logfile",
            "--access-logformat",
            "--log-file",
            "--log-config",
        ],
        ACCESS,
    ),
    (
        &["--metrics", "--metrics-port", "--metrics-address"],
        "write `--admin 127.0.0.1:9090`, which serves /metrics",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::command;

    #[test]
    fn no_option_of_ours_is_refused_and_every_one_that_is_named_exists() {
        let command = command();
        let ours: Vec<_> = command
            .get_arguments()
            .flat_map(|arg| {
                let long = arg.get_long().map(|long| format!("--{long}"));
                let short = arg.get_short().map(|short| format!("-{short}"));
                long.into_iter().chain(short)
            })
            .collect();
        for (options, hint) in FOREIGN {
            for option in *options {
                assert!(!ours.iter().any(|own| own == option), "{option} is ours");
            }
            for quoted in hint.split('`').skip(1).step_by(2) {
                let word = quoted.split(' ').next().unwrap_or_default();
                let known = !word.starts_with('-') || ours.iter().any(|own| own == word);
                assert!(known, "{word} does not exist");
            }
        }
    }

    #[test]
    fn an_option_is_refused_in_one_line_only() {
        let all: Vec<_> = FOREIGN.iter().flat_map(|(options, _)| *options).collect();
        for option in &all {
            assert_eq!(all.iter().filter(|other| other == &option).count(), 1);
        }
    }
}
