"""anyio and sniffio ask the running task who it is; both must be right from the first step on."""

from __future__ import annotations

import contextvars

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
import sniffio
from conformance.asgi.apps import (
    DISCONNECT,
    Receive,
    Scope,
    Seen,
    Send,
    Site,
    begin,
    body,
    respond,
    start,
)
from conformance.clients import LONG

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_the_library_is_asyncio_in_every_step(site: Site) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        assert sniffio.current_async_library() == "asyncio"
        task = anyio.get_current_task()
        await receive()
        await anyio.lowlevel.checkpoint()
        assert sniffio.current_async_library() == "asyncio"
        assert anyio.get_current_task() == task
        await respond(send)

    site.serve(app)
    assert site.ask().status == 200


def test_a_cancel_scope_of_the_first_step_is_cancelled_there(site: Site) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anyio.sleep(LONG)
        assert scope.cancelled_caught
        # It was that scope, not the task.
        await anyio.lowlevel.checkpoint()
        await respond(send)

    site.serve(app)
    assert site.ask().status == 200


def test_a_cancel_scope_of_the_first_step_is_cancelled_in_a_later_one(site: Site) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.CancelScope() as scope:
            await receive()
            await anyio.lowlevel.checkpoint()
            scope.cancel()
            await receive()
        assert scope.cancelled_caught
        await respond(send)

    site.serve(app)
    assert site.ask().status == 200


@pytest.mark.parametrize("enters", ["at first", "later"])
def test_deadlines_end_a_receive_and_nothing_else(site: Site, enters: str) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        if enters == "later":
            await anyio.lowlevel.checkpoint()
        with anyio.fail_after(LONG):
            await receive()
        with anyio.move_on_after(0.001) as scope:
            await receive()
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError), anyio.fail_after(0.001):
            await receive()
        await respond(send)

    site.serve(app)
    assert site.ask().status == 200


def test_a_task_group_that_watches_for_the_client_is_cancelled_by_its_leaving(
    site: Site,
) -> None:
    """How streaming responses are written: one task streams, one listens."""
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        async with anyio.create_task_group() as group:

            async def stream() -> None:
                try:
                    await begin(send)
                    seen("streaming")
                    await anyio.sleep_forever()
                finally:
                    seen("cancelled")

            async def listen() -> None:
                assert await receive() == DISCONNECT
                group.cancel_scope.cancel()

            group.start_soon(stream)
            await listen()
        seen("left the group")

    site.serve(app)
    exchange = site.start()
    assert exchange.head().status == 200
    seen.wait()
    exchange.leave()
    assert seen.wait(3) == ["streaming", "cancelled", "left the group"]
    assert site.ended_log() == ""


def test_a_task_group_that_streams_to_the_end_cancels_who_listens(site: Site) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        async with anyio.create_task_group() as group:

            async def listen() -> None:
                await receive()
                pytest.fail("nobody left")

            group.start_soon(listen)
            await anyio.lowlevel.checkpoint()
            await begin(send)
            group.cancel_scope.cancel()
        await send(body(b" and ended"))

    site.serve(app)
    assert site.ask().body == b"begun and ended"


def test_an_error_in_a_group_is_an_error_of_the_application(site: Site) -> None:
    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        async def fail() -> None:
            await anyio.lowlevel.checkpoint()
            raise LookupError("in the group")

        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            await receive()
            await receive()

    site.serve(app)
    assert site.ask().status == 500
    assert "LookupError: in the group" in site.ended_log()


def test_what_is_shielded_sends_to_its_end(site: Site) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        with anyio.CancelScope() as scope:
            scope.cancel()
            with anyio.CancelScope(shield=True):
                for _ in range(5):
                    await anyio.lowlevel.checkpoint()
                    await send(body(b"x", more=True))
            await anyio.sleep(LONG)
        await send(body())

    site.serve(app)
    assert site.ask().body == b"xxxxx"


def test_threads_have_the_context_and_may_call_back(site: Site) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        variable.set("inherited")

        async def begin_here() -> None:
            await begin(send, b"from a thread")

        def work() -> str:
            anyio.from_thread.run(begin_here)
            return variable.get()

        assert await anyio.to_thread.run_sync(work) == "inherited"
        await send(body())

    site.serve(app)
    assert site.ask().body == b"from a thread"


def test_streams_between_tasks_carry_a_body(site: Site) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        writing, reading = anyio.create_memory_object_stream[bytes](0)

        async def read() -> None:
            async with writing:
                more = True
                while more:
                    message = await receive()
                    more = message["more_body"]
                    await writing.send(message["body"])

        await send(start())
        async with anyio.create_task_group() as group, reading:
            group.start_soon(read)
            async for piece in reading:
                await send(body(piece, more=True))
        await send(body())

    site.serve(app)
    data = bytes(range(256)) * 2000
    assert site.ask("POST", body=data).body == data


def test_event_and_limiter_wake_a_request_from_another(site: Site) -> None:
    event: anyio.Event | None = None
    seen = Seen()

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal event
        if scope["path"].endswith("/wake"):
            assert event is not None
            event.set()
        else:
            event = anyio.Event()
            seen("waits")
            with anyio.fail_after(LONG):
                await event.wait()
        await respond(send, b"woken")

    site.serve(app)
    waiting = site.start()
    seen.wait()
    assert site.ask(path="/wake").status == 200
    assert waiting.answer().body == b"woken"
