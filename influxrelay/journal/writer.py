"""A journal on the disk of this machine."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.core.histogram import Histogram
from influxrelay.core.write import Destination, Write
from influxrelay.journal.corruption import is_corrupt
from influxrelay.journal.housekeeping import LAZY, Housekeeper
from influxrelay.journal.interface import Key, Positions, Receipt
from influxrelay.journal.jobs import Jobs
from influxrelay.journal.ledger import Letter, Loss
from influxrelay.journal.opening import open_anew, open_store, restore, tell_of_damage
from influxrelay.journal.operator import Operator
from influxrelay.journal.records import Contents, DeadLetter, Depth, Drop, JournalLimits, Record
from influxrelay.journal.store import Page, Store
from influxrelay.journal.tail import Tail
from influxrelay.journal.worker import ThreadWorker, Worker

TIMEOUT = 5.0  # seconds that the disk has to answer


class JournalWriter:
    """A journal whose log and ledger are files in one directory.

    Two threads wait for the disk: one appends to the log, while clients wait for it; the other one does all else.

    :param limits: how much is kept.
    :param full_sync: an append survives power loss, not only the end of the process.
    :param timeout: seconds after which a disk that does not answer counts as one that fails.
    :param on_drop: is told of a destination, and of the last number in it that a limit has cost.
    :param clock: returns seconds since the epoch.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        directory: str | Path,
        limits: JournalLimits,
        *,
        full_sync: bool = False,
        timeout: float = TIMEOUT,
        on_drop: Callable[[Destination, int], object] = lambda destination, upto: None,  # noqa: ARG005
        clock: Callable[[], float] = time.time,
        make_worker: Callable[[Any, str, float, Callable[[str], object]], Worker] = ThreadWorker,
    ) -> None:
        self.directory = Path(directory)
        self._reactor = reactor
        self._limits = limits
        self._full_sync = full_sync
        self._timeout = timeout
        self._on_drop = on_drop
        self._clock = clock
        self._make_worker = make_worker
        self._last_number = 0
        self._told = ""  # what was logged
        self._corrupt: Exception | None = None  # what is wrong with the ledger, until there is a new one
        self._is_open = False
        self._stopping: Deferred[None] | None = None

    # -- start and stop

    def open(self, backends: Mapping[Key, tuple[str, str]] | None) -> dict[Key, Positions]:
        """Open the journal, and register the backends; may take a while, and be done in another thread.

        :param backends: name and location of each; None to look at what there is, and to repair and register nothing.
        :return: what waits for each backend.
        :raises JournalError: it is in use, or of a later version, or the disk fails.
        """
        directory, repair = self.directory, backends is not None
        try:
            try:
                return self._begin(open_store(directory, self._full_sync, self._clock(), may_upgrade=repair), backends)
            except (sqlite3.DatabaseError, ValueError) as error:
                if not (repair and is_corrupt(error)):
                    raise
                return self._begin(open_anew(directory, self._full_sync, self._clock(), error), backends)
        except (sqlite3.Error, OSError, ValueError) as error:
            raise JournalError(f"{directory}: {getattr(error, 'strerror', None) or error}") from error

    def _begin(self, store: Store, backends: Mapping[Key, tuple[str, str]] | None) -> dict[Key, Positions]:
        try:
            return self._restore(store, backends)
        except BaseException:
            store.close()
            raise

    def _restore(self, store: Store, backends: Mapping[Key, tuple[str, str]] | None) -> dict[Key, Positions]:
        self._store = store
        self._last_number = store.findings.last_number
        log_worker = self._make_worker(self._reactor, "journal", self._timeout, self._log_is_stuck)
        ledger_worker = self._make_worker(self._reactor, "ledger", self._timeout, self._ledger_is_stuck)
        self._workers = log_worker, ledger_worker
        self._tail = Tail(self.directory, log_worker, self._settled, self._last_number)
        self._jobs = Jobs(str(self.directory), ledger_worker, self._ledger_is_corrupt, self._look)
        house = Housekeeper(self._reactor, store, self._tail, self._jobs, clock=self._clock, on_drop=self._on_drop)
        house.reconfigure(self._limits, full_sync=self._full_sync)
        self._house, self._operator = house, Operator(house, self._tail, self._jobs, store)
        positions = restore(house, store.findings, backends)
        self._is_open = True
        return positions

    def start(self) -> None:
        """Begin to work."""
        self._house.start()

    def stop(self, within: float = math.inf) -> Deferred[None]:
        """Finish what has been given, and close the files; a disk that does not answer is left alone.

        :param within: seconds that the disk has to answer, if that is less than it has otherwise.
        """
        stopped: Deferred[None] = Deferred()
        self._stopping = stopped
        if self._is_open:
            for each in self._workers:
                each.set_timeout(min(self._timeout, within))
            Deferred.fromCoroutine(self._stop()).addErrback(self._not_stopped).addBoth(lambda _: self._end())
        else:
            stopped.callback(None)
        return stopped

    async def _stop(self) -> None:
        try:
            while not self._tail.is_idle:
                await self._tail.drained()  # those who are told may have more to do
            await self._house.finish()
        except JournalError:
            self._look()
        await self._workers[1].do(self._close)
        await self._workers[0].do(self._tail.close)

    def _close(self) -> None:
        """Close the ledger; the lock is kept until the end of a process whose other thread may write to the log yet."""
        (self._store.ledger if self._workers[0].is_stuck else self._store).close()

    def _not_stopped(self, failure: Failure) -> None:
        if not failure.check(JournalError, TimeoutError):
            self._log.failure("the journal in {directory}", failure, directory=str(self.directory))

    def _end(self) -> None:
        self._house.close()
        for each in self._workers:
            each.stop()
        if self._stopping is not None and not self._stopping.called:
            self._stopping.callback(None)

    # -- trouble

    risk = ""

    @property
    def trouble(self) -> str:
        """What is wrong, as long as it is; empty if all is well."""
        return (self._tail.trouble or self._jobs.trouble) if self._is_open else ""

    @property
    def why_unavailable(self) -> str:
        """Why a write would not be journaled now; empty if it would, as far as is known."""
        if not self._is_open:
            return ""
        if self._tail.trouble:
            return f"the journal does not work: {self._tail.trouble}"
        reason = self._house.why_unavailable
        return "" if reason is None else str(reason).removeprefix(f"{self.directory}: ")

    def _look(self) -> None:
        """Log what is wrong, once, and that it no longer is."""
        trouble = self.trouble
        if trouble and not self._told:
            self._log.critical("the journal in {directory}: {trouble}", directory=str(self.directory), trouble=trouble)
        elif self._told and not trouble:
            self._log.info("the journal in {directory} works again", directory=str(self.directory))
        self._told = trouble

    def _settled(self) -> None:
        self._look()
        self._house.check_room()

    def _log_is_stuck(self, problem: str) -> None:
        self._tail.give_up(problem)
        self._stuck(problem)

    def _ledger_is_stuck(self, problem: str) -> None:
        self._jobs.give_up(problem)
        self._house.give_up(JournalError(f"{self.directory}: {problem}"))
        self._stuck(problem)

    def _stuck(self, problem: str) -> None:
        self._look()
        if self._stopping is not None:
            self._tail.give_up(problem)
            self._jobs.give_up(problem)
            self._workers[1].do(self._close).addErrback(self._not_stopped).addCallback(lambda _: self._end())

    def _ledger_is_corrupt(self, error: Exception) -> None:
        if self._corrupt is None:
            self._corrupt = error
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Begin a new ledger, and write into it what is known here; that is tried until the disk takes it."""
        if self._stopping is None:
            unsealed, now = [each.first for each in self._tail.segments], self._clock()
            begun = self._workers[1].do(partial(self._store.begin_anew, unsealed, now))
            begun.addCallbacks(self._begun_anew, self._not_begun)

    def _begun_anew(self, aside: Path) -> None:
        if self._corrupt is not None:
            tell_of_damage(self.directory, self._corrupt, aside)
        self._corrupt = None
        self._house.begin_anew()

    def _not_begun(self, failure: Failure) -> None:
        if not failure.check(OSError, sqlite3.Error):
            self._log.failure("the journal in {directory}", failure, directory=str(self.directory))
        self._reactor.callLater(LAZY, self._begin_anew)

    # -- what is known without the disk

    @property
    def place(self) -> str:
        """The directory, for people."""
        return str(self.directory)

    @property
    def last_number(self) -> int:
        """The last number that was given out."""
        return self._last_number

    @property
    def used(self) -> int:
        """Bytes that the journal takes on disk."""
        return self._house.used if self._is_open else 0

    @property
    def max_bytes(self) -> int:
        """How much the journal may keep; 0 for no limit."""
        return self._limits.max_bytes

    @property
    def commits(self) -> Histogram:
        """The seconds that each append to the log took."""
        return self._tail.commits

    def losses(self, key: Key) -> list[Drop]:
        """Return what was lost for a backend."""
        backend = self._house.registry.id_of(key) if self._is_open else None
        return self._house.accounts.losses(backend, self._house.registry.name_of(backend)) if backend else []

    # -- writes

    def next_number(self) -> int:
        """Return the number for the next write."""
        self._last_number += 1
        return self._last_number

    def append(self, record: Record) -> Deferred[None]:
        """Add a write; fires when it is in the log, and fails with a :class:`JournalError` if it is not."""
        done: Deferred[None] = Deferred()
        self.append_for(record, done)
        return done

    def append_for(self, record: Record, receipt: Receipt) -> None:
        """Add a write, and have somebody told who must not raise."""
        house = self._house
        house.cursors.appended(record.write.destination, record.seq)
        house.soon()
        if house.why_unavailable is None:
            self._tail.append(record, receipt)
        else:
            self._tail.skip(record, house.why_unavailable, receipt)

    def strike(self, number: int) -> Deferred[None]:
        """Take back a write that no client was told was taken."""
        if (struck := self._tail.strike(number)) is not None:
            return struck

        def done(was_there: bool) -> Deferred[None]:  # noqa: FBT001 (a callback)
            return self.strike(number) if not was_there and self._tail.knows(number) else succeed(None)

        def not_done(failure: Failure) -> Failure:
            self._house.strike_later(number)
            return failure

        return self._jobs.ask(partial(self._store.strike, number)).addCallbacks(done, not_done)

    def advance(self, key: Key, destination: Destination, number: int) -> None:
        """Note that a backend is done with a destination up to this number."""
        if (backend := self._house.registry.id_of(key)) is not None:
            self._house.cursors.advance(backend, destination, number)
            self._house.soon()

    def keep_positions(self) -> Deferred[None]:
        """Fire when what was noted until now, of all backends, is in the ledger."""
        return Deferred.fromCoroutine(self._house.books.save_and(lambda: None))

    def bury(self, key: Key, when: float, write: Write, status: int, message: str) -> None:
        """Keep a write that a backend has refused for good, with what it said."""
        if (backend := self._house.registry.id_of(key)) is not None:
            self._house.accounts.bury(Letter(backend, when, write, status, message))
            self._house.soon()

    def count_loss(self, key: Key, reason: str, when: float, size: int) -> None:
        """Count a write that a backend will not get."""
        if (backend := self._house.registry.id_of(key)) is not None:
            self._house.accounts.count(Loss(backend, reason, 1, size, when, when))
            self._house.soon()

    def read(self, destination: Destination, after: int, max_bytes: int) -> Deferred[tuple[list[Record], int]]:
        """Read the next writes of a destination, and say up to which number they are all."""
        return self._tail.wait().addCallback(lambda _: self._read(destination, after, max_bytes))

    def _read(self, destination: Destination, after: int, max_bytes: int) -> Deferred[tuple[list[Record], int]]:
        upto = self._tail.settled
        standing = self._house.cursors.behind.get(destination)
        passed = dict(standing.passed) if standing is not None else {}
        parts = self._tail.parts(destination, after, max_bytes)

        def turn(page: Page) -> tuple[list[Record], int]:
            self._tail.leave_out(page.damaged)
            self._house.accounts.note(page.losses)
            records = [each for each in page.records if each.seq not in self._house.unstruck]
            return records, page.upto or max(upto, page.records[-1].seq if page.records else 0)

        return self._jobs.ask(partial(self._store.read, destination, after, max_bytes, parts, passed)).addCallback(turn)

    # -- backends and settings

    def reconfigure(self, limits: JournalLimits, *, full_sync: bool, timeout: float = TIMEOUT) -> None:
        """Let other settings hold from the next write on."""
        self._limits, self._full_sync, self._timeout = limits, full_sync, timeout
        if self._is_open:
            self._house.reconfigure(limits, full_sync=full_sync)
            self._house.check_room()
            for each in self._workers:
                each.set_timeout(timeout)

    def register(self, backends: Mapping[Key, tuple[str, str]]) -> None:
        """Say which backends there are from this moment on, as name and location."""
        cursors, registry = self._house.cursors, self._house.registry
        self._house.run(self._house.books.save)  # where those stand that are removed
        before = set(cursors.active)
        registry.register(backends)
        cursors.activate(registry.active())
        for backend in set(cursors.active) - before:
            for where, (passed, last) in self._house.returning.get(backend, {}).items():
                cursors.restore(backend, where, passed, last)
        self._house.returning = {}
        self._house.register()

    def returning(self, backends: Mapping[str, str], known: Mapping[str, Key]) -> Deferred[dict[str, Positions]]:
        """Return where the backends stand that were removed at an earlier time, and would return."""
        return self._operator.returning(backends, known)

    # -- for the operator

    def contents(self) -> Deferred[Contents]:
        """Return what is in the journal."""
        return self._operator.contents()

    def discard(self, backend: str) -> Deferred[tuple[Depth | None, int]]:
        """Give up what waits for a backend, and count it; or forget a backend that is no longer configured."""
        return self._operator.discard(backend)

    def forget_losses(self, backend: str) -> Deferred[list[Drop]]:
        """Count a backend's losses from zero, and return what was counted."""
        return self._operator.forget_losses(backend)

    def dead_letters(self, after: int, limit: int) -> Deferred[list[DeadLetter]]:
        """Return the dead letters with a higher id, the oldest first."""
        return self._operator.dead_letters(after, limit)

    def drop_dead_letters(self, ids: Iterable[int]) -> Deferred[int]:
        """Remove dead letters, and return how many there were."""
        return self._operator.drop_dead_letters(ids)

    def probe(self) -> Deferred[None]:
        """Find out whether the disk works; :attr:`trouble` tells afterwards."""
        return self._operator.probe()
