"""A journal that relays share: what is appended, handed out, struck and read."""

from __future__ import annotations

import attrs

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Destination, Reply
from influxrelay.journal.records import Record
from influxrelay.journal.shared.committer import MESSAGE
from influxrelay.journal.shared.frames import HEADER, HEADER_BYTES, number_of
from influxrelay.journal.shared_log import SharedLog
from testing.journal_cases import OTHER, PLACE, place, write
from testing.memory_watches import ANSWER, REQUEST
from testing.shared_journals import SharedCase, large


class AppendTests(SharedCase):
    """Appending."""

    def test_interface(self) -> None:
        """It is what delivery asks for."""
        journal: SharedLog = self.relay("ra").journal
        self.assertEqual((journal.relay, journal.trouble, journal.why_unavailable), ("ra", "", ""))
        self.assertEqual((journal.next_number(), journal.place), (0, "nats://memory/relay"))

    def test_order(self) -> None:
        """Numbers rise, and every relay reads the same writes with the same numbers in the same order."""
        first, second = self.relay("ra"), self.relay("rb")
        appended = [
            relay.journal.append_shared(Record(0, 1.0, write(b"%d\n" % index, where)))
            for index in range(50)
            for relay, where in ((first, PLACE), (second, PLACE), (first, OTHER))
        ]
        numbers = [self.result(each) for each in appended]
        self.assertEqual(len(set(numbers)), 150)
        for mine in (numbers[::3], numbers[1::3], numbers[2::3]):
            self.assertEqual(mine, sorted(mine))
        self.later(1.0)
        bodies = self.read(first)
        self.assertEqual((len(bodies), self.read(second)), (100, bodies))
        self.assertEqual(self.read(second, where=OTHER), [b"%d\n" % index for index in range(50)])
        self.assertEqual([number for number, _ in first.handed], sorted(numbers))
        self.assertEqual({number for number, origin in first.handed if origin == "rb"}, set(numbers[1::3]))

    def test_group_commit(self) -> None:
        """What comes in one turn, or while a message is under way, is one message."""
        relay = self.relay("ra")
        self.cluster.travel = lambda _what, _engine: 0.05
        appended = [relay.journal.append_shared(Record(0, 1.0, write())) for _ in range(10)]
        self.later(0.05)
        appended += [relay.journal.append_shared(Record(0, 1.0, write())) for _ in range(10)]
        numbers = [self.result(each) for each in appended]
        expected = [number_of(seq, index) for seq in (1, 2) for index in range(10)]
        self.assertEqual((numbers, relay.journal.commits.count), (expected, 2))

    def test_own_records(self) -> None:
        """An own write is handed out as the object that was appended, after its receipt."""
        relay = self.relay("ra")
        self.deliverer()
        record = Record(0, 1.0, write())
        told: list[int] = []
        relay.journal.append(record).addCallback(lambda _: told.append(len(relay.handed)))
        self.later(0.5)
        self.assertEqual((told, relay.handed, relay.records[record.seq] is record), ([0], [(record.seq, "ra")], True))

    def test_many_destinations(self) -> None:
        """However many there are, and however large, each message is small enough; names that are too long fail."""
        relay = self.relay("ra")
        self.append(relay, *(b"x" * 1000 for _ in range(3000)))
        places = [place(index) for index in range(3000)]
        long = [
            attrs.evolve(each, database=b"x" * 200, credentials=(b"", b"y" * 500, b"%d" % index))
            for index, each in enumerate(places)
        ]
        too_long = Destination(b"", b"", b"", (b"x" * 40_000, b"", b""))
        appended = [
            relay.journal.append_shared(Record(0, 1.0, write(b"x\n", each))) for each in (*places, too_long, *long)
        ]
        self.assertIn("too long", self.fails(appended.pop(3000)))
        numbers = [self.result(each) for each in appended]
        for number in numbers[::3]:
            relay.journal.strike(number)
        self.later(3)
        messages = self.cluster.log.messages.values()
        self.assertLessEqual(max(len(each.payload) for each in messages), MESSAGE)
        self.assertLessEqual(max(len(text) for each in messages for text in each.headers.values()), HEADER_BYTES)
        self.assertEqual(self.contents(relay).depths["a"].writes, 3000 + 4000)

    def test_lost_acknowledgement(self) -> None:
        """A write whose acknowledgement is lost is there once, and who waits is told by the log itself."""
        relay = self.relay("ra")
        self.cluster.lose(ANSWER)
        self.assertEqual(self.append(relay, b"one\n"), [number_of(1, 0)])
        self.cluster.lose(REQUEST)
        self.assertEqual(self.append(relay, b"two\n", b"three\n"), [number_of(2, 0), number_of(2, 1)])
        self.later(5)
        self.assertEqual(self.read(relay), [b"one\n", b"two\n", b"three\n"])
        self.assertEqual([number for number, _ in relay.handed], [65536, 131072, 131073])

    def test_large(self) -> None:
        """A body that no message can hold is in the log as one write, whoever reads it, from memory or not."""
        first, second = self.relay("ra"), self.relay("rb")
        self.assertIs(self.deliverer(), first)
        bodies = [large(3 * MESSAGE + 7).body, b"small\n", large(MESSAGE).body]
        numbers = self.append(second, *bodies)
        self.later(1)
        self.assertEqual([number for number, _ in first.handed], numbers)
        self.assertEqual([first.records[number].write.body for number in numbers], bodies)
        self.assertEqual([self.read(first), self.read(second)], [bodies, bodies])
        third = self.relay("rc")
        self.assertEqual(self.read(third), bodies)
        self.assertEqual(self.contents(third).depths["a"].writes, 3)
        self.assertEqual(self.read(third, after=numbers[0]), bodies[1:])

    def test_large_without_beginning(self) -> None:
        """A write of which the log has dropped a piece is left out, and counted."""
        first = self.relay("ra")
        (number,) = self.append(first, large(3 * MESSAGE).body)
        self.append(first, b"one\n")
        self.kill(first)
        second = self.relay("rb")
        self.until(lambda: second.held)
        self.cluster.log.remove(1)
        self.assertEqual(self.read(second), [b"one\n"])
        self.later(1)
        drops = [(each.backend, each.reason, each.writes, each.bytes) for each in self.contents(second).drops]
        self.assertEqual(drops, [("a", "damaged", 1, 3 * MESSAGE), ("b", "damaged", 1, 3 * MESSAGE)])
        self.assertGreater(number, 0)

    def test_later_version(self) -> None:
        """A message that this version cannot read is counted as lost, rather than left out silently."""
        relay = self.relay("ra")
        self.deliverer()
        self.cluster.log.store("relay.log", {HEADER: "2 log other 1 0 1"}, b"?", "other.1.0")
        (number,) = self.append(relay, b"one\n")
        self.later(1)
        self.assertEqual([each for each, _ in relay.handed], [number])
        self.assertEqual([(each.backend, each.writes) for each in self.contents(relay).drops], [("a", 1), ("b", 1)])

    def test_large_without_end(self) -> None:
        """Of a write whose relay died in the middle nothing is delivered."""
        first, second = self.relay("ra"), self.relay("rb")
        self.cluster.travel = lambda what, _engine: 0.1 if what == ANSWER else 0.0
        second.journal.append(Record(0, 1.0, large(3 * MESSAGE)))
        while not self.cluster.log.messages:
            self.later(0.01)
        self.kill(second)
        self.append(first, b"one\n")
        self.later(1)
        self.assertEqual(self.read(first), [b"one\n"])

    def test_failure(self) -> None:
        """Without a quorum writes fail in time, then at once, and it works again by itself."""
        relay = self.relay("ra")
        self.cluster.quorum = False
        journal = relay.journal
        failed = journal.append(Record(0, 1.0, write()))
        self.assertIn("no answer", self.fails(failed))
        self.assertIn("no answer", journal.trouble)
        self.assertIn("does not work", journal.why_unavailable)
        self.assertIn("no answer", self.fails(journal.append(Record(0, 1.0, write())), 0.01))
        self.cluster.quorum = True
        self.until(lambda: not journal.trouble)
        self.assertEqual(len(self.append(relay, b"again\n")), 1)

    def test_full(self) -> None:
        """A log that is full refuses writes, says so, and takes them again when there is room."""
        self.cluster = self.make_cluster(max_bytes=20000)
        relay = self.relay("ra")
        self.append(relay, b"x" * 15000)
        self.assertIn("maximum bytes", self.fails(relay.journal.append(Record(0, 1.0, large(10000)))))
        self.assertIn("maximum bytes", relay.journal.trouble)
        for backend in ("a", "b"):
            relay.journal.advance(backend, PLACE, relay.journal.last_number)
        self.until(lambda: not self.cluster.log.messages and not relay.journal.trouble)
        self.assertEqual(len(self.append(relay, b"x" * 10000)), 1)


