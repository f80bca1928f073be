"""Backlogs in memory: the operator's commands, and the end."""

from __future__ import annotations

from influxrelay.delivery.back_off import FIRST_DELAY
from influxrelay.delivery.fate import State
from influxrelay.journal.records import Drop
from testing.backends import BAD, OK, TIMEOUT, destination
from testing.sender_case import MemoryCase


class OperatorTests(MemoryCase):
    """Pause, and giving up."""

    def test_pause(self) -> None:
        """A paused sender sends nothing, new destinations neither, and goes on in order."""
        self.submit(b"0\n")
        self.sender.pause()
        self.answer()
        client = self.submit(b"1\n")
        self.submit(b"2\n", destination(b"other"))
        self.clock.advance(TIMEOUT)
        self.assertEqual(client.reason, "timeout")
        self.assertEqual(self.backend.bodies, [b"0\n"])
        self.assertEqual(self.sender.queues.waiting(), (2, 4))
        self.assertEqual(self.sender.queues.oldest(), 2.0)
        self.sender.unpause()
        self.drain()

    def test_pause_in_trouble(self) -> None:
        """A paused sender is not probed."""
        self.submit(b"1\n")
        self.fail_request()
        self.sender.pause()
        self.clock.advance(100)
        self.assertEqual(self.backend.pending, [])
        self.sender.unpause()
        self.drain()

    def test_give_up(self) -> None:
        """What waits is forgotten, counted, and its clients are told; what is in flight goes on."""
        first = self.submit(b"1\n")
        client = self.submit(b"2\n")
        self.sender.give_up()
        self.assertEqual(client.reason, "operator")
        self.assertEqual(self.backlog.losses(), [Drop("fake", "operator", 1, 2, 2.0, 2.0)])
        self.answer()
        self.assertEqual(first.result, OK)
        self.assertIsNone(self.sender.queues.oldest())
        self.assert_idle()


class EndTests(MemoryCase):
    """How a sender with a queue in memory ends."""

    def test_drained(self) -> None:
        """It is drained when all that is kept is delivered."""
        self.submit(b"1\n")
        drained = self.sender.drained()
        self.fail_request()
        self.assertNoResult(drained)
        self.clock.advance(FIRST_DELAY)
        self.answer()
        self.successResultOf(drained)
        self.assert_idle()

    def test_close(self) -> None:
        """What is lost at the end is counted: what waits and what is in flight, if it is acknowledged."""
        clients = [self.submit(b"%d\n" % number, state=State.UNDECIDED) for number in range(4)]
        clients[0].decide(kept=True)
        clients[1].decide(kept=True)
        self.sender.close()
        self.backend.abort()
        clients[2].decide(kept=True)
        clients[3].decide(kept=False)
        self.assertEqual([client.reason for client in clients], ["stopped"] * 4)
        self.assertEqual(self.backlog.losses(), [Drop("fake", "stopped", 3, 6, 1.0, 3.0)])
        self.assertEqual(self.submit(b"late\n", destination(b"other")).reason, "stopped")
        self.assert_idle()

    def test_refused_after_close(self) -> None:
        """A merged request that is refused after the end is lost, and counted."""
        self.submit(b"0\n")
        self.submit(b"1\n")
        self.submit(b"2\n")
        self.answer()
        self.sender.close()
        self.answer(BAD)
        self.assertEqual(self.backlog.losses()[0].writes, 2)
        self.assert_idle()

    def test_closed_while_paused(self) -> None:
        """A paused sender that is closed refuses what comes."""
        self.sender.pause()
        self.submit(b"1\n")
        self.sender.close()
        self.assertEqual(self.submit(b"2\n").reason, "stopped")
        self.assert_idle()
