"""The settle rule: how the answers of several backends become the client's."""

from __future__ import annotations

from influxrelay.core.errors import BackendFailure
from influxrelay.core.replies import TAKEN, UNABLE, json_error
from influxrelay.core.write import Reply
from influxrelay.delivery.responses import NOT_READY, STALE, is_presentable
from influxrelay.delivery.statements import Result
from influxrelay.remotewrite.headers import has_counts, least, only_counts

_REFUSALS = (STALE, NOT_READY)  # reasons of failures that stand for a 4xx


class FirstAnswer:
    """``one`` and ``any``: the first 2xx or 4xx, at once; when all ways have failed, one of their answers.

    This is the rule of ``DeferredList(ways, fireOnOneCallback=True, consumeErrors=True)``, where a result is an answer
    that settles the write and everything else is a failure. A DeferredList with its two Deferreds takes 6.5 us of CPU
    for each write, this 0.5 us; a test holds one against the other.

    :param ways: how many ways there are to an answer.
    """

    __slots__ = ("_failures", "_ways")

    def __init__(self, ways: int) -> None:
        self._ways = ways
        self._failures: list[BackendFailure] | None = None

    def answered(self, backend: str, reply: Reply) -> Reply:  # noqa: ARG002 (a Rule's)
        """Return it: it settles the write."""
        return reply

    def failed(self, backend: str, problem: BackendFailure) -> Reply | None:  # noqa: ARG002 (a Rule's)
        """Return what a client is shown when this was the last way."""
        if self._failures is None:
            self._failures = [problem]
        else:
            self._failures.append(problem)
        return present(self._failures) if len(self._failures) == self._ways else None


class Count:
    """``quorum`` and ``all``: 204 when so many backends have it; of a statement the first one's result.

    When that is impossible it is the first 4xx, if nothing but 4xx and stale samples stand in the way, else a 503 that
    names the backends that failed. Of what several backends say that they have written, the least counts.

    :param backends: how many there are.
    """

    __slots__ = ("_failed", "_needed", "_refusals", "_spare", "_taken")

    def __init__(self, needed: int, backends: int) -> None:
        self._needed = needed
        self._spare = backends - needed
        self._taken = TAKEN
        self._failed: list[str] = []
        self._refusals: list[Reply] = []

    def answered(self, backend: str, reply: Reply) -> Reply | None:
        """Count a 2xx, or a refusal."""
        if reply.status >= 300:
            return self._count_failure(f"{backend}: {reply.status}", reply)
        self._needed -= 1
        if has_counts(reply):
            counts = only_counts(reply.headers)
            self._taken = Reply(204, least(self._taken.headers, counts) if self._taken.headers else counts)
        elif isinstance(reply, Result) and self._taken is TAKEN:
            self._taken = reply
        return None if self._needed else self._taken

    def failed(self, backend: str, problem: BackendFailure) -> Reply | None:
        """Count a failure."""
        refusal = problem.reply if problem.reason in _REFUSALS else None
        return self._count_failure(f"{backend}: {problem.reason}", refusal)

    def _count_failure(self, text: str, refusal: Reply | None) -> Reply | None:
        self._failed.append(text)
        if refusal is not None:
            self._refusals.append(refusal)
        if len(self._failed) <= self._spare:
            return None
        if len(self._refusals) == len(self._failed):
            return self._refusals[0]
        return json_error(503, f"unable to write points to enough backends ({', '.join(self._failed)})")


def present(failures: list[BackendFailure]) -> Reply:
    """Return what a client is shown of these.

    That is an answer about stale samples, which no retry makes younger; else a 5xx, else a 4xx that means "not now",
    else an answer of our own.
    """
    for each in failures:
        if each.reason == STALE and each.reply is not None:
            return each.reply
    replies = [each.reply for each in failures if each.reply is not None and is_presentable(each.reply)]
    return max(replies, key=lambda reply: reply.status, default=UNABLE)
