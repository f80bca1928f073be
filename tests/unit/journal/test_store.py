"""The journal's storage alone: the log, the cursors, the bounds, the dead letters, and damaged files."""

from __future__ import annotations

import random
import sqlite3
from typing import Any

from influxrelay.core.errors import JournalError
from influxrelay.core.write import Destination
from influxrelay.journal.records import Depth, Drop, Record
from influxrelay.journal.store import FILE, KEPT_DESTINATIONS, VERSION, Store
from testing.journal_cases import BACKENDS, OTHER, PLACE, JournalCase, record, write


class LogTests(JournalCase):
    """Append, commit, read, strike."""

    def test_reopen(self) -> None:
        """What was committed is there again, to the last detail."""
        writes = [write(b"1\n\x00\xff"), write(b"2", OTHER, mergeable=False)]
        self.append(Record(5, 1.25, writes[0]), Record(7, 2.5, writes[1]))
        self.reopen()
        self.assertEqual(self.journal.last_seq, 7)
        for place, number, seq, when in ((PLACE, 0, 5, 1.25), (OTHER, 1, 7, 2.5)):
            ((found,), upto, damaged) = self.journal.read(place, 0, 1)
            self.assertEqual((found.seq, found.time, damaged), (seq, when, []))
            self.assertEqual(upto, seq)
            for name in ("destination", "query", "authorization", "body", "mergeable"):
                self.assertEqual(getattr(found.write, name), getattr(writes[number], name))

    def test_not_committed(self) -> None:
        """What was not committed is gone, after a rollback and after a restart."""
        self.append(record(1))
        self.journal.begin()
        self.journal.append([record(2, OTHER)])
        self.journal.advance({("a", PLACE): 1})
        self.journal.rollback()
        self.journal.rollback()
        self.assertEqual((self.seqs(OTHER), self.waiting("a")), ([], {PLACE: 0}))
        self.append(record(3, OTHER))
        self.assertEqual(self.seqs(OTHER), [3])
        self.journal.begin()
        self.journal.append([record(4)])
        self.reopen()
        self.assertEqual(self.seqs(), [1])

    def test_pages(self) -> None:
        """A page has the next writes in order, so many that they have the bytes that were asked for, one at least."""
        self.append(*[record(seq, PLACE if seq % 3 else OTHER) for seq in range(1, 10)])
        self.append(record(10, body=b"x" * 1000))
        pages = []
        after: int | None = 0
        while after is not None:
            records, after, _ = self.journal.read(PLACE, after, 4)
            pages.append([each.seq for each in records])
        self.assertEqual(pages, [[1, 2], [4, 5], [7, 8], [10], []])
        self.assertEqual(self.journal.read(PLACE, 10, 4), ([], None, []))
        self.assertEqual(self.journal.read(Destination(b"?", b"", b"", (b"", b"", b"")), 0, 4), ([], None, []))

    def test_strike(self) -> None:
        """A struck write is gone, and one that is not there is no error."""
        self.append(*[record(seq) for seq in (1, 2, 3)])
        with self.transaction() as journal:
            journal.strike([2, 9])
        self.reopen()
        self.assertEqual(self.seqs(), [1, 3])

    def test_damage(self) -> None:
        """A write of which a byte was changed is not read, and can be dropped and counted for who needs it."""
        self.append(record(1), record(2), record(3))
        self.advance("b", 2)
        second = sqlite3.connect(self.directory / FILE)
        second.execute("UPDATE log SET body = x'330a' WHERE seq = 2")
        second.commit()
        second.close()
        records, upto, damaged = self.journal.read(PLACE, 0, 1 << 20)
        self.assertEqual(([each.seq for each in records], upto, damaged), ([1, 3], None, [2]))
        with self.transaction() as journal:
            journal.drop(damaged, "damaged")
        self.assertEqual(self.journal.drops(), [Drop("a", "damaged", 1, 2, 20.0, 20.0)])
        self.assertEqual(self.seqs(), [1, 3])


