"""Backlogs in memory: order, clients, delays and bounds."""

from __future__ import annotations

from typing import Any

import attrs

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Reply
from influxrelay.delivery.back_off import FIRST_DELAY, PROBE_GAP
from influxrelay.delivery.backlog import MANY_QUEUES, MAX_DEAD_LETTER_BYTES, MAX_DEAD_LETTERS
from influxrelay.delivery.fate import State
from influxrelay.journal.records import Drop
from testing.backends import BAD, BROKEN, OK, TIMEOUT, destination, retry_later, write
from testing.sender_case import Client, MemoryCase, room


class OrderTests(MemoryCase):
    """A new write never overtakes an older one."""

    def test_through_every_failure(self) -> None:
        """Through every kind of failure, writes arrive in order, and each arrives."""
        for outcome in ("refused", "timeout", "reset", BROKEN, Reply(503), Reply(429), Reply(302)):
            self.build()
            bodies = [b"%d\n" % number for number in range(6)]
            for body in bodies[:3]:
                self.submit(body)
            if isinstance(outcome, str):
                self.fail_request(outcome)
            else:
                self.answer(outcome)
            for body in bodies[3:]:
                self.submit(body)
            self.assertEqual(self.backend.pending, [])
            self.drain()
            self.assertEqual(b"".join(self.backend.bodies), b"0\n" + b"".join(bodies), outcome)

    def test_probe_has_one_write(self) -> None:
        """A probe carries one write, and what waits behind it is merged once it has landed."""
        for number in range(4):
            self.submit(b"%d\n" % number)
        self.fail_request()
        self.clock.advance(FIRST_DELAY)
        self.answer()
        self.assertEqual(self.backend.bodies, [b"0\n", b"0\n", b"1\n2\n3\n"])
        self.answer()
        self.assert_idle()

    def test_out_of_order_failures(self) -> None:
        """With two requests in flight, what comes back is in order again, whichever fails first."""
        for first in (0, 1):
            self.build(max_in_flight=2)
            self.submit(b"1\n")
            self.submit(b"2\n")
            self.submit(b"3\n")
            for index in (first, 0):
                self.backend.pending[index].fail()
            (queue,) = self.sender.queues
            self.assertEqual([entry.write.body for entry in queue.waiting], [b"1\n", b"2\n", b"3\n"])
            self.assertEqual(self.backlog.passed(queue), self.number - 3)
            self.drain()

    def test_struck_is_never_sent_again(self) -> None:
        """A struck write is not sent again, at the head or in the middle of what is merged."""
        clients = [self.submit(b"%d\n" % number, state=State.UNDECIDED) for number in range(6)]
        self.fail_request()
        for number, client in enumerate(clients):
            client.decide(kept=number not in (0, 1, 3))
        self.drain()
        self.assertEqual(self.backend.bodies, [b"0\n", b"2\n", b"4\n5\n"])

    def test_all_struck(self) -> None:
        """Where all that waits is struck, the sender is empty, and the next write is the probe."""
        self.submit(b"1\n", state=State.STRUCK)
        self.submit(b"2\n", state=State.STRUCK)
        self.fail_request()
        self.assert_idle()
        self.submit(b"3\n")
        self.assertEqual(len(self.backend.posts), 2)
        self.answer()

    def test_struck_waits_for_nothing(self) -> None:
        """A struck write that is passed over keeps nobody waiting, at the head or in the middle."""
        self.submit(b"0\n")
        for state in (State.STRUCK, State.KEPT, State.STRUCK, State.KEPT):
            self.submit(b"1\n", state=state)
        self.answer()
        self.assertEqual((len(self.sender.clients), self.backend.bodies), (0, [b"0\n", b"1\n1\n"]))
        self.answer()
        self.assert_idle()

    def test_resend(self) -> None:
        """A write that is sent once more is kept nowhere: it fails with its request, or when it has waited too long."""
        failed, expired, taken = [self.sender.resend(write(body)) for body in (b"1\n", b"2\n", b"3\n")]
        self.fail_request()
        self.assertEqual(self.failureResultOf(failed, BackendFailure).value.reason, "refused")
        self.clock.advance(FIRST_DELAY)
        self.answer()
        self.assertEqual(self.successResultOf(expired), OK)
        self.clock.advance(TIMEOUT)
        self.answer(BAD)
        self.assertEqual(self.successResultOf(taken), BAD)
        self.assertEqual(self.backlog.dead_letters(), [])
        self.submit(b"4\n")
        waiting = self.sender.resend(write(b"5\n"))
        self.clock.advance(TIMEOUT)
        self.failureResultOf(waiting, BackendFailure)
        self.answer()
        self.assert_idle()

    def test_unmerged(self) -> None:
        """A merged request that is refused is sent write by write, and each client has its own answer."""
        self.submit(b"0\n")
        clients = [self.submit(b"%d\n" % number) for number in (1, 2)]
        self.answer()
        self.answer(BAD)
        self.answer(BAD)
        self.answer()
        self.assertEqual([client.result for client in clients], [BAD, OK])
        self.assertEqual(self.backend.bodies, [b"0\n", b"1\n2\n", b"1\n", b"2\n"])
        self.assertEqual([letter.id for letter in self.backlog.dead_letters()], [2])
        self.assert_idle()


