"""Whether anything was written to a part of a server: it counts that for each of its shards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from influxrelay.verification.connection import Unanswered
from influxrelay.verification.server import Series, Server
from influxrelay.verification.statements import WRITE_COUNTS, Measurement, Window
from influxrelay.verification.windows import read_time

_BYTES = 1024 * 1024  # of the counts of all shards: to read points again costs less than more of them
_NO_WRITES = ("time", "diskBytes")

Counts = tuple[Any, ...]
"""Another value after a write to one of some shards, or after a restart, when the counts begin at zero."""


@attrs.define
class WriteCounts:
    """Asks a server how many writes its shards have had."""

    server: Server
    _is_known: bool = attrs.field(default=True, init=False)

    def read(self, measurement: Measurement, window: Window) -> Counts | None:
        """Return the counts of the shards that a window of a measurement touches; None if the server does not tell."""
        if not self._is_known:
            return None
        try:
            answer = self.server.ask_within(WRITE_COUNTS, self.server.timeout, _BYTES)
        except Unanswered:  # the user may have no right to ask for it, or there are too many shards
            self._is_known = False
            return None
        return _counts(answer, measurement, window)


def _counts(answer: Sequence[Series], measurement: Measurement, window: Window) -> Counts | None:
    started: list[str] = []
    touched: set[str] = set()
    counted: dict[str, Any] = {}
    for series in answer:
        for row in (dict(zip(series.columns, values, strict=True)) for values in series.values):
            if "started" in row:
                started.append(row["started"])
            elif "shard_group" in row:
                is_there = (row["database"], row["retention_policy"]) == (measurement.database, measurement.policy)
                since, until = read_time(row["start_time"]), read_time(row["end_time"])
                if is_there and since < window.until and until > window.since:
                    touched.add(str(row["id"]))
            elif "id" in series.tags:
                counted[series.tags["id"]] = sorted((name, row[name]) for name in row if name not in _NO_WRITES)
    if len(started) != 1 or not touched or not touched <= counted.keys():
        return None
    return started[0], sorted((each, counted[each]) for each in touched)
