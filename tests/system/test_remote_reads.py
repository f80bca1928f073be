"""Debian's Prometheus reads through the relay what was written through it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from testing.balancer_case import wait_until
from testing.directories import short_directory
from testing.metric_servers import PrometheusReceiver
from testing.query_system import system

SERIES = "prometheus_build_info"


class RemoteReadTests(SynchronousTestCase):
    """Two servers of InfluxDB 1.x, a relay, a Prometheus that writes there and another one that reads there."""

    def test_prometheus(self) -> None:
        """The reader shows the samples of the writer, also when the server that it has read from is down."""
        servers, relay = system()
        for server in servers:
            server.create_database("prom")
        directory = short_directory(self)
        writer = PrometheusReceiver(f"{directory}/writer", sends_to=f"{relay.url}/api/v1/prom/write?db=prom")
        reader = PrometheusReceiver(f"{directory}/reader", reads_from=f"{relay.url}/api/v1/prom/read?db=prom")
        with writer, reader:
            wait_until(lambda: reader.samples(SERIES), "the samples are read")
            wait_until(lambda: writer.samples(SERIES), "the samples are there")
            read, written = reader.samples(SERIES), writer.samples(SERIES)
            self.assertEqual(read.keys(), written.keys())
            (found,), (known,) = read.values(), written.values()
            self.assertLessEqual(set(found), set(known))
            for server in servers:
                server.kill()
                try:
                    wait_until(lambda: reader.samples(SERIES), "the other server answers")
                finally:
                    server.start()
