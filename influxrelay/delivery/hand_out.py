"""How the senders get what was accepted, and what becomes of it: without a journal, or with one of this relay."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import count

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure
from influxrelay.core.replies import TAKEN, UNABLE, json_error
from influxrelay.core.write import STATEMENT, Reply, Write
from influxrelay.delivery.fate import Fate, Rule, State, Waiter
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.settle import Count, FirstAnswer
from influxrelay.journal.interface import Journal
from influxrelay.journal.records import Record

_STRUCK = State.STRUCK

Parts = Sequence[tuple[Sender, Write]]
"""Who gets something of a write, and what."""


class HandOut:
    """Without a journal: every sender gets a write at once, and the client's answer decides what becomes of it.

    This is also the interface, complete: a fan-out asks nothing else, whatever keeps its writes.

    :param reactor: gives the time by which clients wait.
    :param clock: returns seconds since the epoch.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime, *, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.name = ""
        self.senders: tuple[Sender, ...] = ()
        self.refuses_unjournaled = False
        self._reactor = reactor
        self._clock = clock
        self._next_number = count(1).__next__
        self._on_settled = self._settled  # one object for all writes

    def reconfigure(self, name: str, senders: Sequence[Sender], *, refuse_unjournaled: bool) -> None:
        """Let other settings hold for the next write; those that are under way keep what they began with.

        :param refuse_unjournaled: whether a write that the journal cannot take is refused although a backend has it.
        """
        self.name = name
        self.senders = tuple(senders)
        self.refuses_unjournaled = refuse_unjournaled

    def submit(self, write: Write, parts: Parts, consistency: str, waiter: Waiter) -> None:  # noqa: ARG002
        """Give a write to every sender, before any other write gets to one of them.

        :param waiter: gets the answer for the client.
        """
        rule = FirstAnswer(len(parts)) if consistency == "one" else make_rule(len(parts), consistency)
        fate = Fate(self._next_number(), self._clock(), self._reactor.seconds(), waiter, rule, self._on_settled)
        is_queued = self._give_out(parts, fate)
        if consistency == "any" and is_queued and all(sender.keeps for sender, _ in parts):
            fate.answered("", TAKEN)

    def _give_out(self, parts: Parts, fate: Fate) -> bool:
        """Give a write to its senders; return whether each of them has taken it.

        Once the client has been told that it is not taken, because the first ones refuse it at once, say, the others do
        not get it.
        """
        taken = True
        for sender, part in parts:
            if fate.state is _STRUCK:
                sender.backlog.skip(part.destination, fate.number)
                continue
            try:
                taken = sender.submit(part, fate) and taken
            except Exception:  # noqa: BLE001 (it must not keep the others from the write)
                self._log.failure("{relay}: backend {backend}", relay=self.name, backend=sender.name)
                fate.failed(sender.name, BackendFailure("error", "an unexpected error, see the log"))
        return taken

    def _settled(self, fate: Fate) -> None:
        """Decide what becomes of a write whose client's answer is certain, and tell the client."""
        reply = fate.reply or UNABLE
        fate.decide(kept=reply.status < 300)
        fate.tell(reply)

    def handed_out(self) -> Deferred[None]:
        """Fire when the senders have everything that was submitted until now."""
        return succeed(None)

    def decided(self) -> int:
        """Return up to which number of the journal it is decided whether a write is kept."""
        return 0

    @property
    def why_unjournaled(self) -> str:
        """Why the journal would not take a write now; empty if it would, as far as is known, or there is none."""
        return ""

    def close(self) -> None:
        """Wait for nothing any more."""


class BesideJournal(HandOut):
    """The journal and the senders get a write side by side, and the client is answered when both have done their part.

    A change is with the journal before any backend gets it.
    """

    def __init__(self, journal: Journal, reactor: IReactorTime, *, clock: Callable[[], float] = lambda: 0.0) -> None:
        super().__init__(reactor, clock=clock)
        self._journal = journal
        self._next_number = journal.next_number
        self._undecided: dict[int, None] = {}  # the numbers of what is in the journal, or on its way there

    def submit(self, write: Write, parts: Parts, consistency: str, waiter: Waiter) -> None:
        """Give a write to the journal and the senders."""
        is_any = consistency == "any"
        rule = make_rule(len(parts), consistency, beside=is_any)
        fate = Fate(self._next_number(), self._clock(), self._reactor.seconds(), waiter, rule, self._on_settled)
        self._undecided[fate.number] = None
        self._append(write, parts, fate, Record(fate.number, fate.time, write), _Receipt(self, fate, is_any))

    def _append(self, write: Write, parts: Parts, fate: Fate, record: Record, receipt: _Receipt) -> None:
        if write.mergeable or write.destination.kind != STATEMENT:
            self._journal.append_for(record, receipt)
            self._give_out_journaled(write, parts, fate)
            return
        appended = self._journal.append(record)
        appended.addCallbacks(receipt.callback, receipt.errback)
        self._give_out_journaled(write, parts, fate)
        appended.addBoth(self._executable, parts)

    def _executable(self, result: Failure | None, parts: Parts) -> Failure | None:
        """Have a change executed that no backend gets before the journal has it, or cannot take it."""
        for sender, _ in parts:
            sender.execute_changes()
        return result

    def _give_out_journaled(self, write: Write, parts: Parts, fate: Fate) -> None:
        self._give_out(parts, fate)
        if len(parts) < len(self.senders):
            self._pass_over(write, parts, fate)

    def _pass_over(self, write: Write, parts: Parts, fate: Fate) -> None:
        """Have those senders pass a write that get nothing of it."""
        concerned = {sender for sender, _ in parts}
        for sender in self.senders:
            if sender not in concerned:
                sender.backlog.skip(write.destination, fate.number)

    def journaled(self, fate: Fate, *, is_any: bool) -> None:
        """Note that a write is in the journal, and so in the queue of every backend."""
        fate.is_journaled = True
        if fate.reply is not None:
            self._decide(fate)
        elif is_any:
            fate.answered("", TAKEN)

    def not_journaled(self, problem: str, fate: Fate, *, is_any: bool) -> None:
        """Note that the journal could not take a write."""
        fate.not_journaled(problem)
        if fate.reply is not None:
            self._decide(fate)
        elif is_any:
            fate.failed("", BackendFailure("journal", problem))

    def _settled(self, fate: Fate) -> None:
        if fate.is_journaled or fate.journal_problem:
            self._decide(fate)

    def _decide(self, fate: Fate) -> None:
        """Keep or strike a write, as its client will be told; tell the client when that is certain."""
        reply = fate.reply or UNABLE
        if fate.journal_problem and self.refuses_unjournaled and reply.status < 300:
            reply = unjournaled(fate.journal_problem)
        del self._undecided[fate.number]
        fate.decide(kept=reply.status < 300)
        if reply.status < 300 or fate.journal_problem:
            fate.tell(reply)
        else:
            self._journal.strike(fate.number).addBoth(self._struck, fate, reply)

    def _struck(self, _: Failure | None, fate: Fate, reply: Reply) -> None:
        fate.tell(reply)

    def decided(self) -> int:
        """Return up to which number of the journal it is decided whether a write is kept."""
        return next(iter(self._undecided), self._journal.last_number + 1) - 1

    @property
    def why_unjournaled(self) -> str:
        """Why the journal would not take a write now; empty if it would, as far as is known."""
        return self._journal.why_unavailable


