"""One InfluxDB server that is asked for its contents, a statement at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import attrs

from influxrelay.core.text import shortened
from influxrelay.verification.connection import Connection, Restarting, Unanswered
from influxrelay.verification.statements import SHARD_GROUPS, Place, retention_policies

_CHUNK = 10_000  # points of one piece of an answer
_RESTARTING = re.compile("engine is closed|shard is disabled|server closed")
_ZERO = re.compile(rb"[\[,]-0[\],]")

Row = dict[str, object]
"""What an answer has, by column."""


class Overflowed(Unanswered):
    """A sum is beyond what a float can be, and JSON has no word for it; the whole answer is lost."""


class NegativeZero(float):
    """The float -0, which InfluxDB tells from 0."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NegativeZero)

    def __ne__(self, other: object) -> bool:  # a float has one of its own
        return not isinstance(other, NegativeZero)

    def __hash__(self) -> int:
        return hash(-0.0)


@attrs.frozen
class Series:
    """A series of an answer, or a piece of one."""

    name: str
    tags: Mapping[str, str]
    columns: list[str]
    values: list[list[Any]]


@attrs.define
class Server(Connection):
    """A backend that knows InfluxQL."""

    def ask(self, statement: str) -> list[Series]:
        """Return the answer to a statement.

        :raises Unanswered: there is none.
        """
        return self.post(self._path, _asked(statement), self._all)

    def ask_within(self, statement: str, patience: float, limit: int | None = None) -> list[Series]:
        """Return the answer to a statement if it begins within some seconds; see :meth:`Connection.post`."""
        return self.post(self._path, _asked(statement), self._all, patience=patience, limit=limit)

    def fetch(self, statement: str, limit: int | None = None) -> bytes:
        """Return the answer to a statement as it came, whatever it says.

        :param limit: of its bytes; None for any.
        :raises TooLarge: it has more.
        :raises Unanswered: there is none.
        """
        return self.post(self._path, _asked(statement), bytes, limit=limit)

    def databases(self) -> list[str]:
        """Return the names of all databases."""
        return [str(row[0]) for series in self.ask("SHOW DATABASES") for row in series.values]

    def retention_policies(self, database: str) -> list[Row]:
        """Return what SHOW RETENTION POLICIES says."""
        return list(_rows(self.ask(retention_policies(database))))

    def shard_groups(self, places: Iterable[Place]) -> list[Row]:  # noqa: ARG002 (it tells all)
        """Return what SHOW SHARD GROUPS says, of some retention policies at least."""
        return list(_rows(self.ask(SHARD_GROUPS)))

    @property
    def _path(self) -> str:
        return urlsplit(self.url).path or "/"

    def _all(self, body: bytes) -> list[Series]:
        try:
            return list(read_series(body))
        except Unanswered as problem:
            self.close()
            if _RESTARTING.search(str(problem)):
                raise Restarting(str(problem)) from None
            raise type(problem)(f"{self.name}: {problem}") from None


def _asked(statement: str) -> dict[str, str]:
    return {"q": statement, "epoch": "ns", "chunked": "true", "chunk_size": str(_CHUNK)}


def _rows(answer: list[Series]) -> Iterator[Row]:
    for series in answer:
        for row in series.values:
            yield dict(zip(series.columns, row, strict=True))


def read_series(body: bytes) -> Iterator[Series]:
    """Yield what an answer has, one document after the other; numbers without a fraction stay exact.

    :raises Unanswered: it ends with an error.
    """
    for line in body.splitlines():
        if line.startswith(b"json: ") and b"unsupported value" in line:
            raise Overflowed(line.decode(errors="replace").strip())
        document = json.loads(line, parse_int=_integer if _ZERO.search(line) else None) if line.strip() else {}
        problem = document.get("error")
        for result in document.get("results", ()):
            problem = problem or result.get("error")
            for each in result.get("series", ()):
                yield Series(each.get("name", ""), each.get("tags", {}), each["columns"], each.get("values", []))
        if problem:
            raise Unanswered(shortened(str(problem), 200))


def _integer(digits: str) -> float:
    return NegativeZero(-0.0) if digits == "-0" else int(digits)
