"""`wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling")."""

from __future__ import annotations

import gzip
import io
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
from adapters.raw import Client
from flask import Flask, send_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flask.typing import ResponseReturnValue
    from support import Serve, StartCommand

    Environ = dict[str, Any]
    StartResponse = Callable[..., Callable[[bytes], object]]
    Open = Callable[[Path], Any]

TIMEOUT = 20.0
CONTENT = bytes(range(256)) * 1024
"""More than is read at a time."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def app(
    make: Callable[[], Any], *headers: tuple[str, str], status: str = "200 OK"
) -> Callable[..., Iterable[bytes]]:
    """Answers with what `make` opens; `/next` with `next`."""

    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/next":
            start_response("200 OK", [])
            return [b"next"]
        start_response(status, list(headers))
        return environ["wsgi.file_wrapper"](make())

    return application


class Reading:
    """A file that is not one on disk, and tells what was done with it."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)
        self.asked: list[int] = []
        self.closed = threading.Event()
        self.times_closed = 0

    def read(self, size: int) -> bytes:
        self.asked.append(size)
        return self._content.read(size)

    def close(self) -> None:
        self.times_closed += 1
        self.closed.set()


def at_100(path: Path) -> Any:
    file = path.open("rb")
    file.seek(100)
    return file


def read_100(path: Path) -> Any:
    file = path.open("rb")
    assert len(file.read(100)) == 100
    return file


def written(_path: Path) -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(CONTENT)
    file.seek(100)
    file.write(CONTENT[100:110])
    file.seek(100)
    return file


def unbuffered(path: Path) -> Any:
    file = path.open("rb", buffering=0)
    file.seek(100)
    return file


ON_DISK: list[Open] = [at_100, read_100, written, unbuffered]


@pytest.mark.parametrize("open_file", ON_DISK)
def test_a_file_on_disk_is_sent_from_its_position_with_its_length(
    serve: Serve, path: Path, open_file: Open
) -> None:
    files: list[Any] = []

    def make() -> Any:
        files.append(open_file(path))
        return files[-1]

    server = serve(app(make))
    with Client(server.port) as client:
        answer = client.ask()
        assert answer.body == CONTENT[100:]
        assert answer.header("content-length") == str(len(CONTENT) - 100)
        assert client.ask(target="/next").body == b"next"
    server.close()
    assert files[0].closed


def gzipped(path: Path) -> Any:
    path.write_bytes(gzip.compress(CONTENT))
    return gzip.open(path)


def gzipped_and_buffered(path: Path) -> Any:
    return io.BufferedReader(cast("Any", gzipped(path)))


