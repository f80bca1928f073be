"""Logs with one line for each event, for ``twistd --logger``: a traceback or a newline in it breaks no line.

``influxrelay.service.logs.journal`` writes what systemd's journal wants: each line begins with its priority
(sd-daemon(3)). ``influxrelay.service.logs.json_lines`` writes an object: ``time``, ``level``, ``logger``, ``message``,
``traceback`` if there is one, and whom the event is about.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText
from zope.interface import directlyProvides

_PRIORITIES = {LogLevel.critical: 2, LogLevel.error: 3, LogLevel.warn: 4, LogLevel.info: 6, LogLevel.debug: 7}
_SUBJECTS = ("relay", "backend", "reason")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def journal() -> Callable[[LogEvent], None]:
    """Return an observer for systemd's journal."""
    return _observer(journal_line)


def json_lines() -> Callable[[LogEvent], None]:
    """Return an observer for whatever reads JSON."""
    return _observer(json_line)


def _observer(line: Callable[[LogEvent], str]) -> Callable[[LogEvent], None]:
    """Return what writes lines to where standard output led before Twisted took it for the log."""
    stdout: Any = sys.__stdout__

    def observe(event: LogEvent) -> None:
        stdout.buffer.write(line(event).encode())
        stdout.flush()

    directlyProvides(observe, ILogObserver)
    return observe


def journal_line(event: LogEvent) -> str:
    """Return an event as a line for the journal."""
    namespace = event.get("log_namespace") or "-"
    text = eventAsText(event, includeTimestamp=False, includeSystem=False)
    origin = "" if namespace.startswith("influxrelay.") else f"[{namespace}] "
    return f"<{_PRIORITIES.get(event.get('log_level'), 6)}>{_CONTROL.sub(_escaped, origin + text)}\n"


def json_line(event: LogEvent) -> str:
    """Return an event as a line of JSON."""
    level = event.get("log_level")
    message = eventAsText(event, includeTimestamp=False, includeSystem=False, includeTraceback=False)
    line = {
        "time": datetime.fromtimestamp(event.get("log_time", 0), UTC).isoformat(timespec="milliseconds"),
        "level": level.name if level is not None else "info",
        "logger": event.get("log_namespace") or "-",
        "message": message,
    }
    line |= {subject: str(event[subject]) for subject in _SUBJECTS if subject in event}
    if "log_failure" in event:
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        line["traceback"] = text.removeprefix(f"{message}\n")
    return json.dumps(line) + "\n"


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
