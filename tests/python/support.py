"""The server as tests use it: the command in a process of its own, and tools that must be there."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import IO, TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from twinspan._serve import Target
    from twinspan.testing import Server

LISTENING = re.compile(r"listening on (?P<url>http://\S+?)[,;.]?(?:\s|$)")

# What a developer may have set for a server of their own.
FOREIGN_ENVIRONMENT = re.compile(r"(TWINSPAN_\w+|PORT|WEB_CONCURRENCY|FORWARDED_ALLOW_IPS)$")


TWINSPAN = ("-m", "twinspan")


class Serve(Protocol):
    """Starts a `twinspan.testing.Server` that ends with the test."""

    def __call__(
        self, *apps: Target, mounts: Mapping[str, Target] | None = None, **options: object
    ) -> Server: ...


class StartCommand(Protocol):
    """Starts `python -m twinspan ARGUMENTS` in a temporary directory, or another `program` with
    Python; it ends with the test.

    `files` are written there first, indentation removed. Without `ready` the call returns at once,
    otherwise when the command says where it listens.
    """

    def __call__(
        self,
        *arguments: str,
        files: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        ready: bool = True,
        program: tuple[str, ...] = TWINSPAN,
    ) -> Command: ...


class Command:
    """A running `python -m twinspan`, in a process group of its own."""

    def __init__(
        self,
        arguments: tuple[str, ...],
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        program: tuple[str, ...] = TWINSPAN,
    ) -> None:
        inherited = {k: v for k, v in os.environ.items() if not FOREIGN_ENVIRONMENT.match(k)}
        self.cwd = cwd
        self.lines: list[str] = []
        """Everything that was printed so far, in the order in which it came."""
        self.stdout: list[str] = []
        """The part of `lines` that came on standard output."""
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            cwd=cwd,
            env={**inherited, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(self._process.stdout, self.stdout)),
            threading.Thread(target=self._read, args=(self._process.stderr, None)),
        ]
        self._reading = len(self._readers)
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str], also: list[str] | None) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    self.lines.append(line.rstrip("\n"))
                    if also is not None:
                        also.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._reading -= 1
            self._changed.notify_all()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, `None` while it runs."""
        return self._process.poll()

    @property
    def text(self) -> str:
        """Everything that was printed so far."""
        with self._changed:
            return "\n".join(self.lines)

    @property
    def url(self) -> str:
        """The first address that it listens on: `http://127.0.0.1:40123`."""
        return self.wait_for_line(LISTENING).group("url").rstrip("/")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def wait_for_line(
        self, pattern: str | re.Pattern[str], timeout: float = 20, *, after: int = 0
    ) -> re.Match[str]:
        """Waits until a line, from `lines[after]` on, matches `pattern` somewhere."""
        expression = re.compile(pattern)
        deadline = time.monotonic() + timeout
        seen = after
        with self._changed:
            while True:
                while seen < len(self.lines):
                    if found := expression.search(self.lines[seen]):
                        return found
                    seen += 1
                if not self._reading:
                    why = f"it ended with exit code {self._process.wait()}"
                elif not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    why = f"{timeout} s passed"
                else:
                    continue
                printed = "\n".join(self.lines)
                pytest.fail(f"no line matched {expression.pattern!r}: {why}\n{printed}")

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, timeout: float = 20) -> int:
        """Waits until it has ended and all of its output is read; returns its exit code."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it still runs after {timeout} s\n{self.text}")
        for reader in self._readers:
            reader.join(timeout)
            if reader.is_alive():
                pytest.fail(f"it ended, but a process that it left still prints\n{self.text}")
        return code

    def terminate(self, timeout: float = 20) -> int:
        """Asks it to stop (SIGTERM) and waits until it has; returns its exit code."""
        self.send_signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """Ends it and its workers by force, if they still run."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for reader in self._readers:
            reader.join()


def write_files(directory: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")


def tool(package: str, *names: str) -> str:
    """Returns the path of the first command among `names` that is installed.

    Where none is, the test is skipped with the way out, but fails with `CI=1`: there the tools are
    installed, and a test that silently does not run would look like one that passes.
    """
    for name in names:
        if path := shutil.which(name):
            return path
    message = f"{names[0]} is missing; to run this test: apt-get install {package}"
    if os.environ.get("CI") == "1":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
