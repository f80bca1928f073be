"""One process of the simulation of relays with queues: the real listener with its senders and its journal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.interfaces import IDelayedCall

from influxrelay.config.settings import HTTPListenerConfig, HTTPOutputConfig
from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Reply, Write
from influxrelay.delivery.backend import Backend
from influxrelay.delivery.backlog import MemoryBacklog
from influxrelay.delivery.fanout import FanOut
from influxrelay.delivery.fate import Fate
from influxrelay.delivery.journal_backlog import JournalBacklog
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.settings import SenderSettings
from influxrelay.listeners.journaling import DirectoryJournal, NoJournal
from influxrelay.listeners.output_settings import make_filter
from influxrelay.listeners.relaying import Relaying
from testing.fanout import make_hand_out
from tests.simulation.disk import TIMEOUT, SimulatedWriter
from tests.simulation.queue_server import QueueSchedule, QueueStory, Server
from tests.simulation.schedule import EPSILON, sequence_of
from tests.simulation.settle import WatchedFate


class ProcessClock:
    """The reactor of one process: its timers end with it."""

    def __init__(self, world: QueueSchedule) -> None:
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

    world: QueueSchedule
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

    def __init__(self, config: HTTPListenerConfig, reactor: Any, world: QueueSchedule) -> None:
        self.world = world
        super().__init__(config, reactor)
        self.relay = FanOut(
            config.name,
            self.senders,
            make_hand_out(reactor, self.writer, journal_first=world.journal_first, clock=world.now),
        )
        self.fan_outs = [self.relay]
        self.furnish()

    def make_journal(self, config: Any) -> NoJournal:
        """Return one whose disk may fail."""
        if config.journal is None:
            return NoJournal(self._reactor, self)
        world, directory = self.world, config.journal.directory
        writer = SimulatedWriter(world, self._reactor, directory, world.limits, on_drop=self._forget, clock=world.now)
        return DirectoryJournal(self._reactor, self, writer)

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
