"""The fan-out to all backends."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import repeat

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from influxrelay.core.replies import TAKEN, json_error
from influxrelay.core.write import LINES, REMOTE_WRITE, STATEMENT, Reply, Write
from influxrelay.delivery.fate import Waiter
from influxrelay.delivery.hand_out import HandOut, Parts
from influxrelay.delivery.parts import Division, divide_write_slowly
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.settings import EVERYTHING
from influxrelay.delivery.statements import scope_of
from influxrelay.lineprotocol.scanner import Steps, run

AT_ONCE = 512 * 1024  # bytes of a body that are read and submitted in one go
_AT_ONCE_FILTERED = 4096  # the same where names may take some microseconds for each of them
_ONLY_1 = "it is a matter of InfluxDB 1.x"
_KINDS = {LINES: "line protocol", REMOTE_WRITE: "Prometheus' remote writes", STATEMENT: "statements"}


class FanOut:
    """One listener's backends.

    :param hand_out: gives the senders what is submitted.
    :param consistency: of writes that ask for none.
    :param refuse_unjournaled: whether a write that the journal cannot take is refused although a backend has it.
    :ivar name: the listener's, for the log.
    :ivar filters: those of the backends, each once.
    :ivar at_once: up to how many bytes a body may have to be submitted without :meth:`divide_slowly`.
    :ivar lines_unwanted: lines that no backend's filter takes.
    """

    divides_series = False

    def __init__(
        self,
        name: str,
        senders: Sequence[Sender],
        hand_out: HandOut,
        *,
        consistency: str = "one",
        refuse_unjournaled: bool = False,
    ) -> None:
        self.lines_unwanted = 0
        self.hand_out = hand_out
        self._backed_up: deque[tuple[Write, Parts, str, Waiter]] = deque()
        self._is_submitting = False
        self.reconfigure(name, senders, consistency=consistency, refuse_unjournaled=refuse_unjournaled)

    def reconfigure(
        self, name: str, senders: Sequence[Sender], *, consistency: str, refuse_unjournaled: bool = False
    ) -> None:
        """Let other settings hold for the next write; those that are under way keep what they began with."""
        self.name = name
        self.senders = tuple(senders)
        for each in senders:
            each.go_along_with(senders)
        self._takers = {kind: [each for each in senders if kind in each.kinds] for kind in EVERYTHING}
        self._consistency = consistency
        self.hand_out.reconfigure(name, senders, refuse_unjournaled=refuse_unjournaled)
        self.filters = list({each.filter: None for each in self._takers[LINES] if each.filter is not None})
        self.at_once = _AT_ONCE_FILTERED if self.filters else AT_ONCE

    # -- for each write

    def submit(self, write: Write, consistency: str = "", division: Division | None = None) -> Deferred[Reply]:
        """Do as :meth:`submit_for`, and fire with the answer. Never fails."""
        answer: Deferred[Reply] = Deferred()
        self.submit_for(answer, write, consistency, division)
        return answer

    def submit_for(self, waiter: Waiter, write: Write, consistency: str = "", division: Division | None = None) -> None:
        """Send a write to every backend, and give the answer for the client to who waits for it.

        With ``one`` that is the first 2xx or 4xx, at once. When all have failed it is one of their 5xx, else one of
        408, 425 and 429, else 503. Each backend gets the write, whoever was first. One whose filter leaves
        nothing of it has no part in it; a write that is for nobody is answered 204.

        :param consistency: ``any``, ``one``, ``quorum``, ``all``; empty for the listener's own.
        :param division: what :meth:`divide_slowly` has found.
        """
        kind = write.destination.kind
        takers = self._takers[kind]
        if not takers:
            waiter.callback(json_error(400, f"no backend of {self.name} takes {_KINDS[kind]}"))
            return
        parts: Parts = list(zip(takers, repeat(write)))
        if kind == STATEMENT:
            parts = [part for part in parts if part[0].settings.knows(write)]
            if not parts:
                kind = scope_of(write.query).kind
                waiter.callback(json_error(400, f"no backend of {self.name} executes {kind}: {_ONLY_1}"))
                return
        elif self.filters and kind == LINES:
            parts = self._divide(write, division)
            if not parts:
                waiter.callback(TAKEN)
                return
        if not consistency:
            consistency = self._consistency
        if self._is_submitting:  # a client was told within this call, and has written again at once
            self._backed_up.append((write, parts, consistency, waiter))
            return
        self._is_submitting = True
        self._submit_next(write, parts, consistency, waiter)
        while self._backed_up:
            self._submit_next(*self._backed_up.popleft())
        self._is_submitting = False

    def _submit_next(self, write: Write, parts: Parts, consistency: str, waiter: Waiter) -> None:
        try:
            self.hand_out.submit(write, parts, consistency, waiter)
        except Exception:  # noqa: BLE001 (it must not keep the next ones)
            waiter.errback(Failure())

    # -- filters

    @property
    def divides_lines(self) -> bool:
        """Whether there are filters."""
        return bool(self.filters)

    def divide_slowly(self, write: Write) -> Steps[Division]:
        """Find out bit by bit what the filters leave of a write: it may take long, whatever they are."""
        return divide_write_slowly(write, self.filters)

    def _divide(self, write: Write, division: Division | None) -> Parts:
        """Return who gets something of a write, and what; senders with the same filter get the same object."""
        if division is None or division.parts.keys() != set(self.filters):  # a reload has changed them
            division = run(self.divide_slowly(write))
        takers = self._takers[LINES]
        if all(sender.filter is not None for sender in takers):
            self.lines_unwanted += division.unwanted
        parts = [(each, write if each.filter is None else division.parts[each.filter]) for each in takers]
        return [(sender, part) for sender, part in parts if part is not None]

    # -- the journal

    def handed_out(self) -> Deferred[None]:
        """Fire when the senders have everything that was submitted until now."""
        return self.hand_out.handed_out()

    def decided(self) -> int:
        """Return up to which number of the journal it is decided whether a write is kept."""
        return self.hand_out.decided()

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
        journal = self.hand_out.why_unjournaled
        if journal and self.hand_out.refuses_unjournaled:
            return journal
        if able >= needed:
            return ""
        if level == "any" and not journal and all(has_room) and all(sender.keeps for sender in senders):
            return ""
        return f"{able} of {total} backends can take writes, and consistency {level} needs {needed}"
