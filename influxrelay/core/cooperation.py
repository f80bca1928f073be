"""Long work in small steps, so that everything else goes on in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator

SLICE = 0.00025  # seconds of work in each turn; a client on a new connection waits for seven of them, say


def make_cooperator(
    reactor: IReactorTime,
    clock: Callable[[], float] = time.perf_counter,
    spend: Callable[[float], object] | None = None,
) -> Cooperator:
    """Return a cooperator that works for :data:`SLICE` seconds in each turn, a step of each task after the other.

    :param clock: returns seconds of CPU or wall time; a test's reactor does not know how long a step takes.
    :param spend: is told how long a slice has taken.
    """

    def begin_turn() -> Callable[[], bool]:
        start = clock()

        def is_over() -> bool:
            spent = clock() - start
            if spent < SLICE:
                return False
            if spend is not None:
                spend(spent)
            return True

        return is_over

    return Cooperator(begin_turn, partial(reactor.callLater, 0))
