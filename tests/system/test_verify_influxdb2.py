"""``influxrelay verify`` and ``repair`` with InfluxDB 2.x, which is a double in front of a real server of 1.x."""

from __future__ import annotations

import json
from pathlib import Path

from testing.influxdb2_queries import QueriedInfluxDB2
from testing.repair_case import RepairCase
from testing.servers import free_port

T = 1_700_000_000 * 10**9
_WEEK = 7 * 86_400
_V1 = 'name = "{0}"\nlocation = "{1}/write"'
_V2 = 'name = "{0}"\nlocation = "{1}/api/v2/write"\napi = "v2"\norg = "org"\ntoken = "{2}"'


class InfluxDB2Tests(RepairCase):
    """A server of 1.x, a, and one of 2.x, b."""

    async def setUp(self) -> None:  # type: ignore[override]  # as of its base
        """Have a bucket on b that the clients' writes go to."""
        await super().setUp()
        self.two = self.start(QueriedInfluxDB2(self.b))
        self.two.add_bucket(self.db)
        self.token = "token"
        self.more = ""

    def start(self, double: QueriedInfluxDB2) -> QueriedInfluxDB2:
        """Start a double."""
        double.start()
        self.addCleanup(double.stop)
        return double

    def configuration(self, *outputs: str, listener: str = "", top: str = "") -> str:
        """Return the path of a configuration with a and b."""
        path = Path(self.mktemp())
        both = outputs or (_V1.format("a", self.a.url), f"{_V2.format('b', self.two.url, self.token)}\n{self.more}")
        tables = "".join(f"[[http.output]]\n{each}\n" for each in both)
        http = f'[[http]]\nname = "main"\nbind-addr = "127.0.0.1:{free_port()}"\n{listener}\n'
        path.write_text(f"{top}\n{http}{tables}")
        return str(path)

    def file(self, text: str) -> str:
        """Return the path of a file."""
        path = Path(self.mktemp())
        path.write_text(text)
        return str(path)

    async def test_differences(self) -> None:
        """What differs is found in all shard groups, whatever their length, and nothing else."""
        times = [-(2**63) + 2, -1, 0, T, T + 3 * _WEEK * 10**9, 2**63 - 2]
        self.both_have(*(f'm,host=h{n % 3} f={n}.5,i={n}i,s="x{n}" {time}' for n, time in enumerate(times)))
        self.both_have(f'kinds v="x" {T // 2}', f"kinds v=1 {T}", f"kinds v=t {T + 5 * _WEEK * 10**9}")
        code, out, err = await self.run_command()
        self.assertEqual(code, 0, out + err)
        self.write_to((self.a,), f"m,host=h0 f=1 {T // 2}", f"kinds v=2 {T + 1}")
        self.write_to((self.b,), f"m,host=h9 f=1 {T + 7}", f"new f=1 {T}", f"kinds v=8i {T + 30 * _WEEK * 10**9}")
        self.write_to((self.a,), f"kinds v=8 {T + 30 * _WEEK * 10**9}")
        found = [each[:3] for each in await self.differences()]
        self.assertEqual(
            found,
            [
                ("kinds", "schema", ["a", "b"]),
                ("kinds", "missing", "b"),
                ("m", "missing", "b"),
                ("m", "missing", "a"),
                ("new", "missing", "a"),
            ],
        )

    async def test_two_of_them(self) -> None:
        """Two servers of 2.x are compared, each by its own token, and the settings of their buckets."""
        other = self.start(QueriedInfluxDB2(self.a))
        other.token = "of a"
        for server, kept in ((self.two, 0), (other, 5200 * _WEEK)):
            server.add_bucket(f"{self.db}/long", kept=kept, groups=86_400)
        self.both_have(f"m f=1 {T}", f"m f=1 {T + _WEEK * 10**9}", rp="long")
        other.add_bucket(self.db)
        self.write_to((self.b,), f"m f=1 {T}")
        config = self.configuration(_V2.format("a", other.url, "of a"), _V2.format("b", self.two.url, "token"))
        code, out, err = await self.run_command(config=config)
        self.assertEqual(code, 1, err)
        self.assertIn("duration 873600h0m0s and 0s", out)
        self.assertRegex(out, r"missing +a +\S+ +autogen +m +2023-11-14T22:13:20Z")
        self.assertIn("\n2 differences: ", out)

    async def test_not_mapped(self) -> None:
        """A bucket without a mapping is named, with what to do; if there is nothing else, the exit code is 2."""
        self.two.virtual = False
        self.both_have("m f=1 1")
        code, out, err = await self.run_command()
        self.assertEqual((code, out), (2, ""))
        words = f'b: the bucket "{self.db}" has no mapping to {self.db}.autogen; create it with: influx v1 dbrp create'
        self.assertIn(f"{words} --db {self.db} --rp autogen --bucket-id", err)
        self.execute(self.a, f'CREATE RETENTION POLICY "x y" ON {self.db} DURATION INF REPLICATION 1')
        self.two.add_bucket("renamed", (self.db, "x y"))
        self.both_have("m f=1 1", rp="x y")
        code, out, err = await self.run_command("--json")
        self.assertEqual(code, 0, err)
        (said,) = json.loads(out)["not_compared"]
        self.assertIn(words, said)
        self.assertIn(f"main: {words}", err)

    async def test_renamed(self) -> None:
        """Where the output writes to a bucket of another name, that name is no database, and the mapping is missing."""
        other = f"{self.db}_new"
        self.two.add_bucket(f"{other}-metrics")
        self.more = f'buckets = {{ "{other}/autogen" = "{other}-metrics" }}'
        self.execute(self.a, f"CREATE DATABASE {other}")
        code, out, err = await self.run_command(command=("verify", "--database", other, "--json"))
        self.assertEqual(code, 2, err)
        self.assertIn(f'b: the bucket "{other}-metrics" has no mapping to {other}.autogen', err)
        code, out, err = await self.run_command(command=("verify", "--database", f"{other}-metrics"))
        self.assertIn(f"no backend has a database {other}-metrics", err)
        self.two.add_bucket(f"{other}-metrics", (other, "autogen"))
        self.write_to((self.a,), "m f=1 1", db=other)
        code, out, err = await self.run_command(command=("verify", "--database", other, "--json"))
        self.assertEqual([each["backend"] for each in json.loads(out)["differences"]], ["b"], err)

    async def test_no_bucket(self) -> None:
        """A bucket that is not there is a difference."""
        self.execute(self.a, f"CREATE RETENTION POLICY only ON {self.db} DURATION INF REPLICATION 1")
        self.write_to((self.a,), "m f=1 1", rp="only")
        self.assertEqual(
            await self.differences(), [("", "schema", "b", None, None, 0, "it has no such retention policy")]
        )

    async def test_tokens(self) -> None:
        """A token that may only write cannot tell anything; another one is given for reading."""
        self.token = "write-token"
        self.both_have("m f=1 1")
        code, out, err = await self.run_command()
        self.assertEqual((code, out), (2, ""))
        self.assertIn("b: its token cannot read any bucket of org; give another one with --token-file", err)
        code, out, err = await self.run_command("--token-file", self.file("token\n"))
        self.assertEqual(code, 0, err)
        code, _, err = await self.run_command("--token-file", self.file("wrong"))
        self.assertEqual(code, 2)
        self.assertIn("b answered 401: unauthorized access", err)

    async def test_repaired(self) -> None:
        """What either server lacks is copied to it, to the bucket that is mapped, whatever it is called."""
        self.execute(self.a, f"CREATE RETENTION POLICY week ON {self.db} DURATION INF REPLICATION 1")
        self.execute(self.a, f"CREATE RETENTION POLICY other ON {self.db} DURATION INF REPLICATION 1")
        self.two.add_bucket(f"{self.db}/week")
        self.two.add_bucket(f"{self.db}-other", (self.db, "other"))
        self.more = f'buckets = {{ "{self.db}/other" = "{self.db}-other" }}'
        self.start_relay()
        for policy in ("autogen", "week", "other"):
            self.write_to((self.a,), f'm,t=x f=1,i=2i,s="a\n b" {T}', f"m f=-0,b=t {T // 2}", rp=policy)
            self.write_to((self.b,), f"m f=1 {T + 1}", rp=policy)
        answer = await self.repair()
        self.assertEqual((answer["copied"], answer["created"], answer["not_compared"]), (6, [], []))
        answer = await self.repair(backend="a")
        self.assertEqual(answer["copied"], 3)
        await self.assert_equal()
        self.assertEqual(self.two.asked, [])

    async def test_not_repaired(self) -> None:
        """A bucket that is missing, and a point that the server refuses, are named."""
        self.start_relay()
        self.execute(self.a, f"CREATE RETENTION POLICY week ON {self.db} DURATION INF REPLICATION 1")
        self.write_to((self.a,), f"m f=1 {T}", rp="week")
        self.write_to((self.a,), f"m f=1 {T}", f"n f=1 {T}")
        self.write_to((self.b,), f"m f=1i {T + 1}")
        answer = await self.repair(code=1)
        words = f"{self.db}.week not created: b has no bucket for it; create one with: influx bucket create --name"
        self.assertEqual(answer["not_compared"], [f"{words} {self.db}/week"])
        self.assertIn(words, answer["stderr"])
        ((policy, points, message),) = [
            (each["retention_policy"], each["points"], each["message"]) for each in answer["not_copied"]
        ]
        self.assertEqual((answer["copied"], policy, points), (1, "autogen", 1))
        self.assertIn("partial write: field type conflict", message)
