"""What the operator says that a backend's answers mean, before what they mean by default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from influxrelay.core.errors import BackendFailure
from influxrelay.core.expressions import compile_expression
from influxrelay.core.replies import json_error
from influxrelay.core.write import LINES, Reply
from influxrelay.delivery.responses import Verdict, excerpt, is_presentable, judge, lacks_organization, reason_of

RETRY, DEAD_LETTER, STALE, HOLD = MEANINGS = ("retry", "dead-letter", "stale", "hold")
"""What an answer other than a 2xx may mean."""

_MEANS = {
    Verdict.NOT_NOW: RETRY,
    Verdict.REFUSED: DEAD_LETTER,
    Verdict.PERMANENT: DEAD_LETTER,
    Verdict.STALE: STALE,
    Verdict.MISDIRECTED: HOLD,
    Verdict.NOT_READY: HOLD,
}
_SETTLING = (Verdict.REFUSED, Verdict.MISDIRECTED, Verdict.NOT_READY)


@attrs.frozen
class AnswerRule:
    """One setting: which answers it matches, and what they mean.

    :ivar means: one of :data:`MEANINGS`.
    :ivar statuses: 300 and above; empty for all of these.
    :ivar text: an expression of RE2 that is searched in the body, in upper or lower case; empty for any body.
    """

    means: str
    statuses: tuple[range, ...] = ()
    text: str = ""
    _expression: Any = attrs.field(init=False, eq=False, repr=False)

    @_expression.default
    def _compile(self) -> Any:
        return compile_expression(f"(?i){self.text}") if self.text else None

    def matches(self, reply: Reply) -> bool:
        """Tell whether the rule matches an answer that is no 2xx."""
        if self.statuses and not any(reply.status in each for each in self.statuses):
            return False
        return self._expression is None or self._expression.search(reply.body) is not None


@attrs.frozen
class Answer:
    """An answer that was understood, and is no 2xx.

    :ivar reply: what a client may be shown.
    :ivar status: the backend's own.
    :ivar detail: that with the backend's words, for the log.
    :ivar means: one of :data:`MEANINGS`, for counters.
    :ivar reason: the text that decided, else the status.
    """

    verdict: Verdict
    reply: Reply
    status: int
    detail: str
    means: str
    reason: str

    def failure(self, reason: str = "") -> BackendFailure:
        """Return what it is to a client whose write it does not settle; the reason is the status by default."""
        return BackendFailure(reason or str(self.status), f"answered {self.detail}", self.reply)


def classify(reply: Reply, kind: str = LINES, rules: Sequence[AnswerRule] = ()) -> Answer:
    """Find out what an answer means that is no 2xx, to a write of this kind: the first rule that matches decides.

    A rule never makes an answer settle a write that would not settle it by default.
    """
    rule = next((each for each in rules if each.matches(reply)), None)
    default, is_stray = judge(reply, kind), lacks_organization(reply)
    if rule is None and not is_stray:
        return Answer(default, reply, reply.status, excerpt(reply), _MEANS[default], reason_of(reply, default))
    if is_stray:
        default = Verdict.NOT_NOW  # the output's organization is meant, which is no fault of the write
    means, reason = (HOLD, "") if rule is None else (rule.means, rule.text)
    verdict, shown = _apply(means, default, reply)
    return Answer(verdict, shown, reply.status, excerpt(reply), means, reason or str(reply.status))


def _apply(means: str, default: Verdict, reply: Reply) -> tuple[Verdict, Reply]:
    if means == STALE or (means == DEAD_LETTER and default is Verdict.STALE):
        return Verdict.STALE, reply  # a dead letter like this settles nothing either
    if means == DEAD_LETTER:
        return (Verdict.REFUSED if default in _SETTLING else Verdict.PERMANENT), reply
    if means == HOLD and default is Verdict.NOT_READY:
        return default, reply
    if means == HOLD and default in _SETTLING:
        return Verdict.MISDIRECTED, attrs.evolve(reply, held=True)
    if default in (Verdict.NOT_NOW, Verdict.PERMANENT) and is_presentable(reply):
        return Verdict.NOT_NOW, reply
    headers = [(name, value) for name, value in reply.headers if name == b"Retry-After"]
    return Verdict.NOT_NOW, json_error(503, "unable to write points", *headers)
