"""Requests in a stream of bytes: heads, and bodies that have a length or come in chunks."""

from __future__ import annotations

from influxrelay.http.body import ChunkedBody, SizedBody
from influxrelay.http.head import Head, HeadCache, check_beginning, find_end, parse_head


class RequestReader:
    """Reads requests one after the other, and no further than it is asked to.

    It remembers the last head: a client sends the same one again and again.

    :ivar pending: how many bytes have come and are not read.
    """

    def __init__(self, heads: HeadCache) -> None:
        self._heads = heads
        self._data = b""
        self._position = 0  # what precedes it is done with
        self.pending = 0
        self._last_head = b""
        self._last_found: tuple[Head, int] | None = None

    def read_request(self, data: bytes) -> tuple[Head, bytes] | None:
        """Read a request that is just these bytes, if nothing is pending, and if that is easy."""
        start = len(self._last_head)
        found = self._last_found
        if found is None or not data.startswith(self._last_head):
            end = data.find(b"\r\n\r\n")
            found = self._heads.find(data, 0, end) if end >= 0 else None
            if found is None:
                return None
            start = end + 4
            self._last_head, self._last_found = data[:start], found
        head, length = found
        return None if start + length != len(data) or head.chunked else (head, data[start:])

    def feed(self, data: bytes) -> None:
        """Add what has come."""
        if self.pending:
            data = self._data[self._position :] + data
        self._data, self._position, self.pending = data, 0, len(data)

    def discard(self) -> bytes:
        """Return what is not read, and forget it."""
        rest = self._data[self._position :]
        self._move(len(self._data))
        return rest

    def _move(self, position: int) -> None:
        self.pending = len(self._data) - position
        if self.pending > 0:
            self._position = position
        else:
            self._data, self._position, self.pending = b"", 0, 0

    def read_head(self) -> tuple[Head, int] | None:
        """Read the head of a request, if it is all there; return it, and the length of the body.

        :raises HeadError: it cannot be read, whatever follows.
        """
        data, position = self._data, self._position
        end = data.find(b"\r\n\r\n", position)
        known = self._heads.find(data, position, end) if end >= 0 else None
        if known is not None:
            self._move(end + 4)
            return known
        while data[position : position + 1] in (b"\r", b"\n"):  # blank lines between requests
            position += 1
        self._move(position)
        end = find_end(data, position)
        if end < 0:
            check_beginning(data, position)
            return None
        raw = data[position:end]
        head = parse_head(raw)
        self._heads.keep(raw, head)
        self._move(end)
        return head, head.length

    def read_whole(self, length: int) -> bytes | None:
        """Read a body of this length, if it is all there."""
        if not length:
            return b""
        start = self._position
        end = start + length
        if length > self.pending:
            return None
        body = self._data[start:end]
        self._move(end)
        return body

    def read_piece(self, body: SizedBody | ChunkedBody) -> bytes:
        """Read on in a body.

        :raises ChunkError: it is not in chunks.
        """
        piece, position = body.feed(self._data, self._position)
        self._move(position)
        return piece
