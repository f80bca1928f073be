"""Hostile clients against a real relay, and what honest ones notice: ``python -m tests.soak.hostile [--admin]``.

One relay stands before two servers that answer 204. Honest clients write, on connections that they keep and on new
ones, first alone and then beside each kind of attack. The attackers are a process of its own with the lowest priority:
in truth they are on other machines. The goal: the honest 99th percentile stays under 10 times the one without an
attack, and the relay's memory under 300 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import itertools
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

import attrs

from testing.servers import LOOPBACK, PROJECT, Relay, Server, ServerError, find_program, free_port, port_is_free

LINE = b"cpu,host=a value=1 1465839830100400200\n"
LIMIT = 25_000_000  # max-body-size, and so what a body of the worst kind has
_PAGE = os.sysconf("SC_PAGE_SIZE")

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Attack = Callable[[int], Awaitable[None]]


# -- the attackers: each attack is a coroutine for one connection, again and again


async def _connect(port: int) -> Streams:
    return await asyncio.open_connection(LOOPBACK, port)


def _head(*headers: bytes, target: bytes = b"POST /write?db=db") -> bytes:
    return b"\r\n".join([target + b" HTTP/1.1", b"Host: relay", *headers, b"", b""])


async def _drain_until_closed(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


async def _pour(port: int, head: bytes, piece: bytes) -> None:
    """Send a head, and then the same bytes for as long as they are taken."""
    _, writer = await _connect(port)
    try:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
    finally:
        writer.transport.abort()


async def half_open(port: int) -> None:
    """Connect, and send nothing."""
    reader, writer = await _connect(port)
    try:
        await _drain_until_closed(reader)
    finally:
        writer.transport.abort()


async def slow_head(port: int) -> None:
    """Send a head of which another line comes each second."""
    _, writer = await _connect(port)
    try:
        writer.write(b"POST /write?db=db HTTP/1.1\r\n")
        for number in itertools.count():
            writer.write(b"X-%d: 1\r\n" % number)
            await writer.drain()
            await asyncio.sleep(1)
    finally:
        writer.transport.abort()


async def slow_body(port: int) -> None:
    """Announce a large body, send much of it at once, and the rest as slowly as can be."""
    _, writer = await _connect(port)
    try:
        writer.write(_head(b"Content-Length: 20000000") + b"#" * 1_000_000)
        while True:
            await writer.drain()
            await asyncio.sleep(1)
            writer.write(b"#" * 1000)
    finally:
        writer.transport.abort()


async def endless_head(port: int) -> None:
    """Send headers without end."""
    await _pour(port, b"POST /write?db=db HTTP/1.1\r\n", b"X-A: b\r\n" * 1000)


async def endless_line(port: int) -> None:
    """Send one header without end."""
    await _pour(port, b"POST /write?db=db HTTP/1.1\r\nX-A: ", b"b" * 65536)


async def endless_chunks(port: int) -> None:
    """Send a body in chunks without end."""
    await _pour(port, _head(b"Transfer-Encoding: chunked"), (b"400\r\n" + b"#" * 1024 + b"\r\n") * 64)


async def endless_tiny_chunks(port: int) -> None:
    """Send a body without end, byte by byte."""
    await _pour(port, _head(b"Transfer-Encoding: chunked"), b"1\r\n#\r\n" * 10000)


async def endless_extension(port: int) -> None:
    """Send chunks whose extensions are longer than they are."""
    await _pour(port, _head(b"Transfer-Encoding: chunked"), (b"1;" + b"a=b;" * 200 + b"\r\n#\r\n") * 100)


async def _post(port: int, body: bytes, *headers: bytes) -> None:
    reader, writer = await _connect(port)
    try:
        for _ in range(20):
            writer.write(_head(b"Content-Length: %d" % len(body), *headers) + body)
            await writer.drain()
            answer = await reader.readuntil(b"\r\n\r\n")
            if b"\r\nConnection: close" in answer:
                break
            length = answer.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length or b"0"))
    finally:
        writer.transport.abort()


def _lying(packed: bytes) -> bytes:
    return packed[:-4] + b"\1\0\0\0"


_bombs: dict[str, bytes] = {}


def _bomb(kind: str) -> bytes:
    """Return a compressed body: too large for the limit, the same with a trailer that denies it, or just within it."""
    if not _bombs:
        over = gzip.compress(LINE * (2 * LIMIT // len(LINE)), 9)
        _bombs["over"] = over
        _bombs["lying"] = _lying(over)
        _bombs["within"] = gzip.compress(b"#" * (LIMIT - 1000) + b"\n", 9)
    return _bombs[kind]


async def bomb(port: int) -> None:
    """Post gzip that unpacks to 50 MB."""
    await _post(port, _bomb("over"), b"Content-Encoding: gzip")


async def lying_bomb(port: int) -> None:
    """Post the same, but its trailer says that there is one byte in it."""
    await _post(port, _bomb("lying"), b"Content-Encoding: gzip")


async def largest_bomb(port: int) -> None:
    """Post gzip that unpacks to a comment of just the allowed size."""
    await _post(port, _bomb("within"), b"Content-Encoding: gzip")


_LINES = {
    "bad": b"cpu,host= value=1\n",
    "odd": b'cpu,a\\,b=c\\ d s="x\\"y, =z",v=1i\n',
    "blank": b"# \n",
    "wide": b"cpu " + b"f=1," * 12000 + b'g="a\\"b\n',
}


def _lines(kind: str) -> bytes:
    line = _LINES[kind]
    return line * (LIMIT // len(line))


async def bad_lines(port: int) -> None:
    """Post 25 MB of lines that are wrong."""
    await _post(port, _lines("bad"))


async def odd_lines(port: int) -> None:
    """Post 25 MB of lines that are right, odd, and have no timestamps."""
    await _post(port, _lines("odd"))


async def blank_lines(port: int) -> None:
    """Post 25 MB of comments."""
    await _post(port, _lines("blank"))


async def wide_lines(port: int) -> None:
    """Post 25 MB of lines with 12000 fields each, the last of them wrong."""
    await _post(port, _lines("wide"))


async def unread_answers(port: int) -> None:
    """Ask again and again, and read no answer."""
    _, writer = await _connect(port)
    with suppress(AttributeError):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
    try:
        while True:
            writer.write(_head(target=b"GET /ping?verbose=true") * 100)
            await writer.drain()
    finally:
        writer.transport.abort()


async def churn(port: int) -> None:
    """Connect, ask once, and go."""
    reader, writer = await _connect(port)
    try:
        writer.write(_head(target=b"GET /ping"))
        await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.transport.abort()


async def garbage(port: int) -> None:
    """Connect, and send what is no HTTP."""
    reader, writer = await _connect(port)
    try:
        writer.write(b"\x16\x03\x01" + b"\r\n" * 30000)
        await _drain_until_closed(reader)
    finally:
        writer.transport.abort()


ATTACKS: dict[str, tuple[Attack, int]] = {
    "half-open connections": (half_open, 2000),
    "slow heads": (slow_head, 2000),
    "slow large bodies": (slow_body, 200),
    "endless heads": (endless_head, 50),
    "endless header lines": (endless_line, 50),
    "endless chunks": (endless_chunks, 50),
    "endless chunks of a byte": (endless_tiny_chunks, 50),
    "endless chunk extensions": (endless_extension, 50),
    "gzip bombs": (bomb, 20),
    "gzip bombs that lie": (lying_bomb, 20),
    "gzip bombs within limits": (largest_bomb, 20),
    "25 MB of bad lines": (bad_lines, 10),
    "25 MB of odd lines": (odd_lines, 10),
    "25 MB of comments": (blank_lines, 10),
    "25 MB of wide lines": (wide_lines, 10),
    "unread answers": (unread_answers, 100),
    "connections for one request": (churn, 50),
    "garbage": (garbage, 50),
}
_FOR_WRITES = {name for name in ATTACKS if name.startswith(("25 MB", "gzip"))}
"""At the listener for operators these are large bodies like others."""


async def _attack(name: str, port: int, count: int) -> None:
    """Keep so many connections at it, until we are ended."""
    attack, _ = ATTACKS[name]

    async def again_and_again() -> None:
        while True:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                await attack(port)
            await asyncio.sleep(0.001)

    await asyncio.gather(*(again_and_again() for _ in range(count)))


# -- the honest clients


class Honest:
    """Clients that write a line now and then, each in a thread: some on one connection, some on a new one each time."""

    def __init__(self, port: int, *, kept: int = 4, new: int = 2, pause: float = 0.01) -> None:
        self._port = port
        self._pause = pause
        self._kinds = [True] * kept + [False] * new

    def measure(self, seconds: float) -> list[float]:
        """Return how long each write took; one that fails counts as the time that was given to it.

        :raises ServerError: a client was not answered 204, or at all.
        """
        times: list[float] = []
        problems: list[str] = []
        deadline = time.monotonic() + seconds
        threads = [threading.Thread(target=self._write, args=(kept, deadline, times, problems)) for kept in self._kinds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if problems:
            raise ServerError(f"{len(problems)} honest write(s) of {len(times)} failed, the first: {problems[0]}")
        return times

    def _write(self, kept: bool, deadline: float, times: list[float], problems: list[str]) -> None:  # noqa: FBT001
        data = _head(b"Content-Length: %d" % len(LINE)) + LINE
        connection: socket.socket | None = None
        while time.monotonic() < deadline:
            began = time.perf_counter()
            try:
                if connection is None:
                    connection = socket.create_connection((LOOPBACK, self._port), timeout=20)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.sendall(data)
                answer = connection.recv(4096)
                if not answer.startswith(b"HTTP/1.1 204 "):
                    problems.append(repr(answer[:200]))
            except OSError as error:
                answer = b""
                problems.append(repr(error))
            times.append(time.perf_counter() - began)
            if connection is not None and (not kept or not answer):
                connection.close()
                connection = None
            time.sleep(self._pause)
        if connection is not None:
            connection.close()


def percentile(times: list[float], part: float) -> float:
    """Return the time that this part of all stays under."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


