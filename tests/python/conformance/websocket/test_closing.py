"""How connections end (RFC 6455 §7, ASGI `websocket.close` and `websocket.disconnect`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from conformance.websocket.peers import (
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


def test_a_stop_closes_with_1012_before_the_lifespan_ends() -> None:
    order: list[str] = []

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
        order.append(str((await receive())["code"]))

    with Server(application) as server:
        connection = client(server)
        opened = connection.__enter__()
        assert opened.recv() == "open"
    assert closed_with(opened)[0] == 1012
    assert order == ["1012", "shutdown"]
    connection.__exit__(None, None, None)
