"""What an application sees of a request, as JSON."""

import json
from typing import Any


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    body = json.dumps(environ, default=repr, sort_keys=True).encode()
    start_response("200 OK", [("content-type", "application/json")])
    return [body]


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    body = json.dumps(scope, default=text, sort_keys=True).encode()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else repr(value)
