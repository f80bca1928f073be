"""Somebody removes what a group has on NATS."""

from __future__ import annotations

from influxrelay.journal.shared.frames import number_of, seq_of
from influxrelay.journal.shared.interface import GAP
from testing.journal_cases import PLACE
from testing.logs import watch_log
from testing.shared_journals import GroupCase, Relay


class RemovedTests(GroupCase):
    """What is lost is said, and what comes then is delivered."""

    def lost(self, relay: Relay) -> dict[str, int]:
        """Return how many writes each backend has lost."""
        return {each.backend: each.writes for each in self.contents(relay).drops}

    def test_log(self) -> None:
        """Without its log a group counts what waited as lost, and goes on behind all numbers that anybody knows."""
        logged = watch_log(self)
        first, second = self.relay("ra"), self.relay("rb")
        numbers = self.append(second, b"one\n", b"two\n", b"three\n")
        self.later()
        first.journal.advance("a", PLACE, numbers[1])
        first.journal.advance("b", PLACE, numbers[2])
        self.later(1)
        self.cluster.log.remake()
        self.later(3)
        self.assertEqual(self.lost(first), {"a": 1})
        (late,) = self.append(second, b"four\n")
        self.assertGreater(seq_of(late), seq_of(numbers[-1]) + GAP - 1)
        self.until(lambda: first.handed[-1][0] == late)
        self.assertEqual(self.contents(second).depths["a"].writes, 1)
        self.assertEqual(self.lost(second), {"a": 1})
        self.assertEqual(
            [each for each in logged if "removed" in each],
            ["relay: the log was removed, and what was in it is lost"] * 2,
        )

    def test_log_made_anew_behind(self) -> None:
        """Another relay has made the log anew, behind a gap, which nobody counts as lost."""
        first = self.relay("ra")
        numbers = self.append(first, b"one\n", b"two\n")
        first.journal.advance("b", PLACE, numbers[1])
        self.later(2)
        self.cluster.log.remake()
        self.cluster.log.last = seq_of(numbers[1]) + GAP
        self.result(first.engine.log.publish("relay.log", b"", {"Influxrelay": "1 log rx 1 0 2 "}, msg_id="x"))
        self.later(2)
        self.assertEqual(self.lost(first), {"a": 2})
        self.kill(first)
        later = self.relay("rb")
        self.assertEqual(self.lost(later), {"a": 2})

    def test_bucket(self) -> None:
        """Without its bucket a group goes on at the positions that it has known last."""
        first, second = self.relay("ra"), self.relay("rb")
        numbers = self.append(second, b"one\n", b"two\n", b"three\n")
        self.later()
        first.journal.advance("a", PLACE, numbers[0])
        self.later(1)
        self.cluster.values.remake()
        self.later(20)
        deliverer = self.deliverer()
        self.assertEqual(deliverer.held["a"], {PLACE: numbers[0]})
        self.assertEqual(deliverer.held["b"], {PLACE: number_of(seq_of(numbers[0]), 0) - 1})
        self.append(second, b"four\n")
        for relay in (first, second):
            self.assertEqual(
                {name: each.writes for name, each in self.contents(relay).depths.items()}, {"a": 3, "b": 4}
            )

    def test_bucket_while_stopped(self) -> None:
        """A group that has lost its bucket while it was stopped delivers everything that is in the log."""
        first = self.relay("ra")
        numbers = self.append(first, b"one\n", b"two\n")
        self.result(first.journal.stop())
        self.kill(first)
        self.cluster.values.remake()
        later = self.relay("rb")
        self.until(lambda: set(later.held) == {"a", "b"})
        self.assertEqual(later.held["a"], {PLACE: number_of(seq_of(numbers[0]), 0) - 1})
