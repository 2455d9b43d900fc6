"""PEP 3333, "Input and Error Streams": `wsgi.input`. What a file returns is proved by a model, in
`test_input_model`; here is what a file cannot show.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from conformance.clients import LONG, UNTOLD
from conformance.sites import (
    where_a_body_need_not_tell_its_length,
    where_a_connection_can_be_half_closed,
    where_the_next_request_follows_in_the_same_bytes,
    where_there_are_chunks,
)
from conformance.wsgi.apps import TEXT, Bare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from conformance.clients import Exchange
    from conformance.wsgi.apps import Environ, MakeSite, StartResponse

BODY = b"one\ntwo\r\n\nthree" + b"x" * 20_000 + b"\nlast"


class Reading:
    """An application that reads in its own way and keeps what it got."""

    def __init__(self, read: Callable[[Any], object]) -> None:
        self.read = read
        self.results: list[object] = []
        self.began = threading.Event()
        self.done = threading.Event()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        self.began.set()
        try:
            self.results.append(self.read(environ["wsgi.input"]))
        except Exception as error:
            self.results.append(error)
            raise
        finally:
            self.done.set()
        start_response("200 OK", [TEXT, ("Content-Length", "4")])
        return [b"read"]


# --- The methods ---


@pytest.mark.parametrize(
    "read",
    [
        lambda stream: stream.read(-1),
        lambda stream: b"".join(iter(lambda: stream.read(7), b"")),
        lambda stream: b"".join(iter(stream.readline, b"")),
        lambda stream: b"".join(iter(lambda: stream.readline(3), b"")),
        lambda stream: b"".join(stream.readlines()),
        lambda stream: b"".join(iter(lambda: b"".join(stream.readlines(1)), b"")),
        b"".join,
        lambda stream: b"".join([stream.read(5), stream.readline(), *stream]),
    ],
    ids=["read", "read-7", "readline", "readline-3", "readlines", "hint", "iterate", "mixed"],
)
def test_every_way_to_read_gives_the_whole_body(
    site: MakeSite, read: Callable[[Any], object]
) -> None:
    reading = Reading(read)
    assert site(reading).ask("POST", body=BODY).body == b"read"
    assert reading.results == [BODY]


def test_the_methods_take_what_those_of_a_file_take(site: MakeSite) -> None:
    """ "should allow read() to be called without an argument"; sizes are optional everywhere."""

    def read(stream: Any) -> object:
        return [
            stream.read(0),
            stream.readline(None),
            stream.readline(-1),
            stream.readline(0),
            stream.readlines(None),
            stream.read(),
            stream.read(None),
        ]

    reading = Reading(read)
    assert site(Bare(reading)).ask("POST", body=b"1\n2\n3\n4").status == 200
    assert reading.results == [[b"", b"1\n", b"2\n", b"", [b"3\n", b"4"], b"", b""]]


@pytest.mark.parametrize("body", [None, b"", b"all of it"], ids=repr)
def test_past_the_end_there_is_nothing_however_often_it_is_asked(
    site: MakeSite, body: bytes | None
) -> None:
    """ "return empty bytestrings from any attempt to read from an empty or exhausted stream"."""

    def read(stream: Any) -> object:
        first = stream.read()
        past = [
            stream.read(),
            stream.read(1),
            stream.read(-1),
            stream.readline(),
            stream.readline(5),
            stream.readlines(),
            stream.readlines(5),
            list(stream),
            stream.read(),
        ]
        return first, past

    reading = Reading(read)
    assert site(Bare(reading)).ask("POST", body=body).status == 200
    assert reading.results == [(body or b"", [b"", b"", b"", b"", b"", [], [], [], b""])]


@where_the_next_request_follows_in_the_same_bytes
def test_reading_does_not_go_past_the_content_length(site: MakeSite) -> None:
    """ "should simulate an end-of-file condition if the application attempts to read past"."""
    reading = Reading(lambda stream: stream.read(1_000_000))
    served = site(reading)
    request = f"POST {served.mount}/ HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
    with served.raw() as raw:
        raw.send(request * 3)
        assert [raw.answer().body for _ in range(3)] == [b"read"] * 3
    assert reading.results == [b"body"] * 3


def test_a_stream_may_be_read_by_another_thread(site: MakeSite) -> None:
    def read(stream: Any) -> object:
        got: list[bytes] = []
        thread = threading.Thread(target=lambda: got.append(stream.read(-1)))
        thread.start()
        thread.join(LONG)
        return got

    reading = Reading(read)
    assert site(reading).ask("POST", body=BODY).status == 200
    assert reading.results == [[BODY]]


# --- Read as it comes ---


@pytest.mark.parametrize(
    ("read", "pieces"),
    [
        (lambda stream: stream.read(5), [b"fi", b"rst"]),
        (lambda stream: stream.readline(), [b"fir", b"st\nand"]),
        (lambda stream: next(iter(stream)), [b"first\n"]),
        (lambda stream: stream.readline(3), [b"fir"]),
        (lambda stream: stream.readlines(2), [b"first\n"]),
    ],
    ids=["read", "readline", "iterate", "readline-3", "readlines-2"],
)
def test_what_has_come_can_be_read_before_the_rest_has(
    site: MakeSite, read: Callable[[Any], object], pieces: list[bytes]
) -> None:
    """A line that is there is returned; nobody waits for more than was asked for."""
    first = threading.Event()

    def both(stream: Any) -> object:
        begin = read(stream)
        first.set()
        return begin, stream.read(-1)

    reading = Reading(both)
    sent = b"".join(pieces)
    exchange = site(reading).start("POST", length=len(sent) + 4)
    for piece in pieces:
        exchange.send(piece)
    assert first.wait(LONG)
    exchange.send(b"rest")
    exchange.end()
    assert exchange.answer().body == b"read"
    [(begin, rest)] = reading.results  # type: ignore[misc]
    joined = b"".join(begin) if isinstance(begin, list) else begin
    assert joined + rest == sent + b"rest"


def test_read_waits_for_as_much_as_was_asked_for(site: MakeSite) -> None:
    """A short `read` means the end, as for every buffered file."""
    reading = Reading(lambda stream: stream.read(10))
    exchange = site(reading).start("POST", length=10)
    for byte in b"0123456789":
        exchange.send(bytes([byte]))
    exchange.end()
    assert exchange.answer().status == 200
    assert reading.results == [b"0123456789"]


def test_a_response_may_begin_before_the_body_is_read(site: MakeSite) -> None:
    """An echo: each block leaves before the next has come."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])
        return iter(environ["wsgi.input"].readline, b"")

    exchange = site(app).start("POST", length=12)
    exchange.send(b"one\n")
    assert exchange.head().status == 200
    for line in (b"two\n", b"six\n"):
        assert exchange.take(4) == (b"one\n" if line == b"two\n" else b"two\n")
        exchange.send(line)
    exchange.end()
    assert exchange.body() == b"six\n"


