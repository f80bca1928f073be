"""Remote writes through a real relay to real servers, one of which is down for a while."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from typing import Any

import cramjam
from twisted.trial.unittest import SynchronousTestCase

from testing.metric_servers import PrometheusReceiver, Receiver, Samples, VictoriaMetrics, Vmagent
from testing.remote_write import Timeseries, version_1
from testing.servers import LOOPBACK, Influxd, Relay, Server, free_port, send

LIMIT = 30  # seconds that anything may take
HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
    "User-Agent": "test/1",
}


def until(condition: Callable[[], Any], what: str) -> Any:
    """Return what the condition gives as soon as that is true."""
    deadline = time.monotonic() + LIMIT
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come to hold")
        time.sleep(0.1)
    return found


class RemoteWriteTests(SynchronousTestCase):
    """A relay before several servers."""

    def setUp(self) -> None:
        """Make a directory."""
        self.directory = Path(tempfile.mkdtemp(prefix="influxrelay-remote-write-"))
        self.addCleanup(rmtree, self.directory, ignore_errors=True)

    def start(self, server: Server) -> Any:
        """Start a server, which ends with the test."""
        server.start()
        self.addCleanup(server.kill)
        return server

    def relay(self, *outputs: str, **settings: str) -> Relay:
        """Start a relay with one listener."""
        port = free_port()
        lines = [f'{key.replace("_", "-")} = "{value}"' for key, value in settings.items()]
        text = f'[[http]]\nname = "metrics"\nbind-addr = "{LOOPBACK}:{port}"\n' + "\n".join(lines)
        for output in outputs:
            text += f"\n[[http.output]]\n{output}\n"
        relay: Relay = self.start(Relay(self.directory / "relay", text, port))
        return relay

    def output(self, server: Receiver, name: str) -> str:
        """Return the settings of an output that leads to a server."""
        return f'name = "{name}"\ntype = "prometheus"\nlocation = "{server.write_url}"\nmax-delay-interval = "300ms"'

    def write(self, relay: Relay, series: list[Timeseries]) -> int:
        """Write through the relay, and return the status."""
        body = bytes(cramjam.snappy.compress_raw(version_1(series)))
        return send("POST", f"{relay.url}/api/v1/write", body, HEADERS)[0]

    def batches(self, count: int) -> list[list[Timeseries]]:
        """Return writes with three series each, of rising times up to now."""
        now = time.time_ns() // 1_000_000 - 1000 * count
        return [
            [
                Timeseries({"__name__": "probe", "series": str(number)}, [(float(turn * number), now + 1000 * turn)])
                for number in range(3)
            ]
            for turn in range(count)
        ]

    def expected(self, batches: list[list[Timeseries]]) -> Samples:
        """Return the samples that a server has when it has all of these writes."""
        found: Samples = {}
        for series in (each for batch in batches for each in batch):
            found.setdefault(json.dumps(dict(series.labels), sort_keys=True), []).extend(series.samples)
        return found

    def assert_all(self, server: Receiver, expected: Samples) -> None:
        """Wait until a server has exactly these samples."""

        def has_all() -> bool:
            return server.samples('{__name__="probe"}') == expected

        until(has_all, f"all samples at {server.url}")

    def test_outage(self) -> None:
        """Two Prometheus, a VictoriaMetrics and an InfluxDB have the same samples after an outage of each kind."""
        first = self.start(PrometheusReceiver(self.directory / "first"))
        second = self.start(PrometheusReceiver(self.directory / "second"))
        third = self.start(VictoriaMetrics(self.directory / "third"))
        fourth = self.start(Influxd(self.directory / "fourth"))
        fourth.create_database("prometheus")
        influxdb = f'name = "i"\nlocation = "{fourth.url}/write"\nmax-delay-interval = "300ms"'
        outputs = [self.output(server, name) for server, name in ((first, "a"), (second, "b"), (third, "v"))]
        relay = self.relay(*outputs, influxdb, journal=str(self.directory / "journal"))
        batches = self.batches(60)
        down = {10: second, 25: third, 35: fourth}
        up = {30: second, 45: third, 55: fourth}
        for turn, batch in enumerate(batches):
            if turn in down:
                down[turn].stop()
            if turn in up:
                up[turn].start()
            self.assertEqual(self.write(relay, batch), 204)
            if turn == 20:  # what waits for the second one survives
                relay.kill()
                relay.start()
        expected = self.expected(batches)
        for server in (first, second, third):
            self.assert_all(server, expected)
        count = sum(map(len, expected.values()))
        until(lambda: fourth.rows("SELECT count(value) FROM probe", "prometheus")[0][1] == count, "all samples")

    def senders(self, sender: Callable[[str], Server], selector: str) -> None:
        """Let a sender write to two servers, of which one is down for a while, and compare them."""
        first = self.start(PrometheusReceiver(self.directory / "first", window="30m"))  # vmagent has several queues
        second = self.start(VictoriaMetrics(self.directory / "second"))
        relay = self.relay(
            self.output(first, "a") + "\nbuffer-size-mb = 50", self.output(second, "b") + "\nbuffer-size-mb = 50"
        )
        source = self.start(sender(f"{relay.url}/api/v1/write"))
        until(lambda: first.samples(selector) and second.samples(selector), "samples at both servers")
        for server, other in ((first, second), (second, first)):
            server.stop()
            before = sum(map(len, other.samples(selector).values()))
            until(lambda: sum(map(len, other.samples(selector).values())) > before + 3, "more samples")
            server.start()
        source.stop()
        until(lambda: first.samples(selector) == second.samples(selector), "equal samples")
        self.assertTrue(first.samples(selector))

    def test_prometheus_as_sender(self) -> None:
        """What Prometheus sends is the same on both servers, though each was down for a while."""
        self.senders(
            lambda url: PrometheusReceiver(self.directory / "sender", sends_to=url), 'process_open_fds{job="self"}'
        )

    def test_vmagent_as_sender(self) -> None:
        """What vmagent sends is the same on both servers, though each was down for a while."""
        self.senders(lambda url: Vmagent(self.directory / "sender", url), 'process_num_threads{job="agent"}')

    def test_halves(self) -> None:
        """A Prometheus that rolls back a body for one sample has all others in the end."""
        first = self.start(PrometheusReceiver(self.directory / "first"))
        second = self.start(VictoriaMetrics(self.directory / "second"))
        relay = self.relay(
            self.output(first, "a") + "\nbuffer-size-mb = 50", self.output(second, "b") + "\nbuffer-size-mb = 50"
        )
        now = time.time_ns() // 1_000_000
        late = Timeseries({"__name__": "probe", "series": "late"}, [(1.0, now)])
        self.assertEqual(self.write(relay, [late]), 204)
        self.assert_all(first, self.expected([[late]]))
        others = [Timeseries({"__name__": "probe", "series": str(n)}, [(1.0, now)]) for n in range(20)]
        stale = Timeseries({"__name__": "probe", "series": "late"}, [(2.0, now - 60_000)])
        self.assertEqual(self.write(relay, [*others[:7], stale, *others[7:]]), 204)
        self.assert_all(first, self.expected([[late], others]))
        self.assert_all(second, self.expected([[stale], [late], others]))
