"""What a journal does beside appending: it writes down what has changed, makes room, and drops what is too old."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.core.write import Destination
from influxrelay.journal import cleaning
from influxrelay.journal.books import Books
from influxrelay.journal.cleaning import Dropped
from influxrelay.journal.jobs import Jobs
from influxrelay.journal.records import JournalLimits
from influxrelay.journal.segment import Segment
from influxrelay.journal.store import Store
from influxrelay.journal.tail import Tail

LAZY = 0.25  # seconds that the ledger may lag behind
CHECK_AGE = 10.0  # seconds between two looks for what is too old
SHARE = 0.05  # of the time that cleaning may take
SEGMENT = 8 * 1024 * 1024  # bytes after which another segment is begun
SEGMENTS = 16  # the part of what the journal may have that a segment has at most
LETTERS = 4  # dead letters may have this part of it
_ROOM = "room"  # for which writes wait


class JournalFullError(JournalError):
    """The journal has as many bytes as it may have, and refuses more."""


class Housekeeper:
    """Keeps the ledger and the disk in order.

    :param reactor: only its time is used.
    :param clock: returns seconds since the epoch.
    :param on_drop: is told of a destination, and of the last number in it that a limit has cost.
    :ivar is_full: whether the journal takes no more writes.
    :ivar sealed_bytes: of the segments that are sealed.
    :ivar unstruck: writes in sealed segments that are to be struck, and that the disk has not let be.
    :ivar returning: position and last number of the destinations of backends that may return soon.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        store: Store,
        tail: Tail,
        jobs: Jobs,
        *,
        clock: Callable[[], float],
        on_drop: Callable[[Destination, int], object],
    ) -> None:
        self.books = Books(store, tail, jobs)
        self.cursors = self.books.cursors
        self.registry = self.books.registry
        self.accounts = self.books.accounts
        self.is_full = False
        self.sealed_bytes = store.findings.log_bytes
        self.unstruck: set[int] = set()
        self.returning: dict[int, dict[Destination, tuple[int, int]]] = {}
        self.limits = JournalLimits()
        self._reactor = reactor
        self._store = store
        self._tail = tail
        self._jobs = jobs
        self._clock = clock
        self._on_drop = on_drop
        self._makes_room = False
        self._clean_at = 0.0
        self._to_clean = True
        self._soon_timer: IDelayedCall | None = None
        self._age_timer: IDelayedCall | None = None
        self._idle_since = 0  # the number of the last write at the last look
        self._closed = False

    @property
    def used(self) -> int:
        """Bytes that the journal takes on disk."""
        return self.sealed_bytes + self._tail.size + self.books.letter_bytes

    def reconfigure(self, limits: JournalLimits, *, full_sync: bool) -> None:
        """Let other settings hold."""
        self.limits = limits
        self._tail.sync = full_sync
        self.books.limit_letters(limits.max_bytes // LETTERS)
        self._tail.segment_size = min(SEGMENT, limits.max_bytes // SEGMENTS) if limits.max_bytes else SEGMENT

    # -- when

    def start(self) -> None:
        """Begin with what has to be done before anything is read or written."""
        self.check_room()
        self.run(self._expire)
        self.soon()

    def soon(self) -> None:
        """Write down what has changed, in a moment."""
        if self._soon_timer is None and not self._closed:
            self._soon_timer = self._reactor.callLater(LAZY, self._tick)

    def _tick(self) -> None:
        self._soon_timer = None
        if self._age_timer is None and not self._closed:
            self._age_timer = self._reactor.callLater(CHECK_AGE, self._check_age)
        self.run(self._keep_up)

    def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do something that takes its time; what the disk does not take is tried again."""

        async def guarded() -> None:
            try:
                await work()
            except JournalError:
                self.soon()

        Deferred.fromCoroutine(guarded()).addErrback(self._bug)

    def _bug(self, failure: Failure) -> None:
        self._log.failure("a journal's housekeeping", failure)

    async def _keep_up(self) -> None:
        self._tail.flush()
        await self.books.save()
        await self._seal()
        await self._strike()
        if (self._to_clean or self.books.have_moved) and self._reactor.seconds() >= self._clean_at:
            await self._clean()
        if self.is_full:
            self.check_room()
        if self._jobs.trouble:  # of something that need not be done again
            await self._jobs.run(self._store.touch)
        if self._tail.trouble and self._tail.is_idle:
            await self._tail.probe()

    def strike_later(self, number: int) -> None:
        """Strike a write as soon as the disk lets that be done."""
        self.unstruck.add(number)
        self.soon()

    async def _strike(self) -> None:
        for number in tuple(self.unstruck):
            in_tail = self._tail.strike(number)
            await (self._jobs.run(partial(self._store.strike, number)) if in_tail is None else in_tail)
            self.unstruck.discard(number)

    async def finish(self) -> None:
        """Write down what has changed, and leave nothing that nobody needs."""
        self.close()
        await self.books.save()
        if all(map(self.is_passed, self._tail.segments)):
            self._tail.rotate()
            await self._seal()

    def begin_anew(self) -> None:
        """Have everything that is known here written into a new ledger."""
        self.books.all_again()
        self.accounts.count_damage(self.cursors.active, self._clock())
        self.register()

    def close(self) -> None:
        """Do nothing more by itself."""
        self._closed = True
        for timer in (self._soon_timer, self._age_timer):
            if timer is not None and timer.active():
                timer.cancel()
        self._soon_timer = self._age_timer = None

    # -- the ledger

    def register(self) -> None:
        """Have the backends written down, before any write that comes later is in the log."""
        self.books.register()
        self.run(self._keep_up)

    def give_up(self, problem: JournalError) -> None:
        """Let nobody wait for the ledger, which does not answer."""
        self.books.give_up(problem)
        self.room_made()

    # -- the log

    async def _seal(self) -> None:
        """Let the ledger know of segments that stay as they are; those that nobody needs are deleted instead."""
        done = await DeferredList([self._put_away(each) for each in self._tail.closed()], consumeErrors=True)
        for _, failure in done:
            if isinstance(failure, Failure):
                raise JournalError(str(failure.value)) from failure.value

    def _put_away(self, segment: Segment) -> Deferred[None]:
        sealed = not self.is_passed(segment)

        def done(_: None) -> None:
            self._tail.remove(segment)
            self.sealed_bytes += segment.size if sealed else 0

        def failed(failure: Failure) -> Failure:
            self._tail.keep(segment)
            return failure

        if sealed:
            put_away = self._jobs.do(partial(self._store.seal, segment))
        else:  # why it was passed, a dead letter perhaps, has to be written down first
            put_away = Deferred.fromCoroutine(self.books.save_and(partial(self._store.discard, segment)))
        return put_away.addCallbacks(done, failed)

    def is_passed(self, segment: Segment) -> bool:
        """Tell whether every backend has passed a segment."""
        return self.cursors.has_passed((where, places.last) for where, places in segment.places.items() if len(places))

    async def seal_all(self) -> int:
        """Let the ledger know of all that is in the log now; return the number of the last write in it."""
        await self._tail.wait()
        self._tail.rotate()
        upto = self._tail.settled
        await self._seal()
        return upto

    async def _clean(self) -> None:
        """Delete what is not needed."""
        if not self.sealed_bytes:
            return
        began = self._reactor.seconds()
        size, sync = self._tail.segment_size, self._tail.sync
        positions = self.cursors.snapshot()
        store = self._store
        losses = await self.books.save_and(lambda: cleaning.clean(store, positions, size, full_sync=sync))
        self._to_clean = False
        self.books.cleaned()
        self.accounts.note(losses)
        await self._measure()
        now = self._reactor.seconds()
        self._clean_at = now + max(LAZY, (now - began) / SHARE)

    async def _measure(self) -> None:
        self.sealed_bytes = await self._jobs.run(self._store.log_bytes)

    # -- limits

    def check_room(self) -> None:
        """Make room if there is none left; meanwhile all writes wait."""
        if self._makes_room or not self.limits.max_bytes:
            self.is_full = self.is_full and bool(self.limits.max_bytes)
        elif self.used >= self.limits.max_bytes:
            self._makes_room = True
            self._tail.hold(_ROOM)
            Deferred.fromCoroutine(self._make_room()).addErrback(self._no_room)
        else:
            self.is_full = False

    async def _make_room(self) -> None:
        await self.books.save()
        await self._tail.quiet()
        self._tail.rotate()
        await self._seal()
        await self._clean()
        excess = self.used - self.limits.max_bytes
        if excess >= 0 and self.limits.drop_oldest:
            positions = self.cursors.snapshot()
            self.dropped(await self.books.save_and(lambda: cleaning.drop_oldest(self._store, positions, excess + 1)))
            await self._measure()
        self.room_made()

    def _no_room(self, failure: Failure) -> None:
        if not failure.check(JournalError):
            self._bug(failure)
        self.room_made()

    def room_made(self) -> None:
        """Let the writes go on that have waited, or refuse them."""
        self._makes_room = False
        max_bytes = self.limits.max_bytes
        self.is_full = bool(max_bytes) and self.used >= max_bytes
        if self.why_unavailable is not None:
            self._tail.refuse(self.why_unavailable)
        self._tail.release(_ROOM)

    @property
    def why_unavailable(self) -> JournalError | None:
        """Why the journal takes no write now; None if it does."""
        if self.is_full:
            return JournalFullError(f"{self._store.directory}: the journal is full ({self.limits.max_bytes} bytes)")
        return self.books.unregistered

    def _check_age(self) -> None:
        self._age_timer = None
        if not self._closed:
            self.run(self._look_through)

    async def _look_through(self) -> None:
        """Drop what is too old, and do not leave an idle segment behind."""
        if self._tail.settled == self._idle_since and all(map(self.is_passed, self._tail.segments)):
            self._tail.rotate()
        self._idle_since = self._tail.settled
        await self._expire()
        if self.cursors.behind:
            upto = self._tail.settled
            last = await self._jobs.run(lambda: self._store.ledger.last_numbers())  # noqa: PLW0108 (another ledger may come)
            self.cursors.prune(self._tail.last_numbers(last), upto)
        self._to_clean = True
        await self._keep_up()
        if (self.cursors.behind or self._tail.segments or self.sealed_bytes) and not self._closed:
            self._age_timer = self._age_timer or self._reactor.callLater(CHECK_AGE, self._check_age)

    async def _expire(self) -> None:
        """Drop what is too old."""
        if self.limits.max_age and self.cursors.behind:
            before = self._clock() - self.limits.max_age
            if self._tail.has_older(before):
                await self.seal_all()
            positions = self.cursors.snapshot()
            self.dropped(await self.books.save_and(lambda: cleaning.expire(self._store, positions, before)))

    def dropped(self, dropped: Dropped) -> None:
        """Note what the ledger has dropped, and tell those who may still have it in memory."""
        self.accounts.note(dropped.losses)
        for where, upto in dropped.upto.items():
            for backend in self.cursors.active:
                self.cursors.note_written(backend, [where])
                self.cursors.advance(backend, where, upto)
            self._on_drop(where, upto)
