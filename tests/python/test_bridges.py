"""Which bridges to WSGI applications are found in an ASGI application, and what is told of them."""

from __future__ import annotations

import inspect
import re
import warnings
from typing import TYPE_CHECKING, Any

import a2wsgi
import pytest
from asgiref.wsgi import WsgiToAsgi
from fastapi import APIRouter, Depends, FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from twinspan._bridges import BridgeInfo, find
from werkzeug.middleware.proxy_fix import ProxyFix

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecated, and in use
    from fastapi.middleware.wsgi import WSGIMiddleware as FastapiWsgi
    from starlette.middleware.wsgi import WSGIMiddleware as StarletteWsgi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from starlette.types import ASGIApp, Receive, Scope, Send

# Its types say less than it takes.
A2Wsgi: Any = a2wsgi.WSGIMiddleware

flask = Flask(__name__)


def plain(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return []


def terse(e: Any, s: Any) -> Iterable[bytes]:
    return []


def on_error(request: object, error: object) -> None:
    raise NotImplementedError


class Legacy:
    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return plain(environ, start_response)


class Guarded(A2Wsgi):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError


class LookAlike:
    def __init__(self, legacy: object, **others: object) -> None:
        self.legacy = legacy
        self.limit = 3
        vars(self).update(others)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


class Returning(LookAlike):
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        raise NotImplementedError


class Slotted:
    __slots__ = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


class Audit:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


def view(request: object) -> PlainTextResponse:
    return PlainTextResponse("")


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotImplementedError


BRIDGE = Mount("/legacy", A2Wsgi(plain))


def only(app: object, router: object | None = None) -> BridgeInfo:
    (found,) = find(app, router)
    return found


def mounted(bridge: Any, path: str = "/legacy") -> Starlette:
    return Starlette(routes=[Mount(path, app=bridge)])


def names(found: BridgeInfo) -> list[str]:
    return [passed["name"].removeprefix(f"{__name__}.") for passed in found["passes"]]


@pytest.mark.parametrize(
    ("bridge", "application", "name"),
    [
        (StarletteWsgi(flask), flask, "starlette.middleware.wsgi.WSGIMiddleware"),
        (FastapiWsgi(flask), flask, "starlette.middleware.wsgi.WSGIMiddleware"),
        (A2Wsgi(flask), flask, "a2wsgi.wsgi.WSGIMiddleware"),
        (A2Wsgi(plain), plain, "a2wsgi.wsgi.WSGIMiddleware"),
        # Whatever a bridge has been given is WSGI, by whatever names.
        (A2Wsgi(terse), terse, "a2wsgi.wsgi.WSGIMiddleware"),
        (WsgiToAsgi(flask), flask, "asgiref.wsgi.WsgiToAsgi"),
    ],
)
def test_the_usual_bridges_are_known(bridge: object, application: object, name: str) -> None:
    found = only(mounted(bridge))
    assert found["bridge"] == name
    assert found["prefix"] == "/legacy"
    assert found["obstacle"] is None
    assert found["passes"] == []
    assert found["application"] is application


@pytest.mark.parametrize(
    ("bridge", "name"),
    [
        (Guarded(flask), "Guarded"),
        (LookAlike(flask), "LookAlike"),
        (LookAlike(flask.wsgi_app), "LookAlike"),
        (LookAlike(Legacy()), "LookAlike"),
        (LookAlike(ProxyFix(flask.wsgi_app)), "LookAlike"),
        (LookAlike(plain, log=print, make=dict), "LookAlike"),
        (Returning(flask), "Returning"),
    ],
)
def test_what_has_code_of_its_own_is_itself_passed(bridge: object, name: str) -> None:
    found = only(mounted(bridge))
    assert found["bridge"].endswith(f".{name}")
    assert names(found) == [name]
    assert found["passes"][0]["file"] == __file__


@pytest.mark.parametrize(
    "target",
    [
        asgi,
        plain,
        flask,
        Slotted(),
        LookAlike(on_error),
        LookAlike(flask, other=asgi),
        LookAlike(flask, other=plain),
        LookAlike(Legacy),
        Audit(asgi),
    ],
)
def test_what_is_no_bridge_is_none(target: object) -> None:
    assert find(mounted(target)) == []


def test_a_bridge_needs_no_router_above_it() -> None:
    found = only(Audit(WsgiToAsgi(plain)))
    assert (found["prefix"], found["obstacle"], names(found)) == ("", None, ["Audit"])


def test_a_circle_of_wrappers_ends() -> None:
    circle = Audit(asgi)
    circle.app = circle
    assert find(circle) == []


def test_an_application_within_itself_is_looked_into_once() -> None:
    app = Router([BRIDGE])
    app.mount("/again", app)
    assert [found["prefix"] for found in find(app)] == ["/legacy"]


def test_mounts_in_mounts_add_up() -> None:
    inner = mounted(A2Wsgi(plain), "/inner")
    routed = Mount("/more", routes=[Mount("/deep", StarletteWsgi(plain))])
    app = Starlette(routes=[Mount("/outer", inner), routed])
    assert [found["prefix"] for found in find(app)] == ["/outer/inner", "/more/deep"]


def test_fastapi_mounts_and_includes() -> None:
    router = APIRouter(prefix="/v1")
    router.mount("/old", A2Wsgi(plain))
    app = FastAPI()
    app.mount("/legacy", A2Wsgi(plain))
    app.include_router(router, prefix="/api")
    # The prefix of a router counts for its routes only.
    assert [found["prefix"] for found in find(app)] == ["/legacy", "/api/old"]


def test_the_root_is_an_empty_prefix() -> None:
    app = FastAPI()
    app.mount("/", A2Wsgi(flask))
    found = only(app)
    assert (found["prefix"], found["obstacle"]) == ("", None)
    assert "/docs" in [route["template"] for route in found["before"]]


def test_middleware_is_named_from_the_outside_to_the_inside() -> None:
    inner = Starlette(
        routes=[
            Mount("/legacy", Audit(A2Wsgi(plain)), middleware=[Middleware(GZipMiddleware)]),
        ],
        middleware=[Middleware(CORSMiddleware)],
    )
    app = FastAPI()
    app.mount("/in", Router([Mount("/ner", inner)], middleware=[Middleware(Audit)]))

    @app.middleware("http")
    async def stamp(request: Any, proceed: Callable[[Any], Any]) -> Any:
        return await proceed(request)

    found = only(Audit(app))
    assert found["obstacle"] is None
    assert [name.rpartition(".")[2] for name in names(found)] == [
        "Audit",
        "stamp",
        "Audit",
        "CORSMiddleware",
        "GZipMiddleware",
        "Audit",
    ]
    function = found["passes"][1]
    assert function["file"] == __file__
    assert function["line"] == stamp.__code__.co_firstlineno


def test_an_application_with_a_call_of_its_own_is_passed() -> None:
    class Shop(FastAPI):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            raise NotImplementedError

    app = Shop()
    app.mount("/legacy", A2Wsgi(plain))
    assert [name.rpartition(".<locals>.")[2] for name in names(only(app))] == ["Shop.__call__"]


@pytest.mark.skipif(
    "max_body_size" not in inspect.signature(Starlette).parameters,
    reason="this Starlette has no limit for bodies",
)
def test_a_limit_for_bodies_is_passed() -> None:
    app = Starlette(routes=[Mount("/legacy", A2Wsgi(plain))], max_body_size=1000)
    assert names(only(app)) == ["starlette.applications.Starlette(max_body_size=…)"]


def test_dependencies_are_told_apart_from_what_is_passed() -> None:
    app = FastAPI(dependencies=[Depends(view)])
    app.mount("/legacy", A2Wsgi(plain))
    found = only(app)
    assert found["passes"] == []
    assert [dependency["name"] for dependency in found["dependencies"]] == [f"{__name__}.view"]


def takes(found: BridgeInfo, path: str, method: str = "GET") -> bool:
    """Whether a route before the bridge takes a request."""
    return any(
        re.match(route["pattern"], path)
        and (route["methods"] is None or method in route["methods"])
        for route in found["before"]
    )


def test_what_the_routers_try_before_a_bridge_is_told() -> None:
    inner = Starlette(
        routes=[
            Route("/legacy/own", view, methods=["POST"]),
            Mount("/legacy/files/{name}", asgi),
            WebSocketRoute("/legacy/{path:path}", view),
            Mount("/legacy", A2Wsgi(plain)),
            Route("/legacy/late", view),
        ]
    )
    app = Starlette(
        routes=[
            Route("/in/legacy/outer", view),
            Mount("/in", inner),
            Route("/in/legacy/after", view),
        ]
    )
    found = only(app)
    assert found["obstacle"] is None
    assert takes(found, "/in/legacy/outer")
    assert takes(found, "/in/legacy/own", "POST")
    assert not takes(found, "/in/legacy/own", "GET")
    assert takes(found, "/in/legacy/files/a/b")
    assert not takes(found, "/in/legacy/files/a")
    for free in ("/in/legacy/late", "/in/legacy/after", "/in/legacy/", "/in/legacy/own/more"):
        assert not takes(found, free), free


def test_an_endpoint_takes_every_method_before_a_bridge() -> None:
    app = Starlette(routes=[Route("/legacy/it", Audit(asgi)), Mount("/legacy", A2Wsgi(plain))])
    assert takes(only(app), "/legacy/it", "PATCH")


def test_a_host_before_a_bridge_keeps_its_requests() -> None:
    app = Starlette(routes=[Host("api.example", asgi), Mount("/legacy", A2Wsgi(plain))])
    found = only(app)
    assert found["obstacle"] is None
    assert [route["host"] for route in found["before"]] == [r"^api\.example$"]


class Choosy(BaseRoute):
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        raise NotImplementedError


class ChoosyRoute(Route):
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        raise NotImplementedError


class ChoosyMount(Mount):
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        raise NotImplementedError


class ChoosyRouter(Router):
    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("app", "obstacle"),
    [
        (Router([Mount("/{tenant}", A2Wsgi(plain))]), "its path has parameters"),
        (Router([Mount("/{tenant}", routes=[BRIDGE])]), "its path has parameters"),
        (Router([Host("old.example", A2Wsgi(plain))]), "it answers certain hosts only"),
        (Router([Route("/old", A2Wsgi(plain))]), "it is reached by a route, and not mounted"),
        (Router(default=A2Wsgi(plain)), "it answers what the router has no route for"),
        (Router([Choosy(), BRIDGE]), "before it, `"),
        (Router([ChoosyRoute("/x", view), BRIDGE]), "before it, `"),
        (Router([ChoosyMount("/x", asgi), BRIDGE]), "before it, `"),
        (Router([ChoosyMount("/x", A2Wsgi(plain))]), "ChoosyMount` decides in code of its own"),
        (ChoosyRouter([BRIDGE]), "ChoosyRouter` routes in code of its own"),
        (Router([Mount("/legacy", asgi), BRIDGE]), "`/legacy/` before it takes all"),
        (Router([Mount("/", asgi), BRIDGE]), "`/` before it takes all"),
        (Router([Route("/{p:path}", A2Wsgi(plain), methods=["GET"])]), "reached by a route"),
    ],
)
def test_what_cannot_be_told_exactly_is_an_obstacle(app: object, obstacle: str) -> None:
    assert obstacle in (only(app)["obstacle"] or "none")


def test_a_root_path_of_the_application_is_an_obstacle() -> None:
    app = FastAPI()
    app.root_path = "/api"
    app.mount("/legacy", A2Wsgi(plain))
    assert "`root_path='/api'` of `fastapi.applications.FastAPI`" in (only(app)["obstacle"] or "")


def test_of_two_bridges_in_one_place_the_first_counts() -> None:
    app = Router([BRIDGE, Mount("/legacy", WsgiToAsgi(plain))])
    first, second = find(app)
    assert first["obstacle"] is None
    assert second["obstacle"] == "`/legacy/` before it takes all of its requests"


def test_below_a_router_that_is_named_the_application_stands_before_it() -> None:
    router = Router([BRIDGE])
    hidden = Slotted()
    assert find(hidden) == []
    found = only(hidden, router)
    assert (found["prefix"], names(found)) == ("/legacy", ["Slotted"])
