"""A WSGI application that is stuck costs its own requests, and nothing else notices.

Stuck means: it waits for an event of the test. Deadlines are real time, so what must happen before
one has half a second, and what must happen after one is waited for.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
import weakref
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest
from adapters.raw import TIMEOUT, Client
from apps import echo
from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from support import Serve, StartCommand
    from twinspan.testing import Server

    Environ = dict[str, Any]
    StartResponse = Callable[..., Callable[[bytes], object]]

DEADLINE = 0.5


class Shop:
    """A WSGI application that waits until it is released: `/begins` after its first block, `/quick`
    never, everything else before. What is iterated and closed is counted.
    """

    def __init__(self) -> None:
        self.released = threading.Event()
        self.begun: list[str] = []
        self.blocks: list[bytes] = []
        self.closed = threading.Semaphore(0)
        self._began = threading.Semaphore(0)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        self.begun.append(environ["PATH_INFO"])
        self._began.release()
        start_response("200 OK", [])
        if environ["PATH_INFO"].endswith("/quick"):
            return [threading.current_thread().name.encode()]
        return Blocks(self, at_once=[b"begun"] if environ["PATH_INFO"] == "/begins" else [])

    def wait_begun(self, times: int = 1) -> None:
        for _ in range(times):
            assert self._began.acquire(timeout=TIMEOUT)

    def wait_closed(self) -> None:
        assert self.closed.acquire(timeout=TIMEOUT)


class Blocks:
    def __init__(self, shop: Shop, at_once: list[bytes]) -> None:
        self.shop = shop
        self.at_once = at_once
        self.left = [b"first", b"second", b"third"]

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self.at_once:
            return self.at_once.pop()
        assert self.shop.released.wait(TIMEOUT)
        if not self.left:
            raise StopIteration
        self.shop.blocks.append(self.left[0])
        return self.left.pop(0)

    def close(self) -> None:
        self.shop.closed.release()


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.released.set()


class Admin:
    """The admin endpoint of a server."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def ready(self) -> tuple[int, str]:
        answer = self._client.get("/readyz")
        return answer.status_code, answer.text.strip()

    def metric(self, name: str) -> int:
        """The sum over all applications."""
        text = self._client.get("/metrics").text
        values = re.findall(rf"^{name}(?:\{{.*\}})? (\d+)$", text, re.MULTILINE)
        assert values, name
        return sum(map(int, values))


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Admin]:
    transport = httpx.HTTPTransport(uds=str(tmp_path / "admin"))
    with httpx.Client(transport=transport, base_url="http://admin", timeout=TIMEOUT) as client:
        yield Admin(client)


@pytest.fixture
def start(serve: Serve, shop: Shop, tmp_path: Path) -> Callable[..., Server]:
    """Serves the shop with a deadline."""

    def start(threads: int = 32) -> Server:
        path = tmp_path / "admin"
        return serve(shop, timeout_request=DEADLINE, admin=f"unix:{path}", threads=threads)

    return start


def until(condition: Callable[[], bool]) -> None:
    """Waits for what only shows by looking again."""
    limit = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < limit, "it never happened"
        time.sleep(0.01)


# --- past the deadline ---


def test_a_request_past_its_deadline_is_answered_504_and_discarded(
    start: Callable[..., Server], shop: Shop, admin: Admin
) -> None:
    with Client(start().port) as client:
        answer = client.ask(target="/stuck")
        assert (answer.status, answer.body) == (504, b"Gateway Timeout\n")
        assert client.ask(target="/quick").status == 200, "on the same connection"
    assert admin.metric("twinspan_requests_timed_out_total") == 1
    shop.released.set()
    shop.wait_closed()
    assert shop.blocks == [b"first"], "nothing is asked for after the block that nobody takes"
    assert not shop.closed.acquire(blocking=False), "closed twice"


def test_http2_and_head_are_answered_504_too(start: Callable[..., Server]) -> None:
    url = start().url
    with httpx.Client(http1=False, http2=True, base_url=url, trust_env=False) as client:
        answers = [client.head("/stuck"), client.get("/stuck"), client.get("/quick")]
    assert [answer.status_code for answer in answers] == [504, 504, 200]
    assert [len(answer.content) for answer in answers[:2]] == [0, len("Gateway Timeout\n")]


