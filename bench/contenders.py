"""What is compared: relays in a configuration of their own for each scenario."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from bench.backends import Backends
from bench.processes import udp_socket_drops
from bench.scenarios import DATABASE, RSS, Scenario
from testing.servers import LOOPBACK, PROJECT, Server

# The same receive buffer for all; the kernel cuts it to net.core.rmem_max.
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
output = [ {{ name = "a", location = "{a}/write"{tls} }}, {{ name = "b", location = "{b}/write"{tls} }} ]
"""


class Contender:
    """Something that takes writes.

    :ivar name: its column.
    :ivar copies: how many of the backends receive what is written.
    """

    copies = 2

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address

    def takes(self, scenario: Scenario) -> bool:
        """Say whether it takes part: if it keeps no journal, in every scenario over HTTP that needs none."""
        return scenario.backends != "udp" and not scenario.journal_sync

    def run(self, scenario: Scenario, backends: Backends) -> AbstractContextManager[int]:
        """Return a context in which it listens; its value is the session whose CPU time and memory count."""
        raise NotImplementedError

    def url(self, scenario: Scenario, backends: Backends) -> str:  # noqa: ARG002 (the interface's)
        """Return where to write to."""
        return write_url(self.address, tls=scenario.tls_in)

    def directory(self, backends: Backends) -> Path:
        """Return its directory, which is made if it is missing."""
        directory = backends.testbed.directory / "".join(c if c.isalnum() else "-" for c in self.name)
        directory.mkdir(exist_ok=True)
        return directory


def write_url(address: str, *, tls: bool) -> str:
    """Return the URL of a write."""
    return f"http{'s' * tls}://{address}/write?db={DATABASE}&precision=ns"


class Relay(Contender):
    """A relay that a shell's command runs in the foreground.

    In the command, ``{config}`` stands for a configuration file in InfluxDB Relay's dialect, written for the scenario,
    and ``{backends}`` for ``sinks``, ``influxd`` or ``udp``. Without ``{config}`` it takes part where nothing but the
    backends differs; without either, with the sinks only.

    :ivar root: a checkout of influxrelay to put first on the Python path, if it is one.
    """

    def __init__(
        self, name: str, command: str, address: str, *, root: Path | None = None, journal: bool = False
    ) -> None:
        super().__init__(name, address)
        self.command = command
        self.root = root
        self.journal = journal

    def takes(self, scenario: Scenario) -> bool:
        """Say whether it takes part."""
        if self.journal:
            return scenario.backends != "udp" and scenario.name != RSS
        if scenario.journal_sync:
            return False
        if "{config}" in self.command:
            return True
        plain = not (scenario.tls_in or scenario.tls_out)
        return plain and (scenario.backends == "sinks" or "{backends}" in self.command)

    @contextmanager
    def run(self, scenario: Scenario, backends: Backends) -> Iterator[int]:
        """Run the command until the context is left, with an empty journal if there is one."""
        directory = self.directory(backends)
        config = directory / "relay.toml"
        journal = directory / "journal"
        shutil.rmtree(journal, ignore_errors=True)
        config.write_text(self.configuration(scenario, backends, journal))
        command = self.command.replace("{config}", shlex.quote(str(config))).replace("{backends}", scenario.backends)
        with _Process(directory, command, self.address, self.root, udp=scenario.backends == "udp") as process:
            yield process.pid

    def configuration(self, scenario: Scenario, backends: Backends, journal: Path) -> str:
        """Return the configuration file's content."""
        a, b = backends.addresses(tls=scenario.tls_out)
        if scenario.backends == "udp":
            return _UDP.format(address=self.address, a=a, b=b)
        settings = []
        if scenario.tls_in:
            settings.append(f'ssl-combined-pem = "{backends.testbed.certificate}"')
        if self.journal:
            settings.append(f'journal = "{journal}"')
        if scenario.journal_sync:
            settings.append(f'journal-sync = "{scenario.journal_sync}"')
        scheme = "https" if scenario.tls_out else "http"
        return _HTTP.format(
            address=self.address,
            settings="\n".join(settings),
            a=f"{scheme}://{a}",
            b=f"{scheme}://{b}",
            tls=", skip-tls-verification = true" if scenario.tls_out else "",
        )


class _Process(Server):
    def __init__(self, directory: Path, command: str, address: str, root: Path | None, *, udp: bool) -> None:
        host, _, port = address.rpartition(":")
        self._address = (host, int(port))
        self._root = root
        self._udp = udp
        self._shell = command
        super().__init__(directory, [] if udp else [int(port)])

    def command(self) -> list[str]:
        return ["/bin/sh", "-c", f"exec {self._shell}"]

    def environment(self) -> dict[str, str]:
        if self._root is None:
            return dict(os.environ)
        path = [str(self._root), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}

    def is_ready(self) -> bool:
        if self._udp:
            return udp_socket_drops(self._address[1]) is not None
        socket.create_connection(self._address, timeout=1).close()
        return True


class Direct(Contender):
    """No relay: writes go to one backend, whose own CPU time and memory are shown."""

    copies = 1

    def __init__(self) -> None:
        super().__init__("no relay", "")

    def takes(self, scenario: Scenario) -> bool:
        """Say whether it takes part."""
        return super().takes(scenario) and not scenario.tls_out and scenario.name != RSS

    def run(self, scenario: Scenario, backends: Backends) -> AbstractContextManager[int]:  # noqa: ARG002 (the interface's)
        """Leave all to the first backend."""
        return nullcontext(backends.sessions[0])

    def url(self, scenario: Scenario, backends: Backends) -> str:
        """Return where the first backend takes writes."""
        return write_url(backends.addresses(tls=scenario.tls_in)[0], tls=scenario.tls_in)


def influxrelay(port: int, *, name: str = "influxrelay", root: Path = PROJECT, journal: bool = False) -> Relay:
    """Return the relay of a checkout, run by the virtual environment in it if there is one, else by this Python."""
    scripts = root / ".venv" / "bin"
    if root == PROJECT or not scripts.exists():
        python, scripts = sys.executable, Path(sysconfig.get_path("scripts"))
    else:
        python = str(scripts / "python")
    twistd = shlex.join([python, str(scripts / "twistd"), "--nodaemon", "--pidfile="])
    command = f"{twistd} influxrelay --config {{config}}"
    return Relay(name, command, f"{LOOPBACK}:{port}", root=root, journal=journal)
