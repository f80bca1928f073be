"""Files of a journal that are damaged, cut off, missing or left over: what is known of them, and what is counted."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path

from twisted.logger import LogLevel, formatEvent

from influxrelay.core.errors import JournalError
from influxrelay.journal.frames import HEAD
from influxrelay.journal.ledger import FILE
from influxrelay.journal.segment import name_of
from testing.journal_cases import BACKENDS, OTHER, PLACE, JournalCase, record
from testing.logs import observe_log


class FileCase(JournalCase):
    """A journal whose files are changed between two processes."""

    def setUp(self) -> None:
        """Hear what is logged."""
        self.logged: list[str] = []

        def observe(event: object) -> None:
            if isinstance(event, dict) and event.get("log_level") is LogLevel.critical:
                self.logged.append(formatEvent(event))

        observe_log(self, observe)
        super().setUp()

    def fill(self, *, sealed: bool) -> Path:
        """Append six writes, of which one backend has two; return the segment's file, of a process that has died."""
        self.append(record(1), record(2), record(3, OTHER), record(4), record(5), record(6, OTHER))
        self.advance(2, keys="a")
        self.lazily()
        if sealed:
            self.seal()
        self.kill()
        (path,) = self.files()
        return path

    def offset(self, path: Path, number: int) -> int:
        """Return where a write's frame is."""
        return path.read_bytes().index(b"%d\n" % number) - HEAD

    def overwrite(self, path: Path, offset: int, data: bytes) -> None:
        """Change some bytes."""
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(data)


