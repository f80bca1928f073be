"""Journals that are damaged, full, taken, too new, or for other outputs than before."""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel

from influxrelay.journal import housekeeping
from influxrelay.journal.ledger import FILE
from influxrelay.listeners.http import HTTPService
from testing.journal_relay import JournalTestCase, line
from testing.scripted import LOOPBACK, ScriptedBackend, answer, until
from testing.servers import Relay, ServerError, free_port, send

MB = 1024 * 1024


def numbers(*backends: ScriptedBackend) -> list[int]:
    """Return the numbers of the writes that backends have got, in order."""
    return [
        int(found)
        for backend in backends
        for each in backend.requests
        for found in re.findall(rb"(?m)^m v=(\d+)i", each.body)
    ]


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
            (told,) = self.lines(LogLevel.critical)
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
        began = time.monotonic()
        with self.assertRaises(ServerError) as caught:
            await second.start()
        self.assertLess(time.monotonic() - began, 10)
        self.assertIn("ended with status 1", str(caught.exception))
        log = second.relay.log.read_text()
        self.assertNotIn("Traceback", log)
        self.assertEqual(len([each for each in log.splitlines() if each.startswith("influxrelay: ")]), 1, log)
        self.assertEqual(await first.write(1), 204)


class Child:
    """A relay in a process of its own, in front of scripted backends."""

    def __init__(
        self, case: JournalTestCase, name: str, journal: Path, settings: str = "", **backends: ScriptedBackend
    ) -> None:
        port = free_port()
        lines = ["[[http]]", 'name = "test"', f'bind-addr = "{LOOPBACK}:{port}"', f'journal = "{journal}"', settings]
        for each, backend in backends.items():
            lines += ["[[http.output]]", f'name = "{each}"', f'location = "{backend.url}"', 'timeout = "2s"']
            lines += ['max-delay-interval = "500ms"']
        self.relay = Relay(case.base / name, "\n".join([*lines, ""]), port)
        case.addCleanup(lambda: deferToThread(self.relay.kill))

    async def start(self) -> None:
        """Start it."""
        await deferToThread(self.relay.start)

    async def stop(self) -> None:
        """Stop it in order."""
        await deferToThread(self.relay.stop)

    async def kill(self) -> None:
        """Kill it."""
        await deferToThread(self.relay.kill)

    async def write(self, number: int, size: int = 0, consistency: str = "") -> int:
        """Write, and return the answer's status."""
        url = f"{self.relay.url}/write?db=db&consistency={consistency}"
        status, self.words = await deferToThread(send, "POST", url, line(number, size))
        return int(status)

    def limit(self, size: int = resource.RLIM_INFINITY) -> None:
        """Fill the disk for this process: no file can grow beyond this size; or make room again."""
        _, hard = resource.prlimit(self.relay.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.relay.pid, resource.RLIMIT_FSIZE, (size, hard))

    def said(self, text: str) -> int:
        """Return how many lines of the log hold a text."""
        return sum(text in each for each in self.relay.log.read_text().splitlines())


FULL = 60_000  # bytes that each of the relay's files may have when the "disk" is full
SIZE = 100_000  # bytes of a write


