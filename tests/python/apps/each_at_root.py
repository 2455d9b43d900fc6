"""Serves each application of the command line on a port of its own, all in this process.

After ``--observe`` they are WSGI applications, and whoever asks with ``x-observe`` learns from
``x-file-wrapper`` whether the application made use of ``wsgi.file_wrapper``.
"""

import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from importlib import import_module
from typing import Any

from twinspan.testing import Server

Environ = dict[str, Any]


class Observed:
    """An application whose calls of ``wsgi.file_wrapper`` are seen."""

    def __init__(self, target: str) -> None:
        module, _, name = target.partition(":")
        found = getattr(import_module(module), name.removesuffix("()"))
        self._application = found() if name.endswith("()") else found

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "HTTP_X_OBSERVE" not in environ:
            return self._application(environ, start_response)
        wrap = environ["wsgi.file_wrapper"]
        wrapped: list[object] = []
        heads: list[tuple[str, list[tuple[str, str]]]] = []

        def observe(file: object, block_size: int = 8192) -> Iterable[bytes]:
            wrapped.append(file)
            return wrap(file, block_size)

        # Only at the end of the call is it known, and most frameworks have said the head before.
        def hold(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
            heads[:] = [(status, headers)]

        environ["wsgi.file_wrapper"] = observe
        response = self._application(environ, hold)
        for status, headers in heads:
            use = "used" if wrapped else "not used"
            start_response(status, [*headers, ("X-File-Wrapper", use)])
        return response


observe = sys.argv[1] == "--observe"
with ExitStack() as servers:
    for target in sys.argv[1 + observe :]:
        server = servers.enter_context(Server(Observed(target) if observe else target))
        sys.stdout.write(f"{target} is listening on {server.url}\n")
    sys.stdout.flush()
    threading.Event().wait()
