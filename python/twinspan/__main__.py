"""The command ``twinspan``, also as ``python -m twinspan``."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from typing import NoReturn

from ._twinspan import run

WORKER = "__worker__"

EXIT_LIMIT = 5.0
"""Seconds that the end of a worker may take once its applications have stopped."""


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    arguments = sys.argv[1:]
    if arguments[:1] == [WORKER]:
        _work(arguments)
    sys.exit(run(arguments))


def _work(arguments: list[str]) -> NoReturn:
    """Runs a worker, and ends it although threads of its applications may be stuck.

    Requests have had their time to finish. Python would wait for some of these threads for ever,
    and would end others wherever they are, in the extension's code too.
    """
    code = 0

    def leave_stuck_threads() -> None:
        if any(thread.name.startswith("twinspan-") for thread in threading.enumerate()):
            _exit(code)

    # What is registered first runs last: applications have had their turn by then.
    atexit.register(leave_stuck_threads)
    code = run(arguments)
    timer = threading.Timer(EXIT_LIMIT, _exit, [code])
    timer.daemon = True
    timer.start()
    sys.exit(code)


def _exit(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
