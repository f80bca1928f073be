"""What a backend has missed, kept for it in the journal and read again page by page."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure, JournalError
from influxrelay.core.write import CHANGES, LINES, Destination, Write
from influxrelay.delivery.destination_queue import ENTRY_BYTES, QUEUE_BYTES, DestinationQueue, Entry
from influxrelay.delivery.fate import Fate, State
from influxrelay.delivery.journal_accounts import JournalAccounts
from influxrelay.delivery.journal_cursor import Cursor
from influxrelay.delivery.page_filter import Page, PageFilter, Parts
from influxrelay.delivery.settings import EVERYTHING, SenderSettings
from influxrelay.journal.interface import Journal, Positions
from influxrelay.journal.records import Record

READ_AHEAD = 512 * 1024  # bytes of memory for the head of a backlog
FIRST_PAGE = 4 * 1024  # bytes of lines that are read at first: they may be tiny writes, which take much more memory
PAGE_GAP = 0.003  # seconds between two pages, so that a backlog does not take all of the machine
REREAD = 1.0  # seconds until a page that could not be read is tried again


class JournalBacklog(JournalAccounts):
    """A backlog in the journal, of which only the head is in memory.

    While requests are sent, up to ``max-waiting-mb`` wait in memory. A backend that takes nothing has no more there
    than :data:`READ_AHEAD` in each destination: what is in the journal is read again when its turn comes.

    :param key: what stands for the backend in the journal.
    """

    kind = "journal"
    keeps = True
    outlives = True
    _log = Logger()

    def __init__(self, journal: Journal, reactor: IReactorTime) -> None:
        super().__init__(journal)
        self._reactor = reactor
        self._filter = PageFilter(reactor, lambda: self._host.is_closed)
        self._knows: Callable[[Write], bool] = lambda _: True
        self._kinds = EVERYTHING
        self._pages = 0  # that are being read
        self._page_size = FIRST_PAGE  # bytes of lines that take READ_AHEAD in memory
        self._next_page = 0.0
        self._not_ours = range(0)
        self._resumed_upto = 0
        self._restore: Callable[[int, float], Fate] = Fate.restored

    def reconfigure(self, settings: SenderSettings) -> None:
        """Let other settings hold from the next write, or page, on."""
        super().reconfigure(settings)
        self._filter.wanted = settings.filter
        self._knows = settings.knows
        self._kinds = settings.kinds

    def _cursor(self, queue: DestinationQueue) -> Cursor:
        cursor = self._cursors.get(queue)
        if cursor is None:
            cursor = self._cursors[queue] = Cursor(self, queue)
        return cursor

    # -- for each write

    def place(self, queue: DestinationQueue, entry: Entry) -> BackendFailure | None:
        """Let a write wait in memory, or know that it waits in the journal."""
        host, fate = self._host, entry.fate
        room = host.queues.has_room(entry.size, self.limit)
        is_kept = fate.number > 0
        if room and (not is_kept or (not queue.is_behind and self._may_grow(queue, entry))):
            queue.add(entry)
            return None
        if not is_kept or (fate.journal_problem and not room):
            self.lost(entry, "full")
            return BackendFailure("full", "there is no room for it in memory")
        if not queue.last_number and len(host.queues) * QUEUE_BYTES > self.limit:
            queue.last_number = fate.number
            self._when_kept(queue, fate, partial(self._count_loss, "full", len(entry.write.body)))
            return BackendFailure("full", f"writes to {len(host.queues)} destinations are waiting for it already")
        self._leave(queue, entry, queue.last_number or fate.number - 1)
        return None

    def _may_grow(self, queue: DestinationQueue, entry: Entry) -> bool:
        can_send = self._host.flows and not queue.is_held
        only_here = bool(entry.fate.journal_problem)
        return can_send or only_here or not queue.waiting or queue.size + entry.size <= READ_AHEAD

    def _leave(self, queue: DestinationQueue, entry: Entry, loaded: int) -> None:
        """Have a write in the journal only, or beside it if the journal could not take it."""
        cursor = self._cursor(queue)
        if not queue.is_behind:
            queue.is_behind = True
            cursor.loaded = loaded
        fate = entry.fate
        if fate.journal_problem:
            cursor.add_beside(entry)
        elif fate.state is State.UNDECIDED:
            cursor.undecided[fate.number] = entry
        else:
            self._host.clients.release(entry)
        if fate.state is State.UNDECIDED:
            fate.rely(cursor)

    def trim(self, queue: DestinationQueue) -> None:
        """Leave to the journal what is more than the head of a queue that cannot send."""
        while queue.size > READ_AHEAD and len(queue.waiting) > 1:
            fate = queue.waiting[-1].fate
            if fate.number == 0 or fate.journal_problem:
                break
            entry = queue.pop_last()
            queue.is_behind = False  # what was behind is behind this one, too
            self._leave(queue, entry, fate.number - 1)

    def skip(self, destination: Destination, number: int) -> None:
        """Pass a write of which the backend gets nothing."""
        queue = self._host.queues.open(destination)
        queue.last_number = number
        self._host.tidy(queue)

    def keep_beside(self, queue: DestinationQueue, entry: Entry) -> None:
        """Keep a write in memory that the journal could not take, and that comes behind what is in it.

        If there is no room for it, it is lost.
        """
        if self._host.queues.memory.size + entry.size <= self.limit:
            self._cursor(queue).add_beside(entry)
            return
        self.lost(entry, "full")
        self._host.clients.fail([entry], BackendFailure("full", "it is neither in memory nor in the journal"))
        self._host.tidy(queue)

    def release(self, entry: Entry) -> None:
        """Forget a client that has been told by another backend."""
        self._host.clients.release(entry)

    def stopped(self, entry: Entry) -> None:
        """Count what is in memory alone."""
        if entry.fate.journal_problem:
            self.lost(entry, "full")

    # -- for each queue

    def passed(self, queue: DestinationQueue) -> int:
        """Return the number up to which the backend is done with a destination."""
        cursor = self._cursor(queue)
        unfinished = [*cursor.held, queue.first_number()]
        first = min(filter(None, unfinished), default=0)
        if first:
            return first - 1
        return cursor.loaded if queue.is_behind else queue.last_number

    def tidy(self, queue: DestinationQueue) -> None:
        """Tell the journal what the backend has passed, and read on."""
        cursor, host = self._cursor(queue), self._host
        if host.is_closed:
            return
        self._note_passed(queue, cursor)
        if not queue.is_behind or cursor.is_reading or host.drain:
            return
        room = self.limit - host.queues.memory.size - self._pages * READ_AHEAD
        if not queue.waiting or (host.flows and room > 0 and queue.size < READ_AHEAD // 2):
            pause = self._next_page - self._reactor.seconds()
            if pause > 0:
                cursor.is_reading = True
                host.timers.call_later(pause, partial(self._read_later, queue, cursor))
            else:
                self._read(queue, cursor, max(1, self._page_size * min(room, READ_AHEAD) // READ_AHEAD))

    def _note_passed(self, queue: DestinationQueue, cursor: Cursor) -> None:
        passed = self.passed(queue)
        if passed > cursor.noted:
            cursor.noted = passed
            self._journal.advance(self, queue.destination, passed)

    def has_done(self, queue: DestinationQueue) -> bool:
        """Tell whether nothing of a queue is held back; forget it in that case."""
        cursor = self._cursors.get(queue)
        if cursor is not None and (cursor.held or cursor.undecided) and not self._host.is_closed:
            return False
        self._cursors.pop(queue, None)
        return True

    # -- pages

    def _read_later(self, queue: DestinationQueue, cursor: Cursor) -> None:
        cursor.is_reading = False
        self._host.tidy(queue)

    def _read(self, queue: DestinationQueue, cursor: Cursor, size: int) -> None:
        self._next_page = self._reactor.seconds() + PAGE_GAP
        cursor.is_reading = True
        self._pages += 1
        page = self._journal.read(queue.destination, cursor.loaded, size)
        parts: Parts = {}
        if self._filter.wanted is not None and queue.destination.kind == LINES:
            page.addCallback(self._filter.apply, cursor.undecided, parts)
        page.addBoth(self._count_page)
        more = (queue, cursor, cursor.loaded, parts)
        page.addCallbacks(self._fill, self._not_read, callbackArgs=more, errbackArgs=(queue, cursor))
        page.addErrback(self._bug)

    def _count_page(self, result: Page | Failure) -> Page | Failure:
        self._pages -= 1
        return result

    def _fill(self, page: Page, queue: DestinationQueue, cursor: Cursor, after: int, parts: Parts) -> None:
        """Take the next page of the backlog into memory.

        :param after: up to which number everything was in memory when the page was asked for.
        """
        records, upto = page
        struck, cursor.struck = cursor.struck, set()
        cursor.is_reading = False
        if self._host.is_closed or not queue.is_behind or not self._host.queues.has(queue):
            return
        if cursor.loaded < after:  # some of that was left to the journal since
            self._host.tidy(queue)
            return
        if queue.destination.kind not in self._kinds:
            records = []
        entries = []
        for record in records:
            if record.seq <= cursor.loaded or record.seq in self._not_ours or record.seq in struck:
                continue  # dropped by the operator while the page was read; not for this backend; for nobody
            entry = cursor.undecided.pop(record.seq, None) or self._make_entry(record, parts)
            if entry is not None:
                entries.append(entry)
        if records:
            size = sum(len(record.write.body) for record in records)
            self._page_size = max(1024, READ_AHEAD * size // (size + len(records) * ENTRY_BYTES))
        cursor.loaded = max(cursor.loaded, upto)
        for entry in cursor.with_beside(entries):
            queue.add(entry)
        self._fail_undecided(cursor, cursor.loaded, BackendFailure("struck", "it is no longer in the journal"))
        queue.is_behind = cursor.loaded < queue.last_number
        self._host.go_on(queue)

    def _make_entry(self, record: Record, parts: Parts) -> Entry | None:
        """Return what the backend is to get of a write that was read; None for nothing."""
        part = parts.get(record.seq, record.write)
        if part is None or not self._knows(record.write):
            return None
        entry = Entry(part, self._restore(record.seq, record.time))
        entry.waits = entry.fate.state is State.UNDECIDED
        if entry.waits:
            self._host.clients.wait(entry)
        return entry

    def _fail_undecided(self, cursor: Cursor, upto: float, problem: BackendFailure) -> None:
        gone = [number for number in cursor.undecided if number <= upto]
        self._host.clients.fail([cursor.undecided.pop(number) for number in gone], problem)

    def _not_read(self, failure: Failure, queue: DestinationQueue, cursor: Cursor) -> None:
        """Try again in a while; the journal itself says what its trouble is."""
        if not failure.check(JournalError):
            self._bug(failure)
        self._host.timers.call_later(REREAD, partial(self._read_later, queue, cursor))

    def _bug(self, failure: Failure) -> None:
        self._log.failure("the backlog of backend {backend}", failure, backend=self._host.name)

    # -- for the order of changes

    def known_upto(self, queue: DestinationQueue) -> float:
        """Return up to which number it is known what waits in a queue: all of it, once the first pages are read."""
        loaded = self._cursor(queue).loaded
        return loaded if queue.is_behind and loaded < self._resumed_upto else math.inf

    def is_journaled(self, entry: Entry) -> bool:
        """Tell whether an entry is in the journal, or never will be."""
        fate = entry.fate
        return not fate.number or fate.is_journaled or bool(fate.journal_problem) or fate.state is not State.UNDECIDED

    def is_through(self, queue: DestinationQueue, number: int) -> bool:
        """Tell whether nothing of a queue up to this number will be sent any more, as far as this process knows."""
        cursor = self._cursor(queue)
        is_loaded = not queue.is_behind or cursor.loaded >= number
        return is_loaded and queue.is_through(number) and all(held > number for held in cursor.held)

    def keep_positions(self) -> Deferred[None]:
        """Fire when the journal has written down what the backend has passed."""
        for queue in self._host.queues:
            self._note_passed(queue, self._cursor(queue))
        return self._journal.keep_positions()

    # -- from the journal, and from the operator

    def resume(self, positions: Positions, last_number: int, decided: int) -> None:
        """Read on from where the backend was."""
        self._not_ours = range(decided + 1, last_number + 1)
        self._resumed_upto = last_number
        for destination, passed in sorted(positions, key=lambda each: each[0] != CHANGES):
            queue = self._host.queues.open(destination)
            cursor = self._cursor(queue)
            queue.is_behind, queue.last_number = True, last_number
            cursor.loaded = cursor.noted = passed
            self._host.resumed(queue)

    def restore_by(self, restore: Callable[[int, float], Fate]) -> None:
        """Let this return the fate of what is read from the journal."""
        self._restore = restore

    def leave(self, destination: Destination, number: int) -> None:
        """Let a write wait of which only the journal has what the backend is to get."""
        queue = self._host.queues.open(destination)
        if not queue.is_behind:
            queue.is_behind = True
            self._cursor(queue).loaded = queue.last_number or number - 1
        queue.last_number = number
        self._host.tidy(queue)

    def stand_down(self) -> None:
        """Know of nothing that waits."""
        for cursor in self._cursors.values():
            cursor.held.clear()
        self._cursors.clear()

    def forget(self, destination: Destination, upto: int) -> None:
        """Give up what the journal has dropped up to this number, and has counted."""
        queue = self._host.queues.get(destination)
        if queue is None:
            return
        cursor = self._cursor(queue)
        cursor.dropped = max(cursor.dropped, upto)
        problem = BackendFailure("full", "dropped from the journal")
        gone: list[Entry] = []
        only_here: list[Entry] = []
        while queue.waiting and queue.first_waiting() <= cursor.dropped:
            entry = queue.pop()
            (gone if self.is_dropped(queue, entry) else only_here).append(entry)
        queue.put_back(only_here, alone=False)
        self._host.clients.fail(gone, problem)
        self._pass_over(queue, cursor, upto, problem)

    def is_dropped(self, queue: DestinationQueue, entry: Entry) -> bool:
        """Tell whether the journal has dropped it."""
        fate = entry.fate
        return 0 < fate.number <= self._cursor(queue).dropped and not fate.journal_problem

    def give_up(self, queue: DestinationQueue, entries: list[Entry], upto: float) -> None:
        """Pass what waits up to this number; the journal has counted what it had of that."""
        problem = BackendFailure("dropped", "the operator has dropped the queue")
        cursor, upto = self._cursor(queue), int(min(upto, queue.last_number))
        cursor.dropped = max(cursor.dropped, upto)  # what is in flight, too, should it fail
        beside = cursor.take_beside(upto)
        for entry in (*entries, *beside):
            if entry.fate.journal_problem:
                self.lost(entry, "operator")
        self._host.clients.fail(beside, problem)
        self._pass_over(queue, cursor, upto, problem)

    def _pass_over(self, queue: DestinationQueue, cursor: Cursor, upto: float, problem: BackendFailure) -> None:
        self._fail_undecided(cursor, upto, problem)
        if queue.is_behind:
            cursor.loaded = max(cursor.loaded, int(upto))
            queue.is_behind = cursor.loaded < queue.last_number
        beside = cursor.take_beside(cursor.loaded)
        for entry in beside:
            queue.add(entry)
        (self._host.go_on if beside else self._host.tidy)(queue)

    def close(self) -> list[Entry]:
        """Read no more; what is in the journal stays there."""
        for queue in self._host.queues:
            queue.is_behind = False
        entries: list[Entry] = []
        for cursor in self._cursors.values():
            beside = cursor.take_beside(math.inf)
            for entry in beside:
                self.stopped(entry)
            entries += [*cursor.undecided.values(), *beside]
        return entries
