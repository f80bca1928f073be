"""What the operator can do while the relay does not run: look at its journals, and drop what is in them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from influxrelay.config.settings import Config
from influxrelay.core.errors import JournalError
from influxrelay.journal.records import DeadLetter, Depth, Drop
from influxrelay.journal.store import FILE, Store
from influxrelay.operations.views import Refused, Request, Row, only, summary, whole

_PAGE = 16  # dead letters that are read at once


def run(config: Config, request: Request, no_relay: str) -> dict[str, Any]:
    """Do what can be done without a relay, with its journals.

    :param no_relay: why there is none to ask.
    :raises Refused: it cannot be done.
    """
    command = _COMMANDS.get(request.command)
    if command is None:
        raise Refused(f"{no_relay}; this needs a relay that runs")
    listeners = config.listeners
    if request.listener and request.listener not in [each.name for each in listeners]:
        there_is = ", ".join(each.name for each in listeners)
        raise Refused(f"there is no listener {request.listener}; there is: {there_is}")
    directories = {
        each.name: Path(each.journal.directory)
        for each in listeners
        if each.journal is not None and request.listener in ("", each.name)
    }
    if not directories:
        raise Refused(f"{no_relay}, and there is no journal that could be read instead")
    try:
        return command(directories, request)
    except JournalError as error:
        raise Refused(f"{no_relay}; {error}") from error


@contextmanager
def _opened(directory: Path, *, changes: bool = False) -> Iterator[Store | None]:
    """Open a journal; None where no relay has made one yet."""
    try:
        if not (directory / FILE).exists():
            yield None
            return
        journal = Store(directory)
        try:
            if changes:
                journal.begin()
            yield journal
            if changes:
                journal.commit()
        finally:
            journal.close()
    except OSError as error:
        raise Refused(f"{directory}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise Refused(f"{directory}: {error}") from error


def _queues(directories: dict[str, Path], request: Request) -> dict[str, Any]:
    del request
    now, rows = time.time(), []
    for listener, directory in directories.items():
        with _opened(directory) as journal:
            if journal is None:
                continue
            drops, letters = journal.drops(), journal.count_dead_letters()
            rows += [
                Row(
                    listener=listener,
                    backend=each.backend,
                    state="stopped" if each.active else "removed",
                    queue="journal",
                    location=each.location,
                    writes=each.writes,
                    bytes=each.bytes,
                    oldest=each.oldest,
                    drops=tuple(drop for drop in drops if drop.backend == each.backend),
                    dead_letters=letters.get(each.backend, 0),
                    journal=str(directory),
                )
                for each in journal.depths()
            ]
    return {"relay": "stopped", "queues": [row.show(now) for row in rows]}


def _find_backend(directories: dict[str, Path], request: Request) -> tuple[str, Depth]:
    """Return the listener that has a backend, and what waits for it."""
    known: list[str] = []
    found = []
    for listener, directory in directories.items():
        with _opened(directory) as journal:
            for each in journal.depths() if journal is not None else ():
                known.append(each.backend)
                if each.backend == request.backend:
                    found.append((listener, (listener, each)))
    return only(found, f"backend {request.backend}", request.listener, known)


def _drop_queue(directories: dict[str, Path], request: Request) -> dict[str, Any]:
    listener, depth = _find_backend(directories, request)
    with _opened(directories[listener], changes=True) as journal:
        if journal is not None:
            journal.drop_backend(request.backend)
            journal.sweep()
    return {
        "listener": listener,
        "backend": request.backend,
        "writes": depth.writes,
        "bytes": depth.bytes,
        "forgotten": not depth.active,
    }


def _repaired(directories: dict[str, Path], request: Request) -> dict[str, Any]:
    listener, _ = _find_backend(directories, request)
    drops: list[Drop] = []
    with _opened(directories[listener], changes=True) as journal:
        if journal is not None:
            drops = journal.forget_drops(request.backend)
    return {
        "listener": listener,
        "backend": request.backend,
        "writes": sum(each.writes for each in drops),
        "bytes": sum(each.bytes for each in drops),
    }


def _letters(journal: Store | None, request: Request) -> Iterator[DeadLetter]:
    after = 0
    while journal is not None and (page := journal.dead_letters(after, _PAGE)):
        yield from (each for each in page if request.backend in ("", each.backend))
        after = page[-1].id


def _list_letters(directories: dict[str, Path], request: Request) -> dict[str, Any]:
    listed = []
    for listener, directory in directories.items():
        with _opened(directory) as journal:
            listed += [summary(listener, str(each.id), each) for each in _letters(journal, request)]
    return {"dead_letters": listed}


def _find(directories: dict[str, Path], request: Request, number: str) -> tuple[str, DeadLetter]:
    found = []
    for listener, directory in directories.items():
        with _opened(directory) as journal:
            if journal is not None and number.isascii() and number.isdigit() and 0 < int(number[:19]) < 2**62:
                letters = journal.dead_letters(int(number) - 1, 1)
                found += [(listener, (listener, each)) for each in letters if str(each.id) == number]
    return only(found, f"dead letter {number}", request.listener)


def _show_letter(directories: dict[str, Path], request: Request) -> dict[str, Any]:
    (number,) = request.ids
    listener, letter = _find(directories, request, number)
    return whole(listener, number, letter)


def _drop_letters(directories: dict[str, Path], request: Request) -> dict[str, Any]:
    wanted = [_find(directories, request, number) for number in dict.fromkeys(request.ids)]
    dropped = 0
    for listener, directory in directories.items():
        with _opened(directory, changes=True) as journal:
            if journal is not None:
                ids = [letter.id for name, letter in wanted if name == listener]
                if request.all:
                    ids = [each.id for each in _letters(journal, request)]
                journal.drop_dead_letters(ids)
                dropped += len(ids)
    return {"dropped": dropped}


_COMMANDS: dict[str, Callable[[dict[str, Path], Request], dict[str, Any]]] = {
    "queues": _queues,
    "queues drop": _drop_queue,
    "queues repaired": _repaired,
    "dead-letters list": _list_letters,
    "dead-letters show": _show_letter,
    "dead-letters drop": _drop_letters,
}
