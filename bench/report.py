"""The results of a run: their medians, as tables, and as a file."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Self

from bench.measure import COMMON_RATE, Figures
from bench.scenarios import RSS

_NONE = "n/a"

Role = Literal["relay", "journal", "mirror", "peer", "earlier"]


@dataclass(frozen=True)
class _Metric:
    key: str
    title: str
    digits: int = 0
    ratio: bool = True


_METRICS = (
    _Metric("writes/s", "Writes per second"),
    _Metric("cpu", "CPU per write, microseconds"),
    _Metric("p50", "Latency p50, milliseconds", 2),
    _Metric("p99", "Latency p99, milliseconds", 2),
    _Metric("rss", "Resident memory at the end, MiB", 1, ratio=False),
    _Metric("busy", "Cores in use", 2, ratio=False),
)
_UDP_METRICS = (
    _Metric("udp rate", "lines/s, the highest rate without loss"),
    _Metric("udp lines/cpu", "lines per CPU second at that rate"),
    _Metric(f"udp lines/cpu at {COMMON_RATE}", f"lines per CPU second at {COMMON_RATE:,} lines/s"),
    _Metric("udp lossy rate", "lines/s, the next rate", ratio=False),
    _Metric("udp loss", "loss there, per cent", 2, ratio=False),
)


@dataclass
class Report:
    """All figures of a run.

    :ivar facts: what was measured, on what.
    :ivar contenders: their names, ours first.
    :ivar roles: who is who among them: "peer" is the first other relay, "earlier" the first other checkout.
    :ivar results: figures by scenario and contender, one for each round.
    :ivar troubles: what went wrong.
    """

    facts: dict[str, str]
    contenders: list[str]
    roles: dict[Role, str]
    results: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read what :meth:`save` has written."""
        return cls(**json.loads(file.read_text()))

    def save(self, file: Path) -> None:
        """Write everything to a file."""
        file.write_text(json.dumps(asdict(self), indent=1) + "\n")

    def add(self, scenario: str, contender: str, figures: Figures) -> None:
        """Add a round's figures."""
        kept = {key: figures[key] for key in ("rss", "others")} if scenario == RSS and figures else figures
        self.results.setdefault(scenario, {}).setdefault(contender, []).append(kept)

    def median(self, scenario: str, contender: str, key: str) -> float | None:
        """Return the median of a figure over the rounds, or None if there is none."""
        rounds = self.results.get(scenario, {}).get(contender, ())
        values = [figures[key] for figures in rounds if key in figures]
        return statistics.median(values) if values else None

    def keys(self, scenario: str, contender: str) -> set[str]:
        """Return the figures that every round has."""
        rounds = self.results.get(scenario, {}).get(contender, ())
        return set.intersection(*map(set, rounds)) if rounds else set()

    def disturbance(self) -> float:
        """Return how many cores processes other than ours kept busy, at the worst."""
        rounds = (each for row in self.results.values() for cell in row.values() for each in cell)
        return max((figures.get("others", 0) for figures in rounds), default=0)

    def show(self, *, rst: bool) -> str:
        """Return everything as text."""
        facts = {**self.facts, "Other processes": f"{self.disturbance():.2f} cores in the worst measurement"}
        parts = ["\n".join(f":{key}: {value}" if rst else f"{key}: {value}" for key, value in facts.items())]
        parts.append("In parentheses: the figure divided by that of the first column.")
        for metric in _METRICS:
            names = [name for name in self.results if self._has(metric, name)]
            rows = [[name, *self._cells(name, metric)] for name in names]
            parts.append(self._section(metric.title, "clients x lines", rows, rst=rst))
        rows = [[metric.title, *self._cells("udp", metric)] for metric in _UDP_METRICS if "udp" in self.results]
        parts.append(self._section("UDP to UDP, one line in each datagram", "at", rows, rst=rst))
        if self.troubles:
            bullet = "* " if rst else "  "
            parts.append(_heading("What went wrong", rst=rst) + "\n".join(bullet + line for line in self.troubles))
        return "\n\n".join(part for part in parts if part) + "\n"

    def _has(self, metric: _Metric, scenario: str) -> bool:
        return any(self.median(scenario, contender, metric.key) is not None for contender in self.contenders)

    def _cells(self, scenario: str, metric: _Metric) -> list[str]:
        ours = self.median(scenario, self.contenders[0], metric.key)
        cells = []
        for contender in self.contenders:
            value = self.median(scenario, contender, metric.key)
            cell = _NONE if value is None else f"{value:,.{metric.digits}f}"
            if value is not None and ours and metric.ratio and contender != self.contenders[0]:
                cell += f" ({value / ours:.2f})"
            cells.append(cell)
        return cells

    def _section(self, title: str, corner: str, rows: list[list[str]], *, rst: bool) -> str:
        """Return a table without the columns of those that took no part; nothing without rows."""
        if not rows:
            return ""
        columns = [list(column) for column in zip([corner, *self.contenders], *rows, strict=True)]
        used = [column for column in columns if any(cell != _NONE for cell in column[1:])]
        return _heading(title, rst=rst) + table([list(row) for row in zip(*used, strict=True)])


def _heading(title: str, *, rst: bool) -> str:
    return f"{title}\n{'~' * len(title)}\n\n" if rst else f"{title}\n\n"


def table(rows: list[list[str]]) -> str:
    """Return a table of reStructuredText's simple kind, which reads well as plain text too."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])
