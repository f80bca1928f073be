"""Gzip bodies: decoded in pieces, stamped in blocks."""

from __future__ import annotations

import gzip
import tracemalloc
from random import Random
from types import SimpleNamespace
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from isal import isal_zlib
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import InvalidRequest
from influxrelay.core.write import Destination, Write
from influxrelay.lineprotocol import gzip_body
from influxrelay.lineprotocol.finished import count_lines
from influxrelay.lineprotocol.gzip_body import (
    NEWLINE,
    Packed,
    decode_pieces,
    decoded_beginning,
    decoded_body,
    decoded_body_slowly,
    prepare_packed,
    reduced,
)
from influxrelay.lineprotocol.parser import is_blank, prepare
from influxrelay.lineprotocol.scanner import run
from testing.line_protocol_cases import ALL, RUBBISH

NOW = 1_763_700_000_123_456_789
TIMED = b"cpu,host=a v=1 1763700000123456789\n"


def _prepare(packed: bytes, limit: int = 0) -> Packed | None:
    return run(prepare_packed(packed, b"", NOW, limit))


class PrepareTests(SynchronousTestCase):
    """:func:`prepare_packed`."""

    def test_kept(self) -> None:
        """A body in which every line has its timestamp keeps the client's bytes, whatever else is in it."""
        for lines in (
            TIMED,
            TIMED * 20_000,
            b'cpu s="two\nlines" 1\n' * 50_000 + b"# comment\n\n",
            b"cpu v=bad\n" + TIMED,
        ):
            packed = gzip.compress(lines)
            found = _prepare(packed)
            assert found is not None
            self.assertEqual((found.body, found.mergeable, found.size), (packed, True, len(lines)))
            self.assertLess(abs(found.lines - count_lines(lines)), found.lines / 500 + 1)

    def test_last_newline(self) -> None:
        """A body without a newline at its end gets one in a member of its own, so that another may follow."""
        packed = gzip.compress(TIMED * 2 + TIMED[:-1])
        found = _prepare(packed)
        assert found is not None
        self.assertEqual(found.body, packed + NEWLINE)
        self.assertEqual(gzip.decompress(found.body + found.body), TIMED * 6)

    def test_stamped(self) -> None:
        """Lines without a timestamp get one, and the body is compressed again."""
        for lines in (b"cpu v=1\n", TIMED * 30_000 + b"cpu v=1", b"cpu v=1\n" * 100_000):
            found = _prepare(gzip.compress(lines))
            assert found is not None
            expected, _ = prepare(lines, b"", NOW)
            self.assertEqual(gzip.decompress(found.body), expected + (b"" if expected.endswith(b"\n") else b"\n"))
            self.assertEqual((found.mergeable, found.size), (True, len(lines)))

    def test_blank(self) -> None:
        """A body without a line is none."""
        for lines in (b"", b"\n", b"# comment\n" * 100_000, b" \t\n#"):
            self.assertIsNone(_prepare(gzip.compress(lines)), lines[:20])

    @settings(max_examples=300)
    @given(st.one_of(RUBBISH, st.lists(st.sampled_from(ALL), max_size=8).map(b"\n".join)), st.integers(2, 60))
    @example(b'cpu s="ends in one\\\\"', 4)
    def test_blocks(self, lines: bytes, size: int) -> None:
        """Wherever blocks end, the lines become what they become in one piece."""
        before = gzip_body._OUTPUT
        gzip_body._OUTPUT = size
        try:
            found = _prepare(gzip.compress(lines))
        finally:
            gzip_body._OUTPUT = before
        expected, mergeable = prepare(lines, b"", NOW)
        if is_blank(lines) or not lines:
            self.assertIsNone(found)
        else:
            assert found is not None
            unpacked = gzip.decompress(found.body)
            self.assertEqual(found.mergeable, mergeable)
            if mergeable and not expected.endswith(b"\n"):
                expected += b"\n"
            self.assertEqual(unpacked, expected)

    def test_refused(self) -> None:
        """What is broken is refused, and what holds too much."""
        packed = gzip.compress(TIMED * 10)
        for broken in (b"", packed[:-1], packed[1:], packed + b"more", packed[:-8] + bytes(8)):
            self.assertEqual(self.assertRaises(InvalidRequest, _prepare, broken).status, 400, broken)
        self.assertIsNotNone(_prepare(packed, len(TIMED) * 10))
        self.assertEqual(self.assertRaises(InvalidRequest, _prepare, packed, len(TIMED) * 10 - 1).status, 413)

    def test_memory(self) -> None:
        """A body that holds much takes little memory, finished or stamped, and a line without end is told of."""
        for lines in (TIMED * 1_000_000, b"cpu v=1\n" * 2_000_000):
            packed = gzip.compress(lines, 1)
            size = len(lines)
            del lines
            tracemalloc.start()
            try:
                found = _prepare(packed)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert found is not None
            self.assertLess(peak, size / 3)
        endless = gzip.compress(b'cpu s="' + b"\n" * 20_000_000, 1)
        self.assertGreater(sum(prepare_packed(endless, b"", NOW, 0)), 20_000_000)

    def test_many_pieces(self) -> None:
        """The work for a large body, and for one of very many members, has many slices."""
        for packed in (gzip.compress(TIMED * 100_000), gzip.compress(b"") * 10_000 + gzip.compress(TIMED)):
            self.assertGreater(sum(1 for _ in prepare_packed(packed, b"", NOW, 0)), 10)


class PieceTests(SynchronousTestCase):
    """:func:`decode_pieces`."""

    def test_very_many_members(self) -> None:
        """What the decoder is handed, and copies, is bounded for each member, however many follow."""
        given: list[int] = []

        class Counting:
            def __init__(self, wbits: int) -> None:
                self.member = isal_zlib.decompressobj(wbits)

            def decompress(self, data: memoryview, most: int) -> bytes:
                given.append(len(data))
                return self.member.decompress(data, most)

            def __getattr__(self, name: str) -> Any:
                return getattr(self.member, name)

        self.patch(gzip_body, "isal_zlib", SimpleNamespace(decompressobj=Counting))
        self.assertEqual(b"".join(decode_pieces(gzip.compress(b"") * 10_000, 0)), b"")
        self.assertEqual(len(given), 10_000)
        self.assertLessEqual(max(given), 64 * 1024)

    def test_sizes(self) -> None:
        """No piece is large, and together they are the body."""
        body = Random(1).randbytes(500_000) + bytes(3_000_000)
        pieces = list(decode_pieces(gzip.compress(body) * 2, 0))
        self.assertLessEqual(max(map(len, pieces)), 256 * 1024)
        self.assertEqual(b"".join(pieces), body * 2)


class ReduceTests(SynchronousTestCase):
    """A part of the lines of a write."""

    def test_reduced(self) -> None:
        """A write with a part of its lines is packed as before; with all of them it is itself, without any nothing."""
        lines = TIMED * 3
        plain = Write(Destination(b"db", b"", b"ns", (b"", b"", b"")), b"db=db", b"", lines)
        for write in (plain, Write(plain.destination, plain.query, b"", gzip.compress(lines), gzipped=True)):
            whole = decoded_body(write)
            self.assertEqual((whole, run(decoded_body_slowly(write)), decoded_beginning(write)), (lines,) * 3)
            self.assertIs(reduced(write, whole, whole), write)
            self.assertIsNone(reduced(write, whole, b""))
            part = reduced(write, whole, TIMED)
            assert part is not None
            self.assertEqual((part.gzipped, decoded_body(part)), (write.gzipped, TIMED))