class LogTests(FileCase):
    """Segments."""

    def test_body(self) -> None:
        """A damaged body is skipped when it is read, and counted for each backend that has not passed it, once."""
        for sealed in (False, True):
            path = self.fill(sealed=sealed)
            self.overwrite(path, self.offset(path, 4) + HEAD, b"x")
            self.overwrite(path, self.offset(path, 1) + HEAD, b"x")
            self.open()
            self.assertEqual((self.numbers(), self.numbers()), ([2, 5], [2, 5]))
            self.assertEqual(self.drops(), [("a", "damaged", 1, 2), ("b", "damaged", 2, 4)])
            self.assertEqual((self.contents().drops[0].first, self.depths()["a"]), (40.0, (3, 6)))
            self.kill()
            self.open()
            self.assertEqual((self.numbers(), len(self.drops())), ([2, 5], 2))
            self.directory = Path(self.mktemp())
            self.open()

    def test_body_in_an_unsealed_segment(self) -> None:
        """The same in a segment that is appended to."""
        self.append(record(1), record(2), record(3))
        (path,) = self.files()
        self.overwrite(path, self.offset(path, 2) + HEAD, b"x")
        self.assertEqual((self.numbers(), self.numbers()), ([1, 3], [1, 3]))
        self.assertEqual(self.drops(), [("a", "damaged", 1, 2), ("b", "damaged", 1, 2)])
        self.append(record(4))
        self.assertEqual(self.numbers(), [1, 3, 4])

    def test_head(self) -> None:
        """A damaged head costs its write: counted at the start, or when it is read, and the others are there."""
        for sealed in (False, True):
            path = self.fill(sealed=sealed)
            self.overwrite(path, self.offset(path, 4) + 8, b"\xff")
            self.open()
            self.assertEqual((self.numbers(), self.numbers(OTHER)), ([1, 2, 5], [3, 6]))
            drops = {name: writes for name, _, writes, _ in self.drops()}
            self.assertEqual(drops, {"a": 1, "b": 1})
            self.directory = Path(self.mktemp())
            self.open()

    def test_not_a_log(self) -> None:
        """A file that begins with something else is moved aside; what it had is counted as far as it is known."""
        for sealed, drops in ((True, [("a", "damaged", 4, 8), ("b", "damaged", 6, 12)]), (False, None)):
            path = self.fill(sealed=sealed)
            self.overwrite(path, 0, b"rubbish" + (b"" if not sealed else b"x" * 0))
            if sealed:
                with path.open("ab") as file:
                    file.write(b"x")
            self.logged.clear()
            self.open()
            self.assertEqual((self.numbers(), self.files()), ([], []))
            (aside,) = self.directory.glob("*.log.corrupt-*")
            self.assertTrue(any(aside.name in each for each in self.logged), self.logged)
            found = self.drops()
            self.assertEqual(
                found if drops else [each[:2] for each in found], drops or [("a", "damaged"), ("b", "damaged")]
            )
            self.directory = Path(self.mktemp())
            self.open()

    def test_cut_off_batch(self) -> None:
        """What a process that was killed has written of a last batch is no damage, and counted nowhere."""
        path = self.fill(sealed=False)
        with path.open("ab") as file:
            file.write(path.read_bytes()[60:100])
        self.open()
        self.assertEqual((self.numbers(), self.numbers(OTHER), self.drops()), ([1, 2, 4, 5], [3, 6], []))
        self.append(record(7))
        self.assertEqual(self.numbers(), [1, 2, 4, 5, 7])

    def test_end_is_missing(self) -> None:
        """Where the end of the log is missing that is counted, for those who had not passed everything."""
        path = self.fill(sealed=False)
        whole = path.read_bytes()
        path.write_bytes(whole[: self.offset(path, 4)])
        self.open()
        self.assertEqual((self.numbers(), self.numbers(OTHER)), ([1, 2], [3]))
        self.assertEqual(self.drops(), [("a", "damaged", 1, 0), ("b", "damaged", 1, 0)])
        self.assertTrue(any("the end of the log is missing" in each for each in self.logged))
        self.assertEqual(self.journal.next_number(), 7)
        self.kill()
        self.open()
        self.assertEqual(len(self.drops()), 2)

    def test_end_of_a_sealed_segment(self) -> None:
        """What the ledger knows of a segment that has become shorter is counted exactly."""
        path = self.fill(sealed=True)
        path.write_bytes(path.read_bytes()[: self.offset(path, 5)])
        self.open()
        self.assertEqual((self.numbers(), self.numbers(OTHER)), ([1, 2, 4], [3]))
        self.assertEqual(self.drops(), [("a", "damaged", 2, 4), ("b", "damaged", 2, 4)])
        self.assertEqual(self.depths(), {"a": (2, 4), "b": (4, 8)})

    def test_missing(self) -> None:
        """A segment that somebody has deleted is counted, exactly if the ledger knew it."""
        path = self.fill(sealed=True)
        path.unlink()
        self.open()
        self.assertEqual(self.drops(), [("a", "damaged", 4, 8), ("b", "damaged", 6, 12)])
        losses = {each.backend: (each.first, each.last) for each in self.contents().drops}
        self.assertEqual(losses, {"a": (30.0, 60.0), "b": (10.0, 60.0)})
        self.assertTrue(any(f"{path.name} is missing" in each for each in self.logged))
        self.append(record(7))

    def test_missing_while_running(self) -> None:
        """A segment that is deleted under a relay is damaged when it is read."""
        self.append(record(1), record(2))
        self.seal()
        self.files()[0].unlink()
        self.assertEqual((self.numbers(), self.drops()), ([], [("a", "damaged", 2, 4), ("b", "damaged", 2, 4)]))
        self.append(record(3))
        self.assertEqual(self.numbers(), [3])

    def test_zeros(self) -> None:
        """Zeros at the end, as a file system may leave them after power loss, are cut off."""
        path = self.fill(sealed=False)
        with path.open("ab") as file:
            file.write(bytes(10_000))
        self.open()
        self.assertEqual((self.numbers(), self.drops()), ([1, 2, 4, 5], []))

    def test_left_over(self) -> None:
        """What an interrupted work has left is removed: half a file, and a file that another one contains."""
        path = self.fill(sealed=True)
        (self.directory / "x.tmp").write_bytes(b"half")
        shutil.copy(path, self.directory / name_of(1, 3))
        shutil.copy(path, self.directory / name_of(2))
        self.open()
        self.assertEqual((self.files(), list(self.directory.glob("*.tmp"))), ([path], []))
        self.assertEqual((self.numbers(), self.drops()), ([1, 2, 4, 5], []))

    def test_a_file_of_somebody_else(self) -> None:
        """A file with another name than a segment has is moved aside."""
        self.fill(sealed=True)
        (self.directory / "notes.log").write_text("mine")
        self.open()
        self.assertEqual([each.read_text() for each in self.directory.glob("notes.log.corrupt-*")], ["mine"])
        self.assertEqual(self.numbers(), [1, 2, 4, 5])

    def test_any_damage(self) -> None:
        """Whatever is done to a segment, it opens, takes a write, and counts it where something is missing."""
        path = self.fill(sealed=False)
        kept = {each.name: each.read_bytes() for each in self.directory.iterdir()}
        for seed in range(150):
            rng = random.Random(seed)
            for each in self.directory.iterdir():
                each.unlink()
            for name, whole in kept.items():
                (self.directory / name).write_bytes(whole)
            data = bytearray(kept[path.name])
            at = rng.randrange(len(data))
            way = rng.randrange(3)
            if way == 0:
                data[at] ^= 1 << rng.randrange(8)
            elif way == 1:
                data[at : at + 40] = rng.randbytes(len(data[at : at + 40]))
            else:
                del data[at:]
            path.write_bytes(data)
            self.open()
            there = {*self.numbers(), *self.numbers(OTHER)}
            lost = {name: writes for name, _, writes, _ in self.drops()}
            for name, expected in (("a", {3, 4, 5, 6}), ("b", {1, 2, 3, 4, 5, 6})):
                if not expected <= there:
                    self.assertGreaterEqual(lost.get(name, 0), 1, f"seed {seed}: {there}")
            number = self.journal.next_number()
            self.append(record(number))
            self.assertIn(number, self.numbers())
            self.kill()


