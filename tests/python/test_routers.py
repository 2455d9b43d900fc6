"""What the routers of frameworks are read as.

Where a framework can be asked whether it has a route, its answer is the expected one. The module is
loaded by its path, because it needs no extension.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import fastapi.routing
import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.test import override_settings
from django.urls import Resolver404, include, path, re_path, register_converter, resolve
from django.urls.converters import StringConverter
from django.utils.functional import lazystr
from django.views import View
from fastapi import APIRouter, FastAPI
from flask import Blueprint, Flask
from flask.views import MethodView
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import BaseConverter, Map, RequestRedirect, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).parents[2] / "python" / "twinspan" / "_routers.py"
UUID = "6f1a2c3e-9d7b-4c55-8a0e-2b1d3f4a5b6c"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("twinspan_routers_under_test", SOURCE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


routers = load()


def claim(
    routes: list[Any], method: str, path: str, *, kind: str = "http", host: str = "localhost"
) -> str:
    """How strongly these routes claim a request."""

    def at(path: str) -> list[Any]:
        return [
            route
            for route in routes
            if route["kind"] == kind
            and re.match(route["pattern"], path)
            and (route["host"] is None or re.match(route["host"], host))
        ]

    found = at(path)
    if any(route["methods"] is None or method in route["methods"] for route in found):
        return "route"
    if found:
        return "path"
    other = path.rstrip("/") if path.endswith("/") else path + "/"
    return "redirect" if any(route["redirects_slash"] for route in at(other)) else "nothing"


def lines(routes: list[Any]) -> list[str]:
    """Method and template of every route."""
    return [
        f"{'WS' if route['kind'] == 'websocket' else ','.join(route['methods'] or ['*'])} "
        f"{route['host'] or ''}{route['template']}"
        for route in routes
    ]


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """An application that hides its routes."""
    await PlainTextResponse("hidden")(scope, receive, send)


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"hidden"]


async def view(request: Any) -> PlainTextResponse:
    return PlainTextResponse("view")


def plain(**values: object) -> str:
    return "view"


# Starlette and FastAPI


class Handlers(HTTPEndpoint):
    async def get(self, _: Any) -> PlainTextResponse:
        return PlainTextResponse("get")

    async def delete(self, _: Any) -> PlainTextResponse:
        return PlainTextResponse("delete")


def starlette_app() -> Starlette:
    inner = Router([Route("/deep/{id:int}", view), Route("/", view), WebSocketRoute("/ws", view)])
    return Starlette(
        routes=[
            Route("/", view),
            Route("/text/{value}", view, methods=["GET", "PATCH"]),
            Route("/int/{value:int}", view),
            Route("/float/{value:float}", view),
            Route("/uuid/{value:uuid}", view),
            Route("/path/{value:path}", view, methods=["PUT"]),
            Route("/{year:int}-{month:int}.html", view),
            Route("/slash/", view),
            Route("/handlers", Handlers),
            Route("/anything", asgi_endpoint()),
            WebSocketRoute("/live/{room}", view),
            Mount("/sub", routes=[Mount("/{tenant}", app=inner)]),
            Mount("/static", StaticFiles(directory=SOURCE.parent)),
            Mount("/opaque", asgi),
        ]
    )


def asgi_endpoint() -> Any:
    class Anything:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await asgi(scope, receive, send)

    return Anything()


def test_every_route_of_starlette_is_read_with_its_methods() -> None:
    assert lines(routers.read(starlette_app())) == [
        "GET /",
        "GET,PATCH /text/{value}",
        "GET /int/{value:int}",
        "GET /float/{value:float}",
        "GET /uuid/{value:uuid}",
        "PUT /path/{value:path}",
        "GET /{year:int}-{month:int}.html",
        "GET /slash/",
        "DELETE,GET /handlers",
        "* /anything",
        "WS /live/{room}",
        "GET /sub/{tenant}/deep/{id:int}",
        "GET /sub/{tenant}/",
        "WS /sub/{tenant}/ws",
        "* /static/",
        "* /opaque/",
        "WS /opaque/",
    ]


STARLETTE_PATHS = [
    "/",
    "/text/a",
    "/text/",
    "/text/a/b",
    "/int/5",
    "/int/a",
    "/float/5.5",
    "/float/5.",
    f"/uuid/{UUID}",
    "/uuid/x",
    "/path/a/b",
    "/path/",
    "/path",
    "/2024-05.html",
    "/2024-05xhtml",
    "/slash/",
    "/slash",
    "/slash//",
    "/int/5/",
    "/live/a",
    "/nothing",
    "/static/x/y",
    "/static/",
    "/static",
    "/opaque/a",
    "/opaquea",
]


@pytest.mark.parametrize("target", STARLETTE_PATHS)
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_the_routes_of_starlette_match_what_starlette_matches(
    target: str, method: str, kind: str
) -> None:
    app = starlette_app()

    def matches(target: str) -> set[Match]:
        scope = {"type": kind, "path": target, "method": method, "headers": []}
        return {
            route.matches(scope)[0]
            for route in app.routes
            if not (isinstance(route, Mount) and kind == "websocket" and route.path == "/static")
        }

    other = target.rstrip("/") if target.endswith("/") else target + "/"
    if Match.FULL in matches(target):
        expected = "route"
    elif Match.PARTIAL in matches(target):
        expected = "path"
    elif kind == "http" and target != "/" and matches(other) != {Match.NONE}:
        expected = "redirect"
    else:
        expected = "nothing"
    assert claim(routers.read(app), method, target, kind=kind) == expected


def test_what_is_mounted_in_starlette_owns_what_it_defines() -> None:
    routes = routers.read(starlette_app())
    assert claim(routes, "GET", "/sub/acme/deep/5") == "route"
    assert claim(routes, "GET", "/sub/acme/deep/x") == "nothing"
    assert claim(routes, "POST", "/sub/acme/deep/5") == "path"
    assert claim(routes, "GET", "/sub/acme/") == "route"
    assert claim(routes, "GET", "/sub/acme") == "redirect"
    assert claim(routes, "GET", "/sub/acme/ws", kind="websocket") == "route"


def test_a_mount_at_the_root_owns_everything_that_its_application_hides() -> None:
    routes = routers.read(Starlette(routes=[Mount("/", asgi)]))
    assert claim(routes, "PUT", "/any/thing") == "route"
    assert claim(routes, "GET", "/any/thing", kind="websocket") == "route"


def test_a_router_that_does_not_redirect_claims_no_slash() -> None:
    routes = routers.read(Router([Route("/x/", view)], redirect_slashes=False))
    assert claim(routes, "GET", "/x") == "nothing"


def test_routes_for_a_host_know_it() -> None:
    app = Starlette(routes=[Host("{sub}.example.org", Router([Route("/", view)]))])
    routes = routers.read(app)
    assert claim(routes, "GET", "/", host="api.example.org") == "route"
    assert claim(routes, "GET", "/", host="example.org") == "nothing"


def fastapi_app() -> FastAPI:
    app = FastAPI()
    leaf = APIRouter(prefix="/leaf")
    leaf.add_api_route("/{id}", plain, methods=["GET", "DELETE"])
    leaf.add_api_websocket_route("/ws", view)
    branch = APIRouter(prefix="/branch")
    branch.include_router(leaf)
    app.include_router(branch, prefix="/v1")
    app.include_router(leaf)
    sub = FastAPI(openapi_url=None)
    sub.add_api_route("/inside", plain)
    app.mount("/sub", sub)
    return app


def test_routers_that_fastapi_includes_are_read_with_all_their_prefixes() -> None:
    assert lines(routers.read(fastapi_app())) == [
        "GET /openapi.json",
        "GET /docs",
        "GET /docs/oauth2-redirect",
        "GET /redoc",
        "DELETE,GET /v1/branch/leaf/{id}",
        "WS /v1/branch/leaf/ws",
        "DELETE,GET /leaf/{id}",
        "WS /leaf/ws",
        "GET /sub/inside",
    ]


@pytest.mark.skipif(
    not hasattr(fastapi.routing, "iter_route_contexts"), reason="this FastAPI drops such mounts"
)
def test_what_is_mounted_in_an_included_router_has_the_prefixes_of_inclusion() -> None:
    app = FastAPI(openapi_url=None)
    router = APIRouter(prefix="/own")
    router.mount("/files", asgi)
    app.include_router(router, prefix="/v1")
    assert lines(routers.read(app)) == ["* /v1/files/", "WS /v1/files/"]


def test_a_router_of_fastapi_can_be_named_alone() -> None:
    router = APIRouter()
    router.add_api_route("/x", plain)
    assert lines(routers.read(asgi, router)) == ["GET /x"]
    assert lines(routers.read(asgi, router.routes)) == ["GET /x"]


@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
def test_a_fastapi_with_a_root_path_answers_with_and_without_it() -> None:
    app = FastAPI(root_path="/api", openapi_url=None)
    app.add_api_route("/x", plain)
    routes = routers.read(app)
    assert claim(routes, "GET", "/x") == claim(routes, "GET", "/api/x") == "route"


@pytest.mark.skipif(not hasattr(FastAPI, "frontend"), reason="this FastAPI has no frontends")
def test_a_frontend_of_fastapi_owns_its_directory(tmp_path: Path) -> None:
    app: Any = FastAPI(openapi_url=None)
    app.frontend("/site", directory=tmp_path)
    router: Any = APIRouter()
    router.frontend("/", directory=tmp_path)
    app.include_router(router, prefix="/other")
    routes = routers.read(app)
    for target in ("/site", "/site/a/b", "/other/x"):
        assert claim(routes, "GET", target) == "route", target
    assert claim(routes, "POST", "/site/a") == "path"
    assert claim(routes, "GET", "/sites") == "nothing"
    assert not any(route["exact"] for route in routes)


def test_a_route_of_an_unknown_kind_is_named() -> None:
    class Odd(BaseRoute):
        pass

    with pytest.raises(routers.UnreadableRouter, match=r"Odd.*cannot be read"):
        routers.read(Starlette(routes=[Odd()]))


def test_a_route_that_decides_by_itself_is_inexact() -> None:
    class Picky(Route):
        def matches(self, scope: Any) -> Any:
            return super().matches(scope)

    routes = routers.read(Starlette(routes=[Picky("/picky", view), Route("/plain", view)]))
    assert [route["exact"] for route in routes] == [False, True]


# Flask and Werkzeug


class Even(BaseConverter):
    regex = r"\d+"

    def to_python(self, value: str) -> int:
        return int(value)


class Hex(BaseConverter):
    regex = "[0-9a-f]+"


class Dotted(BaseConverter):
    regex = r"[^.]+\..+"


class Slashed(BaseConverter):
    regex = "a|b/c"
    part_isolating = True


class Things(MethodView):
    def get(self) -> str:
        return "get"

    def put(self) -> str:
        return "put"


def flask_app() -> Flask:
    app = Flask("shop", static_url_path="/assets", static_folder="assets")
    app.url_map.converters.update(even=Even, hex=Hex, dotted=Dotted, slashed=Slashed)
    for rule in (
        "/",
        "/text/<value>",
        "/int/<int:value>",
        "/signed/<int(signed=True):value>",
        "/float/<float:value>",
        "/uuid/<uuid:value>",
        "/path/<path:value>",
        "/path/<path:value>/edit",
        "/wiki/<path:value>/",
        "/any/<any(red, green):value>",
        "/two/<string(length=2):value>",
        "/words/<word>.<extension>",
        "/dots.and+more/",
        "/hex/<hex:value>",
        "/dotted/<dotted:value>",
        "/slashed/<slashed:value>",
        "/even/<even:value>",
        "/small/<int(max=9):value>",
        "/text/literal",
    ):
        app.add_url_rule(rule, rule.replace(".", "_"), plain)
    app.add_url_rule("/methods", "m", plain, methods=["POST", "OPTIONS"])
    app.add_url_rule("/things", "t", Things.as_view("things"))
    app.add_url_rule("/loose/", "l", plain, strict_slashes=False)
    app.add_url_rule("/leaf", "f", plain, strict_slashes=False)
    app.add_url_rule("/built", "b", build_only=True)
    blueprint = Blueprint("inner", __name__, url_prefix="/blue")
    blueprint.add_url_rule("/print", "p", plain, methods=["DELETE"])
    app.register_blueprint(blueprint)
    return app


FLASK_PATHS = [
    "/",
    "/text/a",
    "/text/a/",
    "/text/",
    "/text/literal",
    "/int/5",
    "/int/-5",
    "/signed/-5",
    "/float/5.5",
    "/float/5",
    f"/uuid/{UUID}",
    "/uuid/x",
    "/path/a/b",
    "/path/a/b/",
    "/path/a/edit",
    "/path/",
    "/wiki/a/b/",
    "/wiki/a/b",
    "/wiki",
    "/any/red",
    "/any/blue",
    "/any/red/green",
    "/two/ab",
    "/two/abc",
    "/words/a.b",
    "/words/a",
    "/dots.and+more/",
    "/dots.and+more",
    "/dotsxand+more/",
    "/hex/0af",
    "/hex/xyz",
    "/dotted/a.b",
    "/dotted/a.b/c",
    "/dotted/a/b.c",
    "/slashed/a",
    "/methods",
    "/things",
    "/loose",
    "/loose/",
    "/leaf",
    "/leaf/",
    "/built",
    "/blue/print",
    "/assets/a/b.css",
    "/assets",
    "/nothing",
]


@pytest.mark.parametrize("target", FLASK_PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
def test_the_routes_of_flask_match_what_flask_matches(target: str, method: str) -> None:
    app = flask_app()
    adapter = app.url_map.bind("localhost")
    try:
        adapter.match(target, method)
        expected = {"route"}
    except RequestRedirect:
        expected = {"redirect"}
    except MethodNotAllowed:
        # Werkzeug also tells so for a path that it would redirect with another method.
        expected = {"path", "redirect"}
    except NotFound:
        # With a method that is not defined, a slash is not even redirected to.
        expected = {"nothing"}
        if method != "GET":
            expected.add("path" if target == "/loose" else "redirect")
    asked = "GET" if method == "HEAD" else method
    assert claim(routers.read(app), asked, target) in expected


def test_methods_that_flask_adds_by_itself_do_not_count() -> None:
    routes = routers.read(flask_app())
    methods = {route["template"]: route["methods"] for route in routes}
    assert methods["/"] == ["GET"]
    assert methods["/methods"] == ["OPTIONS", "POST"]
    assert methods["/things"] == ["GET", "PUT"]
    assert methods["/assets/<path:filename>"] == ["GET"]
    assert "/built" not in methods


def test_literals_of_flask_come_before_variables() -> None:
    templates = [route["template"] for route in routers.read(flask_app())]
    assert templates.index("/text/literal") < templates.index("/text/<value>")
    assert templates.index("/path/<path:value>/edit") > templates.index(
        "/any/<any(red, green):value>"
    )


def test_a_converter_with_python_in_it_is_inexact() -> None:
    exact = {route["template"]: route["exact"] for route in routers.read(flask_app())}
    assert not exact.pop("/even/<even:value>")
    assert not exact.pop("/small/<int(max=9):value>")
    assert not exact.pop("/slashed/<slashed:value>")
    assert all(exact.values()), exact


def test_a_map_of_werkzeug_is_read_with_websocket_rules() -> None:
    url_map = Map([Rule("/a/<int:x>", endpoint="a"), Rule("/ws", endpoint="w", websocket=True)])
    routes = routers.read(wsgi, url_map)
    assert sorted(lines(routes)) == ["* /a/<int:x>", "WS /ws"]
    assert routes[0]["endpoint"] in ("a", "w")


def test_flask_with_host_matching_knows_the_hosts() -> None:
    app = Flask(__name__, host_matching=True, static_folder=None)
    app.add_url_rule("/", "a", plain, host="<tenant>.example.org:8000")
    app.add_url_rule("/never", "b", plain)
    routes = routers.read(app)
    assert claim(routes, "GET", "/", host="acme.example.org") == "route"
    assert claim(routes, "GET", "/", host="example.org") == "nothing"
    assert claim(routes, "GET", "/never") == "nothing"


def test_flask_with_subdomains_knows_the_hosts() -> None:
    app = Flask(__name__, subdomain_matching=True, static_folder=None)
    app.config["SERVER_NAME"] = "example.org:8000"
    app.add_url_rule("/", "a", plain, subdomain="<tenant>")
    app.add_url_rule("/bare", "b", plain)
    routes = routers.read(app)
    assert claim(routes, "GET", "/", host="acme.example.org") == "route"
    assert claim(routes, "GET", "/", host="example.org") == "nothing"
    assert claim(routes, "GET", "/bare", host="example.org") == "route"
    assert claim(routes, "GET", "/bare", host="acme.example.org") == "nothing"


def test_subdomains_that_flask_is_not_to_match_never_match() -> None:
    app = Flask(__name__, static_folder=None)
    app.add_url_rule("/", "a", plain, subdomain="api")
    app.add_url_rule("/bare", "b", plain)
    assert lines(routers.read(app)) == ["GET /bare"]


# Django


class Handler(View):
    def get(self, _: Any) -> HttpResponse:
        return HttpResponse()

    def post(self, _: Any) -> HttpResponse:
        return HttpResponse()


class Shouting(StringConverter):
    regex = "[A-Z]+"


def django_view(request: Any, **values: object) -> HttpResponse:
    return HttpResponse()


register_converter(Shouting, "shouting")

URLS = ModuleType("urls_under_test")
URLS.urlpatterns = [  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
    path("", django_view),
    path("items/", django_view),
    path("items/<int:pk>/", Handler.as_view()),
    path("slug/<slug:value>", django_view),
    path("uuid/<uuid:value>", django_view),
    path("path/<path:value>", django_view),
    path("str/<value>", django_view),
    path("shout/<shouting:value>", django_view),
    re_path(r"^years/(?P<year>[0-9]{4})$", django_view),
    re_path(r"^open/", django_view),
    re_path(r"anywhere$", django_view),
    re_path(r"^one/$|^two/(?:a|b)/$", django_view),
    re_path(r"(?i)^loud/$", django_view),
    path("in/", include([path("", django_view), path("<pk>/<slug:pk2>/", django_view)])),
    re_path(r"^re/(?P<pk>\d+)/", include([re_path(r"^(?P<pk2>\w+)$", django_view)])),
    path(lazystr("lazy/"), django_view),
]

DJANGO_PATHS = [
    "/",
    "/items/",
    "/items",
    "/items/5/",
    "/items/x/",
    "/slug/a-b_c",
    "/slug/a.b",
    f"/uuid/{UUID}",
    "/uuid/x",
    "/path/a/b",
    "/path/",
    "/str/a",
    "/str/a/b",
    "/shout/LOUD",
    "/shout/quiet",
    "/years/2024",
    "/years/20245",
    "/open/any/thing",
    "/open",
    "/x/anywhere",
    "/anywhere/x",
    "/one/",
    "/two/b/",
    "/two/c/",
    "/LOUD/",
    "/in/",
    "/in/a/b/",
    "/in/a/",
    "/re/5/word",
    "/re/5/",
    "/re/x/word",
    "/lazy/",
    "/nothing",
]


@pytest.fixture
def django_site() -> Iterator[None]:
    sys.modules[URLS.__name__] = URLS
    if not settings.configured:
        settings.configure()
    with override_settings(
        ROOT_URLCONF=URLS.__name__,
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        LANGUAGE_CODE="en",
        LANGUAGES=[("en", "English"), ("de", "German")],
        USE_I18N=False,
    ):
        yield
    del sys.modules[URLS.__name__]


def django_handler(kind: Any) -> Any:
    # The constructor loads the middleware of a site, which these settings are not for.
    return kind.__new__(kind)


@pytest.mark.parametrize("target", DJANGO_PATHS)
def test_the_routes_of_django_match_what_django_resolves(target: str, django_site: None) -> None:
    routes = routers.read(django_handler(WSGIHandler))

    def resolves(target: str) -> bool:
        try:
            resolve(target)
        except Resolver404:
            return False
        return True

    if resolves(target):
        expected = "route"
    elif not target.endswith("/") and resolves(target + "/"):
        expected = "redirect"
    else:
        expected = "nothing"
    if target == "/open":
        expected = "nothing"  # an open end redirects to what it opens only where a slash is written
    assert claim(routes, "GET", target) == expected


def test_django_has_methods_where_a_class_has_handlers(django_site: None) -> None:
    routes = routers.read(django_handler(ASGIHandler))
    methods = {route["template"]: route["methods"] for route in routes}
    assert methods["/items/<int:pk>/"] == ["GET", "POST"]
    assert methods["/items/"] is None


def test_a_converter_of_a_django_site_is_inexact(django_site: None) -> None:
    exact = {route["template"]: route["exact"] for route in routers.read(URLS)}
    assert not exact["/shout/<shouting:value>"]
    assert not exact["/lazy/"]
    assert exact["/items/<int:pk>/"]


def test_django_redirects_only_where_it_appends_slashes(django_site: None) -> None:
    with override_settings(APPEND_SLASH=False):
        assert claim(routers.read(URLS), "GET", "/items") == "nothing"
    with override_settings(MIDDLEWARE=[]):
        assert claim(routers.read(URLS), "GET", "/items") == "nothing"


def test_languages_in_django_paths_are_all_matched_and_inexact(django_site: None) -> None:
    from django.conf.urls.i18n import i18n_patterns

    with override_settings(USE_I18N=True):
        patterns = i18n_patterns(path("page/", django_view))
        bare = i18n_patterns(path("page/", django_view), prefix_default_language=False)
    routes = routers.read(wsgi, patterns)
    assert claim(routes, "GET", "/de/page/") == "route"
    assert claim(routes, "GET", "/fr/page/") == "nothing"
    assert claim(routes, "GET", "/page/") == "nothing"
    assert not routes[0]["exact"]
    assert claim(routers.read(wsgi, bare), "GET", "/page/") == "route"


def test_a_urlconf_that_does_not_load_says_why(django_site: None) -> None:
    with (
        override_settings(ROOT_URLCONF="no_such_module"),
        pytest.raises(routers.UnreadableRouter, match="no_such_module"),
    ):
        routers.read(django_handler(WSGIHandler))
    with (
        override_settings(ROOT_URLCONF="json"),
        pytest.raises(routers.UnreadableRouter, match="URLconf") as caught,
    ):
        routers.read(django_handler(WSGIHandler))
    assert isinstance(caught.value.__cause__, ImproperlyConfigured)


def test_django_channels_is_read_by_protocol(django_site: None) -> None:
    channels = pytest.importorskip("channels.routing", reason="Channels is not installed")
    application = channels.ProtocolTypeRouter(
        {
            "http": channels.URLRouter([path("poll/", asgi), re_path("^items/", asgi)]),
            "websocket": CORSMiddleware(channels.URLRouter([path("ws/<room>/", asgi)])),
        }
    )
    routes = routers.read(application)
    assert claim(routes, "GET", "/items/") == "route"
    assert claim(routes, "GET", "/poll/") == "route"
    assert claim(routes, "GET", "/ws/a/", kind="websocket") == "route"
    assert claim(routes, "GET", "/ws/a/") == "nothing"
    assert claim(routes, "GET", "/items/", kind="websocket") == "nothing"


# Wrappers


def test_known_wrappers_are_looked_through() -> None:
    flask = flask_app()
    expected = routers.read(flask)
    assert routers.read(ProxyFix(flask)) == expected
    assert routers.read(ProxyFix(ProxyFix(flask.wsgi_app))) == expected
    flask.wsgi_app = ProxyFix(flask.wsgi_app)  # type: ignore[method-assign]
    assert routers.read(flask) == expected
    fastapi = fastapi_app()
    assert routers.read(CORSMiddleware(fastapi)) == routers.read(fastapi)


def test_an_application_that_contains_itself_has_an_end() -> None:
    flask = Flask("inner", static_folder=None)
    flask.add_url_rule("/x", "x", plain)
    flask.wsgi_app = ProxyFix(flask)  # type: ignore[method-assign]
    assert lines(routers.read(flask)) == ["GET /x"]
    starlette = Starlette()
    starlette.mount("/again", starlette)
    assert lines(routers.read(starlette)) == ["* /again/", "WS /again/"]


def test_what_a_dispatcher_mounts_comes_before_the_application() -> None:
    inner = Flask("inner", static_folder=None)
    inner.add_url_rule("/", "root", plain)
    inner.add_url_rule("/x", "x", plain)
    flask = Flask("outer", static_folder=None)
    flask.add_url_rule("/own", "own", plain)
    mounts: dict[str, Any] = {"/metrics": wsgi, "/inner": inner}
    flask.wsgi_app = DispatcherMiddleware(flask.wsgi_app, mounts)  # type: ignore[method-assign]
    routes = routers.read(flask)
    for target in ("/own", "/metrics", "/metrics/a/b", "/inner", "/inner/", "/inner/x"):
        assert claim(routes, "GET", target) == "route", target
    for target in ("/metricsx", "/inner/own", "/x"):
        assert claim(routes, "GET", target) == "nothing", target


def test_an_application_that_hides_its_routes_is_named() -> None:
    for hidden, name in ((asgi, "asgi"), (wsgi, "wsgi"), (asgi_endpoint(), "Anything")):
        with pytest.raises(routers.UnreadableRouter) as caught:
            routers.read(hidden)
        assert name in caught.value.what
        assert str(caught.value) == f"the router of {caught.value.what} cannot be read"


def test_objects_that_answer_to_every_name_have_an_end() -> None:
    class Endless:
        def __getattr__(self, name: str) -> Endless:
            if name == "broken":
                raise RuntimeError(name)
            return Endless()

        def __call__(self) -> None: ...

    with pytest.raises(routers.UnreadableRouter):
        routers.read(Endless())


def test_a_named_router_comes_before_the_application() -> None:
    flask = Flask("inner", static_folder=None)
    flask.add_url_rule("/x", "x", plain)
    assert lines(routers.read(fastapi_app(), flask)) == ["GET /x"]


def test_a_view_is_named_with_the_place_where_it_is_written() -> None:
    routes = {route["template"]: route for route in routers.read(flask_app())}
    root = routes["/"]
    assert (root["endpoint"], root["file"]) == (f"{__name__}.plain", __file__)
    assert root["line"] == plain.__code__.co_firstlineno
    assert routes["/things"]["endpoint"] == f"{__name__}.Things"


def test_groups_have_no_names_that_could_meet_twice() -> None:
    app = Starlette(routes=[Mount("/{id}", routes=[Route("/{id}", view)])])
    assert [route["pattern"] for route in routers.read(app)] == ["^/(?:[^/]+)/(?:[^/]+)$"]


def test_everything_is_plain_data(django_site: None) -> None:
    for app in (flask_app(), fastapi_app(), starlette_app(), URLS):
        routes = routers.read(app)
        assert json.loads(json.dumps(routes)) == routes


def test_no_framework_is_imported_that_the_application_does_not_use() -> None:
    script = f"""
        import importlib.util, sys
        spec = importlib.util.spec_from_file_location("routers", {str(SOURCE)!r})
        routers = importlib.util.module_from_spec(spec)
        sys.modules["routers"] = routers
        spec.loader.exec_module(routers)
        try:
            routers.read(print)
        except routers.UnreadableRouter as error:
            print(error.what)
        frameworks = {{"flask", "werkzeug", "starlette", "fastapi", "django", "channels"}}
        assert not frameworks & set(sys.modules), frameworks & set(sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert "print" in done.stdout
