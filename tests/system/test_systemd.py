"""The relay under a service manager: readiness, watchdog, and restarts with the sockets kept open."""

from __future__ import annotations

import os
import signal
import socket
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from testing.manager import PATIENCE, Backend, Manager, traffic
from testing.servers import LOOPBACK, PROJECT, Relay, ServerError, free_port, send

TWISTD = Path(sysconfig.get_path("scripts")) / "twistd"

HTTP = """
[[http]]
name = "web"
bind-addr = "{http}"
journal = "{directory}/http"
output = [{{ name = "one", location = "{url}" }}]
"""
UDP = """
[[udp]]
name = "lines"
bind-addr = "{udp}"
journal = "{directory}/udp"
batch-timeout = "50ms"
output = [{{ name = "one", location = "{url}?db=d" }}]
"""


class _Case(SynchronousTestCase):
    def setUp(self) -> None:
        """Start a backend."""
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.backend = Backend()
        self.addCleanup(self.backend.server_close)
        self.addCleanup(self.backend.shutdown)

    def manager(self, **options: Any) -> Manager:
        """Return a manager of a relay whose configuration is ``relay.toml`` in the test's directory."""
        command = [sys.executable, str(TWISTD), "--nodaemon", "--pidfile=", "--logger=influxrelay.service.logs.journal"]
        relay = Relay(self.directory, "", 0)
        manager = Manager(
            [*command, "influxrelay", "--config", str(self.directory / "relay.toml")],
            self.directory,
            environment=relay.environment(),
            **options,
        )
        self.addCleanup(manager.close)
        return manager

    def configure(self, text: str, **places: str) -> None:
        """Write the configuration."""
        (self.directory / "relay.toml").write_text(
            text.format(directory=self.directory, url=self.backend.url, **places)
        )

    def with_sockets(self, top: str) -> tuple[Manager, int, int]:
        """Return a manager that owns both listeners' sockets, and their ports."""
        manager = self.manager()
        http, udp = manager.open(), manager.open(socket.SOCK_DGRAM)
        self.configure(top + HTTP + UDP, http=f"{LOOPBACK}:{http}", udp=f"{LOOPBACK}:{udp}")
        return manager, http, udp


class RestartTests(_Case):
    """Restarts while clients go on."""

    def _under_traffic(self, number: int, times: int, top: str = "") -> dict[str, Any]:
        """Restart the relay under traffic, and return what the clients have seen."""
        manager, http, udp = self.with_sockets(top)
        manager.start()
        with traffic(http, udp) as found:
            for _ in range(times):
                self._wait_for_progress()
                manager.stop(number)
                manager.start()
            self._wait_for_progress()
        self.assertNotIn("inherited", manager.tail())
        self.assertGreater(len(found["acknowledged"]), 10 * times)
        self.assertEqual(self.backend.wait_for("http", found["acknowledged"]), set())
        return found

    def _wait_for_progress(self) -> None:
        """Wait until the backend has got some more of both kinds."""
        before = {name: len(values) for name, values in self.backend.values.items()}
        deadline = time.monotonic() + PATIENCE
        while any(len(values) < before[name] + 10 for name, values in self.backend.values.items()):
            self.assertLess(time.monotonic(), deadline, "the traffic stands still")
            time.sleep(0.02)

    def test_sigterm(self) -> None:
        """When the relay is restarted no connection is refused, no write fails, and every datagram arrives."""
        found = self._under_traffic(signal.SIGTERM, 3)
        self.assertEqual((found["refused"], found["failed"]), (0, []))
        self.assertEqual(self.backend.wait_for("udp", found["datagrams"]), set())

    def test_sigkill(self) -> None:
        """When the relay is killed and started again no connection is refused, and what was acknowledged arrives."""
        found = self._under_traffic(signal.SIGKILL, 2)
        self.assertEqual(found["refused"], 0)


