"""What is remembered of the last hour."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.template import flattenString

from influxrelay.operations.charts import chart
from influxrelay.operations.history import PERIOD, SPAN, History, Rates
from influxrelay.operations.recent_log import RecentLog

START = 1_700_000_000.0


def status(
    state: str = "up", submitted: int = 0, waiting: int | None = 0, age: float | None = None, lost: int = 0
) -> dict[str, Any]:
    """Return what ``/status`` shows of one backend, as far as it matters here."""
    row = {
        "listener": "main",
        "backend": "one",
        "state": state,
        "writes": waiting,
        "oldest_age": age,
        "drops": [{"writes": lost}],
        "queue_used": 10 * (waiting or 0),
    }
    listener = {"name": "main", "backends": [{"name": "one", "writes": submitted}]}
    return {"listeners": [listener], "queues": [row]}


class HistoryTests(SynchronousTestCase):
    """:class:`History`, on a clock that stands still."""

    def setUp(self) -> None:
        """Make it."""
        self.clock = Clock()
        self.now = START
        self.shown: Any = status()
        self.history = History(self.ask, self.clock, lambda: self.now)

    async def ask(self) -> dict[str, Any]:
        """Return what is shown now, or fail."""
        if isinstance(self.shown, Exception):
            raise self.shown
        shown: dict[str, Any] = self.shown
        return shown

    def look(self, shown: Any) -> None:
        """Let the next look see this."""
        self.shown = shown
        self.now += PERIOD
        self.clock.advance(PERIOD)

    def test_states(self) -> None:
        """A state is dated from the look that first showed it."""
        self.history.startService()
        self.look(status("trouble", waiting=3, age=7.0))
        self.look(status("trouble", waiting=4, age=12.0))
        track = self.history.track("main", "one")
        assert track is not None
        self.assertEqual((track.state, track.since), ("trouble", START + PERIOD))
        self.assertEqual([(each.waiting, each.age) for each in track.samples], [(0, 0.0), (3, 7.0), (4, 12.0)])
        self.assertIsNone(self.history.track("main", "two"))
        self.history.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_trouble(self) -> None:
        """Trouble with writes is dated from the first failure, which was before the look."""
        self.history.startService()
        shown = status("trouble", waiting=3)
        shown["listeners"][0]["backends"][0]["trouble_age"] = 3.5
        self.look(shown)
        shown["listeners"][0]["backends"][0]["trouble_age"] = 3.5 + PERIOD
        self.look(shown)
        track = self.history.track("main", "one")
        assert track is not None
        self.assertEqual(track.since, START + PERIOD - 3.5)
        self.history.stopService()

    def test_rates(self) -> None:
        """Rates are means over the span that is asked for; there are none after a single look, or a restart."""
        self.history.startService()
        track = self.history.track("main", "one")
        assert track is not None
        self.assertIsNone(track.rates(60.0))
        for submitted in (10, 20, 120):
            self.look(status(submitted=submitted))
        self.assertEqual(track.rates(PERIOD), Rates(100 / PERIOD, 100 / PERIOD))
        self.assertEqual(track.rates(3600.0), Rates(120 / (3 * PERIOD), 120 / (3 * PERIOD)))
        self.look(status(submitted=1))
        self.assertIsNone(track.rates(PERIOD))
        self.history.stopService()

    def test_sent(self) -> None:
        """What waits, and what is lost, was not sent; from what was comes the time until a queue is empty."""
        self.history.startService()
        track = self.history.track("main", "one")
        assert track is not None
        for submitted, waiting, lost, sent in (
            (100, 100, 0, 0),
            (200, 150, 20, 30),
            (210, 60, 20, 100),
            (220, 100, 0, 0),
        ):
            self.look(status(submitted=submitted, waiting=waiting, lost=lost))
            rates = track.rates(PERIOD)
            assert rates is not None
            self.assertEqual(rates.sent * PERIOD, sent)
        self.assertEqual(Rates(1.0, 5.0).time_to_go(100), 25.0)
        self.assertIsNone(Rates(1.0, 5.0).time_to_go(0))
        self.assertIsNone(Rates(5.0, 5.0).time_to_go(100))
        self.history.stopService()

    def test_span(self) -> None:
        """What is older than an hour is forgotten, and so is a backend that is gone."""
        self.history.add(status(waiting=1))
        self.now += SPAN + 1
        self.history.add(status(waiting=2))
        track = self.history.track("main", "one")
        assert track is not None
        self.assertEqual([each.waiting for each in track.samples], [2])
        self.history.add({"listeners": [], "queues": []})
        self.assertIsNone(self.history.track("main", "one"))

    def test_slow(self) -> None:
        """A look that takes long, since a large backlog is counted, is followed by a longer pause."""
        answers = [Deferred[Any]() for _ in range(2)]
        asked = list(answers)

        async def ask() -> Any:
            return await asked.pop(0)

        history = History(ask, self.clock, lambda: self.now)
        history.startService()
        self.clock.advance(2.0)
        answers[0].callback(status())
        for _ in range(7):
            self.clock.advance(PERIOD)
        self.assertEqual(len(asked), 1)
        self.clock.advance(PERIOD)
        self.assertEqual(len(asked), 0)
        answers[1].callback(status())
        history.stopService()

    def test_failure(self) -> None:
        """A look that fails is logged, and the next one is made."""
        self.history.startService()
        self.look(ValueError("the disk"))
        self.look(status(waiting=9))
        track = self.history.track("main", "one")
        assert track is not None
        self.assertEqual([each.waiting for each in track.samples], [0, 9])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.history.stopService()


class RecentLogTests(SynchronousTestCase):
    """:class:`RecentLog`."""

    def test_lines(self) -> None:
        """Warnings and errors are kept on one line each, the last thirty, and nothing else."""
        recent = RecentLog()
        log = Logger(namespace="here", observer=recent)
        log.info("not this")
        log.warn("a line\nand another")
        log.error("it is {what}", what="broken")
        self.assertEqual(
            [(each.level, each.text) for each in recent.lines],
            [("warn", "a line and another"), ("error", "it is broken")],
        )
        self.assertTrue(all(each.time > START for each in recent.lines))
        names = [f"{first}{second}" for first in "abcdefgh" for second in "abcde"]
        for name in names:
            log.emit(LogLevel.warn, "{name} " + "x" * 1000, name=name)
        self.assertEqual([each.text.split()[0] for each in recent.lines], names[-30:])
        self.assertEqual({len(each.text) for each in recent.lines}, {500})

    def test_repeated(self) -> None:
        """A line that comes again, with whatever numbers, is there once, with how often it came and since when."""
        recent = RecentLog()
        for number, text in enumerate(("two failed 40 times", "a line", "two failed 80 times")):
            recent({"log_level": LogLevel.warn, "log_time": float(number), "log_format": text})
        recent({"log_level": LogLevel.error, "log_time": 9.0, "log_format": "two failed 1 times"})
        self.assertEqual(
            [(each.text, each.times, each.first, each.time) for each in recent.lines],
            [("a line", 1, 1.0, 1.0), ("two failed 80 times", 2, 0.0, 2.0), ("two failed 1 times", 1, 9.0, 9.0)],
        )
        self.assertEqual([each.history() for each in recent.lines], ["", " (2 times since 1970-01-01T00:00:00Z)", ""])


class ChartTests(SynchronousTestCase):
    """:func:`chart`."""

    def check(self, points: list[tuple[float, float]], now: float, places: bytes, caption: bytes) -> None:
        """Check where the line goes, and what the caption says."""
        written = self.successResultOf(flattenString(None, chart("age", points, now, "{:g}".format)))
        self.assertIn(b'<polyline points="' + places + b'"', written)
        self.assertIn(b"<figcaption>" + caption + b"</figcaption>", written)

    def test_places(self) -> None:
        """The present is at the right, the largest value at the top, and what is older than an hour is left out."""
        now = 1.5 * SPAN
        points = [(0.0, 1.0), (0.75 * SPAN, 99.0), (SPAN, 0.0), (now, 99.0)]
        self.check(points, now, b"60.0,0.0 120.0,39.0 240.0,0.0", b"age, at most 99")

    def test_nothing(self) -> None:
        """A queue that was always empty is a line at the bottom."""
        self.check([(0.0, 0.0), (SPAN, 0.0)], SPAN, b"0.0,39.0 240.0,39.0", b"age, at most 0")
