"""Lines and statements that bring a server what it lacks."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.verification.lines import are_lines, point_line, series_line
from influxrelay.verification.repair import create_missing
from influxrelay.verification.schema import Schema
from influxrelay.verification.server import NegativeZero


class LineTests(SynchronousTestCase):
    """Points as line protocol."""

    def test_names(self) -> None:
        """Names are escaped as InfluxDB reads them."""
        self.assertEqual(series_line('a, "=', (("k=, ", "v,= \\x"),)), 'a\\,\\ "=,k\\=\\,\\ =v\\,\\=\\ \\x')
        self.assertEqual(point_line("m", {'f"=, ': True}, {}, 5), 'm f\\"\\=\\,\\ =true 5')

    def test_values(self) -> None:
        """Each type is written so that nothing of a value is lost."""
        fields = {"a": 2**53 + 1, "b": 1, "c": 2**64 - 1, "d": 0.1, "e": 'x"\\\n', "f": False, "g": ""}
        kinds = {"a": "integer", "b": "float", "c": "unsigned", "d": "float", "h": "float"}
        fields["h"] = NegativeZero(-0.0)
        line = point_line("m", fields, kinds, -(2**63) + 2)
        self.assertEqual(
            line,
            'm a=9007199254740993i,b=1.0,c=18446744073709551615u,d=0.1,e="x\\"\\\\\n",f=false,g="",h=-0.0'
            " -9223372036854775806",
        )
        self.assertTrue(are_lines([line, "m f=1 1"]))

    def test_unwritable(self) -> None:
        """What line protocol cannot say, or what was not shown exactly, is not written."""
        for name in ("m\\", "a\nb", "a\\\\\nb", "#m", "\tm", "\ufffd"):
            self.assertEqual(series_line(name, ()), "", name)
        self.assertEqual(series_line("a\\\nb", ()), "a\\\nb")
        for value in ("v\\", "a\nb", "\ufffd"):
            self.assertEqual(series_line("m", (("t", value),)), "")
            self.assertEqual(point_line("m", {value: 1}, {value: "float"}, 1), "")
        self.assertEqual(point_line("m", {"f": "\ufffd"}, {}, 1), "")
        self.assertEqual(point_line("m", {"f": 1}, {}, 1), "")
        self.assertEqual(point_line("m", {"f": 1.5}, {"f": "integer"}, 1), "")
        self.assertEqual(point_line("", {"f": True}, {}, 1), "")


class StatementTests(SynchronousTestCase):
    """Databases and retention policies."""

    def test_created(self) -> None:
        """What is missing is created with its settings, the default retention policy along with the database."""

        def policy(duration: str, *, default: bool) -> dict[str, object]:
            return {"duration": duration, "shardGroupDuration": "24h0m0s", "replicaN": 1, "default": default}

        weekly = {"a": policy("168h0m0s", default=False), "d": policy("0s", default=True)}
        source = Schema({"one": weekly, "two": weekly, "three": {}}, {})
        target = Schema({"two": {"a": policy("1h0m0s", default=True)}}, {})
        self.assertEqual(
            create_missing(source, target),
            {
                ("one", "d"): 'CREATE DATABASE "one" WITH DURATION INF REPLICATION 1 SHARD DURATION 24h0m0s NAME "d"',
                ("one", "a"): 'CREATE RETENTION POLICY "a" ON "one" DURATION 168h0m0s REPLICATION 1'
                " SHARD DURATION 24h0m0s",
                ("three", ""): 'CREATE DATABASE "three"',
                ("two", "d"): 'CREATE RETENTION POLICY "d" ON "two" DURATION INF REPLICATION 1'
                " SHARD DURATION 24h0m0s DEFAULT",
            },
        )
        self.assertEqual(create_missing(target, target), {})
