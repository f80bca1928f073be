"""What becomes of the writes that a backend does not take: nothing keeps them, or memory does."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from heapq import heapify, heappop, heapreplace
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred, succeed

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.clients import Clients
from influxrelay.delivery.destination_queue import DestinationQueue, Entry
from influxrelay.delivery.fate import Fate, State
from influxrelay.delivery.losses import Losses
from influxrelay.delivery.queues import Queues
from influxrelay.delivery.settings import SenderSettings
from influxrelay.delivery.timers import Drain, Timers
from influxrelay.journal.interface import Positions
from influxrelay.journal.records import DeadLetter, Drop

MAX_DEAD_LETTERS = 1000  # in memory, for each backend
MAX_DEAD_LETTER_BYTES = 16 * 1024 * 1024
MANY_QUEUES = 100


class Host(Protocol):
    """The sender, as its backlog sees it.

    :ivar queues: those that have work, and the memory that they hold together.
    :ivar flows: whether requests may be sent: there is no trouble, no pause and no end.
    :ivar drain: who waits for the end: no more should be read than is needed.
    """

    queues: Queues
    clients: Clients
    timers: Timers
    drain: Drain
    flows: bool

    @property
    def name(self) -> str:
        """The backend's."""

    @property
    def is_closed(self) -> bool:
        """Whether nothing is sent any more."""

    def go_on(self, queue: DestinationQueue) -> None:
        """Send what has come into a queue."""

    def tidy(self, queue: DestinationQueue) -> None:
        """Do whatever the state of a queue asks for, and forget it if it has no work."""

    def resumed(self, queue: DestinationQueue) -> None:
        """Send what another process has left in a queue."""

    def lost(self, entry: Entry) -> None:
        """Learn that the backend will not get this."""


