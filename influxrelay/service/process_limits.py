"""Limits of the process: open files, how often Python looks for garbage, and what the C library keeps of memory."""

from __future__ import annotations

import ctypes
import gc
import resource
from collections.abc import Sequence

MOST_FILES = 65536  # open files to ask for; a higher limit would only cost memory
_RESERVED = 64  # for the log, the journals, the ports, the commands and the pings
_LARGE = 1024 * 1024  # bytes of a piece of memory that goes back to the system at once
_SPARE = 8 * 1024 * 1024  # bytes of smaller ones at the end of the heap that do not
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
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


def collect_garbage_less_often() -> None:
    """Let the garbage collector run less often; nearly all objects of a request are freed without it."""
    gc.set_threshold(*_THRESHOLDS)


def keep_what_exists() -> None:
    """Let the garbage collector leave alone what exists now: what exists at the start stays until the end.

    A full collection delays every client by the time that it takes.
    """
    gc.collect()
    gc.freeze()


def keep_less_memory() -> None:
    """Let the memory of large bodies go back to the system as soon as it is free, and grow without being copied.

    Else glibc keeps up to 64 MB, once the first large body has come, and copies a body of 25 MB while it grows.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not every C library has it
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, _SPARE)
