"""What a backend's answer means."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.replies import json_error
from influxrelay.core.write import Reply
from influxrelay.delivery.responses import Verdict, is_misdirected, is_not_ready, is_presentable, judge

MISSING_1 = json_error(404, 'database not found: "x"')
MISSING_2 = Reply(404, (), b'{"code":"not found","message":"bucket \\"x\\" not found"}')
NO_ORGANIZATION = Reply(404, (), b'{"code":"not found","message":"organization name \\"x\\" not found"}')
PAGE = Reply(404, ((b"Content-Type", b"text/html"),), b"<html><body>404 Not Found</body></html>")
GO = Reply(404, ((b"Content-Type", b"text/plain; charset=utf-8"),), b"404 page not found\n")
GATEWAY = Reply(404, ((b"Content-Type", b"application/json"),), b'{"message":"no Route matched with those values"}')
METHOD = Reply(405, (), b"Method Not Allowed\n")
CUT_OFF = Reply(404, ((b"X-Influxdb-Error", b"of ours"),), b'{"error":"of ours"}\n', complete=False)


class VerdictTests(SynchronousTestCase):
    """The verdict on a write."""

    def test_verdicts(self) -> None:
        """Statuses decide, but for a 5xx with a text that cannot heal."""
        for status, body, verdict in (
            (200, b"", Verdict.TAKEN),
            (204, b"", Verdict.TAKEN),
            (400, b"", Verdict.REFUSED),
            (404, b"database not found", Verdict.REFUSED),
            (413, b"", Verdict.REFUSED),
            (408, b"", Verdict.NOT_NOW),
            (425, b"", Verdict.NOT_NOW),
            (429, b"", Verdict.NOT_NOW),
            (500, b"timeout", Verdict.NOT_NOW),
            (500, b"partial write: field type conflict", Verdict.PERMANENT),
            (503, b"Retention Policy not found", Verdict.PERMANENT),
            (101, b"", Verdict.NOT_NOW),
            (307, b"", Verdict.NOT_NOW),
            (600, b"", Verdict.NOT_NOW),
        ):
            self.assertIs(judge(Reply(status, (), body)), verdict, (status, body))

    def test_presentable(self) -> None:
        """When all backends fail, a client may see what means that it should come again."""
        for reply in (Reply(500), Reply(503), Reply(429), MISSING_1):
            self.assertTrue(is_presentable(reply), reply)
        for reply in (Reply(101), Reply(302), Reply(400), Reply(600)):
            self.assertFalse(is_presentable(reply), reply)


class NotFoundTests(SynchronousTestCase):
    """The kinds of 404 and 405."""

    def test_not_ready(self) -> None:
        """A missing database or bucket is known by InfluxDB's text, and by no other."""
        for reply in (MISSING_1, MISSING_2, Reply(404, (), b'bucket "my bucket" not found')):
            self.assertTrue(is_not_ready(reply), reply)
        for reply in (NO_ORGANIZATION, PAGE, GO, GATEWAY, CUT_OFF, Reply(500, (), MISSING_1.body)):
            self.assertFalse(is_not_ready(reply), reply)

    def test_misdirected(self) -> None:
        """What has not the form of InfluxDB's errors, cannot be read, or misses the organization is misdirected."""
        for reply in (
            PAGE,
            GO,
            GATEWAY,
            METHOD,
            CUT_OFF,
            NO_ORGANIZATION,
            Reply(404),
            Reply(404, (), b"[]"),
            Reply(405, (), b"\xff"),
        ):
            self.assertTrue(is_misdirected(reply), reply)
        told = Reply(404, (), b'{"code":"not found","message":"x"}')
        for reply in (MISSING_1, MISSING_2, told, json_error(404, "something else"), Reply(403, (), b"no")):
            self.assertFalse(is_misdirected(reply), reply)
