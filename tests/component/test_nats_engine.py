"""The engine on real servers."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import JournalError
from influxrelay.journal.records import JournalLimits
from influxrelay.journal.shared.engine import NatsEngine
from testing.engine_contract import EngineContract
from testing.nats_case import NatsCase


class ContractTests(NatsCase, EngineContract):
    """The real engine does what every engine does."""


class ReactorTests(SynchronousTestCase):
    """Reactors that it cannot work with."""

    def test_another_reactor(self) -> None:
        """A reactor without an event loop is refused, with what to do."""
        make = (Clock(), "nats://h/s", ["h:4222"], "s", JournalLimits())
        error = self.assertRaises(JournalError, NatsEngine, *make)
        self.assertEqual(
            str(error), "nats://h/s: a shared journal needs a reactor on asyncio; start twistd without --reactor"
        )
