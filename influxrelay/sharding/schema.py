"""Which fields and tags the shards know, so that each can be asked with those of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from influxrelay.influxql.ast import Measurement, Reference
from influxrelay.influxql.parser import QueryError, parse
from influxrelay.influxql.timerange import EARLIEST, LATEST, TimeRange
from influxrelay.influxql.unparsing import Writer, quoted
from influxrelay.sharding.outcomes import Refused
from influxrelay.sharding.results import Block

_PRECEDENCE = ("float", "integer", "unsigned", "string", "boolean")  # as InfluxDB chooses a type (influxql, DataType)
_AUXILIARY = "AUXILIARY FIELDS: "


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
            tags |= {name for (name,) in series.rows}
        return cls(fields, frozenset(tags))


def _references(text: str) -> list[Reference]:
    try:
        (statement,) = parse(f"SELECT {text} FROM m")  # noqa: S608 (what is parsed is not executed)
    except (QueryError, ValueError):
        raise Refused("the names of its fields cannot be read") from None
    found = [each.expression for each in statement.select.fields] if statement.select is not None else []
    return [each for each in found if isinstance(each, Reference) and each.type in (*_PRECEDENCE, "tag")]


def question(measurements: Iterable[Measurement], range_of_time: TimeRange) -> str:
    """Return what to ask for what a shard knows of measurements in a range of time (of tags: at any time).

    :raises Refused: the measurements are those of several databases.
    """
    measurements = list(measurements)
    databases = {each.database for each in measurements}
    if len(databases) > 1:
        raise Refused(
            "it reads several databases, of which some may be on other shards than others: ask for each alone"
        )
    writer = Writer(0)
    bounds = []
    if range_of_time.since > EARLIEST:
        bounds.append(f"time >= {range_of_time.since}")
    if range_of_time.until < LATEST:
        bounds.append(f"time <= {range_of_time.until}")
    where = f" WHERE {' AND '.join(bounds)}" if bounds else ""
    sources = ", ".join(writer.source(each) for each in measurements)
    names = ", ".join(writer.source(attrs.evolve(each, database="", policy="")) for each in measurements)
    (database,) = databases
    on = f" ON {quoted(database)}" if database else ""
    explain = f"EXPLAIN SELECT * FROM {sources}{where}"  # noqa: S608 (names are quoted)
    return f"{explain}; SHOW TAG KEYS{on} FROM {names}"
