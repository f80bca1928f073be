"""One worker as its supervisor sees it: started, listened to, and started again when it ends."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.logger import Logger, eventFromJSON, globalLogPublisher
from twisted.python.failure import Failure

import influxrelay
from influxrelay.channel import Answer, Channel, NoAnswer, Progress
from influxrelay.config_values import Config
from influxrelay.shares import ABSENT, Shares
from influxrelay.worker import DRAINED, FAILED, FIRST

CHECK = 1.0  # seconds between two looks at a worker
START = 300  # looks until a worker that starts must be well, for a journal may be large, ...
SILENCE = 30  # ... that one which was well may be silent until it is killed, ...
DEAF = 3  # ... and until the others leave no more connections to it
_QUICK = 60.0  # seconds: a worker that ends earlier was not well
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0  # seconds until a worker that ends again and again is started
_FOR_US = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


@attrs.define
class Legacy:
    """What each worker gets from the supervisor.

    :ivar sockets: file descriptors; those that systemd has passed come first, in their order.
    """

    config: Config
    sockets: list[int]
    shares: Shares


class Process(ProcessProtocol):
    """One worker, through all its processes.

    :param answer: answers what it asks.
    :ivar running: whether there is a process, and ``well`` whether it has started, and lives.
    :ivar done: whether it has nothing more to do, and is not started again.
    :ivar restarts: how often it was started again.
    """

    _log = Logger()

    def __init__(self, number: int, legacy: Legacy, answer: Answer, reactor: Any) -> None:
        self.number = number
        self.well = self.done = False
        self.restarts = 0
        self._legacy = legacy
        self._answer = answer
        self._reactor = reactor
        self._channel: Channel | None = None
        self.running = False
        self._stopped: Deferred[None] | None = None
        self._again: IDelayedCall | None = None
        self._began = 0.0
        self._silent = self._failures = 0
        self._line = b""

    # -- start

    def start(self) -> socket.socket:
        """Start it, and return our end of its channel.

        :raises OSError: that cannot be done.
        """
        legacy = self._legacy
        ours, theirs = socket.socketpair()
        with theirs, open(os.devnull) as null, open(os.memfd_create("config"), "r+b", buffering=0) as config:  # noqa: PTH123 (descriptors)
            config.write(pickle.dumps(legacy.config))
            config.seek(0)
            fds = [*legacy.sockets, theirs.fileno(), legacy.shares.fd, config.fileno()]
            command = [sys.executable, "-P", "-m", "influxrelay.worker", str(self.number), str(len(legacy.sockets))]
            child_fds = {0: null.fileno(), 1: "r", 2: 2, **dict(enumerate(fds, FIRST))}
            self._reactor.spawnProcess(self, command[0], command, _environment(), childFDs=child_fds)
        self.running, self.well, self._silent, self._began = True, False, 0, time.monotonic()
        return ours

    def connect(self, ours: socket.socket, *, well: bool = False) -> None:
        """Listen to it.

        :param well: whether it has said already that it is.
        """
        self.well = well
        ours.setblocking(False)
        self._channel = channel = Channel(self._answer, self._heard, lambda: None)
        factory = Factory.forProtocol(lambda: channel)
        factory.noisy = False
        self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, factory)
        ours.close()

    def _heard(self) -> None:
        self.well, self._silent = True, 0

    def _start_again(self) -> None:
        self.restarts += 1
        try:
            self.connect(self.start())
        except OSError as error:
            self._start_later(f"cannot be started ({error.strerror})")

    def _start_later(self, problem: str) -> None:
        self._failures = self._failures + 1 if time.monotonic() - self._began < _QUICK else 0
        delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** (self._failures - 1)) if self._failures else 0.0
        self._log.error(
            "worker {worker} {problem}: it is started again in {delay:g} s",
            worker=self.number,
            problem=problem,
            delay=delay,
        )
        self._again = self._reactor.callLater(delay, self._start_again)

    # -- life

    def ask(self, what: dict[str, Any], progress: Progress | None = None, fds: Iterable[int] = ()) -> Deferred[Any]:
        """Ask it; fails with :class:`Refused`, or :class:`NoAnswer` if it does not run."""
        if self._channel is None or not self.well:
            return fail(NoAnswer("does not run"))
        return self._channel.ask(what, progress, fds)

    def check(self) -> None:
        """Kill it if it has been silent for too long. Looks are counted, for this process may have slept itself."""
        if not self.running:
            return
        self._silent += 1
        if self._silent >= (SILENCE if self.well else START):
            self._log.error("worker {worker} does nothing any more, and is killed", worker=self.number)
            self.kill()
        elif self._silent >= DEAF:
            self._legacy.shares.set(self.number, ABSENT)

    def outReceived(self, data: bytes) -> None:
        """Log what it logs."""
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            try:
                event = eventFromJSON(line.decode())
                event["log_time"]  # without it, it is none
            except (ValueError, LookupError, TypeError):
                self._log.info("worker {worker}: {line!r}", worker=self.number, line=line)
            else:
                event.update(worker=self.number, log_system=f"worker {self.number}")
                globalLogPublisher(event)

    # -- end

    def processEnded(self, reason: Failure) -> None:
        """Start it again, unless it was to end."""
        value: Any = reason.value
        self.running = self.well = False
        self._channel = None
        if self._line:  # it was killed as it wrote
            self.outReceived(b"\n")
        self._legacy.shares.set(self.number, ABSENT)
        if self._stopped is not None:
            self._stopped.callback(None)
        elif value.exitCode == DRAINED:
            self.done = True
        else:
            signal = f"signal {value.signal}" if value.signal else f"status {value.exitCode}"
            self._start_later(f"has ended with {signal}")

    def stop(self) -> Deferred[None]:
        """End it in order; fires when it has."""
        if self._again is not None and self._again.active():
            self._again.cancel()
        if not self.running:
            return succeed(None)
        self._stopped = Deferred()
        if self._channel is not None:
            self._channel.ask({"stop": ""}).addErrback(lambda _: None)  # it may be gone before it has answered
        return self._stopped

    def kill(self) -> None:
        """End it at once."""
        transport: Any = self.transport
        with contextlib.suppress(ProcessExitedAlready):
            transport.signalProcess("KILL")


def wait_until_well(ours: socket.socket, deadline: float) -> str:
    """Wait for a new worker's first word, before the reactor runs; return what is wrong, or an empty string."""
    line = b""
    while not line.endswith(b"\n"):
        ours.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            piece = ours.recv(1)
        except TimeoutError:
            return f"is not ready within {START * CHECK:g} s"
        if not piece:
            return "has ended at once"
        line += piece
    problem: str = json.loads(line).get(FAILED, "")
    return problem


def _environment() -> dict[str, str]:
    """Return an environment without what was meant for this process, in which a worker finds the same code."""
    kept = {name: value for name, value in os.environ.items() if name not in _FOR_US}
    path = [str(Path(influxrelay.__file__).parent.parent), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(path)}
