"""A worker as its supervisor sees it, without the process: restarts, silence, questions."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any

from twisted.internet.error import ProcessTerminated
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, eventAsJSON, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from influxrelay import process
from influxrelay.channel import Channel, NoAnswer, Progress
from influxrelay.config_values import Config
from influxrelay.process import Legacy, Process, wait_until_well
from influxrelay.report import Refused
from influxrelay.shares import ABSENT, Shares
from influxrelay.worker import DRAINED


class Reactor(Clock):
    """Starts processes that do nothing, and connects to them."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[dict[str, Any]] = []
        self.killed = 0

    def spawnProcess(self, protocol: Process, *command: Any, **options: Any) -> None:
        """Note that one was started."""
        self.started.append({"command": command, **options})
        protocol.transport = self  # type: ignore[assignment]

    def adoptStreamConnection(self, fd: int, family: int, factory: Any) -> None:
        """Connect."""
        self.protocol = factory.buildProtocol(None)
        self.protocol.makeConnection(StringTransport())

    def signalProcess(self, name: str) -> None:
        """Note that it was killed."""
        assert name == "KILL"
        self.killed += 1


async def nothing(what: dict[str, Any], progress: Progress) -> None:
    """Answer nothing."""


def ended(code: int) -> Failure:
    """Return the end of a process."""
    return Failure(ProcessTerminated(code))


class ProcessTests(SynchronousTestCase):
    """The life of one worker."""

    def setUp(self) -> None:
        """Start one that is well."""
        self.reactor = Reactor()
        self.shares = Shares.make(2)
        self.addCleanup(os.close, self.shares.fd)
        self.worker = Process(1, Legacy(Config("f", workers=2), [], self.shares), nothing, self.reactor)
        self.worker.connect(self.worker.start(), well=True)
        self.shares.set(1, 7)

    def count(self) -> int:
        """Return the worker's count of connections."""
        return int(self.shares._counts[1])

    def test_started_again(self) -> None:
        """A worker that ends again and again is started again, each time after a longer while, up to half a minute."""
        delays = []
        for _ in range(9):
            self.worker.processEnded(ended(1))
            self.assertFalse(self.worker.well)
            self.assertEqual(self.count(), ABSENT)
            (call,) = self.reactor.getDelayedCalls()
            delays.append(call.getTime() - self.reactor.seconds())
            self.reactor.advance(delays[-1])
        self.assertEqual(delays, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0])
        self.assertEqual((self.worker.restarts, len(self.reactor.started)), (9, 10))

    def test_after_a_long_life(self) -> None:
        """One that has lived for long is started again at once."""
        self.worker._began -= process._QUICK
        self.worker.processEnded(ended(1))
        self.reactor.advance(0)
        self.assertEqual(len(self.reactor.started), 2)

    def test_silence(self) -> None:
        """Who is silent is left out by the others, and then killed; each sign of life is a new beginning."""
        for _ in range(process.SILENCE - 1):
            self.worker.check()
        self.assertEqual((self.count(), self.reactor.killed), (ABSENT, 0))
        self.reactor.protocol.dataReceived(b"{}\n")
        for _ in range(process.SILENCE - 1):
            self.worker.check()
        self.assertEqual(self.reactor.killed, 0)
        self.worker.check()
        self.assertEqual(self.reactor.killed, 1)

    def test_silence_at_the_start(self) -> None:
        """A worker that starts again has more time until its first sign of life."""
        self.worker.processEnded(ended(1))
        self.reactor.advance(1)
        for _ in range(process.START - 1):
            self.worker.check()
        self.assertEqual((self.worker.well, self.reactor.killed), (False, 0))
        self.worker.check()
        self.assertEqual(self.reactor.killed, 1)

    def test_drained(self) -> None:
        """One that says it has nothing more to do is not started again."""
        self.worker.processEnded(ended(DRAINED))
        self.assertTrue(self.worker.done)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """A stop waits for the end, and starts nothing again."""
        stopped = self.worker.stop()
        self.assertNoResult(stopped)
        self.assertIn(b'"stop"', self.reactor.protocol.transport.value())
        self.worker.processEnded(ended(0))
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.successResultOf(self.worker.stop())

    def test_ask_nobody(self) -> None:
        """A question to a worker that does not run, or ends before it answers, fails."""
        asked = self.worker.ask({})
        self.reactor.protocol.connectionLost()
        self.failureResultOf(asked, NoAnswer)
        self.worker.processEnded(ended(1))
        self.failureResultOf(self.worker.ask({}), NoAnswer)

    def test_first_word(self) -> None:
        """The start waits for a worker's first word, which may be why it does not work."""
        for data, problem in ((b"{}\n{}\n", ""), (b'{"failed": "no"}\n', "no"), (b"", "has ended at once")):
            ours, theirs = socket.socketpair()
            theirs.sendall(data)
            theirs.close()
            self.assertEqual(wait_until_well(ours, time.monotonic() + 60), problem)
            ours.close()
        ours, theirs = socket.socketpair()
        self.assertIn("is not ready", wait_until_well(ours, 0.0))
        ours.close()
        theirs.close()

    def test_log(self) -> None:
        """What a worker logs is logged with its number; what is no event too. A line comes in pieces, or is cut off."""
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.worker.outReceived(b"no ev")
        event = {"log_format": "hello", "log_time": 1.0, "log_level": LogLevel.info, "log_namespace": "test"}
        self.worker.outReceived(b"ent\n5\n{}\n%b\n" % eventAsJSON(event).encode())
        self.worker.outReceived(b"cut")
        self.worker.processEnded(ended(DRAINED))
        self.worker.outReceived(eventAsJSON(event).encode() + b"\n")
        told = [formatEvent(event) for event in events if event.get("worker") == 1]
        lines = ["worker 1: b'no event'", "worker 1: b'5'", "worker 1: b'{}'", "hello", "worker 1: b'cut'", "hello"]
        self.assertEqual(told, lines)


