"""A journal that relays share: what is read, struck, dropped and removed."""

from __future__ import annotations

import attrs

from influxrelay.core.write import CHANGES
from influxrelay.journal.records import JournalLimits
from influxrelay.journal.shared.frames import number_of, seq_of
from testing.journal_cases import OTHER, PLACE
from testing.logs import watch_log
from testing.shared_journals import LEASE, SharedCase


class StrikeTests(SharedCase):
    """Striking."""

    def test_strike(self) -> None:
        """A struck write is not read, at no relay, nor after a restart, and is not counted."""
        first, second = self.relay("ra"), self.relay("rb")
        numbers = self.append(second, b"one\n", b"two\n", b"three\n") + self.append(second, b"four\n")
        self.result(second.journal.strike(numbers[1]))
        self.result(second.journal.strike(numbers[3]))
        for relay in (first, second, self.relay("rc")):
            self.later(0.1)
            self.assertEqual(self.read(relay), [b"one\n", b"three\n"])
            depth = self.contents(relay).depths["a"]
            self.assertEqual((depth.writes, depth.bytes), (2, 10))
        self.assertEqual((first.struck, second.struck), ([numbers[1], numbers[3]], [numbers[1], numbers[3]]))

    def test_durable(self) -> None:
        """A strike is done when the log has it; one that fails is tried until it has."""
        relay = self.relay("ra")
        (number,) = self.append(relay, b"one\n")
        self.cluster.quorum = False
        self.fails(relay.journal.strike(number))
        self.cluster.quorum = True
        self.later(3)
        self.kill(relay)
        self.assertEqual(self.read(self.relay("rb")), [])

    def test_later_reader(self) -> None:
        """Who becomes the deliverer after a strike never reads what was struck, however late its messages come."""
        first, second = self.relay("ra"), self.relay("rb")
        self.assertIs(self.deliverer(), first)
        (number, _) = self.append(first, b"one\n", b"two\n")
        late = {second.engine: 2.0}
        self.cluster.travel = lambda what, engine: late.get(engine, 0.0) if what == "push" else 0.0
        self.result(first.journal.strike(number))
        self.kill(first)
        read: list[bytes] = []
        second.gained = lambda *_: read.append(b"")  # type: ignore[method-assign]
        self.until(lambda: read)
        self.assertEqual(self.read(second), [b"two\n"])

    def test_forgotten(self) -> None:
        """Nobody remembers strikes of what every backend has passed."""
        relay = self.relay("ra")
        self.deliverer()
        numbers = self.append(relay, *(b"%d\n" % index for index in range(20)))
        for number in numbers[::2]:
            self.result(relay.journal.strike(number))
        index = relay.journal._index
        self.assertEqual(index.struck, 10)
        (last,) = self.append(relay, b"last\n")
        for backend in ("a", "b"):
            relay.journal.advance(backend, PLACE, last)
        self.until(lambda: not self.cluster.log.messages)
        self.later(2)
        self.assertEqual((index.struck, len(index)), (0, 0))
        self.result(relay.journal.strike(numbers[1]))
        self.assertEqual((index.struck, len(self.cluster.log.messages)), (0, 0))


