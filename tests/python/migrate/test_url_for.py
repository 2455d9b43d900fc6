"""URLs of one application's routes from another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django
import flask
import httpx
import pytest
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path, reverse, set_script_prefix
from fastapi import APIRouter, FastAPI, Request
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from twinspan.migrate import Apps, apps
from twinspan.testing import Server
from werkzeug.middleware.proxy_fix import ProxyFix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONG = 20


def view(**_: object) -> str:
    return ""


def page(request: object, **_: object) -> HttpResponse:
    return HttpResponse()


class URLS_OF_DJANGO:  # noqa: N801 - in the place of a module
    urlpatterns = (path("polls/<int:id>/", page, name="poll"), path("", page, name="index"))


class Site:
    """Applications of which the first does what a test says, within a request."""

    def __init__(self) -> None:
        self.work: Any = None
        self.outcome: Any = None
        self.url = ""

    def within(self, work: Callable[[Apps], Any], place: str = "/old/run", **headers: str) -> Any:
        self.work, self.outcome = work, None
        httpx.get(self.url + place, headers=headers, timeout=LONG)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def run(self, others: Callable[[], Apps]) -> str:
        try:
            self.outcome = self.work(others())
        except Exception as error:  # noqa: BLE001 - the test raises it again
            self.outcome = error
        return ""

    def mounts(self) -> dict[str, Any]:
        legacy: Any = flask.Flask("legacy")
        users = flask.Blueprint("users", __name__, url_prefix="/users")
        users.add_url_rule("/<int:id>", "detail", view)
        users.add_url_rule("/", "list", view, defaults={"page": 1})
        legacy.register_blueprint(users)
        legacy.add_url_rule("/files/<path:name>", "file", view)
        legacy.add_url_rule("/run", "run", lambda: self.run(lambda: apps(flask.request)))
        legacy.wsgi_app = ProxyFix(legacy.wsgi_app)

        new: Any = FastAPI()
        router = APIRouter(prefix="/items")

        @router.get("/{id}", name="item")
        async def item(id: int) -> None: ...  # noqa: A002

        @new.websocket("/live/{name}")
        async def live(name: str) -> None: ...

        @new.get("/run")
        async def run(request: Request) -> str:
            return self.run(lambda: apps(request))

        new.include_router(router)
        new.mount("/static", StaticFiles(directory="."), name="static")

        inner = Starlette(
            routes=[
                Mount("/sub", routes=[Route("/page", view, name="page")], name="sub"),
                Host("api.example", Router([Route("/x", view, name="x")]), name="api"),
                WebSocketRoute("/feed", view, name="feed"),
            ]
        )
        wrapped: Any = CORSMiddleware(inner)
        polls: Any = WSGIHandler()

        def unreadable(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            return []

        named = {"legacy": legacy, "new": new, "wrapped": wrapped, "polls": polls}
        for name, app in named.items():
            app.__name__ = name
        return {
            "/old": legacy,
            "": new,
            "/starlette": wrapped,
            "/django": polls,
            "/closed": unreadable,
        }


@pytest.fixture(scope="module", autouse=True)
def configured() -> Iterator[None]:
    if not settings.configured:
        settings.configure()
        django.setup()
    with override_settings(ROOT_URLCONF=URLS_OF_DJANGO, ALLOWED_HOSTS=["*"]):
        yield


@pytest.fixture(scope="module")
def site(configured: None) -> Iterator[Site]:
    site = Site()
    with Server(mounts=site.mounts()) as server:
        site.url = server.url
        yield site


URLS = [
    ("legacy:users.detail", {"id": 3}, "/old/users/3"),
    ("legacy:users.list", {}, "/old/users/"),
    ("legacy:users.detail", {"id": 3, "more": "a b"}, "/old/users/3?more=a+b"),
    ("legacy:users.detail", {"id": 3, "_query": {"q": ["a", "é"]}}, "/old/users/3?q=a&q=%C3%A9"),
    ("legacy:users.detail", {"id": 3, "m": 1, "_query": {"q": 2}}, "/old/users/3?m=1&q=2"),
    ("legacy:file", {"name": "a b/é"}, "/old/files/a%20b/%C3%A9"),
    ("new:item", {"id": 3}, "/items/3"),
    ("new:static", {"path": "/a b.css"}, "/static/a%20b.css"),
    ("new:live", {"name": "x"}, "/live/x"),
    ("wrapped:sub:page", {}, "/starlette/sub/page"),
    ("wrapped:api:x", {}, "//api.example/starlette/x"),
    ("polls:poll", {"id": 3}, "/django/polls/3/"),
    ("polls:index", {}, "/django/"),
]


@pytest.mark.parametrize("place", ["/old/run", "/run"], ids=["from WSGI", "from ASGI"])
@pytest.mark.parametrize(("name", "values", "url"), URLS, ids=[url for *_, url in URLS])
def test_a_url_has_the_mount_of_its_application(
    site: Site, place: str, name: str, values: dict[str, Any], url: str
) -> None:
    assert site.within(lambda others: others.url_for(name, **values), place) == url


def test_what_has_a_url_is_there(site: Site) -> None:
    """Where the name leads is where a request arrives."""
    url = site.within(lambda others: others.url_for("polls:poll", id=3))
    assert httpx.get(site.url + url).status_code == 200


@pytest.mark.parametrize("place", ["/old/run", "/run"])
@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("legacy:users.list", "https://shop.example/shop/old/users/"),
        ("wrapped:feed", "wss://shop.example/shop/starlette/feed"),
        ("wrapped:api:x", "https://api.example/shop/starlette/x"),
        ("polls:index", "https://shop.example/shop/django/"),
    ],
)
def test_scheme_host_and_prefix_are_those_of_the_request(
    site: Site, place: str, name: str, url: str
) -> None:
    headers = {
        "host": "shop.example",
        "x-forwarded-proto": "https",
        "x-forwarded-prefix": "/shop",
    }
    found = site.within(lambda others: others.url_for(name, _external=True), place, **headers)
    assert found == url


def test_a_prefix_that_is_not_believed_is_not_used() -> None:
    site = Site()
    with Server(mounts=site.mounts(), forwarded_allow_ips="10.0.0.1") as server:
        site.url = server.url
        for place in ("/old/run", "/run"):
            url = site.within(
                lambda others: others.url_for("new:item", id=3),
                place,
                **{"x-forwarded-prefix": "/evil"},
            )
            assert url == "/items/3"


def test_the_prefix_of_the_server_comes_first_also_outside_of_requests() -> None:
    site = Site()
    with Server(mounts=site.mounts(), root_path="/site/") as server:
        others = apps(server)
        assert others.url_for("legacy:users.detail", id=3) == "/site/old/users/3"
        assert others.url_for("polls:index") == "/site/django/"
        with pytest.raises(ValueError, match="within a request only"):
            others.url_for("new:item", id=3, _external=True)


def test_django_s_own_urls_stay_as_they_were(site: Site) -> None:
    set_script_prefix("/own/")
    try:
        with Server(mounts=site.mounts()) as server:
            assert apps(server).url_for("polls:index") == "/django/"
        assert reverse("index") == "/own/"
    finally:
        set_script_prefix("/")


@pytest.mark.parametrize(
    ("name", "values", "problem"),
    [
        ("users.detail", {}, "`users.detail` names no application: write `APP:ROUTE`"),
        ("old:users", {}, "no application `old`; there are `legacy`, `new`"),
        (
            "legacy:users.detial",
            {"id": 3},
            "`legacy` has no route `users.detial`; there is `users.detail`",
        ),
        ("legacy:users.detail", {"id": "x"}, "`users.detail` of `legacy` cannot be made with"),
        ("legacy:users.detail", {}, "with these values: none"),
        ("new:itme", {"id": 3}, "`new` has no route `itme`"),
        ("new:live", {}, "`live` of `new` cannot be made with these values: none"),
        ("polls:pol", {}, "`polls` has no route `pol`"),
        ("unreadable:x", {}, r"router of `unreadable` is none that .* `\[apps.unreadable\]`"),
    ],
)
def test_a_route_that_is_not_there_is_named(
    site: Site, name: str, values: dict[str, Any], problem: str
) -> None:
    with pytest.raises(LookupError, match=problem):
        site.within(lambda others: others.url_for(name, **values))
