"""Both journals do what every journal does."""

from __future__ import annotations

from typing import TypeVar

from twisted.internet.defer import Deferred

from influxrelay.core.write import Destination
from influxrelay.journal.interface import Journal
from influxrelay.journal.records import Record
from testing.journal_cases import PLACE, JournalCase, write
from testing.journal_contract import JournalContract
from testing.shared_journals import SharedCase

T = TypeVar("T")


class LocalJournalTests(JournalCase, JournalContract):
    """A journal on disk."""

    def open_journal(self) -> Journal:
        """Return the one of the case."""
        return self.journal

    def put(self, *bodies: bytes, where: Destination = PLACE) -> list[int]:
        """Append, and let it be written."""
        numbers = [self.journal.next_number() for _ in bodies]
        for number, body in zip(numbers, bodies, strict=True):
            self.result(self.journal.append(Record(number, 1.0, write(body, where))))
        return numbers

    def wait(self, deferred: Deferred[T]) -> T:
        """Everything happens at once."""
        return self.result(deferred)


class SharedJournalTests(SharedCase, JournalContract):
    """A journal that relays share."""

    def open_journal(self) -> Journal:
        """Start a relay that delivers."""
        self.only = self.relay("ra")
        self.until(lambda: len(self.only.held) == 2)
        return self.only.journal

    def put(self, *bodies: bytes, where: Destination = PLACE) -> list[int]:
        """Append, and let it be handed out."""
        numbers = self.append(self.only, *bodies, where=where)
        self.until(lambda: self.only.journal.last_number >= numbers[-1])
        return numbers

    def wait(self, deferred: Deferred[T]) -> T:
        """Let time pass."""
        return self.result(deferred)
