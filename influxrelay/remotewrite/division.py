"""What is sent again of a request of version 1.0 that a receiver has rolled back for some of its samples.

Every sample that the receiver may take is sent again, and each series in its order, since a receiver that has taken a
sample takes no older one. A request in which each sample is stale so takes at most five requests for each three series,
and one for each sample of a series beyond the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from influxrelay.remotewrite.bodies import without_series
from influxrelay.remotewrite.exposition import time_of
from influxrelay.remotewrite.wire import fields, tagged

_SERIES = 1
_LABELS, _SAMPLES, _EXEMPLARS = 1, 2, 3
HALVES, QUARTERS = 2, 4
_FEW = 8  # samples of which the stale ones are left out one by one: most often there is one


def divide(message: bytes, pieces: int = HALVES, *, from_oldest: bool = False) -> list[bytes]:
    """Divide a request into so many at most, which together say what may be taken of it; none if nothing is left.

    Whole series go to either piece. A single series is divided between its samples, exemplars and histograms. Metadata
    goes with the first piece.

    :param from_oldest: whether the answer means that the oldest samples of a series are the stale ones: then the oldest
        one of a single series is in no piece.
    """
    found = [(begin, start, end) for number, _, begin, start, end in fields(message) if number == _SERIES]
    rest = without_series(message, version=1)
    if len(found) > 1:
        divided = _deal([message[begin:end] for begin, _, end in found], pieces)
    elif found:
        divided = _divide_series(message, *found[0][1:], from_oldest=from_oldest)
    else:
        divided = []
    return [rest + divided[0], *divided[1:]] if divided else []


def _divide_series(message: bytes, start: int, end: int, *, from_oldest: bool) -> list[bytes]:
    labels, samples, others = b"", [], []
    times: list[int] = []
    is_plain = True
    for number, _, begin, value, stop in fields(message, start, end):
        if number == _LABELS:
            labels += message[begin:stop]
        elif number == _SAMPLES:
            samples.append(message[begin:stop])
            times.append(time_of(message, value, stop))
        else:
            others.append(message[begin:stop])
            is_plain = is_plain and number == _EXEMPLARS  # a histogram is a sample, too
    if from_oldest and is_plain and all(one < next_one for one, next_one in pairwise(times)):
        left = samples[1:]
        if not left:
            return []
        pieces = _deal(left, 1 if len(left) <= _FEW else HALVES)
        pieces[-1] += b"".join(others)
        return [tagged(_SERIES, labels + some) for some in pieces]
    points = [*samples, *others]
    return [tagged(_SERIES, labels + some) for some in _deal(points, HALVES)] if len(points) > 1 else []


def _deal(items: Sequence[bytes], pieces: int) -> list[bytes]:
    """Join neighbours, so that there are so many pieces at most, of nearly the same size."""
    count, pieces = len(items), min(pieces, len(items))
    bounds = [count * index // pieces for index in range(pieces + 1)]
    return [b"".join(items[first:last]) for first, last in pairwise(bounds)]
