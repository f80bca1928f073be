"""The queues of one sender."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from influxrelay.core.write import Destination
from influxrelay.delivery.destination_queue import DestinationQueue, Memory
from influxrelay.delivery.fate import State
from influxrelay.delivery.statements import scope_of

SMALL = 64 * 1024  # bytes of a write that large ones do not keep out
LARGE = 1024 * 1024  # bytes of a write that travels alone
_BESIDE = 4  # the part of a limit that small writes may take beside large ones
_LOOKED_AT = 100  # queues


class Queues:
    """The queues that have work, by destination.

    :param keep: whether what waits in them is kept until it is delivered.
    :ivar memory: what they hold together.
    :ivar changes: that of the changes, if it has work.
    """

    def __init__(self, *, keep: bool) -> None:
        self.memory = Memory()
        self.changes: DestinationQueue | None = None
        self._keep = keep
        self._queues: dict[Destination, DestinationQueue] = {}
        self._last: DestinationQueue | None = None  # that was asked for: many writes in a row have one destination

    def __len__(self) -> int:
        return len(self._queues)

    def __iter__(self) -> Iterator[DestinationQueue]:
        """Go through all that there are now, whatever comes and goes meanwhile."""
        return iter(list(self._queues.values()))

    def get(self, destination: Destination) -> DestinationQueue | None:
        """Return the queue for a destination, if it has work."""
        last = self._last
        if last is None or last.destination is not destination:
            last = self._last = self._queues.get(destination)
        return last

    def open(self, destination: Destination) -> DestinationQueue:
        """Return the queue for a destination, a new one if there is none."""
        queue = self._queues.get(destination)
        if queue is None:
            queue = self._queues[destination] = DestinationQueue(destination, self.memory, keeps=self._keep)
            if queue.is_changes:
                self.changes = queue
        return queue

    def has(self, queue: DestinationQueue) -> bool:
        """Tell whether a queue is one of these."""
        return self._queues.get(queue.destination) is queue

    def forget(self, queue: DestinationQueue) -> None:
        """Forget a queue without work."""
        del self._queues[queue.destination]
        self._last = None
        if queue is self.changes:
            self.changes = None
        queue.close()

    def has_room(self, size: int, limit: int) -> bool:
        """Tell whether a write may join those here without more than a limit of bytes in memory.

        One large write may take all of it. Small ones go on meanwhile: they have a part of the limit for themselves.
        """
        taken = self.memory.size + size
        if taken <= limit or size > SMALL:
            return taken <= limit
        return taken - self._large() <= limit // _BESIDE

    def has_room_for_one(self, size: int, limit: int) -> bool:
        """Tell whether a write may join those here as the only large one, of any size."""
        return size > LARGE and self.memory.size <= limit // _BESIDE and not self._large()

    def _large(self) -> int:
        """Return the bytes that large writes take, as far as they are easily found: there may be many small ones."""
        some = islice(self._queues.values(), _LOOKED_AT)
        requests = (entries for queue in some for entries in (*queue.in_flight, islice(queue.waiting, _LOOKED_AT)))
        return sum(entry.size for entries in requests for entry in entries if entry.size > LARGE)

    def sendable(self, may_send: Callable[[DestinationQueue], bool]) -> list[DestinationQueue]:
        """Return the queues in which something waits that may be sent: for no database, and behind nothing."""
        waiting = [queue for queue in self._queues.values() if queue.waiting and not queue.is_held]
        return waiting if self.changes is None else [queue for queue in waiting if may_send(queue)]

    # -- for who watches

    def waiting(self) -> tuple[int, int]:
        """Return how many writes wait in memory, and the bytes of their bodies."""
        writes = [entry.write for queue in self._queues.values() for entry in queue.waiting]
        return len(writes), sum(len(write.body) for write in writes)

    def outstanding(self) -> tuple[int, int, float | None]:
        """Return how many writes are under way or wait in memory, their bytes, and when the oldest was accepted."""
        entries = [entry for queue in self._queues.values() for entry in queue.entries()]
        times = (entry.fate.time for entry in entries if entry.fate.number)
        return len(entries), sum(len(entry.write.body) for entry in entries), min(times, default=None)

    def oldest(self) -> float | None:
        """Return when the oldest write that waits in memory was accepted, in seconds since the epoch."""
        heads = (queue.waiting[0].fate for queue in self._queues.values() if queue.waiting)
        return min((fate.time for fate in heads if fate.number), default=None)

    def missing_databases(self) -> set[bytes]:
        """Return the databases that the backend says it does not have."""
        missing = [queue for queue in self._queues.values() if queue.missing is not None]
        names = {queue.destination.database for queue in missing if not queue.is_changes}
        for queue in missing:
            if queue.is_changes and queue.waiting:
                names |= scope_of(queue.waiting[0].write.query).databases
        return names

    def are_on_disk(self) -> bool:
        """Tell whether something waits that is not in memory."""
        return any(queue.is_behind for queue in self._queues.values())

    def are_behind(self) -> bool:
        """Tell whether something waits that is not just the next request; or a change that another backend has."""
        return self.have_a_backlog() or self.have_a_change()

    def have_a_backlog(self) -> bool:
        """Tell whether something waits that is not just the next request."""
        return any(queue.is_behind or queue.is_held for queue in self._queues.values())

    def have_a_change(self) -> bool:
        """Tell whether a change is under way of which a client was told that it is executed, or will be."""
        changes = self.changes.entries() if self.changes is not None else ()
        return any(entry.fate.state is State.KEPT for entry in changes)
