"""The compression of remote write: one block of snappy, never framed (Prometheus' remote write specification)."""

from __future__ import annotations

from collections.abc import Iterable

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
    size, _ = _read_size(body)
    if 0 < limit < size:
        raise BodyTooLargeError(f"the body holds {size} bytes, allowed: {limit}")
    return size


def _read_size(body: bytes) -> tuple[int, int]:
    """Return how many bytes a block says that it holds, and where it says what they are."""
    size = 0
    for index, byte in enumerate(body[:_MAX_LENGTH_BYTES]):
        size |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return size, index + 1
    raise BodyError("it does not begin with its length")


def joined(blocks: Iterable[bytes]) -> bytes:
    """Return a block that holds what several hold, one behind the other, without unpacking them.

    A block is its length and then literals and copies, and a copy tells how far behind itself its source is
    (``format_description.txt``): those of several blocks one behind the other are a block again.
    """
    total, parts = 0, [b""]
    for block in blocks:
        size, begin = _read_size(block)
        total += size
        parts.append(block[begin:])
    parts[0] = encoded(total)
    return b"".join(parts)


def encoded(number: int) -> bytes:
    """Return a number as snappy and protocol buffers write it: seven bits in each byte, the lowest first."""
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def unpack(body: bytes, limit: int = 0) -> bytes:
    """Return what a block holds.

    :param limit: bytes that it may hold; 0 for no limit. The block says how many there are before they are unpacked.
    :raises BodyError: it is no block of snappy, and :class:`BodyTooLargeError`: it holds too much.
    """
    import cramjam  # noqa: PLC0415 (it takes 1.6 MB, and not every relay sees remote writes)

    unpacked_size(body, limit)
    try:
        return bytes(cramjam.snappy.decompress_raw(body))
    except cramjam.DecompressionError as error:
        raise BodyError(str(error)) from None


def pack(data: bytes) -> bytes:
    """Return data as a block."""
    import cramjam  # noqa: PLC0415 (as above)

    return bytes(cramjam.snappy.compress_raw(data))
