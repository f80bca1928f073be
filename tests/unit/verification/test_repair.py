"""Lines and statements that bring a server what it lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.lineprotocol.filters import Filter
from influxrelay.transport.tls import ClientTLS
from influxrelay.verification.lines import are_lines, point_line, series_line
from influxrelay.verification.points import read_points
from influxrelay.verification.repair import Mending, Outdated, create_missing
from influxrelay.verification.schema import Schema
from influxrelay.verification.server import NegativeZero, Series, Server
from influxrelay.verification.setting import Found
from influxrelay.verification.statements import Extent, Measurement, Window
from influxrelay.verification.tombstones import Missed


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
        for name in ("m\\", "a\nb", "a\\\\\nb", "#m", "\tm"):
            self.assertEqual(series_line(name, ()), "", name)
        self.assertEqual(series_line("a\\\nb", ()), "a\\\nb")
        for value in ("v\\", "a\nb"):
            self.assertEqual(series_line("m", (("t", value),)), "")
            self.assertEqual(point_line("m", {value: 1}, {value: "float"}, 1), "")
        self.assertEqual(point_line("m", {"f": 1}, {}, 1), "")
        self.assertEqual(point_line("m", {"f": 1.5}, {"f": "integer"}, 1), "")
        self.assertEqual(point_line("", {"f": True}, {}, 1), "")


M = Measurement("d", "rp", "m")
_numbers = count()


@attrs.define
class FakeServer(Server):
    """A server whose points are a dictionary: the values of the field f by time."""

    values: dict[int, Any] = attrs.field(factory=dict)

    def ask(self, statement: str) -> list[Series]:
        """Return all points."""
        assert statement.startswith("SELECT *::field"), statement
        return [Series("m", {}, ["time", "f"], [list(each) for each in self.values.items()])]

    def fetch(self, statement: str, limit: int | None = None) -> bytes:
        """Return all points in some form."""
        return repr(self.ask(statement)).encode()


def fake(**values: Any) -> FakeServer:
    """Return a server with values at the times 1, 2 and so on."""
    tls = ClientTLS()
    return FakeServer(f"fake{next(_numbers)}", "", tls, values={int(time[1:]): value for time, value in values.items()})


@attrs.define
class FakeWriter:
    """Writes as a function does.

    :ivar outdated: how often lines turn out to be outdated.
    :ivar has_missed: what the source has missed, by how often lines will still turn out to be outdated.
    """

    take: Callable[[Measurement, Sequence[str]], str]
    outdated: int = 0
    has_missed: dict[int, Sequence[Missed]] = attrs.field(factory=dict)

    def mark(self) -> str:
        """Return the mark that is asked for."""
        return f"mark {self.outdated}"

    def missed(self) -> Sequence[Missed]:
        """Return what the source has missed."""
        return self.has_missed.get(self.outdated, ())

    def write(self, measurement: Measurement, lines: Sequence[str], mark: str, *, last: bool) -> str:
        """Write."""
        assert last
        if self.outdated:
            self.outdated -= 1
            raise Outdated
        assert mark == "mark 0" or not mark, mark
        return self.take(measurement, lines)


class MendingTests(SynchronousTestCase):
    """Copying what is missing in a window."""

    def mend(
        self, source: FakeServer, target: FakeServer, *meanwhile: Callable[[], object], **settings: Any
    ) -> Mending:
        """Mend; after each write the next thing happens meanwhile."""
        happenings = iter(meanwhile)

        def write(measurement: Measurement, lines: Sequence[str]) -> str:
            self.assertEqual(measurement, M)
            for line in lines:
                _, fields, time = line.split(" ")
                target.values[int(time)] = float(fields.removeprefix("f="))
            next(happenings, lambda: None)()
            return ""

        kinds = settings.pop("kinds", {"float"})
        mending = Mending(source, target, FakeWriter(settings.pop("write", write)), **settings)
        has, having = (read_points(each.ask(Extent(M, Window(0, 10)).points)) for each in (source, target))
        mending.mend(Extent(M, Window(0, 10)), {"f": kinds}, Found(has, having))
        return mending

    def test_copied(self) -> None:
        """What is missing is copied, and other values are left as they are, unless they are to be overwritten."""
        source, target = fake(t1=1, t2=2, t3=3), fake(t2=5, t4=4)
        mending = self.mend(source, target)
        self.assertEqual(target.values, {1: 1, 2: 5, 3: 3, 4: 4})
        self.assertEqual((mending.copied, mending.overwritten, mending.differing), (2, 0, 1))
        mending = self.mend(source, target, overwrite=True)
        self.assertEqual(target.values, {1: 1, 2: 2, 3: 3, 4: 4})
        self.assertEqual((mending.copied, mending.overwritten, mending.differing), (0, 1, 0))

    def test_dry_run(self) -> None:
        """A dry run counts what it would do."""
        source, target = fake(t1=1, t2=2), fake(t2=5)
        mending = self.mend(source, target, overwrite=True, dry_run=True)
        self.assertEqual((target.values, mending.copied, mending.overwritten), ({2: 5}, 1, 1))

    def test_newer_value(self) -> None:
        """A value that a client writes meanwhile is there in the end, whether it or ours came first."""
        source, target = fake(t1=1), fake()
        self.mend(source, target, lambda: source.values.update({1: 7}))
        self.assertEqual(target.values, {1: 7})
        source, target = fake(t1=1), fake()
        mending = self.mend(source, target, lambda: target.values.update({1: 7}))
        self.assertEqual((target.values, mending.copied, mending.uncopied), ({1: 7}, 1, []))

    def test_refused(self) -> None:
        """What the target refuses is named with what it has said; so is what cannot be written."""
        for overwrite in (False, True):
            source, target = fake(t1=1, t2=2, t3=3), fake(t2=5, t3=3)
            mending = self.mend(source, target, write=lambda *_: "it has refused", overwrite=overwrite)
            (refused,) = mending.uncopied
            self.assertEqual((refused.since, refused.until, refused.points), (1, 3 if overwrite else 2, 1 + overwrite))
            self.assertEqual((refused.message, mending.copied, mending.overwritten), ("it has refused", 0, 0))
        (unwritable,) = self.mend(fake(t1=0.5), fake(), kinds={"integer"}).uncopied
        self.assertEqual(unwritable.message, "line protocol cannot say it exactly")

    def test_outdated(self) -> None:
        """What was read before a change is read again: the change may have been a DELETE."""
        source, target = fake(t1=1, t2=2), fake()

        def write(measurement: Measurement, lines: Sequence[str]) -> str:
            target.values.update((int(line.rpartition(" ")[2]), 1) for line in lines)
            return ""

        mending = Mending(source, target, FakeWriter(write, 1))
        has = read_points(source.ask(Extent(M, Window(0, 10)).points))
        del source.values[2]
        mending.mend(Extent(M, Window(0, 10)), {"f": {"float"}}, Found(has, {}, "mark 1"))
        self.assertEqual((target.values, mending.copied), ({1: 1}, 1))

    def test_missed_meanwhile(self) -> None:
        """What a change was to remove is not brought back if the source has missed it since the repair began."""
        source, target = fake(t1=1, t2=2), fake()
        shown = {"id": "5", "when": 100, "databases": ["d"], "statement": "DROP MEASUREMENT m"}
        writer = FakeWriter(lambda *_: "", 1, {0: [Missed.read(shown)]})
        mending = Mending(source, target, writer)
        mark, has = mending.mark(), read_points(source.ask(Extent(M, Window(0, 10)).points))
        mending.mend(Extent(M, Window(0, 10)), {"f": {"float"}}, Found(has, {}, mark))
        self.assertEqual((target.values, mending.copied, mending.uncopied), ({}, 0, []))
        self.assertEqual([each[:23] for each in mending.tombstones.notes("b")], ["2 points of b not copie"])

    def test_filter(self) -> None:
        """What the target's filters leave out is not copied."""
        target = fake()
        self.mend(fake(t1=1), target, filter=Filter(["^n"], []))
        self.assertEqual(target.values, {})
        self.mend(fake(t1=1), target, filter=Filter(["^m"], []))
        self.assertEqual(target.values, {1: 1})


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
