"""What operators and monitors ask of a shared journal, at whichever relay."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from influxrelay.core.write import CHANGES, Destination
from influxrelay.journal.records import Contents, Depth, Drop, lost_change
from influxrelay.journal.shared.counts import Counter
from influxrelay.journal.shared.frames import seq_of
from influxrelay.journal.shared.group import Group
from influxrelay.journal.shared.index import Index
from influxrelay.journal.shared.lane import Total
from influxrelay.journal.shared.letters import Letters
from influxrelay.journal.shared.reader import Reader
from influxrelay.journal.shared.state import BackendState, plus
from influxrelay.journal.shared.tail import Tail
from influxrelay.journal.shared_log import Elsewhere

AT_ONCE = 1024 * 1024  # bytes of changes that are read together


class Operator:
    """Answers for the whole group."""

    def __init__(
        self, group: Group, index: Index, *, letters: Letters, counter: Counter, reader: Reader, tail: Tail
    ) -> None:
        self._group = group
        self._index = index
        self._letters = letters
        self._counter = counter
        self._reader = reader
        self._tail = tail

    async def contents(self) -> Contents:
        """Return what there is."""
        await self._tail.catch_up()
        letters = await self._letters.count()
        depths: dict[str, Depth] = {}
        drops: list[Drop] = []
        for name, (state, _) in sorted(self._group.states.items()):
            total = Total() if state.removed else await self._counter.waiting(self._positions(state))
            depths[name] = _depth(state, total)
            drops += self.losses(name)
        return Contents(depths, tuple(drops), letters)

    def losses(self, name: str) -> list[Drop]:
        """Return what was lost for a backend, as far as is known here."""
        known = self._group.states.get(name)
        losses = dict(known[0].losses) if known is not None else {}
        backend = self._group.leased.get(name)
        for each in backend.losses if backend is not None else ():
            losses[each.reason] = plus(losses.get(each.reason), each)
        return [each for _, each in sorted(losses.items())]

    def _positions(self, state: BackendState) -> Mapping[Destination, int]:
        backend = self._group.leased.get(state.name)
        if backend is not None and backend.progress is not None:
            return dict(backend.progress.waiting)
        return self._index.waiting(state.cursor, state.ahead)

    async def discard(self, name: str) -> tuple[Depth | None, int]:
        """Give up what waits for a backend, and count it; or forget a backend that is no longer configured.

        A change becomes a dead letter, too: where it was a DELETE, the backend has what it has removed from the others.
        """
        await self._tail.catch_up()
        upto = self._index.head
        known = self._group.states.get(name)
        if known is None:
            return None, upto
        state = known[0]
        if name not in self._group.leased and (state.removed or not state.owner):
            await self._group.remove(name)
            return attrs.evolve(_depth(state, Total()), active=False), upto
        upto = await self._bury_changes(name, self._positions(state))
        state = self._group.states.get(name, known)[0]
        backend = self._group.leased.get(name)
        if backend is not None and backend.progress is not None:
            total = await self._counter.waiting(dict(backend.progress.waiting))
            if backend.progress is not None:
                _count(backend.count, name, total)
                backend.progress.advance_all(upto)
                await backend.save()
                return _depth(state, total), upto
        positions = self._positions(state)
        total = await self._counter.waiting(positions)

        def edit(state: BackendState) -> BackendState:
            ahead = {where: number for where, number in state.ahead.items() if number > upto}
            drops: list[Drop] = []
            _count(drops.append, name, total)
            return attrs.evolve(state, cursor=max(state.cursor, upto), ahead=ahead).with_losses(drops)

        await self._group.change(name, edit)
        return _depth(state, total), upto

    async def _bury_changes(self, name: str, positions: Mapping[Destination, int]) -> int:
        """Make dead letters of all changes behind these positions that the log has; return up to where that is."""
        passed = positions.get(CHANGES, self._index.head)
        while passed < self._index.head:  # there may be more by now
            records, passed = await self._reader.read(CHANGES, passed, AT_ONCE)
            for each in records:
                await self._letters.bury(name, each.time, each.write, 0, lost_change("operator"))
        return self._index.head

    async def forget_losses(self, name: str) -> list[Drop]:
        """Count a backend's losses from zero, and return what was counted."""
        backend = self._group.leased.get(name)
        if backend is not None and backend.progress is not None and backend.losses:
            await backend.save()
        state = await self._group.change(name, lambda state: attrs.evolve(state, losses={}))
        return [] if state is None else [each for _, each in sorted(state.losses.items())]

    def elsewhere(self, name: str, now: float) -> Elsewhere:
        """Return what is known of a backend to which another relay delivers.

        :param now: seconds since the epoch.
        """
        known = self._group.states.get(name)
        if known is None:
            return Elsewhere()
        state = known[0]
        waiting = self._index.waiting(state.cursor, state.ahead)
        total = self._counter.known(waiting, seq_of(self._index.head)) if waiting else Total()
        age = max(0.0, now - total.first) if total.writes else None
        return Elsewhere(state.owner, state.paused, age, CHANGES in waiting)

    async def pause(self, name: str, *, paused: bool) -> bool:
        """Pause a backend, or let it go on; return whether there is such a backend."""
        return await self._group.change(name, lambda state: attrs.evolve(state, paused=paused)) is not None


def _count(count: Callable[[Drop], object], backend: str, total: Total) -> None:
    if total.writes:
        count(Drop(backend, "operator", total.writes, total.bytes, total.first, total.last))


def _depth(state: BackendState, total: Total) -> Depth:
    oldest = total.first if total.writes else None
    return Depth(state.name, state.location, not state.removed, total.writes, total.bytes, oldest)
