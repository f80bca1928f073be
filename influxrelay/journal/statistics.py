"""What a journal holds, asked for now and then: counting a large backlog takes its time."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.journal.interface import Journal
from influxrelay.journal.records import Contents

FRESH = 1.0  # seconds for which what was counted is new enough
SHARE = 0.05  # of the time that counting may take: after a long count what is known is new enough for longer


class JournalCounts:
    """Remembers what a journal held when it was last asked.

    :param clock: returns seconds of a clock that only goes forward.
    :ivar known: None until there was an answer.
    """

    def __init__(self, journal: Journal, clock: Callable[[], float]) -> None:
        self.known: Contents | None = None
        self._journal = journal
        self._clock = clock
        self._counted_at = 0.0
        self._next = 0.0
        self._waiting: list[Deferred[None]] = []

    def age(self) -> float:
        """Return how many seconds ago :attr:`known` began to be counted."""
        return self._clock() - self._counted_at

    def refresh(self) -> Deferred[None]:
        """Ask again, unless what is known is new enough; fires when there is an answer, or none to be had."""
        now = self._clock()
        if not self._waiting and now < self._next:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        if len(self._waiting) == 1:
            self._journal.contents().addBoth(self._done, now)
        return done

    def _done(self, result: Contents | Failure, began: float) -> None:
        now = self._clock()
        self._next = now + max(FRESH, (now - began) / SHARE)
        if isinstance(result, Contents):
            self.known, self._counted_at = result, began
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)
        if isinstance(result, Failure):
            result.trap(JournalError)  # the journal says what is wrong; what is known gets older
