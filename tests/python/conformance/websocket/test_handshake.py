"""From the request to accept or deny (RFC 6455 §4.2, ASGI "WebSocket")."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from conformance.websocket.peers import (
    ACCEPT,
    KEY,
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
    url,
)
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

if TYPE_CHECKING:
    from support import Serve
    from twinspan.testing import Server

UPGRADE = ("Connection: Upgrade", "Upgrade: websocket")
VERSION = "Sec-WebSocket-Version: 13"


def denied(server: Server) -> Any:
    """The response to a handshake that is not accepted."""
    with pytest.raises(InvalidStatus) as raised, connect(url(server), proxy=None):
        pass
    return raised.value.response


def test_the_scope_says_what_the_specification_says(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        say(dict(scope))
        await accept(receive, send)

    app = App(session)
    server = serve(app)
    with client(server, "/caf%C3%A9/a%20b?q=1&r=%20", additional_headers={"X-Mixed": "Value"}):
        scope = app.says()
    assert scope["type"] == "websocket"
    assert scope["asgi"]["version"] == "3.0"
    assert scope["http_version"] == "1.1"
    assert scope["scheme"] == "ws"
    assert scope["path"] == "/café/a b"
    assert scope["raw_path"] == b"/caf%C3%A9/a%20b"
    assert scope["query_string"] == b"q=1&r=%20"
    assert scope["root_path"] == ""
    assert (b"x-mixed", b"Value") in [tuple(pair) for pair in scope["headers"]]
    assert scope["server"] == ("127.0.0.1", server.port)
    assert scope["client"][0] == "127.0.0.1"
    assert scope["subprotocols"] == []
    assert scope["extensions"].pop("twinspan").keys() == {"apps"}
    assert scope["extensions"] == {"websocket.http.response": {}}
    assert "method" not in scope


def test_below_a_mount_the_path_is_whole_and_root_path_is_the_mount(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        say((scope["root_path"], scope["path"]))
        await accept(receive, send)

    app = App(session)
    server = serve(mounts={"/live": app})
    with client(server, "/live/board"):
        assert app.says() == ("/live", "/live/board")


def test_a_trusted_proxy_makes_the_scheme_wss(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        say((scope["scheme"], scope["client"][0]))
        await accept(receive, send)

    app = App(session)
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}
    with client(serve(app), additional_headers=headers):
        assert app.says() == ("wss", "203.0.113.9")


def test_state_is_copied_for_each_connection(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["shared"] = ["from lifespan"]
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await accept(receive, send)
        seen = sorted(scope["state"])
        scope["state"]["mine"] = True
        scope["state"]["shared"].append("seen")
        await send({"type": "websocket.send", "text": f"{seen} {len(scope['state']['shared'])}"})

    server = serve(application)
    for connections in (1, 2):
        with client(server) as connection:
            assert connection.recv() == f"['shared'] {connections + 1}"


def test_subprotocols_keep_the_order_of_the_lists_and_lines_of_the_client(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        say(scope["subprotocols"])
        await accept(receive, send)

    app = App(session)
    with raw_client(serve(app)) as raw:
        raw.ask(
            *UPGRADE,
            VERSION,
            f"Sec-WebSocket-Key: {KEY}",
            "Sec-WebSocket-Protocol: v2.chat, v1.chat",
            "Sec-WebSocket-Protocol: graphql-ws",
        )
        assert raw.answer()[0] == 101
        assert app.says() == ["v2.chat", "v1.chat", "graphql-ws"]


def test_the_accepted_subprotocol_reaches_the_client(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await receive()
        await send({**ACCEPT, "subprotocol": scope["subprotocols"][-1]})

    with client(serve(App(session)), subprotocols=["one", "two"]) as connection:
        assert connection.subprotocol == "two"


def test_accept_without_a_subprotocol_chooses_none(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await receive()
        await send({**ACCEPT, "subprotocol": None, "headers": None})

    with client(serve(App(session)), subprotocols=["one"]) as connection:
        assert connection.subprotocol is None


def test_the_headers_of_accept_reach_the_client_with_every_cookie(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await receive()
        headers = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"x-name", b"v\xe9")]
        await send({**ACCEPT, "headers": headers})

    with client(serve(App(session))) as connection:
        assert connection.response is not None
        assert connection.response.headers.get_all("set-cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"subprotocol": "three"}, "subprotocol `three` was not offered"),
        ({"subprotocol": b"one"}, "`subprotocol` must be a str"),
        ({"headers": [(b"sec-websocket-protocol", b"one")]}, "pass `subprotocol` instead"),
        ({"headers": [(b"sec-websocket-accept", b"x")]}, "belongs to the server"),
        ({"headers": [(b"content-length", b"1")]}, "belongs to the server"),
        ({"headers": [(b"x-name", b"a\r\nb: c")]}, "control character"),
        ({"headers": [(b":status", b"200")]}, "not a header name"),
        ({"headers": [("x-name", "text")]}, "must be bytes"),
    ],
)
def test_an_acceptance_that_would_break_raises_and_another_may_follow(
    serve: Serve, fields: dict[str, Any], problem: str
) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await receive()
        await attempt(send, {**ACCEPT, **fields}, say)
        await send({**ACCEPT, "subprotocol": "one"})

    app = App(session)
    with client(serve(app), subprotocols=["one"]) as connection:
        kind, text = app.says()
        assert kind in {ValueError, TypeError}
        assert problem in text
        assert connection.subprotocol == "one"


def test_accept_may_come_before_connect_is_received(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await send(ACCEPT)
        say((await receive())["type"])
        say((await receive())["text"])

    app = App(session)
    with client(serve(app)) as connection:
        connection.send("after")
        assert app.says() == "websocket.connect"
        assert app.says() == "after"


def test_close_before_accept_denies_with_403(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": "no"})
        say(await receive())
        await attempt(send, ACCEPT, say)

    app = App(session)
    response = denied(serve(app))
    assert response.status_code == 403
    assert not response.body
    assert app.says() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    kind, _ = app.says()
    assert issubclass(kind, OSError)


def test_a_denial_response_arrives_whole_and_the_connection_serves_on(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await receive()
        headers = [(b"content-type", b"text/plain"), (b"set-cookie", b"a=1")]
        start = {"type": "websocket.http.response.start", "status": 401, "headers": headers}
        await send(start)
        await send({"type": "websocket.http.response.body", "body": b"log in"})
        say((await receive())["type"])

    app = App(session)
    with raw_client(serve(app)) as raw:
        for _ in range(2):
            raw.ask()
            status, fields = raw.answer()
            assert status == 401
            assert ("set-cookie", "a=1") in fields
            assert ("content-length", "6") in fields
            assert raw.file.read(6) == b"log in"
            assert app.says() == "websocket.disconnect"


def test_a_denial_response_may_be_streamed(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await receive()
        body = "websocket.http.response.body"
        await send({"type": "websocket.http.response.start", "status": 503})
        await send({"type": body, "body": b"one ", "more_body": True})
        await send({"type": body, "body": b"two ", "more_body": True})
        await send({"type": body})
        await attempt(send, {"type": body}, say)

    app = App(session)
    response = denied(serve(app))
    assert response.status_code == 503
    assert response.body == b"one two "
    assert issubclass(app.says()[0], OSError)


def test_a_streamed_denial_reaches_the_client_piece_by_piece(serve: Serve) -> None:
    go_on = threading.Event()

    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await receive()
        body = "websocket.http.response.body"
        headers = [(b"content-length", b"8")]
        start = {"type": "websocket.http.response.start", "status": 403, "headers": headers}
        await send(start)
        await send({"type": body, "body": b"one ", "more_body": True})
        await asyncio.to_thread(go_on.wait, LONG)
        await send({"type": body, "body": b"two "})

    with raw_client(serve(App(session))) as raw:
        raw.ask()
        assert raw.answer()[0] == 403
        assert raw.file.read(4) == b"one "
        go_on.set()
        assert raw.file.read(4) == b"two "


def read_all(raw: Raw) -> None:
    """Reads to the end; a reset may overtake the head."""
    raw.answer()
    raw.file.read()


def test_a_denial_that_breaks_off_never_looks_complete(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 403})
        body = {"type": "websocket.http.response.body", "body": b"one ", "more_body": True}
        await send(body)
        if scope["path"] == "/raise":
            raise RuntimeError("within the denial")

    server = serve(App(session))
    for path in ("/raise", "/return"):
        with raw_client(server) as raw:
            raw.ask(path=path)
            with pytest.raises(ConnectionResetError):
                read_all(raw)


def test_a_client_that_leaves_within_a_streamed_denial_is_a_disconnect(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await receive()
        body = {"type": "websocket.http.response.body", "body": b"piece", "more_body": True}
        await send({"type": "websocket.http.response.start", "status": 403})
        await send(body)
        say(await receive())
        await attempt(send, body, say)

    app = App(session)
    with raw_client(serve(app)) as raw:
        raw.ask()
        assert raw.answer()[0] == 403
    assert app.says() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    kind, _ = app.says()
    assert issubclass(kind, OSError)


@pytest.mark.parametrize("status", [101, 200, 204, 1000, "401", None])
def test_a_status_that_cannot_deny_raises(serve: Serve, status: Any) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await receive()
        await attempt(send, {"type": "websocket.http.response.start", "status": status}, say)
        await send({"type": "websocket.close"})

    app = App(session)
    assert denied(serve(app)).status_code == 403
    assert app.says()[0] in {ValueError, TypeError}


@pytest.mark.parametrize("end", ["return", "raise", "start only"])
def test_an_application_that_ends_without_an_answer_gives_500(serve: Serve, end: str) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await receive()
        if end == "raise":
            raise RuntimeError("before accept")
        if end == "start only":
            await send({"type": "websocket.http.response.start", "status": 401})

    assert denied(serve(App(session))).status_code == 500


def test_a_client_that_leaves_before_the_answer_is_a_disconnect(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await receive()
        say("connecting")
        say(await receive())
        await attempt(send, ACCEPT, say)

    app = App(session)
    with raw_client(serve(app)) as raw:
        raw.ask()
        assert app.says() == "connecting"
    assert app.says() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    kind, _ = app.says()
    assert issubclass(kind, OSError)


@pytest.mark.parametrize(
    "fields",
    [
        ("Connection: keep-alive, Upgrade", "Upgrade: websocket"),
        ("Connection: UPGRADE", "Upgrade: WebSocket"),
        ("Connection: keep-alive", "Connection: upgrade", "Upgrade: websocket"),
    ],
)
def test_an_upgrade_is_recognized_in_every_spelling(serve: Serve, fields: tuple[str, ...]) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await accept(receive, send)

    with raw_client(serve(App(session))) as raw:
        raw.ask(*fields, VERSION, f"Sec-WebSocket-Key: {KEY}")
        status, answer = raw.answer()
        assert status == 101
        # The example of RFC 6455 §1.3.
        assert ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") in answer


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ((VERSION,), 400),
        ((VERSION, "Sec-WebSocket-Key: short"), 400),
        ((VERSION, f"Sec-WebSocket-Key: {KEY}", f"Sec-WebSocket-Key: {KEY}"), 400),
        ((VERSION, f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Protocol: a b"), 400),
        ((f"Sec-WebSocket-Key: {KEY}",), 426),
        ((f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 8"), 426),
    ],
)
def test_a_handshake_that_is_wrong_never_reaches_the_application(
    serve: Serve, fields: tuple[str, ...], status: int
) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        raise AssertionError

    with raw_client(serve(App(session))) as raw:
        raw.ask(*UPGRADE, *fields)
        got, answer = raw.answer()
        assert got == status
        assert (("sec-websocket-version", "13") in answer) == (status == 426)


def test_an_upgrade_never_waits_for_the_threads_of_a_wsgi_application(serve: Serve) -> None:
    calls: list[str] = []
    busy, go_on = threading.Event(), threading.Event()

    def legacy(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        calls.append(environ["PATH_INFO"])
        busy.set()
        go_on.wait(LONG)
        start_response("200 OK", [])
        return [b""]

    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await accept(receive, send)
        await send({"type": "websocket.send", "text": "beside"})

    server = serve(mounts={"/legacy": legacy, "/live": App(session)}, threads=1)
    with raw_client(server) as blocking, raw_client(server) as raw:
        blocking.ask("Connection: keep-alive", path="/legacy/page")
        assert busy.wait(LONG)
        raw.ask(path="/legacy/socket")
        assert raw.answer()[0] == 404
        with client(server, "/live") as connection:
            assert connection.recv() == "beside"
        go_on.set()
        assert blocking.answer()[0] == 200
    assert calls == ["/page"]
