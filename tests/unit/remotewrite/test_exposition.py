"""Remote writes as text for people."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.remotewrite.exposition import lines
from testing.remote_write import Timeseries, version_1, version_2
from testing.remote_write_case import packed

SERIES = [
    Timeseries({"__name__": "up", "job": 'a "b"\n'}, [(1.0, 1_700_000_000_000), (0.25, -5)]),
    Timeseries({"__name__": "plain"}, [(float("inf"), 0)]),
    Timeseries({"job": "x"}, histograms=1),
    Timeseries({"__name__": "none"}, exemplars=1),
]
EXPECTED = [
    'up{job="a \\"b\\"\\n"} 1 1700000000000',
    'up{job="a \\"b\\"\\n"} 0.25 -5',
    "plain inf 0",
    '{job="x"} histogram 0',
    "# none has no samples",
]


class LinesTests(SynchronousTestCase):
    """What a body says."""

    def test_versions(self) -> None:
        """Each sample is a line with its labels, value and time, whatever the version."""
        self.assertEqual(list(lines(packed(version_1(SERIES)), 1)), EXPECTED)
        self.assertEqual(list(lines(packed(version_2(SERIES)), 2)), EXPECTED)

    def test_garbage(self) -> None:
        """What is no body says so at its end."""
        whole = version_1(SERIES[:1])
        self.assertEqual(list(lines(packed(whole + b"\x0a\x05x"), 1))[:2], EXPECTED[:2])
        for body in (b"", b"garbage", packed(b"\x0a\x05x")):
            (line,) = lines(body, 1)
            self.assertTrue(line.startswith("# not a remote write: "), line)
