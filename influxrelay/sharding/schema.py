"""Which fields and tags the shards know, so that each can be asked with those of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from influxrelay.influxql.ast import Binary, Literal, Measurement, Reference, Select
from influxrelay.influxql.parser import QueryError, parse
from influxrelay.influxql.timerange import EARLIEST, LATEST, TimeRange
from influxrelay.influxql.unparsing import Writer, quoted
from influxrelay.sharding.outcomes import Refused
from influxrelay.sharding.results import Block

_PRECEDENCE = ("float", "integer", "unsigned", "string", "boolean")  # as InfluxDB chooses a type (influxql, DataType)
_AUXILIARY = "AUXILIARY FIELDS: "
OF_NO_SERIES = Binary("=", Reference("influxrelay: a tag that nobody has"), Literal("string", "x"))
"""A condition that InfluxDB decides by its index: without it EXPLAIN looks at each series."""


@attrs.frozen
class Schema:
    """What is known of some measurements.

    :ivar fields: the types of fields by name, as one server would see them.
    """

    fields: Mapping[str, str] = attrs.field(factory=dict)
    tags: frozenset[str] = frozenset()

    @classmethod
    def union(cls, schemas: Iterable[Schema]) -> Schema:
        """Return what one server would know that has what all have."""
        fields: dict[str, str] = {}
        tags: frozenset[str] = frozenset()
        for each in schemas:
            tags |= each.tags
            for name, kind in each.fields.items():
                fields[name] = min(kind, fields.get(name, kind), key=_PRECEDENCE.index)
        return cls(fields, tags)

    @classmethod
    def read(cls, results: Mapping[int, list[Block]]) -> Schema:
        """Return what the answers to :func:`question` say.

        :raises Refused: a name cannot be read.
        """
        fields: dict[str, str] = {}
        tags = set()
        for series in results.get(0, ()):
            for (line,) in series.rows:
                if line.startswith(_AUXILIARY):
                    for reference in _references(line.removeprefix(_AUXILIARY)):
                        if reference.type == "tag":
                            tags.add(reference.name)
                        else:
                            known = fields.get(reference.name, reference.type)
                            fields[reference.name] = min(reference.type, known, key=_PRECEDENCE.index)
        for series in results.get(1, ()):
            if series.columns == ("tagKey",):
                tags |= {name for (name,) in series.rows}
        return cls(fields, frozenset(tags))


def _references(text: str) -> list[Reference]:
    try:
        (statement,) = parse(f"SELECT {text} FROM m")  # noqa: S608 (what is parsed is not executed)
    except (QueryError, ValueError):
        raise Refused("the names of its fields cannot be read") from None
    found = [each.expression for each in statement.select.fields] if statement.select is not None else []
    return [each for each in found if isinstance(each, Reference) and each.type in (*_PRECEDENCE, "tag")]


def question(measurements: Iterable[Measurement], range_of_time: TimeRange, *, tags: bool) -> str:
    """Return what to ask for what a shard knows of measurements in a range of time.

    :param tags: whether all tags are wanted, also of measurements without points in that range; this takes a while.
    :raises Refused: the measurements are those of several databases.
    """
    measurements = list(measurements)
    databases = {each.database for each in measurements}
    if len(databases) > 1:
        raise Refused(
            "it reads several databases, of which some may be on other shards than others: ask for each alone"
        )
    writer = Writer(0)
    bounds = [writer.expression(OF_NO_SERIES)]
    if range_of_time.since > EARLIEST:
        bounds.append(f"time >= {range_of_time.since}")
    if range_of_time.until < LATEST:
        bounds.append(f"time <= {range_of_time.until}")
    sources = ", ".join(writer.source(each) for each in measurements)
    explain = f"EXPLAIN SELECT * FROM {sources} WHERE {' AND '.join(bounds)}"  # noqa: S608 (names are quoted)
    if not tags:
        return explain
    names = ", ".join(writer.source(attrs.evolve(each, database="", policy="")) for each in measurements)
    (database,) = databases
    on = f" ON {quoted(database)}" if database else ""
    return f"{explain}; SHOW TAG KEYS{on} FROM {names}"


def of_no_series(select: Select) -> Select:
    """Return a SELECT that is understood, or not, as another one, but reads no series: to explain it costs nothing."""
    sources = tuple(of_no_series(each) if isinstance(each, Select) else each for each in select.sources)
    if any(isinstance(each, Select) for each in sources):
        return attrs.evolve(select, sources=sources)
    if select.condition is None:
        return attrs.evolve(select, condition=OF_NO_SERIES)
    return attrs.evolve(select, condition=Binary("AND", select.condition, OF_NO_SERIES))
