"""A journal that relays share: who delivers to a backend."""

from __future__ import annotations

from testing.journal_cases import PLACE, write
from testing.logs import watch_log
from testing.memory_watches import ANSWER, PUSH, REQUEST
from testing.shared_journals import LEASE, ONE, GroupCase, Relay


class LeaseTests(GroupCase):
    """Who delivers."""

    def test_one(self) -> None:
        """One relay delivers to a backend, and goes on as long as it lives."""
        first, second = self.relay("ra"), self.relay("rb")
        self.later(5 * LEASE)
        self.assertEqual((set(first.held), set(second.held)), ({"a", "b"}, set()))
        for relay in (first, second):
            self.assertEqual(relay.journal.deliverers(), {"a": "ra", "b": "ra"})
        self.assertEqual((first.journal.is_valid("a"), second.journal.is_valid("a")), (True, False))

    def test_at_once(self) -> None:
        """Where two come at the same moment one of them delivers."""
        self.relays = [Relay(self.cluster, name) for name in ("ra", "rb", "rc")]
        for relay in self.relays:
            self.result(relay.opened)
        self.later(1)
        self.assertEqual(sum("a" in relay.held for relay in self.relays), 1)

    def test_stop(self) -> None:
        """A relay that stops hands over at once, with what it has passed."""
        first, second = self.relay("ra"), self.relay("rb")
        numbers = self.append(second, b"one\n", b"two\n")
        self.later(0.1)
        first.journal.advance("a", PLACE, numbers[0])
        self.result(first.journal.stop(5.0))
        self.kill(first)
        self.later(0.1)
        self.assertEqual(second.held, {"a": {PLACE: numbers[0]}, "b": {PLACE: numbers[0] - 1}})
        self.assertTrue(second.journal.is_valid("a"))

    def test_stop_in_the_middle(self) -> None:
        """It hands over all that it has passed, also while it is writing that down, and frightens nobody."""
        logged = watch_log(self)
        first, second = self.relay("ra", backends=ONE), self.relay("rb", backends=ONE)
        numbers = self.append(second, b"one\n", b"two\n", b"three\n")
        self.later(0.1)
        self.cluster.travel = lambda _what, _engine: 0.1
        first.journal.advance("a", PLACE, numbers[0])
        first.journal.keep_positions().addErrback(lambda _: None)
        self.later(0.05)
        first.journal.advance("a", PLACE, numbers[1])
        self.result(first.journal.stop(5.0))
        self.kill(first)
        self.until(lambda: "a" in second.held)
        self.assertEqual((second.held["a"], first.events[-1][0]), ({PLACE: numbers[1]}, "gained"))
        self.assertEqual([each for each in logged if "lost" in each], [])

    def test_stop_with_letter(self) -> None:
        """A dead letter that is being stored when the relay stops is there, and so is the position behind it."""
        first, second = self.relay("ra", backends=ONE), self.relay("rb", backends=ONE)
        (number,) = self.append(second, b"one\n")
        self.later(0.1)
        self.cluster.travel = lambda _what, _engine: 0.1
        first.journal.bury("a", 5.0, write(b"one\n"), 400, "no")
        first.journal.advance("a", PLACE, number)
        self.result(first.journal.stop(5.0))
        self.kill(first)
        self.until(lambda: "a" in second.held)
        self.assertEqual((second.held["a"], self.contents(second).dead_letters), ({}, {"a": 1}))

    def test_kill(self) -> None:
        """When it dies another relay delivers within the time of the lease and a second."""
        first, second = self.relay("ra"), self.relay("rb")
        self.later(7.3)
        self.kill(first)
        begin = self.world.seconds()
        self.until(lambda: second.journal.is_valid("a") and second.journal.is_valid("b"))
        self.assertLess(self.world.seconds() - begin, LEASE + 1)

    def test_paused(self) -> None:
        """A process that was stopped finds that its lease is lost before it sends anything."""
        first, second = self.relay("ra"), self.relay("rb")
        self.later(3)
        self.stop(first)
        self.later(LEASE + 1)
        self.assertTrue(second.journal.is_valid("a"))
        first.clock.rightNow = self.world.seconds()  # the first thing after SIGCONT, before any timer or message
        self.assertFalse(first.journal.is_valid("a"))
        self.go_on(first)
        self.later(1)
        self.assertEqual((first.events[-2][0], first.held, set(second.held)), ("lost", {}, {"a", "b"}))

    def test_gate(self) -> None:
        """Once it was said that a lease is not valid it is not, before the delivery has learned that it is lost."""
        relay = self.relay("ra", backends=ONE)
        self.later(1)
        self.stop(relay)
        self.later(LEASE)
        relay.clock.rightNow = self.world.seconds()
        self.assertFalse(relay.journal.is_valid("a"))
        relay.engine.resume()
        backend = relay.journal._group.leased["a"]
        backend.lease._valid_until = self.world.seconds() + LEASE  # as if a late answer had come
        self.assertFalse(relay.journal.is_valid("a"))
        self.go_on(relay)
        self.later(1)
        self.assertEqual([each[0] for each in relay.events], ["gained", "lost", "gained"])
        self.assertTrue(relay.journal.is_valid("a"))

    def test_partition(self) -> None:
        """A relay without a connection believes no longer than the lease is sure, and comes back without it."""
        first, second = self.relay("ra"), self.relay("rb")
        self.append(first, b"one\n")
        first.engine.cut()
        begin = self.world.seconds()
        self.until(lambda: not first.journal.is_valid("a"))
        self.assertLess(self.world.seconds() - begin, LEASE)
        self.assertFalse(second.journal.is_valid("a"))
        self.until(lambda: second.journal.is_valid("a"))
        first.engine.mend()
        self.later(2 * LEASE)
        self.assertEqual((first.held, set(second.held)), ({}, {"a", "b"}))

    def test_no_quorum(self) -> None:
        """Without a quorum nobody delivers after a while, and one relay does again when there is one."""
        first, second = self.relay("ra"), self.relay("rb")
        self.append(first, b"one\n")
        self.cluster.quorum = False
        self.later(2 * LEASE)
        self.assertEqual((first.held, second.held), ({}, {}))
        self.cluster.quorum = True
        relay = self.deliverer()
        self.assertEqual(list(relay.held["a"]), [PLACE])
        self.later(3 * LEASE)
        self.assertEqual(sum("a" in each.held for each in self.relays), 1)

    def test_lost_acknowledgement(self) -> None:
        """A change of the bucket whose acknowledgement is lost counts all the same, and nothing in it counts twice."""
        relay = self.relay("ra")
        (number,) = self.append(relay, b"one\n")
        self.later(0.1)
        for what in (ANSWER, REQUEST, ANSWER):
            self.cluster.lose(what)
            relay.journal.count_loss("a", "full", 5.0, 7)
            self.later(1)
        relay.journal.advance("a", PLACE, number)
        self.later(2 * LEASE)
        self.assertEqual((self.drops(relay), self.state().losses["full"].writes), ([("a", "full", 3, 21)], 3))
        self.assertEqual([each for each in relay.events if each[0] == "lost"], [])

    def test_again(self) -> None:
        """Who has lost a lease for a while goes on from what was written down."""
        relay = self.relay("ra")
        numbers = self.append(relay, b"one\n", b"two\n", b"three\n")
        self.later(0.1)
        relay.journal.advance("a", PLACE, numbers[0])
        self.later(1)
        relay.engine.cut()
        relay.journal.advance("a", PLACE, numbers[1])
        relay.journal.count_loss("a", "full", 5.0, 7)
        self.later(2 * LEASE)
        self.assertEqual(relay.held, {})
        relay.engine.mend()
        self.until(lambda: "a" in relay.held)
        self.assertEqual((relay.held["a"], self.drops(relay)), ({PLACE: numbers[0]}, []))


class DelayTests(GroupCase):
    """Messages that are late."""

    def test_late_watch(self) -> None:
        """A relay that learns late of everything takes no lease that is held."""
        first = self.relay("ra", backends=ONE)
        late = Relay(self.cluster, "rb", backends=ONE)
        self.relays.append(late)
        self.cluster.travel = lambda what, engine: 4.0 if engine is late.engine and what == PUSH else 0.0
        self.later(6 * LEASE)
        self.assertEqual((set(first.held), late.held), ({"a"}, {}))
        self.assertEqual([each for each in first.events if each[0] == "lost"], [])
