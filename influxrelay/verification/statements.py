"""The statements with which servers are compared.

A window lies within one shard group of every server: a field has one type there, and ``*`` gives each field as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from influxrelay.influxql.timerange import EARLIEST, LATEST
from influxrelay.influxql.unparsing import quoted

AGGREGATES = ("count", "sum", "min", "max", "first", "last")
COUNT = ("count",)
SHARD_GROUPS = "SHOW SHARD GROUPS"
WRITE_COUNTS = "SHOW SHARDS; SHOW STATS FOR 'shard'; SHOW DIAGNOSTICS FOR 'system'"

Place = tuple[str, str]
"""A database and a retention policy."""


class Measurement(NamedTuple):
    """A measurement, by its place."""

    database: str
    policy: str
    name: str

    @property
    def quoted(self) -> str:
        """What stands behind FROM.

        Some names that begin with ``_`` are InfluxDB's own, and it takes them only in a regular expression. The same
        holds for a carriage return, and for a byte that is not UTF-8. An expression sees U+FFFD in the place of such a
        byte, and finds all names that look alike then: see :func:`influxrelay.verification.server.of_measurement`.
        """
        if is_sayable(self.name) and not self.name.startswith("_"):
            return ".".join(map(quoted, self))
        return f"{quoted(self.database)}.{quoted(self.policy)}.{_pattern(self.name)}"


class Window(NamedTuple):
    """A range of nanoseconds since 1970, ``until`` exclusive."""

    since: int
    until: int

    @property
    def length(self) -> int:
        """Nanoseconds."""
        return self.until - self.since

    @property
    def condition(self) -> str:
        """What stands behind WHERE."""
        return f"time >= {self.since} AND time <= {self.until - 1}"


Tagged = Mapping[str, str]
"""All tags that a series of a measurement may have, empty where this one has none."""


class Extent(NamedTuple):
    """Points of a measurement.

    :ivar series: those whose points these are; none for all.
    """

    measurement: Measurement
    window: Window
    series: tuple[Tagged, ...] = ()

    @property
    def points(self) -> str:
        """What asks for the points, series by series."""
        chosen = " OR ".join(
            " AND ".join(f"{quoted(name)}::tag = {quoted(value, chr(39))}" for name, value in each.items())
            for each in self.series
            if each  # a measurement without tags has one series
        )
        where = f"{self.window.condition} AND ({chosen})" if chosen else self.window.condition
        return f"SELECT *::field FROM {self.measurement.quoted} WHERE {where} GROUP BY *"  # noqa: S608 (names are quoted)


def is_sayable(name: str) -> bool:
    """Say whether InfluxQL can have a name, or a string, in quotes."""
    return name.isprintable()


def _pattern(name: str) -> str:
    """Return a regular expression of InfluxQL for a name, however odd."""
    numbers = (0xFFFD if "\udc80" <= each <= "\udcff" else ord(each) for each in name)
    return "/^" + "".join(f"\\x{{{number:X}}}" for number in numbers) + "$/"


EVERYTHING = Window(EARLIEST, LATEST + 1)


def aggregates(measurement: Measurement, window: Window, width: int, names: Sequence[str] = AGGREGATES) -> str:
    """Return what asks for the aggregates of all fields, by parts of a width; 0 is for one window."""
    calls = ", ".join(f"{name}(*)" for name in names)
    grouped = f" GROUP BY time({width}ns, {window.since % width}ns) fill(none)" if width else ""
    return f"SELECT {calls} FROM {measurement.quoted} WHERE {window.condition}{grouped}"  # noqa: S608 (names are quoted)


def series_aggregates(measurement: Measurement, window: Window, names: Sequence[str] = AGGREGATES) -> str:
    """Return what asks for the aggregates of all fields of each series."""
    return f"{aggregates(measurement, window, 0, names)} GROUP BY *"


def explained_field(measurement: Measurement, window: Window, field: str) -> str:
    """Return what asks for the type that a field has in a window: its plan names it."""
    name = f"{quoted(field)}::field" if is_sayable(field) else _pattern(field)
    return f"EXPLAIN SELECT {name} FROM {measurement.quoted} WHERE {window.condition}"  # noqa: S608 (names are quoted)


def field_keys(database: str, policy: str) -> str:
    """Return what asks for the measurements of a retention policy, with their fields and types."""
    return f"SHOW FIELD KEYS ON {quoted(database)} FROM {quoted(policy)}./.*/"


def retention_policies(database: str) -> str:
    """Return what asks for the retention policies of a database."""
    return f"SHOW RETENTION POLICIES ON {quoted(database)}"


def create_database(database: str, policy: str = "", settings: Mapping[str, object] | None = None) -> str:
    """Return what creates a database with a default retention policy as ``SHOW RETENTION POLICIES`` says."""
    if settings is None:
        return f"CREATE DATABASE {quoted(database)}"
    return f"CREATE DATABASE {quoted(database)} WITH {_settings(settings)} NAME {quoted(policy)}"


def create_policy(database: str, policy: str, settings: Mapping[str, object]) -> str:
    """Return what creates a retention policy as ``SHOW RETENTION POLICIES`` says."""
    default = " DEFAULT" if settings["default"] else ""
    return f"CREATE RETENTION POLICY {quoted(policy)} ON {quoted(database)} {_settings(settings)}{default}"


def _settings(settings: Mapping[str, object]) -> str:
    duration = settings["duration"]
    return (
        f"DURATION {'INF' if duration == '0s' else duration} REPLICATION {settings['replicaN']}"
        f" SHARD DURATION {settings['shardGroupDuration']}"
    )
