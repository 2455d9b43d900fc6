"""The extensions of HTTP: `pathsend`, `zerocopysend`, `trailers` and `early_hint`."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conformance.asgi.apps import (
    DISCONNECT,
    Gate,
    Message,
    Receive,
    Scope,
    Seen,
    Send,
    Site,
    begin,
    body,
    respond,
    start,
)
from conformance.clients import HTTP_1_0, HTTP_2, Broken
from conformance.sites import (
    where_a_body_need_not_tell_its_length,
    where_hints_are_sent,
    where_hints_cannot_be_sent,
    where_requests_may_be_sent_ahead,
    where_there_are_chunks,
)
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import FileResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

CONTENT = b"".join(number.to_bytes(4, "big") for number in range(64 * 1024))
"""Four times what is read at a time."""

DOCUMENTATION = Path(__file__).parents[4] / "docs" / "asgi.md"

LARGE = 16 * 1024 * 1024
"""More than the buffers of a connection hold."""

TE = [("TE", "trailers")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def pathsend(path: Path | str) -> Message:
    return {"type": "http.response.pathsend", "path": str(path)}


def zerocopysend(file: Any, **more: Any) -> Message:
    return {"type": "http.response.zerocopysend", "file": file, **more}


def trailers(*fields: tuple[bytes, bytes], **more: Any) -> Message:
    return {"type": "http.response.trailers", "headers": list(fields), **more}


def early_hint(*links: bytes) -> Message:
    return {"type": "http.response.early_hint", "links": list(links)}


def sends(*messages: Any) -> Any:
    """An application that sends these and returns."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def length(content: bytes) -> tuple[bytes, bytes]:
    return (b"content-length", str(len(content)).encode())


# --- The scope ---


def documented(protocol: str) -> list[str]:
    """What docs/asgi.md says is offered there."""
    _, table, _ = DOCUMENTATION.read_text("utf-8").split("<!-- extensions:")
    head, _, *rows = [line.strip("| ").split(" | ") for line in table.splitlines()[1:] if line]
    column = head.index(protocol)
    return [row[0].strip("`") for row in rows if row[column] != "no"]


def test_the_scope_has_what_can_be_sent_on_its_connection(site: Site) -> None:
    seen = Seen()

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        # The server's own is no protocol: tests/python/migrate.
        assert scope["extensions"].pop("twinspan").keys() == {"apps"}
        seen(scope["extensions"])
        # Of this request alone.
        scope["extensions"]["own"] = {}
        await respond(send)

    site.serve(app)
    expected: dict[str, Any] = {name: {} for name in documented(site.protocol)}
    for _ in range(2):
        site.ask()
    first, second = seen.wait(2)
    assert first == {**expected, "own": {}} == second


@pytest.mark.parametrize("message", [{"type": "http.response.push", "path": "/"}, pathsend("")])
def test_what_the_scope_does_not_have_raises(site: Site, message: Message) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        message["type"] = message["type"].replace("pathsend", "debug")
        with pytest.raises(RuntimeError, match=message["type"]):
            await send(message)
        await send(body(b"raised"))

    site.serve(app)
    assert site.ask().body == b"raised"


# --- Files by path ---


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, len(CONTENT)])
def test_a_file_is_sent_with_its_length(site: Site, path: Path, size: int) -> None:
    path.write_bytes(CONTENT[:size])
    site.serve(sends(start(200, (b"content-type", b"x/y")), pathsend(path)))
    answer = site.ask()
    assert (answer.status, answer.body) == (200, CONTENT[:size])
    assert answer.head.one("content-length") == str(size)
    assert answer.head.one("content-type") == "x/y"


def test_the_next_request_follows_a_file(site: Site, path: Path) -> None:
    site.serve(sends(start(), pathsend(path)))
    connection = site.connect()
    for _ in range(3):
        assert connection.ask(target=site.mount + "/").body == CONTENT


def test_send_completes_when_the_file_has_been_read(site: Site, path: Path) -> None:
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(pathsend(path))
        os.truncate(path, 0)
        seen(await receive())
        with pytest.raises(RuntimeError, match="complete"):
            await send(body(b"more"))

    site.serve(app)
    assert site.ask().body == CONTENT
    assert seen.wait() == [DISCONNECT]


