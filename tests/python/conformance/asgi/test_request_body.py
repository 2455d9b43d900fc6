"""ASGI 2.5, "Request - `receive` event", and what "Disconnect" means within a body and after it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest
from conformance.asgi.apps import (
    DISCONNECT,
    Gate,
    Message,
    Receive,
    Scope,
    Seen,
    Send,
    Site,
    begin,
    body,
    read_all,
    respond,
)
from conformance.clients import UNTOLD
from conformance.sites import (
    where_a_body_need_not_tell_its_length,
    where_continue_cannot_be_sent,
    where_continue_is_sent,
    where_requests_may_be_sent_ahead,
    where_there_are_chunks,
    where_there_are_none,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from conformance.clients import Connection

EMPTY: Message = {"type": "http.request", "body": b"", "more_body": False}


async def echo(_scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, await read_all(receive))


# --- The messages ---


@pytest.mark.parametrize("sent", [None, b""], ids=["no body", "an empty one"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_without_content_is_one_message(
    site: Site, method: str, sent: bytes | None
) -> None:
    """ "as a trigger to actually run request code"."""
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        seen(await receive())
        await respond(send)

    site.serve(app)
    assert site.ask(method, body=sent).status == 200
    assert seen.values == [EMPTY]


def test_every_message_has_all_keys_with_their_types(site: Site) -> None:
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            seen(message)
            if not message["more_body"]:
                break
        await respond(send)

    site.serve(app)
    data = bytes(range(256)) * 1024
    assert site.ask("POST", body=data).status == 200
    for message in seen.values:
        assert type(message) is dict
        assert message.keys() == {"type", "body", "more_body"}
        assert message["type"] == "http.request"
        assert type(message["body"]) is bytes
        assert type(message["more_body"]) is bool
    assert b"".join(message["body"] for message in seen.values) == data


def test_messages_belong_to_the_application(site: Site) -> None:
    """What it does to one is not seen in the next."""

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        first = await receive()
        first.clear()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})
        second = await receive()
        assert second == DISCONNECT
        second.clear()
        assert await receive() == DISCONNECT

    site.serve(app)
    assert site.ask().status == 200
    site.settle()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_any_method_may_have_a_body(site: Site, method: str) -> None:
    site.serve(echo)
    assert site.ask(method, body=b"body").body == b"body"


@where_a_body_need_not_tell_its_length
def test_a_body_need_not_tell_its_length(site: Site) -> None:
    """ "should contain just the decoded contents of each chunk"."""
    site.serve(echo)
    exchange = site.start("POST", length=UNTOLD)
    for piece in (b"a", b"bc" * 1000, b"d"):
        exchange.send(piece)
    exchange.end()
    assert exchange.answer().body == b"a" + b"bc" * 1000 + b"d"


@where_there_are_chunks
def test_extensions_of_chunks_and_trailers_are_no_content(site: Site) -> None:
    site.serve(echo)
    with site.raw() as client:
        client.start("POST", f"{site.mount}/", transfer_encoding="chunked")
        client.send(b"3;name=value\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n")
        assert client.answer().body == b"abcde"


def test_a_piece_is_received_when_it_comes_and_not_when_all_has_come(site: Site) -> None:
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            seen(message["body"])
            if not message["more_body"]:
                break
        await respond(send)

    site.serve(app)
    exchange = site.start("POST", length=9)
    for number, piece in enumerate([b"one", b"two", b"six"], 1):
        exchange.send(piece)
        seen.wait(number)
    exchange.end()
    assert exchange.answer().status == 200
    assert b"".join(seen.values) == b"onetwosix"


@where_a_body_need_not_tell_its_length
def test_a_response_may_begin_before_the_request_has_ended(site: Site) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send)
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send(body(message["body"], more=True))
        await send(body(b"end"))

    site.serve(app)
    exchange = site.start("POST", length=UNTOLD)
    assert exchange.head().status == 200
    assert exchange.take(5) == b"begun"
    for piece in (b"ping", b"pong"):
        exchange.send(piece)
        assert exchange.take(4) == piece
    exchange.end()
    assert exchange.body() == b"end"


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    pieces=st.lists(st.binary(min_size=1, max_size=4000), max_size=6),
    tells_its_length=st.booleans(),
)
def test_a_body_arrives_whole_however_it_was_split(
    site: Site, connection: Connection, pieces: list[bytes], tells_its_length: bool
) -> None:
    whole = b"".join(pieces)
    length = len(whole) if tells_its_length or site.protocol == "HTTP/1.0" else UNTOLD
    exchange = connection.start("POST", f"{site.mount}/", length=length)
    for piece in pieces:
        exchange.send(piece)
    exchange.end()
    assert exchange.answer().body == whole


@pytest.fixture
def connection(site: Site) -> Connection:
    """One connection for all examples of a test, to an application that answers what it got."""
    site.serve(echo)
    return site.connect()


# --- What is not read ---


def test_the_server_stops_reading_while_the_application_does_not_receive(site: Site) -> None:
    gate = Gate()
    size = 64 * 1024 * 1024

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        await gate.passed()
        while (await receive())["type"] == "http.request":
            pass

    site.serve(app)
    connection = site.connect()
    exchange = connection.start("POST", f"{site.mount}/", length=size)
    sent = 0
    connection.socket.settimeout(0.3)
    # On HTTP/2 it waits for a window that is never opened.
    with contextlib.suppress(TimeoutError):
        while sent < size:
            exchange.send(bytes(16 * 1024))
            sent += 16 * 1024
    gate.open()
    # The buffers of the system took some of it.
    assert sent < size / 4


@pytest.mark.parametrize("size", [1, 100, 20_000])
def test_a_body_that_nobody_read_does_not_disturb_the_next_request(site: Site, size: int) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].endswith("/read"):
            await echo(scope, receive, send)
        else:
            await respond(send, b"unread")

    site.serve(app)
    connection = site.connect()
    for _ in range(3):
        assert connection.ask("POST", f"{site.mount}/", body=b"x" * size).body == b"unread"
        assert connection.ask("POST", f"{site.mount}/read", body=b"read").body == b"read"


@where_requests_may_be_sent_ahead
def test_requests_that_follow_in_the_same_bytes_get_their_own_bodies(site: Site) -> None:
    site.serve(echo)
    with site.raw() as client:
        head = f"POST {site.mount}/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
        client.send(f"{head}3\r\n\r\none{head}0\r\n\r\n{head}5\r\n\r\nthree")
        assert [client.answer().body for _ in range(3)] == [b"one", b"", b"three"]


# --- Expect: 100-continue ---


@where_continue_is_sent
def test_continue_is_said_at_the_first_receive(site: Site) -> None:
    site.serve(echo)
    exchange = site.start("POST", headers=[("Expect", "100-continue")], length=4)
    assert exchange.head().status == 100
    exchange.send(b"body")
    assert exchange.answer().body == b"body"


@where_continue_is_sent
def test_continue_is_not_said_to_a_request_that_is_answered_unread(site: Site) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 413})
        await send(body(b"too large"))

    site.serve(app)
    exchange = site.start("POST", headers=[("Expect", "100-continue")], length=10**9)
    answer = exchange.answer()
    assert (answer.status, answer.body) == (413, b"too large")


@where_continue_is_sent
def test_a_receive_that_nobody_awaits_asks_for_nothing(site: Site) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        receive()
        await send({"type": "http.response.start", "status": 413})
        await send(body())

    site.serve(app)
    exchange = site.start("POST", headers=[("Expect", "100-continue")], length=10**9)
    assert exchange.head().status == 413


@where_continue_cannot_be_sent
def test_a_client_that_goes_on_by_itself_is_understood(site: Site) -> None:
    """On HTTP/2 nobody says 100; clients send the body after a while (RFC 9110 §10.1.1)."""
    site.serve(echo)
    assert site.ask("POST", "/", [("Expect", "100-continue")], b"body").body == b"body"


@where_there_are_none
def test_an_expectation_of_http_1_0_is_ignored(site: Site) -> None:
    site.serve(echo)
    assert site.ask("POST", "/", [("Expect", "100-continue")], b"body").body == b"body"


# --- After the body ---


def test_receive_after_the_whole_body_waits_until_the_response_is_complete(site: Site) -> None:
    """ "Sent to the application if receive is called after a response has been sent …"."""
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        assert await read_all(receive) == b"body"
        waiting = asyncio.ensure_future(receive())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done(), waiting
        await begin(send)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done(), waiting
        await send(body())
        seen(await waiting)
        seen(await receive())

    site.serve(app)
    assert site.ask("POST", body=b"body").body == b"begun"
    assert seen.wait(2) == [DISCONNECT] * 2


def test_receive_after_a_complete_response_says_disconnect_though_the_body_is_unread(
    site: Site,
) -> None:
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send)
        seen(await receive())
        seen(await receive())

    site.serve(app)
    assert site.ask("POST", body=b"body").status == 200
    assert seen.wait(2) == [DISCONNECT] * 2


def test_after_the_body_there_is_no_second_empty_message(site: Site) -> None:
    """Frameworks that read twice would take it for a second body."""
    messages: list[Message] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        assert await read_all(receive) == b"body"
        with contextlib.suppress(asyncio.TimeoutError):
            messages.append(await asyncio.wait_for(receive(), 0.01))
        await respond(send)

    site.serve(app)
    assert site.ask("POST", body=b"body").status == 200
    assert messages == []


# --- Several tasks, and tasks that give up ---


def test_two_tasks_that_receive_at_once_share_the_messages(site: Site) -> None:
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        async def reader() -> None:
            seen((await receive())["body"])

        readers = [asyncio.ensure_future(reader()) for _ in range(2)]
        await asyncio.wait(readers)
        await respond(send)

    site.serve(app)
    exchange = site.start("POST", length=6)
    exchange.send(b"one")
    assert seen.wait() == [b"one"]
    exchange.send(b"two")
    exchange.end()
    assert exchange.answer().status == 200
    assert seen.values[:2] == [b"one", b"two"]


def test_all_tasks_that_wait_learn_of_the_end(site: Site) -> None:
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        waiting = [asyncio.ensure_future(receive()) for _ in range(5)]
        await asyncio.sleep(0)
        await respond(send)
        for task in waiting:
            seen(await task)

    site.serve(app)
    assert site.ask().status == 200
    assert seen.wait(5) == [DISCONNECT] * 5


def test_a_receive_that_is_cancelled_loses_nothing(site: Site) -> None:
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(3):
            waiting = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        seen("gave up")
        await respond(send, await read_all(receive))

    site.serve(app)
    exchange = site.start("POST", length=4)
    seen.wait()
    exchange.send(b"body")
    exchange.end()
    assert exchange.answer().body == b"body"


def test_a_receive_that_is_cancelled_as_its_message_comes_loses_nothing(site: Site) -> None:
    """The message is there and the task is cancelled, both before it runs again."""

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            message = await waiting
            await respond(send, message["body"])
            return
        await respond(send, await read_all(receive))

    site.serve(app)
    connection = site.connect()
    for number in range(20):
        data = str(number).encode()
        assert connection.ask("POST", f"{site.mount}/", body=data).body == data


# --- Bodies that break off ---


def test_a_body_that_breaks_off_is_a_disconnect_and_never_an_end(site: Site) -> None:
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        for _ in range(3):
            seen(await receive())

    site.serve(app)
    exchange = site.start("POST", length=10)
    exchange.send(b"half")
    assert seen.wait() == [{"type": "http.request", "body": b"half", "more_body": True}]
    exchange.leave()
    assert seen.wait(3)[1:] == [DISCONNECT] * 2
    assert site.ended_log() == ""


@where_there_are_chunks
@pytest.mark.parametrize("rest", [b"", b"4\r\nha", b"4\r\nhalf\r\n", b"4\r\nhalf\r\n0\r\n"])
def test_chunks_that_break_off_are_no_end(site: Site, rest: bytes) -> None:
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            assert message["more_body"]
        seen(message)

    site.serve(app)
    with site.raw() as client:
        client.start("POST", f"{site.mount}/", transfer_encoding="chunked")
        client.send(rest)
        client.socket.shutdown(socket.SHUT_WR)
        assert client.answer().status == 400
    assert seen.wait() == [DISCONNECT]


@where_there_are_chunks
def test_chunks_that_are_no_chunks_are_no_content(site: Site) -> None:
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            assert message["more_body"]
        seen(message)

    site.serve(app)
    with site.raw() as client:
        client.start("POST", f"{site.mount}/", transfer_encoding="chunked")
        client.send(b"4\r\nhalf\r\nnonsense\r\n")
        assert client.answer().status == 400
    assert seen.wait() == [DISCONNECT]


def test_an_application_may_answer_a_request_that_broke_off_into_the_void(site: Site) -> None:
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        seen("began")
        while (await receive())["type"] != "http.disconnect":
            pass
        with contextlib.suppress(OSError):
            await respond(send, b"nobody listens")
        seen("answered")

    site.serve(app)
    exchange = site.start("POST", length=10)
    seen.wait()
    exchange.leave()
    seen.wait(2)
    assert site.ended_log() == ""
