"""The body of a request, collected within a limit and unpacked."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

from influxrelay.core.errors import InvalidRequest
from influxrelay.lineprotocol.parser import Steps, run

TOO_LARGE = "Request Entity Too Large"
_PIECE = 64 * 1024  # bytes that are unpacked at once: what follows a member's end is copied ...
_UNPACKED = 128 * 1024  # ... and into how many at the most
_SMALL = 4096  # bytes of a piece that is kept together with others: an object for each would take more than they do
_UNSUPPORTED = {b"deflate", b"br", b"zstd", b"compress", b"snappy"}
_GZIP_FORMAT = 31  # zlib's wbits for a gzip header and a 32 KiB window


class Collector:
    """Takes a body in pieces; holds no more than the limit, before and after unpacking.

    Words of ``Content-Encoding`` that name no encoding, such as ``UTF-8``, are ignored, as InfluxDB does.

    :param limit: bytes of the body as sent; 0 for no limit.
    :param max_decoded: bytes of the body when decoded; 0 for no limit.
    """

    __slots__ = ("_chunks", "_encodings", "_limit", "_max_decoded", "_size")

    def __init__(self, limit: int, encodings: Sequence[bytes] | None, *, max_decoded: int = 0) -> None:
        self._limit = limit
        self._max_decoded = max_decoded
        self._encodings = _encodings(encodings) if encodings else []
        self._chunks: list[bytes | bytearray] = []
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
        chunks = self._chunks
        if len(data) < _SMALL and chunks:
            last = chunks[-1]
            if isinstance(last, bytearray):
                last += data
                return
            chunks.append(bytearray(data))
        else:
            chunks.append(data)

    def clear(self) -> None:
        """Let go of what has been collected."""
        self._chunks.clear()

    def whole(self) -> bytes | None:
        """Return the body if it came in one piece, uncompressed; None if :meth:`finish` is needed."""
        if self._encodings or len(self._chunks) != 1:
            return None
        chunk = self._chunks.pop()  # the request lives until it is answered, and need not hold the body twice
        return chunk if isinstance(chunk, bytes) else bytes(chunk)

    def finish(self) -> bytes:
        """Return the whole body, decoded.

        :raises InvalidRequest: 400 for broken gzip, 413 for too much in it, 415 for an encoding other than gzip.
        """
        return run(self.finish_slowly())

    def finish_slowly(self) -> Steps[bytes]:
        """Do what :meth:`finish` does, a millisecond or so at a time."""
        chunks = self._chunks
        body = bytes(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        chunks.clear()
        if not self._encodings:
            return body
        if self._encodings != [b"gzip"]:
            shown = b", ".join(self._encodings).decode("ascii")
            raise InvalidRequest(415, f'unsupported Content-Encoding "{shown}" (use gzip or identity)')
        return (yield from gunzip_slowly(body, self._max_decoded))


def _encodings(values: Sequence[bytes]) -> list[bytes]:
    """Return the encodings that a header names, in lower case."""
    words = [word.strip().lower() for word in b",".join(values).split(b",")]
    return [word for word in words if word == b"gzip" or word in _UNSUPPORTED]


def gunzip(data: bytes, limit: int) -> bytes:
    """Unpack gzip, of one member or several (RFC 1952, 2.2), into at most ``limit`` bytes; 0 for no limit.

    :raises InvalidRequest: 400 or 413.
    """
    return run(gunzip_slowly(data, limit))


def gunzip_slowly(data: bytes, limit: int) -> Steps[bytes]:
    """Do what :func:`gunzip` does, a millisecond or so at a time."""
    pieces = []
    room = limit or math.inf
    view, position = memoryview(data), 0
    member = zlib.decompressobj(_GZIP_FORMAT)
    there_is_more = False
    while position < len(view) or there_is_more:
        if member.eof:
            member = zlib.decompressobj(_GZIP_FORMAT)
        piece = view[position : position + _PIECE]
        most = int(min(room + 1, _UNPACKED))
        try:
            unpacked = member.decompress(piece, most)
        except zlib.error as error:
            raise InvalidRequest(400, f"unable to decode gzip body: {error}") from error
        pieces.append(unpacked)
        room -= len(unpacked)
        if room < 0:
            raise InvalidRequest(413, TOO_LARGE)
        position += len(piece) - len(member.unused_data) - len(member.unconsumed_tail)
        there_is_more = len(unpacked) == most and not member.eof
        yield len(unpacked)
    if not member.eof:
        raise InvalidRequest(400, "unable to decode gzip body: unexpected end")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
