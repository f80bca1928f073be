"""Statements that change something: every backend executes them, in order with the writes that they concern."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList, DeferredLock
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone

from influxrelay.core.errors import BackendFailure
from influxrelay.core.replies import json_error
from influxrelay.core.write import LINES, Reply
from influxrelay.delivery.client import Response
from influxrelay.delivery.failures import explain
from influxrelay.delivery.fanout import FanOut
from influxrelay.delivery.queries import Question
from influxrelay.delivery.response_reader import shown_headers
from influxrelay.delivery.responses import Verdict, judge
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.standing import standing, transport

CHANGE_OUTCOMES = ("executed", "refused", "missed")
MAX_RESULT = 16 * 1024 * 1024  # bytes of a response that is collected
_LOOK = 0.01  # seconds between two looks at whether earlier writes are through
_WATCH = 1.0  # seconds between two looks at whether a backend that executes something still lives


@attrs.frozen
class Change:
    """A statement for every backend.

    :ivar databases: whose writes it must neither overtake nor be overtaken by.
    :ivar waits: whether the earlier writes to these have to be through; not for what they may be waiting for.
    :ivar shown: the statement without passwords, for the log.
    """

    question: Question
    databases: frozenset[str]
    waits: bool
    shown: str


@attrs.frozen
class Executed:
    """What became of a change, as far as its client is concerned.

    :ivar backends: those that have executed it.
    """

    reply: Reply
    backends: tuple[Sender, ...] = ()


class Changes:
    """Has changes executed, one at a time, by all backends of a listener side by side.

    While a change is executed, new writes to the databases that it names wait. It begins when the earlier ones have
    reached every backend, and only if every backend can take it: what one of them would miss is refused.

    :ivar outcomes: how often a backend has ``executed``, ``refused`` or ``missed`` a change, by its name and that.
    """

    _log = Logger()

    def __init__(self, name: str, fan_out: FanOut, reactor: Any, clock: Callable[[], float] = time.time) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.own_credentials = False
        self._name = name
        self._fan_out = fan_out
        self._reactor = reactor
        self._clock = clock
        self._lock = DeferredLock()

    def reconfigure(self, name: str, *, own_credentials: bool) -> None:
        """Let other settings hold for the next change."""
        self._name = name
        self.own_credentials = own_credentials

    def execute(self, change: Change, consistency: str) -> Deferred[Executed]:
        """Have a change executed; fires as soon as the answer is certain, as that of a write is. Never fails.

        :param consistency: as for writes.
        """
        answer: Deferred[Executed] = Deferred()
        done = Deferred.fromCoroutine(self._in_turn(change, consistency, answer))
        done.addErrback(self._unexpected, answer)
        return answer

    def _unexpected(self, failure: Failure, answer: Deferred[Executed]) -> None:
        self._log.failure("{relay}: a change", failure, relay=self._name)
        if not answer.called:
            answer.errback(failure)

    async def _in_turn(self, change: Change, consistency: str, answer: Deferred[Executed]) -> None:
        await self._lock.acquire()
        self._fan_out.hold(each.encode() for each in change.databases)
        try:
            senders = [each for each in self._fan_out.senders if LINES in each.kinds]  # InfluxDB
            reason = await self._why_unavailable(senders, change)
            if reason:
                answer.callback(Executed(json_error(503, f"every backend has to execute a change: {reason}")))
            else:
                await self._execute(senders, change, consistency, answer)
        finally:
            self._fan_out.release()
            self._lock.release()

    async def _why_unavailable(self, senders: Sequence[Sender], change: Change) -> str:
        """Wait for earlier writes; return why the change cannot be executed by every backend now."""
        waiting = {}
        if change.waits:
            waiting = {each: each.barrier() for each in senders}
        deadline = self._reactor.seconds() + max(each.backend.timeout for each in senders)
        while True:
            problems = [f"{each.name}: {each.why_unavailable()}" for each in senders if each.why_unavailable()]
            waiting = {each: is_past for each, is_past in waiting.items() if not is_past()}
            if problems or not waiting:
                return "; ".join(problems)
            if self._reactor.seconds() >= deadline:
                return "; ".join(f"{each.name}: {standing(each).why_not}: earlier writes wait" for each in waiting)
            await deferLater(self._reactor, _LOOK)

    async def _execute(
        self, senders: Sequence[Sender], change: Change, consistency: str, answer: Deferred[Executed]
    ) -> None:
        began = self._clock()
        verdicts = _Verdicts(len(senders), consistency)
        asked = []
        for sender in senders:
            asking = Deferred.fromCoroutine(self._ask(sender, change.question))
            asking.addCallback(verdicts.take, sender, answer)
            asked.append(asking)
        await DeferredList(asked, fireOnOneErrback=True, consumeErrors=True)
        for sender in verdicts.executed:
            self.outcomes[sender.name, "executed"] += 1
        for sender, words in verdicts.refused:
            self.outcomes[sender.name, "refused"] += 1
            if verdicts.executed:
                self._complain(sender, "has refused", change, words)
        for sender, words in verdicts.failed:
            self.outcomes[sender.name, "missed"] += 1
            if verdicts.executed:
                sender.backlog.miss_change(began, len(change.shown))
                self._complain(sender, "may have missed", change, words)

    def _complain(self, sender: Sender, what: str, change: Change, words: str) -> None:
        self._log.error(
            "{relay}: backend {backend} {what} what another backend has executed: {text}: {words}",
            relay=self._name,
            backend=sender.name,
            what=what,
            text=change.shown,
            words=words,
        )

    async def _ask(self, sender: Sender, question: Question) -> Reply | BackendFailure:
        """Ask a backend, for as long as it lives."""
        try:
            return await ask_whole(sender, question, self._reactor, own_credentials=self.own_credentials)
        except BackendFailure as problem:
            return problem


def ask_whole(sender: Sender, question: Question, reactor: Any, *, own_credentials: bool) -> Deferred[Reply]:
    """Ask a backend, and collect its response.

    There is no limit of time, since a deletion may take long; but a backend of which its sender knows that it is down
    is not waited for.

    :return: fails with :class:`BackendFailure`.
    """
    asking: Deferred[Any] = transport(sender).query(question, own_credentials=own_credentials)
    asking.addCallback(_collect)

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


def _collect(response: Response) -> Deferred[Reply]:
    if not response.is_intact or not response.is_framed:
        if response.is_intact:
            response.stopProducing()
        raise BackendFailure("garbage", f"it answered {response.code}, and the rest cannot be read")
    collected: Deferred[Reply] = Deferred(lambda _: response.stopProducing())
    response.deliverBody(_Collector(response, collected))
    return collected


class _Collector(Protocol):
    def __init__(self, response: Response, collected: Deferred[Reply]) -> None:
        self._response = response
        self._collected = collected
        self._body = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """Keep a piece."""
        self._body += data
        if len(self._body) > MAX_RESULT:
            self._response.stopProducing()
            self._collected.errback(BackendFailure("garbage", f"a result of more than {MAX_RESULT} bytes"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Return the whole, or what has gone wrong."""
        if reason.check(ResponseDone):
            raw = [(name, value) for name, values in self._response.headers.getAllRawHeaders() for value in values]
            self._collected.callback(Reply(self._response.code, shown_headers(raw), bytes(self._body)))
        else:
            self._collected.errback(reason)


