"""What Prometheus' compliance suite asks of receivers of remote write 2.0, asked of the relay before such a receiver.

The cases and their counts are those of ``remotewrite/receiver`` in prometheus/compliance.
"""

from __future__ import annotations

import math
import struct
import time

from testing.remote_write import Timeseries, version_2
from testing.remote_write_case import RemoteWriteTestCase, packed, post, unpacked, written
from testing.scripted import Answer, BackendConnection, ScriptedBackend

NOW = time.time_ns() // 1_000_000
STALE_NAN = struct.unpack(">d", bytes.fromhex("7ff0000000000002"))[0]
VALUES = {"1.0": 1.0, "StaleNaN": STALE_NAN, "NaN": math.nan, "Inf": math.inf, "-Inf": -math.inf}
UP = {"__name__": "up"}
INSTANCE = {"__name__": "up", "job": "testjob", "instance": "localhost:9090"}
Counts = tuple[int, int, int]


def one(labels: dict[str, str], value: float = 1.0, *, exemplars: int = 0, histograms: int = 0) -> Timeseries:
    """Return a series with one sample, or with histograms instead."""
    samples = [] if histograms else [(value, NOW)]
    return Timeseries(labels, samples, exemplars=exemplars, histograms=histograms)


def instances(*ports: int, value: float = 1.0) -> list[Timeseries]:
    """Return a series for each port."""
    return [one({"__name__": "up", "job": "testjob", "instance": f"localhost:{port}"}, value) for port in ports]


CASES: dict[str, tuple[list[Timeseries], Counts]] = {
    "sample with exemplar": ([one({"__name__": "http_requests_total", "job": "api"}, exemplars=1)], (1, 0, 1)),
    "unicode": ([one({"__name__": "unicode_test", "region": "🌍"}, 100.0, exemplars=1)], (1, 0, 1)),
    "several exemplars": (
        [
            one({"__name__": "request_duration", "method": "GET"}, 0.1, exemplars=1),
            one({"__name__": "request_duration", "method": "POST"}, 0.25, exemplars=1),
            one({"__name__": "error_count", "service": "payment"}, exemplars=1),
        ],
        (3, 0, 3),
    ),
    "histogram": ([one({"__name__": "request_duration_seconds"}, histograms=1)], (0, 1, 0)),
    "histogram with exemplar": (
        [one({"__name__": "request_duration_seconds", "service": "auth"}, histograms=1, exemplars=1)],
        (0, 1, 1),
    ),
    "two histograms, one exemplar": (
        [
            one({"__name__": "response_time_hist", "endpoint": "/api/v1/users"}, histograms=1, exemplars=1),
            one({"__name__": "request_size_hist", "method": "POST"}, histograms=1),
        ],
        (0, 2, 1),
    ),
    "two samples, one exemplar": (
        [
            one({"__name__": "cpu_usage", "instance": "server1"}, 0.85, exemplars=1),
            one({"__name__": "memory_usage", "instance": "server1"}, 8589934592.0),
        ],
        (2, 0, 1),
    ),
    "two families": (
        [
            one({"__name__": "http_requests_total", "status": "200"}, 1000.0, exemplars=1),
            one({"__name__": "temperature_celsius", "location": "datacenter1"}, 23.5),
        ],
        (2, 0, 1),
    ),
    "exemplar without data": ([Timeseries(UP, exemplars=1)], (0, 0, 1)),
    "metadata without data": ([Timeseries({"__name__": "orphan_metric"})], (0, 0, 0)),
    "a thousand samples": ([one({"__name__": "m", "n": str(number)}, number) for number in range(1000)], (1000, 0, 0)),
}


