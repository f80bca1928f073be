"""Real servers as child processes on free loopback ports, for the tests and for ``make run``.

A server is started, stopped, killed, paused and restarted by plain blocking calls, each of which returns when its
effect is there; call them from a test, or through ``deferToThread`` where the reactor has to go on. A server never
outlives the process that started it, however that one ends.
"""

from __future__ import annotations

import base64
import fcntl
import functools
import http
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Self

from testing.guard import guard

if TYPE_CHECKING:
    from collections.abc import Mapping

LOOPBACK = "127.0.0.1"
PROJECT = Path(__file__).resolve().parent.parent
START_TIMEOUT = 120.0  # seconds; only a server that does not start takes as long, also on a busy machine
_ANSWER_TIMEOUT = 60.0  # seconds; InfluxDB syncs a file for each new database, and a busy disk keeps it waiting

# Below the range that Linux gives to outgoing connections: a client's socket cannot sit on a stopped server's port,
# and a client that knocks at a stopped server's port cannot connect to itself.
_PORTS = range(20000, 32768)
_shuffled = itertools.cycle(random.sample(_PORTS, len(_PORTS)))  # so that a process is not given one twice
_CLAIMS = Path(tempfile.gettempdir()) / f"influxrelay-ports-{os.getuid()}"  # byte N is locked by who has chosen port N

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ServerError(Exception):
    """A server cannot be started, or answers what it must not."""


