"""A seeded simulation of relays with queues: backends that fail, a disk that fails, a process that is killed.

``python -m tests.simulation.queue SEED`` replays one schedule with a trace, ``--count N`` runs N without one. A failing
seed is printed, and fails again whenever it is run: all that is random comes from the seed, and time is a Clock's.

The real FanOut, senders, queues and backlogs run against the model backends of :mod:`tests.simulation.settle`; the
journal is real too, and the JournalWriter's thread is a timer. A write's number, its *sequence*, counts all writes in
the order in which the relay took them, through all its processes; what a backend holds in the end tells which write set
a point last.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from influxrelay.config.settings import FilterConfig as FilterSettings
from influxrelay.config.settings import HTTPListenerConfig, HTTPOutputConfig
from influxrelay.config.settings import JournalConfig as JournalSettings
from influxrelay.core.errors import BackendFailure
from influxrelay.core.replies import TAKEN
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.backend import Backend
from influxrelay.delivery.backlog import Backlog, MemoryBacklog
from influxrelay.delivery.destination_queue import ENTRY_BYTES, QUEUE_BYTES
from influxrelay.delivery.fanout import FanOut
from influxrelay.delivery.fate import Fate
from influxrelay.delivery.journal_backlog import JournalBacklog
from influxrelay.delivery.responses import is_not_ready
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.settings import SenderSettings
from influxrelay.journal.records import Drop, JournalLimits
from influxrelay.journal.store import Store
from influxrelay.lineprotocol.filters import Filter
from influxrelay.listeners.factory import make_filter
from influxrelay.listeners.relaying import Relaying
from tests.simulation.disk import TIMEOUT, SimulatedWriter
from tests.simulation.settle import (
    DESTINATIONS,
    EPSILON,
    OK,
    BoundedClock,
    ModelBackend,
    Story,
    Violation,
    WatchedFate,
)

MAX_EVENTS = 40_000
EPOCH = 1000.0  # what time it is when a schedule begins
MAX_COMMIT = 0.2  # seconds that a transaction takes at the most
MISSING = Reply(404, (), b'{"error":"database not found: \\"a\\""}\n')
SHM = Path("/dev/shm")
CONSISTENCIES = ("any", "one", "one", "quorum", "all")


def sequence_of(body: bytes) -> int:
    """Return the sequence that the lines of a write set."""
    return int(body.partition(b" v=")[2].partition(b"i")[0])


def part_of(body: bytes, wanted: Filter | None) -> bytes:
    """Return what a filter leaves of a body, found without the relay's own way to divide bodies."""
    if wanted is None:
        return body
    lines = body.split(b"\n")
    taken = [line for line in lines if not line or all(wanted.judge([line.partition(b" ")[0]]))]
    return b"" if not any(taken) else b"\n".join(taken)


def _is_refusal(outcome: Reply | BackendFailure) -> bool:
    """Tell whether a backend has answered 4xx, to this write or to those before it."""
    reply = outcome if isinstance(outcome, Reply) else outcome.reply
    return reply is not None and 400 <= reply.status < 500 and reply.status not in (408, 425, 429)


def _covers(drop: Drop, story: Story) -> bool:
    return drop.first - EPSILON <= EPOCH + story.submitted <= drop.last + EPSILON


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


class Server(ModelBackend):
    """A model backend that may miss its databases for a while, and whose client may be killed.

    :ivar configured: whether it is; ``leaving``, while it is not any more and gets the rest.
    :ivar filter: what it takes; None for everything.
    :ivar filters: all that it has ever had.
    :ivar letters: the sequences that were dead letters of queues in memory that are gone.
    :ivar drops: what such queues had lost.
    """

    def __init__(self, number: int, world: World) -> None:
        super().__init__(number, world)  # type: ignore[arg-type]
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


