"""InfluxDB 2.x as one that is asked in InfluxQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.transport.tls import ClientTLS
from influxrelay.verification.influxdb2 import InfluxDB2
from influxrelay.verification.schema import read_schema
from influxrelay.verification.server import Series

_DAY = 86_400 * 10**9


@attrs.define
class _Scripted(InfluxDB2):
    """Has points of one second, in buckets with shard groups of a day.

    :ivar names: of the buckets, by database and retention policy.
    """

    names: dict[tuple[str, str], str] = attrs.field(factory=dict)
    times: tuple[int, ...] = ()

    def get(self, path: str, asked: Mapping[str, str], read: Callable[[bytes], Any], **_: Any) -> Any:
        """Answer as the API does."""
        if path == "/api/v2/dbrps":
            return {
                "content": [
                    {
                        "database": place[0],
                        "retention_policy": place[1],
                        "bucketID": name.encode().hex(),
                        "default": place[1] == "autogen",
                    }
                    for place, name in self.names.items()
                    if asked.get("db", place[0]) == place[0]
                ]
            }
        rules = [{"everySeconds": 90_061, "shardGroupDurationSeconds": 86_400}]
        return {"name": bytes.fromhex(path.rpartition("/")[2]).decode(), "retentionRules": rules}

    def ask(self, statement: str) -> list[Series]:
        """Say whether there are points."""
        since, until = map(int, re.findall(r"time [<>]= (-?\d+)", statement))
        return [Series("m", {}, [], [])] if any(since <= time <= until for time in self.times) else []


class BucketTests(SynchronousTestCase):
    """Buckets as databases and retention policies."""

    def test_shard_groups(self) -> None:
        """Shard groups are those days that have points and have not expired; the settings are the bucket's."""
        times = (-(2**63) + 2, -1, 0, _DAY - 1, 3 * _DAY, 2**63 - 2)
        server = _Scripted("b", "/query", ClientTLS(), organization="org", names={("d", "autogen"): "d"}, times=times)
        schema = read_schema(server, -(2**62))
        self.assertEqual(schema.policies["d"]["autogen"]["duration"], "25h1m1s")
        self.assertEqual(schema.policies["d"]["autogen"]["shardGroupDuration"], "24h0m0s")
        groups = [tuple(edge // _DAY for edge in group) for group in schema.groups["d", "autogen"]]
        self.assertEqual(groups[:3], [(-1, 0), (0, 1), (3, 4)])
        self.assertEqual(len(groups), 4)

    def test_written_as(self) -> None:
        """A write names what the relay takes for the bucket that is mapped."""
        for bucket, known, written in (
            ("d/week", {}, ("d", "week")),
            ("d", {}, ("d", "")),
            ("other", {"d/week": "other"}, ("d", "week")),
            ("other", {"d": "other"}, ("d", "")),
            ("other", {}, ("other", "")),
            ("x/y", {}, ("x", "y")),
            ("d", {"d/week": "other"}, ("d", "")),
        ):
            server = _Scripted("b", "/query", ClientTLS(), buckets=tuple(known.items()), names={("d", "week"): bucket})
            server.databases()
            server.retention_policies("d")
            self.assertEqual(server.written_as(("d", "week")), written, (bucket, known))
