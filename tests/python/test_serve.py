"""Servers in this process: `twinspan.serve`, `twinspan.Server`, `twinspan.testing.Server`."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import twinspan
from apps import dump, echo, gate, lifespans
from twinspan.testing import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from support import Serve, StartCommand


def get(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=20)


def raising(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    raise RuntimeError("raised by the application")


def test_objects_are_served_side_by_side(serve: Serve) -> None:
    server = serve(dump.wsgi, mounts={"/live": dump.asgi})
    assert get(server.url + "/x").json()["PATH_INFO"] == "/x"
    assert get(server.url + "/live/x").json()["root_path"] == "/live"
    assert server.url == f"http://127.0.0.1:{server.port}"
    assert server.addresses == [server.address]


def test_targets_are_named_as_for_the_command(serve: Serve) -> None:
    assert get(serve("apps.dump:wsgi").url).json()["SCRIPT_NAME"] == ""


def test_several_servers_run_at_once(serve: Serve) -> None:
    servers = [serve(app) for app in (dump.wsgi, dump.asgi, dump.asgi)]
    assert len({server.port for server in servers}) == 3
    for server in servers:
        assert get(server.url).status_code == 200


def test_servers_come_and_go_with_the_same_application() -> None:
    for _ in range(5):
        with Server(mounts={"/w": dump.wsgi, "/a": dump.asgi}) as server:
            assert get(server.url + "/w").status_code == 200
            assert get(server.url + "/a").status_code == 200
        with pytest.raises(httpx.ConnectError):
            get(server.url)


def test_a_server_runs_only_once() -> None:
    server = Server(dump.wsgi)
    with server:
        pass
    with pytest.raises(RuntimeError, match="only once"), server:
        pass


def test_it_serves_while_the_caller_has_an_event_loop_of_its_own() -> None:
    async def ask() -> int:
        with Server(dump.asgi) as server:
            async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
                return (await client.get(server.url)).status_code

    assert asyncio.run(ask()) == 200


def test_lifespan_runs_for_each_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = tmp_path / "record"
    monkeypatch.setenv("LIFESPAN_RECORD", str(record))
    with Server(lifespans.recorded) as server:
        assert get(server.url).text == "42"
    assert record.read_text() == "startup\nshutdown 42\n"


def test_an_application_that_does_not_start_says_why() -> None:
    with pytest.raises(RuntimeError, match="the database is not there"), Server(lifespans.failing):
        pass


def test_an_application_that_is_none_says_so() -> None:
    def zero() -> None: ...

    with pytest.raises(RuntimeError, match="neither WSGI nor ASGI"), Server(zero):
        pass


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"treads": 4}, "`treads`.*\n?.*`threads`"),
        ({"threads": "many"}, "`threads`"),
        ({"threads": 0}, "`threads`: 0 is too few"),
        ({"workers": 2}, "(?s)`workers`: .*hint: .*twinspan --workers"),
        ({"admin": "0.0.0.0:9000"}, "`admin`"),
        ({"bind": "nowhere"}, "`bind`"),
    ],
)
def test_a_wrong_option_is_a_value_error(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text) as refused:
        Server(dump.wsgi, **options)
    assert not str(refused.value).startswith("error")


def test_no_application_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="no application"):
        Server()


def test_an_address_in_use_is_an_os_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"{re.escape(address)} is in use"):
            Server(dump.wsgi, bind=address)


def test_a_unix_socket_is_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with Server(dump.wsgi, uds=str(path)) as server:
        assert server.address == f"unix:{path}"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            assert client.get("http://localhost/").status_code == 200
    assert not path.exists()


def test_the_admin_endpoint_answers_also_here(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "admin"
    with Server(dump.wsgi, admin=f"unix:{path}", threads=3) as server:
        assert get(server.url).status_code == 200
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost"
        ) as admin:
            assert admin.get("/readyz").text == "ready\n"
            text = admin.get("/metrics").text
    assert re.search(r'^twinspan_requests_total\{.*status="200"\} 1$', text, re.MULTILINE), text
    assert re.search(r"^twinspan_pool_threads\{.*\} 3$", text, re.MULTILINE), text
    assert not path.exists()


def test_the_end_of_the_block_waits_for_requests_in_flight(tmp_path: Path) -> None:
    path = tmp_path / "gate"
    answers: list[httpx.Response] = []
    with Server(gate.wsgi) as server:
        url = f"{server.url}/?gate={path}&quiet"
        asking = threading.Thread(target=lambda: answers.append(get(url)))
        asking.start()
        while not (tmp_path / "gate.entered").exists():
            assert asking.is_alive()
        server.stop()
        path.touch()
    asking.join()
    assert [answer.text for answer in answers] == [f"done by {os.getpid()}\n"]


def test_an_exception_of_the_application_is_shown(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    server = serve(raising)
    assert get(server.url).status_code == 500
    shown = capfd.readouterr().err
    assert "Traceback (most recent call last):" in shown
    assert "RuntimeError: raised by the application" in shown


def test_a_server_for_tests_is_silent_otherwise(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    assert get(serve(dump.wsgi).url).status_code == 200
    assert capfd.readouterr() == ("", "")


def test_websockets_work_here_too(serve: Serve) -> None:
    from websockets.sync.client import connect

    server = serve(echo.asgi)
    with connect(f"ws://{server.address}/", proxy=None) as websocket:
        websocket.send("here")
        assert websocket.recv(timeout=20) == "here"


def test_serve_needs_no_main_thread() -> None:
    server = twinspan.Server(dump.wsgi, bind="127.0.0.1:0", access_log=False, log_level="warning")
    running = threading.Thread(target=server.run)
    running.start()
    assert get(f"http://{server.addresses[0]}").status_code == 200
    server.stop()
    running.join(20)
    assert not running.is_alive()


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_with_a_signal_and_gives_it_back(
    command: StartCommand, kind: str, number: signal.Signals
) -> None:
    program = f"""
        import signal

        import twinspan
        from apps import dump

        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        twinspan.serve(dump.{kind}, bind="127.0.0.1:0")
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
        print("served")
    """
    server = command(
        program=("program.py",),
        files={"program.py": program},
        env={"PYTHONPATH": str(Path(__file__).parent)},
    )
    shown = server.wait_for_line(rf"application {kind}").string
    assert kind.upper() in shown
    assert "mounted at /" in shown
    assert get(server.url).status_code == 200
    server.wait_for_line('"GET / HTTP/1.1" 200 ')
    server.send_signal(number)
    assert server.wait() == 0
    assert server.stdout[-1] == "served"
