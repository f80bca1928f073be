"""A journal that relays share: who delivers, from where on, and what operators see and do."""

from __future__ import annotations

from influxrelay.core.write import CHANGES, Destination
from influxrelay.journal.records import JournalLimits, Record
from influxrelay.journal.shared.frames import number_of
from influxrelay.journal.shared.state import MOST_AHEAD, BackendState
from testing.journal_cases import BACKENDS, OTHER, PLACE, place, write
from testing.logs import watch_log
from testing.memory_watches import ANSWER, PUSH, REQUEST
from testing.shared_journals import LEASE, Relay, SharedCase

ONE: dict[object, tuple[str, str]] = {"a": ("a", "http://a")}


class GroupCase(SharedCase):
    """A group, and what its bucket has."""

    def state(self, backend: str = "a") -> BackendState:
        """Return what the bucket has of a backend."""
        value = self.cluster.values.entries[f"backend.{backend}"].value
        assert value is not None
        return BackendState.decode(value)

    def drops(self, relay: Relay) -> list[tuple[str, str, int, int]]:
        """Return what a relay says that was lost."""
        return [(each.backend, each.reason, each.writes, each.bytes) for each in self.contents(relay).drops]


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
        seat = relay.journal._group.seats["a"]
        seat.lease._valid_until = self.world.seconds() + LEASE  # as if a late answer had come
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


def record_for(where: Destination) -> Record:
    """Return a write to a destination."""
    return Record(0, 1.0, write(b"x\n", where))
