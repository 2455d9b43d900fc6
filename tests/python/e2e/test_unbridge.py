"""`--unbridge`: what an ASGI application hands to WSGI through a bridge is served without it.

Two servers of each kind run the same application, one of them crosses the bridges. Whatever is
asked, both answer the same, but for what the middleware of the outer application adds.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest
from e2e.wire import FOR_TESTS, ask
from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from e2e.wire import StartShared
    from support import Command, StartCommand

APP = "apps.bridged:app"
BRIDGED = re.compile(r"application apps: (\S+) goes to WSGI through (\S+), which (.+); (.+)$")
SERVED = re.compile(r"application (apps:\S+): WSGI, 3 threads, serves (\S+) of apps natively")


class Pair(NamedTuple):
    """The same application twice."""

    bridged: Command
    native: Command
    prefix: str
    """What comes before its paths."""
    root: str
    """`SCRIPT_NAME` of what is not mounted anywhere else."""
    client: httpx.Client


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(trust_env=False, timeout=20, limits=limits) as client:
        yield client


@pytest.fixture(scope="module", params=["at the root", "below a mount"])
def pair(request: pytest.FixtureRequest, start_shared: StartShared, client: httpx.Client) -> Pair:
    arguments, prefix, root = (APP, "--threads", "3"), "", ""
    if request.param == "below a mount":
        mount = ("--mount", f"/site={APP}", "--root-path", "/public")
        arguments, prefix, root = (*mount, "--threads", "3"), "/site", "/public/site"
    bridged, native = start_shared(*arguments), start_shared(*arguments, "--unbridge")
    return Pair(bridged, native, prefix, root, client)


@pytest.fixture(scope="module")
def shells(start_shared: StartShared, client: httpx.Client) -> Pair:
    app = "apps.bridged:shell"
    return Pair(start_shared(app), start_shared(app, "--unbridge"), "", "", client)


def both(pair: Pair, method: str, path: str, **options: Any) -> Iterator[httpx.Response]:
    """Asks both servers: the bridged one, then the other."""
    for server in (pair.bridged, pair.native):
        pair.client.cookies.clear()
        yield pair.client.request(method, server.url + pair.prefix + path, **options)


def assert_same(pair: Pair, method: str, path: str, **options: Any) -> httpx.Response:
    """Gives the answer of the server that crosses no bridge."""
    bridged, native = both(pair, method, path, **options)
    assert native.status_code == bridged.status_code
    assert native.text == bridged.text
    for name in ("content-type", "set-cookie"):
        assert native.headers.get_list(name) == bridged.headers.get_list(name)
    assert not bridged.headers.get("x-thread", "").startswith("twinspan-apps:")
    return native


@pytest.mark.parametrize(
    ("path", "script_name", "path_info"),
    [
        ("/legacy/", "/legacy", "/"),
        ("/legacy/items", "/legacy", "/items"),
        ("/legacy//twice", "/legacy", "//twice"),
        ("/legacy/a%20b/%C3%A4", "/legacy", "/a b/Ã¤"),
        ("/legacy/a%2Fb?c=%2F&d", "/legacy", "/a/b"),
        ("/%6Cegacy/items", "/legacy", "/items"),
        # A route after the mount is hidden by it.
        ("/legacy/late", "/legacy", "/late"),
        # One before it, for another method.
        ("/legacy/items/5", "/legacy", "/items/5"),
        ("/starlette/items", "/starlette", "/items"),
        ("/asgiref/items?x=1", "/asgiref", "/items"),
        ("/subclass/items", "/subclass", "/items"),
        ("/alike/items", "/alike", "/items"),
        ("/wrapped/items", "/wrapped", "/items"),
        ("/nested/inner/deep/items", "/nested/inner/deep", "/items"),
        ("/gr%C3%B6%C3%9Fe/items", "/grÃ¶Ã\x9fe", "/items"),
    ],
)
def test_the_environ_is_that_of_the_bridge(
    pair: Pair, path: str, script_name: str, path_info: str
) -> None:
    answer = assert_same(pair, "GET", path)
    told = answer.json()
    assert told["SCRIPT_NAME"] == pair.root + script_name
    assert told["PATH_INFO"] == path_info
    assert told["QUERY_STRING"] == path.partition("?")[2]
    name = script_name.encode("latin-1").decode()
    assert answer.headers["x-thread"].startswith(f"twinspan-apps:{name}-")
    assert "x-audited" not in answer.headers


@pytest.mark.parametrize("bridge", ["legacy", "starlette", "asgiref"])
def test_bodies_cookies_and_streams_are_the_same(pair: Pair, bridge: str) -> None:
    body = "ä" * 70_000
    cookies = {"cookie": "a=1; b=2"}
    posted = assert_same(pair, "POST", f"/{bridge}/form?x=1", content=body, headers=cookies)
    assert posted.json()["body"] == body
    assert posted.json()["HTTP_COOKIE"] == "a=1; b=2"
    assert len(assert_same(pair, "GET", f"/{bridge}/cookies").headers.get_list("set-cookie")) == 2
    assert assert_same(pair, "PUT", f"/{bridge}/stream", content="x").json()["body"] == "x"
    assert assert_same(pair, "GET", f"/{bridge}/nowhere").status_code == 404
    head = assert_same(pair, "HEAD", f"/{bridge}/items")
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/legacy/own", {"outer": "own"}),
        ("POST", "/legacy/items/5", {"outer": "5"}),
        ("GET", "/nested/inner/own", "outer"),
        ("GET", "/nowhere", {"detail": "Not Found"}),
        ("GET", "/legacyx/", {"detail": "Not Found"}),
    ],
)
def test_what_the_outer_application_defines_before_stays_with_it(
    pair: Pair, method: str, path: str, expected: object
) -> None:
    answer = assert_same(pair, method, path)
    assert (answer.text if isinstance(expected, str) else answer.json()) == expected
    assert answer.headers["x-audited"] == "yes"


def test_the_bare_prefix_is_redirected_from_as_before(pair: Pair) -> None:
    bridged, native = both(pair, "GET", "/legacy")
    assert (bridged.status_code, native.status_code) == (307, 307)
    assert bridged.headers["location"].endswith("/legacy/")
    assert native.headers["location"].endswith("/legacy/")
    assert native.headers["x-audited"] == "yes"


def test_a_preflight_for_an_outer_route_is_answered_by_the_outer_middleware(pair: Pair) -> None:
    asks = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    for answer in both(pair, "OPTIONS", "/legacy/items/5", headers=asks):
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"


def test_what_has_an_obstacle_goes_through_its_bridge(pair: Pair) -> None:
    told = assert_same(pair, "GET", "/tenants/red/items").json()
    assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == (pair.root + "/tenants/red", "/items")
    _, native = both(pair, "GET", "/items", headers={"host": "legacy.example"})
    assert native.json()["PATH_INFO"] == "/items"
    assert native.headers["x-audited"] == "yes"


def test_a_line_feed_in_a_path_is_as_unknown_as_before(pair: Pair) -> None:
    assert assert_same(pair, "GET", "/legacy/a%0Ab").status_code == 404


def test_websockets_below_the_prefix_stay_with_the_outer_application(pair: Pair) -> None:
    for server in (pair.bridged, pair.native):
        with connect(f"ws://127.0.0.1:{server.port}{pair.prefix}/legacy/ws") as websocket:
            assert websocket.recv() == "outer"


def test_the_access_log_names_who_answered(pair: Pair) -> None:
    ask(pair.native.port, "GET", f"{pair.prefix}/legacy/logged")
    line = pair.native.wait_for_line(r"/legacy/logged ").string
    assert " app=apps:/legacy " in line
    rule = "mount /site" if pair.prefix else "catch-all"
    assert f' rule="{rule}"' in line


def test_a_shell_keeps_its_own_routes_and_nothing_else(shells: Pair) -> None:
    assert assert_same(shells, "GET", "/native/5").json() == {"outer": "5"}
    for path in ("/", "/items", "/native", "/native/5/more"):
        answer = assert_same(shells, "GET", path)
        assert answer.json()["SCRIPT_NAME"] == ""
        assert answer.json()["PATH_INFO"] == path
        assert answer.headers["x-thread"].startswith("twinspan-apps:/-")
    # FastAPI defines GET without HEAD: what is mounted answers that.
    bridged, native = both(shells, "HEAD", "/native/5")
    assert (bridged.status_code, native.status_code) == (200, 200)


def test_every_bridge_is_named_with_its_cost_and_the_way_out(pair: Pair) -> None:
    found = {
        match[1]: match.groups()[1:] for match in map(BRIDGED.search, lines(pair.bridged)) if match
    }
    native = "`--unbridge` serves it natively"
    assert found == {
        "/legacy": ("a2wsgi.wsgi.WSGIMiddleware", LOOP, native),
        "/starlette": ("starlette.middleware.wsgi.WSGIMiddleware", IN_MEMORY, native),
        "/asgiref": ("asgiref.wsgi.WsgiToAsgi", IN_TURN, native),
        "/subclass": ("apps.bridged.Subclass", LOOP, native),
        "/alike": ("apps.bridged.LookAlike", LOOP, native),
        "/wrapped": ("a2wsgi.wsgi.WSGIMiddleware", LOOP, native),
        "/nested/inner/deep": ("a2wsgi.wsgi.WSGIMiddleware", LOOP, native),
        "/größe": ("a2wsgi.wsgi.WSGIMiddleware", LOOP, native),
        "/tenants/{name}": (
            "a2wsgi.wsgi.WSGIMiddleware",
            LOOP,
            "`--unbridge` cannot help: its path has parameters",
        ),
        "/": (
            "a2wsgi.wsgi.WSGIMiddleware",
            LOOP,
            "`--unbridge` cannot help: it answers certain hosts only",
        ),
    }
    assert not [line for line in lines(pair.bridged) if " WARN " in line]


LOOP = "moves every request and every block of a response across the event loop"
IN_MEMORY = "reads each request body into memory before the application runs"
IN_TURN = "reads each request body first, and runs one request at a time"


def lines(server: Command) -> list[str]:
    """What was said at the start: the addresses come last."""
    return server.text.partition("listening on")[0].splitlines()


def test_what_no_longer_runs_is_warned_of(pair: Pair) -> None:
    served = [match[1] for match in map(SERVED.search, lines(pair.native)) if match]
    warned = {
        match[1]: match[2]
        for match in re.finditer(
            r"`(apps:\S+)` is served natively: its requests no longer pass (.+)", pair.native.text
        )
    }
    assert len(served) == 8
    assert sorted(warned) == sorted(served)
    for passes in warned.values():
        assert re.match(r"apps\.bridged\.audit \(\S+bridged\.py:\d+\), starlette\S+CORS", passes)
    for name, own in [("subclass", "Subclass"), ("alike", "LookAlike"), ("wrapped", "Passing")]:
        assert f", apps.bridged.{own} (" in warned[f"apps:/{name}"]
    assert re.search(
        r"/tenants/\{name\} of `apps` is not served natively, its requests go through "
        r"`a2wsgi\.wsgi\.WSGIMiddleware` as before: its path has parameters",
        pair.native.text,
    )


def test_it_is_chosen_for_each_application_and_counted_under_its_own_name(
    command: StartCommand, tmp_path: Path
) -> None:
    config = """
        [apps.one]
        app = "apps.bridged:app"
        unbridge = true
        threads = 2

        [apps.two]
        app = "apps.bridged:shell"

        [[routes]]
        app = "one"
        mount = "/one"

        [[routes]]
        app = "two"
    """
    path = tmp_path / "admin.sock"
    server = command(
        *("--workers", "2", "--admin", f"unix:{path}", *FOR_TESTS),
        files={"twinspan.toml": config},
    )
    transport = httpx.HTTPTransport(uds=str(path))
    with httpx.Client(transport=transport, base_url="http://admin") as admin:
        for _ in range(8):
            answer = ask(server.port, "GET", "/one/legacy/items")
            assert answer.headers["x-thread"].startswith("twinspan-one:/legacy-")
        assert not ask(server.port, "GET", "/items").headers["x-thread"].startswith("twinspan")
        metrics = admin.get("/metrics").text
        status = json.loads(admin.get("/status").text)
    assert 'twinspan_requests_total{app="one:/legacy",status="200"} 8' in metrics
    assert 'twinspan_pool_threads{app="one:/legacy"} 4' in metrics
    assert "one:/legacy" in status["server"]["apps"]
    assert "two:/" not in status["server"]["apps"]
    assert server.terminate() == 0
