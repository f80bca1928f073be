"""What becomes of one accepted write."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Reply


class State(enum.Enum):
    """What is decided of a write as a whole."""

    UNDECIDED = "no client has been told yet"
    KEPT = "a client was told that it is taken: every backend has to get it"
    STRUCK = "a client was told that it is not: no backend needs to get it any more"


_UNDECIDED, _KEPT, _STRUCK = State  # to look one up takes as long as a call


class Waiter(Protocol):
    """Who waits for the client's answer; a Deferred is one, others take less time."""

    def callback(self, result: Reply) -> None:
        """Take the answer."""

    def errback(self, fail: Failure) -> None:
        """Learn that there is none: that is a mistake of ours."""


class Rule(Protocol):
    """How the outcomes at the backends become the client's answer."""

    def answered(self, backend: str, reply: Reply) -> Reply | None:
        """Take a 2xx or 4xx; return the client's answer if it is certain now."""

    def failed(self, backend: str, problem: BackendFailure) -> Reply | None:
        """Take a failure; return the client's answer if it is certain now."""


class Reliant(Protocol):
    """Who has a write no longer in memory, and relies on the journal for it."""

    def decided(self, fate: Fate) -> None:
        """Learn that the write is kept or struck."""

    def not_journaled(self, fate: Fate) -> None:
        """Learn that the journal could not take it."""


class Fate:
    """Owns what is known of one write: the client's answer, the journal's, and whether every backend has to get it.

    Senders report the outcome at their backends, and learn of the decision by what they have registered. Whoever has
    taken the write is told by ``on_settled`` that the client's answer is certain, decides, and has the client told.

    :param waiter: gets what the client is told.
    :param rule: makes the client's answer out of the outcomes; whatever comes after that is ignored.
    :ivar number: of the write; a later one has a higher number. 0 for a write that no sender keeps.
    :ivar time: when the write was accepted, in seconds since the epoch.
    :ivar submitted: the same on the reactor's clock.
    :ivar reply: the client's answer, from when it is certain until the client is told.
    :ivar is_journaled: whether the journal has the write.
    :ivar journal_problem: why the journal could not take it, as soon as that is known.
    """

    __slots__ = (
        "_on_settled",
        "_reliants",
        "_rule",
        "_waiter",
        "_watchers",
        "is_journaled",
        "journal_problem",
        "number",
        "reply",
        "state",
        "submitted",
        "time",
    )

    def __init__(  # noqa: PLR0917 (made for every write: keywords cost time)
        self,
        number: int,
        when: float,
        submitted: float,
        waiter: Waiter | None,
        rule: Rule | None,
        on_settled: Callable[[Fate], object],
    ) -> None:
        self.number = number
        self.time = when
        self.submitted = submitted
        self.state = _UNDECIDED
        self.reply: Reply | None = None
        self.is_journaled = False
        self.journal_problem = ""
        self._waiter = waiter
        self._rule = rule
        self._on_settled = on_settled
        self._watchers: list[Callable[[Fate], object]] | None = None
        self._reliants: list[Reliant] | None = None

    @classmethod
    def restored(cls, number: int, when: float) -> Fate:
        """Return the fate of a write that was kept before, and for which no client waits."""
        fate = cls(number, when, 0.0, None, None, _expect_nothing)
        fate.state = State.KEPT
        return fate

    # -- for senders

    def answered(self, backend: str, reply: Reply) -> None:
        """Note a backend's 2xx or 4xx."""
        rule = self._rule
        if rule is not None:
            settled = rule.answered(backend, reply)
            if settled is not None:
                self.reply, self._rule = settled, None
                self._on_settled(self)

    def failed(self, backend: str, problem: BackendFailure) -> None:
        """Note that a backend did not take the write while its client waited."""
        rule = self._rule
        if rule is not None:
            settled = rule.failed(backend, problem)
            if settled is not None:
                self.reply, self._rule = settled, None
                self._on_settled(self)

    def when_decided(self, watcher: Callable[[Fate], object]) -> None:
        """Call this when the write is kept or struck; at once if that is decided."""
        if self.state is not State.UNDECIDED:
            watcher(self)
        elif self._watchers is None:
            self._watchers = [watcher]
        else:
            self._watchers.append(watcher)

    def rely(self, reliant: Reliant) -> None:
        """Note who has the write no longer in memory, until it is decided."""
        if self._reliants is None:
            self._reliants = [reliant]
        else:
            self._reliants.append(reliant)

    # -- for whoever has taken the write

    def decide(self, *, kept: bool) -> None:
        """Decide, once, whether every backend has to get the write."""
        self.state = _KEPT if kept else _STRUCK
        if self._reliants is not None:
            reliants, self._reliants = self._reliants, None
            for reliant in reliants:
                reliant.decided(self)
        if self._watchers is not None:
            watchers, self._watchers = self._watchers, None
            for watcher in watchers:
                watcher(self)

    def tell(self, reply: Reply) -> None:
        """Tell the client."""
        waiter, self._waiter, self.reply = self._waiter, None, None  # a write that is kept may be kept for long
        if waiter is not None:
            waiter.callback(reply)

    def not_journaled(self, problem: str) -> None:
        """Note that the journal could not take the write: who relies on it must give the write up."""
        self.journal_problem = problem
        for reliant in self._reliants or ():
            reliant.not_journaled(self)


class ResentFate(Fate):
    """A write that is sent to one backend once more, outside all rules: no sender keeps it if that fails.

    :ivar outcome: fires with the backend's 2xx or 4xx, and fails with its :class:`BackendFailure`.
    """

    __slots__ = ("__weakref__", "outcome")

    def __init__(self, submitted: float) -> None:
        super().__init__(0, 0.0, submitted, None, None, _expect_nothing)
        self.outcome: Deferred[Reply] = Deferred()

    def answered(self, backend: str, reply: Reply) -> None:  # noqa: ARG002 (a Fate's)
        """Pass it on."""
        if not self.outcome.called:
            self.outcome.callback(reply)

    def failed(self, backend: str, problem: BackendFailure) -> None:  # noqa: ARG002 (a Fate's)
        """Pass it on."""
        if not self.outcome.called:
            self.outcome.errback(problem)


def _expect_nothing(fate: Fate) -> None:
    """Be told of a settled fate, which cannot be: there is no rule."""
