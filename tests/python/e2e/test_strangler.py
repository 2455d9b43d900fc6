"""The Flask shop half-way to FastAPI, as its README starts it, over HTTP."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from support import Command
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOP = Path(__file__).parents[3] / "examples" / "strangler"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40


@pytest.fixture(scope="module", params=["command line", "file", "moved"])
def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Command]:
    """Two workers, so that nothing of the shop may live in one of them only."""
    arguments = {
        "command line": ("shop_api:app", "shop_legacy:app"),
        "file": ("--config", "shop.toml"),
        # Where the move ends: nothing of Flask is left.
        "moved": ("shop_api:app", "shop_pages:app"),
    }[request.param]
    environment = {"SHOP_DATA": str(tmp_path_factory.mktemp("shop"))}
    arguments += ("--bind", "127.0.0.1:0", "--workers", "2")
    server = Command(arguments, cwd=SHOP, env=environment)
    try:
        assert server.url
        yield server
    finally:
        server.kill()


@pytest.fixture
def pages(request: pytest.FixtureRequest) -> str:
    """Who answers what has not moved to `shop_api`, as the pages say it."""
    parameters = request.node.callspec.params
    return "FastAPI" if parameters["shop"] == "moved" else "Flask"


@pytest.fixture
def visitor(shop: Command) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shop.url, trust_env=False, timeout=20) as client:
        yield client


@pytest.fixture
def ada(visitor: httpx.Client) -> httpx.Client:
    """Works in the shop."""
    return log_in(visitor, "ada", "kettle")


@pytest.fixture
def grace(shop: Command) -> Iterator[httpx.Client]:
    """Buys in the shop."""
    with httpx.Client(base_url=shop.url, trust_env=False, timeout=20) as client:
        yield log_in(client, "grace", "teapot")


def log_in(client: httpx.Client, name: str, password: str) -> httpx.Client:
    form = {"csrf": token(client, "/login"), "name": name, "password": password}
    answer = client.post("/login", data=form)
    assert (answer.status_code, answer.headers["location"]) == (302, "/")
    return client


def token(client: httpx.Client, page: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', client.get(page).text)
    assert found
    return found[1]


def order(client: httpx.Client, product: int, quantity: int) -> int:
    """Orders through the form of the Flask side; returns the number of the order."""
    form = {"csrf": token(client, f"/products/{product}"), "quantity": quantity}
    answer = client.post("/orders", data={**form, "product_id": product}, follow_redirects=True)
    placed = re.search(r"Order (\d+) is on its way", answer.text)
    assert placed, answer.text
    return int(placed[1])


def answered_by(page: httpx.Response) -> str:
    found = re.search(r'id="answered-by">(\w+)<', page.text)
    assert found, page
    return found[1]


def test_pages_and_static_files_come_from_the_old_side(visitor: httpx.Client, pages: str) -> None:
    home = visitor.get("/")
    assert home.status_code == 200
    assert answered_by(home) == pages
    assert home.text.count('class="tile') == 6
    style = visitor.get("/static/shop.css")
    assert style.headers["content-type"].startswith("text/css")
    tag = {"if-none-match": style.headers["etag"]}
    assert visitor.get("/static/shop.css", headers=tag).status_code == 304


def test_a_wrong_password(visitor: httpx.Client) -> None:
    form = {"csrf": token(visitor, "/login"), "name": "ada", "password": "cup"}
    answer = visitor.post("/login", data=form)
    assert answer.status_code == 200
    assert "Wrong name or password" in answer.text


def test_a_form_without_its_token_is_refused(visitor: httpx.Client) -> None:
    answer = visitor.post("/login", data={"name": "ada", "password": "kettle"})
    assert answer.status_code == 400
    assert "This form is too old" in answer.text


def test_pages_behind_the_login_send_there_and_back(visitor: httpx.Client) -> None:
    sent = visitor.get("/orders")
    assert (sent.status_code, sent.headers["location"]) == (302, "/login?next=/orders")
    form = {"csrf": token(visitor, "/login"), "name": "grace", "password": "teapot"}
    assert visitor.post("/login?next=/orders", data=form).headers["location"] == "/orders"
    form["csrf"] = token(visitor, "/")
    assert visitor.post("/login?next=//evil.example/", data=form).headers["location"] == "/"


def test_logging_out_ends_the_session_on_both_sides(grace: httpx.Client) -> None:
    assert grace.get("/api/orders").status_code == 200
    assert grace.post("/logout", data={"csrf": token(grace, "/")}).status_code == 302
    assert grace.get("/api/orders").status_code == 401
    assert grace.get("/orders").status_code == 302


def test_an_order_from_flask_is_there_in_fastapi(grace: httpx.Client) -> None:
    number = order(grace, product=2, quantity=3)
    found = grace.get(f"/api/orders/{number}").json()
    assert (found["product"], found["quantity"], found["status"]) == ("Assam", 3, "new")
    assert found["customer"] == "grace"


def test_an_order_from_fastapi_is_there_in_flask(grace: httpx.Client) -> None:
    placed = grace.post("/api/orders", json={"product_id": 1, "quantity": 2})
    assert placed.status_code == 201
    assert placed.headers["location"] == f"/api/orders/{placed.json()['id']}"
    assert f'href="/orders/{placed.json()["id"]}"' in grace.get("/orders").text


def test_the_events_of_an_order_are_for_its_customer_and_end_with_it(
    visitor: httpx.Client, ada: httpx.Client, grace: httpx.Client
) -> None:
    number = order(grace, product=2, quantity=1)
    events = f"/api/orders/{number}/events"
    assert grace.get("/api/orders/1/events").status_code == 404
    with httpx.Client(base_url=visitor.base_url, trust_env=False) as stranger:
        assert stranger.get(events).status_code == 401
    with grace.stream("GET", events) as answer:
        lines = (line.partition(": ") for line in answer.iter_lines())
        heard = [next(value for name, _, value in lines if name == "data")]
        assert ada.patch(f"/api/orders/{number}", json={"status": "cancelled"}).status_code == 200
        first, second, last = (value for name, _, value in lines if name in ("data", "id"))
    assert [json.loads(data)["status"] for data in (*heard, second)] == ["new", "cancelled"]
    assert int(first) < int(last)
    assert "data:" not in grace.get(events, headers={"last-event-id": last}).text
    assert "data:" in grace.get(events, headers={"last-event-id": first}).text


@pytest.mark.parametrize("quantity", [0, -1, 100, "many"])
def test_a_quantity_that_makes_no_sense(grace: httpx.Client, quantity: object) -> None:
    form = {"csrf": token(grace, "/products/1"), "product_id": "1", "quantity": str(quantity)}
    answer = grace.post("/orders", data=form, follow_redirects=True)
    assert "Order between 1 and 99 bags" in answer.text
    refused = grace.post("/api/orders", json={"product_id": 1, "quantity": quantity})
    assert refused.status_code == 422


def test_one_path_is_split_by_method(grace: httpx.Client, pages: str) -> None:
    number = order(grace, product=3, quantity=1)
    page = grace.get(f"/orders/{number}")
    assert answered_by(page) == "FastAPI"
    assert grace.head(f"/orders/{number}").status_code == 200
    # The form of FastAPI's page posts to Flask.
    form = {"csrf": token(grace, f"/orders/{number}")}
    cancelled = grace.post(f"/orders/{number}", data=form, follow_redirects=True)
    assert answered_by(cancelled) == pages
    assert f"Order {number} is cancelled." in cancelled.text
    assert grace.get(f"/api/orders/{number}").json()["status"] == "cancelled"


def test_what_nobody_defines_is_answered_by_the_right_one(ada: httpx.Client, pages: str) -> None:
    # A path of neither: the page of the old application.
    nowhere = ada.get("/nowhere")
    assert (nowhere.status_code, answered_by(nowhere)) == (404, pages)
    assert ada.get("/orders/seven").status_code == 404
    # A method of neither, on a path of the new one: JSON from there.
    refused = ada.delete("/api/orders/1")
    assert (refused.status_code, refused.json()) == (405, {"detail": "Method Not Allowed"})
    assert ada.put("/orders/1").json() == {"detail": "Method Not Allowed"}
    # On a path of the old one: its page.
    refused = ada.delete("/orders")
    assert (refused.status_code, answered_by(refused)) == (405, pages)
    assert "GET" in refused.headers["allow"]
    # FastAPI's documentation comes with the new application.
    assert "/api/orders/{order_id}" in ada.get("/openapi.json").json()["paths"]


def test_other_peoples_orders_are_nobodys_business(ada: httpx.Client, grace: httpx.Client) -> None:
    number = order(ada, product=1, quantity=1)
    for path in (f"/orders/{number}", f"/api/orders/{number}"):
        assert grace.get(path).status_code == 404
        assert ada.get(path).status_code == 200
    assert grace.get("/board").status_code == 403
    assert grace.get("/orders.csv").status_code == 403
    assert grace.patch(f"/api/orders/{number}", json={"status": "packed"}).status_code == 403


def test_a_status_moves_forward_only(ada: httpx.Client) -> None:
    path = f"/api/orders/{order(ada, product=5, quantity=1)}"
    assert ada.patch(path, json={"status": "shipped"}).status_code == 409
    assert ada.patch(path, json={"status": "packed"}).json()["status"] == "packed"
    assert ada.patch(path, json={"status": "new"}).status_code == 409
    assert ada.patch(path, json={"status": "lost"}).status_code == 422


def test_a_picture_is_uploaded_and_shown(ada: httpx.Client) -> None:
    form = {"csrf": token(ada, "/products/4")}
    files = {"picture": ("tea.png", PNG, "image/png")}
    page = ada.post("/products/4/picture", data=form, files=files, follow_redirects=True)
    assert "has a new picture" in page.text
    source = re.search(r'src="(/pictures/[^"]+)"', page.text)
    assert source
    picture = ada.get(source[1])
    assert (picture.content, picture.headers["content-type"]) == (PNG, "image/png")
    part = ada.get(source[1], headers={"range": "bytes=0-7"})
    assert (part.status_code, part.content) == (206, PNG[:8])


def test_an_upload_that_is_no_picture(ada: httpx.Client) -> None:
    form = {"csrf": token(ada, "/products/4")}
    files = {"picture": ("tea.png", b"not a picture", "image/png")}
    page = ada.post("/products/4/picture", data=form, files=files, follow_redirects=True)
    assert "not a PNG, JPEG or GIF" in page.text


def test_an_upload_that_is_too_large(ada: httpx.Client) -> None:
    files = {"picture": ("tea.png", PNG + bytes(5 * 1024 * 1024), "image/png")}
    try:
        answer = ada.post("/products/4/picture", data={"csrf": "x"}, files=files)
    except httpx.WriteError:
        pass  # The connection was closed before all was sent.
    else:
        assert answer.status_code == 413
    assert ada.get("/").status_code == 200


def test_all_orders_are_streamed_as_csv(ada: httpx.Client) -> None:
    number = order(ada, product=6, quantity=4)
    with ada.stream("GET", "/orders.csv") as export:
        assert export.headers["content-disposition"] == 'attachment; filename="orders.csv"'
        assert "content-length" not in export.headers
        rows = list(csv.DictReader(export.iter_lines()))
    assert [int(row["order"]) for row in rows] == list(range(1, len(rows) + 1))
    assert rows[number - 1]["product"] == "Peppermint"
    assert rows[number - 1]["euro"] == "27.60"


def test_the_board_is_told_at_once_whoever_changes_an_order(
    shop: Command, ada: httpx.Client, grace: httpx.Client
) -> None:
    cookie = {"cookie": f"session={ada.cookies['session']}"}
    url = f"ws://127.0.0.1:{shop.port}/ws/orders"
    with connect(url, additional_headers=cookie, proxy=None) as board:

        def until_told(number: int, status: str) -> None:
            while f'"id":{number},' not in (news := str(board.recv(timeout=20))):
                pass
            assert f'"status":"{status}"' in news

        assert '"type":"snapshot"' in str(board.recv(timeout=20))
        from_flask = order(grace, product=1, quantity=1)
        until_told(from_flask, "new")
        from_fastapi = grace.post("/api/orders", json={"product_id": 1, "quantity": 1}).json()["id"]
        until_told(from_fastapi, "new")
        ada.patch(f"/api/orders/{from_flask}", json={"status": "packed"})
        until_told(from_flask, "packed")
        form = {"csrf": token(grace, f"/orders/{from_fastapi}")}
        grace.post(f"/orders/{from_fastapi}", data=form)
        until_told(from_fastapi, "cancelled")


def test_the_board_is_for_those_who_work_there(shop: Command, grace: httpx.Client) -> None:
    url = f"ws://127.0.0.1:{shop.port}/ws/orders"
    for cookies in ({}, {"cookie": f"session={grace.cookies['session']}"}):
        with (
            pytest.raises(InvalidStatus) as refused,
            connect(url, additional_headers=cookies, proxy=None),
        ):
            pass
        assert refused.value.response.status_code == 403
