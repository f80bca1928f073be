"""A sender that forgets nothing: what its backend misses stays in a backlog, in memory or in the journal."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure, JournalError
from influxrelay.core.slices import make_cooperator
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.backlog import Backlog, Fate, State
from influxrelay.delivery.destination_queue import DestinationQueue, Entry, Tally
from influxrelay.delivery.responses import excerpt, is_not_ready
from influxrelay.delivery.sender import Sender
from influxrelay.journal.records import Drop, Record
from influxrelay.lineprotocol.filters import Filter, divide, divide_slowly
from influxrelay.lineprotocol.gzip_body import decoded_body, reduced
from influxrelay.lineprotocol.scanner import Steps

FIRST_DELAY = 0.5  # seconds until the first retry for which no client waits; it doubles up to the maximum
PAGE = 256 * 1024  # bytes that are read from the journal at once: a client may wait for the commit behind it ...
PAGE_GAP = 0.003  # ... and seconds between two pages, so that a backlog does not take all of the machine: 85 MB/s
REREAD = 1.0  # seconds until a page that could not be read is tried again

_Page = tuple[list[Record], int]  # writes, and up to which number they are all


class BufferedQueue(DestinationQueue):
    """A queue that stays in order when several requests are under way and come back.

    :param live: the sender's entries whose clients wait for them.
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
    return entry.fate.seq if entry.fate is not None else 0


