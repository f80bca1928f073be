"""The ratios that the relay is to keep: its own figures divided by those of others in the same run."""

from __future__ import annotations

from dataclasses import dataclass

from bench.report import Report, Role, table
from bench.scenarios import RSS


@dataclass(frozen=True)
class Goal:
    """A figure of ours, or its ratio to a figure of the same row.

    :ivar least: what has to be reached.
    :ivar aim: what is hoped for.
    :ivar more: whether more is better.
    """

    row: str
    key: str
    ours: Role
    theirs: Role | None
    least: float
    aim: float
    more: bool = False

    def title(self, report: Report) -> str:
        """Return what is compared."""
        names = [report.roles.get(role, f"({role})") for role in (self.ours, self.theirs) if role]
        return f"{self.row}: {self.key}, {' / '.join(names)}"

    def value(self, report: Report) -> float | None:
        """Return what was measured, or None if it was not."""
        ours = report.roles.get(self.ours)
        if self.theirs is None:
            return report.median(self.row, ours, self.key) if ours else None
        theirs = report.roles.get(self.theirs)
        if not (ours and theirs):
            return None
        key = _at_common_rate(report, ours, theirs) if self.row == "udp" else self.key
        above, below = (report.median(self.row, name, key) for name in (ours, theirs))
        return above / below if above is not None and below else None

    def verdict(self, value: float | None) -> str:
        """Say how good a value is."""
        if value is None:
            return "not measured"
        sign = -1 if self.more else 1
        if sign * value <= sign * self.aim:
            return "pass, aim reached"
        return "pass" if sign * value <= sign * self.least else "FAIL"


def _at_common_rate(report: Report, *contenders: str) -> str:
    """Return the key of the highest rate that all took without loss in every round."""
    keys = set.intersection(*(report.keys("udp", contender) for contender in contenders))
    rates = [int(key.rpartition(" ")[2]) for key in keys if key.startswith("udp lines/cpu at ")]
    return f"udp lines/cpu at {max(rates, default=0)}"


GOALS = (
    Goal("64x1", "cpu", "relay", "mirror", 1.0, 0.6),
    Goal("64x1", "writes/s", "relay", "mirror", 1.3, 2.0, more=True),
    Goal("16x1", "cpu", "relay", "mirror", 1.3, 0.8),
    Goal("1x1", "p50", "relay", "peer", 1.0, 0.7),
    Goal("64x1000", "cpu", "relay", "mirror", 2.5, 1.8),
    Goal("64x1000 gzip", "cpu", "relay", "earlier", 0.4, 0.3),
    Goal("64x1", "cpu", "journal", "mirror", 1.6, 1.0),
    Goal("1x1", "p50", "journal", "peer", 1.5, 1.0),
    Goal("64x1000 gzip", "cpu", "journal", "relay", 1.4, 1.2),
    Goal("udp", "udp lines/cpu", "relay", "earlier", 1.0, 1.5, more=True),
    Goal(RSS, "rss", "relay", None, 70, 60),
)


def show(report: Report) -> str:
    """Return a table of all goals, and whether they are reached."""
    rows = [["ratio", "at least", "aim", "measured", "verdict"]]
    for goal in GOALS:
        value = goal.value(report)
        sign = ">=" if goal.more else "<="
        measured = "n/a" if value is None else f"{value:.2f}"
        bounds = (f"{sign} {bound:g}" for bound in (goal.least, goal.aim))
        rows.append([goal.title(report), *bounds, measured, goal.verdict(value)])
    return table(rows) + "\n"
