"""Commands on real servers that know PromQL: two of Prometheus, p and q, and two of VictoriaMetrics, v and w.

A third Prometheus, r, takes no samples that are more than a day late.
"""

from __future__ import annotations

import atexit
import struct
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from shutil import rmtree

import cramjam
from twisted.internet.threads import deferToThread

from influxrelay.verification import samples
from testing.metric_servers import PrometheusReceiver, Receiver, VictoriaMetrics
from testing.remote_write import Timeseries, version_1
from testing.servers import free_port, send
from testing.verify_case import CommandCase

NOW = int(time.time() - 120) * 1000
DAY = 86_400_000
STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]  # Prometheus, pkg/value: the end of a series
PROMETHEUS = 'type = "prometheus"\nname = "{}"\nlocation = "{}"'
HEADERS = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}


@cache
def servers() -> dict[str, Receiver]:
    """Return the servers, which are started once and end with this process."""
    directory = Path(tempfile.mkdtemp(prefix="influxrelay-promql-"))
    long = ("--storage.tsdb.retention.time=100y",)
    found: dict[str, Receiver] = {name: PrometheusReceiver(directory / name, long, window="10y") for name in "pq"}
    found["r"] = PrometheusReceiver(directory / "r", window="1d")
    found |= {name: VictoriaMetrics(directory / name) for name in "vw"}

    def stop() -> None:
        for each in found.values():
            each.kill()
        rmtree(directory, ignore_errors=True)

    atexit.register(stop)
    with ThreadPoolExecutor() as pool:
        list(pool.map(Receiver.start, found.values()))
    return found


def series(metric: str, *samples: tuple[float, int], **labels: str) -> Timeseries:
    """Return a series; times are milliseconds from now."""
    return Timeseries({"__name__": metric, **labels}, [(value, NOW + when) for value, when in samples])


def request_body(*series: Timeseries) -> bytes:
    """Return the body of a remote write."""
    return bytes(cramjam.snappy.compress_raw(version_1(series)))


def shown(when: int) -> str:
    """Return milliseconds from now as the command shows the time."""
    second, rest = divmod(NOW + when, 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)) + (f".{rest:03d}" if rest else "") + "Z"


class PrometheusCase(CommandCase):
    """Has the servers, and writes to them."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Have the servers, without what other tests have written."""
        await super().setUp()
        self.patch(samples.SampleComparison, "wait", lambda _: self.flush())
        self.servers = await deferToThread(servers)

    def write(self, names: str, *series: Timeseries) -> None:
        """Write to some servers."""
        body = request_body(*series)
        for name in names:
            status, answer = send("POST", self.servers[name].write_url, body, HEADERS)
            self.assertEqual(status, 204, answer)
        self.flush(names)

    def flush(self, names: str = "vw") -> None:
        """Have servers show at once what they were sent."""
        for name in set(names) & set("vw"):
            send("GET", f"{self.servers[name].url}/internal/force_flush")

    def config(self, names: str, *others: str, listener: str = "") -> str:
        """Return the path of a configuration with some servers as backends."""
        path = Path(self.mktemp())
        tables = [
            f'type = "prometheus"\nname = "{each}"\nlocation = "{self.servers[each].write_url}"' for each in names
        ]
        text = f'[[http]]\nname = "main"\nbind-addr = "127.0.0.1:{free_port()}"\n{listener}\n'
        path.write_text(text + "".join(f"[[http.output]]\n{each}\n" for each in (*tables, *others)))
        return str(path)
