"""What is read around the routes of an application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings
from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import HTTPBearer
from flask import Blueprint, Flask, request
from flask_sock import Sock
from flask_socketio import SocketIO
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Route
from twinspan import _notes, _routers
from werkzeug.middleware.proxy_fix import ProxyFix

if TYPE_CHECKING:
    from collections.abc import Callable


def hook() -> None: ...


def before_admin() -> None: ...


def session() -> None: ...


def user(_: Annotated[None, Depends(session)]) -> None: ...


def flask_app() -> Flask:
    app = Flask(__name__)
    app.before_request(hook)
    admin = Blueprint("admin", __name__)
    admin.before_request(before_admin)
    app.register_blueprint(admin)
    return app


def test_functions_before_the_views_of_flask_are_found_through_wrappers() -> None:
    app: Any = flask_app()
    wrapped = ProxyFix(app.wsgi_app)
    replaced: Any = flask_app()
    replaced.wsgi_app = ProxyFix(replaced.wsgi_app)
    for target in (app, wrapped, replaced):
        notes = _notes.read(target)
        found = [(code["name"], code["scope"]) for code in notes["before_request"]]
        expected = [(f"{__name__}.hook", None), (f"{__name__}.before_admin", "admin")]
        assert found == expected
        first = notes["before_request"][0]
        assert first["file"] == __file__
        assert first["line"] == hook.__code__.co_firstlineno
    proxy = ["werkzeug.middleware.proxy_fix.ProxyFix"]
    assert _notes.read(wrapped)["middleware"] == proxy
    assert _notes.read(replaced)["middleware"] == proxy
    assert _notes.read(app)["middleware"] == []


def test_a_router_that_was_named_is_asked_where_the_application_hides_it() -> None:
    def hidden(environ: Any, start_response: Any) -> list[bytes]:
        return []

    assert _notes.read(hidden)["before_request"] == []
    assert len(_notes.read(hidden, flask_app())["before_request"]) == 2


def test_middleware_of_starlette_is_named_from_the_outside_in() -> None:
    app = FastAPI()
    app.add_middleware(GZipMiddleware)

    @app.middleware("http")
    async def timing(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    assert _notes.read(CORSMiddleware(app))["middleware"] == [
        "starlette.middleware.cors.CORSMiddleware",
        f"{__name__}.{timing.__qualname__}",
        "starlette.middleware.gzip.GZipMiddleware",
    ]


def test_middleware_of_django_is_that_of_its_settings() -> None:
    names = ["django.middleware.csrf.CsrfViewMiddleware", "site.Audit"]
    if not settings.configured:
        settings.configure()
    with override_settings(MIDDLEWARE=names):
        assert _notes.read(WSGIHandler.__new__(WSGIHandler))["middleware"] == names


def test_what_takes_a_socket_is_named_as_it_is_installed() -> None:
    app = flask_app()
    sock = Sock(app)

    @sock.route("/live")  # pyright: ignore[reportUntypedFunctionDecorator]
    def live(ws: Any) -> None: ...

    @app.get("/by-hand")
    def by_hand() -> str:
        return str(request.environ["werkzeug.socket"])

    @app.get("/plain")
    def plain() -> str:
        return "werkzeug"

    def found() -> list[str]:
        return [socket["extension"] for socket in _notes.read(app)["sockets"]]

    assert found() == ["flask-sock", "Werkzeug's socket"]
    SocketIO(app, async_mode="threading")
    assert found() == ["flask-sock", "Werkzeug's socket", "Flask-SocketIO (threading)"]


def test_an_object_that_fails_when_it_is_asked_has_no_notes() -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    notes = _notes.read(Broken())
    assert (notes["before_request"], notes["sockets"]) == ([], [])


def guards(app: object) -> dict[str, list[str] | None]:
    return {route["template"]: route["guards"] for route in _routers.read(app)}


def test_guards_of_fastapi_are_those_of_route_router_and_application() -> None:
    def view() -> None: ...

    def tenant() -> None: ...

    def name(function: Callable[..., object]) -> str:
        return f"{__name__}.{function.__qualname__}"

    app = FastAPI(openapi_url=None)
    router = APIRouter(prefix="/in", dependencies=[Depends(tenant)])
    router.get("/router", dependencies=[Depends(user)])(view)
    app.include_router(router, dependencies=[Depends(HTTPBearer())])
    app.get("/open")(view)
    bearer = "fastapi.security.http.HTTPBearer"
    found = guards(app)
    assert found["/open"] == []
    assert found["/in/router"] is not None
    assert set(found["/in/router"]) == {name(tenant), name(user), name(session), bearer}

    whole = FastAPI(openapi_url=None, dependencies=[Depends(tenant)])
    whole.get("/x")(view)
    assert guards(whole) == {"/x": [name(tenant)]}


def test_guards_that_a_decorator_may_hide_are_not_known() -> None:
    def view() -> str:
        return ""

    app = Flask(__name__, static_folder=None)
    app.get("/x")(view)
    assert guards(app) == {"/x": None}
    assert guards(Starlette(routes=[Route("/x", view)])) == {"/x": None}
