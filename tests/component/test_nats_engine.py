"""The engine on real servers."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import JournalError
from influxrelay.journal.records import JournalLimits
from influxrelay.journal.shared.engine import NatsEngine
from testing.engine_contract import EngineContract
from testing.nats_case import NatsCase


class ContractTests(NatsCase, EngineContract):
    """The real engine does what every engine does."""


class LeaderTests(NatsCase):
    """Where it connects to."""

    async def test_leader(self) -> None:
        """An engine connects to the server that leads the log."""
        leader = await deferToThread(self.servers.leader, self.stream)
        assert leader is not None
        clients = await deferToThread(leader.asked, "connz")
        again = [await self.connected(self.servers.addresses) for _ in range(3)]
        there = await deferToThread(leader.asked, "connz")
        self.assertEqual(there["num_connections"] - clients["num_connections"], len(again))


class ReactorTests(SynchronousTestCase):
    """Reactors that it cannot work with."""

    def test_another_reactor(self) -> None:
        """A reactor without an event loop is refused, with what to do."""
        make = (Clock(), "nats://h/s", ["h:4222"], "s", JournalLimits())
        error = self.assertRaises(JournalError, NatsEngine, *make)
        self.assertEqual(
            str(error), "nats://h/s: a shared journal needs a reactor on asyncio; start twistd without --reactor"
        )
