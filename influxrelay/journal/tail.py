"""The end of the log, as the reactor sees it: what is being appended, and the segments that are not sealed yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import attrs
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.core.histogram import LATENCIES, Histogram
from influxrelay.core.write import Destination
from influxrelay.journal.appender import Appender, Batch
from influxrelay.journal.interface import Receipt
from influxrelay.journal.records import Record
from influxrelay.journal.segment import Segment
from influxrelay.journal.store import Part, Waiting
from influxrelay.journal.worker import Worker


@attrs.define(eq=False)
class _UnderWay:
    """A batch that the disk has been given.

    :ivar segment: to which it is appended; None where it only strikes.
    :ivar told: whether those who wait for it were told that it has failed.
    """

    batch: Batch
    records: list[Record]
    segment: Segment | None
    waiting: list[Receipt]
    told: bool = False


class Tail:
    """Appends in batches: what comes in one turn of the reactor, or while a batch is under way, becomes the next.

    :param worker: has a thread in which to wait for the disk.
    :param on_settled: is told when a batch is done, well or not.
    :param last: the last number that was given to a write.
    :ivar segments: those that are not sealed, the oldest first.
    :ivar segment_size: bytes after which another segment is begun.
    :ivar sync: whether what is appended has to survive power loss.
    :ivar trouble: what is wrong with the disk, as long as it is; empty if nothing is known to be.
    :ivar commits: the seconds that each batch took, also those that failed.
    """

    def __init__(self, directory: Path, worker: Worker, on_settled: Callable[[], object], last: int) -> None:
        self.segments: list[Segment] = []
        self.segment_size = 0
        self.sync = False
        self.trouble = ""
        self.commits = Histogram(LATENCIES)
        self._directory = directory
        self._worker = worker
        self._on_settled = on_settled
        self._appender = Appender()
        self._active: Segment | None = None
        self._pending: list[tuple[Record, Receipt]] = []
        self._struck: set[int] = set()  # numbers of pending writes
        self._strikes: list[tuple[Path, int]] = []
        self._strikers: list[Deferred[None]] = []
        self._under_way: _UnderWay | None = None
        self._will_flush = False  # when the reactor's turn ends
        self._held: set[str] = set()
        self._waiters: list[tuple[int, Deferred[None]]] = []
        self._drainers: list[Deferred[None]] = []
        self._quieters: list[Deferred[None]] = []
        self._leaving: set[Path] = set()  # segments that are being sealed or deleted: they must not change
        self._appended = last
        self._not_taken = 1  # bytes of the last batch that has failed

    @property
    def settled(self) -> int:
        """Up to this number each write is in the log, or never will be."""
        if self._under_way is not None and self._under_way.records:
            return self._under_way.records[0].seq - 1
        return self._pending[0][0].seq - 1 if self._pending else self._appended

    @property
    def size(self) -> int:
        """Bytes of the segments that are not sealed."""
        return sum(each.size for each in self.segments)

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for the disk; strikes that it did not take are not waited for."""
        return self._under_way is None and not (self._pending or self._strikers)

    # -- what is given

    def append(self, record: Record, receipt: Receipt) -> None:
        """Add a write; it is told when it is in the log, or that it is not."""
        if self._worker.is_stuck:
            self.skip(record, self._problem(), receipt)
            return
        self._pending.append((record, receipt))
        self._appended = record.seq
        if self._under_way is None and not self._will_flush:
            self._will_flush = True
            self._worker.at_turns_end(self._flush_turn)

    def _flush_turn(self) -> None:
        self._will_flush = False
        self.flush()

    def skip(self, record: Record, problem: JournalError, receipt: Receipt) -> None:
        """Refuse a write for this reason."""
        self._appended = record.seq
        receipt.errback(Failure(problem))

    def _problem(self) -> JournalError:
        return JournalError(f"{self._directory}: {self.trouble}")

    def strike(self, number: int) -> Deferred[None] | None:
        """Strike a write; fires when that is done. None if it is not here."""
        if self._pending and number >= self._pending[0][0].seq:
            self._struck.add(number)
        else:
            segment = self._segment_of(number)
            if segment is None:
                return None
            offset = segment.strike(number)
            if offset is not None:
                self._strikes.append((segment.path, offset))
        return self._wait_in(self._strikers)

    def _wait_in(self, waiting: list[Deferred[None]]) -> Deferred[None]:
        """Hand over what waits, and return what fires later; while the disk does not answer it fails at once."""
        if self._worker.is_stuck:
            return fail(self._problem())
        done: Deferred[None] = Deferred()
        waiting.append(done)
        self.flush()
        self._settle()
        return done

    def _segment_of(self, number: int) -> Segment | None:
        found = (each for each in self.segments if each.first <= number <= each.last)
        return next((each for each in found if each.path not in self._leaving), None)

    def leave_out(self, numbers: Iterable[int]) -> None:
        """Know no more of some writes: they are damaged."""
        for number in numbers:
            segment = self._segment_of(number)
            if segment is not None:
                segment.strike(number)

    def wait(self) -> Deferred[None]:
        """Fire when each write that was given until now is in the log, or never will be; fails if that takes long."""
        if self._worker.is_stuck and self.settled < self._appended:
            return fail(self._problem())
        waited: Deferred[None] = Deferred()
        self._waiters.append((self._appended, waited))
        self._settle()
        return waited

    def drained(self) -> Deferred[None]:
        """Fire when nobody waits for the disk; fails if that takes long."""
        return self._wait_in(self._drainers)

    def quiet(self) -> Deferred[None]:
        """Fire when nothing is under way; fails if that takes long. Writes should be held."""
        return self._wait_in(self._quieters)

    def knows(self, number: int) -> bool:
        """Tell whether a write may be in a segment that is not sealed yet."""
        return any(each.first <= number <= each.last for each in self.segments)

    def _settle(self) -> None:
        if not (self._waiters or self._drainers or self._quieters):
            return
        settled = self.settled
        ready = [waited for number, waited in self._waiters if number <= settled]
        self._waiters = [each for each in self._waiters if each[0] > settled]
        if self.is_idle:
            ready += self._drainers
            self._drainers = []
        if self._under_way is None:
            ready += self._quieters
            self._quieters = []
        for waited in ready:
            waited.callback(None)

    def flush(self) -> None:
        """Hand over what waits for the next batch."""
        waits = (self._pending and not self._held) or self._strikes or self._strikers
        if waits and self._under_way is None:
            self._hand_over()

    def is_held(self, reason: str) -> bool:
        """Tell whether all writes wait for this reason."""
        return reason in self._held

    def hold(self, reason: str) -> None:
        """Let all writes wait, until :meth:`release` is called for each reason."""
        self._held.add(reason)

    def release(self, reason: str) -> None:
        """Let what waits go on, unless there is another reason to wait."""
        self._held.discard(reason)
        self.flush()

    def refuse(self, problem: JournalError) -> None:
        """Fail the writes that wait for a batch."""
        pending, self._pending = self._pending, []
        self._struck.clear()
        _tell([receipt for _, receipt in pending], problem)
        self._settle()

    # -- batches

    def _hand_over(self) -> None:
        pending: list[tuple[Record, Receipt]] = []
        if not self._held:
            pending, self._pending = self._pending, []
        strikes, self._strikes = self._strikes, []
        waiting: list[Receipt] = [*(receipt for _, receipt in pending), *self._strikers]
        self._strikers = []
        path, offset, segment = self._directory, 0, None
        parts: list[bytes] = []
        if pending:
            segment = self._segment(pending[0][0].seq)
            path, offset = segment.path, segment.size if segment.last else 0
            segment.extend([record for record, _ in pending], parts)
            strikes += [(path, at) for at in map(segment.strike, self._struck) if at is not None]
            self._struck.clear()
        batch = Batch(path, offset, parts, strikes, self.sync)
        self._under_way = under_way = _UnderWay(batch, [record for record, _ in pending], segment, waiting)
        done = self._worker.do(partial(self._write, batch))
        done.addCallbacks(self._written, self._failed, callbackArgs=(under_way,), errbackArgs=(under_way,))

    def _segment(self, first: int) -> Segment:
        segment = self._active
        if segment is None or segment.size >= self.segment_size:
            segment = self._active = Segment.begin(self._directory, first)
            self.segments.append(segment)
        return segment

    def _write(self, batch: Batch) -> None:
        """Write a batch, in the thread."""
        began = time.perf_counter()
        try:
            self._appender.write(batch)
        finally:
            self.commits.observe(time.perf_counter() - began)

    def _written(self, _: None, done: _UnderWay) -> None:
        if done.told:  # it came too late
            undone = self._worker.do(partial(self._appender.undo, done.batch))
            undone.addCallbacks(self._undone, self._failed, callbackArgs=(done,), errbackArgs=(done,))
            return
        self._under_way = None
        self.trouble = ""
        self.flush()
        for each in done.waiting:
            each.callback(None)
        self._settle()
        self._on_settled()

    def _undone(self, _: None, done: _UnderWay) -> None:
        self.trouble = ""
        self._forget(done)

    def _failed(self, failure: Failure, done: _UnderWay) -> None:
        self.trouble = explain(failure)
        self._not_taken = max(1, sum(map(len, done.batch.parts)))
        waiting = [] if done.told else done.waiting
        self._forget(done)
        _tell(waiting, self._problem())

    def _forget(self, done: _UnderWay) -> None:
        """Forget what the disk has not taken, or was too late with; go on with another segment."""
        self._under_way = None
        self._strikes[:0] = done.batch.strikes
        if done.segment is not None:
            done.segment.cut(done.records[0].seq, done.batch.offset)
            if not done.batch.offset:
                self.segments.remove(done.segment)
            self._active = None
        if self._pending:
            self.flush()
        self._settle()
        self._on_settled()

    def give_up(self, trouble: str) -> None:
        """Tell everybody who waits that the disk does not answer; first the clients, then who waits for the end."""
        self.trouble = trouble
        problem = self._problem()
        waiting: list[Receipt] = [
            *self._strikers,
            *(waited for _, waited in self._waiters),
            *self._drainers,
            *self._quieters,
        ]
        self._strikers, self._waiters, self._drainers, self._quieters = [], [], [], []
        if self._under_way is not None and not self._under_way.told:
            self._under_way.told = True
            _tell(self._under_way.waiting, problem)
        self.refuse(problem)
        _tell(waiting, problem)

    # -- segments

    def rotate(self) -> None:
        """Begin another segment with the next write."""
        self._active = None

    def closed(self) -> list[Segment]:
        """Return the segments that will not change, each once, for :meth:`remove` or :meth:`keep`."""
        busy = {path for path, _ in self._strikes} | self._leaving
        if self._under_way is not None:
            busy |= {self._under_way.batch.path, *(path for path, _ in self._under_way.batch.strikes)}
        closed = [each for each in self.segments if each is not self._active and each.path not in busy]
        self._leaving |= {each.path for each in closed}
        return closed

    def remove(self, segment: Segment) -> None:
        """Know no more of a segment: it is sealed, or deleted."""
        self.keep(segment)
        self.segments.remove(segment)

    def keep(self, segment: Segment) -> None:
        """Go on with a segment that could be neither sealed nor deleted."""
        self._leaving.discard(segment.path)

    @property
    def written(self) -> tuple[int, int]:
        """The first number of the segment at the end, and how many bytes of it are written; zeros if there is none."""
        last = self.segments[-1] if self.segments else None
        if last is None or last.path in self._leaving:
            return (0, 0)
        under_way = self._under_way is not None and self._under_way.segment is last
        return (last.first, self._under_way.batch.offset if self._under_way is not None and under_way else last.size)

    def has_older(self, when: float) -> bool:
        """Tell whether something here was accepted before a time, in seconds since the epoch."""
        places = (places for segment in self.segments for places in segment.places.values())
        return any(len(each) and each.times[0] < when for each in places)

    def parts(self, destination: Destination, after: int, max_bytes: int) -> list[Part]:
        """Return where the next writes of a destination are, of those settled, until they have so many bytes."""
        parts: list[Part] = []
        settled = self.settled
        for segment in self.segments:
            places = segment.places.get(destination)
            begin, end = (places.after(after), places.after(settled)) if places is not None else (0, 0)
            if places is not None and begin < end and max_bytes > 0:
                found = places.next(begin, end, max_bytes)
                max_bytes -= sum(found.sizes)
                parts.append(Part(segment.path, segment.first, found, begin + len(found) < end or max_bytes <= 0))
        return parts

    def last_numbers(self, known: dict[Destination, int]) -> dict[Destination, int]:
        """Return the number of the last write of each destination, here or as it is known from elsewhere."""
        here = {where: places.last for each in self.segments for where, places in each.places.items() if len(places)}
        return {**known, **here}

    def waiting(self, positions: Mapping[Destination, int], total: Waiting) -> Waiting:
        """Return a sum, and what waits here in destinations that were passed up to some numbers."""
        for segment in self.segments:
            for destination in positions.keys() & segment.places.keys():
                total = total.plus_places(segment.places[destination], positions[destination])
        return total

    def close(self) -> None:
        """Close the file, in the thread."""
        self._appender.close()

    def probe(self) -> Deferred[None]:
        """Find out whether the disk takes as much as it did not take last."""

        def well(_: None) -> None:
            self.trouble = ""
            self._on_settled()

        def failed(failure: Failure) -> None:
            self.trouble = explain(failure)
            self._on_settled()
            raise self._problem()

        probe = partial(self._appender.probe, self._directory, self._not_taken)
        return self._worker.do(probe).addCallbacks(well, failed)


def explain(failure: Failure) -> str:
    """Return what has failed, in a few words."""
    error = failure.value
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _tell(waiting: list[Receipt], problem: JournalError) -> None:
    for each in waiting:
        each.errback(Failure(problem))
