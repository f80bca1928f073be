"""Writes of any kind, for tests with Hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from influxrelay.core.write import Destination, Write
from influxrelay.journal.records import Record

fields = st.binary(max_size=20)
destinations = st.builds(Destination, fields, fields, fields, st.tuples(fields, fields, fields))
writes = st.builds(Write, destinations, fields, st.just(b""), st.binary(max_size=200), st.booleans(), st.booleans())
records = st.builds(Record, st.integers(1, 2**63), st.floats(0, 1e12), writes)
