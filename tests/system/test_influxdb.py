"""The relay in front of two real InfluxDB servers."""

from __future__ import annotations

import atexit
import contextlib
import gzip
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import count
from pathlib import Path
from random import Random
from shutil import rmtree
from socket import SOCK_DGRAM, socket
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from influxdb import InfluxDBClient
from influxdb_client.client.influxdb_client import InfluxDBClient as InfluxDB2Client
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from influxrelay import __version__
from influxrelay.config.settings import Config, HTTPOutputConfig, UDPListenerConfig, UDPOutputConfig
from influxrelay.lineprotocol.parser import PRECISIONS
from influxrelay.listeners.http import HTTPService
from influxrelay.service.relay_service import RelayService
from testing.line_protocol_cases import random_line
from testing.scripted import LOOPBACK, Answer, RelayTestCase, reactor, request
from testing.servers import Influxd, send

NOW = 1_700_000_000_123_456_789  # nanoseconds
PRECISION_NAMES = ("ns", "u", "ms", "s", "m", "h")
_databases = count()

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


@cache
def pair(udp_precision: str = "ns") -> tuple[Influxd, Influxd]:
    """Return two servers that run, with UDP ports of a precision; they are started once and end with this process."""
    directory = Path(tempfile.mkdtemp(prefix="influxrelay-influxdb-"))
    servers = [
        Influxd(directory / name, udp_database="udp", udp_precision="n" if udp_precision == "ns" else udp_precision)
        for name in "ab"
    ]

    def stop() -> None:
        for server in servers:
            server.kill()
        rmtree(directory, ignore_errors=True)

    atexit.register(stop)
    with ThreadPoolExecutor() as pool:
        list(pool.map(Influxd.start, servers))
    return servers[0], servers[1]


class _Case(RelayTestCase):
    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        """Have the servers, and a database of this test's own on both."""
        self.a, self.b = self.servers = pair()
        self.db = await self.new_database()

    async def new_database(self) -> str:
        """Create a database on both servers."""
        name = f"db{next(_databases)}"
        for server in self.servers:
            await deferToThread(server.create_database, name)
        return name

    def output_to(self, server: Influxd, **settings: Any) -> HTTPOutputConfig:
        """Return the output that leads to a server."""
        url = f"{server.url}/write"
        settings.setdefault("name", f"influxd-{server.http_port}")
        return HTTPOutputConfig(location=url, write_url=url, ping_url=f"{server.url}/ping", **settings)

    def relay_to_both(self, **settings: Any) -> HTTPService:
        """Start a relay in front of both servers."""
        return self.relay(*(self.output_to(server, **settings) for server in self.servers))

    def url(self, relay: HTTPService, **parameters: str) -> bytes:
        """Return the target of a write to this test's database."""
        pairs = {"db": self.db, **parameters}.items()
        return b"/write?" + "&".join(f"{name}={quote(value)}" for name, value in pairs).encode()

    async def write(self, relay: HTTPService, body: bytes, *headers: bytes, **parameters: str) -> Answer:
        """Write through the relay."""
        return await self.ask(relay, request(self.url(relay, **parameters), body, *headers))

    async def points(self, server: Influxd, db: str = "") -> dict[tuple[str, tuple[Any, ...]], list[dict[str, Any]]]:
        """Return all points of a database: by measurement and tags the fields, with the time in nanoseconds."""
        query = quote("SELECT * FROM /.*/ GROUP BY *")
        url = f"{server.url}/query?epoch=ns&db={db or self.db}&q={query}"
        status, body = await deferToThread(send, "GET", url)
        self.assertEqual(status, 200, body)
        (result,) = json.loads(body)["results"]
        self.assertNotIn("error", result)
        return {
            (series["name"], tuple(sorted(tag for tag in series.get("tags", {}).items() if tag[1]))): [
                {key: value for key, value in zip(series["columns"], row, strict=True) if value is not None}
                for row in series["values"]
            ]
            for series in result.get("series", ())
        }

    async def total(self, server: Influxd, db: str = "") -> int:
        """Return the number of points in a database."""
        return sum(map(len, (await self.points(server, db)).values()))

    async def both(self, count_: int, db: str = "") -> Any:
        """Wait until both servers have that many points, check that they are the same, and return them."""
        deadline = reactor.seconds() + 20
        for server in self.servers:
            while (found := await self.total(server, db)) != count_:
                self.assertLess(reactor.seconds(), deadline, f"{found} points instead of {count_} on {server.url}")
                await deferLater(reactor, 0.02)
        first, second = [await self.points(server, db) for server in self.servers]
        self.assertEqual(first, second)
        return first

    async def reference(self, body: bytes, precision: str) -> Any:
        """Write straight to the first server, into another database, and return what is in it then."""
        name = await self.new_database()
        url = f"{self.a.url}/write?db={name}&precision={precision}"
        status, answer = await deferToThread(send, "POST", url, body)
        self.assertEqual(status, 204, answer)
        return await self.points(self.a, name)

    def times(self, points: Any) -> set[int]:
        """Return the times that points have."""
        return {row["time"] for rows in points.values() for row in rows}

    def timestamped(self, precision: str) -> bytes:
        """Return lines of every kind, each with a timestamp of its own in a precision."""
        random = Random(precision)
        start = NOW // PRECISIONS[precision.encode()]
        return b"\n".join(random_line(random, start + number) for number in range(100))


