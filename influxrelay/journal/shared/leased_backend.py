"""One backend in the group: its lease, and what is written down together with that."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.core.write import Destination
from influxrelay.journal.interface import Key
from influxrelay.journal.records import Drop
from influxrelay.journal.shared.frames import Part
from influxrelay.journal.shared.index import Index
from influxrelay.journal.shared.interface import Bucket, Conflict
from influxrelay.journal.shared.lease import Lease
from influxrelay.journal.shared.progress import Progress
from influxrelay.journal.shared.state import BackendState, key_for
from influxrelay.journal.shared_log import Follower

SAVE = 0.5  # seconds until what has changed is written down
_A_MOMENT = 0.001  # seconds by which a timer may be early


@attrs.frozen
class _Attempt:
    """What a change of the value has in it.

    :ivar losses: how many were counted in this lease until then.
    :ivar request: the last call of :meth:`LeasedBackend.save` that it is for.
    """

    cursor: int
    losses: int
    request: int


class LeasedBackend:
    """A backend that this relay would deliver to, and does as long as it has the lease.

    :param now: seconds on a clock that goes on while the process is stopped.
    :param catch_up: fires when all that is in the log now was handed out; with the first message that is left in there.
    :param missing: is told of the name if the group does not know the backend any more, which nobody has removed.
    :param count_dropped: counts what is no longer in the log; takes the backend and the first message that is in it.
    :ivar key: stands for the backend in this process.
    :ivar progress: as long as this relay delivers; else None.
    """

    _log = Logger()

    def __init__(
        self,
        key: Key,
        name: str,
        location: str,
        lease: Lease,
        *,
        reactor: Any,
        now: Callable[[], float],
        bucket: Bucket,
        index: Index,
        follower: Follower,
        catch_up: Callable[[], Deferred[int]],
        count_dropped: Callable[[LeasedBackend, int], object],
        missing: Callable[[str], object],
    ) -> None:
        self.key = key
        self.name = name
        self.location = location
        self.lease = lease
        self.progress: Progress | None = None
        self._reactor = reactor
        self._now = now
        self._bucket = bucket
        self._index = index
        self._follower = follower
        self._catch_up = catch_up
        self._count_dropped = count_dropped
        self._missing = missing
        self._losses: list[Drop] = []  # counted in this lease, and perhaps not written down
        self._written_losses = 0  # how many were, and are not in the list any more
        self._attempts: dict[int, _Attempt] = {}  # by beat
        self._letters = 0  # that are being stored
        self._settlers: list[Deferred[None]] = []
        self._requests = 0
        self._savers: list[tuple[int, Deferred[None]]] = []
        self._is_over = False  # somebody was told that the lease is lost
        self._is_changed = False
        self._is_busy = False  # with a change of the value
        self._is_catching_up = False
        self._paused = False  # what the follower was told
        self._closing: Deferred[None] | None = None
        self._timer: Any = None

    # -- what is known of the value

    def observe(self, state: BackendState, revision: int) -> None:
        """Learn what the value is."""
        if revision > self.lease.revision:
            self.lease.observe(state, revision)
            self._look()

    def _look(self) -> None:
        """Do what the value asks for."""
        if self._closing is not None:
            return
        state = self.lease.state
        if self.progress is not None and (self._is_over or not self.lease.is_valid):
            self._stand_down()
        if state is None:
            return
        if self.lease.is_valid and (attempt := self._attempts.get(state.beat)) is not None:
            self._taken(state, attempt)
        if self.progress is not None:
            self._look_paused(state)
        elif self.lease.is_valid and not self._is_catching_up:
            self._is_catching_up = True
            caught_up = self._catch_up()
            caught_up.addCallbacks(self._stand_up, self._not_caught_up, callbackArgs=(state.epoch,))
            caught_up.addErrback(self._bug)
        self._schedule()

    def _taken(self, state: BackendState, attempt: _Attempt) -> None:
        self._note_losses(attempt)
        if state.cursor > attempt.cursor:  # the operator has dropped the queue at another relay
            self._attempts = {state.beat: attrs.evolve(attempt, cursor=state.cursor)}
            if self.progress is not None:
                self.progress.advance_all(state.cursor)
                self._follower.given_up(self.key, state.cursor)
        savers, self._savers = self._savers, []
        for request, saved in savers:
            if request <= attempt.request:
                saved.callback(None)
            else:
                self._savers.append((request, saved))

    def _note_losses(self, attempt: _Attempt) -> None:
        """Count what the value has now no more."""
        done = attempt.losses - self._written_losses
        if done > 0:
            del self._losses[:done]
            self._written_losses = attempt.losses

    def _look_paused(self, state: BackendState) -> None:
        if state.paused != self._paused:
            self._paused = state.paused
            self._follower.paused(self.key, paused=state.paused)

    # -- delivering

    @property
    def is_valid(self) -> bool:
        """Whether this relay delivers, at this moment; once it does not, the follower is told before it does again."""
        if self.progress is None or self._is_over:
            return False
        if not self.lease.is_valid:
            self._is_over = True
            self._reactor.callLater(0.0, self._look)
        return not self._is_over

    def _stand_up(self, first_seq: int, epoch: int) -> None:
        self._is_catching_up = False
        state = self.lease.state
        if state is None or not self.lease.is_valid or state.epoch != epoch or self._closing is not None:
            self._look()
            return
        progress = self.progress = Progress(self._index, state)
        self._paused = False
        self._log.info("backend {backend}: this relay delivers from now on", backend=self.name)
        self._count_dropped(self, first_seq)
        self._follower.gained(self.key, list(progress.waiting.items()), self._index.head)
        self._look_paused(state)
        self._schedule()

    def _not_caught_up(self, failure: Failure) -> None:
        self._is_catching_up = False
        if not failure.check(JournalError):
            self._bug(failure)
        self._schedule()

    def _stand_down(self) -> None:
        self._forget()
        self._log.warn("backend {backend}: this relay has lost the lease", backend=self.name)
        self._follower.lost(self.key)

    def _forget(self) -> None:
        self.progress = None
        self._is_over = False
        self._losses.clear()
        self._written_losses = self._letters = 0
        self._attempts.clear()
        self._is_changed = False
        self._look_settled()
        savers, self._savers = self._savers, []
        for _, saved in savers:
            saved.errback(Failure(JournalError(f"the lease of backend {self.name} is lost")))

    def appended(self, seq: int, parts: Iterable[Part]) -> None:
        """Note what has come to the log."""
        if self.progress is not None:
            self.progress.appended(seq, parts)

    def advance(self, destination: Destination, number: int) -> None:
        """Note that the backend is done with a destination up to this number."""
        if self.progress is not None and not self._is_over and self.progress.advance(destination, number):
            self.changed()

    def count(self, drop: Drop) -> None:
        """Count a loss; written down with the next position."""
        if self.progress is not None:
            self._losses.append(drop)
            self.changed()

    @property
    def losses(self) -> list[Drop]:
        """What is counted, and is not in the value yet."""
        return self._losses

    def bury(self, stored: Deferred[Any]) -> None:
        """Write no positions down before a dead letter is stored."""
        self._letters += 1
        progress = self.progress

        def is_stored(_: object) -> None:
            if progress is not None and progress is self.progress:
                self._letters -= 1
                self.changed()
                self._look_settled()

        def is_not(failure: Failure) -> None:
            failure.trap(JournalError)
            self._look_settled(is_hopeless=True)  # and no positions are written down any more

        stored.addCallbacks(is_stored, is_not).addErrback(self._bug)

    def _settled(self) -> Deferred[None]:
        """Fire when no dead letter is being stored any more, or when that is of no use."""
        done: Deferred[None] = Deferred()
        self._settlers.append(done)
        self._look_settled()
        return done

    def _look_settled(self, *, is_hopeless: bool = False) -> None:
        if is_hopeless or not self._letters:
            settlers, self._settlers = self._settlers, []
            for each in settlers:
                each.callback(None)

    def changed(self) -> None:
        """Have positions written down soon."""
        if not self._is_changed:
            self._is_changed = True
            self._schedule()

    def save(self) -> Deferred[None]:
        """Fire when the positions of this moment are written down; fails if the lease is lost before."""
        if self.progress is None:
            return fail(JournalError(f"this relay does not deliver to backend {self.name}"))
        self._requests += 1
        saved: Deferred[None] = Deferred()
        self._savers.append((self._requests, saved))
        self._schedule()
        return saved

    # -- changing the value

    def _schedule(self) -> None:
        """Come back when something is to be done."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._closing is not None:
            return
        now = self._now()
        when = math.inf if self._is_busy else self.lease.due
        if self.progress is not None:
            when = min(when, self.lease.valid_until)
            if not self._is_busy and not self._letters:
                if self._savers:
                    when = min(when, now)
                elif self._is_changed:
                    when = min(when, self.lease.last_sent + SAVE)
        if when < math.inf:
            self._timer = self._reactor.callLater(max(0.0, when - now) + _A_MOMENT, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self.progress is not None and (self._is_over or not self.lease.is_valid):
            self._stand_down()
        now = self._now()
        wanted = self._savers or (self._is_changed and now >= self.lease.last_sent + SAVE)
        wanted = wanted and self.progress is not None and not self._letters
        if not self._is_busy and (wanted or now >= self.lease.due) and self.lease.state is not None:
            self._change(self.lease.state)
        self._schedule()

    def _change(self, state: BackendState) -> None:
        if self.lease.is_ours:
            written = self.lease.renew(self._current(state))
        else:
            written = self.lease.claim(attrs.evolve(state, location=self.location))
        with_all = self.progress is not None and not self._letters
        losses = self._written_losses + (len(self._losses) if with_all else 0)
        self._attempts[written.beat] = _Attempt(written.cursor, losses, self._requests if with_all else 0)
        if with_all:
            self._is_changed = False
        self._update(written).addErrback(self._bug)

    def _current(self, state: BackendState) -> BackendState:
        """Return the state with what is to be written down."""
        state = attrs.evolve(state, location=self.location)
        if self.progress is None or self._letters:
            return state
        return self.progress.written(state).with_losses(self._losses)

    def _update(self, written: BackendState) -> Deferred[None]:
        self._is_busy = True
        updated = self._bucket.update(key_for(self.name), written.encode(), self.lease.revision)
        return updated.addCallbacks(partial(self._updated, written), self._not_updated)

    def _updated(self, written: BackendState, revision: int) -> None:
        self._is_busy = False
        self.lease.observe(written, revision)
        self._look()

    def _not_updated(self, failure: Failure) -> Deferred[None]:
        """Find out what the value is now, if that can be had."""
        if not failure.check(JournalError):
            self._bug(failure)
        self._is_changed = True
        loaded = Deferred.fromCoroutine(self._load())
        return loaded.addErrback(lambda failure: failure.trap(JournalError) and None).addCallback(self._loaded)

    async def _load(self) -> None:
        entry = await self._bucket.load(key_for(self.name))
        if entry is None and self._closing is None:
            self._reactor.callLater(0.0, self._missing, self.name)
        if entry is not None and entry.value is not None:
            try:
                state = BackendState.decode(entry.value)
            except ValueError as error:
                raise JournalError(str(error)) from error
            if entry.revision > self.lease.revision:
                self.lease.observe(state, entry.revision)

    def _loaded(self, _: None) -> None:
        self._is_busy = False
        self._look()

    # -- the end

    def release(self, *, removed: bool = False) -> Deferred[None]:
        """Write the positions down, give the lease back and do nothing more. Never fails.

        :param removed: the backend is in the configuration no more.
        """
        if self._closing is None:
            self._closing = Deferred.fromCoroutine(self._release(removed=removed)).addErrback(self._not_released)
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
        done: Deferred[None] = Deferred()
        self._closing.chainDeferred(done)
        return done

    async def _release(self, *, removed: bool) -> None:
        await self._settled()
        for _ in range(3):
            state = self.lease.state
            if state is None or not self.lease.is_ours:
                break
            if (attempt := self._attempts.get(state.beat)) is not None:
                self._note_losses(attempt)
            try:
                released = self.lease.release(self._current(state), removed=removed)
                await self._bucket.update(key_for(self.name), released.encode(), self.lease.revision)
                self._log.info("backend {backend}: this relay has given the lease back", backend=self.name)
                break
            except Conflict:
                await self._load()
        self._forget()

    def _not_released(self, failure: Failure) -> None:
        if not failure.check(JournalError):
            self._bug(failure)
        self._forget()

    def _bug(self, failure: Failure) -> None:
        self._log.failure("backend {backend}", failure, backend=self.name)
