"""PEP 3333, "HTTP 1.1 Expect/Continue" and "Other HTTP Features"."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from conformance.clients import HTTP_1_1, LONG, UNTOLD
from conformance.sites import (
    where_a_connection_has_many_streams,
    where_continue_cannot_be_sent,
    where_continue_is_sent,
    where_requests_may_be_sent_ahead,
    where_the_end_of_the_connection_ends_a_body,
    where_there_are_chunks,
    where_there_are_interim_responses,
    where_there_are_none,
)
from conformance.wsgi.apps import TEXT, Bare, Blocks, answering

if TYPE_CHECKING:
    from collections.abc import Iterable

    from conformance.wsgi.apps import Environ, MakeSite, StartResponse

EXPECT = [("Expect", "100-continue")]


def echo(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    body = environ["wsgi.input"].read(-1)
    start_response("200 OK", [TEXT, ("Content-Length", str(len(body)))])
    return [body]


# --- Expect: 100-continue ---


@where_continue_is_sent
@pytest.mark.parametrize("length", [4, UNTOLD])
def test_continue_is_said_when_the_application_first_reads(site: MakeSite, length: int) -> None:
    """ "if/when the application first attempts to read from the input stream"."""
    may_read = threading.Event()
    order: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        assert may_read.wait(LONG)
        order.append("reads")
        return echo(environ, start_response)

    exchange = site(app).start("POST", headers=EXPECT, length=length)
    threading.Thread(target=lambda: (order.append("may read"), may_read.set())).start()
    assert exchange.head().status == 100
    assert order == ["may read", "reads"]
    exchange.send(b"body")
    exchange.end()
    assert exchange.answer().body == b"body"


@where_continue_is_sent
def test_continue_is_said_once_however_often_the_application_reads(site: MakeSite) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        pieces = [environ["wsgi.input"].read(2) for _ in range(4)]
        start_response("200 OK", [TEXT])
        return pieces

    exchange = site(app).start("POST", headers=EXPECT, length=4)
    assert exchange.head().status == 100
    exchange.send(b"body")
    exchange.end()
    answer = exchange.answer()
    assert (answer.status, answer.body) == (200, b"body")


@where_there_are_interim_responses
@pytest.mark.parametrize("status", ["417 Expectation Failed", "401 Unauthorized", "200 OK"])
def test_continue_is_not_said_to_a_request_that_is_answered_unread(
    site: MakeSite, status: str
) -> None:
    """RFC 9110 §10.1.1: the client need not send what was refused."""
    app = answering(b"no", status=status, headers=[TEXT, ("Content-Length", "2")])
    exchange = site(app).start("POST", headers=EXPECT, length=1_000_000)
    answer = exchange.answer()
    assert (answer.status, answer.body) == (int(status[:3]), b"no")


@where_there_are_interim_responses
def test_a_client_that_does_not_wait_for_continue_is_served_too(site: MakeSite) -> None:
    exchange = site(echo).start("POST", headers=EXPECT, length=4)
    exchange.send(b"body")
    exchange.end()
    head = exchange.head()
    if head.status == 100:
        head = exchange.head()
    assert (head.status, exchange.body()) == (200, b"body")


@where_there_are_none
def test_a_client_of_http_1_0_is_not_told_to_continue(site: MakeSite) -> None:
    """RFC 9110 §10.1.1: "A server that receives a 100-continue expectation in an HTTP/1.0 request
    MUST ignore that expectation."
    """
    answer = site(echo).ask("POST", headers=EXPECT, body=b"body")
    assert (answer.status, answer.body) == (200, b"body")


@where_there_are_interim_responses
def test_a_request_without_a_body_gets_no_continue(site: MakeSite) -> None:
    answer = site(echo).ask("POST", headers=EXPECT)
    assert (answer.status, answer.body) == (200, b"")


@where_there_are_interim_responses
def test_continue_is_not_said_where_nobody_expects_it(site: MakeSite) -> None:
    reads = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        reads.set()
        return echo(environ, start_response)

    exchange = site(app).start("POST", length=4)
    assert reads.wait(LONG)
    exchange.send(b"body")
    exchange.end()
    assert exchange.answer().status == 200


@where_continue_cannot_be_sent
def test_without_continue_a_client_that_sends_at_last_is_served(site: MakeSite) -> None:
    """The third of the ways in PEP 3333: "Wait until the client decides …, and sends the request
    body on its own". On HTTP/2 the server cannot send interim responses yet.
    """
    reads = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        reads.set()
        return echo(environ, start_response)

    exchange = site(app).start("POST", headers=EXPECT, length=4)
    assert reads.wait(LONG)
    exchange.send(b"body")
    exchange.end()
    assert exchange.answer().body == b"body"


# --- HEAD ---


@pytest.mark.parametrize("blocks", [[], [b"body"], [b"bo", b"dy"], [b"x" * 200_000] * 3], ids=len)
@pytest.mark.parametrize("seen", ["bare", "validated"])
def test_head_has_the_head_of_get_and_no_content(
    site: MakeSite, blocks: list[bytes], seen: str
) -> None:
    """RFC 9110 §9.3.2; an application need not know the method."""
    app = answering(*blocks, headers=[TEXT, ("X-App", "1")])
    served = site(Bare(app) if seen == "bare" else app)
    connection = served.connect()
    for _ in range(2):
        answer = connection.ask("HEAD", f"{served.mount}/")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.head.one("x-app") == "1"
    # What follows is the next response, and not the content of this one.
    assert connection.ask("HEAD", f"{served.mount}/").status == 200


def test_head_keeps_the_length_of_what_get_would_send(site: MakeSite) -> None:
    app = answering(headers=[TEXT, ("Content-Length", "12345")])
    assert site(app).ask("HEAD").head.one("content-length") == "12345"


def test_head_tells_the_length_of_a_single_block(site: MakeSite) -> None:
    assert site(Bare(answering(b"body"))).ask("HEAD").head.one("content-length") == "4"


def test_head_may_be_answered_by_an_application_that_writes(site: MakeSite) -> None:
    result = Blocks([b"and returns"])

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [TEXT])
        for _ in range(100):
            write(b"x" * 65_536)
        return result

    served = site(app)
    answer = served.ask("HEAD")
    assert (answer.status, answer.body) == (200, b"")
    served.close()
    assert result.closed == 1


# --- The connection ---


@where_there_are_chunks
def test_the_body_of_each_request_on_a_connection_is_its_own(site: MakeSite) -> None:
    served = site(echo)
    connection = served.connect()
    for number in range(5):
        exchange = connection.start("POST", f"{served.mount}/", length=UNTOLD if number % 2 else 6)
        exchange.send(b"body %d" % number)
        exchange.end()
        assert exchange.answer().body == b"body %d" % number


@where_requests_may_be_sent_ahead
def test_requests_that_are_sent_ahead_are_answered_in_order(site: MakeSite) -> None:
    """RFC 9112 §9.3.2."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.input"].read(-1)
        start_response("200 OK", [TEXT])
        return [environ["PATH_INFO"].encode()]

    served = site(app)
    with served.raw() as raw:
        for number in range(4):
            raw.start("POST", f"{served.mount}/{number}", 4)
            raw.send(b"body")
        assert [raw.answer().body for _ in range(4)] == [b"/0", b"/1", b"/2", b"/3"]


