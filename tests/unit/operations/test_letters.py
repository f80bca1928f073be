"""Dead letters, as an operator sees them."""

from __future__ import annotations

from base64 import b64decode

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.cli import render
from influxrelay.core.write import Destination, Write
from influxrelay.journal.records import DeadLetter
from influxrelay.operations.views import summary, whole
from influxrelay.remotewrite.headers import with_media_type
from testing.remote_write import version_1, version_2
from testing.remote_write_case import V1, V2, one_series, packed

SECRET = b"Bearer SECRET"


def letter(body: bytes, content_type: bytes) -> DeadLetter:
    """Return a remote write that a backend has refused."""
    where = Destination(b"prometheus", b"", b"remote write\nX-Scope-OrgID: a", (SECRET, b"", b""))
    write = Write(where, with_media_type(b"db=prometheus", content_type, b""), SECRET, body)
    return DeadLetter(7, 1_700_000_000.0, "one", 422, "bad label of SECRET", write)


class RemoteWriteTests(SynchronousTestCase):
    """Dead letters that are remote writes."""

    def test_readable(self) -> None:
        """They are listed with their first sample, and shown sample by sample, with the body for programs."""
        series = [*one_series("up", 1.0, 0.0), *one_series("down")]
        for body, content_type in ((packed(version_1(series)), V1), (packed(version_2(series)), V2)):
            dead = letter(body, content_type)
            listed, shown = summary("main", "7", dead), whole("main", "7", dead)
            self.assertEqual(listed["first_line"], 'up{job="test"} 1 1700000000000')
            self.assertEqual(
                shown["lines"].splitlines(),
                [
                    'up{job="test"} 1 1700000000000',
                    'up{job="test"} 0 1700000001000',
                    'down{job="test"} 1 1700000000000',
                ],
            )
            self.assertEqual(b64decode(shown["base64"]), body)
            table, page = render.letters({"dead_letters": [listed]}), render.letter(shown)
            self.assertIn("prometheus (remote write)", table)
            self.assertIn('down{job="test"} 1 1700000000000', page)
            self.assertNotIn("SECRET", f"{listed}{table}{page}")

    def test_garbage(self) -> None:
        """What is no remote write after all is listed, too."""
        self.assertIn("not a remote write", summary("main", "7", letter(b"x", V1))["first_line"])
