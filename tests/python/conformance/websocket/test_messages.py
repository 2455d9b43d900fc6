"""Messages in both directions, and what holds them back (ASGI "WebSocket", RFC 6455 §5 and §6)."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from conformance.websocket.peers import (
    ACCEPT,
    LONG,
    App,
    Raw,
    Receive,
    Say,
    Scope,
    Send,
    accept,
    attempt,
    client,
    raw_client,
)

if TYPE_CHECKING:
    from support import Serve


def test_received_messages_have_both_keys_one_of_them_none(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await accept(receive, send)
        for _ in range(4):
            say(await receive())

    app = App(session)
    with client(serve(app)) as connection:
        for message in ("é𝄞", "", b"\x00\xff", b""):
            connection.send(message)
        for text, data in (("é𝄞", None), ("", None), (None, b"\x00\xff"), (None, b"")):
            assert app.says() == {"type": "websocket.receive", "text": text, "bytes": data}


def test_a_task_that_waits_since_before_the_accept_gets_the_first_message(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        assert (await receive())["type"] == "websocket.connect"
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)  # lets it begin to wait
        await send({"type": "websocket.accept"})
        say(await waiting)

    app = App(session)
    with client(serve(app)) as connection:
        connection.send("first")
        assert app.says() == {"type": "websocket.receive", "text": "first", "bytes": None}


def test_text_and_bytes_reach_the_client_as_what_they_are(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await accept(receive, send)
        await send({"type": "websocket.send", "text": "é𝄞"})
        await send({"type": "websocket.send", "text": "", "bytes": None})
        await send({"type": "websocket.send", "bytes": b"", "text": None})
        await send({"type": "websocket.send", "bytes": b"\x00\xff"})
        await send({"type": "websocket.send", "bytes": bytearray(b"array")})
        await send({"type": "websocket.send", "bytes": memoryview(b"view")})

    with client(serve(App(session))) as connection:
        got = [connection.recv() for _ in range(6)]
    assert got == ["é𝄞", "", b"", b"\x00\xff", b"array", b"view"]


@pytest.mark.parametrize("size", [125, 126, 65_535, 65_536, 65_537, 3_000_000])
def test_messages_of_every_size_come_back_unchanged(serve: Serve, size: int) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await accept(receive, send)
        for _ in range(2):
            message = await receive()
            await send({**message, "type": "websocket.send"})

    with client(serve(App(session)), max_size=None) as connection:
        for message in ("é" * (size // 2), bytes(range(256)) * (size // 256 + 1)):
            connection.send(message)
            assert connection.recv() == message


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ({"type": "websocket.send"}, ValueError),
        ({"type": "websocket.send", "text": None, "bytes": None}, ValueError),
        ({"type": "websocket.send", "text": "x", "bytes": b"x"}, ValueError),
        ({"type": "websocket.send", "text": b"x"}, TypeError),
        ({"type": "websocket.send", "bytes": "x"}, TypeError),
        ({"type": "websocket.send", "text": "\ud800"}, UnicodeEncodeError),
        (ACCEPT, RuntimeError),
        ({"type": "websocket.http.response.start", "status": 401}, RuntimeError),
        ({"type": "websocket.http.response.body", "body": b""}, RuntimeError),
        ({"type": "http.response.start", "status": 200}, RuntimeError),
        ({"type": "websocket.receive"}, RuntimeError),
        ({}, KeyError),
        ("websocket.send", TypeError),
        (None, TypeError),
    ],
)
def test_a_message_that_is_wrong_raises_and_the_connection_goes_on(
    serve: Serve, message: Any, kind: type[Exception]
) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await accept(receive, send)
        await attempt(send, message, say)
        await send({"type": "websocket.send", "text": "goes on"})

    app = App(session)
    with client(serve(app)) as connection:
        assert app.says()[0] is kind
        assert connection.recv() == "goes on"


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.send", "text": "early"},
        {"type": "websocket.http.response.body", "body": b""},
    ],
)
def test_a_message_before_accept_raises(serve: Serve, message: Any) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await receive()
        await attempt(send, message, say)
        await send(ACCEPT)

    app = App(session)
    with client(serve(app)):
        assert app.says()[0] is RuntimeError


def test_fragments_arrive_as_one_message_whatever_control_frames_are_between(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await accept(receive, send)
        say((await receive())["text"])

    app = App(session)
    with raw_client(serve(app)) as raw:
        raw.upgrade()
        raw.send(0x01, "é".encode()[:1])
        raw.send(0x89, b"ping")
        assert raw.frame() == (0x8A, b"ping")
        raw.send(0x00, "é".encode()[1:])
        raw.send(0x8A, b"pong")
        raw.send(0x00)
        raw.send(0x80, b" whole")
        assert app.says() == "é whole"


def test_pings_are_answered_while_the_application_blocks_its_loop(serve: Serve) -> None:
    go_on = threading.Event()

    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await accept(receive, send)
        await receive()
        say("blocked")
        assert go_on.wait(LONG)  # blocks on purpose
        say((await receive())["text"])

    app = App(session)
    with client(serve(app)) as connection:
        connection.send("block")
        assert app.says() == "blocked"
        assert connection.ping().wait(LONG)
        connection.send("after")
        go_on.set()
        assert app.says() == "after"


def test_a_blocked_loop_keeps_no_ping_of_the_server_back(serve: Serve) -> None:
    go_on = threading.Event()

    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await accept(receive, send)
        await receive()
        assert go_on.wait(LONG)  # blocks on purpose
        await send({"type": "websocket.send", "text": "still there"})

    with raw_client(serve(App(session), ws_ping_interval=0.05, ws_ping_timeout=LONG)) as raw:
        raw.upgrade()
        raw.send(0x81, b"block")
        for _ in range(5):
            first, payload = raw.frame()
            assert first == 0x89
            raw.send(0x8A, payload)
        go_on.set()
        while (frame := raw.frame())[0] == 0x89:
            pass
        assert frame == (0x81, b"still there")


def test_two_tasks_may_receive_at_once_and_each_message_goes_to_one(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await accept(receive, send)
        tasks = [asyncio.create_task(receive()) for _ in range(2)]  # pyright: ignore[reportArgumentType] # has all methods of a coroutine
        await asyncio.sleep(0)
        say("both wait")
        say(sorted(message["text"] for message in await asyncio.gather(*tasks)))

    app = App(session)
    with client(serve(app)) as connection:
        assert app.says() == "both wait"
        connection.send("one")
        connection.send("two")
        assert app.says() == ["one", "two"]


def test_a_receive_that_is_cancelled_loses_no_message(serve: Serve) -> None:
    arrived = threading.Event()

    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await accept(receive, send)
        waiting = asyncio.ensure_future(receive())  # pyright: ignore[reportArgumentType] # has all methods of a coroutine
        await asyncio.sleep(0)
        waiting.cancel()
        say("cancelled")
        say((await receive())["text"])
        # The next message is there already; the task is cancelled before its first step.
        await asyncio.get_running_loop().run_in_executor(None, arrived.wait, LONG)
        never_run = asyncio.get_running_loop().create_task(receive())  # pyright: ignore[reportArgumentType] # has all methods of a coroutine
        never_run.cancel()
        await asyncio.wait([never_run])
        say((await receive())["text"])

    app = App(session)
    with client(serve(app)) as connection:
        assert app.says() == "cancelled"
        connection.send("one")
        assert app.says() == "one"
        connection.send("two")
        # A pong comes after everything that was sent before its ping has been read.
        assert connection.ping().wait(LONG)
        arrived.set()
        assert app.says() == "two"


def test_send_and_receive_may_wait_at_the_same_time(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await accept(receive, send)

        async def talk() -> None:
            for number in range(200):
                await send({"type": "websocket.send", "bytes": bytes(50_000), "n": number})

        talking = asyncio.create_task(talk())
        say((await receive())["text"])
        await talking
        await send({"type": "websocket.send", "text": "all sent"})

    app = App(session)
    with client(serve(app)) as connection:
        connection.send("while talking")
        assert app.says() == "while talking"
        for _ in range(200):
            assert len(connection.recv()) == 50_000
        assert connection.recv() == "all sent"


def test_send_waits_while_the_client_does_not_read(serve: Serve) -> None:
    most = 1000

    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await accept(receive, send)
        sent = 0
        while sent < most:
            sending = asyncio.ensure_future(send_one(send))
            sent += 1
            done, _ = await asyncio.wait([sending], timeout=1)
            if not done:
                say(sent)
                await sending
                break
        await send({"type": "websocket.send", "text": "end"})

    async def send_one(send: Send) -> None:
        await send({"type": "websocket.send", "bytes": bytes(64 * 1024)})

    app = App(session)
    with raw_client(serve(app), buffer=64 * 1024) as raw:
        raw.upgrade()
        sent = app.says()
        assert sent < most
        size = sent * (64 * 1024 + 10) + 5
        stream = raw.file.read(size)
        assert stream.endswith(b"\x81\x03end")


def send_until_blocked(raw: Raw, data: bytes) -> bytes:
    """Sends until nothing is taken for a second; returns what is left."""
    raw.socket.settimeout(1)
    try:
        while data:
            data = data[raw.socket.send(data) :]
    except TimeoutError:
        pass
    raw.socket.settimeout(LONG)
    return data


def test_reading_pauses_while_the_application_does_not_receive(serve: Serve) -> None:
    go_on = threading.Event()

    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await accept(receive, send)
        await asyncio.get_running_loop().run_in_executor(None, go_on.wait, LONG)
        for _ in range(count):
            await receive()
        say("all received")

    count, size = 500, 60_000
    app = App(session)
    with raw_client(serve(app)) as raw:
        raw.upgrade()
        frame = bytes([0x82, 0x80 | 126]) + size.to_bytes(2, "big") + bytes(4) + bytes(size)
        left = send_until_blocked(raw, frame * count)
        assert left
        go_on.set()
        raw.socket.sendall(left)
        assert app.says() == "all received"
