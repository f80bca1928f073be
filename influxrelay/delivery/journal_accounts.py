"""What a backend has lost or refused, told to the journal as soon as it is certain that it matters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from influxrelay.core.write import CHANGES, Reply, Write
from influxrelay.delivery.backlog import Backlog
from influxrelay.delivery.destination_queue import DestinationQueue, Entry
from influxrelay.delivery.fate import Fate, State
from influxrelay.delivery.journal_cursor import Cursor
from influxrelay.journal.interface import Journal
from influxrelay.journal.records import Drop, lost_change


class JournalAccounts(Backlog):
    """The part of a backlog in the journal that counts losses, and makes dead letters."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal
        self._cursors: dict[DestinationQueue, Cursor] = {}
        self._beside: Backlog | None = None

    def _cursor(self, queue: DestinationQueue) -> Cursor:
        raise NotImplementedError

    def lost(self, entry: Entry, reason: str) -> None:
        """Count it, in the journal; a change becomes a dead letter, too."""
        self._host.lost(entry)
        entry.fate.when_decided(partial(self._count_if_kept, reason, entry.write))

    def _count_if_kept(self, reason: str, write: Write, fate: Fate) -> None:
        if fate.state is State.KEPT:
            self._count_loss(reason, len(write.body), fate)
            if write.destination == CHANGES:
                self._journal.bury(self, fate.time, write, 0, lost_change(reason))

    def _count_loss(self, reason: str, size: int, fate: Fate) -> None:
        self._journal.count_loss(self, reason, fate.time, size)

    def missed(self, write: Write, when: float) -> None:
        """Count it: there was no room."""
        self._journal.count_loss(self, "full", when, len(write.body))

    def refused(self, queue: DestinationQueue, entry: Entry, reply: Reply) -> None:
        """Make a dead letter of it."""
        self._when_kept(queue, entry.fate, partial(self._bury, entry.write, reply))

    def _bury(self, write: Write, reply: Reply, fate: Fate) -> None:
        message = reply.body.decode("utf-8", "replace").strip()
        self._journal.bury(self, fate.time, write, reply.status, message)

    def _when_kept(self, queue: DestinationQueue, fate: Fate, note: Callable[[Fate], object]) -> None:
        """Note what has become of a write if it is kept; the backend has not passed it before that is certain."""
        if fate.state is State.UNDECIDED:
            cursor = self._cursor(queue)
            cursor.held.add(fate.number)
            fate.when_decided(partial(self._pass, queue, cursor, note))
        elif fate.state is State.KEPT:
            note(fate)

    def _pass(self, queue: DestinationQueue, cursor: Cursor, note: Callable[[Fate], object], fate: Fate) -> None:
        if fate.number not in cursor.held:
            return  # another process goes on with it
        if fate.state is State.KEPT:
            note(fate)
        cursor.held.discard(fate.number)
        self._host.tidy(queue)

    def losses(self) -> list[Drop]:
        """Return what was lost."""
        return [*self._journal.losses(self), *self.losses_beside()]

    def losses_beside(self) -> list[Drop]:
        """Return what was lost of writes that the journal could not take."""
        return [] if self._beside is None else self._beside.losses()

    def relay_beside(self, backlog: Backlog) -> None:
        """Count what this one loses, too."""
        self._beside = backlog

    def forget_losses(self) -> None:
        """Leave those in the journal to it."""
        if self._beside is not None:
            self._beside.forget_losses()
