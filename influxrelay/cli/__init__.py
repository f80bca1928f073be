"""The command line for the operator: ``influxrelay queues``, ``dead-letters``, ``verify``, ``repair`` and others."""

from __future__ import annotations

import os
from collections.abc import Sequence

INTERRUPTED = 130  # the exit code after Ctrl-C, as shells have it


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say, and return the exit code.

    It is 0 if that is done; 1 if it is done, but backends differ, something is still missing, or was refused again; 2
    if it could not be done; 130 after Ctrl-C; 141 if nobody reads the output any more.
    """
    try:
        if "_ARGCOMPLETE" in os.environ:  # a shell asks
            from influxrelay.cli.completion import complete  # noqa: PLC0415 (a shell waits for no more than it needs)

            complete()
        from influxrelay.cli.commands import run  # noqa: PLC0415 (Ctrl-C may come while it is loaded)

        return run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
