"""ASGI 2.5, "HTTP Connection Scope"."""

from __future__ import annotations

import copy
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from conformance.asgi.apps import Gate, Receive, Scope, Send, Site, respond, values
from conformance.clients import HTTP_2, connect
from conformance.sites import (
    where_a_connection_has_many_streams,
    where_a_target_may_be_absolute,
    where_the_host_may_be_missing,
    where_there_is_a_prefix,
    where_there_is_no_prefix,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twinspan.testing import Server

if TYPE_CHECKING:
    from pathlib import Path

    from conformance.clients import Answer, Connection, Fields


class Kept:
    """An application that keeps a copy of each scope, whose headers may be read only once."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        kept = copy.copy(scope)
        kept["headers"] = [(name, value) for name, value in scope["headers"]]
        self.scopes.append(kept)
        await respond(send)

    def of(
        self,
        site: Site,
        method: str = "GET",
        path: str = "/",
        headers: Fields = (),
        body: bytes | None = None,
    ) -> Scope:
        """The scope of one request."""
        return self.of_answer(site.ask(method, path, headers, body))

    def of_answer(self, answer: Answer) -> Scope:
        assert answer.status == 200
        return self.scopes.pop()


@pytest.fixture
def kept(site: Site) -> Kept:
    app = Kept()
    site.serve(app)
    return app


VERSIONS = {"HTTP/1.0": "1.0", "HTTP/1.1": "1.1", "HTTP/2": "2"}


# --- The dictionary ---


def test_every_key_is_there_with_its_type(site: Site, kept: Kept) -> None:
    connection = site.connect()
    scope = kept.of_answer(connection.ask("GET", f"{site.mount}/path?query=1"))
    extensions = scope.pop("extensions")
    assert type(extensions) is dict
    headers = scope.pop("headers")
    assert headers[0] == (b"host", b"localhost")
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": VERSIONS[site.protocol],
        "method": "GET",
        "scheme": "http",
        "path": f"{site.mount}/path",
        "raw_path": f"{site.mount}/path".encode(),
        "query_string": b"query=1",
        "root_path": site.mount,
        "client": connection.socket.getsockname(),
        "server": ("127.0.0.1", site.server.port),
        "state": {"shared": ["of the lifespan"], "name": "place"},
    }
    for host, port in (scope["client"], scope["server"]):
        assert (type(host), type(port)) == (str, int)


def test_the_scope_is_a_plain_dict(site: Site) -> None:
    """Applications copy it, add to it and hand it on: `{**scope, …}`, `scope["app"] = …`."""
    types: list[type] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        types.extend([type(scope), type(scope["state"]), type(scope["asgi"])])
        await respond(send)

    site.serve(app)
    assert site.ask().status == 200
    assert types == [dict] * 3


def test_a_scope_belongs_to_one_request(site: Site) -> None:
    before: list[Scope] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        before.append(copy.deepcopy({**scope, "state": None, "client": None}))
        scope["extensions"]["own"] = {}
        scope["state"]["own"] = object()
        scope["path"] = scope["raw_path"] = None
        scope["headers"] = None
        scope["own"] = object()
        await respond(send)
        scope.clear()

    site.serve(app)
    connection = site.connect()
    for _ in range(3):
        assert connection.ask("GET", f"{site.mount}/").status == 200
    assert before[0] == before[1] == before[2]


@where_a_connection_has_many_streams
def test_requests_at_the_same_time_on_one_connection_have_scopes_of_their_own(
    site: Site,
) -> None:
    """ "should give different scopes to different requests on the same HTTP/2 connection"."""
    scopes: list[Scope] = []
    gate = Gate()

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await gate.passed()
        await respond(send, scope["raw_path"])

    site.serve(app)
    connection = site.connect()
    exchanges = [connection.start(target=f"{site.mount}/{number}") for number in range(3)]
    gate.open()
    for number, exchange in reversed(list(enumerate(exchanges))):
        assert exchange.answer().body == f"{site.mount}/{number}".encode()
    assert len({id(scope) for scope in scopes}) == 3
    assert len({id(scope["headers"]) for scope in scopes}) == 3


def test_a_scope_may_be_kept_after_its_request(site: Site) -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await respond(send)

    site.serve(app)
    for number in range(2):
        assert site.ask(path=f"/{number}", headers=[("X-Number", str(number))]).status == 200
    site.hang_up()
    for number, scope in enumerate(scopes):
        assert scope["path"] == f"{site.mount}/{number}"
        assert values(scope["headers"], b"x-number") == [str(number).encode()]


# --- state ---


def test_state_is_a_shallow_copy_of_what_the_lifespan_left(site: Site) -> None:
    states: list[dict[str, Any]] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        states.append(scope["state"])
        scope["state"]["name"] = "changed"
        scope["state"]["request"] = len(states)
        await respond(send)

    site.serve(app)
    connection = site.connect()
    for _ in range(2):
        assert connection.ask("GET", f"{site.mount}/").status == 200
    first, second = states
    assert first is not second
    assert (first["request"], second["request"]) == (1, 2)
    assert first["shared"] is second["shared"]


def test_applications_do_not_share_their_states(site: Site, kept: Kept, stage: Any) -> None:
    other = next(place for mount, place in stage.places.items() if mount != site.mount)
    others = Kept()
    other.serve(others)
    elsewhere = "" if site.mount else "/mounted"
    mine = kept.of(site)
    theirs = others.of_answer(site.connect().ask("GET", f"{elsewhere}/"))
    assert mine["state"] == theirs["state"]
    assert mine["state"]["shared"] is not theirs["state"]["shared"]


# --- method, scheme, server, client ---


def test_method_is_the_method_in_upper_case(site: Site, kept: Kept) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE"):
        assert kept.of(site, method)["method"] == method


def test_on_a_unix_socket_there_is_no_client_and_the_server_is_a_path(
    protocol: str, tmp_path: Path
) -> None:
    """ "or `[path, None]` where `path` is that of the unix socket"."""
    app = Kept()
    path = tmp_path / "socket"
    with Server(app, uds=str(path), lifespan="off") as server:
        connection = connect(protocol, server.address)
        scope = app.of_answer(connection.ask())
        connection.close()
    assert scope["client"] is None
    assert list(scope["server"]) == [str(path), None]


def test_over_ipv6_the_addresses_have_no_brackets() -> None:
    app = Kept()
    with (
        Server(app, bind="[::1]:0", lifespan="off") as server,
        socket.create_connection(("::1", server.port)) as client,
    ):
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while client.recv(1024):
            pass
        mine = client.getsockname()[:2]
        port = server.port
    assert app.scopes[0]["client"] == mine
    assert app.scopes[0]["server"] == ("::1", port)


# --- path, raw_path, root_path, query_string ---

PATHS = {
    "/": "/",
    "/a/b": "/a/b",
    "//a//b": "//a//b",
    "/a/": "/a/",
    "/a%20b+c": "/a b+c",
    "/caf%C3%A9": "/caf\xe9",
    "/caf%c3%a9": "/caf\xe9",
    "/%F0%9F%90%8D": "/\N{SNAKE}",
    "/a%2Fb": "/a/b",
    "/a%252Fb": "/a%2Fb",
    "/%25": "/%",
    "/%00": "/\0",
    "/%7Ea~": "/~a~",
    "/a;b=c,d": "/a;b=c,d",
    "/:@!$&'()*": "/:@!$&'()*",
    "/%3Fnot-a-query": "/?not-a-query",
    "/100%": "/100%",
    "/%zz": "/%zz",
    # What is not UTF-8 cannot be decoded; `raw_path` has it.
    "/%FF": "/\N{REPLACEMENT CHARACTER}",
    "/a%E2%82b": "/a\N{REPLACEMENT CHARACTER}b",
}


@pytest.mark.parametrize("path", PATHS)
def test_path_is_decoded_and_raw_path_is_what_was_sent(site: Site, kept: Kept, path: str) -> None:
    scope = kept.of(site, path=f"{path}?a=%2F")
    assert scope["path"] == site.mount + PATHS[path]
    assert scope["raw_path"] == (site.mount + path).encode()
    scope["path"].encode()


@pytest.mark.parametrize("path", PATHS)
def test_root_path_begins_path(site: Site, kept: Kept, path: str) -> None:
    """As frameworks take it away: what they route is `path` without `root_path`."""
    scope = kept.of(site, path=path)
    assert scope["path"].startswith(scope["root_path"])
    assert scope["root_path"] == site.mount


@where_there_is_a_prefix
@pytest.mark.parametrize("target", ["/mounted", "/mounted/", "/%6dounted/", "/mounted?query"])
def test_at_the_mount_itself_path_is_root_path_with_or_without_a_slash(
    site: Site, kept: Kept, target: str
) -> None:
    scope = kept.of_answer(site.connect().ask("GET", target))
    assert scope["root_path"] == "/mounted"
    assert scope["path"] == ("/mounted/" if "/" in target[1:] else "/mounted")
    assert scope["raw_path"] == target.partition("?")[0].encode()


@where_there_is_no_prefix
def test_the_target_of_options_may_be_an_asterisk(site: Site, kept: Kept) -> None:
    scope = kept.of_answer(site.connect().ask("OPTIONS", "*"))
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("*", b"*", b"")


@where_a_target_may_be_absolute
def test_a_target_may_be_absolute_and_its_path_is_the_path(site: Site, kept: Kept) -> None:
    target = f"http://localhost{site.mount}/a%2Fb?c=d"
    scope = kept.of_answer(site.connect().ask("GET", target))
    assert scope["path"] == f"{site.mount}/a/b"
    assert scope["raw_path"] == f"{site.mount}/a%2Fb".encode()
    assert scope["query_string"] == b"c=d"
    assert values(scope["headers"], b"host") == [b"localhost"]


@pytest.mark.parametrize(
    "query",
    ["a=1&b=2", "", "a=%20+&a", "?/:@", "%FF%00", "a=b%26c", "caf%C3%A9", "=&&=", "%zz", "%"],
)
def test_query_string_is_the_bytes_after_the_question_mark(
    site: Site, kept: Kept, query: str
) -> None:
    assert kept.of(site, path=f"/path?{query}")["query_string"] == query.encode()
    assert kept.of(site, path="/path")["query_string"] == b""


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), min_size=1))
def test_any_text_arrives_as_it_was_quoted(
    site: Site, kept: Kept, shared: Connection, text: str
) -> None:
    quoted = quote(text, safe="")
    if quoted in {".", ".."}:
        quoted += "x"
        text += "x"
    target = f"{site.mount}/{quoted}"
    scope = kept.of_answer(shared.ask("GET", f"{target}?{quoted}"))
    assert scope["path"] == f"{site.mount}/{text}"
    assert scope["raw_path"] == target.encode()
    assert scope["query_string"] == quoted.encode()


# --- headers ---


@pytest.fixture
def shared(site: Site) -> Connection:
    """One connection for all examples of a test."""
    return site.connect()


def test_headers_are_pairs_of_bytes_with_names_in_lower_case(site: Site, kept: Kept) -> None:
    fields = [("X-UPPER-case", "Value"), ("Accept", "text/plain"), ("X-Empty", "")]
    headers = kept.of(site, headers=fields)["headers"]
    for name, value in headers:
        assert type(name) is bytes
        assert type(value) is bytes
        assert name == name.lower()
        assert not name.startswith(b":"), "a pseudo header"
    assert values(headers, b"x-upper-case") == [b"Value"]
    assert values(headers, b"x-empty") == [b""]


def test_headers_may_be_read_more_than_once(site: Site) -> None:
    same: list[bool] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        same.append(list(scope["headers"]) == list(scope["headers"]) != [])
        await respond(send)

    site.serve(app)
    assert site.ask().status == 200
    assert same == [True]


def test_duplicates_are_kept_in_their_order_and_not_joined(site: Site, kept: Kept) -> None:
    """ "Duplicates are possible and must be preserved in the message as received"."""
    fields = [("X-A", "1"), ("X-B", "1"), ("x-a", "2"), ("X-A", "1"), ("X-a", "3, 4")]
    headers = kept.of(site, headers=fields)["headers"]
    assert values(headers, b"x-a") == [b"1", b"2", b"1", b"3, 4"]
    assert values(headers, b"x-b") == [b"1"]


def test_cookies_are_kept_as_they_came(site: Site, kept: Kept) -> None:
    """HTTP/2 may send crumbs, which are not for the server to join."""
    fields = [("Cookie", "a=1; b=2"), ("Accept", "*/*"), ("Cookie", "c=3")]
    assert values(kept.of(site, headers=fields)["headers"], b"cookie") == [b"a=1; b=2", b"c=3"]


def test_values_are_bytes_of_any_kind_without_the_white_space_around_them(
    site: Site, kept: Kept
) -> None:
    value = "\xe9\xff\x80 inner  space\tand tab"
    padded = f" \t{value} " if site.protocol != HTTP_2 else value
    headers = kept.of(site, headers=[("X-Latin", padded)])["headers"]
    assert values(headers, b"x-latin") == [value.encode("latin-1")]


@where_a_connection_has_many_streams
def test_the_authority_of_http2_is_the_first_header_as_host(site: Site, kept: Kept) -> None:
    """ "its value must be added to the start of the iterable with `host` as the header name"."""
    headers = kept.of(site, headers=[("x-a", "1")])["headers"]
    assert headers[0] == (b"host", b"localhost")
    assert len(values(headers, b"host")) == 1


@where_a_connection_has_many_streams
def test_the_authority_of_http2_takes_the_place_of_a_host(site: Site, kept: Kept) -> None:
    """ "or replace any existing host header already present"."""
    headers = kept.of(site, headers=[("x-a", "1"), ("host", "localhost")])["headers"]
    assert values(headers, b"host") == [b"localhost"]


@where_the_host_may_be_missing
@where_there_is_no_prefix
def test_a_host_that_was_not_sent_is_not_made_up(site: Site, kept: Kept) -> None:
    with site.raw() as client:
        client.send("GET / HTTP/1.0\r\nX-A: 1\r\n\r\n")
        assert client.answer().status == 200
    assert kept.scopes[0]["headers"] == [(b"x-a", b"1")]


NAMES = st.sampled_from(
    ["X-A", "x-a", "X-B", "Accept", "X-Long-Name", "x_y", "Cookie", "Forwarded"]
)
TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"))


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(fields=st.lists(st.tuples(NAMES, TEXTS.map(str.strip)), max_size=12))
def test_the_values_of_each_name_arrive_in_their_order(
    site: Site, kept: Kept, shared: Connection, fields: list[tuple[str, str]]
) -> None:
    # What Python calls white space, HTTP does not.
    fields = [(name, value.strip(" \t")) for name, value in fields]
    scope = kept.of_answer(shared.ask("GET", f"{site.mount}/", fields))
    for wanted in {name.lower() for name, _ in fields}:
        sent = [value.encode("latin-1") for name, value in fields if name.lower() == wanted]
        assert values(scope["headers"], wanted.encode()) == sent


# --- what a scope is good for ---


def test_the_app_of_starlette_builds_the_url_that_was_asked_for(site: Site) -> None:
    from starlette.requests import Request

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await respond(send, f"{request.url} {request.base_url}".encode())

    site.serve(app)
    expected = f"http://localhost{site.mount}/a/b?c=d http://localhost{site.mount}/"
    assert site.ask(path="/a/b?c=d").body.decode() == expected


def test_what_an_application_writes_into_a_scope_reaches_no_other(site: Site) -> None:
    seen: list[dict[str, Any]] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        seen.append(dict(scope["asgi"]))
        scope["asgi"]["spec_version"] = "changed"
        scope["asgi"].setdefault("own", 1)
        await respond(send)

    site.serve(app)
    for _ in range(2):
        assert site.ask().status == 200
    assert seen[0] == seen[1] == {"version": "3.0", "spec_version": "2.5"}


def test_asgiref_makes_an_environ_of_the_scope(site: Site) -> None:
    """ "an almost direct mapping for the various special keys in WSGI's `environ`"."""
    from asgiref.wsgi import WsgiToAsgi

    environs: list[dict[str, Any]] = []

    def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environs.append(environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["wsgi.input"].read()]

    site.serve(WsgiToAsgi(wsgi))
    answer = site.ask("POST", "/caf%C3%A9?q=1", [("Content-Type", "text/plain")], b"body")
    assert (answer.status, answer.body) == (200, b"body")
    environ = environs[0]
    expected = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": site.mount,
        "PATH_INFO": "/caf\xc3\xa9",
        "QUERY_STRING": "q=1",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "4",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(site.server.port),
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.url_scheme": "http",
    }
    assert {key: environ.get(key) for key in expected} == expected
