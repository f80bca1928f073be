"""A service manager as systemd is one: it owns the sockets, and hears from the service how it is."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from testing.guard import guard
from testing.servers import LOOPBACK, PROJECT, ServerError

PATIENCE = 120.0  # seconds for whatever is waited for: the machine may be slow, and busy
_LISTEN_PID = 'export LISTEN_PID=$$; exec "$@"'


class Backend(ThreadingHTTPServer):
    """Takes all writes and keeps their lines; it lives in threads of its own, so that a test may block.

    :ivar values: the values of the lines that have come, by measurement.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((LOOPBACK, 0), _Handler)
        self.values: dict[str, set[int]] = {"http": set(), "udp": set()}
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        """Where writes go."""
        return f"http://{LOOPBACK}:{self.server_port}/write"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a relay that is killed leaves broken connections."""

    def wait_for(self, measurement: str, values: Iterable[int]) -> set[int]:
        """Wait until all of these values have come, and return those that have not in time."""
        deadline = time.monotonic() + PATIENCE
        while (missing := set(values) - self.values[measurement]) and time.monotonic() < deadline:
            time.sleep(0.02)
        return missing


class _Handler(BaseHTTPRequestHandler):
    server: Backend
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Take a write."""
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) == length:  # else the relay was killed, and will send it again
            for line in body.decode().splitlines():
                measurement, value, _ = line.split()
                self.server.values[measurement].add(int(value.removeprefix("value=")))
        self.send_response(204)
        self.end_headers()

    def do_GET(self) -> None:
        """Answer a ping."""
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Manager:
    """Starts a service with its sockets, and stops it.

    :param command: the service's, in the foreground.
    :param environment: the service's, but for what a manager adds.
    :ivar messages: what the service has said since it was started.
    :ivar log: the file that its output is added to.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        directory: Path,
        *,
        environment: Mapping[str, str] | None = None,
        watchdog: float = 0.0,
        **options: Any,
    ) -> None:
        self.sockets: list[socket.socket] = []
        self.messages: list[str] = []
        self.directory = directory
        self.log = directory / "service.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._command = [str(part) for part in command]
        self._environment = dict(environment or os.environ)
        self._watchdog = watchdog
        self._options = options
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ear.bind(f"\0influxrelay-{secrets.token_hex(8)}")
        threading.Thread(target=self._listen, daemon=True).start()

    def open(self, kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
        """Open a socket that the service will be given, and return its port."""
        given = socket.socket(type=kind)
        self.sockets.append(given)
        given.bind((LOOPBACK, 0))
        if kind == socket.SOCK_STREAM:
            given.listen(4096)
        else:
            given.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024 * 1024)
        port: int = given.getsockname()[1]
        return port

    def close(self) -> None:
        """Kill the service, if it is still there, and close the sockets."""
        if self.process is not None:
            self.stop(signal.SIGKILL)
        self._ear.shutdown(socket.SHUT_RDWR)
        for each in (self._ear, *self.sockets):
            each.close()

    def launch(self) -> None:
        """Start the service."""
        environment = {
            **self._environment,
            "NOTIFY_SOCKET": self._ear.getsockname().decode().replace("\0", "@"),
            "LISTEN_FDS": str(len(self.sockets)),
            "LISTEN_FDNAMES": ":".join(f"number-{number}" for number in range(len(self.sockets))),
        }
        if self._watchdog:
            environment["WATCHDOG_USEC"] = f"{self._watchdog * 1_000_000:.0f}"
        self.messages.clear()
        fds = [os.dup(each.fileno()) for each in self.sockets]
        move = f"import os, sys; fds = {fds}\n"
        move += "high = [os.dup2(fd, 100 + number) for number, fd in enumerate(fds)]\n"
        move += "for fd in fds: os.close(fd)\n"
        move += "for number, fd in enumerate(high): os.dup2(fd, 3 + number); os.close(fd)\n"
        move += "os.execvp(sys.argv[1], sys.argv[1:])"
        launcher = [sys.executable, "-I", "-S", "-c", move, "/bin/sh", "-c", _LISTEN_PID, "sh"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*launcher, *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=environment,
                pass_fds=fds,
                start_new_session=True,
                **self._options,
            )
        for fd in fds:
            os.close(fd)
        guard.watch(self.process.pid)

    def start(self) -> None:
        """Start the service, and return when it says that it is ready."""
        self.launch()
        self.wait_for("READY=1")

    def wait_for(self, message: str, times: int = 1) -> None:
        """Return when the service has said this."""
        deadline = time.monotonic() + PATIENCE
        while self._count(message) < times and not self._ended() and time.monotonic() < deadline:
            time.sleep(0.02)
        if self._count(message) < times:
            raise ServerError(f"the service has not said {message}, but {self.messages}; its log:\n{self.tail()}")

    def _count(self, message: str) -> int:
        return sum(message in each.splitlines() for each in self.messages)

    def _ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def tell_self(self, message: str) -> None:
        """Add a message of our own, behind what the service has said so far."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(message.encode(), self._ear.getsockname())
        self.wait_for(message)

    def tail(self) -> str:
        """Return the end of the log."""
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop the service by a signal, and return its status when it has ended."""
        process, self.process = self.process, None
        assert process is not None, "not started"
        if process.poll() is None:
            os.kill(process.pid, number)
        status = process.wait(PATIENCE)
        guard.forget(process.pid)
        return status

    def _listen(self) -> None:
        while message := self._ear.recv(65536):
            self.messages.append(message.decode())


@contextmanager
def traffic(http_port: int, udp_port: int) -> Iterator[dict[str, Any]]:
    """Have clients write while the block runs; what came of it is in the mapping afterwards."""
    command = [sys.executable, "-m", "testing.traffic", str(http_port), str(udp_port)]
    clients = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT, start_new_session=True
    )
    guard.watch(clients.pid)
    found: dict[str, Any] = {}
    try:
        yield found
        found.update(json.loads(clients.communicate(timeout=PATIENCE)[0]))
    finally:
        clients.kill()
        clients.communicate()
        guard.forget(clients.pid)
