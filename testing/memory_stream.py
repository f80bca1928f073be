"""The system that keeps a shared log, in memory: a cluster, and engines that are connected to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from influxrelay.core.errors import JournalError
from influxrelay.journal.records import JournalLimits
from influxrelay.journal.shared.interface import Entry, Message, StreamState
from testing.memory_store import Kept, Values
from testing.memory_watches import ANSWER, MESSAGE, PUSH, REQUEST, Subscription, Watching


class MemoryCluster:
    """Keeps the log, the dead letters and the values. What travels arrives when the clock is advanced, if only by 0.

    :ivar travel: how long something travels that begins now, in seconds, by what it is and whose it is; None loses it
        (what a watch hands out is never lost).
    :ivar quorum: while False, nothing can be stored, and no question that needs a leader is answered.
    :ivar engines: all that there were.
    """

    def __init__(
        self,
        clock: Clock,
        name: str = "relay",
        *,
        max_bytes: int = 0,
        max_age: float = 0.0,
        drop_oldest: bool = False,
    ) -> None:
        self.clock = clock
        self.name = name
        self.quorum = True
        self.travel: Callable[[str, MemoryEngine], float | None] = lambda what, engine: 0.0
        self.engines: list[MemoryEngine] = []
        self.subscriptions: list[Subscription] = []
        self.log = Kept(clock, max_bytes=max_bytes, max_age=max_age, drop_oldest=drop_oldest)
        self.letters = Kept(clock)
        self.values = Values()

    def engine(self, clock: Clock | None = None, *, timeout: float = 10.0) -> MemoryEngine:
        """Return a new engine.

        :param clock: its own; the cluster's if there is none.
        :param timeout: seconds until a question without an answer fails.
        """
        engine = MemoryEngine(self, clock or self.clock, timeout)
        self.engines.append(engine)
        return engine

    def lose(self, what: str, count: int = 1) -> None:
        """Lose the next things of a kind, whoever's they are; then all travel as before."""
        before, left = self.travel, count

        def travel(which: str, engine: MemoryEngine) -> float | None:
            nonlocal left
            if which == what and left:
                left -= 1
                return None
            return before(which, engine)

        self.travel = travel


