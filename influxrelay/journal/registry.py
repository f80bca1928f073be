"""The backends that a journal knows: those of today, and those that were removed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from influxrelay.core.matching import find_again
from influxrelay.journal.interface import Key


@attrs.frozen
class Backend:
    """A backend as the ledger has it.

    :ivar id: never changes, whatever the backend's name is.
    :ivar active: whether it is configured.
    """

    id: int
    name: str
    location: str
    active: bool


class Registry:
    """Says which backend of today is which of yesterday's, and which of the ledger's an object stands for.

    A backend is known again by its location, whatever its name is now, else by its name, if its server has moved.
    """

    def __init__(self, known: Iterable[Backend] = ()) -> None:
        self._backends = {each.name: each for each in known}
        self._ids: dict[Key, int] = {}

    @property
    def backends(self) -> tuple[Backend, ...]:
        """All that are known."""
        return tuple(self._backends.values())

    def active(self) -> tuple[int, ...]:
        """Return the ids of those that are configured."""
        return tuple(each.id for each in self._backends.values() if each.active)

    def id_of(self, key: Key) -> int | None:
        """Return which backend an object stands for; None if it stands for none any more."""
        return self._ids.get(key)

    def find(self, name: str) -> Backend | None:
        """Return a backend by its name."""
        return self._backends.get(name)

    def name_of(self, backend: int) -> str:
        """Return a backend's name; empty if there is none of this id."""
        return next((each.name for each in self._backends.values() if each.id == backend), "")

    def _find_again(self, backends: Mapping[str, str], live: Mapping[str, Key]) -> dict[str, Backend]:
        names = {each.id: each.name for each in self._backends.values()}
        known = {name: names[self._ids[key]] for name, key in live.items() if key in self._ids}
        locations = {each.name: each.location for each in self._backends.values()}
        return {new: self._backends[old] for new, old in find_again(locations, backends, known).items()}

    def returning(self, backends: Mapping[str, str], live: Mapping[str, Key]) -> dict[str, int]:
        """Return those that are not configured, and would be, by the name that they would have.

        :param backends: all that there would be, as name to location.
        :param live: what stands for those of them that are configured.
        """
        again = self._find_again(backends, live)
        return {name: each.id for name, each in again.items() if not each.active}

    def register(self, backends: Mapping[Key, tuple[str, str]]) -> None:
        """Say which backends are configured, each with its name and its location."""
        locations = dict(backends.values())
        live = {name: key for key, (name, _) in backends.items() if key in self._ids}
        again = self._find_again(locations, live)
        next_id = max((each.id for each in self._backends.values()), default=0) + 1
        found: dict[str, Backend] = {}
        self._ids = {}
        for key, (name, location) in backends.items():
            if name in again:
                number = again[name].id
            else:
                number, next_id = next_id, next_id + 1
            found[name] = Backend(number, name, location, active=True)
            self._ids[key] = number
        kept = {each.id for each in found.values()}
        for each in self._backends.values():
            if each.id not in kept:
                name = each.name
                while name in found:
                    name = f"{name} ({each.location})"
                found[name] = attrs.evolve(each, name=name, active=False)
        self._backends = found

    def forget(self, name: str) -> None:
        """Know no more of a backend."""
        del self._backends[name]
