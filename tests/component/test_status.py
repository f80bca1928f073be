"""``/health``, ``/health/backends/NAME``, ``/ready`` and ``/status``, asked over HTTP."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from influxrelay import __version__
from influxrelay.config.loader import load
from influxrelay.config.settings import HTTPOutputConfig, JournalConfig
from influxrelay.core.errors import BackendFailure, JournalError
from influxrelay.delivery import prober as pinger
from influxrelay.journal.records import JournalLimits
from influxrelay.listeners.port_service import AdminService
from influxrelay.listeners.udp import UDPService
from influxrelay.operations import offline as stopped
from influxrelay.operations.health import Health
from influxrelay.operations.views import Request
from influxrelay.service.relay_service import RelayService
from testing.admin import OperatedCase
from testing.failing_disk import break_disk
from testing.scripted import LINE, LOOPBACK, Answer, Hold, answer, hang, reactor, request, until
from testing.servers import Influxd

ADMIN = f'[admin]\nbind-addr = "{LOOPBACK}:0"\n'
UDP = f"""[[udp]]
name = "udp"
bind-addr = "{LOOPBACK}:0"
output = [{{ name = "one", location = "{LOOPBACK}:9" }}]
"""
DOWN = BackendFailure("timeout", "no answer")
NOT_YET = answer(404, b'{"error":"database not found: \\"db\\""}')
TRAITS = ("X-Influxdb-Version", "Request-Id", "X-Request-Id", "Date")


class HealthCase(OperatedCase):
    """Asks the listeners, and the admin listener."""

    pings = True

    def admin(self, service: RelayService) -> Any:
        """Return the admin listener."""
        assert isinstance(service.admin, AdminService)
        return service.admin

    async def get(self, where: Any, path: bytes, *headers: bytes, method: bytes = b"GET") -> Answer:
        """Send a request without a body, and return the answer."""
        client = await self.client(where)
        client.send(request(path, b"", *headers, method=method, length=-1))
        found = await client.answer(to_head=method == b"HEAD")
        client.vanish()
        return found

    async def told(self, where: Any, path: bytes) -> tuple[int, dict[str, Any]]:
        """Return the status and the JSON of an answer."""
        found = await self.get(where, path)
        return found.status, json.loads(found.body)


class ShapeTests(HealthCase):
    """What the answers look like."""

    async def test_health(self) -> None:
        """``/health`` has the shape of InfluxDB's, and a check for each backend."""
        service = self.operate(self.listener(self.backend(), self.backend()))
        status, shown = await self.told(self.http(service), b"/health")
        self.assertEqual((status, list(shown)), (200, ["name", "status", "message", "checks", "queries", "version"]))
        self.assertEqual((shown["name"], shown["status"], shown["version"]), ("influxrelay", "pass", __version__))
        self.assertEqual(
            [(each["name"], each["status"]) for each in shown["checks"]], [("one", "pass"), ("two", "pass")]
        )
        self.assertEqual(shown["queries"], [{"listener": "main", "status": "pass", "message": "in sync: one, two"}])
        self.assertEqual(Health.parse(shown).show(), shown)

    async def test_head(self) -> None:
        """HEAD gets what GET gets, without the body; both have the headers that all answers have."""
        service = self.operate(ADMIN, self.listener(self.backend()))
        for where in (self.http(service), self.admin(service)):
            for path in (b"/health", b"/health/backends/one", b"/ready"):
                got = await self.get(where, path, b"X-Request-Id: mine")
                head = await self.get(where, path, b"X-Request-Id: mine", method=b"HEAD")
                self.assertEqual((got.status, head.status, head.body), (200, 200, b""), path)
                self.assertEqual(head.header("Content-Length"), b"%d" % len(got.body))
                self.assertEqual(got.header("X-Request-Id"), b"mine")
                self.assertEqual(got.header("Content-Type"), b"application/json")
                self.assertEqual(got.header("Cache-Control"), b"no-store")
                for name in TRAITS:
                    self.assertIsNotNone(got.header(name), name)

    async def test_methods(self) -> None:
        """Other methods are refused, with those that are allowed."""
        service = self.operate(ADMIN, self.listener(self.backend()))
        for where, paths in (
            (self.http(service), (b"/health", b"/health/backends/one", b"/health/queries", b"/ready")),
            (self.admin(service), (b"/health", b"/health/backends/one", b"/ready", b"/status")),
        ):
            for path in paths:
                found = await self.get(where, path, method=b"DELETE")
                self.assert_error(found, 405, "method not allowed")
                self.assertEqual(found.header("Allow"), b"GET, HEAD")

    async def test_names(self) -> None:
        """A backend's name is percent-decoded, may hold anything, and may also come as it is."""
        backend = self.backend()
        for name, paths in (
            ("a b/c%d", (b"a%20b%2Fc%25d", b"a%20b/c%25d")),
            ("größe", (b"gr%C3%B6%C3%9Fe", "größe".encode())),
            ("http://h:1/write", (b"http%3A%2F%2Fh%3A1%2Fwrite", b"http://h:1/write")),
            ("50%", (b"50%25", b"50%")),
        ):
            relay = self.relay(self.output(backend, name))
            for path in paths:
                status, shown = await self.told(relay, b"/health/backends/" + path + b"?a=b")
                self.assertEqual((status, shown["name"], shown["status"]), (200, name, "pass"))

    async def test_unknown(self) -> None:
        """An unknown backend, and what only begins like a path, is 404."""
        relay = self.relay(self.backend())
        self.assert_error(await self.get(relay, b"/health/backends/nobody"), 404, 'there is no backend "nobody"')
        self.assert_error(await self.get(relay, b"/health/backends/"), 404, 'there is no backend ""')
        for path in (b"/health/backends", b"/health/", b"/ready/x", b"/healthy", b"/status", b"/metrics"):
            self.assert_error(await self.get(relay, path), 404, "not found")

    async def test_status(self) -> None:
        """``/status`` tells the version, the listeners with their counters, and the queues with advice."""
        good = self.backend()
        bad = await self.refusing_backend()
        service = self.operate(ADMIN, self.listener(good, bad))
        self.assertEqual(await self.write(service), 204)
        sender = self.http(service).senders[1]
        await until(lambda: sender.status.trouble is not None)
        status, shown = await self.told(self.admin(service), b"/status")
        self.assertEqual((status, shown["version"]), (200, __version__))
        self.assertGreaterEqual(shown["uptime"], 0)
        (listener,) = shown["listeners"]
        self.assertEqual((listener["name"], listener["ready"], listener["backends"][0]["writes"]), ("main", True, 1))
        self.assertEqual((listener["obstacle"], listener["backends"][0]["objection"]), ("", ""))
        self.assertEqual(listener["backends"][1]["objection"][:13], "down: refused")
        self.assertEqual([row["state"] for row in shown["queues"]], ["up", "trouble"])
        self.assertIn("it takes no writes (refused", shown["queues"][1]["advice"][0])

    async def test_status_of_udp(self) -> None:
        """A UDP listener's counters are in it, too."""
        service = self.operate(
            ADMIN, f'[[udp]]\nname = "u"\nbind-addr = "{LOOPBACK}:0"\n[[udp.output]]\nlocation = "{LOOPBACK}:1"\n'
        )
        service.listeners[0].protocol.datagramReceived(LINE, None)  # type: ignore[union-attr]
        service.listeners[0].hand_over()
        _, shown = await self.told(self.admin(service), b"/status")
        (listener,) = shown["listeners"]
        self.assertEqual((listener["datagrams"], listener["lines"]), (1, 1))
        self.assertEqual(listener["outputs"], [{"name": f"{LOOPBACK}:1", "lines": 1, "dropped": {}}])


