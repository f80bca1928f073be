"""What shards cost: a relay with three shards of one server each beside one that writes everything to three servers.

64 clients write 1,000 lines at a time; sinks that answer 204 stand behind the relays, which take turns. The lines of a
write belong to all shards, one after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench import wrk
from bench.contenders import write_url
from bench.processes import Usage
from bench.report import table
from bench.scenarios import LINE_LENGTH, Scenario
from testing.servers import LOOPBACK, PROJECT, Relay, Server, free_port, port_is_free, send

GOAL = 1.6
_SCENARIO = Scenario("64x1000", "sinks", 64, 1000)
_OUTPUT = 'name = "{name}"\nlocation = "http://{host}:{port}/write"\n'
_BORDER = '[[http.epoch]]\nshards = ["s0", "s1"]\n[[http.epoch]]\nsince = "2023-01-01T00:00:00Z"\n'


class Sinks(Server):
    """Three sinks in one process."""

    def __init__(self, directory: Path) -> None:
        self.ports = [free_port() for _ in range(3)]
        super().__init__(directory, self.ports)

    def command(self) -> list[str]:
        """Return the command."""
        return [sys.executable, "-m", "bench.sink", *map(str, self.ports)]

    def environment(self) -> dict[str, str]:
        """Return an environment in which the module is found."""
        return {**os.environ, "PYTHONPATH": str(PROJECT)}

    def is_ready(self) -> bool:
        """Say whether all listen."""
        return not any(port_is_free(port) for port in self.ports)

    def lines(self) -> int:
        """Return how many lines have come, ever."""
        bodies = [json.loads(send("GET", f"http://{LOOPBACK}:{port}/counts")[1]) for port in self.ports]
        return sum(
            (int(each.split()[0]) + 1) // (LINE_LENGTH + 1) * count for some in bodies for each, count in some.items()
        )


def _outputs(table_name: str, ports: list[int]) -> str:
    return "".join(
        f"[[{table_name}]]\n{_OUTPUT.format(name=f'o{number}', host=LOOPBACK, port=port)}"
        for number, port in enumerate(ports)
    )


def _shards(ports: list[int]) -> str:
    return "".join(
        f'[[http.shard]]\nname = "s{number}"\n{_outputs("http.shard.output", [port]).replace("o0", f"o{number}")}'
        for number, port in enumerate(ports)
    )


CONTENDERS: dict[str, tuple[str, Callable[[list[int]], str]]] = {
    "three outputs": ("", lambda ports: _outputs("http.output", ports)),
    "shards by tag": ('shard-key = "tag:host"\n', _shards),
    "two epochs": (
        'shard-key = "tag:host"\n',
        lambda ports: f'{_shards(ports)}{_BORDER}shards = ["s0", "s1", "s2"]\n',
    ),
}


def _measure(name: str, directory: Path, sinks: Sinks, seconds: float) -> float:
    """Return the CPU time of the relay for each write, in microseconds."""
    key, outputs = CONTENDERS[name]
    port = free_port()
    text = f'[[http]]\nname = "bench"\nbind-addr = "{LOOPBACK}:{port}"\n{key}{outputs(sinks.ports)}'
    copies = len(sinks.ports) if name == "three outputs" else 1
    before_lines = sinks.lines()
    with Relay(directory / name.replace(" ", "-"), text, port) as relay:
        before = Usage().cpu(relay.pid)
        load = wrk.run(_SCENARIO, write_url(f"{LOOPBACK}:{port}", tls=False), seconds, directory)
        cpu = Usage().cpu(relay.pid) - before
    lines = sinks.lines() - before_lines
    least, most = (each * _SCENARIO.lines * copies for each in (load.taken, load.requests + _SCENARIO.clients))
    if load.errors or not least <= lines <= most:
        raise SystemExit(f"{name}: {load.errors}, {lines:,} lines reached the sinks, of {least:,}")
    return cpu * 1e6 / load.taken


def main() -> None:
    """Measure, and print a table; end with status 1 if the goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.shards", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3, help="for each measurement (default: 3)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts (default: 3)")
    options = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, Sinks(Path(directory) / "sinks") as sinks:
        for _ in range(options.rounds):
            for name, figures in found.items():
                figures.append(_measure(name, Path(directory), sinks, options.seconds))
    costs = {name: median(figures) for name, figures in found.items()}
    base = costs["three outputs"]
    rows = [["64x1000", "CPU per write, us", "ratio"]]
    rows += [[name, f"{cost:,.0f}", f"{cost / base:.2f}"] for name, cost in costs.items()]
    print(table(rows))
    ratio = costs["shards by tag"] / base
    print(f"goal: at most {GOAL:g} times the relay with three outputs: {'pass' if ratio <= GOAL else 'FAIL'}")
    sys.exit(ratio > GOAL)


if __name__ == "__main__":
    main()
