"""The body of a request, decoded."""

from __future__ import annotations

import math
import zlib

from influxrelay.core.errors import InvalidRequest
from influxrelay.lineprotocol.parser import Steps, run

TOO_LARGE = "Request Entity Too Large"
_PIECE = 64 * 1024  # bytes that are unpacked at once: what follows a member's end is copied ...
_UNPACKED = 128 * 1024  # ... and into how many at the most
_UNSUPPORTED = {b"deflate", b"br", b"zstd", b"compress", b"snappy"}
_GZIP_FORMAT = 31  # zlib's wbits for a gzip header and a 32 KiB window


def decode(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Return a body decoded.

    Words of ``Content-Encoding`` that name no encoding, such as ``UTF-8``, are ignored, as InfluxDB does.

    :param limit: bytes of the decoded body; 0 for no limit.
    :raises InvalidRequest: 400 for broken gzip, 413 for too much in it, 415 for an encoding other than gzip.
    """
    return run(decode_slowly(body, encoding, limit))


def decode_slowly(body: bytes, encoding: bytes, limit: int) -> Steps[bytes]:
    """Do what :func:`decode` does, a millisecond or so at a time."""
    encodings = _encodings(encoding)
    if not encodings:
        return body
    if encodings != [b"gzip"]:
        shown = b", ".join(encodings).decode("ascii")
        raise InvalidRequest(415, f'unsupported Content-Encoding "{shown}" (use gzip or identity)')
    return (yield from gunzip_slowly(body, limit))


def _encodings(value: bytes) -> list[bytes]:
    """Return the encodings that a header names, in lower case."""
    words = [word.strip().lower() for word in value.split(b",")]
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
