"""The two simulations, with load balancers that ask all the time whether a backend is in sync, and pings that lie.

``python -m tests.simulation.health --count N`` runs N schedules of each. A backend that is said to be in sync has every
write that was acknowledged before the question, unless it has refused it for good.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Reply
from influxrelay.delivery.back_off import FORGIVENESS
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.standing import Outlook, outlook
from influxrelay.operations.health import PATIENCE, Health, LocalExaminer
from tests.simulation import queue, settle
from tests.simulation.model_backend import Story
from tests.simulation.queue_process import WatchedSender
from tests.simulation.queue_server import QueueStory
from tests.simulation.schedule import Violation

QUESTIONS = 30  # of each schedule, or of each process in it
LONGEST_RETRY_AFTER = 30.0  # seconds, of the model backends
SPAN = 8.0  # seconds in which they are asked
PINGS = (
    None,
    None,
    BackendFailure("refused", "the ping failed"),
    BackendFailure("503", "the ping was answered 503", Reply(503)),
)


class FakeListener:
    """Some senders."""

    name = "simulation"
    is_ready = True
    is_shard = False
    writer: Any = None

    def __init__(
        self, senders: Iterable[Sender], handed_out: Callable[[], Deferred[Any]] = lambda: succeed(None)
    ) -> None:
        self.senders = list(senders)
        self.hand_over = handed_out

    def why_unavailable(self) -> str:
        """Be asked about something else."""
        return ""

    def outlook(self) -> Outlook:
        """Tell what would become of a read."""
        return outlook(self.senders, serves_old=True)


class Questions:
    """Asks, and checks the answers.

    :ivar asked: and ``passed``, ``failed``: how many questions there were, and how many were answered in these ways.
    """

    def __init__(self, seed: int, world: Any, acknowledged: Callable[[Sender], list[Story]]) -> None:
        self.rng = random.Random(f"questions {seed}")
        self.asked = self.passed = self.failed = 0
        self._world = world
        self._acknowledged = acknowledged

    def plan(self, senders: list[Sender], reactor: Any, has: Callable[[Sender, Story], bool]) -> None:
        """Ask about these senders, and ping them, for a while."""
        rng = self.rng
        for _ in range(QUESTIONS):
            reactor.callLater(rng.random() * SPAN, self.ask, rng.choice(senders), reactor, has)
        for _ in range(rng.choice((0, 0, 5, 20))):
            reactor.callLater(rng.random() * SPAN, self._ping, rng.choice(senders))

    def _ping(self, sender: Sender) -> None:
        sender.pinged(self.rng.choice(PINGS))

    def ask(self, sender: Sender, reactor: Any, has: Callable[[Sender, Story], bool]) -> list[Health]:
        """Ask, and return where the answer will be."""
        self.asked += 1
        before = self._acknowledged(sender)
        examiner = LocalExaminer(lambda: [FakeListener([sender], self._world.handed_out)], reactor)
        told: list[Health] = []

        def answered(health: Health | None) -> None:
            assert health is not None
            told.append(health)
            waited = self._world.clock.seconds() - asked
            if waited > PATIENCE + 0.1:
                self._world.broken(f"the question about {sender.name} waited {waited:g} s")
            if not health.passed:
                self.failed += 1
                return
            self.passed += 1
            still = set(self._acknowledged(sender))  # a reload may have changed what the backend is to get
            for story in before:
                if story in still and not story.poisoned and not has(sender, story):
                    self._world.broken(f"{sender.name} is said to be in sync, and does not have write {story.sequence}")

        def odd(failure: Failure) -> None:
            self._world.broken(failure.getTraceback())

        asked = self._world.clock.seconds()
        Deferred.fromCoroutine(examiner.backend(sender.name)).addCallback(answered).addErrback(odd)
        return told

    def ask_at_the_end(self, sender: Sender, clock: Any, has: Callable[[Sender, Story], bool]) -> None:
        """Check that a backend that is well is said to be in sync, or to miss something for ever."""
        clock.advance(LONGEST_RETRY_AFTER + FORGIVENESS)
        sender.pinged(None)
        (health,) = self.ask(sender, clock, has)
        losses = sender.backlog.losses()
        if health.passed == any(each.reason != "operator" for each in losses):
            self._world.broken(f"at the end {sender.name} is said to be: {health.message}; lost: {losses}")


class World(settle.World):
    """A schedule of senders without queues."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.questions = Questions(seed, self, self._taken)

    def run(self) -> None:
        """Ask, too."""
        self.questions.plan(list(self.senders), self.clock, self._has)
        super().run()

    def handed_out(self) -> Deferred[None]:
        """Tell that the senders have everything, at once."""
        return succeed(None)

    def _taken(self, _: Sender) -> list[Story]:
        return [each for each in self.stories.values() if each.answers and each.answers[0].status < 300]

    def _has(self, sender: Sender, story: Story) -> bool:
        assert isinstance(sender, settle.WatchedSender)
        return self._has_taken(self.backends[sender.number], story)

    def _check(self) -> None:
        super()._check()
        for each in self.senders:
            if not self.closed:
                self.questions.ask_at_the_end(each, self.clock, self._has)
        self.raise_problem()


class QueueWorld(queue.World):
    """A schedule of senders with queues."""

    def __init__(self, seed: int, trace: Callable[[str], object] | None = None) -> None:
        super().__init__(seed, trace)
        self.questions = Questions(seed, self, self._taken)

    def start(self) -> None:
        """Ask each process."""
        super().start()
        assert self.process is not None
        self.questions.plan(list(self.process.senders), self.process.reactor, self._has)

    def handed_out(self) -> Deferred[None]:
        """Tell when the senders have everything."""
        assert self.process is not None
        return self.process.listener.relay.handed_out()

    def _taken(self, sender: Sender) -> list[Story]:
        """Without a journal a process knows nothing of what the one before it has lost."""
        assert isinstance(sender, WatchedSender)
        must = self._must(self.servers[sender.number])
        return [each for each in must if self.on_disk or each.generation == self.generation]

    def _has(self, sender: Sender, story: Story) -> bool:
        assert isinstance(sender, WatchedSender)
        assert isinstance(story, QueueStory)
        return self.servers[sender.number].has(story)

    def _check(self) -> None:
        super()._check()
        assert self.process is not None
        for sender in self.process.senders:
            self.questions.ask_at_the_end(sender, self.clock, self._has)
        self.raise_problem()


def run(world: Any, seeds: Iterable[int], report: Callable[[int, Violation], object]) -> tuple[int, int]:
    """Run schedules, report those that break the promise, and return how many questions were passed, and not."""
    passed = failed = 0
    for seed in seeds:
        schedule = world(seed)
        try:
            schedule.run()
        except Violation as problem:
            report(seed, problem)
        passed += schedule.questions.passed
        failed += schedule.questions.failed
    return passed, failed


def main(arguments: list[str]) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.health")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    options = parser.parse_args(arguments)
    problems = []
    for world in (World, QueueWorld):
        started = time.monotonic()
        seeds = range(options.first, options.first + options.count)
        passed, failed = run(world, seeds, lambda seed, problem: problems.append(f"seed {seed}: {problem}"))
        seconds = time.monotonic() - started
        sys.stdout.write(f"{world.__base__.__module__}: {passed} times in sync, {failed} times not, {seconds:.1f} s\n")
    sys.stdout.write("".join(f"{each}\n" for each in problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
