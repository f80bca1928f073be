"""Run a program on a disk that hangs when a test wants it: ``python -m testing.hanging_disk GATE DIRECTORY FILE ...``.

As long as somebody holds the lock of the file GATE, nothing that the program asks of the files in DIRECTORY returns to
the thread that asks, whichever that is. FILE is the program, in Python, with its arguments.
"""

from __future__ import annotations

import fcntl
import os
import runpy
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_BY_PATH = ("open", "unlink", "truncate", "rename", "replace", "mkdir")
_BY_FILE = ("pread", "pwrite", "pwritev", "write", "read", "fsync", "fdatasync", "ftruncate")


class Disk:
    """The files in a directory, which answer as long as nobody holds a lock."""

    def __init__(self, gate: str, directory: str) -> None:
        self._gate = gate
        self._directory = directory
        self._open = os.open
        self._lock = fcntl.flock

    def wait(self) -> None:
        """Return when the disk answers."""
        gate = self._open(self._gate, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._lock(gate, fcntl.LOCK_SH)
        finally:
            os.close(gate)

    def is_on_it(self, path: Any) -> bool:
        """Tell whether a path is on the disk."""
        return str(Path(os.fsdecode(path)).absolute()).startswith(self._directory)

    def is_open_on_it(self, file: int) -> bool:
        """Tell whether an open file is on the disk."""
        return self.is_on_it(Path(f"/proc/self/fd/{file}").readlink())

    def guard(self, name: str, is_on_it: Callable[[Any], bool]) -> None:
        """Let a function of the system wait if its first argument is on the disk."""
        function: Callable[..., Any] = getattr(os, name)

        def guarded(where: Any, *arguments: Any, **named: Any) -> Any:
            if is_on_it(where):
                self.wait()
            return function(where, *arguments, **named)

        setattr(os, name, guarded)

    def connection(self) -> type[sqlite3.Connection]:
        """Return SQLite's connection, which waits before each statement."""
        wait = self.wait

        class Connection(sqlite3.Connection):
            def execute(self, *arguments: Any) -> sqlite3.Cursor:
                wait()
                return super().execute(*arguments)

            def executemany(self, *arguments: Any) -> sqlite3.Cursor:
                wait()
                return super().executemany(*arguments)

            def close(self) -> None:
                wait()
                super().close()

        return Connection


def main(gate: str, directory: str, program: str) -> None:
    """Run the program."""
    disk = Disk(gate, directory)
    for name in _BY_PATH:
        disk.guard(name, disk.is_on_it)
    for name in _BY_FILE:
        disk.guard(name, disk.is_open_on_it)
    connect, connection = sqlite3.connect, disk.connection()

    def connect_slowly(path: Any, *arguments: Any, **named: Any) -> sqlite3.Connection:
        return connect(path, *arguments, factory=connection, **named) if disk.is_on_it(path) else connect(path)

    setattr(sqlite3, "connect", connect_slowly)  # noqa: B010 (mypy knows that it has another type)
    sys.argv = sys.argv[3:]
    sys.path[0] = str(Path(program).parent)
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:4])
