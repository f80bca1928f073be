"""The fan-out to all backends, and what becomes of each write."""

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
from influxrelay.core.write import LINES, REMOTE_WRITE, STATEMENT, Reply, Write
from influxrelay.delivery.fate import Fate, Rule, State
from influxrelay.delivery.parts import Division, divide_write_slowly
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.settings import EVERYTHING
from influxrelay.delivery.settle import Count, FirstAnswer
from influxrelay.delivery.statements import scope_of
from influxrelay.journal.interface import Journal
from influxrelay.journal.records import Record
from influxrelay.lineprotocol.scanner import Steps, run

AT_ONCE = 512 * 1024  # bytes of a body that are read and submitted in one go
_AT_ONCE_FILTERED = 4096  # the same where names may take some microseconds for each of them
_KINDS = {LINES: "line protocol", REMOTE_WRITE: "Prometheus' remote writes", STATEMENT: "statements"}

_Parts = Sequence[tuple[Sender, Write]]  # who gets something of a write, and what


class FanOut:
    """One listener's backends.

    :param reactor: gives the time by which clients wait.
    :param journal: the listener's, if it has one; then every sender's backlog is in it.
    :param consistency: of writes that ask for none.
    :param refuse_unjournaled: whether a write that the journal cannot take is refused although a backend has it.
    :param journal_first: whether a write is in the journal before any backend gets it. Where no client sends again what
        was under way when the relay died, one backend may not have it alone.
    :param clock: returns seconds since the epoch.
    :ivar name: the listener's, for the log.
    :ivar filters: those of the backends, each once.
    :ivar at_once: up to how many bytes a body may have to be submitted without :meth:`divide_slowly`.
    :ivar lines_unwanted: lines that no backend's filter takes.
    """

    divides_series = False
    _log = Logger()

    def __init__(
        self,
        name: str,
        senders: Sequence[Sender],
        reactor: IReactorTime,
        *,
        journal: Journal | None = None,
        consistency: str = "one",
        refuse_unjournaled: bool = False,
        journal_first: bool = False,
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.lines_unwanted = 0
        self._reactor = reactor
        self._journal = journal
        self._journal_first = journal_first
        self._clock = clock
        self._late: deque[_Late] = deque()  # what no sender has before the journal, in order
        self._undecided: dict[int, None] = {}  # the numbers of what is in the journal, or on its way there
        self._backed_up: deque[tuple[Write, _Parts, str, Deferred[Reply]]] = deque()
        self._is_submitting = False
        self._next_number = journal.next_number if journal is not None else count(1).__next__
        self._on_settled = self._settled if journal is None else self._settled_beside_the_journal
        self.reconfigure(name, senders, consistency=consistency, refuse_unjournaled=refuse_unjournaled)

    def reconfigure(
        self, name: str, senders: Sequence[Sender], *, consistency: str, refuse_unjournaled: bool = False
    ) -> None:
        """Let other settings hold for the next write; those that are under way keep what they began with."""
        self.name = name
        self.senders = tuple(senders)
        self._takers = {kind: [each for each in senders if kind in each.kinds] for kind in EVERYTHING}
        self._consistency = consistency
        self._refuse_unjournaled = refuse_unjournaled
        self.filters = list({each.filter: None for each in self._takers[LINES] if each.filter is not None})
        self.at_once = _AT_ONCE_FILTERED if self.filters else AT_ONCE

    # -- for each write

    def submit(self, write: Write, consistency: str = "", division: Division | None = None) -> Deferred[Reply]:
        """Send a write to every backend, and fire with the answer for the client. Never fails.

        With ``one`` that is the first 2xx or 4xx, at once. When all have failed it is one of their 5xx, else one of
        408, 425 and 429, else 503. Each backend gets the write, whoever was first. One whose filter leaves
        nothing of it has no part in it; a write that is for nobody is answered 204.

        :param consistency: ``any``, ``one``, ``quorum``, ``all``; empty for the listener's own.
        :param division: what :meth:`divide_slowly` has found.
        """
        kind = write.destination.kind
        takers = self._takers[kind]
        if not takers:
            return succeed(json_error(400, f"no backend of {self.name} takes {_KINDS[kind]}"))
        parts: _Parts = [(sender, write) for sender in takers if kind != STATEMENT or sender.settings.knows(write)]
        if kind == STATEMENT and not parts:
            words = f"no backend of {self.name} executes {scope_of(write.query).kind}: it is a matter of InfluxDB 1.x"
            return succeed(json_error(400, words))
        if self.filters and kind == LINES:
            parts = self._divide(write, division)
        if not parts:
            return succeed(TAKEN)
        answer: Deferred[Reply] = Deferred()
        level = consistency or self._consistency
        if self._is_submitting:  # a client was told within this call, and has written again at once
            self._backed_up.append((write, parts, level, answer))
            return answer
        self._is_submitting = True
        self._submit_next(write, parts, level, answer)
        while self._backed_up:
            self._submit_next(*self._backed_up.popleft())
        self._is_submitting = False
        return answer

    def _submit_next(self, write: Write, parts: _Parts, consistency: str, answer: Deferred[Reply]) -> None:
        try:
            self._submit(write, parts, consistency, answer)
        except Exception:  # noqa: BLE001 (it must not keep the next ones)
            answer.errback()

    def _submit(self, write: Write, parts: _Parts, consistency: str, answer: Deferred[Reply]) -> None:
        """Give a write to every sender, before any other write gets to one of them."""
        fate = Fate(
            self._next_number(),
            self._clock(),
            self._reactor.seconds(),
            answer,
            self._make_rule(parts, consistency),
            self._on_settled,
        )
        if self._journal is not None:
            self._append(self._journal, write, parts, consistency, fate)
            return
        is_queued = self._give_out(parts, fate)
        if consistency == "any" and is_queued and all(sender.keeps for sender, _ in parts):
            fate.answered("", TAKEN)

    def _make_rule(self, parts: _Parts, consistency: str) -> Rule:
        ways = len(parts)
        if consistency == "quorum":
            return Count(ways // 2 + 1, ways)
        if consistency == "all":
            return Count(ways, ways)
        is_journals = consistency == "any" and self._journal is not None
        return FirstAnswer(ways + is_journals)

    def _give_out(self, parts: _Parts, fate: Fate) -> bool:
        """Give a write to its senders; return whether each of them has taken it.

        Once the client has been told that it is not taken, because the first ones refuse it at once, say, the others do
        not get it.
        """
        taken = True
        for sender, part in parts:
            if fate.state is State.STRUCK:
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

    # -- filters

    @property
    def divides_lines(self) -> bool:
        """Whether there are filters."""
        return bool(self.filters)

    def divide_slowly(self, write: Write) -> Steps[Division]:
        """Find out bit by bit what the filters leave of a write: it may take long, whatever they are."""
        return divide_write_slowly(write, self.filters)

    def _divide(self, write: Write, division: Division | None) -> _Parts:
        """Return who gets something of a write, and what; senders with the same filter get the same object."""
        if division is None or division.parts.keys() != set(self.filters):  # a reload has changed them
            division = run(self.divide_slowly(write))
        takers = self._takers[LINES]
        if all(sender.filter is not None for sender in takers):
            self.lines_unwanted += division.unwanted
        parts = [(each, write if each.filter is None else division.parts[each.filter]) for each in takers]
        return [(sender, part) for sender, part in parts if part is not None]

    # -- the journal

    def _append(self, journal: Journal, write: Write, parts: _Parts, consistency: str, fate: Fate) -> None:
        """Give a write to the journal and the senders, side by side or one behind the other."""
        self._undecided[fate.number] = None
        record, receipt = Record(fate.number, fate.time, write), _Receipt(self, fate, consistency == "any")
        is_change = not write.mergeable and write.destination.kind == STATEMENT
        if self._journal_first:
            late = _Late(write, parts, fate, receipt)
            self._late.append(late)
            journal.append(record).addBoth(self._give_out_late, late)
            return
        if not is_change:
            journal.append_for(record, receipt)
            self._give_out_journaled(write, parts, fate)
            return
        appended = journal.append(record)
        appended.addCallbacks(receipt.callback, receipt.errback)
        self._give_out_journaled(write, parts, fate)
        appended.addBoth(self._executable, parts)

    def _executable(self, result: Failure | None, parts: _Parts) -> Failure | None:
        """Have a change executed that no backend gets before the journal has it, or cannot take it."""
        for sender, _ in parts:
            sender.execute_changes()
        return result

    def _give_out_late(self, result: Failure | None, late: _Late) -> None:
        """Give a write to the senders that the journal has or cannot take; they learn of the latter after that.

        A journal in trouble may refuse a write at once while earlier ones wait for it: they go first.
        """
        late.result, late.is_settled = result, True
        while self._late and self._late[0].is_settled:
            first = self._late.popleft()
            self._give_out_journaled(first.write, first.parts, first.fate)
            if isinstance(first.result, Failure):
                first.receipt.errback(first.result)
            else:
                first.receipt.callback(None)
            if first.handed is not None:
                first.handed.callback(None)

    def _give_out_journaled(self, write: Write, parts: _Parts, fate: Fate) -> None:
        self._give_out(parts, fate)
        if len(parts) < len(self.senders) or self._journal_first:  # they may be others than when it was divided
            concerned = {sender for sender, _ in parts}
            for sender in self.senders:
                if sender not in concerned:
                    sender.backlog.skip(write.destination, fate.number)

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

    def _settled_beside_the_journal(self, fate: Fate) -> None:
        if fate.is_journaled or fate.journal_problem:
            self._decide(fate)

    def _decide(self, fate: Fate) -> None:
        """Keep or strike a write, as its client will be told; tell the client when that is certain."""
        reply = fate.reply or UNABLE
        if fate.journal_problem and self._refuse_unjournaled and reply.status < 300:
            reply = json_error(503, f"unable to journal the write: {fate.journal_problem}")
        del self._undecided[fate.number]
        fate.decide(kept=reply.status < 300)
        if reply.status < 300 or self._journal is None or fate.journal_problem:
            fate.tell(reply)
        else:
            self._journal.strike(fate.number).addBoth(self._struck, fate, reply)

    def _struck(self, _: Failure | None, fate: Fate, reply: Reply) -> None:
        fate.tell(reply)

    def decided(self) -> int:
        """Return up to which number of the journal it is decided whether a write is kept."""
        last = self._journal.last_number if self._journal is not None else 0
        return next(iter(self._undecided), last + 1) - 1

    # -- for who asks how it is

    def why_unavailable(self) -> str:
        """Tell why a write that asks for nothing else would be answered 5xx now; empty if not, as far as is known."""
        reasons = (self._reason_for(takers) for takers in self._takers.values() if takers)
        return next(filter(None, reasons), "")

    def _reason_for(self, senders: Sequence[Sender]) -> str:
        level, total = self._consistency, len(senders)
        needed = {"quorum": total // 2 + 1, "all": total}.get(level, 1)
        has_room = [not sender.backlog.is_full for sender in senders]
        able = sum(not sender.why_unavailable() and room for sender, room in zip(senders, has_room, strict=True))
        journal = self._journal.why_unavailable if self._journal is not None else ""
        if journal and self._refuse_unjournaled:
            return journal
        if able >= needed:
            return ""
        if level == "any" and not journal and all(has_room) and all(sender.keeps for sender in senders):
            return ""
        return f"{able} of {total} backends can take writes, and consistency {level} needs {needed}"


@attrs.define(eq=False)
class _Late:
    """A write that no sender has before the journal.

    :ivar is_settled: whether the journal has it, or has failed: then ``result`` is a :class:`Failure`.
    :ivar handed: fires when the senders have it.
    """

    write: Write
    parts: _Parts
    fate: Fate
    receipt: _Receipt
    result: Failure | None = None
    is_settled: bool = False
    handed: Deferred[None] | None = None


class _Receipt:
    """Is told by the journal of one write, and tells the fan-out; it takes less time than a Deferred."""

    _log = Logger()
    __slots__ = ("_fan_out", "_fate", "_is_any")

    def __init__(self, fan_out: FanOut, fate: Fate, is_any: bool) -> None:  # noqa: FBT001 (made for every write)
        self._fan_out = fan_out
        self._fate = fate
        self._is_any = is_any

    def callback(self, _: None) -> None:
        try:
            self._fan_out.journaled(self._fate, is_any=self._is_any)
        except Exception:  # noqa: BLE001 (others wait for the journal, too)
            self._log.failure("{relay}", relay=self._fan_out.name)

    def errback(self, failure: Failure) -> None:
        problem = str(failure.value) or "it does not work"
        try:
            self._fan_out.not_journaled(problem, self._fate, is_any=self._is_any)
        except Exception:  # noqa: BLE001 (as above)
            self._log.failure("{relay}", relay=self._fan_out.name)