class QueryHealthTests(HealthCase):
    """What is said of queries."""

    pings = False

    async def test_in_sync(self) -> None:
        """As long as a backend is in sync, queries pass; which ones are is told."""
        service = self.operate(ADMIN, self.listener(self.backend(), self.backend()), UDP)
        for where in (self.http(service), self.admin(service)):
            status, shown = await self.told(where, b"/health/queries")
            self.assertEqual((status, shown["message"]), (200, "ready for queries"))
            self.assertEqual(shown["queries"], [{"listener": "main", "status": "pass", "message": "in sync: one, two"}])
        service.listeners[0].senders[0].pinged(DOWN)
        for path in (b"/health", b"/health/queries", b"/ready"):
            status, shown = await self.told(self.http(service), path)
            self.assertEqual((status, shown["queries"][0]["message"]), (200, "in sync: two"), path)

    async def test_none_in_sync(self) -> None:
        """Without a backend in sync queries fail and writes go on; what becomes of a read is told with the reasons."""
        down = "one: down: timeout: no answer"
        lacks = "two: behind: 1 write in memory, and perhaps more on disk"
        old = f"no backend is in sync, and the one that lacks least answers reads: {down}; {lacks}"
        for keys, words in (
            ("", old),
            ('queries-when-behind = "refuse"\n', f"no backend is in sync, and reads are refused: {down}; {lacks}"),
        ):
            service = self.operate(
                self.listener(self.backend(), self.backend(NOT_YET), journal=False, buffer=1, keys=keys)
            )
            main = service.listeners[0]
            self.assertEqual(await self.write(service, b"/write?db=db", LINE), 204)
            main.senders[0].pinged(DOWN)
            await until(main.senders[1].queues.are_behind, "it is behind")
            status, shown = await self.told(self.http(service), b"/health/queries")
            self.assertEqual((status, shown["message"]), (503, f"main: {words}"))
            self.assertEqual(shown["queries"], [{"listener": "main", "status": "fail", "message": words}])
            for path in (b"/health", b"/ready"):
                self.assertEqual((await self.told(self.http(service), path))[0], 200)

    async def test_all_down(self) -> None:
        """It is told when no backend answers."""
        service = self.operate(self.listener(self.backend()))
        service.listeners[0].senders[0].pinged(DOWN)
        status, shown = await self.told(self.http(service), b"/health/queries")
        self.assertEqual((status, shown["message"]), (503, "main: no backend answers: one: down: timeout: no answer"))

    async def test_off(self) -> None:
        """Where there are no queries nothing is said of them."""
        service = self.operate(self.listener(self.backend(), keys="queries = false\n"))
        status, shown = await self.told(self.http(service), b"/health/queries")
        self.assertEqual((status, shown), (404, {"error": "queries are disabled (queries = false)"}))
        self.assertNotIn("queries", (await self.told(self.http(service), b"/health"))[1])


