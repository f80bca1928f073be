"""The delivery of relays that share a journal: the real fan-outs and senders, while everything fails.

``python -m tests.simulation.sharing --count N`` runs N schedules, ``python -m tests.simulation.sharing SEED`` shows
one.
Clients overwrite the same points through all relays, at every level of consistency. Every server comes to have whatever
was acknowledged, and no value is overwritten by one that had been acknowledged before it began. Where the servers
differ at last, it is by a write that was not acknowledged.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Reply, Write
from influxrelay.delivery.connection_pool import NOT_OURS, Gate
from influxrelay.delivery.fanout import FanOut
from influxrelay.delivery.from_log import FromLog
from influxrelay.delivery.journal_backlog import JournalBacklog
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.settings import SenderSettings
from influxrelay.journal.records import JournalLimits
from influxrelay.journal.shared.frames import end_of
from influxrelay.journal.shared.log import SharedJournal
from influxrelay.journal.shared.state import BackendState
from testing.memory_store import EPOCH
from testing.shared_journals import LEASE, Relay
from tests.simulation.group import GroupWorld
from tests.simulation.schedule import DESTINATIONS, main

NAMES = ("a", "b")
POINTS = 4  # that are overwritten, in each destination
TIMEOUT = 2.0
TRAVEL = 0.05  # seconds at most; a request that takes longer than a lease's margin may come too late
LEVELS = ("one", "one", "any", "quorum", "all")


@attrs.define(eq=False)
class Story:
    """A write, whose value is its number.

    :ivar began: and ``ended``, on the world's clock; ``status`` is what the client was told.
    """

    number: int
    where: int
    began: float
    ended: float = 0.0
    status: int = 0

    @property
    def body(self) -> bytes:
        """Two lines: a point that others overwrite, and one of its own."""
        return b"p%d v=%di\nown v=%di %d\n" % (self.number % POINTS, self.number, self.number, self.number)


class Server:
    """A model of InfluxDB.

    :ivar points: values, by destination and point.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_up = True
        self.points: dict[tuple[int, bytes], int] = {}

    def take(self, where: int, body: bytes) -> None:
        """Store what is in a body."""
        for line in body.splitlines():
            point, _, rest = line.partition(b" v=")
            value = int(rest.partition(b"i")[0])
            self.points[where, b"own %d" % value if point == b"own" else point] = value


class Transport:
    """The way from a relay to a server; what is sent arrives, whatever becomes of the relay."""

    timeout = TIMEOUT

    def __init__(self, world: World, relay: Sharing, server: Server) -> None:
        self._world = world
        self._relay = relay
        self._server = server
        self._pending: set[Deferred[Reply]] = set()
        self._gate: Gate = lambda: True

    def post(self, write: Write, body_parts: Sequence[bytes]) -> Deferred[Reply]:
        """Send a request, if that may still be."""
        if not self._gate():
            return fail(BackendFailure(NOT_OURS, "so says the gate"))
        posted: Deferred[Reply] = Deferred()
        self._pending.add(posted)
        where, rng = DESTINATIONS.index(write.destination), self._world.rng
        body = b"".join(body_parts)
        self._world.note(
            f"{self._relay.journal.relay} sends {body.count(b'own')} to {self._server.name}: {body[:20]!r}"
        )
        self._world.clock.callLater(rng.random() * TRAVEL, self._arrive, where, body, posted)
        timer = self._relay.clock.callLater(TIMEOUT, self._end, posted, BackendFailure("timeout", "no answer"))
        posted.addBoth(_end_timer, timer)
        return posted

    def _arrive(self, where: int, body: bytes, posted: Deferred[Reply]) -> None:
        rng, outcome = self._world.rng, None
        if not self._server.is_up:
            outcome = BackendFailure("refused", "it is down")
        elif rng.random() < self._world.errors:
            outcome = BackendFailure("500", "no", Reply(500, (), b"no"))
        else:
            self._server.take(where, body)
        if outcome is not None or rng.random() >= self._world.errors / 4:  # else the answer is lost
            self._relay.clock.callLater(rng.random() * TRAVEL, self._end, posted, outcome or Reply(204))

    def _end(self, posted: Deferred[Reply], outcome: Any) -> None:
        if posted in self._pending:
            self._pending.discard(posted)
            if isinstance(outcome, Reply):
                posted.callback(outcome)
            else:
                posted.errback(Failure(outcome))

    def guard(self, gate: Gate) -> None:
        """Ask this before each request."""
        self._gate = gate

    def abort_writes(self) -> None:
        """Fail what is in flight, which may arrive all the same."""
        for posted in list(self._pending):
            self._end(posted, BackendFailure("stopped", "given up"))

    abort = retire = abort_writes

    def abort_changes(self) -> None:
        """Have none."""

    def create_database(self, write: Write) -> Deferred[Reply]:
        """Have them all."""
        return succeed(Reply(204))

    def ping(self) -> Deferred[Reply]:
        """Answer."""
        return succeed(Reply(204))

    def close(self) -> Deferred[None]:
        """Have nothing to close."""
        return succeed(None)

    def does_the_same(self, other: object) -> bool:
        """Tell whether it is this one."""
        return self is other

    def is_busy(self) -> bool:
        """Tell whether a request is under way."""
        return bool(self._pending)


