"""What asyncio promises to a coroutine in a task holds for an application from its first step on,
which runs at once (an eager task) from Python 3.12 on."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
from typing import Any

import pytest
from conformance.asgi.apps import (
    DISCONNECT,
    Gate,
    Receive,
    Scope,
    Seen,
    Send,
    Site,
    begin,
    body,
    read_all,
    respond,
    start,
)
from conformance.clients import LONG, UNTOLD

if sys.version_info >= (3, 11):
    from asyncio import TaskGroup, timeout
else:
    TaskGroup: Any = None
    timeout: Any = None

since_3_11 = pytest.mark.skipif(sys.version_info < (3, 11), reason="came with Python 3.11")

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


async def steps(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# --- The task ---


def test_every_step_runs_in_one_task(site: Site) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        first = asyncio.current_task()
        assert isinstance(first, asyncio.Task)
        assert first in asyncio.all_tasks()
        assert first.get_loop() is asyncio.get_running_loop()
        assert not first.done()
        await asyncio.sleep(0)
        assert asyncio.current_task() is first
        await read_all(receive)
        assert asyncio.current_task() is first
        await begin(send)
        assert asyncio.current_task() is first
        await send(body())
        assert asyncio.current_task() is first

    site.serve(app)
    exchange = site.start("POST", length=4)
    exchange.send(b"body")
    exchange.end()
    assert exchange.answer().status == 200


def test_each_request_has_a_task_of_its_own(site: Site) -> None:
    tasks: list[Any] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        tasks.append(asyncio.current_task())
        await respond(send)

    site.serve(app)
    connection = site.connect()
    for _ in range(3):
        assert connection.ask("GET", f"{site.mount}/").status == 200
    assert len(set(tasks)) == 3


def test_no_task_is_current_once_an_application_has_ended_within_its_first_step(
    site: Site,
) -> None:
    seen = Seen()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        running = asyncio.get_running_loop()
        running.call_soon(lambda: seen(asyncio.current_task(running)))
        await respond(send, b"at once")

    site.serve(app)
    assert site.ask().body == b"at once"
    assert seen.wait() == [None]


def test_an_application_that_awaits_nothing_is_one_too(site: Site) -> None:
    """It returns, raises or responds within the call that starts it."""

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        if scope["path"].endswith("/raises"):
            raise ValueError("at once")

    site.serve(app)
    connection = site.connect()
    for path in ("/", "/raises", "/"):
        assert connection.ask("GET", site.mount + path).status == 500
    assert "ValueError: at once" in site.ended_log()


def test_callbacks_of_the_task_are_called(site: Site) -> None:
    seen = Seen()

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda done: seen(done is task and done.done()))
        if scope["path"].endswith("/later"):
            await asyncio.sleep(0)
        await respond(send)

    site.serve(app)
    for path in ("/", "/later"):
        assert site.ask(path=path).status == 200
    assert seen.wait(2) == [True, True]


def test_a_task_that_cancels_itself_in_its_first_step_is_cancelled(site: Site) -> None:
    seen = Seen()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            seen("cancelled")
        await respond(send, b"survived")

    site.serve(app)
    assert site.ask().body == b"survived"
    assert seen.values == ["cancelled"]


def test_an_application_that_is_cancelled_is_a_500(site: Site) -> None:
    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        await receive()

    site.serve(app)
    connection = site.connect()
    for _ in range(2):
        assert connection.ask("GET", f"{site.mount}/").status == 500


# --- Context variables ---


def test_a_context_variable_keeps_its_value_over_receive_and_send(site: Site) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        assert variable.get() == "unset"
        token = variable.set("first step")
        await read_all(receive)
        assert variable.get() == "first step"
        await begin(send)
        assert variable.get() == "first step"
        await steps()
        # The same context, not a copy of it: a token is good there only.
        variable.reset(token)
        assert variable.get() == "unset"
        await send(body())

    site.serve(app)
    connection = site.connect()
    for _ in range(2):
        exchange = connection.start("POST", f"{site.mount}/", length=4)
        exchange.send(b"bo")
        exchange.send(b"dy")
        exchange.end()
        assert exchange.answer().status == 200
        if site.protocol == "HTTP/1.0":
            # The end of its response was the end of the connection.
            connection = site.connect()


def test_a_context_is_fresh_for_each_request(site: Site) -> None:
    values: list[str] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        values.append(variable.get())
        variable.set(scope["path"])
        if scope["path"].endswith("/later"):
            await asyncio.sleep(0)
        await respond(send)

    site.serve(app)
    connection = site.connect()
    for path in ("/", "/later", "/", "/later"):
        assert connection.ask("GET", site.mount + path).status == 200
    assert values == ["unset"] * 4


def test_requests_at_the_same_time_do_not_see_each_others_variables(site: Site) -> None:
    gate = Gate()
    seen = Seen()

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        variable.set(scope["path"])
        seen("set")
        await gate.passed()
        await respond(send, variable.get().encode())

    site.serve(app)
    exchanges = {f"/{number}": site.start(path=f"/{number}") for number in range(4)}
    seen.wait(4)
    gate.open()
    for path, exchange in exchanges.items():
        assert exchange.answer().body == (site.mount + path).encode()


def test_what_the_first_step_sets_is_not_left_in_the_loop(site: Site) -> None:
    """A callback that the server makes later would carry it into other requests."""
    values: list[str] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"].endswith("/look"):
            outer = contextvars.Context()
            values.append(outer.run(variable.get))
            values.append(variable.get())
        else:
            variable.set("leaked")
        await respond(send)

    site.serve(app)
    for path in ("/", "/", "/look"):
        assert site.ask(path=path).status == 200
    assert values == ["unset", "unset"]


def test_child_tasks_and_threads_inherit_what_the_first_step_set(site: Site) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        variable.set("inherited")

        async def child() -> str:
            await asyncio.sleep(0)
            return variable.get()

        assert await asyncio.create_task(child()) == "inherited"
        assert await asyncio.to_thread(variable.get) == "inherited"
        await respond(send)

    site.serve(app)
    assert site.ask().status == 200


# --- Timeouts, groups, cancellation ---


@since_3_11
def test_a_timeout_ends_a_receive_and_nothing_else(site: Site) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        with pytest.raises(TimeoutError):
            async with timeout(0.001):
                await receive()
        task: Any = asyncio.current_task()
        assert not task.cancelling()
        await respond(send, b"went on")

    site.serve(app)
    assert site.ask().body == b"went on"


@since_3_11
def test_a_timeout_that_is_entered_in_the_first_step_ends_a_later_one(site: Site) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        async def late() -> None:
            async with timeout(0.001):
                await steps()
                await receive()
                await asyncio.sleep(LONG)

        with pytest.raises(TimeoutError):
            await late()
        await respond(send, b"in time")

    site.serve(app)
    assert site.ask().body == b"in time"


def test_a_send_that_is_given_up_ends_no_response(site: Site) -> None:
    seen = Seen()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        with contextlib.suppress(asyncio.TimeoutError):
            while True:
                await asyncio.wait_for(send(body(b"x" * 65536, more=True)), 0.1)
        seen("gave up")
        await send(body(b"end"))

    site.serve(app)
    exchange = site.connect(buffer=16 * 1024).start(target=f"{site.mount}/")
    assert exchange.head().status == 200
    seen.wait()
    data = exchange.body()
    assert data.strip(b"x") == b"end"
    # What was given up had been taken: only the wait for room was cancelled.
    assert (len(data) - 3) % 65536 == 0


@since_3_11
def test_a_task_group_of_the_first_step_may_receive_and_send(site: Site) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        pieces: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def reader() -> None:
            more = True
            while more:
                message = await receive()
                more = message["more_body"]
                await pieces.put(message["body"])
            await pieces.put(None)

        async def writer() -> None:
            await send(start())
            while (piece := await pieces.get()) is not None:
                await send(body(piece, more=True))
            await send(body())

        async with TaskGroup() as group:
            group.create_task(reader())
            group.create_task(writer())

    site.serve(app)
    length = 9 if site.protocol == "HTTP/1.0" else UNTOLD
    exchange = site.start("POST", length=length)
    for piece in (b"one", b"two", b"six"):
        exchange.send(piece)
    exchange.end()
    assert exchange.answer().body == b"onetwosix"


@since_3_11
@pytest.mark.parametrize("begun", [False, True], ids=["before the head", "within the body"])
def test_an_error_in_a_task_group_cancels_its_receive_and_is_the_applications(
    site: Site, begun: bool
) -> None:
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        async def listen() -> None:
            await receive()
            try:
                await receive()
            except asyncio.CancelledError:
                seen("cancelled")
                raise

        async def fail() -> None:
            await steps()
            raise LookupError("in the group")

        if begun:
            await begin(send)
        async with TaskGroup() as group:
            group.create_task(listen())
            group.create_task(fail())

    site.serve(app)
    if begun:
        assert site.breaks()
    else:
        assert site.ask().status == 500
    assert seen.wait() == ["cancelled"]
    log = site.ended_log()
    assert "LookupError: in the group" in log
    assert "ExceptionGroup" in log


def test_receive_and_send_may_be_awaited_in_every_way(site: Site) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        message = await asyncio.shield(asyncio.ensure_future(receive()))
        assert message["body"] == b"body"
        await asyncio.gather(send(start()))
        await asyncio.wait_for(send(body(b"a", more=True)), LONG)
        done, pending = await asyncio.wait({asyncio.ensure_future(send(body(b"b", more=True)))})
        assert (len(done), len(pending)) == (1, 0)
        for first in asyncio.as_completed([send(body(b"c", more=True))]):
            await first
        await asyncio.ensure_future(send(body(b"d", more=True)))

        async def delegating() -> None:
            return await send(body(b"e"))

        assert await delegating() is None
        waiting: Any = receive()
        assert await waiting == DISCONNECT

    site.serve(app)
    assert site.ask("POST", body=b"body").body == b"abcde"


def test_a_shielded_receive_outlives_who_waited_for_it(site: Site) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        listening = asyncio.ensure_future(receive())
        for _ in range(3):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(listening), 0.001)
        assert not listening.done()
        await respond(send)
        assert await listening == DISCONNECT

    site.serve(app)
    assert site.ask().status == 200


# --- Other tasks and threads ---


def test_tasks_that_send_at_the_same_time_send_whole_pieces(site: Site) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())

        async def sender(letter: bytes) -> None:
            for _ in range(20):
                await send(body(letter * 1000, more=True))

        await asyncio.gather(*(sender(letter) for letter in (b"a", b"b", b"c")))
        await send(body())

    site.serve(app)
    data = site.ask().body
    pieces = [data[at : at + 1000] for at in range(0, len(data), 1000)]
    assert sorted(pieces) == [letter * 1000 for letter in (b"a", b"b", b"c") for _ in range(20)]


def test_a_thread_may_send_by_way_of_the_loop(site: Site) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        running = asyncio.get_running_loop()

        def work() -> None:
            async def whole() -> None:
                await respond(send, b"from a thread")

            asyncio.run_coroutine_threadsafe(whole(), running).result(LONG)

        await asyncio.to_thread(work)

    site.serve(app)
    assert site.ask().body == b"from a thread"


def test_a_task_that_outlives_its_application_may_not_send(site: Site) -> None:
    """Its response has been judged when the application returned."""
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        async def late() -> None:
            await gate.passed()
            assert await receive() == DISCONNECT
            try:
                await respond(send, b"late")
            except (OSError, RuntimeError) as error:
                seen(type(error))

        seen(asyncio.ensure_future(late()))

    gate = Gate()
    site.serve(app)
    assert site.ask().status == 500
    gate.open()
    assert len(seen.wait(2)) == 2


def test_work_that_the_application_leaves_behind_goes_on(site: Site) -> None:
    seen = Seen()
    kept: set[Any] = set()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        async def work() -> None:
            await steps(10)
            seen("worked")

        kept.add(asyncio.ensure_future(work()))
        await respond(send)

    site.serve(app)
    assert site.ask().status == 200
    assert seen.wait() == ["worked"]
