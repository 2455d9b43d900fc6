"""The load of WebSockets: messages that come back, and connections that only stay open.

No tool at hand speaks the protocol fast enough, and a client with a library would be slower than
the servers. So frames are encoded once, one epoll waits for all connections, and each echo is
compared with the bytes of the first one, whose frames were read and judged. One message per
connection is on its way at a time.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import resource
import select
import socket
import time
from statistics import quantiles
from typing import TYPE_CHECKING

from load import Load, LoadError

if TYPE_CHECKING:
    from collections.abc import Generator

    from catalogue import Echo

TIMEOUT = 30.0
KEY = base64.b64encode(bytes(range(16)))
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
ACCEPT = base64.b64encode(hashlib.sha1(KEY + GUID).digest())
MASK = b"\x5a\xc3\x96\x0f"
BATCH = 64
"""Connections that are opened at a time."""
SPARE_FILES = 500
"""What a process has open beside the connections, and more."""


def run(echo: Echo, port: int, connections: int, seconds: int) -> Load:
    """Sends messages for `seconds`; counts those that came back in that time.

    Raises `LoadError` when an echo is wrong or none comes for `TIMEOUT`.
    """
    with _connections(port, connections) as opened:
        expected = _first_echo(opened[0], echo)
        cpu = time.process_time()
        for connection in opened:
            connection.setblocking(False)
        times, duration = _messages(opened, _frame(echo), expected, seconds)
        cpu = time.process_time() - cpu
    percentiles = quantiles(times, n=100, method="inclusive")
    return Load(
        requests=len(times),
        received=len(times) * len(expected),
        duration=duration,
        p50=percentiles[49],
        p99=percentiles[98],
        errors={},
        cpu=cpu,
    )


@contextlib.contextmanager
def idle(echo: Echo, port: int, connections: int) -> Generator[Load]:
    """Opens connections that stay open in the block, each used once before and once after it.

    Raises `LoadError` when one cannot be opened or did not last.
    """
    started, cpu = time.monotonic(), time.process_time()
    frame = _frame(echo)
    with _connections(port, connections) as opened:
        expected = _first_echo(opened[0], echo)
        _echo_on_each(opened, frame, expected)
        yield Load(
            requests=connections,
            received=0,
            duration=time.monotonic() - started,
            p50=0.0,
            p99=0.0,
            errors={},
            cpu=time.process_time() - cpu,
        )
        _echo_on_each(opened, frame, expected)


def raise_file_limit() -> int:
    """Lets this process and its children open as many files as they may; returns how many
    connections that is enough for.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard - SPARE_FILES


@contextlib.contextmanager
def _connections(port: int, count: int) -> Generator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        opened: list[socket.socket] = []
        while len(opened) < count:
            batch = [
                stack.enter_context(socket.create_connection(("127.0.0.1", port), TIMEOUT))
                for _ in range(min(BATCH, count - len(opened)))
            ]
            for connection in batch:
                # Ends with a reset, so that no port is kept in TIME_WAIT for the next server.
                linger = b"\1\0\0\0\0\0\0\0"
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.sendall(
                    b"GET /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n"
                    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                    b"Sec-WebSocket-Key: " + KEY + b"\r\n\r\n"
                )
            for connection in batch:
                _accepted(connection)
            opened += batch
        yield opened


def _accepted(connection: socket.socket) -> None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = connection.recv(4096)
        if not piece:
            raise LoadError(f"handshake: the connection ended after {head!r}")
        head += piece
    if not head.startswith(b"HTTP/1.1 101 ") or ACCEPT not in head:
        raise LoadError(f"handshake: got {head!r}")


def _frame(echo: Echo) -> bytes:
    """The message as a client sends it: one frame, masked (RFC 6455 §5.2)."""
    mask = MASK * (len(echo.payload) // 4 + 1)
    masked = bytes(byte ^ key for byte, key in zip(echo.payload, mask, strict=False))
    return _head(echo, 0x80) + MASK + masked


def _head(echo: Echo, mask_bit: int) -> bytes:
    first, length = (0x81 if echo.text else 0x82), len(echo.payload)
    if length < 126:
        return bytes((first, mask_bit | length))
    return bytes((first, mask_bit | 126)) + length.to_bytes(2, "big")


def _first_echo(connection: socket.socket, echo: Echo) -> bytes:
    """Sends the message once; returns the bytes that came back, which must be one frame."""
    connection.sendall(_frame(echo))
    expected = _head(echo, 0) + echo.payload
    received = _receive(connection, len(expected))
    if received != expected:
        raise LoadError(f"echo: expected {expected[:40]!r}..., got {received[:40]!r}...")
    return expected


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        piece = connection.recv(size - len(received))
        if not piece:
            raise LoadError(f"echo: the connection ended after {received[:40]!r}")
        received += piece
    return received


def _echo_on_each(opened: list[socket.socket], frame: bytes, expected: bytes) -> None:
    for start in range(0, len(opened), BATCH):
        batch = opened[start : start + BATCH]
        for connection in batch:
            connection.sendall(frame)
        for connection in batch:
            # A ping of the server's may come first.
            received = _receive(connection, len(expected))
            while received.startswith(b"\x89"):
                length = 2 + received[1]
                received = received[length:] + _receive(connection, length)
            if received != expected:
                raise LoadError(f"echo on an idle connection: got {received[:40]!r}")


def _messages(
    opened: list[socket.socket], frame: bytes, expected: bytes, seconds: int
) -> tuple[list[float], float]:
    """The seconds that each message took, and those that all took together."""
    # One more than an echo has, so that what comes behind one is seen.
    size = len(expected) + 1
    # Bound once: at 100 000 messages per second each look-up counts.
    read, write, clock = os.read, os.write, time.perf_counter
    times: list[float] = []
    partial: dict[int, bytes] = {}
    sent: dict[int, float] = {}
    with contextlib.closing(select.epoll()) as epoll:
        for connection in opened:
            epoll.register(connection, select.EPOLLIN)
        started = clock()
        end = started + seconds
        for connection in opened:
            sent[connection.fileno()] = clock()
            connection.sendall(frame)
        while (now := clock()) < end:
            ready = epoll.poll(TIMEOUT)
            if not ready:
                raise LoadError(f"no echo for {TIMEOUT:.0f} s")
            for fd, _event in ready:
                data = read(fd, size)
                if data != expected:
                    data = _assembled(partial, fd, data, expected)
                    if data is None:
                        continue
                now = clock()
                times.append(now - sent[fd])
                sent[fd] = now
                if write(fd, frame) != len(frame):
                    raise LoadError("the server does not read")
        return times, now - started


def _assembled(partial: dict[int, bytes], fd: int, data: bytes, expected: bytes) -> bytes | None:
    """The whole echo when its last piece has come; `None` before that."""
    if not data:
        raise LoadError("the server ended a connection")
    data = partial.pop(fd, b"") + data
    if data == expected:
        return data
    if not expected.startswith(data):
        raise LoadError(f"wrong echo: {data[:40]!r}... of {len(data)} bytes")
    partial[fd] = data
    return None
