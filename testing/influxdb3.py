"""A double of InfluxDB 3 Core, as far as writers need it."""

from __future__ import annotations

import re
import time
from typing import Any

from influxrelay.lineprotocol.timestamps import guess
from testing.influxdb_double import Asked, InfluxDBDouble, Said
from testing.points import NANOSECONDS, Parsed, parse

_LONG = {"nanosecond": "ns", "microsecond": "us", "millisecond": "ms", "second": "s"}


class InfluxDB3(InfluxDBDouble):
    """A server that creates databases with their first write.

    :param token: that it takes.
    """

    def __init__(self, *, token: str = "token") -> None:
        super().__init__()
        self.token = token

    def answer(self, asked: Asked) -> Said:
        """Answer a request."""
        if asked.path == "/health":
            return Said(200, "OK")
        if self.token not in (asked.secret(), asked.values.get("p")):
            return Said(401, {"error": "the request was not authenticated"})
        if asked.path == "/ping":
            return Said(
                200, {"version": "3.6.0", "revision": "abcdef", "process_id": "1"}, {"x-influxdb-version": "3.6.0"}
            )
        if asked.path == "/query":
            self.asked.append(asked)
            return self.query(asked, asked.form.get("db") or asked.values.get("db", ""))
        if asked.path != "/api/v3/write_lp" or asked.method != "POST":
            return Said(404 if asked.path != "/api/v3/write_lp" else 405, "not found")
        self.asked.append(asked)
        return self._write(asked)

    def _write(self, asked: Asked) -> Said:
        database = asked.values.get("db", "")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_/-]*", database):
            return Said(400, {"error": "invalid database name"})
        given = asked.values.get("precision", "auto")
        precision = _LONG.get(given, given)
        if precision not in (*NANOSECONDS, "auto"):
            return Said(400, {"error": f"serde error: unknown variant `{given}`"})
        good: list[Parsed] = []
        bad: list[dict[str, Any]] = []
        for line in parse(asked.body):
            trouble = "invalid line" if line.key is None else self._conflict(database, line)
            if trouble:
                bad.append({"original_line": line.text, "line_number": line.number, "error_message": trouble})
            else:
                good.append(line)
        if bad and asked.values.get("accept_partial") == "false":
            return Said(400, {"error": "parsing failed for write_lp endpoint", "data": bad[0]})
        for line in good:
            self.store(database, line, _time(line, precision))
        if bad:
            return Said(400, {"error": "partial write of line protocol occurred", "data": bad})
        return Said(204)

    def _conflict(self, database: str, line: Parsed) -> str:
        field = self.conflict(database, line)
        return f"invalid column type for column '{field}'" if field else ""


def _time(line: Parsed, precision: str) -> int:
    when = line.key[2] if line.key is not None else None
    if when is None:
        return time.time_ns()
    return int(guess(b"%d" % when)) if precision == "auto" else when * NANOSECONDS[precision]
