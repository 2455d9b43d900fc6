"""The load: one run of wrk, its figures and its errors.

wrk prints times for people (`1.57ms`), so load.lua prints what wrk counted once more as JSON, and
that is what is read.
"""

from __future__ import annotations

import json
import resource
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalogue import Workload

SCRIPT = Path(__file__).with_name("load.lua")
GRACE = 15


class LoadError(Exception):
    """wrk did not run, or did not say what it measured."""


@dataclass(frozen=True)
class Load:
    """What wrk saw in one run; times in seconds."""

    requests: int
    received: int
    duration: float
    p50: float
    p99: float
    errors: dict[str, int]
    """Counts by kind, without kinds that did not occur; `status` is that of 400 and above."""
    cpu: float
    """CPU time of wrk itself; near `duration`, wrk and not the server was the limit."""


def run(workload: Workload, port: int, seconds: int) -> Load:
    """Sends the workload's requests for `seconds` from one thread of wrk.

    Raises `LoadError` when wrk fails or does not end in time.
    """
    flags = f"--threads 1 --connections {workload.connections} --duration {seconds}s"
    paths = [answer.path for answer in workload.answers]
    argv = ["wrk", *flags.split(), "--script", str(SCRIPT), f"http://127.0.0.1:{port}", "--"]
    argv += [workload.method, str(workload.body_bytes), *paths]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        wrk = subprocess.run(
            argv, capture_output=True, text=True, timeout=seconds + GRACE, check=False
        )
    except subprocess.TimeoutExpired:
        raise LoadError(f"wrk still ran {GRACE} s after its {seconds} s were over") from None
    # The server lives until its measurement ends, so the only child reaped in between is wrk.
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if wrk.returncode != 0:
        raise LoadError(
            f"wrk ended with {wrk.returncode}: {wrk.stderr.strip() or wrk.stdout.strip()}"
        )
    lines = wrk.stdout.splitlines()
    if not lines or not lines[-1].startswith("{"):
        raise LoadError(f"wrk printed no result: {wrk.stdout.strip()}")
    result = json.loads(lines[-1])
    return Load(
        requests=result["requests"],
        received=result["bytes"],
        duration=result["microseconds"] / 1e6,
        p50=result["p50"] / 1e6,
        p99=result["p99"] / 1e6,
        errors={kind: count for kind, count in result["errors"].items() if count},
        cpu=(after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime),
    )
