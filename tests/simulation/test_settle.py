"""The simulation runs, and it would notice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from influxrelay.core.write import Reply
from influxrelay.delivery.answer_rules import Answer
from influxrelay.delivery.back_off import BackOff
from influxrelay.delivery.backlog import Backlog
from influxrelay.delivery.clients import Clients
from influxrelay.delivery.destination_queue import DestinationQueue, Entry
from influxrelay.delivery.dispatcher import Dispatcher
from influxrelay.delivery.fate import State
from influxrelay.delivery.queues import Queues
from influxrelay.delivery.requests import Requests
from influxrelay.delivery.responses import Verdict
from influxrelay.delivery.settle import FirstAnswer
from tests.simulation.case import SimulationCase
from tests.simulation.model_backend import OK, ModelBackend
from tests.simulation.settle import WatchedBacklog, World

FIRST, SCHEDULES = 300, 1500  # those before the first are in test_quick
# As they are without a mistake.
put_back, take = DestinationQueue.put_back, DestinationQueue.take
answered, failed = Dispatcher.answered, Dispatcher.failed
requests_answered = Requests._answered
expired = Clients.expired
lost = Backlog.lost


class SimulationTests(SimulationCase):
    """The contract under thousands of schedules."""

    world = World

    def test_contract(self) -> None:
        """The contract holds in every schedule; they hold refusals, trouble, merging, overflow, time-outs and stops."""
        reasons: set[str] = set()
        merged = overwritten = stopped = 0
        statuses: set[int] = set()
        for world in self.schedules(range(FIRST, SCHEDULES)):
            stopped += world.closed
            for sender in world.senders:
                reasons |= set(sender.clients.failures)
                merged += sender.requests.count < sender.writes
            for story in world.stories.values():
                statuses |= {reply.status for reply in story.answers}
            overwritten += sum(len(world.stories) > len(backend.points) for backend in world.backends)
        wanted = {"400", "429", "500", "503", "overflow", "refused", "reset", "stopped", "timeout"}
        self.assertLessEqual(wanted, reasons)
        self.assertLessEqual({204, 400, 429, 500, 503}, statuses)
        self.assertGreater(min(merged, overwritten, stopped), 50)

    def test_deterministic(self) -> None:
        """A seed tells the same story each time, and different seeds tell different ones."""
        self.assertEqual([self.story(seed) for seed in range(10)], [self.story(seed) for seed in range(10)])
        self.assertNotEqual(self.story(1), self.story(2))


class CommandLineTests(SimulationCase):
    """``python -m tests.simulation.settle``."""

    world = World

    def test_one(self) -> None:
        """A seed runs one schedule."""
        process = subprocess.run(
            [sys.executable, "-m", "tests.simulation.settle", "--first", "1"],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        self.assertEqual((process.returncode, process.stderr), (0, ""))
        self.assertRegex(process.stdout, r"\A1 schedule in [0-9.]+ s, 0 broken\n\Z")

    def test_failing_seed(self) -> None:
        """A seed that fails is printed, and fails again in the same words when run alone."""
        self.patch(DestinationQueue, "take", take_from_the_wrong_end)
        code, text = self.run_main("--count", "100")
        self.assertEqual(code, 1)
        line = text.splitlines()[0]
        seed = line.split(":")[0].removeprefix("seed ")
        self.assertEqual(self.run_main(seed)[1].splitlines()[-1], line)


def take_from_the_wrong_end(self: DestinationQueue, max_bytes: int) -> tuple[list[Entry], list[Entry]]:
    """Remove the newest write."""
    self.waiting.rotate()
    return take(self, 0)


def take_whatever_query(self: DestinationQueue, max_bytes: int) -> tuple[list[Entry], list[Entry]]:
    """Remove all, whatever their queries."""
    taken = self.clear()
    for entry in taken:
        self.send(entry)
    self.in_flight[-len(taken) :] = [taken]
    return taken, []


def put_back_at_the_tail(self: DestinationQueue, entries: list[Entry], *, alone: bool) -> None:
    """Return writes behind the newer ones."""
    for entry in entries:
        self.add(entry)
    self.alone += len(self.waiting)


def put_back_reversed(self: DestinationQueue, entries: list[Entry], *, alone: bool) -> None:
    """Return writes to the head, the last first."""
    put_back(self, entries[::-1], alone=alone)


def put_back_to_be_merged(self: DestinationQueue, entries: list[Entry], *, alone: bool) -> None:
    """Return writes without a note that they go alone."""
    put_back(self, entries, alone=False)


def miscount_what_comes_back(self: DestinationQueue, entries: list[Entry], *, alone: bool) -> None:
    """Forget to count a byte of the writes that come back."""
    put_back(self, entries, alone=alone)
    self._memory.size -= bool(entries)


def expire_nothing(self: Clients, now: float) -> list[Entry]:
    """Let clients wait for ever."""
    return []


def expire_without_a_word(self: Clients, now: float) -> list[Entry]:
    """Lose writes that have waited for too long."""
    for entry in expired(self, now):
        entry.waits = False
    return []


def refuse_all(self: Dispatcher, answer: Answer, queue: DestinationQueue, entries: list[Entry]) -> None:
    """Let one bad write speak for all that travelled with it."""
    if answer.verdict is Verdict.REFUSED:
        self.send_waiting(queue)
        self.clients.refuse(entries, answer.reply)
    else:
        answered(self, answer, queue, entries)


def send_twice(
    self: Dispatcher, problem: Any, pause: float, queue: DestinationQueue, entries: list[Entry], **more: bool
) -> None:
    """Send each request a second time when it was reset, although newer ones may be there."""
    if problem.reason == "reset":
        for entry in entries:
            again = Entry(entry.write, entry.fate)
            again.waits = False
            queue.add(again)
    failed(self, problem, pause, queue, entries, **more)


def probe_with_the_newest(self: Dispatcher) -> None:
    """Send the newest write in trouble, past those that wait."""
    queues = self.queues.sendable(self.order.may_send)
    if queues:
        queue = min(queues, key=DestinationQueue.first_waiting)
        queue.waiting.rotate()
        self._send(queue, 0)


def settle_anyhow(self: FirstAnswer, backend: str, reply: Reply) -> Reply:
    """Answer with anything at all."""
    return Reply(503) if reply.status == 204 else reply


def miss_if_late(self: Backlog, entry: Entry, reason: str) -> None:
    """Forget what fails before another backend has taken it."""
    if entry.fate.state is not State.UNDECIDED:
        lost(self, entry, reason)


def miss_if_early(self: Backlog, entry: Entry, reason: str) -> None:
    """Forget what fails after another backend has taken it."""
    if entry.fate.state is State.UNDECIDED:
        lost(self, entry, reason)


def miss_always(self: Backlog, entry: Entry, reason: str) -> None:
    """Miss what nobody has."""
    self._losses.count(reason, 0.0, 1)


def take_redirect(self: Requests, reply: Reply, *more: Any) -> None:
    """Take a redirect for a success."""
    requests_answered(self, Reply(204) if reply.status == 301 else reply, *more)


class MistakeTests(SimulationCase):
    """The simulation notices mistakes, each within a bounded number of schedules."""

    world = World
    enough = 400

    def check(self, owner: Any, name: str, mistake: Any, *patterns: str) -> None:
        """Make a mistake and check that it is noticed, in each of these words."""
        self.patch(owner, name, mistake)
        for pattern in patterns:
            self.assert_noticed(pattern)

    def test_take_from_the_wrong_end(self) -> None:
        """The newest write first is noticed, by order of arrival and by what is overwritten."""
        self.check(DestinationQueue, "take", take_from_the_wrong_end, "arrived in the order")

    def test_take_whatever_query(self) -> None:
        """Merging writes of different queries is noticed."""
        self.check(DestinationQueue, "take", take_whatever_query, "at another place", "not mergeable", "bytes merged")

    def test_put_back_at_the_tail(self) -> None:
        """Writes that come back behind newer ones are noticed, by what they overwrite."""
        self.check(DestinationQueue, "put_back", put_back_at_the_tail, "overwrote")

    def test_put_back_reversed(self) -> None:
        """Writes that come back in the wrong order are noticed, by what they overwrite."""
        self.check(DestinationQueue, "put_back", put_back_reversed, "overwrote")

    def test_put_back_to_be_merged(self) -> None:
        """Writes that are refused together for ever are noticed."""
        self.check(DestinationQueue, "put_back", put_back_to_be_merged, "merged again")

    def test_miscount_what_comes_back(self) -> None:
        """Memory that is not given back is noticed."""
        self.check(DestinationQueue, "put_back", miscount_what_comes_back, "has something left")

    def test_expire_nothing(self) -> None:
        """Clients that wait for ever are noticed."""
        self.check(Clients, "expired", expire_nothing, "it does not end")

    def test_expire_without_a_word(self) -> None:
        """Clients without an answer are noticed."""
        self.check(Clients, "expired", expire_without_a_word, "got 0 answers")

    def test_refuse_all(self) -> None:
        """An answer 4xx to a client whose write was not refused is noticed."""
        self.check(Dispatcher, "answered", refuse_all, "which no backend said of it alone")

    def test_overtakes(self) -> None:
        """A write that overtakes in trouble is noticed."""
        self.check(Dispatcher, "_send_probe", probe_with_the_newest, "arrived in the order")

    def test_forgets_retry_after(self) -> None:
        """A request that goes before the Retry-After is noticed."""
        self.check(BackOff, "probe_time", lambda self, clients_wait: 0.0, "before its Retry-After")

    def test_send_twice(self) -> None:
        """An old write that is sent again after a newer one is noticed."""
        self.check(Dispatcher, "failed", send_twice, "in the order")

    def test_keeps_queues(self) -> None:
        """Queues that are not given back are noticed."""
        self.check(Queues, "forget", lambda self, queue: None, "has something left")

    def test_settle_anyhow(self) -> None:
        """A client that gets another answer than the contract's is noticed."""
        self.check(FirstAnswer, "answered", settle_anyhow, "not one of")

    def test_takes_a_redirect_for_a_success(self) -> None:
        """A write that was acknowledged and not stored is noticed."""
        self.check(Requests, "_answered", take_redirect, "never said")

    def test_backend_that_lies(self) -> None:
        """A write that is answered 204 and stored nowhere is noticed."""
        self.check(ModelBackend, "_apply", lambda *_: OK, "and no backend has it")

    def test_misses_nothing(self) -> None:
        """What a backend misses and nobody knows of is noticed, in either order; so is what it does not miss."""
        self.check(Backlog, "lost", miss_if_late, "are counted")
        self.check(Backlog, "lost", miss_if_early, "are counted")
        self.check(Backlog, "lost", miss_always, "are counted")
        self.check(WatchedBacklog, "lost", lambda *_: None, "and it is not known")
