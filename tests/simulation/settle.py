"""A seeded simulation of relays in front of backends that fail, and the contract checked after each schedule.

``python -m tests.simulation.settle SEED`` runs one schedule, ``--count N`` runs N from there on. A failing seed is
printed, and fails again whenever it is run: all that is random comes from the seed, and time is a Clock's.

The real FanOut and Senders run against model backends. A write has a number, its *sequence*, which counts all writes in
the order in which the relay took them; each of its lines sets one point to that number. So what a backend holds in the
end tells which write was the last to set a point.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure
from influxrelay.core.replies import UNABLE
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.backlog import Backlog
from influxrelay.delivery.destination_queue import Entry
from influxrelay.delivery.fanout import FanOut
from influxrelay.delivery.fate import Fate, State
from influxrelay.delivery.responses import Verdict, is_presentable, judge
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.settings import SenderSettings

MAX_EVENTS = 5_000  # a schedule has some hundreds; more means that it does not end
EPSILON = 1e-6
OK = Reply(204)
DESTINATIONS = (
    Destination(b"a", b"", b"ns", (b"", b"", b"")),
    Destination(b"a", b"rp", b"ns", (b"", b"", b"")),
    Destination(b"a", b"", b"s", (b"", b"", b"")),
    Destination(b"a", b"", b"ns", (b"", b"user", b"")),
)
NOT_NOW = (Reply(408), Reply(425), Reply(500, (), b"engine is closed"), Reply(301), Reply(503), Reply(429))
MOODS = ("well",) * 6 + ("refusing", "failing", "busy", "hanging", "resetting", "slow", "mixed", "mixed")


class Violation(AssertionError):
    """The contract does not hold."""


class Story:
    """A write, and what happens to it.

    :ivar poisoned: whether it has a line that every backend refuses.
    :ivar answers: the client's, of which there must be one.
    :ivar outcomes: each sender's, by number, in the order they came.
    :ivar words: what each backend answered to exactly this write.
    """

    def __init__(self, sequence: int, write: Write, now: float, *, poisoned: bool) -> None:
        self.sequence = sequence
        self.write = write
        self.poisoned = poisoned
        self.submitted = now
        self.answers: list[Reply] = []
        self.outcomes: dict[int, Reply | BackendFailure] = {}
        self.words: dict[int, list[Reply]] = {}


class ModelBackend:
    """A server that stores lines in the order in which it applies them, and has moods.

    A request is applied as a whole at one instant, or not at all; never after its time-out.

    :ivar points: what is stored: the sequence by point.
    :ivar whole: the sequences of which all good lines were stored, by a request that was refused or not.
    :ivar applied: each (destination, sequence) in the order of its first application.
    :ivar arrived: the same for arrivals.
    :ivar not_before: when it may be asked again, by its last Retry-After.
    """

    def __init__(self, number: int, world: World) -> None:
        rng = world.rng
        self.number = number
        self.name = f"backend{number}"
        self.timeout = rng.choice((1.0, 2.0, 5.0))
        self.points: dict[bytes, int] = {}
        self.whole: set[int] = set()
        self.settled: dict[int, bool] = {}
        self.applied: dict[Destination, list[int]] = {}
        self.arrived: dict[Destination, list[int]] = {}
        self.under_way: dict[Deferred[Reply], Destination] = {}
        self.not_before = 0.0
        self._world = world
        self._rng = rng
        self._mood = "well"
        self._until = rng.random() * 3
        self._permanent = rng.random() < 0.3  # refuses with a 5xx whose text is permanent
        self._refused: set[int] = set()
        self._keeps_good_lines = rng.random() < 0.8

    # -- the protocol of influxrelay.delivery.sender.Backend

    def post(self, write: Write, body_parts: Sequence[bytes]) -> Deferred[Reply]:
        """Take a request, and decide what will become of it."""
        body = b"".join(body_parts)
        stories = self._read(write, body)
        arrived = self.arrived.setdefault(write.destination, [])
        arrived += [story.sequence for story in stories if story.sequence not in arrived]
        answered: Deferred[Reply] = Deferred()
        self.under_way[answered] = write.destination
        self._world.note_in_flight(self, write.destination)
        rng = self._rng
        mood = self._feel()
        if mood == "mixed":
            mood = rng.choice(MOODS)
        stored_first = rng.random() < 0.5
        delay = rng.random() * 0.05
        if mood == "hanging":
            if stored_first:
                self._apply(write, body, stories)
            self._later(self.timeout, answered, BackendFailure("timeout", "no answer"))
        elif mood == "resetting":
            if stored_first:
                self._apply(write, body, stories)
            self._later(delay, answered, BackendFailure("reset", "connection lost"))
        elif mood == "refusing":
            self._later(delay / 10, answered, BackendFailure("refused", "connection refused"))
        elif mood == "failing":
            self._later(delay, answered, rng.choice(NOT_NOW), stories)
        elif mood == "busy":
            after = b"%d" % rng.choice((0, 1, 2, 3, 30))
            self._later(delay, answered, Reply(rng.choice((503, 429)), ((b"Retry-After", after),), b"busy"), stories)
        else:
            if mood == "slow":
                delay = rng.random() * self.timeout * 0.99
            self._world.clock.callLater(delay, self._serve, answered, write, body, stories)
        return answered

    def abort(self) -> None:
        """Fail what is under way."""
        for answered in list(self.under_way):
            self._end(answered, BackendFailure("stopped", "aborted"))

    def close(self) -> Deferred[None]:
        """Have nothing to close."""
        raise NotImplementedError

    # -- the server

    def _feel(self) -> str:
        now = self._world.clock.seconds()
        while now >= self._until:
            self._mood = self._rng.choice(MOODS)
            self._until += self._rng.random() * self._rng.choice((0.1, 1.0, 4.0))
        return self._mood

    def _read(self, write: Write, body: bytes) -> list[Story]:
        """Find out which writes a body is made of."""
        stories: list[Story] = []
        for line in body.removesuffix(b"\n").split(b"\n"):
            sequence = int(line.partition(b" v=")[2].partition(b"i")[0] or -1) if line else -1
            story = self._world.stories.get(sequence)
            if story is None or line not in story.write.body.split(b"\n"):
                self._world.broken(f"{self.name} got the line {line!r}, which nobody sent")
                continue
            if story.write.destination != write.destination or story.write.query != write.query:
                self._world.broken(f"{self.name} got write {sequence} at another place than its own")
            if story not in stories:
                stories.append(story)
        if len(stories) > 1:
            if not all(story.write.mergeable for story in stories):
                self._world.broken(f"{self.name} got a write merged that is not mergeable")
            if any(story.sequence in self._refused for story in stories):
                self._world.broken(f"{self.name} got a write merged again after it was refused")
            if len(body) > self._world.max_batch + 1:
                self._world.broken(f"{self.name} got {len(body)} bytes merged")
        self._check_body(body, stories)
        return stories

    def _check_body(self, body: bytes, stories: list[Story]) -> None:
        """Check that these writes, whole and in this order, are what it was sent."""
        sent = b"".join(story.write.body.removesuffix(b"\n") + b"\n" for story in stories)
        if sent.removesuffix(b"\n") != body.removesuffix(b"\n"):
            self._world.broken(f"{self.name} got {body!r} instead of {sent!r}")

    def _apply(self, write: Write, body: bytes, stories: list[Story]) -> Reply:
        """Store the good lines, and answer."""
        bad = [story for story in stories if story.poisoned]
        if bad and not self._keeps_good_lines:
            return self._refusal(bad)
        for line in body.split(b"\n"):
            if line and not line.endswith(b"!"):
                self.points[line.partition(b" ")[0]] = int(line.partition(b" v=")[2].partition(b"i")[0])
        applied = self.applied.setdefault(write.destination, [])
        for story in stories:
            if story.sequence not in self.whole:
                applied.append(story.sequence)
                self.whole.add(story.sequence)
            # Lines that a refused merged request leaves do not count as long as the write has not been sent alone.
            self.settled[story.sequence] = not (bad and len(stories) > 1)
        return self._refusal(bad) if bad else OK

    def _refusal(self, bad: list[Story]) -> Reply:
        names = b",".join(b"%d" % story.sequence for story in bad)
        if self._permanent:
            return Reply(500, (), b"partial write: " + names)
        return Reply(400, ((b"X-Influxdb-Error", names),), b"unable to parse: " + names)

    def _serve(self, answered: Deferred[Reply], write: Write, body: bytes, stories: list[Story]) -> None:
        if answered in self.under_way:
            self._end(answered, self._apply(write, body, stories), stories)

    def _later(
        self,
        delay: float,
        answered: Deferred[Reply],
        outcome: Reply | BackendFailure,
        stories: list[Story] | None = None,
    ) -> None:
        self._world.clock.callLater(delay, self._end, answered, outcome, stories)

    def _end(
        self, answered: Deferred[Reply], outcome: Reply | BackendFailure, stories: list[Story] | None = None
    ) -> None:
        if self.under_way.pop(answered, None) is None:
            return  # aborted
        if isinstance(outcome, Reply):
            self._remember(outcome, stories or [])
        if isinstance(outcome, BackendFailure):
            answered.errback(Failure(outcome))
            return
        for story in stories or ():
            if len(stories or ()) == 1 or outcome is OK:
                story.words.setdefault(self.number, []).append(outcome)
        answered.callback(outcome)

    def _remember(self, reply: Reply, stories: list[Story]) -> None:
        verdict = judge(reply)
        if verdict is not Verdict.NOT_NOW:
            self.not_before = 0.0  # whoever answers is well
            if verdict is not Verdict.TAKEN:
                self._refused.update(story.sequence for story in stories)
        elif reply.headers:
            seconds = float(dict(reply.headers)[b"Retry-After"])
            self.not_before = max(self.not_before, self._world.clock.seconds() + seconds)


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


class BoundedClock(Clock):
    """A Clock for a schedule that must end, also if it sets timers for now, again and again."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self._left = MAX_EVENTS

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> IDelayedCall:  # noqa: A002 (Clock's)
        """Refuse where there is no end."""
        self._left -= 1
        if self._left < 0:
            raise self._world.broken(f"it does not end: {MAX_EVENTS} events")
        return super().callLater(delay, callable, *args, **kw)