class JournalFirst(BesideJournal):
    """No backend gets a write before the journal has it, or cannot take it.

    That is for clients who do not send again what was under way when the relay died: one backend may not have it alone.
    """

    def __init__(self, journal: Journal, reactor: IReactorTime, *, clock: Callable[[], float] = lambda: 0.0) -> None:
        super().__init__(journal, reactor, clock=clock)
        self._late: deque[_Late] = deque()  # what no sender has, in order

    def _append(self, write: Write, parts: Parts, fate: Fate, record: Record, receipt: _Receipt) -> None:
        late = _Late(write, parts, fate, receipt)
        self._late.append(late)
        self._journal.append(record).addBoth(self._give_out_late, late)

    def _give_out_late(self, result: Failure | None, late: _Late) -> None:
        """Give a write to the senders that the journal has or cannot take; they learn of the latter after that.

        A journal in trouble may refuse a write at once while earlier ones wait for it: they go first.
        """
        late.result, late.is_settled = result, True
        while self._late and self._late[0].is_settled:
            first = self._late.popleft()
            self._give_out(first.parts, first.fate)
            self._pass_over(first.write, first.parts, first.fate)  # they may be others than when it was divided
            if isinstance(first.result, Failure):
                first.receipt.errback(first.result)
            else:
                first.receipt.callback(None)
            if first.handed is not None:
                first.handed.callback(None)

    def handed_out(self) -> Deferred[None]:
        """Fire when the senders have everything that was submitted until now."""
        if not self._late:
            return succeed(None)
        handed: Deferred[None] = Deferred()
        last = self._late[-1]
        if last.handed is None:
            last.handed = Deferred()
        last.handed.addCallback(handed.callback)
        return handed


def make_rule(ways: int, consistency: str, *, beside: bool = False) -> Rule:
    """Return how the outcomes at so many backends become the client's answer.

    :param beside: whether the journal is one more way to be taken, where one is enough.
    """
    if consistency == "quorum":
        return Count(ways // 2 + 1, ways)
    if consistency == "all":
        return Count(ways, ways)
    return FirstAnswer(ways + beside)


def unjournaled(problem: str) -> Reply:
    """Return the answer to a write that is refused because the journal cannot take it."""
    return json_error(503, f"unable to journal the write: {problem}")


@attrs.define(eq=False)
class _Late:
    """A write that no sender has before the journal.

    :ivar is_settled: whether the journal has it, or has failed: then ``result`` is a :class:`Failure`.
    :ivar handed: fires when the senders have it.
    """

    write: Write
    parts: Parts
    fate: Fate
    receipt: _Receipt
    result: Failure | None = None
    is_settled: bool = False
    handed: Deferred[None] | None = None


class _Receipt:
    """Is told by the journal of one write, and tells whoever has handed it out; it takes less time than a Deferred."""

    _log = Logger()
    __slots__ = ("_fate", "_is_any", "_owner")

    def __init__(self, owner: BesideJournal, fate: Fate, is_any: bool) -> None:  # noqa: FBT001 (made for every write)
        self._owner = owner
        self._fate = fate
        self._is_any = is_any

    def callback(self, _: None) -> None:
        try:
            self._owner.journaled(self._fate, is_any=self._is_any)
        except Exception:  # noqa: BLE001 (others wait for the journal, too)
            self._log.failure("{relay}", relay=self._owner.name)

    def errback(self, failure: Failure) -> None:
        problem = str(failure.value) or "it does not work"
        try:
            self._owner.not_journaled(problem, self._fate, is_any=self._is_any)
        except Exception:  # noqa: BLE001 (as above)
            self._log.failure("{relay}", relay=self._owner.name)
