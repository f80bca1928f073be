"""The bytes of the log."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.write import Destination, Write
from influxrelay.journal.frames import (
    HEAD,
    MAGIC,
    Damage,
    Frame,
    context_frame,
    destination_of,
    key_of,
    pack,
    read_context,
    read_head,
    scan,
    unpack,
    write_head,
)
from influxrelay.journal.records import Record
from testing.journal_cases import OTHER, PLACE
from testing.journal_strategies import destinations, fields, records


def frames(*bodies: bytes) -> list[bytes]:
    """Return a frame for each body, numbered from 1."""
    made = [Record(number, 1.0, Write(PLACE, b"", b"", body)) for number, body in enumerate(bodies, 1)]
    return [write_head(7, each) + each.write.body for each in made]


def scanned(data: bytes) -> list[Frame | Damage]:
    """Return what is found in a segment."""
    return list(scan(io.BytesIO(MAGIC + data)))


class FrameTests(SynchronousTestCase):
    """One frame."""

    @given(records)
    def test_write(self, record: Record) -> None:
        """A write comes back from its frame as it was, whatever its bytes."""
        (frame,) = scanned(write_head(3, record) + record.write.body)
        self.assertIsInstance(frame, Frame)
        assert isinstance(frame, Frame)
        write = record.write
        found = frame.record(write.body, write.destination, write.query)
        assert found is not None
        self.assertEqual((found.seq, found.time, frame.context), (record.seq, record.time, 3))
        got = found.write
        self.assertEqual((got.body, got.mergeable, got.gzipped), (write.body, write.mergeable, write.gzipped))
        self.assertEqual((got.destination, got.query), (write.destination, write.query))

    @given(destinations, fields)
    def test_context(self, destination: Destination, query: bytes) -> None:
        """A context comes back as it was."""
        data = context_frame(5, destination, query)
        self.assertEqual(read_context(data[HEAD:]), (destination, query))
        frame = read_head(data[:HEAD], 0)
        assert frame is not None
        self.assertEqual((frame.kind, frame.context, frame.size), (b"C", 5, len(data) - HEAD))

    def test_damaged_body(self) -> None:
        """A body with another byte, or another length, is no record."""
        (data,) = frames(b"m f=1 1\n")
        frame = read_head(data[:HEAD], 0)
        assert frame is not None
        for body in (b"m f=2 1\n", b"m f=1 1", b""):
            self.assertIsNone(frame.record(body, PLACE, b""))

    @given(st.integers(0, HEAD * 8 - 1))
    def test_any_bit_of_the_head(self, bit: int) -> None:
        """A head with another bit is none, but for the kind, which says whether the write is struck."""
        (data,) = frames(b"x")
        wrong = bytearray(data)
        wrong[bit // 8] ^= 1 << (bit % 8)
        self.assertIsNone(read_head(bytes(wrong[:HEAD]), 0))


class ScanTests(SynchronousTestCase):
    """All frames of a segment, some of them damaged."""

    def numbers(self, data: bytes) -> list[int | None]:
        """Return the numbers of the frames that are found, and None for damage."""
        return [each.number if isinstance(each, Frame) else None for each in scanned(data)]

    def test_nothing(self) -> None:
        """A segment without a frame has none."""
        self.assertEqual(scanned(b""), [])

    def test_damage_in_the_middle(self) -> None:
        """What stands behind a damaged head is found again."""
        one, two, three = frames(b"1" * 50, b"2" * 50, b"3" * 50)
        for begin in (0, 5, HEAD - 1):
            wrong = two[:begin] + b"\0" * 4 + two[begin + 4 :]
            self.assertEqual(self.numbers(one + wrong + three), [1, None, 3])

    def test_zeros(self) -> None:
        """A page of zeros, as a file system leaves one, costs what it covers."""
        one, two, three = frames(b"1" * 50, b"2" * 5000, b"3")
        self.assertEqual(self.numbers(one + bytes(len(two)) + three), [1, None, 3])

    def test_missing_bytes(self) -> None:
        """Where bytes are missing, what stands behind them is found."""
        one, two, three = frames(b"1" * 50, b"2" * 50, b"3" * 50)
        self.assertEqual(self.numbers(one + two[:40] + three)[-1], 3)
        self.assertEqual(self.numbers(one + two[20:] + three), [1, None, 3])

    def test_cut_off(self) -> None:
        """A frame that is cut off at the end is damage, wherever that is."""
        one, two = frames(b"1", b"22")
        for size in range(1, len(two)):
            self.assertEqual(self.numbers(one + two[:size]), [1, None])

    def test_frame_within_a_body(self) -> None:
        """A body that looks like a frame is none."""
        inner = frames(b"inner")[0]
        one, two = frames(b"x" + inner, b"2")
        self.assertEqual(self.numbers(one + two), [1, 2])

    @given(st.lists(st.binary(max_size=100), min_size=1, max_size=8), st.data())
    def test_any_damage(self, bodies: list[bytes], data: st.DataObject) -> None:
        """Whatever is done to some bytes, each frame before them and each one behind the next good head is found."""
        made = frames(*bodies)
        whole = b"".join(made)
        begin = data.draw(st.integers(0, len(whole)))
        end = data.draw(st.integers(begin, min(len(whole), begin + 150)))
        put = data.draw(st.binary(max_size=150))
        found = self.numbers(whole[:begin] + put + whole[end:])
        intact = 0
        offset = 0
        for each in made:
            offset += len(each)
            intact += offset <= begin
        self.assertEqual(found[:intact], list(range(1, intact + 1)))
        behind = [number for number, at in self.starts(made) if at >= end]
        numbers = [each for each in found if each is not None]
        if behind and not any(each in put for each in (b"W", b"X", b"C")):
            self.assertEqual(numbers[-len(behind) + 1 :] if len(behind) > 1 else [], behind[1:])

    def starts(self, made: list[bytes]) -> list[tuple[int, int]]:
        """Return the number and the offset of each frame."""
        offsets = [0]
        for each in made:
            offsets.append(offsets[-1] + len(each))
        return list(enumerate(offsets[:-1], 1))


class FieldTests(SynchronousTestCase):
    """Values of several fields."""

    @given(st.lists(fields, max_size=6))
    def test_round_trip(self, values: list[bytes]) -> None:
        """Fields come back as they were, empty ones too."""
        self.assertEqual(unpack(pack(values)), values)

    @given(st.binary(max_size=40))
    def test_rubbish(self, data: bytes) -> None:
        """What was not packed is refused, or happens to be fields."""
        try:
            values = unpack(data)
        except ValueError:
            return
        self.assertEqual(pack(values), data)

    def test_destination(self) -> None:
        """A key stands for one destination, and a wrong one is refused."""
        for each in (PLACE, OTHER):
            self.assertEqual(destination_of(key_of(each)), each)
        self.assertRaises(ValueError, destination_of, pack((b"only", b"three", b"fields")))
