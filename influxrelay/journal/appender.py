"""Appending to the log: one write to the system for each batch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import attrs

from influxrelay.journal.reading import strike

_MAX_PARTS = 1024  # IOV_MAX, limits.h


@attrs.define(eq=False)
class Batch:
    """What is appended together.

    :ivar path: of the segment.
    :ivar offset: where the parts belong; 0 where the segment is new.
    :ivar parts: the bytes.
    :ivar strikes: paths and offsets of writes that are struck.
    :ivar sync: whether it has to survive power loss.
    """

    path: Path
    offset: int
    parts: Sequence[bytes]
    strikes: Sequence[tuple[Path, int]]
    sync: bool


class Appender:
    """Writes batches to segments; belongs to one thread, in which it may wait for the disk."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._file = -1

    def write(self, batch: Batch) -> None:
        """Write a batch, or nothing of it.

        :raises OSError: the disk does not take it.
        """
        try:
            if batch.parts:
                self._append(batch)
            for path, offsets in groupby(sorted(batch.strikes), itemgetter(0)) if batch.strikes else ():
                strike(path, [offset for _, offset in offsets], sync=batch.sync)
        except BaseException:
            with contextlib.suppress(OSError):
                self.undo(batch)
            raise

    def _append(self, batch: Batch) -> None:
        if batch.path is not self._path:  # a segment has one object for it
            self.close()
            new = 0 if batch.offset else os.O_CREAT | os.O_TRUNC
            self._file = os.open(batch.path, os.O_RDWR | os.O_CLOEXEC | new, 0o600)
            self._path = batch.path
        _write(self._file, batch.parts, batch.offset)
        if batch.sync:
            os.fdatasync(self._file)
            if batch.offset == 0:
                sync_directory(batch.path.parent)

    def undo(self, batch: Batch) -> None:
        """Remove what was written of a batch; the segment is not appended to again.

        :raises OSError: it cannot be removed.
        """
        if not batch.parts:
            return
        self.close()
        if batch.offset == 0:
            batch.path.unlink(missing_ok=True)
        else:
            os.truncate(batch.path, batch.offset)

    def probe(self, directory: Path, size: int) -> None:
        """Find out whether the disk takes so many bytes.

        :raises OSError: it does not.
        """
        path = directory / "probe"
        try:
            path.touch(mode=0o600)
            with path.open("wb") as file:
                file.write(bytes(4096))
                file.flush()
                os.posix_fallocate(file.fileno(), 0, size)
        finally:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the segment."""
        if self._file >= 0:
            file, self._file, self._path = self._file, -1, None
            os.close(file)


def _write(file: int, parts: Sequence[bytes], offset: int) -> None:
    for begin in range(0, len(parts), _MAX_PARTS):
        some = parts if len(parts) <= _MAX_PARTS else parts[begin : begin + _MAX_PARTS]
        size = sum(map(len, some))
        written = os.pwritev(file, some, offset)
        if written < size:  # the disk is nearly full, or this is more than the system writes at once
            rest = memoryview(b"".join(some))
            while written < size:
                written += os.pwrite(file, rest[written:], offset + written)
        offset += size


def sync_directory(directory: Path) -> None:
    """Let the names of new files survive power loss."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, parts: Iterable[bytes], *, sync: bool) -> None:
    """Write a new file, or nothing.

    :raises OSError: the disk does not take it.
    """
    temporary = path.with_suffix(".tmp")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _write(file, list(parts), 0)
        if sync:
            os.fsync(file)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)
    if sync:
        sync_directory(path.parent)
