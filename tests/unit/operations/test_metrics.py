"""The parts that metrics are made of, and the page that lists them."""

from __future__ import annotations

import re
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import JournalError
from influxrelay.core.histogram import Histogram
from influxrelay.journal.interface import Journal
from influxrelay.journal.records import Contents
from influxrelay.journal.statistics import FRESH, SHARE, JournalCounts
from influxrelay.operations.metric_families import FAMILIES
from influxrelay.operations.reactor_lag import INTERVAL, ReactorLag
from testing.servers import PROJECT


class CountedJournal:
    """Remembers who asks what is in it."""

    def __init__(self) -> None:
        self.asked: list[Deferred[Contents]] = []

    def contents(self) -> Deferred[Contents]:
        """Return what is in the journal, when the test says so."""
        asked: Deferred[Contents] = Deferred()
        self.asked.append(asked)
        return asked


class JournalCountsTests(SynchronousTestCase):
    """What is known of what a journal holds."""

    def setUp(self) -> None:
        """Know nothing."""
        self.clock = Clock()
        self.journal = CountedJournal()
        self.counts = JournalCounts(cast("Journal", self.journal), self.clock.seconds)

    def count(self, letters: int, seconds: float = 0.0) -> None:
        """Let a count take so long, and find so many dead letters."""
        refreshed = self.counts.refresh()
        self.clock.advance(seconds)
        self.journal.asked.pop().callback(Contents({}, (), {"a": letters}))
        self.successResultOf(refreshed)

    def found(self) -> dict[str, int]:
        """Return the dead letters that are known."""
        return self.counts.known.dead_letters if self.counts.known is not None else {}

    def test_fresh(self) -> None:
        """What is new enough is not counted again."""
        self.count(1)
        self.successResultOf(self.counts.refresh())
        self.assertEqual((self.journal.asked, self.found()), ([], {"a": 1}))
        self.clock.advance(FRESH)
        self.count(2)
        self.assertEqual(self.found(), {"a": 2})

    def test_shared(self) -> None:
        """Who asks while it is being counted gets the same answer."""
        first, second = self.counts.refresh(), self.counts.refresh()
        self.assertEqual(len(self.journal.asked), 1)
        self.assertNoResult(second)
        self.journal.asked[0].callback(Contents({}, (), {}))
        self.successResultOf(first)
        self.successResultOf(second)

    def test_slow(self) -> None:
        """A count that takes long is not repeated soon, and its age is that of its begin."""
        self.count(1, 2.0)
        self.assertEqual(self.counts.age(), 2.0)
        self.clock.advance(2.0 / SHARE - 1)
        self.successResultOf(self.counts.refresh())
        self.assertEqual(self.journal.asked, [])
        self.clock.advance(1)
        self.count(2)

    def test_failure(self) -> None:
        """A journal that does not answer leaves what is known, which gets older."""
        self.count(1)
        self.clock.advance(FRESH)
        refreshed = self.counts.refresh()
        self.journal.asked.pop().errback(JournalError("the disk is full"))
        self.successResultOf(refreshed)
        self.assertEqual((self.found(), self.counts.age()), ({"a": 1}, FRESH))


class HistogramTests(SynchronousTestCase):
    """Values by size."""

    def test_buckets(self) -> None:
        """A bucket has all values up to its bound, that included."""
        histogram = Histogram((1.0, 2.5))
        for value in (0.0, 1.0, 1.5, 2.5, 2.6, 100.0):
            histogram.observe(value)
        self.assertEqual(histogram.buckets(), [("1.0", 2), ("2.5", 4), ("+Inf", 6)])
        self.assertEqual((histogram.count, histogram.sum), (6, 107.6))


class LagTests(SynchronousTestCase):
    """How late the reactor is."""

    def test_late(self) -> None:
        """A timer that runs late counts by how much; after the stop nothing is left on the reactor."""
        clock, late = Clock(), 0.0
        lag = ReactorLag(clock, lambda: clock.seconds() + late)
        lag.startService()
        clock.pump([INTERVAL] * 4)
        self.assertEqual((lag.lags.count, lag.lags.sum), (4, 0.0))
        late = 2.0
        clock.advance(INTERVAL)
        self.assertEqual((lag.lags.count, lag.lags.sum), (5, 2.0))
        clock.advance(INTERVAL)
        self.assertEqual((lag.lags.count, lag.lags.sum), (6, 2.0))
        lag.stopService()
        self.assertEqual(clock.getDelayedCalls(), [])


class DocumentationTests(SynchronousTestCase):
    """``docs/metrics.rst`` and ``docs/monitoring.rst``."""

    def test_metrics(self) -> None:
        """The page has every metric with its labels, and no other."""
        page = (PROJECT / "docs" / "metrics.rst").read_text()
        told = re.findall(r"(?m)^``(influxrelay_\w+)``(?: \(([\w, ]+)\))?\n    \S", page)
        known = [(each.name, ", ".join(each.labels)) for each in FAMILIES]
        self.assertEqual(sorted(told), sorted(known))

    def test_alerts(self) -> None:
        """The page has every alert with its severity and its patience, and what to do."""
        page = (PROJECT / "docs" / "monitoring.rst").read_text()
        rules = (PROJECT / "etc" / "alerts.yml").read_text().split("- alert: ")[1:]
        known = []
        for rule in rules:
            facts = [*re.findall(r"severity: (\w+)", rule), *re.findall(r" for: (\w+)", rule)]
            known.append((rule.split("\n")[0], ", ".join(facts)))
        self.assertEqual(re.findall(r"(?m)^``(InfluxRelay\w+)`` \(([\w, ]+)\)\n    \S", page), known)

    def test_helps(self) -> None:
        """Each metric's help is a sentence, and no two metrics have the same name."""
        self.assertEqual(len({each.name for each in FAMILIES}), len(FAMILIES))
        for each in FAMILIES:
            self.assertRegex(each.help, r"^[A-Z01].+\.$", each.name)
