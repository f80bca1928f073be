"""The relay's part in ``influxrelay repair``: what is copied to a backend goes through its queue."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from functools import cache
from secrets import token_hex
from typing import Any
from urllib.parse import urlencode

from influxrelay.core.errors import BackendFailure
from influxrelay.core.text import text
from influxrelay.core.write import CHANGES, Destination, Write
from influxrelay.delivery.responses import STALE, excerpt
from influxrelay.delivery.sender import Sender
from influxrelay.delivery.statements import scope_of, shown_statement
from influxrelay.lineprotocol.credentials import canonical
from influxrelay.operations.dead_letters import each_letter
from influxrelay.operations.forwarding import forward
from influxrelay.operations.outcomes import DENIED, NOT_NOW, OUTDATED, PAUSED, REFUSED, TAKEN
from influxrelay.operations.targets import Listener, Progress
from influxrelay.operations.views import Refused, Request
from influxrelay.remotewrite.headers import destination_precision, with_media_type

PATIENCE = 30.0  # seconds that the source has to catch up
_REMOVE = ("DELETE", "DROP DATABASE", "DROP MEASUREMENT", "DROP RETENTION POLICY", "DROP SERIES")


@cache
def _process() -> str:
    """Return what tells this process from another: counters begin at zero in each."""
    return token_hex(8)


def _mark(*senders: Sender | None) -> str:
    """Return what is another text as soon as one of these has executed another change.

    Of a backend to which another relay delivers it is only known whether a change waits.
    """
    known = (each for each in senders if each is not None)
    changes = (f"{sum(each.change_outcomes.values())}{'+' if each.has_a_change else ''}" for each in known)
    return ":".join([_process(), *changes])


async def mark(listeners: Sequence[Listener], request: Request, _: Progress) -> dict[str, Any]:
    """Return the mark that goes with points that are read from now on."""
    listener, sender, source = _find(listeners, request)
    if sender.elsewhere is not None:
        return await forward(listener, sender, request)
    return {"mark": _mark(sender, source)}


async def missed(listeners: Sequence[Listener], request: Request, _: Progress) -> dict[str, Any]:
    """Return the changes by which backends should have removed something, and which they have not executed.

    Those are dead letters: a backend has refused them, or its queue has lost them.
    """
    found = [
        {
            "id": each.id,
            "listener": each.listener.name,
            "backend": each.letter.backend,
            "when": int(each.letter.time * 1e9),
            "databases": sorted(map(text, scope_of(each.letter.write.query).databases)),
            "statement": shown_statement(each.letter.write),
        }
        async for each in each_letter(listeners, request)
        if each.letter.write.destination == CHANGES and scope_of(each.letter.write.query).kind in _REMOVE
    ]
    return {"missed": found}


def _find(listeners: Sequence[Listener], request: Request) -> tuple[Listener, Sender, Sender | None]:
    """Return the senders to the backend, with its listener, and to the one that it is copied from."""
    senders = {each.name: (listener, each) for listener in listeners for each in listener.senders}
    source = request.write.get("source", "")
    for name in filter(None, (request.backend, source)):
        if name not in senders:
            raise Refused(f"there is no backend {name}; there is: {', '.join(senders)}")
    return *senders[request.backend], senders[source][1] if source else None


async def write(listeners: Sequence[Listener], request: Request, _: Progress) -> dict[str, Any]:
    """Send lines to one backend, behind what is queued for it, and return what has become of them.

    They are kept nowhere. With ``await_source`` the answer comes when the source has all that was accepted before: if a
    client has written one of the points meanwhile, and its value came to the backend before the one from here, the
    source shows that. While a change such as a DELETE waits for the backend, or for the one that the lines are
    from, they could bring back what it removes, and are not taken.
    """
    listener, sender, source = _find(listeners, request)
    if sender.elsewhere is not None:
        return await forward(listener, sender, request)
    return await _write_here(sender, source, request)


async def _write_here(sender: Sender, source: Sender | None, request: Request) -> dict[str, Any]:
    problem = _why_not(sender, source)
    if problem is not None:
        return problem
    if request.write.get("mark", "") not in ("", _mark(sender, source)):
        return _outcome(OUTDATED, "a change was executed since the lines were read")
    try:
        reply = await sender.resend(_remote_write(request) if "samples" in request.write else _write(request))
    except BackendFailure as failure:
        is_stale = failure.reason == STALE and failure.reply is not None
        return _outcome(REFUSED if is_stale else NOT_NOW, _problem(sender, failure))
    if source is not None and request.write.get("await_source") and not await source.catches_up(PATIENCE):
        return _outcome(NOT_NOW, f"{source.name} is behind, and may have older values")
    if reply.status < 300:
        return _outcome(TAKEN)
    return _outcome(DENIED if reply.status in (401, 403) else REFUSED, excerpt(reply))


def _why_not(sender: Sender, source: Sender | None) -> dict[str, Any] | None:
    if sender.paused:
        return _outcome(PAUSED, "the backend is paused")
    for each in (sender, source):
        if each is not None and (each.queues.changes is not None or each.has_a_change):
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
    return Write(destination, query, authorization.encode(), lines.encode("utf-8", "surrogateescape"), mergeable=False)


def _remote_write(request: Request) -> Write:
    authorization = request.write.get("authorization", "").encode()
    destination = Destination(b"", b"", destination_precision(()), canonical(authorization, b"", b""))
    query = with_media_type(b"", b"application/x-protobuf", b"0.1.0")
    return Write(destination, query, authorization, b64decode(request.write["samples"]))
