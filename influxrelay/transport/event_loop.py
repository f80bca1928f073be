"""The event loop that a reactor runs on."""

from __future__ import annotations

import asyncio
from typing import Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()


def describe_reactor(reactor: Any) -> str:
    """Name what a reactor runs on: ``uvloop``, ``asyncio``, or the reactor itself."""
    loop = event_loop(reactor)
    return type(reactor).__name__ if loop is None else type(loop).__module__.partition(".")[0]


def event_loop(reactor: Any) -> asyncio.AbstractEventLoop | None:
    """Return the asyncio event loop below a reactor; None if it has none of its own.

    Twisted has no public way to it. asyncio's current loop would be another one: threads have none, and from Python
    3.12 on a forked process, such as twistd in the background, has lost its parent's. What goes wrong in the loop's
    callbacks is logged as Twisted logs it.
    """
    if not isinstance(reactor, AsyncioSelectorReactor):
        return None
    loop = reactor._asyncioEventloop  # noqa: SLF001 (see above)
    if loop.get_exception_handler() is None:
        loop.set_exception_handler(_log_error)
    return loop


def _log_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if error is None:
        _log.error("{problem}", problem=context["message"])
    else:
        _log.failure("{problem}", Failure(error), problem=context["message"])
