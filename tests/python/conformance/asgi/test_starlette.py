"""What Starlette and sse-starlette build upon `receive`, `send` and cancellation."""

from __future__ import annotations

import asyncio
import contextvars
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from conformance.asgi.apps import Gate, Receive, Scope, Seen, Send, Site
from conformance.clients import UNTOLD
from conformance.sites import where_a_body_need_not_tell_its_length
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from conformance.clients import Exchange

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def single(
    endpoint: Callable[[Request], Awaitable[Response]] | Callable[[Request], Response],
    *middleware: Middleware,
) -> Starlette:
    """An application of one endpoint, for every path and method."""
    methods = ["GET", "POST"]
    routes = [Route("/{path:path}", endpoint, methods=methods)]
    return Starlette(routes=routes, middleware=middleware)


class Passing(BaseHTTPMiddleware):
    """Does nothing, in the way that most middleware of applications is written."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-passed"] = "1"
        return response


WAYS = pytest.mark.parametrize("middleware", [[], [Middleware(Passing)]], ids=["bare", "base"])


def leave_a_stream(site: Site) -> Exchange:
    """A client that has seen the first piece, and goes."""
    exchange = site.start()
    assert exchange.head().status == 200
    exchange.take(1)
    exchange.leave()
    return exchange


# --- Requests ---


@WAYS
def test_a_request_is_read_as_body_stream_or_form(site: Site, middleware: list[Middleware]) -> None:
    async def endpoint(request: Request) -> Response:
        how = request.path_params["path"]
        if how == "stream":
            return PlainTextResponse(b"".join([piece async for piece in request.stream()]))
        if how == "form":
            return PlainTextResponse(str((await request.form())["name"]))
        return PlainTextResponse(await request.body())

    site.serve(single(endpoint, *middleware))
    form = [("Content-Type", "application/x-www-form-urlencoded")]
    assert site.ask("POST", "/body", body=b"x" * 50_000).body == b"x" * 50_000
    assert site.ask("POST", "/stream", body=b"y" * 50_000).body == b"y" * 50_000
    assert site.ask("POST", "/form", form, b"name=value").body == b"value"


@WAYS
def test_a_client_that_leaves_within_its_body_is_client_disconnect(
    site: Site, middleware: list[Middleware]
) -> None:
    seen = Seen()

    async def endpoint(request: Request) -> Response:
        seen("began")
        try:
            await request.body()
        except ClientDisconnect:
            seen("left")
        return PlainTextResponse("into the void")

    site.serve(single(endpoint, *middleware))
    exchange = site.start("POST", length=10)
    exchange.send(b"half")
    seen.wait()
    exchange.leave()
    assert seen.wait(2)[1] == "left"
    assert site.ended_log() == ""


def test_is_disconnected_is_false_until_the_client_leaves(site: Site) -> None:
    """It asks `receive` and gives up at once, again and again."""
    seen = Seen()

    async def endpoint(request: Request) -> Response:
        await request.body()
        for _ in range(3):
            assert not await request.is_disconnected()
        seen("polling")
        while not await request.is_disconnected():
            await asyncio.to_thread(time.sleep, 0.001)
        seen("left")
        return PlainTextResponse("into the void")

    site.serve(single(endpoint))
    exchange = site.start()
    seen.wait()
    exchange.leave()
    assert seen.wait(2) == ["polling", "left"]
    assert site.ended_log() == ""


# --- Streams ---


@WAYS
def test_a_streaming_response_flushes_each_piece(site: Site, middleware: list[Middleware]) -> None:
    gates = [Gate() for _ in range(3)]

    async def endpoint(_request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for number, gate in enumerate(gates):
                yield str(number).encode()
                await gate.passed()

        return StreamingResponse(pieces())

    site.serve(single(endpoint, *middleware))
    exchange = site.start()
    head = exchange.head()
    assert head.all("x-passed") == ["1"] * len(middleware)
    for number, gate in enumerate(gates):
        assert exchange.take(1) == str(number).encode()
        gate.open()
    assert exchange.body() == b""


@where_a_body_need_not_tell_its_length
def test_a_stream_of_the_request_may_be_the_stream_of_the_response(site: Site) -> None:
    async def endpoint(request: Request) -> Response:
        return StreamingResponse(piece.upper() async for piece in request.stream())

    site.serve(single(endpoint))
    exchange = site.start("POST", length=UNTOLD)
    for piece in (b"one", b"two"):
        exchange.send(piece)
    exchange.end()
    assert exchange.answer().body == b"ONETWO"


@WAYS
def test_a_generator_is_ended_when_its_client_leaves(
    site: Site, middleware: list[Middleware]
) -> None:
    seen = Seen()

    async def endpoint(_request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x"
                    await anyio.sleep(0.001)
            finally:
                seen("ended")

        return StreamingResponse(pieces())

    site.serve(single(endpoint, *middleware))
    leave_a_stream(site)
    assert seen.wait() == ["ended"]
    assert site.ended_log() == ""


def test_a_generator_that_raises_within_the_response_breaks_it_off(site: Site) -> None:
    async def endpoint(_request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"begun"
            raise LookupError("in the generator")

        return StreamingResponse(pieces())

    site.serve(single(endpoint))
    assert site.breaks()
    assert "LookupError: in the generator" in site.ended_log()


# --- Errors ---


@WAYS
def test_an_exception_of_an_endpoint_is_a_500_of_the_framework_and_in_the_log(
    site: Site, middleware: list[Middleware]
) -> None:
    """Starlette answers, then raises again, so that the server can say what it was."""

    async def endpoint(_request: Request) -> Response:
        raise LookupError("in the endpoint")

    site.serve(single(endpoint, *middleware))
    answer = site.ask()
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
    log = site.ended_log()
    assert log.count("LookupError: in the endpoint") == 1
    assert "in endpoint" in log


def test_an_exception_that_is_handled_is_not_in_the_log(site: Site) -> None:
    async def endpoint(_request: Request) -> Response:
        raise LookupError("expected")

    async def handle(_request: Request, error: Exception) -> Response:
        return PlainTextResponse(str(error), 418)

    app = Starlette(
        routes=[Route("/{path:path}", endpoint)], exception_handlers={LookupError: handle}
    )
    site.serve(app)
    answer = site.ask()
    assert (answer.status, answer.body) == (418, b"expected")
    assert site.ended_log() == ""


# --- Background tasks ---


@WAYS
def test_a_background_task_runs_after_the_client_has_the_response(
    site: Site, middleware: list[Middleware]
) -> None:
    gate = Gate()
    seen = Seen()

    async def work() -> None:
        await gate.passed()
        seen("worked")

    async def endpoint(_request: Request) -> Response:
        return PlainTextResponse("done", background=BackgroundTask(work))

    site.serve(single(endpoint, *middleware))
    connection = site.connect()
    for _ in range(2):
        # Nor does the next request on the connection wait for it.
        assert connection.ask("GET", f"{site.mount}/").body == b"done"
    assert seen.values == []
    gate.open()
    assert seen.wait(2) == ["worked"] * 2


@WAYS
def test_a_background_task_runs_also_when_the_client_has_gone(
    site: Site, middleware: list[Middleware]
) -> None:
    gate = Gate()
    seen = Seen()

    async def work() -> None:
        await gate.passed()
        await anyio.lowlevel.checkpoint()
        seen("worked")

    async def endpoint(_request: Request) -> Response:
        return PlainTextResponse("done", background=BackgroundTask(work))

    site.serve(single(endpoint, *middleware))
    assert site.ask().body == b"done"
    site.hang_up()
    gate.open()
    assert seen.wait() == ["worked"]
    assert site.ended_log() == ""


def test_an_exception_of_a_background_task_is_in_the_log_and_harms_nobody(site: Site) -> None:
    async def work() -> None:
        raise LookupError("in the background")

    async def endpoint(_request: Request) -> Response:
        return PlainTextResponse("done", background=BackgroundTask(work))

    site.serve(single(endpoint))
    connection = site.connect()
    for _ in range(2):
        assert connection.ask("GET", f"{site.mount}/").body == b"done"
    assert site.ended_log().count("LookupError: in the background") == 2


# --- Contexts ---


@pytest.mark.parametrize("kind", ["coroutine", "thread"])
def test_endpoints_see_what_a_middleware_set(site: Site, kind: str) -> None:
    class Setting:
        def __init__(self, app: Any) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            assert variable.get() == "unset"
            variable.set("of the middleware")
            await self._app(scope, receive, send)

    async def coroutine(_request: Request) -> Response:
        return PlainTextResponse(variable.get())

    def thread(_request: Request) -> Response:
        return PlainTextResponse(variable.get())

    endpoint = coroutine if kind == "coroutine" else thread
    site.serve(single(endpoint, Middleware(Setting)))
    for _ in range(2):
        assert site.ask().body == b"of the middleware"


# --- Server-sent events ---


class Feed:
    """Numbers, from the one after the last that a client has seen."""

    def __init__(self) -> None:
        self.ended = Seen()
        self.gate = Gate()

    async def __call__(self, request: Request) -> Response:
        first = int(request.headers.get("last-event-id", "0")) + 1

        async def events() -> AsyncIterator[dict[str, str]]:
            try:
                for number in range(first, first + 3):
                    yield {"id": str(number), "event": "number", "data": f"{number}\n{number}"}
                await self.gate.passed()
                yield {"data": "end"}
            finally:
                self.ended(first)

        return EventSourceResponse(events(), ping=1000)


def event(exchange: Exchange, buffer: bytearray) -> dict[str, str]:
    """The next event of a stream."""
    while b"\r\n\r\n" not in buffer:
        buffer += exchange.take(1)
    text, _, rest = bytes(buffer).partition(b"\r\n\r\n")
    buffer[:] = rest
    fields: dict[str, str] = {}
    for line in text.decode().split("\r\n"):
        name, _, value = line.partition(": ")
        fields[name] = f"{fields[name]}\n{value}" if name in fields else value
    return fields


def test_a_client_that_comes_back_goes_on_after_the_last_event_that_it_saw(site: Site) -> None:
    feed = Feed()

    site.serve(single(feed.__call__))
    last = 0
    for attempt in range(1, 4):
        headers = [("Accept", "text/event-stream")]
        if last:
            headers.append(("Last-Event-ID", str(last)))
        exchange = site.start(headers=headers)
        head = exchange.head()
        assert (head.one("content-type") or "").startswith("text/event-stream")
        assert head.one("cache-control") == "no-store"
        buffer = bytearray()
        for _ in range(2):
            last += 1
            expected = {"id": str(last), "event": "number", "data": f"{last}\n{last}"}
            assert event(exchange, buffer) == expected
        exchange.leave()
        # It was waiting for the gate, and is ended at once all the same.
        feed.ended.wait(attempt)
    assert feed.ended.values == [1, 3, 5]
    feed.gate.open()
    assert site.ended_log() == ""


def test_a_stream_of_events_that_ends_ends_well(site: Site) -> None:
    feed = Feed()
    feed.gate.open()
    site.serve(single(feed.__call__))
    exchange = site.start()
    assert exchange.head().status == 200
    buffer = bytearray()
    assert [event(exchange, buffer)["data"] for _ in range(4)] == ["1\n1", "2\n2", "3\n3", "end"]
    assert exchange.body() == b""
    assert feed.ended.wait() == [1]
