"""Asking servers and the relay at a pace, and again while they restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.operations.views import Refused, Request
from influxrelay.transport.tls import ClientTLS
from influxrelay.verification.connection import Connection, Unanswered
from influxrelay.verification.relay_writer import Relay, RelayWriter
from influxrelay.verification.statements import Measurement

M = Measurement("d", "r", "m")


@attrs.define
class Time:
    """A clock, and how long whoever has asked was waiting for answers."""

    now: float = 0.0
    busy: float = 0.0

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def work(self, seconds: float) -> None:
        """Let time pass in which somebody is busy."""
        self.now += seconds
        self.busy += seconds


@attrs.define
class Slow(Connection):
    """A server that takes its time: for each request some seconds, and an answer or a failure."""

    time: Time = attrs.field(factory=Time)
    answers: Iterator[tuple[float, bytes | Exception]] = attrs.field(factory=lambda: iter(()))

    def _exchange(self, *_: Any, **__: Any) -> bytes:
        seconds, found = next(self.answers)
        self.time.work(seconds)
        if isinstance(found, Exception):
            raise found
        return found


class PaceTests(SynchronousTestCase):
    """``--share``."""

    def slow(self, share: float, *answers: tuple[float, bytes | Exception]) -> Slow:
        """Return a server."""
        now = Time()
        return Slow(
            "a",
            "http://a/query",
            ClientTLS(),
            share=share,
            sleep=now.sleep,
            clock=lambda: now.now,
            time=now,
            answers=iter(answers),
        )

    def test_server(self) -> None:
        """A server is busy for its share of the time and no longer, whatever becomes of a request."""
        for share in (0.01, 0.25, 0.5):
            server = self.slow(share, (1, b"x"), (0, b"y"), (7, OSError()), (2, b"z"))
            self.assertEqual([server.post("/", {}, bytes) for _ in range(3)], [b"x", b"y", b"z"])
            self.assertAlmostEqual(server.time.now, 10 / share + 1)  # one second before it was asked again
            server = self.slow(share, *[(3, OSError())] * 3)
            with self.assertRaises(Unanswered):
                server.get("/", {}, bytes)
            self.assertAlmostEqual(server.time.now, 9 / share + 2)

    def test_told(self) -> None:
        """Who waits for a server is told once why, and for how long."""
        told: list[str] = []
        server = self.slow(1, *[(0, OSError("gone"))] * 7, (0, b"x"), *[(0, OSError("gone again"))] * 2, (0, b"x"))
        server.tries, server.tell = 10, told.append
        self.assertEqual([server.post("/", {}, bytes) for _ in range(2)], [b"x", b"x"])
        self.assertEqual(told, ["a does not answer: gone; trying again for up to 10 seconds"])

    def test_told_of_relay(self) -> None:
        """So is who waits for the relay, or for what it says of a backend."""
        told: list[str]
        for answer in (Refused("it is starting"), {"outcome": "not now", "message": "it is starting"}):
            now, told = Time(), []
            answers = iter([answer] * 5 + [{"outcome": "taken", "message": ""}])

            def ask(_: Request) -> dict[str, Any]:
                found = next(answers)
                if isinstance(found, Refused):
                    raise found
                return found

            relay = Relay(ask, ask, sleep=now.sleep, clock=lambda: now.now, tell=told.append)
            self.assertEqual(RelayWriter(relay, "main", "b", "a", "").write(M, ["m f=1 1"], "", last=True), "")
            (words,) = told
            self.assertEqual(words.removeprefix("b: "), "it is starting; trying again for up to 120 seconds")

    def test_without(self) -> None:
        """Without a share nothing waits."""
        server = self.slow(1, (1, b"x"), (2, b"y"))
        self.assertEqual([server.get("/", {}, bytes), server.post("/", {}, bytes)], [b"x", b"y"])
        self.assertEqual(server.time.now, 3)

    def write(self, share: float, ask: Callable[[Request], dict[str, Any]], now: Time) -> str:
        """Write a line by way of a relay."""
        relay = Relay(ask, ask, sleep=now.sleep, clock=lambda: now.now)
        writer = RelayWriter(relay, "main", "b", "a", "", lambda place: place, share)
        return writer.write(M, ["m f=1 1"], "", last=True)

    def test_writer(self) -> None:
        """So it is with what is written; the time in which the relay restarts is not doubled."""
        now = Time()
        answers: Iterator[tuple[float, Any]] = iter(
            [
                (0, Refused("no relay")),
                (1, {"outcome": "not now", "message": "x"}),
                (2, {"outcome": "taken", "message": ""}),
            ]
        )

        def ask(_: Request) -> dict[str, Any]:
            seconds, found = next(answers)
            now.work(seconds)
            if isinstance(found, Exception):
                raise found
            return dict(found)

        self.assertEqual(self.write(0.25, ask, now), "")
        self.assertAlmostEqual(now.now, 3 / 0.25 + 2)