class BufferedSender(Sender):
    """A sender in which a write stays in its place until the backend has it or has refused it, or nobody needs it.

    Only its client is told when a request fails, and all clients that wait at that time: what is kept is not lost, so
    they need not wait for it. While clients wait, a backend in trouble is probed as by any sender, else with pauses
    that grow from :data:`FIRST_DELAY` to ``max_delay``. A probe carries one write.

    :param max_delay: seconds, the longest pause between two retries.
    :param create_databases: whether a database that a queued write misses is created.
    """

    def __init__(
        self, *args: Any, backlog: Backlog, max_delay: float = 10.0, create_databases: bool = False, **named: Any
    ) -> None:
        super().__init__(*args, **named)
        self.backlog = backlog
        self.paused = False
        self.max_delay = max_delay
        self.create_databases = create_databases
        self._live: dict[Entry, None] = {}  # those who wait on a queue and whose clients wait for them, oldest first
        self._cooperator = make_cooperator(self._reactor)
        self._pages = 0  # that are being read
        self._next_page = 0.0
        self._timers: list[IDelayedCall] = []
        self._troubles = 0
        self._retry_at = 0.0
        self._not_ours = range(0)

    def _new_queue(self, destination: Destination) -> DestinationQueue:
        queue = self._queues[destination] = BufferedQueue(destination, self._tally, self._live)
        return queue

    # -- for each write

    def submit(self, write: Write, fate: Fate | None = None) -> Deferred[Reply]:
        """Take a write, and keep it if it has a fate."""
        return self._submit(Entry(write, self._reactor.seconds() + self.backend.timeout, fate))

    def _may_send_at_once(self, queue: DestinationQueue | None) -> bool:
        return not self.paused and (queue is None or not queue.behind) and super()._may_send_at_once(queue)

    def _has_room(self, queue: DestinationQueue) -> bool:
        return not self.paused and queue.not_ready is None and super()._has_room(queue)

    def _obstacle(self, entry: Entry) -> BackendFailure | None:
        fate = entry.fate
        if fate is None or self._closed is not None:
            return super()._obstacle(entry)
        return None if self.backlog.on_disk else self._make_room(fate, entry.write)

    def _make_room(self, fate: Fate, write: Write) -> BackendFailure | None:
        """Keep the queue in memory within its bounds, one way or the other."""
        backlog, size = self.backlog, len(write.body)
        while backlog.drop_oldest and size <= backlog.max_bytes < self._tally.bytes + size:
            queue = min(
                (each for each in self._queues.values() if each.waiting), key=lambda each: _seq(each.waiting[0])
            )
            self._lose(queue.drop_first(), "full")
            self._tidy(queue)
        self._refused_size = 0
        if self._tally.bytes + size <= backlog.max_bytes:
            return None
        self._refused_size = size
        fate.when_kept(lambda: backlog.lost(fate, write, "full"))
        problem = BackendFailure("full", f"the queue has {self._tally.bytes} bytes already")
        self._failure_log.failed(problem.reason, problem.detail)
        return problem

    def _lose(self, entry: Entry, reason: str) -> None:
        """Count a write that the backend will not get, if it turns out that it should have."""
        self._count_lost(entry, reason)
        self._fail([entry], BackendFailure(reason, "dropped from the queue"))

    def _count_lost(self, entry: Entry, reason: str) -> None:
        backlog, fate = self.backlog, entry.fate
        if fate is not None:
            fate.when_kept(lambda: backlog.lost(fate, entry.write, reason))

    def _let_wait(self, queue: DestinationQueue, entry: Entry) -> None:
        """Let a write wait in memory, or know that it waits on disk."""
        fate = entry.fate
        queue = self._queues.setdefault(
            queue.destination, queue
        )  # what was dropped for this one may have been its last
        if fate is None:
            queue.add(entry)
            return
        self._live[entry] = None
        too_much = self._tally.bytes + len(entry.write.body) > self._max_waiting
        if self.backlog.on_disk and (queue.behind or too_much):
            if not queue.behind:
                queue.behind = True
                queue.loaded = queue.last_seq or fate.seq - 1
            queue.later[fate.seq] = entry
            fate.absent.append(self)
        else:
            queue.add(entry)
        queue.last_seq = fate.seq
        if queue.not_ready is not None and (queue.refusals > 1 or not self.create_databases):
            problem = BackendFailure("not ready", f"answered {excerpt(queue.not_ready)}", queue.not_ready)
            self._fail([entry], problem)  # it waits with the others, its client need not

    def part_of(self, write: Write) -> Write | None:
        """Return what the filter leaves of a write; None if that is nothing."""
        if self.filter is None:
            return write
        lines = decoded_body(write)
        (part,), _ = divide(lines, [self.filter])
        return reduced(write, lines, part)

    def skip(self, fate: Fate) -> None:
        """Note that the filter leaves nothing of a write: its place counts as done once those before it are."""
        destination = fate.write.destination
        queue = self._queues.get(destination) or self._new_queue(destination)
        queue.last_seq = fate.seq
        self._tidy(queue)

    def not_on_disk(self, fate: Fate) -> None:
        """Note that the journal did not take a write that is not in memory either."""
        queue = self._queues.get(fate.write.destination)
        entry = queue.later.pop(fate.seq, None) if queue is not None else None
        self._lose(entry or Entry(self.part_of(fate.write) or fate.write, 0.0, fate), "full")
        self._tell_drained()

    def let_go(self, fate: Fate, queue: DestinationQueue) -> None:
        """Note that it is decided what becomes of a refused write."""
        queue.held.discard(fate.seq)
        self._tidy(queue)

    def settled(self, fate: Fate) -> None:
        """Note that the client of a write that is only on disk waits no more, whatever the backend says."""
        queue = self._queues.get(fate.write.destination)
        entry = queue.later.get(fate.seq) if queue is not None else None
        if queue is not None and entry is not None:
            self._live.pop(entry, None)
            if fate.state is not State.STRUCK or not queue.filling:  # else the page under way may hold it still
                del queue.later[fate.seq]

    def _release(self, entry: Entry) -> Deferred[Reply] | None:
        self._live.pop(entry, None)
        return super()._release(entry)

    # -- for each request

    def _send(self, queue: DestinationQueue, entries: list[Entry]) -> None:
        for entry in entries:
            self._live.pop(entry, None)
        super()._send(queue, entries)

    def _unmerge(self, queue: DestinationQueue, entries: list[Entry]) -> None:
        if self._closed is not None:
            self._give_back(queue, entries)
        self._live.update((entry, None) for entry in entries if entry.fate is not None and entry.answer is not None)
        super()._unmerge(queue, entries)

    def _answered(self, reply: Reply, queue: DestinationQueue, entries: list[Entry]) -> None:
        if is_not_ready(reply):
            self._not_ready(reply, queue, entries)
        else:
            super()._answered(reply, queue, entries)

    def _refused(self, reply: Reply, queue: DestinationQueue, entries: list[Entry], *, at_once: bool) -> None:
        fate, write, backlog = entries[0].fate, entries[0].write, self.backlog
        if fate is not None:
            fate.when_kept(lambda: backlog.bury(fate, write, reply))
            if fate.state is State.PENDING and backlog.on_disk:  # the cursor must not pass it before it is buried
                queue.held.add(fate.seq)
                fate.holders.append((self, queue))
        super()._refused(reply, queue, entries, at_once=at_once)

    def _landed(self, queue: DestinationQueue, entries: list[Entry]) -> None:
        queue.not_ready, queue.refusals, self._troubles = None, 0, 0
        super()._landed(queue, entries)

    def _give_back(self, queue: DestinationQueue, entries: list[Entry]) -> list[Entry]:
        """Let what is kept of a request wait again, or count it where it is too late for that; return what waits."""
        kept = [entry for entry in entries if entry.fate is not None and not self._is_forgotten(queue, entry)]
        if self._closed is not None:
            self._count_unsaved(kept)
            return []
        queue.put_back(kept, alone=False)
        return kept

    def _is_forgotten(self, queue: DestinationQueue, entry: Entry) -> bool:
        return entry.fate is not None and entry.fate.on_disk and entry.fate.seq <= queue.forgotten

    def _count_unsaved(self, entries: Iterable[Entry]) -> None:
        """Count what is only in memory, at the end."""
        for entry in entries:
            if not self.backlog.on_disk:
                self._count_lost(entry, "stopped")
            elif entry.fate is not None and not entry.fate.on_disk:
                self._count_lost(entry, "full")

    def forget(self, destination: Destination, upto: int) -> None:
        """Give up what the journal has dropped up to this number, and has counted."""
        queue = self._queues.get(destination)
        if queue is None:
            return
        queue.forgotten = max(queue.forgotten, upto)
        problem = BackendFailure("full", "dropped from the journal")
        only_here = []
        while queue.waiting and _seq(queue.waiting[0]) <= queue.forgotten:
            entry = queue.drop_first()
            if self._is_forgotten(queue, entry):
                self._fail([entry], problem)
            else:
                only_here.append(entry)
        queue.put_back(only_here, alone=False)
        self._fail([queue.later.pop(seq) for seq in list(queue.later) if seq <= upto], problem)
        if queue.behind:
            queue.loaded = max(queue.loaded, upto)
            queue.behind = queue.loaded < queue.last_seq
        self._tidy(queue)

    def _broke(self, problem: BackendFailure, queue: DestinationQueue, entries: list[Entry], pause: float) -> None:
        self._give_back(queue, entries)
        super()._broke(problem, queue, entries, pause)

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

    def _send_probe(self, queue: DestinationQueue) -> None:
        self._send(queue, queue.take(0))  # one write is enough to see how the backend is

    def _longest_waiting(self) -> DestinationQueue | None:
        for queue in list(self._queues.values()):
            queue.skip_struck()
            self._tidy(queue)
        if self.paused:
            return None
        waiting = (queue for queue in self._queues.values() if queue.waiting and queue.not_ready is None)
        return min(waiting, key=lambda queue: queue.waiting[0].deadline, default=None)

    def _send_waiting(self, queue: DestinationQueue) -> None:
        queue.skip_struck()
        super()._send_waiting(queue)

    def _collect_expired(self, now: float) -> list[Entry]:
        return [*(entry for entry in self._live if entry.deadline <= now), *super()._collect_expired(now)]

    def _next_deadline(self) -> float:
        unkept = (
            queue.waiting[0] for queue in self._queues.values() if queue.waiting and queue.waiting[0].fate is None
        )
        return min((entry.deadline for entry in (*self._live, *unkept)), default=math.inf)

    # -- a database that is not there (yet)

    def _not_ready(self, reply: Reply, queue: DestinationQueue, entries: list[Entry]) -> None:
        """Let what is kept wait for its database; the backend is well, and the other queues go on."""
        kept = self._give_back(queue, entries)
        self._take_off(queue, entries)
        queue.not_ready = reply
        queue.refusals += 1
        self._failure_log.failed(str(reply.status), excerpt(reply))
        self._troubles = 0
        self._recover()
        if self.create_databases and queue.refusals == 1 and queue.waiting:
            self._live.update((entry, None) for entry in kept if entry.answer is not None)
            self._fail_expired()
            created = self.backend.create_database(entries[0].write)
            created.addBoth(lambda _: self._try_again(queue))
            for entry in entries:
                if entry not in self._live:
                    self._tell(entry, reply)
            return
        here = [entry for entry in self._live if entry.write.destination == queue.destination]
        for entry in [*entries, *here]:
            self.failures[str(reply.status)] += 1
            self._tell(entry, reply)
        queue.skip_struck()
        if not (queue.waiting or queue.behind):
            queue.not_ready = None
        else:
            delay = min(self.max_delay, FIRST_DELAY * 2 ** min(queue.refusals, 20))
            if queue.retry is not None and queue.retry.active():  # of before a reload
                queue.retry.cancel()
            queue.retry = self._later(self._jittered(delay), lambda: self._try_again(queue))
        self._tidy(queue)

    def _try_again(self, queue: DestinationQueue) -> None:
        queue.not_ready = None
        if self._closed is None:
            self._send_waiting(queue)
            self._probe()

    # -- the backlog on disk

    def resume(self, backlog: Iterable[tuple[Destination, int]], last_seq: int, decided: int | None = None) -> None:
        """Read on from the cursors; once, before the first write.

        :param decided: the number of the last write for this backend, where another may still be struck.
        """
        self._not_ours = range(last_seq + 1 if decided is None else decided + 1, last_seq + 1)
        for destination, passed in backlog:
            queue = self._new_queue(destination)
            queue.behind, queue.loaded, queue.noted, queue.last_seq = True, passed, passed, last_seq
            self._tidy(queue)

    def _tidy(self, queue: DestinationQueue) -> None:
        """Move the cursor, read on, or forget the queue: whatever its state asks for."""
        if self._closed is not None:
            super()._tidy(queue)
            return
        passed = queue.passed()
        if passed > queue.noted:
            queue.noted = passed
            self.backlog.passed(queue.destination, passed)
        wanted = queue.behind and not queue.filling and not self._drained
        room = self._max_waiting - self._tally.bytes - self._pages * PAGE
        ahead = self.trouble is None and queue.bytes < PAGE // 2 and room > 0
        if wanted and (ahead or not queue.waiting):
            pause = self._next_page - self._reactor.seconds()
            if pause > 0:
                queue.filling = True
                self._later(pause, lambda: self._refill(queue))
            else:
                self._read_on(queue, max(1, min(PAGE, room)))
        super()._tidy(queue)

    def _read_on(self, queue: DestinationQueue, size: int) -> None:
        page = self.backlog.page(queue.destination, queue.loaded, size)
        if page is not None:
            self._next_page = self._reactor.seconds() + PAGE_GAP
            queue.filling = True
            self._pages += 1
            parts: dict[int, Write | None] = {}
            if self.filter is not None:
                page.addCallback(self._filter_page, self.filter, queue, parts)
            page.addBoth(self._turned)
            page.addCallbacks(self._filled, self._not_filled, callbackArgs=(queue, parts), errbackArgs=(queue,))
            page.addErrback(self._bug)

    def _refill(self, queue: DestinationQueue) -> None:
        queue.filling = False
        self._tidy(queue)

    def _turned(self, result: Any) -> Any:
        self._pages -= 1
        return result

    def _filter_page(
        self, page: _Page, filter_: Filter, queue: DestinationQueue, parts: dict[int, Write | None]
    ) -> Deferred[_Page]:
        """Find out what is left of its writes, bit by bit: expressions may take long."""
        filtered: Deferred[_Page] = Deferred()

        def filter_slowly() -> Steps[None]:
            for record in page[0]:
                if record.seq not in queue.later:
                    lines = decoded_body(record.write)
                    (part,), _ = yield from divide_slowly(lines, [filter_])
                    parts[record.seq] = reduced(record.write, lines, part)

        def work() -> Iterator[int]:
            steps = filter_slowly()
            try:
                while self._closed is None and next(steps, None) is not None:
                    yield 0
            except Exception:  # noqa: BLE001 (whoever waits for the page is told)
                filtered.errback()
                return
            filtered.callback(page)

        self._cooperator.coiterate(work())
        return filtered

    def _filled(self, page: _Page, queue: DestinationQueue, parts: dict[int, Write | None]) -> None:
        """Take the next page of the backlog into memory.

        :param parts: what the filter has left of its writes, by their numbers.
        """
        queue.filling = False
        if self._closed is not None or not queue.behind:
            return
        records, upto = page
        for record in records:
            if record.seq <= queue.loaded or record.seq in self._not_ours:
                continue  # the operator has dropped it while the page was read; or it was not written for this backend
            entry = queue.later.pop(record.seq, None)
            if entry is None:
                write = parts[record.seq] if record.seq in parts else self.part_of(record.write)
                if write is None:
                    continue
                fate = Fate(record.seq, record.time, record.write, State.KEPT)
                entry = Entry(write, math.inf, fate)
            queue.add(entry)
        queue.loaded = max(queue.loaded, upto)
        gone = [seq for seq in queue.later if seq <= upto]
        self._fail([queue.later.pop(seq) for seq in gone], BackendFailure("struck", "it is no longer in the journal"))
        queue.behind = queue.loaded < queue.last_seq
        self._send_waiting(queue)
        self._probe()
        self._tell_drained()

    def _not_filled(self, failure: Failure, queue: DestinationQueue) -> None:
        """Try again in a while; the journal itself says what its trouble is."""
        if not failure.check(JournalError):
            self._bug(failure)
        self._later(REREAD, lambda: self._refill(queue))

    def _later(self, seconds: float, call: Callable[[], None]) -> IDelayedCall | None:
        """Do something in a while, unless the sender is closed before."""
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
        for queue in list(self._queues.values()):
            self._send_waiting(queue)
        self._probe()

    def give_up(self, upto: float = math.inf) -> None:
        """Forget what waits; what is in flight goes on.

        :param upto: the number of the last write to forget; the journal has counted them.
        """
        problem = BackendFailure("dropped", "the operator has dropped the queue")
        for queue in list(self._queues.values()):
            for entry in queue.clear():
                if _seq(entry) > upto:
                    queue.add(entry)
                    continue
                if not self.backlog.on_disk:
                    self._lose(entry, "operator")
                self._fail([entry], problem)
            gone = [seq for seq in queue.later if seq <= upto]
            self._fail([queue.later.pop(seq) for seq in gone], problem)
            queue.loaded = int(max(queue.loaded, min(upto, queue.last_seq)))
            queue.behind = queue.behind and queue.loaded < queue.last_seq
            self._tidy(queue)

    @property
    def state(self) -> str:
        """One of :data:`influxrelay.delivery.sender.STATES`; what an operator has paused may be in trouble, too."""
        if self.paused:
            return "paused"
        return "behind" if self.problem is None and self.is_behind() else super().state

    def oldest(self) -> float | None:
        """Return when the oldest write that waits in memory was accepted, in seconds since the epoch."""
        first = (next((each.fate for each in queue.waiting if each.fate), None) for queue in self._queues.values())
        return min((fate.time for fate in first if fate is not None), default=None)

    def missing(self) -> set[bytes]:
        """Return the databases that the backend says it does not have."""
        return {queue.destination.database for queue in self._queues.values() if queue.refusals}

    def objection(self) -> str:
        """Tell why a write would not be taken by the backend now; empty if it would, as far as is known."""
        return super().objection() or ("paused by an operator" if self.paused else "")

    def miss(self, write: Write, when: float) -> None:
        """Nothing to note: the fate's end tells what is lost."""

    def miss_change(self, when: float, size: int) -> None:
        """Note that the backend has not executed a statement that another one has."""
        self.backlog.miss_change(when, size)

    def losses(self) -> list[Drop]:
        """Return what the backend will not get, although it was acknowledged."""
        return self.backlog.losses()

    def forget_losses(self) -> None:
        """Count them from zero, but for what is in the journal."""
        self.backlog.drops.clear()

    @property
    def is_full(self) -> bool:
        """Whether there is still no room for the last write for which there was none."""
        backlog = self.backlog
        return not backlog.on_disk and 0 < self._refused_size > backlog.max_bytes - self._tally.bytes

    def barrier(self) -> Callable[[], bool]:
        """Return what tells whether the backend is done with all that was submitted until now."""
        targets = [(queue, queue.last_seq) for queue in self._queues.values()]

        def is_past() -> bool:
            while targets:
                queue, last_seq = targets[-1]
                if self._queues.get(queue.destination) is queue and queue.passed() < last_seq:
                    return False
                targets.pop()
            return True

        return is_past

    def is_on_disk(self) -> bool:
        """Tell whether something waits that is not in memory."""
        return any(queue.behind for queue in self._queues.values())

    def is_behind(self) -> bool:
        """Tell whether something waits that is not just the next request."""
        return any(queue.behind or queue.not_ready for queue in self._queues.values())

    # -- another configuration

    def _look_again(self) -> None:
        self._retry_at, self._troubles = 0.0, 0
        for queue in self._queues.values():
            queue.not_ready, queue.refusals = None, 0
        super()._look_again()

    # -- the end

    def _is_settled(self) -> bool:
        """Tell whether nothing is left that a stop should wait for: the journal can wait, memory cannot."""
        if self.backlog.on_disk:
            return not (self._in_flight or self._live)
        return super()._is_settled()

    def close(self) -> None:
        """Take no more writes, and tell who waits; what is on disk stays there."""
        self._count_unsaved([entry for queue in self._queues.values() for entry in queue.waiting])
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        later = [entry for queue in self._queues.values() for entry in queue.later.values()]
        for queue in self._queues.values():
            queue.behind = False
        super().close()
        self._fail(later, BackendFailure("stopped", "the relay is shutting down"))
