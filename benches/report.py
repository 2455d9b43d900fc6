"""From samples to tables: medians over the rounds, ratios, goals.

A ratio is the median over the rounds of the ratio within a round: the servers of one workload run
seconds apart in a round, on a machine that is then as busy for one as for the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from catalogue import SERVERS, TRANSFER_BYTES, Goal, Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LOAD_BUSY = 0.95
OTHERS_BUSY = 0.10


@dataclass(frozen=True)
class Sample:
    """One server under one workload in one round."""

    mode: str
    workload: str
    server: str
    round: int
    requests_per_second: float = 0.0
    p50: float = 0.0
    """Seconds."""
    p99: float = 0.0
    cpu: float = 0.0
    """Seconds of CPU of the server's process tree per request."""
    memory: int = 0
    """Peak bytes of the server's process tree."""
    growth: int = 0
    """The peak less what the tree held when it had answered one request and was idle."""
    load_busy: float = 0.0
    """CPU of the load tool, in cores; it has one thread."""
    others_busy: float = 0.0
    """CPU of everything on the machine but the server and the load, in cores."""
    problem: str | None = None
    """Why the sample is invalid."""


class Results:
    """The samples of a run, asked by mode, workload and server."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples: dict[tuple[str, str, str], list[Sample]] = {}
        for sample in samples:
            self._samples.setdefault((sample.mode, sample.workload, sample.server), []).append(
                sample
            )

    def of(self, mode: str, workload: str, server: str) -> list[Sample]:
        """In order of rounds."""
        return self._samples.get((mode, workload, server), [])

    def valid(self, mode: str, workload: str, server: str) -> list[Sample]:
        """The samples, or none at all when one of them is invalid."""
        samples = self.of(mode, workload, server)
        return [] if any(sample.problem is not None for sample in samples) else samples

    def ratio(
        self,
        figure: Callable[[Sample], float],
        mode: str,
        workload: str,
        server: str,
        reference: str,
    ) -> float | None:
        """The server's figure divided by the reference's; `None` without valid samples of both."""
        references = {
            sample.round: figure(sample) for sample in self.valid(mode, workload, reference)
        }
        ratios = [
            figure(sample) / references[sample.round]
            for sample in self.valid(mode, workload, server)
            if sample.round in references
        ]
        return median(ratios) if ratios else None

    def invalid(self) -> list[Sample]:
        return [
            sample
            for samples in self._samples.values()
            for sample in samples
            if sample.problem is not None
        ]


@dataclass(frozen=True)
class Figure:
    """A figure of a sample, and how tables show it."""

    name: str
    unit: str
    of: Callable[[Sample], float]
    scale: float = 1.0
    """What one of the sample's unit is in `unit`."""
    digits: int = 0
    over_rounds: Callable[[Iterable[float]], float] = median

    @property
    def heading(self) -> str:
        return f"{self.name} {self.unit}".rstrip()

    def value(self, samples: Iterable[Sample]) -> float:
        """In `unit`."""
        return self.over_rounds(self.of(sample) for sample in samples) * self.scale

    def text(self, value: float) -> str:
        return f"{value:,.{self.digits}f}"


def figures(workload: Workload) -> dict[str, Figure]:
    """The figures of a workload's tables, in the order of the columns."""
    memory = Figure("MiB", "", lambda sample: sample.memory, 2**-20)
    if workload.echo is not None and workload.echo.idle:
        each = 1 / 1024 / workload.connections
        return {
            "rate": Figure("conn/s", "", lambda sample: sample.requests_per_second),
            "cpu": Figure("CPU", "µs", lambda sample: sample.cpu, 1e6, 1),
            "memory": memory,
            "growth": Figure("KiB", "each", lambda sample: sample.growth, each, 1, max),
        }
    if workload.transfer is None:
        name = "req/s" if workload.echo is None else "msg/s"
        rate = Figure(name, "", lambda sample: sample.requests_per_second)
        cpu = Figure("CPU", "µs", lambda sample: sample.cpu, 1e6, 1)
    else:
        mebibytes = TRANSFER_BYTES / 2**20
        rate = Figure("MiB/s", "", lambda sample: sample.requests_per_second, mebibytes)
        cpu = Figure("CPU", "s/GiB", lambda sample: sample.cpu, 1024 / mebibytes, 2)
    return {
        "rate": rate,
        "p50": Figure("p50", "ms", lambda sample: sample.p50, 1e3, 2),
        "p99": Figure("p99", "ms", lambda sample: sample.p99, 1e3, 2),
        "cpu": cpu,
        "memory": memory,
        # The worst round, not the middle one: memory that grows in one of five is not bounded.
        "growth": Figure("growth", "MiB", lambda sample: sample.growth, 2**-20, 1, max),
    }


