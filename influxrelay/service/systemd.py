"""What the service manager is told: the protocol of sd_notify(3), with its watchdog."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

_PATIENCE = 1.0  # seconds that the manager has to make room for a message
_MICROSECONDS = 1_000_000


class Notifier:
    """Tells the manager that started this process how it is; where there is none, tells nobody.

    :param environ: its ``NOTIFY_SOCKET`` and ``WATCHDOG_...`` are removed: they are not for this process's children.
    """

    _log = Logger()

    def __init__(self, environ: MutableMapping[str, str], reactor: IReactorTime) -> None:
        self._path = environ.pop("NOTIFY_SOCKET", "")
        watchdog, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        ours = watchdog.isdecimal() and pid in ("", str(os.getpid()))
        self._interval = int(watchdog) / _MICROSECONDS / 2 if ours and self._path else 0.0
        self._watchdog = LoopingCall(self._tell, "WATCHDOG=1")
        self._watchdog.clock = reactor

    def ready(self, status: str) -> None:
        """Say that the start, or a reload, is complete; from now on a reactor that is stuck is noticed."""
        self._tell("READY=1", f"STATUS={status}")
        if self._interval and not self._watchdog.running:
            self._watchdog.start(self._interval)

    def reloading(self) -> None:
        """Say that the configuration is being read again; :meth:`ready` has to follow."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, within: float) -> None:
        """Say that the end has begun, and how many seconds it may take: the manager's own limit may be shorter."""
        self._tell("STOPPING=1", "STATUS=stopping", f"EXTEND_TIMEOUT_USEC={within * _MICROSECONDS:.0f}")

    def stopped(self) -> None:
        """Feed the watchdog no more."""
        if self._watchdog.running:
            self._watchdog.stop()

    def _tell(self, *assignments: str) -> None:
        if not self._path:
            return
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_PATIENCE)
                sender.sendto("\n".join(assignments).encode(), address)
        except OSError as error:
            self._log.warn("cannot notify the service manager at {path}: {error}", path=self._path, error=error)
