"""Tests of a journal's store: the case that opens one, and records to put into it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from influxrelay.core.write import Destination, Write
from influxrelay.journal.records import Record
from influxrelay.journal.store import Store

PLACE = Destination(b"db", b"rp", b"ns", (b"Token t", b"user", b"secret"))
OTHER = Destination(b"\xff\x00", b"", b"s", (b"", b"", b""))
BACKENDS = {"a": "http://a", "b": "http://b"}


def write(body: bytes = b"m f=1 1\n", where: Destination = PLACE, *, mergeable: bool = True) -> Write:
    """Return a write."""
    return Write(where, b"db=db", where.credentials[0], body, mergeable)


def record(seq: int, where: Destination = PLACE, body: bytes = b"") -> Record:
    """Return a record that was accepted at ten times its number."""
    return Record(seq, seq * 10.0, write(body or b"%d\n" % seq, where))


class JournalCase(SynchronousTestCase):
    """A journal in a new directory, with two backends."""

    def setUp(self) -> None:
        """Open it."""
        self.directory = Path(self.mktemp())
        self.journal = Store(self.directory)
        self.addCleanup(self.close)
        self.register(**BACKENDS)

    def close(self) -> None:
        """Close the journal that is open last."""
        self.journal.close()

    @contextmanager
    def transaction(self) -> Iterator[Store]:
        """Do something in one transaction."""
        self.journal.begin()
        yield self.journal
        self.journal.commit()

    def register(self, **backends: str) -> None:
        """Say which backends there are."""
        with self.transaction() as journal:
            journal.register(backends)

    def append(self, *records: Record) -> None:
        """Append and commit."""
        with self.transaction() as journal:
            journal.append(records)

    def advance(self, backend: str, seq: int, where: Destination = PLACE) -> None:
        """Move a cursor, and sweep."""
        with self.transaction() as journal:
            journal.advance({(backend, where): seq})
            journal.sweep()

    def reopen(self, **settings: Any) -> None:
        """Close it and open it again."""
        self.journal.close()
        self.journal = Store(self.directory, **settings)

    def seqs(self, where: Destination = PLACE, after: int = 0) -> list[int]:
        """Return the numbers that are there."""
        return [each.seq for each in self.journal.read(where, after, 1 << 30)[0]]

    def waiting(self, backend: str) -> dict[Destination, int]:
        """Return a backlog."""
        return dict(self.journal.backlog(backend))
