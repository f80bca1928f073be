"""``influxrelay repair`` beside a relay in front of two real InfluxDB servers."""

from __future__ import annotations

import json
import re
import signal
import sys
import time

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from influxrelay.verification import gaps, measurement
from influxrelay.verification.server import Series, Server
from testing.program import Child
from testing.repair_case import RepairCase
from testing.scripted import reactor, request
from testing.servers import Influxd, send

T = 1_700_000_000 * 10**9
_EARLIEST, _LATEST = -(2**63) + 2, 2**63 - 2


class MissingTests(RepairCase):
    """What a backend lacks is copied, exactly."""

    async def test_everything(self) -> None:
        """An emptied server gets its databases, its retention policies and all of its points, each as it was."""
        self.start_relay()
        self.execute(
            self.a, f'CREATE RETENTION POLICY "a b" ON {self.db} DURATION 5200w REPLICATION 1 SHARD DURATION 2d'
        )
        lines = [
            f'm,host=h{n % 7},x=t b={n % 2 == 0},f={n}.5,g={n},i={2**53 + n}i,s="a\n{n}",x={n} {T + n * 10**9}'
            for n in range(3000)
        ]
        self.write_to((self.a,), *lines)
        self.write_to(
            (self.a,),
            '\\"\\ \\,;m,t\\ =a\\,\\ b,u=\\= "f\\ \\="=1,k\\,l="\\"\\\\n\\\\",e="" 0',
            f"m f=1 {_EARLIEST}",
            f"m f=2 {_LATEST}",
            f"m i={2**63 - 1}i,j={-(2**63)}i,f=-0,g=1.7976931348623157e308,h=5e-324 -1",
            "m,ü=é s=\"日本 'x' \\ y\" 5",
            "back\\slash,t=a\\b\\\\c f\\x=1 5",
            "hash,t=#,#t=# #f=1 5",
            'bytes,t\udcff=\udcfe s="\udcff\ufffd" 5',
        )
        for precision, length in (
            ("n", 1),
            ("u", 10**3),
            ("ms", 10**6),
            ("s", 10**9),
            ("m", 60 * 10**9),
            ("h", 3600 * 10**9),
        ):
            self.write_to((self.a,), f"written,in={precision} f=1 {T // length}", precision=precision)
        self.write_to((self.a,), f"m i=7 {T // 2}", f'kinds v="x" {T}', "kinds v=1 1", f"kinds v=1i {T // 2}", rp="a b")
        self.write_to((self.a,), f"kinds v=t {T // 3}", rp="a b")
        self.execute(self.b, f"DROP DATABASE {self.db}")
        answer = await self.repair("--dry-run", code=1)
        self.assertEqual(answer["created"], [f"{self.db}.autogen", f"{self.db}.a b"])
        self.assertIn("no backend has a measurement x", await self.refused("--dry-run", "--measurement", "x"))
        answer = await self.repair()
        self.assertEqual(answer["created"], [f"{self.db}.autogen", f"{self.db}.a b"])
        self.assertEqual((answer["copied"], answer["not_copied"], answer["differences"]), (3019, [], []))
        await self.assert_equal()
        answer = await self.repair()
        self.assertEqual((answer["created"], answer["copied"]), ([], 0))

    async def test_series(self) -> None:
        """Long series are read a few at a time, whatever their tags, and the points of one that is very long, too."""
        self.patch(measurement, "GAP", 100)
        self.patch(gaps, "LONG", 10)
        self.start_relay()
        tags = ("", ",h=x", ",k=x", ",h=x,k=y", ',h=it\'s\\ "x"', ",h=a\\b,k=\\=\\,")
        self.write_to((self.a,), *(f"m{each} f={n},h={n}i {T + n}" for each in tags for n in range(60)))
        self.write_to((self.a,), *(f"m,h=long f={n} {T + n}" for n in range(250)))
        self.write_to((self.a,), *(f'untagged f={n},s="x" {T + n}' for n in range(250)))
        asked: list[str] = []
        ask_binary = Server.ask_binary

        def ask(server: Server, statement: str, limit: int) -> list[Series]:
            asked.append(statement)
            return ask_binary(server, statement, limit)

        self.patch(Server, "ask_binary", ask)
        self.assertEqual((await self.repair())["copied"], 6 * 60 + 250 + 250)
        self.assertEqual(sum("::tag" in each for each in asked), 6 + 3)
        await self.assert_equal()

    async def test_dry_run(self) -> None:
        """A dry run tells what would be copied, and changes nothing."""
        self.start_relay()
        self.both_have(*(f"m f={n} {T + n}" for n in range(10)))
        self.write_to((self.a,), f"m f=1 {T + 10}", f"m g=1 {T + 3}")
        self.write_to((self.b,), f"m f=1 {T + 11}")
        answer = await self.repair("--dry-run", code=1)
        self.assertEqual((answer["copied"], len(answer["differences"])), (2, 2))
        only = ("--measurement", "only a")
        self.write_to((self.a,), *(f"only\\ a f=1 {T + n}" for n in range(3)))
        answer = await self.repair("--dry-run", *only, code=1)
        (shown,) = answer["differences"]
        self.assertEqual((answer["copied"], shown["points"], shown["backend"]), (3, 3, "b"))
        self.assertEqual((await self.repair(*only))["copied"], 3)
        self.assertEqual((await self.total(self.a), await self.total(self.b)), (14, 14))
        answer = await self.repair("--since", "2023-11-14T22:13:20.00000001Z")
        self.assertEqual((answer["copied"], answer["differences"]), (1, []))
        answer = await self.repair()
        self.assertEqual(answer["copied"], 1)
        answer = await self.repair(backend="a")
        self.assertEqual(answer["copied"], 1)
        await self.assert_equal()
        code, out, _ = await self.run_command(command=("repair", "b", "--database", self.db), config=self.config)
        self.assertEqual((code, out), (0, "main/b: 0 points copied from a.\n"))

    async def test_overwrite(self) -> None:
        """Other values of a point are told, and replaced with --overwrite only."""
        self.start_relay()
        self.both_have(*(f"m f={n},i={n}i,b=true {T + n}" for n in range(10)), "zero f=0 1")
        self.write_to((self.a,), f"m f=-1,i={2**53}i {T + 3}", f"m b=false {T + 4}", "zero f=-0 1")
        answer = await self.repair()
        self.assertEqual((answer["copied"], answer["differing"], len(answer["differences"])), (0, 3, 2))
        answer = await self.repair("--overwrite", "--dry-run", code=1)
        self.assertEqual((answer["overwritten"], len(answer["differences"])), (3, 2))
        answer = await self.repair("--overwrite", "--from", "a")
        self.assertEqual((answer["copied"], answer["overwritten"], answer["differences"]), (0, 3, []))
        await self.assert_equal()

    async def test_from(self) -> None:
        """Of two backends that have something, either that was named, or both."""
        c = Influxd(self.directory() / "c")
        await deferToThread(c.start)
        self.addCleanup(c.kill)
        c.create_database(self.db)
        self.start_relay(outputs=(f'name = "c"\nlocation = "{c.url}/write"',))
        self.write_to((self.a,), "m f=1 1", "m f=1 2")
        self.write_to((c,), "m f=1 2", "m f=2 3")
        answer = await self.repair("--from", "c", "--dry-run", code=1)
        self.assertEqual((answer["from"], answer["copied"]), (["c"], 2))
        answer = await self.repair("--from", "a")
        self.assertEqual((answer["from"], answer["copied"]), (["a"], 2))
        self.write_to((c,), "m f=7 1")
        answer = await self.repair()
        self.assertEqual((answer["from"], answer["copied"], answer["differing"]), (["a", "c"], 1, 1))
        self.assertIn("name the one that is right with --from", await self.refused("--overwrite"))
        answer = await self.repair("--overwrite", "--from", "c")
        self.assertEqual((answer["copied"], answer["overwritten"]), (0, 1))
        for backend in "ac":
            await self.repair("--overwrite", "--from", "b", backend=backend)
        await self.assert_equal()

    async def test_unsigned(self) -> None:
        """InfluxDB 1.x has no unsigned integers unless it was built with them: it refuses such writes."""
        status, answer = send("POST", f"{self.a.url}/write?db={self.db}", b"m f=1u 1")
        self.assertEqual((status, b"invalid number" in answer), (400, True), answer)

    async def test_conflict(self) -> None:
        """What a backend refuses is named, and everything else is copied."""
        self.start_relay()
        self.write_to((self.a,), *(f"m f={n} {T + n}" for n in range(5)), f"n f=1 {T}")
        self.write_to((self.b,), f"m f=1i {T + 9}")
        answer = await self.repair(code=1)
        (failed,) = answer["not_copied"]
        self.assertEqual((answer["copied"], failed["measurement"], failed["points"]), (1, "m", 5))
        self.assertIn("field type conflict", failed["message"])
        self.assertEqual((failed["since"], failed["until"]), ("2023-11-14T22:13:20Z", "2023-11-14T22:13:20.000000005Z"))
        code, out, _ = await self.run_command(command=("repair", "b", "--database", self.db), config=self.config)
        self.assertEqual(code, 1)
        self.assertIn("main/b: 0 points copied from a, 5 points not copied.", out)

    async def test_filter(self) -> None:
        """What the backend's filters leave out is not copied."""
        self.start_relay(filters='[[filter]]\noutputs = ["b"]\nmeasurement-expression = "^keep"\n')
        self.write_to((self.a,), "keep f=1 1", "drop f=1 1")
        answer = await self.repair("--dry-run", code=1)
        self.assertEqual((answer["copied"], [each["measurement"] for each in answer["differences"]]), (1, ["keep"]))
        self.assertEqual((await self.repair())["copied"], 1)
        self.assertEqual([name for name, _ in await self.points(self.b)], ["keep"])


