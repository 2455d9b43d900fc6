"""PEP 3333, "Specification Details" and "Buffering and Streaming": what becomes of the iterable."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from conformance.clients import HTTP_2, LONG
from conformance.wsgi.apps import TEXT, Bare, Blocks, Faulty, answering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from conformance.wsgi.apps import Environ, MakeSite, StartResponse


class ByIndex:
    """What Python iterated over before it had iterators; `iter()` still does."""

    def __init__(self, blocks: list[bytes]) -> None:
        self._blocks = blocks

    def __getitem__(self, index: int) -> bytes:
        return self._blocks[index]


class OnlyIterable:
    """Has nothing that a server may not use, and fails whoever asks for more."""

    def __init__(self, blocks: list[bytes]) -> None:
        self._blocks = blocks
        self.asked_for: list[str] = []

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._blocks)

    def __len__(self) -> int:
        return len(self._blocks)

    def __getattr__(self, name: str) -> Any:
        self.asked_for.append(name)
        raise AttributeError(name)


def generator(blocks: list[bytes]) -> Iterator[bytes]:
    yield from blocks


KINDS: list[Callable[[list[bytes]], Any]] = [list, tuple, iter, generator, ByIndex, OnlyIterable]


# --- Each kind of iterable ---


RESPONSES = [
    [],
    [b""],
    [b"", b""],
    [b"one"],
    [b"", b"one"],
    [b"one", b""],
    [b"one", b"two", b"three"],
    [b"", b"one", b"", b"two", b""],
    [b"x" * 300_000, b"y" * 300_000],
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seen", ["bare", "validated"])
def test_every_iterable_is_sent_in_order_with_its_empty_blocks_left_out(
    site: MakeSite, kind: Callable[[list[bytes]], Any], seen: str
) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])
        return kind(RESPONSES[int(environ["QUERY_STRING"])])

    served = site(Bare(app) if seen == "bare" else app)
    for number, blocks in enumerate(RESPONSES):
        answer = served.ask(path=f"/?{number}")
        assert (answer.status, answer.body) == (200, b"".join(blocks))


def test_no_attribute_of_the_iterable_is_used_but_those_of_the_specification(
    site: MakeSite,
) -> None:
    """ "servers and gateways must not directly use any other attributes of the iterable"."""
    result = OnlyIterable([b"one", b"two"])

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])
        return result

    served = site(Bare(app))
    assert served.ask().body == b"onetwo"
    served.close()
    assert set(result.asked_for) <= {"close"}


def test_a_subclass_of_list_may_iterate_in_its_own_way(site: MakeSite) -> None:
    class Doubled(list[bytes]):
        def __iter__(self) -> Iterator[bytes]:
            return iter([*super().__iter__()] * 2)

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])
        return Doubled([b"one"])

    assert site(Faulty(app)).ask().body == b"oneone"


def test_the_bytes_arrive_as_they_are(site: MakeSite) -> None:
    """ "binary byte sequences: in particular, … line endings are not altered"."""
    data = bytes(range(256)) + b"\r\n0\r\n\r\n\n\r"
    assert site(answering(data, b"\n", data)).ask().body == data + b"\n" + data


@pytest.mark.parametrize("kind", KINDS)
def test_a_first_block_that_is_not_bytes_is_a_500(
    site: MakeSite, kind: Callable[[list[Any]], Any]
) -> None:
    wrong = ["text", None, 5, [b"list"]]

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])
        return kind([wrong[int(environ["QUERY_STRING"])]])

    served = site(Faulty(app))
    for number in range(len(wrong)):
        assert served.ask(path=f"/?{number}").status == 500
    assert served.log().count("TypeError") == len(wrong)


@pytest.mark.parametrize("result", [None, 5, "text", object()], ids=["None", "5", "str", "object"])
def test_what_is_no_iterable_of_bytes_is_a_500(site: MakeSite, result: Any) -> None:
    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])
        return result

    served = site(Faulty(app))
    assert served.ask().status == 500
    assert "TypeError" in served.log()


# --- No block is held back ---


@pytest.mark.parametrize("size", [1, 100, 70_000])
def test_each_block_is_on_its_way_before_the_next_is_asked_for(site: MakeSite, size: int) -> None:
    """ "servers … must not delay the transmission of any block"."""
    arrived = threading.Semaphore(0)

    def app(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [TEXT])
        for number in range(5):
            yield bytes([number]) * size
            assert arrived.acquire(timeout=LONG)

    exchange = site(app).start()
    assert exchange.head().status == 200
    for number in range(5):
        assert exchange.take(size) == bytes([number]) * size
        arrived.release()
    assert exchange.body() == b""


def test_no_block_is_held_back_where_the_length_is_known(site: MakeSite) -> None:
    arrived = threading.Semaphore(0)

    def app(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [TEXT, ("Content-Length", "6")])
        yield b"one"
        assert arrived.acquire(timeout=LONG)
        yield b"two"

    exchange = site(app).start()
    assert exchange.head().one("content-length") == "6"
    assert exchange.take(3) == b"one"
    arrived.release()
    assert exchange.body() == b"two"


def test_a_response_is_complete_for_its_client_while_close_still_works(site: MakeSite) -> None:
    """What `close()` does takes the client no time, where the length says that it has all."""
    go_on = threading.Event()

    class Slow(Blocks):
        def close(self) -> None:
            assert go_on.wait(LONG)
            super().close()

    result = Slow([b"one", b"two"])

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT, ("Content-Length", "6")])
        return result

    assert site(app).ask().body == b"onetwo"
    assert result.closed == 0
    go_on.set()
    result.wait_closed()


# --- The iterable waits for the client ---


@pytest.mark.parametrize("way", ["yield", "write"])
def test_the_application_waits_while_its_client_does_not_read(site: MakeSite, way: str) -> None:
    """Memory is bounded: what is made and not taken is in buffers of a known size."""
    block = b"x" * 65_536
    total = 512 * len(block)
    read = 0
    lead = 0
    made = 0

    def make() -> bytes:
        nonlocal made, lead
        made += len(block)
        lead = max(lead, made - read)
        return block

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [TEXT])
        if environ["PATH_INFO"] == "/other":
            return [b"other"]
        blocks = (make() for _ in range(total // len(block)))
        if way == "yield":
            return blocks
        for each in blocks:
            write(each)
        return []

    served = site(app)
    # Beside two windows, sockets buffer some MiB; HTTP/2 has a window of its own, of 64 KiB here.
    bound = 1 << 20 if served.protocol == HTTP_2 else total // 2
    exchange = served.connect(buffer=65_536).start("GET", f"{served.mount}/")
    assert exchange.head().status == 200
    for _ in range(20):
        # Others are served meanwhile, and an application that did not wait had time to end.
        assert served.ask(path="/other").body == b"other"
    assert made < bound
    while piece := exchange.piece():
        read += len(piece)
    assert (read, made) == (total, total)
    assert lead < bound


@pytest.mark.parametrize("way", ["yield", "write"])
def test_a_client_that_leaves_ends_the_iteration(site: MakeSite, way: str) -> None:
    """ "or an early disconnect of the browser": no further block is asked for; `write` raises."""
    raised: list[BaseException] = []
    done = threading.Event()

    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 65_536

    result = Blocks(endless())

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [TEXT])
        if way == "write":
            try:
                for block in endless():
                    write(block)
            except OSError as error:
                raised.append(error)
                raise
            finally:
                done.set()
        return result

    served = site(app, threads=1)
    exchange = served.start()
    assert exchange.head().status == 200
    exchange.take(1)
    exchange.leave()
    if way == "write":
        assert done.wait(LONG)
        assert [type(error) for error in raised] == [BrokenPipeError]
    else:
        result.wait_closed()


def test_a_client_that_leaves_ends_the_iteration_also_where_blocks_come_seldom(
    site: MakeSite,
) -> None:
    go_on = threading.Event()

    def blocks() -> Iterator[bytes]:
        yield b"first"
        assert go_on.wait(LONG)
        while True:
            yield b"later"

    result = Blocks(blocks())

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [TEXT])
        return result

    exchange = site(app).start()
    assert exchange.head().status == 200
    assert exchange.take(5) == b"first"
    exchange.leave()
    go_on.set()
    result.wait_closed()
    assert result.closed == 1
