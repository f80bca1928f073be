"""Long work, bit by bit, so that all else goes on in between."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from twisted.logger import Logger

SLICE = 0.002  # seconds of work in each turn of the reactor


class Desk:
    """Does many works at once, a bit of each in its turn.

    :param clock: returns seconds.
    """

    _log = Logger()

    def __init__(self, reactor: Any, clock: Callable[[], float] = time.perf_counter) -> None:
        self._reactor = reactor
        self._clock = clock
        self._works: deque[Iterator[Any]] = deque()

    def take(self, work: Iterator[Any]) -> None:
        """Do this work from the next turn on, up to its next ``yield`` each time."""
        if not self._works:
            self._reactor.callLater(0, self._go_on)
        self._works.append(work)

    def _go_on(self) -> None:
        works, clock = self._works, self._clock
        end = clock() + SLICE
        while works:
            work = works[0]
            try:
                next(work)
            except StopIteration:
                works.popleft()
            except Exception:  # noqa: BLE001 (the others go on)
                self._log.failure("a work of many slices")
                works.popleft()
            else:
                works.rotate(-1)
            if clock() >= end:
                break
        if works:
            self._reactor.callLater(0, self._go_on)
