"""The bounds of a journal in bytes and age."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.threads import deferToThread

from influxrelay.journal import housekeeping
from influxrelay.listeners.http import HTTPService
from testing.journal_child import numbers
from testing.journal_relay import JournalTestCase, line
from testing.scripted import ScriptedBackend, until

MB = 1024 * 1024


class BoundTests(JournalTestCase):
    """What is dropped is counted, exactly."""

    COUNT = 100
    BYTES = 25_000

    async def account(self, relay: HTTPService, *backends: ScriptedBackend) -> tuple[list[int], list[Any]]:
        """Restart with the second backend back, and return what it got and the drops that are counted for it."""
        one, two = backends
        await self.stop(relay)
        two.listen()
        relay = self.start(one, two)
        await self.write(relay, 10_000)
        await until(lambda: 10_000 in numbers(two), "the last write")
        await self.stop(relay)
        with self.opened() as journal:
            drops = journal.drops()
        self.assertEqual([drop for drop in drops if drop.backend == "backend-0"], [])
        self.assertEqual(numbers(two), sorted(numbers(two)))
        return numbers(two)[:-1], drops

    async def fill_up(self, relay: HTTPService) -> dict[int, tuple[float, float]]:
        """Write more than there is room for; return when each number was written."""
        times = {}
        for number in range(1, self.COUNT + 1):
            began = time.time()
            self.assertEqual(await self.write(relay, number, self.BYTES), 204)
            times[number] = (began, time.time())
        return times

    def check_drops(self, got: list[int], drops: list[Any], times: dict[int, tuple[float, float]]) -> None:
        """Compare what is counted with what is missing."""
        missing = sorted(set(times) - set(got))
        (drop,) = drops
        self.assertEqual((drop.backend, drop.reason, drop.writes), ("backend-1", "full", len(missing)))
        self.assertEqual(drop.bytes, sum(len(line(number, self.BYTES)) for number in missing))
        for when, number in ((drop.first, missing[0]), (drop.last, missing[-1])):
            first, last = times[number]
            self.assertTrue(first <= when <= last, f"{when} is not when write {number} came ({first} to {last})")

    async def test_reject(self) -> None:
        """What the full journal has refused for a backend that is down is lost for it, and counted."""
        one, two = self.backend(), self.backend()
        await two.stop()
        relay = self.start(one, two, max_bytes=MB)
        times = await self.fill_up(relay)
        got, drops = await self.account(relay, one, two)
        self.assertEqual(got, list(range(1, len(got) + 1)))
        self.assertGreater(len(got), 20)
        self.check_drops(got, drops, times)

    async def test_reject_behind(self) -> None:
        """The same where the end of what waits is on disk only."""
        one, two = self.backend(), self.backend()
        await two.stop()
        outputs = [self.output(one, "backend-0"), self.output(two, "backend-1", max_waiting_mb=1)]
        relay = self.start(*outputs, max_bytes=2 * MB)
        times = await self.fill_up(relay)
        got, drops = await self.account(relay, one, two)
        self.assertEqual(got, list(range(1, len(got) + 1)))
        self.assertGreater(len(got), 42)
        self.check_drops(got, drops, times)

    async def test_reject_lets_the_rest_be(self) -> None:
        """A backend that is well does not notice that the journal is full; that it is, is said once."""
        one, two = self.backend(), self.backend()
        await two.stop()
        await self.fill_up(self.start(one, two, max_bytes=MB))
        self.assertEqual(numbers(one), list(range(1, self.COUNT + 1)))

    async def test_reject_any(self) -> None:
        """Nothing takes the write, and it is not in the journal: it is not acknowledged."""
        one, two = self.backend(), self.backend()
        await one.stop()
        await two.stop()
        relay = self.start(one, two, max_bytes=MB, consistency="any")
        told: dict[int, int] = {}
        while list(told.values()).count(503) < 5:
            number = len(told) + 1
            self.assertLess(number, self.COUNT)
            told[number] = await self.write(relay, number, self.BYTES)
        one.listen()
        two.listen()
        kept = [number for number in told if told[number] == 204]
        await until(lambda: min(len(numbers(one)), len(numbers(two))) >= len(kept), "what was acknowledged")
        self.assertEqual(numbers(one), kept)
        self.assertEqual(numbers(two), kept)
        await until(lambda: relay.writer is not None and relay.writer.used < MB // 2, "room in the journal")
        self.assertEqual(await self.write(relay, 10_000), 204)

    async def test_drop_oldest(self) -> None:
        """The oldest goes, no more than has to."""
        one, two = self.backend(), self.backend()
        await two.stop()
        relay = self.start(one, two, max_bytes=MB, full="drop-oldest")
        times = await self.fill_up(relay)
        got, drops = await self.account(relay, one, two)
        self.assertEqual(got, list(range(self.COUNT + 1 - len(got), self.COUNT + 1)))
        self.check_drops(got, drops, times)
        self.assertGreater(len(got) * self.BYTES, MB // 2, "too much was dropped")

    async def test_drop_oldest_and_go_on(self) -> None:
        """A backend that comes back to the same process gets what was not dropped, and nothing else."""
        one, two = self.backend(), self.backend()
        await two.stop()
        relay = self.start(one, two, max_bytes=MB, full="drop-oldest")
        times = await self.fill_up(relay)
        two.listen()
        await self.write(relay, 10_000)
        await until(lambda: 10_000 in numbers(two), "the last write")
        await self.stop(relay)
        with self.opened() as journal:
            self.check_drops(numbers(two)[:-1], journal.drops(), times)

    async def test_reject_and_go_on(self) -> None:
        """A backend that comes back to the same process gets all that is not counted as lost."""
        one, two = self.backend(), self.backend()
        await two.stop()
        relay = self.start(one, two, max_bytes=MB)
        await self.fill_up(relay)
        two.listen()
        await until(lambda: relay.writer is not None and relay.writer.used < MB // 2, "room in the journal")
        await self.write(relay, 10_000)
        await until(lambda: 10_000 in numbers(two), "the last write")
        await self.stop(relay)
        with self.opened() as journal:
            dropped = sum(drop.writes for drop in journal.drops())
        self.assertEqual(len(numbers(two)[:-1]) + dropped, self.COUNT)

    async def test_age(self) -> None:
        """What is too old goes, counted, with its time."""
        self.patch(housekeeping, "CHECK_AGE", 0.0)
        one, two = self.backend(), self.backend()
        await two.stop()
        relay = self.start(one, two, max_age=1.0)
        began = time.time()
        for number in range(1, 6):
            await self.write(relay, number)
        ended = time.time()
        await self.stop(relay)
        await deferToThread(time.sleep, 1.2)
        relay = self.start(one, two, max_age=1.0)
        await self.write(relay, 6)
        two.listen()
        await until(lambda: 6 in numbers(two), "the young write")
        self.assertEqual(numbers(two), [6])
        await self.stop(relay)
        with self.opened() as journal:
            (drop,) = journal.drops()
        self.assertEqual((drop.backend, drop.reason, drop.writes), ("backend-1", "age", 5))
        self.assertTrue(began <= drop.first <= drop.last <= ended)
