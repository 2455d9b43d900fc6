"""Event loops to choose by name, those that cannot be used among them."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class Selector(asyncio.SelectorEventLoop):
    """A class of one's own, over the plainest way to wait."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())


class NeverEager(Selector):
    """Says that it does not run, so that no task of it can begin before its turn."""

    def is_running(self) -> bool:
        return False


def made_by_a_function() -> asyncio.AbstractEventLoop:
    return Selector()


class Holder:
    selector = Selector


number = 42


def a_dict() -> dict[str, Any]:
    return {}


def raising() -> asyncio.AbstractEventLoop:
    raise RuntimeError("no loop today")


def closed() -> asyncio.AbstractEventLoop:
    loop = Selector()
    loop.close()
    return loop


class CannotWatch(Selector):
    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:
        raise NotImplementedError


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the class of the loop; waits on the way, and runs beside itself."""
    if scope["type"] == "lifespan":
        await receive()
        scope["state"]["loop"] = asyncio.get_running_loop()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    loop = asyncio.get_running_loop()
    assert scope["state"]["loop"] is loop
    task = asyncio.current_task()
    assert task is not None
    assert task in asyncio.all_tasks()
    body = (await receive())["body"]
    await asyncio.gather(asyncio.sleep(0.001), asyncio.to_thread(int))
    await send({"type": "http.response.start", "status": 200})
    kind = type(loop)
    text = f"{kind.__module__}.{kind.__qualname__} ".encode()
    await send({"type": "http.response.body", "body": text, "more_body": True})
    await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": body})
