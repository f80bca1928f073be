"""The journal's storage: one log of writes in SQLite, and for each backend a cursor in each destination.

A write is appended once. A backend has *passed* it when it has it, or has refused it for good; an entry goes when every
backend has passed it. Destinations have cursors of their own because each is a lane: one that waits (its database does
not exist yet) holds back no other.

Everything here is synchronous and belongs to one thread; :mod:`influxrelay.journal.writer` has that thread.
"""

from __future__ import annotations

import fcntl
import math
import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from zlib import crc32

from influxrelay.core.errors import JournalError
from influxrelay.core.matching import find_again
from influxrelay.core.write import Destination, Write
from influxrelay.journal.records import Contents, DeadLetter, Depth, Drop, Record

VERSION = 1
CHECKPOINT = 4000  # pages, 64 MB: each checkpoint waits for the disk, and the clients with it
PAGE_SIZE = 16384  # bytes; SQLite's default of 4096 takes half as much CPU again for a large write
FILE = "journal.sqlite"
KEPT_DESTINATIONS = 100  # with nothing in the log
_SCHEMA = """
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


class Store:
    """The log, the cursors, the dead letters, and the count of what was dropped.

    No method commits: :meth:`commit` does, so that many appends share one.

    :param directory: made with mode 0700 if it is missing; the files in it are 0600, for credentials are in them.
    :param full_sync: every commit survives power loss, not only the end of the process.
    :raises JournalError: another relay has it open; it is of a later version; it cannot be opened at all.
    :raises sqlite3.DatabaseError: it is corrupt.
    """

    def __init__(self, directory: str | Path, *, full_sync: bool = False) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock: int | None = self._take_lock()
        try:
            self._db = self._connect(self.directory / FILE)
        except BaseException:
            os.close(self._lock)
            raise
        try:
            self._db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            # Debian's default overwrites what is deleted, for half as much CPU again.
            self._db.execute("PRAGMA secure_delete = OFF")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT}")
            self._full_sync = False
            self._db.execute("PRAGMA synchronous = NORMAL")
            self.set_sync(full=full_sync)
            self._make_schema()
            (self._page_size,) = self._db.execute("PRAGMA page_size").fetchone()
            self._load_destinations()
            self._moved = set(self._destinations)  # where something was passed or struck since the last sweep
            self._active = self._load_active()
            self.has_new_drops = True  # since whoever reads them has set this to False
            self.dropped: dict[Destination, int] = {}  # the last write of each that a bound has cost
            self.last_seq = self._find_last_seq()
        except BaseException:
            self.close()
            raise

    def _take_lock(self) -> int:
        lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise JournalError(f"{self.directory}: another relay is using this journal") from None
        return lock

    def _connect(self, path: Path) -> sqlite3.Connection:
        wal = path.with_name(f"{path.name}-wal")
        if wal.is_file() and wal.stat().st_size and not (path.exists() and path.stat().st_size):
            raise sqlite3.DatabaseError(f"{path.name} is empty, and {wal.name} is not")  # SQLite would just delete it
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def _make_schema(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise JournalError(f"{self.directory}: found a journal of version {version}; allowed: up to {VERSION}")
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT")

    def _find_last_seq(self) -> int:
        """Return the highest number ever given, as far as anything still knows of it."""
        (last,) = self._db.execute(
            "SELECT MAX(COALESCE((SELECT MAX(seq) FROM log), 0), COALESCE((SELECT MAX(seq) FROM cursors), 0),"
            " COALESCE((SELECT MAX(since) FROM backends), 0))"
        ).fetchone()
        return int(last)

    def _load_active(self) -> dict[str, dict[int, int]]:
        """Return the cursors of all active backends; of destinations without one the backend has passed ``since``."""
        active: dict[str, dict[int, int]] = {}
        self._since: dict[str, int] = dict(self._db.execute("SELECT name, since FROM backends").fetchall())
        for (name,) in self._db.execute("SELECT name FROM backends WHERE active"):
            active[name] = dict(
                self._db.execute("SELECT destination, seq FROM cursors WHERE backend = ?", (name,)).fetchall()
            )
        return active

    def close(self) -> None:
        """Close the files; what was not committed is gone."""
        self._db.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # -- writing

    def set_sync(self, *, full: bool) -> None:
        """Say what a commit survives; between two transactions."""
        if full != self._full_sync:
            self._full_sync = full
            self._db.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")

    def begin(self) -> None:
        """Begin what :meth:`commit` makes last."""
        self._db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make all since :meth:`begin` last."""
        self._db.execute("COMMIT")

    def rollback(self) -> None:
        """Undo all since :meth:`begin`, also what is known in memory of it."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._load_destinations()
        self._moved = set(self._destinations)
        self._active = self._load_active()

    def touch(self) -> None:
        """Write what is there already, to see whether the disk takes anything."""
        self._db.execute(f"PRAGMA user_version = {VERSION}")

    def append(self, records: Iterable[Record]) -> None:
        """Add writes; their numbers only rise."""
        rows = [
            (
                record.seq,
                self._number(record.write.destination),
                record.time,
                record.write.query,
                record.write.mergeable,
                crc32(record.write.body),
                record.write.body,
            )
            for record in records
        ]
        self._db.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self.last_seq = max(self.last_seq, rows[-1][0])

    def _number(self, destination: Destination) -> int:
        number = self._ids.get(destination)
        if number is None:
            row = (destination.database, destination.retention_policy, destination.precision, *destination.credentials)
            cursor = self._db.execute(
                "INSERT INTO destinations (database, retention_policy, precision, authorization, username, password)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )
            number = cursor.lastrowid or 0
            self._know(number, destination)
        return number

    def _load_destinations(self) -> None:
        self._destinations: dict[int, Destination] = {}
        self._ids: dict[Destination, int] = {}
        for number, *fields in self._db.execute(
            "SELECT id, database, retention_policy, precision, authorization, username, password FROM destinations"
        ):
            self._know(number, Destination(fields[0], fields[1], fields[2], (fields[3], fields[4], fields[5])))

    def _know(self, number: int, destination: Destination) -> None:
        self._destinations[number] = destination
        self._ids[destination] = number

    def strike(self, seqs: Iterable[int]) -> None:
        """Remove writes that no client was told were taken."""
        for seq in seqs:
            struck = self._db.execute("DELETE FROM log WHERE seq = ? RETURNING destination", (seq,)).fetchall()
            self._moved.update(number for (number,) in struck)

    def advance(self, passed: Mapping[tuple[str, Destination], int]) -> None:
        """Move cursors: (backend, destination) has passed everything up to this number."""
        rows = []
        for (backend, destination), seq in passed.items():
            number = self._ids.get(destination)  # one that is forgotten has nothing that could be passed
            if number is not None and backend in self._active:
                self._active[backend][number] = seq
                self._moved.add(number)
                rows.append((backend, number, seq))
        self._db.executemany("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", rows)

    def sweep(self) -> None:
        """Remove what every active backend has passed; with no backend at all, nothing.

        Only destinations are looked at in which something has moved. Of those that have nothing in the log, and no
        dead letter, no more are kept than :data:`KEPT_DESTINATIONS`: clients can name as many as they like.
        """
        if not self._active:
            return
        for number in self._moved:
            lowest = min(self._passed(backend, number) for backend in self._active)
            self._db.execute("DELETE FROM log WHERE destination = ? AND seq <= ?", (number, lowest))
        if len(self._destinations) > KEPT_DESTINATIONS:
            self._forget(self._moved)
        self._moved.clear()

    def _forget(self, numbers: Iterable[int]) -> None:
        """Forget those of these destinations that have nothing in the log, and no dead letter."""
        for number in numbers:
            used = self._db.execute(
                "SELECT EXISTS (SELECT 1 FROM log WHERE destination = ?)"
                " OR EXISTS (SELECT 1 FROM dead_letters WHERE destination = ?)",
                (number, number),
            ).fetchone()
            if used != (0,) or number not in self._destinations:
                continue
            self._db.execute("DELETE FROM destinations WHERE id = ?", (number,))
            self._db.execute("DELETE FROM cursors WHERE destination = ?", (number,))
            del self._ids[self._destinations.pop(number)]
            for cursors in self._active.values():
                cursors.pop(number, None)

    def _passed(self, backend: str, number: int) -> int:
        return self._active[backend].get(number, self._since[backend])

    # -- backends

    def register(
        self, backends: Mapping[str, str], since: int | None = None, live: Mapping[str, str] | None = None
    ) -> None:
        """Say which backends there are now, as name to location.

        A cursor belongs to a server: it follows the location, whatever name that has now, else the name, whose server
        has moved. A new backend starts at the end of the log. The cursor of one that is gone stays, to be listed and
        dropped, and holds nothing back.

        :param since: the last number that is not for a new backend, if that is not the last one here.
        :param live: by which name those were known until now of which that is certain.
        """
        self.has_new_drops = True
        known = dict(self._db.execute("SELECT name, location FROM backends").fetchall())
        before = find_again(known, backends, live)
        for name in known:  # out of each other's way
            self._rename(name, f"\0{name}")
        self._db.execute("UPDATE backends SET active = 0")
        for name, location in backends.items():
            if name in before:
                self._rename(f"\0{before[name]}", name)
            self._db.execute(
                "INSERT INTO backends VALUES (?, ?, ?, 1)"
                " ON CONFLICT (name) DO UPDATE SET location = excluded.location, active = 1",
                (name, location, self.last_seq if since is None else since),
            )
        for name in known.keys() - before.values():
            taken = name in backends
            self._rename(f"\0{name}", f"{name} ({known[name]})" if taken else name)
        self._active = self._load_active()
        self._moved = set(self._destinations)
        self.sweep()

    def _rename(self, old: str, new: str) -> None:
        self._db.execute("UPDATE backends SET name = ? WHERE name = ?", (new, old))
        for table in ("cursors", "dead_letters", "drops"):
            self._db.execute(f"UPDATE {table} SET backend = ? WHERE backend = ?", (new, old))  # noqa: S608 (our own words)

    def passed_before(
        self, backends: Mapping[str, str], live: Mapping[str, str]
    ) -> dict[str, list[tuple[Destination, int]]]:
        """Return up to where each backend has every destination that is not live, but known from an earlier time."""
        rows = self._db.execute("SELECT name, location, since FROM backends").fetchall()
        sinces = {name: since for name, _, since in rows}
        before = find_again({name: location for name, location, _ in rows}, backends, live)
        passed = {}
        for name in before.keys() - live.keys():
            cursors = dict(self._db.execute("SELECT destination, seq FROM cursors WHERE backend = ?", (before[name],)))
            passed[name] = [
                (each, cursors.get(number, sinces[before[name]])) for number, each in self._destinations.items()
            ]
        return passed

    def drop_backend(self, name: str) -> None:
        """Give up what waits for a backend: count it, or forget the backend if it is no longer configured."""
        if name in self._active:
            for number in self._destinations:
                rows = self._db.execute(
                    "SELECT time, LENGTH(body) FROM log WHERE destination = ? AND seq > ?",
                    (number, self._passed(name, number)),
                )
                for when, size in rows.fetchall():
                    self.count_drop(name, "operator", when, size)
                self._active[name][number] = self.last_seq
                self._moved.add(number)
                self._db.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", (name, number, self.last_seq))
        else:
            self.has_new_drops = True
            for table, column in (("backends", "name"), ("cursors", "backend"), ("drops", "backend")):
                self._db.execute(f"DELETE FROM {table} WHERE {column} = ?", (name,))  # noqa: S608 (our own words)

    # -- reading

    def read(self, destination: Destination, after: int, max_bytes: int) -> tuple[list[Record], int | None, list[int]]:
        """Read the next writes of a destination, until they have ``max_bytes`` bytes; one at least, if there is one.

        :return: the writes; up to which number this has read, None for all; the numbers of those that are damaged.
        """
        number = self._ids.get(destination, 0)
        rows = self._db.execute(
            "SELECT seq, time, query, mergeable, crc, body FROM log WHERE destination = ? AND seq > ? ORDER BY seq",
            (number, after),
        )
        records, damaged, size = [], [], 0
        for seq, when, query, mergeable, crc, body in rows:
            if crc32(body) != crc:
                damaged.append(seq)
                continue
            write = Write(destination, query, destination.credentials[0], body, bool(mergeable))
            records.append(Record(seq, when, write))
            size += len(body)
            if size >= max_bytes:
                return records, seq, damaged
        return records, None, damaged

    def backlog(self, backend: str) -> list[tuple[Destination, int]]:
        """Return the destinations in which something waits for an active backend, and what it has passed in each."""
        waiting = []
        for number, destination in self._destinations.items():
            passed = self._passed(backend, number)
            if self._db.execute(
                "SELECT 1 FROM log WHERE destination = ? AND seq > ? LIMIT 1", (number, passed)
            ).fetchone():
                waiting.append((destination, passed))
        return waiting

    def depths(self) -> list[Depth]:
        """Return what waits for each backend, the ones no longer configured too."""
        depths = []
        for name, location, active in self._db.execute("SELECT name, location, active FROM backends ORDER BY name"):
            writes, size, oldest = 0, 0, None
            for number in self._destinations if active else ():
                count, length, first = self._db.execute(
                    "SELECT COUNT(*), COALESCE(SUM(LENGTH(body)), 0), MIN(time) FROM log"
                    " WHERE destination = ? AND seq > ?",
                    (number, self._passed(name, number)),
                ).fetchone()
                writes, size = writes + count, size + length
                if first is not None:
                    oldest = min(first, oldest or first)
            depths.append(Depth(name, location, bool(active), writes, size, oldest))
        return depths

    # -- bounds

    def used(self) -> int:
        """Return the bytes that the data takes on disk."""
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        return int((pages - free) * self._page_size)

    def drop_oldest(self, max_bytes: int) -> None:
        """Drop from the old end until the data takes no more than ``max_bytes``; count it for who had not passed it."""
        while (excess := self.used() - max_bytes) > 0 and self._drop_first("full", math.inf, excess):
            continue

    def expire(self, before: float) -> None:
        """Drop what was accepted before this time, in seconds since the epoch."""
        while self._drop_first("age", before):
            continue

    def _drop_first(self, reason: str, before: float, excess: float = math.inf) -> bool:
        """Drop some of the oldest writes, and no more than it takes to get rid of ``excess`` bytes."""
        rows = self._db.execute(
            "SELECT seq, destination, LENGTH(body)"
            " FROM (SELECT seq, destination, time, body FROM log ORDER BY seq LIMIT 500) WHERE time < ?",
            (before,),
        )
        seqs = []
        for seq, number, size in rows.fetchall():
            if excess <= 0:
                break
            seqs.append(seq)
            excess -= size
            self.dropped[self._destinations[number]] = seq
        self.drop(seqs, reason)
        return bool(seqs)

    def drop(self, seqs: Iterable[int], reason: str) -> None:
        """Remove writes, and count each of them for every backend that has not passed it."""
        for seq in seqs:
            number, when, size = self._db.execute(
                "SELECT destination, time, LENGTH(body) FROM log WHERE seq = ?", (seq,)
            ).fetchone()
            for backend in self._active:
                if self._passed(backend, number) < seq:
                    self.count_drop(backend, reason, when, size)
            self.strike([seq])

    def count_drop(self, backend: str, reason: str, when: float, size: int) -> None:
        """Note that a write of this size, accepted at this time, is lost for a backend."""
        self.has_new_drops = True
        self._db.execute(
            "INSERT INTO drops VALUES (?, ?, 1, ?, ?, ?) ON CONFLICT (backend, reason) DO UPDATE SET"
            " writes = writes + 1, bytes = bytes + excluded.bytes,"
            " first = MIN(first, excluded.first), last = MAX(last, excluded.last)",
            (backend, reason, size, when, when),
        )

    def forget_drops(self, backend: str) -> list[Drop]:
        """Count from zero for a backend, and return what was counted."""
        self.has_new_drops = True
        counted = [each for each in self.drops() if each.backend == backend]
        self._db.execute("DELETE FROM drops WHERE backend = ?", (backend,))
        return counted

    def drops(self) -> list[Drop]:
        """Return what was lost."""
        return [Drop(*row) for row in self._db.execute("SELECT * FROM drops ORDER BY backend, reason")]

    def contents(self) -> Contents:
        """Return what is in the journal."""
        depths = {each.backend: each for each in self.depths()}
        return Contents(depths, tuple(self.drops()), self.count_dead_letters())

    # -- dead letters

    def add_dead_letter(self, backend: str, when: float, write: Write, status: int, words: str) -> None:
        """Keep a write that a backend has refused for good, with what it said."""
        self._db.execute(
            "INSERT INTO dead_letters (time, backend, destination, query, status, words, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (when, backend, self._number(write.destination), write.query, status, words, write.body),
        )

    def dead_letters(self, after: int = 0, limit: int = -1) -> list[DeadLetter]:
        """Return the dead letters with a higher id, the oldest first."""
        rows = self._db.execute(
            "SELECT id, time, backend, status, words, destination, query, body FROM dead_letters"
            " WHERE id > ? ORDER BY id LIMIT ?",
            (after, limit),
        )
        letters = []
        for number, when, backend, status, words, destination_number, query, body in rows:
            destination = self._destinations[destination_number]
            write = Write(destination, query, destination.credentials[0], body)
            letters.append(DeadLetter(number, when, backend, status, words, write))
        return letters

    def count_dead_letters(self) -> dict[str, int]:
        """Return how many there are for each backend that has any."""
        return dict(self._db.execute("SELECT backend, COUNT(*) FROM dead_letters GROUP BY backend").fetchall())

    def drop_dead_letters(self, ids: Iterable[int]) -> int:
        """Remove dead letters, and return how many there were."""
        cursor = self._db.executemany("DELETE FROM dead_letters WHERE id = ?", [(each,) for each in ids])
        return cursor.rowcount
