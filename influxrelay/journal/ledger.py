"""What a journal remembers beside its log, in SQLite.

That is backends, cursors, where the log's writes are, dead letters and losses. Nothing here is written while a client
waits: the log comes first, and the ledger follows. What the ledger lacks after a crash is found by reading the end of
the log, and a cursor that lags behind lets a backend get again what it had.

A ledger belongs to one thread. No method commits: that is :meth:`Ledger.transaction`'s.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from influxrelay.core.errors import JournalError
from influxrelay.core.write import Destination, Write
from influxrelay.journal.cursors import Moves
from influxrelay.journal.frames import destination_of, key_of, pack, unpack
from influxrelay.journal.records import DeadLetter
from influxrelay.journal.registry import Backend
from influxrelay.journal.segment import Places, Segment

FILE = "journal.sqlite"
VERSION = 2
SCHEMA = """
CREATE TABLE backends (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, location TEXT NOT NULL, active INTEGER NOT NULL, floor INTEGER NOT NULL
);
CREATE TABLE cursors (
    backend INTEGER NOT NULL, destination BLOB NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (backend, destination)
) WITHOUT ROWID;
CREATE TABLE tail (first INTEGER NOT NULL, size INTEGER NOT NULL);
CREATE TABLE segments (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, size INTEGER NOT NULL, file TEXT NOT NULL
);
CREATE TABLE entries (
    segment INTEGER NOT NULL, destination BLOB NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    writes INTEGER NOT NULL, bytes INTEGER NOT NULL, oldest REAL NOT NULL, newest REAL NOT NULL,
    queries BLOB NOT NULL, places BLOB NOT NULL
);
CREATE UNIQUE INDEX entries_of_destination ON entries (destination, segment);
CREATE INDEX entries_of_segment ON entries (segment);
CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY, time REAL NOT NULL, backend INTEGER, name TEXT, destination BLOB NOT NULL,
    query BLOB NOT NULL, gzipped INTEGER NOT NULL, status INTEGER NOT NULL, message TEXT NOT NULL, body BLOB NOT NULL
);
CREATE TABLE losses (
    backend INTEGER NOT NULL, reason TEXT NOT NULL, writes INTEGER NOT NULL, bytes INTEGER NOT NULL,
    first REAL NOT NULL, last REAL NOT NULL, PRIMARY KEY (backend, reason)
) WITHOUT ROWID;
"""

_OWNER = "COALESCE(backends.name, letters.name)"
_LETTERS = "FROM dead_letters AS letters LEFT JOIN backends ON backends.id = letters.backend"


@attrs.frozen
class Loss:
    """What one backend will not get; adds to what it has lost before.

    :ivar backend: its id.
    :ivar first: when the first of it was accepted, in seconds since the epoch; ``last`` likewise.
    """

    backend: int
    reason: str
    writes: int
    bytes: int
    first: float
    last: float


@attrs.frozen(eq=False)
class Letter:
    """A dead letter that is to be kept."""

    backend: int
    time: float
    write: Write
    status: int
    message: str


@attrs.frozen
class Sealed:
    """A segment that the ledger knows.

    :ivar first: a number that is not above that of its first write; ``last``: the highest.
    :ivar size: of its file, in bytes.
    :ivar file: the file's name.
    """

    first: int
    last: int
    size: int
    file: str


@attrs.frozen
class Entry:
    """The writes of one destination in one segment.

    :ivar first: the lowest number of them; ``last``: the highest.
    :ivar oldest: when the first of them was accepted, in seconds since the epoch; ``newest``: when the last was.
    """

    segment: int
    destination: Destination
    first: int
    last: int
    writes: int
    bytes: int
    oldest: float
    newest: float


def open_database(path: Path) -> sqlite3.Connection:
    """Open a database that only its owner can read, and make it if there is none."""
    wal = path.with_name(f"{path.name}-wal")
    if wal.is_file() and wal.stat().st_size and not (path.exists() and path.stat().st_size):
        raise sqlite3.DatabaseError(f"{path.name} is empty, and {wal.name} is not")  # SQLite would just delete it
    path.touch(mode=0o600)
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    return database


class Ledger:
    """The tables of an open database.

    :raises JournalError: it is of another version.
    """

    def __init__(self, database: sqlite3.Connection, directory: Path) -> None:
        self._db = database
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise JournalError(f"{directory}: found a journal of version {version}; allowed: up to {VERSION}")
        if version == 1:
            raise JournalError(f"{directory}: a journal of version 0.1; a relay that starts upgrades it")
        if version == 0:
            database.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT")

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def set_sync(self, *, full: bool) -> None:
        """Say whether a commit survives power loss, or only the end of the process."""
        self._db.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is done meanwhile, or undo it all."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def touch(self) -> None:
        """Write what is there already, to see whether the disk takes anything."""
        self._db.execute(f"PRAGMA user_version = {VERSION}")

    # -- backends and cursors

    def backends(self) -> list[tuple[Backend, int]]:
        """Return all backends, each with its floor."""
        rows = self._db.execute("SELECT id, name, location, active, floor FROM backends ORDER BY id")
        return [
            (Backend(number, name, location, bool(active)), floor) for number, name, location, active, floor in rows
        ]

    def set_backends(self, backends: Iterable[Backend], floor: int) -> None:
        """Write down which backends there are.

        :param floor: of those that are new.
        """
        rows = [(each.id, each.name, each.location, each.active, floor) for each in backends]
        self._db.executemany(
            "INSERT INTO backends VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
            " name = excluded.name, location = excluded.location, active = excluded.active",
            rows,
        )

    def forget_backend(self, backend: int) -> None:
        """Remove a backend, its cursors and its losses; its dead letters stay, with its name."""
        self._db.execute(
            "UPDATE dead_letters SET backend = NULL, name = (SELECT name FROM backends WHERE id = ?1)"
            " WHERE backend = ?1",
            (backend,),
        )
        for table, column in (("backends", "id"), ("cursors", "backend"), ("losses", "backend")):
            self._db.execute(f"DELETE FROM {table} WHERE {column} = ?", (backend,))  # noqa: S608 (our own names)

    def cursors(self, backend: int) -> dict[Destination, int]:
        """Return the destinations of which a backend does not have everything up to its floor."""
        rows = self._db.execute("SELECT destination, number FROM cursors WHERE backend = ?", (backend,))
        return {destination_of(key): number for key, number in rows}

    def move(self, moves: Moves) -> None:
        """Write down where the cursors are."""
        self.set_cursors(moves.moved)
        self._db.executemany(
            "DELETE FROM cursors WHERE backend = ? AND destination = ?",
            [(backend, key_of(where)) for backend, where in moves.gone],
        )
        self._db.executemany(
            "UPDATE backends SET floor = ? WHERE id = ?", [(moves.floor, backend) for backend in moves.active]
        )

    def set_cursors(self, cursors: Iterable[tuple[int, Destination, int]]) -> None:
        """Write down some cursors: backend, destination and number."""
        rows = [(backend, key_of(where), number) for backend, where, number in cursors]
        self._db.executemany("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", rows)

    def prune(self) -> None:
        """Forget the cursors of destinations that the log does not know."""
        self._db.execute("DELETE FROM cursors WHERE destination NOT IN (SELECT destination FROM entries)")

    # -- the log's segments

    def tail(self) -> tuple[int, int]:
        """Return the first number of the last segment, and how many bytes it had at least; zeros if it is not known."""
        first, size = self._db.execute("SELECT MAX(first), size FROM tail").fetchone()
        return first or 0, size or 0

    def set_tail(self, first: int, size: int) -> None:
        """Remember what :meth:`tail` returns."""
        self._db.execute("DELETE FROM tail")
        self._db.execute("INSERT INTO tail VALUES (?, ?)", (first, size))

    def segments(self) -> list[Sealed]:
        """Return all segments, the oldest first."""
        return [Sealed(*row) for row in self._db.execute("SELECT first, last, size, file FROM segments ORDER BY first")]

    def segment(self, first: int) -> Sealed | None:
        """Return a segment by its first number; None if it is not known."""
        row = self._db.execute("SELECT first, last, size, file FROM segments WHERE first = ?", (first,)).fetchone()
        return None if row is None else Sealed(*row)

    def add_segment(self, segment: Segment) -> None:
        """Write down where a segment's writes are."""
        row = (segment.first, segment.last, segment.size, segment.path.name)
        self._db.execute("INSERT OR REPLACE INTO segments VALUES (?, ?, ?, ?)", row)
        self._db.executemany(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [_row(segment.first, where, each) for where, each in segment.places.items() if len(each)],
        )

    def set_places(self, segment: int, destination: Destination, places: Places) -> None:
        """Write down that other writes of a destination are left in a segment."""
        key = key_of(destination)
        self._db.execute("DELETE FROM entries WHERE segment = ? AND destination = ?", (segment, key))
        if len(places):
            row = _row(segment, destination, places)
            self._db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def remove_segment(self, first: int) -> None:
        """Forget a segment."""
        self._db.execute("DELETE FROM entries WHERE segment = ?", (first,))
        self._db.execute("DELETE FROM segments WHERE first = ?", (first,))

    def remove_segments(self) -> None:
        """Forget all segments."""
        self._db.execute("DELETE FROM entries")
        self._db.execute("DELETE FROM segments")

    def entries(self, segment: int) -> list[Entry]:
        """Return what there is in a segment."""
        return self._entries("segment = ?", (segment,))

    def entries_after(self, destination: Destination, after: int) -> list[Entry]:
        """Return where a destination has higher numbers."""
        return self._entries("destination = ? AND last > ? ORDER BY segment", (key_of(destination), after))

    def entries_before(self, when: float) -> list[Entry]:
        """Return where there are writes that were accepted before a time, in seconds since the epoch."""
        return self._entries("oldest < ? ORDER BY segment", (when,))

    def _entries(self, condition: str, values: Sequence[object]) -> list[Entry]:
        names = "segment, destination, first, last, writes, bytes, oldest, newest"
        query = f"SELECT {names} FROM entries WHERE {condition}"  # noqa: S608 (our own names)
        return [Entry(row[0], destination_of(row[1]), *row[2:]) for row in self._db.execute(query, values)]

    def last_numbers(self) -> dict[Destination, int]:
        """Return the highest number of each destination."""
        rows = self._db.execute("SELECT destination, MAX(last) FROM entries GROUP BY destination")
        return {destination_of(key): last for key, last in rows}

    def segment_of(self, number: int) -> int | None:
        """Return the first number of the segment in which a write is, if it is in one."""
        row = self._db.execute("SELECT MAX(first) FROM segments WHERE first <= ? AND last >= ?", (number, number))
        found: int | None = row.fetchone()[0]
        return found

    def places(self, segment: int, destination: Destination) -> Places:
        """Return where the writes of a destination are in a segment."""
        row = self._db.execute(
            "SELECT places, queries FROM entries WHERE segment = ? AND destination = ?",
            (segment, key_of(destination)),
        ).fetchone()
        return Places.from_bytes(row[0], _queries(row[1])) if row is not None else Places()

    # -- dead letters and losses

    def add_letters(self, letters: Iterable[Letter]) -> None:
        """Keep dead letters."""
        self._db.executemany(
            "INSERT INTO dead_letters (time, backend, destination, query, gzipped, status, message, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    each.time,
                    each.backend,
                    key_of(each.write.destination),
                    each.write.query,
                    each.write.gzipped,
                    each.status,
                    each.message,
                    each.write.body,
                )
                for each in letters
            ],
        )

    def letters(self, after: int, limit: int) -> list[DeadLetter]:
        """Return the dead letters with a higher id, the oldest first."""
        rows = self._db.execute(
            f"SELECT letters.id, time, {_OWNER}, status, message, destination, query, gzipped, body {_LETTERS}"
            " WHERE letters.id > ? ORDER BY letters.id LIMIT ?",
            (after, limit),
        )
        letters = []
        for number, when, backend, status, message, key, query, gzipped, body in rows:
            where = destination_of(key)
            write = Write(where, query, where.credentials[0], body, gzipped=bool(gzipped))
            letters.append(DeadLetter(number, when, backend, status, message, write))
        return letters

    def oldest_letters(self) -> Iterator[tuple[int, int | None, float, int]]:
        """Yield id, backend, time and bytes of each dead letter, the oldest first."""
        yield from self._db.execute("SELECT id, backend, time, LENGTH(body) FROM dead_letters ORDER BY id")

    def letter_bytes(self) -> int:
        """Return the bytes that all dead letters have together."""
        size: int = self._db.execute("SELECT COALESCE(SUM(LENGTH(body)), 0) FROM dead_letters").fetchone()[0]
        return size

    def count_letters(self) -> dict[str, int]:
        """Return how many dead letters each backend has, by its name."""
        rows = self._db.execute(f"SELECT {_OWNER}, COUNT(*) {_LETTERS} GROUP BY 1")
        return dict(rows.fetchall())

    def remove_letters(self, ids: Iterable[int]) -> int:
        """Remove dead letters, and return how many there were."""
        return self._db.executemany("DELETE FROM dead_letters WHERE id = ?", [(each,) for each in ids]).rowcount

    def add_losses(self, losses: Iterable[Loss]) -> None:
        """Count losses."""
        self._db.executemany(
            "INSERT INTO losses VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (backend, reason) DO UPDATE SET"
            " writes = writes + excluded.writes, bytes = bytes + excluded.bytes,"
            " first = MIN(first, excluded.first), last = MAX(last, excluded.last)",
            [attrs.astuple(each) for each in losses],
        )

    def losses(self) -> list[Loss]:
        """Return what was lost."""
        return [Loss(*row) for row in self._db.execute("SELECT * FROM losses ORDER BY backend, reason")]

    def forget_losses(self, backend: int) -> None:
        """Count a backend's losses from zero."""
        self._db.execute("DELETE FROM losses WHERE backend = ?", (backend,))


def _row(segment: int, destination: Destination, places: Places) -> tuple[object, ...]:
    queries = pack([part for number, query in places.queries.items() for part in (b"%d" % number, query)])
    numbers, times = places.numbers, places.times
    facts = (numbers[0], numbers[-1], len(places), sum(places.sizes), min(times), max(times))
    return (segment, key_of(destination), *facts, queries, places.to_bytes())


def _queries(data: bytes) -> dict[int, bytes]:
    fields = unpack(data)
    return {int(number): query for number, query in zip(fields[::2], fields[1::2], strict=True)}
