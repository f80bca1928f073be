"""The fan-out to all backends, and the rule by which their answers become the client's."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from influxrelay.answers import is_presentable
from influxrelay.errors import BackendFailure
from influxrelay.lane import Road
from influxrelay.write import Reply, Write

_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


def json_error(status: int, message: str, *headers: tuple[bytes, bytes]) -> Reply:
    """Return an error of our own in the form of InfluxDB's (``services/httpd/handler.go``, ``httpError``)."""
    shown = _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", " ".join(message.split()))
    return Reply(
        status,
        (
            (b"Content-Type", b"application/json"),
            (b"X-Influxdb-Error", shown.encode("ascii", "backslashreplace")),
            *headers,
        ),
        json.dumps({"error": message}, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace")
        + b"\n",
    )


UNABLE = json_error(503, "unable to write points")


class Relay:
    """One listener's backends.

    :ivar name: the listener's, for the log.
    """

    def __init__(self, name: str, roads: Sequence[Road]) -> None:
        self.name = name
        self.roads = tuple(roads)

    def submit(self, write: Write) -> Deferred[Reply]:
        """Send a write to every backend, and fire with the answer for the client.

        That is the first 2xx or 4xx, at once. When all have failed it is one of their 5xx, else of their 408, 425 and
        429, else 503. Each backend gets the write, whoever was first. Never fails.
        """
        answers = [road.submit(write) for road in self.roads]
        first = DeferredList(answers, fireOnOneCallback=True, consumeErrors=True)
        return cast("Deferred[Reply]", first.addCallback(_settle))


def _settle(result: Any) -> Reply:
    """Read what a DeferredList with ``fireOnOneCallback`` fires with: one (reply, index), or all the failures."""
    if isinstance(result, tuple):
        return cast("Reply", result[0])
    replies = [reply for _, failure in result if (reply := _shown(failure)) is not None]
    return max(replies, key=lambda reply: reply.status, default=UNABLE)


def _shown(failure: Failure) -> Reply | None:
    problem = failure.value
    reply = problem.reply if isinstance(problem, BackendFailure) else None
    return reply if reply is not None and is_presentable(reply) else None
