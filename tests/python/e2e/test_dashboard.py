"""The dashboard of a migration, as a person uses it: in a real browser, with real traffic."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING

import httpx
import pytest
from playwright.sync_api import expect
from support import Command, write_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Locator, Page, Route

FILES = {
    "twinspan.toml": """
        app_dir = "."
        state_dir = "state"

        [apps.new]
        app = "shop:new"

        [apps.old]
        app = "shop:old"

        [[routes]]
        name = "items"
        app = "new"
        template = "/items/{number}"
        canary = { percent = 50, sticky = "header:x-user", rollback = false }
        shadow = 100

        [[routes]]
        name = "about"
        app = "new"
        path = "/about"

        [[routes]]
        app = "old"
    """,
    # The old shop says of its items what no page should take for markup, and the new one
    # something else.
    "shop.py": """
        from flask import Flask
        from starlette.applications import Starlette
        from starlette.responses import JSONResponse, PlainTextResponse
        from starlette.routing import Route

        old = Flask("old", static_folder=None)


        @old.get("/items/<int:number>")
        def item(number):
            name = "<script>document.title = 'old'</script>"
            return {"name": name, "prices": [1, 2, 3], "by": "old"}


        @old.get("/cart")
        def cart():
            return "cart of old"


        @old.get("/about")
        def about():
            return "about old"


        def new_item(request):
            name = "<script>document.title = 'new'</script>"
            return JSONResponse({"name": name, "prices": ["1", "2", "3"], "by": "new"})


        def new_about(request):
            return PlainTextResponse("about new")


        new = Starlette(
            routes=[Route("/items/{number:int}", new_item), Route("/about", new_about)]
        )
    """,
}
USERS = 16
# Workers tell what they have seen each second, and the page asks every two.
TOLD = 20_000
REFUSAL = re.compile(r"Failed to load resource: the server responded with a status of 4\d\d")


class Shop:
    """A server in the middle of a migration."""

    def __init__(self, server: Command) -> None:
        self.url = server.url
        line = server.wait_for_line(r"admin endpoint at (?P<url>http://\S+?)/?$")
        self.admin = line.group("url")
        self.token = (server.cwd / "state" / "admin-token").read_text("utf-8").strip()

    def visit(self, path: str) -> list[str]:
        """What so many users are told, each on a connection of their own."""
        fresh = httpx.Limits(max_keepalive_connections=0)
        users = range(USERS)
        with httpx.Client(trust_env=False, timeout=20, limits=fresh) as client:
            answers = [client.get(self.url + path, headers={"x-user": str(n)}) for n in users]
        return [answer.text for answer in answers]

    def change(self, change: dict[str, object]) -> None:
        headers = {"authorization": f"Bearer {self.token}"}
        answer = httpx.post(
            f"{self.admin}/migrate/change", json=change, headers=headers, trust_env=False
        )
        assert answer.status_code == 200, answer.text

    def shadow(self) -> float:
        answer = httpx.get(f"{self.admin}/migrate/rules", trust_env=False)
        (items,) = (rule for rule in answer.json()["rules"] if rule["name"] == "items")
        return items["shadow"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    directory = tmp_path_factory.mktemp("dashboard")
    write_files(directory, FILES)
    # The later `--app-dir` of the tests would hide the applications.
    options = ("--bind", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "2")
    server = Command(options, cwd=directory)
    try:
        yield Shop(server)
    finally:
        server.kill()


@pytest.fixture
def dashboard(page: Page, shop: Shop) -> Iterator[Page]:
    """The page; the browser has nothing to say against it, and it asks for nothing elsewhere."""
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(shop.admin)
    yield page
    shop.change({"rule": "items", "edit": "reset"})
    # That it is refused is no fault of the page.
    assert [text for text in complaints if not REFUSAL.match(text)] == []
    assert [url for url in asked if not url.startswith((f"{shop.admin}/", "data:"))] == []


def row(dashboard: Page, route: str) -> Locator:
    return dashboard.locator(f"[data-route='{route}']")


def rule(dashboard: Page) -> Locator:
    return dashboard.locator("[data-rule=items]")


def unlock(dashboard: Page, token: str) -> None:
    dialog = dashboard.get_by_role("dialog", name="A change needs the token")
    dialog.get_by_label("Token").fill(token)
    dialog.get_by_role("button", name="Continue").click()


def test_traffic_stages_and_numbers_come_by_themselves(dashboard: Page, shop: Shop) -> None:
    item = row(dashboard, "GET /items/<int:number>")
    expect(item.locator(".badge")).to_have_text("canary 50 %", timeout=TOLD)
    expect(row(dashboard, "GET /about").locator(".badge")).to_have_text("new")
    expect(row(dashboard, "GET /cart").locator(".badge")).to_have_text("legacy")

    for path in ("/items/7", "/about", "/cart"):
        shop.visit(path)
    about = row(dashboard, "GET /about").locator("td.requests").nth(1)
    expect(about).to_have_text(re.compile(r"\d"), timeout=TOLD)
    expect(row(dashboard, "GET /cart").locator("td.requests").first).not_to_be_empty(timeout=TOLD)
    expect(item.locator("td.same")).to_have_text("0 %", timeout=TOLD)
    expect(dashboard.locator("#legend")).to_have_text("newold")
    expect(dashboard.locator("#done li").first).to_have_text(re.compile(r"33\.3 %\s*of the routes"))
    expect(dashboard.locator("#done li").nth(1)).to_have_text(re.compile(r"\d %\s*of the requests"))

    # The areas have a height once there is traffic.
    dashboard.wait_for_function(
        """() => ["new", "old"].every((app) => {
            const area = document.querySelector(`#chart [data-app=${app}]`);
            return area.getBBox().height > 1;
        })"""
    )
    dashboard.locator("#chart").focus()
    dashboard.keyboard.press("ArrowLeft")
    tip = dashboard.locator("#tip")
    expect(tip).to_contain_text(re.compile(r"\d\d:\d\d per minute.*old.*new.*all.*\d", re.DOTALL))
    dashboard.keyboard.press("Escape")
    expect(tip).to_be_hidden()


def test_differences_stand_side_by_side_and_are_never_markup(dashboard: Page, shop: Shop) -> None:
    dashboard.get_by_role("button", name="/items/<int:number>").click()
    shop.visit("/items/8")
    found = dashboard.locator(".sample tr").filter(has_text="$.name").first
    found.wait_for(timeout=TOLD)
    expect(found.locator(".old")).to_contain_text("<script>document.title = 'old'</script>")
    expect(found.locator(".new")).to_contain_text("<script>document.title = 'new'</script>")
    expect(found.locator("mark")).to_have_text(["old", "new"])
    prices = dashboard.locator(".sample tr").filter(has_text="$.prices").first
    expect(prices).to_contain_text("and 2 more")
    expect(prices).to_contain_text("a number in one, and the same as text in the other")
    assert dashboard.title() == "Twinspan"
    assert dashboard.locator("script").count() == 1


def test_a_canary_is_rolled_back_by_the_button_and_reset(dashboard: Page, shop: Shop) -> None:
    assert {'"by":"new"' in text for text in shop.visit("/items/1")} == {True, False}
    card = rule(dashboard)
    card.get_by_role("button", name="Roll back").click()
    unlock(dashboard, shop.token)
    dialog = dashboard.get_by_role("dialog", name="Roll back: items")
    expect(dialog.locator("#preview")).to_contain_text("canary 50 % → 0 %")
    dialog.get_by_label("Reason").fill("prices are <b>text</b>")
    dialog.get_by_role("button", name="Roll back").click()

    expect(card.locator(".notice")).to_contain_text("on 2 workers")
    expect(card.locator(".latch")).to_contain_text("Rolled back from 50 % on ")
    expect(card.locator(".latch")).to_contain_text("prices are <b>text</b>")
    badge = row(dashboard, "GET /items/<int:number>").locator(".badge")
    expect(badge).to_have_text("rolled back", timeout=TOLD)
    assert {'"by":"new"' in text for text in shop.visit("/items/1")} == {False}
    expect(card.get_by_role("button", name="Roll back")).to_be_disabled()
    last = dashboard.locator("#changes li").first
    expect(last).to_contain_text("items: canary 50 % → 0 %, rolled back")
    expect(last).to_contain_text("operator")
    expect(last).to_contain_text("prices are <b>text</b>")

    # The token is asked for once. A canary that was rolled back is not moved before its reset.
    card.get_by_label("canary of items").fill("70")
    card.get_by_label("canary of items").press("Enter")
    expect(card.locator(".problem")).to_have_text(
        "Rule `items` was rolled back (prices are <b>text</b>): reset it first."
    )
    card.get_by_role("button", name="Reset").click()
    dialog = dashboard.get_by_role("dialog", name="Reset: items")
    expect(dialog.locator("#preview")).to_contain_text("no longer rolled back")
    dialog.get_by_role("button", name="Reset").click()
    expect(badge).to_have_text("canary 50 %", timeout=TOLD)


def test_a_wrong_token_is_told_and_asked_for_again(dashboard: Page, shop: Shop) -> None:
    card = rule(dashboard)
    card.get_by_label("shadow of items").fill("12.5")
    card.get_by_label("shadow of items").press("Enter")
    unlock(dashboard, "x" * 40)
    dialog = dashboard.get_by_role("dialog", name="A change needs the token")
    expect(dialog).to_contain_text("This is not the token in `admin-token` of the state directory.")
    unlock(dashboard, shop.token)
    dialog = dashboard.get_by_role("dialog", name="Set shadow: items")
    expect(dialog.locator("#preview")).to_have_text("shadow 100 % → 12.5 %")
    dialog.get_by_role("button", name="Cancel").click()
    # Nothing was changed yet, and the token is not asked for again.
    assert shop.shadow() == 100
    expect(card.get_by_label("shadow of items")).to_have_value("12.5")
    card.get_by_label("shadow of items").press("Enter")
    dialog.get_by_role("button", name="Set shadow").click()
    expect(card.locator(".share.shadow b")).to_have_text("12.5 %", timeout=TOLD)
    assert shop.shadow() == 12.5
    dashboard.reload()
    assert dashboard.evaluate("Object.keys(sessionStorage)") == ["twinspan-token"]
    assert dashboard.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    dashboard.get_by_role("button", name="Forget the token").click()
    assert dashboard.evaluate("sessionStorage.length") == 0


def test_routes_are_filtered_and_sorted(dashboard: Page, shop: Shop) -> None:
    paths = dashboard.locator("#routes .path")
    # What needs a look comes first.
    expect(paths).to_have_text(["/items/<int:number>", "/cart", "/about"], timeout=TOLD)
    dashboard.get_by_role("button", name="Path").click()
    expect(paths).to_have_text(["/about", "/cart", "/items/<int:number>"])
    dashboard.get_by_role("button", name="Path").press("Enter")
    expect(paths).to_have_text(["/items/<int:number>", "/cart", "/about"])
    expect(dashboard.get_by_role("columnheader", name="Path")).to_have_attribute(
        "aria-sort", "descending"
    )
    dashboard.get_by_role("group", name="Stage").get_by_role("button", name="legacy 1").click()
    expect(paths).to_have_text(["/cart"])
    dashboard.get_by_role("group", name="Stage").get_by_role("button", name="all 3").click()
    dashboard.get_by_label("Filter routes").fill("ITEMS get")
    expect(paths).to_have_text(["/items/<int:number>"])
    dashboard.get_by_label("Filter routes").fill("nowhere")
    expect(dashboard.get_by_text("No route is like that.")).to_be_visible()


def test_the_page_fits_a_phone(dashboard: Page, shop: Shop) -> None:
    dashboard.set_viewport_size({"width": 400, "height": 800})
    dashboard.get_by_role("button", name="/items/<int:number>").click()
    dashboard.locator(".panel").wait_for()
    assert dashboard.evaluate("document.documentElement.scrollWidth") <= 400


def test_after_the_last_day_weeks_count_what_is_not_legacy(page: Page, shop: Shop) -> None:
    def last_day(route: Route) -> None:
        answer = route.fetch()
        status = answer.json()
        for app in status["apps"]:
            app["legacy"] = False
        # The one that was taken out has had its requests too.
        status["weeks"] = [{"week": "2026-W47", "requests": {"taken-out": 3, "new": 1}}]
        route.fulfill(response=answer, json=status)

    page.route("**/migrate", last_day)
    page.goto(shop.admin)
    expect(page.locator("#summary")).to_contain_text(
        "The migration is done: no application is the legacy one", timeout=TOLD
    )
    expect(page.locator("#weeks li")).to_have_text("2026-W47: 25 % of 4 requests")


def test_a_page_that_is_not_seen_asks_for_nothing(dashboard: Page) -> None:
    pulse = dashboard.locator("#pulse")
    expect(pulse).to_have_text(re.compile(r"^live, as of \d\d:\d\d:\d\d$"), timeout=TOLD)
    hidden = """hidden => Object.defineProperty(
        document, "hidden", {get: () => hidden, configurable: true}
    )"""
    dashboard.evaluate(hidden, True)
    expect(pulse).to_have_text("paused while this tab is hidden", timeout=TOLD)
    dashboard.evaluate(hidden, False)
    with dashboard.expect_request("**/migrate"):
        dashboard.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(pulse).to_have_text(re.compile("^live"), timeout=TOLD)


def test_a_server_that_is_away_is_told_and_found_again(page: Page, shop: Shop) -> None:
    page.goto(shop.admin)
    page.locator("#pulse[data-state=live]").wait_for()
    page.context.set_offline(True)
    expect(page.get_by_role("alert")).to_contain_text(
        re.compile(r"^The server does not answer\. What you see is as of \d"), timeout=TOLD
    )
    expect(row(page, "GET /cart")).to_be_visible()
    page.context.set_offline(False)
    page.locator("#pulse[data-state=live]").wait_for()
    expect(page.locator("#trouble")).to_be_hidden()


def test_the_policy_allows_the_one_script_and_style_of_the_page(shop: Shop) -> None:
    answer = httpx.get(f"{shop.admin}/", trust_env=False)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'; " in policy, "write it into src/admin/dashboard.rs"
    for part in ("default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'"):
        assert part in policy


def test_the_page_answers_to_names_of_this_machine_only(shop: Shop) -> None:
    answer = httpx.get(f"{shop.admin}/", headers={"host": "rebound.example"}, trust_env=False)
    assert (answer.status_code, answer.text) == (
        403,
        "only localhost and loopback addresses are names of this endpoint\n",
    )
    answer = httpx.get(f"{shop.admin}/elsewhere", trust_env=False)
    assert answer.status_code == 404
    assert "/ shows a migration in a browser" in answer.text
    answer = httpx.post(f"{shop.admin}/", trust_env=False)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