class Backlog:
    """Keeps nothing: a write that fails is lost for its backend, and counted if a client was told that it is taken.

    This is also the interface, complete: a sender asks nothing else of its backlog, whatever that is.

    :cvar kind: ``none``, ``memory`` or ``journal``.
    :cvar keeps: whether a write stays in its place until its backend has taken it or has refused it for good.
    :cvar outlives: whether what is kept outlives the process.
    :ivar limit: bytes that the sender's writes may take in memory; where nothing is kept, one write may take more.
    """

    kind = "none"
    keeps = False
    outlives = False
    _host: Host

    def __init__(self) -> None:
        self.limit = 0
        self._refused_size = 0  # of the last write for which there was no room
        self._losses = Losses()

    def attach(self, host: Host) -> None:
        """Belong to a sender from now on."""
        self._host = host

    def reconfigure(self, settings: SenderSettings) -> None:
        """Let other settings hold from the next write on."""
        self.limit = settings.max_waiting

    # -- for each write

    def place(self, queue: DestinationQueue, entry: Entry) -> BackendFailure | None:
        """Let a write wait that cannot be sent at once; return why it cannot, if it cannot."""
        if self._fits(entry):
            queue.add(entry)
            return None
        self.lost(entry, "full")
        return BackendFailure("overflow", f"{self._host.queues.memory.size} bytes are waiting for it already")

    def _fits(self, entry: Entry) -> bool:
        queues = self._host.queues
        fits = queues.has_room(entry.size, self.limit) or (
            not self.keeps and queues.has_room_for_one(entry.size, self.limit)
        )
        self._refused_size = 0 if fits else entry.size
        return fits

    @property
    def is_full(self) -> bool:
        """Whether there is still no room for the last write for which there was none."""
        return self._refused_size > 0 and not self._host.queues.has_room(self._refused_size, self.limit)

    def skip(self, destination: Destination, number: int) -> None:
        """Note that the backend gets nothing of a write: it has passed that once it has passed those before it."""

    def lost(self, entry: Entry, reason: str) -> None:  # noqa: ARG002 (there is one reason)
        """Count a write that the backend will not get, if it turns out that it should have."""
        self._count_once_kept(entry, "unqueued")

    def _count_once_kept(self, entry: Entry, reason: str) -> None:
        self._host.lost(entry)
        if entry.fate.state is State.KEPT:
            self._losses.count(reason, entry.fate.time, len(entry.write.body))
        elif entry.fate.state is State.UNDECIDED:
            entry.fate.when_decided(partial(self._count, len(entry.write.body), reason))

    def _count(self, size: int, reason: str, fate: Fate) -> None:
        if fate.state is State.KEPT:
            self._losses.count(reason, fate.time, size)

    def missed(self, write: Write, when: float) -> None:
        """Count a write, accepted at this time, that the backend has not taken and others may have."""
        self._losses.count("unqueued", when, len(write.body))

    def refused(self, queue: DestinationQueue, entry: Entry, reply: Reply) -> None:
        """Take a write that the backend has refused for good, if it turns out that it should have taken it."""

    def stopped(self, entry: Entry) -> None:
        """Give up what is in memory of a sender that is closed."""
        self.lost(entry, "stopped")

    # -- for each queue

    def passed(self, queue: DestinationQueue) -> int:
        """Return the number up to which the backend is done with a destination."""
        first = queue.first_number()
        return first - 1 if first else queue.last_number

    def tidy(self, queue: DestinationQueue) -> None:
        """Do what the state of a queue asks for, after each change."""

    def has_done(self, queue: DestinationQueue) -> bool:  # noqa: ARG002 (a journal's)
        """Tell whether a queue without work may be forgotten."""
        return True

    def trim(self, queue: DestinationQueue) -> None:
        """Keep no more of a queue in memory than need be: it cannot send."""

    def is_dropped(self, queue: DestinationQueue, entry: Entry) -> bool:  # noqa: ARG002 (a journal's)
        """Tell whether an entry of a request that has failed is to be forgotten, and has been counted."""
        return False

    def give_up(self, queue: DestinationQueue, entries: list[Entry], upto: float) -> None:
        """Forget what waits up to this number; the operator wants that.

        :param entries: what was in memory of it.
        """

    def close(self) -> list[Entry]:
        """Take no more; return the entries that are not in memory, and whose clients wait."""
        return []

    # -- for the order of changes

    def known_upto(self, queue: DestinationQueue) -> float:  # noqa: ARG002 (a journal's)
        """Return up to which number it is known what waits in a queue."""
        return math.inf

    def is_journaled(self, entry: Entry) -> bool:  # noqa: ARG002 (a journal's)
        """Tell whether an entry is kept as well as it will be."""
        return True

    def is_through(self, queue: DestinationQueue, number: int) -> bool:
        """Tell whether nothing of a queue up to this number will be sent any more, as far as this process knows."""
        return queue.is_through(number)

    def keep_positions(self) -> Deferred[None]:
        """Fire when it is kept what the backend has passed, so that it is not sent again."""
        return succeed(None)

    # -- a journal's

    def resume(self, positions: Positions, last_number: int, decided: int) -> None:
        """Read on from where the backend was, before its first write, or its first one since :meth:`stand_down`.

        :param decided: the number of the last write for this backend, where another may still be struck.
        """

    def restore_by(self, restore: Callable[[int, float], Fate]) -> None:
        """Let this return the fate of a write that is read again, by its number and the time of its acceptance."""

    def leave(self, destination: Destination, number: int) -> None:
        """Let a write wait of which only the journal has what the backend is to get."""

    def stand_down(self) -> None:
        """Know of nothing that waits: another process goes on with it."""

    def forget(self, destination: Destination, upto: int) -> None:
        """Give up what the journal has dropped up to this number, and has counted."""

    # -- for the operator

    def losses(self) -> list[Drop]:
        """Return what was lost."""
        return self._losses.drops(self._host.name)

    def losses_beside(self) -> list[Drop]:
        """Return what was lost of writes that a journal could not take, where others relay these."""
        return []

    def relay_beside(self, backlog: Backlog) -> None:
        """Count what this one loses, too: it has writes that the journal could not take."""

    def forget_losses(self) -> None:
        """Count them from zero; those in a journal are the journal's to forget."""
        self._losses.clear()

    def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters in memory."""
        return []

    def drop_dead_letter(self, number: int) -> None:
        """Remove a dead letter in memory."""


class MemoryBacklog(Backlog):
    """A backlog that lives and dies with the process (``buffer-size-mb``)."""

    kind = "memory"
    keeps = True

    def __init__(self) -> None:
        super().__init__()
        self._drop_oldest = False
        self._letters: deque[DeadLetter] = deque()
        self._letter_bytes = 0

    def reconfigure(self, settings: SenderSettings) -> None:
        """Let other settings hold from the next write on."""
        self.limit = settings.buffer
        self._drop_oldest = settings.drop_oldest

    def place(self, queue: DestinationQueue, entry: Entry) -> BackendFailure | None:
        """Let a write wait, if need be instead of older ones."""
        wanted = self.limit - entry.size
        if self._drop_oldest and wanted >= 0 and not self._host.queues.has_room(entry.size, self.limit):
            self._make_room(wanted, queue)
        if self._fits(entry):
            queue.add(entry)
            return None
        self.lost(entry, "full")
        return BackendFailure("full", f"the buffer has {self._host.queues.memory.size} bytes already")

    def _make_room(self, wanted: int, wanting: DestinationQueue) -> None:
        """Drop the oldest writes until no more than this is taken."""
        host = self._host
        if len(host.queues) > MANY_QUEUES:
            wanted -= self.limit // 64  # so that not every write looks at the heads of all of them
        heads = [(queue.first_waiting(), index, queue) for index, queue in enumerate(host.queues) if queue.waiting]
        heapify(heads)
        while heads and host.queues.memory.size > wanted:
            _, index, queue = heads[0]
            entry = queue.pop()
            if queue.waiting:
                heapreplace(heads, (queue.first_waiting(), index, queue))
            else:
                heappop(heads)
            self.lost(entry, "full")
            host.clients.fail([entry], BackendFailure("full", "dropped from the buffer"))
            if queue is not wanting:
                host.tidy(queue)

    def lost(self, entry: Entry, reason: str) -> None:
        """Count it."""
        self._count_once_kept(entry, reason)

    def missed(self, write: Write, when: float) -> None:
        """Count it: there was no room."""
        self._losses.count("full", when, len(write.body))

    def refused(self, queue: DestinationQueue, entry: Entry, reply: Reply) -> None:  # noqa: ARG002 (a journal's)
        """Keep it among the last dead letters."""
        entry.fate.when_decided(partial(self._bury, entry.write, reply))

    def _bury(self, write: Write, reply: Reply, fate: Fate) -> None:
        if fate.state is not State.KEPT:
            return
        words = reply.body.decode("utf-8", "backslashreplace").strip()
        self._letters.append(DeadLetter(fate.number, fate.time, self._host.name, reply.status, words, write))
        self._letter_bytes += len(write.body)
        while len(self._letters) > MAX_DEAD_LETTERS or self._letter_bytes > MAX_DEAD_LETTER_BYTES:
            oldest = self._letters.popleft()
            self._letter_bytes -= len(oldest.write.body)
            self._losses.count("full", oldest.time, len(oldest.write.body))

    def give_up(self, queue: DestinationQueue, entries: list[Entry], upto: float) -> None:  # noqa: ARG002 (a journal's)
        """Count what waited."""
        for entry in entries:
            self.lost(entry, "operator")

    def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters, the oldest first."""
        return [attrs.evolve(each, backend=self._host.name) for each in self._letters]

    def drop_dead_letter(self, number: int) -> None:
        """Remove a dead letter."""
        left = [each for each in self._letters if each.id != number]
        self._letters = deque(left)
        self._letter_bytes = sum(len(each.write.body) for each in left)
