"""The decoding of bodies."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import InvalidRequest
from influxrelay.lineprotocol.body import decode, gunzip

_MB = 1_000_000


class DecodeTests(SynchronousTestCase):
    """:func:`decode`."""

    @given(st.binary(), st.sampled_from([b"", b"identity", b" IDENTITY ", b"UTF-8", b"utf-8, x", b"\xff", b"gzipped"]))
    def test_plain(self, body: bytes, encoding: bytes) -> None:
        """Without an encoding, or with words that name none, the body is what was sent."""
        self.assertIs(decode(body, encoding, 0), body)

    @given(st.lists(st.binary(), min_size=1), st.sampled_from([b"gzip", b" GZip ", b"identity, gzip", b"utf-8,gzip,"]))
    def test_packed(self, members: list[bytes], encoding: bytes) -> None:
        """The body is what gzip members hold together."""
        self.assertEqual(decode(b"".join(map(gzip.compress, members)), encoding, 0), b"".join(members))

    def test_encodings(self) -> None:
        """An encoding other than gzip is refused by its name, also in a list."""
        for encoding, shown in (
            (b"deflate", "deflate"),
            (b"gzip,gzip", "gzip, gzip"),
            (b"identity, BR", "br"),
            (b"utf-8,gzip, zstd", "gzip, zstd"),
        ):
            error = self.assertRaises(InvalidRequest, decode, b"x", encoding, 0)
            self.assertEqual(error.status, 415)
            self.assertIn(f'"{shown}"', error.message)


class GunzipTests(SynchronousTestCase):
    """:func:`gunzip`."""

    @given(st.lists(st.binary(max_size=50), min_size=1, max_size=5), st.integers(1, 200))
    def test_limit(self, members: list[bytes], limit: int) -> None:
        """The limit is for all members together, and exact."""
        packed, body = b"".join(map(gzip.compress, members)), b"".join(members)
        if len(body) <= limit:
            self.assertEqual(gunzip(packed, limit), body)
        else:
            error = self.assertRaises(InvalidRequest, gunzip, packed, limit)
            self.assertEqual(error.status, 413)

    @given(st.binary(), st.data())
    def test_truncated(self, body: bytes, data: st.DataObject) -> None:
        """Wherever a body breaks off, it is refused."""
        packed = gzip.compress(body)
        end = data.draw(st.integers(0, len(packed) - 1))
        for limit in (0, 1000):
            error = self.assertRaises(InvalidRequest, gunzip, packed[:end], limit)
            self.assertEqual(error.status, 400)

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
