"""The servers behind the contenders, which count what arrives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from typing import Self

from bench.processes import udp_socket_drops
from bench.scenarios import DATABASE, BackendKind, Scenario, count_lines
from bench.testbed import Testbed
from testing.servers import LOOPBACK, PROJECT, Influxd, Server, ServerError, port_is_free, send


class Backends:
    """A pair of backends that runs while it is entered.

    :ivar sessions: the sessions of their processes.
    """

    sessions: list[int]

    def __init__(self, testbed: Testbed, ports: tuple[int, int], tls_ports: tuple[int, int] | None = None) -> None:
        self.testbed = testbed
        self._addresses = [f"{LOOPBACK}:{port}" for port in ports]
        self._tls_addresses = [f"{LOOPBACK}:{port}" for port in tls_ports or ()]

    def addresses(self, *, tls: bool) -> list[str]:
        """Return where the two listen."""
        return self._tls_addresses if tls else self._addresses

    def __enter__(self) -> Self:
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        """Count from zero again."""
        raise NotImplementedError

    def received(self, scenario: Scenario) -> list[int]:
        """Return how many lines each backend has received since it was reset."""
        raise NotImplementedError


class _Sink(Server):
    """The process of :mod:`bench.sink`."""

    def __init__(self, testbed: Testbed) -> None:
        self._testbed = testbed
        super().__init__(testbed.directory / "sinks", [*testbed.ports.sinks, *testbed.ports.tls_sinks])

    def command(self) -> list[str]:
        ports, tls_ports = map(str, self._testbed.ports.sinks), map(str, self._testbed.ports.tls_sinks)
        certificate = ["--certificate", self._testbed.certificate]
        return [sys.executable, "-m", "bench.sink", *ports, "--tls-ports", *tls_ports, *certificate]

    def environment(self) -> dict[str, str]:
        """Return an environment in which the module is found."""
        return {**os.environ, "PYTHONPATH": str(PROJECT)}

    def is_ready(self) -> bool:
        """Say whether it listens."""
        return not any(port_is_free(port) for port in self._ports)


class Sinks(Backends):
    """Two sinks in one process, each with and without TLS."""

    def __init__(self, testbed: Testbed) -> None:
        super().__init__(testbed, testbed.ports.sinks, testbed.ports.tls_sinks)
        self._process = _Sink(testbed)
        self._zero: list[Counter[str]] = [Counter(), Counter()]

    def __enter__(self) -> Self:
        self._process.start()
        self.sessions = [self._process.pid]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    def reset(self) -> None:
        """Count from zero again."""
        self._zero = self._bodies()

    def received(self, scenario: Scenario) -> list[int]:
        """Return how many lines each sink has received since it was reset."""
        pairs = zip(self._bodies(), self._zero, strict=True)
        return [sum(lines_in(body, scenario) * count for body, count in (now - zero).items()) for now, zero in pairs]

    def _bodies(self) -> list[Counter[str]]:
        answers = [send("GET", f"http://{address}/counts")[1] for address in self._addresses]
        return [Counter(json.loads(answer)) for answer in answers]


def lines_in(body: str, scenario: Scenario) -> int:
    """Return how many lines there are in a body of which the sink knows size and encoding.

    A relay may join bodies. Joined gzip bodies are members of one stream, hence a multiple of the scenario's body.
    """
    size, encoding = body.split()
    if encoding == "identity":
        return count_lines(int(size))
    members, rest = divmod(int(size), len(scenario.body))
    if encoding != "gzip" or not scenario.gzip or rest:
        raise ServerError(f"cannot count the lines in a body of {size} bytes, encoding {encoding}")
    return members * scenario.lines


class InfluxDBs(Backends):
    """Two real InfluxDB servers, with an empty database whenever they are reset."""

    def __init__(self, testbed: Testbed) -> None:
        super().__init__(testbed, testbed.ports.influxd)
        self._servers = [Influxd(testbed.directory / str(port), http_port=port) for port in testbed.ports.influxd]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for server in self._servers:
                stack.enter_context(server)
            self._stack = stack.pop_all()
        self.sessions = [server.pid for server in self._servers]
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def reset(self) -> None:
        """Empty the database."""
        for server in self._servers:
            server.query(f"DROP DATABASE {DATABASE}")
            server.create_database(DATABASE)

    def received(self, scenario: Scenario) -> list[int]:  # noqa: ARG002 (the interface's)
        """Return how many points each server has."""
        return [sum(row[1] for row in server.rows("SELECT COUNT(n) FROM cpu", DATABASE)) for server in self._servers]


class UDPSinks(Backends):
    """Two UDP sockets, read by a process that counts lines (:mod:`bench.udp_sink`)."""

    def __init__(self, testbed: Testbed) -> None:
        super().__init__(testbed, testbed.ports.udp_sinks)
        self._zero = [0, 0]

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "bench.udp_sink", *map(str, self.testbed.ports.udp_sinks)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT, start_new_session=True
        )
        self.sessions = [self._process.pid]
        self.reset()
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()

    def reset(self) -> None:
        """Count from zero again."""
        self._zero = self._counts()

    def received(self, scenario: Scenario) -> list[int]:  # noqa: ARG002 (the interface's)
        """Return how many lines each socket has received since the last reset."""
        return [now - zero for now, zero in zip(self._counts(), self._zero, strict=True)]

    def overflows(self) -> int:
        """Return how many datagrams these sinks were too slow for, ever."""
        return sum(udp_socket_drops(port) or 0 for port in self.testbed.ports.udp_sinks)

    def _counts(self) -> list[int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ServerError(f"the UDP sink on the ports {self.testbed.ports.udp_sinks} has ended") from None
        counts = [int(count) for count in self._process.stdout.readline().split()]
        if not counts:
            raise ServerError(f"there is no UDP sink on the ports {self.testbed.ports.udp_sinks}")
        return counts


_KINDS: dict[BackendKind, type[Sinks | InfluxDBs | UDPSinks]] = {"sinks": Sinks, "influxd": InfluxDBs, "udp": UDPSinks}


def make(kind: BackendKind, testbed: Testbed) -> Backends:
    """Return backends of a kind, not started yet."""
    return _KINDS[kind](testbed)
