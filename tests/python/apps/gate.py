"""Requests that wait until the test lets them go.

`GET /?gate=PATH` answers a first block at once, so that the client knows that the application runs,
and the rest when the file PATH exists. `&quiet` sends no first block: the request then waits
without an answer begun.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

LONGEST_WAIT = 30


def wsgi(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
    Path(query["gate"][0] + ".entered").touch()
    start_response("200 OK", [("content-type", "text/plain")])
    if "quiet" not in query:
        yield b"waiting "
    for _ in waits(query):
        time.sleep(0.01)
    yield f"done by {os.getpid()}\n".encode()


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    query = parse_qs(scope["query_string"].decode(), keep_blank_values=True)
    Path(query["gate"][0] + ".entered").touch()  # noqa: ASYNC240
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if "quiet" not in query:
        await send({"type": "http.response.body", "body": b"waiting ", "more_body": True})
    for _ in waits(query):
        await asyncio.sleep(0.01)
    await send({"type": "http.response.body", "body": f"done by {os.getpid()}\n".encode()})


def waits(query: dict[str, list[str]]) -> Iterator[None]:
    gate = Path(query["gate"][0])
    deadline = time.monotonic() + LONGEST_WAIT
    while not gate.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(gate)
        yield
