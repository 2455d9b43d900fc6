"""A page, a form, an upload, a file and a stream in the WSGI frameworks that people have.

Each framework serves the same small shop (``apps/frameworks``), below a mount of one command that
serves all of them, and at the root of a server of its own. Trac, which is no framework but an
application, serves a wiki.
"""

from __future__ import annotations

import hashlib
import html
import random
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import httpx
import pytest
from support import TWINSPAN, Command

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parents[1]
APPS = TESTS / "apps"
PICTURE = random.Random(0).randbytes(300_000) + bytes(range(256))


# To a server of `each_at_root`: tell whether the file wrapper was used.
OBSERVE = {"x-observe": "yes"}


class Framework(NamedTuple):
    """How the application is named for the command, and what the framework can."""

    target: str
    distribution: str
    unknown_length: bool = True
    """Reads the body of a request that does not tell its length."""
    file_wrapper: bool = True
    """Sends files through `wsgi.file_wrapper`."""
    mountable: bool = True
    """Matches what comes below a mount; otherwise it gets what no mount does."""
    until: tuple[int, int] = (4, 0)
    """The first version of Python that it does not run on."""

    @property
    def installed(self) -> bool:
        return sys.version_info < self.until


FRAMEWORKS = {
    "bobo": Framework("frameworks.bobo_shop:app", "bobo"),
    "Bottle": Framework("frameworks.bottle_shop:app", "bottle", unknown_length=False),
    "CherryPy": Framework("frameworks.cherrypy_shop:app", "cherrypy", file_wrapper=False),
    "Django": Framework("frameworks.django_shop:application", "django", unknown_length=False),
    "Falcon": Framework("frameworks.falcon_shop:app", "falcon", unknown_length=False),
    "Flask": Framework("frameworks.flask_shop:app", "flask"),
    "py4web": Framework("frameworks.py4web_shop:application", "py4web", unknown_length=False),
    "Pyramid": Framework("frameworks.pyramid_shop:main()", "pyramid"),
    "Trac": Framework("trac.web.main:dispatch_request", "trac", until=(3, 14)),
    "TurboGears": Framework("frameworks.turbogears_shop:app", "turbogears2"),
    "Uliweb": Framework("frameworks.uliweb_shop:application", "uliweb3", until=(3, 12)),
    "web.py": Framework("frameworks.webpy_shop:app", "web.py", file_wrapper=False),
    "webapp2": Framework("frameworks.webapp2_shop:app", "webapp2", mountable=False),
    "Werkzeug": Framework("frameworks.werkzeug_shop:app", "werkzeug"),
}
INSTALLED = [name for name, framework in FRAMEWORKS.items() if framework.installed]
SHOPS = [name for name in INSTALLED if name != "Trac"]


def prefix_of(name: str) -> str:
    return f"/shops/{name}" if FRAMEWORKS[name].mountable else ""


class Served(NamedTuple):
    """Where the applications are."""

    together: str
    alone: dict[str, str]

    def urls(self, name: str) -> dict[str, str]:
        return {"mounted": self.together + prefix_of(name), "alone": self.alone[name]}


