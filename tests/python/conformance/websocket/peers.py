"""Both ends of a connection under test.

Applications say what happens to them; clients reach from the `websockets` library down to the byte.
"""

from __future__ import annotations

import contextlib
import queue
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from websockets.sync.client import ClientConnection, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twinspan.testing import Server

Scope = MutableMapping[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Say = Callable[[Any], None]
Session = Callable[[Scope, Receive, Send, Say], Awaitable[None]]

LONG = 30
"""Seconds; much longer than anything takes."""

ACCEPT: Message = {"type": "websocket.accept"}

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class App:
    """An ASGI application that runs `session` for each WebSocket; tests hear what it says."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._said: queue.Queue[Any] = queue.Queue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await self.session(scope, receive, send, self._said.put)

    def says(self) -> Any:
        return self._said.get(timeout=LONG)


async def accept(receive: Receive, send: Send) -> None:
    """The first two messages of nearly every session."""
    assert await receive() == {"type": "websocket.connect"}
    await send(ACCEPT)


async def attempt(send: Send, message: Any, say: Say) -> None:
    """Sends what must not be sent, and says which exception was raised."""
    try:
        await send(message)
    except Exception as error:  # noqa: BLE001 # the test judges it
        say((type(error), str(error)))
    else:
        say("sent")


def url(server: Server, path: str = "/") -> str:
    return f"ws://{server.address}{path}"


@contextlib.contextmanager
def client(server: Server, path: str = "/", **options: Any) -> Iterator[ClientConnection]:
    """A client that sends no pings of its own, offers no compression and closes at the end."""
    options = {"compression": None, "ping_interval": None, "proxy": None, **options}
    with connect(url(server, path), **options) as connection:
        yield connection


@contextlib.contextmanager
def raw_client(server: Server, buffer: int | None = None) -> Iterator[Raw]:
    """A client without manners, which reads at most about `buffer` bytes ahead."""
    raw = Raw(server, buffer)
    try:
        yield raw
    finally:
        raw.close()


class Raw:
    """A client that sends exactly what it is told."""

    def __init__(self, server: Server, buffer: int | None) -> None:
        self.socket = socket.socket()
        if buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(LONG)
        host, _, port = server.address.rpartition(":")
        self.socket.connect((host, int(port)))
        self.file = self.socket.makefile("rb")

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def ask(self, *fields: str, path: str = "/") -> None:
        """Sends a handshake with `fields` in place of the usual ones for the upgrade."""
        lines = fields or (
            "Connection: Upgrade",
            "Upgrade: websocket",
            f"Sec-WebSocket-Key: {KEY}",
            "Sec-WebSocket-Version: 13",
        )
        head = "\r\n".join((f"GET {path} HTTP/1.1", "Host: localhost", *lines, "", ""))
        self.socket.sendall(head.encode())

    def answer(self) -> tuple[int, list[tuple[str, str]]]:
        """The status and the fields of the answer."""
        status = int(self.file.readline().split()[1])
        fields: list[tuple[str, str]] = []
        while line := self.file.readline().strip():
            name, _, value = line.decode().partition(":")
            fields.append((name.lower(), value.strip()))
        return status, fields

    def upgrade(self) -> None:
        self.ask()
        status, _ = self.answer()
        assert status == 101

    def send(self, first: int, payload: bytes = b"") -> None:
        """Sends one frame, with a mask of zeros."""
        length = len(payload)
        size = bytes([length]) if length < 126 else b"\x7e" + length.to_bytes(2, "big")
        masked = bytes([0x80 | size[0]]) + size[1:] + bytes(4)
        self.socket.sendall(bytes([first]) + masked + payload)

    def frame(self) -> tuple[int, bytes]:
        """The first byte and the payload of the next frame."""
        first, length = self.file.read(2)
        if length >= 126:
            length = int.from_bytes(self.file.read(2 if length == 126 else 8), "big")
        return first, self.file.read(length)
