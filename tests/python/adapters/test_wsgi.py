"""WSGI applications over real sockets: the clauses of PEP 3333, and those who break them."""

from __future__ import annotations

import contextlib
import contextvars
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from adapters.raw import Client, wait_until_refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from support import Serve, StartCommand

    Environ = dict[str, Any]
    StartResponse = Callable[..., Callable[[bytes], object]]
    Handler = Callable[[Environ, StartResponse], Iterable[bytes]]

TIMEOUT = 20.0


def wsgi(handler: Handler) -> Handler:
    """An application that answers `/next` with `next`."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/next":
            start_response("200 OK", [])
            return [b"next"]
        return handler(environ, start_response)

    return app


class Response:
    """An iterable that counts how often it is closed, and lets a test wait for it."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self.blocks = iter(blocks)
        self.closed = 0
        self._closing = threading.Event()

    def __iter__(self) -> Response:
        return self

    def __next__(self) -> bytes:
        return next(self.blocks)

    def close(self) -> None:
        self.closed += 1
        self._closing.set()

    def wait_closed(self) -> None:
        assert self._closing.wait(TIMEOUT)


def fail() -> None:
    raise ValueError("original")


# --- start_response and the body ---


def test_start_response_may_be_called_by_the_first_iteration(serve: Serve) -> None:
    def handler(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("201 Created", [("X-App", "1")])
        yield b"one"
        yield b"two"

    with Client(serve(wsgi(handler)).port) as client:
        answer = client.ask()
        assert (answer.status, answer.header("x-app"), answer.body) == (201, "1", b"onetwo")


def test_the_head_waits_for_the_first_block_that_is_not_empty(serve: Serve) -> None:
    def handler(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [("X-App", "first")])
        yield b""
        try:
            fail()
        except ValueError:
            start_response("500 Changed", [("X-App", "second")], sys.exc_info())
        yield b""
        yield b"body"

    with Client(serve(wsgi(handler)).port) as client:
        answer = client.ask()
        assert (answer.status, answer.reason) == (500, "Changed")
        assert (answer.header("x-app"), answer.body) == ("second", b"body")


def test_after_the_head_start_response_raises_what_it_is_given(serve: Serve) -> None:
    raised: list[BaseException] = []

    def handler(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"begun"
        try:
            fail()
        except ValueError:
            try:
                start_response("500 Late", [], sys.exc_info())
            except ValueError as error:
                raised.append(error)
                raise

    with Client(serve(wsgi(handler)).port) as client:
        client.start("GET", "/")
        assert client.is_reset()
    assert [str(error) for error in raised] == ["original"]


@pytest.mark.parametrize("first", [("200 OK", []), ("nonsense", [])])
def test_a_second_start_response_without_exc_info_raises_also_when_the_first_one_did(
    serve: Serve, first: tuple[str, list[tuple[str, str]]]
) -> None:
    raised: list[BaseException] = []

    def handler(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        with contextlib.suppress(ValueError):
            start_response(*first)
        try:
            start_response("200 OK", [])
        except AssertionError as error:
            raised.append(error)
        return []

    with Client(serve(wsgi(handler)).port) as client:
        client.ask()
    assert len(raised) == 1


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("", []),
        ("200OK", []),
        ("99 Low", []),
        ("100 Continue", []),
        ("1000 High", []),
        ("+20 Plus", []),
        (b"200 OK", []),
        (200, []),
        ("200 O\nK", []),
        ("200 OK", None),
        ("200 OK", ()),
        ("200 OK", [("a",)]),
        ("200 OK", ["ab"]),
        ("200 OK", [(b"a", b"b")]),
        ("200 OK", [("a", 1)]),
        ("200 OK", [("a b", "c")]),
        ("200 OK", [("", "c")]),
        ("200 OK", [("a", "b\r\nc: d")]),
        ("200 OK", [("a", "b\r\n")]),
        ("200 OK", [("a", "\nb")]),
        ("200 \u20ac", []),
        ("200 OK\n", []),
        ("200 OK", [("a", "b\0")]),
        ("200 OK", [("a", "\u20ac")]),
        ("200 OK", [("a", "\udc80")]),
        ("200 OK", [("Connection", "close")]),
        ("200 OK", [("Transfer-Encoding", "chunked")]),
        ("200 OK", [("Keep-Alive", "1")]),
        ("200 OK", [("Proxy-Authenticate", "Basic")]),
        ("200 OK", [("proxy-authorization", "Basic")]),
        ("200 OK", [("TE", "trailers")]),
        ("200 OK", [("Trailers", "X-App")]),
        ("200 OK", [(f"a{i}", "b") for i in range(40_000)]),
    ],
)
def test_a_head_that_cannot_be_sent_raises_in_start_response_and_costs_that_request(
    serve: Serve, status: Any, headers: Any
) -> None:
    raised: list[BaseException] = []

    def handler(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            start_response(status, headers)
        except Exception as error:
            raised.append(error)
            raise
        return [b"sent"]

    with Client(serve(wsgi(handler)).port) as client:
        assert client.ask().status == 500
        assert client.ask(target="/next").body == b"next"
    assert [isinstance(error, (TypeError, ValueError)) for error in raised] == [True]


def test_a_reason_and_latin_1_values_arrive_as_they_are(serve: Serve) -> None:
    def handler(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("299 Foo Caf\xe9", [("X-App", " caf\xe9\t"), ("x-app", "2")])
        return [b""]

    with Client(serve(wsgi(handler)).port) as client:
        answer = client.ask()
        assert (answer.status, answer.reason) == (299, "Foo Caf\xe9")
        assert answer.header("x-app") == "caf\xe9, 2"


def test_write_sends_before_the_iterable_does(serve: Serve) -> None:
    go_on = threading.Event()

    def handler(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        write(b"written")
        go_on.wait(TIMEOUT)
        return [b" and returned"]

    with Client(serve(wsgi(handler)).port) as client:
        client.start("GET", "/")
        client.head()
        assert client.chunk() == b"written"
        go_on.set()
        assert client.chunk() == b" and returned"
        assert client.chunk() == b""


def test_each_block_is_sent_before_the_next_is_asked_for(serve: Serve) -> None:
    go_on = threading.Event()

    def handler(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"first"
        go_on.wait(TIMEOUT)
        yield b"second"

    with Client(serve(wsgi(handler)).port) as client:
        client.start("GET", "/")
        client.head()
        assert client.chunk() == b"first"
        go_on.set()
        assert client.chunk() == b"second"


@pytest.mark.parametrize("blocks", [[], [b""], (), (b"",)])
def test_an_empty_response_has_the_length_zero(serve: Serve, blocks: Iterable[bytes]) -> None:
    def handler(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return blocks

    with Client(serve(wsgi(handler)).port) as client:
        assert client.ask().header("content-length") == "0"


@pytest.mark.parametrize(
    "result", [None, 5, ["text"], iter(["text"]), [None], [bytearray(b"a")], (memoryview(b"a"),)]
)
def test_what_is_no_iterable_of_bytes_is_a_500(serve: Serve, result: Any) -> None:
    def handler(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return result

    with Client(serve(wsgi(handler)).port) as client:
        assert client.ask().status == 500
        assert client.ask(target="/next").body == b"next"


def test_an_application_that_never_calls_start_response_gets_a_500_in_its_place(
    serve: Serve,
) -> None:
    with Client(serve(wsgi(lambda _environ, _start: [b"body"])).port) as client:
        assert client.ask().status == 500
        assert client.ask(target="/next").body == b"next"


def test_status_headers_and_blocks_may_be_of_derived_classes(serve: Serve) -> None:
    class Status(str):
        __slots__ = ()

    class Block(bytes):
        __slots__ = ()

    class Headers(list[tuple[str, str]]):
        pass

    def handler(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(Status("200 OK"), Headers([(Status("X-App"), Status("1"))]))
        return [Block(b"body")]

    with Client(serve(wsgi(handler)).port) as client:
        answer = client.ask()
        assert (answer.status, answer.header("x-app"), answer.body) == (200, "1", b"body")


@pytest.mark.parametrize("exc_info", [None, False, ()])
def test_an_exc_info_that_is_not_true_is_none(serve: Serve, exc_info: Any) -> None:
    def handler(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [], exc_info)
        with pytest.raises(AssertionError):
            start_response("200 OK", [], exc_info)
        return [b"raised"]

    with Client(serve(wsgi(handler)).port) as client:
        assert client.ask().body == b"raised"


def test_write_after_the_end_raises_and_adds_nothing(serve: Serve) -> None:
    kept: list[Callable[[bytes], object]] = []

    def handler(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        kept.append(start_response("200 OK", []))
        return [b"whole"]

    with Client(serve(wsgi(handler)).port) as client:
        assert client.ask().body == b"whole"
        with pytest.raises(RuntimeError, match="complete"):
            kept[0](b"more")
        assert client.ask(target="/next").body == b"next"


# --- close() ---


class Odd(BaseException):
    """What nobody expects."""


ENDINGS = [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, Odd]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("place", ["call", "first", "later", "close"])
def test_whatever_is_raised_wherever_costs_that_request_and_no_thread(
    serve: Serve, ending: type[BaseException], place: str
) -> None:
    responses: list[Response] = []

    class Ending(Response):
        def close(self) -> None:
            super().close()
            if place == "close":
                raise ending

    def blocks() -> Iterator[bytes]:
        if place == "first":
            raise ending
        yield b"begun"
        if place == "later":
            raise ending

    def handler(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        if place == "call":
            raise ending
        responses.append(Ending(blocks()))
        return responses[-1]

    server = serve(wsgi(handler), threads=1)
    for _ in range(2):
        with Client(server.port) as client:
            client.start("GET", "/")
            if place in {"call", "first"}:
                assert client.answer().status == 500
            elif place == "later":
                assert client.is_reset()
            else:
                assert client.answer().body == b"begun"
    with Client(server.port) as client:
        assert client.ask(target="/next").body == b"next"
    assert [response.closed for response in responses] == [1] * len(responses)
    assert len(responses) == (0 if place == "call" else 2)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", ["200 OK", "304 Not Modified"])
@pytest.mark.parametrize("blocks", [[], [b"one"], [b"one", b"two"]])
def test_a_response_is_closed_once_whatever_becomes_of_its_body(
    serve: Serve, method: str, status: str, blocks: list[bytes]
) -> None:
    response = Response(blocks)

    def handler(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, [])
        return response

    server = serve(wsgi(handler))
    with Client(server.port) as client:
        client.ask(method)
        assert client.ask(target="/next").body == b"next"
    server.close()
    assert response.closed == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_response_without_end_is_closed_when_nobody_wants_more_of_it(
    serve: Serve, method: str
) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 1000

    response = Response(endless())

    def handler(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return response

    server = serve(wsgi(handler), threads=1)
    with Client(server.port) as client:
        client.start(method, "/")
        client.head()
        if method == "HEAD":
            response.wait_closed()
            assert client.ask(target="/next").body == b"next"
    response.wait_closed()
    server.close()
    assert response.closed == 1


def test_iteration_ends_when_the_client_leaves_before_there_was_anything_to_send(
    serve: Serve,
) -> None:
    begun = threading.Event()

    def nothing() -> Iterator[bytes]:
        while True:
            begun.set()
            yield b""

    response = Response(nothing())

    def handler(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return response

    server = serve(wsgi(handler), threads=1)
    with Client(server.port) as client:
        client.start("GET", "/")
        assert begun.wait(TIMEOUT)
    response.wait_closed()
    with Client(server.port) as client:
        assert client.ask(target="/next").body == b"next"
    assert response.closed == 1


@pytest.mark.parametrize("size", [1, 65536])
def test_a_client_that_leaves_is_a_broken_pipe_to_whoever_writes(serve: Serve, size: int) -> None:
    raised: list[BaseException] = []
    done = threading.Event()

    def handler(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        send = start_response("200 OK", [])
        try:
            while True:
                send(b"x" * size)
        except OSError as error:
            raised.append(error)
            raise
        finally:
            done.set()

    with Client(serve(wsgi(handler)).port) as client:
        client.start("GET", "/")
        client.head()
    assert done.wait(TIMEOUT)
    assert [type(error) for error in raised] == [BrokenPipeError]


def test_a_client_that_does_not_read_holds_the_iteration_back(serve: Serve) -> None:
    asked = 0
    held = threading.Event()

    def blocks() -> Iterator[bytes]:
        nonlocal asked
        while asked < 4000:
            asked += 1
            yield b"x" * 65536

    def handler(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return blocks()

    def watch() -> None:
        before = -1
        while asked != before:
            before = asked
            held.wait(0.5)
        held.set()

    server = serve(wsgi(handler))
    with Client(server.port) as client:
        client.start("GET", "/")
        client.head()
        threading.Thread(target=watch).start()
        assert held.wait(TIMEOUT)
        assert asked < 1000
        total = 0
        while piece := client.chunk():
            total += len(piece)
        assert total == 4000 * 65536


class Block(bytes):
    """A block that counts how many of its kind there are."""

    alive = 0
    most = 0

    def __init__(self, *_args: object) -> None:
        Block.alive += 1
        Block.most = max(Block.most, Block.alive)

    def __del__(self) -> None:
        Block.alive -= 1


def test_blocks_that_were_sent_are_freed_while_every_thread_is_busy(serve: Serve) -> None:
    def handler(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return (Block(65536) for _ in range(400))

    with Client(serve(wsgi(handler), threads=1).port) as client:
        assert len(client.ask().body) == 400 * 65536
    assert Block.most < 40


# --- wsgi.input ---


@pytest.mark.parametrize("chunked", [False, True])
def test_every_way_to_read_gives_the_same_bytes_and_nothing_past_the_end(
    serve: Serve, chunked: bool
) -> None:
    body = b"one\ntwo\n\nthree" + b"x" * 100_000 + b"\nlast"

    def ways(stream: Any) -> Iterator[bytes]:
        yield stream.read(0)
        yield stream.readline()
        yield stream.readline(2)
        yield stream.read(3)
        yield stream.readline(0)
        yield next(iter(stream))
        yield b"".join(stream.readlines(1))
        yield stream.read(-1)
        yield stream.read()
        yield stream.readline()
        yield b"".join(stream.readlines())
        yield b"".join(stream)

    seen: list[bytes] = []

    def handler(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.extend(ways(environ["wsgi.input"]))
        start_response("200 OK", [])
        return [b"".join(seen)]

    with Client(serve(wsgi(handler)).port) as client:
        if chunked:
            client.start("POST", "/", transfer_encoding="chunked")
            for start in range(0, len(body), 7000):
                piece = body[start : start + 7000]
                client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            client.send(b"0\r\n\r\n")
            assert client.answer().body == body
        else:
            assert client.ask("POST", body=body).body == body
    assert seen[:6] == [b"", b"one\n", b"tw", b"o\n\n", b"", b"three" + b"x" * 100_000 + b"\n"]
    assert seen[-4:] == [b""] * 4


@pytest.mark.parametrize("length", [10, 10_000_000])
def test_a_body_that_breaks_off_raises_and_goes_on_raising(serve: Serve, length: int) -> None:
    outcomes: list[Any] = []
    done = threading.Event()

    def handler(environ: Environ, _start_response: StartResponse) -> Iterable[bytes]:
        outcomes.extend(outcome(environ["wsgi.input"].read) for _ in range(3))
        done.set()
        return []

    with Client(serve(wsgi(handler)).port) as client:
        client.start("POST", "/", length)
        client.send(b"half")
    assert done.wait(TIMEOUT)
    assert outcomes == [ConnectionResetError] * 3


def outcome(read: Callable[[], bytes]) -> object:
    try:
        return read()
    except OSError as error:
        return type(error)


class Index:
    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value


@pytest.mark.parametrize("size", [None, -1, -(10**30), 10**30, sys.maxsize, Index(20)])
@pytest.mark.parametrize("method", ["read", "readline", "readlines"])
def test_a_size_may_be_any_number_or_none(serve: Serve, method: str, size: Any) -> None:
    def handler(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        result = getattr(environ["wsgi.input"], method)(size)
        start_response("200 OK", [])
        return result if method == "readlines" else [result]

    with Client(serve(wsgi(handler)).port) as client:
        assert client.ask("POST", body=b"one line\n").body == b"one line\n"


@pytest.mark.parametrize("size", [1.5, "1", b""])
@pytest.mark.parametrize("method", ["read", "readline", "readlines"])
def test_a_size_that_is_no_number_is_a_type_error(serve: Serve, method: str, size: Any) -> None:
    def handler(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        with pytest.raises(TypeError):
            getattr(environ["wsgi.input"], method)(size)
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]

    with Client(serve(wsgi(handler)).port) as client:
        assert client.ask("POST", body=b"body").body == b"body"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize(
    ("path", "most"),
    [("/file", 16), ("/blocks", 16), ("/pieces", 16), ("/unread", 16), ("/read", 80)],
)
def test_a_body_of_64_mib_takes_memory_only_where_the_application_holds_it(
    command: StartCommand, path: str, most: int
) -> None:
    process = command(
        "app:app",
        "--bind=127.0.0.1:0",
        files={
            "app.py": """
                import os, pathlib, tempfile

                file = tempfile.TemporaryFile()
                file.truncate(64 * 1024 * 1024)

                def peak():
                    status = pathlib.Path("/proc/self/status").read_text()
                    return int(status.split("VmHWM:")[1].split()[0])

                def app(environ, start_response):
                    path, read = environ["PATH_INFO"], environ["wsgi.input"].read
                    if path == "/file":
                        start_response("200 OK", [])
                        return environ["wsgi.file_wrapper"](os.fdopen(os.dup(file.fileno()), "rb"))
                    if path == "/blocks":
                        start_response("200 OK", [])
                        return (b"x" * 65536 for _ in range(1024))
                    if path == "/pieces":
                        while read(8192):
                            pass
                    if path == "/read":
                        read()
                    start_response("200 OK", [])
                    return [str(peak()).encode()]
                """
        },
    )

    def peak() -> int:
        with Client(process.port) as client:
            return int(client.ask().body)

    before = peak()
    with Client(process.port) as client:
        if path in {"/file", "/blocks"}:
            assert len(client.ask(target=path).body) == 64 * 1024 * 1024
        else:
            client.start("POST", path, 64 * 1024 * 1024)
            with contextlib.suppress(ConnectionError):
                for _ in range(64):
                    client.send(bytes(1024 * 1024))
                assert client.answer().status == 200
    assert peak() - before < most * 1024


def test_a_body_is_read_while_it_arrives(serve: Serve) -> None:
    read: list[bytes] = []
    first = threading.Event()

    def handler(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        read.append(environ["wsgi.input"].read(5))
        first.set()
        read.append(environ["wsgi.input"].read())
        start_response("200 OK", [])
        return []

    with Client(serve(wsgi(handler)).port) as client:
        client.start("POST", "/", 11)
        client.send(b"first")
        assert first.wait(TIMEOUT)
        client.send(b"second")
        assert client.answer().status == 200
    assert read == [b"first", b"second"]


def test_continue_is_said_when_the_application_reads_and_not_before(serve: Serve) -> None:
    read = threading.Event()

    def handler(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        read.wait(TIMEOUT)
        body = environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [body]

    with Client(serve(wsgi(handler)).port) as client:
        client.start("POST", "/", 4, expect="100-continue")
        client.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.head()
        client.socket.settimeout(TIMEOUT)
        read.set()
        assert client.head().status == 100
        client.send(b"body")
        assert client.answer().body == b"body"


@pytest.mark.parametrize("way", ["whole", "stream", "read nothing", "hints"])
def test_an_application_that_refuses_a_body_unread_is_not_preceded_by_continue(
    serve: Serve, way: str
) -> None:
    def handler(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if way == "read nothing":
            assert environ["wsgi.input"].read(0) == environ["wsgi.input"].readline(0) == b""
        elif way == "hints":
            environ["wsgi.early_hints"]([("X-App", "1")])
        start_response("413 Too Large", [])
        return iter([b"too ", b"large"]) if way == "stream" else [b"too large"]

    with Client(serve(wsgi(handler)).port) as client:
        client.start("POST", "/", 10**9, expect="100-continue")
        if way == "hints":
            assert client.head().status == 103
        answer = client.answer()
        assert (answer.status, answer.body) == (413, b"too large")
        # The body may come or not: nobody could tell it from the next request.
        assert client.ends()


def test_an_unread_body_does_not_hold_up_the_connection_although_the_environ_is_kept(
    serve: Serve,
) -> None:
    kept: list[Environ] = []
    release = threading.Event()

    class Slow(Response):
        def close(self) -> None:
            release.wait(TIMEOUT)

    def handler(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        kept.append(environ)
        start_response("200 OK", [("Content-Length", "4")])
        return Slow([b"done"])

    with Client(serve(wsgi(handler)).port) as client:
        client.start("POST", "/", 4)
        assert client.answer().body == b"done"
        # The rest of a request that was answered already.
        client.send(b"body")
        try:
            client.start("GET", "/next")
            assert client.answer().body == b"next"
        except (EOFError, ConnectionError):
            # Closing is as good: a client asks again on another connection.
            pass
        finally:
            release.set()
    with pytest.raises(OSError, match="complete"):
        kept[0]["wsgi.input"].read()


# --- environ ---


def test_the_environ_holds_what_pep_3333_asks_for_in_its_types(serve: Serve) -> None:
    seen: list[Environ] = []

    def handler(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ)
        start_response("200 OK", [])
        return []

    server = serve(wsgi(handler), threads=1)
    with Client(server.port) as client:
        client.ask("POST", "/a%20b//c%FF?q=%20&x", b"body", content_type="text/plain", x_app="1")
        client.ask()
    environ = seen[0]
    assert type(environ) is dict
    expected = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b//c\xff",
        "QUERY_STRING": "q=%20&x",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "4",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(server.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "HTTP_X_APP": "1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    assert {key: environ.get(key) for key in expected} == expected
    assert "HTTP_CONTENT_TYPE" not in environ
    assert "HTTP_CONTENT_LENGTH" not in environ
    servers = ("wsgi.", "twinspan.")
    assert {type(v) for k, v in environ.items() if not k.startswith(servers)} == {str}
    for method in ("write", "writelines", "flush"):
        assert callable(getattr(environ["wsgi.errors"], method))
    assert seen[1] is not environ
    assert "CONTENT_TYPE" not in seen[1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"threads": 1}, b"False"), ({"threads": 2}, b"True"), ({"timeout_request": 5}, b"True")],
    ids=str,
)
def test_multithread_says_whether_two_requests_can_run_at_once(
    serve: Serve, options: dict[str, object], expected: bytes
) -> None:
    def handler(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [str(environ["wsgi.multithread"]).encode()]

    with Client(serve(wsgi(handler), **{"threads": 1, **options}).port) as client:
        assert client.ask().body == expected


def test_cookies_that_http2_splits_are_one_cookie_header_again(serve: Serve) -> None:
    def handler(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        text = f"{environ['HTTP_COOKIE']}|{environ['SERVER_PROTOCOL']}|{environ['HTTP_X_APP']}"
        return [text.encode("latin-1")]

    server = serve(wsgi(handler))
    with httpx.Client(http1=False, http2=True, trust_env=False) as client:
        headers = [("cookie", "a=1"), ("cookie", "b=2"), ("x-app", "1"), ("x-app", "2")]
        assert client.get(server.url, headers=headers).text == "a=1; b=2|HTTP/2|1,2"


@pytest.mark.parametrize(
    ("target", "path", "sent"),
    [
        ("/", "/", "/"),
        ("/plain", "/plain", "/plain"),
        ("/a?b=%20&c", "/a", "/a?b=%20&c"),
        ("/a?", "/a", "/a?"),
        ("/%E2%82%AC%FF", "/\u00e2\u0082\u00ac\xff", "/%E2%82%AC%FF"),
        ("/a%00b", "/a\0b", "/a%00b"),
        ("//a", "//a", "//a"),
        ("/a;b=c/d;e", "/a;b=c/d;e", "/a;b=c/d;e"),
        ("http://localhost/a?b", "/a", "/a?b"),
        ("*", "", "*"),
    ],
)
def test_the_target_is_there_as_it_was_sent_beside_the_decoded_path(
    serve: Serve, target: str, path: str, sent: str
) -> None:
    seen: list[Environ] = []

    def handler(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ)
        start_response("200 OK", [])
        return []

    with Client(serve(wsgi(handler)).port) as client:
        assert client.ask("OPTIONS", target).status == 200
    assert (seen[0]["SCRIPT_NAME"], seen[0]["PATH_INFO"]) == ("", path)
    assert (seen[0]["REQUEST_URI"], seen[0]["RAW_URI"]) == (sent, sent)


def test_below_a_mount_the_target_is_whole(serve: Serve) -> None:
    seen: list[tuple[str, str, str]] = []

    def handler(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append((environ["SCRIPT_NAME"], environ["PATH_INFO"], environ["REQUEST_URI"]))
        start_response("200 OK", [])
        return []

    with Client(serve(mounts={"/api": handler, "/": handler}).port) as client:
        for target in ("/api", "/api/", "/api/a?b", "/apiary"):
            client.ask(target=target)
    assert seen == [
        ("/api", "", "/api"),
        ("/api", "/", "/api/"),
        ("/api", "/a", "/api/a?b"),
        ("", "/apiary", "/apiary"),
    ]


def test_a_client_cannot_set_the_proxy_of_whatever_takes_the_environ_for_that_of_a_process(
    serve: Serve,
) -> None:
    seen: list[Environ] = []

    def handler(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ)
        start_response("200 OK", [])
        return []

    with Client(serve(wsgi(handler)).port) as client:
        client.ask(proxy="http://attacker", proxy_authorization="1")
    assert "HTTP_PROXY" not in seen[0]
    assert seen[0]["HTTP_PROXY_AUTHORIZATION"] == "1"


def test_on_a_unix_socket_the_client_has_an_empty_address(
    command: StartCommand, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    process = command(
        "app:app",
        f"--bind=unix:{path}",
        ready=False,
        files={
            "app.py": """
                def app(environ, start_response):
                    start_response("200 OK", [])
                    keys = ("REMOTE_ADDR", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT")
                    return [repr([environ.get(key) for key in keys]).encode()]
                """
        },
    )
    process.wait_for_line("listening on")
    transport = httpx.HTTPTransport(uds=str(path))
    with httpx.Client(transport=transport, trust_env=False) as client:
        answer = client.get("http://name.example:81/")
        assert answer.text == "['', None, 'name.example', '81']"


def test_the_environment_of_the_process_is_not_copied(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWINSPAN_TEST_SECRET", "secret")
    seen: list[Environ] = []

    def handler(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ)
        start_response("200 OK", [])
        return []

    with Client(serve(wsgi(handler)).port) as client:
        client.ask()
    assert not set(seen[0]) & set(os.environ)


def test_a_header_with_an_underscore_cannot_pose_as_one_with_a_hyphen(serve: Serve) -> None:
    def handler(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [environ.get("HTTP_X_USER", "nobody").encode()]

    with Client(serve(wsgi(handler)).port) as client:
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\nX_User: admin\r\n\r\n")
        assert client.answer().body == b"nobody"


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_context_variables_belong_to_one_request_and_last_to_its_end(serve: Serve) -> None:
    def handler(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        before = variable.get()
        variable.set("set")
        yield before.encode()
        yield variable.get().encode()

    with Client(serve(wsgi(handler), threads=1).port) as client:
        assert [client.ask().body for _ in range(3)] == [b"unsetset"] * 3


# --- the pool ---


def test_requests_run_at_once_on_as_many_threads_as_there_are(serve: Serve) -> None:
    together = threading.Barrier(4)

    def handler(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        assert environ["wsgi.multithread"]
        together.wait(TIMEOUT)
        start_response("200 OK", [])
        return [b"together"]

    server = serve(wsgi(handler), threads=4)
    clients = [Client(server.port) for _ in range(4)]
    for client in clients:
        client.start("GET", "/")
    assert [client.answer().body for client in clients] == [b"together"] * 4
    for client in clients:
        client.socket.close()


def test_a_request_whose_client_leaves_while_it_waits_is_never_begun(serve: Serve) -> None:
    release = threading.Event()
    began = threading.Event()
    paths: list[str] = []

    def handler(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        paths.append(environ["PATH_INFO"])
        began.set()
        release.wait(TIMEOUT)
        start_response("200 OK", [])
        return []

    server = serve(wsgi(handler), threads=1)
    with Client(server.port) as first, Client(server.port) as gone, Client(server.port) as last:
        first.start("GET", "/first")
        assert began.wait(TIMEOUT)
        gone.start("GET", "/gone")
        gone.socket.close()
        # It has been seen to leave when the server itself has answered one that came later.
        last.send("GET /%2e%2e HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert last.answer().status == 400
        release.set()
        assert first.answer().status == 200
        last.socket.close()
    with Client(server.port) as client:
        assert client.ask(target="/next").body == b"next"
    assert paths == ["/first"]


# --- the end ---


def test_a_thread_whose_client_has_left_finishes_before_the_server_stops(serve: Serve) -> None:
    release = threading.Event()
    began = threading.Event()
    shutdown = threading.Event()
    seen: list[str] = []

    def handler(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        began.set()
        release.wait(TIMEOUT)
        seen.append("finished")
        start_response("200 OK", [])
        return []

    async def lifespan(scope: Environ, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        seen.append("shutdown")
        shutdown.set()
        await send({"type": "lifespan.shutdown.complete"})

    server = serve(lifespan, mounts={"/wsgi": wsgi(handler)})
    with Client(server.port) as client:
        client.start("GET", "/wsgi")
        assert began.wait(TIMEOUT)
    server.stop()
    wait_until_refused(server.port)
    # A shutdown that does not wait for the thread comes now.
    shutdown.wait(0.3)
    release.set()
    server.close()
    assert seen == ["finished", "shutdown"]


def test_the_threads_of_a_server_end_with_it(serve: Serve) -> None:
    def handler(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return []

    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if "handler" in thread.name]

    server = serve(handler, threads=4)
    with Client(server.port) as client:
        client.ask()
    running = threads()
    assert running
    server.close()
    for thread in running:
        thread.join(TIMEOUT)
    assert threads() == []


@pytest.mark.parametrize("where", ["time.sleep(1000)", "while True: pass"])
def test_a_worker_ends_although_its_application_is_stuck(command: StartCommand, where: str) -> None:
    process = command(
        "app:app",
        "--bind=127.0.0.1:0",
        "--timeout-graceful-shutdown=0.2",
        files={
            "app.py": f"""
                import time

                def app(environ, start_response):
                    start_response("200 OK", [])
                    if environ["PATH_INFO"] == "/stuck":
                        yield b"stuck"
                        {where}
                    yield b"fine"
                """
        },
    )
    with Client(process.port) as client:
        client.start("GET", "/stuck")
        client.head()
        assert client.chunk() == b"stuck"
        process.send_signal(signal.SIGTERM)
        assert client.is_reset()
    assert process.wait() == 0
    assert "killed" not in process.text
    assert "stuck" in process.text
