"""Applications under test, where they are served, and how a test and its application wait for
each other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
from adapters.raw import Client
from conformance import sites
from conformance.clients import LONG

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twinspan.testing import Server

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]

DISCONNECT: Message = {"type": "http.disconnect"}


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes = b"", *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def respond(send: Send, data: bytes = b"", *headers: tuple[bytes, bytes]) -> None:
    """A whole response."""
    await send(start(200, *headers))
    await send(body(data))


async def begin(send: Send, data: bytes = b"begun") -> None:
    """The head of a response and a first piece."""
    await send(start())
    await send(body(data, more=True))


async def read_all(receive: Receive) -> bytes:
    """The body of a request, which must be whole."""
    data = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request", f"after {len(data)} bytes: {message}"
        data += message["body"]
        if not message["more_body"]:
            return data


class Seen:
    """What an application says, for the test to wait for."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._changed = threading.Condition()

    def __call__(self, value: Any) -> None:
        with self._changed:
            self.values.append(value)
            self._changed.notify_all()

    def wait(self, count: int = 1) -> list[Any]:
        """The first `count` values, once they are there."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.values) >= count, LONG), self.values
            return self.values[:count]


class Gate:
    """Holds an application until the test opens it."""

    def __init__(self) -> None:
        self._opened = threading.Event()

    def open(self) -> None:
        self._opened.set()

    async def passed(self) -> None:
        assert await asyncio.to_thread(self._opened.wait, LONG), "nobody opened it"


class Place:
    """One application of a server that serves a whole module: it hands each request to the
    application of the test that runs."""

    def __init__(self) -> None:
        self._app: Application = nothing
        self._running = 0
        self._raised: list[BaseException] = []
        self._changed = threading.Condition()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"].update(shared=["of the lifespan"], name="place")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["path"] == "/settled":
            # uvloop may take new requests before the callbacks of a task that has ended.
            await asyncio.sleep(0)
            await respond(send)
            return
        with self._changed:
            self._running += 1
        try:
            await self._app(scope, receive, send)
        except (AssertionError, pytest.fail.Exception) as error:
            self._raised.append(error)
            raise
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def serve(self, app: Application) -> None:
        self._app = app

    def wait(self) -> None:
        """Waits until no call of the application runs; raises what a test raised within one."""
        with self._changed:
            ended = self._changed.wait_for(lambda: not self._running, LONG)
        raised, self._raised = self._raised, []
        if raised:
            raise raised[0]
        assert ended, "an application never ended"


async def nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    pytest.fail("a request came that no test waits for")


class Site(sites.Site):
    """One of the places of a server, and clients that speak `protocol`."""

    def __init__(
        self,
        server: Server,
        protocol: str,
        mount: str,
        captured: pytest.CaptureFixture[str],
        place: Place,
    ) -> None:
        super().__init__(server, protocol, mount, captured)
        self._place = place

    def serve(self, app: Application) -> None:
        """Sets the application that answers from now on."""
        self._place.serve(app)

    def settle(self) -> None:
        """Waits until every call of the application has ended, and the server has dealt with it."""
        self._place.wait()
        # The loop comes to this only after what it had to do before.
        with Client(self.server.port) as client:
            assert client.ask(target="/settled").status == 200

    def ended_log(self) -> str:
        """What the server had to say about all requests so far."""
        self.settle()
        return self.log()


def values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """All values of a header, in their order."""
    return [value for known, value in headers if known == name]
