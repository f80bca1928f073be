"""The schema of servers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.transport.tls import ClientTLS
from influxrelay.verification.connection import Unanswered
from influxrelay.verification.schema import read_fields, read_schema, read_type
from influxrelay.verification.server import Series, Server

_NOW = 1_800_000_000 * 10**9


class _Scripted(Server):
    """Answers what it is told to answer."""

    answers: dict[str, Series]

    def ask(self, statement: str) -> list[Series]:
        return [self.answers[statement]]


def table(*rows: list[object]) -> Series:
    """Return an answer: its columns, and its rows."""
    columns, *values = rows
    return Series("", {}, list(map(str, columns)), values)


class SchemaTests(SynchronousTestCase):
    """What is read of a schema."""

    def test_other_server(self) -> None:
        """VictoriaMetrics, which answers everything with its databases, is said to be no InfluxDB."""
        server = _Scripted("a", "", ClientTLS())
        databases = table(["name"], ["d"])
        server.answers = dict.fromkeys(
            ("SHOW DATABASES", 'SHOW RETENTION POLICIES ON "d"', "SHOW SHARD GROUPS"), databases
        )
        with self.assertRaisesRegex(Unanswered, "^a does not answer as InfluxDB does, and cannot be compared"):
            read_schema(server, _NOW)

    def test_schema(self) -> None:
        """Databases are read without InfluxDB's own, and shard groups without those that have expired."""
        server = _Scripted("a", "", ClientTLS())
        columns: list[object] = ["database", "retention_policy", "start_time", "end_time", "expiry_time"]
        server.answers = {
            "SHOW DATABASES": table(["name"], ["_internal"], ["d"], ["e"]),
            'SHOW RETENTION POLICIES ON "d"': table(["name", "duration"], ["week", "168h0m0s"], ["ever", "0s"]),
            "SHOW SHARD GROUPS": table(
                columns,
                ["d", "week", "2023-01-01T00:00:00Z", "2023-01-02T00:00:00Z", "2023-01-09T00:00:00Z"],
                ["d", "week", "2027-01-10T00:00:00Z", "2027-01-11T00:00:00Z", "2027-01-18T00:00:00Z"],
                ["d", "ever", "2000-01-01T00:00:00Z", "2000-01-02T00:00:00Z", "2000-01-02T00:00:00Z"],
            ),
        }
        found = read_schema(server, _NOW, "d")
        self.assertEqual(found.places, {("d", "week"), ("d", "ever")})
        self.assertEqual({place: len(groups) for place, groups in found.groups.items()}, dict.fromkeys(found.places, 1))
        self.assertEqual(read_schema(server, _NOW, "d", "ever").places, {("d", "ever")})

    def test_fields(self) -> None:
        """A field has all the types that it has in any shard, and in one shard the one that is named by the plan."""
        answer = [Series("m", {}, ["fieldKey", "fieldType"], [["f", "float"], ["f", "string"], ["g", "float"]])]
        self.assertEqual(read_fields(answer), {"m": {"f": {"float", "string"}, "g": {"float"}}})
        for line, kind in (
            ("AUXILIARY FIELDS: a::b::integer", "integer"),
            ("AUXILIARY FIELDS: f::unknown", ""),
            ("EXPRESSION: <nil>", ""),
        ):
            self.assertEqual(read_type([table(["QUERY PLAN"], [line])]), kind)
