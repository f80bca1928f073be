"""How the relay and its backends are, for load balancers: values, and who finds them out.

Nothing here is HTTP: :mod:`influxrelay.operations.resources` answers with it. The questions are asked of whatever the
listeners and their senders are at that moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

import attrs
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.task import deferLater

from influxrelay import __version__
from influxrelay.core.errors import JournalError
from influxrelay.core.text import age, count, iso, size, text
from influxrelay.core.timeouts import within
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.standing import Outlook
from influxrelay.journal.interface import Journal
from influxrelay.operations.views import how_to_repair

NAME = "influxrelay"
PATIENCE = 1.0  # seconds that a question about a backend waits for what is under way
STEP = 0.01  # seconds between two looks
IN_SYNC = "up and in sync"
UNKNOWN = "not heard of yet"
SLOW_JOURNAL = "behind: the journal is slow, and what came last is not in it"
NOT_READY = "it is starting or stopping"


@attrs.frozen
class Check:
    """How one backend of one listener is."""

    name: str
    listener: str
    passed: bool
    message: str


@attrs.frozen
class Reads:
    """What would become of a read at one listener; it passes if a backend in sync would answer."""

    listener: str
    passed: bool
    message: str


@attrs.frozen
class Health:
    """An answer in the shape of InfluxDB's ``/health``.

    :ivar name: of what was asked about: the relay, or a backend.
    :ivar queries: one for each listener that answers queries, where the relay was asked about.
    """

    name: str
    passed: bool
    message: str
    checks: tuple[Check, ...] = ()
    queries: tuple[Reads, ...] = ()
    version: str = __version__

    def show(self) -> dict[str, Any]:
        """Return it for JSON."""
        queries = [
            {"listener": each.listener, "status": _status(passed=each.passed), "message": each.message}
            for each in self.queries
        ]
        return {
            "name": self.name,
            "status": _status(passed=self.passed),
            "message": self.message,
            "checks": [
                {
                    "name": each.name,
                    "listener": each.listener,
                    "status": _status(passed=each.passed),
                    "message": each.message,
                }
                for each in self.checks
            ],
            **({"queries": queries} if queries else {}),
            "version": self.version,
        }

    @classmethod
    def parse(cls, shown: dict[str, Any]) -> Self:
        """Return what :meth:`show` has shown."""
        checks = (
            Check(each["name"], each["listener"], each["status"] == "pass", each["message"]) for each in shown["checks"]
        )
        queries = (
            Reads(each["listener"], each["status"] == "pass", each["message"]) for each in shown.get("queries", ())
        )
        passed = shown["status"] == "pass"
        return cls(shown["name"], passed, shown["message"], tuple(checks), tuple(queries), shown["version"])


def _status(*, passed: bool) -> str:
    return "pass" if passed else "fail"


class Examiner(Protocol):
    """Whoever can tell how the relay is."""

    async def health(self) -> Health:
        """Tell whether a write would be taken now."""

    async def backend(self, name: str) -> Health | None:
        """Tell whether a backend has all that was accepted before this question; None if there is no such backend."""

    async def queries(self) -> Health | None:
        """Tell whether a backend in sync would answer a read now; None if there are no queries."""

    async def ready(self) -> Health:
        """Tell whether the relay has started, and does not stop."""


class Listener(Protocol):
    """What is asked of a listener."""

    name: str
    senders: list[Sender]

    @property
    def is_shard(self) -> bool:
        """Whether it is a part of another listener, which takes writes as long as one of its shards does."""

    @property
    def writer(self) -> Journal | None:
        """Its journal, if it has one."""

    @property
    def is_ready(self) -> bool:
        """Whether it listens, its journal is open, and it does not stop."""

    def why_unavailable(self) -> str:
        """Tell why a write would be answered 5xx now; empty if it would not, as far as is known."""

    def outlook(self) -> Outlook | None:
        """Tell what would become of a read; None if there are no queries here."""

    def hand_over(self) -> Deferred[Any]:
        """Give what has been collected to the senders; fires when they have it."""


class LocalExaminer:
    """Looks at the listeners of this process.

    :param listeners: returns them as they are now.
    """

    def __init__(self, listeners: Callable[[], Sequence[Listener]], reactor: Any) -> None:
        self._listeners = listeners
        self._reactor = reactor

    async def health(self) -> Health:
        """Tell whether a write would be taken now, by every listener."""
        listeners = self._listeners()
        await gatherResults([self._look_at_disk(each.writer) for each in listeners if each.writer is not None])
        checks = [_outline(listener, sender) for listener in listeners for sender in listener.senders]
        reasons = [(each.name, each.why_unavailable() if each.is_ready else NOT_READY) for each in listeners]
        words = "; ".join(f"{name}: {reason}" for name, reason in reasons if reason)
        passed = not any(reason for each, (_, reason) in zip(listeners, reasons, strict=True) if not each.is_shard)
        if passed and words:
            words = f"ready for writes, but not to all shards: {words}"
        return Health(NAME, passed, words or _ready_for_writes(listeners), tuple(checks), self._reads())

    def _look_at_disk(self, writer: Journal) -> Deferred[bool]:
        """Find out whether a journal's trouble is over: while no writes come, nobody else does."""
        if not writer.trouble:
            return succeed(True)
        tried = writer.probe().addErrback(lambda failure: failure.trap(JournalError))
        return Deferred.fromCoroutine(within(PATIENCE, tried, self._reactor))

    async def backend(self, name: str) -> Health | None:
        """Tell whether a backend has all that was accepted before this question, from every listener."""
        found = [(each, sender) for each in self._listeners() for sender in each.senders if sender.name == name]
        if not found:
            return None
        looks = [Deferred.fromCoroutine(self._examine(listener, sender)) for listener, sender in found]
        checks: list[Check] = await gatherResults(looks)
        words = [
            each.message if len(found) == 1 else f"{each.listener}: {each.message}"
            for each in checks
            if not each.passed
        ]
        return Health(name, not words, "; ".join(words) or IN_SYNC, tuple(checks))

    async def _examine(self, listener: Listener, sender: Sender) -> Check:
        """Wait for what is under way, for a while."""
        deadline = self._reactor.seconds() + PATIENCE
        if not await within(PATIENCE, listener.hand_over(), self._reactor):
            return Check(sender.name, listener.name, passed=False, message=SLOW_JOURNAL)
        is_past = sender.barrier()
        while True:
            words = sender.why_unavailable()
            if not words and sender.status.is_known and is_past():
                words = missed(listener, sender)
                return Check(sender.name, listener.name, not words, words or IN_SYNC)
            if words or self._reactor.seconds() >= deadline:
                words = words or (behind(sender, time.time()) if sender.status.is_known else UNKNOWN)
                return Check(sender.name, listener.name, passed=False, message=words)
            await deferLater(self._reactor, STEP)

    async def queries(self) -> Health | None:
        """Tell whether a backend in sync would answer a read now, at every listener that has queries."""
        reads = self._reads()
        if not reads:
            return None
        words = "; ".join(f"{each.listener}: {each.message}" for each in reads if not each.passed)
        return Health(NAME, not words, words or "ready for queries", queries=reads)

    def _reads(self) -> tuple[Reads, ...]:
        found = [(each, each.outlook()) for each in self._listeners()]
        return tuple(
            Reads(each.name, how.in_sync, how.message)
            if each.is_ready
            else Reads(each.name, passed=False, message=NOT_READY)
            for each, how in found
            if how is not None
        )

    async def ready(self) -> Health:
        """Tell whether all listeners are ready."""
        late = "; ".join(f"{each.name}: {NOT_READY}" for each in self._listeners() if not each.is_ready)
        return Health(NAME, not late, late or "ready", queries=self._reads())