# -- the relay, and the figures


class Sinks(Server):
    """Two backends that answer 204, in one nginx."""

    def __init__(self, directory: Path) -> None:
        self.ports = [free_port(), free_port()]
        super().__init__(directory, self.ports)

    def command(self) -> list[str]:
        """Write the configuration file, and return the command."""
        places = " ".join(f"{kind}_temp_path {self.directory}/{kind};" for kind in _TEMPORARY)
        servers = "\n".join(
            f"server {{ listen {LOOPBACK}:{port}; location / {{ return 204; }} }}" for port in self.ports
        )
        file = self.directory / "nginx.conf"
        file.write_text(
            f"daemon off; user root root; worker_processes 1; pid {self.directory}/nginx.pid; error_log stderr error;\n"
            "events { worker_connections 4096; }\n"
            f"http {{ {places} access_log off; client_max_body_size 100m; client_body_buffer_size 1m;\n"
            f"keepalive_requests 100000000; keepalive_timeout 600s;\n{servers}\n}}\n"
        )
        return [find_program("nginx", "nginx"), "-e", "stderr", "-p", str(self.directory), "-c", str(file)]

    def is_ready(self) -> bool:
        """Say whether both listen."""
        return not any(port_is_free(port) for port in self.ports)


_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@attrs.frozen
class Figures:
    """What was measured beside one attack.

    :ivar median: and ``p99``: seconds.
    :ivar memory: bytes, the most at any time.
    """

    name: str
    median: float
    p99: float
    memory: int
    writes: int


