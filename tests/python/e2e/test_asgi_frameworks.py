"""The ASGI frameworks and libraries that people have, as their own documentation uses them.

Each framework serves the same small shop as those of WSGI do (`apps/frameworks`), and tastings over
a WebSocket: below a mount of one command that serves all of them on one event loop, with Flask
beside them, and at the root of a server of its own. What only one of them has comes after that.
Datasette, which is an application, has a file of its own: `test_httpbin_and_datasette.py`.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest
import socketio
from e2e.shops import (
    APPS,
    PICTURE,
    ShopTests,
    browser,
    form_of,
    pinned,
    table_of_documentation,
)
from socketio.exceptions import ConnectionError as RefusedError
from support import TWINSPAN, Command
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from websockets.sync.client import ClientConnection

SECONDS = 20


class Framework(NamedTuple):
    """How the application is named for the command, and what the framework can."""

    target: str
    distribution: str
    unknown_length: bool = True
    """Reads the body of a request that does not tell its length."""
    lifespan: bool = True
    """Is told when the server starts and stops."""
    mountable: bool = True
    """Matches what comes below a mount; otherwise it gets what no mount does."""
    since: tuple[int, int] = (3, 11)
    """The first version of Python that it runs on."""

    @property
    def installed(self) -> bool:
        return sys.version_info >= self.since


FRAMEWORKS = {
    "BlackSheep": Framework("frameworks.blacksheep_shop:app", "blacksheep"),
    "Channels": Framework(
        "frameworks.channels_shop:application", "channels", unknown_length=False, lifespan=False
    ),
    "Falcon": Framework("frameworks.falcon_asgi_shop:app", "falcon", mountable=False),
    "FastAPI": Framework("frameworks.fastapi_shop:app", "fastapi"),
    "Litestar": Framework("frameworks.litestar_shop:app", "litestar"),
    "Quart": Framework("frameworks.quart_shop:app", "quart", since=(3, 13)),
    "Starlette": Framework("frameworks.starlette_shop:app", "starlette"),
}
LIBRARIES = {
    "python-socketio": Framework("frameworks.socketio_chat:app", "python-socketio"),
    "sse-starlette": Framework("frameworks.sse_prices:app", "sse-starlette"),
    "Strawberry": Framework("frameworks.strawberry_graphql:app", "strawberry-graphql"),
}
APPLICATIONS = FRAMEWORKS | LIBRARIES
INSTALLED = [name for name, framework in FRAMEWORKS.items() if framework.installed]
TARGETS = {name: APPLICATIONS[name].target for name in [*INSTALLED, *LIBRARIES]}


def prefix_of(name: str) -> str:
    return f"/shops/{name}" if APPLICATIONS[name].mountable else ""


def arguments_of(names: list[str]) -> list[str]:
    """What the command needs to serve them together, with Flask beside them."""
    mounts = [
        f"--mount={prefix}={TARGETS[name]}" if (prefix := prefix_of(name)) else TARGETS[name]
        for name in names
    ]
    flask = "--mount=/shops/Flask=frameworks.flask_shop:app"
    return ["--app-dir", str(APPS), "--bind", "127.0.0.1:0", flask, *mounts]


class Served(NamedTuple):
    """Where the applications are."""

    mounted: Command
    alone: Command
    at_root: dict[str, str]

    def url(self, name: str, place: str) -> str:
        return self.mounted.url + prefix_of(name) if place == "mounted" else self.at_root[name]

    def process(self, place: str) -> Command:
        return self.mounted if place == "mounted" else self.alone


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("files")
    (directory / "picture.png").write_bytes(PICTURE)
    return directory


@pytest.fixture(scope="module")
def served(files: Path) -> Iterator[Served]:
    with ExitStack() as started:

        def start(*arguments: str, program: tuple[str, ...] = TWINSPAN) -> Command:
            environment = {"PICTURE": str(files / "picture.png")}
            command = Command(arguments, cwd=files, env=environment, program=program)
            started.callback(command.kill)
            return command

        mounted = start(*arguments_of(list(TARGETS)))
        alone = start(*TARGETS.values(), program=(str(APPS / "each_at_root.py"),))
        at_root = {
            name: alone.wait_for_line(re.escape(target) + r" is listening on (\S+)")[1]
            for name, target in TARGETS.items()
        }
        assert mounted.url
        yield Served(mounted, alone, at_root)


@pytest.fixture(params=["mounted", "alone"])
def place(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=INSTALLED)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def shop(served: Served, name: str, place: str) -> Iterator[httpx.Client]:
    with browser(served.url(name, place)) as client:
        yield client


@pytest.fixture
def unknown_length(name: str) -> bool:
    return FRAMEWORKS[name].unknown_length


@contextmanager
def talk(client: httpx.Client, path: str, **options: Any) -> Iterator[ClientConnection]:
    """A WebSocket to where the client is, with its cookies."""
    url = str(client.base_url).rstrip("/").replace("http", "ws", 1) + path
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.cookies.jar)
    headers = {"cookie": cookies} if cookies else {}
    with connect(
        url, proxy=None, open_timeout=SECONDS, additional_headers=headers, **options
    ) as socket:
        yield socket


def origin(name: str) -> str | None:
    """Where the pages of a shop say that they come from; only Channels asks for it here."""
    return "https://tea.example" if name == "Channels" else None


def closing_of(socket: ClientConnection) -> tuple[int, str]:
    """Waits for the server's close; returns its code and reason."""
    with pytest.raises(ConnectionClosed) as closed:
        socket.recv(SECONDS)
    frame = closed.value.rcvd
    assert frame is not None
    return frame.code, frame.reason


