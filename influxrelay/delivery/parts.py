"""What filters leave of a write."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from influxrelay.core.write import Write
from influxrelay.lineprotocol.filters import Filter, divide_slowly
from influxrelay.lineprotocol.gzip_body import decoded_body_slowly, reduced
from influxrelay.lineprotocol.scanner import Steps


@attrs.frozen
class Division:
    """What some filters leave of a write, and how many lines none of them takes.

    :ivar parts: by filter; None where nothing is left.
    """

    parts: dict[Filter, Write | None]
    unwanted: int


def divide_write_slowly(write: Write, filters: Sequence[Filter]) -> Steps[Division]:
    """Find out bit by bit what filters leave of a write: it may take long, whatever they are."""
    lines = yield from decoded_body_slowly(write)
    parts, unwanted = yield from divide_slowly(lines, filters)
    return Division({each: reduced(write, lines, part) for each, part in zip(filters, parts, strict=True)}, unwanted)