class ReceiverTests(RemoteWriteTestCase):
    """The relay, as a sender of 2.0 sees it."""

    def receiver(self) -> ScriptedBackend:
        """Start a receiver of 2.0, which takes what has a name, and knows the cases' bodies."""
        backend = self.backend()
        backend.script.clear()
        backend.script.append(lambda connection: self._receive(backend, connection))
        return backend

    def _receive(self, backend: ScriptedBackend, connection: BackendConnection) -> None:
        series = self.sent
        assert unpacked(backend.requests[-1].body) == version_2(series)
        good = [each for each in series if each.labels.get("__name__")]
        counts = (
            sum(len(each.samples) for each in good),
            sum(each.histograms for each in good),
            sum(each.exemplars for each in good),
        )
        status, body = (204, b"") if len(good) == len(series) else (400, b"invalid metric name or labels\n")
        written(status, *counts, body=body)(connection)

    async def judge(self, series: list[Timeseries], counts: Counts, *, success: bool = True) -> None:
        """Send a request, and look at the answer as the suite does."""
        self.sent = series
        found = await self.ask(self.relay(self.prometheus(self.receiver())), post(series, version=2))
        told = self.told(found)
        if success:
            self.assertEqual((found.status, told), (204, counts))
        else:
            self.assertEqual(found.status, 400)
            self.assertTrue(all(each <= most for each, most in zip(told, counts, strict=True)))

    def told(self, found: Answer) -> Counts:
        """Return what an answer says was written."""
        samples, histograms, exemplars = (
            int(found.header(f"X-Prometheus-Remote-Write-{name}-Written") or b"0")
            for name in ("Samples", "Histograms", "Exemplars")
        )
        return samples, histograms, exemplars

    async def test_bad_content_types(self) -> None:
        """Other types are 415, whatever the body."""
        relay = self.relay(self.prometheus(self.receiver()))
        for kind in (b"application/json", b"image/png"):
            found = await self.ask(relay, post([one(UP)], content_type=kind, version=2))
            self.assertEqual(found.status, 415)

    async def test_bad_encodings(self) -> None:
        """Other encodings are 415, whatever the body."""
        relay = self.relay(self.prometheus(self.receiver()))
        for encoding in (b"gzip", b"deflate"):
            found = await self.ask(relay, post([one(UP)], encoding=encoding, version=2))
            self.assertEqual(found.status, 415)

    async def test_corrupt_body(self) -> None:
        """A body whose first byte is another is 400, in both versions."""
        relay = self.relay(self.prometheus(self.receiver()))
        for version, first in ((2, b"0"), (1, b"\xff")):
            whole = post([one(UP)], version=version)
            body = whole[whole.index(b"\r\n\r\n") + 4 :]
            found = await self.ask(relay, whole.removesuffix(body) + first + body[1:])
            self.assertEqual((found.status, self.told(found)), (400, (0, 0, 0)))
        self.assertNotEqual(packed(b"x"), b"x")

    async def test_single_metric(self) -> None:
        """One sample with any labels and any value is written; one without a name is refused."""
        for value in VALUES.values():
            for labels in (
                UP,
                INSTANCE,
                {"__name__": "up", "job": "test\njob\n", "instance": "localhost:9090"},
                {"__name__": "resource.cpu.usage", "job.name": "testjob"},
                {"__name__": "resource cpu usage", "job name": "testjob"},
            ):
                await self.judge([one(labels, value)], (1, 0, 0))
            for labels in ({"job": "testjob"}, {}):
                await self.judge([one(labels, value)], (1, 0, 0), success=False)

    async def test_multiple_metrics(self) -> None:
        """Of several series those with a name count, and the others make it 400."""
        nameless = one({"job": "testjob", "instance": "localhost:9090"})
        for value in VALUES.values():
            await self.judge(instances(9090, 9091, 9092, 9093, value=value), (4, 0, 0))
            await self.judge([nameless] * 4, (0, 0, 0), success=False)
            await self.judge([nameless, *instances(9091, 9092, 9093, value=value)], (3, 0, 0), success=False)

    async def test_old_version(self) -> None:
        """A request of 1.0 without a version header is taken, and nothing is said of what was written."""
        relay = self.relay(self.prometheus(self.backend()))
        found = await self.ask(relay, post([one(INSTANCE), one({"__name__": "http_requests_total"}, 100.0)]))
        self.assertEqual((found.status, self.told(found)), (204, (0, 0, 0)))


def _add(name: str, series: list[Timeseries], counts: Counts) -> None:
    async def test(self: ReceiverTests) -> None:
        await self.judge(series, counts)

    test.__doc__ = f"What is written is told: {name}."
    setattr(ReceiverTests, f"test_{name.replace(' ', '_').replace(',', '')}", test)


for _name, (_series, _counts) in CASES.items():
    _add(_name, _series, _counts)
