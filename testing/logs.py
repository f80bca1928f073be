"""What influxrelay logs, as text."""

from __future__ import annotations

from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase


def watch_log(case: SynchronousTestCase) -> list[str]:
    """Return a list to which each event of influxrelay's log is added, as text, while the test runs."""
    texts: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace", "").startswith("influxrelay"):
            texts.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    case.addCleanup(globalLogPublisher.removeObserver, observe)
    return texts
