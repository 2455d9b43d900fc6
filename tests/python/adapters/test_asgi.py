"""ASGI applications over real sockets: what `receive` and `send` promise, and who breaks it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from adapters.raw import Client, wait_until_refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from support import Serve, StartCommand

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    Handler = Callable[[Scope, Receive, Send], Awaitable[None]]

TIMEOUT = 20.0


def http(handler: Handler) -> Handler:
    """An application without a lifespan that answers `/next` with `next`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        if scope["path"] == "/next":
            await respond(send, b"next")
        else:
            await handler(scope, receive, send)

    return app


async def respond(send: Send, body: bytes = b"", status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status})
    await send({"type": "http.response.body", "body": body})


async def begin(send: Send, body: bytes = b"begun") -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body, "more_body": True})


class Seen:
    """Lets a test wait for what an application says."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._changed = threading.Condition()

    def __call__(self, value: Any) -> None:
        with self._changed:
            self.values.append(value)
            self._changed.notify_all()

    def wait(self, count: int = 1) -> list[Any]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.values) >= count, TIMEOUT), self.values
            return list(self.values)


# --- receive ---


def test_receive_gives_the_body_and_then_waits_for_the_client_to_leave(serve: Serve) -> None:
    seen = Seen()

    async def handler(_scope: Scope, receive: Receive, _send: Send) -> None:
        seen(await receive())
        seen(await receive())
        seen(await receive())

    with Client(serve(http(handler)).port) as client:
        client.start("POST", "/", 4)
        client.send(b"body")
        assert seen.wait() == [{"type": "http.request", "body": b"body", "more_body": False}]
    assert seen.wait(3)[1:] == [{"type": "http.disconnect"}] * 2


def test_a_task_that_waits_in_receive_learns_of_a_client_that_leaves_within_the_response(
    serve: Serve,
) -> None:
    seen = Seen()

    async def handler(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        # Waits before the response begins: it is the response that knows later.
        disconnect = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        await begin(send)
        seen((await disconnect)["type"])

    with Client(serve(http(handler)).port) as client:
        client.start("GET", "/")
        assert client.head().status == 200
        assert client.chunk() == b"begun"
    assert seen.wait() == ["http.disconnect"]


def test_two_tasks_may_wait_in_receive(serve: Serve) -> None:
    seen = Seen()

    async def handler(_scope: Scope, receive: Receive, send: Send) -> None:
        async def read() -> None:
            seen((await receive())["body"])

        await asyncio.gather(read(), read())
        await respond(send)

    with Client(serve(http(handler)).port) as client:
        client.start("POST", "/", 6)
        client.send(b"one")
        assert seen.wait() == [b"one"]
        client.send(b"two")
        assert client.answer().status == 200
    assert seen.values == [b"one", b"two"]


def test_a_receive_that_is_cancelled_loses_nothing(serve: Serve) -> None:
    seen = Seen()

    async def handler(_scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(receive(), 0.001)
        seen("waited")
        await respond(send, (await receive())["body"])

    with Client(serve(http(handler)).port) as client:
        client.start("POST", "/", 4)
        seen.wait()
        client.send(b"body")
        assert client.answer().body == b"body"


def test_a_receive_that_is_given_up_again_and_again_leaves_no_trail(serve: Serve) -> None:
    counts: list[int] = []

    def futures() -> int:
        gc.collect()
        # By type: an object of another test may be lazy, and `isinstance` would wake it.
        return sum(issubclass(type(thing), asyncio.Future) for thing in gc.get_objects())

    async def handler(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for _ in range(2):
            for _ in range(200):
                waiting = asyncio.ensure_future(receive())
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.sleep(0)
            counts.append(futures())
        await respond(send)

    # The loop of the standard library makes futures that the collector knows.
    with Client(serve(http(handler), loop="asyncio").port) as client:
        assert client.ask().status == 200
    assert counts[1] - counts[0] < 100


def test_a_body_that_breaks_off_is_a_disconnect_and_never_an_end(serve: Serve) -> None:
    seen = Seen()

    async def handler(_scope: Scope, receive: Receive, _send: Send) -> None:
        for _ in range(3):
            seen(await receive())

    with Client(serve(http(handler)).port) as client:
        client.start("POST", "/", 10)
        client.send(b"half")
        assert seen.wait() == [{"type": "http.request", "body": b"half", "more_body": True}]
    assert seen.wait(3)[1:] == [{"type": "http.disconnect"}] * 2


@pytest.mark.parametrize("error", [None, OSError("left"), RuntimeError("left")], ids=repr)
def test_a_body_that_breaks_off_is_a_fault_of_the_client(
    serve: Serve, error: Exception | None
) -> None:
    async def handler(_scope: Scope, receive: Receive, _send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if error:
            raise error

    with Client(serve(http(handler)).port) as client:
        client.start("POST", "/", 10)
        client.send(b"half")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.answer().status == 400


def test_continue_is_said_when_the_application_reads_and_not_before(serve: Serve) -> None:
    read = threading.Event()

    async def handler(_scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.to_thread(read.wait, TIMEOUT)
        await respond(send, (await receive())["body"])

    with Client(serve(http(handler)).port) as client:
        client.start("POST", "/", 4, expect="100-continue")
        client.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.head()
        client.socket.settimeout(TIMEOUT)
        read.set()
        assert client.head().status == 100
        client.send(b"body")
        assert client.answer().body == b"body"


def test_an_application_that_refuses_unread_says_so_without_asking_for_the_body(
    serve: Serve,
) -> None:
    async def handler(_scope: Scope, _receive: Receive, send: Send) -> None:
        await respond(send, b"too large", 413)

    with Client(serve(http(handler)).port) as client:
        client.start("POST", "/", 10**9, expect="100-continue")
        answer = client.answer()
        assert (answer.status, answer.body) == (413, b"too large")
        assert client.ends()


def test_an_unread_body_does_not_hold_up_the_connection_while_the_application_works_on(
    serve: Serve,
) -> None:
    release = threading.Event()

    async def handler(_scope: Scope, _receive: Receive, send: Send) -> None:
        await respond(send, b"done")
        await asyncio.to_thread(release.wait, TIMEOUT)

    with Client(serve(http(handler)).port) as client:
        client.start("POST", "/", 4)
        assert client.answer().body == b"done"
        # The rest of a request that was answered already.
        client.send(b"body")
        try:
            client.start("GET", "/next")
            assert client.answer().body == b"next"
        except (EOFError, ConnectionError):
            # Closing is as good: a client asks again on another connection.
            pass
        finally:
            release.set()


# --- send ---


def test_headers_may_be_lists_and_iterables(serve: Serve) -> None:
    async def handler(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers: Any = iter([[b"X-One", b"1"], (b"x-two", b"2"), iter([b"x-three", b"3"])])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    with Client(serve(http(handler)).port) as client:
        answer = client.ask()
        assert [answer.header(f"x-{name}") for name in ("one", "two", "three")] == ["1", "2", "3"]


@pytest.mark.parametrize(
    "start",
    [
        {},
        {"status": None},
        {"status": "200"},
        {"status": 99},
        {"status": 101},
        {"status": 1000},
        {"status": -1},
        {"status": 2**80},
        {"status": 200, "headers": 5},
        {"status": 200, "headers": [b"ab"]},
        {"status": 200, "headers": [(b"a",)]},
        {"status": 200, "headers": [("a", "b")]},
        {"status": 200, "headers": [(b"a b", b"c")]},
        {"status": 200, "headers": [(b"", b"c")]},
        {"status": 200, "headers": [(b"a", b"b\r\nc: d")]},
        {"status": 200, "headers": [(b"a", b"b\0")]},
        {"status": 200, "headers": [(f"a{i}".encode(), b"b") for i in range(40_000)]},
    ],
)
def test_a_start_that_cannot_be_sent_raises_in_the_application_and_costs_that_request(
    serve: Serve, start: dict[str, Any]
) -> None:
    seen = Seen()

    async def handler(_scope: Scope, _receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", **start})
        except Exception as error:
            seen(type(error))
            raise

    with Client(serve(http(handler)).port) as client:
        assert client.ask().status == 500
        assert client.ask(target="/next").body == b"next"
    assert issubclass(seen.wait()[0], (TypeError, ValueError))


@pytest.mark.parametrize(
    "message",
    [
        None,
        {},
        {"type": 5},
        {"type": "http.response.trailers"},
        {"type": "websocket.accept"},
        {"type": "http.response.body", "body": b"before its start"},
    ],
)
def test_a_message_that_is_not_allowed_raises_in_the_application(
    serve: Serve, message: Any
) -> None:
    async def handler(_scope: Scope, _receive: Receive, send: Send) -> None:
        try:
            await send(message)
        except (KeyError, RuntimeError, TypeError):
            await respond(send, b"it raised")

    with Client(serve(http(handler)).port) as client:
        assert client.ask().body == b"it raised"


def test_a_second_start_and_a_body_after_the_end_raise(serve: Serve) -> None:
    seen = Seen()

    async def handler(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        with pytest.raises(RuntimeError):
            await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})
        with pytest.raises(RuntimeError):
            await send({"type": "http.response.body"})
        seen("raised")

    with Client(serve(http(handler)).port) as client:
        assert client.ask().status == 200
    seen.wait()


def test_send_raises_os_error_once_the_client_has_left(serve: Serve) -> None:
    seen = Seen()

    async def handler(_scope: Scope, _receive: Receive, send: Send) -> None:
        await begin(send)
        seen("begun")
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
        except OSError:
            seen("left")
            raise

    with Client(serve(http(handler)).port) as client:
        client.start("GET", "/")
        client.head()
    assert seen.wait(2) == ["begun", "left"]


def test_a_client_that_does_not_read_holds_send_back(serve: Serve) -> None:
    sent = 0
    held = threading.Event()

    async def handler(_scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal sent
        await begin(send)
        piece = {"type": "http.response.body", "body": b"x" * 65536, "more_body": True}
        while sent < 4000:
            waiting = asyncio.ensure_future(send(piece))
            done, _ = await asyncio.wait({waiting}, timeout=0.5)
            if not done:
                held.set()
            await waiting
            sent += 1
        await send({"type": "http.response.body"})

    with Client(serve(http(handler)).port) as client:
        client.start("GET", "/")
        client.head()
        assert held.wait(TIMEOUT)
        assert sent < 1000
        total = 0
        while piece := client.chunk():
            total += len(piece)
        assert total == 4000 * 65536 + len(b"begun")


# --- how an application ends ---


class Odd(BaseException):
    """What nobody expects."""


ENDINGS = [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, Odd]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("pause", [False, True])
@pytest.mark.parametrize("ending", ENDINGS)
def test_whatever_is_raised_before_the_response_is_a_500_and_the_loop_goes_on(
    serve: Serve, ending: type[BaseException], pause: bool, loop: str
) -> None:
    async def handler(_scope: Scope, _receive: Receive, _send: Send) -> None:
        if pause:
            await asyncio.sleep(0)
        raise ending

    with Client(serve(http(handler), loop=loop).port) as client:
        for _ in range(2):
            assert client.ask().status == 500
            assert client.ask(target="/next").body == b"next"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("pause", [False, True])
@pytest.mark.parametrize("ending", [*ENDINGS, None])
def test_a_response_that_breaks_off_never_looks_complete(
    serve: Serve, ending: type[BaseException] | None, pause: bool, loop: str
) -> None:
    async def handler(_scope: Scope, _receive: Receive, send: Send) -> None:
        await begin(send)
        if pause:
            await asyncio.sleep(0)
        if ending:
            raise ending

    server = serve(http(handler), loop=loop)
    with Client(server.port) as client:
        client.start("GET", "/")
        assert client.is_reset()
    with Client(server.port) as client:
        client.send("GET / HTTP/1.0\r\n\r\n")
        assert client.is_reset()
    with httpx.Client(http1=False, http2=True, trust_env=False) as http2:
        with pytest.raises(httpx.RemoteProtocolError):
            http2.get(server.url)
        assert http2.get(f"{server.url}/next").content == b"next"


def test_an_application_that_returns_without_a_response_gets_a_500_in_its_place(
    serve: Serve,
) -> None:
    async def handler(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"] == "/start":
            await send({"type": "http.response.start", "status": 204})

    with Client(serve(http(handler)).port) as client:
        assert client.ask().status == 500
        assert client.ask(target="/start").status == 500


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_application_that_stops_the_loop_stops_nothing(serve: Serve, loop: str) -> None:
    async def handler(_scope: Scope, _receive: Receive, send: Send) -> None:
        asyncio.get_running_loop().stop()
        await respond(send, b"stopped")

    with Client(serve(http(handler), loop=loop).port) as client:
        assert client.ask().body == b"stopped"
        assert client.ask(target="/next").body == b"next"


# --- tasks ---


def test_the_first_step_runs_in_a_task_of_its_own(serve: Serve) -> None:
    async def handler(_scope: Scope, _receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        assert task in asyncio.all_tasks()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anyio.sleep(TIMEOUT)
        assert scope.cancelled_caught
        with anyio.move_on_after(0.001):
            await asyncio.sleep(TIMEOUT)
        if sys.version_info >= (3, 11):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await asyncio.sleep(TIMEOUT)
        async with anyio.create_task_group() as group:
            group.start_soon(asyncio.sleep, 0)
        await respond(send, b"fine")

    with Client(serve(http(handler)).port) as client:
        assert client.ask().body == b"fine"


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_context_variables_belong_to_one_request(serve: Serve) -> None:
    async def handler(_scope: Scope, _receive: Receive, send: Send) -> None:
        before = variable.get()
        variable.set("set")
        await respond(send, before.encode())

    with Client(serve(http(handler)).port) as client:
        assert [client.ask().body for _ in range(3)] == [b"unset"] * 3


def test_an_application_that_is_no_coroutine_function_runs_in_its_task_too(serve: Serve) -> None:
    async def inner(_scope: Scope, _receive: Receive, send: Send, before: str) -> None:
        await respond(send, before.encode())

    class Middleware:
        def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            assert asyncio.current_task() is not None
            before = variable.get()
            variable.set("set")
            return inner(scope, receive, send, before)

    with Client(serve(Middleware(), lifespan="off").port) as client:
        assert [client.ask().body for _ in range(3)] == [b"unset"] * 3


# --- the end ---


def test_work_after_the_response_is_finished_before_the_server_stops(serve: Serve) -> None:
    release = threading.Event()
    shutdown = threading.Event()
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            seen("shutdown")
            shutdown.set()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await respond(send)
        await asyncio.to_thread(release.wait, TIMEOUT)
        seen("worked")

    server = serve(app)
    with Client(server.port) as client:
        assert client.ask(connection="close").status == 200
    server.stop()
    wait_until_refused(server.port)
    # A shutdown that does not wait for the work comes now.
    shutdown.wait(0.3)
    release.set()
    server.close()
    assert seen.values == ["worked", "shutdown"]


def test_work_that_does_not_end_in_time_is_cancelled_before_the_shutdown(serve: Serve) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            seen("shutdown")
            await send({"type": "lifespan.shutdown.complete"})
            return
        await respond(send)
        try:
            await asyncio.sleep(1000)
        finally:
            seen("cancelled")

    server = serve(app, timeout_graceful_shutdown=0.1)
    with Client(server.port) as client:
        assert client.ask(connection="close").status == 200
    server.close()
    assert seen.values == ["cancelled", "shutdown"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_task_that_refuses_to_end_does_not_keep_the_server(serve: Serve, loop: str) -> None:
    async def handler(_scope: Scope, _receive: Receive, send: Send) -> None:
        await respond(send)
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1000)

    server = serve(http(handler), timeout_graceful_shutdown=0.1, loop=loop)
    with Client(server.port) as client:
        assert client.ask(connection="close").status == 200
    before = time.monotonic()
    server.close()
    assert time.monotonic() - before < TIMEOUT


def test_a_worker_ends_although_a_thread_of_its_executor_is_stuck(command: StartCommand) -> None:
    process = command(
        "app:app",
        "--bind=127.0.0.1:0",
        "--timeout-graceful-shutdown=0.2",
        files={
            "app.py": """
                import asyncio, time

                async def app(scope, receive, send):
                    assert scope["type"] == "http"
                    asyncio.get_running_loop().run_in_executor(None, time.sleep, 1000)
                    await send({"type": "http.response.start", "status": 200})
                    await send({"type": "http.response.body", "body": b"stuck"})
                """
        },
    )
    with Client(process.port) as client:
        assert client.ask(connection="close").body == b"stuck"
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    assert "killed" not in process.text


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_ctrl_c_ends_a_server_that_a_program_runs_without_a_handler(kind: str) -> None:
    program = f"""
from twinspan.testing import Server

async def asgi(scope, receive, send):
    assert scope["type"] == "http"

def wsgi(environ, start_response):
    raise NotImplementedError

server = Server({kind})
print(server.port, flush=True)
server.run()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        with Client(int(process.stdout.readline())) as client:
            # Answered by then: it runs.
            assert client.ask().status == 500
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == -signal.SIGINT, errors
