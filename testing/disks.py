"""Disks that stop answering when a test wants it, and answer again."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Protocol
from unittest import TestCase

from testing.servers import Relay, find_program

_SYS_ADMIN = 21  # the bit of the capability, linux/capability.h
_SIZE = 64 * 1024 * 1024


class Disk(Protocol):
    """A disk with one directory on it."""

    directory: Path

    def relay(self, directory: Path, text: str, port: int) -> Relay:
        """Return a relay that may use the disk."""

    def freeze(self) -> None:
        """Let the disk answer nothing."""

    def thaw(self) -> None:
        """Let it answer again."""


def may_mount() -> bool:
    """Tell whether this process may mount a file system from a file."""
    status = Path("/proc/self/status").read_text()
    capabilities = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(capabilities >> _SYS_ADMIN & 1) and Path("/dev/loop-control").exists()


class FrozenDisk:
    """A file system of its own, which is frozen (``fsfreeze(8)``): whoever writes to it waits in the kernel."""

    def __init__(self, case: TestCase, base: Path) -> None:
        self.directory = base / "disk"
        self.directory.mkdir()
        image = base / "image"
        with image.open("wb") as file:
            file.truncate(_SIZE)
        _run("mkfs.ext4", "e2fsprogs", "-q", str(image))
        _run("mount", "mount", "-o", "loop", str(image), str(self.directory))
        case.addCleanup(_run, "umount", "mount", "--lazy", str(self.directory))
        self._is_frozen = False
        case.addCleanup(self.thaw)

    def relay(self, directory: Path, text: str, port: int) -> Relay:
        """Return a relay as it is."""
        return Relay(directory, text, port)

    def freeze(self) -> None:
        """Freeze the file system."""
        _run("fsfreeze", "util-linux", "--freeze", str(self.directory))
        self._is_frozen = True

    def thaw(self) -> None:
        """Unfreeze it, unless it is not frozen."""
        if self._is_frozen:
            self._is_frozen = False
            _run("fsfreeze", "util-linux", "--unfreeze", str(self.directory))


class HangingDisk:
    """A directory that hangs for the relay alone (:mod:`testing.hanging_disk`)."""

    def __init__(self, case: TestCase, base: Path) -> None:
        self.directory = base / "disk"
        self.directory.mkdir()
        self._gate = base / "gate"
        self._file = self._gate.open("wb")
        case.addCleanup(self._file.close)

    def relay(self, directory: Path, text: str, port: int) -> Relay:
        """Return a relay whose journal hangs with the disk."""
        return _HangingRelay(
            directory, text, port, ["-m", "testing.hanging_disk", str(self._gate), str(self.directory)]
        )

    def freeze(self) -> None:
        """Hold the lock."""
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def thaw(self) -> None:
        """Give it back."""
        fcntl.flock(self._file, fcntl.LOCK_UN)


class _HangingRelay(Relay):
    def __init__(self, directory: Path, text: str, port: int, before: list[str]) -> None:
        super().__init__(directory, text, port)
        self._before = before

    def command(self) -> list[str]:
        """Return the command, with something before the program."""
        _, *rest = super().command()
        return [sys.executable, *self._before, *rest]


def is_over(process: int) -> bool:
    """Tell whether a process has ended, but for threads that wait for a disk."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _run(program: str, package: str, *arguments: str) -> None:
    subprocess.run([find_program(program, package), *arguments], check=True, capture_output=True, env=os.environ)
