"""Count the instructions that the relay takes for a write, under valgrind: python -m bench.instructions.

Unlike time they are the same on every machine and in every run, to a few per mille. What the start and the stop take is
left out: of two runs with different numbers of writes only the difference counts.
"""

from __future__ import annotations

import argparse
import re
import socket
import sys
import sysconfig
import tempfile
from pathlib import Path

from bench.backends import Sinks
from bench.scenarios import SINK_PORTS, Scenario
from testing.servers import LOOPBACK, PROJECT, Server, find_program, free_port

_CONFIG = """\
{admin}
[[http]]
bind-addr = "{address}"
{journal}
output = [
    {{ name = "a", location = "http://{host}:{one}/write" }},
    {{ name = "b", location = "http://{host}:{two}/write" }},
]
"""
_SCENARIOS = (
    Scenario("1x1", "sinks", 1, 1),
    Scenario("64x1", "sinks", 64, 1),
    Scenario("64x1000", "sinks", 64, 1000),
)
_WRITES = (1280, 3840)
_ANSWER = b"HTTP/1.1 204 "


class _Counted(Server):
    """A relay under valgrind, which counts its instructions."""

    def __init__(self, directory: Path, checkout: Path, port: int, text: str) -> None:
        super().__init__(directory, [port])
        self._checkout = checkout
        self._port = port
        self._text = text

    def command(self) -> list[str]:
        """Write the configuration file, and return the command."""
        config = self.directory / "relay.toml"
        config.write_text(self._text)
        valgrind = [find_program("valgrind", "valgrind"), "--tool=cachegrind", "--cache-sim=no"]
        twistd = [sys.executable, str(Path(sysconfig.get_path("scripts")) / "twistd"), "--nodaemon", "--pidfile="]
        return [*valgrind, "--cachegrind-out-file=/dev/null", *twistd, "influxrelay", "--config", str(config)]

    def environment(self) -> dict[str, str]:
        """Return an environment in which the checkout is used, and each run does the same."""
        return {**super().environment(), "PYTHONPATH": str(self._checkout), "PYTHONHASHSEED": "0"}

    def is_ready(self) -> bool:
        """Say whether it listens."""
        socket.create_connection((LOOPBACK, self._port), timeout=1).close()
        return True

    def instructions(self) -> int:
        """Return what was counted, after the stop."""
        found = re.findall(r"I\s+refs:\s+([0-9,]+)", self.log.read_text())
        return int(found[-1].replace(",", ""))


def _write(port: int, scenario: Scenario, writes: int) -> None:
    """Write on all connections at once, so many times that the number is reached."""
    body = scenario.body
    request = b"POST /write?db=bench HTTP/1.1\r\nHost: relay\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    clients = [socket.create_connection((LOOPBACK, port)) for _ in range(scenario.clients)]
    for _ in range(writes // scenario.clients):
        for client in clients:
            client.sendall(request)
        for client in clients:
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                answer += client.recv(65536)
            if not answer.startswith(_ANSWER):
                raise RuntimeError(f"a write was answered {answer!r}")
    for client in clients:
        client.close()


def count(checkout: Path, scenario: Scenario, directory: Path, *, admin: bool, journal: bool) -> float:
    """Return the instructions for one write."""
    totals = []
    for writes in _WRITES:
        port = free_port()
        place = directory / f"{scenario.name}-{writes}"
        text = _CONFIG.format(
            admin=f'[admin]\nbind-addr = "{LOOPBACK}:{free_port()}"\n' if admin else "",
            journal=f'journal = "{place}/journal"' if journal else "",
            address=f"{LOOPBACK}:{port}",
            host=LOOPBACK,
            one=SINK_PORTS[0],
            two=SINK_PORTS[1],
        )
        relay = _Counted(place, checkout, port, text)
        relay.start(timeout=120)
        try:
            _write(port, scenario, writes)
        finally:
            relay.stop(timeout=120)
        totals.append(relay.instructions())
    return (totals[1] - totals[0]) / (_WRITES[1] - _WRITES[0])


def main() -> None:
    """Count, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description=__doc__)
    parser.add_argument("--checkout", type=Path, default=PROJECT, help="another checkout of influxrelay")
    parser.add_argument("--admin", action="store_true", help="with an [admin] listener")
    parser.add_argument("--only", metavar="CLIENTSxLINES", help="one scenario: 1x1, 64x1 or 64x1000")
    parser.add_argument("--journal", action="store_true", help="with a journal")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="influxrelay-") as name, Sinks(Path(name) / "sinks"):
        for number, scenario in enumerate(_SCENARIOS):
            if options.only not in (None, scenario.name):
                continue
            place = Path(name) / str(number)
            found = count(options.checkout, scenario, place, admin=options.admin, journal=options.journal)
            print(f"{scenario.name:10} {found:12,.0f} instructions for a write", flush=True)


if __name__ == "__main__":
    main()
