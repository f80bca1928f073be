"""A thread that waits for the disk, and the watch over it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.journal.worker import InlineWorker, ThreadWorker
from testing.journal_cases import PLACE, JournalCase, record
from testing.threads import ThreadClock

TIMEOUT = 5.0


class ThreadTests(SynchronousTestCase):
    """A worker with a thread."""

    def setUp(self) -> None:
        """Make one."""
        self.clock = ThreadClock()
        self.stuck: list[float] = []
        self.worker = ThreadWorker(self.clock, "test", TIMEOUT, lambda _: self.stuck.append(self.clock.seconds()))
        self.gates: list[threading.Event] = []
        self.addCleanup(self.end)

    def end(self) -> None:
        """Let all jobs end, and the thread."""
        for each in self.gates:
            each.set()
        self.worker.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def hang(self) -> threading.Event:
        """Give a job that hangs until the event is set."""
        gate = threading.Event()
        self.gates.append(gate)
        self.worker.do(gate.wait)
        return gate

    def test_order(self) -> None:
        """Jobs are done one by one, in another thread, and each tells what came of it."""
        names: list[str] = []
        jobs = [self.worker.do(lambda: names.append(threading.current_thread().name)) for _ in range(3)]
        failed = self.worker.do(lambda: 1 // 0)
        for _ in range(4):
            self.clock.report()
        self.assertEqual(([self.successResultOf(each) for each in jobs], names), ([None] * 3, ["test"] * 3))
        self.failureResultOf(failed, ZeroDivisionError)
        self.assertEqual((self.stuck, self.worker.is_stuck), ([], False))

    def test_stuck(self) -> None:
        """A job that takes too long is told of once; when it ends the others go on."""
        gate = self.hang()
        later = self.worker.do(lambda: "done")
        self.clock.advance(TIMEOUT - 0.1)
        self.assertFalse(self.worker.is_stuck)
        self.clock.advance(0.1)
        self.assertTrue(self.worker.is_stuck)
        self.clock.advance(100)
        self.assertEqual(self.stuck, [TIMEOUT])
        gate.set()
        self.clock.report()
        self.assertFalse(self.worker.is_stuck)
        self.clock.report()
        self.assertEqual(self.successResultOf(later), "done")

    def test_many_quick_jobs(self) -> None:
        """Many jobs together may take as long as they like, as long as none of them does."""
        for _ in range(5):
            gate = self.hang()
            self.worker.do(lambda: None)
            self.clock.advance(TIMEOUT - 1)
            gate.set()
            self.clock.report()
            self.clock.report()
        self.assertEqual(self.stuck, [])

    def test_stuck_again(self) -> None:
        """The next job that takes too long is told of as well, also one that waited behind the first."""
        first, second = self.hang(), self.hang()
        self.clock.advance(TIMEOUT)
        first.set()
        self.clock.report()
        self.clock.advance(TIMEOUT)
        self.assertEqual(self.stuck, [TIMEOUT, 2 * TIMEOUT])
        second.set()
        self.clock.report()

    def test_idle(self) -> None:
        """While there is nothing to do nothing is looked at."""
        self.worker.do(lambda: None)
        self.clock.report()
        self.clock.advance(TIMEOUT)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.hang()
        self.clock.advance(TIMEOUT)
        self.assertEqual(len(self.stuck), 1)

    def test_other_timeout(self) -> None:
        """Another timeout holds at once, also for the job under way."""
        self.hang()
        self.clock.advance(0.5)
        self.worker.set_timeout(1.0)
        self.clock.advance(0.5)
        self.assertEqual(self.stuck, [1.0])

    def test_refused_while_stuck(self) -> None:
        """While a job takes too long no other is taken; what was given before is done when it ends."""
        gate = self.hang()
        before = self.worker.do(lambda: "done")
        self.clock.advance(TIMEOUT)
        refused = self.failureResultOf(self.worker.do(lambda: "never"), TimeoutError)
        self.assertEqual(str(refused.value), "the disk has not answered for 5 s")
        gate.set()
        self.clock.report()
        self.clock.report()
        self.assertEqual(self.successResultOf(before), "done")

    def test_stop_while_stuck(self) -> None:
        """A thread that hangs is left alone at the end."""
        self.hang()
        self.clock.advance(TIMEOUT)
        self.worker.stop()

    def test_never_used(self) -> None:
        """A worker that got no job has no thread."""
        before = threading.active_count()
        ThreadWorker(self.clock, "unused", TIMEOUT, lambda _: None).stop()
        self.assertEqual(threading.active_count(), before)


class InlineTests(SynchronousTestCase):
    """A worker without a thread."""

    def test_at_once(self) -> None:
        """A job is done at once."""
        worker = InlineWorker()
        self.assertEqual(self.successResultOf(worker.do(lambda: 5)), 5)
        self.failureResultOf(worker.do(lambda: 1 // 0), ZeroDivisionError)
        worker.set_timeout(1.0)
        worker.stop()
        self.assertFalse(worker.is_stuck)


class TurnTests(JournalCase):
    """What is written in one turn of the reactor."""

    def test_one_batch(self) -> None:
        """All writes of a turn are one batch, and a reader waits for them."""
        turns: list[Callable[[], object]] = []
        self.patch(InlineWorker, "at_turns_end", lambda _, call: turns.append(call))
        done = [self.journal.append(record(self.journal.next_number())) for _ in range(3)]
        page = self.journal.read(PLACE, 0, 1000)
        self.assertNoResult(done[0])
        self.assertNoResult(page)
        (end,) = turns
        end()
        self.assertEqual([self.successResultOf(each) for each in done], [None] * 3)
        self.assertEqual([each.seq for each in self.successResultOf(page)[0]], [1, 2, 3])
        self.assertEqual(self.journal.commits.count, 1)
        later = self.journal.append(record(self.journal.next_number()))
        self.assertEqual(len(turns), 2)
        turns[1]()
        self.successResultOf(later)
