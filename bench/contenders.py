"""Who is compared: the relay, nginx as a relay, other relays, and no relay at all."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from bench.backends import Backends, InfluxDBs, Nginx
from bench.processes import udp_socket_drops
from bench.scenarios import INFLUXD_PORTS, MIRROR_PORT, RELAY_PORT, SINK_PORTS, UDP_SINK_PORTS, BackendKind, Scenario
from testing.servers import LOOPBACK, PROJECT, Server

# The same receive buffer for all; what is over net.core.rmem_max is cut to it.
_UDP = """\
[[udp]]
name = "bench"
bind-addr = "{address}"
precision = "n"
read-buffer = 4194304
output = [ {{ name = "a", location = "{a}", mtu = 1024 }}, {{ name = "b", location = "{b}", mtu = 1024 }} ]
"""

_HTTP = """\
[[http]]
name = "bench"
bind-addr = "{address}"
{settings}
output = [ {{ name = "a", location = "http://{a}/write" }}, {{ name = "b", location = "http://{b}/write" }} ]
"""

_MIRROR = """\
 upstream a {{ server {a}; keepalive 64; keepalive_requests 100000000; }}
 upstream b {{ server {b}; keepalive 64; keepalive_requests 100000000; }}
 access_log off; proxy_http_version 1.1; proxy_set_header Connection "";
 server {{
  listen {address};
  location / {{ mirror /b; proxy_pass http://a; }}
  location = /b {{ internal; proxy_pass http://b$request_uri; }}
 }}
"""


def addresses(backends: BackendKind) -> dict[str, str]:
    """Return where the two backends listen."""
    ports = {"sinks": SINK_PORTS, "udp": UDP_SINK_PORTS, "influxd": INFLUXD_PORTS}[backends]
    return {name: f"{LOOPBACK}:{port}" for name, port in zip("ab", ports, strict=True)}


class Contender:
    """Something that takes writes.

    :ivar name: its column.
    :ivar address: the ``host:port`` that it listens on.
    :ivar copies: how many of the backends get what is written.
    """

    copies = 2

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address

    def takes(self, scenario: Scenario) -> bool:
        """Say whether it takes part."""
        raise NotImplementedError

    def run(self, scenario: Scenario, backends: Backends, directory: Path) -> AbstractContextManager[int]:
        """Return a context in which it listens; its value is the session whose CPU time and memory count."""
        raise NotImplementedError


class Relay(Contender):
    """A relay that a shell's command runs in the foreground.

    In the command, ``{config}`` stands for a configuration file in InfluxDB Relay's dialect, written for the scenario,
    and ``{backends}`` for ``sinks``, ``influxd`` or ``udp``. Without either it takes part with the sinks only.
    """

    def __init__(self, name: str, command: str, address: str, *, journal: bool = False) -> None:
        super().__init__(name, address)
        self.command = command
        self.journal = journal

    def takes(self, scenario: Scenario) -> bool:
        """Say whether it takes part."""
        if self.journal and (scenario.backends == "udp" or scenario.name.startswith("rss")):
            return False
        return scenario.backends == "sinks" or "{config}" in self.command or "{backends}" in self.command

    @contextmanager
    def run(self, scenario: Scenario, backends: Backends, directory: Path) -> Iterator[int]:  # noqa: ARG002 (the interface's)
        """Run the command until the context is left."""
        directory.mkdir(exist_ok=True)
        config = directory / f"{scenario.backends}.toml"
        template = _UDP if scenario.backends == "udp" else _HTTP
        settings = f'journal = "{directory / "journal"}"' if self.journal else ""
        places = addresses(scenario.backends)
        config.write_text(template.format(address=self.address, settings=settings, **places))
        command = self.command.replace("{config}", shlex.quote(str(config))).replace("{backends}", scenario.backends)
        process = _Process(directory, command, self.address, udp=scenario.backends == "udp")
        with process:
            yield process.pid


class _Process(Server):
    def __init__(self, directory: Path, command: str, address: str, *, udp: bool) -> None:
        host, _, port = address.rpartition(":")
        self._address = (host, int(port))
        self._udp = udp
        self._shell = command
        super().__init__(directory, [] if udp else [int(port)])

    def command(self) -> list[str]:
        return ["/bin/sh", "-c", f"exec {self._shell}"]

    def environment(self) -> dict[str, str]:
        """Return an environment in which twistd finds this checkout's plugin, installed or not."""
        path = [str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}

    def is_ready(self) -> bool:
        if self._udp:
            return udp_socket_drops(self._address[1]) is not None
        socket.create_connection(self._address, timeout=1).close()
        return True


class Mirror(Contender):
    """nginx as the relay: it proxies to one backend, and mirrors to the other."""

    def __init__(self) -> None:
        super().__init__("nginx mirror", f"{LOOPBACK}:{MIRROR_PORT}")

    def takes(self, scenario: Scenario) -> bool:
        """Say whether it takes part."""
        return scenario.backends != "udp"

    @contextmanager
    def run(self, scenario: Scenario, backends: Backends, directory: Path) -> Iterator[int]:  # noqa: ARG002 (the interface's)
        """Run nginx until the context is left."""
        settings = _MIRROR.format(address=self.address, **addresses(scenario.backends))
        with Nginx(directory, [MIRROR_PORT], settings) as nginx:
            yield nginx.pid


class Direct(Contender):
    """No relay: writes go to one InfluxDB, whose own CPU time and memory are shown."""

    copies = 1

    def __init__(self) -> None:
        super().__init__("one InfluxDB", addresses("influxd")["a"])

    def takes(self, scenario: Scenario) -> bool:
        """Say whether it takes part."""
        return scenario.backends == "influxd"

    def run(self, scenario: Scenario, backends: Backends, directory: Path) -> AbstractContextManager[int]:  # noqa: ARG002 (the interface's)
        """Leave all to the first backend."""
        assert isinstance(backends, InfluxDBs)
        return nullcontext(backends.servers[0].pid)


def influxrelay(*, journal: bool = False) -> Relay:
    """Return this checkout's relay, run by this Python, with a journal or without."""
    twistd = shlex.join([sys.executable, str(Path(sysconfig.get_path("scripts")) / "twistd")])
    command = f"{twistd} --nodaemon --pidfile= influxrelay --config {{config}}"
    name = "with a journal" if journal else "influxrelay"
    return Relay(name, command, f"{LOOPBACK}:{RELAY_PORT}", journal=journal)
