"""The system that keeps a shared log, in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from influxrelay.core.errors import JournalError
from influxrelay.journal.shared.interface import Conflict, Engine, Entry, Message
from testing.engine_contract import EngineContract
from testing.memory_stream import MemoryCluster
from testing.memory_watches import ANSWER


class ContractTests(EngineContract, TestCase):
    """The double does what every engine does."""

    def setUp(self) -> None:
        """Connect both."""
        self.clock = Clock()
        cluster = MemoryCluster(self.clock)
        cluster.travel = lambda what, engine: 0.01
        self.one = cluster.engine()
        self.two = cluster.engine()

    async def done(self, deferred: Deferred[Any]) -> Any:
        """Let time pass until something has fired."""
        fired: list[Any] = []
        deferred.addBoth(fired.append)
        await self.until(lambda: fired)
        if isinstance(fired[0], Failure):
            fired[0].raiseException()
        return fired[0]

    async def until(self, condition: Callable[[], Any]) -> None:
        """Let time pass until something holds."""
        for _ in range(2000):
            if condition():
                return
            self.clock.advance(0.01)
        raise AssertionError("it did not come to hold")


class MemoryStreamTests(SynchronousTestCase):
    """Two engines on one cluster in memory."""

    def setUp(self) -> None:
        """Connect both."""
        self.clock = Clock()
        self.cluster = MemoryCluster(self.clock)
        self.one: Engine = self.cluster.engine()
        self.two: Engine = self.cluster.engine()

    def test_both_see_one_order(self) -> None:
        """What either publishes is handed to both, in the order of the sequences."""
        seen: list[Message] = []
        watch = self.two.log.follow(0, seen.append)
        first = self.one.log.publish("relay.log", b"a", {"to": "x"}, msg_id="1")
        second = self.two.log.publish("relay.strike", b"b", msg_id="2")
        self.clock.advance(0)
        self.assertEqual([self.successResultOf(first), self.successResultOf(second)], [1, 2])
        self.successResultOf(watch.in_sync)
        self.assertEqual([(each.seq, each.payload) for each in seen], [(1, b"a"), (2, b"b")])

    def test_a_lost_acknowledgement(self) -> None:
        """A message whose acknowledgement was lost is stored once."""
        self.cluster.lose(ANSWER)
        stored = self.one.log.publish("relay.log", b"a", msg_id="1")
        self.clock.pump([0, 2])
        self.assertEqual(self.successResultOf(stored), 1)
        self.assertEqual(self.cluster.log.last, 1)

    def test_no_quorum(self) -> None:
        """Without a quorum a publish fails when the time is up."""
        self.cluster.quorum = False
        stored = self.one.log.publish("relay.log", b"a", msg_id="1")
        self.clock.pump([1] * 9)
        self.assertNoResult(stored)
        self.clock.advance(1)
        self.failureResultOf(stored, JournalError)

    def test_compare_and_set(self) -> None:
        """Of two that change one revision, one has a conflict; a watch sees what holds."""
        seen: list[Entry] = []
        self.two.bucket.watch("backend.", seen.append)
        made = self.one.bucket.create("backend.x", b"1")
        self.clock.advance(0)
        revision = self.successResultOf(made)
        won = self.one.bucket.update("backend.x", b"2", revision)
        lost = self.two.bucket.update("backend.x", b"3", revision)
        self.clock.advance(0)
        self.failureResultOf(lost, Conflict)
        self.assertEqual(seen[-1], Entry("backend.x", b"2", self.successResultOf(won)))

    def test_partition(self) -> None:
        """An engine that was cut off goes on where it was."""
        seen: list[Message] = []
        two = self.cluster.engines[1]
        self.two.log.follow(0, seen.append)
        two.cut()
        self.one.log.publish("relay.log", b"a", msg_id="1")
        self.clock.advance(0)
        self.assertEqual(seen, [])
        two.mend()
        self.clock.advance(0)
        self.assertEqual([each.payload for each in seen], [b"a"])

    def test_messages_that_are_not_stored(self) -> None:
        """They reach whoever subscribes, in order."""
        seen: list[bytes] = []
        watch = self.two.subscribe("relay.decided", seen.append)
        self.clock.advance(0)
        self.successResultOf(watch.in_sync)
        for payload in (b"1", b"2"):
            self.one.send("relay.decided", payload)
        self.clock.advance(0)
        self.assertEqual(seen, [b"1", b"2"])
