"""Compares Twinspan with other Python servers, all in one run (`make bench ARGS="--help"`).

Every round measures every workload on every server, and the order of the servers rotates from round
to round, so that a machine that gets slower or busier does so for all of them. A server is started
anew for each measurement, answers each request of the workload once to be checked, gets a second of
load to warm up, and is then measured. Large bodies are counted instead of timed: one transfer per
connection to warm up, and then as many as other loads last seconds. WebSockets that are idle are
weighed, when a few others have come and gone; each is used before and after. Pinned means that the
server has one core and the load another; unpinned leaves both to the kernel.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import load
import probe
import report
import transfer
import websockets_load
from catalogue import APPS, FRAMEWORKS, SERVERS, WORKLOADS, Server, Workload
from process import ServerError, affinity, free_port, machine_cpu, serve
from report import Results, Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Item = TypeVar("Item")

WARM_UP = 1
# What a measurement takes beside the load: start, check, stop. Only for the estimate.
OVERHEAD = 1.5


def main() -> int:
    options = _options()
    workloads, servers = _plan(options)
    _check_tools(servers, options.modes)
    workloads = [_within_file_limit(workload) for workload in workloads]
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    each = sum(len(_serving(servers, workload)) for workload in workloads)
    count = each * options.rounds * len(options.modes)
    minutes = count * (WARM_UP + options.duration + OVERHEAD) / 60
    print(
        f"{count} measurements of {options.duration} s ({len(workloads)} workloads, "
        f"{options.rounds} rounds, {' and '.join(options.modes)}): about {minutes:.0f} minutes",
        flush=True,
    )
    samples: list[Sample] = []
    facts = _facts(servers, options)
    try:
        for round_ in range(options.rounds):
            for mode in options.modes:
                for workload in workloads:
                    for server in _rotated(_serving(servers, workload), round_):
                        sample = measure(workload, server, mode, round_, options.duration)
                        _announce(workload, sample)
                        samples.append(sample)
    except KeyboardInterrupt:
        facts.append("INTERRUPTED: not every server has every round")

    results = Results(samples)
    titles = {mode: _mode_title(mode) for mode in options.modes}
    if options.json is not None:
        _write_json(options.json, facts, samples)
    text = report.render(results, titles, workloads, facts, markdown=options.markdown is not None)
    if options.markdown in (None, "-"):
        print(text)
    else:
        Path(options.markdown).write_text(text)
    invalid = len(results.invalid())
    if invalid:
        print(f"error: {invalid} invalid results, see the end of the report", file=sys.stderr)
    return 1 if invalid or len(samples) < count else 0


def measure(workload: Workload, server: Server, mode: str, round_: int, seconds: int) -> Sample:
    """One measurement; what goes wrong in it makes the sample invalid, and the run goes on."""
    blank = Sample(mode, workload.name, server.name, round_)
    with tempfile.TemporaryDirectory(prefix="twinspan-bench-") as directory:
        log = Path(directory) / "server.log"
        try:
            return _measured(blank, workload, server, seconds, log)
        except (ServerError, load.LoadError, probe.WrongAnswerError) as error:
            return dataclasses.replace(blank, problem=f"{error}{_log_end(log)}")


def _measured(blank: Sample, workload: Workload, server: Server, seconds: int, log: Path) -> Sample:
    """`blank` with its figures."""
    server_cpus, load_cpus = _cores(blank.mode)
    port = free_port()
    with serve(server.command(workload, port), port, server_cpus, APPS, log) as process:
        process.wait_until_listening()
        sizes = probe.response_sizes(workload, port)
        idle = process.memory()
        with affinity(load_cpus):
            _load(workload, port, WARM_UP)
            process.ensure_alive()
            cpu, everything = process.cpu(), machine_cpu()
            if workload.echo is not None and workload.echo.idle:
                idle = process.resident()
                with websockets_load.idle(workload.echo, port, workload.connections) as result:
                    cpu, everything = process.cpu() - cpu, machine_cpu() - everything
                    memory = process.resident()
            else:
                result = _load(workload, port, seconds)
                cpu, everything = process.cpu() - cpu, machine_cpu() - everything
                memory = process.memory()
        process.ensure_alive()
    if workload.answers and workload.transfer is None:
        _ensure_right(workload, result, sizes)
    return dataclasses.replace(
        blank,
        requests_per_second=result.requests / result.duration,
        p50=result.p50,
        p99=result.p99,
        cpu=cpu / result.requests,
        memory=memory,
        growth=memory - idle,
        load_busy=result.cpu / result.duration,
        others_busy=max(0.0, everything - cpu - result.cpu) / result.duration,
    )


def _load(workload: Workload, port: int, seconds: int) -> load.Load:
    """The workload's load: requests or messages for `seconds`, or as many transfers on each
    connection; before idle connections, messages on some.
    """
    if workload.echo is not None:
        connections = min(workload.connections, websockets_load.BATCH)
        return websockets_load.run(workload.echo, port, connections, seconds)
    if workload.transfer is None:
        return load.run(workload, port, seconds)
    return transfer.run(workload.transfer, port, workload.connections, seconds)


def _ensure_right(workload: Workload, result: load.Load, sizes: list[int]) -> None:
    """Raises `WrongAnswerError` when the load got something else than the checked responses."""
    if result.errors or result.requests == 0:
        errors = ", ".join(f"{count} {kind} errors" for kind, count in result.errors.items())
        raise probe.WrongAnswerError(f"{errors or 'no answer'} in {result.requests} requests")
    # wrk counts no status below 400, but a redirect or a short body shows in the bytes.
    expected = sum(sizes) / len(sizes)
    received = result.received / result.requests
    unfinished = workload.connections * max(sizes) / result.requests
    if abs(received - expected) > 0.01 * expected + unfinished:
        raise probe.WrongAnswerError(
            f"{received:.0f} bytes per response, {expected:.0f} when it was checked"
        )


def _log_end(log: Path) -> str:
    """The last lines of a server's log, to stand below a problem."""
    lines = log.read_text(errors="replace").splitlines()[-12:]
    return "".join(f"\n    | {line}" for line in lines)


