"""What the service manager hears."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
import time

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.service.systemd import Notifier


class NotifierTests(SynchronousTestCase):
    """Messages at a socket that plays the manager."""

    def manager(self, address: str | bytes = "") -> socket.socket:
        """Open the manager's socket."""
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(manager.close)
        manager.setblocking(False)
        manager.bind(address or f"\0influxrelay-{secrets.token_hex(8)}")
        return manager

    def messages(self, manager: socket.socket) -> list[str]:
        """Return what has come."""
        found = []
        while True:
            try:
                found.append(manager.recv(4096).decode())
            except BlockingIOError:
                return found

    def environment(self, manager: socket.socket, **more: str) -> dict[str, str]:
        """Return what the manager puts into the environment."""
        return {"NOTIFY_SOCKET": manager.getsockname().decode().replace("\0", "@"), **more}

    def test_states(self) -> None:
        """The manager hears of the start, a reload and the stop, each in one message."""
        manager = self.manager()
        notifier = Notifier(self.environment(manager), Clock())
        notifier.ready("at work")
        before = time.monotonic_ns() // 1000
        notifier.reloading()
        notifier.stopping(within=12.5)
        ready, reloading, stopping = self.messages(manager)
        self.assertEqual(ready, "READY=1\nSTATUS=at work")
        state, _, since = reloading.partition("\nMONOTONIC_USEC=")
        self.assertEqual(state, "RELOADING=1")
        self.assertTrue(before <= int(since) <= time.monotonic_ns() // 1000)
        self.assertEqual(stopping, "STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC=12500000")

    def test_path(self) -> None:
        """The manager's socket may be in the file system."""
        directory = tempfile.mkdtemp(prefix="relay-")
        self.addCleanup(shutil.rmtree, directory)
        manager = self.manager(f"{directory}/notify")
        Notifier({"NOTIFY_SOCKET": manager.getsockname()}, Clock()).ready("x")
        self.assertEqual(len(self.messages(manager)), 1)

    def test_watchdog(self) -> None:
        """The watchdog is fed when the start is complete and twice in each interval from then on, until the end."""
        manager, clock = self.manager(), Clock()
        notifier = Notifier(self.environment(manager, WATCHDOG_USEC="10000000", WATCHDOG_PID=str(os.getpid())), clock)
        clock.pump([1.0] * 20)
        self.assertEqual(self.messages(manager), [])
        notifier.ready("x")
        self.assertEqual(self.messages(manager)[1:], ["WATCHDOG=1"])
        clock.pump([1.0] * 20)
        self.assertEqual(self.messages(manager), ["WATCHDOG=1"] * 4)
        notifier.ready("after a reload")
        self.assertEqual(self.messages(manager), ["READY=1\nSTATUS=after a reload"])
        notifier.stopped()
        clock.pump([1.0] * 20)
        self.assertEqual(self.messages(manager), [])

    def test_watchdog_of_another(self) -> None:
        """A watchdog that is meant for another process is left alone."""
        manager, clock = self.manager(), Clock()
        Notifier(self.environment(manager, WATCHDOG_USEC="10000000", WATCHDOG_PID="1"), clock).ready("x")
        clock.advance(100)
        self.assertEqual(self.messages(manager), ["READY=1\nSTATUS=x"])

    def test_nobody(self) -> None:
        """Without a manager nothing is sent, and a watchdog alone starts nothing."""
        clock = Clock()
        notifier = Notifier({"WATCHDOG_USEC": "10000000"}, clock)
        notifier.ready("x")
        notifier.stopping(within=1)
        notifier.stopped()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_children(self) -> None:
        """The variables are taken out of the environment, so that no child speaks in this process's name."""
        environment = self.environment(self.manager(), WATCHDOG_USEC="1", WATCHDOG_PID="1", PATH="/bin")
        Notifier(environment, Clock())
        self.assertEqual(environment, {"PATH": "/bin"})

    def test_manager_gone(self) -> None:
        """A manager that does not listen is no reason to fail."""
        manager = self.manager()
        environment = self.environment(manager)
        manager.close()
        Notifier(environment, Clock()).ready("x")
