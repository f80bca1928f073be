"""``influxrelay verify`` on two real InfluxDB servers that were made to differ by hand."""

from __future__ import annotations

import re
from random import Random
from typing import Any

from twisted.internet.threads import deferToThread

from influxrelay.config.loader import load
from influxrelay.transport.tls import ClientTLS
from influxrelay.verification import measurement
from influxrelay.verification.command import Wanted, verify
from influxrelay.verification.comparison import Comparison, Selection
from influxrelay.verification.connection import TooSlow
from influxrelay.verification.server import Server
from influxrelay.verification.setting import Outcome
from testing.servers import free_port
from testing.verify_case import VerifyCase

T = 1_700_000_000 * 10**9
_EARLIEST, _LATEST = -(2**63) + 2, 2**63 - 2


class PointTests(VerifyCase):
    """Points that differ are found, each with its time."""

    async def test_equal(self) -> None:
        """Servers with the same points are equal, whatever is in them, in whatever order it came."""
        lines = [
            f'm,host=h{n % 7},x=t b={n % 2 == 0},f={n}.5,i={2**53 + n}i,s="a\n{n}",x={n} {T + n * 10**9}'
            for n in range(3000)
        ]
        self.both_have('\\"\\ \\,;m,t\\ =a\\,\\ b "f\\ \\="=1 0', f"m f=1 {_EARLIEST}", f"m f=2 {_LATEST}", "m f=1 -1")
        self.write_to((self.a,), *lines)
        Random(1).shuffle(lines)
        self.write_to((self.b,), *lines)
        code, out, err = await self.run_command()
        self.assertEqual(code, 0, out)
        self.assertRegex(out, r"^Equal: \d+ windows compared by aggregates, 3004 points read\.\n$")
        self.assertIn("main: what is still queued is not known: no admin socket is configured", err)
        self.assertEqual(await self.differences(), [])

    async def test_each_kind(self) -> None:
        """Each difference is told with its kind, its backend and its very time."""
        self.both_have(*(f'm,host=h{n % 3} f={n},s="{n}" {T + n * 10**9}' for n in range(2000)))
        self.both_have("big i=9007199254740992i 10", 'text s="a\nb" 10', "flag b=true 10", "field f=1,g=1 10")
        self.both_have(*(f"swapped f={n} {n}" for n in range(100)))
        self.write_to((self.a,), f"m,host=h1 f=1 {T + 1}", "only f=1 5", "only f=1 6", "both,x=y x=1 7", "both x=1 9")
        self.write_to(
            (self.b,), "big i=9007199254740993i 10", 'text s="a\nc" 10', "flag b=false 10", "extra,t=1 f=1 -5"
        )
        self.write_to((self.b,), "swapped f=31 30", "swapped f=30 31", "field h=1 10", "both,x=z x=1 7")
        self.write_to((self.b,), f"ends f=1 {_EARLIEST}", f"ends f=1 {_LATEST}")
        self.write_to((self.a,), f"ends f=2 {_LATEST}")
        self.both_have("zero f=-0 10", "zero f=0 11")
        self.write_to((self.b,), "zero f=-0 11")
        zero = "1970-01-01T00:00:00"
        self.assertEqual(
            await self.differences(),
            [
                ("big", "value", ["a", "b"], f"{zero}.00000001Z", f"{zero}.000000011Z", 1),
                ("both", "missing", "a", f"{zero}.000000007Z", f"{zero}.000000008Z", 1),
                ("both", "missing", "b", f"{zero}.000000007Z", f"{zero}.000000008Z", 1),
                ("both", "missing", "b", f"{zero}.000000009Z", f"{zero}.00000001Z", 1),
                ("ends", "missing", "a", "1677-09-21T00:12:43.145224194Z", "1677-09-21T00:12:43.145224195Z", 1),
                ("ends", "value", ["a", "b"], "2262-04-11T23:47:16.854775806Z", "2262-04-11T23:47:16.854775807Z", 1),
                ("extra", "missing", "a", "1969-12-31T23:59:59.999999995Z", "1969-12-31T23:59:59.999999996Z", 1),
                ("field", "missing", "a", f"{zero}.00000001Z", f"{zero}.000000011Z", 1),
                ("flag", "value", ["a", "b"], f"{zero}.00000001Z", f"{zero}.000000011Z", 1),
                ("m", "missing", "b", "2023-11-14T22:13:20.000000001Z", "2023-11-14T22:13:20.000000002Z", 1),
                ("only", "missing", "b", f"{zero}.000000005Z", f"{zero}.000000007Z", 2),
                ("swapped", "value", ["a", "b"], f"{zero}.00000003Z", f"{zero}.000000032Z", 2),
                ("text", "value", ["a", "b"], f"{zero}.00000001Z", f"{zero}.000000011Z", 1),
                ("zero", "value", ["a", "b"], f"{zero}.000000011Z", f"{zero}.000000012Z", 1),
            ],
        )
        chosen = ("--measurement", "only", "--since", f"{zero}.000000006Z", "--until", f"{zero}.1Z")
        (found,) = await self.differences(*chosen)
        self.assertEqual(found[3:], (f"{zero}.000000006Z", f"{zero}.000000007Z", 1))
        self.assertEqual(await self.differences("--measurement", "only", "--until", f"{zero}.000000005Z"), [])
        code, out, _ = await self.run_command("--measurement", "only")
        self.assertEqual(code, 1)
        self.assertRegex(out, r"(?m)^missing +b +db\d+ +autogen +only +1970-01-01T00:00:00.000000005Z .* 2$")
        self.assertIn("\n1 difference: 1 window compared by aggregates, 2 points read.\nb lacks something: ", out)

    async def test_not_utf8(self) -> None:
        """Bytes that are not UTF-8, in names and values, are compared as they are."""
        self.both_have("n b=true 7")  # or InfluxDB refuses the first names that are not UTF-8
        odd = 'm\udcff(/,t\udcfe=a\udcff s="x\udcff",f=-0 '
        self.both_have(
            f"{odd}1", "m\udcfe(/ f=1 2", "m\ufffd(/ f=1 1", 'n,t=\udcff s="\ufffd\udcff" 1', "n,t=\udcfe b=true 5"
        )
        self.assertEqual(await self.differences(), [])
        other = odd.replace("x\udcff", "x\udcfe")
        self.write_to((self.a,), f"{odd}3", f"{odd}4", 'n,t=\udcff s="\udcff" 3', 'n,t\udcff=x s="a" 9')
        self.write_to((self.b,), f"{other}4", 'n,t=\udcff s="\udcfe" 3', 'n,t\udcfe=x s="a" 9', "m\udcfe(/ f=2 1")
        zero = "1970-01-01T00:00:00.0000000"
        self.assertEqual(
            await self.differences(),
            [
                ("m\\xfe(/", "missing", "a", f"{zero}01Z", f"{zero}02Z", 1),
                ("m\\xff(/", "missing", "b", f"{zero}03Z", f"{zero}04Z", 1),
                ("m\\xff(/", "value", ["a", "b"], f"{zero}04Z", f"{zero}05Z", 1),
                ("n", "value", ["a", "b"], f"{zero}03Z", f"{zero}04Z", 1),
                ("n", "missing", "a", f"{zero}09Z", f"{zero}1Z", 1),
                ("n", "missing", "b", f"{zero}09Z", f"{zero}1Z", 1),
            ],
        )
        code, out, _ = await self.run_command("--measurement", "m\udcff(/")
        self.assertEqual((code, out.count(" m\\xff(/ ")), (1, 2), out)

    async def test_overflow(self) -> None:
        """Values whose sum is beyond a float are compared, too."""
        self.both_have(*(f"m f=1.7e308,g={n} {n}" for n in range(20_000)))
        self.write_to((self.b,), "m f=1.6e308 7777")
        (found,) = await self.differences()
        self.assertEqual(found[:3] + found[4:], ("m", "value", ["a", "b"], "1970-01-01T00:00:00.000007778Z", 1))

    async def test_large_windows(self) -> None:
        """In many points one that is missing, one that differs and a series too many are found, and nothing else."""
        points = 60_000
        for start in range(0, points, 20_000):
            self.both_have(
                *(f"m,host=h{n % 10} f={n / 7},i={n}i {T + n * 10**6}" for n in range(start, start + 20_000))
            )
        self.write_to((self.a,), f"m,host=h1 f=1 {T + 31_234 * 10**6 + 1}")
        self.write_to((self.b,), f"m,host=h2 f=0 {T + 2 * 10**6}")
        self.write_to((self.b,), *(f"m,host=new f=1 {T + n * 10**8 + 5}" for n in range(100)))
        for patched in (
            {},  # all points are read
            {"FULL": 0},  # those series whose aggregates differ
            {"FULL": 0, "FEW": 0},  # the windows whose aggregates differ, since too many series do
            {"FULL": 0, "_SERIES_BYTES": 10},  # as before, since there are too many series to ask for each
            {"FULL": 0, "_SERIES_BYTES": 10, "LARGEST": 5000},  # parts of windows that are large
            {"FULL": 0, "_BYTES": 1_000_000},  # pieces whose points lie too close together
        ):
            for name, number in patched.items():
                self.patch(measurement, name, number)
            self.assertEqual(
                [each[1:3] + each[5:] for each in await self.differences()],
                [("missing", "a", 100), ("value", ["a", "b"], 1), ("missing", "b", 1)],
                patched,
            )

    async def test_limits(self) -> None:
        """Where a server refuses to look at so much at a time, less is asked for, and each difference is told once."""
        self.both_have(*(f"m,host=h{n % 10} f={n / 7} {T + n * 10**6}" for n in range(20_000)))
        self.write_to((self.a,), f"m,host=h1 f=1 {T + 1}", f"m,host=h1 f=1 {T + 11_234 * 10**6 + 1}")
        self.write_to((self.b,), f"m,host=h2 f=0 {T + 2 * 10**6}")
        seen = re.compile(r"time >= (-?\d+) AND time <= (-?\d+)")
        ask = Server._ask

        def limited(server: Server, statement: str, *arguments: Any, **bounds: Any) -> Any:
            window = seen.search(statement)
            too_much = (3 if "*::field" in statement else 9) * 10**9
            length = min(int(window[2]), T + 20 * 10**9) - max(int(window[1]), T) if window is not None else 0
            if statement.startswith("SELECT") and length > too_much:
                raise TooSlow(f"{server.name}: query-timeout limit exceeded")
            return ask(server, statement, *arguments, **bounds)

        self.patch(Server, "_ask", limited)
        expected = [("missing", "b", 1), ("value", ["a", "b"], 1), ("missing", "b", 1)]
        for full in (measurement.FULL, 0):
            self.patch(measurement, "FULL", full)
            self.assertEqual([each[1:3] + each[5:] for each in await self.differences()], expected)

    async def test_sample(self) -> None:
        """Of large windows with equal aggregates some points are read, and it is said of how many they were."""
        self.patch(measurement, "FULL", 0)
        for start in range(0, 40_000, 20_000):
            self.both_have(*(f"m f={n % 100} {T + n}" for n in range(start, start + 20_000)))
        code, out, err = await self.run_command("--share", "50%")
        self.assertEqual(code, 0, out)
        self.assertRegex(
            err, r"1 window of more than 10000 points had equal aggregates; of their 40000 points [1-9]\d+ were read"
        )
        self.assertRegex(out, r" 1 window compared by aggregates, [1-9]\d+ points read")
        self.write_to((self.a,), f"m,h=x f=1 {T}")
        code, out, err = await self.run_command()
        self.assertRegex(out, r"\n1 difference: ")
        self.assertEqual(code, 1)
        self.assertRegex(err, r" of their 40000 points [1-9]\d+ were read")


