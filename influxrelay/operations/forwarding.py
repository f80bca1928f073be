"""Forwards what has to go through a backend's queue to the relay of the group that delivers to that backend."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
from twisted.logger import Logger

from influxrelay.core.errors import JournalError
from influxrelay.delivery.sender import Sender, delivered_elsewhere
from influxrelay.operations.targets import Listener, Progress
from influxrelay.operations.views import Refused, Request

Commands = Mapping[str, Callable[[Sequence[Listener], Request, Progress], Coroutine[Any, Any, dict[str, Any]]]]
_log = Logger()


async def forward(listener: Listener, sender: Sender, request: Request) -> dict[str, Any]:
    """Have the relay that delivers to a backend do something, and return its answer.

    :raises Refused: it has not done it, or perhaps has and did not say so.
    """
    elsewhere = sender.elsewhere
    group, relay = listener.group, "" if elsewhere is None else elsewhere.deliverer
    if group is None or not relay:
        raise Refused(f"backend {sender.name}: no relay delivers to it at the moment; try again")

    def is_gone() -> bool:
        now = sender.elsewhere
        return now is None or now.deliverer != relay

    try:
        answer = json.loads(await group.ask(relay, request.line(), is_gone))
    except (JournalError, ValueError) as error:
        raise Refused(f"backend {sender.name}: {error}") from error
    if "error" in answer:
        raise Refused(answer["error"])
    result: dict[str, Any] = answer["result"]
    return result


def answer_relays(listeners: Sequence[Listener], commands: Commands) -> None:
    """Do what other relays of the listeners' groups ask for.

    :param commands: what they may ask for.
    """
    for each in listeners:
        if each.group is not None:
            each.group.answer_by(partial(_answer, each, commands))


async def _answer(listener: Listener, commands: Commands, payload: bytes) -> bytes:
    answer: dict[str, Any]
    try:
        answer = {"result": await _do(listener, commands, Request.parse(payload))}
    except (Refused, JournalError) as error:
        answer = {"error": str(error)}
    except Exception as error:  # noqa: BLE001 (the other relay waits for an answer)
        _log.failure("a command of another relay")
        answer = {"error": f"the relay that delivers failed to do this: {error!r} (see its log)"}
    return json.dumps(answer).encode()


async def _do(listener: Listener, commands: Commands, request: Request) -> dict[str, Any]:
    command = commands.get(request.command)
    if command is None:
        raise Refused(f'there is no command "{request.command}" for other relays')
    sender = next((each for each in listener.senders if each.name == request.backend), None)
    if sender is None:
        raise Refused(f"the relay that delivered to {request.backend} no longer has this backend")
    if sender.elsewhere is not None:
        raise Refused(f"backend {sender.name}: {delivered_elsewhere(sender.elsewhere)}; try again")
    # The listener may have another name here.
    return await command([listener], attrs.evolve(request, listener=""), lambda done, total: None)  # noqa: ARG005
