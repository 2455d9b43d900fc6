"""PEP 3333, "Specification Details": `close()` is called when the request is complete."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from conformance.clients import LONG
from conformance.wsgi.apps import TEXT, Bare, Blocks, Faulty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from conformance.wsgi.apps import Environ, MakeSite, StartResponse


class Odd(BaseException):
    """What nobody expects."""


ENDINGS = [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, Odd]


class Making:
    """An application that answers each request with the next of its results."""

    def __init__(self, make: Callable[[], Blocks], status: str = "200 OK") -> None:
        self.make = make
        self.status = status
        self.made: list[Blocks] = []

    def __call__(self, _environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(self.status, [] if self.status[:3] in {"204", "304"} else [TEXT])
        self.made.append(self.make())
        return self.made[-1]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified"])
def test_a_response_is_closed_once_whatever_becomes_of_its_body(
    site: MakeSite, method: str, status: str
) -> None:
    results = iter([Blocks(blocks) for blocks in ([], [b""], [b"one"], [b"one", b"two"])])
    making = Making(lambda: next(results), status)
    served = site(making)
    for _ in range(4):
        assert served.ask(method).status == int(status[:3])
    served.close()
    assert [result.closed for result in making.made] == [1] * 4


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_response_whose_iteration_raises_is_closed_once(
    site: MakeSite, ending: type[BaseException]
) -> None:
    def raising(before: list[bytes]) -> Iterator[bytes]:
        yield from before
        raise ending

    befores = [[], [b""], [b"begun"], [b"begun", b"and on"]]
    results = iter([Blocks(raising(before)) for before in befores])
    making = Making(lambda: next(results))
    served = site(making)
    for before in befores:
        if any(before):
            assert served.breaks()
        else:
            assert served.ask().status == 500
    served.close()
    assert [result.closed for result in making.made] == [1] * 4


@pytest.mark.parametrize("blocks", [["text"], [b"begun", "text"], [None]], ids=repr)
def test_a_response_with_a_block_that_is_not_bytes_is_closed_once(
    site: MakeSite, blocks: list[Any]
) -> None:
    result = Blocks(blocks)

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])
        return result

    served = site(Faulty(app))
    served.breaks()
    served.close()
    assert result.closed == 1


def test_a_response_whose_iterator_cannot_be_made_is_closed_once(site: MakeSite) -> None:
    class Unwilling(Blocks):
        def __iter__(self) -> Iterator[bytes]:
            raise ValueError("unwilling")

    result = Unwilling([])

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])
        return result

    served = site(Bare(app))
    assert served.ask().status == 500
    served.close()
    assert result.closed == 1


@pytest.mark.parametrize("blocks", [[], [b"body"]], ids=repr)
def test_a_response_without_a_head_is_closed_once(site: MakeSite, blocks: list[bytes]) -> None:
    result = Blocks(blocks)
    served = site(Faulty(lambda _environ, _start_response: result))
    assert served.ask().status == 500
    served.close()
    assert result.closed == 1


@pytest.mark.parametrize("length", ["3", "100"], ids=["longer", "shorter"])
def test_a_response_with_a_wrong_length_is_closed_once(site: MakeSite, length: str) -> None:
    result = Blocks([b"one", b"two", b"three"])

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT, ("Content-Length", length)])
        return result

    served = site(app)
    served.breaks()
    served.close()
    assert result.closed == 1


def test_a_response_without_end_is_closed_when_head_was_asked_for(site: MakeSite) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 1000

    making = Making(lambda: Blocks(endless()))
    served = site(making)
    assert served.ask("HEAD").status == 200
    served.close()
    assert [result.closed for result in making.made] == [1]


@pytest.mark.parametrize("when", ["before the head", "within the body"])
def test_a_response_whose_client_leaves_is_closed_once(site: MakeSite, when: str) -> None:
    began = threading.Event()
    go_on = threading.Event()

    def blocks() -> Iterator[bytes]:
        yield b"begun"
        if when == "within the body":
            assert go_on.wait(LONG)
        while True:
            yield b"x" * 65_536

    result = Blocks(blocks())

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])
        began.set()
        if when == "before the head":
            assert go_on.wait(LONG)
        return result

    served = site(app)
    exchange = served.start()
    assert began.wait(LONG)
    if when == "within the body":
        assert exchange.head().status == 200
        assert exchange.take(5) == b"begun"
    exchange.leave()
    go_on.set()
    result.wait_closed()
    served.close()
    assert result.closed == 1


def test_close_is_called_when_everything_has_been_asked_for_and_not_before(site: MakeSite) -> None:
    order: list[str] = []

    class Ordered(Blocks):
        def __next__(self) -> bytes:
            try:
                block = super().__next__()
            except StopIteration:
                order.append("end")
                raise
            order.append(block.decode())
            return block

        def close(self) -> None:
            order.append("close")
            super().close()

    served = site(Making(lambda: Ordered([b"one", b"", b"two"])))
    assert served.ask().body == b"onetwo"
    served.close()
    assert order == ["one", "", "two", "end", "close"]


def test_a_generator_is_closed_where_it_stands(site: MakeSite) -> None:
    """PEP 3333 on `close()`: "intended to complement PEP 342's generator support"."""
    ended: list[type[BaseException]] = []
    done = threading.Event()

    def app(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [TEXT])
        try:
            while True:
                yield b"x" * 65_536
        except BaseException as error:
            ended.append(type(error))
            raise
        finally:
            done.set()

    exchange = site(app).start()
    assert exchange.head().status == 200
    exchange.take(1)
    exchange.leave()
    assert done.wait(LONG)
    assert ended == [GeneratorExit]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_close_that_raises_costs_nothing_but_a_line_in_the_log(
    site: MakeSite, ending: type[BaseException]
) -> None:
    class Raising(Blocks):
        def close(self) -> None:
            super().close()
            raise ending("from close")

    results: list[Raising] = []

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT, ("Content-Length", "6")])
        results.append(Raising([b"one", b"two"]))
        return results[-1]

    served = site(app, threads=1)
    for _ in range(2):
        assert served.ask().body == b"onetwo"
    served.close()
    assert [result.closed for result in results] == [1, 1]
    assert served.log().count("from close") >= 2


def test_the_iterable_is_closed_and_not_the_iterator_that_it_gave(site: MakeSite) -> None:
    inner = Blocks([b"one", b"two"])

    class Outer(Blocks):
        def __iter__(self) -> Iterator[bytes]:
            return inner

    outer = Outer([])

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])
        return outer

    served = site(Bare(app))
    assert served.ask().body == b"onetwo"
    served.close()
    assert (outer.closed, inner.closed) == (1, 0)


def test_an_iterable_without_close_needs_none(site: MakeSite) -> None:
    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])
        return iter([b"one", b"two"])

    served = site(Bare(app))
    assert served.ask().body == b"onetwo"
    served.close()
    assert "rror" not in served.log()


@pytest.mark.parametrize("ending", ENDINGS)
def test_there_is_nothing_to_close_where_the_application_itself_raised(
    site: MakeSite, ending: type[BaseException]
) -> None:
    served = site(Faulty(raising(ending)), threads=1)
    assert [served.ask().status for _ in range(2)] == [500, 500]


def raising(ending: type[BaseException]) -> Any:
    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])
        raise ending("from the application")

    return app
