"""Large pieces, each in its turn."""

from __future__ import annotations

import asyncio
from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.transport.turns import SHARE, Turns, turns_of


class TurnsTests(SynchronousTestCase):
    """:class:`Turns` on a loop that runs one turn at a time, with pieces that take two thirds of a turn's share."""

    def setUp(self) -> None:
        """Make a loop, and a clock that moves with each piece."""
        self.loop = asyncio.new_event_loop()
        self.addCleanup(self.loop.close)
        self.now = 0.0
        self.turns = Turns(self.loop, lambda: self.now)
        self.seen: list[bytes] = []

    def take(self, data: bytes) -> None:
        """Take a piece, which takes its time."""
        self.now += SHARE * 2 / 3
        self.seen.append(data)

    def turn(self) -> int:
        """Run one turn; return how many pieces have been taken so far."""
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()
        return len(self.seen)

    def test_share(self) -> None:
        """After two pieces the turn is over; the next one begins with nothing spent."""
        for expected in (False, True):
            self.turns.spend(self.take, b"x")
            self.assertIs(self.turns.is_over, expected)
        self.turn()
        self.assertFalse(self.turns.is_over)

    def test_size(self) -> None:
        """To receive a piece takes time, too, although nobody sees that."""
        self.turns.spend(self.seen.append, bytes(8 * 1024 * 1024))
        self.assertTrue(self.turns.is_over)

    def test_waiting(self) -> None:
        """What waits is called in order, two pieces in each turn."""
        for number in range(5):
            self.turns.wait(partial(self.turns.spend, self.take, b"%d" % number))
        self.assertEqual([self.turn() for _ in range(4)], [2, 4, 5, 5])
        self.assertEqual(self.seen, [b"0", b"1", b"2", b"3", b"4"])

    def test_other_work(self) -> None:
        """What has taken time beside large pieces leaves less to those of the next turn, but always something."""
        for _ in range(3):
            self.turns.wait(partial(self.turns.spend, self.take, b"x"))
        self.turns.spend_beside(10 * SHARE)
        self.assertEqual([self.turn() for _ in range(2)], [1, 3])

    def test_waiting_again(self) -> None:
        """Who waits again is called again, behind all others, as long as the turn is not over."""

        def take(name: bytes) -> None:
            self.turns.spend(self.take, name)
            self.turns.wait(partial(take, name))

        self.turns.wait(partial(take, b"a"))
        self.assertEqual([self.turn() for _ in range(3)], [2, 4, 6])
        self.turns.wait(partial(take, b"b"))
        self.turn()
        self.assertEqual(self.seen, [b"a"] * 7 + [b"b"])

    def test_of_loops(self) -> None:
        """All connections of a loop share its turns."""
        self.assertIs(turns_of(self.loop), turns_of(self.loop))
