"""A disk that is full while a journal is written."""

from __future__ import annotations

from testing.journal_child import Child, numbers
from testing.journal_relay import JournalTestCase
from testing.scripted import ScriptedBackend, until

FULL = 60_000  # bytes that each of the relay's files may have when the "disk" is full
SIZE = 100_000  # bytes of a write


class FullDiskTests(JournalTestCase):
    """The disk is full for a while (no file of the relay's may grow)."""

    async def test_relay(self) -> None:
        """With one backend well, writes are acknowledged, and both get them; then the journal works again."""
        one, two = self.backend(), self.backend()
        child = Child(self, "relay", self.directory, one=one, two=two)
        await child.start()
        self.assertEqual(await child.write(1, SIZE), 204)
        child.limit(FULL)
        for number in range(2, 31):
            self.assertEqual(await child.write(number, SIZE), 204)
        self.assertGreaterEqual(child.said("the journal in"), 1, "no trouble was made")
        await until(lambda: numbers(one) == numbers(two) == list(range(1, 31)), "all writes at both backends")
        child.limit()
        self.assertEqual(await child.write(31), 204)
        await until(lambda: child.said("works again") == 1, "the line that all is well")
        self.assertEqual(child.said("Traceback"), 0)
        self.assertEqual(child.said("the journal in"), 2, child.relay.log.read_text())  # not one for each write
        await two.stop()
        for number in range(32, 40):
            self.assertEqual(await child.write(number, SIZE), 204)
        await child.kill()
        two.listen()
        await child.start()
        await until(lambda: numbers(two)[-8:] == list(range(32, 40)), "what was written after the trouble")

    async def test_refuse(self) -> None:
        """With ``journal-on-error = "refuse"`` a write that is not journaled is not acknowledged."""
        one, two = self.backend(), self.backend()
        child = Child(self, "relay", self.directory, 'journal-on-error = "refuse"', one=one, two=two)
        await child.start()
        statuses = [await child.write(number, SIZE) for number in range(1, 6)]
        child.limit(FULL)
        statuses += [await child.write(number, SIZE) for number in range(6, 21)]
        self.assertEqual(statuses, [204] * 5 + [503] * 15)
        self.assertIn(b"unable to journal the write", child.words)
        child.limit()
        self.assertEqual(await child.write(100), 204)

    async def test_any(self) -> None:
        """Both backends are down: what is acknowledged is on disk, also across ``kill -9``, and the rest is refused."""
        one, two = self.backend(), self.backend()
        child = Child(self, "relay", self.directory, one=one, two=two)
        await child.start()
        await one.stop()
        await two.stop()
        told = {number: await child.write(number, SIZE, "any") for number in range(1, 6)}
        child.limit(FULL)
        told |= {number: await child.write(number, SIZE, "any") for number in range(6, 21)}
        self.assertEqual({204, 503}, set(told.values()))
        child.limit()
        told |= {number: await child.write(number, SIZE, "any") for number in range(21, 26)}
        self.assertEqual([told[number] for number in range(21, 26)], [204] * 5)
        await child.kill()
        one.listen()
        two.listen()
        await child.start()
        acknowledged = [number for number in told if told[number] == 204]
        await until(lambda: min(len(numbers(one)), len(numbers(two))) >= len(acknowledged), "what was acknowledged")
        self.assertEqual(numbers(one), acknowledged)
        self.assertEqual(numbers(two), acknowledged)

    async def with_full_disk(self, writes: int) -> tuple[Child, ScriptedBackend]:
        """Start a relay one of whose backends is down and whose disk is full; return it and that backend."""
        one, two = self.backend(), self.backend()
        child = Child(self, "relay", self.directory, one=one, two=two)
        await child.start()
        await two.stop()
        self.assertEqual(await child.write(1, SIZE), 204)
        child.limit(FULL)
        for number in range(2, writes + 1):
            self.assertEqual(await child.write(number, SIZE), 204)
        return child, two

    async def test_backlog(self) -> None:
        """One backend is down while the disk is full: each acknowledged write gets there, or is counted."""
        child, two = await self.with_full_disk(writes=30)
        child.limit()
        self.assertEqual(await child.write(31), 204)
        await child.stop()
        two.listen()
        await child.start()
        await until(lambda: 31 in numbers(two), "the last write")
        await child.stop()
        with self.opened() as journal:
            dropped = sum(drop.writes for drop in journal.drops() if drop.backend == "two")
        self.assertEqual(len(set(numbers(two))) + dropped, 31)
        self.assertEqual(numbers(two), sorted(numbers(two)))

    async def test_stop(self) -> None:
        """A relay with a full disk stops in order."""
        child, _ = await self.with_full_disk(writes=14)
        await child.stop()
        self.assertEqual(child.said("Traceback"), 0)
        self.assertEqual(child.said("influxrelay has stopped"), 1)
