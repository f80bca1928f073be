"""Several relays on one machine, as the page on scaling says: the template unit's command, behind the HAProxy file."""

from __future__ import annotations

import http.client
import re
import shlex
import shutil
import sys
import sysconfig
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from testing.balancers import HAProxy
from testing.servers import LOOPBACK, PROJECT, Influxd, Relay, free_port, send

UNIT = PROJECT / "packaging" / "debian" / "influxrelay@.service"
PAGE = PROJECT / "docs" / "scaling.rst"
CLIENTS, WRITES = 12, 60
PATIENCE = 60.0  # seconds


class Instance(Relay):
    """What ``systemctl start influxrelay@NAME`` runs, with its files in a test's directory instead of the system's."""

    def __init__(self, directory: Path, name: str, port: int, text: str) -> None:
        super().__init__(directory / "state" / name, text, port)
        self.name = name
        self.config = directory / "etc" / f"{name}.toml"

    def command(self) -> list[str]:
        """Write the configuration file, and return the unit's command for this instance."""
        self.config.parent.mkdir(exist_ok=True)
        super().command()
        (line,) = re.findall(r"(?m)^ExecStart=(.*)$", UNIT.read_text(encoding="utf-8"))
        program, *options = shlex.split(line.replace("%i", self.name))
        assert program == "/usr/lib/influxrelay/bin/twistd"
        twistd = str(Path(sysconfig.get_path("scripts")) / "twistd")
        return [
            sys.executable,
            twistd,
            *(each.replace("/etc/influxrelay", str(self.config.parent)) for each in options),
        ]


class Client(threading.Thread):
    """Writes numbers, one after the other, over one connection from an address of its own, until told to end.

    :ivar relays: who has answered.
    :ivar statuses: other than 204.
    :ivar written: the last number that was answered.
    """

    def __init__(self, number: int, port: int) -> None:
        super().__init__(daemon=True)
        self.number, self.port = number, port
        self.relays: set[str] = set()
        self.statuses: list[int] = []
        self.written = 0
        self.over = threading.Event()

    def run(self) -> None:
        """Write each number to a point that is overwritten, and to one that is not."""
        connection = http.client.HTTPConnection(
            LOOPBACK, self.port, timeout=PATIENCE, source_address=(f"127.1.1.{self.number}", 0)
        )
        for value in count(1):
            lines = f"last,client={self.number} n={value} 1\neach,client={self.number} n={value} {value}\n"
            connection.request("POST", "/write?db=db", lines)
            response = connection.getresponse()
            response.read()
            self.relays.add(response.getheader("X-Served-By", ""))
            if response.status != 204:
                self.statuses.append(response.status)
            self.written = value
            if self.over.is_set() and value >= WRITES:
                break
        connection.close()


class ScalingTests(SynchronousTestCase):
    """Two instances on this machine, and two InfluxDB servers."""

    def setUp(self) -> None:
        """Start everything."""
        directory = Path(tempfile.mkdtemp(prefix="scaling-"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        self.servers = [Influxd(directory / name) for name in ("influx1", "influx2")]
        for server in self.servers:
            server.start()
            self.addCleanup(server.stop)
            server.create_database("db")
        self.relays = [self.instance(directory) for _ in range(2)]
        for relay in self.relays:
            relay.start()
            self.addCleanup(relay.stop)
        places = [relay.url.removeprefix("http://") for relay in self.relays]
        self.haproxy = HAProxy(directory / "haproxy", places, [f"{LOOPBACK}:{each.http_port}" for each in self.servers])
        self.haproxy.start()
        self.addCleanup(self.haproxy.stop)
        self.wait_for(lambda: set(self.states().values()) == {"UP"})

    def instance(self, directory: Path) -> Instance:
        """Return an instance with the page's configuration: only its name, ports and servers are replaced."""
        page = PAGE.read_text(encoding="utf-8")
        (found,) = re.finditer(r"(?m)^( *)\.\. code-block:: toml\n\n((?:\1   .*\n|\n)+)", page)
        port = free_port()
        replaced = {"9101": str(port), "9201": str(free_port()), "/var/lib/influxrelay": str(directory / "state")}
        replaced |= {f"10.0.0.2{n}:8086": f"{LOOPBACK}:{each.http_port}" for n, each in enumerate(self.servers, 1)}
        text = textwrap.dedent(found[2])
        for old, new in replaced.items():
            self.assertIn(old, text)
            text = text.replace(old, new)
        return Instance(directory, str(port), port, text)

    def states(self) -> dict[str, str]:
        """Return whether HAProxy has the relays up."""
        return {name: state for name, state in self.haproxy.states().items() if re.match(r"relays/relay\d", name)}

    def wait_for(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            self.assertLess(time.monotonic(), deadline, f"{self.states()}")
            time.sleep(0.02)

    def in_sync(self) -> bool:
        """Whether each relay says that each server is in sync."""
        paths = [f"{relay.url}/health/backends/{name}" for relay in self.relays for name in ("influx1", "influx2")]
        return all(send("GET", path, timeout=5)[0] == 200 for path in paths)

    def run_clients(self, meanwhile: Callable[[list[Client]], None] = lambda clients: None) -> list[Client]:
        """Let clients write through HAProxy, and check that both servers have all of it with its newest values."""
        clients = [Client(number, self.haproxy.port) for number in range(1, CLIENTS + 1)]
        for client in clients:
            client.start()
        meanwhile(clients)
        for client in clients:
            client.over.set()
        for client in clients:
            client.join(PATIENCE)
            self.assertFalse(client.is_alive())
        self.assertEqual([each.statuses for each in clients], [[]] * CLIENTS)
        self.wait_for(self.in_sync)
        for server in self.servers:
            for client in clients:
                where = f"WHERE client = '{client.number}'"
                self.assertEqual(server.rows(f"SELECT n FROM last {where}", "db")[0][1], client.written)
                self.assertEqual(server.rows(f"SELECT count(n) FROM each {where}", "db")[0][1], client.written)
        return clients

    def test_order(self) -> None:
        """Both relays get writes, and each client one relay: its writes are in order on both servers."""
        clients = self.run_clients()
        self.assertEqual({len(client.relays) for client in clients}, {1})
        self.assertEqual({name for client in clients for name in client.relays}, {"relay1", "relay2"})

    def test_restart(self) -> None:
        """While an instance is restarted no write fails: its clients write through the other one."""

        def restart(clients: list[Client]) -> None:
            self.wait_for(lambda: any("relay1" in each.relays for each in clients))
            self.relays[0].restart()
            self.wait_for(lambda: all("relay2" in each.relays for each in clients))

        self.run_clients(restart)
