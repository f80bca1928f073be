"""Opening a journal's files, and learning from them where the backends stand."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from twisted.logger import Logger

from influxrelay.core.errors import JournalError
from influxrelay.journal.corruption import move_aside
from influxrelay.journal.housekeeping import Housekeeper
from influxrelay.journal.interface import Key, Positions
from influxrelay.journal.ledger import FILE
from influxrelay.journal.recovery import Findings
from influxrelay.journal.store import Store
from influxrelay.journal.worker import no_answer

_log = Logger()


def open_store(directory: Path, full_sync: bool, now: float, *, may_upgrade: bool) -> Store:  # noqa: FBT001
    """Open the files, and log what is damaged in the log.

    :param now: seconds since the epoch.
    :raises sqlite3.DatabaseError: the ledger is corrupt, or the disk fails; so do OSErrors and ValueErrors.
    :raises JournalError: the journal is in use, or of a version that cannot be read.
    """
    return _told(Store(directory, full_sync=full_sync, now=now, may_upgrade=may_upgrade))


def check_disk(directory: Path, seconds: float) -> Callable[[], None] | None:
    """Write something, and wait for no longer than this; what is wrong with the directory shows when it is opened.

    :return: removes what is begun there from now on; None if there is a journal already.
    :raises JournalError: the disk has not answered.
    """
    remove: Callable[[], None] | None = None

    def write() -> None:
        nonlocal remove
        with suppress(OSError):
            remove = _remover(directory)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = directory / "start"
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            path.unlink(missing_ok=True)

    thread = threading.Thread(target=write, name="start", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise JournalError(f"{directory}: {no_answer(seconds)}")
    return remove


def _remover(directory: Path) -> Callable[[], None] | None:
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    before = [] if missing else list(directory.iterdir())
    if directory / FILE in before:
        return None

    def remove() -> None:
        for path in directory.iterdir():
            if path not in before:
                path.unlink()
        for each in missing:
            each.rmdir()

    return remove


def open_anew(directory: Path, full_sync: bool, now: float, error: Exception) -> Store:  # noqa: FBT001
    """Move a ledger aside that makes no sense, and open the files with a new one."""
    tell_of_damage(directory, error, move_aside(directory, now))
    return _told(Store(directory, full_sync=full_sync, now=now, anew=True))


def _told(store: Store) -> Store:
    for each in store.findings.damage:
        _log.critical("the journal in {directory}: {damage}", directory=str(store.directory), damage=each)
    return store


def tell_of_damage(directory: Path, error: Exception, aside: Path) -> None:
    """Log that a ledger was moved aside."""
    _log.critical(
        "the journal in {directory} is damaged ({error}): its ledger is now {aside}, and a new one is begun",
        directory=str(directory),
        error=error,
        aside=aside.name,
    )


def restore(
    house: Housekeeper, found: Findings, backends: Mapping[Key, tuple[str, str]] | None
) -> dict[Key, Positions]:
    """Register the backends, and return what waits for each of them.

    A backend that the ledger does not know gets what comes from now on. If the ledger knows none, because it was begun
    anew, all of them get everything that is in the log.

    :param backends: None to leave the registered ones as they are.
    :raises sqlite3.Error: the disk fails, or the ledger is corrupt.
    """
    cursors = house.cursors
    if backends is not None:
        house.registry.register(backends)
    cursors.activate(house.registry.active())
    for backend in cursors.active:
        floor = found.floors.get(backend, found.last_number if found.backends else 0)
        written = found.cursors.get(backend, {})
        cursors.note_written(backend, written)
        for where, number in found.last_numbers.items():
            passed = written.get(where, floor)
            if passed < number:
                cursors.restore(backend, where, passed, number)
    if found.anew:
        house.accounts.count_damage(cursors.active, found.now)
    if backends is not None:
        house.books.save_now()
    waiting = {key: cursors.waiting(house.registry.id_of(key) or 0) for key in backends or ()}
    return {key: list(positions.items()) for key, positions in waiting.items()}
