"""Writes in the APIs of 1.x, 2.x and 3.x, from clients and to backends, over real sockets."""

from __future__ import annotations

import gzip
import json
import socket
from base64 import b64encode
from typing import Any

import attrs
from twisted.internet.task import deferLater

from influxrelay.config.settings import HTTPOutputConfig, JournalConfig
from testing.reloading import ReloadCase
from testing.remote_write_case import one_series, post
from testing.scripted import (
    LINE,
    LOOPBACK,
    Answer,
    Hold,
    RelayTestCase,
    ScriptedBackend,
    answer,
    reactor,
    request,
    together,
    until,
)

V2 = b"/api/v2/write?org=o&bucket="
V3 = b"/api/v3/write_lp?db="
NANOSECONDS = b"cpu v=1 1700000000000000000\n"


def _refusing(status: int, shown: dict[str, Any], *headers: tuple[bytes, bytes]) -> Any:
    return answer(status, json.dumps(shown).encode(), (b"Content-Type", b"application/json"), *headers)


class InTests(RelayTestCase):
    """What a backend of 1.x gets, and what the client is answered."""

    def shown(self, found: Answer, status: int) -> Any:
        """Return what is in an error."""
        self.assertEqual((found.status, found.header("Content-Type")), (status, b"application/json"))
        self.assertIsNone(found.header("X-Influxdb-Error"))
        return json.loads(found.body)

    async def test_v2(self) -> None:
        """A write of 2.x reaches a backend of 1.x in that one's terms: database, policy, precision and user."""
        backend = self.backend()
        relay = self.relay(self.output(backend))
        target = V2 + b"db/rp&precision=us"
        found = await self.ask(relay, request(target, LINE, b"Authorization: Token user:password"))
        self.assertEqual((found.status, found.body), (204, b""))
        (got,) = backend.requests
        self.assertEqual((got.path, got.query), (b"/write", b"db=db&rp=rp&precision=u"))
        self.assertEqual(got.header("Authorization"), b"Basic " + b64encode(b"user:password"))

    async def test_v3(self) -> None:
        """A write of 3.x reaches a backend of 1.x, and timestamps of unknown precision are in nanoseconds then."""
        backend = self.backend()
        relay = self.relay(self.output(backend))
        body = b'cpu v=1 1700000000\ncpu v=2 1700000000001\ncpu s="x" 1700000000000002\ncpu v=4 1700000000000000003'
        for sent, headers in ((body, ()), (gzip.compress(body), (b"Content-Encoding: gzip",))):
            self.assertEqual((await self.ask(relay, request(V3 + b"db&no_sync=true", sent, *headers))).status, 204)
        for got in backend.requests:
            self.assertEqual(got.query, b"db=db")
            times = [int(line.rpartition(b" ")[2]) - 1_700_000_000_000_000_000 for line in got.lines.splitlines()]
            self.assertEqual(times, [0, 1_000_000, 2_000, 3])

    async def test_stamped(self) -> None:
        """A line without a timestamp gets the time of its arrival in nanoseconds where the precision is open."""
        backend = self.backend()
        relay = self.relay(self.output(backend))
        await self.ask(relay, request(V3 + b"db", b"cpu v=1"))
        self.assertRegex(backend.requests[0].lines, rb"^cpu v=1 [0-9]{19}$")

    async def test_one_order(self) -> None:
        """The same user's writes to one place travel in one order, by whichever path they come."""
        held = Hold(answer(204))
        backend = self.backend(held)
        relay = self.relay(self.output(backend))
        client = await self.client(relay)
        user = b"Authorization: Token u:p"
        basic = b"Authorization: Basic " + b64encode(b"u:p")
        clients = [await self.client(relay) for _ in range(3)]
        client.send(request(V2 + b"db/rp", b"cpu v=1 1700000000000000001\n", user))
        await until(lambda: len(backend.requests) == 1, "the first write")
        clients[0].send(request(b"/write?db=db&rp=rp", b"cpu v=2 1700000000000000001\n", basic))
        clients[1].send(request(b"/write?db=db&rp=rp&u=u&p=p", b"cpu v=3 1700000000000000001\n"))
        clients[2].send(request(V3 + b"db/rp&precision=ns", b"cpu v=4 1700000000000000001\n", user))
        await until(lambda: relay.writes.writes == 4, "all writes")
        self.assertEqual((len(backend.requests), len(relay.senders[0].queues)), (1, 1))
        held.release()
        answers = [await each.answer() for each in (client, *clients)]
        self.assertEqual([each.status for each in answers], [204] * 4)
        values = [line[6:7] for got in backend.requests for line in got.lines.splitlines()]
        self.assertEqual(sorted(values), [b"1", b"2", b"3", b"4"])
        self.assertEqual(values[0], b"1")
        for each in (client, *clients):
            await each.leave()

    async def test_own_errors(self) -> None:
        """The relay's own errors have the form of the API that was asked."""
        relay = self.relay(self.output(self.backend()), max_body_size=100)
        for target, status, code in (
            (V2, 404, "not found"),
            (V2 + b"db&precision=m", 400, "invalid"),
            (V2 + b"db&consistency=some", 400, "invalid"),
        ):
            found = self.shown(await self.ask(relay, request(target)), status)
            self.assertEqual(found["code"], code)
        large = b"x" * 101
        found = self.shown(await self.ask(relay, request(V2 + b"db", large)), 413)
        self.assertEqual(found, {"code": "request too large", "message": "Request Entity Too Large"})
        found = self.shown(await self.ask(relay, request(V3 + b"db", large)), 413)
        self.assertEqual(found, {"error": "Request Entity Too Large", "data": None})
        found = self.shown(await self.ask(relay, request(V2 + b"db", method=b"PUT")), 405)
        self.assertEqual(found["code"], "method not allowed")
        self.assertEqual(self.shown(await self.ask(relay, request(V3)), 400)["data"], None)
        self.assertEqual((await self.ask(relay, request(V2 + b"db", b"# nothing\n"))).status, 204)

    async def test_no_backend(self) -> None:
        """A client of 2.x or 3.x is answered 503, in its form, where no backend answers."""
        relay = self.relay(self.output(await self.refusing_backend()))
        found = self.shown(await self.ask(relay, request(V2 + b"db")), 503)
        self.assertEqual(found, {"code": "unavailable", "message": "unable to write points"})
        found = self.shown(await self.ask(relay, request(V3 + b"db")), 503)
        self.assertEqual(found, {"error": "unable to write points", "data": None})

    async def test_errors_of_backends(self) -> None:
        """An answer of another generation keeps its status, and has the form of the client's API."""
        message = "partial write: unable to parse 'bad': missing fields dropped=0"
        line = {"original_line": "bad", "line_number": 1, "error_message": "no fields"}
        of_v1 = _refusing(400, {"error": message}, (b"X-Influxdb-Error", message.encode()))
        of_v2 = _refusing(422, {"code": "unprocessable entity", "message": "rejected"})
        of_v3 = _refusing(400, {"error": "partial write of line protocol occurred", "data": [line]})
        relay = self.relay(self.output(self.backend(of_v1)))
        self.assertEqual(
            self.shown(await self.ask(relay, request(V2 + b"db")), 400), {"code": "invalid", "message": message}
        )
        found = self.shown(await self.ask(relay, request(V3 + b"db")), 400)
        self.assertEqual(found["data"][0]["original_line"], "bad")
        relay = self.relay(self.output(self.backend(of_v2)))
        self.assertEqual(
            self.shown(await self.ask(relay, request(V3 + b"db")), 422), {"error": "rejected", "data": None}
        )
        found = await self.ask(relay, request())
        self.assertEqual((found.status, found.body), (422, b'{"error":"rejected"}\n'))
        self.assertEqual(found.header("X-Influxdb-Error"), b"rejected")
        relay = self.relay(self.output(self.backend(of_v3)))
        self.assertEqual(self.shown(await self.ask(relay, request(V3 + b"db")), 400)["data"], [line])
        self.assertIn("no fields", self.shown(await self.ask(relay, request(V2 + b"db")), 400)["message"])
        self.assertIn(b"no fields", (await self.ask(relay, request())).body)

    async def test_consistency(self) -> None:
        """What a client of 2.x or 3.x asks for in consistency holds."""
        relay = self.relay(self.output(self.backend(), "a"), self.output(await self.refusing_backend(), "b"))
        statuses = await together(
            self.ask(relay, request(V2 + b"db&consistency=all")), self.ask(relay, request(V3 + b"db&consistency=one"))
        )
        self.assertEqual([each.status for each in statuses], [503, 204])

    async def test_counted(self) -> None:
        """Writes of every API count, and so do the answers to them."""
        relay = self.relay(self.output(self.backend()))
        for target in (b"/write?db=db", V2 + b"db", V3 + b"db&precision=ns"):
            await self.ask(relay, request(target, NANOSECONDS))
        self.assertEqual((relay.writes.writes, relay.writes.lines), (3, 3))
        self.assertEqual(relay.site.answers, {204: 3})
        for _ in range(2):
            await self.ask(relay, post(one_series()))
        by_api = {"v1": 1, "v2": 1, "v3": 1, "prometheus-1": 2, "prometheus-2": 0}
        self.assertEqual(relay.counters()["writes"], by_api)
        service: Any = relay.parent
        samples = [each for family in await service.collect() for each in family.samples]
        shown = {each.labels["api"]: each.value for each in samples if each.name == "influxrelay_api_writes_total"}
        self.assertEqual(shown, by_api)

    async def test_ping(self) -> None:
        """A client of 2.x finds its ping."""
        relay = self.relay(self.output(self.backend()))
        self.assertEqual((await self.ask(relay, request(b"/api/v2/ping", b"", method=b"GET"))).status, 204)


