"""Bodies on the wire, and the collecting of their pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.http.body import ChunkedBody, ChunkError, Drain, SizedBody, Upload

ENDS = [b"\r\n\r\n", b"0\r\n\r\n", b"\n\r\n", b"\r\n0\r\n"]
DATA = st.lists(st.one_of(st.binary(min_size=1, max_size=30), st.sampled_from(ENDS)), max_size=6)
NO_CHUNKS = (b"zz\r\n", b"\r\n", b"-3\r\nabc\r\n", b"3\r\nabcd\r\n", b"3\nabc\n0\n\n", b"f" * 20 + b"\r\n", b" 3\r\n")


def _chunks(*pieces: bytes, pad: bytes = b"", end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x%b\r\n%b\r\n" % (len(piece), pad, piece) for piece in pieces) + end


def _feed(body: SizedBody | ChunkedBody, pieces: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Feed what comes in pieces; return what the body holds, and what comes behind it."""
    found, rest = b"", b""
    for piece in pieces:
        position = 0
        while position < len(piece) and not body.complete:
            decoded, position = body.feed(piece, position)
            found += decoded
        rest += piece[position:]
    return found, rest


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


class SizedBodyTests(SynchronousTestCase):
    """:class:`SizedBody`."""

    @given(st.binary(max_size=40), st.binary(max_size=10), st.integers(1, 50))
    def test_any_pieces(self, data: bytes, behind: bytes, size: int) -> None:
        """However a body comes, what is behind it stays."""
        body = SizedBody(len(data))
        self.assertEqual(_feed(body, _cut(data + behind, size)), (data, behind))
        self.assertTrue(body.complete)

    def test_incomplete(self) -> None:
        """A body is not complete before its last byte."""
        body = SizedBody(3)
        self.assertEqual((_feed(body, [b"ab"]), body.complete), ((b"ab", b""), False))

    def test_not_copied(self) -> None:
        """A piece that is all of the body is handed on as the same object."""
        data = b"x" * 1000
        self.assertIs(SizedBody(2000).feed(data, 0)[0], data)


class ChunkedBodyTests(SynchronousTestCase):
    """:class:`ChunkedBody`."""

    @given(DATA, st.binary(max_size=20), st.integers(1, 60))
    @example([b"a"], b"\r\n\r\nGET", 1)
    def test_any_pieces(self, pieces: list[bytes], behind: bytes, size: int) -> None:
        """However chunks come, they are told apart, and what is behind them stays."""
        body = ChunkedBody()
        self.assertEqual(_feed(body, _cut(_chunks(*pieces) + behind, size)), (b"".join(pieces), behind))
        self.assertTrue(body.complete)

    @given(st.integers(1, 40))
    def test_forms(self, size: int) -> None:
        """Padded sizes, extensions, leading zeros and trailers are taken, as Go takes them."""
        for data in (
            _chunks(b"abc", pad=b"  "),
            _chunks(b"abc", pad=b";name=value"),
            _chunks(b"abc", pad=b';name="a value"'),
            _chunks(b"abc", end=b"000\r\n\r\n"),
            _chunks(b"abc", end=b"0\r\nTrailer: value\r\nOther: value\r\n\r\n"),
            b"0003\r\nabc\r\n0\r\n\r\n",
        ):
            body = ChunkedBody()
            self.assertEqual(_feed(body, _cut(data + b"GET /", size)), (b"abc", b"GET /"), data)

    def test_no_chunks(self) -> None:
        """What is no chunks is refused."""
        for data in NO_CHUNKS:
            self.assertRaises(ChunkError, _feed, ChunkedBody(), [data])

    def test_many_lines(self) -> None:
        """Chunks of a byte are taken, but not those with hardly anything but extensions, nor trailers without end."""
        body = ChunkedBody()
        self.assertEqual(_feed(body, [_chunks(*[b"#"] * 50_000)])[0], b"#" * 50_000)
        extensions = _chunks(*[b"#"] * 100, pad=b";" + b"a=b;" * 200)
        self.assertRaises(ChunkError, _feed, ChunkedBody(), [extensions])
        self.assertRaises(ChunkError, _feed, ChunkedBody(), [b"0\r\n" + b"A: b\r\n" * 10_000])

    def test_effort(self) -> None:
        """A slice tells that it was dear, and none is without bounds."""
        body = ChunkedBody()
        large = _chunks(b"x" * 100_000)
        _, position = body.feed(large, 0)
        self.assertLess((position, body.effort), (20_000, 10))
        tiny = ChunkedBody()
        _, position = tiny.feed(_chunks(*[b"#"] * 10_000), 0)
        self.assertLess(position, 20_000)
        self.assertGreater(tiny.effort, 1000)
        ends = ChunkedBody()
        _, position = ends.feed(b"ffff\r\n" + b"\r\n" * 10_000, 0)
        self.assertLess(position, 1000)


