"""PEP 3333, "Unicode Issues": strings hold bytes as code points, and content is `bytes`."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from conformance.sites import where_a_status_has_a_reason
from conformance.wsgi.apps import TEXT, Faulty

if TYPE_CHECKING:
    from collections.abc import Iterable

    from conformance.wsgi.apps import Environ, MakeSite, StartResponse

EVERY_BYTE = bytes(range(256))
PRINTABLE = "".join(map(chr, (*range(0x21, 0x7F), *range(0xA1, 0x100))))


def mirror(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Sends back the path as content and a header as a header."""
    start_response("200 OK", [TEXT, ("X-Mirror", environ.get("HTTP_X_MIRROR", ""))])
    return [environ["PATH_INFO"].encode("latin-1")]


def test_each_byte_of_the_path_is_one_code_point(site: MakeSite) -> None:
    answer = site(mirror).ask(path=f"/{quote(EVERY_BYTE)}")
    assert answer.body == b"/" + EVERY_BYTE


def test_each_byte_of_a_header_is_one_code_point_in_both_directions(site: MakeSite) -> None:
    answer = site(mirror).ask(headers=[("X-Mirror", PRINTABLE)])
    assert answer.head.one("x-mirror") == PRINTABLE


def test_text_in_utf_8_passes_through_unchanged(site: MakeSite) -> None:
    """What an application encodes so, it gets back so."""
    text = "\u20ac \U0001f600"
    sent = text.encode().decode("latin-1")
    answer = site(mirror).ask(path=f"/{quote(text)}", headers=[("X-Mirror", sent)])
    assert answer.body.decode() == f"/{text}"
    assert (answer.head.one("x-mirror") or "").encode("latin-1").decode() == text


def test_each_byte_of_the_content_passes_in_both_directions(site: MakeSite) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(-1)
        assert type(body) is bytes
        start_response("200 OK", [TEXT])
        return [body]

    assert site(app).ask("POST", body=EVERY_BYTE).body == EVERY_BYTE


@pytest.mark.parametrize("place", ["status", "name", "value"])
def test_a_code_point_that_is_no_byte_is_a_fatal_error(site: MakeSite, place: str) -> None:
    """ "a fatal error for an application to supply strings containing any other … code point"."""
    raised: list[BaseException] = []
    characters = ["\u0100", "\u20ac", "\U0001f600", "\udc80"]

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        character = characters[int(environ["QUERY_STRING"])]
        here = {"status": "O", "name": "X-App", "value": "a"} | {place: character}
        try:
            start_response(f"200 {here['status']}", [TEXT, (here["name"], here["value"])])
        except ValueError as error:
            raised.append(error)
            raise
        return [b"body"]

    served = site(Faulty(app))
    for number in range(len(characters)):
        assert served.ask(path=f"/?{number}").status == 500
    assert len(raised) == len(characters)


@where_a_status_has_a_reason
def test_a_reason_may_hold_latin_1(site: MakeSite) -> None:
    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 Tr\xe8s bien", [TEXT])
        return [b"body"]

    assert site(app).ask().head.reason == "Tr\xe8s bien"


def test_a_subclass_of_str_is_a_str(site: MakeSite) -> None:
    """The validator refuses subclasses of `str`; frameworks use them, and they are strings."""

    class Text(str):
        __slots__ = ()

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(Text("200 OK"), [(Text("X-App"), Text("1"))])
        return [b"body"]

    answer = site(Faulty(app)).ask()
    assert (answer.status, answer.head.one("x-app")) == (200, "1")
