"""A seeded simulation of relays in front of backends that fail, and the contract checked after each schedule.

``python -m tests.simulation.settle SEED`` runs one schedule with a trace, ``--count N`` runs N without one. The real
FanOut and senders run against the model backends of :mod:`tests.simulation.model_backend`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure
from influxrelay.core.replies import UNABLE
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.backlog import Backlog
from influxrelay.delivery.destination_queue import Entry
from influxrelay.delivery.fanout import FanOut
from influxrelay.delivery.fate import Fate, State
from influxrelay.delivery.hand_out import HandOut
from influxrelay.delivery.responses import is_presentable
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.settings import SenderSettings
from tests.simulation.model_backend import ModelBackend, Story
from tests.simulation.schedule import EPSILON, Schedule, Violation, main


class WatchedFate:
    """A write's fate, and a note of what a sender tells it."""

    def __init__(self, fate: Fate, note: Callable[[Reply | BackendFailure], object]) -> None:
        self._fate = fate
        self._note = note

    def __getattr__(self, name: str) -> Any:
        """Be the fate in all else."""
        return getattr(self._fate, name)

    def answered(self, backend: str, reply: Reply) -> None:
        """Note an answer, and pass it on."""
        self._note(reply)
        self._fate.answered(backend, reply)

    def failed(self, backend: str, problem: BackendFailure) -> None:
        """Note a failure, and pass it on."""
        self._note(problem)
        self._fate.failed(backend, problem)


class WatchedBacklog(Backlog):
    """A backlog that keeps nothing, and a note of the writes that it counts as lost."""

    def __init__(self) -> None:
        super().__init__()
        self.misses: set[Write] = set()

    def lost(self, entry: Entry, reason: str) -> None:
        """Note it once it is decided that the backend should have got it."""
        super().lost(entry, reason)
        entry.fate.when_decided(lambda fate: self.misses.update([entry.write] if fate.state is State.KEPT else []))


class WatchedSender(Sender):
    """A sender, and a note of what it tells of each write."""

    number: int
    world: World
    backlog: WatchedBacklog

    def submit(self, write: Write, fate: Fate) -> bool:
        """Take a write."""
        story = self.world.current
        watched: Any = WatchedFate(fate, lambda outcome: self._note(outcome, story))
        return super().submit(write, watched)

    def _note(self, outcome: Reply | BackendFailure, story: Story) -> None:
        if self.number in story.outcomes:
            self.world.broken(f"{self.name} told twice of write {story.sequence}")
        story.outcomes[self.number] = outcome
        waited = self.world.clock.seconds() - story.submitted
        limit = 2 * self.backend.timeout
        if waited > limit + EPSILON:
            self.world.broken(f"write {story.sequence} waited {waited:g} s at {self.name}, not {limit:g}")


