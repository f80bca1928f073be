"""What writes take in memory, compared with what is counted for them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.write import Destination, Reply
from influxrelay.delivery.backlog import Backlog, MemoryBacklog
from influxrelay.delivery.destination_queue import ENTRY_BYTES, QUEUE_BYTES
from influxrelay.delivery.fanout import FanOut
from influxrelay.delivery.journal_backlog import READ_AHEAD, JournalBacklog
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.settings import SenderSettings
from influxrelay.journal.interface import Key
from influxrelay.journal.records import Record
from testing.backends import FakeBackend, destination, write
from testing.fanout import make_hand_out
from testing.journals import MemoryJournal

MIB = 1024 * 1024
WRITES = 1000
PLACE = destination()
SIZE = 7 + 2 * len(b"db=db") + ENTRY_BYTES  # of a write


class AnsweringBackend(FakeBackend):
    """A backend that takes whatever it gets."""

    def post(self, *request: Any) -> Any:
        """Answer at once."""
        self.posts.clear()
        self.at_once = [Reply(204)]
        return super().post(*request)


class DistantJournal(MemoryJournal):
    """A journal that takes none of this process's memory."""

    def append(self, record: Record) -> Deferred[None]:
        """Take a write, and forget it."""
        self.last_number = record.seq
        return succeed(None)

    def advance(self, key: Key, destination: Destination, number: int) -> None:
        """Forget a position."""


class MemoryTests(SynchronousTestCase):
    """Tiny writes that one backend takes and another does not."""

    def build(self, backlog: Backlog, journal: Any = None) -> None:
        """Have a backend that is well and one that is dead."""
        self.clock = Clock()
        self.dead = FakeBackend()
        self.sender = Sender(self.dead, self.clock, SenderSettings("dead", buffer=100 * MIB), backlog)
        well = Sender(
            AnsweringBackend(),
            self.clock,
            SenderSettings("well"),
            None if journal is None else JournalBacklog(journal, self.clock),
        )
        self.fan_out = FanOut("test", [well, self.sender], make_hand_out(self.clock, journal))
        self.submit(0)
        self.dead.pending[0].fail()

    def submit(self, number: int, to: Destination = PLACE) -> None:
        """Submit a write of seven bytes."""
        reply = self.successResultOf(self.fan_out.submit(write(b"a v=%03d" % (number % 1000), to)))
        self.assertEqual(reply.status, 204)

    def memory(self, action: Callable[[], object]) -> int:
        """Return how many bytes more are in use after an action."""
        action()  # what is made once is there now
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            action()
            return tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()

    def fill(self) -> None:
        """Submit many writes to one destination."""
        for number in range(WRITES):
            self.submit(number)

    def spread(self) -> None:
        """Submit a write to each of many destinations, which no other call did."""
        for number in range(WRITES):
            self.submit(number, destination(b"%d" % (len(self.sender.queues) + WRITES)))

    def test_writes_in_memory(self) -> None:
        """A write that waits takes no more than is counted for it, and not much less."""
        for backlog in (Backlog(), MemoryBacklog()):
            self.build(backlog)
            taken = self.memory(self.fill) / WRITES
            self.assertLess(taken, SIZE)
            self.assertGreater(taken, 0.8 * SIZE)
            waiting = 2 * WRITES + backlog.keeps
            self.assertEqual(self.sender.queues.memory.size, waiting * SIZE + QUEUE_BYTES)

    def test_destinations(self) -> None:
        """A destination takes no more than is counted for it."""
        for backlog in (Backlog(), MemoryBacklog()):
            self.build(backlog)
            taken = self.memory(self.spread) / WRITES
            self.assertLess(taken, SIZE + QUEUE_BYTES)

    def test_journal(self) -> None:
        """With a journal nothing of a write stays in memory once it is durable, beyond the head of the backlog."""
        journal: Any = DistantJournal()
        self.build(JournalBacklog(journal, Clock()), journal)
        self.fill()
        self.assertLess(self.memory(self.fill), 50 * WRITES)
        self.assertLess(self.sender.queues.memory.size, READ_AHEAD + QUEUE_BYTES)
        self.assertTrue(self.sender.queues.are_on_disk())
