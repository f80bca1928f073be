"""A double of InfluxDB 2.7, as far as writers need it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from testing.influxdb_double import Asked, InfluxDBDouble, Said
from testing.points import NANOSECONDS, parse

ORG_ID = "0123456789abcdef"


class InfluxDB2(InfluxDBDouble):
    """A server with one organization.

    :param token: that it takes.
    :param buckets: that there are at first.
    :ivar buckets: to which a test may add.
    """

    def __init__(self, *, token: str = "token", org: str = "org", buckets: Iterable[str] = ()) -> None:
        super().__init__()
        self.token = token
        self.org = org
        self.buckets = set(buckets)

    def answer(self, asked: Asked) -> Said:  # noqa: PLR0911 (one for each path)
        """Answer a request."""
        if asked.path == "/ping":
            return Said(204, headers={"X-Influxdb-Version": "v2.7.12", "X-Influxdb-Build": "OSS"})
        if asked.path == "/health":
            shown = {"name": "influxdb", "message": "ready for queries and writes", "status": "pass", "checks": []}
            return Said(200, {**shown, "version": "v2.7.12", "commit": "ec9dcde5d6"})
        if asked.path == "/ready":
            return Said(200, {"status": "ready", "started": "2026-11-30T12:00:00Z", "up": "1h0m0s"})
        if asked.path == "/query":
            return self._query(asked)
        if asked.path != "/api/v2/write":
            return _error(404, "not found", "path not found")
        if asked.method != "POST":
            return _error(405, "method not allowed", "allow: POST")
        self.asked.append(asked)
        return self._write(asked)

    def _query(self, asked: Asked) -> Said:
        """Answer as the 1.x compatibility API, which knows databases by their mappings to buckets."""
        self.asked.append(asked)
        if self.token not in (asked.secret(), asked.values.get("p")):
            return _error(401, "unauthorized", "unauthorized access")
        place = "/".join(filter(None, (asked.values.get("db", ""), asked.values.get("rp", ""))))
        if place not in self.buckets:
            words = f"database not found: {asked.values.get('db', '')}"
            return Said(200, {"results": [{"statement_id": 0, "error": words}]})
        dropped = re.fullmatch(r"DROP MEASUREMENT (\w+)|DELETE FROM (\w+)", asked.form.get("q", ""))
        if dropped is None:
            return self.query(asked, place)
        contents = self.contents[place]
        for key in [key for key in contents if key[0] in dropped.groups()]:
            del contents[key]
        return Said(200, {"results": [{"statement_id": 0}]})

    def _write(self, asked: Asked) -> Said:  # noqa: PLR0911 (one for each way to fail)
        if asked.headers.get("authorization") not in (f"Token {self.token}", f"Bearer {self.token}"):
            return _error(401, "unauthorized", "unauthorized access")
        org, bucket = asked.values.get("org", ""), asked.values.get("bucket", "")
        if asked.values.get("orgID", org) not in (self.org, ORG_ID):
            return _error(404, "not found", f'organization name "{org}" not found')
        if bucket not in self.buckets:
            return _error(404, "not found", f'bucket "{bucket}" not found')
        unit = NANOSECONDS.get(asked.values.get("precision", "ns"))
        if unit is None:
            return _error(400, "invalid", "invalid precision; valid precision units are ns, us, ms, and s")
        lines = list(parse(asked.body))
        bad = next((line for line in lines if line.key is None), None)
        if bad is not None:
            return _error(400, "invalid", f"unable to parse '{bad.text}': invalid line")
        rejected = ""
        for line in lines:
            field = self.conflict(bucket, line)
            if field:
                rejected = f'field type conflict: input field "{field}" dropped=1'
            else:
                when = line.key[2] if line.key is not None else None
                self.store(bucket, line, time.time_ns() if when is None else when * unit)
        if rejected:
            return _error(422, "unprocessable entity", f"failure writing points to database: partial write: {rejected}")
        return Said(204)


def _error(status: int, code: str, message: str) -> Said:
    return Said(status, {"code": code, "message": message}, {"X-Platform-Error-Code": code})
