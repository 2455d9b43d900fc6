"""Clients for HTTP/1.0, HTTP/1.1 and HTTP/2 with the same words, which see each piece as it comes.

A response that breaks off is `Broken` and never an end: that is what most of the tests rely on.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from typing import TYPE_CHECKING, NamedTuple

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import StreamClosedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from io import BufferedReader

    Fields = Sequence[tuple[str, str]]

HTTP_1_0 = "HTTP/1.0"
HTTP_1_1 = "HTTP/1.1"
HTTP_2 = "HTTP/2"
PROTOCOLS = (HTTP_1_0, HTTP_1_1, HTTP_2)

LONG = 20.0
"""Seconds; much longer than anything takes."""

UNTOLD = -1
"""The length of a body that does not tell it: chunked on HTTP/1.1, on HTTP/2 its frames say it."""


class Broken(Exception):  # noqa: N818 # what the response is, not what the client did wrong
    """A response that ended before it was complete, in a way that the client can tell."""


class Head(NamedTuple):
    status: int
    reason: str | None
    """`None` on HTTP/2, which has none."""
    headers: list[tuple[str, str]]

    def all(self, name: str) -> list[str]:
        return [value for known, value in self.headers if known == name]

    def one(self, name: str) -> str | None:
        """The value of a header that is there once at most."""
        values = self.all(name)
        assert len(values) < 2, f"{name} is repeated: {values}"
        return values[0] if values else None


class Answer(NamedTuple):
    head: Head
    body: bytes

    @property
    def status(self) -> int:
        return self.head.status


class Exchange(ABC):
    """One request and its response."""

    trailers: list[tuple[str, str]] | None = None
    """What came after the body; `None` when nothing did."""

    @abstractmethod
    def send(self, data: bytes) -> None:
        """Sends a piece of the request's body: one chunk where there are chunks."""

    @abstractmethod
    def end(self) -> None:
        """The body of the request is complete."""

    @abstractmethod
    def head(self) -> Head:
        """The next head: interim ones too, each by itself."""

    @abstractmethod
    def piece(self) -> bytes:
        """The next bytes of the response's body, `b""` at its end; raises `Broken`."""

    @abstractmethod
    def leave(self) -> None:
        """The client wants no more of this: the stream is reset, or the connection."""

    def body(self) -> bytes:
        """All that is left of the body; raises `Broken`."""
        return b"".join(iter(self.piece, b""))

    def take(self, size: int) -> bytes:
        """At least `size` bytes of the body."""
        taken = b""
        while len(taken) < size:
            piece = self.piece()
            assert piece, f"the body ended after {taken!r}"
            taken += piece
        return taken

    def answer(self) -> Answer:
        return Answer(self.head(), self.body())

    def breaks(self) -> bool:
        """Whether the body breaks off, as far as it has not been read."""
        try:
            self.body()
        except Broken:
            return True
        return False


class Connection(ABC):
    """One connection, on which requests may follow another."""

    socket: socket.socket

    @abstractmethod
    def start(
        self,
        method: str = "GET",
        target: str = "/",
        headers: Fields = (),
        *,
        length: int | None = None,
    ) -> Exchange:
        """Sends the head of a request; one with a `length` has a body, which is to be sent."""

    @abstractmethod
    def close(self) -> None:
        """Closes the connection."""

    def ask(
        self,
        method: str = "GET",
        target: str = "/",
        headers: Fields = (),
        body: bytes | None = None,
    ) -> Answer:
        """One request and its whole answer."""
        length = None if body is None else len(body)
        exchange = self.start(method, target, headers, length=length)
        if body is not None:
            exchange.send(body)
            exchange.end()
        return exchange.answer()


def connect(protocol: str, address: str, *, buffer: int | None = None) -> Connection:
    """A connection that reads about `buffer` bytes ahead, where that is given."""
    host, _, place = address.rpartition(":")
    stream = socket.socket(socket.AF_UNIX if host == "unix" else socket.AF_INET)
    stream.settimeout(LONG)
    if buffer is not None:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    stream.connect(place if host == "unix" else (host, int(place)))
    if host != "unix":
        # A body would wait until the server has acknowledged the head, which it may put off.
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if protocol == HTTP_2:
        return Http2(stream)
    return Http1(stream, protocol)