def test_asgi_applications_have_no_deadline(serve: Serve, shop: Shop) -> None:
    async def app(scope: Environ, _receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        await asyncio.to_thread(shop.released.wait, TIMEOUT)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"late"})

    server = serve(app, mounts={"/wsgi": shop}, timeout_request=DEADLINE)
    with Client(server.port) as slow, Client(server.port) as stuck:
        slow.start("GET", "/")
        assert stuck.ask(target="/wsgi").status == 504, "and so the same time has passed for both"
        shop.released.set()
        assert slow.answer().body == b"late"


def test_a_response_that_has_begun_may_take_its_time_and_who_waits_behind_it_is_never_begun(
    start: Callable[..., Server], shop: Shop, admin: Admin
) -> None:
    server = start(threads=1)
    with Client(server.port) as first, Client(server.port) as second:
        first.start("GET", "/begins")
        assert first.head().status == 200
        assert first.chunk() == b"begun"
        assert second.ask(target="/waits").status == 504, "the deadline of the first is over too"
        assert admin.metric("twinspan_pool_waiting") == 0, "its place in the queue is free"
        assert admin.metric("twinspan_pool_threads_abandoned") == 0
        shop.released.set()
        assert [first.chunk() for _ in range(4)] == [b"first", b"second", b"third", b""]
        assert second.ask(target="/quick").status == 200
    assert shop.begun == ["/begins", "/quick"]


def test_the_log_says_where_the_thread_is(
    start: Callable[..., Server], shop: Shop, capfd: pytest.CaptureFixture[str]
) -> None:
    with Client(start().port) as client:
        assert client.ask(target="/stuck/here?key=secret").status == 504
    seen = ""

    def reported() -> bool:
        nonlocal seen
        seen += capfd.readouterr().err
        return "self.shop.released.wait" in seen

    until(reported)
    assert re.search(r"thread twinspan-shop-\d is stuck in GET \"/stuck/here\": .*500ms", seen)
    assert "secret" not in seen
    shop.released.set()


def test_a_client_that_leaves_first_does_not_hide_a_stuck_thread(
    start: Callable[..., Server], shop: Shop, admin: Admin
) -> None:
    server = start(threads=1)
    with Client(server.port) as client:
        client.start("GET", "/stuck")
        shop.wait_begun()
    until(lambda: admin.metric("twinspan_pool_threads_abandoned") == 1)
    with Client(server.port) as client:
        assert client.ask(target="/quick").status == 200
    shop.released.set()
    shop.wait_closed()


def test_a_slow_upload_ends_at_the_deadline_and_its_thread_is_free(
    serve: Serve, tmp_path: Path, admin: Admin
) -> None:
    raised: list[BaseException] = []
    done = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            raised.append(error)
        done.set()
        start_response("200 OK", [])
        return []

    server = serve(app, timeout_request=DEADLINE, threads=1, admin=f"unix:{tmp_path / 'admin'}")
    with Client(server.port) as client:
        client.start("POST", "/", 100)
        client.send(b"half")
        assert client.answer().status == 504
        assert done.wait(TIMEOUT), "while the client is still there"
    assert len(raised) == 1
    until(lambda: admin.metric("twinspan_pool_threads_abandoned") == 0)


# --- threads that are given up ---


def test_an_abandoned_thread_is_replaced_and_leaves_when_it_comes_back(
    serve: Serve, tmp_path: Path, admin: Admin
) -> None:
    local = threading.local()
    released, returned = threading.Event(), threading.Event()

    class Connection:
        """Such as an application keeps for each thread."""

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        assert environ["wsgi.multithread"], "the abandoned thread may run on beside its successor"
        if environ["PATH_INFO"] == "/stuck":
            local.connection = Connection()
            weakref.finalize(local.connection, returned.set)
            assert released.wait(TIMEOUT)
        start_response("200 OK", [])
        return [threading.current_thread().name.encode()]

    server = serve(app, timeout_request=DEADLINE, threads=1, admin=f"unix:{tmp_path / 'admin'}")
    with Client(server.port) as client:
        before = client.ask().body
        assert client.ask(target="/stuck").status == 504
        after = client.ask()
        assert after.status == 200
        assert after.body != before
        assert admin.metric("twinspan_pool_threads_abandoned") == 1
        assert admin.metric("twinspan_pool_threads_busy") == 0
        assert admin.metric("twinspan_pool_threads") == 1
        released.set()
        assert returned.wait(TIMEOUT), "what it kept for itself ends with it"
        assert client.ask().body == after.body
    assert admin.metric("twinspan_pool_threads_abandoned") == 0


