"""The reactor that ``twistd`` is to run on."""

from __future__ import annotations

import asyncio
import sys


def install_reactor() -> None:
    """Install a reactor on uvloop, or on asyncio's own loop where that is missing, unless there is a reactor already.

    ``twistd`` installs what its ``--reactor`` names before it asks a plugin for anything, and its default afterwards.

    A reactor imports Twisted's own TLS if that can be imported. It is not used here, and pyOpenSSL, on which it is
    built, would take 12 MB of memory: so it is marked as missing.
    """
    if "twisted.internet.reactor" in sys.modules:
        return
    sys.modules.setdefault("OpenSSL", None)  # type: ignore[arg-type] # see the import system's documentation
    from twisted.internet import asyncioreactor  # noqa: PLC0415 (not before that)

    try:
        import uvloop  # noqa: PLC0415 (it may be missing)
    except ImportError:
        loop = asyncio.new_event_loop()
    else:
        loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    asyncioreactor.install(loop)
