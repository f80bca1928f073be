"""Threads under a Clock: what they report waits until a test says so."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock


class ThreadClock(Clock):
    """A Clock, and the calls from threads, which are made when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.reports: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()

    def callFromThread(self, function: Callable[..., None], *arguments: Any) -> None:
        """Keep a call."""
        self.reports.put((function, *arguments))

    def report(self) -> None:
        """Wait for the end of a job, and hear of it."""
        function, *arguments = self.reports.get(timeout=10)
        function(*arguments)