def test_when_more_are_stuck_than_can_be_replaced_requests_are_turned_away_until_one_is_back(
    start: Callable[..., Server],
    shop: Shop,
    admin: Admin,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server = start(threads=2)
    with Client(server.port) as client:
        for path in ("/stuck/1", "/stuck/2", "/stuck/3"):
            assert client.ask(target=path).status == 504
        refused = client.ask(target="/quick")
        assert refused.status == 503
        assert refused.header("retry-after")
        assert admin.metric("twinspan_pool_threads_abandoned") == 3
        assert admin.ready() == (503, "threads are stuck in `shop`")
        assert shop.begun == ["/stuck/1", "/stuck/2", "/stuck/3"]
        shop.released.set()
        until(lambda: admin.metric("twinspan_pool_threads_abandoned") == 0)
        assert admin.ready() == (200, "ready")
        assert client.ask(target="/quick").status == 200
    log = capfd.readouterr().err
    assert "answered 503 until one comes back" in log
    assert "restart this process" in log


STUCK_FOR_EVER = """
    import os
    import threading

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/stuck":
            threading.Event().wait()
        start_response("200 OK", [])
        return [str(os.getpid()).encode()]
"""


def test_a_worker_whose_threads_are_stuck_is_replaced(
    command: StartCommand, http: httpx.Client
) -> None:
    options = ("--bind", "127.0.0.1:0", "--threads", "1", "--timeout-request", str(DEADLINE))
    server = command("app:app", *options, files={"app.py": STUCK_FOR_EVER})
    stuck = http.get(server.url).text
    for _ in range(2):
        assert http.get(f"{server.url}/stuck").status_code == 504

    def answer() -> httpx.Response:
        # On a connection of its own: a worker that drains closes those that idle.
        return httpx.get(server.url, trust_env=False, timeout=TIMEOUT)

    assert {answer().status_code for _ in range(3)} <= {200, 503}
    until(lambda: answer().text not in {stuck, "Service Unavailable\n"})
    assert server.wait_for_line("threads of a worker are stuck in `app`")
    until(lambda: not psutil.pid_exists(int(stuck)))
    assert "killed" not in server.text, "its stuck threads do not hold its end up"
    assert answer().status_code == 200
    assert server.terminate() == 0


HOLDS_THE_GIL = """
    def app(environ, start_response):
        print("begins", flush=True)
        sum(range(10**8))
        print("ends", flush=True)
        start_response("200 OK", [])
        return []
"""


def test_a_thread_that_does_not_let_go_of_the_gil_delays_no_504(
    command: StartCommand, http: httpx.Client
) -> None:
    options = ("--bind", "127.0.0.1:0", "--timeout-request", "0.1")
    server = command("app:app", *options, files={"app.py": HOLDS_THE_GIL})
    assert http.get(server.url).status_code == 504
    assert "ends" not in server.lines
    server.wait_for_line("ends")
    assert server.terminate() == 0


# --- the others ---


def test_asgi_websockets_and_admin_do_not_move_while_200_requests_are_stuck(
    serve: Serve, shop: Shop, tmp_path: Path, admin: Admin
) -> None:
    server = serve(
        shop,
        mounts={"/asgi": echo.asgi},
        threads=100,
        queue=100,
        admin=f"unix:{tmp_path / 'admin'}",
    )
    url = f"ws://127.0.0.1:{server.port}/asgi"
    with ExitStack() as opened:
        before = opened.enter_context(connect(url, proxy=None))
        clients = [opened.enter_context(Client(server.port)) for _ in range(200)]
        for client in clients:
            client.start("GET", "/stuck")
        shop.wait_begun(100)
        until(lambda: admin.metric("twinspan_pool_waiting") == 100)

        with Client(server.port) as client:
            refused = client.ask(target="/quick")
            assert refused.status == 503, "the 201st"
            assert refused.header("retry-after") == "1"
            for number in range(20):
                body = f"request {number}".encode()
                assert client.ask("POST", "/asgi", body).body == body
        for socket in (before, opened.enter_context(connect(url, proxy=None))):
            assert socket.ping().wait(TIMEOUT)
            socket.send("hello")
            assert socket.recv(TIMEOUT) == "hello"
        assert admin.ready() == (200, "ready")
        assert admin.metric("twinspan_pool_threads_busy") == 100
        assert shop.begun == ["/stuck"] * 100

        shop.released.set()
        for client in clients:
            answer = client.answer()
            assert (answer.status, answer.body) == (200, b"firstsecondthird")
    assert shop.begun == ["/stuck"] * 200
    assert admin.metric("twinspan_pool_waiting") == 0
