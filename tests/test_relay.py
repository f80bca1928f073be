"""The fan-out and the settle rule."""

from __future__ import annotations

import itertools
import json

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from influxrelay.errors import BackendFailure
from influxrelay.relay import UNABLE, Relay, json_error
from influxrelay.write import Destination, Reply, Write

WRITE = Write(Destination(b"db", b"", b"ns", (b"", b"", b"")), b"db=db", b"", b"m f=1 1\n")


def failure(status: int | None = None, reason: str = "refused") -> BackendFailure:
    """Return a failure, with an answer if there is a status."""
    if status is None:
        return BackendFailure(reason, "x")
    return BackendFailure(str(status), "x", Reply(status, ((b"X", b"%d" % status),), b"words of %d" % status))


class FakeRoad:
    """A road that takes writes and answers when told."""

    def __init__(self) -> None:
        self.taken: list[Write] = []
        self.answer: Deferred[Reply] = Deferred()

    def submit(self, write: Write) -> Deferred[Reply]:
        """Take a write."""
        self.taken.append(write)
        return self.answer

    def settle(self, outcome: Reply | Exception) -> None:
        """Answer."""
        if isinstance(outcome, Reply):
            self.answer.callback(outcome)
        else:
            self.answer.errback(Failure(outcome))


def expected(outcomes: list[Reply | Exception]) -> tuple[int, int]:
    """Return what the contract says: after how many outcomes the client is answered, and with which status."""
    for number, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, Reply):
            return number, outcome.status
    statuses = [outcome.reply.status for outcome in outcomes if isinstance(outcome, BackendFailure) and outcome.reply]
    shown = [status for status in statuses if status >= 500] or [s for s in statuses if s in (408, 425, 429)]
    return len(outcomes), max(shown, default=503)


class SettleTests(SynchronousTestCase):
    """Which answer is the client's."""

    def settle(self, *outcomes: Reply | Exception, order: tuple[int, ...] = ()) -> tuple[int, Reply]:
        """Let roads answer in an order; return after how many of them the client was answered, and with what."""
        roads = [FakeRoad() for _ in outcomes]
        relay = Relay("test", roads)  # type: ignore[arg-type]
        told: list[Reply] = []
        when: list[int] = []
        relay.submit(WRITE).addCallback(told.append)
        for number, index in enumerate(order or range(len(outcomes)), 1):
            roads[index].settle(outcomes[index])
            if told and not when:
                when.append(number)
        for road in roads:
            self.assertEqual(road.taken, [WRITE])
        self.assertEqual(len(told), 1)
        return when[0], told[0]

    def test_every_order(self) -> None:
        """Whatever two or three backends answer in whatever order, the client gets one answer: the contract's."""
        kinds = [
            Reply(204),
            Reply(400, (), b"bad"),
            Reply(404, (), b"no"),
            failure(),
            failure(500),
            failure(503),
            failure(408),
            failure(429),
            failure(301),
            RuntimeError("a bug"),
        ]
        for count in (1, 2, 3):
            for outcomes in itertools.product(kinds, repeat=count):
                for order in itertools.permutations(range(count)):
                    when, reply = self.settle(*outcomes, order=order)
                    self.assertEqual((when, reply.status), expected([outcomes[index] for index in order]), outcomes)

    def test_unchanged(self) -> None:
        """An answer is shown as the backend gave it, headers and body."""
        refused = Reply(400, ((b"X-Influxdb-Error", b"bad"),), b'{"error":"bad"}\n')
        self.assertIs(self.settle(failure(500), refused, Reply(204))[1], refused)
        broken = failure(502)
        self.assertIs(self.settle(failure(), broken, failure(429))[1], broken.reply)

    def test_nobody_answers(self) -> None:
        """Where there is no answer to show, the client gets 503 with InfluxDB Relay's words."""
        for outcome in (failure(), failure(reason="timeout"), failure(302), failure(100)):
            self.assertEqual(self.settle(outcome, outcome), (2, UNABLE))
        self.assertEqual((UNABLE.status, UNABLE.body), (503, b'{"error":"unable to write points"}\n'))

    def test_not_now_is_shown_last(self) -> None:
        """A 5xx is preferred to a 429, 425 or 408, and these to an answer of our own."""
        self.assertEqual(self.settle(failure(429), failure(500), failure())[1].status, 500)
        self.assertEqual(self.settle(failure(429), failure(), failure(301))[1].status, 429)

    def test_answered_at_once(self) -> None:
        """Roads that have answered already are as good as others, and every one gets the write."""
        for outcomes in itertools.product((Reply(204), Reply(400), failure(500)), repeat=2):
            roads = [FakeRoad(), FakeRoad()]
            for road, outcome in zip(roads, outcomes, strict=True):
                road.answer = succeed(outcome) if isinstance(outcome, Reply) else fail(outcome)
            relay = Relay("test", roads)  # type: ignore[arg-type]
            reply = self.successResultOf(relay.submit(WRITE))
            self.assertEqual(reply.status, expected(list(outcomes))[1])
            self.assertEqual([road.taken for road in roads], [[WRITE], [WRITE]])

    def test_late_failures_are_no_errors(self) -> None:
        """A backend that fails after the client was answered leaves no unhandled error."""
        self.settle(Reply(204), failure(), failure(500))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_attributes(self) -> None:
        """A relay knows its name and its roads."""
        roads = [FakeRoad()]
        relay = Relay("name", roads)  # type: ignore[arg-type]
        self.assertEqual((relay.name, relay.roads), ("name", tuple(roads)))