class LedgerTests(FileCase):
    """The ledger."""

    def test_rubbish(self) -> None:
        """A ledger that makes no sense is moved aside; everything in the log is sent again, and it is counted."""
        self.fill(sealed=True)
        for suffix in ("-wal", "-shm"):
            (self.directory / f"{FILE}{suffix}").unlink(missing_ok=True)
        (self.directory / FILE).write_bytes(random.Random(1).randbytes(50_000))
        self.assertEqual(self.open(), {key: {PLACE: 0, OTHER: 0} for key in "ab"})
        self.assertEqual((self.numbers(), self.numbers(OTHER)), ([1, 2, 4, 5], [3, 6]))
        self.assertEqual(self.drops(), [("a", "damaged", 1, 0), ("b", "damaged", 1, 0)])
        (aside,) = self.directory.glob(f"{FILE}.corrupt-*")
        self.assertTrue(any(aside.name in each for each in self.logged), self.logged)
        self.assertEqual(aside.stat().st_mode & 0o777, 0o600)
        self.kill()
        self.open()
        self.assertEqual((self.numbers(), len(self.drops())), ([1, 2, 4, 5], 2))

    def test_keys_that_make_no_sense(self) -> None:
        """A ledger with rows that make no sense is moved aside as well."""
        self.fill(sealed=True)
        with sqlite3.connect(self.directory / FILE) as database:
            database.execute("UPDATE entries SET destination = x'ff' WHERE first = 1")
        database.close()
        self.open()
        self.assertEqual(self.numbers(), [1, 2, 4, 5])
        self.assertEqual(len(list(self.directory.glob(f"{FILE}.corrupt-*[0-9]"))), 1)

    def test_missing(self) -> None:
        """Without a ledger everything in the log is sent again."""
        self.fill(sealed=True)
        for path in self.directory.glob(f"{FILE}*"):
            path.unlink()
        self.assertEqual(self.open(), {key: {PLACE: 0, OTHER: 0} for key in "ab"})

    def test_not_repaired_for_a_look(self) -> None:
        """Who only looks at a journal whose ledger makes no sense is told so, and nothing is moved."""
        self.fill(sealed=True)
        (self.directory / FILE).write_bytes(b"rubbish" * 1000)
        error = self.assertRaises(JournalError, self.open, None)
        self.assertEqual(str(error), f"{self.directory}: file is not a database")
        self.assertEqual(list(self.directory.glob("*.corrupt-*")), [])

    def test_corrupt_while_running(self) -> None:
        """A ledger that turns out to be corrupt is replaced by what is known in memory, and the log goes on."""
        self.append(record(1), record(2, OTHER))
        self.seal()
        self.append(record(3))
        self.advance(1, keys="a")
        self.journal.count_loss("b", "full", 1.0, 5)
        self.lazily()
        self.break_ledger()
        self.append(record(4))
        self.advance(3, keys="a")
        for _ in range(3):
            self.lazily()
        self.assertEqual(self.journal.trouble, "")
        self.assertEqual((self.numbers(), self.numbers(OTHER)), ([1, 3, 4], [2]))
        self.assertEqual(self.drops(), [("a", "damaged", 1, 0), ("b", "full", 1, 5), ("b", "damaged", 1, 0)])
        self.kill()
        self.assertEqual(self.open(), {"a": {PLACE: 3, OTHER: 1}, "b": {PLACE: 0, OTHER: 1}})
        self.assertEqual(len(self.drops()), 3)

    def break_ledger(self) -> None:
        """Let SQLite find out that the ledger is corrupt."""
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        ledger = self.journal._store.ledger
        fails = [error]

        def touch() -> None:
            if fails:
                raise fails.pop()

        self.patch(ledger, "touch", touch)
        self.result(self.journal.probe().addErrback(lambda failure: failure.trap(JournalError)))

    def test_no_new_ledger(self) -> None:
        """Where a new ledger cannot be begun, that is tried until it can; what was moved aside stays as it is."""
        self.append(record(1))
        self.lazily()
        real = self.journal._store._open_ledger
        failures = [OSError(28, "No space left on device")] * 3

        def fail(*arguments: bool, **named: bool) -> object:
            if failures:
                raise failures.pop()
            return real(*arguments, **named)

        self.patch(self.journal._store, "_open_ledger", fail)
        self.break_ledger()
        self.append(record(2))
        for _ in range(6):
            self.lazily()
        self.assertEqual((self.journal.trouble, failures, self.numbers()), ("", [], [1, 2]))
        (aside,) = self.directory.glob(f"{FILE}.corrupt-*[0-9]")
        with sqlite3.connect(aside) as database:
            self.assertEqual(database.execute("SELECT COUNT(*) FROM backends").fetchone(), (2,))
        database.close()

    def test_backends(self) -> None:
        """The backends that are registered are in the ledger before anything else happens."""
        self.kill()
        self.open(BACKENDS)
        self.assertEqual([row[1] for row in self.rows("backends")], ["a", "b"])