class FullDiskTests(JournalTestCase):
    """The disk is full for a while (no file of the relay's may grow)."""

    async def test_relay(self) -> None:
        """With one backend well, writes are acknowledged, and both get them; then the journal works again."""
        one, two = self.backend(), self.backend()
        child = Child(self, "relay", self.directory, one=one, two=two)
        await child.start()
        self.assertEqual(await child.write(1, SIZE), 204)
        child.limit(FULL)
        for number in range(2, 31):
            self.assertEqual(await child.write(number, SIZE), 204)
        self.assertGreaterEqual(child.said("the journal in"), 1, "no trouble was made")
        await until(lambda: numbers(one) == numbers(two) == list(range(1, 31)), "all writes at both backends")
        child.limit()
        self.assertEqual(await child.write(31), 204)
        await until(lambda: child.said("works again") == 1, "the line that all is well")
        self.assertEqual(child.said("Traceback"), 0)
        self.assertEqual(child.said("the journal in"), 2, child.relay.log.read_text())  # not one for each write
        await two.stop()
        for number in range(32, 40):
            self.assertEqual(await child.write(number, SIZE), 204)
        await child.kill()
        two.listen()
        await child.start()
        await until(lambda: numbers(two)[-8:] == list(range(32, 40)), "what was written after the trouble")

    async def test_refuse(self) -> None:
        """With ``journal-on-error = "refuse"`` a write that is not journaled is not acknowledged."""
        one, two = self.backend(), self.backend()
        child = Child(self, "relay", self.directory, 'journal-on-error = "refuse"', one=one, two=two)
        await child.start()
        statuses = [await child.write(number, SIZE) for number in range(1, 6)]
        child.limit(FULL)
        statuses += [await child.write(number, SIZE) for number in range(6, 21)]
        self.assertEqual(statuses, [204] * 5 + [503] * 15)
        self.assertIn(b"unable to journal the write", child.words)
        child.limit()
        self.assertEqual(await child.write(100), 204)

    async def test_any(self) -> None:
        """Both backends are down: what is acknowledged is on disk, also across ``kill -9``, and the rest is refused."""
        one, two = self.backend(), self.backend()
        child = Child(self, "relay", self.directory, one=one, two=two)
        await child.start()
        await one.stop()
        await two.stop()
        told = {number: await child.write(number, SIZE, "any") for number in range(1, 6)}
        child.limit(FULL)
        told |= {number: await child.write(number, SIZE, "any") for number in range(6, 21)}
        self.assertEqual({204, 503}, set(told.values()))
        child.limit()
        told |= {number: await child.write(number, SIZE, "any") for number in range(21, 26)}
        self.assertEqual([told[number] for number in range(21, 26)], [204] * 5)
        await child.kill()
        one.listen()
        two.listen()
        await child.start()
        acknowledged = [number for number in told if told[number] == 204]
        await until(lambda: min(len(numbers(one)), len(numbers(two))) >= len(acknowledged), "what was acknowledged")
        self.assertEqual(numbers(one), acknowledged)
        self.assertEqual(numbers(two), acknowledged)

    async def test_backlog(self) -> None:
        """One backend is down while the disk is full: each acknowledged write gets there, or is counted."""
        one, two = self.backend(), self.backend()
        child = Child(self, "relay", self.directory, one=one, two=two)
        await child.start()
        await two.stop()
        self.assertEqual(await child.write(1, SIZE), 204)
        child.limit(FULL)
        for number in range(2, 31):
            self.assertEqual(await child.write(number, SIZE), 204)
        child.limit()
        self.assertEqual(await child.write(31), 204)
        await child.stop()
        two.listen()
        await child.start()
        await until(lambda: 31 in numbers(two), "the last write")
        await child.stop()
        with self.opened() as journal:
            dropped = sum(drop.writes for drop in journal.drops() if drop.backend == "two")
        self.assertEqual(len(set(numbers(two))) + dropped, 31)
        self.assertEqual(numbers(two), sorted(numbers(two)))

    async def test_stop(self) -> None:
        """A relay with a full disk stops in order."""
        one, two = self.backend(), self.backend()
        child = Child(self, "relay", self.directory, one=one, two=two)
        await child.start()
        await two.stop()
        self.assertEqual(await child.write(1, SIZE), 204)
        child.limit(FULL)
        for number in range(2, 15):
            self.assertEqual(await child.write(number, SIZE), 204)
        began = time.monotonic()
        await child.stop()
        self.assertLess(time.monotonic() - began, 10)
        self.assertEqual(child.said("Traceback"), 0)
        self.assertEqual(child.said("influxrelay has stopped"), 1)


