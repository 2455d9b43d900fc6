"""The Autobahn test suite against an echo application (`make conformance ARGS="--help"`).

The suite runs on Python 2.7 alone, so it is installed beside the environment, in target/autobahn,
for whichever Python 2.7 or PyPy 2.7 is found. Its client tries one case after the other, most of
the time waiting or computing in Python, so several clients run at a time, each with a few cases
before the next takes its place. A case fails here when
the suite says so, when the connection did not close as the specification wants, when the server
lacks what the case tests, and when the suite has no word about it.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import fnmatch
import functools
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twinspan.testing import Server

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

VERSION = "25.10.1"
ROOT = Path(__file__).parents[4]
SUITE = ROOT / "target" / "autobahn" / VERSION
REPORTS = ROOT / "target" / "autobahn" / "reports"
PAGE = ROOT / "docs" / "conformance.md"
BEGIN, END = "<!-- autobahn: begin -->\n", "<!-- autobahn: end -->\n"

SECTIONS = {
    1: "Framing",
    2: "Pings and pongs",
    3: "Reserved bits",
    4: "Opcodes",
    5: "Fragmentation",
    6: "UTF-8",
    7: "Closing",
    9: "Limits and performance",
    10: "Automatic fragmentation",
    12: "Compression: payloads",
    13: "Compression: parameters",
}

SAMPLE = (
    "1.*",
    "2.*",
    "3.*",
    "4.*",
    "5.*",
    "6.*",
    "7.*",
    "10.*",
    "12.*.1",
    "13.*.1",
    "12.[13].6",
    "13.[257].6",
)
"""What shows in a few seconds that nothing has broken."""

CLIENTS = max(2, min(8, os.cpu_count() or 2))
"""Run side by side. More would keep each other waiting, and a case with compression has 60 s."""

SHARE = 16
"""Cases for one client, which says what became of them when it has tried them all."""

TIME_LIMIT = 30 * 60
"""Seconds for all cases, after which those that are left count as not run."""

# The packages of the suite have namespaces that only a site directory makes whole.
_ENTER = "import site, sys; site.addsitedir(sys.argv.pop(1)); "
_LIST = _ENTER + (
    "from autobahntestsuite.case import Cases; "
    "print('\\n'.join(case.__name__[4:].replace('_', '.') for case in Cases))"
)
_CLIENT = _ENTER + "from autobahntestsuite import wstest; wstest.run()"

Message = MutableMapping[str, Any]


class AutobahnError(Exception):
    """The suite cannot be run here; the text says why, and the way out."""


class MissingPythonError(AutobahnError):
    """There is no Python that the suite runs on."""


@dataclass(frozen=True)
class Result:
    """What the suite says about one case."""

    case: str
    behavior: str
    closing: str
    report: Path | None = None

    @property
    def section(self) -> int:
        return int(self.case.partition(".")[0])

    @property
    def problem(self) -> str | None:
        """What is wrong, in a few words."""
        if self.behavior not in {"OK", "NON-STRICT", "INFORMATIONAL"}:
            return self.behavior
        if self.closing not in {"OK", "INFORMATIONAL"}:
            return f"closing: {self.closing}"
        return None


async def echo(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Sends every message back."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


def python2() -> str:
    """A Python 2.7 with pip.

    Raises `MissingPythonError` where there is none.
    """
    names = ("python2.7", "python2", "pypy2.7", "pypy2", "pypy")
    of_pyenv = Path.home() / ".pyenv" / "versions"
    versions = (*of_pyenv.glob("2.7.*/bin/python"), *of_pyenv.glob("pypy2.7-*/bin/pypy"))
    for candidate in (*filter(None, map(shutil.which, names)), *map(str, versions)):
        # pyenv puts commands on PATH that only print an error.
        check = "import pip, sys; sys.exit(sys.version_info[:2] != (2, 7))"
        if subprocess.run([candidate, "-c", check], capture_output=True, check=False).returncode:
            continue
        return candidate
    raise MissingPythonError(
        "no Python 2.7 with pip, the only one that the Autobahn test suite runs on "
        f"(looked for {', '.join(names)} and in ~/.pyenv/versions); "
        "`pyenv install 2.7.18` or `pyenv install pypy2.7-7.3.17` brings one"
    )


@functools.cache
def install() -> str:
    """Installs the suite, if it is not there yet; returns the Python 2.7 to run it with.

    Raises `AutobahnError` where that does not work.
    """
    python = python2()
    stamp = SUITE / "python"
    if stamp.exists() and stamp.read_text() == python:
        return python
    shutil.rmtree(SUITE, ignore_errors=True)
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
    installed = subprocess.run(
        [*pip, "--target", str(SUITE), f"autobahntestsuite=={VERSION}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if installed.returncode:
        raise AutobahnError(f"{python} cannot install the suite:\n{installed.stdout.strip()}")
    stamp.write_text(python)
    return python


def chosen(patterns: Sequence[str], excluded: Sequence[str] = ()) -> list[str]:
    """The cases that match one of `patterns` and none of `excluded`, in the suite's order."""
    listed = subprocess.run(
        [install(), "-c", _LIST, str(SUITE)], capture_output=True, text=True, check=True
    )

    def matches(case: str, wanted: Sequence[str]) -> bool:
        return any(fnmatch.fnmatchcase(case, pattern) for pattern in wanted)

    return [
        case
        for case in listed.stdout.split()
        if matches(case, patterns) and not matches(case, excluded)
    ]


