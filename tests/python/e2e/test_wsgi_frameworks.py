"""A page, a form, an upload, a file and a stream in the WSGI frameworks that people have.

Each framework serves the same small shop (``apps/frameworks``), below a mount of one command that
serves all of them, and at the root of a server of its own. Trac, which is no framework but an
application, serves a wiki.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import pytest
from e2e.shops import (
    APPS,
    PICTURE,
    ShopTests,
    below,
    browser,
    form_of,
    multipart,
    pieces,
    pinned,
    table_of_documentation,
)
from support import TWINSPAN, Command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

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
        each = start("--observe", *targets.values(), program=(str(APPS / "each_at_root.py"),))
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


@pytest.fixture
def shop(served: Served, name: str, place: str) -> Iterator[httpx.Client]:
    with browser(served.urls(name)[place]) as client:
        yield client


@pytest.fixture
def unknown_length(name: str) -> bool:
    return FRAMEWORKS[name].unknown_length


class TestShops(ShopTests):
    pass


def test_files_go_through_the_file_wrapper(served: Served, name: str) -> None:
    with browser(served.alone[name]) as client:
        picture = client.get("/picture", headers=OBSERVE)
    use = "used" if FRAMEWORKS[name].file_wrapper else "not used"
    assert picture.headers["x-file-wrapper"] == use
    assert picture.content == PICTURE


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
    rows = table_of_documentation("WSGI frameworks")
    table = {row[0]: row for row in rows if row[1] != "none"}
    assert list(table) == list(FRAMEWORKS)
    for name, framework in FRAMEWORKS.items():
        _, version, python, unknown_length, files, mount, _ = table[name]
        assert f"{framework.distribution}=={version}" in pinned()
        assert tuple(map(int, python.split("."))) < framework.until
        assert (unknown_length == "yes") == framework.unknown_length
        assert (files == "`wsgi.file_wrapper`") == framework.file_wrapper
        assert (mount == "yes") == framework.mountable