class NotifyTests(_Case):
    """What the manager hears."""

    def test_ready_and_stopping(self) -> None:
        """The relay is ready when every listener listens, and says that it stops, and how long that may take."""
        manager = self.manager()
        port = free_port()
        self.configure('shutdown-timeout = "20s"' + HTTP, http=f"{LOOPBACK}:{port}")
        manager.start()
        self.assertEqual(send("GET", f"http://{LOOPBACK}:{port}/ping", timeout=PATIENCE)[0], 204)
        self.assertEqual(manager.messages, ["READY=1\nSTATUS=at work, 1 listener"])
        process = manager.process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        manager.wait_for("STOPPING=1")
        self.assertEqual(manager.messages[1:], ["STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC=30000000"])
        manager.stop()

    def test_start_that_fails(self) -> None:
        """A relay that cannot open its journal never says that it is ready, and ends with an error in the log."""
        manager = self.manager()
        self.configure(HTTP, http=f"{LOOPBACK}:0")
        (self.directory / "http").write_text("no directory")
        manager.launch()
        self.assertRaises(ServerError, manager.wait_for, "READY=1")
        self.assertEqual((manager.stop(), manager.messages), (1, []))
        self.assertRegex(manager.tail(), r"(?m)^<3>influxrelay: web: .*/http")

    def test_watchdog(self) -> None:
        """The reactor feeds the watchdog again and again."""
        manager = self.manager(watchdog=0.5)
        self.configure(HTTP, http=f"{LOOPBACK}:0")
        manager.start()
        manager.wait_for("WATCHDOG=1", times=4)
        manager.stop()

    def test_stuck(self) -> None:
        """A reactor that is stuck lets the watchdog starve."""
        manager = self.manager(watchdog=0.2)
        self.configure(HTTP, http=f"{LOOPBACK}:0")
        manager.start()
        manager.wait_for("WATCHDOG=1", times=2)
        assert manager.process is not None
        manager.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, manager.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        manager.tell_self("before")
        time.sleep(1)  # five times its interval
        manager.tell_self("after")
        self.assertEqual(manager.messages[-2:], ["before", "after"])


class SocketTests(_Case):
    """Sockets that systemd passes, found in the environment."""

    def test_by_name(self) -> None:
        """Twisted's own endpoint finds a socket by its name; one that nobody wants is named in the log."""
        manager = self.manager()
        port, unwanted = manager.open(), manager.open()
        self.configure(HTTP, http="systemd:domain=INET:name=number-0")
        manager.start()
        self.assertEqual(send("GET", f"http://{LOOPBACK}:{port}/ping", timeout=PATIENCE)[0], 204)
        line = f"<4>no listener uses the inherited socket tcp {LOOPBACK}:{unwanted}"
        self.assertIn(line, manager.tail())
        self.assertNotIn(f"socket: tcp {LOOPBACK}:{port}", manager.tail())

    def test_children(self) -> None:
        """Nothing in the relay's environment, and no descriptor, leads a child of it to the manager's sockets."""
        program = """
import os, socket, subprocess, sys
from twisted.internet import reactor
from influxrelay.service.systemd import Notifier
from influxrelay.transport.sockets import Sockets, systemd_sockets
sockets = Sockets(systemd_sockets(os.environ))
notifier = Notifier(os.environ, reactor)
assert len(sockets.unused()) == 2, sockets.unused()
child = "import os; print([name for name in os.environ if name.startswith(('LISTEN', 'NOTIFY', 'WATCHDOG'))])"
child += "; print(os.listdir('/proc/self/fd'))"
print(subprocess.run([sys.executable, "-c", child], close_fds=False, capture_output=True, text=True).stdout, flush=True)
notifier.ready("x")
"""
        manager = Manager(
            [sys.executable, "-c", program], self.directory, environment={"PYTHONPATH": str(PROJECT)}, watchdog=1.0
        )
        self.addCleanup(manager.close)
        manager.open()
        manager.open(socket.SOCK_DGRAM)
        manager.start()
        self.assertEqual(manager.tail().split("\n")[:2], ["[]", "['0', '1', '2', '3']"])
