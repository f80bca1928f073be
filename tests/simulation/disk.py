"""The journal of a simulated relay: the real one, on a real directory, but time and trouble are the schedule's."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, cast

from twisted.internet.defer import Deferred, fail
from twisted.logger import ILogObserver, Logger
from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.core.write import Write
from influxrelay.journal.interface import Receipt
from influxrelay.journal.records import Record
from influxrelay.journal.tail import Tail
from influxrelay.journal.writer import JournalWriter

CODES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY)
TIMEOUT = 1.0  # seconds after which a disk that hangs is given up
HANGING = 0.05  # seconds between two looks whether it still hangs
T = TypeVar("T")


class Kept(Protocol):
    """What the journal tells of a write."""

    seq: int
    committed: bool
    unjournaled: bool
    unstruck: bool


class Disk(Protocol):
    """What a schedule says of the disk."""

    rng: Any
    disk_is_bad: bool
    disk_hangs: bool
    commit_delay: float
    writes: dict[Write, Any]

    def note(self, message: str) -> None:
        """Trace what happens."""

    def broken(self, message: str) -> Exception:
        """Note a violation."""

    def by_seq(self, seq: int) -> Any:
        """Return the write that has this number in the present process."""


class SimulatedWorker:
    """Does its jobs after a while each, unless the disk fails or hangs."""

    def __init__(self, disk: Disk, reactor: Any, name: str, timeout: float, on_stuck: Callable[[str], object]) -> None:
        self.is_stuck = False
        self.jobs: deque[tuple[Callable[[], Any], Deferred[Any]]] = deque()
        self.fails_within = False
        self._disk = disk
        self._reactor = reactor
        self._name = name
        self._timeout = timeout
        self._on_stuck = on_stuck
        self._since = 0.0
        self._busy = False

    def do(self, job: Callable[[], T]) -> Deferred[T]:
        """Do a job behind the others."""
        if self.is_stuck:
            return fail(TimeoutError("the disk does not answer"))
        done: Deferred[T] = Deferred()
        self.jobs.append((job, done))
        if not self._busy and not self._reactor.is_dead:
            self._begin()
        return done

    def at_turns_end(self, call: Callable[[], object]) -> None:
        """Call this at the same time, but behind what happens then already."""
        if not self._reactor.is_dead:
            self._reactor.callLater(0, call)

    def set_timeout(self, seconds: float) -> None:
        """Do nothing: the schedule's holds."""

    def stop(self) -> None:
        """Nothing to end."""

    def _begin(self) -> None:
        self._busy = True
        self._since = self._reactor.seconds()
        self._reactor.callLater(self._disk.rng.random() * self._disk.commit_delay, self._execute)

    def _execute(self) -> None:
        if self._disk.disk_hangs:
            if not self.is_stuck and self._reactor.seconds() - self._since >= self._timeout:
                self._disk.note(f"{self._name}: the disk does not answer")
                self.is_stuck = True
                self._on_stuck("the disk does not answer")
            if not self._reactor.is_dead:
                self._reactor.callLater(HANGING, self._execute)
            return
        job, done = self.jobs.popleft()
        result: Any
        try:
            result = self._try(job)
        except (OSError, sqlite3.Error) as error:
            self._disk.note(f"{self._name}: {error}")
            result = Failure()
        except Exception:  # noqa: BLE001 (any other mistake is the journal's own)
            self._disk.broken(f"in the journal: {Failure().getTraceback()}")
            result = Failure()
        self._busy = False
        self.is_stuck = False
        if self.jobs and not self._reactor.is_dead:
            self._begin()
        done.callback(result)

    def _try(self, job: Callable[[], T]) -> T:
        bad = self._disk.disk_is_bad and self._disk.rng.random() < 0.9
        if bad and self._disk.rng.random() < 0.5:
            raise OSError(self._disk.rng.choice((errno.ENOSPC, errno.EIO)), "simulated")
        self.fails_within = bad
        try:
            return job()
        finally:
            self.fails_within = False


