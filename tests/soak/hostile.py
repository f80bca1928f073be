"""Hostile clients against a real relay, and what honest ones notice: ``python -m tests.soak.hostile``.

One relay stands before two servers that answer 204. Honest clients write, on connections that they keep and on new
ones, first alone and then beside each kind of attack. The attackers are a process of its own with the lowest priority:
in truth they are on other machines. The goal: the honest 99th percentile stays under 10 times the one without an
attack, and the relay's memory under 300 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

import attrs

from influxrelay.core.text import count
from testing.servers import LOOPBACK, PROJECT, Relay, Server, ServerError, find_program, free_port, port_is_free
from tests.soak.attacks import ATTACKS, FOR_WRITES, LINE, attack, head

_PAGE = os.sysconf("SC_PAGE_SIZE")


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
            raise ServerError(
                f"{len(problems)} of {count(len(times), 'honest write')} failed, the first: {problems[0]}"
            )
        return times

    def _write(self, kept: bool, deadline: float, times: list[float], problems: list[str]) -> None:  # noqa: FBT001
        data = head(b"Content-Length: %d" % len(LINE)) + LINE
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
    parser.add_argument("--journal", action="store_true", help="let the relay keep a journal")
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
        asyncio.run(attack(options.attack, options.port, options.count))
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        arena = stack.enter_context(Arena(Path(directory), f'journal = "{directory}/j"' if options.journal else ""))
        print(f"{'':30} {'writes':>6} {'p50 ms':>9} {'p99 ms':>9} {'x idle':>7} {'RSS MB':>8}", flush=True)  # noqa: T201
        arena.measure("warming up", 2)
        idle = arena.measure("no attack", options.seconds)
        print(_row(idle, idle), flush=True)  # noqa: T201
        for name in ATTACKS:
            if options.only in name and not (options.admin and name in FOR_WRITES - {"gzip bombs"}):
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
