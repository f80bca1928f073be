"""A journal that relays share: what operators see and do, at whichever relay."""

from __future__ import annotations

from influxrelay.core.write import CHANGES
from influxrelay.journal.records import JournalLimits
from influxrelay.journal.shared.frames import seq_of
from testing.journal_cases import OTHER, PLACE, write
from testing.memory_watches import REQUEST
from testing.shared_journals import ONE, GroupCase, Relay


class OperatorTests(GroupCase):
    """From any relay."""

    def test_drop_elsewhere(self) -> None:
        """The queue is dropped at a relay that does not deliver, while the one that does is in the middle of it."""
        first, second = self.relay("ra"), self.relay("rb")
        numbers = self.append(second, *(b"%d\n" % index for index in range(5)))
        self.append(second, b"other\n", where=OTHER)
        self.later(0.1)
        first.journal.advance("a", PLACE, numbers[1])
        self.later(1)
        depth, upto = self.result(second.journal.discard("a"))
        assert depth is not None
        self.assertEqual((depth.writes, depth.bytes, depth.active), (4, 12, True))
        (last,) = self.append(second, b"last\n")
        self.later(1)
        self.assertIn(("given up", "a", upto), first.events)
        first.journal.advance("a", PLACE, numbers[3])
        self.later(2)
        for relay in (first, second):
            self.assertEqual(self.drops(relay), [("a", "operator", 4, 12)])
            depths = self.contents(relay).depths
            self.assertEqual((depths["a"].writes, depths["b"].writes), (1, 7))
        self.assertEqual((first.journal.is_valid("a"), self.state().cursor), (True, last - 1))

    def test_drop_here(self) -> None:
        """It is dropped at the relay that delivers."""
        relay = self.relay("ra")
        numbers = self.append(relay, b"one\n", b"two\n")
        self.later(0.1)
        relay.journal.advance("a", PLACE, numbers[0])
        depth, upto = self.result(relay.journal.discard("a"))
        assert depth is not None
        self.assertEqual((depth.writes, upto), (1, relay.journal.last_number))
        self.assertEqual((self.drops(relay), self.state().cursor), ([("a", "operator", 1, 4)], upto))

    def test_drop_undelivered(self) -> None:
        """It is dropped while nobody delivers."""
        first = self.relay("ra")
        self.append(first, b"one\n", b"two\n")
        self.kill(first)
        second = self.relay("rb", backends=ONE)
        depth, _ = self.result(second.journal.discard("a"))
        assert depth is not None
        self.assertEqual(depth.writes, 2)
        self.until(lambda: "a" in second.held)
        self.assertEqual((second.held["a"], self.drops(second)), ({}, [("a", "operator", 2, 8)]))

    def test_drop_changes_here(self) -> None:
        """A change that is dropped becomes a dead letter of its backend."""
        relay = self.relay("ra")
        self.drop_changes(relay, relay)

    def test_drop_changes_elsewhere(self) -> None:
        """The same, at a relay that does not deliver."""
        self.drop_changes(self.relay("ra"), self.relay("rb"))

    def drop_changes(self, first: Relay, other: Relay) -> None:
        """Drop changes, of which the backend has one and one is struck, and look at what is kept of them."""
        numbers = self.append(first, b"DROP DATABASE x", b"DELETE FROM m", where=CHANGES)
        self.append(first, b"one\n")
        (struck, last) = self.append(first, b"DROP DATABASE y", b"DROP SERIES FROM m", where=CHANGES)
        self.result(first.journal.strike(struck))
        first.journal.advance("a", CHANGES, numbers[0])
        self.later(1)
        times = [first.records[each].time for each in (numbers[1], last)]
        depth, _ = self.result(other.journal.discard("a"))
        assert depth is not None
        (late,) = self.append(first, b"DROP DATABASE z", where=CHANGES)
        self.later(1)
        letters = self.result(first.journal.dead_letters(0, 10))
        self.assertEqual(
            [(each.time, each.write.body) for each in letters],
            list(zip(times, (b"DELETE FROM m", b"DROP SERIES FROM m"), strict=True)),
        )
        self.assertEqual({each.write.destination for each in letters}, {CHANGES})
        said = "it was lost with the queue (operator)"
        self.assertEqual({(each.backend, each.status, each.message) for each in letters}, {("a", 0, said)})
        self.assertEqual((depth.writes, self.state().cursor), (3, late - 1))

    def test_drop_many_changes(self) -> None:
        """More changes than are read together, and one that the log has no more: it was remembered."""
        relay = self.relay("ra", backends=ONE)
        bodies = [b"%d " % index + b"x" * 400_000 for index in range(6)]
        numbers = self.append(relay, *bodies, where=CHANGES)
        self.later(0.1)
        self.result(relay.engine.log.purge(seq_of(numbers[0])))
        self.later(2)
        self.result(relay.journal.discard("a"))
        letters = self.result(relay.journal.dead_letters(0, 10))
        self.assertEqual([each.write.body for each in letters], bodies)

    def test_changes_that_the_log_drops(self) -> None:
        """A change that the log drops becomes a dead letter, unless it was struck."""
        first, second = self.relay("ra"), self.relay("rb")
        self.append(first, b"DROP DATABASE x", where=CHANGES)
        self.result(first.journal.stop())
        self.kill(first)
        self.until(lambda: second.held)
        (struck, last) = self.append(second, b"DROP DATABASE y", b"DROP DATABASE z", where=CHANGES)
        self.result(second.journal.strike(struck))
        self.later(0.1)
        self.result(second.engine.log.purge(seq_of(last)))
        self.later(3)
        letters = self.result(second.journal.dead_letters(0, 10))
        self.assertEqual(
            [(each.backend, each.write.body) for each in letters],
            [(name, body) for name in ("a", "b") for body in (b"DROP DATABASE x", b"DROP DATABASE z")],
        )
        self.assertEqual({each.message for each in letters}, {"it was lost with the queue (damaged)"})
        self.assertEqual(second.journal._house._changes, {})

    def test_remove(self) -> None:
        """A backend that no relay has is forgotten, with what is kept for it."""
        relay = self.relay("ra")
        self.append(relay, b"one\n")
        relay.journal.register(ONE)
        self.later(1)
        depth, _ = self.result(relay.journal.discard("b"))
        assert depth is not None
        self.assertFalse(depth.active)
        self.assertEqual((list(self.contents(relay).depths), self.result(relay.journal.discard("x"))[0]), (["a"], None))

    def test_losses(self) -> None:
        """Losses are counted over hand-overs, and forgotten at any relay."""
        first, second = self.relay("ra"), self.relay("rb")
        self.later(0.1)
        first.journal.count_loss("a", "full", 5.0, 7)
        first.journal.count_loss("a", "full", 3.0, 1)
        self.result(first.journal.stop())
        self.kill(first)
        self.later(0.1)
        second.journal.count_loss("a", "full", 9.0, 1)
        second.journal.count_loss("a", "damaged", 9.0, 1)
        self.later(1)
        third = self.relay("rc")
        (damaged, full) = self.contents(third).drops
        self.assertEqual((full.writes, full.bytes, full.first, full.last, damaged.writes), (3, 9, 3.0, 9.0, 1))
        forgotten = self.result(third.journal.forget_losses("a"))
        self.later(1)
        self.assertEqual((forgotten, self.drops(second), second.journal.losses("a")), ([damaged, full], [], []))
        self.assertEqual(self.result(third.journal.forget_losses("x")), [])

    def test_pause(self) -> None:
        """A backend is paused at any relay, for whoever delivers, until it goes on."""
        first, second = self.relay("ra"), self.relay("rb")
        self.later(0.1)
        self.assertTrue(self.result(second.journal.pause("a", paused=True)))
        self.assertFalse(self.result(second.journal.pause("x", paused=True)))
        self.later(0.1)
        self.assertEqual(first.events[-1], ("paused", "a", True))
        self.kill(first)
        self.until(lambda: "a" in second.held)
        self.assertIn(("paused", "a", True), second.events)
        self.result(second.journal.pause("a", paused=False))
        self.later(0.1)
        self.assertEqual(second.events[-1], ("paused", "a", False))

    def test_letters(self) -> None:
        """Dead letters are the same at every relay, whoever has buried them, and can be dropped at any."""
        first, second = self.relay("ra"), self.relay("rb")
        self.later(0.1)
        big = b"x" * 2_000_000
        first.journal.bury("a", 10.0, write(b"bad\n"), 400, 'no "é\n')
        first.journal.bury("b", 11.0, write(big), 422, "worse")
        self.later(1)
        for relay in (first, second, self.relay("rc")):
            one, two = self.result(relay.journal.dead_letters(0, 10))
            self.assertEqual((one.backend, one.time, one.status, one.message), ("a", 10.0, 400, 'no "é\n'))
            self.assertEqual((one.write.body, one.write.destination, two.write.body), (b"bad\n", PLACE, big))
            self.assertEqual(self.contents(relay).dead_letters, {"a": 1, "b": 1})
            self.assertEqual(self.result(relay.journal.dead_letters(one.id, 10))[0].id, two.id)
            self.assertEqual(len(self.result(relay.journal.dead_letters(0, 1))), 1)
        self.assertEqual(self.result(second.journal.drop_dead_letters([two.id, 77])), 1)
        first.journal.bury("a", 12.0, write(b"worst\n"), 400, "no")
        self.later(1)
        for relay in self.relays:
            self.assertEqual(self.contents(relay).dead_letters, {"a": 2})
            self.assertEqual([each.time for each in self.result(relay.journal.dead_letters(0, 9))], [10.0, 12.0])

    def test_letters_without_quorum(self) -> None:
        """A dead letter that cannot be stored is stored later, and until then the write is not passed."""
        relay = self.relay("ra", backends=ONE)
        (number,) = self.append(relay, b"one\n")
        self.later(0.1)
        lost = {"count": 3}
        self.cluster.travel = lambda what, _engine: None if lost["count"] and what == REQUEST else 0.0
        relay.journal.bury("a", 10.0, write(b"bad\n"), 400, "no")
        relay.journal.advance("a", PLACE, number)
        self.later(1)
        self.assertLess(self.state().cursor, number)
        lost["count"] = 0
        self.until(lambda: self.state().cursor > number)
        self.assertEqual(self.contents(relay).dead_letters, {"a": 1})

    def test_many_letters(self) -> None:
        """When dead letters take too much the oldest make way, and are counted, however much comes at once."""
        self.cluster.letters.max_bytes = 10_000
        limits = JournalLimits(max_bytes=40_000)
        first, second = self.relay("ra", limits=limits), self.relay("rb", limits=limits)
        self.later(0.1)
        for index in range(15):
            first.journal.bury("b", float(index), write(b"x" * 1000), 400, "no")
        first.journal.bury("b", 15.0, write(b"y" * 7000), 400, "no")
        first.journal.bury("b", 16.0, write(b"z" * 17000), 400, "no")
        self.later(10)
        self.result(first.journal.keep_positions())
        letters = self.result(second.journal.dead_letters(0, 100))
        (drop,) = self.contents(second).drops
        self.assertEqual((letters[-1].time, drop.writes + len(letters)), (15.0, 17))
        self.assertEqual(self.contents(first).dead_letters, {"b": len(letters)})
