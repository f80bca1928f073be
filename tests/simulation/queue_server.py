"""The servers of the simulation of relays with queues, and what is known of each write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from twisted.internet.defer import Deferred

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.responses import is_not_ready
from influxrelay.delivery.settings import SenderSettings
from influxrelay.journal.records import Drop, JournalLimits
from influxrelay.lineprotocol.filters import Filter
from tests.simulation.model_backend import OK, ModelBackend, Story
from tests.simulation.schedule import Schedule, sequence_of

EPOCH = 1000.0  # what time it is when a schedule begins
MISSING = Reply(404, (), b'{"error":"database not found: \\"a\\""}\n')


def part_of(body: bytes, wanted: Filter | None) -> bytes:
    """Return what a filter leaves of a body, found without the relay's own way to divide bodies."""
    if wanted is None:
        return body
    lines = body.split(b"\n")
    taken = [line for line in lines if not line or all(wanted.judge([line.partition(b" ")[0]]))]
    return b"" if not any(taken) else b"\n".join(taken)


class QueueStory(Story):
    """A write, and what happens to it and to its copy in the journal.

    :ivar seq: the relay's own number for it, in a journal.
    :ivar generation: which of the relay's processes took it.
    :ivar gone: its process ended before its client had an answer.
    :ivar committed: its copy in the journal is committed, or was.
    :ivar unjournaled: the journal did not take it.
    :ivar unstruck: the journal could not strike it.
    :ivar excused: the numbers of the backends that need not get it, although its client was told that it is taken.
    :ivar parts: what it was then for each server that was configured and whose filter left something of it, by number.
    """

    def __init__(self, sequence: int, write: Write, now: float, *, poisoned: bool) -> None:
        super().__init__(sequence, write, now, poisoned=poisoned)
        self.consistency = ""
        self.seq = 0
        self.generation = 0
        self.gone = False
        self.committed = False
        self.unjournaled = False
        self.unstruck = False
        self.excused: set[int] = set()
        self.parts: dict[int, bytes] = {}

    @property
    def taken(self) -> bool:
        """Whether the client was told that it is taken."""
        return bool(self.answers) and self.answers[0].status < 300

    @property
    def refused(self) -> bool:
        """Whether the client was told that it is not taken."""
        return bool(self.answers) and self.answers[0].status >= 300


class QueueSchedule(Schedule[QueueStory]):
    """What servers, processes and checks know of a schedule.

    :ivar writes: the stories, by what the relay was given.
    :ivar servers: all servers; those that are configured are ``outputs``, by the names that they have there, in order.
    :ivar process: the relay that runs.
    :ivar generation: how many there were.
    :ivar on_disk: whether they have a journal, in ``directory``.
    :ivar journal_first: whether no backend may get a write that the journal does not have.
    """

    max_events = 15_000  # most have hundreds, and with questions about health up to 4,000
    servers: list[Server]
    outputs: dict[str, Server]
    generation = 0
    on_disk: bool
    directory = ""
    journal_first: bool
    refuse_unjournaled: bool
    commit_delay: float
    disk_is_bad = disk_hangs = False
    limits = JournalLimits()

    def __init__(self, seed: int, trace: Callable[[str], object] | None = None) -> None:
        super().__init__(seed, trace)
        self.writes: dict[Write, QueueStory] = {}

    def now(self) -> float:
        """Return the time of day."""
        return EPOCH + self.clock.seconds()

    def by_seq(self, seq: int) -> QueueStory:
        """Return the write that has this number in the present process."""
        return next(
            each for each in reversed(self.stories.values()) if each.generation == self.generation and each.seq == seq
        )

    def settings(self, name: str, wanted: Filter | None) -> SenderSettings:
        """Return how the sender to a backend works in this schedule."""
        raise NotImplementedError


