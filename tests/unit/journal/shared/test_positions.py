"""A journal that relays share: from where on a backend gets what is in the log, and which backends there are."""

from __future__ import annotations

from influxrelay.core.write import CHANGES
from influxrelay.journal.shared.frames import number_of
from influxrelay.journal.shared.state import MOST_AHEAD
from testing.journal_cases import BACKENDS, OTHER, PLACE, place, write
from testing.memory_watches import ANSWER, REQUEST
from testing.shared_journals import LEASE, ONE, GroupCase, Relay, record_for


class PositionTests(GroupCase):
    """Cursors."""

    def test_forward(self) -> None:
        """A cursor never moves back, whatever is noted, and by whom."""
        first = self.relay("ra")
        numbers = self.append(first, *(b"%d\n" % index for index in range(5)))
        self.later(0.1)
        seen = []
        for number in (numbers[2], numbers[0], numbers[3], numbers[1]):
            first.journal.advance("a", PLACE, number)
            self.result(first.journal.keep_positions())
            seen.append(self.state().cursor)
        self.assertEqual(seen, [numbers[2], numbers[2], numbers[3], numbers[3]])
        self.kill(first)
        second = self.relay("rb")
        self.until(lambda: "a" in second.held)
        second.journal.advance("a", PLACE, numbers[1])
        self.later(1)
        self.assertEqual((self.state().cursor, second.held["a"]), (numbers[3], {PLACE: numbers[3]}))

    def test_others(self) -> None:
        """What a relay notes that does not deliver has no effect."""
        first, second = self.relay("ra"), self.relay("rb")
        numbers = self.append(first, b"one\n")
        self.later(0.1)
        second.journal.advance("a", PLACE, numbers[0])
        second.journal.count_loss("a", "full", 5.0, 7)
        second.journal.bury("a", 5.0, write(), 400, "no")
        self.result(second.journal.keep_positions())
        self.later(2)
        contents = self.contents(first)
        self.assertEqual((contents.depths["a"].writes, contents.drops, contents.dead_letters), (1, (), {}))

    def test_ahead(self) -> None:
        """Destinations that are further than others go on from where they were; changes always do."""
        first = self.relay("ra", backends=ONE)
        (held,) = self.append(first, b"held\n", where=OTHER)
        places = [place(index) for index in range(MOST_AHEAD + 50)]
        numbers = {where: self.append(first, b"x\n", where=where)[0] for where in places[:5]}
        (change,) = self.append(first, b"change\n", where=CHANGES)
        for where in places[5:]:
            first.journal.append_shared(record_for(where))
        self.later(1)
        for where in (*places, CHANGES):
            first.journal.advance("a", where, first.journal.last_number)
        self.result(first.journal.keep_positions())
        ahead = self.state().ahead
        self.assertEqual((len(ahead), ahead[CHANGES], self.state().cursor), (MOST_AHEAD, change, held - 1))
        self.kill(first)
        second = self.relay("rb", backends=ONE)
        self.until(lambda: "a" in second.held)
        waiting = second.held["a"]
        self.assertEqual((len(waiting), CHANGES in waiting, waiting[OTHER]), (52, False, held - 1))
        self.assertTrue(all(where in waiting for where in numbers))

    def test_partly(self) -> None:
        """What is passed in part of a message goes on in the middle of it, at another relay, too, and is counted so."""
        first = self.relay("ra", backends=ONE)
        numbers = self.append(first, *(b"%d\n" % index for index in range(5)))
        self.later(0.1)
        first.journal.advance("a", PLACE, numbers[2])
        self.result(first.journal.strike(numbers[4]))
        self.later(1)
        self.kill(first)
        second = self.relay("rb", backends=ONE)
        self.until(lambda: "a" in second.held)
        self.assertEqual(second.held["a"], {PLACE: numbers[2]})
        self.assertEqual(self.read(second, after=numbers[2]), [b"3\n"])
        depth = self.contents(second).depths["a"]
        self.assertEqual((depth.writes, depth.bytes), (1, 2))

    def test_keep(self) -> None:
        """Positions are kept with what was buried and counted before, and not before that."""
        relay = self.relay("ra", backends=ONE)
        (number,) = self.append(relay, b"one\n")
        self.later(0.1)
        self.cluster.travel = lambda what, _engine: 0.2 if what in {REQUEST, ANSWER} else 0.0
        relay.journal.bury("a", 5.0, write(), 400, "no")
        relay.journal.count_loss("a", "full", 6.0, 7)
        relay.journal.advance("a", PLACE, number)
        kept = relay.journal.keep_positions()
        self.until(lambda: self.state().cursor > number)
        self.assertEqual((len(self.cluster.letters.messages), self.state().losses["full"].writes), (1, 1))
        self.result(kept)

    def test_keep_fails(self) -> None:
        """Positions that cannot be kept are an error."""
        relay = self.relay("ra", backends=ONE)
        (number,) = self.append(relay, b"one\n")
        self.later(0.1)
        relay.engine.cut()
        relay.journal.advance("a", PLACE, number)
        self.assertIn("lease", self.fails(relay.journal.keep_positions()))


