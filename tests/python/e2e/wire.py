"""Requests that no HTTP library would send as they are, and answers as they are on the wire."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from support import Command


TESTS = Path(__file__).parents[1]
# What a command needs to find `tests/python/apps` as `apps` and to listen on a port of its own.
FOR_TESTS = ("--app-dir", str(TESTS), "--bind", "127.0.0.1:0")


class StartShared(Protocol):
    def __call__(self, *arguments: str, env: Mapping[str, str] | None = None) -> Command: ...


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes
    """As on the wire: with the frames of a chunked body."""


def exchange(port: int, request: bytes, timeout: float = 20) -> bytes:
    """Sends `request` and returns all that comes until the server closes.

    Raises `ConnectionResetError` if the server resets the connection.
    """
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.sendall(request)
        return read_to_end(connection)


def read_to_end(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(64 * 1024), b""))


def ask(port: int, method: str, target: str, **headers: str) -> Answer:
    """One request on a connection of its own, its target exactly as given."""
    fields = {"host": "localhost", "connection": "close"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    raw = exchange(port, "\r\n".join([*lines, "", ""]).encode("latin-1"))
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in rest)
    return Answer(
        int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}, body
    )
