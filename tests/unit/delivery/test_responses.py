"""The reading of answers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.write import Reply
from influxrelay.delivery import responses as answers
from influxrelay.delivery.responses import (
    MAX_RETRY_AFTER,
    Verdict,
    comes_too_late,
    excerpt,
    is_presentable,
    judge,
    retry_after,
)
from testing.backends import BROKEN, PERMANENT_TEXTS, retry_later

TROUBLE = (Reply(408), Reply(425), Reply(429), Reply(301), Reply(304), Reply(100), BROKEN, Reply(503), Reply(599))


class AnswerTests(SynchronousTestCase):
    """The reading of answers."""

    def test_judge(self) -> None:
        """Each status has its verdict, and a permanent text counts only in a 5xx."""
        table = {
            Verdict.TAKEN: (200, 204, 299),
            Verdict.REFUSED: (400, 401, 403, 413, 422, 499),
            Verdict.MISDIRECTED: (404, 405),
            Verdict.NOT_NOW: (100, 199, 300, 301, 304, 399, 408, 425, 429, 500, 502, 503, 599),
        }
        for verdict, statuses in table.items():
            for status in statuses:
                self.assertIs(judge(Reply(status)), verdict, status)
        for text in PERMANENT_TEXTS:
            for status, verdict in ((500, Verdict.PERMANENT), (400, Verdict.REFUSED), (429, Verdict.NOT_NOW)):
                self.assertIs(judge(Reply(status, (), b"error: " + text.title() + b" x")), verdict)

    def test_database_not_found(self) -> None:
        """The text "database not found" can heal."""
        self.assertIs(judge(Reply(500, (), b"database not found")), Verdict.NOT_NOW)

    def test_presentable(self) -> None:
        """A client may see 5xx, 408, 425 and 429, and nothing that is no final answer."""
        for status in (500, 503, 599, 408, 425, 429):
            self.assertTrue(is_presentable(Reply(status)), status)
        for status in (100, 301, 304, 399):
            self.assertFalse(is_presentable(Reply(status)), status)

    def test_retry_after(self) -> None:
        """Seconds and dates are read, the past is now, an hour is the most, and nonsense is 0."""
        self.patch(answers, "time", lambda: 1_700_000_000.0)
        table = {
            "": 0,
            "0": 0,
            " 7 ": 7,
            "3600": 3600,
            "3601": MAX_RETRY_AFTER,
            "9" * 400: MAX_RETRY_AFTER,
            "-1": 0,
            "1.5": 0,
            "soon": 0,
            "Tue, 14 Nov 2023 22:13:50 GMT": 30,
            "Tue, 14 Nov 2023 22:13:10 GMT": 0,
            "Tue, 14 Nov 2123 22:13:10 GMT": MAX_RETRY_AFTER,
            "Tue, 99 Nov 2023 22:13:10 GMT": 0,
            "\u00e9": 0,
        }
        for value, seconds in table.items():
            self.assertAlmostEqual(retry_after(retry_later(value)), seconds, msg=value)
        self.assertEqual(retry_after(Reply(503)), 0)

    def test_retry_after_overflow(self) -> None:
        """Numbers that no calendar holds are nonsense like any other, and never raised."""
        for value in (
            "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
            "Mon, 99999999999999999999 Jan 2024 00:00:00 GMT",
            "Mon, 01 Jan 2024 00:00:00 +99999999999999999999",
        ):
            self.assertEqual(retry_after(retry_later(value)), 0, value)

    def test_comes_too_late(self) -> None:
        """A sample that is out of order, or too old, says that those before it are, too; other words do not."""
        for text, expected in (
            (b"out of order sample", True),
            (b"Out-of-order", True),
            (b"too old sample", True),
            (b"out of bounds", False),
            (b"duplicate sample for timestamp", False),
            (b"", False),
        ):
            self.assertIs(comes_too_late(Reply(400, (), text)), expected, text)

    def test_excerpt(self) -> None:
        """An excerpt is the status and at most 200 bytes of the text, whatever they are."""
        self.assertEqual(excerpt(Reply(500)), "500")
        self.assertEqual(excerpt(Reply(500, (), b" \n")), "500")
        self.assertEqual(excerpt(Reply(500, (), b"why\n")), "500: why")
        self.assertEqual(excerpt(Reply(500, (), b"\xff")), "500: \ufffd")
        self.assertEqual(len(excerpt(Reply(500, (), b"x" * 10_000))), len("500: ") + 200)
