"""Shards beside one server with all their data: the same queries for both, and what differs."""

from __future__ import annotations

import json
import math
import urllib.parse
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from influxrelay.influxql.ast import Call, walk
from influxrelay.influxql.parser import parse
from influxrelay.influxql.rewriting import replaced, statement_text
from influxrelay.sharding.answers import read_chunk
from influxrelay.sharding.outcomes import Refused, StatementError
from influxrelay.sharding.placement import ShardMap
from influxrelay.sharding.queries import Alone, Planner
from influxrelay.sharding.results import Answer, Block
from influxrelay.sharding.selects import MATH
from testing.servers import Influxd, send
from testing.shard_queries import END, HOUR, POLICY, Point, Queries, points, shard_map

_CLOSE = 1e-12  # relative, of sums of floats
_NO_ITERATOR = "iterator type"  # of several calls without one InfluxDB names any


def ask(server: Influxd, database: str, text: str) -> bytes:
    """Ask a server, and return its whole answer."""
    body = urllib.parse.urlencode({"q": text, "db": database, "epoch": "ns"}).encode()
    return send("POST", f"{server.url}/query", body)[1]


def load(server: Influxd, database: str, written: Iterable[Point]) -> None:
    """Create a database with these points."""
    server.query(f'DROP DATABASE "{database}"')
    server.query(f'CREATE DATABASE "{database}" {POLICY}')
    lines = [line for *_, line in written]
    if lines and (status := server.write("\n".join(lines), database)) != 204:
        raise AssertionError(f"the points were answered {status}")


def divided(shards: ShardMap, whole: Iterable[Point]) -> dict[str, list[Point]]:
    """Return what each shard gets."""
    found: dict[str, list[Point]] = {name: [] for name in shards.shards}
    for point in whole:
        measurement, tags, when, _ = point
        key = measurement if shards.key.tag is None else tags.get(shards.key.tag.decode(), "")
        found[shards.place(key.encode(), when)].append(point)
    return found


class _Whole:
    """An answer that has come."""

    def __init__(self, body: bytes) -> None:
        self._chunks = read_chunk(body)

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> tuple[int, list[Block]]:
        for each in self._chunks:
            return each
        raise StopAsyncIteration

    def close(self) -> None:
        """Do nothing: all has come."""


@attrs.frozen
class DatabaseShard:
    """A shard that is a database of a server."""

    server: Influxd
    database: str

    def ask(self, text: str) -> Answer:
        """Ask for it all."""
        return _Whole(ask(self.server, self.database, text))


def answer(shards: ShardMap, databases: dict[str, DatabaseShard], text: str, now: int) -> dict[str, Any]:
    """Return the result of a query over shards, as a server would show it.

    :raises Refused: there is none.
    """
    (statement,) = parse(text)
    bounds = [span for name, span in statement.clauses.items() if name in ("limit", "offset")]

    async def run() -> dict[str, Any]:
        planner = Planner(shards, databases, now, 1_000_000)
        try:
            how = await planner.plan(statement, statement_text(text, statement, now), replaced(text, bounds, ""))
            if isinstance(how, Alone):
                home = databases[how.shard]
                found: dict[str, Any] = json.loads(ask(home.server, home.database, how.text))
                return found["results"][0] if "results" in found else found
            series: list[dict[str, Any]] = []
            async for block in how.blocks():
                _append(series, block)
        except StatementError as error:
            return {"statement_id": 0, "error": str(error)}
        return {"statement_id": 0, "series": series} if series else {"statement_id": 0}

    results: list[Any] = []
    Deferred.fromCoroutine(run()).addBoth(results.append)
    (found,) = results
    if isinstance(found, dict):
        return found
    found.raiseException()
    raise AssertionError


def _append(series: list[dict[str, Any]], block: Block) -> None:
    last = series[-1] if series else {}
    if (last.get("name", ""), last.get("tags"), last.get("columns")) == (block.name, block.tags, list(block.columns)):
        last["values"] += block.rows
        return
    found: dict[str, Any] = {"name": block.name} if block.name else {}
    if block.tags is not None:
        found["tags"] = block.tags
    series.append({**found, "columns": list(block.columns), "values": list(block.rows)})


