"""The body of a request, collected within a limit and unpacked."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from influxrelay.errors import InvalidRequest

TOO_LARGE = "Request Entity Too Large"
_PIECE = 64 * 1024  # bytes that are unpacked at once: what follows a member's end is copied
_GZIP_FORMAT = 31  # zlib's wbits for a gzip header and a 32 KiB window


class Collector:
    """Takes a body in pieces; holds no more than the limit, before and after unpacking.

    :param limit: bytes, of the body as sent and as decoded; 0 for no limit.
    """

    __slots__ = ("_chunks", "_encoding", "_limit", "_size")

    def __init__(self, limit: int, encodings: Sequence[bytes] | None) -> None:
        self._limit = limit
        self._encoding = b",".join(encodings).strip().lower() if encodings else b""
        self._chunks: list[bytes] = []
        self._size = 0

    def expect(self, length: int | None) -> None:
        """Note the announced length, None if there is none.

        :raises InvalidRequest: 413.
        """
        if length is not None and 0 < self._limit < length:
            raise InvalidRequest(413, TOO_LARGE)

    def add(self, data: bytes) -> None:
        """Take the next piece.

        :raises InvalidRequest: 413.
        """
        self._size += len(data)
        if 0 < self._limit < self._size:
            raise InvalidRequest(413, TOO_LARGE)
        self._chunks.append(data)

    def clear(self) -> None:
        """Let go of what has been collected."""
        self._chunks.clear()

    def finish(self) -> bytes:
        """Return the whole body, decoded.

        :raises InvalidRequest: 400 for broken gzip, 413 for too much in it, 415 for another ``Content-Encoding``.
        """
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()  # the request lives until it is answered, and need not hold the body twice
        if self._encoding in (b"", b"identity"):
            return body
        if self._encoding != b"gzip":
            shown = self._encoding.decode("ascii", "backslashreplace")
            raise InvalidRequest(415, f'unsupported Content-Encoding "{shown}" (use gzip or identity)')
        return gunzip(body, self._limit)


def gunzip(data: bytes, limit: int) -> bytes:
    """Unpack gzip, of one member or several (RFC 1952, 2.2), into at most ``limit`` bytes; 0 for no limit.

    :raises InvalidRequest: 400 or 413.
    """
    pieces = []
    room = limit
    view, position = memoryview(data), 0
    member = zlib.decompressobj(_GZIP_FORMAT)
    while position < len(view):
        if member.eof:
            member = zlib.decompressobj(_GZIP_FORMAT)
        piece = view[position : position + _PIECE]
        try:
            pieces.append(member.decompress(piece, room + 1 if limit else 0))
        except zlib.error as error:
            raise InvalidRequest(400, f"unable to decode gzip body: {error}") from error
        if limit:
            room -= len(pieces[-1])
            if room < 0:
                raise InvalidRequest(413, TOO_LARGE)
        position += len(piece) - len(member.unused_data)
    if not member.eof:
        raise InvalidRequest(400, "unable to decode gzip body: unexpected end")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
