"""The queue in front of one backend for one destination."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.backlog import Fate, State


class Entry:
    """A write on a queue, and who listens for its answer.

    :ivar answer: None once it has fired, or where no client waits.
    :ivar fate: None where the write is not kept for the backend if this fails.
    """

    __slots__ = ("answer", "deadline", "fate", "write")

    def __init__(self, write: Write, deadline: float, fate: Fate | None = None) -> None:
        self.write = write
        self.deadline = deadline
        self.fate = fate
        self.answer: Deferred[Reply] | None = None

    @property
    def struck(self) -> bool:
        """Whether the backend need not get it any more."""
        return self.fate is not None and self.fate.state is State.STRUCK


class Tally:
    """What the queues of a sender hold together.

    :ivar bytes: of the bodies that wait in memory.
    """

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


class DestinationQueue:
    """What waits for one backend in one destination, in order; it lives as long as it has work.

    A queue may be *behind*: then only the head of what waits is in memory, and the rest is read from the journal.

    :ivar bytes: of the bodies that wait in memory.
    :ivar alone: so many at the head were refused as one merged request: each of them goes by itself.
    :ivar last_seq: the number of the last write that was submitted.
    :ivar loaded: behind only: up to this number all is in memory, or passed.
    :ivar later: behind only: those not in memory whose clients still wait, by number.
    :ivar noted: the last number that :meth:`passed` told the queue.
    :ivar forgotten: up to this number the journal has dropped what was on disk, and counted it.
    :ivar held: the numbers of writes that the backend has refused before it was decided whether that matters.
    :ivar not_ready: why a queue waits although its backend is well: it has answered that there is no such database.
    :ivar refusals: how often in a row it has.
    :ivar retry: when it is asked again.
    """

    __slots__ = (
        "alone",
        "behind",
        "bytes",
        "destination",
        "filling",
        "flying",
        "forgotten",
        "held",
        "last_seq",
        "later",
        "loaded",
        "not_ready",
        "noted",
        "refusals",
        "retry",
        "tally",
        "waiting",
    )

    def __init__(self, destination: Destination, tally: Tally) -> None:
        self.destination = destination
        self.tally = tally
        self.waiting: deque[Entry] = deque()
        self.bytes = 0
        self.flying: list[list[Entry]] = []
        self.alone = 0
        self.last_seq = 0
        self.behind = False
        self.filling = False
        self.loaded = 0
        self.later: dict[int, Entry] = {}
        self.noted = 0
        self.forgotten = 0
        self.held: set[int] = set()
        self.not_ready: Reply | None = None
        self.refusals = 0
        self.retry: IDelayedCall | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is to be done."""
        return not (self.waiting or self.flying or self.behind or self.held)

    def entries(self) -> list[Entry]:
        """Return what is under way and what waits in memory."""
        return [entry for entries in (*self.flying, self.waiting) for entry in entries]

    def note(self, entry: Entry) -> None:
        """Remember the number of a write that goes at once."""
        if entry.fate is not None:
            self.last_seq = entry.fate.seq

    def add(self, entry: Entry) -> None:
        """Let a write wait at the end."""
        self.waiting.append(entry)
        self._count(len(entry.write.body))

    def _count(self, size: int) -> None:
        self.bytes += size
        self.tally.bytes += size

    def skip_struck(self) -> None:
        """Remove from the head what no backend needs any more."""
        while self.waiting and self.waiting[0].struck:
            self._pop()

    def _pop(self) -> Entry:
        entry = self.waiting.popleft()
        self._count(-len(entry.write.body))
        if self.alone:
            self.alone -= 1
        return entry

    def take(self, max_bytes: int) -> list[Entry]:
        """Remove from the head what travels as the next request: one write at least; the head is not struck."""
        waiting = self.waiting
        single = self.alone > 0
        first = self._pop()
        taken = [first]
        if single or not first.write.mergeable:
            return taken
        query, size = first.write.query, len(first.write.body) + 1
        while waiting:
            entry = waiting[0]
            write = entry.write
            if entry.struck:
                self._pop()
                continue
            size += len(write.body) + 1
            if (
                size > max_bytes
                or not write.mergeable
                or write.query != query
                or write.gzipped is not first.write.gzipped
            ):
                break
            taken.append(self._pop())
        return taken

    def put_back(self, entries: list[Entry], *, alone: bool) -> None:
        """Return the writes of a request to the head, there to be sent again, merged or one by one."""
        self.waiting.extendleft(reversed(entries))
        self._count(sum(len(entry.write.body) for entry in entries))
        if alone:
            self.alone += len(entries)

    def drop_first(self) -> Entry:
        """Give up the write that has waited longest."""
        return self._pop()

    def expire(self, now: float) -> list[Entry]:
        """Remove what has waited for too long and is not kept."""
        expired = []
        while self.waiting and self.waiting[0].fate is None and self.waiting[0].deadline <= now:
            expired.append(self._pop())
        return expired

    def clear(self) -> list[Entry]:
        """Remove all that waits."""
        return [self._pop() for _ in range(len(self.waiting))]

    def passed(self) -> int:
        """Return the number up to which the backend is done with this destination."""
        unfinished = [*self.held, *(_first_seq(entries) for entries in (*self.flying, self.waiting))]
        first = min((seq for seq in unfinished if seq), default=0)
        if first:
            return first - 1
        return self.loaded if self.behind else self.last_seq


def _first_seq(entries: Iterable[Entry]) -> int:
    return next((entry.fate.seq for entry in entries if entry.fate is not None), 0)


def body_parts(entries: list[Entry]) -> list[bytes]:
    """Return what makes one body of several, in which each ends with exactly one newline of its own or ours."""
    parts = []
    for entry in entries:
        body = entry.write.body
        parts.append(body)
        if not entry.write.gzipped and not body.endswith(b"\n"):
            parts.append(b"\n")
    return parts
