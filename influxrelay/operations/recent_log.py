"""The last log lines that matter, for the page that people look at."""

from __future__ import annotations

import re
from typing import Any

import attrs
from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText
from zope.interface import implementer

from influxrelay.core.text import iso, shortened

_KEPT = 30
_LENGTH = 500  # characters of a line
_NUMBER = re.compile(r"\d+")
_LEVELS = (LogLevel.warn, LogLevel.error, LogLevel.critical)


@attrs.frozen
class LogLine:
    """A line of the log.

    :ivar time: seconds since the epoch.
    :ivar level: ``warn``, ``error``, ``critical``.
    :ivar times: how often it was written, with whatever numbers, and ``first``: when for the first time.
    """

    time: float
    level: str
    text: str
    times: int = 1
    first: float = 0.0

    def show(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "time": iso(self.time),
            "level": self.level,
            "message": self.text,
            "times": self.times,
            "first": iso(self.first),
        }

    def history(self) -> str:
        """Say how often it was written, if more than once."""
        return f" ({self.times} times since {iso(self.first)})" if self.times > 1 else ""


@implementer(ILogObserver)
class RecentLog:
    """Keeps the last warnings and errors; of those that differ in numbers only, the last one."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], LogLine] = {}

    @property
    def lines(self) -> list[LogLine]:
        """The lines, the newest last."""
        return list(self._lines.values())

    def __call__(self, event: LogEvent) -> None:
        """Take an event of the log."""
        level = event.get("log_level")
        if level in _LEVELS:
            words = eventAsText(event, includeTimestamp=False, includeSystem=False, includeTraceback=False)
            line = shortened(" ".join(words.split()), _LENGTH)
            self._add(event.get("log_time", 0.0), level.name, line)

    def _add(self, when: float, level: str, line: str) -> None:
        key = level, _NUMBER.sub("0", line)
        before = self._lines.pop(key, None)
        times, first = (before.times + 1, before.first) if before is not None else (1, when)
        self._lines[key] = LogLine(when, level, line, times, first)
        if len(self._lines) > _KEPT:
            del self._lines[next(iter(self._lines))]