class CursorTests(JournalCase):
    """Who has passed what, and what is removed."""

    def test_sweep(self) -> None:
        """Exactly what all active backends have passed is removed, destination by destination."""
        self.append(*[record(seq, PLACE if seq % 2 else OTHER) for seq in range(1, 9)])
        self.advance("a", 7)
        self.assertEqual(self.seqs(), [1, 3, 5, 7])
        self.advance("b", 4)
        self.assertEqual((self.seqs(), self.seqs(OTHER)), ([5, 7], [2, 4, 6, 8]))
        self.advance("b", 8, OTHER)
        self.advance("a", 6, OTHER)
        self.assertEqual((self.seqs(), self.seqs(OTHER)), ([5, 7], [8]))

    def test_cursors_last(self) -> None:
        """Cursors are each backend's in each destination, and survive a restart."""
        self.append(*[record(seq, PLACE if seq % 2 else OTHER) for seq in range(1, 9)])
        self.advance("a", 3)
        self.advance("b", 8, OTHER)
        for _ in range(2):
            self.assertEqual(self.waiting("a"), {PLACE: 3, OTHER: 0})
            self.assertEqual(self.waiting("b"), {PLACE: 0})
            self.reopen()

    def test_unknown_backend(self) -> None:
        """A cursor of a backend that is not there is not kept."""
        self.append(record(1))
        self.advance("nobody", 1)
        self.assertEqual(self.seqs(), [1])

    def test_numbers_rise(self) -> None:
        """After all was removed and after a restart numbers are still higher than any cursor."""
        self.append(record(41))
        self.advance("a", 41)
        self.advance("b", 41)
        self.reopen()
        self.assertEqual((self.seqs(), self.journal.last_seq), ([], 41))

    def test_many_destinations(self) -> None:
        """Destinations that clients have named by mistake are forgotten, and cost later commits nothing."""
        places = [Destination(b"typo%d" % number, b"", b"ns", (b"", b"", b"")) for number in range(1000)]
        for number, place in enumerate(places):
            with self.transaction() as journal:
                journal.append([record(2 * number + 1, place), record(2 * number + 2)])
            with self.transaction() as journal:
                if number % 2:
                    journal.strike([2 * number + 1])
                else:
                    journal.advance({("a", place): 2 * number + 1, ("b", place): 2 * number + 1})
                journal.sweep()
        self.assertEqual(self.seqs(), list(range(2, 2001, 2)))
        self.reopen()
        self.assertEqual(self.journal.last_seq, 2000)
        connection = sqlite3.connect(self.directory / FILE)
        self.addCleanup(connection.close)
        for table in ("destinations", "cursors"):
            (rows,) = connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()
            self.assertLessEqual(rows, 2 * KEPT_DESTINATIONS, table)
        statements: list[str] = []
        with self.transaction() as journal:
            journal.sweep()
        with self.transaction() as journal:
            journal._db.set_trace_callback(statements.append)
            journal.advance({("a", PLACE): 2000})
            journal.sweep()
            journal._db.set_trace_callback(None)
        self.assertLess(len(statements), 10)
        self.assertEqual(self.waiting("b"), {PLACE: 0})

    def test_forgotten_destination(self) -> None:
        """A destination that was forgotten begins anew; one with a dead letter or a backlog is not forgotten."""
        self.append(record(1), record(2, OTHER))
        with self.transaction() as journal:
            journal.add_dead_letter("a", 10.0, write(), 400, "no")
            for number in range(2 * KEPT_DESTINATIONS):
                place = Destination(b"typo%d" % number, b"", b"ns", (b"", b"", b""))
                journal.append([record(number + 3, place)])
                journal.strike([number + 3])
            journal.advance({("a", PLACE): 1, ("b", PLACE): 1, ("a", OTHER): 2})
            journal.sweep()
        self.assertEqual((self.waiting("a"), self.waiting("b")), ({}, {OTHER: 0}))
        self.assertEqual([each.write.destination for each in self.journal.dead_letters()], [PLACE])
        last = self.journal.last_seq
        typo = Destination(b"typo0", b"", b"ns", (b"", b"", b""))
        self.append(record(last + 1, typo))
        self.assertEqual(self.seqs(typo), [last + 1])
        self.assertIn(typo, self.waiting("a"))

    def test_no_backend(self) -> None:
        """Without a backend nothing is removed."""
        self.append(record(1))
        self.register()
        with self.transaction() as journal:
            journal.sweep()
        self.assertEqual(self.seqs(), [1])

    def test_depths(self) -> None:
        """What waits is told for each backend: writes, bytes, and the time of the oldest."""
        self.append(record(1), record(2, OTHER), record(3, body=b"123"))
        self.advance("a", 1)
        self.advance("b", 2, OTHER)
        self.register(a="http://a", b="http://b", c="http://c")
        self.assertEqual(
            self.journal.depths(),
            [
                Depth("a", "http://a", True, 2, 5, 20.0),
                Depth("b", "http://b", True, 2, 5, 10.0),
                Depth("c", "http://c", True, 0, 0, None),
            ],
        )
        self.register(a="http://a")
        self.assertEqual(self.journal.depths()[1], Depth("b", "http://b", False, 0, 0, None))


