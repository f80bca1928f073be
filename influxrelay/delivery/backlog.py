"""What a backend has missed, kept for it: in memory, or in the journal."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from influxrelay.core.write import Destination, Reply, Write
from influxrelay.journal.interface import Journal
from influxrelay.journal.records import Drop, Record, count_drop

MAX_DEAD_LETTERS = 1000  # in memory, for each backend


class State(enum.Enum):
    """What has become of a write as a whole."""

    PENDING = "no client has been told yet"
    KEPT = "a client was told that it is taken: every backend has to get it"
    STRUCK = "a client was told that it is not: no backend needs to get it any more"


class Fate:
    """A write on its way to several backends, and what they decide together.

    :ivar seq: its number; higher is later.
    :ivar time: when it was accepted, in seconds since the epoch.
    :ivar holders: the senders, and their queues, that have a refusal of it to bury or to forget.
    :ivar on_disk: False as soon as it is known that the journal could not take it.
    :ivar absent: the senders that have it not in memory, and count on the journal.
    """

    __slots__ = ("_when_kept", "absent", "holders", "on_disk", "seq", "state", "time", "write")

    def __init__(self, seq: int, when: float, write: Write, state: State = State.PENDING) -> None:
        self.seq = seq
        self.time = when
        self.write = write
        self.state = state
        self.absent: list[Any] = []
        self.holders: list[tuple[Any, Any]] = []
        self.on_disk = True
        self._when_kept: list[Callable[[], None]] = []

    def when_kept(self, action: Callable[[], None]) -> None:
        """Do this if the write is one that every backend has to get: now, when that is decided, or never."""
        if self.state is State.KEPT:
            action()
        elif self.state is State.PENDING:
            self._when_kept.append(action)

    def settle(self, state: State) -> None:
        """Decide, once."""
        self.state = state
        for sender in self.absent:
            sender.settled(self)
        actions, self._when_kept = self._when_kept, []
        if state is State.KEPT:
            for action in actions:
                action()
        for sender, queue in self.holders:
            sender.let_go(self, queue)


class Backlog(Protocol):
    """What a sender asks of whatever keeps its backlog.

    :ivar drops: what this process has counted as lost, by reason.
    """

    drops: dict[str, Drop]

    max_bytes: int  # in memory; of no concern where it is on disk
    drop_oldest: bool
    on_disk: bool

    def passed(self, destination: Destination, seq: int) -> None:
        """Note that the backend is done with a destination up to this number."""

    def bury(self, fate: Fate, write: Write, reply: Reply) -> None:
        """Keep what the backend has refused of a write for good among the dead letters."""

    def lost(self, fate: Fate, write: Write, reason: str) -> None:
        """Count what the backend will not get of a write."""

    def miss_change(self, when: float, size: int) -> None:
        """Count a statement that the backend has not executed, and another one has."""

    def losses(self) -> list[Drop]:
        """Return what was lost, by all processes, as far as this one knows."""

    def page(self, destination: Destination, after: int, max_bytes: int) -> Deferred[tuple[list[Record], int]] | None:
        """Read on in the backlog that is not in memory; None where all of it is."""


class MemoryBacklog:
    """A backlog that lives and dies with the process (``buffer-size-mb``)."""

    on_disk = False

    def __init__(self, backend: str, max_bytes: int, *, drop_oldest: bool = False) -> None:
        self.backend = backend
        self.max_bytes = max_bytes
        self.drop_oldest = drop_oldest
        self.drops: dict[str, Drop] = {}
        self.dead_letters: list[tuple[Fate, Reply]] = []

    def passed(self, destination: Destination, seq: int) -> None:
        """Nothing to note: what is done is no longer in memory."""

    def bury(self, fate: Fate, write: Write, reply: Reply) -> None:
        """Keep the write, among the last :data:`MAX_DEAD_LETTERS`."""
        self.dead_letters.append((Fate(fate.seq, fate.time, write, fate.state), reply))
        del self.dead_letters[:-MAX_DEAD_LETTERS]

    def lost(self, fate: Fate, write: Write, reason: str) -> None:
        """Count it, with its time."""
        count_drop(self.drops, self.backend, reason, fate.time, len(write.body))

    def miss_change(self, when: float, size: int) -> None:
        """Count it, with its time."""
        count_drop(self.drops, self.backend, "change", when, size)

    def losses(self) -> list[Drop]:
        """Return what was lost."""
        return list(self.drops.values())

    def page(self, destination: Destination, after: int, max_bytes: int) -> None:
        """All of it is in memory."""


class JournalBacklog:
    """A backend's view of the journal, in which it stands for the backend."""

    on_disk = True
    drop_oldest = False

    def __init__(self, journal: Journal) -> None:
        self.max_bytes = 0
        self.drops: dict[str, Drop] = {}
        self._journal = journal

    def passed(self, destination: Destination, seq: int) -> None:
        """Move the cursor."""
        self._journal.advance(self, destination, seq)

    def bury(self, fate: Fate, write: Write, reply: Reply) -> None:
        """Write it down, before the cursor moves on."""
        message = reply.body.decode("utf-8", "replace").strip()
        self._journal.bury(self, fate.time, write, reply.status, message)

    def lost(self, fate: Fate, write: Write, reason: str) -> None:
        """Count it, with its time."""
        self._journal.count_loss(self, reason, fate.time, len(write.body))

    def miss_change(self, when: float, size: int) -> None:
        """Count it, with its time."""
        self._journal.count_loss(self, "change", when, size)

    def losses(self) -> list[Drop]:
        """Return what was lost."""
        return self._journal.losses(self)

    def page(self, destination: Destination, after: int, max_bytes: int) -> Deferred[tuple[list[Record], int]]:
        """Read on."""
        return self._journal.read(destination, after, max_bytes)