def _cores(mode: str) -> tuple[set[int], set[int]]:
    """The cores of the server and of the load."""
    available = sorted(os.sched_getaffinity(0))
    if mode == "pinned":
        return {available[0]}, {available[1]}
    return set(available), set(available)


def _mode_title(mode: str) -> str:
    server, loader = _cores(mode)
    if mode == "pinned":
        return f"pinned: server on core {min(server)}, load on core {min(loader)}"
    return f"unpinned: server and load share {len(server)} cores"


def _plan(options: Options) -> tuple[list[Workload], list[Server]]:
    """The workloads and servers to measure, without those that the others leave nothing to do."""
    workloads = _chosen(options.only, WORKLOADS, "--only")
    servers = _chosen(options.servers, SERVERS, "--servers")
    workloads = [workload for workload in workloads if _serving(servers, workload)]
    servers = [
        server
        for server in servers
        if any(server.name in workload.servers for workload in workloads)
    ]
    if not servers:
        _fail(
            "no server of --servers takes part in a workload of --only", "see benches/catalogue.py"
        )
    return workloads, servers


def _within_file_limit(workload: Workload) -> Workload:
    """The workload, with fewer connections where this machine allows no more, which is said."""
    most = websockets_load.raise_file_limit()
    if workload.connections <= most:
        return workload
    print(f"note: {workload.name} has {most} connections: `ulimit -Hn` allows no more", flush=True)
    return dataclasses.replace(
        workload,
        title=f"{workload.title} (only {most}: the limit of open files)",
        connections=most,
    )


def _serving(servers: list[Server], workload: Workload) -> list[Server]:
    return [server for server in servers if server.name in workload.servers]


def _rotated(servers: list[Server], by: int) -> list[Server]:
    start = by % len(servers)
    return servers[start:] + servers[:start]


def _announce(workload: Workload, sample: Sample) -> None:
    what = f"round {sample.round + 1}  {sample.mode:8}  {sample.workload:13}  {sample.server:12}"
    if sample.problem is not None:
        print(f"{what}  INVALID: {sample.problem}", flush=True)
        return
    figures = report.figures(workload).values()
    row = (f"{figure.heading} {figure.text(figure.value([sample])):>7}" for figure in figures)
    print(what, *row, sep="  ", flush=True)


