"""Long work, bit by bit, so that all else goes on in between."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from twisted.internet.task import Cooperator

SLICE = 0.002  # seconds of work in each turn of the reactor


class _Slice:
    """Tells when the work in one turn of the reactor has taken long enough."""

    def __init__(self) -> None:
        self._end = time.perf_counter() + SLICE

    def __call__(self) -> bool:
        return time.perf_counter() >= self._end


def make_cooperator(reactor: Any) -> Cooperator:
    """Return what runs iterators side by side, a step of each in its turn, in slices of the reactor's time."""
    return Cooperator(terminationPredicateFactory=_Slice, scheduler=partial(reactor.callLater, 0))
