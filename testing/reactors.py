"""Run tests on a reactor that is named, with trial's options: ``python -m testing.reactors epoll tests.component``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import uvloop
from twisted.internet import asyncioreactor, epollreactor
from twisted.internet.process import reapAllProcesses

_REAP = 0.05  # seconds


def _install_on(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    asyncioreactor.install(loop)


def _install_on_uvloop() -> None:
    loop = uvloop.new_event_loop()
    _install_on(loop)
    _reap(loop)


def _reap(loop: asyncio.AbstractEventLoop) -> None:
    """Look for children that have ended: on uvloop no reactor is told by a signal."""
    reapAllProcesses()
    loop.call_later(_REAP, _reap, loop)


REACTORS: dict[str, Callable[[], None]] = {
    "epoll": epollreactor.install,
    "asyncio": lambda: _install_on(asyncio.new_event_loop()),
    "uvloop": _install_on_uvloop,
}


def main(reactor: str, arguments: list[str]) -> None:
    """Install the reactor, and let trial run the tests."""
    REACTORS[reactor]()
    sys.argv[:] = ["trial", *arguments]
    from twisted.scripts.trial import run  # noqa: PLC0415 (it imports the reactor)

    run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
