"""ASGI 2.5, "Response Start" and "Response Body" - `send` events."""

from __future__ import annotations

import asyncio
import contextlib
import http
from typing import Any

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
    respond,
    start,
)
from conformance.clients import HTTP_1_0, HTTP_1_1
from conformance.sites import (
    where_a_connection_has_many_streams,
    where_a_status_has_a_reason,
    where_the_end_of_the_connection_ends_a_body,
    where_there_are_chunks,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def sends(*messages: Any) -> Any:
    """An application that sends these and returns."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


# --- Defaults ---


def test_headers_body_and_more_body_are_optional(site: Site) -> None:
    """ "if missing defaults to an empty list", `b""`, `False`."""
    site.serve(
        sends({"type": "http.response.start", "status": 200}, {"type": "http.response.body"})
    )
    answer = site.ask()
    assert (answer.status, answer.body) == (200, b"")


def test_more_body_is_false_where_it_is_missing(site: Site) -> None:
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send({"type": "http.response.body", "body": b"all"})
        # The response is complete, says this.
        assert await receive() == DISCONNECT
        seen("complete")

    site.serve(app)
    assert site.ask().body == b"all"
    seen.wait()


@pytest.mark.parametrize("trailers", [False, None], ids=repr)
def test_keys_that_say_what_is_the_default_change_nothing(site: Site, trailers: Any) -> None:
    more = {"trailers": trailers} if trailers is not None else {}
    site.serve(sends({**start(), **more, "x-own": object()}, {**body(b"body"), "x-own": 1}))
    assert site.ask().body == b"body"


@pytest.mark.parametrize("data", [b"body", bytearray(b"body"), memoryview(b"body")], ids=repr)
def test_a_body_is_a_byte_string(site: Site, data: Any) -> None:
    site.serve(sends(start(), {"type": "http.response.body", "body": data}))
    assert site.ask().body == b"body"


def test_a_body_that_is_changed_after_it_was_sent_was_sent_as_it_was(site: Site) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        data = bytearray(b"x" * 100_000)
        await send({"type": "http.response.body", "body": data, "more_body": True})
        data[:] = b"y" * 100_000
        await send(body())

    site.serve(app)
    assert site.ask().body == b"x" * 100_000


def test_a_message_may_be_used_again(site: Site) -> None:
    messages = [start(200, (b"x-a", b"1")), body(b"body")]
    site.serve(sends(*messages))
    connection = site.connect()
    for _ in range(3):
        answer = connection.ask("GET", f"{site.mount}/")
        assert (answer.body, answer.head.all("x-a")) == (b"body", ["1"])
    assert messages == [start(200, (b"x-a", b"1")), body(b"body")]


def test_a_message_may_be_of_a_subclass_of_dict(site: Site) -> None:
    class Own(dict[str, Any]):
        pass

    site.serve(sends(Own(start()), Own(body(b"body"))))
    assert site.ask().body == b"body"


# --- Status ---


@pytest.mark.parametrize("status", [*range(200, 209), 226, *range(300, 309), 400, 404, 418, 451])
def test_any_final_status_is_sent(site: Site, status: int) -> None:
    site.serve(sends(start(status), body()))
    assert site.ask().status == status


@pytest.mark.parametrize("status", [500, 503, 511, 599, 600, 999])
def test_an_error_or_a_status_of_ones_own_is_sent_as_the_application_says_it(
    site: Site, status: int
) -> None:
    site.serve(sends(start(status), body(b"own words")))
    answer = site.ask()
    assert (answer.status, answer.body) == (status, b"own words")
    assert site.ended_log() == ""


def test_a_status_may_be_an_enum(site: Site) -> None:
    site.serve(sends(start(http.HTTPStatus.IM_A_TEAPOT), body()))
    assert site.ask().status == 418


@where_a_status_has_a_reason
def test_a_status_has_its_usual_reason(site: Site) -> None:
    site.serve(sends(start(404), body()))
    assert site.ask().head.reason == "Not Found"


# --- What is refused ---

BAD_STARTS: list[Message] = [
    {},
    {"status": None},
    {"status": "200"},
    {"status": 200.0},
    {"status": b"200"},
    {"status": 0},
    {"status": 100},
    {"status": 103},
    {"status": 199},
    {"status": 1000},
    {"status": -200},
    {"status": 2**64},
    {"status": 200, "headers": 1},
    {"status": 200, "headers": "ab"},
    {"status": 200, "headers": b"ab"},
    {"status": 200, "headers": {b"name": b"value"}},
    {"status": 200, "headers": [None]},
    {"status": 200, "headers": [(b"name",)]},
    {"status": 200, "headers": [(b"name", b"value", b"more")]},
    {"status": 200, "headers": [("name", b"value")]},
    {"status": 200, "headers": [(b"name", "value")]},
    {"status": 200, "headers": [(b"name", None)]},
    {"status": 200, "headers": [(b"name", 1)]},
]
BAD_BODIES: list[Message] = [
    {"body": "text"},
    {"body": None},
    {"body": 5},
    {"body": [b"list"]},
]


@pytest.mark.parametrize("bad", BAD_STARTS, ids=repr)
def test_a_start_that_is_none_raises_and_counts_for_nothing(site: Site, bad: Message) -> None:
    """The application may catch that, and respond as if it had not tried."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        with pytest.raises((TypeError, ValueError)):
            await send({"type": "http.response.start", **bad})
        await respond(send, b"another")

    site.serve(app)
    answer = site.ask()
    assert (answer.status, answer.body) == (200, b"another")
    assert site.ended_log() == ""


@pytest.mark.parametrize("bad", BAD_BODIES, ids=repr)
@pytest.mark.parametrize("begun", [False, True], ids=["first", "later"])
def test_a_body_that_is_none_raises_and_counts_for_nothing(
    site: Site, bad: Message, begun: bool
) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        if begun:
            await send(body(b"an", more=True))
        with pytest.raises(TypeError):
            await send({"type": "http.response.body", **bad})
        await send(body(b"other"))

    site.serve(app)
    answer = site.ask()
    assert (answer.status, answer.body) == (200, b"another" if begun else b"other")


@pytest.mark.parametrize("bad", [*BAD_STARTS[:3], BAD_STARTS[-2]], ids=repr)
def test_a_start_that_is_none_and_that_nobody_caught_is_a_500_with_its_reason_in_the_log(
    site: Site, bad: Message
) -> None:
    site.serve(sends({"type": "http.response.start", **bad}, body()))
    answer = site.ask()
    assert answer.status == 500
    assert b"Error:" not in answer.body
    log = site.ended_log()
    assert "Traceback (most recent call last)" in log
    assert "status" in log or "header" in log


@pytest.mark.parametrize(
    "message",
    [
        None,
        5,
        "http.response.start",
        [("type", "http.response.start")],
        {},
        {"type": None},
        {"type": b"http.response.start"},
        {"type": ""},
        {"type": "http.response"},
        {"type": "http.request"},
        {"type": "http.disconnect"},
        {"type": "http.response.unknown"},
        {"type": "HTTP.RESPONSE.START", "status": 200},
        {"type": "websocket.accept"},
        {"type": "lifespan.startup.complete"},
    ],
    ids=repr,
)
@pytest.mark.parametrize("when", ["first", "within"])
def test_a_message_of_no_known_type_raises_and_counts_for_nothing(
    site: Site, message: Any, when: str
) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        if when == "within":
            await begin(send, b"fi")
        with pytest.raises((KeyError, TypeError, RuntimeError)):
            await send(message)
        if when == "first":
            await begin(send, b"fi")
        await send(body(b"ne"))

    site.serve(app)
    assert site.ask().body == b"fine"


def test_an_error_names_the_message_and_what_is_wrong(site: Site) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        with pytest.raises(RuntimeError, match=r"http\.response\.body.*http\.response\.start"):
            await send(body(b"too early"))
        with pytest.raises(RuntimeError, match=r"http\.response\.unknown"):
            await send({"type": "http.response.unknown"})
        with pytest.raises(ValueError, match="1000"):
            await send(start(1000))
        with pytest.raises(TypeError, match="str"):
            await send({"type": "http.response.start", "status": 200, "headers": [("a", b"b")]})
        await respond(send)

    site.serve(app)
    assert site.ask().status == 200


# --- The order of messages ---


def test_a_body_before_its_start_raises_and_counts_for_nothing(site: Site) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        for more in (True, False):
            with pytest.raises(RuntimeError):
                await send(body(b"early", more=more))
        await respond(send, b"in time")

    site.serve(app)
    assert site.ask().body == b"in time"


@pytest.mark.parametrize("begun", [False, True], ids=["before the body", "within the body"])
def test_a_second_start_raises_and_counts_for_nothing(site: Site, begun: bool) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start(201, (b"x-first", b"1")))
        if begun:
            await send(body(b"bo", more=True))
        with pytest.raises(RuntimeError):
            await send(start(500, (b"x-second", b"1")))
        await send(body(b"dy"))

    site.serve(app)
    answer = site.ask()
    assert (answer.status, answer.body) == (201, b"body" if begun else b"dy")
    assert answer.head.all("x-second") == []


