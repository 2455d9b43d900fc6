"""How connections end (RFC 6455 §7, ASGI `websocket.close` and `websocket.disconnect`)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest
from conformance.websocket.peers import (
    LONG,
    App,
    Receive,
    Say,
    Scope,
    Send,
    accept,
    attempt,
    client,
    raw_client,
)
from twinspan.testing import Server
from websockets.exceptions import ConnectionClosed

if TYPE_CHECKING:
    from support import Serve
    from websockets.sync.client import ClientConnection


def closed_with(connection: ClientConnection) -> tuple[int, str]:
    """The code and the reason of the server's close frame."""
    with pytest.raises(ConnectionClosed) as raised:
        connection.recv()
    frame = raised.value.rcvd
    assert frame is not None
    return frame.code, frame.reason


async def listen(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
    """Accepts, says every message that it receives up to the disconnect, then tries to send."""
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        say(message["text"])
    say(message)
    assert await receive() == message
    await attempt(send, {"type": "websocket.send", "text": "late"}, say)
    await attempt(send, {"type": "websocket.close"}, say)


def test_the_clients_code_and_reason_reach_the_application(serve: Serve) -> None:
    app = App(listen)
    with client(serve(app)) as connection:
        connection.send("last")
        connection.close(4321, "going for tea")
    assert app.says() == "last"
    expected = {"type": "websocket.disconnect", "code": 4321, "reason": "going for tea"}
    assert app.says() == expected


def test_a_message_after_the_disconnect_raises_an_os_error(serve: Serve) -> None:
    app = App(listen)
    with client(serve(app)):
        pass
    assert app.says()["code"] == 1000
    for _ in range(2):
        kind, text = app.says()
        assert issubclass(kind, OSError)
        assert "closed" in text


def test_a_close_frame_without_code_is_1005_and_is_answered(serve: Serve) -> None:
    app = App(listen)
    with raw_client(serve(app)) as raw:
        raw.upgrade()
        raw.send(0x88)
        assert raw.frame() == (0x88, b"")
        assert raw.file.read() == b"", "the server closes first"
    assert app.says() == {"type": "websocket.disconnect", "code": 1005, "reason": ""}


def test_a_connection_that_breaks_off_is_1006(serve: Serve) -> None:
    app = App(listen)
    with raw_client(serve(app)) as raw:
        raw.upgrade()
    assert app.says() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({}, (1000, "")),
        ({"code": 4000, "reason": "enough"}, (4000, "enough")),
        ({"code": 1001, "reason": None}, (1001, "")),
        ({"code": 1011, "reason": "out of ideas"}, (1011, "out of ideas")),
        ({"code": 1012, "reason": "back soon"}, (1012, "back soon")),
        ({"reason": "é" * 61}, (1000, "é" * 61)),
    ],
)
def test_the_applications_code_and_reason_reach_the_client(
    serve: Serve, message: dict[str, Any], expected: tuple[int, str]
) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await accept(receive, send)
        await send({"type": "websocket.send", "text": "before"})
        await send({"type": "websocket.close", **message})
        say(await receive())
        await attempt(send, {"type": "websocket.send", "text": "after"}, say)

    app = App(session)
    with client(serve(app)) as connection:
        assert connection.recv() == "before"
        assert closed_with(connection) == expected
    code, reason = expected
    assert app.says() == {"type": "websocket.disconnect", "code": code, "reason": reason}
    assert issubclass(app.says()[0], OSError)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ({"code": 1005}, ValueError),
        ({"code": 1006}, ValueError),
        ({"code": 999}, ValueError),
        ({"code": 5000}, ValueError),
        ({"code": "1000"}, TypeError),
        ({"reason": b"bytes"}, TypeError),
        ({"reason": "é" * 62}, ValueError),
    ],
)
def test_a_close_that_must_not_be_sent_raises_and_the_connection_goes_on(
    serve: Serve, message: dict[str, Any], kind: type[Exception]
) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await accept(receive, send)
        await attempt(send, {"type": "websocket.close", **message}, say)
        await send({"type": "websocket.send", "text": "goes on"})

    app = App(session)
    with client(serve(app)) as connection:
        assert app.says()[0] is kind
        assert connection.recv() == "goes on"


