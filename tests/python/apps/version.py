"""Tells the version that its file had at import; the version `broken` cannot be imported."""

import os
from pathlib import Path
from typing import Any

VERSION = Path(os.environ["VERSION_FILE"]).read_text(encoding="utf-8").strip()
if VERSION == "broken":
    raise RuntimeError("this version is broken")


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("content-type", "text/plain")])
    return [VERSION.encode()]


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": VERSION.encode()})