class BackendTests(JournalCase):
    """Backends that come, go, and change their names."""

    def test_new(self) -> None:
        """A new backend starts at the end, in known and unknown destinations, also after a restart."""
        self.append(record(1))
        self.register(**BACKENDS, c="http://c")
        self.reopen()
        self.assertEqual(self.waiting("c"), {})
        self.append(record(2), record(3, OTHER))
        self.assertEqual(self.waiting("c"), {PLACE: 1, OTHER: 1})

    def test_gone(self) -> None:
        """A backend that is gone holds nothing back; when it is back it gets what is left."""
        self.append(record(1), record(2))
        self.advance("a", 1)
        self.register(a="http://a")
        self.advance("a", 1)
        self.assertEqual(self.seqs(), [2])
        self.register(**BACKENDS)
        self.assertEqual(self.waiting("b"), {PLACE: 0})
        self.assertTrue(all(depth.active for depth in self.journal.depths()))

    def test_all_gone_from_one_location(self) -> None:
        """Where two backends of one location are gone, neither holds anything back."""
        self.register(a="http://x", b="http://x", c="http://c")
        self.append(record(1))
        self.register(c="http://c")
        self.assertEqual([depth.active for depth in self.journal.depths()], [False, False, True])
        self.advance("c", 1)
        self.assertEqual(self.seqs(), [])

    def test_renamed(self) -> None:
        """A backend with a new name at the old location is the old one: cursors, dead letters and counts."""
        self.append(record(1), record(2))
        self.advance("a", 1)
        with self.transaction() as journal:
            journal.add_dead_letter("a", 1.0, write(), 400, "no")
            journal.count_drop("a", "full", 1.0, 5)
        self.register(new="http://a", b="http://b")
        self.reopen()
        self.assertEqual(self.waiting("new"), {PLACE: 1})
        self.assertEqual([depth.backend for depth in self.journal.depths()], ["b", "new"])
        self.assertEqual(self.journal.dead_letters()[0].backend, "new")
        self.assertEqual(self.journal.drops()[0].backend, "new")

    def test_reordered_and_moved(self) -> None:
        """Another order changes nothing, and a backend with another location is the same."""
        self.append(record(1), record(2))
        self.advance("a", 1)
        self.register(b="http://b", a="http://moved")
        self.assertEqual((self.waiting("a"), self.waiting("b")), ({PLACE: 1}, {PLACE: 0}))
        self.assertEqual(self.journal.depths()[0].location, "http://moved")

    def test_drop_active(self) -> None:
        """What waits for a backend is given up and counted; others keep theirs."""
        self.append(record(1), record(2), record(3, OTHER))
        self.advance("a", 1)
        with self.transaction() as journal:
            journal.drop_backend("a")
        self.assertEqual(self.journal.drops(), [Drop("a", "operator", 2, 4, 20.0, 30.0)])
        for _ in range(2):
            self.assertEqual((self.waiting("a"), self.waiting("b")), ({}, {PLACE: 0, OTHER: 0}))
            self.reopen()
        self.append(record(4))
        self.assertEqual(self.waiting("a"), {PLACE: 3})

    def test_drop_inactive(self) -> None:
        """A backend that is gone can be forgotten."""
        self.append(record(1))
        with self.transaction() as journal:
            journal.count_drop("b", "full", 1.0, 5)
        self.register(a="http://a")
        with self.transaction() as journal:
            journal.drop_backend("b")
        self.assertEqual(([depth.backend for depth in self.journal.depths()], self.journal.drops()), (["a"], []))
        self.register(**BACKENDS)
        self.assertEqual(self.waiting("b"), {})


class BoundTests(JournalCase):
    """What is dropped when it is too much or too old."""

    def test_expire(self) -> None:
        """What is older is dropped, and counted for exactly those who had not passed it, with its times."""
        self.append(*[record(seq, PLACE if seq % 2 else OTHER) for seq in range(1, 7)])
        self.advance("a", 1)
        self.advance("b", 6, OTHER)
        with self.transaction() as journal:
            journal.expire(50.0)
        self.assertEqual((self.seqs(), self.seqs(OTHER)), ([5], [6]))
        wanted = [Drop("a", "age", 3, 6, 20.0, 40.0), Drop("b", "age", 2, 4, 10.0, 30.0)]
        self.assertEqual(self.journal.drops(), wanted)
        with self.transaction() as journal:
            journal.expire(60.0)
        self.reopen()
        self.assertEqual(self.journal.drops()[1], Drop("b", "age", 3, 6, 10.0, 50.0))

    def test_expire_many(self) -> None:
        """More than is looked at in one go is dropped as well."""
        self.append(*[record(seq) for seq in range(1, 1201)])
        with self.transaction() as journal:
            journal.expire(1e9)
        self.assertEqual((self.seqs(), self.journal.drops()[0].writes), ([], 1200))

    def test_drop_oldest(self) -> None:
        """The oldest are dropped until it fits, and not much more than that."""
        size = 20_000
        self.append(*[record(seq, body=b"x" * size) for seq in range(1, 41)])
        limit = self.journal.used() - 5 * size
        with self.transaction() as journal:
            journal.drop_oldest(limit)
        self.assertLessEqual(self.journal.used(), limit)
        left = self.seqs()
        self.assertEqual(left, list(range(left[0], 41)))
        self.assertTrue(6 <= left[0] <= 9, left[0])
        gone = left[0] - 1
        self.assertEqual(
            self.journal.drops(), [Drop(name, "full", gone, gone * size, 10.0, gone * 10.0) for name in "ab"]
        )
        with self.transaction() as journal:
            journal.drop_oldest(limit)
            journal.drop_oldest(limit)
        self.assertEqual(self.seqs(), left)

    def test_drop_all(self) -> None:
        """A limit that nothing meets ends with an empty log."""
        self.append(record(1))
        with self.transaction() as journal:
            journal.drop_oldest(1)
        self.assertEqual(self.seqs(), [])


