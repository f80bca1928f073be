"""A shared journal on real servers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Destination, Reply
from influxrelay.journal.interface import Key, Positions
from influxrelay.journal.records import JournalLimits, Record
from influxrelay.journal.shared.log import SharedJournal
from testing.journal_cases import BACKENDS, PLACE, place, write
from testing.nats_case import NatsCase
from testing.scripted import until

reactor: Any = _reactor


class Follower:
    """What a relay is told."""

    def __init__(self) -> None:
        self.handed: list[tuple[int, bytes]] = []
        self.held: dict[Key, dict[Destination, int]] = {}
        self.struck: set[int] = set()
        self.outcomes: list[tuple[int, str, Reply | BackendFailure]] = []

    def hand_out(self, records: Sequence[Record], origin: str) -> None:
        """Note it."""
        self.handed += [(each.seq, each.write.body) for each in records]

    def outcome(self, number: int, backend: str, result: Reply | BackendFailure) -> None:
        """Note it."""
        self.outcomes.append((number, backend, result))

    def decided(self, numbers: Sequence[int], *, kept: bool) -> None:
        """Note what is struck."""
        self.struck.update(() if kept else numbers)

    def gained(self, key: Key, positions: Positions, last_number: int) -> None:
        """Note it."""
        self.held[key] = dict(positions)

    def lost(self, key: Key) -> None:
        """Note it."""
        del self.held[key]

    def dropped(self, key: Key, destination: Destination, upto: int) -> None:
        """Nothing is."""

    def given_up(self, key: Key, upto: int) -> None:
        """Nothing is."""

    def paused(self, key: Key, *, paused: bool) -> None:
        """Nothing is."""


class JournalTests(NatsCase):
    """Two relays on three servers."""

    timeout = 600
    limits = JournalLimits(100_000_000)

    async def setUp(self) -> None:  # type: ignore[override] # Twisted takes it
        """Open the journals of two relays."""
        await super().setUp()
        self.first, self.told_first = await self.journal(self.one, "r1")
        self.second, self.told_second = await self.journal(self.two, "r2")

    async def journal(self, engine: Any, name: str) -> tuple[SharedJournal, Follower]:
        """Open a relay's journal."""
        journal, follower = SharedJournal(reactor, engine, name, self.limits, lease=2.0), Follower()
        self.addCleanup(journal.stop, 5.0)
        await journal.open(BACKENDS, follower)
        return journal, follower

    def append(self, journal: SharedJournal, body: bytes, where: Destination = PLACE) -> Deferred[int]:
        """Append a write."""
        return journal.append_shared(Record(0, 1.0, write(body, where)))

    async def known(self, journal: SharedJournal, number: int) -> None:
        """Wait until a relay has seen the log up to a number."""
        await until(lambda: journal.last_number >= number, f"the log until {number}")

    async def read(self, journal: SharedJournal, after: int = 0) -> list[bytes]:
        """Read all of a destination."""
        bodies: list[bytes] = []
        while after < journal.last_number:
            records, after = await journal.read(PLACE, after, 300_000)
            bodies += [each.write.body for each in records]
        return bodies

    async def test_order(self) -> None:
        """Both append at the same time, small and large; who delivers gets all in one order, and both read it so."""
        await until(lambda: len(self.told_first.held) == 2, "the first delivers")
        bodies = [b"%d %s\n" % (index, b"x" * random.choice((1, 100, 200_000))) for index in range(100)]
        bodies[50] = b"50 %s\n" % (b"x" * 3_000_000)
        appended = [self.append(random.choice((self.first, self.second)), body) for body in bodies]
        numbers = {await each: body for each, body in zip(appended, bodies, strict=True)}
        expected = sorted(numbers.items())
        await until(lambda: len(self.told_first.handed) == 100, "all is handed out")
        self.assertEqual([number for number, _ in self.told_first.handed], [number for number, _ in expected])
        for journal in (self.first, self.second):
            await self.known(journal, expected[-1][0])
            self.assertTrue(await self.read(journal) == [body for _, body in expected])

    async def test_strike_and_hand_over(self) -> None:
        """What is struck is gone for both; a relay that stops hands over at once, with its positions and letters."""
        await until(lambda: len(self.told_first.held) == 2, "the first delivers")
        numbers = [await self.append(self.second, b"%d\n" % index) for index in range(5)]
        await self.second.strike(numbers[3])
        await until(lambda: numbers[3] in self.told_first.struck, "the other knows")
        self.first.advance("a", PLACE, numbers[1])
        self.first.bury("a", 5.0, write(b"bad\n"), 400, 'no "\u00e9\u4e2d"\r\n')
        self.first.count_loss("a", "full", 5.0, 7)
        self.first.outcome(numbers[0], "r2", "a", Reply(400, ((b"X-Influxdb-Error", b"\xff"),), b"no\xff"))
        await until(lambda: self.told_second.outcomes, "the origin knows")
        await self.first.stop(5.0)
        await until(lambda: len(self.told_second.held) == 2, "the second delivers")
        self.assertEqual(self.told_second.held["a"], {PLACE: numbers[2] - 1})
        self.assertEqual(await self.read(self.second, numbers[1]), [b"2\n", b"4\n"])
        contents = await self.second.contents()
        self.assertEqual((contents.depths["a"].writes, contents.depths["b"].writes), (2, 4))
        self.assertEqual([(each.backend, each.writes) for each in contents.drops], [("a", 1)])
        (letter,) = await self.second.dead_letters(0, 10)
        self.assertEqual((letter.message, letter.write.body), ('no "\u00e9\u4e2d"\r\n', b"bad\n"))
        (outcome,) = self.told_second.outcomes
        self.assertEqual(outcome, (numbers[0], "a", Reply(400, ((b"X-Influxdb-Error", b"\xff"),), b"no\xff")))
        self.assertEqual(await self.second.drop_dead_letters([letter.id]), 1)
        self.assertEqual((await self.second.contents()).dead_letters, {})
        for key in ("a", "b"):
            self.second.advance(key, PLACE, self.second.last_number)
        await until(lambda: self.second.used < 2000, "the log is empty")

    async def test_many_destinations(self) -> None:
        """Thousands of destinations come together."""
        await until(lambda: len(self.told_first.held) == 2, "the first delivers")
        await gatherResults([self.append(self.second, b"x\n", place(index)) for index in range(5000)])
        await until(lambda: len(self.told_first.handed) == 5000, "all is handed out")
        third, _ = await self.journal(await self.connected(self.servers.addresses), "r3")
        self.assertEqual((await third.contents()).depths["a"].writes, 5000)

    async def test_leader(self) -> None:
        """The leader of the log dies: what was acknowledged is there, once, and it goes on by itself."""
        await until(lambda: len(self.told_first.held) == 2, "the first delivers")
        kept: list[tuple[int, bytes]] = []
        count = 0
        going = True

        def more(journal: SharedJournal) -> None:
            nonlocal count
            if going:
                count += 1
                body = b"%d\n" % count
                appended = self.append(journal, body)
                appended.addCallbacks(lambda number: kept.append((number, body)), lambda _: None)
                appended.addCallback(lambda _: reactor.callLater(0.01, more, journal))

        for journal in (self.first, self.second):
            for _ in range(8):
                more(journal)
        await until(lambda: len(kept) > 100, "some writes")
        self.addCleanup(deferToThread, self.servers.start)
        leader = await deferToThread(self.servers.leader, self.stream)
        assert leader is not None
        leader.kill()
        at_least = len(kept) + 100
        await until(lambda: len(kept) > at_least, "some writes without it")
        going = False
        await deferToThread(self.servers.start)
        await until(lambda: not self.first.trouble and not self.second.trouble, "all is well")
        last = max(kept)[0]
        for journal in (self.first, self.second):
            await self.known(journal, last)
        bodies = await self.read(self.second)
        self.assertEqual(len(bodies), len(set(bodies)))
        self.assertEqual([body for _, body in sorted(kept)], [body for body in bodies if body in {b for _, b in kept}])
        self.assertEqual(await self.read(self.first), bodies)
