"""Health of backends that have lost something, of UDP, at the stop, and before real servers."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from influxrelay.cli import offline as stopped
from influxrelay.config.loader import load
from influxrelay.config.settings import HTTPOutputConfig, JournalConfig
from influxrelay.core.errors import JournalError
from influxrelay.delivery import prober as pinger
from influxrelay.journal.records import JournalLimits
from influxrelay.journal.writer import JournalWriter
from influxrelay.listeners.udp import UDPService
from influxrelay.operations.views import Request
from influxrelay.service.relay_service import RelayService
from testing.failing_disk import break_disk
from testing.health_case import ADMIN, HealthCase
from testing.scripted import LINE, LOOPBACK, Hold, answer, reactor, request, until
from testing.servers import Influxd


class LossTests(HealthCase):
    """Backends that miss what was acknowledged."""

    async def missing(self, *, journal: bool) -> tuple[RelayService, str]:
        """Let backend ``two`` lose a write, and return what is told of it."""
        backend = self.backend(answer(503), answer(204))
        top = "" if journal else f'admin-socket = "{self.socket}"'
        self.socket.parent.mkdir(exist_ok=True)
        service = self.operate(self.listener(self.backend(), backend, journal=journal), top=top)
        if journal:
            await self.order("queues pause", backend="two")
        self.assertEqual(await self.write(service), 204)
        writer = self.http(service).writer
        if isinstance(writer, JournalWriter):
            writer.reconfigure(JournalLimits(max_age=1e-6), full_sync=False)
            await until(lambda: writer._house.cursors.behind, "the backlog on disk")
            await Deferred.fromCoroutine(writer._house._expire())
            await self.order("queues resume", backend="two")
        sender = self.http(service).senders[1]
        await until(sender.backlog.losses)
        if not journal:
            await self.write(service)
            await until(lambda: sender.status.trouble is None)
        status, shown = await self.told(self.http(service), b"/health/backends/two")
        self.assertEqual((status, (await self.told(self.http(service), b"/health"))[0]), (503, 200))
        return service, shown["message"]

    async def test_no_queue(self) -> None:
        """A backend that missed a write for lack of a queue is out of sync until somebody says that it was copied."""
        service, words = await self.missing(journal=False)
        self.assertRegex(
            words,
            rf"^misses 1 write \({len(LINE)} B\) accepted from 20.*Z to 20.*Z \(unqueued\): copy them from another"
            " backend with: influxrelay repair two --listener main --lost$",
        )
        row = await self.row("two")
        self.assertEqual([(each["reason"], each["writes"]) for each in row["drops"]], [("unqueued", 1)])
        self.assertIn("and has no queue; accepted from", row["advice"][-1])
        repaired = {"listener": "main", "backend": "two", "writes": 1, "bytes": len(LINE)}
        self.assertEqual(await self.order("queues mark-repaired", backend="two"), repaired)
        self.assertEqual((await self.get(self.http(service), b"/health/backends/two")).status, 200)
        self.assertEqual((await self.row("two"))["drops"], [])

    async def test_journal(self) -> None:
        """The same holds for what a journal has lost, and after a restart, too."""
        service, words = await self.missing(journal=True)
        self.assertRegex(words, r"^misses 1 write .*\(age\): copy")
        await service.stopService()
        service = RelayService(load(self.config), reactor)
        service.startService()
        self.addCleanup(lambda: Deferred.fromCoroutine(self._end(service)))
        status, shown = await self.told(self.http(service), b"/health/backends/two")
        self.assertEqual((status, shown["message"]), (503, words))
        self.assertEqual((await self.order("queues mark-repaired", backend="two"))["writes"], 1)
        self.assertEqual((await self.get(self.http(service), b"/health/backends/two")).status, 200)
        await service.stopService()
        self.assertEqual(stopped.run(load(self.config), Request("queues"), "")["queues"][1]["drops"], [])

    async def test_stopped(self) -> None:
        """It may be said while the relay is stopped."""
        service, _ = await self.missing(journal=True)
        await service.stopService()
        asked = Request("queues mark-repaired", backend="two")
        self.assertEqual(stopped.run(load(self.config), asked, "")["writes"], 1)
        self.assertEqual(stopped.run(load(self.config), asked, "")["writes"], 0)

    async def test_disk_works_again(self) -> None:
        """With ``journal-on-error = "refuse"`` a disk that works again is noticed although no write comes."""
        refuse = 'journal-on-error = "refuse"\n[[http.output]]'
        service = self.operate(self.listener(self.backend()).replace("[[http.output]]", refuse))
        relay = self.http(service)
        writer = relay.writer
        assert writer is not None
        broken = break_disk(self)
        await self.assertFailure(writer.probe(), JournalError)
        status, shown = await self.told(relay, b"/health")
        self.assertEqual(status, 503)
        self.assertRegex(shown["message"], "^main: the journal does not work: ")
        broken.restore()
        self.assertEqual((await self.told(relay, b"/health"))[0], 200)


class UDPTests(HealthCase):
    """UDP listeners, asked at the admin listener."""

    def udp(self, *outputs: str, interval: str = "1h") -> RelayService:
        """Start a relay with a UDP listener."""
        text = f'[[udp]]\nname = "u"\nbind-addr = "{LOOPBACK}:0"\nbatch-timeout = "{interval}"\n'
        for name, url in zip(("one", "two"), outputs, strict=False):
            text += f'[[udp.output]]\nname = "{name}"\nlocation = "{url}?db=db"\n'
        return self.operate(ADMIN, text)

    def listener_of(self, service: RelayService) -> UDPService:
        """Return the UDP listener."""
        (found,) = (each for each in service.listeners if isinstance(each, UDPService))
        return found

    async def test_what_is_collected(self) -> None:
        """Lines that are collected for a batch count as accepted: the question sends them on, and waits for them."""
        held = Hold(answer(204))
        backend = self.backend(held)
        service = self.udp(backend.url)
        await until(lambda: service.listeners[0].senders[0].status.is_known)
        self.listener_of(service).protocol.datagramReceived(LINE, None)
        client = await self.client(self.admin(service))
        client.send(request(b"/health/backends/one", b"", method=b"GET", length=-1))
        await until(lambda: backend.requests)
        self.assertEqual(client.unread, b"")
        held.release()
        self.assertEqual((await client.answer()).status, 200)
        self.assertEqual(backend.requests[0].body, LINE)

    async def test_lost(self) -> None:
        """Lines that one backend took and another one did not are missed by that one."""
        service = self.udp(self.backend().url, self.backend(answer(503), answer(204)).url, interval="1ms")
        protocol, sender = self.listener_of(service).protocol, service.listeners[0].senders[1]
        protocol.datagramReceived(LINE, None)
        await until(sender.backlog.losses)
        protocol.datagramReceived(LINE, None)
        await until(lambda: sender.status.trouble is None)
        status, shown = await self.told(self.admin(service), b"/health/backends/two")
        self.assertEqual((status, shown["message"].split(" accepted")[0]), (503, f"misses 1 write ({len(LINE)} B)"))
        self.assertEqual((await self.told(self.admin(service), b"/health/backends/one"))[0], 200)

    async def test_all_down(self) -> None:
        """Where no backend takes lines, none misses what another one has, and the listener is not well."""
        service = self.udp((await self.refusing_backend()).url, (await self.refusing_backend()).url, interval="1ms")
        senders = service.listeners[0].senders
        await until(lambda: all(sender.status.problem for sender in senders))
        self.listener_of(service).protocol.datagramReceived(LINE, None)
        await until(lambda: all(sender.clients.failures for sender in senders))
        self.assertEqual([sender.backlog.losses() for sender in senders], [[], []])
        self.assertEqual((await self.told(self.admin(service), b"/health"))[0], 503)


class StopTests(HealthCase):
    """While the relay stops."""

    async def test_stopping(self) -> None:
        """``/health`` and ``/ready`` answer 503 on both kinds of listeners as long as they answer at all."""
        held = Hold(answer(204))
        service = self.operate(ADMIN, self.listener(self.backend(held), journal=False))
        admin, relay = self.admin(service), self.http(service)
        self.assertEqual((await self.told(admin, b"/ready"))[1]["message"], "ready")
        writer, asker = await self.client(relay), await self.client(relay)
        writer.send(request())
        asker.send(request(b"/ping", b"", method=b"GET")[:-1])
        await until(lambda: service.listeners[0].senders[0].requests.count)
        stopped = service.stopService()
        asker.send(b"\n")
        self.assert_error(await asker.answer(), 503, "the relay is shutting down")
        for path in (b"/ready", b"/health"):
            status, shown = await self.told(admin, path)
            self.assertEqual((status, shown["message"]), (503, "main: it is starting or stopping"))
        held.release()
        self.assertEqual((await writer.answer()).status, 204)
        await stopped

    def test_not_started(self) -> None:
        """A listener whose journal is not open yet is not ready."""
        service = self.operate(self.listener(self.backend()))
        listener = self.http(service)
        self.assertTrue(listener.is_ready)
        listener.running = 0
        self.assertFalse(listener.is_ready)
        listener.running = 1


LINES = 100  # in a write


def _lines(written: int) -> bytes:
    return b"".join(b"m f=1 %d\n" % (written * LINES + number) for number in range(1, LINES + 1))


class InfluxdTests(HealthCase):
    """Two real servers, one of which is killed and comes back."""

    async def test_killed(self) -> None:
        """Whenever a server is said to be in sync it has every point that was acknowledged before the question."""
        self.patch(pinger, "INTERVAL", 0.2)
        servers = [Influxd(self.directory / name) for name in ("one", "two")]
        for server in servers:
            self.addCleanup(deferToThread, server.kill)
            await deferToThread(server.start)
            await deferToThread(server.create_database, "db")
        outputs = [
            HTTPOutputConfig(name, each.url, f"{each.url}/write", f"{each.url}/ping", max_batch_kb=1)
            for name, each in zip(("one", "two"), servers, strict=True)
        ]
        self.relay_ = self.relay(*outputs, journal=JournalConfig(str(self.directory / "journal")))
        self.written = 0
        writing = Deferred.fromCoroutine(self._write())
        self.in_sync = [0, 0]
        for _ in range(5):
            await self._ask(servers)
        await deferToThread(servers[1].kill)
        while (await self.told(self.relay_, b"/health/backends/two"))[0] == 200:
            await self._ask(servers[:1])
        before = list(self.in_sync)
        self.assertGreaterEqual(min(before), 1)
        mark = self.written
        while self.written < mark + 100:
            await self._ask(servers[:1])
        self.assertGreater(self.in_sync[0], before[0])
        await deferToThread(servers[1].start)
        deadline = reactor.seconds() + 60
        while self.in_sync[1] < before[1] + 5:
            self.assertLess(reactor.seconds(), deadline, (await self.told(self.relay_, b"/health/backends/two"))[1])
            await self._ask(servers)
        self.over = True
        await writing

    over = False

    async def _write(self) -> None:
        client = await self.client(self.relay_)
        while not self.over:
            found = await client.ask(request(b"/write?db=db", _lines(self.written)))
            self.assertEqual(found.status, 204)
            self.written += 1

    async def _ask(self, servers: list[Influxd]) -> None:
        """Ask about each server, and check the one that is said to be in sync."""
        for number, (name, server) in enumerate(zip((b"one", b"two"), servers, strict=False)):
            written = self.written
            if (await self.told(self.relay_, b"/health/backends/" + name))[0] == 200:
                found = await deferToThread(
                    server.query, f"SELECT COUNT(f) FROM m WHERE time <= {written * LINES}", "db"
                )
                series = found["results"][0].get("series")
                self.assertEqual(series[0]["values"][0][1] if series else 0, written * LINES, name)
                self.in_sync[number] += 1
