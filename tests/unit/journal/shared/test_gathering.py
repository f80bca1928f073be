"""How long writes are gathered for the next message."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.journal.records import Record
from influxrelay.journal.shared.gathering import A_WHILE, FULL_SHARE, LONGEST, MISSES, SHARE, TRY, Gathering
from testing.journal_cases import write
from testing.shared_journals import SharedCase

TOOK = 0.004  # seconds


class GatheringTests(SynchronousTestCase):
    """The rule."""

    def pause_after(self, gathering: Gathering, published: int, taken: int | None = None, waiting: int = 0) -> float:
        """Publish and store a message; return how long the next one would wait if nothing came."""
        taken = published if taken is None else taken
        gathering.published(published, taken)
        gathering.stored(100.0, TOOK, taken, waiting)
        return round(gathering.pause(100.0, waiting), 9)

    def test_nothing_before(self) -> None:
        """The first message, and one after a single write, wait for nothing."""
        gathering = Gathering()
        self.assertEqual(gathering.pause(100.0, 1), 0.0)
        self.assertEqual(self.pause_after(gathering, 1), 0.0)

    def test_until_all_are_there(self) -> None:
        """A message waits until there are as many writes as were in the last one and behind it."""
        gathering = Gathering()
        self.assertEqual(self.pause_after(gathering, 20, waiting=12), TOOK * FULL_SHARE)
        self.assertEqual(gathering.expected, 32)
        self.assertAlmostEqual(gathering.pause(100.0 + TOOK, 31), TOOK * (FULL_SHARE - 1))
        self.assertEqual(gathering.pause(100.0, 32), 0.0)
        self.assertEqual(gathering.pause(100.0 + TOOK * FULL_SHARE, 31), 0.0)

    def test_longest(self) -> None:
        """However long the last message took, there is a limit; and if it took no time, clients do."""
        for took, pause in ((5.0, LONGEST), (0.0001, A_WHILE)):
            gathering = Gathering()
            gathering.published(10, 10)
            gathering.stored(100.0, took, 10, 0)
            self.assertAlmostEqual(gathering.pause(100.0, 1), pause)

    def test_full(self) -> None:
        """Behind a message into which no more fitted, nothing waits."""
        self.assertEqual(self.pause_after(Gathering(), 20, taken=5, waiting=15), 0.0)

    def test_who_does_not_write_again(self) -> None:
        """Clients that do not write again are not waited for so long, but tried at times."""
        gathering = Gathering()
        self.pause_after(gathering, 10)
        pauses = [self.pause_after(gathering, 5, waiting=5) for _ in range(2 * TRY)]
        self.assertEqual(pauses[: MISSES - 1], [TOOK * FULL_SHARE] * (MISSES - 1))
        self.assertEqual(set(pauses), {TOOK * SHARE, TOOK * FULL_SHARE})
        self.assertEqual(pauses[MISSES - 1 :].count(TOOK * FULL_SHARE), 2)
        self.assertEqual(self.pause_after(gathering, 10), TOOK * FULL_SHARE)


class CommitTests(SharedCase):
    """Messages of a relay."""

    def test_clients_that_write_again(self) -> None:
        """Of clients that write as soon as they are answered, at whatever time, all are in one message."""
        relay = self.relay("ra")
        self.cluster.travel = lambda _what, _engine: 0.05
        clients, began = 8, relay.journal.commits.count

        def write_again(_: object, left: int) -> None:
            if left:
                relay.journal.append_shared(Record(0, 1.0, write())).addCallback(answered, left - 1)

        def answered(number: int, left: int) -> None:
            relay.clock.callLater((number & 0xFFFF) * 0.002, write_again, None, left)

        for client in range(clients):
            relay.clock.callLater(client * 0.01, write_again, None, 20)
        self.later(10.0)
        self.assertLess(relay.journal.commits.count - began, 30)