def _end_timer(result: Any, timer: IDelayedCall) -> Any:
    if timer.active():
        timer.cancel()
    return result


class Sharing:
    """A relay with its delivery."""

    def __init__(self, world: World, name: str) -> None:
        self.clock = Clock()
        self.clock.rightNow = world.clock.seconds()
        self.engine = world.cluster.engine(self.clock)
        self.journal = SharedJournal(
            self.clock, self.engine, name, JournalLimits(), lease=LEASE, clock=world.now, steady=self.clock.seconds
        )
        self.keys: dict[str, Any] = {}
        senders = []
        journal: Any = self.journal
        for each in NAMES:
            backlog = self.keys[each] = JournalBacklog(journal, self.clock)
            settings = SenderSettings(each, name, max_delay=1.0, max_batch=world.rng.choice((30, 1000, 10**6)))
            transport: Any = Transport(world, self, world.servers[each])
            senders.append(Sender(transport, self.clock, settings, backlog, jitter=world.rng.random))
        self.hand_out = FromLog(journal, self.clock, clock=world.now)
        self.fan_out = FanOut(name, senders, self.hand_out, refuse_unjournaled=True)
        backends: dict[Any, tuple[str, str]] = {key: (each, f"http://{each}") for each, key in self.keys.items()}
        self.opened = self.journal.open(backends, self.hand_out.follower)
        self.opened.addCallback(lambda _: self.hand_out.begin())


class World(GroupWorld):
    """One schedule."""

    def __init__(self, seed: int, trace: Callable[[str], object] | None = None) -> None:
        super().__init__(seed, trace)
        self.servers = {name: Server(name) for name in NAMES}
        self.stories: list[Story] = []
        self.errors = self.rng.choice((0.0, 0.02, 0.2))
        self._rate = self.rng.choice((0.05, 0.3, 1.0))

    def make_relay(self, name: str) -> Any:
        """Return one with its delivery."""
        return Sharing(self, name)

    def now(self) -> float:
        """Return seconds since the epoch."""
        return EPOCH + self.clock.seconds()

    def act(self) -> None:
        """Write something; servers go down and come up."""
        self.write_and_fail(self.write, list(self.servers.values()), 0.005)

    def write(self, relay: Any) -> None:
        """Write something through a relay."""
        where = self.rng.randrange(2)
        story = Story(len(self.stories) + 1, where, self.clock.seconds())
        self.stories.append(story)
        made = Write(DESTINATIONS[where], b"db=a", b"", story.body)
        relay.fan_out.submit(made, self.rng.choice(LEVELS)).addCallbacks(self.told, self.odd, callbackArgs=(story,))

    def told(self, reply: Reply, story: Story) -> None:
        """Note what a client is told."""
        story.status, story.ended = reply.status, self.clock.seconds()
        self.note(f"{story.number} is answered {reply.status}")

    def odd(self, failure: Failure) -> None:
        """Note what should not be."""
        self.broken(failure.getTraceback())

    def heal(self) -> None:
        """Let all be well."""
        super().heal()
        self.errors = 0.0
        for server in self.servers.values():
            server.is_up = True

    def check(self) -> None:
        """Check that no two deliver."""
        for name in NAMES:
            valid = self.delivered_by(name)
            if len(valid) > 1:
                self.broken(f"{' and '.join(each.journal.relay for each in valid)} have the lease of {name}")

    def delivered_by(self, key: Any) -> list[Relay]:
        """Return which relays deliver to a backend."""
        relays: list[Any] = [each.relay for each in self.machines]
        return [each for each in relays if each.journal.is_valid(each.keys[key])]

    def is_done(self) -> bool:
        """Wait until nothing waits."""
        if any(each.relay.engine.open for each in self.machines) or not all(map(self.delivered_by, NAMES)):
            return False
        states = [BackendState.decode(each.value) for each in self.cluster.values.entries.values() if each.value]
        return min(each.cursor for each in states) >= end_of(self.cluster.log.last)

    def check_end(self) -> None:
        """Check what the servers have."""
        acknowledged = {story.number: story for story in self.stories if 0 < story.status < 300}
        for server in self.servers.values():
            for story in acknowledged.values():
                if server.points.get((story.where, b"own %d" % story.number)) is None:
                    self.broken(f"{story.number} was acknowledged, and is missing at {server.name}")
            for (where, point), value in server.points.items():
                last = acknowledged.get(value)
                later = [
                    each.number
                    for each in acknowledged.values()
                    if last is not None and each.where == where and each.began > last.ended
                    if point == b"p%d" % (each.number % POINTS)
                ]
                if later:
                    self.broken(f"{value} has overwritten {later[:5]} at {server.name}")
        one, two = (each.points for each in self.servers.values())
        for place in one.keys() & two.keys():
            if one[place] != two[place] and {one[place], two[place]} <= acknowledged.keys():
                self.broken(f"{place} is {one[place]} and {two[place]}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], World))
