"""Measure remote writes of Prometheus beside vmagent's forwarding: python -m bench.remote_write.

wrk posts requests of version 1.0 to the relay and to vmagent in turn; two sinks that answer 204 stand behind each. What
counts is the CPU time from the first request until all has been passed on, for each request. vmagent answers as soon as
a request is in its queues, the relay when a sink has it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cramjam

from bench import wrk
from bench.backends import Backends, Sinks
from bench.contenders import Contender, Relay, influxrelay
from bench.processes import Usage
from bench.report import table
from bench.scenarios import Scenario
from bench.testbed import Ports, Testbed
from testing.certificates import Authority
from testing.remote_write import Timeseries, version_1
from testing.servers import LOOPBACK, Server, find_program, send

_FIRST_PORT = 18340  # not where a benchmark runs, which may be under way
_BODIES = 8  # with values and times of their own
_IDLE = 0.03  # seconds of CPU in a second
_NOW = 1_700_000_000_000
_REQUEST = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/x-protobuf"
wrk.headers["Content-Encoding"] = "snappy"
wrk.headers["X-Prometheus-Remote-Write-Version"] = "0.1.0"
local bodies = {{ {bodies} }}
local number = 0
request = function()
    number = number % #bodies + 1
    return wrk.format(nil, nil, nil, bodies[number])
end
"""
_RELAY = """\
[[http]]
name = "bench"
bind-addr = "{address}"
output = [
    {{ name = "a", type = "prometheus", location = "http://{a}/api/v1/write" }},
    {{ name = "b", type = "prometheus", location = "http://{b}/api/v1/write" }},
]
"""


def request(samples: int, number: int) -> bytes:
    """Return a body with so many series of one sample each, as node_exporter's are labelled."""
    series = [
        Timeseries(
            {
                "__name__": f"node_cpu_seconds_total_{each % 40}",
                "cpu": str(each % 32),
                "instance": f"10.0.{each % 7}.{each % 250}:9100",
                "job": "node",
                "mode": ("idle", "user", "system", "iowait", "irq")[each % 5],
                "region": "eu-central-1",
            },
            [(1e6 + each * 1.37 + number, _NOW + 15_000 * number)],
        )
        for each in range(samples)
    ]
    return bytes(cramjam.snappy.compress_raw(version_1(series)))


class _Vmagent(Server):
    """vmagent with two receivers."""

    def __init__(self, directory: Path, address: str, receivers: list[str]) -> None:
        super().__init__(directory, [int(address.rpartition(":")[2])])
        self._address = address
        self._receivers = receivers

    def command(self) -> list[str]:
        """Return the command."""
        return [
            find_program("vmagent", "victoria-metrics"),
            f"-httpListenAddr={self._address}",
            f"-remoteWrite.tmpDataPath={self.directory / 'queue'}",
            *(f"-remoteWrite.url=http://{each}/api/v1/write" for each in self._receivers),
        ]

    def is_ready(self) -> bool:
        """Say whether it answers."""
        return send("GET", f"http://{self._address}/health", timeout=1)[0] == 200


class Vmagent(Contender):
    """vmagent, which takes remote writes and passes them on to two receivers."""

    @contextmanager
    def run(self, scenario: Scenario, backends: Backends) -> Iterator[int]:  # noqa: ARG002 (the interface's)
        """Run it until the context is left."""
        receivers = backends.addresses(tls=False)
        with (
            tempfile.TemporaryDirectory(dir=backends.testbed.directory) as name,
            _Vmagent(Path(name), self.address, receivers) as server,
        ):
            yield server.pid


class RemoteWriteRelay(Relay):
    """The relay before two outputs of type prometheus."""

    def configuration(self, scenario: Scenario, backends: Backends, journal: Path) -> str:  # noqa: ARG002 (a Relay's)
        """Return the configuration file's content."""
        a, b = backends.addresses(tls=False)
        return _RELAY.format(address=self.address, a=a, b=b)


def _measure(contender: Contender, scenario: Scenario, backends: Backends, seconds: float) -> tuple[float, float]:
    """Return requests per second, and microseconds of CPU for each."""
    bodies = ", ".join(wrk.literal(request(scenario.lines, number)) for number in range(_BODIES))
    lua = _REQUEST.format(bodies=bodies) + wrk.TAIL
    url = f"http://{contender.address}/api/v1/write"
    with contender.run(scenario, backends) as session:
        before = Usage().cpu(session)
        load = wrk.run_script(lua, scenario.name, scenario.clients, url, seconds, backends.testbed.directory)
        after = Usage().cpu(session)
        while True:  # until nothing more is passed on
            time.sleep(1)
            now = Usage().cpu(session)
            if now - after < _IDLE:
                break
            after = now
    if load.errors:
        raise SystemExit(f"{contender.name}: {load.errors}")
    return load.taken / load.duration, (now - before) / load.taken * 1e6


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.remote_write", description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="for each measurement (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=64, help="(default: %(default)s)")
    parser.add_argument("--samples", type=int, default=500, help="in each request (default: %(default)s)")
    parser.add_argument("--checkout", type=Path, action="append", default=[], help="another checkout; repeatable")
    parser.add_argument("--first-port", type=int, metavar="PORT", default=_FIRST_PORT, help="(default: %(default)s)")
    options = parser.parse_args()
    scenario = Scenario("remote write", "sinks", options.connections, options.samples)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        testbed = Testbed(Path(name), Ports(options.first_port), Authority(f"{name}/certificates").issue())
        address = f"{LOOPBACK}:{testbed.ports.relay}"
        ours = [influxrelay(testbed.ports.relay, name=root.name, root=root.resolve()) for root in options.checkout]
        relays = [influxrelay(testbed.ports.relay), *ours]
        contenders: list[Contender] = [
            *(RemoteWriteRelay(each.name, each.command, each.address, root=each.root) for each in relays),
            Vmagent("vmagent", address),
        ]
        found: dict[str, list[tuple[float, float]]] = {each.name: [] for each in contenders}
        with Sinks(testbed) as sinks:
            for _ in range(options.rounds):
                for each in contenders:
                    found[each.name].append(_measure(each, scenario, sinks, options.seconds))
    rows = [[f"{scenario.clients} x {scenario.lines} samples", "requests/s", "CPU per request, microseconds"]]
    for who, figures in found.items():
        rates, cpu = zip(*figures, strict=True)
        rows.append([who, f"{statistics.median(rates):,.0f}", f"{statistics.median(cpu):,.0f}"])
    print(table(rows))


if __name__ == "__main__":
    main()
