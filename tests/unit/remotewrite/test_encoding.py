"""Remote writes that are made of samples."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.remotewrite.encoding import body
from influxrelay.remotewrite.snappy import unpack
from testing.remote_write import Timeseries, version_1


class EncodingTests(SynchronousTestCase):
    """Bodies."""

    def test_same_as_the_tests_own(self) -> None:
        """A body is what another writer makes of the same samples."""
        long = [(float(n), n * 1000) for n in range(300)]
        cases = [
            ({"__name__": "m", "é": 'x"\n' * 100}, [(1.5, 1_700_000_000_123), (float("-inf"), -1), (-0.0, 0)]),
            ({"__name__": "n"}, long),
            ({"__name__": "o"}, []),
        ]
        series = [(list(labels.items()), samples) for labels, samples in cases]
        self.assertEqual(unpack(body(series)), version_1([Timeseries(labels, each) for labels, each in cases]))
        self.assertEqual(unpack(body([])), b"")
