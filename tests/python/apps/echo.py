"""Sends back what it gets, piece by piece: request bodies and WebSocket messages."""

from collections.abc import Iterator
from typing import Any


def wsgi(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [("content-type", "application/octet-stream")])
    return iter(lambda: environ["wsgi.input"].read(64 * 1024), b"")


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await websocket(receive, send)
    elif scope["type"] == "http":
        headers = [(b"content-type", b"application/octet-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            more = message.get("more_body", False)
            body = message.get("body", b"")
            await send({"type": "http.response.body", "body": body, "more_body": more})
    else:
        raise NotImplementedError(scope["type"])


async def websocket(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        answer = {
            name: message[name] for name in ("text", "bytes") if message.get(name) is not None
        }
        await send({"type": "websocket.send", **answer})
