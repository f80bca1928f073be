"""The fan-out to all backends, and the rule by which their answers become the client's."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import attrs
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure
from influxrelay.core.replies import TAKEN, UNABLE, json_error
from influxrelay.core.write import Reply, Write
from influxrelay.delivery.backlog import Fate, State
from influxrelay.delivery.buffered_sender import BufferedSender
from influxrelay.delivery.responses import Verdict, is_not_ready, is_presentable, judge
from influxrelay.delivery.sender import Sender
from influxrelay.journal.interface import Journal
from influxrelay.journal.records import Record
from influxrelay.lineprotocol.filters import Filter, divide_slowly
from influxrelay.lineprotocol.gzip_body import decoded_body, reduced
from influxrelay.lineprotocol.scanner import Steps, run

_Parts = list[tuple[Sender, Write]]  # who gets something of a write, and what

AT_ONCE = 512 * 1024  # bytes of a body that are read and submitted in one go ...
_AT_ONCE_FILTERED = 4096  # ... and where names may take some microseconds for each of them


@attrs.frozen
class Division:
    """What the filters leave of a write, and how many lines none of them takes."""

    left: dict[Filter, Write | None]
    unwanted: int


class FanOut:
    """One listener's backends.

    :ivar name: the listener's, for the log.
    :ivar filters: those of the backends, each once.
    :ivar at_once: up to how many bytes a body may have to be submitted without :meth:`divide_slowly`.
    :ivar lines_unwanted: lines that no backend's filter takes.
    :param writer: the journal's, if there is one.
    :param consistency: of writes that ask for none.
    :param refuse_unjournaled: whether a write that the journal cannot take is refused although a backend has it.
    :param journal_first: whether a write is in the journal before any backend gets it. Where no client sends again what
        was under way when the relay died, one backend may not have it alone.
    :param clock: returns seconds since the epoch.
    """

    def __init__(
        self,
        name: str,
        senders: Sequence[Sender],
        *,
        writer: Journal | None = None,
        consistency: str = "one",
        refuse_unjournaled: bool = False,
        journal_first: bool = False,
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.reconfigure(name, senders, consistency=consistency, refuse_unjournaled=refuse_unjournaled)
        self._writer = writer
        self._journal_first = journal_first
        self._last_append: Deferred[None] = succeed(None)
        self._clock = clock
        self._seq = 0
        self._undecided: dict[int, None] = {}  # the numbers of what is in the journal, or on its way there
        self._submitted: deque[tuple[Write, _Parts, str, Deferred[Reply]]] = deque()
        self.lines_unwanted = 0
        self._held: frozenset[bytes] = frozenset()
        self._waiting: deque[tuple[Write, str, Division | None, Deferred[Reply]]] = deque()

    def reconfigure(
        self, name: str, senders: Sequence[Sender], *, consistency: str, refuse_unjournaled: bool = False
    ) -> None:
        """Let other settings hold for the next write; those that are under way keep what they began with."""
        self.name = name
        self.senders = tuple(senders)
        self._consistency = consistency
        self._refuse_unjournaled = refuse_unjournaled
        self._queued = [sender for sender in senders if isinstance(sender, BufferedSender)]
        self.filters = list({sender.filter: None for sender in senders if sender.filter is not None})
        self.at_once = _AT_ONCE_FILTERED if self.filters else AT_ONCE

    def submit(self, write: Write, consistency: str = "", division: Division | None = None) -> Deferred[Reply]:
        """Send a write to every backend, and fire with the answer for the client. Never fails.

        With ``one`` that is the first 2xx or 4xx, at once. When all have failed it is one of their 5xx, else one of
        408, 425 and 429, else 503. Each backend gets the write, whoever was first. One whose filter leaves
        nothing of it has no part in it; a write that is for nobody is answered 204.

        :param consistency: ``any``, ``one``, ``quorum``, ``all``; empty for the listener's own.
        :param division: what :meth:`divide_slowly` has found.
        """
        if write.destination.database in self._held:
            answer: Deferred[Reply] = Deferred()
            self._waiting.append((write, consistency, division, answer))
            return answer
        return self._submit(write, consistency, division)

    def hold(self, databases: Iterable[bytes]) -> None:
        """Keep writes to these databases back, until :meth:`release`."""
        self._held = frozenset(databases)

    def release(self) -> None:
        """Let the writes go on that were kept back, in their order and before later ones."""
        while self._waiting:
            write, consistency, division, answer = self._waiting.popleft()
            self._submit(write, consistency, division).chainDeferred(answer)
        self._held = frozenset()

    def _submit(self, write: Write, consistency: str, division: Division | None) -> Deferred[Reply]:
        consistency = consistency or self._consistency
        parts = self._divide(write, division) if self.filters else [(sender, write) for sender in self.senders]
        if not parts:
            return succeed(TAKEN)
        if not self._queued:
            return self._settle(parts, [sender.submit(part) for sender, part in parts], consistency, None)
        answer: Deferred[Reply] = Deferred()
        self._submitted.append((write, parts, consistency, answer))
        if len(self._submitted) == 1:  # else this is within the loop below: a client was told, and wrote again at once
            while self._submitted:
                try:
                    self._submit_kept(*self._submitted[0])
                except Exception:  # noqa: BLE001 (it must not keep the next ones)
                    self._submitted[0][3].errback()
                self._submitted.popleft()
        return answer

    def divide_slowly(self, write: Write) -> Steps[Division]:
        """Find out bit by bit what the filters leave of a write: it may take long, whatever they are."""
        filters = self.filters
        lines = decoded_body(write)
        parts, unwanted = yield from divide_slowly(lines, filters)
        left = {each: reduced(write, lines, part) for each, part in zip(filters, parts, strict=True)}
        return Division(left, unwanted)

    def _divide(self, write: Write, division: Division | None) -> _Parts:
        """Return who gets something of a write, and what; senders with the same filter get the same object."""
        if division is None or division.left.keys() != set(self.filters):  # a reload has changed them
            division = run(self.divide_slowly(write))
        if all(sender.filter is not None for sender in self.senders):
            self.lines_unwanted += division.unwanted
        parts = [(sender, write if sender.filter is None else division.left[sender.filter]) for sender in self.senders]
        return [(sender, part) for sender, part in parts if part is not None]

    def _submit_kept(self, write: Write, parts: _Parts, consistency: str, answer: Deferred[Reply]) -> None:
        """Give a write that may be kept to every sender, before any other write gets to one of them."""
        fate = self._new_fate(write)
        committed: Deferred[None] = succeed(None)
        if self._writer is not None:
            committed = self._last_append = self._writer.append(Record(fate.seq, fate.time, write))
            if self._journal_first:
                committed.addBoth(self._give_out_late, fate, parts, consistency, committed, answer)
            committed.addErrback(self._not_on_disk, fate)
        if not self._journal_first:
            self._give_out(fate, parts, consistency, committed, answer)

    def _give_out_late(self, result: Any, *arguments: Any) -> Any:
        """Do it when the journal has the write, or cannot take it; the senders are told of the same failure later."""
        try:
            self._give_out(*arguments)
        except Exception:  # noqa: BLE001 (it must not keep the journal from telling others)
            arguments[-1].errback()
        return result

    def handed_out(self) -> Deferred[None]:
        """Fire when the senders have everything that was submitted until now."""
        handed: Deferred[None] = Deferred()

        def tell(result: Any) -> Any:
            handed.callback(None)
            return result

        if self._journal_first:
            self._last_append.addBoth(tell)
        else:
            handed.callback(None)
        return handed

    def _give_out(
        self, fate: Fate, parts: _Parts, consistency: str, committed: Deferred[None], answer: Deferred[Reply]
    ) -> None:
        """Give a write to its senders, and have the client told."""
        answers = [sender.submit(part, fate) for sender, part in parts]
        if len(parts) < len(self.senders) or self._journal_first:  # the senders may be others than when it was divided
            self._skip(fate, parts)
        queued = None
        if consistency == "any" and all(isinstance(sender, BufferedSender) for sender, _ in parts):
            everywhere = self._writer is not None or not any(_has_failed(answer) for answer in answers)
            queued = _fork(committed) if everywhere else None
        settled = self._settle(parts, answers, consistency, queued)
        settled.addCallback(self._decide, fate, committed)
        settled.chainDeferred(answer)

    def _new_fate(self, write: Write) -> Fate:
        if self._writer is not None:
            self._seq = self._writer.next_number()
            self._undecided[self._seq] = None
        else:
            self._seq += 1
        return Fate(self._seq, self._clock(), write)

    def _skip(self, fate: Fate, parts: _Parts) -> None:
        """Let the cursors of those who get nothing of a write pass it."""
        concerned = {sender for sender, _ in parts}
        for sender in self._queued:
            if sender not in concerned:
                sender.skip(fate)

    def _settle(
        self, parts: _Parts, answers: list[Deferred[Reply]], consistency: str, queued: Deferred[Reply] | None
    ) -> Deferred[Reply]:
        """Combine the senders' answers into the client's, and note who misses the write."""
        missing = _Missing(self._clock())
        for answer, part in zip(answers, parts, strict=True):
            answer.addCallbacks(missing.answered, missing.failed, callbackArgs=part, errbackArgs=part)
        settled: Deferred[Reply]
        if consistency in ("quorum", "all"):
            needed = len(answers) if consistency == "all" else len(answers) // 2 + 1
            settled = _Count(answers, [sender.name for sender, _ in parts], needed).settled
        else:
            ways = answers if queued is None else [*answers, queued]
            first = DeferredList(ways, fireOnOneCallback=True, consumeErrors=True)
            settled = cast("Deferred[Reply]", first.addCallback(_pick))
        return settled.addCallback(missing.settled)

    def obstacle(self) -> str:
        """Tell why a write that asks for nothing else would be answered 5xx now; empty if not, as far as is known."""
        level, total = self._consistency, len(self.senders)
        needed = {"quorum": total // 2 + 1, "all": total}.get(level, 1)
        able = sum(not sender.objection() and not sender.is_full for sender in self.senders)
        journal = self._writer.obstacle if self._writer is not None else ""
        if journal and self._refuse_unjournaled:
            return journal
        if able >= needed:
            return ""
        if (
            level == "any"
            and not journal
            and len(self._queued) == total
            and not any(sender.is_full for sender in self.senders)
        ):
            return ""
        return f"{able} of {total} backends can take writes, and consistency {level} needs {needed}"

    # -- what is kept

    def decided(self) -> int:
        """Return up to which number of the journal it is decided whether a write is kept."""
        last = self._writer.last_number if self._writer is not None else 0
        return next(iter(self._undecided), last + 1) - 1

    def _not_on_disk(self, failure: Failure, fate: Fate) -> Failure:
        fate.on_disk = False
        for sender in fate.absent:
            sender.not_on_disk(fate)
        return failure

    def _decide(self, reply: Reply, fate: Fate, committed: Deferred[None]) -> Any:
        """Keep or strike the write, as the client will be told; tell it when that is certain."""
        taken = reply.status < 300
        if self._writer is None:
            fate.settle(State.KEPT if taken else State.STRUCK)
            return reply
        told: Deferred[Reply] = Deferred()

        writer = self._writer

        def on_disk(_: object) -> None:
            del self._undecided[fate.seq]
            fate.settle(State.KEPT if taken else State.STRUCK)
            if taken:
                told.callback(reply)
            else:
                writer.strike(fate.seq).addBoth(lambda _: told.callback(reply))

        def not_on_disk(failure: Failure) -> None:
            refuse = taken and self._refuse_unjournaled
            del self._undecided[fate.seq]
            fate.settle(State.KEPT if taken and not refuse else State.STRUCK)
            told.callback(json_error(503, f"unable to journal the write: {failure.value}") if refuse else reply)

        committed.addCallbacks(on_disk, not_on_disk)
        return told


class _Missing:
    """Who has missed a write: a sender that keeps nothing is told so if another one has taken it."""

    def __init__(self, when: float) -> None:
        self._when = when
        self._taken = False
        self._senders: _Parts = []

    def answered(self, reply: Reply, sender: Sender, part: Write) -> Reply:
        """Note that a backend is not ready for its part; pass the answer on."""
        if reply.status >= 300 and is_not_ready(reply):
            self._note(sender, part)
        return reply

    def failed(self, failure: Failure, sender: Sender, part: Write) -> Failure:
        """Note that a backend may miss its part; pass the failure on."""
        if not _is_refused(failure):
            self._note(sender, part)
        return failure

    def _note(self, sender: Sender, part: Write) -> None:
        if self._taken:
            sender.miss(part, self._when)
        else:
            self._senders.append((sender, part))

    def settled(self, reply: Reply) -> Reply:
        """Note what the client is told."""
        if reply.status < 300:
            self._taken = True
            for sender, part in self._senders:
                sender.miss(part, self._when)
        return reply


class _Count:
    """Waits for so many 2xx, or until they can no longer come.

    :ivar settled: fires with 204; else with the first 4xx, if nothing but 4xx stands in the way; else with a 503 that
        names the backends that failed.
    """

    def __init__(self, answers: list[Deferred[Reply]], names: list[str], needed: int) -> None:
        self.settled: Deferred[Reply] = Deferred()
        self._needed = needed
        self._spare = len(answers) - needed
        self._failed: list[str] = []
        self._refusals: list[Reply] = []
        for answer, name in zip(answers, names, strict=True):
            answer.addCallbacks(self._answered, self._failed_at, callbackArgs=(name,), errbackArgs=(name,))

    def _answered(self, reply: Reply, name: str) -> None:
        if reply.status >= 300:
            self._note_failure(f"{name}: {reply.status}", reply)
            return
        self._needed -= 1
        if self._needed == 0:
            self._fire(TAKEN)

    def _failed_at(self, failure: Failure, name: str) -> None:
        problem = failure.value
        if isinstance(problem, BackendFailure):
            self._note_failure(f"{name}: {problem.reason}", problem.reply)
        else:
            self._note_failure(f"{name}: error", None)

    def _note_failure(self, text: str, reply: Reply | None) -> None:
        self._failed.append(text)
        if reply is not None and judge(reply) is Verdict.REFUSED:
            self._refusals.append(reply)
        if len(self._failed) <= self._spare:
            return
        if len(self._refusals) == len(self._failed):
            self._fire(self._refusals[0])
        else:
            self._fire(json_error(503, f"unable to write points to enough backends ({', '.join(self._failed)})"))

    def _fire(self, reply: Reply) -> None:
        if not self.settled.called:
            self.settled.callback(reply)


def _pick(result: Any) -> Reply:
    """Read what a DeferredList with ``fireOnOneCallback`` fires with: one (reply, index), or all the failures."""
    if isinstance(result, tuple):
        return cast("Reply", result[0])
    replies = [reply for _, failure in result if (reply := _shown(failure)) is not None]
    return max(replies, key=lambda reply: reply.status, default=UNABLE)


def _is_refused(failure: Failure) -> bool:
    """Tell whether a backend has refused a write for good, although another one may take it."""
    problem = failure.value
    reply = problem.reply if isinstance(problem, BackendFailure) else None
    return reply is not None and judge(reply) is Verdict.PERMANENT


def _has_failed(answer: Deferred[Reply]) -> bool:
    """Tell whether a sender has refused a write at once, because its queue is full or it is closed."""
    return answer.called and isinstance(answer.result, Failure)


def _fork(committed: Deferred[None]) -> Deferred[Reply]:
    """Return one more way to settle: the write is safely in the queue of every backend."""
    queued: Deferred[Reply] = Deferred()

    def tell(result: Any) -> Any:
        if isinstance(result, Failure):
            queued.errback(BackendFailure("journal", str(result.value)))
        else:
            queued.callback(TAKEN)
        return result

    committed.addBoth(tell)
    return queued


def _shown(failure: Failure) -> Reply | None:
    problem = failure.value
    reply = problem.reply if isinstance(problem, BackendFailure) else None
    return reply if reply is not None and is_presentable(reply) else None
