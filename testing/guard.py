"""Servers end with the process that has started them, however that ends."""

from __future__ import annotations

import subprocess
import sys
import threading


class Guard:
    """A small process that kills what is on its list when its standard input ends, thus when this process does.

    The kernel's own way (``PR_SET_PDEATHSIG``) goes by threads: the server would die with the pool's thread that
    started it.
    """

    _PROGRAM = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def watch(self, group: int) -> None:
        """Kill this process group in the end."""
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """Let this process group be."""
        self._tell(f"-{group}\n")

    def _tell(self, line: str) -> None:
        with self._lock:
            if self._process is None:
                command = [sys.executable, "-I", "-S", "-c", self._PROGRAM]
                self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
            assert self._process.stdin is not None
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()


guard = Guard()
