"""The relay in front of two real InfluxDB servers."""

from __future__ import annotations

import contextlib
import gzip
import time
from collections.abc import Callable
from random import Random
from socket import SOCK_DGRAM, socket
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from influxrelay.config.settings import Config, HTTPOutputConfig, UDPListenerConfig, UDPOutputConfig
from influxrelay.lineprotocol.parser import PRECISIONS
from influxrelay.service.relay_service import RelayService
from testing.influxdb_case import NOW, InfluxDBTestCase, pair
from testing.line_protocol_cases import random_line
from testing.scripted import LOOPBACK, reactor, request

PRECISION_NAMES = ("ns", "u", "ms", "s", "m", "h")
# Every type of a field, and what is hard to read in strings, names and tags.
HARD = r"""types f=1,f2=-2.5e-3,i=42i,i2=-9223372036854775808i,b=true,b2=F,s="text"
strings s="a \"quoted\" word",s2="back\\slash",s3="",s4="a,b=c d 5"
newlines s="one
two
 three 3",f=1
escaped\ name\,here,tag\ key=tag\ value,other\,tag=a\=b field\ key=1,field\=2="x"
unicode,host=zürich temperature="21 °C"
# a comment, and then an empty line

last,a=1,b=2 v=1""".encode()


class HTTPTests(InfluxDBTestCase):
    """Writes over HTTP."""

    async def test_with_timestamps(self) -> None:
        """In each precision both servers have what a server has that was written to directly."""
        relay = self.relay_to_both()
        for precision in PRECISION_NAMES:
            self.db = await self.new_database()
            body = self.timestamped(precision)
            self.assertEqual((await self.write(relay, body, precision=precision)).status, 204)
            expected = await self.reference(body, precision)
            self.assertEqual(await self.both(100), expected, precision)

    async def test_without_timestamps(self) -> None:
        """In each precision lines of every kind get one time on both servers, that of their arrival."""
        relay = self.relay_to_both()
        for precision in PRECISION_NAMES:
            self.db = await self.new_database()
            unit = PRECISIONS[precision.encode()]
            before = time.time_ns() // unit * unit
            self.assertEqual((await self.write(relay, HARD, precision=precision)).status, 204)
            points = await self.both(6)
            (found,) = self.times(points)
            self.assertTrue(before <= found <= time.time_ns(), precision)
            self.assertEqual(found % unit, 0, precision)
            self.check_hard(points)

    def check_hard(self, points: Any) -> None:
        """Check what came of the hard lines, but for their time."""
        plain = {key: {name: value for name, value in row.items() if name != "time"} for key, (row,) in points.items()}
        self.assertEqual(
            plain,
            {
                ("types", ()): {"f": 1, "f2": -0.0025, "i": 42, "i2": -(2**63), "b": True, "b2": False, "s": "text"},
                ("strings", ()): {"s": 'a "quoted" word', "s2": "back\\slash", "s3": "", "s4": "a,b=c d 5"},
                ("newlines", ()): {"s": "one\ntwo\n three 3", "f": 1},
                ("escaped name,here", (("other,tag", "a=b"), ("tag key", "tag value"))): {
                    "field key": 1,
                    "field=2": "x",
                },
                ("unicode", (("host", "zürich"),)): {"temperature": "21 °C"},
                ("last", (("a", "1"), ("b", "2"))): {"v": 1},
            },
        )

    async def test_mixed(self) -> None:
        """Lines with and without timestamps in one body keep theirs or get the same one."""
        body = b'a v=1\nb v=2 1000\nc s="x 5\n7"\nd v=1i -5\n'
        self.assertEqual((await self.write(self.relay_to_both(), body)).status, 204)
        points = await self.both(4)
        self.assertEqual([points[name, ()][0]["time"] for name in "bd"], [1000, -5])
        self.assertEqual(points["a", ()][0]["time"], points["c", ()][0]["time"])

    async def test_gzip(self) -> None:
        """Compressed writes arrive, through outputs that compress and through such that do not."""
        for compressed in (False, True):
            self.db = await self.new_database()
            relay = self.relay_to_both(gzip=compressed)
            answer = await self.write(relay, gzip.compress(HARD), b"Content-Encoding: gzip")
            self.assertEqual(answer.status, 204)
            self.check_hard(await self.both(6))

    async def test_retention_policy(self) -> None:
        """The parameter rp leads into the retention policy of that name, on both servers."""
        for server in self.servers:
            policy = f'CREATE RETENTION POLICY "two weeks" ON {self.db} DURATION INF REPLICATION 1'
            await deferToThread(server.query, policy)
        answer = await self.write(self.relay_to_both(), b"m v=1 1", rp="two weeks")
        self.assertEqual(answer.status, 204)
        for server in self.servers:
            rows: list[list[Any]] = []
            while not rows:  # the test's timeout ends this
                rows = await deferToThread(server.rows, f'SELECT v FROM {self.db}."two weeks".m', self.db)
            self.assertEqual([row[1] for row in rows], [1])
            self.assertEqual(await self.total(server), 0)

    async def test_thousands_of_lines(self) -> None:
        """Four thousand generated lines in hundreds of writes at once are the same on both servers and complete."""
        relay = self.relay_to_both()
        random = Random(7)
        lines = [random_line(random, NOW + number) for number in range(4000)]
        writes = []
        position = 0
        while position < len(lines):
            size = random.randint(1, 20)
            writes.append(b"\n".join(lines[position : position + size]))
            position += size
        answers = []
        for start in range(0, len(writes), 50):
            answers += await DeferredList(
                [Deferred.fromCoroutine(self.write(relay, body)) for body in writes[start : start + 50]],
                fireOnOneErrback=True,
                consumeErrors=True,
            )
        self.assertEqual({answer.status for _, answer in answers}, {204})
        expected = await self.reference(b"\n".join(lines), "ns")
        self.assertEqual(await self.both(4000), expected)

    async def test_overwritten_points(self) -> None:
        """Of many writes to the same point the last one wins, on both servers."""
        relay = self.relay_to_both()
        client = await self.client(relay)
        client.send(*(request(self.url(relay), b"m v=%di 1" % number) for number in range(200)))
        for _ in range(200):
            self.assertEqual((await client.answer()).status, 204)
        points: Any = {}
        while points != {("m", ()): [{"time": 1, "v": 199}]}:  # the test's timeout ends this
            points = await self.both(1)


