"""What may follow a head, by its length, its status and the method: both kinds of application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from adapters.raw import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from support import Serve

    MakeApp = Callable[..., Callable[..., Any]]


def asgi(
    status: int, headers: Iterable[tuple[str, str]], pieces: list[bytes]
) -> Callable[..., Any]:
    """Answers with `pieces`, and an empty last one where there are several."""

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/next":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"next"})
            return
        encoded = [[k.encode(), v.encode()] for k, v in headers]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        if len(pieces) == 1:
            await send({"type": "http.response.body", "body": pieces[0]})
            return
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    return app


def wsgi(
    status: int, headers: Iterable[tuple[str, str]], pieces: list[bytes]
) -> Callable[..., Any]:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/next":
            start_response("200 OK", [])
            return [b"next"]
        start_response(f"{status} Status", list(headers))
        return pieces if len(pieces) == 1 else iter(pieces)

    return app


@pytest.fixture(params=[asgi, wsgi])
def make(request: pytest.FixtureRequest) -> MakeApp:
    make: MakeApp = request.param
    return make


def test_a_whole_response_shorter_than_its_length_is_a_500_because_nothing_was_sent(
    serve: Serve, make: MakeApp
) -> None:
    server = serve(make(200, [("content-length", "9")], [b"short"]))
    with Client(server.port) as client:
        assert client.ask().status == 500
        assert client.ask(target="/next").body == b"next"


def test_a_streamed_response_shorter_than_its_length_is_reset(serve: Serve, make: MakeApp) -> None:
    server = serve(make(200, [("content-length", "9")], [b"sho", b"rt"]))
    with Client(server.port) as client:
        client.start("GET", "/")
        assert client.is_reset()


@pytest.mark.parametrize("pieces", [[b"too long"], [b"too", b" ", b"long"]])
def test_a_response_longer_than_its_length_is_cut_there_and_the_connection_lives(
    serve: Serve, make: MakeApp, pieces: list[bytes]
) -> None:
    server = serve(make(200, [("content-length", "5")], pieces))
    with Client(server.port) as client:
        assert client.ask().body == b"too l"
        assert client.ask(target="/next").body == b"next"


@pytest.mark.parametrize("length", ["five", "-1", "+5", "5, 5", "", "99999999999999999999"])
def test_a_length_that_is_no_number_is_a_500(serve: Serve, make: MakeApp, length: str) -> None:
    server = serve(make(200, [("content-length", length)], [b"12345"]))
    with Client(server.port) as client:
        assert client.ask().status == 500
        assert client.ask(target="/next").body == b"next"


def test_two_lengths_are_a_500(serve: Serve, make: MakeApp) -> None:
    server = serve(make(200, [("content-length", "5"), ("content-length", "5")], [b"12345"]))
    with Client(server.port) as client:
        assert client.ask().status == 500


@pytest.mark.parametrize("pieces", [[b"whole"], [b"in ", b"pieces", b"!" * 200_000]])
def test_head_gets_the_head_alone(serve: Serve, make: MakeApp, pieces: list[bytes]) -> None:
    server = serve(make(200, [("x-app", "1")], pieces))
    with Client(server.port) as client:
        answer = client.ask("HEAD")
        assert answer.status == 200
        assert answer.header("x-app") == "1"
        assert answer.header("content-length") == ("5" if len(pieces) == 1 else None)
        assert client.ask(target="/next").body == b"next"


def test_head_keeps_the_length_that_the_application_gave(serve: Serve, make: MakeApp) -> None:
    server = serve(make(200, [("content-length", "12345")], [b""]))
    with Client(server.port) as client:
        assert client.ask("HEAD").header("content-length") == "12345"
        assert client.ask(target="/next").body == b"next"


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("pieces", [[b"body"], [b"bo", b"dy"]])
def test_a_status_without_a_body_has_none(
    serve: Serve, make: MakeApp, status: int, pieces: list[bytes]
) -> None:
    server = serve(make(status, [], pieces))
    with Client(server.port) as client:
        answer = client.ask()
        assert answer.status == status
        assert answer.header("transfer-encoding") is None
        assert client.ask(target="/next").body == b"next"


@pytest.mark.parametrize(
    ("method", "status", "pieces"),
    [
        ("HEAD", 200, [b"whole"]),
        ("HEAD", 200, [b"in ", b"pieces"]),
        ("GET", 204, [b"body"]),
        ("GET", 304, [b"bo", b"dy"]),
    ],
)
def test_over_http2_too_a_response_without_a_body_has_none(
    serve: Serve, make: MakeApp, method: str, status: int, pieces: list[bytes]
) -> None:
    server = serve(make(status, [], pieces))
    with httpx.Client(http1=False, http2=True, trust_env=False) as client:
        answer = client.request(method, server.url)
        assert (answer.status_code, answer.content) == (status, b"")
        assert client.get(f"{server.url}/next").content == b"next"


def test_over_http2_a_response_shorter_than_its_length_is_reset(
    serve: Serve, make: MakeApp
) -> None:
    server = serve(make(200, [("content-length", "9")], [b"sho", b"rt"]))
    with httpx.Client(http1=False, http2=True, trust_env=False) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(server.url)
        assert client.get(f"{server.url}/next").content == b"next"


def test_over_http2_a_response_longer_than_its_length_is_cut_there(
    serve: Serve, make: MakeApp
) -> None:
    server = serve(make(200, [("content-length", "5")], [b"too", b" ", b"long"]))
    with httpx.Client(http1=False, http2=True, trust_env=False) as client:
        assert client.get(server.url).content == b"too l"


@pytest.mark.parametrize("chunked", [False, True])
def test_the_next_request_is_answered_although_a_body_was_not_read(
    serve: Serve, make: MakeApp, chunked: bool
) -> None:
    server = serve(make(200, [], [b"whole"]))
    with Client(server.port) as client:
        for _ in range(3):
            if chunked:
                client.start("POST", "/", transfer_encoding="chunked")
            else:
                client.start("POST", "/", 10_000)
            assert client.answer().body == b"whole"
            # It comes when it is of no use to anybody any more.
            client.send(b"2710\r\n" * chunked)
            client.send(b"x" * 10_000)
            client.send(b"\r\n0\r\n\r\n" * chunked)
            assert client.ask(target="/next").body == b"next"


def test_a_body_that_nobody_reads_and_that_does_not_end_costs_its_connection(
    serve: Serve, make: MakeApp
) -> None:
    server = serve(make(200, [], [b"whole"]))
    with Client(server.port) as client:
        client.start("POST", "/", 10**9)
        assert client.answer().body == b"whole"
        assert client.ends()


def test_http_1_0_gets_a_streamed_body_without_chunks_and_then_the_end(
    serve: Serve, make: MakeApp
) -> None:
    server = serve(make(200, [], [b"one", b"two"]))
    with Client(server.port) as client:
        client.send("GET / HTTP/1.0\r\n\r\n")
        head = client.head()
        assert head.header("transfer-encoding") is None
        assert client.rest() == b"onetwo"


def test_an_application_may_end_a_response_that_its_length_has_ended(serve: Serve) -> None:
    raised: list[BaseException] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        headers = [(b"content-length", b"4")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"body", "more_body": True})
        # Its client has all of it: only now comes what ends it.
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"
        try:
            await send({"type": "http.response.body"})
        except BaseException as error:
            raised.append(error)
            raise

    server = serve(app)
    with Client(server.port) as client:
        assert client.ask().body == b"body"
    server.close()
    assert raised == []