def run(cases: Sequence[str], address: str, reports: Path) -> list[Result]:
    """Tries `cases` on the server at `address`; the suite's own report is left in `reports`."""
    shutil.rmtree(reports, ignore_errors=True)
    deadline = time.monotonic() + TIME_LIMIT
    # Neighbours are much alike, also in how long they take.
    count = -(-len(cases) // SHARE)
    shares = [cases[first::count] for first in range(count)]
    with ThreadPoolExecutor(CLIENTS) as clients:
        runs = [
            clients.submit(_run_share, share, address, reports / str(number), deadline)
            for number, share in enumerate(shares)
        ]
    results = {result.case: result for run in runs for result in run.result()}
    return [results.get(case, Result(case, "not run", "")) for case in cases]


def _run_share(
    cases: Sequence[str], address: str, directory: Path, deadline: float
) -> Iterable[Result]:
    directory.mkdir(parents=True)
    specification = directory / "specification.json"
    servers = [{"agent": "twinspan", "url": f"ws://{address}"}]
    asked = {"outdir": str(directory), "servers": servers, "cases": cases}
    specification.write_text(json.dumps(asked))
    mode = ("--mode", "fuzzingclient", "--spec", str(specification))
    with (
        (directory / "client.log").open("wb") as log,
        contextlib.suppress(subprocess.TimeoutExpired),
    ):
        subprocess.run(
            [install(), "-c", _CLIENT, str(SUITE), *mode],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=max(0, deadline - time.monotonic()),
            check=False,
        )
    try:
        index = json.loads((directory / "index.json").read_text())
    except FileNotFoundError:
        return []
    return [
        Result(case, said["behavior"], said["behaviorClose"], directory / said["reportfile"])
        for case, said in index.get("twinspan", {}).items()
    ]


def table(results: Sequence[Result]) -> list[list[str]]:
    """A row of counts for each section, and one for all; the first row names the columns."""
    counted = ("OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "FAILED")

    def row(name: str, of: Sequence[Result]) -> list[str]:
        behaviors = [result.behavior for result in of]
        counts = [behaviors.count(behavior) for behavior in counted]
        counts[-1] = len(of) - sum(counts[:-1])
        unclean = sum(result.closing not in {"OK", "INFORMATIONAL"} for result in of)
        return [name, *map(str, (len(of), *counts, unclean))]

    sections = dict.fromkeys(result.section for result in results)
    return [
        ["section", "cases", *(name.lower() for name in counted), "unclean closes"],
        *(
            row(f"{section} {SECTIONS[section]}", [r for r in results if r.section == section])
            for section in sections
        ),
        row("all", results),
    ]


def as_text(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if position else cell.ljust(width)
            for position, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))


def problems(results: Iterable[Result]) -> str:
    """What is wrong with each case that did not pass, and what the suite expected."""
    return "\n".join(filter(None, map(_problem, results)))


def _problem(result: Result) -> str | None:
    if result.problem is None:
        return None
    lines = [f"{result.case}: {result.problem}"]
    if result.report is not None:
        told = json.loads(result.report.read_text())
        lines += [
            f"    case: {_plain(told['description'])}",
            f"    expected: {_plain(told['expectation'])}",
            f"    result: {_plain(told['result'])}; closing: {_plain(told['resultClose'])}",
            f"    report: {result.report.with_suffix('.html')}",
        ]
    return "\n".join(lines)


def _plain(text: str) -> str:
    return " ".join(text.replace("<br>", " ").split())


def _write_page(results: Sequence[Result]) -> None:
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    _, after = rest.split(END)
    facts = (
        f"Autobahn|Testsuite {VERSION}; twinspan {importlib.metadata.version('twinspan')}, "
        f"Python {platform.python_version()}, {platform.system()}; "
        f"{dt.datetime.now(dt.timezone.utc).date()}"
    )
    tried = f"{BEGIN}{facts}\n\n{as_markdown(table(results))}\n{END}"
    PAGE.write_text(before + tried + after, "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs the Autobahn test suite against Twinspan.")
    add = parser.add_argument
    patterns: dict[str, Any] = {"metavar": "CASE,...", "type": lambda text: text.split(",")}
    add("--cases", default=["*"], help="only these, `*` and `?` and `[12]` allowed", **patterns)
    add("--exclude", default=[], help="all but these", **patterns)
    add("--write-docs", action="store_true", help=f"put the table into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    try:
        cases = chosen(options.cases, options.exclude)
    except AutobahnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not cases:
        print("error: no case has such a number", file=sys.stderr)
        return 2
    print(f"{len(cases)} cases; the suite's own reports: {REPORTS}", flush=True)
    started = time.monotonic()
    with Server(echo) as server:
        results = run(cases, server.address, REPORTS)
    print(as_text(table(results)))
    print(f"{time.monotonic() - started:.0f} s")
    if found := problems(results):
        print(f"\n{found}", file=sys.stderr)
    if options.write_docs:
        _write_page(results)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
