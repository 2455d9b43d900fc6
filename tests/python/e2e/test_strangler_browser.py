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

TESTS = Path(__file__).parents[1]
SHOP = Path(__file__).parents[3] / "examples" / "strangler"
APPS = ("shop_api:app", "shop_legacy:app", "--bind", "127.0.0.1:0")

# Lets a test ask the page what came over its sockets and event streams.
RECORD = """
window.sockets = [];
window.closes = [];
window.WebSocket = class extends WebSocket {
  constructor(...given) {
    super(...given);
    sockets.push(this);
    this.addEventListener("close", (event) => closes.push([event.code, event.reason]));
  }
};
window.streams = [];
window.heard = [];
window.EventSource = class extends EventSource {
  constructor(...given) {
    super(...given);
    streams.push(this);
    this.addEventListener("message", (event) => {
      heard.push([JSON.parse(event.data).status, event.lastEventId]);
    });
  }
};
"""


@pytest.fixture
def shop(command: StartCommand, tmp_path: Path) -> Command:
    # A stream that has no end is cut a second after a stop.
    arguments = (*APPS, "--workers", "2", "--timeout-graceful-shutdown", "1")
    return command(*arguments, cwd=SHOP, env={"SHOP_DATA": str(tmp_path / "shop")})


def log_in(page: Page, shop: Command, wanted: str) -> None:
    """Logs in as Ada, who works in the shop, and goes on to the page that is wanted."""
    page.goto(f"{shop.url}/login?next={wanted}")
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill("kettle")
    page.get_by_role("main").get_by_role("button", name="Log in").click()


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
    log_in(page, shop, "/products/1")
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
    log_in(page, shop, "/board")
    expect(page.locator("#connection")).to_have_text("live")
    states = "window.states = []; new MutationObserver(() => states.push(connection.textContent))"
    page.evaluate(states + ".observe(connection, {childList: true})")
    shop.send_signal(signal.SIGHUP)
    page.wait_for_function("states.includes('reconnecting') && states.at(-1) === 'live'")


def test_a_board_speaks_with_compression_and_learns_why_it_is_closed(
    page: Page, command: StartCommand, tmp_path: Path
) -> None:
    environment = {"SHOP_DATA": str(tmp_path / "shop"), "PYTHONPATH": str(TESTS)}
    mount = "--mount=/echo=apps.echo:asgi"
    shop = command(*APPS, mount, cwd=SHOP, env=environment)
    page.add_init_script(RECORD)
    log_in(page, shop, "/board")
    expect(page.locator("#connection")).to_have_text("live")
    assert "permessage-deflate" in page.evaluate("sockets[0].extensions")

    # What the browser compresses and the server, each in turn, in both kinds of messages.
    lengths = page.evaluate("""async () => {
      const socket = new WebSocket(`ws://${location.host}/echo`);
      socket.binaryType = "arraybuffer";
      await new Promise((open) => { socket.onopen = open; });
      const noise = new Uint8Array(200_000);
      for (let at = 0; at < noise.length; at += 50_000) {
        crypto.getRandomValues(noise.subarray(at, at + 50_000));
      }
      const leaves = "süß ☕ ".repeat(100_000);
      const come = [];
      for (const message of [leaves, "", "short", noise]) {
        const answer = new Promise((answered) => { socket.onmessage = answered; });
        socket.send(message);
        const { data } = await answer;
        if (message === noise) {
          const back = new Uint8Array(data);
          come.push(noise.every((byte, at) => byte === back[at]) && back.length);
        } else {
          come.push(data === message && data.length);
        }
      }
      return come;
    }""")
    assert lengths == [600_000, 0, 5, 200_000]
    assert "permessage-deflate" in page.evaluate("sockets[1].extensions")

    shop.send_signal(signal.SIGTERM)
    page.wait_for_function("closes.length >= 2")
    assert page.evaluate("closes.slice(0, 2)") == [[1012, "the server is shutting down"]] * 2
    assert shop.wait() == 0


def test_an_order_is_followed_through_a_reload_of_the_server(page: Page, shop: Command) -> None:
    def change(status: str) -> str:
        """Moves the order on, as the board's button does; returns the id of the change."""
        answer = page.request.patch(f"{shop.url}/api/orders/300", data={"status": status})
        assert answer.status == 200, answer.text()
        expect(badge).to_have_text(status)
        return page.evaluate("heard.at(-1)[1]")

    page.add_init_script(RECORD)
    log_in(page, shop, "/orders/300")
    badge = page.locator("#status")
    expect(badge).to_have_text("new")
    page.wait_for_function("heard.length === 1")
    last = change("packed")
    expect(page.locator("#cancel")).to_be_visible()
    with page.expect_request("**/api/orders/300/events") as again:
        shop.send_signal(signal.SIGHUP)
    assert again.value.all_headers()["last-event-id"] == last
    change("shipped")
    expect(page.locator("#cancel")).to_have_count(0)
    change("delivered")
    page.wait_for_function("streams[0].readyState === EventSource.CLOSED")
    assert [status for status, _ in page.evaluate("heard")] == [
        "new",
        "packed",
        "shipped",
        "delivered",
    ]


# Beside the application, because Starlette asks `send` only, and that where there is news.
WATCHED = """
    import asyncio
    from shop_api import app

    class Watched:
        def __init__(self, inner):
            self.inner = inner

        async def __call__(self, scope, receive, send):
            if not scope.get("path", "").endswith("/events"):
                return await self.inner(scope, receive, send)

            async def watch():
                while (await receive())["type"] != "http.disconnect":
                    pass
                print("nobody follows", scope["path"], flush=True)

            watcher = asyncio.create_task(watch())
            await self.inner(scope, receive, send)

    app.add_middleware(Watched)
"""


def test_the_application_sees_at_once_that_a_browser_has_left(
    page: Page, command: StartCommand, tmp_path: Path
) -> None:
    environment = {"SHOP_DATA": str(tmp_path / "shop"), "PYTHONPATH": str(SHOP)}
    shop = command("watched:app", *APPS[1:], files={"watched.py": WATCHED}, env=environment)
    page.add_init_script(RECORD)
    log_in(page, shop, "/orders/300")
    page.wait_for_function("heard.length === 1")
    assert "nobody follows" not in shop.text
    page.goto(f"{shop.url}/orders/299")
    shop.wait_for_line("^nobody follows /api/orders/300/events")
    page.wait_for_function("heard.length === 1")
    page.close()
    shop.wait_for_line("^nobody follows /api/orders/299/events")