class _Receiver:
    """Notes what it is given."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def data_received(self, data: bytes) -> None:
        self.seen.append(data)

    def body_complete(self) -> None:
        self.seen.append("complete")

    def body_lost(self) -> None:
        self.seen.append("lost")


class UploadTests(SynchronousTestCase):
    """:class:`Upload`."""

    @given(st.lists(st.one_of(st.binary(max_size=9), st.just(b"x" * 5000)), max_size=12))
    def test_collected(self, pieces: list[bytes]) -> None:
        """Pieces of any size become the body."""
        upload = Upload(SizedBody(1))
        for piece in pieces:
            upload.take(piece)
        self.assertEqual(upload.size, sum(map(len, pieces)))
        self.assertEqual(upload.finish(), b"".join(pieces))
        self.assertEqual(upload.finish(), b"")

    def test_received(self) -> None:
        """A receiver gets each piece, says when to pause, and is told of the end."""
        resumed: list[str] = []
        upload = Upload(SizedBody(1), lambda: resumed.append("resumed"))
        self.assertTrue(upload.paused)
        upload.resume()
        self.assertTrue(upload.paused)
        receiver = _Receiver()
        upload.attach(receiver)
        self.assertEqual((upload.paused, resumed), (False, ["resumed"]))
        upload.take(b"ab")
        upload.pause()
        self.assertTrue(upload.paused)
        upload.resume()
        upload.resume()
        self.assertEqual((upload.paused, resumed), (False, ["resumed"] * 2))
        upload.finish()
        upload.lose()
        self.assertEqual(receiver.seen, [b"ab", "complete"])

    def test_lost(self) -> None:
        """A receiver is told that the rest will not come, also if that is known already."""
        receivers = [_Receiver(), _Receiver()]
        upload = Upload(SizedBody(9), lambda: None)
        upload.attach(receivers[0])
        upload.take(b"ab")
        upload.lose()
        upload.lose()
        upload.attach(receivers[1])
        self.assertEqual([each.seen for each in receivers], [[b"ab", "lost"], ["lost"]])


class DrainTests(SynchronousTestCase):
    """:class:`Drain`."""

    def test_ends(self) -> None:
        """The end of a body is seen, of one with a length and of one in chunks; what cannot be read has none."""
        clock = Clock()
        for framing, pieces in (
            (SizedBody(5), [b"abc", b"de"]),
            (ChunkedBody(), [b"3\r\nabc\r\n", b"\r\n0\r\n\r\n"]),
        ):
            drain = Drain(framing, clock.callLater(1, self.fail))
            drain.drop(pieces[0])
            self.assertFalse(drain.complete)
            drain.drop(pieces[1])
            self.assertTrue(drain.complete)
            self.assertEqual(drain.dropped, sum(map(len, pieces)))
            drain.stop()
            drain.stop()
        drain = Drain(None, clock.callLater(1, lambda: None))
        drain.drop(b"\r\n0\r\n\r\n")
        self.assertFalse(drain.complete)
        drain.stop()
        self.assertEqual(clock.getDelayedCalls(), [])
