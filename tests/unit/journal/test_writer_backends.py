"""A journal's backends, and the limits of what it keeps for them."""

from __future__ import annotations

from influxrelay.core.write import CHANGES
from influxrelay.journal.housekeeping import CHECK_AGE, JournalFullError
from influxrelay.journal.interface import Key
from influxrelay.journal.records import JournalLimits
from testing.journal_cases import OTHER, PLACE, JournalCase, record, write

MB = 1024 * 1024


class BackendTests(JournalCase):
    """Backends that change while the journal works, and between two processes."""

    def test_new(self) -> None:
        """A new backend gets what comes later, and nothing from before."""
        self.append(record(1))
        self.journal.register({"a": ("a", "http://a"), "b": ("b", "http://b"), "c": ("c", "http://c")})
        self.append(record(2))
        self.assertEqual(self.depths(), {"a": (2, 4), "b": (2, 4), "c": (1, 2)})
        self.kill()
        self.assertEqual(self.open({"c": ("c", "http://c")}), {"c": {PLACE: 1}})

    def test_first(self) -> None:
        """The backends that there are when the journal is made get everything, also after a crash right then."""
        self.kill()
        self.open()
        self.append(record(1))
        self.kill()
        self.assertEqual(self.open(), {"a": {PLACE: 0}, "b": {PLACE: 0}})

    def test_renamed(self) -> None:
        """What waits, what was lost and the dead letters go with a backend that is renamed."""
        self.append(record(1), record(2))
        self.advance(1, keys="a")
        self.journal.count_loss("a", "full", 1.0, 1)
        self.journal.bury("a", 1.0, write(), 400, "no")
        self.journal.register({"a": ("b", "http://a"), "b": ("a", "http://b")})
        self.assertEqual((self.depths(), self.drops()), ({"a": (2, 4), "b": (1, 2)}, [("b", "full", 1, 1)]))
        self.advance(2, keys="a")
        self.lazily()
        (letter,) = self.result(self.journal.dead_letters(0, 9))
        self.assertEqual((letter.backend, [each.backend for each in self.journal.losses("a")]), ("b", ["b"]))
        self.kill()
        self.assertEqual(self.open({1: ("new", "http://a"), 2: ("a", "http://b")}), {1: {}, 2: {PLACE: 0}})
        self.assertEqual(self.drops(), [("new", "full", 1, 1)])

    def test_removed(self) -> None:
        """A backend that is removed holds nothing back, and what comes of it is ignored."""
        self.append(record(1))
        self.journal.register({"b": ("b", "http://b")})
        self.advance(1)
        self.later()
        self.assertEqual(self.files(), [])
        self.assertEqual({name: each.active for name, each in self.contents().depths.items()}, {"a": False, "b": True})

    def test_returns(self) -> None:
        """A backend that returns, perhaps by another name, goes on where it was, with what is left."""
        one: dict[Key, tuple[str, str]] = {"a": ("a", "http://a")}
        both: dict[Key, tuple[str, str]] = {**one, "b": ("b", "http://b")}
        self.append(record(1), record(2, OTHER))
        self.advance(1, keys="b")
        self.journal.register(one)
        self.append(record(3))
        locations = {"a": "http://a", "again": "http://b", "other": "http://other"}
        positions = self.result(self.journal.returning(locations, {"a": "a"}))
        self.assertEqual({name: dict(found) for name, found in positions.items()}, {"again": {PLACE: 2, OTHER: 1}})
        self.assertEqual(self.result(self.journal.returning({"a": "http://a"}, {"a": "a"})), {})
        self.journal.register({**one, "new": ("again", "http://b")})
        self.assertEqual(self.depths(), {"a": (3, 6), "again": (2, 4)})
        self.kill()
        self.assertEqual(self.open(both), {"a": {PLACE: 0, OTHER: 1}, "b": {PLACE: 2, OTHER: 1}})

    def test_discard(self) -> None:
        """What waits for a backend can be given up: it is counted, and nothing that comes later is."""
        self.append(record(1), record(2, OTHER), record(3))
        self.advance(1, keys="a")
        depth, upto = self.result(self.journal.discard("a"))
        assert depth is not None
        self.assertEqual((depth.writes, depth.bytes, depth.oldest, depth.active, upto), (2, 4, 20.0, True, 3))
        self.append(record(4))
        self.assertEqual((self.depths(), self.drops()), ({"a": (1, 2), "b": (4, 8)}, [("a", "operator", 2, 4)]))
        self.kill()
        self.assertEqual(self.open(), {"a": {PLACE: 3}, "b": {PLACE: 0, OTHER: 1}})
        self.assertEqual(self.result(self.journal.discard("x"))[0], None)

    def test_lost_changes(self) -> None:
        """A change that is dropped with a queue becomes a dead letter, too, however it is dropped."""
        change = record(2, CHANGES, b"DELETE")
        self.append(record(1), change, record(3))
        self.advance(3, CHANGES, keys="b")
        self.result(self.journal.discard("a"))
        (letter,) = self.result(self.journal.dead_letters(0, 9))
        self.assertEqual((letter.backend, letter.time, letter.status), ("a", 20.0, 0))
        self.assertEqual((letter.write.body, letter.message), (b"DELETE", "it was lost with the queue (operator)"))
        self.assertEqual(self.drops(), [("a", "operator", 3, 10)])
        self.append(record(4, CHANGES, b"DROP"))
        self.now = 100_000.0
        self.open(max_age=10.0)
        letters = self.result(self.journal.dead_letters(letter.id, 9))
        self.assertEqual(
            {(each.backend, each.write.body, each.message) for each in letters},
            {(name, b"DROP", "it was lost with the queue (age)") for name in "ab"},
        )

    def test_forget(self) -> None:
        """A backend that is not configured any more is forgotten, with its losses; its dead letters stay."""
        self.journal.bury("a", 1.0, write(), 400, "no")
        self.journal.count_loss("a", "full", 1.0, 1)
        self.lazily()
        self.journal.register({"b": ("b", "http://b")})
        self.result(self.journal.discard("a"))
        self.assertEqual((list(self.depths()), self.drops()), (["b"], []))
        self.journal.register({"b": ("b", "http://b"), "c": ("c", "http://c")})
        (letter,) = self.result(self.journal.dead_letters(0, 9))
        self.assertEqual((letter.backend, self.contents().dead_letters), ("a", {"a": 1}))

    def test_depths(self) -> None:
        """What waits is counted exactly, in and between segments, with the time of the oldest."""
        for number in range(1, 11):
            self.append(record(number, body=b"x" * number))
            if number in (4, 7):
                self.seal()
        for passed in range(11):
            if passed:
                self.advance(passed, keys="a")
            depth = self.contents().depths["a"]
            left = range(passed + 1, 11)
            self.assertEqual((depth.writes, depth.bytes), (len(left), sum(left)))
            self.assertEqual(depth.oldest, left[0] * 10.0 if left else None)


