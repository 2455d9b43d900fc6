"""The small tea shop that every framework serves (`apps/frameworks`), as its visitors use it."""

from __future__ import annotations

import hashlib
import html
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parents[1]
APPS = TESTS / "apps"
PICTURE = random.Random(0).randbytes(300_000) + bytes(range(256))


def browser(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, trust_env=False, timeout=20, follow_redirects=True)


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


def table_of_documentation(heading: str) -> list[list[str]]:
    """The cells of the table below a heading of `docs/frameworks.md`, without its head."""
    page = (ROOT / "docs" / "frameworks.md").read_text("utf-8")
    section = re.split(r"^#+ ", page, flags=re.MULTILINE)
    (found,) = (text for text in section if text.startswith(f"{heading}\n"))
    lines = [line for line in found.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def pinned() -> list[str]:
    """What `pyproject.toml` asks for: `flask==3.1.3`."""
    return re.findall(r'"([\w.-]+==[\w.]+)', (ROOT / "pyproject.toml").read_text("utf-8"))


class ShopTests:
    """What a visitor does in each of the shops.

    Who derives from it has the fixtures `shop`, a client of one shop, and `unknown_length`, whether
    its framework reads the body of a request that does not tell its length.
    """

    def test_a_page_knows_what_was_asked_for(self, shop: httpx.Client) -> None:
        page = shop.get("/teas/Grüner Tee", params={"q": "süß & ☕"})
        assert page.status_code == 200
        assert page.headers["content-type"].lower().startswith("text/html")
        text = html.unescape(page.content.decode())
        assert "<title>Grüner Tee</title>" in text
        assert "<p id=query>süß & ☕</p>" in text

    def test_a_form_is_followed_by_a_redirect_and_remembered(self, shop: httpx.Client) -> None:
        order = form_of(shop.get("/teas/Sencha", params={"q": ""}))
        assert order.path == below(shop, "/order")
        thanks = shop.post(order, data={"tea": "Jasmintee & Käse = 100 % ☕"})
        assert [answer.status_code in (302, 303) for answer in thanks.history] == [True]
        assert thanks.url.path == below(shop, "/thanks")
        assert thanks.content.decode() == "Jasmintee & Käse = 100 % ☕"

    def test_an_upload_arrives_byte_by_byte(self, shop: httpx.Client) -> None:
        picture = {"picture": ("tee.png", PICTURE, "image/png")}
        receipt = shop.post("/upload", files=picture, data={"note": "süß ☕"})
        assert receipt.json() == {
            "filename": "tee.png",
            "size": len(PICTURE),
            "sha256": hashlib.sha256(PICTURE).hexdigest(),
            "note": "süß ☕",
        }

    def test_an_upload_of_unknown_length(self, shop: httpx.Client, unknown_length: bool) -> None:
        content, kind = multipart(
            {"note": "süß ☕"}, {"picture": ("tee.png", PICTURE, "image/png")}
        )
        receipt = shop.post("/upload", content=pieces(content), headers={"content-type": kind})
        if unknown_length:
            assert receipt.status_code == 200
            assert receipt.json()["sha256"] == hashlib.sha256(PICTURE).hexdigest()
        else:
            assert receipt.status_code in (400, 500)

    def test_a_file_is_sent_whole(self, shop: httpx.Client) -> None:
        picture = shop.get("/picture")
        assert picture.status_code == 200
        assert picture.headers["content-type"] == "image/png"
        assert picture.headers["content-length"] == str(len(PICTURE))
        assert picture.content == PICTURE

    def test_a_body_that_is_made_while_it_is_sent(self, shop: httpx.Client) -> None:
        leaves = shop.get("/leaves")
        assert leaves.headers["content-type"].startswith("text/plain")
        assert leaves.text.splitlines() == [f"leaf {number}" for number in range(100)]
        assert "content-length" not in leaves.headers
