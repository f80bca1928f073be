"""How far a listener reads ahead of its backends."""

from __future__ import annotations

from influxrelay.http.overload import Activity
from influxrelay.http.read_ahead import ENOUGH, LARGE, PATIENCE
from influxrelay.http.site import RelaySite
from testing.connection_case import FINE, ConnectionTestCase
from testing.scripted import request
from testing.transports import MemoryTransport

_SIZE = 2 * LARGE


class ReadAheadTests(ConnectionTestCase):
    """When connections wait that have brought a large body."""

    def setUp(self) -> None:
        """Let a test say how much the backends have before them."""
        super().setUp()
        self.load = 0
        root = self.site._root
        self.site = RelaySite("test", root, self.clock, max_body_size=100_000, load=lambda: self.load)
        self.client = self.connect()

    def write(self, *clients: MemoryTransport, size: int = _SIZE) -> list[bool]:
        """Have clients write, and be answered; tell which of them are read from then."""
        for client in clients:
            client.receive(request(b"/page", b"#" * size))
            self.page.requests[-1].respond(FINE)
            self.assertIn(b"200 OK", client.take())
        return [client.reading for client in clients]

    def test_little_to_do(self) -> None:
        """Nobody waits while a backend has little before it, and never behind a small body."""
        self.load = ENOUGH - 1
        self.assertEqual(self.write(self.client), [True])
        self.load = ENOUGH
        self.assertEqual(self.write(self.client, size=LARGE), [True])

    def test_enough_to_do(self) -> None:
        """A client with large bodies is read again when there is room for another one like the last."""
        self.load = ENOUGH
        self.assertEqual(self.write(self.client), [False])
        self.assertIs(self.connection.activity(), Activity.IDLE)
        self.clock.advance(PATIENCE / 2)
        self.assertFalse(self.client.reading)
        self.load = ENOUGH - 1
        self.clock.advance(PATIENCE / 4)
        self.assertTrue(self.client.reading)
        self.assertEqual(self.write(self.client), [True])

    def test_in_order(self) -> None:
        """They go on in the order in which they began to wait, as many as there is room for."""
        clients = [self.client, self.connect(), self.connect(), self.connect()]
        self.load = ENOUGH
        self.assertEqual(self.write(*clients), [False] * 4)
        self.load = ENOUGH - _SIZE - 1
        self.clock.advance(0.01)
        self.assertEqual([client.reading for client in clients], [True, True, False, False])

    def test_patience(self) -> None:
        """None waits for longer than a moment, whatever the backends do."""
        self.load = 10 * ENOUGH
        self.assertEqual(self.write(self.client), [False])
        self.clock.pump([PATIENCE / 10] * 11)
        self.assertTrue(self.client.reading)

    def test_lost(self) -> None:
        """One that breaks while it waits is left alone, and others go on."""
        other = self.connect()
        self.load = ENOUGH
        self.write(self.client, other)
        self.client.lose()
        self.load = 0
        self.clock.advance(0.01)
        self.assertTrue(other.reading)
        self.assertFalse(self.client.reading)
