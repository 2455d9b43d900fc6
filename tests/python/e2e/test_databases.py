"""Threads, and what applications keep for each: connections to a database, `threading.local`.

The databases are real SQLite files, whose connections refuse to be used by another thread.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import psutil
import pytest
from adapters.raw import TIMEOUT, Client
from e2e.archive import APPLICATION, prepare

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
    before = client.get("/counts").json().get("streams closed", 0)
    # Narrow lines for some: then a client leaves in any of the steps of sending one.
    widths = [1000] * 5 + [1] * 20
    for width in widths:
        with Client(ledger.port) as leaving:
            leaving.start(method, f"/stream/{by}?rows=1000000000&width={width}")
            assert leaving.head().status == 200
    closed = before + len(widths)
    answer = client.get("/counts", params={"what": "streams closed", "number": closed})
    assert answer.json()["streams closed"] == closed


def test_a_context_lasts_from_the_call_to_close_and_no_longer(client: httpx.Client) -> None:
    def ask(_: int) -> tuple[str, list[str]]:
        answer = client.get("/context")
        return answer.headers["x-before"], answer.text.split("\n")

    steps = ["the call's", "step 1", "step 2", ""]
    assert at_once(ask, 40, 4) == [("nobody's", steps)] * 40
    closed = {"what": "step 3, then nobody's", "number": 40}
    assert client.get("/counts", params=closed).json()["step 3, then nobody's"] == 40


# Django.


@pytest.fixture(scope="module", params=[0, 600], ids=["closed", "kept"])
def archive(
    start_shared: StartShared,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Archive:
    """Started once for each `CONN_MAX_AGE`."""
    environment = prepare(tmp_path_factory.mktemp("archive"))
    environment["ARCHIVE_CONN_MAX_AGE"] = str(request.param)
    server = start_shared(APPLICATION, f"--threads={THREADS}", env=environment)
    return Archive(server, kept=request.param > 0)


class Archive(NamedTuple):
    server: Command
    kept: bool
    """Connections outlive the request that opened them."""

    def connections(self) -> int:
        """How many connections the worker holds, as the operating system sees it."""
        (worker,) = psutil.Process(self.server.pid).children()
        return sum(file.path.endswith("archive.sqlite3") for file in worker.open_files())


@pytest.fixture
def django(archive: Archive) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=archive.server.url, trust_env=False, verify=False, timeout=TIMEOUT
    ) as client:
        yield client
        counts = client.get("/counts").json()
        if archive.kept:
            assert archive.connections() == counts["connected"] <= THREADS
        else:
            assert archive.connections() == 0
            assert "finished with a connection" not in counts


def test_requests_at_once_have_connections_of_their_own_in_django(django: httpx.Client) -> None:
    met = at_once(lambda _: django.get("/meet/10").json(), 10, 10)
    for what in ("thread", "connection"):
        assert len({one[what] for one in met}) == 10


def test_a_connection_lives_as_long_as_django_is_told(
    django: httpx.Client, archive: Archive
) -> None:
    before = django.get("/counts").json().get("connected", 0)
    asked = at_once(lambda _: django.get("/titles").status_code, 100, 4)
    assert asked == [200] * 100
    after = django.get("/counts").json()["connected"]
    assert after <= THREADS if archive.kept else after == before + 100


def test_a_view_that_raises_rolls_back_all_that_it_wrote(django: httpx.Client) -> None:
    twice = {"title": ["rolled back", "in the way", "in the way"]}
    for _ in range(3):
        assert django.post("/add", data=twice).status_code == 500
    assert "rolled back" not in django.get("/titles").text
    assert django.post("/add", data={"title": ["rolled back", "in the way"]}).status_code == 201
    assert "rolled back" in django.get("/titles").text


def test_no_write_is_lost_when_all_write_at_once_in_django(django: httpx.Client) -> None:
    def write(number: int) -> int:
        return django.post("/add", data={"title": f"w{number}"}).status_code

    assert at_once(write, 100, 8) == [201] * 100
    titles = {line.split("\t")[0] for line in django.get("/titles").text.splitlines()}
    assert {f"w{number}" for number in range(100)} <= titles


def test_a_response_that_reads_while_it_is_sent_stays_on_one_thread_in_django(
    django: httpx.Client,
) -> None:
    django.post("/add", data={"title": [f"read {number}" for number in range(200)]})

    def read(_: int) -> list[list[str]]:
        return [line.split("\t") for line in django.get("/titles").text.splitlines()]

    for lines in at_once(read, 12, 6):
        assert {f"read {number}" for number in range(200)} <= {title for title, _ in lines}
        assert len({thread for _, thread in lines}) == 1


def test_a_response_that_nobody_reads_to_its_end_gives_its_connection_back_in_django(
    django: httpx.Client, archive: Archive
) -> None:
    django.post("/add", data={"title": "long" + "x" * 90})
    before = django.get("/counts").json()["started"]
    for _ in range(10):
        with Client(archive.server.port) as leaving:
            leaving.start("GET", "/titles?times=1000000000")
            assert leaving.head().status == 200
    # Told when all others have finished; the fixture looks at what is left of them.
    assert django.get("/counts").json()["started"] == before + 11


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
        return sum(thread.name.startswith(pool) for thread in threading.enumerate())

    server = serve(growing, threads=16)
    with ExitStack() as clients:
        client = clients.enter_context(Client(server.port))
        clients.callback(leave.set)
        # Threads are numbered.
        pool = client.ask().body.decode().rpartition("-")[0]
        # One is always ready for the next request, and one may not be back from the last.
        assert threads() <= 3
        staying = [clients.enter_context(Client(server.port)) for _ in range(5)]
        for number, one in enumerate(staying, 1):
            one.start("GET", "/stay")
            assert entered.acquire(timeout=TIMEOUT)
            assert client.ask().status == 200
            assert number < threads() < 16
        leave.set()
        assert [one.answer().status for one in staying] == [200] * 5
