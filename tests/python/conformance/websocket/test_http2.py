"""WebSockets over HTTP/2: extended CONNECT (RFC 8441), with the rules of HTTP/1.1."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from conformance.websocket.peers import ACCEPT, LONG, App, Receive, Say, Scope, Send
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RemoteSettingsChanged, ResponseReceived, StreamEnded
from h2.settings import SettingCodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support import Serve
    from twinspan.testing import Server

STREAM = 1

E = TypeVar("E", bound=Event)


class Http2:
    """One connection and one extended CONNECT on it."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=LONG)
        self.connection = H2Connection(H2Configuration(client_side=True))
        self.connection.initiate_connection()
        self.seen: list[Event] = []
        settings = self.wait_for(RemoteSettingsChanged)
        changed = settings.changed_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL]
        assert changed.new_value == 1

    def wait_for(self, kind: type[E]) -> E:
        while True:
            for position, event in enumerate(self.seen):
                if isinstance(event, kind):
                    del self.seen[position]
                    return event
            self.socket.sendall(self.connection.data_to_send())
            data = self.socket.recv(65536)
            assert data, "the connection has ended"
            self.seen += self.connection.receive_data(data)

    def connect(self, *fields: tuple[str, str]) -> int:
        """Sends a handshake; returns its stream."""
        target = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":path", "/live?q=1"),
            (":authority", "shop.example"),
        ]
        stream = self.connection.get_next_available_stream_id()
        self.connection.send_headers(stream, [*target, *fields])
        return stream

    def answer(self) -> list[tuple[str, str]]:
        """The fields of the next answer to a handshake."""
        answer = self.wait_for(ResponseReceived)
        return [(name.decode(), value.decode()) for name, value in answer.headers or ()]

    def ask(self, *fields: tuple[str, str]) -> dict[str, str]:
        """Sends the first handshake; returns the fields of the answer."""
        assert self.connect(*fields) == STREAM
        return dict(self.answer())

    def send(self, data: bytes, stream: int = STREAM) -> None:
        self.connection.send_data(stream, data)

    def read(self, size: int, stream: int = STREAM) -> bytes:
        """At least `size` bytes of a stream."""
        data = b""
        while len(data) < size:
            event = self.wait_for(DataReceived)
            assert event.stream_id == stream or not event.data
            data += event.data or b""
        return data


@contextlib.contextmanager
def http2(server: Server) -> Iterator[Http2]:
    client = Http2(server)
    try:
        yield client
    finally:
        client.socket.close()


