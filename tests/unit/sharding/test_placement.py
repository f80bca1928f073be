"""Where keys belong."""

from __future__ import annotations

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.sharding.placement import Epoch, ShardKey, ShardMap

KEYS = [b"customer-%d" % number for number in range(100_000)]
TEN = [(f"s{number}", 1.0) for number in range(10)]
DECEMBER = 1_796_083_200_000_000_000


class EpochTests(SynchronousTestCase):
    """The keys of one epoch."""

    def test_even(self) -> None:
        """Of 10 shards with 100,000 keys none has more than 1.1 of its due, and none less than 0.9."""
        epoch = Epoch(None, TEN)
        counts = Counter(map(epoch.place, KEYS))
        self.assertEqual(set(counts), {name for name, _ in TEN})
        self.assertLessEqual(max(counts.values()), 11_000)
        self.assertGreaterEqual(min(counts.values()), 9_000)

    def test_weights(self) -> None:
        """A shard gets the part of the keys that its weight is of all weights."""
        epoch = Epoch(None, [("a", 1), ("b", 2), ("c", 0.5)])
        counts = Counter(map(epoch.place, KEYS))
        for name, weight in epoch.shards:
            self.assertApproximates(counts[name] / len(KEYS), weight / 3.5, 0.01)

    def test_growth_moves_only_to_the_new_one(self) -> None:
        """With an eleventh shard a key stays where it was, or goes to the new shard: about one in eleven does."""
        ten, eleven = Epoch(None, TEN), Epoch(None, [*TEN, ("s10", 1)])
        moved = {(ten.place(key), eleven.place(key)) for key in KEYS if ten.place(key) != eleven.place(key)}
        self.assertEqual({after for _, after in moved}, {"s10"})
        self.assertApproximates(sum(eleven.place(key) == "s10" for key in KEYS) / len(KEYS), 1 / 11, 0.01)

    def test_documented_hash(self) -> None:
        """The places are those that the documented hash gives, whatever the order of the shards."""
        shards = [("s1", 1.0), ("s2", 1.0), ("s3", 2.0)]
        for order in (shards, shards[::-1]):
            places = [Epoch(None, order).place(key) for key in (b"acme", b"a", b"b", b"c", b"d", b"e")]
            self.assertEqual(places, ["s2", "s3", "s2", "s1", "s3", "s1"])

    def test_pins(self) -> None:
        """A pinned key is where its pin says, and the others are where they would be without."""
        plain, pinned = Epoch(None, TEN), Epoch(None, TEN, {b"acme": "s3", b"customer-7": "s9"})
        self.assertEqual((pinned.place(b"acme"), pinned.place(b"customer-7")), ("s3", "s9"))
        others = [key for key in KEYS[:1000] if key != b"customer-7"]
        self.assertEqual(list(map(pinned.place, others)), list(map(plain.place, others)))

    def test_memory_is_bounded(self) -> None:
        """However many keys are asked for, a bounded number is remembered, and no long one."""
        epoch = Epoch(None, TEN[:2])
        long = b"x" * 10_000
        before = epoch.place(long)
        for key in KEYS:
            epoch.place(key)
        self.assertLessEqual(len(epoch._places), 64 * 1024)
        self.assertNotIn(long, epoch._places)
        self.assertEqual(epoch.place(long), before)


class ShardMapTests(SynchronousTestCase):
    """The epochs."""

    first = Epoch(None, TEN)
    second = Epoch(DECEMBER, [*TEN, ("s10", 1)])

    def test_new_epoch_moves_no_point(self) -> None:
        """A shard that is added in a new epoch moves no point from before it, and gets its due from then on."""
        before, after = ShardMap(ShardKey(), [self.first]), ShardMap(ShardKey(), [self.second, self.first])
        for key in KEYS[:10_000]:
            self.assertEqual(before.place(key, DECEMBER - 1), after.place(key, DECEMBER - 1))
        later = Counter(after.place(key, DECEMBER) for key in KEYS)
        self.assertLessEqual(max(later.values()), 1.1 * len(KEYS) / 11)

    def test_borders(self) -> None:
        """An epoch begins with its first nanosecond; a range touches the epochs of both of its bounds."""
        shards = ShardMap(ShardKey(), [self.first, self.second])
        self.assertIs(shards.epoch_at(DECEMBER - 1), self.first)
        self.assertIs(shards.epoch_at(DECEMBER), self.second)
        self.assertEqual(shards.epochs_between(None, DECEMBER - 1), [self.first])
        self.assertEqual(shards.epochs_between(DECEMBER, None), [self.second])
        self.assertEqual(shards.epochs_between(DECEMBER - 1, DECEMBER), [self.first, self.second])
        self.assertEqual(shards.epochs_between(None, None), [self.first, self.second])

    def test_earliest_holds_before_itself(self) -> None:
        """The earliest epoch holds for the time before it, whether or not it has a beginning."""
        late = Epoch(DECEMBER, TEN)
        shards = ShardMap(ShardKey(), [late])
        self.assertIs(shards.epoch_at(0), late)
        self.assertEqual(shards.epochs_between(None, 0), [late])

    def test_default(self) -> None:
        """What has no key is in the default shard, at any time; without one it has no place."""
        key = ShardKey.read("tag:customer_id")
        shards = ShardMap(key, [self.first, self.second], "s0")
        self.assertEqual({shards.place(key, time) for key in (None, b"") for time in (0, DECEMBER)}, {"s0"})
        with self.assertRaises(LookupError):
            ShardMap(key, [self.first]).place(None, 0)

    def test_names(self) -> None:
        """All shards are named that may have something in a range, the default one and those of pins included."""
        two = Epoch(DECEMBER, [("s1", 1), ("s2", 1)], {b"acme": "s2"})
        shards = ShardMap(ShardKey(b"t"), [Epoch(None, [("s1", 1)]), two], "s3")
        self.assertEqual(shards.shards, ("s1", "s2", "s3"))
        self.assertEqual(shards.shards_between(None, 0), ("s1", "s3"))

    def test_keys(self) -> None:
        """A key is the measurement, or a tag with its name, which may have a colon."""
        self.assertEqual(str(ShardKey.read("measurement")), "measurement")
        self.assertEqual(ShardKey.read("tag:a:b"), ShardKey(b"a:b"))
        self.assertEqual(str(ShardKey.read("tag:customer_id")), "tag:customer_id")
