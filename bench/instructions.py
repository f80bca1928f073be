"""Count the instructions that the relay takes for a write, under valgrind: python -m bench.instructions.

Unlike time they are the same on every machine and in every run, to a few per cent: how many writes travel together
depends on who is faster. What the start and the stop take is left out: only the difference between two runs with
different numbers of writes counts.
"""

from __future__ import annotations

import argparse
import re
import shlex
import socket
import tempfile
from pathlib import Path

from bench.backends import Backends, Sinks
from bench.contenders import Relay, influxrelay
from bench.report import table
from bench.scenarios import Scenario
from bench.testbed import Ports, Testbed
from testing.certificates import Authority
from testing.servers import LOOPBACK, PROJECT, Server, find_program, free_port

_SCENARIOS = (
    Scenario("1x1", "sinks", 1, 1),
    Scenario("64x1", "sinks", 64, 1),
    Scenario("64x1 gzip", "sinks", 64, 1, gzip=True),
    Scenario("64x1000", "sinks", 64, 1000),
    Scenario("64x1000 gzip", "sinks", 64, 1000, gzip=True),
)
_WRITES = (1280, 3840)
_ANSWER = b"HTTP/1.1 204 "
_PATIENCE = 'header-timeout = "1h"\nbody-timeout = "1h"\nidle-timeout = "1h"\n'  # valgrind takes its time
_FIRST_PORT = 18300  # not where a benchmark runs, which may be under way


class _Counted(Server):
    """A relay under valgrind, which counts its instructions."""

    def __init__(self, directory: Path, relay: Relay, configuration: str) -> None:
        super().__init__(directory, [int(relay.address.rpartition(":")[2])])
        self._relay = relay
        self._configuration = configuration

    def command(self) -> list[str]:
        """Write the configuration file, and return the command."""
        config = self.directory / "relay.toml"
        config.write_text(self._configuration)
        valgrind = [find_program("valgrind", "valgrind"), "--tool=cachegrind", "--cache-sim=no"]
        relay = shlex.split(self._relay.command.replace("{config}", shlex.quote(str(config))))
        return [*valgrind, "--cachegrind-out-file=/dev/null", *relay]

    def environment(self) -> dict[str, str]:
        """Return an environment in which the checkout is used, and each run does the same."""
        return {**super().environment(), "PYTHONPATH": str(self._relay.root), "PYTHONHASHSEED": "0"}

    def is_ready(self) -> bool:
        """Say whether it listens."""
        socket.create_connection((LOOPBACK, self._ports[0]), timeout=1).close()
        return True

    def instructions(self) -> int:
        """Return what was counted, after the stop."""
        found = re.findall(r"I\s+refs:\s+([0-9,]+)", self.log.read_text())
        return int(found[-1].replace(",", ""))


def _write(port: int, scenario: Scenario, writes: int) -> None:
    """Write on all connections at once, so many times that the number is reached."""
    body = scenario.body
    encoding = b"Content-Encoding: gzip\r\n" if scenario.gzip else b""
    head = b"POST /write?db=bench HTTP/1.1\r\nHost: relay\r\n%bContent-Length: %d\r\n\r\n" % (encoding, len(body))
    clients = [socket.create_connection((LOOPBACK, port)) for _ in range(scenario.clients)]
    for _ in range(writes // scenario.clients):
        for client in clients:
            client.sendall(head + body)
        for client in clients:
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                answer += client.recv(65536)
            if not answer.startswith(_ANSWER):
                raise RuntimeError(f"a write was answered {answer!r}")
    for client in clients:
        client.close()


def count(checkout: Path, scenario: Scenario, backends: Backends, *, admin: bool, journal: bool) -> float:
    """Return the instructions for one write."""
    totals = []
    for writes in _WRITES:
        port = free_port()
        relay = influxrelay(port, root=checkout, journal=journal)
        with tempfile.TemporaryDirectory(dir=backends.testbed.directory) as name:
            configuration = relay.configuration(scenario, backends, Path(name) / "journal")
            configuration = configuration.replace("\noutput", f"\n{_PATIENCE}output", 1)
            if admin:
                configuration = f'[admin]\nbind-addr = "{LOOPBACK}:{free_port()}"\n{configuration}'
            counted = _Counted(Path(name), relay, configuration)
            counted.start(timeout=120)
            try:
                _write(port, scenario, writes)
            except OSError as error:
                raise SystemExit(f"{error}; the end of the relay's log:\n{counted.log.read_text()[-2000:]}") from error
            finally:
                counted.stop(timeout=120)
            totals.append(counted.instructions())
    return (totals[1] - totals[0]) / (_WRITES[1] - _WRITES[0])


def main() -> None:
    """Count, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description=__doc__)
    parser.add_argument("--checkout", type=Path, action="append", help="another checkout of influxrelay; repeatable")
    parser.add_argument("--admin", action="store_true", help="with an [admin] listener")
    parser.add_argument("--only", metavar="REGEX", default="", help="the scenarios in whose names this is found")
    parser.add_argument("--journal", choices=("yes", "no", "both"), default="both", help="(default: both)")
    options = parser.parse_args()
    journals = {"yes": (True,), "no": (False,), "both": (False, True)}[options.journal]
    checkouts = [path.resolve() for path in options.checkout or ()] or [PROJECT]
    columns = [(checkout, journal) for checkout in checkouts for journal in journals]
    rows = [["instructions", *(f"{path.name}{', journal' if journal else ''}" for path, journal in columns)]]
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        testbed = Testbed(Path(name), Ports(_FIRST_PORT), Authority(f"{name}/certificates").issue())
        with Sinks(testbed) as sinks:
            for scenario in _SCENARIOS:
                if re.search(options.only, scenario.name):
                    found = [
                        count(*column[:1], scenario, sinks, admin=options.admin, journal=column[1])
                        for column in columns
                    ]
                    rows.append([scenario.name, *(f"{each:,.0f}" for each in found)])
    print(table(rows))


if __name__ == "__main__":
    main()
