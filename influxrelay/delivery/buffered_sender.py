"""A road that forgets nothing: what its backend misses stays in a queue, in memory or in the journal."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure, JournalError
from influxrelay.core.slices import Desk
from influxrelay.core.write import Destination, Reply, Write, reduced
from influxrelay.delivery.backlog import Backlog, State, Ticket
from influxrelay.delivery.destination_queue import DestinationQueue, Entry, Tally
from influxrelay.delivery.responses import excerpt, is_not_ready
from influxrelay.delivery.sender import Sender
from influxrelay.journal.store import Drop, Record
from influxrelay.lineprotocol.filters import Filter, divide, divide_slowly
from influxrelay.lineprotocol.parser import Steps

FIRST_DELAY = 0.5  # seconds until the first retry for which no client waits; it doubles up to the maximum
PAGE = 256 * 1024  # bytes that are read from the journal at once: a client may wait for the commit behind it ...
PAGE_GAP = 0.003  # ... and seconds between two pages, so that a backlog does not take all of the machine: 85 MB/s
REREAD = 1.0  # seconds until a page that could not be read is tried again

_Page = tuple[list[Record], int]  # writes, and up to which number they are all


class BufferedQueue(DestinationQueue):
    """A lane that stays in order when several requests are under way and come back.

    :param live: the road's entries whose clients wait for them.
    """

    def __init__(self, destination: Destination, tally: Tally, live: dict[Entry, None]) -> None:
        super().__init__(destination, tally)
        self._live = live

    def _pop(self) -> Entry:
        entry = super()._pop()
        if entry.struck:
            self._live.pop(entry, None)  # its client has been told
        return entry

    def take(self, max_bytes: int) -> list[Entry]:
        """Remove what travels as the next request; the new head is not struck either."""
        taken = super().take(max_bytes)
        self.skip_struck()
        return taken

    def put_back(self, entries: list[Entry], *, alone: bool) -> None:
        """Return the writes of a request to where they were."""
        older = self.waiting[0] if self.waiting else None
        super().put_back(entries, alone=alone)
        if older is not None and entries and _seq(older) < _seq(entries[-1]):
            self.waiting = deque(sorted(self.waiting, key=_seq))


def _seq(entry: Entry) -> int:
    return entry.ticket.seq if entry.ticket is not None else 0


class BufferedSender(Sender):
    """A road on which a write stays at its place until the backend has it, has refused it for good, or nobody needs it.

    Only its client is told when a request fails, and all clients that wait at that time: what is kept is not lost, so
    they need not wait for it. While clients wait, a backend in trouble is probed as on any road, else with pauses that
    grow from :data:`FIRST_DELAY` to ``max_delay``. A probe carries one write.

    :param max_delay: seconds, the longest pause between two retries.
    :param create_databases: whether a database that a queued write misses is created.
    """

    def __init__(
        self, *args: Any, queue: Backlog, max_delay: float = 10.0, create_databases: bool = False, **named: Any
    ) -> None:
        super().__init__(*args, **named)
        self.queue = queue
        self.paused = False
        self.max_delay = max_delay
        self.create_databases = create_databases
        self._live: dict[Entry, None] = {}  # those who wait on a lane and whose clients wait for them, oldest first
        self._desk = Desk(self._reactor)
        self._pages = 0  # that are being read
        self._next_page = 0.0
        self._timers: list[IDelayedCall] = []
        self._troubles = 0
        self._retry_at = 0.0
        self._not_ours = range(0)

    def _new_lane(self, destination: Destination) -> DestinationQueue:
        lane = self._lanes[destination] = BufferedQueue(destination, self._tally, self._live)
        return lane

    # -- for each write

    def submit(self, write: Write, ticket: Ticket | None = None) -> Deferred[Reply]:
        """Take a write, and keep it if it has a ticket."""
        return self._submit(Entry(write, self._reactor.seconds() + self.backend.timeout, ticket))

    def _may_send_at_once(self, lane: DestinationQueue | None) -> bool:
        return not self.paused and (lane is None or not lane.behind) and super()._may_send_at_once(lane)

    def _has_room(self, lane: DestinationQueue) -> bool:
        return not self.paused and lane.not_ready is None and super()._has_room(lane)

    def _obstacle(self, entry: Entry) -> BackendFailure | None:
        ticket = entry.ticket
        if ticket is None or self._closed is not None:
            return super()._obstacle(entry)
        return None if self.queue.on_disk else self._make_room(ticket, entry.write)

    def _make_room(self, ticket: Ticket, write: Write) -> BackendFailure | None:
        """Keep the queue in memory within its bounds, one way or the other."""
        queue, size = self.queue, len(write.body)
        while queue.drop_oldest and size <= queue.max_bytes < self._tally.bytes + size:
            lane = min((each for each in self._lanes.values() if each.waiting), key=lambda each: _seq(each.waiting[0]))
            self._lose(lane.drop_first(), "full")
            self._tidy(lane)
        self._refused_size = 0
        if self._tally.bytes + size <= queue.max_bytes:
            return None
        self._refused_size = size
        ticket.when_kept(lambda: queue.lost(ticket, write, "full"))
        problem = BackendFailure("full", f"the queue has {self._tally.bytes} bytes already")
        self._failure_log.failed(problem.reason, problem.detail)
        return problem

    def _lose(self, entry: Entry, reason: str) -> None:
        """Count a write that the backend will not get, if it turns out that it should have."""
        self._count_lost(entry, reason)
        self._fail([entry], BackendFailure(reason, "dropped from the queue"))

    def _count_lost(self, entry: Entry, reason: str) -> None:
        queue, ticket = self.queue, entry.ticket
        if ticket is not None:
            ticket.when_kept(lambda: queue.lost(ticket, entry.write, reason))

    def _let_wait(self, lane: DestinationQueue, entry: Entry) -> None:
        """Let a write wait in memory, or know that it waits on disk."""
        ticket = entry.ticket
        lane = self._lanes.setdefault(lane.destination, lane)  # what was dropped for this one may have been its last
        if ticket is None:
            lane.add(entry)
            return
        self._live[entry] = None
        too_much = self._tally.bytes + len(entry.write.body) > self._max_waiting
        if self.queue.on_disk and (lane.behind or too_much):
            if not lane.behind:
                lane.behind = True
                lane.loaded = lane.last_seq or ticket.seq - 1
            lane.later[ticket.seq] = entry
            ticket.absent.append(self)
        else:
            lane.add(entry)
        lane.last_seq = ticket.seq
        if lane.not_ready is not None and (lane.refusals > 1 or not self.create_databases):
            problem = BackendFailure("not ready", f"answered {excerpt(lane.not_ready)}", lane.not_ready)
            self._fail([entry], problem)  # it waits with the others, its client need not

    def part_of(self, write: Write) -> Write | None:
        """Return what the filter leaves of a write; None if that is nothing."""
        if self.filter is None:
            return write
        (body,), _ = divide(write.body, [self.filter])
        return reduced(write, body)

    def skip(self, ticket: Ticket) -> None:
        """Note that the filter leaves nothing of a write: its place counts as done once those before it are."""
        destination = ticket.write.destination
        lane = self._lanes.get(destination) or self._new_lane(destination)
        lane.last_seq = ticket.seq
        self._tidy(lane)

    def not_on_disk(self, ticket: Ticket) -> None:
        """Note that the journal did not take a write that is not in memory either."""
        lane = self._lanes.get(ticket.write.destination)
        entry = lane.later.pop(ticket.seq, None) if lane is not None else None
        self._lose(entry or Entry(self.part_of(ticket.write) or ticket.write, 0.0, ticket), "full")
        self._tell_drained()

    def let_go(self, ticket: Ticket, lane: DestinationQueue) -> None:
        """Note that it is decided what becomes of a refused write."""
        lane.held.discard(ticket.seq)
        self._tidy(lane)

    def settled(self, ticket: Ticket) -> None:
        """Note that the client of a write that is only on disk waits no more, whatever the backend says."""
        lane = self._lanes.get(ticket.write.destination)
        entry = lane.later.get(ticket.seq) if lane is not None else None
        if lane is not None and entry is not None:
            self._live.pop(entry, None)
            if ticket.state is not State.STRUCK or not lane.filling:  # else the page under way may hold it still
                del lane.later[ticket.seq]

    def _release(self, entry: Entry) -> Deferred[Reply] | None:
        self._live.pop(entry, None)
        return super()._release(entry)

    # -- for each request

    def _send(self, lane: DestinationQueue, entries: list[Entry]) -> None:
        for entry in entries:
            self._live.pop(entry, None)
        super()._send(lane, entries)

    def _unmerge(self, lane: DestinationQueue, entries: list[Entry]) -> None:
        if self._closed is not None:
            self._give_back(lane, entries)
        self._live.update((entry, None) for entry in entries if entry.ticket is not None and entry.answer is not None)
        super()._unmerge(lane, entries)

    def _answered(self, reply: Reply, lane: DestinationQueue, entries: list[Entry]) -> None:
        if is_not_ready(reply):
            self._not_ready(reply, lane, entries)
        else:
            super()._answered(reply, lane, entries)

    def _refused(self, reply: Reply, lane: DestinationQueue, entries: list[Entry], *, at_once: bool) -> None:
        ticket, write, queue = entries[0].ticket, entries[0].write, self.queue
        if ticket is not None:
            ticket.when_kept(lambda: queue.bury(ticket, write, reply))
            if ticket.state is State.PENDING and queue.on_disk:  # the cursor must not pass it before it is buried
                lane.held.add(ticket.seq)
                ticket.holders.append((self, lane))
        super()._refused(reply, lane, entries, at_once=at_once)

    def _landed(self, lane: DestinationQueue, entries: list[Entry]) -> None:
        lane.not_ready, lane.refusals, self._troubles = None, 0, 0
        super()._landed(lane, entries)

    def _give_back(self, lane: DestinationQueue, entries: list[Entry]) -> list[Entry]:
        """Let what is kept of a request wait again, or count it where it is too late for that; return what waits."""
        kept = [entry for entry in entries if entry.ticket is not None and not self._is_forgotten(lane, entry)]
        if self._closed is not None:
            self._count_unsaved(kept)
            return []
        lane.put_back(kept, alone=False)
        return kept

    def _is_forgotten(self, lane: DestinationQueue, entry: Entry) -> bool:
        return entry.ticket is not None and entry.ticket.on_disk and entry.ticket.seq <= lane.forgotten

    def _count_unsaved(self, entries: Iterable[Entry]) -> None:
        """Count what is only in memory, at the end."""
        for entry in entries:
            if not self.queue.on_disk:
                self._count_lost(entry, "stopped")
            elif entry.ticket is not None and not entry.ticket.on_disk:
                self._count_lost(entry, "full")

    def forget(self, destination: Destination, upto: int) -> None:
        """Give up what the journal has dropped up to this number, and has counted."""
        lane = self._lanes.get(destination)
        if lane is None:
            return
        lane.forgotten = max(lane.forgotten, upto)
        problem = BackendFailure("full", "dropped from the journal")
        only_here = []
        while lane.waiting and _seq(lane.waiting[0]) <= lane.forgotten:
            entry = lane.drop_first()
            if self._is_forgotten(lane, entry):
                self._fail([entry], problem)
            else:
                only_here.append(entry)
        lane.put_back(only_here, alone=False)
        self._fail([lane.later.pop(seq) for seq in list(lane.later) if seq <= upto], problem)
        if lane.behind:
            lane.loaded = max(lane.loaded, upto)
            lane.behind = lane.loaded < lane.last_seq
        self._tidy(lane)

    def _broke(self, problem: BackendFailure, lane: DestinationQueue, entries: list[Entry], pause: float) -> None:
        self._give_back(lane, entries)
        super()._broke(problem, lane, entries, pause)

    def _impatient(self) -> list[Entry]:
        return list(self._live)

    def _enter_trouble(self, problem: BackendFailure, pause: float) -> None:
        super()._enter_trouble(problem, pause)
        delay = min(self.max_delay, FIRST_DELAY * 2 ** min(self._troubles, 20))
        self._retry_at = max(self._not_before, self._reactor.seconds() + self._jittered(delay))
        self._troubles += 1

    def _jittered(self, seconds: float) -> float:
        return seconds * (0.5 + self._jitter() / 2)

    def _probe_time(self) -> float:
        return self._not_before if self._live else self._retry_at

    def _hasten(self) -> None:
        self._retry_at = self._not_before
        super()._hasten()

    def _send_probe(self, lane: DestinationQueue) -> None:
        self._send(lane, lane.take(0))  # one write is enough to see how the backend is

    def _longest_waiting(self) -> DestinationQueue | None:
        for lane in list(self._lanes.values()):
            lane.skip_struck()
            self._tidy(lane)
        if self.paused:
            return None
        waiting = (lane for lane in self._lanes.values() if lane.waiting and lane.not_ready is None)
        return min(waiting, key=lambda lane: lane.waiting[0].deadline, default=None)

    def _send_waiting(self, lane: DestinationQueue) -> None:
        lane.skip_struck()
        super()._send_waiting(lane)

    def _collect_expired(self, now: float) -> list[Entry]:
        return [*(entry for entry in self._live if entry.deadline <= now), *super()._collect_expired(now)]

    def _next_deadline(self) -> float:
        unkept = (lane.waiting[0] for lane in self._lanes.values() if lane.waiting and lane.waiting[0].ticket is None)
        return min((entry.deadline for entry in (*self._live, *unkept)), default=math.inf)

    # -- a database that is not there (yet)

    def _not_ready(self, reply: Reply, lane: DestinationQueue, entries: list[Entry]) -> None:
        """Let what is kept wait for its database; the backend is well, and the other lanes go on."""
        kept = self._give_back(lane, entries)
        self._take_off(lane, entries)
        lane.not_ready = reply
        lane.refusals += 1
        self._failure_log.failed(str(reply.status), excerpt(reply))
        self._troubles = 0
        self._recover()
        if self.create_databases and lane.refusals == 1 and lane.waiting:
            self._live.update((entry, None) for entry in kept if entry.answer is not None)
            self._fail_expired()
            created = self.backend.create_database(entries[0].write)
            created.addBoth(lambda _: self._try_again(lane))
            for entry in entries:
                if entry not in self._live:
                    self._tell(entry, reply)
            return
        here = [entry for entry in self._live if entry.write.destination == lane.destination]
        for entry in [*entries, *here]:
            self.failures[str(reply.status)] += 1
            self._tell(entry, reply)
        lane.skip_struck()
        if not (lane.waiting or lane.behind):
            lane.not_ready = None
        else:
            delay = min(self.max_delay, FIRST_DELAY * 2 ** min(lane.refusals, 20))
            if lane.retry is not None and lane.retry.active():  # of before a reload
                lane.retry.cancel()
            lane.retry = self._later(self._jittered(delay), lambda: self._try_again(lane))
        self._tidy(lane)

    def _try_again(self, lane: DestinationQueue) -> None:
        lane.not_ready = None
        if self._closed is None:
            self._send_waiting(lane)
            self._probe()

    # -- the backlog on disk

    def resume(self, backlog: Iterable[tuple[Destination, int]], last_seq: int, decided: int | None = None) -> None:
        """Read on from the cursors; once, before the first write.

        :param decided: the number of the last write for this backend, where another may still be struck.
        """
        self._not_ours = range(last_seq + 1 if decided is None else decided + 1, last_seq + 1)
        for destination, passed in backlog:
            lane = self._new_lane(destination)
            lane.behind, lane.loaded, lane.noted, lane.last_seq = True, passed, passed, last_seq
            self._tidy(lane)

    def _tidy(self, lane: DestinationQueue) -> None:
        """Move the cursor, read on, or forget the lane: whatever its state asks for."""
        if self._closed is not None:
            super()._tidy(lane)
            return
        passed = lane.passed()
        if passed > lane.noted:
            lane.noted = passed
            self.queue.passed(lane.destination, passed)
        wanted = lane.behind and not lane.filling and not self._drained
        room = self._max_waiting - self._tally.bytes - self._pages * PAGE
        ahead = self.trouble is None and lane.bytes < PAGE // 2 and room > 0
        if wanted and (ahead or not lane.waiting):
            pause = self._next_page - self._reactor.seconds()
            if pause > 0:
                lane.filling = True
                self._later(pause, lambda: self._refill(lane))
            else:
                self._read_on(lane, max(1, min(PAGE, room)))
        super()._tidy(lane)

    def _read_on(self, lane: DestinationQueue, size: int) -> None:
        page = self.queue.page(lane.destination, lane.loaded, size)
        if page is not None:
            self._next_page = self._reactor.seconds() + PAGE_GAP
            lane.filling = True
            self._pages += 1
            parts: dict[int, Write | None] = {}
            if self.filter is not None:
                page.addCallback(self._filter_page, self.filter, lane, parts)
            page.addBoth(self._turned)
            page.addCallbacks(self._filled, self._not_filled, callbackArgs=(lane, parts), errbackArgs=(lane,))
            page.addErrback(self._bug)

    def _refill(self, lane: DestinationQueue) -> None:
        lane.filling = False
        self._tidy(lane)

    def _turned(self, result: Any) -> Any:
        self._pages -= 1
        return result

    def _filter_page(
        self, page: _Page, filter_: Filter, lane: DestinationQueue, parts: dict[int, Write | None]
    ) -> Deferred[_Page]:
        """Find out what is left of its writes, bit by bit: expressions may take long."""
        filtered: Deferred[_Page] = Deferred()

        def filter_slowly() -> Steps[None]:
            for record in page[0]:
                if record.seq not in lane.later:
                    (body,), _ = yield from divide_slowly(record.write.body, [filter_])
                    parts[record.seq] = reduced(record.write, body)

        def work() -> Iterator[int]:
            steps = filter_slowly()
            try:
                while self._closed is None and next(steps, None) is not None:
                    yield 0
            except Exception:  # noqa: BLE001 (whoever waits for the page is told)
                filtered.errback()
                return
            filtered.callback(page)

        self._desk.take(work())
        return filtered

    def _filled(self, page: _Page, lane: DestinationQueue, parts: dict[int, Write | None]) -> None:
        """Take the next page of the backlog into memory.

        :param parts: what the filter has left of its writes, by their numbers.
        """
        lane.filling = False
        if self._closed is not None or not lane.behind:
            return
        records, upto = page
        for record in records:
            if record.seq <= lane.loaded or record.seq in self._not_ours:
                continue  # the operator has dropped it while the page was read; or it was not written for this backend
            entry = lane.later.pop(record.seq, None)
            if entry is None:
                write = parts[record.seq] if record.seq in parts else self.part_of(record.write)
                if write is None:
                    continue
                ticket = Ticket(record.seq, record.time, record.write, State.KEPT)
                entry = Entry(write, math.inf, ticket)
            lane.add(entry)
        lane.loaded = max(lane.loaded, upto)
        gone = [seq for seq in lane.later if seq <= upto]
        self._fail([lane.later.pop(seq) for seq in gone], BackendFailure("struck", "it is no longer in the journal"))
        lane.behind = lane.loaded < lane.last_seq
        self._send_waiting(lane)
        self._probe()
        self._tell_drained()

    def _not_filled(self, failure: Failure, lane: DestinationQueue) -> None:
        """Try again in a while; the journal itself says what its trouble is."""
        if not failure.check(JournalError):
            self._bug(failure)
        self._later(REREAD, lambda: self._refill(lane))

    def _later(self, seconds: float, call: Callable[[], None]) -> IDelayedCall | None:
        """Do something in a while, unless the road is closed before."""
        self._timers = [timer for timer in self._timers if timer.active()]
        if self._closed is not None:
            return None
        timer: IDelayedCall = self._reactor.callLater(seconds, call)
        self._timers.append(timer)
        return timer

    # -- for the operator

    def pause(self) -> None:
        """Send nothing more, until :meth:`unpause`; what is kept waits."""
        self.paused = True

    def unpause(self) -> None:
        """Go on."""
        self.paused = False
        for lane in list(self._lanes.values()):
            self._send_waiting(lane)
        self._probe()

    def give_up(self, upto: float = math.inf) -> None:
        """Forget what waits; what is in flight goes on.

        :param upto: the number of the last write to forget; the journal has counted them.
        """
        problem = BackendFailure("dropped", "the operator has dropped the queue")
        for lane in list(self._lanes.values()):
            for entry in lane.clear():
                if _seq(entry) > upto:
                    lane.add(entry)
                    continue
                if not self.queue.on_disk:
                    self._lose(entry, "operator")
                self._fail([entry], problem)
            gone = [seq for seq in lane.later if seq <= upto]
            self._fail([lane.later.pop(seq) for seq in gone], problem)
            lane.loaded = int(max(lane.loaded, min(upto, lane.last_seq)))
            lane.behind = lane.behind and lane.loaded < lane.last_seq
            self._tidy(lane)

    @property
    def state(self) -> str:
        """One of :data:`influxrelay.delivery.sender.STATES`; what an operator has paused may be in trouble, too."""
        if self.paused:
            return "paused"
        return "behind" if self.problem is None and self.is_behind() else super().state

    def oldest(self) -> float | None:
        """Return when the oldest write that waits in memory was accepted, in seconds since the epoch."""
        first = (next((each.ticket for each in lane.waiting if each.ticket), None) for lane in self._lanes.values())
        return min((ticket.time for ticket in first if ticket is not None), default=None)

    def missing(self) -> set[bytes]:
        """Return the databases that the backend says it does not have."""
        return {lane.destination.database for lane in self._lanes.values() if lane.refusals}

    def objection(self) -> str:
        """Tell why a write would not be taken by the backend now; empty if it would, as far as is known."""
        return super().objection() or ("paused by an operator" if self.paused else "")

    def miss(self, write: Write, when: float) -> None:
        """Nothing to note: the ticket's end tells what is lost."""

    def losses(self) -> list[Drop]:
        """Return what the backend will not get, although it was acknowledged."""
        return self.queue.losses()

    def forget_losses(self) -> None:
        """Count them from zero, but for what is in the journal."""
        self.queue.drops.clear()

    @property
    def is_full(self) -> bool:
        """Whether there is still no room for the last write for which there was none."""
        queue = self.queue
        return not queue.on_disk and 0 < self._refused_size > queue.max_bytes - self._tally.bytes

    def barrier(self) -> Callable[[], bool]:
        """Return what tells whether the backend is done with all that was submitted until now."""
        targets = [(lane, lane.last_seq) for lane in self._lanes.values()]

        def is_past() -> bool:
            while targets:
                lane, last_seq = targets[-1]
                if self._lanes.get(lane.destination) is lane and lane.passed() < last_seq:
                    return False
                targets.pop()
            return True

        return is_past

    def is_on_disk(self) -> bool:
        """Tell whether something waits that is not in memory."""
        return any(lane.behind for lane in self._lanes.values())

    def is_behind(self) -> bool:
        """Tell whether something waits that is not just the next request."""
        return any(lane.behind or lane.not_ready for lane in self._lanes.values())

    # -- another configuration

    def _look_again(self) -> None:
        self._retry_at, self._troubles = 0.0, 0
        for lane in self._lanes.values():
            lane.not_ready, lane.refusals = None, 0
        super()._look_again()

    # -- the end

    def _is_settled(self) -> bool:
        """Tell whether nothing is left that a stop should wait for: the journal can wait, memory cannot."""
        if self.queue.on_disk:
            return not (self._in_flight or self._live)
        return super()._is_settled()

    def close(self) -> None:
        """Take no more writes, and tell who waits; what is on disk stays there."""
        self._count_unsaved([entry for lane in self._lanes.values() for entry in lane.waiting])
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        later = [entry for lane in self._lanes.values() for entry in lane.later.values()]
        for lane in self._lanes.values():
            lane.behind = False
        super().close()
        self._fail(later, BackendFailure("stopped", "the relay is shutting down"))
