"""Millions of points on two servers, three differences, and what ``influxrelay verify`` takes to find just these.

Run it with ``python -m tests.soak.verification``; ``--points 1000000`` is a smaller one. The servers' own time is that
of the aggregates of all fields over the same shard groups, both servers at the same time. How long a server was kept
busy is what the server counts itself.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from influxrelay.transport.tls import ClientTLS
from influxrelay.verification.schema import read_schema
from influxrelay.verification.server import Server
from influxrelay.verification.statements import Measurement, aggregates
from testing.servers import Influxd, free_port, send

DATABASE = "verification"
FIRST = 1_600_000_000 * 10**9
_BATCH = 20_000
_PROGRAM = "import sys; from influxrelay.cli import main; sys.exit(main())"
_OFTEN = 5  # of so many points one is an event


def lines_of(points: int, series: int, days: float) -> Iterator[list[str]]:
    """Yield points of two measurements: four of five have two floats and an integer, one a string and a boolean."""
    step = int(days * 86_400 * 10**9 / (points / series))
    batch = []
    for number in range(points):
        time_of, which = FIRST + number // series * step, number % series
        if which % _OFTEN:
            value = number * 7919 % 100_003
            batch.append(f"cpu,host=h{which} user={value / 1000},idle={100 - value / 1009:.3f},n={number}i {time_of}")
        else:
            batch.append(f'event,host=h{which} text="state {number % 911}",on={"ft"[number % 3 == 0]} {time_of}')
        if len(batch) == _BATCH:
            yield batch
            batch = []
    yield batch


def fill(servers: tuple[Influxd, Influxd], points: int, series: int, days: float) -> None:
    """Write the points to both, and make the second one differ in three."""
    missing, differing = points // 3 // series * series + 1, points // 2 // series * series + 2
    with ThreadPoolExecutor() as pool:
        number = 0
        for batch in lines_of(points, series, days):
            other = list(batch)
            if number <= differing < number + len(batch):
                line = other[differing - number]
                other[differing - number] = line.replace(" user=", " user=1")
            if number <= missing < number + len(batch):
                del other[missing - number]
            number += len(batch)
            statuses = list(
                pool.map(
                    lambda each: each[0].write("\n".join(each[1]), DATABASE), zip(servers, (batch, other), strict=True)
                )
            )
            assert statuses == [204, 204], statuses
    extra = [f"cpu,host=extra user=1 {FIRST + number * 10**9}" for number in range(100)]
    assert servers[1].write("\n".join(extra), DATABASE) == 204


def own_time(servers: tuple[Influxd, Influxd]) -> tuple[float, int]:
    """Return the seconds that the servers need for the aggregates of all windows, and how many windows there are."""
    asked = [Server(each.url, f"{each.url}/query", ClientTLS()) for each in servers]
    schema = read_schema(asked[0], time.time_ns(), DATABASE)
    (place, windows), *_ = [each for each in schema.groups.items() if each[0][0] == DATABASE]
    statements = [aggregates(Measurement(*place, name), each, 0) for name in ("cpu", "event") for each in windows]
    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda server: [server.ask(each) for each in statements], asked))
    return time.monotonic() - began, len(statements)


def busy(server: Influxd) -> float:
    """Return the seconds that a server has spent on queries."""
    found = json.loads(send("GET", f"{server.url}/debug/vars")[1])
    (httpd,) = [each for name, each in found.items() if name.startswith("httpd:")]
    return float(httpd["values"]["queryReqDurationNs"]) / 1e9


def worked(servers: tuple[Influxd, Influxd]) -> float:
    """Return the seconds of a processor that the servers have used; other work on the machine does not change them."""
    fields = [Path(f"/proc/{each.pid}/stat").read_text().rpartition(")")[2].split() for each in servers]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


def verify(directory: Path, servers: tuple[Influxd, Influxd], *arguments: str) -> tuple[dict[str, Any], float, float]:
    """Run the command; return what it says, how long it took, and which share of that time a server was busy."""
    config = directory / "relay.toml"
    outputs = "".join(
        f'[[http.output]]\nname = "{name}"\nlocation = "{each.url}/write"\n'
        for name, each in zip("ab", servers, strict=True)
    )
    config.write_text(f'[[http]]\nname = "main"\nbind-addr = "127.0.0.1:{free_port()}"\n{outputs}')
    command = [sys.executable, "-c", _PROGRAM, "verify", "--config", str(config), "--json", *arguments]
    before, began = list(map(busy, servers)), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    took = time.monotonic() - began
    assert done.returncode in (0, 1), done.stderr
    share = max(after - earlier for after, earlier in zip(map(busy, servers), before, strict=True)) / took
    return json.loads(done.stdout), took, share


def main() -> int:
    """Run it; return the exit code, which is 1 if something else was found than was made."""
    parser = argparse.ArgumentParser(description="verify millions of points on two servers")
    parser.add_argument("--points", type=int, default=10_000_000)
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--days", type=float, default=60)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="influxrelay-verification-") as path:
        directory = Path(path)
        with Influxd(directory / "a") as a, Influxd(directory / "b") as b:
            for each in (a, b):
                each.create_database(DATABASE)
            began = time.monotonic()
            fill((a, b), chosen.points, chosen.series, chosen.days)
            print(f"filled in {time.monotonic() - began:.0f} s", flush=True)  # noqa: T201
            return 0 if measure(directory, (a, b)) else 1


def measure(directory: Path, servers: tuple[Influxd, Influxd]) -> bool:
    """Print what the command takes, and say whether it has found what it should."""
    before = worked(servers)
    own, windows = own_time(servers)
    between = worked(servers)
    found, took, share = verify(directory, servers)
    after = worked(servers)
    kinds = sorted((each["kind"], each.get("backend", ""), each["points"]) for each in found["differences"])
    right = kinds == [("missing", "a", 100), ("missing", "b", 1), ("value", "", 1)]
    of_servers, of_verify = between - before, after - between
    print(  # noqa: T201
        f"the servers' own time {own:.1f} s ({of_servers:.1f} s of CPU) for {windows} windows; verify {took:.1f} s"
        f" ({took / own:.2f} times), {of_verify:.1f} s of CPU ({of_verify / of_servers:.2f} times), servers busy"
        f" {share:.0%}, compared {found['compared']}, found {kinds}",
        flush=True,
    )
    found, took, share = verify(directory, servers, "--share", "25%")
    print(f"with --share 25%: {took:.1f} s, servers busy {share:.1%}", flush=True)  # noqa: T201
    return right and len(found["differences"]) == 3


if __name__ == "__main__":
    sys.exit(main())