class HTTPTests(_Case):
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


class ErrorTests(_Case):
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


class UDPTests(_Case):
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


class OutageTests(_Case):
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


class ClientTests(_Case):
    """Clients that people use, unchanged."""

    def port(self, relay: HTTPService) -> int:
        """Return where a relay listens."""
        port: int = relay.address().port
        return port

    async def test_influxdb(self) -> None:
        """The influxdb package's client pings and writes points, plain and compressed, in its precisions."""
        relay = self.relay_to_both()
        points: list[dict[str, Any]] = [
            {
                "measurement": "cpu load",
                "tags": {"host": "a b", "region": "eu,west"},
                "time": 1_700_000_000 + number,
                "fields": {"f": 0.5, "i": number, "b": True, "s": 'say "hi" there \\ 5'},
            }
            for number in range(50)
        ]
        for compressed in (False, True):
            self.db = await self.new_database()
            client = InfluxDBClient(LOOPBACK, self.port(relay), database=self.db, gzip=compressed)
            self.addCleanup(client.close)
            self.assertEqual(await deferToThread(client.ping), f"relay-{__version__}")
            written = await deferToThread(client.write_points, points, time_precision="s", batch_size=20)
            self.assertTrue(written)
            found = await self.both(50)
            ((key, rows),) = found.items()
            self.assertEqual(key, ("cpu load", (("host", "a b"), ("region", "eu,west"))))
            self.assertEqual([row["time"] for row in rows], [point["time"] * 10**9 for point in points])
            self.assertEqual({name: rows[7][name] for name in "fibs"}, points[7]["fields"])

    async def test_influxdb_without_time(self) -> None:
        """Points without a time, and plain lines, get the same one on both servers."""
        client = InfluxDBClient(LOOPBACK, self.port(self.relay_to_both()), database=self.db)
        self.addCleanup(client.close)
        await deferToThread(client.write_points, [{"measurement": "m", "fields": {"v": 1.0}}])
        await deferToThread(client.write_points, ["n v=1", "o v=2 5"], protocol="line")
        await self.both(3)

    async def test_influxdb_retention_policy(self) -> None:
        """The client's retention policy is used."""
        for server in self.servers:
            await deferToThread(server.query, f"CREATE RETENTION POLICY weekly ON {self.db} DURATION INF REPLICATION 1")
        client = InfluxDBClient(LOOPBACK, self.port(self.relay_to_both()), database=self.db)
        self.addCleanup(client.close)
        point = {"measurement": "m", "fields": {"v": 1.0}, "time": 1}
        await deferToThread(client.write_points, [point], retention_policy="weekly")
        for server in self.servers:
            while not await deferToThread(server.rows, f"SELECT v FROM {self.db}.weekly.m", self.db):
                await deferLater(reactor, 0.01)  # the test's timeout ends this
            self.assertEqual(await self.total(server), 0)

    async def test_influxdb_error(self) -> None:
        """The client raises the error that a server gave, with its text."""
        client = InfluxDBClient(LOOPBACK, self.port(self.relay_to_both()), database="nosuchdatabase")
        self.addCleanup(client.close)
        try:
            await deferToThread(client.write_points, [{"measurement": "m", "fields": {"v": 1.0}}])
        except Exception as error:  # noqa: BLE001 (the client's class is none of our business)
            self.assertIn('database not found: \\"nosuchdatabase\\"', str(error))
        else:
            self.fail("no error")

    async def test_influxdb_client(self) -> None:
        """The influxdb-client package writes lines to /write with its own HTTP machinery and a 1.x token."""
        relay = self.relay_to_both()

        def write() -> int:
            url = f"http://{LOOPBACK}:{self.port(relay)}"
            with InfluxDB2Client(url=url, token="me:secret", org="-") as client:
                _, status, _ = client.api_client.call_api(
                    "/write",
                    "POST",
                    query_params=[("db", self.db), ("precision", "s")],
                    header_params={"Content-Type": "text/plain; charset=utf-8"},
                    body=b"a,x=1 v=1\nb v=2 1700000000",
                    _return_http_data_only=False,
                )
                return int(status)

        self.assertEqual(await deferToThread(write), 204)
        points = await self.both(2)
        self.assertEqual(points["b", ()][0]["time"], 1_700_000_000 * 10**9)