class SimulatedWriter(JournalWriter):
    """A JournalWriter that can be killed, and tells the schedule what it does."""

    _log = Logger(observer=cast("ILogObserver", lambda _: None))
    _workers: tuple[SimulatedWorker, SimulatedWorker]

    def __init__(self, disk: Disk, reactor: Any, directory: str, limits: Any, **named: Any) -> None:
        def make_worker(*arguments: Any) -> SimulatedWorker:
            return SimulatedWorker(disk, *arguments)

        super().__init__(reactor, directory, limits, timeout=TIMEOUT, make_worker=make_worker, **named)
        self._disk = disk
        self._appended: list[Deferred[None]] = []
        self._appender_fails = False

    def open(self, backends: Any) -> Any:
        """Open the journal, and put faults into it."""
        positions = super().open(backends)
        transaction = self._store.ledger.transaction
        log, ledger = self._workers

        @contextmanager
        def faulty() -> Iterator[None]:
            with transaction():
                yield
                if ledger.fails_within:
                    error = sqlite3.OperationalError("simulated")
                    error.sqlite_errorcode = self._disk.rng.choice(CODES)
                    raise error

        self._store.ledger.transaction = faulty  # type: ignore[method-assign]
        append = self._tail._appender._append

        def fail_behind(batch: Any) -> None:
            append(batch)
            if log.fails_within:
                raise OSError(errno.EIO, "simulated")

        self._tail._appender._append = fail_behind  # type: ignore[method-assign]
        return positions

    def append_for(self, record: Record, receipt: Receipt) -> None:
        """Add a write, and note what becomes of it."""
        story = self._disk.writes[record.write]
        story.seq = record.seq

        def committed(_: None) -> None:
            story.committed = True
            self._disk.note(f"write {story.sequence} is in the log as {record.seq}")

        def failed(failure: Failure) -> Failure:
            story.unjournaled = True
            self._disk.note(f"write {story.sequence}, {record.seq}, is not in the log: {failure.value}")
            return failure

        done: Deferred[None] = Deferred()
        self._appended.append(done)
        done.addCallbacks(committed, failed).addCallbacks(receipt.callback, receipt.errback)
        super().append_for(record, done)

    def end(self) -> None:
        """End in order, also if the disk hangs."""
        if self._store._lock is not None:
            self.kill()

    def strike(self, number: int) -> Deferred[None]:
        """Strike a write, and note whether that was possible."""

        def failed(failure: Failure) -> Failure:
            failure.trap(JournalError)
            self._disk.by_seq(number).unstruck = True
            return failure

        self._disk.note(f"write {self._disk.by_seq(number).sequence}, {number}, is struck")
        return super().strike(number).addErrback(failed)

    def kill(self) -> None:
        """End as a process does that is killed, perhaps in the middle of a write or a transaction."""
        rng = self._disk.rng
        for worker in self._workers:
            if worker.jobs:
                how_far = rng.randrange(3)
                worker.fails_within = how_far == 1
                if how_far:
                    try:
                        worker.jobs[0][0]()
                    except (OSError, sqlite3.Error):
                        pass
                    except Exception:  # noqa: BLE001
                        self._disk.broken(f"in the journal: {Failure().getTraceback()}")
                self._disk.note(f"the process ends {('before', 'within', 'behind')[how_far]} a job")
        self._tear(self._tail)
        for done in self._appended:
            done.addErrback(lambda _: None)  # whoever would have heard of it is gone
        self._tail.close()
        self._store.close()

    def _tear(self, tail: Tail) -> None:
        """Let a write be cut off in the middle."""
        under_way = tail._under_way
        if under_way is None:
            return
        for record in under_way.records:
            self._disk.writes[record.write].committed = True  # if it comes to light again
        path, offset = under_way.batch.path, under_way.batch.offset
        if path.is_file() and path.stat().st_size > offset and self._disk.rng.random() < 0.5:
            os.truncate(path, self._disk.rng.randrange(offset, path.stat().st_size))
        if under_way.told:  # it may be in the log although its client was told that it is not
            for record in under_way.records:
                self._disk.writes[record.write].unstruck = True
