"""One server as a process tree: started, awaited, weighed, stopped.

A server is more than one process (supervisor, workers, a proxy), so CPU time and memory are sums
over the tree. The tree is what descends from the started process or shares the session that it was
given: that still holds when a parent in between has gone. Figures come from /proc, so this runs on
Linux only.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

START_TIMEOUT = 30.0
STOP_TIMEOUT = 15.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Variables that servers take options from: the command line alone says what is measured.
FOREIGN_PREFIXES = ("TWINSPAN_", "GRANIAN_", "UVICORN_", "PYVOY_", "FLASK_")
FOREIGN_NAMES = {"GUNICORN_CMD_ARGS", "WEB_CONCURRENCY", "PORT", "FORWARDED_ALLOW_IPS"}


class ServerError(Exception):
    """The server did not start, or did not live until the end of its measurement."""


@contextmanager
def serve(
    argv: list[str], port: int, cpus: Iterable[int], apps: Path, log: Path
) -> Generator[ServerProcess]:
    """Runs a server on `cpus` that imports from `apps`, and ends its whole tree with the block."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in FOREIGN_NAMES and not name.startswith(FOREIGN_PREFIXES)
    }
    environment["PYTHONPATH"] = str(apps)
    with log.open("wb") as output, affinity(cpus):
        root = subprocess.Popen(
            argv,
            cwd=apps,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process = ServerProcess(root, port)
    try:
        yield process
    finally:
        process.stop()


class ServerProcess:
    """A running server: `root` is the process that was started."""

    def __init__(self, root: subprocess.Popen[bytes], port: int) -> None:
        self._root = root
        self._port = port

    def wait_until_listening(self) -> None:
        """Returns once the port takes a connection.

        Raises `ServerError` when the server ends first or `START_TIMEOUT` is over.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            self.ensure_alive()
            with suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
                return
            time.sleep(0.02)
        raise ServerError(f"no connection within {START_TIMEOUT:.0f} s")

    def ensure_alive(self) -> None:
        """Raises `ServerError` when the started process has ended."""
        if self._root.poll() is not None:
            raise ServerError(f"the server ended with {self._root.returncode}")

    def cpu(self) -> float:
        """Seconds of CPU that the tree has used, with children that it has reaped."""
        return sum(process.ticks for process in self._tree()) / TICKS_PER_SECOND

    def memory(self) -> int:
        """Peak bytes of memory of the tree.

        Each process counts with what it holds by itself and its share of what it has in common
        (PSS), plus what it had at its peak and has given back since (VmHWM - VmRSS). A sum of peaks
        alone would count the pages of a library, or of a parent that forked, once per process.
        """
        total = 0
        for process in self._tree():
            with suppress(FileNotFoundError, ProcessLookupError):
                status = _kib_fields(Path(f"/proc/{process.pid}/status"))
                rollup = _kib_fields(Path(f"/proc/{process.pid}/smaps_rollup"))
                total += rollup["Pss"] + status["VmHWM"] - status["VmRSS"]
        return total * 1024

    def resident(self) -> int:
        """Bytes of memory that the tree holds now, each page counted once (PSS)."""
        total = 0
        for process in self._tree():
            with suppress(FileNotFoundError, ProcessLookupError):
                total += _kib_fields(Path(f"/proc/{process.pid}/smaps_rollup"))["Pss"]
        return total * 1024

    def stop(self) -> None:
        """Ends the tree: SIGTERM to the root, and after `STOP_TIMEOUT` SIGKILL to what is left."""
        tree = {process.pid for process in self._tree()}
        if self._root.poll() is None:
            self._root.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._root.wait(STOP_TIMEOUT)
        for process in _processes():
            if process.pid in tree and process.state != "Z":
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
        self._root.wait()

    def _tree(self) -> list[_Process]:
        processes = _processes()
        root = self._root.pid
        tree = {process.pid for process in processes if root in (process.pid, process.session)}
        grown = True
        while grown:
            children = {process.pid for process in processes if process.parent in tree} - tree
            tree |= children
            grown = bool(children)
        return [process for process in processes if process.pid in tree]


@dataclass(frozen=True)
class _Process:
    pid: int
    state: str
    parent: int
    session: int
    ticks: int


def _processes() -> list[_Process]:
    """Every process of the machine, from /proc/PID/stat (proc_pid_stat(5))."""
    processes: list[_Process] = []
    for directory in Path("/proc").iterdir():
        if not directory.name.isdecimal():
            continue
        try:
            stat = (directory / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        # The second field is the command in parentheses and may hold anything, also parentheses.
        fields = stat[stat.rindex(")") + 2 :].split()
        used = sum(int(ticks) for ticks in fields[11:15])  # utime, stime, cutime, cstime
        state, parent, session = fields[0], int(fields[1]), int(fields[3])
        processes.append(_Process(int(directory.name), state, parent, session, used))
    return processes


def _kib_fields(path: Path) -> dict[str, int]:
    """The lines `Name: 123 kB` of a file in /proc."""
    fields: dict[str, int] = {}
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            fields[name] = int(value.removesuffix(" kB"))
    return fields


def machine_cpu() -> float:
    """Seconds of CPU that the whole machine has used, with what the hypervisor took from it."""
    fields = Path("/proc/stat").read_text().split(maxsplit=9)
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def affinity(cpus: Iterable[int]) -> Generator[None]:
    """Processes started inside the block run on `cpus`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
