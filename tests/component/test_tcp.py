"""Lines that come over TCP, between a scripted client and scripted backends."""

from __future__ import annotations

import tempfile
from shutil import rmtree
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import deferLater

from influxrelay.config.settings import Config, HTTPOutputConfig, JournalConfig, TCPListenerConfig
from influxrelay.listeners.tcp import TCPService
from influxrelay.service.relay_service import RelayService
from testing.certificates import Authority
from testing.logs import watch_events
from testing.scripted import LOOPBACK, Client, RelayTestCase, ScriptedBackend, answer, reactor, until
from testing.servers import free_port

ENDPOINT = f"tcp:0:interface={LOOPBACK}"


def line(number: int) -> bytes:
    """Return a line that no other number has."""
    return b"m,host=a value=%di %d\n" % (number, 1_600_000_000_000_000_000 + number)


class TCPTests(RelayTestCase):
    """A relay with one TCP listener."""

    def tcp(self, *backends: ScriptedBackend, endpoint: str = ENDPOINT, **settings: Any) -> TCPService:
        """Start a relay."""
        of_outputs = settings.pop("of_outputs", {})
        outputs = tuple(
            self.output(each, f"backend-{number}", query="db=db", **of_outputs) for number, each in enumerate(backends)
        )
        settings.setdefault("batch_interval", 0.01)
        listener = TCPListenerConfig(name="tcp", bind_addr="test", endpoint=endpoint, outputs=outputs, **settings)
        service = RelayService(Config(path="test", shutdown_timeout=2.0, tcp=(listener,)), reactor)
        self.patch(service.prober, "start", lambda: None)
        service.privilegedStartService()
        service.startService()
        self.addCleanup(lambda: Deferred.fromCoroutine(self._end(service)))
        (started,) = service.listeners
        assert isinstance(started, TCPService)
        return started

    async def connect(self, relay: TCPService, **options: Any) -> Client:
        """Connect to it."""
        found: Any = relay
        return await self.client(found, **options)

    def received(self, backend: ScriptedBackend) -> bytes:
        """Return the lines that a backend has got."""
        return b"".join(each.lines for each in backend.requests)

    async def test_lines(self) -> None:
        """Each backend gets all lines in order, however they are cut into pieces, with the output's query."""
        first, second = self.backend(), self.backend()
        relay = self.tcp(first, second)
        client = await self.connect(relay)
        sent = b"".join(map(line, range(300)))
        await client.send_in_pieces(sent, 1001)
        for backend in (first, second):
            await until(lambda: self.received(backend) == sent)
            self.assertEqual({each.query for each in backend.requests}, {b"db=db&precision=ns"})
        await until(lambda: relay.batcher.lines_out == 300, "the answers to all lines")
        self.assertEqual(relay.server.lines_in, 300)

    async def test_stamped(self) -> None:
        """A line without a timestamp gets the relay's time, the same for all backends; blanks and comments are none."""
        first, second = self.backend(), self.backend()
        relay = self.tcp(first, second, precision="s")
        client = await self.connect(relay)
        client.send(b"m value=1\n\n# comment\nm value=2 1500000000\n")
        await until(lambda: relay.batcher.lines_out == 2 and second.requests)
        self.assertRegex(self.received(first), rb"\Am value=1 1[0-9]{9}\nm value=2 1500000000\n\Z")
        self.assertEqual(self.received(first), self.received(second))

    async def test_rubbish(self) -> None:
        """What is no line protocol, and a line over 64 KiB, is dropped and counted; the others go on."""
        backend = self.backend()
        relay = self.tcp(backend)
        client = await self.connect(relay)
        long = b"m,t=" + b"x" * 70_000 + b" v=1 1\n"
        client.send(line(1), b"rubbish\n", b'm s="open\n', long, line(2))
        await until(lambda: relay.batcher.lines_out == 2)
        await client.send_in_pieces(long + line(3), 10_000)
        await until(lambda: relay.batcher.lines_out == 3)
        self.assertEqual(self.received(backend), line(1) + line(2) + line(3))
        self.assertEqual(dict(relay.server.dropped), {"invalid": 2, "too long": 2})

    async def test_last_line(self) -> None:
        """A last line without a newline counts when the client closes, and is dropped when the connection breaks."""
        backend = self.backend()
        relay = self.tcp(backend)
        closing, breaking, halving = [await self.connect(relay) for _ in range(3)]
        closing.send(line(1), line(2)[:-1])
        closing.transport.loseConnection()
        await until(lambda: relay.batcher.lines_out == 2)
        breaking.send(line(3), line(4)[:-1])
        await until(lambda: relay.batcher.lines_out == 3)
        breaking.vanish()
        await until(lambda: relay.server.dropped["incomplete"] == 1)
        halving.send(line(5)[:-1])
        halving.transport.loseWriteConnection()
        await until(lambda: relay.batcher.lines_out == 4)
        self.assertEqual(self.received(backend), line(1) + line(2) + line(3) + line(5))
        await until(lambda: not relay.server.connections)

    async def test_back_pressure(self) -> None:
        """While no backend takes lines the relay stops reading; then all come, in order and once."""
        backend = self.backend()
        relay = self.tcp(backend, batch_lines=10)
        await backend.stop()
        client = await self.connect(relay)
        client.send(b"".join(map(line, range(30))))
        await until(lambda: relay.server.is_paused)
        before = relay.server.lines_in
        client.send(b"".join(map(line, range(30, 60))))
        late = await self.connect(relay)
        late.send(line(99))
        await deferLater(reactor, 0.3)
        self.assertEqual(relay.server.lines_in, before)
        self.assertEqual(relay.counters()["reading"], False)
        backend.listen()
        await until(lambda: relay.batcher.lines_out == 61)
        sent = self.received(backend).splitlines(keepends=True)
        self.assertEqual([each for each in sent if each != line(99)], list(map(line, range(60))))
        self.assertFalse(relay.server.is_paused)

    async def test_refused(self) -> None:
        """What a backend refuses is dropped and counted; a database that is not there yet is waited for."""
        missing = answer(404, b'{"error":"database not found: \\"db\\""}\n')
        backend = self.backend(missing, answer(204), answer(400, b'{"error":"unable to parse"}\n'), answer(204))
        relay = self.tcp(backend)
        client = await self.connect(relay)
        for number in range(3):
            client.send(line(number))
            await until(lambda: sum(relay.batcher.dropped.values()) + relay.batcher.lines_out > number)
        self.assertEqual([each.lines for each in backend.requests], [line(0), line(0), line(1), line(2)])
        self.assertEqual((relay.batcher.lines_out, dict(relay.batcher.dropped)), (2, {"400": 1}))

    async def test_buffer(self) -> None:
        """With a buffer lines are taken although no backend is up, and come when it is."""
        backend = self.backend()
        relay = self.tcp(backend, of_outputs={"buffer_size_mb": 1, "max_delay_interval": 0.1})
        await backend.stop()
        client = await self.connect(relay)
        client.send(line(1), line(2))
        await until(lambda: relay.batcher.lines_out == 2)
        backend.listen()
        await until(lambda: self.received(backend) == line(1) + line(2))

    async def test_journal(self) -> None:
        """With a journal lines outlive the relay."""
        directory = tempfile.mkdtemp()
        self.addCleanup(rmtree, directory, ignore_errors=True)
        backend = self.backend()
        settings: Any = {"journal": JournalConfig(directory), "of_outputs": {"max_delay_interval": 0.1}}
        relay = self.tcp(backend, **settings)
        await backend.stop()
        client = await self.connect(relay)
        client.send(line(1), line(2))
        await until(lambda: relay.batcher.lines_out == 2)
        parent: Any = relay.parent
        await parent.stopService()
        backend.listen()
        self.tcp(backend, **settings)
        await until(lambda: self.received(backend) == line(1) + line(2))

    async def test_unix(self) -> None:
        """Lines may come through a unix stream socket."""
        directory = tempfile.mkdtemp()
        self.addCleanup(rmtree, directory, ignore_errors=True)
        backend = self.backend()
        relay = self.tcp(backend, endpoint=f"unix:{directory}/lines.sock")
        client = await self.connect(relay)
        client.send(line(1))
        await until(lambda: self.received(backend) == line(1))

    async def test_tls(self) -> None:
        """Lines may come through TLS; a last line without a newline counts after a proper end."""
        pem = Authority(self.mktemp()).issue()
        backend = self.backend()
        relay = self.tcp(backend, endpoint=f"ssl:0:interface={LOOPBACK}:privateKey={pem}:certKey={pem}")
        client = await self.connect(relay, tls=CertificateOptions())
        client.send(line(1), line(2)[:-1])
        await until(lambda: relay.batcher.lines_out == 1)
        client.transport.loseConnection()
        await until(lambda: self.received(backend) == line(1) + line(2))

    async def test_too_many_connections(self) -> None:
        """A connection too many is closed at once, logged and counted; when another has ended there is room again."""
        events = watch_events(self)
        pem = Authority(self.mktemp()).issue()
        for options, endpoint in (
            ({}, ENDPOINT),
            ({"tls": CertificateOptions()}, f"ssl:0:interface={LOOPBACK}:privateKey={pem}:certKey={pem}"),
        ):
            backend = self.backend()
            relay = self.tcp(backend, endpoint=endpoint, max_connections=2)
            clients = []
            for count in (1, 2):
                clients.append(await self.connect(relay, **options))
                await until(lambda count=count: len(relay.server.connections) == count)  # type: ignore[misc]
            for count in (1, 2, 3):
                refused = await self.connect(relay, **options)
                refused.send(line(9))
                await refused.end()
                self.assertEqual(relay.server.refused, count)
            told = [each for each in events if "max-connections" in str(each.get("log_format"))]
            self.assertEqual([(each["connections"], each["limit"]) for each in told], [("1 connection", 2)])
            events.clear()
            clients[0].transport.loseConnection()
            await until(lambda: len(relay.server.connections) == 1)
            late = await self.connect(relay, **options)
            late.send(line(1))
            await until(lambda: self.received(backend) == line(1))
            self.assertEqual(relay.server.dropped.total(), 0)

    async def test_keep_alive(self) -> None:
        """The system probes idle connections, so that those end whose peers have vanished."""
        relay = self.tcp(self.backend())
        await self.connect(relay)
        await until(lambda: relay.server.connections)
        (connection,) = relay.server.connections
        self.assertTrue(connection.transport.getTcpKeepAlive())

    async def test_stop(self) -> None:
        """What has come is written before the relay ends."""
        backend = self.backend()
        relay = self.tcp(backend, batch_interval=60.0)
        client = await self.connect(relay)
        client.send(line(1), line(2)[:5])
        await until(lambda: relay.server.lines_in == 1)
        parent: Any = relay.parent
        await parent.stopService()
        self.assertEqual(self.received(backend), line(1))
        await client.end()

    async def change(self, relay: TCPService, **settings: Any) -> None:
        """Let another configuration hold."""
        parent: Any = relay.parent
        config = Config(path="test", shutdown_timeout=2.0, tcp=(attrs.evolve(relay.config, **settings),))
        await parent.change(lambda: config, check=False)

    async def test_renamed(self) -> None:
        """A listener that is renamed keeps its port and its connections."""
        backend = self.backend()
        relay = self.tcp(backend)
        client = await self.connect(relay)
        port = relay.address()
        await self.change(relay, name="lines")
        self.assertEqual((relay.name, relay.address()), ("lines", port))
        client.send(line(1))
        await until(lambda: self.received(backend) == line(1))

    async def test_other_certificate(self) -> None:
        """A listener that gets a certificate wants TLS from the next connection on, at the same port."""
        backend = self.backend()
        pem = Authority(self.mktemp()).issue()
        port = free_port()
        relay = self.tcp(backend, endpoint=f"tcp:{port}:interface={LOOPBACK}")
        await self.change(relay, endpoint=f"ssl:{port}:interface={LOOPBACK}:privateKey={pem}:certKey={pem}")
        client = await self.connect(relay, tls=CertificateOptions())
        client.send(line(1))
        await until(lambda: self.received(backend) == line(1))

    async def test_reload(self) -> None:
        """A reload changes port, outputs and precision; connections stay, and no line is lost."""
        first, second = self.backend(), self.backend()
        relay = self.tcp(first)
        client = await self.connect(relay)
        client.send(line(1))
        await until(lambda: self.received(first) == line(1))
        output = HTTPOutputConfig(
            name="new", location=second.url, write_url=second.url, ping_url=second.url + "/ping", query="db=other"
        )
        await self.change(
            relay, bind_addr="other", endpoint=f"tcp:{free_port()}:interface={LOOPBACK}", outputs=(output,)
        )
        client.send(line(2))
        await until(lambda: self.received(second) == line(2))
        self.assertEqual(second.requests[0].query, b"db=other&precision=ns")
