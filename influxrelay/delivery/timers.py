"""Timers that end together, and waiting for an end."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Timers:
    """Calls in a while, until all is over."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._timers: list[IDelayedCall] = []
        self._over = False

    def call_later(self, seconds: float, call: Callable[[], object]) -> IDelayedCall | None:
        """Call this in a while; never if all is over."""
        if self._over:
            return None
        self._timers = [timer for timer in self._timers if timer.active()]
        timer = self._reactor.callLater(seconds, call)
        self._timers.append(timer)
        return timer

    def end(self) -> None:
        """Call nothing any more."""
        self._over = True
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        self._timers.clear()


class Drain:
    """Those who wait until nothing is left to be done."""

    def __init__(self) -> None:
        self._waiting: list[Deferred[None]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def wait(self) -> Deferred[None]:
        """Return what fires when that is so."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        return waiter

    def fire(self) -> None:
        """Tell all of them."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)
