"""What every journal does, wherever it keeps its log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred

from influxrelay.core.write import Destination
from influxrelay.journal.interface import Journal
from testing.journal_cases import OTHER, PLACE, write

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase as _Case
else:
    _Case = object

T = TypeVar("T")


class JournalContract(_Case):
    """Tests of a journal with the backends ``a`` and ``b``, to which the process delivers."""

    def open_journal(self) -> Journal:
        """Return a journal in which nothing is."""
        raise NotImplementedError

    def put(self, *bodies: bytes, where: Destination = PLACE) -> list[int]:
        """Append writes, and return their numbers."""
        raise NotImplementedError

    def wait(self, deferred: Deferred[T]) -> T:
        """Return what something has come to."""
        raise NotImplementedError

    def bodies(self, journal: Journal, where: Destination = PLACE, after: int = 0) -> list[bytes]:
        """Return what is read of a destination."""
        records, _ = self.wait(journal.read(where, after, 1 << 20))
        return [each.write.body for each in records]

    def state(self, journal: Journal) -> dict[str, Any]:
        """Return what is in the journal, by backend: writes, bytes, dead letters and losses."""
        contents = self.wait(journal.contents())
        return {
            name: (
                depth.writes,
                depth.bytes,
                contents.dead_letters.get(name, 0),
                [(each.reason, each.writes, each.bytes) for each in contents.drops if each.backend == name],
            )
            for name, depth in contents.depths.items()
        }

    def test_contract_reading(self) -> None:
        """Writes are read by destination, in order, in pages, without those that were struck; numbers rise."""
        journal = self.open_journal()
        numbers = self.put(b"1\n", b"2\n", b"3\n") + self.put(b"4\n", b"5\n")
        self.put(b"other\n", where=OTHER)
        self.assertEqual(numbers, sorted(set(numbers)))
        self.wait(journal.strike(numbers[1]))
        self.assertEqual(self.bodies(journal), [b"1\n", b"3\n", b"4\n", b"5\n"])
        self.assertEqual(
            (self.bodies(journal, OTHER), self.bodies(journal, after=numbers[3])), ([b"other\n"], [b"5\n"])
        )
        records, upto = self.wait(journal.read(PLACE, 0, 3))
        self.assertEqual([each.seq for each in records], [numbers[0], numbers[2]])
        self.assertTrue(numbers[2] <= upto < numbers[3], upto)
        self.assertGreaterEqual(self.wait(journal.read(PLACE, numbers[4], 100))[1], numbers[4])

    def test_contract_positions(self) -> None:
        """Each backend passes each destination for itself, and never backwards."""
        journal = self.open_journal()
        numbers = self.put(b"1\n", b"2\n", b"3\n")
        self.put(b"other\n", where=OTHER)
        journal.advance("a", PLACE, numbers[1])
        journal.advance("a", PLACE, numbers[0])
        journal.advance("b", PLACE, numbers[2])
        self.wait(journal.keep_positions())
        self.assertEqual(self.state(journal), {"a": (2, 8, 0, []), "b": (1, 6, 0, [])})

    def test_contract_letters(self) -> None:
        """Dead letters are listed, the oldest first, and dropped."""
        journal = self.open_journal()
        for index in range(3):
            journal.bury("b", 10.0 + index, write(b"bad %d\n" % index), 400, "no")
            self.wait(journal.keep_positions())
        letters = self.wait(journal.dead_letters(0, 2))
        self.assertEqual(
            [(each.backend, each.time, each.message) for each in letters], [("b", 10.0, "no"), ("b", 11.0, "no")]
        )
        (last,) = self.wait(journal.dead_letters(letters[-1].id, 2))
        self.assertEqual(last.write.body, b"bad 2\n")
        self.assertEqual(self.wait(journal.drop_dead_letters([last.id, letters[0].id, 9999])), 2)
        self.assertEqual(self.state(journal)["b"], (0, 0, 1, []))

    def test_contract_losses(self) -> None:
        """Losses are counted by reason, with their times, and forgotten."""
        journal = self.open_journal()
        for when, size in ((5.0, 7), (3.0, 1)):
            journal.count_loss("a", "full", when, size)
        self.wait(journal.keep_positions())
        (drop,) = journal.losses("a")
        self.assertEqual((drop.backend, drop.writes, drop.bytes, drop.first, drop.last), ("a", 2, 8, 3.0, 5.0))
        self.assertEqual(self.wait(journal.forget_losses("a")), [drop])
        self.assertEqual((journal.losses("a"), self.state(journal)["a"]), ([], (0, 0, 0, [])))

    def test_contract_discard(self) -> None:
        """What waits for one backend is given up, and counted; the other one gets it."""
        journal = self.open_journal()
        numbers = self.put(b"1\n", b"2\n", b"3\n")
        journal.advance("a", PLACE, numbers[0])
        depth, upto = self.wait(journal.discard("a"))
        assert depth is not None
        self.assertEqual((depth.backend, depth.writes, depth.bytes, depth.active), ("a", 2, 4, True))
        self.assertGreaterEqual(upto, numbers[2])
        self.put(b"4\n")
        self.assertEqual(self.state(journal), {"a": (1, 2, 0, [("operator", 2, 4)]), "b": (4, 8, 0, [])})