@pytest.mark.parametrize("message", [start(500), body(b"more"), body(b"more", more=True)], ids=repr)
def test_what_is_sent_after_the_response_reaches_nobody(site: Site, message: Message) -> None:
    """ "any further messages on the channel will be ignored"; here they raise as well."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await respond(send, b"all")
        with contextlib.suppress(RuntimeError, OSError):
            await send(message)

    site.serve(app)
    connection = site.connect()
    for _ in range(3):
        answer = connection.ask("GET", f"{site.mount}/")
        assert (answer.status, answer.body) == (200, b"all")
    assert site.ended_log() == ""


def test_nothing_is_sent_before_the_first_body(site: Site) -> None:
    """So that an error can still take the place of the response."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start(200, (b"x-lost", b"1")))
        raise ValueError("after the start")

    site.serve(app)
    answer = site.ask()
    assert answer.status == 500
    assert answer.head.all("x-lost") == []
    assert "ValueError: after the start" in site.ended_log()


@pytest.mark.parametrize("messages", [[], [start()], [start(404)]], ids=repr)
def test_an_application_that_returns_without_a_response_is_a_500(
    site: Site, messages: list[Message]
) -> None:
    site.serve(sends(*messages))
    connection = site.connect()
    for _ in range(2):
        # The connection is as good as before.
        assert connection.ask("GET", f"{site.mount}/").status == 500
    assert "without a response" in site.ended_log()


