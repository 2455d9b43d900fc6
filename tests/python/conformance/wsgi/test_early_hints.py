"""`wsgi.early_hints`: what is beyond PEP 3333 follows its rules ("Server Extension APIs").

103 is RFC 8297. HTTP/1.0 has no interim responses, and those of HTTP/2 the server cannot send yet:
there the callable checks what it is given, and sends nothing.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from conformance.clients import LONG
from conformance.sites import where_hints_are_sent, where_hints_cannot_be_sent
from conformance.wsgi.apps import TEXT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from conformance.wsgi.apps import Environ, MakeSite, StartResponse

STYLE = ("Link", "</style.css>; rel=preload; as=style")


def page(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    environ["wsgi.early_hints"]([STYLE])
    start_response("200 OK", [TEXT, STYLE])
    return [b"page"]


@where_hints_are_sent
def test_hints_arrive_before_the_response_has_begun(site: MakeSite) -> None:
    go_on = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.early_hints"]([STYLE])
        assert go_on.wait(LONG)
        start_response("200 OK", [TEXT])
        return [b"page"]

    exchange = site(app).start()
    hints = exchange.head()
    assert (hints.status, hints.headers) == (103, [("link", STYLE[1])])
    go_on.set()
    assert exchange.answer().body == b"page"


@where_hints_cannot_be_sent
def test_where_hints_cannot_be_sent_the_response_is_the_same(site: MakeSite) -> None:
    answer = site(page).ask()
    assert (answer.status, answer.body) == (200, b"page")


def test_hints_do_not_begin_the_response(site: MakeSite) -> None:
    """`start_response` can still be called, and an error is still a 500."""

    def app(environ: Environ, _start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.early_hints"]([STYLE])
        raise ValueError

    exchange = site(app).start()
    status = exchange.head().status
    if status == 103:
        status = exchange.head().status
    assert status == 500


def test_hints_that_cannot_be_sent_are_an_error_on_every_protocol(site: MakeSite) -> None:
    wrong = [
        None,
        (STYLE,),
        [("Link", "a\r\nb")],
        [("Link", b"a")],
        [("Li nk", "a")],
        [("Connection", "close")],
        [("Content-Length", "5")],
    ]
    raised: list[BaseException] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        for headers in wrong:
            try:
                environ["wsgi.early_hints"](headers)
            except (TypeError, ValueError) as error:  # noqa: PERF203 # each is a case
                raised.append(error)
        start_response("200 OK", [TEXT])
        return [b"page"]

    assert site(app).ask().body == b"page"
    assert len(raised) == len(wrong)
