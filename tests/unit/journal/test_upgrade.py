"""A journal of version 0.1 becomes one of today, and nothing is lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import attrs

from influxrelay.core.errors import JournalError
from influxrelay.journal import upgrade
from influxrelay.journal.appender import write_file
from influxrelay.journal.ledger import FILE
from testing.journal_cases import OTHER, PLACE, JournalCase, place, record
from testing.old_journal import OldJournal


class UpgradeTests(JournalCase):
    """Upgrades, and those that are interrupted."""

    def setUp(self) -> None:
        """Let the directory be empty."""
        super().setUp()
        self.kill()
        self.directory = Path(self.mktemp())

    def make(self, count: int = 6, size: int = 0) -> None:
        """Make an old journal in which writes wait for two backends."""
        old = OldJournal(self.directory)
        for number in range(1, count + 1):
            old.append(record(number, OTHER if number % 3 == 0 else PLACE, b"%d" % number + b"x" * size + b"\n"))
        old.backend("a", "http://a", [(PLACE, 2), (OTHER, 0), (place(1), 1)])
        old.backend("b", "http://b", [(OTHER, count)])
        old.close()

    def version(self) -> int:
        """Return the version of the file."""
        with closing(sqlite3.connect(self.directory / FILE)) as database:
            return upgrade.version_of(database)

    def test_everything(self) -> None:
        """Writes, cursors, dead letters, losses and removed backends are as they were."""
        old = OldJournal(self.directory)
        odd = record(7, body=b"\xff\n")
        old.append(record(3), record(5, OTHER), attrs.evolve(odd, write=attrs.evolve(odd.write, mergeable=False)))
        old.append(record(8), damaged=True)
        old.backend("a", "http://a", [(PLACE, 5), (OTHER, 5)])
        old.backend("b", "http://b", since=3)
        old.backend("gone", "http://gone", [(PLACE, 4)], active=False)
        old.bury("a", record(2, OTHER), 400, "no")
        old.bury("long ago", record(1), 500, "never")
        old.drop("b", "full", 3, 30, 1.0, 2.0)
        old.drop("gone", "age", 1, 2, 3.0, 4.0)
        old.close()
        self.assertEqual(self.open(), {"a": {PLACE: 5}, "b": {PLACE: 3, OTHER: 3}})
        self.assertEqual((self.version(), self.journal.last_number), (2, 8))
        records, _ = self.result(self.journal.read(PLACE, 0, 1000))
        self.assertEqual(
            [(each.seq, each.time, each.write.body) for each in records], [(3, 30.0, b"3\n"), (7, 70.0, b"\xff\n")]
        )
        self.assertEqual([each.write.mergeable for each in records], [True, False])
        self.assertEqual((records[0].write.query, records[0].write.authorization), (b"db=db", b"Token t"))
        self.assertEqual(self.numbers(OTHER), [5])
        letters = self.result(self.journal.dead_letters(0, 10))
        self.assertEqual(
            [(each.id, each.backend, each.status, each.message) for each in letters],
            [(1, "a", 400, "no"), (2, "long ago", 500, "never")],
        )
        self.assertEqual((letters[0].write.destination, letters[0].write.body, letters[0].time), (OTHER, b"2\n", 20.0))
        lost = [("a", "damaged", 1, 2), ("b", "damaged", 1, 2), ("b", "full", 3, 30), ("gone", "age", 1, 2)]
        self.assertEqual(sorted(self.drops()), lost)
        self.assertEqual(
            {name: each.active for name, each in self.contents().depths.items()}, {"a": True, "b": True, "gone": False}
        )
        positions = self.result(self.journal.returning({"a": "http://a", "new": "http://gone"}, {"a": "a"}))
        self.assertEqual({name: dict(found) for name, found in positions.items()}, {"new": {PLACE: 4, OTHER: 0}})
        self.append(record(9))
        self.kill()
        self.assertEqual(self.open()["a"], {PLACE: 5})

    def test_many(self) -> None:
        """A log that is larger than a segment becomes several, in order."""
        self.make(60, 400_000)
        self.assertEqual(self.open(), {"a": {PLACE: 2, OTHER: 0}, "b": {PLACE: 0}})
        self.assertGreater(len(self.files()), 2)
        self.assertEqual(self.numbers(), [number for number in range(1, 61) if number % 3])
        self.assertEqual({name: writes for name, (writes, _) in self.depths().items()}, {"a": 58, "b": 40})
        self.assertLess((self.directory / FILE).stat().st_size, 1_000_000)

    def test_nothing(self) -> None:
        """An empty journal is upgraded as well."""
        OldJournal(self.directory).close()
        self.assertEqual((self.open(), self.version(), self.files()), ({"a": {}, "b": {}}, 2, []))

    def test_interrupted(self) -> None:
        """Wherever an upgrade is interrupted, the next start begins it again, and nothing is lost or there twice."""
        for step in range(6):
            self.directory = Path(self.mktemp())
            self.make(60, 400_000)
            left = [step]

            def fail(*arguments: object, left: list[int] = left, **named: object) -> None:
                if left[0] == 0:
                    raise OSError(28, "No space left on device")
                left[0] -= 1
                write_file(*arguments, **named)  # type: ignore[arg-type]

            self.patch(upgrade, "write_file", fail)
            if step < 3:
                error = str(self.assertRaises(JournalError, self.open))
                self.assertIn("No space left", error)
                self.assertEqual(self.version(), 1)
            self.patch(upgrade, "write_file", write_file)
            self.open()
            self.assertEqual(self.numbers(), [number for number in range(1, 61) if number % 3])
            self.kill()

    def test_interrupted_in_the_transaction(self) -> None:
        """The same where the tables are exchanged."""
        self.make()

        def fail(*_: object) -> Iterator[None]:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error

        self.patch(upgrade._Upgrade, "_convert_letters", fail)
        self.assertRaises(JournalError, self.open)
        self.patch(upgrade._Upgrade, "_convert_letters", lambda *_: None)
        self.assertEqual(self.open(), {"a": {PLACE: 2, OTHER: 0}, "b": {PLACE: 0}})
        self.assertEqual((self.numbers(), self.numbers(OTHER)), ([1, 2, 4, 5], [3, 6]))

    def test_only_a_look(self) -> None:
        """Who only looks at it is told what to do, and changes nothing."""
        self.make()
        error = self.assertRaises(JournalError, self.open, None)
        self.assertEqual(str(error), f"{self.directory}: a journal of version 0.1; a relay that starts upgrades it")
        self.assertEqual((self.version(), self.files()), (1, []))

    def test_corrupt(self) -> None:
        """An old journal that is corrupt is moved aside, as any other."""
        self.make(60, 400_000)
        path = self.directory / FILE
        data = bytearray(path.read_bytes())
        data[16384 * 3 :: 16384] = b"\xff" * len(data[16384 * 3 :: 16384])
        path.write_bytes(data)
        self.open()
        self.assertEqual(len(list(self.directory.glob(f"{FILE}.corrupt-*[0-9]"))), 1)
        self.append(record(self.journal.next_number()))