@pytest.fixture(scope="module")
def wiki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of Trac in which everybody may do everything."""
    path = tmp_path_factory.mktemp("trac") / "wiki"
    if FRAMEWORKS["Trac"].installed:
        admin = (sys.executable, "-m", "trac.admin.console", str(path))
        for arguments in (
            ("initenv", "Teehaus ☕", "sqlite:db/trac.db"),
            ("permission", "add", "anonymous", "TRAC_ADMIN"),
        ):
            subprocess.run([*admin, *arguments], check=True, capture_output=True, timeout=30)
    else:
        path.mkdir()
    return path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, wiki: Path) -> Iterator[Served]:
    picture = tmp_path_factory.mktemp("files") / "picture.png"
    picture.write_bytes(PICTURE)
    targets = {name: FRAMEWORKS[name].target for name in INSTALLED}
    mounts = [
        f"--mount={prefix}={target}" if (prefix := prefix_of(name)) else target
        for name, target in targets.items()
    ]
    with ExitStack() as started:

        def start(*arguments: str, program: tuple[str, ...] = TWINSPAN) -> Command:
            directory = tmp_path_factory.mktemp("server")
            environment = {
                "PICTURE": str(picture),
                # Both write where their applications are.
                "PY4WEB_SITE": str(directory / "apps"),
                "TRAC_ENV": str(directory / "wiki"),
            }
            shutil.copytree(APPS / "frameworks" / "py4web_apps", directory / "apps")
            shutil.copytree(wiki, directory / "wiki")
            command = Command(arguments, cwd=directory, env=environment, program=program)
            started.callback(command.kill)
            return command

        together = start("--app-dir", str(APPS), "--bind", "127.0.0.1:0", *mounts)
        each = start(*targets.values(), program=(str(APPS / "each_at_root.py"),))
        alone = {
            name: each.wait_for_line(re.escape(target) + r" is listening on (\S+)")[1]
            for name, target in targets.items()
        }
        yield Served(together.url, alone)


@pytest.fixture(params=["mounted", "alone"])
def place(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=SHOPS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def browser(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, trust_env=False, timeout=20, follow_redirects=True)


@pytest.fixture
def shop(served: Served, name: str, place: str) -> Iterator[httpx.Client]:
    with browser(served.urls(name)[place]) as client:
        yield client


def below(client: httpx.Client, path: str) -> str:
    """The path that a browser sees."""
    return client.base_url.path.rstrip("/") + path


def form_of(page: httpx.Response, attributes: str = "") -> httpx.URL:
    """Where the form of a page goes."""
    found = re.search(rf'<form [^>]*{attributes}[^>]*action="([^"]+)"', page.text)
    assert found, page.text
    return page.url.join(html.unescape(found[1]))


def multipart(data: dict[str, str], files: dict[str, tuple[str, bytes, str]]) -> tuple[bytes, str]:
    """A form with files as it is sent, and its Content-Type."""
    request = httpx.Request("POST", "http://localhost", data=data, files=files)
    return request.read(), request.headers["content-type"]


def pieces(content: bytes) -> Iterator[bytes]:
    """What has no length that could be told."""
    for at in range(0, len(content), 50_000):
        yield content[at : at + 50_000]


def test_a_page_knows_what_was_asked_for(shop: httpx.Client) -> None:
    page = shop.get("/teas/Grüner Tee", params={"q": "süß & ☕"})
    assert page.status_code == 200
    assert page.headers["content-type"].lower().startswith("text/html")
    text = html.unescape(page.content.decode())
    assert "<title>Grüner Tee</title>" in text
    assert "<p id=query>süß & ☕</p>" in text


def test_a_form_is_followed_by_a_redirect_and_remembered(shop: httpx.Client) -> None:
    order = form_of(shop.get("/teas/Sencha", params={"q": ""}))
    assert order.path == below(shop, "/order")
    thanks = shop.post(order, data={"tea": "Jasmintee & Käse = 100 % ☕"})
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
    content, kind = multipart({"note": "süß ☕"}, {"picture": ("tee.png", PICTURE, "image/png")})
    receipt = shop.post("/upload", content=pieces(content), headers={"content-type": kind})
    if FRAMEWORKS[name].unknown_length:
        assert receipt.status_code == 200
        assert receipt.json()["sha256"] == hashlib.sha256(PICTURE).hexdigest()
    else:
        assert receipt.status_code in (400, 500)


def test_a_file_is_sent_whole(shop: httpx.Client) -> None:
    picture = shop.get("/picture")
    assert picture.status_code == 200
    assert picture.headers["content-type"] == "image/png"
    assert picture.headers["content-length"] == str(len(PICTURE))
    assert picture.content == PICTURE


def test_files_go_through_the_file_wrapper(served: Served, name: str) -> None:
    with browser(served.alone[name]) as client:
        picture = client.get("/picture", headers=OBSERVE)
    use = "used" if FRAMEWORKS[name].file_wrapper else "not used"
    assert picture.headers["x-file-wrapper"] == use
    assert picture.content == PICTURE


def test_a_body_that_is_made_while_it_is_sent(shop: httpx.Client) -> None:
    leaves = shop.get("/leaves")
    assert leaves.headers["content-type"].startswith("text/plain")
    assert leaves.text.splitlines() == [f"leaf {number}" for number in range(100)]
    assert "content-length" not in leaves.headers


needs_trac = pytest.mark.skipif("Trac" not in INSTALLED, reason="Python 3.14 is too new for Trac")


def token_of(page: httpx.Response) -> dict[str, str]:
    """What Trac asks for with each of its forms."""
    found = re.search(r'name="__FORM_TOKEN" value="(\w+)"', page.text)
    assert found, page.text
    return {"__FORM_TOKEN": found[1]}


@needs_trac
def test_trac_keeps_what_is_written(served: Served, place: str) -> None:
    with browser(served.urls("Trac")[place]) as trac:
        editor = trac.get("/wiki/GrünerTee", params={"action": "edit"})
        text = {"action": "edit", "version": "0", "text": "= Süß & ☕ =", "save": "yes"}
        saved = trac.post(form_of(editor, 'id="edit"'), data={**text, **token_of(editor)})
        assert [answer.status_code for answer in saved.history] == [303]
        assert saved.url.path == below(trac, "/wiki/GrünerTee")
        assert "Süß &amp; ☕" in saved.text


@needs_trac
@pytest.mark.parametrize("length", ["known", "unknown"])
def test_trac_keeps_what_is_attached(served: Served, place: str, length: str) -> None:
    picture = PICTURE[-256_000:]  # it takes 256 KiB unless it is told otherwise
    where = {"action": "new", "realm": "wiki", "id": "WikiStart", "description": "süß"}
    name = f"{length} length.png"
    with browser(served.urls("Trac")[place]) as trac:
        page = trac.get("/attachment/wiki/WikiStart/", params={"action": "new"})
        attachment = {"attachment": (name, picture, "image/png")}
        content, kind = multipart({**where, **token_of(page)}, attachment)
        attached = trac.post(
            form_of(page, 'id="attachment"'),
            content=content if length == "known" else pieces(content),
            headers={"content-type": kind},
        )
        assert [answer.status_code for answer in attached.history] == [303]
        assert attached.url.path == below(trac, "/attachment/wiki/WikiStart/")
        file = f"/raw-attachment/wiki/WikiStart/{name}"
        assert trac.get(file).content == picture
        if place == "alone":
            assert trac.get(file, headers=OBSERVE).headers["x-file-wrapper"] == "used"


def test_the_table_of_frameworks_says_what_was_tested() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    pins = re.findall(r'"([\w.-]+==[\w.]+)', project)
    page = (ROOT / "docs" / "frameworks.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines()]
    table = {row[0]: row for row in rows if row[0] in FRAMEWORKS}
    assert list(table) == list(FRAMEWORKS)
    for name, framework in FRAMEWORKS.items():
        _, version, python, unknown_length, files, mount, _ = table[name]
        assert f"{framework.distribution}=={version}" in pins
        assert tuple(map(int, python.split("."))) < framework.until
        assert (unknown_length == "yes") == framework.unknown_length
        assert (files == "`wsgi.file_wrapper`") == framework.file_wrapper
        assert (mount == "yes") == framework.mountable
