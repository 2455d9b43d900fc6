"""permessage-deflate (RFC 7692), on HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import pytest
from conformance.websocket.peers import App, Receive, Say, Scope, Send, accept, client, raw_client
from conformance.websocket.test_http2 import http2
from twinspan.testing import Server
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.websocket.peers import Raw
    from support import Serve

AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)

HELLO = b"\xf2\x48\xcd\xc9\xc9\x07\x00"


async def echo(scope: Scope, receive: Receive, send: Send, say: Say) -> None:
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
    say(message)


@pytest.fixture(scope="module")
def app() -> App:
    return App(echo)


@pytest.fixture(scope="module")
def server(app: App) -> Iterator[Server]:
    with Server(app, ws_max_size=1_000_000) as started:
        yield started


def deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    compressed = compressor.compress(content) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return compressed.removesuffix(b"\x00\x00\xff\xff")


def inflate(payload: bytes, bits: int = 15) -> bytes:
    return zlib.decompressobj(wbits=-bits).decompress(payload + b"\x00\x00\xff\xff")


def agree(raw: Raw, *offers: str) -> str | None:
    """Upgrades with these offers; what the server says to them."""
    raw.ask(*UPGRADE, *(f"Sec-WebSocket-Extensions: {offer}" for offer in offers))
    status, fields = raw.answer()
    assert status == 101
    return dict(fields).get("sec-websocket-extensions")


@pytest.mark.parametrize("server_takeover", [True, False])
@pytest.mark.parametrize("client_takeover", [True, False])
@pytest.mark.parametrize("server_bits", [None, 9, 15])
@pytest.mark.parametrize("client_bits", [None, 9, True])
def test_messages_pass_whatever_the_client_asks_for(
    server: Server,
    *,
    server_takeover: bool,
    client_takeover: bool,
    server_bits: int | None,
    client_bits: int | bool | None,
) -> None:
    offer = ClientPerMessageDeflateFactory(
        server_no_context_takeover=not server_takeover,
        client_no_context_takeover=not client_takeover,
        server_max_window_bits=server_bits,
        client_max_window_bits=client_bits,
    )
    with client(server, extensions=[offer]) as connection:
        assert connection.response is not None
        agreed = AGREED + (f"; server_max_window_bits={server_bits}" if server_bits else "")
        assert connection.response.headers["sec-websocket-extensions"] == agreed
        for message in ("short", "", "long " * 1000, bytes(300_000), "long " * 1000):
            connection.send(message)
            assert connection.recv() == message
        # In fragments, each of which is as long as the client likes.
        connection.send(["frag" * 500, "", "ment" * 500])
        assert connection.recv() == "frag" * 500 + "ment" * 500


def test_what_is_sent_is_shorter_and_says_that_it_is_compressed(server: Server) -> None:
    with raw_client(server) as raw:
        assert agree(raw, "permessage-deflate") == AGREED
        text = b"a text that repeats itself " * 1000
        raw.send(0xC1, deflate(text))
        first, payload = raw.frame()
        assert first == 0xC1
        assert len(payload) < len(text) / 20
        assert inflate(payload) == text
        raw.send(0xC1, HELLO)
        assert raw.frame() == (0x81, b"Hello")


def test_a_client_with_a_small_window_can_read_what_is_sent(server: Server) -> None:
    with raw_client(server) as raw:
        agreed = agree(raw, "permessage-deflate; server_max_window_bits=9")
        assert agreed == f"{AGREED}; server_max_window_bits=9"
        far = b"".join(b"%d " % number for number in range(300)) * 3
        raw.send(0xC2, deflate(far))
        first, payload = raw.frame()
        assert first == 0xC2
        assert inflate(payload, bits=9) == far


@pytest.mark.parametrize(
    ("offers", "agreed"),
    [
        ((), None),
        (("x-webkit-deflate-frame",), None),
        (("permessage-deflate; server_max_window_bits=8",), None),
        (("permessage-deflate; tomorrow",), None),
        (("permessage-deflate; tomorrow", "x, permessage-deflate"), AGREED),
        (('permessage-deflate; client_max_window_bits="8"',), AGREED),
    ],
)
def test_an_offer_that_cannot_be_met_leaves_the_connection_without_compression(
    server: Server, offers: tuple[str, ...], agreed: str | None
) -> None:
    with raw_client(server) as raw:
        assert agree(raw, *offers) == agreed
        raw.send(0x81, b"x" * 125)
        assert raw.frame() == (0x81, b"x" * 125)
        raw.send(0xC1, HELLO)
        if agreed:
            assert raw.frame() == (0x81, b"Hello")
        else:
            assert raw.frame()[1][:2] == (1002).to_bytes(2, "big")


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([(0xC1, b"\xff\xff")], 1007),
        ([(0xC1, deflate(b"\xff"))], 1007),
        ([(0x42, deflate(bytes(600_000))), (0x80, b"")], 1009),
        ([(0xC9, b"")], 1002),
        ([(0x41, HELLO[:2]), (0xC0, HELLO[2:])], 1002),
        ([(0xE1, HELLO)], 1002),
    ],
)
def test_what_breaks_the_rules_closes_with_the_code_that_says_so(
    serve: Serve, frames: list[tuple[int, bytes]], code: int
) -> None:
    app = App(echo)
    with raw_client(serve(app, ws_max_size=500_000)) as raw:
        agree(raw, "permessage-deflate")
        for first, payload in frames:
            raw.send(first, payload)
        opcode, reason = raw.frame()
        assert (opcode, int.from_bytes(reason[:2], "big")) == (0x88, code)
        assert raw.file.read() == b""
        assert app.says()["code"] == code


def test_a_bomb_closes_with_1009_and_others_live_on(server: Server) -> None:
    offers = [ClientPerMessageDeflateFactory()]
    with client(server, extensions=offers) as beside, client(server, extensions=offers) as bomber:
        bomber.send(bytes(20_000_000))
        with pytest.raises(ConnectionClosed) as raised:
            bomber.recv()
        assert raised.value.rcvd is not None
        assert raised.value.rcvd.code == 1009
        beside.send("go on")
        assert beside.recv() == "go on"


def test_control_frames_pass_between_compressed_fragments(server: Server) -> None:
    with raw_client(server) as raw:
        agree(raw, "permessage-deflate")
        raw.send(0x41, HELLO[:3])
        raw.send(0x89, b"now")
        assert raw.frame() == (0x8A, b"now")
        raw.send(0x80, HELLO[3:])
        assert raw.frame() == (0x81, b"Hello")


def test_switched_off_no_offer_is_accepted(serve: Serve) -> None:
    with raw_client(serve(App(echo), ws_compression=False)) as raw:
        assert agree(raw, "permessage-deflate") is None


def test_http2_compresses_too(app: App, server: Server) -> None:
    with http2(server) as tunnel:
        answer = tunnel.ask(
            ("sec-websocket-version", "13"),
            ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
        )
        assert answer["sec-websocket-extensions"] == AGREED
        text = b"a text that repeats itself " * 100
        payload = deflate(text)
        tunnel.send(bytes([0xC1, 0x80 | len(payload)]) + bytes(4) + payload)
        frame = tunnel.read(2)
        assert frame[0] == 0xC1
        assert frame[1] < 126
        while len(frame) < 2 + frame[1]:
            frame += tunnel.read(1)
        assert inflate(frame[2:]) == text
