"""A Django site with a WebSocket beside it, as its README starts it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

if TYPE_CHECKING:
    import httpx
    from playwright.sync_api import Page
    from support import Command, StartCommand

SITE = Path(__file__).parents[3] / "examples" / "websocket_beside_legacy"


@pytest.fixture
def site(command: StartCommand, tmp_path: Path) -> Command:
    mounts = ("--mount", "/ws=live:app", "--mount", "/=guestbook.wsgi:application")
    environment = {"GUESTBOOK": str(tmp_path / "guestbook.jsonl")}
    return command(*mounts, "--bind", "127.0.0.1:0", cwd=SITE, env=environment)


def test_the_site_works_as_before(site: Command, http: httpx.Client) -> None:
    page = http.get(site.url)
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert found
    entry = {"csrfmiddlewaretoken": found[1], "name": "Ada", "message": "Good tea.\nGood night."}
    assert http.post(site.url, data=entry).headers["location"] == "/"
    assert "Good tea." in http.get(site.url).text
    assert "Good night." in http.get(f"{site.url}/entries/1/").text
    assert http.get(f"{site.url}/entries/1").headers["location"] == "/entries/1/"
    assert http.get(f"{site.url}/entries/2/").status_code == 404
    assert http.post(site.url, data={**entry, "name": ""}).status_code == 400
    entry["csrfmiddlewaretoken"] = "forged"
    assert http.post(site.url, data=entry).status_code == 403


def test_readers_are_counted(site: Command) -> None:
    url = f"ws://127.0.0.1:{site.port}/ws/here"

    def readers(seen: str | bytes) -> int:
        return json.loads(seen)["readers"]

    with connect(url, proxy=None) as first:
        assert readers(first.recv(timeout=20)) == 1
        with connect(url, proxy=None) as second:
            assert readers(second.recv(timeout=20)) == 2
            while readers(first.recv(timeout=20)) != 2:
                pass
        while readers(first.recv(timeout=20)) != 1:
            pass


def test_an_upgrade_that_belongs_to_django_is_refused(site: Command) -> None:
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(f"ws://127.0.0.1:{site.port}/", proxy=None),
    ):
        pass
    assert refused.value.response.status_code == 404


def test_the_page_shows_who_reads_it(site: Command, page: Page) -> None:
    page.goto(site.url)
    expect(page.locator("#readers")).to_have_text("1")
    second = page.context.new_page()
    second.goto(site.url)
    expect(page.locator("#readers")).to_have_text("2")
    second.get_by_label("Name").fill("Grace")
    second.get_by_label("Message").fill("Was here.")
    second.get_by_role("button", name="Sign").click()
    expect(second.get_by_role("article")).to_contain_text("Was here.")
    second.close()
    expect(page.locator("#readers")).to_have_text("1")
