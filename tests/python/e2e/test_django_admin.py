"""Django's admin as a person drives it, by what its pages offer: sessions, forms, uploads."""

from __future__ import annotations

import re
from html import unescape
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx
import pytest
from adapters.raw import Client
from e2e.archive import APPLICATION, PASSWORD, USER, prepare
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from e2e.wire import StartShared
    from playwright.sync_api import Page
    from support import Command

PREFIX = "/below/it"
NAME = "Übersicht-茶.bin"
CONTENT = bytes(range(256)) * 1200  # 300 KiB: above what Django keeps in memory


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the project keeps its database and its files."""
    return tmp_path_factory.mktemp("archive")


@pytest.fixture(scope="module")
def server(start_shared: StartShared, data: Path) -> Command:
    return start_shared(APPLICATION, "--mount", f"{PREFIX}={APPLICATION}", env=prepare(data))


@pytest.fixture(params=["http1", "http2", "below"])
def client(server: Command, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    http2 = request.param == "http2"
    prefix = PREFIX if request.param == "below" else ""
    with httpx.Client(
        http1=not http2,
        http2=http2,
        base_url=f"{server.url}{prefix}",
        trust_env=False,
        verify=False,
        timeout=20,
    ) as client:
        yield client


def token(page: httpx.Response) -> dict[str, str]:
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert found, page.text
    return {"csrfmiddlewaretoken": found[1]}


def log_in(client: httpx.Client, password: str = PASSWORD) -> httpx.Response:
    form = token(client.get("/admin/login/"))
    return client.post("/admin/login/", data={**form, "username": USER, "password": password})


def text(page: httpx.Response) -> str:
    """What a page says, without its tags."""
    assert page.status_code == 200, page.text
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page.text)))


def path(client: httpx.Client, rest: str) -> str:
    """A path of the project as its links have it."""
    return client.base_url.path.rstrip("/") + rest


def add(client: httpx.Client, title: str, content: bytes = b"", name: str = NAME) -> httpx.Response:
    """Fills in the form of a new record; returns the list that comes after."""
    form = {**token(client.get("/admin/archive/record/add/")), "title": title, "_save": "Save"}
    files = {"attachment": (name, content, "application/octet-stream")}
    return client.post("/admin/archive/record/add/", data=form, files=files, follow_redirects=True)


def record(client: httpx.Client, title: str) -> str:
    """The path of a record's page in the admin, as the list links it."""
    found = client.get("/admin/archive/record/", params={"q": title})
    link = re.search(rf'<a href="([^"?]+)[^"]*">{title}</a>', found.text)
    assert link, found.text
    assert link[1].startswith(path(client, "/admin/archive/record/"))
    return link[1].removeprefix(path(client, ""))


def test_logging_in_and_out(client: httpx.Client) -> None:
    sent_away = client.get("/admin/")
    assert sent_away.status_code == 302
    login = f"{path(client, '/admin/login/')}?next={path(client, '/admin/')}"
    assert sent_away.headers["location"] == login
    assert "csrftoken" not in client.cookies

    wrong = log_in(client, "pot")
    assert "Please enter the correct username and password" in text(wrong)
    assert "csrftoken" in client.cookies
    assert "sessionid" not in client.cookies
    forged = client.post("/admin/login/", data={"username": USER, "password": PASSWORD})
    assert (forged.status_code, "CSRF verification failed" in forged.text) == (403, True)

    assert log_in(client).status_code == 302
    assert "sessionid" in client.cookies
    index = client.get("/admin/")
    assert "Welcome, ada" in text(index)
    assert f'href="{path(client, "/admin/archive/record/")}"' in index.text

    out = client.post("/admin/logout/", data=token(index))
    assert "Thanks for spending some quality time with the web site today" in text(out)
    assert "sessionid" not in client.cookies
    assert client.get("/admin/").status_code == 302


def test_a_record_is_added_found_changed_and_deleted(
    client: httpx.Client, data: Path, request: pytest.FixtureRequest
) -> None:
    title = f"tea {request.node.callspec.id}"
    log_in(client)
    added = text(add(client, title, CONTENT))
    assert f"{title} ” was added successfully." in added
    assert "Came as TemporaryUploadedFile." in added
    kept = sorted((data / "media" / "attachments").iterdir(), key=lambda file: file.stat().st_ctime)
    assert kept[-1].name.startswith("Übersicht-茶")
    assert kept[-1].read_bytes() == CONTENT
    assert list((data / "temporary").iterdir()) == []

    again = text(add(client, title, CONTENT))
    assert "Please correct the error below." in again
    assert "Record with this Title already exists." in again

    page = record(client, title)
    form = client.get(page)
    assert f'value="{title}"' in form.text
    assert quote(kept[-1].name) in form.text
    changes = {**token(form), "title": f"{title} ✓", "_continue": "Save"}
    changed = client.post(page, data=changes, follow_redirects=True)
    assert f"{title} ✓ ” was changed successfully." in text(changed)
    assert quote(kept[-1].name) in changed.text

    history = text(client.get(page.replace("/change/", "/history/")))
    assert "Added." in history
    assert "Changed Title." in history

    deletion = page.replace("/change/", "/delete/")
    ask = client.get(deletion)
    assert "Are you sure you want to delete the record" in text(ask)
    assert f"{title} ✓" in text(ask)
    deleted = client.post(deletion, data={**token(ask), "post": "yes"}, follow_redirects=True)
    assert "was deleted successfully." in text(deleted)
    assert client.get(page).status_code == 302


