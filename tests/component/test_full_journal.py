"""A journal that is full, and refuses more, while a backend has a backlog in it."""

from __future__ import annotations

import re

from influxrelay.listeners.http import HTTPService
from testing.journal_relay import JournalTestCase, line
from testing.scripted import ScriptedBackend, request, until

MB = 1024 * 1024
SIZE = 50_000  # bytes of a write
MANY = 2 * MB // SIZE  # writes that are twice as much as the journal may have


def numbers(backend: ScriptedBackend) -> list[int]:
    """Return the numbers of the writes that a backend has got, in order."""
    found = re.findall(rb"(?m)^m v=(\d+)i", b"".join(each.lines for each in backend.requests))
    return [int(each) for each in dict.fromkeys(found)]


class RejectTests(JournalTestCase):
    """``journal-full = "reject"``."""

    def take_down(self, *backends: ScriptedBackend) -> None:
        """Let backends break all connections; they keep their ports, which somebody else might take."""
        for each in backends:
            each.rejects = True
            for connection in list(each.connections):
                connection.transport.abortConnection()

    async def write_much(self, relay: HTTPService, consistency: str = "one") -> list[int]:
        """Write more than the journal may have, and return the answers' statuses."""
        target = b"/write?db=db&consistency=" + consistency.encode()
        return [(await self.ask(relay, request(target, line(number, SIZE)))).status for number in range(MANY)]

    async def test_room_in_memory(self) -> None:
        """A backend that is down gets also what the journal has refused, in order, as long as the relay lives."""
        good, other = self.backend(), self.backend()
        self.take_down(other)
        relay = self.start(good, other, max_bytes=MB)
        self.assertEqual(await self.write_much(relay), [204] * MANY)
        writer = relay.writer
        assert writer is not None
        self.assertIn("is full", writer.why_unavailable)
        other.rejects = False
        await until(lambda: len(numbers(other)) == MANY, "all writes")
        self.assertEqual((numbers(good), numbers(other)), ([*range(MANY)], [*range(MANY)]))
        self.assertEqual([each.backlog.losses() for each in relay.senders], [[], []])
        await until(lambda: not writer.why_unavailable, "the journal has room again")

    async def test_no_room(self) -> None:
        """What finds no room in memory either is lost for this backend, and counted with its reason and its time."""
        good, other = self.backend(), self.backend()
        self.take_down(other)
        relay = self.start(self.output(good, "good"), self.output(other, "other", max_waiting_mb=1), max_bytes=MB)
        self.assertEqual(await self.write_much(relay), [204] * MANY)
        (loss,) = relay.senders[1].backlog.losses()
        self.assertEqual((loss.reason, loss.bytes), ("full", loss.writes * len(line(99, SIZE))))
        self.assertLessEqual(loss.first, loss.last)
        other.rejects = False
        await until(lambda: len(numbers(other)) == MANY - loss.writes, "the rest of the writes")
        self.assertEqual(numbers(other), sorted(numbers(other)))

    async def test_nobody_takes(self) -> None:
        """With all backends down a write that the journal refuses is refused, and no backend gets it later."""
        good, other = self.backend(), self.backend()
        self.take_down(good, other)
        relay = self.start(good, other, consistency="any", max_bytes=MB)
        statuses = await self.write_much(relay, "any")
        self.assertEqual((sorted(statuses), set(statuses)), (statuses, {204, 503}))
        good.rejects = other.rejects = False
        taken = statuses.count(204)
        await until(lambda: len(numbers(good)) >= taken and len(numbers(other)) >= taken, "what was acknowledged")
        await until(lambda: all(each.is_idle for each in relay.senders), "the end of it")
        self.assertEqual((numbers(good), numbers(other)), ([*range(taken)], [*range(taken)]))