class SyncTests(HealthCase):
    """``/health/backends/NAME`` while something happens."""

    async def test_waits(self) -> None:
        """The question waits for a write under way, and then is answered 200."""
        held = Hold(answer(204))
        relay = self.relay(self.backend(), self.backend(held))
        self.assertEqual((await self.ask(relay, request())).status, 204)
        client = await self.client(relay)
        client.send(request(b"/health/backends/backend-1", b"", method=b"GET", length=-1))
        self.assertEqual((await self.get(relay, b"/health/backends/backend-0")).status, 200)
        self.assertEqual(client.unread, b"")
        held.release()
        self.assertEqual((await client.answer()).status, 200)

    async def test_does_not_wait_for_ever(self) -> None:
        """A write that stays under way is told after a second."""
        relay = self.relay(self.backend(), self.backend(hang))
        self.assertEqual((await self.ask(relay, request())).status, 204)
        status, shown = await self.told(relay, b"/health/backends/backend-1")
        self.assertEqual((status, shown["status"]), (503, "fail"))
        self.assertEqual(shown["message"], f"behind: 1 write ({len(LINE)} B) is under way or waits, the oldest for 1s")

    async def test_down(self) -> None:
        """A backend that is down is told at once, with the reason; its neighbour is well, and so is the relay."""
        service = self.operate(self.listener(self.backend(), await self.refusing_backend()))
        relay = self.http(service)
        self.assertEqual(await self.write(service), 204)
        await until(lambda: relay.senders[1].status.trouble is not None)
        status, shown = await self.told(relay, b"/health/backends/two")
        self.assertEqual(status, 503)
        self.assertRegex(shown["message"], r"^down: refused: .*Connection refused")
        self.assertEqual((await self.get(relay, b"/health/backends/one")).status, 200)
        status, shown = await self.told(relay, b"/health")
        self.assertEqual((status, shown["status"]), (200, "pass"))
        self.assertEqual([each["status"] for each in shown["checks"]], ["pass", "fail"])

    async def test_all_listeners(self) -> None:
        """The admin listener asks every listener that has a backend of that name."""
        good, bad = self.backend(), await self.refusing_backend()
        service = self.operate(ADMIN, self.listener(good, name="a"), self.listener(bad, name="b"))
        self.assertEqual(await self.write(service, listener=1), 503)
        status, shown = await self.told(self.admin(service), b"/health/backends/one")
        self.assertEqual((status, [each["status"] for each in shown["checks"]]), (503, ["pass", "fail"]))
        self.assertRegex(shown["message"], r"^b: down: refused")
        status, shown = await self.told(self.admin(service), b"/health")
        self.assertEqual(status, 503)
        self.assertEqual(shown["message"], "b: 0 of 1 backends can take writes, and consistency one needs 1")
        self.assertEqual((await self.get(self.http(service), b"/health")).status, 200)


