"""What a shared journal does beside appending and reading: it counts what was dropped, and makes room."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.core.write import CHANGES
from influxrelay.journal.records import Drop, JournalLimits, Record, lost_change
from influxrelay.journal.shared.committer import Committer
from influxrelay.journal.shared.counts import Counter
from influxrelay.journal.shared.frames import LogHead, end_of, seq_of
from influxrelay.journal.shared.group import Group
from influxrelay.journal.shared.index import Index
from influxrelay.journal.shared.interface import GAP, Stream, StreamState
from influxrelay.journal.shared.lane import Total
from influxrelay.journal.shared.leased_backend import LeasedBackend
from influxrelay.journal.shared.letters import Letters
from influxrelay.journal.shared.reader import Reader
from influxrelay.journal.shared_log import Follower

LOOK = 1.0  # seconds between two looks
CHANGES_BYTES = 4 * 1024 * 1024  # of changes that are remembered
LETTERS = 4  # dead letters may have this part of the journal
SPARE = 8  # of which this part is to be free, so that new ones need not wait
_NEARLY = 0.98  # of the age at which something is dropped: clocks differ


class Housekeeper:
    """Looks at the log now and then.

    :param clock: returns seconds since the epoch.
    :ivar used: bytes that the log and the dead letters take.
    :ivar begin: the first message that there was when this relay came.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        stream: Stream,
        *,
        index: Index,
        reader: Reader,
        counter: Counter,
        letters: Letters,
        follower: Follower,
        clock: Callable[[], float],
    ) -> None:
        self.limits = JournalLimits()
        self.begin = 0
        self._reactor = reactor
        self._stream = stream
        self._index = index
        self._reader = reader
        self._counter = counter
        self._letters = letters
        letters.count_with(self._count_letter)
        self._follower = follower
        self._clock = clock
        self._bytes = 0
        self._changes: dict[int, Record] = {}  # that wait, for the log may drop them
        self._created = ""  # when the log was
        self._group: Group
        self._committer: Committer
        self._timer: Any = None
        self._is_looking = False
        self._is_closed = False

    @property
    def used(self) -> int:
        """Bytes that the log and the dead letters take."""
        return self._bytes + self._letters.size

    def limit(self, limits: JournalLimits) -> None:
        """Let other limits hold."""
        self.limits = limits
        self._letters.max_bytes = limits.max_bytes // LETTERS

    def start(self, group: Group, committer: Committer) -> None:
        """Begin to look."""
        self._group, self._committer = group, committer
        self._later()

    def close(self) -> None:
        """Look no more."""
        self._is_closed = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _later(self) -> None:
        if not self._is_closed:
            self._timer = self._reactor.callLater(LOOK, self._tick)

    def _tick(self) -> None:
        looked = Deferred.fromCoroutine(self._look())
        looked.addErrback(self._not_looked).addCallback(lambda _: self._later())

    def _not_looked(self, failure: Failure) -> None:
        if not failure.check(JournalError):
            self._log.failure("a shared journal", failure)

    async def _look(self) -> None:
        await self._committer.probe()
        state = await self.look()
        if not self._group.is_responsible:
            return
        needless = self._index.needed(self._group.lowest(), self._clock())
        if needless >= state.first_seq:
            await self._stream.purge(needless)
        await self._letters.make_room(self._letters.max_bytes // SPARE)

    def _count_letter(self, drop: Drop) -> None:
        """Count a dead letter that has made way, whoever delivers to its backend."""
        if (backend := self._group.leased.get(drop.backend)) is not None and backend.progress is not None:
            backend.count(drop)
            return
        counted = Deferred.fromCoroutine(self._group.change(drop.backend, lambda state: state.with_losses([drop])))
        counted.addErrback(self._not_looked)

    async def look(self) -> StreamState:
        """Count what was dropped from the log since the last look."""
        state = await self._stream.state()
        if self._created not in ("", state.created):
            self._log.critical("{stream}: the log was removed, and what was in it is lost", stream=self._stream.name)
            if state.last_seq < (head := seq_of(self._index.head)):  # what comes is not to be taken for what was there
                await self._stream.purge(head + GAP)
                state = await self._stream.state()
        self._created = state.created
        self._bytes = state.bytes
        for backend in self._group.delivered:
            self.count_dropped(backend, state.first_seq)
        passed = seq_of(self._group.lowest() + 1) - 1
        upto = min(state.first_seq - 1, passed)
        self._index.forget(upto)
        self._changes = {number: each for number, each in self._changes.items() if seq_of(number) > upto}
        self._reader.forget(upto)
        return state

    def count_dropped(self, backend: LeasedBackend, first_seq: int) -> None:
        """Count what a backend has not passed, and the log has no more.

        :param first_seq: the first message that it has.
        """
        progress, upto = backend.progress, end_of(first_seq - 1)
        if progress is None:
            return
        for where, passed in list(progress.waiting.items()):
            if passed < upto:
                total = self._counter.known({where: passed}, seq_of(upto))
                if total.writes:
                    drop = self._drop(backend.name, total)
                    backend.count(drop)
                    if where == CHANGES:
                        self._bury_changes(backend, passed, upto, drop.reason)
                progress.advance(where, upto)
                backend.changed()
                self._follower.dropped(backend.key, where, upto)

    def note(self, head: LogHead, records: Iterable[Record]) -> None:
        """Remember the changes among some writes, as long as they wait for a backend that this relay delivers to."""
        if any(each.destination == CHANGES for each in head.parts):
            self._remember(each for each in records if each.write.destination == CHANGES)

    def _remember(self, records: Iterable[Record]) -> None:
        for each in records:
            self._changes[each.seq] = each
        size = sum(len(each.write.body) + len(each.write.query) for each in self._changes.values())
        while size > CHANGES_BYTES:
            gone = self._changes.pop(min(self._changes))
            size -= len(gone.write.body) + len(gone.write.query)

    async def _read_changes(self, passed: int) -> None:
        records, _ = await self._reader.read(CHANGES, passed, CHANGES_BYTES)
        self._remember(records)

    def _bury_changes(self, backend: LeasedBackend, passed: int, upto: int, reason: str) -> None:
        """Make dead letters of changes that the log has dropped, as far as they are remembered."""
        for number, each in sorted(self._changes.items()):
            if passed < number <= upto and not self._index.is_struck(number):
                backend.bury(self._letters.bury(backend.name, each.time, each.write, 0, lost_change(reason)))

    def stood_up(self, backend: LeasedBackend, first_seq: int) -> None:
        """Count what a backend has lost before this relay delivered to it.

        Of what was dropped before this relay came nobody knows more than how many messages it was.
        """
        state, upto = backend.lease.state, end_of(self.begin - 1)
        if state is not None and backend.progress is not None and state.cursor < upto:
            now, messages = self._clock(), _without_gap(self.begin - 1 - seq_of(state.cursor))
            if messages:
                backend.count(
                    Drop(backend.name, "age" if self.limits.max_age else self._not_for_age, messages, 0, now, now)
                )
            backend.progress.advance_all(upto)
        self.count_dropped(backend, first_seq)
        if backend.progress is not None and CHANGES in backend.progress.waiting:
            read = Deferred.fromCoroutine(self._read_changes(backend.progress.waiting[CHANGES]))
            read.addErrback(self._not_looked)

    def count_missed(self, first: int, last: int) -> None:
        """Count messages that were gone before this relay has seen them for those backends that had not passed them."""
        for backend in self._group.delivered:
            state, now = backend.lease.state, self._clock()
            if state is not None and state.cursor < end_of(last):
                messages = _without_gap(last - max(first - 1, seq_of(state.cursor)))
                if messages:
                    backend.count(Drop(backend.name, self._not_for_age, messages, 0, now, now))

    def count_damaged(self, seq: int) -> None:
        """Count a message that cannot be read for every backend that this relay delivers to."""
        for backend in self._group.delivered:
            progress = backend.progress
            for where, passed in progress.waiting.items() if progress is not None else ():
                span = next(self._index.after(where, max(passed, end_of(seq - 1))), None)
                if span is not None and seq in span.seqs:
                    count, size = (-(-each // len(span.seqs)) for each in (span.count, span.size))
                    backend.count(Drop(backend.name, "damaged", count, size, span.oldest, span.oldest))

    @property
    def _not_for_age(self) -> str:
        """Why something is gone that was young enough."""
        return "full" if self.limits.drop_oldest else "damaged"

    def _drop(self, backend: str, total: Total) -> Drop:
        max_age = self.limits.max_age
        is_old = max_age and total.last <= self._clock() - max_age * _NEARLY
        return Drop(backend, "age" if is_old else self._not_for_age, total.writes, total.bytes, total.first, total.last)


def _without_gap(messages: int) -> int:
    """Return how many messages are missing, without those that were left out where the log was made anew."""
    return messages if messages < GAP // 2 else max(0, messages - GAP)
