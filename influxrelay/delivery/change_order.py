"""The order between changes and the writes that they concern, at one backend."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure, JournalError
from influxrelay.core.write import Reply, Write
from influxrelay.delivery.answer_rules import Answer
from influxrelay.delivery.backlog import Backlog
from influxrelay.delivery.destination_queue import DestinationQueue, Entry
from influxrelay.delivery.fate import Fate, State
from influxrelay.delivery.queues import Queues
from influxrelay.delivery.responses import Verdict
from influxrelay.delivery.statements import Result, Scope, error_in, scope_of, shown_statement, was_executed_before
from influxrelay.delivery.timers import Timers

CHANGE_OUTCOMES = ("executed", "refused", "missed")
KEEP_AGAIN = 1.0  # seconds until a position that could not be kept is tried again
_UNSENT = ("refused", "unresolved", "unreachable")  # reasons of failures after which a backend cannot have executed


class ChangeOrder:
    """Says what may be sent to a backend while changes wait for it.

    All changes are in one queue. One of them is sent when all earlier ones are passed, and all earlier writes to its
    databases; it holds later writes to these back until it is passed in such a way that it will not be sent again, not
    even by another process. Everything waits only for what has a lower number.

    :param wake: has everything sent that may be.
    :ivar outcomes: how often the backend has executed, refused or missed a change.
    :ivar unsure: whether the backend may have executed the next change before.
    """

    _log = Logger()

    def __init__(self, queues: Queues, backlog: Backlog, timers: Timers, wake: Callable[[], object]) -> None:
        self.outcomes: Counter[str] = Counter()
        self.unsure = False
        self._queues = queues
        self._backlog = backlog
        self._timers = timers
        self._wake = wake
        self._pending: dict[int, tuple[Scope, Fate]] = {}  # by number, the lowest first
        self._is_keeping = False  # the position of the queue
        self._known = math.inf  # up to here it is known what waits in the queue
        self._names = "", ""

    def rename(self, listener: str, backend: str) -> None:
        """Speak of the backend by these names."""
        self._names = listener, backend

    @property
    def is_busy(self) -> bool:
        """Whether anything may have to wait for a change."""
        return bool(self._pending)

    def forget(self) -> None:
        """Know of no change: another process goes on with them."""
        self._pending = {}
        self._known = math.inf
        self.unsure = False

    # -- what may be sent

    def note(self, entry: Entry) -> None:
        """Let a change hold later writes back, from before it is sent until it is passed."""
        number = entry.fate.number
        if not number or number in self._pending:
            return
        is_last = not self._pending or number > next(reversed(self._pending))
        self._pending[number] = scope_of(entry.write.query), entry.fate
        if not is_last:
            self._pending = dict(sorted(self._pending.items()))

    def first_for(self, database: bytes) -> float:
        """Return the number of the first change that holds writes to a database back; infinity if there is none."""
        first = next((number for number, (scope, _) in self._pending.items() if database in scope.databases), math.inf)
        changes = self._queues.changes
        return first if changes is None else min(first, self._backlog.known_upto(changes) + 1)

    def room(self, queue: DestinationQueue, max_bytes: int) -> int:
        """Return how many bytes the next request from a queue may have; 0 if nothing of it may be sent now."""
        if queue.is_changes:
            return max_bytes if self._may_execute(queue, queue.waiting[0]) else 0
        first = self.first_for(queue.destination.database)
        return max_bytes if math.isinf(first) else queue.bytes_before(first, max_bytes)

    def may_send(self, queue: DestinationQueue) -> bool:
        """Tell whether what has waited longest in a queue may be sent now, or be left out."""
        return queue.waiting[0].fate.state is State.STRUCK or self.room(queue, 1) > 0

    def _may_execute(self, changes: DestinationQueue, entry: Entry) -> bool:
        number = entry.fate.number
        if changes.in_flight or self._is_keeping or not self._backlog.is_journaled(entry):
            return False
        if number and next(iter(self._pending), number) < number:
            return False
        scope = scope_of(entry.write.query)
        return not scope.waits or all(
            self._backlog.is_through(each, number)
            for each in self._queues
            if each.destination.database in scope.databases and not each.is_changes
        )

    def creation(self, queue: DestinationQueue) -> Write | None:
        """Return the change by which a database is created, or dropped, for which a queue waits.

        Where the first change waits for the same database nothing would ever go on: the database has to be there for a
        while before its turn comes.
        """
        changes = self._queues.changes
        if changes is None or not changes.waiting:
            return None
        wanted = frozenset((queue.destination.database,))
        if queue.is_changes:
            wanted = scope_of(changes.waiting[0].write.query).databases
        for index, entry in enumerate(changes.waiting):
            scope = scope_of(entry.write.query)
            creates = scope.kind == "CREATE DATABASE" and index > 0
            if wanted & scope.databases and (creates or scope.kind == "DROP DATABASE"):
                return entry.write
        return None

    # -- what has become of a change

    def executed(self, entry: Entry) -> None:
        """Note that the backend has executed a change."""
        self.unsure = False
        self.outcomes["executed"] += 1
        entry.fate.when_decided(partial(self._executed, entry.write))

    def result_of(self, answer: Answer, entry: Entry) -> Reply | None:
        """Take a refusal; return a result where it shows that the backend has executed the change before.

        That may be so of what was sent without an answer, be it by an earlier process.
        """
        reply = answer.reply
        if self.unsure and was_executed_before(scope_of(entry.write.query), reply):
            return Result(200, reply.headers, b'{"results":[{"statement_id":0}]}\n')
        self.unsure = False
        if answer.verdict is not Verdict.NOT_READY:
            self.outcomes["refused"] += 1
            entry.fate.when_decided(partial(self._refused, entry.write, error_in(reply.body) or answer.detail))
        return None

    def failed(self, problem: BackendFailure) -> None:
        """Note that it is not known whether the backend has executed the change that was under way."""
        self.unsure = self.unsure or problem.reason not in _UNSENT

    def lost(self, entry: Entry) -> None:
        """Note that the backend will not get a change, if it turns out that it should have."""
        entry.fate.when_decided(partial(self._lost, entry.write))

    def _executed(self, write: Write, fate: Fate) -> None:
        if fate.state is State.STRUCK:
            self._complain(write, "has executed", "has refused")

    def _refused(self, write: Write, words: str, fate: Fate) -> None:
        if fate.state is State.KEPT:
            self._complain(write, "has refused", "has executed, or will", words)

    def _lost(self, write: Write, fate: Fate) -> None:
        if fate.state is State.KEPT:
            self.outcomes["missed"] += 1
            self._complain(write, "has missed", "has executed")

    def _complain(self, write: Write, what: str, other: str, words: str = "") -> None:
        listener, backend = self._names
        self._log.error(
            "{relay}: backend {backend} {what} what another backend {other}: {text}{words}",
            relay=listener,
            backend=backend,
            what=what,
            other=other,
            text=shown_statement(write),
            words=f": {words}" if words else "",
        )

    # -- what is passed

    def look(self) -> None:
        """Let writes go on behind the changes that the backend has passed, as soon as that is kept."""
        changes = self._queues.changes
        if changes is None:
            return
        known = self._backlog.known_upto(changes)
        if known != self._known:
            self._known = known
            self._timers.call_later(0.0, self._wake)
        if self._is_keeping or not self._pending:
            return
        upto = self._backlog.passed(changes)
        passed = [fate for number, (_, fate) in self._pending.items() if number <= upto]
        if not passed:
            return
        self._is_keeping = True
        if all(fate.journal_problem for fate in passed):  # no process will find them
            self._kept(None, upto)
            return
        kept: Deferred[None] = self._backlog.keep_positions()
        kept.addCallbacks(self._kept, self._not_kept, callbackArgs=(upto,))

    def _kept(self, _: None, upto: int) -> None:
        """Go on in a moment: somebody may be about to do something with a queue."""
        self._timers.call_later(0.0, partial(self._pass, upto))

    def _pass(self, upto: int) -> None:
        self._is_keeping = False
        self._pending = {number: each for number, each in self._pending.items() if number > upto}
        self._wake()

    def _not_kept(self, failure: Failure) -> None:
        """Try again in a while: what is behind would be destroyed by a change that is executed once more."""
        if not failure.check(JournalError):
            self._log.failure("the position of backend {backend}", failure, backend=self._names[1])
        self._timers.call_later(KEEP_AGAIN, self._keep_again)

    def _keep_again(self) -> None:
        self._is_keeping = False
        self.look()
