"""Relays that share a journal in memory: each with its own clock, so that one can stop while the others go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import BackendFailure, JournalError
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.journal.interface import Key, Positions
from influxrelay.journal.records import Contents, JournalLimits, Record
from influxrelay.journal.shared.log import SharedJournal
from influxrelay.journal.shared.state import BackendState
from testing.journal_cases import BACKENDS, PLACE, write
from testing.memory_store import EPOCH
from testing.memory_stream import MemoryCluster, MemoryEngine

T = TypeVar("T")

LEASE = 5.0
STEP = 0.01  # seconds by which all clocks go on at once


class Relay:
    """One relay of a group, of which a test sees everything.

    :ivar handed: numbers and origins of what was handed out.
    :ivar held: positions of the backends to which it delivers, by name.
    :ivar events: everything else that it was told.
    """

    def __init__(
        self,
        cluster: MemoryCluster,
        name: str,
        limits: JournalLimits | None = None,
        *,
        backends: Mapping[Key, tuple[str, str]] = BACKENDS,
        timeout: float = 10.0,
        before: Callable[[Any], object] = lambda relay: None,
    ) -> None:
        before(self)
        self.clock = Clock()
        self.clock.rightNow = cluster.clock.seconds()
        self.engine: MemoryEngine = cluster.engine(self.clock, timeout=timeout)
        self.handed: list[tuple[int, str]] = []
        self.records: dict[int, Record] = {}
        self.held: dict[Key, dict[Destination, int]] = {}
        self.events: list[tuple[Any, ...]] = []
        self.outcomes: list[tuple[int, str, Reply | BackendFailure]] = []
        self.kept: list[int] = []
        self.struck: list[int] = []
        self.is_running = True
        self.journal = SharedJournal(
            self.clock,
            self.engine,
            name,
            limits or JournalLimits(),
            lease=LEASE,
            clock=lambda: EPOCH + cluster.clock.seconds(),
            steady=self.clock.seconds,
        )
        self.opened: Deferred[None] = self.journal.open(backends, self)

    # -- what a follower is told

    def hand_out(self, records: Sequence[Record], origin: str) -> None:
        """Note it."""
        for each in records:
            self.handed.append((each.seq, origin))
            self.records[each.seq] = each

    def outcome(self, number: int, backend: str, result: Reply | BackendFailure) -> None:
        """Note it."""
        self.outcomes.append((number, backend, result))

    def decided(self, numbers: Sequence[int], *, kept: bool) -> None:
        """Note it."""
        (self.kept if kept else self.struck).extend(numbers)

    def gained(self, key: Key, positions: Positions, last_number: int) -> None:
        """Note it."""
        self.held[key] = dict(positions)
        self.events.append(("gained", key, last_number))

    def lost(self, key: Key) -> None:
        """Note it."""
        del self.held[key]
        self.events.append(("lost", key))

    def dropped(self, key: Key, destination: Destination, upto: int) -> None:
        """Note it."""
        self.events.append(("dropped", key, destination, upto))

    def given_up(self, key: Key, upto: int) -> None:
        """Note it."""
        self.events.append(("given up", key, upto))

    def paused(self, key: Key, *, paused: bool) -> None:
        """Note it."""
        self.events.append(("paused", key, paused))


class SharedCase(SynchronousTestCase):
    """A group of relays."""

    def setUp(self) -> None:
        """Make a cluster."""
        self.world = Clock()
        self.relays: list[Relay] = []
        self.cluster = self.make_cluster()

    def make_cluster(self, **settings: Any) -> MemoryCluster:
        """Return a cluster with other settings."""
        return MemoryCluster(self.world, **settings)

    def relay(self, name: str, **settings: Any) -> Relay:
        """Start a relay, and wait until it is open."""
        relay = Relay(self.cluster, name, **settings)
        self.relays.append(relay)
        self.result(relay.opened)
        return relay

    def later(self, seconds: float = 0.1) -> None:
        """Let time pass for all that run."""
        for _ in range(max(1, round(seconds / STEP))):
            self.world.advance(STEP)
            for relay in self.relays:
                if relay.is_running:
                    relay.clock.advance(self.world.seconds() - relay.clock.seconds())

    def stop(self, relay: Relay) -> None:
        """Stop a relay's process, as SIGSTOP does."""
        relay.is_running = False
        relay.engine.pause()

    def go_on(self, relay: Relay) -> None:
        """Let it run again."""
        relay.is_running = True
        relay.engine.resume()

    def kill(self, relay: Relay) -> None:
        """End a relay, as SIGKILL does."""
        relay.engine.vanish()
        relay.is_running = False
        self.relays.remove(relay)

    def result(self, deferred: Deferred[T], seconds: float = 30.0) -> T:
        """Let time pass until something has come out."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        begin = self.world.seconds()
        while not results and self.world.seconds() < begin + seconds:
            self.later(STEP)
        self.assertTrue(results, "nothing has come out")
        if isinstance(results[0], Failure):
            results[0].raiseException()
        found: T = results[0]
        return found

    def append(self, relay: Relay, *bodies: bytes, where: Destination = PLACE) -> list[int]:
        """Append writes at once, and return their numbers."""
        appended = [relay.journal.append_shared(Record(0, self.now(), write(each, where))) for each in bodies]
        return [self.result(each) for each in appended]

    def now(self) -> float:
        """Return seconds since the epoch."""
        return EPOCH + self.world.seconds()

    def until(self, condition: Any, seconds: float = 30.0) -> None:
        """Let time pass until something is true."""
        begin = self.world.seconds()
        while not condition():
            self.assertLess(self.world.seconds(), begin + seconds, "it has not become true")
            self.later(STEP)

    def deliverer(self, backend: Key = "a") -> Relay:
        """Return the relay that delivers to a backend."""
        self.until(lambda: any(backend in each.held for each in self.relays))
        (relay,) = [each for each in self.relays if backend in each.held]
        return relay

    def read(self, relay: Relay, after: int = 0, max_bytes: int = 1000000, where: Destination = PLACE) -> list[bytes]:
        """Return the bodies that are read of a destination."""
        bodies: list[bytes] = []
        while True:
            records, upto = self.result(relay.journal.read(where, after, max_bytes))
            bodies += [each.write.body for each in records]
            if not records and upto >= relay.journal.last_number:
                return bodies
            after = upto

    def contents(self, relay: Relay) -> Contents:
        """Return what a relay says that there is."""
        return self.result(relay.journal.contents())

    def fails(self, deferred: Deferred[Any], seconds: float = 30.0) -> str:
        """Return with which JournalError something fails."""
        return str(self.assertRaises(JournalError, self.result, deferred, seconds))


def large(size: int, where: Destination = PLACE) -> Write:
    """Return a write whose body has so many bytes."""
    return write(b"x" * (size - 1) + b"\n", where)


ONE: dict[object, tuple[str, str]] = {"a": ("a", "http://a")}


class GroupCase(SharedCase):
    """A group, and what its bucket has."""

    def state(self, backend: str = "a") -> BackendState:
        """Return what the bucket has of a backend."""
        value = self.cluster.values.entries[f"backend.{backend}"].value
        assert value is not None
        return BackendState.decode(value)

    def drops(self, relay: Relay) -> list[tuple[str, str, int, int]]:
        """Return what a relay says that was lost."""
        return [(each.backend, each.reason, each.writes, each.bytes) for each in self.contents(relay).drops]


def record_for(where: Destination) -> Record:
    """Return a write to a destination."""
    return Record(0, 1.0, write(b"x\n", where))