class Arena:
    """A relay before two backends, for as long as it is entered."""

    def __init__(self, directory: Path, settings: str = "") -> None:
        self._sinks = Sinks(directory / "nginx")
        self.port, self.admin_port = free_port(), free_port()
        outputs = "\n".join(
            f'[[http.output]]\nname = "{port}"\nlocation = "http://{LOOPBACK}:{port}/write"'
            for port in self._sinks.ports
        )
        config = (
            f'[admin]\nbind-addr = "{LOOPBACK}:{self.admin_port}"\n'
            f'[[http]]\nname = "main"\nbind-addr = "{LOOPBACK}:{self.port}"\n{settings}\n{outputs}\n'
        )
        self.relay = Relay(directory / "relay", config, self.port)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._sinks)
            stack.enter_context(self.relay)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def memory(self) -> int:
        """Return the bytes that the relay has in memory now."""
        return int(Path(f"/proc/{self.relay.pid}/statm").read_text().split()[1]) * _PAGE

    def measure(self, name: str, seconds: float, *, admin: bool = False, count: int = 0) -> Figures:
        """Measure beside an attack; an unknown name is none.

        :param count: of connections, another one than the attack's own.
        """
        target = self.admin_port if admin else self.port
        with ExitStack() as stack:
            if name in ATTACKS:
                stack.enter_context(_attackers(name, target, count or ATTACKS[name][1]))
                time.sleep(min(2.0, seconds))
            watch = stack.enter_context(_Watch(self.memory))
            times = Honest(self.port).measure(seconds)
        return Figures(name, percentile(times, 0.5), percentile(times, 0.99), watch.most, len(times))


class _Watch:
    """Notes the most of what it is told to look at."""

    def __init__(self, look: Callable[[], int]) -> None:
        self.most = 0
        self._look = look
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.02):
            with suppress(OSError):
                self.most = max(self.most, self._look())


@contextmanager
def _attackers(name: str, port: int, count: int) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.soak.hostile", "--attack", name, "--port", str(port), "--count", str(count)]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE) as process:
        try:
            yield
        finally:
            process.kill()


def _row(figures: Figures, idle: Figures) -> str:
    ratio = figures.p99 / idle.p99
    return (
        f"{figures.name:30} {figures.writes:6} {figures.median * 1000:9.1f} {figures.p99 * 1000:9.1f} {ratio:7.1f}"
        f" {figures.memory / 1e6:8.0f}"
    )


def main() -> None:
    """Attack, measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.hostile", description=__doc__)
    parser.add_argument(
        "--admin", action="store_true", help="attack the listener for operators, not the one for writes"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="for each attack")
    parser.add_argument("--only", default="", help="attacks whose names contain this")
    parser.add_argument("--attack", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=0, help="of connections, instead of each attack's own")
    options = parser.parse_args()
    _allow_files()
    if options.attack:
        os.nice(19)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        asyncio.run(_attack(options.attack, options.port, options.count))
    with tempfile.TemporaryDirectory() as directory, Arena(Path(directory)) as arena:
        print(f"{'':30} {'writes':>6} {'p50 ms':>9} {'p99 ms':>9} {'x idle':>7} {'RSS MB':>8}", flush=True)  # noqa: T201
        arena.measure("warming up", 2)
        idle = arena.measure("no attack", options.seconds)
        print(_row(idle, idle), flush=True)  # noqa: T201
        for name in ATTACKS:
            if options.only in name and not (options.admin and name in _FOR_WRITES - {"gzip bombs"}):
                found = arena.measure(name, options.seconds, admin=options.admin, count=options.count)
                print(_row(found, idle), flush=True)  # noqa: T201


def _allow_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _end_with_parent() -> None:
    """End when whoever has started us does."""
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
