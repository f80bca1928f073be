"""Up to where one backend has the log, as its deliverer knows it from moment to moment."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from influxrelay.core.write import Destination
from influxrelay.journal.shared.frames import Part, number_of
from influxrelay.journal.shared.index import Index
from influxrelay.journal.shared.state import BackendState, bounded


class Progress:
    """The destinations in which something waits for a backend, and up to where each was passed.

    :ivar waiting: the destinations.
    """

    def __init__(self, index: Index, state: BackendState) -> None:
        self.waiting = index.waiting(state.cursor, state.ahead)
        self._index = index

    def appended(self, seq: int, parts: Iterable[Part]) -> None:
        """Note what has come to the log."""
        for part in parts:
            self.waiting.setdefault(part.destination, number_of(seq, part.first) - 1)

    def advance(self, destination: Destination, number: int) -> bool:
        """Note that a destination is passed up to a number; tell whether that is news."""
        if number <= self.waiting.get(destination, number):
            return False
        if number >= self._index.last_number(destination):
            del self.waiting[destination]
        else:
            self.waiting[destination] = number
        return True

    def advance_all(self, number: int) -> None:
        """Note that all destinations are passed up to a number."""
        for destination in list(self.waiting):
            self.advance(destination, number)

    def written(self, state: BackendState) -> BackendState:
        """Return a state with these positions, which never move back."""
        cursor = max(state.cursor, min(map(self._upto, self.waiting), default=self._index.head))
        ahead: dict[Destination, int] = {}
        for where, lane in self._index.lanes.items() if self.waiting else ():
            passed = self.waiting.get(where, lane.last_number)
            if passed > cursor and lane.first_after(cursor) <= passed:
                ahead[where] = max(passed, state.ahead.get(where, 0))
        return attrs.evolve(state, cursor=cursor, ahead=bounded(ahead))

    def _upto(self, destination: Destination) -> int:
        """Return the number directly before what waits first in a destination."""
        passed, lane = self.waiting[destination], self._index.lanes.get(destination)
        return passed if lane is None else max(passed, lane.first_after(passed) - 1)
