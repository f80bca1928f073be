"""What a server says, in chunks of JSON (``services/httpd/handler.go``)."""

from __future__ import annotations

import json
from collections.abc import Iterator

from influxrelay.core.errors import BackendFailure
from influxrelay.sharding.outcomes import StatementError
from influxrelay.sharding.results import Block


def read_chunk(line: bytes) -> Iterator[tuple[int, list[Block]]]:
    """Yield the numbers of statements and the rows of their results in one line of an answer.

    :raises StatementError: a statement has an error.
    :raises BackendFailure: this is no answer of InfluxDB.
    """
    try:
        document = json.loads(line)
        error = document.get("error")
        results = document.get("results", [])
        for result in results:
            error = error or result.get("error")
        if error:
            raise StatementError(str(error))
        for result in results:
            yield result.get("statement_id", 0), [_block(each) for each in result.get("series", ())]
    except (ValueError, AttributeError, TypeError, KeyError) as problem:
        raise BackendFailure("garbage", f"a chunk that cannot be read: {problem}") from None


def _block(series: dict) -> Block:  # type: ignore[type-arg]
    return Block(series.get("name", ""), series.get("tags"), tuple(series["columns"]), series.get("values") or [])
