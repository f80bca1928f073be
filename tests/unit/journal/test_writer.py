"""A journal on disk, as the rest of the relay sees it."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock

from influxrelay.core.errors import JournalError
from influxrelay.journal.interface import Journal
from influxrelay.journal.ledger import FILE
from influxrelay.journal.records import JournalLimits, Record
from influxrelay.journal.worker import InlineWorker
from influxrelay.journal.writer import JournalWriter
from testing.journal_cases import OTHER, PLACE, JournalCase, place, record, write

MB = 1024 * 1024


class WriteTests(JournalCase):
    """Appending, striking, passing, reading."""

    def test_interface(self) -> None:
        """It is what delivery and the commands ask for."""
        journal: Journal = self.journal
        self.assertEqual((journal.place, journal.trouble, journal.why_unavailable), (str(self.directory), "", ""))

    def test_read(self) -> None:
        """What was appended is read, by destination and in order; what every backend has passed may be gone."""
        self.append(record(1), record(2, OTHER), record(3))
        records, upto = self.result(self.journal.read(PLACE, 0, 1000))
        self.assertEqual(([each.seq for each in records], upto), ([1, 3], 3))
        got = records[0].write
        self.assertEqual(
            (got.body, got.query, got.destination, got.authorization), (b"1\n", b"db=db", PLACE, b"Token t")
        )
        self.assertEqual((self.numbers(OTHER), self.numbers(place(1)), self.numbers(after=1)), ([2], [], [3]))

    def test_pages(self) -> None:
        """A page ends with the write that makes it large enough, and says so, in whatever segments they are."""
        for number in range(1, 10):
            self.append(record(number, body=b"x" * 100))
            if number % 3 == 0:
                self.seal()
        for size, numbers in ((1, [1]), (100, [1]), (101, [1, 2]), (350, [1, 2, 3, 4])):
            records, upto = self.result(self.journal.read(PLACE, 0, size))
            self.assertEqual(([each.seq for each in records], upto), (numbers, numbers[-1]))
        after, pages = 0, []
        while True:
            records, after = self.result(self.journal.read(PLACE, after, 250))
            if not records:
                break
            pages += [each.seq for each in records]
        self.assertEqual((pages, after), (list(range(1, 10)), 9))

    def test_strike(self) -> None:
        """A struck write is not read, whether its segment is sealed or not, nor after a restart or a crash."""
        self.append(*(record(number) for number in range(1, 6)))
        self.strike(2)
        self.seal()
        self.strike(4)
        self.strike(99)
        self.append(record(6), record(7))
        self.strike(7)
        for leave in (lambda: None, self.kill, self.close):
            leave()
            if not self.is_open:
                self.open()
            self.assertEqual(self.numbers(), [1, 3, 5, 6])

    def test_restart(self) -> None:
        """A restart, in order or not, reads on from the cursors, and goes on with the numbers."""
        for leave in (self.close, self.kill):
            self.directory = Path(self.mktemp())
            self.open()
            self.append(record(1), record(2, OTHER), record(3))
            self.advance(1)
            self.advance(3, keys="b")
            self.advance(2, OTHER)
            self.lazily()
            leave()
            self.assertEqual(self.open(), {"a": {PLACE: 1}, "b": {}})
            self.assertEqual((self.journal.last_number, self.journal.next_number()), (3, 4))

    def test_crash_before_the_ledger(self) -> None:
        """What the ledger does not know yet when the process dies is read from the log."""
        self.append(record(1))
        self.kill()
        self.assertEqual(self.open(), {"a": {PLACE: 0}, "b": {PLACE: 0}})
        self.advance(1)
        self.kill()
        self.assertEqual(self.open(), {"a": {PLACE: 0}, "b": {PLACE: 0}})  # they get it once more

    def test_nothing_left(self) -> None:
        """When everybody has passed everything nothing is left on disk, at the latest after a while, or at the stop."""
        self.append(record(1), record(2, OTHER))
        self.advance(1)
        self.advance(2, OTHER)
        self.later()
        self.assertEqual((self.files(), self.journal.used), ([], 0))
        self.append(record(3))
        self.advance(3)
        self.close()
        self.assertEqual(self.files(), [])

    def test_modes(self) -> None:
        """Nobody else may read the files, for clients' credentials are in them."""
        self.append(record(1))
        self.assertEqual(self.directory.stat().st_mode & 0o777, 0o700)
        modes = {path.name: path.stat().st_mode & 0o777 for path in self.directory.iterdir()}
        self.assertEqual(set(modes.values()), {0o600}, modes)

    def test_dead_letters(self) -> None:
        """Dead letters are kept with the cursors that pass them, and can be dropped."""
        self.append(record(1), record(2))
        self.journal.bury("a", 10.0, write(b"bad\n"), 400, "no")
        self.advance(2)
        self.lazily()
        self.kill()
        self.open()
        (letter,) = self.result(self.journal.dead_letters(0, 10))
        self.assertEqual((letter.backend, letter.time, letter.status, letter.message), ("a", 10.0, 400, "no"))
        self.assertEqual((letter.write.body, letter.write.destination), (b"bad\n", PLACE))
        self.assertEqual(self.contents().dead_letters, {"a": 1})
        self.assertEqual(self.result(self.journal.dead_letters(letter.id, 10)), [])
        self.assertEqual(self.result(self.journal.drop_dead_letters([letter.id, 77])), 1)
        self.assertEqual(self.contents().dead_letters, {})

    def test_losses(self) -> None:
        """Losses add up, over restarts, until they are forgotten."""
        self.journal.count_loss("a", "full", 5.0, 7)
        self.journal.count_loss("a", "full", 3.0, 1)
        self.lazily()
        self.kill()
        self.open()
        self.journal.count_loss("a", "full", 9.0, 1)
        self.journal.count_loss("b", "age", 1.0, 2)
        (drop,) = self.journal.losses("a")
        self.assertEqual((drop.backend, drop.reason, drop.writes, drop.bytes), ("a", "full", 3, 9))
        self.assertEqual((drop.first, drop.last), (3.0, 9.0))
        self.assertEqual(self.drops(), [("a", "full", 3, 9), ("b", "age", 1, 2)])
        self.assertEqual(self.result(self.journal.forget_losses("a")), [drop])
        self.assertEqual((self.journal.losses("a"), self.result(self.journal.forget_losses("x"))), ([], []))
        self.kill()
        self.open()
        self.assertEqual(self.drops(), [("b", "age", 1, 2)])

    def test_not_a_backend(self) -> None:
        """What is told of something that stands for no backend is ignored."""
        self.append(record(1))
        self.advance(1, keys="x")
        self.journal.bury("x", 1.0, write(), 400, "no")
        self.journal.count_loss("x", "full", 1.0, 1)
        self.assertEqual((self.journal.losses("x"), self.drops(), self.depths()), ([], [], {"a": (1, 2), "b": (1, 2)}))


