"""The last log lines that matter, for the page that people look at."""

from __future__ import annotations

from collections import deque

import attrs
from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText
from zope.interface import implementer

from influxrelay.core.text import shortened

_KEPT = 30
_LENGTH = 500  # characters of a line
_LEVELS = (LogLevel.warn, LogLevel.error, LogLevel.critical)


@attrs.frozen
class LogLine:
    """A line of the log.

    :ivar time: seconds since the epoch.
    :ivar level: ``warn``, ``error``, ``critical``.
    """

    time: float
    level: str
    text: str


@implementer(ILogObserver)
class RecentLog:
    """Keeps the last warnings and errors.

    :ivar lines: the newest last.
    """

    def __init__(self) -> None:
        self.lines: deque[LogLine] = deque(maxlen=_KEPT)

    def __call__(self, event: LogEvent) -> None:
        """Take an event of the log."""
        level = event.get("log_level")
        if level in _LEVELS:
            words = eventAsText(event, includeTimestamp=False, includeSystem=False, includeTraceback=False)
            line = shortened(" ".join(words.split()), _LENGTH)
            self.lines.append(LogLine(event.get("log_time", 0.0), level.name, line))