def _ready_for_writes(listeners: Sequence[Listener]) -> str:
    writers = [(each.name, each.writer) for each in listeners]
    troubles = "; ".join(f"{name}: {writer.trouble}" for name, writer in writers if writer and writer.trouble)
    if troubles:
        return f"ready for writes, but the journal does not work: {troubles}"
    risks = "; ".join(f"{name}: {writer.risk}" for name, writer in writers if writer and writer.risk)
    lossy = f", but the loss of a server or of power may cost acknowledged writes: {risks}" if risks else ""
    return f"ready for writes{lossy}"


def _outline(listener: Listener, sender: Sender) -> Check:
    """Tell how a backend is, without waiting for what is under way."""
    words = sender.why_unavailable()
    if not words and (sender.is_behind or sender.has_a_change):
        return Check(sender.name, listener.name, passed=True, message=f"up, but {behind(sender, time.time())}")
    return Check(sender.name, listener.name, not words, words or "up")


def missed(listener: Listener, sender: Sender) -> str:
    """Tell what a backend will never get by itself; what an operator has dropped on purpose is no matter."""
    losses = [each for each in sender.backlog.losses() if each.reason != "operator"]
    if not losses:
        return ""
    first, last = min(each.first for each in losses), max(each.last for each in losses)
    lost = count(sum(each.writes for each in losses), "write")
    return (
        f"misses {lost} ({size(sum(each.bytes for each in losses))}) accepted from {iso(first)} to {iso(last)}"
        f" ({', '.join(each.reason for each in losses)}):"
        f" {how_to_repair(listener.name, sender.name, by_command=sender.settings.is_repairable)}"
    )


def behind(sender: Sender, now: float) -> str:
    """Tell what a backend does not have yet."""
    elsewhere = sender.elsewhere
    if elsewhere is not None:
        where = f"relay {elsewhere.deliverer} delivers to it" if elsewhere.deliverer else "no relay delivers to it"
        return f"behind: the oldest write waits for {age(elsewhere.age or 0.0)}; {where}"
    writes, waiting, oldest = sender.queues.outstanding()
    databases, more = sender.queues.missing_databases(), sender.queues.are_on_disk()
    words = f"behind: {count(writes, 'write')} ({size(waiting)})"
    if more:
        words += " and more on disk"
    words += " is under way or waits" if writes == 1 and not more else " are under way or wait"
    if oldest is not None:
        words += f", the oldest for {age(max(0.0, now - oldest))}"
    if databases:
        names = ", ".join(f'"{text(each)}"' for each in sorted(databases))
        words += f"; it has no database {names}: create it there"
    return words
