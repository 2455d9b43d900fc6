"""Applications whose lifespan goes well, goes wrong or does not exist."""

import os
from pathlib import Path
from typing import Any


async def answer(scope: dict[str, Any], send: Any, body: bytes) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def recorded(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Appends what happens to the file `$LIFESPAN_RECORD`, and keeps a state."""
    if scope["type"] != "lifespan":
        await answer(scope, send, str(scope["state"]["number"]).encode())
        return
    await receive()
    scope["state"]["number"] = 42
    note("startup")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    note(f"shutdown {scope['state'].get('number')}")
    await send({"type": "lifespan.shutdown.complete"})


def note(line: str) -> None:
    with Path(os.environ["LIFESPAN_RECORD"]).open("a", encoding="utf-8") as record:
        record.write(line + "\n")


async def failing(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "the database is not there"})
    else:
        await answer(scope, send, b"started in spite of it")


async def raising(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Knows no lifespan and says so by an exception, as the specification allows."""
    await answer(scope, send, b"no lifespan here")
