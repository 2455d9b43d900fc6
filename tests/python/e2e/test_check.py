"""`twinspan check`: what two applications behind one port do to each other.

Real applications of real frameworks, written down by each test, because a finding depends on how a
framework says what it has: where its hooks, its extensions and its own pages are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from e2e.wire import FOR_TESTS

if TYPE_CHECKING:
    from support import Command, StartCommand

STRANGLER = Path(__file__).parents[3] / "examples" / "strangler"

FASTAPI = """
    from fastapi import Depends, FastAPI
    from fastapi.security import HTTPBearer

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
"""

FLASK = """
    from flask import Flask

    app = Flask(__name__, static_folder=None)
"""

RULES = """
    [apps.new]
    app = "new:app"
    [apps.old]
    app = "old:app"
    [[routes]]
    app = "new"
    when = "owned"
    [[routes]]
    app = "old"
"""


class Check:
    """Runs the command over two applications, which are given by what follows their first lines."""

    def __init__(self, command: StartCommand) -> None:
        self.command = command

    def run(
        self,
        new: str,
        old: str,
        *arguments: str,
        frameworks: tuple[str, str] = (FASTAPI, FLASK),
        config: str = RULES,
    ) -> Command:
        files = {
            # What is written before the table of applications belongs to the server.
            "twinspan.toml": config,
            "new.py": frameworks[0] + new,
            "old.py": frameworks[1] + old,
        }
        process = self.command("check", *arguments, *FOR_TESTS, files=files, ready=False)
        process.wait()
        return process

    def findings(self, new: str, old: str, **rest: Any) -> tuple[dict[str, Any], int]:
        """Give the findings by their ids, and the exit code."""
        process = self.run(new, old, "--json", **rest)
        assert process.returncode in (0, 1), process.text
        report = json.loads("\n".join(process.stdout))
        return {found["id"]: found for found in report["findings"]}, process.returncode


@pytest.fixture
def check(command: StartCommand) -> Check:
    return Check(command)


def test_overlaps_of_flask_and_fastapi_fail_the_check(check: Check) -> None:
    new = """
    @app.get("/docs")
    @app.get("/items/{number}")
    @app.get("/orders")
    @app.get("/users")
    @app.get("/files/{path:path}")
    def view(): ...
    """
    old = """
    @app.get("/items/<int:number>")
    @app.post("/orders")
    @app.get("/users/")
    @app.get("/files/list")
    @app.get("/only-old")
    def view(**_): return ""
    """
    found, code = check.findings(new, old)
    assert code == 1
    assert list(found) == [
        "both-claim GET /items/<int:number>",
        "method-split /orders",
        "hidden-by-catch-all /files/{path:path}",
        "hidden-by-slash GET /users/",
    ]
    claim = found["both-claim GET /items/<int:number>"]
    assert "the view of `old` can be deleted" in claim["way_out"]
    owner, hidden = claim["routes"]
    assert (owner["app"], owner["answers"], owner["rule"]) == ("new", True, "owned by new")
    assert owner["file"].endswith("new.py")
    assert (hidden["app"], hidden["answers"], hidden["endpoint"]) == ("old", False, "old.view")
    assert hidden["file"].endswith("old.py")
    assert hidden["line"] > 0


def test_pages_of_fastapi_that_hide_a_view_are_named(check: Check) -> None:
    old = """
    @app.get("/docs")
    @app.get("/redoc")
    def manual(): return ""
    """
    frameworks = ("from fastapi import FastAPI\napp = FastAPI(redoc_url=None)\n", FLASK)
    found, code = check.findings("", old, frameworks=frameworks)
    assert (list(found), code) == (["docs-hide GET /docs"], 1)
    assert "docs_url" in found["docs-hide GET /docs"]["way_out"]


def test_a_rule_that_hides_what_its_application_does_not_define_is_named(check: Check) -> None:
    config = RULES.replace('when = "owned"', 'mount = "/api"')
    old = """
    @app.get("/api/reports")
    def reports(): return ""
    """
    found, code = check.findings("", old, config=config)
    assert (list(found), code) == (["hidden-by-rule mount /api"], 1)


@pytest.mark.parametrize("policy", ["canary = 0", "shadow = 10", "canary = 100"])
def test_a_route_on_its_way_is_no_finding(check: Check, policy: str) -> None:
    moving = f"""
    [[routes]]
    app = "new"
    template = "/items/{{number}}"
    {policy}
    [[routes]]
    app = "old"
    """
    config = RULES.partition("[[routes]]")[0] + moving.lstrip()
    new = """
    @app.get("/items/{number}")
    def item(number: int): ...
    """
    old = """
    @app.get("/items/<int:number>")
    def item(number): return ""
    """
    found, code = check.findings(new, old, config=config)
    assert (list(found), code) == ([], 0)


def test_what_is_acknowledged_passes_and_what_is_not_found_is_named(check: Check) -> None:
    config = '\n    acknowledge = ["both-claim GET /a", "both-claim GET /gone"]\n' + RULES.lstrip(
        "\n"
    )
    view = """
    @app.get("/a")
    def view(): return ""
    """
    passed = check.run(view, view, config=config)
    assert passed.returncode == 0, passed.text
    printed = "\n".join(passed.stdout)
    assert "Acknowledged:\n  both-claim GET /a" in printed
    assert "take these lines out of the configuration:\n  both-claim GET /gone" in printed
    failed = check.run(view, view)
    assert failed.returncode == 1
    assert 'acknowledge = ["both-claim GET /a"]' in "\n".join(failed.stdout)


def test_routes_without_a_guard_are_listed_where_flask_had_one(check: Check) -> None:
    new = """
    @app.get("/open")
    def view(): ...

    @app.get("/guarded", dependencies=[Depends(HTTPBearer())])
    def guarded(): ...
    """
    old = """
    from flask import Blueprint

    @app.before_request
    def require_login(): ...

    admin = Blueprint("admin", __name__)

    @admin.before_request
    def require_staff(): ...

    app.register_blueprint(admin)
    """
    found, code = check.findings(new, old)
    assert (list(found), code) == (["unguarded GET /open"], 0)
    others = [code["name"] for code in found["unguarded GET /open"]["others"]]
    assert others == ["old.require_login", "old.require_staff of blueprint admin"]


def test_django_middleware_that_a_moved_route_loses_is_listed(check: Check) -> None:
    django = """
    import django
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler

    urlpatterns = []
    settings.configure(
        ROOT_URLCONF=__name__,
        SECRET_KEY="of a test",
        MIDDLEWARE=[
            "django.middleware.gzip.GZipMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
        ],
    )
    django.setup()
    app = WSGIHandler()
    """
    new = """
    @app.post("/open")
    def view(): ...
    """
    found, code = check.findings(new, "", frameworks=(FASTAPI, django))
    assert (list(found), code) == (["unguarded POST /open"], 0)
    others = [code["name"] for code in found["unguarded POST /open"]["others"]]
    assert others == ["django.middleware.csrf.CsrfViewMiddleware"]


def test_extensions_that_take_the_socket_are_told_where_to_go(check: Check) -> None:
    old = """
    import flask_sock
    import simple_websocket
    from flask_socketio import SocketIO

    sock = flask_sock.Sock(app)

    @sock.route("/live")
    def live(ws): ...

    @sock.route("/moved")
    def moved(ws): ...

    @app.get("/by-hand")
    def by_hand():
        simple_websocket.Server.accept({})
        return ""

    SocketIO(app, async_mode="threading")
    """
    new = """
    from fastapi import WebSocket

    @app.websocket("/moved")
    async def moved(websocket: WebSocket): ...
    """
    found, code = check.findings(new, old)
    assert code == 0
    assert list(found) == [
        "socket-hijack flask-sock /live",
        "socket-hijack simple-websocket /by-hand",
        "socket-hijack Flask-SocketIO (threading) in old",
    ]
    assert "@app.websocket" in found["socket-hijack flask-sock /live"]["way_out"]
    engine = found["socket-hijack Flask-SocketIO (threading) in old"]
    assert "socketio.ASGIApp" in engine["way_out"]


def test_a_bridge_is_listed_with_what_stands_before_it(check: Check) -> None:
    new = """
    from a2wsgi import WSGIMiddleware
    from flask import Flask

    @app.middleware("http")
    async def audit(request, call_next):
        return await call_next(request)

    app.mount("/legacy", WSGIMiddleware(Flask("inner")))
    """
    found, code = check.findings(new, "")
    assert (list(found), code) == (["bridge /legacy in new"], 0)
    bridge = found["bridge /legacy in new"]
    assert [code["name"] for code in bridge["others"]] == ["new.audit"]
    assert "--unbridge" in bridge["way_out"]
    found, _ = check.findings(new, "", config="\n    unbridge = true\n" + RULES.lstrip("\n"))
    assert "is served natively" in found["bridge /legacy in new"]["problem"]


def test_what_only_python_can_decide_and_what_cannot_be_read_are_listed(check: Check) -> None:
    new = """
    from starlette.routing import Route

    class Even(Route):
        def matches(self, scope):
            return super().matches(scope)

    app.router.routes.append(Even("/even/{number}", lambda request: None))
    """
    hidden = """
    def app(environ, start_response):
        start_response("200 OK", [])
        return [b""]
    """
    found, code = check.findings(new, "", frameworks=(FASTAPI, hidden))
    assert (list(found), code) == (["inexact GET /even/{number}", "unreadable old"], 0)


def test_the_example_of_a_migration_passes(command: StartCommand, tmp_path: Path) -> None:
    process = command(
        "check",
        "--config",
        "shop.toml",
        cwd=STRANGLER,
        env={"SHOP_DATA": str(tmp_path)},
        ready=False,
    )
    assert process.wait() == 0, process.text
    assert "Acknowledged, but not found" not in process.text
