"""Two relays with one journal on a cluster of NATS servers, before InfluxDB servers."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from influxrelay.operations.views import Request
from testing.nats import NatsCluster, TcpProxy
from testing.servers import LOOPBACK, Influxd, Relay, Server, ServerError, free_port, send

DB = "db"
LEASE = 2.0
STREAM = "shared"


class SharingRelay(Relay):
    """One relay of a group.

    .
    """

    def __init__(
        self, directory: Path, name: str, nats: str, outputs: Sequence[tuple[str, str]], settings: str
    ) -> None:
        port = free_port()
        self.name = name
        self.admin_socket = directory / f"{name}.sock"
        self.admin = free_port()
        lines = [
            f'admin-socket = "{self.admin_socket}"',
            'shutdown-timeout = "5s"',
            "[admin]",
            f'bind-addr = "{LOOPBACK}:{self.admin}"',
            "[[http]]",
            'name = "group"',
            f'bind-addr = "{LOOPBACK}:{port}"',
            f'journal = "nats://{nats}/{STREAM}"',
            f'journal-lease = "{LEASE}s"',
            settings,
            "output = [",
            *(f'  {{ name = "{each}", location = "{url}/write", timeout = "5s" }},' for each, url in outputs),
            "]",
        ]
        super().__init__(directory / name, "\n".join([*lines, ""]), port)

    def is_ready(self) -> bool:
        """Tell whether its journal is open, too."""
        return super().is_ready() and bool(self.asked("/status")["listeners"][0]["ready"])

    def write(self, lines: str, **parameters: str) -> tuple[int, bytes]:
        """Write, and return status and body of the answer; (0, b"") if there is none."""
        query = "&".join(f"{name}={value}" for name, value in {"db": DB, **parameters}.items())
        try:
            return send("POST", f"{self.url}/write?{query}", lines.encode(), timeout=30)
        except OSError:
            return 0, b""

    def asked(self, path: str) -> dict[str, Any]:
        """Return what the admin listener says."""
        found: dict[str, Any] = json.loads(send("GET", f"http://{LOOPBACK}:{self.admin}{path}")[1])
        return found

    def run(self, command: str, **fields: Any) -> dict[str, Any]:
        """Run a command of the operator."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(self.admin_socket))
            client.sendall(Request(command, **fields).line())
            answer = client.makefile().readlines()[-1]
        found: dict[str, Any] = json.loads(answer)
        if "error" in found:
            raise ServerError(found["error"])
        result: dict[str, Any] = found["result"]
        return result

    def delivers(self) -> list[str]:
        """Return the backends to which it delivers, by its log."""
        held: dict[str, None] = {}
        life = self.log.read_text().rpartition("] starting influxrelay ")[2]
        for line in life.splitlines():
            ends = ("has lost the lease", held.pop), ("has given the lease back", held.pop)
            for end, do in (("delivers from now on", held.setdefault), *ends):
                if line.endswith(f"this relay {end}"):
                    do(line.split("backend ")[1].split(":")[0], None)
        return list(held)