def derived(path: Path) -> Any:
    class Derived(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(size).replace(b"raw", b"own")

    path.write_bytes(CONTENT.replace(b"012", b"raw"))
    return Derived(path)


def own_read(path: Path) -> Any:
    file = path.open("rb")
    read = file.read
    path.write_bytes(CONTENT.replace(b"012", b"raw"))
    file.read = lambda size=-1: read(size).replace(b"raw", b"own")
    return file


def in_memory(_path: Path) -> Any:
    return io.BytesIO(CONTENT.replace(b"012", b"own"))


def reading(_path: Path) -> Any:
    return Reading(CONTENT.replace(b"012", b"own"))


@pytest.mark.parametrize(
    "open_file", [gzipped, gzipped_and_buffered, derived, own_read, in_memory, reading]
)
def test_any_other_file_is_read_by_its_own_read(serve: Serve, path: Path, open_file: Open) -> None:
    expected = CONTENT if open_file in {gzipped, gzipped_and_buffered} else None
    with Client(serve(app(lambda: open_file(path))).port) as client:
        answer = client.ask()
        assert answer.body == (expected or CONTENT.replace(b"012", b"own"))
        assert answer.header("transfer-encoding") == "chunked"
        assert client.ask(target="/next").body == b"next"


@pytest.mark.parametrize("open_file", [at_100, unbuffered])
@pytest.mark.parametrize("length", [0, 1, 70_000, len(CONTENT) - 100])
def test_the_content_length_is_how_much_of_a_file_is_sent(
    serve: Serve, path: Path, open_file: Open, length: int
) -> None:
    headers = [("Content-Length", str(length)), ("Content-Range", "bytes 100-/*")]
    range_of = app(lambda: open_file(path), *headers, status="206 Partial Content")
    with Client(serve(range_of).port) as client:
        answer = client.ask()
        assert answer.status == 206
        assert answer.body == CONTENT[100 : 100 + length]
        assert client.ask(target="/next").body == b"next"


def test_no_more_is_read_than_the_content_length_announces(serve: Serve) -> None:
    file = Reading(CONTENT)
    with Client(serve(app(lambda: file, ("Content-Length", "10000"))).port) as client:
        assert client.ask().body == CONTENT[:10_000]
        assert client.ask(target="/next").body == b"next"
    assert file.asked == [8192, 1808]


@pytest.mark.parametrize("open_file", [at_100, reading])
def test_a_file_shorter_than_its_content_length_costs_the_connection(
    serve: Serve, path: Path, open_file: Open
) -> None:
    headers = ("Content-Length", str(len(CONTENT) + 1))
    with Client(serve(app(lambda: open_file(path), headers)).port) as client:
        client.start("GET", "/")
        assert client.is_reset()


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200 OK"), ("GET", "304 Not Modified"), ("GET", "204 None")]
)
def test_where_no_body_is_sent_none_is_read(serve: Serve, method: str, status: str) -> None:
    file = Reading(CONTENT)
    server = serve(app(lambda: file, status=status))
    with Client(server.port) as client:
        assert client.ask(method).body == b""
        assert client.ask(target="/next").body == b"next"
    server.close()
    assert (file.asked, file.times_closed) == ([], 1)


def test_head_tells_the_length_of_a_file_on_disk(serve: Serve, path: Path) -> None:
    with Client(serve(app(lambda: at_100(path))).port) as client:
        assert client.ask("HEAD").header("content-length") == str(len(CONTENT) - 100)
        assert client.ask(target="/next").body == b"next"


def test_a_file_without_bytes_or_a_position_past_its_end_is_an_empty_response(
    serve: Serve, path: Path
) -> None:
    def past_the_end() -> Any:
        file = path.open("rb")
        file.seek(len(CONTENT) + 10)
        return file

    for make in (io.BytesIO, past_the_end):
        with Client(serve(app(make)).port) as client:
            assert client.ask().header("content-length") == "0"


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_a_file_whose_size_says_nothing_is_sent_to_its_end(serve: Serve) -> None:
    content = Path("/proc/version").read_bytes()
    assert Path("/proc/version").stat().st_size == 0
    with Client(serve(app(lambda: Path("/proc/version").open("rb"))).port) as client:
        assert client.ask().body == content


def test_a_pipe_is_sent_to_its_end(serve: Serve) -> None:
    def pipe() -> Any:
        process = subprocess.Popen([sys.executable, "-c", "print('piped')"], stdout=subprocess.PIPE)
        with process:
            assert process.stdout is not None
            return os.fdopen(os.dup(process.stdout.fileno()), "rb")

    with Client(serve(app(pipe)).port) as client:
        assert client.ask().body == b"piped\n"


def test_http_1_0_is_told_the_length_of_a_file(serve: Serve, path: Path) -> None:
    with Client(serve(app(lambda: path.open("rb"))).port) as client:
        client.send("GET / HTTP/1.0\r\n\r\n")
        assert client.head().header("content-length") == str(len(CONTENT))
        assert client.rest() == CONTENT


def test_over_http2_a_file_arrives_as_well(serve: Serve, path: Path) -> None:
    server = serve(app(lambda: at_100(path)))
    with httpx.Client(http1=False, http2=True, trust_env=False) as client:
        assert client.get(server.url).content == CONTENT[100:]