def test_a_slow_client_holds_send_back_and_others_go_on(site: Site, path: Path) -> None:
    os.truncate(path, LARGE)
    seen = Seen()

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if not scope["path"].endswith("/file"):
            await respond(send, b"other")
            return
        await send(start())
        sending = asyncio.ensure_future(send(pathsend(path)))
        # All of the file would be read several times meanwhile.
        done, _ = await asyncio.wait({sending}, timeout=0.5)
        seen(len(done))
        await sending

    site.serve(app)
    exchange = site.connect(buffer=64 * 1024).start("GET", site.mount + "/file")
    assert exchange.head().status == 200
    received = len(exchange.take(1))
    assert site.ask().body == b"other"
    assert seen.wait() == [0]
    while piece := exchange.piece():
        received += len(piece)
    assert received == LARGE


def test_head_has_the_length_and_nothing_else(site: Site, path: Path) -> None:
    site.serve(sends(start(), pathsend(path)))
    connection = site.connect()
    for _ in range(2):
        answer = connection.ask("HEAD", site.mount + "/")
        assert answer.head.one("content-length") == str(len(CONTENT))
        assert answer.body == b""


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_has_none_of_a_file(site: Site, path: Path, status: int) -> None:
    site.serve(sends(start(status), pathsend(path)))
    connection = site.connect()
    for _ in range(2):
        answer = connection.ask("GET", site.mount + "/")
        assert (answer.status, answer.body) == (status, b"")
        assert answer.head.one("content-length") is None


def test_a_length_of_the_application_stays_and_cuts_the_file_off(site: Site, path: Path) -> None:
    site.serve(sends(start(200, length(CONTENT[:70_000])), pathsend(path)))
    answer = site.ask()
    assert answer.head.one("content-length") == "70000"
    assert answer.body == CONTENT[:70_000]
    assert "cut off at its `Content-Length`" in site.ended_log()


def test_a_file_that_is_shorter_than_the_length_of_the_application_breaks_off(
    site: Site, path: Path
) -> None:
    site.serve(sends(start(200, length(CONTENT + b"x")), pathsend(path)))
    assert site.breaks()
    assert "shorter than its `Content-Length`" in site.ended_log()


def test_a_file_that_becomes_shorter_never_looks_complete(site: Site, path: Path) -> None:
    os.truncate(path, LARGE)
    with path.open("r+b") as file:
        file.write(b"x" * 100)
    seen = Seen()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        try:
            await send(pathsend(path))
        except OSError as error:
            seen(str(error))
            raise

    site.serve(app)
    exchange = site.connect(buffer=64 * 1024).start("GET", site.mount + "/")
    exchange.head()
    exchange.take(1)
    os.truncate(path, 1024 * 1024)
    assert exchange.breaks()
    assert "became shorter" in seen.wait()[0]
    assert "became shorter" in site.ended_log()


def directory(path: Path) -> Path:
    return path.parent


def missing(path: Path) -> Path:
    return path.parent / "missing"


def below_a_file(path: Path) -> Path:
    return path / "file"


def fifo(path: Path) -> Path:
    os.mkfifo(made := path.parent / "fifo")
    return made


def listening(path: Path) -> Path:
    made = path.parent / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        cwd = os.open(".", os.O_RDONLY)
        try:
            # The path of a socket has to be short.
            os.chdir(path.parent)
            listener.bind("socket")
        finally:
            os.fchdir(cwd)
            os.close(cwd)
    return made


def device(_path: Path) -> str:
    return "/dev/zero"


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (missing, FileNotFoundError),
        (below_a_file, NotADirectoryError),
        (directory, IsADirectoryError),
        (fifo, OSError),
        (listening, OSError),
        (device, OSError),
    ],
)
def test_a_file_that_cannot_be_sent_raises_and_another_answer_may_be_given(
    site: Site, path: Path, make: Callable[[Path], Any], kind: type[OSError]
) -> None:
    name = str(make(path))

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start(200, (b"x-first", b"1")))
        with pytest.raises(kind, match=name) as raised:
            await send(pathsend(name))
        if kind is not OSError:
            assert raised.value.filename == name
            assert raised.value.errno
        # Nothing was sent, so that the head may change.
        await send(start(404, (b"x-second", b"2")))
        await send(body(b"not there"))

        with pytest.raises(RuntimeError, match="started"):
            await send(start())

    site.serve(app)
    answer = site.ask()
    assert (answer.status, answer.body) == (404, b"not there")
    assert (answer.head.one("x-first"), answer.head.one("x-second")) == (None, "2")


