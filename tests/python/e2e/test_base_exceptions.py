"""Whatever a WSGI application raises, and wherever, costs that request and nothing else.

`SystemExit`, `KeyboardInterrupt` and others do not derive from `Exception`, so that ordinary code
lets them pass: in a thread of a server, up to its end, and with a sense of duty up to the end of
the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from adapters.raw import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.wire import StartShared
    from support import Command

NAMES = [
    "SystemExit",
    "KeyboardInterrupt",
    "GeneratorExit",
    "CancelledError",
    "MemoryError",
    "RecursionError",
    "BaseException",
    "UnprintableError",
]
BEFORE_THE_HEAD = ["call", "started", "iter", "before-the-head", "first-step"]
AFTER_THE_HEAD = ["written", "second-step", "end"]


@pytest.fixture(scope="module")
def server(start_shared: StartShared) -> Command:
    """One thread, so that the next request comes to the one on which something was raised."""
    return start_shared("apps.raises:application", "--threads=1")


@pytest.fixture
def here(server: Command) -> Iterator[bytes]:
    """The thread and the process, which are the same afterwards."""
    with Client(server.port) as client:
        before = client.ask(target="/here").body
        yield before
    with Client(server.port) as client:
        assert client.ask(target="/here").body == before


def wait_for_traceback(server: Command, name: str, after: int) -> None:
    server.wait_for_line("Traceback", after=after)
    server.wait_for_line(rf"^(\w+\.)*{name}(: .*)?$", after=after)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", BEFORE_THE_HEAD)
def test_before_the_head_it_is_a_500_and_the_connection_goes_on(
    server: Command, here: bytes, place: str, name: str
) -> None:
    after = len(server.lines)
    with Client(server.port) as client:
        assert client.ask(target=f"/{place}?{name}").status == 500
        assert client.ask(target="/here").body == here
    wait_for_traceback(server, name, after)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", AFTER_THE_HEAD)
def test_after_the_head_the_response_is_reset_and_never_looks_complete(
    server: Command, here: bytes, place: str, name: str
) -> None:
    after = len(server.lines)
    with Client(server.port) as client:
        client.start("GET", f"/{place}?{name}")
        # What came before the reset may be lost with it.
        assert client.is_reset()
    wait_for_traceback(server, name, after)


@pytest.mark.parametrize("name", NAMES)
def test_from_close_it_comes_too_late_to_harm_the_response(
    server: Command, here: bytes, name: str
) -> None:
    after = len(server.lines)
    with Client(server.port) as client:
        assert client.ask(target=f"/close?{name}").body == b"firstsecond"
        assert client.ask(target="/here").body == here
    wait_for_traceback(server, name, after)


@pytest.mark.parametrize("name", NAMES)
def test_over_http_2_it_costs_one_stream_of_the_connection(
    server: Command, here: bytes, name: str
) -> None:
    with httpx.Client(
        http1=False, http2=True, base_url=server.url, trust_env=False, verify=False
    ) as client:
        asked = 0
        for place in (*BEFORE_THE_HEAD, "close"):
            asked += 1
            broken = client.get(f"/{place}?{name}")
            assert broken.status_code == (200 if place == "close" else 500)
        for place in AFTER_THE_HEAD:
            asked += 1
            with pytest.raises(httpx.RemoteProtocolError, match="StreamReset"):
                client.get(f"/{place}?{name}")
        with client.stream("GET", "/here") as last:
            assert last.read() == here
            assert last.extensions["stream_id"] == 2 * asked + 1
