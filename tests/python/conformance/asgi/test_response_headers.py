"""ASGI 2.5, "Response Start": its headers, and a `Content-Length` among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from conformance.asgi.apps import Receive, Scope, Seen, Send, Site, body, respond, start
from conformance.sites import where_a_connection_has_many_streams
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from conformance.clients import Head


def head_of(site: Site, headers: Any, data: bytes = b"body") -> Head:
    """The head of a response with these headers."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send(body(data))

    site.serve(app)
    answer = site.ask()
    assert (answer.status, answer.body) == (200, data)
    return answer.head


# --- What headers may be ---


@pytest.mark.parametrize(
    "make",
    [
        lambda pairs: pairs,
        tuple,
        iter,
        lambda pairs: (pair for pair in pairs),
        lambda pairs: [list(pair) for pair in pairs],
        lambda pairs: [iter(pair) for pair in pairs],
        lambda pairs: dict(pairs).items(),
    ],
    ids=["list", "tuple", "iterator", "generator", "of lists", "of iterators", "items of a dict"],
)
def test_headers_are_an_iterable_of_two_item_iterables(site: Site, make: Any) -> None:
    head = head_of(site, make([(b"x-a", b"1"), (b"x-b", b"2")]))
    assert (head.one("x-a"), head.one("x-b")) == ("1", "2")


def test_no_headers_may_be_none(site: Site) -> None:
    assert head_of(site, None).status == 200


def test_an_iterable_that_raises_is_an_error_of_the_application(site: Site) -> None:
    def headers() -> Any:
        yield (b"x-a", b"1")
        raise LookupError("within the headers")

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        with pytest.raises(LookupError, match="within the headers"):
            await send({"type": "http.response.start", "status": 200, "headers": headers()})
        await respond(send, b"another")

    site.serve(app)
    assert site.ask().body == b"another"


@pytest.mark.parametrize("name", [b"x-name", b"X-Name", b"X-NAME"])
def test_the_case_of_a_name_does_not_matter(site: Site, name: bytes) -> None:
    """ "Header names must be lowercased", and HTTP/2 has no other; applications forget it."""
    assert head_of(site, [(name, b"Value")]).one("x-name") == "Value"


def test_duplicates_are_sent_in_their_order_and_not_joined(site: Site) -> None:
    """ "it may appear repeatedly, but cannot be concatenated by commas"."""
    cookies = [b"a=1; Path=/", b"b=2", b"a=3, with a comma"]
    head = head_of(site, [*((b"set-cookie", cookie) for cookie in cookies), (b"vary", b"a")])
    assert head.all("set-cookie") == [cookie.decode() for cookie in cookies]


def test_values_are_bytes_of_latin_1_and_may_be_empty(site: Site) -> None:
    head = head_of(site, [(b"x-latin", b"caf\xe9 \x80\xff"), (b"x-empty", b""), (b"x-t", b"a\tb")])
    assert head.one("x-latin") == "caf\xe9 \x80\xff"
    assert head.one("x-empty") == ""
    assert head.one("x-t") == "a\tb"


def test_white_space_around_a_value_is_not_part_of_it(site: Site) -> None:
    assert head_of(site, [(b"x-a", b" \t a b \t ")]).one("x-a") == "a b"


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"x-a", b"X-A", b"x-b", b"set-cookie", b"vary", b"x_y"]),
            st.binary(max_size=20).map(
                lambda value: bytes(b for b in value if b >= 0x20 and b != 0x7F).strip(b" \t")
            ),
        ),
        max_size=12,
    )
)
def test_the_values_of_each_name_are_sent_in_their_order(
    site: Site, headers: list[tuple[bytes, bytes]]
) -> None:
    head = head_of(site, headers)
    for wanted in {name.lower() for name, _ in headers}:
        sent = [value.decode("latin-1") for name, value in headers if name.lower() == wanted]
        assert head.all(wanted.decode()) == sent
    site.hang_up()


# --- What they may not be ---

BAD_NAMES = [b"", b" ", b"a b", b"a:", b":status", b"a\r\nb", b"a\0", b"caf\xe9", b"(a)", b"a\n"]
BAD_VALUES = [
    b"a\r\nb: c",
    b"a\nb",
    b"a\rb",
    b"a\0b",
    b"\r\n",
    b"a\r",
    b"a\n",
    b"\na",
    b"\x01",
    b"\x7f",
]


@pytest.mark.parametrize(
    "header",
    [*((name, b"value") for name in BAD_NAMES), *((b"name", value) for value in BAD_VALUES)],
    ids=repr,
)
def test_what_would_change_the_message_on_the_wire_raises_and_is_never_sent(
    site: Site, header: tuple[bytes, bytes]
) -> None:
    seen = Seen()

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"].endswith("/caught"):
            with pytest.raises(ValueError, match="header"):
                await send(start(200, header))
            await respond(send, b"another")
            return
        try:
            await send(start(200, (b"x-before", b"1"), header))
        finally:
            seen("left")
        await send(body(b"sent"))

    site.serve(app)
    connection = site.connect()
    answer = connection.ask("GET", f"{site.mount}/")
    assert (answer.status, answer.head.all("x-before")) == (500, [])
    assert connection.ask("GET", f"{site.mount}/caught").body == b"another"
    seen.wait()


