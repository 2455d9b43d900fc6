"""PEP 3333, "Thread Support", and what it implies: no request leaves a trace in another."""

from __future__ import annotations

import contextvars
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from conformance.clients import LONG
from conformance.wsgi.apps import TEXT, Bare, Faulty

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from conformance.wsgi.apps import Environ, MakeSite, StartResponse
    from support import StartCommand


class Odd(BaseException):
    """What nobody expects."""


# --- What the environ says of them ---


@pytest.mark.parametrize(("threads", "multithread"), [(1, False), (2, True), (8, True)])
def test_multithread_says_whether_requests_may_run_at_once(
    site: MakeSite, threads: int, multithread: bool
) -> None:
    """ "may be simultaneously invoked by another thread in the same process"."""
    flags: list[object] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        flags.append(environ["wsgi.multithread"])
        start_response("200 OK", [TEXT])
        return []

    assert site(app, threads=threads).ask().status == 200
    assert flags == [multithread]


def test_one_thread_runs_one_request_at_a_time(site: MakeSite) -> None:
    """ "the option of running an application in a single-threaded fashion"."""
    running = 0
    most = 0
    idents: set[int] = set()

    def app(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        idents.add(threading.get_ident())
        start_response("200 OK", [TEXT])
        yield b"one"
        yield b"two"
        running -= 1

    served = site(app, threads=1)
    exchanges = [served.start() for _ in range(8)]
    assert [exchange.answer().body for exchange in exchanges] == [b"onetwo"] * 8
    assert most == 1
    assert len(idents) == 1


def test_as_many_requests_run_at_once_as_there_are_threads(site: MakeSite) -> None:
    together = threading.Barrier(4)

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        together.wait(LONG)
        start_response("200 OK", [TEXT])
        return [b"together"]

    served = site(app, threads=4)
    exchanges = [served.start() for _ in range(4)]
    assert [exchange.answer().body for exchange in exchanges] == [b"together"] * 4


def test_a_request_stays_on_its_thread_from_the_call_to_close(site: MakeSite) -> None:
    """Thread-locals and database connections rely on it."""
    idents: list[int] = []

    class Result:
        def __iter__(self) -> Iterator[bytes]:
            for _ in range(3):
                idents.append(threading.get_ident())
                yield b"x"

        def close(self) -> None:
            idents.append(threading.get_ident())

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        idents.append(threading.get_ident())
        start_response("200 OK", [TEXT])
        return Result()

    served = site(Bare(app), threads=4)
    for _ in range(3):
        assert served.ask().body == b"xxx"
    served.close()
    assert len(idents) == 15
    for request in range(3):
        assert len(set(idents[request * 5 : request * 5 + 5])) == 1


def test_the_threads_are_threads_of_python(site: MakeSite) -> None:
    threads: list[threading.Thread] = []

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        threads.append(threading.current_thread())
        start_response("200 OK", [TEXT])
        return []

    assert site(app).ask().status == 200
    assert type(threads[0]) is threading.Thread
    assert threads[0] in threading.enumerate() or not threads[0].is_alive()


# --- What a request leaves behind ---

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_a_context_variable_lasts_for_its_request_and_no_longer(site: MakeSite) -> None:
    seen: list[str] = []

    class Result:
        def __iter__(self) -> Iterator[bytes]:
            seen.append(variable.get())
            variable.set("set by the iteration")
            yield b"x"

        def close(self) -> None:
            seen.append(variable.get())

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(variable.get())
        variable.set("set by the call")
        start_response("200 OK", [TEXT])
        return Result()

    served = site(Bare(app), threads=1)
    for _ in range(3):
        assert served.ask().body == b"x"
    served.close()
    assert seen == ["unset", "set by the call", "set by the iteration"] * 3


def test_a_thread_local_lasts_as_long_as_its_thread(site: MakeSite) -> None:
    local = threading.local()

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        local.count = getattr(local, "count", 0) + 1
        start_response("200 OK", [TEXT])
        return [b"%d" % local.count]

    served = site(app, threads=1)
    assert [served.ask().body for _ in range(3)] == [b"1", b"2", b"3"]


def test_an_error_that_was_handled_is_not_current_in_the_next_request(site: MakeSite) -> None:
    seen: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(sys.exc_info())
        if environ["PATH_INFO"] == "/raise":
            raise ValueError("raised")
        start_response("200 OK", [TEXT])
        return []

    served = site(app, threads=1)
    assert served.ask(path="/raise").status == 500
    assert served.ask().status == 200
    assert seen == [(None, None, None)] * 2


ENDINGS = [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, Odd]


@pytest.mark.parametrize("place", ["call", "iteration", "close"])
def test_whatever_is_raised_costs_that_request_and_no_thread(site: MakeSite, place: str) -> None:
    """Also what ends a program: the server is not the application's to stop."""

    class Result:
        def __init__(self, ending: type[BaseException]) -> None:
            self.ending = ending

        def __iter__(self) -> Iterator[bytes]:
            return self

        def __next__(self) -> bytes:
            # Nothing ends an iteration as early as the error that means just that.
            raise self.ending if place == "iteration" else StopIteration

        def close(self) -> None:
            if place == "close":
                raise self.ending

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/next":
            start_response("200 OK", [TEXT])
            return [b"next"]
        ending = ENDINGS[int(environ["QUERY_STRING"])]
        if place == "call":
            raise ending
        start_response("200 OK", [TEXT])
        return Result(ending)

    served = site(Faulty(app), threads=1)
    for number, ending in enumerate(ENDINGS):
        status = served.ask(path=f"/?{number}").status
        is_error = place == "call" or (place == "iteration" and ending is not StopIteration)
        assert status == (500 if is_error else 200)
        assert served.ask(path="/next").body == b"next"


# --- Processes ---


@pytest.mark.parametrize("workers", [1, 2])
def test_multiprocess_says_whether_other_processes_serve_the_same(
    command: StartCommand, workers: int
) -> None:
    """ "may be simultaneously invoked by another process"."""
    import httpx

    process = command(
        "app:app",
        "--bind=127.0.0.1:0",
        f"--workers={workers}",
        files={
            "app.py": """
                def app(environ, start_response):
                    start_response("200 OK", [("Content-Type", "text/plain")])
                    return [repr(environ["wsgi.multiprocess"]).encode()]
                """
        },
    )
    assert httpx.get(process.url, trust_env=False).text == repr(workers > 1)
