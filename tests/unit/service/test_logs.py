"""The log's lines, for the journal and in JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, cast

from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.service.logs import journal_line, json_line
from testing.servers import PROJECT


def logged(level: LogLevel, text: str, namespace: str = "influxrelay.delivery.fanout.Relay", **fields: Any) -> LogEvent:
    """Return the event that a logger makes."""
    events: list[LogEvent] = []
    Logger(namespace, observer=cast("ILogObserver", events.append)).emit(level, text, **fields)
    return events[0]


def failure() -> Failure:
    """Return a failure with a traceback and a message of two lines."""

    def fail() -> None:
        raise ValueError("one\ntwo")

    try:
        fail()
    except ValueError:
        return Failure()
    raise AssertionError


class JournalTests(SynchronousTestCase):
    """Lines for the journal."""

    def test_priorities(self) -> None:
        """Each level has its syslog priority."""
        found = [journal_line(logged(level, "x"))[:3] for level in LogLevel.iterconstants()]
        self.assertEqual(found, ["<7>", "<6>", "<4>", "<3>", "<2>"])
        self.assertEqual(journal_line({}), "<6>[-] \n")

    def test_text(self) -> None:
        """The line is the event's text; others than this package's loggers are named."""
        self.assertEqual(journal_line(logged(LogLevel.info, "{a}: é", a=1)), "<6>1: é\n")
        self.assertEqual(journal_line(logged(LogLevel.info, "x", "twisted.web")), "<6>[twisted.web] x\n")

    def test_one_line(self) -> None:
        """A text with newlines, controls or halves of characters, and a traceback, are one line each."""
        text = journal_line(logged(LogLevel.warn, "{x}", x="a\n<0>b\x1b[2J\x85\u2028\udc80"))
        self.assertEqual(text, "<4>a\\n<0>b\\x1b[2J\\x85\\u2028\\udc80\n")
        text = journal_line(logged(LogLevel.critical, "x", log_failure=failure()))
        self.assertTrue(text.startswith("<2>x\\nTraceback (most recent call last):\\n"), text)
        self.assertTrue(text.endswith("builtins.ValueError: one\\ntwo\\n\n"), text)
        self.assertEqual(len(text.splitlines()), 1)


class JSONTests(SynchronousTestCase):
    """Lines of JSON."""

    def test_fields(self) -> None:
        """A line has time, level, logger and message, and whom it is about; other fields stay out."""
        event = logged(LogLevel.warn, "{relay}: {backend} é\n", relay="web", backend="one", secret="SECRET")
        event["log_time"] = 1465839830.1004
        line = json_line(event)
        self.assertEqual(len(line.splitlines()), 1)
        self.assertEqual(
            json.loads(line),
            {
                "time": "2016-06-13T17:43:50.100+00:00",
                "level": "warn",
                "logger": "influxrelay.delivery.fanout.Relay",
                "message": "web: one é\n",
                "relay": "web",
                "backend": "one",
            },
        )
        self.assertNotIn("SECRET", line)

    def test_traceback(self) -> None:
        """A failure's traceback is a field of its own."""
        line = json.loads(json_line(logged(LogLevel.critical, "x", log_failure=failure())))
        self.assertEqual((line["level"], line["message"]), ("critical", "x"))
        self.assertIn("ValueError: one\ntwo", line["traceback"])


class TwistdTests(SynchronousTestCase):
    """Twisted's option ``--logger``."""

    PROGRAM = """
import sys
from twisted.application.app import AppLogger
from twisted.logger import Logger
AppLogger({"logger": __import__("twisted.python.reflect", fromlist=["x"]).namedAny(sys.argv[1])}).start(None)
print("printed")
Logger("influxrelay.x").error("{what} é", what="broken")
"""

    def run_with(self, logger: str) -> list[str]:
        """Run a program that logs through this logger, and return its lines."""
        ended = subprocess.run(
            [sys.executable, "-c", self.PROGRAM, logger],
            capture_output=True,
            cwd=PROJECT,
            env={"LC_ALL": "POSIX"},
            timeout=60,
            check=True,
        )
        self.assertEqual(ended.stderr, b"")
        return ended.stdout.decode().splitlines()

    def test_journal(self) -> None:
        """Everything that is logged or printed comes with its priority, in UTF-8."""
        *_, printed, broken = self.run_with("influxrelay.service.logs.journal")
        self.assertEqual((printed, broken), ("<6>[stdout] printed", "<3>broken é"))

    def test_json(self) -> None:
        """Every line is an object."""
        lines = [json.loads(line) for line in self.run_with("influxrelay.service.logs.json_lines")]
        self.assertEqual([line["message"] for line in lines[-2:]], ["printed", "broken é"])
