"""The event loop below a reactor."""

from __future__ import annotations

import asyncio
import threading

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.transport.event_loop import event_loop


class EventLoopTests(SynchronousTestCase):
    """:func:`event_loop`."""

    def test_loop_of_the_reactor(self) -> None:
        """It is the reactor's, whichever thread asks and whichever loop is current, as in a process that has forked."""
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        reactor = AsyncioSelectorReactor(loop)
        self.addCleanup(reactor.disconnectAll)
        found = [event_loop(reactor)]
        thread = threading.Thread(target=lambda: found.append(event_loop(reactor)))
        thread.start()
        thread.join()
        self.assertEqual(found, [loop, loop])

    def test_none(self) -> None:
        """Another reactor has none."""
        self.assertIsNone(event_loop(Clock()))
