"""What is done with the files that an earlier process has left: the ledger learns what it missed, damage is counted."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import attrs

from influxrelay.core.write import Destination
from influxrelay.journal.frames import HEAD
from influxrelay.journal.ledger import Ledger, Loss
from influxrelay.journal.registry import Backend
from influxrelay.journal.segment import SUFFIX, Lost, Places, Segment, name_of, read_name

DAMAGED = "damaged"


@attrs.frozen
class Findings:
    """What was found in a journal's files.

    :ivar floors: by the backend's id: destinations without a cursor were passed up to here.
    :ivar cursors: by the backend's id.
    :ivar last_numbers: the number of the last write of each destination that the log has.
    :ivar last_number: the highest number that is known to have been given out.
    :ivar log_bytes: that the log takes.
    :ivar damage: what is wrong, for people.
    :ivar anew: whether the ledger was begun anew beside the log of another one.
    :ivar now: when the files were looked at, in seconds since the epoch.
    """

    backends: tuple[Backend, ...]
    floors: dict[int, int]
    cursors: dict[int, dict[Destination, int]]
    last_numbers: dict[Destination, int]
    losses: list[Loss]
    last_number: int
    log_bytes: int
    damage: tuple[str, ...]
    anew: bool
    now: float


def recover(
    directory: Path, ledger: Ledger, now: float, *, anew: bool = False, without: Collection[int] = ()
) -> Findings:
    """Let the ledger know each segment as it is.

    :param now: seconds since the epoch.
    :param anew: whether the ledger was begun anew beside the log of another one.
    :param without: the first numbers of segments that are left alone.
    """
    found = _Recovery(directory, ledger, now)
    found.look(without)
    backends = ledger.backends()
    floors = {each.id: floor for each, floor in backends}
    return Findings(
        backends=tuple(each for each, _ in backends),
        floors=floors,
        cursors={each.id: ledger.cursors(each.id) for each, _ in backends},
        last_numbers=ledger.last_numbers(),
        losses=ledger.losses(),
        last_number=max([found.last_number, *floors.values()]),
        log_bytes=sum(each.size for each in ledger.segments()),
        damage=tuple(found.damage),
        anew=anew,
        now=now,
    )


class _Recovery:
    def __init__(self, directory: Path, ledger: Ledger, now: float) -> None:
        self._directory = directory
        self._ledger = ledger
        self._now = now
        self._passed = {each.id: (floor, ledger.cursors(each.id)) for each, floor in ledger.backends() if each.active}
        self.last_number = 0
        self.damage: list[str] = []

    def look(self, without: Collection[int]) -> None:
        """Go through all segments but those with some first numbers."""
        for path in self._directory.glob("*.tmp"):
            path.unlink()
        self._look_at_end()
        known = {each.first: each for each in self._ledger.segments()}
        for first, paths in self._files().items():
            segment = known.pop(first, None)
            if first in without:
                continue
            path = next((each for each in paths if segment is not None and each.name == segment.file), paths[0])
            for each in paths:
                if each != path:  # it was written anew, or was to be
                    each.unlink()
            if segment is not None and (segment.file, segment.size) == (path.name, path.stat().st_size):
                self.last_number = max(self.last_number, segment.last)
            else:
                self._learn(path)
        with self._ledger.transaction():
            for first, segment in known.items():
                self.damage.append(f"{segment.file} is missing")
                self._forget(first)
            self._ledger.prune()

    def _files(self) -> dict[int, list[Path]]:
        """Return the files of the log by their first numbers, the newest generation first."""
        found: dict[int, list[tuple[int, Path]]] = {}
        for path in self._directory.glob(f"*{SUFFIX}"):
            try:
                first, generation = read_name(path.name)
            except ValueError as error:
                self._move_aside(path, error)
            else:
                found.setdefault(first, []).append((generation, path))
        return {first: [path for _, path in sorted(found[first], reverse=True)] for first in sorted(found)}

    def _look_at_end(self) -> None:
        """Count that the end of the log is missing, of which nobody knows what it was."""
        first, size = self._ledger.tail()
        path = self._directory / name_of(first)
        if size and (not path.exists() or path.stat().st_size < size):
            self.damage.append("the end of the log is missing")
            with self._ledger.transaction():
                self._ledger.set_tail(0, 0)
                self._count_unknown([backend for backend, (_, cursors) in self._passed.items() if cursors])

    def _learn(self, path: Path) -> None:
        """Read a segment that is not as the ledger knows it."""
        try:
            tail, committed = self._ledger.tail()
            segment, lost = Segment.load(path, committed if tail == read_name(path.name)[0] else 0)
        except ValueError as error:
            self._move_aside(path, error)
            return
        merged = segment.last <= self.last_number  # into the one before; or there is nothing in it
        for places in segment.places.values():
            places.remove(0, places.after(self.last_number))
        with self._ledger.transaction():
            self._forget(segment.first, {} if merged else segment.places)
            if not merged:
                self.last_number = segment.last
                self._ledger.add_segment(segment)
                self._count_lost(lost)
        self.damage += [f"{path.name} has {each.size} bytes that make no sense" for each in lost]
        if merged:
            path.unlink()

    def _count_lost(self, lost: Iterable[Lost]) -> None:
        last = max([0, *(floor for floor, _ in self._passed.values())])
        for each in lost:
            behind, when = (each.behind, each.time) if each.behind else (last + 1, self._now)
            writes = max(1, min(behind - each.before - 1, each.size // (HEAD + 1)))
            for backend, (floor, cursors) in self._passed.items():
                if min([floor, *cursors.values()]) < behind - 1:
                    self._count(backend, writes, each.size, when, when)

    def _forget(self, first: int, places: Mapping[Destination, Places] = MappingProxyType({})) -> None:
        """Count what the ledger knows of a segment, and the file does not have.

        :param places: what the file has.
        """
        for entry in self._ledger.entries(first):
            known = self._ledger.places(first, entry.destination)
            there = set(places[entry.destination].numbers) if entry.destination in places else set()
            for backend, (floor, cursors) in self._passed.items():
                passed = cursors.get(entry.destination, floor)
                gone = [at for at, number in enumerate(known.numbers) if number > passed and number not in there]
                if gone:
                    times = [known.times[at] for at in gone]
                    self._count(backend, len(gone), sum(known.sizes[at] for at in gone), min(times), max(times))
        self._ledger.remove_segment(first)

    def _move_aside(self, path: Path, error: Exception) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self._now))
        aside = path.rename(path.with_name(f"{path.name}.corrupt-{stamp}"))
        self.damage.append(f"{path.name} makes no sense ({error}): it is now {aside.name}")
        with self._ledger.transaction():
            first = next((each.first for each in self._ledger.segments() if each.file == path.name), 0)
            if self._ledger.entries(first):
                self._forget(first)
            else:
                self._count_unknown(self._passed)

    def _count_unknown(self, backends: Iterable[int]) -> None:
        """Count that something was lost."""
        for backend in backends:
            self._count(backend, 1, 0, self._now, self._now)

    def _count(self, backend: int, writes: int, size: int, first: float, last: float) -> None:
        self._ledger.add_losses([Loss(backend, DAMAGED, writes, size, first, last)])