# --- Headers of the connection ---


@pytest.mark.parametrize(
    "header",
    [
        (b"transfer-encoding", b"chunked"),
        (b"Transfer-Encoding", b"gzip, chunked"),
        (b"connection", b"x-a, upgrade"),
        (b"Connection", b"close"),
        (b"keep-alive", b"timeout=5"),
        (b"upgrade", b"h2c"),
        (b"trailer", b"x-a"),
    ],
    ids=repr,
)
def test_headers_of_the_connection_are_the_servers_and_ignored(
    site: Site, header: tuple[bytes, bytes]
) -> None:
    """ "You may send a `Transfer-Encoding` header …, but the server must ignore it"."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start(200, header, (b"x-a", b"1")))
        await send(body(b"body"))

    site.serve(app)
    connection = site.connect()
    for _ in range(2):
        # The connection goes on, so the framing is right.
        answer = connection.ask("GET", f"{site.mount}/")
        assert (answer.body, answer.head.one("x-a")) == (b"body", "1")
        assert header[1].decode() not in answer.head.all(header[0].decode().lower())


# --- Headers of the server ---


def test_the_server_adds_a_date(site: Site) -> None:
    assert head_of(site, []).one("date")


def test_a_date_or_a_server_of_the_application_takes_the_place_of_the_servers(site: Site) -> None:
    head = head_of(site, [(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT"), (b"server", b"own")])
    assert head.one("date") == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert head.one("server") == "own"


def test_no_content_type_is_made_up(site: Site) -> None:
    assert head_of(site, []).all("content-type") == []


# --- Content-Length ---


@pytest.mark.parametrize("name", [b"content-length", b"Content-Length"])
@pytest.mark.parametrize("cuts", [[4], [1, 3], [0, 2, 2, 0]], ids=repr)
def test_the_length_that_the_application_gives_is_sent_once(
    site: Site, name: bytes, cuts: list[int]
) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start(200, (name, b"4")))
        for cut in cuts:
            await send(body(b"x" * cut, more=True))
        await send(body())

    site.serve(app)
    connection = site.connect()
    for _ in range(2):
        answer = connection.ask("GET", f"{site.mount}/")
        assert (answer.head.one("content-length"), answer.body) == ("4", b"xxxx")
        assert answer.head.all("transfer-encoding") == []
    assert site.ended_log() == ""


def test_no_more_than_the_length_is_sent(site: Site) -> None:
    """A client would take the rest for the next response."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"].endswith("/next"):
            await respond(send, b"next")
            return
        await send(start(200, (b"content-length", b"4")))
        if scope["path"].endswith("/pieces"):
            await send(body(b"bo", more=True))
            await send(body(b"dy", more=True))
        else:
            await send(body(b"body and", more=True))
        await send(body(b"HTTP/1.1 200 OK\r\n\r\n"))

    site.serve(app)
    connection = site.connect()
    for path in ("/", "/pieces"):
        assert connection.ask("GET", f"{site.mount}{path}").body == b"body"
        assert connection.ask("GET", f"{site.mount}/next").body == b"next"


@pytest.mark.parametrize("sent", [b"", b"bod"])
def test_a_whole_body_shorter_than_its_length_is_a_500(site: Site, sent: bytes) -> None:
    """Nothing of it has been sent, so nobody need wait for the rest."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start(200, (b"content-length", b"4")))
        await send(body(sent))

    site.serve(app)
    connection = site.connect()
    for _ in range(2):
        assert connection.ask("GET", f"{site.mount}/").status == 500
    assert "ERROR" in site.ended_log()


def test_a_streamed_body_shorter_than_its_length_never_looks_complete(site: Site) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start(200, (b"content-length", b"4")))
        await send(body(b"bo", more=True))
        await send(body(b"d"))

    site.serve(app)
    assert site.breaks()
    assert "ERROR" in site.ended_log()


@pytest.mark.parametrize(
    "lengths", [[b"x"], [b"-1"], [b"+4"], [b"4.0"], [b""], [b"4, 4"], [b"4", b"5"], [b"9" * 30]]
)
def test_a_length_that_is_no_number_raises(site: Site, lengths: list[bytes]) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        with pytest.raises(ValueError, match="Content-Length"):
            await send(start(200, *((b"content-length", length) for length in lengths)))
        await respond(send, b"another")

    site.serve(app)
    assert site.ask().body == b"another"


@where_a_connection_has_many_streams
@pytest.mark.parametrize("mount", [""])
def test_pseudo_headers_are_the_servers(site: Site) -> None:
    """ "Pseudo headers … must not be present"."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        for name in (b":status", b":path", b":own"):
            with pytest.raises(ValueError, match=":"):
                await send(start(200, (name, b"404")))
        await respond(send)

    site.serve(app)
    assert site.ask().status == 200


def test_many_and_long_headers_are_sent(site: Site) -> None:
    headers = [(f"x-{number}".encode(), b"v" * 100) for number in range(80)]
    head = head_of(site, [*headers, (b"x-long", b"l" * 8000)])
    assert sum(name.startswith("x-") for name, _ in head.headers) == 81
    assert head.one("x-long") == "l" * 8000
