"""The simulation runs, and it would notice."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.write import Reply, Write
from influxrelay.delivery import fanout as relay_module
from influxrelay.delivery import sender as sender_module
from influxrelay.delivery.backlog import Fate
from influxrelay.delivery.destination_queue import DestinationQueue, Entry
from influxrelay.delivery.fanout import _Missing
from influxrelay.delivery.responses import Verdict, judge
from influxrelay.delivery.sender import Sender
from tests.simulation import settle as simulation

SCHEDULES = 3000
FIRST = 0
ENOUGH = 400  # schedules in which each mistake must be noticed
put_back, settled = DestinationQueue.put_back, _Missing.settled  # as they are without a mistake


class SimulationTests(SynchronousTestCase):
    """The contract under thousands of schedules."""

    def test_contract(self) -> None:
        """Sections 1, 2 and 3 of the contract hold in every schedule."""
        problems: list[str] = []
        simulation.run(FIRST, SCHEDULES, lambda seed, problem: problems.append(f"seed {seed}: {problem}"))
        self.assertEqual(problems, [], "run `python -m tests.simulation.settle SEED`")

    def test_deterministic(self) -> None:
        """A seed tells the same story each time, and different seeds tell different ones."""

        def story(seed: int) -> object:
            world = simulation.World(seed)
            world.run()
            return [(each.sequence, each.submitted, each.write.body, each.answers) for each in world.stories.values()]

        self.assertEqual([story(seed) for seed in range(10)], [story(seed) for seed in range(10)])
        self.assertNotEqual(story(1), story(2))

    def test_it_is_eventful(self) -> None:
        """The schedules hold what they are made for: refusals, trouble, merging, overflow, time-outs, stops."""
        reasons: set[str] = set()
        merged = overwritten = stopped = 0
        statuses: set[int] = set()
        for seed in range(200):
            world = simulation.World(seed)
            try:
                world.run()
            except simulation.Violation:
                continue
            stopped += world.closed
            for watched in world.senders:
                reasons |= set(watched.sender.failures)
                merged += watched.sender.requests < watched.sender.writes
            for story in world.stories.values():
                statuses |= {reply.status for reply in story.answers}
            overwritten += sum(len(world.stories) > len(backend.points) for backend in world.backends)
        wanted = {"400", "429", "500", "503", "overflow", "refused", "reset", "stopped", "timeout"}
        self.assertLessEqual(wanted, reasons)
        self.assertLessEqual({204, 400, 429, 500, 503}, statuses)
        self.assertGreater(min(merged, overwritten, stopped), 5)


class CommandLineTests(SynchronousTestCase):
    """``python -m tests.simulation.settle``."""

    def run_main(self, *arguments: str) -> tuple[int, str]:
        """Run the command in this process."""
        out = io.StringIO()
        self.patch(sys, "stdout", out)
        return simulation.main(list(arguments)), out.getvalue()

    def test_one(self) -> None:
        """A seed runs one schedule."""
        process = subprocess.run(
            [sys.executable, "-m", "tests.simulation.settle", "1"],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        self.assertEqual((process.returncode, process.stderr), (0, ""))
        self.assertRegex(process.stdout, r"\A1 schedule\(s\) in [0-9.]+ s, 0 broken\n\Z")

    def test_failing_seed(self) -> None:
        """A seed that fails is printed, and fails again in the same words when run alone."""
        self.patch(DestinationQueue, "take", take_from_the_wrong_end)
        code, text = self.run_main("0", "--count", "100")
        self.assertEqual(code, 1)
        line = text.splitlines()[0]
        seed = line.split(":")[0].removeprefix("seed ")
        self.assertEqual(self.run_main(seed)[1].splitlines()[0], line)


def take_from_the_wrong_end(self: DestinationQueue, max_bytes: int) -> list[Entry]:
    """Remove the newest write."""
    self.waiting.rotate()
    return [self._pop()]


def take_whatever_query(self: DestinationQueue, max_bytes: int) -> list[Entry]:
    """Remove all, whatever their queries."""
    return self.clear()


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


def expire_nothing(self: DestinationQueue, now: float) -> list[Entry]:
    """Let writes wait for ever."""
    return []


def expire_without_a_word(self: DestinationQueue, now: float) -> list[Entry]:
    """Lose writes that have waited for too long."""
    while self.waiting and self.waiting[0].deadline <= now:
        self._pop()
    return []


class RefusesAll(Sender):
    """Lets one bad write speak for all that travelled with it."""

    def _answered(self, reply: Reply, queue: DestinationQueue, entries: list[Entry]) -> None:
        if judge(reply) is not Verdict.REFUSED:
            super()._answered(reply, queue, entries)
            return
        self._landed(queue, entries)
        for entry in entries:
            self._tell(entry, reply)


class Overtakes(Sender):
    """Sends a write at once in trouble, past those that wait."""

    def submit(self, write: Write, fate: Fate | None = None) -> Deferred[Reply]:
        """Send it unless something is in flight."""
        queue = self._queues.get(write.destination)
        if queue is None or not queue.waiting or self._in_flight or self._closed:
            return super().submit(write, fate)
        self.writes += 1
        entry = Entry(write, self._reactor.seconds() + self.backend.timeout)
        answer = entry.answer = Deferred()
        self._send(queue, [entry])
        return answer


class ForgetsTrouble(Sender):
    """Sends a write to a new destination at once in trouble."""

    def submit(self, write: Write, fate: Fate | None = None) -> Deferred[Reply]:
        """Put the trouble aside."""
        trouble, self.trouble = self.trouble, None
        answered = super().submit(write, fate)
        self.trouble = self.trouble or trouble
        return answered


class SendsTwice(Sender):
    """Sends each request a second time when it was reset, although newer ones may be there."""

    def _unanswered(self, failure: Any, queue: DestinationQueue, entries: list[Entry]) -> None:
        if failure.value.reason == "reset":
            for entry in entries:
                queue.add(Entry(entry.write, entry.deadline))
        super()._unanswered(failure, queue, entries)


class MiscountsBytes(Sender):
    """Forgets to count the writes that come back."""

    def _answered(self, reply: Reply, queue: DestinationQueue, entries: list[Entry]) -> None:
        before = queue.alone
        super()._answered(reply, queue, entries)
        if queue.alone > before:
            self._tally.bytes -= 1


class KeepsQueues(Sender):
    """Never forgets a queue."""

    def _tidy(self, queue: DestinationQueue) -> None:
        pass


def settle_anyhow(self: _Missing, reply: Reply) -> Reply:
    """Answer with anything at all."""
    return settled(self, relay_module.UNABLE if reply.status == 204 else reply)


def miss_if_late(self: _Missing, sender: Sender, part: Write) -> None:
    """Forget who failed before another one took it."""
    if self._taken:
        sender.miss(part, self._when)


def miss_if_early(self: _Missing, sender: Sender, part: Write) -> None:
    """Forget who fails after another one took it."""
    self._senders.append((sender, part))


def miss_always(self: _Missing, sender: Sender, part: Write) -> None:
    """Miss what nobody has."""
    sender.miss(part, self._when)


def taken(reply: Reply) -> Verdict:
    """Take a redirect for a success."""
    return Verdict.TAKEN if reply.status == 301 else judge(reply)


class MistakeTests(SynchronousTestCase):
    """The simulation notices mistakes, each within a bounded number of schedules."""

    def assert_noticed(self, pattern: str, seeds: Iterable[int] = range(ENOUGH)) -> None:
        """Check that a schedule breaks for the reason that is expected."""
        seen: list[str] = []
        for seed in seeds:
            simulation.run(seed, 1, lambda _, problem: seen.append(str(problem)))
            if seen and pattern in seen[-1]:
                return
        self.fail(f"{pattern!r} was not noticed, but {sorted(set(seen))[:5]}")

    def check(self, owner: Any, name: str, mistake: Callable[..., Any], *patterns: str) -> None:
        """Make a mistake and check that it is noticed, in each of these words."""
        self.patch(owner, name, mistake)
        for pattern in patterns:
            self.assert_noticed(pattern)
        self.flushLoggedErrors(simulation.Violation)  # the sender has logged what the simulation raised in it

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

    def test_expire_nothing(self) -> None:
        """Writes that never expire are noticed."""
        self.check(DestinationQueue, "expire", expire_nothing, "it does not end")

    def test_expire_without_a_word(self) -> None:
        """Clients without an answer are noticed."""
        self.check(DestinationQueue, "expire", expire_without_a_word, "got 0 answers")

    def test_refuses_all(self) -> None:
        """An answer 4xx to a client whose write was not refused is noticed."""
        self.check(simulation, "Sender", RefusesAll, "which no backend said of it alone")

    def test_overtakes(self) -> None:
        """A write that overtakes in trouble is noticed."""
        self.check(simulation, "Sender", Overtakes, "arrived in the order")

    def test_forgets_trouble(self) -> None:
        """A request that goes before the Retry-After is noticed."""
        self.check(simulation, "Sender", ForgetsTrouble, "before its Retry-After")

    def test_sends_twice(self) -> None:
        """An old write that is sent again after a newer one is noticed."""
        self.check(simulation, "Sender", SendsTwice, "in the order")

    def test_miscounts_bytes(self) -> None:
        """Memory that is not given back is noticed."""
        self.check(simulation, "Sender", MiscountsBytes, "has something left")

    def test_keeps_queues(self) -> None:
        """DestinationQueues that are not given back are noticed."""
        self.check(simulation, "Sender", KeepsQueues, "has something left")

    def test_settle_anyhow(self) -> None:
        """A client that gets another answer than the contract's is noticed."""
        self.check(_Missing, "settled", settle_anyhow, "not one of")

    def test_takes_a_redirect_for_a_success(self) -> None:
        """A write that was acknowledged and not stored is noticed."""
        self.check(sender_module, "judge", taken, "never said")

    def test_backend_that_lies(self) -> None:
        """A write that is answered 204 and stored nowhere is noticed."""
        self.check(simulation.ModelBackend, "_apply", lambda *_: simulation.OK, "and no backend has it")

    def test_misses_nothing(self) -> None:
        """What a backend misses and nobody knows of is noticed, in either order; so is what it does not miss."""
        self.check(_Missing, "_note", miss_if_late, "and it is not known")
        self.check(_Missing, "_note", miss_if_early, "and it is not known")
        self.check(_Missing, "_note", miss_always, "which was not taken")

    def test_without_a_mistake(self) -> None:
        """Without a mistake nothing of this is noticed."""
        seen: list[str] = []
        simulation.run(FIRST, 100, lambda seed, problem: seen.append(f"seed {seed}: {problem}"))
        self.assertEqual(seen, [])