async def echo_once(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
    say(dict(scope))
    await receive()
    await send({**ACCEPT, "subprotocol": "two", "headers": [(b"x-name", b"value")]})
    message = await receive()
    await send({**message, "type": "websocket.send"})
    say(await receive())


def test_a_connection_over_http2_is_like_any_other(serve: Serve) -> None:
    app = App(echo_once)
    with http2(serve(app)) as client:
        answer = client.ask(("sec-websocket-version", "13"), ("sec-websocket-protocol", "one, two"))
        assert answer[":status"] == "200"
        assert answer["sec-websocket-protocol"] == "two"
        assert answer["x-name"] == "value"
        assert not answer.keys() & {"sec-websocket-accept", "upgrade", "connection"}
        scope = app.says()
        assert scope["type"] == "websocket"
        assert scope["http_version"] == "2"
        assert scope["scheme"] == "ws"
        assert (scope["path"], scope["query_string"]) == ("/live", b"q=1")
        assert scope["subprotocols"] == ["one", "two"]
        assert (b"host", b"shop.example") in [tuple(pair) for pair in scope["headers"]]
        client.send(b"\x81\x82\0\0\0\0hi")
        assert client.read(4) == b"\x81\x02hi"
        client.send(b"\x88\x82\0\0\0\0\x0f\xa0")
        assert client.read(4) == b"\x88\x02\x0f\xa0"
        client.wait_for(StreamEnded)
        assert app.says()["code"] == 4000


def test_close_before_accept_is_403_on_http2_too(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await send({"type": "websocket.close"})

    with http2(serve(App(session))) as client:
        assert client.ask(("sec-websocket-version", "13"))[":status"] == "403"


def test_the_headers_of_both_sides_keep_their_lines_on_http2(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        say(scope["subprotocols"])
        await receive()
        headers = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
        await send({**ACCEPT, "headers": headers})

    app = App(session)
    with http2(serve(app)) as client:
        offers = [("sec-websocket-protocol", "v2, v1"), ("sec-websocket-protocol", "graphql-ws")]
        client.connect(("sec-websocket-version", "13"), *offers)
        fields = client.answer()
        assert (":status", "200") in fields
        assert [value for name, value in fields if name == "set-cookie"] == ["a=1", "b=2"]
        assert app.says() == ["v2", "v1", "graphql-ws"]


def test_a_denial_response_may_be_streamed_on_http2_too(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await receive()
        body = "websocket.http.response.body"
        await send({"type": "websocket.http.response.start", "status": 401})
        await send({"type": body, "body": b"log ", "more_body": True})
        await send({"type": body, "body": b"in"})

    with http2(serve(App(session))) as client:
        assert client.ask(("sec-websocket-version", "13"))[":status"] == "401"
        assert client.read(6) == b"log in"
        client.wait_for(StreamEnded)


def test_an_upgrade_to_a_wsgi_application_is_refused_on_http2_too(serve: Serve) -> None:
    calls: list[str] = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        calls.append(environ["PATH_INFO"])
        start_response("200 OK", [])
        return [b""]

    with http2(serve(application)) as client:
        assert client.ask(("sec-websocket-version", "13"))[":status"] == "404"
    assert calls == []


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x81\0\0\0\0\xff", 1007),
        (b"\x82\xfe\0\x7f\0\0\0\0" + bytes(127), 1009),
        (b"\x81\x01x", 1002),
    ],
)
def test_what_breaks_the_protocol_closes_the_stream_alone(
    serve: Serve, frame: bytes, code: int
) -> None:
    app = App(echo_once)
    with http2(serve(app, ws_max_size=100)) as client:
        subprotocol = ("sec-websocket-protocol", "two")
        fields = (("sec-websocket-version", "13"), subprotocol)
        other = client.connect(*fields)
        client.answer()
        broken = client.connect(*fields)
        client.answer()
        client.send(frame, broken)
        assert client.read(4, broken)[2:4] == code.to_bytes(2, "big")
        client.send(b"\x81\x82\0\0\0\0hi", other)
        assert client.read(4, other) == b"\x81\x02hi"


def test_pings_are_answered_on_http2_too(serve: Serve) -> None:
    with http2(serve(App(echo_once))) as client:
        client.ask(("sec-websocket-version", "13"), ("sec-websocket-protocol", "two"))
        client.send(b"\x89\x84\0\0\0\0ping")
        assert client.read(6) == b"\x8a\x04ping"


@pytest.mark.parametrize(("end", "code"), [("return", 1000), ("raise", 1011)])
def test_an_application_that_ends_closes_the_stream(serve: Serve, end: str, code: int) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await receive()
        await send(ACCEPT)
        if end == "raise":
            raise RuntimeError("after accept")

    with http2(serve(App(session))) as client:
        assert client.ask(("sec-websocket-version", "13"))[":status"] == "200"
        assert client.read(4) == b"\x88\x02" + code.to_bytes(2, "big")
        client.send(b"\x88\x82\0\0\0\0" + code.to_bytes(2, "big"))
        client.wait_for(StreamEnded)


def test_a_stop_is_1012_on_http2_too(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await receive()
        await send(ACCEPT)
        say((await receive())["code"])

    app = App(session)
    server = serve(app)
    # h2 reads nothing behind the GOAWAY that a stop begins with: the application is asked.
    with http2(server) as client:
        client.ask(("sec-websocket-version", "13"))
        server.stop()
        assert app.says() == 1012


def test_a_wrong_version_is_refused_on_http2_too(serve: Serve) -> None:
    with http2(serve(App(echo_once))) as client:
        answer = client.ask(("sec-websocket-version", "8"))
        assert answer[":status"] == "400"
        assert answer["sec-websocket-version"] == "13"


def test_a_reset_of_the_stream_is_1006(serve: Serve) -> None:
    async def session(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
        await receive()
        await send(ACCEPT)
        say(await receive())

    app = App(session)
    with http2(serve(app)) as client:
        assert client.ask(("sec-websocket-version", "13"))[":status"] == "200"
        client.connection.reset_stream(STREAM)
        client.socket.sendall(client.connection.data_to_send())
        assert app.says() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
