"""SHOW over several shards: what each shows, without what it has in common with others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs

from influxrelay.core.expressions import matches
from influxrelay.influxql.ast import Binary, Bounds, Expression, Literal, Reference, Regex, Statement, walk
from influxrelay.influxql.timerange import TimeRange
from influxrelay.sharding.concern import fixed_values, measured, places
from influxrelay.sharding.outcomes import Refused
from influxrelay.sharding.placement import ShardMap
from influxrelay.sharding.results import Block, SeriesKey, check_text

_SERIES = frozenset(("SHOW FIELD KEYS", "SHOW TAG KEYS", "SHOW TAG VALUES"))  # a list for each measurement
_LISTS = _SERIES | {"SHOW MEASUREMENTS", "SHOW SERIES"}
_SETTINGS = {
    "SHOW CONTINUOUS QUERIES": "continuous queries",
    "SHOW GRANTS FOR": "grants",
    "SHOW RETENTION POLICIES": "retention policies",
    "SHOW SUBSCRIPTIONS": "subscriptions",
    "SHOW USERS": "users",
}
_OF_ONE_SERVER = frozenset(("SHOW DIAGNOSTICS", "SHOW QUERIES", "SHOW SHARD GROUPS", "SHOW SHARDS", "SHOW STATS"))
_KEY = re.compile(r"((?:[^\\,=]|\\.)*)([,=]?)", re.DOTALL)


@attrs.frozen
class Show:
    """How a SHOW is answered.

    :ivar everywhere: the shards to ask.
    :ivar bounds: to be applied to the whole.
    """

    kind: str
    everywhere: frozenset[str]
    bounds: Bounds

    def merged(self, answers: Sequence[Sequence[Block]]) -> Iterator[Block]:
        """Yield the whole of what the shards show.

        :raises Refused: they differ in what they should have in common.
        """
        if self.kind in _SETTINGS:
            yield from self._the_same(answers)
            return
        if self.kind == "SHOW SERIES CARDINALITY":
            yield from _added(answers)
            return
        rows: dict[SeriesKey, dict[tuple[Any, ...], None]] = {}
        heads: dict[SeriesKey, Block] = {}
        for block in (block for answer in answers for block in answer):
            key = block.key
            heads.setdefault(key, block)
            rows.setdefault(key, {}).update(dict.fromkeys(tuple(row) for row in block.rows))
        for key in sorted(rows):
            found: list[Any] = list(rows[key])
            if self.kind != "SHOW DATABASES":
                found.sort(key=_series_order if self.kind == "SHOW SERIES" else _order)
            end = self.bounds.offset + self.bounds.limit if self.bounds.limit else None
            if found := found[self.bounds.offset : end]:
                yield attrs.evolve(heads[key], rows=[list(row) for row in found])

    def _the_same(self, answers: Sequence[Sequence[Block]]) -> Iterable[Block]:
        if any(_as_set(each) != _as_set(answers[0]) for each in answers):
            what = _SETTINGS[self.kind]
            raise Refused(
                f"the shards have different {what}: ask a server of each with backend=NAME, and make them equal"
            )
        return answers[0]


def show(statement: Statement, text: str, shards: ShardMap) -> Show:
    """Return how a SHOW is answered.

    :param text: the statement's.
    :raises Refused: several shards cannot answer it, with the reason.
    """
    kind = statement.kind
    if kind in _OF_ONE_SERVER:
        raise Refused(f"{kind} shows what one server has by itself: choose it with backend=NAME in the query string")
    everywhere = frozenset(shards.shards)
    if kind in _LISTS:
        if shards.key.tag is None:
            keys = measured(statement.sources)
        else:
            keys = fixed_values(statement.condition, shards.key.tag.decode("utf-8", "surrogateescape"))
        everywhere = places(shards, keys, TimeRange())
    if len(everywhere) > 1:
        _check(statement, text, shards)
    return Show(kind, everywhere, statement.bounds)


def _check(statement: Statement, text: str, shards: ShardMap) -> None:
    kind, bounds = statement.kind, statement.bounds
    if kind == "SHOW SERIES CARDINALITY":
        if not re.search(r"(?i)\bexact\b", text):
            raise Refused("estimates cannot be added: ask for SHOW SERIES EXACT CARDINALITY")
        if len(shards.epochs) > 1 or bounds != Bounds() or statement.dimensions:
            raise Refused("series may be on several shards, in several epochs: count what SHOW SERIES returns")
    elif kind.endswith("CARDINALITY"):
        raise Refused(
            f"{kind} over several shards would count twice what several have: count what the SHOW without it returns"
        )
    elif kind not in _LISTS and kind not in _SETTINGS and kind != "SHOW DATABASES":
        raise Refused(f"{kind} is not merged over several shards: ask one server with backend=NAME")
    if bounds.slimit or bounds.soffset:
        raise Refused("SLIMIT and SOFFSET over several shards would count other series: use LIMIT and OFFSET, or FROM")
    if "order" in statement.clauses:
        raise Refused("ORDER BY in SHOW over several shards: leave it out, the order is that of the names")
    if kind == "SHOW MEASUREMENTS":
        _check_condition(statement.condition)


def _check_condition(condition: Expression | None) -> None:
    """Refuse what InfluxDB decides by all series of a measurement rather than for each."""
    for each in walk(condition):
        if not isinstance(each, Binary) or each.operator == "OR":
            continue
        reference, value = each.left, each.right
        if isinstance(reference, Reference) and reference.name.lower() == "time":
            continue
        is_text = each.operator == "=" and isinstance(value, Literal) and value.kind == "string" and value.value != ""
        is_regex = each.operator == "=~" and isinstance(value, Regex) and not matches(value.pattern, "")
        if not is_text and not is_regex:
            raise Refused(
                "SHOW MEASUREMENTS over several shards takes tag = 'value' and tag =~ /expression/ (that no absent tag "
                "matches), and OR between them: use those, or fix the shard key by WHERE"
            )


def _as_set(blocks: Iterable[Block]) -> set[Any]:
    return {(block.key, tuple(map(str, row))) for block in blocks for row in block.rows}


def _added(answers: Sequence[Sequence[Block]]) -> Iterator[Block]:
    """Yield the counts of all shards together."""
    totals: dict[SeriesKey, int] = {}
    heads: dict[SeriesKey, Block] = {}
    for block in (block for answer in answers for block in answer):
        heads.setdefault(block.key, block)
        totals[block.key] = totals.get(block.key, 0) + sum(row[0] for row in block.rows)
    for key in sorted(totals):
        yield attrs.evolve(heads[key], rows=[[totals[key]]])


def _order(row: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(check_text(each).encode("utf-8", "surrogatepass") for each in row)


def _series_order(row: Sequence[str]) -> tuple[Any, ...]:
    """Return what a series' key is sorted by: the measurement, then its tags without escapes."""
    parts: list[bytes] = []
    measurement, tags = b"", []
    first = True
    for found in _KEY.finditer(check_text(row[0])):
        part = re.sub(r"\\([,= \\])", r"\1", found[1]).encode("utf-8", "surrogatepass")
        parts.append(part)
        if found[2] == "=" and not first:
            continue
        if first:
            measurement, first = b"".join(parts), False
        else:
            tags.append(tuple(parts))
        parts = []
        if not found[2]:
            break
    return measurement, tags
