"""Raises, at the place that the path names, the exception that the query names.

`/here` raises nothing and tells the thread and the process that answer.
"""

import asyncio
import os
import threading
from collections.abc import Iterator
from typing import Any

HEADERS = [("content-type", "text/plain")]


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words for it")


def recurse() -> None:
    recurse()


def throw(name: str) -> None:
    if name == "RecursionError":
        recurse()
    raise KINDS[name](f"raised on purpose, in {threading.current_thread().name}")


KINDS: dict[str, type[BaseException]] = {
    kind.__name__: kind
    for kind in (
        SystemExit,
        KeyboardInterrupt,
        GeneratorExit,
        asyncio.CancelledError,
        MemoryError,
        BaseException,
        UnprintableError,
    )
}


class Result:
    """What the application returns."""

    def __init__(self, place: str, name: str, start_response: Any) -> None:
        self.place = place
        self.name = name
        self.start_response = start_response
        self.step = 0

    def reach(self, place: str) -> None:
        if self.place == place:
            throw(self.name)

    def __iter__(self) -> Iterator[bytes]:
        self.reach("iter")
        return self

    def __next__(self) -> bytes:
        self.step += 1
        if self.step == 1:
            self.reach("before-the-head")
            self.start_response("200 OK", HEADERS)
            self.reach("first-step")
            return b"first"
        if self.step == 2:
            self.reach("second-step")
            return b"second"
        self.reach("end")
        raise StopIteration

    def close(self) -> None:
        self.reach("close")


def application(environ: dict[str, Any], start_response: Any) -> Any:
    place, name = environ["PATH_INFO"][1:], environ["QUERY_STRING"]
    if place == "here":
        start_response("200 OK", HEADERS)
        return [f"{threading.get_ident()} {os.getpid()}".encode()]
    if place == "call":
        throw(name)
    if place in {"started", "written"}:
        write = start_response("200 OK", HEADERS)
        if place == "written":
            write(b"first")
        throw(name)
    return Result(place, name, start_response)
