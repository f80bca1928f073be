"""What stands behind the relays, and counts what arrives."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from bench.processes import udp_socket_drops
from bench.scenarios import DATABASE, INFLUXD_PORTS, SINK_PORTS, UDP_SINK_PORTS, BackendKind, Scenario, count_lines
from testing.servers import LOOPBACK, PROJECT, Influxd, Server, ServerError, find_program, port_is_free

_FLUSH = 0.1  # seconds that nginx may keep log lines to itself


class Backends:
    """A pair of backends that runs while it is entered."""

    def __enter__(self) -> Self:
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        """Count from zero again."""
        raise NotImplementedError

    def received(self, scenario: Scenario) -> list[int]:
        """Return how many lines each backend has got since it was reset."""
        raise NotImplementedError


class Nginx(Server):
    """nginx with one worker, and `settings` for its http block."""

    def __init__(self, directory: Path, ports: list[int], settings: str) -> None:
        super().__init__(directory, ports)
        self._settings = settings

    def command(self) -> list[str]:
        """Write the configuration file, and return the command."""
        temporary = " ".join(
            f"{kind}_temp_path {self.directory}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        file = self.directory / "nginx.conf"
        file.write_text(
            f"daemon off; user root root; worker_processes 1; pid {self.directory}/nginx.pid; error_log stderr error;\n"
            "events { worker_connections 4096; }\n"
            f"http {{ {temporary}\n client_max_body_size 100m; client_body_buffer_size 1m;\n"
            f" keepalive_requests 100000000; keepalive_timeout 600s;\n{self._settings}\n}}\n"
        )
        return [find_program("nginx", "nginx"), "-e", "stderr", "-p", str(self.directory), "-c", str(file)]

    def is_ready(self) -> bool:
        """Say whether it listens."""
        return not any(port_is_free(port) for port in self._ports)


class Sinks(Nginx, Backends):
    """Two servers in one nginx that answer 204, and log nothing but the bodies' sizes.

    The log is written through a buffer. That costs nothing that could be measured (6.8 us a request, with and without),
    and it counts lines whatever the number of requests in which a relay brings them.
    """

    def __init__(self, directory: Path) -> None:
        locations = "location / { return 204; } location = /ping { access_log off; return 204; }"
        servers = "\n".join(f" server {{ listen {LOOPBACK}:{port}; {locations} }}" for port in SINK_PORTS)
        log = "log_format bodies '$server_port $content_length $http_content_encoding';"
        settings = f" {log} access_log {directory}/bodies.log bodies buffer=64k flush={_FLUSH * 1000:.0f}ms;\n{servers}"
        super().__init__(directory, list(SINK_PORTS), settings)
        self._bodies: Counter[bytes] = Counter()
        self._offset = 0

    def reset(self) -> None:
        """Count from zero again."""
        time.sleep(2 * _FLUSH)  # what the last contender has left in the log's buffer is not the next one's
        self._read()
        self._bodies.clear()

    def received(self, scenario: Scenario) -> list[int]:
        """Return how many lines each backend has got since it was reset."""
        self._read()
        lines = dict.fromkeys(SINK_PORTS, 0)
        for body, count in self._bodies.items():
            port, size, encoding = body.decode().split()
            if encoding in {"-", "identity"} and size.isdecimal():
                lines[int(port)] += count * count_lines(int(size))
            elif encoding == "gzip" and size == str(len(scenario.body)):
                lines[int(port)] += count * scenario.lines
            else:
                raise ServerError(f"cannot count lines in bodies of size {size}, encoding {encoding}")
        return list(lines.values())

    def _read(self) -> None:
        with (self.directory / "bodies.log").open("rb") as log:
            log.seek(self._offset)
            lines = log.read().rpartition(b"\n")[0]
        if lines:
            self._offset += len(lines) + 1
            self._bodies.update(lines.split(b"\n"))


class InfluxDBs(Backends):
    """Two real InfluxDB servers, with an empty database whenever they are reset."""

    def __init__(self, directory: Path) -> None:
        self.servers = [Influxd(directory / str(port), http_port=port) for port in INFLUXD_PORTS]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def reset(self) -> None:
        """Empty the database."""
        for server in self.servers:
            server.query(f"DROP DATABASE {DATABASE}")
            server.create_database(DATABASE)

    def received(self, scenario: Scenario) -> list[int]:  # noqa: ARG002 (the interface's)
        """Return how many points each has."""
        return [sum(row[1] for row in server.rows("SELECT COUNT(n) FROM cpu", DATABASE)) for server in self.servers]


class UDPSinks(Backends):
    """Two UDP sockets, read by a process that counts lines (:mod:`bench.udp_sink`)."""

    def __init__(self) -> None:
        self._zero = [0, 0]

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "bench.udp_sink", *map(str, UDP_SINK_PORTS)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT, start_new_session=True
        )
        self.reset()
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()

    def reset(self) -> None:
        """Count from zero again."""
        self._zero = self._counts()

    def received(self, scenario: Scenario) -> list[int]:  # noqa: ARG002 (the interface's)
        """Return how many lines each socket has got since the last reset."""
        return [now - zero for now, zero in zip(self._counts(), self._zero, strict=True)]

    def overflows(self) -> int:
        """Return how many datagrams these sinks were too slow for, ever."""
        return sum(udp_socket_drops(port) or 0 for port in UDP_SINK_PORTS)

    def _counts(self) -> list[int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ServerError(f"the UDP sink on the ports {UDP_SINK_PORTS} has ended") from None
        counts = [int(count) for count in self._process.stdout.readline().split()]
        if not counts:
            raise ServerError(f"there is no UDP sink on the ports {UDP_SINK_PORTS}")
        return counts


def make(kind: BackendKind, directory: Path) -> Backends:
    """Return backends of a kind, not started yet."""
    if kind == "udp":
        return UDPSinks()
    return Sinks(directory / "sinks") if kind == "sinks" else InfluxDBs(directory / "influxd")
