"""The schema of servers: databases, retention policies, shard groups, and the types of fields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from influxrelay.verification.connection import Unanswered, at_once
from influxrelay.verification.differences import Difference
from influxrelay.verification.points import SCHEMA
from influxrelay.verification.server import Row, Series, Server
from influxrelay.verification.statements import Measurement, Place, Window, explained_field
from influxrelay.verification.windows import read_time

INTERNAL = "_internal"
TYPES = frozenset(("float", "integer", "unsigned", "string", "boolean"))
_PLAN = "AUXILIARY FIELDS: "
_COMPARED = {
    "duration": "duration",
    "shardGroupDuration": "shard group duration",
    "replicaN": "replication factor",
    "default": "default",
}


@attrs.frozen
class Schema:
    """What a server has.

    :ivar policies: of each database, what SHOW RETENTION POLICIES says of each.
    :ivar groups: where the shard groups of each retention policy begin and end.
    :ivar unmapped: why retention policies that it has cannot be asked for.
    """

    policies: dict[str, dict[str, Row]]
    groups: dict[Place, list[Window]] = attrs.field(factory=dict)
    unmapped: dict[Place, str] = attrs.field(factory=dict)

    @property
    def places(self) -> set[Place]:
        """All retention policies that can be asked for."""
        having = {(database, policy) for database, policies in self.policies.items() for policy in policies}
        return having - self.unmapped.keys()

    def find_unmapped(self, server: Server, places: Iterable[Place]) -> None:
        """Find out which of the retention policies that it lacks are only not mapped."""
        for database, policy in set(places) - self.places:
            if message := server.unmapped((database, policy)):
                self.policies.setdefault(database, {})[policy] = {}
                self.unmapped[database, policy] = message


def read_schema(server: Server, now: int, database: str = "", policy: str = "") -> Schema:
    """Return the schema of a server.

    :param now: nanoseconds since 1970: each server deletes expired shard groups when it likes, so they are left out.
    :param database: only this one, and ``policy``: only those of this name; empty for all.
    :raises Unanswered: it is something else than InfluxDB, such as VictoriaMetrics, or does not answer.
    """
    try:
        return _read_schema(server, now, database, policy)
    except KeyError as lacking:
        problem = f"{server.name} does not answer as InfluxDB does, and cannot be compared"
        raise Unanswered(f"{problem}: no {lacking}") from None


def _read_schema(server: Server, now: int, database: str, policy: str) -> Schema:
    policies: dict[str, dict[str, Row]] = {}
    for name in server.databases():
        if name != INTERNAL and database in ("", name):
            rows = server.retention_policies(name)
            policies[name] = {str(row["name"]): row for row in rows if policy in ("", row["name"])}
    schema = Schema(policies)
    for row in server.shard_groups(schema.places):
        ends, expires = read_time(str(row["end_time"])), read_time(str(row["expiry_time"]))
        if ends < expires <= now:  # both times are the same if it never expires
            continue
        window = Window(read_time(str(row["start_time"])), ends)
        schema.groups.setdefault((str(row["database"]), str(row["retention_policy"])), []).append(window)
    return schema


def read_schemas(servers: Sequence[Server], now: int, database: str, policy: str) -> dict[str, Schema]:
    """Return the schemas of several servers by name; see :func:`read_schema`."""
    read = at_once(servers, lambda each: read_schema(each, now, database, policy))
    everything = set().union(*(schema.places for _, schema in read))
    for server, schema in read:
        schema.find_unmapped(server, everything)
    return {server.name: schema for server, schema in read}


def compare_schemas(schemas: Mapping[str, Schema]) -> list[Difference]:
    """Return which databases and retention policies are missing, and which retention policies differ."""
    found = []
    for database in sorted(set().union(*(each.policies for each in schemas.values()))):
        having = {name: each.policies[database] for name, each in schemas.items() if database in each.policies}
        found += [
            Difference(database, backends=(name,), kind=SCHEMA, message="it has no such database")
            for name in sorted(schemas.keys() - having.keys())
        ]
        for policy in sorted(set().union(*having.values())):
            for name in sorted(name for name, policies in having.items() if policy not in policies):
                message = "it has no such retention policy"
                found.append(Difference(database, policy, backends=(name,), kind=SCHEMA, message=message))
            settings = {name: policies[policy] for name, policies in having.items() if policies.get(policy)}
            found += _compare_policies(database, policy, settings)
    return found


def _compare_policies(database: str, policy: str, settings: Mapping[str, Mapping[str, object]]) -> Iterator[Difference]:
    (first, values), *others = settings.items() or [("", {})]
    for name, other in others:
        wrong = [
            f"{words} {_shown(values[key])} and {_shown(other[key])}"
            for key, words in _COMPARED.items()
            if key in values and key in other and values[key] != other[key]
        ]
        if wrong:
            yield Difference(database, policy, backends=(first, name), kind=SCHEMA, message=", ".join(wrong))


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def read_fields(answer: list[Series]) -> dict[str, dict[str, set[str]]]:
    """Return the measurements of SHOW FIELD KEYS, with the types that each field has in any shard."""
    found: dict[str, dict[str, set[str]]] = {}
    for series in answer:
        fields = found.setdefault(series.name, {})
        for name, kind in series.values:
            fields.setdefault(name, set()).add(kind)
    return found


def read_type(answer: list[Series]) -> str:
    """Return the type of a field that EXPLAIN names; empty if the field is not there."""
    for series in answer:
        for row in series.values:
            kind = str(row[0]).rpartition("::")[2]
            if str(row[0]).startswith(_PLAN) and kind in TYPES:
                return kind
    return ""


def compare_types(
    servers: Sequence[Server],
    measurement: Measurement,
    windows: Iterable[Window],
    types: Mapping[str, Mapping[str, set[str]]],
) -> Iterator[Difference]:
    """Yield where a field has another type; only what has two types anywhere is asked for, shard by shard.

    :param windows: each within one shard group of every server.
    :param types: those that each field has anywhere, by server.
    """
    windows = list(windows)
    for field in sorted(set().union(*types.values())):
        if len(set().union(*(each.get(field, set()) for each in types.values()))) == 1:
            continue
        for window in windows:
            kinds = _types(servers, explained_field(measurement, window, field))
            for name, kind in kinds[1:]:
                if kind != kinds[0][1]:
                    yield Difference(
                        measurement.database,
                        measurement.policy,
                        measurement=measurement.name,
                        since=window.since,
                        until=window.until,
                        kind=SCHEMA,
                        backends=(kinds[0][0], name),
                        message=f'the field "{field}" is {kinds[0][1]} and {kind}',
                    )


def _types(servers: Sequence[Server], statement: str) -> list[tuple[str, str]]:
    """Return the type that each server explains, of those that have the field."""
    asked = at_once(servers, lambda each: each.ask(statement))
    return [(each.name, kind) for each, answer in asked if (kind := read_type(answer))]
