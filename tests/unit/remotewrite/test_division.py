"""What is sent again of a request that was rolled back for some of its samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.remotewrite.bodies import series, without_series
from influxrelay.remotewrite.division import HALVES, QUARTERS, divide
from influxrelay.remotewrite.wire import fields
from testing.remote_write import Timeseries, version_1
from testing.remote_write_requests import SOME, TEXT, points


class Receiver:
    """Takes whole requests only, and of each series only samples that are newer than what it has.

    :param heads: the time of the newest sample of each series; of others it has none.
    :ivar requests: how many it was sent, and their ``size`` in bytes.
    """

    def __init__(self, heads: Sequence[int]) -> None:
        self.heads = dict(enumerate(heads))
        self.taken: list[tuple[int, int]] = []
        self.requests = self.size = 0

    def take(self, message: bytes) -> bool:
        """Take a request, or refuse it."""
        self.requests += 1
        self.size += len(message)
        heads, new = dict(self.heads), []
        for each in series(message, version=1):
            name = int(each.label(b"series"))
            ((_, _, _, start, end),) = fields(each.field)
            for number, _, _, first, last in fields(each.field, start, end):
                if number == 2:
                    (time,) = (
                        each.field[begin:stop][0] for n, _, _, begin, stop in fields(each.field, first, last) if n == 2
                    )
                    if time <= heads.get(name, -1):
                        return False
                    heads[name] = time
                    new.append((name, time))
        self.heads, self.taken = heads, [*self.taken, *new]
        return True


def deliver(message: bytes, receiver: Receiver, *, from_oldest: bool = True) -> None:
    """Send a request, and what is to be sent again of it."""
    waiting, pieces = [message], HALVES
    while waiting:
        part = waiting.pop(0)
        if not receiver.take(part):
            waiting[:0] = divide(part, pieces, from_oldest=from_oldest)
            pieces = QUARTERS


def request(lengths: Sequence[int]) -> bytes:
    """Return a request with so many series, and so many samples in each, at the times 1, 2, 3 and so on."""
    return version_1(
        [Timeseries({"series": str(n)}, [(1.0, 1 + time) for time in range(many)]) for n, many in enumerate(lengths)]
    )


class DivisionTests(SynchronousTestCase):
    """Requests that were refused."""

    @given(SOME, st.lists(TEXT, max_size=2), st.sampled_from((HALVES, QUARTERS)))
    def test_pieces(self, some: list[Timeseries], metadata: list[str], pieces: int) -> None:
        """Pieces say together what the whole said, in order, and end with single points."""
        waiting, single = [version_1(some, metadata)], []
        rounds = 0
        while waiting:
            message = waiting.pop(0)
            divided = divide(message, pieces)
            self.assertLessEqual(len(divided), pieces)
            if not divided:
                single.append(message)
                self.assertLessEqual(len(points(message)), 1)
            waiting[:0] = divided
            rounds += 1
        self.assertEqual(points(*single), points(version_1(some, metadata)))
        self.assertEqual(sum(without_series(each, version=1).count(b"\x1a") for each in single) > 0, bool(metadata))
        self.assertLess(rounds, 200)

    @given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 7)), min_size=1, max_size=40), st.booleans())
    def test_all_good_samples(self, shape: list[tuple[int, int]], from_oldest: bool) -> None:  # noqa: FBT001
        """Whatever the receiver has, it has every sample in the end that it may take, each once and in order."""
        receiver = Receiver([head for _, head in shape])
        deliver(request([many for many, _ in shape]), receiver, from_oldest=from_oldest)
        wanted = [(n, time) for n, (many, head) in enumerate(shape) for time in range(head + 1, many + 1)]
        self.assertEqual(sorted(receiver.taken), wanted)
        for name in range(len(shape)):
            times = [time for each, time in receiver.taken if each == name]
            self.assertEqual(times, sorted(times))

    def test_cost_of_one(self) -> None:
        """One stale sample costs about as many requests as halving twice would, wherever it is."""
        for place in range(0, 500, 37):
            receiver = Receiver([1 if n == place else 0 for n in range(500)])
            deliver(request([1] * 500), receiver)
            self.assertEqual(len(receiver.taken), 499)
            self.assertLessEqual(receiver.requests, 21)

    def test_cost_of_all(self) -> None:
        """A request in which each sample is stale costs 5/3 requests a series at most, and one for further samples."""
        for count, many in ((1, 1), (2, 1), (7, 1), (500, 1), (501, 1), (100, 5), (1, 60), (1, 2000)):
            receiver = Receiver([many] * count)
            deliver(request([many] * count), receiver)
            self.assertEqual(receiver.taken, [])
            self.assertLess(receiver.size, 200 * count * many * (4 + math.log2(count * many)))
            self.assertLessEqual(receiver.requests, 3 + count * 5 / 3 + count * (many - 1))

    def test_exemplars(self) -> None:
        """Exemplars go with the newest samples, once."""
        message = version_1([Timeseries({"a": "b"}, [(1.0, time) for time in range(20)], exemplars=2)])
        self.assertEqual(points(*divide(message, from_oldest=True)), points(message)[1:])

    def test_not_in_order(self) -> None:
        """A series that is not in order, or has histograms, is divided without a guess at which sample is stale."""
        for one in (
            Timeseries({"a": "b"}, [(1.0, 2), (1.0, 1)]),
            Timeseries({"a": "b"}, [(1.0, -1), (1.0, 1)], histograms=1),
        ):
            message = version_1([one])
            self.assertEqual(points(*divide(message, from_oldest=True)), points(message))
        before_1970 = version_1([Timeseries({"a": "b"}, [(1.0, -2), (1.0, -1), (1.0, 1)])])
        self.assertEqual(points(*divide(before_1970, from_oldest=True)), points(before_1970)[1:])
