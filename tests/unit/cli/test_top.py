"""What ``influxrelay top`` shows: answers in, lines out."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.cli.top import BAD, FAINT, GOOD, Line, screen, text

SIZES = ((80, 24), (40, 10), (20, 5), (200, 60), (80, 3))


def row(backend: str = "one", state: str = "up", **changed: Any) -> dict[str, Any]:
    """Return what is told of a backend."""
    return {
        "listener": "main",
        "backend": backend,
        "state": state,
        "queue": "journal",
        "writes": 0,
        "bytes": 0,
        "oldest_age": None,
        "drops": [],
        "dead_letters": 0,
        "accepted_rate": 12.0,
        "sent_rate": 12.0,
        "time_to_go": None,
        **changed,
    }


def answer(*rows: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """Return what the relay tells."""
    return {
        "host": "relay1",
        "version": "1.0",
        "started": "2026-12-01T00:00:00Z",
        "uptime": 7380.0,
        "time": "2026-12-01T02:03:00Z",
        "healthy": True,
        "troubles": [],
        "listeners": [{"name": "main", "bind_addr": ":9096", "ready": True, "problem": ""}],
        "queues": list(rows or (row(),)),
        "dead_letters": [],
        "log": [],
        **changed,
    }


TROUBLE = {
    "listener": "main",
    "backend": "two",
    "what": "takes no writes",
    "since": "2026-12-01T02:00:00Z",
    "advice": ["check that it runs and can be reached; " * 5, "lost: 7 writes"],
}
DOWN = row(
    "two",
    "trouble",
    writes=12345,
    bytes=1 << 20,
    oldest_age=180.0,
    drops=[{"writes": 7}],
    dead_letters=2,
    sent_rate=0.0,
)
ONCE = {"times": 1, "first": "2026-12-01T02:00:00Z"}
LETTER = {
    "time": "2026-12-01T01:00:00Z",
    "listener": "main",
    "backend": "two",
    "database": "db",
    "status": 400,
    "message": "field type conflict",
    "first_line": "cpu v=1\x1b[2J",
    "kind": "lines",
}
OUTAGE = answer(
    row(),
    DOWN,
    troubles=[TROUBLE],
    dead_letters=[LETTER] * 5,
    log=[
        {"time": "2026-12-01T02:00:00Z", "level": "warn", "message": f"message {number}", **ONCE}
        for number in range(30)
    ],
)


class ScreenTests(SynchronousTestCase):
    """The screen."""

    def test_well(self) -> None:
        """A relay without troubles says so, and shows each listener and backend."""
        lines = screen(answer(), 80, 24).lines
        self.assertEqual(lines[1], Line("All is well", GOOD))
        self.assertEqual(lines[0].text, f"{'relay1: influxrelay 1.0, up for 2h3m':60}2026-12-01T02:03:00Z")
        self.assertEqual(lines[4].text, "main (:9096): takes writes")
        self.assertEqual(lines[5].text.split(), ["one", "up", "12.0", "12.0", "0", "-", "-", "0", "0"])

    def test_outage(self) -> None:
        """In 80 x 24 one sees what is wrong, since when, what waits, what is lost, what to do, and the log."""
        lines = screen(OUTAGE, 80, 24, foot="q quits").lines
        shown = [line.text for line in lines]
        self.assertEqual(lines[1], Line("1 thing to look at; writes of clients are accepted", BAD))
        self.assertIn("main/two: takes no writes since 02:00:00Z (3m0s)", shown)
        (two,) = [line for line in lines if line.text.startswith("  two")]
        self.assertEqual(two.look, BAD)
        cells = ["two", "trouble", "12.0", "0.0", "12,345", "1.0", "MiB", "3m0s", "7", "2"]
        self.assertEqual(two.text.split(), cells)
        for words in ("  lost: 7 writes", "Dead letters", "400 field type", "more lines: arrow keys"):
            self.assertTrue(any(words in line for line in shown), (words, shown))
        self.assertEqual(shown[-1], "q quits")

    def test_scroll(self) -> None:
        """What has no room is reached by scrolling, not beyond the end, and the table stays."""
        first = screen(OUTAGE, 80, 24, foot="q quits")
        self.assertEqual(first.skip, 0)
        next_ = screen(OUTAGE, 80, 24, foot="q quits", skip=1)
        self.assertEqual((next_.skip, next_.lines[:7]), (1, first.lines[:7]))
        self.assertEqual(next_.lines[7], first.lines[8])
        last = screen(OUTAGE, 80, 24, foot="q quits", skip=1000)
        self.assertEqual(last.lines[-3].text, "  02:00:00Z message 0")
        self.assertEqual(screen(OUTAGE, 80, 24, foot="q quits", skip=-5), first)

    def test_sizes(self) -> None:
        """Whatever the size, no line is too long, there are not too many, and the end is where it belongs."""
        many = answer(*(row(f"backend-{number}") for number in range(100)), DOWN, troubles=[TROUBLE] * 30)
        for found in (answer(), OUTAGE, many):
            for width, height in SIZES:
                lines = screen(found, width, height, foot="q quits").lines
                self.assertLessEqual(len(lines), height, (width, height))
                self.assertLessEqual(max(len(line.text) for line in lines), width)
                self.assertEqual(lines[-1], Line("q quits", FAINT))

    def test_many(self) -> None:
        """Where there are too many backends those that are up are left out, and counted."""
        many = answer(*(row(f"backend-{number}") for number in range(100)), DOWN, troubles=[TROUBLE])
        shown = "\n".join(line.text for line in screen(many, 80, 24).lines)
        self.assertIn("  two ", shown)
        self.assertRegex(shown, r"\(\d\d backends more: enlarge the window\)")
        self.assertIn("two: takes no writes", shown)

    def test_old(self) -> None:
        """While the relay does not answer that is the headline."""
        self.assertEqual(screen(answer(), 80, 24, note="No answer for 4s").lines[1], Line("No answer for 4s", BAD))

    def test_refusing(self) -> None:
        """A listener that refuses writes says why, and what is left of backends that are gone is shown."""
        gone = {**row("old", "removed", accepted_rate=None, sent_rate=None, writes=None), "listener": "gone"}
        listener = {"name": "main", "bind_addr": "", "ready": True, "problem": "no backend"}
        lines = screen(answer(row(), gone, listeners=[listener]), 80, 24).lines
        self.assertIn(Line("main: refuses writes: no backend", BAD), lines)
        self.assertTrue(any(line.text.startswith("  old") and line.look == BAD for line in lines))

    def test_text(self) -> None:
        """As text it is all there, without what a terminal would obey."""
        shown = text(OUTAGE)
        self.assertIn("message 0", shown)
        self.assertNotIn("\x1b", shown)
        behind = row("two", "behind", writes=100, time_to_go=60.0)
        self.assertIn("main/two: at this rate caught up in 1m0s", text(answer(behind)))
