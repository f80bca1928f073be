"""Posts over connections in memory, on a Clock."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Reply
from influxrelay.delivery.connection_pool import IDLE_TIME, NOT_OURS, Connection, ConnectionPool
from influxrelay.delivery.exchange import Exchanges

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Transport(StringTransport):
    """A transport that tells its protocol at once when it is closed."""

    protocol: Connection

    def loseConnection(self) -> None:
        """Close."""
        super().loseConnection()
        self.protocol.connectionLost(Failure(ConnectionDone()))

    abortConnection = loseConnection


@implementer(IStreamClientEndpoint)
class Endpoint:
    """Connects at once."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803 (the interface's)
        """Make a connection."""
        connection = protocolFactory.buildProtocol(None)  # type: ignore[arg-type]
        assert isinstance(connection, Connection)
        transport = Transport()
        transport.protocol = connection
        connection.makeConnection(transport)
        self.connections.append(connection)
        return succeed(connection)


class ExchangeTests(SynchronousTestCase):
    """Time, and the use of connections."""

    def setUp(self) -> None:
        """Make two connections possible."""
        self.clock = Clock()
        self.endpoint = Endpoint()
        self.pool = ConnectionPool(self.clock, self.endpoint, 2)
        self.exchanges = Exchanges(self.clock, self.pool, 10.0)

    def post(self) -> Deferred[Reply]:
        """Post something."""
        return self.exchanges.post([b"x"])

    def answer(self, connection: int) -> None:
        """Answer on a connection."""
        self.endpoint.connections[connection].dataReceived(ANSWER)

    def assert_timeout(self, posted: Deferred[Reply], detail: str) -> None:
        """Check that a post has failed because its time was up."""
        problem = self.failureResultOf(posted, BackendFailure).value
        self.assertEqual((problem.reason, problem.detail), ("timeout", detail))

    def test_each_has_its_time(self) -> None:
        """Each post fails when its own time is up, the timeouts share one timer, and none is left behind."""
        first = self.post()
        self.clock.advance(4)
        second = self.post()
        third = self.post()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(6)
        self.assert_timeout(first, "no complete answer within 10 s")
        self.assertNoResult(second)
        self.clock.advance(4)
        self.assert_timeout(second, "no complete answer within 10 s")
        self.assert_timeout(third, "no complete answer within 10 s")
        self.assertFalse(self.exchanges.busy)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_waiting(self) -> None:
        """A post that gets no connection in its time says so, and none is made for it."""
        posts = [self.post() for _ in range(4)]
        self.clock.advance(10)
        for posted in posts[:2]:
            self.assert_timeout(posted, "no complete answer within 10 s")
        for posted in posts[2:]:
            self.assert_timeout(posted, "none of the 2 connections became free within 10 s")
        self.assertEqual(len(self.endpoint.connections), 2)

    def test_in_order(self) -> None:
        """A connection that becomes free goes to the post that has waited longest, before its answer is told."""
        order: list[int] = []
        posts = [self.post() for _ in range(4)]
        for number, posted in enumerate(posts):
            posted.addCallback(lambda _, each: order.append(each), number)
        self.answer(0)
        self.answer(0)
        self.answer(1)
        self.answer(0)
        self.assertEqual(order, [0, 2, 1, 3])
        self.assertEqual(len(self.endpoint.connections), 2)

    def test_kept(self) -> None:
        """A 204 leaves its connection open, whole or in pieces, unless it says otherwise or something follows it."""
        head = ANSWER[:-2]
        kept = (
            (ANSWER,),
            (ANSWER[:9], ANSWER[9:]),
            (head + b"Date: x\r\n\r\n",),
            (head + b"Connection: keep-alive\r\n\r\n",),
            (b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER,),
            (b"HTTP/1.1 204 No\nDate: x\n\n",),
        )
        closed = (
            (head + b"Connection: close\r\n\r\n",),
            (head + b"cOnnecTion: clOse\r\n\r\n",),
            (ANSWER + b"x",),
            (ANSWER + ANSWER,),
            (b"HTTP/1.0 204 No\r\n\r\n",),
        )
        for pieces, is_kept in [*((each, True) for each in kept), *((each, False) for each in closed)]:
            posted = self.post()
            connection = self.endpoint.connections[-1]
            for piece in pieces:
                connection.dataReceived(piece)
            self.assertEqual(self.successResultOf(posted).status, 204)
            self.assertEqual(connection.transport.disconnecting, not is_kept, pieces)

    def test_idle(self) -> None:
        """A connection that is not used for a while is closed, one that is used in between is not."""
        both = [self.post(), self.post()]
        self.answer(0)
        self.answer(1)
        for posted in both:
            self.successResultOf(posted)
        for _ in range(5):
            self.clock.advance(IDLE_TIME)
            self.post()
            self.answer(1)
        self.assertEqual([each.transport.disconnecting for each in self.endpoint.connections], [True, False])
        self.clock.advance(IDLE_TIME)
        self.clock.advance(IDLE_TIME)
        self.assertTrue(self.endpoint.connections[1].transport.disconnecting)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_gate(self) -> None:
        """Whether a request may be sent is asked directly before its bytes, also of one that waits for a connection."""
        may_send = True
        self.exchanges.gate = lambda: may_send
        posts = [self.post() for _ in range(4)]
        may_send = False
        self.answer(0)
        self.successResultOf(posts[0])
        self.assertNoResult(posts[1])
        for posted in (*posts[2:], self.post()):
            self.assertEqual(self.failureResultOf(posted, BackendFailure).value.reason, NOT_OURS)
        may_send = True
        again = self.post()
        self.answer(0)
        self.successResultOf(again)
        self.assertEqual([bytes(each.transport.value()) for each in self.endpoint.connections], [b"xx", b"x"])

    def test_retired(self) -> None:
        """After the last answer nothing is left of a pool that is no longer needed, or is closed."""
        for end in (ConnectionPool.retire, ConnectionPool.close):
            self.setUp()
            posted = [self.post(), self.post()]
            self.answer(0)
            end(self.pool)
            self.answer(1)
            for each in posted:
                self.successResultOf(each)
            self.exchanges.stop_timer()
            self.assertTrue(all(each.transport.disconnecting for each in self.endpoint.connections))
            self.assertEqual(self.clock.getDelayedCalls(), [])
