"""What operators can do, with a running relay or a stopped one: each command is a function over listeners.

A stopped relay's listeners have a journal and nothing else (:mod:`influxrelay.cli.offline`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from influxrelay.core.errors import JournalError
from influxrelay.core.text import text
from influxrelay.core.timeouts import within
from influxrelay.delivery.sender import Sender
from influxrelay.journal.interface import Journal
from influxrelay.journal.records import Contents, Depth
from influxrelay.operations import dead_letters, repair
from influxrelay.operations.targets import Listener, Progress
from influxrelay.operations.views import Refused, Request, Row, only

PATIENCE = 1.0  # seconds


def chosen(listeners: Sequence[Listener], name: str) -> list[Listener]:
    """Return the listener of this name, or all listeners if the name is empty.

    :raises Refused: there is no such listener.
    """
    found = [each for each in listeners if name in ("", each.name)]
    if not found:
        raise Refused(f"there is no listener {name}; there is: {', '.join(each.name for each in listeners)}")
    return found


async def _find(listeners: Sequence[Listener], request: Request) -> tuple[Listener, Sender | None]:
    """Return the one backend of this name; its sender is None if it is not configured, or the relay is stopped."""
    known: list[str] = []
    found: list[tuple[str, tuple[Listener, Sender | None]]] = []
    for listener in listeners:
        senders: dict[str, Sender | None] = {sender.name: sender for sender in listener.senders}
        if listener.writer is not None and request.backend not in senders:  # a disk that hangs is asked only if need be
            depths = (await listener.writer.contents()).depths
            senders = {**dict.fromkeys(depths), **senders}
        known += senders
        if request.backend in senders:
            found.append((listener.name, (listener, senders[request.backend])))
    return only(found, f"backend {request.backend}", request.listener, known)


# -- queues


async def list_queues(listeners: Sequence[Listener], request: Request, _: Progress) -> dict[str, Any]:
    """Show the state of each backend, and what waits for it."""
    del request
    return await show_queues(listeners)


async def show_queues(listeners: Sequence[Listener], reactor: Any = None) -> dict[str, Any]:
    """Show the state of each backend, and what waits for it.

    :param reactor: if it is given, no journal is waited for any longer than :data:`PATIENCE`.
    """
    asked = [Deferred.fromCoroutine(_rows(each, reactor)) for each in listeners]
    rows = [row for each in asked for row in await each]
    now = time.time()
    relay = "running" if any(each.running for each in listeners) else "stopped"
    return {"relay": relay, "queues": [row.show(now) for row in rows]}


async def _rows(listener: Listener, reactor: Any) -> list[Row]:
    rows = {sender.name: _row(listener, sender) for sender in listener.senders}
    journal = listener.writer
    if journal is None:
        return list(rows.values())
    contents: Contents | None = None
    trouble = ""
    try:
        contents = await _contents(journal, reactor)
    except JournalError as error:
        trouble = str(error)
    for name, depth in contents.depths.items() if contents is not None else ():
        if name not in rows:
            state = "stopped" if depth.active and not listener.running else "removed"
            row = Row(listener=listener.name, backend=name, state=state, queue="journal", writes=0, bytes=0)
            rows[name] = attrs.evolve(row, repairable=state == "stopped")
    rows = {
        name: attrs.evolve(
            row,
            journal=journal.place,
            journal_trouble=journal.trouble or trouble,
            queue_used=journal.used,
            queue_limit=journal.max_bytes or None,
        )
        for name, row in rows.items()
    }
    if contents is None:
        return list(rows.values())
    beside = {sender.name: sender.backlog.losses_beside() for sender in listener.senders}
    return [
        attrs.evolve(
            row,
            dead_letters=contents.dead_letters.get(name, 0),
            drops=(*(each for each in contents.drops if each.backend == name), *beside.get(name, ())),
            **_of_depth(contents.depths.get(name)),
        )
        for name, row in rows.items()
    ]


async def _contents(journal: Journal, reactor: Any) -> Contents:
    if reactor is None:
        return await journal.contents()
    answers: list[Contents | Failure] = []
    if not await within(PATIENCE, journal.contents().addBoth(answers.append), reactor):
        raise JournalError("what is in it could not be counted in time")
    (answer,) = answers
    if isinstance(answer, Failure):
        answer.raiseException()
    return answer


def _of_depth(depth: Depth | None) -> dict[str, Any]:
    if depth is None:
        return {}
    return {"location": depth.location, "writes": depth.writes, "bytes": depth.bytes, "oldest": depth.oldest}


def _row(listener: Listener, sender: Sender) -> Row:
    """Return what is known of a backend without its journal."""
    trouble = sender.status.problem
    reason = "" if trouble is None else f"{trouble.reason}: {trouble.detail.rstrip('.')}"
    elsewhere = sender.elsewhere
    row = Row(
        listener=listener.name,
        backend=sender.name,
        delivered_by="" if elsewhere is None else elsewhere.deliverer or "no relay",
        state=sender.state,
        reason=reason,
        queue=sender.backlog.kind,
        answers=tuple((*each, number) for each, number in sorted(sender.requests.answers.items())),
        refused=tuple((*each, number) for each, number in sorted(sender.refused.items())),
        repairable=sender.settings.is_repairable,
    )
    if not sender.keeps:
        return attrs.evolve(row, drops=tuple(sender.backlog.losses()))
    row = attrs.evolve(row, missing=tuple(sorted(map(text, sender.queues.missing_databases()))))
    if sender.backlog.outlives:
        return row
    writes, waiting = sender.queues.waiting()
    return attrs.evolve(
        row,
        writes=writes,
        bytes=waiting,
        oldest=sender.queues.oldest(),
        drops=tuple(sender.backlog.losses()),
        dead_letters=len(sender.backlog.dead_letters()),
        queue_used=sender.queues.memory.size,
        queue_limit=sender.backlog.limit or None,
    )


async def drop_queue(listeners: Sequence[Listener], request: Request, _: Progress) -> dict[str, Any]:
    """Discard the writes queued for a backend, or remove a backend that is no longer configured."""
    listener, sender = await _find(listeners, request)
    if sender is not None and not sender.keeps:
        raise Refused(f"backend {sender.name} has no queue")
    depth: Depth | None = None
    if listener.writer is not None:
        depth, upto = await listener.writer.discard(request.backend)
        if sender is not None:
            sender.give_up(upto)
    elif sender is not None:
        writes, waiting = sender.queues.waiting()
        depth = Depth(sender.name, "", True, writes, waiting, None)
        sender.give_up()
    return {
        "listener": listener.name,
        "backend": request.backend,
        "writes": depth.writes if depth is not None else 0,
        "bytes": depth.bytes if depth is not None else 0,
        "removed": sender is None and not (depth is not None and depth.active),
    }


async def mark_repaired(listeners: Sequence[Listener], request: Request, _: Progress) -> dict[str, Any]:
    """Mark a backend as repaired: what it had lost was copied there, so its losses are counted from zero again."""
    listener, sender = await _find(listeners, request)
    drops = [] if sender is None else sender.backlog.losses()
    if listener.writer is not None:
        drops = await listener.writer.forget_losses(request.backend)
    if sender is not None:
        sender.backlog.forget_losses()
    return {
        "listener": listener.name,
        "backend": request.backend,
        "writes": sum(each.writes for each in drops),
        "bytes": sum(each.bytes for each in drops),
    }


async def pause(listeners: Sequence[Listener], request: Request, _: Progress) -> dict[str, Any]:
    """Stop sending to a backend until :func:`resume`, or until the relay is restarted."""
    return await _set_paused(listeners, request, paused=True)


async def resume(listeners: Sequence[Listener], request: Request, _: Progress) -> dict[str, Any]:
    """Go on sending to a backend."""
    return await _set_paused(listeners, request, paused=False)


async def _set_paused(listeners: Sequence[Listener], request: Request, *, paused: bool) -> dict[str, Any]:
    listener, sender = await _find(listeners, request)
    if sender is None or not sender.keeps:
        raise Refused(f"backend {request.backend} has no queue")
    if listener.group is not None:  # for all relays, whichever delivers
        await listener.group.pause(sender.name, paused=paused)
    elif paused:
        sender.pause()
    else:
        sender.unpause()
    return {"listener": listener.name, "backend": sender.name, "paused": paused}


COMMANDS: dict[str, Callable[[Sequence[Listener], Request, Progress], Coroutine[Any, Any, dict[str, Any]]]] = {
    "queues": list_queues,
    "queues drop": drop_queue,
    "queues mark-repaired": mark_repaired,
    "queues pause": pause,
    "queues resume": resume,
    "dead-letters list": dead_letters.list_letters,
    "dead-letters show": dead_letters.show_letter,
    "dead-letters replay": dead_letters.replay,
    "dead-letters drop": dead_letters.drop_letters,
    "repair mark": repair.mark,
    "repair missed": repair.missed,
    "repair write": repair.write,
}
FOR_OTHER_RELAYS = {
    "dead-letters send": dead_letters.send,
    "repair mark": repair.mark,
    "repair write": repair.write,
}
"""What a relay does for another one of its group, which does not deliver to the backend."""
NEED_A_RELAY = frozenset({"queues pause", "queues resume", "dead-letters replay", "repair mark", "repair write"})


async def run(listeners: Sequence[Listener], request: Request, progress: Progress) -> dict[str, Any]:
    """Run a command.

    :raises Refused: it cannot be done.
    """
    command = COMMANDS.get(request.command)
    if command is None:
        raise Refused(f'there is no command "{request.command}"')
    return await command(chosen(listeners, request.listener), request, progress)
