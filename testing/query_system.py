"""Two real servers and a relay in front of them, for clients that ask."""

from __future__ import annotations

import atexit
import tempfile
from functools import cache
from pathlib import Path
from shutil import rmtree

from testing.servers import LOOPBACK, Influxd, Relay, free_port

_CONFIG = """
[[http]]
name = "main"
bind-addr = "{address}"
slow-query = "1ns"
output = [
    {{ name = "a", location = "{a}/write", buffer-size-mb = 1 }},
    {{ name = "b", location = "{b}/write", buffer-size-mb = 1 }},
]
"""


@cache
def system() -> tuple[tuple[Influxd, Influxd], Relay]:
    """Return two servers and a relay that run; they are started once and end with this process."""
    directory = Path(tempfile.mkdtemp(prefix="influxrelay-queries-"))
    port = free_port()
    servers = Influxd(directory / "a"), Influxd(directory / "b")
    a, b = (each.url for each in servers)
    relay = Relay(directory / "relay", _CONFIG.format(address=f"{LOOPBACK}:{port}", a=a, b=b), port)
    atexit.register(rmtree, directory, ignore_errors=True)
    for server in (*servers, relay):
        server.start()
        atexit.register(server.stop)
    return servers, relay
