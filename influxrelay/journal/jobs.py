"""What is asked of the ledger and the sealed segments, and what is wrong with them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.journal.corruption import is_corrupt
from influxrelay.journal.tail import explain
from influxrelay.journal.worker import Worker

T = TypeVar("T")


class Jobs:
    """Gives jobs to a worker.

    :param place: of the journal, for people.
    :param on_corrupt: is told that the ledger makes no sense.
    :param on_done: is told that :attr:`trouble` may have changed.
    :ivar trouble: what is wrong, as long as it is; empty if nothing is known to be.
    """

    _log = Logger()

    def __init__(
        self,
        place: str,
        worker: Worker,
        on_corrupt: Callable[[Exception], object],
        on_done: Callable[[], object],
    ) -> None:
        self.trouble = ""
        self._place = place
        self._worker = worker
        self._on_corrupt = on_corrupt
        self._on_done = on_done
        self._waiting: dict[Deferred[Any], None] = {}

    def do(self, job: Callable[[], T]) -> Deferred[T]:
        """Do something, however long it takes; fails as the job does."""
        return self._worker.do(job).addCallbacks(self._well, self._failed)

    async def run(self, job: Callable[[], T]) -> T:
        """Do something, and raise a :class:`JournalError` if the disk does not let it be done."""
        try:
            return await self.do(job)
        except Exception as error:
            raise JournalError(str(error)) from error

    def _well(self, result: T) -> T:
        self.trouble = ""
        self._on_done()
        return result

    def _failed(self, failure: Failure) -> Failure:
        error = failure.value
        if not isinstance(error, (sqlite3.Error, OSError, ValueError)):
            self._log.failure("the journal in {place}", failure, place=self._place)
            return failure
        self.trouble = explain(failure)
        self._on_done()
        if isinstance(error, Exception) and is_corrupt(error):
            self._on_corrupt(error)
        return failure

    def ask(self, job: Callable[[], T]) -> Deferred[T]:
        """Do something for somebody who waits; fails with a :class:`JournalError`, and does so if it takes too long."""
        return self.promise(self.do(job))

    def promise(self, done: Deferred[T]) -> Deferred[T]:
        """Return a Deferred that fires as another one does, but fails as soon as the disk does not answer."""
        answer: Deferred[T] = Deferred()
        self._waiting[answer] = None
        done.addBoth(self._answer, answer)
        return answer

    def _answer(self, result: Any, answer: Deferred[Any]) -> None:
        if answer in self._waiting:
            del self._waiting[answer]
            known = isinstance(result, Failure) and isinstance(result.value, (sqlite3.Error, OSError, ValueError))
            answer.callback(Failure(self._problem()) if known else result)
        elif isinstance(result, Failure) and not result.check(JournalError, sqlite3.Error, OSError, ValueError):
            self._log.failure("the journal in {place}", result, place=self._place)

    def _problem(self) -> JournalError:
        return JournalError(f"{self._place}: {self.trouble}")

    def give_up(self, trouble: str) -> None:
        """Tell everybody who waits that the disk does not answer."""
        self.trouble = trouble
        waiting, self._waiting = self._waiting, {}
        for each in waiting:
            each.errback(Failure(self._problem()))
