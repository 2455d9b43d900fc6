"""PEP 3333, "The start_response() Callable" and "Error Handling"."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import traceback
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from conformance.clients import LONG
from conformance.sites import where_a_status_has_a_reason
from conformance.wsgi.apps import TEXT, Faulty

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from conformance.wsgi.apps import Environ, MakeSite, StartResponse


class Original(Exception):  # noqa: N818 # what an application traps
    """An error of the application's own."""


def fail() -> None:
    raise Original("original")


# --- When it is called ---


def test_start_response_may_be_called_by_the_first_iteration(site: MakeSite) -> None:
    """ "servers must not assume that start_response() has been called before they begin"."""

    def app(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("201 Created", [TEXT, ("X-App", "lazy")])
        yield b"one"
        yield b"two"

    answer = site(app).ask()
    assert (answer.status, answer.head.one("x-app"), answer.body) == (201, "lazy", b"onetwo")


def test_start_response_may_be_called_by_an_iterator_when_it_is_asked_for_a_block(
    site: MakeSite,
) -> None:
    class Lazy:
        def __init__(self, start_response: StartResponse) -> None:
            self._start_response = start_response
            self._blocks = iter([b"one", b"two"])
            self._has_started = False

        def __iter__(self) -> Iterator[bytes]:
            return self

        def __next__(self) -> bytes:
            if not self._has_started:
                self._has_started = True
                self._start_response("202 Accepted", [TEXT])
            return next(self._blocks)

    answer = site(lambda _environ, start_response: Lazy(start_response)).ask()
    assert (answer.status, answer.body) == (202, b"onetwo")


def test_start_response_may_be_called_by_a_generator_that_yields_nothing(site: MakeSite) -> None:
    def app(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("202 Accepted", [TEXT])
        yield from ()

    answer = site(app).ask()
    assert (answer.status, answer.body) == (202, b"")


@pytest.mark.parametrize("blocks", [[], [b""], [b"body"], [b"bo", b"dy"]])
def test_an_application_that_never_calls_it_gets_a_500_in_its_place(
    site: MakeSite, blocks: list[bytes]
) -> None:
    served = site(Faulty(lambda _environ, _start_response: blocks))
    assert served.ask().status == 500


def test_it_takes_its_arguments_by_position(site: MakeSite) -> None:
    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        with pytest.raises(TypeError):
            start_response()
        with pytest.raises(TypeError):
            start_response("200 OK")
        with pytest.raises(TypeError):
            start_response(status="200 OK", response_headers=[TEXT])
        with pytest.raises(TypeError):
            start_response("200 OK", [TEXT], None, None)
        start_response("200 OK", [TEXT], None)
        return [b"body"]

    assert site(Faulty(app)).ask().body == b"body"


def test_it_returns_the_write_callable(site: MakeSite) -> None:
    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        assert callable(start_response("200 OK", [TEXT]))
        return [b"body"]

    assert site(app).ask().body == b"body"


# --- The head waits ---


def test_the_head_is_not_sent_before_there_is_a_block_that_is_not_empty(site: MakeSite) -> None:
    """ "only after the first iteration … that yields a non-empty bytestring"."""

    def app(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [TEXT, ("X-App", "first"), ("X-First", "1")])
        yield b""
        yield b""
        try:
            fail()
        except Original:
            start_response("502 Changed", [TEXT, ("X-App", "second")], sys.exc_info())
        yield b""
        yield b"body"

    answer = site(app).ask()
    assert (answer.status, answer.body) == (502, b"body")
    assert answer.head.one("x-app") == "second"
    assert answer.head.one("x-first") is None


@where_a_status_has_a_reason
def test_a_reason_is_replaced_with_its_status(site: MakeSite) -> None:
    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 Fine", [TEXT])
        try:
            fail()
        except Original:
            start_response("500 Not So Fine", [TEXT], sys.exc_info())
        return [b"body"]

    assert site(app).ask().head.reason == "Not So Fine"


def test_an_error_before_the_first_block_is_a_500_and_not_the_head_that_was_stored(
    site: MakeSite,
) -> None:
    def app(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [TEXT, ("X-App", "stored"), ("Content-Length", "4")])
        yield b""
        fail()
        yield b"body"

    answer = site(app).ask()
    assert (answer.status, answer.head.one("x-app")) == (500, None)


def test_the_head_leaves_with_the_first_block_and_does_not_wait_for_the_second(
    site: MakeSite,
) -> None:
    go_on = threading.Event()

    def app(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [TEXT])
        yield b"first"
        go_on.wait(LONG)
        yield b"second"

    exchange = site(app).start()
    assert exchange.head().status == 200
    assert exchange.take(5) == b"first"
    go_on.set()
    assert exchange.body() == b"second"


def test_the_head_leaves_at_the_end_of_an_iterable_without_blocks(site: MakeSite) -> None:
    """ "or until the application's returned iterable is exhausted"."""

    def app(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [TEXT])
        yield b""
        try:
            fail()
        except Original:
            start_response("404 Changed", [TEXT], sys.exc_info())
        yield b""

    answer = site(app).ask()
    assert (answer.status, answer.body) == (404, b"")


# --- A second call ---


@pytest.mark.parametrize(
    "first", [("200 OK", [TEXT]), ("nonsense", [TEXT]), ("200 OK", None)], ids=repr
)
@pytest.mark.parametrize("exc_info", [(), (None,)], ids=["without", "None"])
def test_a_second_call_without_exc_info_is_an_error_also_when_the_first_raised(
    site: MakeSite, first: tuple[Any, Any], exc_info: tuple[None, ...]
) -> None:
    """ "This includes the case where the first call to start_response raised an error."."""
    raised: list[BaseException] = []

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        with contextlib.suppress(TypeError, ValueError):
            start_response(*first)
        try:
            start_response("200 OK", [TEXT], *exc_info)
        except Exception as error:
            raised.append(error)
            raise
        return [b"body"]

    assert site(Faulty(app)).ask().status == 500
    assert [type(error) for error in raised] == [AssertionError]


def test_a_second_call_with_exc_info_replaces_what_is_stored(site: MakeSite) -> None:
    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT, ("X-First", "1"), ("Content-Length", "1000")])
        try:
            fail()
        except Original:
            start_response("500 Oops", [TEXT, ("X-Second", "2")], sys.exc_info())
            return [b"error body goes here"]
        return [b"never"]

    answer = site(app).ask()
    assert (answer.status, answer.body) == (500, b"error body goes here")
    assert (answer.head.one("x-first"), answer.head.one("x-second")) == (None, "2")