class JsonErrorTests(SynchronousTestCase):
    """Errors of our own."""

    def test_exact(self) -> None:
        """Status, headers and bytes are InfluxDB's."""
        self.assertEqual(
            json_error(400, "database is required"),
            Reply(
                400,
                ((b"Content-Type", b"application/json"), (b"X-Influxdb-Error", b"database is required")),
                b'{"error":"database is required"}\n',
            ),
        )

    def test_more_headers(self) -> None:
        """Headers of the caller come last."""
        reply = json_error(405, "method not allowed", (b"Allow", b"POST"))
        self.assertEqual(reply.headers[2:], ((b"Allow", b"POST"),))

    def test_quotes(self) -> None:
        """The body is JSON, whatever the message holds."""
        message = 'a "quoted" \\ text\nwith\tlines \u00e9 \u4e2d'
        self.assertEqual(json.loads(json_error(400, message).body), {"error": message})

    def test_newlines(self) -> None:
        """No line break of the message gets into a header."""
        for sep in ("\n", "\r\n", "\r", "\u2028", "\x0b", "\x0c", "\x1c", "\x85", " \n "):
            reply = json_error(400, f"one{sep}Set-Cookie: x")
            self.assertEqual(dict(reply.headers)[b"X-Influxdb-Error"], b"one Set-Cookie: x")

    def test_control_characters(self) -> None:
        """No control character of the message gets into a header (RFC 9110, 5.5)."""
        for code in (*range(32), 127):
            value = dict(json_error(400, f"one{chr(code)}two").headers)[b"X-Influxdb-Error"]
            self.assertRegex(value, rb"\A[\x20-\x7e]*\Z", code)

    def test_not_ascii(self) -> None:
        """A header is ASCII: other letters are escaped there, and kept in the body."""
        reply = json_error(400, "caf\u00e9 \u4e2d \U0001f600")
        self.assertEqual(dict(reply.headers)[b"X-Influxdb-Error"], b"caf\\xe9 \\u4e2d \\U0001f600")
        self.assertEqual(reply.body, '{"error":"caf\u00e9 \u4e2d \U0001f600"}\n'.encode())

    def test_surrogates(self) -> None:
        """A message with a lone surrogate, as ``surrogateescape`` makes them, is no error of ours."""
        reply = json_error(400, "bad \udcff")
        self.assertIn("bad", json.loads(reply.body)["error"])
