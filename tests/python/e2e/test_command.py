"""The command as a process: what it says, where it listens, how workers come and go, its end."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest
from e2e.wire import FOR_TESTS
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import Command, StartCommand

CRASH_LOOP = 4
BOTH = ("--mount", "/wsgi=apps.{0}:wsgi", "--mount", "/asgi=apps.{0}:asgi")


def both(module: str) -> tuple[str, ...]:
    """Mounts the WSGI and the ASGI application of one module of `apps`."""
    return tuple(part.format(module) for part in BOTH)


def until(condition: Callable[[], bool], timeout: float = 20) -> None:
    """Waits for what only shows by looking again."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # Caught in the queue of the listening socket while it was closed.
    return False


def workers(server: Command) -> set[int]:
    return {child.pid for child in psutil.Process(server.pid).children()}


# What it says.


def test_it_says_what_is_mounted_where_and_where_it_listens(command: StartCommand) -> None:
    server = command(
        "apps.dump:wsgi", "--mount", "/live=apps.dump:asgi", "--threads", "7", *FOR_TESTS
    )
    assert server.wait_for_line(r"apps\.dump:wsgi").string.count("WSGI") == 1
    assert re.search(r"\b7 threads\b", server.wait_for_line(r"apps\.dump:wsgi").string)
    mounted = server.wait_for_line(r"apps\.dump:asgi").string
    assert "ASGI" in mounted
    assert "/live" in mounted
    assert "threads" not in mounted
    assert server.stdout == []


LOG_LINE = re.compile(
    r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z 127\.0\.0\.1:\d+ "
    r'"(?P<request>[^"]+)" (?P<status>\d{3}) (?P<bytes>\d+)B \d+\.\dms app=(?P<app>\S+)'
)


@pytest.mark.parametrize(("http2", "version"), [(False, "HTTP/1.1"), (True, "HTTP/2")])
def test_each_request_is_one_line(command: StartCommand, http2: bool, version: str) -> None:
    server = command(*both("dump"), *FOR_TESTS)
    with httpx.Client(http1=not http2, http2=http2, base_url=server.url, trust_env=False) as client:
        for kind in ("wsgi", "asgi"):
            answer = client.get(f"/{kind}/x?y=1")
            line = server.wait_for_line(rf'"GET /{kind}/x').string
            found = LOG_LINE.match(line)
            assert found, line
            assert found["request"] == f"GET /{kind}/x?y=1 {version}"
            assert (found["status"], found["bytes"]) == ("200", str(len(answer.content)))
        client.get("/nowhere")
        assert " 404 " in server.wait_for_line('"GET /nowhere').string
    assert server.terminate() == 0
    assert len([line for line in server.lines if '"GET ' in line]) == 3


def test_the_access_log_can_be_switched_off(command: StartCommand, http: httpx.Client) -> None:
    server = command("apps.dump:wsgi", "--no-access-log", *FOR_TESTS)
    assert http.get(server.url).status_code == 200
    assert server.terminate() == 0
    assert '"GET ' not in server.text


def test_help_and_version_answer_on_standard_output(command: StartCommand) -> None:
    for option, expected in (("--help", "--workers"), ("--version", "twinspan ")):
        asked = command(option, ready=False)
        assert asked.wait() == 0
        assert expected in "\n".join(asked.stdout)


# Configuration.


def test_it_reads_twinspan_toml_and_the_command_line_wins(
    command: StartCommand, http: httpx.Client
) -> None:
    file = """
        app = "apps.dump:wsgi"
        bind = "127.0.0.1:1"
        root_path = "/public"
    """
    server = command(*FOR_TESTS, files={"twinspan.toml": file})
    assert http.get(f"{server.url}/x").json()["SCRIPT_NAME"] == "/public"


def test_it_reads_pyproject_toml_and_the_environment_wins(
    command: StartCommand, http: httpx.Client
) -> None:
    file = """
        [tool.twinspan]
        app = "apps.dump:asgi"
        root_path = "/public"
    """
    environment = {"TWINSPAN_ROOT_PATH": "/open"}
    server = command(*FOR_TESTS, files={"pyproject.toml": file}, env=environment)
    assert http.get(f"{server.url}/x").json()["root_path"] == "/open"


def test_applications_are_found_in_the_working_directory(
    command: StartCommand, http: httpx.Client
) -> None:
    module = """
        def make():
            def application(environ, start_response):
                start_response("200 OK", [])
                return [b"made"]
            return application

        app = make()
    """
    for target in ("shop", "shop:app", "shop:make()"):
        server = command(target, "--port", "0", files={"shop.py": module})
        assert http.get(server.url).text == "made"


# Where it listens.


