"""The engine while servers die, freeze and are cut off."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread

from influxrelay.core.errors import JournalError
from influxrelay.journal.shared.interface import Conflict, Message
from testing.nats import NatsServer
from testing.nats_case import NatsCase
from testing.scripted import until

reactor: Any = _reactor


class FaultTests(NatsCase):
    """Nothing that was acknowledged is missing, and nothing comes twice."""

    timeout = 600

    async def setUp(self) -> None:  # type: ignore[override] # Twisted takes it
        """Let a second relay see all that is stored."""
        await super().setUp()
        self.seen: list[Message] = []
        self.two.log.follow(0, self.seen.append)
        self.number = 0
        self.addCleanup(lambda: Deferred.fromCoroutine(self.cleaned()))

    async def cleaned(self) -> None:
        """Have all servers again."""
        for server in self.servers.servers:
            if server.is_running:
                server.resume()
            self.servers.rejoin(server)
        await deferToThread(self.servers.start)

    def publish(self) -> Deferred[int]:
        """Publish the next message."""
        self.number += 1
        stored: Deferred[int] = self.one.log.publish(
            f"{self.stream}.log", b"%d" % self.number, msg_id=f"m{self.number}"
        )
        return stored

    async def leader(self) -> NatsServer:
        """Return the server that leads the log."""
        while (found := await deferToThread(self.servers.leader, self.stream)) is None:
            await deferLater(reactor, 0.1)
        return found

    async def check(self, acknowledged: list[tuple[int, int]]) -> None:
        """Check that the other relay has seen all, once and in order.

        :param acknowledged: the number of each message that was, with its sequence.
        """
        last = max(seq for _, seq in acknowledged)
        await until(lambda: self.seen and self.seen[-1].seq >= last, f"all until {last}")
        self.assertEqual([each.seq for each in self.seen], list(range(1, self.seen[-1].seq + 1)))
        payloads = [int(each.payload) for each in self.seen]
        self.assertEqual(len(payloads), len(set(payloads)))
        for number, seq in acknowledged:
            self.assertEqual(payloads[seq - 1], number)

    async def publish_through(self, fault: Any) -> None:
        """Publish while something happens, until it is over and a message is acknowledged that was published then."""
        acknowledged: list[tuple[int, int]] = []

        def publish() -> Deferred[None]:
            stored, number = self.publish(), self.number
            return stored.addCallback(lambda seq: acknowledged.append((number, seq)))

        for _ in range(20):
            await publish()
        over = deferToThread(fault)
        waiting: list[Deferred[None]] = []
        while not over.called or len(waiting) < 50:
            waiting.append(publish())
            await deferLater(reactor, 0.02)
        results = await DeferredList(waiting, consumeErrors=True)
        self.assertEqual([result for good, result in results if not good], [])
        await self.check(acknowledged)

    async def test_leader_killed(self) -> None:
        """The log's leader is killed; another one is elected, and all goes on."""
        leader = await self.leader()
        await self.publish_through(leader.kill)

    async def test_server_frozen(self) -> None:
        """The server at which a relay is stops without a word; the relay goes to another one."""
        name = self.one._connection.info["server_name"]
        (server,) = (each for each in self.servers.servers if each.name == name)
        await self.publish_through(server.pause)
        self.assertNotEqual(self.one._connection.info["server_name"], name)

    async def test_connections_break(self) -> None:
        """Connections break again and again, with acknowledgements on their way: each message is stored once."""
        self.one = await self.connected(self.servers.proxied, timeout=30.0)
        stored = []
        revision = await self.one.bucket.create("backend.x", b"0")
        for number in range(100):
            stored.append(self.publish())
            if number % 10 == 9:
                changed = self.one.bucket.update("backend.x", b"%d" % number, revision)
                for proxy in self.servers.proxies:
                    proxy.reset()
                revision = await changed
        sequences = [await each for each in stored]
        self.assertEqual(sorted(sequences), list(range(1, 101)))
        self.assertEqual((await self.one.log.state()).messages, 100)
        await self.check([(number, seq) for number, seq in enumerate(sequences, 1)])
        with self.assertRaises(Conflict):
            await self.one.bucket.update("backend.x", b"x", revision - 1)

    async def test_no_quorum(self) -> None:
        """Without a quorum all fails in time, and works again as soon as there is one."""
        one = await self.connected(self.servers.addresses, timeout=3.0)
        await self.publish()
        _, *others = self.servers.servers
        for server in others:
            server.kill()
        for _ in range(2):
            with self.assertRaises(JournalError):
                await one.log.publish(f"{self.stream}.log", b"0", msg_id="lost")
            self.assertNotEqual(one.trouble, "")
        with self.assertRaises(JournalError):
            await one.bucket.create("backend.x", b"1")
        await deferToThread(self.servers.start)
        while one.trouble:
            try:
                await one.log.state()
            except JournalError:
                continue
        seq = await self.publish()
        await until(lambda: self.seen and self.seen[-1].seq == seq)
        self.assertIn(len(self.seen), (2, 3))  # what failed may have been stored all the same

    def seek_lease(self) -> None:
        """Let the second relay store something each second, as one that seeks a lease does.

        One that only follows does not notice that its server is cut off: a leader without followers sends its
        heartbeats for ever, and answers what it is asked about the stream.
        """
        numbers = itertools.count()

        async def store() -> None:
            with contextlib.suppress(JournalError):
                await self.two.bucket.create(f"backend.{next(numbers)}", b"1")

        calls = LoopingCall(lambda: Deferred.fromCoroutine(store()))
        calls.start(1.0)
        self.addCleanup(calls.stop)

    async def test_cut_off(self) -> None:
        """Relays are at a server that the others do not reach: they go to another one, and nothing is lost."""
        self.seek_lease()
        self.one = await self.connected(self.servers.proxied, timeout=30.0)
        port = self.one._connection.server.rpartition(":")[2]
        (server,) = (
            server
            for server, proxy in zip(self.servers.servers, self.servers.proxies, strict=True)
            if str(proxy.port) == port
        )
        self.servers.separate(server)
        await self.publish_through(lambda: None)
        self.assertNotEqual(self.one._connection.server.rpartition(":")[2], port)
        await self.cleaned()
        self.seen.clear()
        self.two.log.follow(0, self.seen.append)
        await until(lambda: len(self.seen) == self.number)

    async def test_wiped_node(self) -> None:
        """A server that has lost its disk gets all from the others, and then one of those may go."""
        for _ in range(50):
            await self.publish()
        first, second, _ = self.servers.servers
        first.kill()
        first.wipe()
        await deferToThread(self.servers.start)
        second.kill()
        await self.publish()
        found = await self.one.log.get(range(1, 52))
        self.assertEqual([int(each.payload) for each in found], list(range(1, 52)))