class PingTests(HealthCase):
    """Backends without traffic."""

    def setUp(self) -> None:
        """Ping often."""
        super().setUp()
        self.patch(pinger, "INTERVAL", 0.05)

    async def until_answered(self, where: Any, path: bytes, status: int) -> dict[str, Any]:
        """Ask until the answer is of this status, and return its JSON."""
        shown: dict[str, Any] = {}

        async def ask() -> bool:
            nonlocal shown
            found, shown = await self.told(where, path)
            return found == status

        deadline = reactor.seconds() + 40
        while not await ask():
            self.assertLess(reactor.seconds(), deadline, shown)
        return shown

    async def test_down_and_up_again(self) -> None:
        """Without any write it is known that a backend is gone, and that it is back."""
        backend = self.backend()
        service = self.operate(self.listener(self.backend(), backend))
        relay = self.http(service)
        await self.until_answered(relay, b"/health/backends/two", 200)
        await backend.stop()
        shown = await self.until_answered(relay, b"/health/backends/two", 503)
        self.assertRegex(shown["message"], r"^down: refused: no answer to the ping: ")
        row = await self.row("two")
        self.assertEqual((row["state"], row["reason"].split(":")[0]), ("trouble", "refused"))
        self.assertEqual((await self.told(relay, b"/health"))[0], 200)
        backend.listen()
        await self.until_answered(relay, b"/health/backends/two", 200)
        self.assertEqual(backend.requests, [])

    async def test_after_a_failed_write(self) -> None:
        """A backend that has failed a write, and is sent no more, is known to be back; it missed nothing."""
        backend = self.backend()
        service = self.operate(self.listener(backend, journal=False))
        relay = self.http(service)
        await backend.stop()
        self.assertEqual(await self.write(service), 503)
        await self.until_answered(relay, b"/health", 503)
        backend.listen()
        await self.until_answered(relay, b"/health", 200)
        await self.until_answered(relay, b"/health/backends/one", 200)
        self.assertEqual(backend.requests, [])

    async def test_what_is_sent(self) -> None:
        """A ping is a GET of the ping URL as the output's user, with a time-out of its own."""
        backend = self.backend()
        backend.ping = hang
        output = self.output(backend, "one", token="secret", gzip=True, health_timeout=0.2, timeout=1000.0)
        relay = self.relay(output)
        await until(lambda: backend.pings)
        ping = backend.pings[0]
        self.assertEqual((ping.method, ping.path, ping.query, ping.body), (b"GET", b"/write/ping", b"", b""))
        self.assertEqual(ping.header("Authorization"), b"Token secret")
        self.assertEqual((ping.header("Content-Encoding"), ping.header("Content-Type")), (None, None))
        shown = await self.until_answered(relay, b"/health/backends/one", 503)
        while shown["message"] == "not heard of yet":
            shown = await self.until_answered(relay, b"/health/backends/one", 503)
        self.assertEqual(shown["message"], "down: timeout: no answer to the ping: no complete answer within 0.2 s")

    async def test_configured(self) -> None:
        """``health-timeout-ms`` and the ``ping`` endpoint reach the pings."""
        backend = self.backend()
        location = backend.url.removesuffix("/write")
        service = self.operate(
            f'[[http]]\nname = "main"\nbind-addr = "{LOOPBACK}:0"\nhealth-timeout-ms = 1234\n'
            f'[[http.output]]\nname = "one"\nlocation = "{location}"\n'
            f'endpoints = {{write = "/write", ping = "/deep/ping"}}\n'
        )
        await until(lambda: backend.pings)
        self.assertEqual(backend.pings[0].path, b"/deep/ping")
        self.assertEqual(self.http(service).config.outputs[0].health_timeout, 1.234)


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
        if writer is not None:
            writer.reconfigure(JournalLimits(max_age=0.001), full_sync=False)
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
            rf"^misses 1 write \({len(LINE)} B\) accepted from 20.*Z to 20.*Z \(unqueued\): copy that time from another"
            " backend, then: influxrelay queues mark-repaired two --listener main$",
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
