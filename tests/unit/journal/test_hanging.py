"""A disk that does not answer for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.journal.appender import Appender
from influxrelay.journal.housekeeping import LAZY
from influxrelay.journal.records import JournalLimits
from influxrelay.journal.store import Store
from influxrelay.journal.worker import ThreadWorker
from influxrelay.journal.writer import JournalWriter
from testing.journal_cases import BACKENDS, OTHER, PLACE, JournalCase, TroubleCase, record
from testing.threads import ThreadClock

TIMEOUT = 5.0


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
        self.assertEqual(self.journal.why_unavailable, "")
        self.clock.advance(0.1)
        words = "the disk has not answered for 5 s"
        self.assertEqual([self.refused(each) for each in waiting], [f"{self.directory}: {words}"] * 2)
        self.assertEqual(
            (self.journal.trouble, self.journal.why_unavailable), (words, f"the journal does not work: {words}")
        )
        self.assertEqual(self.lines(LogLevel.critical), [f"the journal in {self.directory}: {words}"])
        later = self.journal.append(record(4))
        self.clock.advance(0)
        self.assertIn(words, self.refused(later))
        self.work_again()
        self.assertEqual(self.lines(LogLevel.info), [f"the journal in {self.directory} works again"])
        self.append(record(5))
        self.assertEqual((self.numbers(), self.journal.why_unavailable), ([1, 5], ""))
        self.close()
        JournalCase.open(self)
        self.assertEqual(JournalCase.numbers(self), [1, 5])

    def test_log_is_asked(self) -> None:
        """As long as it does not answer, all that needs it fails at once; what it was to strike is struck later."""
        self.append(record(1))
        self.hang(Appender, "write")
        late = self.journal.append(record(self.journal.next_number()))
        self.clock.advance(TIMEOUT)
        asked: list[Deferred[Any]] = [
            late,
            self.journal.append(record(self.journal.next_number())),
            self.journal.strike(1),
        ]
        asked += [self.journal.read(PLACE, 0, 10), self.journal.probe(), self.journal.discard("a")]
        for each in asked:
            self.assertIn("has not answered", self.refused(each))
        self.work_again()
        self.append(record(4))
        self.assertEqual(self.numbers(), [4])

    def test_full_while_stuck(self) -> None:
        """A journal that becomes full while the ledger does not answer refuses at once."""
        self.close()
        self.open(max_bytes=1024 * 1024)
        self.hang(Store, "count_letters")
        asked = self.journal.contents()
        self.clock.advance(TIMEOUT)
        self.refused(asked)
        for number in range(1, 115):
            self.journal.append(record(number, body=b"x" * 10_000)).addErrback(
                lambda failure: failure.trap(JournalError)
            )
            while not self.journal._tail.is_idle:
                self.clock.report()
        self.assertIn("is full", self.refused(self.journal.append(record(115))))
        self.gate.set()

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

    def test_strike_of_a_sealed_write(self) -> None:
        """A strike that the ledger does not answer is made good later, and until then nobody reads the write."""
        self.append(record(1), record(2))
        self.wait(Deferred.fromCoroutine(self.journal._house.seal_all()))
        self.hang(Store, "count_letters")
        asked = self.journal.contents()
        self.clock.advance(TIMEOUT)
        self.refused(asked)
        self.assertIn("has not answered", self.refused(self.journal.strike(1)))
        self.work_again()
        self.assertEqual(self.numbers(), [2])
        self.clock.advance(LAZY)
        while self.journal._house.unstruck:
            self.clock.report()
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
        self.assertEqual(
            (self.journal.trouble, self.journal.why_unavailable), ("the disk has not answered for 5 s", "")
        )
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
        self.wait(stopped)
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
