"""Up to where each backend has each destination, against a model that remembers everything."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.write import Destination
from influxrelay.journal.cursors import Cursors
from testing.journal_cases import OTHER, PLACE, place

PLACES = [place(number) for number in range(3)]
BACKENDS = (1, 2)


class Model(RuleBasedStateMachine):
    """Writes are appended and passed, and what has changed is written down now and then, or is not."""

    def __init__(self) -> None:
        super().__init__()
        self.cursors = Cursors()
        self.cursors.activate(BACKENDS)
        self.number = 0
        self.log: dict[Destination, list[int]] = {each: [] for each in PLACES}
        self.passed: dict[tuple[int, Destination], int] = {}
        self.floor = 0
        self.written: dict[tuple[int, Destination], int] = {}

    @rule(where=st.sampled_from(PLACES))
    def append(self, where: Destination) -> None:
        """Append a write."""
        self.number += 1
        self.log[where].append(self.number)
        self.cursors.appended(where, self.number)

    @rule(where=st.sampled_from(PLACES), backend=st.sampled_from(BACKENDS), back=st.integers(0, 5))
    def advance(self, where: Destination, backend: int, back: int) -> None:
        """Let a backend pass some of a destination, or hear of it once more."""
        number = max(0, self.number - back)
        self.passed[backend, where] = max(number, self.passed.get((backend, where), 0))
        self.cursors.advance(backend, where, number)

    @rule(fails=st.booleans())
    def write(self, fails: bool) -> None:  # noqa: FBT001 (Hypothesis' way)
        """Write down what has changed."""
        moves = self.cursors.take_moves(self.number)
        if fails:
            self.cursors.put_back(moves)
            return
        self.floor = moves.floor
        self.written.update({(backend, where): number for backend, where, number in moves.moved})
        for each in moves.gone:
            self.written.pop(each, None)

    def lacking(self, backend: int, where: Destination) -> list[int]:
        """Return what a backend has not passed, by the model."""
        return [each for each in self.log[where] if each > self.passed.get((backend, where), 0)]

    @invariant()
    def agrees(self) -> None:
        """Check that who waits for what is as in the model."""
        for backend in BACKENDS:
            waiting = self.cursors.waiting(backend)
            for where in PLACES:
                lacking = self.lacking(backend, where)
                assert (where in waiting) == bool(lacking)
                if lacking:
                    assert [each for each in self.log[where] if each > waiting[where]] == lacking

    @invariant()
    def nothing_is_skipped(self) -> None:
        """Check that a process would never read on from behind what a backend lacks."""
        for backend in BACKENDS:
            for where in PLACES:
                position = self.written.get((backend, where), self.floor)
                missed = [each for each in self.lacking(backend, where) if each <= position]
                assert not missed, (backend, where, position, missed)

    @invariant()
    def nothing_is_kept_in_vain(self) -> None:
        """Check that nothing stays written down of a destination that every backend has passed."""
        if not self.cursors.have_moved:
            for each in self.written:
                assert self.lacking(*each), each


class ModelTests(SynchronousTestCase):
    """The model."""

    def test_model(self) -> None:
        """Whatever happens, nothing is skipped, and nothing is remembered in vain."""
        run_state_machine_as_test(Model, settings=settings(max_examples=200, stateful_step_count=40, deadline=None))


class CursorsTests(SynchronousTestCase):
    """Single cases."""

    def setUp(self) -> None:
        """Make cursors of two backends."""
        self.cursors = Cursors()
        self.cursors.activate(BACKENDS)

    def test_nothing_waits(self) -> None:
        """A destination that everybody has passed is forgotten at once, whatever is passed again."""
        for number in range(1, 1000):
            self.cursors.appended(place(number), number)
            for backend in BACKENDS:
                self.cursors.advance(backend, place(number), number)
        self.cursors.advance(1, PLACE, 5)
        self.assertEqual(self.cursors.behind, {})
        moves = self.cursors.take_moves(1000)
        self.assertEqual((moves.moved, moves.gone, self.cursors.have_moved), ((), (), False))

    def test_lowest(self) -> None:
        """The lowest position is that of the backend that is last."""
        self.cursors.appended(PLACE, 1)
        self.cursors.appended(PLACE, 2)
        self.assertEqual(self.cursors.lowest(), {PLACE: 0})
        self.cursors.advance(1, PLACE, 1)
        self.assertEqual((self.cursors.lowest(), self.cursors.snapshot()), ({PLACE: 0}, {PLACE: {1: 1, 2: 0}}))
        self.cursors.advance(2, PLACE, 2)
        self.assertEqual(self.cursors.lowest(), {PLACE: 1})

    def test_has_passed(self) -> None:
        """A segment is passed when nobody lacks anything of it."""
        self.cursors.appended(PLACE, 5)
        self.cursors.appended(OTHER, 6)
        self.cursors.advance(1, OTHER, 6)
        self.cursors.advance(2, OTHER, 6)
        self.assertTrue(self.cursors.has_passed([(OTHER, 6)]))
        self.assertTrue(self.cursors.has_passed([(PLACE, 4)]))
        self.assertFalse(self.cursors.has_passed([(OTHER, 6), (PLACE, 5)]))

    def test_other_backends(self) -> None:
        """One that is removed holds nothing back; one that is new has passed everything; one returns to its place."""
        self.cursors.appended(PLACE, 1)
        self.cursors.advance(1, PLACE, 1)
        self.cursors.activate((1, 3))
        self.assertEqual((self.cursors.behind, self.cursors.active), ({}, (1, 3)))
        self.cursors.appended(PLACE, 2)
        self.assertEqual(self.cursors.waiting(3), {PLACE: 1})
        self.cursors.activate((1, 2, 3))
        self.cursors.restore(2, PLACE, 0, 2)
        self.assertEqual([self.cursors.waiting(each) for each in (1, 2, 3)], [{PLACE: 1}, {PLACE: 0}, {PLACE: 1}])

    def test_prune(self) -> None:
        """What is waited for in vain, for it is not in the log, is forgotten; what came later is not."""
        for number, where in ((1, PLACE), (2, OTHER), (3, PLACE), (9, place(1))):
            self.cursors.appended(where, number)
        self.cursors.prune({PLACE: 1}, 8)
        self.assertEqual({where: each.last for where, each in self.cursors.behind.items()}, {PLACE: 1, place(1): 9})

    def test_a_new_ledger(self) -> None:
        """A ledger that was begun anew is told of everything that waits."""
        self.cursors.appended(PLACE, 1)
        self.cursors.take_moves(1)
        self.cursors.all_again()
        self.assertEqual(self.cursors.take_moves(1).moved, ((1, PLACE, 0), (2, PLACE, 0)))
