"""Journals that make no sense: how they are known, and what becomes of their files."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from influxrelay.journal.ledger import FILE

_NOT_DAMAGE = frozenset(
    (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
    )
)


def is_corrupt(error: Exception) -> bool:
    """Tell whether what is in the files makes no sense; a disk that is full or fails is no damage."""
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(error, ValueError):
        return True
    if isinstance(error, sqlite3.ProgrammingError) or not isinstance(error, sqlite3.DatabaseError):
        return False
    return code is None or code & 0xFF not in _NOT_DAMAGE


def files_of(directory: Path) -> dict[str, Path]:
    """Return where SQLite has a journal's files, by what their names end in."""
    return {suffix: directory / (FILE + suffix) for suffix in ("", "-wal", "-shm")}


def move_aside(directory: Path, when: float) -> Path:
    """Give a journal's files other names, with the time, and return the first of them."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(when))
    aside = directory / f"{FILE}.corrupt-{stamp}"
    for suffix, source in files_of(directory).items():
        if source.exists():
            source.rename(f"{aside}{suffix}")
    return aside
