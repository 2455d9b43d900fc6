"""The Flask shop half-way to FastAPI, as a person uses it: in a real browser."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page
    from support import Command, StartCommand

SHOP = Path(__file__).parents[3] / "examples" / "strangler"


@pytest.fixture
def shop(command: StartCommand, tmp_path: Path) -> Command:
    arguments = ("shop_api:app", "shop_legacy:app", "--bind", "127.0.0.1:0", "--workers", "2")
    return command(*arguments, cwd=SHOP, env={"SHOP_DATA": str(tmp_path / "shop")})


@pytest.fixture
def complaints(page: Page) -> list[str]:
    """What the browser finds wrong with the pages."""
    found: list[str] = []
    page.on("console", lambda message: found.append(message.text))
    page.on("pageerror", lambda error: found.append(str(error)))
    return found


def test_an_order_from_flask_appears_on_the_live_board_of_fastapi(
    page: Page, shop: Command, tmp_path: Path, complaints: list[str]
) -> None:
    # Logged in by Flask, which then sends on to the board.
    page.goto(f"{shop.url}/board")
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill("kettle")
    page.get_by_role("main").get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Orders, live")).to_be_visible()
    expect(page.locator("#connection")).to_have_text("live")
    new = page.locator("[data-status=new] .count")
    expect(new).to_have_text("2")

    # A second window orders by Flask's form; nobody touches the first.
    second = page.context.new_page()
    second.goto(shop.url)
    second.get_by_role("link", name="Oolong").click()
    second.get_by_label("Bags").fill("3")
    second.get_by_role("button", name="Order").click()
    expect(second.get_by_role("status")).to_contain_text("Thank you!")
    number = second.locator("tbody a").first.inner_text()
    card = page.locator(f"#order-{number}")
    expect(card.locator("b")).to_have_text(re.compile("3 . Oolong"))
    expect(new).to_have_text("3")

    # The board's button is FastAPI's API; FastAPI's page of the order shows what it did.
    card.get_by_role("button", name="Pack").click()
    expect(page.locator(f"[data-status=packed] #order-{number}")).to_be_visible()
    expect(new).to_have_text("2")
    second.get_by_role("link", name=number, exact=True).click()
    expect(second.locator("#answered-by")).to_have_text("FastAPI")
    expect(second.locator("dd .status")).to_have_text("packed")

    # Its form is Flask's, and the board hears of that too.
    second.get_by_role("button", name="Cancel this order").click()
    expect(second.locator("#answered-by")).to_have_text("Flask")
    expect(card).to_have_count(0)
    assert complaints == []


def test_a_picture_is_uploaded(
    page: Page, shop: Command, tmp_path: Path, complaints: list[str]
) -> None:
    page.goto(f"{shop.url}/login?next=/products/1")
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill("kettle")
    page.get_by_role("main").get_by_role("button", name="Log in").click()
    picture = tmp_path / "tea.png"
    page.locator(".tile").screenshot(path=picture)
    page.get_by_text("Change the picture").click()
    page.get_by_label("PNG, JPEG or GIF").set_input_files(picture)
    page.get_by_role("button", name="Upload").click()
    shown = page.locator("img.tile")
    expect(shown).to_be_visible()
    # Waits for the picture, and fails where what arrives is none.
    shown.evaluate("picture => picture.decode()")
    assert complaints == []


def test_the_board_finds_its_way_back_after_a_reload_of_the_server(
    page: Page, shop: Command
) -> None:
    page.goto(f"{shop.url}/login?next=/board")
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill("kettle")
    page.get_by_role("main").get_by_role("button", name="Log in").click()
    expect(page.locator("#connection")).to_have_text("live")
    states = "window.states = []; new MutationObserver(() => states.push(connection.textContent))"
    page.evaluate(states + ".observe(connection, {childList: true})")
    shop.send_signal(signal.SIGHUP)
    page.wait_for_function("states.includes('reconnecting') && states.at(-1) === 'live'")
