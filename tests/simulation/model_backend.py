"""A write, and the model of a server that it gets to, or does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.responses import Verdict, judge
from tests.simulation.schedule import Schedule, sequence_of

OK = Reply(204)
NOT_NOW = (Reply(408), Reply(425), Reply(500, (), b"engine is closed"), Reply(301), Reply(503), Reply(429))
MOODS = ("well",) * 6 + ("refusing", "failing", "busy", "hanging", "resetting", "slow", "mixed", "mixed")


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

    def __init__(self, number: int, world: Schedule[Any]) -> None:
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
            sequence = sequence_of(line)
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
                self.points[line.partition(b" ")[0]] = sequence_of(line)
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
