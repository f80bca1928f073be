"""``/health``, ``/health/backends/NAME``, ``/ready`` and ``/status``, asked over HTTP."""

from __future__ import annotations

from typing import Any

from influxrelay import __version__
from influxrelay.delivery import prober as pinger
from influxrelay.operations.health import Health
from testing.health_case import ADMIN, DOWN, NOT_YET, UDP, HealthCase
from testing.scripted import LINE, LOOPBACK, Hold, answer, hang, reactor, request, until

TRAITS = ("X-Influxdb-Version", "Request-Id", "X-Request-Id", "Date")


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
        self.assertEqual((listener["problem"], listener["backends"][0]["problem"]), ("", ""))
        self.assertEqual(listener["backends"][1]["problem"][:13], "down: refused")
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
            later = Hold(NOT_YET)
            service = self.operate(
                self.listener(self.backend(), self.backend(later), journal=False, buffer=1, keys=keys)
            )
            main = service.listeners[0]
            self.assertEqual(await self.write(service, b"/write?db=db", LINE), 204)
            later.release()
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
        self.assertRegex(shown["message"], r"^down: refused: ping failed: ")
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
        self.assertEqual(shown["message"], "down: timeout: ping failed: no complete answer within 0.2 s")

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
