"""All backends that the group knows, and those of them that this relay would deliver to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.journal.interface import Key
from influxrelay.journal.shared.frames import end_of
from influxrelay.journal.shared.index import Index
from influxrelay.journal.shared.interface import Bucket, Conflict, Entry, Watch
from influxrelay.journal.shared.lease import Lease
from influxrelay.journal.shared.leased_backend import LeasedBackend
from influxrelay.journal.shared.state import PREFIX, BackendState, key_for
from influxrelay.journal.shared.tail import Tail
from influxrelay.journal.shared_log import Follower

TRY_AGAIN = 1.0  # seconds until a backend that could not be made known is made known again
_TRIES = 10  # of a change that others make, too


class Group:
    """The backends.

    :param relay: the own name in the group.
    :param lease: seconds for which a lease holds.
    :param now: seconds on a clock that goes on while the process is stopped.
    :param is_ready: is told whether every registered backend is known to the group: before that, no write may be kept.
    :param on_problem: is told why the group cannot be told of one now.
    :ivar states: of all backends, as they were last seen, by name.
    :ivar leased: of the registered ones, by name.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        bucket: Bucket,
        relay: str,
        lease: float,
        now: Callable[[], float],
        *,
        index: Index,
        follower: Follower,
        tail: Tail,
        count_dropped: Callable[[LeasedBackend, int], object],
        is_ready: Callable[[bool], object],
        on_problem: Callable[[Failure], object],
    ) -> None:
        self.states: dict[str, tuple[BackendState, int]] = {}
        self.leased: dict[str, LeasedBackend] = {}
        self._reactor = reactor
        self._bucket = bucket
        self._relay = relay
        self._lease = lease
        self._now = now
        self._index = index
        self._follower = follower
        self._tail = tail
        self._count_dropped = count_dropped
        self._is_ready = is_ready
        self._on_problem = on_problem
        self._keys: dict[Key, LeasedBackend] = {}
        self._others: set[str] = set()  # of which was warned that only other relays have them
        self._lost: dict[str, BackendState] = {}  # what is to be made known again
        self._watch: Watch | None = None
        self._is_closed = self._is_new = False

    async def open(self) -> None:
        """Find out which backends the group knows."""
        self._watch = self._bucket.watch(PREFIX, self._changed)
        await self._watch.in_sync
        self._is_new = not self.states  # then whatever the log has was left by a group that is forgotten

    async def close(self) -> None:
        """Give all leases back. Never fails."""
        self._is_closed = True
        await DeferredList([each.release() for each in self.leased.values()])
        if self._watch is not None:
            self._watch.stop()

    def _changed(self, entry: Entry) -> None:
        if entry.value is None:
            for name in [name for name in self.states if key_for(name) == entry.key]:
                if entry.revision > self.states[name][1]:
                    self._gone(name)
            return
        try:
            self._observe(BackendState.decode(entry.value), entry.revision)
        except ValueError as error:
            self._log.error("{key}: {error}", key=entry.key, error=error)

    def _observe(self, state: BackendState, revision: int) -> None:
        known = self.states.get(state.name)
        if known is None or revision > known[1]:
            self.states[state.name] = state, revision
        if (backend := self.leased.get(state.name)) is not None:
            backend.observe(state, revision)
        elif self.leased:
            self._look_at_other(state)

    def _look_at_other(self, state: BackendState) -> None:
        """Warn of a backend that another relay has; once in this process."""
        if state.owner not in {"", self._relay} and not state.removed and state.name not in self._others:
            self._others.add(state.name)
            self._log.warn(
                "relay {relay} delivers to backend {backend}, which is not configured here; use the same outputs",
                relay=state.owner,
                backend=state.name,
            )

    def _gone(self, name: str) -> None:
        """Begin anew with a backend that was forgotten, if it is one of ours."""
        del self.states[name]
        self._begin_anew(name)

    def _missing(self, name: str) -> None:
        """Make a backend known again, as it was known last: somebody has removed the bucket."""
        if name in self.leased and name in self.states:
            state, _ = self.states.pop(name)
            self._log.error("backend {backend}: somebody removed its position; registered it again", backend=name)
            self._lost[name] = attrs.evolve(state, owner="")
            self._begin_anew(name)

    def _begin_anew(self, name: str) -> None:
        if (backend := self.leased.pop(name, None)) is not None:
            self._leave(backend)
            self._enter(backend.key, name, backend.location)
            self.make_known()

    # -- which there are

    def register(self, backends: Mapping[Key, tuple[str, str]]) -> None:
        """Say which backends are configured here; the group learns of those that it does not know."""
        for key, backend in list(self._keys.items()):
            if backends.get(key, ("", ""))[0] != backend.name:
                del self._keys[key]
                if self.leased.get(backend.name) is backend:
                    del self.leased[backend.name]
                    self._leave(backend, removed=all(name != backend.name for name, _ in backends.values()))
        for key, (name, location) in backends.items():
            if name not in self.leased:
                self._enter(key, name, location)
            else:
                self.leased[name].location = location
        for name, (state, _) in self.states.items():
            if name not in self.leased:
                self._look_at_other(state)

    def _enter(self, key: Key, name: str, location: str) -> None:
        backend = self.leased[name] = self._keys[key] = LeasedBackend(
            key,
            name,
            location,
            Lease(self._relay, self._lease, self._now),
            reactor=self._reactor,
            now=self._now,
            bucket=self._bucket,
            index=self._index,
            follower=self._follower,
            catch_up=self._tail.catch_up,
            count_dropped=self._count_dropped,
            missing=self._missing,
        )
        if name in self.states:
            backend.observe(*self.states[name])

    def _leave(self, backend: LeasedBackend, *, removed: bool = False) -> None:
        delivered = backend.progress is not None
        backend.release(removed=removed)
        if delivered:
            self._follower.lost(backend.key)

    def make_known(self) -> Deferred[None]:
        """Let the group know of all registered backends, however long that takes; fires after the first attempt."""
        if self._is_closed or all(name in self.states for name in self.leased):
            return succeed(None)
        self._is_ready(False)
        return Deferred.fromCoroutine(self._create_all()).addErrback(self._not_known)

    def _not_known(self, failure: Failure) -> None:
        if not failure.check(JournalError):
            self._log.failure("the backends of a shared journal", failure)
        self._on_problem(failure)
        self._reactor.callLater(TRY_AGAIN, self.make_known)

    async def _create_all(self) -> None:
        for name, backend in list(self.leased.items()):
            if name not in self.states:
                begin = await (self._tail.begin() if self._is_new else self._tail.end())
                state = self._lost.pop(name, None) or BackendState(name, backend.location, cursor=end_of(begin))
                try:
                    revision = await self._bucket.create(key_for(name), state.encode())
                except Conflict:
                    await self._load(name)
                else:
                    self._observe(state, revision)
        unknown = [name for name in self.leased if name not in self.states]
        if unknown:
            raise JournalError(f"what the group knows of {', '.join(unknown)} cannot be read")
        self._is_new = False
        self._is_ready(True)

    async def _load(self, name: str) -> None:
        entry = await self._bucket.load(key_for(name))
        if entry is not None:
            self._changed(entry)

    # -- what is known

    def leased_backend(self, key: Key) -> LeasedBackend | None:
        """Return the backend for which something stands."""
        return self._keys.get(key)

    @property
    def delivered(self) -> list[LeasedBackend]:
        """The backends to which this relay delivers."""
        return [each for each in self.leased.values() if each.progress is not None]

    def lowest(self) -> int:
        """Return up to which number every backend has passed the log, as is written down."""
        cursors = [state.cursor for state, _ in self.states.values() if not state.removed]
        return min(cursors, default=self._index.head)

    @property
    def is_alone(self) -> bool:
        """Whether no other relay delivers to anything, as far as is known."""
        return all(state.owner in {"", self._relay} for state, _ in self.states.values())

    @property
    def is_responsible(self) -> bool:
        """Whether it is this relay that does what one has to do for all."""
        first = min((name for name, (state, _) in self.states.items() if not state.removed), default="")
        backend = self.leased.get(first)
        return backend is not None and backend.is_valid

    # -- changes by the operator, and by who does not deliver

    async def change(self, name: str, edit: Callable[[BackendState], BackendState]) -> BackendState | None:
        """Change what is known of a backend, whoever delivers to it; return what it was. None if there is none.

        :raises JournalError: that cannot be done now.
        """
        for _ in range(_TRIES):
            entry = await self._bucket.load(key_for(name))
            if entry is None or entry.value is None:
                return None
            try:
                state = BackendState.decode(entry.value)
            except ValueError as error:
                raise JournalError(str(error)) from error
            changed = edit(state)
            try:
                revision = await self._bucket.update(entry.key, changed.encode(), entry.revision)
            except Conflict:
                continue
            self._observe(changed, revision)
            return state
        raise JournalError(f"backend {name} is changed by other relays all the time")

    async def remove(self, name: str) -> None:
        """Know no more of a backend that is not configured."""
        await self._bucket.delete(key_for(name))
        self.states.pop(name, None)
