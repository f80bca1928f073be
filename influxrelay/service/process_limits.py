"""Limits of the process: open files, and how often Python looks for garbage."""

from __future__ import annotations

import gc
import resource
from collections.abc import Sequence

MOST_FILES = 65536  # open files to ask for; a higher limit would only cost memory
_RESERVED = 64  # for the log, the journals, the ports, the commands and the pings
_THRESHOLDS = (10_000, 20, 100)  # see gc.set_threshold(); Python's own are 700, 10, 10


def raise_file_limit() -> None:
    """Raise the limit on open files as far as the system allows, up to ``MOST_FILES``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def file_limit() -> int:
    """Return the limit on open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_FILES if soft == resource.RLIM_INFINITY else soft


def share_files(files: int, to_backends: int, wanted: Sequence[int]) -> list[int]:
    """Return how many connections each listener may have: as many as it wants, or its share of what is there.

    Up to a half of all files is reserved for everything else; each listener may have one connection at least.

    :param to_backends: the limit on connections to all backends together.
    """
    room = files - min(files // 2, _RESERVED + to_backends)
    total = sum(wanted)
    return list(wanted) if total <= room else [max(1, each * room // total) for each in wanted]


def collect_less_garbage() -> None:
    """Let the garbage collector leave alone what exists now, and run less often.

    A full collection delays every client by the time that it takes. Nearly all objects of a request are freed without
    it, as soon as the request is answered; what exists at the start stays until the end.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
