"""Remote writes through a relay in the test's own reactor, between scripted backends."""

from __future__ import annotations

from typing import Any

import cramjam

from influxrelay.config.settings import HTTPOutputConfig
from testing.remote_write import Timeseries, version_1, version_2
from testing.scripted import LOOPBACK, Action, RelayTestCase, ScriptedBackend, answer, request

V1 = b"application/x-protobuf"
V2 = b"application/x-protobuf;proto=io.prometheus.write.v2.Request"
PROMETHEUS_PATH = b"/api/v1/write"
INFLUXDB_PATH = b"/api/v1/prom/write?db=db"
NOW = 1_700_000_000_000  # milliseconds


def one_series(name: str = "up", *values: float) -> list[Timeseries]:
    """Return a series with these values, a second apart."""
    samples = [(value, NOW + 1000 * index) for index, value in enumerate(values or (1.0,))]
    return [Timeseries({"__name__": name, "job": "test"}, samples)]


def packed(message: bytes) -> bytes:
    """Return a body of remote write."""
    return bytes(cramjam.snappy.compress_raw(message))


def unpacked(body: bytes) -> bytes:
    """Return what is in a body."""
    return bytes(cramjam.snappy.decompress_raw(body))


def post(
    series: list[Timeseries],
    *headers: bytes,
    path: bytes = PROMETHEUS_PATH,
    content_type: bytes = V1,
    encoding: bytes = b"snappy",
    version: int = 1,
) -> bytes:
    """Return the bytes of a remote write."""
    if version == 2 and content_type == V1:
        content_type = V2
    message = version_2(series) if version == 2 else version_1(series)
    return of_body(packed(message), *headers, path=path, content_type=content_type, encoding=encoding, version=version)


def of_body(
    body: bytes,
    *headers: bytes,
    path: bytes = PROMETHEUS_PATH,
    content_type: bytes = V1,
    encoding: bytes = b"snappy",
    version: int = 1,
) -> bytes:
    """Return the bytes of a remote write with a body that is packed already."""
    every = (
        b"Content-Type: " + content_type,
        b"Content-Encoding: " + encoding,
        b"X-Prometheus-Remote-Write-Version: " + (b"2.0.0" if version == 2 else b"0.1.0"),
        b"User-Agent: Prometheus/2.42.0",
    )
    return request(path, body, *every, *headers)


def written(status: int, samples: int, histograms: int = 0, exemplars: int = 0, body: bytes = b"") -> Action:
    """Answer as a receiver of 2.0 does."""
    counts = {b"Samples": samples, b"Histograms": histograms, b"Exemplars": exemplars}
    headers = [(b"X-Prometheus-Remote-Write-%b-Written" % name, b"%d" % count) for name, count in counts.items()]
    return answer(status, body, *headers)


STALE = answer(400, b"out of order sample\n", (b"Content-Type", b"text/plain; charset=utf-8"))


class RemoteWriteTestCase(RelayTestCase):
    """Has outputs of both types."""

    def prometheus(self, backend: ScriptedBackend, name: str = "prometheus", **settings: Any) -> HTTPOutputConfig:
        """Return the output that leads to a backend as to a Prometheus."""
        url = f"http://{LOOPBACK}:{backend.port}/api/v1/write"
        return HTTPOutputConfig(
            name=name, location=url, write_url=url, ping_url=url + "/ping", type="prometheus", **settings
        )

    def influxdb(self, backend: ScriptedBackend, name: str = "influxdb", **settings: Any) -> HTTPOutputConfig:
        """Return the output that leads to a backend as to an InfluxDB."""
        url = f"http://{LOOPBACK}:{backend.port}/api/v1/prom/write"
        return self.output(backend, name, write_prom_url=url, **settings)
