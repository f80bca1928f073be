"""What the operator can do with a relay that runs: each command is a function over its listeners."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol

import attrs

from influxrelay.core.errors import BackendFailure, JournalError
from influxrelay.core.text import text
from influxrelay.delivery.responses import excerpt
from influxrelay.delivery.sender import Sender
from influxrelay.journal.records import Contents, DeadLetter, Depth
from influxrelay.journal.writer import JournalWriter
from influxrelay.operations.views import Refused, Request, Row, only, summary, whole

PAGE = 16  # dead letters that are read at once; each may be as large as a write
CHUNK = 500  # dead letters that are dropped at once
Progress = Callable[[int, int], None]
"""Is told how many are done, of how many; raises if the work need not go on."""


class Listener(Protocol):
    """What the commands need of a listener."""

    name: str
    writer: JournalWriter | None
    senders: list[Sender]


# -- which listener, which backend


def chosen(listeners: Sequence[Listener], name: str) -> list[Listener]:
    """Return the listener of this name, or all.

    :raises Refused: there is none.
    """
    found = [each for each in listeners if name in ("", each.name)]
    if not found:
        raise Refused(f"there is no listener {name}; there is: {', '.join(each.name for each in listeners)}")
    return found


async def _find(listeners: Sequence[Listener], request: Request) -> tuple[Listener, Sender | None]:
    """Return the one backend of this name; its sender is None if it is no longer configured."""
    known: list[str] = []
    found: list[tuple[str, tuple[Listener, Sender | None]]] = []
    for listener in listeners:
        senders: dict[str, Sender | None] = dict.fromkeys(await _depths(listener))
        senders.update({sender.name: sender for sender in listener.senders})
        known += senders
        if request.backend in senders:
            found.append((listener.name, (listener, senders[request.backend])))
    return only(found, f"backend {request.backend}", request.listener, known)


async def _depths(listener: Listener) -> dict[str, Depth]:
    return {} if listener.writer is None else (await listener.writer.contents()).depths


# -- queues


async def list_queues(listeners: Sequence[Listener], request: Request, _: Progress) -> dict[str, Any]:
    """Tell how each backend is, and what waits for it."""
    del request
    rows = [row for listener in listeners for row in await _rows(listener)]
    now = time.time()
    return {"relay": "running", "queues": [row.show(now) for row in rows]}


async def _rows(listener: Listener) -> list[Row]:
    writer = listener.writer
    if writer is None:
        return [_row(listener, sender) for sender in listener.senders]
    contents: Contents | None = None
    trouble = ""
    try:
        contents = await writer.contents()
    except JournalError as error:  # the disk does not even let us look
        trouble = str(error)
    depths = contents.depths if contents is not None else {}
    drops = contents.drops if contents is not None else ()
    rows = {sender.name: _row(listener, sender) for sender in listener.senders}
    rows.update(
        (name, Row(listener=listener.name, backend=name, state="removed", queue="journal", writes=0, bytes=0))
        for name, depth in depths.items()
        if name not in rows
    )
    return [
        attrs.evolve(
            row,
            journal=str(writer.directory),
            journal_trouble=writer.trouble or trouble,
            dead_letters=contents.dead_letters.get(name, 0) if contents is not None else None,
            drops=tuple(each for each in drops if each.backend == name),
            **_of_depth(depths.get(name)),
        )
        for name, row in rows.items()
    ]


def _of_depth(depth: Depth | None) -> dict[str, Any]:
    if depth is None:
        return {}
    return {"location": depth.location, "writes": depth.writes, "bytes": depth.bytes, "oldest": depth.oldest}


def _row(listener: Listener, sender: Sender) -> Row:
    """Tell what is known without a look at the disk."""
    trouble = sender.status.problem
    reason = "" if trouble is None else f"{trouble.reason}: {trouble.detail.rstrip('.')}"
    row = Row(
        listener=listener.name,
        backend=sender.name,
        state=sender.state,
        reason=reason,
        queue=sender.backlog.kind,
        answers=tuple((*each, number) for each, number in sorted(sender.requests.answers.items())),
        refused=tuple((*each, number) for each, number in sorted(sender.refused.items())),
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
    )


async def drop_queue(listeners: Sequence[Listener], request: Request, _: Progress) -> dict[str, Any]:
    """Give up what waits for a backend, or forget one that is no longer configured."""
    listener, sender = await _find(listeners, request)
    if sender is not None and not sender.keeps:
        raise Refused(f"backend {sender.name} has no queue")
    writes, waiting = sender.queues.waiting() if sender is not None else (0, 0)
    if listener.writer is not None:
        depth, upto = await listener.writer.discard(request.backend)
        writes, waiting = (depth.writes, depth.bytes) if depth is not None else (0, 0)
        if sender is not None:
            sender.give_up(upto)
    elif sender is not None:
        sender.give_up()
    return {
        "listener": listener.name,
        "backend": request.backend,
        "writes": writes,
        "bytes": waiting,
        "forgotten": sender is None,
    }


async def repaired(listeners: Sequence[Listener], request: Request, _: Progress) -> dict[str, Any]:
    """Count from zero what a backend has lost: somebody has copied it there, so that the backend is in sync again."""
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
    """Let a backend's queue wait, until :func:`resume` or the end of the process."""
    return await _set_paused(listeners, request, paused=True)


