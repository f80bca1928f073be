"""More connections than files, and hostile clients beside honest ones."""

from __future__ import annotations

import resource
import socket
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.service.process_limits import share_files
from testing.scripted import LINE, RelayTestCase, until
from testing.servers import LOOPBACK, Relay, free_port, send
from tests.soak.hostile import Arena


class FileTests(SynchronousTestCase):
    """How many files there are for clients."""

    def test_shares(self) -> None:
        """Where there are files enough every listener has what it wants, else all have less, and never none."""
        self.assertEqual(share_files(65536, 192, [4000, 4000, 256]), [4000, 4000, 256])
        self.assertEqual(share_files(1024, 128, [4000, 256]), [781, 50])
        self.assertEqual(share_files(100, 3200, [4000, 4000]), [25, 25])
        self.assertEqual(share_files(10, 64, [4000, 1]), [4, 1])


class _FewFiles(Relay):
    """A relay that may open few files."""

    def command(self) -> list[str]:
        """Return the command with a limit before it."""
        return ["sh", "-c", 'ulimit -n 100; exec "$@"', "sh", *super().command()]


class OutOfFilesTests(RelayTestCase):
    """A process without files to open."""

    async def run_short(self, settings: str = "") -> _FewFiles:
        """Start a relay that may open 100 files, before a backend."""
        backend, port = self.backend(), free_port()
        config = (
            f'[[http]]\nname = "main"\nbind-addr = "{LOOPBACK}:{port}"\n{settings}\n'
            f'[[http.output]]\nlocation = "{backend.url}"\n'
        )
        relay = _FewFiles(self.mktemp(), config, port)
        self.addCleanup(deferToThread, relay.stop)
        await deferToThread(relay.start, 60)
        return relay

    def connect(self, relay: _FewFiles, number: int) -> list[socket.socket]:
        """Connect so often, and send nothing."""
        port = int(relay.url.rpartition(":")[2])
        connections = [socket.create_connection((LOOPBACK, port), timeout=60) for _ in range(number)]
        for connection in connections:
            self.addCleanup(connection.close)
        return connections

    async def write(self, relay: _FewFiles) -> int:
        """Write on a new connection; return the status, 0 for none."""
        try:
            status, _ = await deferToThread(send, "POST", f"{relay.url}/write?db=db", LINE, {}, 30)
        except OSError:
            return 0
        return status

    async def test_connections(self) -> None:
        """With more connections than files, writes are taken as ever: for the backend there are files left."""
        relay = await self.run_short()
        await deferToThread(self.connect, relay, 400)
        await until(lambda: _open_files(relay.pid) < 90)
        for _ in range(10):
            self.assertEqual(await self.write(relay), 204)
        log = relay.log.read_text()
        self.assertIn("the limit of open files is 100: accepting 50 client connections instead of 4000", log)
        self.assertNotIn("EMFILE", log)
        self.assertNotIn("Traceback", log)

    async def test_none_left(self) -> None:
        """A process that can open nothing more does not spin, and goes on when it can."""
        relay = await self.run_short()
        self.assertEqual(await self.write(relay), 204)
        open_files = _open_files(relay.pid)
        resource.prlimit(relay.pid, resource.RLIMIT_NOFILE, (open_files, 100))
        await deferToThread(self.connect, relay, 50)
        for _ in range(10):
            await until(lambda: _is_asleep(relay.pid))
        resource.prlimit(relay.pid, resource.RLIMIT_NOFILE, (100, 100))
        for _ in range(10):
            self.assertEqual(await self.write(relay), 204)


def _open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _is_asleep(pid: int) -> bool:
    """Tell whether a process waits for something; one that spins is always running, or about to."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


class HostileTests(SynchronousTestCase):
    """The harness of ``python -m tests.soak.hostile``, for a short time."""

    def test_some(self) -> None:
        """Beside some attacks honest clients are all answered, and memory is bounded."""
        with Arena(Path(self.mktemp()).resolve()) as arena:
            for name, count in (
                ("half-open connections", 300),
                ("endless chunks of a byte", 10),
                ("25 MB of bad lines", 3),
            ):
                figures = arena.measure(name, 1.5, count=count)
                self.assertGreater(figures.writes, 0, figures)
                self.assertLess(figures.memory, 500e6, figures)
            self.assertGreater(arena.measure("half-open connections", 1.0, admin=True, count=300).writes, 0)
