"""Where a backend is in the journal."""

from __future__ import annotations

from typing import Protocol

from influxrelay.delivery.destination_queue import DestinationQueue, Entry
from influxrelay.delivery.fate import Fate, State


class Owner(Protocol):
    """A backlog, as its cursors see it."""

    def release(self, entry: Entry) -> None:
        """Forget a client that need not be told."""

    def keep_beside(self, queue: DestinationQueue, entry: Entry) -> None:
        """Keep a write in memory that the journal could not take, or give it up."""


class Cursor:
    """Where a backend is in the journal, in one destination; it lives as long as the destination's queue.

    :ivar loaded: where the queue is behind: up to this number everything is in memory, or passed.
    :ivar noted: the last position that the journal was told.
    :ivar dropped: up to this number the journal has dropped what it had, and counted it.
    :ivar held: the numbers of writes that the backend has refused before it was decided whether that matters.
    :ivar undecided: what is not in memory for the backend, and not decided; by number.
    :ivar beside: what waits in memory behind a part of the journal that does not, because the journal could not take
        it; by number.
    :ivar struck: what was struck while a page is read, which may hold it still.
    :ivar is_reading: whether a page is being read.
    """

    __slots__ = (
        "_backlog",
        "_queue",
        "beside",
        "dropped",
        "held",
        "is_reading",
        "loaded",
        "noted",
        "struck",
        "undecided",
    )

    def __init__(self, backlog: Owner, queue: DestinationQueue) -> None:
        self._backlog = backlog
        self._queue = queue
        self.loaded = 0
        self.noted = 0
        self.dropped = 0
        self.held: set[int] = set()
        self.undecided: dict[int, Entry] = {}
        self.beside: dict[int, Entry] = {}
        self.struck: set[int] = set()
        self.is_reading = False

    def decided(self, fate: Fate) -> None:
        """Forget a write that is only in the journal, because nobody waits for it any more, or that nobody needs."""
        entry = self.undecided.pop(fate.number, None)
        if entry is not None:
            self._backlog.release(entry)
            if self.is_reading and fate.state is State.STRUCK:
                self.struck.add(fate.number)
        elif fate.state is State.STRUCK and fate.number in self.beside:
            for entry in self.take_beside(fate.number, fate.number - 1):
                self._backlog.release(entry)

    def not_journaled(self, fate: Fate) -> None:
        """Keep a write in memory that is not in the journal."""
        entry = self.undecided.pop(fate.number, None)
        if entry is not None:
            self._backlog.keep_beside(self._queue, entry)

    def add_beside(self, entry: Entry) -> None:
        """Keep a write until its turn has come."""
        self.beside[entry.fate.number] = entry
        self._queue.count_beside(entry.size)

    def with_beside(self, entries: list[Entry]) -> list[Entry]:
        """Return what was loaded, together with what was kept beside that, in order."""
        beside = self.take_beside(self.loaded) if self.beside else []
        return sorted([*entries, *beside], key=lambda entry: entry.fate.number) if beside else entries

    def take_beside(self, upto: float, after: int = 0) -> list[Entry]:
        """Remove and return, in order, what was kept between two numbers, the lower one not included."""
        taken = [self.beside.pop(number) for number in sorted(self.beside) if after < number <= upto]
        self._queue.count_beside(-sum(entry.size for entry in taken))
        return taken
