"""The admin socket: its life, its protocol, and its commands over a relay with a real journal."""

from __future__ import annotations

import socket
import stat
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.config.loader import load
from influxrelay.config.settings import Config, HTTPListenerConfig
from influxrelay.config.settings import JournalConfig as JournalSettings
from influxrelay.core.errors import JournalError, StartError
from influxrelay.core.text import age, iso, shortened, size
from influxrelay.core.write import Destination, Write
from influxrelay.journal.records import DeadLetter, Drop
from influxrelay.operations import admin_socket as admin
from influxrelay.operations.views import Row, socket_path, summary, whole
from influxrelay.service.relay_service import RelayService
from testing.admin import OperatedCase
from testing.scripted import (
    LINE,
    Hold,
    RelayTestCase,
    ScriptedBackend,
    answer,
    reactor,
    until,
)


class SocketTests(OperatedCase):
    """The socket's own life."""

    async def test_mode(self) -> None:
        """The socket is for its owner only, and is gone when the relay is."""
        service = self.operate(self.listener(self.backend()))
        self.assertEqual(stat.S_IMODE(self.socket.stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(self.socket.parent.stat().st_mode), 0o700)
        await service.stopService()
        self.assertFalse(self.socket.exists())

    async def test_configured(self) -> None:
        """It is where admin-socket says, if that says something."""
        self.operate(self.listener(self.backend()), top=f'admin-socket = "{self.directory / "a.sock"}"')
        self.assertTrue((self.directory / "a.sock").is_socket())
        self.assertFalse(self.socket.exists())

    async def test_none(self) -> None:
        """Without a journal and admin-socket there is none."""
        self.operate(self.listener(self.backend(), journal=False))
        self.assertEqual([each.name for each in self.directory.iterdir()], ["relay.toml"])

    async def test_stale(self) -> None:
        """The socket that a dead relay has left is replaced."""
        self.socket.parent.mkdir()
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(self.socket))
        self.operate(self.listener(self.backend()))
        self.assertEqual((await self.row("one"))["state"], "up")

    async def _refuses_to_start(self, words: str) -> None:
        service = RelayService(load(self.config), reactor)
        with self.assertRaises(StartError) as raised:
            service.startService()
        self.assertIn(f"influxrelay: cannot open the admin socket {self.socket}: ", str(raised.exception))
        self.assertIn(words, str(raised.exception))
        self.assertEqual(len(str(raised.exception).splitlines()), 1)
        await service.stopService()

    async def test_live(self) -> None:
        """A socket at which another relay answers is left alone, and the start ends with one line."""
        self.socket.parent.mkdir()
        self.config.write_text(self.listener(self.backend()))
        with socket.socket(socket.AF_UNIX) as live:
            live.bind(str(self.socket))
            live.listen()
            await self._refuses_to_start("another relay answers there")
            self.assertTrue(self.socket.exists())

    async def test_no_socket(self) -> None:
        """A file that is no socket is left alone, and the start ends with one line."""
        self.socket.parent.mkdir()
        self.socket.write_text("precious")
        self.config.write_text(self.listener(self.backend()))
        await self._refuses_to_start("no socket")
        self.assertEqual(self.socket.read_text(), "precious")


class ProtocolTests(OperatedCase):
    """What comes over the socket."""

    async def test_rubbish(self) -> None:
        """What is no request gets one error and the end of the connection."""
        self.operate(self.listener(self.backend()))
        for line, words in {
            b"rubbish": "the request is no JSON",
            b"\xff\xfe": "the request is no JSON",
            b"[" * 100_000: "the request is no JSON",
            b"[]": "the request is no JSON object",
            b'{"command": 5}': "the request has a field of a wrong type",
            b'{"command": "queues", "ids": {"a": 1}}': "the request has a field of a wrong type",
            b"{}": 'there is no command ""',
            b'{"command": "fly"}': 'there is no command "fly"',
            b'{"command": "queues", "listener": "x"}': "there is no listener x; there is: main",
        }.items():
            self.assertEqual(await self.raw(line, b"\n"), [{"error": words}], line[:50])

    async def test_bounds(self) -> None:
        """A line without an end, and a second request, end the connection without an answer."""
        self.operate(self.listener(self.backend()))
        self.assertEqual(await self.raw(b"x" * (admin.MAX_LINE + 70_000)), [])
        self.assertEqual(await self.raw(b'{"command": "queues"}\n' * 2), [])

    async def test_bug(self) -> None:
        """A command that fails in a way nobody thought of says so, and is logged."""
        service = self.operate(self.listener(self.backend()))
        self.patch(self.http(service).senders[0].backlog, "losses_beside", lambda: 1 / 0)
        self.assertIn("ZeroDivisionError", await self.order("queues"))
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))

    async def test_stop(self) -> None:
        """A stop ends the connections, also those that wait for a command, and its work goes no further."""
        held = Hold(answer(204))
        service, bad = await self.with_letters(2)
        bad.script.clear()
        bad.script.append(held)
        asked = Deferred.fromCoroutine(self.raw(b'{"command": "dead-letters replay", "all": true}\n'))
        await until(lambda: len(bad.requests) == 3)
        stopped = service.stopService()
        self.assertEqual((await asked), [{"progress": {"done": 0, "total": 2}}])
        held.release()
        await stopped
        self.assertEqual(len(bad.requests), 3)


