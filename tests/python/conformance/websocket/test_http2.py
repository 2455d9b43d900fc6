"""WebSockets over HTTP/2: extended CONNECT (RFC 8441), with the rules of HTTP/1.1."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, TypeVar

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

    def ask(self, *fields: tuple[str, str]) -> dict[str, str]:
        """Sends the handshake; returns the fields of the answer."""
        target = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":path", "/live?q=1"),
            (":authority", "shop.example"),
        ]
        self.connection.send_headers(STREAM, [*target, *fields])
        answer = self.wait_for(ResponseReceived)
        return {name.decode(): value.decode() for name, value in answer.headers or ()}

    def send(self, data: bytes) -> None:
        self.connection.send_data(STREAM, data)

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self.wait_for(DataReceived).data or b""
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
