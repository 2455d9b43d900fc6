"""PEP 3333, "environ Variables" and "URL Reconstruction"; RFC 3875 §4.1 for those of CGI."""

from __future__ import annotations

import copy
import os
import re
import threading
from typing import TYPE_CHECKING
from wsgiref.util import request_uri

import pytest
from conformance.clients import LONG, UNTOLD
from conformance.sites import (
    where_a_body_need_not_tell_its_length,
    where_a_target_may_be_absolute,
    where_the_host_may_be_missing,
    where_there_is_a_prefix,
    where_there_is_no_prefix,
)
from conformance.wsgi.apps import TEXT, Bare, Environ

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from conformance.clients import Fields
    from conformance.sites import Site
    from conformance.wsgi.apps import MakeSite, StartResponse


class Seen:
    """An application that keeps a copy of each `environ` that it gets."""

    def __init__(self) -> None:
        self.environs: list[Environ] = []

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        self.environs.append(copy.copy(environ))
        start_response("200 OK", [TEXT, ("Content-Length", "0")])
        return []

    def of(
        self,
        served: Site,
        method: str = "GET",
        path: str = "/",
        headers: Fields = (),
        body: bytes | None = None,
    ) -> Environ:
        """The `environ` of one request."""
        assert served.ask(method, path, headers, body).status == 200
        return self.environs.pop()


# --- The dictionary ---


def test_the_environ_is_a_builtin_dictionary(site: MakeSite) -> None:
    """ "must be a builtin Python dictionary (not a subclass, …)"."""
    types: list[type] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        types.append(type(environ))
        start_response("200 OK", [TEXT])
        return []

    assert site(Bare(app)).ask().status == 200
    assert types == [dict]


def test_the_application_may_change_the_environ_and_no_other_request_sees_it(
    site: MakeSite,
) -> None:
    """ "allowed to modify the dictionary in any way it desires"."""
    before: list[set[str]] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        before.append(set(environ))
        environ["app.own"] = object()
        environ["REQUEST_METHOD"] = "CHANGED"
        environ["wsgi.version"] = None
        environ.clear()
        start_response("200 OK", [TEXT, ("Content-Length", "0")])
        return []

    served = site(Bare(app), threads=1)
    connection = served.connect()
    for _ in range(3):
        assert connection.ask("GET", f"{served.mount}/").status == 200
    assert before[0] == before[1] == before[2]


def test_requests_at_the_same_time_share_nothing_that_can_be_changed(site: MakeSite) -> None:
    together = threading.Barrier(2)
    environs: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environs.append(environ)
        together.wait(LONG)
        start_response("200 OK", [TEXT])
        return []

    served = site(Bare(app), threads=2)
    exchanges = [served.start(path=f"/{number}") for number in range(2)]
    assert [exchange.answer().status for exchange in exchanges] == [200, 200]
    first, second = environs
    assert first is not second
    assert first["wsgi.input"] is not second["wsgi.input"]
    assert {first["PATH_INFO"], second["PATH_INFO"]} == {"/0", "/1"}


def test_the_environ_may_be_kept_and_read_after_the_request(site: MakeSite) -> None:
    kept: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        kept.append(environ)
        start_response("200 OK", [TEXT])
        return []

    served = site(Bare(app))
    assert served.ask(path="/kept").status == 200
    served.close()
    assert kept[0]["PATH_INFO"] == "/kept"


def test_the_environment_of_the_process_is_not_in_it(
    site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PEP 3333 allows it; secrets would be on error pages, and `HTTP_PROXY` would be a header."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example")
    monkeypatch.setenv("SCRIPT_NAME", "/from-the-environment")
    monkeypatch.setenv("SECRET_KEY", "secret")
    seen = Seen()
    served = site(seen)
    environ = seen.of(served)
    assert environ["SCRIPT_NAME"] == served.mount
    assert "HTTP_PROXY" not in environ
    assert not environ.keys() & (os.environ.keys() - {"SCRIPT_NAME"})


# --- What is in it ---


def test_all_required_variables_are_there(site: MakeSite) -> None:
    seen = Seen()
    served = site(seen)
    environ = seen.of(served)
    expected = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": served.mount,
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(served.server.port),
        "SERVER_PROTOCOL": served.protocol,
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    assert {key: environ.get(key) for key in expected} == expected


