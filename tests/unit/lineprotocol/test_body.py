"""The collecting and unpacking of bodies."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import InvalidRequest
from influxrelay.lineprotocol.body import Collector, gunzip

_MB = 1_000_000


def _collect(pieces: list[bytes], encodings: list[bytes] | None = None, limit: int = 0) -> bytes:
    collector = Collector(limit, encodings)
    for piece in pieces:
        collector.add(piece)
    return collector.finish()


class CollectorTests(SynchronousTestCase):
    """:class:`Collector`."""

    @settings(deadline=None)
    @given(st.lists(st.binary()), st.sampled_from([None, [b"identity"], [b" IDENTITY "], [b""]]))
    def test_plain(self, pieces: list[bytes], encodings: list[bytes] | None) -> None:
        """Without an encoding the pieces are the body."""
        self.assertEqual(_collect(pieces, encodings), b"".join(pieces))

    @settings(deadline=None)
    @given(st.lists(st.binary(), min_size=1), st.integers(1, 40))
    def test_packed(self, members: list[bytes], size: int) -> None:
        """However gzip members are cut into pieces, the body is what they hold together."""
        packed = b"".join(map(gzip.compress, members))
        pieces = [packed[start : start + size] for start in range(0, len(packed), size)]
        self.assertEqual(_collect(pieces, [b"gzip"]), b"".join(members))

    @settings(deadline=None)
    @given(st.lists(st.binary(max_size=20), max_size=9), st.integers(1, 100))
    def test_limit(self, pieces: list[bytes], limit: int) -> None:
        """A body is refused if and only if it is longer than the limit."""
        if sum(map(len, pieces)) <= limit:
            self.assertEqual(_collect(pieces, limit=limit), b"".join(pieces))
        else:
            error = self.assertRaises(InvalidRequest, _collect, pieces, limit=limit)
            self.assertEqual((error.status, error.message), (413, "Request Entity Too Large"))

    def test_announced(self) -> None:
        """An announced length is refused if and only if it is over the limit."""
        for limit, length in ((10, 10), (10, 0), (10, None), (0, 10**15)):
            Collector(limit, None).expect(length)
        error = self.assertRaises(InvalidRequest, Collector(10, None).expect, 11)
        self.assertEqual(error.status, 413)

    def test_nothing_kept(self) -> None:
        """A collector that was cleared holds nothing, and one that refuses a piece does not keep it."""
        collector = Collector(1000, None)
        collector.add(b"x" * 900)
        self.assertRaises(InvalidRequest, collector.add, b"x" * 900)
        self.assertEqual(collector._chunks, [b"x" * 900])
        collector.clear()
        self.assertEqual(collector._chunks, [])

    def test_not_copied(self) -> None:
        """A body that comes in one piece is handed on as the same object."""
        body = b"x" * 1000
        self.assertIs(_collect([body]), body)

    def test_encodings(self) -> None:
        """An encoding other than gzip is refused by its name, also where several headers make a list."""
        for encodings, shown in (
            ([b"deflate"], "deflate"),
            ([b"gzip", b"gzip"], "gzip, gzip"),
            ([b"identity, BR"], "br"),
            ([b"utf-8", b"gzip, zstd"], "gzip, zstd"),
        ):
            error = self.assertRaises(InvalidRequest, _collect, [b"x"], encodings)
            self.assertEqual(error.status, 415)
            self.assertIn(f'"{shown}"', error.message)


class GunzipTests(SynchronousTestCase):
    """:func:`gunzip`."""

    @settings(deadline=None)
    @given(st.lists(st.binary(max_size=50), min_size=1, max_size=5), st.integers(1, 200))
    def test_limit(self, members: list[bytes], limit: int) -> None:
        """The limit is for all members together, and exact."""
        packed, body = b"".join(map(gzip.compress, members)), b"".join(members)
        if len(body) <= limit:
            self.assertEqual(gunzip(packed, limit), body)
        else:
            error = self.assertRaises(InvalidRequest, gunzip, packed, limit)
            self.assertEqual(error.status, 413)

    @settings(deadline=None)
    @given(st.binary(), st.data())
    def test_truncated(self, body: bytes, data: st.DataObject) -> None:
        """Wherever a body breaks off, it is refused."""
        packed = gzip.compress(body)
        end = data.draw(st.integers(0, len(packed) - 1))
        for limit in (0, 1000):
            error = self.assertRaises(InvalidRequest, gunzip, packed[:end], limit)
            self.assertEqual(error.status, 400)

    @settings(deadline=None)
    @given(st.binary())
    def test_any_bytes(self, data: bytes) -> None:
        """Bytes that are no gzip are refused with 400 and nothing else."""
        if data[:2] != b"\x1f\x8b":
            self.assertEqual(self.assertRaises(InvalidRequest, gunzip, data, 1000).status, 400)

    def test_other_formats(self) -> None:
        """A body of zlib's own format, or a bare deflate stream, is no gzip."""
        for bits in (15, -15):
            packer = zlib.compressobj(wbits=bits)
            packed = packer.compress(b"x" * 100) + packer.flush()
            self.assertEqual(self.assertRaises(InvalidRequest, gunzip, packed, 1000).status, 400)

    def test_memory(self) -> None:
        """Unpacking a bomb takes no more memory than a few times the limit."""
        bomb = gzip.compress(bytes(100 * _MB)) + gzip.compress(bytes(100 * _MB))
        tracemalloc.start()
        try:
            error = self.assertRaises(InvalidRequest, gunzip, bomb, _MB)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertEqual(error.status, 413)
        self.assertLess(peak, 6 * _MB)
