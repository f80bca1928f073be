"""What a shared journal costs: two relays with one, beside one relay and two with journals on disk in ``full`` mode.

64 clients, divided among the relays, write a line at a time; two sinks that answer 204 stand behind the relays, which
take turns. Three servers of NATS run on the same machine, and sync each message to the same disk.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

import attrs

from bench import wrk
from bench.contenders import write_url
from bench.processes import Usage
from bench.report import table
from bench.scenarios import Scenario
from bench.shards import Sinks
from testing.nats import NatsCluster
from testing.servers import LOOPBACK, Relay, free_port, send
from testing.sharing import wait_for

GOAL = 0.4
_SCENARIO = Scenario("64x1", "sinks", 64, 1)


@attrs.frozen
class Figures:
    """What a contender has done.

    :ivar rate: writes/s; ``p50`` and ``p99`` are seconds, of the slowest relay.
    :ivar relays: CPU seconds of the relays for each write; ``servers`` likewise, of NATS.
    :ivar idle: the part of the machine's time in which it had nothing to do.
    """

    rate: float
    p50: float
    p99: float
    relays: float
    servers: float
    idle: float


def _relay(directory: Path, name: str, sinks: Sinks, journal: str) -> Relay:
    port = free_port()
    outputs = "".join(
        f'[[http.output]]\nname = "o{number}"\nlocation = "http://{LOOPBACK}:{each}/write"\n'
        for number, each in enumerate(sinks.ports[:2])
    )
    text = f'[[http]]\nname = "bench"\nbind-addr = "{LOOPBACK}:{port}"\n{journal}journal-sync = "full"\n{outputs}'
    return Relay(directory / name, f'admin-socket = ""\n{text}', port)


def _measure(relays: list[Relay], servers: list[int], directory: Path, seconds: float) -> Figures:
    """Write through all relays at once.

    :param servers: processes of NATS.
    """
    scenario = replace(_SCENARIO, clients=_SCENARIO.clients // len(relays))
    with ExitStack() as running:
        for each in relays:
            running.enter_context(each)
            wait_for(lambda: send("POST", f"{each.url}/write?db=db", b"m v=1 1")[0] == 204)  # noqa: B023 (at once)
        pids = [each.pid for each in relays]
        before, machine = Usage(), _machine()
        with ThreadPoolExecutor(len(relays)) as pool:
            loads = list(
                pool.map(
                    lambda relay: wrk.run(
                        scenario,
                        write_url(relay.url.removeprefix("http://"), tls=False),
                        seconds,
                        relay.directory,
                        threads=wrk.THREADS // len(relays),
                    ),
                    relays,
                )
            )
        after = Usage()
        idle, whole = (end - begin for begin, end in zip(machine, _machine(), strict=True))
    errors = [each.errors for each in loads if each.errors]
    if errors:
        raise SystemExit(f"{errors}; see {directory}")
    taken = sum(each.taken for each in loads)
    return Figures(
        sum(each.taken / each.duration for each in loads),
        max(each.p50 for each in loads),
        max(each.p99 for each in loads),
        (after.cpu(*pids) - before.cpu(*pids)) / taken,
        (after.cpu(*servers) - before.cpu(*servers)) / taken,
        idle / whole,
    )


def _machine() -> tuple[int, int]:
    """Return how much time the machine has had until now, in ticks: without anything to do, and in all."""
    ticks = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
    return ticks[3], sum(ticks)


def _sync(directory: Path) -> float:
    """Return the median of the seconds in which a file gets some bytes more, and the disk has them."""
    took = []
    with (directory / "sync").open("wb", buffering=0) as file:
        for _ in range(200):
            file.write(bytes(5000))
            begin = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - begin)
    return median(took)


def _columns(figures: list[Figures]) -> list[str]:
    def of(name: str, scale: float = 1) -> float:
        return float(median(getattr(each, name) for each in figures)) * scale

    servers = f"{of('servers', 1e6):.0f}" if of("servers") else ""
    rest = [f"{of('relays', 1e6):.0f}", servers, f"{of('idle', 100):.0f} %"]
    return [f"{of('rate'):,.0f}", f"{of('p50', 1e3):.1f}", f"{of('p99', 1e3):.1f}", *rest]


def main() -> None:
    """Measure, and print a table; end with status 1 if the goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.shared", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5, help="for each measurement (default: 5)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts (default: 3)")
    options = parser.parse_args()
    found: dict[str, list[Figures]] = {"one relay, on disk": [], "two relays, on disk": [], "two relays, shared": []}
    with tempfile.TemporaryDirectory(prefix="bench-") as name, Sinks(Path(name) / "sinks") as sinks:
        directory = Path(name)
        print(f"a sync to disk takes {_sync(directory) * 1e3:.2f} ms")
        for turn in range(options.rounds):
            for some, (what, figures) in zip((1, 2), found.items(), strict=False):
                names = [f"{what}{turn}{each}" for each in range(some)]
                relays = [_relay(directory, each, sinks, f'journal = "{directory}/journal {each}"\n') for each in names]
                figures.append(_measure(relays, [], directory, options.seconds))
            with NatsCluster(directory / f"nats{turn}", direct=True) as nats:
                journal = f'journal = "nats://{nats.addresses}/bench"\n'
                relays = [_relay(directory, f"shared{turn}{each}", sinks, journal) for each in range(2)]
                servers = [each.pid for each in nats.servers]
                found["two relays, shared"].append(_measure(relays, servers, directory, options.seconds))
    head = ["64x1", "writes/s", "p50, ms", "p99, ms", "relays, us", "NATS, us", "idle"]
    print(table([head, *([what, *_columns(figures)] for what, figures in found.items())]))
    one, two, shared = (median(each.rate for each in figures) for figures in found.values())
    print(f"shared beside two relays with journals on disk: {shared / two:.2f}")
    is_met = shared >= GOAL * one
    print(f"beside one (goal: at least {GOAL:g}): {shared / one:.2f}, {'pass' if is_met else 'FAIL'}")
    sys.exit(not is_met)


if __name__ == "__main__":
    main()