class ProcessClock:
    """The reactor of one process: its timers end with it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._calls: list[IDelayedCall] = []
        self.is_dead = False

    def seconds(self) -> float:
        """Return the time."""
        return self._world.clock.seconds()

    def callLater(self, when: float, what: Callable[..., object], *a: object, **kw: object) -> IDelayedCall:
        """Set a timer."""
        if self.is_dead:
            self._world.broken(f"{what} is to be called in a process that is gone")
        call = self._world.clock.callLater(when, what, *a, **kw)
        self._calls.append(call)
        return call

    def kill(self) -> None:
        """End all."""
        self.is_dead = True
        for call in self._calls:
            if call.active():
                call.cancel()


class WatchedSender(Sender):
    """A sender, and a note of what it tells of each write."""

    world: World
    number: int

    def submit(self, write: Write, fate: Fate) -> bool:
        """Take a write."""
        story = self.world.stories[sequence_of(write.body)]
        watched: Any = WatchedFate(fate, lambda outcome: self._note(outcome, story))
        return super().submit(write, watched)

    def reconfigure(self, backend: Backend, settings: SenderSettings) -> None:
        """Go on with another transport, and the schedule's own bounds."""
        super().reconfigure(backend, self.world.settings(settings.name, settings.filter))

    def _note(self, outcome: Reply | BackendFailure, story: QueueStory) -> None:
        self.world.note(f"{self.name} tells of {story.sequence}: {outcome!r}")
        if self.number in story.outcomes:
            self.world.broken(f"{self.name} told twice of write {story.sequence}")
        story.outcomes[self.number] = outcome
        waited = self.world.clock.seconds() - story.submitted
        limit = 2 * self.backend.timeout
        limit += 4 * self.world.commit_delay + 2 * TIMEOUT if self.world.journal_first else 0
        if waited > limit + EPSILON and not story.answers:
            self.world.broken(f"write {story.sequence} waited {waited:g} s at {self.name}, not {limit:g}")


class Transport:
    """A way to a server; another one to the same server does the same in another way."""

    def __init__(self, name: str, server: Server) -> None:
        self.name = name
        self.server = server
        self.timeout = server.timeout
        self.post = server.post
        self.create_database = server.create_database
        self.abort = server.abort
        self.close = server.close

    def does_the_same(self, other: object) -> bool:
        """Never."""
        return self is other

    def retire(self) -> None:
        """Nothing to close."""

    def is_busy(self) -> bool:
        """Tell whether a request is under way, by whatever transport."""
        return bool(self.server.under_way)


class SimulatedListener(Relaying):
    """The real listener, but for its port, with model backends behind it."""

    def __init__(self, config: HTTPListenerConfig, reactor: Any, world: World) -> None:
        self.world = world
        super().__init__(config, reactor)
        self.relay = FanOut(
            config.name, self.senders, reactor, journal=self.writer, journal_first=world.journal_first, clock=world.now
        )
        self.fan_outs = [self.relay]
        self.furnish()

    def make_writer(self, config: Any) -> SimulatedWriter | None:
        """Return a writer whose disk may fail."""
        if config.journal is None:
            return None
        world, directory = self.world, config.journal.directory
        return SimulatedWriter(world, self._reactor, directory, world.limits, on_drop=self._forget, clock=world.now)

    def make_sender(self, output: HTTPOutputConfig, name: str) -> WatchedSender:
        """Return a sender that is watched."""
        world = self.world
        backlog = MemoryBacklog() if self.writer is None else JournalBacklog(self.writer, self._reactor)
        settings = world.settings(output.name, make_filter(output))
        sender = WatchedSender(self.make_backend(output), self._reactor, settings, backlog, jitter=world.rng.random)
        sender.world, sender.number = world, int(output.location.removeprefix("http://"))
        return sender

    def make_backend(self, output: HTTPOutputConfig) -> Backend:
        """Return another transport to a server."""
        transport: Any = Transport(output.name, self.world.servers[int(output.location.removeprefix("http://"))])
        made: Backend = transport
        return made

    def furnish(self) -> None:
        """Let the relay know its senders."""
        self.relay.reconfigure(
            self.name, self.senders, consistency="one", refuse_unjournaled=self.world.refuse_unjournaled
        )