@where_a_connection_has_many_streams
def test_the_streams_of_a_connection_are_answered_as_they_are_ready(site: MakeSite) -> None:
    go_on = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/slow":
            assert go_on.wait(LONG)
        start_response("200 OK", [TEXT])
        return [environ["PATH_INFO"].encode()]

    served = site(app, threads=2)
    connection = served.connect()
    slow = connection.start("GET", f"{served.mount}/slow")
    assert connection.ask("GET", f"{served.mount}/fast").body == b"/fast"
    go_on.set()
    assert slow.answer().body == b"/slow"


def test_an_upgrade_is_not_for_the_application(site: MakeSite) -> None:
    """ "must handle any supported inbound "hop-by-hop" headers on their own"."""
    headers: list[tuple[str, str]] = []
    served = site(echo)
    if served.protocol == HTTP_1_1:
        headers = [("Connection", "Upgrade"), ("Upgrade", "h2c, other/1")]
    answer = served.ask("POST", headers=headers, body=b"body")
    assert (answer.status, answer.body) == (200, b"body")


# --- Connections ---


@where_the_end_of_the_connection_ends_a_body
def test_a_connection_that_ends_the_body_is_said_to_close(site: MakeSite) -> None:
    """RFC 9112 §9.3: the client must see that its wish to keep the connection is not met."""
    served = site(answering(b"one", b"two"))
    with served.raw() as client:
        client.send(f"GET {served.mount}/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        head = client.head()
        assert (head.status, head.header("connection")) == (200, "close")
        assert client.rest() == b"onetwo"


@where_the_end_of_the_connection_ends_a_body
@pytest.mark.parametrize("blocks", [[b"body"], [b"bo", b"dy"], []], ids=repr)
def test_a_connection_is_kept_for_a_client_that_can_see_the_end_of_the_body(
    site: MakeSite, blocks: list[bytes]
) -> None:
    length = str(sum(map(len, blocks)))
    served = site(answering(*blocks, headers=[TEXT, ("Content-Length", length)]))
    with served.raw() as client:
        for _ in range(3):
            client.send(f"GET {served.mount}/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            answer = client.answer()
            assert answer.header("connection") == "keep-alive"
            assert answer.body == b"".join(blocks)
