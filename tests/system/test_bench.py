"""The benchmark as it is run by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from testing.servers import PROJECT, free_port, port_is_free


def free_ports(count: int) -> int:
    """Return the first of so many neighbouring ports that are free."""
    while True:
        first = free_port()
        if all(port_is_free(port) and port_is_free(port, "udp") for port in range(first, first + count)):
            return first


class BenchTests(SynchronousTestCase):
    """``python -m bench``."""

    def test_quick(self) -> None:
        """A quick run measures every contender, finds each acknowledged write at both sinks, and saves the figures."""
        file = Path(self.mktemp()).resolve()
        words = ["--quick", "--only", "^(64x1000 gzip|udp)$", "--goals", "--save", str(file)]
        done = subprocess.run(
            [sys.executable, "-m", "bench", *words, "--first-port", str(free_ports(11))],
            capture_output=True,
            text=True,
            cwd=PROJECT,
            timeout=120,
            check=False,
        )
        self.assertIn(done.returncode, (0, 1), done.stderr)
        saved = json.loads(file.read_text())
        # A loaded machine may lose datagrams.
        self.assertEqual([each for each in saved["troubles"] if not each.startswith("udp")], [], done.stderr)
        results = saved["results"]
        everyone = {"influxrelay", "with a journal", "nginx mirror", "HAProxy to one", "no relay"}
        self.assertEqual(results["64x1000 gzip"].keys(), everyone)
        self.assertEqual(results["udp"].keys(), {"influxrelay"})
        self.assertIn("64x1000 gzip: cpu, with a journal / influxrelay", done.stdout)

    def test_queries(self) -> None:
        """Queries are measured directly and through the relay."""
        command = [sys.executable, "-m", "bench.queries", "--rows", "1000", "--small", "3", "--rounds", "1"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        for name in ("one row, p50", "1,000 rows, whole", "1,000 rows, chunked"):
            self.assertRegex(done.stdout, rf"(?m)^{name}  ")

    def test_hotspots(self) -> None:
        """A profile of the relay under load lists functions of ours."""
        command = [sys.executable, "-m", "bench.hotspots", "1x1", "--seconds", "1", "--first-port", str(free_ports(11))]
        done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertRegex(done.stdout, r"(?m)^ *[\d/]+ .*fanout\.py:\d+\(\w+\)$")

    def test_remote_write(self) -> None:
        """Remote writes are measured beside vmagent."""
        words = ["--seconds", "1", "--rounds", "1", "--connections", "4", "--samples", "10"]
        command = [sys.executable, "-m", "bench.remote_write", *words, "--first-port", str(free_ports(11))]
        done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertRegex(done.stdout, r"(?m)^influxrelay +[\d,]+ +[\d,]+$")
        self.assertRegex(done.stdout, r"(?m)^vmagent +[\d,]+ +[\d,]+$")
