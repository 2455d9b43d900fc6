"""PEP 3333, "Optional Platform-Specific File Handling": `wsgi.file_wrapper`."""

from __future__ import annotations

import io
import os
import tempfile
import threading
from typing import TYPE_CHECKING, Any

import pytest
from conformance.clients import LONG, Broken
from conformance.wsgi.apps import TEXT, Bare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from conformance.wsgi.apps import Environ, MakeSite, StartResponse

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
SEEN = pytest.mark.parametrize("seen", ["bare", "validated"])
"""The validator iterates the wrapper as any middleware would; bare, the server gets it back."""


class Files:
    """An application that wraps a file of the kind that the path names, and keeps it."""

    def __init__(
        self,
        content: bytes,
        *,
        headers: Callable[[str], list[tuple[str, str]]] = lambda _query: [TEXT],
        skip: int = 0,
    ) -> None:
        self.content = content
        self.headers = headers
        self.skip = skip
        self.files: list[Any] = []

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        file = KINDS[environ["PATH_INFO"][1:]](self.content)
        self.files.append(file)
        start_response("200 OK", self.headers(environ["QUERY_STRING"]))
        wrapper: Iterable[bytes] = environ["wsgi.file_wrapper"](file)
        file.read(self.skip)
        return wrapper


def wrapping(
    file: Any, *arguments: int, headers: Iterable[tuple[str, str]] = (TEXT,)
) -> Callable[[Environ, StartResponse], Iterable[bytes]]:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", list(headers))
        wrapper: Iterable[bytes] = environ["wsgi.file_wrapper"](file, *arguments)
        return wrapper

    return app


@SEEN
@pytest.mark.parametrize("content", [CONTENT, b"short", b""], ids=["long", "short", "empty"])
def test_a_file_is_sent_to_its_end(site: MakeSite, seen: str, content: bytes) -> None:
    files = Files(content)
    served = site(Bare(files) if seen == "bare" else files)
    for kind in KINDS:
        answer = served.ask(path=f"/{kind}")
        assert (answer.status, answer.body) == (200, content), kind
        assert answer.head.one("content-length") in {None, str(len(content))}


@SEEN
@pytest.mark.parametrize("kind", KINDS)
def test_the_block_size_changes_nothing_of_what_is_sent(
    site: MakeSite, seen: str, kind: str
) -> None:
    """ "an optional block size "suggestion" (which the server/gateway need not use)"."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        block_size = int(environ["QUERY_STRING"])
        return wrapping(KINDS[kind](CONTENT), block_size)(environ, start_response)

    served = site(Bare(app) if seen == "bare" else app)
    for block_size in (1000, 1_000_000):
        assert served.ask(path=f"/?{block_size}").body == CONTENT


@SEEN
def test_sending_begins_where_the_file_stands(site: MakeSite, seen: str) -> None:
    """ "at the current position within the "file" at the time that transmission begins"."""
    files = Files(CONTENT, skip=1003)
    served = site(Bare(files) if seen == "bare" else files)
    for kind in KINDS:
        assert served.ask(path=f"/{kind}").body == CONTENT[1003:], kind


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


@SEEN
def test_no_more_is_sent_than_the_content_length(site: MakeSite, seen: str) -> None:
    """ "or until Content-Length bytes have been written"; so a range is a position and a length."""
    files = Files(CONTENT, headers=lambda query: [TEXT, ("Content-Length", query)])
    served = site(Bare(files) if seen == "bare" else files)
    for kind in KINDS:
        for length in (0, 1, 5000, len(CONTENT) - 1, len(CONTENT)):
            answer = served.ask(path=f"/{kind}?{length}")
            assert answer.head.one("content-length") == str(length)
            assert answer.body == CONTENT[:length], kind


@SEEN
def test_a_file_shorter_than_its_content_length_does_not_look_complete(
    site: MakeSite, seen: str
) -> None:
    length = str(len(CONTENT) + 1)
    files = Files(CONTENT, headers=lambda _query: [TEXT, ("Content-Length", length)])
    served = site(Bare(files) if seen == "bare" else files)
    for kind in KINDS:
        exchange = served.start(path=f"/{kind}")
        try:
            answer = exchange.answer()
        except Broken:
            continue
        # Where the length of the file is known, nothing was sent.
        assert answer.status == 500, kind


@SEEN
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_file_is_closed_once(site: MakeSite, seen: str, method: str) -> None:
    """ "must have a close() method that invokes the original file-like object's close()"."""
    files = Files(CONTENT)
    served = site(Bare(files) if seen == "bare" else files)
    for kind in KINDS:
        assert served.ask(method, f"/{kind}").body == (CONTENT if method == "GET" else b"")
    served.close()
    assert len(files.files) == len(KINDS)
    for file in files.files:
        if isinstance(file, Closing):
            assert file.closed_times == hasattr(file, "close"), file
        else:
            assert file.closed, file


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


def test_a_text_file_is_refused_before_anything_is_sent(site: MakeSite, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("text", encoding="utf-8")
    with path.open(encoding="utf-8") as file:
        served = site(Bare(wrapping(file)))
        assert served.ask().status == 500
        assert "binary" in served.log()
