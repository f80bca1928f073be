"""A journal in memory, as delivery sees one: everything happens at once, or when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from influxrelay.core.write import Destination, Write
from influxrelay.journal.interface import Key, Positions, Receipt
from influxrelay.journal.records import DeadLetter, Drop, Record, count_drop

BACKEND = "fake"
T = TypeVar("T")


class MemoryJournal:
    """A journal for one backend, whichever object stands for it.

    :param last_number: the last that was given out.
    :param commits_at_once: whether appends and strikes are done at once; else :meth:`commit` says when.
    :ivar records: what is in the log, by number; what was struck is not.
    :ivar appended: everything that was given to :meth:`append`.
    :ivar struck: the numbers that were given to :meth:`strike`.
    :ivar cursors: every position that the backend has had.
    :ivar problems: what the next reads fail with.
    :ivar held: the reads that wait, if there is a list.
    """

    trouble = risk = ""
    why_unavailable = ""
    used = 0
    max_bytes = 0

    def __init__(self, last_number: int = 0, *, commits_at_once: bool = True) -> None:
        self.last_number = last_number
        self.records: dict[int, Record] = {}
        self.appended: list[Record] = []
        self.struck: list[int] = []
        self.cursors: list[tuple[Destination, int]] = []
        self.letters: list[DeadLetter] = []
        self.damaged: set[int] = set()
        self.problems: list[Exception] = []
        self.held: list[tuple[Callable[[], Any], Deferred[Any]]] | None = None
        self._commits_at_once = commits_at_once
        self._commits: list[tuple[Callable[[], Any], Deferred[None]]] = []
        self._drops: dict[str, Drop] = {}

    # -- for the test

    def commit(self, problem: Exception | None = None, *, last: bool = False) -> None:
        """Do what was appended or struck first, or last, or fail it."""
        action, done = self._commits.pop(-1 if last else 0)
        if problem is None:
            action()
            done.callback(None)
        else:
            done.errback(Failure(problem))

    def release(self) -> None:
        """Do what was held."""
        held, self.held = self.held or [], None
        for read, result in held:
            result.callback(read())

    def position(self, destination: Destination) -> int:
        """Return up to which number the backend has passed a destination."""
        return next((number for where, number in reversed(self.cursors) if where == destination), 0)

    def _undelivered(self) -> list[Record]:
        passed = dict(self.cursors)  # the last one of each destination
        records = sorted(self.records.values(), key=lambda each: each.seq)
        return [each for each in records if each.seq > passed.get(each.write.destination, 0)]

    def left(self) -> list[bytes]:
        """Return the bodies that another process would deliver."""
        return [each.write.body for each in self._undelivered()]

    def positions(self) -> Positions:
        """Return where another process would go on."""
        places = {each.write.destination for each in self._undelivered()}
        return [(place, self.position(place)) for place in places]

    def drops(self) -> list[Drop]:
        """Return what was counted as lost."""
        return list(self._drops.values())

    # -- writes

    def next_number(self) -> int:
        """Return the number for the next write."""
        self.last_number += 1
        return self.last_number

    def append(self, record: Record) -> Deferred[None]:
        """Add a write."""
        self.appended.append(record)
        self.last_number = max(self.last_number, record.seq)
        return self._do(lambda: self.records.update({record.seq: record}))

    def append_for(self, record: Record, receipt: Receipt) -> None:
        """Add a write."""
        self.append(record).addCallbacks(receipt.callback, receipt.errback)

    def strike(self, number: int) -> Deferred[None]:
        """Take a write back."""
        self.struck.append(number)
        return self._do(lambda: self.records.pop(number, None))

    def _do(self, action: Callable[[], Any]) -> Deferred[None]:
        self._commits.append((action, Deferred()))
        done = self._commits[-1][1]
        if self._commits_at_once:
            self.commit()
        return done

    def advance(self, key: Key, destination: Destination, number: int) -> None:
        """Move a cursor, and check that it never moves back."""
        assert number >= self.position(destination)
        self.cursors.append((destination, number))

    def keep_positions(self) -> Deferred[None]:
        """Keep them now or later."""
        return self._do(lambda: None)

    def bury(self, key: Key, when: float, write: Write, status: int, message: str) -> None:
        """Keep a refused write."""
        self.letters.append(DeadLetter(len(self.letters) + 1, when, BACKEND, status, message, write))

    def count_loss(self, key: Key, reason: str, when: float, size: int) -> None:
        """Count a loss."""
        count_drop(self._drops, BACKEND, reason, when, size)

    def read(self, destination: Destination, after: int, max_bytes: int) -> Deferred[tuple[list[Record], int]]:
        """Read now or later, or fail."""
        last_number = self.last_number

        def read() -> tuple[list[Record], int]:
            found: list[Record] = []
            for number in sorted(self.records):
                record = self.records[number]
                if record.write.destination != destination or number <= after:
                    continue
                if number in self.damaged:
                    self.count_loss(None, "damaged", record.time, len(record.write.body))
                    del self.records[number]
                    continue
                found.append(record)
                if sum(len(each.write.body) for each in found) >= max_bytes:
                    return found, number
            return found, max(last_number, found[-1].seq if found else 0)

        return self._ask(read)

    def _ask(self, answer: Callable[[], T]) -> Deferred[T]:
        if self.problems:
            return fail(self.problems.pop(0))
        if self.held is not None:
            self.held.append((answer, Deferred()))
            return self.held[-1][1]
        return succeed(answer())

    def losses(self, key: Key) -> list[Drop]:
        """Return what was lost."""
        return self.drops()