class ErrorTests(InfluxDBTestCase):
    """What a client is told when a server refuses its write."""

    async def test_same_as_a_direct_write(self) -> None:
        """Status, body and error header of a refused write are those of a direct write."""
        relay = self.relay_to_both()
        self.assertEqual((await self.write(relay, b"typed f=1 1")).status, 204)
        await self.both(1)
        address = SimpleNamespace(port=self.a.http_port)
        direct: Any = SimpleNamespace(address=lambda: address)  # stands for a relay
        for body, parameters in (
            (b"rubbish", {}),
            (b"m v=", {}),
            (b"m v=1 notatime", {}),
            (b"m v=1 1\nbroken\nm v=2 2", {}),
            (b'm s="open', {}),
            (b"typed f=true 2", {}),
            (b"m v=9223372036854775808i 1", {}),
            (b"m v=1 99999999999999999999", {}),
            (b"m v=1 1", {"db": "nosuchdatabase"}),
        ):
            target = self.url(relay, **parameters)
            theirs = await self.ask(direct, request(target, body))
            ours = await self.ask(relay, request(target, body))
            self.assertGreaterEqual(theirs.status, 400)
            for name in ("Content-Type", "X-Influxdb-Error"):
                self.assertEqual(ours.header(name), theirs.header(name), (body, name))
            self.assertEqual((ours.status, ours.body), (theirs.status, theirs.body), body)

    async def test_valid_lines_of_a_bad_write(self) -> None:
        """Of a write with one bad line both servers have taken the good ones, as a server alone does."""
        answer = await self.write(self.relay_to_both(), b"a v=1 1\nbroken\nb v=2 2\n")
        self.assertEqual(answer.status, 400)
        await self.both(2)


