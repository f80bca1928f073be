"""What a segment holds, and where."""

from __future__ import annotations

from pathlib import Path

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.write import Destination
from influxrelay.journal.appender import write_file
from influxrelay.journal.frames import HEAD, MAGIC
from influxrelay.journal.reading import read_records, strike
from influxrelay.journal.records import Record
from influxrelay.journal.segment import MOST, Places, Segment, name_of, read_name
from testing.journal_cases import OTHER, PLACE, record, write


class SegmentCase(SynchronousTestCase):
    """A segment in a new directory."""

    def setUp(self) -> None:
        """Make the directory."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def make(self, *records: Record) -> Segment:
        """Write a segment."""
        segment = Segment.begin(self.directory, records[0].seq)
        parts: list[bytes] = []
        for each in records:
            segment.add(each, parts)
        write_file(segment.path, parts, sync=False)
        self.assertEqual(segment.size, segment.path.stat().st_size)
        return segment

    def bodies(self, segment: Segment, where: Destination = PLACE) -> list[bytes]:
        """Return what is read by the index."""
        records, damaged = read_records(segment.path, where, segment.places.get(where, Places()))
        self.assertEqual(damaged, [])
        return [each.write.body for each in records]


class SegmentTests(SegmentCase):
    """Adding, striking, cutting, loading."""

    def test_round_trip(self) -> None:
        """What was added is read by the index, by that in memory and by that which is made from the file."""
        made = self.make(record(5), record(6, OTHER), record(9, body=b"x" * 5000), record(10))
        loaded, lost = Segment.load(made.path)
        self.assertEqual(lost, [])
        for segment in (made, loaded):
            self.assertEqual(self.bodies(segment), [b"5\n", b"x" * 5000, b"10\n"])
            self.assertEqual(self.bodies(segment, OTHER), [b"6\n"])
            self.assertEqual((segment.first, segment.last, len(segment)), (5, 10, 4))
            self.assertEqual(segment.size, made.path.stat().st_size)

    def test_queries(self) -> None:
        """Writes of one destination keep query strings of their own."""
        other = Record(2, 1.0, attrs.evolve(write(), query=b"db=db&x=1"))
        segment, _ = Segment.load(self.make(record(1), other).path)
        records, _ = read_records(segment.path, PLACE, segment.places[PLACE])
        self.assertEqual([each.write.query for each in records], [b"db=db", b"db=db&x=1"])
        self.assertEqual({each.write.authorization for each in records}, {b"Token t"})

    def test_strike(self) -> None:
        """A struck write is not read any more, by either index; striking another or it again does nothing."""
        segment = self.make(*(record(number) for number in (1, 2, 3)))
        offset = segment.strike(2)
        assert offset is not None
        strike(segment.path, [offset, 5])
        self.assertIsNone(segment.strike(2))
        self.assertIsNone(segment.strike(7))
        loaded, lost = Segment.load(segment.path)
        self.assertEqual((self.bodies(segment), self.bodies(loaded)), ([b"1\n", b"3\n"], [b"1\n", b"3\n"]))
        self.assertEqual((loaded.last, lost), (3, []))

    def test_strike_the_last(self) -> None:
        """The last number of a segment stays, also where that write is struck."""
        segment = self.make(record(1), record(2))
        strike(segment.path, [segment.strike(2) or 0])
        self.assertEqual(Segment.load(segment.path)[0].last, 2)

    def test_strike_in_a_file_that_is_gone(self) -> None:
        """To strike in a file that was deleted does nothing."""
        strike(self.directory / "none", [1])

    def test_cut(self) -> None:
        """What the disk did not take is left out."""
        segment = self.make(record(1), record(2, OTHER))
        size = segment.size
        segment.add(record(3), [])
        segment.add(record(4, OTHER), [])
        segment.cut(3, size)
        self.assertEqual((segment.last, segment.size, len(segment)), (2, size, 2))
        self.assertEqual((self.bodies(segment), self.bodies(segment, OTHER)), ([b"1\n"], [b"2\n"]))
        self.assertIsNone(segment.strike(3))

    def test_names(self) -> None:
        """Names sort as numbers do, and nothing else is a name."""
        self.assertLess(name_of(9), name_of(10))
        for first, generation in ((1, 0), (2**63, 0), (7, 12)):
            self.assertEqual(read_name(name_of(first, generation)), (first, generation))
        for name in ("1.log", "x.log", "00000000000000000001-0.log", "00000000000000000001-x.log"):
            self.assertRaises(ValueError, read_name, name)


class DamageTests(SegmentCase):
    """One test for each way in which a segment may be damaged."""

    def damage(self, segment: Segment, offset: int, data: bytes) -> None:
        """Overwrite some bytes."""
        with segment.path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def test_no_magic(self) -> None:
        """A file that begins with something else is no log."""
        segment = self.make(record(1))
        self.damage(segment, 0, b"x")
        self.assertRaises(ValueError, Segment.load, segment.path)

    def test_empty(self) -> None:
        """An empty file is no log."""
        path = self.directory / name_of(1)
        path.touch()
        self.assertRaises(ValueError, Segment.load, path)

    def test_head(self) -> None:
        """A damaged head costs its write, and it is known between which numbers that was, and how much."""
        segment = self.make(*(record(number) for number in (1, 2, 3)))
        self.damage(segment, segment.places[PLACE].offsets[1] + 8, b"\xff")
        loaded, (lost,) = Segment.load(segment.path)
        self.assertEqual(self.bodies(loaded), [b"1\n", b"3\n"])
        self.assertEqual((lost.before, lost.behind, lost.size, lost.time), (1, 3, HEAD + 2, 30.0))

    def test_body(self) -> None:
        """A damaged body is found when it is read, and known by its number, size and time."""
        segment = self.make(*(record(number) for number in (1, 2, 3)))
        self.damage(segment, segment.places[PLACE].offsets[1] + HEAD, b"\xff")
        loaded, lost = Segment.load(segment.path)
        self.assertEqual(lost, [])
        records, (damaged,) = read_records(loaded.path, PLACE, loaded.places[PLACE])
        self.assertEqual([each.seq for each in records], [1, 3])
        self.assertEqual((damaged.number, damaged.size, damaged.time), (2, 2, 20.0))

    def test_context(self) -> None:
        """Writes whose context is damaged are lost; those of another one are not."""
        segment = self.make(record(1, OTHER), record(2), record(3, OTHER))
        self.damage(segment, len(MAGIC) + HEAD + 2, b"\xff")
        loaded, lost = Segment.load(segment.path)
        self.assertEqual((self.bodies(loaded, OTHER), self.bodies(loaded)), ([], [b"2\n"]))
        self.assertEqual([(each.before, each.behind) for each in lost], [(0, 2)])

    def test_cut_off(self) -> None:
        """A file whose end is cut off has what is whole; that is no damage, for it was never committed."""
        segment = self.make(*(record(number) for number in (1, 2, 3)))
        whole = segment.path.read_bytes()
        for size in range(segment.places[PLACE].offsets[2], len(whole)):
            segment.path.write_bytes(whole[:size])
            loaded, lost = Segment.load(segment.path)
            self.assertEqual((self.bodies(loaded), lost, loaded.last), ([b"1\n", b"2\n"], [], 2))

    def test_file_is_gone(self) -> None:
        """Of a file that is gone everything is damaged."""
        segment = self.make(record(1), record(2))
        segment.path.unlink()
        records, damaged = read_records(segment.path, PLACE, segment.places[PLACE])
        self.assertEqual((records, [each.number for each in damaged]), ([], [1, 2]))

    def test_shorter_than_the_index(self) -> None:
        """What the index has and the file does not is damaged."""
        segment = self.make(record(1), record(2), record(3))
        whole = segment.path.read_bytes()
        segment.path.write_bytes(whole[: segment.places[PLACE].offsets[1] + 10])
        records, damaged = read_records(segment.path, PLACE, segment.places[PLACE])
        self.assertEqual(([each.seq for each in records], [each.number for each in damaged]), ([1], [2, 3]))


class PlacesTests(SynchronousTestCase):
    """The index of one destination."""

    def places(self, *sizes: int) -> Places:
        """Return an index of writes with these sizes, numbered 10, 20, and so on."""
        places = Places()
        for number, size in enumerate(sizes, 1):
            places.add(number * 10, float(number), number * 1000, size)
        return places

    def test_find(self) -> None:
        """Writes are found by number."""
        places = self.places(1, 1, 1)
        self.assertEqual([places.after(number) for number in (0, 10, 15, 30, 99)], [0, 1, 1, 3, 3])
        self.assertEqual([places.index(number) for number in (10, 15, 30)], [0, None, 2])

    def test_next(self) -> None:
        """A part ends with the write that makes it large enough, at least one, and within its bounds."""
        places = self.places(5, 5, 5, 5)
        for size, count in ((1, 1), (5, 1), (6, 2), (10, 2), (100, 3)):
            self.assertEqual(len(places.next(0, 3, size)), count)
        self.assertEqual(list(places.next(2, 4, 6).numbers), [30, 40])
        self.assertEqual(len(places.next(4, 4, 5)), 0)
        many = self.places(*[0] * (MOST + 1))
        self.assertEqual(len(many.next(0, len(many), 1)), MOST)

    @given(st.lists(st.tuples(st.floats(0, 1e9), st.integers(0, 2**32 - 1)), max_size=30))
    def test_bytes(self, rows: list[tuple[float, int]]) -> None:
        """An index comes back from its bytes as it was."""
        places = Places()
        for number, (when, size) in enumerate(rows):
            places.add(number, when, size, size)
        found = Places.from_bytes(places.to_bytes(), {1: b"q"})
        for name in ("numbers", "times", "offsets", "sizes"):
            self.assertEqual(getattr(found, name), getattr(places, name))
        self.assertEqual(found.queries, {1: b"q"})

    def test_bytes_of_a_wrong_size(self) -> None:
        """Bytes that are no index are refused."""
        self.assertRaises(ValueError, Places.from_bytes, bytes(25), {})