class MemoryEngine:
    """An engine of a cluster in memory.

    :ivar reachable: while False, nothing travels between it and the cluster; what is on its way then is lost.
    :ivar paused: while True, nothing that arrives is looked at, as in a process that is stopped.
    """

    attempt = 2.0

    def __init__(self, cluster: MemoryCluster, clock: Clock, timeout: float) -> None:
        self.cluster = cluster
        self.clock = clock
        self.timeout = timeout
        self.name = cluster.name
        self.place = f"nats://memory/{cluster.name}"
        self.trouble = self.risk = ""
        self.reachable = True
        self.paused = False
        self.watches: list[Watching | Subscription] = []
        self.open: set[_Question] = set()
        self.log = MemoryStream(self, cluster.name, cluster.log)
        self.letters = MemoryStream(self, f"{cluster.name}-letters", cluster.letters)
        self.bucket = MemoryBucket(self, cluster.values)
        self._closed = False
        self._waiting: list[Callable[[], None]] = []
        self._latest: dict[str, float] = {}

    def connect(self) -> Deferred[None]:
        """Reach the cluster."""
        return self.ask(lambda: None)

    def reconfigure(self, limits: JournalLimits) -> Deferred[None]:
        """Change the limits of the log."""
        log = self.cluster.log

        def change() -> None:
            log.max_bytes, log.max_age, log.drop_oldest = limits.max_bytes, limits.max_age, limits.drop_oldest

        return self.ask(change)

    def close(self) -> Deferred[None]:
        """Leave."""
        self._closed = True
        for watch in list(self.watches):
            watch.stop()
        for question in list(self.open):
            question.give_up("closed")
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def vanish(self) -> None:
        """End as a killed process does: nothing fires any more."""
        self._closed = True
        for watch in list(self.watches):
            watch.stop()
        for question in list(self.open):
            question.forget()

    def cut(self) -> None:
        """Lose the connection to the cluster."""
        self.reachable = False
        self.trouble = "no connection"

    def mend(self) -> None:
        """Have the connection again."""
        self.reachable = True
        self.trouble = ""
        for watch in list(self.watches):
            watch.changed()

    def pause(self) -> None:
        """Stop as a process does on SIGSTOP; the test must not advance the engine's own clock meanwhile."""
        self.paused = True

    def resume(self) -> None:
        """Go on, with all that has arrived meanwhile."""
        self.paused = False
        waiting, self._waiting = self._waiting, []
        for look in waiting:
            look()

    def send(self, subject: str, payload: bytes) -> None:
        """Send to whoever subscribes now."""
        self._check_subject(subject)
        self.travel(REQUEST, lambda: self._spread(subject, payload))

    def subscribe(self, subject: str, on_payload: Callable[[bytes], None]) -> Subscription:
        """Hand out what is sent to a subject."""
        self._check_subject(subject)
        return Subscription(self, subject, on_payload)

    def ask(self, act: Callable[[], Any], *, needs_quorum: bool = True) -> Deferred[Any]:
        """Ask the cluster until it answers."""
        if self._closed:
            return fail(JournalError("closed"))
        question = _Question(self, act, needs_quorum=needs_quorum)
        self.open.add(question)
        question.begin()
        return question.answer

    def travel(self, what: str, arrive: Callable[[], None]) -> None:
        """Let something travel, behind what went before in this direction; it is lost if there is no connection."""
        seconds = self.cluster.travel(what, self)
        if not self.reachable or self._closed:
            return
        if seconds is None:
            if what != PUSH:
                return
            seconds = 0.0
        way = "to" if what == REQUEST else "from"
        now = self.cluster.clock.seconds()
        self._latest[way] = when = max(now + seconds, self._latest.get(way, 0.0))
        self.cluster.clock.callLater(when - now, self._arrived, what, arrive)

    def _arrived(self, what: str, arrive: Callable[[], None]) -> None:
        if what == REQUEST:
            if self.reachable:
                arrive()
        elif self.paused:
            self._waiting.append(partial(self._arrived, what, arrive))
        elif self.reachable and not self._closed:
            arrive()

    def _spread(self, subject: str, payload: bytes) -> None:
        for each in list(self.cluster.subscriptions):
            if each.subject == subject:
                each.engine.travel(MESSAGE, partial(each.hand_out, payload))

    def _check_subject(self, subject: str) -> None:
        if not subject.startswith(f"{self.name}.") or subject in {f"{self.name}.log", f"{self.name}.strike"}:
            raise ValueError(f"{subject!r} is none of the subjects that are not stored")


class _Question:
    """Something that the cluster is asked for until it answers or the time is up."""

    def __init__(self, engine: MemoryEngine, act: Callable[[], Any], *, needs_quorum: bool) -> None:
        self.answer: Deferred[Any] = Deferred()
        self._engine = engine
        self._act = act
        self._needs_quorum = needs_quorum
        self._end = engine.clock.callLater(engine.timeout, self.give_up, "no answer")
        self._again: Any = None

    def begin(self) -> None:
        """Ask for the first time."""
        self._try()

    def _try(self) -> None:
        self._again = self._engine.clock.callLater(self._engine.attempt, self._try)
        self._engine.travel(REQUEST, self._arrive)

    def _arrive(self) -> None:
        if self._needs_quorum and not self._engine.cluster.quorum:
            return
        try:
            result = self._act()
        except JournalError as error:
            self._engine.travel(ANSWER, partial(self._settle, error))
        else:
            self._engine.travel(ANSWER, partial(self._settle, result))

    def _settle(self, result: Any) -> None:
        if self in self._engine.open:
            self.forget()
            (self.answer.errback if isinstance(result, Exception) else self.answer.callback)(result)

    def give_up(self, why: str) -> None:
        """Fail."""
        self._settle(JournalError(why))

    def forget(self) -> None:
        """Have neither an answer nor a failure."""
        self._engine.open.discard(self)
        for timer in (self._end, self._again):
            if timer.active():
                timer.cancel()


