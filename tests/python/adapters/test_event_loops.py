"""Any event loop of asyncio's kind runs the applications; one that cannot says why."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import re
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from adapters.raw import TIMEOUT, Client
from adapters.test_asgi import respond
from apps import loops
from twinspan.testing import Server
from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from adapters.test_asgi import Receive, Scope, Send
    from support import Serve

LOOPS = {
    "asyncio": r"asyncio\.unix_events\._UnixSelectorEventLoop",
    "uvloop": r"uvloop\.Loop",
    "auto": r"uvloop\.Loop",
    "uvloop:new_event_loop": r"uvloop\.Loop",
    "asyncio:SelectorEventLoop": r"asyncio\.unix_events\._UnixSelectorEventLoop",
    "rloop:new_event_loop": r"rloop\.",
    "apps.loops:Selector": r"apps\.loops\.Selector",
    "apps.loops:NeverEager": r"apps\.loops\.NeverEager",
    "apps.loops:made_by_a_function": r"apps\.loops\.Selector",
    "apps.loops:Holder.selector": r"apps\.loops\.Selector",
}


# rloop leaves sockets for the collector to close.
IGNORE_LEFT_SOCKETS = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@IGNORE_LEFT_SOCKETS
@pytest.mark.parametrize("loop", LOOPS)
def test_applications_run_on_the_loop_that_was_chosen(serve: Serve, loop: str) -> None:
    if loop.startswith("rloop"):
        pytest.importorskip("rloop")
    server = serve(loops.app, loop=loop)
    with httpx.Client(base_url=server.url, trust_env=False, timeout=20) as client:
        for _ in range(3):
            text = client.post("/", content=b"echo").text
            assert re.fullmatch(rf"{LOOPS[loop]}.* echo", text), text


@pytest.mark.parametrize(
    ("loop", "problem"),
    [
        ("nowhere:Loop", "there is no module `nowhere`"),
        ("apps.loops:Selectr", "has no attribute `Selectr`\nhint: .*`Selector`"),
        ("apps.loops:number", "`apps.loops:number` is a `int`, which cannot be called"),
        ("apps.loops:a_dict", "it returned no event loop but a `dict`"),
        ("apps.loops:app", "it raised TypeError"),
        ("apps.loops:raising", "it raised RuntimeError: no loop today"),
        ("apps.loops:closed", "it returned an event loop that is closed"),
        ("apps.loops:CannotWatch", "its loop cannot watch a file descriptor .*NotImplementedError"),
    ],
)
def test_a_loop_that_cannot_be_used_ends_the_start_with_the_reason(loop: str, problem: str) -> None:
    with pytest.raises(RuntimeError) as refused, Server(loops.app, loop=loop):
        pass
    expected = rf"its event loop \(`--loop {loop}`\): .*{problem}"
    assert re.search(expected, str(refused.value)), refused.value


# What applications do to the loop that they share.

EACH_LOOP = pytest.mark.parametrize(
    "loop", ["asyncio", "uvloop", "rloop:new_event_loop", "apps.loops:NeverEager"], indirect=True
)
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name.startswith("rloop"):
        pytest.importorskip("rloop")
    return name


def legacy(_environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
    start_response("200 OK", [])
    return [b"legacy"]


@IGNORE_LEFT_SOCKETS
@EACH_LOOP
def test_a_loop_that_is_held_up_costs_nobody_a_connection(serve: Serve, loop: str) -> None:
    entered, release = threading.Event(), threading.Event()
    timeout = 0.2

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            entered.set()
            # Blocks the loop and gives the GIL away, as a slow query does.
            release.wait(TIMEOUT)
            await respond(send, b"held up")
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": message["text"]})

    options = {"ws_ping_interval": 0.05, "ws_ping_timeout": timeout, "loop": loop}
    server = serve(app, mounts={"/legacy": legacy}, **options)
    url = f"ws://{server.address}/"
    with connect(url, proxy=None) as websocket, Client(server.port) as blocking:
        blocking.start("GET", "/")
        assert entered.wait(TIMEOUT)
        began = time.monotonic()
        while time.monotonic() - began < 3 * timeout:
            assert websocket.ping().wait(TIMEOUT)
        with Client(server.port) as other:
            assert other.ask(target="/legacy").body == b"legacy"
        release.set()
        assert blocking.answer().body == b"held up"
        websocket.send("still here")
        assert websocket.recv(TIMEOUT) == "still here"


@IGNORE_LEFT_SOCKETS
@EACH_LOOP
@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_callback_or_a_task_beside_a_request_that_raises_ends_nothing(
    serve: Serve, loop: str, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise error("from a task")

    def fail_now() -> None:
        raise error("from a callback")

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        running = asyncio.get_running_loop()
        running.call_soon(fail_now)
        with contextlib.suppress(error):
            await running.create_task(fail())
        await asyncio.sleep(0)
        await respond(send, b"alive")

    with Client(serve(app, loop=loop).port) as client:
        for _ in range(3):
            assert client.ask().body == b"alive"
    if error is ValueError:
        assert "ValueError: from a callback" in caplog.text


@IGNORE_LEFT_SOCKETS
@EACH_LOOP
def test_context_variables_are_fresh_in_each_request_whatever_ran_before(
    serve: Serve, loop: str
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        before = variable.get()
        variable.set(scope["type"])
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            # Across receive and send it is one context.
            assert variable.get() == "lifespan"
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": before})
        else:
            await receive()
            await asyncio.sleep(0)
            await respond(send, f"{before} {variable.get()}".encode())

    server = serve(app, loop=loop)
    with Client(server.port) as client:
        for _ in range(2):
            assert client.ask().body == b"unset http"
            with connect(f"ws://{server.address}/", proxy=None) as websocket:
                assert websocket.recv(TIMEOUT) == "unset"