def test_what_was_to_come_with_a_missing_file_may_come_without(site: Site, path: Path) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start(200, (b"x-first", b"1")))
        with pytest.raises(FileNotFoundError):
            await send(pathsend(missing(path)))
        await send(body(b"no file today", more=True))
        with pytest.raises(RuntimeError, match="started"):
            await send(start(404))
        await send(body())

    site.serve(app)
    answer = site.ask()
    assert (answer.status, answer.head.one("x-first")) == (200, "1")
    assert answer.body == b"no file today"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_raises(site: Site, path: Path) -> None:
    path.chmod(0)

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        with pytest.raises(PermissionError):
            await send(pathsend(path))
        await respond(send, b"forbidden")

    site.serve(app)
    assert site.ask().body == b"forbidden"


def test_a_missing_file_that_nobody_catches_is_a_500(site: Site, path: Path) -> None:
    site.serve(sends(start(), pathsend(missing(path))))
    assert site.ask().status == 500
    assert "FileNotFoundError" in site.ended_log()


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ({}, ValueError),
        ({"path": None}, TypeError),
        ({"path": b"/etc/passwd"}, TypeError),
        ({"path": "relative"}, ValueError),
        ({"path": ""}, ValueError),
        ({"path": "/nul\0"}, (ValueError, OSError)),
    ],
    ids=repr,
)
def test_a_path_is_an_absolute_str(site: Site, message: Message, kind: Any) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        with pytest.raises(kind):
            await send({"type": "http.response.pathsend", **message})
        await respond(send, b"raised")

    site.serve(app)
    assert site.ask().body == b"raised"


def test_a_path_needs_no_utf_8(site: Site, path: Path) -> None:
    name = os.fsdecode(os.fsencode(path.parent) + b"/\xff")
    try:
        path.rename(name)
    except OSError:
        pytest.skip("this file system wants UTF-8")
    site.serve(sends(start(), pathsend(name)))
    assert site.ask().body == CONTENT


def test_a_path_is_not_mixed_with_a_body(site: Site, path: Path) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        with pytest.raises(RuntimeError, match="comes first"):
            await send(pathsend(path))
        await begin(send)
        with pytest.raises(RuntimeError, match="has begun"):
            await send(pathsend(path))
        await send(body(b" and ended"))
        with pytest.raises(RuntimeError, match="complete"):
            await send(pathsend(path))

    site.serve(app)
    assert site.ask().body == b"begun and ended"


def test_nothing_comes_between_while_a_file_is_sent(site: Site, path: Path) -> None:
    os.truncate(path, LARGE)
    seen = Seen()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        sending = asyncio.ensure_future(send(pathsend(path)))
        with path.open("rb") as file:
            for message in (body(b"more"), pathsend(path), zerocopysend(file), start()):
                with pytest.raises(RuntimeError):
                    await send(message)
        seen("refused")
        await sending

    site.serve(app)
    exchange = site.connect(buffer=64 * 1024).start("GET", site.mount + "/")
    seen.wait()
    exchange.head()
    assert len(exchange.body()) == LARGE


DESCRIPTORS = Path("/proc/self/fd")


def is_open(path: Path) -> bool:
    return path.resolve() in {descriptor.resolve() for descriptor in DESCRIPTORS.iterdir()}


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="tells what is open")
def test_a_client_that_leaves_ends_it_and_the_file_is_closed(site: Site, path: Path) -> None:
    os.truncate(path, LARGE)
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        leaving = asyncio.ensure_future(receive_until_disconnect(receive))
        try:
            await send(pathsend(path))
        except OSError:
            await leaving
            seen("left")

    async def receive_until_disconnect(receive: Receive) -> None:
        while await receive() != DISCONNECT:
            pass

    site.serve(app)
    exchange = site.connect(buffer=64 * 1024).start("GET", site.mount + "/")
    exchange.head()
    exchange.take(1)
    assert is_open(path)
    exchange.leave()
    seen.wait()
    site.settle()
    # A piece that was being read holds the file a moment longer.
    while is_open(path):
        pass