def compare(server: Influxd, seed: int, count: int, *, reload: bool = True) -> Comparison:
    """Ask queries by chance of 2, 3 and 5 shards, by a tag and by measurement, and of one database with all the data.

    :param reload: whether the data have to be written first.
    """
    everything = points(7, 4000)
    if reload:
        load(server, "whole", everything)
    maps = []
    for key in ("tag:customer", "measurement"):
        for number, borders in ((2, True), (3, True), (5, True), (3, False)):
            shards = shard_map(key, number, borders=borders)
            databases = {}
            for name, part in divided(shards, everything).items():
                databases[name] = DatabaseShard(server, f"{key[:3]}{number}{borders}{name}")
                if reload:
                    load(server, databases[name].database, part)
            maps.append((shards, databases))
    comparison = Comparison()
    now = END + HOUR
    for number, text in enumerate(islice(Queries(seed), count)):
        shards, databases = maps[number % len(maps)]
        found: Any
        try:
            found = answer(shards, databases, text, now)
        except Refused as refused:
            found = refused
        (statement,) = parse(text)
        whole = json.loads(ask(server, "whole", statement_text(text, statement, now)))
        comparison.check(text, whole["results"][0] if "results" in whole else whole, found)
    return comparison


class Comparison:
    """Compares what shards say with what one server with all the data does.

    :ivar outcomes: how often both were ``equal``, or the shards ``refused``.
    :ivar reasons: how often each reason was given.
    :ivar differing: the queries whose results differ, and how.
    """

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.differing: list[tuple[str, str]] = []

    def check(self, text: str, whole: dict[str, Any], shards: Any) -> None:
        """Compare two results of a query; the second may be :class:`Refused`."""
        if isinstance(shards, Refused):
            self.outcomes["refused"] += 1
            self.reasons[str(shards)] += 1
            return
        difference = differs(text, whole, shards)
        self.outcomes["differing" if difference else "equal"] += 1
        if not difference and whole.get("series"):
            self.outcomes["with rows"] += 1
        if difference:
            self.differing.append((text, difference))


def differs(text: str, whole: dict[str, Any], other: dict[str, Any]) -> str:
    """Tell how two results differ; empty if they do not.

    Raw rows of one time, as those of DISTINCT, may come in any order, and a LIMIT may choose any of them, as may first
    and last without time().
    """
    if "error" in whole or "error" in other:
        errors = [str(each.get("error", "")) for each in (whole, other)]
        same = errors[0] == errors[1] or all(_NO_ITERATOR in each for each in errors)
        return "" if same else f"{_shown(whole)} became {_shown(other)}"
    ours, theirs = whole.get("series", []), other.get("series", [])
    if "SHOW DATABASES" in text.upper():
        return ""
    if [_head(each) for each in ours] != [_head(each) for each in theirs]:
        return f"series {[_head(each) for each in ours]} became {[_head(each) for each in theirs]}"
    (statement,) = parse(text)
    calls = set()
    if statement.select is not None:
        for field in statement.select.fields:
            calls |= {each.name for each in walk(field.expression) if isinstance(each, Call)}
    is_raw = not calls - MATH - {"distinct"}
    for one, two in zip(ours, theirs, strict=True):
        difference = _rows_differ(text, one.get("values", []), two.get("values", []), is_raw=is_raw)
        if difference:
            return f"{_head(one)}: {difference}"
    return ""


def _rows_differ(text: str, one: list[list[Any]], two: list[list[Any]], *, is_raw: bool) -> str:
    if len(one) != len(two):
        return f"{len(one)} rows became {len(two)}: {_shown(one)} became {_shown(two)}"
    bounded = is_raw and " LIMIT " in text
    if is_raw:
        one, two = _sorted(one), _sorted(two)
    free = {one[0][0], one[-1][0]} if bounded else set()
    chooses = not is_raw and "time(" not in text.partition("GROUP BY")[2] and ("first(" in text or "last(" in text)
    for left, right in zip(one, two, strict=True):
        pairs = list(zip(left, right, strict=True))
        if chooses or left[0] in free:
            pairs = pairs[:1]
        is_close = "mean(" in text or " / " in text  # JSON shows a float without a fraction as an integer
        if not all(_equal(a, b, is_close=is_close) for a, b in pairs):
            return f"{left} became {right}"
    return ""


def _sorted(rows: list[list[Any]]) -> list[list[Any]]:
    """Return rows with those of one time in an order of their own."""
    found: list[list[Any]] = []
    at = 0
    while at < len(rows):
        end = at
        while end < len(rows) and rows[end][0] == rows[at][0]:
            end += 1
        found += sorted(rows[at:end], key=repr)
        at = end
    return found


def _equal(one: Any, two: Any, *, is_close: bool) -> bool:
    numbers = isinstance(one, int | float) and isinstance(two, int | float)
    if isinstance(one, float) or isinstance(two, float) or (numbers and is_close and abs(one) > 2**53):
        return numbers and math.isclose(one, two, rel_tol=_CLOSE, abs_tol=1e-9)
    return type(one) is type(two) and one == two


def _head(series: dict[str, Any]) -> tuple[Any, ...]:
    return series.get("name", ""), tuple(sorted((series.get("tags") or {}).items())), tuple(series["columns"])


def _shown(value: Any) -> str:
    return json.dumps(value)[:400]
