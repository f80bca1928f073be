"""A writer of remote-write requests, in both versions, for tests; it knows nothing of the code under test."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import attrs

Labels = Mapping[str, str]


@attrs.frozen
class Timeseries:
    """One series: its labels, and (value, milliseconds) of its samples."""

    labels: Labels
    samples: Sequence[tuple[float, int]] = ()
    exemplars: int = 0
    histograms: int = 0


def _varint(number: int) -> bytes:
    out = b""
    number &= 2**64 - 1
    while number > 0x7F:
        out += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return out + bytes((number,))


def field(number: int, value: bytes) -> bytes:
    """Return a length-delimited field."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _sample(value: float, when: int) -> bytes:
    return b"\x09" + struct.pack("<d", value) + b"\x10" + _varint(when)


def version_1(series: Sequence[Timeseries], metadata: Sequence[str] = ()) -> bytes:
    """Return a ``prometheus.WriteRequest``, not yet compressed."""
    message = b""
    for each in series:
        body = b"".join(field(1, field(1, k.encode()) + field(2, v.encode())) for k, v in each.labels.items())
        body += b"".join(field(2, _sample(*sample)) for sample in each.samples)
        body += field(3, field(1, field(1, b"trace_id") + field(2, b"x")) + _sample(1.0, 1)) * each.exemplars
        body += field(4, b"\x08\x05") * each.histograms
        message += field(1, body)
    return message + b"".join(field(3, b"\x08\x01" + field(2, name.encode())) for name in metadata)


def version_2(series: Sequence[Timeseries]) -> bytes:
    """Return an ``io.prometheus.write.v2.Request``, not yet compressed."""
    symbols = [""]
    body = b""
    for each in series:
        references = b""
        for word in (word for pair in each.labels.items() for word in pair):
            if word not in symbols:
                symbols.append(word)
            references += _varint(symbols.index(word))
        inner = field(1, references)
        inner += b"".join(field(2, _sample(*sample)) for sample in each.samples)
        inner += field(3, b"\x08\x05") * each.histograms
        inner += field(4, field(1, b"\x00\x00") + _sample(1.0, 1)) * each.exemplars
        body += field(5, inner + field(5, b"\x08\x01"))
    return b"".join(field(4, symbol.encode()) for symbol in symbols) + body
