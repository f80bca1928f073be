"""The queue in front of one backend for one destination."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import attrs
from twisted.internet.interfaces import IDelayedCall

from influxrelay.core.write import LINES, REMOTE_WRITE, STATEMENT, Destination, Reply, Write
from influxrelay.delivery.fate import Fate, State
from influxrelay.delivery.responses import comes_too_late
from influxrelay.remotewrite.division import HALVES, QUARTERS, divide
from influxrelay.remotewrite.snappy import pack, unpack

ENTRY_BYTES = 500
"""What a write takes in memory beside its body and its query: entry, fate, write, and places (a test measures)."""

QUEUE_BYTES = 2000
"""What a queue takes in memory beside its entries: itself, its destination, and its cursor (a test measures)."""


class Entry:
    """A write in a sender.

    :ivar write: what the backend is to get, which may be a part of what the client sent.
    :ivar size: bytes that it takes in memory; a query and credentials are in its destination, too.
    :ivar waits: whether the fate has yet to be told an outcome at this backend.
    :ivar is_part: whether it is a part of what the backend has refused, and counted already.
    """

    __slots__ = ("fate", "is_part", "size", "waits", "write")

    def __init__(self, write: Write, fate: Fate) -> None:
        self.write = write
        self.fate = fate
        self.size = ENTRY_BYTES + len(write.body) + 2 * (len(write.query) + len(write.authorization))
        self.waits = True
        self.is_part = False

    def divided(self, reply: Reply) -> list[Entry]:
        """Return what is to be sent of a remote write of 1.0 that was refused so, for which no client waits."""
        if self.write.destination.kind != REMOTE_WRITE or not self.write.mergeable:
            return []
        pieces = QUARTERS if self.is_part else HALVES
        divided = divide(unpack(self.write.body), pieces, from_oldest=comes_too_late(reply))
        parts = [Entry(attrs.evolve(self.write, body=pack(each)), self.fate) for each in divided]
        for part in parts:
            part.waits, part.is_part = False, True
        return parts


class Memory:
    """What the queues of a sender hold together, in flight and waiting.

    :ivar size: bytes that this takes.
    """

    __slots__ = ("size",)

    def __init__(self) -> None:
        self.size = 0


class MissingDatabase:
    """Why a queue waits although its backend is well: it has answered that there is no such database.

    :ivar reply: the last such answer.
    :ivar refusals: how often in a row it has come.
    :ivar holds: whether nothing is sent; else the backend is being asked again.
    :ivar retry: when that will be.
    """

    __slots__ = ("holds", "refusals", "reply", "retry")

    def __init__(self) -> None:
        self.reply = Reply(404)
        self.refusals = 0
        self.holds = False
        self.retry: IDelayedCall | None = None

    def note(self, reply: Reply) -> None:
        """Take such an answer, and hold the queue."""
        self.reply, self.holds = reply, True
        self.refusals += 1

    def forget(self) -> None:
        """Ask no more."""
        if self.retry is not None and self.retry.active():
            self.retry.cancel()


class DestinationQueue:
    """What is in flight to one backend for one destination, and what waits behind it, in order.

    It lives as long as it has work. It may be *behind*: then only the head of what waits is in memory, and its backlog
    has the rest.

    :param keeps: whether what waits is kept until it is delivered: it stays in order, and what no backend needs any
        more is left out.
    :ivar in_flight: the requests under way.
    :ivar size: bytes that the waiting writes take in memory.
    :ivar alone: so many at the head were refused as one merged request: each of them goes by itself.
    :ivar last_number: of the last write that was submitted.
    :ivar is_changes: whether what waits are changes: the next one is sent when :class:`ChangeOrder` lets it.
    :ivar missing: set from when the backend says that it lacks the database until it takes a write.
    """

    __slots__ = (
        "_keeps",
        "_memory",
        "alone",
        "destination",
        "in_flight",
        "is_behind",
        "is_changes",
        "last_number",
        "missing",
        "size",
        "waiting",
    )

    def __init__(self, destination: Destination, memory: Memory, *, keeps: bool) -> None:
        self.destination = destination
        self.waiting: deque[Entry] = deque()
        self.in_flight: list[list[Entry]] = []
        self.size = 0
        self.alone = 0
        self.last_number = 0
        self.is_behind = False
        self.is_changes = destination.kind == STATEMENT
        self.missing: MissingDatabase | None = None
        self._memory = memory
        self._keeps = keeps
        memory.size += QUEUE_BYTES

    @property
    def is_idle(self) -> bool:
        """Whether it has no work."""
        return not (self.waiting or self.in_flight or self.is_behind)

    def is_through(self, number: int) -> bool:
        """Tell whether nothing up to this number is in flight or waits in memory."""
        return not self.in_flight and not (self.waiting and self.waiting[0].fate.number <= number)

    @property
    def is_held(self) -> bool:
        """Whether it waits for its database."""
        return self.missing is not None and self.missing.holds

    def entries(self) -> list[Entry]:
        """Return what is in flight and what waits in memory."""
        return [entry for entries in (*self.in_flight, self.waiting) for entry in entries]

    def first_waiting(self) -> int:
        """Return the number of the write that has waited longest; there is one."""
        return self.waiting[0].fate.number

    def first_number(self) -> int:
        """Return the lowest number of what is in flight or waits in memory; 0 if nothing of that has a number."""
        firsts = [
            next((entry.fate.number for entry in entries if entry.fate.number), 0)
            for entries in (*self.in_flight, self.waiting)
        ]
        return min(filter(None, firsts), default=0)

    def close(self) -> None:
        """Give back what an idle queue takes."""
        self._memory.size -= QUEUE_BYTES

    # -- what waits

    def add(self, entry: Entry) -> None:
        """Let a write wait at the end."""
        self.waiting.append(entry)
        self.size += entry.size
        self._memory.size += entry.size

    def count_beside(self, size: int) -> None:
        """Count what takes memory beside what waits here, or no longer does."""
        self._memory.size += size

    def skip_struck(self) -> list[Entry]:
        """Remove from the head what no backend needs any more, and return it."""
        struck = []
        while self._keeps and self.waiting and self.waiting[0].fate.state is State.STRUCK:
            struck.append(self.pop())
        return struck

    def pop(self) -> Entry:
        """Remove the write that has waited longest."""
        entry = self.waiting.popleft()
        self.size -= entry.size
        self._memory.size -= entry.size
        if self.alone:
            self.alone -= 1
        return entry

    def pop_last(self) -> Entry:
        """Remove the newest write."""
        entry = self.waiting.pop()
        self.size -= entry.size
        self._memory.size -= entry.size
        self.alone = min(self.alone, len(self.waiting))
        return entry

    def remove(self, entry: Entry) -> None:
        """Remove a write; it is at the head but in rare cases."""
        if self.waiting[0] is entry:
            self.pop()
            return
        if self.alone > self.waiting.index(entry):
            self.alone -= 1
        self.waiting.remove(entry)
        self.size -= entry.size
        self._memory.size -= entry.size

    def clear(self) -> list[Entry]:
        """Remove all that waits."""
        return [self.pop() for _ in range(len(self.waiting))]

    # -- requests

    def bytes_before(self, number: float, max_bytes: int) -> int:
        """Return the bytes of a request with what waits at the head and has lower numbers; 0 if nothing has."""
        size = 0
        for entry in self.waiting:
            if entry.fate.number >= number or size >= max_bytes:
                break
            if not (self._keeps and entry.fate.state is State.STRUCK):
                size += len(entry.write.body) + 1
        return min(size, max_bytes)

    def take(self, max_bytes: int) -> tuple[list[Entry], list[Entry]]:
        """Move the next request from the head to what is in flight: one write at least; the head is not struck.

        :param max_bytes: of a merged request.
        :return: the request, and what was left out because it is struck.
        """
        waiting = self.waiting
        first = waiting.popleft()
        taken, struck, size = [first], [], first.size
        self.in_flight.append(taken)
        if self.alone:
            self.alone -= 1
        elif first.write.mergeable:
            query, gzipped = first.write.query, first.write.gzipped
            length = len(first.write.body) + 1
            while waiting:
                entry = waiting[0]
                write = entry.write
                if self._keeps and entry.fate.state is State.STRUCK:
                    struck.append(self.pop())
                    continue
                length += len(write.body) + 1
                if (
                    length > max_bytes
                    or not write.mergeable
                    or write.gzipped is not gzipped
                    or (write.query is not query and write.query != query)
                ):
                    break
                taken.append(waiting.popleft())
                size += entry.size
        self.size -= size
        return taken, struck

    def send(self, entry: Entry) -> list[Entry]:
        """Put a write that never waited among what is in flight."""
        taken = [entry]
        self.in_flight.append(taken)
        self._memory.size += entry.size
        return taken

    def land(self, entries: list[Entry]) -> None:
        """Take a request off what is in flight; what it holds is to be put back or forgotten."""
        self.in_flight.remove(entries)
        size = 0
        for entry in entries:
            size += entry.size
        self._memory.size -= size

    def put_back(self, entries: Sequence[Entry], *, alone: bool) -> None:
        """Let the writes of a request that has landed wait again where they were, to be sent one by one or merged."""
        older = self.waiting[0] if self.waiting else None
        self.waiting.extendleft(reversed(entries))
        size = sum(entry.size for entry in entries)
        self.size += size
        self._memory.size += size
        if alone:
            self.alone += len(entries)
        if self._keeps and older is not None and entries and older.fate.number < entries[-1].fate.number:
            self.waiting = deque(
                sorted(self.waiting, key=_number)
            )  # several were in flight, and the newer failed first


def _number(entry: Entry) -> int:
    return entry.fate.number


def body_parts(entries: Iterable[Entry]) -> list[bytes]:
    """Return what makes one body of several, in which each ends with exactly one newline of its own or ours."""
    parts = []
    for entry in entries:
        write = entry.write
        parts.append(write.body)
        if not write.gzipped and write.destination.kind == LINES and not write.body.endswith(b"\n"):
            parts.append(b"\n")
    return parts
