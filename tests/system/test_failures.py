"""The whole picture, with parts that are killed and frozen; ``python -m tests.soak.failures`` is the long run."""

from __future__ import annotations

import gzip
import time

from twisted.trial.unittest import SynchronousTestCase

from testing.directories import short_directory
from testing.picture import RELAYS
from testing.sites import DATABASE
from tests.soak import failures
from tests.soak.dashboard import Tally, Voters, table
from tests.soak.failures import Run
from tests.soak.large_reads import ROWS, check


class FailuresTests(SynchronousTestCase):
    """Nobody notices that a part fails."""

    def test_pairs(self) -> None:
        """No write fails, no answer lacks a point, and both servers are equal, when a relay and a server fail."""
        with Run(short_directory(self), 1, grace=20.0, pace=0.3) as run:
            for signal, first, second in (("KILL", "relay1", "influx1"), ("STOP", "influx2", "relay2")):
                run.signal = signal
                tally = run.run_pair(first, second)
                self.assertEqual((tally.failed, tally.old, tally.problems), ([], [], []), tally)
                self.assertGreater(tally.written, 20)
                self.assertGreater(tally.datagrams, tally.lost)
                self.assertGreater(tally.answers["influx1"] + tally.answers["influx2"], 0)
            self.check_lag(run)

    def test_through_relays(self) -> None:
        """The same holds where the relays answer queries, and no large answer that looks complete is truncated."""
        with Run(short_directory(self), 2, grace=20.0, pace=0.3, through_relays=True) as run:
            for signal, first, second in (("KILL", "influx1", "relay2"), ("STOP", "relay1", "influx2")):
                run.signal = signal
                tally = run.run_pair(first, second)
                failures.wait_until(tally.large.total, "a large answer has come to its end")
                found = (tally.failed, tally.old, tally.problems, tally.wrong)
                self.assertEqual(found, ([], [], [], []), tally)
                self.assertGreater(tally.answers["influx1"] + tally.answers["influx2"], 0)
            assert run.statements is not None
            self.assertGreater(len(run.statements.created), 10)

    def check_lag(self, run: Run) -> None:
        """Check that a server that lags gets no queries, and gets them again by itself when it does not."""

        def asked() -> set[str]:
            tally = run.dashboard.begin("lag")
            failures.wait_until(lambda: sum(tally.answers.values()) >= 10, "answers come")
            return set(tally.answers)

        run.picture.tell("relay1", "queues", "pause", "influx1", "--listener", "http")
        failures.wait_until(lambda: asked() == {"influx2"}, "only the one that does not lag is asked")
        run.picture.tell("relay1", "queues", "resume", "influx1", "--listener", "http")
        failures.wait_until(lambda: asked() == {"influx1", "influx2"}, "both are asked")


class NoticeTests(SynchronousTestCase):
    """The run would notice."""

    def test_lost_and_unequal(self) -> None:
        """A point that only one server has, and an acknowledged one that none has, are found; an old answer, too."""
        with Run(short_directory(self), 1, grace=0.0, pace=0.3) as run:
            tally = Tally("nothing")
            run.sites.pause()
            before = {sender.name: 0 for sender in run.sites.all()}
            sender = run.sites.http[0]
            number = sender.sent = sender.sent + 1
            sender.acknowledged[number] = 0.0, "relay1"
            run.dashboard.first[sender.source.name] = number
            failures.wait_until(lambda: run.dashboard.tally.old, "an answer is old", 60)
            run.compare(tally, before, limit=1)
            self.assertIn("acknowledged and lost", str(tally.problems))
            run.picture.servers["influx1"].write(
                f"http,sender={sender.source.name} n={number}i {run.dashboard.since + 1}", DATABASE
            )
            tally = Tally("nothing")
            run.compare(tally, before, limit=1)
            self.assertIn(f"[{number}] only on one", str(tally.problems))

    def test_dead_relay(self) -> None:
        """What a dead relay has acknowledged need not be known, until it is back."""
        voters = Voters({"relay1": 5.0, "relay2": None})
        self.assertEqual([voters.counts_from("relay1", at) for at in (3.0, 7.0)], [5.0, 7.0])
        self.assertIsNone(voters.counts_from("relay2", 3.0))

    def test_points_that_were_there(self) -> None:
        """An answer without a point that was there, or was acknowledged, is old; a missing database is found."""
        with Run(short_directory(self), 1, grace=0.0, pace=0.3, through_relays=True) as run:
            run.sites.pause()
            assert run.statements is not None
            lacking = run.statements.missing(["nowhere"], run.picture.servers)
            self.assertEqual(lacking, [f"influx{number} lacks the database nowhere" for number in (1, 2)])
            tally = run.dashboard.begin("old")
            sender = run.sites.http[0]
            for relay in RELAYS:
                sender.acknowledged[sender.sent + 2 + RELAYS.index(relay)] = time.monotonic(), relay
            failures.wait_until(lambda: any("old" in each for each in tally.old), "an answer is old", 60)
            had = frozenset({12345})
            run.dashboard._ask_directly = lambda *_: had  # type: ignore[method-assign]
            failures.wait_until(lambda: any("[12345], which it had" in each for each in tally.old), "it is noticed", 60)

    def test_large(self) -> None:
        """A large answer that is truncated is found, plain and packed."""
        whole = b'{"results":[{"series":[{"values":[' + b"],[".join([b"1"] * ROWS) + b"]]}]}]}"
        whole = whole.replace(b'"values":[1', b'"values":[[1')
        self.assertEqual((check(whole, ""), check(gzip.compress(whole), "gzip")), ("", ""))
        self.assertIn(f"has {ROWS - 1} of {ROWS}", check(whole[: whole.rindex(b"],[")], ""))
        self.assertIn("cannot be unpacked", check(gzip.compress(whole)[:-10], "gzip"))

    def test_table(self) -> None:
        """The table is one of reStructuredText, with a row for each scenario."""
        lines = list(table([Tally("one then two").row()]))
        self.assertEqual((len(lines), lines[0], lines[2], lines[-1]), (5, lines[0], lines[0], lines[0]))
        self.assertTrue(lines[3].startswith("one then two"))
        self.assertEqual(len(failures.pairs()), 12)
