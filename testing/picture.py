"""The picture of the documentation as processes: two InfluxDB servers, two relays with journals, HAProxy and nginx."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from testing.balancers import HAProxy, Nginx
from testing.installation import Installation
from testing.nats import NatsCluster
from testing.servers import LOOPBACK, Relay, Server, ServerError, free_port, send
from testing.sites import DATABASE

SERVERS = ("influx1", "influx2")
RELAYS = ("relay1", "relay2")
NATS = ("nats1", "nats2", "nats3")

CONFIGURATION = """\
admin-socket = "{directory}/admin.sock"

[admin]
bind-addr = "{host}:{admin}"

[[http]]
name = "http"
bind-addr = "{host}:{port}"
consistency = "any"
journal = "{journal}http"

[[http.output]]
name = "influx1"
location = "{influx1}/write"
max-delay-interval = "1s"

[[http.output]]
name = "influx2"
location = "{influx2}/write"
max-delay-interval = "1s"

[[udp]]
name = "udp"
bind-addr = "{host}:{udp}"
journal = "{journal}udp"
batch-timeout = "100ms"

[[udp.output]]
name = "influx1"
location = "{influx1}/write?db={database}"
max-delay-interval = "1s"

[[udp.output]]
name = "influx2"
location = "{influx2}/write?db={database}"
max-delay-interval = "1s"
"""


class Picture(Installation):
    """All of it.

    :param through_relays: whether queries, too, go to the relays, with ``etc/haproxy-relays.cfg`` and
        ``etc/nginx-relays.conf``.
    :param shared: whether the relays share their journals, on three NATS servers.
    :ivar nats: the servers that keep shared journals, by name; none if there are no such journals.
    :ivar places: the relays' names, by what an ``X-Served-By`` may say.
    """

    def __init__(self, directory: str | Path, *, through_relays: bool = False, shared: bool = False) -> None:
        super().__init__(directory, SERVERS, DATABASE)
        self._cluster = NatsCluster(self.directory, direct=True) if shared else None
        self.nats = dict(zip(NATS, self._cluster.servers, strict=True)) if self._cluster else {}
        self.places: dict[str, str] = {}
        http_places, udp_places = [], []
        for name in RELAYS:
            port, udp_port, admin = free_port(), free_port("udp"), free_port()
            text = CONFIGURATION.format(
                host=LOOPBACK,
                admin=admin,
                port=port,
                udp=udp_port,
                directory=self.directory / name,
                journal=f"nats://{self._cluster.addresses}/" if self._cluster else f"{self.directory / name}/",
                database=DATABASE,
                **{server: each.url for server, each in self.servers.items()},
            )
            self.relays[name] = Relay(self.directory / name, text, port)
            self.admin[name] = admin
            http_places.append(f"{LOOPBACK}:{port}")
            self.places[http_places[-1]] = self.places[name] = name
            udp_places.append(f"{LOOPBACK}:{udp_port}")
        server_places = [] if through_relays else [f"{LOOPBACK}:{each.http_port}" for each in self.servers.values()]
        self.haproxy = HAProxy(self.directory / "haproxy", http_places, server_places)
        file = "nginx-relays.conf" if through_relays else "nginx.conf"
        self.nginx = Nginx(self.directory / "nginx", http_places, udp_places, file)
        if through_relays:
            self._up = [f"{part}/{name}" for part in ("relays", "queries", "in_sync") for name in RELAYS]
            self._down = []
        else:
            self._up = [*(f"relays/{name}" for name in RELAYS), *(f"influxdb/{name}" for name in SERVERS)]
            self._down = [f"{server}_is_behind/{relay}" for relay in RELAYS for server in SERVERS]

    @property
    def parts(self) -> dict[str, Server]:
        """What can be killed: relays and servers."""
        return {**super().parts, **self.nats}

    def before_relays(self) -> Sequence[AbstractContextManager[Any]]:
        """Return what keeps shared journals."""
        return [self._cluster] if self._cluster else []

    def behind_relays(self) -> Sequence[AbstractContextManager[Any]]:
        """Return the load balancers."""
        return [self.haproxy, self.nginx]

    def is_settled(self) -> bool:
        """Say whether HAProxy has all parts up, and every relay says that every server is in sync."""
        states = self.haproxy.states()
        return (
            all(states[each] == "UP" for each in self._up)
            and all(states[each] == "DOWN" for each in self._down)
            and all(self.in_sync(relay, server) for relay in RELAYS for server in SERVERS)
        )

    def health(self, relay: str, path: str = "/health") -> tuple[int, dict[str, Any]]:
        """Ask a relay's listener for operators; 0 if it does not answer."""
        try:
            status, body = send("GET", f"http://{LOOPBACK}:{self.admin[relay]}{path}", timeout=3)
            return status, json.loads(body)
        except (OSError, ValueError):
            return 0, {}

    def tell(self, relay: str, *words: str) -> None:
        """Give an operator's command to a relay."""
        program = "import sys; from influxrelay.cli import main; sys.exit(main())"
        part = self.relays[relay]
        command = [sys.executable, "-c", program, *words, "--config", str(part.config)]
        told = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env=part.environment(), cwd=part.directory, check=False
        )
        if told.returncode:
            raise ServerError(f"{command} ended with {told.returncode}: {told.stderr}")

    def in_sync(self, relay: str, server: str) -> bool:
        """Say whether a relay has brought a server everything, over HTTP and UDP."""
        return self.health(relay, f"/health/backends/{server}")[0] == 200
