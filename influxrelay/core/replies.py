"""Answers of our own."""

from __future__ import annotations

import json
import re

from influxrelay.core.write import Reply

_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


def json_error(status: int, message: str, *headers: tuple[bytes, bytes]) -> Reply:
    """Return an error of our own in the form of InfluxDB's (``services/httpd/handler.go``, ``httpError``)."""
    shown = _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", " ".join(message.split()))
    text = json.dumps({"error": message}, ensure_ascii=False, separators=(",", ":"))
    return Reply(
        status,
        (
            (b"Content-Type", b"application/json"),
            (b"X-Influxdb-Error", shown.encode("ascii", "backslashreplace")),
            *headers,
        ),
        text.encode(errors="backslashreplace") + b"\n",
    )


UNABLE = json_error(503, "unable to write points")


TAKEN = Reply(204)
