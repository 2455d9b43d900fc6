"""`wsgi.early_hints`: 103 before the response of its own request, and nothing anywhere else."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from adapters.raw import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from support import Serve

    Environ = dict[str, Any]
    StartResponse = Callable[..., Callable[[bytes], object]]

TIMEOUT = 20.0
STYLE = ("Link", "</style.css>; rel=preload; as=style")
SCRIPT = ("Link", "</script.js>; rel=preload; as=script")


def test_hints_arrive_while_the_application_still_works(serve: Serve) -> None:
    go_on = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.early_hints"]([STYLE, SCRIPT, ("X-App", "caf\xe9")])
        go_on.wait(TIMEOUT)
        environ["wsgi.early_hints"]([SCRIPT])
        start_response("200 OK", [STYLE])
        return [b"page"]

    with Client(serve(app).port) as client:
        client.start("GET", "/")
        first = client.head()
        assert (first.status, first.reason) == (103, "Early Hints")
        assert first.headers == [
            ("link", STYLE[1]),
            ("link", SCRIPT[1]),
            ("x-app", "caf\xe9"),
        ]
        go_on.set()
        assert client.head().headers == [("link", SCRIPT[1])]
        answer = client.answer()
        assert (answer.status, answer.header("link"), answer.body) == (200, STYLE[1], b"page")


def test_hints_may_come_until_the_head_is_sent_and_then_do_nothing(serve: Serve) -> None:
    kept: list[Callable[[Any], None]] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        kept.append(environ["wsgi.early_hints"])
        start_response("200 OK", [])
        kept[-1]([STYLE])
        yield b""
        kept[-1]([SCRIPT])
        yield b"one"
        for late in kept:
            late([STYLE])
        yield b"two"
        kept[-1]([STYLE])

    with Client(serve(app, threads=1).port) as client:
        for _ in range(3):
            client.start("GET", "/")
            assert client.head().header("link") == STYLE[1]
            assert client.head().header("link") == SCRIPT[1]
            assert client.answer().body == b"onetwo"
            kept[-1]([STYLE])


def test_pipelined_requests_have_their_own_hints(serve: Serve) -> None:
    kept: list[Callable[[Any], None]] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        for earlier in kept:
            earlier([("Link", "<earlier>")])
        kept.append(environ["wsgi.early_hints"])
        kept[-1]([("Link", f"<{path}>")])
        start_response("200 OK", [])
        return [path.encode()]

    with Client(serve(app).port) as client:
        for number in range(20):
            client.start("GET", f"/{number}")
        for number in range(20):
            assert client.head().header("link") == f"</{number}>"
            assert client.answer().body == f"/{number}".encode()


def test_an_error_after_hints_is_still_a_500(serve: Serve) -> None:
    def app(environ: Environ, _start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.early_hints"]([STYLE])
        raise ValueError

    with Client(serve(app).port) as client:
        client.start("GET", "/")
        assert client.head().status == 103
        assert client.answer().status == 500


@pytest.mark.parametrize(
    "headers",
    [
        None,
        "Link: x",
        (STYLE,),
        [("Link",)],
        [("Link", 1)],
        [(b"Link", b"x")],
        [("Link", "x\r\nSet-Cookie: y")],
        [("Link", "x\r\n")],
        [("Link", "x\0")],
        [("Li nk", "x")],
        [("Link", "\u20ac")],
        [("Connection", "close")],
        [("Transfer-Encoding", "chunked")],
        [("Content-Length", "5")],
    ],
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_hints_are_checked_as_the_headers_of_a_response_are(
    serve: Serve, headers: Any, version: str
) -> None:
    raised: list[BaseException] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            environ["wsgi.early_hints"](headers)
        except (TypeError, ValueError) as error:
            raised.append(error)
        start_response("200 OK", [])
        return [b"page"]

    with Client(serve(app).port) as client:
        client.send(f"GET / HTTP/{version}\r\nHost: localhost\r\n\r\n")
        assert client.answer().body == b"page"
    assert len(raised) == 1


def test_where_hints_cannot_be_sent_they_are_not(serve: Serve) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.early_hints"]([STYLE])
        start_response("200 OK", [])
        return [environ["SERVER_PROTOCOL"].encode()]

    server = serve(app)
    with Client(server.port) as client:
        client.send("GET / HTTP/1.0\r\n\r\n")
        answer = client.answer()
        assert (answer.status, answer.body) == (200, b"HTTP/1.0")
    with httpx.Client(http1=False, http2=True, trust_env=False) as client:
        assert client.get(server.url).text == "HTTP/2"


def test_hints_come_from_threads_of_the_application_as_well(serve: Serve) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        thread = threading.Thread(target=environ["wsgi.early_hints"], args=([STYLE],))
        thread.start()
        thread.join()
        start_response("200 OK", [])
        return [b"page"]

    with Client(serve(app).port) as client:
        client.start("GET", "/")
        assert client.head().header("link") == STYLE[1]
        assert client.answer().body == b"page"
