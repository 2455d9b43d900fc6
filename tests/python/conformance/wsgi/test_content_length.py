"""PEP 3333, "Handling the Content-Length Header", and the framing that follows from it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from conformance.clients import HTTP_1_0, HTTP_1_1, HTTP_2
from conformance.sites import where_the_end_of_the_connection_ends_a_body, where_there_are_chunks
from conformance.wsgi.apps import TEXT, Bare, Blocks, answering

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from conformance.wsgi.apps import Environ, MakeSite, StartResponse


class OneBlock:
    """An iterable of the application's own that says how many blocks it has."""

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"body"])

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("result", [[b"body"], (b"body",)], ids=["list", "tuple"])
def test_the_length_of_a_single_block_is_the_length_of_the_body(
    site: MakeSite, result: Any
) -> None:
    """ "returns an iterable whose len() is 1, then the server can … determine Content-Length"."""

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])
        return result

    answer = site(Bare(app)).ask()
    assert (answer.head.one("content-length"), answer.body) == ("4", b"body")


def test_an_iterable_with_a_length_of_its_own_is_sent_whole(site: MakeSite) -> None:
    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])
        return OneBlock()

    answer = site(Bare(app)).ask()
    assert answer.body == b"body"
    assert answer.head.one("content-length") in {None, "4"}


@pytest.mark.parametrize("result", [[], (), [b""], (b"",)], ids=repr)
def test_an_empty_body_has_the_length_zero(site: MakeSite, result: Any) -> None:
    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])
        return result

    served = site(Bare(app))
    answer = served.ask()
    assert answer.body == b""
    # The head of HTTP/2 can say itself that nothing follows.
    assert answer.head.one("content-length") == (None if served.protocol == HTTP_2 else "0")


@pytest.mark.parametrize("name", ["Content-Length", "content-length", "CONTENT-LENGTH"])
@pytest.mark.parametrize("kind", [list, iter])
def test_the_length_that_the_application_gives_is_sent_once(
    site: MakeSite, name: str, kind: Any
) -> None:
    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT, (name, "4")])
        return kind([b"body"])

    answer = site(Bare(app)).ask()
    assert (answer.head.one("content-length"), answer.body) == ("4", b"body")


@pytest.mark.parametrize("blocks", [[b"too long"], [b"too", b" ", b"long"]], ids=repr)
@pytest.mark.parametrize("seen", ["bare", "validated"])
def test_no_more_than_the_length_is_sent(site: MakeSite, blocks: list[bytes], seen: str) -> None:
    """ "should not transmit more bytes to the client than the header allows"."""
    app = answering(*blocks, headers=[TEXT, ("Content-Length", "5")])
    answer = site(Bare(app) if seen == "bare" else app).ask()
    assert (answer.head.one("content-length"), answer.body) == ("5", b"too l")


def test_a_body_longer_than_its_length_does_not_reach_into_the_next_response(
    site: MakeSite,
) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT, ("Content-Length", "4")])
        if environ["PATH_INFO"] == "/next":
            return [b"next"]
        return [b"body", b"HTTP/1.1 200 OK\r\n\r\n"]

    served = site(app)
    connection = served.connect()
    for _ in range(3):
        assert connection.ask("GET", f"{served.mount}/").body == b"body"
        assert connection.ask("GET", f"{served.mount}/next").body == b"next"


def test_a_response_without_end_ends_at_its_length(site: MakeSite) -> None:
    """ "should stop iterating over the response when enough data has been sent"."""

    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 1000

    result = Blocks(endless())

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT, ("Content-Length", "2500")])
        return result

    assert site(app).ask().body == b"x" * 2500
    result.wait_closed()
    assert result.closed == 1


def test_no_block_is_asked_for_after_the_first_beyond_the_length(site: MakeSite) -> None:
    """ "should stop iterating over the response when enough data has been sent"."""
    results: list[Blocks] = []

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT, ("Content-Length", "4")])
        results.append(Blocks([b"bo", b"", b"dy", b" and", b" more"]))
        return results[-1]

    served = site(app)
    for _ in range(5):
        assert served.ask().body == b"body"
    served.close()
    assert [result.asked for result in results] == [4] * 5


def test_a_generator_goes_on_after_its_last_block(site: MakeSite) -> None:
    """What comes then, a commit or a line of the log, is work of the application."""
    ended = threading.Semaphore(0)

    def app(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [TEXT, ("Content-Length", "4")])
        yield b"body"
        ended.release()

    served = site(app)
    for _ in range(5):
        assert served.ask().body == b"body"
        assert ended.acquire(timeout=20)


def test_what_is_written_past_the_length_is_an_error(site: MakeSite) -> None:
    """ "or raise an error if the application tries to write() past that point"."""
    raised: list[BaseException] = []

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [TEXT, ("Content-Length", "4")])
        write(b"body")
        try:
            write(b" and more")
        except Exception as error:
            raised.append(error)
            raise
        return []

    served = site(app)
    assert served.ask().body == b"body"
    served.close()
    assert [str(error) for error in raised] == [
        "the application wrote 13 bytes, its `Content-Length` is 4"
    ]


