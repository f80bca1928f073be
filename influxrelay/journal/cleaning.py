"""Making room in the log: what every backend has passed, what is too old, and what is too much.

The unit on disk is a segment. One that nobody needs is deleted. One of which little is needed, because a destination
waits for its database, say, is written anew without the rest, together with its neighbours.

All segments have to be sealed but for the one that is appended to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import attrs

from influxrelay.core.write import CHANGES, Destination
from influxrelay.journal.appender import write_file
from influxrelay.journal.ledger import Entry, Letter, Loss
from influxrelay.journal.reading import read_records
from influxrelay.journal.records import Record, lost_change
from influxrelay.journal.segment import Segment, read_name
from influxrelay.journal.store import Store, count_damaged

SMALL = 8  # this many neighbours, each with less than this part of a segment's usual size, are made into one
Positions = Mapping[Destination, Mapping[int, int]]
"""Up to where each backend that lacks something has passed a destination; no more is waited for anywhere else."""


@attrs.frozen
class Dropped:
    """What was dropped from the log, for all backends that had not passed it.

    :ivar upto: the number of the last write that was dropped, by destination.
    """

    upto: Mapping[Destination, int]
    losses: tuple[Loss, ...]


# -- what nobody needs


def clean(store: Store, positions: Positions, usual: int, *, full_sync: bool) -> tuple[Loss, ...]:
    """Delete the segments that nobody needs, and write those anew of which little is needed.

    :param usual: bytes that a segment has.
    :return: writes that turned out to be damaged.
    """
    left: list[tuple[int, int, int]] = []
    for segment in store.ledger.segments():
        needed = sum(_needed(store, each, positions) for each in store.ledger.entries(segment.first))
        if needed:
            left.append((segment.first, segment.size, needed))
        else:
            delete(store, segment.first)
    losses: list[Loss] = []
    for run in runs(left, usual):
        losses += _merge(store, run, positions, full_sync=full_sync)
    return tuple(losses)


def _is_needed(entry: Entry, positions: Positions) -> bool:
    passed = positions.get(entry.destination)
    return passed is not None and min(passed.values()) < entry.last


def _needed(store: Store, entry: Entry, positions: Positions) -> int:
    """Return how many bytes of an entry are needed."""
    if not _is_needed(entry, positions):
        return 0
    passed = min(positions[entry.destination].values())
    if passed < entry.first:
        return entry.bytes
    places = store.ledger.places(entry.segment, entry.destination)
    return sum(places.sizes[places.after(passed) :])


def delete(store: Store, first: int) -> None:
    """Delete a segment."""
    path = store.path_of(first)
    with store.ledger.transaction():
        store.ledger.remove_segment(first)
    path.unlink(missing_ok=True)


def runs(segments: Iterable[tuple[int, int, int]], usual: int) -> Iterator[list[int]]:
    """Yield neighbours that are worth being made into one.

    :param segments: their first numbers, their bytes, and how many of these are needed.
    """
    run: list[int] = []
    total, wasteful = 0, False
    for first, size, needed in segments:
        is_wasteful = needed < size // 2
        may_join = is_wasteful or size < usual // SMALL
        if run and not (may_join and total + needed <= usual):
            if wasteful or len(run) >= SMALL:
                yield run
            run, total, wasteful = [], 0, False
        if may_join:
            run.append(first)
            total, wasteful = total + needed, wasteful or is_wasteful
    if wasteful or len(run) >= SMALL:
        yield run


def _merge(store: Store, run: list[int], positions: Positions, *, full_sync: bool) -> list[Loss]:
    """Write what is needed of some neighbours into one file."""
    records: list[Record] = []
    losses: list[Loss] = []
    paths = [store.path_of(first) for first in run]
    for first, path in zip(run, paths, strict=True):
        for entry in store.ledger.entries(first):
            if _is_needed(entry, positions):
                passed = positions[entry.destination]
                places = store.ledger.places(first, entry.destination)
                places.remove(0, places.after(min(passed.values())))
                found, damaged = read_records(path, entry.destination, places)
                records += found
                losses += count_damaged(damaged, passed)
    merged = Segment.begin(store.directory, run[0], read_name(paths[0].name)[1] + 1)
    parts: list[bytes] = []
    for record in sorted(records, key=lambda each: each.seq):
        merged.add(record, parts)
    merged.last = max(each.last for each in store.ledger.segments() if each.first in run)  # as the old files have
    if parts:
        write_file(merged.path, parts, sync=full_sync)
    try:
        with store.ledger.transaction():
            store.ledger.add_losses(losses)
            for first in run:
                store.ledger.remove_segment(first)
            if parts:
                store.ledger.add_segment(merged)
    except BaseException:
        merged.path.unlink(missing_ok=True)
        raise
    for path in paths:
        path.unlink(missing_ok=True)
    return losses


# -- what is dropped


def expire(store: Store, positions: Positions, before: float) -> Dropped:
    """Drop what was accepted before a time, in seconds since the epoch; nothing behind what is younger."""
    upto: dict[Destination, int] = {}
    younger: set[Destination] = set()
    for entry in store.ledger.entries_before(before):
        if entry.destination not in younger and _is_needed(entry, positions):
            places = store.ledger.places(entry.segment, entry.destination)
            begin = places.after(min(positions[entry.destination].values()))
            end = next((at for at in range(begin, len(places)) if places.times[at] >= before), len(places))
            if end > begin:
                upto[entry.destination] = places.numbers[end - 1]
            if end < len(places):
                younger.add(entry.destination)
    return _drop(store, positions, upto, "age")


def drop_oldest(store: Store, positions: Positions, excess: int) -> Dropped:
    """Drop the oldest segments, until they have had so many bytes."""
    upto: dict[Destination, int] = {}
    segments: list[int] = []
    for segment in store.ledger.segments():
        if excess <= 0:
            break
        segments.append(segment.first)
        excess -= segment.size
        needed = (each for each in store.ledger.entries(segment.first) if _is_needed(each, positions))
        upto.update((each.destination, each.last) for each in needed)
    dropped = _drop(store, positions, upto, "full")
    for first in segments:
        delete(store, first)
    return dropped


def discard(store: Store, positions: Positions, upto: int) -> tuple[Loss, ...]:
    """Drop everything that waits up to a number, as an operator has asked for, and return what that was."""
    return _drop(store, positions, dict.fromkeys(positions, upto), "operator").losses


def _drop(store: Store, positions: Positions, upto: Mapping[Destination, int], reason: str) -> Dropped:
    """Let cursors pass what is dropped, and count it.

    A change becomes a dead letter, too: where it was a DELETE, the backend has what it has removed from the others.
    """
    losses: list[Loss] = []
    letters: list[Letter] = []
    cursors: list[tuple[int, Destination, int]] = []
    for destination, number in upto.items():
        for backend, passed in positions[destination].items():
            if passed < number:
                numbers = range(passed + 1, number + 1)
                losses += _lost(store, destination, numbers, backend, reason)
                letters += _changes(store, numbers, backend, reason) if destination == CHANGES else ()
                cursors.append((backend, destination, number))
    with store.ledger.transaction():
        store.ledger.add_losses(losses)
        store.add_letters(letters)
        store.ledger.set_cursors(cursors)
    return Dropped(upto, tuple(losses))


def _changes(store: Store, numbers: range, backend: int, reason: str) -> Iterator[Letter]:
    for entry in store.ledger.entries_after(CHANGES, numbers[0] - 1):
        places = store.ledger.places(entry.segment, CHANGES)
        wanted = places.part(places.after(numbers[0] - 1), places.after(numbers[-1]))
        if len(wanted):
            records, _ = read_records(store.path_of(entry.segment), CHANGES, wanted)
            yield from (Letter(backend, each.time, each.write, 0, lost_change(reason)) for each in records)


def _lost(store: Store, destination: Destination, numbers: range, backend: int, reason: str) -> Iterator[Loss]:
    for entry in store.ledger.entries_after(destination, numbers[0] - 1):
        if entry.first >= numbers[0] and entry.last <= numbers[-1]:
            yield Loss(backend, reason, entry.writes, entry.bytes, entry.oldest, entry.newest)
            continue
        places = store.ledger.places(entry.segment, destination)
        begin, end = places.after(numbers[0] - 1), places.after(numbers[-1])
        if begin < end:
            times = places.times[begin:end]
            yield Loss(backend, reason, end - begin, sum(places.sizes[begin:end]), min(times), max(times))
