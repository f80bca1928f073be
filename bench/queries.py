"""Measure queries through the relay beside direct ones, side by side: python -m bench.queries.

Two InfluxDB servers hold the same points behind a relay. A query of one row is asked many times over a kept connection,
in turns directly and through the relay; a query of many rows is read as fast as it comes, and the relay's memory is
looked at meanwhile. On a busy machine the CPU time tells more than the throughput.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import urlencode

import attrs

from bench.processes import Usage
from bench.report import table
from testing.servers import LOOPBACK, Influxd, Relay, free_port

DATABASE = "bench"
WHERE = ("direct", "relay")
_BATCH = 50_000  # points of a write
_LOOK = 0.02  # seconds between two looks at the memory
_CONFIG = """
[[http]]
bind-addr = "{address}"
output = [{{ name = "a", location = "{a}/write" }}, {{ name = "b", location = "{b}/write" }}]
"""
_LARGE = {"whole": {}, "chunked": {"chunked": "true"}}


@attrs.frozen
class Arguments:
    """What the command line says."""

    rows: int
    small: int
    rounds: int

    @classmethod
    def parse(cls, words: list[str] | None) -> Self:
        """Read it."""
        parser = argparse.ArgumentParser(prog="python -m bench.queries", description=(__doc__ or "").partition("\n")[0])
        parser.add_argument("--rows", type=int, default=1_000_000, help="of the large query (default: %(default)s)")
        parser.add_argument(
            "--small", type=int, default=500, help="queries of one row in a round (default: %(default)s)"
        )
        parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
        return cls(**vars(parser.parse_args(words)))


class Connection:
    """A kept connection that asks one query after the other."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((LOOPBACK, port), 300)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(1024 * 1024)

    def ask(self, q: str, **parameters: str) -> int:
        """Return the bytes of a complete response."""
        values = urlencode({"q": q, "db": DATABASE, "epoch": "ns", **parameters})
        self._socket.sendall(f"GET /query?{values} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        size, end, last = 0, b"", b""
        while True:
            count = self._socket.recv_into(self._buffer)
            if not count:
                raise ConnectionError("the response is cut off")
            if not size:
                head, _, _ = bytes(self._buffer[:count]).partition(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 200"):
                    raise ConnectionError(head.decode())
                end = b"\r\n0\r\n\r\n" if b"chunked" in head.lower() else b"}\n"
            size += count
            last = (last + self._buffer[max(0, count - 8) : count])[-8:]
            if last.endswith(end):
                return size

    def close(self) -> None:
        """Close it."""
        self._socket.close()


@contextmanager
def peak(pid: int) -> Iterator[list[int]]:
    """Look at a process's resident memory until the context is left: its first and its largest value, in bytes."""
    over = threading.Event()
    seen = [Usage().resident(pid)] * 2

    def look() -> None:
        while not over.wait(_LOOK):
            seen[1] = max(seen[1], Usage().resident(pid))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


class Bench:
    """Two servers with the same points, and a relay."""

    def __init__(self, directory: Path, arguments: Arguments) -> None:
        self._arguments = arguments
        port = free_port()
        self._servers = [Influxd(directory / name) for name in "ab"]
        a, b = (each.url for each in self._servers)
        self._relay = Relay(directory / "relay", _CONFIG.format(address=f"{LOOPBACK}:{port}", a=a, b=b), port)
        self._ports = dict(zip(WHERE, (self._servers[0].http_port, port), strict=True))
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for server in (*self._servers, self._relay):
                stack.enter_context(server)
            for server in self._servers:
                server.create_database(DATABASE)
                server.write("one v=1 1", DATABASE)
                for start in range(1, self._arguments.rows + 1, _BATCH):
                    numbers = range(start, min(start + _BATCH, self._arguments.rows + 1))
                    server.write("".join(f"m v={number} {number}\n" for number in numbers), DATABASE)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def cpu(self) -> tuple[float, float]:
        """Return the CPU seconds that the servers and the relay have used so far."""
        usage = Usage()
        return usage.cpu(*(each.pid for each in self._servers)), usage.cpu(self._relay.pid)

    def small(self) -> dict[str, float]:
        """Return the median time of a query of one row, in milliseconds."""
        times: dict[str, list[float]] = {where: [] for where in WHERE}
        connections = {where: Connection(port) for where, port in self._ports.items()}
        for _ in range(self._arguments.rounds * self._arguments.small):
            for where, connection in connections.items():
                began = time.perf_counter()
                connection.ask("SELECT v FROM one")
                times[where].append(time.perf_counter() - began)
        for connection in connections.values():
            connection.close()
        return {where: statistics.median(found) * 1000 for where, found in times.items()}

    def large(self, parameters: dict[str, str]) -> tuple[dict[str, float], float]:
        """Return the throughput of the large query, in MB a second, and by how many MB the relay's memory has grown."""
        rates: dict[str, list[float]] = {where: [] for where in WHERE}
        growth = 0.0
        for _ in range(self._arguments.rounds):
            for where, port in self._ports.items():
                connection = Connection(port)
                with peak(self._relay.pid) as memory:
                    began = time.perf_counter()
                    size = connection.ask("SELECT v FROM m", **parameters)
                    rates[where].append(size / 1e6 / (time.perf_counter() - began))
                growth = max(growth, (memory[1] - memory[0]) / 1e6)
                connection.close()
        return {where: statistics.median(found) for where, found in rates.items()}, growth


def main(words: list[str] | None = None) -> int:
    """Run from the command line."""
    arguments = Arguments.parse(words)
    with tempfile.TemporaryDirectory(prefix="bench-queries-") as name, Bench(Path(name), arguments) as bench:
        before = bench.cpu()
        small = bench.small()
        per_query = [
            (after - then) / (arguments.rounds * arguments.small) * 1000
            for after, then in zip(bench.cpu(), before, strict=True)
        ]
        rows = [
            [
                "one row, p50",
                *(f"{small[where]:.2f} ms" for where in WHERE),
                f"{small['relay'] - small['direct']:+.2f} ms",
                f"{per_query[1]:.2f} ms, {per_query[0] / 2:.2f} ms",
                "",
            ]
        ]
        for kind, parameters in _LARGE.items():
            before = bench.cpu()
            rates, growth = bench.large(parameters)
            each = [(after - then) / arguments.rounds for after, then in zip(bench.cpu(), before, strict=True)]
            rows.append(
                [
                    f"{arguments.rows:,} rows, {kind}",
                    *(f"{rates[where]:.0f} MB/s" for where in WHERE),
                    f"x {rates['relay'] / rates['direct']:.2f}",
                    f"{each[1]:.2f} s, {each[0] / 2:.2f} s",
                    f"{growth:.1f} MB",
                ]
            )
    sys.stdout.write(f"{table([['', *WHERE, 'difference', 'CPU of relay, of server', 'memory'], *rows])}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
