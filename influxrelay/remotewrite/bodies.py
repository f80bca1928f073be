"""What is in a remote write: how much, which series, and how it is divided.

The messages are ``prometheus.WriteRequest`` of version 1.0 (``prompb/remote.proto``, ``types.proto``) and
``io.prometheus.write.v2.Request`` of version 2.0 (``prompb/io/prometheus/write/v2/types.proto``). Everything here takes
them unpacked. Two requests of 1.0 are joined by concatenation, as all messages are whose fields are repeated; those of
2.0 are not, because each has a table of its own for its strings.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import attrs

from influxrelay.remotewrite.snappy import BodyError
from influxrelay.remotewrite.wire import LENGTH_DELIMITED, VARINT, fields, varint

_SERIES_1, _METADATA_1 = 1, 3
_LABELS_1, _SAMPLES_1, _EXEMPLARS_1, _HISTOGRAMS_1 = 1, 2, 3, 4
_SYMBOLS_2, _SERIES_2 = 4, 5
_REFERENCES_2, _SAMPLES_2, _HISTOGRAMS_2, _EXEMPLARS_2 = 1, 2, 3, 4
_NAME, _VALUE = 1, 2
NAME = b"__name__"


@attrs.frozen
class Counts:
    """What a request holds, for ``X-Prometheus-Remote-Write-{Samples,Histograms,Exemplars}-Written``."""

    samples: int = 0
    histograms: int = 0
    exemplars: int = 0
    series: int = 0


_SLICE = 2048  # fields that are looked at in one go
_SLICE_BYTES = 256 * 1024  # the same where fields are skipped
_STEP = 1  # what a slice yields
_TAGS = frozenset(number << 3 | LENGTH_DELIMITED for number in range(1, 16))  # of messages and strings, in one byte


def check_slowly(message: bytes) -> Generator[int, None, None]:
    """Find out bit by bit whether a request is made of whole fields, so that another can be joined to it.

    :raises BodyError: it is not.
    """
    position, end, tags = 0, len(message), _TAGS
    while position < end:
        stop = min(position + _SLICE_BYTES, end - 2)
        while position < stop:  # nearly all fields have a length of one byte or two
            length = message[position + 1]
            if message[position] not in tags:
                position = _skip(message, position, end)
            elif length < 0x80:
                position += 2 + length
            elif (more := message[position + 2]) < 0x80:
                position += length + (more << 7) - 0x7D  # 3 + (length & 0x7F | more << 7)
            else:
                position = _skip(message, position, end)
        if end - 2 <= position < end:
            position = _skip(message, position, end)
        yield _STEP
    if position > end:
        raise BodyError("its last field is cut off")


def _skip(message: bytes, position: int, end: int) -> int:
    return next(fields(message, position, end))[4]


def count_slowly(message: bytes) -> Generator[int, None, Counts]:
    """Count bit by bit what a request of version 2.0 holds.

    :raises BodyError: it is none.
    """
    samples = histograms = exemplars = total = seen = 0
    for number, kind, begin, _, end in fields(message):
        if number == _SERIES_2 and kind == LENGTH_DELIMITED:
            one = count(message[begin:end], version=2)
            samples, histograms, exemplars = (
                samples + one.samples,
                histograms + one.histograms,
                exemplars + one.exemplars,
            )
            total += 1
            seen += 2 + one.samples + one.histograms + one.exemplars
            if seen >= _SLICE:
                seen = 0
                yield _STEP
    return Counts(samples, histograms, exemplars, total)


def count(message: bytes, *, version: int) -> Counts:
    """Count what a request holds.

    :param version: 1 or 2.
    :raises BodyError: it is none.
    """
    if version == 1:
        series_field, kinds = _SERIES_1, (_SAMPLES_1, _HISTOGRAMS_1, _EXEMPLARS_1)
    else:
        series_field, kinds = _SERIES_2, (_SAMPLES_2, _HISTOGRAMS_2, _EXEMPLARS_2)
    found: list[int] = [0] * 8
    series = 0
    for number, kind, _, start, end in fields(message):
        if number == series_field and kind == LENGTH_DELIMITED:
            series += 1
            for inner, inner_kind, _, _, _ in fields(message, start, end):
                if inner < 8 and inner_kind == LENGTH_DELIMITED:
                    found[inner] += 1
    samples, histograms, exemplars = (found[each] for each in kinds)
    return Counts(samples, histograms, exemplars, series)


@attrs.frozen
class Series:
    """One series of a request.

    :ivar labels: name and value of each, in their order.
    :ivar field: the whole field as it stands in the request, for a request of some series only.
    """

    labels: tuple[tuple[bytes, bytes], ...]
    field: bytes

    def label(self, name: bytes) -> bytes:
        """Return a label's value; empty if it has none, which is the same to Prometheus."""
        return next((value for known, value in self.labels if known == name), b"")


def series(message: bytes, *, version: int) -> Iterator[Series]:
    """Yield each series.

    :raises BodyError: the request is none.
    """
    if version == 1:
        for number, kind, begin, start, end in fields(message):
            if number == _SERIES_1 and kind == LENGTH_DELIMITED:
                yield Series(tuple(_labels(message, start, end)), message[begin:end])
        return
    symbols = [message[start:end] for number, _, _, start, end in fields(message) if number == _SYMBOLS_2]
    for number, kind, begin, start, end in fields(message):
        if number == _SERIES_2 and kind == LENGTH_DELIMITED:
            yield Series(tuple(_referenced(message, start, end, symbols)), message[begin:end])


def _labels(message: bytes, start: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    for number, kind, _, first, last in fields(message, start, end):
        if number == _LABELS_1 and kind == LENGTH_DELIMITED:
            name = value = b""
            for inner, _, _, begin, stop in fields(message, first, last):
                if inner == _NAME:
                    name = message[begin:stop]
                elif inner == _VALUE:
                    value = message[begin:stop]
            yield name, value


def _referenced(message: bytes, start: int, end: int, symbols: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    references: list[int] = []
    for number, kind, _, first, last in fields(message, start, end):
        if number == _REFERENCES_2 and kind in (LENGTH_DELIMITED, VARINT):  # packed, or one by one
            position = first
            while position < last:
                reference, position = varint(message, position, last)
                references.append(reference)
    if len(references) % 2 or any(each >= len(symbols) for each in references):
        raise BodyError("a series refers to symbols that are not there")
    for name, value in zip(references[::2], references[1::2], strict=True):
        yield symbols[name], symbols[value]


def without_series(message: bytes, *, version: int) -> bytes:
    """Return all of a request but its series: symbols, metadata, what is not known here."""
    series_field = _SERIES_1 if version == 1 else _SERIES_2
    return b"".join(message[begin:end] for number, _, begin, _, end in fields(message) if number != series_field)