def port_is_free(port: int, kind: Literal["tcp", "udp"] = "tcp") -> bool:
    """Say whether a server could listen on this loopback port now."""
    with socket.socket(type=socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as probe:
        if kind == "tcp":
            # As servers do: connections that linger in TIME_WAIT are no obstacle, a listener still is.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port(kind: Literal["tcp", "udp"] = "tcp") -> int:
    """Return a loopback port that nobody listens on; as long as this process lives, no other is given the same."""
    for port in itertools.islice(_shuffled, 1000):
        if port_is_free(port, kind) and _claim(port):
            return port
    raise ServerError(f"no free {kind} port on {LOOPBACK}")


@functools.cache
def _claims() -> BinaryIO:
    return _CLAIMS.open("ab")  # never closed: that would give up the locks


def _claim(port: int) -> bool:
    """Say whether no other process has chosen a port; the kernel forgets what a process has chosen when it ends."""
    try:
        fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def find_program(name: str, package: str) -> str:
    """Return the path of a program; the error for a missing one is the command that installs it."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    program = shutil.which(name, path=path)
    if program is None:
        raise ServerError(f"{name} is missing: apt-get install {package}")
    return program


def send(
    method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, timeout: float = 10
) -> tuple[int, bytes]:
    """Make one HTTP request past any proxy and return the answer's status and body, whatever the status is.

    :raises OSError: there is no answer, or it is incomplete or no HTTP.
    """
    request = urllib.request.Request(url, body, dict(headers or {}), method=method)
    try:
        with _direct.open(request, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except HTTPException as error:
        raise ConnectionError(f"{method} {url}: {error!r}") from error


class Server:
    """One server: its directory, its ports and, while it runs, its process.

    A subclass gives :meth:`command`, :meth:`is_ready` and the TCP ports that the server listens on. The ports and
    the directory stay the same for the object's life, so a restart is the same server again.
    """

    def __init__(self, directory: str | Path, ports: list[int]) -> None:
        self.directory = Path(directory).resolve()
        self.log = self.directory / f"{type(self).__name__.lower()}.log"
        self._ports = ports
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Write whatever files the server reads, and return the command that runs it in the foreground."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return the server's environment."""
        return dict(os.environ)

    def is_ready(self) -> bool:
        """Say whether the server does its work; an :exc:`OSError` says no."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """The number of the server's process."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there, paused or not; may be asked in any thread."""
        process = self._process
        return process is not None and process.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, timeout: float = START_TIMEOUT) -> None:
        """Start the server and return when it is ready."""
        assert not self.is_running, "already running"
        self.directory.mkdir(parents=True, exist_ok=True)
        command = self.command()
        for port in self._ports:
            if not port_is_free(port):
                raise ServerError(f"port {port} is taken")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=self.environment(),
                start_new_session=True,  # Ctrl-C at the terminal is for us, who then stop the server
            )
        try:
            guard.watch(self.pid)
            self._wait_until_ready(time.monotonic() + timeout)
        except BaseException:
            self.kill()
            raise

    def _wait_until_ready(self, deadline: float) -> None:
        assert self._process is not None
        while True:
            try:
                ready = self.is_ready()
            except OSError:
                ready = False
            if not self.is_running:
                trouble = f"ended with status {self._process.returncode}"
            elif ready:
                return
            elif time.monotonic() > deadline:
                trouble = "is not ready in time"
            else:
                time.sleep(0.02)
                continue
            tail = self.log.read_text(errors="replace")[-2000:]
            raise ServerError(f"{self._process.args!r} {trouble}; the end of {self.log}:\n{tail}")

    def stop(self, timeout: float = 15) -> None:
        """Ask the server to end, and return when it has; it is killed if it takes longer than `timeout` seconds."""
        if self._process is None:
            return
        if self.is_running:
            self._process.terminate()
            self.resume()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                return
        self._ended()

    def kill(self) -> None:
        """End the server as ``kill -9`` does, with all its children."""
        if self._process is None:
            return
        if self.is_running:
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._ended()

    def _ended(self) -> None:
        guard.forget(self.pid)
        self._process = None

    def pause(self) -> None:
        """Stop the server in its tracks (SIGSTOP): it keeps its sockets and answers nothing.

        :raises ServerError: it has ended.
        """
        if not self.is_running:
            raise ServerError("it is not running")
        os.killpg(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a paused server go on."""
        os.killpg(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Stop the server, if it still runs, and start it again on the same ports and files."""
        self.stop()
        self.start()


class Influxd(Server):
    """An InfluxDB 1.x server of its own.

    :ivar http_port: where it answers.
    :ivar rpc_port: where it takes and gives backups.
    :ivar udp_port: where it takes datagrams, if it has a `udp_database`; the port is chosen unless given.

    `user` is a name and a password: the server then asks for authentication, and that user is its administrator.
    `settings` are added to its configuration: ``{"http": {"max-body-size": 1000}}``.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        http_port: int | None = None,
        udp_port: int | None = None,
        udp_database: str = "",
        udp_precision: str = "",
        user: tuple[str, str] | None = None,
        settings: Mapping[str, Mapping[str, str | int | bool]] | None = None,
    ) -> None:
        self.http_port = http_port or free_port()
        self.udp_port = udp_port or (free_port("udp") if udp_database else None)
        self._udp_database = udp_database
        self._udp_precision = udp_precision
        self.rpc_port = free_port()
        self._user = user
        self._settings = settings or {}
        super().__init__(directory, [self.http_port, self.rpc_port])

    @property
    def url(self) -> str:
        """The server's base URL, without a slash at its end."""
        return f"http://{LOOPBACK}:{self.http_port}"

    def command(self) -> list[str]:
        """Write the configuration file, and return the command."""
        file = self.directory / "influxdb.toml"
        file.write_text(self._configuration())
        return [find_program("influxd", "influxdb"), "run", "-config", str(file)]

    def _configuration(self) -> str:
        sections: dict[str, dict[str, str | int | bool]] = {
            "meta": {"dir": str(self.directory / "meta")},
            "data": {
                "dir": str(self.directory / "data"),
                "wal-dir": str(self.directory / "wal"),
                "query-log-enabled": False,
            },
            "http": {
                "bind-address": f"{LOOPBACK}:{self.http_port}",
                "log-enabled": False,
                "auth-enabled": self._user is not None,
            },
            "monitor": {"store-enabled": False},
            "continuous_queries": {"enabled": False},
        }
        if self.udp_port is not None:
            sections["[udp]"] = {
                "enabled": True,
                "bind-address": f"{LOOPBACK}:{self.udp_port}",
                "database": self._udp_database,
                "precision": self._udp_precision,
                "batch-timeout": "10ms",  # how long a datagram may wait until it can be read back; 1s is InfluxDB's own
            }
        for name, values in self._settings.items():
            sections.setdefault(name, {}).update(values)
        lines = ["reporting-disabled = true", f'bind-address = "{LOOPBACK}:{self.rpc_port}"']
        for name, values in sections.items():
            lines.append(f"[{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        return "\n".join([*lines, ""])

    def is_ready(self) -> bool:
        """Say whether ``/ping`` answers as InfluxDB does."""
        return send("GET", f"{self.url}/ping", timeout=1)[0] == http.HTTPStatus.NO_CONTENT

    def start(self, timeout: float = START_TIMEOUT) -> None:
        """Start the server and return when it is ready, and has its administrator."""
        super().start(timeout)
        if self._user is not None:
            name, password = (part.replace("\\", "\\\\").replace("'", "\\'") for part in self._user)
            self.query(f"CREATE USER \"{name}\" WITH PASSWORD '{password}' WITH ALL PRIVILEGES")

    def query(self, q: str, db: str = "") -> dict[str, Any]:
        """Run InfluxQL and return the parsed answer, timestamps in nanoseconds; an error in it is raised."""
        body = urllib.parse.urlencode({"q": q, "db": db, "epoch": "ns"}).encode()
        status, answer = self._send("POST", f"{self.url}/query", body)
        parsed: dict[str, Any] = json.loads(answer)
        errors = [part["error"] for part in (parsed, *parsed.get("results", ())) if "error" in part]
        if errors or status != http.HTTPStatus.OK:
            raise ServerError(f"{q!r} was answered {status}: {'; '.join(errors)}")
        return parsed

    def rows(self, q: str, db: str) -> list[list[Any]]:
        """Run a SELECT or a SHOW and return the values of all its series."""
        parsed = self.query(q, db)
        found = [series for result in parsed["results"] for series in result.get("series", ())]
        return [row for series in found for row in series.get("values", ())]

    def write(self, lines: str | bytes, db: str, **parameters: str) -> int:
        """Write line protocol straight to this server and return the status of its answer."""
        body = lines.encode() if isinstance(lines, str) else lines
        status, _ = self._send("POST", f"{self.url}/write?{urllib.parse.urlencode({'db': db, **parameters})}", body)
        return status

    def create_database(self, name: str) -> None:
        """Create a database, unless it is there."""
        self.query(f'CREATE DATABASE "{name}"')

    def _send(self, method: str, url: str, body: bytes) -> tuple[int, bytes]:
        headers = {}
        if self._user is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(":".join(self._user).encode()).decode()
        return send(method, url, body, headers, _ANSWER_TIMEOUT)


class Relay(Server):
    """influxrelay itself under twistd, with a configuration that listens for HTTP on `port`."""

    def __init__(self, directory: str | Path, config: str, port: int) -> None:
        super().__init__(directory, [port])
        self.url = f"http://{LOOPBACK}:{port}"
        self.config = self.directory / "relay.toml"
        self._text = config

    def command(self) -> list[str]:
        """Write the configuration file, and return the command."""
        self.config.write_text(self._text)
        twistd = Path(sysconfig.get_path("scripts")) / "twistd"
        options = ["--nodaemon", "--pidfile=", "influxrelay", "--config", str(self.config)]
        return [sys.executable, str(twistd), *options]

    def environment(self) -> dict[str, str]:
        """Return an environment in which twistd finds this checkout's plugin, installed or not."""
        environment = super().environment()
        path = [str(PROJECT), *filter(None, [environment.get("PYTHONPATH")])]
        return {**environment, "PYTHONPATH": os.pathsep.join(path)}

    def is_ready(self) -> bool:
        """Say whether ``/ping`` is answered well."""
        return send("GET", f"{self.url}/ping", timeout=1)[0] < http.HTTPStatus.MULTIPLE_CHOICES
