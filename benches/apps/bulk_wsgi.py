"""A WSGI application that takes and gives 100 MiB and never holds more than one block of it.

What grows while it works is the server. All content is zero bytes: so the file can be one without
blocks on the disk, and nothing is written to the disk while servers are measured.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from plain_wsgi import hello, respond

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

SIZE = 100 * 2**20
BLOCK = 64 * 1024

FILE = tempfile.TemporaryFile()  # noqa: SIM115 - for as long as the process lives
FILE.truncate(SIZE)


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    match environ["PATH_INFO"]:
        case "/upload":
            return upload(environ, start_response)
        case "/blocks":
            start_download(start_response)
            # Each a new one, and written to: references to one block, or pages that nobody touched,
            # would cost a server nothing that collects them.
            return (b"\0" * BLOCK for _ in range(SIZE // BLOCK))
        case "/file":
            start_download(start_response)
            # Opened anew, for a position of its own.
            return wrapped(environ, Path(f"/proc/self/fd/{FILE.fileno()}").open("rb"))
        case _:
            return hello(environ, start_response)


def upload(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Reads the body in blocks, forgets them, and answers how many bytes they were."""
    received = 0
    while block := environ["wsgi.input"].read(BLOCK):
        received += len(block)
    return respond(start_response, str(received).encode())


def wrapped(environ: WSGIEnvironment, file: BinaryIO) -> Iterable[bytes]:
    """The file as PEP 3333 sends one, on servers with and without a wrapper."""
    if "wsgi.file_wrapper" in environ:
        return environ["wsgi.file_wrapper"](file, BLOCK)
    return iter(lambda: file.read(BLOCK), b"")


def start_download(start_response: StartResponse) -> None:
    headers = [("Content-Type", "application/octet-stream"), ("Content-Length", str(SIZE))]
    start_response("200 OK", headers)