# --- Without a length ---


@where_a_body_need_not_tell_its_length
@pytest.mark.parametrize("pieces", [[], [b"all"], [b"one\n", b"t", b"wo", b"x" * 70_000]], ids=len)
def test_a_body_without_a_length_is_read_to_its_end(site: MakeSite, pieces: list[bytes]) -> None:
    """ "decoding any inbound Transfer-Encoding, including chunked encoding"."""
    reading = Reading(lambda stream: stream.read(-1))
    exchange = site(reading).start("POST", length=UNTOLD)
    for piece in pieces:
        exchange.send(piece)
    exchange.end()
    assert exchange.answer().status == 200
    assert reading.results == [b"".join(pieces)]


def test_the_input_says_that_it_ends_by_itself(site: MakeSite) -> None:
    """Werkzeug looks for the key: without it a body without a length is empty."""
    flags: list[object] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        flags.append(environ["wsgi.input_terminated"])
        start_response("200 OK", [TEXT])
        return []

    assert site(app).ask().status == 200
    assert flags == [True]


@where_there_are_chunks
def test_trailers_are_no_part_of_the_body(site: MakeSite) -> None:
    """RFC 9110 §6.5: an application that cannot know them must not see them as content."""
    reading = Reading(lambda stream: stream.read(-1))
    served = site(reading)
    with served.raw() as raw:
        raw.start("POST", f"{served.mount}/", transfer_encoding="chunked")
        raw.send("4\r\nbody\r\n0\r\nX-Trailer: 1\r\nContent-Length: 9\r\n\r\n")
        assert raw.answer().status == 200
        assert raw.ask("POST", f"{served.mount}/", b"next").status == 200
    assert reading.results == [b"body", b"next"]


@where_there_are_chunks
def test_a_length_beside_chunks_never_reaches_the_application(site: MakeSite) -> None:
    """RFC 9112 §6.3: whoever believes the other of the two sees another request."""
    reading = Reading(lambda stream: stream.read(-1))
    served = site(reading)
    with served.raw() as raw:
        raw.start("POST", f"{served.mount}/", 4, transfer_encoding="chunked")
        raw.send("4\r\nbody\r\n0\r\n\r\n")
        assert raw.answer().status == 400
    assert reading.results == []


# --- Broken off ---

