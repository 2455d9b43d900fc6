"""PEP 3333, "The start_response() Callable" and "Other HTTP Features": what a head may hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from conformance.sites import where_a_status_has_a_reason
from conformance.wsgi.apps import TEXT, Bare, Faulty, answering

if TYPE_CHECKING:
    from collections.abc import Iterable

    from conformance.sites import Site
    from conformance.wsgi.apps import Environ, MakeSite, StartResponse


class Heads:
    """An application that makes the head that the test asks for next, and keeps what is raised."""

    def __init__(self) -> None:
        self.next: tuple[Any, Any] = ("200 OK", [TEXT])
        self.raised: list[BaseException] = []

    def __call__(self, _environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            start_response(*self.next)
        except BaseException as error:
            self.raised.append(error)
            raise
        return [b"body"]

    def refused(self, served: Site, status: Any, headers: Any) -> bool:
        """Whether `start_response` refuses this head while the application still runs."""
        self.raised.clear()
        self.next = (status, headers)
        answer = served.ask()
        if answer.status == 200:
            return False
        assert (answer.status, answer.body != b"body") == (500, True)
        return [isinstance(error, (TypeError, ValueError)) for error in self.raised] == [True]


# --- The status ---


@where_a_status_has_a_reason
@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("200 OK", "OK"),
        ("200 Froody", "Froody"),
        ("299 Foo Bar", "Foo Bar"),
        ("404 Not  Found", "Not  Found"),
        ("418 I'm a teapot", "I'm a teapot"),
        ("500 Oops", "Oops"),
        ("599 caf\xe9", "caf\xe9"),
        ("999 Message here", "Message here"),
    ],
)
def test_the_reason_phrase_is_kept(site: MakeSite, status: str, reason: str) -> None:
    answer = site(answering(b"body", status=status)).ask()
    assert f"{answer.head.status} {answer.head.reason}" == status
    assert answer.head.reason == reason


@pytest.mark.parametrize("status", ["200", "200 "])
def test_a_status_without_a_reason_is_taken(site: MakeSite, status: str) -> None:
    """RFC 9112 §4: a reason may be empty. The validator only warns."""
    answer = site(Faulty(answering(b"body", status=status))).ask()
    assert (answer.status, answer.body) == (200, b"body")
    assert not answer.head.reason


def test_a_status_that_cannot_be_sent_is_an_error_of_start_response(site: MakeSite) -> None:
    """ "a Status-Code and a Reason-Phrase …, with no surrounding whitespace"."""
    heads = Heads()
    served = site(Faulty(heads))
    for status in [
        "",
        " ",
        "OK",
        "200OK",
        " 200 OK",
        "20 OK",
        "2000 OK",
        "1000 High",
        "99 Low",
        "099 Low",
        "+20 Plus",
        "-20 Minus",
        "2e2 Float",
        "\u0662\u0660\u0660 Arabic",
        "200\tOK",
        "200 O\nK",
        "200 OK\r\n",
        "200 OK\r\nX-App: 1",
        "200 O\0K",
        "200 O\x7fK",
        "200 \u20ac",
        b"200 OK",
        200,
        None,
        ("200", "OK"),
    ]:
        assert heads.refused(served, status, [TEXT]), status


@pytest.mark.parametrize("status", ["100 Continue", "101 Switching Protocols", "103 Early Hints"])
def test_an_interim_status_is_not_a_response(site: MakeSite, status: str) -> None:
    """RFC 9110 §15.2: they come before a response and belong to the server."""
    heads = Heads()
    assert heads.refused(site(Faulty(heads)), status, [])


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
@pytest.mark.parametrize("blocks", [[], [b"body"], [b"bo", b"dy"]], ids=repr)
@pytest.mark.parametrize("seen", ["bare", "validated"])
def test_a_status_without_content_has_none_whatever_the_application_yields(
    site: MakeSite, status: str, blocks: list[bytes], seen: str
) -> None:
    """RFC 9110 §6.4.1; what follows on the connection is the next response."""
    app = answering(*blocks, status=status, headers=[("X-App", "1")])
    served = site(Bare(app) if seen == "bare" else app)
    connection = served.connect()
    for _ in range(3):
        answer = connection.ask("GET", f"{served.mount}/")
        assert (str(answer.status), answer.body) == (status[:3], b"")
        assert answer.head.one("x-app") == "1"
        assert answer.head.one("transfer-encoding") is None


@pytest.mark.parametrize("length", ["0", "4"])
def test_204_has_no_content_length(site: MakeSite, length: str) -> None:
    """RFC 9110 §8.6."""
    headers = [("Content-Length", length)]
    answer = site(answering(b"body", status="204 No Content", headers=headers)).ask()
    assert (answer.status, answer.head.one("content-length")) == (204, None)


def test_304_keeps_the_headers_that_describe_what_it_stands_for(site: MakeSite) -> None:
    """RFC 9110 §15.4.5."""
    headers = [("ETag", '"1"'), ("Vary", "Accept"), ("Cache-Control", "max-age=5")]
    head = site(answering(status="304 Not Modified", headers=headers)).ask().head
    assert head.one("etag") == '"1"'
    assert head.one("vary") == "Accept"
    assert head.one("cache-control") == "max-age=5"


# --- Headers ---


def test_the_headers_arrive_as_the_application_gave_them(site: MakeSite) -> None:
    headers = [
        ("Content-Type", "text/plain"),
        ("X-Empty", ""),
        ("X-Latin", "caf\xe9"),
        ("Set-Cookie", "a=1; Path=/"),
        ("X-App", "first"),
        ("Set-Cookie", "b=2"),
        ("x-app", "second"),
        ("X-Comma", "a, b"),
        ("X-Quoted", '"a\\"b"'),
    ]
    head = site(answering(b"body", headers=headers)).ask().head
    for name in {name.lower() for name, _ in headers}:
        assert head.all(name) == [value for known, value in headers if known.lower() == name]


def test_many_headers_and_long_ones_are_sent(site: MakeSite) -> None:
    headers = [TEXT, *((f"X-App-{number}", "x" * 100) for number in range(60))]
    head = site(answering(b"body", headers=headers)).ask().head
    assert sum(name.startswith("x-app-") for name, _ in head.headers) == 60


def test_headers_that_cannot_be_sent_are_an_error_of_start_response(site: MakeSite) -> None:
    """ "must not include any control characters"; "at the time start_response is called"."""
    heads = Heads()
    served = site(Faulty(heads))
    controls = [chr(code) for code in (*range(0x09), *range(0x0A, 0x20), 0x7F)]
    for headers in [
        None,
        (),
        {},
        (TEXT,),
        iter([TEXT]),
        "X-App: 1",
        ["X-App: 1"],
        ["ab"],
        [("X-App",)],
        [("X-App", "1", "2")],
        [["X-App", "1"]],
        [(b"X-App", b"1")],
        [("X-App", b"1")],
        [("X-App", 1)],
        [("X-App", None)],
        [("", "1")],
        [("X App", "1")],
        [("X-App:", "1")],
        [("X-App\r\n", "1")],
        [("X-\xe9", "1")],
        [("X-\u20ac", "1")],
        [("X(App)", "1")],
        *([("X-App", f"a{control}b")] for control in controls),
        *([("X-App", f"a{control}")] for control in controls),
        *([("X-App", f"{control}a")] for control in controls),
        [("X-App", "1\r\nX-Smuggled: 2")],
        [("X-App", "1\r\n\r\n<script>")],
        [("X-App", "\u20ac")],
        [("X-App", "\udc80")],
    ]:
        assert heads.refused(served, "200 OK", headers), headers


HOP_BY_HOP = [
    ("Connection", "close"),
    ("Connection", "keep-alive"),
    ("connection", "X-App"),
    ("Keep-Alive", "timeout=5"),
    ("Proxy-Authenticate", "Basic"),
    ("Proxy-Authorization", "Basic YQ=="),
    ("TE", "trailers"),
    ("Trailer", "X-App"),
    ("Trailers", "X-App"),
    ("Transfer-Encoding", "chunked"),
    ("TRANSFER-ENCODING", "gzip"),
    ("Upgrade", "websocket"),
]


def test_a_header_of_the_connection_is_an_error_of_start_response(site: MakeSite) -> None:
    """ "a server … should consider it a fatal error … and raise an error"; RFC 2616 §13.5.1."""
    heads = Heads()
    served = site(Faulty(heads))
    for header in HOP_BY_HOP:
        assert heads.refused(served, "200 OK", [TEXT, header]), header


def test_what_http_requires_is_added(site: MakeSite) -> None:
    """ "if the application omits a header required by HTTP … the server … must add it"."""
    date = site(answering(b"body")).ask().head.one("date")
    assert date is not None
    assert date.endswith(" GMT")


@pytest.mark.parametrize(
    ("name", "value"),
    [("Date", "Thu, 01 Jan 1970 00:00:00 GMT"), ("Server", "my own/1.0"), ("date", "")],
)
def test_what_the_application_gives_is_not_added_again(
    site: MakeSite, name: str, value: str
) -> None:
    """ "HTTP header names are case-insensitive, so be sure to take that into consideration"."""
    served = site(answering(b"body", headers=[TEXT, (name, value)]), server_header=True)
    assert served.ask().head.one(name.lower()) == value


def test_the_server_is_named_when_that_is_asked_for(site: MakeSite) -> None:
    served = site(answering(b"body"), server_header=True)
    assert served.ask().head.one("server") == "twinspan"


def test_validators_and_ranges_are_left_to_the_application(site: MakeSite) -> None:
    """ "should "play dumb" and allow the application complete control over its output"."""
    headers = [TEXT, ("ETag", '"1"'), ("Last-Modified", "Thu, 01 Jan 1970 00:00:00 GMT")]
    asked = [("If-None-Match", '"1"'), ("Range", "bytes=0-1"), ("Accept-Encoding", "gzip")]
    answer = site(answering(b"body", headers=headers)).ask(headers=asked)
    assert (answer.status, answer.body) == (200, b"body")
    assert answer.head.one("content-encoding") is None


def test_a_content_coding_of_the_application_is_not_touched(site: MakeSite) -> None:
    headers = [TEXT, ("Content-Encoding", "gzip")]
    answer = site(answering(b"\x1f\x8bnot", b" really", headers=headers)).ask()
    assert answer.body == b"\x1f\x8bnot really"
    assert answer.head.one("content-encoding") == "gzip"
