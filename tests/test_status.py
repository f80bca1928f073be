"""``/health``, ``/health/backends/NAME``, ``/ready`` and ``/status``, asked over HTTP."""

from __future__ import annotations

import json
from typing import Any

from influxrelay import __version__
from influxrelay.health import Health
from influxrelay.ports import AdminService
from influxrelay.service import RelayService
from tests.scripted import LINE, LOOPBACK, Answer, Hold, answer, hang, request, until
from tests.test_admin import OperatedCase

ADMIN = f'[admin]\nbind-addr = "{LOOPBACK}:0"\n'
TRAITS = ("X-Influxdb-Version", "Request-Id", "X-Request-Id", "Date")


class HealthCase(OperatedCase):
    """Asks the listeners, and the admin listener."""

    timeout = 60
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
        self.assertEqual((status, list(shown)), (200, ["name", "status", "message", "checks", "version"]))
        self.assertEqual((shown["name"], shown["status"], shown["version"]), ("influxrelay", "pass", __version__))
        self.assertEqual(
            [(each["name"], each["status"]) for each in shown["checks"]], [("one", "pass"), ("two", "pass")]
        )
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
            (self.http(service), (b"/health", b"/health/backends/one", b"/ready")),
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
        road = self.http(service).roads[1]
        await until(lambda: road.trouble is not None)
        status, shown = await self.told(self.admin(service), b"/status")
        self.assertEqual((status, shown["version"]), (200, __version__))
        self.assertGreaterEqual(shown["uptime"], 0)
        (listener,) = shown["listeners"]
        self.assertEqual((listener["name"], listener["ready"], listener["backends"][0]["writes"]), ("main", True, 1))
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
        self.assertEqual(shown["message"], f"behind: 1 write ({len(LINE)} B) is under way or waits")

    async def test_down(self) -> None:
        """A backend that is down is told at once, with the reason; its neighbour is well, and so is the relay."""
        service = self.operate(self.listener(self.backend(), await self.refusing_backend()))
        relay = self.http(service)
        self.assertEqual(await self.write(service), 204)
        await until(lambda: relay.roads[1].trouble is not None)
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
        await until(lambda: service.listeners[0].roads[0].requests)
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
