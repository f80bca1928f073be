"""Clients that go on while what they talk to is restarted: ``python -m testing.traffic HTTP_PORT [UDP_PORT]``.

Two of them write over HTTP, each write on a connection of its own, and one sends datagrams, a value after the other,
until standard input ends. Then what became of it is printed as JSON.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from itertools import count

LOOPBACK = "127.0.0.1"
PATIENCE = 120.0  # seconds that a client waits for its answer


class Traffic:
    """What was sent, and what came of it.

    :ivar acknowledged: the values of the writes that were answered 204.
    :ivar refused: how many connections were refused.
    :ivar failed: what else happened to a write.
    :ivar datagrams: the values that were sent as datagrams.
    """

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self.refused = 0
        self.failed: list[str] = []
        self.datagrams: list[int] = []
        self._end = threading.Event()
        self._values: Iterator[int] = count()

    def write(self, port: int) -> None:
        """Write over HTTP until the end."""
        while not self._end.wait(0.01):
            value = next(self._values)
            line = b"http value=%d %d\n" % (value, value)
            try:
                status = self._ask(
                    port, b"POST /write?db=d HTTP/1.1\r\nHost: relay\r\nContent-Length: %d\r\n\r\n%b", line
                )
            except ConnectionRefusedError:
                self.refused += 1
            except OSError as error:
                self.failed.append(f"{value}: {error!r}")
            else:
                if status == b"204":
                    self.acknowledged.append(value)
                else:
                    self.failed.append(f"{value}: {status!r}")

    def _ask(self, port: int, request: bytes, line: bytes) -> bytes:
        with socket.create_connection((LOOPBACK, port), PATIENCE) as connection:
            connection.sendall(request % (len(line), line))
            return connection.recv(4096)[9:12]

    def send(self, port: int) -> None:
        """Send datagrams until the end, slowly enough for a buffer of the usual size to hold a restart's."""
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            while not self._end.wait(0.05):
                value = next(self._values)
                sender.sendto(b"udp value=%d %d\n" % (value, value), (LOOPBACK, port))
                self.datagrams.append(value)

    def run(self, http_port: int, udp_port: int | None = None) -> None:
        """Go on until standard input ends, and print what came of it."""
        threads = [threading.Thread(target=self.write, args=(http_port,)) for _ in range(2)]
        if udp_port is not None:
            threads.append(threading.Thread(target=self.send, args=(udp_port,)))
        for thread in threads:
            thread.start()
        sys.stdin.read()
        self._end.set()
        for thread in threads:
            thread.join()
        found = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        print(json.dumps(found))  # noqa: T201 (what it is for)


if __name__ == "__main__":
    Traffic().run(*(int(port) for port in sys.argv[1:]))
