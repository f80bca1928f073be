"""A journal that several relays share: a replicated log, and a cursor for each backend."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure, JournalError
from influxrelay.core.histogram import Histogram
from influxrelay.core.timeouts import within as _within
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.journal.interface import Key, Positions, Receipt
from influxrelay.journal.records import Contents, DeadLetter, Depth, Drop, JournalLimits, Record
from influxrelay.journal.shared.committer import Committer, first_of_all
from influxrelay.journal.shared.counts import Counter
from influxrelay.journal.shared.frames import Destinations, LogHead, Struck
from influxrelay.journal.shared.group import Group
from influxrelay.journal.shared.guard import Guard
from influxrelay.journal.shared.housekeeping import Housekeeper
from influxrelay.journal.shared.index import Index
from influxrelay.journal.shared.interface import Engine
from influxrelay.journal.shared.lease import steady
from influxrelay.journal.shared.letters import Letters
from influxrelay.journal.shared.operator import Operator
from influxrelay.journal.shared.reader import Reader
from influxrelay.journal.shared.relay_messages import RelayMessages
from influxrelay.journal.shared.relay_requests import RelayRequests
from influxrelay.journal.shared.tail import Tail
from influxrelay.journal.shared_log import Elsewhere, Follower

LEASE = 5.0  # seconds


class SharedJournal:
    """The journal of one relay in a group; see :class:`influxrelay.journal.shared_log.SharedLog`.

    :param relay: a name that no other process has, or has had.
    :param lease: seconds until another relay delivers what a dead one did.
    :param clock: returns seconds since the epoch.
    :param steady: returns seconds on a clock that goes on while the process is stopped.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        engine: Engine,
        relay: str,
        limits: JournalLimits,
        *,
        lease: float = LEASE,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = steady,
    ) -> None:
        self._reactor = reactor
        self._engine = engine
        self._relay = relay
        self._clock = clock
        self._told = ""  # what was logged
        self._is_open = False
        self._follower = Guard()
        self._index = Index()
        destinations = Destinations()
        stream = engine.log
        self._reader = Reader(stream, self._index, destinations, self._count_gone, self._damaged)
        self._counter = Counter(self._index, self._reader)
        self._letters = Letters(reactor, engine.letters, relay, destinations)
        self._house = Housekeeper(
            reactor,
            stream,
            index=self._index,
            reader=self._reader,
            counter=self._counter,
            letters=self._letters,
            follower=self._follower,
            clock=clock,
        )
        self._house.limit(limits)
        self._tail = Tail(
            stream,
            relay,
            self._index,
            self._reader,
            destinations,
            wants_records=lambda: self._delivers,
            hand_out=self._hand_out,
            missed=self._house.count_missed,
            struck=partial(self._follower.decided, kept=False),
            reactor=reactor,
            now=clock,
        )
        self._committer = Committer(reactor, stream, relay, self._tail.stored, self._look)
        self._tail.committer = self._committer
        self._group = Group(
            reactor,
            engine.bucket,
            relay,
            lease,
            steady,
            index=self._index,
            follower=self._follower,
            tail=self._tail,
            count_dropped=self._house.stood_up,
            is_ready=self._ready,
            on_problem=self._committer.refuse,
        )
        self._messages = RelayMessages(
            reactor,
            engine,
            relay,
            on_outcome=self._follower.outcome,
            on_kept=partial(self._follower.decided, kept=True),
            is_alone=lambda: self._group.is_alone,
        )
        self._requests = RelayRequests(reactor, engine, relay)
        self.ask, self.answer_by = self._requests.ask, self._requests.answer_by
        self._operator = Operator(
            self._group, self._index, letters=self._letters, counter=self._counter, reader=self._reader, tail=self._tail
        )

    # -- start and stop

    def open(self, backends: Mapping[Key, tuple[str, str]], follower: Follower) -> Deferred[None]:
        """Find out what is in the log, and register the backends; leases come later, one by one.

        After a failure this may be called again.
        """
        self._follower.follower = follower
        return Deferred.fromCoroutine(self._open(backends))

    async def _open(self, backends: Mapping[Key, tuple[str, str]]) -> None:
        await self._engine.connect()
        state = await self._engine.log.state()  # nothing that follows fails: all of this may be tried again until here
        self._house.begin = state.first_seq
        await self._messages.open()
        await self._requests.open()
        await self._group.open()
        self._house.start(self._group, self._committer)
        await self._tail.open(state.first_seq - 1)
        await self._letters.open()
        self._is_open = True
        self._group.register(backends)
        await self._group.make_known()

    def stop(self, within: float = math.inf) -> Deferred[None]:
        """Finish what has been given, write the positions down, give the leases back, and leave."""
        return Deferred.fromCoroutine(self._end(within))

    async def _end(self, seconds: float) -> None:
        stopped = Deferred.fromCoroutine(self._stop()).addErrback(self._not_stopped)
        await (_within(seconds, stopped, self._reactor) if seconds < math.inf else stopped)
        self._is_open = False
        self._committer.give_up(JournalError(f"{self.place}: the relay is stopping"))
        for part in (self._tail, self._letters, self._messages, self._requests):
            part.close()
        await self._engine.close().addErrback(self._not_stopped)

    async def _stop(self) -> None:
        self._house.close()
        if self._is_open:
            await self._committer.drained()
            await self._group.close()

    def _not_stopped(self, failure: Failure) -> None:
        if not failure.check(JournalError):
            self._log.failure("the journal at {place}", failure, place=self.place)

    # -- trouble

    @property
    def trouble(self) -> str:
        """What is wrong, as long as it is; empty if all is well."""
        return (self._engine.trouble or self._committer.trouble) if self._is_open else ""

    @property
    def risk(self) -> str:
        """What may cost acknowledged writes although all is well."""
        return self._engine.risk

    @property
    def why_unavailable(self) -> str:
        """Why a write would not be journaled now; empty if it would, as far as is known."""
        return f"the journal does not work: {self.trouble}" if self.trouble else ""

    def _look(self) -> None:
        """Log what is wrong, once, and that it no longer is."""
        trouble = self._committer.trouble
        if trouble and not self._told:
            self._log.critical("the journal at {place}: {trouble}", place=self.place, trouble=trouble)
        elif self._told and not trouble:
            self._log.info("the journal at {place} works again", place=self.place)
        self._told = trouble

    def probe(self) -> Deferred[None]:
        """Find out whether the log takes anything; :attr:`trouble` tells afterwards."""
        return self._committer.probe()

    # -- what is known without asking

    @property
    def relay(self) -> str:
        """What this process is called in the group."""
        return self._relay

    @property
    def place(self) -> str:
        """Where the log is, for people."""
        return self._engine.place

    @property
    def last_number(self) -> int:
        """The end of what was handed out."""
        return self._index.head

    @property
    def used(self) -> int:
        """Bytes that the log and the dead letters take, as of a moment ago."""
        return self._house.used

    @property
    def max_bytes(self) -> int:
        """How much the journal may keep; 0 for no limit."""
        return self._house.limits.max_bytes

    @property
    def commits(self) -> Histogram:
        """The seconds that each message took to be stored."""
        return self._committer.commits

    def losses(self, key: Key) -> list[Drop]:
        """Return what was lost for a backend."""
        backend = self._group.leased_backend(key)
        return [] if backend is None else self._operator.losses(backend.name)

    # -- writes

    def next_number(self) -> int:
        """Return 0: the log gives the numbers."""
        return 0

    def append(self, record: Record) -> Deferred[None]:
        """Add a write; fires when a quorum has it."""
        return self.append_shared(record).addCallback(lambda _: None)

    def append_shared(self, record: Record) -> Deferred[int]:
        """Add a write; fires with its number."""
        done: Deferred[Any] = Deferred()
        self._committer.append(record, done)
        return done.addCallback(lambda _: record.seq)

    def append_for(self, record: Record, receipt: Receipt) -> None:
        """Add a write, and have somebody told who must not raise."""
        self._committer.append(record, receipt)

    def strike(self, number: int) -> Deferred[None]:
        """Take back a write that no client was told was taken."""
        if self._index.is_forgotten(number):
            return succeed(None)
        write = self._committer.recent(number)
        struck = Struck(number) if write is None else Struck(number, len(write.body), write.destination)
        self._index.strike([struck])
        self._follower.decided([number], kept=False)
        return self._committer.strike(struck)

    def read(self, destination: Destination, after: int, max_bytes: int) -> Deferred[tuple[list[Record], int]]:
        """Read the next writes of a destination, and say up to which number they are all."""
        return Deferred.fromCoroutine(self._reader.read(destination, after, max_bytes))

    @property
    def _delivers(self) -> bool:
        return bool(self._group.delivered)

    def _hand_out(self, head: LogHead, seq: int, records: Sequence[Record]) -> None:
        delivered = self._group.delivered
        for backend in delivered:
            backend.appended(seq, head.parts)
        if delivered and records:
            self._house.note(head, records)
            self._follower.hand_out(records, head.origin)

    def _count_gone(self) -> Deferred[int]:
        return Deferred.fromCoroutine(self._house.look()).addCallback(lambda state: state.first_seq)

    def _damaged(self, seq: int, error: ValueError) -> None:
        self._log.error("{place}: message {seq}: {error}", place=self.place, seq=seq, error=error)
        self._reactor.callLater(0.0, self._house.count_damaged, seq)  # it may not be in the index yet

    # -- between deliverer and origin

    def outcome(self, number: int, origin: str, backend: str, result: Reply | BackendFailure) -> None:
        """Tell a write's origin what became of it at a backend; at once if that is this relay."""
        if origin == self._relay:
            self._follower.outcome(number, backend, result)
        else:
            self._messages.outcome(number, origin, backend, result)

    def decided(self, numbers: Iterable[int]) -> None:
        """Tell the deliverers that own writes are kept; this relay's own at once."""
        numbers = tuple(numbers)
        self._follower.decided(numbers, kept=True)
        self._messages.kept(numbers)

    # -- leases, positions, and what goes with them

    def is_valid(self, key: Key) -> bool:
        """Tell whether this relay has a backend's lease at this moment."""
        backend = self._group.leased_backend(key)
        return backend is not None and backend.is_valid

    def deliverers(self) -> dict[str, str]:
        """Return which relay delivers to each backend, as far as is known; empty if none does."""
        return {name: state.owner for name, (state, _) in self._group.states.items() if not state.removed}

    def elsewhere(self, key: Key) -> Elsewhere:
        """Return what is known of a backend to which this relay does not deliver."""
        backend = self._group.leased_backend(key)
        return Elsewhere() if backend is None else self._operator.elsewhere(backend.name, self._clock())

    def advance(self, key: Key, destination: Destination, number: int) -> None:
        """Note that a backend is done with a destination up to this number."""
        backend = self._group.leased_backend(key)
        if backend is not None:
            backend.advance(destination, number)

    def keep_positions(self) -> Deferred[None]:
        """Fire when what was noted until now is written down, of all backends that this relay delivers to."""
        saved = gatherResults([each.save() for each in self._group.delivered], consumeErrors=True)
        return saved.addCallbacks(lambda _: None, first_of_all)

    def bury(self, key: Key, when: float, write: Write, status: int, message: str) -> None:
        """Keep a write that a backend has refused for good, with what it said."""
        if (backend := self._group.leased_backend(key)) is not None and backend.progress is not None:
            backend.bury(self._letters.bury(backend.name, when, write, status, message))

    def count_loss(self, key: Key, reason: str, when: float, size: int) -> None:
        """Count a write that a backend will not get."""
        backend = self._group.leased_backend(key)
        if backend is not None:
            backend.count(Drop(backend.name, reason, 1, size, when, when))

    def reconfigure(self, limits: JournalLimits, *, full_sync: bool) -> None:  # noqa: ARG002 (the servers' settings)
        """Let other settings hold from the next write on."""
        self._house.limit(limits)
        if self._is_open:
            self._engine.reconfigure(limits).addErrback(self._not_reconfigured)

    def _not_reconfigured(self, failure: Failure) -> None:
        failure.trap(JournalError)
        self._log.error("{place}: the limits cannot be changed: {why}", place=self.place, why=failure.value)

    def register(self, backends: Mapping[Key, tuple[str, str]]) -> None:
        """Say which backends there are from this moment on, as name and location."""
        self._group.register(backends)
        self._group.make_known()

    def returning(
        self,
        backends: Mapping[str, str],  # noqa: ARG002 (leases tell)
        known: Mapping[str, Key],  # noqa: ARG002
    ) -> Deferred[dict[str, Positions]]:
        """Return nothing: where a backend stands is told with its lease."""
        return succeed({})

    def _ready(self, is_ready: bool) -> None:  # noqa: FBT001 (a callback)
        (self._committer.release if is_ready else self._committer.hold)("backends")

    # -- for the operator

    def contents(self) -> Deferred[Contents]:
        """Return what is in the journal, for the whole group."""
        return Deferred.fromCoroutine(self._operator.contents())

    def discard(self, backend: str) -> Deferred[tuple[Depth | None, int]]:
        """Give up what waits for a backend, and count it; or forget a backend that is no longer configured."""
        return Deferred.fromCoroutine(self._operator.discard(backend))

    def forget_losses(self, backend: str) -> Deferred[list[Drop]]:
        """Count a backend's losses from zero, and return what was counted."""
        return Deferred.fromCoroutine(self._operator.forget_losses(backend))

    def pause(self, backend: str, *, paused: bool) -> Deferred[bool]:
        """Pause a backend for the whole group, or let it go on; fires with whether there is such a backend."""
        return Deferred.fromCoroutine(self._operator.pause(backend, paused=paused))

    def dead_letters(self, after: int, limit: int) -> Deferred[list[DeadLetter]]:
        """Return the dead letters with a higher id, the oldest first."""
        return Deferred.fromCoroutine(self._letters.read(after, limit))

    def drop_dead_letters(self, ids: Iterable[int]) -> Deferred[int]:
        """Remove dead letters, and return how many there were."""
        return Deferred.fromCoroutine(self._letters.drop(ids))
