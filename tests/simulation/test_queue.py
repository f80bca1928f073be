"""The simulation of relays with queues runs, and it would notice."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed

from influxrelay.core.write import Reply
from influxrelay.delivery.backlog import MemoryBacklog
from influxrelay.delivery.destination_queue import DestinationQueue, Entry
from influxrelay.delivery.hand_out import HandOut
from influxrelay.delivery.journal_backlog import JournalBacklog
from influxrelay.journal import cleaning
from influxrelay.journal.housekeeping import Housekeeper
from influxrelay.journal.interface import Positions
from influxrelay.journal.tail import Tail
from influxrelay.journal.writer import JournalWriter
from testing.fanout import make_hand_out
from tests.simulation import queue_process
from tests.simulation.case import SimulationCase
from tests.simulation.disk import SimulatedWriter
from tests.simulation.queue import World

FIRST, SCHEDULES = 40, 340  # those before the first are in test_quick
FOUND_BEFORE = (67, 148, 191, 239, 965, 1000, 1398, 1440, 5291, 8682, 11015)  # schedules that once broke a promise
# As they are without a mistake.
passed, resume = JournalBacklog.passed, JournalBacklog.resume


class QueueSimulationTests(SimulationCase):
    """The contract under hundreds of schedules."""

    world = World

    def test_contract(self) -> None:
        """Sections 1 to 3 of the contract hold in every schedule, and the schedules hold what they are made for."""
        seen = dict.fromkeys(("crashed", "stopped", "unjournaled", "excused", "gone", "refused", "poisoned"), 0)
        for world in self.schedules(range(FIRST, SCHEDULES)):
            stories = world.stories.values()
            seen["crashed"] += world.crashes
            seen["stopped"] += world.stops
            seen["unjournaled"] += sum(story.unjournaled for story in stories)
            seen["excused"] += sum(bool(story.excused) for story in stories)
            seen["gone"] += sum(story.gone for story in stories)
            seen["refused"] += sum(story.refused for story in stories)
            seen["poisoned"] += sum(story.poisoned and story.taken for story in stories)
        self.assertGreater(min(seen.values()), 20, seen)

    def test_found_before(self) -> None:
        """The schedules that once lost, reordered or kept too much are well."""
        self.check_contract(FOUND_BEFORE)

    def test_deterministic(self) -> None:
        """A seed tells the same story each time, and different seeds tell different ones."""
        self.assertEqual([self.story(seed) for seed in range(10)], [self.story(seed) for seed in range(10)])
        self.assertNotEqual(self.story(1), self.story(2))


class CommandLineTests(SimulationCase):
    """``python -m tests.simulation.queue``."""

    world = World

    def test_one(self) -> None:
        """A seed is replayed with a trace."""
        code, text = self.run_main("1")
        self.assertEqual(code, 0)
        self.assertIn("process 1 starts", text)

    def test_many(self) -> None:
        """Many seeds are counted."""
        code, text = self.run_main("--count", "5", "--first", "1")
        self.assertEqual(code, 0)
        self.assertRegex(text, r"\A5 schedules in [0-9.]+ s, 0 broken\n\Z")

    def test_failing_seed(self) -> None:
        """A seed that fails is printed, and fails again in the same words when run alone."""
        self.patch(JournalBacklog, "passed", passed_too_high)
        code, text = self.run_main("--count", "100")
        self.assertEqual(code, 1)
        line = text.splitlines()[0]
        seed = line.split(":")[0].removeprefix("seed ")
        code, text = self.run_main(seed)
        self.assertEqual((code, text.splitlines()[-1]), (1, line))


def passed_too_high(self: JournalBacklog, queue: DestinationQueue) -> int:
    """Say that the backend is done with one more than it is."""
    return passed(self, queue) + 1


def strike_nothing(self: JournalWriter, seq: int) -> Deferred[None]:
    """Leave in the journal what no client was told was taken."""
    return succeed(None)


def put_back_at_the_tail(self: DestinationQueue, entries: list[Entry], *, alone: bool) -> None:
    """Return writes behind the newer ones."""
    for entry in entries:
        self.add(entry)
    self.alone += len(self.waiting) if alone else 0


def resume_at_the_end(self: JournalBacklog, positions: Positions, last_number: int, decided: int) -> None:
    """Forget the backlog."""
    resume(self, [(destination, last_number) for destination, _ in positions], last_number, decided)


def refuse_and_forget(self: Any, queue: DestinationQueue, entry: Entry, reply: Reply) -> None:
    """Lose what a backend has refused."""


def lose_without_a_word(self: Any, entry: Entry, reason: str) -> None:
    """Lose a write and do not count it."""


def trim_and_forget(self: JournalBacklog, queue: DestinationQueue) -> None:
    """Leave writes to the journal, and do not know that they are there."""
    while len(queue.waiting) > 1:
        self._host.clients.release(queue.pop_last())


def trim_too_much(self: JournalBacklog, queue: DestinationQueue) -> None:
    """Leave writes to the journal that the journal does not have."""
    while len(queue.waiting) > 1:
        entry = queue.pop_last()
        queue.is_behind = False
        self._leave(queue, entry, entry.fate.number - 1)


def send_at_once(*arguments: Any, journal_first: bool, **named: Any) -> HandOut:
    """Let the backends have a write while the journal is still at it."""
    return make_hand_out(*arguments, **named)


class MistakeTests(SimulationCase):
    """The simulation notices mistakes, each within a bounded number of schedules."""

    world = World

    def assert_noticed(self, *patterns: str, **more: Any) -> None:
        """Check that it is noticed.

        A journal in which something is left does not come to rest: it looks for what is too old again and again.
        """
        endless = ("it does not end",) if "has something left" in patterns else ()
        super().assert_noticed(*patterns, *endless, **more)

    def test_passed_too_high(self) -> None:
        """A cursor that moves past what the backend does not have is noticed."""
        self.check(JournalBacklog, "passed", passed_too_high, "is lost at")

    def test_strike_forgotten(self) -> None:
        """A write that stays in the journal although its client was told 4xx or 5xx is noticed."""
        self.check(SimulatedWriter, "strike", strike_nothing, "and is in the journal")

    def test_put_back_at_the_tail(self) -> None:
        """Writes that come back behind newer ones are noticed."""
        self.check(DestinationQueue, "put_back", put_back_at_the_tail, "overwrote")

    def test_resume_at_the_end(self) -> None:
        """A backlog that is forgotten at the start is noticed."""
        self.check(JournalBacklog, "resume", resume_at_the_end, "has something left")

    def test_refuse_and_forget(self) -> None:
        """Dead letters that are lost are noticed, in the journal and in memory."""
        for backlog in (JournalBacklog, MemoryBacklog):
            self.check(backlog, "refused", refuse_and_forget, "is lost at")

    def test_lose_without_a_word(self) -> None:
        """What is dropped and not counted is noticed."""
        self.check(MemoryBacklog, "lost", lose_without_a_word, "is lost at")

    def test_send_at_once(self) -> None:
        """A write that a backend has before the journal, where that may not be, is noticed."""
        self.check(queue_process, "make_hand_out", send_at_once, "before the journal")

    def test_delete_nothing(self) -> None:
        """A log that keeps what all backends have passed is noticed."""
        self.patch(cleaning, "clean", lambda *_, **__: ())
        self.check(Housekeeper, "is_passed", lambda *_: False, "it does not end")

    def test_read_too_early(self) -> None:
        """A page of the log that holds what is not written yet is noticed."""
        self.patch(Tail, "wait", lambda _: succeed(None))
        self.check(Tail, "settled", property(lambda self: self._appended), "is lost at")

    def test_trim_and_forget(self) -> None:
        """A backlog that is left to the journal and never read again is noticed."""
        self.check(JournalBacklog, "trim", trim_and_forget, "is lost at")

    def test_trim_too_much(self) -> None:
        """What is in memory alone, and is left to the journal, is noticed."""
        self.check(JournalBacklog, "trim", trim_too_much, "is lost at")
