"""The journal's thread, and what the reactor sees of it."""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.core.histogram import LATENCIES, Histogram
from influxrelay.core.write import Destination, Write
from influxrelay.journal.corruption import files_of, is_corrupt, move_aside
from influxrelay.journal.interface import Key, Positions
from influxrelay.journal.records import Contents, DeadLetter, Depth, Drop, JournalLimits, Record, count_drop
from influxrelay.journal.store import Store

T = TypeVar("T")

LAZY = 0.25  # seconds that the cursors may lag behind when no write comes along to take them with it
CHECK_AGE = 10.0  # seconds between two looks for what is too old


class JournalFullError(JournalError):
    """The journal has as many bytes as it may have, and refuses more."""


@attrs.define(eq=False)
class _Batch:
    """What is done in one transaction."""

    appends: list[tuple[Record, Deferred[None]]] = attrs.field(factory=list)
    strikes: list[tuple[int, Deferred[None]]] = attrs.field(factory=list)
    passed: dict[tuple[Key, Destination], int] = attrs.field(factory=dict)
    insisted: list[Callable[[Store], None]] = attrs.field(factory=list)
    calls: list[tuple[Callable[[Store], Any], Deferred[Any]]] = attrs.field(factory=list)


class JournalWriter:
    """Gives the journal its work, in batches: what comes while one transaction is under way becomes the next.

    All methods belong to the reactor's thread; :meth:`_run` is the journal's.

    :param directory: the journal's.
    :ivar trouble: what is wrong with the disk, as long as it is; ``""`` when all is well.
    :ivar used: the bytes that the data takes on disk.
    :ivar commits: the seconds that each transaction took, also those that failed.
    :param on_drop: is told of a destination, and of the last number in it that a limit has cost.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        directory: str | Path,
        limits: JournalLimits,
        *,
        full_sync: bool = False,
        on_drop: Callable[[Destination, int], object] = lambda destination, upto: None,  # noqa: ARG005
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory = Path(directory)
        self.trouble = ""
        self._last_number = 0
        self._names: dict[Key, str] = {}  # belongs to the journal's thread, where it changes between transactions
        self._counted: dict[Key, dict[str, Drop]] = {}  # by this process
        self._backends: dict[str, str] = {}
        self._committed = (self._names, self._backends)
        self.used = 0
        self.commits = Histogram(LATENCIES)
        self._lost: tuple[dict[Key, str], list[Drop]] = (self._names, [])
        self._reactor = reactor
        self._limits = limits
        self._full_sync = full_sync
        self._clock = clock
        self._on_drop = on_drop
        self._dropped: dict[Destination, int] = {}  # by the batch under way; the other thread is done when it is read
        self._batch = _Batch()
        self._busy = False
        self._lazy: IDelayedCall | None = None
        self._work: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_open = False
        self._stopped: Deferred[None] | None = None
        self._next_age_check = 0.0
        self._damage: Exception | None = None  # as long as no new journal could be begun
        self._aside: Path | None = None  # where the damaged one is, as long as that

    @property
    def obstacle(self) -> str:
        """Why a write would not be journaled now; empty if it would, as far as is known."""
        limits = self._limits
        if self.trouble:
            return f"the journal does not work: {self.trouble}"
        if limits.max_bytes and self.used >= limits.max_bytes and not limits.drop_oldest:
            return f"the journal is full ({limits.max_bytes} bytes)"
        return ""

    def losses(self, key: Key) -> list[Drop]:
        """Return what was lost for a backend: all that the journal knew when it was last asked, and what is newer."""
        names, drops = self._lost  # together: a transaction may be about to change the names
        written = {each.reason: each for each in drops if each.backend == names.get(key)}
        return list({**self._counted.get(key, {}), **written}.values())

    @property
    def last_number(self) -> int:
        """The last number that was given out."""
        return self._last_number

    @property
    def max_bytes(self) -> int:
        """How much the journal may keep; 0 for no limit."""
        return self._limits.max_bytes

    # -- start and stop

    def open(self, backends: Mapping[Key, tuple[str, str]]) -> dict[Key, Positions]:
        """Open the journal, register the backends (name and location), and return what waits for each of them.

        A corrupt one is moved aside, and a new one begun.

        :raises JournalError: it is in use, or of a later version.
        """
        self._names = {key: name for key, (name, _) in backends.items()}
        self._backends = dict(backends.values())
        try:
            try:
                self._journal = self._open(self._backends)
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                if not is_corrupt(error):
                    raise
                self._begin_anew(error)
        except (sqlite3.DatabaseError, OSError) as error:
            raise JournalError(f"{self.directory}: {error}") from error
        self._is_open = True
        self._last_number = self._journal.last_seq
        self.used = self._journal.used()
        self._lost = (self._names, self._journal.drops())
        return {key: self._journal.backlog(name) for key, name in self._names.items()}

    def _open(self, backends: dict[str, str], *, instead: bool = False) -> Store:
        """Open the journal, with these backends.

        :param instead: it is a new one, and nobody knows what a damaged one would have told them.
        """
        try:
            journal = Store(self.directory, full_sync=self._full_sync)
        except OSError as error:
            raise JournalError(f"{self.directory}: {error.strerror}") from error
        try:
            journal.begin()
            journal.register(backends)
            for name in backends if instead else ():
                journal.count_drop(name, "damaged", self._clock(), 0)
            journal.commit()
            for name in backends:
                journal.backlog(name)  # what is damaged should show now
        except BaseException:
            journal.close()
            raise
        return journal

    def _begin_anew(self, error: Exception) -> None:
        """Move the journal aside, once, and begin a new one; what an earlier try has left of that is removed."""
        if self._aside is None:
            self._aside = move_aside(self.directory, self._clock())
        else:
            for path in files_of(self.directory).values():
                path.unlink(missing_ok=True)
        self._journal = self._open(self._backends, instead=True)
        aside, self._aside = self._aside, None
        self._log.critical(
            "the journal in {directory} is damaged ({error}): it is now {aside}, and a new one is begun",
            directory=str(self.directory),
            error=error,
            aside=aside.name,
        )

    def start(self) -> None:
        """Begin to work."""
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def stop(self) -> Deferred[None]:
        """Finish what has been given, and close the files."""
        stopped: Deferred[None] = Deferred()
        self._stopped = stopped
        if self._thread is None:
            if self._is_open:
                self._journal.close()
            stopped.callback(None)
        else:
            self._hand_over()
        return stopped

    # -- work

    def next_number(self) -> int:
        """Return the number for the next write."""
        self._last_number += 1
        return self._last_number

    def append(self, record: Record) -> Deferred[None]:
        """Add a write; fires when it is committed, and fails with what is wrong (:class:`JournalError`)."""
        committed: Deferred[None] = Deferred()
        self._batch.appends.append((record, committed))
        self._hand_over()
        return committed

    def strike(self, number: int) -> Deferred[None]:
        """Remove a write that no client was told was taken."""
        struck: Deferred[None] = Deferred()
        self._batch.strikes.append((number, struck))
        self._hand_over()
        return struck

    def advance(self, key: Key, destination: Destination, number: int) -> None:
        """Note that a backend is done with a destination up to this number; it is written down with the next commit."""
        self._batch.passed[key, destination] = number
        if self._lazy is None and not self._busy:
            self._lazy = self._reactor.callLater(LAZY, self._hand_over)

    def bury(self, key: Key, when: float, write: Write, status: int, message: str) -> None:
        """Keep a write that a backend has refused for good, with what it said."""

        def add(journal: Store) -> None:
            if name := self._names.get(key):
                journal.add_dead_letter(name, when, write, status, message)

        self._insist(add)

    def count_loss(self, key: Key, reason: str, when: float, size: int) -> None:
        """Count a write that a backend will not get: here, and in the journal as soon as that takes it."""
        count_drop(self._counted.setdefault(key, {}), "", reason, when, size)

        def count(journal: Store) -> None:
            if name := self._names.get(key):
                journal.count_drop(name, reason, when, size)

        self._insist(count)

    def read(self, destination: Destination, after: int, max_bytes: int) -> Deferred[tuple[list[Record], int]]:
        """Read the next writes of a destination, and say up to which number they are all."""
        last_number = self._last_number  # everything up to here has been given to append() already

        def read(journal: Store) -> tuple[list[Record], int]:
            records, upto, damaged = journal.read(destination, after, max_bytes)
            journal.drop(damaged, "damaged")
            if upto is None:  # writes may have come since, in the same transaction
                upto = max(last_number, records[-1].seq if records else 0)
            return records, upto

        return self._call(read)

    # -- backends and settings

    def reconfigure(self, limits: JournalLimits, *, full_sync: bool) -> None:
        """Let other settings hold from the next transaction on."""
        self._limits = limits
        self._full_sync = full_sync

    def register(self, backends: Mapping[Key, tuple[str, str]]) -> None:
        """Say which backends there are from this moment on: name and location by what stands for each.

        It is written down as soon as the disk takes it, before any write that comes later. A backend that is not known
        begins behind the last write, or where it was when it was removed.
        """
        since = self._last_number

        def register(journal: Store) -> None:
            live = {name: self._names[key] for key, (name, _) in backends.items() if key in self._names}
            locations = dict(backends.values())
            journal.register(locations, since, live)
            self._names = {key: name for key, (name, _) in backends.items()}
            self._backends = locations

        self._counted = {key: drops for key, drops in self._counted.items() if key in backends}
        self._insist(register)

    def returning(self, backends: Mapping[str, str], known: Mapping[str, Key]) -> Deferred[dict[str, Positions]]:
        """Return where the backends stand that were removed at an earlier time, and would return."""
        return self._call(
            lambda journal: journal.passed_before(backends, {name: self._names[key] for name, key in known.items()})
        )

    # -- for the operator

    def contents(self) -> Deferred[Contents]:
        """Return what is in the journal."""
        return self._call(Store.contents)

    def discard(self, backend: str) -> Deferred[tuple[Depth | None, int]]:
        """Give up what waits for a backend, and count it; or forget a backend that is no longer configured."""

        def discard(journal: Store) -> tuple[Depth | None, int]:
            found = next((each for each in journal.depths() if each.backend == backend), None)
            journal.drop_backend(backend)
            journal.sweep()
            return found, journal.last_seq

        return self._call(discard)

    def forget_losses(self, backend: str) -> Deferred[list[Drop]]:
        """Count a backend's losses from zero, and return what was counted."""

        def forget(drops: list[Drop]) -> list[Drop]:
            self._counted = {key: known for key, known in self._counted.items() if self._names.get(key) != backend}
            return drops

        return self._call(lambda journal: journal.forget_drops(backend)).addCallback(forget)

    def dead_letters(self, after: int, limit: int) -> Deferred[list[DeadLetter]]:
        """Return the dead letters with a higher id, the oldest first."""
        return self._call(lambda journal: journal.dead_letters(after, limit))

    def drop_dead_letters(self, ids: Iterable[int]) -> Deferred[int]:
        """Remove dead letters, and return how many there were."""
        wanted = list(ids)
        return self._call(lambda journal: journal.drop_dead_letters(wanted))

    def probe(self) -> Deferred[None]:
        """Find out whether the journal works; :attr:`trouble` tells afterwards."""
        return self._call(Store.touch)

    # -- transactions

    def _call(self, function: Callable[[Store], T]) -> Deferred[T]:
        """Call a function with the journal, in its thread, behind everything that was given before."""
        result: Deferred[T] = Deferred()
        self._batch.calls.append((function, result))
        self._hand_over()
        return result

    def _insist(self, function: Callable[[Store], None]) -> None:
        """Call a function with the journal, in its thread, in the transaction that moves the cursors after it.

        It is tried again until the disk takes it.
        """
        self._batch.insisted.append(function)
        self._hand_over()

    def _hand_over(self) -> None:
        if self._busy or self._thread is None:
            return
        if self._lazy is not None:
            if self._lazy.active():
                self._lazy.cancel()
            self._lazy = None
        batch = self._batch
        if batch.appends or batch.strikes or batch.passed or batch.insisted or batch.calls:
            self._batch = _Batch()
            self._busy = True
            self._work.put(batch)
        elif self._stopped is not None:
            self._work.put(None)
            self._thread.join()
            self._thread = None
            self._journal.close()
            self._stopped.callback(None)

    def _done(self, results: list[tuple[Deferred[Any], Any]], undone: _Batch | None, trouble: str) -> None:
        """Take back a batch; in the reactor's thread."""
        self._busy = False
        if trouble != self.trouble:
            if trouble:
                self._log.critical(
                    "the journal in {directory}: {trouble}", directory=str(self.directory), trouble=trouble
                )
            else:
                self._log.info("the journal in {directory} works again", directory=str(self.directory))
            self.trouble = trouble
        if undone is not None and self._stopped is None:
            self._batch.strikes[:0] = undone.strikes
            self._batch.insisted[:0] = undone.insisted
            self._batch.passed = {**undone.passed, **self._batch.passed}
        dropped, self._dropped = self._dropped, {}
        for destination, upto in dropped.items():
            self._on_drop(destination, upto)
        if self._stopped is None:
            self._hand_over_soon()
        self._fire(results)
        if self._stopped is not None:  # behind what has come of the results
            self._hand_over_soon()

    def _fire(self, results: list[tuple[Deferred[Any], Any]]) -> None:
        for deferred, result in results:
            if isinstance(result, Exception):
                deferred.errback(Failure(result))
            else:
                deferred.callback(result)

    def _hand_over_soon(self) -> None:
        """Go on with what has come in the meantime; leave what can wait to the next write, or to the lazy timer."""
        batch = self._batch
        asked = batch.appends or batch.calls
        if asked or ((batch.strikes or batch.insisted) and not self.trouble) or self._stopped is not None:
            self._hand_over()
        elif (batch.passed or batch.strikes or batch.insisted) and self._lazy is None:
            self._lazy = self._reactor.callLater(LAZY, self._hand_over)

    # -- in the journal's thread

    def _run(self) -> None:
        while (batch := self._work.get()) is not None:
            began = time.perf_counter()
            results: list[tuple[Deferred[Any], Any]] = []
            undone: _Batch | None = None
            trouble = ""
            try:
                if batch.appends and batch.calls:  # clients wait for the appends, and nobody for what is read
                    calls, batch.calls = batch.calls, []
                    try:
                        results = self._do(batch)
                    finally:
                        batch.calls = calls
                    self._reactor.callFromThread(self._fire, results)
                    batch = _Batch(calls=calls)
                results = self._do(batch)
            except Exception as error:  # noqa: BLE001 (a disk can fail in any way, and the relay goes on)
                trouble = f"{type(error).__name__}: {error}"
                undone = batch
                results = self._undo(batch, error)
            self.commits.observe(time.perf_counter() - began)
            self._reactor.callFromThread(self._done, results, undone, trouble)

    def _do(self, batch: _Batch) -> list[tuple[Deferred[Any], Any]]:
        self._committed = (self._names, self._backends)
        if self._damage is not None:
            self._begin_anew(self._damage)
            self._damage = None
        journal, limits = self._journal, self._limits
        results: list[tuple[Deferred[Any], Any]] = []
        journal.set_sync(full=self._full_sync)
        journal.begin()
        journal.dropped.clear()
        full = limits.max_bytes and journal.used() >= limits.max_bytes and not limits.drop_oldest
        if batch.appends:
            if full:
                problem = JournalFullError(f"{self.directory}: the journal is full ({limits.max_bytes} bytes)")
                results += [(deferred, problem) for _, deferred in batch.appends]
            else:
                journal.append(record for record, _ in batch.appends)
                results += [(deferred, None) for _, deferred in batch.appends]
        if batch.strikes:
            journal.strike(seq for seq, _ in batch.strikes)
        for function in batch.insisted:
            self._try(function)
        if batch.passed:
            journal.advance({(self._names.get(key, ""), where): seq for (key, where), seq in batch.passed.items()})
            journal.sweep()
        if limits.max_bytes and limits.drop_oldest:
            journal.drop_oldest(limits.max_bytes)
        now = self._clock()
        if limits.max_age and now >= self._next_age_check:
            self._next_age_check = now + CHECK_AGE
            journal.expire(now - limits.max_age)
        results += [(deferred, None) for _, deferred in batch.strikes]
        results += [(deferred, self._try(function)) for function, deferred in batch.calls]
        journal.commit()
        if journal.has_new_drops:
            journal.has_new_drops, self._lost = False, (self._names, journal.drops())
        self._dropped.update(journal.dropped)
        self.used = journal.used()
        return results

    def _try(self, function: Callable[[Store], Any]) -> Any:
        """Call a function; a mistake in it, unlike the disk's trouble, is its own and returned."""
        try:
            return function(self._journal)
        except (sqlite3.Error, OSError):
            raise
        except Exception as error:  # noqa: BLE001 (it must not undo what others have written)
            self._log.failure("the journal in {directory}", directory=str(self.directory))
            return error

    def _undo(self, batch: _Batch, error: Exception) -> list[tuple[Deferred[Any], Any]]:
        """Get ready for the next try; who waits for a commit or an answer is told that there is none."""
        self._names, self._backends = self._committed
        try:
            if is_corrupt(error):
                self._journal.close()
                self._damage = error
                self._begin_anew(error)
                self._damage = None
            elif self._damage is None:
                self._journal.rollback()
        except (sqlite3.Error, OSError, JournalError) as another:
            error.add_note(f"and it could not be undone: {another}")
        problem = JournalError(f"{self.directory}: {error}")
        waiting: list[Deferred[Any]] = [deferred for _, deferred in batch.appends]
        waiting += [deferred for _, deferred in batch.calls]
        waiting += [deferred for _, deferred in batch.strikes]
        batch.strikes = [(seq, _unheard()) for seq, _ in batch.strikes]
        return [(deferred, problem) for deferred in waiting]


def _unheard() -> Deferred[None]:
    """Return a Deferred whose failure nobody needs to hear of: it has been told already."""
    deferred: Deferred[None] = Deferred()
    deferred.addErrback(lambda _: None)
    return deferred