def test_an_application_that_is_cancelled_meanwhile_aborts_the_response(
    site: Site, path: Path
) -> None:
    os.truncate(path, LARGE)
    gate = Gate()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        sending = asyncio.ensure_future(send(pathsend(path)))
        await gate.passed()
        sending.cancel()

    site.serve(app)
    exchange = site.connect(buffer=64 * 1024).start("GET", site.mount + "/")
    exchange.head()
    exchange.take(1)
    gate.open()
    assert exchange.breaks()


# --- Files by descriptor ---


def test_a_file_is_sent_from_where_it_stands_and_moves(site: Site, path: Path) -> None:
    seen = Seen()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        with path.open("rb") as file:
            # Reads ahead: the descriptor stands elsewhere.
            assert file.read(10) == CONTENT[:10]
            await send(start())
            await send(zerocopysend(file, count=100_000, more_body=True))
            seen(file.tell())
            seen(file.read(10))
            await send(zerocopysend(file))
            seen(file.tell())

    site.serve(app)
    assert site.ask().body == CONTENT[10:100_010] + CONTENT[100_020:]
    assert seen.wait(3) == [100_010, CONTENT[100_010:100_020], len(CONTENT)]


def test_an_offset_moves_nothing(site: Site, path: Path) -> None:
    seen = Seen()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        with path.open("rb") as file:
            file.seek(5)
            await send(start())
            await send(zerocopysend(file, offset=70_000, count=3, more_body=True))
            await send(zerocopysend(file, offset=0, count=0, more_body=True))
            await send(zerocopysend(file, offset=10**12, more_body=True))
            await send(zerocopysend(file, offset=100, count=None))
            seen((file.tell(), os.lseek(file.fileno(), 0, os.SEEK_CUR)))

    site.serve(app)
    assert site.ask().body == CONTENT[70_000:70_003] + CONTENT[100:]
    ((told, at),) = seen.wait()
    assert (told, at) == (5, 5)


@pytest.mark.parametrize("given", ["number", "object"])
def test_a_descriptor_has_its_own_position(site: Site, path: Path, given: str) -> None:
    seen = Seen()

    class Descriptor:
        def __init__(self, number: int) -> None:
            self.number = number

        def fileno(self) -> int:
            return self.number

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        number = os.open(path, os.O_RDONLY)
        try:
            assert os.read(number, 10) == CONTENT[:10]
            file = number if given == "number" else Descriptor(number)
            await send(start())
            await send(zerocopysend(file, count=10, more_body=True))
            seen(os.lseek(number, 0, os.SEEK_CUR))
            await send(zerocopysend(file, offset=0, count=10))
            seen(os.lseek(number, 0, os.SEEK_CUR))
        finally:
            os.close(number)

    site.serve(app)
    assert site.ask().body == CONTENT[10:20] + CONTENT[:10]
    assert seen.wait(2) == [20, 20]


@pytest.mark.parametrize(
    "make", [tempfile.TemporaryFile, tempfile.NamedTemporaryFile, tempfile.SpooledTemporaryFile]
)
def test_what_was_written_to_a_file_is_sent(site: Site, make: Callable[[], Any]) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        with make() as file:
            file.write(b"written and not flushed")
            file.seek(8)
            await send(start())
            await send(zerocopysend(file))

    site.serve(app)
    answer = site.ask()
    assert answer.body == b"and not flushed"
    assert answer.head.one("content-length") == "15"


def test_parts_of_files_are_mixed_with_bodies(site: Site, path: Path) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        with path.open("rb") as file:
            await send(zerocopysend(file, count=5, more_body=True))
            await send(body(b"<between>", more=True))
            await send(zerocopysend(file, offset=100, count=5, more_body=True))
        await send(body(b"<end>"))

    site.serve(app)
    assert site.ask().body == CONTENT[:5] + b"<between>" + CONTENT[100:105] + b"<end>"


