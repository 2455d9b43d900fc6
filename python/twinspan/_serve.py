"""Servers inside a Python process."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ._twinspan import Server as _Server

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from typing_extensions import Self

    from ._twinspan import Apps as _Apps

Application = Callable[..., Any]
"""A WSGI or ASGI application; which of the two is seen, not declared."""

Target = str | Application
"""An application, or where it is found: ``module:attr``."""


class Server:
    """One server; several may run in a process at once, on any threads.

    Applications are given as for the command ``twinspan``: the last one answers whatever no other
    does, each before it exactly the routes that its own router defines. ``mounts`` maps path
    prefixes to applications. ``options`` are those of the command, with underscores
    (``threads=4``), except ``workers``, which are processes; files and the environment are not
    read.

    Raises ``ValueError`` for an option that is wrong and ``OSError`` for an address that cannot be
    listened on.
    """

    def __init__(
        self, *apps: Target, mounts: Mapping[str, Target] | None = None, **options: object
    ) -> None:
        objects: dict[str, Application] = {}
        arguments = dict(options)
        if apps:
            arguments["app"] = [_target(app, objects) for app in apps]
        if mounts:
            arguments["mount"] = [
                f"{prefix}={_target(app, objects)}" for prefix, app in mounts.items()
            ]
        self._server = _Server(json.dumps(arguments), objects)
        self._thread: threading.Thread | None = None
        self._used = False

    @property
    def addresses(self) -> list[str]:
        """Where it listens: ``127.0.0.1:8000``, ``unix:/run/app.sock``."""
        return self._server.addresses

    @property
    def native_apps(self) -> _Apps | None:
        """What :func:`twinspan.migrate.apps` works with; None before it has started."""
        return self._server.apps

    def run(self) -> None:
        """Serves on this thread until :meth:`stop` is called and everything has drained.

        Raises ``RuntimeError`` with the cause when an application does not start.
        """
        self._use()
        self._server.run()
        self._server.wait_started()

    def start(self) -> None:
        """Serves on a thread of its own; returns when every application has started.

        Raises ``RuntimeError`` with the cause when one does not.
        """
        self._use()
        self._thread = threading.Thread(target=self._server.run, name="twinspan", daemon=True)
        self._thread.start()
        try:
            self._server.wait_started()
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        """Begins the drain: no new connections, those that are open finish what they do."""
        self._server.stop()

    def close(self) -> None:
        """Stops a server that was started with :meth:`start` and waits for its end."""
        self.stop()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _use(self) -> None:
        if self._used:
            raise RuntimeError("a server runs only once: make another")
        self._used = True

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def serve(*apps: Target, mounts: Mapping[str, Target] | None = None, **options: object) -> None:
    """Serves in this process until SIGINT or SIGTERM; arguments as for :class:`Server`.

    The signals are handled only on the main thread, where Python allows it; elsewhere use
    :class:`Server` and call its ``stop``. The command ``twinspan`` has what this lacks: several
    workers, reloading, and a supervisor that survives a crash.
    """
    server = Server(*apps, mounts=mounts, **options)

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.stop()

    if threading.current_thread() is not threading.main_thread():
        server.run()
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _target(app: Target, objects: dict[str, Application]) -> str:
    """Names an application that was handed over, so that options can speak of it."""
    if isinstance(app, str):
        return app
    for name, known in objects.items():
        if known is app:
            return name
    named: object = getattr(app, "__name__", None)
    base = named if isinstance(named, str) and named.isidentifier() else type(app).__name__.lower()
    name, number = base, 2
    while name in objects:
        name, number = f"{base}{number}", number + 1
    objects[name] = app
    return name