class World(Schedule[Story]):
    """One schedule."""

    def __init__(self, seed: int, trace: Callable[[str], object] | None = None) -> None:
        super().__init__(seed, trace)
        rng = self.rng
        self.max_batch = rng.choice((40, 100, 1000))
        self.max_in_flight = rng.choice((1, 1, 1, 1, 2, 3))
        self.backends = [ModelBackend(number, self) for number in range(rng.choice((2, 2, 3)))]
        self.senders = [self._make_sender(number, backend) for number, backend in enumerate(self.backends)]
        self.relay = FanOut("simulation", self.senders, HandOut(self.clock))
        self.closed = False
        self.poison = rng.choice((0.0, 0.1, 0.3))
        self.places = rng.randint(1, len(self.destinations))

    def _make_sender(self, number: int, backend: Any) -> WatchedSender:
        settings = SenderSettings(
            name=backend.name,
            listener="simulation",
            max_batch=self.max_batch,
            max_in_flight=self.max_in_flight,
            max_waiting=self.rng.choice((2000, 4000, 10_000_000)),
        )
        sender = WatchedSender(backend, self.clock, settings, WatchedBacklog(), jitter=self.rng.random)
        sender.number, sender.world = number, self
        return sender

    # -- the writers

    def run(self) -> None:
        """Let the schedule happen, and check it."""
        rng = self.rng
        length = rng.choice((0.2, 1.0, 5.0))
        for _ in range(rng.randint(5, 25)):
            self.clock.callLater(rng.random() * length, self.submit, rng.choice((0, 0, 0, 1, 3)))
        if rng.random() < 0.1:
            self.clock.callLater(rng.random() * length, self.stop)
        self.until_quiet()
        self._check()

    def submit(self, more: int) -> None:
        """Submit a write, and ``more`` when it is answered, in the moment in which the client is told."""
        sequence, write, poisoned = self.next_write()
        self.current = story = Story(sequence, write, self.clock.seconds(), poisoned=poisoned)
        self.stories[sequence] = story
        answered = self.relay.submit(write)
        answered.addCallback(self._told, story, more)
        answered.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        problem = failure.value
        self.problems.append(problem if isinstance(problem, Violation) else Violation(failure.getTraceback()))

    def _told(self, reply: Reply, story: Story, more: int) -> None:
        story.answers.append(reply)
        self._check_answer(story, reply)
        if more:
            self.submit(more - 1)

    def stop(self) -> None:
        """Stop as the service does."""
        self.closed = True
        for sender, backend in zip(self.senders, self.backends, strict=True):
            sender.close()
            sender.abort()
            if backend.under_way:
                self.broken(f"{sender.name} was asked for more after close")

    # -- the contract

    def note_in_flight(self, backend: ModelBackend, destination: Destination) -> None:
        """Check that no more is under way than may be."""
        super().note_in_flight(backend, destination)
        if len(backend.under_way) > 1 and self.senders[backend.number].status.trouble is not None:
            self.broken(f"{backend.name} is in trouble, and has {len(backend.under_way)} requests in flight")

    def _check_answer(self, story: Story, reply: Reply) -> None:
        """Check an answer in the moment in which the client gets it."""
        outcomes = list(story.outcomes.values())
        settling = [outcome for outcome in outcomes if isinstance(outcome, Reply)]
        if settling:
            expected = [settling[0]]
        elif len(outcomes) < len(self.senders):
            self.broken(f"write {story.sequence} was answered {reply} before all backends had failed")
            return
        else:
            shown = [each.reply for each in outcomes if isinstance(each, BackendFailure) and each.reply]
            shown = [each for each in shown if is_presentable(each)]
            expected = [each for each in shown if each.status >= 500] or shown or [UNABLE]
        if reply not in expected:
            self.broken(f"write {story.sequence} was answered {reply}, not one of {expected}")
        if reply.status == 204 and not any(self._has_taken(backend, story) for backend in self.backends):
            self.broken(f"write {story.sequence} was answered 204, and no backend has it")
        if 400 <= reply.status < 500 and reply.status not in (408, 425, 429):
            words = [each for answers in story.words.values() for each in answers]
            if reply not in words:
                self.broken(f"write {story.sequence} was answered {reply}, which no backend said of it alone")

    @staticmethod
    def _has_taken(backend: ModelBackend, story: Story) -> bool:
        return not story.poisoned and story.sequence in backend.whole

    def _check(self) -> None:
        """Check what holds at the end of a schedule."""
        for story in self.stories.values():
            if len(story.answers) != 1:
                self.broken(f"the client of write {story.sequence} got {len(story.answers)} answers")
            if len(story.outcomes) != len(self.senders):
                self.broken(f"write {story.sequence} has no outcome at some backend")
        for sender, backend in zip(self.senders, self.backends, strict=True):
            self._check_truth(backend)
            self._check_idle(sender)
            self._check_missed(sender, backend)
            if self.max_in_flight == 1:
                self._check_order(backend)
        self.raise_problem()

    def _check_truth(self, backend: ModelBackend) -> None:
        """Check that what the sender to a backend answered is what the backend did."""
        for story in self.stories.values():
            outcome = story.outcomes.get(backend.number)
            if not isinstance(outcome, Reply):
                continue
            if outcome not in story.words.get(backend.number, ()):
                self.broken(f"{backend.name} never said {outcome} of write {story.sequence}")
            if outcome.status == 204 and not self._has_taken(backend, story):
                self.broken(f"{backend.name} took write {story.sequence}, and does not have it")

    def _check_order(self, backend: ModelBackend) -> None:
        """Check that no write has overtaken an older one, and that no newer value has been overwritten."""
        for name in ("arrived", "applied"):
            for order in getattr(backend, name).values():
                if order != sorted(order):
                    self.broken(f"at {backend.name} writes of one destination {name} in the order {order}")
        newest: dict[bytes, int] = {}
        for story in self.stories.values():
            if not backend.settled.get(story.sequence):
                continue  # not there, or only as a left-over of a merged request, before it failed for this backend
            for line in story.write.body.split(b"\n"):
                if line and not line.endswith(b"!"):
                    newest[line.partition(b" ")[0]] = story.sequence
        for point, sequence in newest.items():
            if backend.points[point] < sequence:
                self.broken(f"at {backend.name} write {backend.points[point]} overwrote {point!r} of {sequence}")

    def _check_missed(self, sender: WatchedSender, backend: ModelBackend) -> None:
        """Check that a sender knows all that its backend misses, and nothing that was not taken."""
        missed = sender.backlog.misses
        for story in self.stories.values():
            taken = story.answers[0].status < 300 if story.answers else False
            if story.write in missed and not taken:
                self.broken(f"{backend.name} is said to miss write {story.sequence}, which was not taken")
            there = story.poisoned or self._has_taken(backend, story)
            if taken and not there and story.write not in missed:
                self.broken(f"{backend.name} misses write {story.sequence}, and it is not known")
        counted = sum(drop.writes for drop in sender.backlog.losses())
        if counted != len(missed):
            self.broken(f"{backend.name} misses {len(missed)} writes, and {counted} are counted")

    def _check_idle(self, sender: WatchedSender) -> None:
        """Check that a sender has forgotten everything but its counts."""
        self.check_sender_is_idle(sender)
        if sender.writes != len(self.stories):
            self.broken(f"{sender.name} counted {sender.writes} of {len(self.stories)} writes")
        failed = sum(
            not isinstance(outcome, Reply) or outcome.status != 204
            for story in self.stories.values()
            if (outcome := story.outcomes.get(sender.number))
        )
        if failed != sum(sender.clients.failures.values()):
            self.broken(f"{sender.name} counted {sender.clients.failures}, and {failed} writes failed")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], World))