class WordsTests(SharedCase):
    """What relays tell each other."""

    def test_outcomes(self) -> None:
        """What a backend says reaches the relay whose client wrote."""
        first, second = self.relay("ra"), self.relay("rb")
        reply = Reply(400, ((b"X-Influxdb-Error", b"n\xfc"),), b"\xffbad\n", complete=False)
        failure = BackendFailure("503", "it is overloaded", Reply(503, (), b"later", held=True))
        for relay in (first, second):
            relay.journal.outcome(1, "rb", "a", reply)
            relay.journal.outcome(2, "rb", "b", failure)
            relay.journal.outcome(3, "rb", "a", Reply(204))
            relay.journal.outcome(3, "gone", "a", Reply(204))
            self.later(0.1)
            (one, two, three), second.outcomes = second.outcomes, []
            self.assertEqual((one, three), ((1, "a", reply), (3, "a", Reply(204))))
            assert isinstance(two[2], BackendFailure)
            self.assertEqual((two[:2], two[2].args, two[2].reply), ((2, "b"), failure.args, failure.reply))
        self.assertEqual(first.outcomes, [])

    def test_decided(self) -> None:
        """What is kept is told to who delivers, wherever that is."""
        first, second = self.relay("ra"), self.relay("rb")
        self.assertIs(self.deliverer(), first)
        second.journal.decided([1, 2])
        self.assertEqual((second.kept, first.kept), ([1, 2], []))
        self.later(0.1)
        first.journal.decided(iter([3]))
        self.later(0.1)
        self.assertEqual((first.kept, second.kept), ([1, 2, 3], [1, 2]))