def test_it_listens_on_every_address_that_it_is_given(
    command: StartCommand, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    binds = ("--bind", f"unix:{path}", "--bind", "127.0.0.1:0")
    server = command("apps.dump:wsgi", *FOR_TESTS, *binds)
    server.wait_for_line(rf"listening on unix:{re.escape(str(path))}")
    urls = re.findall(r"listening on (http://127\.0\.0\.1:\d+)", server.text)
    assert len(set(urls)) == 2
    for url in urls:
        assert httpx.get(url, trust_env=False).status_code == 200
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        environ = client.get("http://shop.example/x").json()
    assert environ["HTTP_HOST"] == "shop.example"
    assert isinstance(environ["REMOTE_ADDR"], str)
    assert server.terminate() == 0
    assert not path.exists()


def test_a_socket_that_a_killed_server_left_is_taken_over(
    command: StartCommand, tmp_path: Path
) -> None:
    bind = ("--app-dir", FOR_TESTS[1], "--bind", f"unix:{tmp_path / 's'}")
    for _ in range(2):
        server = command("apps.dump:wsgi", *bind, ready=False)
        server.wait_for_line("listening on unix:")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(tmp_path / "s"))) as client:
            assert client.get("http://localhost/").status_code == 200
        server.kill()


def test_it_listens_on_ipv6(command: StartCommand, http: httpx.Client) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = command("apps.dump:wsgi", *FOR_TESTS[:2], "--bind", "[::1]:0")
    assert server.url.startswith("http://[::1]:")
    assert http.get(server.url).json()["REMOTE_ADDR"] == "::1"


