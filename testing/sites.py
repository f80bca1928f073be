"""Two sites that write line protocol over HTTP and UDP: a main and a backup sender at each.

They stand for the Telegrafs of the documentation's picture. Loopback is 127.0.0.0/8, so each has an address of its own.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Mapping
from typing import Self
from urllib.parse import urlencode

import attrs

from testing.servers import LOOPBACK

DATABASE = "sites"
PATIENCE = 15.0  # seconds for one answer; what telegraf.conf says
CARRIED = (502, 504)  # how a balancer tells that the connection behind it has broken, or is silent


@attrs.frozen
class Source:
    """Who writes: the site, the role there, and the address.

    :ivar through: the balancer that this one's HTTP writes go through.
    """

    site: str
    role: str
    address: str
    through: str

    @property
    def name(self) -> str:
        """The tag's value."""
        return f"{self.site}-{self.role}"


SOURCES = (
    Source("north", "main", "127.1.0.1", "haproxy"),
    Source("north", "backup", "127.1.0.2", "nginx"),
    Source("south", "main", "127.2.0.1", "haproxy"),
    Source("south", "backup", "127.2.0.2", "nginx"),
)


class Sender(threading.Thread):
    """Sends so many lines a second, each one write, numbered from 1; catches up when it was held.

    :ivar sent: the number of the last line.
    """

    measurement: str

    def __init__(self, source: Source, port: int, rate: float) -> None:
        super().__init__(name=f"{self.measurement} {source.name}", daemon=True)
        self.source = source
        self.sent = 0
        self.sending = threading.Event()
        self.sending.set()
        self.over = threading.Event()
        self.busy = threading.Lock()
        self._port = port
        self._interval = 1 / rate

    def run(self) -> None:
        """Send until told to end; one that is not :attr:`sending` pauses."""
        due = time.monotonic()
        while not self.over.is_set():
            if not self.sending.wait(0.1):
                due = time.monotonic()
                continue
            with self.busy:
                if self.sending.is_set():
                    self.sent += 1
                    line = f"{self.measurement},sender={self.source.name} n={self.sent}i {time.time_ns()}\n"
                    self.send(self.sent, line.encode())
            due += self._interval
            self.over.wait(max(0.0, due - time.monotonic()))
        self.close()

    def send(self, number: int, line: bytes) -> None:
        """Send one line."""
        raise NotImplementedError

    def close(self) -> None:
        """Close what is open."""
        raise NotImplementedError

    def end(self) -> None:
        """Let it end."""
        self.over.set()
        self.join()


class HTTPSender(Sender):
    """Writes over HTTP, and repeats a write once whose connection has broken.

    :ivar acknowledged: when, by which relay, by number.
    :ivar failed: when and how a write failed.
    :ivar repeated: how often a write was sent a second time.
    :ivar began: when the write under way began; 0 between two.
    :ivar longest: the longest time for a write, in seconds; for whoever looks to reset.
    """

    measurement = "http"

    def __init__(self, source: Source, port: int, rate: float) -> None:
        super().__init__(source, port, rate)
        self.names: Mapping[str, str] = {}  # of relays, by what X-Served-By may say
        self.acknowledged: dict[int, tuple[float, str]] = {}
        self.failed: list[tuple[float, str]] = []
        self.repeated = 0
        self.longest = 0.0
        self.began = 0.0
        self._connection: http.client.HTTPConnection | None = None

    def send(self, number: int, line: bytes) -> None:
        """Write one line, and note what became of it."""
        began = self.began = time.monotonic()
        try:
            status, relay, words = self._try(line)
        except (http.client.HTTPException, OSError) as error:
            status, relay, words = 0, "", repr(error)
            self.close()
        if status == 0 or (status in CARRIED and not relay):
            self.repeated += 1
            try:
                status, relay, words = self._try(line)
            except (http.client.HTTPException, OSError) as error:
                status, relay, words = 0, "", f"{words}, and then {error!r}"
                self.close()
        self.began = 0.0
        now = time.monotonic()
        self.longest = max(self.longest, now - began)
        if 200 <= status < 300:
            self.acknowledged[number] = now, relay
        else:
            self.failed.append((now, f"{self.source.name} {number}: {status} {words}"))

    def _try(self, line: bytes) -> tuple[int, str, str]:
        if self._connection is None:
            address = self.source.address, 0
            self._connection = http.client.HTTPConnection(
                LOOPBACK, self._port, timeout=PATIENCE, source_address=address
            )
        self._connection.request("POST", f"/write?{urlencode({'db': DATABASE})}", line)
        answer = self._connection.getresponse()
        words = answer.read().decode(errors="replace").strip()
        who = answer.getheader("X-Served-By", "").rpartition(" ")[2]
        return answer.status, self.names.get(who, who), words

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class UDPSender(Sender):
    """Sends each line as a datagram."""

    measurement = "udp"

    def __init__(self, source: Source, port: int, rate: float) -> None:
        super().__init__(source, port, rate)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((source.address, 0))

    def send(self, number: int, line: bytes) -> None:
        """Send one line."""
        self._socket.sendto(line, (LOOPBACK, self._port))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Sites:
    """All senders.

    :param http_ports: the balancers', by :attr:`Source.through`.
    :param rate: writes a second, of all together, half of them over UDP.
    """

    def __init__(self, http_ports: Mapping[str, int], udp_port: int, rate: float) -> None:
        each = rate / len(SOURCES) / 2
        self.http = [HTTPSender(source, http_ports[source.through], each) for source in SOURCES]
        self.udp = [UDPSender(source, udp_port, each) for source in SOURCES]

    def __enter__(self) -> Self:
        for sender in self.all():
            sender.start()
        return self

    def __exit__(self, *_: object) -> None:
        for sender in self.all():
            sender.over.set()
        for sender in self.all():
            sender.end()

    def pause(self) -> None:
        """Send no more; return when what is under way has its answer."""
        for sender in self.all():
            sender.sending.clear()
        for sender in self.all():
            with sender.busy:
                pass

    def resume(self) -> None:
        """Send again."""
        for sender in self.all():
            sender.sending.set()

    def all(self) -> list[Sender]:
        """Return all senders."""
        return [*self.http, *self.udp]
