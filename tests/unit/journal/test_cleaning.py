"""Making room in the log."""

from __future__ import annotations

import sqlite3
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.errors import JournalError
from influxrelay.journal import cleaning
from influxrelay.journal.cleaning import SMALL, runs
from influxrelay.journal.segment import name_of
from testing.journal_cases import OTHER, PLACE, JournalCase, place, record, write

USUAL = 1000


class RunTests(SynchronousTestCase):
    """Which neighbours become one."""

    def test_cases(self) -> None:
        """What is mostly needed stays; what is not joins its small neighbours; many small ones become one."""
        full, poor, small = (USUAL, USUAL), (USUAL, 10), (USUAL // SMALL - 1, USUAL // SMALL - 1)
        cases = [
            ([full, full], []),
            ([poor], [[0]]),
            ([full, poor, full], [[1]]),
            ([small, poor, small, full, poor], [[0, 1, 2], [4]]),
            ([small] * (SMALL - 1), []),
            ([small] * SMALL, [list(range(SMALL))]),
            ([(USUAL, USUAL // 2 - 1)] * 5, [[0, 1], [2, 3], [4]]),
            ([], []),
        ]
        for segments, expected in cases:
            numbered = [(number, size, needed) for number, (size, needed) in enumerate(segments)]
            self.assertEqual(list(runs(numbered, USUAL)), expected)

    @given(st.lists(st.tuples(st.integers(1, 2 * USUAL), st.integers(1, 2 * USUAL)), max_size=30))
    def test_any(self, sizes: list[tuple[int, int]]) -> None:
        """Runs are of neighbours, in order, each segment in one at the most, and no larger than a segment is."""
        segments = [(number, size, min(size, needed)) for number, (size, needed) in enumerate(sizes)]
        found = list(runs(segments, USUAL))
        flat = [each for run in found for each in run]
        self.assertEqual(flat, sorted(set(flat)))
        for run in found:
            self.assertEqual(run, list(range(run[0], run[-1] + 1)))
            if len(run) > 1:
                self.assertLessEqual(sum(segments[each][2] for each in run), USUAL)


class CleanTests(JournalCase):
    """What is deleted, and what is written anew."""

    def test_not_before_the_reason(self) -> None:
        """A write is deleted only after the dead letter that it has become is written down, sealed or not."""
        house = self.journal._house
        for number, make_room in enumerate((house._seal, house._clean), 1):
            self.append(record(number))
            if make_room == house._clean:
                self.seal()
            self.journal.bury("a", 1.0, write(), 400, "no")
            self.advance(number)
            self.journal._tail.rotate()
            self.result(Deferred.fromCoroutine(make_room()))
            self.assertEqual(self.files(), [])
            self.assertEqual(len(self.rows("dead_letters")), number)

    def fill(self) -> None:
        """Make four segments, each with one write that waits and many that do not."""
        for segment in range(4):
            self.append(record(segment * 10 + 1, OTHER))
            self.append(*(record(segment * 10 + number, body=b"x" * 1000) for number in range(2, 11)))
            self.seal()
            self.advance(segment * 10 + 10)
        self.result(Deferred.fromCoroutine(self.journal._house.books.save()))

    def clean(self) -> None:
        """Clean."""
        house = self.journal._house
        cleaning.clean(self.journal._store, house.cursors.snapshot(), 10_000, full_sync=True)

    def test_merged(self) -> None:
        """Segments of which little is needed become one, in which everything that is needed is, in order."""
        self.fill()
        self.clean()
        self.assertEqual([each.name for each in self.files()], [name_of(1, 1)])
        self.assertEqual((self.numbers(OTHER), self.numbers()), ([1, 11, 21, 31], []))
        self.assertEqual(self.depths(), {"a": (4, 11), "b": (4, 11)})
        self.strike(11)
        self.append(record(41, OTHER))
        self.kill()
        self.assertEqual(self.open(), {"a": {OTHER: 0}, "b": {OTHER: 0}})
        self.assertEqual(self.numbers(OTHER), [1, 21, 31, 41])

    def test_merged_again(self) -> None:
        """What was written anew is written anew once more when it is worth it, and deleted in the end."""
        self.fill()
        self.clean()
        self.append(record(41, place(7), b"y" * 3000))
        self.seal()
        self.advance(31, OTHER)
        self.clean()
        self.assertEqual([each.name for each in self.files()], [name_of(41)])
        self.advance(41, place(7))
        self.clean()
        self.assertEqual((self.files(), self.rows("segments"), self.rows("entries")), ([], [], []))

    def test_partly_passed(self) -> None:
        """What every backend has passed of a destination that waits is not written anew."""
        self.append(*(record(number, body=b"x" * 1000) for number in range(1, 10)), record(10, OTHER))
        self.seal()
        self.advance(8)
        self.advance(10, OTHER)
        self.clean()
        self.assertEqual((self.numbers(), len(self.files())), ([9], 1))

    def test_damaged(self) -> None:
        """What turns out to be damaged while it is written anew is counted."""
        self.fill()
        path = self.files()[1]
        path.write_bytes(path.read_bytes().replace(b"11\n", b"xx\n"))
        self.clean()
        self.assertEqual(self.numbers(OTHER), [1, 21, 31])
        self.kill()
        self.open()
        self.assertEqual(self.drops(), [("a", "damaged", 1, 3), ("b", "damaged", 1, 3)])

    def test_interrupted(self) -> None:
        """Wherever writing anew is interrupted, by a crash or by a disk that fails, nothing is lost or there twice."""
        ways = ("write_file", "transaction", "unlink")
        for crash in (False, True):
            for way in ways:
                self.fill()
                store: Any = self.journal._store
                if way == "write_file":
                    self.patch(cleaning, way, self.fail_with(OSError(28, "No space left on device")))
                elif way == "transaction":
                    self.patch(store.ledger, "add_segment", self.fail_with(sqlite3.OperationalError("disk full")))
                else:
                    self.patch(type(self.directory), "unlink", self.fail_with(OSError(5, "Input/output error")))
                self.assertRaises((OSError, sqlite3.Error), self.clean)
                self._undo()
                if crash:
                    self.kill()
                    self.open()
                self.assertEqual((self.numbers(OTHER), self.numbers(after=40)), ([1, 11, 21, 31], []))
                self.clean()
                self.kill()
                self.open()
                self.assertEqual((self.numbers(OTHER), len(self.files())), ([1, 11, 21, 31], 1))
                self.kill()
                self.directory = self.directory.with_name(f"{way}-{crash}")
                self.open()

    def _undo(self) -> None:
        for patch in self._patches:
            patch.restore()
        self._patches.clear()

    def patch(self, obj: object, attribute: str, value: object) -> Any:
        """Patch, and remember it."""
        self._patches = [super().patch(obj, attribute, value)]
        return self._patches[0]

    def fail_with(self, error: Exception) -> Any:
        """Return something that fails."""

        def fail(*_: object, **__: object) -> None:
            raise error

        return fail

    def test_failure_is_tried_again(self) -> None:
        """What the disk does not let be cleaned is cleaned later."""
        self.fill()
        self.patch(cleaning, "clean", self.fail_with(OSError(5, "Input/output error")))
        self.later()
        self.assertIn("Input/output error", self.journal.trouble)
        self._undo()
        self.later()
        self.assertEqual((self.journal.trouble, len(self.files())), ("", 1))

    def test_discard_fails(self) -> None:
        """An operator who wants something that the disk does not let be done is told so."""
        self.append(record(1), record(2, PLACE))
        self.patch(cleaning, "discard", self.fail_with(OSError(5, "Input/output error")))
        self.assertIn(
            "Input/output error", str(self.assertRaises(JournalError, self.result, self.journal.discard("a")))
        )
        self.assertEqual(self.depths()["a"], (2, 4))