def test_an_exception_before_the_response_is_a_500_and_its_traceback_stays_in_the_log(
    site: Site,
) -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ValueError("the secret reason")

    site.serve(app)
    connection = site.connect()
    for _ in range(2):
        answer = connection.ask("GET", f"{site.mount}/")
        assert answer.status == 500
        assert b"secret" not in answer.body
    log = site.ended_log()
    assert log.count("ValueError: the secret reason") == 2
    assert "Traceback" in log


@pytest.mark.parametrize("how", ["raises", "returns"])
@pytest.mark.parametrize("length", [None, b"100"], ids=["no length", "a length"])
def test_a_response_that_stops_within_its_body_never_looks_complete(
    site: Site, how: str, length: bytes | None
) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start(200, *([(b"content-length", length)] if length else [])))
        await send(body(b"begun", more=True))
        if how == "raises":
            raise ValueError("within the body")

    site.serve(app)
    assert site.breaks()
    log = site.ended_log()
    assert ("ValueError: within the body" if how == "raises" else "returned before") in log


def test_an_exception_after_the_response_is_logged_and_harms_nobody(site: Site) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await respond(send, b"whole")
        raise ValueError("afterwards")

    site.serve(app)
    connection = site.connect()
    for _ in range(2):
        assert connection.ask("GET", f"{site.mount}/").body == b"whole"
    assert site.ended_log().count("ValueError: afterwards") == 2


# --- Bodies and their framing ---


def test_each_piece_is_flushed_at_once(site: Site) -> None:
    """ "must flush any data passed to them into the send buffer before returning"."""
    gates = [Gate() for _ in range(3)]

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        for number, gate in enumerate(gates):
            await send(body(f"piece {number}".encode(), more=True))
            await gate.passed()
        await send(body())

    site.serve(app)
    exchange = site.start()
    assert exchange.head().status == 200
    for number, gate in enumerate(gates):
        assert exchange.take(7) == f"piece {number}".encode()
        gate.open()
    assert exchange.body() == b""