class DeadLetterTests(JournalCase):
    """The dead letters."""

    def test_pages(self) -> None:
        """They are kept in order with the backend's words, listed in pages, counted, and dropped by id."""
        with self.transaction() as journal:
            for number in range(5):
                journal.add_dead_letter("ab"[number % 2], number, write(b"%d" % number, OTHER), 400 + number, "n\u00e4")
        self.reopen()
        first = self.journal.dead_letters(limit=2)
        rest = self.journal.dead_letters(after=first[-1].id)
        letters = [*first, *rest]
        self.assertEqual([(each.status, each.write.body) for each in letters], [(400 + n, b"%d" % n) for n in range(5)])
        letter = letters[1]
        self.assertEqual((letter.backend, letter.time, letter.words), ("b", 1.0, "n\u00e4"))
        self.assertEqual((letter.write.destination, letter.write.query), (OTHER, b"db=db"))
        self.assertEqual(self.journal.count_dead_letters(), {"a": 3, "b": 2})
        with self.transaction() as journal:
            self.assertEqual(journal.drop_dead_letters([letters[0].id, letters[3].id, 999]), 2)
        self.assertEqual([each.status for each in self.journal.dead_letters()], [401, 402, 404])


class FileTests(JournalCase):
    """The files."""

    def test_modes(self) -> None:
        """Nobody else can read the directory and the files: there are credentials in them."""
        self.append(record(1))
        self.assertEqual(self.directory.stat().st_mode & 0o777, 0o700)
        names = {path.name for path in self.directory.iterdir()}
        self.assertEqual(names, {FILE, FILE + "-wal", FILE + "-shm", "lock"})
        for path in self.directory.iterdir():
            self.assertEqual(path.stat().st_mode & 0o777, 0o600, path.name)

    def test_one_at_a_time(self) -> None:
        """A second relay is refused with one line, and leaves the first one alone."""
        error = self.assertRaises(JournalError, Store, self.directory)
        self.assertEqual(str(error), f"{self.directory}: another relay is using this journal")
        self.append(record(1))
        self.journal.close()
        self.journal.close()
        self.journal = Store(self.directory)
        self.assertEqual(self.seqs(), [1])

    def test_later_version(self) -> None:
        """A journal of a later version is refused with one line, and left alone."""
        self.journal._db.execute(f"PRAGMA user_version = {VERSION + 1}")
        self.journal.close()
        for _ in range(2):
            error = self.assertRaises(JournalError, Store, self.directory)
            self.assertIn(f"found a journal of version {VERSION + 1}; allowed: up to {VERSION}", str(error))

    def test_damaged_files(self) -> None:
        """A file that is no database, or half of one, raises what tells so, and the lock is given back."""
        self.append(*[record(seq, body=bytes(5000)) for seq in range(1, 50)])
        self.journal.close()
        path = self.directory / FILE
        whole = path.read_bytes()
        for content in (random.Random(1).randbytes(8192), whole[:5000], whole[:100] + bytes(4000)):
            path.write_bytes(content)
            error = self.assertRaises(sqlite3.DatabaseError, self.read_all)
            self.assertIn(error.sqlite_errorcode, (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))
        for content in (b"", b"x"):  # SQLite begins anew
            path.write_bytes(content)
            self.assertEqual(self.read_all(), [])
        self.journal = Store(self.directory)

    def read_all(self) -> list[Any]:
        """Open it, read all and close it."""
        journal = Store(self.directory)
        try:
            return [*journal._db.execute("SELECT * FROM log"), *journal.read(PLACE, 0, 1 << 30)[0]]
        finally:
            journal.close()

    def test_sync(self) -> None:
        """``full_sync`` syncs every commit, and without it the log is synced at checkpoints."""
        for full, level in ((False, 1), (True, 2)):
            self.reopen(full_sync=full)
            self.assertEqual(self.journal._db.execute("PRAGMA synchronous").fetchone(), (level,))
            self.assertEqual(self.journal._db.execute("PRAGMA journal_mode").fetchone(), ("wal",))
