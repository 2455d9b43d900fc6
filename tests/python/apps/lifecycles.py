"""Applications that differ in their lifespan alone; each says on stdout what happens to it."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Scope = dict[str, Any]
    Receive = Callable[[], Awaitable[dict[str, Any]]]
    Send = Callable[[dict[str, Any]], Awaitable[None]]
    ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]


async def answer(send: Send, body: object) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": str(body).encode()})


class App:
    """Starts and stops; a request is answered with what its scope shares with the lifespan."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.lifespan(scope, receive, send)
        else:
            await self.request(scope, send)

    async def request(self, scope: Scope, send: Send) -> None:
        await answer(send, scope["state"])

    async def lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["name"] = self.name
        self.say("starts")
        await send({"type": "lifespan.startup.complete"})
        await self.stop(scope, receive, send)

    async def stop(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "lifespan.shutdown"
        self.say(f"stops with {scope['state']}")
        await send({"type": "lifespan.shutdown.complete"})

    def say(self, text: str) -> None:
        # In one piece: several processes write to it.
        os.write(1, f"{self.name} {text}\n".encode())


class Shared(App):
    """Changes what it is given, and what is in it."""

    async def lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["list"] = []
        await super().lifespan(scope, receive, send)

    async def request(self, scope: Scope, send: Send) -> None:
        await super().request(scope, send)
        scope["state"]["own"] = True
        scope["state"]["list"].append(1)


class StopsBadly(App):
    """What a shutdown can do wrong; ``how`` is the name of a method."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how: Callable[[Send], Awaitable[None]] = getattr(self, how)

    async def stop(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        await receive()
        self.say("is asked to stop")
        await self.how(send)

    async def hangs(self, _send: Send) -> None:
        await asyncio.sleep(1000)

    async def fails(self, send: Send) -> None:
        await send({"type": "lifespan.shutdown.failed", "message": "the pool is not empty"})

    async def raises(self, _send: Send) -> None:
        raise ValueError("the pool is not empty")

    async def returns(self, _send: Send) -> None:
        """Without a word: that is how one stops that has nothing to do."""


class Breaks(App):
    """Has something run beside its requests that ends when ``/break`` is asked for."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.broken: asyncio.Event

    async def request(self, scope: Scope, send: Send) -> None:
        await super().request(scope, send)
        if scope["path"] == "/break":
            self.broken.set()

    async def stop(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        self.broken = asyncio.Event()
        await self.broken.wait()
        raise ValueError("the consumer died")


class SaysThatItBreaks(Breaks):
    """As Starlette does: the traceback first, and then the exception itself."""

    async def stop(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().stop(scope, receive, send)
        except ValueError:
            message = "Traceback (most recent call last):\n  …\nValueError: the consumer died"
            await send({"type": "lifespan.shutdown.failed", "message": message})
            raise


one, two, three = App("one"), App("two"), App("three")
again = one
shared, other = Shared("shared"), Shared("other")
hangs, fails, raises, returns = map(StopsBadly, ("hangs", "fails", "raises", "returns"))
breaks, says_that_it_breaks = Breaks("breaks"), SaysThatItBreaks("breaks")


def refusing(error: BaseException) -> ASGI:
    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise error
        await answer(send, "serves")

    return app


not_implemented = refusing(NotImplementedError())
of_its_name = refusing(ValueError("Unknown scope type: lifespan"))
buggy = refusing(ConnectionRefusedError("the database is not there"))


async def asserting(scope: Scope, _receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await answer(send, "serves")


async def by_path(scope: Scope, _receive: Receive, send: Send) -> None:
    await answer(send, f"serves {scope['path']}")


async def heedless(_scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await answer(send, "serves")


async def absent(scope: Scope, _receive: Receive, send: Send) -> None:
    if scope["type"] != "lifespan":
        await answer(send, "serves")


async def raises_in_startup(_scope: Scope, receive: Receive, _send: Send) -> None:
    await receive()
    raise ConnectionRefusedError("the database is not there")


async def returns_in_startup(_scope: Scope, receive: Receive, _send: Send) -> None:
    await receive()


async def exits_in_startup(_scope: Scope, receive: Receive, _send: Send) -> None:
    await receive()
    raise SystemExit(0)


async def fails_with_a_traceback(_scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    message = "Traceback (most recent call last):\n  in connect\nOSError: the database is not there"
    await send({"type": "lifespan.startup.failed", "message": message})
    raise OSError("the database is not there")


async def connect_for_ever() -> None:
    await asyncio.sleep(1000)


async def waits_in_startup(_scope: Scope, receive: Receive, _send: Send) -> None:
    await receive()
    await connect_for_ever()


async def blocks_in_startup(_scope: Scope, receive: Receive, _send: Send) -> None:
    await receive()
    time.sleep(4)  # noqa: ASYNC251 - it is to block


def wsgi(_environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
    start_response("200 OK", [])
    return [b"wsgi serves"]
