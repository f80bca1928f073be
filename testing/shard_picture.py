"""Shards as processes, in both ways: a relay whose shards are servers, and one whose shards are relays."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

from testing.installation import Installation
from testing.servers import LOOPBACK, Relay, Server, free_port, send

SHARDS = {"s1": ("s1a", "s1b"), "s2": ("s2a", "s2b")}
SERVERS = tuple(server for servers in SHARDS.values() for server in servers)
FRONTS = ("servers", "relays")
"""What the shards of the two relays are that clients write to."""
PAIRS = {"s1": "pair1", "s2": "pair2"}
DATABASE = "shop"
CUSTOMERS = tuple(f"customer-{number}" for number in range(20))

_LISTENER = """\
[admin]
bind-addr = "{host}:{admin}"
[[http]]
name = "{name}"
bind-addr = "{host}:{port}"
consistency = "any"
journal = "{directory}/journal"
"""
_UNKEPT = """\
[[http]]
name = "unkept"
bind-addr = "{host}:{port}"
shard-key = "tag:customer_id"
"""


class ShardPicture(Installation):
    """Two shards of two InfluxDB servers, a relay for both, and a second layer.

    :ivar relays: ``servers`` and ``relays``, which clients write to, and ``pair1`` and ``pair2`` behind the second.
    :ivar unkept: the URL of a listener of the relay ``servers`` without any queue.
    """

    def __init__(self, directory: str | Path) -> None:
        super().__init__(directory, SERVERS, DATABASE)
        for shard, name in PAIRS.items():
            text = "".join(
                f'[[http.output]]\n{self._output(each)}\nmax-delay-interval = "1s"\n' for each in SHARDS[shard]
            )
            self._add_relay(name, text)
        key = 'shard-key = "tag:customer_id"\n'
        unkept_port = free_port()
        self.unkept = f"http://{LOOPBACK}:{unkept_port}"
        direct = {shard: [self._output(each) for each in servers] for shard, servers in SHARDS.items()}
        layered = {shard: [f'name = "{name}"\nlocation = "{self.relays[name].url}"'] for shard, name in PAIRS.items()}
        unkept = _UNKEPT.format(host=LOOPBACK, port=unkept_port) + _shards(direct, "")
        self._add_relay("servers", key + _shards(direct) + unkept)
        self._add_relay("relays", key + _shards(layered))

    def _output(self, server: str) -> str:
        return f'name = "{server}"\nlocation = "{self.servers[server].url}/write"'

    def _add_relay(self, name: str, text: str) -> None:
        port, self.admin[name] = free_port(), free_port()
        head = _LISTENER.format(
            host=LOOPBACK, admin=self.admin[name], name=name, port=port, directory=self.directory / name
        )
        self.relays[name] = Relay(self.directory / name, head + text, port)

    @property
    def parts(self) -> dict[str, Server]:
        """What can be killed, in the order in which it is shown."""
        return {**self.servers, **self.relays}

    def values(self, server: str, front: str) -> Counter[tuple[str, int]]:
        """Return which customers have which values of a front's clients on a server."""
        q = f'SELECT n, customer_id FROM "{front}"'
        return Counter((row[2], row[1]) for row in self.servers[server].rows(q, DATABASE))


def _shards(outputs: dict[str, list[str]], more: str = 'max-delay-interval = "1s"') -> str:
    return "".join(
        f'[[http.shard]]\nname = "{shard}"\n' + "".join(f"[[http.shard.output]]\n{each}\n{more}\n" for each in some)
        for shard, some in outputs.items()
    )


class Client(threading.Thread):
    """Writes a line for each customer again and again, all in one write, until it is stopped.

    :ivar acknowledged: the values of writes that were answered 204.
    :ivar failed: what became of the others.
    """

    def __init__(self, front: str, url: str, pause: float = 0.02) -> None:
        super().__init__(name=f"client of {front}", daemon=True)
        self.acknowledged: list[int] = []
        self.failed: list[str] = []
        self._front = front
        self._url = f"{url}/write?db={DATABASE}"
        self._pause = pause
        self._over = threading.Event()

    def run(self) -> None:
        """Write until the end."""
        number = 0
        while not self._over.wait(self._pause):
            number += 1
            now = time.time_ns()
            lines = [f"{self._front},customer_id={each} n={number}i {now}\n" for each in CUSTOMERS]
            try:
                status, body = send("POST", self._url, "".join(lines).encode(), timeout=30)
            except OSError as error:
                self.failed.append(f"{number}: {error!r}")
            else:
                if status == 204:
                    self.acknowledged.append(number)
                else:
                    self.failed.append(f"{number}: {status} {body!r}")

    def stop(self) -> None:
        """Write no more."""
        self._over.set()
        self.join()