class Server(ModelBackend):
    """A model backend that may miss its databases for a while, and whose client may be killed.

    :ivar configured: whether it is; ``leaving``, while it is not any more and gets the rest.
    :ivar filter: what it takes; None for everything.
    :ivar filters: all that it has ever had.
    :ivar letters: the sequences that were dead letters of queues in memory that are gone.
    :ivar drops: what such queues had lost.
    """

    def __init__(self, number: int, world: QueueSchedule) -> None:
        super().__init__(number, world)
        self.world = world
        self.configured = False
        self.leaving = False
        self.filter: Filter | None = None
        self.filters: list[Filter | None] = [None]
        self.letters: set[int] = set()
        self.drops: list[Drop] = []
        self._requests: dict[Deferred[Reply], tuple[Write, bytes, list[Story]]] = {}
        self._missing: dict[Destination, float] = {}
        if self._rng.random() < 0.4:
            for destination in world.destinations:
                self._missing[destination] = self._rng.random() * 4

    def post(self, write: Write, body_parts: Sequence[bytes]) -> Deferred[Reply]:
        """Take a request, and check that no client was told that it is not taken."""
        self._refused.clear()  # a write may travel merged again after a failure
        body = b"".join(body_parts)
        stories = self._read(write, body)
        numbers = ",".join(str(story.sequence) for story in stories)
        if self.world.trace is not None:
            self.world.note(f"{self.name} gets {numbers}")
        for story in stories:
            assert isinstance(story, QueueStory)
            if self.world.journal_first and not (story.committed or story.unjournaled):
                self.world.broken(f"{self.name} got write {story.sequence} before the journal")
            if story.refused and not story.unstruck:
                self.world.broken(f"{self.name} got write {story.sequence} after {story.answers[0].status}")
        if not (self.configured or self.leaving):
            self.world.broken(f"{self.name} got {numbers}, and is not configured")
        if self._missing.get(write.destination, 0.0) > self.world.clock.seconds():
            answered: Deferred[Reply] = Deferred()
            self.under_way[answered] = write.destination
            self.world.note_in_flight(self, write.destination)
            self._later(self._rng.random() * 0.05, answered, MISSING, stories)
        else:
            answered = super().post(write, body_parts)
            self._requests[answered] = (write, body, stories)
        return answered

    def create_database(self, write: Write) -> Deferred[Reply]:
        """Create it, or fail."""
        answered: Deferred[Reply] = Deferred()
        self.under_way[answered] = Destination(b"create", b"", b"", (b"", b"", b""))
        outcome = self._rng.choice((OK, OK, Reply(503), BackendFailure("reset", "connection lost")))
        if outcome is OK:
            self._missing.pop(write.destination, None)
        self._later(self._rng.random() * 0.1, answered, outcome)
        return answered

    def heal(self) -> None:
        """Be well from now on."""
        self._missing.clear()
        self._mood, self._until = "well", float("inf")

    def forget(self) -> None:
        """Lose the connections of a process that was killed; a request under way is applied, or is not."""
        for answered in list(self.under_way):
            request = self._requests.get(answered)
            if request is not None and self._rng.random() < 0.5:
                self._apply(*request)
        self.under_way.clear()
        self._requests.clear()
        self.not_before = 0.0
        self.leaving = False

    def has(self, story: Story) -> bool:
        """Tell whether all of a write is stored, and not just left there by a merged request that will be repeated."""
        return not story.poisoned and self.settled.get(story.sequence, False)

    def _check_body(self, body: bytes, stories: list[Story]) -> None:
        """Check that it was sent all of what one of its filters leaves of each write."""
        if self.filters == [None]:
            super()._check_body(body, stories)
            return
        groups = [
            (number, b"\n".join(lines)) for number, lines in groupby(body.removesuffix(b"\n").split(b"\n"), sequence_of)
        ]
        for story, (number, part) in zip(stories, groups, strict=False):
            allowed = [part_of(story.write.body, each).removesuffix(b"\n") for each in self.filters]
            if number != story.sequence or part not in allowed:
                self.world.broken(f"{self.name} got {part!r} of write {story.sequence}, not one of {allowed}")
        if len(groups) != len(stories):
            self.world.broken(f"{self.name} got {body!r}, which is in pieces")

    def _apply(self, write: Write, body: bytes, stories: list[Story]) -> Reply:
        reply = super()._apply(write, body, stories)
        if self.world.trace is not None:
            self.world.note(f"{self.name} applies {','.join(str(each.sequence) for each in stories)}: {reply.status}")
        return reply

    def _end(
        self, answered: Deferred[Reply], outcome: Reply | BackendFailure, stories: list[Story] | None = None
    ) -> None:
        self._requests.pop(answered, None)
        if answered in self.under_way and self.world.trace is not None:
            self.world.note(f"{self.name} ends: {outcome!r}")
        super()._end(answered, outcome, stories)

    def _remember(self, reply: Reply, stories: list[Story]) -> None:
        if is_not_ready(reply):
            self.not_before = 0.0
        else:
            super()._remember(reply, stories)
