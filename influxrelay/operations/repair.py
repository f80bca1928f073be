"""The relay's part in ``influxrelay repair``: what is copied to a backend goes through its queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from influxrelay.core.errors import BackendFailure
from influxrelay.core.write import Destination, Write
from influxrelay.delivery.responses import excerpt
from influxrelay.delivery.sender import Sender
from influxrelay.lineprotocol.credentials import canonical
from influxrelay.operations.targets import Listener, Progress
from influxrelay.operations.views import Refused, Request

PATIENCE = 30.0  # seconds that the source has to catch up
TAKEN, REFUSED, DENIED, NOT_NOW, PAUSED = "taken", "refused", "denied", "not now", "paused"
"""What becomes of a write: the backend has it; it has refused some or all of it; it has refused the credentials; it
cannot take it now; an operator has paused it."""


async def write(listeners: Sequence[Listener], request: Request, _: Progress) -> dict[str, Any]:
    """Send lines to one backend, behind what is queued for it, and return what has become of them.

    They are kept nowhere. With ``await_source`` the answer comes when the source has all that was accepted before: if a
    client has written one of the points meanwhile, and its value came to the backend before the one from here, the
    source shows that. While a change such as a DELETE waits for the backend, or for the one that the lines are
    from, they could bring back what it removes, and are not taken.
    """
    senders = {each.name: each for listener in listeners for each in listener.senders}
    sender = senders.get(request.backend)
    if sender is None:
        raise Refused(f"there is no backend {request.backend}; there is: {', '.join(senders)}")
    source = senders.get(request.write.get("source", ""))
    problem = _why_not(sender, source)
    if problem is not None:
        return problem
    try:
        reply = await sender.resend(_write(request))
    except BackendFailure as failure:
        return _outcome(NOT_NOW, _problem(sender, failure))
    if source is not None and request.write.get("await_source") and not await source.catches_up(PATIENCE):
        return _outcome(NOT_NOW, f"{source.name} is behind, and may have older values")
    if reply.status < 300:
        return _outcome(TAKEN)
    return _outcome(DENIED if reply.status in (401, 403) else REFUSED, excerpt(reply))


def _why_not(sender: Sender, source: Sender | None) -> dict[str, Any] | None:
    if sender.paused:
        return _outcome(PAUSED, "the backend is paused")
    for each in (sender, source):
        if each is not None and each.queues.changes is not None:
            return _outcome(NOT_NOW, f"a change waits for {each.name}")
    return None


def _outcome(outcome: str, message: str = "") -> dict[str, Any]:
    return {"outcome": outcome, "message": message}


def _problem(sender: Sender, failure: BackendFailure) -> str:
    trouble = sender.status.trouble
    problem = failure if trouble is None or failure.reply is not None else trouble
    return f"{problem.reason}: {problem.detail.rstrip('.')}"


def _write(request: Request) -> Write:
    fields = request.write
    database, policy, lines, authorization = (
        fields.get(name, "") for name in ("database", "retention_policy", "lines", "authorization")
    )
    destination = Destination(database.encode(), policy.encode(), b"ns", canonical(authorization.encode(), b"", b""))
    query = urlencode({"db": database, "rp": policy, "precision": "ns"}).encode()
    return Write(destination, query, authorization.encode(), lines.encode(), mergeable=False)
