"""Remote writes of version 1.0, made of samples."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from influxrelay.remotewrite.snappy import encoded, pack
from influxrelay.remotewrite.wire import FIXED64, VARINT, tagged

Labels = Sequence[tuple[str, str]]
Sample = tuple[float, int]
"""A value, and milliseconds since 1970."""

_SERIES, _LABELS, _SAMPLES = 1, 1, 2  # prompb/remote.proto, types.proto
_NAME, _VALUE = 1, 2
_VALUE_TAG, _TIME_TAG = bytes((1 << 3 | FIXED64,)), bytes((2 << 3 | VARINT,))


def body(series: Iterable[tuple[Labels, Sequence[Sample]]]) -> bytes:
    """Return a body with some series.

    :param series: the labels of each in the order of their names, and its samples in that of their times.
    """
    return pack(b"".join(tagged(_SERIES, _series(labels, samples)) for labels, samples in series))


def _series(labels: Labels, samples: Sequence[Sample]) -> bytes:
    named = [tagged(_LABELS, tagged(_NAME, name.encode()) + tagged(_VALUE, value.encode())) for name, value in labels]
    return b"".join((*named, *(tagged(_SAMPLES, _sample(*each)) for each in samples)))


def _sample(value: float, time: int) -> bytes:
    return _VALUE_TAG + struct.pack("<d", value) + _TIME_TAG + encoded(time & 0xFFFF_FFFF_FFFF_FFFF)