def test_every_cgi_variable_is_a_str_of_latin_1(site: MakeSite) -> None:
    """ "a violation of this specification for any CGI variable's value to be of any type other"."""
    seen = Seen()
    environ = seen.of(
        site(seen),
        "POST",
        "/caf%C3%A9%FF?%FF",
        [("X-Latin", "caf\xe9"), ("Content-Type", "text/plain; x=\xe9")],
        b"body",
    )
    for key, value in environ.items():
        assert type(key) is str
        if "." not in key:
            assert type(value) is str, key
            value.encode("latin-1")


def test_variables_of_the_server_are_lower_case_with_a_name_before_the_dot(
    site: MakeSite,
) -> None:
    """ "named using only lower-case letters, numbers, dots, and underscores"."""
    seen = Seen()
    names = [name for name in seen.of(site(seen)) if not re.fullmatch("[A-Z_]+", name)]
    assert [name for name in names if not re.fullmatch(r"[a-z_]+(\.[a-z0-9_]+)+", name)] == []
    assert {name.split(".")[0] for name in names} <= {"wsgi", "twinspan"}


def test_request_method_is_the_method(site: MakeSite) -> None:
    seen = Seen()
    served = site(seen)
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        assert seen.of(served, method)["REQUEST_METHOD"] == method


@pytest.mark.filterwarnings("ignore:Unknown REQUEST_METHOD")
@pytest.mark.parametrize("method", ["PROPFIND", "get", "M-SEARCH", "X!#$%&'*+.^_`|~9"])
def test_a_method_that_nobody_knows_is_handed_on_as_it_is(site: MakeSite, method: str) -> None:
    """RFC 9110 §9.1: methods are case-sensitive, and anybody may define one."""
    seen = Seen()
    assert seen.of(site(seen), method)["REQUEST_METHOD"] == method


# --- The path ---


@where_there_is_no_prefix
def test_a_question_about_the_server_itself_has_no_path(site: MakeSite) -> None:
    """RFC 9110 §9.3.7: `OPTIONS *`; RFC 3875 §4.1.5: PATH_INFO is empty or begins with a slash."""
    seen = Seen()
    environ = seen.of(site(seen), "OPTIONS", "*")
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("", "")
    assert environ["REQUEST_URI"] == "*"


PATHS = {
    "/": "/",
    "/a": "/a",
    "/a/": "/a/",
    "//": "//",
    "//a": "//a",
    "/a//b": "/a//b",
    "/a%20b": "/a b",
    "/a+b": "/a+b",
    "/%61": "/a",
    "/a%2Fb": "/a/b",
    "/a%2fb": "/a/b",
    "/%25": "/%",
    "/%2525": "/%25",
    "/%zz": "/%zz",
    "/%": "/%",
    "/%3F": "/?",
    "/%23": "/#",
    "/a;b=c": "/a;b=c",
    "/a%3Bb": "/a;b",
    "/a:b@c": "/a:b@c",
    "/caf%C3%A9": "/caf\xc3\xa9",
    "/caf%E9": "/caf\xe9",
    "/%FF%FE": "/\xff\xfe",
    "/%E2%82%AC": "/\xe2\x82\xac",
    "/%00": "/\0",
    "/%0D%0A": "/\r\n",
    "/%7F": "/\x7f",
    "/...": "/...",
    "/.a": "/.a",
    "/a" * 300: "/a" * 300,
}


def test_script_name_is_the_mount_and_path_info_the_decoded_rest(site: MakeSite) -> None:
    """RFC 3875 §4.1.5: decoded, so `%2F` cannot be told; PEP 3333: each byte is one code point."""
    seen = Seen()
    served = site(seen)
    for path, expected in PATHS.items():
        environ = seen.of(served, path=path)
        assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (served.mount, expected), path


@where_there_is_a_prefix
def test_path_info_is_empty_for_the_mount_itself_and_a_slash_behind_it(site: MakeSite) -> None:
    """ "may be an empty string, if the request URL targets the application root"."""
    seen = Seen()
    served = site(seen)
    for path in ("", "/"):
        environ = seen.of(served, path=path)
        assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (served.mount, path)


@where_there_is_a_prefix
def test_a_mount_ends_at_a_segment(site: MakeSite) -> None:
    """`/mounted` is not `/mountedly`."""
    seen = Seen()
    served = site(seen)
    assert served.ask(path="ly").status == 404
    assert seen.environs == []


@where_there_is_a_prefix
def test_a_mount_is_found_however_it_is_encoded(site: MakeSite) -> None:
    seen = Seen()
    served = site(seen)
    assert served.connect().ask("GET", "/%6Dounted/a").status == 200
    environ = seen.environs.pop()
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (served.mount, "/a")


