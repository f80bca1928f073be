"""What a shared journal costs: two relays with one, beside a relay with a journal on its disk in ``full`` mode.

64 clients write a line at a time; two sinks that answer 204 stand behind the relays, which take turns. Three servers of
NATS run on the same machine, and sync each message to the same disk.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

import attrs

from bench import wrk
from bench.contenders import write_url
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
    """

    rate: float
    p50: float
    p99: float


def _relay(directory: Path, name: str, sinks: Sinks, journal: str) -> Relay:
    port = free_port()
    outputs = "".join(
        f'[[http.output]]\nname = "o{number}"\nlocation = "http://{LOOPBACK}:{each}/write"\n'
        for number, each in enumerate(sinks.ports[:2])
    )
    text = f'[[http]]\nname = "bench"\nbind-addr = "{LOOPBACK}:{port}"\n{journal}journal-sync = "full"\n{outputs}'
    return Relay(directory / name, f'admin-socket = ""\n{text}', port)


def _measure(relays: list[Relay], directory: Path, seconds: float) -> Figures:
    """Write through all relays at once."""
    scenario = replace(_SCENARIO, clients=_SCENARIO.clients // len(relays))
    with ExitStack() as running:
        for each in relays:
            running.enter_context(each)
            wait_for(lambda: send("POST", f"{each.url}/write?db=db", b"m v=1 1")[0] == 204)  # noqa: B023 (at once)
        with ThreadPoolExecutor(len(relays)) as pool:
            loads = list(
                pool.map(
                    lambda relay: wrk.run(
                        scenario, write_url(relay.url.removeprefix("http://"), tls=False), seconds, relay.directory
                    ),
                    relays,
                )
            )
    errors = [each.errors for each in loads if each.errors]
    if errors:
        raise SystemExit(f"{errors}; see {directory}")
    rate = sum(each.taken / each.duration for each in loads)
    return Figures(rate, max(each.p50 for each in loads), max(each.p99 for each in loads))


def main() -> None:
    """Measure, and print a table; end with status 1 if the goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.shared", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5, help="for each measurement (default: 5)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts (default: 3)")
    options = parser.parse_args()
    found: dict[str, list[Figures]] = {"journal on disk, full": [], "shared journal, two relays": []}
    local, shared = found
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        with Sinks(directory / "sinks") as sinks:
            for turn in range(options.rounds):
                relay = _relay(directory, f"local{turn}", sinks, f'journal = "{directory}/journal{turn}"\n')
                found[local].append(_measure([relay], directory, options.seconds))
                with NatsCluster(directory / f"nats{turn}", direct=True) as nats:
                    journal = f'journal = "nats://{nats.addresses}/bench"\n'
                    relays = [_relay(directory, f"shared{turn}{each}", sinks, journal) for each in range(2)]
                    found[shared].append(_measure(relays, directory, options.seconds))
    rates = {each: median(figures.rate for figures in some) for each, some in found.items()}
    rows = [["64x1", "writes/s", "p50, ms", "p99, ms"]]
    for each, some in found.items():
        p50, p99 = (median(getattr(figures, name) for figures in some) * 1e3 for name in ("p50", "p99"))
        rows.append([each, f"{rates[each]:,.0f}", f"{p50:.1f}", f"{p99:.1f}"])
    print(table(rows))
    ratio = rates[shared] / rates[local]
    print(f"goal: at least {GOAL:g} of the journal on disk: {ratio:.2f}, {'pass' if ratio >= GOAL else 'FAIL'}")
    sys.exit(ratio < GOAL)


if __name__ == "__main__":
    main()
