"""docs/migration/helpers.md: its examples run, side by side on one server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flask
import httpx
from fastapi.responses import PlainTextResponse
from twinspan.migrate import FlaskSessionMiddleware

if TYPE_CHECKING:
    from support import Serve

PAGE = Path(__file__).parents[3] / "docs" / "migration" / "helpers.md"


def examples() -> list[Any]:
    """The applications of the page, in order."""
    sources = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    found = []
    for number, source in enumerate(sources):
        names: dict[str, Any] = {"__name__": f"example{number}"}
        exec(compile(source, f"{PAGE.name}:{number}", "exec", dont_inherit=True), names)
        found.append(names["app"])
    return found


def test_the_examples_of_the_page_run(serve: Serve) -> None:
    cart, legacy, profile = examples()
    legacy.secret_key = "the SECRET_KEY of Flask"

    @legacy.get("/login")
    def login() -> str:
        flask.session["user"] = "ada"
        return ""

    @legacy.get("/whoami")
    def whoami() -> tuple[dict[str, Any], int]:
        user = flask.session.get("user")
        return {"user": user, "seen": flask.session.get("seen")}, 200 if user else 401

    @profile.get("/track/{number}", name="track")
    async def track(number: int) -> PlainTextResponse:
        return PlainTextResponse(str(number))

    for name, app in {"cart": cart, "legacy": legacy, "new": profile}.items():
        app.__name__ = name
    server = serve(mounts={"/shop": cart, "/new": profile, "": legacy})
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/new/profile").status_code == 502
        assert client.get("/shop/cart").json() == {"user": None, "seen": 1}
        client.get("/login")
        assert client.get("/shop/cart").json() == {"user": "ada", "seen": 2}
        assert client.get("/whoami").json() == {"user": "ada", "seen": 2}
        assert client.get("/new/profile").json() == {"user": "ada"}
        assert client.get("/orders/7").text == "/new/track/7"
        assert client.get(client.get("/orders/7").text).text == "7"


def test_the_page_lists_every_option_of_the_middleware() -> None:
    options = FlaskSessionMiddleware.__init__.__annotations__.keys() - {"return", "app"}
    rows = re.findall(r"^\| (`.+?) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", "".join(rows))) == sorted(options)
