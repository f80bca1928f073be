"""The token bucket."""

from __future__ import annotations

import random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.token_bucket import TokenBucket


class TokenBucketTests(SynchronousTestCase):
    """What is admitted, and when."""

    def setUp(self) -> None:
        """Have a clock that does not begin at zero."""
        self.clock = Clock()
        self.clock.advance(12345)

    def bucket(self, rate: float, burst: int) -> TokenBucket:
        """Return a bucket on the clock."""
        return TokenBucket(rate, burst, self.clock.seconds)

    def test_burst(self) -> None:
        """A full bucket admits the burst at once, and then tells the time of the next token."""
        bucket = self.bucket(2.0, 3)
        self.assertEqual([bucket.take() for _ in range(5)], [0, 0, 0, 0.5, 0.5])

    def test_refills(self) -> None:
        """Tokens come back at the rate."""
        bucket = self.bucket(2.0, 3)
        for _ in range(3):
            bucket.take()
        self.clock.advance(0.25)
        self.assertAlmostEqual(bucket.take(), 0.25)
        self.clock.advance(0.25)
        self.assertEqual(bucket.take(), 0)
        self.assertAlmostEqual(bucket.take(), 0.5)

    def test_never_above_the_burst(self) -> None:
        """However long nothing came, no more than the burst is admitted at once."""
        bucket = self.bucket(1000.0, 2)
        self.clock.advance(3600)
        self.assertEqual([bucket.take() == 0 for _ in range(4)], [True, True, False, False])

    def test_fractions(self) -> None:
        """A rate below one a second works."""
        bucket = self.bucket(0.1, 1)
        self.assertEqual(bucket.take(), 0)
        self.assertAlmostEqual(bucket.take(), 10)
        self.clock.advance(10.001)
        self.assertEqual(bucket.take(), 0)

    def test_refusals_cost_nothing(self) -> None:
        """Asking while it is empty takes no token."""
        bucket = self.bucket(1.0, 1)
        bucket.take()
        for _ in range(100):
            self.assertGreater(bucket.take(), 0)
        self.clock.advance(1.001)
        self.assertEqual(bucket.take(), 0)

    def test_long_run(self) -> None:
        """In the long run exactly rate a second and the burst are admitted, whatever the rhythm of asking."""
        rng = random.Random(1)
        bucket = self.bucket(5.0, 10)
        start, admitted = self.clock.seconds(), 0
        for _ in range(20_000):
            admitted += bucket.take() == 0
            self.clock.advance(rng.random() * 0.05)
        limit = 10 + 5.0 * (self.clock.seconds() - start)
        self.assertLessEqual(admitted, limit)
        self.assertGreater(admitted, limit - 2)

    def test_the_wait_is_true(self) -> None:
        """Who waits as long as told, and a millisecond, is admitted."""
        rng = random.Random(2)
        for _ in range(200):
            bucket = self.bucket(rng.random() * 1000 + 0.01, rng.randint(1, 5))
            while not (wait := bucket.take()):
                pass
            self.clock.advance(wait + 0.001)
            self.assertEqual(bucket.take(), 0)
