"""What operators, monitors and reloads ask of a journal on disk."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, succeed

from influxrelay.journal import cleaning
from influxrelay.journal.housekeeping import Housekeeper
from influxrelay.journal.interface import Key, Positions
from influxrelay.journal.jobs import Jobs
from influxrelay.journal.records import Contents, DeadLetter, Depth, Drop
from influxrelay.journal.registry import Backend
from influxrelay.journal.store import Store, Waiting
from influxrelay.journal.tail import Tail

T = TypeVar("T")


class Operator:
    """Answers; each Deferred fails with a :class:`influxrelay.core.errors.JournalError` if the disk does not answer."""

    def __init__(self, house: Housekeeper, tail: Tail, jobs: Jobs, store: Store) -> None:
        self._house = house
        self._tail = tail
        self._jobs = jobs
        self._store = store

    def _start(self, work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        return self._jobs.promise(Deferred.fromCoroutine(work))

    def discard(self, name: str) -> Deferred[tuple[Depth | None, int]]:
        """Give up what waits for a backend, and count it; or forget a backend that is no longer configured."""
        return self._start(self._discard(name))

    def forget_losses(self, name: str) -> Deferred[list[Drop]]:
        """Count a backend's losses from zero, and return what was counted."""
        return self._start(self._forget_losses(name))

    def dead_letters(self, after: int, limit: int) -> Deferred[list[DeadLetter]]:
        """Return the dead letters with a higher id, the oldest first."""
        return self._start(self._letters(after, limit))

    def probe(self) -> Deferred[None]:
        """Find out whether the disk works."""
        return self._start(self._probe())

    def contents(self) -> Deferred[Contents]:
        """Return what is in the journal."""
        store, house = self._store, self._house
        positions = {each.id: house.cursors.waiting(each.id) for each in house.registry.backends}

        def count() -> tuple[dict[int, Waiting], dict[str, int]]:
            waiting = {backend: store.waiting(where) for backend, where in positions.items() if where}
            return waiting, store.count_letters()

        def show(found: tuple[dict[int, Waiting], dict[str, int]]) -> Contents:
            waiting, letters = found
            for letter in house.accounts.letters:
                name = house.registry.name_of(letter.backend)
                letters[name] = letters.get(name, 0) + 1
            depths, drops = {}, []
            for each in sorted(house.registry.backends, key=lambda each: each.name):
                sealed = waiting.get(each.id, Waiting())
                depths[each.name] = _depth(each, self._tail.waiting(positions.get(each.id, {}), sealed))
                drops += house.accounts.losses(each.id, each.name)
            return Contents(depths, tuple(drops), letters)

        return self._jobs.ask(count).addCallback(show)

    async def _discard(self, name: str) -> tuple[Depth | None, int]:
        house, store = self._house, self._store
        backend = house.registry.find(name)
        upto = await house.seal_all()
        if backend is None:
            return None, upto
        where = house.cursors.waiting(backend.id)
        waiting = await self._jobs.ask(partial(store.waiting, where))
        if backend.active:
            positions = {place: {backend.id: passed} for place, passed in where.items()}
            house.accounts.note(await house.books.save_and(partial(cleaning.discard, store, positions, upto)))
            house.cursors.note_written(backend.id, where)
            for place in where:
                house.cursors.advance(backend.id, place, upto)
        else:
            await self._jobs.ask(partial(store.forget, backend.id))
            house.registry.forget(name)
            house.accounts.forget(backend.id)
        house.soon()
        return _depth(backend, waiting), upto

    async def _forget_losses(self, name: str) -> list[Drop]:
        house = self._house
        backend = house.registry.find(name)
        if backend is None:
            return []
        await house.books.save()
        counted = house.accounts.losses(backend.id, name)
        await self._jobs.ask(partial(self._store.forget_losses, backend.id))
        house.accounts.forget(backend.id)
        return counted

    def returning(self, backends: Mapping[str, str], known: Mapping[str, Key]) -> Deferred[dict[str, Positions]]:
        """Return where the backends stand that were removed at an earlier time, and would return."""
        house, store = self._house, self._store
        ids = house.registry.returning(backends, known)

        async def ask() -> dict[str, Positions]:
            await house.books.save()
            await house.seal_all()
            positions = await self._jobs.ask(partial(store.stopped_at, list(ids.values())))
            house.returning = positions
            return {
                name: [(where, passed) for where, (passed, _) in positions[backend].items()]
                for name, backend in ids.items()
            }

        return self._start(ask()) if ids else succeed({})

    async def _letters(self, after: int, limit: int) -> list[DeadLetter]:
        await self._house.books.save()
        return await self._jobs.ask(partial(self._store.letters, after, limit))

    def drop_dead_letters(self, ids: Iterable[int]) -> Deferred[int]:
        """Remove dead letters, and return how many there were."""
        return self._jobs.ask(partial(self._store.remove_letters, list(ids))).addCallback(self._removed)

    def _removed(self, removed: tuple[int, int]) -> int:
        count, size = removed
        self._house.books.count_letters(size)
        return count

    async def _probe(self) -> None:
        await self._tail.probe()
        await self._jobs.ask(self._store.touch)


def _depth(backend: Backend, waiting: Waiting) -> Depth:
    return Depth(backend.name, backend.location, backend.active, waiting.writes, waiting.bytes, waiting.oldest)
