"""ASGI 2.5, "Disconnect - `receive` event" and "Disconnected Client - `send` exception"."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

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
    respond,
    start,
)
from conformance.sites import where_a_connection_has_many_streams

if TYPE_CHECKING:
    from conformance.clients import Exchange


def leave_after_the_head(site: Site) -> Exchange:
    """A client that gets the head and a piece, and goes."""
    exchange = site.start()
    assert exchange.head().status == 200
    exchange.take(1)
    exchange.leave()
    return exchange


# --- receive ---


def test_a_client_that_leaves_before_the_head_is_seen_at_once(site: Site) -> None:
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        assert (await receive())["more_body"] is False
        seen("began")
        seen(await receive())
        # And again, as often as it asks.
        seen(await receive())

    site.serve(app)
    exchange = site.start()
    seen.wait()
    exchange.leave()
    assert seen.wait(3)[1:] == [DISCONNECT] * 2
    assert site.ended_log() == ""


@pytest.mark.parametrize("waits", ["before", "after"])
def test_a_client_that_leaves_within_the_response_is_seen_at_once(site: Site, waits: str) -> None:
    """Whether the application asked before its response began, or after."""
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if waits == "before":
            waiting = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            await begin(send)
        else:
            await begin(send)
            waiting = asyncio.ensure_future(receive())
        seen(await waiting)
        seen(await receive())

    site.serve(app)
    leave_after_the_head(site)
    assert seen.wait(2) == [DISCONNECT] * 2


def test_a_client_that_left_while_nobody_asked_is_seen_when_somebody_does(site: Site) -> None:
    seen = Seen()
    gate = Gate()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await begin(send)
        await gate.passed()
        seen(await receive())

    site.serve(app)
    leave_after_the_head(site)
    gate.open()
    assert seen.wait() == [DISCONNECT]


def test_every_task_that_waits_learns_it(site: Site) -> None:
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await begin(send)
        for message in await asyncio.gather(*(receive() for _ in range(5))):
            seen(message)

    site.serve(app)
    leave_after_the_head(site)
    assert seen.wait(5) == [DISCONNECT] * 5


def test_an_application_that_never_read_the_body_learns_it_too(site: Site) -> None:
    """An empty body is there first, then the disconnect."""
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send)
        while (message := await receive())["type"] == "http.request":
            pass
        seen(message)

    site.serve(app)
    leave_after_the_head(site)
    assert seen.wait() == [DISCONNECT]


# --- send ---


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_send_raises_os_error_once_the_client_has_left(site: Site, size: int) -> None:
    """ "the server should raise a server-specific subclass of `OSError`"."""
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await begin(send)
        assert await receive() == DISCONNECT
        for _ in range(2):
            with pytest.raises(OSError, match="disconnected"):
                await send(body(b"x" * size, more=True))
        with pytest.raises(OSError, match="disconnected"):
            await send(body(b"x" * size))
        seen("raised")

    site.serve(app)
    leave_after_the_head(site)
    seen.wait()
    assert site.ended_log() == ""


def test_send_raises_os_error_to_who_left_before_the_head(site: Site) -> None:
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        seen("began")
        assert await receive() == DISCONNECT
        with pytest.raises(OSError, match="disconnected"):
            await respond(send)
        seen("raised")

    site.serve(app)
    exchange = site.start()
    seen.wait()
    exchange.leave()
    seen.wait(2)
    assert site.ended_log() == ""


def test_a_send_that_waits_for_a_slow_client_raises_when_it_leaves(site: Site) -> None:
    seen = Seen()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await begin(send)
        try:
            while True:
                sending = asyncio.ensure_future(send(body(b"x" * 65536, more=True)))
                if not (await asyncio.wait({sending}, timeout=0.1))[0]:
                    seen("held")
                await sending
        except OSError:
            seen("raised")
            raise

    site.serve(app)
    exchange = site.connect(buffer=16 * 1024).start(target=f"{site.mount}/")
    seen.wait()
    exchange.leave()
    while "raised" not in seen.wait(len(seen.values)):
        seen.wait(len(seen.values) + 1)
    assert site.ended_log() == ""


@pytest.mark.parametrize("how", ["raises it", "raises of it", "returns"])
def test_that_a_client_left_is_no_error_in_the_log(site: Site, how: str) -> None:
    """ "should not log it as an error in their server logs"; they may re-raise it."""

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await begin(send)
        await receive()
        try:
            await send(body(b"more", more=True))
        except OSError as error:
            if how == "raises it":
                raise
            if how == "raises of it":
                raise RuntimeError("what a framework makes of it") from error

    site.serve(app)
    leave_after_the_head(site)
    assert site.ended_log() == ""


def test_another_error_of_an_application_whose_client_left_is_in_the_log(site: Site) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await begin(send)
        await receive()
        raise LookupError("while it cleaned up")

    site.serve(app)
    leave_after_the_head(site)
    assert "LookupError: while it cleaned up" in site.ended_log()


def test_an_os_error_of_the_applications_own_is_in_the_log(site: Site) -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise FileNotFoundError("no such file")

    site.serve(app)
    assert site.ask().status == 500
    assert "FileNotFoundError: no such file" in site.ended_log()


# --- What goes on, and what does not ---


def test_the_application_is_not_cancelled(site: Site) -> None:
    """It finishes what it does: a payment say. Whether to go on is its own decision."""
    seen = Seen()
    gate = Gate()

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        seen("began")
        try:
            await gate.passed()
        except asyncio.CancelledError:
            seen("cancelled")
            raise
        seen("finished")

    site.serve(app)
    exchange = site.start()
    seen.wait()
    exchange.leave()
    gate.open()
    assert seen.wait(2) == ["began", "finished"]
    assert site.ended_log() == ""


def test_no_task_is_left_behind(site: Site) -> None:
    """The server makes one for each request, and asyncio forgets it when it ends."""
    tasks: list[int] = []
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].endswith("/tasks"):
            tasks.append(len(asyncio.all_tasks()))
            await respond(send)
            return
        await receive()
        await begin(send)
        await receive()
        with contextlib.suppress(OSError):
            await send(body(b"more"))
        seen("ended")

    site.serve(app)
    assert site.ask(path="/tasks").status == 200
    for number in range(1, 6):
        leave_after_the_head(site)
        seen.wait(number)
    site.settle()
    assert site.ask(path="/tasks").status == 200
    assert tasks[0] == tasks[1]


@where_a_connection_has_many_streams
def test_who_leaves_one_stream_leaves_no_other(site: Site) -> None:
    seen = Seen()
    gate = Gate()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await begin(send, b"x")
        if scope["path"].endswith("/left"):
            seen(await receive())
            return
        await gate.passed()
        await send(body(b"y"))

    site.serve(app)
    connection = site.connect()
    left = connection.start(target=f"{site.mount}/left")
    stays = connection.start(target=f"{site.mount}/stays")
    for exchange in (left, stays):
        assert exchange.head().status == 200
        assert exchange.take(1) == b"x"
    left.leave()
    assert seen.wait() == [DISCONNECT]
    gate.open()
    assert stays.body() == b"y"


@where_a_connection_has_many_streams
def test_a_connection_that_ends_ends_all_its_streams(site: Site) -> None:
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(start())
        await send(body(b"x", more=True))
        seen(await receive())

    site.serve(app)
    connection = site.connect()
    for exchange in [connection.start(target=f"{site.mount}/") for _ in range(3)]:
        assert exchange.head().status == 200
    connection.close()
    assert seen.wait(3) == [DISCONNECT] * 3


# --- After a complete response ---


def test_after_a_complete_response_receive_says_disconnect_though_the_client_stays(
    site: Site,
) -> None:
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await begin(send)
        await send(body(b"end"))
        seen(await receive())

    site.serve(app)
    assert site.ask().body == b"begunend"
    assert seen.wait() == [DISCONNECT]


def test_a_client_that_leaves_after_a_complete_response_disturbs_nobody(site: Site) -> None:
    seen = Seen()
    gate = Gate()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"all")
        await gate.passed()
        assert await receive() == DISCONNECT
        seen("worked on")

    site.serve(app)
    exchange = site.start()
    assert exchange.answer().body == b"all"
    site.hang_up()
    gate.open()
    seen.wait()
    assert site.ended_log() == ""
