"""The compression of remote write: one block of snappy, never framed (Prometheus' remote write specification)."""

from __future__ import annotations

import cramjam

_MAX_LENGTH_BYTES = 5  # of the number that a block begins with: the length of what is in it


class BodyError(ValueError):
    """A body that is no remote write; ``str()`` says why."""


class BodyTooLargeError(BodyError):
    """A body that holds more than it may."""


def unpacked_size(body: bytes, limit: int = 0) -> int:
    """Return how many bytes a block says that it holds.

    :param limit: bytes that it may hold; 0 for no limit.
    :raises BodyError: it does not say, and :class:`BodyTooLargeError`: it holds too much.
    """
    length = 0
    for index, byte in enumerate(body[:_MAX_LENGTH_BYTES]):
        length |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if 0 < limit < length:
                raise BodyTooLargeError(f"the body holds {length} bytes, allowed: {limit}")
            return length
    raise BodyError("it does not begin with its length")


def unpack(body: bytes, limit: int = 0) -> bytes:
    """Return what a block holds.

    :param limit: bytes that it may hold; 0 for no limit. The block says how many there are before they are unpacked.
    :raises BodyError: it is no block of snappy, and :class:`BodyTooLargeError`: it holds too much.
    """
    unpacked_size(body, limit)
    try:
        return bytes(cramjam.snappy.decompress_raw(body))
    except cramjam.DecompressionError as error:
        raise BodyError(str(error)) from None


def pack(data: bytes) -> bytes:
    """Return data as a block."""
    return bytes(cramjam.snappy.compress_raw(data))