class ClientTests(MemoryCase):
    """When clients are told."""

    def test_told_at_once(self) -> None:
        """When a request fails, its client and all who wait are told at once, and their writes are kept."""
        clients = [self.submit(b"%d\n" % number, destination(b"%d" % (number % 2))) for number in range(4)]
        self.backend.pending[0].fail("reset")
        self.assertEqual([client.result is not None for client in clients], [True, False, True, True])
        self.backend.pending[0].answer()
        self.assertEqual(clients[1].result, OK)
        self.drain()

    def test_not_held_until_the_drain(self) -> None:
        """A client waits for its backend's timeout at the most, however long its write is kept."""
        self.submit(b"1\n")
        client = self.submit(b"2\n")
        self.clock.advance(TIMEOUT)
        self.assertEqual(client.reason, "timeout")
        self.fail_request("timeout")
        self.clock.advance(100)
        self.drain()

    def test_timers_rest(self) -> None:
        """What is kept for longer than any client waits keeps no timer busy."""
        self.submit(b"1\n")
        self.fail_request()
        self.submit(b"2\n")
        calls = 0
        call_later = self.clock.callLater

        def count(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            self.assertLess(calls, 100)
            return call_later(*arguments)

        self.patch(self.clock, "callLater", count)
        self.clock.advance(PROBE_GAP)
        self.clock.advance(3 * TIMEOUT)
        self.fail_request("timeout")
        self.drain()

    def test_client_of_a_probe(self) -> None:
        """Clients that come in trouble are told when the probe fails, or get their answer when it lands."""
        self.submit(b"1\n")
        self.fail_request()
        clients = [self.submit(b"2\n"), self.submit(b"3\n")]
        self.clock.advance(PROBE_GAP)
        self.fail_request()
        self.assertEqual([client.reason for client in clients], ["refused"] * 2)
        client = self.submit(b"4\n")
        self.clock.advance(PROBE_GAP)
        self.answer()
        self.answer()
        self.assertEqual(client.result, OK)
        self.assert_idle()


class DelayTests(MemoryCase):
    """When a backend in trouble is asked again."""

    def failures_at(self, count: int) -> list[float]:
        """Let probes fail; return the pauses between them."""
        pauses = []
        for _ in range(count):
            self.fail_request()
            before = self.clock.seconds()
            while not self.backend.pending:
                self.clock.advance(0.05)
                self.assertLess(self.clock.seconds() - before, 100)
            pauses.append(self.clock.seconds() - before)
        return pauses

    def test_back_off(self) -> None:
        """While nobody waits, the pauses double from half of 0.5 s up to the maximum, by the jitter."""
        for jitter, factor in ((0.0, 0.5), (0.999, 0.9995)):
            self.build(max_delay=4.0, jitter=lambda jitter=jitter: jitter)
            self.submit(b"1\n")
            pauses = self.failures_at(6)
            for pause, full in zip(pauses, (0.5, 1, 2, 4, 4, 4), strict=True):
                self.assertLess(abs(pause - full * factor), 0.06)
            self.answer()
            self.assert_idle()

    def test_forgotten_when_well(self) -> None:
        """After the backend was well, the pauses begin anew."""
        self.submit(b"1\n")
        self.failures_at(4)
        self.answer()
        self.submit(b"2\n")
        self.assertLess(self.failures_at(1)[0], 0.4)
        self.answer()
        self.assert_idle()

    def test_clients_make_it_sooner(self) -> None:
        """While a client waits the gap is all there is to wait for."""
        self.submit(b"1\n")
        self.failures_at(5)
        self.fail_request()
        self.submit(b"2\n")
        self.clock.advance(PROBE_GAP)
        self.answer()
        self.answer()
        self.assert_idle()

    def test_retry_after(self) -> None:
        """A Retry-After is obeyed, whoever waits."""
        self.submit(b"1\n")
        self.answer(retry_later(5))
        self.submit(b"2\n")
        self.clock.advance(4.9)
        self.assertEqual(self.backend.pending, [])
        self.clock.advance(0.1)
        self.answer()
        self.answer()
        self.assert_idle()


class BoundTests(MemoryCase):
    """How much is kept in memory, and what is counted."""

    def fill(self, *states: State) -> list[Client]:
        """Let a request of two bytes fail, and these writes of two bytes wait behind it."""
        clients = [self.submit(b"0\n")]
        self.fail_request()
        return clients + [self.submit(b"%d\n" % number, state=state) for number, state in enumerate(states, 1)]

    def test_reject(self) -> None:
        """A write beyond the bound fails, and is counted with its time if it is acknowledged, now or later."""
        self.build(buffer=room(6, writes=3))
        clients = self.fill(State.KEPT, State.KEPT, State.KEPT, State.STRUCK, State.UNDECIDED)
        self.assertEqual([client.reason for client in clients[3:]], ["full"] * 3)
        self.assertTrue(self.backlog.is_full)
        self.assertEqual(self.backlog.losses(), [Drop("fake", "full", 1, 2, 4.0, 4.0)])
        clients[5].decide(kept=True)
        self.assertEqual(self.backlog.losses(), [Drop("fake", "full", 2, 4, 4.0, 6.0)])
        self.drain()
        self.assertEqual(b"".join(self.backend.bodies), b"0\n0\n1\n2\n")
        self.assertFalse(self.backlog.is_full)
        self.backlog.forget_losses()
        self.assertEqual(self.backlog.losses(), [])

    def test_drop_oldest(self) -> None:
        """The oldest write makes room, and is counted with its time."""
        self.build(buffer=room(6, writes=3), drop_oldest=True)
        self.fill(*[State.KEPT] * 4)
        self.assertEqual(self.backlog.losses(), [Drop("fake", "full", 2, 4, 1.0, 2.0)])
        self.drain()
        self.assertEqual(b"".join(self.backend.bodies), b"0\n2\n3\n4\n")

    def test_drop_oldest_of_many_queues(self) -> None:
        """Whichever queue has the oldest write, that one makes room."""
        for count in (5, 2 * MANY_QUEUES):
            self.build(buffer=room(0, writes=2 * count, queues=count), drop_oldest=True)
            self.fill()
            bodies = [b"%d\n" % number for number in range(8 * count)]
            for number, body in enumerate(bodies):
                self.submit(body, destination(b"%d" % (number % (count - 1))))
            self.clock.advance(10)
            while self.backend.pending:
                self.answer_all()
            left = {body for post in self.backend.posts[1:] for body in post.body.splitlines(keepends=True)}
            self.assertEqual(left, set(bodies[-len(left) :]))
            self.assertGreater(len(left), count)
            self.assert_idle()

    def test_drop_the_last(self) -> None:
        """A write that takes the place of the only other one of its destination is delivered."""
        self.build(buffer=room(2, writes=1), drop_oldest=True)
        self.fill(State.KEPT)
        self.drain()
        self.assertEqual(self.backend.bodies, [b"0\n", b"1\n"])

    def test_too_large_for_any_room(self) -> None:
        """A write larger than the queue fails, and drives nothing out."""
        self.build(buffer=room(6, writes=3), drop_oldest=True)
        self.fill(State.KEPT)
        large = b"x" * room(6, writes=3) + b"\n"
        self.assertEqual(self.submit(large).reason, "full")
        self.assertEqual(self.backlog.losses()[0].bytes, len(large))
        self.drain()
        self.assertEqual(b"".join(self.backend.bodies), b"0\n0\n1\n")

    def test_drop_oldest_while_paused(self) -> None:
        """Also where nothing may be sent, the oldest write makes room for a new one."""
        self.build(buffer=room(2, writes=1), drop_oldest=True)
        self.sender.pause()
        self.submit(b"1\n")
        self.submit(b"2\n")
        self.assertEqual(self.backlog.losses()[0].first, 1.0)
        self.sender.unpause()
        self.drain()
        self.assertEqual(self.backend.bodies, [b"2\n"])

    def test_dead_letters_are_bounded(self) -> None:
        """In memory only the last dead letters are kept, in number and in bytes; the others count as lost."""
        for size, kept in ((3, MAX_DEAD_LETTERS), (MAX_DEAD_LETTER_BYTES // 4, 4)):
            self.build()
            for _ in range(kept + 5):
                self.submit(b"x" * (size - 1) + b"\n")
                self.answer(BAD)
            letters = self.backlog.dead_letters()
            self.assertEqual([letter.id for letter in letters], list(range(self.number - kept + 1, self.number + 1)))
            (lost,) = self.backlog.losses()
            self.assertEqual((lost.reason, lost.writes, lost.bytes), ("full", 5, 5 * size))
            self.backlog.drop_dead_letter(letters[0].id)
            self.assertEqual(self.backlog.dead_letters(), letters[1:])
            self.assert_idle()

    def test_other_bounds(self) -> None:
        """A larger buffer takes the writes that come after it was configured."""
        self.build(buffer=room(2, writes=1))
        self.fill()
        self.assertEqual(self.submit(b"1\n").reason, "full")
        settings = attrs.evolve(self.settings, name="renamed", buffer=room(6, writes=3))
        self.sender.reconfigure(self.backend, settings)
        self.fail_request()
        self.submit(b"2\n")
        self.submit(b"3\n")
        self.assertEqual(self.submit(b"4\n").reason, "full")
        self.assertEqual(self.backlog.losses(), [Drop("renamed", "full", 2, 4, 2.0, 5.0)])
        self.drain()