class BackendTests(GroupCase):
    """Which backends there are."""

    def test_open_again(self) -> None:
        """A relay that could not begin begins when it is let to."""
        self.cluster.quorum = False
        relay = Relay(self.cluster, "ra", backends=ONE)
        self.relays.append(relay)
        self.assertIn("no answer", self.fails(relay.opened))
        self.cluster.quorum = True
        self.result(relay.journal.open(ONE, relay))
        self.assertEqual(len(self.append(relay, b"one\n")), 1)
        self.assertEqual(self.read(relay), [b"one\n"])

    def test_new(self) -> None:
        """A new backend begins behind the last write; writes wait until the group knows of it."""
        relay = self.relay("ra", backends=ONE)
        self.append(relay, b"old\n")
        self.cluster.quorum = False
        relay.journal.register(BACKENDS)
        appended = relay.journal.append_shared(record_for(PLACE))
        self.later(1)
        self.assertEqual(len(self.cluster.log.messages), 1)
        self.cluster.quorum = True
        number = self.result(appended)
        self.until(lambda: {"a", "b"} == set(relay.held))
        depths = self.contents(relay).depths
        self.assertEqual({name: each.writes for name, each in depths.items()}, {"a": 2, "b": 1})
        self.assertEqual(number, number_of(2, 0))

    def test_removed(self) -> None:
        """Nothing is kept for a backend that is removed, and it goes on where it was when it comes back."""
        relay = self.relay("ra")
        (number,) = self.append(relay, b"one\n")
        self.later(0.1)
        relay.journal.advance("b", PLACE, number)
        self.later(1)
        relay.journal.register(ONE)
        self.later(1)
        self.assertEqual(
            ([each for each in relay.events if each[0] == "lost"], set(relay.held)), ([("lost", "b")], {"a"})
        )
        depth = self.contents(relay).depths["b"]
        self.assertEqual((depth.active, depth.writes), (False, 0))
        (last,) = self.append(relay, b"two\n")
        relay.journal.register(BACKENDS)
        self.until(lambda: "b" in relay.held)
        self.assertEqual(relay.held["b"], {PLACE: last - 1})
        relay.journal.register(ONE)
        relay.journal.advance("a", PLACE, last)
        self.later(3)
        self.assertEqual(list(self.cluster.log.messages), [])

    def test_removed_here(self) -> None:
        """A backend that another relay still has is delivered there."""
        first, second = self.relay("ra"), self.relay("rb")
        self.later(1)
        first.journal.register(ONE)
        self.until(lambda: "b" in second.held)
        self.later(LEASE)
        self.assertEqual((set(first.held), set(second.held)), ({"a"}, {"b"}))
        self.assertTrue(self.contents(first).depths["b"].active)

    def test_renamed_key(self) -> None:
        """Another object may stand for the same backend."""
        relay = self.relay("ra", backends=ONE)
        self.append(relay, b"one\n")
        self.later(0.1)
        relay.journal.register({"other": ("a", "http://elsewhere")})
        self.until(lambda: "other" in relay.held)
        self.assertEqual((list(relay.held), list(relay.held["other"])), (["other"], [PLACE]))
        self.later(LEASE)
        self.assertEqual(self.contents(relay).depths["a"].location, "http://elsewhere")

    def test_forgotten_value(self) -> None:
        """A backend whose value somebody has removed begins anew."""
        relay = self.relay("ra", backends=ONE)
        self.append(relay, b"one\n")
        self.later(0.1)
        self.cluster.values.set("backend.a", None, None, object())
        self.later(2 * LEASE)
        self.assertEqual(relay.held, {"a": {}})

    def test_later_version(self) -> None:
        """What a later version has written is left alone, and no write is taken that the backend might not get."""
        self.cluster.values.set("backend.a", b'{"version": 2}', 0, object())
        relay = self.relay("ra", backends=ONE)
        self.later(LEASE)
        self.assertEqual((relay.held, self.cluster.values.last), ({}, 1))
        for _ in range(2):
            self.assertIn("what the group knows of a", self.fails(relay.journal.append(record_for(PLACE))))
        self.assertIn("what the group knows of a", relay.journal.trouble)