class TestShops(ShopTests):
    def test_a_tasting_over_a_websocket(self, shop: httpx.Client, name: str) -> None:
        with talk(shop, "/tasting/Oolong?q=rare", origin=origin(name)) as socket:
            assert socket.recv(SECONDS) == "Oolong: rare"
            for text in ("süß ☕", "", "leaf " * 40_000):
                socket.send(text)
                assert socket.recv(SECONDS) == text.upper()
            socket.send("bye")
            assert closing_of(socket) == (4001, "süß ☕")

    def test_a_socket_without_a_route_is_refused(self, shop: httpx.Client, name: str) -> None:
        with (
            pytest.raises(InvalidStatus) as refused,
            talk(shop, "/nowhere", origin=origin(name)),
        ):
            pass
        assert refused.value.response.status_code in (403, 404, 500)

    def test_the_lifespan_has_opened_the_shop(self, shop: httpx.Client, name: str) -> None:
        if FRAMEWORKS[name].lifespan:
            assert shop.get("/opened").text == "open"
        else:
            assert shop.get("/opened").status_code == 404


def test_lifespans_begin_and_end_with_the_server(files: Path) -> None:
    names = [name for name in INSTALLED if FRAMEWORKS[name].lifespan]
    environment = {"PICTURE": str(files / "picture.png")}
    command = Command(tuple(arguments_of(INSTALLED)), cwd=files, env=environment)
    try:
        with browser(command.url) as client:
            for name in names:
                assert client.get(f"{prefix_of(name)}/opened").text == "open"
        assert "is closed" not in command.text
        assert command.terminate() == 0
    finally:
        command.kill()
    closed = [line for line in command.stdout if line.endswith("is closed")]
    assert sorted(closed) == [f"{name} is closed" for name in names]
    assert "Traceback" not in command.text


def test_the_wsgi_application_beside_them(served: Served) -> None:
    with browser(f"{served.mounted.url}/shops/Flask") as flask:
        page = flask.get("/teas/Sencha", params={"q": "süß"})
        assert form_of(page).path == "/shops/Flask/order"


# Starlette.


@pytest.fixture
def starlette(served: Served, place: str) -> Iterator[httpx.Client]:
    with browser(served.url("Starlette", place)) as client:
        yield client


def test_a_cors_preflight_and_a_cross_origin_request(starlette: httpx.Client) -> None:
    preflight = {"origin": "https://tea.example", "access-control-request-method": "PUT"}
    answer = starlette.options("/leaves", headers=preflight)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-methods"] == "PUT"
    answer = starlette.get("/opened", headers={"origin": "https://tea.example"})
    assert answer.headers["access-control-allow-origin"] == "https://tea.example"
    preflight["origin"] = "https://coffee.example"
    assert starlette.options("/leaves", headers=preflight).status_code == 400