async def resume(listeners: Sequence[Listener], request: Request, _: Progress) -> dict[str, Any]:
    """Let it go on."""
    return await _set_paused(listeners, request, paused=False)


async def _set_paused(listeners: Sequence[Listener], request: Request, *, paused: bool) -> dict[str, Any]:
    listener, sender = await _find(listeners, request)
    if sender is None or not sender.keeps:
        raise Refused(f"backend {request.backend} has no queue")
    if paused:
        sender.pause()
    else:
        sender.unpause()
    return {"listener": listener.name, "backend": sender.name, "paused": paused}


# -- dead letters


@attrs.frozen
class _Letter:
    """A dead letter, and where it is.

    :ivar id: its number in the journal, or ``BACKEND:NUMBER`` where it is in memory.
    """

    listener: Listener
    id: str
    letter: DeadLetter

    async def remove(self) -> None:
        if self.listener.writer is not None:
            await self.listener.writer.drop_dead_letters([self.letter.id])
            return
        for sender in self.listener.senders:
            if sender.name == self.letter.backend:
                sender.backlog.drop_dead_letter(self.letter.id)


async def _page(listener: Listener, after: int, limit: int) -> list[_Letter]:
    """Return the next dead letters of a listener; of those in memory all at once."""
    if listener.writer is not None:
        page = await listener.writer.dead_letters(after, limit)
        return [_Letter(listener, str(each.id), each) for each in page]
    letters = [letter for sender in listener.senders for letter in sender.backlog.dead_letters()]
    return [_Letter(listener, f"{each.backend}:{each.id}", each) for each in letters] if after == 0 else []


async def _look_up(listener: Listener, number: str) -> _Letter | None:
    if listener.writer is None:
        return next((each for each in await _page(listener, 0, 0) if each.id == number), None)
    if not (number.isascii() and number.isdigit() and 0 < int(number[:19]) < 2**62):
        return None
    found = await _page(listener, int(number) - 1, 1)
    return found[0] if found and found[0].id == number else None


async def _wanted(listeners: Sequence[Listener], request: Request) -> list[tuple[Listener, str]]:
    """Return which dead letters a request is about: the ids it gives, or all, of a backend if it names one."""
    if request.all:
        return [(each.listener, each.id) async for each in _each(listeners, request)]
    return [((await _one(listeners, request, each)).listener, each) for each in dict.fromkeys(request.ids)]


async def _each(listeners: Sequence[Listener], request: Request) -> AsyncIterator[_Letter]:
    for listener in listeners:
        after = 0
        while page := await _page(listener, after, PAGE):
            for each in page:
                if request.backend in ("", each.letter.backend):
                    yield each
            after = page[-1].letter.id


async def _one(listeners: Sequence[Listener], request: Request, number: str) -> _Letter:
    looked_up = [(each.name, await _look_up(each, number)) for each in listeners]
    found = [(name, letter) for name, letter in looked_up if letter is not None]
    return only(found, f"dead letter {number}", request.listener)


