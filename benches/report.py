"""From samples to tables: medians over the rounds, ratios, goals.

A ratio is the median over the rounds of the ratio within a round: the servers of one workload run
seconds apart in a round, on a machine that is then as busy for one as for the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from catalogue import SERVERS, Workload

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


def throughput(sample: Sample) -> float:
    return sample.requests_per_second


def cpu(sample: Sample) -> float:
    return sample.cpu


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
        header = ["workload", "mode", "rival", "req/s", "goal", "CPU", "goal", "reached"]
        rows = _table(header, goals, left={0, 1, 2}, markdown=markdown)
        parts += [heading.format("Goals: Twinspan's figure divided by the rival's"), rows]
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
    header = ["server", "req/s", "spread", "p50 ms", "p99 ms", "CPU µs", "MiB"]
    for reference in references:
        header += [f"req/s / {reference}", f"CPU / {reference}"]
    header.append("remarks")
    rows: list[list[str]] = []
    for server in filter(measured, workload.servers):
        samples = results.valid(mode, workload.name, server)
        if not samples:
            rows.append([SERVERS[server].title, *["-"] * (len(header) - 2), "INVALID, see below"])
            continue
        row = [SERVERS[server].title, *_figures(samples)]
        for reference in references:
            servers = (mode, workload.name, server, reference)
            row.append(_ratio(results.ratio(throughput, *servers)))
            row.append(_ratio(results.ratio(cpu, *servers)))
        rows.append([*row, _remarks(samples)])
    return _table(header, rows, left={0, len(header) - 1}, markdown=markdown)


def _figures(samples: list[Sample]) -> list[str]:
    rates = [sample.requests_per_second for sample in samples]
    return [
        f"{median(rates):,.0f}",
        f"±{(max(rates) - min(rates)) / 2 / median(rates):.0%}",
        f"{median(sample.p50 for sample in samples) * 1e3:.2f}",
        f"{median(sample.p99 for sample in samples) * 1e3:.2f}",
        f"{median(sample.cpu for sample in samples) * 1e6:.1f}",
        f"{median(sample.memory for sample in samples) / 2**20:.0f}",
    ]


def _remarks(samples: list[Sample]) -> str:
    remarks: list[str] = []
    if median(sample.load_busy for sample in samples) >= LOAD_BUSY:
        remarks.append("load tool at its limit: at least this many req/s")
    others = median(sample.others_busy for sample in samples)
    if others >= OTHERS_BUSY:
        remarks.append(f"others used {others:.0%} of a core")
    return "; ".join(remarks)


def _goal_rows(
    results: Results, modes: Iterable[str], workloads: list[Workload]
) -> list[list[str]]:
    rows: list[list[str]] = []
    for workload in workloads:
        for reference, goal in workload.goals.items():
            for mode in modes:
                servers = (mode, workload.name, "twinspan", reference)
                rate = results.ratio(throughput, *servers)
                spent = results.ratio(cpu, *servers)
                if rate is None or spent is None:
                    continue
                reached = rate >= goal.throughput and spent <= goal.cpu
                row = [workload.title, mode, SERVERS[reference].title]
                row += [_ratio(rate), f"≥ {goal.throughput:.2f}"]
                row += [_ratio(spent), f"≤ {goal.cpu:.2f}"]
                rows.append([*row, "yes" if reached else "no"])
    return rows


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


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