class SchemaTests(VerifyCase):
    """Databases, retention policies and types."""

    async def test_policies(self) -> None:
        """A retention policy that is missing, or lasts for another time, is told; its points are not."""
        for server, duration in ((self.a, "10w"), (self.b, "20w")):
            self.execute(server, f'CREATE RETENTION POLICY "a\'\\"b" ON {self.db} DURATION {duration} REPLICATION 1')
        self.execute(self.a, f"CREATE RETENTION POLICY only ON {self.db} DURATION INF REPLICATION 1")
        self.write_to((self.a,), f"m f=1 {T}", rp="only")
        lasts = "duration 1680h0m0s and 3360h0m0s"
        self.assertEqual(
            await self.differences(),
            [
                ("", "schema", ["a", "b"], None, None, 0, lasts),
                ("", "schema", "b", None, None, 0, "it has no such retention policy"),
            ],
        )
        self.assertEqual(len(await self.differences("--retention-policy", "only")), 1)

    async def test_databases(self) -> None:
        """A database that is missing is told, without its points."""
        self.both_have("m f=1 1")
        self.execute(self.b, f"DROP DATABASE {self.db}")
        self.assertEqual(await self.differences(), [("", "schema", "b", None, None, 0, "it has no such database")])

    async def test_types(self) -> None:
        """A field with another type in the same time is told, even if its values look the same."""
        self.both_have("m f=1 1", "t v=1 1")
        self.write_to((self.a,), f"m f=3 {T}")
        self.write_to((self.b,), f"m f=3i {T}")
        self.both_have(f'm f="s" {2 * T // 3}', f't v="x" {T}')
        message = 'the field "f" is float and integer'
        expected = ("m", "schema", ["a", "b"], "2023-11-13T00:00:00Z", "2023-11-20T00:00:00Z", 0, message)
        self.assertEqual(await self.differences(), [expected])