@pytest.mark.parametrize("path", ["/a/../b", "/a/%2e%2e/b", "/a/./b", "/..", "/%2E%2E%2Fb"])
def test_a_path_that_climbs_never_reaches_the_application(site: MakeSite, path: str) -> None:
    """Who resolves it and who does not would see two different requests."""
    seen = Seen()
    assert site(seen).ask(path=path).status == 400
    assert seen.environs == []


@where_a_target_may_be_absolute
def test_an_absolute_target_is_the_path_in_it(site: MakeSite) -> None:
    """RFC 9112 §3.2.2: a server must accept it; its host counts."""
    seen = Seen()
    served = site(seen)
    answer = served.connect().ask("GET", f"http://localhost{served.mount}/a%20b?c=d")
    assert answer.status == 200
    environ = seen.environs.pop()
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (served.mount, "/a b")
    assert (environ["QUERY_STRING"], environ["HTTP_HOST"]) == ("c=d", "localhost")


QUERIES = {
    "/": "",
    "/?": "",
    "/?a=b&c": "a=b&c",
    "/??": "?",
    "/?a?b": "a?b",
    "/?%20+%FF%00": "%20+%FF%00",
    "/?a/../b": "a/../b",
    "/?a;b'(c)[]{}|^": "a;b'(c)[]{}|^",
}


def test_query_string_is_what_follows_the_question_mark_as_it_was_sent(site: MakeSite) -> None:
    seen = Seen()
    served = site(seen)
    for path, query in QUERIES.items():
        assert seen.of(served, path=path)["QUERY_STRING"] == query


@pytest.mark.parametrize("path", ["/", "/a%20b/c", "/a?b=%20", "/caf%C3%A9//x;y=z", "/a%25b"])
def test_the_url_can_be_reconstructed(site: MakeSite, path: str) -> None:
    """PEP 3333, "URL Reconstruction", as `wsgiref.util` has it."""
    seen = Seen()
    served = site(seen)
    assert request_uri(seen.of(served, path=path)) == f"http://localhost{served.mount}{path}"


@where_the_host_may_be_missing
def test_without_a_host_server_name_and_port_make_up_the_url(site: MakeSite) -> None:
    seen = Seen()
    served = site(seen)
    with served.raw() as raw:
        raw.send(f"GET {served.mount}/a HTTP/1.0\r\n\r\n")
        assert raw.head().status == 200
    environ = seen.environs.pop()
    assert "HTTP_HOST" not in environ
    assert request_uri(environ) == f"http://127.0.0.1:{served.server.port}{served.mount}/a"


# --- The headers ---


def test_a_header_is_there_if_the_client_sent_it_and_else_not(site: MakeSite) -> None:
    """ "The presence or absence of these variables should correspond with the presence …"."""
    seen = Seen()
    served = site(seen)
    environ = seen.of(served, headers=[("X-App", "1"), ("X-Empty", ""), ("Accept", "*/*")])
    headers = {key: value for key, value in environ.items() if key.startswith("HTTP_")}
    headers.pop("HTTP_CONNECTION", None)
    assert headers == {
        "HTTP_HOST": "localhost",
        "HTTP_X_APP": "1",
        "HTTP_X_EMPTY": "",
        "HTTP_ACCEPT": "*/*",
    }
    assert "HTTP_X_APP" not in seen.of(served)


