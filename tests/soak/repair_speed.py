"""Measure ``influxrelay repair`` against what the server takes when the same lines are written to it directly.

``python -m tests.soak.repair_speed [--points N] [--rounds N] [--consistency WORD] [--share PERCENT]``. Two influxd and
a relay with a journal run on this machine. One server has N points that the other lacks; each has a float and an
integer, in 100 series. A client writes 100 times a second through the relay, ten lines at a time, before and during the
repair. A round prints:

- how many points a second the server takes directly, on one connection, and how many the repair copies, from the start
  of the command to its end;
- the CPU that each process has used for a point, without that for the client's writes, by what these cost alone: that
  says more where others use the machine, too;
- the median and the 99th percentile of the client's writes, alone and during the repair.

In the end both servers have the same number of points.
"""

from __future__ import annotations

import argparse
import http.client
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles

from testing.servers import LOOPBACK, PROJECT, Influxd, Relay, free_port

SERIES = 100
BATCH = 5000  # lines
ALONE = 10.0  # seconds for which the client writes alone
_PARTS = ("source", "target", "relay", "command")
_START = 1_700_000_000 * 10**9
_CONFIG = """
[[http]]
name = "main"
bind-addr = "{host}:{port}"
journal = "{journal}"
output = [ {{ name = "a", location = "{a}/write" }}, {{ name = "b", location = "{b}/write" }} ]
"""


def batches(points: int) -> Iterator[bytes]:
    """Yield lines, some thousand at a time."""
    for first in range(0, points, BATCH):
        lines = (
            f"cpu,host=host{n % SERIES:03},region=eu-west usage={n % 1000 / 8},switches={n}i"
            f" {_START + n // SERIES * 10**10}"
            for n in range(first, min(first + BATCH, points))
        )
        yield "\n".join(lines).encode()


def write(server: Influxd, database: str, points: int) -> float:
    """Write points to a server, and return how many it takes a second."""
    bodies = list(batches(points))
    connection = http.client.HTTPConnection(LOOPBACK, server.http_port, timeout=60)
    began = time.monotonic()
    for body in bodies:
        connection.request("POST", f"/write?db={database}", body)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == http.client.NO_CONTENT, answer.status
    connection.close()
    return points / (time.monotonic() - began)


class Client(threading.Thread):
    """Writes through the relay at a steady pace.

    :ivar times: how long each write has taken, in seconds.
    """

    def __init__(self, port: int, database: str, consistency: str) -> None:
        super().__init__(name="client", daemon=True)
        self.times: list[float] = []
        self.failed = 0
        self._over = threading.Event()
        self._port = port
        self._target = f"/write?db={database}&consistency={consistency}"

    def run(self) -> None:
        """Write until told to end."""
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=60)
        due = time.monotonic()
        while not self._over.is_set():
            due = max(due + 0.01, time.monotonic() - 1)
            self._over.wait(max(0.0, due - time.monotonic()))
            now = time.time_ns()
            body = "\n".join(f"new,host=host{n} value={n} {now}" for n in range(10)).encode()
            began = time.monotonic()
            connection.request("POST", self._target, body)
            answer = connection.getresponse()
            answer.read()
            self.times.append(time.monotonic() - began)
            self.failed += answer.status != http.client.NO_CONTENT

    def end(self) -> list[float]:
        """Stop, and return the times."""
        self._over.set()
        self.join()
        assert not self.failed, f"{self.failed} writes have failed"
        return self.times


def _cpu(pid: int) -> float:
    """Return the seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _percentiles(times: list[float]) -> str:
    cuts = quantiles(times, n=100)
    return f"p50 {cuts[49] * 1000:.1f} ms, p99 {cuts[98] * 1000:.1f} ms"


def run(options: argparse.Namespace) -> None:
    """Measure once."""
    with tempfile.TemporaryDirectory(prefix="repair-") as name:
        directory = Path(name)
        port = free_port()
        a, b = (Influxd(directory / each) for each in "ab")
        config = _CONFIG.format(host=LOOPBACK, port=port, journal=directory / "journal", a=a.url, b=b.url)
        with a, b, Relay(directory / "relay", config, port) as relay:
            for server in (a, b):
                server.create_database("d")
                server.create_database("new")
            b.create_database("direct")
            direct = write(b, "direct", options.points)
            b.query("DROP DATABASE direct")
            write(a, "d", options.points)
            client = Client(port, "new", options.consistency)
            client.start()
            before = [_cpu(each.pid) for each in (a, b, relay)]
            began = time.monotonic()
            time.sleep(ALONE)
            alone = client.end()
            took = time.monotonic() - began
            usual = [(_cpu(each.pid) - then) / took for each, then in zip((a, b, relay), before, strict=True)]
            client = Client(port, "new", options.consistency)
            client.start()
            command = [sys.executable, "-c", "import sys; from influxrelay.cli import main; sys.exit(main())", "repair"]
            command += ["b", "--database", "d", "--config", str(relay.config), "--share", options.share]
            before = [_cpu(each.pid) for each in (a, b, relay)]
            began, of_children = time.monotonic(), _of_children()
            done = subprocess.run(command, check=False, cwd=PROJECT, capture_output=True, text=True)
            took = time.monotonic() - began
            during = client.end()
            used = [_cpu(each.pid) - then for each, then in zip((a, b, relay), before, strict=True)]
            used = [each - rate * took for each, rate in zip(used, usual, strict=True)]
            used.append(_of_children() - of_children)
            assert done.returncode == 0, done.stdout + done.stderr
            counted = [server.rows("SELECT count(usage) FROM cpu", "d")[0][1] for server in (a, b)]
            assert counted == [options.points] * 2, counted
        shown = ", ".join(f"{name} {each * 1e6 / options.points:.1f}" for name, each in zip(_PARTS, used, strict=True))
        sys.stdout.write(
            f"directly {direct:,.0f} points/s; repair {options.points / took:,.0f} points/s ({took:.1f} s)\n"
            f"CPU, us a point: {shown}\n"
            f"writes alone {_percentiles(alone)}; during the repair {_percentiles(during)}\n"
        )
        sys.stdout.flush()


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.repair_speed")
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--consistency", default="one")
    parser.add_argument("--share", default="60%")
    options = parser.parse_args()
    for _ in range(options.rounds):
        run(options)


if __name__ == "__main__":
    main()