def test_the_length_is_known_when_one_part_is_all(site: Site, path: Path) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        with path.open("rb") as file:
            await send(start())
            await send(zerocopysend(file, offset=7, count=90_000))

    site.serve(app)
    answer = site.ask()
    assert answer.head.one("content-length") == "90000"
    assert answer.body == CONTENT[7:90_007]
    answer = site.ask("HEAD")
    assert (answer.head.one("content-length"), answer.body) == ("90000", b"")


def test_the_file_may_be_closed_as_soon_as_send_returns(site: Site, path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"\xee" * len(CONTENT))

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        file = os.open(path, os.O_RDONLY)
        await send(zerocopysend(file, more_body=True))
        os.close(file)
        # Takes the number.
        file = os.open(other, os.O_RDONLY)
        await send(body(b"<end>"))
        os.close(file)

    site.serve(app)
    assert site.ask().body == CONTENT + b"<end>"


def test_a_descriptor_that_is_closed_meanwhile_does_no_harm(site: Site, path: Path) -> None:
    os.truncate(path, LARGE)
    seen = Seen()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        file = os.open(path, os.O_RDONLY)
        sending = asyncio.ensure_future(send(zerocopysend(file, offset=0)))
        await asyncio.sleep(0)
        os.close(file)
        seen("closed")
        await sending

    site.serve(app)
    exchange = site.connect(buffer=64 * 1024).start("GET", site.mount + "/")
    seen.wait()
    exchange.head()
    assert len(exchange.body()) == LARGE


def pipe(_path: Path) -> int:
    reading, writing = os.pipe()
    os.close(writing)
    return reading


def for_writing(path: Path) -> int:
    return os.open(path, os.O_WRONLY)


def text(path: Path) -> Any:
    return path.open(encoding="utf-8")


def closed(path: Path) -> Any:
    with path.open("rb") as file:
        return file


def no_file(_path: Path) -> Any:
    return io.BytesIO(b"x")


def opened_directory(path: Path) -> int:
    return os.open(path.parent, os.O_RDONLY)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (pipe, OSError),
        (for_writing, OSError),
        (opened_directory, IsADirectoryError),
        (text, TypeError),
        (closed, ValueError),
        (no_file, io.UnsupportedOperation),
    ],
)
def test_what_has_no_bytes_on_disk_raises_and_another_answer_may_be_given(
    site: Site, path: Path, make: Callable[[Path], Any], kind: type[Exception]
) -> None:
    file = make(path)

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        with pytest.raises(kind):
            await send(zerocopysend(file))
        await respond(send, b"raised")

    site.serve(app)
    assert site.ask().body == b"raised"
    site.settle()
    if isinstance(file, int):
        os.close(file)
    else:
        file.close()


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        (-1, OSError),
        (2**31 - 1, OSError),
        (2**80, OSError),
        (True, TypeError),
        ("/path", TypeError),
        (None, TypeError),
    ],
    ids=repr,
)
def test_what_is_no_descriptor_raises(site: Site, file: Any, kind: type[Exception]) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        with pytest.raises(kind):
            await send(zerocopysend(file))
        await respond(send, b"raised")

    site.serve(app)
    assert site.ask().body == b"raised"


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"offset": -1}, ValueError),
        ({"count": -1}, ValueError),
        ({"offset": 2**63}, ValueError),
        ({"count": 2**80}, ValueError),
        ({"offset": "1"}, TypeError),
        ({"count": 1.0}, TypeError),
    ],
    ids=repr,
)
def test_offset_and_count_are_numbers_of_bytes(
    site: Site, path: Path, more: dict[str, Any], kind: type[Exception]
) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        with path.open("rb") as file, pytest.raises(kind):
            await send(zerocopysend(file, **more))
        with pytest.raises(ValueError, match="file"):
            await send({"type": "http.response.zerocopysend"})
        await send(body(b"raised"))

    site.serve(app)
    assert site.ask().body == b"raised"


