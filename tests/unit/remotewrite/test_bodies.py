"""Requests of remote write: counted, read, divided and merged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.remotewrite.bodies import NAME, Counts, check_slowly, count, series
from influxrelay.remotewrite.snappy import BodyError, BodyTooLargeError, joined, pack, unpack
from influxrelay.remotewrite.wire import fields
from testing.remote_write import Timeseries, version_1, version_2
from testing.remote_write_requests import SOME, TEXT, points


def totals(some: list[Timeseries]) -> Counts:
    """Return what the series hold together."""
    return Counts(
        sum(len(each.samples) for each in some),
        sum(each.histograms for each in some),
        sum(each.exemplars for each in some),
        len(some),
    )


class CountTests(SynchronousTestCase):
    """What a request holds."""

    @given(SOME)
    def test_counts(self, some: list[Timeseries]) -> None:
        """Samples, histograms, exemplars and series are counted in both versions."""
        self.assertEqual(count(version_1(some, ["m"]), version=1), totals(some))
        self.assertEqual(count(version_2(some), version=2), totals(some))

    @given(SOME)
    def test_labels(self, some: list[Timeseries]) -> None:
        """Each series has its labels, in both versions."""
        wanted = [[(k.encode(), v.encode()) for k, v in each.labels.items()] for each in some]
        for message, version in ((version_1(some), 1), (version_2(some), 2)):
            self.assertEqual([list(each.labels) for each in series(message, version=version)], wanted)

    def test_label(self) -> None:
        """A label that is not there is empty."""
        (found,) = series(version_1([Timeseries({"__name__": "up", "job": "x"})]), version=1)
        self.assertEqual((found.label(NAME), found.label(b"job"), found.label(b"other")), (b"up", b"x", b""))

    def test_symbols(self) -> None:
        """A series that refers to symbols which are not there is no series."""
        message = version_2([Timeseries({"a": "b"})]).replace(b"\x22\x01b", b"")
        self.assertRaises(BodyError, list, series(message, version=2))

    @given(st.binary(max_size=40))
    def test_garbage(self, data: bytes) -> None:
        """Any bytes are counted or refused."""
        for version in (1, 2):
            try:
                count(data, version=version)
                list(series(data, version=version))
            except BodyError:
                pass

    @given(SOME, st.data())
    def test_truncated(self, some: list[Timeseries], data: st.DataObject) -> None:
        """A request that is cut off within a field is refused."""
        message = version_1(some)
        ends = {0, *(end for _, _, _, _, end in fields(message))}
        cut = data.draw(st.integers(0, len(message)))
        if cut not in ends:
            self.assertRaises(BodyError, count, message[:cut], version=1)


class CheckTests(SynchronousTestCase):
    """Whether another request can be joined."""

    def check(self, message: bytes) -> bool:
        """Tell whether a request is made of whole fields."""
        try:
            list(check_slowly(message))
        except BodyError:
            return False
        return True

    @given(SOME, st.lists(TEXT, max_size=2), st.integers(0, 20_000), st.data())
    def test_cut(self, some: list[Timeseries], metadata: list[str], size: int, data: st.DataObject) -> None:
        """A request is made of whole fields as long as it is cut between two of them, whatever their length."""
        long = Timeseries({"__name__": "x" * size})
        message = version_1([*some, long, *some], metadata)
        ends = {0, *(end for _, _, _, _, end in fields(message))}
        cut = data.draw(st.integers(0, len(message)) | st.sampled_from(sorted(ends)))
        self.assertEqual(self.check(message[:cut]), cut in ends)

    @given(st.binary(max_size=40))
    def test_garbage(self, data: bytes) -> None:
        """Any bytes are taken or refused as they are when read field by field."""
        try:
            list(fields(data))
            expected = True
        except BodyError:
            expected = False
        self.assertEqual(self.check(data), expected)


class MergeTests(SynchronousTestCase):
    """Requests joined."""

    @given(SOME, SOME)
    def test_merged(self, some: list[Timeseries], others: list[Timeseries]) -> None:
        """One request of two has all that they had."""
        one, two = version_1(some, ["a"]), version_1(others)
        both = unpack(joined((pack(one), pack(two))))
        self.assertEqual(both, one + two)
        self.assertEqual(points(both), points(one, two))
        self.assertEqual(count(both, version=1).series, len(some) + len(others))


class SnappyTests(SynchronousTestCase):
    """The compression."""

    @given(st.binary(max_size=2000))
    def test_round(self, data: bytes) -> None:
        """What was packed is unpacked again."""
        self.assertEqual(unpack(pack(data)), data)

    @given(st.lists(st.binary(max_size=2000) | st.binary(max_size=3).map(lambda data: 40_000 * data), max_size=5))
    def test_joined(self, data: list[bytes]) -> None:
        """Blocks that are joined without unpacking hold together what each of them holds."""
        self.assertEqual(unpack(joined(map(pack, data))), b"".join(data))

    def test_limit(self) -> None:
        """A block that holds too much is refused, whatever it really holds."""
        body = pack(b"x" * 1000)
        self.assertEqual(len(unpack(body, 1000)), 1000)
        self.assertRaises(BodyTooLargeError, unpack, body, 999)
        self.assertRaises(BodyTooLargeError, unpack, b"\xff\xff\xff\xff\x0fx", 10**6)

    def test_garbage(self) -> None:
        """What is no block is refused."""
        for body in (b"", b"\x80", b"\x05abc", pack(b"x" * 1000)[:-1], b"\xff\xff\xff\xff\x0fx"):
            self.assertRaises(BodyError, unpack, body, 2**31)
