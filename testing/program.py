"""The program itself as a child process of a test."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.python.failure import Failure

from testing.scripted import LOOPBACK, PING, Answer, Client, RelayTestCase, ScriptedBackend, reactor, until
from testing.servers import PROJECT

BIN = Path(sysconfig.get_path("scripts"))
TWISTD = (str(BIN / "twistd"), "--nodaemon", "--pidfile=")
COMMANDS: dict[str, Sequence[str]] = {
    "twistd": TWISTD,
    "twist": (str(BIN / "twist"), "--log-format=text"),
    "python -m twisted": (sys.executable, "-m", "twisted", "--log-format=text"),
}


class Child(ProcessProtocol):
    """The program as a child process.

    :ivar out: and ``err``: what it has written so far.
    :ivar code: its exit code, or the negative number of the signal that ended it; None while it runs.
    """

    def __init__(self, command: Sequence[str], directory: str) -> None:
        self.out = self.err = ""
        self.code: int | None = None
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(PROJECT)]))
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        self.process: Any = reactor.spawnProcess(self, command[0], list(command), environment, directory)

    def outReceived(self, data: bytes) -> None:
        """Keep what was written to standard output."""
        self.out += data.decode()

    def errReceived(self, data: bytes) -> None:
        """Keep what was written to standard error."""
        self.err += data.decode()

    def processEnded(self, reason: Failure) -> None:
        """Keep the exit code."""
        value: Any = reason.value
        self.code = value.exitCode if value.signal is None else -value.signal

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.signalProcess(number)

    @property
    def port(self) -> int:
        """Where it listens for HTTP; 0 while it does not."""
        found = re.search(r"listening for HTTP on 127\.0\.0\.1:(\d+)", self.out)
        return int(found[1]) if found else 0


class ProgramCase(RelayTestCase):
    """Starts the program and looks after its end."""

    def setUp(self) -> None:
        """Make a directory, with a path that leaves room for a socket's name."""
        self.directory = Path(tempfile.mkdtemp(prefix="relay-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    def write_config(self, *outputs: str, bind: str = f"{LOOPBACK}:0", top: str = "", listener: str = "") -> str:
        """Write a configuration with one HTTP listener, and return its path.

        :param outputs: the lines of one output each.
        """
        text = f'{top}\n[[http]]\nname = "main"\nbind-addr = "{bind}"\n{listener}\n'
        text += "".join(f"[[http.output]]\n{each}\n" for each in outputs)
        path = self.directory / "relay.toml"
        path.write_text(text)
        return str(path)

    def spawn(self, *command: str) -> Child:
        """Start a child that ends with the test at the latest."""
        child = Child(command, str(self.directory))

        def end() -> Deferred[None]:
            if child.code is None:
                child.signal(signal.SIGKILL)
            return Deferred.fromCoroutine(self.until_ended(child))

        self.addCleanup(end)
        return child

    def kill_daemon(self, pidfile: Path) -> None:
        """Leave no daemon behind; one that ends well has removed its pidfile."""
        if pidfile.exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pidfile.read_text()), signal.SIGKILL)

    async def until_ended(self, child: Child) -> None:
        """Wait for the child's end."""
        await until(lambda: child.code is not None, "the child's end")

    async def started(self, config: str, command: Sequence[str] = TWISTD) -> Child:
        """Start the program, and wait until it answers."""
        child = self.spawn(*command, "influxrelay", "--config", config)
        await until(lambda: child.port or child.code is not None, "the start")
        self.assertIsNone(child.code, child.out + child.err)
        # It listens before its reactor runs, and only that takes care of signals.
        self.assertEqual((await self.asked(child, PING)).status, 204)
        return child

    async def connected(self, child: Child) -> Client:
        """Connect to the program."""
        factory = Factory.forProtocol(Client)
        factory.noisy = False
        endpoint: Any = TCP4ClientEndpoint(reactor, LOOPBACK, child.port)
        client: Client = await endpoint.connect(factory)
        self.addCleanup(lambda: Deferred.fromCoroutine(client.leave()))
        return client

    async def asked(self, child: Child, *pieces: bytes) -> Answer:
        """Send a request on a connection of its own and return the answer."""
        client = await self.connected(child)
        found = await client.ask(*pieces)
        client.vanish()
        return found

    def assert_stopped_well(self, child: Child) -> None:
        """Check that the program has come to its last line, without a traceback."""
        self.assertIn("influxrelay has stopped", child.out)
        self.assertNotIn("Traceback", child.out + child.err)
        self.assertNotIn("Unhandled", child.out + child.err)


def location(backend: ScriptedBackend, more: str = "") -> str:
    """Return the lines of an output that leads to a backend."""
    return f'name = "one"\nlocation = "{backend.url}"\n{more}'