@where_a_body_need_not_tell_its_length
def test_a_part_that_cannot_be_read_leaves_the_rest_of_the_body(site: Site, path: Path) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await begin(send)
        with path.open("ab") as file, pytest.raises(OSError):  # noqa: PT011
            await send(zerocopysend(file, offset=0, more_body=True))
        await send(body(b" again"))

    site.serve(app)
    assert site.ask().body == b"begun again"


# --- Trailers ---

CHECKSUM = (b"x-checksum", b"abc")
STATUS = (b"x-status", b"0")
ANNOUNCED = (b"trailer", b"X-Checksum, x-status")


@where_a_body_need_not_tell_its_length
@pytest.mark.parametrize("pieces", [[b""], [b"body"], [b"bo", b"dy"]], ids=repr)
def test_trailers_follow_the_body(site: Site, pieces: list[bytes]) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await send({**start(200, ANNOUNCED), "trailers": True})
        *first, last = pieces
        for piece in first:
            await send(body(piece, more=True))
        await send(body(last))
        await send(trailers(CHECKSUM, more_trailers=True))
        await send(trailers(STATUS, STATUS))
        assert await receive() == DISCONNECT

    site.serve(app)
    connection = site.connect()
    for _ in range(2):
        exchange = connection.start("GET", site.mount + "/", TE)
        answer = exchange.answer()
        assert answer.head.one("trailer") == "X-Checksum, x-status"
        assert answer.body == b"".join(pieces)
        assert exchange.trailers == [("x-checksum", "abc"), ("x-status", "0"), ("x-status", "0")]


def test_trailers_are_not_sent_to_whoever_does_not_accept_them(site: Site) -> None:
    site.serve(
        sends({**start(200, ANNOUNCED), "trailers": True}, body(b"body"), trailers(CHECKSUM))
    )
    te = [] if site.protocol != HTTP_1_0 else TE
    exchange = site.start(headers=te)
    answer = exchange.answer()
    assert (answer.body, exchange.trailers) == (b"body", None)
    if not te:
        assert answer.head.one("trailer") is None


@where_a_body_need_not_tell_its_length
def test_trailers_follow_a_file(site: Site, path: Path) -> None:
    site.serve(sends({**start(200, ANNOUNCED), "trailers": True}, pathsend(path), trailers(STATUS)))
    exchange = site.start(headers=TE)
    answer = exchange.answer()
    assert answer.body == CONTENT
    assert exchange.trailers == [("x-status", "0")]


@where_a_body_need_not_tell_its_length
def test_a_body_with_a_length_has_trailers_where_the_protocol_allows_it(site: Site) -> None:
    site.serve(
        sends(
            {**start(200, ANNOUNCED, length(b"body")), "trailers": True},
            body(b"body"),
            trailers(STATUS),
        )
    )
    connection = site.connect()
    for _ in range(2):
        exchange = connection.start("GET", site.mount + "/", TE)
        answer = exchange.answer()
        assert (answer.head.one("content-length"), answer.body) == ("4", b"body")
        assert exchange.trailers == ([("x-status", "0")] if site.protocol == HTTP_2 else None)


@where_a_body_need_not_tell_its_length
@pytest.mark.parametrize("given", [b"bod", b"body and more"])
def test_a_wrong_length_is_found_before_trailers(site: Site, given: bytes) -> None:
    site.serve(
        sends(
            {**start(200, ANNOUNCED, length(b"body")), "trailers": True},
            body(given),
            trailers(STATUS),
        )
    )
    exchange = site.start(headers=TE)
    if len(given) < 4:
        with pytest.raises(Broken):
            exchange.answer()
    else:
        assert exchange.answer().body == b"body"
        assert exchange.trailers == ([("x-status", "0")] if site.protocol == HTTP_2 else None)


def test_head_has_no_trailers(site: Site) -> None:
    site.serve(sends({**start(), "trailers": True}, body(b"body"), trailers(STATUS)))
    connection = site.connect()
    for _ in range(2):
        exchange = connection.start("HEAD", site.mount + "/", TE)
        assert exchange.answer().body == b""
        assert exchange.trailers is None