class BoundTests(JournalTestCase):
    """What is dropped is counted, exactly."""

    COUNT = 100
    BYTES = 25_000

    async def account(self, relay: HTTPService, *backends: ScriptedBackend) -> tuple[list[int], list[Any]]:
        """Restart with the second backend back, and return what it got and the drops that are counted for it."""
        one, two = backends
        await self.stop(relay)
        two.listen()
        relay = self.start(one, two)
        await self.write(relay, 10_000)
        await until(lambda: 10_000 in numbers(two), "the last write")
        await self.stop(relay)
        with self.opened() as journal:
            drops = journal.drops()
        self.assertEqual([drop for drop in drops if drop.backend == "backend-0"], [])
        self.assertEqual(numbers(two), sorted(numbers(two)))
        return numbers(two)[:-1], drops

    async def fill_up(self, relay: HTTPService) -> dict[int, tuple[float, float]]:
        """Write more than there is room for; return when each number was written."""
        times = {}
        for number in range(1, self.COUNT + 1):
            began = time.time()
            self.assertEqual(await self.write(relay, number, self.BYTES), 204)
            times[number] = (began, time.time())
        return times

    def check_drops(self, got: list[int], drops: list[Any], times: dict[int, tuple[float, float]]) -> None:
        """Compare what is counted with what is missing."""
        missing = sorted(set(times) - set(got))
        (drop,) = drops
        self.assertEqual((drop.backend, drop.reason, drop.writes), ("backend-1", "full", len(missing)))
        self.assertEqual(drop.bytes, sum(len(line(number, self.BYTES)) for number in missing))
        for when, number in ((drop.first, missing[0]), (drop.last, missing[-1])):
            first, last = times[number]
            self.assertTrue(first <= when <= last, f"{when} is not when write {number} came ({first} to {last})")

    async def test_reject(self) -> None:
        """What the full journal has refused for a backend that is down is lost for it, and counted."""
        one, two = self.backend(), self.backend()
        await two.stop()
        relay = self.start(one, two, max_bytes=MB)
        times = await self.fill_up(relay)
        got, drops = await self.account(relay, one, two)
        self.assertEqual(got, list(range(1, len(got) + 1)))
        self.assertGreater(len(got), 20)
        self.check_drops(got, drops, times)

    async def test_reject_behind(self) -> None:
        """The same where the end of what waits is on disk only."""
        one, two = self.backend(), self.backend()
        await two.stop()
        outputs = [self.output(one, "backend-0"), self.output(two, "backend-1", max_waiting_mb=1)]
        relay = self.start(*outputs, max_bytes=2 * MB)
        times = await self.fill_up(relay)
        got, drops = await self.account(relay, one, two)
        self.assertEqual(got, list(range(1, len(got) + 1)))
        self.assertGreater(len(got), 42)
        self.check_drops(got, drops, times)

    async def test_reject_lets_the_rest_be(self) -> None:
        """A backend that is well does not notice that the journal is full; that it is, is said once."""
        one, two = self.backend(), self.backend()
        await two.stop()
        await self.fill_up(self.start(one, two, max_bytes=MB))
        self.assertEqual(numbers(one), list(range(1, self.COUNT + 1)))

    async def test_reject_any(self) -> None:
        """Nothing takes the write, and it is not in the journal: it is not acknowledged."""
        one, two = self.backend(), self.backend()
        await one.stop()
        await two.stop()
        relay = self.start(one, two, max_bytes=MB, consistency="any")
        told: dict[int, int] = {}
        while list(told.values()).count(503) < 5:
            number = len(told) + 1
            self.assertLess(number, self.COUNT)
            told[number] = await self.write(relay, number, self.BYTES)
        one.listen()
        two.listen()
        kept = [number for number in told if told[number] == 204]
        await until(lambda: min(len(numbers(one)), len(numbers(two))) >= len(kept), "what was acknowledged")
        self.assertEqual(numbers(one), kept)
        self.assertEqual(numbers(two), kept)
        await until(lambda: relay.writer is not None and relay.writer.used < MB // 2, "room in the journal")
        self.assertEqual(await self.write(relay, 10_000), 204)

    async def test_drop_oldest(self) -> None:
        """The oldest goes, no more than has to."""
        one, two = self.backend(), self.backend()
        await two.stop()
        relay = self.start(one, two, max_bytes=MB, full="drop-oldest")
        times = await self.fill_up(relay)
        got, drops = await self.account(relay, one, two)
        self.assertEqual(got, list(range(self.COUNT + 1 - len(got), self.COUNT + 1)))
        self.check_drops(got, drops, times)
        self.assertGreater(len(got) * self.BYTES, MB // 2, "too much was dropped")

    async def test_drop_oldest_and_go_on(self) -> None:
        """A backend that comes back to the same process gets what was not dropped, and nothing else."""
        one, two = self.backend(), self.backend()
        await two.stop()
        relay = self.start(one, two, max_bytes=MB, full="drop-oldest")
        times = await self.fill_up(relay)
        two.listen()
        await self.write(relay, 10_000)
        await until(lambda: 10_000 in numbers(two), "the last write")
        await self.stop(relay)
        with self.opened() as journal:
            self.check_drops(numbers(two)[:-1], journal.drops(), times)

    async def test_reject_and_go_on(self) -> None:
        """A backend that comes back to the same process gets all that is not counted as lost."""
        one, two = self.backend(), self.backend()
        await two.stop()
        relay = self.start(one, two, max_bytes=MB)
        await self.fill_up(relay)
        two.listen()
        await until(lambda: relay.writer is not None and relay.writer.used < MB // 2, "room in the journal")
        await self.write(relay, 10_000)
        await until(lambda: 10_000 in numbers(two), "the last write")
        await self.stop(relay)
        with self.opened() as journal:
            dropped = sum(drop.writes for drop in journal.drops())
        self.assertEqual(len(numbers(two)[:-1]) + dropped, self.COUNT)

    async def test_age(self) -> None:
        """What is too old goes, counted, with its time."""
        self.patch(housekeeping, "CHECK_AGE", 0.0)
        one, two = self.backend(), self.backend()
        await two.stop()
        relay = self.start(one, two, max_age=1.0)
        began = time.time()
        for number in range(1, 6):
            await self.write(relay, number)
        ended = time.time()
        await self.stop(relay)
        await deferToThread(time.sleep, 1.2)
        relay = self.start(one, two, max_age=1.0)
        await self.write(relay, 6)
        two.listen()
        await until(lambda: 6 in numbers(two), "the young write")
        self.assertEqual(numbers(two), [6])
        await self.stop(relay)
        with self.opened() as journal:
            (drop,) = journal.drops()
        self.assertEqual((drop.backend, drop.reason, drop.writes), ("backend-1", "age", 5))
        self.assertTrue(began <= drop.first <= drop.last <= ended)


class OutputTests(JournalTestCase):
    """The outputs change from one start to the next."""

    async def write_without(self, *outputs: tuple[str, ScriptedBackend], down: ScriptedBackend, first: int) -> None:
        """Write ten writes while one backend is down."""
        await down.stop()
        relay = self.start_named(*outputs)
        for number in range(first, first + 10):
            self.assertEqual(await self.write(relay, number), 204)
        await self.stop(relay)
        down.listen()

    def start_named(self, *outputs: tuple[str, ScriptedBackend]) -> HTTPService:
        """Start a relay with these outputs."""
        return self.start(*(self.output(backend, name) for name, backend in outputs))

    def depths(self) -> dict[str, tuple[bool, int]]:
        """Return for each backend whether it is active and how many writes wait for it."""
        with self.opened() as journal:
            return {depth.backend: (depth.active, depth.writes) for depth in journal.depths()}

    async def settle(self, relay: HTTPService, last: int, *backends: ScriptedBackend) -> None:
        """Write once more, wait for it everywhere, and stop."""
        self.assertEqual(await self.write(relay, last), 204)
        await until(lambda: all(last in numbers(backend) for backend in backends), "the last write")
        await self.stop(relay)

    async def test_renamed(self) -> None:
        """Another name at the same place: what waits goes on to it."""
        a, b = self.backend(), self.backend()
        await self.write_without(("a", a), ("b", b), down=b, first=1)
        await self.settle(self.start_named(("a", a), ("c", b)), 100, a, b)
        self.assertEqual(numbers(b), [*range(1, 11), 100])
        self.assertEqual(numbers(a), [*range(1, 11), 100])
        self.assertEqual(self.depths(), {"a": (True, 0), "c": (True, 0)})

    async def test_moved(self) -> None:
        """The same name at another place: what waits goes there."""
        a, b, c = self.backend(), self.backend(), self.backend()
        await self.write_without(("a", a), ("b", b), down=b, first=1)
        await self.settle(self.start_named(("a", a), ("b", c)), 100, a, c)
        self.assertEqual(numbers(c), [*range(1, 11), 100])
        self.assertEqual(numbers(b), [])

    async def test_reordered(self) -> None:
        """The order is of no concern."""
        a, b = self.backend(), self.backend()
        await self.write_without(("a", a), ("b", b), down=b, first=1)
        await self.settle(self.start_named(("b", b), ("a", a)), 100, a, b)
        self.assertEqual(numbers(b), [*range(1, 11), 100])
        self.assertEqual(numbers(a), [*range(1, 11), 100])

    async def test_removed(self) -> None:
        """What waited for one that is gone holds nothing back."""
        a, b = self.backend(), self.backend()
        await self.write_without(("a", a), ("b", b), down=b, first=1)
        (segment,) = self.directory.glob("*.log")
        relay = self.start_named(("a", a))
        await until(lambda: not segment.exists(), "the end of what waited")
        await self.settle(relay, 100, a)
        self.assertEqual(numbers(a), [*range(1, 11), 100])
        self.assertEqual(numbers(b), [])
        depths = self.depths()
        self.assertEqual(depths["a"], (True, 0))
        self.assertFalse(depths["b"][0])
        self.assertEqual(list(self.directory.glob("*.log")), [])

    async def test_removed_and_added_again(self) -> None:
        """One that was gone for a while gets the writes that come from now on, in order, and none twice."""
        a, b = self.backend(), self.backend()
        await self.write_without(("a", a), ("b", b), down=b, first=1)
        await self.settle(self.start_named(("a", a)), 50, a)
        await self.settle(self.start_named(("a", a), ("b", b)), 100, a, b)
        self.assertEqual(numbers(b)[-1], 100)
        self.assertEqual(numbers(b), sorted(set(numbers(b))))

    async def test_added(self) -> None:
        """A new one gets what comes from now on, not what waits for another."""
        a, b, c = self.backend(), self.backend(), self.backend()
        await self.write_without(("a", a), ("b", b), down=b, first=1)
        await self.settle(self.start_named(("c", c), ("a", a), ("b", b)), 100, a, b, c)
        self.assertEqual(numbers(b), [*range(1, 11), 100])
        self.assertEqual(numbers(c), [100])

    async def test_all_replaced(self) -> None:
        """No output is the same: nothing is sent to the wrong one."""
        a, b, c = self.backend(), self.backend(), self.backend()
        await self.write_without(("a", a), ("b", b), down=b, first=1)
        await self.settle(self.start_named(("c", c)), 100, c)
        self.assertEqual(numbers(c), [100])

    async def test_names_swapped(self) -> None:
        """Two outputs swap their names: what waits for a server goes to that server."""
        a, b = self.backend(), self.backend()
        await self.write_without(("a", a), ("b", b), down=b, first=1)
        await self.settle(self.start_named(("b", a), ("a", b)), 100, a, b)
        self.assertEqual(sorted(set(numbers(b))), [*range(1, 11), 100])

    async def test_dead_letters_of_a_renamed(self) -> None:
        """Dead letters move with the name."""
        a, b = self.backend(), self.backend(answer(500, b"partial write: no"))
        relay = self.start_named(("a", a), ("b", b))
        self.assertEqual(await self.write(relay, 1), 204)
        await until(lambda: numbers(b) == [1])
        await self.stop(relay)
        b.script.append(answer(204))
        b.script.popleft()
        await self.settle(self.start_named(("a", a), ("c", b)), 100, a, b)
        with self.opened() as journal:
            letters = [(letter.backend, letter.status, letter.write.body) for letter in journal.dead_letters()]
        self.assertEqual(letters, [("c", 500, line(1))])
