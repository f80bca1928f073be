"""Two real InfluxDB servers that differ in more than forty ways, made by hand, and what ``verify`` says of it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import rmtree
from typing import Any

import attrs
from twisted.internet.threads import deferToThread

from influxrelay.core.text import iso_nanoseconds
from influxrelay.influxql.unparsing import quoted
from influxrelay.verification import measurement
from testing.servers import Influxd
from testing.verify_case import VerifyCase

T = 1_700_000_000 * 10**9
DAY = 86_400 * 10**9
EARLIEST, LATEST = -(2**63) + 2, 2**63 - 2
MONDAY = 1_699_833_600 * 10**9  # where a shard group of a week begins
BOTH = ("a", "b")
WEEK = (MONDAY, MONDAY + 7 * DAY)
NAME = "say \"x\", 'y' = a\\z"


@attrs.frozen
class Case:
    """A way in which the servers differ, in a measurement of its own.

    :ivar name: of the measurement, which stands for ``M`` in the lines.
    :ivar found: what is to be told: kind, backends, time of the first and behind the last point, and points.
    """

    name: str
    both: tuple[str, ...] = ()
    a: tuple[str, ...] = ()
    b: tuple[str, ...] = ()
    found: tuple[tuple[str, Any, int, int, int], ...] = ()


def missing(backend: str, since: int, until: int = 0, points: int = 1) -> tuple[str, Any, int, int, int]:
    """Return a difference of that kind."""
    return "missing", backend, since, until or since + 1, points


def value(since: int, until: int = 0, points: int = 1) -> tuple[str, Any, int, int, int]:
    """Return a difference of that kind."""
    return "value", BOTH, since, until or since + 1, points


def conflict() -> tuple[str, Any, int, int, int]:
    """Return a difference between types."""
    return "schema", BOTH, *WEEK, 0


def values(name: str, one: str, other: str) -> Case:
    """Return a case of one point with two values."""
    return Case(name, a=(f"M f={one} {T}",), b=(f"M f={other} {T}",), found=(value(T),))


_SECONDS = tuple(f"M,h=x f={n} {T + n * 10**9}" for n in range(5000))
_TEXTS = tuple(f'M f="{n}",b={n % 2 == 0} {T + n * 10**6}' for n in range(8000))
_AT = T + 10**9

CASES = (
    Case("equal", both=_SECONDS),
    # -- points, series, fields and measurements that one lacks
    Case("a point", _SECONDS, a=(f"M,h=x f=1 {T + 1}",), found=(missing("b", T + 1),)),
    Case("a point of the other", _SECONDS, b=(f"M,h=x f=1 {T + 1}",), found=(missing("a", T + 1),)),
    Case("a series", _SECONDS, a=(f"M,h=y f=1 {T}", f"M,h=y f=2 {_AT}"), found=(missing("b", T, _AT + 1, 2),)),
    Case("a tag", a=(f"M,h=x f=1 {T}",), b=(f"M f=1 {T}",), found=(missing("a", T), missing("b", T))),
    Case("a tag's value", a=(f"M,h=x f=1 {T}",), b=(f"M,h=X f=1 {T}",), found=(missing("a", T), missing("b", T))),
    Case("a field", (f"M f=1 {T}",), a=(f"M g=1 {T}",), found=(missing("b", T),)),
    Case("a field at one time", (f"M f=1,g=1 {T}", f"M f=1 {_AT}"), b=(f"M g=1 {_AT}",), found=(missing("a", _AT),)),
    Case("a measurement", a=(f"M f=1 {T}", f"M f=1 {_AT}"), found=(missing("b", T, _AT + 1, 2),)),
    Case("a measurement of the other", b=(f"M f=1 {T}",), found=(missing("a", T),)),
    Case(
        "time by a nanosecond", a=(f"M f=1 {T}",), b=(f"M f=1 {T + 1}",), found=(missing("b", T), missing("a", T + 1))
    ),
    Case(
        "a range",
        _SECONDS[:500] + _SECONDS[1500:],
        a=_SECONDS,
        found=(missing("b", T + 500 * 10**9, T + 1499 * 10**9 + 1, 1000),),
    ),
    Case("every other", _SECONDS[:6:2], a=_SECONDS[:6], found=tuple(missing("b", T + n * 10**9) for n in (1, 3, 5))),
    Case(
        "over the edge",
        (f"M f=0 {MONDAY - 2}", f"M f=0 {MONDAY + 2}"),
        a=(f"M f=1 {MONDAY - 1}", f"M f=1 {MONDAY}"),
        found=(missing("b", MONDAY - 1, MONDAY + 1, 2),),
    ),
    Case(
        "here and there",
        (f"M f=1 {T}",),
        a=(f"M f=1 {T - 70 * DAY}",),
        b=(f"M f=1 {T + 70 * DAY}",),
        found=(missing("b", T - 70 * DAY), missing("a", T + 70 * DAY)),
    ),
    # -- values
    values("float", "1", "2"),
    values("last digit", "0.3", "0.30000000000000004"),
    values("zero", "0", "-0"),
    values("smallest", "5e-324", "0"),
    values("largest", "1.7976931348623157e308", "1.7976931348623155e308"),
    values("integer", "1i", "2i"),
    values("beyond 2^53", f"{2**53}i", f"{2**53 + 1}i"),
    values("greatest integer", f"{2**63 - 1}i", f"{2**63 - 2}i"),
    values("least integer", f"{-(2**63)}i", f"{-(2**63) + 1}i"),
    values("boolean", "true", "false"),
    values("string", '"x"', '"X"'),
    values("newline", '"a\nb"', '"a b"'),
    values("carriage return", '"a\r\nb"', '"a\nb"'),
    values("quote", r'"a\"b"', '"ab"'),
    values("backslash", r'"a\\b"', '"ab"'),
    values("comma", '"a,b=c d"', '"a,b=c  d"'),
    values("unicode", '"é"', '"e\u0301"'),
    values("beyond unicode's first plane", '"😀"', '"😁"'),
    values("empty", '""', '" "'),
    values("null", '"a\0b"', '"ab"'),
    values("json", '"],[1,2],["', '"],[1,3],["'),
    values("end of a long string", f'"{"x" * 60_000}"', f'"{"x" * 59_999}y"'),
    Case(
        "swapped",
        _SECONDS,
        b=(f"M,h=x f=8 {T + 7 * 10**9}", f"M,h=x f=7 {T + 8 * 10**9}"),
        found=(value(T + 7 * 10**9, T + 8 * 10**9 + 1, 2),),
    ),
    Case("a string among many", _TEXTS, b=(f'M f="x" {T + 4000 * 10**6}',), found=(value(T + 4000 * 10**6),)),
    Case("a boolean among many", _TEXTS, b=(f"M b=f {T + 4000 * 10**6}",), found=(value(T + 4000 * 10**6),)),
    Case("both kinds", (f"M f=1 {T}",), a=(f"M g=1 {T}",), b=(f"M f=2 {T}",), found=(missing("b", T), value(T))),
    # -- times
    Case("earliest", a=(f"M f=1 {EARLIEST}",), found=(missing("b", EARLIEST),)),
    Case("latest", b=(f"M f=1 {LATEST}",), found=(missing("a", LATEST),)),
    Case(
        "value at the ends",
        (f"M f=1 {EARLIEST}", "M f=1 0", f"M f=1 {LATEST}"),
        b=(f"M f=2 {EARLIEST}", f"M f=2 {LATEST}"),
        found=(value(EARLIEST), value(LATEST)),
    ),
    Case("before 1970", (f"M f=1 {-T}",), a=(f"M f=1 {-T - 1}",), found=(missing("b", -T - 1),)),
    Case("around 1970", ("M f=1 -3", "M f=1 3"), a=("M f=1 -1", "M f=1 0"), found=(missing("b", -1, 1, 2),)),
    # -- names
    Case(NAME, (f"M f=1 {T}",), a=(f"M f=1 {_AT}",), found=(missing("b", _AT),)),
    Case("select", (f"M f=1 {T}",), a=(f"M f=1 {_AT}",), found=(missing("b", _AT),)),
    Case("any", (f"M f=1 {T}",), a=(f"M f=1 {_AT}",), found=(missing("b", _AT),)),
    Case("a.b/c$^(*", (f"M f=1 {T}",), a=(f"M f=1 {_AT}",), found=(missing("b", _AT),)),
    Case("_name", (f"M f=1 {T}",), a=(f"M f=1 {_AT}",), found=(missing("b", _AT),)),
    Case("carriage\rreturn", (f"M,t=\r f=1 {T}",), a=(f"M,t=\r f=1 {_AT}",), found=(missing("b", _AT),)),
    Case("odd types", a=(f"M a\rb=1 {T}",), b=(f"M a\rb=1i {T}",), found=(conflict(),)),
    Case("über 日本", (f"M f=1 {T}",), a=(f"M f=1 {_AT}",), found=(missing("b", _AT),)),
    Case("case", (f"M f=1 {T}",), a=(f"M F=1 {T}",), found=(missing("b", T),)),
    Case("CASE", (f"M f=1 {T}",), b=(f"M F=1 {T}",), found=(missing("a", T),)),
    Case("field as tag", (f"M,x=t x=1 {T}",), a=(f"M,x=t x=2 {T}",), found=(value(T),)),
    Case("tag as field", (f"M,x=t x=1 {T}",), a=(f"M,x=u x=1 {T}",), found=(missing("b", T),)),
    Case(
        "odd fields",
        (f'M count_f=1,f=1,a\\ \\"b\\,\\=c=1,sum=1,select=1 {T}',),
        b=(f'M a\\ \\"b\\,\\=c=2,count_f=2,sum=2,select=2 {T}',),
        found=(value(T),),
    ),
    Case(
        "odd tags",
        (f"M,a\\ b=\\,\\=,c\\=é=\"x' f=1 {T}",),
        b=(f'M,a\\ b=\\,\\=,c\\=é="x f=1 {T}',),
        found=(missing("a", T),),
    ),
    # -- types
    Case("float and integer", a=(f"M f=3 {T}",), b=(f"M f=3i {T}",), found=(conflict(),)),
    Case("float and string", a=(f"M f=3 {T}",), b=(f'M f="3" {T}',), found=(conflict(), value(T))),
    Case("boolean and string", a=(f"M f=true {T}",), b=(f'M f="true" {T}',), found=(conflict(), value(T))),
    Case("boolean and integer", a=(f"M f=true {T}",), b=(f"M f=1i {T}",), found=(conflict(), value(T))),
    Case(
        "types by shard",
        (f"M f=1 {T - 70 * DAY}", f'M f="x" {T}'),
        a=(f"M f=2 {T - 70 * DAY + 1}",),
        b=(f'M f="y" {T}',),
        found=(missing("b", T - 70 * DAY + 1), value(T)),
    ),
)

ODD = "odd \"db\" 'é' .x"
ODD_POLICY = 'select "rp" * é'
STATEMENTS: dict[str, tuple[str, ...]] = {
    "ab": (
        "CREATE DATABASE main",
        "CREATE DATABASE defaults",
        f"CREATE DATABASE {quoted(ODD)}",
        f"CREATE RETENTION POLICY {quoted(ODD_POLICY)} ON {quoted(ODD)} DURATION INF REPLICATION 1",
        "CREATE RETENTION POLICY more ON main DURATION INF REPLICATION 1",
    ),
    "a": (
        "CREATE DATABASE only_a",
        'CREATE RETENTION POLICY "only a" ON main DURATION INF REPLICATION 1',
        "CREATE RETENTION POLICY lasts ON main DURATION 100w REPLICATION 1",
        'CREATE RETENTION POLICY "groups" ON main DURATION INF REPLICATION 1 SHARD DURATION 1d',
        "CREATE RETENTION POLICY copies ON main DURATION INF REPLICATION 1",
        "CREATE RETENTION POLICY other ON defaults DURATION INF REPLICATION 1",
        "CREATE USER somebody WITH PASSWORD 'x'",
        'CREATE CONTINUOUS QUERY cq ON main BEGIN SELECT mean(f) INTO x FROM "equal" GROUP BY time(1h) END',
    ),
    "b": (
        "CREATE DATABASE only_b",
        'CREATE RETENTION POLICY "only b" ON main DURATION INF REPLICATION 1',
        "CREATE RETENTION POLICY lasts ON main DURATION 200w REPLICATION 1",
        'CREATE RETENTION POLICY "groups" ON main DURATION INF REPLICATION 1 SHARD DURATION 2d',
        "CREATE RETENTION POLICY copies ON main DURATION INF REPLICATION 2",
        "CREATE RETENTION POLICY other ON defaults DURATION INF REPLICATION 1 DEFAULT",
    ),
}
ADVICE = [
    "a lacks something",
    "b lacks something",
    "Values of a and b differ, and only you know which are right",
    "Settings of retention policies and types of fields are not changed by repair",
]
NO_DATABASE, NO_POLICY = "it has no such database", "it has no such retention policy"
SCHEMA = (
    ("defaults", "autogen", BOTH, "default true and false"),
    ("defaults", "other", BOTH, "default false and true"),
    ("main", "copies", BOTH, "replication factor 1 and 2"),
    ("main", "groups", BOTH, "shard group duration 24h0m0s and 48h0m0s"),
    ("main", "lasts", BOTH, "duration 16800h0m0s and 33600h0m0s"),
    ("main", "only a", "b", NO_POLICY),
    ("main", "only b", "a", NO_POLICY),
    ("only_a", "", "b", NO_DATABASE),
    ("only_b", "", "a", NO_DATABASE),
)
PLACES = (
    # where one has a point that the other lacks: server, database, policy
    ("a", ODD, ODD_POLICY),
    ("b", "main", "more"),
    ("a", "main", "groups"),
)


class DifferencesTests(VerifyCase):
    """One run of the command."""

    async def setUp(self) -> None:  # type: ignore[override]  # as of its base
        """Start two servers of the test's own."""
        await super().setUp()
        directory = Path(tempfile.mkdtemp(prefix="influxrelay-differences-"))
        self.addCleanup(rmtree, directory, ignore_errors=True)
        self.a, self.b = self.servers = Influxd(directory / "a"), Influxd(directory / "b")
        for each in self.servers:
            self.addCleanup(each.kill)
        with ThreadPoolExecutor() as pool:
            await deferToThread(lambda: list(pool.map(Influxd.start, self.servers)))

    def fill(self) -> None:
        """Make them differ."""
        for names, statements in STATEMENTS.items():
            for name in names:
                for statement in statements:
                    self.execute(getattr(self, name), statement)
        for case in CASES:
            for servers, lines in ((self.servers, case.both), ((self.a,), case.a), ((self.b,), case.b)):
                if lines:
                    self.write_to(servers, *lines_of(case.name, lines), db="main")
        self.write_to(self.servers, f"emptied f=1 {T}", db="main")
        self.a.query("DELETE FROM emptied", "main")
        self.b.query("DROP MEASUREMENT emptied", "main")
        self.write_to((self.a,), "m f=1", db="only_a")
        self.write_to((self.b,), "m f=1", db="only_b")
        self.write_to((self.a,), f"m f=1 {T}", db="main", rp="only a")
        for name, database, policy in PLACES:
            self.write_to((getattr(self, name),), f"m f=1 {T}", db=database, rp=policy)

    async def test_all(self) -> None:
        """Each difference is told once, with its place, kind, backends and very times, and nothing else is."""
        await deferToThread(self.fill)
        code, out, err = await self.run_command("--json", command=("verify",))
        self.assertEqual(code, 1, err)
        found = json.loads(out)
        self.assertEqual((found["equal"], set(found)), (False, {"equal", "compared", "differences", "not_compared"}))
        self.assertGreater(len(found["differences"]), 70)
        keys = {"database", "retention_policy", "measurement", "since", "until", "kind", "points"}
        for each in found["differences"]:
            who = "backends" if isinstance(each.get("backends"), list) else "backend"
            self.assertEqual(set(each) - {"message"}, {*keys, who}, each)
            self.assertEqual("message" in each, each["kind"] == "schema")
        told = [each for each in found["differences"] if each["measurement"]]
        schema = [each for each in found["differences"] if not each["measurement"]]
        shown = [(each["database"], each["retention_policy"], backends_of(each), each["message"]) for each in schema]
        self.assertEqual(sorted(shown, key=str), sorted(SCHEMA, key=str))
        for each in schema:
            self.assertEqual((each["since"], each["until"], each["points"]), (None, None, 0))
        places = {
            (each["database"], each["retention_policy"], backends_of(each), each["since"], each["points"])
            for each in told
            if (each["database"], each["retention_policy"]) != ("main", "autogen")
        }
        expected = {
            (database, policy, "b" if name == "a" else "a", iso_nanoseconds(T), 1) for name, database, policy in PLACES
        }
        self.assertEqual(places, expected)
        here = [each for each in told if (each["database"], each["retention_policy"]) == ("main", "autogen")]
        by_name: dict[str, list[tuple[Any, ...]]] = {case.name: [] for case in CASES}
        for each in here:
            numbers = each["since"], each["until"], each["points"]
            by_name[each["measurement"]].append((each["kind"], backends_of(each), *numbers))
        wrong = {
            case.name: (by_name[case.name], list(expected_of(case)))
            for case in CASES
            if sorted(by_name[case.name], key=str) != sorted(expected_of(case), key=str)
        }
        self.assertEqual(wrong, {})
        for name in ("SMALL", "FULL"):  # aggregates alone tell where to look, and what is left is sampled
            self.patch(measurement, name, 0)
        _, out, err = await self.run_command("--json", command=("verify",))
        self.assertTrue(out, err)
        self.assertEqual(json.loads(out)["differences"], found["differences"])
        code, out, _ = await self.run_command(command=("verify",))
        lines = out.splitlines()
        self.assertEqual((code, len(lines)), (1, len(found["differences"]) + 3 + 4), out)
        self.assertEqual([line.split(":")[0] for line in lines[-4:]], ADVICE)


def lines_of(name: str, lines: tuple[str, ...]) -> Iterator[str]:
    """Yield lines with the name of their measurement."""
    written = name.replace(",", "\\,").replace(" ", "\\ ")
    return (f"{written}{line[1:]}" for line in lines)


def backends_of(shown: dict[str, Any]) -> Any:
    """Return whom a difference names."""
    return tuple(shown["backends"]) if "backends" in shown else shown["backend"]


def expected_of(case: Case) -> Iterator[tuple[Any, ...]]:
    """Yield what is to be told of a case, as JSON shows it."""
    for kind, backends, since, until, points in case.found:
        yield kind, backends, iso_nanoseconds(since), iso_nanoseconds(until), points
