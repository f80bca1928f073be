"""A disk that fails, is full, or does not answer."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import LogLevel, formatEvent
from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.journal import appender
from influxrelay.journal.appender import Appender
from influxrelay.journal.records import JournalLimits
from influxrelay.journal.store import Store
from influxrelay.journal.worker import ThreadWorker
from influxrelay.journal.writer import JournalWriter
from testing.journal_cases import BACKENDS, OTHER, PLACE, JournalCase, record, write
from testing.logs import observe_log
from testing.threads import ThreadClock

FULL = OSError(errno.ENOSPC, "No space left on device")
TIMEOUT = 5.0


class TroubleCase(JournalCase):
    """A journal that tells of its trouble in the log."""

    def setUp(self) -> None:
        """Hear what is logged."""
        self.logged: list[tuple[LogLevel, str]] = []

        def observe(event: Any) -> None:
            if event.get("log_namespace") == "influxrelay.journal.writer.JournalWriter":
                self.logged.append((event["log_level"], formatEvent(event)))

        observe_log(self, observe)
        super().setUp()

    def lines(self, level: LogLevel) -> list[str]:
        """Return what was logged with a level."""
        return [text for each, text in self.logged if each is level]

    def refused(self, deferred: Deferred[Any]) -> str:
        """Return why something has failed."""
        return str(self.failureResultOf(deferred, JournalError).value)


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
        self.assertEqual(self.journal.obstacle, "the journal does not work: No space left on device")
        self.append(record(4))
        self.assertEqual((self.journal.trouble, self.journal.obstacle, self.numbers()), ("", "", [1, 4]))
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
        self.assertIn("No space", self.journal.obstacle)
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
        self.assertEqual((self.journal.trouble, self.journal.obstacle), ("", ""))
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
        self.assertIn("No space", self.journal.obstacle)
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


class HangingTests(TroubleCase):
    """The disk does not answer for a while; the threads are real."""

    def open(self, backends: Any = BACKENDS, **limits: Any) -> dict[Any, Any]:
        """Open the journal with threads."""
        self.clock: Any = ThreadClock()
        self.gate = threading.Event()
        self.gate.set()
        self.addCleanup(self.gate.set)
        self.journal = JournalWriter(
            self.clock, self.directory, JournalLimits(**limits), timeout=TIMEOUT, make_worker=ThreadWorker
        )
        self.journal.open(backends)
        self.is_open = True
        self.journal.start()
        return {}

    def close(self) -> None:
        """Stop it in order."""
        if self.is_open:
            self.is_open = False
            self.gate.set()
            self.wait(self.journal.stop())

    def wait(self, deferred: Deferred[Any]) -> Any:
        """Return what a Deferred fires with."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        while not results:
            self.clock.report()
        return self.result(succeed(results[0]) if not isinstance(results[0], Failure) else fail(results[0]))

    def append(self, *records: Any) -> None:
        """Append and wait."""
        for each in records:
            while self.journal.last_number < each.seq:
                self.journal.next_number()
            self.wait(self.journal.append(each))

    def hang(self, owner: Any, name: str) -> None:
        """Let something wait for the gate from now on."""
        method: Callable[..., Any] = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self.gate.wait()
            return method(*arguments, **named)

        self.patch(owner, name, call)
        self.gate.clear()

    def work_again(self) -> None:
        """Let the disk answer, and wait until the journal works."""
        self.gate.set()
        while self.journal.trouble:
            self.clock.report()

    def numbers(self, where: Any = PLACE, after: int = 0, max_bytes: int = 1 << 30) -> list[int]:
        """Return what is in the log."""
        return [each.seq for each in self.wait(self.journal.read(where, after, max_bytes))[0]]

    def test_log(self) -> None:
        """Writes fail after the timeout, later ones at once; the journal is used again as soon as the disk answers."""
        self.append(record(1))
        self.hang(Appender, "write")
        waiting = [self.journal.append(record(number)) for number in (2, 3)]
        self.clock.advance(TIMEOUT - 0.1)
        for each in waiting:
            self.assertNoResult(each)
        self.assertEqual(self.journal.obstacle, "")
        self.clock.advance(0.1)
        words = "the disk has not answered for 5 s"
        self.assertEqual([self.refused(each) for each in waiting], [f"{self.directory}: {words}"] * 2)
        self.assertEqual((self.journal.trouble, self.journal.obstacle), (words, f"the journal does not work: {words}"))
        self.assertEqual(self.lines(LogLevel.critical), [f"the journal in {self.directory}: {words}"])
        later = self.journal.append(record(4))
        self.clock.advance(0)
        self.assertIn(words, self.refused(later))
        self.work_again()
        self.assertEqual(self.lines(LogLevel.info), [f"the journal in {self.directory} works again"])
        self.append(record(5))
        self.assertEqual((self.numbers(), self.journal.obstacle), ([1, 5], ""))
        self.close()
        JournalCase.open(self)
        self.assertEqual(JournalCase.numbers(self), [1, 5])

    def test_what_was_late_is_not_kept(self) -> None:
        """A write that was refused because the disk did not answer is not in the log after a crash either."""
        self.hang(Appender, "write")
        refused = self.journal.append(record(1))
        self.clock.advance(TIMEOUT)
        self.refused(refused)
        self.work_again()
        self.is_open = False
        for worker in self.journal._workers:
            worker.stop()
        self.journal._store.close()
        JournalCase.open(self)
        self.assertEqual((JournalCase.numbers(self), self.files()), ([], []))

    def test_strike(self) -> None:
        """A strike that the disk does not answer fails, and is made good later."""
        self.append(record(1), record(2))
        self.hang(Appender, "write")
        struck = self.journal.strike(1)
        self.clock.advance(TIMEOUT)
        self.assertIn("has not answered", self.refused(struck))
        self.work_again()
        self.close()
        JournalCase.open(self)
        self.assertEqual(JournalCase.numbers(self), [2])

    def test_ledger(self) -> None:
        """Questions fail after the timeout, later ones at once; writes go on; then everything is as it should be."""
        self.append(record(1), record(2, OTHER))
        self.hang(Store, "count_letters")
        asked: list[Deferred[Any]] = [self.journal.contents(), self.journal.read(PLACE, 0, 10)]
        asked += [
            self.journal.dead_letters(0, 5),
            self.journal.discard("a"),
            self.journal.drop_dead_letters([1]),
            self.journal.probe(),
        ]
        self.append(record(3))
        self.clock.advance(TIMEOUT)
        asked += [self.journal.contents(), self.journal.forget_losses("a")]
        for each in asked:
            self.assertIn("has not answered", self.refused(each))
        self.assertEqual((self.journal.trouble, self.journal.obstacle), ("the disk has not answered for 5 s", ""))
        self.append(record(4))
        self.work_again()
        contents = self.wait(self.journal.contents())
        self.assertEqual(contents.depths["b"].writes, 4)
        self.assertEqual(self.numbers(), [1, 3, 4])

    def test_full_and_stuck(self) -> None:
        """Nobody waits for room that a disk which does not answer does not make."""
        self.close()
        self.open(max_bytes=1024 * 1024)
        self.hang(Store, "seal")
        waiting = []
        for number in range(1, 120):
            waiting.append(self.journal.append(record(number, body=b"x" * 10_000)))
            while not self.journal._tail.is_idle and not self.journal._tail._held:
                self.clock.report()
        self.assertFalse(waiting[-1].called)
        self.clock.advance(TIMEOUT)
        self.assertIn("is full", self.refused(waiting[-1]))
        taken = sum(each.called and each.result is None for each in waiting)
        self.assertGreater(taken, 100)
        for each in waiting:
            each.addErrback(lambda failure: failure.trap(JournalError))

    def test_stop(self) -> None:
        """A stop does not wait for a disk that does not answer, longer than the timeout; clients are told."""
        self.hang(Appender, "write")
        appended, stopped = self.journal.append(record(1)), self.journal.stop()
        self.is_open = False
        self.clock.advance(TIMEOUT)
        self.successResultOf(stopped)
        self.assertIn("has not answered", self.refused(appended))

    def test_stop_of_the_ledger(self) -> None:
        """The same where it is the ledger that the disk does not let be written."""
        self.append(record(1))
        self.hang(Store, "save")
        self.journal.advance("a", PLACE, 1)
        stopped = self.journal.stop()
        self.is_open = False
        self.clock.advance(TIMEOUT)
        self.successResultOf(stopped)
