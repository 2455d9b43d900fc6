"""ASGI, "Lifespan Protocol"."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from conformance.asgi.apps import Message, Receive, Scope, Seen, Send, respond
from conformance.clients import connect
from twinspan.testing import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request


async def complete(receive: Receive, send: Send) -> Message:
    """Receives a message and says that it is done."""
    message = await receive()
    await send({"type": f"{message['type']}.complete"})
    return message


def test_the_scope_has_its_keys_and_the_messages_have_theirs() -> None:
    scopes: list[Scope] = []
    messages: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(dict(scope))
        messages.append(await complete(receive, send))
        messages.append(await complete(receive, send))

    with Server(app):
        pass
    assert scopes == [
        {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    ]
    assert type(scopes[0]["state"]) is dict
    assert messages == [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]


def test_it_runs_in_the_loop_of_the_requests_and_once() -> None:
    loops: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        loops.append(asyncio.get_running_loop())
        assert asyncio.current_task() is not None
        if scope["type"] == "lifespan":
            await complete(receive, send)
            await complete(receive, send)
        else:
            await respond(send)

    with Server(app) as server:
        for protocol in ("HTTP/1.1", "HTTP/2"):
            connection = connect(protocol, server.address)
            assert connection.ask().status == 200
            connection.close()
    assert len(loops) == 3
    assert len(set(loops)) == 1


def test_no_request_comes_before_the_startup_is_complete_nor_after_the_shutdown() -> None:
    """ "A server must wait for this message before it starts processing connections"."""
    order: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            for _ in range(10):
                await asyncio.sleep(0)
            order.append("started")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            order.append("stopping")
            await send({"type": "lifespan.shutdown.complete"})
        else:
            order.append("request")
            await respond(send)

    server = Server(app)
    # It listens already: a client may knock before the applications are ready.
    connection = connect("HTTP/1.1", server.address)
    exchange = connection.start()
    with server:
        assert exchange.answer().status == 200
        connection.close()
    assert order == ["started", "request", "stopping"]


def test_what_the_lifespan_leaves_in_state_is_alive_until_the_shutdown_ends() -> None:
    events: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["pool"] = pool = {"open": True}
            await send({"type": "lifespan.startup.complete"})
            await receive()
            assert scope["state"]["pool"] is pool
            events.append(("at shutdown", dict(pool)))
            pool["open"] = False
            await send({"type": "lifespan.shutdown.complete"})
        else:
            events.append(("in request", dict(scope["state"]["pool"])))
            scope["state"]["request"] = 1
            scope["state"]["pool"]["used"] = True
            await respond(send)

    with Server(app) as server:
        connection = connect("HTTP/1.1", server.address)
        assert connection.ask().status == 200
        connection.close()
    assert events == [
        ("in request", {"open": True}),
        ("at shutdown", {"open": True, "used": True}),
    ]


def test_receive_waits_between_startup_and_shutdown() -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await respond(send)
            return
        await complete(receive, send)
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        seen(waiting.done())
        seen((await waiting)["type"])
        await send({"type": "lifespan.shutdown.complete"})

    with Server(app) as server:
        connection = connect("HTTP/1.1", server.address)
        assert connection.ask().status == 200
        connection.close()
        assert seen.wait() == [False]
    assert seen.values == [False, "lifespan.shutdown"]


def test_the_message_of_a_failed_startup_is_what_the_server_says() -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database at db.example"})

    with pytest.raises(RuntimeError, match=r"no database at db\.example"):
        Server(app).start()


def test_a_failed_startup_needs_no_message() -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed"})

    with pytest.raises(RuntimeError, match="lifespan"):
        Server(app).start()


@pytest.mark.parametrize("how", ["raises at once", "returns at once"])
def test_an_application_without_a_lifespan_is_served_all_the_same(how: str) -> None:
    """ "If an exception is raised …, the server must continue but not send any lifespan events"."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            if how == "raises at once":
                raise NotImplementedError
            return
        # There is a namespace all the same, and it is empty.
        assert scope.get("state", {}) == {}
        await respond(send, b"served")

    with Server(app) as server:
        connection = connect("HTTP/1.1", server.address)
        assert connection.ask().body == b"served"
        connection.close()


@pytest.mark.parametrize("ending", ["returns", "raises", "says so"])
def test_a_shutdown_that_goes_wrong_does_not_keep_the_server(
    ending: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await respond(send)
            return
        await complete(receive, send)
        await receive()
        if ending == "raises":
            raise ValueError("while stopping")
        if ending == "says so":
            await send({"type": "lifespan.shutdown.failed", "message": "while stopping"})

    with Server(app):
        pass
    assert ("while stopping" in capfd.readouterr().err) == (ending != "returns")


@pytest.mark.parametrize(
    "message",
    [
        None,
        {},
        {"type": 5},
        {"type": "http.response.start", "status": 200},
        {"type": "lifespan.unknown"},
        {"type": "lifespan.startup"},
    ],
    ids=repr,
)
def test_a_message_that_is_not_allowed_raises_and_counts_for_nothing(message: Any) -> None:
    raised: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await respond(send)
            return
        await receive()
        for attempt in (message, {"type": "lifespan.startup.complete"}, message):
            refused = True
            with contextlib.suppress(KeyError, TypeError, RuntimeError):
                await send(attempt)
                refused = False
            if refused:
                raised.append(attempt)
        await complete(receive, send)

    with Server(app) as server:
        connection = connect("HTTP/1.1", server.address)
        assert connection.ask().status == 200
        connection.close()
    assert raised == [message] * 2


def test_context_variables_of_the_lifespan_are_not_those_of_requests() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            variable.set("lifespan")
            await complete(receive, send)
            await receive()
            seen.append(variable.get())
            await send({"type": "lifespan.shutdown.complete"})
        else:
            seen.append(variable.get())
            variable.set("request")
            await respond(send)

    with Server(app) as server:
        connection = connect("HTTP/1.1", server.address)
        assert [connection.ask().status for _ in range(2)] == [200, 200]
        connection.close()
    assert seen == ["unset", "unset", "lifespan"]


def test_the_lifespan_of_starlette_spans_its_requests() -> None:
    """A task group that is opened at the start is closed by the same task at the end."""
    import anyio
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    done: list[str] = []

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
        async with anyio.create_task_group() as group:
            yield {"group": group, "name": "starlette"}
            done.append("leaving")

    async def endpoint(request: Request) -> PlainTextResponse:
        finished = anyio.Event()

        async def work() -> None:
            done.append("worked")
            finished.set()

        request.state.group.start_soon(work)
        await finished.wait()
        return PlainTextResponse(request.state.name)

    app = Starlette(routes=[Route("/", endpoint)], lifespan=lifespan)
    with Server(app) as server:
        connection = connect("HTTP/1.1", server.address)
        assert connection.ask().body == b"starlette"
        connection.close()
    assert done == ["worked", "leaving"]
