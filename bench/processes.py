"""What processes use, from /proc.

A server of ours leads a session of its own, so its session is it and all its children.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from testing.servers import ServerError

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def parse_stat(text: str) -> tuple[int, float, int]:
    """Return session, CPU seconds and resident bytes of a process, from proc(5)'s ``stat``.

    The CPU time is user and system time of all threads, and of the children that the process has waited for.
    """
    fields = [int(field) for field in text.rpartition(")")[2].split()[1:]]  # from the fourth on
    return fields[2], sum(fields[10:14]) * _TICK, fields[20] * _PAGE


class Usage:
    """What each session has used so far."""

    def __init__(self) -> None:
        self._cpu: dict[int, float] = defaultdict(float)
        self._resident: dict[int, int] = defaultdict(int)
        for process in Path("/proc").glob("[0-9]*/stat"):
            try:
                session, cpu, resident = parse_stat(process.read_text())
            except OSError:  # the process has just ended
                continue
            self._cpu[session] += cpu
            self._resident[session] += resident

    def cpu(self, *sessions: int) -> float:
        """Return the CPU seconds of some sessions, all of which must be there."""
        if any(session not in self._cpu for session in sessions):
            raise ServerError("the process has ended")
        return sum(self._cpu[session] for session in sessions)

    def resident(self, session: int) -> int:
        """Return the resident bytes of a session."""
        return self._resident[session]

    def others_since(self, before: Usage, ours: Iterable[int]) -> float:
        """Return the CPU seconds that sessions other than ours have used since `before`.

        Processes that started and ended in between are missing, unless their parents have waited for them.
        """
        theirs = before._cpu.keys() & self._cpu.keys() - {*ours}
        return sum(max(self._cpu[session] - before._cpu[session], 0) for session in theirs)


def udp_socket_drops(port: int) -> int | None:
    """Return how many datagrams the socket on a loopback port has lost for want of room; None without a socket."""
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port:
            return int(fields[-1])
    return None
