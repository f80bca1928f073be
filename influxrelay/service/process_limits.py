"""What the process itself is allowed and how it keeps house: open files, and the search for garbage."""

from __future__ import annotations

import gc
import resource
from collections.abc import Sequence

MOST_FILES = 65536  # open files that are asked for; more would only cost memory
_RESERVED = 64  # for the log, the journals, the ports, the commands and the pings
_GARBAGE = (10_000, 20, 100)  # objects more than before, until the youngest are searched; Python's own are 700, 10, 10


def raise_file_limit() -> None:
    """Let the process open as many files as it may ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def file_limit() -> int:
    """Return how many files the process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_FILES if soft == resource.RLIM_INFINITY else soft


def share_files(files: int, to_backends: int, wanted: Sequence[int]) -> list[int]:
    """Return how many connections each listener may have, of those that it wants, at least one.

    Files for everything else are left over, up to a half of all.

    :param to_backends: how many connections there may be to all backends together.
    """
    room = files - min(files // 2, _RESERVED + to_backends)
    total = sum(wanted)
    return list(wanted) if total <= room else [max(1, each * room // total) for each in wanted]


def search_less_garbage() -> None:
    """Keep the collector from what is there and stays, and let it look less often at the rest.

    A search of everything holds up all clients for as long as it takes, and nearly all objects of a request go by
    themselves when it is answered.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE)
