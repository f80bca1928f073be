"""Requests of remote write for property tests, and what is in them."""

from __future__ import annotations

from hypothesis import strategies as st

from influxrelay.remotewrite.bodies import series
from influxrelay.remotewrite.wire import fields
from testing.remote_write import Timeseries

TEXT = st.text(max_size=5).filter(lambda text: text.isprintable())
SAMPLES = st.lists(st.tuples(st.floats(allow_nan=False), st.integers(-(2**63), 2**63 - 1)), max_size=4)
SERIES = st.builds(Timeseries, st.dictionaries(TEXT, TEXT, max_size=3), SAMPLES, st.integers(0, 2), st.integers(0, 2))
SOME = st.lists(SERIES, max_size=5)


def points(*messages: bytes) -> list[tuple[object, bytes]]:
    """Return every sample, exemplar and histogram with its series' labels, in order."""
    found: list[tuple[object, bytes]] = []
    for message in messages:
        for each in series(message, version=1):
            ((_, _, _, start, end),) = fields(each.field)
            for number, _, begin, _, stop in fields(each.field, start, end):
                if number != 1:
                    found.append((each.labels, each.field[begin:stop]))
    return found