class ForeverTests(JournalCase):
    """Nothing that clients can name or send makes a journal grow without bound."""

    def test_destinations(self) -> None:
        """A destination that has nothing in the log is in no table and no memory, however many there were."""
        for number in range(1, 2001):
            self.append(record(number, place(number)))
            self.advance(number, place(number))
        self.lazily()
        house = self.journal._house
        self.assertEqual((house.cursors.behind, house.cursors._written, self.rows("cursors")), ({}, set(), []))
        self.later()
        self.assertEqual((self.rows("entries"), self.files(), self.journal._tail.segments), ([], [], []))
        self.close()
        self.open()
        self.assertEqual((house.cursors.behind, self.rows("cursors")), ({}, []))

    def test_refused_writes(self) -> None:
        """Writes that are struck leave nothing behind, also where their destination is never heard of again."""
        for number in range(1, 501):
            self.append(record(number, place(number)))
            self.strike(number)
        self.later()
        self.assertEqual((self.journal._house.cursors.behind, self.rows("cursors"), self.files()), ({}, [], []))

    def test_statements(self) -> None:
        """What is written down for a destination that moves does not depend on how many others there ever were."""
        counts = []
        for _ in range(2):
            statements: list[str] = []
            self.append(record(self.journal.last_number + 1))
            self.advance(self.journal.last_number)
            self.journal._store.ledger._db.set_trace_callback(statements.append)
            self.lazily()
            self.journal._store.ledger._db.set_trace_callback(None)
            counts.append(len(statements))
            for number in range(self.journal.last_number + 1, self.journal.last_number + 500):
                self.append(record(number, place(number)))
                self.advance(number, place(number))
            self.lazily()
        self.assertEqual(counts[0], counts[1])

    def test_one_that_waits(self) -> None:
        """A destination that waits holds its own writes and nothing else, in the log and in the ledger."""
        self.open(max_bytes=MB)
        self.append(record(1, OTHER))
        for number in range(2, 400):
            self.append(record(number, body=b"x" * 10_000))
            self.advance(number)
            self.lazily()
        self.later()
        self.assertLess(self.journal.used, 2000)
        self.assertEqual((self.numbers(OTHER), len(self.rows("entries"))), ([1], 1))
        self.assertEqual(self.depths(), {"a": (1, 2), "b": (1, 2)})

    def test_dead_letters(self) -> None:
        """Dead letters take no more than their share; the oldest make way, and are counted."""
        self.open(max_bytes=MB)
        for number in range(1, 101):
            self.journal.bury("a", float(number), write(b"x" * 10_000), 400, "no")
        self.lazily()
        letters = self.result(self.journal.dead_letters(0, 1000))
        self.assertEqual([each.time for each in letters], [float(number) for number in range(101 - len(letters), 101)])
        self.assertLessEqual(len(letters) * 10_000, MB // 4)
        self.assertEqual(self.drops(), [("a", "full", 100 - len(letters), (100 - len(letters)) * 10_000)])
        self.append(record(1))

    def test_dead_letters_without_a_disk(self) -> None:
        """Dead letters that the disk does not take are kept in memory up to a number, and counted beyond it."""

        def refuse(*_: Any, **__: Any) -> None:
            raise OSError(errno.ENOSPC, "disk full")

        self.patch(self.journal._store, "save", refuse)
        for number in range(1, 1011):
            self.journal.bury("a", float(number), write(b"x"), 400, "no")
        self.lazily()
        self.assertEqual(len(self.journal._house.accounts.letters), 1000)
        self.assertEqual(self.drops(), [("a", "full", 10, 10)])


class OpenTests(JournalCase):
    """How a journal is opened."""

    def another(self) -> JournalWriter:
        """Return another writer for the same directory."""
        return JournalWriter(Clock(), self.directory, JournalLimits(), make_worker=InlineWorker)

    def test_in_use(self) -> None:
        """A journal in use is refused, and free as soon as it is closed."""
        self.assertIn("another relay is using", str(self.assertRaises(JournalError, self.another().open, {})))
        self.close()
        other = self.another()
        other.open({"a": ("a", "http://a")})
        self.successResultOf(other.stop())

    def test_never_opened(self) -> None:
        """One that was never opened knows nothing, and is stopped at once."""
        journal = self.another()
        self.assertEqual((journal.used, journal.trouble, journal.why_unavailable, journal.losses("a")), (0, "", "", []))
        journal.reconfigure(JournalLimits(7), full_sync=False)
        self.successResultOf(journal.stop())

    def test_later_version(self) -> None:
        """A journal of a later version is refused, and left as it is."""
        self.close()
        with sqlite3.connect(self.directory / FILE) as database:
            database.execute("PRAGMA user_version = 99")
        database.close()
        self.assertIn("of version 99; allowed: up to 2", str(self.assertRaises(JournalError, self.open)))

    def test_impossible(self) -> None:
        """A directory that cannot be made, or is a file, is refused in one line."""
        self.close()
        self.directory = self.directory / FILE
        error = str(self.assertRaises(JournalError, self.open))
        self.assertIn(str(self.directory), error)
        self.assertNotIn("\n", error)

    def test_look_only(self) -> None:
        """To look at a journal registers no backend and changes no cursor."""
        self.append(record(1), record(2))
        self.advance(1, keys="a")
        self.close()
        self.open(None)
        self.assertEqual(self.depths(), {"a": (1, 2), "b": (2, 4)})
        self.close()
        self.assertEqual(self.open(), {"a": {PLACE: 1}, "b": {PLACE: 0}})

    def test_numbers(self) -> None:
        """Numbers only rise, also where everything has left the log."""
        self.append(Record(self.journal.next_number(), 1.0, write()))
        self.advance(1)
        self.close()
        self.open()
        self.assertEqual(self.journal.next_number(), 2)
