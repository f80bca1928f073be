"""What a log that relays share hands out is given to the senders of those backends whose lease this relay has."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakValueDictionary

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import LINES, Destination, Reply, Write
from influxrelay.delivery.fate import Fate, State
from influxrelay.delivery.origin import Origin
from influxrelay.delivery.parts import divide_write_slowly
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.statements import Refusal
from influxrelay.journal.interface import Key, Positions
from influxrelay.journal.records import Record
from influxrelay.journal.shared_log import SharedLog
from influxrelay.lineprotocol.scanner import run

_AT_ONCE = 4096  # bytes that are filtered when they are handed out; more is left to whoever reads a backlog


class Deliverer:
    """Delivers to the backends whose lease this relay has; a log's follower.

    Senders stand by until they have a lease, and again when it is lost. What the log hands out is submitted to the
    others, in its order; what it has had before is read by their backlogs. The origin of each write is told what has
    become of it, and tells whether it is kept.

    :param origin: of this relay's own writes.
    """

    _log = Logger()

    def __init__(self, log: SharedLog, reactor: IReactorTime, origin: Origin) -> None:
        self._journal = log
        self._reactor = reactor
        self._origin = origin
        self._senders: dict[Key, Sender] = {}
        self._fates: WeakValueDictionary[int, LogFate] = WeakValueDictionary()
        self._undecided: dict[int, LogFate] = {}  # those that have waited longest first
        self._early: dict[int, bool] = {}  # whether writes are kept that are not handed out yet, by number
        self._last = 0
        self._timer: IDelayedCall | None = None

    def add(self, sender: Sender) -> None:
        """Deliver to a backend as soon as this relay has its lease."""
        key = sender.backlog
        self._senders[key] = sender
        sender.backlog.restore_by(self._restore)
        sender.guard(lambda: self._journal.is_valid(key))
        sender.look_elsewhere(lambda: self._journal.elsewhere(key))
        sender.stand_down()

    def remove(self, sender: Sender) -> None:
        """Know no more of a backend."""
        self._senders.pop(sender.backlog, None)
        sender.stand_down()

    # -- what the log hands out

    def hand_out(self, records: Sequence[Record], origin: str) -> None:
        """Give the next writes to the senders."""
        senders = [sender for sender in self._senders.values() if not sender.stands_by]
        for record in records:
            fate = self._make_fate(record.seq, record.time, origin)
            for sender in senders:
                if sender.stands_by:  # since one of the last records
                    continue
                try:
                    self._give(sender, record.write, fate)
                except Exception:  # noqa: BLE001 (it must not keep the others from the write)
                    self._log.failure("backend {backend}", backend=sender.name)
            self._last = record.seq
        for sender in senders:
            try:
                sender.send_gathered()
            except Exception:  # noqa: BLE001 (as above)
                self._log.failure("backend {backend}", backend=sender.name)
        self._early = {number: kept for number, kept in self._early.items() if number > self._last}
        self._rearm()

    def _give(self, sender: Sender, write: Write, fate: Fate) -> None:
        destination, number, wanted = write.destination, fate.number, sender.filter
        if destination.kind not in sender.kinds or not sender.settings.knows(write) or fate.state is State.STRUCK:
            sender.backlog.skip(destination, number)
            return
        if wanted is not None and destination.kind == LINES:
            if write.gzipped or len(write.body) > _AT_ONCE:
                sender.backlog.leave(destination, number)
                return
            part = run(divide_write_slowly(write, [wanted])).parts[wanted]
            if part is None:
                sender.backlog.skip(destination, number)
                return
            write = part
        sender.gather(write, fate)

    def _make_fate(self, number: int, when: float, origin: str) -> LogFate:
        is_kept = self._early.get(number)
        if origin == self._journal.relay and is_kept is None and not self._origin.is_undecided(number):
            is_kept = True  # its client was answered at once, or was told that the log had failed
        fate = LogFate(number, when, self._reactor.seconds(), self._journal, origin)
        self._fates[number] = fate
        if is_kept is None:
            self._undecided[number] = fate
        else:
            fate.decide(kept=is_kept)
        return fate

    def _restore(self, number: int, when: float) -> Fate:
        """Return the fate of a write that a backlog has read."""
        fate = self._fates.get(number)
        if fate is None and self._origin.is_undecided(number):
            fate = self._make_fate(number, when, self._journal.relay)
        if fate is None:
            fate = self._fates[number] = LogFate(number, when, self._reactor.seconds(), self._journal, "")
            fate.decide(kept=True)
        return fate

    # -- what origins say

    def outcome(self, number: int, backend: str, result: Reply | BackendFailure) -> None:
        """Learn what became of an own write at a backend."""
        self._origin.outcome(number, backend, result)

    def decided(self, numbers: Sequence[int], *, kept: bool) -> None:
        """Learn that writes are kept or struck."""
        for number in numbers:
            fate = self._fates.get(number)
            if fate is not None:
                self._undecided.pop(number, None)
                if fate.state is State.UNDECIDED:
                    fate.decide(kept=kept)
                elif not kept:
                    fate.state = State.STRUCK  # in time, where it still waits
            elif number > self._last and any(not sender.stands_by for sender in self._senders.values()):
                self._early[number] = kept

    def _rearm(self) -> None:
        if self._timer is None and self._undecided:
            first = next(iter(self._undecided.values()))
            pause = first.submitted + self._limit - self._reactor.seconds()
            self._timer = self._reactor.callLater(max(0.0, pause), self._expire)

    def _expire(self) -> None:
        """Keep what was not struck in time: its origin may be gone."""
        self._timer = None
        due = self._reactor.seconds() - self._limit
        for fate in [each for each in self._undecided.values() if each.submitted <= due]:
            del self._undecided[fate.number]
            fate.decide(kept=True)
        self._rearm()

    @property
    def _limit(self) -> float:
        """Seconds after which a write counts as kept of which its origin has said nothing."""
        return 2 * self._origin.patience

    # -- leases, and what is done for the whole group

    def gained(self, key: Key, positions: Positions, last_number: int) -> None:
        """Deliver to a backend from now on."""
        self._last = max(self._last, last_number)
        sender = self._senders.get(key)
        if sender is not None:
            sender.stand_up(positions, last_number)
            self.paused(key, paused=False)  # if it is, that is told next

    def lost(self, key: Key) -> None:
        """Send nothing more to a backend."""
        sender = self._senders.get(key)
        if sender is not None:
            sender.stand_down()

    def dropped(self, key: Key, destination: Destination, upto: int) -> None:
        """Give up what a limit has cost a backend."""
        sender = self._senders.get(key)
        if sender is not None:
            sender.backlog.forget(destination, upto)

    def given_up(self, key: Key, upto: int) -> None:
        """Give up what the operator has dropped."""
        sender = self._senders.get(key)
        if sender is not None:
            sender.give_up(upto)

    def paused(self, key: Key, *, paused: bool) -> None:
        """Send nothing to a backend, or go on."""
        sender = self._senders.get(key)
        if sender is not None:
            if paused:
                sender.pause()
            else:
                sender.unpause()

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class LogFate(Fate):
    """A write that the log has handed out.

    :param origin: the relay whose client wrote; empty if nobody waits for word of it.
    """

    __slots__ = ("__weakref__", "_journal", "_origin")

    def __init__(self, number: int, when: float, submitted: float, log: SharedLog, origin: str) -> None:
        super().__init__(number, when, submitted, None, None, _expect_nothing)
        self.is_journaled = True
        self._journal = log
        self._origin = origin

    def answered(self, backend: str, reply: Reply) -> None:
        """Tell the origin, as long as it may want to know."""
        if self.state is State.UNDECIDED:
            if isinstance(reply, Refusal):  # as it came, for the origin reads it as well
                reply = Reply(200, reply.headers, reply.body)
            self._journal.outcome(self.number, self._origin, backend, reply)

    def failed(self, backend: str, problem: BackendFailure) -> None:
        """Tell the origin, as long as it may want to know."""
        if self.state is State.UNDECIDED:
            self._journal.outcome(self.number, self._origin, backend, problem)


def _expect_nothing(fate: Fate) -> None:
    """Be told of a settled fate, which cannot be: its origin has the rule."""
