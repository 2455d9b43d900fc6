"""The two sides of a migration: both say who they are, and the new one fails below /faulty."""

from __future__ import annotations

from typing import Any

TEXT = "text/plain; charset=utf-8"


def old(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("content-type", TEXT)])
    return [b"old"]


async def new(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    status = 500 if scope["path"].startswith("/faulty") else 200
    headers = [(b"content-type", TEXT.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"new"})
