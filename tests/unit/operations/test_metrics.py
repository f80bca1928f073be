"""The parts that metrics are made of, and the page that lists them."""

from __future__ import annotations

import random
import re

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.histogram import Histogram
from influxrelay.journal.statistics import JournalCounts
from influxrelay.operations.metric_families import FAMILIES
from influxrelay.operations.reactor_lag import INTERVAL, ReactorLag
from testing.journal_cases import OTHER, PLACE, JournalCase, record, write
from testing.servers import PROJECT


class JournalCountsTests(JournalCase):
    """The second way to count what a journal holds."""

    def test_same_as_the_journal(self) -> None:
        """Whatever was written, passed, dropped or buried: both count the same, for removed backends, too."""
        rng = random.Random(3)
        counts = JournalCounts(self.directory, None, Clock().seconds)
        seq = 0
        for _ in range(60):
            seq += rng.randint(1, 3)
            where = rng.choice((PLACE, OTHER))
            self.append(record(seq, where))
            with self.transaction() as journal:
                step = rng.randint(0, 6)
                if step < 3:
                    journal.advance({(rng.choice("ab"), where): rng.randint(max(0, seq - 6), seq)})
                    journal.sweep()
                elif step == 3:
                    journal.add_dead_letter(rng.choice("ab"), 1.5, write(), 400, "no")
                elif step == 4:
                    journal.expire(max(0, seq - 20) * 10.0)
                elif step == 5:
                    journal.register({name: f"http://{name}" for name in rng.choice(("a", "ab", "abc"))})
            found = counts._count()
            self.assertEqual(list(found.depths.values()), self.journal.depths())
            self.assertEqual(list(found.drops), self.journal.drops())
            self.assertEqual(found.dead_letters, self.journal.count_dead_letters())


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
