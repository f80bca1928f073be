"""How late the reactor is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall

from influxrelay.core.histogram import LATENCIES, Histogram

INTERVAL = 0.25  # seconds


class ReactorLag(Service):
    """Measures how late the reactor comes to what is due.

    :ivar lags: seconds.
    """

    def __init__(self, reactor: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self.lags = Histogram(LATENCIES)
        self._reactor = reactor
        self._clock = clock
        self._call: IDelayedCall | None = None

    def startService(self) -> None:
        """Begin to measure."""
        super().startService()
        self._schedule()

    def stopService(self) -> None:
        """Measure no more."""
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _schedule(self) -> None:
        self._due = self._clock() + INTERVAL
        self._call = self._reactor.callLater(INTERVAL, self._measure)

    def _measure(self) -> None:
        self.lags.observe(max(0.0, self._clock() - self._due))
        self._schedule()
