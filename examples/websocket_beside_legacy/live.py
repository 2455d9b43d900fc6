"""The WebSocket beside the guest book: how many people read it right now, and what time it is.

Plain ASGI without a framework, as small as a WebSocket application gets. It has no router that
could be read, so it is given its path by a mount.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Readers of this process. Run one worker for a true number, or keep it where all workers see it.
here: set[asyncio.Event] = set()


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await reader(receive, send)
    else:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"Only WebSockets live here.\n"})


async def lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def reader(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    changed = asyncio.Event()
    here.add(changed)
    tell_everyone()
    sender = asyncio.create_task(tell(changed, send))
    try:
        while (await receive())["type"] != "websocket.disconnect":
            pass
    finally:
        here.discard(changed)
        tell_everyone()
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)


async def tell(changed: asyncio.Event, send: Send) -> None:
    """Says how many are here whenever that changes, and the time every second."""
    while True:
        changed.clear()
        news = {"readers": len(here), "time": f"{datetime.now(timezone.utc):%H:%M:%S}"}
        await send({"type": "websocket.send", "text": json.dumps(news)})
        try:
            await asyncio.wait_for(changed.wait(), timeout=1)
        except asyncio.TimeoutError:
            continue


def tell_everyone() -> None:
    for changed in here:
        changed.set()
