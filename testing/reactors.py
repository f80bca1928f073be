"""Run tests on a reactor that is named: ``python -m testing.reactors uvloop tests.component.test_transport``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from twisted.internet import asyncioreactor, epollreactor


def _install_on(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    loop = make_loop()
    asyncio.set_event_loop(loop)
    asyncioreactor.install(loop)


def _new_uvloop() -> asyncio.AbstractEventLoop:
    import uvloop  # noqa: PLC0415 (the other reactors go without)

    return uvloop.new_event_loop()


REACTORS: dict[str, Callable[[], None]] = {
    "epoll": epollreactor.install,
    "asyncio": lambda: _install_on(asyncio.new_event_loop),
    "uvloop": lambda: _install_on(_new_uvloop),
}


def main(reactor: str, names: list[str]) -> None:
    """Install the reactor, and let trial run the tests."""
    REACTORS[reactor]()
    sys.argv[:] = ["trial", "--reporter=text", f"--temp-directory=_trial_temp.{reactor}", *names]
    from twisted.scripts.trial import run  # noqa: PLC0415 (it imports the reactor)

    run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