def test_an_empty_first_piece_sends_the_head(site: Site) -> None:
    """What server-sent events do: the client's `onopen` need not wait for an event."""
    gate = Gate()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start(200, (b"content-type", b"text/event-stream")))
        await send(body(b"", more=True))
        await gate.passed()
        await send(body(b"event"))

    site.serve(app)
    exchange = site.start()
    assert exchange.head().one("content-type") == "text/event-stream"
    gate.open()
    assert exchange.body() == b"event"


def test_empty_pieces_are_nothing_and_end_nothing(site: Site) -> None:
    site.serve(
        sends(
            start(),
            body(b"", more=True),
            body(b"a", more=True),
            body(b"", more=True),
            body(b"b", more=True),
            body(b""),
        )
    )
    connection = site.connect()
    for _ in range(1 if site.protocol == HTTP_1_0 else 3):
        assert connection.ask("GET", f"{site.mount}/").body == b"ab"


def test_a_response_of_one_piece_has_its_length(site: Site) -> None:
    site.serve(sends(start(), body(b"body")))
    answer = site.ask()
    assert (answer.head.one("content-length"), answer.body) == ("4", b"body")


@where_there_are_chunks
def test_a_response_of_unknown_length_is_chunked(site: Site) -> None:
    """ "Servers … may opt to use `Transfer-Encoding: chunked` if … no `Content-Length` set"."""
    site.serve(sends(start(), body(b"one", more=True), body(b"two")))
    connection = site.connect()
    for _ in range(2):
        answer = connection.ask("GET", f"{site.mount}/")
        assert answer.head.one("transfer-encoding") == "chunked"
        assert answer.body == b"onetwo"


@where_the_end_of_the_connection_ends_a_body
def test_a_response_of_unknown_length_ends_with_the_connection(site: Site) -> None:
    site.serve(sends(start(), body(b"one", more=True), body(b"two")))
    answer = site.ask()
    assert answer.body == b"onetwo"
    assert answer.head.one("connection") in {None, "close"}


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    pieces=st.lists(st.binary(max_size=4000), max_size=6),
    last_is_empty=st.booleans(),
    tells_its_length=st.booleans(),
)
def test_pieces_are_concatenated_however_they_are_cut(
    site: Site, pieces: list[bytes], last_is_empty: bool, tells_its_length: bool
) -> None:
    """ "Concatenated onto any previous `body` values sent in this connection scope"."""
    whole = b"".join(pieces)
    length = [(b"content-length", str(len(whole)).encode())] if tells_its_length else []
    messages = [body(piece, more=True) for piece in pieces]
    if last_is_empty or not messages:
        messages.append(body())
    else:
        messages[-1]["more_body"] = False
    site.serve(sends(start(200, *length), *messages))
    connection = site.connect()
    assert connection.ask("GET", f"{site.mount}/").body == whole
    connection.close()


def test_a_client_has_all_of_a_response_while_the_application_works_on(site: Site) -> None:
    gate = Gate()
    seen = Seen()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await respond(send, b"whole")
        await gate.passed()
        seen("worked on")

    site.serve(app)
    connection = site.connect()
    for _ in range(2):
        assert connection.ask("GET", f"{site.mount}/").body == b"whole"
    gate.open()
    seen.wait(2)


@where_a_connection_has_many_streams
def test_responses_on_one_connection_do_not_wait_for_each_other(site: Site) -> None:
    """ "correctly multiplex the responses back to the same stream in which they came"."""
    gates = {name: Gate() for name in ("a", "b", "c")}

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        name = scope["path"][-1]
        await begin(send, name.encode())
        await gates[name].passed()
        await send(body(name.encode()))

    site.serve(app)
    connection = site.connect()
    exchanges = {name: connection.start(target=f"{site.mount}/{name}") for name in gates}
    for name, exchange in exchanges.items():
        assert exchange.head().status == 200
        assert exchange.take(1) == name.encode()
    for name in ("c", "a", "b"):
        gates[name].open()
        assert exchanges[name].body() == name.encode()


