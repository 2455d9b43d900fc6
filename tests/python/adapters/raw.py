"""A client that says every byte itself, and sees every byte that comes back."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

TIMEOUT = 20.0


class Answer(NamedTuple):
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """All values of a header, joined; `None` when it is not there."""
        values = [value for known, value in self.headers if known == name]
        return ", ".join(values) if values else None


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes | str) -> None:
        self.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def ask(
        self, method: str = "GET", target: str = "/", body: bytes = b"", **headers: str
    ) -> Answer:
        """One request with its `Content-Length`, and its answer."""
        self.start(method, target, len(body) if body else None, **headers)
        self.send(body)
        return self.answer(method)

    def start(self, method: str, target: str, length: int | None = None, **headers: str) -> None:
        """A request head."""
        fields = {"host": "localhost"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        if length is not None:
            fields["content-length"] = str(length)
        lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items()), "", ""]
        self.send("\r\n".join(lines))

    def head(self) -> Answer:
        """The next head, without its body."""
        text = self._until(b"\r\n\r\n").decode("latin-1")
        first, *rest = text.removesuffix("\r\n\r\n").split("\r\n")
        _, status, reason = f"{first} ".split(" ", 2)
        pairs = [line.split(":", 1) for line in rest]
        headers = [(name.lower(), value.strip()) for name, value in pairs]
        return Answer(int(status), reason.strip(), headers, b"")

    def answer(self, method: str = "GET") -> Answer:
        """The next response with its body; fails when the body breaks off."""
        head = self.head()
        if method == "HEAD" or head.status in {204, 304}:
            return head
        if head.header("transfer-encoding") == "chunked":
            pieces: list[bytes] = []
            while piece := self.chunk():
                pieces.append(piece)
            return head._replace(body=b"".join(pieces))
        length = head.header("content-length")
        return head._replace(body=self.rest() if length is None else self.take(int(length)))

    def chunk(self) -> bytes:
        """The next chunk of a body; empty at its end."""
        size = int(self._until(b"\r\n"), 16)
        return self.take(size + 2)[:size]

    def take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._read()
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def rest(self) -> bytes:
        """All that comes until the server closes; a reset raises `ConnectionResetError`."""
        while data := self.socket.recv(64 * 1024):
            self._buffer += data
        rest, self._buffer = self._buffer, b""
        return rest

    def ends(self) -> bool:
        """Whether the server ends the connection before it says anything more."""
        try:
            return self.rest() == b""
        except ConnectionResetError:
            return True

    def is_reset(self) -> bool:
        """Whether the connection ends with a reset, so that nothing looks complete."""
        try:
            self.rest()
        except ConnectionResetError:
            return True
        return False

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._read()
        return self.take(self._buffer.index(end) + len(end))

    def _read(self) -> None:
        data = self.socket.recv(64 * 1024)
        if not data:
            raise EOFError(f"the connection ended after {self._buffer!r}")
        self._buffer += data


def wait_until_refused(port: int) -> None:
    """Waits until nobody listens on a port any more."""
    while _accepts(port):
        pass


def _accepts(port: int) -> bool:
    try:
        Client(port).socket.close()
    except (ConnectionRefusedError, ConnectionResetError):
        return False
    return True
