"""A response that broke never looks complete, and only its own request pays for it.

PEP 3333, "Error Handling": "can then trap this (fatal) exception and abort the response".
RFC 9112 §8 and RFC 9113 §8.1 say how a client can tell.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from conformance.clients import LONG, Broken
from conformance.sites import where_a_connection_has_many_streams
from conformance.wsgi.apps import TEXT, Faulty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from conformance.wsgi.apps import Environ, MakeSite, StartResponse


class Odd(BaseException):
    """What nobody expects."""


def raises(error: type[BaseException]) -> Callable[[], Any]:
    def end() -> Any:
        raise error("mid-stream")

    return end


ENDINGS: dict[str, Callable[[], Any]] = {
    "Exception": raises(ValueError),
    "OSError": raises(OSError),
    "SystemExit": raises(SystemExit),
    "KeyboardInterrupt": raises(KeyboardInterrupt),
    "GeneratorExit": raises(GeneratorExit),
    "BaseException": raises(Odd),
    "str": lambda: "text",
    "None": lambda: None,
}

HEADERS = {"untold": [TEXT], "length": [TEXT, ("Content-Length", "100")]}


class Gate:
    """An application whose response breaks when the test has seen its beginning."""

    def __init__(self, ending: Callable[[], Any], headers: list[tuple[str, str]]) -> None:
        self.ending = ending
        self.headers = headers
        self.go_on = threading.Event()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterator[Any]:
        if environ["PATH_INFO"] == "/next":
            start_response("200 OK", [TEXT])
            yield b"next"
            return
        start_response("200 OK", self.headers)
        yield b"begun"
        assert self.go_on.wait(LONG)
        yield self.ending()


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
def test_a_response_that_breaks_is_aborted_and_does_not_end(
    site: MakeSite, headers: list[tuple[str, str]]
) -> None:
    gate = Gate(lambda: None, headers)
    served = site(Faulty(gate), threads=1)
    for ending in ENDINGS.values():
        gate.ending = ending
        gate.go_on.clear()
        exchange = served.start()
        assert exchange.head().status == 200
        assert exchange.take(5) == b"begun"
        gate.go_on.set()
        with pytest.raises(Broken, match="was reset"):
            exchange.body()
        # The thread lives on.
        assert served.ask(path="/next").body == b"next"


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
def test_an_error_after_write_aborts_the_response(
    site: MakeSite, headers: list[tuple[str, str]]
) -> None:
    go_on = threading.Event()

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", headers)(b"begun")
        assert go_on.wait(LONG)
        raise ValueError("after write")

    served = site(app)
    exchange = served.start()
    assert exchange.head().status == 200
    assert exchange.take(5) == b"begun"
    go_on.set()
    with pytest.raises(Broken, match="was reset"):
        exchange.body()
    assert "after write" in served.log()


def test_a_response_that_ends_before_its_length_is_aborted(site: MakeSite) -> None:
    """ "if the application does not provide enough data … close the connection and log"."""
    go_on = threading.Event()

    def app(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [TEXT, ("Content-Length", "100")])
        yield b"begun"
        assert go_on.wait(LONG)
        yield b" and too short"

    served = site(app)
    exchange = served.start()
    assert exchange.head().status == 200
    assert exchange.take(5) == b"begun"
    go_on.set()
    with pytest.raises(Broken, match="was reset"):
        exchange.body()


def test_what_was_sent_before_the_error_is_not_lost_where_the_client_read_it(
    site: MakeSite,
) -> None:
    gate = Gate(raises(ValueError), [TEXT])
    exchange = site(gate).start()
    assert exchange.head().status == 200
    assert exchange.take(5) == b"begun"
    gate.go_on.set()
    assert exchange.breaks()


@where_a_connection_has_many_streams
def test_the_other_streams_of_the_connection_live_on(site: MakeSite) -> None:
    """RFC 9113 §5.4.2: an error of one stream does not concern the others."""
    failing = Gate(raises(ValueError), [TEXT])
    other_may_end = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[Any]:
        if environ["PATH_INFO"] != "/other":
            return failing(environ, start_response)

        def other() -> Iterator[bytes]:
            start_response("200 OK", [TEXT])
            yield b"first "
            assert other_may_end.wait(LONG)
            yield b"second"

        return other()

    served = site(app, threads=4)
    connection = served.connect()
    other = connection.start("GET", f"{served.mount}/other")
    broken = connection.start("GET", f"{served.mount}/")
    assert other.head().status == 200
    assert broken.head().status == 200
    assert broken.take(5) == b"begun"
    failing.go_on.set()
    with pytest.raises(Broken, match=r"stream was reset: .*INTERNAL_ERROR"):
        broken.body()
    other_may_end.set()
    assert other.body() == b"first second"
    assert connection.ask("GET", f"{served.mount}/next").body == b"next"


def test_an_error_before_the_head_leaves_the_connection_open(site: MakeSite) -> None:
    """A 500 is a response like others: what follows on the connection is answered."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/next":
            start_response("200 OK", [TEXT, ("Content-Length", "4")])
            return [b"next"]
        raise ValueError("before the head")

    served = site(app)
    connection = served.connect()
    for _ in range(2):
        assert connection.ask("GET", f"{served.mount}/").status == 500
        assert connection.ask("GET", f"{served.mount}/next").body == b"next"


def test_the_client_is_told_nothing_of_the_error(site: MakeSite) -> None:
    def app(_environ: Environ, _start_response: StartResponse) -> Iterable[bytes]:
        raise ValueError("a secret")

    served = site(app)
    answer = served.ask()
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert "a secret" in served.log()


def test_an_error_is_logged_once_with_its_traceback(site: MakeSite) -> None:
    """ "Servers should trap and log any exception that aborts an application"."""

    def app(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [TEXT])
        yield b"begun"
        raise ValueError("in the second step")

    served = site(app)
    assert served.breaks()
    served.close()
    log = served.log()
    assert log.count("ValueError: in the second step") == 1
    assert "Traceback (most recent call last)" in log
    assert "test_aborts.py" in log
