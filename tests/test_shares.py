"""How workers share connections: counts in common memory, and whose turn it is."""

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.shares import ABSENT, PAUSE, Shares, Turns


class Port:
    """A port of which every look accepts one connection."""

    connected, disconnecting = True, False
    numberAccepts = 100

    def __init__(self) -> None:
        self.accepted = 0
        self.reading = True

    def doRead(self) -> None:
        """Accept."""
        assert self.numberAccepts == 1
        self.accepted += 1

    def stopReading(self) -> None:
        """Look no more."""
        self.reading = False

    def startReading(self) -> None:
        """Look again."""
        self.reading = True


class SharesTests(SynchronousTestCase):
    """The counts."""

    def test_common_memory(self) -> None:
        """What one worker notes, another one sees, and who is absent does not count."""
        first = Shares.make(3)
        self.addCleanup(os.close, first.fd)
        second = Shares(first.fd, 3)
        self.assertFalse(first.exceeds(0))  # the others are absent, as it is itself
        first.set(0, 10)
        self.assertFalse(first.exceeds(0))
        second.set(1, 10)
        for count, exceeds in ((12, False), (13, True)):
            first.set(0, count)
            self.assertIs(second.exceeds(0), exceeds, count)
        second.set(1, 80)
        for count, exceeds in ((90, False), (91, True)):
            first.set(0, count)
            self.assertIs(second.exceeds(0), exceeds, count)
        second.set(1, ABSENT)
        self.assertFalse(second.exceeds(0))
        second.set(7, 1)  # a process that takes no connections has no place


class TurnsTests(SynchronousTestCase):
    """Whose turn it is."""

    def setUp(self) -> None:
        """Make two workers, of which this one has one port."""
        self.clock, self.shares, self.count = Clock(), Shares.make(2), 0
        self.addCleanup(os.close, self.shares.fd)
        turns = Turns(self.shares, 0, self.clock)
        turns.count = lambda: self.count
        self.port = Port()
        self.assertIs(turns.take(self.port), self.port)

    def test_fair(self) -> None:
        """While it has no more than its share, a worker accepts one connection at each look."""
        self.shares.set(1, 0)
        for self.count in range(3):
            self.port.doRead()
        self.assertEqual((self.port.accepted, self.port.reading), (3, True))

    def test_more_than_its_share(self) -> None:
        """With more, it lets the others go first before each connection, but refuses none for good."""
        self.shares.set(1, 0)
        self.count = 3
        for number in range(3):
            self.port.doRead()
            self.assertEqual((self.port.accepted, self.port.reading), (number, False))
            self.clock.advance(PAUSE)
            self.assertTrue(self.port.reading)
            self.port.doRead()
            self.assertEqual(self.port.accepted, number + 1)

    def test_closed_meanwhile(self) -> None:
        """A port that is closed while it waits stays closed."""
        self.shares.set(1, 0)
        self.count = 3
        self.port.doRead()
        self.port.disconnecting = True
        self.clock.advance(PAUSE)
        self.assertFalse(self.port.reading)
