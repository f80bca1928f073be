"""What is told of servers that differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from influxrelay.core.text import iso_nanoseconds, printable
from influxrelay.verification.points import SCHEMA, Run, joined
from influxrelay.verification.statements import Measurement


@attrs.frozen(kw_only=True)
class Difference:
    """A way in which servers differ, and where.

    :ivar policy: empty where a database is missing, and ``measurement`` where a database or a retention policy is.
    :ivar since: nanoseconds since 1970; ``until`` is exclusive. None for a whole database or retention policy.
    :ivar kind: ``missing``, ``value`` or ``schema``.
    :ivar backends: the one that lacks something, or two that have different values.
    :ivar message: what differs in the schema.
    """

    database: str = attrs.field(kw_only=False)
    policy: str = attrs.field(default="", kw_only=False)
    measurement: str = ""
    since: int | None = None
    until: int | None = None
    kind: str
    backends: tuple[str, ...]
    points: int = 0
    message: str = ""

    def show(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        shown: dict[str, Any] = {
            "database": self.database,
            "retention_policy": self.policy,
            "measurement": printable(self.measurement),
            "since": None if self.since is None else iso_nanoseconds(self.since),
            "until": None if self.until is None else iso_nanoseconds(self.until),
            "kind": self.kind,
        }
        shown |= {"backend": self.backends[0]} if len(self.backends) == 1 else {"backends": list(self.backends)}
        shown["points"] = self.points
        return {**shown, "message": printable(self.message)} if self.kind == SCHEMA else shown


Mark = tuple[int, int]
"""How much a ledger has: the number of runs, and of pieces."""


@attrs.define
class Ledger:
    """The ranges in which the points of one measurement differ.

    Points are read in pieces, from the earliest on. A range that reaches the end of a piece goes on in the next one.
    """

    _runs: list[tuple[int, Run]] = attrs.field(factory=list)
    _piece: int = 0
    _is_sample: bool = False
    _told: Mark = (0, 0)

    def add(self, runs: list[Run]) -> None:
        """Take what differs in the next piece."""
        self._piece += 1
        self._runs += [(self._piece, run) for run in runs if not (self._is_sample and self._is_known(run))]

    def skip(self) -> None:
        """Take note that there are points between the last piece and the next one."""
        self._piece += 1

    def mark(self) -> Mark:
        """Return how much it has."""
        return len(self._runs), self._piece

    def rewind(self, mark: Mark) -> None:
        """Forget what has come since."""
        runs, self._piece = mark
        del self._runs[runs:]

    def sample(self) -> None:
        """Take pieces from anywhere from now on: what is known already will be in some of them, too."""
        self._is_sample = True

    def _is_known(self, run: Run) -> bool:
        return any(
            known.flaw == run.flaw and known.since < run.until and run.since < known.until for _, known in self._runs
        )

    def news(self) -> tuple[int, list[tuple[int, Run]]]:
        """Return how many pieces there were since the last time, and what differs in them."""
        runs, pieces = self._told
        self._told = self.mark()
        return self._piece - pieces, [(piece - pieces, run) for piece, run in self._runs[runs:]]

    def take_over(self, pieces: int, runs: Sequence[tuple[int, Run]]) -> None:
        """Take what :meth:`news` has told in an earlier run."""
        self._runs += [(self._piece + piece, run) for piece, run in runs]
        self._piece += pieces
        self.news()

    def differences(self, measurement: Measurement) -> list[Difference]:
        """Return all of them."""
        found: list[tuple[int, Run]] = []
        for piece, run in sorted(self._runs, key=lambda each: (each[1].flaw, each[1].since)):
            if found and found[-1][1].flaw == run.flaw:
                last_piece, last = found[-1]
                if run.since < last.until or (piece == last_piece + 1 and last.ends and run.begins):
                    found[-1] = (piece, joined(last, run))
                    continue
            found.append((piece, run))
        runs = sorted((run for _, run in found), key=lambda run: (run.since, run.flaw))
        return [
            Difference(
                measurement.database,
                measurement.policy,
                measurement=measurement.name,
                since=run.since,
                until=run.until,
                kind=run.flaw.kind,
                backends=run.flaw.backends,
                points=run.points,
            )
            for run in runs
        ]
