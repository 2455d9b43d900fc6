"""Applications under test: which of them `wsgiref.validate` watches, and parts that many need."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from wsgiref.validate import validator

from conformance.clients import LONG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.sites import Site

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

TEXT = ("Content-Type", "text/plain")
"""A response with content has a type, says the validator."""


class Faulty(NamedTuple):
    """An application that breaks a rule on purpose: the validator would not let it."""

    app: Callable[[Environ, StartResponse], Any]


class Bare(NamedTuple):
    """An application whose result the server is to see as it is.

    The validator checks its `environ`; around the result, the input and `start_response` it would
    hide what the test is about: a length, a file wrapper, `read()` without a size.
    """

    app: Application


class MakeSite(Protocol):
    """Serves an application with options of the server."""

    def __call__(self, app: Application | Faulty | Bare, **options: object) -> Site: ...


def wrapped(app: Application | Faulty | Bare) -> Application:
    """What the server gets: with the validator around it, unless it says otherwise."""
    if isinstance(app, Faulty):
        return app.app
    inner = app.app if isinstance(app, Bare) else app
    checked: Any = checking(inner) if isinstance(app, Bare) else validator(inner)
    # The log calls an application by its name.
    checked.__name__ = getattr(inner, "__name__", type(inner).__name__)
    return checked


def checking(app: Application) -> Any:
    """Looks at the `environ` as the validator does, and leaves the rest to the application."""
    looking: Any = validator(lambda _environ, _start_response: [])

    def checked(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        # It looks before it calls what it wraps, here an application for show.
        looking(dict(environ), start_response).close()
        return app(environ, start_response)

    return checked


class Blocks:
    """An iterable that counts how often it is closed, and lets a test wait for it."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._closing = threading.Event()
        self.asked = 0
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.asked += 1
        return next(self._blocks)

    def close(self) -> None:
        self.closed += 1
        self._closing.set()

    def wait_closed(self) -> None:
        assert self._closing.wait(LONG), "close() was not called"


def answering(
    *blocks: bytes, status: str = "200 OK", headers: Iterable[tuple[str, str]] = (TEXT,)
) -> Application:
    """An application that always says the same."""

    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, list(headers))
        return list(blocks)

    return app
