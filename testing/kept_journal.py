"""A journal that no relay has open, for tests to look into."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from influxrelay.core.write import Destination
from influxrelay.journal.records import Contents, DeadLetter, Depth, Drop, JournalLimits, Record
from influxrelay.journal.worker import InlineWorker
from influxrelay.journal.writer import JournalWriter

T = TypeVar("T")


class KeptJournal:
    """A journal whose jobs are done when they are given.

    :param backends: to be registered, as name to location; None leaves everything as it is.
    """

    def __init__(self, directory: Path, backends: dict[str, str] | None = None) -> None:
        self._writer = JournalWriter(Clock(), directory, JournalLimits(), make_worker=InlineWorker)
        self._writer.open({name: (name, url) for name, url in backends.items()} if backends is not None else None)

    def close(self) -> None:
        """Close it."""
        _result(self._writer.stop())

    def append(self, record: Record) -> None:
        """Append a write, whose number is the next one."""
        if self._writer.next_number() != record.seq:
            raise ValueError(f"{record.seq} is not the next number")
        _result(self._writer.append(record))

    def numbers(self, destination: Destination) -> list[int]:
        """Return the numbers of the writes of a destination."""
        return [each.seq for each in _result(self._writer.read(destination, 0, 1 << 30))[0]]

    def contents(self) -> Contents:
        """Return what is in it."""
        return _result(self._writer.contents())

    def depths(self) -> list[Depth]:
        """Return what waits for each backend."""
        return list(self.contents().depths.values())

    def drops(self) -> list[Drop]:
        """Return what was lost."""
        return list(self.contents().drops)

    def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters, the oldest first."""
        return _result(self._writer.dead_letters(0, 1 << 30))


def _result(deferred: Deferred[T]) -> T:
    results: list[T | Failure] = []
    deferred.addBoth(results.append)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result