def _facts(servers: list[Server], options: Options) -> list[str]:
    """Where and how the run was made, one line each."""
    distributions = dict.fromkeys(name for server in servers for name in server.distributions)
    versions = [
        f"{name} {importlib.metadata.version(name)}" for name in (*distributions, *FRAMEWORKS)
    ]
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.+)$", cpuinfo, re.MULTILINE)
    machine = [
        str(dt.datetime.now(dt.timezone.utc).date()),
        f"{model[1] if model else platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        f"Linux {platform.release()}",
        f"Python {platform.python_version()}",
    ]
    method = (
        f"medians of {options.rounds} rounds of {options.duration} s each (100 MiB transfers: "
        f"{options.duration} per connection), servers interleaved, one worker each, "
        "access logs off where nothing else is said"
    )
    columns = (
        "spread: half of the distance between the slowest and the fastest round; "
        "CPU: per request or GiB, of the whole process tree; MiB: peak memory of the tree; "
        "growth: that peak less what the tree held before the load, in the worst round; "
        "KiB each: what the tree holds with idle connections less what it held before, for each; "
        "req/s / X, CPU / X: the figure divided by that of X"
    )
    return ["; ".join(machine), ", ".join(versions), method, columns]


def _write_json(path: Path, facts: list[str], samples: list[Sample]) -> None:
    document = {"facts": facts, "samples": [dataclasses.asdict(sample) for sample in samples]}
    path.write_text(json.dumps(document, indent=1) + "\n")


def _check_tools(servers: Iterable[Server], modes: list[str]) -> None:
    """Ends the program when something is missing that the run needs."""
    if not Path("/proc/self/smaps_rollup").exists():
        _fail(
            "no /proc/self/smaps_rollup",
            "the benchmarks measure process trees through /proc: run them on Linux",
        )
    if shutil.which("wrk") is None:
        _fail("wrk is not on PATH", "Debian has it as the package `wrk`: apt-get install wrk")
    if "pinned" in modes and len(os.sched_getaffinity(0)) < 2:
        _fail("one core is not enough to keep server and load apart", "use --unpinned")
    needed = {name for server in servers for name in server.distributions}.union(FRAMEWORKS)
    missing = sorted(name for name in needed if not _installed(name))
    if missing:
        _fail(
            f"not installed beside {sys.executable}: {', '.join(missing)}",
            "`make bench` installs everything; --servers leaves servers out",
        )


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _fail(problem: str, hint: str) -> NoReturn:
    print(f"error: {problem}\nhint: {hint}", file=sys.stderr)
    sys.exit(2)


def _chosen(names: str | None, known: Mapping[str, Item], option: str) -> list[Item]:
    """What a comma-separated option names, in the catalogue's order; everything without it."""
    wanted = list(known) if names is None else names.split(",")
    unknown = [name for name in wanted if name not in known]
    if unknown:
        _fail(f"{option}: unknown {', '.join(map(repr, unknown))}", f"known are {', '.join(known)}")
    return [item for name, item in known.items() if name in wanted]


class Options(argparse.Namespace):
    only: str | None
    servers: str | None
    rounds: int
    duration: int
    modes: list[str]
    json: Path | None
    markdown: str | None


def _options() -> Options:
    parser = argparse.ArgumentParser(
        description="Compares Twinspan with other Python servers in one interleaved run.",
        epilog=f"Workloads: {', '.join(WORKLOADS)}. Servers: {', '.join(SERVERS)}.",
    )
    add = parser.add_argument
    add("--only", metavar="WORKLOAD,...", help="only these workloads (default: all)")
    add("--servers", metavar="SERVER,...", help="only these servers (default: all)")
    add("--rounds", type=_positive, default=5, metavar="N", help="take medians of N (default: 5)")
    of_load = "of load, and transfers of 100 MiB per connection (default: 3)"
    add("--duration", type=_positive, default=3, metavar="SECONDS", help=of_load)
    modes = parser.add_mutually_exclusive_group()
    for flag, chosen, text in (
        ("--pinned", ["pinned"], "server on one core, load on another"),
        ("--unpinned", ["unpinned"], "server and load on all cores"),
        ("--both", ["pinned", "unpinned"], "in each round first pinned, then unpinned (default)"),
    ):
        modes.add_argument(flag, dest="modes", action="store_const", const=chosen, help=text)
    parser.set_defaults(modes=["pinned", "unpinned"])
    add("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    markdown = "report as Markdown, to FILE where one is given"
    add("--markdown", nargs="?", const="-", metavar="FILE", help=markdown)
    return parser.parse_args(namespace=Options())


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
