"""Requests from one application to another, by name and without a socket."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from twinspan.migrate import Apps, Response, apps
from twinspan.testing import Server
from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from pathlib import Path

    from support import Serve, StartCommand

LONG = 20
"""Seconds that nothing here takes; an end for a test that would hang."""


class Site:
    """Two applications of which either does what a test says, within a request."""

    def __init__(self) -> None:
        self.work: Any = None
        self.outcome: Any = None
        self.url = ""
        self.seen: list[str] = []
        self.entered: Callable[[], object] = bool
        self.entered_by: Callable[[dict[str, Any]], object] = bool
        self.gone = threading.Event()

    def legacy(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/run":
            self.entered_by(environ)
            self.run(lambda: self.work(apps(environ)))
        if path == "/fails":
            raise RuntimeError("as it should")
        if path == "/stuck":
            self.gone.wait(LONG)
        names = ("SCRIPT_NAME", "PATH_INFO", "REQUEST_URI", "QUERY_STRING", "REQUEST_METHOD")
        told = {name: environ[name] for name in names}
        told |= {name: value for name, value in environ.items() if name.startswith("HTTP_")}
        told["shadow"] = environ.get("twinspan.shadow")
        told["client"] = environ.get("REMOTE_ADDR")
        told["scheme"] = environ["wsgi.url_scheme"]
        told["type"] = environ.get("CONTENT_TYPE")
        told["length"] = environ.get("CONTENT_LENGTH")
        told["content"] = environ["wsgi.input"].read().decode()
        start_response("200 OK", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-By", "legacy")])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else json.dumps(told).encode()]

    async def new(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        path = scope["path"].removeprefix(scope["root_path"])
        if path == "/run":
            await self.arun(lambda: self.work(apps(scope)))
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            answer = await apps(scope).acall("legacy", "GET", "/x")
            await send({"type": "websocket.send", "text": str(answer.json()["PATH_INFO"])})
            return
        if path == "/waits":
            self.seen.append((await receive())["type"])
            self.entered()
            self.seen.append((await receive())["type"])
            self.gone.set()
            return
        if path == "/back":
            # To the application that waits for this answer.
            try:
                await apps(scope).acall("legacy", "GET", "/x", timeout=0.2)
                body = b"answered"
            except TimeoutError:
                body = b"late"
        elif path == "/overloaded":
            body = str((await apps(scope).acall("legacy", "GET", "/x")).status).encode()
        else:
            body = json.dumps([scope["path"], scope["root_path"], scope["scheme"]]).encode()
        await send({"type": "http.response.start", "status": 201, "headers": []})
        count = 64 if path == "/pieces" else 1
        for _ in range(count):
            await send({"type": "http.response.body", "body": body, "more_body": True})
        if path != "/breaks":
            await send({"type": "http.response.body"})

    def run(self, work: Callable[[], object]) -> None:
        try:
            self.outcome = work()
        except Exception as error:  # noqa: BLE001 - the test raises it again
            self.outcome = error

    async def arun(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            self.outcome = await work()
        except Exception as error:  # noqa: BLE001 - the test raises it again
            self.outcome = error

    def _ask(self, path: str, work: Any, headers: dict[str, str] | None = None) -> Any:
        self.work, self.outcome = work, None
        httpx.get(self.url + path, headers=headers, timeout=LONG)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def in_legacy(self, work: Callable[[Apps], Any], **headers: str) -> Any:
        """What `work` makes of the applications within a request to the WSGI application."""
        return self._ask("/run", work, headers)

    def in_new(self, work: Callable[[Apps], Awaitable[Any]], **headers: str) -> Any:
        """The same, within a request to the ASGI application."""
        return self._ask("/new/run", work, headers)

    def server(self, **options: object) -> Server:
        async def new(scope: dict[str, Any], receive: Any, send: Any) -> None:
            await self.new(scope, receive, send)

        def legacy(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            return self.legacy(environ, start_response)

        return Server(mounts={"/new": new, "": legacy}, **options)


@pytest.fixture(scope="module")
def served() -> Iterator[Site]:
    site = Site()
    with site.server(threads=2) as server:
        site.url = server.url
        yield site


@pytest.fixture
def site(served: Site) -> Site:
    served.seen.clear()
    served.entered = bool
    served.entered_by = bool
    served.gone.clear()
    return served


# --- What arrives ---


def test_an_asgi_application_asks_a_wsgi_application(site: Site) -> None:
    async def work(others: Apps) -> Response:
        return await others.acall("legacy", "GET", "/users/3?q=1", headers={"X-Own": "é"})

    answer = site.in_new(work, host="shop.example")
    assert (answer.status, answer.headers["x-by"]) == (200, "legacy")
    assert answer.headers.get_all("set-cookie") == ["a=1", "b=2"]
    told = answer.json()
    assert told["REQUEST_METHOD"] == "GET"
    assert (told["SCRIPT_NAME"], told["PATH_INFO"], told["QUERY_STRING"]) == ("", "/users/3", "q=1")
    assert (told["HTTP_HOST"], told["HTTP_X_OWN"]) == ("shop.example", "é")
    assert (told["client"], told["scheme"]) == ("127.0.0.1", "http")
    assert (told["content"], told["length"]) == ("", None)


def test_a_wsgi_application_asks_an_asgi_application_below_its_mount(site: Site) -> None:
    answer = site.in_legacy(lambda others: others.call("new", "GET", "/items"))
    assert answer.status == 201
    assert answer.json() == ["/new/items", "/new", "http"]


def test_a_websocket_asks_too(site: Site) -> None:
    with connect(site.url.replace("http", "ws") + "/new/socket") as connection:
        assert connection.recv(LONG) == "/x"


def test_scheme_and_prefix_are_those_of_the_request(site: Site) -> None:
    headers = {"x-forwarded-proto": "https", "x-forwarded-prefix": "/shop"}
    answer = site.in_legacy(lambda others: others.call("new", "GET", "/items"), **headers)
    assert answer.json() == ["/shop/new/items", "/shop/new", "https"]


def test_what_a_shadow_copy_asks_for_is_one_too(site: Site) -> None:
    def work(others: Apps) -> list[Any]:
        copy = apps({**environs.pop(), "twinspan.shadow": True})
        return [it.call("legacy", "GET", "/x").json()["shadow"] for it in (others, copy)]

    environs: list[dict[str, Any]] = []
    site.entered_by = environs.append
    assert site.in_legacy(work) == [None, True]


def test_content_and_queries_are_sent(site: Site) -> None:
    def post(others: Apps, **options: Any) -> Any:
        return others.call("legacy", "POST", "/in?a=1", query={"b": ["é", 2]}, **options).json()

    large = "x" * 1024 * 1024
    told = site.in_legacy(lambda others: post(others, content=large.encode()))
    assert (told["content"], told["length"]) == (large, str(len(large)))
    assert told["QUERY_STRING"] == "a=1&b=%C3%A9&b=2"
    told = site.in_legacy(lambda others: post(others, json={"a": [1]}))
    assert (told["content"], told["type"]) == ('{"a": [1]}', "application/json")
    assert site.in_legacy(post)["length"] == "0"


def test_a_path_is_encoded_where_it_must_be(site: Site) -> None:
    told = site.in_legacy(lambda others: others.call("legacy", "GET", "/a b/é%2Fx%20").json())
    assert told["REQUEST_URI"] == "/a%20b/%C3%A9%2Fx%20"
    assert told["PATH_INFO"].encode("latin-1").decode() == "/a b/é/x "


def test_fields_of_the_connection_are_not_passed_on(site: Site) -> None:
    fields = [("Connection", "close"), ("Transfer-Encoding", "chunked"), ("Content-Length", "9")]
    work = lambda others: others.call("legacy", "GET", "/", headers=[*fields, ("X", "1")])  # noqa: E731
    told = site.in_legacy(work).json()
    assert (told["HTTP_X"], told["length"]) == ("1", None)
    assert not told.keys() & {"HTTP_CONNECTION", "HTTP_TRANSFER_ENCODING"}


def test_the_answer_to_head_is_its_head(site: Site) -> None:
    answer = site.in_legacy(lambda others: others.call("legacy", "HEAD", "/"))
    assert (answer.status, answer.content) == (200, b"")


def test_a_thread_of_an_asgi_application_may_wait(site: Site) -> None:
    async def work(others: Apps) -> Response:
        return await asyncio.to_thread(others.call, "legacy", "GET", "/x")

    assert site.in_new(work).json()["PATH_INFO"] == "/x"


def test_a_loop_of_the_application_s_own_may_wait(site: Site) -> None:
    """As an `async def` view of Flask has it."""
    answer = site.in_legacy(lambda others: asyncio.run(others.acall("new", "GET", "/x")))
    assert answer.status == 201


def test_an_application_may_ask_itself(site: Site) -> None:
    async def work(others: Apps) -> Response:
        return await others.acall("new", "GET", "/x")

    assert site.in_new(work).json()[0] == "/new/x"
    assert site.in_legacy(lambda others: others.call("legacy", "GET", "/x")).status == 200


def test_an_application_that_has_the_worker_to_itself_may_ask_itself(serve: Serve) -> None:
    """Its threads drive the I/O themselves until one waits."""
    seen: list[int] = []

    def alone(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/":
            seen.append(apps(environ).call("alone", "GET", "/inner").status)
        start_response("200 OK", [])
        return [b""]

    server = serve(alone, threads=2)
    with httpx.Client() as client:
        for _ in range(20):
            assert client.get(server.url).status_code == 200
    assert seen == [200] * 20


# --- What goes wrong ---


def test_an_application_that_fails_answers_500(site: Site) -> None:
    answer = site.in_legacy(lambda others: others.call("legacy", "GET", "/fails"))
    assert (answer.status, answer.text) == (500, "Internal Server Error\n")


def test_an_answer_may_have_so_many_bytes_and_no_more(site: Site) -> None:
    def work(others: Apps, limit: int) -> Response:
        return others.call("new", "GET", "/pieces", limit=limit)

    size = len(site.in_legacy(lambda others: work(others, 1 << 20)).content)
    assert len(site.in_legacy(lambda others: work(others, size)).content) == size
    with pytest.raises(ConnectionError, match=f"`new` has more than {size - 1} bytes"):
        site.in_legacy(lambda others: work(others, size - 1))


def test_an_answer_that_breaks_off_is_an_error(site: Site) -> None:
    with pytest.raises(ConnectionError, match="the answer of `new` broke off"):
        site.in_legacy(lambda others: others.call("new", "GET", "/breaks"))


def test_at_the_deadline_the_application_sees_its_client_leave(site: Site) -> None:
    def work(others: Apps) -> Response:
        return others.call("new", "GET", "/waits", timeout=0.1)

    with pytest.raises(TimeoutError, match="`new` has not answered within 100ms"):
        site.in_legacy(work)
    assert site.gone.wait(LONG)
    assert site.seen == ["http.request", "http.disconnect"]


def test_the_deadline_of_a_stuck_thread_does_not_wait_for_it(site: Site) -> None:
    async def work(others: Apps) -> Response:
        return await others.acall("legacy", "GET", "/stuck", timeout=0.1)

    try:
        with pytest.raises(TimeoutError):
            site.in_new(work)
    finally:
        site.gone.set()


def test_a_call_that_is_cancelled_is_a_client_that_leaves(site: Site) -> None:
    async def work(others: Apps) -> None:
        entered = asyncio.Event()
        site.entered = entered.set
        task = asyncio.ensure_future(others.acall("new", "GET", "/waits"))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    site.in_new(work)
    assert site.gone.wait(LONG)


def test_a_circle_of_waiting_applications_ends_at_the_deadline() -> None:
    """The one thread waits for the new application, which waits for that thread."""
    site = Site()
    with site.server(threads=1) as server:
        site.url = server.url
        answer = site.in_legacy(lambda others: others.call("new", "GET", "/back", timeout=LONG))
        assert answer.text == "late"
        # And the thread is free again.
        assert site.in_legacy(lambda others: others.call("new", "GET", "/x")).status == 201


def test_a_full_pool_turns_calls_away_as_it_does_clients() -> None:
    site = Site()
    with site.server(threads=1, queue=0) as server:
        site.url = server.url
        answer = site.in_legacy(lambda others: others.call("new", "GET", "/overloaded"))
        assert answer.text == "503"


def test_on_an_event_loop_waiting_is_refused(site: Site) -> None:
    async def work(others: Apps) -> Response:
        return others.call("legacy", "GET", "/x")

    with pytest.raises(RuntimeError, match=r"await apps\(request\)\.acall"):
        site.in_new(work)


@pytest.mark.parametrize(
    ("arguments", "options", "problem"),
    [
        (("old", "GET", "/"), {}, "no application `old`; there are `new`, `legacy`"),
        (("new", "GET", "x"), {}, "begins with a slash"),
        (("new", "GET", "http://x/"), {}, "begins with a slash"),
        (("new", "GET", "/a/../b"), {}, "dot segment"),
        (("new", "GET", "/a/%2e%2e/b"), {}, "dot segment"),
        (("new", "G T", "/"), {}, "`G T` is no method"),
        (("new", "GET", "/"), {"headers": {"a b": "c"}}, "name of the header `a b`"),
        (("new", "GET", "/"), {"headers": {"a": "b\r\nc: d"}}, "value of the header `a`"),
        (("new", "GET", "/"), {"timeout": 0}, "`timeout` is a time"),
        (("new", "GET", "/"), {"timeout": float("nan")}, "`timeout` is a time"),
        (("new", "GET", "/"), {"content": b"x", "json": 1}, "give one of them"),
    ],
)
def test_what_cannot_be_asked_says_why(
    site: Site, arguments: Any, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises((LookupError, ValueError), match=problem):
        site.in_legacy(lambda others: others.call(*arguments, **options))


# --- Where the applications are ---


@pytest.mark.parametrize("request_of", [{}, {"type": "http"}, object()])
def test_elsewhere_there_are_no_other_applications(request_of: object) -> None:
    with pytest.raises(RuntimeError, match="is no request that twinspan serves"):
        apps(request_of)


def test_each_server_has_applications_of_its_own() -> None:
    one, other = Site(), Site()
    with one.server() as first, other.server() as second:
        one.url, other.url = first.url, second.url
        one.in_legacy(lambda others: others.call("new", "GET", "/run"))
        assert apps(second).call("new", "GET", "/x").status == 201
        assert isinstance(one.outcome, Response)
        assert other.outcome is None


def test_what_was_kept_says_when_the_server_has_stopped() -> None:
    site = Site()
    server = site.server()
    with pytest.raises(RuntimeError, match="has not started"):
        apps(server).call("new", "GET", "/x")
    with server:
        kept = apps(server)
        assert kept.call("legacy", "GET", "/x").json()["HTTP_HOST"] == "localhost"
    with pytest.raises(RuntimeError, match="has stopped"):
        kept.call("new", "GET", "/x")


FILES = {
    "twinspan.toml": """
        [apps.new]
        app = "pages:new"
        [apps.old]
        app = "pages:old"
        [[routes]]
        app = "new"
        mount = "/new"
        [[routes]]
        app = "old"
        mount = "/"
    """,
    "pages.py": """
        from twinspan.migrate import apps

        async def new(scope, receive, send):
            if scope["type"] == "lifespan":
                raise NotImplementedError
            answer = await apps(scope).acall("old", "GET", "/inner")
            await send({"type": "http.response.start", "status": answer.status, "headers": []})
            await send({"type": "http.response.body", "body": answer.content})

        def old(environ, start_response):
            start_response("200 OK", [])
            return [environ["PATH_INFO"].encode()]
    """,
}


def test_workers_of_the_command_call_and_count(command: StartCommand, tmp_path: Path) -> None:
    admin = tmp_path / "admin"
    started = command("-w", "2", "--admin", f"unix:{admin}", "-b", "127.0.0.1:0", files=FILES)
    for _ in range(4):
        assert httpx.get(f"{started.url}/new").text == "/inner"
    counted = 'twinspan_requests_total{app="old",status="200"} 4'
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(admin))) as client:
        # Workers tell what they count once a second.
        while counted not in (text := client.get("http://admin/metrics").text):
            assert started.returncode is None, text
