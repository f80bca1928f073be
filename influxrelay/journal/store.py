"""A journal's files: the segments of its log, and the ledger beside them.

What is here belongs to one thread, and may wait for the disk. Another thread appends to the newest segment
(:mod:`influxrelay.journal.appender`), of which this one knows nothing until it is :meth:`sealed <Store.seal>`.
"""

from __future__ import annotations

import fcntl
import heapq
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from influxrelay.core.errors import JournalError
from influxrelay.core.write import Destination
from influxrelay.journal import upgrade
from influxrelay.journal.corruption import files_of, move_aside
from influxrelay.journal.cursors import Moves
from influxrelay.journal.ledger import FILE, Ledger, Letter, Loss, open_database
from influxrelay.journal.reading import Damaged, read_records, strike
from influxrelay.journal.records import DeadLetter, Record
from influxrelay.journal.recovery import Findings, recover
from influxrelay.journal.registry import Backend
from influxrelay.journal.segment import Places, Segment, name_of


@attrs.frozen
class Part:
    """Some writes of one destination in a segment.

    :ivar first: the segment's first number.
    :ivar more: whether there may be more of them behind these.
    """

    path: Path
    first: int
    places: Places
    more: bool


@attrs.frozen
class Page:
    """Some writes of one destination.

    :ivar upto: the number up to which they are all; None if there are no more.
    :ivar damaged: numbers of those that are left out.
    """

    records: list[Record]
    upto: int | None
    damaged: list[int]
    losses: tuple[Loss, ...]


@attrs.frozen
class Waiting:
    """What waits for one backend.

    :ivar oldest: when the oldest of it was accepted, in seconds since the epoch; None if nothing waits.
    """

    writes: int = 0
    bytes: int = 0
    oldest: float | None = None

    def plus(self, writes: int, size: int, oldest: float) -> Waiting:
        """Return a sum."""
        oldest = oldest if self.oldest is None else min(self.oldest, oldest)
        return Waiting(self.writes + writes, self.bytes + size, oldest)

    def plus_places(self, places: Places, passed: int) -> Waiting:
        """Return the sum with what is behind a number."""
        begin = places.after(passed)
        if begin == len(places):
            return self
        return self.plus(len(places) - begin, sum(places.sizes[begin:]), places.times[begin])


@attrs.frozen
class Changes:
    """What is to be written down in one transaction.

    :ivar tail: the first number of the last segment, and its bytes.
    :ivar backends: all of them, if any has changed.
    """

    moves: Moves
    tail: tuple[int, int] = (0, 0)
    backends: tuple[Backend, ...] = ()
    letters: tuple[Letter, ...] = ()
    losses: tuple[Loss, ...] = ()