class World:
    """One schedule."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.clock = BoundedClock(self)
        self.stories: dict[int, Story] = {}
        self.problems: list[Violation] = []
        self.max_batch = rng.choice((40, 100, 1000))
        self.max_in_flight = rng.choice((1, 1, 1, 1, 2, 3))
        self.backends = [ModelBackend(number, self) for number in range(rng.choice((2, 2, 3)))]
        self.senders = [self._make_sender(number, backend) for number, backend in enumerate(self.backends)]
        self.relay = FanOut("simulation", self.senders, self.clock)
        self.closed = False
        self._poison = rng.choice((0.0, 0.1, 0.3))
        self._places = rng.randint(1, len(DESTINATIONS))

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

    def broken(self, message: str) -> Violation:
        """Note a violation, also where an exception would end in a Deferred."""
        problem = Violation(message)
        self.problems.append(problem)
        return problem

    # -- the writers

    def run(self) -> None:
        """Let the schedule happen, and check it."""
        rng = self.rng
        length = rng.choice((0.2, 1.0, 5.0))
        for _ in range(rng.randint(5, 25)):
            self.clock.callLater(rng.random() * length, self.submit, rng.choice((0, 0, 0, 1, 3)))
        if rng.random() < 0.1:
            self.clock.callLater(rng.random() * length, self.stop)
        self._until_quiet()
        self._check()

    def submit(self, more: int) -> None:
        """Submit a write, and ``more`` when it is answered, in the moment in which the client is told."""
        rng = self.rng
        sequence = len(self.stories)
        where = rng.randrange(self._places)
        poisoned = rng.random() < self._poison
        points = rng.sample(range(4), rng.choice((1, 1, 2)))
        lines = [b"p%d,d=%d v=%di 1" % (point, where, sequence) for point in points]
        if poisoned:
            lines.insert(rng.randrange(len(lines) + 1), b"bad,d=%d v=%di !" % (where, sequence))
        query = b"db=a&place=%d" % where + rng.choice((b"", b"", b"", b"&pretty=true"))
        body = b"\n".join(lines) + rng.choice((b"", b"\n"))
        write = Write(DESTINATIONS[where], query, b"", body, rng.random() < 0.85)
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

    def _until_quiet(self) -> None:
        clock = self.clock
        while not self.problems and (calls := clock.getDelayedCalls()):
            clock.rightNow = max(clock.rightNow, min(call.getTime() for call in calls))
            clock.advance(0)
        if self.problems:
            raise self.problems[0]

    # -- the contract

    def note_in_flight(self, backend: ModelBackend, destination: Destination) -> None:
        """Check that no more is under way than may be."""
        count = sum(each == destination for each in backend.under_way.values())
        if count > self.max_in_flight:
            self.broken(f"{backend.name} has {count} requests of one destination in flight")
        if self.clock.seconds() < backend.not_before - EPSILON:
            self.broken(f"{backend.name} was asked before its Retry-After")
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
        if self.problems:
            raise self.problems[0]

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
        """Check that a sender has forgotten everything."""
        left = (sender.queues.memory.size, sender.requests.in_flight, len(sender.queues), len(sender.clients))
        if left != (0, 0, 0, 0):
            self.broken(f"{sender.name} has something left: {left}")
        if not sender.drained().called:
            self.broken(f"{sender.name} is not drained")
        if sender.writes != len(self.stories):
            self.broken(f"{sender.name} counted {sender.writes} of {len(self.stories)} writes")
        failed = sum(
            not isinstance(outcome, Reply) or outcome.status != 204
            for story in self.stories.values()
            if (outcome := story.outcomes.get(sender.number))
        )
        if failed != sum(sender.clients.failures.values()):
            self.broken(f"{sender.name} counted {sender.clients.failures}, and {failed} writes failed")


def run(first: int, count: int, report: Callable[[int, Violation], object]) -> int:
    """Run schedules, report those that break the contract, and return how many did."""
    broken = 0
    for seed in range(first, first + count):
        try:
            World(seed).run()
        except Violation as problem:
            broken += 1
            report(seed, problem)
    return broken


def main(arguments: list[str]) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation.settle", description=__doc__.split("\n", maxsplit=1)[0]
    )
    parser.add_argument("seed", type=int, nargs="?", default=0)
    parser.add_argument("--count", type=int, default=1)
    options = parser.parse_args(arguments)
    started = time.monotonic()

    def report(seed: int, problem: Violation) -> None:
        sys.stdout.write(f"seed {seed}: {problem}\n")

    broken = run(options.seed, options.count, report)
    seconds = time.monotonic() - started
    sys.stdout.write(f"{options.count} schedule(s) in {seconds:.1f} s, {broken} broken\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
