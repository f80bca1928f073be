"""What every engine of a shared log does, whatever keeps the log: the double in memory and the real one alike."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from influxrelay.core.errors import JournalError
from influxrelay.journal.records import JournalLimits
from influxrelay.journal.shared.interface import Conflict, Engine, Entry, Full, Message

_ids = itertools.count()


class EngineContract:
    """Two engines at one log, which is empty at first, as two relays have them; to be mixed into a test case."""

    one: Any
    two: Any
    assertEqual: Any
    assertIsNone: Any
    assertLess: Any

    async def done(self, deferred: Deferred[Any]) -> Any:
        """Let time pass until something has fired, and return its result."""
        raise NotImplementedError

    async def until(self, condition: Callable[[], Any]) -> None:
        """Let time pass until something holds."""
        raise NotImplementedError

    async def failed(self, kind: type[Exception], deferred: Deferred[Any]) -> None:
        """Check that something fails in a certain way."""
        try:
            result = await self.done(deferred)
        except kind:
            return
        raise AssertionError(f"{result!r} instead of {kind.__name__}")

    async def put(self, *payloads: bytes, by: Engine | None = None) -> list[int]:
        """Publish messages one after the other, and return their sequences."""
        engine = by or self.one
        publish = engine.log.publish
        return [
            await self.done(publish(f"{engine.name}.log", payload, {"to": "x"}, msg_id=f"{next(_ids)}"))
            for payload in payloads
        ]

    async def test_an_empty_log(self) -> None:
        """Whoever follows is in sync at once."""
        state = await self.done(self.one.log.state())
        self.assertEqual((state.first_seq, state.last_seq, state.messages), (1, 0, 0))
        await self.done(self.one.log.follow(0, lambda message: None).in_sync)
        await self.done(self.one.bucket.watch("backend.", lambda entry: None).in_sync)

    async def test_one_order(self) -> None:
        """What either publishes is handed to both in the order of the sequences, from where they begin."""
        seen: list[Message] = []
        behind: list[int] = []
        early = self.two.log.follow(0, seen.append)
        for number in range(3):
            await self.put(f"1 {number}".encode())
            await self.put(f"2 {number}".encode(), by=self.two)
        await self.done(early.in_sync)
        late = self.one.log.follow(2, lambda message: behind.append(message.seq))
        await self.done(late.in_sync)
        await self.until(lambda: len(seen) == 6)
        self.assertEqual([each.seq for each in seen], [1, 2, 3, 4, 5, 6])
        self.assertEqual([each.payload for each in seen], [b"1 0", b"2 0", b"1 1", b"2 1", b"1 2", b"2 2"])
        self.assertEqual(
            {(each.subject, each.headers["to"], each.size) for each in seen}, {(f"{self.one.name}.log", "x", 3)}
        )
        self.assertEqual(behind, [3, 4, 5, 6])
        late.stop()
        await self.put(b"7")
        await self.until(lambda: len(seen) == 7)
        self.assertEqual(behind, [3, 4, 5, 6])

    async def test_in_flight(self) -> None:
        """Messages that are published at once are stored in the order of the calls."""
        publish = self.one.log.publish
        stored = [publish(f"{self.one.name}.log", b"x" * 1000, msg_id=f"m{number}") for number in range(50)]
        self.assertEqual([await self.done(each) for each in stored], list(range(1, 51)))

    async def test_once(self) -> None:
        """A message that is published again is not stored again."""
        first = await self.done(self.one.log.publish(f"{self.one.name}.strike", b"a", msg_id="same"))
        again = await self.done(self.two.log.publish(f"{self.one.name}.strike", b"a", msg_id="same"))
        self.assertEqual((first, again, (await self.done(self.one.log.state())).messages), (1, 1, 1))

    async def test_get(self) -> None:
        """What was purged is left out, and what is not there yet fails."""
        await self.put(*[f"{number}".encode() for number in range(1, 7)])
        await self.done(self.one.log.purge(2))
        found = await self.done(self.two.log.get([1, 3, 2, 5]))
        self.assertEqual([(each.seq, each.payload) for each in found], [(3, b"3"), (5, b"5")])
        state = await self.done(self.two.log.state())
        self.assertEqual((state.first_seq, state.last_seq, state.messages), (3, 6, 4))
        await self.failed(JournalError, self.one.log.get([3, 8]))
        seen: list[int] = []
        await self.done(self.one.log.follow(0, lambda message: seen.append(message.seq)).in_sync)
        self.assertEqual(seen, [3, 4, 5, 6])
        await self.done(self.one.log.purge(6))
        await self.done(self.one.log.follow(0, lambda message: seen.append(message.seq)).in_sync)
        self.assertEqual(seen, [3, 4, 5, 6])
        await self.done(self.one.log.purge(1000))
        state = await self.done(self.two.log.state())
        self.assertEqual((state.first_seq, state.last_seq, await self.put(b"7")), (1001, 1000, [1001]))

    async def test_headers_only(self) -> None:
        """Payloads can be left out; their sizes are there all the same, and times."""
        await self.put(b"a" * 1000, b"")
        seen: list[Message] = []
        await self.done(self.one.log.follow(0, seen.append, headers_only=True).in_sync)
        whole = await self.done(self.one.log.get([1, 2]))
        self.assertEqual(
            [(each.payload, each.size, each.headers["to"]) for each in seen], [(b"", 1000, "x"), (b"", 0, "x")]
        )
        for left, right in zip(seen, whole, strict=True):
            self.assertLess(abs(left.time - right.time), 0.001)

    async def test_full(self) -> None:
        """A full log refuses new messages, or drops the oldest; which one can be changed."""
        size = 200_000
        await self.done(self.one.reconfigure(JournalLimits(5 * size, 0.0, drop_oldest=False)))
        await self.put(*[b"%d" % number + b"x" * size for number in range(4)])
        await self.failed(Full, self.one.log.publish(f"{self.one.name}.log", b"x" * size, msg_id="over"))
        await self.done(self.one.reconfigure(JournalLimits(5 * size, 0.0, drop_oldest=True)))
        await self.put(b"5" * size)
        state = await self.done(self.two.log.state())
        self.assertEqual((state.first_seq, state.last_seq), (2, 5))

    async def test_bucket(self) -> None:
        """Values are changed by whoever knows the revision."""
        seen: list[Entry] = []
        bucket = self.one.bucket
        self.assertIsNone(await self.done(bucket.load("backend.a")))
        first = await self.done(bucket.create("backend.a", b"1"))
        other = await self.done(bucket.create("losses.a", b"x"))
        watch = self.two.bucket.watch("backend.", seen.append)
        await self.done(watch.in_sync)
        self.assertEqual(seen, [Entry("backend.a", b"1", first)])
        await self.failed(Conflict, self.two.bucket.create("backend.a", b"2"))
        second = await self.done(bucket.update("backend.a", b"2", first))
        await self.failed(Conflict, self.two.bucket.update("backend.a", b"3", first))
        await self.failed(Conflict, self.two.bucket.update("backend.b", b"3", other))
        self.assertEqual(await self.done(self.two.bucket.load("backend.a")), Entry("backend.a", b"2", second))
        await self.done(bucket.delete("backend.a"))
        self.assertIsNone(await self.done(bucket.load("backend.a")))
        await self.failed(Conflict, bucket.update("backend.a", b"3", second))
        again = await self.done(bucket.create("backend.a", b"4"))
        await self.until(lambda: seen[-1] == Entry("backend.a", b"4", again))
        self.assertEqual(sorted(each.revision for each in seen), [each.revision for each in seen])
        self.assertEqual({each.key for each in seen}, {"backend.a"})

    async def test_letters(self) -> None:
        """Dead letters are removed one by one, in whatever order."""
        publish = self.one.letters.publish
        for number in range(4):
            await self.done(publish(f"{self.one.name}-letters.a", b"%d" % number, msg_id=f"l{number}"))
        self.assertEqual(await self.done(self.two.letters.delete([2, 4, 9])), 2)
        self.assertEqual(await self.done(self.one.letters.delete([2])), 0)
        seen: list[int] = []
        await self.done(self.one.letters.follow(0, lambda message: seen.append(message.seq)).in_sync)
        self.assertEqual(seen, [1, 3])
        self.assertEqual([each.payload for each in await self.done(self.one.letters.get([1, 2, 3]))], [b"0", b"2"])

    async def test_not_stored(self) -> None:
        """What is only sent reaches all who subscribe, in order, the sender too."""
        seen: list[tuple[str, bytes]] = []
        watches = [
            engine.subscribe(f"{self.one.name}.decided", lambda payload, name=name: seen.append((name, payload)))
            for name, engine in (("one", self.one), ("two", self.two))
        ]
        for watch in watches:
            await self.done(watch.in_sync)
        for number in range(3):
            self.one.send(f"{self.one.name}.decided", b"%d" % number)
            self.one.send(f"{self.one.name}.outcome.other", b"nobody")
        await self.until(lambda: len(seen) == 6)
        self.assertEqual([payload for name, payload in seen if name == "two"], [b"0", b"1", b"2"])
        self.assertEqual([payload for name, payload in seen if name == "one"], [b"0", b"1", b"2"])

    async def test_close(self) -> None:
        """Whatever is asked afterwards fails, and nothing is handed out any more."""
        seen: list[Message] = []
        await self.done(self.one.log.follow(0, seen.append).in_sync)
        await self.done(self.one.close())
        await self.failed(JournalError, self.one.log.publish(f"{self.one.name}.log", b"a", msg_id="late"))
        await self.put(b"b", by=self.two)
        self.assertEqual(seen, [])