class LimitTests(JournalCase):
    """How much is kept."""

    def fill(self, count: int, *, first: int = 1) -> list[int]:
        """Append writes of 10 KB, and return the numbers of those that were taken."""
        taken = []
        for number in range(first, first + count):
            self.journal.next_number()
            done = self.journal.append(record(number, body=b"x" * 10_000))
            done.addCallbacks(
                lambda _, number=number: taken.append(number), lambda failure: failure.trap(JournalFullError)
            )
            self.clock.advance(0)
        return taken

    def test_reject(self) -> None:
        """A full journal refuses writes, says so, and takes them again when there is room; that is no trouble."""
        self.open(max_bytes=MB)
        taken = self.fill(200)
        self.assertEqual(taken, list(range(1, len(taken) + 1)))
        self.assertGreater(len(taken), 95)
        self.assertLess(self.journal.used, 1.05 * MB)
        self.assertIn(f"the journal is full ({MB} bytes)", self.journal.why_unavailable)
        self.assertEqual((self.journal.trouble, self.drops(), self.journal.max_bytes), ("", [], MB))
        self.advance(len(taken) // 2)
        self.lazily()
        self.lazily()
        self.assertEqual(self.journal.why_unavailable, "")
        self.assertEqual(self.fill(1, first=201), [201])

    def test_full_of_what_is_passed(self) -> None:
        """What everybody has passed makes way at once, whenever it is looked at the next time."""
        self.open(max_bytes=MB)
        for number in range(1, 400):
            self.assertEqual(self.fill(1, first=number), [number])
            self.advance(number)

    def test_full_at_the_start(self) -> None:
        """A journal that is full when it is opened says so before the first write."""
        self.open(max_bytes=MB)
        self.fill(200)
        self.close()
        self.open(max_bytes=MB)
        self.assertIn("is full", self.journal.why_unavailable)
        self.journal.reconfigure(JournalLimits(2 * MB), full_sync=False)
        self.assertEqual((self.journal.why_unavailable, self.fill(1, first=201)), ("", [201]))

    def test_drop_oldest(self) -> None:
        """The oldest make way; each is counted for who lacked it, with its time, and delivery hears of it."""
        self.open(max_bytes=MB, drop_oldest=True)
        self.fill(50)
        self.advance(30, keys="a")
        self.fill(150, first=51)
        left = self.numbers()
        self.assertEqual(left, list(range(201 - len(left), 201)))
        self.assertGreater(len(left) * 10_000, MB * 3 // 4)
        gone = 200 - len(left)
        self.assertEqual(self.dropped[-1], (PLACE, gone))
        losses = {each.backend: each for each in self.contents().drops}
        self.assertEqual([losses[name].writes for name in "ab"], [gone - 30, gone])
        self.assertEqual([losses[name].bytes for name in "ab"], [(gone - 30) * 10_000, gone * 10_000])
        self.assertEqual((losses["a"].first, losses["b"].first, losses["b"].last), (310.0, 10.0, gone * 10.0))
        self.kill()
        self.assertEqual(self.open(max_bytes=MB, drop_oldest=True)["a"][PLACE], gone)

    def test_age(self) -> None:
        """What is too old is dropped and counted, exactly, and what is younger is not."""
        self.open(max_age=950.0)
        self.append(*(record(number) for number in range(1, 11)), record(11, OTHER))
        self.advance(2, keys="a")
        self.lazily()
        self.clock.advance(CHECK_AGE)  # it is 1010.25 now: 1 to 6 are older than that
        self.assertEqual((self.depths(), self.dropped), ({"a": (5, 12), "b": (5, 12)}, [(PLACE, 6)]))
        self.assertEqual(self.drops(), [("a", "age", 4, 8), ("b", "age", 6, 12)])
        self.assertEqual(self.numbers(after=6), [7, 8, 9, 10])

    def test_other_settings(self) -> None:
        """Limits and durability change while the journal works."""
        self.journal.reconfigure(JournalLimits(5, 6.0, drop_oldest=True), full_sync=True, timeout=9.0)
        self.append(record(1))
        self.assertEqual((self.journal.max_bytes, self.journal._tail.sync), (5, True))
