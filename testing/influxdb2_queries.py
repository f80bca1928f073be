"""A double of InfluxDB 2.7 that can be queried and written to, in front of a real InfluxDB 1.x server.

InfluxQL and the storage engine of 2.x are those of 1.x. What differs is what this adds, from the source of 2.x:
databases and retention policies are mappings to buckets (``dbrp/service.go``), many statements are not implemented
(``v1/coordinator/statement_executor.go``), and credentials are tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import quote, urlencode

from testing.influxdb2 import ORG_ID
from testing.influxdb_double import Asked, InfluxDBDouble, Said
from testing.servers import Influxd, send

_DAY = 86_400
_IMPLEMENTED = re.compile(r"SELECT|EXPLAIN|SHOW (FIELD KEYS|MEASUREMENTS|SERIES|TAG)|DELETE|DROP MEASUREMENT")
_PRECISIONS = {"ns": "n", "us": "u", "ms": "ms", "s": "s"}

Place = tuple[str, str]
"""A database and a retention policy."""


class QueriedInfluxDB2(InfluxDBDouble):
    """A server with one organization.

    :param server: that keeps the points.
    :param virtual: whether buckets without a mapping have that of their names, as since 2.4.
    :ivar token: for everything, and ``write_token`` for writes alone.
    """

    def __init__(self, server: Influxd, *, virtual: bool = True) -> None:
        super().__init__()
        self.server = server
        self.virtual = virtual
        self.token = "token"
        self.write_token = "write-token"
        self._buckets: dict[str, tuple[Place, int, int]] = {}
        self._mapped: set[str] = set()

    def add_bucket(self, name: str, mapped_to: Place | None = None, *, kept: int = 0, groups: int = 7 * _DAY) -> None:
        """Create a bucket.

        :param mapped_to: the database and the retention policy; None without a mapping, or with that of its name.
        :param kept: seconds that points are kept, and ``groups`` the duration of a shard group.
        """
        database, policy = place = mapped_to or _by_name(name)
        settings = f"DURATION {f'{kept}s' if kept else 'INF'} REPLICATION 1 SHARD DURATION {groups}s"
        for statement in (
            f'CREATE DATABASE "{database}"',
            f'CREATE RETENTION POLICY "{policy}" ON "{database}" {settings}',
            f'ALTER RETENTION POLICY "{policy}" ON "{database}" {settings}',
        ):
            status, body = send("POST", f"{self.server.url}/query?q={quote(statement)}")
            assert status == 200, body
        self._buckets[name] = place, kept, groups
        if mapped_to is not None:
            self._mapped.add(name)

    def answer(self, asked: Asked) -> Said:  # noqa: PLR0911 (one for each path)
        """Answer a request."""
        if asked.path == "/ping":
            return Said(204, headers={"X-Influxdb-Version": "v2.7.12", "X-Influxdb-Build": "OSS"})
        if asked.secret() not in (self.token, self.write_token):
            return _error(401, "unauthorized", "unauthorized access")
        if asked.path == "/api/v2/write":
            return self._write(asked)
        readable = self._buckets if asked.secret() == self.token else {}
        if asked.path == "/query":
            return self._query(asked)
        if asked.values.get("org", "org") != "org":
            return _error(404, "not found", "organization not found")
        if asked.path == "/api/v2/dbrps":
            mappings = [each for bucket in readable for each in self._mappings(bucket) if _is_meant(each, asked)]
            return Said(200, {"content": mappings})
        if asked.path == "/api/v2/buckets":
            name = asked.values.get("name")
            if name is not None and name not in readable:
                return _error(404, "not found", f'bucket "{name}" not found')
            return Said(200, {"buckets": [self._bucket(each) for each in readable if name in (None, each)]})
        found = [each for each in readable if asked.path == f"/api/v2/buckets/{_id(each)}"]
        return Said(200, self._bucket(found[0])) if found else _error(404, "not found", "bucket not found")

    def _mappings(self, bucket: str) -> Iterator[dict[str, object]]:
        """Yield the mappings of a bucket: the one that was made, and that of its name."""
        mapped, _, _ = self._buckets[bucket]
        by_name = _by_name(bucket)
        if bucket in self._mapped:
            yield _mapping(bucket, mapped, virtual=False)
        if self.virtual and (bucket not in self._mapped or by_name != mapped):
            yield _mapping(bucket, by_name, virtual=True)

    def _bucket(self, name: str) -> dict[str, object]:
        _, kept, groups = self._buckets[name]
        rule = {"type": "expire", "everySeconds": kept, "shardGroupDurationSeconds": groups}
        return {"id": _id(name), "orgID": ORG_ID, "name": name, "type": "user", "retentionRules": [rule]}

    def _query(self, asked: Asked) -> Said:
        form = {**asked.values, **asked.form}
        statement = form.get("q", "")
        if not _IMPLEMENTED.match(statement):
            words = f"not implemented: {' '.join(re.findall('[A-Z]+', statement)[:3])}"
            return Said(200, {"results": [{"statement_id": 0, "error": words}]})
        status, body = send("POST", f"{self.server.url}/query", urlencode(form).encode(), timeout=60)
        return Said(status, body.decode())

    def _write(self, asked: Asked) -> Said:
        if asked.values.get("org") != "org":
            return _error(404, "not found", f'organization name "{asked.values.get("org")}" not found')
        bucket = asked.values.get("bucket", "")
        if bucket not in self._buckets:
            return _error(404, "not found", f'bucket "{bucket}" not found')
        (database, policy), _, _ = self._buckets[bucket]
        precision = _PRECISIONS[asked.values.get("precision", "ns")]
        target = urlencode({"db": database, "rp": policy, "precision": precision})
        status, body = send("POST", f"{self.server.url}/write?{target}", asked.body)
        if status == 204:
            return Said(204)
        message = json.loads(body)["error"]
        if "partial write" in message:
            return _error(422, "unprocessable entity", f"failure writing points to database: {message}")
        return _error(status, "invalid", message)


def _by_name(bucket: str) -> Place:
    database, _, policy = bucket.partition("/")
    return database, policy or "autogen"


def _mapping(bucket: str, place: Place, *, virtual: bool) -> dict[str, object]:
    return {
        "id": _id(bucket),
        "orgID": ORG_ID,
        "bucketID": _id(bucket),
        "database": place[0],
        "retention_policy": place[1],
        "default": place[1] == "autogen",
        "virtual": virtual,
    }


def _is_meant(mapping: dict[str, object], asked: Asked) -> bool:
    return asked.values.get("db", mapping["database"]) == mapping["database"]


def _id(bucket: str) -> str:
    return bucket.encode().hex()[:16].ljust(16, "0")


def _error(status: int, code: str, message: str) -> Said:
    return Said(status, {"code": code, "message": message}, {"X-Platform-Error-Code": code})
