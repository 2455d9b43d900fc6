"""`twinspan NEW LEGACY`: the first application answers what its router defines, the last the rest.

Applications of every framework sign their answers, so that each row of the tables below says who
answers and with what.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from e2e.wire import FOR_TESTS, ask
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

if TYPE_CHECKING:
    from e2e.wire import StartShared
    from support import Command, StartCommand

UUID = "6f1a2c3e-9d7b-4c55-8a0e-2b1d3f4a5b6c"


@pytest.fixture(scope="module")
def fastapi_flask(start_shared: StartShared) -> Command:
    return start_shared("apps.owned_fastapi:app", "apps.owned_flask:app")


@pytest.fixture(scope="module")
def starlette_flask(start_shared: StartShared) -> Command:
    return start_shared("apps.owned_starlette:app", "apps.owned_flask:app")


@pytest.fixture(scope="module")
def flask_fastapi(start_shared: StartShared) -> Command:
    return start_shared("apps.owned_flask:app", "apps.owned_fastapi:app")


@pytest.fixture(scope="module")
def django_flask(start_shared: StartShared) -> Command:
    return start_shared("apps.owned_django:application", "apps.owned_flask:app")


@pytest.fixture(scope="module")
def flask_django(start_shared: StartShared) -> Command:
    return start_shared("apps.owned_flask:app", "apps.owned_django:application")


def assert_answers(server: Command, request: str, who: str, status: int) -> None:
    method, target = request.split()
    answer = ask(server.port, method, target)
    assert (answer.headers.get("x-answered-by"), answer.status) == (who, status), answer


@pytest.mark.parametrize(
    ("request_line", "who", "status"),
    [
        # A route of the first application is its own, whatever the last one defines.
        ("GET /items/5", "fastapi", 200),
        ("POST /items", "fastapi", 200),
        # The same path with a method that only the last one defines.
        ("DELETE /items/5", "flask", 200),
        ("GET /items", "flask", 200),
        ("HEAD /items", "flask", 200),
        # HEAD follows GET, also where the owner of GET does not answer it.
        ("HEAD /items/5", "fastapi", 405),
        # A method that neither defines: 405 of the first that defines the path.
        ("PUT /items/5", "fastapi", 405),
        ("PATCH /items", "fastapi", 405),
        ("PATCH /old", "flask", 405),
        ("OPTIONS /old", "flask", 200),
        ("OPTIONS /items/5", "fastapi", 405),
        # A path that neither defines.
        ("GET /nowhere", "flask", 404),
        ("GET /items/5/more", "flask", 404),
        ("GET /", "flask", 404),
        # Routers in routers, applications in applications.
        ("GET /v2/things/7", "fastapi", 200),
        ("GET /v2/things/seven", "flask", 404),
        ("GET /v2/things", "flask", 404),
        ("GET /sub/inner/deep/x", "fastapi", 200),
        ("GET /sub/inner/shallow", "flask", 404),
        ("GET /opaque/anything/at/all", "fastapi", 200),
        # A parameter that holds slashes.
        ("PUT /files/a/b/c.txt", "fastapi", 200),
        ("GET /files/a", "fastapi", 405),
        # Only the slash at the end differs: whoever would redirect answers ...
        ("GET /reports", "fastapi", 307),
        ("GET /items/5/", "fastapi", 307),
        ("GET /archive", "flask", 308),
        # ... unless the other one defines just that path.
        ("GET /both", "flask", 200),
        ("GET /both/", "fastapi", 200),
        ("GET /old/", "flask", 404),
        # FastAPI's own pages are routes like others.
        ("GET /docs", "fastapi", 200),
        ("GET /openapi.json", "fastapi", 200),
        # A WebSocket route does not own plain requests.
        ("GET /ws/lobby", "flask", 200),
        ("GET /ws/attic", "flask", 404),
        # Encoded letters are the letters.
        ("GET /%69tems/5", "fastapi", 200),
        ("DELETE /%69tems/%35", "flask", 200),
        # The query is no part of the path.
        ("GET /items/5?next=/old", "fastapi", 200),
        ("GET /old?/items/5", "flask", 200),
    ],
)
def test_fastapi_before_flask(
    fastapi_flask: Command, request_line: str, who: str, status: int
) -> None:
    assert_answers(fastapi_flask, request_line, who, status)


@pytest.mark.parametrize(
    ("request_line", "who", "status"),
    [
        ("GET /int/5", "starlette", 200),
        ("HEAD /int/5", "starlette", 200),
        ("PUT /int/5", "flask", 200),
        ("GET /int/-5", "flask", 404),
        ("GET /int/five", "flask", 404),
        ("GET /float/1.5", "starlette", 200),
        ("GET /float/1.", "flask", 404),
        (f"GET /uuid/{UUID}", "starlette", 200),
        ("GET /uuid/6f1a", "flask", 404),
        ("GET /path/a/b", "starlette", 200),
        ("GET /path/", "starlette", 200),
        ("GET /text/word", "starlette", 200),
        ("DELETE /text/word", "starlette", 200),
        ("GET /text/two/words", "flask", 404),
        ("GET /2026-11.html", "starlette", 200),
        ("GET /2026-xi.html", "flask", 404),
        ("GET /2026-11xhtml", "flask", 404),
    ],
)
def test_converters_of_starlette(
    starlette_flask: Command, request_line: str, who: str, status: int
) -> None:
    assert_answers(starlette_flask, request_line, who, status)


@pytest.mark.parametrize(
    ("request_line", "who", "status"),
    [
        ("GET /int/5", "flask", 200),
        ("PUT /int/5", "flask", 200),
        ("GET /float/1.5", "flask", 200),
        ("GET /float/1", "django", 404),
        (f"GET /uuid/{UUID}", "flask", 200),
        ("GET /uuid/6f1a", "django", 404),
        ("GET /path/a/b", "flask", 200),
        ("GET /text/word", "flask", 200),
        ("GET /any/red", "flask", 200),
        ("GET /any/blue", "django", 404),
        ("GET /two/ab", "flask", 200),
        ("GET /two/abc", "django", 404),
        ("GET /words/a.txt", "flask", 200),
        ("GET /words/a", "django", 404),
        ("POST /shop/cart/3", "flask", 200),
        ("GET /items", "flask", 200),
        ("POST /items", "flask", 405),
        ("GET /items/5", "flask", 200),
        ("GET /items/5/", "django", 200),
        ("GET /archive", "flask", 308),
        ("GET /nowhere", "django", 404),
        ("GET /years/2026", "django", 200),
    ],
)
def test_converters_of_flask(
    flask_django: Command, request_line: str, who: str, status: int
) -> None:
    assert_answers(flask_django, request_line, who, status)


@pytest.mark.parametrize(
    ("request_line", "who", "status"),
    [
        ("GET /items/", "django", 200),
        ("GET /items/5/", "django", 200),
        ("DELETE /items/5/", "django", 200),
        ("GET /items/5", "flask", 200),
        ("GET /items/five/", "flask", 404),
        ("GET /slug/a-b_c", "django", 200),
        ("GET /slug/a.b", "flask", 404),
        (f"GET /uuid/{UUID}", "django", 200),
        ("GET /path/a/b", "django", 200),
        ("GET /years/2026", "django", 200),
        ("GET /years/20260", "flask", 404),
        ("POST /shop/cart/3", "django", 200),
        ("GET /shop/cart/3", "django", 405),
        ("GET /old", "flask", 200),
        ("GET /nowhere", "flask", 404),
    ],
)
def test_patterns_of_django(
    django_flask: Command, request_line: str, who: str, status: int
) -> None:
    assert_answers(django_flask, request_line, who, status)


@pytest.mark.parametrize(
    ("request_line", "who", "status"),
    [
        ("GET /items/5", "flask", 200),
        ("DELETE /items/5", "flask", 200),
        ("POST /items", "fastapi", 200),
        ("PUT /items", "flask", 405),
        ("GET /v2/things/7", "fastapi", 200),
        ("GET /nowhere", "fastapi", 404),
        ("GET /archive", "flask", 308),
        ("GET /both/", "fastapi", 200),
    ],
)
def test_wsgi_before_asgi(flask_fastapi: Command, request_line: str, who: str, status: int) -> None:
    assert_answers(flask_fastapi, request_line, who, status)


@pytest.mark.parametrize(
    ("asked", "who", "status"), [("GET", "fastapi", 200), ("DELETE", "flask", 200)]
)
def test_a_preflight_goes_to_the_owner_of_the_method_that_it_asks_for(
    fastapi_flask: Command, asked: str, who: str, status: int
) -> None:
    answer = ask(
        fastapi_flask.port,
        "OPTIONS",
        "/items/5",
        origin="https://shop.example",
        access_control_request_method=asked,
    )
    assert (answer.headers.get("x-answered-by"), answer.status) == (who, status)
    assert ("access-control-allow-origin" in answer.headers) == (who == "fastapi")


def test_an_owned_application_sees_the_whole_path(fastapi_flask: Command) -> None:
    answer = ask(fastapi_flask.port, "GET", "/sub/inner/deep/x")
    assert b"deep x /sub/inner" in answer.body
    assert b"GET /old" in ask(fastapi_flask.port, "GET", "/old").body


def test_websocket_routes_are_owned(fastapi_flask: Command, starlette_flask: Command) -> None:
    with connect(f"ws://127.0.0.1:{fastapi_flask.port}/ws/lobby", proxy=None) as websocket:
        assert websocket.recv(timeout=20) == "room lobby"
    with connect(f"ws://127.0.0.1:{starlette_flask.port}/feed/3", proxy=None) as websocket:
        assert websocket.recv(timeout=20) == "feed 3"


@pytest.mark.parametrize("path", ["/old", "/items", "/nowhere"])
def test_an_upgrade_that_no_asgi_application_covers_is_refused_at_once(
    fastapi_flask: Command, path: str
) -> None:
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(f"ws://127.0.0.1:{fastapi_flask.port}{path}", proxy=None),
    ):
        pass
    assert refused.value.response.status_code == 404
    assert "x-answered-by" not in refused.value.response.headers


@pytest.mark.parametrize("target", ["/items%2F5", "/old/../items/5", "/old/%2e%2e/items/5"])
def test_a_path_with_two_readings_reaches_nobody(fastapi_flask: Command, target: str) -> None:
    answer = ask(fastapi_flask.port, "GET", target)
    assert answer.status == 400
    assert "x-answered-by" not in answer.headers


def test_three_applications_are_asked_in_order(start_shared: StartShared) -> None:
    server = start_shared(
        "apps.owned_starlette:app", "apps.owned_fastapi:app", "apps.owned_flask:app"
    )
    assert_answers(server, "GET /int/5", "starlette", 200)
    assert_answers(server, "GET /items/5", "fastapi", 200)
    assert_answers(server, "PUT /int/5", "flask", 200)


def test_mounts_come_before_owned_routes(start_shared: StartShared) -> None:
    server = start_shared(
        "apps.owned_fastapi:app", "apps.owned_flask:app", "--mount", "/items=apps.dump:wsgi"
    )
    assert b'"SCRIPT_NAME": "/items"' in ask(server.port, "GET", "/items/5").body
    assert_answers(server, "GET /v2/things/7", "fastapi", 200)


def test_an_application_whose_routes_cannot_be_read_is_named_at_start(
    command: StartCommand, start_shared: StartShared
) -> None:
    refused = command("apps.unreadable:app", "apps.owned_flask:app", *FOR_TESTS, ready=False)
    assert refused.wait() == 3
    assert re.search(r"^error: .*`apps\.unreadable:app`", refused.text, re.MULTILINE), refused.text
    hint = r"^hint: .*`router = .*`--mount /prefix=apps\.unreadable:app`"
    assert re.search(hint, refused.text, re.MULTILINE), refused.text
    # As the last one it needs no router.
    assert b"hidden" in ask(start_shared("apps.unreadable:app").port, "GET", "/").body


def test_routes_says_who_answers_what(command: StartCommand) -> None:
    applications = ("apps.owned_fastapi:app", "apps.owned_flask:app")
    listing = command("routes", *applications, *FOR_TESTS, ready=False)
    assert listing.wait() == 0, listing.text
    printed = "\n".join(listing.stdout)
    for template in ("/items/{item_id}", "/v2/things/{number:int}", "/items/<int:item_id>", "/old"):
        assert template in printed
