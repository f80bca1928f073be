"""Journals that are damaged, taken or too new."""

from __future__ import annotations

import contextlib
import os
import random
import re
import sqlite3
import subprocess
from pathlib import Path
from typing import ClassVar

from twisted.logger import LogLevel

from influxrelay.journal.ledger import FILE
from testing.journal_child import Child, numbers
from testing.journal_relay import JournalTestCase
from testing.scripted import until
from testing.servers import ServerError


def page_size(database: bytes | bytearray) -> int:
    """Return what a database's file says of itself (https://sqlite.org/fileformat.html, 1.3.2)."""
    return int.from_bytes(database[16:18], "big")


class DamageTests(JournalTestCase):
    """A ledger that makes no sense is moved aside, what is damaged in the log is left out, and the relay starts."""

    BACKENDS: ClassVar = {"backend-0": "http://a", "backend-1": "http://b"}

    async def check(self, damaged: bytes, *, noticed: bool = True) -> None:
        """Start on a damaged ledger, and write."""
        one, two = self.backend(), self.backend()
        self.directory.mkdir(exist_ok=True)
        (self.directory / FILE).write_bytes(damaged)
        relay = self.start(one, two)
        self.assertEqual(await self.write(relay, 10_000), 204)
        await until(lambda: 10_000 in numbers(one) and 10_000 in numbers(two), "the new write at both backends")
        await self.stop(relay)
        self.assertEqual(self.flushLoggedErrors(), [])
        if noticed:
            (aside,) = self.aside()
            self.assertEqual(aside.read_bytes(), damaged)
            (told,) = [each for each in self.lines(LogLevel.critical) if "is damaged" in each]
            self.assertIn(f"the journal in {self.directory} is damaged", told)
            self.assertIn(aside.name, told)
            self.assertNotIn("\n", told)
            self.assertEqual(numbers(one), numbers(two))
            self.assertIn(numbers(one), ([*range(1, 201), 10_000], [10_000]))  # all that is in the log, if there is one
        with self.opened() as journal:
            self.assertEqual([depth.writes for depth in journal.depths() if depth.active], [0, 0])

    def filled(self, count: int = 200) -> bytes:
        """Make a journal, and return the ledger's bytes."""
        self.fill(self.BACKENDS, count)
        return (self.directory / FILE).read_bytes()

    async def test_garbage(self) -> None:
        """A file that is no database."""
        await self.check(random.Random(1).randbytes(100_000))

    async def test_text(self) -> None:
        """A file that somebody has put there, beside a log: all of the log is sent."""
        self.filled()
        await self.check(b"do not touch\n")

    async def test_truncated(self) -> None:
        """The second half is missing, and then some."""
        whole = self.filled()
        for size in (len(whole) // 2, len(whole) // 2 - 100, 4096, 1000, 17):
            self.directory = self.directory.with_name(f"journal-{size}")
            self.filled()
            self.events.clear()
            await self.check(whole[:size])

    async def test_damaged_schema(self) -> None:
        """The first page says something else; a line break in what SQLite tells of it is not one in the log."""
        whole = self.filled()
        await self.check(whole.replace(b"    id INTEGER PRIMARY KEY, name", b"    id INTEGER PRIMARY KEX( name"))

    async def test_names_that_are_no_text(self) -> None:
        """A flipped bit in a backend's name makes it invalid UTF-8."""
        whole = self.filled()
        self.assertIn(b"backend-0http://a", whole)
        await self.check(whole.replace(b"backend-0http://a", b"bac\xebend-0http://a"))

    async def test_damaged_tables(self) -> None:
        """Any table or index is zero: it is noticed as late as it is read."""
        self.filled()
        with contextlib.closing(sqlite3.connect(self.directory / FILE)) as db:
            roots = dict(db.execute("SELECT name, rootpage FROM sqlite_schema WHERE rootpage > 0"))
        self.assertGreater(len(roots), 6)
        for name, root in roots.items():
            self.directory = self.directory.with_name(f"journal-{name}")
            damaged = bytearray(self.filled())
            size = page_size(damaged)
            damaged[(root - 1) * size : root * size] = bytes(size)
            await self.check(bytes(damaged), noticed=False)

    async def test_damaged_bodies(self) -> None:
        """Bodies that are not what they were are not sent, and counted; the others are."""
        one, two = self.backend(), self.backend()
        self.fill(self.names(one, two), 50)
        (segment,) = self.directory.glob("*.log")
        damaged, count = re.subn(rb"m v=(1|7|33)i,p=", rb"m v=\1i,q=", segment.read_bytes())
        self.assertEqual(count, 3)
        segment.write_bytes(damaged)
        relay = self.start(one, two)
        rest = [number for number in range(1, 51) if number not in (1, 7, 33)]
        await until(lambda: len(numbers(one)) >= 47 and len(numbers(two)) >= 47, "the rest of the writes")
        self.assertEqual(numbers(one), rest)
        self.assertEqual(numbers(two), rest)
        await self.stop(relay)
        with self.opened() as journal:
            drops = {(drop.backend, drop.reason): drop.writes for drop in journal.drops()}
        self.assertEqual(drops, {("backend-0", "damaged"): 3, ("backend-1", "damaged"): 3})

    async def test_damaged_while_running(self) -> None:
        """The file is damaged under a running relay: it begins a new one, and goes on."""
        one, two = self.backend(), self.backend()
        child = Child(self, "relay", self.directory, one=one, two=two)
        await child.start()
        await two.stop()
        for number in range(1, 6):
            self.assertEqual(await child.write(number, 2000), 204)
        for suffix in ("", "-wal"):
            path = self.directory / f"{FILE}{suffix}"
            with path.open("r+b") as file:
                file.write(random.Random(1).randbytes(path.stat().st_size))
        for number in range(6, 20):
            self.assertEqual(await child.write(number, 2000), 204)
        await child.kill()
        two.listen()
        await child.start()
        self.assertEqual(await child.write(100), 204)
        await until(lambda: 100 in numbers(one) and 100 in numbers(two), "the last write")
        self.assertEqual(child.said("Traceback"), 0, child.relay.log.read_text())
        self.assertEqual(numbers(two), [*range(1, 20), 100])
        again = numbers(one)[19:-1]  # a backend may get again what it had
        self.assertEqual(numbers(one)[:19], [*range(1, 20)])
        self.assertEqual(again, sorted(set(again)))
        self.assertGreaterEqual(child.said("is damaged"), 1)

    async def test_empty_file_and_its_wal(self) -> None:
        """The file is empty, and what was written is in SQLite's other file: it is not thrown away in silence."""
        one, two = self.backend(), self.backend()
        child = Child(self, "relay", self.directory, one=one, two=two)
        await child.start()
        await two.stop()
        for number in range(1, 6):
            self.assertEqual(await child.write(number), 204)
        await child.kill()
        (self.directory / FILE).write_bytes(b"")
        two.listen()
        await child.start()
        self.assertEqual(await child.write(100), 204)
        await until(lambda: 100 in numbers(two), "the last write")
        self.assertTrue(numbers(two) == [1, 2, 3, 4, 5, 100] or child.said("is damaged"), numbers(two))

    async def test_any_damage(self) -> None:
        """Whatever is damaged in whichever file, the relay starts, takes a write, and raises nothing."""
        problems = []
        for seed in range(40):
            rng = random.Random(seed)
            self.directory = self.directory.with_name(f"journal-{seed}")
            whole = self.filled(400)
            (segment,) = self.directory.glob("*.log")
            path = rng.choice((self.directory / FILE, segment))
            damaged = bytearray(path.read_bytes())
            way = rng.randrange(4)
            if way == 0:
                for _ in range(rng.choice((1, 10, 200))):
                    damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            elif way == 1:
                del damaged[rng.randrange(1, len(damaged)) :]
            else:
                size = page_size(whole)
                at = rng.randrange(len(damaged) // size) * size
                damaged[at : at + size] = rng.randbytes(size) if way == 2 else bytes(size)
            path.write_bytes(damaged)
            self.events.clear()
            try:
                await self.check((self.directory / FILE).read_bytes(), noticed=False)
            except BaseException as error:  # noqa: BLE001 (a StartError is a SystemExit)
                problems.append(f"seed {seed}: {type(error).__name__}: {error}")
                self.flushLoggedErrors()
        self.assertEqual(problems, [])

    test_any_damage.timeout = 120  # type: ignore[attr-defined]


class UnusableTests(JournalTestCase):
    """A directory that cannot be used stops the start, with one line."""

    def test_directory_is_a_file(self) -> None:
        """The journal's directory is a file."""
        self.directory.write_text("x")
        self.assertIn("exists", self.refused_start(self.backend()))

    def test_parent_is_a_file(self) -> None:
        """What is above it is a file."""
        self.directory.write_text("x")
        self.directory /= "journal"
        self.assertIn("Not a directory", self.refused_start(self.backend()))

    def test_file_is_a_directory(self) -> None:
        """Where the database should be is a directory."""
        (self.directory / FILE).mkdir(parents=True)
        self.refused_start(self.backend())

    def test_lock_is_a_directory(self) -> None:
        """Where the lock should be is a directory."""
        (self.directory / "lock").mkdir(parents=True)
        self.assertIn("Is a directory", self.refused_start(self.backend()))

    def test_wal_is_a_directory(self) -> None:
        """SQLite cannot open its own file."""
        (self.directory / f"{FILE}-wal").mkdir(parents=True)
        self.refused_start(self.backend())

    def test_not_writable(self) -> None:
        """The directory belongs to somebody else; for root, who may do anything, its file system is read-only."""
        self.directory.mkdir(mode=0o500)
        if os.geteuid() == 0:
            command = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(self.directory)]
            if subprocess.run(command, capture_output=True, check=False).returncode:
                self.directory = Path("/proc/self/journal")  # not even root in a container can make files there
            else:
                self.addCleanup(subprocess.run, ["umount", "-l", str(self.directory)], check=True)
        text = self.refused_start(self.backend())
        self.assertTrue(text.endswith(("denied", "Read-only file system", "No such file or directory")), text)

    def test_proc(self) -> None:
        """A directory in which no one can make a file, not even root."""
        self.directory = Path("/proc/self/journal")
        self.refused_start(self.backend())

    async def test_in_use(self) -> None:
        """A second relay on the same journal does not start, and does not disturb the first."""
        one, two = self.backend(), self.backend()
        relay = self.start(one, two)
        self.assertIn("another relay is using this journal", self.refused_start(one, two))
        self.assertEqual(await self.write(relay, 1), 204)
        await until(lambda: numbers(one, two) == [1, 1])
        await self.stop(relay)
        self.assertEqual(await self.write(self.start(one, two), 2), 204)

    def test_later_version(self) -> None:
        """A journal of a later version is refused, and stays as it is."""
        self.fill({"backend-0": "http://a"})
        with contextlib.closing(sqlite3.connect(self.directory / FILE)) as db:
            db.execute("PRAGMA user_version = 99")
        before = (self.directory / FILE).read_bytes()
        self.assertIn("version 99", self.refused_start(self.backend()))
        self.assertEqual((self.directory / FILE).read_bytes(), before)
        self.assertEqual(self.aside(), [])

    async def test_process(self) -> None:
        """A real relay leaves with one line, no traceback and a status; the one that has the journal goes on."""
        backend = self.backend()
        first, second = (Child(self, f"relay{number}", self.directory, one=backend) for number in (1, 2))
        await first.start()
        with self.assertRaises(ServerError) as caught:
            await second.start()
        self.assertIn("ended with status 1", str(caught.exception))
        log = second.relay.log.read_text()
        self.assertNotIn("Traceback", log)
        self.assertEqual(len([each for each in log.splitlines() if each.startswith("influxrelay: ")]), 1, log)
        self.assertEqual(await first.write(1), 204)
