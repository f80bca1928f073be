"""Writes that this relay has accepted into a log that relays share, until their clients are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure
from influxrelay.core.replies import TAKEN, UNABLE
from influxrelay.core.write import STATEMENT, Reply, Write
from influxrelay.delivery.fate import Fate, Waiter
from influxrelay.delivery.hand_out import HandOut, Parts, make_rule, unjournaled
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.statements import read_result
from influxrelay.journal.records import Record
from influxrelay.journal.shared_log import SharedLog

GRACE = 1.0  # seconds that word of a backend may take from one relay to another, beside the backend's timeout
_MANY = 1000


class Origin(HandOut):
    """Appends what clients write to the shared log, and answers them when there is word of enough backends.

    Whichever relay delivers to a backend tells what has become of a write there. If it does not tell in time, the
    client is answered 503 although the write is delivered: it is only struck where it is certain that no backend has
    taken it, or where the client is told that it never will be.

    :ivar patience: seconds that there may be no word of a backend.
    """

    _log = Logger()

    def __init__(self, log: SharedLog, reactor: IReactorTime, *, clock: Callable[[], float] = lambda: 0.0) -> None:
        super().__init__(reactor, clock=clock)
        self._journal = log
        self.patience = GRACE
        self._appending: dict[_Own, None] = {}
        self._handed: list[Deferred[None]] = []
        self._undecided: dict[int, _Own] = {}  # by number, those that have waited longest first
        self._early: dict[int, list[tuple[str, Reply | BackendFailure]]] = {}  # of what is not known to be in the log
        self._last = 0
        self._timer: IDelayedCall | None = None
        self._is_open = False
        self._directly: dict[str, Sender] = {}

    def begin(self) -> None:
        """Take writes from now on: the log is open."""
        self._is_open = True

    def submit(self, write: Write, parts: Parts, consistency: str, waiter: Waiter) -> None:
        """Append a write; whoever delivers to a backend gets it from the log."""
        is_any = consistency == "any"
        rule = make_rule(len(parts), consistency, beside=is_any)
        own = _Own(0, self._clock(), self._reactor.seconds(), waiter, rule, self._on_settled)
        own.parts, own.missing = parts, {sender.name for sender, _ in parts}
        own.is_change, own.is_unsure = write.destination.kind == STATEMENT, False
        self._appending[own] = None
        record = Record(0, own.time, write)
        if self._is_open:
            self._journal.append_for(record, _Receipt(self, own, record, is_any))
        else:
            self.not_appended(own, "it is not open yet", is_any=is_any)

    def relay_by(self, senders: Mapping[str, Sender]) -> None:
        """Relay by these, by name, what the log cannot take; unless that is refused."""
        self._directly = dict(senders)

    def is_undecided(self, number: int) -> bool:
        """Tell whether a client waits here for its answer to a write."""
        return number in self._undecided

    # -- what the log says

    def appended(self, own: _Own, number: int, *, is_any: bool) -> None:
        """Note that a write is in the log, and so in the queue of every backend."""
        own.number, own.submitted, own.is_journaled, own.parts = number, self._reactor.seconds(), True, ()
        self._last = max(self._last, number)
        self._undecided[number] = own
        if is_any:
            own.answered("", TAKEN)
        for backend, result in self._early.pop(number, ()):
            self.outcome(number, backend, result)
        self._settle_appending(own)
        self._rearm()

    def not_appended(self, own: _Own, problem: str, *, is_any: bool) -> None:
        """Refuse a write that the log could not take, or relay it as without a journal, and in no common order."""
        own.journal_problem = problem
        parts, own.parts = own.parts, ()
        if self.refuses_unjournaled or own.is_change:
            own.tell(unjournaled(problem))
        else:
            if is_any:
                own.failed("", BackendFailure("journal", problem))
            self._give_out([(self._directly.get(sender.name, sender), part) for sender, part in parts], own)
        self._settle_appending(own)

    def _settle_appending(self, own: _Own) -> None:
        del self._appending[own]
        if not self._appending:
            handed, self._handed = self._handed, []
            for each in handed:
                each.callback(None)

    def outcome(self, number: int, backend: str, result: Reply | BackendFailure) -> None:
        """Learn what became of a write at a backend; once counts, whoever tells it."""
        own = self._undecided.get(number)
        if own is None:
            if number > self._last and self._appending:
                self._early.setdefault(number, []).append((backend, result))
                if len(self._early) > _MANY:
                    self._early = {each: told for each, told in self._early.items() if each > self._last}
        elif backend in own.missing:
            own.missing.discard(backend)
            if isinstance(result, BackendFailure):
                own.failed(backend, result)
            else:
                own.answered(backend, read_result(result, self._transport(backend)) if own.is_change else result)

    def _transport(self, backend: str) -> object:
        return next((sender.backend for sender in self.senders if sender.name == backend), None)

    # -- the answer

    def _settled(self, fate: Fate) -> None:
        reply, number = fate.reply or UNABLE, fate.number
        if fate.journal_problem:
            super()._settled(fate)
            return
        own = self._undecided.pop(number)
        is_kept = reply.status < 300 or (own.is_unsure and reply.status >= 500)
        own.decide(kept=is_kept)
        if is_kept:
            self._journal.decided([number])
            own.tell(reply)
        else:
            self._journal.strike(number).addBoth(self._struck, own, reply)

    def _struck(self, _: Failure | None, own: Fate, reply: Reply) -> None:
        own.tell(reply)

    def _rearm(self) -> None:
        if self._timer is None and self._undecided:
            first = next(iter(self._undecided.values()))
            pause = first.submitted + self.patience - self._reactor.seconds()
            self._timer = self._reactor.callLater(max(0.0, pause), self._expire)

    def _expire(self) -> None:
        """Give up those of which there is no word in time; a change takes as long as it takes."""
        self._timer = None
        due = self._reactor.seconds() - self.patience
        for own in [each for each in self._undecided.values() if each.submitted <= due]:
            if own.is_change and self._are_delivered(own.missing):
                del self._undecided[own.number]
                own.submitted = self._reactor.seconds()
                self._undecided[own.number] = own
                continue
            own.is_unsure = True
            for backend in sorted(own.missing):
                if own.number in self._undecided:
                    own.failed(backend, BackendFailure("timeout", "no word from the relay that delivers to it"))
        self._rearm()

    def _are_delivered(self, backends: set[str]) -> bool:
        deliverers = self._journal.deliverers()
        return all(map(deliverers.get, backends))

    # -- for who asks

    def reconfigure(self, name: str, senders: Sequence[Sender], *, refuse_unjournaled: bool) -> None:
        """Let other settings hold."""
        super().reconfigure(name, senders, refuse_unjournaled=refuse_unjournaled or not self._directly)
        self.patience = max((sender.backend.timeout for sender in self.senders), default=0.0) + GRACE

    def handed_out(self) -> Deferred[None]:
        """Fire when the log has everything that was submitted until now, or has refused it."""
        if not self._appending:
            return succeed(None)
        self._handed.append(Deferred())
        return self._handed[-1]

    @property
    def why_unjournaled(self) -> str:
        """Why the log would not take a write now; empty if it would, as far as is known."""
        return self._journal.why_unavailable if self._is_open else "the journal is not open yet"

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Own(Fate):
    """A write whose client waits here.

    :ivar parts: who gets something of it, until the log has it.
    :ivar missing: the backends of which there is no word.
    :ivar is_change: whether it may take any time.
    :ivar is_unsure: whether there was no word of some backends in time: they may have it, or get it.
    """

    __slots__ = ("is_change", "is_unsure", "missing", "parts")

    parts: Parts
    missing: set[str]
    is_change: bool
    is_unsure: bool


class _Receipt:
    """Is told by the log of one write; it takes less time than a Deferred."""

    _log = Logger()
    __slots__ = ("_is_any", "_origin", "_own", "_record")

    def __init__(self, origin: Origin, own: _Own, record: Record, is_any: bool) -> None:  # noqa: FBT001 (one for each)
        self._origin = origin
        self._own = own
        self._record = record
        self._is_any = is_any

    def callback(self, _: None) -> None:
        try:
            self._origin.appended(self._own, self._record.seq, is_any=self._is_any)
        except Exception:  # noqa: BLE001 (others wait for the log, too)
            self._log.failure("{relay}", relay=self._origin.name)

    def errback(self, failure: Failure) -> None:
        try:
            self._origin.not_appended(self._own, str(failure.value) or "it does not work", is_any=self._is_any)
        except Exception:  # noqa: BLE001 (as above)
            self._log.failure("{relay}", relay=self._origin.name)
