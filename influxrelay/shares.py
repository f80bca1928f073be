"""How the workers share the connections that wait at one socket.

All of them accept from it, and whoever is quicker gets more. Clients keep their connections for long, so that a worker
which once got more than its share would keep it, too: it lets the others go first.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import Any, Self

ABSENT = 2**32 - 1  # the count of a worker that does not accept
PAUSE = 0.005  # seconds for which the others go first
_MARGIN = 2  # connections more than another one has, and ...
_PART = 8  # ... an eighth of that, are no reason to wait


class Shares:
    """Each worker's number of connections, in memory that all of them see.

    :param fd: of a file with four bytes for each worker.
    """

    def __init__(self, fd: int, workers: int) -> None:
        self.fd = fd
        self._counts = memoryview(mmap.mmap(fd, 4 * workers)).cast("I")

    @classmethod
    def make(cls, workers: int) -> Self:
        """Return new ones; all workers are absent."""
        fd = os.memfd_create("shares")
        os.write(fd, b"\xff" * 4 * workers)
        return cls(fd, workers)

    def set(self, worker: int, count: int) -> None:
        """Note how many connections a worker has, or that it is :data:`ABSENT`."""
        if worker < len(self._counts):
            self._counts[worker] = count

    def exceeds(self, worker: int) -> bool:
        """Tell whether a worker has more than its share."""
        least = min(self._counts)
        return self._counts[worker] > least + max(_MARGIN, least // _PART)


class Turns:
    """Lets a worker's ports accept when it is their turn.

    :ivar count: returns how many connections this worker has.
    """

    count: Callable[[], int]

    def __init__(self, shares: Shares, worker: int, reactor: Any) -> None:
        self._shares = shares
        self._worker = worker
        self._reactor = reactor

    def update(self) -> None:
        """Note how many connections there are."""
        self._shares.set(self._worker, self.count())

    def take(self, port: Any) -> Any:
        """Let a port accept one connection at a time, and wait a moment before each that is more than its share."""
        accept = port.doRead
        waited = False

        def do_read() -> None:
            nonlocal waited
            self.update()
            if not waited and self._shares.exceeds(self._worker):
                waited = True
                port.stopReading()
                self._reactor.callLater(PAUSE, resume)
                return
            waited = False
            port.numberAccepts = 1  # Twisted's would be up to a hundred
            accept()

        def resume() -> None:
            if port.connected and not port.disconnecting:
                port.startReading()

        port.doRead = do_read
        return port
