"""Up to where each backend has each destination of the log.

Of a backend that has everything of a destination nothing is remembered. What is remembered is bounded by what is in the
log: for each destination in which something waits, who waits for it, and from where on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from influxrelay.core.write import Destination


class Standing:
    """One destination in which something waits.

    :ivar last: the number of its last write.
    :ivar passed: up to which number it was passed by each backend that has not passed all of it.
    """

    __slots__ = ("last", "passed")

    def __init__(self, last: int, passed: dict[int, int]) -> None:
        self.last = last
        self.passed = passed


@attrs.frozen
class Moves:
    """What has changed since the cursors were last written down.

    :ivar floor: of all active backends: destinations without a cursor were passed up to here.
    :ivar moved: backend, destination and number of cursors that have moved.
    :ivar gone: backend and destination of cursors that are no longer needed.
    """

    floor: int
    active: tuple[int, ...]
    moved: tuple[tuple[int, Destination, int], ...]
    gone: tuple[tuple[int, Destination], ...]


class Cursors:
    """The cursors of all active backends, which go by their numbers in the ledger.

    :ivar active: the backends.
    :ivar behind: the destinations in which something waits.
    """

    def __init__(self) -> None:
        self.active: tuple[int, ...] = ()
        self.behind: dict[Destination, Standing] = {}
        self._changed: set[Destination] = set()
        self._written: set[tuple[int, Destination]] = set()  # of which the ledger has a cursor

    def appended(self, destination: Destination, number: int) -> None:
        """Note that every active backend has to get a write."""
        standing = self.behind.get(destination)
        if standing is None:
            self.behind[destination] = Standing(number, dict.fromkeys(self.active, number - 1))
            self._changed.add(destination)
            return
        standing.last = number
        if len(standing.passed) < len(self.active):
            for backend in self.active:
                standing.passed.setdefault(backend, number - 1)
            self._changed.add(destination)

    def advance(self, backend: int, destination: Destination, number: int) -> None:
        """Note that a backend has passed a destination up to a number; never moves back."""
        standing = self.behind.get(destination)
        if standing is None or number <= standing.passed.get(backend, number):
            return
        if number < standing.last:
            standing.passed[backend] = number
        else:
            del standing.passed[backend]
            if not standing.passed:
                del self.behind[destination]
        self._changed.add(destination)

    def restore(self, backend: int, destination: Destination, passed: int, last: int) -> None:
        """Note where a backend stopped in a destination whose last write has this number."""
        standing = self.behind.setdefault(destination, Standing(last, {}))
        standing.last = max(standing.last, last)
        standing.passed[backend] = passed
        self._changed.add(destination)

    def prune(self, last: Mapping[Destination, int], upto: int) -> None:
        """Forget what is waited for in vain: writes up to a number that are not in the log.

        :param last: the number of the last write of each destination that is.
        """
        for where, standing in list(self.behind.items()):
            number = last.get(where, 0)
            if number < standing.last <= upto:
                standing.last = number
                standing.passed = {each: passed for each, passed in standing.passed.items() if passed < number}
                self._changed.add(where)
                if not standing.passed:
                    del self.behind[where]

    def waiting(self, backend: int) -> dict[Destination, int]:
        """Return the destinations in which something waits for a backend, and up to where each was passed."""
        return {
            where: standing.passed[backend] for where, standing in self.behind.items() if backend in standing.passed
        }

    def lowest(self) -> dict[Destination, int]:
        """Return up to where every backend has passed each destination in which something waits."""
        return {where: min(standing.passed.values()) for where, standing in self.behind.items()}

    def snapshot(self) -> dict[Destination, dict[int, int]]:
        """Return who waits, and from where on, by destination."""
        return {where: dict(standing.passed) for where, standing in self.behind.items()}

    def has_passed(self, numbers: Iterable[tuple[Destination, int]]) -> bool:
        """Tell whether every backend has passed these destinations up to these numbers."""
        if not self.behind:
            return True
        for where, number in numbers:
            standing = self.behind.get(where)
            if standing is not None and min(standing.passed.values()) < number:
                return False
        return True

    # -- which backends there are

    def activate(self, backends: Iterable[int]) -> None:
        """Let only these backends be active; one that was not before has passed everything."""
        self.active = tuple(backends)
        self._written = {each for each in self._written if each[0] in self.active}
        for where in list(self.behind):
            standing = self.behind[where]
            for backend in standing.passed.keys() - set(self.active):
                del standing.passed[backend]
            if not standing.passed:
                del self.behind[where]

    # -- what is written down

    def note_written(self, backend: int, destinations: Iterable[Destination]) -> None:
        """Note that the ledger has cursors of a backend."""
        for where in destinations:
            self._written.add((backend, where))
            self._changed.add(where)

    @property
    def have_moved(self) -> bool:
        """Whether the ledger is behind."""
        return bool(self._changed)

    def take_moves(self, floor: int) -> Moves:
        """Return what is to be written down.

        :param floor: the last number that was given out.
        """
        moved: list[tuple[int, Destination, int]] = []
        gone: list[tuple[int, Destination]] = []
        for where in self._changed:
            standing = self.behind.get(where)
            for backend in self.active:
                if standing is not None and backend in standing.passed:
                    moved.append((backend, where, standing.passed[backend]))
                    self._written.add((backend, where))
                elif (backend, where) in self._written:
                    gone.append((backend, where))
                    self._written.discard((backend, where))
        self._changed = set()
        return Moves(floor, self.active, tuple(moved), tuple(gone))

    def put_back(self, moves: Moves) -> None:
        """Note that these could not be written down."""
        self._written.update(moves.gone)
        self._changed.update(where for _, where, _ in moves.moved)
        self._changed.update(where for _, where in moves.gone)

    def all_again(self) -> None:
        """Have everything written down, in a new ledger."""
        self._written.clear()
        self._changed = set(self.behind)