def test_gzip_is_applied_to_what_is_long_enough(starlette: httpx.Client) -> None:
    answer = starlette.get("/long")
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) < len(answer.text) == 40_000
    assert "content-encoding" not in starlette.get("/opened").headers
    plain = starlette.get("/long", headers={"accept-encoding": "identity"})
    assert plain.headers["content-length"] == "40000"
    # A stream is compressed piece by piece.
    assert starlette.get("/leaves").headers["content-encoding"] == "gzip"


def test_parts_of_a_file(starlette: httpx.Client) -> None:
    size = len(PICTURE)
    some = starlette.get("/picture", headers={"range": "bytes=1000-1999"})
    assert (some.status_code, some.content) == (206, PICTURE[1000:2000])
    assert some.headers["content-range"] == f"bytes 1000-1999/{size}"
    last = starlette.get("/picture", headers={"range": "bytes=-256"})
    assert last.content == PICTURE[-256:]
    several = starlette.get("/picture", headers={"range": "bytes=0-9,200000-200009"})
    assert several.headers["content-type"].startswith("multipart/byteranges")
    assert len(several.content) == int(several.headers["content-length"])
    assert PICTURE[:10] in several.content
    assert PICTURE[200_000:200_010] in several.content
    beyond = starlette.get("/picture", headers={"range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    changed = {"range": "bytes=0-9", "if-range": '"another"'}
    assert starlette.get("/picture", headers=changed).content == PICTURE


def test_static_files(starlette: httpx.Client) -> None:
    picture = starlette.get("/static/picture.png")
    assert picture.content == PICTURE
    known = {"if-none-match": picture.headers["etag"]}
    unchanged = starlette.get("/static/picture.png", headers=known)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    head = starlette.head("/static/picture.png")
    assert (head.headers["content-length"], head.content) == (str(len(PICTURE)), b"")
    assert starlette.get("/static/nothing").status_code == 404


def test_a_background_task_begins_after_the_response(starlette: httpx.Client) -> None:
    assert starlette.post("/brew").text == "soon"
    assert starlette.post("/ready").text == "brewed"


def test_handlers_of_errors(starlette: httpx.Client, served: Served, place: str) -> None:
    missing = starlette.get("/nowhere")
    assert (missing.status_code, missing.text) == (404, "<h1>No such tea</h1>")
    dropped = starlette.get("/drop")
    assert (dropped.status_code, dropped.headers["x-handle"]) == (418, "left")
    spilt = starlette.get("/spill")
    assert (spilt.status_code, spilt.text) == (500, "sorry: all over the table")
    # It raises what it has handled, so that the server can report it.
    served.process(place).wait_for_line("RuntimeError: all over the table")
    assert starlette.post("/opened").status_code == 405


def test_a_base_http_middleware(starlette: httpx.Client) -> None:
    assert starlette.get("/leaves").headers["x-served-by"] == "starlette"
    assert starlette.get("/nowhere").headers["x-served-by"] == "starlette"


def test_a_mounted_application_knows_its_address(starlette: httpx.Client, place: str) -> None:
    label = starlette.get("/cellar/7?vintage=1999").json()
    base = str(starlette.base_url).rstrip("/")
    prefix = "/shops/Starlette" if place == "mounted" else ""
    assert label == {
        "url": f"{base}/cellar/7?vintage=1999",
        "root_path": f"{prefix}/cellar",
        "link": f"{base}/cellar/8",
        "number": 7,
    }


def test_a_missing_slash_is_added_below_the_mount(starlette: httpx.Client) -> None:
    answer = starlette.get("/shelves", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (
        307,
        f"{str(starlette.base_url).rstrip('/')}/shelves/",
    )


def test_a_body_is_read_as_it_comes(starlette: httpx.Client) -> None:
    def blocks() -> Iterator[bytes]:
        for _ in range(200):
            yield bytes(50_000)

    assert starlette.post("/count", content=blocks()).json()["size"] == 10_000_000


def test_a_client_that_leaves_ends_the_stream(
    starlette: httpx.Client, served: Served, place: str
) -> None:
    process = served.process(place)
    after = len(process.lines)
    with starlette.stream("GET", "/endless", headers={"accept-encoding": "identity"}) as answer:
        assert next(answer.iter_lines()) == "drop"
    process.wait_for_line("^the tap is closed", after=after)


def test_bytes_over_a_websocket(starlette: httpx.Client, served: Served, place: str) -> None:
    process = served.process(place)
    after = len(process.lines)
    with talk(starlette, "/samples") as socket:
        for data in (b"tea", b"", PICTURE):
            socket.send(data)
            assert socket.recv(SECONDS) == data[::-1]
    process.wait_for_line("^samples are over", after=after)


def test_a_handshake_is_denied_with_a_response(starlette: httpx.Client) -> None:
    with pytest.raises(InvalidStatus) as denied, talk(starlette, "/members"):
        pass
    response = denied.value.response
    assert (response.status_code, response.headers["x-club"]) == (402, "tea")
    assert json.loads(response.body) == {"need": "a card"}
    with pytest.raises(InvalidStatus) as closed, talk(starlette, "/closed"):
        pass
    assert closed.value.response.status_code == 403


def test_a_subprotocol_and_a_cookie_with_the_handshake(starlette: httpx.Client) -> None:
    offered = [Subprotocol("green"), Subprotocol("black")]
    with talk(starlette, "/members?card=gold", subprotocols=offered) as socket:
        assert socket.subprotocol == "black"
        assert socket.response is not None
        assert socket.response.headers["set-cookie"] == "member=yes"
        assert json.loads(socket.recv(SECONDS)) == {"subprotocol": "black"}
        assert closing_of(socket) == (1000, "")


# FastAPI.


@pytest.fixture
def fastapi(served: Served, place: str) -> Iterator[httpx.Client]:
    with browser(served.url("FastAPI", place)) as client:
        yield client


def test_models_say_what_comes_in_and_what_goes_out(fastapi: httpx.Client) -> None:
    tea = {"name": "Assam", "grams": 100, "supplier": "secret"}
    stored = fastapi.put("/stock/7", json=tea)
    assert (stored.status_code, stored.headers["x-tea-id"]) == (201, "7")
    assert stored.json() == {"name": "Assam", "grams": 100}
    assert fastapi.get("/stock/", params={"limit": 1}).json() == [stored.json()]
    refused = fastapi.put("/stock/7", json={**tea, "grams": 0})
    assert (refused.status_code, refused.text) == (400, "grams is wrong")
    assert fastapi.get("/stock/", params={"limit": 11}).text == "limit is wrong"
    assert fastapi.put("/stock/7", content=b"{").status_code == 400


def test_several_files_at_once(fastapi: httpx.Client) -> None:
    files = [("pictures", (f"{size}.png", PICTURE[:size])) for size in (0, 1, 70_000, 300_256)]
    assert fastapi.post("/uploads", files=files).json() == [0, 1, 70_000, 300_256]


def test_a_dependency_cleans_up_after_the_response(
    fastapi: httpx.Client, served: Served, place: str
) -> None:
    process = served.process(place)

    def steps() -> list[str]:
        process.wait_for_line("^the drawer is closed", after=after)
        return fastapi.get("/steps").json()

    after = len(process.lines)
    assert fastapi.post("/sell", params={"price": 5}).json() == ["opened", "sold"]
    assert steps() == ["opened", "sold", "closed"]
    after = len(process.lines)
    refused = fastapi.post("/sell", params={"price": -5})
    assert (refused.status_code, refused.headers["x-till"]) == (409, "shut")
    assert refused.json() == {"detail": {"price": -5}}
    assert steps() == ["opened", "rolled back", "closed"]


def test_a_task_in_the_background(fastapi: httpx.Client, served: Served, place: str) -> None:
    process = served.process(place)
    after = len(process.lines)
    assert fastapi.post("/letters", params={"to": "Grün"}).status_code == 202
    process.wait_for_line("^a letter to Grün", after=after)


def test_a_password_is_changed_for_a_token(fastapi: httpx.Client) -> None:
    refused = fastapi.post("/token", data={"username": "ada", "password": "cup"})
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    token = fastapi.post("/token", data={"username": "ada", "password": "kettle"}).json()
    bearer = {"authorization": f"Bearer {token['access_token']}"}
    assert fastapi.get("/me", headers=bearer).json() == "ada"
    assert fastapi.get("/me").status_code == 401


def test_dependencies_of_a_websocket(fastapi: httpx.Client) -> None:
    with pytest.raises(InvalidStatus) as refused, talk(fastapi, "/members"):
        pass
    assert refused.value.response.status_code == 403
    with talk(fastapi, "/members?card=gold") as socket:
        assert json.loads(socket.recv(SECONDS)) == {"card": "gold"}
        socket.send("cheat")
        assert closing_of(socket) == (1008, "caught")


def test_an_exception_of_its_own(fastapi: httpx.Client) -> None:
    assert (fastapi.get("/last").status_code, fastapi.get("/last").text) == (410, "sold out")


def test_the_documentation_pages(fastapi: httpx.Client, place: str) -> None:
    prefix = "/shops/FastAPI" if place == "mounted" else ""
    schema = fastapi.get("/openapi.json").json()
    assert schema["info"]["title"] == "Tea shop"
    assert "/stock/{tea_id}" in schema["paths"]
    assert schema.get("servers", []) == ([{"url": prefix}] if prefix else [])
    for page in ("/docs", "/redoc"):
        assert f"{prefix}/openapi.json" in fastapi.get(page).text


def test_an_application_below_an_application(fastapi: httpx.Client, place: str) -> None:
    prefix = "/shops/FastAPI" if place == "mounted" else ""
    assert fastapi.get("/supplier/where").json() == f"{prefix}/supplier"
    assert f"{prefix}/supplier/openapi.json" in fastapi.get("/supplier/docs").text


# Django and Channels.


def test_a_chat_between_two(served: Served, place: str) -> None:
    with ExitStack() as opened:
        ada, grace = (
            opened.enter_context(browser(served.url("Channels", place))) for _ in range(2)
        )
        assert ada.post("/order", data={"tea": "Sencha ☕"}).text == "Sencha ☕"
        room = f"/chat/{place}"
        first = opened.enter_context(talk(ada, room, origin=origin("Channels")))
        second = opened.enter_context(talk(grace, room, origin=origin("Channels")))
        # By the session, which the handshake has brought.
        assert json.loads(first.recv(SECONDS)) == {"you": "Sencha ☕"}
        assert json.loads(second.recv(SECONDS)) == {"you": "nobody"}
        for sender in (first, second):
            sender.send(json.dumps({"message": "süß " * 20_000}))
            for reader in (first, second):
                assert json.loads(reader.recv(SECONDS)) == {"message": "süß " * 20_000}
        second.close(4002)
        assert json.loads(first.recv(SECONDS)) == {"message": "gone with 4002"}


def test_another_origin_is_refused(served: Served, place: str) -> None:
    with (
        browser(served.url("Channels", place)) as client,
        pytest.raises(InvalidStatus) as refused,
        talk(client, "/chat/tea", origin="https://coffee.example"),
    ):
        pass
    assert refused.value.response.status_code == 403


def test_django_learns_of_a_client_that_leaves(served: Served, place: str) -> None:
    process = served.process(place)
    after = len(process.lines)
    with (
        browser(served.url("Channels", place)) as client,
        client.stream("GET", "/silent") as answer,
    ):
        lines = answer.iter_lines()  # kept: httpx hangs up with its iterator
        assert next(lines) == "drop"
        # Before, it may be `send` that tells; then Django leaves the generator to the collector.
        process.wait_for_line("^Django's tap is silent", after=after)
    process.wait_for_line("^Django's tap is closed", after=after)


# Quart and Litestar.


@pytest.mark.skipif("Quart" not in INSTALLED, reason="Quart needs Python 3.13")
def test_a_websocket_of_quart_is_denied_with_a_response(served: Served, place: str) -> None:
    with (
        browser(served.url("Quart", place)) as client,
        pytest.raises(InvalidStatus) as denied,
        talk(client, "/members"),
    ):
        pass
    assert denied.value.response.status_code == 402
    assert json.loads(denied.value.response.body) == {"need": "a card"}


def test_the_openapi_of_litestar(served: Served, place: str) -> None:
    with browser(served.url("Litestar", place)) as client:
        schema = client.get("/schema/openapi.json").json()
        assert "/tasting/{tea}" not in schema["paths"]
        assert "/teas/{name}" in schema["paths"]


# Server-sent events.


class Event(NamedTuple):
    number: str
    kind: str
    data: str


def events_of(answer: httpx.Response) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        name, _, value = line.partition(":")
        if line:
            fields[name] = value.strip()
        elif fields:
            yield Event(fields.get("id", ""), fields.get("event", ""), fields["data"])
            fields = {}


@pytest.mark.parametrize("name", ["FastAPI", "Litestar"])
def test_a_stream_of_events_that_ends(served: Served, name: str, place: str) -> None:
    with (
        browser(served.url(name, place)) as client,
        client.stream("GET", "/prices") as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = list(events_of(answer))
    assert [event.number for event in events] == ["1", "2", "3", "4", "5"]
    assert {event.kind for event in events} == {"price"}


def test_events_go_on_after_the_last_that_came(served: Served, place: str) -> None:
    with browser(served.url("sse-starlette", place)) as client:
        process = served.process(place)
        after = len(process.lines)
        with client.stream("GET", "/prices?to=ada") as answer:
            first = [event for event, _ in zip(events_of(answer), range(3), strict=False)]
        assert [event.number for event in first] == ["1", "2", "3"]
        process.wait_for_line("^nobody listens to ada", after=after)
        last = {"last-event-id": first[-1].number}
        with client.stream("GET", "/prices?to=grace", headers=last) as answer:
            assert next(events_of(answer)) == Event("4", "price", "400")
        process.wait_for_line("^nobody listens to grace", after=after)


def test_a_stream_of_events_ends_well_with_the_server(files: Path) -> None:
    environment = {"PICTURE": str(files / "picture.png")}
    arguments = tuple(arguments_of(["sse-starlette"]))
    command = Command(arguments, cwd=files, env=environment)
    try:
        with (
            browser(command.url + prefix_of("sse-starlette")) as client,
            client.stream("GET", "/prices?to=ada") as answer,
        ):
            events = events_of(answer)
            assert next(events).number == "1"
            command.send_signal(signal.SIGTERM)
            # An answer that was cut off would raise here.
            assert all(event.kind == "price" for event in events)
        assert command.wait() == 0
    finally:
        command.kill()
    assert "nobody listens to ada" in command.stdout
    assert "cut off" not in command.text


# Socket.IO.


class Guest:
    """A client of Socket.IO, and what it has heard."""

    def __init__(self, url: str, path: str, name: str, transport: str) -> None:
        self.client = socketio.Client(reconnection=False, request_timeout=SECONDS)
        self.heard: list[object] = []
        self.changed = threading.Condition()
        self.client.on("said", self.hear)
        self.client.on("entered", self.hear)
        self.gone = threading.Event()
        self.client.on("disconnect", lambda _reason: self.gone.set())
        self.client.connect(
            url,
            auth={"name": name},
            transports=[transport],
            socketio_path=path,
            wait_timeout=SECONDS,
        )

    def hear(self, what: object) -> None:
        with self.changed:
            self.heard.append(what)
            self.changed.notify_all()

    def leave(self) -> None:
        # By the server's word: a client that hangs up itself waits for its open poll to end.
        self.client.emit("leave")
        assert self.gone.wait(SECONDS)

    def wait_for(self, *what: object) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.heard == list(what), SECONDS), self.heard


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_rooms_of_socketio(served: Served, place: str, transport: str) -> None:
    url = httpx.URL(served.url("python-socketio", place))
    root, path = str(url.copy_with(raw_path=b"/")), f"{url.path.rstrip('/')}/socket.io"
    with ExitStack() as opened:

        def come(name: str) -> Guest:
            guest = Guest(root, path, name, transport)
            opened.callback(guest.leave)
            return guest

        ada, grace, edsger = come("ada"), come("grace"), come("edsger")
        assert ada.client.call("transport", timeout=SECONDS) == transport
        room = f"{place} {transport}"
        assert ada.client.call("enter", room, timeout=SECONDS) == f"welcome to {room}, ada"
        assert grace.client.call("enter", room, timeout=SECONDS) == f"welcome to {room}, grace"
        ada.wait_for("grace")
        message = {"text": "süß ☕", "picture": PICTURE}
        assert edsger.client.call("say", (room, message), timeout=SECONDS) == 2
        ada.wait_for("grace", message)
        grace.wait_for(message)
        assert edsger.heard == []


def test_socketio_refuses_who_says_no_name(served: Served) -> None:
    client = socketio.Client(reconnection=False)
    told: list[object] = []
    client.on("connect_error", told.append)
    with pytest.raises(RefusedError):
        client.connect(served.at_root["python-socketio"], wait_timeout=SECONDS)
    assert told == [{"message": "who are you?"}]


# Strawberry.


@pytest.fixture
def graphql(served: Served, place: str) -> Iterator[httpx.Client]:
    with browser(served.url("Strawberry", place)) as client:
        yield client


def test_a_query_and_a_mutation(graphql: httpx.Client) -> None:
    mutation = {"query": "mutation Brew($name: String!) { brew(name: $name) }"}
    answer = graphql.post("/", json={**mutation, "variables": {"name": "Grün"}})
    assert answer.json() == {"data": {"brew": "Grün"}}
    answer = graphql.get("/", params={"query": "{ brewed }"})
    assert "Grün" in answer.json()["data"]["brewed"]
    assert "GraphiQL" in graphql.get("/", headers={"accept": "text/html"}).text


# The names of the messages: what starts and ends a subscription, and what comes of it.
PROTOCOLS = {
    "graphql-transport-ws": ("subscribe", "next", "complete"),
    "graphql-ws": ("start", "data", "stop"),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_subscription(graphql: httpx.Client, served: Served, place: str, protocol: str) -> None:
    begin, data, end = PROTOCOLS[protocol]
    process = served.process(place)
    after = len(process.lines)
    with talk(graphql, "/", subprotocols=[Subprotocol(protocol)]) as socket:

        def say(**message: object) -> None:
            socket.send(json.dumps(message))

        def hear() -> Any:
            return json.loads(socket.recv(SECONDS))

        assert socket.subprotocol == protocol
        say(type="connection_init", payload={})
        assert hear()["type"] == "connection_ack"
        say(type=begin, id="1", payload={"query": "subscription { cups(until: 3) }"})
        heard = [hear() for _ in range(4)]
        assert [message.get("payload") for message in heard[:3]] == [
            {"data": {"cups": number}} for number in range(3)
        ]
        assert {message["type"] for message in heard[:3]} == {data}
        assert (heard[3]["type"], heard[3]["id"]) == ("complete", "1")
        # One that does not end by itself is ended by the client, and another by its leaving.
        say(type=begin, id="2", payload={"query": "subscription { drops }"})
        assert hear()["payload"] == {"data": {"drops": 0}}
        say(type=end, id="2")
        process.wait_for_line("^the subscription has ended", after=after)
        after = len(process.lines)
        say(type=begin, id="3", payload={"query": "subscription { drops }"})
        while hear() != {"type": data, "id": "3", "payload": {"data": {"drops": 0}}}:
            pass
    process.wait_for_line("^the subscription has ended", after=after)


def test_the_table_of_frameworks_says_what_was_tested() -> None:
    def yes(cell: str) -> bool:
        return {"yes": True, "no": False}[cell]

    rows = table_of_documentation("ASGI frameworks")
    table = {row[0]: row for row in rows if not row[5].startswith("by hand: ")}
    assert list(table) == [*APPLICATIONS, "Datasette"]
    for name, (_, version, unknown_length, lifespan, mount, tested, _) in table.items():
        if name in FRAMEWORKS:
            assert yes(unknown_length) == FRAMEWORKS[name].unknown_length
            assert yes(lifespan) == FRAMEWORKS[name].lifespan
        else:
            assert tested
        application = APPLICATIONS.get(name)
        assert yes(mount) == (application is None or application.mountable)
        distribution = application.distribution if application else "datasette"
        assert f"{distribution}=={version}" in pinned()