@pytest.mark.parametrize("size", [1, 100_000, 5_000_000])
def test_an_upload_is_downloaded_again_byte_for_byte(
    client: httpx.Client, request: pytest.FixtureRequest, size: int
) -> None:
    title = f"download {request.node.callspec.id}"
    content = (CONTENT * (size // len(CONTENT) + 1))[:size]
    log_in(client)
    kind = "TemporaryUploadedFile" if size > 128 * 1024 else "InMemoryUploadedFile"
    assert f"Came as {kind}." in text(add(client, title, content))

    download = f"/download/{record(client, title).split('/')[-3]}"
    answer = client.get(download)
    assert answer.content == content
    assert answer.headers["content-length"] == str(size)
    assert answer.headers["content-type"] == "application/octet-stream"
    disposition = answer.headers["content-disposition"]
    assert disposition.startswith("attachment; filename*=utf-8''%C3%9Cbersicht-%E8%8C%B6")
    head = client.head(download)
    assert (head.content, head.headers["content-length"]) == (b"", str(size))


# Django's handler of static files does not know prefixes.
@pytest.mark.parametrize("client", ["http1", "http2"], indirect=True)
def test_static_files(client: httpx.Client) -> None:
    page = client.get("/admin/login/")
    links = re.findall(r'(?:href|src)="([^"]+\.(?:css|js))"', page.text)
    assert len(links) > 2
    for link in links:
        assert link.startswith("/static/admin/")
        file = client.get(link)
        assert file.headers["content-type"].startswith(("text/css", "text/javascript"))
        assert len(file.content) == int(file.headers["content-length"])
    style = client.get("/static/admin/css/base.css")
    again = client.get(
        "/static/admin/css/base.css", headers={"if-modified-since": style.headers["last-modified"]}
    )
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/static/admin/css/no.css").status_code == 404


def test_a_form_with_fields_and_files_of_every_size(client: httpx.Client) -> None:
    sizes = [0, 1, 64 * 1024, 64 * 1024 + 1, 1_000_000]
    files = [("file", (f"{size}.bin", b"x" * size)) for size in sizes]
    fields = {"name": "Übersicht", "long": "y" * 200_000}
    answer = client.post("/upload", data=fields, files=files)
    assert answer.json() == {"sizes": sizes, "fields": fields}


def test_two_sessions_are_two(server: Command) -> None:
    def new() -> httpx.Client:
        return httpx.Client(base_url=server.url, trust_env=False, verify=False, timeout=20)

    with new() as one, new() as two:
        log_in(one)
        assert one.get("/admin/").status_code == 200
        assert two.get("/admin/").status_code == 302
        log_in(two)
        one.post("/admin/logout/", data=token(one.get("/admin/")))
        assert one.get("/admin/").status_code == 302
        assert two.get("/admin/").status_code == 200


# Clients that leave.


def test_an_upload_that_breaks_off_is_django_s_unreadable_post_error(
    server: Command, data: Path
) -> None:
    after = len(server.lines)
    with Client(server.port) as leaving:
        leaving.start("POST", "/upload", 10_000_000, content_type="multipart/form-data; boundary=b")
        head = '--b\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
        leaving.send(head.encode() + b"x" * 1_000_000)
    with httpx.Client(base_url=server.url, trust_env=False, verify=False, timeout=20) as client:
        assert client.get("/counts?what=unreadable").json()["unreadable"] == 1
        assert list((data / "temporary").iterdir()) == []
    assert "Traceback" not in "\n".join(server.lines[after:])


def test_a_stream_that_nobody_reads_any_more_is_finished(server: Command) -> None:
    with httpx.Client(base_url=server.url, trust_env=False, verify=False, timeout=20) as client:
        before = client.get("/counts").json()
        with Client(server.port) as leaving:
            leaving.start("GET", "/endless")
            assert leaving.head().status == 200
        after = client.get("/counts").json()
        assert after["started"] == before["started"] + 2
        # All but the one that tells.
        finished = (after.get(f"finished {how}", 0) for how in ("with a connection", "without"))
        assert sum(finished) == after["started"] - 1


# A browser.


def test_the_admin_in_a_browser(page: Page, server: Command, data: Path, tmp_path: Path) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    file = tmp_path / NAME
    file.write_bytes(CONTENT)

    page.goto(f"{server.url}/admin/")
    page.get_by_label("Username").fill(USER)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.locator("#content-main .model-record .addlink").click()
    page.get_by_label("Title").fill("by a browser")
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("was added successfully")).to_be_visible()

    page.get_by_role("link", name="by a browser").first.click()
    expect(page.get_by_label("Title")).to_have_value("by a browser")
    number = page.url.split("/")[-3]
    got = page.request.get(f"{server.url}/download/{number}")
    assert got.body() == CONTENT
    page.locator("a.deletelink").click()
    page.get_by_role("button", name=re.compile("^Yes, ")).click()
    expect(page.get_by_text("was deleted successfully")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Logged out")).to_be_visible()
    assert complaints == []
