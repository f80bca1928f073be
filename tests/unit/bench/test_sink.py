"""The sink that answers every write and counts it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bench.sink import Connection, Tally


class Transport(asyncio.WriteTransport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: Any) -> None:
        """Keep the data."""
        self.written += data


class Peer:
    """A connection to a sink of its own."""

    def __init__(self, tally: Tally | None = None) -> None:
        self.tally = tally or Tally()
        self.transport = Transport()
        self.connection = Connection(self.tally)
        self.connection.connection_made(self.transport)

    def send(self, data: bytes) -> bytes:
        """Deliver some bytes as the event loop does, and return what is answered."""
        self.transport.written = b""
        self.connection.get_buffer(-1)[: len(data)] = data
        self.connection.buffer_updated(len(data))
        return self.transport.written


def write(size: int, *headers: str) -> bytes:
    """Return a write with a body of this size, which looks like the beginning of another request."""
    lines = ["POST /write?db=bench HTTP/1.1", "Host: sink", *headers, f"Content-Length: {size}", "", ""]
    return "\r\n".join(lines).encode() + (b"POST / HTTP/1.1\r\n\r\n" * size)[:size]


NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


class ConnectionTests(SynchronousTestCase):
    """Requests in whatever pieces they come."""

    def test_write(self) -> None:
        """A whole write is answered at once, and counted by size and encoding."""
        peer = Peer()
        self.assertEqual(peer.send(write(156)), NO_CONTENT)
        self.assertEqual(peer.send(write(156)), NO_CONTENT)
        self.assertEqual(peer.send(write(33, "content-encoding: GZIP")), NO_CONTENT)
        self.assertEqual(peer.tally.bodies(), {"156 identity": 2, "33 gzip": 1})

    @given(st.lists(st.integers(0, 400), min_size=1, max_size=5), st.lists(st.integers(1, 300), max_size=20))
    def test_pieces(self, sizes: list[int], pieces: list[int]) -> None:
        """However a stream of writes is cut, each is answered and counted once."""
        peer = Peer()
        data = b"".join(map(write, sizes))
        answers = b""
        for piece in pieces:
            answers += peer.send(data[:piece])
            data = data[piece:]
        if data:
            answers += peer.send(data)
        self.assertEqual(answers, NO_CONTENT * len(sizes))
        expected = {f"{size} identity": sizes.count(size) for size in sizes}
        self.assertEqual(peer.tally.bodies(), expected)

    def test_no_early_answer(self) -> None:
        """A write is not answered before its last byte is there."""
        peer = Peer()
        data = write(1000)
        self.assertEqual(peer.send(data[:-1]), b"")
        self.assertEqual(peer.send(data[-1:]), NO_CONTENT)

    def test_others(self) -> None:
        """A ping is answered and not counted."""
        peer = Peer()
        self.assertEqual(peer.send(b"HEAD /ping HTTP/1.1\r\nHost: sink\r\n\r\n"), NO_CONTENT)
        self.assertEqual(peer.tally.bodies(), {})

    def test_counts(self) -> None:
        """The counts of all connections to a sink can be asked for."""
        tally = Tally()
        Peer(tally).send(write(10))
        head, _, body = Peer(tally).send(b"GET /counts HTTP/1.1\r\nHost: sink\r\n\r\n").partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 200 "))
        self.assertEqual(json.loads(body), {"10 identity": 1})

    def test_unknown_length(self) -> None:
        """A write whose length the sink cannot know is refused."""
        answer = Peer().send(b"POST /write HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 411 "))

    def test_many_heads(self) -> None:
        """No count is lost when each request has a head of its own."""
        peer = Peer()
        for number in range(2500):
            peer.send(write(7, f"X-Request: {number}"))
        self.assertEqual(peer.tally.bodies(), {"7 identity": 2500})