def test_of_a_block_that_is_written_past_the_length_what_fits_is_sent(site: MakeSite) -> None:
    raised: list[type[BaseException]] = []

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [TEXT, ("Content-Length", "4")])
        write(b"bo")
        try:
            write(b"dy and more")
        except ValueError as error:
            raised.append(type(error))
        return []

    served = site(app)
    assert served.ask().body == b"body"
    served.close()
    assert raised == [ValueError]


@pytest.mark.parametrize(("method", "status"), [("HEAD", "200 OK"), ("GET", "304 Not Modified")])
def test_the_length_of_a_body_that_is_not_sent_limits_nothing(
    site: MakeSite, method: str, status: str
) -> None:
    """It tells of another response: the one to GET, or the one that the client has."""
    written: list[bytes] = []

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response(status, [("Content-Length", "4")])
        for block in (b"body", b" and", b" more"):
            write(block)
            written.append(block)
        return []

    served = site(Bare(app))
    answer = served.ask(method)
    served.close()
    assert (answer.status, answer.body) == (int(status[:3]), b"")
    assert written == [b"body", b" and", b" more"]


def test_a_whole_body_that_is_too_short_is_a_500_because_nothing_was_sent(site: MakeSite) -> None:
    served = site(Bare(answering(b"short", headers=[TEXT, ("Content-Length", "9")])))
    answer = served.ask()
    assert answer.status == 500
    assert "Content-Length" in served.log()


def test_an_empty_body_that_is_announced_with_a_length_is_a_500(site: MakeSite) -> None:
    served = site(answering(headers=[TEXT, ("Content-Length", "9")]))
    assert served.ask().status == 500


def test_a_length_of_zero_ends_the_response_with_its_head(site: MakeSite) -> None:
    """The one "possible exception" to the rule that the head waits for the body."""
    answer = site(answering(b"bo", b"dy", headers=[TEXT, ("Content-Length", "0")])).ask()
    assert (answer.status, answer.body) == (200, b"")


def test_a_length_that_is_no_number_is_an_error_of_start_response(site: MakeSite) -> None:
    lengths = ["five", "-1", "+4", "4, 4", "4 4", "", "0x4", "4.0", "9" * 20, "\u0664"]
    raised: list[BaseException] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        length = lengths[int(environ["QUERY_STRING"])]
        try:
            start_response("200 OK", [TEXT, ("Content-Length", length)])
        except ValueError as error:
            raised.append(error)
            raise
        return [b"body"]

    served = site(app)
    for number, length in enumerate(lengths):
        assert served.ask(path=f"/?{number}").status == 500, length
    assert len(raised) == len(lengths)


@pytest.mark.parametrize("second", ["4", "5"])
def test_two_lengths_are_an_error_of_start_response(site: MakeSite, second: str) -> None:
    """RFC 9110 §8.6: clients that disagree about a length disagree about what follows."""
    raised: list[BaseException] = []

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            start_response("200 OK", [TEXT, ("Content-Length", "4"), ("content-length", second)])
        except ValueError as error:
            raised.append(error)
            raise
        return [b"body"]

    assert site(app).ask().status == 500
    assert len(raised) == 1


@where_there_are_chunks
def test_each_block_of_a_body_without_a_length_is_a_chunk(site: MakeSite) -> None:
    """ "chunked encoding to send a chunk for each write() call or bytestring yielded"."""
    served = site(answering(b"one", b"", b"three"))
    exchange = served.start()
    head = exchange.head()
    assert head.one("transfer-encoding") == "chunked"
    assert [exchange.piece() for _ in range(3)] == [b"one", b"three", b""]


@where_there_are_chunks
def test_a_body_with_a_length_has_no_chunks(site: MakeSite) -> None:
    answer = site(answering(b"one", b"two", headers=[TEXT, ("Content-Length", "6")])).ask()
    assert answer.head.one("transfer-encoding") is None
    assert answer.body == b"onetwo"


@where_the_end_of_the_connection_ends_a_body
def test_a_body_without_a_length_ends_with_the_connection(site: MakeSite) -> None:
    """ "to close the client connection when the response is completed"."""
    answer = site(answering(b"one", b"two")).ask()
    assert answer.head.one("content-length") is None
    assert answer.head.one("transfer-encoding") is None
    assert answer.body == b"onetwo"


def test_the_connection_outlives_a_body_whose_end_can_be_seen(site: MakeSite) -> None:
    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])
        return [b"body"]

    served = site(Bare(app))
    connection = served.connect()
    for _ in range(3):
        assert connection.ask("GET", f"{served.mount}/").body == b"body"


def test_no_header_tells_of_framing_that_is_not_there(site: MakeSite) -> None:
    served = site(answering(b"one", b"two"))
    head = served.ask().head
    if served.protocol == HTTP_1_1:
        assert head.one("transfer-encoding") == "chunked"
    else:
        assert head.one("transfer-encoding") is None
    if served.protocol != HTTP_1_0:
        assert head.one("connection") is None