def test_a_response_that_lacks_its_trailers_is_not_complete(site: Site) -> None:
    site.serve(sends({**start(), "trailers": True}, body(b"body")))
    assert site.breaks()
    site.serve(sends({**start(), "trailers": True}, body(b"body"), trailers(more_trailers=True)))
    assert site.breaks()
    assert "before its response was complete" in site.ended_log()


@where_there_are_chunks
def test_a_trailer_that_the_head_does_not_name_is_told_in_the_log(site: Site) -> None:
    site.serve(
        sends(
            {**start(200, (b"trailer", b"x-status")), "trailers": True},
            body(b"body"),
            trailers(CHECKSUM, STATUS),
        )
    )
    exchange = site.start(headers=TE)
    exchange.answer()
    assert exchange.trailers == [("x-status", "0")]
    log = site.ended_log()
    assert "x-checksum" in log
    assert "x-status" not in log


@pytest.mark.parametrize(
    "field",
    [
        (b"content-length", b"5"),
        (b"transfer-encoding", b"chunked"),
        (b"Host", b"x"),
        (b"set-cookie", b"a=b"),
        (b"connection", b"close"),
        (b"trailer", b"x"),
        (b":status", b"200"),
        (b"x-y", b"a\r\nb: c"),
        (b"x y", b"z"),
        ("x", "y"),
    ],
    ids=repr,
)
def test_a_field_that_has_no_place_after_the_body_raises(site: Site, field: Any) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({**start(200, ANNOUNCED), "trailers": True})
        await send(body(b"body"))
        with pytest.raises((ValueError, TypeError)):
            await send(trailers(STATUS, field))
        await send(trailers(STATUS))

    site.serve(app)
    exchange = site.start(headers=TE)
    assert exchange.answer().body == b"body"
    assert exchange.trailers in ([("x-status", "0")], None)


def test_trailers_come_after_the_body_and_when_they_were_announced(site: Site) -> None:
    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        with pytest.raises(RuntimeError):
            await send(trailers(STATUS))
        announced = scope["path"].endswith("/announced")
        await send({**start(), "trailers": announced})
        with pytest.raises(RuntimeError):
            await send(trailers(STATUS))
        await send(body(b"bo", more=True))
        with pytest.raises(RuntimeError):
            await send(trailers(STATUS))
        await send(body(b"dy"))
        if announced:
            with pytest.raises(RuntimeError, match="trailers"):
                await send(body(b"more"))
            await send(trailers(STATUS))
        with pytest.raises(RuntimeError):
            await send(trailers(STATUS))

    site.serve(app)
    assert site.ask().body == b"body"
    assert site.ask(path="/announced").body == b"body"


@where_a_body_need_not_tell_its_length
def test_a_client_that_leaves_before_the_trailers_is_told_of(site: Site) -> None:
    gate = Gate()
    seen = Seen()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await send({**start(), "trailers": True})
        await send(body(b"body"))
        while await receive() != DISCONNECT:
            pass
        await gate.passed()
        with pytest.raises(OSError):  # noqa: PT011
            await send(trailers(STATUS))
        seen("raised")

    site.serve(app)
    exchange = site.start(headers=TE)
    exchange.head()
    exchange.take(4)
    exchange.leave()
    gate.open()
    seen.wait()


# --- Early hints ---

STYLE = b"</style.css>; rel=preload; as=style"
SCRIPT = b"</script.js>; rel=preload; as=script"


@where_hints_are_sent
def test_hints_arrive_while_the_application_still_works(site: Site) -> None:
    gate = Gate()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(early_hint(SCRIPT))
        await send(start(200, (b"link", STYLE)))
        await send(early_hint(STYLE, SCRIPT))
        await gate.passed()
        await send(early_hint())
        await send({"type": "http.response.early_hint", "links": iter([STYLE])})
        await send(body(b"page", more=True))
        # Too late, and no harm done.
        await send(early_hint(SCRIPT))
        await send(body())

    site.serve(app)
    connection = site.connect()
    for _ in range(2):
        exchange = connection.start("GET", site.mount + "/")
        assert exchange.head() == (103, "Early Hints", [("link", SCRIPT.decode())])
        head = exchange.head()
        assert (head.status, head.all("link")) == (103, [STYLE.decode(), SCRIPT.decode()])
        gate.open()
        assert exchange.head().all("link") == [STYLE.decode()]
        answer = exchange.answer()
        assert (answer.status, answer.head.one("link")) == (200, STYLE.decode())
        assert answer.body == b"page"