class RelayTests(RepairCase):
    """The relay's part."""

    async def test_paused_and_stopped(self) -> None:
        """A paused backend, one that is unknown, and a relay that does not run end with 2 and one line."""
        service = self.start_relay()
        self.write_to((self.a,), "m f=1 1")
        self.assertIn("c is not a backend of main that can be repaired", await self.refused(backend="c"))
        self.assertIn("c is not a backend of main that can be repaired", await self.refused("--from", "c"))
        await self.run_command(command=("queues", "pause", "b"), config=self.config)
        self.assertIn("b is paused; resume it with", await self.refused())
        await self.run_command(command=("queues", "resume", "b"), config=self.config)
        await self._end(service)
        self.assertIn("the relay does not run", await self.refused())
        self.assertEqual((await self.repair("--dry-run", code=1))["copied"], 1)

    async def test_while_writing(self) -> None:
        """New writes go on, and reach both servers; in the end they are equal."""
        service = self.start_relay()
        for start in range(0, 30_000, 10_000):
            self.write_to(
                (self.a,), *(f'm,h=h{n % 5} f={n},s="{n}" {T + n * 10**9}' for n in range(start, start + 10_000))
            )
        done = Deferred.fromCoroutine(self.repair())
        written = 0
        while not done.called:
            line = b"m,h=h%d f=%d,g=1i %d" % (written % 5, written, T + written * 10**9 + 1)
            self.assertEqual((await self.write(service.listeners[0], line)).status, 204)  # type: ignore[arg-type]
            written += 1
        answer = await done
        self.assertGreaterEqual(answer["copied"], 30_000)
        await self.both(30_000 + written)

    async def test_killed(self) -> None:
        """A repair that is killed, and started again, copies what is still missing."""
        self.start_relay()
        for start in range(0, 60_000, 20_000):
            self.write_to(
                (self.a,), *(f'm,h=h{n % 5} f={n},s="{n}" {T + n * 10**9}' for n in range(start, start + 20_000))
            )
        program = "import sys; from influxrelay.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", program, "repair", "b", "--database", self.db, "--config", self.config]
        child = Child(command, ".")
        while not await self.total(self.b) and child.code is None:
            await deferLater(reactor, 0.02)
        child.process.signalProcess("KILL")
        while child.code is None:
            await deferLater(reactor, 0.02)
        self.assertEqual(child.code, -signal.SIGKILL)
        there = await self.total(self.b)
        self.assertGreater(there, 0)
        answer = await self.repair()
        self.assertLess(answer["copied"], 60_000)
        await self.assert_equal()

    async def test_relay_restarts(self) -> None:
        """A relay that restarts is waited for, and the repair goes on."""
        service = self.start_relay()
        self.write_to((self.a,), *(f'm,h=h{n % 5} f={n},s="{n}" {T + n * 10**9}' for n in range(20_000)))
        done = Deferred.fromCoroutine(self.repair())
        while not await self.total(self.b):
            await deferLater(reactor, 0.02)
        await self._end(service)
        self.start_again()
        self.assertLessEqual((await done)["copied"], 20_000)
        await self.assert_equal()

    async def test_restart(self) -> None:
        """A server that is restarting is waited for."""
        self.start_relay()
        self.write_to((self.a,), *(f"m f={n} {T + n}" for n in range(10)))
        await deferToThread(self.a.stop)
        done = Deferred.fromCoroutine(self.repair())
        await deferToThread(self.a.start)
        self.assertEqual((await done)["copied"], 10)


