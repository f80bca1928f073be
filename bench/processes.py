"""What processes use, from /proc.

A server of ours leads a session of its own, so its session is it and all its children.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from testing.servers import ServerError

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Stat:
    """What proc(5)'s ``stat`` says of a process: CPU times of all its threads in seconds, memory in bytes.

    :ivar children: the CPU time of the processes that it has waited for.
    """

    pid: int
    session: int
    cpu: float
    children: float
    resident: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what a line says."""
        before, _, after = text.rpartition(")")  # the command's name may contain anything
        fields = [int(field) for field in after.split()[1:]]  # from the fourth on
        cpu, children = sum(fields[10:12]) * _TICK, sum(fields[12:14]) * _TICK
        return cls(int(before.partition(" ")[0]), fields[2], cpu, children, fields[20] * _PAGE)


class Usage:
    """What all processes have used so far."""

    def __init__(self) -> None:
        self._stats: dict[int, Stat] = {}
        for file in Path("/proc").glob("[0-9]*/stat"):
            try:
                stat = Stat.parse(file.read_text())
            except OSError:  # the process has just ended
                continue
            self._stats[stat.pid] = stat

    def cpu(self, *sessions: int) -> float:
        """Return the CPU seconds of some sessions, all of which must be there."""
        found = [stat for stat in self._stats.values() if stat.session in sessions]
        if {stat.session for stat in found} != {*sessions}:
            raise ServerError("the process has ended")
        return sum(stat.cpu + stat.children for stat in found)

    def resident(self, session: int) -> int:
        """Return the resident bytes of a session."""
        return sum(stat.resident for stat in self._stats.values() if stat.session == session)

    def others_since(self, before: Usage, ours: Iterable[int]) -> float:
        """Return the CPU seconds that processes of sessions other than ours have used since `before`.

        Processes that have ended meanwhile are missing.
        """
        theirs = [stat for stat in self._stats.values() if stat.session not in {*ours}]
        return sum(stat.cpu - before.cpu_of(stat.pid) for stat in theirs)

    def cpu_of(self, pid: int) -> float:
        """Return the CPU seconds of one process, without its children; 0 if it is not there."""
        return self._stats[pid].cpu if pid in self._stats else 0


def udp_socket_drops(port: int) -> int | None:
    """Return how many datagrams the socket on a loopback port has lost for want of room; None without a socket."""
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port:
            return int(fields[-1])
    return None