def test_an_application_that_returns_closes_with_1000(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await accept(receive, send)
        await send({"type": "websocket.send", "text": "that is all"})

    with client(serve(App(session))) as connection:
        assert connection.recv() == "that is all"
        assert closed_with(connection) == (1000, "")


def test_an_application_that_raises_closes_with_1011_and_others_live_on(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await accept(receive, send)
        if (await receive())["text"] == "raise":
            raise RuntimeError("after accept")
        await send({"type": "websocket.send", "text": "fine"})

    server = serve(App(session))
    with client(server) as beside, client(server) as connection:
        connection.send("raise")
        assert closed_with(connection) == (1011, "")
        beside.send("go on")
        assert beside.recv() == "fine"


@pytest.mark.parametrize(
    ("first", "payload", "code"),
    [
        (0x81, b"\xff", 1007),
        (0x88, b"\x03\xe8\xff", 1007),
        (0x82, bytes(101), 1009),
        (0xC1, b"compressed", 1002),
        (0x83, b"", 1002),
        (0x80, b"", 1002),
        (0x09, b"", 1002),
        (0x88, b"\x03", 1002),
    ],
)
def test_what_breaks_the_protocol_closes_with_the_code_that_says_so(
    serve: Serve, first: int, payload: bytes, code: int
) -> None:
    app = App(listen)
    with raw_client(serve(app, ws_max_size=100)) as raw:
        raw.upgrade()
        raw.send(first, payload)
        opcode, reason = raw.frame()
        assert opcode == 0x88
        assert int.from_bytes(reason[:2], "big") == code
        assert raw.file.read() == b""
        assert app.says()["code"] == code


@pytest.mark.parametrize(
    ("fragments", "code"),
    [
        ([(0x02, bytes(60)), (0x00, bytes(41))], 1009),
        ([(0x01, "é".encode()[:1]), (0x80, b"x")], 1007),
        ([(0x01, b"open"), (0x81, b"again")], 1002),
        ([(0x01, b"open"), (0x88, b"\x03\xe8")], 1000),
    ],
)
def test_fragments_are_judged_as_the_message_that_they_make(
    serve: Serve, fragments: list[tuple[int, bytes]], code: int
) -> None:
    app = App(listen)
    with raw_client(serve(app, ws_max_size=100)) as raw:
        raw.upgrade()
        for first, payload in fragments:
            raw.send(first, payload)
        opcode, reason = raw.frame()
        assert opcode == 0x88
        assert int.from_bytes(reason[:2], "big") == code
        assert app.says()["code"] == code


def test_a_message_may_be_as_large_as_the_limit(serve: Serve) -> None:
    app = App(listen)
    with client(serve(app, ws_max_size=100)) as connection:
        connection.send("x" * 100)
        assert app.says() == "x" * 100


def test_a_frame_without_mask_closes_with_1002(serve: Serve) -> None:
    app = App(listen)
    with raw_client(serve(app)) as raw:
        raw.upgrade()
        raw.socket.sendall(b"\x81\x01x")
        assert raw.frame()[1][:2] == (1002).to_bytes(2, "big")
        assert app.says()["code"] == 1002


def test_a_close_code_that_no_client_may_send_is_a_broken_protocol(serve: Serve) -> None:
    app = App(listen)
    with raw_client(serve(app)) as raw:
        raw.upgrade()
        raw.send(0x88, (1006).to_bytes(2, "big"))
        assert raw.frame()[1][:2] == (1002).to_bytes(2, "big")
        assert app.says()["code"] == 1002


def test_a_client_that_answers_no_ping_is_given_up(serve: Serve) -> None:
    app = App(listen)
    with raw_client(serve(app, ws_ping_interval=0.05, ws_ping_timeout=0.05)) as raw:
        raw.upgrade()
        assert raw.frame() == (0x89, b"")
        opcode, reason = raw.frame()
        assert (opcode, reason[:2]) == (0x88, (1011).to_bytes(2, "big"))
        expected = {"code": 1006, "reason": "keepalive ping timeout"}
        assert app.says() == {"type": "websocket.disconnect", **expected}


def test_a_client_that_leaves_while_send_waits_for_it_ends_the_wait(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await accept(receive, send)
        while True:
            sending = asyncio.ensure_future(send_block(send))
            done, _ = await asyncio.wait([sending], timeout=1)
            if not done:
                break
        say("waits")
        # What it waited with had been taken; only what comes next is too late.
        await sending
        await attempt(send, {"type": "websocket.send", "text": "late"}, say)
        say(await receive())

    async def send_block(send: Send) -> None:
        await send({"type": "websocket.send", "bytes": bytes(64 * 1024)})

    app = App(session)
    with raw_client(serve(app), buffer=64 * 1024) as raw:
        raw.upgrade()
        assert app.says() == "waits"
    kind, _ = app.says()
    assert issubclass(kind, OSError)
    assert app.says()["code"] == 1006


def test_an_application_that_minds_a_client_gone_is_nothing_to_log(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await accept(receive, send)
        say((await receive())["type"])
        raised: type[Exception] = OSError if scope["path"] == "/send" else RuntimeError
        try:
            await send({"type": "websocket.send", "text": "late"})
        except OSError as error:
            raise raised(f"at {scope['path']}") from error

    app = App(session)
    server = serve(app)
    for path in ("/send", "/own"):
        with client(server, path):
            pass
        assert app.says() == "websocket.disconnect"
    server.close()
    logged = capfd.readouterr().err
    assert "RuntimeError: at /own" in logged
    assert "at /send" not in logged


def test_a_stop_closes_all_with_1012_and_the_lifespan_waits_for_them() -> None:
    order: list[str] = []
    saved = threading.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            order.append("shutdown")
            await send({"type": "lifespan.shutdown.complete"})
            return
        await accept(receive, send)
        await send({"type": "websocket.send", "text": "open"})
        message = await receive()
        # Time to put things in order: what is awaited here is awaited by the server as well.
        await asyncio.to_thread(saved.wait, LONG)
        order.append(f"{message['code']} {message['reason']}")

    with contextlib.ExitStack() as clients, Server(application) as server:
        opened = [clients.enter_context(client(server)) for _ in range(3)]
        assert [connection.recv() for connection in opened] == ["open"] * 3
        stopping = threading.Thread(target=server.close)
        stopping.start()
        closed = [closed_with(connection) for connection in opened]
        assert order == []
        saved.set()
        stopping.join(LONG)
    assert closed == [(1012, "the server is shutting down")] * 3
    assert order == ["1012 the server is shutting down"] * 3 + ["shutdown"]