@attrs.frozen(eq=False)
class Process:
    """What is gone when the process is killed."""

    reactor: ProcessClock
    listener: SimulatedListener

    @property
    def relay(self) -> FanOut:
        """What takes writes."""
        return self.listener.relay

    @property
    def writer(self) -> SimulatedWriter | None:
        """The journal's."""
        writer = self.listener.writer
        assert writer is None or isinstance(writer, SimulatedWriter)
        return writer

    @property
    def senders(self) -> list[WatchedSender]:
        """All senders, those that are leaving included."""
        senders = (*self.listener.senders, *self.listener.leaving)
        return [sender for sender in senders if isinstance(sender, WatchedSender)]


class World:
    """One schedule.

    :ivar outputs: which backend is configured under which name, in order.
    :ivar generation: how many processes there were.
    :ivar journal_first: whether no backend may get a write that the journal does not have.
    :cvar destinations: where writes may go.
    """

    destinations: Sequence[Destination] = DESTINATIONS
    make_server: Callable[[int, Any], Server] = Server

    def __init__(self, seed: int, trace: Callable[[str], object] | None = None) -> None:
        self.rng = rng = random.Random(seed)
        self.trace = trace
        self.clock = BoundedClock(self)  # type: ignore[arg-type]
        self.clock._left = MAX_EVENTS
        self.stories: dict[int, QueueStory] = {}
        self.writes: dict[Write, QueueStory] = {}
        self.problems: list[Violation] = []
        self.max_batch = rng.choice((60, 200, 20_000))
        self.max_in_flight = rng.choice((1, 1, 1, 1, 1, 2, 3))
        self.on_disk = rng.random() < 0.7
        self.disk_is_bad = self.disk_hangs = False
        self.commit_delay = rng.choice((0.002, 0.02, MAX_COMMIT))
        self.refuse_unjournaled = rng.random() < 0.5
        self.journal_first = self.on_disk and random.Random(f"{seed} journal first").random() < 0.3
        self.generation = 0
        self.crashes = self.stops = 0
        self.process: Process | None = None
        self.stopping = False
        self._padding = rng.choice((0, 0, 0, 3000))
        self._poison = rng.choice((0.0, 0.1, 0.3))
        self._places = rng.randint(1, len(self.destinations))
        self._consistency = rng.choice(("", "", *CONSISTENCIES))
        self.max_delay = rng.choice((1.0, 10.0))
        self.create_databases = rng.random() < 0.3
        size = QUEUE_BYTES + ENTRY_BYTES + 60 + self._padding
        # With a journal there is room for the queues, else writes would be lost for a backend that may yet get them.
        self.max_waiting = rng.choice((size, 3 * size, 100_000)) + self.on_disk * 4 * QUEUE_BYTES
        self.max_bytes = rng.choice((size, 4 * size, 10 * size, 10_000_000))
        self.drop_oldest = rng.random() < 0.5
        self.limits = JournalLimits()
        self._limit = rng.choice((0, 0, 0, 1, 3)) if self._padding else 0
        self._max_age = rng.choice((0.0, 0.0, 0.0, 2.0, 20.0))
        self.servers = [self.make_server(number, self) for number in range(4)]
        self.outputs = {f"output{number}": self.servers[number] for number in range(rng.choice((2, 2, 3)))}
        for server in self.outputs.values():
            server.configured = True
        self.names = 10
        self._directory = ""

    def broken(self, message: str) -> Violation:
        """Note a violation, also where an exception would end in a Deferred."""
        problem = Violation(message)
        self.problems.append(problem)
        self.note(f"BROKEN: {message}")
        return problem

    def note(self, message: str) -> None:
        """Trace what happens."""
        if self.trace is not None:
            self.trace(f"{self.clock.seconds():8.4f} {message}")

    def by_seq(self, seq: int) -> QueueStory:
        """Return the write that has this number in the present process."""
        return next(
            each for each in reversed(self.stories.values()) if each.generation == self.generation and each.seq == seq
        )

    def note_in_flight(self, backend: ModelBackend, destination: Destination) -> None:
        """Check that no more is under way than may be."""
        count = sum(each == destination for each in backend.under_way.values())
        if count > self.max_in_flight:
            self.broken(f"{backend.name} has {count} requests of one destination in flight")
        if self.clock.seconds() < backend.not_before - EPSILON:
            self.broken(f"{backend.name} was asked before its Retry-After")

    # -- the processes

    def configuration(self, outputs: dict[str, Server]) -> HTTPListenerConfig:
        """Return a configuration with these outputs."""
        made = []
        for name, server in outputs.items():
            url = f"http://{server.number}"
            made.append(HTTPOutputConfig(name, url, url, url, filters=self.filters_of(server)))
        journal = JournalSettings(self._directory) if self.on_disk else None
        return HTTPListenerConfig("simulation", "", "", journal=journal, outputs=tuple(made))

    def settings(self, name: str, wanted: Filter | None) -> SenderSettings:
        """Return how the sender to a backend works in this schedule."""
        return SenderSettings(
            name=name,
            listener="simulation",
            max_batch=self.max_batch,
            max_in_flight=self.max_in_flight,
            max_waiting=self.max_waiting,
            buffer=self.max_bytes,
            drop_oldest=self.drop_oldest,
            max_delay=self.max_delay,
            create_databases=self.create_databases,
            filter=wanted,
        )

    def filters_of(self, server: Server) -> tuple[FilterSettings, ...]:
        """Return what the configuration says of what a server takes."""
        return ()

    def now(self) -> float:
        """Return the time of day."""
        return EPOCH + self.clock.seconds()

    def start(self) -> None:
        """Start a process."""
        self.generation += 1
        reactor = ProcessClock(self)
        listener = SimulatedListener(self.configuration(self.outputs), reactor, self)
        self.process = Process(reactor, listener)
        backlogs = listener.open_journal()
        writer = self.process.writer
        if writer is not None and ((self._limit and not self.limits.max_bytes) or self._max_age):
            most = writer.used + self._limit * 8192 if self._limit else 0
            self.limits = JournalLimits(self.limits.max_bytes or most, self._max_age, self.drop_oldest)
            writer.reconfigure(self.limits, full_sync=False)
        listener.resume(backlogs)
        names = {name: server.number for name, server in self.outputs.items()}
        self.note(f"process {self.generation} starts with {names}, and limits {self.limits}")

    def crash(self) -> None:
        """Kill the process, look at what it leaves, and start another in a while."""
        process = self.process
        if process is None:
            return
        self.note("the process is killed")
        self.crashes += 1
        for story in self.stories.values():
            story.gone = story.gone or not story.answers
        process.reactor.kill()
        for server in self.servers:
            server.forget()
        if process.writer is not None:
            process.writer.kill()
        self._bury(process)
        self._over()

    def stop(self) -> None:
        """Stop the process as the service does, and start another in a while."""
        process = self.process
        if process is None or self.stopping:
            return
        self.note("the process is stopped")
        self.stops += 1
        self.stopping = True
        for sender in process.senders:
            sender.close()
            sender.backend.abort()
        if process.writer is None:
            self._stopped(process)
        else:
            process.writer.stop().addCallback(lambda _: self._stopped(process))

    def _stopped(self, process: Process) -> None:
        if self.process is not process:
            return
        for story in self.stories.values():
            if not (story.answers or story.gone):
                self.broken(f"the client of write {story.sequence} got no answer before the end")
        process.reactor.kill()
        if process.writer is not None:
            process.writer.end()
        for server in self.servers:
            server.forget()
        self._bury(process)
        self._over()

    def _bury(self, process: Process) -> None:
        """Excuse what is lost with the process's memory, and check that nothing else is."""
        self.process = None
        for sender in process.senders:
            server = self.servers[sender.number]
            self._collect(sender.backlog, server)
            # What was stored without an answer may have been overwritten by an older one that was sent again, too.
            held = {sequence_of(entry.write.body) for queue in sender.queues for entry in queue.entries()}
            for story in self.stories.values():
                if not self.on_disk:
                    delivered = story.sequence in server.letters or server.has(story)
                    delivered = delivered and story.sequence not in held
                    if not delivered and not (self.stopping and story.generation == self.generation):
                        story.excused.add(server.number)
                elif story.unjournaled:
                    story.excused.add(server.number)
        if self.on_disk:
            self._check_file()

    @staticmethod
    def _collect(backlog: Backlog, server: Server) -> None:
        if not backlog.outlives:
            server.drops += backlog.losses()
            server.letters |= {sequence_of(letter.write.body) for letter in backlog.dead_letters()}

    def _over(self) -> None:
        self.stopping = False
        self.clock.callLater(self.rng.random(), self._start_another)

    def _start_another(self) -> None:
        rng = self.rng
        change = rng.choice(("", "", "", "", "add", "remove", "rename", "reorder"))
        self.configure(self.changed(rng, change))
        self.start()

    def changed(self, rng: random.Random, change: str) -> dict[str, Server]:
        """Return other outputs."""
        outputs = dict(self.outputs)
        if change == "add":
            free = [server for server in self.servers if not server.configured]
            if free:
                server = rng.choice(free)
                self.names += 1
                outputs[f"output{self.names}"] = server
        elif change == "remove" and len(outputs) > 1:
            outputs.pop(rng.choice(list(outputs)))
        elif change == "rename":
            self.names += 1
            name = rng.choice(list(outputs))
            outputs[f"output{self.names}"] = outputs.pop(name)
        elif change == "reorder":
            items = list(outputs.items())
            rng.shuffle(items)
            outputs = dict(items)
        return outputs

    def configure(self, outputs: dict[str, Server]) -> None:
        """Let other outputs hold: what one that is removed does not have it need not get."""
        before, after = list(self.outputs.values()), list(outputs.values())
        for server in self.servers:
            server.configured = server in after
            if server in after and server not in before:
                server.arrived.clear()
                server.applied.clear()
            if server in before and server not in after:
                for story in self.stories.values():
                    story.excused.add(server.number)
        self.outputs = outputs

    # -- the schedule

    def run(self) -> None:
        """Let the schedule happen, and check it."""
        self._directory = tempfile.mkdtemp(prefix="influxrelay-", dir=SHM if SHM.is_dir() else None)
        try:
            self._run()
        finally:
            if self.process is not None and self.process.writer is not None:
                self.process.writer._tail.close()
                self.process.writer._store.close()
            shutil.rmtree(self._directory)

    def _run(self) -> None:
        rng = self.rng
        length = rng.choice((0.2, 1.0, 5.0, 5.0))
        self.start()
        for _ in range(rng.randint(5, 40)):
            self.clock.callLater(rng.random() * length, self.submit, rng.choice((0, 0, 0, 1, 3)))
        for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
            self.clock.callLater(rng.random() * (length + 1), self.crash)
        if rng.random() < 0.2:
            self.clock.callLater(rng.random() * (length + 1), self.stop)
        if self.on_disk:
            for _ in range(rng.choice((0, 0, 1, 2))):
                begin = rng.random() * length
                self.clock.callLater(begin, rng.choice((self._break_disk, self._break_disk, self._freeze_disk)))
                self.clock.callLater(begin + rng.random() * rng.choice((0.1, 2.0)), self._mend_disk)
        self.plan(length)
        self.clock.callLater(length + 4, self._heal)
        self._until_quiet()
        self._check()

    def plan(self, length: float) -> None:
        """Let more happen within this time."""

    def _break_disk(self) -> None:
        self.note("the disk fails")
        self.disk_is_bad = True

    def _freeze_disk(self) -> None:
        self.note("the disk hangs")
        self.disk_hangs = True

    def _mend_disk(self) -> None:
        self.note("the disk works")
        self.disk_is_bad = self.disk_hangs = False

    def _heal(self) -> None:
        self.note("all is well")
        self.disk_is_bad = self.disk_hangs = False
        for server in self.servers:
            server.heal()

    def _until_quiet(self) -> None:
        clock = self.clock
        while not self.problems and (calls := clock.getDelayedCalls()):
            clock.rightNow = max(clock.rightNow, min(call.getTime() for call in calls))
            clock.advance(0)
        if self.problems:
            raise self.problems[0]

    def submit(self, more: int) -> None:
        """Submit a write, and ``more`` when it is answered, in the moment in which the client is told."""
        if self.process is None or self.stopping:
            return
        rng = self.rng
        sequence = len(self.stories)
        where = rng.randrange(self._places)
        poisoned = rng.random() < self._poison
        points = rng.sample(range(4), rng.choice((1, 1, 2)))
        padding = b',x="%s"' % (b"x" * rng.randrange(self._padding)) if self._padding else b""
        lines = [b"p%d,d=%d v=%di%s 1" % (point, where, sequence, padding) for point in points]
        if poisoned:
            lines.insert(rng.randrange(len(lines) + 1), b"bad,d=%d v=%di !" % (where, sequence))
        query = b"db=a&place=%d" % where + rng.choice((b"", b"", b"", b"&pretty=true"))
        body = b"\n".join(lines) + rng.choice((b"", b"\n"))
        write = Write(self.destinations[where], query, b"", body, rng.random() < 0.85)
        story = QueueStory(sequence, write, self.clock.seconds(), poisoned=poisoned)
        story.generation = self.generation
        story.consistency = self._consistency or rng.choice(CONSISTENCIES)
        parts = {server.number: part_of(body, server.filter) for server in self.outputs.values()}
        story.parts = {number: part for number, part in parts.items() if part}
        self.note(f"write {sequence} to {where}, {story.consistency}{', poisoned' if poisoned else ''}")
        self.hand_in(story, more)

    def hand_in(self, story: QueueStory, more: int) -> None:
        """Give a write to the relay."""
        assert self.process is not None
        self.stories[story.sequence] = self.writes[story.write] = story
        answered = self.process.relay.submit(story.write, story.consistency)
        answered.addCallback(self._told, story, more)
        answered.addErrback(self._odd)

    def _odd(self, failure: Failure) -> None:
        self.broken(failure.getTraceback())

    def _told(self, reply: Reply, story: QueueStory, more: int) -> None:
        self.note(f"write {story.sequence} is answered {reply.status} {reply.body.decode().strip()}")
        if story.gone:
            self.broken(f"write {story.sequence} was answered by a process that is gone")
        story.answers.append(reply)
        if story.parts:
            self._check_answer(story, reply)
        elif reply != TAKEN:
            self.broken(f"write {story.sequence} is for nobody, and was answered {reply.status}")
        if more:
            self.submit(more - 1)

    # -- the contract

    def _check_answer(self, story: QueueStory, reply: Reply) -> None:  # noqa: C901 (one case for each answer)
        """Check an answer in the moment in which the client gets it."""
        outcomes = list(story.outcomes.values())
        servers = [self.servers[number] for number in story.parts]
        having = sum(server.has(story) for server in servers)
        needed = {"quorum": len(servers) // 2 + 1, "all": len(servers)}.get(story.consistency, 1)
        name = f"write {story.sequence} ({story.consistency}) was answered {reply.status}"
        waited = self.clock.seconds() - story.submitted
        limit = 2 * max(server.timeout for server in servers)
        if self.on_disk:
            limit += 4 * self.commit_delay + 2 * TIMEOUT
        if waited > limit + EPSILON:
            self.broken(f"{name} after {waited:g} s, not {limit:g}")
        if self.on_disk and not (story.committed or story.unjournaled):
            self.broken(f"{name} before its commit")
        if reply.status < 300:
            self._check_taken(story, name, having, needed)
        elif b"unable to journal" in reply.body:
            if not (story.unjournaled and self.refuse_unjournaled):
                self.broken(f"{name} although it is in the journal")
        elif story.consistency in ("quorum", "all"):
            failed = [each for each in outcomes if not isinstance(each, Reply) or each.status >= 300]
            decisive = failed[: len(servers) - needed + 1]  # others may have come while the journal was at it
            if len(failed) <= len(servers) - needed:
                self.broken(f"{name} when {len(failed)} had failed")
            if all(map(_is_refusal, decisive)) != (reply.status < 500):
                self.broken(f"{name} after the failures {decisive}")
        elif reply.status < 500 and reply.status not in (408, 425, 429):
            if reply not in [each for answers in story.words.values() for each in answers] and not is_not_ready(reply):
                self.broken(f"{name}, which no backend said of it alone")
        elif len(outcomes) < len(servers):
            self.broken(f"{name} before all backends had failed")

    def _check_taken(self, story: QueueStory, name: str, having: int, needed: int) -> None:
        if self.on_disk and self.refuse_unjournaled and not story.committed:
            self.broken(f"{name} and is not in the journal")
        if having >= needed:
            return
        failures = [each for each in story.outcomes.values() if isinstance(each, BackendFailure)]
        queued = all(each.reason == "not ready" or "dropped from" in each.detail for each in failures)
        safe = story.committed if self.on_disk else queued
        if story.consistency != "any" or not safe:
            self.broken(f"{name}, and {having} backends have it")

    def _must(self, server: Server) -> list[QueueStory]:
        """Return the writes that a backend must get."""
        return [
            story
            for story in self.stories.values()
            if story.taken and server.number in story.parts and server.number not in story.excused
        ]

    def _check_file(self) -> None:
        """Check that the journal's files, as a process has left them, hold all that is needed."""
        store = Store(self._directory, now=self.now())
        try:
            ledger = store.ledger
            log: dict[int, tuple[int, Destination]] = {}
            for where in ledger.last_numbers():
                page = store.read(where, 0, sys.maxsize, [], {})
                if page.damaged or page.upto is not None:
                    self.broken(f"of the journal {page.damaged} are damaged")
                log.update((sequence_of(each.write.body), (each.seq, where)) for each in page.records)
            names = {each.location: each.name for each in store.findings.backends}
            ids = {each.name: each.id for each in store.findings.backends}
            floors = store.findings.floors
            cursors = {each: ledger.cursors(each) for each in floors}
            letters = {(each.backend, sequence_of(each.write.body)) for each in ledger.letters(0, 1_000_000)}
            found = {each: name for name, each in ids.items()}
            drops = [Drop(found[each.backend], *attrs.astuple(each)[1:]) for each in ledger.losses()]
        finally:
            store.close()
        for sequence in log:
            story = self.stories[sequence]
            if story.refused and not story.unstruck:
                self.broken(f"write {sequence} was answered {story.answers[0].status} and is in the journal")
        for server in self.outputs.values():
            lost = []
            name = names.get(f"http://{server.number}", "")
            for story in self._must(server):
                if server.has(story) or (name, story.sequence) in letters:
                    continue
                seq, where = log.get(story.sequence, (0, story.write.destination))
                backend = ids.get(name, 0)
                if seq <= cursors.get(backend, {}).get(where, floors.get(backend, sys.maxsize)):
                    lost.append(story)
            self._check_lost(name, lost, [drop for drop in drops if drop.backend == name])

    def _check_lost(self, name: str, lost: list[QueueStory], drops: list[Drop]) -> None:
        """Check that what is lost for a backend is counted, and in a range of time."""
        for story in lost:
            if not any(_covers(drop, story) for drop in drops):
                self.broken(f"write {story.sequence} was taken, and is lost at {name}; drops: {drops}")
        if len(lost) > sum(drop.writes for drop in drops):
            numbers = [story.sequence for story in lost]
            self.broken(f"the writes {numbers} are lost at {name}; drops: {drops}")

    def _check(self) -> None:
        """Check what holds at the end of a schedule."""
        process = self.process
        assert process is not None
        for story in self.stories.values():
            if len(story.answers) != (0 if story.gone else 1):
                self.broken(f"the client of write {story.sequence} got {len(story.answers)} answers")
        drops: list[Drop] = []
        letters: set[tuple[str, int]] = set()
        if process.writer is not None:
            drops, letters = self._check_rest(process.writer)
        for sender in process.senders:
            server = self.servers[sender.number]
            self._collect(sender.backlog, server)
            drops += [attrs.evolve(drop, backend=sender.name) for drop in server.drops]
            letters |= {(sender.name, sequence) for sequence in server.letters}
            self._check_idle(sender)
        for name, server in self.outputs.items():
            self._check_server(
                name,
                server,
                [drop for drop in drops if drop.backend == name],
                {sequence for backend, sequence in letters if backend == name},
            )
        if self.problems:
            raise self.problems[0]

    def _check_rest(self, writer: SimulatedWriter) -> tuple[list[Drop], set[tuple[str, int]]]:
        """Check that a journal keeps nothing more, and return what it has counted, and its dead letters."""
        house, ledger = writer._house, writer._store.ledger
        drops = [drop for each in house.registry.backends for drop in house.accounts.losses(each.id, each.name)]
        letters = {(each.backend, sequence_of(each.write.body)) for each in ledger.letters(0, 1_000_000)}
        left = [each.name for each in Path(self._directory).glob("*.log")]
        if left or house.cursors.behind:
            self.broken(f"the log has something left: {left}, {house.cursors.lowest()}")
        if writer.trouble or not writer._tail.is_idle:
            self.broken(f"the journal is not at rest: {writer.trouble}")
        return drops, letters

    def _check_server(self, name: str, server: Server, drops: list[Drop], letters: set[int]) -> None:
        must = self._must(server)
        there = [story for story in must if server.has(story)]
        self._check_lost(
            name, [story for story in must if not server.has(story) and story.sequence not in letters], drops
        )
        for sequence in letters:
            story = self.stories[sequence]
            if story.refused and not story.unstruck:
                self.broken(f"write {sequence} was answered {story.answers[0].status}, and is a dead letter of {name}")
            if not story.poisoned:
                self.broken(f"write {sequence} is a dead letter of {name}, which never refused it")
        if self.max_in_flight == 1:
            self._check_order(name, server, there, drops)

    def _check_order(self, name: str, server: Server, there: list[QueueStory], drops: list[Drop]) -> None:
        """Check that no write has overtaken an older one."""
        wanted = {story.sequence for story in there}
        for what in ("arrived", "applied"):
            for order in getattr(server, what).values():
                first = [sequence for sequence in order if sequence in wanted]
                if first != sorted(first):
                    self.broken(f"at {name} writes of one destination {what} in the order {first}")
        self._check_points(name, server, there, drops)

    def _check_points(self, name: str, server: Server, there: list[QueueStory], drops: list[Drop]) -> None:
        """Check that no newer value has been overwritten."""
        newest: dict[bytes, int] = {}
        for story in there:
            if any(_covers(drop, story) for drop in drops):
                continue  # an older one may have been sent again, and then this one was dropped
            for line in story.parts[server.number].split(b"\n"):
                if line:
                    newest[line.partition(b" ")[0]] = story.sequence
        for point, sequence in newest.items():
            if server.points[point] < sequence:
                self.broken(f"at {name} write {server.points[point]} overwrote {point!r} of {sequence}")

    def _check_idle(self, sender: WatchedSender) -> None:
        """Check that a sender has forgotten everything."""
        left = (sender.queues.memory.size, sender.requests.in_flight, len(sender.queues), len(sender.clients))
        if left != (0, 0, 0, 0):
            self.broken(f"{sender.name} has something left: {left}")
        if not sender.drained().called:
            self.broken(f"{sender.name} is not drained")


def run(first: int, count: int, report: Callable[[int, Violation], object], world: type[World] = World) -> int:
    """Run schedules, report those that break the contract, and return how many did."""
    broken = 0
    for seed in range(first, first + count):
        try:
            world(seed).run()
        except Violation as problem:
            broken += 1
            report(seed, problem)
    return broken


def main(arguments: list[str], world: type[World] = World) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("seed", type=int, nargs="?")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args(arguments)
    write = sys.stdout.write
    if options.seed is not None:
        try:
            world(options.seed, lambda line: write(line + "\n")).run()
        except Violation as problem:
            write(f"seed {options.seed}: {problem}\n")
            return 1
        return 0
    started = time.monotonic()
    broken = run(options.first, options.count, lambda seed, problem: write(f"seed {seed}: {problem}\n"), world)
    seconds = time.monotonic() - started
    write(f"{options.count} schedule(s) in {seconds:.1f} s, {broken} broken\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
