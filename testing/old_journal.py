"""A journal as version 0.1 left it, whose log was in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

from influxrelay.core.write import Destination
from influxrelay.journal.records import Record

SCHEMA = """
CREATE TABLE destinations (
    id INTEGER PRIMARY KEY,
    database BLOB NOT NULL, retention_policy BLOB NOT NULL, precision BLOB NOT NULL,
    authorization BLOB NOT NULL, username BLOB NOT NULL, password BLOB NOT NULL,
    UNIQUE (database, retention_policy, precision, authorization, username, password)
);
CREATE TABLE log (
    seq INTEGER PRIMARY KEY, destination INTEGER NOT NULL, time REAL NOT NULL,
    query BLOB NOT NULL, mergeable INTEGER NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE INDEX log_of_destination ON log (destination, seq);
CREATE TABLE backends (
    name TEXT PRIMARY KEY, location TEXT NOT NULL, since INTEGER NOT NULL, active INTEGER NOT NULL
);
CREATE TABLE cursors (
    backend TEXT NOT NULL, destination INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (backend, destination)
) WITHOUT ROWID;
CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY, time REAL NOT NULL, backend TEXT NOT NULL, destination INTEGER NOT NULL,
    query BLOB NOT NULL, status INTEGER NOT NULL, words TEXT NOT NULL, body BLOB NOT NULL
);
CREATE TABLE drops (
    backend TEXT NOT NULL, reason TEXT NOT NULL, writes INTEGER NOT NULL, bytes INTEGER NOT NULL,
    first REAL NOT NULL, last REAL NOT NULL, PRIMARY KEY (backend, reason)
) WITHOUT ROWID;
"""


class OldJournal:
    """Makes the file ``journal.sqlite`` of version 0.1."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = directory / "journal.sqlite"
        self._db = sqlite3.connect(self.path, isolation_level=None)
        self._db.execute("PRAGMA page_size = 16384")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = 1; COMMIT")
        self._ids: dict[Destination, int] = {}
        self._db.execute("BEGIN")

    def _number(self, where: Destination) -> int:
        if where not in self._ids:
            self._ids[where] = len(self._ids) + 1
            row = (self._ids[where], where.database, where.retention_policy, where.precision, *where.credentials)
            self._db.execute("INSERT INTO destinations VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return self._ids[where]

    def append(self, *records: Record, damaged: bool = False) -> None:
        """Add writes."""
        for each in records:
            write = each.write
            crc = crc32(write.body) ^ damaged
            row = (each.seq, self._number(write.destination), each.time, write.query, write.mergeable, crc, write.body)
            self._db.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def backend(
        self,
        name: str,
        location: str,
        cursors: Iterable[tuple[Destination, int]] = (),
        *,
        since: int = 0,
        active: bool = True,
    ) -> None:
        """Add a backend."""
        self._db.execute("INSERT INTO backends VALUES (?, ?, ?, ?)", (name, location, since, active))
        rows = [(name, self._number(where), number) for where, number in cursors]
        self._db.executemany("INSERT INTO cursors VALUES (?, ?, ?)", rows)

    def bury(self, backend: str, record: Record, status: int, words: str) -> None:
        """Add a dead letter."""
        write = record.write
        row = (record.time, backend, self._number(write.destination), write.query, status, words, write.body)
        self._db.execute(
            "INSERT INTO dead_letters (time, backend, destination, query, status, words, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            row,
        )

    def drop(self, *row: object) -> None:
        """Add a count of what was lost: backend, reason, writes, bytes, first, last."""
        self._db.execute("INSERT INTO drops VALUES (?, ?, ?, ?, ?, ?)", row)

    def close(self) -> None:
        """Commit, and close the file."""
        self._db.execute("COMMIT")
        self._db.close()