class LostTests(RepairCase):
    """What a queue has dropped."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Have servers with nothing but this test's database: losses are those of all databases."""
        await super().setUp()
        await self.drop_other_databases()

    async def lose(self, *lines: bytes) -> None:
        """Have the relay accept writes of which b never gets anything."""
        await self.run_command(command=("queues", "pause", "b"), config=self.config)
        for line in lines:
            self.assertEqual((await self.write(self.service.listeners[0], line)).status, 204)  # type: ignore[arg-type]
        for words in (("drop", "b", "--yes"), ("resume", "b")):
            code, _, err = await self.run_command(command=("queues", *words), config=self.config)
            self.assertEqual(code, 0, err)

    async def drops(self) -> int:
        """Return how many writes of b count as lost."""
        _, out, _ = await self.run_command("--json", command=("queues",), config=self.config)
        rows = {row["backend"]: row for row in json.loads(out)["queues"]}
        return sum(each["writes"] for each in rows["b"]["drops"])

    async def told(self, path: bytes) -> str:
        """Return what the admin listener answers."""
        asked = request(path, b"", method=b"GET", length=-1)
        return (await self.ask(self.service.admin, asked)).body.decode()  # type: ignore[arg-type]

    async def why_not_in_sync(self) -> str:
        """Return what is wrong with b; empty for nothing."""
        found = json.loads(await self.told(b"/health/backends/b"))
        return "" if found["status"] == "pass" else str(found["message"])

    async def lost_in_metrics(self) -> int:
        """Return how many writes the metrics count as lost for b."""
        shown = r'influxrelay_dropped_writes_total\{.*backend="b".*\} (\d+)'
        return sum(map(int, re.findall(shown, await self.told(b"/metrics"))))

    async def test_lost(self) -> None:
        """The time that the queue has dropped is copied, nothing else, and then counts as lost no more."""
        self.start_relay()
        self.write_to((self.a,), f"m f=1 {T}")
        answer = await self.repair("--lost")
        self.assertEqual((answer["copied"], answer["losses_forgotten"]), (0, False))
        await self.lose(b"m f=2", b"m f=3", b"n f=1")
        self.assertEqual(await self.drops(), 3)
        self.assertIn("there is no backend in sync to copy from", await self.refused(backend="a"))
        self.assertEqual((await self.repair("--from", "b", backend="a"))["copied"], 0)
        answer = await self.repair("--lost", "--dry-run", code=1)
        self.assertEqual((answer["copied"], answer["losses_forgotten"]), (3, False))
        answer = await self.repair("--lost")
        self.assertEqual((answer["copied"], answer["losses_forgotten"]), (3, False))
        self.assertEqual(await self.drops(), 3)
        self.assertEqual((await self.total(self.a), await self.total(self.b)), (4, 3))
        code, out, err = await self.run_command("--lost", command=("repair", "b"), config=self.config)
        self.assertEqual(code, 0, err)
        self.assertIn("main/b: what its queue had lost is there again, and no longer counted.", out)
        self.assertEqual(await self.drops(), 0)

    async def test_several_databases(self) -> None:
        """Without a choice everything is copied: all databases, with all of their retention policies."""
        self.start_relay()
        other = await self.new_database()
        for name in (self.db, other):
            self.execute(self.a, f'CREATE RETENTION POLICY "r p" ON {name} DURATION 500w REPLICATION 1')
            for policy in ("autogen", "r p"):
                self.both_have("n f=1 1", db=name)
                self.write_to((self.a,), f"m f=1 {T}", f"{policy.split()[0]} f=1 {T}", db=name, rp=policy)
        self.execute(self.b, f"DROP DATABASE {other}")
        code, out, err = await self.run_command("--json", command=("repair", "b"), config=self.config)
        answer = json.loads(out)
        self.assertEqual((code, answer["copied"]), (0, 9), err)
        self.assertEqual(answer["created"], [f"{self.db}.r p", f"{other}.autogen", f"{other}.r p"])
        code, out, err = await self.run_command(command=("verify",), config=self.config)
        self.assertEqual(code, 0, out + err)

    async def test_lost_while_restarting(self) -> None:
        """What a full queue has lost is copied from a server that restarts; then nothing says that it is missing."""
        keys = f'journal = "{self.directory()}"\njournal-max-mb = 1\njournal-full = "drop-oldest"'
        self.config = self.configuration(
            listener=keys, top='shutdown-timeout = "1s"\n[admin]\nbind-addr = "127.0.0.1:0"'
        )
        service = self.start_again()
        await deferToThread(self.b.stop)
        for number in range(30):
            line = b'm,n=%d s="%s"' % (number, b"x" * 60_000)
            self.assertEqual((await self.write(service.listeners[0], line)).status, 204)  # type: ignore[arg-type]
        await deferToThread(self.b.start)
        while not (why := await self.why_not_in_sync()).startswith("misses"):
            await deferLater(reactor, 0.02)
        self.assertIn("influxrelay repair b --listener main --lost", why)
        self.assertGreater(await self.lost_in_metrics(), 0)
        await deferToThread(self.a.stop)
        done = self.run_command("--lost", "--json", command=("repair", "b"), config=self.config)
        repaired = Deferred.fromCoroutine(done)
        await deferToThread(self.a.start)
        code, out, err = await repaired
        self.assertEqual((code, json.loads(out)["losses_forgotten"]), (0, True), err)
        self.assertEqual((await self.why_not_in_sync(), await self.lost_in_metrics(), await self.drops()), ("", 0, 0))
        await self.both(30)

    async def test_delete_lost(self) -> None:
        """A backend that may have lost a DELETE goes on counting as one: nothing is brought back from it."""
        self.start_relay()
        self.both_have(f"m f=1 {T}", f"m f=2 {T + 1}")
        await self.lose(b"m f=3")
        await deferToThread(self.a.query, f"DELETE FROM m WHERE time = {T}", self.db)
        code, out, err = await self.run_command("--json", command=("repair", "b"), config=self.config)
        self.assertEqual((code, json.loads(out)["copied"], await self.drops()), (0, 1, 1))
        self.assertIn("b has 1 point that the others lack, perhaps because its queue has lost a DELETE", err)
        self.assertIn("there is no backend in sync to copy from", await self.refused(backend="a"))

    async def test_value_lost(self) -> None:
        """A value that was lost, and of which the backend has an older one, counts until it is copied."""
        self.start_relay()
        now = time.time_ns()
        self.both_have(f"m f=1 {now}")
        await self.lose(b"m f=2 %d" % now)
        code, out, err = await self.run_command("--lost", "--json", command=("repair", "b"), config=self.config)
        self.assertEqual((code, json.loads(out)["differing"], await self.drops()), (0, 1, 1))
        self.assertIn("1 point of b may be older than those that were lost", err)
        await self.run_command("--lost", "--overwrite", command=("repair", "b"), config=self.config)
        self.assertEqual(await self.drops(), 0)
        await self.assert_equal()
