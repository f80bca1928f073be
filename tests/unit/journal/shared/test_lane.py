"""Where the writes to a destination are, in a few entries or in many."""

from __future__ import annotations

import itertools
import random

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.journal.shared import lane
from influxrelay.journal.shared.frames import Struck, number_of
from influxrelay.journal.shared.lane import Lane, Span


class LaneTests(SynchronousTestCase):
    """A lane, beside a plain list of the same messages."""

    def build(self, apart: int, seed: int, messages: int = 400) -> tuple[Lane, list[Span]]:
        """Return a lane with some messages, which are so far apart at most, in entries of few, and the list."""
        rng = random.Random(seed)
        self.patch(lane, "EXACT", 16)
        self.patch(lane, "MOST_MESSAGES", 8)
        self.patch(lane, "MOST_BYTES", 500)
        made, plain, seq = Lane(), [], 0
        for _ in range(messages):
            seq += rng.randint(1, apart)
            first, count = rng.randrange(3), rng.randint(1, 4)
            span = Span((seq,), first, first + count - 1, count, 10 * count * rng.choice((1, 1, 1, 50)), float(seq))
            made.add(span)
            plain.append(span)
        return made, plain

    def test_messages(self) -> None:
        """Behind each number it finds all messages, and none where there is none; old ones share entries."""
        for apart in (1, 3, 20_000):
            made, plain = self.build(apart, apart)
            self.assertLess(len(made), 250)
            for span in plain[::7]:
                seq = span.seqs[0]
                for index in (0, span.last):
                    number = number_of(seq, index)
                    found = [each for after in made.after(number) for each in after.seqs if each >= seq]
                    expected = [each.seqs[0] for each in plain if number_of(each.seqs[0], each.last) > number]
                    self.assertEqual(found[-len(expected) :], expected)
                    self.assertLessEqual(len(found) - len(expected), 1)  # this one, if it is passed
                self.assertEqual(
                    [made.has(each) for each in (seq, seq + 1)], [True, any(seq + 1 in each.seqs for each in plain)]
                )
            self.assertEqual(made.last_number, number_of(plain[-1].seqs[0], plain[-1].last))

    def test_total(self) -> None:
        """What is counted part by part is all of it, once, and each part is right up to an entry."""
        made, plain = self.build(2, 5)
        last = plain[-1].seqs[0]
        cuts = [0, *sorted(random.Random(1).sample(range(1, last), 40)), last]
        parts = [made.total(one, other) for one, other in itertools.pairwise(cuts)]
        self.assertEqual(sum(each.writes for each in parts), sum(each.count for each in plain))
        self.assertEqual(sum(each.bytes for each in parts), sum(each.size for each in plain))
        for (one, other), part in zip(itertools.pairwise(cuts), parts, strict=True):
            inside = [each for each in plain if one < each.seqs[0] <= other]
            self.assertLess(abs(part.writes - sum(each.count for each in inside)), 2 * 8 * 4)
            if part.writes and inside:
                self.assertLessEqual(part.first, inside[0].oldest)
                self.assertGreaterEqual(part.last, inside[-1].oldest)

    def test_struck_and_forgotten(self) -> None:
        """What is struck is not counted, also in an entry of several; what is forgotten is gone entry by entry."""
        made, plain = self.build(3, 9)
        whole = made.total(0, plain[-1].seqs[0]).writes
        for span in plain[::10]:
            made.strike(Struck(number_of(span.seqs[0], span.first), 10))
        made.strike(Struck(number_of(plain[-1].seqs[0] + 1, 0), 10))
        self.assertEqual(made.total(0, plain[-1].seqs[0]).writes, whole - 40)
        half = plain[200].seqs[0]
        made.forget(half)
        left = [seq for each in made.after(0) for seq in each.seqs]
        self.assertEqual(left[-199:], [each.seqs[0] for each in plain[201:]])
        self.assertLess(len(left), 199 + 8)
        for span in plain[:100]:
            self.assertFalse(made.has(span.seqs[0]))
        made.forget(plain[-1].seqs[0])
        self.assertEqual(len(made), 0)