class ChannelTests(SynchronousTestCase):
    """Questions and answers."""

    def setUp(self) -> None:
        """Make one end."""
        self.lost = 0

        def lose() -> None:
            self.lost += 1

        self.transport = StringTransport()
        self.channel = Channel(self.answer, lambda: None, lose)
        self.channel.makeConnection(self.transport)

    async def answer(self, what: dict[str, Any], progress: Progress) -> Any:
        """Answer, refuse or fail."""
        progress(1, 2)
        if what == {"refuse": 1}:
            raise Refused("no")
        return 1 / what["by"]

    def said(self) -> list[Any]:
        """Return what this end has said."""
        return [json.loads(line) for line in self.transport.value().splitlines()]

    def hear(self, *messages: Any) -> None:
        """Say something as the other end."""
        self.channel.dataReceived(b"".join(json.dumps(each).encode() + b"\n" for each in messages))

    def test_answers(self) -> None:
        """Each question gets its progress and its answer, or why there is none."""
        self.hear({"ask": 5, "what": {"by": 2}}, {"ask": 6, "what": {"refuse": 1}}, {"ask": 7, "what": {"by": 0}})
        progress = [{"to": number, "progress": [1, 2]} for number in (5, 6, 7)]
        self.assertEqual(
            self.said()[:4], [progress[0], {"to": 5, "result": 0.5}, progress[1], {"to": 6, "error": "no"}]
        )
        self.assertIn("ZeroDivisionError", self.said()[-1]["error"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_questions(self) -> None:
        """Answers find their questions; one that comes too late is no trouble."""
        heard: list[tuple[int, int]] = []
        first = self.channel.ask({"a": 1}, lambda *each: heard.append(each))
        second, third, fourth = (self.channel.ask({}) for _ in range(3))
        self.assertEqual(self.said()[0], {"ask": 0, "what": {"a": 1}})
        third.addErrback(lambda _: None)
        third.cancel()
        self.hear({"to": 2, "result": 0}, {"to": 0, "progress": [1, 2]}, {"to": 1, "progress": [1, 2]})
        self.hear({"to": 1, "error": "no"}, {"to": 0, "result": [3]})
        self.assertEqual((self.successResultOf(first), heard), ([3], [(1, 2)]))
        self.assertEqual(str(self.failureResultOf(second, Refused).value), "no")
        self.channel.connectionLost()
        self.failureResultOf(fourth, NoAnswer)
        self.assertEqual(self.lost, 1)
