"""The messages of a shared log."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.journal.records import Record
from influxrelay.journal.shared.frames import (
    Batch,
    Destinations,
    LogHead,
    Part,
    StrikeHead,
    Struck,
    cut,
    encode,
    log_header,
    number_of,
    read_header,
    strike_header,
)
from testing.journal_cases import OTHER, PLACE, record
from testing.journal_strategies import destinations, records

many = st.lists(records, min_size=1, max_size=8)
struck = st.builds(Struck, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.none() | destinations)


def fields(each: Record) -> tuple[object, ...]:
    """Return what has to come back of a record."""
    write = each.write
    return (each.time, write.destination, write.query, write.body, write.mergeable, write.gzipped)


class PayloadTests(SynchronousTestCase):
    """The payload of a group commit."""

    @given(many, st.integers(1, 2**47))
    def test_writes(self, given: list[Record], seq: int) -> None:
        """Writes come back as they were, each with the number of its place."""
        payload, _ = encode(given)
        found = Batch(seq, payload, Destinations()).records()
        self.assertEqual([fields(each) for each in found], [fields(each) for each in given])
        self.assertEqual([each.seq for each in found], [number_of(seq, index) for index in range(len(given))])
        for each in found:
            self.assertEqual(each.write.authorization, each.write.destination.credentials[0])

    def test_destination(self) -> None:
        """Those of one destination are found, behind a number."""
        payload, _ = encode([record(1), record(2, OTHER), record(3), record(4, OTHER)])
        batch = Batch(7, payload, Destinations())
        for where, after, numbers in (
            (PLACE, 0, [0, 2]),
            (OTHER, number_of(7, 1), [3]),
            (PLACE, number_of(7, 2), []),
        ):
            found = [each.seq for each in batch.records_of(where, after)]
            self.assertEqual(found, [number_of(7, index) for index in numbers])

    @given(many, st.data())
    def test_parts(self, given: list[Record], data: st.DataObject) -> None:
        """The parts say what there is for each destination, and the pieces of a payload give it again."""
        payload, parts = encode(given)
        for part in parts:
            mine = [(index, each) for index, each in enumerate(given) if each.write.destination == part.destination]
            size = sum(len(each.write.body) for _, each in mine)
            self.assertEqual((part.first, part.last, part.count, part.size), (mine[0][0], mine[-1][0], len(mine), size))
            self.assertEqual(part.oldest, mine[0][1].time)
        self.assertEqual(sum(part.count for part in parts), len(given))
        size = data.draw(st.integers(1, len(payload) + 5))
        pieces = cut(payload, size)
        self.assertEqual((b"".join(pieces), max(map(len, pieces)) <= size), (payload, True))

    @given(many, st.data())
    def test_damage(self, given: list[Record], data: st.DataObject) -> None:
        """A payload with another byte, or without its end, is not believed."""
        payload, _ = encode(given)
        at = data.draw(st.integers(0, len(payload) - 1))
        other = bytes([payload[at] ^ data.draw(st.integers(1, 255))])
        for damaged in (payload[:at], payload[:at] + other + payload[at + 1 :]):
            with self.assertRaises(ValueError):
                Batch(1, damaged, Destinations())


class HeaderTests(SynchronousTestCase):
    """The header."""

    @given(st.lists(st.builds(Part, destinations, *([st.integers(0, 65535)] * 3), st.floats(0, 1e12), st.just(3))))
    def test_log(self, parts: list[Part]) -> None:
        """It says what is in a message, in one line of plain text."""
        text = log_header("relay-1", 5, 2, 3, parts)
        self.assertTrue(text.isascii() and text.isprintable() and text == text.strip())
        head = read_header(text, Destinations())
        self.assertEqual(head, LogHead("relay-1", 5, 2, 3, tuple(parts)))
        assert isinstance(head, LogHead)
        self.assertTrue(head.is_last)

    @given(st.lists(struck))
    def test_strike(self, given: list[Struck]) -> None:
        """It says what is struck."""
        text = strike_header("relay-1", 5, given)
        self.assertEqual(read_header(text, Destinations()), StrikeHead("relay-1", 5, tuple(given)))

    def test_nonsense(self) -> None:
        """What is of another version, or makes no sense, is an error."""
        for text in (
            "",
            "2 log r 1 0 1",
            "1 other r 1",
            "1 log r x 0 1",
            "1 log r 1 0 1 %%",
            "1 log r 1 0 1 AAAA",
            "1",
        ):
            with self.assertRaises(ValueError):
                read_header(text, Destinations())

    def test_one_object(self) -> None:
        """A destination is one object however often it comes, so that it is found quickly."""
        known = Destinations()
        text = log_header("r", 1, 0, 1, [Part(PLACE, 0, 1, 2, 3.0, 0)])
        first, second = (read_header(text, known) for _ in range(2))
        assert isinstance(first, LogHead)
        assert isinstance(second, LogHead)
        self.assertIs(first.parts[0].destination, second.parts[0].destination)
