"""PEP 3333, "Input and Error Streams": `wsgi.errors`, a text stream into the server's log."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
from conformance.wsgi.apps import TEXT, Bare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from conformance.sites import Site
    from conformance.wsgi.apps import Environ, MakeSite, StartResponse


def logged(site: MakeSite, write: Callable[[Any], object], *, validated: bool = True) -> str:
    """The log of a request whose application does this to its error stream."""

    def shop(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write(environ["wsgi.errors"])
        start_response("200 OK", [TEXT])
        return [b"body"]

    served = site(shop if validated else Bare(shop))
    assert served.ask().body == b"body"
    return log_of(served)


def log_of(served: Site) -> str:
    served.close()
    return served.log()


@pytest.mark.parametrize(
    "write",
    [
        lambda errors: errors.write("one\ntwo\n"),
        lambda errors: errors.writelines(["one\n", "two\n"]),
        lambda errors: errors.writelines(line for line in ("one\n", "two\n")),
        lambda errors: [errors.write(character) for character in "one\ntwo\n"],
        lambda errors: (errors.write("one\ntwo"), errors.flush()),
        lambda errors: errors.write("one\ntwo"),
    ],
    ids=["write", "writelines", "generator", "characters", "flush", "unfinished"],
)
def test_each_line_is_a_line_of_the_log_however_it_is_written(
    site: MakeSite, write: Callable[[Any], object]
) -> None:
    """ "applications should use "\\n" as a line ending"."""
    lines = [line for line in logged(site, write).splitlines() if " ERROR " in line]
    assert len(lines) == 2
    assert " one " in lines[0]
    assert " two " in lines[1]


def test_the_stream_can_be_printed_and_logged_to(site: MakeSite) -> None:
    def write(errors: Any) -> None:
        print("printed", 1, file=errors, flush=True)
        handler = logging.StreamHandler(errors)
        handler.emit(logging.makeLogRecord({"msg": "logged"}))

    log = logged(site, write)
    assert " printed 1 " in log
    assert " logged " in log


@pytest.mark.parametrize("text", ["caf\xe9 \u20ac \U0001f600", "\udc80"], ids=ascii)
def test_any_text_can_be_written(site: MakeSite, text: str) -> None:
    """ "should accept and log arbitrary unicode without raising an error"."""
    log = logged(site, lambda errors: errors.write(f"before {text} behind\n"))
    readable = text.encode("utf-8", "backslashreplace").decode()
    assert f"before {readable} behind" in log


def test_what_is_not_text_cannot_be_written(site: MakeSite) -> None:
    raised: list[BaseException] = []

    def write(errors: Any) -> None:
        for wrong in (b"bytes", None, 5):
            try:
                errors.write(wrong)
            except TypeError as error:  # noqa: PERF203 # each is a case
                raised.append(error)

    logged(site, write, validated=False)
    assert len(raised) == 3


def test_a_line_says_which_application_wrote_it(site: MakeSite) -> None:
    """ "may supply different error streams to different applications"."""
    assert "app=shop" in logged(site, lambda errors: errors.write("line\n"), validated=False)


def test_nobody_can_forge_a_line_of_the_log(site: MakeSite) -> None:
    forged = "harmless\r2026-01-01T00:00:00Z ERROR forged\x1b[2K\x9b2K\u2028"
    log = logged(site, lambda errors: errors.write(f"{forged}\n"))
    assert not set("\r\x1b\x9b\u2028") & set(log)
    assert "harmless" in log


def test_threads_do_not_write_into_the_lines_of_others(site: MakeSite) -> None:
    written = threading.Barrier(4)

    def shop(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        errors = environ["wsgi.errors"]
        for word in ("one ", "line ", "of ", f"{environ['PATH_INFO']}\n"):
            errors.write(word)
            written.wait(20)
        start_response("200 OK", [TEXT])
        return []

    served = site(shop, threads=4)
    exchanges = [served.start(path=f"/{number}") for number in range(4)]
    assert [exchange.answer().status for exchange in exchanges] == [200] * 4
    log = log_of(served)
    assert [log.count(f" one line of /{number} ") for number in range(4)] == [1] * 4


def test_the_stream_outlives_its_request(site: MakeSite) -> None:
    """A logging handler that was made in one request is used in those that follow."""
    kept: list[Any] = []

    def shop(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        kept.append(environ["wsgi.errors"])
        kept[0].write("by the first stream\n")
        start_response("200 OK", [TEXT])
        return []

    served = site(Bare(shop))
    for _ in range(2):
        assert served.ask().status == 200
    kept[0].write("after the request\n")
    log = log_of(served)
    assert log.count("by the first stream") == 2
    assert log.count("after the request") == 1
