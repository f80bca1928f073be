"""A fan-out before scripted senders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.task import Clock

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Destination, Reply, Write
from influxrelay.delivery.fanout import FanOut
from influxrelay.delivery.hand_out import BesideJournal, HandOut, JournalFirst
from testing.senders import FakeSender

WRITE = Write(Destination(b"db", b"", b"ns", (b"", b"", b"")), b"db=db", b"", b"m f=1 1\n")


def failure(status: int | None = None, reason: str = "refused") -> BackendFailure:
    """Return a failure, with an answer if there is a status."""
    if status is None:
        return BackendFailure(reason, "x")
    return BackendFailure(str(status), "x", Reply(status, ((b"X", b"%d" % status),), b"words of %d" % status))


def make_hand_out(
    reactor: Any, journal: Any = None, *, journal_first: bool = False, clock: Callable[[], float] = lambda: 0.0
) -> HandOut:
    """Return how a fan-out with or without a journal gives its senders what it accepts."""
    if journal is None:
        return HandOut(reactor, clock=clock)
    return (JournalFirst if journal_first else BesideJournal)(journal, reactor, clock=clock)


def fan_out(
    senders: Sequence[FakeSender],
    name: str = "test",
    *,
    journal: Any = None,
    journal_first: bool = False,
    **settings: Any,
) -> FanOut:
    """Return a fan-out to these."""
    there: Any = senders
    hand_out = make_hand_out(Clock(), journal, journal_first=journal_first, clock=lambda: 7.0)
    return FanOut(name, there, hand_out, **settings)
