"""A fan-out before scripted senders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.task import Clock

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.fanout import FanOut
from testing.senders import FakeSender

WRITE = Write(Destination(b"db", b"", b"ns", (b"", b"", b"")), b"db=db", b"", b"m f=1 1\n")


def failure(status: int | None = None, reason: str = "refused") -> BackendFailure:
    """Return a failure, with an answer if there is a status."""
    if status is None:
        return BackendFailure(reason, "x")
    return BackendFailure(str(status), "x", Reply(status, ((b"X", b"%d" % status),), b"words of %d" % status))


def fan_out(senders: Sequence[FakeSender], name: str = "test", **settings: Any) -> FanOut:
    """Return a fan-out to these."""
    there: Any = senders
    return FanOut(name, there, Clock(), clock=lambda: 7.0, **settings)
