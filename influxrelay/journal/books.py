"""What the ledger is to have, and what of that is written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import DeferredLock

from influxrelay.core.errors import JournalError
from influxrelay.journal.accounts import Accounts
from influxrelay.journal.cursors import Cursors
from influxrelay.journal.jobs import Jobs
from influxrelay.journal.ledger import Loss
from influxrelay.journal.registry import Registry
from influxrelay.journal.store import Changes, Store
from influxrelay.journal.tail import Tail

T = TypeVar("T")

_BACKENDS = "backends"  # for which writes wait


class Books:
    """Backends, cursors, dead letters and losses in memory, which are saved together.

    :ivar letter_bytes: that the dead letters in the ledger have.
    :ivar have_moved: whether cursors have moved since the log was cleaned.
    :ivar unregistered: why the ledger does not know for which backends writes are; None if it does.
    """

    def __init__(self, store: Store, tail: Tail, jobs: Jobs) -> None:
        self.cursors = Cursors()
        self.registry = Registry(store.findings.backends)
        self.accounts = Accounts(store.findings.losses)
        self.letter_bytes = store.letter_bytes
        self.have_moved = False
        self.unregistered: JournalError | None = None
        self._store = store
        self._tail = tail
        self._jobs = jobs
        self._max_letters = 0
        self._registered = False  # and not written down
        self._saving = DeferredLock()

    def limit_letters(self, max_bytes: int) -> None:
        """Say how many bytes the dead letters may have; 0 for no limit."""
        self._max_letters = max_bytes

    def count_letters(self, size: int) -> None:
        """Note how many bytes the dead letters in the ledger have now."""
        self.letter_bytes = size

    def register(self) -> None:
        """Have the backends saved, and let all writes wait for that."""
        self._registered = True
        self._tail.hold(_BACKENDS)

    def give_up(self, problem: JournalError) -> None:
        """Let no write wait for the ledger, which does not answer."""
        if self._tail.is_held(_BACKENDS):
            self.unregistered = problem

    def all_again(self) -> None:
        """Have everything saved that is known here, in a new ledger."""
        self.cursors.all_again()
        self.accounts.all_again()
        self.letter_bytes = 0

    def cleaned(self) -> None:
        """Note that nothing is in the log that nobody needs, but for what was passed since the last save."""
        self.have_moved = self.cursors.have_moved

    async def save(self) -> None:
        """Write down what has changed, unless that is under way."""
        if self.cursors.have_moved or self.accounts.have_news or self._registered:
            await self.save_and(lambda: None)

    async def save_and(self, job: Callable[[], T]) -> T:
        """Write down what has changed, and do another job directly after that.

        One after the other: where one fails nothing may be written down that came later.
        """
        await self._saving.acquire()
        try:
            result = await self._save_and(job)
        except JournalError:
            self._saving.release()
            raise
        self._saving.release()
        return result

    async def _save_and(self, job: Callable[[], T]) -> T:
        self.have_moved = self.have_moved or self.cursors.have_moved
        changes = self._take_changes()
        store, sync, limit = self._store, self._tail.sync, self._max_letters

        saved: list[tuple[tuple[Loss, ...], int]] = []

        def both() -> T:
            saved.append(store.save(changes, full_sync=sync, max_letters=limit))
            return job()

        try:
            return await self._jobs.run(both)
        except JournalError as error:
            if not saved:
                self._not_saved(changes, error)
            raise
        finally:
            for losses, letter_bytes in saved:
                self.letter_bytes = letter_bytes
                self.accounts.note(losses)
                if changes.backends and not self._registered:
                    self.unregistered = None
                    self._tail.release(_BACKENDS)

    def _not_saved(self, changes: Changes, error: JournalError) -> None:
        self.cursors.put_back(changes.moves)
        self.accounts.put_back(changes.letters, changes.losses)
        if changes.backends:
            self._registered = True
            self.unregistered = error
            self._tail.refuse(error)

    def save_now(self) -> None:
        """Write down what is known, and wait for the disk; before anything else is done.

        :raises sqlite3.Error: the disk fails, or the ledger is corrupt.
        """
        self._registered = True
        self._store.save(self._take_changes(), full_sync=self._tail.sync, max_letters=0)

    def _take_changes(self) -> Changes:
        letters, losses = self.accounts.take()
        backends = self.registry.backends if self._registered else ()
        self._registered = False
        moves = self.cursors.take_moves(self._tail.settled)
        return Changes(moves, self._tail.written, backends, letters, losses)