class Store:
    """The files in a journal's directory.

    :param directory: made with mode 0700 if it is missing; the files in it are 0600, for credentials are in them.
    :param full_sync: every commit survives power loss, not only the end of the process.
    :param now: seconds since the epoch.
    :param anew: whether the ledger of this log was moved aside.
    :param may_upgrade: whether a journal of version 0.1 is upgraded; else it is refused.
    :ivar findings: what was found when it was opened.
    :ivar letter_bytes: that the dead letters have.
    :raises JournalError: another relay has it open; it is of a later version; it cannot be opened at all.
    :raises sqlite3.DatabaseError: the ledger is corrupt; so do ValueErrors.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        full_sync: bool = False,
        now: float = 0.0,
        anew: bool = False,
        may_upgrade: bool = True,
    ) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock: int | None = self._take_lock()
        self._aside: Path | None = None  # where the ledger is now that makes no sense, as long as there is no new one
        try:
            self.ledger = self._open_ledger(full_sync=full_sync, may_upgrade=may_upgrade)
            try:
                self.ledger.set_sync(full=full_sync)
                self.findings: Findings = recover(self.directory, self.ledger, now, anew=anew)
                self.letter_bytes = self.ledger.letter_bytes()
            except BaseException:
                self.ledger.close()
                raise
        except BaseException:
            self._release_lock()
            raise

    def _open_ledger(self, *, full_sync: bool = False, may_upgrade: bool = False) -> Ledger:
        database = open_database(self.directory / FILE)
        try:
            if may_upgrade:
                upgrade.upgrade(database, self.directory, full_sync=full_sync)
            return Ledger(database, self.directory)
        except BaseException:
            database.close()
            raise

    def _take_lock(self) -> int:
        lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise JournalError(f"{self.directory}: another relay is using this journal") from None
        return lock

    def close(self) -> None:
        """Close the files."""
        self.ledger.close()
        self._release_lock()

    def begin_anew(self, unsealed: Collection[int], now: float) -> Path:
        """Move the ledger aside, and begin a new one, that knows of the segments that are sealed.

        Where the disk does not let that be done it can be tried again.

        :param unsealed: the first numbers of the segments that are not.
        :param now: seconds since the epoch.
        :return: where the old one is.
        """
        self.ledger.close()
        if self._aside is None:
            self._aside = move_aside(self.directory, now)
        else:
            for path in files_of(self.directory).values():
                path.unlink(missing_ok=True)
        self.ledger = self._open_ledger()
        recover(self.directory, self.ledger, now, without=unsealed)
        self.letter_bytes = 0
        aside, self._aside = self._aside, None
        return aside

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def path_of(self, segment: int) -> Path:
        """Return the file of a segment that is sealed."""
        sealed = self.ledger.segment(segment)
        return self.directory / (name_of(segment) if sealed is None else sealed.file)

    # -- what the ledger is told

    def save(self, changes: Changes, *, full_sync: bool, max_letters: int) -> tuple[tuple[Loss, ...], int]:
        """Write down what has changed.

        :param max_letters: bytes that the dead letters may have; the oldest make way. 0 for no limit.
        :return: those that have made way, and how many bytes there are now.
        """
        ledger = self.ledger
        ledger.set_sync(full=full_sync)
        losses: tuple[Loss, ...] = ()
        with ledger.transaction():
            if changes.backends:
                ledger.set_backends(changes.backends, changes.moves.floor)
            if changes.letters:
                losses = self.add_letters(changes.letters, max_letters)
            ledger.add_losses((*changes.losses, *losses))
            ledger.move(changes.moves)
            ledger.set_tail(*changes.tail)
        return losses, self.letter_bytes

    def add_letters(self, letters: Sequence[Letter], max_bytes: int = 0) -> tuple[Loss, ...]:
        """Keep dead letters, in a transaction, and return what has made way for them."""
        self.ledger.add_letters(letters)
        losses = self._limit_letters(max_bytes) if max_bytes else ()
        self.letter_bytes = self.ledger.letter_bytes()  # there may be many: they are not counted at every save
        return losses

    def _limit_letters(self, max_bytes: int) -> tuple[Loss, ...]:
        excess = self.ledger.letter_bytes() - max_bytes
        ids, losses = [], []
        for number, backend, when, size in self.ledger.oldest_letters():
            if excess <= 0:
                break
            ids.append(number)
            excess -= size
            if backend is not None:
                losses.append(Loss(backend, "full", 1, size, when, when))
        self.ledger.remove_letters(ids)
        return tuple(losses)

    def seal(self, segment: Segment) -> None:
        """Write down what is in a segment to which nothing will be added."""
        with self.ledger.transaction():
            self.ledger.add_segment(segment)
            self.ledger.set_tail(0, 0)

    def discard(self, segment: Segment) -> None:
        """Delete a segment that is not sealed."""
        with self.ledger.transaction():
            self.ledger.set_tail(0, 0)
        segment.path.unlink(missing_ok=True)

    def touch(self) -> None:
        """Write something, to see whether the disk takes anything."""
        self.ledger.touch()

    # -- writes

    def read(
        self,
        destination: Destination,
        after: int,
        max_bytes: int,
        unsealed: Sequence[Part],
        passed: Mapping[int, int],
    ) -> Page:
        """Read the next writes of a destination, until they have so many bytes; one at least, if there is one.

        :param unsealed: the next of them in segments of which the ledger does not know yet, or did not a moment ago.
        :param passed: up to where each backend that has not passed all of the destination has passed it.
        """
        records: list[Record] = []
        damaged: list[Damaged] = []
        upto = unsealed[-1].places.last if unsealed and unsealed[-1].more else None
        left = (each for each in unsealed if self.ledger.segment(each.first) is None)  # it may know it by now
        sealed = self._sealed(destination, after, max_bytes)
        for each in heapq.merge(sealed, left, key=lambda part: part.first):
            found, bad = read_records(each.path, destination, each.places)
            records += found
            damaged += bad
            max_bytes -= sum(each.places.sizes)
            if bad:
                self._leave_out(each, destination, bad)
            if each.more or max_bytes <= 0:
                upto = each.places.last
                break
        losses = tuple(count_damaged(damaged, passed))
        if losses:
            with self.ledger.transaction():
                self.ledger.add_losses(losses)
        return Page(records, upto, [each.number for each in damaged], losses)

    def _sealed(self, destination: Destination, after: int, max_bytes: int) -> Iterator[Part]:
        for entry in self.ledger.entries_after(destination, after):
            places = self.ledger.places(entry.segment, destination)
            begin = places.after(after)
            part = places.next(begin, len(places), max_bytes)
            max_bytes -= sum(part.sizes)
            if len(part):
                more = begin + len(part) < len(places)
                yield Part(self.path_of(entry.segment), entry.segment, part, more)

    def _leave_out(self, part: Part, destination: Destination, damaged: list[Damaged]) -> None:
        strike(part.path, [each.offset for each in damaged])
        if self.ledger.segment(part.first) is not None:
            self._remove(part.first, destination, [each.number for each in damaged])

    def _remove(self, segment: int, destination: Destination, numbers: Iterable[int]) -> None:
        places = self.ledger.places(segment, destination)
        for number in numbers:
            at = places.index(number)
            if at is not None:
                places.remove(at, at + 1)
        with self.ledger.transaction():
            self.ledger.set_places(segment, destination, places)

    def strike(self, number: int) -> bool:
        """Strike a write in a segment that is sealed, and tell whether it was in one."""
        segment = self.ledger.segment_of(number)
        for entry in self.ledger.entries(segment) if segment is not None else ():
            places = self.ledger.places(entry.segment, entry.destination)
            at = places.index(number)
            if at is not None:
                strike(self.path_of(entry.segment), [places.offsets[at]])
                self._remove(entry.segment, entry.destination, [number])
                return True
        return False

    # -- what there is

    def waiting(self, positions: Mapping[Destination, int]) -> Waiting:
        """Return what waits in destinations that were passed up to some numbers, in segments that are sealed."""
        total = Waiting()
        for destination, passed in positions.items():
            for entry in self.ledger.entries_after(destination, passed):
                if entry.first > passed:
                    total = total.plus(entry.writes, entry.bytes, entry.oldest)
                else:
                    total = total.plus_places(self.ledger.places(entry.segment, destination), passed)
        return total

    def log_bytes(self) -> int:
        """Return the bytes of all segments that are sealed."""
        return sum(each.size for each in self.ledger.segments())

    def stopped_at(self, backends: Iterable[int]) -> dict[int, dict[Destination, tuple[int, int]]]:
        """Return where backends stand that were removed: position and last number of each destination of the log."""
        floors = {each.id: floor for each, floor in self.ledger.backends()}
        last = self.ledger.last_numbers()
        stopped: dict[int, dict[Destination, tuple[int, int]]] = {}
        for backend in backends:
            cursors, floor = self.ledger.cursors(backend), floors.get(backend, 0)
            passed = {where: (cursors.get(where, floor), number) for where, number in last.items()}
            stopped[backend] = {where: found for where, found in passed.items() if found[0] < found[1]}
        return stopped

    def forget(self, backend: int) -> None:
        """Know no more of a backend; its dead letters stay."""
        with self.ledger.transaction():
            self.ledger.forget_backend(backend)

    def forget_losses(self, backend: int) -> None:
        """Count a backend's losses from zero."""
        with self.ledger.transaction():
            self.ledger.forget_losses(backend)

    def count_letters(self) -> dict[str, int]:
        """Return how many dead letters each backend has, for those that have any."""
        return self.ledger.count_letters()

    def letters(self, after: int, limit: int) -> list[DeadLetter]:
        """Return the dead letters with a higher id, the oldest first."""
        return self.ledger.letters(after, limit)

    def remove_letters(self, ids: Iterable[int]) -> tuple[int, int]:
        """Remove dead letters, and return how many there were, and the bytes of those that are left."""
        with self.ledger.transaction():
            removed = self.ledger.remove_letters(ids)
        self.letter_bytes = self.ledger.letter_bytes()
        return removed, self.letter_bytes


def count_damaged(damaged: Iterable[Damaged], passed: Mapping[int, int]) -> Iterator[Loss]:
    """Yield what each backend loses that has passed less than these."""
    for each in damaged:
        for backend, number in passed.items():
            if number < each.number:
                yield Loss(backend, "damaged", 1, each.size, each.time, each.time)
