"""A page, a form, an upload, a file and a stream in the WSGI frameworks that people have.

Each framework serves the same small shop (``apps/frameworks``), once below a mount of one command
that serves all of them and once at the root of a server of its own.
"""

from __future__ import annotations

import hashlib
import html
import random
import re
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import httpx
import pytest
from support import TWINSPAN, Command

if TYPE_CHECKING:
    from collections.abc import Iterator

APPS = Path(__file__).parents[1] / "apps"
PICTURE = random.Random(0).randbytes(300_000) + bytes(range(256))


class Framework(NamedTuple):
    """How a framework's shop is named for the command, and what the framework can."""

    target: str
    chunked: bool = True
    """Reads the body of a request that does not tell its length."""
    mountable: bool = True
    """Matches what comes below a mount; otherwise it gets what no mount does."""


FRAMEWORKS = {
    "bobo": Framework("frameworks.bobo_shop:app"),
    "bottle": Framework("frameworks.bottle_shop:app", chunked=False),
    "cherrypy": Framework("frameworks.cherrypy_shop:app"),
    "django": Framework("frameworks.django_shop:application", chunked=False),
    "falcon": Framework("frameworks.falcon_shop:app", chunked=False),
    "flask": Framework("frameworks.flask_shop:app"),
    "py4web": Framework("frameworks.py4web_shop:application", chunked=False),
    "pyramid": Framework("frameworks.pyramid_shop:main()"),
    "turbogears": Framework("frameworks.turbogears_shop:app"),
    "web.py": Framework("frameworks.webpy_shop:app"),
    "webapp2": Framework("frameworks.webapp2_shop:app", mountable=False),
    "werkzeug": Framework("frameworks.werkzeug_shop:app"),
}


class Shops(NamedTuple):
    """Where the shops are."""

    mounted: str
    roots: dict[str, str]


def prefix_of(name: str) -> str:
    return f"/shops/{name}" if FRAMEWORKS[name].mountable else ""


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shops]:
    picture = tmp_path_factory.mktemp("files") / "picture.png"
    picture.write_bytes(PICTURE)
    targets = {name: shop.target for name, shop in FRAMEWORKS.items()}
    mounts = [
        f"--mount={prefix}={targets[name]}" if (prefix := prefix_of(name)) else targets[name]
        for name in targets
    ]
    with ExitStack() as started:

        def start(*arguments: str, program: tuple[str, ...] = TWINSPAN) -> Command:
            directory = tmp_path_factory.mktemp("server")
            # py4web writes into the folder of its applications.
            shutil.copytree(APPS / "frameworks" / "py4web_apps", directory / "apps")
            environment = {"PICTURE": str(picture), "PY4WEB_SITE": str(directory / "apps")}
            command = Command(arguments, cwd=directory, env=environment, program=program)
            started.callback(command.kill)
            return command

        together = start("--app-dir", str(APPS), "--bind", "127.0.0.1:0", *mounts)
        alone = start(*targets.values(), program=(str(APPS / "each_at_root.py"),))
        roots = {
            name: alone.wait_for_line(re.escape(target) + r" is listening on (\S+)")[1]
            for name, target in targets.items()
        }
        yield Shops(together.url, roots)


@pytest.fixture(params=["mounted", "at the root"])
def place(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=FRAMEWORKS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def shop(shops: Shops, name: str, place: str) -> Iterator[httpx.Client]:
    url = shops.mounted + prefix_of(name) if place == "mounted" else shops.roots[name]
    with httpx.Client(base_url=url, trust_env=False, timeout=20, follow_redirects=True) as client:
        yield client


def below(shop: httpx.Client, path: str) -> str:
    """A path of the shop as the browser sees it."""
    return shop.base_url.path.rstrip("/") + path


def test_a_page_knows_what_was_asked_for(shop: httpx.Client) -> None:
    page = shop.get("/teas/Grüner Tee", params={"q": "süß & ☕"})
    assert page.status_code == 200
    assert page.headers["content-type"].lower().startswith("text/html")
    text = html.unescape(page.content.decode())
    assert "<title>Grüner Tee</title>" in text
    assert "<p id=query>süß & ☕</p>" in text


def test_a_form_is_followed_by_a_redirect_and_remembered(shop: httpx.Client) -> None:
    page = shop.get("/teas/Sencha", params={"q": ""})
    action = re.search(r'action="([^"]+)"', page.text)
    assert action
    assert httpx.URL(page.url).join(html.unescape(action[1])).path == below(shop, "/order")
    thanks = shop.post(
        page.url.join(html.unescape(action[1])), data={"tea": "Jasmintee & Käse = 100 % ☕"}
    )
    assert [answer.status_code in (302, 303) for answer in thanks.history] == [True]
    assert thanks.url.path == below(shop, "/thanks")
    assert thanks.content.decode() == "Jasmintee & Käse = 100 % ☕"


def test_an_upload_arrives_byte_by_byte(shop: httpx.Client) -> None:
    picture = {"picture": ("tee.png", PICTURE, "image/png")}
    receipt = shop.post("/upload", files=picture, data={"note": "süß ☕"})
    assert receipt.json() == {
        "filename": "tee.png",
        "size": len(PICTURE),
        "sha256": hashlib.sha256(PICTURE).hexdigest(),
        "note": "süß ☕",
    }


def test_an_upload_of_unknown_length(shop: httpx.Client, name: str) -> None:
    files = {"picture": ("tee.png", PICTURE, "image/png")}
    whole = httpx.Request("POST", "http://shop", files=files, data={"note": "süß ☕"})
    content = whole.read()
    pieces = (content[at : at + 50_000] for at in range(0, len(content), 50_000))
    kind = {"content-type": whole.headers["content-type"]}
    receipt = shop.post("/upload", content=pieces, headers=kind)
    if FRAMEWORKS[name].chunked:
        assert receipt.status_code == 200
        assert receipt.json()["sha256"] == hashlib.sha256(PICTURE).hexdigest()
    else:
        assert receipt.status_code >= 400


def test_a_file_is_sent_whole(shop: httpx.Client) -> None:
    picture = shop.get("/picture")
    assert picture.status_code == 200
    assert picture.headers["content-type"] == "image/png"
    assert picture.headers["content-length"] == str(len(PICTURE))
    assert picture.content == PICTURE


def test_a_body_that_is_made_while_it_is_sent(shop: httpx.Client) -> None:
    leaves = shop.get("/leaves")
    assert leaves.headers["content-type"].startswith("text/plain")
    assert leaves.text.splitlines() == [f"leaf {number}" for number in range(100)]
    assert "content-length" not in leaves.headers
