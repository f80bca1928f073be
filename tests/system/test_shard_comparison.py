"""Queries over shards, compared with what one server with all the data says."""

from __future__ import annotations

import tempfile
from unittest import TestCase

from testing.servers import Influxd
from testing.sharding import compare


class DifferentialTests(TestCase):
    """Databases of a real server: one with all the data, and others that have it divided."""

    def test_queries_by_chance(self) -> None:
        """Each of some hundred queries is answered by 2, 3 and 5 shards as by one server, or refused; none differs."""
        with tempfile.TemporaryDirectory(prefix="influxrelay-shards-") as directory, Influxd(directory) as server:
            found = compare(server, 1, 400)
        self.assertEqual(found.differing, [])
        self.assertGreater(found.outcomes["with rows"], 100)
        self.assertLess(found.outcomes["refused"], 100)
