"""What a verification has compared, in a file from which an interrupted one goes on."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

import attrs

from influxrelay.core.text import count, iso
from influxrelay.verification.points import Flaw, Run
from influxrelay.verification.statements import Measurement, Window

MAX_AGE = 7 * 86_400.0  # seconds since the last window, after which a run starts over
_VERSION = 1


@attrs.frozen
class Record:
    """What was found in a window of a measurement, or in the sample that was read at its end.

    :ivar since: the beginning of the window; ``until`` is its end. Both are None for the sample.
    :ivar windows: that were compared by aggregates, and ``points``: one by one.
    :ivar full: how many more points may be read in full.
    :ivar large: windows of which only a sample is to be read, each with its points.
    :ivar pieces: that were read, and ``runs``: what differs, each with the number of its piece.
    """

    measurement: Measurement
    since: int | None
    until: int | None
    windows: int
    points: int
    full: int
    large: Sequence[tuple[Window, int]]
    pieces: int
    runs: Sequence[tuple[int, Run]]

    def line(self) -> bytes:
        """Return it as a line of JSON."""
        return json.dumps(attrs.astuple(self, recurse=False)).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """Read it from a line of JSON.

        :raises ValueError: it is none; so do :exc:`TypeError` and :exc:`LookupError`.
        """
        measurement, since, until, windows, points, full, large, pieces, runs = json.loads(line)
        return cls(
            Measurement(*measurement),
            since,
            until,
            windows,
            points,
            full,
            [(Window(*window), number) for window, number in large],
            pieces,
            [(piece, Run(Flaw(kind, tuple(backends)), *others)) for piece, ((kind, backends), *others) in runs],
        )


class Memory:
    """The windows that were compared, by an interrupted run and by this one.

    :ivar note: for people: whether it goes on, or why it is not remembered; empty for a run that begins.
    """

    def __init__(self) -> None:
        self.note = ""
        self._records: dict[tuple[Measurement, int | None], Record] = {}
        self._file: BinaryIO | None = None
        self._path: Path | None = None

    @classmethod
    def open(cls, directory: Path, key: Sequence[Any], *, restart: bool) -> Memory:
        """Return what is known of a run that was interrupted, and remember this one, if the directory allows that.

        :param key: what is compared, as values for JSON.
        :param restart: whether to start over.
        """
        memory = cls()
        head = json.dumps([_VERSION, *key]).encode() + b"\n"
        path = directory / f"verify-{hashlib.sha256(head).hexdigest()[:16]}.jsonl"
        try:
            memory._open(path, head, restart=restart)
        except BlockingIOError:
            memory.note = "the same verification is under way already, and this one is not remembered"
        except OSError as error:
            memory.note = f"an interrupted run would start over, since {path} cannot be used: {error.strerror or error}"
        return memory

    def _open(self, path: Path, head: bytes, *, restart: bool) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            written = os.fstat(file.fileno()).st_mtime
            end = 0
            if not restart and time.time() - written < MAX_AGE and file.readline() == head:
                end = self._read(file, len(head))
            if self._records:
                number = count(sum(each.since is not None for each in self._records.values()), "window")
                self.note = (
                    f"going on with a run that was interrupted at {iso(written)}: {number} not compared again;"
                    " --restart starts over"
                )
            else:
                end = 0
            file.seek(end)
            file.truncate()
            if not end:
                file.write(head)
                file.flush()
        except BaseException:
            file.close()
            raise
        self._file, self._path = file, path

    def _read(self, file: BinaryIO, end: int) -> int:
        """Read the records, and return where the last whole one ends."""
        for line in file:
            try:
                record = Record.parse(line)
            except (ValueError, TypeError, LookupError):
                break
            self._records[record.measurement, record.since] = record
            end += len(line)
        return end

    def of(self, measurement: Measurement, since: int | None) -> Record | None:
        """Return what was found in the window that begins here; None if it was not compared."""
        return self._records.get((measurement, since))

    def add(self, record: Record) -> None:
        """Remember a window."""
        if self._file is None:
            return
        try:
            self._file.write(record.line())
            self._file.flush()
        except OSError as error:
            self.note = (
                f"an interrupted run would start over, since {self._path} cannot be used: {error.strerror or error}"
            )
            self.close()

    def close(self) -> None:
        """Keep the file as it is."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def forget(self) -> None:
        """Remove the file: the run has come to its end."""
        if self._file is not None and self._path is not None:
            self._path.unlink(missing_ok=True)
        self.close()


def state_directory() -> Path:
    """Return where this user's programs keep their state: as systemd says, or the XDG base directories."""
    if given := os.environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(given)
    home = os.environ.get("XDG_STATE_HOME", "")
    base = Path(home) if Path(home).is_absolute() else Path.home() / ".local" / "state"
    return base / "influxrelay"
