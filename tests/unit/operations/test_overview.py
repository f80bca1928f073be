"""What the page and ``influxrelay top`` say beyond ``/status``."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.operations.health import Health
from influxrelay.operations.history import History
from influxrelay.operations.overview import Facts
from influxrelay.operations.recent_log import LogLine

START = 1_700_000_000.0


class FactsTests(SynchronousTestCase):
    """:class:`Facts`."""

    def setUp(self) -> None:
        """Begin to remember."""
        self.now = START
        self.history = History(self.ask, Clock(), lambda: self.now)

    async def ask(self) -> dict[str, Any]:
        """Return nothing: nobody asks."""
        return {}

    def look(self, state: str = "trouble", **changed: Any) -> dict[str, Any]:
        """Let ten seconds go by, and return what is seen then."""
        row = {
            "listener": "main",
            "backend": "two",
            "state": state,
            "writes": 0,
            "oldest_age": None,
            "drops": [],
            "dead_letters": 0,
            "journal_trouble": "",
            "queue_used": 0,
            "queue_limit": 1000,
            "advice": ["it takes no writes", "copy it"],
            **changed,
        }
        listener = {
            "name": "main",
            "bind_addr": ":1",
            "ready": True,
            "problem": "",
            "backends": [{"name": "two", "writes": 0}],
            "verifications": [],
        }
        status = {"version": "1", "started": "", "uptime": 1.0, "listeners": [listener], "queues": [row]}
        self.now += 10
        self.history.add(status)
        return status

    def facts(self, status: dict[str, Any], *, passed: bool = True) -> Facts:
        """Return all that is known."""
        health = Health("relay", passed, "no backend", (), ())
        lines = [LogLine(START, "warn", "a line", 1, START)]
        return Facts(status, health, self.history, [], lines, self.now)

    def advice(self, status: dict[str, Any]) -> tuple[str, ...]:
        """Return what is said of the one backend."""
        (trouble,) = self.facts(status).troubles()
        return trouble.advice

    def test_filling(self) -> None:
        """Of a queue that fills it is told how full it is, and when it has no room."""
        self.look("up")
        self.look(queue_used=100)
        found = self.advice(self.look(queue_used=300))
        words = "its queue is 30% full (300 B of 1000 B); at this rate full in 46s"
        self.assertEqual(found, ("it takes no writes", words, "copy it"))

    def test_emptying(self) -> None:
        """Of a queue that does not fill it is told how full it is."""
        self.look("behind", queue_used=500)
        words = "its queue is 30% full (300 B of 1000 B)"
        self.assertEqual(self.advice(self.look("behind", queue_used=300))[1], words)

    def test_losing(self) -> None:
        """Of a queue without room it is told how much is lost at the moment."""
        self.look(queue_used=1000)
        found = self.advice(self.look(queue_used=1000, drops=[{"writes": 25}]))
        self.assertEqual(found[1], "it is losing 2.5 writes a second: its queue has no room")

    def test_no_limit(self) -> None:
        """Of a backend that is up, and of a queue without a limit, nothing is added."""
        for changed in ({"state": "up", "queue_used": 1}, {"queue_limit": None, "queue_used": 5}):
            self.assertEqual(self.advice(self.look(**changed)), ("it takes no writes", "copy it"))

    def test_up(self) -> None:
        """Of a backend that is up it is told why it is to be looked at."""
        for changed, words in (
            ({"journal_trouble": "disk full", "drops": [{"writes": 1}]}, "up, but the journal does not work"),
            ({"drops": [{"writes": 1}], "dead_letters": 1}, "up, but it has lost writes"),
            ({"dead_letters": 1}, "up, but it has refused writes"),
            ({}, "up, but see below"),
        ):
            (trouble,) = self.facts(self.look("up", **changed)).troubles()
            self.assertEqual((trouble.what, trouble.since), (words, None))

    def test_order(self) -> None:
        """That writes are refused comes first; differences of a verification come last."""
        status = self.look()
        verification = {"equal": False, "differences": 2, "time": "2026-12-01T00:00:00Z"}
        status["listeners"][0]["verifications"] = [verification]
        found = [each.what for each in self.facts(status, passed=False).troubles()]
        self.assertEqual(
            found,
            [
                "Writes are refused: no backend",
                "takes no writes",
                "its backends differed in 2 places at 2026-12-01T00:00:00Z",
            ],
        )

    def test_listener(self) -> None:
        """One listener is shown alone, with what concerns all."""
        facts = self.facts(self.look(), passed=False)
        self.assertEqual(len(facts.show("main")["troubles"]), 2)
        other = facts.show("other")
        self.assertEqual((len(other["troubles"]), other["listeners"], other["queues"]), (1, [], []))
        self.assertEqual(other["log"][0]["message"], "a line")
