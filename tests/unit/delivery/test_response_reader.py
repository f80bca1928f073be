"""Responses, read from bytes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Reply
from influxrelay.delivery.response_reader import PARSER_ERRORS, ResponseReader, read_reply

PROBLEM = BackendFailure("reset", "connection lost")
WHOLE = (
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 400 Not so\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3  \r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
)


class ReaderTests(SynchronousTestCase):
    """The reader of what comes in pieces."""

    @given(cuts=st.lists(st.integers(0, len(WHOLE)), max_size=6))
    def test_pieces(self, cuts: list[int]) -> None:
        """A response is the same however it is cut into pieces, and complete with its last byte."""
        reader = ResponseReader()
        bounds = [0, *sorted(cuts), len(WHOLE)]
        for start, end in pairwise(bounds):
            self.assertFalse(reader.complete and start < end)
            if start < end:
                reader.feed(WHOLE[start:end])
        self.assertTrue(reader.complete)
        self.assertTrue(reader.keep_alive)
        self.assertEqual((reader.status, reader.reason, b"".join(reader.body)), (400, b"Not so", b"abcdefg"))
        self.assertEqual(reader.headers, [(b"Content-Type", b"a/b"), (b"Transfer-Encoding", b"chunked")])

    def test_more_than_the_response(self) -> None:
        """What follows a response leaves it as it is, but its connection is not to be used again."""
        for more in (b"x", b"HTTP/1.1 204 No\r\n\r\n"):
            for pieces in ([WHOLE + more], [WHOLE, more]):
                reader = ResponseReader()
                for piece in pieces:
                    reader.feed(piece)
                self.assertEqual((reader.status, b"".join(reader.body)), (400, b"abcdefg"))
                self.assertTrue(reader.complete)
                self.assertFalse(reader.keep_alive)

    def test_end(self) -> None:
        """A response of unknown length ends with its connection, one of a known length does not."""
        for head, complete in ((b"", True), (b"Content-Length: 9\r\n", False), (b"Transfer-Encoding: x\r\n", False)):
            reader = ResponseReader()
            reader.feed(b"HTTP/1.1 200 Fine\r\n" + head + b"\r\nabc")
            self.assertFalse(reader.complete)
            reader.end()
            self.assertEqual(reader.complete, complete)

    def test_garbage(self) -> None:
        """What cannot be read is an error."""
        for data in (b"SSH-2.0\r\n", b"HTTP/1.1 400 No\r\nContent-Length: x\r\n\r\n"):
            self.assertRaises(PARSER_ERRORS, ResponseReader().feed, data)


class ReplyTests(SynchronousTestCase):
    """Replies, from all that has come."""

    @given(end=st.integers(0, len(WHOLE)))
    def test_broken_off(self, end: int) -> None:
        """Wherever a response breaks off: before its status line is clear it is none, then the status counts."""
        clear = WHOLE.index(b"Content-Type")
        read = read_reply(WHOLE[:end], PROBLEM)
        if end < clear:
            self.assertIs(read, PROBLEM)
        else:
            assert isinstance(read, Reply)
            self.assertEqual(read.status, 400)
            self.assertEqual(read.complete, end == len(WHOLE))
            self.assertEqual(read.body == b"abcdefg", end == len(WHOLE))

    @given(data=st.binary(max_size=200))
    def test_anything(self, data: bytes) -> None:
        """No bytes make reading fail, before or after a status line."""
        read_reply(data, PROBLEM)
        read_reply(data, PROBLEM, closed=True)
        after = read_reply(b"HTTP/1.1 418 No\r\n" + data, PROBLEM)
        assert isinstance(after, Reply)
        self.assertEqual(after.status, 418)

    def test_interim(self) -> None:
        """Interim responses are no answer, and what follows them counts."""
        interim = b"HTTP/1.1 102 Wait\r\nA: b\r\n\r\n"
        self.assertIs(read_reply(interim * 3, PROBLEM), PROBLEM)
        self.assertIs(read_reply(interim[:-2], PROBLEM), PROBLEM)
        read = read_reply(interim * 3 + b"HTTP/1.1 500 No\r\n", PROBLEM)
        assert isinstance(read, Reply)
        self.assertEqual(read.status, 500)
