"""Compressed writes through a journal, in front of real servers."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from testing.servers import LOOPBACK, START_TIMEOUT, Influxd, Relay, free_port, send
from testing.victoria_metrics import VictoriaMetrics

COUNT = 60
NOW = 1_700_000_000  # seconds since the epoch


class JournalTests(SynchronousTestCase):
    """InfluxDB of 1.x and VictoriaMetrics, which takes the API of 2.x."""

    def setUp(self) -> None:
        """Start the first one, and a relay with a journal."""
        base = Path(tempfile.mkdtemp(prefix="gzip-"))
        self.addCleanup(shutil.rmtree, base, ignore_errors=True)
        self.influx, self.metrics, port = Influxd(base / "influx"), VictoriaMetrics(base / "metrics"), free_port()
        text = f"""
            [[http]]
            bind-addr = "{LOOPBACK}:{port}"
            journal = "{base / "journal"}"
            [[http.output]]
            name = "influx"
            location = "{self.influx.url}/write"
            [[http.output]]
            name = "metrics"
            location = "{self.metrics.url}"
            api = "v2"
            org = "any"
            max-delay-interval = "300ms"
        """
        self.relay = Relay(base / "relay", text, port)
        for each in (self.relay, self.influx, self.metrics):
            self.addCleanup(each.kill)
        self.influx.start()
        self.influx.create_database("db")
        self.relay.start()

    def write(self, first: int, statuses: list[int]) -> None:
        """Write some values, each compressed."""
        for number in range(first, first + COUNT // 4):
            body = gzip.compress(b"m,host=h%d v=%d %d000000000" % (number, number, NOW))
            headers = {"Content-Encoding": "gzip"}
            statuses.append(send("POST", f"{self.relay.url}/write?db=db", body, headers)[0])

    def test_backlog(self) -> None:
        """What one server has got live the other one gets from the journal, merged, and it means the same."""
        statuses: list[int] = []
        writers = [threading.Thread(target=self.write, args=(first, statuses)) for first in range(0, COUNT, COUNT // 4)]
        for each in writers:
            each.start()
        for each in writers:
            each.join()
        self.assertEqual(statuses, [204] * COUNT)
        self.relay.kill()
        self.metrics.start()
        self.relay.start()
        rows = self.influx.rows("SELECT v, host FROM m", "db")
        self.assertEqual({row[2]: row[1] for row in rows}, {f"h{number}": number for number in range(COUNT)})
        wanted = {f"h{number}": (number, NOW * 1000) for number in range(COUNT)}
        deadline = time.monotonic() + START_TIMEOUT
        while self.metrics.samples("m_v") != wanted:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.2)
