"""Waiting for no longer than one can."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred


async def within(seconds: float, event: Deferred[Any], reactor: Any) -> bool:
    """Wait for an event that may come later than we can wait; tell whether it has come.

    The event goes on, and its result stays for whoever else waits for it.
    """
    waited: Deferred[bool] = Deferred()

    def came_in_time(result: Any) -> Any:
        if not waited.called:
            waited.callback(True)
        return result

    event.addBoth(came_in_time)
    timer = reactor.callLater(seconds, waited.callback, False)
    came = await waited
    if timer.active():
        timer.cancel()
    return came