async def list_letters(listeners: Sequence[Listener], request: Request, _: Progress) -> dict[str, Any]:
    """List the dead letters."""
    letters = [summary(each.listener.name, each.id, each.letter) async for each in _each(listeners, request)]
    return {"dead_letters": letters}


async def show_letter(listeners: Sequence[Listener], request: Request, _: Progress) -> dict[str, Any]:
    """Show a dead letter with all its lines."""
    if len(request.ids) != 1:
        raise Refused("one dead letter can be shown at a time")
    found = await _one(listeners, request, request.ids[0])
    return whole(found.listener.name, found.id, found.letter)


async def replay(listeners: Sequence[Listener], request: Request, progress: Progress) -> dict[str, Any]:
    """Send dead letters once more, one by one, the oldest first, and remove those that are taken.

    A backend that is in trouble is not asked again for the rest.
    """
    wanted = await _wanted(listeners, request)
    replayed: list[str] = []
    failed: list[dict[str, str]] = []
    down: dict[tuple[str, str], str] = {}
    for number, (listener, each) in enumerate(wanted):
        progress(number, len(wanted))
        found = await _look_up(listener, each)
        if found is None:
            continue  # somebody else was quicker
        key = listener.name, found.letter.backend
        problem = down.get(key)
        if problem is None:
            problem, is_down = await _send_again(found)
            if is_down:
                down[key] = problem
        if problem:
            failed.append({"id": each, "listener": listener.name, "backend": found.letter.backend, "reason": problem})
        else:
            await found.remove()
            replayed.append(each)
    return {"replayed": replayed, "failed": failed}


async def _send_again(found: _Letter) -> tuple[str, bool]:
    """Return what is wrong, or ``""``; and whether that holds for the backend's other letters, too."""
    sender = next((sender for sender in found.listener.senders if sender.name == found.letter.backend), None)
    if sender is None:
        return "the backend is no longer configured", True
    if sender.paused:
        return "the backend is paused", True
    try:  # alone: what is wrong with it must not spoil others
        reply = await sender.resend(attrs.evolve(found.letter.write, mergeable=False))
    except BackendFailure as failure:
        trouble = sender.status.trouble
        problem = failure if trouble is None or failure.reply is not None else trouble
        return f"{problem.reason}: {problem.detail.rstrip('.')}", failure.reply is None or trouble is not None
    return ("", False) if reply.status < 300 else (f"refused again: {excerpt(reply)}", False)


async def drop_letters(listeners: Sequence[Listener], request: Request, progress: Progress) -> dict[str, Any]:
    """Remove dead letters."""
    wanted = await _wanted(listeners, request)
    dropped = 0
    for listener in listeners:
        ids = [each for owner, each in wanted if owner is listener]
        for start in range(0, len(ids), CHUNK):
            progress(dropped, len(wanted))
            await _drop_chunk(listener, ids[start : start + CHUNK])
            dropped += len(ids[start : start + CHUNK])
    return {"dropped": dropped}


async def _drop_chunk(listener: Listener, ids: list[str]) -> None:
    if listener.writer is not None:
        await listener.writer.drop_dead_letters(map(int, ids))
        return
    for each in await _page(listener, 0, 0):
        if each.id in ids:
            await each.remove()


COMMANDS: dict[str, Callable[[Sequence[Listener], Request, Progress], Awaitable[dict[str, Any]]]] = {
    "queues": list_queues,
    "queues drop": drop_queue,
    "queues repaired": repaired,
    "queues pause": pause,
    "queues resume": resume,
    "dead-letters list": list_letters,
    "dead-letters show": show_letter,
    "dead-letters replay": replay,
    "dead-letters drop": drop_letters,
}


async def run(listeners: Sequence[Listener], request: Request, progress: Progress) -> dict[str, Any]:
    """Do what is asked.

    :raises Refused: that cannot be done.
    """
    command = COMMANDS.get(request.command)
    if command is None:
        raise Refused(f'there is no command "{request.command}"')
    return await command(chosen(listeners, request.listener), request, progress)