def compared(workload: Workload) -> tuple[str, ...]:
    """The figures that are divided by those of the references."""
    if workload.echo is not None and workload.echo.idle:
        return ("growth",)
    if any(goal.figure == "p99" for goal in workload.goals):
        return ("rate", "p99", "cpu")
    return ("rate", "cpu")


def render(
    results: Results,
    modes: dict[str, str],
    workloads: list[Workload],
    facts: list[str],
    *,
    markdown: bool,
) -> str:
    """The whole report: facts about the run, a table per mode and workload, goals, invalid results.

    `modes` maps each mode to its title. What was not measured is left out.
    """
    heading = "### {}" if markdown else "\n{}"
    parts = ["\n".join(f"- {fact}" if markdown else fact for fact in facts)]
    for mode, title in modes.items():
        for workload in workloads:
            if not any(results.of(mode, workload.name, server) for server in workload.servers):
                continue
            rows = _workload_table(results, mode, workload, markdown=markdown)
            parts += [heading.format(f"{workload.title} ({title})"), rows]
    goals = _goal_rows(results, modes, workloads)
    if goals:
        header = ["workload", "mode", "figure", "Twinspan", "goal", "reached"]
        rows = _table(header, goals, left={0, 1, 2, 5}, markdown=markdown)
        parts += [heading.format("Goals"), rows]
    invalid = [
        f"- {sample.workload}, {sample.server}, {sample.mode}, round {sample.round + 1}: "
        f"{sample.problem}"
        for sample in results.invalid()
    ]
    if invalid:
        parts += [heading.format("INVALID RESULTS"), "\n".join(invalid)]
    return ("\n\n" if markdown else "\n").join(parts) + "\n"


def _workload_table(results: Results, mode: str, workload: Workload, *, markdown: bool) -> str:
    def measured(server: str) -> bool:
        return bool(results.of(mode, workload.name, server))

    references = list(filter(measured, workload.references))
    columns = figures(workload)
    header = ["server", *(figure.heading for figure in columns.values())]
    header.insert(2, "spread")
    for reference in references:
        header += [f"{columns[name].name} / {reference}" for name in compared(workload)]
    header.append("remarks")
    rows: list[list[str]] = []
    for server in filter(measured, workload.servers):
        samples = results.valid(mode, workload.name, server)
        if not samples:
            rows.append([SERVERS[server].title, *["-"] * (len(header) - 2), "INVALID, see below"])
            continue
        row = [figure.text(figure.value(samples)) for figure in columns.values()]
        row.insert(1, _spread([sample.requests_per_second for sample in samples]))
        for reference in references:
            for name in compared(workload):
                servers = (mode, workload.name, server, reference)
                ratio = results.ratio(columns[name].of, *servers)
                row.append("-" if ratio is None else f"{ratio:.2f}")
        rows.append([SERVERS[server].title, *row, _remarks(samples)])
    return _table(header, rows, left={0, len(header) - 1}, markdown=markdown)


def _spread(rates: list[float]) -> str:
    return f"±{(max(rates) - min(rates)) / 2 / median(rates):.0%}"


def _remarks(samples: list[Sample]) -> str:
    remarks: list[str] = []
    if median(sample.load_busy for sample in samples) >= LOAD_BUSY:
        remarks.append("load tool at its limit: at least this fast")
    others = median(sample.others_busy for sample in samples)
    if others >= OTHERS_BUSY:
        remarks.append(f"others used {others:.0%} of a core")
    return "; ".join(remarks)


def _goal_rows(
    results: Results, modes: Iterable[str], workloads: list[Workload]
) -> list[list[str]]:
    rows: list[list[str]] = []
    for workload in workloads:
        for goal in workload.goals:
            for mode in modes:
                row = _goal_row(results, mode, workload, goal)
                if row is not None:
                    rows.append(row)
    return rows


def _goal_row(results: Results, mode: str, workload: Workload, goal: Goal) -> list[str] | None:
    """`None` without valid samples of Twinspan, and of the rival where there is one."""
    figure = figures(workload)[goal.figure]
    if goal.rival is None:
        samples = results.valid(mode, workload.name, "twinspan")
        value = figure.value(samples) if samples else None
        name, limit, text = figure.heading, goal.limit * figure.scale, figure.text
    else:
        value = results.ratio(figure.of, mode, workload.name, "twinspan", goal.rival)
        name, limit, text = f"{figure.name} / {goal.rival}", goal.limit, "{:.2f}".format
    if value is None:
        return None
    if goal.figure == "rate":
        bound, reached = "≥", value >= limit
    else:
        bound, reached = "≤", value <= limit
    verdict = "yes" if reached else "no"
    return [workload.title, mode, name, text(value), f"{bound} {text(limit)}", verdict]


def _table(header: list[str], rows: list[list[str]], *, left: set[int], markdown: bool) -> str:
    """Columns in `left` hold words, the others figures."""
    if markdown:
        rule = ["---" if column in left else "---:" for column in range(len(header))]
        return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    )