class TroubleTests(VerifyCase):
    """What cannot be told."""

    async def test_nothing(self) -> None:
        """What no backend has, a server that does not answer, and wrong usage end with 2 and one line."""
        self.both_have("m f=1 1")
        for arguments, words in (
            (("--measurement", "x"), "no backend has a measurement x"),
            (("--retention-policy", "x"), f"no backend has a retention policy x in a database {self.db}"),
            (("--listener", "x"), "there is no listener x; there is: main"),
            (
                ("--since", "2026-01-01T00:00:00Z", "--until", "2026-01-01T00:00:00Z"),
                "there is no time left to compare",
            ),
            (("--since", "yesterday"), "--since: found 'yesterday'; allowed: a time with an offset"),
            (("--share", "0%"), "--share: found '0%'; allowed: a part such as 25%"),
            (("--password-file", "/nowhere"), "/nowhere: No such file or directory"),
        ):
            code, out, err = await self.run_command(*arguments)
            self.assertEqual((code, out), (2, ""), err)
            self.assertIn(words, err)
            self.assertEqual(len(err.splitlines()), 1, err)
        gone = self.configuration(f'name = "c"\nlocation = "http://127.0.0.1:{free_port()}/write"')
        code, out, err = await self.run_command(config=gone)
        self.assertEqual((code, out), (2, ""))
        self.assertIn("influxrelay verify: c does not answer: Connection refused", err)

    async def test_other_servers(self) -> None:
        """Of backends that are not asked for their points it is said why."""
        self.both_have("m f=1 1")
        other = 'name = "three"\napi = "v3"\ntoken = "t"\nlocation = "http://127.0.0.1:1/api/v3/write_lp"'
        code, _, err = await self.run_command(config=self.configuration(other))
        self.assertEqual(code, 0, err)
        self.assertIn("main: three is InfluxDB 3.x, and cannot be compared", err)

    async def test_queued(self) -> None:
        """Points since the oldest queued write are left out, and that is said, unless --until is given."""
        self.both_have("m f=1 1")
        self.write_to((self.a,), f"m f=1 {T}")
        row = {"listener": "main", "backend": "b", "writes": 3, "bytes": 117, "oldest": "2023-11-14T22:13:20Z"}
        row["journal_trouble"] = ""
        config = load(self.configuration())

        def run(relay: str, until: int | None = None) -> tuple[int, list[str]]:
            wanted = Wanted(database=self.db, until=until)
            answer = verify(config, wanted, lambda _: {"relay": relay, "queues": [row], "missed": []}, lambda *_: None)
            return len(answer.outcome.differences), answer.notes

        left_out = "points from 2023-11-14T22:13:20Z on are left out; --until sets another end"
        told = "still queued for b: 3 writes (117 B)"
        self.assertEqual(await deferToThread(run, "running"), (0, [told, left_out]))
        self.assertEqual(await deferToThread(run, "running", T + 1), (1, [told]))
        told = "the relay does not run; its journal holds, not delivered to b: 3 writes (117 B)"
        self.assertEqual(await deferToThread(run, "stopped"), (0, [told, left_out]))
        row |= {"writes": 0, "bytes": 0, "oldest": None, "journal_trouble": "no space"}
        self.assertEqual(
            await deferToThread(run, "running"), (1, ["what is still queued for b is not known: no space"])
        )

    async def test_writes_under_way(self) -> None:
        """A point that comes to a server while it is compared is no difference."""
        self.write_to((self.a,), "m f=1 1")

        def run() -> Outcome:
            servers = [Server(each.url, f"{each.url}/query", ClientTLS()) for each in self.servers]
            comparison = Comparison(servers, Selection(database=self.db), now=0, sleep=arrives)
            return comparison.run()

        def arrives(seconds: float) -> None:
            del seconds
            self.write_to((self.b,), "m f=1 1")

        self.assertEqual((await deferToThread(run)).differences, [])
