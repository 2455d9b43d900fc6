"""PEP 3333, "Optional Platform-Specific File Handling": `wsgi.file_wrapper`."""

from __future__ import annotations

import io
import os
import tempfile
import threading
from typing import TYPE_CHECKING, Any

import pytest
from conformance.wsgi.apps import TEXT, Bare
from conformance.wsgi.clients import LONG, Broken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from conformance.wsgi.apps import Environ, StartResponse
    from conformance.wsgi.sites import MakeSite

CONTENT = b"".join(b"%06d\r\n" % number for number in range(40_000))


class Closing:
    """Counts how often a file is closed."""

    closed_times = 0


class File(io.FileIO, Closing):
    """A file on disk."""

    def close(self) -> None:
        if not self.closed:
            self.closed_times += 1
        super().close()


class OnlyRead(Closing):
    """The least that is file-like: `read` with an optional size."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)
        self.sizes: list[int] = []

    def read(self, size: int = -1) -> bytes:
        self.sizes.append(size)
        return self._file.read(size)


class Memory(OnlyRead):
    def close(self) -> None:
        self.closed_times += 1


class NoDescriptor(Memory):
    """Has `fileno`, as `BytesIO` does, and cannot say it."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


class Liar(Memory):
    """Has the descriptor of another file, as compressing files do."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._other = tempfile.TemporaryFile()  # noqa: SIM115 # closed with this
        self._other.write(b"compressed")

    def fileno(self) -> int:
        return self._other.fileno()

    def close(self) -> None:
        super().close()
        self._other.close()


def on_disk(content: bytes) -> Any:
    descriptor, path = tempfile.mkstemp()
    os.write(descriptor, content)
    os.close(descriptor)
    file = File(path)
    os.unlink(path)  # noqa: PTH108 # it lives on as long as it is open
    return file


KINDS: dict[str, Callable[[bytes], Any]] = {
    "disk": on_disk,
    "buffered": lambda content: io.BufferedReader(on_disk(content)),
    "bytesio": io.BytesIO,
    "only-read": OnlyRead,
    "memory": Memory,
    "no-descriptor": NoDescriptor,
    "liar": Liar,
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)

SEEN = pytest.mark.parametrize("seen", ["bare", "validated"])
"""The validator iterates the wrapper as any middleware would; bare, the server gets it back."""


def wrapping(
    file: Any, *arguments: int, headers: Iterable[tuple[str, str]] = (TEXT,)
) -> Callable[[Environ, StartResponse], Iterable[bytes]]:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", list(headers))
        wrapper: Iterable[bytes] = environ["wsgi.file_wrapper"](file, *arguments)
        return wrapper

    return app


@kinds
@SEEN
def test_a_file_is_sent_to_its_end(site: MakeSite, kind: Callable[[bytes], Any], seen: str) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        arguments = [int(size) for size in environ["QUERY_STRING"].split()]
        return wrapping(kind(CONTENT), *arguments)(environ, start_response)

    served = site(Bare(app) if seen == "bare" else app)
    for block_size in ("", "1000", "1000000"):
        answer = served.ask(path=f"/?{block_size}")
        assert (answer.status, answer.body) == (200, CONTENT)
        assert answer.head.one("content-length") in {None, str(len(CONTENT))}


@kinds
@SEEN
def test_an_empty_file_is_an_empty_body(
    site: MakeSite, kind: Callable[[bytes], Any], seen: str
) -> None:
    app = wrapping(kind(b""))
    answer = site(Bare(app) if seen == "bare" else app).ask()
    assert (answer.status, answer.body) == (200, b"")


@kinds
@SEEN
def test_sending_begins_where_the_file_stands(
    site: MakeSite, kind: Callable[[bytes], Any], seen: str
) -> None:
    """ "at the current position within the "file" at the time that transmission begins"."""
    file = kind(CONTENT)
    app = wrapping(file)
    served = site(Bare(app) if seen == "bare" else app)
    # After the wrapper could have been made, as far as the server knows.
    assert file.read(1003) == CONTENT[:1003]
    assert served.ask().body == CONTENT[1003:]


@SEEN
def test_the_position_may_change_between_the_wrapper_and_its_return(
    site: MakeSite, seen: str
) -> None:
    """ "must not perform any data transmission until … actually receives the iterable"."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        file = on_disk(CONTENT)
        wrapper: Iterable[bytes] = environ["wsgi.file_wrapper"](file)
        file.seek(-10, os.SEEK_END)
        start_response("200 OK", [TEXT])
        return wrapper

    assert site(Bare(app) if seen == "bare" else app).ask().body == CONTENT[-10:]