@where_requests_may_be_sent_ahead
def test_pipelined_requests_have_their_own_hints(site: Site) -> None:
    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        await send(early_hint(scope["raw_path"]))
        await respond(send, scope["raw_path"])

    site.serve(app)
    connection = site.connect()
    targets = [f"{site.mount}/{number}" for number in range(20)]
    exchanges = [connection.start("GET", target) for target in targets]
    for target, exchange in zip(targets, exchanges, strict=True):
        assert exchange.head().one("link") == target
        assert exchange.answer().body == target.encode()


@where_hints_are_sent
def test_hints_before_a_file(site: Site, path: Path) -> None:
    site.serve(sends(start(), early_hint(STYLE), pathsend(path)))
    exchange = site.start()
    assert exchange.head().status == 103
    assert exchange.answer().body == CONTENT


@where_hints_are_sent
@pytest.mark.parametrize(
    "message",
    [
        {},
        {"links": None},
        {"links": STYLE},
        {"links": "text"},
        {"links": ["text"]},
        {"links": [b"x\r\nset-cookie: y"]},
        {"links": [STYLE, b"x\n"]},
        {"links": [b"x\0"]},
    ],
    ids=repr,
)
def test_links_are_byte_strings_of_one_line(site: Site, message: Message) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        with pytest.raises((ValueError, TypeError)):
            await send({"type": "http.response.early_hint", **message})
        await send(body(b"raised"))

    site.serve(app)
    answer = site.ask()
    assert (answer.status, answer.body) == (200, b"raised")


@where_hints_are_sent
def test_hints_after_the_response_raise(site: Site) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await respond(send, b"done")
        with pytest.raises(RuntimeError, match="complete"):
            await send(early_hint(STYLE))

    site.serve(app)
    assert site.ask().body == b"done"


@where_hints_cannot_be_sent
def test_where_hints_cannot_be_sent_they_raise(site: Site) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        with pytest.raises(RuntimeError, match="early_hint"):
            await send(early_hint(STYLE))
        await respond(send, b"page")

    site.serve(app)
    answer = site.ask()
    assert (answer.status, answer.body) == (200, b"page")


# --- Starlette's FileResponse, which sends by path ---


def files(path: Path, seen: Seen) -> Starlette:
    async def file(_request: Request) -> FileResponse:
        return FileResponse(path, background=BackgroundTask(seen, "after"))

    return Starlette(routes=[Route("/file", file)])


def test_a_file_of_starlette(site: Site, path: Path) -> None:
    seen = Seen()
    sent: list[str] = []
    starlette = files(path, seen)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Any) -> None:
            sent.append(message["type"])
            await send(message)

        await starlette(scope, receive, watched)

    site.serve(app)
    whole = site.ask(path="/file")
    assert (whole.status, whole.body) == (200, CONTENT)
    assert whole.head.one("content-length") == str(len(CONTENT))
    assert sent == ["http.response.start", "http.response.pathsend"]
    seen.wait()

    ranged = site.ask(path="/file", headers=[("Range", "bytes=100-70099")])
    assert (ranged.status, ranged.body) == (206, CONTENT[100:70_100])
    head = site.ask("HEAD", "/file")
    assert (head.head.one("content-length"), head.body) == (str(len(CONTENT)), b"")
    assert seen.wait(3) == ["after"] * 3


def test_a_client_that_leaves_a_file_of_starlette_is_no_error(site: Site, path: Path) -> None:
    os.truncate(path, LARGE)
    site.serve(files(path, Seen()))
    exchange = site.connect(buffer=64 * 1024).start("GET", site.mount + "/file")
    exchange.head()
    exchange.take(1)
    exchange.leave()
    log = site.ended_log()
    assert "ERROR" not in log
    assert "Traceback" not in log