def test_type_and_length_of_the_content_have_variables_of_their_own(site: MakeSite) -> None:
    seen = Seen()
    environ = seen.of(site(seen), "POST", "/", [("Content-Type", "text/x-app; a=b")], b"four")
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("text/x-app; a=b", "4")
    assert not environ.keys() & {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"}


def test_a_request_without_content_has_neither(site: MakeSite) -> None:
    """The application can tell that no body was sent."""
    seen = Seen()
    environ = seen.of(site(seen))
    assert not environ.get("CONTENT_TYPE")
    assert not environ.get("CONTENT_LENGTH")


def test_an_empty_body_that_was_announced_has_the_length_zero(site: MakeSite) -> None:
    seen = Seen()
    assert seen.of(site(seen), "POST", body=b"")["CONTENT_LENGTH"] == "0"


@where_a_body_need_not_tell_its_length
def test_a_body_of_untold_length_has_no_content_length(site: MakeSite) -> None:
    """`wsgi.input_terminated` says that it may be read to its end all the same."""
    seen = Seen()
    served = site(seen)
    exchange = served.start("POST", length=UNTOLD)
    exchange.end()
    assert exchange.answer().status == 200
    environ = seen.environs.pop()
    assert "CONTENT_LENGTH" not in environ
    assert environ["wsgi.input_terminated"] is True


def test_headers_that_are_repeated_are_joined_in_their_order(site: MakeSite) -> None:
    """RFC 9110 §5.3."""
    headers = [("X-App", "a"), ("Accept", "b"), ("x-app", "c, d"), ("X-APP", "")]
    seen = Seen()
    environ = seen.of(site(seen), headers=headers)
    assert re.fullmatch("a, ?c, d, ?", environ["HTTP_X_APP"])


def test_cookies_that_are_repeated_are_one_cookie_header(site: MakeSite) -> None:
    """RFC 9113 §8.2.3: joined with "; ", so that the last is not part of the one before."""
    seen = Seen()
    headers = [("Cookie", "a=1"), ("Cookie", "b=2; c=3"), ("Cookie", "d=4")]
    assert seen.of(site(seen), headers=headers)["HTTP_COOKIE"] == "a=1; b=2; c=3; d=4"


def test_a_name_with_an_underscore_cannot_pose_as_one_with_a_hyphen(site: MakeSite) -> None:
    """`X_Forwarded_For` would have the key of `X-Forwarded-For`."""
    seen = Seen()
    served = site(seen)
    environ = seen.of(served, headers=[("X_User", "admin"), ("X_", "1"), ("Content_Length", "9")])
    assert not environ.keys() & {"HTTP_X_USER", "HTTP_X_", "HTTP_CONTENT_LENGTH"}
    assert not environ.get("CONTENT_LENGTH")
    both = [("X-User", "guest"), ("X_User", "admin"), ("x_user", "root")]
    assert seen.of(served, headers=both)["HTTP_X_USER"] == "guest"


def test_a_header_cannot_set_a_variable_that_is_no_header(site: MakeSite) -> None:
    seen = Seen()
    served = site(seen)
    names = ("Script-Name", "Path-Info", "Remote-User", "Remote-Addr", "Wsgi.Input", "Proxy")
    environ = seen.of(served, headers=[(name, "forged") for name in names])
    assert environ["SCRIPT_NAME"] == served.mount
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    assert "REMOTE_USER" not in environ
    forged = {key for key, value in environ.items() if value == "forged"}
    assert {key for key in forged if not key.startswith("HTTP_")} == set()


def test_the_bytes_of_a_header_are_one_code_point_each(site: MakeSite) -> None:
    seen = Seen()
    headers = [("X-Latin", "caf\xe9"), ("X-Utf-8", "\u20ac".encode().decode("latin-1"))]
    environ = seen.of(site(seen), headers=headers)
    assert environ["HTTP_X_LATIN"] == "caf\xe9"
    assert environ["HTTP_X_UTF_8"].encode("latin-1").decode() == "\u20ac"


def test_the_host_is_the_one_that_was_asked_for(site: MakeSite) -> None:
    """On HTTP/2 it is in `:authority` (RFC 9113 §8.3.1)."""
    seen = Seen()
    assert seen.of(site(seen))["HTTP_HOST"] == "localhost"


# --- The two ends of the connection ---


def test_remote_addr_and_remote_port_are_those_of_the_client(site: MakeSite) -> None:
    seen = Seen()
    served = site(seen)
    connection = served.connect()
    assert connection.ask("GET", f"{served.mount}/").status == 200
    environ = seen.environs.pop()
    address, port = connection.socket.getsockname()
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == (address, str(port))


def test_a_trusted_proxy_says_who_the_client_is_and_which_scheme_it_used(site: MakeSite) -> None:
    seen = Seen()
    served = site(seen, forwarded_allow_ips="127.0.0.1")
    headers = [("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "https")]
    environ = seen.of(served, headers=headers)
    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("192.0.2.7", "https")


def test_nobody_else_may_say_that(site: MakeSite) -> None:
    seen = Seen()
    served = site(seen, forwarded_allow_ips="192.0.2.1")
    headers = [("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "https")]
    environ = seen.of(served, headers=headers)
    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("127.0.0.1", "http")


def test_on_a_unix_socket_name_and_port_are_strings_that_are_not_empty(
    site: MakeSite, tmp_path: Path
) -> None:
    """ "SERVER_NAME and SERVER_PORT are required strings and must never be empty"."""
    seen = Seen()
    served = site(seen, uds=str(tmp_path / "socket"))
    environ = seen.of(served)
    assert environ["SERVER_NAME"] == "localhost"
    assert environ["SERVER_PORT"] == "80"
    assert environ["REMOTE_ADDR"] == ""
