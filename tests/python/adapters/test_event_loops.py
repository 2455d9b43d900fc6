"""Any event loop of asyncio's kind runs the applications; one that cannot says why."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
import pytest
from apps import loops
from twinspan.testing import Server

if TYPE_CHECKING:
    from support import Serve

LOOPS = {
    "asyncio": r"asyncio\.unix_events\._UnixSelectorEventLoop",
    "uvloop": r"uvloop\.Loop",
    "auto": r"uvloop\.Loop",
    "uvloop:new_event_loop": r"uvloop\.Loop",
    "asyncio:SelectorEventLoop": r"asyncio\.unix_events\._UnixSelectorEventLoop",
    "rloop:new_event_loop": r"rloop\.",
    "apps.loops:Selector": r"apps\.loops\.Selector",
    "apps.loops:NeverEager": r"apps\.loops\.NeverEager",
    "apps.loops:made_by_a_function": r"apps\.loops\.Selector",
    "apps.loops:Holder.selector": r"apps\.loops\.Selector",
}


# rloop leaves sockets for the collector to close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("loop", LOOPS)
def test_applications_run_on_the_loop_that_was_chosen(serve: Serve, loop: str) -> None:
    if loop.startswith("rloop"):
        pytest.importorskip("rloop")
    server = serve(loops.app, loop=loop)
    with httpx.Client(base_url=server.url, trust_env=False, timeout=20) as client:
        for _ in range(3):
            text = client.post("/", content=b"echo").text
            assert re.fullmatch(rf"{LOOPS[loop]}.* echo", text), text


@pytest.mark.parametrize(
    ("loop", "problem"),
    [
        ("nowhere:Loop", "there is no module `nowhere`"),
        ("apps.loops:Selectr", "has no attribute `Selectr`\nhint: .*`Selector`"),
        ("apps.loops:number", "`apps.loops:number` is a `int`, which cannot be called"),
        ("apps.loops:a_dict", "it returned no event loop but a `dict`"),
        ("apps.loops:app", "it raised TypeError"),
        ("apps.loops:raising", "it raised RuntimeError: no loop today"),
        ("apps.loops:closed", "it returned an event loop that is closed"),
        ("apps.loops:CannotWatch", "its loop cannot watch a file descriptor .*NotImplementedError"),
    ],
)
def test_a_loop_that_cannot_be_used_ends_the_start_with_the_reason(loop: str, problem: str) -> None:
    with pytest.raises(RuntimeError) as refused, Server(loops.app, loop=loop):
        pass
    expected = rf"its event loop \(`--loop {loop}`\): .*{problem}"
    assert re.search(expected, str(refused.value)), refused.value
