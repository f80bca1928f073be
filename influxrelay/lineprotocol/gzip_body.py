"""Gzip bodies: decoded in pieces, read and stamped in blocks, and kept as the client has packed them where that can be.

A body is never decoded as a whole, so that what a client packs well takes no memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import attrs
from isal import igzip, isal_zlib

from influxrelay.core.errors import InvalidRequest
from influxrelay.core.write import Write
from influxrelay.lineprotocol.finished import count_lines, finished_lines
from influxrelay.lineprotocol.parser import is_blank_slowly, prepare_slowly
from influxrelay.lineprotocol.scanner import Steps

TOO_LARGE = "Request Entity Too Large"
NEWLINE = igzip.compress(b"\n", mtime=0)
"""A member that ends the last line of what precedes it."""

_INPUT = 64 * 1024  # bytes that are decoded at once: what follows a member's end is copied
_OUTPUT = 256 * 1024  # bytes into which they are decoded, at most
_AT_ONCE = 512 * 1024  # bytes that are looked through at once
_LEVEL = 1  # of compression: the fast one
_ERROR: Any = isal_zlib.error  # its stub takes the class for an instance
_GZIP_FORMAT = 31  # zlib's wbits for a gzip header and a 32 KiB window


def decode_pieces(data: bytes, limit: int) -> Iterator[bytes]:
    """Decode gzip, of one member or several (RFC 1952, 2.2), in pieces of at most 256 KiB.

    :param limit: bytes of all pieces together; 0 for no limit.
    :raises InvalidRequest: 400 or 413.
    """
    room = limit or math.inf
    view, position = memoryview(data), 0
    member = isal_zlib.decompressobj(_GZIP_FORMAT)
    more = False
    while position < len(view) or more:
        if member.eof:
            member = isal_zlib.decompressobj(_GZIP_FORMAT)
        given = view[position : position + _INPUT]
        most = int(min(room + 1, _OUTPUT))
        try:
            piece = member.decompress(given, most)
        except _ERROR as error:
            raise InvalidRequest(400, f"unable to decode gzip body: {error}") from error
        room -= len(piece)
        if room < 0:
            raise InvalidRequest(413, TOO_LARGE)
        position += len(given) - len(member.unused_data) - len(member.unconsumed_tail)
        more = len(piece) == most and not member.eof
        yield piece
    if not member.eof:
        raise InvalidRequest(400, "unable to decode gzip body: unexpected end")


def gunzip_slowly(data: bytes, limit: int) -> Steps[bytes]:
    """Decode gzip into at most ``limit`` bytes, a millisecond or so at a time; 0 for no limit.

    :raises InvalidRequest: 400 or 413.
    """
    content = BytesIO()  # which the whole leaves without being copied
    for piece in decode_pieces(data, limit):
        content.write(piece)
        yield len(piece)
    return content.getvalue()


@attrs.frozen
class Packed:
    """A gzip body that is ready for the backends.

    :ivar body: of one member or several; if it is mergeable, what it holds ends with a newline.
    :ivar mergeable: whether another one may be appended.
    :ivar lines: how many, as :func:`count_lines` counts them.
    :ivar size: bytes when decoded.
    """

    body: bytes
    mergeable: bool
    lines: int
    size: int


class _NeedsStampsError(Exception):
    """A line behind the first block has no timestamp."""


def _packer() -> Any:
    return isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP_FORMAT)


def prepare_packed(packed: bytes, precision: bytes, now: int, limit: int) -> Steps[Packed | None]:
    """Stamp a gzip body, as :func:`prepare_slowly` does; one in which all lines have timestamps keeps its bytes.

    :param limit: bytes of the decoded body; 0 for no limit.
    :return: None if there is no line.
    :raises InvalidRequest: 400 or 413.
    """
    try:
        return (yield from _Reading(packed, precision, now, limit).read())
    except _NeedsStampsError:
        return (yield from _Reading(packed, precision, now, limit, repack=True).read())


class _Reading:
    """Goes through a body once, block by block.

    A block ends where a line does, whatever follows: that is what makes a body mergeable. So blocks can be read one by
    one.

    :param repack: whether to compress what becomes of the lines; else that begins in the first block, or not at all.
    """

    def __init__(self, packed: bytes, precision: bytes, now: int, limit: int, *, repack: bool = False) -> None:
        self._packed = packed
        self._precision = precision
        self._now = now
        self._limit = limit
        self._packer = _packer() if repack else None
        self._parts: list[bytes] = []
        self._blank = self._closed = True
        self._lines = self._size = 0
        self._last = b""

    def read(self) -> Steps[Packed | None]:
        """Do it."""
        block = BytesIO()
        has_end, enough, counted = False, _OUTPUT // 2, 0
        for piece in decode_pieces(self._packed, self._limit):
            has_end = has_end or b"\n" in piece
            grown = 0
            block.write(piece)
            if has_end and block.tell() >= enough:
                text = block.getvalue()  # not a copy
                end = text.rfind(b"\n") + 1
                grown = yield from self._read_block(text[:end], last=False)
                if self._closed:
                    has_end, enough, block = False, _OUTPUT // 2, BytesIO()
                    block.write(text[end:])
                else:  # a line that is longer than this, perhaps without end: do not look at it again and again
                    enough = 2 * len(text)
                del text  # or else the next piece would make it a copy
            if block.tell() > max(counted, 2 * _OUTPUT):
                grown += block.tell() - counted
                counted = block.tell()
            yield grown
        if block.tell():
            yield (yield from self._read_block(block.getvalue(), last=True))
        if self._blank:
            return None
        return Packed(self._finish(), self._closed, self._lines, self._size)

    def _read_block(self, block: bytes, *, last: bool) -> Steps[int]:
        """Read a block, if it is one; return how many bytes more are in memory."""
        lines = finished_lines(block, self._precision) if len(block) <= _AT_ONCE else 0
        if lines:
            stamped, self._closed = block, True
        else:
            stamped, self._closed = yield from prepare_slowly(block, self._precision, self._now)
        if not (self._closed or last):
            return 0
        if self._packer is None and stamped is not block:
            if self._size:
                raise _NeedsStampsError
            self._packer = _packer()
        self._blank = self._blank and (yield from is_blank_slowly(block))
        self._lines += lines or count_lines(block)
        self._size += len(block)
        self._last = stamped[-1:]
        if self._packer is None:
            return 0
        self._parts.append(self._packer.compress(stamped))
        return len(self._parts[-1])

    def _finish(self) -> bytes:
        ends = self._last == b"\n" or not self._closed
        if self._packer is None:
            return self._packed if ends else self._packed + NEWLINE
        if not ends:
            self._parts.append(self._packer.compress(b"\n"))
        self._parts.append(self._packer.flush())
        return b"".join(self._parts)


def decoded_body(write: Write) -> bytes:
    """Return a write's lines."""
    return igzip.decompress(write.body) if write.gzipped else write.body


def decoded_beginning(write: Write) -> bytes:
    """Return as much of a write's lines as is decoded at once: some hundred kilobytes of a body that is larger."""
    return next(filter(None, decode_pieces(write.body, 0)), b"") if write.gzipped else write.body


def decoded_body_slowly(write: Write) -> Steps[bytes]:
    """Return a write's lines, decoded a millisecond or so at a time."""
    return (yield from gunzip_slowly(write.body, 0)) if write.gzipped else write.body


def reduced(write: Write, whole: bytes, part: bytes) -> Write | None:
    """Return a write with only a part of its lines; None without any.

    :param whole: all of them, as :func:`decoded_body` returns them.
    """
    if part is whole:
        return write
    if not part:
        return None
    if write.gzipped:
        part = igzip.compress(part if part.endswith(b"\n") else part + b"\n", _LEVEL, mtime=0)
    return Write(write.destination, write.query, write.authorization, part, write.mergeable, write.gzipped)
