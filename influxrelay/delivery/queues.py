"""The queues of one sender."""

from __future__ import annotations

from collections.abc import Iterator

from influxrelay.core.write import Destination
from influxrelay.delivery.destination_queue import DestinationQueue, Memory


class Queues:
    """The queues that have work, by destination.

    :param keep: whether what waits in them is kept until it is delivered.
    :ivar memory: what they hold together.
    """

    def __init__(self, *, keep: bool) -> None:
        self.memory = Memory()
        self._keep = keep
        self._queues: dict[Destination, DestinationQueue] = {}

    def __len__(self) -> int:
        return len(self._queues)

    def __iter__(self) -> Iterator[DestinationQueue]:
        """Go through all that there are now, whatever comes and goes meanwhile."""
        return iter(list(self._queues.values()))

    def get(self, destination: Destination) -> DestinationQueue | None:
        """Return the queue for a destination, if it has work."""
        return self._queues.get(destination)

    def open(self, destination: Destination) -> DestinationQueue:
        """Return the queue for a destination, a new one if there is none."""
        queue = self._queues.get(destination)
        if queue is None:
            queue = self._queues[destination] = DestinationQueue(destination, self.memory, keeps=self._keep)
        return queue

    def has(self, queue: DestinationQueue) -> bool:
        """Tell whether a queue is one of these."""
        return self._queues.get(queue.destination) is queue

    def forget(self, queue: DestinationQueue) -> None:
        """Forget a queue without work."""
        del self._queues[queue.destination]
        queue.close()

    def longest_waiting(self) -> DestinationQueue | None:
        """Return the queue whose first write has waited longest, of those that do not wait for their database."""
        waiting = (queue for queue in self._queues.values() if queue.waiting and not queue.is_held)
        return min(waiting, key=DestinationQueue.first_waiting, default=None)

    def has_waiting(self) -> bool:
        """Tell whether something waits that may be sent."""
        return any(queue.waiting and not queue.is_held for queue in self._queues.values())

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
        return {queue.destination.database for queue in self._queues.values() if queue.missing is not None}

    def are_on_disk(self) -> bool:
        """Tell whether something waits that is not in memory."""
        return any(queue.is_behind for queue in self._queues.values())

    def are_behind(self) -> bool:
        """Tell whether something waits that is not just the next request."""
        return any(queue.is_behind or queue.is_held for queue in self._queues.values())
