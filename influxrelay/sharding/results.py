"""Results of queries as they come from shards and go to clients: series by series, rows by rows."""

from __future__ import annotations

from typing import Any, Protocol

import attrs

from influxrelay.sharding.outcomes import Refused


@attrs.frozen
class Block:
    """Rows of one series, in order; a long series comes in several blocks.

    :ivar tags: None where the series has none.
    """

    name: str
    tags: dict[str, str] | None
    columns: tuple[str, ...]
    rows: list[list[Any]]

    @property
    def key(self) -> SeriesKey:
        """What tells its series from others, and is their order."""
        return series_key(self.name, self.tags)


_REPLACEMENT = "\ufffd"  # of a byte that is no UTF-8

SeriesKey = tuple[bytes, tuple[bytes, ...], tuple[bytes, ...]]


def check_text(text: str) -> str:
    """Return a text that came as JSON if it is what it was before.

    :raises Refused: it had bytes that are no UTF-8; all of these look the same.
    """
    if _REPLACEMENT in text:
        raise Refused(
            "a name or a tag is not UTF-8, so that JSON cannot tell it from others: fix the shard key by WHERE"
        )
    return text


def series_key(name: str, tags: dict[str, str] | None) -> SeriesKey:
    """Return what series are ordered by (``query/point.go``, ``Tags.ID``).

    :raises Refused: as :func:`check_text`.
    """
    for each in (name, *(tags or {}).values()):
        check_text(each)
    names = sorted((each.encode("utf-8", "surrogatepass"), value) for each, value in (tags or {}).items())
    values = tuple(value.encode("utf-8", "surrogatepass") for _, value in names)
    return name.encode("utf-8", "surrogatepass"), tuple(each for each, _ in names), values


class Answer(Protocol):
    """What a shard says, while it comes."""

    def __aiter__(self) -> Answer:
        """Return itself."""

    async def __anext__(self) -> tuple[int, list[Block]]:
        """Return the number of a statement, and rows of its result; times are in nanoseconds.

        :raises Unanswered: the shard does not answer, or the statement has an error.
        """

    def close(self) -> None:
        """Have no more use for it."""


class Shard(Protocol):
    """Who answers for a shard."""

    def ask(self, text: str) -> Answer:
        """Ask it now."""
