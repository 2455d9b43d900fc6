"""What people and applications do wrong: a clear line and an exit code, or 500 for one request."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import httpx
import pytest
from apps import asgi_faults, wsgi_faults
from e2e.wire import FOR_TESTS, exchange

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.wire import StartShared
    from support import Command, StartCommand

CONFIGURATION = 2
APPLICATION = 3


def assert_refused(refused: Command, code: int, *patterns: str) -> None:
    """It ended with `code`, and said each of `patterns` (the first in its `error:` line)."""
    assert refused.wait() == code, refused.text
    for pattern in patterns:
        assert re.search(pattern, refused.text, re.MULTILINE), (pattern, refused.text)
    assert "panicked" not in refused.text
    assert "listening on" not in refused.text


def one_error(text: str) -> str:
    """The `error:` line; there is exactly one."""
    errors = [line for line in text.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, text
    return errors[0]


# Before it serves.


def test_a_module_that_does_not_exist(command: StartCommand) -> None:
    refused = command("apps.nowhere:app", *FOR_TESTS, ready=False)
    assert_refused(refused, APPLICATION, r"^error: .*`apps\.nowhere:app`", r"^hint: ")


def test_a_module_that_cannot_be_imported(command: StartCommand) -> None:
    refused = command("apps.broken_import:app", *FOR_TESTS, ready=False)
    assert_refused(refused, APPLICATION, r"^error: .*`apps\.broken_import:app`")
    assert "a_module_that_nobody_has" in refused.text


def test_a_module_with_a_syntax_error(command: StartCommand) -> None:
    refused = command("shop:app", "--port", "0", files={"shop.py": "app = (\n"}, ready=False)
    assert_refused(refused, APPLICATION, r"^error: .*`shop:app`")
    assert "shop.py" in refused.text


def test_an_attribute_that_is_not_there_suggests_the_near_one(command: StartCommand) -> None:
    refused = command("apps.wsgi_faults:aplication", *FOR_TESTS, ready=False)
    assert_refused(refused, APPLICATION, r"^error: .*`apps\.wsgi_faults:aplication`.*`aplication`")
    assert re.search(r"^hint: .*`application`", refused.text, re.MULTILINE), refused.text


@pytest.mark.parametrize("attribute", ["number", "text", "settings", "apps"])
def test_an_object_that_is_no_application(command: StartCommand, attribute: str) -> None:
    target = f"apps.not_an_application:{attribute}"
    refused = command(target, *FOR_TESTS, ready=False)
    assert_refused(refused, APPLICATION, rf"^error: .*`{target}`.*WSGI", "ASGI")


def test_an_error_names_what_was_wrong_once(command: StartCommand) -> None:
    refused = command("apps.nowhere:app", "--workers", "2", *FOR_TESTS, ready=False)
    assert refused.wait() == APPLICATION
    one_error(refused.text)


def test_an_address_in_use(command: StartCommand) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = command("apps.dump:wsgi", *FOR_TESTS[:2], "--bind", address, ready=False)
        assert_refused(refused, CONFIGURATION, rf"^error: .*{re.escape(address)}.*in use")
        assert re.search(r"^hint: ", refused.text, re.MULTILINE), refused.text


def test_an_address_that_this_machine_does_not_have(command: StartCommand) -> None:
    refused = command("apps.dump:wsgi", *FOR_TESTS[:2], "--bind", "192.0.2.1:0", ready=False)
    assert_refused(refused, CONFIGURATION, r"^error: .*192\.0\.2\.1")


def test_a_socket_path_without_its_directory(command: StartCommand) -> None:
    refused = command("apps.dump:wsgi", *FOR_TESTS[:2], "--bind", "unix:no/where.sock", ready=False)
    assert_refused(refused, CONFIGURATION, r"^error: .*no/where\.sock")


def test_two_applications_on_one_mount(command: StartCommand) -> None:
    mounts = ("--mount", "/api=apps.dump:wsgi", "--mount", "/api=apps.dump:asgi")
    refused = command(*mounts, *FOR_TESTS, ready=False)
    assert_refused(refused, CONFIGURATION, r"^error: .*/api", r"apps\.dump:(wsgi|asgi)")


def test_no_application_at_all(command: StartCommand) -> None:
    refused = command(*FOR_TESTS, ready=False)
    assert_refused(refused, CONFIGURATION, r"^error: ", r"twinspan .*module:")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("--worker", "--workers"), ("--bnid", "--bind"), ("--acces-log", "--access-log")],
)
def test_an_unknown_option_suggests_the_near_one(
    command: StartCommand, wrong: str, right: str
) -> None:
    refused = command("apps.dump:wsgi", *FOR_TESTS, wrong, ready=False)
    assert_refused(refused, CONFIGURATION, rf"^error: .*{wrong}", rf"{right}\b")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--workers", "many"),
        ("--workers", "0"),
        ("--threads", "-1"),
        ("--port", "65536"),
        ("--bind", "nowhere"),
        ("--mount", "api"),
        ("--lifespan", "perhaps"),
        ("--timeout-graceful-shutdown", "30s"),
        ("--forwarded-allow-ips", "10.0.0.0/99"),
        ("--admin", "0.0.0.0:9000"),
    ],
)
def test_a_wrong_value_on_the_command_line(command: StartCommand, option: str, value: str) -> None:
    refused = command("apps.dump:wsgi", *FOR_TESTS[:2], f"{option}={value}", ready=False)
    assert_refused(refused, CONFIGURATION, rf"^error: .*{option}")


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ('threads = "many"', "threads"),
        ("threads = 0", "threads"),
        ("treads = 4", "threads"),
        ('bind = "nowhere"', "nowhere"),
        ('mount = ["api"]', "api"),
        ("threads = ", "twinspan.toml"),
        ('routes = [{ app = "nobody" }]', "nobody"),
    ],
)
def test_a_wrong_value_in_the_file_is_shown_with_file_and_line(
    command: StartCommand, line: str, names: str
) -> None:
    files = {"twinspan.toml": f'# A comment.\n\napp = "apps.dump:wsgi"\n{line}\n'}
    if line.startswith("routes"):
        files = {"twinspan.toml": f'# A comment.\n\napps.x.app = "apps.dump:wsgi"\n{line}\n'}
    refused = command("--app-dir", FOR_TESTS[1], files=files, ready=False)
    assert_refused(refused, CONFIGURATION, r"^error: .*twinspan\.toml:4", re.escape(names))


def test_a_wrong_value_in_the_environment(command: StartCommand) -> None:
    environment = {"TWINSPAN_THREADS": "many"}
    refused = command("apps.dump:wsgi", *FOR_TESTS, env=environment, ready=False)
    assert_refused(refused, CONFIGURATION, r"^error: .*TWINSPAN_THREADS")


def test_a_file_that_is_not_there(command: StartCommand) -> None:
    refused = command("--config", "none.toml", *FOR_TESTS, ready=False)
    assert_refused(refused, CONFIGURATION, r"^error: .*none\.toml")


def test_applications_on_the_command_line_and_routes_in_a_file(command: StartCommand) -> None:
    file = """
        [apps.x]
        app = "apps.dump:wsgi"
        [[routes]]
        app = "x"
    """
    refused = command("apps.dump:asgi", *FOR_TESTS, files={"twinspan.toml": file}, ready=False)
    assert_refused(refused, CONFIGURATION, r"^error: .*(routes|apps)")


def test_a_lifespan_that_fails_ends_the_start(command: StartCommand) -> None:
    refused = command("apps.lifespans:failing", *FOR_TESTS, ready=False)
    assert_refused(refused, APPLICATION, r"^error: .*`apps\.lifespans:failing`")
    assert "the database is not there" in one_error(refused.text)


def test_an_application_without_lifespan_starts_unless_it_is_asked_for(
    command: StartCommand, http: httpx.Client
) -> None:
    assert http.get(command("apps.lifespans:raising", *FOR_TESTS).url).text == "no lifespan here"
    refused = command("apps.lifespans:raising", *FOR_TESTS, "--lifespan=on", ready=False)
    assert_refused(refused, APPLICATION, r"^error: .*`apps\.lifespans:raising`.*lifespan")


def test_a_failing_lifespan_can_be_switched_off(command: StartCommand, http: httpx.Client) -> None:
    server = command("apps.lifespans:failing", *FOR_TESTS, "--lifespan=off")
    assert http.get(server.url).text == "started in spite of it"


# While it serves: one request fails, nothing else does.

AFTER_START = {
    "/raise-after-start",
    "/raise-after-start-with-length",
    "/too-short",
    "/return-without-end",
}
WSGI_FAULTS = sorted(wsgi_faults.FAULTS.keys() - AFTER_START - {"/ok"})
ASGI_FAULTS = sorted(asgi_faults.FAULTS.keys() - AFTER_START - {"/ok"})


@pytest.fixture(scope="module")
def faults(start_shared: StartShared) -> Command:
    return start_shared(
        "--mount", "/wsgi=apps.wsgi_faults", "--mount", "/asgi=apps.asgi_faults:application"
    )


def assert_alive(http: httpx.Client, server: Command) -> None:
    for kind in ("wsgi", "asgi"):
        answer = http.get(f"{server.url}/{kind}/ok")
        assert (answer.status_code, answer.text) == (200, "fine")
    assert server.returncode is None
    assert "panicked" not in server.text


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
@pytest.mark.parametrize(
    "path", [f"/wsgi{path}" for path in WSGI_FAULTS] + [f"/asgi{path}" for path in ASGI_FAULTS]
)
def test_a_fault_before_the_response_is_500_for_that_request_only(
    faults: Command, http: httpx.Client, path: str, http2: bool
) -> None:
    with httpx.Client(http1=not http2, http2=http2, base_url=faults.url, trust_env=False) as client:
        seen = len(faults.lines)
        answer = client.get(path)
        assert answer.status_code == 500, (answer, answer.text)
        assert "Traceback" not in answer.text
        assert "x-other" not in answer.headers
        faults.wait_for_line(rf'"GET {path} .* 500 ', after=seen)
        # The next request of the same connection is answered.
        assert client.get(path[:5] + "/ok").text == "fine"
    assert_alive(http, faults)


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_an_exception_is_logged_with_its_traceback(
    faults: Command, http: httpx.Client, kind: str
) -> None:
    seen = len(faults.lines)
    http.get(f"{faults.url}/{kind}/raise-before-start")
    faults.wait_for_line("RuntimeError: raised before the start", after=seen)
    logged = "\n".join(faults.lines[seen:])
    assert f"{kind}_faults.py" in logged
    assert "Traceback (most recent call last):" in logged


CUT_SHORT = [
    "/wsgi/raise-after-start",
    "/wsgi/raise-after-start-with-length",
    "/wsgi/too-short",
    "/asgi/raise-after-start",
    "/asgi/raise-after-start-with-length",
    "/asgi/too-short",
    "/asgi/return-without-end",
]


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
@pytest.mark.parametrize("path", CUT_SHORT)
def test_a_fault_after_the_response_began_never_looks_like_its_end(
    faults: Command, http: httpx.Client, path: str, http2: bool
) -> None:
    with httpx.Client(http1=not http2, http2=http2, base_url=faults.url, trust_env=False) as client:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            client.get(path)
        # With HTTP/2 only the stream has ended, and the connection serves the next request.
        assert client.get(path[:5] + "/ok").text == "fine"
    assert_alive(http, faults)


@pytest.mark.parametrize("path", ["/wsgi/raise-after-start", "/asgi/raise-after-start"])
def test_a_body_that_ends_with_the_connection_is_reset_not_closed(
    faults: Command, http: httpx.Client, path: str
) -> None:
    # Without a length an HTTP/1.0 client takes the close for the end: it would look complete.
    with pytest.raises(ConnectionResetError):
        exchange(faults.port, f"GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n".encode())
    assert_alive(http, faults)


@pytest.mark.parametrize("path", ["/wsgi/raise-after-start", "/asgi/raise-after-start"])
def test_the_access_log_marks_a_response_that_was_cut_short(
    faults: Command, http: httpx.Client, path: str
) -> None:
    seen = len(faults.lines)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        http.get(faults.url + path)
    faults.wait_for_line(rf'"GET {path} .* aborted$', after=seen)


def test_an_upload_that_nobody_reads_does_not_stop_the_server(
    faults: Command, http: httpx.Client, tmp_path: Path
) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(bytes(8 * 1024 * 1024))
    for kind in ("wsgi", "asgi"):
        with upload.open("rb") as content:
            try:
                answer = http.post(f"{faults.url}/{kind}/raise-before-start", content=content)
            except httpx.WriteError:
                continue  # The connection was closed before all was sent: as good an answer.
        assert answer.status_code == 500
    assert_alive(http, faults)
