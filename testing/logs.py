"""What is logged while a test runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase


def observe_log(case: SynchronousTestCase, observe: Callable[[LogEvent], None]) -> None:
    """Call a function with each event while the test runs."""
    observer = cast("ILogObserver", observe)  # mypy does not see that functions provide it
    globalLogPublisher.addObserver(observer)
    case.addCleanup(globalLogPublisher.removeObserver, observer)


def watch_events(case: SynchronousTestCase) -> list[LogEvent]:
    """Return a list to which each event is added while the test runs."""
    events: list[LogEvent] = []
    observe_log(case, events.append)
    return events


def watch_log(case: SynchronousTestCase) -> list[str]:
    """Return a list to which each event of influxrelay's log is added, as text, while the test runs."""
    texts: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace", "").startswith("influxrelay"):
            texts.append(formatEvent(event))

    observe_log(case, observe)
    return texts
