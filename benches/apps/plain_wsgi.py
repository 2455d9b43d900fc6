"""Bare WSGI applications: what they cost is the server, not a framework."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

HELLO = b"Hello, world!"
LARGE = b"x" * (100 * 1024)


def hello(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    return respond(start_response, HELLO)


def large(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    return respond(start_response, LARGE)


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    return respond(start_response, environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))


def sleep(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Waits as for a database: how many threads work at a time is all that counts."""
    time.sleep(0.010)
    return respond(start_response, HELLO)


def respond(start_response: StartResponse, body: bytes) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
