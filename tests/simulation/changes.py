"""The simulation of relays with queues, with statements among the writes.

``python -m tests.simulation.changes SEED`` replays one schedule with a trace, ``--count N`` runs N without one. Beside
all that happens in :mod:`tests.simulation.queue` clients delete everything in a database, create databases and users.
Each server knows at every moment whether what it executes is in its place: before all later writes to the
databases of a statement, and before all later statements; in the end, whether what was deleted is gone.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import CHANGES, STATEMENT, Destination, Reply, Write
from influxrelay.delivery.queries import Question
from influxrelay.delivery.statements import Change, Refusal, Result, Scope, as_write, scope_of
from influxrelay.journal.records import Drop
from tests.simulation.model_backend import Story
from tests.simulation.queue import World
from tests.simulation.queue_server import QueueStory, Server
from tests.simulation.schedule import main

NOBODY = (b"", b"", b"")
DESTINATIONS = (
    Destination(b"a", b"", b"ns", NOBODY),
    Destination(b"b", b"", b"ns", NOBODY),
    Destination(b"a", b"rp", b"ns", NOBODY),
    Destination(b"b", b"", b"s", NOBODY),
)
MISSING = Refusal(404, (), b'{"results":[{"statement_id":0,"error":"database not found: a"}]}\n')
REFUSAL = Refusal(400, (), b'{"results":[{"statement_id":0,"error":"no such thing"}]}\n')
STATEMENTS = (("DELETE", b"a"), ("DELETE", b"a"), ("DELETE", b"b"), ("CREATE DATABASE", b"a"), ("CREATE USER", b""))


def is_change(story: Story) -> bool:
    """Tell whether it is a statement."""
    return story.write.destination == CHANGES


class ChangingServer(Server):
    """A server that executes statements, and looks whether each thing comes in its place.

    :ivar executed: the sequence of each statement, in the order of their execution, repeated or not.
    :ivar newest: the highest sequence of what was stored in a database.
    """

    def __init__(self, number: int, world: Any) -> None:
        super().__init__(number, world)
        self.world: ChangingWorld = world
        self.executed: list[int] = []
        self.newest: dict[bytes, int] = {}

    def post(self, write: Write, body_parts: Sequence[bytes]) -> Deferred[Reply]:
        """Take a request, of which there may be one at a time if it is a statement."""
        if write.destination.kind == STATEMENT and CHANGES in self.under_way.values():
            self.world.broken(f"{self.name} has two statements in flight")
        return super().post(write, body_parts)

    def create_database(self, write: Write) -> Deferred[Reply]:
        """Create those that a statement names."""
        answered: Deferred[Reply] = Deferred()
        if write.destination.kind != STATEMENT:
            return super().create_database(write)
        self.under_way[answered] = Destination(b"create", b"", b"", NOBODY)
        outcome = self._rng.choice((REFUSAL, Result(200), BackendFailure("reset", "connection lost")))
        if outcome.__class__ is Result:
            self._create(scope_of(write.query).databases)
        self._later(self._rng.random() * 0.1, answered, outcome)
        return answered

    def _create(self, databases: frozenset[bytes]) -> None:
        for each in [each for each in self._missing if each.database in databases]:
            del self._missing[each]

    def _read(self, write: Write, body: bytes) -> list[Story]:
        if write.destination.kind != STATEMENT:
            return super()._read(write, body)
        return [self.world.by_body(body)]

    def _apply(self, write: Write, body: bytes, stories: list[Story]) -> Reply:
        if write.destination.kind != STATEMENT:
            last = max((each.sequence for each in stories), default=-1)
            database = write.destination.database
            self.newest[database] = max(self.newest.get(database, -1), last)
            return super()._apply(write, body, stories)
        (story,) = stories
        if story.poisoned:
            return REFUSAL
        scope = scope_of(write.query)
        if scope.waits and any(self._is_missing(each) for each in scope.databases):
            return MISSING
        self._look_at_change(story, scope)
        self.world.note(f"{self.name} executes {story.sequence}")
        self.executed.append(story.sequence)
        if scope.kind == "CREATE DATABASE":
            self._create(scope.databases)
        elif scope.kind == "DELETE":
            places = [b"d=%d" % index for index, each in enumerate(DESTINATIONS) if each.database in scope.databases]
            self.points = {point: value for point, value in self.points.items() if point.split(b",")[1] not in places}
        self.settled[story.sequence] = True
        self.applied.setdefault(CHANGES, [])
        if story.sequence not in self.applied[CHANGES]:
            self.applied[CHANGES].append(story.sequence)
        return Result(200, (), b'{"results":[{"statement_id":0}]}\n', source=self)

    def _is_missing(self, database: bytes) -> bool:
        now = self.world.clock.seconds()
        return any(until > now and each.database == database for each, until in self._missing.items())

    def _look_at_change(self, story: Story, scope: Scope) -> None:
        """Check that nothing is in place that should come behind a statement."""
        later = [each for each in self.executed if each > story.sequence]
        if later:
            self.world.broken(f"{self.name} executes {story.sequence} behind the statements {later}")
        for database in scope.databases:
            if self.newest.get(database, -1) > story.sequence:
                self.world.broken(f"{self.name} executes {story.sequence} behind write {self.newest[database]}")


class ChangingWorld(World):
    """One schedule with statements."""

    destinations = DESTINATIONS
    make_server = ChangingServer

    def __init__(self, seed: int, trace: Callable[[str], object] | None = None) -> None:
        super().__init__(seed, trace)
        self.journal_first = False  # as with HTTP listeners, which alone take statements
        self._chance = random.Random(f"changes {seed}")
        self._share = self._chance.choice((0.1, 0.3, 0.6))

    @property
    def changing(self) -> list[ChangingServer]:
        """All servers."""
        return [each for each in self.servers if isinstance(each, ChangingServer)]

    def by_body(self, body: bytes) -> QueueStory:
        """Return the statement with this body."""
        return next(each for each in self.stories.values() if each.write.body == body)

    def submit(self, more: int) -> None:
        """Submit a write or a statement."""
        if self._chance.random() >= self._share or self.process is None or self.stopping:
            super().submit(more)
            return
        sequence = len(self.stories)
        kind, database = self._chance.choice(STATEMENTS)
        question = Question(b"POST", b"", (), b"statement v=%di" % sequence)
        change = Change(question, Scope(kind, frozenset(filter(None, (database,)))), kind)
        write = as_write(change)
        story = QueueStory(sequence, write, self.clock.seconds(), poisoned=self._chance.random() < 0.1)
        story.generation = self.generation
        story.consistency = self._chance.choice(("any", "one", "one", "quorum", "all"))
        story.parts = {server.number: write.body for server in self.outputs.values()}
        self.note(f"statement {sequence}: {kind} {database.decode()}, {story.consistency}, poisoned: {story.poisoned}")
        self.hand_in(story, more)

    def _check_points(self, name: str, server: Server, there: list[QueueStory], drops: list[Drop]) -> None:
        """Check that nothing is left that was deleted, and that nothing is gone that was not."""
        if drops:
            return  # an older write may have been sent again, and then what was behind it was dropped
        assert isinstance(server, ChangingServer)
        deletions = [self.stories[each] for each in sorted(set(server.executed))]
        for point, value in server.points.items():
            for story in deletions:
                if story.sequence > value and not story.unjournaled and _deletes(story, point):
                    self.broken(f"at {name} {point!r} is {value}, which statement {story.sequence} has deleted")
        for story in [each for each in there if not is_change(each)]:
            for point in [line.partition(b" ")[0] for line in story.parts[server.number].split(b"\n") if line]:
                is_deleted = any(each.sequence > story.sequence and _deletes(each, point) for each in deletions)
                if not is_deleted and server.points.get(point, -1) < story.sequence:
                    self.broken(f"at {name} write {story.sequence} of {point!r} is gone: {server.points.get(point)}")


def _deletes(story: QueueStory, point: bytes) -> bool:
    place = int(point.split(b",")[1].removeprefix(b"d="))
    scope = scope_of(story.write.query)
    return scope.kind == "DELETE" and DESTINATIONS[place].database in scope.databases


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], ChangingWorld))