class QueueTests(OperatedCase):
    """Queues."""

    async def outage(self, count: int = 3, *, journal: bool = True) -> tuple[RelayService, ScriptedBackend]:
        """Start a relay whose backend ``two`` is down and has missed writes."""
        good, bad = self.backend(), self.backend()
        await bad.stop()
        top = "" if journal else f'admin-socket = "{self.socket}"'
        self.socket.parent.mkdir(exist_ok=True, mode=0o700)
        service = self.operate(self.listener(good, bad, journal=journal, buffer=1), top=top)
        for _ in range(count):
            self.assertEqual(await self.write(service), 204)
        return service, bad

    async def _shows_outage(self, *, journal: bool) -> None:
        service, bad = await self.outage(journal=journal)
        await until(lambda: self.http(service).senders[1].status.trouble is not None)
        await until(lambda: not self.http(service).senders[1].requests.in_flight)
        row = await self.row("two")
        self.assertEqual((row["state"], row["writes"], row["bytes"]), ("trouble", 3, 3 * len(LINE)))
        self.assertTrue(row["reason"].startswith("refused: "), row)
        self.assertRegex(row["oldest"], r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertLess(row["oldest_age"], 30)
        self.assertIn("it takes no writes (refused: ", row["advice"][0])
        self.assertIn("3 writes kept for it, in order", row["advice"][0])
        self.assertEqual((await self.row("one"))["advice"], [])
        bad.listen()
        while (await self.row("two"))["writes"] or (await self.row("two"))["state"] != "up":
            pass
        self.assertEqual(b"".join(each.body for each in bad.requests).count(LINE), 3)

    async def test_outage(self) -> None:
        """While a backend is down its depth, its oldest write and the reason are told; when it is back all is well."""
        await self._shows_outage(journal=True)

    async def test_outage_in_memory(self) -> None:
        """The same is told of a queue in memory."""
        await self._shows_outage(journal=False)

    async def test_no_queue(self) -> None:
        """A backend without a queue is told of, and has nothing to pause or to drop."""
        top = f'admin-socket = "{self.directory / "main.sock"}"'
        self.socket = self.directory / "main.sock"
        service = self.operate(self.listener(await self.refusing_backend(), journal=False), top=top)
        self.assertEqual(await self.write(service), 503)
        row = await self.row("one")
        self.assertEqual((row["queue"], row["writes"], row["dead_letters"]), ("none", None, None))
        self.assertIn("it has no queue, and what it misses is lost", row["advice"][0])
        for command in ("queues drop", "queues pause", "queues resume"):
            self.assertEqual(await self.order(command, backend="one"), "backend one has no queue")

    async def test_pause(self) -> None:
        """A paused backend gets nothing, keeps what comes, and gets it when it is resumed."""
        good, other = self.backend(), self.backend()
        service = self.operate(self.listener(good, other))
        self.assertEqual(
            await self.order("queues pause", backend="two"), {"listener": "main", "backend": "two", "paused": True}
        )
        for _ in range(3):
            self.assertEqual(await self.write(service), 204)
        row = await self.row("two")
        self.assertEqual((row["state"], row["writes"]), ("paused", 3))
        self.assertIn("influxrelay queues resume two", row["advice"][0])
        self.assertEqual(other.requests, [])
        self.assertFalse((await self.order("queues resume", backend="two"))["paused"])
        await until(lambda: b"".join(each.body for each in other.requests).count(LINE) == 3)

    async def _drops(self, *, journal: bool) -> None:
        service, bad = await self.outage(journal=journal)
        await until(lambda: not self.http(service).senders[1].requests.in_flight)
        found = await self.order("queues drop", backend="two")
        expected = {"listener": "main", "backend": "two", "writes": 3, "bytes": 3 * len(LINE), "removed": False}
        self.assertEqual(found, expected)
        row = await self.row("two")
        self.assertEqual(row["writes"], 0)
        (drop,) = row["drops"]
        self.assertEqual((drop["reason"], drop["writes"], drop["bytes"]), ("operator", 3, 3 * len(LINE)))
        self.assertTrue(any("because an operator dropped them" in each for each in row["advice"]))
        bad.listen()
        self.assertEqual(await self.write(service, b"/write?db=db", b"new value=1 1\n"), 204)
        await until(lambda: bad.requests)
        self.assertNotIn(LINE, b"".join(each.body for each in bad.requests))

    async def test_drop(self) -> None:
        """What is dropped is counted and never sent; what comes afterwards is."""
        await self._drops(journal=True)

    async def test_drop_in_memory(self) -> None:
        """The same holds for a queue in memory."""
        await self._drops(journal=False)

    async def test_removed(self) -> None:
        """A backend that is no longer configured is listed as removed, and dropping its queue forgets it."""
        good, bad = self.backend(), self.backend()
        await self.operate(self.listener(good, bad)).stopService()
        self.operate(self.listener(good))
        row = await self.row("two")
        self.assertEqual((row["state"], row["writes"]), ("removed", 0))
        self.assertIn("influxrelay queues drop two", row["advice"][0])
        self.assertEqual(await self.order("queues pause", backend="two"), "backend two has no queue")
        self.assertTrue((await self.order("queues drop", backend="two"))["removed"])
        self.assertEqual([each["backend"] for each in (await self.order("queues"))["queues"]], ["one"])

    async def test_names(self) -> None:
        """A name that is unknown, or that two listeners have, is refused with the choice there is."""
        self.operate(self.listener(self.backend()), self.listener(self.backend(), name="other"))
        self.assertEqual(await self.order("queues drop", backend="x"), "there is no backend x; there is: one")
        self.assertEqual(
            await self.order("queues pause", backend="one"),
            "backend one is in more than one listener: add --listener main or other",
        )
        self.assertTrue((await self.order("queues pause", backend="one", listener="other"))["paused"])
        self.assertEqual((await self.row("one", "main"))["state"], "up")
        self.assertEqual((await self.row("one", "other"))["state"], "paused")

    async def test_missing_database(self) -> None:
        """A backend that waits for its database is behind, and the advice names the database."""
        held = Hold(answer(404, b'{"error":"database not found: \\"db\\""}'))
        service = self.operate(self.listener(self.backend(), self.backend(held)))
        self.assertEqual(await self.write(service), 204)
        held.release()
        while (row := await self.row("two"))["state"] != "behind":
            pass
        self.assertEqual(row["missing"], ["db"])
        self.assertEqual(row["advice"], ['it has no database "db": create it there, and what waits for it is sent'])
        await service.stopService()
        await until(lambda: not any("_try_again" in str(each) for each in reactor.getDelayedCalls()))

    async def test_journal_trouble(self) -> None:
        """A disk that fails is told of, and what is known without it still is."""
        service = self.operate(self.listener(self.backend()))
        writer = self.http(service).writer
        assert writer is not None
        problem = JournalError("disk I/O error")
        self.patch(writer, "contents", lambda: fail(problem))
        self.patch(writer, "discard", lambda _: fail(problem))
        row = await self.row("one")
        self.assertEqual((row["state"], row["writes"], row["dead_letters"]), ("up", None, None))
        self.assertIn("does not work (disk I/O error): see to the disk's space", row["advice"][0])
        self.assertEqual(await self.order("queues drop", backend="one"), "disk I/O error")


class WordsTests(RelayTestCase):
    """How things are said."""

    def test_secrets(self) -> None:
        """Credentials that a backend repeats in its words are not shown, in whatever spelling."""
        destination = Destination(b"db", b"", b"ns", (b"Basic SECRET==", b"me", b"SECRET word/"))
        write = Write(destination, b"db=db&u=me&p=SECRET+word/", b"Basic SECRET==", b"\n\nx v=1 1\n")
        words = "no: Basic SECRET== (SECRET==) SECRET word/ SECRET%20word/ SECRET+word%2F", '{"error": 5}', "[]", ""
        found = [summary("m", "1", DeadLetter(1, 0.0, "b", 400, each, write)) for each in words]
        self.assertEqual([each["message"] for each in found], ["no: *** (***) *** *** ***", *words[1:]])
        self.assertEqual(found[0]["first_line"], "x v=1 1")
        self.assertEqual(whole("m", "1", DeadLetter(1, 0.0, "b", 400, "", write))["query"], "db=db")

    def test_units(self) -> None:
        """Sizes, ages and times are in the units that suit them."""
        sizes = [0, 1023, 1024, 1536, 1024**2 - 1, 1024**2, 3 * 1024**3]
        expected = ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 MiB", "3.0 GiB"]
        self.assertEqual([size(each) for each in sizes], expected)
        ages = [0.9, 59, 200, 3600 + 61, 90000]
        self.assertEqual([age(each) for each in ages], ["0s", "59s", "3m20s", "1h1m", "1d1h"])
        self.assertEqual(iso(0.9), "1970-01-01T00:00:00Z")
        self.assertEqual([shortened("abc", 3), shortened("abcd", 3)], ["abc", "ab…"])

    def test_advice(self) -> None:
        """Each state that needs the operator says what is wrong and what to do."""
        shared: dict[str, Any] = {"listener": "m", "backend": "a b", "queue": "journal", "journal": "/j"}
        drops = tuple(Drop("a b", reason, 1, 10, 0, 60) for reason in ("full", "age", "damaged", "stopped", "other"))
        rows = {
            "refused: x): check that it runs and can be reached at http://x; what it misses is kept": Row(
                state="trouble", reason="refused: x", location="http://x", **shared
            ),
            "reset: x): check that it runs and can be reached at http://y; what it misses is kept": Row(
                state="trouble", reason="reset: x", location="http://y", writes=0, **shared
            ),
            "it is catching up, 1 write to go": Row(state="behind", writes=1, **shared),
            "1 write in the journal: start the relay": Row(state="stopped", writes=1, **shared),
            "resume 'a b' --listener m": Row(state="paused", **{**shared, "queue": "memory"}),
            "the journal in /j does not work (disk full)": Row(state="up", journal_trouble="disk full", **shared),
            "lost: 1 write (10 B), because other; accepted from 1970-01-01T00:00:00Z to 1970-01-01T00:01:00Z: copy that"
            " time from another backend, then: influxrelay queues mark-repaired 'a b'": Row(
                state="up", drops=drops, **shared
            ),
            "Z: once it takes writes again, copy them from another backend with: influxrelay repair 'a b'": Row(
                state="trouble", reason="refused: x", drops=drops, repairable=True, **shared
            ),
            "Z: copy them from another backend with: influxrelay repair 'a b' --listener m --lost": Row(
                state="up", drops=drops, repairable=True, **shared
            ),
            "refused 2 writes for good (dead letters): see why with: influxrelay dead-letters list --backend 'a b": Row(
                state="up", dead_letters=2, **shared
            ),
        }
        for words, row in rows.items():
            self.assertIn(words, "\n".join(row.show(100.0)["advice"]))


class PathTests(SynchronousTestCase):
    """Where the admin socket is."""

    def test_of_a_journal(self) -> None:
        """Without ``admin-socket`` it is in the first journal's directory, unless its path would be too long."""
        for directory, expected in (("/j", "/j/admin.sock"), ("/" + "x" * 96, ""), ("/" + "x" * 95, None)):
            listener = HTTPListenerConfig("h", ":1", "tcp:1", journal=JournalSettings(directory))
            path = socket_path(Config(path="f", http=(HTTPListenerConfig("first", ":2", "tcp:2"), listener)))
            self.assertEqual(path, f"{directory}/admin.sock" if expected is None else expected)
        self.assertEqual(socket_path(Config(path="f", admin_socket="/run/a", http=(listener,))), "/run/a")
        self.assertEqual(socket_path(Config(path="f")), "")