READS: dict[str, Callable[[Any], object]] = {
    "read": lambda stream: stream.read(-1),
    "read-n": lambda stream: stream.read(100),
    "readline": lambda stream: [stream.readline(), stream.readline()],
    "readlines": lambda stream: stream.readlines(),
    "iterate": list,
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_body_that_breaks_off_is_an_error_and_not_an_end(
    site: MakeSite, read: Callable[[Any], object]
) -> None:
    """Half an upload must not look like a whole one; reading again raises again."""

    def reads(stream: Any) -> object:
        for _ in range(2):
            with pytest.raises(OSError, match=r"disconnected|body"):
                read(stream)
        return read(stream)

    reading = Reading(reads)
    served = site(reading, access_log=True)
    exchange = served.start("POST", length=100)
    exchange.send(b"half\nof it")
    # Nobody begins a request whose client has gone.
    assert reading.began.wait(LONG)
    exchange.leave()
    assert reading.done.wait(LONG)
    assert [isinstance(result, OSError) for result in reading.results] == [True]
    served.close()
    assert '" 200 ' not in served.log()


@where_there_are_chunks
@pytest.mark.parametrize(
    "data", ["4\r\nhalf\r\n", "5\r\nhalf", "4\r\nhalf\r\n0\r\n", "4\r\nhalf\r\n5"]
)
def test_chunks_that_break_off_are_an_error_and_not_an_end(site: MakeSite, data: str) -> None:
    reading = Reading(lambda stream: stream.read(-1))
    served = site(reading)
    with served.raw() as raw:
        raw.start("POST", f"{served.mount}/", transfer_encoding="chunked")
        raw.send(data)
        assert reading.began.wait(LONG)
    assert reading.done.wait(LONG)
    assert [isinstance(result, OSError) for result in reading.results] == [True]


@where_there_are_chunks
@pytest.mark.parametrize("data", ["4\r\nhalf\r\nnonsense\r\n", "4\r\nhalfX\r\n0\r\n\r\n"])
def test_chunks_that_are_none_are_an_error_and_the_client_is_told(
    site: MakeSite, data: str
) -> None:
    reading = Reading(lambda stream: stream.read(-1))
    served = site(reading)
    with served.raw() as raw:
        raw.start("POST", f"{served.mount}/", transfer_encoding="chunked")
        raw.send(data)
        assert raw.answer().status == 400
    assert [isinstance(result, OSError) for result in reading.results] in ([True], [])


@where_a_connection_can_be_half_closed
def test_a_client_that_stops_sending_is_told_apart_from_one_that_is_done(site: MakeSite) -> None:
    reading = Reading(lambda stream: stream.read(-1))
    served = site(reading)
    with served.raw() as raw:
        raw.start("POST", f"{served.mount}/", 10)
        raw.send("half")
        raw.socket.shutdown(1)
        assert reading.done.wait(LONG)
    assert [isinstance(result, OSError) for result in reading.results] == [True]


def test_what_came_before_the_break_can_be_read(site: MakeSite) -> None:
    seen: list[bytes] = []

    half = threading.Event()

    def read(stream: Any) -> object:
        seen.append(stream.read(4))
        half.set()
        return stream.read(1)

    reading = Reading(read)
    exchange = site(reading).start("POST", length=100)
    exchange.send(b"half")
    assert half.wait(LONG)
    exchange.leave()
    assert reading.done.wait(LONG)
    assert seen == [b"half"]
    assert [isinstance(result, OSError) for result in reading.results] == [True]


# --- Not read ---


def post(exchange: Exchange, body: bytes) -> None:
    exchange.send(body)
    exchange.end()


@pytest.mark.parametrize("size", [1, 1_000, 60_000])
@pytest.mark.parametrize(("read", "sent"), [(0, "before"), (1, "before"), (0, "after")], ids=str)
def test_an_unread_body_does_not_spoil_the_next_request(
    site: MakeSite, size: int, read: int, sent: str
) -> None:
    """Its bytes are thrown away, whether they come before or after the answer."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.input"].read(read)
        start_response("200 OK", [TEXT, ("Content-Length", "4")])
        return [b"next" if environ["PATH_INFO"] == "/next" else b"post"]

    served = site(app)
    connection = served.connect()
    # As a request it would be answered.
    body = (b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n" * 2_000)[:size]
    for _ in range(3):
        exchange = connection.start("POST", f"{served.mount}/", length=size)
        if sent == "before":
            post(exchange, body)
        assert exchange.answer().body == b"post"
        if sent == "after":
            post(exchange, body)
        assert connection.ask("GET", f"{served.mount}/next").body == b"next"


@where_there_are_chunks
@pytest.mark.parametrize("sent", ["before", "after"])
def test_unread_chunks_do_not_spoil_the_next_request(site: MakeSite, sent: str) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT, ("Content-Length", "4")])
        return [b"next" if environ["PATH_INFO"] == "/next" else b"post"]

    served = site(app)
    connection = served.connect()
    for _ in range(3):
        exchange = connection.start("POST", f"{served.mount}/", length=UNTOLD)
        if sent == "before":
            post(exchange, b"x" * 10_000)
        assert exchange.answer().body == b"post"
        if sent == "after":
            post(exchange, b"x" * 10_000)
        assert connection.ask("GET", f"{served.mount}/next").body == b"next"


def test_the_input_cannot_be_read_when_the_response_is_complete(site: MakeSite) -> None:
    """The rest is not kept for an application that keeps its `environ`."""
    kept: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        kept.append(environ)
        start_response("200 OK", [TEXT, ("Content-Length", "4")])
        return [b"done"]

    served = site(app)
    exchange = served.start("POST", length=4)
    assert exchange.answer().body == b"done"
    exchange.send(b"body")
    exchange.end()
    served.close()
    with pytest.raises(OSError, match="complete"):
        kept[0]["wsgi.input"].read(-1)
