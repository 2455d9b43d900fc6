"""Threads, and what applications keep for each: connections to a database, `threading.local`.

The databases are real SQLite files, whose connections refuse to be used by another thread.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from adapters.raw import TIMEOUT, Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from e2e.wire import StartShared
    from support import Command, Serve

THREADS = 20


@pytest.fixture(scope="module")
def ledger(start_shared: StartShared, tmp_path_factory: pytest.TempPathFactory) -> Command:
    file = tmp_path_factory.mktemp("ledger") / "ledger.db"
    environment = {"LEDGER": str(file)}
    return start_shared("apps.ledger:app", f"--threads={THREADS}", env=environment)


@pytest.fixture
def client(ledger: Command) -> Iterator[httpx.Client]:
    limits = httpx.Limits(max_connections=None)
    with httpx.Client(
        base_url=ledger.url, trust_env=False, verify=False, timeout=TIMEOUT, limits=limits
    ) as client:
        yield client
        counts = client.get("/counts").json()
        assert counts.get("checked out") == counts.get("checked in"), "sessions were left open"
        assert counts.get("opened") == counts.get("closed"), "connections were left open"
        assert "ended elsewhere" not in counts


def at_once(call: Callable[[int], Any], times: int, clients: int) -> list[Any]:
    with ThreadPoolExecutor(clients) as executor:
        return list(executor.map(call, range(times)))


# Flask with SQLAlchemy.


def test_requests_at_once_have_threads_sessions_and_connections_of_their_own(
    client: httpx.Client,
) -> None:
    met = at_once(lambda _: client.get("/meet/12").json(), 12, 12)
    for what in ("thread", "session", "connection"):
        assert len({one[what] for one in met}) == 12
    assert max(one["threads"] for one in met) < THREADS


def test_a_thread_keeps_its_locals_and_its_connection_from_request_to_request(
    client: httpx.Client,
) -> None:
    by_thread: defaultdict[int, list[dict[str, int]]] = defaultdict(list)
    for one in at_once(lambda _: client.get("/local").json(), 100, 4):
        by_thread[one["thread"]].append(one)
    for of_thread in by_thread.values():
        assert sorted(one["seen"] for one in of_thread) == list(range(1, len(of_thread) + 1))
        assert len({one["connection"] for one in of_thread}) == 1
    connected = client.get("/counts").json()["connected"]
    assert connected <= THREADS + 1, "the one that made the tables, and one for each thread"


def test_no_write_is_lost_when_all_write_at_once(client: httpx.Client) -> None:
    def write(number: int) -> int:
        by = "bare" if number % 2 else "session"
        return client.post(f"/entries?by={by}", data={"text": f"w{number}"}).status_code

    assert at_once(write, 200, 16) == [201] * 200
    written = set(client.get("/entries").json()["texts"])
    assert {f"w{number}" for number in range(200)} <= written
    assert {f"w{number}b" for number in range(1, 200, 2)} <= written


@pytest.mark.parametrize("raises", ["ValueError", "SystemExit"])
def test_what_a_request_wrote_before_it_raised_is_gone_and_its_thread_is_clean(
    client: httpx.Client, raises: str
) -> None:
    entry = {"text": f"by {raises}"}
    for _ in range(5):
        broken = client.post(f"/entries/broken?raises={raises}", data=entry)
        assert broken.status_code == 500
    assert entry["text"] not in client.get("/entries").json()["texts"]
    assert client.post("/entries", data=entry).status_code == 201
    assert entry["text"] in client.get("/entries").json()["texts"]


@pytest.mark.parametrize("by", ["session", "bare"])
def test_a_response_that_reads_while_it_is_sent_stays_on_one_thread(
    client: httpx.Client, by: str
) -> None:
    def read(_: int) -> list[list[str]]:
        lines = client.get(f"/stream/{by}?rows=300").text.splitlines()
        return [line.split() for line in lines]

    for lines in at_once(read, 12, 6):
        assert [row for row, _ in lines] == [str(number) for number in range(300)]
        assert len({thread for _, thread in lines}) == 1


@pytest.mark.parametrize("by", ["session", "bare"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_nobody_reads_to_its_end_gives_its_connection_back(
    client: httpx.Client, ledger: Command, by: str, method: str
) -> None:
    before = client.get("/counts").json().get("ended on its thread", 0)
    with Client(ledger.port) as leaving:
        leaving.start(method, f"/stream/{by}?rows=1000000000&width=1000")
        assert leaving.head().status == 200
    # The request for `before`, the one that was left, and the one that asks.
    ended = {"what": "ended on its thread", "number": before + 2}
    assert client.get("/counts", params=ended).json()["ended on its thread"] >= before + 2


def test_a_context_lasts_from_the_call_to_close_and_no_longer(client: httpx.Client) -> None:
    def ask(_: int) -> tuple[str, list[str]]:
        answer = client.get("/context")
        return answer.headers["x-before"], answer.text.split("\n")

    steps = ["the call's", "step 1", "step 2", ""]
    assert at_once(ask, 40, 4) == [("nobody's", steps)] * 40
    closed = {"what": "step 3, then nobody's", "number": 40}
    assert client.get("/counts", params=closed).json()["step 3, then nobody's"] == 40


# Threads.


def test_threads_are_made_when_requests_need_them(serve: Serve) -> None:
    entered = threading.Semaphore(0)
    leave = threading.Event()

    def growing(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/stay":
            entered.release()
            leave.wait(TIMEOUT)
        start_response("200 OK", [])
        return [threading.current_thread().name.encode()]

    def threads() -> int:
        return len([t for t in threading.enumerate() if t.name == name])

    server = serve(growing, threads=16)
    with Client(server.port) as client:
        name = client.ask().body.decode()
        # One is always ready for the next request, and one may not be back from the last.
        assert threads() <= 3
        staying = [Client(server.port) for _ in range(5)]
        for number, one in enumerate(staying, 1):
            one.start("GET", "/stay")
            assert entered.acquire(timeout=TIMEOUT)
            assert client.ask().status == 200
            assert number < threads() < 16
        leave.set()
        for one in staying:
            assert one.answer().status == 200
            one.socket.close()