class Http1(Connection):
    """HTTP/1.0 or HTTP/1.1; a client of HTTP/1.0 asks for a connection that stays open."""

    def __init__(self, stream: socket.socket, protocol: str) -> None:
        self.socket = stream
        self.file: BufferedReader = stream.makefile("rb")
        self._protocol = protocol

    def start(
        self,
        method: str = "GET",
        target: str = "/",
        headers: Fields = (),
        *,
        length: int | None = None,
    ) -> Http1Exchange:
        fields = [("Host", "localhost"), *headers]
        if self._protocol == HTTP_1_0:
            fields.append(("Connection", "keep-alive"))
        if length == UNTOLD:
            assert self._protocol == HTTP_1_1, "no other has chunks"
            fields.append(("Transfer-Encoding", "chunked"))
        elif length is not None:
            fields.append(("Content-Length", str(length)))
        lines = [f"{method} {target} {self._protocol}", *(f"{k}: {v}" for k, v in fields), "", ""]
        self.socket.sendall("\r\n".join(lines).encode("latin-1"))
        return Http1Exchange(self, method, is_chunked=length == UNTOLD)

    def close(self) -> None:
        self.file.close()
        self.socket.close()


class Http1Exchange(Exchange):
    def __init__(self, connection: Http1, method: str, *, is_chunked: bool) -> None:
        self._connection = connection
        self._file = connection.file
        self._method = method
        self._is_chunked = is_chunked
        self._left = 0
        """Bytes of the body that are to come; of the chunk, where there are chunks."""
        self._framing = "none"

    def send(self, data: bytes) -> None:
        framed = b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data
        self._connection.socket.sendall(framed)

    def end(self) -> None:
        if self._is_chunked:
            self._connection.socket.sendall(b"0\r\n\r\n")

    def head(self) -> Head:
        _, status, reason = f"{self._line()} ".split(" ", 2)
        headers: list[tuple[str, str]] = []
        while line := self._line():
            name, _, value = line.partition(":")
            headers.append((name.lower(), value.strip(" \t")))
        head = Head(int(status), reason.removesuffix(" "), headers)
        length = head.one("content-length")
        encoding = head.one("transfer-encoding")
        if self._method == "HEAD" or head.status < 200 or head.status in {204, 304}:
            self._framing = "none"
        elif encoding is not None:
            assert (encoding, length) == ("chunked", None)
            assert self._connection._protocol == HTTP_1_1
            self._framing = "chunked"
        elif length is not None:
            self._framing = "length"
            self._left = int(length)
        else:
            self._framing = "close"
        return head

    def piece(self) -> bytes:
        if self._framing == "none":
            return b""
        if self._framing == "close":
            return self._read(64 * 1024)
        if self._framing == "chunked" and self._left == 0:
            self._left = int(self._line(), 16)
            if self._left == 0:
                while line := self._line():
                    name, _, value = line.partition(":")
                    self.trailers = [*(self.trailers or []), (name.lower(), value.strip())]
                self._framing = "none"
        data = self._read(min(self._left, 64 * 1024)) if self._left else b""
        if self._left and not data:
            raise Broken(f"the connection ended {self._left} bytes early")
        self._left -= len(data)
        if data and self._framing == "chunked" and self._left == 0:
            assert self._line() == ""
        return data

    def leave(self) -> None:
        self._connection.close()

    def _read(self, size: int) -> bytes:
        try:
            return self._file.read1(size)
        except ConnectionResetError as error:
            raise Broken("the connection was reset") from error

    def _line(self) -> str:
        try:
            line = self._file.readline()
        except ConnectionResetError as error:
            raise Broken("the connection was reset") from error
        if not line.endswith(b"\r\n"):
            raise Broken(f"the connection ended after {line!r}")
        return line.removesuffix(b"\r\n").decode("latin-1")