class NoRead:
    def close(self) -> None: ...


class Text:
    def read(self, _size: int) -> str:
        return "text"


def text_on_disk() -> Any:
    return Path(__file__).open(encoding="utf-8")


@pytest.mark.parametrize("make", [NoRead, io.StringIO, text_on_disk])
def test_what_cannot_be_sent_raises_where_it_is_wrapped(
    serve: Serve, make: Callable[[], Any]
) -> None:
    raised: list[BaseException] = []

    def application(environ: Environ, _start_response: StartResponse) -> Iterable[bytes]:
        file = make()
        try:
            environ["wsgi.file_wrapper"](file)
        except TypeError as error:
            raised.append(error)
            raise
        finally:
            file.close()
        return []

    with Client(serve(application).port) as client:
        assert client.ask().status == 500
    assert len(raised) == 1
    assert "read" in str(raised[0])


@pytest.mark.parametrize("size", [0, -1])
def test_a_block_size_is_positive(serve: Serve, size: int) -> None:
    def application(environ: Environ, _start_response: StartResponse) -> Iterable[bytes]:
        with pytest.raises(ValueError, match="block size"):
            environ["wsgi.file_wrapper"](io.BytesIO(), size)
        _start_response("200 OK", [])
        return [b"raised"]

    with Client(serve(application).port) as client:
        assert client.ask().body == b"raised"


def test_a_file_that_reads_text_after_all_is_a_500(serve: Serve) -> None:
    with Client(serve(app(Text)).port) as client:
        assert client.ask().status == 500
        assert client.ask(target="/next").body == b"next"


@pytest.mark.parametrize("failing", [OSError, SystemExit])
def test_a_file_that_fails_costs_its_request_and_is_closed(
    serve: Serve, failing: type[BaseException]
) -> None:
    class Failing(Reading):
        def read(self, size: int) -> bytes:
            if len(self.asked) == 1:
                raise failing
            return super().read(size)

    file = Failing(CONTENT)
    server = serve(app(lambda: file), threads=1)
    with Client(server.port) as client:
        client.start("GET", "/")
        assert client.is_reset()
    with Client(server.port) as client:
        assert client.ask(target="/next").body == b"next"
    assert file.times_closed == 1


def test_a_client_that_leaves_ends_the_reading_and_the_file_is_closed(serve: Serve) -> None:
    class Endless(Reading):
        def read(self, size: int) -> bytes:
            self.asked.append(size)
            return bytes(size)

    file = Endless(b"")
    server = serve(app(lambda: file))
    with Client(server.port) as client:
        client.start("GET", "/")
        client.head()
    assert file.closed.wait(TIMEOUT)
    server.close()
    assert file.times_closed == 1


def test_a_client_that_leaves_within_a_file_on_disk_frees_its_thread(
    serve: Serve, tmp_path: Path
) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(1 << 30)
        file.seek(0)
        file.write(b"x")
    server = serve(app(lambda: sparse.open("rb")), threads=1)
    with Client(server.port) as client:
        client.start("GET", "/")
        client.head()
    with Client(server.port) as client:
        assert client.ask(target="/next").body == b"next"


def test_a_slow_client_holds_the_file_back(serve: Serve) -> None:
    file = Reading(bytes(64 * 1024 * 1024))
    held = threading.Event()

    def watch() -> None:
        before = -1
        while len(file.asked) != before:
            before = len(file.asked)
            held.wait(0.5)
        held.set()

    with Client(serve(app(lambda: file)).port) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.start("GET", "/")
        client.head()
        threading.Thread(target=watch).start()
        assert held.wait(TIMEOUT)
        assert len(file.asked) * 8192 < 32 * 1024 * 1024


