"""Which event loop a reactor runs on."""

from __future__ import annotations

import asyncio
from typing import Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor


def event_loop(reactor: Any) -> asyncio.AbstractEventLoop | None:
    """Return the asyncio event loop below a reactor; None if it has none of its own.

    Whoever installs an :class:`AsyncioSelectorReactor` makes its loop the current one of the main thread, as Twisted
    itself does.
    """
    return asyncio.get_event_loop() if isinstance(reactor, AsyncioSelectorReactor) else None
