"""Results of queries as they come from shards and go to clients: series by series, rows by rows."""

from __future__ import annotations

from typing import Any, Protocol

import attrs


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


SeriesKey = tuple[bytes, tuple[bytes, ...], tuple[bytes, ...]]


def series_key(name: str, tags: dict[str, str] | None) -> SeriesKey:
    """Return what series are ordered by (``query/point.go``, ``Tags.ID``)."""
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
