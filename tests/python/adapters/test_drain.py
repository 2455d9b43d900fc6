"""What a stop, or a client that leaves, means to an ASGI application that is not done."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from adapters.raw import Client, wait_until_refused
from adapters.test_asgi import Seen, begin, respond
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

if TYPE_CHECKING:
    from adapters.test_asgi import Handler, Receive, Scope, Send
    from support import Serve

TIMEOUT = 20.0


def app(handler: Handler, seen: Seen) -> Handler:
    """Says when its lifespan ends."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await handler(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        seen("shutdown")
        await send({"type": "lifespan.shutdown.complete"})

    return call


async def begin_events(send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send_event(send)


async def send_event(send: Send) -> None:
    await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})


def read_to_end(client: Client) -> bytes:
    """The rest of a chunked body; raises if it was broken off."""
    return b"".join(iter(client.chunk, b""))


def test_an_event_stream_is_told_at_once_and_ends_well(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    seen = Seen()

    async def handler(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await begin_events(send)
        seen((await receive())["type"])
        with pytest.raises(OSError, match="disconnected"):
            await send_event(send)

    server = serve(app(handler, seen))
    with Client(server.port) as client:
        client.start("GET", "/")
        client.head()
        assert client.chunk() == b"data: 1\n\n"
        server.stop()
        assert read_to_end(client) == b""
        server.close()
    assert seen.values == ["http.disconnect", "shutdown"]
    assert capfd.readouterr().err == ""


def test_an_event_stream_that_only_sends_ends_with_its_next_event(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    seen = Seen()
    release = threading.Event()

    async def handler(_scope: Scope, _receive: Receive, send: Send) -> None:
        await begin_events(send)
        await asyncio.to_thread(release.wait, TIMEOUT)
        while True:
            await send_event(send)

    server = serve(app(handler, seen))
    with Client(server.port) as client:
        client.start("GET", "/")
        client.head()
        server.stop()
        wait_until_refused(server.port)
        release.set()
        assert read_to_end(client) == b"data: 1\n\n"
        server.close()
    assert seen.values == ["shutdown"]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("method", "kind"), [("POST", b"text/event-stream"), ("GET", b"text/plain")]
)
def test_a_response_that_nobody_would_ask_for_again_goes_on_to_its_end(
    serve: Serve, method: str, kind: bytes
) -> None:
    seen = Seen()
    release = threading.Event()

    async def handler(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        disconnect = asyncio.ensure_future(receive())
        headers = [(b"content-type", kind)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"one ", "more_body": True})
        await asyncio.to_thread(release.wait, TIMEOUT)
        await send({"type": "http.response.body", "body": b"two ", "more_body": True})
        await send({"type": "http.response.body", "body": b"three"})
        seen((await disconnect)["type"])

    server = serve(app(handler, seen))
    with Client(server.port) as client:
        client.start(method, "/", 0)
        client.head()
        server.stop()
        wait_until_refused(server.port)
        assert seen.values == []
        release.set()
        assert read_to_end(client) == b"one two three"
        server.close()
    assert seen.values == ["http.disconnect", "shutdown"]


def test_a_stream_without_an_end_is_told_before_it_is_cut_off_and_may_end_well(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    seen = Seen()

    async def handler(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await begin(send)
        seen((await receive())["type"])
        await send({"type": "http.response.body", "body": b" and ended"})

    server = serve(app(handler, seen), timeout_graceful_shutdown=2)
    with Client(server.port) as client:
        client.start("GET", "/")
        client.head()
        server.stop()
        assert read_to_end(client) == b"begun and ended"
        server.close()
    assert seen.values == ["http.disconnect", "shutdown"]
    assert "ERROR" not in capfd.readouterr().err


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_request_that_does_not_end_in_time_is_reset_and_its_task_cancelled_before_the_shutdown(
    serve: Serve, capfd: pytest.CaptureFixture[str], loop: str
) -> None:
    seen = Seen()

    async def handler(_scope: Scope, _receive: Receive, send: Send) -> None:
        await begin(send)
        try:
            await asyncio.sleep(1000)
        finally:
            seen("cancelled")

    server = serve(app(handler, seen), timeout_graceful_shutdown=0.1, loop=loop)
    with Client(server.port) as client:
        client.start("GET", "/")
        client.head()
        server.stop()
        assert client.is_reset()
        server.close()
    assert seen.values == ["cancelled", "shutdown"]
    errors = capfd.readouterr().err
    # That it was cut off is worth a line, that the task ended as it was asked to is none.
    assert "connections were cut off" in errors
    assert "Traceback" not in errors
    assert "ERROR" not in errors


def test_a_websocket_may_put_away_what_it_has_after_its_close_and_before_the_shutdown(
    serve: Serve,
) -> None:
    seen = Seen()
    release = threading.Event()

    async def handler(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "open"})
        seen((await receive())["text"])
        seen((await receive())["code"])
        with pytest.raises(OSError, match="closed"):
            await send({"type": "websocket.send", "text": "too late"})
        await asyncio.to_thread(release.wait, TIMEOUT)
        seen("put away")

    server = serve(app(handler, seen))
    with connect(f"ws://{server.address}/", proxy=None) as websocket:
        assert websocket.recv(TIMEOUT) == "open"
        websocket.send("last")
        seen.wait()
        server.stop()
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv(TIMEOUT)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert seen.wait(2) == ["last", 1012]
        release.set()
        server.close()
    assert seen.values == ["last", 1012, "put away", "shutdown"]


def test_a_websocket_task_that_does_not_end_in_time_is_cancelled_before_the_shutdown(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    seen = Seen()

    async def handler(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await asyncio.sleep(1000)
        finally:
            seen("cancelled")

    server = serve(app(handler, seen), timeout_graceful_shutdown=0.1)
    with connect(f"ws://{server.address}/", proxy=None):
        server.close()
    assert seen.values == ["cancelled", "shutdown"]
    errors = capfd.readouterr().err
    assert "Traceback" not in errors
    assert "ERROR" not in errors


# Clients that leave, and those that have what they asked for.


@pytest.mark.parametrize("way", ["receive", "send"])
def test_a_client_that_leaves_an_event_stream_leaves_no_task_behind(serve: Serve, way: str) -> None:
    seen = Seen()
    tasks: list[int] = []

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/tasks":
            tasks.append(len(asyncio.all_tasks()))
            await respond(send)
            return
        await receive()
        await begin_events(send)
        seen("begun")
        if way == "receive":
            seen((await receive())["type"])
            return
        try:
            while True:
                await asyncio.sleep(0.001)
                await send_event(send)
        except OSError:
            seen("http.disconnect")

    port = serve(app(handler, seen)).port
    with Client(port) as asking:
        assert asking.ask(target="/tasks").status == 200
        for count in range(1, 4):
            with Client(port) as client:
                client.start("GET", "/")
                client.head()
                seen.wait(2 * count - 1)
            assert seen.wait(2 * count)[-1] == "http.disconnect"
        assert asking.ask(target="/tasks").status == 200
    assert tasks[0] == tasks[1]


def test_an_endless_stream_ends_when_only_its_head_was_asked_for(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    seen = Seen()

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/receive":
            await receive()
            await begin_events(send)
            seen((await receive())["type"])
            return
        await begin_events(send)
        try:
            while True:
                await asyncio.sleep(0)
                await send_event(send)
        except OSError:
            seen("left")
            raise

    with Client(serve(app(handler, seen)).port) as client:
        for target in ("/receive", "/send"):
            client.start("HEAD", target)
            assert client.head().status == 200
        # At the latest after a second, and the connection is as good as before.
        assert seen.wait(2) == ["http.disconnect", "left"]
        client.start("HEAD", "/send")
        assert client.head().status == 200
    assert capfd.readouterr().err == ""


def test_a_stream_with_an_end_comes_to_it_when_only_its_head_was_asked_for(serve: Serve) -> None:
    seen = Seen()

    async def handler(_scope: Scope, _receive: Receive, send: Send) -> None:
        await begin(send)
        for _ in range(10):
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
        await send({"type": "http.response.body"})
        seen("background task")

    with Client(serve(app(handler, seen)).port) as client:
        client.start("HEAD", "/")
        assert client.head().status == 200
        assert seen.wait() == ["background task"]