def test_forwarded_headers_are_believed_from_trusted_proxies_only(
    command: StartCommand, http: httpx.Client
) -> None:
    headers = {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"}
    believing = command("apps.dump:wsgi", *FOR_TESTS)
    environ = http.get(believing.url, headers=headers).json()
    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("203.0.113.9", "https")
    doubting = command("apps.dump:wsgi", *FOR_TESTS, "--forwarded-allow-ips", "192.0.2.0/24")
    environ = http.get(doubting.url, headers=headers).json()
    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("127.0.0.1", "http")


# How it stops.


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_in_flight_completes_before_it_stops(
    command: StartCommand, http: httpx.Client, tmp_path: Path, kind: str, number: signal.Signals
) -> None:
    server = command(*both("gate"), *FOR_TESTS)
    gate = tmp_path / "gate"
    with http.stream("GET", f"{server.url}/{kind}/?gate={gate}") as answer:
        received = answer.iter_text()
        assert next(received) == "waiting "
        server.send_signal(number)
        until(lambda: refuses(server.port))
        assert server.returncode is None
        gate.touch()
        assert "".join(received).startswith("done by ")
    assert server.wait() == 0


def test_a_request_that_has_no_answer_yet_completes_before_it_stops(
    command: StartCommand, http: httpx.Client, tmp_path: Path
) -> None:
    server = command(*both("gate"), *FOR_TESTS)
    gate = tmp_path / "gate"
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(http.get, f"{server.url}/wsgi/?gate={gate}&quiet")
        until((tmp_path / "gate.entered").exists)
        server.send_signal(signal.SIGTERM)
        until(lambda: refuses(server.port))
        gate.touch()
        assert answer.result().text.startswith("done by ")
    assert answer.result().headers["connection"] == "close"
    assert server.wait() == 0


def test_the_drain_is_bounded(command: StartCommand, http: httpx.Client, tmp_path: Path) -> None:
    server = command(*both("gate"), "--timeout-graceful-shutdown", "0.2", *FOR_TESTS)
    with http.stream("GET", f"{server.url}/asgi/?gate={tmp_path / 'gate'}") as answer:
        received = answer.iter_text()
        assert next(received) == "waiting "
        server.send_signal(signal.SIGTERM)
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            next(received)
    assert server.wait() == 0


def test_an_idle_connection_does_not_hold_up_the_stop(
    command: StartCommand, http: httpx.Client
) -> None:
    server = command("apps.dump:wsgi", "--timeout-keep-alive", "60", *FOR_TESTS)
    assert http.get(server.url).status_code == 200
    assert server.terminate(timeout=10) == 0


def test_websockets_are_told_before_the_server_stops(command: StartCommand) -> None:
    server = command("apps.echo:asgi", *FOR_TESTS)
    with connect(f"ws://127.0.0.1:{server.port}/", proxy=None) as websocket:
        websocket.send("here")
        assert websocket.recv(timeout=20) == "here"
        server.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv(timeout=20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    assert server.wait() == 0


def test_the_lifespan_ends_after_the_last_request(
    command: StartCommand, http: httpx.Client, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    server = command("apps.lifespans:recorded", *FOR_TESTS, env={"LIFESPAN_RECORD": str(record)})
    assert http.get(server.url).text == "42"
    assert server.terminate() == 0
    assert record.read_text() == "startup\nshutdown 42\n"


# Its workers.


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_a_worker_that_is_killed_is_replaced(
    command: StartCommand, http: httpx.Client, kind: str
) -> None:
    server = command(f"apps.process:{kind}", "--workers", "2", *FOR_TESTS)
    first = workers(server)
    assert len(first) == 2
    assert int(http.get(server.url).text) in first
    http.close()
    victim = min(first)
    os.kill(victim, signal.SIGKILL)
    server.wait_for_line(rf"worker.*\b{victim}\b")
    until(lambda: len(workers(server)) == 2 and victim not in workers(server))
    assert int(httpx.get(server.url, trust_env=False).text) in workers(server)
    assert server.terminate() == 0


def test_an_application_that_ends_its_process_ends_only_its_worker(command: StartCommand) -> None:
    server = command("apps.process:wsgi", *FOR_TESTS)
    before = workers(server)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        httpx.get(f"{server.url}/end", trust_env=False)
    server.wait_for_line(r"worker.*\b70\b")
    # The listening socket stays open all the time: the request waits for the next worker.
    assert int(httpx.get(server.url, trust_env=False, timeout=20).text) not in before
    assert server.terminate() == 0


def test_a_child_that_an_application_forks_answers_no_requests(command: StartCommand) -> None:
    server = command("apps.process:wsgi", *FOR_TESTS)
    child = int(httpx.get(f"{server.url}/fork", trust_env=False).text)
    try:
        for _ in range(50):
            assert int(httpx.get(server.url, trust_env=False, timeout=20).text) in workers(server)
    finally:
        os.kill(child, signal.SIGKILL)
    assert server.terminate() == 0


def test_workers_that_die_again_and_again_end_the_server(command: StartCommand) -> None:
    server = command("apps.process:asgi", *FOR_TESTS)
    for _ in range(50):
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{server.url}/end", trust_env=False, timeout=20)
        if refuses(server.port):
            break
    assert server.wait() == CRASH_LOOP
    assert re.search(r"^error: .*\b70\b", server.text, re.MULTILINE), server.text


def test_a_worker_that_ends_before_it_is_ready_ends_the_start(command: StartCommand) -> None:
    refused = command("apps.ends_at_import:app", "--workers", "2", *FOR_TESTS, ready=False)
    assert refused.wait() == 3
    assert re.search(r"^error: .*\b9\b", refused.text, re.MULTILINE), refused.text


def test_a_full_queue_is_answered_at_once(command: StartCommand, tmp_path: Path) -> None:
    server = command(*both("gate"), "--threads", "1", "--queue", "1", *FOR_TESTS)
    gate = tmp_path / "gate"
    with ThreadPoolExecutor() as threads:
        url = f"{server.url}/wsgi/?gate={gate}&quiet"
        asked = {threads.submit(httpx.get, url, trust_env=False, timeout=20) for _ in range(3)}
        done, waiting = wait(asked, timeout=20, return_when=FIRST_COMPLETED)
        refused = done.pop().result()
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        # The other application does not notice.
        (tmp_path / "open").touch()
        other = httpx.get(f"{server.url}/asgi/?gate={tmp_path / 'open'}", trust_env=False)
        assert other.text.startswith("waiting done")
        gate.touch()
        assert [answer.result().status_code for answer in waiting] == [200, 200]


# Reload.


def test_a_reload_loses_no_request(command: StartCommand, tmp_path: Path) -> None:
    version = tmp_path / "version"
    version.write_text("one")
    environment = {"VERSION_FILE": str(version)}
    server = command(*both("version"), "--workers", "2", *FOR_TESTS, env=environment)
    old = workers(server)

    def load(kind: str, *, keep_alive: bool) -> list[str]:
        """Asks until the new version has answered often enough, at most 5000 times."""
        seen: list[str] = []
        limits = httpx.Limits(max_keepalive_connections=None if keep_alive else 0)
        with httpx.Client(base_url=server.url, limits=limits, trust_env=False) as client:
            while seen.count("two") < 200 and len(seen) < 5000:
                answer = client.get(f"/{kind}/")
                assert answer.status_code == 200
                seen.append(answer.text)
        return seen

    with ThreadPoolExecutor() as threads:
        loads = [
            threads.submit(load, kind, keep_alive=keep_alive)
            for kind in ("wsgi", "asgi")
            for keep_alive in (False, True)
        ]
        until(lambda: '"GET /wsgi/' in server.text and '"GET /asgi/' in server.text)
        version.write_text("two")
        server.send_signal(signal.SIGHUP)
        for asked in loads:
            seen = asked.result()
            assert seen.count("two") == 200, server.text[-2000:]
            assert set(seen) == {"one", "two"}
    until(lambda: len(workers(server)) == 2)
    assert not old & workers(server)
    assert server.terminate() == 0


def test_a_reload_that_fails_leaves_the_old_workers_serving(
    command: StartCommand, http: httpx.Client, tmp_path: Path
) -> None:
    version = tmp_path / "version"
    version.write_text("one")
    server = command("apps.version:wsgi", *FOR_TESTS, env={"VERSION_FILE": str(version)})
    old = workers(server)
    version.write_text("broken")
    server.send_signal(signal.SIGHUP)
    server.wait_for_line("this version is broken")
    until(lambda: workers(server) == old)
    assert http.get(server.url).text == "one"
    # And the next reload can be a good one.
    version.write_text("two")
    server.send_signal(signal.SIGHUP)
    until(lambda: httpx.get(server.url, trust_env=False).text == "two")
    assert server.terminate() == 0


def test_a_reload_reads_the_configuration_again_and_keeps_the_last_good_one(
    command: StartCommand, tmp_path: Path
) -> None:
    file = tmp_path / "shop.toml"

    def configure(mount: str) -> None:
        file.write_text(f"""
            [apps.shop]
            app = "apps.version:wsgi"
            [[routes]]
            app = "shop"
            mount = "{mount}"
            """)

    version = tmp_path / "version"
    version.write_text("one")
    configure("/old")
    server = command("--config", str(file), *FOR_TESTS, env={"VERSION_FILE": str(version)})

    def status(path: str) -> int:
        return httpx.get(server.url + path, trust_env=False).status_code

    assert (status("/old"), status("/new")) == (200, 404)
    configure("/new")
    server.send_signal(signal.SIGHUP)
    until(lambda: (status("/old"), status("/new")) == (404, 200))
    configure("no slash")
    server.send_signal(signal.SIGHUP)
    server.wait_for_line("no reload")
    assert (status("/old"), status("/new")) == (404, 200)
    assert server.terminate() == 0


# The admin listener.


def test_health_and_metrics_are_merged_over_workers(command: StartCommand, tmp_path: Path) -> None:
    path = tmp_path / "a"
    admin = ("--admin", f"unix:{path}", "--workers", "2")
    server = command(*both("process"), *admin, *FOR_TESTS)
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost"
    ) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 200
        assert client.get("/nowhere").status_code == 404
        for _ in range(10):
            for kind in ("wsgi", "asgi"):
                httpx.get(f"{server.url}/{kind}/", trust_env=False)

        def total(name: str) -> float:
            text = client.get("/metrics").text
            values = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
            return sum(map(float, values))

        assert total("twinspan_workers") == 2
        until(lambda: total("twinspan_requests_total") == 20)
        assert client.get("/metrics").headers["content-type"].startswith("text/plain")
    assert server.terminate() == 0
    assert not path.exists()


def test_metrics_show_how_full_a_thread_pool_is(command: StartCommand, tmp_path: Path) -> None:
    path, gate = tmp_path / "a", tmp_path / "gate"
    admin = ("--admin", f"unix:{path}")
    server = command("apps.gate:wsgi", "--threads", "1", *admin, *FOR_TESTS)
    transport = httpx.HTTPTransport(uds=str(path))
    with (
        httpx.Client(transport=transport, base_url="http://localhost") as client,
        ThreadPoolExecutor() as threads,
    ):

        def pool() -> tuple[str, ...]:
            text = client.get("/metrics").text
            names = ("threads", "threads_busy", "waiting")
            return tuple(
                re.findall(rf"^twinspan_pool_{name}\{{.*\}} (\S+)$", text, re.MULTILINE)[0]
                for name in names
            )

        # The start gives the pool a job of its own.
        until(lambda: pool() == ("1", "0", "0"))
        url = f"{server.url}/?gate={gate}"
        asked = [threads.submit(httpx.get, url, trust_env=False) for _ in range(3)]
        until(lambda: pool() == ("1", "1", "2"))
        gate.touch()
        assert {answer.result().status_code for answer in asked} == {200}
        until(lambda: pool() == ("1", "0", "0"))


def test_without_admin_nobody_answers_for_it(command: StartCommand, http: httpx.Client) -> None:
    server = command("--mount", "/app=apps.dump:wsgi", *FOR_TESTS)
    for path in ("/healthz", "/readyz", "/metrics"):
        assert http.get(server.url + path).status_code == 404