class MemoryStream:
    """A stream, as an engine sees it."""

    def __init__(self, engine: MemoryEngine, name: str, kept: Kept) -> None:
        self.name = name
        self._engine = engine
        self._kept = kept

    def publish(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None, *, msg_id: str
    ) -> Deferred[int]:
        """Store a message once."""
        if not subject.startswith(f"{self.name}."):
            raise ValueError(f"{subject!r} is no subject of the stream {self.name}")
        return self._engine.ask(lambda: self._kept.store(subject, headers or {}, payload, msg_id))

    def get(self, seqs: Iterable[int]) -> Deferred[list[Message]]:
        """Read messages."""
        wanted = list(seqs)
        kept = self._kept

        def read() -> list[Message]:
            kept.expire()
            if any(seq > kept.last for seq in wanted):
                raise JournalError("a message is not there yet")
            return [kept.messages[seq] for seq in wanted if seq in kept.messages]

        return self._engine.ask(read, needs_quorum=False)

    def follow(self, after: int, on_message: Callable[[Message], None], *, headers_only: bool = False) -> Watching:
        """Hand out messages in order."""
        kept = self._kept

        def find(position: int, upto: int) -> Iterable[tuple[int, Callable[[], None]]]:
            kept.expire()
            for seq in range(position + 1, upto + 1):
                if (message := kept.messages.get(seq)) is not None:
                    given = message
                    if headers_only:
                        given = Message(seq, message.subject, message.headers, b"", message.size, message.time)
                    yield seq, partial(on_message, given)

        return Watching(self._engine, kept, after, find)

    def state(self) -> Deferred[StreamState]:
        """Return what there is."""
        return self._engine.ask(self._kept.state)

    def purge(self, upto: int) -> Deferred[None]:
        """Remove the oldest messages."""

        def remove() -> None:
            for seq in [seq for seq in self._kept.messages if seq <= upto]:
                self._kept.remove(seq)
            self._kept.last = max(self._kept.last, upto)

        return self._engine.ask(remove)

    def delete(self, seqs: Iterable[int]) -> Deferred[int]:
        """Remove single messages."""
        unwanted = list(seqs)
        return self._engine.ask(lambda: sum(map(self._kept.remove, unwanted)))


class MemoryBucket:
    """A bucket, as an engine sees it."""

    def __init__(self, engine: MemoryEngine, values: Values) -> None:
        self._engine = engine
        self._values = values

    def load(self, key: str) -> Deferred[Entry | None]:
        """Return a value."""

        def find() -> Entry | None:
            entry = self._values.entries.get(key)
            return entry if entry and entry.value is not None else None

        return self._engine.ask(find, needs_quorum=False)

    def create(self, key: str, value: bytes) -> Deferred[int]:
        """Set a value that is not there."""
        return self._set(key, value, 0)

    def update(self, key: str, value: bytes, revision: int) -> Deferred[int]:
        """Set a value with this revision."""
        return self._set(key, value, revision)

    def delete(self, key: str) -> Deferred[None]:
        """Remove a value."""
        return self._set(key, None, None).addCallback(lambda _: None)

    def watch(self, prefix: str, on_change: Callable[[Entry], None]) -> Watching:
        """Hand out values."""
        values = self._values

        def find(position: int, upto: int) -> Iterable[tuple[int, Callable[[], None]]]:
            for entry in sorted(values.entries.values(), key=lambda each: each.revision):
                if position < entry.revision <= upto and entry.key.startswith(prefix):
                    yield entry.revision, partial(on_change, entry)

        return Watching(self._engine, values, 0, find)

    def _set(self, key: str, value: bytes | None, revision: int | None) -> Deferred[int]:
        call = object()
        return self._engine.ask(lambda: self._values.set(key, value, revision, call))
