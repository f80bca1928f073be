"""What processes use, from /proc.

A server of ours leads a session of its own, so its session is it and all its children.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from testing.servers import ServerError

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def _stats(session: int) -> Iterator[list[int]]:
    """Yield the fields of proc(5)'s ``stat`` from the fourth on, for each process of a session."""
    for process in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = process.read_text()
        except OSError:  # it has just ended
            continue
        fields = [int(field) for field in text.rpartition(")")[2].split()[1:]]
        if fields[2] == session:
            yield fields


def cpu_seconds(session: int) -> float:
    """Return user and system time of a session's processes, and of those that they have waited for."""
    times = [sum(fields[10:14]) for fields in _stats(session)]
    if not times:
        raise ServerError("the process has ended")
    return sum(times) * _TICK


def resident_bytes(session: int) -> int:
    """Return the resident memory of a session's processes."""
    return sum(fields[20] for fields in _stats(session)) * _PAGE


def udp_socket_drops(port: int) -> int | None:
    """Return how many datagrams the socket on a loopback port has lost for want of room; None without a socket."""
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port:
            return int(fields[-1])
    return None