class OutTests(RelayTestCase):
    """What a backend of 2.x or 3.x gets."""

    def to(self, backend: ScriptedBackend, api: str, **settings: Any) -> HTTPOutputConfig:
        """Return the output that leads to a backend."""
        base = backend.url.removesuffix("/write")
        url = base + {"v1": "/write", "v2": "/api/v2/write", "v3": "/api/v3/write_lp"}[api]
        settings.setdefault("org", "org" if api == "v2" else None)
        return HTTPOutputConfig(name=api, location=base, write_url=url, ping_url=f"{base}/ping", api=api, **settings)

    async def test_generations(self) -> None:
        """Backends of three generations behind one listener get one write, each in its own API."""
        one, two, three = self.backend(), self.backend(), self.backend()
        outputs = (self.to(one, "v1"), self.to(two, "v2", token="t"), self.to(three, "v3", token="t"))
        relay = self.relay(*outputs, consistency="all")
        for target, precision in (
            (b"/write?db=db&rp=rp&precision=ms", b"ms"),
            (V2 + b"db/rp&precision=us", b"us"),
            (V3 + b"db/rp&precision=second", b"s"),
        ):
            self.assertEqual((await self.ask(relay, request(target))).status, 204)
            self.assertTrue(one.requests[-1].query.startswith(b"db=db&rp=rp&precision="))
            self.assertEqual(two.requests[-1].path, b"/api/v2/write")
            self.assertEqual(two.requests[-1].query, b"org=org&bucket=db%2Frp&precision=" + precision)
            self.assertEqual(two.requests[-1].header("Authorization"), b"Token t")
            self.assertEqual(three.requests[-1].path, b"/api/v3/write_lp")
            expected = {b"ms": b"millisecond", b"us": b"microsecond", b"s": b"second"}[precision]
            self.assertEqual(three.requests[-1].query, b"db=db%2Frp&precision=" + expected)
            self.assertEqual(three.requests[-1].header("Authorization"), b"Bearer t")
            self.assertEqual({each.requests[-1].body for each in (one, two, three)}, {LINE})

    async def test_buckets(self) -> None:
        """A place in the table has the name that is given there, and another its own."""
        buckets = (("db/week", "short"), ("db", "long"))
        two, three = self.backend(), self.backend()
        relay = self.relay(
            self.to(two, "v2", buckets=buckets), self.to(three, "v3", buckets=buckets), consistency="all"
        )
        for place, name in ((b"db&rp=week", b"short"), (b"db", b"long"), (b"db&rp=x", b"db%2Fx"), (b"a%26b", b"a%26b")):
            await self.ask(relay, request(b"/write?db=" + place))
            self.assertEqual(two.requests[-1].query, b"org=org&bucket=" + name + b"&precision=ns")
            self.assertEqual(three.requests[-1].query, b"db=" + name + b"&precision=nanosecond")

    async def test_coarse_precisions(self) -> None:
        """Minutes and hours, which later APIs do not have, become seconds there; 1.x gets the client's bytes."""
        one, two, three = self.backend(), self.backend(), self.backend()
        relay = self.relay(self.to(one, "v1"), self.to(two, "v2"), self.to(three, "v3"), consistency="all")
        body = b'cpu v=1 472222\ncpu s="a 1\n b" 472223'
        for precision, factor in ((b"m", 60), (b"h", 3600)):
            times = (472222 * factor, 472223 * factor)
            for sent, headers in ((body, ()), (gzip.compress(body), (b"Content-Encoding: gzip",))):
                target = b"/write?db=db&precision=" + precision
                self.assertEqual((await self.ask(relay, request(target, sent, *headers))).status, 204)
                self.assertEqual(one.requests[-1].body[: len(sent)], sent)
                for later in (two, three):
                    got = later.requests[-1]
                    self.assertTrue(got.query.endswith((b"precision=s", b"precision=second")))
                    self.assertEqual(got.lines.strip(), b'cpu v=1 %d\ncpu s="a 1\n b" %d' % times)
                    self.assertEqual(got.header("Content-Encoding"), b"gzip" if headers else None)

    async def test_user(self) -> None:
        """A client's user goes on in a way that the backend understands, if the output has no token."""
        one, two, three = self.backend(), self.backend(), self.backend()
        relay = self.relay(self.to(one, "v1"), self.to(two, "v2"), self.to(three, "v3"), consistency="all")
        basic = b"Basic " + b64encode(b"u:p")
        for target, *headers in (
            (b"/write?db=db", b"Authorization: " + basic),
            (b"/write?db=db&u=u&p=p",),
            (V2 + b"db", b"Authorization: Token u:p"),
        ):
            await self.ask(relay, request(target, LINE, *headers))
            self.assertEqual(two.requests[-1].header("Authorization"), b"Token u:p")
            self.assertEqual(three.requests[-1].header("Authorization"), basic)
            self.assertNotIn(b"p=p", two.requests[-1].query + three.requests[-1].query)
        await self.ask(relay, request(V3 + b"db", LINE, b"Authorization: Bearer abc"))
        self.assertEqual({each.requests[-1].header("Authorization") for each in (one, two, three)}, {b"Bearer abc"})

    async def test_accept_partial(self) -> None:
        """All or nothing goes on to a backend of 3.x, and no promise without the disk ever does."""
        three = self.backend()
        relay = self.relay(self.to(three, "v3"))
        await self.ask(relay, request(V3 + b"db&precision=s&accept_partial=false&no_sync=true"))
        self.assertEqual(three.requests[-1].query, b"db=db&precision=second&accept_partial=false")

    async def test_all_or_nothing_apart(self) -> None:
        """Writes of which no part may be stored alone never travel together with others, nor wait for them."""
        hold = Hold(answer(204))
        three = self.backend(hold, answer(204))
        relay = self.relay(self.to(three, "v3"))
        clients = [await self.client(relay) for _ in range(4)]
        for client, more in zip(clients, (b"", b"&accept_partial=true", b"", b"&accept_partial=false"), strict=True):
            client.send(request(V3 + b"db&precision=ns" + more))
            await until(lambda: three.requests, "the first write, which is held")
        self.assertEqual((await clients[-1].answer()).status, 204)
        await until(lambda: relay.writes.writes == 4, "all writes")
        self.assertEqual(len(three.requests), 2)
        hold.release()
        for client in clients[:-1]:
            self.assertEqual((await client.answer()).status, 204)
        self.assertEqual(b"".join(each.lines for each in three.requests), LINE * 4)
        alone = [each.lines for each in three.requests if b"accept_partial=false" in each.query]
        self.assertEqual(alone, [LINE])
        for client in clients:
            await client.leave()

    async def test_partial_writes(self) -> None:
        """A partial write is a refusal, which is shown and not repeated, whatever its status."""
        for api, status in (("v1", 400), ("v2", 422), ("v3", 400)):
            backend = self.backend(_refusing(status, {"code": "invalid", "message": "partial write", "error": "x"}))
            relay = self.relay(self.to(backend, api, buffer_size_mb=1))
            self.assertEqual((await self.ask(relay, request())).status, status)
            self.assertEqual(len(backend.requests), 1)

    async def test_missing_bucket(self) -> None:
        """A queue waits for a bucket that is not there yet."""
        missing = _refusing(404, {"code": "not found", "message": 'bucket "db" not found'})
        first = Hold(missing)  # until another one has acknowledged the write
        good, late = self.backend(), self.backend(first, missing, answer(204))
        relay = self.relay(self.to(good, "v1"), self.to(late, "v2", buffer_size_mb=1, max_delay_interval=0.05))
        self.assertEqual((await self.ask(relay, request())).status, 204)
        first.release()
        await until(lambda: len(late.requests) == 3, "the write that is taken")
        self.assertEqual({each.body for each in late.requests}, {LINE})

    async def test_missing_organization(self) -> None:
        """An organization that the server lacks holds the queue and raises the alarm; no write is lost or buried."""
        missing = _refusing(404, {"code": "not found", "message": 'organization name "org" not found'})
        first = Hold(missing)  # until another one has acknowledged the writes
        good, wrong = self.backend(), self.backend(first, missing)
        queue = {"buffer_size_mb": 1, "max_delay_interval": 0.05}
        relay = self.relay(self.to(good, "v1"), self.to(wrong, "v2", **queue))
        for _ in range(2):
            self.assertEqual((await self.ask(relay, request())).status, 204)
        first.release()
        await until(lambda: len(wrong.requests) >= 3, "repeated tries")
        sender = relay.senders[1]
        self.assertIn("organization name", sender.why_unavailable())
        wrong.script.append(answer(204))
        wrong.script.popleft()
        await until(lambda: not sender.why_unavailable(), "the end of the trouble")
        await until(lambda: not sender.queues.outstanding()[0], "the end of the queue")
        self.assertEqual(sender.backlog.losses(), [])

    async def test_missing_organization_alone(self) -> None:
        """To a client it is the backend's trouble, not the write's."""
        missing = _refusing(404, {"code": "not found", "message": 'organization name "org" not found'})
        relay = self.relay(self.to(self.backend(missing), "v2"))
        self.assert_unable(await self.ask(relay, request()))

    async def test_dead_letter(self) -> None:
        """What 3.x says of the lines that it has refused is kept with the dead letter."""
        line = {"original_line": "cpu v=1", "line_number": 1, "error_message": "invalid column type"}
        shown = {"error": "partial write of line protocol occurred", "data": [line]}
        refusal = Hold(_refusing(400, shown))
        good, three = self.backend(), self.backend(refusal)
        journal = JournalConfig(self.mktemp())
        relay = self.relay(self.to(good, "v1"), self.to(three, "v3"), journal=journal)
        self.assertEqual((await self.ask(relay, request())).status, 204)
        refusal.release()
        assert relay.writer is not None
        while not (letters := await relay.writer.dead_letters(0, 10)):
            await deferLater(reactor, 0.01)
        self.assertIn(json.dumps(shown), attrs.astuple(letters[0], recurse=False))


class UDPTests(ReloadCase):
    """Lines of a UDP listener."""

    async def test_v2(self) -> None:
        """A datagram reaches a backend of 2.x, with a precision that it has."""
        backend = self.backend()
        base = backend.url.removesuffix("/write")
        self.start(
            f'[[udp]]\nname = "main"\nbind-addr = "{LOOPBACK}:0"\nprecision = "m"\nbatch-timeout = "1ms"\n'
            f'[[udp.output]]\nname = "one"\nlocation = "{base}/api/v2/write?db=d&rp=week"\napi = "v2"\norg = "o"\n'
        )
        port: Any = self.listener._port
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            sender.sendto(b"cpu v=1 28333333", (LOOPBACK, port.getHost().port))
        await until(lambda: backend.requests, "the write")
        (got,) = backend.requests
        self.assertEqual((got.path, got.query), (b"/api/v2/write", b"org=o&bucket=d%2Fweek&precision=s"))
        self.assertEqual(got.body.strip(), b"cpu v=1 1699999980")