class _Verdicts:
    """Collects what the backends say of one change, and settles it as a write."""

    def __init__(self, total: int, consistency: str) -> None:
        self.executed: list[Sender] = []
        self.refused: list[tuple[Sender, str]] = []
        self.failed: list[tuple[Sender, str]] = []
        self._total = total
        self._needed = {"quorum": total // 2 + 1, "all": total}.get(consistency, 1)
        self._first: Reply | None = None
        self._refusal: Reply | None = None
        self._failure: Reply | None = None

    def take(self, outcome: Reply | BackendFailure, sender: Sender, answer: Deferred[Executed]) -> None:
        """Take what one backend says; tell the client as soon as its answer is certain."""
        if isinstance(outcome, BackendFailure):
            self.failed.append((sender, f"{outcome.reason}: {outcome.detail}"))
        elif judge(outcome) is Verdict.TAKEN and not error_in(outcome.body):
            self.executed.append(sender)
            self._first = self._first or outcome
        elif judge(outcome) in (Verdict.TAKEN, Verdict.REFUSED, Verdict.MISDIRECTED, Verdict.NOT_READY):
            self.refused.append((sender, error_in(outcome.body) or f"it answered {outcome.status}"))
            self._refusal = self._refusal or outcome
        else:
            self.failed.append((sender, f"it answered {outcome.status}"))
            self._failure = self._failure or outcome
        reply = self._answer()
        if reply is not None and not answer.called:
            asked = self.executed or [sender]
            answer.callback(Executed(reply, tuple(asked)))

    def _answer(self) -> Reply | None:
        if len(self.executed) >= self._needed:
            return self._first
        left = self._total - len(self.executed) - len(self.refused) - len(self.failed)
        if self._refusal is not None and (self._needed == 1 or len(self.executed) + left < self._needed):
            return self._refusal
        if len(self.executed) + left >= self._needed:
            return None
        named = "; ".join(f"{each.name}: {words}" for each, words in self.failed)
        if self._failure is not None and not self.executed:
            return self._failure
        return json_error(503, f"not every backend that is needed has executed it: {named}")


def error_in(body: bytes) -> str:
    """Return the error of a statement in a response that says 200; empty if there is none.

    In CSV and msgpack the word alone tells: the results of changes have no names in them.
    """
    try:
        found = json.loads(body)
        results = found.get("results", [])
        return str(found.get("error") or next((each["error"] for each in results if "error" in each), ""))
    except (ValueError, AttributeError, TypeError):
        return "the statement has an error" if b"error" in body else ""
