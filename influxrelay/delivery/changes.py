"""Statements that change something: every backend executes them, in order with the writes that they concern."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from influxrelay.core.write import Reply
from influxrelay.delivery.asking import collect_reply
from influxrelay.delivery.failures import explain
from influxrelay.delivery.fanout import FanOut
from influxrelay.delivery.queries import Question
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.standing import transport
from influxrelay.delivery.statements import Change, Refusal, Result, as_write

QUEUED = Reply(200, ((b"Content-Type", b"application/json"),), b'{"results":[{"statement_id":0}]}\n')
_WATCH = 1.0  # seconds between two looks at whether a backend that answers a read still lives


@attrs.frozen
class Executed:
    """What became of a change, as far as its client is concerned.

    :ivar backends: the one whose answer that is; none where it waits for all, or where it was not executed.
    """

    reply: Reply
    backends: tuple[Sender, ...] = ()


class Changes:
    """Has changes executed by all backends of a listener: each of them waits in the queues like a write."""

    def __init__(self, fan_out: FanOut) -> None:
        self.own_credentials = False
        self._fan_out = fan_out

    def reconfigure(self, *, own_credentials: bool) -> None:
        """Let other settings hold for the next change."""
        self.own_credentials = own_credentials

    def execute(self, change: Change, consistency: str) -> Deferred[Executed]:
        """Have a change executed; fires as soon as the answer is certain, as that of a write is. Never fails.

        :param consistency: as for writes.
        """
        write = as_write(attrs.evolve(change, own_credentials=self.own_credentials))
        answer = self._fan_out.submit(write, consistency)
        return answer.addCallback(self._answer)

    def _answer(self, reply: Reply) -> Executed:
        if isinstance(reply, Result):
            senders = [each for each in self._fan_out.senders if each.backend is reply.source]
            return Executed(Reply(reply.status, reply.headers, reply.body), tuple(senders))
        if isinstance(reply, Refusal):
            return Executed(Reply(200, reply.headers, reply.body))
        if reply.status < 300:
            return Executed(QUEUED)
        return Executed(_of_a_change(reply))


def _of_a_change(reply: Reply) -> Reply:
    """Speak of a change where an answer of our own speaks of a write."""
    spoken = {
        b"unable to write points to enough": b"unable to execute the change at enough",
        b"unable to write points": b"unable to execute the change",
        b"unable to journal the write": b"unable to journal the change",
    }
    body, headers = reply.body, reply.headers
    for write, change in spoken.items():
        body = body.replace(write, change)
        headers = tuple((name, value.replace(write, change)) for name, value in headers)
    return attrs.evolve(reply, body=body, headers=headers)


def ask_whole(sender: Sender, question: Question, reactor: Any, *, own_credentials: bool) -> Deferred[Reply]:
    """Ask a backend, and collect its response.

    There is no limit of time, but a backend of which its sender knows that it is down is not waited for.

    :return: fails with :class:`BackendFailure`.
    """
    asking: Deferred[Any] = transport(sender).query(question, own_credentials=own_credentials)
    asking.addCallback(collect_reply)

    def look() -> None:
        if sender.why_unavailable():
            asking.cancel()

    watch = LoopingCall(look)
    watch.clock = reactor
    watch.start(_WATCH, now=False)

    def end(result: Any) -> Any:
        watch.stop()
        return Failure(explain(result)) if isinstance(result, Failure) else result

    return asking.addBoth(end)