@kinds
@SEEN
def test_no_more_is_sent_than_the_content_length(
    site: MakeSite, kind: Callable[[bytes], Any], seen: str
) -> None:
    """ "or until Content-Length bytes have been written"; so a range is a position and a length."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        headers = [TEXT, ("Content-Length", environ["QUERY_STRING"])]
        return wrapping(kind(CONTENT), headers=headers)(environ, start_response)

    served = site(Bare(app) if seen == "bare" else app)
    for length in (0, 1, 5000, len(CONTENT) - 1, len(CONTENT)):
        answer = served.ask(path=f"/?{length}")
        assert answer.head.one("content-length") == str(length)
        assert answer.body == CONTENT[:length]


@kinds
@SEEN
def test_a_file_shorter_than_its_content_length_does_not_look_complete(
    site: MakeSite, kind: Callable[[bytes], Any], seen: str
) -> None:
    app = wrapping(kind(CONTENT), headers=[TEXT, ("Content-Length", str(len(CONTENT) + 1))])
    served = site(Bare(app) if seen == "bare" else app)
    exchange = served.start()
    try:
        answer = exchange.answer()
    except Broken:
        return
    assert answer.status == 500


@kinds
@SEEN
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_file_is_closed_once(
    site: MakeSite, kind: Callable[[bytes], Any], seen: str, method: str
) -> None:
    """ "must have a close() method that invokes the original file-like object's close()"."""
    file = kind(CONTENT)
    app = wrapping(file)
    served = site(Bare(app) if seen == "bare" else app)
    assert served.ask(method).body == (CONTENT if method == "GET" else b"")
    served.close()
    if isinstance(file, io.IOBase):
        assert file.closed
    else:
        assert file.closed_times == hasattr(file, "close")


@SEEN
def test_the_file_is_closed_when_the_client_leaves(site: MakeSite, seen: str) -> None:
    closed = threading.Event()

    class Endless:
        def read(self, size: int = -1) -> bytes:
            return b"x" * min(size, 65_536)

        def close(self) -> None:
            closed.set()

    app = wrapping(Endless())
    exchange = site(Bare(app) if seen == "bare" else app).start()
    assert exchange.head().status == 200
    exchange.take(1)
    exchange.leave()
    assert closed.wait(LONG)


@SEEN
def test_a_file_that_cannot_be_read_aborts_the_response(site: MakeSite, seen: str) -> None:
    class Failing:
        def __init__(self) -> None:
            self.reads = 0

        def read(self, size: int = -1) -> bytes:
            self.reads += 1
            if self.reads > 3:
                raise OSError("the disk is gone")
            return b"x" * size

    app = wrapping(Failing())
    served = site(Bare(app) if seen == "bare" else app)
    assert served.breaks()
    served.close()
    assert "the disk is gone" in served.log()


def test_a_wrapper_may_be_made_and_not_used(site: MakeSite) -> None:
    """ "it is not guaranteed that any wrapper created will actually be used"."""
    file = Memory(CONTENT)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.file_wrapper"](file)
        start_response("200 OK", [TEXT])
        return [b"something else"]

    assert site(app).ask().body == b"something else"
    assert file.sizes == []


def test_the_wrapper_is_an_iterable_that_middleware_may_change(site: MakeSite) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [TEXT])
        wrapper = environ["wsgi.file_wrapper"](Memory(b"one two three"), 4)
        try:
            for block in wrapper:
                yield block.upper()
        finally:
            wrapper.close()

    assert site(app).ask().body == b"ONE TWO THREE"


def test_the_block_size_is_a_suggestion_for_files_that_are_not_on_disk(site: MakeSite) -> None:
    """ "an optional block size "suggestion" (which the server/gateway need not use)"."""
    file = Memory(b"x" * 100)
    assert site(Bare(wrapping(file, 7))).ask().body == b"x" * 100
    assert all(0 < size <= 1 << 20 for size in file.sizes)


def test_a_text_file_is_refused_before_anything_is_sent(site: MakeSite, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("text", encoding="utf-8")
    with path.open(encoding="utf-8") as file:
        served = site(Bare(wrapping(file)))
        assert served.ask().status == 500
        assert "binary" in served.log()
