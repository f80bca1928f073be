"""Commands on dead letters: list, show, replay, drop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import attrs

from influxrelay.core.errors import BackendFailure
from influxrelay.delivery.responses import excerpt
from influxrelay.journal.records import DeadLetter
from influxrelay.operations.forwarding import forward
from influxrelay.operations.targets import Listener, Progress
from influxrelay.operations.views import Refused, Request, only, summary, whole

PAGE = 16  # dead letters that are read at once; each may be as large as a write
CHUNK = 500  # dead letters that are dropped at once


@attrs.frozen
class Letter:
    """A dead letter, and where it is.

    :ivar id: its number in the journal, or ``BACKEND:NUMBER`` where it is in memory.
    """

    listener: Listener
    id: str
    letter: DeadLetter

    async def remove(self) -> None:
        """Remove it."""
        if self.listener.writer is not None:
            await self.listener.writer.drop_dead_letters([self.letter.id])
            return
        for sender in self.listener.senders:
            if sender.name == self.letter.backend:
                sender.backlog.drop_dead_letter(self.letter.id)


async def _page(listener: Listener, after: int, limit: int) -> list[Letter]:
    """Return the next dead letters of a listener; of those in memory all at once."""
    if listener.writer is not None:
        page = await listener.writer.dead_letters(after, limit)
        return [Letter(listener, str(each.id), each) for each in page]
    letters = [letter for sender in listener.senders for letter in sender.backlog.dead_letters()]
    return [Letter(listener, f"{each.backend}:{each.id}", each) for each in letters] if after == 0 else []


async def _look_up(listener: Listener, number: str) -> Letter | None:
    if listener.writer is None:
        return next((each for each in await _page(listener, 0, 0) if each.id == number), None)
    if not (number.isascii() and number.isdigit() and 0 < int(number[:19]) < 2**62):
        return None
    found = await _page(listener, int(number) - 1, 1)
    return found[0] if found and found[0].id == number else None


async def _wanted(listeners: Sequence[Listener], request: Request) -> list[tuple[Listener, str]]:
    """Return the dead letters that a request is about: those with its ids, or all, of one backend if it names one."""
    if request.all:
        return [(each.listener, each.id) async for each in each_letter(listeners, request)]
    return [((await _one(listeners, request, each)).listener, each) for each in dict.fromkeys(request.ids)]


async def each_letter(listeners: Sequence[Listener], request: Request) -> AsyncIterator[Letter]:
    """Yield the dead letters, the oldest of each listener first; those of one backend if the request names one."""
    for listener in listeners:
        after = 0
        while page := await _page(listener, after, PAGE):
            for each in page:
                if request.backend in ("", each.letter.backend):
                    yield each
            after = page[-1].letter.id


async def _one(listeners: Sequence[Listener], request: Request, number: str) -> Letter:
    looked_up = [(each.name, await _look_up(each, number)) for each in listeners]
    found = [(name, letter) for name, letter in looked_up if letter is not None]
    return only(found, f"dead letter {number}", request.listener)


async def list_letters(listeners: Sequence[Listener], request: Request, _: Progress) -> dict[str, Any]:
    """List the dead letters."""
    letters = [summary(each.listener.name, each.id, each.letter) async for each in each_letter(listeners, request)]
    return {"dead_letters": letters}


async def oldest_letters(listeners: Sequence[Listener], limit: int) -> list[dict[str, Any]]:
    """Return so many dead letters at the most of each listener, the oldest ones."""
    return [
        summary(listener.name, each.id, each.letter)
        for listener in listeners
        for each in (await _page(listener, 0, limit))[:limit]
    ]


async def show_letter(listeners: Sequence[Listener], request: Request, _: Progress) -> dict[str, Any]:
    """Show a dead letter with all its lines."""
    if len(request.ids) != 1:
        raise Refused("one dead letter can be shown at a time")
    found = await _one(listeners, request, request.ids[0])
    return whole(found.listener.name, found.id, found.letter)


async def replay(listeners: Sequence[Listener], request: Request, progress: Progress) -> dict[str, Any]:
    """Send dead letters again, one by one, oldest first, and remove those that the backend takes.

    When a backend turns out to be in trouble, its remaining letters are not sent.
    """
    wanted = await _wanted(listeners, request)
    replayed: list[str] = []
    failed: list[dict[str, str]] = []
    down: dict[tuple[str, str], str] = {}
    for number, (listener, each) in enumerate(wanted):
        progress(number, len(wanted))
        found = await _look_up(listener, each)
        if found is None:
            continue  # it was removed meanwhile
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


async def _send_again(found: Letter) -> tuple[str, bool]:
    """Return why a letter was not taken (empty if it was), and whether its backend would not take others either."""
    sender = next((sender for sender in found.listener.senders if sender.name == found.letter.backend), None)
    if sender is None:
        return "the backend is no longer configured", True
    if sender.paused:
        return "the backend is paused", True
    if sender.elsewhere is not None:
        try:
            answer = await forward(found.listener, sender, Request("dead-letters send", "", sender.name, (found.id,)))
        except Refused as error:
            return str(error), True
        return answer["problem"], answer["is_down"]
    try:  # not merged with others, which it could spoil
        reply = await sender.resend(attrs.evolve(found.letter.write, mergeable=False))
    except BackendFailure as failure:
        trouble = sender.status.trouble
        problem = failure if trouble is None or failure.reply is not None else trouble
        return f"{problem.reason}: {problem.detail.rstrip('.')}", failure.reply is None or trouble is not None
    return ("", False) if reply.status < 300 else (f"refused again: {excerpt(reply)}", False)


async def send(listeners: Sequence[Listener], request: Request, _: Progress) -> dict[str, Any]:
    """Send a dead letter again for another relay, which removes it if the backend has taken it."""
    found = await _one(listeners, request, request.ids[0])
    problem, is_down = await _send_again(found)
    return {"problem": problem, "is_down": is_down}


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
