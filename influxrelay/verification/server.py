"""One InfluxDB server that is asked for its contents, a statement at a time.

JSON shows all bytes that are not UTF-8 alike, so an answer that has some is asked for again in MessagePack. In the text
that is read from there each such byte is a surrogate (``surrogateescape``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import attrs
import msgpack

from influxrelay.core.text import shortened
from influxrelay.verification.connection import Connection, Restarting, TooSlow, Unanswered
from influxrelay.verification.statements import SHARD_GROUPS, Place, retention_policies

T = TypeVar("T")

_CHUNK = 10_000  # points of one piece of an answer
_RESTARTING = re.compile("engine is closed|shard is disabled|server closed")
_LIMITED = re.compile("(query-timeout|max-select-point) limit exce")  # less time at once would do
_ZERO = re.compile(rb"[\[,]-0[\],]")
_BINARY_ZERO = b"\xcb\x80" + bytes(7)  # the float -0 in MessagePack
_REPLACED = rb"\ufffd"  # what Go writes for a byte that is not UTF-8; the character itself it does not escape
_MESSAGEPACK = "application/x-msgpack"
_MORE = b'"partial":true}]}'  # ends a document that another one follows: it is no part of a text
_CUT = "its answer has no end"

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
        return self._ask(statement, self._all)

    def ask_within(self, statement: str, patience: float, limit: int | None = None) -> list[Series]:
        """Return the answer to a statement if it begins within some seconds; see :meth:`Connection.post`."""
        return self._ask(statement, self._all, patience, limit)

    def ask_binary(self, statement: str, limit: int) -> list[Series]:
        """Return the answer to a statement; where the server knows MessagePack, that is less work than :meth:`ask`.

        :param limit: of its bytes.
        :raises TooLarge: it has more.
        :raises Unanswered: there is none.
        """

        def read(body: bytes) -> list[Series] | None:
            return None if is_json(body) else self._all(body)

        found = self.post(self._path, _asked(statement), read, limit=limit, accept=_MESSAGEPACK)
        return self._ask(statement, self._all, limit=limit) if found is None else found

    def fetch(self, statement: str, limit: int | None = None) -> bytes:
        """Return the answer to a statement as it came, whatever it says: see :func:`is_json`.

        :param limit: of its bytes; None for any.
        :raises TooLarge: it has more.
        :raises Unanswered: there is none.
        """
        return self._ask(statement, bytes, limit=limit)

    def databases(self) -> list[str]:
        """Return the names of all databases."""
        return [str(row[0]) for series in self.ask("SHOW DATABASES") for row in series.values]

    def retention_policies(self, database: str) -> list[Row]:
        """Return what SHOW RETENTION POLICIES says."""
        return list(_rows(self.ask(retention_policies(database))))

    def shard_groups(self, places: Iterable[Place]) -> list[Row]:  # noqa: ARG002 (it tells all)
        """Return what SHOW SHARD GROUPS says, of some retention policies at least."""
        return list(_rows(self.ask(SHARD_GROUPS)))

    def unmapped(self, place: Place) -> str:  # noqa: ARG002 (another generation needs both)
        """Say why a retention policy that is not among these cannot be asked for; empty if it is not there."""
        return ""

    def why_not_created(self, place: Place) -> str:  # noqa: ARG002 (another generation needs both)
        """Say why no statement creates a database or a retention policy; empty if one does."""
        return ""

    def written_as(self, place: Place) -> Place:
        """Return what a write names that is for a retention policy."""
        return place

    def _ask(
        self, statement: str, read: Callable[[bytes], T], patience: float | None = None, limit: int | None = None
    ) -> T:
        path, asked = self._path, _asked(statement)

        def read_json(body: bytes) -> tuple[T] | None:
            if is_json(body) and _is_cut(body):
                raise Restarting(_CUT)
            return None if _REPLACED in body else (read(body),)

        def read_exactly(body: bytes) -> T:
            if is_json(body):
                raise Unanswered(f"{self.name} has text that is not UTF-8, and cannot show it in {_MESSAGEPACK}")
            return read(body)

        found = self.post(path, asked, read_json, patience=patience, limit=limit)
        if found is not None:
            return found[0]
        return self.post(path, asked, read_exactly, patience=patience, limit=limit, accept=_MESSAGEPACK)

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
            if _LIMITED.search(str(problem)):
                raise TooSlow(f"{self.name}: {problem}") from None
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
    :raises ValueError: it has no end. A proxy that speaks HTTP/1.0 to the server does not notice that.
    """
    is_cut: object = True
    for document in _documents(body) if is_json(body) else _binary_documents(body):
        problem, is_cut = document.get("error"), False
        for result in document.get("results", ()):
            problem = problem or result.get("error")
            is_cut = result.get("partial")
            for each in result.get("series", ()):
                yield Series(each.get("name", ""), each.get("tags", {}), each["columns"], each.get("values", []))
        if problem:
            raise Unanswered(shortened(str(problem), 200))
    if is_cut:
        raise ValueError(_CUT)


def of_measurement(name: str, answer: Iterable[Series]) -> list[Series]:
    """Return the series of one measurement; others only look as if they had its name (see :class:`Measurement`)."""
    return [each for each in answer if each.name == name]


def is_json(body: bytes) -> bool:
    """Tell whether an answer is JSON, or MessagePack."""
    return not body or body[0] < 0x80


def _is_cut(body: bytes) -> bool:
    """Say whether something is missing at the end of an answer in JSON."""
    end = body[-2 * len(_MORE) :].rstrip()
    return not end or end.endswith(_MORE)


def _documents(body: bytes) -> Iterator[dict[str, Any]]:
    for line in body.splitlines():
        if line.startswith(b"json: ") and b"unsupported value" in line:
            raise Overflowed(line.decode(errors="replace").strip())
        if line.strip():
            yield json.loads(line, parse_int=_integer if _ZERO.search(line) else None)


def _binary_documents(body: bytes) -> Iterator[dict[str, Any]]:
    has_zero = _BINARY_ZERO in body
    unpacker = msgpack.Unpacker(
        unicode_errors="surrogateescape", max_buffer_size=0, list_hook=_with_zeros if has_zero else None
    )
    unpacker.feed(body)
    yield from unpacker


def _with_zeros(values: list[Any]) -> list[Any]:
    return [NegativeZero(each) if isinstance(each, float) and str(each) == "-0.0" else each for each in values]


def _integer(digits: str) -> float:
    return NegativeZero(-0.0) if digits == "-0" else int(digits)
