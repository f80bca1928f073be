"""The results as tables, in reStructuredText or plain text."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from dataclasses import dataclass, field

from bench.measure import Figures

_NONE = "n/a"


@dataclass(frozen=True)
class _Metric:
    key: str
    title: str
    digits: int = 0
    ratio: bool = True


_METRICS = (
    _Metric("writes/s", "Writes per second"),
    _Metric("lines/s", "Lines per second"),
    _Metric("cpu", "CPU per write, microseconds"),
    _Metric("p50", "Latency p50, milliseconds", 2),
    _Metric("p99", "Latency p99, milliseconds", 2),
    _Metric("rss", "Resident memory at the end, MiB", 1, ratio=False),
)
_UDP_METRICS = (
    _Metric("udp rate", "lines/s, the highest rate without loss"),
    _Metric("udp lines/cpu", "lines per CPU second at that rate"),
    _Metric("udp lossy rate", "lines/s, the next rate", ratio=False),
    _Metric("udp loss", "loss there, per cent", 2, ratio=False),
)


@dataclass
class Report:
    """All figures of a run.

    :ivar results: figures by scenario and contender, one for each round.
    """

    facts: list[tuple[str, str]]
    contenders: list[str]
    about: str
    results: dict[str, dict[str, list[Figures]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    troubles: list[str] = field(default_factory=list)

    def show(self, *, rst: bool) -> str:
        """Return everything as text."""
        parts = [self._facts(rst=rst), self.about]
        for metric in _METRICS:
            names = [name for name in self.results if self._shows(metric, name)]
            rows = [[name, *self._cells(name, metric)] for name in names]
            parts.append(self._section(metric.title, "clients x lines", rows, rst=rst))
        rows = [[metric.title, *self._cells("udp", metric)] for metric in _UDP_METRICS if "udp" in self.results]
        parts.append(self._section("UDP to UDP, one line in each datagram", "at", rows, rst=rst))
        if self.troubles:
            bullet = "* " if rst else "  "
            parts.append(_heading("What went wrong", rst=rst) + "\n".join(bullet + line for line in self.troubles))
        return "\n\n".join(part for part in parts if part) + "\n"

    def _shows(self, metric: _Metric, scenario: str) -> bool:
        if metric.key == "lines/s" and re.search(r"\dx1$|\dx1 ", scenario):
            return False  # the same as writes
        return any(metric.key in figures for rounds in self.results[scenario].values() for figures in rounds)

    def _facts(self, *, rst: bool) -> str:
        return "\n".join(f":{key}: {value}" if rst else f"{key}: {value}" for key, value in self.facts)

    def _median(self, scenario: str, contender: str, key: str) -> float | None:
        values = [figures[key] for figures in self.results[scenario].get(contender, ()) if key in figures]
        return statistics.median(values) if values else None

    def _cells(self, scenario: str, metric: _Metric) -> list[str]:
        ours = self._median(scenario, self.contenders[0], metric.key)
        cells = []
        for contender in self.contenders:
            value = self._median(scenario, contender, metric.key)
            cell = _NONE if value is None else f"{value:,.{metric.digits}f}"
            if value is not None and ours and metric.ratio and contender != self.contenders[0]:
                cell += f" ({value / ours:.2f})"
            cells.append(cell)
        return cells

    def _section(self, title: str, corner: str, rows: list[list[str]], *, rst: bool) -> str:
        """Return a table, without the columns of those that took no part; nothing without rows."""
        if not rows:
            return ""
        columns = [list(column) for column in zip([corner, *self.contenders], *rows, strict=True)]
        used = [column for column in columns if any(cell != _NONE for cell in column[1:])]
        return _heading(title, rst=rst) + _table([list(row) for row in zip(*used, strict=True)])


def _heading(title: str, *, rst: bool) -> str:
    return f"{title}\n{'~' * len(title)}\n\n" if rst else f"{title}\n\n"


def _table(rows: list[list[str]]) -> str:
    """Return a table of reStructuredText's simple kind, which reads well as plain text too."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])