# --- HEAD, 204, 304 ---


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", 200), ("HEAD", 404), ("GET", 204), ("GET", 304), ("HEAD", 304)]
)
def test_a_response_that_has_no_body_ends_with_its_head(
    site: Site, method: str, status: int, pieces: int
) -> None:
    """An application may send one all the same, and need not know better."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"].endswith("/next"):
            await respond(send, b"next")
            return
        await send(start(status, (b"x-a", b"1")))
        for _ in range(pieces - 1):
            await send(body(b"HTTP/1.1 200 OK\r\n\r\n", more=True))
        await send(body(b"HTTP/1.1 200 OK\r\n\r\n"))

    site.serve(app)
    connection = site.connect()
    for _ in range(2):
        answer = connection.ask(method, f"{site.mount}/")
        assert (answer.status, answer.body, answer.head.one("x-a")) == (status, b"", "1")
        assert answer.head.one("transfer-encoding") is None
        assert connection.ask("GET", f"{site.mount}/next").body == b"next"
    assert site.ended_log() == ""


@pytest.mark.parametrize("sent", [b"", b"x" * 1234])
def test_head_has_the_length_that_the_application_gives(site: Site, sent: bytes) -> None:
    site.serve(sends(start(200, (b"content-length", b"1234")), body(sent)))
    assert site.ask("HEAD").head.one("content-length") == "1234"


def test_no_content_has_no_length(site: Site) -> None:
    """RFC 9110 §8.6."""
    site.serve(sends(start(204, (b"content-length", b"0")), body()))
    assert site.ask().head.one("content-length") is None


def test_head_of_a_long_stream_runs_the_application_to_its_end(site: Site) -> None:
    seen = Seen()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        for _ in range(100):
            await send(body(b"x" * 5000, more=True))
        await send(body())
        seen("sent all")

    site.serve(app)
    assert site.ask("HEAD").status == 200
    seen.wait()
    assert site.ended_log() == ""


def test_head_of_a_stream_tells_who_listens_that_nobody_does(site: Site) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await begin(send)
        assert await receive() == DISCONNECT

    site.serve(app)
    assert site.ask("HEAD").status == 200
    site.settle()


# --- Backpressure ---


def test_a_client_that_does_not_read_holds_send_back(site: Site) -> None:
    seen = Seen()
    size, count = 64 * 1024, 500
    sent = 0

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(start())
        for _ in range(count):
            sending = asyncio.ensure_future(send(body(b"x" * size, more=True)))
            done, _ = await asyncio.wait({sending}, timeout=0.2)
            if not done:
                seen(sent)
            await sending
            sent += 1
        await send(body())

    site.serve(app)
    connection = site.connect(buffer=16 * 1024)
    exchange = connection.start(target=f"{site.mount}/")
    assert exchange.head().status == 200
    held_at = seen.wait()[0]
    # The buffers of the system took some of it.
    assert held_at < count / 2
    assert len(exchange.body()) == size * count


def test_a_slow_client_does_not_hold_up_another(site: Site) -> None:
    seen = Seen()

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"].endswith("/other"):
            await respond(send, b"other")
            return
        await send(start())
        with contextlib.suppress(OSError):
            while True:
                sending = asyncio.ensure_future(send(body(b"x" * 64 * 1024, more=True)))
                if not (await asyncio.wait({sending}, timeout=0.1))[0]:
                    seen("held")
                await sending

    site.serve(app)
    connection = site.connect(buffer=16 * 1024)
    slow = connection.start(target=f"{site.mount}/")
    assert slow.head().status == 200
    seen.wait()
    for _ in range(3):
        assert site.ask(path="/other").body == b"other"


@pytest.mark.parametrize("protocol", [HTTP_1_1])
def test_a_stream_that_awaits_nothing_else_does_not_keep_the_loop(site: Site) -> None:
    """A fast client makes room as fast as `send` fills it."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"].endswith("/other"):
            await respond(send, b"other")
            return
        await send(start())
        with contextlib.suppress(OSError):
            while True:
                await send(body(b"x" * 1000, more=True))

    site.serve(app)
    stream = site.start()
    assert stream.head().status == 200
    for _ in range(5):
        stream.take(100_000)
        assert site.ask(path="/other").body == b"other"


def test_head_of_an_endless_stream_ends_it_and_holds_up_nobody(site: Site) -> None:
    seen = Seen()

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            await respond(send, b"next")
            return
        await send(start())
        try:
            # Finite all the same, for the sake of the tests that follow.
            for _ in range(200_000):
                await send(body(b"x" * 1000, more=True))
        except OSError:
            seen("ended")
            raise

    site.serve(app)
    assert site.ask("HEAD").status == 200
    assert site.ask("GET").body == b"next"
    assert seen.wait() == ["ended"]
    assert site.ended_log() == ""