class ReadTests(SharedCase):
    """Reading."""

    def test_pages(self) -> None:
        """A page ends with the write that makes it large enough, and says so, in whatever messages they are."""
        relay = self.relay("ra")
        numbers: list[int] = []
        for _ in range(3):
            numbers += self.append(relay, *(b"x" * 100 for _ in range(3)))
            self.append(relay, b"other\n", where=OTHER)
        self.later(0.1)
        for size, count in ((1, 1), (100, 1), (101, 2), (350, 4)):
            records, upto = self.result(relay.journal.read(PLACE, 0, size))
            self.assertEqual(([each.seq for each in records], upto), (numbers[:count], numbers[count - 1]))
        after, found = 0, []
        while after < relay.journal.last_number:
            records, after = self.result(relay.journal.read(PLACE, after, 250))
            found += [each.seq for each in records]
        self.assertEqual(found, numbers)
        self.assertEqual(self.result(relay.journal.read(CHANGES, 0, 100)), ([], relay.journal.last_number))

    def test_no_answer(self) -> None:
        """A page that cannot be read is an error."""
        first = self.relay("ra")
        self.append(first, b"one\n")
        second = self.relay("rb")
        second.engine.cut()
        self.fails(second.journal.read(PLACE, 0, 100))

    def test_damage(self) -> None:
        """A message that cannot be read is left out, and counted once for every backend."""
        logged = watch_log(self)
        first, second = self.relay("ra"), self.relay("rb")
        self.deliverer()
        self.cluster.travel = lambda what, engine: 1.0 if engine is first.engine and what == "push" else 0.0
        self.append(second, b"one\n", b"two\n")
        message = self.cluster.log.messages[1]
        self.cluster.log.messages[1] = attrs.evolve(message, payload=message.payload[:-1] + b"?")
        (last,) = self.append(second, b"last\n")
        self.later(2)
        self.assertEqual([number for number, _ in first.handed], [last])
        for _ in range(2):
            self.assertEqual(self.read(first), [b"last\n"])
        drops = [(each.backend, each.reason, each.writes, each.bytes) for each in self.contents(first).drops]
        self.assertEqual(drops, [("a", "damaged", 2, 8), ("b", "damaged", 2, 8)])
        self.assertEqual(
            [each for each in logged if "damaged" in each], ["nats://memory/relay: message 1: the message is damaged"]
        )

    def test_hole(self) -> None:
        """A message that the log has lost is counted for every backend, when it does not come or when it is read."""
        first, second = self.relay("ra"), self.relay("rb")
        self.deliverer()
        self.append(second, b"first\n")
        self.later(0.1)
        first.engine.cut()
        self.append(second, b"one\n")
        self.cluster.log.remove(2)
        first.engine.mend()
        self.append(second, b"two\n", b"three\n")
        self.append(second, b"last\n")
        self.later(1)
        self.kill(first)
        self.kill(second)
        third = self.relay("rc")
        self.until(lambda: third.held)
        self.cluster.log.remove(3)
        for _ in range(2):
            self.assertEqual(self.read(third), [b"first\n", b"last\n"])
        drops = [(each.backend, each.reason, each.writes, each.bytes) for each in self.contents(third).drops]
        self.assertEqual(drops, [("a", "damaged", 3, 10), ("b", "damaged", 3, 10)])

    def test_reconnection(self) -> None:
        """After a lost connection nothing is left out and nothing comes twice."""
        first, second = self.relay("ra"), self.relay("rb")
        self.assertIs(self.deliverer(), first)
        numbers = self.append(second, b"one\n")
        for _ in range(3):
            first.engine.cut()
            numbers += self.append(second, b"two\n", b"three\n")
            self.later(1)
            first.engine.mend()
            self.later(0.2)
            numbers += self.append(second, b"four\n")
        self.later(1)
        self.assertEqual([number for number, _ in first.handed], numbers)


class LimitTests(SharedCase):
    """Age and size."""

    def test_age(self) -> None:
        """What is too old is counted once, whoever delivers, and the deliverer is told to give it up."""
        self.cluster = self.make_cluster(max_age=10.0)
        limits = JournalLimits(max_age=10.0)
        first, second = self.relay("ra", limits=limits), self.relay("rb", limits=limits)
        self.assertIs(self.deliverer(), first)
        numbers = self.append(second, b"one\n", b"two\n")
        self.append(second, b"other\n", where=OTHER)
        first.journal.advance("a", PLACE, numbers[0])
        self.later(5)
        (last,) = self.append(second, b"last\n")
        self.later(8)
        end = number_of(seq_of(numbers[0]) + 1, 0xFFFF)
        told = {each[1:] for each in first.events if each[0] == "dropped"}
        self.assertEqual(told, {(key, where, end) for key in "ab" for where in (PLACE, OTHER)})
        self.kill(first)
        self.later(LEASE + 1)
        self.assertEqual(set(second.held), {"a", "b"})
        for relay in (second, self.relay("rc", limits=limits)):
            drops = {each.backend: (each.reason, each.writes, each.bytes) for each in self.contents(relay).drops}
            self.assertEqual(drops, {"a": ("age", 3, 15), "b": ("age", 4, 19)})
        self.assertGreater(last, end)

    def test_full(self) -> None:
        """What makes way for newer writes is counted, too, and so is what went while no relay was there."""
        self.cluster = self.make_cluster(max_bytes=5000, drop_oldest=True)
        limits = JournalLimits(5000, drop_oldest=True)
        first = self.relay("ra", limits=limits)
        self.deliverer()
        for _ in range(4):
            self.append(first, b"x" * 2000)
        self.later(3)
        (drop,) = [each for each in self.contents(first).drops if each.backend == "a"]
        self.assertEqual((drop.reason, drop.writes, drop.bytes), ("full", 2, 4000))
        self.kill(first)
        self.cluster.log.remove(3)
        second = self.relay("rb", limits=limits)
        self.deliverer()
        self.later(3)
        (drop,) = [each for each in self.contents(second).drops if each.backend == "a"]
        self.assertEqual((drop.reason, drop.writes), ("full", 3))

    def test_purge(self) -> None:
        """What every backend has passed is removed from the log, and nothing else is."""
        relay = self.relay("ra")
        self.deliverer()
        numbers = [self.append(relay, b"one\n", b"two\n") for _ in range(3)]
        relay.journal.advance("a", PLACE, numbers[2][1])
        relay.journal.advance("b", PLACE, numbers[1][0])
        self.later(3)
        self.assertEqual(list(self.cluster.log.messages), [2, 3])
        relay.journal.advance("b", PLACE, numbers[1][1])
        self.later(3)
        self.assertEqual(list(self.cluster.log.messages), [3])
        self.assertGreater(relay.journal.used, 0)
