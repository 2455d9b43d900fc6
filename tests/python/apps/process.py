"""Tells which process answers, and ends or forks it when asked."""

import os
from typing import Any


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    if environ["PATH_INFO"] == "/end":
        os._exit(70)
    process = os.getpid()
    if environ["PATH_INFO"] == "/fork":
        process = os.fork()
        if process == 0:
            # As a program would end that does not know where it runs.
            raise SystemExit
    start_response("200 OK", [("content-type", "text/plain")])
    return [str(process).encode()]


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    if scope["path"] == "/end":
        os._exit(70)
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