class Sharing:
    """A group of relays, with what is behind it.

    :param proxied: whether the connections of each relay and of each server of NATS can be cut.
    :ivar links: the connections of each relay to the servers of NATS, if they can be cut.
    """

    def __init__(self, directory: Path, *, relays: int = 2, settings: str = "", proxied: bool = False) -> None:
        self.directory = directory
        self.nats = NatsCluster(directory)
        self.backends = [Influxd(directory / f"influxd{number}") for number in (1, 2)]
        outputs = [(f"b{number}", each.url) for number, each in enumerate(self.backends, 1)]
        self.relays = []
        self.links: dict[SharingRelay, list[TcpProxy]] = {}
        for number in range(1, relays + 1):
            links = [TcpProxy(each.port) for each in (self.nats.proxies if proxied else ())]
            addresses = ",".join(f"{LOOPBACK}:{each.port}" for each in links) or self.nats.addresses
            relay = SharingRelay(directory, f"r{number}", addresses, outputs, settings)
            self.relays.append(relay)
            self.links[relay] = links

    def __enter__(self) -> Self:
        try:
            for each in self.backends:
                each.start()
                each.create_database(DB)
            self.nats.start()
            for relay in self.relays:
                relay.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop all."""
        servers: list[Server] = [*self.relays, *self.backends]
        for server in servers:
            if server.is_running:
                server.resume()
                server.kill()
        self.nats.stop()
        for links in self.links.values():
            for link in links:
                link.close()

    def cut_off(self, relay: SharingRelay) -> None:
        """Let nothing pass between a relay and NATS."""
        for link in self.links[relay]:
            link.cut()

    def reconnect(self, relay: SharingRelay) -> None:
        """Let a relay that was cut off talk to NATS again."""
        for link in self.links[relay]:
            link.mend()

    def deliverer(self, backend: str) -> SharingRelay | None:
        """Return the relay that delivers to a backend."""
        return next((each for each in self.relays if each.is_running and backend in each.delivers()), None)

    def rows(self) -> list[list[list[Any]]]:
        """Return the contents of all servers."""
        return [sorted(each.rows('SELECT * FROM "m" GROUP BY *', DB)) for each in self.backends]

    def points(self) -> list[dict[str, Any]]:
        """Return what each server has, by series and time."""
        found = []
        for each in self.backends:
            parsed = each.query('SELECT "v" FROM "m" GROUP BY *', DB)
            series = [series for result in parsed["results"] for series in result.get("series", ())]
            found.append({f"{one['tags']}{time}": value for one in series for time, value in one.get("values", ())})
        return found


def wait_for(condition: Callable[[], Any], seconds: float = 60.0, what: str = "") -> Any:
    """Wait until something holds, and return it."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = condition()
        except (OSError, ServerError):
            found = None
        if found:
            return found
        if time.monotonic() > deadline:
            raise ServerError(f"{what or condition} has not come to hold within {seconds:g} s")
        time.sleep(0.02)


class Writers:
    """Clients that overwrite the same points through all relays, each value once.

    A write that is not answered 204 is not repeated: what becomes of it is not known.

    :param first: the first value.
    :ivar acknowledged: the values that were answered 204, by point, with the times of their beginnings and ends.
    """

    def __init__(
        self,
        relays: Sequence[SharingRelay],
        *,
        writers: int = 4,
        points: int = 5,
        first: int = 1,
        **parameters: str,
    ) -> None:
        self.acknowledged: dict[int, list[tuple[int, float, float]]] = {point: [] for point in range(points)}
        self.statuses: dict[int, int] = {}
        self.last_answer = 0.0
        self.longest_gap = 0.0
        self._relays = list(relays)
        self._parameters = parameters
        self._numbers = itertools.count(first)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(each,)) for each in range(writers)]

    def __enter__(self) -> Self:
        self.last_answer = time.monotonic()
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for each in self._threads:
            each.join()

    @property
    def count(self) -> int:
        """How many were acknowledged."""
        with self._lock:
            return sum(map(len, self.acknowledged.values()))

    def _write(self, writer: int) -> None:
        for turn in itertools.count(writer):
            if self._ended.is_set():
                return
            relay = self._relays[turn % len(self._relays)]
            with self._lock:
                value = next(self._numbers)
            point = value % len(self.acknowledged)
            # One point that all overwrite, and one of its own for each value.
            began = time.monotonic()
            status, _ = relay.write(f"m,p={point} v={value}i 1\nm,p=own v={value}i {value}\n", **self._parameters)
            now = time.monotonic()
            with self._lock:
                self.statuses[status] = self.statuses.get(status, 0) + 1
                if status == 204:
                    self.acknowledged[point].append((value, began, now))
                    self.longest_gap = max(self.longest_gap, now - self.last_answer)
                    self.last_answer = now
            if status != 204:
                time.sleep(0.05)

    def missing(self, points: dict[str, Any]) -> list[int]:
        """Return the acknowledged values that a server does not have."""
        have = {value for key, value in points.items() if "own" in key}
        return [value for values in self.acknowledged.values() for value, _, _ in values if value not in have]

    def overtaken(self, points: dict[str, Any]) -> list[tuple[int, int]]:
        """Return the values that overwrote later ones: those began after these had been acknowledged."""
        found = []
        for point, values in self.acknowledged.items():
            value = next((each for key, each in points.items() if f"'{point}'" in key), None)
            end = next((ended for each, _, ended in values if each == value), None)
            found += [
                (value, each) for each, began, _ in values if end is not None and value is not None and began > end
            ]
        return found