class Http2(Connection):
    """HTTP/2 without TLS, known beforehand (RFC 9113 §3.3); several exchanges may be open."""

    def __init__(self, stream: socket.socket) -> None:
        self.socket = stream
        # The library refuses what a server must not send, such as headers of a connection.
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.h2.initiate_connection()
        self._events: defaultdict[int, deque[Event]] = defaultdict(deque)
        self.flush()

    def start(
        self,
        method: str = "GET",
        target: str = "/",
        headers: Fields = (),
        *,
        length: int | None = None,
    ) -> Http2Exchange:
        fields = [
            (":method", method),
            (":scheme", "http"),
            (":authority", "localhost"),
            (":path", target),
            *((name.lower(), value) for name, value in headers),
        ]
        if length is not None and length != UNTOLD:
            fields.append(("content-length", str(length)))
        stream = self.h2.get_next_available_stream_id()
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in fields]
        self.h2.send_headers(stream, encoded, end_stream=length is None)
        self.flush()
        return Http2Exchange(self, stream)

    def close(self) -> None:
        self.socket.close()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def receive(self) -> None:
        """Waits for what the server says next, and answers what the protocol has answered."""
        try:
            data = self.socket.recv(64 * 1024)
        except ConnectionResetError as error:
            raise Broken("the connection was reset") from error
        if not data:
            raise Broken("the connection ended")
        for event in self.h2.receive_data(data):
            stream: int | None = getattr(event, "stream_id", None)
            if stream:
                self._events[stream].append(event)
        self.flush()

    def next_event(self, stream: int, kinds: Iterable[type[Event]]) -> Event:
        """The next event of a stream that is one of these."""
        wanted = tuple(kinds)
        while True:
            while events := self._events[stream]:
                event = events.popleft()
                if isinstance(event, wanted):
                    return event
            self.receive()


class Http2Exchange(Exchange):
    def __init__(self, connection: Http2, stream: int) -> None:
        self._connection = connection
        self._h2 = connection.h2
        self._stream = stream
        self._ended = False

    def send(self, data: bytes) -> None:
        while data:
            try:
                window = self._h2.local_flow_control_window(self._stream)
                size = min(window, self._h2.max_outbound_frame_size, len(data))
                if size:
                    self._h2.send_data(self._stream, data[:size])
            except StreamClosedError:
                # The server has answered and wants no more (RFC 9113 §8.1).
                return
            data = data[size:]
            if size:
                self._connection.flush()
            else:
                self._connection.receive()

    def end(self) -> None:
        try:
            self._h2.end_stream(self._stream)
        except StreamClosedError:
            return
        self._connection.flush()

    def head(self) -> Head:
        kinds = (InformationalResponseReceived, ResponseReceived, StreamReset)
        event = self._connection.next_event(self._stream, kinds)
        if isinstance(event, StreamReset):
            raise Broken(f"the stream was reset: {event.error_code!r}")
        assert isinstance(event, (InformationalResponseReceived, ResponseReceived))
        fields = [(k.decode(), v.decode("latin-1")) for k, v in event.headers or ()]
        status = dict(fields)[":status"]
        return Head(int(status), None, [field for field in fields if field[0] != ":status"])

    def piece(self) -> bytes:
        while not self._ended:
            kinds = (DataReceived, TrailersReceived, StreamEnded, StreamReset)
            event = self._connection.next_event(self._stream, kinds)
            if isinstance(event, DataReceived):
                if event.flow_controlled_length:
                    # Only what was asked for makes room for more.
                    self._h2.acknowledge_received_data(event.flow_controlled_length, self._stream)
                    self._connection.flush()
                if event.data:
                    return event.data
            elif isinstance(event, StreamReset):
                raise Broken(f"the stream was reset: {event.error_code!r}")
            elif isinstance(event, TrailersReceived):
                fields = event.headers or ()
                self.trailers = [(k.decode(), v.decode("latin-1")) for k, v in fields]
            else:
                self._ended = True
        return b""

    def leave(self) -> None:
        self._h2.reset_stream(self._stream, ErrorCodes.CANCEL)
        self._connection.flush()
