"""What a DELETE or DROP has removed is not brought back by ``influxrelay repair``; two real InfluxDB servers."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import quote

from twisted.internet.threads import deferToThread

from influxrelay.core.errors import JournalError
from influxrelay.operations import commands
from influxrelay.verification import relay_writer
from testing.repair_case import RepairCase
from testing.scripted import request

T = 1_700_000_000 * 10**9


class DeleteTests(RepairCase):
    """A backend has missed what the other one has executed."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Have servers with nothing but this test's database, and a relay."""
        await super().setUp()
        await self.drop_other_databases()
        self.start_relay()

    async def through(self, statement: str) -> None:
        """Have the relay execute a statement."""
        target = f"/query?db={self.db}&q={quote(statement)}".encode()
        answered = await self.ask(self.service.listeners[0], request(target))  # type: ignore[arg-type]
        self.assertEqual((answered.status, b"error" in answered.body), (200, False), answered.body)

    async def written(self, *lines: str) -> None:
        """Have the relay take some lines."""
        answered = await self.write(self.service.listeners[0], "\n".join(lines).encode())  # type: ignore[arg-type]
        self.assertEqual(answered.status, 204)

    async def command(self, *words: str, code: int = 0) -> str:
        """Run a command; return what it has said."""
        found, out, err = await self.run_command(command=words, config=self.config)
        self.assertEqual(found, code, out + err)
        return out + err

    async def has(self, name: str) -> set[tuple[str, int]]:
        """Return measurement and value of each point of a server."""
        server = dict(zip("ab", self.servers, strict=True))[name]
        found = await deferToThread(server.query, "SELECT f FROM /.*/", self.db)
        series = found["results"][0].get("series", [])
        return {(each["name"], int(row[1])) for each in series for row in each["values"]}

    async def miss(self, *statements: str) -> None:
        """Have everything on both servers, and statements that b never gets."""
        self.both_have(f"m,h=x f=1 {T}", f"m,h=y f=2 {T}", f"n f=3 {T}", f"s,h=x f=4 {T}", f"s,h=y f=5 {T}")
        self.addCleanup(self.b.restart)
        await deferToThread(self.b.stop)
        for each in statements:
            await self.through(each)
        await self.written(f"m,h=x f=6 {T + 1}", f"n f=7 {T + 1}", f"m,h=x f=8 {time.time_ns()}")
        await self.command("queues", "drop", "b", "--yes")
        await deferToThread(self.b.start)

    async def test_nothing_comes_back(self) -> None:
        """What was removed stays so on the server that has executed it, and what was written later is copied."""
        await self.miss("DELETE FROM m WHERE h = 'x'", "DROP MEASUREMENT n", "DROP SERIES FROM s WHERE h = 'y'")
        there = {("m", 2), ("m", 6), ("m", 8), ("n", 7), ("s", 4)}
        self.assertEqual(await self.has("a"), there)
        answer = await self.repair()
        self.assertEqual((answer["copied"], answer["losses_forgotten"]), (3, False))
        self.assertIn("b has missed 'DROP MEASUREMENT n'; if that is to hold, execute it there with", answer["stderr"])
        self.assertEqual(await self.has("a"), there)
        self.assertEqual(await self.has("b"), there | {("m", 1), ("n", 3), ("s", 5)})
        await self.command("queues", "mark-repaired", "b")
        answer = await self.repair("--dry-run", backend="a")
        self.assertEqual(answer["copied"], 0)
        self.write_to((self.b,), f"m,h=x f=9 {time.time_ns()}")
        answer = await self.repair(backend="a")
        self.assertEqual(answer["copied"], 1)
        self.assertIn("1 point of b not copied: b has missed \"DELETE FROM m WHERE h = 'x'\"", answer["stderr"])
        there.add(("m", 9))
        self.assertEqual(await self.has("a"), there)
        _, _, err = await self.run_command(config=self.config)
        self.assertIn("b has missed 'DROP MEASUREMENT n'", err)
        await self.command("dead-letters", "replay", "--all", "--backend", "b")
        self.assertEqual(await self.has("b"), {("m", 2), ("s", 4)})
        await self.repair()
        await self.assert_equal()
        self.assertEqual(await self.has("b"), there)

    async def test_not_told(self) -> None:
        """If the relay does not say what b has missed, nothing is copied from b, and ``verify`` says so."""
        await self.miss("DELETE FROM m WHERE h = 'x'")
        await self.command("queues", "mark-repaired", "b")

        async def fail(*_: object) -> dict[str, Any]:
            raise JournalError("the disk does not answer")

        self.patch(commands, "COMMANDS", {**commands.COMMANDS, "repair missed": fail})
        self.patch(relay_writer, "TRIES", 1)
        self.assertIn("the disk does not answer", await self.refused(backend="a"))
        self.assertNotIn(("m", 1), await self.has("a"))
        _, _, err = await self.run_command(config=self.config)
        self.assertIn("whether a backend has missed a DELETE or DROP is not known: the disk does not answer", err)

    async def test_database(self) -> None:
        """A database that was dropped is not created again."""
        for server in self.servers:
            await deferToThread(server.create_database, "gone")
        await self.miss("DROP DATABASE gone")
        self.write_to((self.b,), f"m f=1 {T}", db="gone")
        await self.command("queues", "mark-repaired", "b")
        out = await self.command("repair", "a")
        self.assertIn("gone.autogen not created: b has missed 'DROP DATABASE gone'", out)
        self.assertNotIn(["gone"], await deferToThread(self.a.rows, "SHOW DATABASES", ""))
        await self.command("repair", "b")
        await self.command("dead-letters", "replay", "--all", "--backend", "b")
        code, out, err = await self.run_command(command=("verify", "--json"), config=self.config)
        self.assertEqual((code, json.loads(out)["differences"]), (0, []), err)

    async def test_policy(self) -> None:
        """Nor is a retention policy; and the others of its database are copied."""
        for server in self.servers:
            await deferToThread(server.query, f"CREATE RETENTION POLICY old ON {self.db} DURATION INF REPLICATION 1")
        self.both_have(f"m f=1 {T}", rp="old")
        await self.miss(f"DROP RETENTION POLICY old ON {self.db}")
        await self.command("queues", "mark-repaired", "b")
        answer = await self.repair(backend="a")
        self.assertIn(f"{self.db}.old not created: b has missed", answer["stderr"])
        self.assertEqual((answer["created"], answer["copied"]), ([], 0))
        self.assertEqual((await self.repair())["copied"], 3)