class UDPTests(InfluxDBTestCase):
    """Writes over UDP."""

    async def relay_udp(
        self, *outputs: HTTPOutputConfig | UDPOutputConfig, precision: str = "ns"
    ) -> Callable[[bytes], Any]:
        """Start a relay with a UDP listener; the function that is returned sends it a datagram."""
        listener = UDPListenerConfig(
            name="udp",
            bind_addr="test",
            host=LOOPBACK,
            port=0,
            precision=precision,
            batch_interval=0.01,
            outputs=tuple(outputs),
        )
        service = RelayService(Config(path="test", shutdown_timeout=2.0, udp=(listener,)), reactor)
        service.privilegedStartService()
        service.startService()
        self.addCleanup(service.stopService)
        started: Any = service.listeners[0]
        for each in started.outputs:
            while getattr(each, "transport", True) is None:  # the test's timeout ends this
                await deferLater(reactor, 0.002)
        sender = socket(type=SOCK_DGRAM)
        self.addCleanup(sender.close)
        sender.connect((LOOPBACK, started._port.getHost().port))
        return sender.send

    async def test_to_http(self) -> None:
        """In each precision what comes by UDP arrives over HTTP on both servers, with its time or the relay's."""
        for precision in PRECISION_NAMES:
            self.db = await self.new_database()
            send_datagram = await self.relay_udp(
                *(self.output_to(server, query=f"db={self.db}") for server in self.servers), precision=precision
            )
            unit = PRECISIONS[precision.encode()]
            body = self.timestamped(precision)
            send_datagram(body)
            self.assertEqual(await self.both(100), await self.reference(body, precision), precision)
            before = time.time_ns() // unit * unit
            send_datagram(b"bare,x=1 v=1\nbare,x=2 v=2")
            points = await self.both(102)
            (found,) = self.times({key: points[key] for key in points if key[0] == "bare"})
            self.assertTrue(before <= found <= time.time_ns(), precision)

    async def test_to_udp(self) -> None:
        """In each precision what comes by UDP arrives on both servers' UDP ports, with its time or the relay's."""
        for precision in PRECISION_NAMES:
            self.a, self.b = self.servers = await deferToThread(pair, precision)
            for server in self.servers:
                with contextlib.suppress(Exception):
                    await deferToThread(server.query, "DROP DATABASE udp")
                await deferToThread(server.create_database, "udp")
            self.db = "udp"
            send_datagram = await self.relay_udp(
                *(
                    UDPOutputConfig(
                        name=f"udp-{server.udp_port}", location="x", host=LOOPBACK, port=server.udp_port or 0
                    )
                    for server in self.servers
                ),
                precision=precision,
            )
            body = self.timestamped(precision)
            send_datagram(body)
            self.assertEqual(await self.both(100), await self.reference(body, precision), precision)
            unit = PRECISIONS[precision.encode()]
            before = time.time_ns() // unit * unit
            send_datagram(b"bare,x=1 v=1\nrubbish\nbare,x=2 v=2")
            points = await self.both(102)
            (found,) = self.times({key: points[key] for key in points if key[0] == "bare"})
            self.assertTrue(before <= found <= time.time_ns(), precision)
            if precision != "ns":
                for server in self.servers:
                    await deferToThread(server.kill)


class OutageTests(InfluxDBTestCase):
    """One server fails."""

    async def test_one_dies_and_returns(self) -> None:
        """While one server is dead writes go on with 204, and when it is back on its ports it gets the new ones."""
        relay = self.relay_to_both()
        self.assertEqual((await self.write(relay, b"m v=0 1")).status, 204)
        await self.both(1)
        await deferToThread(self.b.kill)
        self.addCleanup(lambda: None if self.b.is_running else deferToThread(self.b.start))
        for number in range(20):
            self.assertEqual((await self.write(relay, b"during v=%d %d" % (number, number))).status, 204)
        self.assertEqual(await self.total(self.a), 21)
        await deferToThread(self.b.start)
        number = 0
        while await self.total(self.b) < 2:  # the first may still find the sender closed for a moment
            self.assertEqual((await self.write(relay, b"after v=%d %d" % (number, number))).status, 204)
            number += 1
        self.assertEqual((await self.write(relay, b"last v=1 1")).status, 204)
        for server in self.servers:
            while ("last", ()) not in await self.points(server):  # the test's timeout ends this
                await deferLater(reactor, 0.01)

    async def test_both_dead(self) -> None:
        """With both servers dead a write is answered 503."""
        relay = self.relay_to_both()
        for server in self.servers:
            await deferToThread(server.kill)
            self.addCleanup(deferToThread, server.start)
        self.assert_unable(await self.write(relay, b"m v=1 1"))
