"""What of a configuration is each worker's: a journal of its own, and the datagrams for the first one."""

from __future__ import annotations

import contextlib
from pathlib import Path

import attrs

from influxrelay.config_values import Config, HTTPListener
from influxrelay.journal import FILE

_PREFIX = "worker-"


def for_worker(config: Config, worker: int) -> Config:
    """Return a worker's configuration.

    The first one has the journals' directories themselves, as the only process of ``workers = 1`` has, and all UDP.
    A worker beyond ``workers`` only has listeners that listen nowhere, for the journals that it left there.
    """
    config = attrs.evolve(config, admin=None, admin_socket=None)
    if worker == 0:
        return config
    http = [_moved(listener, worker) for listener in config.http]
    if worker >= config.workers:
        http = [attrs.evolve(each, endpoint="") for each in http if _has_journal(each)]
    return attrs.evolve(config, http=tuple(http), udp=())


def _moved(listener: HTTPListener, worker: int) -> HTTPListener:
    if listener.journal is None:
        return listener
    directory = str(Path(listener.journal.directory) / f"{_PREFIX}{worker}")
    return attrs.evolve(listener, journal=attrs.evolve(listener.journal, directory=directory))


def _has_journal(listener: HTTPListener) -> bool:
    return listener.journal is not None and (Path(listener.journal.directory) / FILE).exists()


def make_parents(config: Config) -> None:
    """Make the directories in which the workers' are, as private as those; a journal says what is wrong with one."""
    for listener in config.http:
        if listener.journal is not None:
            with contextlib.suppress(OSError):
                Path(listener.journal.directory).mkdir(mode=0o700, parents=True, exist_ok=True)


def left_over(config: Config) -> list[int]:
    """Return the workers beyond ``workers`` whose journals are still there."""
    found: set[int] = set()
    for listener in config.http:
        if listener.journal is not None:
            for path in Path(listener.journal.directory).glob(f"{_PREFIX}*/{FILE}"):
                number = path.parent.name.removeprefix(_PREFIX)
                if number.isascii() and number.isdecimal() and int(number) >= config.workers:
                    found.add(int(number))
    return sorted(found)


def remove_journal(directory: Path) -> None:
    """Remove the files of a journal that is empty; what was put aside stays."""
    for name in (FILE, f"{FILE}-wal", f"{FILE}-shm", "lock"):
        (directory / name).unlink(missing_ok=True)
    if not any(directory.iterdir()):
        directory.rmdir()
