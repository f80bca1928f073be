"""Tests of a journal: the case that opens one, in which everything happens at once, and writes to put into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import JournalError
from influxrelay.core.write import Destination, Write
from influxrelay.journal.housekeeping import CHECK_AGE, LAZY
from influxrelay.journal.records import Contents, JournalLimits, Record
from influxrelay.journal.worker import InlineWorker
from influxrelay.journal.writer import JournalWriter
from testing.logs import observe_log

T = TypeVar("T")

PLACE = Destination(b"db", b"rp", b"ns", (b"Token t", b"user", b"secret"))
OTHER = Destination(b"\xff\x00", b"", b"s", (b"", b"", b""))
BACKENDS: dict[object, tuple[str, str]] = {"a": ("a", "http://a"), "b": ("b", "http://b")}


def place(number: int) -> Destination:
    """Return one of many destinations."""
    return Destination(b"db%d" % number, b"", b"ns", (b"", b"", b""))


def write(body: bytes = b"m f=1 1\n", where: Destination = PLACE, *, mergeable: bool = True) -> Write:
    """Return a write."""
    return Write(where, b"db=db", where.credentials[0], body, mergeable)


def record(seq: int, where: Destination = PLACE, body: bytes = b"") -> Record:
    """Return a record that was accepted at ten times its number."""
    return Record(seq, seq * 10.0, write(body or b"%d\n" % seq, where))


class JournalCase(SynchronousTestCase):
    """A journal in a new directory, with two backends, whose threads are done with each job at once.

    :ivar now: seconds since the epoch when the clock began.
    """

    def setUp(self) -> None:
        """Open it."""
        self.directory = Path(self.mktemp())
        self.now = 1000.0
        self.dropped: list[tuple[Destination, int]] = []
        self.is_open = False
        self.addCleanup(self.close)
        self.open()

    def open(self, backends: Any = BACKENDS, *, full_sync: bool = False, **limits: Any) -> dict[Any, Any]:
        """Open it, in place of the one before, and return what waits for each backend."""
        self.close()
        self.clock = Clock()
        self.journal = JournalWriter(
            self.clock,
            self.directory,
            JournalLimits(**limits),
            full_sync=full_sync,
            on_drop=lambda where, upto: self.dropped.append((where, upto)),
            clock=lambda: self.now + self.clock.seconds(),
            make_worker=InlineWorker,
        )
        positions = self.journal.open(backends)
        self.is_open = True
        if backends is not None:
            self.journal.start()
        return {key: dict(waiting) for key, waiting in positions.items()}

    def close(self) -> None:
        """Stop it in order."""
        if self.is_open:
            self.is_open = False
            self.successResultOf(self.journal.stop())

    def kill(self) -> None:
        """End it as a process does that is killed."""
        if self.is_open:
            self.is_open = False
            self.journal._tail.close()
            self.journal._store.close()

    def result(self, deferred: Deferred[T]) -> T:
        """Return what a Deferred has fired with, or raise what it has failed with."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        self.assertEqual(len(results), 1, "it has not fired")
        if isinstance(results[0], Failure):
            results[0].raiseException()
        found: T = results[0]
        return found

    def append(self, *records: Record) -> None:
        """Append."""
        for each in records:
            while self.journal.last_number < each.seq:
                self.journal.next_number()
            self.result(self.journal.append(each))

    def advance(self, number: int, where: Destination = PLACE, *, keys: str = "ab") -> None:
        """Let backends pass a destination."""
        for key in keys:
            self.journal.advance(key, where, number)

    def strike(self, number: int) -> None:
        """Strike a write."""
        self.result(self.journal.strike(number))

    def numbers(self, where: Destination = PLACE, after: int = 0, max_bytes: int = 1 << 30) -> list[int]:
        """Return the numbers that are in the log."""
        records, _ = self.result(self.journal.read(where, after, max_bytes))
        return [each.seq for each in records]

    def contents(self) -> Contents:
        """Return what is in it."""
        return self.result(self.journal.contents())

    def depths(self) -> dict[str, tuple[int, int]]:
        """Return how many writes and bytes wait for each backend."""
        return {name: (each.writes, each.bytes) for name, each in self.contents().depths.items()}

    def drops(self) -> list[tuple[str, str, int, int]]:
        """Return what was lost: backend, reason, writes and bytes."""
        return [(each.backend, each.reason, each.writes, each.bytes) for each in self.contents().drops]

    def lazily(self) -> None:
        """Let what can wait a moment be done."""
        self.clock.advance(LAZY)

    def later(self) -> None:
        """Let what can wait long be done."""
        for _ in range(4):
            self.clock.advance(CHECK_AGE)

    def seal(self) -> None:
        """Let the ledger know of all that is in the log."""
        self.result(Deferred.fromCoroutine(self.journal._house.seal_all()))

    def files(self) -> list[Path]:
        """Return the segments."""
        return sorted(self.directory.glob("*.log"))

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        """Return a table of the ledger."""
        return self.journal._store.ledger._db.execute(f"SELECT * FROM {table}").fetchall()


class TroubleCase(JournalCase):
    """A journal that tells of its trouble in the log."""

    def setUp(self) -> None:
        """Hear what is logged."""
        self.logged: list[tuple[LogLevel, str]] = []

        def observe(event: Any) -> None:
            if event.get("log_namespace") == "influxrelay.journal.writer.JournalWriter":
                self.logged.append((event["log_level"], formatEvent(event)))

        observe_log(self, observe)
        super().setUp()

    def lines(self, level: LogLevel) -> list[str]:
        """Return what was logged with a level."""
        return [text for each, text in self.logged if each is level]

    def refused(self, deferred: Deferred[Any]) -> str:
        """Return why something has failed."""
        return str(self.failureResultOf(deferred, JournalError).value)
