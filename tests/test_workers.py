"""Several processes behind the same sockets: real ones."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from influxrelay import cli
from influxrelay.report import Refused, Request
from tests.scripted import BackendConnection, Hold, RelayTestCase, ScriptedBackend, answer, reactor
from tests.servers import LOOPBACK, Relay, ServerError, free_port, port_is_free, send

PATIENCE = 60.0  # seconds: on a busy machine a process may need many of them to start
REFUSAL = b'{"error":"unable to parse"}'


async def until(condition: Callable[[], Any], what: str) -> Any:
    """Return what the condition does, which may be a coroutine function, as soon as that is true."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = condition()
        if hasattr(found, "__await__"):
            found = await found
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come to hold")
        await deferLater(reactor, 0.05)


def line(number: int) -> bytes:
    """Return a point that no other number has."""
    return b"m n=%di %d\n" % (number, 1465839830100000000 + number)


def lives(pid: int) -> bool:
    """Say whether a process is there, and not just waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Taker:
    """What a backend does: take what comes, or answer 503 while it is not :attr:`open`."""

    backend: ScriptedBackend

    def __init__(self, *, is_open: bool = True) -> None:
        self.open = is_open
        self.lines: list[bytes] = []

    def __call__(self, connection: BackendConnection) -> None:
        """Answer the last request."""
        if self.open:
            self.lines += self.backend.requests[-1].body.splitlines(keepends=True)
        answer(204 if self.open else 503)(connection)


class Load:
    """Clients that write without a pause, each over its own connection, and anew when that breaks.

    :ivar taken: the lines that were acknowledged.
    :ivar refused: other answers.
    :ivar broken: connections that have broken.
    """

    def __init__(self, port: int, clients: int = 4) -> None:
        self.taken: list[bytes] = []
        self.refused: list[int] = []
        self.broken = 0
        self._port = port
        self._going = True
        self._threads = [threading.Thread(target=self._write, args=(each, clients)) for each in range(clients)]
        for thread in self._threads:
            thread.start()

    def _write(self, number: int, step: int) -> None:
        client = http.client.HTTPConnection(LOOPBACK, self._port, timeout=PATIENCE)
        while self._going:
            number += step
            try:
                client.request("POST", "/write?db=db", line(number))
                response = client.getresponse()
                response.read()
            except (OSError, http.client.HTTPException):
                client.close()
                self.broken += 1
                time.sleep(0.02)
                continue
            if response.status == 204:
                self.taken.append(line(number))
            else:
                self.refused.append(response.status)
            time.sleep(0.002)
        client.close()

    def stop(self) -> None:
        """End all clients."""
        self._going = False
        for thread in self._threads:
            thread.join()


class WorkersCase(RelayTestCase):
    """Has a relay of several processes and two backends."""

    timeout = 240

    def setUp(self) -> None:
        """Make a directory whose path leaves room for a socket's name."""
        self.directory = Path(tempfile.mkdtemp(prefix="relay-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.port, self.admin_port, self.udp_port = free_port(), free_port(), free_port("udp")
        self.journal = self.directory / "journal"

    def taker(self, *, is_open: bool = True) -> Taker:
        """Start a backend."""
        taker = Taker(is_open=is_open)
        taker.backend = self.backend(taker)
        return taker

    def program(self, workers: int, *backends: ScriptedBackend, journal: bool = True, more: str = "") -> Relay:
        """Return a relay that is not started yet; it ends with the test."""
        text = f'workers = {workers}\n[admin]\nbind-addr = "{LOOPBACK}:{self.admin_port}"\n'
        text += f'[[http]]\nname = "main"\nbind-addr = "{LOOPBACK}:{self.port}"\n'
        text += f'journal = "{self.journal}"\n' if journal else ""
        for name, backend in zip("ab", backends, strict=False):
            text += f'[[http.output]]\nname = "{name}"\nlocation = "{backend.url}"\nmax-delay-interval = "200ms"\n'
        relay = Relay(self.directory, text + more, self.port)
        self.addCleanup(deferToThread, relay.kill)
        return relay

    async def start(self, relay: Relay) -> None:
        """Start it, and wait until all its workers work."""
        await deferToThread(relay.start, PATIENCE)
        await until(lambda: self.get("/ready"), "readiness")

    async def get(self, path: str, *, admin: bool = True) -> Any:
        """Return what is answered 200, or None."""
        url = f"http://{LOOPBACK}:{self.admin_port if admin else self.port}{path}"
        try:
            status, body = await deferToThread(send, "GET", url)
        except OSError:
            return None
        return body if status == 200 else None

    async def status(self) -> dict[str, Any]:
        """Return what is told about the whole relay."""
        body = await self.get("/status")
        assert body is not None
        found: dict[str, Any] = json.loads(body)
        return found

    async def pids(self) -> list[int]:
        """Return the workers' process numbers."""
        found = await until(self.status, "the status")
        return [each["pid"] for each in found["workers"]]

    async def write(self, data: bytes) -> int:
        """Write over a connection of its own, and return the status."""
        status, _ = await deferToThread(
            send, "POST", f"http://{LOOPBACK}:{self.port}/write?db=db", data, timeout=PATIENCE
        )
        return status

    async def command(self, command: str, **fields: Any) -> dict[str, Any]:
        """Ask over the admin socket."""

        def ask() -> dict[str, Any]:
            lines = cli._lines(str(self.journal / "admin.sock"), Request(command, **fields))
            return cli._answer(lines, quiet=True)

        return await deferToThread(ask)


class LifeTests(WorkersCase):
    """Start, sudden ends, stop."""

    async def test_worker_killed(self) -> None:
        """A worker killed under load is started again, its journal goes on, and clients see broken connections only."""
        a, b = self.taker(), self.taker(is_open=False)
        await self.start(relay := self.program(2, a.backend, b.backend))
        load = Load(self.port)
        self.addCleanup(deferToThread, load.stop)
        await until(lambda: len(load.taken) > 50, "load")
        os.kill((await self.pids())[1], signal.SIGKILL)

        async def back() -> bool:
            worker = (await self.status())["workers"][1]
            return worker["restarts"] == 1 and not worker["trouble"]

        await until(back, "the new worker")
        before = len(load.taken)
        await until(lambda: len(load.taken) > before + 50, "more load")
        await deferToThread(load.stop)
        self.assertIsNone(await self.get("/health/backends/b"))
        b.open = True
        await until(lambda: set(load.taken) <= set(b.lines), "all writes at the backend that was down")
        self.assertLessEqual(set(load.taken), set(a.lines))
        self.assertEqual(load.refused, [])
        await until(lambda: self.get("/health/backends/b", admin=False), "both in sync")
        await deferToThread(relay.stop)

    async def test_supervisor_killed_and_fewer_workers(self) -> None:
        """Workers end with a killed supervisor; a start with fewer delivers every journal and removes what is over."""
        a, b = self.taker(), self.taker(is_open=False)
        await self.start(relay := self.program(2, a.backend, b.backend))
        pids = await self.pids()
        taken: list[bytes] = []

        async def all_have_some() -> bool:
            for _ in range(5):
                taken.append(line(len(taken)))
                self.assertEqual(await self.write(taken[-1]), 204)
            return all(each["listeners"][0]["backends"][0]["writes"] for each in (await self.status())["workers"])

        await until(all_have_some, "writes for each worker")
        os.kill(relay.pid, signal.SIGKILL)
        await until(lambda: not any(map(lives, pids)), "the workers' end")
        await deferToThread(relay.stop)
        self.assertEqual({each.parent.name for each in self.journal.glob("worker-*/*.sqlite")}, {"worker-1"})

        await self.start(relay := self.program(1, a.backend, b.backend))
        self.assertEqual([each["worker"] for each in (await self.status())["workers"]], [0, 1])
        (row,) = (each for each in (await self.command("queues"))["queues"] if each["backend"] == "b")
        self.assertEqual(row["writes"], len(taken))
        self.assertIsNone(await self.get("/health/backends/b"))
        b.open = True
        await until(lambda: set(taken) <= set(b.lines), "all writes at the backend that was down")
        await until(lambda: not list(self.journal.glob("worker-*")), "the end of the journals that were left over")
        await until(lambda: self.get("/health/backends/b"), "the backend in sync")
        self.assertEqual([each["worker"] for each in (await self.status())["workers"]], [0])
        await deferToThread(relay.stop)

    async def test_stop(self) -> None:
        """SIGTERM: what is in flight is answered, no process is left, and the log has no traceback."""
        held = Hold(answer(204))
        backend = self.backend(held)
        await self.start(relay := self.program(2, backend, journal=False))
        pids = await self.pids()
        asked = Deferred.fromCoroutine(self.write(line(1)))
        await until(lambda: backend.requests, "the write at the backend")
        os.kill(relay.pid, signal.SIGTERM)
        await until(lambda: port_is_free(self.port), "the stop")
        held.release()
        self.assertEqual(await asked, 204)
        await until(lambda: not relay.is_running, "the end")
        self.assertFalse(any(map(lives, pids)))
        log = relay.log.read_text()
        self.assertIn("influxrelay has stopped", log)
        self.assertNotIn("Traceback", log)

    async def test_start_that_fails(self) -> None:
        """What keeps a worker from working stops the start of all, with the reason."""
        (self.directory / "journal").mkdir()
        (self.directory / "journal" / "worker-1").write_text("no directory")
        relay = self.program(2, self.backend())
        with contextlib.suppress(ServerError):  # the other worker may have answered before
            await deferToThread(relay.start, PATIENCE)
        await until(lambda: not relay.is_running, "the end")
        if relay._process is not None:
            self.assertEqual(relay._process.returncode, 1)
        self.assertIn("influxrelay: worker 1: main: ", relay.log.read_text())

    async def test_reload(self) -> None:
        """A reload under load changes all workers or none: another backend, another port, and no write is refused."""
        a, b = self.taker(), self.taker()
        await self.start(relay := self.program(2, a.backend))
        pids = await self.pids()
        load = Load(self.port)
        self.addCleanup(deferToThread, load.stop)
        await until(lambda: len(load.taken) > 20, "load")
        old = relay.config.read_text()
        another = free_port()
        second = (
            f'[[http]]\nname = "second"\nbind-addr = "{LOOPBACK}:{another}"\njournal = "{self.directory / "second"}"\n'
        )
        second += f'[[http.output]]\nname = "s"\nlocation = "{a.backend.url}"\n'
        more = f'[[http.output]]\nname = "b"\nlocation = "{b.backend.url}"\n'

        relay.config.write_text(f"{old}{more}{second}".replace("workers = 2", "workers = 3"))
        with self.assertRaisesRegex(Refused, "workers"):
            await self.command("reload")
        (self.directory / "second").mkdir()
        (self.directory / "second" / "worker-1").write_text("no directory")
        relay.config.write_text(f"{old}{more}{second}")
        with self.assertRaisesRegex(Refused, "^worker 1: second: "):
            await self.command("reload")
        await until(lambda: port_is_free(another), "the end of the port")
        (self.directory / "second" / "worker-1").unlink()

        self.assertIn("second: added", (await self.command("reload check"))["changes"])
        await until(lambda: port_is_free(another), "the end of the port")
        self.assertEqual(b.lines, [])
        changes = (await self.command("reload"))["changes"]
        self.assertLessEqual({"second: added", "main: output b added"}, set(changes))
        found = await self.status()
        self.assertEqual([len(each["listeners"]) for each in found["workers"]], [2, 2])
        self.assertEqual([len(each["listeners"][0]["backends"]) for each in found["workers"]], [2, 2])
        url = f"http://{LOOPBACK}:{another}/write?db=db"
        self.assertEqual((await deferToThread(send, "POST", url, b"s n=1i 1", timeout=PATIENCE))[0], 204)

        relay.config.write_text(old + more)
        await self.command("reload")
        await until(lambda: port_is_free(another), "the end of the port")
        before = len(load.taken)
        await until(lambda: len(load.taken) > before + 20, "more load")
        await deferToThread(load.stop)
        self.assertEqual((load.refused, load.broken, await self.pids()), ([], 0, pids))
        last = set(load.taken[before:])
        await until(lambda: last <= set(b.lines) and set(load.taken) <= set(a.lines), "all writes at both backends")
        await deferToThread(relay.stop)


class TogetherTests(WorkersCase):
    """What is asked of all workers."""

    async def test_all_answer_as_one(self) -> None:
        """Writes reach backends through each worker, datagrams too; health, metrics and status speak of all."""
        a, b = self.taker(), self.taker()
        udp = f'[[udp]]\nname = "udp"\nbind-addr = "{LOOPBACK}:{self.udp_port}"\nbatch-timeout = "50ms"\n'
        udp += "read-buffer = 1000000000\n"
        udp += f'[[udp.output]]\nname = "u"\nlocation = "{a.backend.url}?db=db"\n'
        await self.start(relay := self.program(2, a.backend, b.backend, more=udp))
        pids = await self.pids()
        written = 0

        async def both_have_some() -> bool:
            nonlocal written
            clients = [http.client.HTTPConnection(LOOPBACK, self.port, timeout=PATIENCE) for _ in range(8)]
            for client in clients:
                await deferToThread(client.connect)
            for client in clients:
                await deferToThread(client.request, "POST", "/write?db=db", line(written))
                self.assertEqual((await deferToThread(client.getresponse)).status, 204)
                client.close()
                written += 1
            return all(each["listeners"][0]["backends"][0]["writes"] for each in (await self.status())["workers"])

        await until(both_have_some, "writes for each worker")
        wanted = {line(each) for each in range(written)}
        await until(lambda: wanted <= set(a.lines) and wanted <= set(b.lines), "all writes at both backends")

        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            sender.sendto(b"u n=1i 1465839830200000000", (LOOPBACK, self.udp_port))
        await until(lambda: b"u n=1i 1465839830200000000\n" in a.lines, "the datagram's line")

        self.assertEqual(relay.log.read_text().count("read-buffer is"), 1)  # it was set, as far as the system lets us

        text = (await self.get("/metrics")).decode()
        self.assertEqual(text.count("# TYPE influxrelay_writes_total "), 1)
        writes = [each for each in text.splitlines() if each.startswith('influxrelay_writes_total{listener="main"')]
        self.assertEqual(sum(float(each.rpartition(" ")[2]) for each in writes), written)
        for number in "01":
            self.assertIn(f'influxrelay_worker_up{{worker="{number}"}} 1.0', text)
        self.assertIn("influxrelay_config_last_reload_successful 1.0", text)

        for admin in (True, False):
            await until(lambda admin=admin: self.get("/health/backends/b", admin=admin), "the backend in sync")
        os.kill(pids[1], signal.SIGSTOP)
        health = f"http://{LOOPBACK}:{self.admin_port}/health"
        status, body = await deferToThread(send, "GET", health, timeout=PATIENCE)
        self.assertEqual((status, json.loads(body)["message"]), (503, "worker 1 does not answer"))
        os.kill(pids[1], signal.SIGCONT)
        await until(lambda: self.get("/health"), "health")
        await deferToThread(relay.stop)

    async def test_commands(self) -> None:
        """The operator's commands see and change the queues and dead letters of all workers."""
        a, b = self.taker(), self.taker()
        refusing = True

        def refuse(connection: BackendConnection) -> None:
            if refusing:
                connection.later(0.3, answer(400, REFUSAL), connection)  # behind the other one's 204
            else:
                b(connection)

        b.backend.script.clear()
        b.backend.script.append(refuse)
        await self.start(relay := self.program(2, a.backend, b.backend))
        written = 0

        async def listed() -> list[str]:
            return [each["id"] for each in (await self.command("dead-letters list"))["dead_letters"]]

        async def both_have_some() -> bool:
            nonlocal written
            self.assertEqual(await self.write(line(written)), 204)
            written += 1
            return {each[:2] for each in await listed()} == {"0/", "1/"}

        await until(both_have_some, "dead letters in both workers")

        async def all_refused() -> bool:
            return len(await listed()) == written

        await until(all_refused, "all dead letters")
        (row,) = (each for each in (await self.command("queues"))["queues"] if each["backend"] == "b")
        self.assertEqual(row["dead_letters"], written)
        ids = await listed()
        shown = await self.command("dead-letters show", ids=(ids[0],))
        self.assertEqual((shown["id"], shown["words"]), (ids[0], "unable to parse"))
        self.assertEqual(await self.command("dead-letters drop", ids=(ids[0],)), {"dropped": 1})
        with self.assertRaisesRegex(Refused, "no dead letter 7/1"):
            await self.command("dead-letters show", ids=("7/1",))
        with self.assertRaisesRegex(Refused, "^there is no backend nobody"):
            await self.command("queues pause", backend="nobody")

        refusing = False
        replayed = await self.command("dead-letters replay", all=True)
        self.assertEqual((set(replayed["replayed"]), replayed["failed"]), (set(ids[1:]), []))
        self.assertEqual(len(b.lines), written - 1)

        await self.command("queues pause", backend="b")
        for _ in range(8):
            self.assertEqual(await self.write(line(written)), 204)
            written += 1
        (row,) = (each for each in (await self.command("queues"))["queues"] if each["backend"] == "b")
        self.assertEqual((row["state"], row["writes"]), ("paused", 8))
        self.assertEqual((await self.command("queues drop", backend="b"))["writes"], 8)
        await self.command("queues resume", backend="b")
        await deferToThread(relay.stop)
