"""Comparing servers that know PromQL, metric by metric: windows by aggregates of each series, then samples."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any, Protocol

import attrs

from influxrelay.verification.comparison import NothingToCompare, Selection
from influxrelay.verification.connection import TooLarge, at_once
from influxrelay.verification.differences import Difference, Ledger
from influxrelay.verification.measurement import FEW, FULL, PIECE, SAMPLED, SMALL
from influxrelay.verification.points import Points, Tags, differing, runs
from influxrelay.verification.prometheus import MILLISECOND, Prometheus, has_histograms, read_samples
from influxrelay.verification.setting import SETTLING, Outcome
from influxrelay.verification.statements import EVERYTHING, Measurement, Window
from influxrelay.verification.windows import PARTS, halves

_SECOND = 10**9
_EARLIEST = 86_400 * _SECOND  # VictoriaMetrics finds nothing if a range begins before 1970
_AHEAD = 2 * 86_400 * _SECOND  # how far in the future samples are taken (VictoriaMetrics)
_LONGEST = 86_400 * _SECOND  # of a window that is compared by aggregates
_BYTES = 16 * 1024 * 1024  # of an answer with samples
_SERIES_BYTES = 32 * 1024 * 1024  # of one with aggregates
_PAUSE = 6.0  # seconds until VictoriaMetrics shows what it was sent
_ROUNDING = 1e-9  # of a sum, of the largest value times the count


class Mender(Protocol):
    """Does something about samples that differ."""

    def mend(self, metric: str, window: Window, servers: dict[str, Points]) -> None:
        """Do something about a window in which samples differ; ``servers`` have them."""


@attrs.define
class SampleComparison:
    """Compares servers.

    :param servers: at least two.
    :param outcome: to which what is found is added.
    :param progress: is called with how many metrics are done, of how many, and with what was found so far.
    :param mender: who does something about what differs between two servers.
    """

    servers: Sequence[Prometheus]
    selection: Selection
    outcome: Outcome
    progress: Callable[[float, int, Outcome], None] = lambda done, total, outcome: None  # noqa: ARG005
    random: Random = attrs.field(factory=Random)
    sleep: Callable[[float], None] = time.sleep
    now: int = attrs.field(factory=time.time_ns)
    mender: Mender | None = None
    _ledger: Ledger = attrs.field(factory=Ledger, init=False)
    _metric: str = attrs.field(default="", init=False)
    _large: list[tuple[Window, int]] = attrs.field(factory=list, init=False)
    _has_histograms: bool = attrs.field(default=False, init=False)

    def run(self) -> None:
        """Compare everything.

        :raises Unanswered: a server does not answer.
        :raises NothingToCompare: no server has it.
        """
        bounds = self._bounds()
        asked = at_once(self.servers, lambda each: each.metrics(bounds))
        names = sorted(set().union(*(each for _, each in asked)))
        if self.selection.measurement:
            names = [each for each in names if each == self.selection.measurement]
            if not names:
                raise NothingToCompare(f"no backend has a metric {self.selection.measurement}")
        for done, name in enumerate(names):
            self._compare(name, bounds)
            self.progress(done + 1, len(names), self.outcome)
        if self._has_histograms:
            self.outcome.not_compared.append("native histograms are not compared")

    def _bounds(self) -> Window:
        """Return the time to compare, in whole milliseconds; if no end is set, without what is under way."""
        since, until = self.selection.bounds
        until = self.now - SETTLING if until == EVERYTHING.until else min(until, self.now + _AHEAD)
        return Window(*(-(-max(each, _EARLIEST) // MILLISECOND) * MILLISECOND for each in (since, until)))

    def _compare(self, metric: str, bounds: Window) -> None:
        self._metric, self._ledger, self._large = metric, Ledger(), []
        for part, samples in self._parts(bounds, FULL):
            if part.length <= _SECOND or samples <= SMALL:
                self._read_all(part, samples)
            else:
                self._compare_series(part, samples)
        self._read_some()
        self.outcome.differences += self._ledger.differences(Measurement("", "", metric))

    # -- windows

    def _parts(self, window: Window, full: int) -> Iterator[tuple[Window, int]]:
        """Yield the parts of a window that have samples, each with their number.

        Small ones that follow each other are one. Those that have many samples are no longer than a day.

        :param full: samples of a window that is not divided.
        """
        counts = self._counts(window)
        if sum(counts.values()) <= full:
            yield from _joined(counts)
            return
        small: dict[Window, int] = {}
        for part, samples in sorted(counts.items()):
            if samples <= SMALL or part.length <= _SECOND:
                small[part] = samples
                continue
            yield from _joined(small)
            small = {}
            if part.length <= _LONGEST:
                yield part, samples
            else:
                yield from self._parts(part, SMALL)
        yield from _joined(small)

    def _counts(self, window: Window) -> dict[Window, int]:
        """Return how many samples there are in the parts of a window that have any, on the server that has most."""
        width = -(-max(window.length // PARTS, MILLISECOND) // _SECOND) * _SECOND
        try:
            asked = at_once(self.servers, lambda each: each.counts(self._metric, window, width))
        except TooLarge:
            if window.length <= _SECOND:
                raise
            first, second = map(self._counts, _halves(window))
            return first | second
        found: dict[Window, int] = {}
        for _, counts in asked:
            for part, samples in counts.items():
                found[part] = max(samples, found.get(part, 0))
        return found

    def _compare_series(self, window: Window, samples: int) -> None:
        """Compare the aggregates of each series, and the samples of those that differ."""
        try:
            asked = at_once(self.servers, lambda each: each.aggregates(self._metric, window, _SERIES_BYTES))
        except TooLarge:
            self._read_all(window, samples)
            return
        self.outcome.windows += 1
        found = [each for _, each in asked]
        wrong = sorted(tags for tags in set().union(*found) if not _are_equal([each.get(tags, {}) for each in found]))
        number = sum(int(max(each.get(tags, {}).get("count", 0) for each in found)) for tags in wrong)
        if not wrong:
            self._ledger.skip()
            self._large.append((window, samples))
        elif len(wrong) <= FEW and number <= PIECE:
            self._read(window, wrong)
            self._large.append((window, samples - number))
        else:
            self._read_all(window, samples)

    # -- samples

    def wait(self) -> None:
        """Wait until servers show what they were sent."""
        self.sleep(_PAUSE)

    def read(self, metric: str, window: Window) -> list[Difference]:
        """Return what differs in the samples of a metric in a window."""
        self._metric, self._ledger = metric, Ledger()
        self._read(window)
        return self._ledger.differences(Measurement("", "", metric))

    def _read_some(self) -> None:
        """Read some of what had equal aggregates."""
        before = self.outcome.points
        self.outcome.large += len(self._large)
        self._ledger.sample()
        for window, samples in self._large:
            self.outcome.large_points += samples
            length = max(_SECOND, window.length * PIECE // max(1, 2 * samples)) // MILLISECOND * MILLISECOND
            for _ in range(-(-samples // (PIECE * SAMPLED))):
                pieces = max(1, (window.length - length) // MILLISECOND)
                since = window.since + self.random.randrange(pieces) * MILLISECOND
                self._ledger.skip()
                self._read(Window(since, min(since + length, window.until)))
        self.outcome.sampled += self.outcome.points - before

    def _read_all(self, window: Window, samples: int) -> None:
        """Compare all samples of a window, some at a time."""
        if samples <= PIECE or window.length <= _SECOND:
            self._read(window)
            return
        for half in _halves(window):
            self._read_all(half, sum(self._counts(half).values()))

    def _read(self, window: Window, series: Sequence[Tags] = ()) -> None:
        """Compare samples, of some series or of all; what differs is looked at twice, since writes may be under way."""
        try:
            servers = self._look(window, series)
        except TooLarge:
            if window.length <= MILLISECOND:
                raise
            for half in _halves(window):
                self._read(half, series)
            return
        if found := differing(servers):
            if window.until > self.now - SETTLING:
                self.wait()
            servers = self._look(window, series)
            found &= differing(servers)
        if found and self.mender is not None:
            self.mender.mend(self._metric, window, servers)
        self._ledger.add(runs(found, servers))
        self.outcome.points += max(sum(map(len, points.values())) for points in servers.values())

    def _look(self, window: Window, series: Sequence[Tags]) -> dict[str, Points]:
        found: dict[str, Points] = {each.name: {} for each in self.servers}
        for tags in series or [()]:

            def ask(server: Prometheus, labels: Tags = tags) -> list[Any]:
                return server.samples(self._metric, window, _BYTES, dict(labels))

            for server, answer in at_once(self.servers, ask):
                self._has_histograms = self._has_histograms or has_histograms(answer)
                points = read_samples(answer, window)
                wanted = points.keys() & {tags} if series else points.keys()
                found[server.name] |= {each: points[each] for each in wanted}
        return found


def _joined(counts: Mapping[Window, int]) -> Iterator[tuple[Window, int]]:
    """Yield windows as few, with no more samples than are read at a time; between them are none."""
    since, until, total = 0, 0, 0
    for part, samples in sorted(counts.items()):
        if total and total + samples > PIECE:
            yield Window(since, until), total
            total = 0
        since = since if total else part.since
        until, total = part.until, total + samples
    if total:
        yield Window(since, until), total


def _halves(window: Window) -> tuple[Window, Window]:
    """Return both halves of a window, of whole milliseconds."""
    (_, middle), _ = halves(window)
    middle = -(-middle // MILLISECOND) * MILLISECOND
    return Window(window.since, middle), Window(middle, window.until)


def _are_equal(values: Sequence[Mapping[str, float]]) -> bool:
    """Say whether the aggregates of a series are the same on all servers; sums are, but for rounding."""
    first, *others = values
    return all(each.keys() == first.keys() and all(_same(name, first, each) for name in first) for each in others)


def _same(name: str, one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    value, another = one[name], other[name]
    if value == another or (math.isnan(value) and math.isnan(another)):
        return True
    largest = max(abs(one["min"]), abs(one["max"]))
    return name == "sum" and abs(value - another) <= _ROUNDING * largest * one["count"]
