"""From the journal of version 0.1, which kept its log in SQLite, to today's.

The log is written into segments first. Then one transaction replaces the tables, so that an upgrade that is interrupted
begins again at the next start. Meanwhile the disk holds the log twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

from influxrelay.core.write import Destination, Write
from influxrelay.journal.appender import write_file
from influxrelay.journal.frames import key_of
from influxrelay.journal.ledger import SCHEMA, VERSION, Ledger, Loss
from influxrelay.journal.records import Record
from influxrelay.journal.recovery import DAMAGED
from influxrelay.journal.segment import SUFFIX, Segment

_SEGMENT = 8 * 1024 * 1024  # bytes
_OLD = ("destinations", "log", "backends", "cursors", "dead_letters", "drops")


def version_of(database: sqlite3.Connection) -> int:
    """Return the version of a journal; 0 for a new one."""
    version: int = database.execute("PRAGMA user_version").fetchone()[0]
    return version


def upgrade(database: sqlite3.Connection, directory: Path, *, full_sync: bool) -> None:
    """Upgrade a journal of version 0.1; do nothing with any other.

    :raises sqlite3.Error: its tables cannot be read, or the disk fails; nothing has changed then.
    :raises OSError: the disk fails.
    """
    if version_of(database) != 1:
        return
    for path in directory.glob(f"*{SUFFIX}"):  # of an upgrade that was interrupted
        path.unlink()
    _Upgrade(database, directory, full_sync=full_sync).run()
    database.execute("VACUUM")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


class _Upgrade:
    def __init__(self, database: sqlite3.Connection, directory: Path, *, full_sync: bool) -> None:
        self._db = database
        self._directory = directory
        self._full_sync = full_sync
        self._destinations = {
            number: Destination(name, policy, precision, (authorization, username, password))
            for number, name, policy, precision, authorization, username, password in database.execute(
                "SELECT id, database, retention_policy, precision, authorization, username, password FROM destinations"
            )
        }
        self._damaged: list[tuple[int, int, float, int]] = []  # number, destination, time and size

    def run(self) -> None:
        """Do it."""
        db = self._db
        segments = list(self._write_log())
        last = max([0, *(each.last for each in segments), *(number for number, *_ in self._damaged)])
        db.execute("BEGIN IMMEDIATE")
        try:
            db.execute("DROP INDEX log_of_destination")
            for table in _OLD:
                db.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
            for statement in SCHEMA.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {VERSION}")
            ledger = Ledger(db, self._directory)
            for segment in segments:
                ledger.add_segment(segment)
            self._convert(ledger, last)
            for table in _OLD:
                db.execute(f"DROP TABLE old_{table}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _write_log(self) -> Iterator[Segment]:
        """Write the log into segments."""
        segment: Segment | None = None
        parts: list[bytes] = []
        rows = self._db.execute("SELECT seq, destination, time, query, mergeable, crc, body FROM log ORDER BY seq")
        for number, place, when, query, mergeable, crc, body in rows:
            if crc32(body) != crc:
                self._damaged.append((number, place, when, len(body)))
                continue
            where = self._destinations[place]
            segment = segment or Segment.begin(self._directory, number)
            segment.add(Record(number, when, Write(where, query, where.credentials[0], body, bool(mergeable))), parts)
            if segment.size >= _SEGMENT:
                write_file(segment.path, parts, sync=self._full_sync)
                yield segment
                segment, parts = None, []
        if segment is not None:
            write_file(segment.path, parts, sync=self._full_sync)
            yield segment

    def _convert(self, ledger: Ledger, last: int) -> None:
        db = self._db
        backends = db.execute("SELECT name, location, since, active FROM old_backends ORDER BY name").fetchall()
        floor = max([last, *(since for _, _, since, _ in backends)])
        floor = max(floor, db.execute("SELECT COALESCE(MAX(seq), 0) FROM old_cursors").fetchone()[0])
        last_numbers = ledger.last_numbers()
        ids: dict[str, int] = {}
        for number, (name, location, since, active) in enumerate(backends, 1):
            ids[name] = number
            db.execute("INSERT INTO backends VALUES (?, ?, ?, ?, ?)", (number, name, location, active, floor))
            cursors = dict(db.execute("SELECT destination, seq FROM old_cursors WHERE backend = ?", (name,)).fetchall())
            passed = {place: cursors.get(place, since) for place in self._destinations}
            behind = [
                (number, where, passed[place])
                for place, where in self._destinations.items()
                if passed[place] < last_numbers.get(where, 0)
            ]
            ledger.set_cursors(behind)
            if active:
                ledger.add_losses(
                    Loss(number, DAMAGED, 1, size, when, when)
                    for seq, place, when, size in self._damaged
                    if passed.get(place, since) < seq
                )
        ledger.add_losses(
            Loss(ids[backend], *rest) for backend, *rest in db.execute("SELECT * FROM old_drops") if backend in ids
        )
        self._convert_letters(ids)

    def _convert_letters(self, ids: dict[str, int]) -> None:
        rows = self._db.execute(
            "SELECT id, time, backend, destination, query, status, words, body FROM old_dead_letters ORDER BY id"
        )
        for number, when, backend, place, query, status, words, body in rows:
            owner = (ids.get(backend), None if backend in ids else backend)
            row = (number, when, *owner, key_of(self._destinations[place]), query, 0, status, words, body)
            self._db.execute("INSERT INTO dead_letters VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
