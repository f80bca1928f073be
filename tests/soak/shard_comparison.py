"""Ten thousand queries by chance over shards, each compared with what one server with all the data says.

Run it with ``python -m tests.soak.shard_comparison``; other queries with another ``--seed``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile

from testing.servers import Influxd
from testing.sharding import compare


def main() -> int:
    """Run it; return the exit code, which is 1 if a result differs."""
    parser = argparse.ArgumentParser(description="compare queries over shards with one server")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=10_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="influxrelay-shards-") as directory, Influxd(directory) as server:
        found = compare(server, chosen.seed, chosen.count)
    outcomes = found.outcomes
    summary = (
        f"{outcomes['equal']} equal ({outcomes['with rows']} with rows), {outcomes['refused']} refused, "
        f"{outcomes['differing']} differing"
    )
    print(summary)  # noqa: T201
    for reason, count in found.reasons.most_common():
        print(f"{count:6} refused: {reason}")  # noqa: T201
    for text, difference in found.differing:
        print(f"differing: {text}\n    {difference}")  # noqa: T201
    return 1 if found.differing else 0


if __name__ == "__main__":
    sys.exit(main())
