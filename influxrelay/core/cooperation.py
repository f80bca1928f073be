"""Long work in small steps, so that everything else goes on in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator

SLICE = 0.0005  # seconds of work in each turn; a client on a new connection waits for seven of them, say


def make_cooperator(reactor: IReactorTime, clock: Callable[[], float] = time.perf_counter) -> Cooperator:
    """Return a cooperator that works for :data:`SLICE` seconds in each turn, a step of each task after the other.

    :param clock: returns seconds of CPU or wall time; a test's reactor does not know how long a step takes.
    """

    def begin_turn() -> Callable[[], bool]:
        end = clock() + SLICE
        return lambda: clock() >= end

    return Cooperator(begin_turn, partial(reactor.callLater, 0))
