"""A disk that fails, or is full."""

from __future__ import annotations

import errno
import os
import sqlite3
from typing import Any

from twisted.logger import LogLevel

from influxrelay.core.errors import JournalError
from influxrelay.journal import appender
from influxrelay.journal.appender import Appender
from influxrelay.journal.store import Store
from testing.journal_cases import BACKENDS, PLACE, TroubleCase, record, write

FULL = OSError(errno.ENOSPC, "No space left on device")


class FailingTests(TroubleCase):
    """The disk fails for a while."""

    def let_fail(self, owner: Any, name: str, *problems: Exception) -> None:
        """Let something fail so many times."""
        method, left = getattr(owner, name), list(problems)

        def call(*arguments: Any, **named: Any) -> Any:
            if left:
                raise left.pop(0)
            return method(*arguments, **named)

        self.patch(owner, name, call)

    def test_append(self) -> None:
        """Who waits for the log is told what is wrong; that is logged once, and once more when it works again."""
        self.append(record(1))
        self.let_fail(Appender, "_append", FULL, FULL)
        for number in (2, 3):
            why = self.refused(self.journal.append(record(number)))
            self.assertEqual(why, f"{self.directory}: No space left on device")
        self.assertEqual(self.journal.trouble, "No space left on device")
        self.assertEqual(self.journal.why_unavailable, "the journal does not work: No space left on device")
        self.append(record(4))
        self.assertEqual((self.journal.trouble, self.journal.why_unavailable, self.numbers()), ("", "", [1, 4]))
        self.assertEqual(self.lines(LogLevel.critical), [f"the journal in {self.directory}: No space left on device"])
        self.assertEqual(self.lines(LogLevel.info), [f"the journal in {self.directory} works again"])
        self.kill()
        self.open()
        self.assertEqual((self.numbers(), self.drops()), ([1, 4], []))

    def test_recovers_by_itself(self) -> None:
        """While no writes come the journal finds out that the disk works again."""
        self.let_fail(Appender, "_append", FULL)
        self.let_fail(Appender, "probe", FULL, FULL)
        self.refused(self.journal.append(record(1)))
        for _ in range(4):
            self.lazily()
        self.assertEqual(self.journal.trouble, "")

    def test_probe(self) -> None:
        """A probe finds out whether the disk works, and leaves nothing behind."""
        before = set(self.directory.iterdir())
        self.let_fail(Appender, "probe", FULL)
        self.assertIn("No space", self.refused(self.journal.probe()))
        self.assertIn("No space", self.journal.why_unavailable)
        self.result(self.journal.probe())
        self.assertEqual((self.journal.trouble, set(self.directory.iterdir())), ("", before))

    def test_partial_write(self) -> None:
        """Of a batch that the disk takes a part of nothing stays, whether its segment is new or not."""
        write_parts = os.pwritev
        for number in (1, 3):

            def some(file: int, parts: Any, offset: int) -> int:
                write_parts(file, [b"".join(parts)[:30]], offset)
                raise FULL

            self.patch(os, "pwritev", some)
            self.refused(self.journal.append(record(number)))
            self.patch(os, "pwritev", write_parts)
            self.append(record(number + 1))
        self.kill()
        self.open()
        self.assertEqual((self.numbers(), self.drops()), ([2, 4], []))

    def test_short_write(self) -> None:
        """A write that the system does in pieces is complete, and one that ends in the middle fails."""

        def one_byte(file: int, parts: Any, offset: int) -> int:
            return os.pwrite(file, b"".join(parts)[:1], offset)

        self.patch(os, "pwritev", one_byte)
        self.append(record(1), record(2))
        self.assertEqual(self.numbers(), [1, 2])

    def test_many_parts(self) -> None:
        """A batch of more parts than the system takes at once is one batch."""
        self.journal._tail.hold("test")
        done = [self.journal.append(record(self.journal.next_number())) for _ in range(2000)]
        self.journal._tail.release("test")
        self.assertTrue(all(each.called for each in done))
        self.assertEqual((len(self.numbers()), self.journal.commits.count), (2000, 1))

    def test_strike(self) -> None:
        """A strike that the disk does not take is told of, and made good later."""
        self.append(record(1), record(2))
        self.let_fail(appender, "strike", FULL)
        self.assertIn("No space", self.refused(self.journal.strike(1)))
        self.lazily()
        self.kill()
        self.open()
        self.assertEqual(self.numbers(), [2])

    def test_save(self) -> None:
        """Cursors, dead letters and losses that the disk does not take are written down later, once."""
        self.append(record(1), record(2))
        self.advance(1)
        self.journal.bury("a", 1.0, write(), 400, "no")
        self.journal.count_loss("b", "full", 1.0, 5)
        self.let_fail(Store, "save", FULL, sqlite3_error(sqlite3.SQLITE_FULL), FULL)
        for _ in range(4):
            self.lazily()
        self.assertEqual((self.journal.trouble, self.journal.why_unavailable), ("", ""))
        self.kill()
        self.assertEqual(self.open(), {"a": {PLACE: 1}, "b": {PLACE: 1}})
        self.assertEqual((self.contents().dead_letters, self.drops()), ({"a": 1}, [("b", "full", 1, 5)]))

    def test_seal(self) -> None:
        """A segment that the ledger cannot be told of is read all the same, and told of later."""
        self.append(record(1), record(2))
        self.let_fail(Store, "seal", FULL)
        self.assertRaises(JournalError, self.seal)
        self.append(record(3))
        self.assertEqual(self.numbers(), [1, 2, 3])
        self.strike(2)
        self.seal()
        self.assertEqual((self.numbers(), len(self.rows("segments"))), ([1, 3], 2))

    def test_new_backend(self) -> None:
        """Until the ledger knows for which backends writes are none is taken; then they are."""
        self.let_fail(Store, "save", FULL)
        self.journal.register({**BACKENDS, "c": ("c", "http://c")})
        self.clock.advance(0)
        refused = self.journal.append(record(1))
        self.clock.advance(0)
        self.assertIn("No space", self.refused(refused))
        self.assertIn("No space", self.journal.why_unavailable)
        self.lazily()
        self.append(record(2))
        self.kill()
        self.assertEqual(self.open({"c": ("c", "http://c")}), {"c": {PLACE: 0}})

    def test_read(self) -> None:
        """A page that cannot be read fails, and can be read later."""
        self.append(record(1))
        self.let_fail(Store, "read", OSError(errno.EIO, "Input/output error"))
        self.assertIn("Input/output", self.refused(self.journal.read(PLACE, 0, 10)))
        self.assertEqual(self.numbers(), [1])

    def test_at_the_stop(self) -> None:
        """A disk that fails does not hold up the stop."""
        self.append(record(1))
        self.let_fail(Store, "save", FULL)
        self.close()
        self.open()
        self.assertEqual(self.numbers(), [1])

    def test_a_mistake(self) -> None:
        """A mistake of our own is logged, and told to who waits."""
        self.let_fail(Store, "letters", ZeroDivisionError())
        self.failureResultOf(self.journal.dead_letters(0, 1), ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.journal.trouble, "")


def sqlite3_error(code: int) -> sqlite3.OperationalError:
    """Return an error as SQLite raises it."""
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = code
    return error
