"""What comes of what is sent to one backend."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial

from twisted.internet.interfaces import IReactorTime

from influxrelay.core.errors import BackendFailure
from influxrelay.core.log_throttle import FailureLog, RefusalLog
from influxrelay.core.write import Reply
from influxrelay.delivery.answer_rules import DEAD_LETTER, Answer
from influxrelay.delivery.backend import Backend
from influxrelay.delivery.backlog import Backlog
from influxrelay.delivery.clients import Clients
from influxrelay.delivery.connection_pool import NOT_OURS
from influxrelay.delivery.destination_queue import DestinationQueue, Entry, MissingDatabase
from influxrelay.delivery.fate import Fate, State
from influxrelay.delivery.requests import Requests
from influxrelay.delivery.responses import NOT_READY, STALE, Verdict, excerpt, rolls_back
from influxrelay.delivery.sending import Sending
from influxrelay.delivery.settings import SenderSettings
from influxrelay.delivery.statements import scope_of
from influxrelay.journal.interface import Positions


class Dispatcher(Sending):
    """Sends what waits in the queues of one sender, and does what the answers ask for.

    After a failure that is the backend's own (no answer, 5xx, 408, 425, 429) it is in *trouble*: one request at a time,
    from the queue that has waited longest, probes the backend when its back-off allows. Any other answer opens all
    queues again.

    A write that fails is gone for this backend, unless the backlog keeps it. What is kept stays in its place until the
    backend has it, has refused it for good, or nobody needs it; its client is told of the failure all the same, and so
    are all clients that wait at that time. Then a probe carries one write.

    :ivar refused: how many acknowledged writes the backend has refused for good, by what that means and by reason.
    """

    def __init__(
        self,
        backend: Backend,
        reactor: IReactorTime,
        settings: SenderSettings,
        backlog: Backlog,
        jitter: Callable[[], float],
    ) -> None:
        clients = Clients(settings.name, backend.timeout, reactor, self.expire)
        super().__init__(reactor, settings, backlog, Requests(backend, self), clients, jitter=jitter)
        self.failure_log = FailureLog(settings.listener, settings.name)
        self.refused: Counter[tuple[str, str]] = Counter()
        self._refusal_log = RefusalLog(reactor)
        self.requests.classify_by(settings.answers)
        backlog.attach(self)
        backlog.reconfigure(settings)

    # -- answers

    def taken(self, reply: Reply, queue: DestinationQueue, entries: list[Entry]) -> None:
        """Take a 2xx."""
        if queue.is_changes:
            self._executed(entries[0])
        self._found_database(queue)
        self._go_on_after(queue)  # before any client is told, so that its next write cannot overtake
        self.clients.answer(entries, reply)

    def answered(self, answer: Answer, queue: DestinationQueue, entries: list[Entry]) -> None:
        """Take another answer that shows that the backend is well."""
        if queue.is_changes:
            result = self.order.result_of(answer, entries[0])
            if result is not None:
                self.taken(result, queue, entries)
                return
        if answer.verdict is Verdict.NOT_READY and self.backlog.keeps:
            self._not_ready(answer.reply, queue, entries)
        elif len(entries) > 1:  # one bad write must not speak for the others
            self._unmerge(queue, entries)
        elif answer.verdict is Verdict.STALE:
            self._stale(answer, queue, entries[0])
        else:
            self._refused(answer, queue, entries[0])

    def _executed(self, change: Entry) -> None:
        """Note that the backend has executed a change; it may be what others wait for."""
        self.order.executed(change)
        scope = scope_of(change.write.query)
        for queue in self.queues if scope.kind == "CREATE DATABASE" else ():
            if queue.missing is not None and queue.destination.database in scope.databases:
                self.timers.call_later(0.0, partial(self._ask_again, queue, queue.missing))

    def _unmerge(self, queue: DestinationQueue, entries: list[Entry]) -> None:
        if self.closed is not None:
            self._give_back(queue, entries)
            self.clients.fail(entries, self.closed)
        else:
            queue.put_back(entries, alone=True)
            self.clients.wait_again(entries)
            self.expire()
        self._go_on_after(queue)

    def _refused(self, answer: Answer, queue: DestinationQueue, entry: Entry) -> None:
        """Tell the client of one write that the backend will never take it."""
        if answer.verdict is Verdict.NOT_READY:
            self.backlog.lost(entry, NOT_READY)
        else:
            self._note_refusal(answer, queue, entry)
        self._found_database(queue)
        self._go_on_after(queue)
        if answer.verdict is Verdict.PERMANENT:
            self.clients.fail([entry], answer.failure())
        else:
            self.clients.refuse([entry], answer.reply)

    def _stale(self, answer: Answer, queue: DestinationQueue, entry: Entry) -> None:
        """Let a write pass whose points the backend has, or newer ones.

        One such sample may have cost all others of a remote write: then its parts are sent, down to the samples.
        """
        if not entry.is_part:
            self._note_refusal(answer, queue, entry)
        parts = entry.divided(answer.reply) if self.closed is None and rolls_back(answer.reply) else []
        queue.put_back(parts, alone=True)
        self.clients.fail([entry], answer.failure(STALE))
        self._found_database(queue)
        self._go_on_after(queue)

    def _note_refusal(self, answer: Answer, queue: DestinationQueue, entry: Entry) -> None:
        """Log that a write is refused for good, and count it, and make a dead letter of it, if it is acknowledged."""
        self._refusal_log.refused(self.settings.listener, self.name, answer.status, answer.detail)
        entry.fate.when_decided(partial(self._count_refused, answer))
        if answer.means == DEAD_LETTER and self.is_kept(entry):
            self.backlog.refused(queue, entry, answer.reply)

    def _count_refused(self, answer: Answer, fate: Fate) -> None:
        if fate.state is State.KEPT:
            self.refused[answer.means, answer.reason] += 1

    def _go_on_after(self, queue: DestinationQueue) -> None:
        """Send what waits behind an answer: the backend lives."""
        if not self.recover():
            self.send_waiting(queue)

    def recover(self) -> bool:
        """Note that the backend lives; if that ends a trouble, send what waits in all queues, and return True."""
        if not self.back_off.lives():
            return False
        self._look_whether_it_flows()
        self.failure_log.recovered()
        for queue in self.queues:
            self.send_waiting(queue)
        return True

    # -- failures

    def failed(
        self,
        problem: BackendFailure,
        pause: float,
        queue: DestinationQueue,
        entries: list[Entry],
        *,
        is_answer: bool = False,
    ) -> None:
        """Take a failure that is the backend's own."""
        if problem.reason == NOT_OURS:
            self.stand_down()
        if self.stands_by or not self.queues.has(queue):
            return
        if queue.is_changes:
            self.order.failed(problem)
        flowed = self.flows
        self.back_off.failed(problem, pause)
        self._look_whether_it_flows()
        self.failure_log.failed(problem.reason, problem.detail)
        self._give_back(queue, entries)
        cannot_wait = self.clients.expired(math.nextafter(self.back_off.not_before, 0.0))
        self._drop_unkept(cannot_wait)
        if is_answer and problem.reply is not None:
            self.clients.refuse(entries, problem.reply)
        told = [*entries, *cannot_wait, *(entry for entry in self.clients.waiting() if self.is_kept(entry))]
        self.clients.fail(told, problem)
        for each in self.queues if flowed else self._queues_of(told):  # thousands of requests may fail in a row
            self._skip_struck(each)
            self.backlog.trim(each)
            self.tidy(each)
        self.probe()

    def _queues_of(self, entries: Iterable[Entry]) -> list[DestinationQueue]:
        queues = map(self.queues.get, {entry.write.destination for entry in entries})
        return [queue for queue in queues if queue is not None]

    def _give_back(self, queue: DestinationQueue, entries: list[Entry]) -> None:
        """Let what is kept of a request wait again, and count what is lost."""
        kept = []
        for entry in entries:
            if self.backlog.is_dropped(queue, entry):
                continue
            if self.closed is not None:
                self.backlog.stopped(entry)
            elif self.is_kept(entry):
                kept.append(entry)
            else:
                self.backlog.lost(entry, "failed")
        queue.put_back(kept, alone=False)

    def _drop_unkept(self, entries: Iterable[Entry]) -> None:
        """Remove from their queues those that nobody keeps."""
        for entry in entries:
            queue = self.queues.get(entry.write.destination)
            if queue is not None and not self.is_kept(entry):
                queue.remove(entry)
                self.backlog.lost(entry, "failed")

    def expire(self) -> None:
        """Tell who has waited for longer than the backend's timeout."""
        expired = self.clients.expired(self._reactor.seconds())
        self.clients.rearm()  # before any client is told, who may submit again
        if expired:
            problem = BackendFailure("timeout", f"waited {self.requests.backend.timeout:g} s behind other writes")
            self.failure_log.failed(problem.reason, problem.detail)
            self._drop_unkept(expired)
            self.clients.fail(expired, problem)
            for queue in self._queues_of(expired):
                self.tidy(queue)
            self.landed()

    # -- a database that is not there (yet)

    def _not_ready(self, reply: Reply, queue: DestinationQueue, entries: list[Entry]) -> None:
        """Let what is kept wait for its database; the backend is well, and the other queues go on."""
        missing = queue.missing = queue.missing or MissingDatabase()
        missing.note(reply)
        self._give_back(queue, entries)
        self.failure_log.failed(str(reply.status), excerpt(reply))
        self.recover()
        if self.settings.create_databases and missing.refusals == 1 and queue.waiting:
            told = [entry for entry in entries if not self.is_kept(entry)]
            self.clients.wait_again(entry for entry in entries if self.is_kept(entry))
            self.expire()
            created = self.requests.backend.create_database(entries[0].write)
            created.addBoth(lambda _: self._ask_again(queue, missing))
        else:
            told = [*entries, *(each for each in self.clients.waiting() if each.write.destination == queue.destination)]
            pause = self.back_off.delay(missing.refusals)
            creation = self.order.creation(queue)
            if creation is not None:
                self.requests.backend.create_database(creation).addErrback(lambda _: None)  # it is tried again
            missing.retry = self.timers.call_later(pause, lambda: self._ask_again(queue, missing))
        self.clients.refuse(told, reply)
        self._skip_struck(queue)
        if not (queue.waiting or queue.is_behind):
            self._found_database(queue)
        self.backlog.trim(queue)
        self.tidy(queue)

    def _ask_again(self, queue: DestinationQueue, missing: MissingDatabase) -> None:
        missing.holds = False
        if self.closed is None:
            self.go_on(queue)

    def _found_database(self, queue: DestinationQueue) -> None:
        """Know of no database that a queue misses."""
        if queue.missing is not None:
            queue.missing.forget()
            queue.missing = None

    # -- the operator, and another configuration

    def reconfigure(self, settings: SenderSettings) -> None:
        """Let other settings hold; what was wrong may be what has changed."""
        self.settings = settings
        self.requests.classify_by(settings.answers)
        self.clients.reconfigure(settings.name, self.requests.backend.timeout)
        self.backlog.reconfigure(settings)
        self.failure_log.rename(settings.listener, settings.name)
        self.order.rename(settings.listener, settings.name)
        self.back_off.reconfigure(settings.max_delay)
        for queue in self.queues:
            self._found_database(queue)
        self._look_again()

    # -- where several processes deliver, one at a time

    def stand_down(self) -> None:
        """Forget everything and tell nobody: another process has all that waits, and goes on with it."""
        if self.stands_by:
            return
        self.stands_by = True
        self._look_whether_it_flows()
        self._forget()
        self.requests.abort_writes()
        self.landed()

    def _forget(self) -> None:
        self.clients.forget()
        self.order.forget()
        for queue in self.queues:
            queue.clear()
            queue.is_behind = False
            self._found_database(queue)
            self.queues.forget(queue)
        self.backlog.stand_down()

    def stand_up(self, positions: Positions, last_number: int) -> None:
        """Go on from where another process was; what it has seen of the backend is not known here."""
        if self.leaves:
            return
        self._forget()  # whoever has given something since
        self.stands_by = False
        self.back_off.lives()
        self._look_whether_it_flows()
        self.backlog.resume(positions, last_number, last_number)

    def leave(self) -> None:
        """Send nothing more: another process is about to go on."""
        self.leaves = True
        self._look_whether_it_flows()

    # -- the end

    def close(self) -> None:
        """Send nothing more, and fail what waits; what is in flight is the transport's to end."""
        if self.shares:
            self.leave()
            self.stand_down()
        self.closed = problem = BackendFailure("stopped", "the relay is shutting down")
        self.flows = False
        self.timers.end()
        self.clients.stop()
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        later = self.backlog.close()
        for queue in self.queues:
            entries = queue.clear()
            for entry in entries:
                self.backlog.stopped(entry)
            self.clients.fail(entries, problem)
            self.tidy(queue)
        self.clients.fail(later, problem)
        self.landed()