def test_middleware_may_iterate_the_wrapper(serve: Serve) -> None:
    file = Reading(CONTENT)
    inner = app(lambda: file)

    def middleware(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        result = inner(environ, start_response)
        try:
            yield from result
        finally:
            cast("Any", result).close()

    server = serve(middleware)
    with Client(server.port) as client:
        assert client.ask().body == CONTENT
    server.close()
    assert file.times_closed == 1


def test_the_wrapper_seeks_for_middleware_that_sends_a_range(serve: Serve, path: Path) -> None:
    def middleware(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        wrapper = cast("Any", app(lambda: path.open("rb"))(environ, start_response))
        assert wrapper.seekable()
        wrapper.seek(100)
        assert wrapper.tell() == 100
        yield next(wrapper)
        wrapper.close()

    with Client(serve(middleware).port) as client:
        assert client.ask().body == CONTENT[100 : 100 + 8192]


def test_what_was_written_comes_before_the_file(serve: Serve, path: Path) -> None:
    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        write(b"written")
        return environ["wsgi.file_wrapper"](path.open("rb"))

    with Client(serve(application).port) as client:
        assert client.ask().body == b"written" + CONTENT


def test_a_file_without_start_response_is_a_500(serve: Serve) -> None:
    file = Reading(CONTENT)
    server = serve(lambda environ, _start: environ["wsgi.file_wrapper"](file))
    with Client(server.port) as client:
        assert client.ask().status == 500
    server.close()
    assert file.times_closed == 1


def test_flask_sends_files_and_ranges_of_them(serve: Serve, path: Path) -> None:
    flask = Flask("files")

    @flask.get("/disk")
    def disk() -> ResponseReturnValue:  # pyright: ignore[reportUnusedFunction] # by its route
        return send_file(path, mimetype="text/plain")

    @flask.get("/memory")
    def memory() -> ResponseReturnValue:  # pyright: ignore[reportUnusedFunction] # by its route
        return send_file(io.BytesIO(CONTENT), mimetype="text/plain")

    server = serve(flask)
    for target in ("/disk", "/memory"):
        with Client(server.port) as client:
            whole = client.ask(target=target)
            assert (whole.status, whole.body) == (200, CONTENT)
            head = client.ask("HEAD", target)
            assert head.header("content-length") == str(len(CONTENT))
            if target == "/disk":
                etag = whole.header("etag") or ""
                assert client.ask(target=target, if_none_match=etag).status == 304
                for asked, part in (
                    ("100-200099", CONTENT[100:200_100]),
                    ("0-0", CONTENT[:1]),
                    ("-10", CONTENT[-10:]),
                ):
                    answer = client.ask(target=target, range=f"bytes={asked}")
                    assert (answer.status, answer.body) == (206, part)
                assert client.ask(target=target, range="bytes=9999999-").status == 416


def test_django_hears_of_the_end_of_a_file_once(command: StartCommand, path: Path) -> None:
    process = command(
        "app:app",
        "--bind=127.0.0.1:0",
        # The next request comes after the end of the one before.
        "--threads=1",
        files={
            "app.py": f"""
                import sys
                from django.conf import settings
                from django.core.signals import request_finished
                from django.core.wsgi import get_wsgi_application
                from django.http import FileResponse, HttpResponse
                from django.urls import path

                settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="key")
                ended = []
                request_finished.connect(lambda **kwargs: ended.append(1), weak=False)
                urlpatterns = [
                    path("file", lambda request: FileResponse(open({str(path)!r}, "rb"))),
                    path("ended", lambda request: HttpResponse(str(len(ended)))),
                ]
                app = get_wsgi_application()
                """
        },
    )
    with Client(process.port) as client:
        for count in range(3):
            # Each question for the number has an end, too.
            answer = client.ask(target="/file")
            assert (answer.body, answer.header("content-length")) == (CONTENT, str(len(CONTENT)))
            assert client.ask(target="/ended").body == str(2 * count + 1).encode()
