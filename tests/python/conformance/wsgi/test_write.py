"""PEP 3333, "The write() Callable"."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from conformance.clients import LONG
from conformance.wsgi.apps import TEXT, Bare, Blocks, Faulty

if TYPE_CHECKING:
    from collections.abc import Iterable

    from conformance.wsgi.apps import Environ, MakeSite, StartResponse


@pytest.mark.parametrize("rest", [[], [b""], [b"3"], [b"3", b"4"]], ids=repr)
@pytest.mark.parametrize("kind", [list, iter])
def test_what_is_written_comes_before_what_is_returned(
    site: MakeSite, rest: list[bytes], kind: Any
) -> None:
    """ "yielded by the iterable are transmitted after all bytestrings passed to write()"."""

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [TEXT])
        write(b"1")
        write(b"2")
        return kind(rest)

    assert site(app).ask().body == b"12" + b"".join(rest)


def test_a_single_returned_block_after_write_is_not_taken_for_the_whole_body(
    site: MakeSite,
) -> None:
    """ "If the application does *not* call the write() callable, and … len() is 1"."""

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])(b"written")
        return [b" returned"]

    answer = site(Bare(app)).ask()
    assert answer.body == b"written returned"
    assert answer.head.one("content-length") is None


def test_what_is_written_is_on_its_way_while_the_application_goes_on(site: MakeSite) -> None:
    go_on = threading.Event()

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [TEXT])
        write(b"first")
        go_on.wait(LONG)
        write(b"second")
        return []

    exchange = site(app).start()
    assert exchange.head().status == 200
    assert exchange.take(5) == b"first"
    go_on.set()
    assert exchange.body() == b"second"


def test_writing_nothing_sends_no_head(site: MakeSite) -> None:
    """The head may still change, as after an empty block."""

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [TEXT])
        write(b"")
        raise ValueError("later")

    assert site(app).ask().status == 500


def test_write_returns_nothing_and_takes_one_argument(site: MakeSite) -> None:
    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write: Any = start_response("200 OK", [TEXT])
        assert write(b"body") is None
        with pytest.raises(TypeError):
            write()
        with pytest.raises(TypeError):
            write(b"a", b"b")
        return []

    assert site(Faulty(app)).ask().body == b"body"


@pytest.mark.parametrize("data", ["text", None, 5, [b"list"]], ids=repr)
def test_what_is_not_bytes_cannot_be_written(site: MakeSite, data: Any) -> None:
    """PEP 3333, "Unicode Issues": bytestrings are of type `bytes`."""
    raised: list[type[BaseException]] = []

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [TEXT])
        try:
            write(data)
        except Exception as error:
            raised.append(type(error))
            raise
        return []

    assert site(Faulty(app)).ask().status == 500
    assert raised == [TypeError]


def test_an_application_that_only_writes_may_return_an_empty_iterable(site: MakeSite) -> None:
    result = Blocks([])

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])(b"body")
        return result

    assert site(app).ask().body == b"body"
    result.wait_closed()
    assert result.closed == 1


def test_each_line_end_and_each_byte_is_written_as_it_is(site: MakeSite) -> None:
    data = bytes(range(256)) + b"\n\r\n\r"

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])(data)
        return []

    assert site(app).ask().body == data