def test_an_application_may_change_its_mind_more_than_once(site: MakeSite) -> None:
    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        for status in ("200 OK", "500 Once", "503 Twice"):
            try:
                fail()
            except Original:  # noqa: PERF203 # that is the case
                start_response(status, [TEXT], sys.exc_info())
        return [b"body"]

    assert site(app).ask().status == 503


def test_exc_info_mends_a_first_call_that_raised(site: MakeSite) -> None:
    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            start_response("200 OK", [TEXT, ("X-App", "a\nb")])
        except ValueError:
            start_response("500 Mended", [TEXT], sys.exc_info())
        return [b"mended"]

    answer = site(Faulty(app)).ask()
    assert (answer.status, answer.body) == (500, b"mended")


@pytest.mark.parametrize("through", ["block", "write"])
def test_after_the_head_it_raises_the_error_that_it_is_given(site: MakeSite, through: str) -> None:
    """`raise exc_info[1].with_traceback(exc_info[2])`: the same error, from the same place."""
    raised: list[tuple[BaseException, BaseException]] = []
    go_on = threading.Event()

    def late(start_response: StartResponse) -> None:
        go_on.wait(LONG)
        try:
            fail()
        except Original as original:
            try:
                start_response("500 Late", [TEXT], sys.exc_info())
            except BaseException as error:
                raised.append((original, error))
                raise

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [TEXT])
        if through == "write":
            write(b"begun")
            late(start_response)
        return blocks(start_response)

    def blocks(start_response: StartResponse) -> Iterator[bytes]:
        yield b"begun"
        late(start_response)

    exchange = site(app).start()
    assert exchange.head().status == 200
    assert exchange.take(5) == b"begun"
    go_on.set()
    assert exchange.breaks()
    [(original, error)] = raised
    assert error is original
    functions = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert functions[-1] == "fail"


def test_no_reference_to_exc_info_is_kept(site: MakeSite) -> None:
    """ "to avoid creating a circular reference through the traceback and frames involved"."""
    gone = threading.Event()

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            fail()
        except Original as error:
            weakref.finalize(error, gone.set)
            start_response("500 Oops", [TEXT], sys.exc_info())
        return [b"body"]

    served = site(app)
    gc.disable()
    try:
        assert served.ask().status == 500
        assert gone.wait(LONG)
    finally:
        gc.enable()
