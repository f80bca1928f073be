"""What a journal holds, counted beside the journal's own thread: no commit and no client waits for it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from influxrelay.journal.records import Contents, Depth, Drop
from influxrelay.journal.store import FILE

FRESH = 1.0  # seconds for which what was counted is new enough ...
SHARE = 0.05  # ... or longer, so that counting a large backlog takes no more than this share of the time

_DEPTHS = """
SELECT backends.name, backends.location, backends.active, COUNT(log.seq), COALESCE(SUM(LENGTH(log.body)), 0),
    MIN(log.time)
FROM backends LEFT JOIN destinations ON backends.active LEFT JOIN log ON log.destination = destinations.id AND log.seq >
    COALESCE((SELECT cursors.seq FROM cursors
        WHERE cursors.backend = backends.name AND cursors.destination = destinations.id), backends.since)
GROUP BY backends.name
"""


class JournalCounts:
    """Counts a journal in another thread and through another connection, now and then.

    :param clock: returns seconds of a clock that only goes forward.
    :ivar known: the last result; None until there is one.
    """

    def __init__(self, directory: Path, reactor: Any, clock: Callable[[], float]) -> None:
        self.known: Contents | None = None
        self._path = directory / FILE
        self._reactor = reactor
        self._clock = clock
        self._counted_at = 0.0
        self._next = 0.0
        self._waiting: list[Deferred[None]] = []
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def age(self) -> float:
        """Return how many seconds ago :attr:`known` began to be counted."""
        return self._clock() - self._counted_at

    def refresh(self) -> Deferred[None]:
        """Count again, unless what is known is new enough; fires when that is done, well or not."""
        now = self._clock()
        if not self._waiting and now < self._next:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        if len(self._waiting) == 1:
            counted = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._count)
            counted.addBoth(self._done, now)
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
            result.trap(sqlite3.Error)  # the keeper says what is wrong with the disk; what is known gets older

    def interrupt(self) -> None:
        """End what is under way: a stop does not wait for it."""
        with self._lock:
            if self._connection is not None:
                self._connection.interrupt()

    # -- in another thread

    def _count(self) -> Contents:
        where = f"file:{quote(str(self._path.absolute()))}?mode=ro"
        with closing(sqlite3.connect(where, uri=True, isolation_level=None, check_same_thread=False)) as connection:
            with self._lock:
                self._connection = connection
            try:
                return self._read(connection)
            finally:
                with self._lock:
                    self._connection = None

    def _read(self, connection: sqlite3.Connection) -> Contents:
        connection.execute("BEGIN")  # one moment for all of them
        depths = [Depth(row[0], row[1], bool(row[2]), *row[3:]) for row in connection.execute(_DEPTHS)]
        drops = tuple(Drop(*row) for row in connection.execute("SELECT * FROM drops"))
        letters = connection.execute("SELECT backend, COUNT(*) FROM dead_letters GROUP BY backend").fetchall()
        return Contents({each.backend: each for each in depths}, drops, dict(letters))
