"""The helper that starts real servers keeps its word."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from testing import servers
from testing.servers import LOOPBACK, PROJECT, Influxd, ServerError, find_program, free_port, port_is_free, send


def wait_until(condition: Callable[[], bool], timeout: float = 10) -> None:
    """Return when the condition holds; not holding in time is an error."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("the condition did not come to hold")
        time.sleep(0.01)


def process_is_gone(pid: int) -> bool:
    """Say whether the process has ended, even if nobody has collected its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


class PortTests(SynchronousTestCase):
    """Choosing ports."""

    def test_tcp(self) -> None:
        """A chosen TCP port is free until somebody listens on it."""
        port = free_port()
        self.assertTrue(port_is_free(port))
        with socket.create_server((LOOPBACK, port)):
            self.assertFalse(port_is_free(port))

    def test_udp(self) -> None:
        """A chosen UDP port is free until somebody binds it."""
        port = free_port("udp")
        self.assertTrue(port_is_free(port, "udp"))
        with socket.socket(type=socket.SOCK_DGRAM) as listener:
            listener.bind((LOOPBACK, port))
            self.assertFalse(port_is_free(port, "udp"))

    def test_each_once(self) -> None:
        """No port is chosen twice: what has chosen it may be about to listen."""
        self.assertEqual(len({free_port() for _ in range(500)}), 500)

    def test_another_process(self) -> None:
        """No other process is given a port that this one has chosen, until this one ends."""
        program = "from testing import servers; print(port := servers.free_port()); input()"
        command = [sys.executable, "-c", program]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as other:
            assert other.stdout is not None
            port = int(other.stdout.readline())
            self.patch(servers, "_shuffled", [port])
            self.assertTrue(port_is_free(port))
            self.assertRaises(ServerError, free_port)
            other.communicate("\n")
        self.assertEqual(free_port(), port)


class RequestTests(SynchronousTestCase):
    """One HTTP request."""

    def test_broken_answers(self) -> None:
        """An answer that breaks off, or is no HTTP, is an OSError like no answer at all."""
        for answer in (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", b"220 mail\r\n", b""):
            with socket.create_server((LOOPBACK, 0)) as server:

                def serve(answer: bytes = answer, server: socket.socket = server) -> None:
                    with server.accept()[0] as connection:
                        connection.recv(1000)
                        connection.sendall(answer)

                thread = threading.Thread(target=serve)
                thread.start()
                self.assertRaises(OSError, send, "GET", f"http://{LOOPBACK}:{server.getsockname()[1]}/")
                thread.join()


class InfluxdTests(SynchronousTestCase):
    """An InfluxDB as a child process."""

    def start(self, **arguments: Any) -> Influxd:
        """Start a server that is stopped when the test ends."""
        server = Influxd(self.mktemp(), **arguments)
        server.start()
        self.addCleanup(server.stop)
        return server

    def test_write_and_read_back(self) -> None:
        """What is written to a started server can be queried."""
        server = self.start()
        server.create_database("db")
        self.assertEqual(server.write("cpu,host=a value=1 1000\ncpu,host=b value=2 2000", "db", precision="ns"), 204)
        self.assertEqual(server.rows("SELECT value FROM cpu", "db"), [[1000, 1], [2000, 2]])

    def test_wrong_query(self) -> None:
        """InfluxDB's error is raised in its own words."""
        error = self.assertRaises(ServerError, self.start().query, "SELECT nothing")
        self.assertIn("error parsing query", str(error))

    def test_kill_and_restart(self) -> None:
        """After ``kill -9`` and a restart the server answers at the same port and has its data."""
        server = self.start()
        server.create_database("db")
        server.write("cpu value=1 1000", "db")
        pid = server.pid
        server.kill()
        self.assertTrue(process_is_gone(pid))
        self.assertRaises(OSError, send, "GET", f"{server.url}/ping")
        server.restart()
        self.assertNotEqual(server.pid, pid)
        self.assertEqual(server.rows("SELECT value FROM cpu", "db"), [[1000, 1]])

    def test_pause_and_resume(self) -> None:
        """A paused server takes a connection and stays silent; resumed, it answers."""
        server = self.start()
        server.pause()
        self.assertRaises(TimeoutError, send, "GET", f"{server.url}/ping", timeout=0.1)
        server.resume()
        self.assertEqual(send("GET", f"{server.url}/ping")[0], 204)
        server.kill()
        self.assertRaises(ServerError, server.pause)

    def test_stop_while_paused(self) -> None:
        """A paused server can be stopped."""
        server = self.start()
        pid = server.pid
        server.pause()
        server.stop()
        self.assertTrue(process_is_gone(pid))

    def test_udp(self) -> None:
        """Datagrams reach the UDP listener's database, read in its precision."""
        server = self.start(udp_database="db", udp_precision="s")
        server.create_database("db")
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.sendto(b"cpu value=1 3", (LOOPBACK, server.udp_port or 0))
        wait_until(lambda: server.rows("SELECT value FROM cpu", "db") == [[3_000_000_000, 1]])

    def test_authentication(self) -> None:
        """A server with a user refuses strangers and knows its user, after a restart too."""
        server = self.start(user=("root", "it's \\secret"))
        server.create_database("db")
        server.restart()
        self.assertEqual(server.write("cpu value=1 1000", "db"), 204)
        self.assertEqual(send("POST", f"{server.url}/write?db=db", b"cpu value=1 1000")[0], 401)

    def test_settings(self) -> None:
        """Settings of InfluxDB's own configuration take effect."""
        server = self.start(settings={"http": {"max-body-size": 10}})
        server.create_database("db")
        self.assertEqual(server.write("cpu value=1 1000", "db"), 413)

    def test_taken_port(self) -> None:
        """A server whose port is taken does not start, and is not mistaken for the one that listens there."""
        server = self.start()
        other = Influxd(self.mktemp(), http_port=server.http_port)
        error = self.assertRaises(ServerError, other.start)
        self.assertEqual(str(error), f"port {server.http_port} is taken")

    def test_broken_configuration(self) -> None:
        """The error for a server that ends at once shows the end of its log."""
        server = Influxd(self.mktemp(), settings={"data": {"index-version": "none"}})
        error = self.assertRaises(ServerError, server.start)
        self.assertIn("ended with status 1", str(error))
        self.assertIn("unrecognized index none", str(error))

    def test_no_orphans(self) -> None:
        """When the process that started a server is killed, the server ends."""
        program = (
            "import sys; from testing.servers import Influxd; "
            f"server = Influxd({str(Path(self.mktemp()).resolve())!r}); "
            "server.start(); print(server.pid, flush=True); sys.stdin.read()"
        )
        parent = subprocess.Popen(
            [sys.executable, "-c", program], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert parent.stdout is not None
        with parent:
            pid = int(parent.stdout.readline())
            self.assertFalse(process_is_gone(pid))
            parent.send_signal(signal.SIGKILL)
        wait_until(lambda: process_is_gone(pid))


class ProgramTests(SynchronousTestCase):
    """Finding a server's program."""

    def test_missing(self) -> None:
        """The error for a missing program is the command that installs it."""
        with mock.patch("shutil.which", return_value=None):
            error = self.assertRaises(ServerError, find_program, "influxd", "influxdb")
        self.assertEqual(str(error), "influxd is missing: apt-get install influxdb")
